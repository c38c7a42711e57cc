// SPDX-License-Identifier: MIT
//
// The domains of a program, as its supervisors tell of them in memory files (isolation/status.h). Anybody can make such
// files: nothing in them is believed, and nothing that is wrong with them is fatal.
#ifndef ORBITCTL_DOMAINS_H
#define ORBITCTL_DOMAINS_H

#include "fdinfo.h"

#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

namespace orbitctl {

struct Domain {
	std::string name;
	std::string state; // "starting", "serving", "down"
	std::string via;   // "call", "ring"
	Number pid, starts, calls, failed, owned, lent;
	std::string last_end; // empty if it has not died
	std::string device;   // empty if it drives none
	Number silenced;      // how often that was made silent
	// What the driver says, which may be anything; none if it says nothing.
	Number queues, requests, errors;
};

// The files of a process that are supervisors'.
class SupervisorFiles {
public:
	// link: what /proc/PID/fd/N leads to. False if it is none of them.
	bool add(int fd, std::string_view link);
	// fds: the process's /proc/PID/fd. The domains of all supervisors, in order.
	std::vector<Domain> read(const std::filesystem::path &fds) const;

private:
	struct Found {
		unsigned supervisor, part;
		int fd;
	};
	std::vector<Found> statuses_, heaps_, counters_;
};

} // namespace orbitctl

#endif // ORBITCTL_DOMAINS_H
