// SPDX-License-Identifier: MIT
//
// How costs grow: with the pool's size, the number of orbits, the queue, the threads that call.
// README.md says how each case is measured.
#include "../common/memory.h"

#include <barrier>
#include <csignal>
#include <thread>

#include <sys/resource.h>

using namespace bench;

namespace {

// ---- Size of the pool ----------------------------------------------------------------

Body call_of(std::size_t bytes)
{
	auto both = shared_pool(bytes);

	return [both, number = std::uint64_t{1}](Round &round) mutable {
		std::byte *const base = both->pool.data();

		number++;
		round.time("write", [&] { write_pages(base, 1, page_size, number); });
		std::uint64_t sum = 0;
		round.time("call", [&] {
			sum = value(both->orbit.call(both->pool, read_pages, static_cast<const std::byte *>(base),
						     std::size_t{1}, page_size),
				    "call");
		});
		if (sum != number)
			die("the task saw something else");
	};
}

// ---- Number of orbits ------------------------------------------------------------------

// A few of a great many calls tell what each costs; with few orbits they take turns.
constexpr std::size_t calls_in_all = 64;

double each(double whole, std::size_t count)
{
	return whole / static_cast<double>(count);
}

// A few hundred KiB are what the kernel keeps ready.
bool is_countable(std::size_t count)
{
	return counted() && count >= 100;
}

// Makes them, calls them, destroys them; all of it once in a round.
Body orbits(std::size_t count)
{
	auto pool = std::make_shared<orbit::Pool>(value(orbit::Pool::create(MiB, "scale"), "pool"));

	write_pages(pool->data(), pool->size() / page_size, page_size, 1);
	return [pool, count](Round &round) {
		std::vector<orbit::Orbit> all;
		const auto *base = static_cast<const std::byte *>(pool->data());
		const auto call = [&](std::size_t n, std::uint64_t number) {
			write_pages(pool->data(), 1, page_size, number);
			if (value(all[n % count].call(*pool, read_pages, base, std::size_t{1}, page_size), "call") !=
			    number)
				die("the task saw something else");
		};

		all.reserve(count);
		const double before = is_countable(count) ? used_kib() : 0;
		round.time("create", [&] {
			for (std::size_t n = 0; n < count; n++)
				all.push_back(value(orbit::Orbit::create({.name = "scale"}), "orbit"));
		}, static_cast<double>(count));
		if (is_countable(count))
			round.add("memory each, KiB", each(used_kib() - before, count));
		for (std::size_t n = 0; n < count; n++)
			call(n, n + 2);
		round.time("call", [&] {
			for (std::size_t n = 0; n < calls_in_all; n++)
				call(n, n + 7);
		}, calls_in_all);
		round.time("destroy", [&] { all.clear(); }, static_cast<double>(count));
		settle(); // the processes outlive the handles by a moment
	};
}

// What a program would have without orbits.
Body forks(std::size_t count)
{
	return [count](Round &round) {
		std::vector<pid_t> all;

		all.reserve(count);
		const double before = is_countable(count) ? used_kib() : 0;
		round.time("create", [&] {
			for (std::size_t n = 0; n < count; n++) {
				const pid_t pid = fork();

				if (!pid)
					for (;;)
						pause();
				check(pid > 0, "fork");
				all.push_back(pid);
			}
		}, static_cast<double>(count));
		usleep(200000); // until they have come to their pause()
		if (is_countable(count))
			round.add("memory each, KiB", each(used_kib() - before, count));
		round.time("destroy", [&] {
			for (const pid_t pid : all)
				check(!kill(pid, SIGKILL), "kill");
			for (const pid_t pid : all)
				waitpid(pid, nullptr, 0);
		}, static_cast<double>(count));
		settle();
	};
}

// ---- Depth of the queue ------------------------------------------------------------------

// So many calls without waiting, each after a change of one page; then the wait for all.
Body queue(std::size_t depth)
{
	auto both = shared_pool(16 * MiB);

	return [both, depth, number = std::uint64_t{1}](Round &round) mutable {
		std::byte *const base = both->pool.data();
		std::vector<orbit::Task<std::uint64_t>> tasks;

		tasks.reserve(depth);
		const auto call_all = [&] {
			for (std::size_t n = 0; n < depth; n++) {
				write_pages(base, 1, page_size, ++number);
				tasks.push_back(value(both->orbit.call_async(both->pool, read_pages,
									     static_cast<const std::byte *>(base),
									     std::size_t{1}, page_size),
						      "call"));
			}
		};

		round.time("call", call_all, static_cast<double>(depth));
		round.time("wait", [&] {
			for (auto &task : tasks)
				value(task.wait(), "wait");
		}, static_cast<double>(depth));
		if (value(tasks.back().wait(), "wait") != number)
			die("the task saw something else");
	};
}

// ---- Calling threads -----------------------------------------------------------------------

constexpr std::size_t calls_each = 50;

// Each thread has a pool of its own, and calls one orbit that all share, or one of its own.
class Callers {
public:
	Callers(std::size_t count, bool share) : line_(static_cast<std::ptrdiff_t>(count + 1))
	{
		for (std::size_t n = 0; n < (share ? 1 : count); n++)
			orbits_.push_back(value(orbit::Orbit::create({.name = "scale"}), "orbit"));
		for (std::size_t n = 0; n < count; n++)
			pools_.push_back(value(orbit::Pool::create(MiB, "scale"), "pool"));
		for (std::size_t n = 0; n < count; n++)
			threads_.emplace_back([this, n, share] { work(pools_[n], orbits_[share ? 0 : n]); });
	}
	Callers(const Callers &) = delete;
	Callers &operator=(const Callers &) = delete;
	~Callers()
	{
		ending_ = true;
		line_.arrive_and_wait();
		for (std::thread &thread : threads_)
			thread.join();
	}

	void call_all()
	{
		line_.arrive_and_wait();
		line_.arrive_and_wait();
	}
	double calls() const { return static_cast<double>(threads_.size() * calls_each); }

private:
	void work(const orbit::Pool &pool, orbit::Orbit &orbit)
	{
		for (std::uint64_t number = 1;;) {
			line_.arrive_and_wait();
			if (ending_)
				return;
			for (std::size_t n = 0; n < calls_each; n++) {
				write_pages(pool.data(), 1, page_size, ++number);
				if (value(orbit.call(pool, read_pages, static_cast<const std::byte *>(pool.data()),
						     std::size_t{1}, page_size),
					  "call") != number)
					die("the task saw something else");
			}
			line_.arrive_and_wait();
		}
	}

	std::barrier<> line_;
	bool ending_ = false;
	std::vector<orbit::Pool> pools_;
	std::vector<orbit::Orbit> orbits_;
	std::vector<std::thread> threads_;
};

Body callers(std::size_t count, bool share)
{
	return [all = std::make_shared<Callers>(count, share)](Round &round) {
		round.time("", [&] { all->call_all(); }, all->calls());
	};
}

} // namespace

int main(int argc, char **argv)
{
	rlimit files{};

	gflags::ParseCommandLineFlags(&argc, &argv, false); // for counted()
	getrlimit(RLIMIT_NOFILE, &files);
	files.rlim_cur = files.rlim_max;
	setrlimit(RLIMIT_NOFILE, &files);

	// Twice each pool is needed here, for orbits of the other backend have a copy.
	const double room = std::strtod(line_of("/proc/meminfo", "MemAvailable").c_str(), nullptr) * KiB /
			    (counted() ? 1.2 : 2.5);

	for (const std::size_t bytes : {4 * KiB, 64 * KiB, MiB, 16 * MiB, 256 * MiB, GiB, 4 * GiB})
		if (static_cast<double>(bytes) < room)
			add({.name = "scale/pool=" + bytes_text(bytes), .make = [bytes] { return call_of(bytes); },
			     .quick = bytes <= 16 * MiB, .samples = samples_of(bytes)});
	for (const std::size_t depth : {1, 4, 16, 64, 256, 1000})
		add({.name = "scale/queue=" + std::to_string(depth), .make = [depth] { return queue(depth); },
		     .rounds = depth > 256 ? 5U : 15U, .samples = depth > 256 ? 5U : 30U});
	for (const bool share : {true, false})
		for (const std::size_t count : {1, 2, 4, 8})
			add({.name = std::string("scale/threads=") + std::to_string(count) +
				     (share ? "/one orbit" : "/an orbit each"),
			     .make = [count, share] { return callers(count, share); },
			     .rounds = 15, .samples = 20});
	// Last, for what comes after a thousand processes finds the machine in another state.
	for (const auto &[name, make] : {std::pair{"orbits", &orbits}, {"forks", &forks}})
		for (const std::size_t count : {1, 10, 100, 1000})
			add({.name = std::string("scale/") + name + "=" + std::to_string(count),
			     .make = [make = make, count] { return make(count); },
			     // Once, for memory that an earlier round has left in caches would be missing.
			     .rounds = count > 10 ? 1U : 15U,
			     .warm_up = count > 10 ? 0U : 1U,
			     .samples = count > 10 ? 1U : 5U,
			     // With the other backend it takes minutes, most of which is fork().
			     .only_counted = count > 100 && is_portable()});
	return run(argc, argv);
}
