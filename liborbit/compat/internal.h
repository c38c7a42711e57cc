// SPDX-License-Identifier: MIT
//
// What the parts of liborbit-compat share. The published API and <orbit/orbit.h> have
// names in common; here those of the published one begin with "published".
#ifndef LIBORBIT_COMPAT_INTERNAL_H
#define LIBORBIT_COMPAT_INTERNAL_H

#include <orbit/orbit.h>

#define orbit_call published_call
#define orbit_call_async published_call_async
#define orbit_create published_create
#define orbit_destroy published_destroy
#define orbit_entry published_entry
#define orbit_operation published_operation
#define orbit_pool published_pool
#define orbit_pool_create published_pool_create
#define orbit_result published_result
#define orbit_task published_task
#define orbit_update published_update
#define ORBIT_COMPAT_LIBRARY
#include <orbit-compat.h>
#undef orbit_call
#undef orbit_call_async
#undef orbit_create
#undef orbit_destroy
#undef orbit_entry
#undef orbit_operation
#undef orbit_pool
#undef orbit_pool_create
#undef orbit_result
#undef orbit_task
#undef orbit_update

#include "../common/locked.h"

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <pthread.h>

namespace orbit_compat {

// Records and pieces of memory begin at multiples of this.
constexpr std::size_t alignment = 16;

constexpr std::size_t round_up(std::size_t bytes, std::size_t to)
{
	return (bytes + to - 1) & ~(to - 1);
}

std::size_t page_size();

// For functions that return -1 and set errno; error is positive.
inline int fail(int error)
{
	errno = error;
	return -1;
}

using liborbit::Locked;

// Set in the process of an orbit, for good.
extern bool in_orbit;

// ---- Allocators ---------------------------------------------------------------------

// While it exists, no thread of the main program is in an allocator: for snapshots, which
// would otherwise show an allocator in the middle of a change.
class AllocatorsAtRest {
public:
	AllocatorsAtRest();
	AllocatorsAtRest(const AllocatorsAtRest &) = delete;
	~AllocatorsAtRest();
};

// The pages that allocators themselves lie in, for orbits that inherit the minimum: at most so many;
// returns how many there are.
std::size_t allocator_pages(orbit_range *ranges, std::size_t most);

// Around a fork() that is not an orbit's.
void stop_allocators();
void resume_allocators();
void resume_allocators_in_child();

// Over memory whose state need not be in it.
orbit_allocator *make_private_allocator(void *start, std::size_t length, std::size_t *allocated,
					bool use_meta);

// ---- Limits ---------------------------------------------------------------------------

bool may_change(const void *start, std::size_t bytes);
bool may_run(orbit_operation_func func);
void count_refused();
// What has been declared, for pages; null if nothing has.
orbit_targets *declared_targets();

// ---- Scratches -------------------------------------------------------------------------

// Do all records of a received scratch fit into it?
bool is_well_formed(const orbit_scratch &scratch);

// A received scratch has been iterated to its end.
void note_consumed(const orbit_scratch *scratch);

// ---- Pools, and where scratches are ---------------------------------------------------

// What the application gets is a copy in a block of its own: published programs free() it.
struct Pool {
	published_pool *pub; // the application's; null for the library's own pools
	char *start;
	std::size_t length; // whole pages
	orbit_pool *handle;
	orbit_targets *targets; // all of it
	std::size_t slot;	// in Control::pools
	Pool *next;
};

// A scratch that the main program holds: these pages.
struct Area {
	std::size_t first, count;
	bool consumed;
	Area *next; // a younger one
};

struct Module;

// Memory for the scratches of one orbit at a time: the pool that the application has set,
// or one like it for a further orbit.
struct ScratchMemory {
	const Pool *set; // the application's
	Pool *pool;	 // where the scratches are
	Module *owner;
	Area *areas; // oldest first
	std::size_t pages_held;
	ScratchMemory *next;
};

// What an orbit has to know of the main program's side. It is in a pool, so a task sees it
// as of its call.
struct Control {
	// A call that may send has a number. Whatever has been sent by calls with lower
	// numbers than this one has been received, or never will be.
	std::uint64_t settled;
	std::uint64_t calls; // the latest number
	std::uintptr_t scratch_start;
	std::size_t scratch_pages;
	std::size_t nr_pools; // of the application, that orbit_commit() looks at; some have no length
	orbit_range pools[ORBIT_MAX_POOLS];
	std::uint64_t held[]; // a bit for each page of the scratch memory
};

// The lock of everything below, and of modules and tasks. Never taken in an orbit.
extern pthread_mutex_t lock;

Pool *make_pool(std::size_t bytes, const char *name, void *address = nullptr); // null: errno
void destroy_pool(Pool *pool);
Pool *find_pool(const published_pool *pool);
Pool *find_pool(const orbit_pool *handle);
Pool *first_pool();
std::size_t pool_slots(); // how many have been handed out
// In calls.cc: what is in a slot has changed. Pools that do not exist have no length.
void tell_slot(const Pool *pool);
bool is_pool_memory(const void *start, std::size_t bytes);

Pool *scratch_pool(); // as the application has set it, or null

// For a module that has none: memory that no other uses. Null: errno.
ScratchMemory *take_scratch_memory(Module *owner, const Pool *set);
// Hold an area; null if it is held already (EBADMSG) or without memory (ENOMEM).
Area *hold(ScratchMemory *memory, std::size_t first, std::size_t count);
void let_go(ScratchMemory *memory, Area *area);
// Tell its owner, whose control is new, what is held.
void show_held(const ScratchMemory *memory);
bool is_scratch_memory(const orbit_pool *handle);

// May anything that its tasks send still be received?
bool may_send(const Module *module);
void forget_pools(); // in a forked child
Control *control_of(const Module *module); // null when the orbit has been destroyed

// ---- In a task -------------------------------------------------------------------------

// What a call means besides its argument bytes. It is in a pool that every call of the module
// names, so a task sees its own: SKIP and CANCEL compare the bytes, and nothing else is to count.
struct CallInfo {
	published_entry func; // null for the orbit's own
	const Control *control;
	bool may_send;
};

extern const CallInfo *call_info; // in an orbit: where that is

struct Birth {
	published_entry entry;
	void *(*init)();
	const CallInfo *info;
};

std::uint64_t run_init(const void *arg, std::size_t size);
std::uint64_t run_task(const void *arg, std::size_t size);

// An operation's number, by which a scratch is announced; its pages follow.
constexpr std::uint64_t scratch_message = 0x6f72626974736372;

struct ScratchMessage {
	std::uint64_t offset; // in the scratch memory; whole pages
	std::uint64_t length; // likewise
	std::uint64_t count;  // of records
};

} // namespace orbit_compat

#endif // LIBORBIT_COMPAT_INTERNAL_H
