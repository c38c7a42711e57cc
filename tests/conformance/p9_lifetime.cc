// SPDX-License-Identifier: MIT
//
// Promise 9: orbits live as long as their descriptor and their main program, and
// nobody else notices them.
#include "../../liborbit/kernel/syscall.h"
#include "orbit_test.h"

#include <atomic>
#include <cstdlib>
#include <fcntl.h>
#include <poll.h>
#include <string>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <utility>
#include <vector>

namespace {

constexpr char pause_variable[] = "ORBIT_TEST_PAUSE";

// What the main program becomes by exec, see below: this binary, which then waits.
[[gnu::constructor]] void pause_if_told()
{
	if (getenv(pause_variable))
		for (;;)
			pause();
}

// A main program with an orbit that is idle; it ends as `end` makes it end.
template <class F> void expect_orbit_dies_with_main(F end, bool busy = false)
{
	Pipe told;
	OtherMain main([&] {
		orbit::Orbit orbit = make_orbit();
		std::thread caller;

		if (busy) {
			caller = std::thread([&] { (void)orbit.call({}, [] { for (;;) pause(); }); });
			if (!eventually([&] { return value_or_throw(orbit.stat()).queued == 1; }))
				return 2;
		}
		told.put(pid_of(orbit));
		end();
		return 1;
	});
	pid_t orbit = 0;

	ASSERT_TRUE(told.get(orbit));
	EXPECT_TRUE(gone(orbit));
}

TEST(P9_Lifetime, ExitOfMainEndsIt)
{
	expect_orbit_dies_with_main([] { _exit(0); });
	expect_orbit_dies_with_main([] { _exit(0); }, true);
}

TEST(P9_Lifetime, DeathOfMainEndsIt)
{
	expect_orbit_dies_with_main([] { std::raise(SIGKILL); });
	expect_orbit_dies_with_main([] { std::raise(SIGKILL); }, true);
}

TEST(P9_Lifetime, ExecOfMainEndsIt)
{
	const auto exec = [] {
		setenv(pause_variable, "1", 1);
		execl("/proc/self/exe", "paused", nullptr);
	};

	expect_orbit_dies_with_main(exec);
	expect_orbit_dies_with_main(exec, true);
}

TEST(P9_Lifetime, ThreadThatMadeItMayEnd)
{
	orbit_handle *orbit = nullptr;
	orbit_outcome out{};

	std::thread([&] { ASSERT_EQ(orbit_create(&orbit, nullptr), 0); }).join();
	out.size = sizeof(out);
	EXPECT_EQ(orbit_call(
			  orbit, [](const void *, size_t) -> std::uint64_t { return 3; }, nullptr, 0, nullptr,
			  &out),
		  0);
	EXPECT_EQ(out.value, 3U);
	orbit_destroy(orbit);
}

TEST(P9_Lifetime, DestroyEndsIt)
{
	pid_t pid;
	{
		const orbit::Orbit orbit = make_orbit();

		pid = pid_of(orbit);
		EXPECT_EQ(kill(pid, 0), 0);
	}
	EXPECT_TRUE(gone(pid));
}

// Without the library's help: the close alone.
TEST(P9_Lifetime, ClosingTheLastDescriptorEndsIt)
{
	KERNEL_BACKEND_ONLY("the descriptor is for poll(); the handle owns the orbit");

	Pipe told, go;
	OtherMain main([&] {
		orbit::Orbit orbit = make_orbit();
		const int copy = dup(orbit.fd());
		char byte;

		told.put(pid_of(orbit));
		close(orbit.fd());
		usleep(50'000); // in which the copy keeps it alive

		struct orbit_stat st {};

		told.put(liborbit::sys_ctl(copy, ORBIT_CTL_STAT, &st));
		told.put(st.state);
		close(copy);
		go.get(byte); // stay until the test has seen it go
		_exit(0);
		return 0;
	});
	pid_t pid = 0;
	int err = -1;
	std::uint32_t state = ORBIT_STATE_DEAD;

	ASSERT_TRUE(told.get(pid) && told.get(err) && told.get(state));
	EXPECT_EQ(err, 0);
	EXPECT_EQ(state, unsigned{ORBIT_STATE_IDLE});
	EXPECT_TRUE(gone(pid));
	EXPECT_EQ(kill(main.pid(), 0), 0);
	go.put('g');
}

TEST(P9_Lifetime, DescriptorsCloseOnExec)
{
	const orbit::Orbit orbit = make_orbit();
	const orbit::Pool pool = make_pool(page);

	EXPECT_EQ(fcntl(orbit.fd(), F_GETFD), FD_CLOEXEC);
	EXPECT_EQ(fcntl(orbit_pool_fd(pool.raw()), F_GETFD), FD_CLOEXEC);
}

std::atomic<int> sigchlds;

TEST(P9_Lifetime, WaitAndSigchldNeverSeeAnOrbit)
{
	struct sigaction action = {}, before;

	sigchlds = 0;
	action.sa_handler = [](int) { sigchlds++; };
	sigaction(SIGCHLD, &action, &before);
	for (int round = 0; round < 3; round++) {
		orbit::Orbit orbit = make_orbit();
		const pid_t pid = pid_of(orbit);

		EXPECT_EQ(waitpid(-1, nullptr, WNOHANG | __WALL), -1);
		EXPECT_EQ(errno, ECHILD);
		EXPECT_EQ(waitpid(pid, nullptr, WNOHANG), -1);
		if (round == 1) {
			EXPECT_FALSE(orbit.call({}, [] { _exit(1); }));
			EXPECT_TRUE(gone(pid)); // and no zombie
		} else if (round == 2) {
			kill(pid, SIGKILL);
			EXPECT_TRUE(gone(pid));
		}
		EXPECT_EQ(waitpid(-1, nullptr, WNOHANG | __WALL), -1);
		EXPECT_EQ(errno, ECHILD);
	}
	sigaction(SIGCHLD, &before, nullptr);
	EXPECT_EQ(sigchlds, 0);
}

TEST(P9_Lifetime, WorksWhenSigchldIsIgnored)
{
	const auto before = std::signal(SIGCHLD, SIG_IGN);

	EXPECT_EQ(make_orbit().call({}, [] { return 1; }), 1);
	std::signal(SIGCHLD, before);
}

// Lesson 18: a reader of main's pipe sees its end when main is gone.
TEST(P9_Lifetime, Lesson18_MainsPipesEndWithMain)
{
	for (const bool kept : {false, true}) {
		Pipe pipe;
		OtherMain main([&] {
			orbit::Orbit orbit = make_orbit(
				{.keep_fds = std::span<const int>(&pipe.write_end, kept ? 1 : 0)});

			pipe.put('r');
			_exit(0);
			return 0;
		});
		char byte;

		pipe.close_write();
		EXPECT_TRUE(pipe.get(byte));
		EXPECT_TRUE(pipe.at_end());
	}
}

// While main lives, too: an orbit holds only what it was told to.
TEST(P9_Lifetime, Lesson18_AnOrbitHoldsOnlyTheDescriptorsItWasGiven)
{
	Pipe pipe, kept;
	const int keep[] = {kept.write_end, kept.write_end, 0};
	orbit::Orbit orbit = make_orbit({.keep_fds = keep});
	const orbit::Pool pool = make_pool(page);

	pipe.close_write();
	EXPECT_TRUE(pipe.at_end());
	EXPECT_EQ(orbit.call(pool, [](int fd) { return write(fd, "k", 1); }, kept.write_end), 1);

	// 0, 1, 2, as far as main has them, the one kept, and the one it serves on.
	unsigned expected = 2;

	for (int fd = 0; fd < 3; fd++)
		expected += fcntl(fd, F_GETFD) >= 0;
	EXPECT_EQ(orbit.call(pool, [] {
		unsigned open = 0;

		for (int fd = 0; fd < 1024; fd++)
			open += fcntl(fd, F_GETFD) >= 0;
		return open;
	}), expected);
}

bool standard_are_closed()
{
	for (int fd = 0; fd < 3; fd++)
		if (fcntl(fd, F_GETFD) >= 0)
			return false;
	return true;
}

// The library's own descriptors are not where a program without standard input, output and errors,
// or a task of it, may still write to. The status: at which step they were.
int look_for_standard(orbit::Inherit inherit)
{
	for (int fd = 0; fd < 3; fd++)
		close(fd);
	if (inherit == orbit::Inherit::minimal && (!orbit::prepare() || !standard_are_closed()))
		return 1;

	const orbit::Pool pool = make_pool(page);

	if (!standard_are_closed())
		return 2;

	orbit::Orbit orbit = make_orbit({.inherit = inherit});

	if (!standard_are_closed())
		return 3;

	auto task = orbit.call_async(pool, standard_are_closed);

	if (!standard_are_closed())
		return 4;
	if (!task || task->wait() != true)
		return 5;

	int *const p = pool.as<int>();

	*p = 7;
	if (orbit.call(pool, [](int *q) {
		*q = 8;
		return orbit_send_pages(q, page) == -EPIPE && standard_are_closed();
	}, p) != true)
		return 6;
	return standard_are_closed() ? 0 : 7;
}

TEST(P9_Lifetime, NothingOfTheLibrarysIsStandardInputOutputOrErrors)
{
	OtherMain main([] { return look_for_standard(orbit::Inherit::all); });

	EXPECT_EQ(main.wait(), 0);
}

TEST(P9_Lifetime, NorIfOrbitsInheritTheMinimum)
{
	OtherMain main([] { return look_for_standard(orbit::Inherit::minimal); });

	EXPECT_EQ(main.wait(), 0);
}

// The portable backend learns the address of a fault by a handler, which then lets the signal do
// what it does.
bool reports_fault(int signal)
{
	return !is_kernel_backend() && (signal == SIGSEGV || signal == SIGBUS);
}

TEST(P9_Lifetime, ItsProcessStandsForItself)
{
	orbit::Orbit orbit = make_orbit({.name = "name"});
	const pid_t pid = pid_of(orbit);

	EXPECT_NE(getsid(pid), getsid(0));
	EXPECT_EQ(orbit.call({}, [] {
		sigset_t blocked;
		struct sigaction action;

		sigprocmask(SIG_SETMASK, nullptr, &blocked);
		for (int signal = 1; signal < 32; signal++)
			if (sigismember(&blocked, signal) || sigaction(signal, nullptr, &action) ||
			    (action.sa_handler != SIG_DFL && !reports_fault(signal)))
				return signal;
		return 0;
	}), 0);

	char comm[32] = "";
	const std::string path = "/proc/" + std::to_string(pid) + "/comm";
	const int fd = open(path.c_str(), O_RDONLY);

	EXPECT_GT(read(fd, comm, sizeof(comm) - 1), 0);
	close(fd);
	EXPECT_STREQ(comm, "orbit:name\n");
}

// The orbit is its process: what a task has forked is an ordinary process, and nobody ends it.
TEST(P9_Lifetime, WhatATaskHasForkedGoesOn)
{
	Pipe told;
	OtherMain main([&] {
		orbit::Orbit orbit = make_orbit();
		auto forked = orbit.call({}, [] {
			const pid_t pid = fork();

			if (!pid)
				for (;;)
					pause();
			return pid;
		});

		told.put(pid_of(orbit));
		told.put(value_or_throw(std::move(forked)));
		_exit(0);
		return 0;
	});
	pid_t orbit = 0, forked = 0;

	ASSERT_TRUE(told.get(orbit) && told.get(forked));
	ASSERT_GT(forked, 0);

	const int fd = static_cast<int>(syscall(SYS_pidfd_open, forked, 0));
	pollfd ended{.fd = fd, .events = POLLIN, .revents = 0};

	EXPECT_GE(fd, 0);
	EXPECT_TRUE(gone(orbit));
	EXPECT_EQ(poll(&ended, 1, 100), 0);
	kill(forked, SIGKILL);
	EXPECT_EQ(poll(&ended, 1, -1), 1);
	close(fd);
}

TEST(P9_Lifetime, RoundsLeaveNothing)
{
	const std::size_t before = open_descriptors();
	std::vector<pid_t> pids;

	for (int round = 0; round < 200; round++) {
		orbit::Orbit orbit = make_orbit();
		const orbit::Pool pool = make_pool(page);

		pids.push_back(pid_of(orbit));
		if (round % 4 == 0) {
			EXPECT_EQ(orbit.call(pool, [] { return 1; }), 1);
		}
	}
	for (pid_t pid : pids)
		EXPECT_TRUE(gone(pid));
	EXPECT_EQ(open_descriptors(), before);
	EXPECT_EQ(waitpid(-1, nullptr, WNOHANG), -1);
}

TEST(P9_Lifetime, ThreadsCreateAndDestroyAtOnce)
{
	const std::size_t before = open_descriptors();
	std::vector<std::thread> threads;

	for (int t = 0; t < 4; t++)
		threads.emplace_back([] {
			for (int round = 0; round < 10; round++) {
				const orbit::Pool pool = make_pool(page);
				orbit::Orbit orbit = make_orbit();
				int *p = pool.as<int>();

				*p = round;
				EXPECT_EQ(orbit.call(pool, [](const int *q) { return *q; }, p), round);
			}
		});
	for (std::thread &thread : threads)
		thread.join();
	EXPECT_EQ(open_descriptors(), before);
}

// At every point where a descriptor may be missing, creation fails cleanly.
TEST(P9_Lifetime, RunningOutOfDescriptorsLeavesNothing)
{
	OtherMain main([] {
		const std::size_t before = open_descriptors();
		const int next = dup(0);
		bool made = false;

		close(next);
		for (rlim_t more = 0; more < 16 && !made; more++) {
			const rlimit limit = {static_cast<rlim_t>(next) + more, 4096};
			const rlimit plenty = {4096, 4096};
			orbit_handle *orbit = nullptr;

			setrlimit(RLIMIT_NOFILE, &limit);

			const int err = orbit_create(&orbit, nullptr);

			setrlimit(RLIMIT_NOFILE, &plenty);
			if (err && err != -EMFILE)
				return 1;
			made = !err;
			orbit_destroy(orbit);
			if (waitpid(-1, nullptr, WNOHANG | __WALL) != -1 || open_descriptors() != before)
				return 2;
		}
		return made ? 0 : 3;
	});

	EXPECT_EQ(main.wait(), 0);
}

} // namespace
