// SPDX-License-Identifier: MIT
//
// For the portable backend: functions of the C library that the application finds here instead. Where changed
// pages are found by a SIGSEGV handler, the application may install its own later, or take the permission to
// write from a part of a pool and give it back, and knows nothing of ours. Unless that concerns pools
// they do what they did.
#include "../common/signals.h"
#include "../internal.h"
#include "tracker.h"

#include <cerrno>
#include <dlfcn.h>
#include <sys/mman.h>

extern "C" int __sigaction(int signal, const struct sigaction *wanted, struct sigaction *before) noexcept;

namespace liborbit {

namespace {

// The next one that a program has: the C library's, or a sanitizer's.
template <class Function> Function *next_of(Function **known, const char *name)
{
	Function *next = __atomic_load_n(known, __ATOMIC_RELAXED);

	if (!next) {
		next = reinterpret_cast<Function *>(dlsym(RTLD_NEXT, name));
		__atomic_store_n(known, next, __ATOMIC_RELAXED);
	}
	return next;
}

using Sigaction = int(int, const struct sigaction *, struct sigaction *);
using Signal = sighandler_t(int, sighandler_t);

ORBIT_STATE Sigaction *next_sigaction;
ORBIT_STATE Signal *next_signal;

} // namespace

int real_sigaction(int signal, const struct sigaction *wanted, struct sigaction *before)
{
	Sigaction *const next = next_of(&next_sigaction, "sigaction");

	return next ? next(signal, wanted, before) : __sigaction(signal, wanted, before);
}

} // namespace liborbit

using namespace liborbit;

// A program that has its own keeps it.
#define ORBIT_OVERRIDE extern "C" [[gnu::weak, gnu::visibility("default")]]

ORBIT_OVERRIDE int sigaction(int signal, const struct sigaction *wanted, struct sigaction *before) noexcept
{
	if (signal == SIGSEGV && set_segv_action(wanted, before))
		return 0;
	return real_sigaction(signal, wanted, before);
}

ORBIT_OVERRIDE sighandler_t signal(int signal, sighandler_t handler) noexcept
{
	if (signal == SIGSEGV && handler != SIG_ERR) {
		struct sigaction wanted = {}, before = {};

		wanted.sa_handler = handler;
		wanted.sa_flags = SA_RESTART;
		if (set_segv_action(&wanted, &before))
			return before.sa_handler;
	}
	Signal *const next = next_of(&next_signal, "signal");

	return next ? next(signal, handler) : ssignal(signal, handler);
}

ORBIT_OVERRIDE int mprotect(void *start, std::size_t bytes, int access) noexcept
{
	int result;

	if (!set_access(reinterpret_cast<std::uintptr_t>(start), bytes, access, &result))
		return static_cast<int>(syscall(SYS_mprotect, start, bytes, access));
	if (!result)
		return 0;
	errno = -result;
	return -1;
}
