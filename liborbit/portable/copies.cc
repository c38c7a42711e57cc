// SPDX-License-Identifier: MIT
#include "copies.h"

#include "../internal.h"
#include "../common/locked.h"

#include <cerrno>
#include <cstddef>
#include <cstdlib>
#include <iterator>
#include <pthread.h>
#include <sys/mman.h>

namespace liborbit::portable {

namespace {

constexpr unsigned bits = 64;
constexpr unsigned slab_words = 4;
constexpr unsigned slab_pages = bits * slab_words;

} // namespace

struct Slab {
	Slab *next, *previous; // if it has room
	char *memory;
	unsigned used;
	std::uint64_t unused[slab_words];
};

namespace {

// Innermost of all.
ORBIT_STATE pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
// Those that have room. The first is used: what is freed goes to the end, for old ones to become empty.
ORBIT_STATE Slab *first, *last;
ORBIT_STATE bool one_is_empty;

void link_first(Slab *slab)
{
	slab->previous = nullptr;
	slab->next = first;
	(first ? first->previous : last) = slab;
	first = slab;
}

void link_last(Slab *slab)
{
	slab->next = nullptr;
	slab->previous = last;
	(last ? last->next : first) = slab;
	last = slab;
}

void unlink_slab(const Slab *slab)
{
	(slab->previous ? slab->previous->next : first) = slab->next;
	(slab->next ? slab->next->previous : last) = slab->previous;
}

Slab *make_slab()
{
	auto *slab = static_cast<Slab *>(calloc(1, sizeof(Slab)));
	const std::size_t bytes = slab_pages * page_size();
	void *memory = slab ? mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) :
			      MAP_FAILED;

	if (memory == MAP_FAILED) {
		free(slab);
		return nullptr;
	}
	madvise(memory, bytes, MADV_DONTFORK); // orbits have no use for it
	slab->memory = static_cast<char *>(memory);
	for (std::uint64_t &word : slab->unused)
		word = ~std::uint64_t{0};
	return slab;
}

} // namespace

void *PageCopy::bytes() const
{
	return slab->memory + place * page_size();
}

int allocate_copy(PageCopy *copy)
{
	const Locked locked(&lock);

	if (!first) {
		Slab *const made = make_slab();

		if (!made)
			return -ENOMEM;
		link_first(made);
	} else if (!first->used) {
		one_is_empty = false;
	}

	Slab *const slab = first;
	unsigned word = 0;

	while (!slab->unused[word])
		word++;

	const auto bit = static_cast<unsigned>(__builtin_ctzll(slab->unused[word]));

	slab->unused[word] &= slab->unused[word] - 1;
	if (++slab->used == slab_pages)
		unlink_slab(slab);
	copy->slab = slab;
	copy->place = word * bits + bit;
	return 0;
}

void free_copy(const PageCopy &copy)
{
	const Locked locked(&lock);
	Slab *const slab = copy.slab;

	slab->unused[copy.place / bits] |= std::uint64_t{1} << copy.place % bits;
	if (slab->used-- == slab_pages)
		link_last(slab);
	if (slab->used)
		return;
	if (!one_is_empty) {
		one_is_empty = true; // for the next
		return;
	}
	unlink_slab(slab);
	munmap(slab->memory, slab_pages * page_size());
	free(slab);
}

void forget_copies()
{
	first = last = nullptr;
	one_is_empty = false;
}

} // namespace liborbit::portable
