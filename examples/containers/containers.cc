// SPDX-License-Identifier: MIT
//
// Containers in a pool: the program uses them as any others, a task reads them as they
// were at the call, and what it changes in them is gone with its view.
#include <orbit/memory.hpp>

#include <cstdio>
#include <map>
#include <memory_resource>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

using Orders = std::pmr::map<std::pmr::string, std::pmr::vector<int>>; // amounts, by customer

int total(const Orders *orders)
{
	int sum = 0;

	for (const auto &[customer, amounts] : *orders)
		for (int amount : amounts)
			sum += amount;
	return sum;
}

// Merges all orders into one: a task may do what it likes to its own view.
int merged(Orders *orders)
{
	auto &all = (*orders)["all of them together"];

	for (auto &[customer, amounts] : *orders)
		if (&amounts != &all)
			all.insert(all.end(), amounts.begin(), amounts.end());
	return static_cast<int>(all.size());
}

int main()
{
	if (const auto probe = orbit::probe(); !probe) {
		std::printf("%s %s\n", probe.reason, probe.advice);
		return 1;
	}
	// When there is no room it makes further pools; without `grow`, std::bad_alloc.
	auto memory = orbit::Memory::create(1 << 20, {.name = "orders", .grow = true}).value();
	auto audit = orbit::Orbit::create({.name = "audit"}).value();
	auto *orders = memory.make<Orders>(); // all that it will ever hold is in the pool, too
	std::mutex lock;		      // of the orders

	// A thread of the program adds two amounts for each customer, under the lock.
	std::thread clerk([&] {
		for (int i = 0; i < 20000; i++) {
			const std::lock_guard guard(lock);
			auto &amounts = (*orders)[std::pmr::string(
				"customer " + std::to_string(i % 700), memory.resource())];

			amounts.push_back(1);
			amounts.push_back(-1);
		}
	});

	// The lock is held while the snapshot is taken, so no change is half made in it. The
	// clerk goes on while the task runs.
	int right = 0;
	for (int i = 0; i < 10; i++) {
		std::unique_lock guard(lock);
		auto task = audit.call_async(memory, total, orders).value();

		guard.unlock();
		right += task.wait().value() == 0;
	}
	clerk.join();
	std::printf("%d of 10 audits found the sum right\n", right);

	std::printf("merged %d amounts in the orbit's view\n",
		    audit.call(memory, merged, orders).value());
	std::printf("the program still has its %zu customers, %s\n", orders->size(),
		    orders->contains("all of them together") ? "and one more"
							     : "and nothing merged");

	memory.destroy(orders);
	std::printf("%zu bytes are in use after that\n", memory.used());
}
