// SPDX-License-Identifier: MIT
//
// What a domain serves that has a queue of a network card to itself, in ixgbe_queues.cc.
#pragma once

#include "../../isolation/ixgbe/net.idl.hpp"

namespace application {

inline constexpr std::size_t most_packets = 64;

/// Where its frames are, in a zone that only it, the driver and the main program have part in.
struct Place {
	std::uint64_t frames;
	std::uint32_t count;
	std::uint32_t frame_bytes;
	std::uint32_t number; ///< Its own.
};

class ORBIT_INTERFACE Application {
public:
	virtual ~Application() = default;

	virtual orbit::result<void> start(const Place &place) = 0;
	/// Takes packets that have come, and returns those of their frames that have an answer in them by now.
	ORBIT_MAX(most_packets)
	virtual orbit::result<std::vector<orbit::net::Packet>> handle(ORBIT_MAX(most_packets) std::span<const orbit::net::Packet> come) = 0;
};

} // namespace application
