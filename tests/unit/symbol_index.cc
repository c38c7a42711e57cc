// SPDX-License-Identifier: MIT
//
// The index of the example system-map-audit: its changes and its check.
#include "../../examples/system-map-audit/symbol_index.h"

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <gtest/gtest.h>
#include <map>
#include <memory_resource>
#include <new>
#include <random>
#include <string>
#include <string_view>
#include <utility>

struct SymbolIndexTest {
	static auto &symbols(SymbolIndex &index) { return index.symbols_; }
	static std::uint64_t &count(SymbolIndex &index) { return index.count_; }
	static std::uint64_t &checksum(SymbolIndex &index) { return index.checksum_; }
};

namespace {

using Model = std::map<std::pair<std::uint64_t, std::string>, char>;

void expect_same(const SymbolIndex &index, const Model &model)
{
	auto next = model.begin();

	index.for_each([&](std::uint64_t address, char type, std::string_view name) {
		ASSERT_NE(next, model.end());
		EXPECT_EQ(next->first, std::pair(address, std::string(name)));
		EXPECT_EQ(next->second, type);
		++next;
	});
	EXPECT_EQ(next, model.end());
	EXPECT_EQ(index.count(), model.size());
	EXPECT_EQ(index.check().symbols, model.size());
	EXPECT_EQ(index.check().faults, 0U);
}

TEST(SymbolIndex, RandomChangesAgainstAModel)
{
	SymbolIndex index({});
	Model model;
	std::mt19937 random(1);
	std::uint64_t changes = 0;
	const auto name = [&] {
		return std::string(1 + random() % 60, static_cast<char>('a' + random() % 3));
	};

	for (unsigned i = 0; i < 20000; i++) {
		const std::uint64_t address = random() % 40;
		const std::string one = name(), other = name();
		const char type = static_cast<char>('A' + random() % 26);
		const auto found = model.find({address, one});
		const bool present = found != model.end();
		bool done = false;

		switch (random() % 3) {
		case 0:
			done = !present;
			EXPECT_EQ(index.insert(address, type, one), done);
			model.emplace(std::pair(address, one), type);
			break;
		case 1:
			done = present;
			EXPECT_EQ(index.remove(address, one), done);
			model.erase({address, one});
			break;
		default:
			done = present && !model.contains({address, other});
			EXPECT_EQ(index.rename(address, one, other), done);
			if (done) {
				model.emplace(std::pair(address, other), found->second);
				model.erase({address, one});
			}
		}
		changes += done;
		if (i % 1000 == 0)
			expect_same(index, model);
	}
	expect_same(index, model);
	EXPECT_EQ(index.version(), changes);
}

TEST(SymbolIndex, WithoutMemoryNothingChanges)
{
	std::array<std::byte, 4096> room{};
	std::pmr::monotonic_buffer_resource memory(room.data(), room.size(),
						   std::pmr::null_memory_resource());
	SymbolIndex index(&memory);
	Model model;
	std::uint64_t next = 0;

	for (bool full = false; !full;) {
		const std::string name(20 + next % 50, 'x');

		try {
			EXPECT_TRUE(index.insert(next, 'T', name));
			model.emplace(std::pair(next++, name), 'T');
		} catch (const std::bad_alloc &) {
			full = true;
		}
	}
	EXPECT_GT(next, 10U);
	EXPECT_THROW(index.rename(0, std::string(20, 'x'), std::string(300, 'y')), std::bad_alloc);
	expect_same(index, model);
}

TEST(SymbolIndex, CheckSeesWhatIsWrong)
{
	SymbolIndex index({});

	for (std::uint64_t address = 0; address < 10; address++)
		index.insert(address, 'T', "name" + std::to_string(address));
	EXPECT_EQ(index.check().faults, 0U);

	auto &symbols = SymbolIndexTest::symbols(index);

	SymbolIndexTest::count(index)++;
	EXPECT_EQ(index.check().faults, SymbolIndex::kCount);
	SymbolIndexTest::count(index)--;

	SymbolIndexTest::checksum(index)++;
	EXPECT_EQ(index.check().faults, SymbolIndex::kChecksum);
	SymbolIndexTest::checksum(index)--;

	symbols.begin()->second = 'U';
	EXPECT_EQ(index.check().faults, SymbolIndex::kChecksum);
	symbols.begin()->second = 'T';

	// As a wild write would, not as a map's user can.
	auto &address = const_cast<std::uint64_t &>(symbols.begin()->first.first);

	address = 5;
	EXPECT_EQ(index.check().faults, SymbolIndex::kOrder | SymbolIndex::kChecksum);
	address = 0;
	EXPECT_EQ(index.check().faults, 0U);
}

} // namespace
