// SPDX-License-Identifier: MIT
//
// The forwarder: packets that come by one port leave by the other.
#ifndef EXAMPLES_PACKET_FORWARDER_FORWARD_H
#define EXAMPLES_PACKET_FORWARDER_FORWARD_H

#include "balance.idl.hpp"

#include "../../isolation/ixgbe/channel.h"

#include <array>
#include <cstdint>
#include <span>
#include <vector>

namespace forwarder {

struct Counts {
	std::uint64_t forwarded = 0;
	std::uint64_t dropped = 0; ///< No IP packets, no backend, or the balancer was down.
};

/// From port 0, where clients are, to the backends behind port 1, and back. For one thread.
class Forwarder {
public:
	/// The channel has queue 0 of both ports. Packets for clients go to `router`. `own` are the ports' addresses.
	Forwarder(orbit::net::Channel &channel, Balancer &balancer, const std::array<std::array<std::uint8_t, 6>, 2> &own,
		  const std::array<std::uint8_t, 6> &router)
		: channel_(channel), balancer_(balancer), own_(own), router_(router)
	{
		for (std::uint32_t frame = 0; frame < channel_.frames(); frame++)
			empty_.push_back(frame);
	}

	/// Takes what has come by either port, and sends what is to be sent. Returns how many packets have come; 0 also while
	/// the driver is down.
	std::size_t once()
	{
		std::size_t come = 0;

		for (std::uint32_t port = 0; port < 2; port++)
			come += serve(port);
		return come;
	}

	const Counts &counts() const noexcept { return counts_; }

private:
	struct Side {
		std::vector<orbit::net::Packet> to_send;
		std::uint32_t receiving = 0; // frames that the device has for packets to come
	};

	// Frames that each port has for packets to come.
	static constexpr std::uint32_t most_receiving = 256;

	std::size_t serve(std::uint32_t port)
	{
		Side &side = sides_[port];
		std::vector<orbit::net::Packet> batch, received;

		// At most half of them: if there is much to send, there is to be room all the same.
		while (!empty_.empty() && side.receiving + batch.size() < most_receiving && batch.size() < orbit::net::most_packets / 2) {
			batch.push_back({.frame = empty_.back(), .bytes = 0});
			empty_.pop_back();
		}
		const std::size_t given = batch.size();

		while (!side.to_send.empty() && batch.size() < orbit::net::most_packets) {
			batch.push_back(side.to_send.back());
			side.to_send.pop_back();
		}
		const std::uint64_t repeats = channel_.repeats();
		const auto back = channel_.submit_and_poll({port, 0}, batch, 0);

		if (!back) { // nothing was taken: what was to be sent is lost, the frames are not
			for (const orbit::net::Packet &packet : batch)
				empty_.push_back(packet.frame);
			return 0;
		}
		if (channel_.repeats() != repeats) // the driver has died, and has nothing any more
			for (Side &each : sides_)
				each.receiving = 0;
		else
			side.receiving += static_cast<std::uint32_t>(given);
		for (const orbit::net::Packet &packet : *back)
			if (packet.bytes) {
				side.receiving -= side.receiving > 0;
				received.push_back(packet);
			} else {
				empty_.push_back(packet.frame);
			}
		if (port == 0)
			to_backends(received);
		else
			to_clients(received);
		return received.size();
	}

	void address(const orbit::net::Packet &packet, std::span<const std::uint8_t, 6> to, std::span<const std::uint8_t, 6> from)
	{
		const auto bytes = channel_.frame(packet.frame);

		std::ranges::copy(std::as_bytes(to), bytes.begin());
		std::ranges::copy(std::as_bytes(from), bytes.begin() + 6);
	}

	void drop(const orbit::net::Packet &packet)
	{
		empty_.push_back(packet.frame);
		counts_.dropped++;
	}

	void to_backends(std::span<const orbit::net::Packet> received)
	{
		while (!received.empty()) {
			const auto some = received.first(std::min(received.size(), most_headers));
			std::vector<Header> headers(some.size());

			for (std::size_t n = 0; n < some.size(); n++) {
				const std::size_t bytes = std::min<std::size_t>(some[n].bytes, headers[n].data.size());

				headers[n].bytes = static_cast<std::uint32_t>(bytes);
				std::ranges::copy(channel_.frame(some[n].frame).first(bytes), headers[n].data.begin());
			}
			const auto choices = balancer_.choose(headers);

			for (std::size_t n = 0; n < some.size(); n++)
				if (choices && choices->size() == some.size() && (*choices)[n].send) {
					address(some[n], (*choices)[n].mac, own_[1]);
					sides_[1].to_send.push_back(some[n]);
					counts_.forwarded++;
				} else {
					drop(some[n]);
				}
			received = received.subspan(some.size());
		}
	}

	void to_clients(std::span<const orbit::net::Packet> received)
	{
		for (const orbit::net::Packet &packet : received) {
			address(packet, router_, own_[0]);
			sides_[0].to_send.push_back(packet);
			counts_.forwarded++;
		}
	}

	orbit::net::Channel &channel_;
	Balancer &balancer_;
	std::array<std::array<std::uint8_t, 6>, 2> own_;
	std::array<std::uint8_t, 6> router_;
	std::array<Side, 2> sides_;
	std::vector<std::uint32_t> empty_;
	Counts counts_;
};

} // namespace forwarder

#endif
