// SPDX-License-Identifier: MIT
//
// A load balancer of layer 4: it knows a backend for each packet, and for all packets of a connection the same. It knows
// nothing of devices or domains.
#ifndef EXAMPLES_PACKET_FORWARDER_BALANCER_H
#define EXAMPLES_PACKET_FORWARDER_BALANCER_H

#include "maglev.h"
#include "packet.h"

#include <cstdint>
#include <span>
#include <string>
#include <utility>
#include <vector>

struct Backend {
	std::string name;
	Mac mac{};

	friend bool operator==(const Backend &, const Backend &) = default;
};

/// For one thread.
class Balancer {
public:
	/// Connections that are remembered at a time: at least `connections`, rounded up to a power of 2; of two that fall on one
	/// place the later one stays.
	explicit Balancer(std::vector<Backend> backends, std::size_t connections = 1 << 16)
		: backends_(std::move(backends)), maglev_(names(backends_))
	{
		std::size_t places = 1;

		while (places < connections)
			places *= 2;
		seen_.resize(places);
	}

	/// Other backends. Connections stay where they are, as long as their backend is there.
	void change(std::vector<Backend> backends)
	{
		std::vector<std::uint32_t> moved(backends_.size(), Maglev::none);

		for (std::size_t before = 0; before < backends_.size(); before++)
			for (std::size_t now = 0; now < backends.size(); now++)
				if (backends_[before] == backends[now])
					moved[before] = static_cast<std::uint32_t>(now);
		for (Seen &seen : seen_)
			if (seen.backend != Maglev::none)
				seen.backend = moved[seen.backend];
		maglev_ = Maglev(names(backends));
		backends_ = std::move(backends);
	}

	/// Where a packet goes, by its beginning, with all headers as far as there are ports. Nothing if it is no IP packet, or
	/// there is no backend. Until the next change().
	const Backend *find(std::span<const std::byte> packet) noexcept
	{
		const auto flow = packet::flow_of(packet);

		if (!flow)
			return nullptr;
		const std::uint64_t hash = packet::hash_of(*flow);
		Seen &seen = seen_[hash & (seen_.size() - 1)];

		if (seen.backend == Maglev::none || seen.flow != *flow)
			seen = {.flow = *flow, .backend = maglev_.find(hash >> 16)};
		return seen.backend == Maglev::none ? nullptr : &backends_[seen.backend];
	}

	std::span<const Backend> backends() const noexcept { return backends_; }

private:
	struct Seen {
		Flow flow;
		std::uint32_t backend = Maglev::none;
	};

	static std::vector<std::string> names(std::span<const Backend> backends)
	{
		std::vector<std::string> all;

		for (const Backend &backend : backends)
			all.push_back(backend.name);
		return all;
	}

	std::vector<Backend> backends_;
	Maglev maglev_;
	std::vector<Seen> seen_;
};

#endif
