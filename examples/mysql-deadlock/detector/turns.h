// SPDX-License-Identifier: MIT
//
// How soon a thread gets a processor. C++11, as servers are.
#ifndef MYSQL_DEADLOCK_TURNS_H
#define MYSQL_DEADLOCK_TURNS_H

#include <cstdint>

#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace deadlock {

/// While it lives, threads and processes that the calling thread makes will get a processor soon after they wake up, on a
/// busy machine, too, and for short turns only: what looks for deadlocks takes microseconds, and others wait for it. Linux
/// heeds that from 6.12 on, without privileges.
class ShortTurns {
public:
	ShortTurns() : before_() { changed_ = get(before_) && before_.policy == SCHED_OTHER && set(100000); }
	ShortTurns(const ShortTurns &) = delete;
	ShortTurns &operator=(const ShortTurns &) = delete;
	~ShortTurns()
	{
		if (changed_)
			set(before_.runtime_ns);
	}

private:
	// struct sched_attr; the C library has neither it nor the calls.
	struct Attributes {
		std::uint32_t size, policy;
		std::uint64_t flags;
		std::int32_t nice;
		std::uint32_t priority;
		std::uint64_t runtime_ns, deadline_ns, period_ns;
	};

	static bool get(Attributes &attributes)
	{
		return syscall(SYS_sched_getattr, 0, &attributes, sizeof(attributes), 0) == 0;
	}

	bool set(std::uint64_t runtime_ns) const
	{
		Attributes attributes = before_;

		attributes.size = sizeof(attributes);
		attributes.runtime_ns = runtime_ns;
		return syscall(SYS_sched_setattr, 0, &attributes, 0) == 0;
	}

	Attributes before_;
	bool changed_;
};

} // namespace deadlock

#endif // MYSQL_DEADLOCK_TURNS_H
