// SPDX-License-Identifier: MIT
//
// Processes, and the orbits, pools and tasks that they hold.
#ifndef ORBITCTL_PROCESSES_H
#define ORBITCTL_PROCESSES_H

#include "domains.h"
#include "fdinfo.h"

#include <filesystem>
#include <vector>

namespace orbitctl {

template <class T> struct Held {
	int fd; // the first one, if it is open more than once
	T object;
};

struct Process {
	int pid = 0;
	std::string name;
	bool portable = false; // what it has is the portable backend's
	std::vector<Held<Orbit>> orbits;
	std::vector<Held<Pool>> pools;
	std::vector<Held<Task>> tasks;
	std::vector<Domain> domains;

	bool empty() const { return orbits.empty() && pools.empty() && tasks.empty() && domains.empty(); }
};

struct Load {
	std::uint64_t cpu_ticks; // so far
	std::uint64_t resident;	 // bytes
};

// /proc, or something that looks like it.
class Processes {
public:
	explicit Processes(std::filesystem::path proc = "/proc") : proc_(std::move(proc)) {}
	// 0 or an errno value: ESRCH, EACCES and the like.
	int read(int pid, Process *process) const;
	// All that hold anything, by number; others counts those that may not be looked into.
	std::vector<Process> read_all(std::size_t *others) const;
	std::optional<Load> load(std::uint64_t pid) const;

private:
	std::filesystem::path proc_;
};

} // namespace orbitctl

#endif // ORBITCTL_PROCESSES_H
