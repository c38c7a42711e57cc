// SPDX-License-Identifier: MIT
//
// ORBIT_CHECK=1: look for the commonest fault in programs that use orbits, which is a task that
// follows a pointer out of its pools. There it finds the main program's memory as it was when the
// orbit was made, and no error tells of it. Two looks: at a call the main program searches the pools
// for what looks like a pointer to its own private memory; and a task's first reads of such memory
// that has changed since are caught. Neither costs anything without the variable.
#ifndef LIBORBIT_COMMON_CHECK_H
#define LIBORBIT_COMMON_CHECK_H

#include "../internal.h"

namespace liborbit {

// Whether the environment asks for it: looked at once. 1, -1, or 0 before that.
extern int asked;
bool find_checking();
inline bool checking()
{
	const int known = __atomic_load_n(&asked, __ATOMIC_RELAXED);

	return known ? known > 0 : find_checking();
}

// Around the creation of an orbit: note what its process begins with, and let it find that.
void check_before_create(orbit_handle *orbit, const orbit_options *options);
void check_after_create(orbit_handle *orbit, int err);
void check_at_close(orbit_handle *orbit);

void check_after_fork_in_child();

// Before a call takes its snapshot.
void check_at_call(orbit_handle *orbit, const Call &call);

// In an orbit: what it was born with, or nullptr if its reads are not watched.
struct Watch;
extern Watch *born_with;

// Run a task with its reads watched.
std::uint64_t run_watched(orbit_entry entry, const void *arg, std::size_t arg_size);

} // namespace liborbit

#endif // LIBORBIT_COMMON_CHECK_H
