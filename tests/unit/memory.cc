// SPDX-License-Identifier: MIT
//
// Memory for containers, over ordinary memory. A snapshot is played by fork(): the child
// has what the parent's threads had made of the heap at that moment.
#include "../../liborbit/internal.h"

#include <orbit/memory.hpp>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <gtest/gtest.h>
#include <map>
#include <memory>
#include <memory_resource>
#include <new>
#include <random>
#include <string>
#include <sys/wait.h>
#include <thread>
#include <unistd.h>
#include <utility>
#include <vector>

namespace {

constexpr std::size_t page = 4096;

// Memory like a pool's: pages.
class Room {
public:
	explicit Room(std::size_t bytes)
		: data_(static_cast<std::byte *>(std::aligned_alloc(page, bytes))), bytes_(bytes)
	{
		std::memset(data_.get(), 0, bytes);
	}
	std::span<std::byte> span() const { return {data_.get(), bytes_}; }

private:
	struct Free {
		void operator()(std::byte *data) const { std::free(data); }
	};
	std::unique_ptr<std::byte, Free> data_;
	std::size_t bytes_;
};

orbit::Memory over(const Room &room)
{
	auto memory = orbit::Memory::over(room.span());

	EXPECT_TRUE(memory);
	return std::move(*memory);
}

struct Block {
	unsigned char *data;
	std::size_t size, alignment;
	unsigned char fill;

	void write() const { std::memset(data, fill, size); }
	bool intact() const
	{
		return std::all_of(data, data + size,
				   [this](unsigned char byte) { return byte == fill; });
	}
};

class Random {
public:
	explicit Random(unsigned seed) : engine_(seed) {}
	std::size_t below(std::size_t limit) { return engine_() % limit; }
	std::size_t size()
	{
		switch (below(16)) {
		case 0:
			return below(60000);
		case 1:
		case 2:
			return below(5000);
		default:
			return below(300);
		}
	}
	std::size_t alignment()
	{
		return below(8) ? std::size_t{1} << below(5) : std::size_t{1} << (5 + below(9));
	}

private:
	std::mt19937_64 engine_;
};

// Takes, or gives back, one block; notes what is its own.
void step(orbit::MemoryResource *resource, Random &random, std::vector<Block> &blocks,
	  std::size_t most)
{
	if (blocks.empty() || random.below(most) >= blocks.size()) {
		Block block{nullptr, random.size(), random.alignment(),
			    static_cast<unsigned char>(random.below(256))};

		block.data = static_cast<unsigned char *>(
			resource->try_allocate(block.size, block.alignment));
		if (block.data) {
			ASSERT_EQ(reinterpret_cast<std::uintptr_t>(block.data) % block.alignment,
				  0U);
			block.write();
			blocks.push_back(block);
			return;
		}
	}
	if (blocks.empty())
		return;

	const std::size_t which = random.below(blocks.size());
	const Block block = blocks[which];

	ASSERT_TRUE(block.intact()) << block.size;
	resource->free(block.data, block.size, block.alignment);
	blocks[which] = blocks.back();
	blocks.pop_back();
}

void free_all(orbit::MemoryResource *resource, std::vector<Block> &blocks)
{
	for (const Block &block : blocks) {
		EXPECT_TRUE(block.intact()) << block.size;
		resource->free(block.data, block.size, block.alignment);
	}
	blocks.clear();
}

// The largest block there is room for, to the page.
std::size_t largest(orbit::MemoryResource *resource, std::size_t most)
{
	std::size_t pages = most / page;

	for (; pages; pages--) {
		if (void *block = resource->try_allocate(pages * page)) {
			resource->free(block, pages * page);
			break;
		}
	}
	return pages * page;
}

TEST(Memory, RandomBlocksAgainstAModel)
{
	for (const std::size_t bytes : {16 * page, 256 * page, 2048 * page}) {
		const Room room(bytes);
		const orbit::Memory memory = over(room);
		const std::size_t at_first = largest(memory.resource(), bytes);

		EXPECT_GE(at_first, bytes - 2 * page);
		for (unsigned seed = 0; seed < 4; seed++) {
			Random random(seed);
			std::vector<Block> blocks;

			for (unsigned i = 0; i < 20000; i++) {
				step(memory.resource(), random, blocks, 1000);
				if (HasFatalFailure())
					return;
				if (i % 1000 == 0) {
					ASSERT_TRUE(memory.check());
				}
			}

			// What is given out is in the memory, and no two blocks overlap.
			std::sort(blocks.begin(), blocks.end(),
				  [](const Block &a, const Block &b) { return a.data < b.data; });
			for (std::size_t i = 0; i < blocks.size(); i++) {
				const auto *begin =
					reinterpret_cast<const std::byte *>(blocks[i].data);

				EXPECT_GE(begin, room.span().data());
				EXPECT_LE(begin + blocks[i].size, room.span().data() + bytes);
				if (i && blocks[i].size) {
					EXPECT_GE(blocks[i].data,
						  blocks[i - 1].data + blocks[i - 1].size);
				}
			}

			free_all(memory.resource(), blocks);
			EXPECT_EQ(memory.used(), 0U);
			EXPECT_TRUE(memory.check());
			// All that was freed is one piece again.
			EXPECT_EQ(largest(memory.resource(), bytes), at_first);
		}
	}
}

TEST(Memory, EverySizeIsWhole)
{
	const Room room(1024 * page);
	const orbit::Memory memory = over(room);
	std::vector<Block> blocks;

	for (std::size_t size = 0; size < 2500; size++) {
		Block block{nullptr, size, 1, static_cast<unsigned char>(size)};

		block.data = static_cast<unsigned char *>(memory.resource()->allocate(size));
		EXPECT_EQ(reinterpret_cast<std::uintptr_t>(block.data) % 16, 0U);
		block.alignment = alignof(std::max_align_t);
		block.write();
		blocks.push_back(block);
	}
	free_all(memory.resource(), blocks);
	EXPECT_EQ(memory.used(), 0U);
}

TEST(Memory, OutOfRoomIsAnError)
{
	const Room room(64 * page);
	const orbit::Memory memory = over(room);

	for (const std::size_t size : {std::size_t{32}, std::size_t{2048}, std::size_t{9000}}) {
		std::vector<Block> blocks;

		for (;;) {
			Block block{nullptr, size, 16, static_cast<unsigned char>(blocks.size())};

			block.data =
				static_cast<unsigned char *>(memory.resource()->try_allocate(size));
			if (!block.data)
				break;
			block.write();
			blocks.push_back(block);
		}
		EXPECT_GT(blocks.size() * size, 64 * page * 3 / 4);
		EXPECT_THROW((void)memory.resource()->allocate(size), std::bad_alloc);
		EXPECT_TRUE(memory.check());
		free_all(memory.resource(), blocks);
	}
	for (const std::size_t size : {SIZE_MAX, SIZE_MAX - 7, SIZE_MAX / 2, 64 * page})
		for (const std::size_t alignment : {std::size_t{1}, page, SIZE_MAX / 2 + 1})
			EXPECT_EQ(memory.resource()->try_allocate(size, alignment), nullptr);
	EXPECT_EQ(memory.resource()->try_allocate(1, SIZE_MAX / 2 + 1), nullptr);
	EXPECT_EQ(memory.used(), 0U);
	EXPECT_TRUE(memory.check());
}

TEST(Memory, TooLittleMemoryIsRefused)
{
	alignas(64) std::array<std::byte, 8192> room{};

	for (std::size_t bytes = 0; bytes < room.size(); bytes++) {
		const auto memory = orbit::Memory::over({room.data(), bytes});

		if (!memory)
			EXPECT_EQ(memory.error().code(), EINVAL);
		else
			EXPECT_TRUE(memory->check());
	}
	EXPECT_FALSE(orbit::Memory::over({room.data(), 1000}));
	EXPECT_TRUE(orbit::Memory::over(room));
	// Misaligned memory is used as far as it goes.
	EXPECT_TRUE(orbit::Memory::over({room.data() + 3, room.size() - 3}));
}

TEST(Memory, StdPmrContainers)
{
	const Room room(256 * page);
	const orbit::Memory memory = over(room);
	auto *table = memory.make<std::pmr::map<std::pmr::string, std::pmr::vector<int>>>();

	for (int i = 0; i < 500; i++) {
		const std::string key =
			"a key that is too long for the string itself: " + std::to_string(i);
		auto &values = (*table)[std::pmr::string(key, memory.resource())];

		for (int j = 0; j < i; j++)
			values.push_back(j);
	}

	const auto inside = [&](const void *at) {
		return at >= room.span().data() && at < room.span().data() + room.span().size();
	};

	EXPECT_TRUE(inside(table));
	for (const auto &[key, values] : *table) {
		EXPECT_TRUE(inside(&key) && inside(key.data()));
		if (!values.empty()) {
			EXPECT_TRUE(inside(values.data()));
		}
	}
	EXPECT_EQ(table->get_allocator().resource(), memory.resource());
	memory.destroy(table);
	EXPECT_EQ(memory.used(), 0U);
}

TEST(Memory, OtherContainers)
{
	const Room room(64 * page);
	const orbit::Memory memory = over(room);
	{
		std::vector<double, orbit::Allocator<double>> vector(memory.allocator<double>());

		for (int i = 0; i < 1000; i++)
			vector.push_back(i);

		const double *data = vector.data();
		auto moved = std::move(vector);

		EXPECT_EQ(moved.data(), data);
		EXPECT_EQ(moved[999], 999);
		EXPECT_THROW(moved.resize(1 << 20), std::bad_alloc);
		EXPECT_EQ(moved.size(), 1000U);
		EXPECT_THROW((void)memory.allocator<double>().allocate(SIZE_MAX / 4),
			     std::bad_alloc);

		std::map<int, int, std::less<>, orbit::Allocator<std::pair<const int, int>>> map(
			memory.allocator<std::pair<const int, int>>());

		map[1] = 2;
		EXPECT_EQ(map.get_allocator(), memory.allocator<int>());
	}
	EXPECT_EQ(memory.used(), 0U);
}

TEST(Memory, AHeapOfSeveralRegions)
{
	const Room first(32 * page), second(64 * page);
	auto heap = std::make_unique<orbit::detail::Heap>();
	std::vector<Block> blocks;

	ASSERT_TRUE(heap->add(first.span()));
	for (unsigned round = 0; round < 2; round++) {
		for (std::size_t size = 1; size < 30000; size = size * 3 / 2 + 1) {
			for (unsigned i = 0; i < 3; i++) {
				Block block{nullptr, size, 16,
					    static_cast<unsigned char>(size + i)};

				block.data = static_cast<unsigned char *>(heap->allocate(size, 16));
				if (block.data) {
					block.write();
					blocks.push_back(block);
				}
			}
		}
		if (!round) {
			EXPECT_EQ(heap->allocate(40 * page, 16), nullptr);
			ASSERT_TRUE(heap->add(second.span()));
			Block block{nullptr, 40 * page, 16, 1};

			block.data = static_cast<unsigned char *>(heap->allocate(block.size, 16));
			ASSERT_NE(block.data, nullptr);
			block.write();
			blocks.push_back(block);
		}
	}
	for (const Block &block : blocks) {
		EXPECT_TRUE(block.intact());
		heap->deallocate(block.data, block.size, block.alignment);
	}
	EXPECT_EQ(heap->used(), 0U);
	EXPECT_TRUE(heap->check());
}

TEST(Memory, ThreadsShareIt)
{
	const Room room(1024 * page);
	const orbit::Memory memory = over(room);
	std::vector<std::thread> threads;

	for (unsigned thread = 0; thread < 4; thread++)
		threads.emplace_back([&memory, thread] {
			Random random(thread);
			std::vector<Block> blocks;

			for (unsigned i = 0; i < 10000 && !testing::Test::HasFatalFailure(); i++)
				step(memory.resource(), random, blocks, 50);
			free_all(memory.resource(), blocks);
		});
	for (std::thread &thread : threads)
		thread.join();
	EXPECT_EQ(memory.used(), 0U);
	EXPECT_TRUE(memory.check());
}

// What a child of fork() finds in which this is an orbit's process: 0 a whole heap that
// serves it, 1 one that refuses, 2 anything else; dies if it waits for a lock.
int in_a_snapshot(const orbit::Memory &memory)
{
	const pid_t pid = fork();

	if (!pid) {
		liborbit::in_orbit = true;
		alarm(60);

		orbit::MemoryResource *resource = memory.resource();
		std::array<void *, 300> blocks{};
		const bool whole = resource->whole();
		bool right = true;

		for (unsigned round = 0; round < 2; round++) {
			for (std::size_t i = 0; i < blocks.size(); i++) {
				blocks[i] = resource->try_allocate(i * 16);
				right = right && (blocks[i] != nullptr) == whole;
				if (blocks[i])
					std::memset(blocks[i], 0xff, i * 16);
			}
			for (std::size_t i = 0; i < blocks.size(); i++)
				if (blocks[i])
					resource->free(blocks[i], i * 16);
		}
		_exit(!right ? 2 : whole ? 0 : 1);
	}

	int status = 0;

	EXPECT_EQ(waitpid(pid, &status, 0), pid);
	return WIFEXITED(status) ? WEXITSTATUS(status) : 2;
}

TEST(Memory, ASnapshotHoldsNoLock)
{
	const Room room(2048 * page);
	const orbit::Memory memory = over(room);
	std::atomic<bool> stop = false;
	std::vector<std::thread> threads;
	std::array<unsigned, 3> seen{};

	for (unsigned thread = 0; thread < 2; thread++)
		threads.emplace_back([&, thread] {
			Random random(thread);
			std::vector<Block> blocks;

			while (!stop)
				step(memory.resource(), random, blocks, 50);
			free_all(memory.resource(), blocks);
		});

	// Whenever it comes, and then in quiet moments only.
	for (unsigned i = 0; i < 3000 && !seen[2] && !(i >= 50 && seen[0] && seen[1]); i++)
		seen.at(static_cast<std::size_t>(in_a_snapshot(memory)))++;
	EXPECT_GT(seen[0], 0U);
	EXPECT_GT(seen[1], 0U) << "no snapshot was taken in the middle of a change";
	EXPECT_EQ(seen[2], 0U);
	for (unsigned i = 0; i < 30 && !HasFailure(); i++) {
		const auto quiet = memory.quiesce();

		EXPECT_EQ(in_a_snapshot(memory), 0);
	}
	stop = true;
	for (std::thread &thread : threads)
		thread.join();
	EXPECT_EQ(memory.used(), 0U);
}

TEST(Memory, QuiesceKeepsOthersOut)
{
	const Room room(16 * page);
	orbit::Memory memory = over(room);
	std::atomic<bool> done = false;
	std::thread other;
	{
		const auto quiet = memory.quiesce();

		EXPECT_EQ(quiet.pools().size(), 0U); // none of these is a pool
		other = std::thread([&] {
			memory.resource()->free(memory.resource()->allocate(100), 100);
			done = true;
		});
		std::this_thread::sleep_for(std::chrono::milliseconds(50));
		EXPECT_FALSE(done);
	}
	other.join();
	EXPECT_TRUE(done);

	// It stays where it is when the Memory moves.
	orbit::MemoryResource *before = memory.resource();
	const orbit::Memory moved = std::move(memory);

	EXPECT_EQ(moved.resource(), before);
	before->free(before->allocate(100), 100);
}

} // namespace
