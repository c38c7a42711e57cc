// SPDX-License-Identifier: MIT
//
// Promises 1 and 6 where the system refuses: whatever system call a filter refuses, or limit is reached,
// the main program lives, no call hangs, each works or has an error that its manual page names, and
// nothing is left behind. What a filter refuses from the beginning the probe tells of.
//
// Each case is a process of its own, a main program, which tells by a page that it shares with this one.
#include "orbit_test.h"

#include <cstddef>
#include <cstdio>
#include <cstring>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <set>
#include <string>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <vector>

namespace {

// ---- What a main program does --------------------------------------------------------------

enum Step { probe, pool, create, call, again, crash, after_crash, limit, after_limit, send, nr_steps };

constexpr const char *step_names[] = {"probe", "pool",	"create",      "call", "again",
				      "crash", "after crash", "limit", "after limit", "send"};

struct Results {
	int at; // the step that is under way
	int errors[nr_steps];
	bool wrong[nr_steps]; // there was no error, and the value is not what it should be
	long step_ms[nr_steps];
	bool made, ended;
	char reason[200];
};

std::uint64_t first_byte(const void *arg, std::size_t)
{
	return static_cast<std::uint64_t>(**static_cast<char *const *>(arg));
}

std::uint64_t access_nothing(const void *, std::size_t)
{
	volatile std::uintptr_t nowhere = page / 2;

	return *reinterpret_cast<std::uint64_t *>(nowhere);
}

std::uint64_t loop_for_ever(const void *, std::size_t)
{
	for (;;)
		asm volatile("");
}

std::uint64_t send_a_page(const void *arg, std::size_t)
{
	char *const data = *static_cast<char *const *>(arg);

	data[1] = 9;
	return static_cast<std::uint64_t>(-orbit_send_pages(data, page));
}

// Between what is set before the first step, and what is set when there is an orbit that has worked.
struct Setting {
	void (*early)(long a, long b);
	void (*late)(long a, long b);
	long a, b;
};

void run_steps(const Setting &setting, Results *results)
{
	orbit_probe_info info{};
	orbit_pool *memory = nullptr;
	orbit_handle *orbit = nullptr;
	orbit_options options{};
	orbit_call_options in{}, limited{};
	orbit_task *task = nullptr;
	char *data = nullptr;
	auto since = std::chrono::steady_clock::now();
	const auto note = [&](Step step, int err, std::uint64_t value = 0, std::uint64_t wanted = 0) {
		results->errors[step] = err;
		results->wrong[step] = !err && value != wanted;
		results->at = step + 1;

		const auto now = std::chrono::steady_clock::now();

		results->step_ms[step] = std::chrono::duration_cast<std::chrono::milliseconds>(now - since).count();
		since = now;
	};
	const auto run = [&](Step step, orbit_entry fn, const orbit_call_options &with, std::uint64_t wanted) {
		orbit_outcome out{};

		out.size = sizeof(out);

		const int err = orbit_call(orbit, fn, &data, sizeof(data), &with, &out);

		note(step, err, out.value, wanted);
	};

	info.size = sizeof(info);
	options.size = sizeof(options);
	in.size = sizeof(in);
	options.flags = ORBIT_RESTART;
	if (setting.early)
		setting.early(setting.a, setting.b);
	note(probe, orbit_probe(&info));
	std::strncpy(results->reason, info.reason ? info.reason : "", sizeof(results->reason) - 1);
	note(pool, orbit_pool_create(&memory, 64 * page, nullptr));
	if (memory)
		note(create, orbit_create(&orbit, &options));
	if (orbit) {
		results->made = true;
		data = static_cast<char *>(orbit_pool_data(memory));
		*data = 1;
		in.pools = &memory;
		in.nr_pools = 1;
		limited = in;
		limited.time_limit_ns = 50'000'000;
		run(call, first_byte, in, 1);
		if (setting.late)
			setting.late(setting.a, setting.b);
		*data = 2;
		run(again, first_byte, in, 2);
		run(crash, access_nothing, in, 0);
		results->wrong[crash] = !results->errors[crash];
		run(after_crash, first_byte, in, 2);
		run(limit, loop_for_ever, limited, 0);
		results->wrong[limit] = !results->errors[limit];
		run(after_limit, first_byte, in, 2);

		int err = orbit_call_async(orbit, send_a_page, &data, sizeof(data), &in, &task);

		if (!err) {
			orbit_outcome out{};

			out.size = sizeof(out);
			err = orbit_task_wait(task, 0, &out);
			// A refused task tells by its value.
			note(send, err ? err : -static_cast<int>(out.value));
			orbit_task_destroy(task);
		} else {
			note(send, err);
		}
	}
	orbit_destroy(orbit);
	orbit_pool_destroy(memory);
	results->ended = true;
}

// ---- What is done to it -----------------------------------------------------------------------

// b: an error, or 0 to end the program.
void install_filter(long number, long error, unsigned flags)
{
	const unsigned refusal = error ? SECCOMP_RET_ERRNO | static_cast<unsigned>(error) : SECCOMP_RET_KILL_PROCESS;
	sock_filter filter[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, static_cast<unsigned>(number), 0, 1),
		BPF_STMT(BPF_RET | BPF_K, refusal),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	const sock_fprog program = {sizeof(filter) / sizeof(*filter), filter};

	prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
	if (syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, &program))
		_exit(97);
}

void filter_early(long number, long error)
{
	install_filter(number, error, 0);
}

// All threads, the library's too; what the library has forked is not affected.
void filter_late(long number, long error)
{
	install_filter(number, error, SECCOMP_FILTER_FLAG_TSYNC);
}

void set_limit(long resource, long value)
{
	const rlimit limit = {static_cast<rlim_t>(value), static_cast<rlim_t>(value)};

	if (resource == RLIMIT_NPROC && (setgid(65534) || setuid(65534)))
		_exit(98);
	if (setrlimit(static_cast<__rlimit_resource>(resource), &limit))
		_exit(97);
}

// ---- What is asked of it ---------------------------------------------------------------------

constexpr int unsupported = 97;

struct Outcome {
	Results results;
	int status;
	bool hung, left;
};

bool has_child()
{
	return waitpid(-1, nullptr, WNOHANG) >= 0;
}

// Orphans become this process's children.
Outcome observe(const Setting &setting)
{
	auto *shared = static_cast<Results *>(mmap(nullptr, sizeof(Results), PROT_READ | PROT_WRITE,
						   MAP_SHARED | MAP_ANONYMOUS, -1, 0));
	Outcome outcome{};

	prctl(PR_SET_CHILD_SUBREAPER, 1);

	const pid_t main = fork();

	if (!main) {
		run_steps(setting, shared);
		_exit(0);
	}
	outcome.hung = !eventually([&] { return waitpid(main, &outcome.status, WNOHANG) == main; });
	if (outcome.hung) {
		kill(main, SIGKILL);
		waitpid(main, &outcome.status, 0);
	}
	outcome.left = !eventually([] { return !has_child(); });
	outcome.results = *shared;
	munmap(shared, sizeof(Results));
	return outcome;
}

bool is_documented(int err)
{
	static const std::set<int> errors = {EPERM,   EACCES, ENOSYS,	 ENOTSUP,    ENOENT,	ENOMEM,	   EAGAIN,
					     EMFILE,  ENFILE, EFBIG,	 ECHILD,     ENXIO,	ECONNRESET, ESHUTDOWN,
					     ECANCELED, ETIMEDOUT, ENOBUFS};

	return errors.count(-err) == 1;
}

std::string tell(const Outcome &outcome)
{
	std::string text = "probe: " + std::string(outcome.results.reason) + "\n";

	for (int step = 0; step < outcome.results.at && step < nr_steps; step++)
		text += std::string(step_names[step]) + " " + std::to_string(outcome.results.errors[step]) +
			" (" + std::to_string(outcome.results.step_ms[step]) + " ms), ";
	return text + "at step " + std::to_string(outcome.results.at);
}

void check_common(const Outcome &outcome)
{
	const Results &results = outcome.results;

	EXPECT_FALSE(outcome.hung) << tell(outcome);
	EXPECT_TRUE(outcome.hung || (WIFEXITED(outcome.status) && !WEXITSTATUS(outcome.status)))
		<< "the main program ended with status " << outcome.status << "; " << tell(outcome);
	EXPECT_FALSE(outcome.left) << "a process was left behind; " << tell(outcome);
	for (int step = 0; step < results.at && step < nr_steps; step++) {
		// A second, and as much for a machine that has other things to do, or is emulated.
		EXPECT_LT(results.step_ms[step], is_kernel_backend() ? 10000 : 3000)
			<< step_names[step] << "; " << tell(outcome);
		EXPECT_FALSE(results.wrong[step]) << step_names[step] << "; " << tell(outcome);
		EXPECT_TRUE(!results.errors[step] || is_documented(results.errors[step]))
			<< step_names[step] << "; " << tell(outcome);
	}
}

bool is_sanitized()
{
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
	return true;
#else
	return false;
#endif
}

struct Call {
	const char *name;
	long number;
	// No program does without: the probe itself, or the C library's memory.
	bool inevitable;
};

#define CALL(name) {#name, SYS_##name, false}
#define INEVITABLE(name) {#name, SYS_##name, true}

const std::vector<Call> calls = {
	INEVITABLE(mmap),	INEVITABLE(munmap),	INEVITABLE(clone),	INEVITABLE(wait4),
	INEVITABLE(rt_sigprocmask), INEVITABLE(prctl),	INEVITABLE(brk),
	CALL(memfd_create),	CALL(ftruncate),	CALL(fcntl),		CALL(mprotect),
	CALL(madvise),		CALL(close),		CALL(openat),		CALL(read),
	CALL(write),		CALL(pread64),		CALL(pwrite64),		CALL(lseek),
	CALL(ioctl),		CALL(userfaultfd),	CALL(socketpair),	CALL(sendmsg),
	CALL(recvmsg),		CALL(shutdown),		CALL(eventfd2),		CALL(ppoll),
#if defined(SYS_poll)
	CALL(poll),
#endif
	CALL(clone3),		CALL(waitid),		CALL(pidfd_open),	CALL(pidfd_send_signal),
	CALL(kill),		CALL(tgkill),		CALL(futex),		CALL(rt_sigaction),
	CALL(sigaltstack),	CALL(setsid),		CALL(prlimit64),	CALL(close_range),
	CALL(getdents64),	CALL(newfstatat),	CALL(set_robust_list),	CALL(rseq),
	CALL(process_vm_readv),	CALL(getpid),		CALL(gettid),		CALL(clock_gettime),
	CALL(clock_nanosleep),
	{"orbit_create", 548, false}, {"orbit_pool", 549, false}, {"orbit_call", 550, false},
	{"orbit_return", 551, false}, {"orbit_ctl", 552, false},  {"orbit_send", 553, false},
	{"orbit_recv", 554, false},   {"orbit_cancel", 555, false},
};

#undef CALL
#undef INEVITABLE

// What is refused from the beginning: either all works, or the probe has told.
void refuse_early(long error, const char *how)
{
	if (is_sanitized())
		GTEST_SKIP() << "what the sanitizer calls is refused as well";
	for (const Call &refused : calls) {
		SCOPED_TRACE(std::string(refused.name) + how);
		if (!error && refused.inevitable)
			continue;

		const Outcome outcome = observe({filter_early, nullptr, refused.number, error});
		const Results &results = outcome.results;

		check_common(outcome);
		if (results.errors[probe]) {
			EXPECT_EQ(results.errors[pool], results.errors[probe]) << tell(outcome);
			EXPECT_NE(std::string(results.reason), "");
			continue;
		}
		EXPECT_TRUE(results.made) << tell(outcome);
		for (const Step step : {call, again, after_crash, after_limit})
			EXPECT_EQ(results.errors[step], 0) << step_names[step] << "; " << tell(outcome);
		EXPECT_EQ(results.errors[crash], -ECONNRESET) << tell(outcome);
		EXPECT_EQ(results.errors[limit], -ETIMEDOUT) << tell(outcome);
	}
}

TEST(Refusals, SystemCallsForbiddenFromTheBeginning)
{
	refuse_early(EPERM, ", forbidden");
}

TEST(Refusals, SystemCallsUnknownFromTheBeginning)
{
	refuse_early(ENOSYS, ", unknown");
}

TEST(Refusals, SystemCallsThatEndTheProgram)
{
	refuse_early(0, ", lethal");
}

// A program that shuts itself in when it has made what it needs.
TEST(Refusals, SystemCallsForbiddenLater)
{
	if (is_sanitized())
		GTEST_SKIP() << "what the sanitizer calls is refused as well";
	for (const Call &refused : calls) {
		SCOPED_TRACE(refused.name);
		if (refused.number == SYS_futex)
			continue; // the C library ends the program itself

		const Outcome outcome = observe({nullptr, filter_late, refused.number, EPERM});

		check_common(outcome);
		EXPECT_TRUE(outcome.results.made) << tell(outcome);
	}
}

struct Limit {
	const char *name;
	int resource;
	std::vector<long> values;
};

const std::vector<Limit> limits = {
	{"FSIZE", RLIMIT_FSIZE, {0, page, 2 * page, 63 * page, 64 * page}},
	{"NOFILE", RLIMIT_NOFILE, {0, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 18, 20}},
	{"NPROC", RLIMIT_NPROC, {0, 1, 2, 3, 4}},
	{"AS", RLIMIT_AS, {1, 16L << 20, 64L << 20, 256L << 20, 4L << 30}},
	{"DATA", RLIMIT_DATA, {0, 1L << 20, 8L << 20, 64L << 20}},
	{"STACK", RLIMIT_STACK, {256L << 10}},
	{"MEMLOCK", RLIMIT_MEMLOCK, {0}},
	{"SIGPENDING", RLIMIT_SIGPENDING, {0}},
	{"CORE", RLIMIT_CORE, {0}},
	{"MSGQUEUE", RLIMIT_MSGQUEUE, {0}},
	{"LOCKS", RLIMIT_LOCKS, {0}},
	{"NICE", RLIMIT_NICE, {0}},
	{"RTPRIO", RLIMIT_RTPRIO, {0}},
};

void reach_limits(bool early)
{
	if (is_sanitized())
		GTEST_SKIP() << "what the sanitizer needs is limited as well";
	for (const Limit &reached : limits)
		for (const long value : reached.values) {
			SCOPED_TRACE(std::string(reached.name) + " " + std::to_string(value));

			const Outcome outcome = observe({early ? set_limit : nullptr, early ? nullptr : set_limit,
							 reached.resource, value});

			if (WIFEXITED(outcome.status) && WEXITSTATUS(outcome.status) == unsupported + 1)
				continue; // only root can become somebody else
			check_common(outcome);
			EXPECT_TRUE(early || outcome.results.made) << tell(outcome);
		}
}

TEST(Refusals, LimitsReachedFromTheBeginning)
{
	reach_limits(true);
}

TEST(Refusals, LimitsReachedLater)
{
	reach_limits(false);
}

} // namespace
