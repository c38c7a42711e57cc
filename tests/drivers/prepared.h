// SPDX-License-Identifier: MIT
//
// For tests of drivers as domains, one program each.
#ifndef ORBIT_TESTS_DRIVERS_PREPARED_H
#define ORBIT_TESTS_DRIVERS_PREPARED_H

#include "machine.h"

#include <orbit/call.hpp>
#include <orbit/orbit.hpp>

#include <cstddef>
#include <cstdint>
#include <fstream>
#include <gtest/gtest.h>
#include <memory>
#include <sstream>
#include <string>

namespace {

// Before anything else: domains inherit the minimum.
class Prepared : public testing::Environment {
	void SetUp() override { ASSERT_TRUE(orbit::prepare()); }
};
const auto *const prepared = testing::AddGlobalTestEnvironment(new Prepared);

constexpr std::byte canary{0xc5};

// What the driver says of its device, where orbitctl finds it.
[[maybe_unused]] std::unique_ptr<orbit::isolation::DeviceCounters> counters_of_device()
{
	auto counters = std::make_unique<orbit::isolation::DeviceCounters>();

	for (const std::string &name : machine::names_in("/proc/self/fd")) {
		char target[256];
		const std::string path = "/proc/self/fd/" + name;
		const ssize_t n = readlink(path.c_str(), target, sizeof(target));
		if (std::string_view(target, static_cast<std::size_t>(std::max<ssize_t>(n, 0))).find("orbit-device:") == std::string_view::npos)
			continue;
		const int file = open(path.c_str(), O_RDONLY);
		EXPECT_EQ(pread(file, static_cast<void *>(counters.get()), sizeof(*counters), 0), ssize_t{sizeof(*counters)});
		close(file);
	}
	return counters;
}

// Interrupts of a device that the kernel has counted, from a vector on.
[[maybe_unused]] std::uint64_t interrupts_of(const std::string &device, unsigned first)
{
	std::ifstream all("/proc/interrupts");
	std::uint64_t sum = 0;

	for (std::string line; std::getline(all, line);) {
		const auto vector = line.find("vfio-msix[");
		if (vector == line.npos || std::strtoul(line.c_str() + vector + 10, nullptr, 10) < first || line.find(device) == line.npos)
			continue;
		std::istringstream numbers(line.substr(line.find(':') + 1));
		for (std::uint64_t number; numbers >> number;)
			sum += number;
	}
	return sum;
}

// How often threads of a process have gone to sleep.
[[maybe_unused]] std::uint64_t sleeps_of(pid_t pid)
{
	const std::string tasks = "/proc/" + std::to_string(pid) + "/task";
	std::uint64_t sum = 0;

	for (const std::string &task : machine::names_in(tasks)) {
		std::ifstream status(tasks + '/' + task + "/status");
		for (std::string line; std::getline(status, line);)
			if (line.starts_with("voluntary_ctxt_switches:"))
				sum += std::stoull(line.substr(line.find(':') + 1));
	}
	return sum;
}

} // namespace

#endif
