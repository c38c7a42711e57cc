// SPDX-License-Identifier: MIT
#include "report.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <span>
#include <string_view>
#include <sys/stat.h>

namespace {

namespace fs = std::filesystem;
using namespace std::chrono_literals;

// The kernel says how many pages it keeps for snapshots of a pool; -1 if it does not.
double count_versions(const orbit::Pool &pool)
{
	std::ifstream info("/proc/self/fdinfo/" + std::to_string(orbit_pool_fd(pool.raw())));
	std::string key;
	double value = -1;

	while (info >> key)
		if (key == "versions:")
			info >> value;
	return value;
}

// On the portable backend an orbit has a copy, in a file of this process.
double count_copies()
{
	double pages = 0;
	std::error_code gone;

	for (const auto &entry : fs::directory_iterator("/proc/self/fd", gone)) {
		struct stat st {};

		if (fs::read_symlink(entry, gone).string().find("orbit-view") != std::string::npos &&
		    !stat(entry.path().c_str(), &st))
			pages += static_cast<double>(st.st_blocks) * 512 / page_bytes;
	}
	return pages;
}

double count_held(const Table &table)
{
	if (std::string_view(orbit::probe().backend) == "portable")
		return count_copies();
	return count_versions(table.sales());
}

double median(std::vector<double> values)
{
	std::ranges::sort(values);
	return values.empty() ? 0 : values[values.size() / 2];
}

double most_held(const Figures &figures)
{
	double most = 0;

	for (const auto &sample : figures.samples)
		most = std::max(most, sample.held);
	return most;
}

// The most of each so many in a row: a plot shows no more.
std::vector<Figures::Sample> thin_out(const std::vector<Figures::Sample> &samples)
{
	const std::size_t most = 400, in_a_row = samples.size() / most + 1;
	std::vector<Figures::Sample> thin;

	for (std::size_t i = 0; i < samples.size(); i += in_a_row)
		thin.push_back(*std::ranges::max_element(std::span(samples).subspan(i, std::min(in_a_row, samples.size() - i)),
							 {}, &Figures::Sample::held));
	return thin;
}

void write_samples(const std::string &path, const std::vector<Figures> &all, double pages)
{
	std::ofstream file(path);

	file << "way,what,at,value\n";
	for (const Figures &figures : all) {
		file << figures.way << ",transactions,0," << figures.transactions << '\n'
		     << figures.way << ",p99,0," << figures.latencies.quantile(0.99) / 1e9 << '\n';
		for (std::size_t i = 0; i < figures.queries.size(); i++)
			file << figures.way << ",query," << i << ',' << figures.queries[i] << '\n';
		for (const auto &sample : thin_out(figures.samples))
			file << figures.way << ",held," << sample.seconds << ',' << 100 * sample.held / pages << '\n';
	}
}

[[noreturn]] void explain(const char *program)
{
	std::fprintf(stderr,
		     "usage: %s [--megabytes N] [--threads N] [--rate N] [--seconds N] [--samples FILE]\n"
		     "  --rate     transactions a second, of each thread\n"
		     "  --seconds  for each way\n",
		     program);
	std::exit(2);
}

} // namespace

Settings Settings::of(int argc, char **argv)
{
	Settings settings;

	for (int i = 1; i < argc; i += 2) {
		const std::string_view name = argv[i];
		char *end = argv[0];

		if (i + 1 == argc)
			explain(argv[0]);

		const double value = std::strtod(argv[i + 1], &end);

		if (name == "--samples")
			settings.samples = argv[i + 1];
		else if (*end || !(value > 0) || value > 1e9)
			explain(argv[0]);
		else if (name == "--megabytes" && value >= 1)
			settings.megabytes = static_cast<std::size_t>(value);
		else if (name == "--threads" && value >= 1 && value <= 256)
			settings.threads = static_cast<unsigned>(value);
		else if (name == "--rate" && value >= 1)
			settings.rate = static_cast<unsigned>(value);
		else if (name == "--seconds")
			settings.seconds = value;
		else
			explain(argv[0]);
	}
	return settings;
}

void Figures::add_query(Clock::duration took, bool is_right)
{
	queries.push_back(std::chrono::duration<double>(took).count());
	right = right && is_right;
}

void Figures::set_transactions(const Latencies &found, Clock::duration in)
{
	latencies = found;
	transactions = static_cast<double>(found.count()) / std::chrono::duration<double>(in).count();
}

Sampler::Sampler(const Table &table, Figures *figures)
	: thread_([&table, figures](const std::stop_token &stop) {
		  const auto begin = Figures::Clock::now();

		  while (!stop.stop_requested()) {
			  const std::chrono::duration<double> at = Figures::Clock::now() - begin;

			  figures->samples.push_back({at.count(), count_held(table)});
			  std::this_thread::sleep_for(5ms);
		  }
	  })
{
}

Sampler::~Sampler() = default;

bool report(const Table &table, const Settings &settings, const std::vector<Figures> &all)
{
	const double pages = static_cast<double>(table.sales().size()) / page_bytes;
	bool right = true;

	std::printf("%zu MiB of sales, %u threads, %u transactions a second wanted; %s backend%s\n\n", settings.megabytes,
		    settings.threads, settings.threads * settings.rate, orbit::probe().backend,
		    orbit::probe().features & ORBIT_FEATURE_SCAN ? "" : ", whose scans hold what snapshots do");
	std::printf("            transactions     p50     p99    p99.9              a query  pages held  answers\n");
	std::printf("             in a second      us      us       us  queries          ms   %% at most\n");
	for (const Figures &figures : all) {
		const auto us = [&](double part) { return figures.latencies.quantile(part) / 1000; };
		const bool asked = figures.way != "no query";
		const double held = most_held(figures);

		std::printf("%-10s  %12.0f  %6.0f  %6.0f  %7.0f  ", figures.way.c_str(), figures.transactions, us(0.5),
			    us(0.99), us(0.999));
		if (!asked) {
			std::printf("%7s  %10s  %10s  %s\n", "-", "-", "-", "-");
			continue;
		}
		std::printf("%7zu  %10.1f  ", figures.queries.size(), 1000 * median(figures.queries));
		if (held < 0)
			std::printf("%10s", "?");
		else
			std::printf("%10.2f", 100 * held / pages);
		std::printf("  %s\n", figures.right ? "right" : "WRONG");
		right = right && figures.right;
	}
	if (!settings.samples.empty())
		write_samples(settings.samples, all, pages);
	return right;
}
