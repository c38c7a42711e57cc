// SPDX-License-Identifier: MIT
//
// Orbits that inherit the minimum, under allocators that are not the C library's: what main has named
// is never handed out there, or the orbit is refused. Nothing here knows how an allocator works.
#include "orbit_test.h"

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstring>
#include <fcntl.h>
#include <fstream>
#include <future>
#include <optional>
#include <string>
#include <sys/mman.h>
#include <vector>

namespace {

constexpr const char *before_threads = "before-threads", *after_threads = "after-threads";
constexpr std::size_t nr_ranges = 32;

struct Ranges {
	unsigned char *at[nr_ranges];
	std::size_t bytes;
};

void fill(const Ranges &ranges)
{
	for (std::size_t i = 0; i < nr_ranges; i++)
		std::memset(ranges.at[i], static_cast<int>(i + 1), ranges.bytes);
}

Ranges allocate(std::size_t bytes)
{
	Ranges ranges{};

	ranges.bytes = bytes;
	for (auto &at : ranges.at)
		at = static_cast<unsigned char *>(std::malloc(bytes));
	fill(ranges);
	return ranges;
}

// For a task. How many of the ranges overlap with what it allocates, or are not as they were.
int allocate_beside(const Ranges &ranges)
{
	const std::size_t rounds = std::min<std::size_t>(1000, (1 << 20) / ranges.bytes);
	int wrong = 0;

	for (std::size_t round = 0; round < rounds; round++) {
		auto *const piece = static_cast<unsigned char *>(std::malloc(ranges.bytes));

		for (const unsigned char *at : ranges.at)
			wrong += piece < at + ranges.bytes && at < piece + ranges.bytes;
		std::memset(piece, 0xff, ranges.bytes);
		if (round % 2)
			std::free(piece);
	}
	for (std::size_t i = 0; i < nr_ranges; i++)
		for (std::size_t byte = 0; byte < ranges.bytes; byte++)
			wrong += ranges.at[i][byte] != static_cast<unsigned char>(i + 1);
	return wrong;
}

// A thread of a task may use another part of the heap.
int allocate_in_threads(const Ranges &ranges)
{
	int wrong = 0;

	for (int round = 0; round < 2; round++) {
		std::array<int, 2> found{};
		std::vector<std::thread> threads;

		for (int &one : found)
			threads.emplace_back([&one, &ranges] { one = allocate_beside(ranges); });
		for (std::thread &thread : threads)
			thread.join();
		for (const int one : found)
			wrong += one;
	}
	return wrong;
}

orbit::expected<orbit::Orbit> make_minimal(const Ranges &ranges)
{
	std::array<orbit_range, nr_ranges> named;

	for (std::size_t i = 0; i < nr_ranges; i++)
		named[i] = {ranges.at[i], ranges.bytes};
	return orbit::Orbit::create({.inherit = orbit::Inherit::minimal, .ranges = named});
}

// 0, or what went wrong; accepted says whether there could be an orbit.
int check(const Ranges &ranges, bool *accepted)
{
	auto orbit = make_minimal(ranges);

	*accepted = orbit.has_value();
	if (!orbit)
		return orbit.error().code() == EADDRINUSE ? 0 : 10;
	if (orbit->call({}, allocate_beside, ranges) != 0)
		return 11;
	return orbit->call({}, allocate_in_threads, ranges) == 0 ? 0 : 12;
}

// The main program. Returns 0 or what went wrong.
int lead_a_life(bool threads_before)
{
	std::vector<void *> before;
	std::promise<void> go, stop;
	std::future<void> going = go.get_future(), stopped = stop.get_future();
	Ranges of_thread{};
	std::thread thread;
	bool accepted;

	// What is free when the orbits' process is made is where the trouble comes from.
	const auto use_and_free = [] {
		std::vector<void *> blocks;

		for (std::size_t i = 0; i < 4000; i++)
			blocks.push_back(std::malloc(i * 37 % 3000 + 1));
		for (std::size_t i = 0; i < 40; i++)
			blocks.push_back(std::malloc(20'000));
		for (std::size_t i = 0; i < blocks.size(); i++)
			if (i % 16)
				std::free(blocks[i]);
	};

	use_and_free();
	if (threads_before)
		thread = std::thread([&] {
			use_and_free();
			stop.set_value();
			going.wait();
			of_thread = allocate(200);
		});
	if (threads_before)
		stopped.wait();

	const Ranges early = allocate(100);

	if (!orbit::prepare())
		return 1;
	if (threads_before) {
		go.set_value();
		thread.join();
		if (const int wrong = check(of_thread, &accepted))
			return 20 + wrong;
	}
	fill(early);
	if (const int wrong = check(early, &accepted))
		return 40 + wrong;

	int nr_accepted = 0;
	constexpr std::size_t sizes[] = {8, 48, 200, 1500, 5000, 20'000, 70'000};

	for (const std::size_t bytes : sizes) {
		if (const int wrong = check(allocate(bytes), &accepted))
			return 60 + wrong;
		nr_accepted += accepted;
	}
	std::fprintf(stderr, "%d of %zu sizes\n", nr_accepted, std::size(sizes));

	// Addresses where nothing was are always good.
	Ranges mapped{};
	auto *const memory = static_cast<unsigned char *>(mmap(nullptr, nr_ranges * page, PROT_READ | PROT_WRITE,
							       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));

	mapped.bytes = 100;
	for (std::size_t i = 0; i < nr_ranges; i++)
		mapped.at[i] = memory + i * page;
	fill(mapped);
	if (const int wrong = check(mapped, &accepted))
		return 80 + wrong;
	if (!accepted)
		return 81;

	// So is one of choice for a pool.
	const auto pool = orbit::Pool::create(
		page, orbit::PoolOptions{.address = reinterpret_cast<void *>(0x200000000000)});
	auto orbit = orbit::Orbit::create({.inherit = orbit::Inherit::minimal});

	if (!pool || !orbit)
		return 83;
	*pool->as<unsigned char>() = 7;
	if (orbit->call(*pool, [](const unsigned char *p) { return int{*p}; },
			static_cast<const unsigned char *>(pool->as<unsigned char>())) != 7)
		return 84;
	// And so is what is allocated later, nearly always.
	return threads_before || nr_accepted >= 5 ? 0 : 82;
}

std::string find_library(const std::string &name)
{
	for (const char *directory : {"/usr/lib/x86_64-linux-gnu/", "/usr/lib/aarch64-linux-gnu/", "/usr/lib64/",
				      "/usr/lib/", "/lib/x86_64-linux-gnu/"})
		if (!access((directory + name).c_str(), R_OK))
			return directory + name;
	return "";
}

class Allocators : public testing::TestWithParam<const char *> {
protected:
	void SetUp() override { NEEDS_FEATURE(ORBIT_FEATURE_MINIMAL); }
};

TEST_P(Allocators, NeverHandOutWhatAnOrbitWasGiven)
{
	const std::string name = GetParam();
	const std::string library = name.empty() ? "" : find_library(name);

	if (!name.empty() && library.empty())
		GTEST_SKIP() << name << " is not installed here";
	for (const char *program : {before_threads, after_threads}) {
		OtherMain main([&] {
			// What it prints would stand among the results.
			dup2(2, 1);
			setenv("ORBIT_BACKEND", orbit::probe().backend, 1);
			if (!library.empty())
				setenv("LD_PRELOAD", library.c_str(), 1);
			execl("/proc/self/exe", "allocators", program, nullptr);
			return 99;
		});
		const int status = main.wait();

		EXPECT_TRUE(WIFEXITED(status)) << program << ": " << status;
		EXPECT_EQ(WEXITSTATUS(status), 0) << program;
	}
}

INSTANTIATE_TEST_SUITE_P(Each, Allocators,
			 testing::Values("", "libjemalloc.so.2", "libmimalloc.so.2", "libtcmalloc_minimal.so.4"),
			 [](const auto &which) {
				 const std::string name = which.param;
				 const std::size_t end = name.find_first_of("._");

				 return name.empty() ? std::string("libc") : name.substr(0, end);
			 });

} // namespace

// It is the main program, too.
int main(int argc, char **argv)
{
	const std::string_view what = argc > 1 ? argv[1] : "";

	if (what == before_threads || what == after_threads)
		return lead_a_life(what == after_threads);
	testing::InitGoogleTest(&argc, argv);
	return RUN_ALL_TESTS();
}
