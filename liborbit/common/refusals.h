// SPDX-License-Identifier: MIT
//
// What a filter (seccomp) refuses. A filter may let a system call fail, or end the program that makes
// it; so all that a backend needs is tried beforehand, by a process that can be spared.
#ifndef LIBORBIT_COMMON_REFUSALS_H
#define LIBORBIT_COMMON_REFUSALS_H

#include <cerrno>
#include <cstddef>
#include <cstdint>

namespace liborbit {

// What a system call answers that is let through.
constexpr long succeeds = 1;  // 0 or more
constexpr long allowed = 2;   // anything but that it is forbidden, or unknown
constexpr long unknown = 3;   // likewise, but it may be unknown: the C library has another way then
constexpr long optional = 4;  // anything: there is another way, as long as the program lives

struct Needed {
	long number;
	long args[5];
	long answer; // one of these, or -errno
	const char *refused, *lethal; // in words
};

// Its name is that of the constant in <sys/syscall.h>.
#define ORBIT_NEEDED(name, answer, ...) ORBIT_NEEDED_NUMBER(name, SYS_##name, answer, __VA_ARGS__)
#define ORBIT_NEEDED_NUMBER(name, number, answer, ...)                             \
	{                                                                          \
		number, {__VA_ARGS__}, answer, "A filter refuses " #name "().",    \
			"A filter ends programs that call " #name "()."            \
	}

// Is there a filter at all?
bool is_filtered();

// Try them, in a process that shares nothing with this one, raises no signal and is reaped. Returns 0,
// or an error and what stands in the way, in words.
int find_refusal(const Needed *calls, std::size_t count, const char **what);

// What both backends do.
int find_common_refusal(const char **what);

// What to do about an error of these, if it is not a filter's.
inline const char *advice_on_refusal(int err, const char *filtered)
{
	return err == -ENOMEM || err == -EAGAIN ?
		       "Raise the limit: RLIMIT_AS (ulimit -v), or RLIMIT_NPROC (ulimit -u) and pids.max." :
		       filtered;
}

} // namespace liborbit

#endif // LIBORBIT_COMMON_REFUSALS_H
