// SPDX-License-Identifier: MIT
//
// In an orbit: scans, see orbit_scan(). What a task is done with is known here, whatever the backend makes of
// it: not to be scanned again.
#ifndef LIBORBIT_COMMON_SCAN_H
#define LIBORBIT_COMMON_SCAN_H

#include "../internal.h"

namespace liborbit {

// The thread that runs tasks, once there is one.
void may_scan();

int scan(const orbit_range *ranges, std::size_t nr_ranges, orbit_scan_fn fn, void *user,
	 const orbit_scan_options &options, orbit_scanned *out);

// Is the running task done with what is there? Async-signal-safe.
bool is_done_with(std::uintptr_t address);

// Between tasks. Whether the last one was done with anything.
bool forget_scans();

} // namespace liborbit

#endif // LIBORBIT_COMMON_SCAN_H
