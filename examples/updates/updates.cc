// SPDX-License-Identifier: MIT
//
// How a task changes the program's data: it proposes, and the program applies what it has
// declared. Here an orbit looks for rows that may go, and a bug in it proposes nonsense.
#include <orbit/orbit.hpp>

#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <vector>

struct Row {
	int id;
	bool expired;
};

struct Table {
	Row rows[100];
};

struct Statistics {
	int live, expired;
};

// Both sides know the operation by its number and the types of its arguments.
constexpr orbit::Operation<int> remove_row{1};

// In the orbit. What it sends is part of the task's outcome. Where an update finds no room, require()
// ends the task, and none of them is applied.
void collect(const Table *table, Statistics *statistics)
{
	Statistics found{};

	for (const Row &row : table->rows) {
		(row.expired ? found.expired : found.live)++;
		if (row.expired)
			orbit::require(remove_row.send(row.id));
	}
	orbit::require(orbit::send(statistics, found));
}

void wild(int *password)
{
	orbit::require(orbit::send(password, 0));
}

int main()
{
	if (const auto probe = orbit::probe(); !probe) {
		std::printf("%s %s\n", probe.reason, probe.advice);
		return 1;
	}
	auto pool = orbit::Pool::create(sizeof(Table)).value();
	auto collector = orbit::Orbit::create({.name = "collector"}).value();
	auto *table = pool.construct<Table>();
	Statistics statistics{};
	std::vector<int> removed;
	int password = 1234;

	for (int id = 0; id < 100; id++)
		table->rows[id] = {.id = id, .expired = id % 30 == 7};

	// What updates may do. All else is refused, whatever a bug in the orbit makes of it.
	auto targets = orbit::Targets::create().value();
	const auto remove = [&](orbit::Untrusted<int> id) {
		const int *row = id.in_range(0, 99);

		if (!row || !table->rows[*row].expired)
			return -EINVAL; // it may have changed since the snapshot
		removed.push_back(*row);
		return 0;
	};
	if (!targets.add(statistics) || !targets.add(remove_row, remove))
		return 1;

	table->rows[37].expired = true;
	auto task = collector.call_async(pool, collect, table, &statistics).value();
	table->rows[37].expired = false; // too late for the snapshot

	const auto applied = task.apply_all(targets).value();
	std::printf("applied %d updates, %d failed\n", static_cast<int>(applied.applied),
		    static_cast<int>(applied.failed));
	std::printf("live %d, expired %d\n", statistics.live, statistics.expired);
	for (int id : removed)
		std::printf("removed row %d\n", id);

	auto bug = collector.call_async({}, wild, &password).value();
	bug.apply_all(targets).value();

	const bool known = targets.refusal()->target == reinterpret_cast<std::uintptr_t>(&password);
	std::printf("refused %d, aimed at %s, which is still %d\n", static_cast<int>(targets.refused()),
		    known ? "the password" : "something else", password);
}
