// SPDX-License-Identifier: MIT
//
// What a call costs, beside what else hands work to somebody and waits. README.md says how
// each case is measured.
#include "../common/echo.h"
#include "../common/memory.h"

#include <atomic>
#include <condition_variable>
#include <mutex>
#include <optional>
#include <thread>

#include <spawn.h>

using namespace bench;

namespace {

// ---- What else one would do --------------------------------------------------------

__attribute__((noinline)) std::uint64_t callee(std::uint64_t value)
{
	asm volatile("" : "+r"(value));
	return value + 1;
}

void direct_calls(Round &round)
{
	constexpr int calls = 1000; // one of them is less than the clock can tell

	round.time("", [] {
		for (int n = 0; n < calls; n++)
			callee(static_cast<std::uint64_t>(n));
	}, calls);
}

Body echo(Echo::Kind kind)
{
	return [other = std::make_shared<Echo>(kind)](Round &round) {
		round.time("", [&] { other->trip(); });
	};
}

// What a maintenance thread has today: a lock and condition variables.
class ThreadEcho {
public:
	ThreadEcho() : thread_([this] { serve(); }) {}
	~ThreadEcho()
	{
		hand_over(2);
		thread_.join();
	}

	void trip()
	{
		hand_over(1);
		std::unique_lock lock(mutex_);
		done_.wait(lock, [this] { return state_ == 0; });
	}

private:
	void hand_over(int state)
	{
		const std::lock_guard guard(mutex_);

		state_ = state;
		wanted_.notify_one();
	}
	void serve()
	{
		std::unique_lock lock(mutex_);

		for (;;) {
			wanted_.wait(lock, [this] { return state_ != 0; });
			if (state_ == 2)
				return;
			state_ = 0;
			done_.notify_one();
		}
	}

	std::mutex mutex_;
	std::condition_variable wanted_, done_;
	int state_ = 0;
	std::thread thread_;
};

void fork_and_wait(Round &round)
{
	round.time("", [] {
		const pid_t pid = fork();

		if (!pid)
			_exit(0);
		wait_for(pid);
	});
}

void vfork_and_wait(Round &round)
{
	round.time("", [] {
		const pid_t pid = vfork();

		if (!pid)
			_exit(0);
		wait_for(pid);
	});
}

void spawn_and_wait(Round &round)
{
	round.time("", [] {
		char name[] = "true";
		char *const arguments[] = {name, nullptr};
		pid_t pid = -1;

		check(!posix_spawnp(&pid, name, nullptr, nullptr, arguments, environ), "posix_spawn");
		wait_for(pid);
	});
}

// What main's writes cost while a forked child still has the pages.
Body fork_copies(std::size_t pages)
{
	auto heap = shared_heap(16 * MiB);

	return [heap, pages](Round &round) {
		{
			const Child child;

			round.time("write", [&] { write_pages(heap->data(), pages, page_size, 2); });
		}
		write_pages(heap->data(), heap->size() / page_size, page_size, 3);
	};
}

// ---- Calls ---------------------------------------------------------------------------

struct Change {
	std::size_t pool;
	std::size_t pages;
	std::size_t stride = page_size;
	orbit::Mode mode = orbit::Mode::cow;
	bool read = true; // the task reads a word of every changed page
};

// Change pages, call, and again: the writes fault on what the last call has protected.
Body sync_call(const Change &change)
{
	auto both = shared_pool(change.pool);

	return [both, change, number = std::uint64_t{1}](Round &round) mutable {
		std::byte *const base = both->pool.data();
		const auto task = change.read ? read_pages : read_nothing;
		std::uint64_t sum = 0;

		number++;
		round.time("write", [&] { write_pages(base, change.pages, change.stride, number); });
		round.time("call", [&] {
			sum = value(both->orbit.call(orbit::PoolRange(both->pool, change.mode), task,
						     static_cast<const std::byte *>(base), change.pages,
						     change.stride),
				    "call");
		});
		if (sum != (change.read ? number * change.pages : 0))
			die("the task saw something else");
	};
}

Body call_without_pool()
{
	auto both = shared_pool(MiB);

	return [both](Round &round) {
		round.time("", [&] {
			value(both->orbit.call({}, callee, std::uint64_t{7}), "call");
		});
	};
}

// Many calls, each with its own change, and then the wait for all: what each of them comes to.
Body throughput(std::size_t calls, std::size_t pages)
{
	auto both = shared_pool(16 * MiB);

	return [both, calls, pages, number = std::uint64_t{1}](Round &round) mutable {
		std::byte *const base = both->pool.data();
		std::vector<orbit::Task<std::uint64_t>> tasks;

		tasks.reserve(calls);
		round.time("", [&] {
			for (std::size_t n = 0; n < calls; n++) {
				write_pages(base, pages, page_size, ++number);
				tasks.push_back(value(both->orbit.call_async(both->pool, read_pages,
									     static_cast<const std::byte *>(base),
									     pages, page_size),
						      "asynchronous call"));
			}
			for (auto &task : tasks)
				value(task.wait(), "wait");
		}, static_cast<double>(calls));
		if (value(tasks.back().wait(), "wait") != number * pages)
			die("the task saw something else");
	};
}

// A call with one changed page that others wait before: one that runs until it is told to
// end, and @waiting more.  -1: the orbit has nothing to do.
Body behind(int waiting)
{
	struct Held {
		Pipe until;
		int fd = until.read_end();
		PoolAndOrbit both = make_pool_and_orbit(16 * MiB, {.name = "queue", .keep_fds = {&fd, 1}});
	};
	auto held = std::make_shared<Held>();

	return [held, waiting, number = std::uint64_t{1}](Round &round) mutable {
		orbit::Orbit &orbit = held->both.orbit;
		const orbit::Pool &pool = held->both.pool;
		const auto *base = static_cast<const std::byte *>(pool.data());
		std::vector<orbit::Task<std::uint64_t>> tasks;
		std::optional<orbit::Task<bool>> running;
		// One call may be the one for which a slab or a list of pages is filled up again, in every
		// round, or in none: by what ran before.  So several are measured, but for an idle orbit.
		const int measured = waiting < 0 ? 1 : 16;
		std::int64_t taken = 0;

		tasks.reserve(static_cast<std::size_t>(waiting + 1 + measured));
		if (waiting >= 0) {
			running.emplace(value(orbit.call_async({}, Pipe::read_byte, held->fd), "call"));
			while (value(orbit.stat(), "stat").state != ORBIT_STATE_RUNNING)
				usleep(1000);
		}
		for (int n = 0; n < waiting; n++) {
			write_pages(pool.data(), 1, page_size, ++number);
			tasks.push_back(value(orbit.call_async(pool, read_pages, base, std::size_t{1}, page_size),
					      "call"));
		}
		for (int n = 0; n < measured; n++) {
			write_pages(pool.data(), 1, page_size, ++number);

			const auto begin = now();

			tasks.push_back(value(orbit.call_async(pool, read_pages, base, std::size_t{1}, page_size),
					      "call"));
			taken += now() - begin - clock_cost;
		}
		round.add("", static_cast<double>(taken) / measured);
		if (waiting >= 0)
			held->until.put();
		if (value(tasks.back().wait(), "wait") != number)
			die("the task saw something else");
	};
}

void add_sync(const std::string &name, const Change &change, bool quick)
{
	// Where main writes so much, a few rounds say it all; the adaptive mode has to learn first.
	const bool small = change.pages <= 16, large = change.pages > 256;

	add({.name = name + "/pages=" + std::to_string(change.pages),
	     .make = [change] { return sync_call(change); },
	     .quick = quick,
	     .rounds = small ? 1001U : large ? 7U : 15U,
	     .warm_up = change.mode == orbit::Mode::adaptive ? 40U : 3U,
	     .samples = std::min(large ? 30U : 300U, samples_of(change.pool))});
}

void add_others()
{
	add({.name = "call/direct", .make = [] { return Body(direct_calls); }, .quick = true});
	add({.name = "call/thread", .make = [] {
		return [other = std::make_shared<ThreadEcho>()](Round &round) {
			round.time("", [&] { other->trip(); });
		};
	}, .samples = 2000});
	add({.name = "call/pipe", .make = [] { return echo(Echo::pipes); }, .quick = true, .samples = 2000});
	add({.name = "call/socket", .make = [] { return echo(Echo::socket); }, .samples = 2000});
	add({.name = "call/futex", .make = [] {
		return [other = std::make_shared<FutexEcho>()](Round &round) {
			round.time("", [&] { other->trip(); });
		};
	}, .samples = 2000});
	for (const std::size_t bytes : {std::size_t{0}, 16 * MiB, GiB}) {
		const std::string heap = "/heap=" + bytes_text(bytes);
		const auto with_heap = [bytes](void (*body)(Round &)) {
			return [bytes, body] {
				return [heap = shared_heap(bytes), body](Round &round) { body(round); };
			};
		};

		add({.name = "call/fork" + heap, .make = with_heap(fork_and_wait), .quick = bytes == 16 * MiB,
		     .rounds = 15, .samples = 50});
		add({.name = "call/vfork" + heap, .make = with_heap(vfork_and_wait), .rounds = 31,
		     .samples = 50});
		add({.name = "call/spawn" + heap, .make = with_heap(spawn_and_wait), .rounds = 31,
		     .samples = 50});
	}
	for (const std::size_t pages : {16, 256})
		add({.name = "call/fork_copies/pages=" + std::to_string(pages),
		     .make = [pages] { return fork_copies(pages); }, .quick = true, .rounds = 15,
		     .samples = 50});
}

void add_calls()
{
	constexpr std::array changed = {0, 1, 16, 256, 4096};

	add({.name = "call/sync/pool=none", .make = call_without_pool, .quick = true});
	for (const std::size_t pool : {MiB, 16 * MiB, 256 * MiB, GiB}) {
		const std::string name = "call/sync/pool=" + bytes_text(pool);
		const bool quick = pool == MiB || pool == 16 * MiB;

		for (const std::size_t pages : changed)
			if (pages * page_size <= pool)
				add_sync(name + "/adjacent", {.pool = pool, .pages = pages},
					 quick && pages <= 256);
		for (const std::size_t pages : {std::size_t{16}, std::size_t{256}, std::size_t{4096}})
			if (pages * page_size < pool)
				add_sync(name + "/scattered",
					 {.pool = pool, .pages = pages, .stride = pool / pages},
					 quick && pages <= 256);
		if (pool != 16 * MiB)
			continue;
		// While it is there: what else the cost depends on.
		for (const std::size_t pages : {std::size_t{1}, std::size_t{16}, std::size_t{256}}) {
			add_sync(name + "/unread", {.pool = pool, .pages = pages, .read = false}, true);
			add_sync(name + "/adaptive", {.pool = pool, .pages = pages, .mode = orbit::Mode::adaptive},
				 true);
			add_sync(name + "/adaptive/unread",
				 {.pool = pool, .pages = pages, .mode = orbit::Mode::adaptive, .read = false},
				 false);
			add_sync(name + "/copy", {.pool = pool, .pages = pages, .mode = orbit::Mode::copy}, false);
		}
		for (const std::size_t calls : {1, 16, 256})
			for (const std::size_t pages : {0, 1, 16})
				add({.name = "call/async/batch=" + std::to_string(calls) +
					     "/pages=" + std::to_string(pages),
				     .make = [calls, pages] { return throughput(calls, pages); },
				     .quick = calls == 16,
				     .rounds = 31,
				     .samples = 50});
	}
	for (const int waiting : {-1, 0, 1, 16, 256})
		add({.name = waiting < 0 ? "call/queue/idle" : "call/queue/waiting=" + std::to_string(waiting),
		     .make = [waiting] { return behind(waiting); }, .quick = waiting <= 16, .rounds = 51,
		     .samples = 50});
}

} // namespace

int main(int argc, char **argv)
{
	add_others();
	add_calls();
	return run(argc, argv);
}
