// SPDX-License-Identifier: MIT
#ifndef LIBORBIT_COMMON_CLOCK_H
#define LIBORBIT_COMMON_CLOCK_H

#include <cstdint>
#include <ctime>

namespace liborbit {

inline std::uint64_t to_ns(const timespec &time)
{
	return static_cast<std::uint64_t>(time.tv_sec) * 1000'000'000 + static_cast<std::uint64_t>(time.tv_nsec);
}

// CLOCK_MONOTONIC, in nanoseconds. Where the machine's clock takes a system call and a filter refuses
// that, it goes by ticks: the coarse clock the C library reads from memory always.
inline std::uint64_t monotonic_ns()
{
	timespec time;

	if (clock_gettime(CLOCK_MONOTONIC, &time) && clock_gettime(CLOCK_MONOTONIC_COARSE, &time))
		return 0;
	return to_ns(time);
}

} // namespace liborbit

#endif // LIBORBIT_COMMON_CLOCK_H
