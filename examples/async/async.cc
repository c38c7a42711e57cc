// SPDX-License-Identifier: MIT
//
// Calls that the program does not wait for: each has its snapshot and its place in the
// orbit's queue; outcomes are fetched when they are wanted.
#include <orbit/orbit.hpp>

#include <chrono>
#include <cstdio>
#include <poll.h>
#include <thread>
#include <vector>

using namespace std::chrono_literals;

struct Table {
	int version;
	int rows[1000];
};

int sum(const Table *table)
{
	int sum = 0;

	for (int row : table->rows)
		sum += row;
	return sum;
}

int main()
{
	if (const auto probe = orbit::probe(); !probe) {
		std::printf("%s %s\n", probe.reason, probe.advice);
		return 1;
	}
	auto pool = orbit::Pool::create(sizeof(Table)).value();
	auto audit = orbit::Orbit::create({.name = "audit"}).value();
	auto *table = pool.construct<Table>();

	// The snapshot is taken when the call is made, not when the task runs: each task
	// sees the version that was current at its own call.
	std::vector<orbit::Task<int>> tasks;
	for (int version = 1; version <= 3; version++) {
		table->version = version;
		for (int &row : table->rows)
			row = version;
		tasks.push_back(audit.call_async(pool, sum, table).value());
	}
	table->version = 4;

	// Tasks of one orbit run in the order of their calls. A task's descriptor fits into
	// any event loop: it hangs up when the task has ended.
	for (auto &task : tasks) {
		pollfd ended{.fd = task.fd(), .events = 0, .revents = 0};

		poll(&ended, 1, -1);
		std::printf("task %d: the rows' sum was %d\n", static_cast<int>(task.number()),
			    task.wait().value());
	}

	// One that takes its time. Meanwhile others wait in the queue, from where they can
	// be cancelled; and a call can say that it is not needed if its like waits already.
	const auto nap = [] { std::this_thread::sleep_for(1s); };
	auto slow = audit.call_async({}, nap).value();
	std::printf("slow task, after 1 ms: %s\n", slow.wait_for(1ms).error().message().c_str());

	auto waiting = audit.call_async(pool, sum, table).value();
	auto same = audit.call_async({.waiting = orbit::Waiting::skip_same}, pool, sum, table);
	std::printf("the same call again: %s\n", same.error().message().c_str());

	orbit::require(waiting.cancel());
	std::printf("the task that waited: %s\n", waiting.wait().error().message().c_str());
	std::printf("slow task, in the end: %s\n", slow.wait() ? "returned" : "failed");
}
