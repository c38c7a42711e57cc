// SPDX-License-Identifier: MIT
#ifndef LIBORBIT_COMMON_SIGNALS_H
#define LIBORBIT_COMMON_SIGNALS_H

#include <csignal>
#include <cstdint>
#include <pthread.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

namespace liborbit {

// The C library's. What the application calls may be ours, see portable/overrides.cc.
int real_sigaction(int signal, const struct sigaction *wanted, struct sigaction *before);

inline void block_signals(sigset_t *before)
{
	sigset_t every;

	sigfillset(&every);
	// What a filter refuses with this, a handler may allow. Blocked, it would end the program.
	sigdelset(&every, SIGSYS);
	pthread_sigmask(SIG_SETMASK, &every, before);
}

// As long as it exists, no handler of the application runs in this thread, or in what is started
// by it: threads and processes inherit the mask.
class SignalsBlocked {
public:
	SignalsBlocked() { block_signals(&before_); }
	SignalsBlocked(const SignalsBlocked &) = delete;
	~SignalsBlocked() { pthread_sigmask(SIG_SETMASK, &before_, nullptr); }

private:
	sigset_t before_;
};

// In a handler for SIGSEGV: may it have been a write? Permission to write does not help a jump to what is no
// code: it would be tried for ever.
inline bool may_be_write([[maybe_unused]] const siginfo_t *info, const void *user)
{
	const auto &machine = static_cast<const ucontext_t *>(user)->uc_mcontext;

#if defined(__x86_64__)
	return machine.gregs[REG_ERR] & 2;
#elif defined(__aarch64__)
	return machine.pc != reinterpret_cast<std::uintptr_t>(info->si_addr);
#else
	static_cast<void>(machine);
	return true;
#endif
}

// At the end of a handler: the signal does what it does to a program without one.
inline void act_by_default(int signal, const siginfo_t *info)
{
	struct sigaction by_default = {};

	real_sigaction(signal, &by_default, nullptr);
	// A fault occurs again; what somebody sent has to be sent again.
	if (info->si_code <= 0)
		syscall(SYS_tgkill, getpid(), gettid(), signal);
}

} // namespace liborbit

#endif // LIBORBIT_COMMON_SIGNALS_H
