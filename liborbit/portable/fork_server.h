// SPDX-License-Identifier: MIT
//
// The processes of the portable backend: the fork server of an orbit, see wire.h, and the orbit's own.
#ifndef LIBORBIT_PORTABLE_FORK_SERVER_H
#define LIBORBIT_PORTABLE_FORK_SERVER_H

#include "../internal.h"
#include "../common/process.h"

#include <cstddef>
#include <cstdint>
#include <sys/types.h>

namespace liborbit {

// Fork a process that is no child of this one, and run a function in it that does not return. This
// is the C library's fork(), so fork handlers run. 0 or -errno.
int fork_orphan(void (*run)(const void *user), const void *user);

// Where the main program adopts orphans, a fork server has a parent that ends after it. Reap those that
// have; and in a forked child, forget them.
void reap_parents();
void forget_parents();

// Fork a fork server from this process. It has no process yet; if it fails, it tells so instead.
int start_fork_server(const Birth &birth);

// In a process that stands for itself.
[[noreturn]] void become_fork_server(const Birth &birth);

// In what was to become a fork server: tell main that there will be none.
void tell_failure(int link, int err);

// A pidfd of a process, or -errno.
int open_pidfd(pid_t pid);

// In an orbit's process: send an update.
int send_update(orbit_update_kind kind, std::uint64_t target, const void *data, std::size_t length);

// Likewise, for a scan: see Backend.
int check_seen(std::uintptr_t pool, std::uintptr_t start, std::size_t bytes);
int step_of_scan(ScanStep *step);

// Run a task. An exception that leaves it terminates the process; see serve.cc.
std::uint64_t run_task(orbit_entry entry, const void *arg, std::size_t arg_size);

// Bytes of memory that a process has for itself, and of addresses in use; 0 if it cannot be told.
std::uint64_t anonymous_memory(pid_t pid, std::uint64_t *addresses);

} // namespace liborbit

#endif // LIBORBIT_PORTABLE_FORK_SERVER_H
