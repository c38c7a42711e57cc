// SPDX-License-Identifier: MIT
//
// Promises 4 and 6 for calls that nobody waits for: the queue, its limit, skipping and
// replacing, cancelling, and one outcome for each.
#include "orbit_test.h"

#include <atomic>
#include <fcntl.h>
#include <numeric>
#include <optional>
#include <string>
#include <sys/mman.h>
#include <vector>

namespace {

using orbit::CallOptions;
using orbit::Waiting;

std::uint64_t tasks_run; // the orbit's own

std::uint64_t first_word(const std::uint64_t *p)
{
	return *p;
}

int identity(int value)
{
	return value;
}

// An orbit that is kept busy until it is told to go on.
class P6_Async : public testing::Test {
protected:
	orbit::Orbit make(orbit::Options options = {})
	{
		options.keep_fds = {&gate_.read_end, 1};
		return make_orbit(options);
	}

	// A task that waits at the gate, and runs when this returns.
	orbit::Task<char> block(orbit::Orbit &orbit, const CallOptions &options = {})
	{
		auto task = value_or_throw(orbit.call_async(options, {}, [](int gate) {
			char byte = 0;

			return read(gate, &byte, 1) == 1 ? byte : '?';
		}, gate_.read_end));

		EXPECT_TRUE(eventually([&] {
			return value_or_throw(orbit.stat()).state == ORBIT_STATE_RUNNING;
		}));
		return task;
	}
	void open_gate() { gate_.put('g'); }

	Pipe gate_;
};

TEST_F(P6_Async, AValueIsThereWhenItIsWaitedFor)
{
	orbit::Orbit orbit = make();
	auto blocker = block(orbit);
	auto task = value_or_throw(orbit.call_async({}, identity, 42));

	EXPECT_EQ(blocker.number(), 1U);
	EXPECT_EQ(task.number(), 2U);
	EXPECT_FALSE(task.ready());
	EXPECT_EQ(task.wait_for(20ms).error().code(), ETIME);
	EXPECT_EQ(task.wait_for(0ms).error().code(), ETIME);
	open_gate();
	EXPECT_EQ(task.wait(), 42);
	EXPECT_TRUE(task.ready());
	EXPECT_TRUE(blocker.ready()) << "tasks end in the order of the calls";
	EXPECT_EQ(blocker.wait(), 'g');
	EXPECT_EQ(task.wait_for(0ms), 42) << "as often as one likes";
}

TEST_F(P6_Async, Poll)
{
	orbit::Orbit orbit = make();
	auto task = block(orbit);
	pollfd fd = {task.fd(), POLLIN, 0};

	EXPECT_EQ(fcntl(task.fd(), F_GETFD), FD_CLOEXEC);
	EXPECT_EQ(poll(&fd, 1, 0), 0);
	std::thread opener([&] {
		usleep(50'000);
		open_gate();
	});
	EXPECT_EQ(poll(&fd, 1, 20'000), 1);
	EXPECT_EQ(fd.revents, POLLIN | POLLHUP);
	opener.join();
	EXPECT_EQ(task.wait(), 'g');
}

// The snapshot is that of the call, not that of the task's start.
TEST_F(P6_Async, EveryTaskSeesTheMomentOfItsCall)
{
	const orbit::Pool pool = make_pool(4 * page);
	auto *word = pool.as<std::uint64_t>();
	orbit::Orbit orbit = make();
	auto blocker = block(orbit);
	std::vector<orbit::Task<std::uint64_t>> tasks;

	for (std::uint64_t i = 1; i <= 50; i++) {
		*word = i;
		tasks.push_back(value_or_throw(orbit.call_async(pool, first_word, word)));
	}
	*word = 99;
	open_gate();
	for (std::uint64_t i = 1; i <= 50; i++)
		EXPECT_EQ(tasks[i - 1].wait(), i);
}

TEST_F(P6_Async, ThoseWithoutAHandleRunToo)
{
	orbit::Orbit orbit = make();

	for (int i = 0; i < 100; i++)
		ASSERT_TRUE(orbit.post({}, [] { tasks_run++; }));
	EXPECT_EQ(orbit.call({}, [] { return tasks_run; }), 100U);
	EXPECT_EQ(value_or_throw(orbit.stat()).completed, 101U);
}

TEST_F(P6_Async, ADroppedHandleLetsTheTaskGoOn)
{
	orbit::Orbit orbit = make();
	auto blocker = block(orbit);

	for (int i = 0; i < 10; i++)
		(void)value_or_throw(orbit.call_async({}, [] { return ++tasks_run; }));
	open_gate();
	EXPECT_EQ(orbit.call({}, [] { return tasks_run; }), 10U);
}

// Lesson 19: what nobody asks for is not kept.
TEST_F(P6_Async, ManyWithoutAHandleLeaveNothing)
{
	orbit::Orbit orbit = make();

	for (int i = 0; i < 3000; i++)
		ASSERT_TRUE(orbit.post({.wait_room = true}, {}, [] {}));
	EXPECT_TRUE(orbit.call({.wait_room = true}, {}, [] {}));

	const struct orbit_stat st = value_or_throw(orbit.stat());

	EXPECT_EQ(st.queued, 0U);
	EXPECT_EQ(st.completed, 3001U);
}

TEST_F(P6_Async, ManyThreadsInOneQueue)
{
	constexpr unsigned threads = 4, calls = 100;
	orbit::Orbit orbit = make();
	std::vector<std::thread> callers;
	std::atomic<unsigned> wrong{0};

	for (unsigned t = 0; t < threads; t++)
		callers.emplace_back([&] {
			std::vector<orbit::Task<std::uint64_t>> tasks;
			std::uint64_t last = 0;

			for (unsigned i = 0; i < calls; i++)
				tasks.push_back(value_or_throw(
					orbit.call_async({}, [] { return ++tasks_run; })));
			for (auto &task : tasks) {
				const auto place = task.wait();

				// It ran in its turn, after this thread's earlier ones.
				wrong += !place || *place != task.number() || *place <= last;
				last = place.value_or(0);
			}
		});
	for (std::thread &caller : callers)
		caller.join();
	EXPECT_EQ(wrong, 0U);
	EXPECT_EQ(value_or_throw(orbit.stat()).completed, threads * calls);
}

TEST_F(P6_Async, AFullQueue)
{
	orbit::Orbit orbit = make({.queue_limit = 3});
	auto blocker = block(orbit);

	ASSERT_TRUE(orbit.post({}, [] {}));
	ASSERT_TRUE(orbit.post({}, [] {}));

	const auto full = orbit.call_async({}, identity, 1);

	ASSERT_FALSE(full);
	EXPECT_EQ(full.error().code(), EAGAIN);
	EXPECT_EQ(full.error().message(), "the orbit's queue is full");
	EXPECT_EQ(orbit.call({}, identity, 1).error().code(), EAGAIN);
	EXPECT_EQ(orbit.post({.timeout = 20ms, .wait_room = true}, {}, [] {}).error().code(), ETIME);
	EXPECT_EQ(value_or_throw(orbit.stat()).queued, 3U);

	std::thread opener([&] {
		usleep(50'000);
		open_gate();
	});
	EXPECT_EQ(orbit.call({.wait_room = true}, {}, identity, 7), 7);
	opener.join();
	EXPECT_EQ(value_or_throw(orbit.stat()).completed, 4U);
}

TEST_F(P6_Async, TheDeadlineOfAWaitingCall)
{
	orbit::Orbit orbit = make();
	auto blocker = block(orbit);
	orbit_call_options options{};
	orbit_outcome out{};
	const orbit_entry entry = [](const void *, std::size_t) -> std::uint64_t { return 5; };

	options.size = sizeof(options);
	out.size = sizeof(out);
	options.deadline_ns = orbit_deadline(20'000'000);
	EXPECT_EQ(orbit_call(orbit.raw(), entry, nullptr, 0, &options, &out), -ETIME);
	EXPECT_EQ(out.task, 2U);
	// It goes on, and can be waited for again.
	options.resume = out.task;
	EXPECT_EQ(orbit_call(orbit.raw(), entry, nullptr, 0, &options, &out), -ETIME);
	EXPECT_EQ(out.task, 2U);
	open_gate();
	options.deadline_ns = 0;
	EXPECT_EQ(orbit_call(orbit.raw(), entry, nullptr, 0, &options, &out), 0);
	EXPECT_EQ(out.value, 5U);
	EXPECT_EQ(out.task, 2U);
	EXPECT_EQ(orbit_call(orbit.raw(), entry, nullptr, 0, &options, &out), -ESRCH);
}

TEST_F(P6_Async, CancelByHandle)
{
	orbit::Orbit orbit = make();
	auto blocker = block(orbit);
	auto one = value_or_throw(orbit.call_async({}, identity, 1));
	auto two = value_or_throw(orbit.call_async({}, identity, 2));

	EXPECT_TRUE(one.cancel());
	EXPECT_TRUE(one.ready());
	EXPECT_EQ(one.wait().error().code(), ECANCELED);
	EXPECT_EQ(one.wait().error().message(), "cancelled");
	EXPECT_EQ(one.cancel().error().code(), ESRCH);
	EXPECT_EQ(blocker.cancel().error().code(), EBUSY);
	open_gate();
	EXPECT_EQ(two.wait(), 2);
	EXPECT_EQ(two.cancel().error().code(), ESRCH);
	EXPECT_EQ(value_or_throw(orbit.stat()).cancelled, 1U);
}

TEST_F(P6_Async, CancelByArgument)
{
	orbit::Orbit orbit = make();
	auto blocker = block(orbit);
	std::vector<orbit::Task<int>> tasks;

	for (int i = 0; i < 9; i++)
		tasks.push_back(value_or_throw(orbit.call_async({}, identity, i % 3)));
	EXPECT_EQ(orbit.cancel_same(identity, 1), 3U);
	EXPECT_EQ(orbit.cancel_same(identity, 1).error().code(), ESRCH);
	// Another function with the same bytes is another argument.
	EXPECT_EQ(orbit.cancel_same([](int x) { return x; }, 2).error().code(), ESRCH);
	open_gate();
	for (int i = 0; i < 9; i++) {
		if (i % 3 == 1) {
			EXPECT_EQ(tasks[static_cast<unsigned>(i)].wait().error().code(), ECANCELED);
		} else {
			EXPECT_EQ(tasks[static_cast<unsigned>(i)].wait(), i % 3);
		}
	}
}

TEST_F(P6_Async, CancelAll)
{
	orbit::Orbit orbit = make();

	EXPECT_EQ(orbit.cancel_all().error().code(), ESRCH);

	auto blocker = block(orbit);

	EXPECT_EQ(orbit.cancel_all().error().code(), EBUSY);

	auto task = value_or_throw(orbit.call_async({}, identity, 1));
	std::thread waits([&] { EXPECT_EQ(orbit.call({}, identity, 2).error().code(), ECANCELED); });

	EXPECT_TRUE(eventually([&] { return value_or_throw(orbit.stat()).queued == 3; }));
	EXPECT_EQ(orbit.cancel_all(), 2U);
	waits.join();
	EXPECT_EQ(task.wait().error().code(), ECANCELED);
	open_gate();
	EXPECT_EQ(blocker.wait(), 'g');
	EXPECT_EQ(orbit.call({}, identity, 3), 3);
}

TEST_F(P6_Async, CancelWhatRuns)
{
	orbit::Orbit orbit = make({.restart = true});
	auto running = block(orbit);
	auto next = value_or_throw(orbit.call_async({}, identity, 1));

	EXPECT_TRUE(running.cancel(true));
	EXPECT_TRUE(running.ready());
	EXPECT_EQ(running.wait().error().code(), ECANCELED);
	EXPECT_EQ(next.wait(), 1) << "in a fresh process";
	EXPECT_EQ(value_or_throw(orbit.stat()).restarts, 1U);
}

// What main changed for a task that was cancelled, the next one sees.
TEST_F(P6_Async, TheDifferencesOfCancelledTasksAreNotLost)
{
	constexpr std::size_t pages = 16;
	const orbit::Pool pool = make_pool(pages * page);
	orbit::Orbit orbit = make();
	const auto sum = [](const std::byte *data) {
		std::uint64_t all = 0;

		for (std::size_t i = 0; i < pages; i++)
			all += *reinterpret_cast<const std::uint64_t *>(data + i * page);
		return all;
	};
	std::uint64_t expected = 0;

	EXPECT_EQ(orbit.call(pool, sum, pool.data()), 0U);
	for (std::size_t round = 0; round < 3; round++) {
		auto blocker = block(orbit);
		std::vector<orbit::Task<std::uint64_t>> tasks;

		for (std::size_t i = 0; i < pages; i++) {
			*pool.as<std::uint64_t>(i * page) += i + round;
			expected += i + round;
			tasks.push_back(value_or_throw(orbit.call_async(
				{.replaceable = true}, pool, sum, pool.data())));
			if (i % 3 == round) {
				EXPECT_TRUE(tasks.back().cancel());
			}
		}

		auto last = value_or_throw(orbit.call_async(
			{.waiting = Waiting::replace_any}, pool, sum, pool.data()));

		open_gate();
		EXPECT_EQ(last.wait(), expected) << "in round " << round;
		for (auto &task : tasks)
			EXPECT_EQ(task.wait().error().code(), ECANCELED);
	}
}

TEST_F(P6_Async, SkipWhenOneWaits)
{
	orbit::Orbit orbit = make();
	const CallOptions same = {.waiting = Waiting::skip_same}, any = {.waiting = Waiting::skip_any};
	auto blocker = block(orbit, any); // nothing waits: one that runs does not count
	auto first = value_or_throw(orbit.call_async(same, {}, identity, 1));
	const auto again = orbit.call_async(same, {}, identity, 1);

	ASSERT_FALSE(again);
	EXPECT_EQ(again.error().code(), EEXIST);

	auto second = value_or_throw(orbit.call_async(same, {}, identity, 2));

	EXPECT_EQ(orbit.call_async(any, {}, identity, 3).error().code(), EEXIST);
	EXPECT_EQ(orbit.call(any, {}, identity, 3).error().code(), EEXIST);
	EXPECT_EQ(value_or_throw(orbit.stat()).skipped, 3U);
	open_gate();
	EXPECT_EQ(first.wait(), 1);
	EXPECT_EQ(second.wait(), 2);
	EXPECT_EQ(orbit.call(any, {}, identity, 3), 3);
}

TEST_F(P6_Async, ReplaceWhatWaits)
{
	orbit::Orbit orbit = make();
	auto blocker = block(orbit);
	auto kept = value_or_throw(orbit.call_async({}, identity, 1));
	auto other = value_or_throw(orbit.call_async({.replaceable = true}, {}, identity, 2));
	auto old = value_or_throw(orbit.call_async({.replaceable = true}, {}, identity, 1));
	auto fresh = value_or_throw(orbit.call_async(
		{.waiting = Waiting::replace_same, .replaceable = true}, {}, identity, 1));

	EXPECT_EQ(old.wait().error().code(), ECANCELED);
	EXPECT_FALSE(other.ready());
	EXPECT_FALSE(kept.ready()) << "it was not called as replaceable";

	auto last = value_or_throw(
		orbit.call_async({.waiting = Waiting::replace_any}, {}, identity, 3));

	EXPECT_EQ(other.wait().error().code(), ECANCELED);
	EXPECT_EQ(fresh.wait().error().code(), ECANCELED);
	open_gate();
	EXPECT_EQ(kept.wait(), 1);
	EXPECT_EQ(last.wait(), 3);
}

TEST_F(P6_Async, TasksEndWithTheOrbit)
{
	std::optional<orbit::Orbit> orbit(make());
	auto running = block(*orbit);
	auto waiting = value_or_throw(orbit->call_async({}, identity, 1));

	orbit.reset();
	EXPECT_EQ(running.wait().error().code(), ECONNRESET);
	EXPECT_EQ(running.wait().error().cause(), ORBIT_CAUSE_DESTROYED);
	EXPECT_EQ(waiting.wait().error().code(), ECANCELED);
	EXPECT_EQ(waiting.cancel().error().code(), ESRCH);
	EXPECT_EQ(waiting.receive().error().code(), ENODATA);
}

TEST_F(P6_Async, ACrashIsReportedWithItsTask)
{
	static std::string message;
	orbit::Orbit orbit = make();

	orbit_log_to([](void *, int, const char *text) { message = text; }, nullptr);

	auto died = value_or_throw(orbit.call_async({}, [](int gate) {
		char byte;

		if (read(gate, &byte, 1) == 1)
			std::raise(SIGABRT);
	}, gate_.read_end));
	auto never = value_or_throw(orbit.call_async({}, identity, 1));

	open_gate();
	const auto got = died.wait();

	orbit_log_to(nullptr, nullptr);
	ASSERT_FALSE(got);
	EXPECT_EQ(got.error().code(), ECONNRESET);
	EXPECT_EQ(got.error().signal(), SIGABRT);
	EXPECT_EQ(got.error().outcome().task, 1U);
	EXPECT_NE(message.find("task 1 of orbit"), std::string::npos) << message;
	EXPECT_NE(message.find("SIGABRT"), std::string::npos) << message;
	EXPECT_EQ(never.wait().error().code(), ECANCELED);
	EXPECT_EQ(orbit.call_async({}, identity, 1).error().code(), ESHUTDOWN);
	EXPECT_EQ(orbit.post({}, [] {}).error().code(), ESHUTDOWN);
}

TEST_F(P6_Async, OnlyMainReceives)
{
	orbit::Orbit orbit = make();
	auto task = block(orbit);
	OtherMain child([&] {
		if (task.wait().error().code() != EPERM || task.cancel(true).error().code() != EPERM)
			return 1;
		{
			const auto inherited = std::move(task);
		}
		return 0;
	});

	EXPECT_EQ(child.wait(), 0);
	open_gate();
	EXPECT_EQ(task.wait(), 'g');
}

std::atomic<int> signals_handled;

TEST_F(P6_Async, SignalsInterruptOnlyWhoAsked)
{
	orbit::Orbit orbit = make();
	struct sigaction action = {}, before;
	orbit_call_options options{};
	orbit_task *task = nullptr;

	signals_handled = 0;
	action.sa_handler = [](int) { signals_handled++; };
	sigaction(SIGUSR1, &action, &before);

	auto deaf = block(orbit);

	options.size = sizeof(options);
	options.flags = ORBIT_CALL_INTERRUPTIBLE;
	ASSERT_EQ(orbit_call_async(
			  orbit.raw(), [](const void *, std::size_t) -> std::uint64_t { return 8; }, nullptr,
			  0, &options, &task),
		  0);
	std::atomic<bool> interrupted = false;
	std::thread pester([&, main = pthread_self()] {
		const auto signal_main = [&] {
			const int before = signals_handled;

			usleep(30'000);
			pthread_kill(main, SIGUSR1);
			EXPECT_TRUE(eventually([&] { return signals_handled == before + 1; }));
		};

		while (!interrupted) // the first may come before main waits
			signal_main();
		signal_main();
		usleep(30'000);
		open_gate();
	});
	EXPECT_EQ(orbit_task_wait(task, 0, nullptr), -EINTR);
	interrupted = true;
	EXPECT_EQ(deaf.wait(), 'g');
	EXPECT_EQ(orbit_task_wait(task, 0, nullptr), 0);
	pester.join();
	orbit_task_destroy(task);
	sigaction(SIGUSR1, &before, nullptr);
}

// Parts of pools, and every mode, through the library.
TEST_F(P6_Async, PartsOfPools)
{
	const orbit::Pool pool = make_pool(8 * page);
	orbit::Orbit orbit = make();
	const auto word = [&](std::size_t i) { return pool.as<std::uint64_t>(i * page); };

	for (std::size_t i = 0; i < 8; i++)
		*word(i) = i;
	for (const auto mode : {orbit::Mode::cow, orbit::Mode::copy, orbit::Mode::adaptive}) {
		const orbit::PoolRange part(pool, 2 * page, 3 * page, mode), rest(pool, 5 * page, 0, mode);

		EXPECT_EQ(orbit.call(part, first_word, word(4)), 4U);
		EXPECT_EQ(orbit.call({rest}, first_word, word(7)), 7U);
	}

	orbit::Orbit doomed = make();
	const auto outside =
		doomed.call({{pool, 2 * page, 3 * page}}, first_word, word(5));

	ASSERT_FALSE(outside);
	EXPECT_EQ(outside.error().signal(), SIGBUS);
	EXPECT_EQ(orbit.call({{pool, 0, page}, {pool, page, page}}, [] {}).error().code(), EINVAL);
}

TEST_F(P6_Async, MovedPagesAreTheTasks)
{
	const orbit::Pool pool = make_pool(4 * page), other = make_pool(page);
	orbit::Orbit orbit = make();
	auto *word = pool.as<std::uint64_t>(page);

	*word = 7;
	*other.as<std::uint64_t>() = 8;
	EXPECT_EQ(orbit.call({{pool, page, page, orbit::Mode::move}, other}, first_word, word), 7U);
	EXPECT_EQ(*word, 0U);
	EXPECT_EQ(orbit.call({pool, other}, first_word, word), 0U);
	*word = 9;
	EXPECT_EQ(orbit.call(pool, first_word, word), 9U);
	EXPECT_GE(value_or_throw(orbit.stat()).pages_moved, 1U);
}

} // namespace
