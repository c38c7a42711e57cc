// SPDX-License-Identifier: MIT
//
// Promise 8: queue, memory, CPU, time and descriptors of an orbit have limits, and at a
// limit there is an error, not a surprise.
#include "orbit_test.h"

#include <atomic>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <fcntl.h>
#include <string>
#include <sys/mman.h>
#include <sys/resource.h>
#include <vector>

namespace {

constexpr std::size_t mib = 1 << 20;

struct orbit_stat stat_of(const orbit::Orbit &orbit)
{
	return value_or_throw(orbit.stat());
}

// Memory that is really used.
char *use(std::size_t bytes)
{
	const auto p = static_cast<char *>(std::malloc(bytes));

	for (std::size_t at = 0; p && at < bytes; at += page)
		p[at] = 1;
	asm volatile("" : : "r"(p) : "memory");
	return p;
}

void spin()
{
	for (;;)
		asm volatile("");
}

std::chrono::nanoseconds cpu_time()
{
	timespec now;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
	return std::chrono::seconds(now.tv_sec) + std::chrono::nanoseconds(now.tv_nsec);
}

TEST(P8_Limits, TheQueueHoldsSoManyByDefault)
{
	Pipe gate;
	orbit::Orbit orbit = make_orbit({.keep_fds = {&gate.read_end, 1}});
	int queued = 0;

	ASSERT_TRUE(orbit.post({}, [](int fd) {
		char byte;

		return read(fd, &byte, 1);
	}, gate.read_end));
	for (; queued < 2 * ORBIT_DEFAULT_QUEUE; queued++)
		if (const auto posted = orbit.post({}, [] {}); !posted) {
			EXPECT_EQ(posted.error().code(), EAGAIN);
			break;
		}
	EXPECT_EQ(queued, ORBIT_DEFAULT_QUEUE - 1) << "and the one that runs";
	gate.put('g');
	EXPECT_TRUE(orbit.call({.wait_room = true}, {}, [] {}));
	EXPECT_EQ(stat_of(orbit).completed, unsigned{ORBIT_DEFAULT_QUEUE} + 1);
}

// Many callers wait for room in a short queue: all get in, in the end.
TEST(P8_Limits, EveryWaiterGetsRoom)
{
	orbit::Orbit orbit = make_orbit({.queue_limit = 1});
	std::vector<std::thread> callers;
	std::atomic<int> right{0};

	for (int t = 0; t < 4; t++)
		callers.emplace_back([&] {
			for (int i = 0; i < 50; i++)
				right += orbit.call({.wait_room = true}, {}, [](int n) { return n; }, i) == i;
		});
	for (std::thread &caller : callers)
		caller.join();
	EXPECT_EQ(right, 200);
	EXPECT_EQ(stat_of(orbit).completed, 200U);
}

TEST(P8_Limits, WaitersForRoomEndWithTheOrbit)
{
	orbit::Orbit orbit = make_orbit({.queue_limit = 1});
	auto running = value_or_throw(orbit.call_async({}, spin));
	std::thread waits([&] {
		const auto got = orbit.call({.wait_room = true}, {}, [] {});

		EXPECT_FALSE(got);
		if (!got) {
			EXPECT_EQ(got.error().code(), ESHUTDOWN) << got.error().message();
		}
	});

	usleep(50'000);
	kill(pid_of(orbit), SIGKILL);
	waits.join();
	EXPECT_EQ(running.wait().error().code(), ECONNRESET);
}

TEST(P8_Limits, MemoryOfItsOwn)
{
	orbit::Orbit orbit = make_orbit({.restart = true, .memory_limit = 32 * mib});

	EXPECT_EQ(orbit.call({}, [] { return use(16 * mib) != nullptr; }), true);

	const auto over = orbit.call({.time_limit = patience}, {}, [] {
		for (int i = 0; i < 1000; i++)
			if (!use(mib))
				return i;
		return -1;
	});

	// Either malloc() has failed in time, or the orbit was killed.
	if (over) {
		EXPECT_GT(*over, 0);
		EXPECT_LE(*over, 32);
	} else {
		EXPECT_EQ(over.error().code(), ENOMEM);
		EXPECT_EQ(over.error().cause(), ORBIT_CAUSE_LIMIT);
		EXPECT_EQ(over.error().message(), "used more memory than its limit and was killed");
	}
	EXPECT_EQ(orbit.call({}, [] { return 1; }), 1);
}

// Its limit is about what it uses beyond the start, however much main has.
TEST(P8_Limits, MemoryOfMainDoesNotCount)
{
	std::vector<char> heap(64 * mib, 'x');
	orbit::Orbit orbit = make_orbit({.memory_limit = 16 * mib});

	EXPECT_EQ(orbit.call({}, [] { return use(8 * mib) != nullptr; }), true);
	EXPECT_EQ(orbit.call({}, [] { return 2; }), 2);
	EXPECT_EQ(heap.back(), 'x');
}

TEST(P8_Limits, WritesToPoolsCount)
{
	const orbit::Pool pool = make_pool(64 * mib);
	orbit::Orbit orbit = make_orbit({.restart = true, .memory_limit = 8 * mib});
	const auto write = [](std::byte *data, std::size_t bytes) {
		for (std::size_t at = 0; at < bytes; at += page)
			data[at] = std::byte{1};
	};
	const auto read = [](const std::byte *data, std::size_t bytes) {
		std::size_t sum = 0;

		for (std::size_t at = 0; at < bytes; at += page)
			sum += static_cast<std::size_t>(data[at]);
		return sum;
	};

	for (std::size_t at = 0; at < pool.size(); at += page)
		pool.data()[at] = std::byte{2};
	// To read all of it is free; to write to little of it is fine, again and again.
	EXPECT_EQ(orbit.call(pool, read, pool.data(), pool.size()), 2 * pool.size() / page);
	for (int round = 0; round < 4; round++)
		EXPECT_TRUE(orbit.call(pool, write, pool.data(), 4 * mib));

	const auto over = orbit.call(pool, write, pool.data(), pool.size());

	ASSERT_FALSE(over);
	EXPECT_EQ(over.error().code(), ENOMEM) << over.error().message();
	EXPECT_EQ(over.error().cause(), ORBIT_CAUSE_LIMIT);
	EXPECT_EQ(orbit.call(pool, read, pool.data(), pool.size()), 2 * pool.size() / page);
}

TEST(P8_Limits, CpuTimeOfATask)
{
	orbit::Orbit orbit = make_orbit({.restart = true});
	const auto over = orbit.call({.cpu_limit = 100ms}, {}, spin);

	ASSERT_FALSE(over);
	EXPECT_EQ(over.error().code(), ETIMEDOUT);
	EXPECT_EQ(over.error().cause(), ORBIT_CAUSE_TIMEOUT);
	// To wait uses none.
	EXPECT_TRUE(orbit.call({.cpu_limit = 100ms}, {}, [] { usleep(400'000); }));
	// What a task used is not held against the next.
	for (int round = 0; round < 4; round++)
		EXPECT_TRUE(orbit.call({.cpu_limit = 400ms}, {}, [] {
			const auto start = cpu_time();

			while (cpu_time() - start < 150ms)
				;
		}));
}

TEST(P8_Limits, ShareOfTheCpu)
{
	orbit::Orbit orbit = make_orbit({.cpu_percent = 25});
	const auto start = std::chrono::steady_clock::now();

	EXPECT_TRUE(orbit.call({}, [] {
		const auto begin = cpu_time();

		while (cpu_time() - begin < 250ms)
			;
	}));

	const auto took = std::chrono::steady_clock::now() - start;

	// 250 ms at a quarter of the time take a second, but for what may be used at once.
	EXPECT_GE(took, 700ms);

	// It does not slow down what does not compute.
	const auto idle = std::chrono::steady_clock::now();

	for (int i = 0; i < 5; i++)
		EXPECT_TRUE(orbit.call({}, [] { usleep(1000); }));
	EXPECT_LT(std::chrono::steady_clock::now() - idle, patience / 2);
}

TEST(P8_Limits, ThreadsShareIt)
{
	orbit::Orbit orbit = make_orbit({.cpu_percent = 50});
	const auto start = std::chrono::steady_clock::now();

	EXPECT_TRUE(orbit.call({}, [] {
		std::thread threads[2];

		for (std::thread &thread : threads)
			thread = std::thread([] {
				while (cpu_time() < 300ms)
					;
			});
		for (std::thread &thread : threads)
			thread.join();
	}));
	EXPECT_GE(std::chrono::steady_clock::now() - start, 400ms);
}

TEST(P8_Limits, Descriptors)
{
	Pipe kept;
	orbit::Orbit orbit = make_orbit({.keep_fds = {&kept.write_end, 1}, .nr_files = 16});
	const auto open_all = [] {
		int opened = 0;

		while (dup(1) >= 0 && opened < 1000)
			opened++;
		return errno == EMFILE ? opened : -1;
	};
	const auto opened = orbit.call({}, open_all);

	ASSERT_TRUE(opened);
	EXPECT_GT(*opened, 0);
	EXPECT_LE(*opened, 16 - 5); // 0, 1, 2, what it keeps, what it serves on
	// It cannot have it raised, unless it is privileged.
	EXPECT_EQ(orbit.call({}, [] {
		const rlimit more = {64, 64};

		return getuid() && !setrlimit(RLIMIT_NOFILE, &more);
	}), false);
	// Main's own limit is untouched.
	const int own = dup(1);

	EXPECT_GE(own, 0);
	close(own);
}

TEST(P8_Limits, HoldAfterARestart)
{
	orbit::Orbit orbit = make_orbit(
		{.restart = true, .nr_files = 8, .memory_limit = 16 * mib, .cpu_percent = 1000});

	for (int round = 0; round < 2; round++) {
		const auto over = orbit.call({}, [] {
			for (int i = 0; i < 1000; i++)
				if (!use(mib))
					return true;
			return false;
		});

		EXPECT_TRUE(over ? *over : over.error().cause() == ORBIT_CAUSE_LIMIT);
		EXPECT_EQ(orbit.call({}, [] {
			int opened = 0;

			while (dup(1) >= 0)
				opened++;
			return opened <= 8 - 4;
		}), true);
		EXPECT_FALSE(orbit.call({}, [] { std::abort(); }));
	}
}

TEST(P8_Limits, OfAnOrbitThatInheritsTheMinimum)
{
	NEEDS_FEATURE(ORBIT_FEATURE_MINIMAL);

	OtherMain main([] {
		if (!orbit::prepare())
			return 1;

		orbit::Orbit orbit = make_orbit({.restart = true,
						 .nr_files = 8,
						 .memory_limit = 16 * mib,
						 .inherit = orbit::Inherit::minimal});

		if (orbit.call({}, [] { return use(4 * mib) != nullptr; }) != true)
			return 2;

		const auto over = orbit.call({}, [] {
			for (int i = 0; i < 1000; i++)
				if (!use(mib))
					return true;
			return false;
		});

		if (over ? !*over : over.error().cause() != ORBIT_CAUSE_LIMIT)
			return 3;
		return orbit.call({}, [] { return 4; }) == 4 ? 0 : 4;
	});

	EXPECT_EQ(main.wait(), 0);
}

TEST(P8_Limits, ThatMakeNoSense)
{
	EXPECT_EQ(orbit::Orbit::create({.queue_limit = ORBIT_MAX_QUEUE + 1}).error().code(), EINVAL);
	// Too few descriptors to be an orbit with: an error, and nothing is left.
	const auto made = orbit::Orbit::create({.nr_files = 1});

	if (made) {
		EXPECT_TRUE(stat_of(*made).pid);
	}
	EXPECT_EQ(waitpid(-1, nullptr, WNOHANG), -1);
}

} // namespace
