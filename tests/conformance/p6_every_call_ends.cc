// SPDX-License-Identifier: MIT
//
// Promise 6: each call gets exactly one outcome: a value, or a documented error.
#include "orbit_test.h"

#include <atomic>
#include <climits>
#include <optional>
#include <pthread.h>
#include <vector>

namespace {

void forever()
{
	for (;;)
		pause();
}

std::uint64_t echo(std::uint64_t value)
{
	return value;
}

// Lesson 23: no value looks like an error.
TEST(P6_EveryCallEnds, AnyValueIsAValue)
{
	orbit::Orbit orbit = make_orbit();

	for (std::uint64_t value : {std::uint64_t{0}, std::uint64_t{1}, static_cast<std::uint64_t>(-5),
				    static_cast<std::uint64_t>(-4095), UINT64_MAX, UINT64_MAX / 2 + 1})
		EXPECT_EQ(orbit.call({}, echo, value), value);
	EXPECT_EQ(orbit.call({}, [] { return -5; }), -5);
	EXPECT_EQ(orbit.call({}, [] { return LLONG_MIN; }), LLONG_MIN);
	EXPECT_EQ(orbit.call({}, [] { return 0.5; }), 0.5);
	EXPECT_EQ(orbit.call({}, [] { return true; }), true);
	EXPECT_TRUE(orbit.call({}, [] {}).has_value());

	struct Pair {
		std::int32_t a, b;
	};
	const auto pair = orbit.call({}, [](int a, short b) { return Pair{a, b}; }, -1, short{2});

	ASSERT_TRUE(pair);
	EXPECT_EQ(pair->a, -1);
	EXPECT_EQ(pair->b, 2);
}

TEST(P6_EveryCallEnds, OutcomeOfAValue)
{
	orbit::Orbit orbit = make_orbit();
	orbit_outcome out{};

	for (std::uint64_t task = 1; task <= 3; task++) {
		out.size = sizeof(out);
		EXPECT_EQ(orbit_call(
				  orbit.raw(), [](const void *, size_t) { return UINT64_MAX; }, nullptr, 0,
				  nullptr, &out),
			  0);
		EXPECT_EQ(out.task, task);
		EXPECT_EQ(out.value, UINT64_MAX);
		EXPECT_EQ(out.error, 0);
		EXPECT_EQ(out.cause, unsigned{ORBIT_CAUSE_NONE});
	}
	EXPECT_EQ(orbit_call(
			  orbit.raw(), [](const void *, size_t) { return UINT64_MAX; }, nullptr, 0, nullptr,
			  nullptr),
		  0);
}

TEST(P6_EveryCallEnds, ADeadOrbitRefusesCallsAndSaysWhy)
{
	orbit::Orbit orbit = make_orbit();
	pollfd fd = {orbit.fd(), POLLOUT, 0};

	EXPECT_EQ(poll(&fd, 1, 0), 1);
	EXPECT_EQ(fd.revents, POLLOUT);

	const auto died = orbit.call({}, [] { _exit(9); });

	ASSERT_FALSE(died);
	EXPECT_EQ(died.error().code(), ECONNRESET);
	EXPECT_EQ(died.error().outcome().task, 1U);

	const auto refused = orbit.call({}, echo, std::uint64_t{1});

	ASSERT_FALSE(refused);
	EXPECT_EQ(refused.error().code(), ESHUTDOWN);
	EXPECT_EQ(refused.error().cause(), ORBIT_CAUSE_EXIT);
	EXPECT_EQ(refused.error().outcome().code, 9);
	EXPECT_EQ(refused.error().message(), "the orbit is gone: ended itself with exit status 9");

	fd.events = POLLIN;
	EXPECT_EQ(poll(&fd, 1, 0), 1);
	EXPECT_TRUE(fd.revents & POLLHUP);

	const struct orbit_stat st = value_or_throw(orbit.stat());

	EXPECT_EQ(st.state, unsigned{ORBIT_STATE_DEAD});
	EXPECT_EQ(st.cause, unsigned{ORBIT_CAUSE_EXIT});
	EXPECT_EQ(st.code, 9);
	EXPECT_EQ(st.queued, 0U);
	EXPECT_EQ(st.completed, 0U);
}

TEST(P6_EveryCallEnds, QueuedCallsEndWithTheOrbit)
{
	Pipe go;
	orbit::Orbit orbit = make_orbit({.keep_fds = std::span(&go.read_end, 1)});
	std::vector<std::thread> callers;
	std::atomic<int> died{0}, cancelled{0};

	for (int i = 0; i < 4; i++)
		callers.emplace_back([&] {
			const auto got = orbit.call({}, [](int fd) {
				char byte;

				(void)!read(fd, &byte, 1);
				std::raise(SIGKILL);
			}, go.read_end);

			if (!got) {
				died += got.error().code() == ECONNRESET && got.error().signal() == SIGKILL;
				cancelled += got.error().code() == ECANCELED && got.error().signal() == SIGKILL;
			}
		});
	EXPECT_TRUE(eventually([&] { return value_or_throw(orbit.stat()).queued == 4; }));
	go.put('g');
	for (std::thread &caller : callers)
		caller.join();
	EXPECT_EQ(died, 1);
	EXPECT_EQ(cancelled, 3);
}

TEST(P6_EveryCallEnds, DestroyedWhileRunningAndQueued)
{
	Pipe begun;
	std::optional<orbit::Orbit> orbit(make_orbit({.keep_fds = std::span(&begun.write_end, 1)}));
	const pid_t pid = pid_of(*orbit);
	std::vector<std::thread> callers;
	std::atomic<int> died{0}, cancelled{0};

	for (int i = 0; i < 3; i++)
		callers.emplace_back([&] {
			const auto got = orbit->call({}, [](int fd) {
				(void)!write(fd, "b", 1);
				forever();
			}, begun.write_end);

			if (!got && got.error().cause() == ORBIT_CAUSE_DESTROYED) {
				died += got.error().code() == ECONNRESET;
				cancelled += got.error().code() == ECANCELED;
			}
		});
	EXPECT_TRUE(eventually([&] { return value_or_throw(orbit->stat()).queued == 3; }));

	// What is queued has not begun: a slow orbit may not have looked yet.
	char byte = 0;

	EXPECT_TRUE(begun.get(byte));
	orbit.reset();
	for (std::thread &caller : callers)
		caller.join();
	EXPECT_EQ(died, 1);
	EXPECT_EQ(cancelled, 2);
	EXPECT_TRUE(gone(pid));
}

TEST(P6_EveryCallEnds, TheTimeLimitCountsFromTheStartOfTheTask)
{
	orbit::Orbit orbit = make_orbit();
	std::thread first([&] {
		EXPECT_TRUE(orbit.call({}, [] { usleep(2'500'000); }));
	});

	EXPECT_TRUE(eventually([&] { return value_or_throw(orbit.stat()).queued == 1; }));
	EXPECT_TRUE(orbit.call({.time_limit = 2s}, {}, [] {}));
	first.join();

	// A limit that was met does not linger.
	EXPECT_TRUE(orbit.call({.time_limit = 2s}, {}, [] {}));
	EXPECT_TRUE(orbit.call({}, [] { usleep(2'500'000); }));
}

TEST(P6_EveryCallEnds, QueuedCallsEndWhenOneTimesOut)
{
	orbit::Orbit orbit = make_orbit();
	std::thread second([&] {
		EXPECT_TRUE(eventually([&] { return value_or_throw(orbit.stat()).queued == 1; }));

		const auto got = orbit.call({}, [] {});

		EXPECT_FALSE(got);
		if (!got) {
			EXPECT_EQ(got.error().code(), ECANCELED);
			EXPECT_EQ(got.error().cause(), ORBIT_CAUSE_TIMEOUT);
		}
	});
	const auto got = orbit.call({.time_limit = 2s}, {}, forever);

	ASSERT_FALSE(got);
	EXPECT_EQ(got.error().code(), ETIMEDOUT);
	second.join();
}

// Lesson 16: a main program that waits can be killed, whatever its orbit does.
TEST(P6_EveryCallEnds, AWaitingMainCanBeKilled)
{
	Pipe pipe;
	OtherMain main([&] {
		orbit::Orbit orbit = make_orbit();

		pipe.put(pid_of(orbit));
		(void)orbit.call({}, [] {
			for (;;)
				asm volatile("");
		});
		return 1;
	});
	pid_t orbit = 0;

	ASSERT_TRUE(pipe.get(orbit));
	usleep(50'000); // for the call to begin
	main.kill();

	const int status = main.wait();

	EXPECT_TRUE(WIFSIGNALED(status)) << status;
	EXPECT_TRUE(gone(orbit));
}

std::atomic<int> alarms;

class Interrupted : public testing::Test {
protected:
	Interrupted()
	{
		struct sigaction action = {};

		alarms = 0;
		action.sa_handler = [](int) { alarms++; };
		sigaction(SIGUSR1, &action, &before_); // without SA_RESTART
	}
	~Interrupted() override { sigaction(SIGUSR1, &before_, nullptr); }

	// Signals this thread a few times while it calls.
	static std::thread pester()
	{
		return std::thread([main = pthread_self()] {
			for (int i = 0; i < 5; i++) {
				usleep(20'000);
				pthread_kill(main, SIGUSR1);
			}
		});
	}

	struct sigaction before_ = {};
};

using P6_EveryCallEnds_Interrupted = Interrupted;

std::uint64_t slow(const void *, size_t)
{
	usleep(300'000);
	return 42;
}

TEST_F(P6_EveryCallEnds_Interrupted, CallersNeverSeeEINTR)
{
	orbit::Orbit orbit = make_orbit();
	orbit_outcome out{};
	std::thread signals = pester();

	out.size = sizeof(out);
	EXPECT_EQ(orbit_call(orbit.raw(), slow, nullptr, 0, nullptr, &out), 0);
	signals.join();
	EXPECT_EQ(out.value, 42U);
	EXPECT_EQ(out.task, 1U);
	EXPECT_GT(alarms, 0);
	EXPECT_EQ(value_or_throw(orbit.stat()).calls, 1U);
}

TEST_F(P6_EveryCallEnds_Interrupted, UnlessTheyAskAndThenTheyResume)
{
	orbit::Orbit orbit = make_orbit();
	orbit_call_options options{};
	orbit_outcome out{};
	int interruptions = 0, err;
	std::thread signals = pester();

	options.size = sizeof(options);
	options.flags = ORBIT_CALL_INTERRUPTIBLE;
	for (;;) {
		out.size = sizeof(out);
		err = orbit_call(orbit.raw(), slow, nullptr, 0, &options, &out);
		if (err != -EINTR)
			break;
		interruptions++;
		options.resume = out.task;
	}
	signals.join();
	EXPECT_EQ(err, 0);
	EXPECT_EQ(out.value, 42U);
	EXPECT_EQ(out.task, 1U);
	EXPECT_GT(interruptions, 0);
	EXPECT_EQ(value_or_throw(orbit.stat()).calls, 1U);
}

TEST(P6_EveryCallEnds, MalformedCallsAreRefusedAndNotQueued)
{
	orbit::Orbit orbit = make_orbit();
	const auto entry = [](const void *, size_t) -> std::uint64_t { return 0; };
	const std::vector<char> too_long(ORBIT_MAX_ARG + 1);
	orbit_call_options options{};
	orbit_pool *none = nullptr;

	options.size = sizeof(options);
	EXPECT_EQ(orbit_call(orbit.raw(), nullptr, nullptr, 0, nullptr, nullptr), -EINVAL);
	EXPECT_EQ(orbit_call(orbit.raw(), entry, nullptr, 1, nullptr, nullptr), -EINVAL);
	EXPECT_EQ(orbit_call(orbit.raw(), entry, too_long.data(), too_long.size(), nullptr, nullptr),
		  -E2BIG);
	EXPECT_EQ(orbit_call(orbit.raw(), entry, reinterpret_cast<void *>(1), 8, nullptr, nullptr),
		  -EFAULT);
	options.flags = 1ULL << 40;
	EXPECT_EQ(orbit_call(orbit.raw(), entry, nullptr, 0, &options, nullptr), -EINVAL);
	options.flags = 0;
	options.nr_pools = 1;
	EXPECT_EQ(orbit_call(orbit.raw(), entry, nullptr, 0, &options, nullptr), -EINVAL);
	options.pools = &none;
	EXPECT_EQ(orbit_call(orbit.raw(), entry, nullptr, 0, &options, nullptr), -EINVAL);
	options.nr_pools = ORBIT_MAX_POOLS + 1;
	EXPECT_EQ(orbit_call(orbit.raw(), entry, nullptr, 0, &options, nullptr), -E2BIG);
	EXPECT_EQ(value_or_throw(orbit.stat()).calls, 0U);
	EXPECT_EQ(orbit.call({}, [] { return 1; }), 1);
}

} // namespace
