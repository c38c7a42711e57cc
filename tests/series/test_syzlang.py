# SPDX-License-Identifier: MIT
"""The description for syzkaller tells of the interface as the header has it: the same calls,
structs with the same fields in the same order and of the same sizes, the same constants."""

import re
import unittest
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
HEADER = (ROOT / "include/orbit/abi.h").read_text()
SYZLANG = (ROOT / "tests/fuzz/orbit.txt").read_text()
SYSCALLS = (ROOT / "liborbit/kernel/syscall.h").read_text()

# Bytes of a field's type.
C_SIZES = {"__u32": 4, "__s32": 4, "__aligned_u64": 8}
SYZ_SIZES = {"pid": 4, "fd_orbit_pool": 4, "fd_orbit_task": 4, "orbit_task_id": 8, "ptr64": 8, "vma64": 8}
# Limits, which are no flags or values of a field; and what is there only for another name.
NO_VALUES = re.compile(r"ORBIT_(ABI|MAX_\w+|DEFAULT_\w+|NAME_LEN)")


def without_comments(text):
    return re.sub(r"/\*.*?\*/", "", text, flags=re.S)


def header_structs(text):
    """{struct: [(field, bytes)]}"""
    structs = {}
    for name, body in re.findall(r"^struct (orbit_\w+) \{\n(.*?)^\};", without_comments(text),
                                 re.M | re.S):
        structs[name] = [
            (field, 32 if array else C_SIZES[kind])
            for kind, field, array in re.findall(r"^\t(\w+) (\w+)(\[ORBIT_NAME_LEN\])?;", body, re.M)]
    return structs


def syz_size(kind):
    """The bytes of a type: that of its name, or of the integer among its options."""
    if kind.startswith("array[int8, ORBIT_NAME_LEN]"):
        return 32
    if name := re.match(r"(\w+)", kind):
        if name[1] in SYZ_SIZES:
            return SYZ_SIZES[name[1]]
        if integer := re.match(r"int(32|64)", kind):
            return int(integer[1]) // 8
    integer = re.search(r", int(32|64)\]", kind)
    return int(integer[1]) // 8 if integer else None


def syz_structs(text):
    return {name: [(field, syz_size(kind))
                   for field, kind in re.findall(r"^\t(\w+)\t+(.+)$", body, re.M)]
            for name, body in re.findall(r"^(orbit_\w+) \{\n(.*?)^\}", text, re.M | re.S)}


def header_values(text):
    """All flags and enumerators."""
    text = without_comments(text)
    defines = set(re.findall(r"^#define (ORBIT_\w+)", text, re.M))
    enums = set(re.findall(r"^\t(ORBIT_\w+),", text, re.M))
    return {name for name in defines | enums if not NO_VALUES.fullmatch(name)}


def syz_values(text):
    lists = re.findall(r"^orbit_\w+ = (.*)$", text, re.M)
    ops = re.findall(r"^orbit_ctl\$\w+\(.*op const\[(\w+)\]", text, re.M)
    return {name for line in lists for name in line.split(", ")} | set(ops)


class Syzlang(unittest.TestCase):
    maxDiff = None

    def test_calls(self):
        described = set(re.findall(r"^(orbit_\w+)(?:\$\w+)?\(", SYZLANG, re.M))
        self.assertEqual(described, set(re.findall(r"\bNR_(orbit_\w+) = \d+", SYSCALLS)))
        self.assertEqual(len(described), 8)

    def test_structs(self):
        wanted = header_structs(HEADER)
        self.assertGreater(len(wanted), 10)
        self.assertEqual(syz_structs(SYZLANG), wanted)

    def test_values(self):
        wanted = header_values(HEADER)
        self.assertGreater(len(wanted), 50)
        self.assertEqual(syz_values(SYZLANG), wanted)

    def test_everything_used_is_described(self):
        lists = set(re.findall(r"^(orbit_\w+) = ", SYZLANG, re.M))
        self.assertEqual(set(re.findall(r"\bflags\[(orbit_\w+)", SYZLANG)), lists)
        resources = set(re.findall(r"^resource (\w+)\[", SYZLANG, re.M))
        used = set(re.findall(r"\b(fd_orbit\w*|orbit_task_id)\b", SYZLANG))
        self.assertEqual(used, resources)
        structs = set(syz_structs(SYZLANG))
        used = set(re.findall(r"\[(?:in|out|inout), (?:array\[)?(orbit_\w+)", SYZLANG))
        self.assertEqual(used, structs)

    def test_a_difference_is_seen(self):
        self.assertNotEqual(header_structs(HEADER.replace("__u32 kind;", "__aligned_u64 kind;")),
                            header_structs(HEADER))
        self.assertNotEqual(syz_structs(SYZLANG.replace("\tpool\t\tint32 (out)", "\tpool\t\tint64 (out)")),
                            syz_structs(SYZLANG))
        self.assertNotEqual(header_values(HEADER + "#define ORBIT_CALL_NEW 1\n"), header_values(HEADER))


if __name__ == "__main__":
    unittest.main()
