// SPDX-License-Identifier: MIT
//
// The address window: who gets which addresses, and what a child finds there.
#include "../../liborbit/common/reservation.h"

#include <orbit/orbit.h>

#include <cerrno>
#include <cstdlib>
#include <fstream>
#include <gtest/gtest.h>
#include <iterator>
#include <memory>
#include <optional>
#include <random>
#include <string>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>
#include <vector>

using namespace liborbit;

namespace {

constexpr std::uintptr_t base = 0x100000;

TEST(RangeAllocator, TakesFromTheStartAndReuses)
{
	RangeAllocator ranges;
	Range a{}, b{}, c{}, d{};

	ranges.reset(base, 0x10000);
	ASSERT_TRUE(ranges.take(&a, 0x1000));
	ASSERT_TRUE(ranges.take(&b, 0x2000));
	ASSERT_TRUE(ranges.take(&c, 0x1000));
	EXPECT_EQ(a.start, base);
	EXPECT_EQ(b.start, base + 0x1000);
	EXPECT_EQ(c.start, base + 0x3000);

	ranges.release(&b);
	ASSERT_TRUE(ranges.take(&d, 0x3000)); // does not fit into the gap
	EXPECT_EQ(d.start, base + 0x4000);
	ASSERT_TRUE(ranges.take(&b, 0x2000)); // fits exactly
	EXPECT_EQ(b.start, base + 0x1000);
}

TEST(RangeAllocator, FillsToTheLastByteAndNoFurther)
{
	RangeAllocator ranges;
	Range a{}, b{};

	ranges.reset(base, 0x4000);
	EXPECT_FALSE(ranges.take(&a, 0x5000));
	EXPECT_FALSE(ranges.take(&a, SIZE_MAX & ~std::size_t{0xfff}));
	ASSERT_TRUE(ranges.take(&a, 0x4000));
	EXPECT_FALSE(ranges.take(&b, 0x1000));
	ranges.release(&a);
	EXPECT_TRUE(ranges.take(&b, 0x4000));
}

TEST(RangeAllocator, NeverOverlapsUnderRandomUse)
{
	constexpr std::size_t room = 0x40000;
	std::minstd_rand random(7);
	std::vector<std::unique_ptr<Range>> taken;
	RangeAllocator ranges;

	ranges.reset(base, room);
	for (int round = 0; round < 5000; round++) {
		if (random() % 2) {
			auto range = std::make_unique<Range>();

			if (ranges.take(range.get(), (1 + random() % 8) * 0x1000))
				taken.push_back(std::move(range));
		} else if (!taken.empty()) {
			const auto victim = taken.begin() + static_cast<long>(random() % taken.size());

			ranges.release(victim->get());
			taken.erase(victim);
		}

		std::uintptr_t end = base;
		std::size_t count = 0;

		for (const Range *range = ranges.first(); range; range = range->next, count++) {
			ASSERT_GE(range->start, end);
			end = range->start + range->bytes;
		}
		ASSERT_LE(end, base + room);
		ASSERT_EQ(count, taken.size());
	}
}

std::optional<std::size_t> size_of(const char *text)
{
	std::size_t bytes;

	return parse_size(text, &bytes) ? std::optional(bytes) : std::nullopt;
}

TEST(ParseSize, KnowsSuffixes)
{
	EXPECT_EQ(size_of("0"), 0U);
	EXPECT_EQ(size_of("4096"), 4096U);
	EXPECT_EQ(size_of("3K"), 3U << 10);
	EXPECT_EQ(size_of("64M"), 64U << 20);
	EXPECT_EQ(size_of("2G"), std::size_t{2} << 30);
	EXPECT_EQ(size_of("1T"), std::size_t{1} << 40);
}

TEST(ParseSize, RefusesAnythingElse)
{
	for (const char *text : {"", "x", "-1", " 1", "1X", "1KB", "1M ", "99999999999999999999",
				 "99999999999T"})
		EXPECT_FALSE(size_of(text)) << text;
}

// The window is made once in a process, so each of these has one of its own.
template <class F> void in_child(F check)
{
	const pid_t pid = fork();

	if (!pid)
		_exit(check());

	int status = 0;

	waitpid(pid, &status, 0);
	ASSERT_TRUE(WIFEXITED(status)) << status;
	EXPECT_EQ(WEXITSTATUS(status), 0);
}

// The protection of an address in /proc/self/maps, or "" if nothing is there.
std::string protection(std::uintptr_t address)
{
	std::ifstream maps("/proc/self/maps");
	std::string line;

	while (std::getline(maps, line)) {
		std::size_t at;
		const std::uintptr_t start = std::stoull(line, &at, 16);
		const std::uintptr_t end = std::stoull(line.substr(at + 1), nullptr, 16);

		if (start <= address && address < end)
			return line.substr(line.find(' ') + 1, 4);
	}
	return "";
}

TEST(Window, IsReservedOnce)
{
	in_child([] {
		Range range{};

		if (orbit_window_reserve(64 << 20))
			return 1;
		if (orbit_window_reserve(64 << 20) != -EALREADY || ensure_reservation())
			return 2;
		if (take_addresses(&range, 128 << 20) != -ENOMEM)
			return 3;
		if (take_addresses(&range, 64 << 20))
			return 4;
		return protection(range.start) == "---p" ? 0 : 5;
	});
}

TEST(Window, HasTheSizeOfTheEnvironment)
{
	in_child([] {
		Range range{};

		setenv("ORBIT_WINDOW", "1M", 1);
		if (ensure_reservation() || take_addresses(&range, (1 << 20) + 1) != -ENOMEM)
			return 1;
		return take_addresses(&range, 1 << 20) ? 2 : 0;
	});
}

TEST(Window, LeavesRoomUnderAnAddressSpaceLimit)
{
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
	GTEST_SKIP() << "the sanitizer itself needs more address space";
#endif
	in_child([] {
		const rlimit limit = {std::size_t{1} << 30, std::size_t{1} << 30};
		Range range{};

		setrlimit(RLIMIT_AS, &limit);
		if (ensure_reservation() || take_addresses(&range, 16 << 20))
			return 1;
		return mmap(nullptr, 256 << 20, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) ==
				       MAP_FAILED ?
			       2 :
			       0;
	});
}

TEST(Window, TooLargeIsAnError)
{
	in_child([] {
		return orbit_window_reserve(std::size_t{1} << 60) == -ENOMEM &&
				       orbit_window_reserve(SIZE_MAX) == -ENOMEM && !ensure_reservation() ?
			       0 :
			       1;
	});
}

// A pool is not inherited by a child; here a MADV_DONTFORK mapping plays the pool.
TEST(Window, ChildrenFindHolesReservedAgain)
{
	in_child([] {
		constexpr std::size_t bytes = 1 << 16;
		Range range{};

		if (ensure_reservation() || take_addresses(&range, bytes))
			return 1;

		void *start = reinterpret_cast<void *>(range.start);

		if (mmap(start, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_FIXED, -1,
			 0) == MAP_FAILED ||
		    madvise(start, bytes, MADV_DONTFORK))
			return 2;

		const unsigned before = generation();
		const pid_t pid = fork();
		int status = 0;

		if (!pid)
			_exit(protection(range.start) == "---p" && generation() == before + 1 ? 0 : 1);
		waitpid(pid, &status, 0);
		if (status)
			return 3;
		if (generation() != before || protection(range.start) != "rw-s")
			return 4;
		if (release_addresses(&range) || protection(range.start) != "---p")
			return 5;
		return 0;
	});
}

} // namespace
