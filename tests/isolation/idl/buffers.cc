// SPDX-License-Identifier: MIT
//
// Typed buffers through generated code, between two domains of a heap: moved, back, lent, and what happens to them when
// a call fails. Compiled and run by test_idl.py.
#include "rrefs.orbit.hpp"

#include <orbit/direct.hpp>

#include "../world.h"

#include <functional>

namespace {

using blocks::Block;

class Disk : public blocks::Disk {
public:
	explicit Disk(Endpoint &heap) : heap_(heap) {}

	orbit::result<orbit::rref<Block>> read(std::uint64_t lba, orbit::rref<Block> into) override
	{
		if (lba == 99)
			return orbit::failed(EIO);
		into->lba = lba;
		return into;
	}
	orbit::result<std::uint64_t> sum(const orbit::rref<Block> &from) override
	{
		std::uint64_t sum = from->lba;
		for (auto byte : from->data)
			sum += byte;
		return sum;
	}
	orbit::result<void> keep(orbit::rref<Block> first, orbit::rref<Block> second) override
	{
		kept.push_back(std::move(first));
		kept.push_back(std::move(second));
		return {};
	}
	orbit::result<std::size_t> count(const orbit::rref<std::uint32_t[]> &numbers) override
	{
		return numbers.size();
	}
	orbit::result<orbit::rref<Block>> give() override
	{
		auto block = heap_.make<Block>(orbit::Zone{0});
		if (!block)
			return orbit::failed(block.error().code());
		(*block)->lba = 7;
		return std::move(*block);
	}

	std::vector<orbit::rref<Block>> kept;

private:
	Endpoint &heap_;
};

// May lose a call before it arrives, or send it twice.
class Way final : public Transport {
public:
	explicit Way(std::shared_ptr<Skeleton> object) : object_(std::move(object)) {}
	int call(std::uint32_t method, std::span<const std::byte> args, std::span<std::byte> reply,
		 std::size_t *reply_bytes, std::uint64_t) override
	{
		if (lose)
			return -ETIMEDOUT;
		const int error = object_->dispatch(method, args, reply, reply_bytes);
		if (again) {
			std::byte other[1000];
			std::size_t n;
			again_error = object_->dispatch(method, args, other, &n);
		}
		return error;
	}
	bool lose = false, again = false;
	int again_error = 0;

private:
	std::shared_ptr<Skeleton> object_;
};

class D2_Buffers : public testing::Test {
protected:
	orbit::rref<Block> block(std::uint64_t lba)
	{
		auto made = caller.make<Block>(orbit::Zone{0});
		EXPECT_EQ(error_of(made), 0);
		(*made)->lba = lba;
		return std::move(*made);
	}

	World world{2};
	Endpoint &caller = *world.endpoints[1], &callee = *world.endpoints[2];
	std::shared_ptr<Disk> disk = std::make_shared<Disk>(callee);
	std::shared_ptr<Way> way = std::make_shared<Way>(std::make_shared<blocks::DiskSkeleton>(
		disk, Connection{.endpoint = &callee, .peer = 1}));
	blocks::DiskProxy proxy{way, Connection{.endpoint = &caller, .peer = 2}};
};

TEST_F(D2_Buffers, AreMovedThereAndBack)
{
	auto mine = block(1);
	const Block *at = &*mine;
	auto back = proxy.read(5, std::move(mine));
	ASSERT_EQ(error_of(back), 0);
	EXPECT_FALSE(mine);
	EXPECT_EQ((*back)->lba, 5u);
	EXPECT_EQ(&**back, at) << "moved, not copied";
	EXPECT_EQ((*proxy.give())->lba, 7u);
}

TEST_F(D2_Buffers, AreLentForTheCall)
{
	auto mine = block(3);
	mine->data[511] = 4;
	EXPECT_EQ(proxy.sum(mine).value(), 7u);
	EXPECT_EQ(proxy.sum(mine).value(), 7u) << "the loan has ended";
	EXPECT_EQ((*proxy.read(1, std::move(mine)))->lba, 1u);
	auto numbers = caller.make_array<std::uint32_t>(orbit::Zone{0}, 100);
	EXPECT_EQ(proxy.count(*numbers).value(), 100u);
}

TEST_F(D2_Buffers, OfACallThatFailsAreNotLost)
{
	// One of two cannot be moved: the other is taken back.
	for (int i = 0; i < 200; i++) {
		EXPECT_EQ(error_of(proxy.keep(block(1), {})), EINVAL);
		way->lose = true;
		EXPECT_EQ(error_of(proxy.keep(block(1), block(2))), ETIMEDOUT);
		way->lose = false;
		EXPECT_EQ(error_of(proxy.read(99, block(3))), EIO);
	}
	// The run has room for a few dozen.
	EXPECT_TRUE(disk->kept.empty());
	auto mine = block(4);
	way->lose = true;
	EXPECT_EQ(error_of(proxy.sum(mine)), ETIMEDOUT);
	way->lose = false;
	EXPECT_EQ(proxy.sum(mine).value(), 4u);
}

TEST_F(D2_Buffers, AMessageThatCameTwiceMovesOnce)
{
	way->again = true;
	EXPECT_EQ(error_of(proxy.keep(block(1), block(2))), 0);
	EXPECT_EQ(way->again_error, -ESTALE);
	EXPECT_EQ(disk->kept.size(), 2u);
}

TEST_F(D2_Buffers, NoneWithoutAHeap)
{
	blocks::DiskProxy without(way, Connection{.peer = 2});
	auto mine = block(1);
	EXPECT_EQ(error_of(without.sum(mine)), EOPNOTSUPP);
	EXPECT_EQ(error_of(without.read(1, std::move(mine))), EOPNOTSUPP);
}

} // namespace
