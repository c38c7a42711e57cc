// SPDX-License-Identifier: MIT
//
// Promise 1: whatever an orbit does changes no byte of the main program, and never
// ends or blocks it.
#include "orbit_test.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <numeric>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <vector>

namespace {

constexpr std::size_t words = 64 * page / sizeof(std::uint64_t);

std::uint64_t a_global = 0x600d;
int exit_handlers_run;

std::uint64_t sum(const std::uint64_t *data)
{
	return std::accumulate(data, data + words, std::uint64_t{0},
			       [](auto hash, auto word) { return hash * 31 + word; });
}

// What the optimiser must not see through.
template <class T> T *opaque(T *p)
{
	asm volatile("" : "+r"(p));
	return p;
}

class P1_Isolation : public testing::Test {
protected:
	P1_Isolation() : pool_(make_pool(words * sizeof(std::uint64_t))), heap_(words)
	{
		std::iota(data(), data() + words, 1);
		std::iota(heap_.begin(), heap_.end(), 1000);
		pool_sum_ = sum(data());
		heap_sum_ = sum(heap_.data());
	}

	void TearDown() override
	{
		EXPECT_EQ(sum(data()), pool_sum_);
		EXPECT_EQ(sum(heap_.data()), heap_sum_);
		EXPECT_EQ(a_global, 0x600dU);
		EXPECT_EQ(exit_handlers_run, 0);
		// The main program goes on, with the next orbit.
		data()[0]++;
		EXPECT_EQ(make_orbit().call(pool_, sum, data()), sum(data()));
	}

	std::uint64_t *data() const { return pool_.as<std::uint64_t>(); }

	// Runs a task that ends its orbit, and tells how.
	template <class... Args> orbit::Error disaster(Args... args)
	{
		orbit::Orbit doomed = make_orbit({.name = "doomed"});
		const auto got = doomed.call({.time_limit = patience}, pool_, args...);

		if (got) {
			ADD_FAILURE() << "the task returned";
			return orbit::Error(0);
		}
		EXPECT_EQ(value_or_throw(doomed.stat()).state, unsigned{ORBIT_STATE_DEAD});
		EXPECT_FALSE(doomed.call(pool_, [] {}));
		return got.error();
	}

	void expect_signal(const orbit::Error &error, int signal)
	{
		EXPECT_EQ(error.code(), ECONNRESET) << error.message();
		EXPECT_EQ(error.cause(), ORBIT_CAUSE_SIGNAL) << error.message();
		EXPECT_EQ(error.signal(), signal) << error.message();
	}

	orbit::Pool pool_;
	std::vector<std::uint64_t> heap_;
	std::uint64_t pool_sum_, heap_sum_;
};

TEST_F(P1_Isolation, NullDereference)
{
	const orbit::Error error = disaster([] {
		volatile int *null = opaque<volatile int>(nullptr);

		*null = 1;
	});

	expect_signal(error, SIGSEGV);
	EXPECT_EQ(error.fault_address(), 0U);
	EXPECT_EQ(error.message(), "killed by signal 11 (SIGSEGV) at address 0x0");
}

TEST_F(P1_Isolation, FaultAddressIsReported)
{
	const orbit::Error error =
		disaster([] { return *opaque(reinterpret_cast<volatile int *>(0xdead0)); });

	expect_signal(error, SIGSEGV);
	EXPECT_EQ(error.fault_address(), 0xdead0U);
}

TEST_F(P1_Isolation, WildWriteLeavesMainUntouched)
{
	std::uint64_t on_stack[16];

	std::fill_n(on_stack, std::size(on_stack), 7);

	const auto got = make_orbit().call(
		pool_,
		[](std::uint64_t *pool, std::uint64_t *heap, std::uint64_t *stack) {
			std::memset(pool, 0xff, words * sizeof(*pool));
			std::memset(heap, 0xff, words * sizeof(*heap));
			std::memset(opaque(stack), 0xff, sizeof(on_stack));
			a_global = 0xbad;
			return pool[words - 1];
		},
		data(), heap_.data(), +on_stack);

	EXPECT_EQ(got, UINT64_MAX);
	EXPECT_TRUE(std::all_of(on_stack, std::end(on_stack), [](auto word) { return word == 7; }));
}

TEST_F(P1_Isolation, ScribbleThenCrash)
{
	expect_signal(disaster(
			      [](std::uint64_t *pool) {
				      for (;;)
					      *opaque(pool++) = 0xbad; // until past the pools
			      },
			      data()),
		      SIGSEGV);
}

TEST_F(P1_Isolation, Abort)
{
	expect_signal(disaster([] { std::abort(); }), SIGABRT);
}

TEST_F(P1_Isolation, ExitStatus)
{
	const orbit::Error error = disaster([] { _exit(3); });

	EXPECT_EQ(error.code(), ECONNRESET);
	EXPECT_EQ(error.cause(), ORBIT_CAUSE_EXIT);
	EXPECT_EQ(error.outcome().code, 3);
}

TEST_F(P1_Isolation, ExitRunsNoHandlerOfMain)
{
	static Pipe *told;
	Pipe pipe;

	told = &pipe;
	atexit([] {
		if (told)
			exit_handlers_run++, told->put('x');
	});

	orbit::Orbit doomed = make_orbit({.keep_fds = std::span(&pipe.write_end, 1)});
	const auto got = doomed.call({}, [] { std::exit(4); });

	told = nullptr;
	ASSERT_FALSE(got);
	EXPECT_EQ(got.error().cause(), ORBIT_CAUSE_EXIT);
	EXPECT_EQ(got.error().outcome().code, 4);
	pipe.close_write();
	EXPECT_TRUE(pipe.at_end());
}

int overflow(volatile int *depth)
{
	volatile char frame[page];

	frame[0] = static_cast<char>(*depth);
	*depth = *depth + 1;
	return *depth ? overflow(depth) + frame[0] : 0; // never 0 in time
}

TEST_F(P1_Isolation, StackOverflow)
{
	expect_signal(disaster([] {
			      volatile int depth = 0;

			      return overflow(&depth);
		      }),
		      SIGSEGV);
}

TEST_F(P1_Isolation, StackSmash)
{
	const orbit::Error error = disaster([] {
		char local[16];

		std::memset(opaque(local), 0xff, 64 * page);
		return opaque(local)[0];
	});

	EXPECT_EQ(error.code(), ECONNRESET);
	EXPECT_EQ(error.cause(), ORBIT_CAUSE_SIGNAL);
}

TEST_F(P1_Isolation, HeapCorruption)
{
	const orbit::Error error = disaster([] {
		char *a = opaque(static_cast<char *>(std::malloc(64)));
		char *b = opaque(static_cast<char *>(std::malloc(64)));

		std::memset(opaque(a - 16), 0xff, 256);
		std::free(opaque(b));
		std::free(opaque(a));
		std::abort();
	});

	EXPECT_EQ(error.code(), ECONNRESET);
	EXPECT_EQ(error.cause(), ORBIT_CAUSE_SIGNAL);
}

TEST_F(P1_Isolation, OutOfMemory)
{
	expect_signal(disaster([] {
			      const rlimit limit = {64 << 20, 64 << 20};

			      setrlimit(RLIMIT_AS, &limit);
			      for (;;)
				      *opaque(new char[1 << 20]) = 1;
		      }),
		      SIGABRT);
}

TEST_F(P1_Isolation, InfiniteLoopMeetsItsTimeLimit)
{
	orbit::Orbit doomed = make_orbit();
	const auto start = std::chrono::steady_clock::now();
	const auto got = doomed.call({.time_limit = 50ms}, pool_, [] {
		for (;;)
			asm volatile("");
	});

	ASSERT_FALSE(got);
	EXPECT_EQ(got.error().code(), ETIMEDOUT);
	EXPECT_EQ(got.error().cause(), ORBIT_CAUSE_TIMEOUT);
	EXPECT_GE(std::chrono::steady_clock::now() - start, 50ms);
}

TEST_F(P1_Isolation, BlockedSignalsDoNotSaveATaskFromItsLimit)
{
	orbit::Orbit doomed = make_orbit();
	const auto got = doomed.call({.time_limit = 50ms}, pool_, [] {
		sigset_t all;

		sigfillset(&all);
		sigprocmask(SIG_SETMASK, &all, nullptr);
		for (int signal = 1; signal < NSIG; signal++)
			std::signal(signal, SIG_IGN);
		for (;;)
			pause();
	});

	ASSERT_FALSE(got);
	EXPECT_EQ(got.error().code(), ETIMEDOUT);
}

TEST_F(P1_Isolation, Exec)
{
	const orbit::Error error = disaster(exec_silently);

	EXPECT_EQ(error.code(), ECONNRESET);
	EXPECT_EQ(error.cause(), ORBIT_CAUSE_EXEC) << error.message();
}

TEST_F(P1_Isolation, AllDescriptorsClosed)
{
	const orbit::Error error = disaster([] { close_range(0, ~0U, 0); });

	EXPECT_EQ(error.code(), ECONNRESET);
}

std::uint64_t throwing_task(const void *, std::size_t)
{
	throw 1;
}

TEST_F(P1_Isolation, ExceptionFromATaskEndsTheOrbit)
{
	expect_signal(disaster([] { throw std::runtime_error("escapes"); }), SIGABRT);

	// The C API has no frame that could stop it but the orbit's own loop: main's
	// handler here, which is below that on the orbit's stack, must not run there.
	orbit_handle *orbit = nullptr;
	bool caught = false;

	try {
		ASSERT_EQ(orbit_create(&orbit, nullptr), 0);
	} catch (...) {
		caught = true;
		_exit(0); // only ever in an orbit: its status would be wrong below
	}

	orbit_outcome out{};

	out.size = sizeof(out);
	EXPECT_EQ(orbit_call(orbit, throwing_task, nullptr, 0, nullptr, &out), -ECONNRESET);
	expect_signal(orbit::Error(out), SIGABRT);
	EXPECT_FALSE(caught);
	orbit_destroy(orbit);
}

TEST_F(P1_Isolation, TaskThatForksLeavesNothingThatReachesMain)
{
	const auto got = make_orbit().call(
		pool_,
		[](std::uint64_t *pool) {
			const pid_t pid = fork();

			if (!pid) {
				pool[0] = 0xbad; // may as well be a hole
				_exit(0);
			}
			waitpid(pid, nullptr, 0);
			return pool[0];
		},
		data());

	EXPECT_EQ(got, data()[0]);
}

// Memory that main shares with other processes would be shared with the orbit too.
TEST_F(P1_Isolation, SharedMemoryOfMainIsOutOfReach)
{
	const auto shared = static_cast<std::uint64_t *>(
		mmap(nullptr, page, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));

	ASSERT_NE(shared, MAP_FAILED);
	*shared = 42;
	expect_signal(disaster([](std::uint64_t *p) { *p = 0xbad; }, shared), SIGSEGV);
	EXPECT_EQ(*shared, 42U);
	munmap(shared, page);
}

TEST_F(P1_Isolation, GroupSignalsOfTheOrbitDoNotReachMain)
{
	const orbit::Error error = disaster([] {
		kill(0, SIGKILL); // its own process group
		pause();
	});

	expect_signal(error, SIGKILL);
}

} // namespace
