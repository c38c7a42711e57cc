// SPDX-License-Identifier: MIT
//
// Values: numbers, bools, enums, flags, structs, arrays of a fixed length, tagged unions.
#pragma once

#include <orbit/interface.hpp>

#include <array>
#include <cstdint>

namespace shapes {

enum class Kind : std::uint8_t { none, circle, square = 7 };
enum class ORBIT_FLAGS Rights : std::uint16_t { read = 1, write = 2, execute = 4 };
enum Level { low = -2, middle, high = 40 };

struct Point {
	double x, y;
};

struct Padded {
	char c;
	std::uint64_t n;
	bool b = false;
	std::array<Kind, 3> kinds;
	std::int16_t grid[2][3];
};

struct Circle {
	Point centre;
	float radius;
};

struct Shape {
	Kind kind;
	union ORBIT_TAGGED(kind) {
		ORBIT_WHEN(Kind::circle) Circle circle;
		ORBIT_WHEN(Kind::square) Point square[2];
	};
	bool filled;
};

struct Reply {
	Level level;
	union ORBIT_TAGGED(level) {
		ORBIT_WHEN(low) bool yes;
		ORBIT_WHEN(high) std::int64_t n;
	} value;
};

class ORBIT_INTERFACE Values {
public:
	virtual ~Values() = default;

	virtual orbit::result<void> nothing() = 0;
	virtual orbit::result<std::uint64_t> add(std::uint64_t, std::int8_t, double third) = 0;
	virtual orbit::result<bool> invert(bool b) const = 0;
	virtual orbit::result<Kind> next(Kind kind) = 0;
	virtual orbit::result<Rights> without(Rights rights, const Level &level) = 0;
	virtual orbit::result<Padded> copy(const shapes::Padded &padded) = 0; // by its whole name
	virtual orbit::result<std::array<Padded, 2>> twice(Padded padded) = 0;
	virtual orbit::result<Shape> turn(const Shape &shape) = 0;
	ORBIT_REPEATABLE virtual orbit::result<Reply> reply(Level level) = 0;
};

} // namespace shapes
