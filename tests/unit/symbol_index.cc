// SPDX-License-Identifier: MIT
//
// The index of the example system-map-audit: its changes, its journal, its check.
#include "../../examples/system-map-audit/symbol_index.h"

#include <algorithm>
#include <csignal>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <gtest/gtest.h>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <sys/time.h>
#include <utility>
#include <vector>

namespace {

using Key = std::pair<std::uint64_t, std::string>;
using Content = std::vector<Key>;

// Memory with an index in it.
class Memory {
public:
	explicit Memory(std::size_t bytes)
		: bytes_(bytes), data_(static_cast<std::byte *>(std::aligned_alloc(4096, bytes))),
		  index(new (data_.get()) SymbolIndex(bytes))
	{
	}

	std::vector<std::byte> save() const { return {data_.get(), data_.get() + bytes_}; }
	void restore(const std::vector<std::byte> &saved)
	{
		std::copy(saved.begin(), saved.end(), data_.get());
	}

private:
	struct Free {
		void operator()(std::byte *data) const { std::free(data); }
	};

	std::size_t bytes_;
	std::unique_ptr<std::byte, Free> data_;

public:
	SymbolIndex *index;
};

Content content(const SymbolIndex &index)
{
	Content all;

	index.for_each([&](std::uint64_t address, char, std::string_view name) {
		all.emplace_back(address, name);
	});
	return all;
}

std::uint64_t next(std::uint64_t &random)
{
	random = random * 6364136223846793005 + 1442695040888963407;
	return random >> 33;
}

} // namespace

// A friend of the index.
struct SymbolIndexTest : testing::Test {
	using Node = SymbolIndex::Node;

	static constexpr std::size_t kBytes = 64 << 10;

	Memory memory{kBytes};
	SymbolIndex &index = *memory.index;

	// Friendship is not inherited, so the tests get at it through these.
	std::uint64_t &count = index.count_;
	std::byte *&unused = index.unused_;
	Node &head = index.head_;
	std::size_t &journal_used = index.journal_used_;

	void fill(unsigned symbols)
	{
		for (unsigned n = 0; n < symbols; n++)
			ASSERT_TRUE(index.insert(n * 16, 'T', "symbol" + std::to_string(n)));
	}

	Node *node(unsigned place)
	{
		Node *at = head.next[0];

		while (place--)
			at = at->next[0];
		return at;
	}

	void damage_journal()
	{
		journal_used = 1;
		index.journal_[0] = {reinterpret_cast<void *>(64), 0};
	}

	unsigned faults() const { return index.check().faults; }

	// Makes the change, and undoes it from each moment that it went through.
	void undo_at_every_step(const std::function<bool()> &change, std::size_t least_words)
	{
		const Content before = content(index);
		const std::uint64_t version = index.version(), checksum = index.checksum();

		ASSERT_TRUE(change());

		const auto after = memory.save();
		const Content content_after = content(index);
		// What commit() emptied is still there; its last entry was the version.
		const auto *end = std::find_if(
			index.journal_, index.journal_ + SymbolIndex::kJournalWords,
			[&](const auto &entry) { return entry.word == &index.version_; });
		const auto words = static_cast<std::size_t>(end - index.journal_) + 1;

		ASSERT_LE(words, SymbolIndex::kJournalWords);
		EXPECT_GE(words, least_words);
		for (std::size_t made = 0; made <= words; made++) {
			for (bool noted : {false, true}) { // the next word's old value
				memory.restore(after);
				for (std::size_t n = words; n-- > made;)
					std::memcpy(index.journal_[n].word,
						    &index.journal_[n].old_value, 8);
				journal_used = made + (noted && made < words);
				EXPECT_EQ(faults(), journal_used ? SymbolIndex::kStructure : 0u);
				EXPECT_EQ(index.roll_back(), made + (noted && made < words));
				EXPECT_EQ(faults(), 0u) << made << " of " << words;
				EXPECT_EQ(content(index), before);
				EXPECT_EQ(index.version(), version);
				EXPECT_EQ(index.checksum(), checksum);
			}
		}
		memory.restore(after);
		EXPECT_EQ(faults(), 0u);
		EXPECT_EQ(content(index), content_after);
		EXPECT_EQ(index.version(), version + 1);
	}
};

namespace {

TEST_F(SymbolIndexTest, StartsEmpty)
{
	EXPECT_EQ(index.count(), 0u);
	EXPECT_EQ(index.checksum(), 0u);
	EXPECT_EQ(index.version(), 0u);
	EXPECT_EQ(index.roll_back(), 0u);
	EXPECT_EQ(index.check().symbols, 0u);
	EXPECT_EQ(faults(), 0u);
}

TEST_F(SymbolIndexTest, OrdersByAddressThenName)
{
	EXPECT_TRUE(index.insert(32, 'T', "c"));
	EXPECT_TRUE(index.insert(16, 't', "b"));
	EXPECT_TRUE(index.insert(32, 'D', "a"));
	EXPECT_TRUE(index.insert(UINT64_MAX, 'A', ""));
	EXPECT_EQ(content(index), (Content{{16, "b"}, {32, "a"}, {32, "c"}, {UINT64_MAX, ""}}));
	EXPECT_EQ(faults(), 0u);
}

TEST_F(SymbolIndexTest, RefusesWithoutAChange)
{
	fill(3);

	const auto before = memory.save();

	EXPECT_FALSE(index.insert(16, 'D', "symbol1"));
	EXPECT_FALSE(index.remove(16, "symbol2"));
	EXPECT_FALSE(index.rename(16, "symbol2", "other"));
	EXPECT_FALSE(index.rename(16, "symbol1", "symbol1"));
	EXPECT_FALSE(index.insert(1, 'T', std::string(SymbolIndex::kLongestName + 1, 'x')));
	EXPECT_EQ(memory.save(), before);
	EXPECT_TRUE(index.insert(1, 'T', std::string(SymbolIndex::kLongestName, 'x')));
	EXPECT_EQ(faults(), 0u);
}

TEST_F(SymbolIndexTest, UsesItsMemoryAgain)
{
	unsigned entered = 0;

	while (index.insert(entered, 'T', "symbol"))
		entered++;
	EXPECT_EQ(entered, (kBytes - sizeof(SymbolIndex)) / SymbolIndex::room_for(6));
	EXPECT_FALSE(index.rename(0, "symbol", "simbol"));
	for (unsigned round = 0; round < 3; round++) {
		EXPECT_TRUE(index.remove(round, "symbol"));
		EXPECT_EQ(faults(), 0u);
		EXPECT_TRUE(index.insert(round, 'T', "sIMBOL"));
		EXPECT_FALSE(index.insert(entered, 'T', "symbol"));
	}
	EXPECT_EQ(index.count(), entered);
	EXPECT_EQ(faults(), 0u);
}

TEST_F(SymbolIndexTest, AgreesWithAMapOverManyChanges)
{
	std::map<Key, char> model;
	std::uint64_t random = 7;

	for (unsigned round = 0; round < 20000; round++) {
		const Key key{next(random) % 64, std::string(next(random) % 3 * 16, 'n')};
		const Key renamed{key.first, std::string(next(random) % 3 * 16, 'n')};
		const bool known = model.contains(key);

		switch (next(random) % 3) {
		case 0:
			ASSERT_EQ(index.insert(key.first, 'T', key.second), !known);
			model[key] = 'T';
			break;
		case 1:
			ASSERT_EQ(index.remove(key.first, key.second), known);
			model.erase(key);
			break;
		case 2:
			ASSERT_EQ(index.rename(key.first, key.second, renamed.second),
				  known && !model.contains(renamed));
			if (known && !model.contains(renamed)) {
				model.erase(key);
				model[renamed] = 'T';
			}
			break;
		}
		ASSERT_EQ(faults(), 0u);
		ASSERT_EQ(index.count(), model.size());
	}

	Content expected;

	for (const auto &[key, type] : model)
		expected.push_back(key);
	EXPECT_EQ(content(index), expected);
}

TEST_F(SymbolIndexTest, UndoesAnInsertAtEveryStep)
{
	fill(20);
	undo_at_every_step([&] { return index.insert(1, 'T', "new memory"); }, 6);
	ASSERT_TRUE(index.remove(16 * 7, "symbol7"));
	ASSERT_TRUE(index.remove(16 * 9, "symbol9"));
	undo_at_every_step([&] { return index.insert(2, 'T', "reused"); }, 6);
}

TEST_F(SymbolIndexTest, UndoesARemoveAtEveryStep)
{
	fill(20);
	for (unsigned n : {0, 7, 19})
		undo_at_every_step(
			[&] { return index.remove(n * 16, "symbol" + std::to_string(n)); }, 6);
}

TEST_F(SymbolIndexTest, UndoesARenameAtEveryStep)
{
	fill(20);
	for (unsigned n = 0; n < 20; n++) {
		const std::string name = "symbol" + std::to_string(n);
		const std::string longer = name + " with quite another name";

		undo_at_every_step([&] { return index.rename(n * 16, name, longer); }, 11);
		undo_at_every_step([&] { return index.rename(n * 16, longer, name); }, 11);
	}
}

// What an orbit meets: the index as it is between any two instructions of a change.
struct Interruption {
	Memory *memory = nullptr;
	std::vector<std::byte> saved;
	unsigned count = 0, open = 0, faulty = 0;
};
Interruption interruption;

void audit_between_instructions(int)
{
	Interruption &it = interruption;

	std::memcpy(it.saved.data(), it.memory->index, it.saved.size());
	it.count++;
	it.open += it.memory->index->roll_back() != 0;
	it.faulty += it.memory->index->check().faults != 0;
	std::memcpy(static_cast<void *>(it.memory->index), it.saved.data(), it.saved.size());
}

TEST_F(SymbolIndexTest, UndoesAChangeInterruptedAnywhere)
{
	struct sigaction action {}, old_action;
	const itimerval often{{0, 500}, {0, 500}}, never{};
	std::uint64_t random = 1;

	interruption = {&memory, memory.save()};
	action.sa_handler = audit_between_instructions;
	action.sa_flags = SA_RESTART;
	ASSERT_EQ(sigaction(SIGALRM, &action, &old_action), 0);
	ASSERT_EQ(setitimer(ITIMER_REAL, &often, nullptr), 0);
	while (interruption.count < 1000) {
		const std::uint64_t address = next(random) % 100;

		if (!index.insert(address, 'T', "name") &&
		    !index.rename(address, "name", "another, longer name"))
			index.remove(address, next(random) % 2 ? "name" : "another, longer name");
	}
	ASSERT_EQ(setitimer(ITIMER_REAL, &never, nullptr), 0);
	ASSERT_EQ(sigaction(SIGALRM, &old_action, nullptr), 0);
	EXPECT_EQ(interruption.faulty, 0u);
	EXPECT_GT(interruption.open, 0u);
	EXPECT_EQ(faults(), 0u);
}

TEST_F(SymbolIndexTest, FindsSymbolsOutOfOrder)
{
	fill(20);
	node(5)->address = 16 * 17 + 1;
	EXPECT_TRUE(faults() & SymbolIndex::kOrder);
	EXPECT_TRUE(faults() & SymbolIndex::kChecksum);
}

TEST_F(SymbolIndexTest, FindsADuplicate)
{
	ASSERT_TRUE(index.insert(1, 'T', "same"));
	ASSERT_TRUE(index.insert(1, 'T', "samf"));
	ASSERT_EQ(faults(), 0u);
	reinterpret_cast<char *>(node(1) + 1)[3] = 'e';
	EXPECT_EQ(faults(), SymbolIndex::kDuplicate | SymbolIndex::kChecksum);
}

TEST_F(SymbolIndexTest, FindsAWrongCountAndChecksum)
{
	fill(20);
	count++;
	EXPECT_EQ(faults(), unsigned{SymbolIndex::kCount});
	count--;
	node(3)->type = 'D';
	EXPECT_EQ(faults(), unsigned{SymbolIndex::kChecksum});
}

TEST_F(SymbolIndexTest, FindsLostMemory)
{
	fill(20);
	unused += 16;
	EXPECT_EQ(faults(), unsigned{SymbolIndex::kSpace});
}

TEST_F(SymbolIndexTest, FindsWildLinks)
{
	fill(200);

	const auto good = memory.save();
	Node *wild[] = {reinterpret_cast<Node *>(16), reinterpret_cast<Node *>(UINTPTR_MAX),
			reinterpret_cast<Node *>(reinterpret_cast<char *>(node(1)) + 1),
			reinterpret_cast<Node *>(reinterpret_cast<char *>(&index) + kBytes - 16)};

	for (Node *to : wild) {
		node(5)->next[0] = to;
		EXPECT_TRUE(faults() & SymbolIndex::kStructure);
		memory.restore(good);
	}
	node(150)->next[0] = node(5); // a ring
	EXPECT_TRUE(faults() & SymbolIndex::kStructure);
	memory.restore(good);

	// A symbol that a higher level has lost.
	head.next[1] = head.next[1]->next[1];
	EXPECT_EQ(faults(), unsigned{SymbolIndex::kStructure});
}

TEST_F(SymbolIndexTest, FindsAnythingOverwritten)
{
	fill(20);

	const auto good = memory.save();

	for (int byte : {0x00, 0xa5, 0xff}) {
		std::memset(static_cast<void *>(&index), byte, kBytes);
		index.roll_back();
		EXPECT_TRUE(faults());
		memory.restore(good);
		// All but the header.
		std::memset(static_cast<void *>(&index + 1), byte, kBytes - sizeof(index));
		index.roll_back();
		EXPECT_TRUE(faults());
		memory.restore(good);
	}
	damage_journal();
	EXPECT_EQ(index.roll_back(), 0u);
	EXPECT_EQ(faults(), unsigned{SymbolIndex::kStructure});
}

} // namespace
