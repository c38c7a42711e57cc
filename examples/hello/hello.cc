// SPDX-License-Identifier: MIT
//
// A pool, an orbit, a call; then a call that crashes, which the program survives.
#include <orbit/orbit.hpp>

#include <cstdio>
#include <numeric>

struct Table {
	int rows[1000];
};

int main()
{
	auto pool = orbit::Pool::create(sizeof(Table));
	auto audit = orbit::Orbit::create({.name = "audit"});
	if (!pool || !audit) {
		std::printf("%s\n", (pool ? audit.error() : pool.error()).message().c_str());
		return 1;
	}
	Table *table = pool->construct<Table>();
	std::iota(table->rows, table->rows + 1000, 1);

	// Runs in the orbit, over a snapshot of the pool.
	auto sum = audit->call(*pool, [](const Table *t) {
		return std::accumulate(t->rows, t->rows + 1000, 0);
	}, table);
	std::printf("sum: %d\n", sum.value_or(-1));

	auto crash = audit->call(*pool, [](Table *t) {
		t->rows[0] = 42;		// the orbit's own copy
		*static_cast<volatile int *>(nullptr) = 1;
	}, table);
	std::printf("crash: %s\n", crash ? "none?" : crash.error().message().c_str());
	std::printf("first row: still %d\n", table->rows[0]);
}
