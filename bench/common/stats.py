# SPDX-License-Identifier: MIT
"""What is said about samples: percentiles, and how sure a median is."""

import math
import random

RESAMPLES = 1000
CONFIDENCE = 0.95


def percentile(values, share):
    """The smallest value that at least this share of the values does not exceed."""
    if not values:
        raise ValueError("there are no values")
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def median(values):
    """The middle value, or the mean of the two in the middle."""
    if not values:
        raise ValueError("there are no values")
    ordered, half = sorted(values), len(values) // 2
    return ordered[half] if len(ordered) % 2 else (ordered[half - 1] + ordered[half]) / 2


def interval(values, resamples=RESAMPLES, confidence=CONFIDENCE, seed=1):
    """A bootstrap confidence interval of the median; the same for the same values."""
    rng = random.Random(seed)
    medians = sorted(median(rng.choices(values, k=len(values))) for _ in range(resamples))
    outside = (1 - confidence) / 2
    return (medians[int(outside * (resamples - 1))],
            medians[math.ceil((1 - outside) * (resamples - 1))])


def summarize(repetitions):
    """Of the samples of some repetitions: percentiles of all, and the median of their medians.

    Samples of one repetition are not independent: they share what the machine did then, and
    where memory happened to lie.  So it is the repetitions that are drawn anew for the interval.
    """
    medians = [median(samples) for samples in repetitions]
    everything = [value for samples in repetitions for value in samples]
    low, high = interval(medians)
    return {"samples": len(everything), "repetitions": len(repetitions),
            "median": median(medians), "low": low, "high": high,
            "p50": percentile(everything, 0.5), "p99": percentile(everything, 0.99),
            "p99.9": percentile(everything, 0.999), "max": max(everything)}


def ratio(repetitions, others, seed=1):
    """The ratio of two medians, and its interval: both are drawn anew, each on its own, for
    the repetitions of the two were made in random order."""
    a, b = ([median(samples) for samples in each] for each in (repetitions, others))
    rng = random.Random(seed)
    ratios = sorted(median(rng.choices(a, k=len(a))) / median(rng.choices(b, k=len(b)))
                    for _ in range(RESAMPLES))
    outside = (1 - CONFIDENCE) / 2
    return {"median": median(a) / median(b), "low": ratios[int(outside * (RESAMPLES - 1))],
            "high": ratios[math.ceil((1 - outside) * (RESAMPLES - 1))]}
