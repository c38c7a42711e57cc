// SPDX-License-Identifier: MIT
//
// The detector of the example mysql-deadlock: the same cycles as found by looking at everything, and the same victims
// as the servers choose.
#include "../../examples/mysql-deadlock/detector/detector.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <gtest/gtest.h>
#include <map>
#include <random>
#include <set>
#include <vector>

namespace {

using deadlock::Deadlock;
using deadlock::Detector;
using deadlock::Rule;
using deadlock::Wait;
using deadlock::Waits;

// Memory as a pool has it.
class Memory {
public:
	explicit Memory(std::size_t slots) : words_((slots + 1) * sizeof(Wait) / sizeof(std::uint64_t)) {}
	void *data() { return words_.data(); }
	std::size_t bytes() const { return words_.size() * sizeof(std::uint64_t); }

private:
	std::vector<std::uint64_t> words_;
};

// A transaction as a server has it: it points to the one it waits for.
struct Transaction {
	Transaction *waits_for = nullptr;
	std::uint64_t number = 0;
	std::uint64_t weight = 0;
	std::uint32_t slot = deadlock::no_slot;

	std::uint64_t name() const { return reinterpret_cast<std::uintptr_t>(this); }
};

// Brent's search, from a transaction that is on a cycle: where it ends.
Transaction *where_brent_ends(Transaction *begin)
{
	Transaction *slow = begin, *fast = begin->waits_for;
	std::size_t steps = 1;

	for (std::size_t most = 1; slow != fast; fast = fast->waits_for, steps++) {
		if (steps == most) {
			slow = fast;
			most *= 2;
			steps = 0;
		}
	}
	return fast;
}

// All on a cycle, the one that came last in front.
std::vector<Transaction *> cycle_of(Transaction *member)
{
	std::vector<Transaction *> cycle = {member};

	for (Transaction *at = member->waits_for; at != member; at = at->waits_for)
		cycle.push_back(at);
	std::rotate(cycle.begin(),
		    std::max_element(cycle.begin(), cycle.end(),
				     [](const Transaction *a, const Transaction *b) { return a->number < b->number; }),
		    cycle.end());
	return cycle;
}

// MariaDB goes around the cycle from where its search ended. Less weight wins, then the one whose wait closed the cycle,
// then who is met first.
Transaction *victim_of_mariadb(const std::vector<Transaction *> &cycle)
{
	Transaction *latest = cycle[0], *end = where_brent_ends(latest), *victim = end;
	const auto rank = [&](const Transaction *t) { return t->weight * 2 + (t != latest); };

	for (Transaction *at = end->waits_for; at != end; at = at->waits_for)
		if (rank(at) < rank(victim))
			victim = at;
	return victim;
}

// MySQL goes around until the latest, and who is not heavier than the candidate takes its place.
Transaction *victim_of_mysql(std::vector<Transaction *> cycle)
{
	std::rotate(cycle.begin(), cycle.begin() + 1, cycle.end());

	Transaction *victim = cycle[0];

	for (Transaction *candidate : cycle)
		if (victim->weight >= candidate->weight)
			victim = candidate;
	return victim;
}

// Whether one comes back to where one was.
bool is_on_cycle(const Transaction *t, std::size_t all)
{
	const Transaction *at = t->waits_for;

	for (std::size_t i = 0; i < all && at && at != t; i++)
		at = at->waits_for;
	return at == t;
}

// Compare what is found with what there is; how much that is.
std::size_t expect_all(Detector &detector, Memory &memory, std::vector<Transaction> &all, Rule rule)
{
	std::map<Transaction *, std::vector<Transaction *>> expected; // by the latest
	std::set<Transaction *> found;

	for (Transaction &t : all) {
		if (is_on_cycle(&t, all.size())) {
			const auto cycle = cycle_of(&t);

			expected[cycle[0]] = cycle;
		}
	}
	for (const Deadlock &d : detector.find(memory.data(), memory.bytes(), rule, SIZE_MAX)) {
		const auto at = std::find_if(all.begin(), all.end(), [&](const Transaction &t) {
			return t.slot == d.latest && t.number == d.latest_number;
		});

		if (at == all.end() || !expected.contains(&*at) || !found.insert(&*at).second) {
			ADD_FAILURE() << "that is none, or it was found twice";
			break;
		}

		const auto &cycle = expected[&*at];
		const Transaction *victim = rule == Rule::mariadb ? victim_of_mariadb(cycle) : victim_of_mysql(cycle);

		EXPECT_EQ(d.length, cycle.size());
		EXPECT_EQ(d.victim, victim->slot);
		EXPECT_EQ(d.victim_number, victim->number);
	}
	EXPECT_EQ(found.size(), expected.size());
	return found.size();
}

// What a server does: in any order transactions begin to wait, wait for others, and go on.
void build(std::mt19937_64 &random, Waits &waits, std::vector<Transaction> &all, unsigned steps)
{
	const auto any = [&]() -> Transaction & { return all[random() % all.size()]; };

	for (unsigned i = 0; i < steps; i++) {
		Transaction &t = any();
		Transaction *other = &any();

		if (random() % 64 && other == &t) // hardly ever for itself
			other = nullptr;
		if (t.slot == deadlock::no_slot) {
			t.weight = random() % 3 ? random() % 4 : random() >> 2;
			t.waits_for = other;
			t.slot = waits.begin(t.name(), other ? other->name() : 0, t.weight);
			ASSERT_NE(t.slot, deadlock::no_slot);
			t.number = waits.number(t.slot);
		} else if (random() % 4) {
			t.waits_for = other;
			waits.change(t.slot, other ? other->name() : 0);
		} else {
			waits.end(t.slot);
			t = {};
		}
	}
}

TEST(DeadlockDetector, FindsWhatBruteForceFindsIn100000Graphs)
{
	std::mt19937_64 random(18);
	Detector detector; // one for all: nothing of the last graph is left in it
	std::size_t found = 0;

	for (unsigned i = 0; i < 100'000 && !HasFailure(); i++) {
		std::vector<Transaction> all(1 + random() % (i % 1000 ? 12 : 200));
		Memory memory(all.size());
		Waits waits(memory.data(), memory.bytes());

		build(random, waits, all, static_cast<unsigned>(random() % (4 * all.size() + 1)));
		found += expect_all(detector, memory, all, i % 2 ? Rule::mariadb : Rule::mysql);
		ASSERT_LE(waits.used(), all.size());
	}
	EXPECT_GT(found, 10'000U);
}

TEST(DeadlockDetector, ChoosesTheServersVictimOfEveryLength)
{
	std::mt19937_64 random(1);
	Detector detector;

	for (std::size_t length = 1; length <= 70; length++) {
		for (unsigned i = 0; i < 10; i++) {
			std::vector<Transaction> all(length);
			Memory memory(length);
			Waits waits(memory.data(), memory.bytes());
			std::vector<std::size_t> order(length);

			for (std::size_t at = 0; at < length; at++)
				order[at] = at;
			std::shuffle(order.begin(), order.end(), random);
			for (const std::size_t at : order) {
				Transaction &t = all[at];

				t.waits_for = &all[(at + 1) % length];
				t.weight = random() % 2;
				t.slot = waits.begin(t.name(), t.waits_for->name(), t.weight);
				t.number = waits.number(t.slot);
			}
			for (const Rule rule : {Rule::mariadb, Rule::mysql})
				EXPECT_EQ(expect_all(detector, memory, all, rule), 1U);
		}
	}
}

TEST(DeadlockDetector, StopsAtTheNumberThatWasAskedFor)
{
	Memory memory(20);
	Waits waits(memory.data(), memory.bytes());
	Detector detector;

	for (std::uint64_t name = 1; name <= 20; name++) // pairs
		waits.begin(name, ((name - 1) ^ 1) + 1, name);
	EXPECT_EQ(detector.find(memory.data(), memory.bytes(), Rule::mariadb, 100).size(), 10U);
	EXPECT_EQ(detector.find(memory.data(), memory.bytes(), Rule::mariadb, 3).size(), 3U);
	EXPECT_EQ(detector.find(memory.data(), memory.bytes(), Rule::mariadb, 0).size(), 0U);
}

TEST(DeadlockDetector, ReadsNothingBeyondTheMemory)
{
	Detector detector;

	for (std::size_t bytes = 0; bytes < 4 * sizeof(Wait); bytes++) {
		const std::vector<unsigned char> memory(bytes, 0xff); // exactly so much, for AddressSanitizer
		const auto found = detector.find(memory.data(), bytes, Rule::mariadb, 10);

		// All names are the same: the first waits for itself.
		EXPECT_EQ(found.size(), bytes < 2 * sizeof(Wait) ? 0U : 1U);
	}
}

TEST(DeadlockWaits, SaysThatThereIsNoSlotLeft)
{
	Memory memory(2);
	Waits waits(memory.data(), memory.bytes());

	EXPECT_EQ(waits.slots(), 2U);
	EXPECT_EQ(waits.begin(1, 2, 0), 0U);
	EXPECT_EQ(waits.begin(2, 1, 0), 1U);
	EXPECT_EQ(waits.begin(3, 1, 0), deadlock::no_slot);
	EXPECT_EQ(waits.nr(), 2U);
	waits.end(0);
	EXPECT_EQ(waits.number(0), 0U);
	EXPECT_EQ(waits.begin(3, 1, 0), 0U);
	EXPECT_EQ(waits.number(0), 3U);
	EXPECT_EQ(waits.number(2), 0U);
	EXPECT_EQ(waits.number(UINT64_MAX), 0U);
}

TEST(DeadlockWaits, AnotherWaitInTheSameSlotHasAnotherNumber)
{
	Memory memory(1);
	Waits waits(memory.data(), memory.bytes());
	std::set<std::uint64_t> numbers;

	for (unsigned i = 0; i < 100; i++) {
		const std::uint32_t slot = waits.begin(7, 8, 0);

		EXPECT_TRUE(numbers.insert(waits.number(slot)).second);
		waits.end(slot);
	}
	EXPECT_EQ(waits.used(), 1U);
	EXPECT_EQ(waits.bytes(), 2 * sizeof(Wait));
}

TEST(DeadlockWaits, KnowsWhoIsWaitedFor)
{
	Memory memory(2000);
	Waits waits(memory.data(), memory.bytes());
	const std::uint32_t slot = waits.begin(1, 2, 0);

	waits.begin(3, 4, 0);
	EXPECT_TRUE(waits.is_waited_for(2));
	EXPECT_TRUE(waits.is_waited_for(4));
	EXPECT_FALSE(waits.is_waited_for(1));
	waits.change(slot, 5);
	EXPECT_FALSE(waits.is_waited_for(2));
	EXPECT_TRUE(waits.is_waited_for(5));
	waits.end(slot);
	EXPECT_FALSE(waits.is_waited_for(5));
	// Where it would have to look at many, the detector is asked.
	for (std::uint64_t i = 0; i < 1100; i++)
		waits.begin(10 + i, 4, 0);
	EXPECT_TRUE(waits.is_waited_for(1));
}

TEST(DeadlockWaits, HasNoSlotWhereThereIsNoRoom)
{
	for (const std::size_t bytes : {std::size_t{0}, sizeof(Wait), 2 * sizeof(Wait) - 1})
		EXPECT_EQ(deadlock::slots_of(bytes), 0U);
	EXPECT_EQ(deadlock::slots_of(2 * sizeof(Wait)), 1U);
	EXPECT_LT(deadlock::slots_of(SIZE_MAX), deadlock::no_slot);
}

// What a MySQL server asked during some 200 deadlocks, 24 transactions at a time at most, and the victims, which were those of its own
// rule (other_victims stayed 0).
struct Recorded {
	std::vector<Wait> waits;
	std::vector<Deadlock> found;
};

const std::vector<Recorded> recorded = {
#include "deadlock_recorded.inc"
};

TEST(DeadlockDetector, AnswersWhatMySqlAskedAsMySqlDid)
{
	Detector detector;
	std::size_t deadlocks = 0;

	ASSERT_GE(recorded.size(), 100U);
	for (const Recorded &asked : recorded) {
		std::vector<Wait> memory(1 + asked.waits.size());
		const deadlock::Header header{asked.waits.size(), {}};

		std::memcpy(memory.data(), &header, sizeof(header));
		std::copy(asked.waits.begin(), asked.waits.end(), memory.begin() + 1);

		const auto found = detector.find(memory.data(), memory.size() * sizeof(Wait), Rule::mysql, SIZE_MAX);

		ASSERT_EQ(found.size(), asked.found.size());
		for (std::size_t i = 0; i < found.size(); i++) {
			EXPECT_EQ(found[i].victim_number, asked.found[i].victim_number);
			EXPECT_EQ(found[i].victim, asked.found[i].victim);
			EXPECT_EQ(found[i].latest, asked.found[i].latest);
			EXPECT_EQ(found[i].length, asked.found[i].length);
		}
		deadlocks += found.size();
	}
	EXPECT_GE(deadlocks, 100U);
}

} // namespace
