// SPDX-License-Identifier: MIT
//
// A main program with fork handlers of its own, as pthread_atfork(3) advises: its lock is taken
// before a fork, and it holds the same lock around calls, as its writers do.
#include "orbit_test.h"

#include <atomic>
#include <optional>
#include <pthread.h>

namespace {

pthread_mutex_t application_lock = PTHREAD_MUTEX_INITIALIZER;

void take()
{
	pthread_mutex_lock(&application_lock);
}

void release()
{
	pthread_mutex_unlock(&application_lock);
}

// Threads run and fork at once for a while. 0, or 1 if they come to a stop.
template <class Work> int run_beside_forks(Work work)
{
	std::atomic<long> rounds{0}, forks{0};
	std::atomic<bool> stop{false};

	std::thread worker([&] {
		for (; !stop; rounds++)
			work();
	});
	std::thread forker([&] {
		for (; !stop; forks++) {
			const pid_t pid = fork();

			if (!pid)
				_exit(0);
			waitpid(pid, nullptr, 0);
		}
	});
	// A deadlock comes within milliseconds where there can be one.
	if (!eventually([&] { return rounds > 100 && forks > 100; })) {
		std::fprintf(stderr, "stopped after %ld rounds and %ld forks\n", rounds.load(), forks.load());
		_exit(1);
	}
	// To their ends: ThreadSanitizer complains of a process that exits just when the library joins a thread of its own.
	stop = true;
	worker.join();
	forker.join();
	return 0;
}

TEST(ForkHandlers, TheirLocksMayBeHeldAroundCalls)
{
	OtherMain main([] {
		pthread_atfork(take, release, release);
		const orbit::Pool pool = make_pool(1 << 20);
		orbit::Orbit orbit = make_orbit();

		return run_beside_forks([&] {
			take();
			auto task = orbit.call_async(pool, [] { return 1; });
			release();
			if (!task || !task->wait())
				_exit(2);
		});
	});

	EXPECT_EQ(main.wait(), 0);
}

TEST(ForkHandlers, TheirLocksMayBeHeldAroundPoolsAndOrbits)
{
	OtherMain main([] {
		pthread_atfork(take, release, release);

		return run_beside_forks([&, round = 0]() mutable {
			std::optional<orbit::Pool> pool;
			std::optional<orbit::Orbit> orbit;

			take();
			pool.emplace(make_pool(page));
			release();
			// A creation forks, too, and so runs the handlers.
			if (round++ % 50 == 0)
				orbit.emplace(make_orbit());
			take();
			pool.reset();
			orbit.reset();
			release();
		});
	});

	EXPECT_EQ(main.wait(), 0);
}

// What a handler finds when it calls the library itself: no lock is held.
TEST(ForkHandlers, MayCallTheLibrary)
{
	static std::optional<orbit::Pool> pool;
	static std::optional<orbit::Orbit> orbit;
	OtherMain main([] {
		pool.emplace(make_pool(page));
		orbit.emplace(make_orbit());

		const auto call = [] {
			if (!orbit->call(*pool, [] { return 1; }))
				_exit(3);
		};

		pthread_atfork(call, call, [] {
			if (orbit->call(*pool, [] { return 1; }).error().code() != EPERM)
				_exit(4);
		});
		for (int round = 0; round < 20; round++) {
			const pid_t pid = fork();
			int status = -1;

			if (!pid)
				_exit(0);
			waitpid(pid, &status, 0);
			if (status)
				return 5;
		}
		return 0;
	});

	EXPECT_EQ(main.wait(), 0);
}

// Nothing of a creation stays when main is killed in the middle of it.
TEST(ForkHandlers, OneThatNeverReturnsEndsWithMain)
{
	static Pipe told;
	OtherMain main([] {
		pthread_atfork([] {
			told.put(static_cast<pid_t>(getpid()));
			for (;;)
				pause();
		}, nullptr, nullptr);
		make_orbit();
		return 1;
	});
	pid_t pid = 0;

	ASSERT_TRUE(told.get(pid));
	main.kill();
	EXPECT_NE(main.wait(), -1);
	EXPECT_TRUE(gone(pid));
}

} // namespace
