// SPDX-License-Identifier: MIT
//
// For tests and the demo: a detector that goes wrong, by the word in the file that DEADLOCK_FAULT names, or that writes down what
// it was asked and what it has found, in the one that DEADLOCK_RECORD names.
#ifndef MYSQL_DEADLOCK_FAULTS_H
#define MYSQL_DEADLOCK_FAULTS_H

#include "task.h"
#include "waits.h"

#include <cinttypes>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <random>
#include <span>
#include <string>
#include <vector>

namespace deadlock {

/// What it is to do wrong; empty for nothing.
inline std::string fault()
{
	const char *const path = std::getenv("DEADLOCK_FAULT");
	std::FILE *const file = path ? std::fopen(path, "r") : nullptr;
	char word[20] = "";

	if (!file)
		return "";
	const bool read = std::fscanf(file, "%19s", word) == 1;
	std::fclose(file);
	return read ? word : "";
}

/// Write down a question about some waits and its answer, as tests/unit/deadlock_recorded.inc has them: names are counted from 1.
inline void record(const Question &question, std::span<const Deadlock> found)
{
	const char *const path = std::getenv("DEADLOCK_RECORD");
	const auto *const header = static_cast<const Header *>(question.memory);
	const auto *const waits = static_cast<const Wait *>(question.memory) + 1;
	std::FILE *const file = path ? std::fopen(path, "a") : nullptr;
	std::map<std::uint64_t, std::uint64_t> names{{0, 0}};

	if (!file)
		return;
	std::fputs("{{", file);
	for (std::uint64_t slot = 0; slot < header->used; slot++) {
		const auto name = [&names](std::uint64_t from) { return names.emplace(from, names.size()).first->second; };
		const std::uint64_t transaction = name(waits[slot].transaction), waits_for = name(waits[slot].waits_for);

		std::fprintf(file, "{%" PRIu64 ", %" PRIu64 ", %" PRIu64 ", %" PRIu64 "}, ", waits[slot].number, transaction, waits_for,
			     waits[slot].weight);
	}
	std::fputs("}, {", file);
	for (const Deadlock &deadlock : found)
		std::fprintf(file, "{%" PRIu64 ", %" PRIu64 ", %" PRIu32 ", %" PRIu32 ", %" PRIu64 "}, ", deadlock.victim_number,
			     deadlock.latest_number, deadlock.victim, deadlock.latest, deadlock.length);
	std::fputs("}},\n", file);
	std::fclose(file);
}

/// Write anything over memory.
inline void overwrite(void *memory, std::size_t bytes)
{
	static std::mt19937_64 random(std::random_device{}());

	for (std::size_t i = 0; i < bytes; i++)
		static_cast<volatile char *>(memory)[i] = static_cast<char>(random());
}

/// Go wrong as the file says, if it says so. Only some faults return.
inline void go_wrong(const void *memory, std::size_t bytes, std::vector<Deadlock> &found)
{
	static std::mt19937_64 random(std::random_device{}());
	const std::string fault = deadlock::fault();

	if (fault == "segfault") {
		volatile int *volatile nowhere = nullptr; // else the compiler leaves it out

		*nowhere = 1;
	} else if (fault == "abort") {
		std::abort();
	} else if (fault == "loop") {
		for (volatile bool forever = true; forever;)
			;
	} else if (fault == "memory") {
		for (;;) {
			constexpr std::size_t size = 16 << 20;
			auto *const eaten = static_cast<char *>(std::malloc(size));

			if (!eaten)
				std::abort();
			for (std::size_t at = 0; at < size; at += 4096)
				static_cast<volatile char *>(eaten)[at] = 1;
		}
	} else if (fault == "scribble") {
		// Over all that it was shown, and over its own heap.
		auto *const heap = static_cast<char *>(std::malloc(64));

		overwrite(const_cast<void *>(memory), bytes);
		overwrite(heap, 4096);
		std::free(heap);
	} else if (fault == "random") {
		// Somebody who waits.
		const auto *const waits = static_cast<const Wait *>(memory) + 1;
		const std::uint64_t used = static_cast<const Header *>(memory)->used;

		found.clear();
		for (int i = 0; used && i < 64 && found.empty(); i++) {
			const auto slot = static_cast<std::uint32_t>(random() % used);
			const std::uint64_t number = waits[slot].number;

			if (number)
				found.push_back({number, number, slot, slot, 2});
		}
	} else if (fault == "wild") {
		// Numbers that are none.
		for (int i = 0; i < 16; i++)
			found.push_back({random(), random(), static_cast<std::uint32_t>(random()),
					 static_cast<std::uint32_t>(random()), random()});
	} else if (fault == "nobody") {
		found.clear();
	}
}

} // namespace deadlock

#endif // MYSQL_DEADLOCK_FAULTS_H
