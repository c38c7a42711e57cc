// SPDX-License-Identifier: MIT
//
// Looks for deadlocks: the task that runs in an orbit. An ordinary function over ordinary memory, which nobody changes
// meanwhile.
#ifndef MYSQL_DEADLOCK_DETECTOR_H
#define MYSQL_DEADLOCK_DETECTOR_H

#include "waits.h"

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <vector>

namespace deadlock {

/// Finds all cycles. Has memory of its own, which it keeps for the next search.
class Detector {
public:
	/// @param memory What Waits has made; whatever is there, nothing outside of it is read, and the search ends.
	/// @param bytes Its size.
	/// @param most At most so many cycles.
	/// @return What it has found, until the next call.
	std::span<const Deadlock> find(const void *memory, std::size_t bytes, Rule rule, std::size_t most)
	{
		read(memory, bytes);
		found_.clear();
		seen_.assign(waits_.size(), 0);
		for (std::uint32_t first = 0; first < waits_.size() && found_.size() < most; first++) {
			const std::uint32_t walk = first + 1;
			std::uint32_t at = first;

			// Each walk goes on until it comes to where this or an earlier one has been.
			while (at != none && !seen_[at]) {
				seen_[at] = walk;
				at = next(at);
			}
			if (at != none && seen_[at] == walk)
				found_.push_back(judge(at, rule));
		}
		return found_;
	}

private:
	static constexpr std::uint32_t none = UINT32_MAX;

	struct Node {
		Wait wait;
		std::uint32_t slot;
	};

	// Copy those that wait, and make an index of their names.
	void read(const void *memory, std::size_t bytes)
	{
		const auto *at = static_cast<const unsigned char *>(memory);
		Header header{};

		waits_.clear();
		if (bytes >= sizeof(header))
			std::memcpy(&header, at, sizeof(header));

		const std::size_t used = std::min<std::uint64_t>(header.used, slots_of(bytes));

		for (std::size_t slot = 0; slot < used; slot++) {
			Node node{.wait = {}, .slot = static_cast<std::uint32_t>(slot)};

			std::memcpy(&node.wait, at + sizeof(Header) + slot * sizeof(Wait), sizeof(Wait));
			if (node.wait.number && node.wait.transaction)
				waits_.push_back(node);
		}
		index_.assign(std::bit_ceil(waits_.size() * 2 + 1), none);
		for (std::uint32_t i = 0; i < waits_.size(); i++) {
			std::uint32_t &place = find_name(waits_[i].wait.transaction);

			// If a name is there twice, the first has it.
			if (place == none)
				place = i;
		}
	}

	// Where the index has a name, or would. At least half of its places are free, so there is always an end.
	std::uint32_t &find_name(std::uint64_t name)
	{
		const std::size_t mask = index_.size() - 1;
		std::size_t at = (name * 0x9e3779b97f4a7c15ULL >> 32) & mask;

		while (index_[at] != none && waits_[index_[at]].wait.transaction != name)
			at = (at + 1) & mask;
		return index_[at];
	}

	std::uint32_t next(std::uint32_t at)
	{
		const std::uint64_t name = waits_[at].wait.waits_for;

		return name ? find_name(name) : none;
	}

	// Choose the victim of a cycle.
	Deadlock judge(std::uint32_t on_cycle, Rule rule)
	{
		std::size_t latest = 0;

		cycle_.clear();
		for (std::uint32_t at = on_cycle; cycle_.empty() || at != on_cycle; at = next(at)) {
			cycle_.push_back(at);
			if (wait(cycle_.size() - 1).number > wait(latest).number)
				latest = cycle_.size() - 1;
		}

		const std::size_t length = cycle_.size();
		std::size_t victim;

		if (rule == Rule::mariadb) {
			// The server begins where Brent's search for a cycle, which begins at the latest wait, ends.
			// There the first of the lightest is taken.
			const std::size_t begin = latest + (std::bit_ceil(length) - 1) % length;

			victim = latest;
			for (std::size_t i = 0; i < length; i++) {
				const std::size_t at = (begin + i) % length;

				if (wait(at).weight < wait(victim).weight)
					victim = at;
			}
		} else {
			// Here the last of the lightest, and the latest comes last.
			victim = (latest + 1) % length;
			for (std::size_t i = 2; i <= length; i++) {
				const std::size_t at = (latest + i) % length;

				if (wait(at).weight <= wait(victim).weight)
					victim = at;
			}
		}
		return {.victim_number = wait(victim).number,
			.latest_number = wait(latest).number,
			.victim = waits_[cycle_[victim]].slot,
			.latest = waits_[cycle_[latest]].slot,
			.length = length};
	}

	const Wait &wait(std::size_t position) const { return waits_[cycle_[position]].wait; }

	std::vector<Node> waits_;
	std::vector<std::uint32_t> index_;
	std::vector<std::uint32_t> seen_; // by which walk, counted from 1
	std::vector<std::uint32_t> cycle_;
	std::vector<Deadlock> found_;
};

} // namespace deadlock

#endif // MYSQL_DEADLOCK_DETECTOR_H
