// SPDX-License-Identifier: MIT
//
// The caller's side of a block device: what becomes of its requests when the device's domain dies at any moment, or is mad.
// The device is an array, and its domain's deaths are played: its loans end, and another one begins.
#include "world.h"

#include "../../isolation/nvme/queue.h"

#include <algorithm>
#include <cerrno>
#include <map>
#include <orbit/pci.hpp>
#include <random>
#include <thread>

namespace {

using orbit::rref;
using orbit::block::Device;
using orbit::block::Finished;
using orbit::block::Limits;
using orbit::block::Op;
using orbit::block::Outcome;
using orbit::block::Queue;
using orbit::block::Request;
using orbit::block::Space;

constexpr DomainId caller = 1, driver = 2;
constexpr std::size_t block_bytes = 64;

// A device in a domain: it does what it was asked for some time later, in any order.
class Fake final : public Device, public Recovery {
public:
	enum class Death { none, before, between, after }; // of taking requests, of the others

	Fake(World &world, unsigned seed) : world_(world), random_(seed) {}

	orbit::result<Limits> limits() override { return Limits{}; }
	orbit::result<std::vector<Space>> spaces() override { return std::vector<Space>{}; }
	orbit::result<rref<std::byte[]>> read(std::uint32_t, std::uint64_t, std::uint32_t, rref<std::byte[]> into) override { return into; }
	orbit::result<void> write(std::uint32_t, std::uint64_t, std::uint32_t, const rref<std::byte[]> &) override { return {}; }
	orbit::result<void> flush(std::uint32_t) override { return {}; }

	orbit::result<std::vector<Outcome>> exchange(std::span<const Request> requests, std::uint32_t wait_for) override
	{
		if (down)
			return refused(-EHOSTDOWN, "down");
		if (refuse)
			return orbit::failed(refuse);
		if (busy) {
			busy--;
			return refused(-ETIMEDOUT, "waited behind others");
		}
		const Death death = next_death();

		if (death == Death::before)
			return die();
		for (const Request &request : requests)
			if (request.lba != withheld)
				taken_.push_back({request, world_[driver].borrow<std::byte[]>(request.data, caller)});
		if (death == Death::between)
			return die();

		std::vector<Outcome> outcomes;
		const std::size_t n = std::min<std::size_t>(taken_.size(), std::max<std::size_t>(wait_for, 1 + random_() % 8));

		for (std::size_t i = 0; i < n; i++) {
			const auto one = taken_.begin() + static_cast<std::ptrdiff_t>(random_() % taken_.size());

			outcomes.push_back({one->request.tag, carry_out(*one)});
			taken_.erase(one);
		}
		// What was done is done, but nobody knows.
		if (death == Death::after)
			return die();
		if (mad)
			for (std::uint64_t tag : {std::uint64_t{0}, ~std::uint64_t{0}, std::uint64_t{5} << 32, last_tag_})
				outcomes.push_back({tag, 0});
		if (!requests.empty())
			last_tag_ = outcomes.empty() ? 0 : outcomes[0].tag;
		return outcomes;
	}

	std::uint64_t starts() const noexcept override { return starts_; }
	std::uint64_t settled() override { return starts_; }
	void replace(std::uint64_t start) override
	{
		if (start == starts_ && !down)
			(void)die();
	}

	tl::unexpected<orbit::call_error> die()
	{
		taken_.clear();
		EXPECT_EQ(error_of(world_.heap.reclaim(driver)), 0);
		world_.heap.sweep();
		world_.start(driver, 16384);
		starts_++;
		deaths++;
		return refused(-ECONNRESET, "died");
	}

	unsigned deadly = 0; // percent of the calls
	bool always = false;
	bool down = false;
	bool mad = false;
	std::uint64_t withheld = ~std::uint64_t{0}; // the block whose requests never end
	int refuse = 0;
	int busy = 0;
	unsigned deaths = 0;
	std::map<std::uint64_t, std::byte> blocks;

private:
	struct Taken {
		Request request;
		orbit::result<orbit::borrowed<const std::byte[]>> data;
	};

	Death next_death()
	{
		if (always)
			return Death::between;
		// Not three times in a row: what kills so many ends with an error.
		if (in_a_row_ == 2 || random_() % 100 >= deadly) {
			in_a_row_ = 0;
			return Death::none;
		}
		in_a_row_++;
		return static_cast<Death>(1 + random_() % 3);
	}

	int carry_out(Taken &taken)
	{
		if (taken.request.op == Op::flush)
			return 0;
		if (!taken.data)
			return taken.data.error().code();
		const auto bytes = taken.data->get().elements();

		if (taken.request.op == Op::write)
			blocks[taken.request.lba] = bytes[0];
		else // by DMA
			std::fill_n(const_cast<std::byte *>(bytes.data()), bytes.size(), blocks[taken.request.lba]);
		return 0;
	}

	World &world_;
	std::mt19937 random_;
	std::vector<Taken> taken_;
	std::uint64_t starts_ = 1;
	std::uint64_t last_tag_ = 0;
	unsigned in_a_row_ = 0;
};

struct BlockQueue : testing::Test {
	rref<std::byte[]> buffer(std::byte value)
	{
		auto made = world[caller].make_array<std::byte>(zone, block_bytes);

		EXPECT_TRUE(made);
		std::ranges::fill(made->elements(), value);
		return std::move(*made);
	}
	Request request(std::uint64_t tag, Op op = Op::read)
	{
		return {.tag = tag, .lba = tag, .data = {}, .space = 1, .blocks = 1, .op = op};
	}

	World world{2};
	std::shared_ptr<Fake> device = std::make_shared<Fake>(world, 1);
	Queue queue{device, world[caller], driver, device, 32};
};

TEST_F(BlockQueue, EachRequestEndsOnceWhateverDies)
{
	constexpr unsigned requests = 3000, blocks = 40;
	std::mt19937 random(2);
	std::vector<std::byte> holds(blocks);
	std::vector<bool> busy(blocks);
	std::map<std::uint64_t, std::pair<unsigned, std::optional<std::byte>>> under_way;
	unsigned ended = 0;

	device->deadly = 20;
	for (unsigned tag = 0; ended < requests;) {
		const unsigned where = random() % blocks;

		if (tag < requests && !busy[where]) {
			const bool write = random() % 2;
			const auto value = static_cast<std::byte>(random());
			Request one = request(tag, write ? Op::write : Op::read);

			one.lba = where;
			if (queue.submit(one, buffer(write ? value : std::byte{0x11}))) {
				busy[where] = true;
				under_way[tag++] = {where, write ? std::optional(value) : std::nullopt};
				continue;
			}
		}
		for (const Finished &finished : queue.finish(random() % 4)) {
			const auto one = under_way.find(finished.tag);

			ASSERT_NE(one, under_way.end());
			EXPECT_EQ(finished.error, 0);
			const auto [at, value] = one->second;
			if (value)
				holds[at] = *value;
			ASSERT_TRUE(finished.data);
			EXPECT_EQ(finished.data[0], holds[at]);
			busy[at] = false;
			under_way.erase(one);
			ended++;
		}
	}
	EXPECT_GT(device->deaths, 50u);
	EXPECT_EQ(queue.repeats(), device->deaths);
	EXPECT_EQ(queue.under_way(), 0u);
	world[caller].collect();
	EXPECT_EQ(world.heap.census().lent[caller], 0u);
	EXPECT_EQ(world.heap.census().lost, 0u);
}

TEST_F(BlockQueue, ADeathThatOthersHaveNoticedIsOneToo)
{
	ASSERT_TRUE(queue.submit(request(1, Op::write), buffer(std::byte{7})));
	EXPECT_TRUE(queue.finish(0).size() <= 1);
	ASSERT_TRUE(queue.submit(request(2, Op::write), buffer(std::byte{8})));
	(void)device->die();
	std::size_t n = 0;
	for (int tries = 0; queue.under_way() && tries < 100; tries++)
		for (const Finished &finished : queue.finish(1)) {
			EXPECT_EQ(finished.error, 0);
			n++;
		}
	EXPECT_LE(n, 2u);
	EXPECT_EQ(device->blocks[1], std::byte{7});
	EXPECT_EQ(device->blocks[2], std::byte{8});
}

TEST_F(BlockQueue, WhatKillsEachDomainEndsWithAnError)
{
	device->always = true;
	for (std::uint64_t tag = 0; tag < 5; tag++)
		ASSERT_TRUE(queue.submit(request(tag), buffer(std::byte{0})));
	const auto finished = queue.finish(5);

	ASSERT_EQ(finished.size(), 5u);
	for (const Finished &one : finished) {
		EXPECT_EQ(one.error, ECONNRESET);
		EXPECT_TRUE(one.data);
	}
	EXPECT_EQ(device->deaths, 3u);
}

TEST_F(BlockQueue, WithoutADomainAllEndsWithAnError)
{
	ASSERT_TRUE(queue.submit(request(1), buffer(std::byte{0})));
	ASSERT_TRUE(queue.submit(request(2, Op::flush)));
	device->down = true;
	const auto finished = queue.finish(1);

	ASSERT_EQ(finished.size(), 2u);
	EXPECT_EQ(finished[0].error, EHOSTDOWN);
	EXPECT_EQ(queue.under_way(), 0u);
	// And what was lent is this side's again.
	EXPECT_EQ(error_of(world[caller].lend(finished[0].data, driver)), 0);
}

TEST_F(BlockQueue, ACallThatWasNotMadeIsMadeLater)
{
	ASSERT_TRUE(queue.submit(request(1, Op::write), buffer(std::byte{3})));
	device->busy = 1;
	EXPECT_TRUE(queue.finish(1).empty());
	EXPECT_EQ(queue.under_way(), 1u);
	const auto finished = queue.finish(1);

	ASSERT_EQ(finished.size(), 1u);
	EXPECT_EQ(finished[0].error, 0);
	EXPECT_EQ(device->blocks[1], std::byte{3});
}

TEST_F(BlockQueue, ADeviceThatRefusesTheCallRefusesItsRequests)
{
	ASSERT_TRUE(queue.submit(request(1), buffer(std::byte{3})));
	device->refuse = ENODEV;
	const auto finished = queue.finish(1);

	ASSERT_EQ(finished.size(), 1u);
	EXPECT_EQ(finished[0].error, ENODEV);
	EXPECT_EQ(error_of(world[caller].lend(finished[0].data, driver)), 0);
}

TEST_F(BlockQueue, WhatAMadDeviceSaysOfOthersRequestsCountsForNothing)
{
	unsigned ended = 0;

	device->mad = true;
	for (std::uint64_t tag = 0; tag < 300; tag++) {
		ASSERT_TRUE(queue.submit(request(tag), buffer(std::byte{3})));
		while (queue.under_way() == 32 || (tag == 299 && queue.under_way()))
			ended += static_cast<unsigned>(queue.finish(1).size());
	}
	EXPECT_EQ(ended, 300u);
}

TEST_F(BlockQueue, WhatNoDomainEndsHasAnEndAllTheSame)
{
	constexpr auto patience = std::chrono::milliseconds(20);
	Queue impatient{device, world[caller], driver, device, 32, patience};
	std::map<std::uint64_t, int> errors;
	const auto began = std::chrono::steady_clock::now();

	device->withheld = 3;
	for (std::uint64_t tag = 0; tag < 8; tag++)
		ASSERT_TRUE(impatient.submit(request(tag), buffer(std::byte{0})));
	while (impatient.under_way())
		for (const Finished &finished : impatient.finish(1)) {
			EXPECT_TRUE(errors.emplace(finished.tag, finished.error).second);
			// It is this side's alone, for the domain that had it is gone.
			EXPECT_EQ(error_of(world[caller].lend(finished.data, driver)), 0);
		}
	EXPECT_EQ(errors.size(), 8u);
	for (const auto &[tag, error] : errors)
		EXPECT_EQ(error, tag == 3 ? ETIMEDOUT : 0) << tag;
	EXPECT_EQ(device->deaths, 3u);
	EXPECT_GE(std::chrono::steady_clock::now() - began, 3 * patience);
}

TEST_F(BlockQueue, APauseOfTheCallerIsNotTheDomains)
{
	constexpr auto patience = std::chrono::milliseconds(400);
	Queue impatient{device, world[caller], driver, device, 32, patience};

	device->withheld = 3;
	ASSERT_TRUE(impatient.submit(request(3), buffer(std::byte{0})));
	EXPECT_TRUE(impatient.finish(0).empty());
	std::this_thread::sleep_for(2 * patience);
	EXPECT_TRUE(impatient.finish(0).empty());
	EXPECT_EQ(device->deaths, 0u);
	device->down = true; // so that it ends
}

TEST_F(BlockQueue, ABufferThatIsLentElsewhereEndsItsRequestOnly)
{
	World other(2);
	auto foreign = other[caller].make_array<std::byte>(zone, block_bytes);

	ASSERT_TRUE(foreign);
	ASSERT_TRUE(queue.submit(request(1), std::move(*foreign)));
	ASSERT_TRUE(queue.submit(request(2), buffer(std::byte{0})));
	std::map<std::uint64_t, int> errors;

	while (queue.under_way())
		for (const Finished &finished : queue.finish(1))
			errors[finished.tag] = finished.error;
	EXPECT_EQ(errors, (std::map<std::uint64_t, int>{{1, EINVAL}, {2, 0}}));
}

TEST_F(BlockQueue, TakesAsManyAsItHasRoomFor)
{
	for (std::uint64_t tag = 0; tag < 32; tag++)
		ASSERT_TRUE(queue.submit(request(tag), buffer(std::byte{0})));
	rref<std::byte[]> more = buffer(std::byte{0});

	EXPECT_EQ(error_of(queue.submit(request(32), std::move(more))), EAGAIN);
	EXPECT_TRUE(more);
}

TEST(PciAddress, IsAsLspciWritesIt)
{
	using orbit::pci::Address;

	EXPECT_EQ(Address::parse("0000:00:03.0")->text(), "0000:00:03.0");
	EXPECT_EQ(Address::parse("3a:1f.7")->text(), "0000:3a:1f.7");
	EXPECT_EQ(Address::parse("ffff:ff:1f.7")->text(), "ffff:ff:1f.7");
	for (const char *const text : {"", ":", "0", "00:00", "00:00.", "00:00.8", "00:20.0", "000:00:00.0", "00000:00:00.0", "0000:00:00.0 ",
				       " 0000:00:00.0", "0000:00:00.00", "0000:00:0.0", "0x00:00:00.0", "-000:00:00.0", "00:00:00.0", "a:b:c:d"})
		EXPECT_EQ(error_of(Address::parse(text)), EINVAL) << text;
}

} // namespace
