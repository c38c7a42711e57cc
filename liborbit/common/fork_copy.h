// SPDX-License-Identifier: MIT
//
// ORBIT_POOL_COPY_ON_FORK: a forked child has a copy of a pool, at its address, as it has of other
// memory. A pool itself is shared memory that no child inherits: the child would go on writing to
// what is the parent's. So the parent copies what is in use before each fork().
#ifndef LIBORBIT_COMMON_FORK_COPY_H
#define LIBORBIT_COMMON_FORK_COPY_H

#include "entered.h"

#include <orbit/orbit.h>

namespace liborbit {

// While it exists, this thread's fork() is for an orbit, which sees pools through snapshots. The application's
// fork handlers may call the library.
class OrbitFork {
public:
	OrbitFork();
	OrbitFork(const OrbitFork &) = delete;
	~OrbitFork();

private:
	const Outside outside_;
};

// From now on; or not any more, which waits for a fork() that is under way.
void copy_on_fork(orbit_pool *pool);
void forget_copy_on_fork(orbit_pool *pool);

// In fork handlers: all three, the last two after the pools' addresses are reserved.
void make_fork_copies();
void drop_fork_copies();
void place_fork_copies();

} // namespace liborbit

#endif // LIBORBIT_COMMON_FORK_COPY_H
