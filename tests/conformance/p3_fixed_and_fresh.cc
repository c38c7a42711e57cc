// SPDX-License-Identifier: MIT
//
// Promise 3: a task sees exactly its snapshot: nothing later, nothing older, and
// nothing that an earlier task wrote.
#include "orbit_test.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <cstring>
#include <random>
#include <sys/mman.h>
#include <vector>

namespace {

constexpr std::size_t pages = 64;

std::uint64_t &word(std::byte *pool, std::size_t i)
{
	return *reinterpret_cast<std::uint64_t *>(pool + i * page);
}

std::uint64_t first_word(const std::uint64_t *p)
{
	return *p;
}

std::uint64_t sum_words(const std::uint64_t *p, std::size_t count)
{
	std::uint64_t sum = 0;

	while (count--)
		sum = sum * 31 + *p++;
	return sum;
}

// The task tells that it runs, lets main write, and looks again. It reads half of
// the pages before, so that the others are first touched after main wrote.
TEST(P3_FixedAndFresh, ARunningTaskSeesNoLaterWrite)
{
	const orbit::Pool pool = make_pool(pages * page);
	Pipe started, written;
	const std::array keep = {started.write_end, written.read_end};
	orbit::Orbit orbit = make_orbit({.keep_fds = keep});

	for (int round = 0; round < 20; round++) {
		for (std::size_t i = 0; i < pages; i++)
			word(pool.data(), i) = 7;

		std::thread writer([&] {
			char byte;

			if (started.get(byte))
				for (std::size_t i = 0; i < pages; i++)
					word(pool.data(), i) = 8;
			written.put('w');
		});
		const auto changed = orbit.call(
			{.time_limit = patience}, pool,
			[](std::byte *data, int told, int wait) {
				std::size_t wrong = 0;
				char byte = 's';

				for (std::size_t i = 0; i < pages; i += 2)
					wrong += word(data, i) != 7;
				if (write(told, &byte, 1) != 1 || read(wait, &byte, 1) != 1)
					return pages;
				for (std::size_t i = 0; i < pages; i++)
					wrong += word(data, i) != 7;
				return wrong;
			},
			pool.data(), started.write_end, written.read_end);

		writer.join();
		ASSERT_EQ(changed, 0U) << "in round " << round;
		ASSERT_EQ(word(pool.data(), pages - 1), 8U);
	}
}

// The same without a handshake: main writes all the time.
TEST(P3_FixedAndFresh, APageStaysAsItIsForTheWholeTask)
{
	const orbit::Pool pool = make_pool(pages * page);
	std::atomic<bool> stop{false};
	orbit::Orbit orbit = make_orbit();
	std::thread writer([&] {
		for (std::uint64_t n = 1; !stop; n++)
			for (std::size_t i = 0; i < pages; i++)
				__atomic_store_n(&word(pool.data(), i), n, __ATOMIC_RELAXED);
	});

	for (int round = 0; round < 20; round++)
		EXPECT_EQ(orbit.call(
				  pool,
				  [](std::byte *data) {
					  std::uint64_t seen[pages];
					  unsigned changes = 0;

					  for (std::size_t i = 0; i < pages; i++)
						  seen[i] = word(data, i);
					  for (int again = 0; again < 200; again++)
						  for (std::size_t i = 0; i < pages; i++)
							  changes += __atomic_load_n(&word(data, i),
										     __ATOMIC_RELAXED) !=
								     seen[i];
					  return changes;
				  },
				  pool.data()),
			  0U);
	stop = true;
	writer.join();
}

TEST(P3_FixedAndFresh, EveryCallSeesWhatMainWrote)
{
	const orbit::Pool pool = make_pool(pages * page);
	const std::size_t count = pool.size() / sizeof(std::uint64_t);
	std::uint64_t *data = pool.as<std::uint64_t>();
	orbit::Orbit orbit = make_orbit();
	std::minstd_rand random(11);

	for (int round = 0; round < 100; round++) {
		for (unsigned writes = random() % 20; writes--;)
			data[random() % count] = random();
		ASSERT_EQ(orbit.call(pool, sum_words, data, count), sum_words(data, count))
			<< "in round " << round;
	}
}

// The main program writes right after each call, so while the orbit goes from one task to the
// next, on another CPU, what the last one saw is being taken away from it.
TEST(P3_FixedAndFresh, TasksInAQueueSeeTheirOwn)
{
	struct Expected {
		volatile long *place;
		long value;
	};
	static long wrong; // in the orbit
	orbit::Pool pool = make_pool(page);
	orbit::Orbit orbit = make_orbit();
	orbit_pool *named = pool.raw();
	orbit_call_options options{};
	Expected expected = {pool.as<volatile long>(), 0};

	options.size = sizeof(options);
	options.pools = &named;
	options.nr_pools = 1;
	for (long i = 1; i <= 5000; i++) {
		*expected.place = expected.value = i;
		ASSERT_EQ(orbit_call_async(
				  orbit.raw(),
				  [](const void *arg, std::size_t) -> std::uint64_t {
					  const auto *task = static_cast<const Expected *>(arg);

					  wrong += *task->place != task->value;
					  return 0;
				  },
				  &expected, sizeof(expected), &options, nullptr),
			  0);
		*expected.place = -i;
		if (i % 8 == 0) {
			ASSERT_EQ(orbit.call(pool, [] { return wrong; }), 0) << "of the last 8 tasks, at " << i;
		}
	}
}

TEST(P3_FixedAndFresh, WhatATaskWroteIsGoneAtTheNext)
{
	const orbit::Pool pool = make_pool(pages * page);
	const std::size_t count = pool.size() / sizeof(std::uint64_t);
	std::uint64_t *data = pool.as<std::uint64_t>();
	orbit::Orbit orbit = make_orbit();
	std::minstd_rand random(12);

	// Pages that main changes in between, pages it does not, and pages it never wrote.
	for (std::size_t i = 0; i < pages / 2; i++)
		word(pool.data(), i) = i;
	for (int round = 0; round < 30; round++) {
		word(pool.data(), random() % (pages / 2)) = random();
		ASSERT_EQ(orbit.call(
				  pool,
				  [](std::uint64_t *p, std::size_t n, unsigned every) {
					  const std::uint64_t sum = sum_words(p, n);

					  for (std::size_t i = 0; i < n; i += every)
						  p[i] = 0xbad;
					  return sum;
				  },
				  data, count, 1 + random() % 2000),
			  sum_words(data, count))
			<< "in round " << round;
	}
}

// Lesson 1: the first orbit's call must not clear what the second has to see.
TEST(P3_FixedAndFresh, TwoOrbitsOnOnePoolBothSeeEveryChange)
{
	const orbit::Pool pool = make_pool(pages * page);
	const std::size_t count = pool.size() / sizeof(std::uint64_t);
	std::uint64_t *data = pool.as<std::uint64_t>();
	orbit::Orbit orbits[] = {make_orbit(), make_orbit()};
	std::minstd_rand random(13);

	for (int round = 0; round < 60; round++) {
		data[random() % count] = random();
		// Either one, or the other, or both.
		for (unsigned which = 0; which < 2; which++) {
			if (round % 3 == static_cast<int>(!which))
				continue;
			ASSERT_EQ(orbits[which].call(pool, sum_words, data, count),
				  sum_words(data, count))
				<< "in round " << round << ", orbit " << which;
		}
	}
}

// Lesson 2: pools side by side, each of its own concern.
TEST(P3_FixedAndFresh, AdjacentSmallPools)
{
	std::vector<orbit::Pool> pools;
	orbit::Orbit orbit = make_orbit();

	for (int i = 0; i < 16; i++)
		pools.push_back(make_pool(page));
	for (std::uint64_t round = 1; round <= 10; round++) {
		for (const orbit::Pool &pool : pools)
			*pool.as<std::uint64_t>() = round;
		// One alone, then its neighbours alone, then all of them.
		for (const orbit::Pool &pool : pools)
			ASSERT_EQ(orbit.call(pool, first_word, pool.as<std::uint64_t>()), round);

		orbit::Pools all;
		std::uint64_t sum = 0;

		for (std::size_t i = 0; i < pools.size(); i++) {
			*pools[i].as<std::uint64_t>() = round * 100 + i;
			all.add(pools[i]);
		}
		for (const orbit::Pool &pool : pools)
			sum += value_or_throw(orbit.call(all, first_word, pool.as<std::uint64_t>()));
		ASSERT_EQ(sum, round * 100 * 16 + 120);
	}
}

TEST(P3_FixedAndFresh, NeverTouchedPagesReadAsZero)
{
	const orbit::Pool pool = make_pool(pages * page);
	orbit::Orbit orbit = make_orbit();
	const auto ones = [](const std::byte *data) {
		return std::count_if(data, data + pages * page, [](std::byte b) { return b != std::byte{}; });
	};

	EXPECT_EQ(orbit.call(pool, ones, pool.data()), 0);
	pool.data()[5 * page + 1] = std::byte{1};
	EXPECT_EQ(orbit.call(pool, ones, pool.data()), 1);
	EXPECT_EQ(orbit.call(
			  pool,
			  [](std::byte *data) {
				  std::memset(data, 0xff, pages * page);
			  },
			  pool.data())
			  .has_value(),
		  true);
	EXPECT_EQ(orbit.call(pool, ones, pool.data()), 1);
}

// Lesson 4: whatever main sees after dropping pages, the orbit sees the same.
TEST(P3_FixedAndFresh, DroppedPagesAreWhatMainSees)
{
	const orbit::Pool pool = make_pool(pages * page);
	const std::size_t count = pool.size() / sizeof(std::uint64_t);
	std::uint64_t *data = pool.as<std::uint64_t>();
	orbit::Orbit orbit = make_orbit();

	for (std::size_t i = 0; i < pages; i++)
		word(pool.data(), i) = i + 1;
	EXPECT_EQ(orbit.call(pool, sum_words, data, count), sum_words(data, count));
	madvise(pool.data() + 4 * page, 8 * page, MADV_DONTNEED);
	EXPECT_EQ(orbit.call(pool, sum_words, data, count), sum_words(data, count));
	word(pool.data(), 5) = 99;
	madvise(pool.data(), pool.size(), MADV_DONTNEED);
	EXPECT_EQ(orbit.call(pool, sum_words, data, count), sum_words(data, count));
}

TEST(P3_FixedAndFresh, PoolsAreAtTheSameAddressWheneverMade)
{
	orbit::Orbit orbit = make_orbit(); // older than any of its pools

	for (std::uint64_t i = 1; i <= 10; i++) {
		// Gone at the end of the round, so that the next takes its address.
		const orbit::Pool pool = make_pool((1 + i % 3) * page);

		EXPECT_EQ(orbit.call(pool, first_word, pool.as<std::uint64_t>()), 0U);
		*pool.as<std::uint64_t>() = i;
		EXPECT_EQ(orbit.call(pool, first_word, pool.as<std::uint64_t>()), i);
	}
}

TEST(P3_FixedAndFresh, ManyPoolsInOneCall)
{
	std::vector<orbit::Pool> pools;
	orbit::Pools all;
	orbit::Orbit orbit = make_orbit();

	for (std::size_t i = 0; i < 100; i++) {
		pools.push_back(make_pool(page));
		*pools.back().as<std::size_t>() = i;
		all.add(pools.back());
	}
	EXPECT_EQ(orbit.call(
			  all,
			  [](const std::byte *data) {
				  std::size_t sum = 0;

				  for (std::size_t i = 0; i < 100; i++)
					  sum += *reinterpret_cast<const std::size_t *>(data + i * page);
				  return sum;
			  },
			  std::min_element(pools.begin(), pools.end(),
					   [](const auto &x, const auto &y) { return x.data() < y.data(); })
				  ->data()),
		  4950U);
}

} // namespace
