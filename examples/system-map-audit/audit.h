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
	std::uint32_t undone : 6;   ///< Words of a half-made change that were put back.
	std::uint32_t faults : 6;   ///< A set of SymbolIndex::Fault.
};
static_assert(sizeof(Verdict) == sizeof(std::uint64_t));

/// The bug that the audit shall have today.
enum class Bug { kNone, kNullPointer, kEndlessLoop, kWildWrites };

/// Checks the index. This is the orbit's own view of it, so it may write to it,
/// and does: if the snapshot was taken in the middle of a change, the audit first
/// takes that change back, as a database does when it recovers from a crash. The
/// application never notices, and was not made to wait for a quiet moment.
inline Verdict audit(SymbolIndex *index, std::span<std::byte> pool, Bug bug)
{
	Verdict verdict{};

	verdict.undone = index->roll_back() & 0x3f;

	const SymbolIndex::Report report = index->check();

	verdict.version = static_cast<std::uint32_t>(index->version());
	verdict.symbols = report.symbols & 0xfffff;
	verdict.faults = report.faults & 0x3f;

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
		verdict.faults = index->check().faults & 0x3f; // what is left of its view
		break;
	}
	return verdict;
}

#endif // SYSTEM_MAP_AUDIT_AUDIT_H
