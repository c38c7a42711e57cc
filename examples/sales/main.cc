// SPDX-License-Identifier: MIT
//
// A table that threads change all the time, and queries over all of it: under a lock, on an ordinary snapshot,
// by scan. README.md tells how to read what it prints.
#include "query.h"
#include "report.h"
#include "table.h"

#include <cstdio>
#include <functional>
#include <utility>

using namespace std::chrono_literals;

namespace {

// An answer, and what the table came to when it was asked for.
struct Asked {
	Answer answer;
	Books books;
};

Asked ask_under_lock(Table &table)
{
	const std::lock_guard guard(table);

	return {ask_at_rest(table.sales().span(), table.products().span()), table.books()};
}

// The lock is held until the snapshot is taken.
template <class Ask> Asked ask_in_orbit(Table &table, orbit::Orbit &orbit, Ask ask)
{
	std::unique_lock guard(table);
	auto task = orbit.call_async({table.sales(), table.products()}, ask,
				     std::span<const std::byte>(table.sales().span()),
				     std::span<const std::byte>(table.products().span())).value();
	const Books books = table.books();

	guard.unlock();
	return {task.wait().value(), books};
}

// The sums by region and by category are of the same sales.
bool is_right(const Asked &asked)
{
	std::int64_t by_region = 0, by_category = 0;

	for (const std::int64_t cents : asked.answer.by_region)
		by_region += cents;
	for (const std::int64_t cents : asked.answer.by_category)
		by_category += cents;
	return asked.answer.sales == asked.books.sales && asked.answer.cents == asked.books.cents &&
	       by_region == asked.books.cents && by_category == asked.books.cents &&
	       asked.answer.least >= 0 && asked.answer.least <= asked.answer.most;
}

// What an orbit keeps of the table between two calls is gone with it.
orbit::Orbit make_orbit()
{
	return orbit::Orbit::create({.name = "query"}).value();
}

// Queries one after the other with pauses, for so long; one at least.
Figures run(Table &table, const char *way, std::chrono::duration<double> how_long, const std::function<Asked()> &ask)
{
	Figures figures(way);

	table.take_latencies();
	table.start();
	{
		const Sampler sampler(table, &figures);
		const auto begin = Figures::Clock::now();

		do {
			const auto before = Figures::Clock::now();
			const bool right = is_right(ask());

			figures.add_query(Figures::Clock::now() - before, right);
			std::this_thread::sleep_for(20ms);
		} while (Figures::Clock::now() - begin < how_long);
		figures.set_transactions(table.take_latencies(), Figures::Clock::now() - begin);
	}
	table.stop();
	return figures;
}

} // namespace

int main(int argc, char **argv)
{
	const Settings settings = Settings::of(argc, argv);

	if (const auto probe = orbit::probe(); !probe) {
		std::printf("%s %s\n", probe.reason, probe.advice);
		return 1;
	}

	Table table(settings.megabytes << 20, settings.threads, settings.rate);
	const std::chrono::duration<double> time(settings.seconds);
	std::vector<Figures> all{
		run(table, "no query", time, [&] {
			std::this_thread::sleep_for(time);
			return Asked{};
		}),
		run(table, "lock", time, [&] { return ask_under_lock(table); }),
	};
	for (const auto &[way, ask] : {std::pair{"snapshot", &ask_at_rest}, std::pair{"scan", &ask_by_scan}}) {
		auto orbit = make_orbit();

		// The first task of an orbit has all of the table to map or, on the portable backend, main to copy.
		ask_in_orbit(table, orbit, ask);
		all.push_back(run(table, way, time, [&] { return ask_in_orbit(table, orbit, ask); }));
	}
	return report(table, settings, all) ? 0 : 1;
}
