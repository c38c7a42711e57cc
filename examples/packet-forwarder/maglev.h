// SPDX-License-Identifier: MIT
//
// Consistent hashing as in Maglev (Eisenbud and others, NSDI 2016, section 3.4): each backend gets nearly the same share
// of all flows, and when one goes or comes few flows of the others move.
#ifndef EXAMPLES_PACKET_FORWARDER_MAGLEV_H
#define EXAMPLES_PACKET_FORWARDER_MAGLEV_H

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <numeric>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

/// FNV-1a with a final mix: its low bits are to be as good as its high ones.
inline std::uint64_t hash_bytes(std::string_view bytes, std::uint64_t seed) noexcept
{
	std::uint64_t hash = 0xcbf29ce484222325 ^ seed;

	for (const char c : bytes)
		hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3;
	hash ^= hash >> 32;
	hash *= 0xd6e8feb86659fd93;
	return hash ^ hash >> 32;
}

/// Which backend has a flow.
class Maglev {
public:
	/// Of this many places each belongs to a backend. A prime, so that every step visits all of them; for shares that
	/// differ by 1 % at most it is a hundred times the number of backends.
	static constexpr std::uint32_t places = 65537;
	static constexpr std::uint32_t none = ~std::uint32_t{0};

	/// The names decide, and not their order: tables of several machines agree. At most 65536 backends; names differ.
	explicit Maglev(std::span<const std::string> backends) : table_(places, none)
	{
		struct Preference {
			std::uint64_t at, step;
		};
		std::vector<Preference> preferences;
		std::uint32_t filled = 0;

		if (backends.size() > places - 1)
			throw std::invalid_argument("more backends than the table has places");
		for (const std::string &name : backends)
			preferences.push_back({hash_bytes(name, 1) % places, hash_bytes(name, 2) % (places - 1) + 1});
		std::vector<std::uint32_t> order(backends.size());

		std::iota(order.begin(), order.end(), 0);
		std::ranges::sort(order, {}, [&](std::uint32_t backend) { return std::string_view(backends[backend]); });
		// In turn each takes the next place on its list that is free still.
		while (filled < places && !backends.empty())
			for (const std::uint32_t backend : order) {
				if (filled == places)
					break;
				auto &[at, step] = preferences[backend];

				while (table_[at] != none)
					at = (at + step) % places;
				table_[at] = backend;
				filled++;
			}
	}

	/// The number of a backend, or none if there are none.
	std::uint32_t find(std::uint64_t flow_hash) const noexcept { return table_[flow_hash % places]; }

	std::span<const std::uint32_t> table() const noexcept { return table_; }

private:
	std::vector<std::uint32_t> table_;
};

#endif
