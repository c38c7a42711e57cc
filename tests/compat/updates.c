/* SPDX-License-Identifier: MIT */
/*
 * The published API: single updates, committed pages, and the limits that can be set to both.
 */
#include "orbit.h"

#include "tap.h"

#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <unistd.h>

#define PAGE 4096

static long target[4];

static struct orbit_module *make(orbit_entry entry)
{
	struct orbit_module *module = orbit_create("updates", entry, NULL);

	if (!module) {
		perror("orbit_create");
		exit(1);
	}
	return module;
}

/* Send so many bytes for an address. */
static int send(void *ptr, const void *bytes, size_t length)
{
	struct orbit_update *update = (struct orbit_update *)malloc(sizeof(*update) + length);
	int ret;

	update->ptr = ptr;
	update->length = length;
	if (length)
		memcpy(update->data, bytes, length);
	ret = (int)orbit_send(update);
	free(update);
	return ret;
}

static struct orbit_update *make_buffer(void)
{
	return (struct orbit_update *)malloc(sizeof(struct orbit_update) + ORBIT_BUFFER_MAX);
}

static unsigned long send_three(void *store, void *arg)
{
	const long values[] = {11, 22, 33};
	char bytes[ORBIT_BUFFER_MAX + 1];
	int err = 0;

	(void)store;
	(void)arg;
	memset(bytes, 'x', sizeof(bytes));
	for (int i = 0; i < 3; i++)
		err |= send(&target[i], &values[i], sizeof(long));
	err |= send(NULL, bytes, 0);
	err |= send(&target[3], bytes, ORBIT_BUFFER_MAX);
	if (send(&target[3], bytes, ORBIT_BUFFER_MAX + 1) != -1 || errno != EMSGSIZE)
		err = 1;
	if (orbit_send(NULL) != -1UL || errno != EINVAL)
		err = 1;
	return err ? 1 : 5;
}

static void updates_are_received_in_order(void)
{
	struct orbit_module *module = make(send_three);
	struct orbit_update *update = make_buffer();
	struct orbit_task task;

	CHECK(orbit_call_async(module, 0, 0, NULL, NULL, NULL, 0, &task) == 0);
	for (int i = 0; i < 3; i++) {
		CHECK(orbit_recv(&task, update) == 0);
		CHECK(update->ptr == &target[i] && update->length == sizeof(long));
		CHECK(*(long *)update->data == 11 * (i + 1));
		CHECK(target[i] == 0);
		memcpy(update->ptr, update->data, update->length);
		CHECK(target[i] == 11 * (i + 1));
	}
	CHECK(orbit_recv(&task, update) == 0 && update->ptr == NULL && update->length == 0);
	CHECK(orbit_recv(&task, update) == 0 && update->length == ORBIT_BUFFER_MAX);
	CHECK(update->data[0] == 'x' && update->data[ORBIT_BUFFER_MAX - 1] == 'x');
	CHECK_FAILS(orbit_recv(&task, update), EIDRM);
	CHECK_FAILS(orbit_recv(&task, update), ESRCH);
	CHECK_FAILS(orbit_recv(&task, NULL), EINVAL);
	free(update);
	orbit_destroy_all();
}

static unsigned long send_then_wait(void *store, void *arg)
{
	long value = 1;
	char byte;

	(void)store;
	return (unsigned long)(send(target, &value, sizeof(value)) == 0 &&
			       read(*(int *)arg, &byte, 1) == 1 &&
			       send(target, &value, sizeof(value)) == 0);
}

static void an_update_comes_as_it_is_sent(void)
{
	struct orbit_module *module;
	struct orbit_update *update = make_buffer();
	union orbit_result result;
	struct orbit_task task;
	int fds[2];

	CHECK(pipe(fds) == 0);
	module = make(send_then_wait);
	CHECK(orbit_call_async(module, 0, 0, NULL, NULL, &fds[0], sizeof(int), &task) == 0);
	CHECK(orbit_recv(&task, update) == 0);
	CHECK(write(fds[1], "x", 1) == 1);
	/* The other function leaves it where it is. */
	CHECK_FAILS(orbit_recvv(&result, &task), EPROTO);
	CHECK_FAILS(orbit_recvv(&result, &task), EPROTO);
	CHECK(orbit_recv(&task, update) == 0);
	CHECK(orbit_recvv(&result, &task) == 0 && result.retval == 1);
	free(update);
	orbit_destroy_all();
	close(fds[0]);
	close(fds[1]);
}

static unsigned long send_and_die(void *store, void *arg)
{
	long value = 1;

	(void)store;
	(void)arg;
	send(target, &value, sizeof(value));
	_exit(3);
}

static void an_orbit_that_dies(void)
{
	struct orbit_module *module = make(send_and_die);
	struct orbit_update *update = make_buffer();
	struct orbit_task task;
	int received = 0;

	CHECK(orbit_call_async(module, 0, 0, NULL, NULL, NULL, 0, &task) == 0);
	while (!orbit_recv(&task, update))
		received++;
	CHECK(errno == ECONNRESET && received <= 1);
	free(update);
	orbit_destroy_all();
}

static unsigned long send_in_vain(void *store, void *arg)
{
	struct orbit_scratch scratch = {NULL, 0, 0, 0, NULL};
	long value = 1;

	(void)store;
	(void)arg;
	return (unsigned long)(send(target, &value, sizeof(value)) == -1 && errno == EPIPE &&
			       orbit_sendv(&scratch) == -1 && errno == EPIPE &&
			       orbit_scratch_create(&scratch) == -1 && errno == ENXIO);
}

static void whom_nobody_listens_to(void)
{
	struct orbit_module *module = make(send_in_vain);

	CHECK(orbit_call(module, 0, NULL, NULL, NULL, 0) == 1);
	CHECK(orbit_call_async(module, 0, 0, NULL, NULL, NULL, 0, NULL) == 0);
	CHECK(orbit_call(module, 0, NULL, NULL, NULL, 0) == 1);
	orbit_destroy_all();
}

/* ---- Commit -------------------------------------------------------------------------- */

struct commit {
	char *bytes; /* pages 0 and 2 of these are written */
	char *other; /* and this one */
	char value;
	int wait; /* for a byte from here first; -1 for none */
};

static unsigned long write_and_commit(void *store, void *arg)
{
	const struct commit *commit = (const struct commit *)arg;
	char byte;

	(void)store;
	if (commit->wait >= 0 && read(commit->wait, &byte, 1) != 1)
		return 1;
	commit->bytes[0] = commit->value;
	commit->bytes[2 * PAGE + 5] = commit->value;
	if (commit->other)
		commit->other[7] = commit->value;
	if (orbit_commit())
		return 2;
	commit->bytes[1] = 'n'; /* not committed */
	return 0;
}

static void committed_pages_are_put_in_place(void)
{
	struct orbit_pool *pool = orbit_pool_create(NULL, 4 * PAGE), *other = orbit_pool_create(NULL, PAGE);
	struct orbit_pool *unseen = orbit_pool_create(NULL, PAGE), *both[] = {pool, other};
	struct orbit_module *module = make(write_and_commit);
	struct commit commit = {(char *)pool->rawptr, (char *)other->rawptr, 'a', -1};
	union orbit_result result;
	struct orbit_task task;

	(void)unseen;
	memset(pool->rawptr, 'm', pool->length);
	CHECK(orbit_call(module, 2, both, NULL, &commit, sizeof(commit)) == 0);
	CHECK(commit.bytes[0] == 'a' && commit.bytes[1] == 'm' && commit.bytes[2 * PAGE + 5] == 'a');
	CHECK(commit.bytes[PAGE] == 'm' && commit.other[7] == 'a');

	commit.value = 'b';
	CHECK(orbit_call_async(module, 0, 2, both, NULL, &commit, sizeof(commit), &task) == 0);
	sleep_ms(20);
	CHECK(commit.bytes[0] == 'a');
	CHECK(orbit_recvv(&result, &task) == 0 && result.retval == 0);
	CHECK(commit.bytes[0] == 'b' && commit.other[7] == 'b' && commit.bytes[1] == 'm');

	/* Nobody receives from that one: the library does. */
	commit.value = 'c';
	CHECK(orbit_call_async(module, 0, 2, both, NULL, &commit, sizeof(commit), NULL) == 0);
	for (int i = 0; i < 1000 && *(volatile char *)&commit.other[7] != 'c'; i++)
		sleep_ms(10);
	CHECK(commit.bytes[0] == 'c' && commit.other[7] == 'c' && commit.bytes[1] == 'm');
	CHECK(orbit_call(module, 2, both, NULL, &commit, sizeof(commit)) == 0);
	CHECK(orbit_exists(module));

	/* Pools that are made later are committed too. */
	for (int i = 0; i < 3; i++) {
		struct orbit_pool *later = orbit_pool_create(NULL, PAGE), *with_it[] = {later, pool};

		commit.other = (char *)later->rawptr;
		commit.value = (char)('p' + i);
		CHECK(orbit_call(module, 2, with_it, NULL, &commit, sizeof(commit)) == 0);
		CHECK(commit.other[7] == 'p' + i && commit.bytes[0] == 'p' + i);
	}
	orbit_destroy_all();
}

static void what_main_has_written_since_stays(void)
{
	struct orbit_pool *pool = orbit_pool_create(NULL, 4 * PAGE);
	struct orbit_module *module;
	struct commit commit = {(char *)pool->rawptr, NULL, 'c', -1};
	union orbit_result result;
	struct orbit_task task;
	int fds[2];

	CHECK(pipe(fds) == 0);
	module = make(write_and_commit);
	memset(pool->rawptr, 'm', pool->length);
	commit.wait = fds[0];
	CHECK(orbit_call_async(module, 0, 1, &pool, NULL, &commit, sizeof(commit), &task) == 0);
	commit.bytes[10] = 'w';
	CHECK(write(fds[1], "x", 1) == 1);
	CHECK_FAILS(orbit_recvv(&result, &task), EBUSY);
	CHECK(commit.bytes[0] == 'm' && commit.bytes[10] == 'w');
	CHECK(commit.bytes[2 * PAGE + 5] == 'c');
	CHECK(orbit_recvv(&result, &task) == 0 && result.retval == 0);
	orbit_destroy_all();
	close(fds[0]);
	close(fds[1]);
}

/* ---- Limits: what is declared here holds for the rest of the program. ------------------- */

static unsigned long send_two(void *store, void *arg)
{
	const long value = 9;

	(void)store;
	(void)arg;
	return (unsigned long)(send(&target[0], &value, sizeof(value)) == 0 &&
			       send(&target[3], &value, sizeof(value)) == 0);
}

static void only_declared_memory_is_changed(void)
{
	struct orbit_pool *pool = orbit_pool_create(NULL, 4 * PAGE);
	struct orbit_pool *free_pool = orbit_pool_create(NULL, 4 * PAGE);
	struct orbit_module *module = make(write_and_commit);
	struct commit commit = {(char *)pool->rawptr, NULL, 'd', -1};
	struct orbit_update *update = make_buffer();
	const unsigned long before = orbit_compat_refused();
	struct orbit_task task;

	CHECK_FAILS(orbit_compat_allow_range(target, 0), EINVAL);
	CHECK_FAILS(orbit_compat_allow_range(target, SIZE_MAX), EINVAL);
	CHECK(orbit_call(module, 1, &pool, NULL, &commit, sizeof(commit)) == 0); /* still all */
	CHECK(commit.bytes[0] == 'd');
	CHECK(orbit_compat_allow_range(&target[2], 2 * sizeof(long)) == 0);
	CHECK_FAILS(orbit_compat_allow_range(&target[3], 1), EEXIST);
	CHECK(orbit_compat_allow_range(free_pool->rawptr, free_pool->length) == 0);

	commit.value = 'e';
	CHECK_FAILS(orbit_call(module, 1, &pool, NULL, &commit, sizeof(commit)), EACCES);
	CHECK(commit.bytes[0] == 'd' && commit.bytes[2 * PAGE + 5] == 'd');
	commit.bytes = (char *)free_pool->rawptr;
	CHECK(orbit_call(module, 1, &free_pool, NULL, &commit, sizeof(commit)) == 0);
	CHECK(commit.bytes[0] == 'e');

	CHECK(orbit_call_async(module, 0, 0, NULL, send_two, NULL, 0, &task) == 0);
	CHECK_FAILS(orbit_recv(&task, update), EACCES);
	CHECK(orbit_recv(&task, update) == 0 && update->ptr == &target[3]);
	CHECK_FAILS(orbit_recv(&task, update), EIDRM);
	CHECK(orbit_compat_refused() == before + 2);
	free(update);
	orbit_destroy_all();
}

int main(void)
{
	static const struct test tests[] = {
		TEST(updates_are_received_in_order),
		TEST(an_update_comes_as_it_is_sent),
		TEST(an_orbit_that_dies),
		TEST(whom_nobody_listens_to),
		TEST(committed_pages_are_put_in_place),
		TEST(what_main_has_written_since_stays),
		TEST(only_declared_memory_is_changed),
	};

	return run_tests(tests, sizeof(tests) / sizeof(*tests));
}
