// SPDX-License-Identifier: MIT
//
// For the portable backend: what its processes tell each other.
//
// Each orbit has a fork server, a process that was forked from the main program when the orbit was
// created and that runs no task. It forks the orbit's processes, is their parent, and ends them
// when the main program is gone. Main talks to it by one socket, and to the orbit's process by
// another. Both keep the boundaries of messages. Whatever an orbit's process sends may be
// anything.
#ifndef LIBORBIT_PORTABLE_WIRE_H
#define LIBORBIT_PORTABLE_WIRE_H

#include <cstddef>
#include <cstdint>
#include <sys/socket.h>
#include <sys/types.h>

namespace liborbit {

enum class Tell : std::uint32_t {
	// main to fork server, with descriptors: the process's socket, its shared pages
	spawn = 1,
	signal, // send its process one; where main may not
	// fork server to main
	spawned, // with its pidfd; or an error
	died,
	// main to orbit
	map, // with descriptors, those of its pieces
	task,
	// orbit to main
	ready,
	update,
	more,
	returned,
};

// ---- Main and fork server ---------------------------------------------------------------------

struct ForkServerMessage {
	Tell tell;
	std::int32_t pid, fork_server;
	std::int32_t error;  // spawned: a positive errno value
	std::int32_t code;   // died: CLD_*,
	std::int32_t status; // and what goes with it; signal: its number
	std::int32_t executed; // it had called exec
};

// ---- Main and orbit -------------------------------------------------------------------------

// A pool for the orbit to map.
struct MapPiece {
	std::uint64_t start, bytes; // of the pool
	std::uint64_t from, length; // what of it can be seen
	std::uint32_t has_file;	    // otherwise the addresses are reserved again
	std::uint32_t pad;
};

constexpr std::size_t max_pieces = 120; // in a message; the kernel allows 253 descriptors

struct MapMessage {
	Tell tell;
	std::uint32_t count;
	MapPiece pieces[max_pieces];
};

// What a task sees, and may send pages of.
struct Visible {
	std::uint64_t start, end;
};

// Followed by nr_visible Visible and arg_size bytes.
struct TaskMessage {
	Tell tell;
	std::uint32_t receivable; // somebody can receive updates
	std::uint64_t number;
	std::uint64_t entry;
	std::uint32_t nr_visible;
	std::uint32_t arg_size;
	std::uint64_t update_limit;
};

struct ReturnMessage {
	Tell tell; // also: ready, with a value of 0
	std::uint32_t pad;
	std::uint64_t number;
	std::uint64_t value;
	std::uint64_t anonymous; // bytes of memory that the process has for itself, if limited
};

// Followed by the first of its bytes; the rest is in messages of Tell::more.
struct UpdateMessage {
	Tell tell;
	std::uint32_t kind; // enum orbit_update_kind
	std::uint64_t number;
	std::uint64_t target;
	std::uint64_t bytes;	// in all
	std::uint32_t place;	// pages: which of the task's pools
	std::uint32_t nr_ranges; // pages: so many orbit_page_range come before the contents
};

struct MoreMessage {
	Tell tell;
	std::uint32_t broken_off; // forget the update
};

constexpr std::size_t max_chunk = 64 << 10;
// More than any message has.
constexpr std::size_t max_message = 128 << 10;

// Two pages that main and an orbit's process share. Each writes to one.
struct FromMain {
	std::uint64_t received; // bytes of the running task's updates that were received
};

struct FromOrbit {
	std::uint64_t faulted; // a signal, if a fault has raised it
	std::uint64_t address;
};

// What is known of a process by its number: has it called exec since it was forked, and does it end?
struct ProcessState {
	bool executed, ending;
};

ProcessState look_at_process(pid_t pid);

// ---- Messages ------------------------------------------------------------------------------

// Send a message of one or two parts, with descriptors. 0 or -errno.
int tell(int socket, const void *head, std::size_t head_bytes, const void *body, std::size_t body_bytes,
	 const int *fds, std::size_t nr_fds, int flags);

// Receive one. Sets *nr_fds to how many descriptors came with it, up to what it was. Returns its
// size, 0 at the end, or -errno; -EMFILE when not all descriptors could be received.
long hear(int socket, void *buffer, std::size_t room, int *fds, std::size_t *nr_fds, int flags);

} // namespace liborbit

#endif // LIBORBIT_PORTABLE_WIRE_H
