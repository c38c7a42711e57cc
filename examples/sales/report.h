// SPDX-License-Identifier: MIT
//
// What is measured, and how it is printed.
#ifndef SALES_REPORT_H
#define SALES_REPORT_H

#include "table.h"

#include <chrono>
#include <string>
#include <thread>
#include <vector>

struct Settings {
	std::size_t megabytes = 64;
	unsigned threads = 2;
	unsigned rate = 20'000; // transactions a second, of each thread
	double seconds = 2;	// for each way
	std::string samples;	// a file for plot.py

	// Ends the program if it does not understand.
	static Settings of(int argc, char **argv);
};

class Figures {
public:
	using Clock = std::chrono::steady_clock;
	struct Sample {
		double seconds;
		double held; // pages
	};

	explicit Figures(const char *way) : way(way) {}
	void add_query(Clock::duration took, bool right);
	void set_transactions(const Latencies &found, Clock::duration in);

	std::string way;
	std::vector<double> queries; // seconds
	bool right = true;
	Latencies latencies;
	double transactions = 0; // a second
	std::vector<Sample> samples;
};

// Looks at what is held of the table for tasks, as long as it exists.
class Sampler {
public:
	Sampler(const Table &table, Figures *figures);
	Sampler(const Sampler &) = delete;
	~Sampler();

private:
	std::jthread thread_;
};

// Whether each answer was right.
bool report(const Table &table, const Settings &settings, const std::vector<Figures> &all);

#endif // SALES_REPORT_H
