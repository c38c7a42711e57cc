// SPDX-License-Identifier: MIT
//
// An orbit that outlives its process: the queue is kept, the task that crashed is reported
// and not run again unless asked, and the fresh process comes from a template, not from a
// main program that has grown threads.
#include "orbit_test.h"

#include <array>
#include <atomic>
#include <fcntl.h>
#include <string>
#include <sys/mman.h>
#include <vector>

namespace {

int a_global = 1;
int fork_handlers_run;

// When nothing works any more.
[[noreturn]] void crash()
{
	std::uintptr_t nowhere = 0x10;

	asm volatile("" : "+r"(nowhere));
	*reinterpret_cast<volatile int *>(nowhere) = 1;
	std::abort();
}

orbit::Orbit make_restarted(orbit::Options options = {})
{
	options.restart = true;
	return make_orbit(options);
}

struct orbit_stat stat_of(const orbit::Orbit &orbit)
{
	return value_or_throw(orbit.stat());
}

TEST(Restart, TheNextTaskGetsAFreshProcess)
{
	orbit::Orbit orbit = make_restarted({.name = "again"});
	const pid_t first = pid_of(orbit);

	for (std::uint64_t round = 1; round <= 5; round++) {
		const auto died = orbit.call({}, crash);

		ASSERT_FALSE(died);
		EXPECT_EQ(died.error().code(), ECONNRESET);
		EXPECT_EQ(died.error().signal(), SIGSEGV);
		EXPECT_EQ(died.error().fault_address(), 0x10U);
		EXPECT_EQ(orbit.call({}, [] { return ++a_global; }), 2) << "fresh, not the old one";
		EXPECT_EQ(stat_of(orbit).restarts, round);
		EXPECT_EQ(stat_of(orbit).last_task, 2 * round - 1);
		EXPECT_EQ(stat_of(orbit).cause, unsigned{ORBIT_CAUSE_SIGNAL});
	}
	EXPECT_NE(pid_of(orbit), first);
	EXPECT_TRUE(gone(first));
}

TEST(Restart, WhateverEndedIt)
{
	orbit::Orbit orbit = make_restarted();
	// On a busy machine an exit takes its time; only the loop is to be ended by the limit.
	const auto killed = [&](auto task, std::chrono::milliseconds limit = 0ms) {
		return orbit.call({.time_limit = limit}, {}, task).error();
	};

	EXPECT_EQ(killed([] { _exit(3); }).cause(), ORBIT_CAUSE_EXIT);
	EXPECT_EQ(orbit.call({}, [] { return 1; }), 1);
	EXPECT_EQ(killed([] { std::abort(); }).signal(), SIGABRT);
	EXPECT_EQ(orbit.call({}, [] { return 2; }), 2);
	EXPECT_EQ(killed([] { for (;;) pause(); }, 200ms).code(), ETIMEDOUT);
	EXPECT_EQ(orbit.call({}, [] { return 3; }), 3);
	EXPECT_EQ(killed(exec_silently).cause(), ORBIT_CAUSE_EXEC);
	EXPECT_EQ(orbit.call({}, [] { return 4; }), 4);
	EXPECT_EQ(killed([] { close_range(3, ~0U, 0); }).code(), ECONNRESET);
	EXPECT_EQ(orbit.call({}, [] { return 5; }), 5);
	kill(pid_of(orbit), SIGKILL); // while it is idle
	EXPECT_TRUE(eventually([&] { return stat_of(orbit).state == ORBIT_STATE_DOWN; }));
	EXPECT_EQ(orbit.call({}, [] { return 6; }), 6);
	EXPECT_EQ(stat_of(orbit).restarts, 6U);
}

// The whole of it, though main changed but one page since the last call.
TEST(Restart, TheFreshProcessSeesTheFullSnapshot)
{
	constexpr std::size_t pages = 32;
	const orbit::Pool pool = make_pool(pages * page);
	const auto sum = [](const std::byte *data) {
		std::uint64_t all = 0;

		for (std::size_t i = 0; i < pages; i++)
			all = all * 31 + *reinterpret_cast<const std::uint64_t *>(data + i * page);
		return all;
	};
	orbit::Orbit orbit = make_restarted();

	for (std::size_t i = 0; i < pages; i++)
		*pool.as<std::uint64_t>(i * page) = i + 1;
	EXPECT_EQ(orbit.call(pool, sum, pool.data()), sum(pool.data()));
	for (std::size_t round = 0; round < 4; round++) {
		EXPECT_FALSE(orbit.call(pool, crash));
		*pool.as<std::uint64_t>(round * page) = 100 + round;
		EXPECT_EQ(orbit.call(pool, sum, pool.data()), sum(pool.data()));
	}

	const orbit::Pool later = make_pool(page);

	*later.as<int>() = 5;
	EXPECT_FALSE(orbit.call({pool, later}, crash));
	EXPECT_EQ(orbit.call({pool, later}, [](const int *p) { return *p; }, later.as<int>()), 5);
}

TEST(Restart, TheQueueIsKept)
{
	const orbit::Pool pool = make_pool(page);
	int *number = pool.as<int>();
	orbit::Orbit orbit = make_restarted();
	std::vector<orbit::Task<int>> tasks;

	for (int i = 0; i < 40; i++) {
		*number = i;
		tasks.push_back(value_or_throw(orbit.call_async(pool, [](const int *p) {
			if (*p % 10 == 5)
				crash();
			return *p;
		}, number)));
	}
	for (int i = 0; i < 40; i++) {
		auto &task = tasks[static_cast<std::size_t>(i)];

		if (i % 10 == 5) {
			EXPECT_EQ(task.wait().error().code(), ECONNRESET) << i;
		} else {
			EXPECT_EQ(task.wait(), i);
		}
	}
	EXPECT_EQ(stat_of(orbit).restarts, 4U);
	EXPECT_EQ(stat_of(orbit).completed, 36U);
	EXPECT_EQ(stat_of(orbit).failed, 4U);
}

TEST(Restart, OnceMoreIfAsked)
{
	Pipe runs;
	orbit::Orbit orbit = make_restarted({.keep_fds = {&runs.write_end, 1}});
	const auto always = [](int fd) {
		if (write(fd, "r", 1) == 1)
			crash();
	};
	// Crashes the first time only: a pipe remembers for it.
	Pipe once;
	orbit::Orbit lucky = make_restarted({.keep_fds = {&once.read_end, 1}});
	const auto first_time = [](int fd) {
		char byte;

		if (read(fd, &byte, 1) == 1)
			crash();
		return 8;
	};
	char bytes[8];

	EXPECT_FALSE(orbit.call({}, always, runs.write_end));
	EXPECT_EQ(read(runs.read_end, bytes, sizeof(bytes)), 1);
	EXPECT_FALSE(orbit.call({.retry = true}, {}, always, runs.write_end));
	EXPECT_EQ(read(runs.read_end, bytes, sizeof(bytes)), 2);
	EXPECT_EQ(stat_of(orbit).failed, 2U);

	once.put('x');
	once.close_write();
	EXPECT_EQ(lucky.call({.retry = true}, {}, first_time, once.read_end), 8);
	EXPECT_EQ(stat_of(lucky).restarts, 1U);
	EXPECT_EQ(stat_of(lucky).failed, 0U);
}

// Updates of the first try are not those of the second.
TEST(Restart, ARetriedTaskSendsItsUpdatesOnce)
{
	Pipe once;
	orbit::Orbit orbit = make_restarted({.keep_fds = {&once.read_end, 1}});
	static int target;
	auto targets = value_or_throw(orbit::Targets::create());
	auto task = value_or_throw(orbit.call_async({.retry = true}, {}, [](int fd) {
		char byte;

		if (!orbit::send(&target, 4))
			_exit(1);
		if (read(fd, &byte, 1) == 1)
			crash();
	}, once.read_end));

	EXPECT_TRUE(targets.add(target));
	once.put('x');
	once.close_write();
	EXPECT_EQ(value_or_throw(task.apply_all(targets)).applied, 1U);
	EXPECT_TRUE(task.wait());
}

// The template was made before the threads, the memory and the descriptors of today.
TEST(Restart, ComesFromTheTemplate)
{
	orbit::Orbit orbit = make_restarted();
	const pid_t main_pid = getpid();

	pthread_atfork([] { fork_handlers_run++; }, nullptr, nullptr);
	a_global = 50;

	Pipe pipe;
	const orbit::Pool pool = make_pool(page);

	EXPECT_FALSE(orbit.call({}, crash));
	EXPECT_EQ(orbit.call({}, [] { return a_global; }), 1);
	a_global = 1;
	EXPECT_EQ(fork_handlers_run, 0);
	EXPECT_NE(stat_of(orbit).template_pid, 0);
	EXPECT_NE(stat_of(orbit).template_pid, main_pid);
	EXPECT_NE(stat_of(orbit).template_pid, pid_of(orbit));
	// Of main's descriptors the fresh process has but the standard ones.
	EXPECT_EQ(orbit.call(pool, [] {
		int open = 0;

		for (int fd = 3; fd < 256; fd++)
			open += fcntl(fd, F_GETFD) >= 0;
		return open;
	}), 1);
}

TEST(Restart, KeptDescriptorsLast)
{
	Pipe pipe;
	orbit::Orbit orbit = make_restarted({.keep_fds = {&pipe.write_end, 1}});
	char byte = 0;

	for (int round = 0; round < 3; round++) {
		EXPECT_EQ(orbit.call({}, [](int fd) { return write(fd, "k", 1); }, pipe.write_end), 1);
		EXPECT_TRUE(pipe.get(byte));
		EXPECT_FALSE(orbit.call({}, crash));
	}
}

TEST(Restart, WithinAMultithreadedMain)
{
	constexpr int threads = 4, calls = 40;
	std::atomic<bool> stop{false};
	std::atomic<int> right{0}, died{0}, wrong{0};
	std::vector<std::thread> others, callers;

	// Threads that allocate all the time, so that locks are held at any moment.
	for (int i = 0; i < 2; i++)
		others.emplace_back([&] {
			while (!stop) {
				std::vector<std::string> strings(100, std::string(100, 'x'));

				std::this_thread::yield();
			}
		});

	orbit::Orbit orbit = make_restarted();

	for (int t = 0; t < threads; t++)
		callers.emplace_back([&] {
			for (int i = 0; i < calls; i++) {
				const auto got = orbit.call({}, [](int n) {
					const std::vector<int> numbers(1000, n); // the heap works

					if (n % 8 == 7)
						crash();
					return numbers.back();
				}, i);

				if (got)
					(*got == i ? right : wrong)++;
				else
					(got.error().signal() == SIGSEGV && i % 8 == 7 ? died : wrong)++;
			}
		});
	for (std::thread &caller : callers)
		caller.join();
	stop = true;
	for (std::thread &other : others)
		other.join();
	EXPECT_EQ(right, threads * calls * 7 / 8);
	EXPECT_EQ(died, threads * calls / 8);
	EXPECT_EQ(wrong, 0);
}

// An asynchronous task crashes while other threads wait for theirs.
TEST(Restart, OthersCallWhileItCrashes)
{
	orbit::Orbit orbit = make_restarted();
	std::atomic<bool> stop{false};
	std::atomic<int> wrong{0}, calls{0};
	std::vector<std::thread> callers;

	for (int t = 0; t < 3; t++)
		callers.emplace_back([&] {
			for (int i = 0; !stop; i++, calls++)
				wrong += orbit.call({}, [](int n) { return n; }, i) != i;
		});
	for (int round = 0; round < 20; round++) {
		auto task = value_or_throw(orbit.call_async({}, crash));

		EXPECT_EQ(task.wait().error().signal(), SIGSEGV);
	}
	EXPECT_TRUE(eventually([&] { return calls > 100; }));
	stop = true;
	for (std::thread &caller : callers)
		caller.join();
	EXPECT_EQ(wrong, 0);
	EXPECT_EQ(stat_of(orbit).restarts, 20U);
}

TEST(Restart, NeitherProcessIsAChild)
{
	orbit::Orbit orbit = make_restarted();

	for (int round = 0; round < 3; round++) {
		EXPECT_EQ(waitpid(-1, nullptr, WNOHANG | __WALL), -1);
		EXPECT_EQ(errno, ECHILD);
		EXPECT_FALSE(orbit.call({}, crash));
		EXPECT_EQ(orbit.call({}, [] { return waitpid(-1, nullptr, WNOHANG); }), -1);
	}
}

TEST(Restart, AllEndWithTheHandle)
{
	pid_t process, its_template;
	{
		orbit::Orbit orbit = make_restarted();

		EXPECT_FALSE(orbit.call({}, crash));
		EXPECT_TRUE(orbit.call({}, [] {}));
		process = pid_of(orbit);
		its_template = stat_of(orbit).template_pid;
	}
	EXPECT_TRUE(gone(process));
	EXPECT_TRUE(gone(its_template));
}

TEST(Restart, AllEndWithMain)
{
	for (const bool down : {false, true}) {
		Pipe told;
		OtherMain main([&] {
			orbit::Orbit orbit = make_restarted();

			told.put(std::array{pid_of(orbit), stat_of(orbit).template_pid});
			if (down && orbit.call({}, crash))
				return 1;
			std::raise(SIGKILL);
			return 1;
		});
		std::array<pid_t, 2> pids{};

		ASSERT_TRUE(told.get(pids));
		EXPECT_TRUE(gone(pids[0]));
		EXPECT_TRUE(gone(pids[1]));
	}
}

// Without its template an orbit goes on as long as its process does.
TEST(Restart, WithoutItsTemplateItEnds)
{
	orbit::Orbit orbit = make_restarted();
	const pid_t its_template = stat_of(orbit).template_pid;

	kill(its_template, SIGKILL);
	EXPECT_TRUE(gone(its_template));
	EXPECT_EQ(orbit.call({}, [] { return 5; }), 5);
	EXPECT_EQ(orbit.call({}, crash).error().signal(), SIGSEGV);

	const auto refused = orbit.call({}, [] {});

	ASSERT_FALSE(refused);
	EXPECT_EQ(refused.error().code(), ESHUTDOWN);
	EXPECT_EQ(stat_of(orbit).state, unsigned{ORBIT_STATE_DEAD});
}

TEST(Restart, DestroyedWhileDown)
{
	for (int round = 0; round < 10; round++) {
		orbit::Orbit orbit = make_restarted();
		auto died = value_or_throw(orbit.call_async({}, crash));
		auto next = value_or_throw(orbit.call_async({}, [] {}));

		if (round % 2) {
			EXPECT_FALSE(died.wait());
		}
	}
}

TEST(Restart, SharedMemoryStaysOutOfReach)
{
	const auto shared = static_cast<int *>(
		mmap(nullptr, page, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
	orbit::Orbit orbit = make_restarted();

	*shared = 1;
	for (int round = 0; round < 2; round++)
		EXPECT_EQ(orbit.call({}, [](int *p) { *p = 2; }, shared).error().signal(), SIGSEGV);
	EXPECT_EQ(*shared, 1);
	munmap(shared, page);
}

} // namespace
