// SPDX-License-Identifier: MIT
//
// What a call costs on a kernel without orbits, where processes carry them and what has changed is copied; beside fork().
// README.md says how each case is measured.
#include "../common/memory.h"

#include <cstring>

using namespace bench;

namespace {

std::uint64_t answer()
{
	return 1;
}

void call_without_pool(const std::shared_ptr<PoolAndOrbit> &both, Round &round)
{
	round.time("", [&] { value(both->orbit.call({}, answer), "call"); });
}

struct Change {
	std::size_t pool, runs, length;
};

// Runs of neighbouring pages change, the same distance from each other; then a call that reads them.
Body call_after(const Change &change)
{
	auto both = shared_pool(change.pool);

	return [both, change, number = std::uint64_t{1}](Round &round) mutable {
		std::byte *const base = both->pool.data();
		const std::size_t stride = change.runs ? change.pool / change.runs / page_size * page_size : page_size;
		std::uint64_t sum = 0;

		number++;
		round.time("write", [&] {
			for (std::size_t i = 0; i < change.runs; i++)
				write_pages(base + i * stride, change.length, page_size, number);
		});
		round.time("call", [&] {
			sum = value(both->orbit.call(both->pool, read_pages, static_cast<const std::byte *>(base),
						     change.runs, stride),
				    "call");
		});
		if (sum != number * change.runs)
			die("the task saw something else");
	};
}

// A new pool that main has filled, and what copying as much to new memory takes.
Body first_call(std::size_t bytes)
{
	auto orbit = std::make_shared<orbit::Orbit>(value(orbit::Orbit::create({.name = "bench"}), "orbit"));

	return [orbit, bytes](Round &round) {
		const orbit::Pool pool = value(orbit::Pool::create(bytes, "bench"), "pool");
		const Heap copy(bytes, false);

		write_pages(pool.data(), bytes / page_size, page_size, 1);
		round.time("call", [&] { value(orbit->call(pool, answer), "call"); });
		round.time("memcpy", [&] { std::memcpy(copy.data(), pool.data(), bytes); });
	};
}

Body fork_and_wait(std::size_t bytes)
{
	auto heap = shared_heap(bytes);

	return [heap](Round &round) {
		round.time("", [] {
			const pid_t pid = fork();

			if (!pid)
				_exit(0);
			wait_for(pid);
		});
	};
}

// What main's writes cost while a forked child still has the pages.
Body fork_copies(std::size_t bytes, std::size_t pages)
{
	auto heap = shared_heap(bytes);

	return [heap, pages](Round &round) {
		const std::size_t stride = heap->size() / pages;
		{
			const Child child;

			round.time("write", [&] { write_pages(heap->data(), pages, stride, 2); });
		}
		write_pages(heap->data(), pages, stride, 3);
	};
}

std::string name_of(const char *what, std::size_t bytes)
{
	return std::string("portable/") + what + bytes_text(bytes);
}

void add_call(const Change &change, const std::string &spread, std::size_t pages, bool quick)
{
	add({.name = name_of("pool=", change.pool) + "/" + spread + "/pages=" + std::to_string(pages),
	     .make = [change] { return call_after(change); },
	     .quick = quick,
	     .rounds = 15,
	     .warm_up = 5,
	     .samples = 60});
}

} // namespace

int main(int argc, char **argv)
{
	constexpr std::size_t fork_pages[] = {16, 1024};

	check(!setenv("ORBIT_BACKEND", "portable", 1), "setenv");
	add({.name = "portable/pool=none",
	     .make = [] { return [both = shared_pool(MiB)](Round &round) { call_without_pool(both, round); }; },
	     .quick = true,
	     .rounds = 101});
	for (const std::size_t pool : {64 * MiB, 256 * MiB, 512 * MiB, GiB}) {
		const bool quick = pool == 64 * MiB;

		add_call({pool, 0, 0}, "same", 0, quick);
		// 100 places of five pages each.
		add_call({pool, 100, 5}, "runs", 500, quick);
		for (const std::size_t pages : fork_pages) {
			add_call({pool, pages, 1}, "scattered", pages, quick);
			add_call({pool, 1, pages}, "adjacent", pages, quick);
		}
	}
	for (const std::size_t bytes : {64 * MiB, 256 * MiB})
		add({.name = name_of("first/pool=", bytes),
		     .make = [bytes] { return first_call(bytes); },
		     .rounds = 3,
		     .warm_up = 1,
		     .samples = 3});
	for (const std::size_t bytes : {64 * MiB, 256 * MiB, GiB}) {
		const bool quick = bytes == 64 * MiB;

		add({.name = name_of("fork/heap=", bytes), .make = [bytes] { return fork_and_wait(bytes); },
		     .quick = quick, .rounds = 7, .samples = 10});
		for (const std::size_t pages : fork_pages)
			add({.name = name_of("fork_copies/heap=", bytes) + "/pages=" + std::to_string(pages),
			     .make = [bytes, pages] { return fork_copies(bytes, pages); },
			     .quick = quick, .rounds = 7, .samples = 10});
	}
	return run(argc, argv);
}
