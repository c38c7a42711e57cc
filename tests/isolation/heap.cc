// SPDX-License-Identifier: MIT
//
// Buffers, moves and loans, and what is refused: domains of one process, of which some lie.
#include "world.h"

#include <cerrno>
#include <csignal>
#include <cstdint>
#include <cstring>
#include <random>
#include <sys/wait.h>
#include <thread>
#include <utility>

namespace {

enum class Op : std::uint32_t { read = 1, write = 5 };
struct Request {
	std::uint64_t lba;
	Op op;
	bool urgent;
};
struct Block {
	std::array<std::byte, 65536> bytes;
};
struct Padded {
	char a;
	double b;
	bool flags[3];
};

} // namespace

template <> inline constexpr std::array orbit::enumerators<Op>{Op::read, Op::write};

namespace {

using orbit::rref;

// What a process that is no more would have had: it never ends, and leaks by intent.
template <class T> void leave(T what)
{
	static auto *left = new std::vector<T>;

	left->push_back(std::move(what));
}

// Domain 1 owns a buffer, and 2 has received it.
rref<int> moved(World &world, int value = 7)
{
	auto buffer = world[1].make<int>(zone, value);
	auto handle = world[1].send(std::move(*buffer), 2);

	return std::move(*world[2].receive<int>(*handle, 1));
}

TEST(D2_OneOwner, ABufferMovesAndTheSendersRrefIsEmpty)
{
	World world(3);
	auto buffer = world[1].make<Request>(zone, {17, Op::write, true});

	ASSERT_TRUE(buffer);
	const auto handle = world[1].send(std::move(*buffer), 2);
	ASSERT_TRUE(handle);
	EXPECT_FALSE(*buffer);
	EXPECT_EQ(error_of(world[1].send(std::move(*buffer), 2)), EINVAL);
	auto received = world[2].receive<Request>(*handle, 1);
	ASSERT_TRUE(received);
	EXPECT_EQ((*received)->lba, 17u);
	EXPECT_EQ(received->fetch()->op, Op::write);
	EXPECT_EQ(world.heap.census().owned[2], 1u);
	EXPECT_EQ(world.heap.census().buffers, 1u);
}

TEST(D2_OneOwner, ThroughManyHandsAndBack)
{
	World world(5);
	auto buffer = world[1].make<std::uint64_t>(zone, 1);
	DomainId at = 1;
	std::mt19937 random(1);

	for (int i = 0; i < 20000; i++) {
		DomainId to = 1 + random() % 5;
		if (to == at)
			continue;
		const auto handle = world[at].send(std::move(*buffer), to);
		ASSERT_TRUE(handle) << handle.error().message();
		buffer = world[to].receive<std::uint64_t>(*handle, at);
		ASSERT_TRUE(buffer) << i << buffer.error().message();
		EXPECT_EQ(error_of(world[to].receive<std::uint64_t>(*handle, at)), ESTALE);
		at = to;
		++**buffer;
	}
	const Census census = world.heap.census();
	EXPECT_EQ(census.owned[at], 1u);
	EXPECT_EQ(census.twice + census.lost + census.in_flight, 0u);
}

TEST(D2_OneOwner, WhatIsDroppedElsewhereComesHome)
{
	World world(3);

	for (int round = 0; round < 10; round++) {
		std::vector<rref<std::array<int, 64>>> held;
		for (;;) {
			auto buffer = world[1].make<std::array<int, 64>>(zone);
			if (!buffer) {
				EXPECT_EQ(error_of(buffer), ENOSPC);
				break;
			}
			auto sent = world[1].send(std::move(*buffer), 2);
			auto received = world[2].receive<std::array<int, 64>>(*sent, 1);
			if (held.size() % 2) {
				sent = world[2].send(std::move(*received), 3);
				received = world[3].receive<std::array<int, 64>>(*sent, 2);
			}
			ASSERT_TRUE(received);
			held.push_back(std::move(*received));
		}
		EXPECT_EQ(held.size(), 16384u / 256);
	}
	world[1].collect();
	EXPECT_EQ(world.heap.census().buffers, 0u);
}

TEST(D2_OneOwner, ALentBufferIsNeitherMovedNorFreedNorLentTwice)
{
	World world(3);
	auto buffer = world[1].make<int>(zone, 5);
	const auto loan = world[1].lend(*buffer, 2);

	ASSERT_TRUE(loan);
	EXPECT_EQ(error_of(world[1].send(std::move(*buffer), 3)), EBUSY);
	EXPECT_TRUE(*buffer);
	EXPECT_EQ(error_of(world[1].lend(*buffer, 3)), EBUSY);
	{
		auto borrowed = world[2].borrow<int>(*loan, 1);
		ASSERT_TRUE(borrowed);
		EXPECT_EQ(**borrowed, 5);
		EXPECT_TRUE(borrowed->holds());
		EXPECT_EQ(error_of(world[2].borrow<int>(*loan, 1)), ESTALE);
	}
	buffer->reset(); // it is freed when the loan ends
	EXPECT_EQ(world.heap.census().owned[1], 1u);
	EXPECT_TRUE(world[1].end_loan(*loan, 2));
	EXPECT_EQ(world.heap.census().buffers, 0u);
}

TEST(D2_OneOwner, ABorrowKeptTooLongIsOver)
{
	World world(3);
	auto buffer = world[1].make<int>(zone, 5);
	const auto loan = world[1].lend(*buffer, 2);
	auto kept = world[2].borrow<int>(*loan, 1);

	ASSERT_TRUE(kept);
	EXPECT_EQ(error_of(world[1].end_loan(*loan, 2)), EBUSY);
	EXPECT_FALSE(kept->holds());
	EXPECT_EQ(error_of(world[2].lend(kept->get(), 3)), ESTALE);
	EXPECT_EQ(error_of(world[2].borrow<int>(*loan, 1)), ESTALE);
	EXPECT_TRUE(world[1].send(std::move(*buffer), 3));
	EXPECT_EQ(error_of(world[1].end_loan({loan->zone, loan->index, loan->generation + 1, loan->type}, 2)), ESTALE);
}

TEST(D2_OneOwner, LoansNestTwoDeepAlsoBackToWhoIsOnTheWay)
{
	World world(4);
	auto buffer = moved(world, 9); // 1 is home, 2 the owner
	const auto loan = world[2].lend(buffer, 1);
	auto first = world[1].borrow<int>(*loan, 2);

	ASSERT_TRUE(first) << first.error().message();
	const auto further = world[1].lend(first->get(), 3);
	ASSERT_TRUE(further);
	{
		auto second = world[3].borrow<int>(*further, 1);
		ASSERT_TRUE(second);
		EXPECT_EQ(**second, 9);
		EXPECT_EQ(error_of(world[4].borrow<int>(*further, 1)), ESTALE);
	}
	EXPECT_TRUE(world[1].end_loan(*further, 3));
	EXPECT_TRUE(first->holds());
	*first = std::move(*world[1].borrow<int>(*loan, 2).or_else([&](auto) { return std::move(first); }));
	first = orbit::failed(1);
	EXPECT_TRUE(world[2].end_loan(*loan, 1));
	EXPECT_TRUE(world[2].send(std::move(buffer), 1));
}

TEST(D2_OneOwner, ForgedHandlesAreErrorsAndHarmNobody)
{
	World world(4);
	auto buffer = world[1].make<int>(zone, 3), other = world[1].make<int>(zone, 4);
	const auto handle = world[1].send(std::move(*buffer), 2);
	std::mt19937 random(2);

	for (int i = 0; i < 200000; i++) {
		Handle forged = *handle;
		const DomainId from = random() % 6, to = 1 + random() % 4;
		switch (random() % 5) {
		case 0: forged.zone = random() % 3 ? random() % 3 : random(); break;
		case 1: forged.index = random() % 2 ? random() % 20000 : random(); break;
		case 2: forged.generation = random() % 2 ? random() % 8 : random(); break;
		case 3: forged.type = random(); break;
		}
		if (!memcmp(&forged, &*handle, sizeof(forged)) && from == 1 && to == 2)
			continue;
		ASSERT_FALSE(world[to].receive<int>(forged, from)) << i;
		ASSERT_FALSE(world[to].borrow<int>(forged, from)) << i;
	}
	EXPECT_EQ(error_of(world[2].receive<unsigned>(*handle, 1)), EPROTOTYPE);
	EXPECT_EQ(error_of(world[2].receive<int[]>(*handle, 1)), EPROTOTYPE);
	EXPECT_EQ(error_of(world[3].receive<int>(*handle, 1)), ESTALE);
	auto right = world[2].receive<int>(*handle, 1);
	ASSERT_TRUE(right);
	EXPECT_EQ(**right, 3);
	EXPECT_EQ(**other, 4);
}

TEST(D2_OneOwner, WhoOwnsNothingGivesNothing)
{
	// Domain 3 is mad: its record says what it likes. The buffer is 2's.
	World world(4);
	auto buffer = moved(world);
	const std::uint32_t granule = 0;
	auto &words = world.record(3, granule);

	for (DomainId from = 0; from < 6; from++)
		for (std::uint32_t serial = 0; serial < 6; serial++)
			for (std::uint32_t entry = 0; entry < 6; entry++) {
				words.word = Word::make(State::given, from, 4, entry, serial).bits;
				words.loan = Word::make(State::out, from, 4, entry, serial).bits;
				const Handle handle{0, granule, serial, type_id<int>};
				ASSERT_FALSE(world[4].receive<int>(handle, 3)) << from << serial << entry;
				ASSERT_FALSE(world[4].borrow<int>(handle, 3)) << from << serial << entry;
			}
	EXPECT_EQ(world.heap.census().owned[2], 1u);
	EXPECT_TRUE(world[2].send(std::move(buffer), 4));
}

TEST(D2_OneOwner, RecordsScribbledOverHarmOnlyTheirDomain)
{
	World world(4);
	auto of_one = world[1].make<int>(zone, 1);
	auto of_two = moved(world, 2);
	std::mt19937_64 random(3);

	for (int i = 0; i < 30000; i++) {
		for (std::uint32_t granule = 0; granule < 4; granule++) {
			Record &record = world.record(3, granule);
			record.word = random() % 2 ? random() : Word::make(static_cast<State>(random() % 8), random() % 5, random() % 5, random() % 8, random() % 8).bits;
			record.loan = record.word ^ random() % 16;
			record.shape = random();
			for (DomainId to : {1u, 2u, 4u}) {
				const Handle handle{0, granule, static_cast<std::uint32_t>(random() % 8), type_id<int>};
				ASSERT_FALSE(world[to].receive<int>(handle, 3));
				ASSERT_FALSE(world[to].borrow<int>(handle, 3));
			}
		}
		if (i % 100 == 0)
			world.heap.census();
	}
	auto handle = world[1].send(std::move(*of_one), 4);
	EXPECT_TRUE(world[4].receive<int>(*handle, 1));
	handle = world[2].send(std::move(of_two), 1);
	auto back = world[1].receive<int>(*handle, 2);
	ASSERT_TRUE(back);
	EXPECT_EQ(**back, 2);
	EXPECT_TRUE(world.heap.reclaim(3));
	EXPECT_EQ(world.heap.census().lost, 0u);
	EXPECT_EQ(world.heap.census().twice, 0u);
}

// What has been with a mad domain is moved between two others afterwards as if it had not.
TEST(D2_OneOwner, AMadDomainTurnsNobodysNumbersBack)
{
	World world(3);
	auto buffer = world[1].make<int>(zone, 1);
	Handle sent = *world[1].send(std::move(*buffer), 2);
	auto moved = world[2].receive<int>(sent, 1);
	for (int i = 0; i < 5; i++) {
		auto back = world[1].receive<int>(*world[2].send(std::move(*moved), 1), 2);
		sent = *world[1].send(std::move(*back), 2);
		moved = world[2].receive<int>(sent, 1);
	}
	const std::uint32_t number = sent.generation; // 2 has had this from 1
	auto home = world[1].receive<int>(*world[2].send(std::move(*moved), 1), 2);
	sent = *world[1].send(std::move(*home), 3);

	// As if there had been as many moves that 1 now comes to the same number: one each for the drop, the buffer, and its move.
	world.record(3, sent.index).word = Word::make(State::given, 1, 1, sent.generation, number - 3).bits;
	sent.generation = number - 3;
	{
		auto back = world[1].receive<int>(sent, 3);
		ASSERT_TRUE(back);
	}
	auto again = world[1].make<int>(zone, 2);
	sent = *world[1].send(std::move(*again), 2);
	EXPECT_NE(sent.generation, number);
	moved = world[2].receive<int>(sent, 1);
	ASSERT_TRUE(moved) << moved.error().message();
	EXPECT_EQ(**moved, 2);
}

// The home of a buffer counts its moves anew, and is believed that it gives; to whom it was given goes on counting.
TEST(D2_OneOwner, AMadHomeTurnsNobodysNumbersBack)
{
	World world(3);
	auto buffer = world[1].make<int>(zone, 1);
	Handle sent = *world[1].send(std::move(*buffer), 2);
	const auto give_again = [&](std::uint32_t number) {
		world.record(1, sent.index).word = Word::make(State::given, 1, 2, 0, number).bits;
		return world[2].receive<int>({sent.zone, sent.index, number, sent.type}, 1);
	};

	std::uint32_t last = 0;
	for (const std::uint32_t number : {100u, 5u, 99u, 100u, 101u, 3u}) {
		auto moved = give_again(number);
		ASSERT_TRUE(moved) << number << moved.error().message();
		const Handle on = *world[2].send(std::move(*moved), 3);
		EXPECT_TRUE(after(on.generation, last)) << number << " has made " << on.generation << " of " << last;
		last = on.generation;
		EXPECT_TRUE(world[3].receive<int>(on, 2)) << number;
	}
}

TEST(D2_OneOwner, UndeliveredHandlesAreTakenBack)
{
	World world(3);
	auto buffer = world[1].make<int>(zone, 8);
	const auto handle = world[1].send(std::move(*buffer), 2);
	auto back = world[1].take_back<int>(*handle, 2);

	ASSERT_TRUE(back);
	EXPECT_EQ(**back, 8);
	EXPECT_EQ(error_of(world[1].take_back<int>(*handle, 2)), ESTALE);
	EXPECT_EQ(error_of(world[2].receive<int>(*handle, 1)), ESTALE);
	EXPECT_TRUE(world[1].send(std::move(*back), 3));
}

TEST(D2_OneOwner, FreeMemoryIsForAnyTypeAndSize)
{
	World world(2);
	std::mt19937 random(3);

	for (int round = 0; round < 20; round++) {
		// Full of one size, some of them by way of another domain; then none, and all of it in one piece.
		const std::size_t words = 8 << random() % 6;
		std::vector<rref<std::uint64_t[]>> held;
		std::size_t bytes = 0;
		for (;;) {
			auto buffer = world[1].make_array<std::uint64_t>(zone, words);
			if (!buffer)
				break;
			bytes += words * sizeof(std::uint64_t);
			if (random() % 4 == 0) {
				auto there = world[2].receive<std::uint64_t[]>(*world[1].send(std::move(*buffer), 2), 1);
				ASSERT_TRUE(there);
				buffer = std::move(*there);
			}
			held.push_back(std::move(*buffer));
		}
		EXPECT_GE(bytes, 8192u) << "in round " << round << ": pieces may not fit";
		const rref<std::uint64_t[]> kept = std::move(held[random() % held.size()]);
		held.clear();
		EXPECT_EQ(error_of(world[1].make_array<char>(zone, 16384)), ENOSPC) << "one is not free";
		EXPECT_TRUE(world[1].make_array<char>(zone, (16384 - words * sizeof(std::uint64_t)) / 3));
		EXPECT_EQ(world.heap.census().twice + world.heap.census().lost, 0u);
	}
	EXPECT_TRUE(world[1].make_array<char>(zone, 16384));
}

TEST(D2_OneOwner, AFullZoneAndStrangersAreErrorsThatChangeNothing)
{
	World world(3);

	EXPECT_EQ(error_of(world.heap.add(1, 0)), EEXIST);
	EXPECT_EQ(error_of(world.heap.add(9, 0)), EINVAL);
	EXPECT_EQ(error_of(world.heap.grant(1, 1, 4096)), EACCES);
	EXPECT_EQ(error_of(world.heap.grant(1, 0, 2 << 20)), ENOSPC);
	EXPECT_EQ(world.heap.unused(0), (1u << 20) - 3 * 16384);
	EXPECT_EQ(error_of(world[1].make<int>({1})), EACCES);
	EXPECT_EQ(error_of(world[1].make<int>({77})), EACCES);
	EXPECT_EQ(error_of(world[1].make_array<int>(zone, 0)), EINVAL);
	EXPECT_EQ(error_of(world[1].make_array<int>(zone, SIZE_MAX / 2)), EINVAL);
	EXPECT_EQ(error_of(world[1].make_array<int>(zone, 5000)), ENOSPC);
	EXPECT_EQ(error_of(world[1].make<Block>(zone)), ENOSPC);

	// Domain 2 has no part in zone 1.
	ASSERT_TRUE(world.heap.add(1, 1));
	ASSERT_TRUE(world.heap.grant(1, 1, 4096));
	auto buffer = world[1].make<int>({1}, 6);
	ASSERT_TRUE(buffer);
	EXPECT_EQ(error_of(world[1].send(std::move(*buffer), 2)), EACCES);
	EXPECT_EQ(error_of(world[1].lend(*buffer, 2)), EACCES);
	for (const DomainId nobody : {0u, 1u, 4u, 60u, ~0u})
		EXPECT_EQ(error_of(world[1].send(std::move(*buffer), nobody)), EINVAL) << nobody;
	EXPECT_EQ(**buffer, 6);
	EXPECT_EQ(world.heap.census().owned[1], 1u);
	buffer->reset();
	EXPECT_EQ(world.heap.census().buffers, 0u);

	EXPECT_EQ(Heap::bytes(0, World::zone_bytes), 0u);
	EXPECT_EQ(Heap::bytes(64, World::zone_bytes), 0u);
	EXPECT_EQ(error_of(Heap::create(world.memory.span().subspan(64), 3, World::zone_bytes)), EINVAL);
	EXPECT_EQ(error_of(Endpoint::attach(world.memory.span(), 0)), EINVAL);
	EXPECT_EQ(error_of(Endpoint::attach(world.memory.span(), 4)), EINVAL);
}

TEST(D2_OneOwner, ContainersGiveBackWhatDoesNotFit)
{
	World world(2);
	auto batch = world[1].make<orbit::fixed_deque<Request, 4>>(zone);

	ASSERT_TRUE(batch);
	for (std::uint64_t i = 0; i < 4; i++)
		EXPECT_FALSE((*batch)->push_back({i, Op::read, false}));
	EXPECT_EQ((*batch)->push_back({4, Op::read, false})->lba, 4u);
	EXPECT_EQ((*batch)->pop_front()->lba, 0u);
	EXPECT_FALSE((*batch)->push_front({9, Op::write, true}));
	EXPECT_EQ((*batch)->pop_back()->lba, 3u);
	EXPECT_EQ((*batch)->at(0)->lba, 9u);
	EXPECT_FALSE((*batch)->at(3));
	EXPECT_TRUE(batch->fetch());

	orbit::fixed_vector<int, 2> vector;
	EXPECT_FALSE(vector.push_back(1) || vector.push_back(2));
	EXPECT_EQ(vector.push_back(3), 3);
	EXPECT_EQ(vector.at(1), 2);

	orbit::rref_deque<int, 3> buffers;
	for (int i = 0; i < 3; i++)
		EXPECT_FALSE(buffers.push_back(std::move(*world[1].make<int>(zone, i))));
	EXPECT_TRUE(buffers.push_back(std::move(*world[1].make<int>(zone))));
	EXPECT_EQ(*buffers.pop_front(), 0);
	EXPECT_EQ(error_of(buffers.send(world[1], std::move(buffers), 1)), EINVAL);
	EXPECT_EQ(buffers.size(), 2u);
	auto sent = buffers.send(world[1], std::move(buffers), 2);
	ASSERT_TRUE(sent);
	EXPECT_TRUE(buffers.empty());
	auto received = buffers.receive(world[2], *sent, 1);
	ASSERT_TRUE(received);
	EXPECT_EQ(*received->pop_back(), 2);
	EXPECT_EQ(error_of(buffers.receive(world[2], *sent, 1)), ESTALE);
	sent->count = 4;
	EXPECT_EQ(error_of(buffers.receive(world[2], *sent, 1)), EBADMSG);
}

TEST(D2_OneOwner, AnArraysLengthIsItsMakersWord)
{
	World world(3);
	auto array = world[1].make_array<std::uint16_t>(zone, 100);

	ASSERT_TRUE(array);
	EXPECT_EQ(array->size(), 100u);
	(*array)[99] = 5;
	const auto handle = world[1].send(std::move(*array), 2);
	auto received = world[2].receive<std::uint16_t[]>(*handle, 1);
	ASSERT_TRUE(received);
	EXPECT_EQ(received->elements().back(), 5);
	EXPECT_EQ(error_of(received->fetch(100)), ERANGE);
	// It says something else meanwhile: what has been fetched stays.
	world.record(1, handle->index).shape = shape(handle->type, 4000000000u);
	EXPECT_EQ(received->size(), 100u);
	const auto further = world[2].send(std::move(*received), 3);
	EXPECT_EQ(error_of(world[3].receive<std::uint16_t[]>(*further, 2)), EBADF);
	world.record(1, handle->index).shape = shape(handle->type, 0);
	EXPECT_EQ(error_of(world[3].receive<std::uint16_t[]>(*further, 2)), EBADF);
	world.record(1, handle->index).shape = shape(handle->type, 100);
	EXPECT_TRUE(world[3].receive<std::uint16_t[]>(*further, 2));
}

TEST(D2_OneOwner, MemoryIsReusedForItsTypeOnly)
{
	World world(2, 4096);
	const auto granules = [&](auto &&buffer) { return reinterpret_cast<std::byte *>(&*buffer); };
	auto first = world[1].make<std::uint64_t>(zone);
	std::byte *const at = granules(*first);

	first->reset();
	auto other = world[1].make<double>(zone);
	EXPECT_NE(granules(*other), at);
	auto again = world[1].make<std::uint64_t>(zone);
	EXPECT_EQ(granules(*again), at);
}

// Another program's heap is counted without its zones' memory, wherever it says that this is.
TEST(D5_HostileBytes, ACensusDoesWithoutTheZones)
{
	World world(2);
	auto buffer = world[1].make<int>(zone, 1);
	auto *header = reinterpret_cast<Header *>(world.memory.span().data());
	Census census;

	ASSERT_TRUE(buffer);
	for (const std::uint64_t nowhere : {~std::uint64_t{0}, std::uint64_t{1} << 63}) {
		const std::uint64_t right = std::exchange(header->zone[0].data, nowhere);
		EXPECT_TRUE(census_of(world.memory.span(), &census));
		EXPECT_EQ(census.owned[1], 1u);
		header->zone[0].data = right;
	}
}

TEST(D5_HostileBytes, ValuesAreFetchedOnceAndThenChecked)
{
	World world(2);
	auto buffer = world[1].make<Request>(zone, {1, Op::read, true});
	auto *bytes = reinterpret_cast<unsigned char *>(&**buffer);

	EXPECT_TRUE(buffer->fetch());
	bytes[offsetof(Request, urgent)] = 2;
	EXPECT_EQ(error_of(buffer->fetch()), EBADMSG);
	bytes[offsetof(Request, urgent)] = 0;
	bytes[offsetof(Request, op)] = 2;
	EXPECT_EQ(error_of(buffer->fetch()), EBADMSG);
	bytes[offsetof(Request, op)] = 5;
	EXPECT_EQ(buffer->fetch()->op, Op::write);
}

TEST(D5_HostileBytes, ContainersWhoseNumbersLieAreEmpty)
{
	World world(2);
	using Deque = orbit::fixed_deque<Request, 4>;
	auto deque = world[1].make<Deque>(zone);
	std::mt19937 random(4);

	for (int i = 0; i < 100000; i++) {
		std::uint32_t junk[sizeof(Deque) / 4];
		for (auto &word : junk)
			word = random() % 2 ? random() % 8 : random();
		memcpy(static_cast<void *>(&**deque), junk, sizeof(junk));
		EXPECT_LE((*deque)->size(), 4u);
		if (const auto item = random() % 2 ? (*deque)->pop_front() : (*deque)->pop_back()) {
			EXPECT_TRUE(item->op == Op::read || item->op == Op::write);
		}
		(*deque)->push_back({1, Op::read, false});
		(*deque)->at(random() % 8);
		(void)deque->fetch();
	}
}

TEST(D5_HostileBytes, NumbersThatChangeWhileTheyAreUsed)
{
#if defined(__SANITIZE_THREAD__)
	GTEST_SKIP() << "the race is wanted";
#endif
	World world(2);
	using Deque = orbit::fixed_deque<std::uint32_t, 7>;
	auto deque = world[1].make<Deque>(zone);
	std::atomic<bool> done = false;
	std::thread mad([&, words = reinterpret_cast<volatile std::uint32_t *>(&**deque)] {
		for (std::uint32_t i = 0; !done; i++) {
			words[0] = i % 3 ? i % 7 : ~i;
			words[1] = i % 5 ? i % 8 : ~i;
		}
	});

	for (int i = 0; i < 200000; i++) {
		(*deque)->push_back(1);
		(*deque)->pop_front();
		EXPECT_LE((*deque)->size(), 7u);
	}
	done = true;
	mad.join();
}

TEST(D5_HostileBytes, PaddingDoesNotTravel)
{
	World world(2);
	Padded value;

	memset(static_cast<void *>(&value), 0xaa, sizeof(value));
	value.a = 1;
	value.b = 2;
	value.flags[0] = value.flags[1] = value.flags[2] = true;
	auto buffer = world[1].make<Padded>(zone, value);
	const auto *bytes = reinterpret_cast<const unsigned char *>(&**buffer);
	for (std::size_t i = 1; i < offsetof(Padded, b); i++)
		EXPECT_EQ(bytes[i], 0);
	EXPECT_EQ((*buffer)->b, 2);
	EXPECT_TRUE(buffer->fetch());
	reinterpret_cast<unsigned char *>(&(*buffer)->flags)[2] = 2;
	EXPECT_EQ(error_of(buffer->fetch()), EBADMSG);
}

TEST(D3_CleanEnd, TheDeadDomainsAreReclaimedAndTheSurvivorsAreKept)
{
	World world(4);
	auto own = world[3].make<int>(zone, 1), to_one = world[3].make<int>(zone, 2), away = world[3].make<int>(zone, 3);
	auto handle = world[3].send(std::move(*to_one), 1);
	auto kept = world[1].receive<int>(*handle, 3);
	const auto lost = world[3].send(std::move(*away), 2);
	auto through = world[1].make<int>(zone, 4), into = world[1].make<int>(zone, 5);
	handle = world[1].send(std::move(*through), 3);
	auto at_three = world[3].receive<int>(*handle, 1);
	handle = world[3].send(std::move(*at_three), 2);
	auto through_it = world[2].receive<int>(*handle, 3);
	ASSERT_TRUE(world[1].send(std::move(*into), 3));
	auto lent = world[2].make<int>(zone, 6);
	const auto loan = world[2].lend(*lent, 3);

	const auto report = world.heap.reclaim(3);
	ASSERT_TRUE(report);
	EXPECT_EQ(report->buffers, 3u); // its own, the one in flight from it, the one in flight to it
	EXPECT_EQ(report->kept, 2u);
	EXPECT_EQ(report->loans, 1u);
	EXPECT_EQ(report->conflicts, 0u);
	EXPECT_EQ(error_of(world[2].receive<int>(*lost, 3)), EOWNERDEAD);
	EXPECT_TRUE(world[2].end_loan(*loan, 3));
	EXPECT_EQ(error_of(world[1].send(std::move(*kept), 3)), EACCES);
	EXPECT_EQ(**kept, 2);
	EXPECT_EQ(**through_it, 4);

	// They go on as ever.
	handle = world[1].send(std::move(*kept), 4);
	auto further = world[4].receive<int>(*handle, 1);
	ASSERT_TRUE(further) << further.error().message();
	handle = world[2].send(std::move(*through_it), 1);
	auto home = world[1].receive<int>(*handle, 2);
	ASSERT_TRUE(home) << home.error().message();
	Census census = world.heap.census();
	EXPECT_EQ(census.lost + census.twice + census.in_flight, 0u);
	EXPECT_EQ(census.owned[4] + census.owned[1] + census.owned[2], 3u);

	// The run is free with the last of its buffers, and a new domain 3 may have it.
	EXPECT_EQ(world.heap.unused(0), (1u << 20) - 4 * 16384);
	further->reset();
	EXPECT_EQ(world.heap.sweep(), 1u);
	EXPECT_EQ(world.heap.unused(0), (1u << 20) - 3 * 16384);
	home->reset();
	lent->reset();
	world[1].collect();
	EXPECT_EQ(world.heap.census().buffers, 0u);
	leave(std::move(*own)); // of a process that is no more
	leave(std::move(world.endpoints[3]));
	world.start(3, 16384);
	auto fresh = world[3].make<int>(zone, 1);
	handle = world[3].send(std::move(*fresh), 1);
	EXPECT_TRUE(world[1].receive<int>(*handle, 3));
	EXPECT_EQ(error_of(world[2].receive<int>(*lost, 3)), ESTALE);
}

// What was said of a buffer before a domain's death is not mistaken for what is said after it.
TEST(D3_CleanEnd, NumbersGoOnWhenADomainBeginsAnew)
{
	for (int before = 0; before < 8; before++)
		for (int after = 0; after < 20; after++) {
			World world(4, 4096);
			const auto move = [&](rref<int> &buffer, DomainId from, DomainId to) {
				const auto handle = world[from].send(std::move(buffer), to);
				ASSERT_TRUE(handle);
				auto received = world[to].receive<int>(*handle, from);
				ASSERT_TRUE(received) << before << " " << after << received.error().message();
				buffer = std::move(*received);
			};
			auto buffer = std::move(*world[1].make<int>(zone));
			move(buffer, 1, 3);
			for (int i = 0; i < before; i++) {
				move(buffer, 3, 2);
				move(buffer, 2, 3);
			}
			ASSERT_TRUE(world.heap.reclaim(3));
			leave(std::move(buffer));
			leave(std::move(world.endpoints[3]));
			world.start(3, 4096);
			world[1].collect();
			buffer = std::move(*world[1].make<int>(zone));
			for (int i = 0; i < after % 3; i++) {
				buffer.reset();
				buffer = std::move(*world[1].make<int>(zone));
			}
			move(buffer, 1, 3);
			for (int i = 0; i < after / 3; i++) {
				move(buffer, 3, 4);
				move(buffer, 4, 3);
			}
			move(buffer, 3, 2);
		}
}

// A handle that a dead domain had sent is found later by its receiver: whoever has the domain's number by then, and
// sends buffers at the same places, and takes them back, must never send one like it.
TEST(D2_OneOwner, AHandleOfTheDeadIsLikeNoneOfItsSuccessors)
{
	for (int unsent = 0; unsent < 8; unsent++) {
		World world(2, 4096);
		// As many that could not be delivered, so that no other record has ever had the numbers.
		const auto send = [&](rref<int> &&buffer, int times) {
			auto handle = world[1].send(std::move(buffer), 2);
			for (int i = 0; i < times; i++)
				handle = world[1].send(std::move(*world[1].take_back<int>(*handle, 2)), 2);
			return *handle;
		};
		const Handle old = send(std::move(*world[1].make<int>(zone)), unsent);
		auto lent = std::move(*world[1].make<int>(zone));
		Handle old_loan{};
		for (int i = 0; i <= unsent; i++) {
			old_loan = *world[1].lend(lent, 2);
			if (i < unsent) {
				ASSERT_TRUE(world[1].end_loan(old_loan, 2));
			}
		}

		ASSERT_TRUE(world.heap.reclaim(1));
		leave(std::move(lent));
		leave(std::move(world.endpoints[1]));
		world.start(1, 4096);

		bool same_place = false, same_loan = false;
		std::vector<rref<int>> held;
		for (int i = 0; i < 4; i++) {
			auto buffer = std::move(*world[1].make<int>(zone));
			for (int times = 0; times < 12; times++) {
				const Handle loan = *world[1].lend(buffer, 2);
				EXPECT_NE(error_of(world[2].borrow<int>(old_loan, 1)), 0) << unsent << " " << times;
				ASSERT_TRUE(world[1].end_loan(loan, 2));
				same_loan = same_loan || loan.index == old_loan.index;

				const Handle handle = *world[1].send(std::move(buffer), 2);
				auto wrong = world[2].receive<int>(old, 1);
				EXPECT_EQ(error_of(wrong), ESTALE) << unsent << " " << times;
				if (wrong)
					leave(std::move(*wrong));
				buffer = std::move(*world[1].take_back<int>(handle, 2));
				same_place = same_place || handle.index == old.index;
			}
			held.push_back(std::move(buffer));
		}
		EXPECT_TRUE(same_place && same_loan);
		EXPECT_EQ(world.heap.census().twice, 0u);
	}
}

// Who once passed a buffer on, and has not heard of it since, is not mistaken for who has it.
TEST(D3_CleanEnd, WhatWasPassedOnLongAgoIsNobodysNow)
{
	World world(5);
	const auto move = [&](rref<int> &buffer, DomainId from, DomainId to) {
		const auto handle = world[from].send(std::move(buffer), to);
		ASSERT_TRUE(handle);
		buffer = std::move(*world[to].receive<int>(*handle, from));
	};
	auto buffer = std::move(*world[1].make<int>(zone));
	for (const auto &[from, to] : {std::pair{1, 2}, {2, 3}, {3, 1}, {1, 4}, {4, 3}, {3, 1}})
		move(buffer, from, to);
	ASSERT_TRUE(world.heap.reclaim(4));
	ASSERT_TRUE(world.heap.reclaim(3));
	EXPECT_EQ(world.heap.census().owned[1], 1u);
	world.start(3, 4096);
	EXPECT_EQ(world.heap.reclaim(1)->kept, 0u);
	leave(std::move(buffer));
	leave(std::move(world.endpoints[1]));
	EXPECT_EQ(world.heap.census().buffers, 0u);
	EXPECT_EQ(world.heap.census().in_flight, 0u);
}

TEST(D1_HeapsApart, ADomainWritesItsOwnRecordsAndZonesAndNothingElse)
{
	World world(3);
	auto *header = reinterpret_cast<Header *>(world.memory.span().data());
	ASSERT_TRUE(world.heap.add(1, 1));
	const auto dies = [&](std::size_t offset, bool write) {
		const pid_t pid = fork();
		if (!pid) {
			signal(SIGSEGV, SIG_DFL);
			volatile std::byte *at = world.memory.as_domain(world.heap, 2).data() + offset;
			const std::byte value = *at;
			if (write)
				*at = value;
			_exit(0);
		}
		int status = 0;
		waitpid(pid, &status, 0);
		return status != 0;
	};
	const std::size_t records = header->records, each = header->records_bytes;

	EXPECT_TRUE(dies(0, true));
	EXPECT_TRUE(dies(header->zone[0].runs, true));
	EXPECT_FALSE(dies(header->zone[0].runs, false));
	for (DomainId i = 0; i <= 3; i++) {
		EXPECT_FALSE(dies(records + i * each, false));
		EXPECT_EQ(dies(records + i * each, true), i != 2) << i;
		EXPECT_EQ(dies(records + (i + 1) * each - 1, true), i != 2) << i;
	}
	EXPECT_FALSE(dies(header->zone[0].data, true));
	EXPECT_TRUE(dies(header->zone[1].data, false));
	EXPECT_TRUE(dies(header->zone[1].data + World::zone_bytes[1] - 1, false));
}

TEST(D2_OneOwner, BetweenProcessesWithTheRightsOfDomains)
{
	World world(2);
	auto buffer = world[1].make_array<std::uint32_t>(zone, 1000);
	(*buffer)[999] = 77;
	const auto handle = world[1].send(std::move(*buffer), 2);
	int ends[2];
	ASSERT_EQ(pipe(ends), 0);
	const pid_t pid = fork();
	if (!pid) {
		auto self = Endpoint::attach(world.memory.as_domain(world.heap, 2), 2);
		auto received = (*self)->receive<std::uint32_t[]>(*handle, 1);
		if (!received || (*received)[999] != 77)
			_exit(1);
		(*received)[999]++;
		const auto back = (*self)->send(std::move(*received), 1);
		_exit(back && write(ends[1], &*back, sizeof(*back)) == sizeof(*back) ? 0 : 2);
	}
	int status = 0;
	waitpid(pid, &status, 0);
	ASSERT_EQ(status, 0);
	Handle back;
	ASSERT_EQ(read(ends[0], &back, sizeof(back)), static_cast<ssize_t>(sizeof(back)));
	auto received = world[1].receive<std::uint32_t[]>(back, 2);
	ASSERT_TRUE(received);
	EXPECT_EQ((*received)[999], 78u);
	close(ends[0]);
	close(ends[1]);
}

TEST(D2_OneOwner, ThreadsThatReceiveTheSameHandleGetOneBuffer)
{
	World world(2);

	for (int round = 0; round < 300; round++) {
		auto buffer = world[1].make<int>(zone, round);
		const auto handle = world[1].send(std::move(*buffer), 2);
		std::atomic<int> got = 0;
		const auto receive = [&] {
			auto received = world[2].receive<int>(*handle, 1);
			if (received) {
				EXPECT_EQ(**received, round);
				got++;
			}
		};
		std::thread other(receive);
		receive();
		other.join();
		EXPECT_EQ(got, 1);
	}
}

} // namespace
