// SPDX-License-Identifier: MIT
//
// What the benchmarks share: cases, and the two ways to run them.
//
// Counted: where guest time counts instructions (tests/vm/run.py --icount), a nanosecond is
// an instruction. Each case prints the mean of its rounds, without extremes:
//	figure NAME/PART NUMBER
// Timed: Google Benchmark runs the cases in random order, repetition by repetition, so that
// what else the machine does meanwhile hits all alike. Each repetition prints its samples:
//	samples NAME/PART NANOSECONDS...
// Either way the program first tells where it runs ("context KEY VALUE"), and how many such
// steps there will be ("plan NUMBER"); "case NAME" ends a step. bench/run.py reads all that.
#ifndef ORBIT_BENCH_H
#define ORBIT_BENCH_H

#include <orbit/orbit.hpp>

#include <benchmark/benchmark.h>
#include <gflags/gflags.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <memory>
#include <numeric>
#include <random>
#include <regex>
#include <string>
#include <utility>
#include <vector>

#include <sys/utsname.h>
#include <unistd.h>

DEFINE_string(way, "timed", "timed, or counted (only where time counts instructions)");
DEFINE_string(filter, "", "only the cases whose names match this regular expression");
DEFINE_bool(quick, false, "only the cases of the fast part of the gate");
DEFINE_bool(list, false, "print the names of the cases");
DEFINE_int32(repetitions, 9, "of each case, in the timed way");

namespace bench {

constexpr std::size_t page_size = 4096;
constexpr std::size_t KiB = std::size_t{1} << 10;
constexpr std::size_t MiB = std::size_t{1} << 20;
constexpr std::size_t GiB = std::size_t{1} << 30;

// A benchmark that cannot do what it is to measure has nothing to say.
[[noreturn]] inline void die(const std::string &what)
{
	std::fflush(stdout);
	std::fprintf(stderr, "bench: %s\n", what.c_str());
	std::exit(1);
}

inline void check(bool good, const char *what)
{
	if (!good)
		die(what);
}

template <class T> T value(orbit::expected<T> &&got, const char *what)
{
	if (!got)
		die(std::string(what) + ": " + got.error().message());
	return std::move(*got);
}

inline std::int64_t now()
{
	return std::chrono::steady_clock::now().time_since_epoch().count();
}

// What reading the clock twice costs.
inline std::int64_t clock_cost = 0;

inline bool counted()
{
	return FLAGS_way == "counted";
}

// The parts of a round, as they are measured. Every round of a case has the same ones.
class Round {
public:
	// Times @f. With @divisor, it does so many of what is asked for.
	template <class F> void time(const char *part, F &&f, double divisor = 1)
	{
		const auto begin = now();

		f();
		add(part, static_cast<double>(now() - begin - clock_cost) / divisor);
	}
	void add(const char *part, double value)
	{
		check(used_ < parts_.size(), "too many parts");
		parts_[used_++] = {part, value};
	}
	void clear() { used_ = 0; }
	const auto *begin() const { return parts_.data(); }
	const auto *end() const { return parts_.data() + used_; }

private:
	std::array<std::pair<const char *, double>, 12> parts_;
	std::size_t used_ = 0;
};

// Does one round; everything that it needs is in it.
using Body = std::function<void(Round &)>;

struct Case {
	std::string name;
	std::function<Body()> make;
	bool quick = false;	  // in the fast part of the gate
	unsigned rounds = 1001;	  // counted: over several time slices of the scheduler
	unsigned warm_up = 3;	  // before, either way
	unsigned samples = 300;	  // timed, in one repetition
	bool only_counted = false;
	bool only_timed = false;
};

inline std::vector<Case> &cases()
{
	static std::vector<Case> all;

	return all;
}

inline void add(Case &&c)
{
	cases().push_back(std::move(c));
}

// Large things to set up are kept from a case to the next that wants the same.
template <class T, class Make> std::shared_ptr<T> shared(const std::string &key, Make &&make)
{
	static std::string current;
	static std::shared_ptr<void> slot;

	if (current != key) {
		slot.reset(); // the old one first, for its memory
		slot = std::make_shared<T>(make());
		current = key;
	}
	return std::static_pointer_cast<T>(slot);
}

inline std::string bytes_text(std::size_t bytes)
{
	for (const auto &[unit, letter] : {std::pair{GiB, "G"}, {MiB, "M"}, {KiB, "K"}})
		if (bytes >= unit)
			return std::to_string(bytes / unit) + letter;
	return std::to_string(bytes);
}

// ---- A pool, and an orbit that has seen it ---------------------------------------

struct PoolAndOrbit {
	orbit::Pool pool;
	orbit::Orbit orbit;
};

// A word of each page, @stride bytes apart.
inline std::uint64_t read_pages(const std::byte *base, std::size_t pages, std::size_t stride)
{
	std::uint64_t sum = 0;

	for (std::size_t i = 0; i < pages; i++)
		sum += *reinterpret_cast<const volatile std::uint64_t *>(base + i * stride);
	return sum;
}

inline std::uint64_t read_nothing(const std::byte *, std::size_t, std::size_t)
{
	return 0;
}

inline void write_pages(std::byte *base, std::size_t pages, std::size_t stride, std::uint64_t value)
{
	for (std::size_t i = 0; i < pages; i++)
		*reinterpret_cast<volatile std::uint64_t *>(base + i * stride) = value;
}

// Every page exists and has been read by the orbit: nothing depends on what came first.
inline PoolAndOrbit make_pool_and_orbit(std::size_t bytes, const orbit::Options &options = {.name = "bench"})
{
	PoolAndOrbit made{value(orbit::Pool::create(bytes, "bench"), "pool"),
			  value(orbit::Orbit::create(options), "orbit")};

	write_pages(made.pool.data(), bytes / page_size, page_size, 1);
	if (value(made.orbit.call(made.pool, read_pages, static_cast<const std::byte *>(made.pool.data()),
				  bytes / page_size, page_size),
		  "the first call") != bytes / page_size)
		die("the orbit does not see the pool");
	return made;
}

// ---- The two ways ------------------------------------------------------------------

inline std::string part_name(const Case &c, const char *part)
{
	return *part ? c.name + "/" + part : c.name;
}

// What a timer's tick adds to some rounds is not in it: of many rounds there are few of those,
// and the others differ by what the scheduler's accounting does in them.
inline double middle_mean(std::vector<double> values)
{
	const auto cut = static_cast<std::ptrdiff_t>(std::min(values.size() / 4, std::size_t{20}));

	std::sort(values.begin(), values.end());
	return std::accumulate(values.begin() + cut, values.end() - cut, 0.0) /
	       static_cast<double>(values.end() - values.begin() - 2 * cut);
}

struct Samples {
	const char *part;
	std::vector<double> values;
};

inline void collect(std::vector<Samples> &all, const Round &round)
{
	std::size_t at = 0;

	for (const auto &[part, value] : round) {
		if (at == all.size())
			all.push_back({part, {}});
		all[at++].values.push_back(value);
	}
}

// The scheduler's accounting goes by steps of 1,024 ns, and here a nanosecond is an
// instruction: rounds that always take the same fall in step with it, and a case is up
// to 5 % dearer or cheaper than the next by accident. So each of many rounds begins at
// another moment of such a step; the moments are the same in every run.
inline void fall_out_of_step(std::minstd_rand &random)
{
	for (auto n = random() % 1024; n; n--)
		asm volatile("");
}

inline void count_case(const Case &c)
{
	const bool many = c.rounds >= 1000;
	// A timer's tick has to come by before new processes are accounted for as old ones.
	const unsigned warm_up = many ? 600 : c.warm_up;
	const Body body = c.make();
	std::vector<Samples> all;
	std::minstd_rand random; // always with the same seed
	Round round;

	for (unsigned n = 0; n < warm_up + c.rounds; n++) {
		round.clear();
		if (many)
			fall_out_of_step(random);
		body(round);
		if (n >= warm_up)
			collect(all, round);
	}
	for (const Samples &samples : all)
		std::printf("figure %s %.1f\n", part_name(c, samples.part).c_str(),
			    middle_mean(samples.values));
	std::printf("case %s\n", c.name.c_str());
}

inline void time_case(const Case &c, benchmark::State &state)
{
	const Body body = c.make();
	std::vector<Samples> all;
	Round round;

	for (unsigned n = 0; n < c.warm_up; n++) {
		round.clear();
		body(round);
	}
	for (auto _ : state) {
		double sum = 0;

		round.clear();
		body(round);
		for (const auto &[part, value] : round)
			sum += value;
		state.SetIterationTime(sum * 1e-9);
		collect(all, round);
	}
	for (const Samples &samples : all) {
		std::printf("samples %s", part_name(c, samples.part).c_str());
		for (const double value : samples.values)
			std::printf(" %.6g", value);
		std::printf("\n");
	}
	std::printf("case %s\n", c.name.c_str());
}

// What there is to say has been said by time_case().
class Silent : public benchmark::BenchmarkReporter {
public:
	bool ReportContext(const Context &) override { return true; }
	void ReportRuns(const std::vector<Run> &) override {}
};

inline std::string line_of(const char *path, const std::string &key = "")
{
	std::ifstream file(path);

	for (std::string line; std::getline(file, line);)
		if (line.starts_with(key)) {
			const auto colon = key.empty() ? std::string::npos : line.find(": ");
			return colon == std::string::npos ? line : line.substr(colon + 2);
		}
	return "";
}

inline void print_context()
{
	const orbit::Probe probe = orbit::probe();
	utsname system{};

	uname(&system);
	std::printf("context kernel %s\n", system.release);
	std::printf("context backend %s\n", probe.backend);
	std::printf("context abi %u\n", probe.abi);
	std::printf("context cpu %s\n", line_of("/proc/cpuinfo", "model name").c_str());
	std::printf("context cpus %ld\n", sysconf(_SC_NPROCESSORS_ONLN));
	std::printf("context memory %s\n", line_of("/proc/meminfo", "MemTotal").c_str());
	std::printf("context huge_pages %s\n",
		    line_of("/sys/kernel/mm/transparent_hugepage/enabled").c_str());
	const std::string flags = " " + line_of("/proc/cpuinfo", "flags") + " ";

	// They choose how the kernel copies and clears a page.
	std::printf("context string_instructions");
	for (const char *flag : {"rep_good", "erms", "fsrm"})
		if (flags.find(std::string(" ") + flag + " ") != std::string::npos)
			std::printf(" %s", flag);
	std::printf("\n");
	std::error_code none;
	for (const auto &each :
	     std::filesystem::directory_iterator("/sys/devices/system/cpu/vulnerabilities", none))
		std::printf("context mitigation %s %s\n", each.path().filename().c_str(),
			    line_of(each.path().c_str()).c_str());
}

// For main(): runs the cases that have been added, as the flags say.
inline int run(int argc, char **argv)
{
	gflags::SetUsageMessage("a benchmark of orbits; bench/run.py runs it and reads what it prints");
	gflags::ParseCommandLineFlags(&argc, &argv, true);
	if (FLAGS_way != "timed" && FLAGS_way != "counted")
		die("--way is timed or counted");
	std::setvbuf(stdout, nullptr, _IOLBF, 0);

	const std::regex filter(FLAGS_filter);
	std::vector<Case> chosen;

	for (Case &c : cases())
		if (std::regex_search(c.name, filter) && (!FLAGS_quick || c.quick) &&
		    !(counted() ? c.only_timed : c.only_counted))
			chosen.push_back(std::move(c));
	if (FLAGS_list) {
		for (const Case &c : chosen)
			std::printf("%s\n", c.name.c_str());
		return 0;
	}
	if (chosen.empty())
		die("no case has such a name");
	print_context();

	const int steps = counted() ? 1 : FLAGS_repetitions;

	std::printf("plan %zu\n", chosen.size() * static_cast<std::size_t>(steps));
	std::int64_t least = INT64_MAX;
	for (int n = 0; n < 100; n++) {
		const auto begin = now();
		least = std::min(least, now() - begin);
	}
	clock_cost = least;
	if (counted()) {
		for (const Case &c : chosen)
			count_case(c);
		return 0;
	}

	std::vector<std::string> options = {argv[0],
					    "--benchmark_repetitions=" + std::to_string(FLAGS_repetitions),
					    "--benchmark_enable_random_interleaving=true"};
	std::vector<char *> arguments;
	int count = static_cast<int>(options.size());
	Silent silent;

	for (std::string &option : options)
		arguments.push_back(option.data());
	benchmark::Initialize(&count, arguments.data());
	for (const Case &c : chosen)
		benchmark::RegisterBenchmark(c.name.c_str(), [&c](benchmark::State &s) { time_case(c, s); })
			->UseManualTime()
			->Iterations(c.samples);
	benchmark::RunSpecifiedBenchmarks(&silent);
	return 0;
}

} // namespace bench

#endif // ORBIT_BENCH_H
