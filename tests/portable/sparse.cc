// SPDX-License-Identifier: MIT
//
// The portable backend: pools of which little is used. Looking for what has changed must not cost
// what the pool's size would, and must find a page wherever it appears.
#include "../conformance/orbit_test.h"

#include <cstdio>
#include <fstream>
#include <random>
#include <set>
#include <string>

namespace {

constexpr std::size_t mib = 1 << 20;
constexpr std::size_t pool_bytes = 1024 * mib;
constexpr std::size_t table = 2 * mib; // what one page table maps

std::size_t page_table_bytes()
{
	std::ifstream status("/proc/self/status");
	std::size_t kib = 0;

	for (std::string line; std::getline(status, line);)
		if (std::sscanf(line.c_str(), "VmPTE: %zu kB", &kib) == 1)
			return kib * 1024;
	throw std::runtime_error("no VmPTE in /proc/self/status");
}

TEST(Sparse, WhatIsNotUsedHasNoPageTables)
{
	orbit::Pool pool = make_pool(pool_bytes);
	orbit::Orbit orbit = make_orbit();
	auto *bytes = pool.as<unsigned char>();
	const std::size_t before = page_table_bytes();

	for (unsigned i = 1; i <= 3; i++) {
		bytes[0] = bytes[pool_bytes - 1] = static_cast<unsigned char>(i);
		EXPECT_EQ(orbit.call(
				  pool, [](const unsigned char *p) { return p[0] + p[pool_bytes - 1]; },
				  bytes),
			  2 * i);
	}
	// For the whole pool it would be twice that.
	EXPECT_LT(page_table_bytes() - before, mib);
}

// On both sides of the borders of page tables, and anywhere; pages written before, and new ones.
TEST(Sparse, APageIsFoundWhereverItAppears)
{
	orbit::Pool pool = make_pool(pool_bytes);
	orbit::Orbit orbit = make_orbit();
	auto *bytes = pool.as<unsigned char>();
	std::mt19937_64 random(4);
	std::set<std::size_t> used;

	for (unsigned round = 1; round <= 40; round++) {
		const std::size_t border = (random() % (pool_bytes / table - 1) + 1) * table;
		const std::size_t places[] = {border, border - 1, random() % pool_bytes,
					       used.empty() ? 0 : *used.begin()};

		for (const std::size_t at : places) {
			bytes[at] = static_cast<unsigned char>(random());
			used.insert(at);
		}
		for (const std::size_t at : used)
			ASSERT_EQ(orbit.call(
					  pool, [](const unsigned char *p) { return *p; }, bytes + at),
				  bytes[at])
				<< "round " << round << ", at " << at;
	}
}

// What a call does not show is looked at by the next that shows it.
TEST(Sparse, PartsOfAPool)
{
	orbit::Pool pool = make_pool(pool_bytes);
	orbit::Orbit orbit = make_orbit();
	auto *bytes = pool.as<unsigned char>();
	const std::size_t middle = 100 * table + 3 * page;
	const auto read = [](const unsigned char *p) { return *p; };

	for (unsigned char i = 1; i <= 3; i++) {
		bytes[middle - 1] = bytes[middle] = i;
		EXPECT_EQ(orbit.call({{pool, middle, page}}, read, bytes + middle), i);
		bytes[middle] = i + 10;
		EXPECT_EQ(orbit.call({{pool, 0, middle}}, read, bytes + middle - 1), i);
		EXPECT_EQ(orbit.call(pool, read, bytes + middle), i + 10);
	}
}

} // namespace
