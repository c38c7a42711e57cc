// SPDX-License-Identifier: MIT
//
// The portable backend: pools that are full. What a call costs follows what has changed, wherever that
// lies, and the first call costs what a copy does. Times are the calling thread's own, for the machine may
// have other work, and only ratios within one run count.
#include "../conformance/orbit_test.h"

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <ctime>
#include <fstream>
#include <string>
#include <sys/mman.h>

namespace {

constexpr std::size_t mib = 1 << 20;

double thread_time()
{
	timespec time;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
	return static_cast<double>(time.tv_sec) * 1e3 + static_cast<double>(time.tv_nsec) / 1e6;
}

template <class Work> double time_of(Work work)
{
	const double before = thread_time();

	work();
	return thread_time() - before;
}

void call(orbit::Orbit &orbit, const orbit::Pool &pool)
{
	ASSERT_EQ(orbit.call(pool, [] { return 1; }), 1);
}

// What is too slow is measured so often, for the machine may have been busy with something else.
constexpr unsigned patience = 20;

// The least of several calls, before each of which some runs of neighbouring pages change.
double call_after_runs(orbit::Orbit &orbit, const orbit::Pool &pool, std::size_t length)
{
	constexpr std::size_t runs = 100;
	auto *const bytes = pool.as<volatile unsigned char>();
	double least = 1e9;

	for (unsigned round = 0; round < 7; round++) {
		for (std::size_t i = 0; i < runs; i++)
			for (std::size_t n = 0; n < length; n++)
				bytes[(i * (pool.size() / page / runs) + n) * page] = static_cast<unsigned char>(round);
		least = std::min(least, time_of([&] { call(orbit, pool); }));
	}
	return least;
}

TEST(Dense, RunsOfPagesCostNoMoreThanTheirPages)
{
	orbit::Pool pool = make_pool(256 * mib);
	orbit::Orbit orbit = make_orbit();

	std::memset(pool.data(), 1, pool.size());
	call(orbit, pool);

	const double shorter = call_after_runs(orbit, pool, 4);
	double longer = call_after_runs(orbit, pool, 8);

	for (unsigned again = 0; again < patience && longer >= 6 * shorter; again++)
		longer = std::min(longer, call_after_runs(orbit, pool, 8));

	EXPECT_LT(longer, 6 * shorter) << "four pages: " << shorter << " ms, eight: " << longer << " ms";
}

TEST(Dense, TheFirstCallCostsWhatACopyDoes)
{
	constexpr std::size_t bytes = 256 * mib;
	double first = 1e9, copy = 1e9;

	for (unsigned round = 0; round < 2 || (round < patience && first >= 1.2 * copy); round++) {
		orbit::Pool pool = make_pool(bytes);
		orbit::Orbit orbit = make_orbit();

		std::memset(pool.data(), 1, bytes);
		first = std::min(first, time_of([&] { call(orbit, pool); }));

		void *const fresh =
			mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

		ASSERT_NE(fresh, MAP_FAILED);
		copy = std::min(copy, time_of([&] { std::memcpy(fresh, pool.data(), bytes); }));
		munmap(fresh, bytes);
	}
	EXPECT_LT(first, 1.2 * copy) << "first call: " << first << " ms, copy: " << copy << " ms";
}

double time_of_process(pid_t pid)
{
	clockid_t clock;
	timespec time;

	if (clock_getcpuclockid(pid, &clock) || clock_gettime(clock, &time))
		throw std::runtime_error("no clock of the process");
	return static_cast<double>(time.tv_sec) * 1e3 + static_cast<double>(time.tv_nsec) / 1e6;
}

std::uint64_t read_all(const unsigned char *bytes, std::size_t pages)
{
	std::uint64_t sum = 0;

	for (std::size_t n = 0; n < pages; n++)
		sum += static_cast<const volatile unsigned char *>(bytes)[n * page];
	return sum;
}

// What a task has written to is looked for in all that its orbit has seen, but not where it wrote nothing.
TEST(Dense, ATaskThatWritesNothingCostsNothingForThePool)
{
	constexpr unsigned calls = 200;
	orbit::Pool pool = make_pool(64 * mib);
	orbit::Orbit orbit = make_orbit(), other = make_orbit();
	auto *const bytes = pool.as<unsigned char>();
	const std::size_t pages = pool.size() / page;
	double with = 1e9, without = 1e9;

	std::memset(bytes, 1, pool.size());
	ASSERT_EQ(orbit.call(pool, read_all, static_cast<const unsigned char *>(bytes), pages), pages);
	for (unsigned round = 0; round < 5 || (round < patience && with >= 8 * without); round++) {
		const double begin = time_of_process(pid_of(orbit)), others = time_of_process(pid_of(other));

		for (unsigned n = 0; n < calls; n++) {
			call(orbit, pool);
			ASSERT_EQ(other.call({}, [] { return 1; }), 1);
		}
		with = std::min(with, time_of_process(pid_of(orbit)) - begin);
		without = std::min(without, time_of_process(pid_of(other)) - others);
	}
	EXPECT_LT(with, 8 * without) << "with the pool: " << with << " ms, without: " << without << " ms";
}

// In whatever order tasks write, to pages old and new, and do not.
TEST(Dense, WhatATaskWroteIsGone)
{
	orbit::Pool pool = make_pool(mib);
	orbit::Orbit orbit = make_orbit();
	auto *const bytes = pool.as<unsigned char>();
	const std::size_t pages = pool.size() / page;

	std::memset(bytes, 1, pool.size());
	for (std::size_t n = 0; n < 100; n++) {
		unsigned char *const at = bytes + n * 7 % pages * page;

		EXPECT_EQ(orbit.call(
				  pool,
				  [](unsigned char *p, bool writes) {
					  const unsigned found = *p;

					  if (writes)
						  *p = 9;
					  return found;
				  },
				  at, n % 3 != 0),
			  1U);
		ASSERT_EQ(orbit.call(pool, read_all, static_cast<const unsigned char *>(bytes), pages), pages);
	}
}

// Pages that were there before the first look and those that come between, of which main has read some.
TEST(Dense, EveryRunIsFound)
{
	orbit::Pool pool = make_pool(16 * mib);
	orbit::Orbit orbit = make_orbit();
	auto *const bytes = pool.as<unsigned char>();
	const std::size_t pages = pool.size() / page;
	unsigned char value = 0;

	for (const std::size_t length : {1, 4, 5, 6, 63, 64, 65, 1023, 1024, 1025, 2100}) {
		const std::size_t from = length * 3 % (pages - length);

		value++;
		for (std::size_t n = 0; n < length; n++)
			bytes[(from + n) * page] = value;
		EXPECT_EQ(orbit.call(
				  pool,
				  [](const unsigned char *p, std::size_t count, unsigned char wanted) {
					  std::size_t right = 0;

					  for (std::size_t n = 0; n < count; n++)
						  right += p[n * page] == wanted;
					  return right;
				  },
				  static_cast<const unsigned char *>(bytes + from * page), length, value),
			  length);
	}
}

// Where the system makes huge pages of shared memory, one byte would count as 512 pages.
TEST(Dense, APoolHasNoHugePages)
{
	std::ifstream maps("/proc/self/smaps");
	orbit::Pool pool = make_pool(4 * mib);
	char start[32];
	bool found = false;

	if (access("/sys/kernel/mm/transparent_hugepage", F_OK))
		GTEST_SKIP() << "this kernel has no huge pages";
	std::snprintf(start, sizeof(start), "%lx-", reinterpret_cast<unsigned long>(pool.data()));
	for (std::string line; std::getline(maps, line);) {
		if (line.starts_with(start))
			found = true;
		else if (found && line.starts_with("VmFlags:")) {
			EXPECT_NE(line.find(" nh"), std::string::npos) << line;
			return;
		}
	}
	FAIL() << "no such mapping";
}

} // namespace
