// SPDX-License-Identifier: MIT
//
// P7: the adaptive mode takes, page by page, what costs less: it never loses much to
// either of the others, and wins clearly where pages change before every call. Counted
// in instructions, like p7_cost.cc: the writes, the call, and a task that reads all.

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>

#include <gtest/gtest.h>

#include <orbit/orbit.hpp>

#include "../../bench/common/patterns.h"

using namespace patterns;

namespace {

constexpr std::size_t page_size = 4096;
constexpr std::size_t pages = 64;
constexpr unsigned warm_up = 40;
constexpr unsigned rounds = 48; // a multiple of every period

std::int64_t now()
{
	return std::chrono::steady_clock::now().time_since_epoch().count();
}

std::uint64_t read_all(const std::byte *base)
{
	std::uint64_t sum = 0;

	for (std::size_t i = 0; i < pages; i++)
		sum += *reinterpret_cast<const volatile std::uint64_t *>(base + i * page_size);
	return sum;
}

// Instructions of an average round.
std::int64_t measure(orbit::Mode mode, Pattern changes)
{
	auto made = orbit::Orbit::create({.name = "modes"});
	auto pool = orbit::Pool::create(4 * pages * page_size, "modes");

	if (!made || !pool) {
		ADD_FAILURE() << "no orbit or no pool";
		return 0;
	}
	std::byte *const base = pool->data();
	std::int64_t begin = 0, least = INT64_MAX;

	for (std::size_t i = 0; i < pages; i++)
		base[i * page_size + 8] = std::byte{1};
	// Twice, for now and then the kernel does something else meanwhile.
	for (unsigned round = 0; round <= warm_up + 2 * rounds; round++) {
		if (round >= warm_up && (round - warm_up) % rounds == 0) {
			if (round > warm_up)
				least = std::min(least, now() - begin);
			begin = now();
		}
		for (unsigned page = 0; page < pages; page++)
			if (changes(page, round))
				*reinterpret_cast<volatile std::uint64_t *>(base + page * page_size) = round;
		const auto sum = made->call(orbit::PoolRange(*pool, mode), read_all,
					    static_cast<const std::byte *>(base));
		if (!sum) {
			ADD_FAILURE() << sum.error().message();
			return 0;
		}
		EXPECT_EQ(*sum, read_all(base));
	}
	return least / rounds;
}

struct Spread {
	const char *name;
	Pattern changes;
};

class P7_AdaptiveMode : public testing::TestWithParam<Spread> {
};

TEST_P(P7_AdaptiveMode, NeverLosesMuch)
{
	const auto cow = measure(orbit::Mode::cow, GetParam().changes);
	const auto copy = measure(orbit::Mode::copy, GetParam().changes);
	const auto adaptive = measure(orbit::Mode::adaptive, GetParam().changes);

	std::printf("%-16s  cow %7lld  copy %7lld  adaptive %7lld\n", GetParam().name,
		    static_cast<long long>(cow), static_cast<long long>(copy),
		    static_cast<long long>(adaptive));
	EXPECT_LE(adaptive * 100, cow * 110);
	EXPECT_LE(adaptive * 100, copy * 110);
	if (GetParam().changes == every<1>) {
		EXPECT_LE(adaptive * 100, cow * 85) << "it should win here";
	}
}

INSTANTIATE_TEST_SUITE_P(Spreads, P7_AdaptiveMode,
			 testing::Values(Spread{"Always", every<1>}, Spread{"EverySecond", every<2>},
					 Spread{"EveryThird", every<3>}, Spread{"EveryFourth", every<4>},
					 Spread{"EveryEighth", every<8>}, Spread{"EverySixteenth", every<16>},
					 Spread{"RandomHalf", random_one_in<2>},
					 Spread{"RandomQuarter", random_one_in<4>},
					 Spread{"RandomTenth", random_one_in<10>}, Spread{"Mixed", mixed}),
			 [](const auto &info) { return std::string(info.param.name); });

} // namespace
