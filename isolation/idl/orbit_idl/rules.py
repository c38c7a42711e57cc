# SPDX-License-Identifier: MIT
"""Makes a model of what a header may say, and refuses the rest. Nothing is guessed."""

import os
import re

from .model import Field, Header, Interface, Method, Parameter, Refused, Type, fnv1a
from .source import kind

MOST_BYTES = 1 << 20        # of a message; what is larger belongs into the shared heap
MOST_DEPTH = 64             # of structs in structs

NUMBERS = {"CHAR_U", "UCHAR", "CHAR16", "CHAR32", "USHORT", "UINT", "ULONG", "ULONGLONG", "CHAR_S", "SCHAR",
           "WCHAR", "SHORT", "INT", "LONG", "LONGLONG", "FLOAT", "DOUBLE"}
RECORDS = {"CLASS_DECL", "STRUCT_DECL", "CLASS_TEMPLATE_PARTIAL_SPECIALIZATION"}
CALLABLE = {"CXX_METHOD", "FUNCTION_TEMPLATE", "CONVERSION_FUNCTION"}
# Which attribute may be where.
PLACES = {"interface": "class", "create": "class", "repeatable": "method", "max": "method parameter",
          "in": "parameter", "out": "parameter", "both": "parameter", "tagged": "union", "when": "member",
          "flags": "enum"}
INSTEAD = {
    "std::basic_string": "take a std::string_view with ORBIT_MAX(n); a std::string is what a method may return",
    "std::vector": "take a std::span with ORBIT_MAX(n); a std::vector is what a method may return",
    "std::basic_string_view": "return a std::string with ORBIT_MAX(n) before the method",
    "std::span": "return a std::vector with ORBIT_MAX(n) before the method",
    "std::optional": "use a struct with a bool, or a tagged union (ORBIT_TAGGED)",
    "std::variant": "use a struct with an enum and a tagged union (ORBIT_TAGGED)",
    "std::pair": "use a struct with named fields", "std::tuple": "use a struct with named fields",
    "std::function": "declare an interface with one method, and take a reference to it",
    "std::reference_wrapper": "take a reference to an interface, or a value",
    "std::weak_ptr": "take a std::shared_ptr to an interface",
    "orbit::rref": "pass the rref itself as a parameter of its own",
    "tl::expected": "results are what methods return; use a struct",
}


def where(cursor, source):
    place = cursor.location
    return (place.file.name if place.file else source.header, place.line or 1, place.column or 1)


def namespace_of(cursor):
    """(the names of the namespaces and classes around it, whether all can be named from elsewhere)"""
    names, named = [], True
    parent = cursor.semantic_parent
    while parent is not None and kind(parent) not in ("TRANSLATION_UNIT", ""):
        if kind(parent) in ("NAMESPACE", *RECORDS, "UNION_DECL"):
            # Where the standard library has inline namespaces is its business.
            if not parent.spelling.startswith("__"):
                names.append(parent.spelling)
            named = named and bool(parent.spelling) and "(" not in parent.spelling
        elif kind(parent) not in ("LINKAGE_SPEC", "UNEXPOSED_DECL"):
            named = False
        parent = parent.semantic_parent
    return names[::-1], named


def qualified(cursor):
    return "::".join(namespace_of(cursor)[0] + [cursor.spelling])


class Rules:
    def __init__(self, source):
        self.source = source
        self.types = {}         # of structs and enums by their name, in the order in which they were completed
        self.includes = set()
        self.rrefs = False
        self.context = []       # what the type that is looked at is for
        self.interfaces = {}

    def refuse(self, cursor, wrong, do):
        raise Refused(where(cursor, self.source), wrong, do, self.context)

    # --- attributes

    def attributes(self, cursor, place):
        """{name: text}; what is no attribute of orbit's is another's business."""
        found = {}
        for child in cursor.get_children():
            if kind(child) != "ANNOTATE_ATTR" or not child.spelling.startswith("orbit::"):
                continue
            name, _, text = child.spelling.removeprefix("orbit::").partition("=")
            macro = "ORBIT_" + name.upper()
            if name not in PLACES:
                self.refuse(child, f"there is no attribute {name!r}", "see <orbit/attributes.hpp> for those that there are")
            if place not in PLACES[name].split():
                self.refuse(child, f"{macro} is no attribute of a {place}",
                            f"put it before a {' or a '.join(PLACES[name].split())}, or leave it out")
            if name in found:
                self.refuse(child, f"{macro} is there twice", "leave one")
            found[name] = text.strip()
            if name in ("max", "in", "out", "both", "tagged", "when") and not found[name]:
                self.refuse(child, f"{macro} says nothing", "write what it is in its parentheses")
        return found

    def find(self, path, scope, kinds):
        """The declaration of a name as code in a scope (a list of names) sees it, or None."""
        wanted = path.removeprefix("::").split("::")
        scopes = [[]] if path.startswith("::") else [scope[:n] for n in range(len(scope), -1, -1)]

        def look(cursor, names):
            for child in cursor.get_children():
                spelling = child.spelling
                if len(names) == 1 and spelling == names[0] and kind(child) in kinds:
                    return child
                if kind(child) in ("NAMESPACE", "ENUM_DECL", *RECORDS) and len(names) > 1 and spelling == names[0]:
                    found = look(child, names[1:])
                    if found:
                        return found
                if kind(child) == "LINKAGE_SPEC" or (kind(child) == "ENUM_DECL" and len(names) == 1
                                                     and not child.is_scoped_enum()):
                    found = look(child, names)
                    if found:
                        return found
            return None

        for around in scopes:
            found = look(self.source.unit.cursor, around + wanted)
            if found is not None:
                return found
        return None

    def most(self, cursor, text):
        """What ORBIT_MAX says."""
        number = re.fullmatch(r"(0[xX][0-9a-fA-F']+|[0-9][0-9']*)[uUlLzZ]*", text)
        value = None
        if number:
            digits = number[1].replace("'", "")
            try:
                value = int(digits, 16 if digits[:2] in ("0x", "0X") else 8 if digits[0] == "0" and len(digits) > 1 else 10)
            except ValueError:
                value = None
        elif re.fullmatch(r"(::)?\w+(::\w+)*", text):
            found = self.find(text, namespace_of(cursor)[0] + [cursor.spelling], ("VAR_DECL", "ENUM_CONSTANT_DECL"))
            # A parameter's namespace is that of its method.
            if found is not None:
                value = found.enum_value if kind(found) == "ENUM_CONSTANT_DECL" else self.source.evaluate(found)
        if value is None:
            self.refuse(cursor, f"ORBIT_MAX({text}) is no number that can be told here",
                        "write a whole number, or the name of a constexpr variable or an enumerator")
        if not 0 < value <= MOST_BYTES:
            self.refuse(cursor, f"ORBIT_MAX({text}) is {value}", f"from 1 to {MOST_BYTES}; what is larger belongs into an rref")
        return value

    # --- names

    def spell(self, type_):
        """A type as generated code writes it: whole, but by the names that the user uses."""
        const = "const " if type_.is_const_qualified() else ""
        if kind(type_) == "ELABORATED":
            type_ = type_.get_named_type()  # without the const that stands before
        canonical = type_.get_canonical()
        written = type_.spelling.removeprefix("const ").removeprefix("std::")
        if kind(canonical) in NUMBERS and re.fullmatch(r"u?int(8|16|32|64|ptr|max)_t|size_t|ptrdiff_t", written):
            return f"{const}std::{written}"
        if kind(canonical) in ("RECORD", "ENUM"):
            name = canonical.spelling.removeprefix("const ")
            return const + re.sub(r"\bstd::__\w+::", "std::", name)
        return canonical.spelling if not const or canonical.spelling.startswith("const ") else const + canonical.spelling

    def template(self, type_):
        """(the qualified name of the template of a type, its arguments that are types), or ("", [])"""
        canonical = type_.get_canonical()
        if kind(canonical) != "RECORD":
            return "", []
        count = canonical.get_num_template_arguments()
        if count < 0:
            return "", []
        return (qualified(canonical.get_declaration()),
                [canonical.get_template_argument_type(n) for n in range(count)])

    def interface_of(self, type_):
        """The declaration of the interface that a type is, or None."""
        canonical = type_.get_canonical()
        if kind(canonical) != "RECORD":
            return None
        declaration = canonical.get_declaration()
        definition = declaration.get_definition() or declaration
        for child in definition.get_children():
            if kind(child) == "ANNOTATE_ATTR" and child.spelling in ("orbit::interface", "orbit::create"):
                return definition
        return None

    def nameable(self, declaration, cursor):
        names, named = namespace_of(declaration)
        if not named or not declaration.spelling or "(" in declaration.spelling:
            self.refuse(cursor, "the type has no name that generated code could use",
                        "name it, and put it into a named namespace or none")
        parent = declaration
        while kind(parent) in (*RECORDS, "ENUM_DECL"):
            if parent.access_specifier.name in ("PRIVATE", "PROTECTED"):
                self.refuse(cursor, f"{parent.spelling} is {parent.access_specifier.name.lower()}",
                            "make it public: proxy and skeleton use it")
            parent = parent.semantic_parent
        return names

    # --- exchangeable types

    def exchangeable(self, type_, cursor, depth=0):
        """The Type; `cursor` is what is of that type."""
        if depth > MOST_DEPTH:
            self.refuse(cursor, "the type is too deep", f"at most {MOST_DEPTH} structs in one another")
        if type_.is_volatile_qualified():
            self.refuse(cursor, "volatile has no meaning in a message", "leave volatile out")
        canonical = type_.get_canonical()
        what = kind(canonical)
        if what == "BOOL":
            return Type("bool", "bool", 1, "bool", checked=True)
        if what in NUMBERS:
            name = self.spell(type_).removeprefix("const ")
            return Type("number", name, canonical.get_size(), canonical.spelling.removeprefix("const "))
        if what == "CONSTANTARRAY":
            return self.array(canonical.element_type, canonical.element_count, cursor, depth, False)
        if what == "ENUM" and qualified(canonical.get_declaration()) == "std::byte":
            return Type("number", "std::byte", 1, "std::byte")
        if what == "ENUM":
            return self.enum(canonical, cursor)
        if what == "RECORD":
            return self.record(canonical, cursor, depth)
        said = type_.spelling
        if what == "POINTER":
            if kind(canonical.get_pointee().get_canonical()) == "FUNCTIONPROTO":
                self.refuse(cursor, f"{said} points to a function of one domain", "declare an interface with one method, and take a reference to it")
            if self.interface_of(canonical.get_pointee()):
                self.refuse(cursor, f"{said} does not say how long the object is used",
                            "take a reference (for the call), or a std::shared_ptr (for longer)")
            self.refuse(cursor, f"{said} points into one domain's memory",
                        "use an rref, a value, a std::string_view or a std::span with ORBIT_MAX(n)")
        if what in ("LVALUEREFERENCE", "RVALUEREFERENCE"):
            self.refuse(cursor, f"{said} refers to one domain's memory",
                        "take a value or a const reference, or say with ORBIT_IN, ORBIT_OUT or ORBIT_BOTH what travels")
        if what in ("INCOMPLETEARRAY", "VARIABLEARRAY"):
            self.refuse(cursor, f"{said} does not say how many elements it has", "give it a length, or take a std::span with ORBIT_MAX(n)")
        if what == "LONGDOUBLE":
            self.refuse(cursor, "a long double has bytes that are not its value's", "use double")
        if what in ("INT128", "UINT128"):
            self.refuse(cursor, f"{said} is no standard type", "use two std::uint64_t")
        return self.refuse(cursor, f"{said} cannot be passed to another domain", "use numbers, bools, enums, and structs of these")

    def array(self, element_type, count, cursor, depth, standard):
        if count < 1:
            self.refuse(cursor, "an array of no elements", "give it one at least, or leave it out")
        element = self.exchangeable(element_type, cursor, depth + 1)
        size = element.size * count
        if size > MOST_BYTES:
            self.refuse(cursor, f"{size} bytes are too many for a message", "put it into an rref")
        name = f"std::array<{element.name if element.kind != 'array' or element.standard else self.spell(element_type)}, {count}>"
        return Type("array", name, size, f"{element.layout}[{count}]", checked=element.checked, padded=element.padded,
                    element=element, count=count, standard=standard)

    def enum(self, canonical, cursor):
        declaration = canonical.get_declaration()
        self.nameable(declaration, cursor)
        name = self.spell(canonical).removeprefix("const ")
        if name in self.types:
            return self.types[name]
        definition = declaration.get_definition()
        if definition is None:
            self.refuse(cursor, f"of {name} nobody says which values it has", "define it in a header that this one includes")
        flags = "flags" in self.attributes(definition, "enum")
        underlying = definition.enum_type.get_canonical().spelling
        values = [(child.spelling, child.enum_value) for child in definition.get_children()
                  if kind(child) == "ENUM_CONSTANT_DECL"]
        if not values:
            self.refuse(definition, f"{name} has no enumerators, so no value of it is valid", "name its values; or use the number itself")
        if flags and any(value < 0 for _, value in values):
            self.refuse(definition, f"{name} has a negative flag", "flags are bits: make them positive")
        size = canonical.get_size()
        layout = f"enum {name}:{underlying}{'|' if flags else ''}{{{','.join(f'{n}={v}' for n, v in values)}}}"
        if underlying == "bool":
            underlying = "unsigned char"
        self.types[name] = Type("enum", name, size, layout, checked=True, underlying=underlying,
                                values=values, flags=flags)
        return self.types[name]

    def record(self, canonical, cursor, depth):
        declaration = canonical.get_declaration()
        template, arguments = self.template(canonical)
        name = self.spell(canonical).removeprefix("const ")
        if template == "std::array":
            # Of what is not instantiated there is no size; its name has the number.
            return self.array(arguments[0], int(re.search(r"(\d+)\w*>$", canonical.spelling)[1]), cursor, depth, True)
        if name in self.types:
            return self.types[name]
        if self.interface_of(canonical):
            self.refuse(cursor, f"{name} is an interface: an object stays where it is",
                        "take a reference (for the call) or a std::shared_ptr (for longer), return a std::unique_ptr")
        if template in ("std::unique_ptr", "std::shared_ptr"):
            self.refuse(cursor, f"{name} points to no interface", "mark the class with ORBIT_INTERFACE; data is passed as a value or an rref")
        if template in INSTEAD:
            self.refuse(cursor, f"{name} cannot be passed so", INSTEAD[template])
        plain = qualified(declaration)
        if plain.startswith("std::") or plain.startswith("tl::") or plain == "orbit::call_error":
            self.refuse(cursor, f"{name} is the library's, and nobody promises what is in it", "use numbers, enums, std::array, and structs of these")
        if kind(declaration) == "UNION_DECL":
            self.refuse(cursor, f"nothing says which member of union {name} is there",
                        "put it into a struct with an enum before it, as union ORBIT_TAGGED(field)")
        if template:
            self.refuse(cursor, f"{name} is made from a template, which has no single layout to describe", "use a struct that is none")
        definition = declaration.get_definition()
        if definition is None or canonical.get_size() < 0:
            self.refuse(cursor, f"{name} is declared, but not defined", "define it in a header that this one includes")
        self.nameable(declaration, cursor)
        found = Type("struct", name, canonical.get_size(), "")
        self.context.append(f"{name} is what travels here: {cursor.spelling or cursor.displayname or 'a parameter'}")
        seen = {}
        anonymous = []
        for child in definition.get_children():
            self.member(child, found, seen, anonymous, depth)
        self.context.pop()
        if not found.fields:
            self.refuse(cursor, f"{name} is empty", "leave it out, or give it a field")
        if found.size > MOST_BYTES:
            self.refuse(cursor, f"{name} has {found.size} bytes, too many for a message", "put it into an rref")
        unions = [field for field in found.fields if field.type is None]
        plainly = [field for field in found.fields if field.type is not None]
        found.checked = bool(unions) or any(field.type.checked for field in plainly)
        found.padded = (bool(unions) or any(field.type.padded for field in plainly)
                        or sum(field.type.size for field in plainly) != found.size)
        found.layout = (f"struct {name}:{found.size}{{" + ";".join(
            f"{field.name}:{field.type.layout}" if field.type else
            f"{field.name}?{field.tag}[{','.join(f'{when}={path}:{type_.layout}' for when, path, type_ in field.members)}]"
            for field in found.fields) + "}")
        self.types[name] = found
        return found

    def member(self, child, found, seen, anonymous, depth):
        """What is in a struct."""
        what = kind(child)
        name = found.name
        if what == "FIELD_DECL":
            if child.access_specifier.name in ("PRIVATE", "PROTECTED"):
                self.refuse(child, f"{name}::{child.spelling} is {child.access_specifier.name.lower()}: who receives it cannot keep what it promises",
                            "make all fields public, or pass the parts")
            if child.is_bitfield():
                self.refuse(child, f"{name}::{child.spelling} is a bit-field, which has no address to check", "use an ORBIT_FLAGS enum, or whole numbers")
            if child.type.is_const_qualified():
                self.refuse(child, f"{name}::{child.spelling} is const: it cannot be received", "leave const out")
            declaration = child.type.get_canonical().get_declaration()
            if kind(declaration) == "UNION_DECL" and self.attributes(declaration, "union").get("tagged"):
                found.fields.append(self.union(declaration, child, child.spelling + ".", found, depth))
            else:
                if "(" in declaration.spelling or (kind(declaration) in RECORDS and not declaration.spelling):
                    self.refuse(child, f"the type of {name}::{child.spelling} has no name", "name it")
                if self.attributes(child, "member").get("when"):
                    self.refuse(child, "ORBIT_WHEN is for the members of a tagged union", "leave it out, or mark the union with ORBIT_TAGGED(field)")
                found.fields.append(Field(child.spelling, self.exchangeable(child.type, child, depth + 1)))
        elif what == "UNION_DECL":
            used = any(kind(other) == "FIELD_DECL" and other.type.get_canonical().get_declaration() == child
                       for other in child.semantic_parent.get_children())
            if child.is_anonymous() and not used:
                found.fields.append(self.union(child, child, "", found, depth))
        elif what in RECORDS and child.is_anonymous():
            used = any(kind(other) == "FIELD_DECL" and other.type.get_canonical().get_declaration() == child
                       for other in child.semantic_parent.get_children())
            if not used:
                self.refuse(child, f"{name} has a struct without a name", "name it")
        elif what == "CXX_BASE_SPECIFIER":
            self.refuse(child, f"{name} has a base class", "make it the first field")
        elif what in ("CONSTRUCTOR", "DESTRUCTOR") or what in CALLABLE and child.spelling == "operator=":
            if not child.is_default_method():
                self.refuse(child, f"{name} has {'a constructor' if what == 'CONSTRUCTOR' else 'a destructor' if what == 'DESTRUCTOR' else 'an assignment'} of its own, which no message calls",
                            "leave it out: initialize fields where they are declared")
        elif what in CALLABLE and child.is_virtual_method():
            self.refuse(child, f"{name} has virtual methods, and so a pointer into one domain's memory", "make the method no virtual one, or mark the class with ORBIT_INTERFACE")

    def union(self, declaration, cursor, path, found, depth):
        """The Field of a union with a tag."""
        name = found.name
        tag = self.attributes(declaration, "union").get("tagged")
        if not tag:
            self.refuse(cursor, f"nothing says which member of a union in {name} is there",
                        "mark it as union ORBIT_TAGGED(field), and its members with ORBIT_WHEN(enumerator)")
        before = [field for field in found.fields if field.name == tag and field.type is not None]
        if not before:
            self.refuse(cursor, f"{name} has no field {tag!r} before the union", "name a field that is declared before it")
        kinds = before[0].type
        if kinds.kind != "enum" or kinds.flags:
            self.refuse(cursor, f"{name}::{tag} is no enum that could say which member is there", "use an enum without ORBIT_FLAGS")
        members, taken = [], {}
        for child in declaration.get_children():
            if kind(child) != "FIELD_DECL":
                if kind(child) in ("UNION_DECL", *RECORDS) and child.is_anonymous():
                    self.refuse(child, "a member of a tagged union has no name", "name it, and its type")
                continue
            when = self.attributes(child, "member").get("when")
            if not when:
                self.refuse(child, f"nothing says when {child.spelling} is there", "put ORBIT_WHEN(enumerator) before it")
            values = dict(kinds.values)
            last = when.rsplit("::", 1)[-1].strip()
            if last not in values:
                self.refuse(child, f"{when} is no enumerator of {kinds.name}", f"one of {', '.join(values)}")
            if values[last] in taken:
                self.refuse(child, f"for {when} there is {taken[values[last]]} already", "one member for each value; put both into a struct")
            taken[values[last]] = child.spelling
            if child.is_bitfield():
                self.refuse(child, f"{child.spelling} is a bit-field, which has no address to check", "use a whole number")
            members.append((last, path + child.spelling, self.exchangeable(child.type, child, depth + 1)))
        if not members:
            self.refuse(cursor, f"a union in {name} has no members", "leave it out")
        return Field(path.rstrip(".") or "union", None, tag, members)

    # --- parameters and results

    def target(self, type_, cursor):
        """The name of what an rref has; its layout is checked as any other. A template of orbit's is so by its own rules."""
        canonical = type_.get_canonical()
        template, arguments = self.template(canonical)
        self.rrefs = True
        if template.startswith("orbit::"):
            for argument in arguments:
                if kind(argument) != "INVALID":
                    self.target(argument, cursor)
            return self.spell(type_)
        if kind(canonical) == "INCOMPLETEARRAY":
            return self.target(canonical.element_type, cursor) + "[]"
        if type_.is_const_qualified():
            self.refuse(cursor, "an rref to const has no owner who could write it", "lend it instead: const rref<T> &")
        self.exchangeable(type_, cursor)
        return self.spell(type_)

    def object(self, declaration, cursor):
        """(name, type id) of an interface that is passed."""
        name = qualified(declaration)
        file = declaration.location.file.name
        if os.path.realpath(file) != os.path.realpath(self.source.header):
            if not file.endswith(".idl.hpp"):
                self.refuse(cursor, f"{name} is declared in {os.path.basename(file)}, for which no code is generated",
                            "move it into a header NAME.idl.hpp, and run orbit-idl on that, too")
            self.includes.add(os.path.relpath(file, os.path.dirname(self.source.header) or "."))
        else:
            self.nameable(declaration, cursor)
        return name, self.interface_id(declaration)

    def interface_id(self, declaration):
        """Of the interface as it is written: all its methods' types, and their names. By name alone for what is
        in it, so that interfaces may know one another."""
        text = [qualified(declaration)]
        for child in declaration.get_children():
            if kind(child) == "CXX_METHOD":
                text.append(f"{child.spelling} {child.type.get_canonical().spelling}")
        return fnv1a(";".join(text), 64)

    def mutable_reference(self, pointee, attributes, cursor, name, declared):
        """A projection, or an interface for the length of a call."""
        declaration = self.interface_of(pointee)
        if declaration:
            if pointee.is_const_qualified():
                self.refuse(cursor, "a const interface", "leave const out")
            if attributes:
                self.refuse(cursor, "an interface has no fields or elements that could travel", "leave the attribute out")
            target, type_id = self.object(declaration, cursor)
            return Parameter("object", name, declared, target=target, target_type=type_id)
        whole = pointee.get_canonical()
        const = pointee.is_const_qualified() or whole.is_const_qualified() or \
            kind(whole) == "CONSTANTARRAY" and whole.element_type.is_const_qualified()
        if not set(attributes) & {"in", "out", "both"}:
            if const:
                return None
            if kind(pointee.get_canonical()) == "RECORD":
                self.refuse(cursor, f"nothing says what of {name} travels, and which way",
                            "write ORBIT_IN(fields), ORBIT_OUT(fields) or ORBIT_BOTH(fields) before it; or take a value, and return one")
            self.refuse(cursor, f"{declared} is written by reference", "return the value; several of them in a struct")
        if "max" in attributes:
            self.refuse(cursor, "ORBIT_MAX is for strings and arrays", "leave it out")
        canonical = pointee.get_canonical()
        if kind(canonical) != "RECORD" or self.template(canonical)[0]:
            self.refuse(cursor, f"{declared} has no fields of which some could travel", "take a struct that is made from no template")
        definition = canonical.get_declaration().get_definition()
        if definition is None:
            self.refuse(cursor, f"{pointee.spelling} is declared, but not defined", "define it in a header that this one includes")
        self.nameable(definition, cursor)
        constructors = [child for child in definition.get_children() if kind(child) == "CONSTRUCTOR"]
        if definition.is_abstract_record() or constructors and not any(
                child.is_default_constructor() and child.access_specifier.name == "PUBLIC" for child in constructors):
            self.refuse(cursor, f"{pointee.spelling} cannot be made without arguments, as it has to be where the fields arrive",
                        "give it a public default constructor")
        found = Parameter("projection", name, declared, target=self.spell(pointee).removeprefix("const "))
        taken = {}
        for way in ("in", "out", "both"):
            for path in [part.strip() for part in attributes[way].split(",")] if way in attributes else []:
                if const and way != "in":
                    self.refuse(cursor, f"{name} is const, and nothing of it comes back", "use ORBIT_IN, or leave const out")
                for field, type_ in self.projected(definition, path, cursor):
                    for other in taken:
                        if f"{field}.".startswith(f"{other}.") or f"{other}.".startswith(f"{field}."):
                            self.refuse(cursor, f"{field} and {other} are named, and one is in the other" if field != other
                                        else f"{field} is named twice", "name each field once")
                    taken[field] = True
                    if way != "out":
                        found.into.append((field, type_))
                    if way != "in":
                        found.back.append((field, type_))
        return found

    def projected(self, definition, path, cursor):
        """[(path, Type)] of a field that is named, or of all."""
        if path == "*":
            fields = [child for child in definition.get_children() if kind(child) == "FIELD_DECL"]
            if not fields:
                self.refuse(cursor, f"{definition.spelling} has no fields", "name what travels")
            return [pair for field in fields for pair in self.projected(definition, field.spelling, cursor)]
        if not re.fullmatch(r"\w+(\.\w+)*", path):
            self.refuse(cursor, f"{path!r} is no field", "name fields, with commas between them, as in ORBIT_IN(mtu, stats.errors)")
        within, names = definition, path.split(".")
        for n, name in enumerate(names):
            fields = [child for child in within.get_children()
                      if kind(child) == "FIELD_DECL" and child.spelling == name]
            if not fields:
                self.refuse(cursor, f"{within.spelling} has no field {name!r}", "name a field of it; fields of its base classes do not travel")
            field = fields[0]
            if field.access_specifier.name in ("PRIVATE", "PROTECTED"):
                self.refuse(cursor, f"{within.spelling}::{name} is {field.access_specifier.name.lower()}", "name public fields")
            if field.type.is_const_qualified():
                self.refuse(cursor, f"{within.spelling}::{name} is const: it cannot be received", "leave it out")
            if n + 1 < len(names):
                declaration = field.type.get_canonical().get_declaration()
                within = declaration.get_definition() if kind(declaration) in RECORDS else None
                if within is None:
                    self.refuse(cursor, f"{'.'.join(names[:n + 1])} is no struct with fields", "name the field itself; what is behind a pointer does not travel")
        if field.is_bitfield():
            self.refuse(cursor, f"{path} is a bit-field, which has no address", "leave it out, or make it a whole number")
        self.context.append(f"{path} is named here for {cursor.spelling or 'a parameter'}")
        type_ = self.exchangeable(field.type, cursor)
        self.context.pop()
        return [(path, type_)]

    def parameter(self, cursor, number, scope):
        attributes = self.attributes(cursor, "parameter")
        name = cursor.spelling or f"unnamed{number}"
        if name.endswith("_"):
            self.refuse(cursor, f"the name {name} ends with an underscore, as those of generated code do", "give it another")
        found = self.parameter_kind(cursor, attributes, name)
        found.signature = f"{found.kind} {cursor.type.get_canonical().spelling} {sorted(attributes.items())} {found.most} " + \
            ",".join(f"{path}:{type_.layout}" for path, type_ in found.into + found.back) + \
            (found.type.layout if found.type else "")
        return found

    def parameter_kind(self, cursor, attributes, name):
        type_ = cursor.type
        canonical = type_.get_canonical()
        template, arguments = self.template(type_)
        declared = self.declared(type_)
        if template == "std::basic_string_view":
            if canonical.spelling.removeprefix("const ") != "std::basic_string_view<char>" and kind(arguments[0]) not in ("CHAR_S", "CHAR_U"):
                self.refuse(cursor, f"{type_.spelling} is no string of bytes", "use std::string_view, or a std::span of numbers")
            self.only(cursor, attributes, {"max"}, "a string")
            return Parameter("text", name, "std::string_view", most=self.needed_most(cursor, attributes))
        if template == "std::span":
            return self.span(cursor, attributes, name, canonical, arguments[0])
        if template == "orbit::rref":
            if type_.is_const_qualified():
                self.refuse(cursor, "a const rref cannot be moved", "take rref<T> to move it, const rref<T> & to lend it")
            self.only(cursor, attributes, set(), "an rref")
            target = self.target(arguments[0], cursor)
            return Parameter("moved", name, f"orbit::rref<{target}>", target=target)
        if template in ("std::shared_ptr", "std::unique_ptr"):
            declaration = self.interface_of(arguments[0])
            if declaration:
                if template == "std::unique_ptr" and canonical.get_num_template_arguments() > 1 and \
                        kind(arguments[1]) != "VOID" and not arguments[1].spelling.startswith("std::default_delete<"):
                    self.refuse(cursor, "a std::unique_ptr with a deleter of its own", "use the default")
                self.only(cursor, attributes, set(), "an interface")
                target, type_id = self.object(declaration, cursor)
                return Parameter("kept", name, f"{template}<{target}>", target=target, target_type=type_id, smart=template)
        if kind(canonical) == "RVALUEREFERENCE":
            self.refuse(cursor, f"{type_.spelling} does not say whether it is moved", "take it by value")
        if kind(canonical) == "LVALUEREFERENCE":
            pointee = type_.get_pointee() if kind(type_) == "LVALUEREFERENCE" else canonical.get_pointee()
            template, arguments = self.template(pointee)
            if template == "orbit::rref":
                if not pointee.is_const_qualified():
                    self.refuse(cursor, "an rref by reference is neither moved nor lent", "take rref<T> to move it, const rref<T> & to lend it")
                self.only(cursor, attributes, set(), "an rref")
                target = self.target(arguments[0], cursor)
                return Parameter("lent", name, f"const orbit::rref<{target}> &", target=target)
            if template in ("std::basic_string_view", "std::span", "std::shared_ptr", "std::unique_ptr"):
                self.refuse(cursor, f"{type_.spelling} refers to one domain's memory", "take it by value")
            found = self.mutable_reference(pointee, attributes, cursor, name, declared)
            if found:
                return found
            self.only(cursor, attributes, set(), "a value")
            value = self.exchangeable(pointee, cursor)
            if value.kind == "array" and not value.standard:
                self.refuse(cursor, f"{type_.spelling} refers to an array", "use std::array")
            return Parameter("value", name, declared, type=value)
        self.only(cursor, attributes, set(), "a value")
        return Parameter("value", name, declared, type=self.exchangeable(type_, cursor))

    def declared(self, type_):
        """A parameter's type as an override has to write it."""
        canonical = type_.get_canonical()
        if kind(canonical) == "LVALUEREFERENCE":
            return self.spell(canonical.get_pointee() if kind(type_) != "LVALUEREFERENCE" else type_.get_pointee()) + " &"
        return self.spell(type_).removeprefix("const ")

    def only(self, cursor, attributes, may, what):
        for name in sorted(set(attributes) - may):
            self.refuse(cursor, f"ORBIT_{name.upper()} says nothing about {what}", "leave it out")

    def needed_most(self, cursor, attributes):
        if "max" not in attributes:
            self.refuse(cursor, "nothing says how long it is at most", "put ORBIT_MAX(n) before it")
        return self.most(cursor, attributes["max"])

    def elements(self, type_, cursor, most):
        value = self.exchangeable(type_, cursor)
        if value.kind == "bool":
            self.refuse(cursor, "an array of bools has no elements that could be checked where they arrive", "use std::uint8_t")
        if value.kind == "array" and not value.standard:
            self.refuse(cursor, "an array of arrays", "use std::array for the inner ones")
        if value.size * most > MOST_BYTES:
            self.refuse(cursor, f"{value.size * most} bytes at most are too many for a message", f"{MOST_BYTES} bytes at most; or use an rref")
        return value

    def span(self, cursor, attributes, name, canonical, element):
        if not re.search(r", (18446744073709551615|std::dynamic_extent)(UL)?>$", canonical.spelling) and \
                canonical.get_num_template_arguments() > 1:
            self.refuse(cursor, f"{canonical.spelling} has a fixed length", "take a std::array")
        ways = [way for way in ("in", "out", "both") if way in attributes]
        const = element.is_const_qualified()
        for way in ways:
            if attributes[way] != "*":
                self.refuse(cursor, f"ORBIT_{way.upper()}({attributes[way]}) names fields of an array", f"write ORBIT_{way.upper()}(*): all elements travel")
        if len(ways) > 1:
            self.refuse(cursor, f"it is said {len(ways)} times which way {name} travels", "leave one; ORBIT_BOTH is for both")
        if const and ways not in ([], ["in"]):
            self.refuse(cursor, f"the elements of {name} are const, and do not come back", "leave const out of the std::span's type, or ORBIT_OUT and ORBIT_BOTH")
        if not const and not ways:
            self.refuse(cursor, f"nothing says which way the elements of {name} travel",
                        "take a std::span<const T>, or write ORBIT_OUT(*) or ORBIT_BOTH(*) before it")
        if not const and ways == ["in"]:
            self.refuse(cursor, f"the implementation can write to {name}, and nobody sees it", "take a std::span<const T>")
        most = self.needed_most(cursor, attributes)
        type_ = self.elements(element, cursor, most)
        return Parameter("array", name, f"std::span<{'const ' if const else ''}{type_.name}>", type=type_, most=most,
                         goes=ways != ["out"], returns=not const)

    def returned(self, cursor, attributes):
        type_ = cursor.result_type
        template, arguments = self.template(type_)
        if template != "tl::expected" or len(arguments) != 2 or \
                qualified(arguments[1].get_canonical().get_declaration()) != "orbit::call_error":
            self.refuse(cursor, f"{cursor.spelling} returns {type_.spelling}: no call is certain to succeed",
                        f"return orbit::result<{type_.spelling}>")
        # As it is written, if it can be had: std::uint64_t, not unsigned long.
        written = type_
        if kind(written) == "ELABORATED":
            written = written.get_named_type()
        value = arguments[0]
        if written.get_num_template_arguments() >= 1 and kind(written.get_template_argument_type(0)) != "INVALID":
            value = written.get_template_argument_type(0)
        template, arguments = self.template(value)
        if template not in ("std::basic_string", "std::vector"):
            self.only(cursor, {name: text for name, text in attributes.items() if name == "max"}, set(),
                      f"what {cursor.spelling} returns")
        if kind(value.get_canonical()) == "VOID":
            return Parameter("void", "value", "void", signature="void")
        if template == "std::basic_string":
            if kind(arguments[0]) not in ("CHAR_S", "CHAR_U"):
                self.refuse(cursor, f"{value.spelling} is no string of bytes", "use std::string, or a std::vector of numbers")
            most = self.needed_most(cursor, attributes)
            return Parameter("text", "value", "std::string", most=most, signature=f"text {most}")
        if template == "std::vector":
            most = self.needed_most(cursor, attributes)
            element = self.elements(arguments[0], cursor, most)
            return Parameter("array", "value", f"std::vector<{element.name}>", type=element, most=most,
                             signature=f"array {most} {element.layout}")
        if template == "orbit::rref":
            target = self.target(arguments[0], cursor)
            return Parameter("moved", "value", f"orbit::rref<{target}>", target=target, signature=f"moved {target}")
        if template in ("std::unique_ptr", "std::shared_ptr"):
            declaration = self.interface_of(arguments[0])
            if declaration:
                target, type_id = self.object(declaration, cursor)
                return Parameter("kept", "value", f"{template}<{target}>", target=target, target_type=type_id,
                                 smart=template, signature=f"kept {target}")
        if kind(value.get_canonical()) in ("LVALUEREFERENCE", "RVALUEREFERENCE"):
            self.refuse(cursor, f"{value.spelling} refers to one domain's memory", "return a value")
        found = self.exchangeable(value, cursor)
        return Parameter("value", "value", found.name, type=found, signature=found.layout)

    # --- interfaces

    def method(self, cursor, number, scope):
        name = cursor.spelling
        attributes = self.attributes(cursor, "method")
        if cursor.access_specifier.name != "PUBLIC":
            self.refuse(cursor, f"{name} is {cursor.access_specifier.name.lower()}", "make it public: proxy and skeleton use it")
        if cursor.is_static_method():
            self.refuse(cursor, f"{name} is static, and belongs to no object", "make it a function of its own")
        if not re.fullmatch(r"[A-Za-z]\w*", name) or name.endswith("_"):
            self.refuse(cursor, f"{name} is no name for a method of an interface", "give it a name of letters and digits that does not end with an underscore")
        if not cursor.is_pure_virtual_method():
            self.refuse(cursor, f"{name} is not pure virtual: it would be called in the wrong domain", "write `virtual ... = 0;`")
        if cursor.type.is_function_variadic():
            self.refuse(cursor, f"{name} takes any arguments", "say which: a std::span with ORBIT_MAX(n) has any number")
        if cursor.type.get_ref_qualifier().name != "NONE" or "volatile" in cursor.type.spelling.rpartition(")")[2]:
            self.refuse(cursor, f"{name} has a qualifier that a call cannot keep", "leave & and && and volatile behind it out")
        if "noexcept" in cursor.type.spelling.rpartition(")")[2] or "throw" in cursor.type.spelling.rpartition(")")[2] \
                or cursor.exception_specification_kind.name not in ("NONE",):
            self.refuse(cursor, f"{name} has an exception specification", "leave it out: errors are values")
        returned = self.returned(cursor, attributes)
        parameters, names = [], set()
        for n, child in enumerate(cursor.get_arguments()):
            parameters.append(self.parameter(child, n, scope))
            if parameters[-1].name in names:
                self.refuse(child, f"{parameters[-1].name} is there twice", "give it another name")
            names.add(parameters[-1].name)
        text = "->".join([f"{'::'.join(scope)}::{name}({';'.join(p.signature for p in parameters)})", returned.signature])
        total = 4096 + sum(p.most * (p.type.size if p.type else 1) + (p.type.size if p.kind == "value" else 0)
                           + sum(t.size for _, t in p.into + p.back) for p in parameters + [returned])
        if total > 2 * MOST_BYTES:
            self.refuse(cursor, f"a message of {name} has {total} bytes at most, too many", "lower what ORBIT_MAX says, or use an rref")
        return Method(name, number, cursor.is_const_method(), "repeatable" in attributes, parameters, returned,
                      fnv1a(text, 32))

    def interface(self, cursor, attributes):
        name = cursor.spelling
        create = "create" in attributes
        scope, named = namespace_of(cursor)
        parent = cursor.semantic_parent
        if kind(parent) not in ("NAMESPACE", "TRANSLATION_UNIT") or not named:
            self.refuse(cursor, f"{name} is within a class or a namespace without a name", "put it into a named namespace, or none")
        if not name or "(" in name:
            self.refuse(cursor, "the interface has no name", "name it")
        if create and "interface" in attributes:
            self.refuse(cursor, f"{name} is an interface and creates one", "leave one of ORBIT_INTERFACE and ORBIT_CREATE")
        for other in (f"{name}Proxy", f"{name}Shadow", f"{name}Skeleton", f"{name}_wire"):
            for child in parent.get_children():
                if child.spelling == other:
                    self.refuse(child, f"{other} is the name of what is generated for {name}", "give it another")
        methods, names, virtual_destructor = [], {}, False
        for child in cursor.get_children():
            what = kind(child)
            if what == "CXX_BASE_SPECIFIER":
                self.refuse(child, f"{name} has a base class", "declare its methods here; or pass an object of the other interface")
            elif what == "FIELD_DECL":
                self.refuse(child, f"{name} has a field, which no other domain can reach", "make it a method")
            elif what == "DESTRUCTOR":
                virtual_destructor = child.is_virtual_method() and child.is_default_method() \
                    and child.access_specifier.name == "PUBLIC"
                if not virtual_destructor:
                    self.refuse(child, f"the destructor of {name} does not just end it",
                                f"write `virtual ~{name}() = default;`, public")
            elif what == "CONSTRUCTOR":
                if not child.is_default_method():
                    self.refuse(child, f"{name} has a constructor: nobody makes an interface", "leave it out")
            elif what in ("FUNCTION_TEMPLATE", "CONVERSION_FUNCTION"):
                self.refuse(child, f"{child.spelling} is a {'template' if what == 'FUNCTION_TEMPLATE' else 'conversion'}: there is no single call to make", "declare the methods that are needed")
            elif what == "CXX_METHOD":
                if child.spelling in names:
                    self.refuse(child, f"{child.spelling} is overloaded", "give each method a name of its own")
                names[child.spelling] = True
                methods.append(self.method(child, len(methods) + 1, scope + [name]))
            elif what == "VAR_DECL" and not child.type.is_const_qualified():
                self.refuse(child, f"{name} has a static variable, which each domain has for itself", "make it constexpr, or leave it out")
        if not virtual_destructor:
            self.refuse(cursor, f"{name} has no virtual destructor: an object could not be ended by its interface",
                        f"write `virtual ~{name}() = default;`, public")
        if not methods:
            self.refuse(cursor, f"{name} has no methods", "declare what it does")
        if create:
            if [method.name for method in methods] != ["create"] or methods[0].returned.kind != "kept" or \
                    methods[0].returned.smart != "std::unique_ptr":
                self.refuse(cursor, f"{name} does not just create an object",
                            "give it one method, create(), that returns orbit::result<std::unique_ptr<Interface>>")
        return Interface(name, "::".join(scope), methods, create, self.interface_id(cursor))

    def walk(self, cursor, found):
        """What is marked in the header itself."""
        for child in cursor.get_children():
            file = child.location.file
            if file is None or file.name != self.source.header:
                continue
            what = kind(child)
            if what in ("NAMESPACE", "LINKAGE_SPEC"):
                self.walk(child, found)
            elif what in (*RECORDS, "CLASS_TEMPLATE"):
                marks = {each.spelling for each in child.get_children() if kind(each) == "ANNOTATE_ATTR"}
                if marks & {"orbit::interface", "orbit::create"}:
                    if what != "CLASS_DECL" and what != "STRUCT_DECL":
                        self.refuse(child, f"{child.spelling} is a template", "declare an interface that is none")
                    if child.is_definition():
                        found.append(self.interface(child, self.attributes(child, "class")))
                    elif child.get_definition() is None:
                        self.refuse(child, f"{child.spelling} is declared, but not defined", "define it here")
                elif child.is_definition() and what != "CLASS_TEMPLATE":
                    # Of others within it nothing would be generated.
                    self.nested(child)

    def nested(self, cursor):
        for child in cursor.get_children():
            if kind(child) in RECORDS and child.is_definition():
                if any(each.spelling in ("orbit::interface", "orbit::create") for each in child.get_children()
                       if kind(each) == "ANNOTATE_ATTR"):
                    self.refuse(child, f"{child.spelling} is within a class or a namespace without a name",
                                "put it into a named namespace, or none")
                self.nested(child)

    def header(self):
        found = []
        self.walk(self.source.unit.cursor, found)
        if not found:
            raise Refused((self.source.header, 1, 1), "no class here is marked as an interface",
                          "write `class ORBIT_INTERFACE Name`, and include <orbit/interface.hpp>")
        return Header(found, list(self.types.values()), sorted(self.includes), self.rrefs)
