// SPDX-License-Identifier: MIT
//
// Signal handlers of the application that call the library, also where they have interrupted it: nothing
// hangs, and what cannot be done there says so.
#include "orbit_test.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <sys/time.h>

namespace {

std::uint64_t add_up(const void *arg, std::size_t)
{
	const auto *const words = *static_cast<std::uint64_t *const *>(arg);

	return words[0] + words[1];
}

void (*interrupt)();
long pause_us;

void interrupt_in(long microseconds)
{
	const itimerval once = {{0, 0}, {0, microseconds}};

	setitimer(ITIMER_REAL, &once, nullptr);
}

// Runs in a handler again and again, so many microseconds after its end and a few more, so that the program
// gets on, and not always to the same place.
class Interrupted {
public:
	Interrupted(void (*what)(), long microseconds)
	{
		struct sigaction action = {};

		interrupt = what;
		pause_us = microseconds;
		action.sa_handler = [](int) {
			static unsigned turn;

			interrupt();
			interrupt_in(pause_us + turn++ * 37 % 500);
		};
		action.sa_flags = SA_RESTART;
		sigaction(SIGALRM, &action, nullptr);
		interrupt_in(pause_us);
	}
	Interrupted(const Interrupted &) = delete;
	~Interrupted()
	{
		signal(SIGALRM, SIG_IGN);
		interrupt_in(0);
	}
};

// ---- Everything, from everywhere ------------------------------------------------------------

// What the main program and the handler do at once. C functions only: what the main program itself allocates
// could be interrupted.
struct Shared {
	orbit_handle *orbit;
	orbit_pool *pool;
	orbit_targets *targets;
	std::uint64_t *words;
	orbit_call_options options;
};

Shared shared;
// What has come of it. Refused: -EDEADLK.
volatile std::uint64_t done, refused, wrong;
volatile int wrong_error;

bool count(int err)
{
	if (!err) {
		done = done + 1;
	} else if (err == -EDEADLK) {
		refused = refused + 1;
	} else {
		wrong = wrong + 1;
		wrong_error = err;
	}
	return !err;
}

int call()
{
	orbit_outcome out{};

	out.size = sizeof(out);

	const int err = orbit_call(shared.orbit, add_up, &shared.words, sizeof(shared.words), &shared.options, &out);

	if (out.error != err || (!err && out.value != 5))
		return -EILSEQ;
	return err;
}

int call_async()
{
	orbit_task *task = nullptr;
	orbit_outcome out{};
	int err = orbit_call_async(shared.orbit, add_up, &shared.words, sizeof(shared.words), &shared.options, &task);

	if (err)
		return err;
	out.size = sizeof(out);
	err = orbit_task_wait(task, 0, &out);
	if (!err && out.value != 5)
		err = -EILSEQ;
	orbit_task_destroy(task);
	return err;
}

int create_pool()
{
	orbit_pool *pool = nullptr;
	const int err = orbit_pool_create(&pool, page, nullptr);

	if (err)
		return err;
	*static_cast<char *>(orbit_pool_data(pool)) = 1;
	orbit_pool_destroy(pool);
	return 0;
}

int make_targets()
{
	orbit_targets *targets = nullptr;
	int err = orbit_targets_create(&targets);

	if (err)
		return err;
	err = orbit_targets_add_range(targets, &shared, sizeof(shared));
	orbit_targets_destroy(targets);
	return err;
}

int ask()
{
	struct orbit_stat stat;

	return orbit_get_stat(shared.orbit, &stat, sizeof(stat));
}

int cancel()
{
	// Those without bytes, which nobody called: all of them would be main's, too, which may wait in the queue
	// when the handler runs between call_async()'s call and its wait.
	const int err = orbit_cancel(shared.orbit, add_up, nullptr, 0, 0, nullptr);

	return err == -ESRCH ? 0 : err;
}

constexpr std::array actions = {call, call_async, create_pool, make_targets, ask, cancel};

void do_anything()
{
	static unsigned turn;

	count(actions[turn++ % actions.size()]());
}

TEST(SignalHandlers, ThatInterruptTheLibraryAndCallItAreRefusedAndNothingHangs)
{
	OtherMain main([] {
		const orbit::Pool pool = make_pool(16 * page);
		orbit::Orbit orbit = make_orbit();
		std::uint64_t mains = 0;

		shared.orbit = orbit.raw();
		shared.pool = pool.raw();
		shared.words = reinterpret_cast<std::uint64_t *>(pool.data());
		shared.words[0] = 2;
		shared.words[1] = 3;
		shared.options.size = sizeof(shared.options);
		shared.options.pools = &shared.pool;
		shared.options.nr_pools = 1;
		{
			const Interrupted interrupted(do_anything, 100);
			const auto end = std::chrono::steady_clock::now() + 3s;

			while (std::chrono::steady_clock::now() < end || !refused || !done) {
				// Nothing of the main program's own calls is refused, or goes wrong.
				for (const auto action : actions) {
					if (const int err = action()) {
						dprintf(2, "main's call: %d\n", err);
						return 1;
					}
					mains++;
				}
				// Where it is not in the library, the handler is let in.
				usleep(300);
			}
		}
		if (wrong)
			dprintf(2, "%lu wrong, the last %d\n", static_cast<unsigned long>(wrong), wrong_error);
		dprintf(2, "%lu of main; of the handler %lu done, %lu refused\n", static_cast<unsigned long>(mains),
			static_cast<unsigned long>(done), static_cast<unsigned long>(refused));
		return wrong ? 2 : 0;
	});

	EXPECT_EQ(main.wait(), 0);
}

// ---- What cannot be refused -------------------------------------------------------------

orbit_handle *doomed;
orbit_task *doomed_task;
orbit_pool *doomed_pool;

void destroy_all()
{
	orbit_task_destroy(doomed_task);
	orbit_destroy(doomed);
	orbit_pool_destroy(doomed_pool);
	doomed = nullptr;
	doomed_task = nullptr;
	doomed_pool = nullptr;
}

std::uint64_t sleep_a_while(const void *, std::size_t)
{
	usleep(700'000);
	return 7;
}

TEST(SignalHandlers, WhatTheyDestroyIsDestroyedWhenTheThreadLeavesTheLibrary)
{
	orbit::Orbit orbit = make_orbit(); // so that what is made for the first is not counted below
	const std::size_t before = open_descriptors();
	struct orbit_stat stat;
	orbit_outcome out{};

	ASSERT_EQ(orbit_create(&doomed, nullptr), 0);
	ASSERT_EQ(orbit_pool_create(&doomed_pool, page, nullptr), 0);
	ASSERT_EQ(orbit_call_async(doomed, sleep_a_while, nullptr, 0, nullptr, &doomed_task), 0);
	ASSERT_EQ(orbit_get_stat(doomed, &stat, sizeof(stat)), 0);
	out.size = sizeof(out);
	{
		const Interrupted interrupted(destroy_all, 300'000);

		// The very orbit that is to be destroyed; and the call ends as if it were not.
		EXPECT_EQ(orbit_call(doomed, sleep_a_while, nullptr, 0, nullptr, &out), 0);
	}
	EXPECT_EQ(out.value, 7);
	EXPECT_EQ(doomed, nullptr);
	EXPECT_TRUE(gone(static_cast<pid_t>(stat.pid)));
	EXPECT_EQ(open_descriptors(), before);
	EXPECT_TRUE(orbit.call({}, [] { return 1; }));
}

// ---- In a task ---------------------------------------------------------------------------

struct Record {
	std::uint64_t number, filling[15];
};

Record target;

void send_one_more()
{
	Record record;

	std::fill_n(record.filling, std::size(record.filling), record.number = 1ULL << 32);
	count(orbit_send_bytes(&target, &record, sizeof(record)));
}

// How often the handler was refused, of which the lower half says how many updates were sent.
std::uint64_t send_interrupted(const void *, std::size_t)
{
	std::uint64_t sent = 0;

	done = 0;
	refused = 0;
	wrong = 0;
	{
		const Interrupted interrupted(send_one_more, 100);

		while ((sent < 2000 || !refused || !done) && sent < 500'000) {
			Record record;

			std::fill_n(record.filling, std::size(record.filling), record.number = sent);
			if (orbit_send_bytes(&target, &record, sizeof(record)))
				return UINT64_MAX;
			sent++;
		}
	}
	return wrong ? UINT64_MAX - 1 : refused << 32 | (sent + done);
}

TEST(SignalHandlers, ThatInterruptASendDoNotSendIntoIt)
{
	orbit::Orbit orbit = make_orbit();
	orbit_call_options options{};
	orbit_task *task = nullptr;
	orbit_outcome out{};
	orbit_update update{};
	std::uint64_t received = 0;

	options.size = sizeof(options);
	options.flags = ORBIT_CALL_STREAM;
	ASSERT_EQ(orbit_call_async(orbit.raw(), send_interrupted, nullptr, 0, &options, &task), 0);
	update.size = sizeof(update);
	while (!orbit_task_receive(task, 0, &update)) {
		Record record;

		ASSERT_EQ(update.length, sizeof(record));
		ASSERT_EQ(update.target, reinterpret_cast<std::uintptr_t>(&target));
		std::memcpy(&record, update.data, sizeof(record));
		for (const std::uint64_t word : record.filling)
			ASSERT_EQ(word, record.number);
		received++;
	}
	out.size = sizeof(out);
	ASSERT_EQ(orbit_task_wait(task, 0, &out), 0);
	orbit_task_destroy(task);
	ASSERT_LT(out.value, UINT64_MAX - 1);
	EXPECT_EQ(out.value & UINT32_MAX, received);
	EXPECT_GT(out.value >> 32, 0);
}

// ---- Who is in the library, and may call it -----------------------------------------------

TEST(SignalHandlers, AnOperationMayCallTheLibrary)
{
	static orbit::Orbit *callee;
	orbit::Orbit orbit = make_orbit(), other = make_orbit();
	orbit_targets *targets = nullptr;
	orbit_task *task = nullptr;
	orbit_applied applied{};

	callee = &other;
	ASSERT_EQ(orbit_targets_create(&targets), 0);
	ASSERT_EQ(orbit_targets_add_operation(
			  targets, 1,
			  [](void *, const void *, std::size_t) {
				  const auto value = callee->call({}, [] { return 4; });

				  return value && *value == 4 ? 0 : -EIO;
			  },
			  nullptr, 0, 0),
		  0);
	ASSERT_EQ(orbit_call_async(
			  orbit.raw(),
			  [](const void *, std::size_t) -> std::uint64_t {
				  return orbit_send_operation(1, nullptr, 0) || orbit_send_operation(1, nullptr, 0);
			  },
			  nullptr, 0, nullptr, &task),
		  0);
	applied.size = sizeof(applied);
	EXPECT_EQ(orbit_task_apply_all(task, 0, targets, &applied), 0);
	EXPECT_EQ(applied.applied, 2);
	EXPECT_EQ(applied.failed, 0);
	orbit_task_destroy(task);
	orbit_targets_destroy(targets);
}

} // namespace
