// SPDX-License-Identifier: MIT
//
// The detector of the example mysql-deadlock, over memory with anything in it: what it finds is there, and it ends.
#include "../../examples/mysql-deadlock/detector/detector.h"
#include "input.h"

namespace {

using deadlock::Deadlock;
using deadlock::Header;
using deadlock::Wait;

Wait read(const Memory &memory, std::size_t slot)
{
	Wait wait;

	std::memcpy(&wait, memory.data() + sizeof(Header) + slot * sizeof(Wait), sizeof(wait));
	return wait;
}

// The slot with a name; of several the first. `slots` if there is none.
std::size_t find(const Memory &memory, std::size_t slots, std::uint64_t name)
{
	std::size_t slot = 0;

	for (; slot < slots; slot++) {
		const Wait wait = read(memory, slot);

		if (name && wait.number && wait.transaction == name)
			break;
	}
	return slot;
}

} // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t *data, std::size_t size)
{
	static deadlock::Detector detector;
	Input input(data, size);
	Memory memory(input.below(1500));
	const std::size_t room = deadlock::slots_of(memory.size());
	const auto rule = input.byte() % 2 ? deadlock::Rule::mariadb : deadlock::Rule::mysql;
	const std::size_t most = input.byte() % 4 ? SIZE_MAX : input.byte();
	Header header{};

	header.used = input.byte() % 8 ? input.below(room + 1) : input.number(room);
	if (memory.size() >= sizeof(header))
		std::memcpy(memory.data(), &header, sizeof(header));
	for (std::size_t slot = 0; slot < room; slot++) {
		const Wait wait = {.number = input.byte() % 8 ? slot + 1 : input.number(0),
				   .transaction = input.byte() % 16 ? input.below(room + 1) : input.number(0),
				   .waits_for = input.byte() % 16 ? input.below(room + 1) : input.number(0),
				   .weight = input.byte() % 4 ? input.byte() % 4 : input.number(0)};

		std::memcpy(memory.data() + sizeof(header) + slot * sizeof(wait), &wait, sizeof(wait));
	}

	const std::size_t slots = memory.size() < sizeof(header) ? 0
				  : header.used < room		 ? static_cast<std::size_t>(header.used)
								 : room;
	std::vector<bool> seen(slots);
	const auto found = detector.find(memory.data(), memory.size(), rule, most);

	MUST(found.size() <= most);
	for (const Deadlock &d : found) {
		bool victim = false;
		std::size_t at = d.latest;

		MUST(d.latest < slots && d.victim < slots && d.length && d.length <= slots);
		MUST(read(memory, d.victim).number == d.victim_number);
		MUST(read(memory, d.latest).number == d.latest_number);
		// Around it once, and through no slot that was on another one.
		for (std::uint64_t i = 0; i < d.length; i++) {
			const Wait wait = read(memory, at);

			MUST(!seen[at]);
			seen[at] = true;
			MUST(wait.number && wait.number <= d.latest_number);
			MUST(wait.weight >= read(memory, d.victim).weight);
			victim |= at == d.victim;
			at = find(memory, slots, wait.waits_for);
			MUST(at < slots);
		}
		MUST(at == d.latest && victim);
	}
	if (found.size() < most) {
		// Whoever else comes back to itself has been missed.
		for (std::size_t slot = 0; slot < slots; slot++) {
			std::size_t at = slot;

			if (seen[slot] || !read(memory, slot).number || !read(memory, slot).transaction)
				continue;
			for (std::size_t i = 0; i < slots && at < slots; i++) {
				at = find(memory, slots, read(memory, at).waits_for);
				MUST(at != slot);
			}
		}
	}
	return 0;
}
