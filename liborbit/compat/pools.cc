// SPDX-License-Identifier: MIT
//
// Pools, and which of a scratch pool's memory is held by scratches that have been received.
#include "internal.h"

#include <cstdlib>
#include <unistd.h>

using namespace orbit_compat;

namespace orbit_compat {

bool in_orbit;
pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

namespace {

Pool *pools; // of the application; the youngest first
Pool *pool_for_scratches;
ScratchMemory *memories;

// One bit for each page. Without a control nobody looks.
void mark(const ScratchMemory *memory, const Area *area, bool held)
{
	Control *control = memory->owner ? control_of(memory->owner) : nullptr;

	if (!control)
		return;
	for (std::size_t page = area->first; page < area->first + area->count; page++) {
		const std::uint64_t bit = 1ULL << page % 64;

		if (held)
			control->held[page / 64] |= bit;
		else
			control->held[page / 64] &= ~bit;
	}
}

// The area of a received scratch, with its memory.
Area *find_area(const void *start, ScratchMemory **found)
{
	for (ScratchMemory *memory = memories; memory; memory = memory->next) {
		const auto *first = static_cast<const char *>(memory->pool->pub.rawptr);
		const auto *address = static_cast<const char *>(start);

		if (address < first || address >= first + memory->pool->pub.length)
			continue;
		for (Area *area = memory->areas; area; area = area->next)
			if (address == first + area->first * page_size()) {
				*found = memory;
				return area;
			}
	}
	return nullptr;
}

// See the header about scratches that have been iterated to their end.
void recycle(ScratchMemory *memory)
{
	const std::size_t half = memory->pool->pub.length / page_size() / 2;
	Area *next;

	for (Area *area = memory->areas; area && memory->pages_held > half; area = next) {
		next = area->next;
		if (area->consumed)
			let_go(memory, area);
	}
}

} // namespace

std::size_t page_size()
{
	return static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
}

Pool *make_pool(std::size_t bytes, const char *name)
{
	orbit_pool_options options{};
	auto *pool = static_cast<Pool *>(calloc(1, sizeof(Pool)));

	if (!pool)
		return nullptr;
	options.size = sizeof(options);
	options.name = name;

	int err = orbit_pool_create(&pool->handle, bytes, &options);

	if (!err) {
		pool->pub.rawptr = orbit_pool_data(pool->handle);
		pool->pub.length = orbit_pool_size(pool->handle);
		pool->pub.mode = ORBIT_COW;
		err = orbit_targets_create(&pool->targets);
	}
	if (!err)
		err = orbit_targets_add_range(pool->targets, pool->pub.rawptr, pool->pub.length);
	if (!err)
		return pool;
	destroy_pool(pool);
	errno = -err;
	return nullptr;
}

void destroy_pool(Pool *pool)
{
	orbit_targets_destroy(pool->targets);
	orbit_pool_destroy(pool->handle);
	free(pool);
}

Pool *find_pool(const published_pool *pub)
{
	for (Pool *pool = pools; pool; pool = pool->next)
		if (&pool->pub == pub)
			return pool;
	return nullptr;
}

Pool *find_pool(const orbit_pool *handle)
{
	for (Pool *pool = pools; pool; pool = pool->next)
		if (pool->handle == handle)
			return pool;
	return nullptr;
}

Pool *first_pool()
{
	return pools;
}

bool is_pool_memory(const void *start, std::size_t bytes)
{
	const Locked locked(&lock);

	for (const Pool *pool = pools; pool; pool = pool->next) {
		const auto first = reinterpret_cast<std::uintptr_t>(pool->pub.rawptr);
		const auto address = reinterpret_cast<std::uintptr_t>(start);

		if (address >= first && address - first < pool->pub.length &&
		    bytes <= pool->pub.length - (address - first))
			return true;
	}
	return false;
}

Pool *scratch_pool()
{
	return pool_for_scratches;
}

ScratchMemory *take_scratch_memory(Module *owner, const Pool *set)
{
	ScratchMemory *memory = nullptr;
	bool taken = false;

	// The pool itself, if it is free, rather than what was made in its place.
	for (ScratchMemory *each = memories; each; each = each->next) {
		if (each->set != set)
			continue;
		taken = true;
		if ((!each->owner || each->owner == owner || !may_send(each->owner)) &&
		    (!memory || each->pool == set))
			memory = each;
	}
	if (!memory) {
		memory = static_cast<ScratchMemory *>(calloc(1, sizeof(ScratchMemory)));
		if (!memory)
			return nullptr;
		memory->set = set;
		memory->pool = taken ? make_pool(set->pub.length, "scratch") : const_cast<Pool *>(set);
		if (!memory->pool) {
			free(memory);
			return nullptr;
		}
		memory->next = memories;
		memories = memory;
	}
	memory->owner = owner;
	return memory;
}

bool is_scratch_memory(const orbit_pool *handle)
{
	for (const ScratchMemory *memory = memories; memory; memory = memory->next)
		if (memory->pool->handle == handle)
			return true;
	return false;
}

Area *hold(ScratchMemory *memory, std::size_t first, std::size_t count)
{
	Area **link = &memory->areas;

	for (; *link; link = &(*link)->next)
		if (first < (*link)->first + (*link)->count && (*link)->first < first + count) {
			errno = EBADMSG;
			return nullptr;
		}

	auto *area = static_cast<Area *>(malloc(sizeof(Area)));

	if (!area)
		return nullptr;
	*area = {first, count, false, nullptr};
	*link = area;
	memory->pages_held += count;
	mark(memory, area, true);
	recycle(memory);
	return area;
}

void show_held(const ScratchMemory *memory)
{
	for (const Area *area = memory->areas; area; area = area->next)
		mark(memory, area, true);
}

void let_go(ScratchMemory *memory, Area *area)
{
	Area **link = &memory->areas;

	while (*link != area)
		link = &(*link)->next;
	*link = area->next;
	memory->pages_held -= area->count;
	mark(memory, area, false);
	free(area);
}

void note_consumed(const orbit_scratch *scratch)
{
	if (in_orbit)
		return;

	const Locked locked(&lock);
	ScratchMemory *memory;

	if (Area *area = find_area(scratch->ptr, &memory)) {
		area->consumed = true;
		recycle(memory);
	}
}

} // namespace orbit_compat

published_pool *published_pool_create(orbit_module *module, size_t size)
{
	return orbit_pool_create_at(module, size, nullptr);
}

published_pool *orbit_pool_create_at(orbit_module *, size_t size, void *)
{
	Pool *pool = make_pool(size, nullptr);

	if (!pool)
		return nullptr;

	const Locked locked(&lock);

	pool->next = pools;
	pools = pool;
	return &pool->pub;
}

int orbit_scratch_set_pool(published_pool *pub)
{
	if (in_orbit)
		return fail(EPERM);

	const Locked locked(&lock);
	Pool *pool = find_pool(pub);

	if (!pool)
		return fail(EINVAL);
	pool_for_scratches = pool;
	return 0;
}

int orbit_recvv_finish(orbit_scratch *s)
{
	if (!s)
		return fail(EINVAL);
	if (in_orbit)
		return fail(EPERM);

	const Locked locked(&lock);
	ScratchMemory *memory;
	Area *area = find_area(s->ptr, &memory);

	// An empty one has no memory.
	if (!area && s->size_limit)
		return fail(EINVAL);
	if (area)
		let_go(memory, area);
	s->count = 0;
	s->size_limit = 0;
	return 0;
}
