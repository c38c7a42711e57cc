// SPDX-License-Identifier: MIT
//
// Many calls under way in one thread. Compiled and run by test_idl.py.
#include "rrefs.orbit.hpp"

#include <orbit/direct.hpp>

#include "../world.h"

#include <stdexcept>
#include <thread>

namespace {

using blocks::Block;
using blocks::DiskCoroutines;
using orbit::Loop;
using orbit::rref;
using orbit::task;
using namespace std::chrono_literals;

class Disk : public blocks::Disk {
public:
	orbit::result<rref<Block>> read(std::uint64_t lba, rref<Block> into) override
	{
		if (lba == 99)
			return orbit::failed(EIO);
		into->lba = lba;
		return into;
	}
	orbit::result<std::uint64_t> sum(const rref<Block> &from) override { return from->lba + 1; }
	orbit::result<void> keep(rref<Block>, rref<Block>) override { return {}; }
	orbit::result<std::size_t> count(const rref<std::uint32_t[]> &numbers) override { return numbers.size(); }
	orbit::result<rref<Block>> give() override { return orbit::failed(ENOSPC); }
};

// A ring, which somebody serves if he is told to.
struct Way {
	explicit Way(World &world, std::chrono::nanoseconds timeout = 60s)
		: bytes(ring_bytes(shape)), memory(bytes),
		  ring(*RingTransport::create(*ring_memory(memory.span(), shape), shape)),
		  server(*RingServer::create(*ring_memory(memory.span(), shape), shape)),
		  skeleton(std::make_shared<Disk>(), Connection{.endpoint = &world[2], .peer = 1}),
		  disk(ring, Connection{.endpoint = &world[1], .peer = 2, .timeout = timeout})
	{
	}
	~Way()
	{
		server->end(-ECANCELED);
		if (serving.joinable())
			serving.join();
	}
	void serve()
	{
		serving = std::thread([this] { server->serve(skeleton); });
	}

	static constexpr RingShape shape{.slots = 8, .message_bytes = 256, .spins = 100};
	std::size_t bytes;
	Memory memory;
	std::shared_ptr<RingTransport> ring;
	std::shared_ptr<RingServer> server;
	blocks::DiskSkeleton skeleton;
	DiskCoroutines disk;
	std::thread serving;
};

task<std::uint64_t> read_and_sum(DiskCoroutines &disk, Endpoint &heap, std::uint64_t lba)
{
	auto block = co_await disk.read(lba, std::move(*heap.make<Block>(orbit::Zone{0})));
	if (!block)
		throw std::runtime_error(block.error().message());
	co_return (co_await disk.sum(*block)).value();
}

task<void> many(DiskCoroutines &disk, Endpoint &heap, std::uint64_t first, std::uint64_t &total)
{
	for (std::uint64_t i = 0; i < 5; i++)
		total += co_await read_and_sum(disk, heap, first + i);
}

task<void> ends_with(DiskCoroutines &disk, rref<Block> &block, int &error)
{
	const auto done = co_await disk.sum(block);
	error = done ? 0 : done.error().from_method() ? -1 : done.error().code();
}

TEST(Coroutines, MoreCallsThanSlotsAreUnderWayInOneThread)
{
	World world(2, 1 << 17);
	Way way(world);
	Loop loop;
	std::uint64_t total = 0;

	for (std::uint64_t i = 0; i < 32; i++)
		loop.spawn(many(way.disk, world[1], i * 100 + 1000, total));
	EXPECT_EQ(loop.waiting(), 32u); // nobody serves so far
	way.serve();
	loop.run();
	std::uint64_t wanted = 0;
	for (std::uint64_t i = 0; i < 32; i++)
		for (std::uint64_t j = 0; j < 5; j++)
			wanted += i * 100 + 1000 + j + 1;
	EXPECT_EQ(total, wanted);
	EXPECT_EQ(loop.waiting(), 0u);
	EXPECT_EQ(world.heap.census().lost, 0u);
	EXPECT_EQ(world.heap.census().owned[2], 0u);
}

TEST(Coroutines, ErrorsAndExceptionsComeOutWhereOneWaits)
{
	World world(2);
	Way way(world);
	Loop loop;

	way.serve();
	EXPECT_EQ(loop.run(read_and_sum(way.disk, world[1], 6)), 7u);
	EXPECT_THROW(loop.run(read_and_sum(way.disk, world[1], 99)), std::runtime_error);
	const auto given = loop.run(way.disk.give());
	ASSERT_FALSE(given);
	EXPECT_TRUE(given.error().from_method());
	std::uint64_t total = 0;
	loop.spawn(many(way.disk, world[1], 95, total));
	EXPECT_THROW(loop.run(), std::runtime_error);
}

TEST(Coroutines, WithoutARingACallIsACall)
{
	World world(2);
	DiskCoroutines disk(std::make_shared<DirectTransport>(std::make_shared<blocks::DiskSkeleton>(
				    std::make_shared<Disk>(), Connection{.endpoint = &world[2], .peer = 1})),
			    Connection{.endpoint = &world[1], .peer = 2});
	Loop loop;

	EXPECT_EQ(loop.run(read_and_sum(disk, world[1], 6)), 7u);
}

TEST(D3_CleanEnd, CallsOfADeadServerEndAndSoDoesTheLoop)
{
	World world(2);
	Way way(world);
	Loop loop;
	std::vector<rref<Block>> blocks;
	int errors[12] = {};

	for (int i = 0; i < 12; i++)
		blocks.push_back(std::move(*world[1].make<Block>(orbit::Zone{0})));
	for (int i = 0; i < 12; i++)
		loop.spawn(ends_with(way.disk, blocks[static_cast<std::size_t>(i)], errors[i]));
	std::thread other([&] {
		std::this_thread::sleep_for(20ms);
		way.ring->end(-EOWNERDEAD);
	});
	loop.run();
	other.join();
	for (const int error : errors)
		EXPECT_EQ(error, EOWNERDEAD);
}

TEST(D6_NothingHangs, ASilentServerBesideOneThatAnswers)
{
	World world(2);
	Way silent(world, 500ms), way(world);
	Loop loop;
	auto block = std::move(*world[1].make<Block>(orbit::Zone{0}));
	int error = 0;
	bool end = false;
	std::uint64_t calls = 0;

	way.serve();
	loop.spawn([](DiskCoroutines &disk, Endpoint &heap, const bool &ends, std::uint64_t &n) -> task<void> {
		while (!ends)
			n += co_await read_and_sum(disk, heap, 0);
	}(way.disk, world[1], end, calls));
	loop.spawn([](DiskCoroutines &disk, rref<Block> &from, int &code, bool &ends) -> task<void> {
		co_await ends_with(disk, from, code);
		ends = true;
	}(silent.disk, block, error, end));
	loop.run();
	EXPECT_EQ(error, ETIMEDOUT);
	EXPECT_GT(calls, 0u); // how many is the machine's affair
	EXPECT_EQ(silent.ring->abandoned(), 1u);
	// More than there are slots, of which none becomes free.
	for (int i = 0; i < 12; i++)
		loop.spawn([](DiskCoroutines &disk, const rref<std::uint32_t[]> &none) -> task<void> {
			co_await disk.count(none);
			co_await disk.give();
		}(silent.disk, {}));
	loop.run();
	EXPECT_EQ(silent.ring->abandoned(), 8u);
}

TEST(D6_NothingHangs, WhatIsDestroyedWhileItWaitsIsAbandoned)
{
	World world(2);
	Way way(world);
	auto block = std::move(*world[1].make<Block>(orbit::Zone{0}));
	int error = -7;
	{
		Loop loop;
		for (int i = 0; i < 1; i++)
			loop.spawn(ends_with(way.disk, block, error));
		EXPECT_EQ(loop.waiting(), 1u);
	}
	EXPECT_EQ(error, -7);
	EXPECT_EQ(way.ring->abandoned(), 1u);
	EXPECT_EQ(error_of(world[1].send(std::move(block), 2)), 0); // it is lent no more
}

} // namespace
