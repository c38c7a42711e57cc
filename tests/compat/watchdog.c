/* SPDX-License-Identifier: MIT */
/*
 * An application as they are written against the published API: a server whose workers say
 * that they are alive, and a thread that has an orbit look every now and then who is not.  A
 * check sends operations that the main program runs, and says whether a second orbit function
 * shall look closer.  Nothing here gives a scratch's memory back, and all goes on for longer
 * than the scratch pool would last.
 */
#include "orbit.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define WORKERS 8
#define ROUNDS 100
#define PATIENCE 3

struct worker {
	unsigned long beats; /* since the last check */
	bool hangs;
};

struct check_args {
	struct worker *workers;
	size_t count;
};

/* The orbit's: for how many checks each has been silent. */
struct silence {
	int checks[WORKERS];
};

static struct worker *workers;
static struct orbit_module *watchdog;
static struct orbit_pool *worker_pool, *scratch_pool;
static unsigned long resets, reports, reported;

static void must(int condition, const char *what)
{
	if (condition)
		return;
	perror(what);
	exit(1);
}

static void *make_silence(void)
{
	return calloc(1, sizeof(struct silence));
}

/* These two run in the main program. */
static unsigned long reset(size_t argc, unsigned long argv[])
{
	if (argc == 2)
		__atomic_fetch_sub(&workers[argv[0]].beats, argv[1], __ATOMIC_RELAXED);
	resets++;
	return 0;
}

static unsigned long report(size_t argc, unsigned long argv[])
{
	if (argc == 2 && argv[1] >= PATIENCE)
		reported |= 1UL << argv[0];
	reports++;
	return 0;
}

static unsigned long check(void *store, void *argbuf)
{
	struct silence *silence = (struct silence *)store;
	const struct check_args *args = (const struct check_args *)argbuf;
	struct orbit_scratch scratch;
	unsigned long closer = 0;

	if (orbit_scratch_create(&scratch))
		return 99;
	for (size_t i = 0; i < args->count; i++) {
		unsigned long argv[] = {i, args->workers[i].beats};

		silence->checks[i] = argv[1] ? 0 : silence->checks[i] + 1;
		closer |= silence->checks[i] == PATIENCE;
		if (argv[1])
			orbit_scratch_push_operation(&scratch, reset, 2, argv);
	}
	return orbit_sendv(&scratch) ? 98 : closer;
}

static unsigned long look_closer(void *store, void *argbuf)
{
	const struct silence *silence = (const struct silence *)store;
	const struct check_args *args = (const struct check_args *)argbuf;
	struct orbit_scratch scratch;

	if (orbit_scratch_create(&scratch))
		return 97;
	for (size_t i = 0; i < args->count; i++) {
		unsigned long argv[] = {i, (unsigned long)silence->checks[i]};

		if (silence->checks[i] >= PATIENCE)
			orbit_scratch_push_operation(&scratch, report, 2, argv);
	}
	return orbit_sendv(&scratch) ? 96 : 0;
}

static void *watch(void *nothing)
{
	unsigned long closer = 0;

	for (int round = 0; round < ROUNDS; round++) {
		struct check_args args = {workers, WORKERS};
		union orbit_result result;
		struct orbit_task task;

		for (int i = 0; i < WORKERS; i++)
			if (!workers[i].hangs || round == 0)
				__atomic_fetch_add(&workers[i].beats, 1, __ATOMIC_RELAXED);
		must(orbit_call_async(watchdog, 0, 1, &worker_pool, closer ? look_closer : NULL, &args,
				      sizeof(args), &task) == 0,
		     "orbit_call_async");
		must(orbit_recvv(&result, &task) == 1, "the operations");
		must(orbit_apply(&result.scratch, false) == ORBIT_END, "orbit_apply");
		must(orbit_recvv(&result, &task) == 0, "the value");
		must(result.retval <= 1, "the value");
		closer = result.retval;
	}
	return nothing;
}

int main(void)
{
	struct orbit_allocator *alloc;
	pthread_t thread;

	worker_pool = orbit_pool_create(NULL, 64 * 1024);
	scratch_pool = orbit_pool_create(NULL, 16 * 4096);
	must(worker_pool && scratch_pool, "orbit_pool_create");
	worker_pool->mode = ORBIT_COPY;
	alloc = orbit_allocator_from_pool(worker_pool, true);
	must(orbit_scratch_set_pool(scratch_pool) == 0, "orbit_scratch_set_pool");
	workers = (struct worker *)orbit_calloc(alloc, WORKERS * sizeof(*workers));
	workers[3].hangs = workers[5].hangs = true;
	watchdog = orbit_create("watchdog", check, make_silence);
	must(watchdog != NULL, "orbit_create");
	must(pthread_create(&thread, NULL, watch, NULL) == 0, "pthread_create");
	pthread_join(thread, NULL);
	must(reports == 2 && reported == (1UL << 3 | 1UL << 5), "two hang");
	/* One round was the closer look. */
	must(resets == (ROUNDS - 1) * (WORKERS - 2) + 2, "the others do not");
	must(orbit_destroy_all() == 0, "orbit_destroy_all");
	puts("watchdog: two workers hang, six do not");
	return 0;
}
