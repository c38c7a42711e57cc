// SPDX-License-Identifier: MIT
#include "fork_handlers.h"

#include "../internal.h"
#include "check.h"
#include "fork_copy.h"

#include <cstdlib>

namespace liborbit {

namespace {

ORBIT_STATE int error;

ORBIT_AT_FORK void before_fork()
{
	make_fork_copies();
	portable_before_fork();
	sharing_before_fork();
	reservation_before_fork();
	modules_before_fork();
}

ORBIT_AT_FORK void after_fork_in_parent()
{
	modules_after_fork();
	reservation_after_fork_in_parent();
	sharing_after_fork_in_parent();
	portable_after_fork_in_parent();
	drop_fork_copies();
}

ORBIT_AT_FORK void after_fork_in_child()
{
	modules_after_fork();
	reservation_after_fork_in_child();
	sharing_after_fork_in_child();
	portable_after_fork_in_child();
	place_fork_copies(); // over the reservation
	check_after_fork_in_child();
}

// Before the constructors of the application, and before any lock is first taken.
[[gnu::constructor(101)]] void register_fork_handlers()
{
	// An allocator may register handlers at its first use. Its locks are taken within the library's.
	void *piece = malloc(1);

	asm volatile("" : "+r"(piece)); // it is not without effect
	free(piece);
	error = -pthread_atfork(before_fork, after_fork_in_parent, after_fork_in_child);
}

} // namespace

int fork_handlers_error()
{
	return error;
}

} // namespace liborbit
