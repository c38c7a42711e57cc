// SPDX-License-Identifier: MIT
//
// Orbits that inherit the minimum. They are forked from the zygote, a process that was forked
// from the main program early, and get the main program's variables by a copy: neither
// takes longer, or holds more memory, for a main program that has grown.
//
// To fork from the main program and drop its memory in the child would need malloc's
// state to be dropped with it, and page tables to be copied first. To have fork leave that
// memory out (MADV_DONTFORK) would change what other forks of the main program inherit.
#ifndef LIBORBIT_COMMON_ZYGOTE_H
#define LIBORBIT_COMMON_ZYGOTE_H

#include "process.h"

#include <orbit/orbit.h>

namespace liborbit {

// Whether this program can: its variables can be told from those of the C library and the allocator.
bool can_have_zygote();

// Start the zygote, for the portable backend or for the kernel's. 0, -EALREADY, or as
// orbit_prepare().
int start_zygote(bool portable);

// As fork_orbit(), but from the zygote.
int fork_from_zygote(const Birth &birth, const orbit_options *options);

// In a forked child: the zygote is the parent's.
void forget_zygote();

// In an orbit: is there nothing at these addresses but what keeps the zygote's children out of them?
bool is_kept_free(std::uintptr_t start, std::uintptr_t end);

// Pieces of memory.
struct Area {
	std::uintptr_t start;
	std::size_t bytes;
};

struct Areas {
	Area *items;
	std::size_t count, room;

	int add(std::uintptr_t start, std::uintptr_t end); // 0 or -ENOMEM
	// Add what of this is in none of the others.
	int add_without(std::uintptr_t start, std::uintptr_t end, const Areas &others);
	void clear();
};

// The variables of the executable, and of each module that has one of the addresses: what
// can be written to, but for the library's own and those that the executable keeps for
// another module. -ENXIO: an address is in no module.
int find_variables(const void *const *modules, std::size_t nr_modules, Areas *variables);

} // namespace liborbit

#endif // LIBORBIT_COMMON_ZYGOTE_H
