// SPDX-License-Identifier: MIT
//
// Which types may be in a buffer that domains exchange: those without pointers and references, of which every
// bit pattern is harmless or can be checked.
//
//	struct Request { std::uint64_t lba; std::uint32_t blocks; Op op; };
//	template <> inline constexpr std::array orbit::enumerators<Op>{Op::read, Op::write};
//	static_assert(orbit::exchangeable<Request>);
//
// A struct is looked at field by field, however deep. What is not exchangeable does not compile, and GCC's text
// names the field by its path.
#ifndef ORBIT_EXCHANGEABLE_HPP
#define ORBIT_EXCHANGEABLE_HPP

#include <orbit/fields.hpp>
#include <orbit/interface.hpp>

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string_view>
#include <type_traits>
#include <utility>

namespace orbit {

/// The values that an enum of yours may have: without them, or what the interface compiler generates, an enum is
/// not exchangeable. Specialize it with a std::array.
template <class E> inline constexpr std::array<E, 0> enumerators{};

namespace isolation {

// Whether the interface compiler, or a header of ours, has said how a type is checked.
template <class T>
concept described = requires { sizeof(Check<T>); };

template <class T> struct is_std_array : std::false_type {};
template <class T, std::size_t n> struct is_std_array<std::array<T, n>> : std::true_type {};

// An object that is nowhere, for the names of its fields.
template <class T> struct Nowhere {
	T value;
};
template <class T> extern const Nowhere<T> nowhere;

template <class T> constexpr bool is_exchangeable();

template <class T> constexpr bool fields_are_exchangeable()
{
	return []<std::size_t... i>(std::index_sequence<i...>) {
		return (is_exchangeable<field_type<T, i>>() && ...);
	}(std::make_index_sequence<fields_number<T>>());
}

template <class T> constexpr bool is_exchangeable()
{
	if constexpr (std::is_arithmetic_v<T> || std::is_same_v<T, std::byte>)
		return true;
	else if constexpr (std::is_enum_v<T>)
		return described<T> || enumerators<T>.size() > 0;
	else if constexpr (std::is_array_v<T>)
		return is_exchangeable<std::remove_all_extents_t<T>>();
	else if constexpr (is_std_array<T>::value)
		return std::tuple_size_v<T> > 0 && is_exchangeable<typename T::value_type>();
	else if constexpr (!std::is_class_v<T> || !std::is_trivially_copyable_v<T> || !std::is_standard_layout_v<T>)
		return described<T> && std::is_trivially_copyable_v<T>;
	else if constexpr (described<T>)
		return true;
	else if constexpr (!std::is_aggregate_v<T> || std::is_empty_v<T>)
		return false;
	else if constexpr (count_fields<T>() > most_fields)
		return false;
	else
		return fields_are_exchangeable<T>();
}

// The same as an error, for each field anew. `Where` is the field, for the compiler to print it.
template <class T, auto Where = 0> constexpr bool require_exchangeable()
{
	static_assert(!std::is_pointer_v<T> && !std::is_member_pointer_v<T> && !std::is_null_pointer_v<T>,
		      "not exchangeable: a pointer means nothing in another domain; see 'Where'");
	static_assert(!std::is_reference_v<T>, "not exchangeable: a reference means nothing in another domain");
	static_assert(!std::is_union_v<T> || described<T>,
		      "not exchangeable: which member of a union is there only the interface compiler can tell");
	if constexpr (std::is_enum_v<T>) {
		static_assert(is_exchangeable<T>(),
			      "not exchangeable: an enum whose values are not known; specialize orbit::enumerators");
	} else if constexpr (std::is_array_v<T>) {
		return require_exchangeable<std::remove_all_extents_t<T>, Where>();
	} else if constexpr (is_std_array<T>::value) {
		static_assert(std::tuple_size_v<T> > 0, "not exchangeable: an array of nothing");
		return require_exchangeable<typename T::value_type, Where>();
	} else if constexpr (std::is_class_v<T> && !described<T>) {
		static_assert(std::is_trivially_copyable_v<T>,
			      "not exchangeable: not trivially copyable (a destructor, a copy constructor, a string)");
		static_assert(std::is_standard_layout_v<T> && std::is_aggregate_v<T>,
			      "not exchangeable: not a plain struct (bases, virtual functions, constructors, private fields)");
		static_assert(!std::is_empty_v<T>, "not exchangeable: an empty struct");
		static_assert(std::is_empty_v<T> || !std::is_aggregate_v<T> || count_fields<T>() <= most_fields,
			      "not exchangeable: more than 48 fields; put some into a struct of their own");
		if constexpr (std::is_trivially_copyable_v<T> && std::is_standard_layout_v<T> &&
			      std::is_aggregate_v<T> && !std::is_empty_v<T> && count_fields<T>() <= most_fields)
			return []<std::size_t... i>(std::index_sequence<i...>) {
#ifdef __clang__ // it knows no pointers to fields as arguments of templates
				return (require_exchangeable<field_type<T, i>, i>() && ...);
#else
				return (require_exchangeable<field_type<T, i>,
						      &std::get<i>(fields_of(nowhere<T>.value))>() &&
					...);
#endif
			}(std::make_index_sequence<fields_number<T>>());
	}
	return is_exchangeable<T>();
}

// FNV-1a.
constexpr std::uint32_t mix(std::uint32_t hash, std::string_view text)
{
	for (const char c : text)
		hash = (hash ^ static_cast<unsigned char>(c)) * 16777619u;
	return hash;
}

constexpr std::uint32_t mix(std::uint32_t hash, std::size_t number)
{
	for (int i = 0; i < 8; i++)
		hash = (hash ^ static_cast<std::uint32_t>(number >> 8 * i & 255)) * 16777619u;
	return hash;
}

// The compiler's words for it, as they stand in the name of this function.
template <class T> constexpr std::string_view spelling()
{
	return __PRETTY_FUNCTION__;
}

template <class T> constexpr std::uint32_t mix_type(std::uint32_t hash)
{
	hash = mix(mix(mix(hash, spelling<T>()), sizeof(T)), alignof(T));
	if constexpr (is_std_array<T>::value)
		hash = mix_type<typename T::value_type>(hash);
	else if constexpr (std::is_class_v<T> && !described<T>)
		[&]<std::size_t... i>(std::index_sequence<i...>) {
			((hash = mix_type<field_type<T, i>>(hash)), ...);
		}(std::make_index_sequence<fields_number<T>>());
	return hash;
}

/// Of a type's spelling and its layout, for T, and for T[] another.
template <class T>
inline constexpr std::uint32_t type_id = mix_type<std::remove_extent_t<T>>(mix(2166136261u, std::size_t{std::is_array_v<T>}));

template <class T> bool is_valid_at(const std::byte *at) noexcept
{
	if constexpr (std::is_arithmetic_v<T>) {
		return Check<T>::bytes(at);
	} else if constexpr (std::is_same_v<T, std::byte>) {
		return true;
	} else if constexpr (is_std_array<T>::value || std::is_array_v<T>) {
		using Element = std::remove_cvref_t<decltype(std::declval<const T &>()[0])>;

		if constexpr ((!std::is_arithmetic_v<Element> && !std::is_same_v<Element, std::byte>) ||
			      std::is_same_v<Element, bool>)
			for (std::size_t i = 0; i < sizeof(T) / sizeof(Element); i++)
				if (!is_valid_at<Element>(at + i * sizeof(Element)))
					return false;
		return true;
	} else if constexpr (described<T>) {
		return Check<T>::bytes(at);
	} else if constexpr (std::is_enum_v<T>) {
		std::underlying_type_t<T> value;

		std::memcpy(&value, at, sizeof(value));
		for (const T one : enumerators<T>)
			if (value == static_cast<std::underlying_type_t<T>>(one))
				return true;
		return false;
	} else {
		// References to fields are addresses: nothing is read by them.
		const T &object = *reinterpret_cast<const T *>(at);

		return [&]<std::size_t... i>(std::index_sequence<i...>) {
			return (is_valid_at<field_type<T, i>>(
					reinterpret_cast<const std::byte *>(&std::get<i>(fields_of(object)))) &&
				...);
		}(std::make_index_sequence<fields_number<T>>());
	}
}

// Without the bytes of padding, in which there may be anything.
template <class T> void copy_to(std::byte *at, const T &value) noexcept
{
	if constexpr (std::has_unique_object_representations_v<T> || std::is_arithmetic_v<T>)
		std::memcpy(at, &value, sizeof(T));
	else if constexpr (is_std_array<T>::value || std::is_array_v<T>)
		for (std::size_t i = 0; i < std::size(value); i++)
			copy_to(at + i * sizeof(value[0]), value[i]);
	else if constexpr (described<T>)
		Copy<T>::to(at, value);
	else
		std::apply(
			[&](const auto &...field) {
				(copy_to(at + (reinterpret_cast<const std::byte *>(&field) -
					       reinterpret_cast<const std::byte *>(&value)),
					 field),
				 ...);
			},
			fields_of(value));
}

} // namespace isolation

/// Whether a type may be in a buffer that domains exchange.
template <class T>
concept exchangeable = std::is_object_v<T> && isolation::is_exchangeable<std::remove_cv_t<T>>();

/// Whether an object's bytes are a value of its type: its bools, its enums, what the interface compiler has
/// described. It looks at bytes, and never at the value. What it looks at must be memory of your own: elsewhere it
/// may change after the check.
template <exchangeable T> bool is_valid(const T &object) noexcept
{
	return isolation::is_valid_at<std::remove_cv_t<T>>(reinterpret_cast<const std::byte *>(&object));
}

} // namespace orbit

#endif
