// SPDX-License-Identifier: MIT
//
// Where the example mysql-deadlock asks its detector: each question gets its own answer, a task that is not needed leaves, and
// whatever a task writes there ends nobody.
#include "../../examples/mysql-deadlock/detector/desk.h"

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <gtest/gtest.h>
#include <memory>
#include <random>
#include <thread>
#include <vector>

namespace {

using deadlock::Customer;
using deadlock::Deadlock;
using deadlock::Desk;
using deadlock::Question;
using deadlock::Rule;
using deadlock::Shift;

constexpr std::uint64_t second = 1'000'000'000;
constexpr Shift until_sent_away{.patience_ns = 3600 * second, .longest_ns = 3600 * second, .most_work_ns = 3600 * second};

// As many deadlocks as the question has bytes, up to five, with a number that was in it.
std::vector<Deadlock> repeat(const Question &question)
{
	std::uint64_t number = 0;

	std::memcpy(&number, question.memory, sizeof(number));
	return std::vector<Deadlock>(question.bytes % 6, Deadlock{number, number, 0, 0, 0});
}

// Ask, and call a task if there is none; each has a thread.
class Asking {
public:
	explicit Asking(Shift shift) : shift_(shift) {}
	~Asking()
	{
		customer_.ask(nullptr, 0, Rule::mariadb);
		customer_.ring();
		for (auto &task : tasks_)
			task.join();
	}

	void ask(std::uint64_t number, std::size_t bytes)
	{
		std::vector<unsigned char> question(bytes);

		std::memcpy(question.data(), &number, sizeof(number));
		customer_.ask(question.data(), bytes, Rule::mysql);
		if (!tasks_.empty() && customer_.is_staffed()) {
			customer_.ring();
			return;
		}
		// One task at a time, as an orbit has it.
		for (auto &task : tasks_)
			task.join();
		tasks_.clear();
		customer_.prepare();
		tasks_.emplace_back([this] { answered_ += deadlock::answer_at(*desk_, repeat, shift_); });
		called_++;
	}

	void check(std::uint64_t number, std::size_t bytes)
	{
		std::vector<Deadlock> found(deadlock::most);

		ask(number, bytes);
		while (!customer_.wait(second))
			;
		ASSERT_EQ(customer_.take(found.data()), bytes % 6);
		for (std::size_t i = 0; i < bytes % 6; i++)
			ASSERT_EQ(found[i].victim_number, number);
	}

	std::unique_ptr<Desk> desk_ = std::make_unique<Desk>();
	Customer customer_{desk_.get()};
	Shift shift_;
	std::vector<std::thread> tasks_;
	std::uint64_t answered_ = 0; // a task that has been joined adds to it
	unsigned called_ = 0;
};

TEST(DeadlockDesk, EachQuestionGetsItsAnswer)
{
	Asking asking(until_sent_away);

	for (std::uint64_t i = 0; i < 5000; i++)
		asking.check(i, 8 + i % (deadlock::most_carried - 7));
	EXPECT_EQ(asking.called_, 1);
}

TEST(DeadlockDesk, ATaskThatIsAboutToLeaveAnswersWhoHasAsked)
{
	// It leaves after each wait, or at once: as many chances as there are questions to ask just then.
	for (const Shift shift : {Shift{.patience_ns = 1, .longest_ns = second, .most_work_ns = second},
				  Shift{.patience_ns = 20000, .longest_ns = second, .most_work_ns = second},
				  Shift{.patience_ns = second, .longest_ns = 0, .most_work_ns = second},
				  Shift{.patience_ns = second, .longest_ns = second, .most_work_ns = 0}}) {
		Asking asking(shift);

		for (std::uint64_t i = 0; i < 1000; i++)
			asking.check(i, 8 + i % 100);
		if (!shift.longest_ns) { // otherwise it depends on how soon the next one asks
			EXPECT_GT(asking.called_, 1);
		}
	}
}

TEST(DeadlockDesk, ATaskThatIsSentAwayLeaves)
{
	Asking asking(until_sent_away);

	asking.check(1, 100);
	asking.customer_.ask(nullptr, 0, Rule::mariadb);
	asking.customer_.ring();
	asking.tasks_[0].join();
	asking.tasks_.clear();
	EXPECT_EQ(asking.answered_, 1);
	asking.check(2, 101); // by another one
	EXPECT_EQ(asking.called_, 2);
}

TEST(DeadlockDesk, MoreAnswersThanThereCanBeAreNone)
{
	const auto desk = std::make_unique<Desk>();
	std::vector<Deadlock> found(deadlock::most);
	Customer customer(desk.get());

	for (const std::uint64_t count : {std::uint64_t{deadlock::most} + 1, std::uint64_t{1} << 59, UINT64_MAX}) {
		desk->nr_found = count;
		EXPECT_EQ(customer.take(found.data()), SIZE_MAX);
	}
	desk->nr_found = deadlock::most;
	EXPECT_EQ(customer.take(found.data()), deadlock::most);
}

TEST(DeadlockDesk, WhateverIsWrittenThereNobodyReadsBeyondIt)
{
	const auto desk = std::make_unique<Desk>();
	std::vector<Deadlock> found(deadlock::most);
	std::mt19937_64 random(1);
	Customer customer(desk.get());
	std::uint64_t question[4] = {};

	for (int round = 0; round < 1000; round++) {
		for (std::size_t i = 0; i < sizeof(Desk); i++)
			reinterpret_cast<volatile unsigned char *>(desk.get())[i] = static_cast<unsigned char>(random());
		customer.take(found.data());
		customer.wait(0);
		customer.ask(question, sizeof(question), Rule::mariadb);
		customer.is_staffed();
		// Whoever begins anew finds it as it should be.
		customer.prepare();
		EXPECT_EQ(deadlock::answer_at(*desk, repeat, {.patience_ns = 1}), 1);
		EXPECT_TRUE(customer.wait(0));
		EXPECT_EQ(customer.take(found.data()), sizeof(question) % 6);
	}
}

} // namespace
