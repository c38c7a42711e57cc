# SPDX-License-Identifier: MIT
"""What the plots of all questions share."""

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402

ORBIT, OTHER, FORK, THREAD, FAINT = "#0b6e8a", "#8a8f98", "#c8553d", "#d9a441", "#b9d6de"
SHADES = ["#b9d6de", "#6fb1c4", "#0b6e8a", "#053b4a"]

plt.rcParams.update({
    "figure.dpi": 110, "font.size": 9, "axes.titlesize": 10, "axes.titleweight": "bold",
    "axes.titlelocation": "left", "axes.spines.top": False, "axes.spines.right": False,
    "axes.grid": True, "grid.color": "#e4e6ea", "axes.axisbelow": True, "legend.frameon": False,
    "svg.fonttype": "none", "svg.hashsalt": "orbit", "lines.linewidth": 1.8, "lines.markersize": 4,
})


def panels(data, title, columns, width=4.6, height=3.6, rows=1, what=""):
    """A figure with so many axes side by side, and one below the other.

    what: is measured, if it is not time or instructions.
    """
    figure, axes = plt.subplots(rows, columns, figsize=(width * columns, height * rows),
                                layout="constrained", squeeze=False)
    figure.suptitle(f"{title}\n{where(data, what)}", x=0.01, ha="left", fontsize=9.5)
    return figure, axes.flatten()


def from_zero(axes):
    """The vertical axis, with some room above."""
    tops = [max(line.get_ydata()) for line in axes.lines if len(line.get_ydata())]
    axes.set_ylim(0, 1.2 * max(tops) if tops else 1)


def where(data, what=""):
    """What a plot must say to be read alone."""
    context = data.context
    if context["way"] == "counted":
        return (f"{what or 'instructions, counted'} in an emulated guest, Linux {context['kernel']} with orbits, "
                f"series {context['series'][:8]}")
    return (f"time, median of {context.get('repetitions', '?')} repetitions with 95 % intervals, "
            f"{context['backend']} backend, Linux {context['kernel']}")


def bars(axes, data, rows):
    """Horizontal bars of those (label, name, color) that were measured, the first on top."""
    rows = [(label, name, color) for label, name, color in rows if name in data]
    values = [data[name] for _, name, _ in rows]
    axes.barh(range(len(rows)), values, color=[color for *_, color in rows],
              xerr=list(zip(*[data.error(name) for _, name, _ in rows])) if rows else None,
              error_kw={"elinewidth": 1, "ecolor": "#333"})
    axes.set_yticks(range(len(rows)), [label for label, *_ in rows])
    axes.invert_yaxis()
    axes.grid(axis="y", visible=False)
    if values and max(values) > 30 * max(min(values), 1e-9):
        axes.set_xscale("log")
    for at, value in enumerate(values):
        axes.annotate(short(value), (value, at), xytext=(4, 0), textcoords="offset points",
                      va="center", fontsize=8)
    axes.margins(x=0.2)
    axes.set_xlabel(data.unit)


def line(axes, data, template, keys, label, **style):
    """A line over those of the keys that were measured; keys, which names have, may be a dictionary of where they are."""
    found, values, errors = data.series(template, keys)
    if found:
        at = [keys[key] for key in found] if isinstance(keys, dict) else found
        axes.errorbar(at, values, yerr=list(zip(*errors)), label=label, marker="o", capsize=2, elinewidth=1, **style)


def finish(axes, xlabel, ylabel, legend=True):
    axes.set_xlabel(xlabel)
    axes.set_ylabel(ylabel)
    if legend and axes.get_legend_handles_labels()[0]:
        axes.legend(fontsize=8)


def short(value):
    for limit, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= limit:
            return f"{value / limit:.3g}{unit}"
    return f"{value:.3g}"
