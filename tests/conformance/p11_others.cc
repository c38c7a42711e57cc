// SPDX-License-Identifier: MIT
//
// P11: programs that have nothing to do with an orbit are not concerned by it, even if they use the same
// addresses, or orbits of their own.
#include "orbit_test.h"

#include <algorithm>
#include <sys/mman.h>

namespace {

constexpr std::size_t nr_pages = 64;
constexpr std::size_t bytes = nr_pages * page;

// Where the pools of all are, in each of them.
char *const place = reinterpret_cast<char *>(0x6f0000000000);

void fill(char *memory, std::uint64_t with)
{
	for (std::size_t at = 0; at < bytes; at += sizeof(with))
		*reinterpret_cast<std::uint64_t *>(memory + at) = with;
}

bool is_filled(const char *memory, std::size_t length, std::uint64_t with)
{
	const auto *const words = reinterpret_cast<const std::uint64_t *>(memory);

	return std::all_of(words, words + length / sizeof(with), [=](std::uint64_t word) { return word == with; });
}

// A program without orbits: memory of its own, in which it does what a tracker of changes might take for its
// business. 0, or where it went wrong.
int live(char *memory, const Pipe &end)
{
	constexpr std::size_t half = bytes / 2;
	pollfd told = {end.read_end, POLLIN, 0};

	for (std::uint64_t round = 1; !poll(&told, 1, 0); round++) {
		fill(memory, round);
		if (mprotect(memory, half, PROT_READ) || !is_filled(memory, bytes, round) ||
		    mprotect(memory, half, PROT_READ | PROT_WRITE))
			return 2;

		const pid_t child = fork();
		int status = -1;

		if (!child) {
			fill(memory, 0);
			_exit(!is_filled(memory, bytes, 0));
		}
		waitpid(child, &status, 0);
		if (status || !is_filled(memory, bytes, round))
			return 3;
		if (madvise(memory + half, half, MADV_DONTNEED) || !is_filled(memory, half, round) ||
		    !is_filled(memory + half, half, 0))
			return 4;
	}
	return 0;
}

orbit_pool *pool_at_place()
{
	orbit_pool_options options{};
	orbit_pool *pool = nullptr;

	options.size = sizeof(options);
	options.address = place;
	return orbit_pool_create(&pool, bytes, &options) ? nullptr : pool;
}

// How many words of the pool, and of the orbit's own memory, have the value.
std::uint64_t count_words(const void *arg, std::size_t)
{
	const auto value = *static_cast<const std::uint64_t *>(arg);
	const auto *const words = reinterpret_cast<const std::uint64_t *>(place);

	return static_cast<std::uint64_t>(std::count(words, words + bytes / sizeof(value), value));
}

// A program with orbits: makes pools and destroys them, and takes snapshots of different parts. 0, or where it
// went wrong.
int use_orbits(std::uint64_t value, std::chrono::milliseconds length)
{
	const auto end = std::chrono::steady_clock::now() + length;
	orbit_handle *orbit = nullptr;

	if (orbit_create(&orbit, nullptr))
		return 2;
	while (std::chrono::steady_clock::now() < end) {
		orbit_pool *const pool = pool_at_place();
		orbit_call_options options{};

		if (!pool)
			return 3;
		options.size = sizeof(options);
		options.pools = &pool;
		options.nr_pools = 1;
		for (const std::size_t step : {nr_pages, std::size_t{7}, std::size_t{1}}) {
			orbit_outcome out{};

			out.size = sizeof(out);
			value++;
			for (std::size_t number = 0; number < nr_pages; number += step)
				std::fill_n(reinterpret_cast<std::uint64_t *>(place + number * page),
					    page / sizeof(value), value);
			if (orbit_call(orbit, count_words, &value, sizeof(value), &options, &out) ||
			    out.value != (nr_pages + step - 1) / step * (page / sizeof(value)))
				return 4;
		}
		if (!is_filled(place, bytes, value))
			return 5;
		orbit_pool_destroy(pool);
	}
	orbit_destroy(orbit);
	return 0;
}

TEST(P11_Others, Lesson09_AreNotConcernedByPoolsAtTheirAddresses)
{
	Pipe end;
	OtherMain without([&] {
		void *const memory = mmap(place, bytes, PROT_READ | PROT_WRITE,
					  MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);

		return memory == place ? live(place, end) : 9;
	});
	OtherMain first([] { return use_orbits(1ULL << 32, 3s); });
	OtherMain second([] { return use_orbits(2ULL << 32, 3s); });

	EXPECT_EQ(first.wait(), 0);
	EXPECT_EQ(second.wait(), 0);
	end.put('e');
	EXPECT_EQ(without.wait(), 0);
}

// Forked from a program with orbits, in the addresses that its pools have there.
TEST(P11_Others, Lesson09_NorIfTheyAreItsChildren)
{
	OtherMain main([] {
		const orbit::Pool pool = make_pool(bytes);
		orbit::Orbit orbit = make_orbit();
		char *const data = reinterpret_cast<char *>(pool.data());
		const Pipe end;
		OtherMain child([&] {
			void *const memory = mmap(data, bytes, PROT_READ | PROT_WRITE,
						  MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);

			return memory == data ? live(data, end) : 9;
		});
		const auto until = std::chrono::steady_clock::now() + 2s;

		for (std::uint64_t value = 1ULL << 32; std::chrono::steady_clock::now() < until; value++) {
			fill(data, value);

			const auto sum = orbit.call(pool, [](const std::uint64_t *words, std::uint64_t wanted) {
				return std::count(words, words + bytes / sizeof(wanted), wanted);
			}, reinterpret_cast<const std::uint64_t *>(data), value);

			if (!sum || *sum != static_cast<long>(bytes / sizeof(value)))
				return 5;
		}
		end.put('e');
		return child.wait();
	});

	EXPECT_EQ(main.wait(), 0);
}

} // namespace
