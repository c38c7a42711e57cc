// SPDX-License-Identifier: MIT
//
// Allocators: blocks with boundary tags, free ones in lists by size. Everything is told
// by offset, so the state can lie in the memory itself, where a task finds it as of its call.
#include "internal.h"

#include <cstdlib>
#include <sys/mman.h>

using namespace orbit_compat;

namespace {

constexpr std::size_t none = SIZE_MAX;
constexpr std::size_t used_bit = 1;
constexpr int nr_bins = 44; // by power of two, the last for all larger ones
constexpr int enough_tries = 16;

// In front of each piece. Sizes are those of blocks, multiples of the alignment.
struct Block {
	std::size_t size_and_bit;
	std::size_t before; // size of the block in front; 0 for the first one

	std::size_t size() const { return size_and_bit & ~used_bit; }
	bool is_used() const { return size_and_bit & used_bit; }
};

// In a free one, behind that.
struct Links {
	std::size_t next, previous;
};

constexpr std::size_t least_block = sizeof(Block) + sizeof(Links);

static_assert(sizeof(Block) == alignment);

// Behind the extent nothing has been used yet, or not any more.
struct State {
	std::size_t extent;
	// What follows is for blocks only.
	std::size_t last; // the block that ends at the extent
	std::uint64_t filled; // a bit for each bin
	std::size_t bins[nr_bins];
};

constexpr std::size_t state_bytes_without_blocks = alignment;

int bin_of(std::size_t size)
{
	const int power = 63 - __builtin_clzll(size);

	return power < nr_bins ? power : nr_bins - 1;
}

// Pages with allocators behind it.
struct alignas(alignment) Slab {
	Slab *next;
};

constexpr std::size_t slab_bytes = std::size_t{64} << 10;

// In the main program calls exclude allocations. An orbit may have been forked while
// another thread held the gate, and has no calls to make.
thread_local bool at_rest;
pthread_rwlock_t gate = PTHREAD_RWLOCK_WRITER_NONRECURSIVE_INITIALIZER_NP;

} // namespace

namespace orbit_compat {

// What the application sees of it comes first. Those of an application lie in pages of their own,
// for orbits that inherit the minimum to be given.
struct Allocator {
	orbit_allocator pub;
	char *base; // the first aligned address
	std::size_t room;
	pthread_mutex_t main_lock, orbit_lock;
	State *state;
	State own_state;
	Allocator *next_free;

	Block *at(std::size_t offset) const { return reinterpret_cast<Block *>(base + offset); }
	Links *links(std::size_t offset) const { return reinterpret_cast<Links *>(at(offset) + 1); }
	std::size_t offset_of(const void *address) const
	{
		return static_cast<std::size_t>(static_cast<const char *>(address) - base);
	}

	void insert(std::size_t offset);
	void remove(std::size_t offset);
	void set_extent(std::size_t extent);
	std::size_t find(std::size_t size) const;
	void split(std::size_t offset, std::size_t size);
	void release(std::size_t offset);
	void *allocate(std::size_t size);
	void *allocate_plain(std::size_t size);
	std::size_t piece(const void *ptr) const;
	bool grow(std::size_t offset, std::size_t size);
};

} // namespace orbit_compat

namespace {

class InGate {
public:
	InGate() : entered_(!in_orbit && !at_rest)
	{
		if (entered_)
			pthread_rwlock_rdlock(&gate);
	}
	InGate(const InGate &) = delete;
	~InGate()
	{
		if (entered_)
			pthread_rwlock_unlock(&gate);
	}

private:
	const bool entered_;
};

class InAllocator {
public:
	explicit InAllocator(Allocator *alloc) : locked_(in_orbit ? &alloc->orbit_lock : &alloc->main_lock) {}

private:
	const InGate in_;
	const Locked locked_;
};

// The block for so many bytes; 0 if there is no such size.
std::size_t block_for(std::size_t size)
{
	if (size > SIZE_MAX / 2)
		return 0;

	const std::size_t block = round_up(size, alignment) + sizeof(Block);

	return block < least_block ? least_block : block;
}

// What has been given back, and pages for more. Pages are never given back: orbits have them. The lock is
// taken within the gate, for an orbit that inherits the minimum gets it as it is.
pthread_mutex_t slab_lock = PTHREAD_MUTEX_INITIALIZER;
Allocator *free_ones;
Slab *slabs;

Allocator *new_allocator()
{
	const InGate in;
	const Locked locked(&slab_lock);

	if (!free_ones) {
		void *pages = mmap(nullptr, slab_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

		if (pages == MAP_FAILED)
			return nullptr;

		auto *slab = static_cast<Slab *>(pages);
		auto *first = reinterpret_cast<Allocator *>(slab + 1);

		slab->next = slabs;
		slabs = slab;
		for (std::size_t i = 0; i < (slab_bytes - sizeof(Slab)) / sizeof(Allocator); i++) {
			first[i].next_free = free_ones;
			free_ones = first + i;
		}
	}

	Allocator *alloc = free_ones;

	free_ones = alloc->next_free;
	std::memset(alloc, 0, sizeof(*alloc));
	return alloc;
}

Allocator *of(orbit_allocator *alloc)
{
	return alloc ? static_cast<Allocator *>(alloc->impl) : nullptr;
}

orbit_allocator *make(void *start, std::size_t length, std::size_t *allocated, bool use_meta,
		      bool shown)
{
	const auto first = reinterpret_cast<std::uintptr_t>(start);

	if (!start || !allocated || length > UINTPTR_MAX - first - alignment || *allocated > length) {
		errno = EINVAL;
		return nullptr;
	}

	Allocator *alloc = new_allocator();

	if (!alloc)
		return nullptr;

	const std::size_t skipped = round_up(first, alignment) - first;

	alloc->pub.start = start;
	alloc->pub.length = length;
	alloc->pub.allocated = allocated;
	alloc->pub.use_meta = use_meta;
	alloc->pub.impl = alloc;
	alloc->base = static_cast<char *>(start) + skipped;
	alloc->room = length < skipped ? 0 : (length - skipped) & ~(alignment - 1);
	alloc->state = &alloc->own_state;
	pthread_mutex_init(&alloc->main_lock, nullptr);
	pthread_mutex_init(&alloc->orbit_lock, nullptr);

	std::size_t extent = *allocated > skipped ? round_up(*allocated - skipped, alignment) : 0;

	if (shown) {
		const std::size_t bytes = use_meta ? round_up(sizeof(State), alignment) :
						     state_bytes_without_blocks;

		if (extent > alloc->room || bytes > alloc->room - extent) {
			orbit_allocator_destroy(&alloc->pub);
			errno = ENOMEM;
			return nullptr;
		}
		alloc->state = reinterpret_cast<State *>(alloc->base + extent);
		extent += bytes;
	}
	if (extent > alloc->room)
		extent = alloc->room;
	if (use_meta) {
		alloc->state->last = none;
		alloc->state->filled = 0;
		for (std::size_t &bin : alloc->state->bins)
			bin = none;
	}
	if (extent)
		alloc->set_extent(extent);
	else
		alloc->state->extent = 0;
	return &alloc->pub;
}

} // namespace

void Allocator::set_extent(std::size_t extent)
{
	state->extent = extent;
	*pub.allocated = extent + static_cast<std::size_t>(base - static_cast<char *>(pub.start));
}

void Allocator::insert(std::size_t offset)
{
	const int bin = bin_of(at(offset)->size());
	const std::size_t head = state->bins[bin];

	*links(offset) = {head, none};
	if (head != none)
		links(head)->previous = offset;
	state->bins[bin] = offset;
	state->filled |= 1ULL << bin;
}

void Allocator::remove(std::size_t offset)
{
	const int bin = bin_of(at(offset)->size());
	const Links here = *links(offset);

	if (here.next != none)
		links(here.next)->previous = here.previous;
	if (here.previous != none)
		links(here.previous)->next = here.next;
	else
		state->bins[bin] = here.next;
	if (state->bins[bin] == none)
		state->filled &= ~(1ULL << bin);
}

// A free block of this size at least: one of the first of its own bin, or any of a larger
// one. The last bin has to be looked through.
std::size_t Allocator::find(std::size_t size) const
{
	const int bin = bin_of(size);
	int tries = bin == nr_bins - 1 ? INT32_MAX : enough_tries;

	for (std::size_t offset = state->bins[bin]; offset != none && tries--; offset = links(offset)->next)
		if (at(offset)->size() >= size)
			return offset;

	const std::uint64_t larger = state->filled & (~1ULL << bin);

	return larger ? state->bins[__builtin_ctzll(larger)] : none;
}

// Cut what a used block has beyond a size, and give it back.
void Allocator::split(std::size_t offset, std::size_t size)
{
	Block *block = at(offset);
	const std::size_t rest = block->size() - size;

	if (rest < least_block)
		return;
	block->size_and_bit = size | used_bit;
	*at(offset + size) = {rest | used_bit, size};
	if (state->last == offset)
		state->last = offset + size;
	else
		at(offset + size + rest)->before = rest;
	release(offset + size);
}

void Allocator::release(std::size_t offset)
{
	std::size_t size = at(offset)->size();

	at(offset)->size_and_bit = size; // so that it cannot be given back twice
	if (const std::size_t before = at(offset)->before; before && !at(offset - before)->is_used()) {
		remove(offset - before);
		if (state->last == offset)
			state->last = offset - before;
		offset -= before;
		size += before;
	}
	if (const std::size_t next = offset + size; next < state->extent && !at(next)->is_used()) {
		// It is not the last one: that is never free.
		remove(next);
		size += at(next)->size();
	}
	at(offset)->size_and_bit = size;
	if (state->last == offset) {
		state->last = at(offset)->before ? offset - at(offset)->before : none;
		set_extent(offset);
		return;
	}
	at(offset + size)->before = size;
	insert(offset);
}

void *Allocator::allocate(std::size_t bytes)
{
	const std::size_t size = block_for(bytes);

	if (!size)
		return nullptr;

	std::size_t offset = find(size);

	if (offset != none) {
		remove(offset);
		at(offset)->size_and_bit |= used_bit;
		split(offset, size);
		return at(offset) + 1;
	}
	offset = state->extent;
	if (size > room - offset)
		return nullptr;
	*at(offset) = {size | used_bit, state->last == none ? 0 : offset - state->last};
	state->last = offset;
	set_extent(offset + size);
	return at(offset) + 1;
}

// The extent is exact here, for it may be the length of a record.
void *Allocator::allocate_plain(std::size_t size)
{
	const std::size_t offset = round_up(state->extent, alignment);

	if (offset > room || size > room - offset)
		return nullptr;
	set_extent(offset + size);
	return base + offset;
}

// The block of a piece that is in use, as far as can be told; or none.
std::size_t Allocator::piece(const void *ptr) const
{
	const auto address = reinterpret_cast<std::uintptr_t>(ptr);
	const auto first = reinterpret_cast<std::uintptr_t>(base);

	if (!pub.use_meta || address % alignment || address < first + sizeof(Block) ||
	    address - first >= state->extent)
		return none;

	const std::size_t offset = address - first - sizeof(Block);
	const Block *block = at(offset);

	if (!block->is_used() || block->size() < least_block || block->size() % alignment ||
	    block->size() > state->extent - offset)
		return none;
	return offset;
}

// Make a block that is in use larger where it is.
bool Allocator::grow(std::size_t offset, std::size_t size)
{
	Block *block = at(offset);

	if (state->last == offset) {
		if (size > room - offset)
			return false;
		block->size_and_bit = size | used_bit;
		set_extent(offset + size);
		return true;
	}

	const std::size_t next = offset + block->size();

	if (at(next)->is_used() || block->size() + at(next)->size() < size)
		return false;
	remove(next);
	block->size_and_bit += at(next)->size();
	at(offset + block->size())->before = block->size();
	split(offset, size);
	return true;
}

AllocatorsAtRest::AllocatorsAtRest()
{
	pthread_rwlock_wrlock(&gate);
	at_rest = true;
}

AllocatorsAtRest::~AllocatorsAtRest()
{
	at_rest = false;
	pthread_rwlock_unlock(&gate);
}

// A fork() for an orbit comes from a thread that has stopped them already.
void orbit_compat::stop_allocators()
{
	if (!at_rest)
		pthread_rwlock_wrlock(&gate);
	pthread_mutex_lock(&slab_lock);
}

void orbit_compat::resume_allocators()
{
	pthread_mutex_unlock(&slab_lock);
	if (!at_rest)
		pthread_rwlock_unlock(&gate);
}

// By its number it is not the thread that has locked the gate.
void orbit_compat::resume_allocators_in_child()
{
	pthread_mutex_unlock(&slab_lock);
	if (!at_rest)
		gate = PTHREAD_RWLOCK_WRITER_NONRECURSIVE_INITIALIZER_NP;
}

std::size_t orbit_compat::allocator_pages(orbit_range *ranges, std::size_t most)
{
	const Locked locked(&slab_lock);
	std::size_t count = 0;

	for (Slab *slab = slabs; slab; slab = slab->next)
		if (count++ < most)
			ranges[count - 1] = {slab, slab_bytes};
	return count;
}

orbit_allocator *orbit_compat::make_private_allocator(void *start, std::size_t length,
						      std::size_t *allocated, bool use_meta)
{
	return make(start, length, allocated, use_meta, false);
}

orbit_allocator *orbit_allocator_create(void *start, size_t length, size_t *allocated, bool use_meta)
{
	return make(start, length, allocated, use_meta, !in_orbit && is_pool_memory(start, length));
}

orbit_allocator *orbit_allocator_from_pool(published_pool *pool, bool use_meta)
{
	if (!pool) {
		errno = EINVAL;
		return nullptr;
	}
	return orbit_allocator_create(pool->rawptr, pool->length, &pool->used, use_meta);
}

void orbit_allocator_destroy(orbit_allocator *pub)
{
	Allocator *alloc = of(pub);

	if (!alloc)
		return;
	pthread_mutex_destroy(&alloc->main_lock);
	pthread_mutex_destroy(&alloc->orbit_lock);
	pub->impl = nullptr;

	const InGate in;
	const Locked locked(&slab_lock);

	alloc->next_free = free_ones;
	free_ones = alloc;
}

void *orbit_alloc(orbit_allocator *pub, size_t size)
{
	Allocator *alloc = of(pub);
	void *piece = nullptr;

	if (alloc) {
		const InAllocator in(alloc);

		piece = alloc->pub.use_meta ? alloc->allocate(size) : alloc->allocate_plain(size);
	}
	if (!piece)
		errno = alloc ? ENOMEM : EINVAL;
	return piece;
}

void *orbit_calloc(orbit_allocator *alloc, size_t size)
{
	void *piece = orbit_alloc(alloc, size);

	return piece ? std::memset(piece, 0, size) : nullptr;
}

void orbit_free(orbit_allocator *pub, void *ptr)
{
	Allocator *alloc = of(pub);

	if (!alloc || !ptr)
		return;

	const InAllocator in(alloc);
	const std::size_t offset = alloc->piece(ptr);

	if (offset != none)
		alloc->release(offset);
}

void *orbit_realloc(orbit_allocator *pub, void *ptr, size_t size)
{
	Allocator *alloc = of(pub);
	std::size_t old_bytes;

	if (!alloc || !ptr)
		return orbit_alloc(pub, size);
	{
		const InAllocator in(alloc);
		const std::size_t offset = alloc->piece(ptr);

		if (offset != none) {
			const std::size_t block = block_for(size);

			if (block && (block <= alloc->at(offset)->size() || alloc->grow(offset, block))) {
				alloc->split(offset, block);
				return ptr;
			}
			old_bytes = alloc->at(offset)->size() - sizeof(Block);
		} else if (!alloc->pub.use_meta && orbit_allocated_by(ptr, pub)) {
			// How long it is was not kept; at most it reaches to the extent.
			old_bytes = alloc->state->extent - alloc->offset_of(ptr);
		} else {
			errno = EINVAL;
			return nullptr;
		}
	}

	void *moved = orbit_alloc(pub, size);

	if (!moved)
		return nullptr;
	std::memcpy(moved, ptr, old_bytes < size ? old_bytes : size);
	orbit_free(pub, ptr);
	return moved;
}

bool orbit_allocated_by(const void *ptr, const orbit_allocator *alloc)
{
	const auto *address = static_cast<const char *>(ptr);
	const auto *start = alloc ? static_cast<const char *>(alloc->start) : nullptr;

	return alloc && address >= start && address < start + alloc->length;
}
