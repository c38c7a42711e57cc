/* SPDX-License-Identifier: MIT */
/*
 * What published programs do with what the library gives them: free() it, want it at an address of
 * theirs, fork and go on in the child.
 */
#include "orbit.h"

#include "tap.h"

#include <malloc.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#define PAGE 4096

static unsigned long first_byte(void *store, void *arg)
{
	(void)store;
	return **(unsigned char **)arg;
}

static struct orbit_module *make(void)
{
	return orbit_create("published", first_byte, NULL);
}

static long call_with(struct orbit_module *module, struct orbit_pool *pool)
{
	void *start = pool->rawptr;

	return orbit_call(module, 1, &pool, NULL, &start, sizeof(start));
}

static int wait_for(pid_t child)
{
	int status = -1;

	while (waitpid(child, &status, 0) < 0 && errno == EINTR)
		;
	if (status)
		printf("# the child's status is %#x\n", (unsigned)status);
	return status;
}

static void modules_and_pools_can_be_freed(void)
{
	for (int i = 0; i < 3; i++) {
		struct orbit_module *module = make();
		struct orbit_pool *pool = orbit_pool_create(NULL, PAGE);
		const obid_t number = module->gobid;

		*(char *)pool->rawptr = 5;
		CHECK(call_with(module, pool) == 5);
		free(module);
		free(pool);
		/* Others may lie where they did. */
		module = make();
		pool = orbit_pool_create(NULL, PAGE);
		*(char *)pool->rawptr = 6;
		CHECK(call_with(module, pool) == 6);
		CHECK(orbit_exists(module));
		CHECK(orbit_destroy(number) == 0);
		CHECK(orbit_exists(module));
		CHECK(orbit_destroy(module->gobid) == 0);
		CHECK(orbit_gone(module));
	}
	CHECK(!orbit_exists(NULL));
}

static void pools_lie_where_they_are_wanted(void)
{
	void *const wish = (void *)0x820000000UL;
	struct orbit_module *before = make(), *after;
	struct orbit_pool *pool = orbit_pool_create_at(NULL, 2 * PAGE, wish), *other;

	CHECK(pool && pool->rawptr == wish);
	*(char *)pool->rawptr = 7;
	after = make();
	CHECK(call_with(before, pool) == 7);
	CHECK(call_with(after, pool) == 7);

	/* Taken, by a pool and by something else, or no place for one: elsewhere. */
	other = orbit_pool_create_at(NULL, PAGE, (char *)wish + PAGE);
	CHECK(other && other->rawptr != (char *)wish + PAGE);
	*(char *)other->rawptr = 8;
	CHECK(call_with(before, other) == 8);
	other = orbit_pool_create_at(NULL, PAGE, (char *)make);
	CHECK(other && call_with(after, other) == 0);

	/* And given back it can be had again. */
	CHECK(orbit_compat_pool_destroy(pool) == 0);
	pool = orbit_pool_create_at(NULL, PAGE, wish);
	CHECK(pool && pool->rawptr == wish && *(char *)pool->rawptr == 0);
	*(char *)pool->rawptr = 9;
	CHECK(call_with(before, pool) == 9);
	CHECK(orbit_compat_pool_destroy(pool) == 0);
	orbit_destroy_all();
}

static void pools_can_be_given_back(void)
{
	struct orbit_module *module = make();
	struct orbit_pool *kept = orbit_pool_create(NULL, PAGE);
	int first = -1;

	*(char *)kept->rawptr = 1;
	for (int i = 0; i < 1200; i++) { /* more than there may be at a time */
		struct orbit_pool *pool = orbit_pool_create(NULL, PAGE);
		int fd;

		if (!pool) {
			CHECK(!"a pool");
			break;
		}
		if (i % 100 == 0) {
			*(char *)pool->rawptr = 2;
			CHECK(call_with(module, pool) == 2);
		}
		CHECK(orbit_compat_pool_destroy(pool) == 0);
		fd = dup(0); /* descriptors have come back */
		if (first < 0)
			first = fd;
		CHECK(fd <= first + 4);
		close(fd);
	}
	CHECK(call_with(module, kept) == 1);
	CHECK_FAILS(orbit_compat_pool_destroy(NULL), EINVAL);
	CHECK(orbit_scratch_set_pool(kept) == 0);
	CHECK_FAILS(orbit_compat_pool_destroy(kept), EBUSY);
	orbit_destroy_all();
}

static void a_child_makes_its_own(void)
{
	struct orbit_module *module = make();
	struct orbit_pool *pool = orbit_pool_create(NULL, PAGE);
	pid_t child;

	*(char *)pool->rawptr = 3;
	CHECK(call_with(module, pool) == 3);
	child = fork();
	if (!child) {
		struct orbit_pool *own = orbit_pool_create(NULL, PAGE);
		struct orbit_module *mine;
		void *start;

		alarm(60);
		if (!own || orbit_call(module, 0, NULL, NULL, &own, sizeof(own)) != -1 || errno != EPERM)
			_exit(1);
		*(char *)own->rawptr = 4;
		mine = make();
		start = own->rawptr;
		if (!mine)
			printf("# %s\n", strerror(errno));
		if (!mine || orbit_call(mine, 1, &own, NULL, &start, sizeof(start)) != 4)
			_exit(2);
		_exit(orbit_destroy_all() ? 3 : 0);
	}
	CHECK(wait_for(child) == 0);
	CHECK(call_with(module, pool) == 3);
	orbit_destroy_all();
}

static void a_scratch_can_be_empty(void)
{
	struct orbit_scratch scratch = {NULL, 0, 0, 0, NULL};

	CHECK(orbit_scratch_empty(&scratch));
	scratch.count = 1;
	CHECK(!orbit_scratch_empty(&scratch));
}

/* ---- Lesson 25: the allocator --------------------------------------------------------- */

static bool is_filled(const char *piece, char with, size_t bytes)
{
	for (size_t i = 0; i < bytes; i++)
		if (piece[i] != with)
			return false;
	return true;
}

static void lesson25_pieces_are_aligned_within_and_given_back(void)
{
	struct orbit_pool *pool = orbit_pool_create(NULL, 16 * PAGE);
	struct orbit_allocator *alloc = orbit_allocator_from_pool(pool, true);
	const char *const end = (char *)pool->rawptr + pool->length;
	size_t used = pool->used, count = 0;
	char *pieces[4096];
	size_t sizes[4096];

	for (size_t size = 1;; size = size % 97 + 1) {
		char *piece = orbit_alloc(alloc, size);

		if (!piece || count == 4096)
			break; /* full is an error, and not the end */
		CHECK((unsigned long)piece % 16 == 0);
		CHECK(piece >= (char *)pool->rawptr && piece + size <= end);
		memset(piece, (int)count, size);
		sizes[count] = size;
		pieces[count++] = piece;
	}
	CHECK(count > 500 && count < 4096);
	CHECK(pool->used <= pool->length && pool->used > pool->length - 2 * PAGE);
	while (count) {
		count--;
		CHECK(is_filled(pieces[count], (char)count, sizes[count])); /* no two overlap */
		orbit_free(alloc, pieces[count]);
	}
	CHECK(pool->used == used);
	CHECK(orbit_alloc(alloc, 15 * PAGE) != NULL);
	orbit_allocator_destroy(alloc);
}

struct share {
	struct orbit_allocator *alloc;
	pthread_t thread;
	int number;
	long bad;
};

/* Takes pieces and gives them back, in another order, and looks whether they were its own meanwhile. */
static void *take_and_give_back(void *data)
{
	struct share *share = data;
	char *pieces[16] = {NULL};
	size_t sizes[16];
	unsigned seed = (unsigned)share->number;

	for (int round = 0; round < 300000; round++) {
		const unsigned at = (unsigned)rand_r(&seed) % 16;
		const char mine = (char)(share->number * 16 + (int)at);

		if (pieces[at]) {
			share->bad += !is_filled(pieces[at], mine, sizes[at]);
			orbit_free(share->alloc, pieces[at]);
			pieces[at] = NULL;
			continue;
		}
		sizes[at] = (size_t)rand_r(&seed) % 200 + 1;
		pieces[at] = orbit_alloc(share->alloc, sizes[at]);
		share->bad += !pieces[at];
		if (pieces[at])
			memset(pieces[at], mine, sizes[at]);
	}
	for (int at = 0; at < 16; at++)
		orbit_free(share->alloc, pieces[at]);
	return NULL;
}

static void lesson25_threads_share_it(void)
{
	struct orbit_pool *pool = orbit_pool_create(NULL, 64 * PAGE);
	struct orbit_allocator *alloc = orbit_allocator_from_pool(pool, true);
	const size_t used = pool->used;
	struct share shares[4];

	for (int i = 0; i < 4; i++) {
		shares[i] = (struct share){alloc, 0, i + 1, 0};
		CHECK(!pthread_create(&shares[i].thread, NULL, take_and_give_back, &shares[i]));
	}
	for (int i = 0; i < 4; i++) {
		pthread_join(shares[i].thread, NULL);
		CHECK(!shares[i].bad);
	}
	CHECK(pool->used == used);
	orbit_allocator_destroy(alloc);
}

int main(void)
{
	static const struct test tests[] = {
		TEST(modules_and_pools_can_be_freed),
		TEST(pools_lie_where_they_are_wanted),
		TEST(pools_can_be_given_back),
		TEST(a_child_makes_its_own),
		TEST(a_scratch_can_be_empty),
		TEST(lesson25_pieces_are_aligned_within_and_given_back),
		TEST(lesson25_threads_share_it),
	};

	return run_tests(tests, sizeof(tests) / sizeof(*tests));
}
