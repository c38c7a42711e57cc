// SPDX-License-Identifier: MIT
//
// What a forwarder looks at in a packet: Ethernet, IPv4 and IPv6, TCP and UDP. Every length in a packet is somebody
// else's word.
#ifndef EXAMPLES_PACKET_FORWARDER_PACKET_H
#define EXAMPLES_PACKET_FORWARDER_PACKET_H

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>
#include <span>

using Mac = std::array<std::uint8_t, 6>;

/// What packets of one connection have in common. Bytes as they are in the packet.
struct Flow {
	std::array<std::byte, 16> from{}, to{}; ///< The last 12 bytes are 0 in IPv4.
	std::array<std::byte, 2> from_port{}, to_port{}; ///< 0 where there are none.
	std::uint8_t version = 4;
	std::uint8_t protocol = 0;

	friend bool operator==(const Flow &, const Flow &) = default;
};

namespace packet {

inline constexpr std::size_t ethernet_bytes = 14;

inline unsigned byte_at(std::span<const std::byte> packet, std::size_t at) noexcept
{
	return std::to_integer<unsigned>(packet[at]);
}

inline unsigned u16_at(std::span<const std::byte> packet, std::size_t at) noexcept
{
	return byte_at(packet, at) << 8 | byte_at(packet, at + 1);
}

/// The flow of a packet that is no IP packet, or is cut off, is nothing. A fragment but the first has no ports, so all
/// fragments are of the flow without ports: they shall go the same way.
inline std::optional<Flow> flow_of(std::span<const std::byte> packet) noexcept
{
	Flow flow;
	std::size_t ports = 0;

	if (packet.size() < ethernet_bytes)
		return std::nullopt;
	const auto copy = [&packet](auto &to, std::size_t at, std::size_t bytes) { std::memcpy(to.data(), packet.data() + at, bytes); };
	const std::size_t ip = ethernet_bytes;

	switch (u16_at(packet, 12)) {
	case 0x0800: {
		if (packet.size() < ip + 20 || byte_at(packet, ip) >> 4 != 4)
			return std::nullopt;
		const std::size_t header = (byte_at(packet, ip) & 15) * std::size_t{4};

		if (header < 20 || packet.size() < ip + header)
			return std::nullopt;
		flow.version = 4;
		flow.protocol = static_cast<std::uint8_t>(byte_at(packet, ip + 9));
		copy(flow.from, ip + 12, 4);
		copy(flow.to, ip + 16, 4);
		if (!(u16_at(packet, ip + 6) & 0x3fff)) // neither an offset nor more of them
			ports = ip + header;
		break;
	}
	case 0x86dd:
		if (packet.size() < ip + 40 || byte_at(packet, ip) >> 4 != 6)
			return std::nullopt;
		flow.version = 6;
		flow.protocol = static_cast<std::uint8_t>(byte_at(packet, ip + 6));
		copy(flow.from, ip + 8, 16);
		copy(flow.to, ip + 24, 16);
		ports = ip + 40; // extension headers are a protocol of their own here
		break;
	default: return std::nullopt;
	}
	constexpr unsigned tcp = 6, udp = 17;

	if (ports && (flow.protocol == tcp || flow.protocol == udp)) {
		if (packet.size() < ports + 4)
			return std::nullopt;
		copy(flow.from_port, ports, 2);
		copy(flow.to_port, ports + 2, 2);
	}
	return flow;
}

inline std::uint64_t hash_of(const Flow &flow) noexcept
{
	// Word by word: a flow has no padding.
	static_assert(sizeof(Flow) == 38);
	std::uint64_t words[5]{}, hash = 0x9e3779b97f4a7c15;

	std::memcpy(words, &flow, sizeof(flow));
	for (const std::uint64_t word : words) {
		hash = (hash ^ word) * 0xff51afd7ed558ccd;
		hash ^= hash >> 33;
	}
	return hash;
}

} // namespace packet

#endif
