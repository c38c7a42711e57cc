// SPDX-License-Identifier: MIT
//
// For the portable backend: memory for copies of pages that wait for tasks to begin. There may be many for a
// while, so they are no part of the heap, which would not give them back: they lie in mappings of
// many each, which go when the last copy in them does (but for one).
//
// All of this is called with the snapshot lock held, or the state lock; see portable.h.
#ifndef LIBORBIT_PORTABLE_COPIES_H
#define LIBORBIT_PORTABLE_COPIES_H

#include <cstdint>

namespace liborbit::portable {

struct Slab;

struct PageCopy {
	std::uint32_t page;  // of a pool
	std::uint32_t place; // in the slab
	Slab *slab;

	void *bytes() const;
};

// 0 or -ENOMEM. Its bytes are undefined.
int allocate_copy(PageCopy *copy);
void free_copy(const PageCopy &copy);

// In a forked child, which has no copies.
void forget_copies();

} // namespace liborbit::portable

#endif // LIBORBIT_PORTABLE_COPIES_H
