// SPDX-License-Identifier: MIT
//
// The fields of a plain struct, for <orbit/exchangeable.hpp>. Boost.PFR does this, too; but in Debian 12 the package
// that has it cannot be installed beside the usual libboost-dev, and it does not know fields that are arrays.
#ifndef ORBIT_FIELDS_HPP
#define ORBIT_FIELDS_HPP

#include <cstddef>
#include <tuple>
#include <type_traits>
#include <utility>

namespace orbit::isolation {

inline constexpr std::size_t most_fields = 48;

// Converts to whatever a field is.
struct Anything {
	template <class T> operator T() const;
	template <std::size_t> using one = Anything;
};

// With braces around each: none of them then stands for a part of a field.
template <class T, std::size_t... i>
constexpr bool takes(std::index_sequence<i...>)
{
	return requires { T{{Anything::one<i>{}}...}; };
}

/// How many fields an aggregate has; most_fields + 1 if there are more.
template <class T, std::size_t n = 1> constexpr std::size_t count_fields()
{
	if constexpr (n > most_fields)
		return n;
	else if constexpr (takes<T>(std::make_index_sequence<n + 1>()))
		return count_fields<T, n + 1>();
	else
		return n;
}

/// References to them.
template <class T> constexpr auto fields_of(T &object)
{
	constexpr std::size_t n = count_fields<std::remove_const_t<T>>();

	if constexpr (n == 1) {
		auto &[f0] = object;
		return std::tie(f0);
	} else if constexpr (n == 2) {
		auto &[f0, f1] = object;
		return std::tie(f0, f1);
	} else if constexpr (n == 3) {
		auto &[f0, f1, f2] = object;
		return std::tie(f0, f1, f2);
	} else if constexpr (n == 4) {
		auto &[f0, f1, f2, f3] = object;
		return std::tie(f0, f1, f2, f3);
	} else if constexpr (n == 5) {
		auto &[f0, f1, f2, f3, f4] = object;
		return std::tie(f0, f1, f2, f3, f4);
	} else if constexpr (n == 6) {
		auto &[f0, f1, f2, f3, f4, f5] = object;
		return std::tie(f0, f1, f2, f3, f4, f5);
	} else if constexpr (n == 7) {
		auto &[f0, f1, f2, f3, f4, f5, f6] = object;
		return std::tie(f0, f1, f2, f3, f4, f5, f6);
	} else if constexpr (n == 8) {
		auto &[f0, f1, f2, f3, f4, f5, f6, f7] = object;
		return std::tie(f0, f1, f2, f3, f4, f5, f6, f7);
	} else if constexpr (n == 9) {
		auto &[f0, f1, f2, f3, f4, f5, f6, f7, f8] = object;
		return std::tie(f0, f1, f2, f3, f4, f5, f6, f7, f8);
	} else if constexpr (n == 10) {
		auto &[f0, f1, f2, f3, f4, f5, f6, f7, f8, f9] = object;
		return std::tie(f0, f1, f2, f3, f4, f5, f6, f7, f8, f9);
	} else if constexpr (n == 11) {
		auto &[f0, f1, f2, f3, f4, f5, f6, f7, f8, f9, f10] = object;
		return std::tie(f0, f1, f2, f3, f4, f5, f6, f7, f8, f9, f10);
	} else if constexpr (n == 12) {
		auto &[f0, f1, f2, f3, f4, f5, f6, f7, f8, f9, f10, f11] = object;
		return std::tie(f0, f1, f2, f3, f4, f5, f6, f7, f8, f9, f10, f11);
	} else if constexpr (n == 13) {
		auto &[f0, f1, f2, f3, f4, f5, f6, f7, f8, f9, f10, f11, f12] = object;
		return std::tie(f0, f1, f2, f3, f4, f5, f6, f7, f8, f9, f10, f11, f12);
	} else if constexpr (n == 14) {
		auto &[f0, f1, f2, f3, f4, f5, f6, f7, f8, f9, f10, f11, f12, f13] = object;
		return std::tie(f0, f1, f2, f3, f4, f5, f6, f7, f8, f9, f10, f11, f12, f13);
	} else if constexpr (n == 15) {
		auto &[f0, f1, f2, f3, f4, f5, f6, f7, f8, f9, f10, f11, f12, f13, f14] = object;
		return std::tie(f0, f1, f2, f3, f4, f5, f6, f7, f8, f9, f10, f11, f12, f13, f14);
	} else if constexpr (n == 16) {
		auto &[f0, f1, f2, f3, f4, f5, f6, f7, f8, f9, f10, f11, f12, f13, f14, f15] = object;
		return std::tie(f0, f1, f2, f3, f4, f5, f6, f7, f8, f9, f10, f11, f12, f13, f14, f15);
	} else if constexpr (n == 17) {
		auto &[f0, f1, f2, f3, f4, f5, f6, f7, f8, f9, f10, f11, f12, f13, f14, f15, f16] = object;
		return std::tie(f0, f1, f2, f3, f4, f5, f6, f7, f8, f9, f10, f11, f12, f13, f14, f15, f16);
	} else if constexpr (n == 18) {
		auto &[f0, f1, f2, f3, f4, f5, f6, f7, f8, f9, f10, f11, f12, f13, f14, f15, f16, f17] =
			object;
		return std::tie(f0, f1, f2, f3, f4, f5, f6, f7, f8, f9, f10, f11, f12, f13, f14, f15, f16,
			f17);
	} else if constexpr (n == 19) {
		auto &[f0, f1, f2, f3, f4, f5, f6, f7, f8, f9, f10, f11, f12, f13, f14, f15, f16, f17, f18] =
			object;
		return std::tie(f0, f1, f2, f3, f4, f5, f6, f7, f8, f9, f10, f11, f12, f13, f14, f15, f16, f17,
			f18);
	} else if constexpr (n == 20) {
		auto &[f0, f1, f2, f3, f4, f5, f6, f7, f8, f9, f10, f11, f12, f13, f14, f15, f16, f17, f18,
			f19] = object;
		return std::tie(f0, f1, f2, f3, f4, f5, f6, f7, f8, f9, f10, f11, f12, f13, f14, f15, f16, f17,
			f18, f19);
	} else if constexpr (n == 21) {
		auto &[f0, f1, f2, f3, f4, f5, f6, f7, f8, f9, f10, f11, f12, f13, f14, f15, f16, f17, f18,
			f19, f20] = object;
		return std::tie(f0, f1, f2, f3, f4, f5, f6, f7, f8, f9, f10, f11, f12, f13, f14, f15, f16, f17,
			f18, f19, f20);
	} else if constexpr (n == 22) {
		auto &[f0, f1, f2, f3, f4, f5, f6, f7, f8, f9, f10, f11, f12, f13, f14, f15, f16, f17, f18,
			f19, f20, f21] = object;
		return std::tie(f0, f1, f2, f3, f4, f5, f6, f7, f8, f9, f10, f11, f12, f13, f14, f15, f16, f17,
			f18, f19, f20, f21);
	} else if constexpr (n == 23) {
		auto &[f0, f1, f2, f3, f4, f5, f6, f7, f8, f9, f10, f11, f12, f13, f14, f15, f16, f17, f18,
			f19, f20, f21, f22] = object;
		return std::tie(f0, f1, f2, f3, f4, f5, f6, f7, f8, f9, f10, f11, f12, f13, f14, f15, f16, f17,
			f18, f19, f20, f21, f22);
	} else if constexpr (n == 24) {
		auto &[f0, f1, f2, f3, f4, f5, f6, f7, f8, f9, f10, f11, f12, f13, f14, f15, f16, f17, f18,
			f19, f20, f21, f22, f23] = object;
		return std::tie(f0, f1, f2, f3, f4, f5, f6, f7, f8, f9, f10, f11, f12, f13, f14, f15, f16, f17,
			f18, f19, f20, f21, f22, f23);
	} else if constexpr (n == 25) {
		auto &[f0, f1, f2, f3, f4, f5, f6, f7, f8, f9, f10, f11, f12, f13, f14, f15, f16, f17, f18,
			f19, f20, f21, f22, f23, f24] = object;
		return std::tie(f0, f1, f2, f3, f4, f5, f6, f7, f8, f9, f10, f11, f12, f13, f14, f15, f16, f17,
			f18, f19, f20, f21, f22, f23, f24);
	} else if constexpr (n == 26) {
		auto &[f0, f1, f2, f3, f4, f5, f6, f7, f8, f9, f10, f11, f12, f13, f14, f15, f16, f17, f18,
			f19, f20, f21, f22, f23, f24, f25] = object;
		return std::tie(f0, f1, f2, f3, f4, f5, f6, f7, f8, f9, f10, f11, f12, f13, f14, f15, f16, f17,
			f18, f19, f20, f21, f22, f23, f24, f25);
	} else if constexpr (n == 27) {
		auto &[f0, f1, f2, f3, f4, f5, f6, f7, f8, f9, f10, f11, f12, f13, f14, f15, f16, f17, f18,
			f19, f20, f21, f22, f23, f24, f25, f26] = object;
		return std::tie(f0, f1, f2, f3, f4, f5, f6, f7, f8, f9, f10, f11, f12, f13, f14, f15, f16, f17,
			f18, f19, f20, f21, f22, f23, f24, f25, f26);
	} else if constexpr (n == 28) {
		auto &[f0, f1, f2, f3, f4, f5, f6, f7, f8, f9, f10, f11, f12, f13, f14, f15, f16, f17, f18,
			f19, f20, f21, f22, f23, f24, f25, f26, f27] = object;
		return std::tie(f0, f1, f2, f3, f4, f5, f6, f7, f8, f9, f10, f11, f12, f13, f14, f15, f16, f17,
			f18, f19, f20, f21, f22, f23, f24, f25, f26, f27);
	} else if constexpr (n == 29) {
		auto &[f0, f1, f2, f3, f4, f5, f6, f7, f8, f9, f10, f11, f12, f13, f14, f15, f16, f17, f18,
			f19, f20, f21, f22, f23, f24, f25, f26, f27, f28] = object;
		return std::tie(f0, f1, f2, f3, f4, f5, f6, f7, f8, f9, f10, f11, f12, f13, f14, f15, f16, f17,
			f18, f19, f20, f21, f22, f23, f24, f25, f26, f27, f28);
	} else if constexpr (n == 30) {
		auto &[f0, f1, f2, f3, f4, f5, f6, f7, f8, f9, f10, f11, f12, f13, f14, f15, f16, f17, f18,
			f19, f20, f21, f22, f23, f24, f25, f26, f27, f28, f29] = object;
		return std::tie(f0, f1, f2, f3, f4, f5, f6, f7, f8, f9, f10, f11, f12, f13, f14, f15, f16, f17,
			f18, f19, f20, f21, f22, f23, f24, f25, f26, f27, f28, f29);
	} else if constexpr (n == 31) {
		auto &[f0, f1, f2, f3, f4, f5, f6, f7, f8, f9, f10, f11, f12, f13, f14, f15, f16, f17, f18,
			f19, f20, f21, f22, f23, f24, f25, f26, f27, f28, f29, f30] = object;
		return std::tie(f0, f1, f2, f3, f4, f5, f6, f7, f8, f9, f10, f11, f12, f13, f14, f15, f16, f17,
			f18, f19, f20, f21, f22, f23, f24, f25, f26, f27, f28, f29, f30);
	} else if constexpr (n == 32) {
		auto &[f0, f1, f2, f3, f4, f5, f6, f7, f8, f9, f10, f11, f12, f13, f14, f15, f16, f17, f18,
			f19, f20, f21, f22, f23, f24, f25, f26, f27, f28, f29, f30, f31] = object;
		return std::tie(f0, f1, f2, f3, f4, f5, f6, f7, f8, f9, f10, f11, f12, f13, f14, f15, f16, f17,
			f18, f19, f20, f21, f22, f23, f24, f25, f26, f27, f28, f29, f30, f31);
	} else if constexpr (n == 33) {
		auto &[f0, f1, f2, f3, f4, f5, f6, f7, f8, f9, f10, f11, f12, f13, f14, f15, f16, f17, f18,
			f19, f20, f21, f22, f23, f24, f25, f26, f27, f28, f29, f30, f31, f32] = object;
		return std::tie(f0, f1, f2, f3, f4, f5, f6, f7, f8, f9, f10, f11, f12, f13, f14, f15, f16, f17,
			f18, f19, f20, f21, f22, f23, f24, f25, f26, f27, f28, f29, f30, f31, f32);
	} else if constexpr (n == 34) {
		auto &[f0, f1, f2, f3, f4, f5, f6, f7, f8, f9, f10, f11, f12, f13, f14, f15, f16, f17, f18,
			f19, f20, f21, f22, f23, f24, f25, f26, f27, f28, f29, f30, f31, f32, f33] = object;
		return std::tie(f0, f1, f2, f3, f4, f5, f6, f7, f8, f9, f10, f11, f12, f13, f14, f15, f16, f17,
			f18, f19, f20, f21, f22, f23, f24, f25, f26, f27, f28, f29, f30, f31, f32, f33);
	} else if constexpr (n == 35) {
		auto &[f0, f1, f2, f3, f4, f5, f6, f7, f8, f9, f10, f11, f12, f13, f14, f15, f16, f17, f18,
			f19, f20, f21, f22, f23, f24, f25, f26, f27, f28, f29, f30, f31, f32, f33, f34] =
			object;
		return std::tie(f0, f1, f2, f3, f4, f5, f6, f7, f8, f9, f10, f11, f12, f13, f14, f15, f16, f17,
			f18, f19, f20, f21, f22, f23, f24, f25, f26, f27, f28, f29, f30, f31, f32, f33, f34);
	} else if constexpr (n == 36) {
		auto &[f0, f1, f2, f3, f4, f5, f6, f7, f8, f9, f10, f11, f12, f13, f14, f15, f16, f17, f18,
			f19, f20, f21, f22, f23, f24, f25, f26, f27, f28, f29, f30, f31, f32, f33, f34, f35] =
			object;
		return std::tie(f0, f1, f2, f3, f4, f5, f6, f7, f8, f9, f10, f11, f12, f13, f14, f15, f16, f17,
			f18, f19, f20, f21, f22, f23, f24, f25, f26, f27, f28, f29, f30, f31, f32, f33, f34,
			f35);
	} else if constexpr (n == 37) {
		auto &[f0, f1, f2, f3, f4, f5, f6, f7, f8, f9, f10, f11, f12, f13, f14, f15, f16, f17, f18,
			f19, f20, f21, f22, f23, f24, f25, f26, f27, f28, f29, f30, f31, f32, f33, f34, f35,
			f36] = object;
		return std::tie(f0, f1, f2, f3, f4, f5, f6, f7, f8, f9, f10, f11, f12, f13, f14, f15, f16, f17,
			f18, f19, f20, f21, f22, f23, f24, f25, f26, f27, f28, f29, f30, f31, f32, f33, f34,
			f35, f36);
	} else if constexpr (n == 38) {
		auto &[f0, f1, f2, f3, f4, f5, f6, f7, f8, f9, f10, f11, f12, f13, f14, f15, f16, f17, f18,
			f19, f20, f21, f22, f23, f24, f25, f26, f27, f28, f29, f30, f31, f32, f33, f34, f35,
			f36, f37] = object;
		return std::tie(f0, f1, f2, f3, f4, f5, f6, f7, f8, f9, f10, f11, f12, f13, f14, f15, f16, f17,
			f18, f19, f20, f21, f22, f23, f24, f25, f26, f27, f28, f29, f30, f31, f32, f33, f34,
			f35, f36, f37);
	} else if constexpr (n == 39) {
		auto &[f0, f1, f2, f3, f4, f5, f6, f7, f8, f9, f10, f11, f12, f13, f14, f15, f16, f17, f18,
			f19, f20, f21, f22, f23, f24, f25, f26, f27, f28, f29, f30, f31, f32, f33, f34, f35,
			f36, f37, f38] = object;
		return std::tie(f0, f1, f2, f3, f4, f5, f6, f7, f8, f9, f10, f11, f12, f13, f14, f15, f16, f17,
			f18, f19, f20, f21, f22, f23, f24, f25, f26, f27, f28, f29, f30, f31, f32, f33, f34,
			f35, f36, f37, f38);
	} else if constexpr (n == 40) {
		auto &[f0, f1, f2, f3, f4, f5, f6, f7, f8, f9, f10, f11, f12, f13, f14, f15, f16, f17, f18,
			f19, f20, f21, f22, f23, f24, f25, f26, f27, f28, f29, f30, f31, f32, f33, f34, f35,
			f36, f37, f38, f39] = object;
		return std::tie(f0, f1, f2, f3, f4, f5, f6, f7, f8, f9, f10, f11, f12, f13, f14, f15, f16, f17,
			f18, f19, f20, f21, f22, f23, f24, f25, f26, f27, f28, f29, f30, f31, f32, f33, f34,
			f35, f36, f37, f38, f39);
	} else if constexpr (n == 41) {
		auto &[f0, f1, f2, f3, f4, f5, f6, f7, f8, f9, f10, f11, f12, f13, f14, f15, f16, f17, f18,
			f19, f20, f21, f22, f23, f24, f25, f26, f27, f28, f29, f30, f31, f32, f33, f34, f35,
			f36, f37, f38, f39, f40] = object;
		return std::tie(f0, f1, f2, f3, f4, f5, f6, f7, f8, f9, f10, f11, f12, f13, f14, f15, f16, f17,
			f18, f19, f20, f21, f22, f23, f24, f25, f26, f27, f28, f29, f30, f31, f32, f33, f34,
			f35, f36, f37, f38, f39, f40);
	} else if constexpr (n == 42) {
		auto &[f0, f1, f2, f3, f4, f5, f6, f7, f8, f9, f10, f11, f12, f13, f14, f15, f16, f17, f18,
			f19, f20, f21, f22, f23, f24, f25, f26, f27, f28, f29, f30, f31, f32, f33, f34, f35,
			f36, f37, f38, f39, f40, f41] = object;
		return std::tie(f0, f1, f2, f3, f4, f5, f6, f7, f8, f9, f10, f11, f12, f13, f14, f15, f16, f17,
			f18, f19, f20, f21, f22, f23, f24, f25, f26, f27, f28, f29, f30, f31, f32, f33, f34,
			f35, f36, f37, f38, f39, f40, f41);
	} else if constexpr (n == 43) {
		auto &[f0, f1, f2, f3, f4, f5, f6, f7, f8, f9, f10, f11, f12, f13, f14, f15, f16, f17, f18,
			f19, f20, f21, f22, f23, f24, f25, f26, f27, f28, f29, f30, f31, f32, f33, f34, f35,
			f36, f37, f38, f39, f40, f41, f42] = object;
		return std::tie(f0, f1, f2, f3, f4, f5, f6, f7, f8, f9, f10, f11, f12, f13, f14, f15, f16, f17,
			f18, f19, f20, f21, f22, f23, f24, f25, f26, f27, f28, f29, f30, f31, f32, f33, f34,
			f35, f36, f37, f38, f39, f40, f41, f42);
	} else if constexpr (n == 44) {
		auto &[f0, f1, f2, f3, f4, f5, f6, f7, f8, f9, f10, f11, f12, f13, f14, f15, f16, f17, f18,
			f19, f20, f21, f22, f23, f24, f25, f26, f27, f28, f29, f30, f31, f32, f33, f34, f35,
			f36, f37, f38, f39, f40, f41, f42, f43] = object;
		return std::tie(f0, f1, f2, f3, f4, f5, f6, f7, f8, f9, f10, f11, f12, f13, f14, f15, f16, f17,
			f18, f19, f20, f21, f22, f23, f24, f25, f26, f27, f28, f29, f30, f31, f32, f33, f34,
			f35, f36, f37, f38, f39, f40, f41, f42, f43);
	} else if constexpr (n == 45) {
		auto &[f0, f1, f2, f3, f4, f5, f6, f7, f8, f9, f10, f11, f12, f13, f14, f15, f16, f17, f18,
			f19, f20, f21, f22, f23, f24, f25, f26, f27, f28, f29, f30, f31, f32, f33, f34, f35,
			f36, f37, f38, f39, f40, f41, f42, f43, f44] = object;
		return std::tie(f0, f1, f2, f3, f4, f5, f6, f7, f8, f9, f10, f11, f12, f13, f14, f15, f16, f17,
			f18, f19, f20, f21, f22, f23, f24, f25, f26, f27, f28, f29, f30, f31, f32, f33, f34,
			f35, f36, f37, f38, f39, f40, f41, f42, f43, f44);
	} else if constexpr (n == 46) {
		auto &[f0, f1, f2, f3, f4, f5, f6, f7, f8, f9, f10, f11, f12, f13, f14, f15, f16, f17, f18,
			f19, f20, f21, f22, f23, f24, f25, f26, f27, f28, f29, f30, f31, f32, f33, f34, f35,
			f36, f37, f38, f39, f40, f41, f42, f43, f44, f45] = object;
		return std::tie(f0, f1, f2, f3, f4, f5, f6, f7, f8, f9, f10, f11, f12, f13, f14, f15, f16, f17,
			f18, f19, f20, f21, f22, f23, f24, f25, f26, f27, f28, f29, f30, f31, f32, f33, f34,
			f35, f36, f37, f38, f39, f40, f41, f42, f43, f44, f45);
	} else if constexpr (n == 47) {
		auto &[f0, f1, f2, f3, f4, f5, f6, f7, f8, f9, f10, f11, f12, f13, f14, f15, f16, f17, f18,
			f19, f20, f21, f22, f23, f24, f25, f26, f27, f28, f29, f30, f31, f32, f33, f34, f35,
			f36, f37, f38, f39, f40, f41, f42, f43, f44, f45, f46] = object;
		return std::tie(f0, f1, f2, f3, f4, f5, f6, f7, f8, f9, f10, f11, f12, f13, f14, f15, f16, f17,
			f18, f19, f20, f21, f22, f23, f24, f25, f26, f27, f28, f29, f30, f31, f32, f33, f34,
			f35, f36, f37, f38, f39, f40, f41, f42, f43, f44, f45, f46);
	} else if constexpr (n == 48) {
		auto &[f0, f1, f2, f3, f4, f5, f6, f7, f8, f9, f10, f11, f12, f13, f14, f15, f16, f17, f18,
			f19, f20, f21, f22, f23, f24, f25, f26, f27, f28, f29, f30, f31, f32, f33, f34, f35,
			f36, f37, f38, f39, f40, f41, f42, f43, f44, f45, f46, f47] = object;
		return std::tie(f0, f1, f2, f3, f4, f5, f6, f7, f8, f9, f10, f11, f12, f13, f14, f15, f16, f17,
			f18, f19, f20, f21, f22, f23, f24, f25, f26, f27, f28, f29, f30, f31, f32, f33, f34,
			f35, f36, f37, f38, f39, f40, f41, f42, f43, f44, f45, f46, f47);
	}
}

template <class T> using fields_type = decltype(fields_of(std::declval<const T &>()));
template <class T> inline constexpr std::size_t fields_number = std::tuple_size_v<fields_type<T>>;
template <class T, std::size_t i>
using field_type = std::remove_cv_t<std::remove_reference_t<std::tuple_element_t<i, fields_type<T>>>>;

} // namespace orbit::isolation

#endif
