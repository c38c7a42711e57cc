// SPDX-License-Identifier: MIT
//
// A domain stops for ever between any two of its stores, at each of them in turn: after the reclaim every buffer
// has one owner, and nothing leaks. And who only stops for a while, with a reclaim meanwhile.
//
// The domain that dies is a thread here that never goes on; what it shares is what a process would.
namespace {
void step();
}
#define ORBIT_ISOLATION_STEP() step()
#include "../../isolation/heap.cc"

#include "world.h"

#include <functional>
#include <semaphore>
#include <string>
#include <thread>

namespace {

using orbit::rref;

struct Stop {
	int left;
	bool for_ever = false;
	std::counting_semaphore<> stopped{0}, go_on{0}, ended{0};
	std::atomic<bool> has_stopped = false;
};
thread_local Stop *stop;

void step()
{
	if (!stop || --stop->left)
		return;
	stop->has_stopped = true;
	const bool for_ever = stop->for_ever; // *stop is gone soon
	auto &go_on = stop->go_on;
	stop->stopped.release();
	while (for_ever)
		pause();
	go_on.acquire();
}

// Does it in a thread until the step at which it is to stop. True if it stopped there, false if it ended before, or waits
// for somebody.
bool until(Stop &at, const std::function<void()> &act, std::thread &thread,
	   std::chrono::milliseconds patience = std::chrono::seconds(20))
{
	thread = std::thread([&at, act] {
		stop = &at;
		act();
		stop = nullptr;
		at.ended.release();
		at.stopped.release();
	});
	(void)at.stopped.try_acquire_for(patience);
	return at.has_stopped;
}

// What survivors hold, and the messages that the dying domain has sent.
struct Message {
	Handle handle;
	DomainId to;
};
struct Play {
	World world{4};
	std::vector<std::pair<DomainId, rref<int>>> held;
	std::vector<Message> messages;
	std::vector<std::pair<Handle, DomainId>> loans; // of survivors to the dying domain
	std::vector<rref<int>> dying;                   // what it has: never ended

	Handle give(DomainId from, DomainId to)
	{
		auto buffer = world[from].make<int>(zone, 1);
		return *world[from].send(std::move(*buffer), to);
	}
	rref<int> get(const Handle &handle, DomainId from, DomainId to)
	{
		return std::move(*world[to].receive<int>(handle, from));
	}
	// In the dying domain's thread.
	void send(rref<int> &&buffer, DomainId to)
	{
		messages.push_back({*world[x].send(std::move(buffer), to), to});
	}
	static constexpr DomainId x = 3;
};

struct Scene {
	const char *name;
	std::function<std::function<void()>(Play &)> set; // what the others do first; returns what the domain does
};

const Scene scenes[] = {
	{"sends its own",
	 [](Play &play) {
		 return [&] { play.send(std::move(*play.world[3].make<int>(zone, 1)), 1); };
	 }},
	{"receives and drops",
	 [](Play &play) {
		 return [&play, handle = play.give(1, 3)] { play.get(handle, 1, 3).reset(); };
	 }},
	{"receives and passes on",
	 [](Play &play) {
		 return [&play, handle = play.give(1, 3)] { play.send(play.get(handle, 1, 3), 2); };
	 }},
	{"receives and gives back",
	 [](Play &play) {
		 return [&play, handle = play.give(1, 3)] { play.send(play.get(handle, 1, 3), 1); };
	 }},
	{"has it again from whom it gave it to, and sends it home",
	 [](Play &play) {
		 auto handle = play.give(1, 3);
		 handle = *play.world[3].send(play.get(handle, 1, 3), 2);
		 handle = *play.world[2].send(play.get(handle, 3, 2), 3);
		 return [&play, handle] { play.send(play.get(handle, 2, 3), 1); };
	 }},
	{"has its own back from whom it gave it to, and sends it again",
	 [](Play &play) {
		 auto handle = play.give(3, 2);
		 handle = *play.world[2].send(play.get(handle, 3, 2), 3);
		 return [&play, handle] { play.send(play.get(handle, 2, 3), 2); };
	 }},
	{"has its own again, and sends it on",
	 [](Play &play) {
		 auto handle = play.give(3, 2);
		 handle = *play.world[2].send(play.get(handle, 3, 2), 1);
		 handle = *play.world[1].send(play.get(handle, 2, 1), 3);
		 return [&play, handle] { play.send(play.get(handle, 1, 3), 4); };
	 }},
	{"dies behind those who have its buffers",
	 [](Play &play) {
		 auto handle = play.give(3, 2);
		 handle = *play.world[2].send(play.get(handle, 3, 2), 4);
		 play.held.emplace_back(4, play.get(handle, 2, 4));
		 handle = play.give(1, 3);
		 handle = *play.world[3].send(play.get(handle, 1, 3), 4);
		 handle = *play.world[4].send(play.get(handle, 3, 4), 2);
		 play.held.emplace_back(2, play.get(handle, 4, 2));
		 return [&play] { play.send(std::move(*play.world[3].make<int>(zone, 1)), 2); };
	 }},
	{"borrows and lends on",
	 [](Play &play) {
		 play.held.emplace_back(1, std::move(*play.world[1].make<int>(zone, 1)));
		 const auto loan = *play.world[1].lend(play.held[0].second, 3);
		 play.loans.emplace_back(loan, 1);
		 return [&play, loan] {
			 auto borrowed = play.world[3].borrow<int>(loan, 1);
			 const auto further = *play.world[3].lend(borrowed->get(), 2);
			 {
				 auto second = play.world[2].borrow<int>(further, 3);
			 }
			 (void)play.world[3].end_loan(further, 2);
		 };
	 }},
	{"lends its own",
	 [](Play &play) {
		 return [&play] {
			 auto buffer = play.world[3].make<int>(zone, 1);
			 const auto loan = *play.world[3].lend(*buffer, 2);
			 {
				 auto second = play.world[2].borrow<int>(loan, 3);
			 }
			 (void)play.world[3].end_loan(loan, 2);
			 play.dying.push_back(std::move(*buffer));
		 };
	 }},
	{"takes back",
	 [](Play &play) {
		 return [&play] {
			 const auto handle = *play.world[3].send(std::move(*play.world[3].make<int>(zone, 1)), 2);
			 play.dying.push_back(std::move(*play.world[3].take_back<int>(handle, 2)));
		 };
	 }},
};

void deliver(Play &play)
{
	for (const Message &message : play.messages)
		if (auto buffer = play.world[message.to].receive<int>(message.handle, 3))
			play.held.emplace_back(message.to, std::move(*buffer));
	play.messages.clear();
}

// Each buffer has one owner, whose every buffer can be moved; and when they have dropped all, all memory is there.
void expect_order(Play &play, const std::string &where)
{
	std::size_t held[max_domains] = {};

	for (auto &[domain, buffer] : play.held) {
		held[domain]++;
		const DomainId to = domain == 1 ? 2 : 1;
		const auto handle = play.world[domain].send(std::move(buffer), to);
		ASSERT_TRUE(handle) << where << handle.error().message();
		auto further = play.world[to].receive<int>(*handle, domain);
		ASSERT_TRUE(further) << where << further.error().message();
		EXPECT_EQ(**further, 1) << where;
		const auto back = play.world[to].send(std::move(*further), domain);
		auto again = play.world[domain].receive<int>(*back, to);
		ASSERT_TRUE(again) << where << again.error().message();
		buffer = std::move(*again);
	}
	Census census = play.world.heap.census();
	EXPECT_EQ(census.twice, 0u) << where;
	EXPECT_EQ(census.lost, 0u) << where;
	EXPECT_EQ(census.in_flight, 0u) << where;
	for (DomainId domain = 1; domain <= 4; domain++)
		EXPECT_EQ(census.owned[domain], held[domain]) << where << domain;
	play.held.clear();
	for (DomainId domain : {1, 2, 4})
		play.world[domain].collect();
	play.world.heap.sweep();
	EXPECT_EQ(play.world.heap.census().buffers, 0u) << where;
	EXPECT_EQ(play.world.heap.unused(0), (1u << 20) - 3 * 16384) << where;
}

void leave_for_ever(Play *play, Stop *at, std::thread &thread)
{
	// The thread stands in the middle of them.
	static auto *kept = new std::vector<std::pair<Play *, Stop *>>;

	kept->emplace_back(play, at);
	thread.detach();
}

void die_everywhere(bool deliver_first)
{
	for (const Scene &scene : scenes) {
		int n = 0;
		for (bool stopped = true; stopped;) {
			const std::string where = std::string(scene.name) + ", step " + std::to_string(++n) + ": ";
			auto *play = new Play;
			auto *at = new Stop{n, true};
			std::thread thread;
			const auto act = scene.set(*play);

			stopped = until(*at, act, thread);
			if (deliver_first)
				deliver(*play);
			ASSERT_TRUE(play->world.heap.reclaim(3));
			deliver(*play);
			for (auto &[loan, owner] : play->loans)
				EXPECT_TRUE(play->world[owner].end_loan(loan, 3)) << where;
			expect_order(*play, where);
			if (stopped) {
				leave_for_ever(play, at, thread);
			} else {
				thread.join();
				play->dying.clear();
				delete play;
				delete at;
			}
			ASSERT_LT(n, 100);
		}
		EXPECT_GT(n, 2) << scene.name;
	}
}

TEST(D3_CleanEnd, AtAnyStoreWithItsMessagesDelivered)
{
	die_everywhere(true);
}

TEST(D3_CleanEnd, AtAnyStoreWithItsMessagesUnderWay)
{
	die_everywhere(false);
}

// The dead domain has left a message; who receives it stops at any store, and a reclaim passes.
TEST(D3_CleanEnd, AReclaimWhileSomebodyReceives)
{
	enum class Way { its_own, through, back };
	for (const Way way : {Way::its_own, Way::through, Way::back}) {
		bool stopped = true;
		int got = 0, turned_away = 0;
		for (int n = 1; stopped; n++) {
			Play play;
			const DomainId home = way == Way::its_own ? 3 : way == Way::through ? 1 : 2;
			Handle handle = play.give(home, home == 3 ? 2 : 3);
			if (home != 3)
				handle = *play.world[3].send(play.get(handle, home, 3), 2);
			std::thread thread;
			Stop at{n};
			int error = -1;
			stopped = until(at, [&] {
				auto buffer = play.world[2].receive<int>(handle, 3);
				error = error_of(buffer);
				if (buffer)
					play.held.emplace_back(2, std::move(*buffer));
			}, thread);
			ASSERT_TRUE(play.world.heap.reclaim(3));
			at.go_on.release();
			thread.join();
			EXPECT_TRUE(error == 0 || error == EOWNERDEAD) << error;
			(error ? turned_away : got)++;
			expect_order(play, "receives, step " + std::to_string(n) + ": ");
		}
		EXPECT_GT(got, 0);
		EXPECT_GT(turned_away, 0);
	}
}

// Both stop, in any order: the supervisor at any store of a reclaim, then who receives at any store of his, then the
// supervisor goes on to the end, the buffer's home looks for what is free, and the receiver goes on.
TEST(D3_CleanEnd, AReclaimAndAReceiptInEachOther)
{
	struct Scene {
		const char *name;
		DomainId from, to; // of the last message
		std::function<Handle(Play &)> set;
	};
	const auto pass = [](Play &play, std::initializer_list<DomainId> way) {
		auto at = way.begin();
		auto buffer = std::move(*play.world[*at].make<int>(zone, 1));
		Handle handle{};
		for (auto next = at + 1; next != way.end(); at = next++) {
			handle = *play.world[*at].send(std::move(buffer), *next);
			if (next + 1 != way.end())
				buffer = play.get(handle, *at, *next);
		}
		return handle;
	};
	const Scene all[] = {
		{"from the dead, its own", 3, 2, [&](Play &play) { return pass(play, {3, 2}); }},
		{"from the dead, another's", 3, 2, [&](Play &play) { return pass(play, {1, 3, 2}); }},
		{"from the dead, home", 3, 1, [&](Play &play) { return pass(play, {1, 3, 1}); }},
		{"from the dead, to one on its way", 3, 2, [&](Play &play) { return pass(play, {1, 2, 4, 3, 2}); }},
		{"through the dead, to one on its way", 4, 2, [&](Play &play) { return pass(play, {1, 2, 3, 4, 2}); }},
		{"through the dead, which was home", 4, 2, [&](Play &play) { return pass(play, {3, 4, 2}); }},
		{"through the dead, home", 4, 1, [&](Play &play) { return pass(play, {1, 3, 4, 1}); }},
		{"through the dead, whose word is scribbled over", 4, 2,
		 [&](Play &play) {
			 const Handle handle = pass(play, {1, 3, 4, 2});
			 auto &word = play.world.record(3, handle.index).word;
			 const Word old{word};
			 word = Word::make(State::owned, old.from(), 0, old.entry(), old.serial()).bits;
			 return handle;
		 }},
		{"of the dead one's own, whose word is scribbled over", 4, 2, [&](Play &play) {
			 const Handle handle = pass(play, {3, 4, 2});
			 play.world.record(3, handle.index).word = Word::make(State::owned, 3, 0, 0, 99).bits;
			 return handle;
		 }}};

	for (const Scene &scene : all)
		for (const bool receiver_first : {true, false}) {
			bool any_stopped = true;
			for (int m = 0; any_stopped; m++) { // 0: never
				bool n_stopped = true;
				any_stopped = m == 0;
				for (int n = 1; n_stopped; n++) {
					const std::string where = scene.name + std::string(receiver_first ? ", receives" : ", reclaims") +
								  " first, steps " + std::to_string(m) + " and " + std::to_string(n) + ": ";
					Play play;
					const Handle handle = scene.set(play);
					std::thread supervisor, receiver;
					Stop reclaims{m}, receives{n};
					int error = -1;
					bool m_stopped = false;
					const auto reclaim = [&] {
						m_stopped = until(reclaims, [&] { ASSERT_TRUE(play.world.heap.reclaim(3)); }, supervisor);
					};
					// It may have to wait for the reclaim.
					const auto receive = [&](std::chrono::milliseconds patience) {
						(void)until(receives, [&] {
							auto buffer = play.world[scene.to].receive<int>(handle, scene.from);
							error = error_of(buffer);
							if (buffer)
								play.held.emplace_back(scene.to, std::move(*buffer));
						}, receiver, patience);
					};

					if (receiver_first) {
						receive(std::chrono::seconds(20));
						reclaim();
						if (m_stopped) {
							receives.go_on.release();
							(void)receives.ended.try_acquire_for(std::chrono::milliseconds(1));
						}
					} else {
						reclaim();
						receive(std::chrono::milliseconds(1));
					}
					reclaims.go_on.release();
					supervisor.join();
					for (const DomainId home : {1, 2, 4})
						play.world[home].collect();
					receives.go_on.release();
					receiver.join();
					n_stopped = receives.has_stopped;
					any_stopped |= m_stopped;
					EXPECT_TRUE(error == 0 || error == EOWNERDEAD || error == ESTALE || error == EBADF) << where << error;
					expect_order(play, where);
					if (testing::Test::HasFailure())
						return;
				}
			}
		}
}

// Somebody sends to a domain that dies meanwhile, what is his or has come from elsewhere.
TEST(D3_CleanEnd, AReclaimWhileSomebodySendsToTheDead)
{
	for (const bool own : {true, false}) {
		bool stopped = true;
		for (int n = 1; stopped; n++) {
			Play play;
			auto buffer = own ? std::move(*play.world[1].make<int>(zone, 1)) : play.get(play.give(2, 1), 2, 1);
			std::thread thread;
			Stop at{n};
			stopped = until(at, [&] { (void)play.world[1].send(std::move(buffer), 3); }, thread);
			ASSERT_TRUE(play.world.heap.reclaim(3));
			at.go_on.release();
			thread.join();
			if (buffer)
				play.held.emplace_back(1, std::move(buffer));
			expect_order(play, "sends, step " + std::to_string(n) + ": ");
		}
	}
}

// The supervisor stops at any store of a reclaim, and survivors move what it is about.
TEST(D3_CleanEnd, MovesWhileAReclaimIsUnderWay)
{
	bool stopped = true;
	int n = 1;

	for (; stopped; n++) {
		Play play;
		// 1 to 3 to 2, and 3's own to 2 to 4; in flight from 3 to 4, and from 1 to 3.
		play.held.emplace_back(2, play.get(*play.world[3].send(play.get(play.give(1, 3), 1, 3), 2), 3, 2));
		play.held.emplace_back(4, play.get(*play.world[2].send(play.get(play.give(3, 2), 3, 2), 4), 2, 4));
		const Handle to_four = play.give(3, 4);
		play.give(1, 3);
		std::thread supervisor;
		Stop at{n};
		stopped = until(at, [&] { ASSERT_TRUE(play.world.heap.reclaim(3)); }, supervisor);
		std::thread mover([&] {
			for (auto &[domain, buffer] : play.held) {
				auto sent = play.world[domain].send(std::move(buffer), 1);
				ASSERT_TRUE(sent) << sent.error().message();
				auto received = play.world[1].receive<int>(*sent, domain);
				ASSERT_TRUE(received) << n << received.error().message();
				buffer = std::move(*received);
				domain = 1;
			}
			if (auto late = play.world[4].receive<int>(to_four, 3))
				play.held.emplace_back(4, std::move(*late));
		});
		if (n % 2)
			std::this_thread::sleep_for(std::chrono::milliseconds(1)); // who waits for it waits
		at.go_on.release();
		supervisor.join();
		mover.join();
		expect_order(play, "reclaim, step " + std::to_string(n) + ": ");
	}
	EXPECT_GT(n, 10);
}

} // namespace
