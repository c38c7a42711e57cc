// SPDX-License-Identifier: MIT
//
// What a task may rely on, what it may not leave behind, and what it cannot do to main by way of the
// operations that it asks for.
#include "orbit_test.h"

#include <orbit/memory.hpp>

#include <atomic>
#include <cstdio>
#include <iostream>
#include <map>
#include <optional>
#include <pthread.h>
#include <string>

namespace {

constexpr orbit::Operation<int> insert{1};
constexpr orbit::Operation<int> fail{2};
constexpr orbit::Operation<int> count{3};

// P1, P5: a task can aim for it.
TEST(Tasks, AnOperationThatThrowsHasFailed)
{
	const auto memory = value_or_throw(orbit::Memory::create(1 << 20));
	auto *const map = memory.make<std::pmr::map<int, std::pmr::string>>();
	orbit::Orbit orbit = make_orbit();
	auto targets = value_or_throw(orbit::Targets::create());
	int counted = 0;

	ASSERT_TRUE(targets.add(insert, [&](int key) {
		(*map)[key] = "a string that is long enough to be allocated, and fills the pool";
		return 0;
	}));
	ASSERT_TRUE(targets.add(fail, [](int what) {
		if (what)
			throw std::runtime_error("refused");
		throw 5;
	}));
	ASSERT_TRUE(targets.add(count, [&](int) { counted++; }));

	auto task = value_or_throw(orbit.call_async(memory, [] {
		for (int i = 0; i < 20'000; i++)
			(void)insert.send(i);
		(void)fail.send(0);
		(void)fail.send(1);
		(void)count.send(0);
	}));
	const orbit::Applied applied = value_or_throw(task.apply_all(targets));

	EXPECT_EQ(applied.applied, map->size() + 1);
	EXPECT_GT(map->size(), 100U);
	EXPECT_EQ(applied.failed, 20'000 - map->size() + 2);
	EXPECT_EQ(counted, 1);

	// One at a time, it says how.
	auto other = value_or_throw(orbit.call_async({}, [] { (void)fail.send(1); }));
	auto update = value_or_throw(other.receive());

	EXPECT_EQ(update.apply(targets).error().code(), ECANCELED);
}

// ---- Threads

void *write_for_ever(void *to)
{
	for (;; usleep(100))
		++*static_cast<std::atomic<int> *>(to);
}

void leave_thread(std::atomic<int> *target)
{
	pthread_t thread;

	if (!pthread_create(&thread, nullptr, write_for_ever, target))
		pthread_detach(thread);
}

// P3: later tasks see exactly their snapshots.
TEST(Tasks, ThreadsDoNotOutliveThem)
{
	const orbit::Pool pool = make_pool(page);
	orbit::Orbit orbit = make_orbit({.restart = true});
	auto *const target = pool.as<std::atomic<int>>();

	for (int round = 0; round < 3; round++) {
		const auto left = orbit.call(pool, leave_thread, target);

		ASSERT_FALSE(left);
		EXPECT_EQ(left.error().code(), ECONNRESET);
		EXPECT_EQ(left.error().outcome().cause, unsigned{ORBIT_CAUSE_EXIT});
		EXPECT_EQ(left.error().outcome().code, ORBIT_EXIT_THREADS);
		EXPECT_NE(left.error().message().find("threads"), std::string::npos) << left.error().message();
		EXPECT_EQ(orbit.call(pool, [](const std::atomic<int> *seen) {
			usleep(20'000);
			return seen->load();
		}, target), 0);
	}
}

// Those that it joins are no trouble, in however short a time.
TEST(Tasks, MayStartThreadsAndJoinThem)
{
	const orbit::Pool pool = make_pool(page);
	orbit::Orbit orbit = make_orbit();

	for (int round = 1; round <= 50; round++)
		ASSERT_EQ(orbit.call(pool, [](std::atomic<int> *sum) {
			std::thread one([=] { ++*sum; }), two([=] { ++*sum; });

			one.join();
			two.join();
			return sum->load();
		}, pool.as<std::atomic<int>>()), 2);
	EXPECT_EQ(value_or_throw(orbit.stat()).restarts, 0U);
}

TEST(Tasks, MayKeepThreadsThatAreAskedFor)
{
	orbit::Orbit orbit = make_orbit({.keep_threads = true});
	static std::atomic<int> written;

	ASSERT_TRUE(orbit.call({}, leave_thread, &written));
	EXPECT_TRUE(eventually([&] { return orbit.call({}, [] { return written.load() > 10; }) == true; }));
}

// ---- Output

std::string read_all(Pipe &pipe)
{
	std::string text;
	char byte;

	pipe.close_write();
	while (pipe.get(byte))
		text += byte;
	return text;
}

// It is a pipe, so stdout is buffered.
TEST(Tasks, WhatTheyPrintIsWritten)
{
	Pipe pipe;
	OtherMain main([&] {
		dup2(pipe.write_end, 1);
		pipe.close_write();
		std::printf("main "); // main writes that itself, once

		orbit::Orbit orbit = make_orbit({.restart = true});

		for (int round = 0; round < 2; round++)
			if (!orbit.call({}, [](int n) { std::printf("task %d ", n); }, round))
				return 1;
		if (!orbit.call({}, [] { std::cout << "cout "; }))
			return 2;
		if (orbit.call({}, [] {
			    std::printf("exit ");
			    std::exit(0);
		    }))
			return 3;
		std::fflush(stdout);
		return 0;
	});

	EXPECT_EQ(main.wait(), 0);
	EXPECT_EQ(read_all(pipe), "task 0 task 1 cout exit main ");
}

// ---- The stack

// It is that of the thread that creates the orbit, unless that is small.
TEST(Tasks, HaveAFullStackWhateverTheCreatorHas)
{
	const orbit::Pool pool = make_pool(page);
	std::optional<orbit::Orbit> orbits[2];
	pthread_attr_t attr;
	pthread_t thread;

	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, 256 << 10);
	ASSERT_EQ(pthread_create(&thread, &attr, [](void *user) -> void * {
		auto *const made = static_cast<std::optional<orbit::Orbit> *>(user);

		made[0].emplace(make_orbit());
		made[1].emplace(make_orbit({.restart = true}));
		return nullptr;
	}, orbits), 0);
	pthread_join(thread, nullptr);
	pthread_attr_destroy(&attr);

	const auto fill = [](int *given) {
		volatile char big[4 << 20];

		for (std::size_t i = 0; i < sizeof(big); i += page)
			big[i] = 1;
		return big[page] + *given;
	};

	*pool.as<int>() = 5;
	for (auto &orbit : orbits) {
		EXPECT_EQ(orbit->call(pool, fill, pool.as<int>()), 6);
		// Exceptions and the end of the stack are as ever.
		EXPECT_EQ(orbit->call({}, [] {
			try {
				throw 7;
			} catch (int n) {
				return n;
			}
		}), 7);
	}
	EXPECT_EQ(orbits[1]->call({}, [] { throw 8; }).error().signal(), SIGABRT);
	EXPECT_EQ(orbits[1]->call(pool, fill, pool.as<int>()), 6);
}

} // namespace
