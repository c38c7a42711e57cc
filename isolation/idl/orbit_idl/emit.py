# SPDX-License-Identifier: MIT
"""Writes C++ from the model. The same model gives the same text."""

import re

from .model import fnv1a

ISOLATION = "orbit::isolation::"


def identifier(text):
    return re.sub(r"\W+", "_", text)


def generated_name(header):
    """Of the header that is generated: block.idl.hpp gives block.orbit.hpp."""
    for end in (".idl.hpp", ".hpp", ".hh", ".h"):
        if header.endswith(end):
            return header[:-len(end)] + ".orbit.hpp"
    return header + ".orbit.hpp"


class Writer:
    def __init__(self):
        self.lines = []
        self.depth = 0

    def __call__(self, text=""):
        self.lines.append("\t" * self.depth + text if text else "")

    def open(self, text=""):
        self(text + (" {" if text and text != "{" else "" if text else "{"))
        self.depth += 1

    def close(self, text="}"):
        self.depth -= 1
        self(text)

    def label(self, text):
        """Less deep than what is before and behind it."""
        self.close(text)
        self.depth += 1


# --- checks of types

def check_of(type_, at):
    """An expression: whether the bytes there are a value of the type."""
    name = type_.declare("").strip() if type_.kind != "array" or type_.standard else array_name(type_)
    return f"{ISOLATION}Check<{name}>::bytes({at})"


def array_name(type_):
    inner, counts = type_, ""
    while inner.kind == "array" and not inner.standard:
        counts += f"[{inner.count}]"
        inner = inner.element
    return inner.name + counts


def emit_check(out, type_):
    guard = f"ORBIT_CHECK_{identifier(type_.name)}_{fnv1a(type_.layout, 32):08x}"
    out(f"#ifndef {guard}")
    out(f"#define {guard}")
    if type_.kind == "enum":
        emit_enum(out, type_)
    else:
        emit_struct(out, type_)
    out("#endif")
    out()


def emit_enum(out, type_):
    out.open(f"template <> struct {ISOLATION}Check<{type_.name}>")
    out("static bool bytes(const std::byte *at) noexcept")
    out.open("{")
    out(f"{type_.underlying} value;")
    out()
    out("std::memcpy(&value, at, sizeof(value));")
    literal = {value: name for name, value in reversed(type_.values)}
    if type_.flags:
        bits = 0
        for value in literal:
            bits |= value
        out(f"return (value & ~{bits}ULL) == 0; // {', '.join(name for name, _ in type_.values)}")
    else:
        # In ranges: what comes after one another is one.
        ranges = []
        for value in sorted(literal):
            if ranges and ranges[-1][1] == value - 1:
                ranges[-1][1] = value
            else:
                ranges.append([value, value])
        signed = not (type_.underlying.startswith("unsigned") or type_.underlying in ("char16_t", "char32_t"))
        widest = "static_cast<long long>(value)" if signed else "static_cast<unsigned long long>(value)"
        out(f"const auto wide = {widest};")
        out()

        def number(value):
            if value == -(1 << 63):
                return "(-0x7fffffffffffffffLL - 1)"
            return f"{value}{'LL' if signed else 'ULL'}"

        def one(first, last):
            names = f"{literal[first]} to {literal[last]}" if first != last else literal[first]
            if first == last:
                test = f"wide == {number(first)}"
            elif first == 0 and not signed:
                test = f"wide <= {number(last)}"
            else:
                test = f"(wide >= {number(first)} && wide <= {number(last)})"
            return test, names
        tests = [one(*each) for each in ranges]
        for n, (test, names) in enumerate(tests):
            out(f"{'return ' if n == 0 else '       '}{test}{';' if n == len(tests) - 1 else ' ||'} // {names}")
    out.close()
    out.close("};")


def emit_struct(out, type_):
    out.open(f"template <> struct {ISOLATION}Check<{type_.name}>")
    if type_.checked:
        emit_tests(out, type_)
    else:
        out("static bool bytes(const std::byte *) noexcept { return true; }")
    out.close("};")
    out()
    out(f'static_assert(sizeof({type_.name}) == {type_.size}, "orbit-idl has seen another layout of {type_.name}");')
    out(f"static_assert(std::is_trivially_copyable_v<{type_.name}> && std::is_standard_layout_v<{type_.name}>);")
    if type_.padded:
        out()
        emit_copy(out, type_)


def cases(out, value, tag, union):
    """A switch over a union's tag: (path, Type) of each member, for the caller to write its case."""
    out.open(f"switch ({value})")
    for when, path, member in union.members:
        out.label(f"case {tag.name}::{when}:")
        yield path, member
        out("break;")
    out.label("default: // nothing is there")
    out("break;")
    out.close()


def emit_tests(out, type_):
    out("static bool bytes(const std::byte *at) noexcept")
    out.open("{")
    for field in type_.fields:
        if field.type and field.type.checked:
            out(f"if (!{check_of(field.type, f'at + offsetof({type_.name}, {field.name})')})")
            out("\treturn false;")
    for field in type_.fields:
        if field.type is None:
            tag = next(each.type for each in type_.fields if each.name == field.tag)
            out(f"{tag.name} {field.tag}_;")
            out(f"std::memcpy(&{field.tag}_, at + offsetof({type_.name}, {field.tag}), sizeof({field.tag}_));")
            for path, member in cases(out, f"{field.tag}_", tag, field):
                test = check_of(member, f"at + offsetof({type_.name}, {path})") if member.checked else ""
                if test:
                    out(f"if (!{test})")
                    out("\treturn false;")
    out("return true;")
    out.close()


def emit_copy(out, type_):
    out.open(f"template <> struct {ISOLATION}Copy<{type_.name}>")
    out(f"static void to(std::byte *at, const {type_.name} &value) noexcept")
    out.open("{")
    out("std::memset(at, 0, sizeof(value)); // padding too")
    for field in type_.fields:
        if field.type:
            out(f"{ISOLATION}Copy<{array_name(field.type)}>::to(at + offsetof({type_.name}, {field.name}), value.{field.name});")
        else:
            tag = next(each.type for each in type_.fields if each.name == field.tag)
            for path, member in cases(out, f"value.{field.tag}", tag, field):
                out(f"{ISOLATION}Copy<{array_name(member)}>::to(at + offsetof({type_.name}, {path}), value.{path});")
    out.close()
    out.close("};")


# --- messages

def argument_fields(method):
    """[(declaration, name, Type or None)] of what the fixed part of a call has."""
    fields = []
    for parameter in method.parameters:
        kind, name = parameter.kind, parameter.name
        if kind == "value":
            fields.append((parameter.type.declare(name), name, parameter.type))
        elif kind in ("moved", "lent"):
            fields.append((f"{ISOLATION}Handle {name}", name, None))
        elif kind in ("text", "array"):
            fields.append((f"{ISOLATION}Part {name}", name, None))
        elif kind in ("object", "kept"):
            fields.append((f"{ISOLATION}Capability {name}", name, None))
        elif kind == "projection":
            for n, (path, type_) in enumerate(parameter.into):
                field = projected_name(parameter, n, "in")
                fields.append((f"{type_.declare(field)}", field, type_))
    return fields


def reply_fields(method):
    fields = []
    returned = method.returned
    if returned.kind == "value":
        fields.append((returned.type.declare("value_"), "value_", returned.type))
    elif returned.kind == "moved":
        fields.append((f"{ISOLATION}Handle value_", "value_", None))
    elif returned.kind in ("text", "array"):
        fields.append((f"{ISOLATION}Part value_", "value_", None))
    elif returned.kind == "kept":
        fields.append((f"{ISOLATION}Capability value_", "value_", None))
    for parameter in method.parameters:
        if parameter.kind == "array" and parameter.returns:
            fields.append((f"{ISOLATION}Part {parameter.name}", parameter.name, None))
        for n, (path, type_) in enumerate(parameter.back):
            field = projected_name(parameter, n, "out")
            fields.append((type_.declare(field), field, type_))
    return fields


def projected_name(parameter, n, way):
    path = (parameter.into if way == "in" else parameter.back)[n][0]
    # With an underscore at the end, which no parameter's name has; numbered, for a.b and a_b are two.
    return f"{parameter.name}_{path.replace('.', '_')}_{n}_"


def emit_message(out, name, fields):
    out.open(f"struct {name}")
    out(f"{ISOLATION}Head head_;")
    for declaration, _, _ in fields:
        out(f"{declaration};")
    out()
    checked = [(field, type_) for _, field, type_ in fields if type_ and type_.checked]
    if not checked:
        out("static bool valid_(const std::byte *) noexcept { return true; }")
        out.close("};")
        return
    out("static bool valid_(const std::byte *at_) noexcept")
    out.open("{")
    for n, (field, type_) in enumerate(checked):
        out(f"{'return ' if n == 0 else '       '}{check_of(type_, f'at_ + offsetof({name}, {field})')}"
            f"{';' if n == len(checked) - 1 else ' &&'}")
    out.close()
    out.close("};")


def most_bytes(fixed, parts):
    """An expression: how many bytes a message has at most."""
    return " + ".join([f"sizeof({fixed})"] + [
        f"8 + {part.most}{f' * sizeof({part.type.name})' if part.type else ''}" for part in parts])


def sent_parts(method):
    return [p for p in method.parameters if p.kind == "text" or p.kind == "array" and p.goes]


def returned_parts(method):
    return ([method.returned] if method.returned.kind in ("text", "array") else []) + \
        [p for p in method.parameters if p.kind == "array" and p.returns]


def emit_wire(out, interface):
    out(f"/// The messages of {interface.name}.")
    out.open(f"namespace {interface.name}_wire")
    out(f"inline constexpr std::uint64_t interface_id = 0x{interface.type_id:016x};")
    out()
    out("/// By their numbers, which begin with 1.")
    out.open(f"inline constexpr {ISOLATION}Method methods[] =")
    for method in interface.methods:
        out(f'{{"{method.name}", 0x{method.type_id:08x}, {"true" if method.repeatable else "false"}}},')
    out.close("};")
    for method in interface.methods:
        out()
        emit_message(out, f"{method.name}_args", argument_fields(method))
        out()
        emit_message(out, f"{method.name}_reply", reply_fields(method))
        out()
        out(f"inline constexpr std::uint32_t {method.name}_number = {method.number};")
        out(f"inline constexpr std::uint32_t {method.name}_type = 0x{method.type_id:08x};")
        out(f"inline constexpr std::size_t {method.name}_args_most = {most_bytes(method.name + '_args', sent_parts(method))};")
        out(f"inline constexpr std::size_t {method.name}_reply_most = {most_bytes(method.name + '_reply', returned_parts(method))};")
    out()
    most = [f"{method.name}_{part}_most" for method in interface.methods for part in ("args", "reply")]
    out(f'inline constexpr {ISOLATION}Interface interface{{"{interface.qualified}", interface_id, methods,')
    passes = any(each.kind in ("object", "kept") for method in interface.methods for each in [*method.parameters, method.returned])
    out(f"\tstd::max({{{', '.join(most)}}}), {'true' if passes else 'false'}}};")
    out.close(f"}} // namespace {interface.name}_wire")
    out()


# --- proxy

def declared_result(method):
    return f"orbit::result<{method.returned.declared}>"


def declared_parameters(method):
    return ", ".join(f"{p.declared}{'' if p.declared.endswith('&') else ' '}{p.name}" for p in method.parameters)


TRANSPORT = f"std::shared_ptr<{ISOLATION}Transport> transport, const {ISOLATION}Connection &connection"


def open_class(out, interface, suffix, bases, parameters, initializers):
    """A class for an interface, up to its constructor."""
    name = interface.name + suffix
    out.open(f"class {name} final : {bases}")
    out.label("public:")
    # No method's name ends with an underscore.
    out(f"static constexpr const {ISOLATION}Interface &interface_ = {interface.name}_wire::interface;")
    out()
    out(f"{name}({parameters})")
    out(f"\t: {initializers}")
    out.open("{")
    out.close()
    out()


def declare_methods(out, interface, result="{}", end=" override;"):
    for method in interface.methods:
        out(f"{result.format(declared_result(method))} {method.name}({declared_parameters(method)})"
            f"{' const' if method.const else ''}{end}")


def emit_proxy_class(out, interface):
    out("/// What a caller calls. Thread-safe as its transport is; the connection's parts outlive it.")
    open_class(out, interface, "Proxy", f"public {interface.name}, private {ISOLATION}ProxyBase", TRANSPORT,
               f"{ISOLATION}ProxyBase(std::move(transport), connection)")
    declare_methods(out, interface)
    out.close("};")
    out()


# --- shadow

def gone_after_a_call(method):
    """Whether an argument cannot be passed a second time."""
    return any(p.kind in ("moved", "kept") for p in method.parameters)


def emit_shadow_class(out, interface):
    out("/// A proxy that outlives the domain behind it: what was under way when the domain died is called again where that is")
    out("/// allowed. Thread-safe as its transport is.")
    open_class(out, interface, "Shadow", f"public {interface.name}, private {ISOLATION}ShadowBase",
               f"{TRANSPORT},\n\t\tstd::shared_ptr<{ISOLATION}Recovery> recovery",
               f"{ISOLATION}ShadowBase(std::move(recovery)), proxy_(std::move(transport), connection)")
    declare_methods(out, interface)
    out()
    out.label("private:")
    out(f"{interface.name}Proxy proxy_;")
    out.close("};")
    out()


def emit_shadow_method(out, interface, method):
    given = ", ".join(f"std::move({p.name})" if p.kind in ("moved", "kept") else p.name for p in method.parameters)
    once = gone_after_a_call(method)
    out(f"inline {declared_result(method)} {interface.name}Shadow::{method.name}({declared_parameters(method)}){' const' if method.const else ''}")
    out.open("{")
    if once:
        out("// What was moved is gone with the domain.")
        out(f"return once_([&] {{ return proxy_.{method.name}({given}); }});")
    else:
        out(f"return repeat_({'true' if method.repeatable else 'false'}, [&] {{ return proxy_.{method.name}({given}); }});")
    out.close()
    out()


def emit_skeleton_class(out, interface):
    out("/// What calls the implementation, with nothing but what has been checked.")
    open_class(out, interface, "Skeleton", f"public {ISOLATION}Skeleton",
               f"std::shared_ptr<{interface.name}> object, const {ISOLATION}Connection &connection",
               "object_(std::move(object)), connection_(connection)")
    out(f"std::uint64_t interface_id() const noexcept override {{ return {interface.name}_wire::interface_id; }}")
    out("int dispatch(std::uint32_t method_, std::span<const std::byte> args_, std::span<std::byte> reply_,")
    out("\t     std::size_t *reply_bytes_) override;")
    out()
    out.label("private:")
    for method in interface.methods:
        out(f"int serve_{method.name}(std::span<const std::byte> args_, std::span<std::byte> reply_, std::size_t *reply_bytes_);")
    out()
    out(f"std::shared_ptr<{interface.name}> object_;")
    out(f"{ISOLATION}Connection connection_;")
    out.close("};")
    out()


def emit_coroutines_class(out, interface):
    out("/// A proxy whose calls are awaited: see <orbit/coroutine.hpp>.")
    open_class(out, interface, "Coroutines", f"private {ISOLATION}CoroutinesBase", TRANSPORT,
               f"{ISOLATION}CoroutinesBase(std::move(transport), connection)")
    declare_methods(out, interface, "orbit::task<{}>", ";")
    out.close("};")
    out()


class AsCoroutine:
    """Writes a function's body as a coroutine's."""

    def __init__(self, out):
        self.out, self.open, self.close = out, out.open, out.close

    def __call__(self, text=""):
        self.out(re.sub(r"^(\t*)return ", r"\1co_return ", text).replace("= exchange_(", "= co_await exchange_("))


def emit_proxy_method(out, interface, method, coroutine=False):
    wire = f"{interface.name}_wire::"
    at = f"{interface.name}::{method.name}"
    args = f"{wire}{method.name}_args"
    offset = lambda field: f"offsetof({args}, {field})"  # noqa: E731
    class_ = interface.name + ("Coroutines" if coroutine else "Proxy")
    result = f"orbit::task<{declared_result(method)}>" if coroutine else declared_result(method)
    out(f"inline {result} {class_}::{method.name}({declared_parameters(method)}){' const' if method.const else ''}")
    out = AsCoroutine(out) if coroutine else out
    out.open("{")
    for p in method.parameters:
        if p.kind in ("text", "array"):
            out(f"if ({p.name}.size() > {p.most})")
            out(f'\treturn {ISOLATION}refused(-E2BIG, "{at}: {p.name} has more than {p.most} elements");')
        elif p.kind == "kept":
            out(f"if (!{p.name})")
            out(f'\treturn {ISOLATION}refused(-EINVAL, "{at}: {p.name} is no object");')
    out(f"{ISOLATION}Buffer<{wire}{method.name}_args_most> args_buffer_;")
    out(f"{ISOLATION}Buffer<{wire}{method.name}_reply_most> reply_buffer_;")
    out(f"{ISOLATION}Writer args_(args_buffer_.bytes(), sizeof({args}), {wire}{method.name}_type);")
    for p in method.parameters:
        if p.kind == "value":
            out(f"args_.put({offset(p.name)}, {p.name});")
        elif p.kind == "text" or p.kind == "array" and p.goes:
            out(f"args_.put_elements({offset(p.name)}, {p.name}.data(), {p.name}.size());")
        elif p.kind == "array":
            out(f"args_.put({offset(p.name)}, {ISOLATION}Part{{0, static_cast<std::uint32_t>({p.name}.size())}});")
        elif p.kind == "projection":
            for n, (path, _) in enumerate(p.into):
                out(f"args_.put({offset(projected_name(p, n, 'in'))}, {p.name}.{path});")
    for p in method.parameters:
        if p.kind == "moved":
            out(f"{ISOLATION}Sending<{p.target}> {p.name}_(connection_, std::move({p.name}));")
        elif p.kind == "lent":
            out(f"{ISOLATION}Lending<{p.target}> {p.name}_(connection_, {p.name});")
        elif p.kind == "object":
            out(f"{ISOLATION}Offering {p.name}_(connection_, std::make_shared<{p.target}Skeleton>({ISOLATION}not_owned({p.name}), connection_));")
        elif p.kind == "kept":
            out(f"{ISOLATION}Offering {p.name}_(connection_, std::make_shared<{p.target}Skeleton>(std::shared_ptr<{p.target}>(std::move({p.name})), connection_));")
        else:
            continue
        what = {"moved": "be moved", "lent": "be lent"}.get(p.kind, "be passed")
        out(f"if (int error_ = {p.name}_.error())")
        out(f'\treturn {ISOLATION}refused(not_passed_(error_), "{at}: {p.name} cannot {what}");')
        out(f"args_.put({offset(p.name)}, {p.name}_.{'capability' if p.kind in ('object', 'kept') else 'handle'}());")
    out("std::span<const std::byte> bytes_;")
    out(f"if (int error_ = exchange_({wire}{method.name}_number, args_, reply_buffer_.bytes(), bytes_))")
    out(f'\treturn {ISOLATION}refused(error_, "{at}: the call failed");')
    for p in method.parameters:
        if p.kind in ("moved", "kept"):
            out(f"{p.name}_.delivered();")
    out(f"{wire}{method.name}_reply reply_;")
    out(f"if (auto opened_ = {ISOLATION}open_reply(bytes_, reply_, {wire}{method.name}_type); !opened_)")
    out("\treturn tl::unexpected(opened_.error());")
    # Everything is looked at before anything of the caller's is changed.
    bad = f'return {ISOLATION}refused(-EPROTO, "{at}: what came back is no reply of this method");'
    backs = [p for p in method.parameters if p.kind == "array" and p.returns]
    for p in backs:
        out(f"{ISOLATION}Elements<{p.type.name}, {p.most}> {p.name}_back_;")
        out(f"if (reply_.{p.name}.length != {p.name}.size() ||")
        out(f"    !{ISOLATION}Reader(bytes_).elements(reply_.{p.name}, {p.most}, sizeof(reply_), {p.name}_back_))")
        out(f"\t{bad}")
    returned = method.returned
    if returned.kind in ("text", "array"):
        out(f"{returned.declared} value_;")
        out(f"if (!{ISOLATION}Reader(bytes_).elements(reply_.value_, {returned.most}, sizeof(reply_), value_))")
        out(f"\t{bad}")
    elif returned.kind == "moved":
        received = f"connection_.endpoint->receive<{returned.target}>(reply_.value_, connection_.peer)"
        out("if (!connection_.endpoint)")
        out(f'\treturn {ISOLATION}refused(-EOPNOTSUPP, "{at}: the connection has no heap");')
        if backs or any(p.back for p in method.parameters):
            out(f"auto value_ = {received};")
            out("if (!value_)")
            out("\treturn tl::unexpected(value_.error());")
    elif returned.kind == "kept":
        out(f"std::shared_ptr<{ISOLATION}Transport> value_;")
        out(f"if (int error_ = {ISOLATION}accept(connection_, reply_.value_, 0x{returned.target_type:016x}, &value_))")
        out(f'\treturn {ISOLATION}refused(error_, "{at}: what came back is no object");')
    for p in backs:
        out(f"std::copy({p.name}_back_.begin(), {p.name}_back_.end(), {p.name}.begin());")
    for p in method.parameters:
        for n, (path, _) in enumerate(p.back):
            out(f"{ISOLATION}assign({p.name}.{path}, reply_.{projected_name(p, n, 'out')});")
    if returned.kind == "void":
        out("return {};")
    elif returned.kind == "value":
        out("return reply_.value_;")
    elif returned.kind == "kept":
        make = "std::make_unique" if returned.smart == "std::unique_ptr" else "std::make_shared"
        out(f"return {make}<{returned.target}Proxy>(std::move(value_), connection_);")
    elif returned.kind == "moved" and not backs and not any(p.back for p in method.parameters):
        out(f"return {received};")
    else:
        out("return value_;")
    out.close()
    out()


# --- skeleton

def emit_dispatch(out, interface):
    out(f"inline int {interface.name}Skeleton::dispatch(std::uint32_t method_, std::span<const std::byte> args_,")
    out("\t\t\t\t\tstd::span<std::byte> reply_, std::size_t *reply_bytes_)")
    out.open("{")
    out("*reply_bytes_ = 0;")
    out("switch (method_) {")
    for method in interface.methods:
        out(f"case {interface.name}_wire::{method.name}_number:")
        out(f"\treturn serve_{method.name}(args_, reply_, reply_bytes_);")
    out("}")
    out("return -ENOSYS;")
    out.close()
    out()


def emit_serve(out, interface, method):
    wire = f"{interface.name}_wire::"
    reply = f"{wire}{method.name}_reply"
    out(f"inline int {interface.name}Skeleton::serve_{method.name}(std::span<const std::byte> args_,")
    out("\t\t\t\t\tstd::span<std::byte> reply_, std::size_t *reply_bytes_)")
    out.open("{")
    out(f"{ISOLATION}Reader reader_(args_);")
    out(f"{wire}{method.name}_args in_;")
    out(f"if (!reader_.open(in_, {wire}{method.name}_type))")
    out("\treturn -EPROTO;")
    out(f"if (reply_.size() < {wire}{method.name}_reply_most)")
    out("\treturn -EMSGSIZE;")
    for p in method.parameters:
        if p.kind == "text" or p.kind == "array" and p.goes:
            container = "std::string" if p.kind == "text" else f"{ISOLATION}Elements<{p.type.name}, {p.most}>"
            out(f"{container} {p.name}_;")
            out(f"if (!reader_.elements(in_.{p.name}, {p.most}, sizeof(in_), {p.name}_))")
            out("\treturn -EPROTO;")
        elif p.kind == "array":
            out(f"if (in_.{p.name}.length > {p.most})")
            out("\treturn -EPROTO;")
            out(f"std::vector<{p.type.name}> {p.name}_(in_.{p.name}.length);")
    for p in method.parameters:
        if p.kind == "projection":
            out(f"{p.target} {p.name}_{{}};")
            for n, (path, _) in enumerate(p.into):
                out(f"{ISOLATION}assign({p.name}_.{path}, in_.{projected_name(p, n, 'in')});")
        elif p.kind == "lent":
            out(f"{ISOLATION}Borrowing<{p.target}> {p.name}_(connection_, in_.{p.name});")
            out(f"if (int error_ = {p.name}_.error())")
            out("\treturn error_;")
        elif p.kind in ("object", "kept"):
            out(f"std::shared_ptr<{ISOLATION}Transport> {p.name}_way_;")
            out(f"if (int error_ = {ISOLATION}accept(connection_, in_.{p.name}, 0x{p.target_type:016x}, &{p.name}_way_))")
            out("\treturn error_;")
            if p.kind == "object":
                out(f"{p.target}Proxy {p.name}_(std::move({p.name}_way_), connection_);")
    # Last, for what is refused until here changes nobody's buffers.
    for p in method.parameters:
        if p.kind == "moved":
            out("if (!connection_.endpoint)")
            out("\treturn -EOPNOTSUPP;")
            out(f"auto {p.name}_ = connection_.endpoint->receive<{p.target}>(in_.{p.name}, connection_.peer);")
            out(f"if (!{p.name}_)")
            out(f"\treturn -{p.name}_.error().code();")
    given = []
    for p in method.parameters:
        given.append({"value": f"in_.{p.name}", "text": f"{p.name}_", "array": f"{p.name}_",
                      "projection": f"{p.name}_", "lent": f"{p.name}_.get()", "object": f"{p.name}_",
                      "moved": f"std::move(*{p.name}_)"}.get(p.kind)
                     or f"{'std::make_unique' if p.smart == 'std::unique_ptr' else 'std::make_shared'}<{p.target}Proxy>(std::move({p.name}_way_), connection_)")
    out(f"auto result_ = object_->{method.name}({', '.join(given)});")
    for p in method.parameters:
        if p.kind == "lent":
            out(f"{p.name}_.end();")
    fail = f"return {ISOLATION}reply_error(reply_, reply_bytes_, {wire}{method.name}_type"
    out("if (!result_)")
    out(f"\t{fail}, result_.error().code());")
    returned = method.returned
    if returned.kind in ("text", "array"):
        out(f"if (result_->size() > {returned.most})")
        out(f"\t{fail}, EMSGSIZE);")
    elif returned.kind == "kept":
        out("if (!*result_)")
        out(f"\t{fail}, EINVAL);")
    out(f"{ISOLATION}Writer out_(reply_, sizeof({reply}), {wire}{method.name}_type);")
    offset = lambda field: f"offsetof({reply}, {field})"  # noqa: E731
    for p in method.parameters:
        if p.kind == "array" and p.returns:
            out(f"out_.put_elements({offset(p.name)}, {p.name}_.data(), {p.name}_.size());")
        for n, (path, _) in enumerate(p.back):
            out(f"out_.put({offset(projected_name(p, n, 'out'))}, {p.name}_.{path});")
    if returned.kind == "value":
        out(f"out_.put({offset('value_')}, *result_);")
    elif returned.kind in ("text", "array"):
        out(f"out_.put_elements({offset('value_')}, result_->data(), result_->size());")
    if returned.kind == "moved":
        out(f"{ISOLATION}Sending<{returned.target}> value_(connection_, std::move(*result_));")
        out("if (int error_ = value_.error())")
        out(f"\t{fail}, -error_);")
        out(f"out_.put({offset('value_')}, value_.handle());")
        out("value_.delivered();")
    elif returned.kind == "kept":
        out(f"{ISOLATION}Offering value_(connection_, std::make_shared<{returned.target}Skeleton>(std::shared_ptr<{returned.target}>(std::move(*result_)), connection_));")
        out("if (int error_ = value_.error())")
        out("\treturn error_;")
        out(f"out_.put({offset('value_')}, value_.capability());")
        out("value_.delivered();")
    out("*reply_bytes_ = out_.written().size();")
    out("return 0;")
    out.close()
    out()


def emit(header, name, coroutines=False):
    """The text of the generated header, without its first lines. `name` is the user's header."""
    out = Writer()
    guard = "ORBIT_IDL_" + identifier(generated_name(name)).upper()
    out(f"#ifndef {guard}")
    out(f"#define {guard}")
    out()
    out(f'#include "{name}"')
    for include in header.includes:
        out(f'#include "{generated_name(include)}"')
    out()
    if coroutines:
        out("#include <orbit/coroutine.hpp>")
    out("#include <orbit/interface.hpp>")
    if header.rrefs:
        out("#include <orbit/rref.hpp>")
    out("#include <orbit/shadow.hpp>")
    out("#include <orbit/stubs.hpp>")
    out()
    for type_ in header.types:
        emit_check(out, type_)

    def within(part, *arguments):
        for interface in header.interfaces:
            if interface.namespace:
                out(f"namespace {interface.namespace} {{")
                out()
            part(interface, *arguments)
            if interface.namespace:
                out(f"}} // namespace {interface.namespace}")
                out()

    def classes(interface):
        emit_wire(out, interface)
        emit_proxy_class(out, interface)
        emit_shadow_class(out, interface)
        if coroutines:
            emit_coroutines_class(out, interface)
        emit_skeleton_class(out, interface)

    def bodies(interface):
        for method in interface.methods:
            emit_proxy_method(out, interface, method)
        if coroutines:
            for method in interface.methods:
                emit_proxy_method(out, interface, method, coroutine=True)
        for method in interface.methods:
            emit_shadow_method(out, interface, method)
        emit_dispatch(out, interface)
        for method in interface.methods:
            emit_serve(out, interface, method)

    # All classes first: methods pass objects of one another.
    within(classes)
    within(bodies)
    out("#endif")
    return "\n".join(out.lines) + "\n"
