# SPDX-License-Identifier: MIT
"""What an accepted header says."""

import dataclasses


class Refused(Exception):
    """What a header says and must not: where, what is wrong, and what to do."""

    def __init__(self, where, wrong, do, context=()):
        super().__init__(wrong)
        self.where = where          # (file, line, column)
        self.wrong = wrong
        self.do = do
        self.context = list(context)

    def lines(self):
        file, line, column = self.where
        at = f"{file}:{line}:{column}: "
        return ([f"{at}error: {self.wrong}"] + [f"{at}note: {text}" for text in self.context]
                + [f"{at}note: {self.do}"])


@dataclasses.dataclass
class Type:
    """An exchangeable type. `kind` is number, bool, enum, struct or array."""
    kind: str
    name: str               # as generated code writes it; of an array that of its elements' type
    size: int
    layout: str             # for type ids
    checked: bool = False   # whether there are bytes that are no value of it
    padded: bool = False    # whether there are bytes that are not its value's
    element: "Type" = None
    count: int = 0
    standard: bool = False  # a std::array
    underlying: str = ""
    values: list = dataclasses.field(default_factory=list)  # of an enum: [(name, value)]
    flags: bool = False
    fields: list = dataclasses.field(default_factory=list)

    def declare(self, name):
        if self.kind == "array" and not self.standard:
            return self.element.declare(f"{name}[{self.count}]")
        return f"{self.name} {name}"


@dataclasses.dataclass
class Field:
    name: str
    type: Type              # None of a union
    tag: str = ""           # of a union: the field that says what is there,
    members: list = dataclasses.field(default_factory=list)    # and [(enumerator, path, type)]


@dataclasses.dataclass
class Parameter:
    """`kind`: value, moved, lent, text, array, object (for the call), kept, projection."""
    kind: str
    name: str
    declared: str           # the type as the method's declaration has it
    type: Type = None
    target: str = ""        # of an rref the type, of an object the interface
    target_type: int = 0    # of an object: its type id
    most: int = 0
    goes: bool = True       # of an array: there, and back
    returns: bool = False
    smart: str = ""         # of what is kept: std::shared_ptr or std::unique_ptr
    into: list = dataclasses.field(default_factory=list)       # of a projection: [(path, Type)]
    back: list = dataclasses.field(default_factory=list)
    signature: str = ""


@dataclasses.dataclass
class Method:
    name: str
    number: int
    const: bool
    repeatable: bool
    parameters: list
    returned: Parameter     # its kind: void, value, moved, text, array, kept
    type_id: int = 0


@dataclasses.dataclass
class Interface:
    name: str
    namespace: str          # "a::b", or ""
    methods: list
    create: bool
    type_id: int = 0

    @property
    def qualified(self):
        return f"{self.namespace}::{self.name}" if self.namespace else self.name


@dataclasses.dataclass
class Header:
    interfaces: list
    types: list             # structs and enums, each after those that it has
    includes: list          # of generated headers that this one's needs
    rrefs: bool


def fnv1a(text, bits):
    """The id of what a text describes."""
    offset, prime = {32: (0x811C9DC5, 0x01000193),
                     64: (0xCBF29CE484222325, 0x100000001B3)}[bits]
    value = offset
    for byte in text.encode():
        value = (value ^ byte) * prime % (1 << bits)
    return value
