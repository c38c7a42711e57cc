// SPDX-License-Identifier: MIT
//
// The portable backend: what waits for a task to begin is a copy. When a burst of calls has been worked off its
// copies are gone from the main program, whatever it has allocated meanwhile.
#include "../conformance/orbit_test.h"

#include <cstdio>
#include <fstream>
#include <memory>
#include <string>
#include <vector>

namespace {

constexpr std::size_t mib = 1 << 20;
constexpr std::size_t calls = 24, pages = 256; // so many change before each

std::size_t own_memory()
{
	std::ifstream status("/proc/self/status");
	std::size_t kib = 0;

	for (std::string line; std::getline(status, line);)
		if (std::sscanf(line.c_str(), "RssAnon: %zu kB", &kib) == 1)
			return kib * 1024;
	throw std::runtime_error("no RssAnon in /proc/self/status");
}

std::uint64_t sum(const unsigned char *bytes)
{
	std::uint64_t all = 0;

	for (std::size_t i = 0; i < pages; i++)
		all += bytes[i * page];
	return all;
}

bool read_byte(int fd)
{
	char byte;

	return read(fd, &byte, 1) == 1;
}

TEST(Bursts, WhatHasWaitedIsGivenBack)
{
	orbit::Pool pool = make_pool(pages * page);
	Pipe until;
	orbit::Orbit orbit = make_orbit({.keep_fds = {&until.read_end, 1}});
	auto *const bytes = pool.as<unsigned char>();
	std::vector<std::unique_ptr<char[]>> others;
	std::vector<orbit::Task<std::uint64_t>> tasks;

	tasks.reserve(calls);
	ASSERT_EQ(orbit.call(pool, sum, static_cast<const unsigned char *>(bytes)), 0U);

	const std::size_t before = own_memory();
	auto held = orbit.call_async({}, read_byte, until.read_end).value();

	for (std::size_t n = 1; n <= calls; n++) {
		for (std::size_t i = 0; i < pages; i++)
			bytes[i * page] = static_cast<unsigned char>(n);
		tasks.push_back(orbit.call_async(pool, sum, static_cast<const unsigned char *>(bytes)).value());
		// A heap can give back only what lies above all that is in use.
		others.push_back(std::make_unique<char[]>(100));
	}
	EXPECT_GT(own_memory() - before, calls * pages * page / 2);
	until.put(true);
	for (std::size_t n = 1; n <= calls; n++)
		EXPECT_EQ(tasks[n - 1].wait(), n * pages);
	EXPECT_EQ(held.wait(), true);
	EXPECT_LT(own_memory(), before + 8 * mib); // sanitizers keep notes
}

} // namespace
