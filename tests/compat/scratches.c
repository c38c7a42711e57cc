/* SPDX-License-Identifier: MIT */
/*
 * The published API: scratches, and what an orbit may have done to them.
 */
#include "orbit.h"

#include "tap.h"

#include <stdint.h>
#include <stdlib.h>

#define PAGE 4096

static struct orbit_pool *scratch_pool;
static long values[8];
static unsigned long operations[4];

static struct orbit_module *make(orbit_entry entry)
{
	struct orbit_module *module = orbit_create("scratches", entry, NULL);

	if (!module) {
		perror("orbit_create");
		exit(1);
	}
	return module;
}

static void *begin(struct orbit_module *module, orbit_entry entry, const void *arg, size_t size,
		   struct orbit_task *task)
{
	CHECK(orbit_call_async(module, 0, 0, NULL, entry, (void *)arg, size, task) == 0);
	return NULL;
}

static unsigned long note_operation(size_t argc, unsigned long argv[])
{
	operations[0]++;
	operations[1] = argc;
	for (size_t i = 0; i < argc && i < 2; i++)
		operations[2 + i] = argv[i];
	return 12345; /* nobody looks */
}

/* ---- In the main program alone ------------------------------------------------------------ */

static void records_without_an_orbit(void)
{
	struct orbit_scratch s, all;
	unsigned long argv[] = {7, 8};
	struct orbit_repr *record;
	long value = 3;

	CHECK_FAILS(orbit_scratch_create(&s), ENXIO);
	CHECK_FAILS(orbit_scratch_set_pool(NULL), EINVAL);
	scratch_pool = orbit_pool_create(NULL, 64 * PAGE);
	scratch_pool->mode = ORBIT_MOVE;
	CHECK(orbit_scratch_set_pool(scratch_pool) == 0);
	CHECK_FAILS(orbit_scratch_create(NULL), EINVAL);
	CHECK(orbit_scratch_create(&s) == 0);
	CHECK(s.ptr && s.cursor == 0 && s.count == 0 && s.size_limit == 64 * PAGE && !s.any_alloc);
	CHECK(orbit_scratch_push_update(&s, &value, sizeof(value)) == 1);
	CHECK(orbit_scratch_push_operation(&s, note_operation, 2, argv) == 2);
	CHECK(strcmp((char *)orbit_scratch_push_any(&s, (void *)"bytes", 6), "bytes") == 0);
	CHECK(s.count == 3);
	memcpy(orbit_scratch_push_any(&s, NULL, 10), "later", 6);
	CHECK(orbit_scratch_push_operation(&s, note_operation, 0, NULL) == 5);
	CHECK(orbit_scratch_push_update(&s, NULL, 0) == 6);
	CHECK_FAILS(orbit_scratch_push_update(&s, NULL, 1), EINVAL);
	CHECK_FAILS(orbit_scratch_push_update(NULL, &value, 1), EINVAL);
	CHECK_FAILS(orbit_scratch_push_operation(&s, NULL, 0, NULL), EINVAL);
	CHECK_FAILS(orbit_scratch_push_operation(&s, note_operation, 1, NULL), EINVAL);
	CHECK_FAILS(orbit_scratch_push_operation(&s, note_operation, SIZE_MAX / 8, argv), ENOSPC);
	CHECK_FAILS(orbit_scratch_push_operation(&s, note_operation, SIZE_MAX, argv), ENOSPC);
	CHECK_FAILS(orbit_scratch_push_update(&s, &value, SIZE_MAX), ENOSPC);
	CHECK_FAILS(orbit_scratch_push_update(&s, &value, s.size_limit - s.cursor - 23), ENOSPC);
	CHECK(!orbit_scratch_push_any(&s, NULL, SIZE_MAX - 10) && errno == ENOSPC);
	CHECK(!orbit_scratch_push_any(NULL, NULL, 1) && !orbit_scratch_open_any(NULL, true));
	CHECK_FAILS(orbit_scratch_close_any(NULL), EINVAL);
	CHECK(orbit_scratch_close_any(&s) == 6);
	CHECK_FAILS(orbit_sendv(&s), EPERM);
	CHECK_FAILS(orbit_sendv(NULL), EINVAL);
	CHECK_FAILS(orbit_recvv_finish(NULL), EINVAL);
	CHECK_FAILS(orbit_recvv_finish(&s), EINVAL); /* it has not been received */

	s.cursor = 0;
	all = s;
	value = 4;
	record = orbit_scratch_first(&all);
	CHECK(record && record->type == ORBIT_UPDATE && record->update.ptr == &value &&
	      record->update.length == sizeof(value) && *(long *)record->update.data == 3);
	record = orbit_scratch_next(&all);
	CHECK(record && record->type == ORBIT_OPERATION && record->operation.func == note_operation &&
	      record->operation.argc == 2 && record->operation.argv[1] == 8);
	record = orbit_scratch_next(&all);
	CHECK(record && record->type == ORBIT_ANY && record->any.length == 6 &&
	      strcmp(record->any.data, "bytes") == 0 && (uintptr_t)record->any.data % 16 == 0);
	record = orbit_scratch_next(&all);
	CHECK(record && record->any.length == 10 && strcmp(record->any.data, "later") == 0);
	record = orbit_scratch_next(&all);
	CHECK(record && record->type == ORBIT_OPERATION && record->operation.argc == 0);
	CHECK(orbit_scratch_next(&all)->type == ORBIT_UPDATE);
	CHECK(!orbit_scratch_next(&all) && !orbit_scratch_next(&all) && !orbit_scratch_first(&all));
	CHECK(value == 4 && operations[0] == 0);

	all = s;
	CHECK(orbit_skip_one(&all, true) == ORBIT_UPDATE && orbit_skip_one(&all, true) == ORBIT_OPERATION);
	CHECK(orbit_skip_one(&all, true) == ORBIT_ANY && orbit_skip_one(&all, true) == ORBIT_ANY);
	CHECK(orbit_skip_one(&all, false) == ORBIT_ANY);
	CHECK(orbit_skip(&all, true) == ORBIT_ANY);
	CHECK(orbit_skip(&all, false) == ORBIT_END && orbit_skip(&all, false) == ORBIT_END);
	CHECK(orbit_skip_one(&all, false) == ORBIT_END);
	CHECK(value == 4 && operations[0] == 0);

	all = s;
	CHECK(orbit_apply_one(&all, true) == ORBIT_UPDATE && value == 3);
	CHECK(orbit_apply(&all, true) == ORBIT_ANY);
	CHECK(operations[0] == 1 && operations[1] == 2 && operations[2] == 7 && operations[3] == 8);
	CHECK(orbit_apply_one(&all, true) == ORBIT_ANY);
	CHECK(orbit_apply(&all, false) == ORBIT_END && operations[0] == 2 && operations[1] == 0);
	CHECK(orbit_apply(&all, false) == ORBIT_END && orbit_apply_one(&all, false) == ORBIT_END);
	CHECK(orbit_apply(NULL, false) == ORBIT_END && orbit_scratch_first(NULL) == NULL);
}

static void a_scratch_that_is_full(void)
{
	struct orbit_scratch s;
	char byte = 1;
	int count = 0;

	CHECK(orbit_scratch_create(&s) == 0);
	while (orbit_scratch_push_update(&s, &byte, 1) > 0)
		count++;
	CHECK(errno == ENOSPC && count == 64 * PAGE / 32);
	CHECK(s.cursor == s.size_limit && s.count == (size_t)count);
	CHECK(!orbit_scratch_open_any(&s, true) && errno == ENOSPC);
	s.cursor = 0;
	CHECK(orbit_skip(&s, false) == ORBIT_END && s.count == 0);
}

static void an_open_any(void)
{
	struct orbit_scratch s;
	struct orbit_allocator *alloc;
	struct orbit_repr *record;
	char *a, *b;

	for (int meta = 0; meta < 2; meta++) {
		CHECK(orbit_scratch_create(&s) == 0);
		alloc = orbit_scratch_open_any(&s, meta);
		CHECK(alloc && s.any_alloc == alloc && s.count == 0);
		a = (char *)orbit_alloc(alloc, 100);
		b = (char *)orbit_calloc(alloc, 1000);
		CHECK(a && b && orbit_allocated_by(a, alloc) && orbit_allocated_by(b, alloc));
		strcpy(a, "a");
		strcpy(b, "b");
		CHECK(!orbit_alloc(alloc, 64 * PAGE));
		if (meta) {
			orbit_free(alloc, orbit_alloc(alloc, 5000));
			b = (char *)orbit_realloc(alloc, b, 2000);
		}
		CHECK(orbit_scratch_push_update(&s, &values[0], sizeof(long)) == 2); /* closes it */
		CHECK(!s.any_alloc && s.count == 2);
		alloc = orbit_scratch_open_any(&s, meta);
		CHECK(alloc && orbit_scratch_open_any(&s, meta)); /* closes it, empty */
		CHECK(orbit_scratch_close_any(&s) == 4);
		s.cursor = 0;
		record = orbit_scratch_first(&s);
		CHECK(record && record->type == ORBIT_ANY);
		CHECK(meta || record->any.data == a);
		CHECK(a >= record->any.data && b > a && b + 1000 <= record->any.data + record->any.length);
		CHECK(record->any.length < (meta ? 2200 : 1200));
		CHECK(strcmp(a, "a") == 0 && strcmp(b, "b") == 0);
		CHECK(orbit_scratch_next(&s)->type == ORBIT_UPDATE);
		CHECK(orbit_scratch_next(&s)->any.length == 0);
		CHECK(orbit_scratch_next(&s) && !orbit_scratch_next(&s));
	}
}

/* ---- From an orbit --------------------------------------------------------------------------- */

static unsigned long send_records(void *store, void *arg)
{
	unsigned long argv[] = {1, 2};
	struct orbit_scratch s;
	int err = orbit_scratch_create(&s);

	(void)store;
	for (int i = 0; i < 4; i++) {
		values[i] = *(long *)arg + i;
		err |= orbit_scratch_push_update(&s, &values[i], sizeof(long)) < 0;
	}
	err |= orbit_scratch_push_operation(&s, note_operation, 2, argv) < 0;
	err |= orbit_sendv(&s);
	if (orbit_sendv(&s) != -1 || errno != EINVAL) /* it is gone */
		err = 1;
	return err ? 0 : 99;
}

static void a_scratch_is_received_and_applied(void)
{
	struct orbit_module *module = make(send_records);
	union orbit_result result;
	struct orbit_task task;
	long first = 10;

	memset(values, 0, sizeof(values));
	memset(operations, 0, sizeof(operations));
	begin(module, NULL, &first, sizeof(first), &task);
	CHECK(orbit_recvv(&result, &task) == 1);
	CHECK(result.scratch.count == 5 && result.scratch.cursor == 0);
	CHECK((char *)result.scratch.ptr >= (char *)scratch_pool->rawptr &&
	      (char *)result.scratch.ptr < (char *)scratch_pool->rawptr + scratch_pool->length);
	CHECK(values[0] == 0 && operations[0] == 0);
	CHECK(orbit_apply(&result.scratch, false) == ORBIT_END);
	for (int i = 0; i < 4; i++)
		CHECK(values[i] == 10 + i);
	CHECK(operations[0] == 1 && operations[3] == 2);
	CHECK(orbit_recvv_finish(&result.scratch) == 0);
	CHECK(orbit_recvv_finish(&result.scratch) == 0); /* nothing is left of it */
	CHECK(orbit_recvv(&result, &task) == 0 && result.retval == 99);
	orbit_destroy_all();
}

struct several {
	int count;
	size_t bytes;
};

static unsigned long send_several(void *store, void *arg)
{
	const struct several *several = (const struct several *)arg;

	(void)store;
	for (int i = 0; i < several->count; i++) {
		struct orbit_scratch s;
		char *bytes;

		if (orbit_scratch_create(&s))
			return (unsigned long)errno;
		bytes = (char *)orbit_scratch_push_any(&s, NULL, several->bytes);
		if (!bytes)
			return 1000;
		memset(bytes, 'a' + i, several->bytes);
		if (orbit_sendv(&s))
			return 2000;
	}
	return 0;
}

static bool holds(const struct orbit_scratch *s, char value, size_t bytes)
{
	struct orbit_scratch copy = *s;
	const struct orbit_repr *record = orbit_scratch_first(&copy);

	if (!record || record->type != ORBIT_ANY || record->any.length != bytes)
		return false;
	for (size_t i = 0; i < bytes; i++)
		if (record->any.data[i] != value)
			return false;
	return true;
}

static void several_of_several_tasks(void)
{
	struct orbit_module *module = make(send_several);
	const struct several several = {3, 5000};
	union orbit_result results[6], value;
	struct orbit_task tasks[2];

	begin(module, NULL, &several, sizeof(several), &tasks[0]);
	begin(module, NULL, &several, sizeof(several), &tasks[1]);
	for (int i = 5; i >= 0; i--)
		CHECK(orbit_recvv(&results[i], &tasks[i / 3]) == 1);
	for (int i = 0; i < 6; i++)
		CHECK(holds(&results[i].scratch, (char)('a' + 2 - i % 3), 5000));
	for (int i = 0; i < 2; i++)
		CHECK(orbit_recvv(&value, &tasks[i]) == 0 && value.retval == 0);
	for (int i = 0; i < 6; i++)
		CHECK(orbit_recvv_finish(&results[i].scratch) == 0);
	orbit_destroy_all();
}

/* All of the pool, again and again. */
static void memory_comes_back(void)
{
	struct orbit_module *module = make(send_several);
	const struct several large = {1, 64 * PAGE - 16}, small = {3, PAGE};
	union orbit_result result, kept;
	struct orbit_task task;

	for (int i = 0; i < 5; i++) {
		begin(module, NULL, &large, sizeof(large), &task);
		CHECK(orbit_recvv(&result, &task) == 1);
		CHECK(result.scratch.size_limit == 64 * PAGE && holds(&result.scratch, 'a', large.bytes));
		CHECK(orbit_recvv_finish(&result.scratch) == 0);
		CHECK(orbit_recvv(&result, &task) == 0 && result.retval == 0);
	}

	/* Who never finishes gets by, as long as he iterates to the end. One stays. */
	begin(module, NULL, &small, sizeof(small), &task);
	CHECK(orbit_recvv(&kept, &task) == 1);
	for (int i = 0; i < 2; i++)
		CHECK(orbit_recvv(&result, &task) == 1 && orbit_skip(&result.scratch, false) == ORBIT_END);
	CHECK(orbit_recvv(&result, &task) == 0);
	for (int i = 0; i < 60; i++) {
		begin(module, NULL, &small, sizeof(small), &task);
		for (int j = 0; j < 3; j++) {
			CHECK(orbit_recvv(&result, &task) == 1);
			CHECK(holds(&result.scratch, (char)('a' + j), PAGE));
			CHECK(orbit_apply(&result.scratch, false) == ORBIT_END);
		}
		CHECK(orbit_recvv(&result, &task) == 0 && result.retval == 0);
		CHECK(holds(&kept.scratch, 'a', PAGE));
	}

	/* Who does neither comes to an end, and nothing else. */
	for (int i = 0; i < 64; i++) {
		begin(module, NULL, &small, sizeof(small), &task);
		while (orbit_recvv(&result, &task) == 1)
			;
		if (result.retval)
			break;
	}
	CHECK(result.retval == ENOSPC || result.retval == 1000);
	CHECK(holds(&kept.scratch, 'a', PAGE));
	CHECK(orbit_recvv_finish(&kept.scratch) == 0);
	orbit_destroy_all();
	scratch_pool = orbit_pool_create(NULL, 64 * PAGE);
	scratch_pool->mode = ORBIT_MOVE;
	CHECK(orbit_scratch_set_pool(scratch_pool) == 0);
}

static void tasks_that_nobody_receives_give_memory_back(void)
{
	struct orbit_module *module = make(send_several);
	const struct several large = {1, 40 * PAGE};
	union orbit_result result;
	struct orbit_task task;

	begin(module, NULL, &large, sizeof(large), &task);
	CHECK(orbit_recvv(&result, &task) == 1);
	CHECK(orbit_recvv_finish(&result.scratch) == 0);

	/* It has sent while the first has not been received to its end: no room but the rest. */
	struct orbit_task second;

	begin(module, NULL, &large, sizeof(large), &second);
	CHECK(orbit_recvv(&result, &second) == 0 && result.retval == 1000);
	CHECK(orbit_recvv(&result, &task) == 0 && result.retval == 0);
	begin(module, NULL, &large, sizeof(large), &second);
	CHECK(orbit_recvv(&result, &second) == 1 && holds(&result.scratch, 'a', large.bytes));
	CHECK(orbit_recvv_finish(&result.scratch) == 0);
	CHECK(orbit_recvv(&result, &second) == 0);
	orbit_destroy_all();
}

static void two_orbits_share_a_pool(void)
{
	struct orbit_module *modules[] = {make(send_several), make(send_several)};
	const struct several several = {2, 30000};
	union orbit_result results[4], value;
	struct orbit_task tasks[2];

	for (int round = 0; round < 10; round++) {
		for (int i = 0; i < 2; i++)
			begin(modules[i], NULL, &several, sizeof(several), &tasks[i]);
		for (int i = 0; i < 4; i++)
			CHECK(orbit_recvv(&results[i], &tasks[i % 2]) == 1);
		for (int i = 0; i < 4; i++) {
			CHECK(holds(&results[i].scratch, (char)('a' + i / 2), 30000));
			CHECK(orbit_recvv_finish(&results[i].scratch) == 0);
		}
		for (int i = 0; i < 2; i++)
			CHECK(orbit_recvv(&value, &tasks[i]) == 0 && value.retval == 0);
		if (round == 4) { /* the next one takes over what this one had */
			CHECK(orbit_destroy(modules[0]->gobid) == 0);
			modules[0] = make(send_several);
		}
	}
	orbit_destroy_all();
}

/* From one pool to another and back, while scratches of all are held. */
static void another_pool(void)
{
	struct orbit_module *module = make(send_several);
	struct orbit_pool *other = orbit_pool_create(NULL, 16 * PAGE);
	const struct several one = {1, 6000};
	union orbit_result results[4], value;
	struct orbit_task task;

	for (int i = 0; i < 4; i++) {
		struct orbit_pool *pool = i % 2 ? other : scratch_pool;
		const char *start = (char *)pool->rawptr, *at;

		CHECK(orbit_scratch_set_pool(pool) == 0);
		begin(module, NULL, &one, sizeof(one), &task);
		CHECK(orbit_recvv(&results[i], &task) == 1);
		at = (char *)results[i].scratch.ptr;
		CHECK(at >= start && at < start + pool->length);
		CHECK(orbit_recvv(&value, &task) == 0 && value.retval == 0);
	}
	for (int i = 0; i < 4; i++) {
		CHECK(holds(&results[i].scratch, 'a', 6000));
		CHECK(orbit_recvv_finish(&results[i].scratch) == 0);
	}
	CHECK(orbit_scratch_set_pool(scratch_pool) == 0);
	orbit_destroy_all();
}

static unsigned long send_nothing(void *store, void *arg)
{
	struct orbit_scratch s;

	(void)store;
	(void)arg;
	return orbit_scratch_create(&s) == 0 && orbit_sendv(&s) == 0;
}

static void an_empty_scratch(void)
{
	struct orbit_module *module = make(send_nothing);
	union orbit_result result;
	struct orbit_task task;

	begin(module, NULL, NULL, 0, &task);
	CHECK(orbit_recvv(&result, &task) == 1 && result.scratch.count == 0);
	CHECK(orbit_apply(&result.scratch, false) == ORBIT_END);
	CHECK(!orbit_scratch_first(&result.scratch));
	CHECK(orbit_recvv_finish(&result.scratch) == 0);
	CHECK(orbit_recvv(&result, &task) == 0 && result.retval == 1);
	orbit_destroy_all();
}

/* Pointers into a scratch are good on both sides. */
struct node {
	struct node *next;
	int value;
};

static unsigned long send_list(void *store, void *arg)
{
	struct orbit_scratch s;
	struct orbit_allocator *alloc;
	struct node *list = NULL;

	(void)store;
	(void)arg;
	if (orbit_scratch_create(&s))
		return 0;
	alloc = orbit_scratch_open_any(&s, true);
	for (int i = 0; alloc && i < 100; i++) {
		struct node *node = (struct node *)orbit_alloc(alloc, sizeof(*node));

		*node = (struct node){list, i};
		list = node;
	}
	return orbit_sendv(&s) ? 0 : (unsigned long)list;
}

static void a_list_in_a_scratch(void)
{
	struct orbit_module *module = make(send_list);
	union orbit_result result, value;
	struct orbit_task task;
	int expected = 99;

	begin(module, NULL, NULL, 0, &task);
	CHECK(orbit_recvv(&result, &task) == 1 && result.scratch.count == 1);
	CHECK(orbit_recvv(&value, &task) == 0 && value.retval);
	for (const struct node *node = (struct node *)value.retval; node; node = node->next)
		CHECK(node->value == expected--);
	CHECK(expected == -1);
	CHECK(orbit_recvv_finish(&result.scratch) == 0);
	orbit_destroy_all();
}

static unsigned long send_and_die(void *store, void *arg)
{
	const struct several one = {1, 100};

	send_several(store, (void *)&one);
	(void)arg;
	abort();
}

static void an_orbit_that_dies(void)
{
	struct orbit_module *module = make(send_and_die);
	union orbit_result result;
	struct orbit_task task;
	int ret;

	begin(module, NULL, NULL, 0, &task);
	ret = orbit_recvv(&result, &task);
	if (ret == 1) {
		CHECK(holds(&result.scratch, 'a', 100));
		CHECK(orbit_recvv_finish(&result.scratch) == 0);
		ret = orbit_recvv(&result, &task);
	}
	CHECK(ret == -1 && errno == ECONNRESET);
	orbit_destroy_all();
}

/* ---- What a broken orbit may send -------------------------------------------------------------- */

enum damage {
	UNKNOWN_TYPE, /* in the second of three records */
	END_TYPE,
	LONG_UPDATE,
	LONGER_UPDATE,
	LONG_ANY,
	MANY_ARGUMENTS,
	MORE_ARGUMENTS,
	TOO_MANY_RECORDS,
	CURSOR_BEHIND,
	NOT_A_PAGE,
	NOT_IN_THE_POOL,
	NR_DAMAGES,
};

static unsigned long send_damaged(void *store, void *arg)
{
	struct orbit_scratch s;
	unsigned long argv[] = {1};
	long value = 1;
	struct orbit_repr *second;

	(void)store;
	if (orbit_scratch_create(&s))
		return 1;
	orbit_scratch_push_update(&s, &values[0], sizeof(long));
	second = (struct orbit_repr *)((char *)s.ptr + s.cursor);
	switch (*(enum damage *)arg) {
	case LONG_ANY:
		orbit_scratch_push_any(&s, &value, sizeof(value));
		break;
	case MANY_ARGUMENTS:
	case MORE_ARGUMENTS:
		orbit_scratch_push_operation(&s, note_operation, 1, argv);
		break;
	default:
		orbit_scratch_push_update(&s, &value, sizeof(value));
	}
	orbit_scratch_push_update(&s, &values[1], sizeof(long));
	switch (*(enum damage *)arg) {
	case UNKNOWN_TYPE:
		memset(&second->type, 0xff, sizeof(second->type));
		break;
	case END_TYPE:
		second->type = ORBIT_END;
		break;
	case LONG_UPDATE:
		second->update.length = PAGE;
		break;
	case LONGER_UPDATE:
		second->update.length = SIZE_MAX - 8;
		break;
	case LONG_ANY:
		second->any.length = SIZE_MAX - 8;
		break;
	case MANY_ARGUMENTS:
		second->operation.argc = PAGE / 8;
		break;
	case MORE_ARGUMENTS:
		second->operation.argc = SIZE_MAX / 8 + 2;
		break;
	case TOO_MANY_RECORDS:
		s.count = 1000;
		break;
	case CURSOR_BEHIND:
		s.cursor = SIZE_MAX - 10;
		break;
	case NOT_A_PAGE:
		s.ptr = (char *)s.ptr + 16;
		break;
	case NOT_IN_THE_POOL:
		s.ptr = (char *)s.ptr - 1024 * PAGE;
		break;
	case NR_DAMAGES:
		break;
	}
	return orbit_sendv(&s) ? (unsigned long)errno : 0;
}

static void damaged_scratches(void)
{
	struct orbit_module *module = make(send_damaged);
	union orbit_result result;
	struct orbit_task task;

	memset(values, 0, sizeof(values));
	memset(operations, 0, sizeof(operations));
	for (enum damage damage = UNKNOWN_TYPE; damage < NR_DAMAGES; damage++) {
		const unsigned long before = orbit_compat_refused();

		begin(module, NULL, &damage, sizeof(damage), &task);
		if (damage < CURSOR_BEHIND) {
			CHECK_FAILS(orbit_recvv(&result, &task), EBADMSG);
			CHECK(orbit_compat_refused() == before + 1);
		}
		CHECK(orbit_recvv(&result, &task) == 0);
		CHECK(result.retval == (damage < CURSOR_BEHIND ? 0 : EINVAL));
	}
	CHECK(values[0] == 0 && operations[0] == 0);
	CHECK(orbit_exists(module));
	orbit_destroy_all();
}

/* A scratch whose memory has been damaged after it was received. */
static void damaged_in_the_main_program(void)
{
	struct orbit_scratch s, copy;
	struct orbit_repr *record;
	long value = 0;

	CHECK(orbit_scratch_create(&s) == 0);
	for (int i = 0; i < 3; i++)
		orbit_scratch_push_update(&s, &value, sizeof(value));
	s.cursor = 0;
	record = orbit_scratch_first(&s);
	orbit_skip_one(&s, false);
	record = orbit_scratch_first(&s);
	record->update.length = SIZE_MAX;
	copy = s;
	CHECK(!orbit_scratch_first(&copy));
	CHECK(orbit_apply(&copy, false) == ORBIT_UNKNOWN && copy.count == 0);
	CHECK(orbit_apply(&copy, false) == ORBIT_END);
	copy = s;
	CHECK(!orbit_scratch_next(&copy) && copy.count == 0);
	copy = s;
	copy.cursor = copy.size_limit + 1;
	CHECK(orbit_apply_one(&copy, false) == ORBIT_UNKNOWN && copy.count == 0);
	copy = s;
	copy.cursor = 8; /* no record begins there */
	CHECK(orbit_apply_one(&copy, false) == ORBIT_UNKNOWN);
	copy = s;
	copy.ptr = NULL;
	CHECK(orbit_apply_one(&copy, false) == ORBIT_UNKNOWN);
	CHECK(value == 0);
}

static void nobody_means_the_first_page(void)
{
	struct orbit_scratch s;
	long value = 1;

	CHECK(orbit_scratch_create(&s) == 0);
	orbit_scratch_push_update(&s, &value, sizeof(value));
	orbit_scratch_push_operation(&s, note_operation, 0, NULL);
	s.cursor = 0;
	orbit_scratch_first(&s)->update.ptr = NULL;
	CHECK(orbit_apply(&s, false) == ORBIT_UNKNOWN && s.count == 1); /* passed over */
	orbit_scratch_first(&s)->operation.func = NULL;
	CHECK(orbit_apply(&s, false) == ORBIT_UNKNOWN && s.count == 0);
}

/* ---- Limits: what is declared here holds for the rest of the program. ------------------------- */

static unsigned long other_operation(size_t argc, unsigned long argv[])
{
	(void)argv;
	operations[0] += 1000 + argc;
	return 0;
}

static unsigned long send_to_limits(void *store, void *arg)
{
	struct orbit_scratch s;
	long *all = values;

	(void)store;
	(void)arg;
	if (orbit_scratch_create(&s))
		return 0;
	for (int i = 0; i < 8; i++)
		all[i] = i + 1;
	orbit_scratch_push_update(&s, &values[1], sizeof(long));     /* declared */
	orbit_scratch_push_update(&s, &values[0], sizeof(long));     /* not */
	orbit_scratch_push_update(&s, &values[2], 2 * sizeof(long)); /* in part */
	orbit_scratch_push_operation(&s, note_operation, 0, NULL);   /* declared */
	orbit_scratch_push_operation(&s, other_operation, 0, NULL);  /* not */
	orbit_scratch_push_update(&s, &values[2], sizeof(long));     /* declared */
	return orbit_sendv(&s) == 0;
}

static void limits(void)
{
	struct orbit_module *module = make(send_to_limits);
	const unsigned long before = orbit_compat_refused();
	union orbit_result result;
	struct orbit_task task;
	int refused = 0;

	CHECK_FAILS(orbit_compat_allow_operation(NULL), EINVAL);
	CHECK(orbit_compat_allow_operation(note_operation) == 0);
	CHECK(orbit_compat_allow_range(&values[1], 2 * sizeof(long)) == 0);
	memset(values, 0, sizeof(values));
	memset(operations, 0, sizeof(operations));
	begin(module, NULL, NULL, 0, &task);
	CHECK(orbit_recvv(&result, &task) == 1);
	while (orbit_apply(&result.scratch, false) == ORBIT_UNKNOWN)
		refused++;
	CHECK(refused == 3 && orbit_compat_refused() == before + 3);
	CHECK(values[0] == 0 && values[1] == 2 && values[2] == 3 && values[3] == 0);
	CHECK(operations[0] == 1);
	CHECK(orbit_recvv(&result, &task) == 0 && result.retval == 1);
	orbit_destroy_all();
}

int main(void)
{
	static const struct test tests[] = {
		TEST(records_without_an_orbit),
		TEST(a_scratch_that_is_full),
		TEST(an_open_any),
		TEST(a_scratch_is_received_and_applied),
		TEST(several_of_several_tasks),
		TEST(memory_comes_back),
		TEST(tasks_that_nobody_receives_give_memory_back),
		TEST(two_orbits_share_a_pool),
		TEST(another_pool),
		TEST(an_empty_scratch),
		TEST(a_list_in_a_scratch),
		TEST(an_orbit_that_dies),
		TEST(damaged_scratches),
		TEST(damaged_in_the_main_program),
		TEST(nobody_means_the_first_page),
		TEST(limits),
	};

	return run_tests(tests, sizeof(tests) / sizeof(*tests));
}
