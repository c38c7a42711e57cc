// SPDX-License-Identifier: MIT
//
// For programs that count what a driver costs, in a guest where a nanosecond of its one processor's time is an instruction.
//
// What is counted is all that the processor does, interrupts and other processes included, but for what the program spends
// while it only waits for the device: that is a loop of known length, and is subtracted. What timers and the loop's surroundings cost is
// counted by the same rounds without requests, and is subtracted, too.
#ifndef ORBIT_BENCH_DRIVERS_COUNTED_H
#define ORBIT_BENCH_DRIVERS_COUNTED_H

#include "../common/bench.h"

#include <type_traits>

namespace counted {

using bench::check;
using bench::die;
using bench::now;

template <class T> auto get(T &&got, const char *what)
{
	if (!got)
		die(std::string(what) + ": " + got.error().message());
	if constexpr (!std::is_void_v<typename std::remove_cvref_t<T>::value_type>)
		return std::move(*got);
}

/// Without the highest and the lowest, a tenth of each.
inline double middle_mean(std::vector<double> values)
{
	const auto cut = static_cast<std::ptrdiff_t>(values.size() / 10);

	std::sort(values.begin(), values.end());
	return std::accumulate(values.begin() + cut, values.end() - cut, 0.0) / static_cast<double>(values.end() - values.begin() - 2 * cut);
}

/// Does twice as many instructions, and nothing else.
inline void spin(std::uint64_t times)
{
	asm volatile("1:\n\tdec %0\n\tjnz 1b" : "+r"(times) : : "cc");
}

/// What a request costs, in instructions, of which a round of `work` makes `batch`. After each round the device has a time for what it was
/// asked for; `work` returns whether it had done all by then. If not that round says how busy the host is, and is left out; the time gets
/// longer if there are many of those.
template <class Work> double each(unsigned batch, Work &&work)
{
	constexpr unsigned wanted = 300, most_late = 30;
	std::uint64_t spins = 1'000'000;
	std::vector<double> with, without;
	const auto round = [&](auto &&of) {
		const std::int64_t began = now();
		const bool good = of();

		spin(spins);
		return std::pair(good, static_cast<double>(now() - began) - 2.0 * static_cast<double>(spins));
	};

	for (unsigned late = 0; with.size() < wanted;) {
		const auto [good, cost] = round(work);

		if (good)
			with.push_back(cost);
		else if (++late > most_late) {
			check(spins < 100'000'000, "the device does not answer, or the host is too busy");
			spins *= 2;
			late = 0;
			with.clear();
		}
	}
	while (without.size() < wanted)
		without.push_back(round([] { return true; }).second);
	return (middle_mean(with) - middle_mean(without)) / batch;
}

/// For run.py.
inline void figure(const std::string &name, double value)
{
	std::printf("figure %s %.0f\n", name.c_str(), value);
	std::fflush(stdout);
}

} // namespace counted

#endif
