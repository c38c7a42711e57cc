// SPDX-License-Identifier: MIT
//
// P11: a process that uses no orbit pays nothing for them. Runs where guest time counts
// instructions (run.py --icount), on a kernel with CONFIG_ORBIT and on one without it;
// tests/all.py compares the lines that begin with "figure".
//
// Linked statically and without a test framework: where libraries happen to lie in memory
// has its own small effects on what a fork costs.

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <vector>

#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

namespace {

constexpr std::size_t page_size = 4096;
constexpr std::size_t pages = 64;
constexpr int rounds = 200;

std::int64_t now()
{
	return std::chrono::steady_clock::now().time_since_epoch().count();
}

// The median: what a timer's tick or the refill of a slab adds to some rounds is not in it; how
// many of them meet one depends on what ran before.
// @round returns what it counted.
template <class F> void measure(const char *name, F &&round)
{
	std::vector<std::int64_t> counts;

	for (int n = 0; n < rounds / 10; n++)
		round();
	for (int n = 0; n < rounds; n++)
		counts.push_back(round());
	std::sort(counts.begin(), counts.end());
	if (counts.front() <= 0) {
		std::printf("%s: the clock does not count\n", name);
		std::exit(1);
	}
	std::printf("figure %s %.1f\n", name, static_cast<double>(counts[rounds / 2]));
}

template <class F> std::int64_t count(F &&f)
{
	const auto begin = now();

	f();
	return now() - begin;
}

std::byte *map(int flags = MAP_PRIVATE | MAP_ANONYMOUS)
{
	void *const at = mmap(nullptr, pages * page_size, PROT_READ | PROT_WRITE, flags, -1, 0);

	if (at == MAP_FAILED)
		std::abort();
	return static_cast<std::byte *>(at);
}

void unmap(std::byte *at)
{
	munmap(at, pages * page_size);
}

void write_all(std::byte *at)
{
	for (std::size_t n = 0; n < pages; n++)
		*static_cast<volatile std::byte *>(at + n * page_size) = std::byte{1};
}

void read_all(const std::byte *at)
{
	for (std::size_t n = 0; n < pages; n++)
		(void)*static_cast<const volatile std::byte *>(at + n * page_size);
}

// What @child does in a child, from the fork until it has been waited for.
template <class F> std::int64_t count_child(F &&child)
{
	return count([&] {
		const pid_t pid = fork();

		if (!pid) {
			child();
			_exit(0);
		}
		waitpid(pid, nullptr, 0);
	});
}

void processes()
{
	std::byte *const memory = map();

	write_all(memory);
	measure("fork, exit, wait", [] { return count_child([] {}); });
	measure("the same, 64 pages copied on write", [&] {
		return count_child([&] { write_all(memory); });
	});
	measure("exit with 64 pages more", [] { return count_child([] { write_all(map()); }); });
	unmap(memory);
}

void mappings()
{
	measure("mmap, munmap", [] { return count([] { unmap(map()); }); });
	measure("mprotect", [] {
		std::byte *const at = map();
		const auto counted = count([&] {
			mprotect(at, page_size, PROT_READ);
			mprotect(at, page_size, PROT_READ | PROT_WRITE);
		});

		unmap(at);
		return counted;
	});
	measure("munmap of 64 pages", [] {
		std::byte *const at = map();

		write_all(at);
		return count([&] { unmap(at); });
	});
}

void faults()
{
	const auto first_touch = [](int flags) {
		std::byte *const at = map(flags);
		const auto counted = count([&] { write_all(at); });

		unmap(at);
		return counted;
	};

	measure("64 first touches", [&] { return first_touch(MAP_PRIVATE | MAP_ANONYMOUS); });
	measure("64 first touches, shared", [&] { return first_touch(MAP_SHARED | MAP_ANONYMOUS); });
	measure("64 writes to the zero page", [] {
		std::byte *const at = map();

		read_all(at);
		const auto counted = count([&] { write_all(at); });

		unmap(at);
		return counted;
	});
	measure("64 copies on write", [] {
		int pipe_fds[2];
		std::byte *const at = map();
		char byte;

		write_all(at);
		if (pipe(pipe_fds))
			std::abort();
		const pid_t pid = fork();
		if (!pid) {
			close(pipe_fds[1]);
			_exit(read(pipe_fds[0], &byte, 1) != 0);
		}
		const auto counted = count([&] { write_all(at); });

		close(pipe_fds[0]);
		close(pipe_fds[1]);
		waitpid(pid, nullptr, 0);
		unmap(at);
		return counted;
	});
}

void system_calls()
{
	measure("100 getppid", [] {
		return count([] {
			for (int n = 0; n < 100; n++)
				getppid();
		});
	});
}

} // namespace

int main()
{
	std::setvbuf(stdout, nullptr, _IOLBF, 0);
	processes();
	mappings();
	faults();
	system_calls();
}
