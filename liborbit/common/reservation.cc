// SPDX-License-Identifier: MIT
#include "reservation.h"

#include "../internal.h"
#include "fork_handlers.h"
#include "zygote.h"

#include <cerrno>
#include <cstdlib>
#include <initializer_list>
#include <pthread.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

namespace liborbit {

namespace {

constexpr std::size_t default_bytes = std::size_t{1} << 40;
constexpr std::size_t least_bytes = std::size_t{1} << 20;

ORBIT_STATE pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
ORBIT_STATE RangeAllocator ranges;
ORBIT_STATE Range *outside; // at addresses that were asked for
ORBIT_STATE bool reserved;
ORBIT_STATE std::size_t page_bytes;
ORBIT_STATE unsigned fork_count;

void *reservation(std::uintptr_t start, std::size_t bytes, int flags)
{
	return mmap(reinterpret_cast<void *>(start), bytes, PROT_NONE,
		    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | flags, -1, 0);
}

std::size_t default_size()
{
	const char *text = secure_getenv("ORBIT_WINDOW");
	std::size_t bytes = 0;
	rlimit limit;

	if (text && !parse_size(text, &bytes))
		log(ORBIT_LOG_ERROR, "ORBIT_WINDOW=%s is not a size; using the default", text);
	if (!bytes)
		bytes = default_bytes;
	// Leave the rest of the address space to the program.
	if (!getrlimit(RLIMIT_AS, &limit) && limit.rlim_cur != RLIM_INFINITY &&
	    bytes > limit.rlim_cur / 4)
		bytes = limit.rlim_cur / 4;
	return bytes;
}

// As many bytes as can be had, up to a number.
void *reserve_most(std::size_t *bytes)
{
	void *start = reservation(0, *bytes, 0);

	while (start == MAP_FAILED && *bytes / 2 >= least_bytes) {
		*bytes = (*bytes / 2) & ~(page_size() - 1);
		start = reservation(0, *bytes, 0);
	}
	return start;
}

int reserve_locked(std::size_t bytes)
{
	const bool exact = bytes != 0;

	if (reserved)
		return -EALREADY;
	if (!exact)
		bytes = default_size();
	if (bytes > SIZE_MAX - page_size())
		return -ENOMEM;
	bytes = whole_pages(bytes);

	void *start = exact ? reservation(0, bytes, 0) : reserve_most(&bytes);

	if (start == MAP_FAILED)
		return -ENOMEM;
	ranges.reset(reinterpret_cast<std::uintptr_t>(start), bytes);
	reserved = true;
	log(ORBIT_LOG_DEBUG, "reserved %zu MiB of addresses at %p", bytes >> 20, start);
	return 0;
}

} // namespace

void RangeAllocator::reset(std::uintptr_t start, std::size_t bytes)
{
	start_ = start;
	bytes_ = bytes;
	first_ = nullptr;
}

bool RangeAllocator::take(Range *range, std::size_t bytes)
{
	const std::uintptr_t end = start_ + bytes_;
	std::uintptr_t candidate = start_;
	Range **link = &first_;

	while (*link && (*link)->start - candidate < bytes) {
		candidate = (*link)->start + (*link)->bytes;
		link = &(*link)->next;
	}
	if (!*link && end - candidate < bytes)
		return false;
	range->start = candidate;
	range->bytes = bytes;
	range->next = *link;
	*link = range;
	return true;
}

bool RangeAllocator::take_at(Range *range, std::uintptr_t start, std::size_t bytes)
{
	Range **link = &first_;

	while (*link && (*link)->start + (*link)->bytes <= start)
		link = &(*link)->next;
	if (start < start_ || start + bytes > start_ + bytes_ ||
	    (*link && (*link)->start < start + bytes))
		return false;
	*range = {start, bytes, *link};
	*link = range;
	return true;
}

bool RangeAllocator::overlaps(std::uintptr_t start, std::size_t bytes) const
{
	return start < start_ + bytes_ && start_ < start + bytes;
}

void RangeAllocator::release(Range *range)
{
	for (Range **link = &first_; *link; link = &(*link)->next) {
		if (*link == range) {
			*link = range->next;
			return;
		}
	}
}

bool parse_size(const char *text, std::size_t *bytes)
{
	char *end;
	unsigned shift = 0;

	if (*text < '0' || *text > '9')
		return false;
	errno = 0;
	const unsigned long long number = strtoull(text, &end, 10);

	if (errno)
		return false;
	switch (*end) {
	case 'T':
		shift += 10;
		[[fallthrough]];
	case 'G':
		shift += 10;
		[[fallthrough]];
	case 'M':
		shift += 10;
		[[fallthrough]];
	case 'K':
		shift += 10;
		end++;
	}
	if (*end || number > SIZE_MAX >> shift)
		return false;
	*bytes = static_cast<std::size_t>(number) << shift;
	return true;
}

std::size_t page_size()
{
	std::size_t bytes = __atomic_load_n(&page_bytes, __ATOMIC_RELAXED);

	if (!bytes) {
		bytes = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
		__atomic_store_n(&page_bytes, bytes, __ATOMIC_RELAXED);
	}
	return bytes;
}

std::size_t whole_pages(std::size_t bytes)
{
	return (bytes + page_size() - 1) & ~(page_size() - 1);
}

int reserve_window(std::size_t bytes)
{
	if (const int err = fork_handlers_error())
		return err;

	pthread_mutex_lock(&lock);
	const int err = reserve_locked(bytes);

	pthread_mutex_unlock(&lock);
	return err;
}

int ensure_reservation()
{
	const int err = reserve_window(0);

	return err == -EALREADY ? 0 : err;
}

int take_addresses(Range *range, std::size_t bytes)
{
	pthread_mutex_lock(&lock);
	const bool taken = ranges.take(range, bytes);

	pthread_mutex_unlock(&lock);
	return taken ? 0 : -ENOMEM;
}

int take_addresses_at(Range *range, std::uintptr_t start, std::size_t bytes)
{
	int err = 0;

	pthread_mutex_lock(&lock);
	if (ranges.overlaps(start, bytes)) {
		err = ranges.take_at(range, start, bytes) ? 0 : -EEXIST;
	} else {
		void *const got = reservation(start, bytes, MAP_FIXED_NOREPLACE);

		if (got == MAP_FAILED) {
			err = errno == EEXIST ? -EEXIST : errno == EPERM ? -EINVAL : -ENOMEM;
		} else if (reinterpret_cast<std::uintptr_t>(got) != start) {
			munmap(got, bytes); // a kernel that does not know the flag
			err = -EEXIST;
		} else {
			*range = {start, bytes, outside};
			outside = range;
		}
	}
	pthread_mutex_unlock(&lock);
	return err;
}

namespace {

bool is_outside(const Range *range)
{
	return !ranges.overlaps(range->start, range->bytes);
}

void forget_outside(Range *range)
{
	for (Range **link = &outside; *link; link = &(*link)->next) {
		if (*link == range) {
			*link = range->next;
			return;
		}
	}
}

} // namespace

int claim_addresses(std::uintptr_t start, std::size_t bytes)
{
	const std::uintptr_t end = start + bytes;

	if (ranges.overlaps(start, bytes))
		return 0;
	// What has been claimed for an earlier pool is not the orbit's own.
	while (start < end) {
		std::uintptr_t next = end;
		bool claimed = false;

		for (const Range *range = outside; range && !claimed; range = range->next) {
			claimed = range->start <= start && start < range->start + range->bytes;
			if (claimed)
				next = range->start + range->bytes;
			else if (range->start > start && range->start < next)
				next = range->start;
		}
		if (!claimed) {
			auto *range = static_cast<Range *>(calloc(1, sizeof(Range)));
			const int err = range ? take_addresses_at(range, start, next - start) : -ENOMEM;

			if (err == -EEXIST && is_kept_free(start, next)) {
				*range = {start, next - start, outside};
				outside = range;
			} else if (err) {
				free(range);
				return err == -EEXIST ? -EADDRINUSE : err;
			}
		}
		start = next;
	}
	return 0;
}

int release_addresses(Range *range)
{
	int err = 0;

	// Under the lock, so that no child is forked between the two steps: it would
	// have a hole that it does not know of.
	pthread_mutex_lock(&lock);
	if (is_outside(range)) {
		if (munmap(reinterpret_cast<void *>(range->start), range->bytes))
			err = -errno;
		else
			forget_outside(range);
	} else if (reservation(range->start, range->bytes, MAP_FIXED) == MAP_FAILED) {
		err = -errno;
	} else {
		ranges.release(range);
	}
	pthread_mutex_unlock(&lock);
	return err;
}

bool overlaps_reservation(std::uintptr_t start, std::size_t bytes)
{
	pthread_mutex_lock(&lock);
	bool overlaps = ranges.overlaps(start, bytes);

	for (const Range *range = outside; range && !overlaps; range = range->next)
		overlaps = range->start < start + bytes && start < range->start + range->bytes;

	pthread_mutex_unlock(&lock);
	return overlaps;
}

int reserve_hole(Range *hole)
{
	hole->bytes = whole_pages(default_size() / 16);

	void *start = reserve_most(&hole->bytes);

	if (start == MAP_FAILED)
		return -ENOMEM;
	hole->start = reinterpret_cast<std::uintptr_t>(start);
	return 0;
}

unsigned generation()
{
	return fork_count;
}

ORBIT_AT_FORK void reservation_before_fork()
{
	pthread_mutex_lock(&lock);
}

ORBIT_AT_FORK void reservation_after_fork_in_parent()
{
	pthread_mutex_unlock(&lock);
}

// A child inherits the window but no pool, so the pools have left holes. They are
// reserved again at once: in an orbit, for the kernel to put its view of the pool
// there; in any child, so that a stray pointer into a pool faults instead of
// hitting what malloc put there. What somebody has mapped into a hole by then
// stays (hence no MAP_FIXED).
ORBIT_AT_FORK void reservation_after_fork_in_child()
{
	for (const Range *first : {ranges.first(), static_cast<const Range *>(outside)})
		for (const Range *range = first; range; range = range->next)
			reservation(range->start, range->bytes, MAP_FIXED_NOREPLACE);
	fork_count++;
	forget_zygote();
	pthread_mutex_unlock(&lock);
}

} // namespace liborbit
