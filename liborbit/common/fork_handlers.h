// SPDX-License-Identifier: MIT
//
// What happens when the main program forks. The library's locks are taken last, so they are taken
// within the application's, as they are where it calls the library with a lock held: handlers of
// pthread_atfork() run in reverse order before a fork, and these are registered before main().
#ifndef LIBORBIT_COMMON_FORK_HANDLERS_H
#define LIBORBIT_COMMON_FORK_HANDLERS_H

namespace liborbit {

// Why they could not be registered: 0 or -errno.
int fork_handlers_error();

// The parts, outermost lock first.
void portable_before_fork();
void sharing_before_fork();
void reservation_before_fork();
void modules_before_fork();
void modules_after_fork(); // in both
void reservation_after_fork_in_parent();
void sharing_after_fork_in_parent();
void portable_after_fork_in_parent();
void reservation_after_fork_in_child();
void sharing_after_fork_in_child();
void portable_after_fork_in_child();

} // namespace liborbit

#endif // LIBORBIT_COMMON_FORK_HANDLERS_H
