// SPDX-License-Identifier: MIT
//
// For the portable backend: the memory of pools, and which of its pages the main program has
// written to.
//
// The kernel tells by asynchronous write protection (userfaultfd, since 6.7), without a fault
// that the program could notice. Where that is missing or forbidden, pages are made read-only
// and a SIGSEGV handler notes the first write to each. That also stops writers for as long as
// a snapshot is taken; but a system call that writes to a page which is read-only fails with
// EFAULT, and a thread that blocks SIGSEGV must not write to pools.
//
// But for the handler, and choose_tracker(), everything here is called with the snapshot lock held, see
// portable.h.
#ifndef LIBORBIT_PORTABLE_TRACKER_H
#define LIBORBIT_PORTABLE_TRACKER_H

#include "../common/reservation.h"

#include <csignal>
#include <cstddef>
#include <cstdint>

namespace liborbit {

// A page of a pool. Those that have changed since the pool was made are linked, the one that was
// found last first.
struct TrackedPage {
	std::uint64_t changed; // the snapshot that found it changed last; 0: none
	std::uint32_t older;   // its neighbours in the list, plus one; 0: none
	std::uint32_t newer;
};

// A pool's memory in the main program.
struct Tracked {
	std::uintptr_t start;
	std::uint32_t nr_pages;
	int memory; // a file, mapped there
	std::uint32_t newest; // plus one; 0: none
	TrackedPage *pages;
	std::uint8_t *populated; // for each piece (see tracker.cc): whether it was seen to have pages

	// For mprotect.
	std::uint8_t *access;	  // for each page
	std::uint32_t *written;	  // which were made writable since the last look
	std::uint32_t nr_written; // how many
	bool all_written;	  // and could not be told apart
	std::uint32_t nr_denied;  // pages that the application keeps from being written to
	std::uint32_t splits;	  // how many mappings there are beside the first, about
	Tracked *next;		  // all that there are
};

enum class Tracker {
	none,
	userfaultfd,
	mprotect,
};

// The way that will be used, or is; none if there is none, and why.
Tracker choose_tracker(const char **why);

// Map the memory of a pool over its range, which is reserved. 0 or -errno.
int track(Tracked *pool, const Range &range, const char *name);
// The opposite, but for the mapping.
void untrack(Tracked *pool);

// Find the pages in a part of a pool that were written to since the last look at them, give them
// the number of a snapshot, and put them in front of the list. Returns how many, or -errno.
long look(Tracked *pool, std::uint32_t first, std::uint32_t count, std::uint64_t snapshot);

// While a snapshot is taken: nobody writes to pools, where that can be had, and no handler runs in this
// thread, for it might. The thread itself must not write to them either.
class PoolsClosed {
public:
	PoolsClosed();
	PoolsClosed(const PoolsClosed &) = delete;
	~PoolsClosed();

private:
	bool closed_ = false;
	sigset_t before_;
};

// What the application does to our handler, and to the permissions of pages, comes here (overrides.cc).
// False: it does not concern pools.
bool set_segv_action(const struct sigaction *wanted, struct sigaction *before);
bool set_access(std::uintptr_t start, std::size_t bytes, int access, int *result);

// In a forked child, which has no pools.
void forget_tracking();

} // namespace liborbit

#endif // LIBORBIT_PORTABLE_TRACKER_H
