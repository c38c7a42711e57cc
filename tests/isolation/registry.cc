// SPDX-License-Identifier: MIT
//
// The registry: who calls finds what serves now, or nothing, and never what is gone.
#include <orbit/registry.hpp>

#include <atomic>
#include <gtest/gtest.h>
#include <thread>
#include <vector>

namespace {

using orbit::isolation::Registry;
using orbit::isolation::Slot;
using orbit::isolation::SlotTransport;
using orbit::isolation::Transport;

std::atomic<int> living;

// Its reply is its number, as long as it is there.
class Numbered final : public Transport {
public:
	explicit Numbered(int number) : number_(number) { living++; }
	~Numbered() override
	{
		number_ = -1;
		living--;
	}
	int call(std::uint32_t, std::span<const std::byte>, std::span<std::byte>, std::size_t *reply_bytes,
		 std::uint64_t) override
	{
		*reply_bytes = 0;
		return number_;
	}

private:
	int number_;
};

int call(Transport &transport)
{
	std::size_t bytes;

	return transport.call(1, {}, {}, &bytes, 1);
}

TEST(Registry, FindsByInterfaceAndName)
{
	Registry registry;
	const auto a = registry.slot(1, "a");

	EXPECT_EQ(registry.slot(1, "a"), a);
	EXPECT_NE(registry.slot(2, "a"), a);
	EXPECT_NE(registry.slot(1, "b"), a);
	EXPECT_EQ(registry.size(), 3U);
	registry.remove(1, "a");
	registry.remove(1, "c");
	EXPECT_EQ(registry.size(), 2U);
	EXPECT_NE(registry.slot(1, "a"), a) << "who has it keeps the old one";
}

TEST(Registry, ACallGoesToWhatServesThen)
{
	const auto slot = std::make_shared<Slot>();
	SlotTransport transport(slot);

	EXPECT_EQ(call(transport), -EHOSTDOWN);
	slot->change(std::make_shared<Numbered>(1));
	EXPECT_EQ(call(transport), 1);
	const auto held = slot->now();
	slot->change(std::make_shared<Numbered>(2));
	EXPECT_EQ(call(transport), 2);
	EXPECT_EQ(call(*held), 1) << "as long as it is held";
	EXPECT_EQ(living, 2);
	slot->change(nullptr);
	EXPECT_EQ(living, 1) << "nobody holds the other one";
	EXPECT_EQ(call(transport), -EHOSTDOWN);
}

TEST(Registry, NobodyFindsWhatIsGone)
{
	const auto slot = std::make_shared<Slot>();
	std::atomic<int> newest{1};
	std::atomic<bool> done{false};
	std::vector<std::thread> readers;

	slot->change(std::make_shared<Numbered>(1));
	for (int i = 0; i < 3; i++)
		readers.emplace_back([&] {
			SlotTransport transport(slot);
			int last = 0;

			while (!done) {
				const int least = newest;
				const int found = call(transport);

				EXPECT_GE(found, least) << "it was replaced before the call";
				EXPECT_GE(found, last);
				last = found;
			}
		});
	for (int i = 2; i <= 200; i++) {
		slot->change(std::make_shared<Numbered>(i));
		newest = i;
	}
	done = true;
	for (std::thread &reader : readers)
		reader.join();
	slot->change(nullptr);
	EXPECT_EQ(living, 0);
}

} // namespace
