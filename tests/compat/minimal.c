/* SPDX-License-Identifier: MIT */
/*
 * Lesson 22 by the published API: orbits that do not hold the main program's heap, if it chooses so.
 */
#include "orbit.h"

#include "tap.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <unistd.h>

static struct orbit_allocator *alloc;
static long a_global = 1;

static unsigned long look(void *store, void *arg)
{
	const long *const in_pool = *(long **)arg;
	char *piece = orbit_alloc(alloc, 100); /* in its view */

	(void)store;
	return piece ? (unsigned long)(*in_pool + a_global) : 0;
}

/* Kilobytes of private memory of a process; 0 if that is not told. */
static long private_memory(pid_t pid)
{
	char path[64], line[256];
	long sum = 0, kib;
	FILE *file;

	snprintf(path, sizeof(path), "/proc/%d/smaps_rollup", pid);
	file = fopen(path, "r");
	while (file && fgets(line, sizeof(line), file))
		if (sscanf(line, "Anonymous: %ld", &kib) == 1)
			sum += kib;
	if (file)
		fclose(file);
	return sum;
}

static void lesson22_orbits_hold_no_heap(void)
{
	const size_t bytes = 64 << 20;
	struct orbit_pool *pool;
	struct orbit_module *module;
	char *heap;
	long *value;

	CHECK(orbit_compat_inherit_minimal() == 0);
	pool = orbit_pool_create(NULL, 1 << 20);
	alloc = orbit_allocator_from_pool(pool, true);
	value = orbit_alloc(alloc, sizeof(*value));
	*value = 40;
	a_global = 2;
	heap = malloc(bytes);
	memset(heap, 1, bytes);
	module = orbit_create("minimal", look, NULL);
	CHECK(module);
	CHECK(orbit_call(module, 1, &pool, NULL, &value, sizeof(value)) == 42);
	CHECK(private_memory(module->gobid) < 32 << 10);
	CHECK_FAILS(orbit_compat_inherit_minimal(), EBUSY);
	free(heap);
	orbit_destroy_all();
}

static unsigned long make_allocator(void *store, void *arg)
{
	size_t used = 0;
	struct orbit_allocator *made = orbit_allocator_create(&a_global, sizeof(a_global), &used, false);

	(void)store;
	(void)arg;
	return made && made != alloc;
}

static atomic_bool enough;

static void *make_allocators(void *arg)
{
	static char memory[4096];
	size_t used = 0;

	while (!enough)
		orbit_allocator_destroy(orbit_allocator_create(memory, sizeof(memory), &used, true));
	return arg;
}

/* Whatever another thread does with allocators when the orbit is made. */
static void tasks_make_allocators(void)
{
	struct orbit_pool *pool = orbit_pool_create(NULL, 1 << 20);
	pthread_t thread;

	alarm(60); /* a task that waits for a lock of another process waits for ever */
	pthread_create(&thread, NULL, make_allocators, NULL);
	for (int round = 0; round < 100; round++) {
		struct orbit_module *module = orbit_create("allocates", make_allocator, NULL);

		CHECK(module);
		CHECK(orbit_call(module, 1, &pool, NULL, NULL, 0) == 1);
		orbit_destroy(module->gobid);
	}
	enough = true;
	pthread_join(thread, NULL);
	alarm(0);
}

int main(void)
{
	static const struct test tests[] = {
		TEST(lesson22_orbits_hold_no_heap),
		TEST(tasks_make_allocators),
	};

	return run_tests(tests, sizeof(tests) / sizeof(*tests));
}
