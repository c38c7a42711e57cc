// SPDX-License-Identifier: MIT
//
// Which pages change before which calls: what modes of snapshots are measured with.
#ifndef ORBIT_BENCH_PATTERNS_H
#define ORBIT_BENCH_PATTERNS_H

#include <cstdint>

namespace patterns {

// Does this page change before this call?
using Pattern = bool (*)(unsigned page, unsigned round);

template <unsigned N> bool every(unsigned page, unsigned round)
{
	return (page + round) % N == 0;
}

// One in N, with no pattern to it; the same in each run.
template <unsigned N> bool random_one_in(unsigned page, unsigned round)
{
	std::uint32_t x = page * 2654435761U + round * 2246822519U;

	x ^= x >> 15;
	x *= 2654435769U;
	x ^= x >> 13;
	return x % N == 0;
}

// Some pages always, some seldom, most never: what a server's pool is like.
inline bool mixed(unsigned page, unsigned round)
{
	return page % 8 == 0 || (page % 8 == 1 && (page + round) % 16 == 0);
}

} // namespace patterns

#endif // ORBIT_BENCH_PATTERNS_H
