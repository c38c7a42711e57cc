// SPDX-License-Identifier: MIT
//
// A main program to look at with a debugger; check.py does. It exits with 0 if everything
// was as without one.
#include <orbit/orbit.hpp>

#include <atomic>
#include <cstdio>
#include <sys/wait.h>
#include <thread>
#include <unistd.h>

namespace {

struct Data {
	int written_by_main;
	int written_by_debugger;
};

struct Seen {
	int by_main;
	int by_debugger;
};

// The orbit runs this; the debugger sets a breakpoint in it.
[[gnu::noinline]] Seen task_body(Data *data)
{
	const Seen seen{data->written_by_main, data->written_by_debugger};

	data->written_by_main = -1; // in the orbit's own copy
	return seen;
}

[[gnu::noinline]] void orbit_is_made()
{
	asm volatile("");
}

[[gnu::noinline]] void call_has_returned(Seen seen)
{
	asm volatile("" : : "r"(seen.by_main), "r"(seen.by_debugger));
}

// Only the child that main forked itself is its child.
bool own_child_only()
{
	int status = 0;
	const pid_t child = fork();

	if (!child)
		_exit(3);
	return waitpid(-1, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 3 &&
	       waitpid(-1, &status, WNOHANG) == -1 && errno == ECHILD;
}

} // namespace

int main()
{
	std::atomic<bool> stop{false};
	std::thread other([&stop] {
		while (!stop)
			usleep(1000);
	});
	auto pool = orbit::Pool::create(sizeof(Data));
	auto audit = orbit::Orbit::create({.name = "debugged", .restart = true});
	bool good = pool && audit;

	if (good) {
		Data *data = pool->construct<Data>();

		data->written_by_main = 41;
		orbit_is_made();
		for (int i = 0; i < 3; i++) {
			data->written_by_main = 42 + i;

			const auto seen = audit->call(*pool, task_body, data);

			good = good && seen && seen->by_main == 42 + i;
			if (seen)
				call_has_returned(*seen);
		}

		const auto crashed = audit->call(*pool, [](Data *) { __builtin_trap(); }, data);

		good = good && !crashed && crashed.error().signal() == SIGILL;

		const auto again = audit->call(*pool, task_body, data);

		good = good && again && again->by_main == 44;
	}
	good = good && own_child_only();
	stop = true;
	other.join();
	std::printf("main: %s\n", good ? "as ever" : "something was wrong");
	return good ? 0 : 1;
}
