# SPDX-License-Identifier: MIT
"""The command."""

import argparse
import hashlib
import os
import sys
import tempfile
from pathlib import Path

from . import emit
from .model import Refused

HERE = Path(__file__).resolve().parent
FIRST = "// Made by orbit-idl from "
HASH, INPUT = "// orbit-idl: ", "// orbit-idl reads: "


def arguments(given):
    parser = argparse.ArgumentParser(
        prog="orbit-idl", allow_abbrev=False,
        description="Generates proxies and skeletons from interfaces in a C++ header; see orbit-idl(1).")
    parser.add_argument("header", metavar="HEADER")
    parser.add_argument("-o", metavar="FILE", dest="output",
                        help="where to write; by default NAME.orbit.hpp beside NAME.idl.hpp")
    parser.add_argument("-I", metavar="DIRECTORY", dest="includes", action="append", default=[],
                        help="where included headers are, as for a compiler")
    parser.add_argument("-D", metavar="NAME[=VALUE]", dest="defines", action="append", default=[],
                        help="a macro, as for a compiler")
    parser.add_argument("--std", default="c++20", help="the language; by default c++20")
    parser.add_argument("--deps", metavar="FILE", help="write there what the output depends on, for make")
    parser.add_argument("--stamp", metavar="FILE", help="touch it when all is well: what --deps then names as the output")
    parser.add_argument("--coroutines", action="store_true", help="also generate proxies whose calls are awaited")
    parser.add_argument("--check", action="store_true", help="look whether the header is accepted, and write nothing")
    return parser.parse_args(given)


def tool_hash():
    digest = hashlib.sha256()
    files = sorted(HERE.glob("*.py")) + sorted(path for path in (HERE.parent / "light").rglob("*") if path.is_file())
    for file in files:
        digest.update(file.name.encode() + b"\0" + file.read_bytes() + b"\0")
    return digest.hexdigest()


def named(path, header, includes):
    """How the output names an input: the same wherever the whole tree is."""
    path = os.path.realpath(path)
    for directory in includes:
        root = os.path.realpath(directory)
        if path.startswith(root + os.sep):
            return f"<{os.path.relpath(path, root)}>"
    return os.path.relpath(path, os.path.dirname(os.path.realpath(header)))


def found(name, header, includes):
    if name.startswith("<"):
        for directory in includes:
            path = os.path.join(directory, name[1:-1])
            if os.path.exists(path):
                return path
        return None
    return os.path.join(os.path.dirname(os.path.realpath(header)), name)


def content_hash(options, names, body):
    """Of all that the output is made of, and of itself. None if an input is not there."""
    digest = hashlib.sha256()
    digest.update(repr((tool_hash(), options.defines, options.std, options.coroutines)).encode())
    for name in [None] + names:
        path = options.header if name is None else found(name, options.header, options.includes)
        try:
            digest.update(repr(name).encode() + hashlib.sha256(Path(path).read_bytes()).digest())
        except (OSError, TypeError):
            return None
    digest.update(body.encode(errors="surrogateescape"))
    return digest.hexdigest()


def unchanged(output, options):
    """The names of the inputs if what is there is what would be generated, otherwise None."""
    try:
        text = Path(output).read_text(errors="surrogateescape")
    except OSError:
        return None
    lines = text.split("\n")
    if len(lines) < 3 or not lines[0].startswith(FIRST) or not lines[1].startswith(HASH):
        return None
    names = []
    for line in lines[2:]:
        if not line.startswith(INPUT):
            break
        names.append(line.removeprefix(INPUT))
    body = "\n".join(lines[2 + len(names):])
    return names if content_hash(options, names, body) == lines[1].removeprefix(HASH) else None


def write(path, text):
    """All of it or nothing."""
    directory = os.path.dirname(path) or "."
    descriptor, temporary = tempfile.mkstemp(dir=directory, prefix=".orbit-idl-")
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(text)
        mask = os.umask(0)
        os.umask(mask)
        os.chmod(temporary, 0o666 & ~mask)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def write_deps(options, output, names):
    if options.deps:
        escape = lambda path: path.replace("\\", "\\\\").replace(" ", "\\ ").replace("$", "$$").replace("#", "\\#")  # noqa: E731
        inputs = [options.header] + [found(name, options.header, options.includes) for name in names]
        write(options.deps, f"{escape(options.stamp or output)}: {' '.join(escape(path) for path in inputs)}\n"
              + "".join(f"{escape(path)}:\n" for path in inputs[1:]))


def generate(options):
    """(the body, the names of inputs)"""
    # libclang and its bindings take long to load: only if they are needed.
    from .rules import Rules
    from .source import Source

    if not os.path.isfile(options.header):
        raise FileNotFoundError(f"{options.header}: no such file")
    source = Source(options.header, options.includes, options.defines, options.std)
    model = Rules(source).header()
    names = sorted(named(path, options.header, options.includes) for path in source.inputs())
    return emit.emit(model, os.path.basename(options.header), options.coroutines), names


def main(given=None):
    options = arguments(given)
    output = options.output or emit.generated_name(options.header)
    try:
        if os.path.realpath(output) == os.path.realpath(options.header):
            raise FileNotFoundError(f"{output} would be written over the header")
        names = None if options.check else unchanged(output, options)
        if names is None:
            body, names = generate(options)
            if not options.check:
                digest = content_hash(options, names, body)
                if digest is None:
                    raise FileNotFoundError(f"{options.header}: an input went away")
                write(output, f"{FIRST}{os.path.basename(options.header)}: change that, not this.\n{HASH}{digest}\n"
                      + "".join(f"{INPUT}{name}\n" for name in names) + body)
        if not options.check:
            write_deps(options, output, names)
            if options.stamp:
                Path(options.stamp).touch()
    except Refused as refused:
        print("\n".join(refused.lines()), file=sys.stderr)
        return 1
    except OSError as error:
        text = f"{error.filename}: {error.strerror}" if error.filename else str(error)
        print(f"orbit-idl: {text}", file=sys.stderr)
        return 2
    return 0
