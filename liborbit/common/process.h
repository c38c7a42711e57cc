// SPDX-License-Identifier: MIT
//
// The processes behind orbits: forked from the main program, or from the zygote.
#ifndef LIBORBIT_COMMON_PROCESS_H
#define LIBORBIT_COMMON_PROCESS_H

#include <orbit/orbit.h>

#include <cstddef>
#include <cstdint>
#include <sys/types.h>

namespace liborbit {

// What a process needs to become an orbit, besides itself.
struct Birth {
	std::uint64_t flags; // orbit_options.flags
	const char *name;
	pid_t main;	    // the main program
	int client;	    // the orbit's descriptor; portable: the fork server's socket
	int owner;	    // portable: a pidfd of the main program; otherwise -1
	std::size_t arg_room; // for argument bytes
	int *fds;	    // to keep, these included; gets sorted
	std::size_t nr_fds;
	// What the kernel knows already, and a fork server has to be told.
	std::uint32_t nr_files;
	std::uint64_t memory_limit;
	// With shared memory: the socket and the page that tell of it, see sharing.h.
	int shared = -1, shared_page = -1;
};

// Move a descriptor out of the way of standard input, output and errors, which a program may have
// closed: what a task or the application prints is not for it. Returns it; or a negative fd as it
// is; or, with fd closed, -errno, and errno is set too.
int lift(int fd);
// The same where it must not fail: what cannot be moved stays.
int try_lift(int fd);

// A pair of Unix sockets, closed on exec, and none of them such a number. 0 or -errno.
int make_sockets(int type, int *sockets);

// Fill in the descriptors that an orbit shall have, once the others of a birth are there. 0 or -ENOMEM;
// fds is to be freed.
int choose_fds(Birth *birth, const orbit_options *options);

// Fork a process from this one that becomes the orbit, or its template, and wait
// until it has, or died. 0 or -errno.
int fork_orbit(const Birth &birth);

// Wait until a child has left its parent, as it does when it attaches. 0, or -errno if
// it exited before: its status is an errno value.
int wait_until_left(pid_t child);

// Wait until an orbit has its process, or is dead.
int wait_until_up(int client);

// The child's part, in two steps that each return 0 or -errno. The first leaves it a
// process that stands for itself; the second returns only if it failed.
int stand_alone(const Birth &birth);
int become_orbit(const Birth &birth);

// In the process of an orbit, when a task has returned: write out what it has printed, and see that it
// is alone. Does not return if the task has left threads behind.
void finish_task();

// As much stack as a program has, with a page at its end that nobody can access. nullptr: no memory.
void *map_stack(std::size_t *bytes);

// Call a function that does not return, on a larger stack if this one is small: that of a thread may be,
// and tasks run on the stack of the thread that created the orbit. Returns -errno.
int run_on_task_stack(int (*fn)(void *user), void *user);

// A line of /proc/self/maps.
struct Mapping {
	std::uintptr_t start, end;
	bool readable, writable, shared;
	const char *name; // such as "[stack]", or ""
};

// Call fn for each mapping of this process, lowest first, until it returns an error.
int for_each_mapping(int (*fn)(void *user, const Mapping &mapping), void *user);

} // namespace liborbit

#endif // LIBORBIT_COMMON_PROCESS_H
