// SPDX-License-Identifier: MIT
//
// A scan that nobody overtakes costs what looking at an ordinary snapshot does, for an orbit's
// first task and for later ones. Counted in instructions: a task that sums up the bytes of each page, and one
// that does so little with it that what the scan itself costs is seen.

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <span>

#include <gtest/gtest.h>

#include <orbit/orbit.hpp>

namespace {

constexpr std::size_t page_size = 4096;
constexpr std::size_t pages = 16384;
constexpr unsigned later_tasks = 3;

std::int64_t now()
{
	return std::chrono::steady_clock::now().time_since_epoch().count();
}

// The same code for both ways of looking.
[[gnu::noinline]] std::uint64_t sum_up(const std::byte *page)
{
	std::uint64_t sum = 0;

	for (std::size_t i = 0; i < page_size; i++)
		sum += std::to_integer<std::uint64_t>(page[i]);
	return sum;
}

[[gnu::noinline]] std::uint64_t first_of_each_line(const std::byte *page)
{
	std::uint64_t sum = 0;

	for (std::size_t i = 0; i < page_size; i += 64)
		sum += std::to_integer<std::uint64_t>(page[i]);
	return sum;
}

using Page = std::uint64_t (*)(const std::byte *page);

template <Page page>
std::uint64_t look(std::span<std::byte> range)
{
	std::uint64_t sum = 0;

	for (std::size_t at = 0; at < range.size(); at += page_size)
		sum += page(range.data() + at);
	return sum;
}

template <Page page>
std::uint64_t scan(std::span<std::byte> range)
{
	std::uint64_t sum = 0;
	const auto all = orbit::scan(range, [&sum](std::span<const std::byte> unit) { sum += page(unit.data()); });

	return all && all->units == pages && !all->overtaken ? sum : 0;
}

struct Cost {
	std::int64_t first, later; // of a page
};

// wanted: the sum of all pages, of which each has one byte.
Cost measure(const char *name, std::uint64_t (*task)(std::span<std::byte>), std::uint64_t wanted)
{
	auto made = orbit::Orbit::create({.name = name});
	auto pool = orbit::Pool::create(pages * page_size, name);
	Cost cost{0, INT64_MAX};

	if (!made || !pool) {
		ADD_FAILURE() << "no orbit or no pool";
		return cost;
	}
	for (std::size_t i = 0; i < pages; i++)
		pool->data()[i * page_size + i % page_size] = std::byte{1};
	for (unsigned i = 0; i <= later_tasks; i++) {
		const std::int64_t begin = now();
		const auto sum = made->call(*pool, task, pool->span());
		const std::int64_t took = (now() - begin) / static_cast<std::int64_t>(pages);

		EXPECT_TRUE(sum && *sum == wanted) << name << ", task " << i;
		// Of several, for now and then the kernel does something else meanwhile.
		(i ? cost.later : cost.first) = i ? std::min(cost.later, took) : took;
	}
	std::printf("%-8s  first task %5lld  later ones %5lld\n", name, static_cast<long long>(cost.first),
		    static_cast<long long>(cost.later));
	return cost;
}

TEST(ScanCost, IsThatOfAnOrdinarySnapshot)
{
	const Cost ordinary = measure("ordinary", look<sum_up>, pages), scanned = measure("scan", scan<sum_up>, pages);

	EXPECT_LE(scanned.first * 100, ordinary.first * 105);
	EXPECT_LE(scanned.later * 100, ordinary.later * 105);
}

// An ordinary snapshot's later tasks find mapped what the ones before have looked at.
TEST(ScanCost, IsLittleForEachPage)
{
	const Cost ordinary = measure("ordinary", look<first_of_each_line>, pages / 64);
	const Cost scanned = measure("scan", scan<first_of_each_line>, pages / 64);

	EXPECT_LE(scanned.first, ordinary.first);
	EXPECT_LE(scanned.later, ordinary.later + 400);
}

} // namespace
