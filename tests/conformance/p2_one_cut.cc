// SPDX-License-Identifier: MIT
//
// Promise 2: the snapshot of all pools of a call is one consistent cut.
#include "orbit_test.h"

#include <atomic>
#include <mutex>
#include <sys/resource.h>
#include <vector>

namespace {

using Counter = std::atomic<std::uint64_t>;

constexpr unsigned chain_pages = 16; // in each pool
constexpr unsigned chains = 4;
constexpr int snapshots = 2000;

// Page i of a chain: pools alternate, so that every step crosses pools.
Counter &step(std::byte *a, std::byte *b, unsigned chain, unsigned i)
{
	std::byte *pool = i % 2 ? b : a;

	return *reinterpret_cast<Counter *>(pool + (chain * chain_pages + i / 2) * page + 8 * chain);
}

// A writer adds one to each step in order, so along a chain the numbers fall by at
// most one in all. Returns violations, and how far the writers are, in one word.
struct Audit {
	std::uint32_t violations;
	std::uint32_t progress;
};

Audit audit_chains(std::byte *a, std::byte *b)
{
	Audit audit{};

	for (unsigned chain = 0; chain < chains; chain++) {
		const std::uint64_t first = step(a, b, chain, 0);
		std::uint64_t previous = first;

		for (unsigned i = 1; i < 2 * chain_pages; i++) {
			const std::uint64_t now = step(a, b, chain, i);

			if (now > previous || now + 1 < first)
				audit.violations++;
			previous = now;
		}
		audit.progress += static_cast<std::uint32_t>(first);
	}
	return audit;
}

class Writers {
public:
	template <class F> void start(F body)
	{
		threads_.emplace_back([this, body] {
			// There are more of them than processors: the calls come first.
			setpriority(PRIO_PROCESS, static_cast<id_t>(gettid()), 10);
			while (!stop_.load(std::memory_order_relaxed))
				body(stop_);
		});
	}
	~Writers()
	{
		stop_ = true;
		for (std::thread &thread : threads_)
			thread.join();
	}

private:
	std::atomic<bool> stop_{false};
	std::vector<std::thread> threads_;
};

// As many writers as the virtual machine has processors, each with its chains.
void start_chains(Writers &writers, const orbit::Pool &a, const orbit::Pool &b)
{
	for (unsigned first = 0; first < 2; first++)
		writers.start([&, first](const auto &) {
			for (unsigned chain = first; chain < chains; chain += 2)
				for (unsigned i = 0; i < 2 * chain_pages; i++)
					step(a.data(), b.data(), chain, i)
						.fetch_add(1, std::memory_order_release);
		});
}

TEST(P2_OneCut, WritersOverTwoPoolsKeepTheirOrder)
{
	NEEDS_FEATURE(ORBIT_FEATURE_CUT);

	const orbit::Pool a = make_pool(chains * chain_pages * page);
	const orbit::Pool b = make_pool(chains * chain_pages * page);
	orbit::Orbit orbit = make_orbit();
	const orbit::Pools pools{a, b};
	std::uint32_t progress = 0, moved = 0;
	Writers writers;

	start_chains(writers, a, b);

	// On a busy machine the writers have to be waited for.
	for (int i = 0; i < snapshots || (moved <= 100 && i < 20 * snapshots); i++) {
		const Audit audit = value_or_throw(orbit.call(pools, audit_chains, a.data(), b.data()));

		ASSERT_EQ(audit.violations, 0U) << "in snapshot " << i;
		moved += audit.progress != progress;
		progress = audit.progress;
	}
	EXPECT_GT(moved, 100U) << "the writers hardly ran: the test proves little";
}

// x in pool a is written by one thread, y in pool b by another after it saw x: the
// order is only that of memory. x runs ahead of y by at most one.
TEST(P2_OneCut, OrderBetweenThreadsHolds)
{
	NEEDS_FEATURE(ORBIT_FEATURE_CUT);

	const orbit::Pool a = make_pool(page), b = make_pool(page);
	Counter *x = a.as<Counter>(), *y = b.as<Counter>();
	orbit::Orbit orbit = make_orbit();
	const orbit::Pools pools{b, a};
	Writers writers;

	writers.start([=](const std::atomic<bool> &stop) {
		const std::uint64_t now = x->load(std::memory_order_relaxed);

		while (y->load(std::memory_order_acquire) != now && !stop)
			std::this_thread::yield();
		x->store(now + 1, std::memory_order_release);
	});
	writers.start([=](const std::atomic<bool> &stop) {
		const std::uint64_t now = y->load(std::memory_order_relaxed);

		while (x->load(std::memory_order_acquire) != now + 1 && !stop)
			std::this_thread::yield();
		if (!stop)
			y->store(now + 1, std::memory_order_release);
	});

	for (int i = 0; i < snapshots; i++) {
		const std::int64_t ahead = value_or_throw(orbit.call(
			pools,
			[](const Counter *seen_x, const Counter *seen_y) {
				return static_cast<std::int64_t>(*seen_x - *seen_y);
			},
			x, y));

		ASSERT_GE(ahead, 0) << "in snapshot " << i;
		ASSERT_LE(ahead, 1) << "in snapshot " << i;
	}
}

// The order of the pools in the call makes no difference, nor do several orbits.
TEST(P2_OneCut, SeveralOrbitsTakeSnapshotsAtOnce)
{
	NEEDS_FEATURE(ORBIT_FEATURE_CUT);

	const orbit::Pool a = make_pool(chains * chain_pages * page);
	const orbit::Pool b = make_pool(chains * chain_pages * page);
	std::atomic<std::uint32_t> violations{0};
	Writers writers;

	start_chains(writers, a, b);

	std::vector<std::thread> callers;

	for (int caller = 0; caller < 2; caller++)
		callers.emplace_back([&, caller] {
			orbit::Orbit orbit = make_orbit();
			const orbit::Pools pools = caller ? orbit::Pools{a, b} : orbit::Pools{b, a};

			for (int i = 0; i < snapshots / 4; i++) {
				const auto got = orbit.call(pools, audit_chains, a.data(), b.data());

				violations += got ? got->violations : 1;
			}
		});
	for (std::thread &caller : callers)
		caller.join();
	EXPECT_EQ(violations, 0U);
}

// Every backend's promise: a call made under the lock that writers hold sees none of them halfway,
// and the lock is needed only until the snapshot is taken.
TEST(P2_OneCut, ALockThatWritersHoldMakesACut)
{
	const orbit::Pool a = make_pool(chains * chain_pages * page);
	const orbit::Pool b = make_pool(chains * chain_pages * page);
	orbit::Orbit orbit = make_orbit();
	const orbit::Pools pools{a, b};
	std::mutex lock;
	std::uint32_t progress = 0, moved = 0;
	Writers writers;

	for (unsigned chain = 0; chain < 2; chain++)
		writers.start([&, chain](const auto &) {
			{
				const std::lock_guard guard(lock);

				for (unsigned i = 0; i < 2 * chain_pages; i++)
					step(a.data(), b.data(), chain, i)
						.fetch_add(1, std::memory_order_relaxed);
			}
			std::this_thread::yield();
		});

	for (int i = 0; i < snapshots / 4 || (moved <= 25 && i < 5 * snapshots); i++) {
		std::unique_lock guard(lock);
		auto task = value_or_throw(orbit.call_async(
			pools,
			[](std::byte *x, std::byte *y) {
				Audit audit{};

				for (unsigned chain = 0; chain < 2; chain++) {
					const std::uint64_t first = step(x, y, chain, 0);

					// Under the lock all of a chain is equal.
					for (unsigned j = 1; j < 2 * chain_pages; j++)
						audit.violations += step(x, y, chain, j) != first;
					audit.progress += static_cast<std::uint32_t>(first);
				}
				return audit;
			},
			a.data(), b.data()));

		guard.unlock();

		const Audit audit = value_or_throw(task.wait());

		ASSERT_EQ(audit.violations, 0U) << "in snapshot " << i;
		moved += audit.progress != progress;
		progress = audit.progress;
	}
	EXPECT_GT(moved, 25U) << "the writers hardly ran: the test proves little";
}

// What the calling thread wrote before the call is in it, whatever page it is on.
TEST(P2_OneCut, TheCallersOwnWritesAreIn)
{
	const orbit::Pool a = make_pool(8 * page), b = make_pool(8 * page);
	orbit::Orbit orbit = make_orbit();

	for (std::uint64_t i = 1; i <= 200; i++) {
		std::uint64_t *p = (i % 2 ? a : b).as<std::uint64_t>(i / 2 % 8 * page);

		*p = i;
		ASSERT_EQ(orbit.call({a, b}, [](const std::uint64_t *q) { return *q; }, p), i);
	}
}

} // namespace
