// SPDX-License-Identifier: MIT
#ifndef ORBITCTL_COMMAND_H
#define ORBITCTL_COMMAND_H

#include "processes.h"

#include <iosfwd>
#include <string>
#include <vector>

namespace orbitctl {

// Run orbitctl with these arguments, without its own name; the exit status. proc is where
// processes are looked up.
int run(const std::vector<std::string> &arguments, std::ostream &out, std::ostream &err,
	const std::filesystem::path &proc = "/proc");

struct TopOptions {
	double seconds = 1;  // between two rounds
	std::uint64_t rounds = 0; // 0: no end
	int pid = 0;	     // 0: all
};

// Show orbits again and again, until a key or a signal ends it.
int top(const Processes &processes, const TopOptions &options, std::ostream &out, std::ostream &err);

} // namespace orbitctl

#endif // ORBITCTL_COMMAND_H
