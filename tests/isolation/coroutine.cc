// SPDX-License-Identifier: MIT
//
// Frames of coroutines are kept for the next ones, by the thread that they end in, and given back when it ends.
#include <orbit/coroutine.hpp>

#include <gtest/gtest.h>

#include <atomic>
#include <cstdlib>
#include <new>
#include <thread>
#include <vector>

#include <sys/wait.h>
#include <unistd.h>

namespace {

std::atomic<long> made, alive;

} // namespace

void *operator new(std::size_t bytes)
{
	made++, alive++;
	if (void *memory = std::malloc(bytes))
		return memory;
	throw std::bad_alloc();
}

void operator delete(void *memory) noexcept
{
	alive -= memory != nullptr;
	std::free(memory);
}

void operator delete(void *memory, std::size_t) noexcept
{
	operator delete(memory);
}

namespace {

using orbit::Loop;
using orbit::task;

#ifdef __SANITIZE_ADDRESS__
constexpr bool keeps = false; // it is to see each of them end
#else
constexpr bool keeps = true;
#endif

task<int> add(int a, int b)
{
	co_return a + b;
}

task<int> sum(int n)
{
	int all = 0;

	for (int i = 0; i < n; i++)
		all = co_await add(all, 1);
	co_return all;
}

// As large as `Bytes`, and it looks whether it is.
template <std::size_t Bytes> task<bool> fill(unsigned char with)
{
	unsigned char bytes[Bytes];

	std::fill(std::begin(bytes), std::end(bytes), with);
	co_await add(1, 2);
	co_return static_cast<std::size_t>(std::count(std::begin(bytes), std::end(bytes), with)) == Bytes;
}

template <std::size_t... Bytes> bool fill_all(Loop &loop, unsigned char with)
{
	return (loop.run(fill<Bytes>(with)) & ...);
}

TEST(Frames, AreMadeOnceForManyCoroutines)
{
	Loop loop;

	EXPECT_EQ(loop.run(sum(10)), 10);
	const long before = made;
	EXPECT_EQ(loop.run(sum(1000)), 1000);
	EXPECT_EQ(made - before, keeps ? 0 : 1001);
}

TEST(Frames, OfAllSizesKeepApart)
{
	Loop loop;

	for (unsigned char with = 0; with < 4; with++)
		EXPECT_TRUE((fill_all<1, 40, 63, 64, 65, 100, 200, 400, 500, 900, 1000, 2000, 4000, 4096, 5000, 8000, 9000,
				      30000>(loop, with)));
}

TEST(Frames, MayEndInAnotherThreadAndEndWithIt)
{
	const long before = alive;
	std::atomic<long> kept = 0;

	for (int round = 0; round < 3; round++) {
		std::vector<task<int>> begun;
		for (int i = 0; i < 100; i++)
			begun.push_back(add(i, 1));
		std::thread([&] {
			{
				Loop loop;
				for (int i = 0; i < 100; i++)
					EXPECT_EQ(loop.run(begun[static_cast<std::size_t>(i)]), i + 1);
				const long then = alive;
				begun.clear();
				kept = alive - then;
			}
		}).join();
	}
	EXPECT_EQ(kept, keeps ? 0 : -100);
	EXPECT_LE(alive - before, 100); // what this thread had kept, it has given away
}

TEST(Frames, AreKeptUpToALimit)
{
	std::thread([] {
		const long before = alive;
		{
			std::vector<task<bool>> many;
			for (int i = 0; i < 1000; i++)
				many.push_back(fill<4000>(1));
			EXPECT_GE(alive - before, 1000);
		}
		EXPECT_LE(alive - before, keeps ? 16 : 0); // of 4 KiB each
		{
			Loop loop;
			EXPECT_TRUE(loop.run(fill<4000>(2)));
		}
	}).join();
}

task<int> at_threads_end()
{
	co_return co_await add(2, 3);
}

TEST(Frames, OfCoroutinesThatRunWhenTheThreadEnds)
{
	struct Last {
		~Last()
		{
			Loop loop;
			*sum = loop.run(at_threads_end());
		}
		int *sum;
	};
	const long before = alive;
	int sum = 0;

	std::thread([&] {
		static thread_local Last last{&sum}; // ends after what it came before
		Loop loop;
		EXPECT_EQ(loop.run(at_threads_end()), 5);
	}).join();
	EXPECT_EQ(sum, 5);
	EXPECT_EQ(alive, before);
}

TEST(Frames, AreThereAfterAFork)
{
	Loop loop;

	EXPECT_EQ(loop.run(sum(10)), 10);
	const pid_t child = fork();
	ASSERT_GE(child, 0);
	if (!child) {
		Loop own;
		_exit(own.run(sum(1000)) == 1000 ? 0 : 1);
	}
	EXPECT_EQ(loop.run(sum(1000)), 1000);
	int status;
	ASSERT_EQ(waitpid(child, &status, 0), child);
	EXPECT_EQ(status, 0);
}

} // namespace
