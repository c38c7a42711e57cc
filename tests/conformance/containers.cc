// SPDX-License-Identifier: MIT
//
// Containers in pools: what an orbit reads of them, what it does to its own view, and that
// no lock of the allocator is ever held in a snapshot.
#include "orbit_test.h"

#include <orbit/memory.hpp>

#include <array>
#include <atomic>
#include <cerrno>
#include <map>
#include <memory_resource>
#include <new>
#include <numeric>
#include <string>
#include <vector>

namespace {

using Words = std::pmr::vector<std::pmr::string>;
using Table = std::pmr::map<std::pmr::string, Words>;

orbit::Memory make_memory(std::size_t bytes, const orbit::MemoryOptions &options = {})
{
	return value_or_throw(orbit::Memory::create(bytes, options));
}

// Keys of all lengths, each with as many words as its number.
void fill(Table &table, unsigned keys)
{
	for (unsigned i = 0; i < keys; i++) {
		const std::string key = std::string(i, 'k') + std::to_string(i);
		Words &words = table[std::pmr::string(key, table.get_allocator())];

		for (unsigned j = 0; j < i; j++)
			words.emplace_back(std::string(j, 'w'));
	}
}

std::uint64_t letters(const Table &table)
{
	std::uint64_t sum = 0;

	for (const auto &[key, words] : table)
		sum = std::accumulate(words.begin(), words.end(), sum + key.size(),
				      [](std::uint64_t so_far, const auto &word) {
					      return so_far + word.size();
				      });
	return sum;
}

TEST(Containers, AreReadInTheOrbit)
{
	orbit::Orbit orbit = make_orbit(); // before there is any pool
	const orbit::Memory memory = make_memory(1 << 20);
	auto *table = memory.make<Table>();

	for (unsigned keys = 0; keys < 60; keys += 20) {
		fill(*table, keys);
		EXPECT_EQ(value_or_throw(orbit.call(
				  memory, [](const Table *t) { return letters(*t); }, table)),
			  letters(*table));
	}
	EXPECT_GT(letters(*table), 0U);
	memory.destroy(table);
	EXPECT_EQ(memory.used(), 0U);
}

TEST(Containers, ATaskChangesItsOwnViewOnly)
{
	orbit::Orbit orbit = make_orbit();
	const orbit::Memory memory = make_memory(1 << 20);
	auto *table = memory.make<Table>();

	fill(*table, 20);

	const std::size_t used = memory.used();
	const std::uint64_t before = letters(*table);
	const auto grow_and_clear = [](Table *t, orbit::MemoryResource *resource) {
		const std::uint64_t at_first = letters(*t);

		if (!resource->whole())
			return std::uint64_t{0};
		fill(*t, 40);
		if (t->size() != 40)
			return std::uint64_t{0};
		t->clear();
		fill(*t, 30);
		return at_first;
	};

	for (unsigned i = 0; i < 20; i++)
		EXPECT_EQ(value_or_throw(
				  orbit.call(memory, grow_and_clear, table, memory.resource())),
			  before);
	EXPECT_EQ(memory.used(), used);
	EXPECT_EQ(table->size(), 20U);
	EXPECT_EQ(letters(*table), before);
	EXPECT_TRUE(memory.check());
}

TEST(Containers, OutOfRoomIsAnErrorOnBothSides)
{
	orbit::Orbit orbit = make_orbit();
	const orbit::Memory memory = make_memory(256 << 10);
	auto *numbers = memory.make<std::pmr::vector<int>>();
	const auto fill_up = [](std::pmr::vector<int> *vector) {
		try {
			for (;;)
				vector->push_back(1);
		} catch (const std::bad_alloc &) {
			return vector->size();
		}
	};
	const auto in_orbit = value_or_throw(orbit.call(memory, fill_up, numbers));

	EXPECT_GT(in_orbit, 1000U);
	EXPECT_EQ(numbers->size(), 0U);
	EXPECT_EQ(fill_up(numbers), in_orbit);
	EXPECT_TRUE(memory.check());
	EXPECT_EQ(
		value_or_throw(orbit.call(
			memory, [](const std::pmr::vector<int> *v) { return v->size(); }, numbers)),
		in_orbit);
}

TEST(Containers, GrowByFurtherPools)
{
	orbit::Orbit orbit = make_orbit();
	const orbit::Memory memory = make_memory(4 * page, {.name = "small", .grow = true});
	auto *table = memory.make<Table>();

	EXPECT_EQ(memory.pools().size(), 1U);
	fill(*table, 80);
	EXPECT_GT(memory.pools().size(), 1U);
	EXPECT_GT(memory.size(), std::size_t{80} * 80 * sizeof(std::pmr::string) / 2);

	// A block larger than all so far.
	const std::size_t used = memory.used(), size = memory.size() * 3;

	memory.resource()->free(memory.resource()->allocate(size), size);
	EXPECT_EQ(memory.used(), used);
	EXPECT_GT(memory.size(), size);
	EXPECT_LE(memory.pools().size(), 16U);
	EXPECT_EQ(value_or_throw(orbit.call(
			  memory, [](const Table *t) { return letters(*t); }, table)),
		  letters(*table));

	// A task does not make pools: it has the room that there is.
	const auto fills_up = [](orbit::MemoryResource *resource) {
		std::uint64_t blocks = 0;

		while (resource->try_allocate(4096))
			blocks++;
		return blocks;
	};
	const auto blocks = value_or_throw(orbit.call(memory, fills_up, memory.resource()));

	EXPECT_GT(blocks, 0U);
	EXPECT_LT(blocks, memory.size() / 4096);
	EXPECT_EQ(memory.resource()->try_allocate(SIZE_MAX / 2), nullptr);
	EXPECT_TRUE(memory.check());
}

enum Seen : unsigned { kWhole, kHalf, kWrong };

// In the orbit: a whole heap serves, half a one refuses, and neither lock is held.
Seen look(orbit::MemoryResource *resource)
{
	const bool whole = resource->whole();
	std::array<void *, 100> blocks{};

	for (std::size_t i = 0; i < blocks.size(); i++) {
		blocks[i] = resource->try_allocate(i * 40);
		if ((blocks[i] != nullptr) != whole)
			return kWrong;
	}
	for (std::size_t i = 0; i < blocks.size(); i++)
		if (blocks[i])
			resource->free(blocks[i], i * 40);
	return whole ? kWhole : kHalf;
}

TEST(Containers, NoLockIsHeldInASnapshot)
{
	// Snapshots of a heap that changes meanwhile.
	NEEDS_FEATURE(ORBIT_FEATURE_CUT);

	orbit::Orbit orbit = make_orbit();
	const orbit::Memory memory = make_memory(4 << 20);
	const orbit::CallOptions options{.time_limit = patience};
	std::array<unsigned, 3> seen{};
	std::jthread other([&memory](const std::stop_token &stop) {
		while (!stop.stop_requested()) {
			std::pmr::vector<std::pmr::string> words(memory.resource());

			for (unsigned i = 0; i < 100; i++)
				words.emplace_back(i * 20, 'x');
		}
	});

	for (unsigned i = 0; i < 2000 && !(i >= 50 && seen[kWhole] && seen[kHalf]); i++)
		seen.at(value_or_throw(orbit.call(options, memory, look, memory.resource())))++;
	EXPECT_GT(seen[kWhole], 0U);
	EXPECT_GT(seen[kHalf], 0U) << "no snapshot was taken in the middle of a change";
	EXPECT_EQ(seen[kWrong], 0U);

	for (unsigned i = 0; i < 50; i++) {
		auto task = [&] {
			const auto quiet = memory.quiesce();

			return value_or_throw(
				orbit.call_async(options, quiet.pools(), look, memory.resource()));
		}();

		EXPECT_EQ(value_or_throw(task.wait()), kWhole);
	}
	other.request_stop();
	other.join();
	EXPECT_EQ(memory.used(), 0U);
}

TEST(Containers, ThreadsOfATaskShareItsView)
{
	orbit::Orbit orbit = make_orbit();
	const orbit::Memory memory = make_memory(4 << 20);
	const auto task = [](orbit::MemoryResource *resource) {
		std::vector<std::thread> threads;
		std::atomic<unsigned> right = 0;

		for (unsigned thread = 0; thread < 3; thread++)
			threads.emplace_back([&right, resource, thread] {
				Words words(resource);

				for (unsigned i = 0; i < 300; i++)
					words.emplace_back(i, static_cast<char>('a' + thread));
				right += resource->whole() &&
					 words.back() ==
						 std::pmr::string(299,
								  static_cast<char>('a' + thread));
			});
		for (std::thread &thread : threads)
			thread.join();
		return right.load();
	};

	for (unsigned i = 0; i < 3; i++)
		EXPECT_EQ(value_or_throw(orbit.call(memory, task, memory.resource())), 3U);
	EXPECT_EQ(memory.used(), 0U);
}

TEST(Containers, InAnOrbitThatStartsAgain)
{
	orbit::Orbit orbit = make_orbit({.restart = true});
	const orbit::Memory memory = make_memory(1 << 20);
	auto *table = memory.make<Table>();

	fill(*table, 10);
	for (unsigned i = 0; i < 3; i++) {
		const auto crash = orbit.call(
			memory,
			[](Table *t) {
				fill(*t, 20);
				std::abort();
			},
			table);

		ASSERT_FALSE(crash);
		EXPECT_EQ(crash.error().signal(), SIGABRT);
		EXPECT_EQ(value_or_throw(orbit.call(
				  memory,
				  [](Table *t) {
					  fill(*t, 30);
					  return t->size();
				  },
				  table)),
			  30U);
	}
	EXPECT_EQ(table->size(), 10U);
}

TEST(Containers, InAnOrbitThatInheritsTheMinimum)
{
	const auto body = [] {
		value_or_throw(orbit::prepare().map([] { return 0; }));

		orbit::Orbit orbit = make_orbit({.inherit = orbit::Inherit::minimal});
		const orbit::Memory memory = make_memory(1 << 20);
		auto *table = memory.make<Table>();

		fill(*table, 10);
		return value_or_throw(orbit.call(
			       memory,
			       [](Table *t) {
				       fill(*t, 30);
				       return t->size();
			       },
			       table)) == 30 &&
				       table->size() == 10
			       ? 0
			       : 1;
	};

	EXPECT_EQ(OtherMain(body).wait(), 0);
}

// All pages that a task wrote, its heap's own included: if main has not gone on meanwhile,
// the whole change is main's then.
TEST(Containers, AChangeCanBeHandedOverAsPages)
{
	orbit::Orbit orbit = make_orbit();
	orbit::Targets targets = value_or_throw(orbit::Targets::create());
	const orbit::Memory memory = value_or_throw(orbit::Memory::in(make_pool(1 << 20)));
	const std::span<std::byte> span = memory.spans().at(0);
	auto *table = memory.make<Table>();

	EXPECT_EQ(memory.spans().size(), 1U);
	ASSERT_TRUE(targets.add(span));
	fill(*table, 10);
	for (unsigned i = 0; i < 3; i++) {
		auto task = [&] {
			const auto quiet = memory.quiesce();

			return value_or_throw(orbit.call_async(
				quiet.pools(),
				[](Table *t, std::span<std::byte> all, unsigned keys) {
					fill(*t, keys);
					return orbit::send_pages(all).has_value();
				},
				table, span, 20 + 10 * i));
		}();

		EXPECT_TRUE(value_or_throw(task.wait()));
		EXPECT_GT(value_or_throw(task.apply_all(targets)).pages, 0U);
		EXPECT_EQ(table->size(), 20 + 10 * i);
		EXPECT_TRUE(memory.check());
	}
	memory.destroy(table);
	EXPECT_EQ(memory.used(), 0U);
	EXPECT_TRUE(memory.check());
}

} // namespace
