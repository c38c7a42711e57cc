// SPDX-License-Identifier: MIT
//
// P7: a call costs in proportion to the pages that changed, never to the size of
// the pool. Runs where guest time counts instructions (run.py --icount): there a
// nanosecond is an instruction, and every run gives the same figures.

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <optional>
#include <utility>
#include <vector>

#include <gtest/gtest.h>
#include <unistd.h>

#include <orbit/orbit.hpp>

namespace {

constexpr std::size_t page_size = 4096;
constexpr std::size_t small_pool = std::size_t{1} << 20;
constexpr std::size_t large_pool = std::size_t{256} << 20;
constexpr int rounds = 15;

std::int64_t now()
{
	return std::chrono::steady_clock::now().time_since_epoch().count();
}

template <class F> std::int64_t count(F &&f)
{
	const auto begin = now();

	f();
	return now() - begin;
}

std::int64_t median(std::vector<std::int64_t> values)
{
	std::nth_element(values.begin(), values.begin() + rounds / 2, values.end());
	return values[rounds / 2];
}

// What a round of "change, call" costs: the writes, and the call.
struct Cost {
	std::int64_t write;
	std::int64_t call;
};

// The orbit reads a word of every changed page: what it pays for them counts.
std::uint64_t read_pages(const std::byte *base, std::size_t pages, std::size_t stride)
{
	std::uint64_t sum = 0;

	for (std::size_t i = 0; i < pages; i++)
		sum += *reinterpret_cast<const volatile std::uint64_t *>(base + i * stride);
	return sum;
}

class P7_CostFollowsChange : public testing::Test {
protected:
	void SetUp() override
	{
		auto made = orbit::Orbit::create({.name = "p7"});

		ASSERT_TRUE(made) << made.error().message();
		orbit_.emplace(std::move(*made));
	}

	// The pages lie @stride bytes apart; every page of the pool exists and has
	// been seen by the orbit, so nothing depends on what came first.
	Cost measure(std::size_t pool_bytes, std::size_t pages, std::size_t stride = page_size)
	{
		auto pool = orbit::Pool::create(pool_bytes, "p7");
		std::vector<std::int64_t> write, call;

		if (!pool) {
			ADD_FAILURE() << pool.error().message();
			return {};
		}
		std::byte *const base = pool->data();
		std::uint64_t expected = 0;

		for (std::size_t i = 0; i < pool_bytes; i += page_size)
			base[i + 8] = std::byte{1};
		run(*pool, base, pool_bytes / page_size, page_size);
		for (std::uint64_t round = 1; round <= rounds + 3; round++) {
			const auto w = count([&] {
				for (std::size_t i = 0; i < pages; i++)
					*reinterpret_cast<volatile std::uint64_t *>(base + i * stride) = round;
			});
			std::uint64_t sum = 0;
			const auto c = count([&] { sum = run(*pool, base, pages, stride); });

			expected = 0;
			for (std::size_t i = 0; i < pages; i++)
				expected += *reinterpret_cast<std::uint64_t *>(base + i * stride);
			EXPECT_EQ(sum, expected);
			if (round > 3) {
				write.push_back(w);
				call.push_back(c);
			}
		}
		return {median(write), median(call)};
	}

	std::uint64_t run(const orbit::Pool &pool, const std::byte *base, std::size_t pages,
			  std::size_t stride)
	{
		auto sum = orbit_->call(pool, read_pages, base, pages, stride);

		EXPECT_TRUE(sum) << sum.error().message();
		return sum.value_or(~std::uint64_t{0});
	}

	std::optional<orbit::Orbit> orbit_;
};

// Within 10 % of each other.
void expect_same(const char *what, std::int64_t a, std::int64_t b)
{
	EXPECT_LE(std::max(a, b) * 10, std::min(a, b) * 11) << what << ": " << a << " and " << b;
}

TEST_F(P7_CostFollowsChange, NotTheSizeOfThePool)
{
	std::printf("instructions          write    call | 256 MiB: write    call\n");
	for (const std::size_t pages : {0, 1, 16, 256}) {
		const Cost few = measure(small_pool, pages);
		const Cost many = measure(large_pool, pages);

		std::printf("%3zu pages changed %9ld %7ld | %14ld %7ld\n", pages, few.write, few.call,
			    many.write, many.call);
		expect_same("call", few.call, many.call);
		if (pages)
			expect_same("writes", few.write, many.write);
	}
}

// Far from each other, the pages share neither cache lines of page tables nor tables.
TEST_F(P7_CostFollowsChange, NotWhereThePagesLie)
{
	for (const std::size_t pages : {16, 256}) {
		const Cost adjacent = measure(large_pool, pages);
		const Cost scattered = measure(large_pool, pages, large_pool / pages);

		std::printf("%3zu pages: adjacent %ld + %ld, scattered %ld + %ld\n", pages, adjacent.write,
			    adjacent.call, scattered.write, scattered.call);
		EXPECT_LE((scattered.write + scattered.call) * 10, (adjacent.write + adjacent.call) * 12);
	}
}

// Main's first write to a page that waiting tasks need looks at what needs it, not at
// every task.
TEST_F(P7_CostFollowsChange, NotHowManyTasksWait)
{
	constexpr std::size_t pages = 64;
	std::vector<std::int64_t> found;

	for (const int tasks : {1, 4096}) {
		std::array<int, 2> gate;

		ASSERT_EQ(pipe(gate.data()), 0);
		auto pool = orbit::Pool::create(pages * page_size, "p7");
		auto orbit = orbit::Orbit::create(
			{.name = "p7", .keep_fds = {gate.data(), 1}, .queue_limit = 8192});

		ASSERT_TRUE(pool && orbit);
		std::memset(pool->data(), 1, pages * page_size);
		auto running = orbit->call_async({}, [](int fd) {
			char byte = 0;

			return static_cast<int>(read(fd, &byte, 1));
		}, gate[0]);

		ASSERT_TRUE(running);
		for (int i = 0; i < tasks; i++)
			ASSERT_TRUE(orbit->post(*pool, [] {}));

		std::vector<std::int64_t> writes;

		for (std::size_t i = 0; i < pages; i++)
			writes.push_back(count([&] {
				*reinterpret_cast<volatile std::byte *>(pool->data() + i * page_size) = std::byte{2};
			}));
		std::sort(writes.begin(), writes.end());
		found.push_back(writes[pages / 2]);
		std::printf("%4d tasks wait: a first write %ld\n", tasks, found.back());
		ASSERT_EQ(write(gate[1], "g", 1), 1);
		EXPECT_EQ(running->wait().value_or(0), 1);
		close(gate[0]);
		close(gate[1]);
	}
	expect_same("first write", found[0], found[1]);
}

// A call on one page of a pool that was once written, where nothing changes.
TEST_F(P7_CostFollowsChange, NotTheSizeOfThePoolRoundThePart)
{
	std::vector<std::int64_t> found;

	for (const std::size_t size : {small_pool, std::size_t{1} << 30}) {
		auto pool = orbit::Pool::create(size, "p7");
		std::vector<std::int64_t> calls;

		ASSERT_TRUE(pool) << pool.error().message();
		for (std::size_t i = 0; i < size; i += page_size)
			pool->data()[i] = std::byte{1};

		const orbit::Pools part(orbit::PoolRange(*pool, 0, page_size));
		const std::byte *const base = pool->data();

		for (int round = 0; round < rounds + 3; round++) {
			const auto call = count([&] {
				EXPECT_EQ(orbit_->call(part, read_pages, base, std::size_t{1}, page_size).value_or(0), 1U);
			});

			if (round >= 3)
				calls.push_back(call);
		}
		found.push_back(median(calls));
		std::printf("one page of %zu MiB: a call %ld\n", size >> 20, found.back());
	}
	expect_same("call", found[0], found[1]);
}

// A scale for the figures: two processes that hand a byte to and fro.
TEST_F(P7_CostFollowsChange, BesideAPipe)
{
	std::array<int, 2> there, back;
	std::vector<std::int64_t> trips;
	char byte = 0;

	ASSERT_EQ(pipe(there.data()), 0);
	ASSERT_EQ(pipe(back.data()), 0);
	const pid_t echo = fork();
	if (!echo) {
		close(there[1]);
		while (read(there[0], &byte, 1) == 1 && write(back[1], &byte, 1) == 1)
			;
		_exit(0);
	}
	for (int round = 0; round < rounds + 3; round++) {
		const auto trip = count([&] {
			ASSERT_EQ(write(there[1], &byte, 1), 1);
			ASSERT_EQ(read(back[0], &byte, 1), 1);
		});

		if (round >= 3)
			trips.push_back(trip);
	}
	close(there[1]);

	const std::int64_t round_trip = median(trips);
	const Cost none = measure(large_pool, 0);
	const Cost one = measure(large_pool, 1);

	std::printf("pipe round trip %ld; call %ld; with one changed page %ld, and %ld for the write\n",
		    round_trip, none.call, one.call, one.write);
	EXPECT_LT(none.call, 2 * round_trip);
	EXPECT_LT(one.call + one.write, 2 * round_trip);
}

} // namespace
