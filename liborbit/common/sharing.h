// SPDX-License-Identifier: MIT
//
// Memory that main and orbits share on purpose: regions. Each is a sealed file without a name, mapped at one
// address everywhere. What an orbit may have of them is one message, with a descriptor for each region, in a
// socket that only main writes to. Processes of the orbit look at it without taking it out, so the next process
// finds it too; main puts a new one there and takes the old one out. A page that both have tells whether there is a
// new one, so a task that begins does without a system call.
#ifndef LIBORBIT_COMMON_SHARING_H
#define LIBORBIT_COMMON_SHARING_H

#include "../internal.h"
#include "process.h"

namespace liborbit {

// ---- Main ----

// What is shared with an orbit.
struct Sharing;

// Map a region where its range is. On error that is still taken.
int make_region(orbit_shared *region, const char *name);
// Take it from all orbits, and free it. Its addresses are used again when no orbit has it any more.
void destroy_region(orbit_shared *region);

// Before an orbit is made, with what it is given at once; and when it has been made.
int open_sharing(Sharing **out, const orbit_options *options);
void keep_sharing(Sharing *sharing);
// Of this process or, in a forked child, of its parent.
void close_sharing(Sharing *sharing, bool ours);

int share(Sharing *sharing, orbit_shared *region, std::uint32_t rights);

// Fill in what the processes of the orbit need. Null is fine.
void add_sharing(const Sharing *sharing, Birth *birth);

// ---- An orbit's process ----

// Once, before its first task.
int begin_sharing(const Birth &birth);

// Put in place what main shares by now. 0 or -errno.
int renew_shared();

// Something else has been mapped there.
void forget_placed(std::uint64_t start, std::uint64_t bytes);

} // namespace liborbit

#endif // LIBORBIT_COMMON_SHARING_H
