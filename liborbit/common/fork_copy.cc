// SPDX-License-Identifier: MIT
#include "fork_copy.h"

#include "../internal.h"
#include "locked.h"

#include <pthread.h>
#include <sys/mman.h>

namespace liborbit {

namespace {

// From before a fork() until after it, too: a pool that is being copied is not destroyed.
ORBIT_STATE pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
ORBIT_STATE orbit_pool *copied;

// Set in threads that fork orbits. A lock would not do: they run the application's fork handlers.
ORBIT_STATE pthread_key_t forks_orbit;
ORBIT_STATE pthread_once_t key_once = PTHREAD_ONCE_INIT;
ORBIT_STATE bool has_key;

void make_key()
{
	__atomic_store_n(&has_key, !pthread_key_create(&forks_orbit, nullptr), __ATOMIC_RELEASE);
}

ORBIT_AT_FORK bool is_for_an_orbit()
{
	return in_orbit || (__atomic_load_n(&has_key, __ATOMIC_ACQUIRE) && pthread_getspecific(forks_orbit));
}

bool is_zero(const char *page)
{
	return !*page && !std::memcmp(page, page + 1, page_size() - 1);
}

// Pages of zeroes are left out: the copy reads as zero where it has not been written.
void copy_pages(char *to, const char *from, std::size_t bytes)
{
	for (std::size_t at = 0; at < bytes; at += page_size())
		if (!is_zero(from + at))
			std::memcpy(to + at, from + at, page_size());
}

void make_copy(orbit_pool *pool)
{
	const std::size_t bytes = pool->range.bytes;
	void *const copy = mmap(nullptr, bytes, PROT_READ | PROT_WRITE,
				MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	pool->fork_copy = nullptr;
	if (copy == MAP_FAILED) {
		log(ORBIT_LOG_ERROR, "no memory to copy a pool for a forked child, which will not have it");
		return;
	}
	for (std::size_t at = 0, end; at < bytes; at = end) {
		pool->backend->pool_used(pool, &at, &end);
		copy_pages(static_cast<char *>(copy) + at, reinterpret_cast<char *>(pool->range.start) + at,
			   end - at);
	}
	pool->fork_copy = copy;
}

} // namespace

OrbitFork::OrbitFork()
{
	pthread_once(&key_once, make_key);
	pthread_setspecific(forks_orbit, this);
}

OrbitFork::~OrbitFork()
{
	pthread_setspecific(forks_orbit, nullptr);
}

void copy_on_fork(orbit_pool *pool)
{
	const Locked locked(&lock);

	pool->next_copied = copied;
	copied = pool;
}

void forget_copy_on_fork(orbit_pool *pool)
{
	const Locked locked(&lock);

	for (orbit_pool **link = &copied; *link; link = &(*link)->next_copied) {
		if (*link == pool) {
			*link = pool->next_copied;
			return;
		}
	}
}

ORBIT_AT_FORK void make_fork_copies()
{
	pthread_mutex_lock(&lock);
	for (orbit_pool *pool = copied; pool; pool = pool->next_copied) {
		if (is_for_an_orbit())
			pool->fork_copy = nullptr;
		else
			make_copy(pool);
	}
}

ORBIT_AT_FORK void drop_fork_copies()
{
	for (orbit_pool *pool = copied; pool; pool = pool->next_copied)
		if (pool->fork_copy)
			munmap(pool->fork_copy, pool->range.bytes);
	pthread_mutex_unlock(&lock);
}

ORBIT_AT_FORK void place_fork_copies()
{
	for (orbit_pool *pool = copied; pool; pool = pool->next_copied)
		if (pool->fork_copy && mremap(pool->fork_copy, pool->range.bytes, pool->range.bytes,
					      MREMAP_MAYMOVE | MREMAP_FIXED,
					      reinterpret_cast<void *>(pool->range.start)) == MAP_FAILED)
			munmap(pool->fork_copy, pool->range.bytes);
	copied = nullptr; // ordinary memory now, of which fork() takes care
	pthread_mutex_unlock(&lock);
}

} // namespace liborbit
