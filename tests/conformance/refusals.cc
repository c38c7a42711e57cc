// SPDX-License-Identifier: MIT
//
// Promises 1 and 6 where the system refuses: whatever system call a filter refuses, or limit is reached,
// the main program lives, no call hangs, each works or has an error that its manual page names, and
// nothing is left behind. What a filter refuses from the beginning the probe tells of.
//
// Each case is a process of its own, a main program, which tells by memory that it shares with this
// one. Most of the time they wait, so several run at once.
#include "orbit_test.h"

#include <cstddef>
#include <cstdio>
#include <cstring>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <set>
#include <string>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/time.h>
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
	bool made, ended, harmed;
	char reason[200];
	char words[nr_steps][256];
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
	bool (*is_harmed)() = nullptr; // at the end
};

// Milliseconds. The finer clocks take a system call on some machines, and a filter may refuse it.
long coarse_ms()
{
	timespec now;

	clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
	return now.tv_sec * 1000 + now.tv_nsec / 1'000'000;
}

void run_steps(const Setting &setting, Results *results)
{
	orbit_probe_info info{};
	orbit_pool *memory = nullptr;
	orbit_handle *orbit = nullptr;
	orbit_options options{};
	orbit_call_options in{}, limited{};
	orbit_task *task = nullptr;
	char *data = nullptr;
	long since = coarse_ms();
	const auto note = [&](Step step, int err, std::uint64_t value = 0, std::uint64_t wanted = 0) {
		results->errors[step] = err;
		results->wrong[step] = !err && value != wanted;
		results->at = step + 1;

		const long now = coarse_ms();

		results->step_ms[step] = now - since;
		since = now;
	};
	const auto describe = [&](Step step, int err, orbit_step as) {
		if (err)
			orbit_describe_error(err, as, results->words[step], sizeof(results->words[step]));
		return err;
	};
	const auto run = [&](Step step, orbit_entry fn, const orbit_call_options &with, std::uint64_t wanted) {
		orbit_outcome out{};

		out.size = sizeof(out);

		const int err = orbit_call(orbit, fn, &data, sizeof(data), &with, &out);

		orbit_describe(&out, results->words[step], sizeof(results->words[step]));
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
	note(pool, describe(pool, orbit_pool_create(&memory, 64 * page, nullptr), ORBIT_STEP_POOL));
	if (memory)
		note(create, describe(create, orbit_create(&orbit, &options), ORBIT_STEP_CREATE));
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
	results->harmed = setting.is_harmed && setting.is_harmed();
	results->ended = true;
}

constexpr int only_for_root = 98;

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
		_exit(only_for_root);
	if (setrlimit(static_cast<__rlimit_resource>(resource), &limit))
		_exit(97);
}

// ---- What is asked of it ---------------------------------------------------------------------



struct Outcome {
	Results results;
	int status;
	bool hung, left, observed;
};

bool has_child()
{
	return waitpid(-1, nullptr, WNOHANG) >= 0;
}

// Orphans become this process's children.
void observe(const Setting &setting, Outcome *outcome)
{
	prctl(PR_SET_CHILD_SUBREAPER, 1);

	const pid_t main = fork();

	if (!main) {
		run_steps(setting, &outcome->results);
		_exit(0);
	}
	outcome->hung = !eventually([&] { return waitpid(main, &outcome->status, WNOHANG) == main; });
	if (outcome->hung) {
		kill(main, SIGKILL);
		waitpid(main, &outcome->status, 0);
	}
	outcome->left = !eventually([] { return !has_child(); });
	outcome->observed = true;
}

std::vector<Outcome> observe_all(const std::vector<Setting> &settings)
{
	constexpr std::size_t most = 6; // at once
	const std::size_t bytes = settings.size() * sizeof(Outcome);
	auto *shared = static_cast<Outcome *>(
		mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));

	for (std::size_t i = 0; i < settings.size() + most; i++) {
		if (i >= most)
			wait(nullptr);
		if (i < settings.size() && !fork()) {
			observe(settings[i], &shared[i]);
			_exit(0);
		}
	}
	while (wait(nullptr) > 0)
		;

	const std::vector<Outcome> outcomes(shared, shared + settings.size());

	munmap(shared, bytes);
	return outcomes;
}

bool is_documented(int err)
{
	static const std::set<int> errors = {EPERM,   EACCES, ENOSYS,	 ENOTSUP,    ENOENT,	ENOMEM,	   EAGAIN,
					     EMFILE,  ENFILE, EFBIG,	 ECHILD,     ENXIO,	ECONNRESET, ESHUTDOWN,
					     ECANCELED, ETIMEDOUT, ENOBUFS,	 EBADF,	     EBADFD};

	return errors.count(-err) == 1;
}

std::string tell(const Outcome &outcome)
{
	std::string text = "probe: " + std::string(outcome.results.reason) + "\n";

	for (int step = 0; step < outcome.results.at && step < nr_steps; step++)
		text += std::string(step_names[step]) + " " + std::to_string(outcome.results.errors[step]) +
			" (" + outcome.results.words[step] + "; " + std::to_string(outcome.results.step_ms[step]) +
			" ms), ";
	return text + "at step " + std::to_string(outcome.results.at);
}

void check_common(const Outcome &outcome)
{
	const Results &results = outcome.results;

	EXPECT_TRUE(outcome.observed);
	EXPECT_FALSE(outcome.hung) << tell(outcome);
	EXPECT_TRUE(outcome.hung || (WIFEXITED(outcome.status) && !WEXITSTATUS(outcome.status)))
		<< "the main program ended with status " << outcome.status << "; " << tell(outcome);
	EXPECT_FALSE(results.harmed) << tell(outcome);
	EXPECT_FALSE(outcome.left) << "a process was left behind; " << tell(outcome);
	for (int step = 0; step < results.at && step < nr_steps; step++) {
		// A second, and as much for a machine that has other things to do, or is emulated.
		EXPECT_LT(results.step_ms[step], 8000)
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
	INEVITABLE(rt_sigprocmask), INEVITABLE(prctl),
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
	CALL(process_vm_readv),	CALL(getrusage),	CALL(getpid),		CALL(gettid),		CALL(clock_gettime),
	CALL(clock_nanosleep),	CALL(epoll_create1),	CALL(epoll_ctl),
#if defined(SYS_epoll_wait)
	CALL(epoll_wait),
#endif
	CALL(epoll_pwait),
	{"orbit_create", 548, false}, {"orbit_pool", 549, false}, {"orbit_call", 550, false},
	{"orbit_return", 551, false}, {"orbit_ctl", 552, false},  {"orbit_send", 553, false},
	{"orbit_recv", 554, false},   {"orbit_cancel", 555, false},
};

#undef CALL
#undef INEVITABLE

void check_all_works(const Outcome &outcome)
{
	const Results &results = outcome.results;

	EXPECT_TRUE(results.made) << tell(outcome);
	for (const Step step : {call, again, after_crash, after_limit})
		EXPECT_EQ(results.errors[step], 0) << step_names[step] << "; " << tell(outcome);
	EXPECT_EQ(results.errors[crash], -ECONNRESET) << tell(outcome);
	EXPECT_EQ(results.errors[limit], -ETIMEDOUT) << tell(outcome);
}

// What is refused from the beginning: either all works, or the probe has told.
void refuse_early(long error)
{
	std::vector<std::string> names;
	std::vector<Setting> settings;

	if (is_sanitized())
		GTEST_SKIP() << "what the sanitizer calls is refused as well";
	for (const Call &refused : calls) {
		if (!error && refused.inevitable)
			continue;
		names.push_back(refused.name);
		settings.push_back({filter_early, nullptr, refused.number, error});
	}

	const std::vector<Outcome> outcomes = observe_all(settings);

	for (std::size_t i = 0; i < outcomes.size(); i++) {
		const Results &results = outcomes[i].results;

		SCOPED_TRACE(names[i]);
		check_common(outcomes[i]);
		if (results.errors[probe]) {
			EXPECT_EQ(results.errors[pool], results.errors[probe]) << tell(outcomes[i]);
			EXPECT_NE(std::string(results.reason), "");
		} else {
			check_all_works(outcomes[i]);
		}
	}
}

TEST(Refusals, SystemCallsForbiddenFromTheBeginning)
{
	refuse_early(EPERM);
}

TEST(Refusals, SystemCallsUnknownFromTheBeginning)
{
	refuse_early(ENOSYS);
}

TEST(Refusals, SystemCallsThatEndTheProgram)
{
	refuse_early(0);
}

// A program that shuts itself in when it has made what it needs.
TEST(Refusals, SystemCallsForbiddenLater)
{
	std::vector<std::string> names;
	std::vector<Setting> settings;

	if (is_sanitized())
		GTEST_SKIP() << "what the sanitizer calls is refused as well";
	for (const Call &refused : calls) {
		if (refused.number == SYS_futex)
			continue; // the C library ends the program itself
		if (refused.number == SYS_mprotect && !is_kernel_backend() && has_feature(ORBIT_FEATURE_CUT))
			continue; // a page that is read-only then stays so: docs/backends.md
		names.push_back(refused.name);
		settings.push_back({nullptr, filter_late, refused.number, EPERM});
	}

	const std::vector<Outcome> outcomes = observe_all(settings);

	for (std::size_t i = 0; i < outcomes.size(); i++) {
		SCOPED_TRACE(names[i]);
		check_common(outcomes[i]);
		EXPECT_TRUE(outcomes[i].results.made) << tell(outcomes[i]);
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
	{"AS", RLIMIT_AS, {1, 16L << 20, 22L << 20, 28L << 20, 36L << 20, 64L << 20, 256L << 20, 4L << 30}},
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

// An error that comes from a limit says from which.
void check_words(const Limit &reached, const Outcome &outcome)
{
	static const std::set<int> shortages = {EAGAIN, ENOMEM, EMFILE, EFBIG, ECANCELED};

	for (int step = pool; step < outcome.results.at && step < nr_steps; step++) {
		const std::string words = outcome.results.words[step];

		if (!shortages.count(-outcome.results.errors[step]) || words.empty())
			continue;
		EXPECT_NE(words.find("RLIMIT_" + std::string(reached.name)), std::string::npos) << tell(outcome);
	}
}

void reach_limits(bool early)
{
	std::vector<std::string> names;
	std::vector<Setting> settings;
	std::vector<const Limit *> which;

	if (is_sanitized())
		GTEST_SKIP() << "what the sanitizer needs is limited as well";
	for (const Limit &reached : limits)
		for (const long value : reached.values) {
			which.push_back(&reached);
			names.push_back(std::string(reached.name) + " " + std::to_string(value));
			settings.push_back({early ? set_limit : nullptr, early ? nullptr : set_limit, reached.resource,
					    value});
		}

	const std::vector<Outcome> outcomes = observe_all(settings);

	for (std::size_t i = 0; i < outcomes.size(); i++) {
		const Outcome &outcome = outcomes[i];

		SCOPED_TRACE(names[i]);
		if (WIFEXITED(outcome.status) && WEXITSTATUS(outcome.status) == only_for_root)
			continue;
		check_common(outcome);
		check_words(*which[i], outcome);
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

// Main may not send a signal to what it has made before. All limits hold, and what runs can be
// cancelled.
TEST(Refusals, PrivilegesDroppedLater)
{
	const auto drop = [](long, long) {
		if (setgid(65534) || setuid(65534))
			_exit(only_for_root);
	};
	const Outcome outcome = observe_all({{nullptr, drop, 0, 0}})[0];

	if (WIFEXITED(outcome.status) && WEXITSTATUS(outcome.status) == only_for_root)
		GTEST_SKIP() << "only root can become somebody else";
	check_common(outcome);
	check_all_works(outcome);
}

// What a program opens that has closed all that it does not know: the library's numbers are taken.
struct Own {
	int file, sockets[2];
};

std::vector<Own> own;

void close_all_and_open_others(long kind, long)
{
	close_range(3, ~0U, 0);
	for (int i = 0; kind && i < 20; i++) {
		Own made{};

		made.file = memfd_create("own", MFD_CLOEXEC);
		if (socketpair(AF_UNIX, kind == 1 ? SOCK_SEQPACKET : SOCK_DGRAM, 0, made.sockets) ||
		    write(made.file, "contents", 8) != 8 || write(made.sockets[0], "message", 7) != 7 ||
		    write(made.sockets[1], "message", 7) != 7 || ftruncate(made.file, 1 << 20))
			_exit(5);
		own.push_back(made);
	}
}

bool are_own_harmed()
{
	bool harmed = false;

	for (const Own &made : own) {
		char text[9] = {}, zeroes[page] = {}, there[page];

		harmed |= lseek(made.file, 0, SEEK_CUR) != 8 || pread(made.file, text, 8, 0) != 8 ||
			  std::strcmp(text, "contents") != 0;
		for (off_t at = page; at < 1 << 20; at += page)
			harmed |= pread(made.file, there, page, at) != page || std::memcmp(there, zeroes, page) != 0;
		for (const int socket : made.sockets) {
			std::memset(text, 0, sizeof(text));
			harmed |= recv(socket, text, sizeof(text), MSG_DONTWAIT) != 7 ||
				  std::strcmp(text, "message") != 0 ||
				  recv(socket, text, sizeof(text), MSG_DONTWAIT) != -1 || errno != EAGAIN;
		}
	}
	return harmed;
}

// The library's descriptors are gone. Calls fail, all ends, and nothing is done to what has their numbers.
TEST(Refusals, DescriptorsThatTheApplicationHasClosed)
{
	const std::vector<Outcome> outcomes = observe_all({{nullptr, close_all_and_open_others, 0, 0},
							   {nullptr, close_all_and_open_others, 1, 0, are_own_harmed},
							   {nullptr, close_all_and_open_others, 2, 0, are_own_harmed}});

	for (const Outcome &outcome : outcomes) {
		check_common(outcome);
		EXPECT_TRUE(outcome.results.ended);
		EXPECT_TRUE(outcome.results.made) << tell(outcome);
		// The orbit may have ended by then.
		EXPECT_TRUE(outcome.results.errors[again] == -EBADF || outcome.results.errors[again] == -ESHUTDOWN ||
			    (is_kernel_backend() && outcome.results.errors[again] == -EBADFD))
			<< tell(outcome);
	}
}

// The same of orbit_prepare()'s, which a forked child closes.
TEST(Refusals, TheZygotesDescriptorThatTheApplicationHasClosed)
{
	if (!has_feature(ORBIT_FEATURE_MINIMAL))
		GTEST_SKIP() << "no minimal inheritance here";

	OtherMain main([] {
		if (!orbit::prepare())
			return 1;
		close_all_and_open_others(1, 0);

		const auto orbit = orbit::Orbit::create({.inherit = orbit::Inherit::minimal});

		if (orbit || orbit.error().code() != ENXIO)
			return 2;

		const pid_t child = fork();
		int status = 0;

		if (!child) {
			for (const Own &made : own)
				for (const int fd : {made.file, made.sockets[0], made.sockets[1]})
					if (fcntl(fd, F_GETFD) < 0)
						_exit(3);
			_exit(0);
		}
		waitpid(child, &status, 0);
		if (status)
			return WEXITSTATUS(status);

		// Another one can be had, and no third.
		if (!orbit::prepare())
			return 6;

		auto late = orbit::Orbit::create({.inherit = orbit::Inherit::minimal});

		if (!late || late->call({}, [] { return 7; }) != 7 || orbit::prepare().error().code() != EALREADY)
			return 7;
		return are_own_harmed() ? 4 : 0;
	});

	EXPECT_EQ(main.wait(), 0);
}

// The descriptor that it could not use is closed.
TEST(Refusals, EpollLeavesNothingOpen)
{
	OtherMain main([] {
		const std::size_t before = open_descriptors();

		filter_early(SYS_epoll_ctl, ENOMEM);
		if (make_orbit().call({}, [] { return 3; }) != 3)
			return 1;
		return eventually([=] { return open_descriptors() == before; }) ? 0 : 2;
	});

	EXPECT_EQ(main.wait(), 0);
}

// The process that the orbit would need next cannot be asked for, and nobody will tell so.
TEST(Refusals, TheForkServersDescriptorThatTheApplicationHasClosed)
{
	OtherMain main([] {
		orbit::Orbit orbit = make_orbit({.restart = true});

		if (orbit.call({}, [] { std::abort(); }))
			return 1;
		close_range(3, ~0U, 0);
		for (int i = 0; i < 60; i++)
			if (eventfd(0, EFD_CLOEXEC) < 0)
				return 2;

		const auto begin = std::chrono::steady_clock::now();

		if (orbit.call({}, [] { return 1; }))
			return 3;
		return std::chrono::steady_clock::now() - begin < patience ? 0 : 4;
	});

	EXPECT_EQ(main.wait(), 0);
}

std::uint64_t seven(const void *, std::size_t)
{
	return 7;
}

// One process too few, for a while.
TEST(Refusals, AShortageThatPasses)
{
	const pid_t main = fork();

	if (!main) {
		const rlimit limit = {32, 32}; // more than main has threads and the orbit processes
		orbit_handle *orbit = nullptr;
		orbit_options options{};
		orbit_outcome out{};

		options.size = sizeof(options);
		options.flags = ORBIT_RESTART;
		out.size = sizeof(out);
		if (setgid(64123) || setuid(64123))
			_exit(only_for_root);
		setrlimit(RLIMIT_NPROC, &limit);

		const int created = orbit_create(&orbit, &options);

		if (created)
			_exit(created == -ENOTSUP ? only_for_root : 2); // ORBIT_TRACKER forces what is root's
		if (orbit_call(orbit, access_nothing, nullptr, 0, nullptr, &out) != -ECONNRESET)
			_exit(3);

		const pid_t other = fork();

		if (!other) {
			std::vector<pid_t> all; // that may be

			for (pid_t pid; (pid = fork()) >= 0; all.push_back(pid))
				if (!pid)
					for (;;)
						pause();
			std::this_thread::sleep_for(500ms);
			for (const pid_t pid : all)
				kill(pid, SIGKILL);
			while (wait(nullptr) > 0)
				;
			_exit(0);
		}
		std::this_thread::sleep_for(200ms);

		const int err = orbit_call(orbit, seven, nullptr, 0, nullptr, &out);

		waitpid(other, nullptr, 0);
		orbit_destroy(orbit);
		_exit(err || out.value != 7 ? 4 : 0);
	}

	int status = 0;

	waitpid(main, &status, 0);
	if (WIFEXITED(status) && WEXITSTATUS(status) == only_for_root)
		GTEST_SKIP() << "only root can become somebody else";
	EXPECT_EQ(status, 0);
}

// A child that lives on has copies of the library's descriptors.
TEST(Refusals, AForkedChildKeepsNobodyWaiting)
{
	orbit::Orbit orbit = make_orbit();
	auto task = value_or_throw(orbit.call_async({}, [] {
		std::this_thread::sleep_for(100ms);
		return 7;
	}));
	const auto wait_for = [](int fd) {
		pollfd polled = {fd, POLLIN, 0};

		return poll(&polled, 1, 10'000) == 1;
	};

	for (pid_t (*const make_child)() : {fork, _Fork}) {
		const pid_t child = make_child();

		if (!child)
			for (;;)
				pause();
		EXPECT_TRUE(wait_for(task.fd()));
		kill(child, SIGKILL);
		waitpid(child, nullptr, 0);
		task = value_or_throw(orbit.call_async({}, [] {
			std::this_thread::sleep_for(100ms);
			return 7;
		}));
	}
}

// Handled signals, one after the other.
TEST(Refusals, SignalsWhilePoolsAndOrbitsAreMade)
{
	struct sigaction action = {}, before;
	const itimerval often = {{0, 1000}, {0, 1000}}, never = {};

	action.sa_handler = [](int) {};
	sigaction(SIGALRM, &action, &before);
	setitimer(ITIMER_REAL, &often, nullptr);
	for (int round = 0; round < 20; round++) {
		const auto pool = orbit::Pool::create(16 * page);

		EXPECT_TRUE(pool) << pool.error().message();
		if (round % 4 == 0) {
			const auto orbit = orbit::Orbit::create({.restart = round % 8 == 0});

			EXPECT_TRUE(orbit) << orbit.error().message();
		}
	}
	setitimer(ITIMER_REAL, &never, nullptr);
	sigaction(SIGALRM, &before, nullptr);
}

std::uint64_t nap(const void *, std::size_t)
{
	std::this_thread::sleep_for(1ms);
	return 7;
}

// Neither locks nor memory stay behind, wherever it is at that moment.
TEST(Refusals, ACallerThatIsCancelled)
{
	orbit::Orbit orbit = make_orbit();
	const orbit::Pool pool = make_pool(4 * page);
	struct Shared {
		orbit_handle *orbit;
		orbit_pool *pool;
	} shared = {orbit.raw(), pool.raw()};

	for (int round = 0; round < 50; round++) {
		pthread_t thread;
		void *result = nullptr;
		const auto call_for_ever = [](void *user) -> void * {
			const auto *use = static_cast<const Shared *>(user);

			for (;;) {
				orbit_call_options options{};
				orbit_task *task = nullptr;

				options.size = sizeof(options);
				options.pools = &use->pool;
				options.nr_pools = 1;
				*static_cast<int *>(orbit_pool_data(use->pool)) += 1;
				orbit_call(use->orbit, nap, nullptr, 0, &options, nullptr);
				if (!orbit_call_async(use->orbit, nap, nullptr, 0, &options, &task)) {
					orbit_task_wait(task, 0, nullptr);
					orbit_task_destroy(task);
				}
				pthread_testcancel();
			}
		};

		ASSERT_EQ(pthread_create(&thread, nullptr, call_for_ever, &shared), 0);
		std::this_thread::sleep_for(std::chrono::microseconds(100 * (round % 40)));
		pthread_cancel(thread);
		pthread_join(thread, &result);
		EXPECT_EQ(result, PTHREAD_CANCELED);
	}
	EXPECT_EQ(orbit.call(pool, [] { return 5; }), 5);
}

// Without room for the process's own descriptors.
TEST(Refusals, AFirstProcessThatCannotComeUp)
{
	for (const unsigned nr_files : {1U, 2U, 3U})
		for (const bool restart : {false, true}) {
			const auto orbit = orbit::Orbit::create({.restart = restart, .nr_files = nr_files});

			if (!orbit)
				EXPECT_EQ(orbit.error().code(), EMFILE) << orbit.error().message();
			else
				EXPECT_TRUE(is_kernel_backend() || nr_files > 3);
		}
}

} // namespace
