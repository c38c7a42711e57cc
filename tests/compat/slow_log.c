/* SPDX-License-Identifier: MIT */
/*
 * An application as they are written against the published API: a server that has an orbit
 * keep its log of slow requests.  The log lives in the orbit; a request is shown to it in a
 * pool, and what is asked for comes back in a scratch, as a list that is followed by pointers.
 */
#include "orbit.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define KEPT 16

struct entry {
	struct entry *next;
	long id;
	long duration;
	char *request;
};

/* The orbit's. */
struct log {
	struct entry *newest;
	long next_id;
	long count;
};

struct push_args {
	const char *request;
	long duration;
};

struct get_args {
	long count;
};

static struct orbit_module *log_orbit;
static struct orbit_pool *request_pool, *scratch_pool;
static struct orbit_allocator *request_alloc;

static void must(int condition, const char *what)
{
	if (condition)
		return;
	perror(what);
	exit(1);
}

static void *make_log(void)
{
	return calloc(1, sizeof(struct log));
}

static unsigned long push(void *store, void *argbuf)
{
	struct log *log = (struct log *)store;
	const struct push_args *args = (const struct push_args *)argbuf;
	struct entry *entry = (struct entry *)malloc(sizeof(*entry)), **link;

	entry->id = log->next_id++;
	entry->duration = args->duration;
	entry->request = strdup(args->request);
	entry->next = log->newest;
	log->newest = entry;
	if (log->count++ < KEPT)
		return 0;
	for (link = &log->newest; (*link)->next; link = &(*link)->next)
		;
	free((*link)->request);
	free(*link);
	*link = NULL;
	log->count--;
	return 0;
}

static unsigned long get(void *store, void *argbuf)
{
	const struct log *log = (const struct log *)store;
	long count = ((const struct get_args *)argbuf)->count;
	struct orbit_scratch scratch;
	struct orbit_allocator *alloc;
	struct entry *first = NULL, **link = &first;

	if (orbit_scratch_create(&scratch) != 0)
		return 0;
	alloc = orbit_scratch_open_any(&scratch, true);
	for (const struct entry *entry = log->newest; entry && count--; entry = entry->next) {
		struct entry *copy = (struct entry *)orbit_alloc(alloc, sizeof(*copy));

		*copy = *entry;
		copy->next = NULL;
		copy->request = (char *)orbit_alloc(alloc, strlen(entry->request) + 1);
		strcpy(copy->request, entry->request);
		*link = copy;
		link = &copy->next;
	}
	/* Closes the record. */
	return orbit_sendv(&scratch) == 0 ? (unsigned long)first : 0;
}

static void serve(long number)
{
	char *request = (char *)orbit_alloc(request_alloc, 64);
	struct push_args args = {request, number * 10};

	must(request != NULL, "orbit_alloc");
	snprintf(request, 64, "GET key:%ld", number);
	must(orbit_call_async(log_orbit, ORBIT_NORETVAL, 1, &request_pool, NULL, &args, sizeof(args),
			      NULL) == 0,
	     "push");
	/* The snapshot has been taken: the request may go. */
	memset(request, '?', 64);
	orbit_free(request_alloc, request);
}

/* How many entries there are, if they are those that were logged last. */
static long show(long wanted, long newest)
{
	struct get_args args = {wanted};
	union orbit_result result, retval;
	struct orbit_task task;
	struct orbit_repr *record;
	long count = 0;

	must(orbit_call_async(log_orbit, 0, 1, &request_pool, get, &args, sizeof(args), &task) == 0, "get");
	must(orbit_recvv(&result, &task) == 1, "orbit_recvv");
	must(orbit_recvv(&retval, &task) == 0, "orbit_recvv");
	record = orbit_scratch_first(&result.scratch);
	must(record && record->type == ORBIT_ANY, "orbit_scratch_first");
	for (const struct entry *entry = (struct entry *)retval.retval; entry; entry = entry->next) {
		char expected[64];

		snprintf(expected, sizeof(expected), "GET key:%ld", newest - count);
		if (strcmp(entry->request, expected) || entry->id != newest - count ||
		    entry->duration != 10 * entry->id)
			return -1;
		count++;
	}
	orbit_recvv_finish(&result.scratch);
	return count;
}

int main(void)
{
	request_pool = orbit_pool_create_at(NULL, 256 * 1024, (void *)0x820000000UL);
	must(request_pool != NULL, "orbit_pool_create_at");
	request_alloc = orbit_allocator_from_pool(request_pool, true);
	scratch_pool = orbit_pool_create_at(NULL, 64 * 1024, (void *)0x810000000UL);
	must(scratch_pool != NULL, "orbit_pool_create_at");
	scratch_pool->mode = ORBIT_MOVE;
	must(orbit_scratch_set_pool(scratch_pool) == 0, "orbit_scratch_set_pool");
	log_orbit = orbit_create("slow log", push, make_log);
	must(log_orbit != NULL, "orbit_create");

	for (long number = 0; number < 100; number++) {
		serve(number);
		if (number % 10 == 9) {
			const long kept = number + 1 < KEPT ? number + 1 : KEPT;

			must(show(3, number) == 3, "the last three");
			must(show(1000, number) == kept, "all");
		}
	}
	must(show(0, 0) == 0, "none");
	must(orbit_destroy(log_orbit->gobid) == 0, "orbit_destroy");
	puts("slow log: 100 requests logged, and those that were kept were read back");
	return 0;
}
