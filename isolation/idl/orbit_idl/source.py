# SPDX-License-Identifier: MIT
"""Reads a header with libclang."""

import ctypes
import os
from pathlib import Path

from .model import Refused

HERE = Path(__file__).resolve().parent
LIGHT = HERE.parent / "light"
# Where to look for headers first, one way after another. The command's own take milliseconds; where they are
# not enough, the real ones.
WAYS = [[str(LIGHT)], []]


def own_includes():
    """Where orbit's headers are: beside this, in the source tree or as installed."""
    for root in (HERE.parents[2], HERE.parents[3]):
        if (root / "include/orbit/attributes.hpp").exists():
            return [str(root / "include")]
    return []


def bindings():
    """libclang's, or why there are none."""
    try:
        import clang.cindex as cindex
        cindex.conf.lib     # loads the library
        return cindex
    except ImportError:
        raise FileNotFoundError("the Python bindings of libclang are not there "
                                "(Debian: apt-get install python3-clang)") from None
    except Exception as error:     # its own LibclangError, whose name is not there if the import failed
        raise FileNotFoundError(f"libclang cannot be loaded: {error}") from None


def kind(thing):
    """The kind's name; that of a kind that the bindings do not know is empty."""
    try:
        return thing.kind.name
    except ValueError:
        return ""


class Source:
    """A header that is C++: `unit` is libclang's."""

    def __init__(self, header, includes=(), defines=(), standard="c++20"):
        self.header = header
        self.cindex = bindings()
        errors = []
        for light in WAYS:
            arguments = ["-x", "c++", f"-std={standard}", "-DORBIT_IDL", "-Wno-pragma-once-outside-header",
                         "-fno-delayed-template-parsing"]
            arguments += [f"-D{define}" for define in defines]
            for directory in light + list(includes) + own_includes():
                arguments += ["-I", directory]
            self.unit, found = self.parse(arguments)
            if not found:
                return
            errors.append(found[0])
        # That a header is missing hides what is wrong besides, which the light ones may have shown.
        raise errors[0] if "file not found" in errors[-1].wrong else errors[-1]

    def parse(self, arguments):
        cindex = self.cindex
        try:
            unit = cindex.Index.create().parse(
                self.header, arguments,
                options=cindex.TranslationUnit.PARSE_SKIP_FUNCTION_BODIES)
        except cindex.TranslationUnitLoadError:
            return None, [Refused((self.header, 1, 1), "libclang cannot read this file",
                                  "look whether a compiler can: g++ -std=c++20 -fsyntax-only")]
        errors = []
        for found in unit.diagnostics:
            if found.severity >= cindex.Diagnostic.Error:
                place = found.location
                where = (place.file.name if place.file else self.header, place.line or 1,
                         place.column or 1)
                errors.append(Refused(where, f"not C++: {found.spelling}",
                                      "mend this first; includes are found with -I"))
        return unit, errors

    def inputs(self):
        """All files that were read and are the user's, without the header itself: sorted."""
        own = [os.path.realpath(path) for path in [str(LIGHT)] + own_includes()]
        found = set()
        for include in self.unit.get_includes():
            name = include.include.name
            real = os.path.realpath(name)
            if real == os.path.realpath(self.header):
                continue
            if any(real.startswith(path + os.sep) for path in own) or real.startswith("/usr/"):
                continue
            found.add(os.path.normpath(name))
        return sorted(found)

    def evaluate(self, cursor):
        """The value of a constant that is a whole number, otherwise None."""
        library = self.cindex.conf.lib
        evaluate = library.clang_Cursor_Evaluate
        evaluate.restype, evaluate.argtypes = ctypes.c_void_p, [self.cindex.Cursor]
        library.clang_EvalResult_getKind.argtypes = [ctypes.c_void_p]
        value = library.clang_EvalResult_getAsLongLong
        value.restype, value.argtypes = ctypes.c_longlong, [ctypes.c_void_p]
        library.clang_EvalResult_dispose.argtypes = [ctypes.c_void_p]
        found = evaluate(cursor)
        if not found:
            return None
        try:
            return value(found) if library.clang_EvalResult_getKind(found) == 1 else None
        finally:
            library.clang_EvalResult_dispose(found)
