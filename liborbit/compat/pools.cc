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
Pool *destroyed; // their places wait for others
std::size_t nr_slots;
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
		const auto *first = memory->pool->start;
		const auto *address = static_cast<const char *>(start);

		if (address < first || address >= first + memory->pool->length)
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
	const std::size_t half = memory->pool->length / page_size() / 2;
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

Pool *make_pool(std::size_t bytes, const char *name, void *address)
{
	orbit_pool_options options{};
	auto *pool = static_cast<Pool *>(calloc(1, sizeof(Pool)));

	if (!pool)
		return nullptr;
	options.size = sizeof(options);
	options.name = name;
	options.address = address;

	int err = orbit_pool_create(&pool->handle, bytes, &options);

	if (!err) {
		pool->start = static_cast<char *>(orbit_pool_data(pool->handle));
		pool->length = orbit_pool_size(pool->handle);
		err = orbit_targets_create(&pool->targets);
	}
	if (!err)
		err = orbit_targets_add_range(pool->targets, pool->start, pool->length);
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
	for (Pool *pool = pub ? pools : nullptr; pool; pool = pool->next)
		if (pool->pub == pub)
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

std::size_t pool_slots()
{
	return nr_slots;
}

// A child has no pools of its parent's. What is in them, and in the lists, is lost to it.
void forget_pools()
{
	pools = destroyed = nullptr;
	pool_for_scratches = nullptr;
	memories = nullptr;
	nr_slots = 0;
}

bool is_pool_memory(const void *start, std::size_t bytes)
{
	const Locked locked(&lock);

	for (const Pool *pool = pools; pool; pool = pool->next) {
		const auto first = reinterpret_cast<std::uintptr_t>(pool->start);
		const auto address = reinterpret_cast<std::uintptr_t>(start);

		if (address >= first && address - first < pool->length &&
		    bytes <= pool->length - (address - first))
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
		memory->pool = taken ? make_pool(set->length, "scratch") : const_cast<Pool *>(set);
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

published_pool *orbit_pool_create_at(orbit_module *, size_t size, void *addr)
{
	auto *pub = static_cast<published_pool *>(calloc(1, sizeof(published_pool)));
	Pool *pool = nullptr;

	if (pub && addr)
		pool = make_pool(size, nullptr, addr);
	if (pub && !pool)
		pool = make_pool(size, nullptr);

	if (!pool) {
		free(pub);
		return nullptr;
	}
	*pub = {pool->start, pool->length, 0, ORBIT_COW};
	pool->pub = pub;

	const Locked locked(&lock);

	// One that the application has given back may have had the same address.
	if (Pool *older = find_pool(pub))
		older->pub = nullptr;
	if (Pool *place = destroyed) {
		destroyed = place->next;
		pool->slot = place->slot;
		free(place);
	} else {
		pool->slot = nr_slots++;
	}
	pool->next = pools;
	pools = pool;
	tell_slot(pool);
	return pub;
}

int orbit_compat_pool_destroy(published_pool *pub)
{
	if (in_orbit)
		return fail(EPERM);

	const Locked locked(&lock);
	Pool *pool = find_pool(pub), **link = &pools;

	if (!pool)
		return fail(EINVAL);
	for (const ScratchMemory *memory = memories; memory; memory = memory->next)
		if (memory->set == pool)
			return fail(EBUSY);
	if (pool_for_scratches == pool)
		return fail(EBUSY);
	while (*link != pool)
		link = &(*link)->next;
	*link = pool->next;
	pool->length = 0;
	tell_slot(pool);
	orbit_targets_destroy(pool->targets);
	orbit_pool_destroy(pool->handle);
	free(pool->pub);
	*pool = {nullptr, nullptr, 0, nullptr, nullptr, pool->slot, destroyed};
	destroyed = pool;
	return 0;
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
