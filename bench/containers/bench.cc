// SPDX-License-Identifier: MIT
//
// What memory from orbit::Memory costs, against the C library's malloc() in the same run.
// The patterns are described in README.md.
#include <orbit/memory.hpp>

#include <benchmark/benchmark.h>

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <map>
#include <memory>
#include <memory_resource>
#include <random>
#include <string>
#include <sys/mman.h>
#include <utility>
#include <vector>

namespace {

constexpr std::size_t room = std::size_t{1} << 30; // of address space; what is used is less

// Called through the same virtual functions as the resource of a Memory.
class Malloc final : public std::pmr::memory_resource {
	void *do_allocate(std::size_t bytes, std::size_t) override { return std::malloc(bytes); }
	void do_deallocate(void *block, std::size_t, std::size_t) override { std::free(block); }
	bool do_is_equal(const memory_resource &other) const noexcept override
	{
		return this == &other;
	}
};

// Boost's allocator as it is, under a lock as ours.
class BoostAlone final : public std::pmr::memory_resource {
public:
	explicit BoostAlone(void *memory) : heap_(new (memory) Heap(room, 0)) {}

private:
	using Heap = boost::interprocess::rbtree_best_fit<boost::interprocess::null_mutex_family,
							  void *>;

	void *do_allocate(std::size_t bytes, std::size_t) override
	{
		const std::lock_guard guard(lock_);

		return heap_->allocate(bytes);
	}
	void do_deallocate(void *block, std::size_t, std::size_t) override
	{
		const std::lock_guard guard(lock_);

		heap_->deallocate(block);
	}
	bool do_is_equal(const memory_resource &other) const noexcept override
	{
		return this == &other;
	}

	std::mutex lock_;
	Heap *heap_;
};

// Memory like a pool's, without orbits: what is measured here is the allocator.
struct Room {
	Room()
		: data(static_cast<std::byte *>(mmap(nullptr, room, PROT_READ | PROT_WRITE,
						     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
						     -1, 0)))
	{
		if (data == MAP_FAILED)
			std::abort();
	}
	Room(const Room &) = delete;
	Room &operator=(const Room &) = delete;
	~Room() { munmap(data, room); }

	std::byte *data;
};

struct MallocSource {
	std::pmr::memory_resource *resource() { return &malloc_; }
	Malloc malloc_;
};

struct BoostSource {
	std::pmr::memory_resource *resource() { return &boost_; }
	Room room_;
	BoostAlone boost_{room_.data};
};

struct PoolSource {
	std::pmr::memory_resource *resource() { return memory_.resource(); }
	Room room_;
	orbit::Memory memory_ = std::move(*orbit::Memory::over({room_.data, room}));
};

// Three of four blocks up to 128 bytes, nearly all up to 1024, one of 128 up to 16 KiB.
std::vector<std::uint32_t> sizes()
{
	std::mt19937 random(7);
	std::vector<std::uint32_t> all(1 << 16);

	for (std::uint32_t &size : all) {
		const auto which = random() % 128;
		const auto most = which < 96 ? 128U : which < 127 ? 1024U : 16384U;

		size = 1 + static_cast<std::uint32_t>(random() % most);
	}
	return all;
}

// Replaces a random one of so many blocks by one of another size.
template <class Source> void replace(benchmark::State &state)
{
	struct Block {
		void *data;
		std::size_t size;
	};
	Source source;
	std::pmr::memory_resource *resource = source.resource();
	const std::vector<std::uint32_t> size = sizes();
	std::vector<Block> blocks(static_cast<std::size_t>(state.range(0)));
	std::minstd_rand random(1);
	std::size_t next = 0;

	for (Block &block : blocks) {
		block.size = size[next++ % size.size()];
		block.data = resource->allocate(block.size);
		*static_cast<char *>(block.data) = 1;
	}
	for (auto _ : state) {
		Block &block = blocks[random() % blocks.size()];

		resource->deallocate(block.data, block.size);
		block.size = size[next++ % size.size()];
		block.data = resource->allocate(block.size);
		*static_cast<char *>(block.data) = 1;
	}
	for (const Block &block : blocks)
		resource->deallocate(block.data, block.size);
	state.SetItemsProcessed(state.iterations());
}

// One block, and back: nothing but the allocator's shortest path.
template <class Source> void pair(benchmark::State &state)
{
	Source source;
	std::pmr::memory_resource *resource = source.resource();
	const auto size = static_cast<std::size_t>(state.range(0));

	for (auto _ : state) {
		void *block = resource->allocate(size);

		benchmark::DoNotOptimize(block);
		resource->deallocate(block, size);
	}
	state.SetItemsProcessed(state.iterations());
}

// A map of strings: inserts a random key, or erases it.
template <class Source> void map(benchmark::State &state)
{
	Source source;
	const auto keys = static_cast<std::uint32_t>(state.range(0));
	std::pmr::map<std::uint32_t, std::pmr::string> table(source.resource());
	std::minstd_rand random(1);

	for (std::uint32_t key = 0; key < keys; key += 2)
		table.try_emplace(key, 40, 'x');
	for (auto _ : state) {
		const auto key = static_cast<std::uint32_t>(random() % keys);
		const auto [at, fresh] = table.try_emplace(key, 16 + key % 64, 'x');

		if (!fresh)
			table.erase(at);
	}
	state.SetItemsProcessed(state.iterations());
}

// Vectors that grow from nothing to 64 KiB, all blocks on the way large and small.
template <class Source> void grow(benchmark::State &state)
{
	Source source;

	for (auto _ : state) {
		std::pmr::vector<std::uint64_t> vector(source.resource());

		for (std::uint64_t i = 0; i < 8192; i++)
			vector.push_back(i);
		benchmark::DoNotOptimize(vector.data());
	}
	state.SetItemsProcessed(state.iterations());
}

BENCHMARK(replace<MallocSource>)->Name("replace/malloc")->Arg(1000)->Arg(100000);
BENCHMARK(replace<PoolSource>)->Name("replace/pool")->Arg(1000)->Arg(100000);
BENCHMARK(replace<BoostSource>)->Name("replace/boost")->Arg(1000)->Arg(100000);
BENCHMARK(pair<MallocSource>)->Name("pair/malloc")->Arg(64)->Arg(4096);
BENCHMARK(pair<PoolSource>)->Name("pair/pool")->Arg(64)->Arg(4096);
BENCHMARK(pair<BoostSource>)->Name("pair/boost")->Arg(64)->Arg(4096);
BENCHMARK(map<MallocSource>)->Name("map/malloc")->Arg(1000)->Arg(100000);
BENCHMARK(map<PoolSource>)->Name("map/pool")->Arg(1000)->Arg(100000);
BENCHMARK(map<BoostSource>)->Name("map/boost")->Arg(1000)->Arg(100000);
BENCHMARK(grow<MallocSource>)->Name("grow/malloc");
BENCHMARK(grow<PoolSource>)->Name("grow/pool");
BENCHMARK(grow<BoostSource>)->Name("grow/boost");

} // namespace

BENCHMARK_MAIN();
