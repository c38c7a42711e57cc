// SPDX-License-Identifier: MIT
//
// What an interface says beyond C++: for orbit-idl(1), which reads it. A compiler sees nothing.
#ifndef ORBIT_ATTRIBUTES_HPP
#define ORBIT_ATTRIBUTES_HPP

#ifdef ORBIT_IDL
#define ORBIT_ATTRIBUTE_(text) __attribute__((annotate("orbit::" text)))
#else
#define ORBIT_ATTRIBUTE_(text)
#endif
// Two steps, so that a macro as the argument is replaced first.
#define ORBIT_TEXT_OF_(...) #__VA_ARGS__
#define ORBIT_TEXT_(...) ORBIT_TEXT_OF_(__VA_ARGS__)

/// `class ORBIT_INTERFACE Name`: proxy and skeleton are generated for it.
#define ORBIT_INTERFACE ORBIT_ATTRIBUTE_("interface")
/// `class ORBIT_CREATE Name`: an interface whose one method, create(), makes the domain's first object.
#define ORBIT_CREATE ORBIT_ATTRIBUTE_("create")
/// Before a method: to call it twice does what to call it once does, so that it may be repeated after a crash.
#define ORBIT_REPEATABLE ORBIT_ATTRIBUTE_("repeatable")
/// Before a parameter that is a std::string_view or a std::span, and before a method that returns a std::string
/// or a std::vector: how many elements it has at most. A number, or the name of a constant.
#define ORBIT_MAX(n) ORBIT_ATTRIBUTE_("max=" ORBIT_TEXT_(n))
/// Before a parameter `Struct &`: these fields travel to the implementation, back, or both ways; all others are
/// as in a new object there, and untouched here. `*` are all fields; and all elements of a std::span.
#define ORBIT_IN(...) ORBIT_ATTRIBUTE_("in=" ORBIT_TEXT_(__VA_ARGS__))
#define ORBIT_OUT(...) ORBIT_ATTRIBUTE_("out=" ORBIT_TEXT_(__VA_ARGS__))
#define ORBIT_BOTH(...) ORBIT_ATTRIBUTE_("both=" ORBIT_TEXT_(__VA_ARGS__))
/// `union ORBIT_TAGGED(field) {...}` in a struct: the struct's earlier enum `field` says which member is there.
#define ORBIT_TAGGED(field) ORBIT_ATTRIBUTE_("tagged=" #field)
/// Before a member of such a union: the enumerator for which it is there.
#define ORBIT_WHEN(enumerator) ORBIT_ATTRIBUTE_("when=" #enumerator)
/// `enum class ORBIT_FLAGS Name`: any of its enumerators together are a value, and none of them.
#define ORBIT_FLAGS ORBIT_ATTRIBUTE_("flags")

#endif
