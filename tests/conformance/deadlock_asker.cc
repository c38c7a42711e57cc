// SPDX-License-Identifier: MIT
//
// How the example mysql-deadlock asks its orbit: each question gets its own answer, small and large, and an orbit that dies or
// answers nonsense costs that answer and no other.
#include "orbit_test.h"

#define DEADLOCK_FAULTS
#include "../../examples/mysql-deadlock/detector/asker.cc"
#include "../../examples/mysql-deadlock/detector/task.cc"

#include <fstream>
#include <string>
#include <unistd.h>
#include <vector>

namespace {

using deadlock::Asker;
using deadlock::Deadlock;
using deadlock::Header;
using deadlock::Rule;
using deadlock::Wait;
using deadlock::Waits;

constexpr std::size_t slots = 1000;
constexpr std::uint64_t tick = 5'000'000;
// Twice the limit that ends a task which gets no processor to reach its other one.
constexpr auto longest = 60s;

class Asked : public testing::Test {
protected:
	void SetUp() override
	{
		path_ = testing::TempDir() + "deadlock_fault." + std::to_string(getpid());
		fault("");
		setenv("DEADLOCK_FAULT", path_.c_str(), 1);

		ASSERT_TRUE(asker_.make_memory(sizeof(Header) + slots * sizeof(Wait), true, reason_, sizeof(reason_))) << reason_;
		ASSERT_TRUE(asker_.make("deadlocks", reason_, sizeof(reason_))) << reason_;
		waits_ = std::make_unique<Waits>(asker_.memory(), asker_.size());
	}

	void TearDown() override
	{
		asker_.close();
		unlink(path_.c_str());
	}

	// What the detector is to do wrong; it looks there each time.
	void fault(const char *word) const { std::ofstream(path_) << word; }

	// `others` transactions that wait for nobody in the way, and two that wait for each other, of which the first is lighter.
	void make_deadlock(std::size_t others)
	{
		for (std::size_t i = 0; i < others; i++)
			waits_->begin(1000 + i, 1, 1);
		victim_ = waits_->begin(10, 11, 5);
		latest_ = waits_->begin(11, 10, 6);
	}

	void end_all()
	{
		for (std::uint32_t slot = 0; slot < waits_->used(); slot++)
			if (waits_->number(slot))
				waits_->end(slot);
	}

	// @param late What happens between asking and the answer.
	template <typename Late> Asker::Answer ask(std::vector<Deadlock> &found, const Late &late)
	{
		const auto end = std::chrono::steady_clock::now() + longest;
		Asker::Answer answer = Asker::Answer::pending;

		asker_.put(waits_->bytes(), Rule::mysql);
		late();
		if (!asker_.send())
			return Asker::Answer::failed;
		while (answer == Asker::Answer::pending && std::chrono::steady_clock::now() < end)
			answer = asker_.wait(tick, found);
		return answer;
	}

	Asker::Answer ask(std::vector<Deadlock> &found)
	{
		return ask(found, [] {});
	}

	void expect_deadlock()
	{
		std::vector<Deadlock> found;

		ASSERT_EQ(ask(found), Asker::Answer::here) << asker_.why();
		ASSERT_EQ(found.size(), 1);
		EXPECT_EQ(found[0].victim, victim_);
		EXPECT_EQ(found[0].victim_number, waits_->number(victim_));
		EXPECT_EQ(found[0].latest, latest_);
		EXPECT_EQ(found[0].length, 2);
	}

	Asker asker_;
	std::unique_ptr<Waits> waits_;
	char reason_[512] = "";
	std::uint32_t victim_ = 0, latest_ = 0;

private:
	std::string path_;
};

TEST_F(Asked, SmallAndLargeQuestionsGetTheirOwnAnswers)
{
	for (int round = 0; round < 10; round++) {
		for (const std::size_t others : {0, 20, 125, 126, 500, 3}) {
			std::vector<Deadlock> found;

			ASSERT_EQ(ask(found), Asker::Answer::here) << asker_.why();
			EXPECT_TRUE(found.empty());
			make_deadlock(others);
			expect_deadlock();
			end_all();
		}
	}
}

TEST_F(Asked, WhatHappensAfterwardsIsNotLookedAt)
{
	for (const std::size_t others : {0, 500}) {
		std::vector<Deadlock> found;

		ASSERT_EQ(ask(found, [&] { make_deadlock(others); }), Asker::Answer::here) << asker_.why();
		EXPECT_TRUE(found.empty());
		ASSERT_EQ(ask(found, [&] { end_all(); }), Asker::Answer::here) << asker_.why();
		EXPECT_EQ(found.size(), 1);
	}
}

TEST_F(Asked, AnOrbitThatDiesIsMadeAnew)
{
	for (const std::size_t others : {0, 500}) {
		std::vector<Deadlock> found;

		make_deadlock(others);
		fault("abort");
		ASSERT_EQ(ask(found), Asker::Answer::failed);
		EXPECT_TRUE(found.empty());
		EXPECT_TRUE(asker_.has_died());
		EXPECT_NE(std::string(asker_.why()).find("SIGABRT"), std::string::npos) << asker_.why();
		fault("");
		expect_deadlock();
		end_all();
	}
}

TEST_F(Asked, OneThatDoesNotComeToAnEndIsStopped)
{
	std::vector<Deadlock> found;

	make_deadlock(0);
	fault("loop");
	ASSERT_EQ(ask(found), Asker::Answer::failed);
	EXPECT_TRUE(asker_.has_died());
	fault("");
	expect_deadlock();
}

TEST_F(Asked, OneThatLeavesWithoutAnAnswerHasNone)
{
	std::vector<Deadlock> found;

	make_deadlock(0);
	fault("leave");
	ASSERT_EQ(ask(found), Asker::Answer::failed);
	EXPECT_FALSE(asker_.has_died());
	EXPECT_EQ(std::string(asker_.why()), "it answered nonsense");
	fault("");
	expect_deadlock();
}

TEST_F(Asked, NonsenseAtTheDeskIsNoMoreThanThat)
{
	make_deadlock(0);
	for (int round = 0; round < 20; round++) {
		std::vector<Deadlock> found;

		fault("desk");
		if (ask(found) == Asker::Answer::here) {
			EXPECT_LE(found.size(), deadlock::most);
		}
		fault("");

		// The one who has lost its head may still be there for one question.
		for (int i = 0; i < 3 && (ask(found) != Asker::Answer::here || found.size() != 1); i++)
			;
		expect_deadlock();
	}
}

TEST_F(Asked, CanLeaveInTheMiddleAndBeMadeAgain)
{
	for (const std::size_t others : {0, 500, 0}) {
		make_deadlock(others);
		asker_.put(waits_->bytes(), Rule::mysql);
		ASSERT_TRUE(asker_.send());
		asker_.leave();
		ASSERT_TRUE(asker_.make("deadlocks", reason_, sizeof(reason_))) << reason_;
		expect_deadlock();
		end_all();
	}
}

TEST(Memory, NeedNotBeOneThatAnOrbitSees)
{
	Asker asker;
	char reason[512] = "";

	ASSERT_TRUE(asker.make_memory(4096, false, reason, sizeof(reason)));
	EXPECT_EQ(asker.size(), 4096);
	for (std::size_t i = 0; i < asker.size(); i++)
		ASSERT_EQ(static_cast<char *>(asker.memory())[i], 0);
	asker.close();
	EXPECT_EQ(asker.memory(), nullptr);
	asker.close();
}

TEST(Backoff, DoublesUntilItWorksAgain)
{
	deadlock::Backoff backoff;
	std::uint64_t now = 1;
	const auto clock = [&now] { return now; };

	EXPECT_TRUE(backoff.is_over(clock));
	for (std::uint64_t length = 100000; length < 60000000; length *= 2) {
		EXPECT_EQ(backoff.fail(now), length);
		now += length - 1;
		EXPECT_FALSE(backoff.is_over(clock));
		now++;
		EXPECT_TRUE(backoff.is_over(clock));
	}
	EXPECT_EQ(backoff.fail(now), 60000000);
	for (int i = 0; i < 100; i++)
		EXPECT_EQ(backoff.fail(now), 60000000);
	backoff.reset();
	EXPECT_TRUE(backoff.is_over(clock));
	EXPECT_EQ(backoff.fail(now), 100000);
	backoff.forget();
	EXPECT_EQ(backoff.fail(now), 100000);
}

} // namespace
