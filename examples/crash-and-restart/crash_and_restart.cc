// SPDX-License-Identifier: MIT
//
// An orbit that starts again: a task that crashes or hangs ends the orbit's process, its
// caller is told how, and the next task gets a fresh process.
#include <orbit/orbit.hpp>

#include <chrono>
#include <cstdio>
#include <cstdlib>

using namespace std::chrono_literals;

struct Table {
	int rows[100];
};

int runs; // the orbit's own memory: kept from task to task, fresh in a fresh process

int check(const Table *)
{
	return ++runs;
}

int null_pointer(const Table *)
{
	return *static_cast<volatile int *>(nullptr);
}

int endless(const Table *)
{
	for (volatile bool forever = true; forever;)
		;
	return 0;
}

int aborts(const Table *)
{
	std::abort();
}

int main()
{
	if (const auto probe = orbit::probe(); !probe) {
		std::printf("%s %s\n", probe.reason, probe.advice);
		return 1;
	}
	auto pool = orbit::Pool::create(sizeof(Table)).value();
	auto audit = orbit::Orbit::create({.name = "audit", .restart = true}).value();
	auto *table = pool.construct<Table>();

	const auto report = [](const char *what, const orbit::expected<int> &value) {
		if (value)
			std::printf("%-14s run %d in its process\n", what, *value);
		else
			std::printf("%-14s %s\n", what, value.error().message().c_str());
	};

	report("check:", audit.call(pool, check, table));
	report("check:", audit.call(pool, check, table));
	report("null pointer:", audit.call(pool, null_pointer, table));
	report("check:", audit.call(pool, check, table));
	report("endless loop:", audit.call({.time_limit = 200ms}, pool, endless, table));
	report("check:", audit.call(pool, check, table));

	// What waits in the queue behind a crash is kept, with its snapshot.
	auto bad = audit.call_async(pool, aborts, table).value();
	auto good = audit.call_async(pool, check, table).value();
	report("abort:", bad.wait());
	report("check behind:", good.wait());

	const auto stat = audit.stat().value();
	std::printf("%d calls, %d returned; the orbit had to start again %d times\n",
		    static_cast<int>(stat.calls), static_cast<int>(stat.completed),
		    static_cast<int>(stat.restarts));
}
