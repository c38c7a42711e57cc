// SPDX-License-Identifier: MIT
#include "refusals.h"

#include "signals.h"

#include <fcntl.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#if __has_include(<sys/rseq.h>)
#include <sys/rseq.h>
#endif
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

namespace liborbit {

namespace {

// Harmless: nothing is asked for, or of no descriptor.
const Needed common_calls[] = {
	ORBIT_NEEDED(wait4, -ECHILD, -1, 0, WNOHANG),
	ORBIT_NEEDED(clone, -EINVAL, CLONE_THREAD), // without CLONE_SIGHAND
	ORBIT_NEEDED(clone3, unknown),
	ORBIT_NEEDED(futex, succeeds, 0, 1),	    // filled in: a word that nobody waits for
	ORBIT_NEEDED(rt_sigprocmask, succeeds, 0, 0, 0, 8),
	ORBIT_NEEDED(rt_sigaction, succeeds, SIGUSR1, 0, 0, 8),
	ORBIT_NEEDED(mmap, -EINVAL, 0, 0, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1),
	ORBIT_NEEDED(munmap, -EINVAL, 1),
	ORBIT_NEEDED(mprotect, succeeds),
	ORBIT_NEEDED(madvise, succeeds, 0, 0, MADV_DONTFORK),
	ORBIT_NEEDED(close, -EBADF, -1),
	ORBIT_NEEDED(fcntl, -EBADF, -1, F_GETFD),
	ORBIT_NEEDED(openat, allowed, AT_FDCWD, 0, O_RDONLY),
	ORBIT_NEEDED(read, -EBADF, -1),
	ORBIT_NEEDED(getpid, succeeds),
	ORBIT_NEEDED(gettid, succeeds),
#if defined(SYS_poll)
	ORBIT_NEEDED(poll, succeeds),
#endif
	ORBIT_NEEDED(setsid, optional),
	ORBIT_NEEDED(prctl, allowed, PR_GET_DUMPABLE),
	ORBIT_NEEDED(prlimit64, optional, 0, RLIMIT_CORE),
	ORBIT_NEEDED(close_range, optional, 1, 0),
	ORBIT_NEEDED(getdents64, optional, -1),
	ORBIT_NEEDED(newfstatat, optional, -1),
	ORBIT_NEEDED(set_robust_list, optional),
	ORBIT_NEEDED(clock_nanosleep, optional, -1),
	// The last: where the C library has registered an area for the first thread, it ends the program if
	// it cannot do so for another.
	ORBIT_NEEDED(rseq, allowed),
};

bool is_let_through(long answer, long wanted)
{
	if (wanted == optional)
		return true;
	if (wanted == succeeds)
		return answer >= 0;
	if (wanted == allowed || wanted == unknown)
		return answer != -EPERM && answer != -EACCES && (wanted == unknown || answer != -ENOSYS);
	return answer == wanted;
}

// Where the process that tries them is, for its parent to know where it ended.
struct Progress {
	std::uint32_t at;
	std::int32_t answer;
	std::uint32_t word; // a futex that nobody waits for
};

[[noreturn]] void try_all(const Needed *calls, std::size_t count, Progress *progress)
{
	for (std::size_t i = 0; i < count; i++) {
		const Needed &call = calls[i];
		const long first = call.number == SYS_futex ? reinterpret_cast<long>(&progress->word) :
							      call.args[0];

		progress->at = static_cast<std::uint32_t>(i);

		const long got = syscall(call.number, first, call.args[1], call.args[2], call.args[3],
					 call.args[4], 0L);

		progress->answer = got < 0 ? -errno : 0;
		if (!is_let_through(progress->answer, call.answer))
			syscall(SYS_exit_group, 1);
	}
	syscall(SYS_exit_group, 0);
	__builtin_unreachable();
}

} // namespace

bool is_filtered()
{
	return prctl(PR_GET_SECCOMP) != 0;
}

int find_refusal(const Needed *calls, std::size_t count, const char **what)
{
	int status = 0;

	*what = "";
	if (!is_filtered())
		return 0;

	const SignalsBlocked blocked; // no handler of the application may run there
	auto *progress = static_cast<Progress *>(mmap(nullptr, sizeof(Progress), PROT_READ | PROT_WRITE,
						      MAP_SHARED | MAP_ANONYMOUS, -1, 0));

	if (progress == MAP_FAILED) {
		*what = "A filter or a limit refuses mmap().";
		return -errno;
	}

	// A copy of this process, which calls nothing but the kernel. Without an exit signal.
	const long pid = syscall(SYS_clone, 0L, 0L, 0L, 0L, 0L);

	if (!pid)
		try_all(calls, count, progress);

	int err = pid < 0 ? -errno : 0;

	if (err) {
		*what = "A filter or a limit refuses clone().";
	} else {
		pid_t waited;

		do {
			waited = waitpid(static_cast<pid_t>(pid), &status, __WCLONE);
		} while (waited < 0 && errno == EINTR);
		if (waited < 0) {
			*what = "A filter refuses wait4().";
			err = -errno;
		} else if (WIFSIGNALED(status)) {
			*what = calls[progress->at].lethal;
			err = -EPERM;
		} else if (WEXITSTATUS(status)) {
			*what = calls[progress->at].refused;
			err = progress->answer == -ENOSYS || progress->answer == -EACCES ? progress->answer : -EPERM;
		}
	}
	munmap(progress, sizeof(Progress));
	return err;
}

int find_common_refusal(const char **what)
{
	std::size_t count = sizeof(common_calls) / sizeof(*common_calls);

#if defined(RSEQ_SIG)
	if (!__rseq_size)
#endif
		count--;
	return find_refusal(common_calls, count, what);
}

} // namespace liborbit
