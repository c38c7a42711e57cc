// SPDX-License-Identifier: MIT
//
// The processes of the portable backend: the warden of an orbit, see wire.h, and the orbit's own.
#ifndef LIBORBIT_WARDEN_H
#define LIBORBIT_WARDEN_H

#include "internal.h"

#include <cstddef>
#include <cstdint>
#include <sys/types.h>

namespace liborbit {

struct WardenBirth {
	std::uint64_t flags; // orbit_options.flags
	const char *name;
	int link;  // the warden's end of its socket
	int owner; // a pidfd of the main program
	int *fds;  // to keep, these two included; gets sorted
	std::size_t nr_fds;
	std::uint32_t nr_files; // limits, 0 for none
	std::uint64_t memory_limit;
};

// Fork a warden from this process, with the C library's fork(), whose fork handlers run. It is no
// child of this one. 0 or -errno.
int start_warden(const WardenBirth &birth, pid_t *pid);

// In an orbit's process: send an update.
int send_update(orbit_update_kind kind, std::uint64_t target, const void *data, std::size_t length);

// Run a task. An exception that leaves it terminates the process; see serve.cc.
std::uint64_t run_task(orbit_entry entry, const void *arg, std::size_t arg_size);

// Bytes of memory that a process has for itself, and of addresses in use; 0 if it cannot be told.
std::uint64_t anonymous_memory(pid_t pid, std::uint64_t *addresses);

} // namespace liborbit

#endif // LIBORBIT_WARDEN_H
