// SPDX-License-Identifier: MIT
//
// The audit: the maintenance task that runs in an orbit. Nothing here knows about
// orbits; it is an ordinary function over ordinary memory.
#ifndef SYSTEM_MAP_AUDIT_AUDIT_H
#define SYSTEM_MAP_AUDIT_AUDIT_H

#include "symbol_index.h"

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>

/// What the audit found: eight bytes, the most that a task returns.
struct Verdict {
	std::uint32_t version;	    ///< Changes made to the index so far (the low 32 bits).
	std::uint32_t symbols : 20; ///< In the index.
	std::uint32_t faults : 12;  ///< A set of SymbolIndex::Fault.
};
static_assert(sizeof(Verdict) == sizeof(std::uint64_t));

/// The bug that the audit shall have today.
enum class Bug { kNone, kNullPointer, kEndlessLoop, kWildWrites };

/// Checks the index.
inline Verdict audit(SymbolIndex *index, std::span<std::byte> pool, Bug bug)
{
	const SymbolIndex::Report report = index->check();
	Verdict verdict{};

	verdict.version = static_cast<std::uint32_t>(index->version());
	verdict.symbols = report.symbols & 0xfffff;
	verdict.faults = report.faults & 0xfff;

	switch (bug) {
	case Bug::kNone:
		break;
	case Bug::kNullPointer: {
		volatile int *volatile nowhere = nullptr; // else the compiler leaves it out

		*nowhere = 1;
		break;
	}
	case Bug::kEndlessLoop:
		for (volatile bool forever = true; forever;)
			;
		break;
	case Bug::kWildWrites:
		std::memset(pool.data(), 0xa5, pool.size());
		if (index->count() != report.symbols) // what is left of its view
			verdict.faults = SymbolIndex::kCount;
		break;
	}
	return verdict;
}

#endif // SYSTEM_MAP_AUDIT_AUDIT_H
