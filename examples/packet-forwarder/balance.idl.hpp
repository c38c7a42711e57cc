// SPDX-License-Identifier: MIT
//
// What the balancer's domain does for the program: it looks at headers, which are strangers' words, and sees nothing else
// of a packet.
#pragma once

#include <orbit/interface.hpp>

#include <array>
#include <cstdint>

namespace forwarder {

inline constexpr std::size_t most_backends = 256, most_headers = 64;

/// The beginning of a packet: enough for Ethernet, an IP header with options, and ports.
struct Header {
	std::uint32_t bytes; // of these
	std::array<std::byte, 78> data;
};

struct Machine {
	std::array<char, 32> name; // zero-padded
	std::array<std::uint8_t, 6> mac;
};

/// Where a packet goes.
struct Choice {
	std::array<std::uint8_t, 6> mac;
	bool send; // false: nowhere
};

class ORBIT_INTERFACE Balancer {
public:
	virtual ~Balancer() = default;

	// Connections stay where they are, as long as their backend is among these.
	ORBIT_REPEATABLE virtual orbit::result<void> set_backends(ORBIT_MAX(most_backends) std::span<const Machine> backends) = 0;
	// One for each, in their order.
	ORBIT_MAX(most_headers) ORBIT_REPEATABLE
	virtual orbit::result<std::vector<Choice>> choose(ORBIT_MAX(most_headers) std::span<const Header> headers) = 0;
};

} // namespace forwarder
