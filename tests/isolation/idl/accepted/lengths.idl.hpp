// SPDX-License-Identifier: MIT
//
// Strings, and arrays with a length.
#pragma once

#include <orbit/interface.hpp>

#include <span>
#include <string>
#include <string_view>
#include <vector>

#define MOST_COLOURS 5

namespace texts {

constexpr std::size_t longest = 20 * 2;

enum class Colour : std::uint8_t { red = 1, green, blue };
struct Item {
	char letter;
	std::uint32_t n;
	bool good;
};

class ORBIT_INTERFACE Lengths {
public:
	virtual ~Lengths() = default;

	ORBIT_MAX(80) virtual orbit::result<std::string> join(ORBIT_MAX(longest) std::string_view a, ORBIT_MAX(texts::longest) std::string_view b) = 0;
	virtual orbit::result<std::uint64_t> sum(ORBIT_MAX(1'000) std::span<const std::uint32_t> numbers) = 0;
	ORBIT_MAX(MOST_COLOURS) virtual orbit::result<std::vector<Colour>> mix(ORBIT_MAX(MOST_COLOURS) std::span<const Colour> colours) = 0;
	virtual orbit::result<std::size_t> fill(ORBIT_MAX(0x10000) ORBIT_OUT(*) std::span<std::byte> bytes, unsigned char with) = 0;
	virtual orbit::result<void> sort(ORBIT_MAX(16) ORBIT_BOTH(*) std::span<Item> items) = 0;
	ORBIT_MAX(3) virtual orbit::result<std::vector<Item>> items(std::uint32_t n) = 0;
};

} // namespace texts
