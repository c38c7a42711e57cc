/* SPDX-License-Identifier: MIT */
/*
 * The published API: orbits, pools, calls, cancelling.
 */
#include "orbit.h"

#include "tap.h"

#include <dirent.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

/* Values that programs may have been compiled with, or written down. */
_Static_assert(ORBIT_NORETVAL == 2 && ORBIT_CANCELLABLE == 4 && ORBIT_SKIP_SAME_ARG == 8, "flags");
_Static_assert(ORBIT_SKIP_ANY == 16 && ORBIT_CANCEL_SAME_ARG == 32 && ORBIT_CANCEL_ANY == 64, "flags");
_Static_assert(ORBIT_COW == 0 && ORBIT_MOVE == 1 && ORBIT_COPY == 2, "modes");
_Static_assert(ORBIT_END == 0 && ORBIT_UNKNOWN == 1 && ORBIT_ANY == 2 && ORBIT_UPDATE == 3 &&
		       ORBIT_OPERATION == 4,
	       "types of records");

struct pair {
	long a, b;
};

/* What an orbit keeps for itself. */
struct counter {
	unsigned long calls;
};

static long global = 5;

static void *make_counter(void)
{
	struct counter *counter = (struct counter *)malloc(sizeof(*counter));

	counter->calls = is_orbit_context() ? 100 : 999;
	return counter;
}

static unsigned long count(void *store, void *arg)
{
	(void)arg;
	return ++((struct counter *)store)->calls;
}

static unsigned long add(void *store, void *arg)
{
	const struct pair *pair = (const struct pair *)arg;

	(void)store;
	return (unsigned long)(pair->a + pair->b);
}

static unsigned long multiply(void *store, void *arg)
{
	const struct pair *pair = (const struct pair *)arg;

	(void)store;
	return (unsigned long)(pair->a * pair->b);
}

static unsigned long is_there_a_store(void *store, void *arg)
{
	(void)arg;
	return store != NULL;
}

static unsigned long crash(void *store, void *arg)
{
	(void)store;
	(void)arg;
	raise(SIGSEGV);
	return 0;
}

static struct orbit_module *make(orbit_entry entry, void *(*init)(void))
{
	struct orbit_module *module = orbit_create("test", entry, init);

	if (!module) {
		perror("orbit_create");
		exit(1);
	}
	return module;
}

static int open_fds(void)
{
	DIR *dir = opendir("/proc/self/fd");
	int count = 0;

	while (readdir(dir))
		count++;
	closedir(dir);
	return count;
}

/* The library's own thread opens and closes some in passing. */
static int has_open_fds_at_most(int most)
{
	for (int tries = 0; tries < 200; tries++) {
		if (open_fds() <= most)
			return 1;
		usleep(10000);
	}
	return 0;
}

static void a_module_says_what_it_is(void)
{
	struct orbit_module *first = orbit_create("a name that is longer than thirty-one bytes", add, NULL);
	struct orbit_module *second = orbit_create(NULL, NULL, NULL);

	CHECK(first && second);
	CHECK(first->mpid == getpid() && first->gobid > 0 && first->lobid > 0);
	CHECK(second->lobid == first->lobid + 1 && second->gobid != first->gobid);
	CHECK(first->entry_func == add);
	CHECK(strcmp(first->name, "a name that is longer than thir") == 0);
	CHECK(orbit_exists(first) && !orbit_gone(first));
	CHECK(kill(first->gobid, 0) == 0);
	CHECK(!is_orbit_context());
	CHECK(orbit_destroy(first->gobid) == 0);
	CHECK(!orbit_exists(first) && orbit_gone(first));
	CHECK(orbit_exists(second));
	CHECK_FAILS(orbit_destroy(first->gobid), ESRCH);
	CHECK_FAILS(orbit_destroy(-1), ESRCH);
	CHECK_FAILS(orbit_call(second, 0, NULL, NULL, NULL, 0), EINVAL); /* it has no entry */
	CHECK(orbit_destroy_all() == 0);
	CHECK(orbit_gone(second));
	CHECK(orbit_destroy_all() == 0);
	CHECK(!orbit_exists(NULL) && orbit_gone(NULL));
}

static void the_entry_and_other_functions(void)
{
	struct orbit_module *module = make(add, NULL);
	struct pair pair = {40, 2};

	CHECK(orbit_call(module, 0, NULL, NULL, &pair, sizeof(pair)) == 42);
	CHECK(orbit_call(module, 0, NULL, add, &pair, sizeof(pair)) == 42);
	CHECK(orbit_call(module, 0, NULL, is_there_a_store, NULL, 0) == 0);
	pair.b = -41;
	errno = 7;
	CHECK(orbit_call(module, 0, NULL, NULL, &pair, sizeof(pair)) == -1 && errno == 0);
	orbit_destroy(module->gobid);
}

static void init_makes_the_store(void)
{
	struct orbit_module *module = make(count, make_counter);

	for (long i = 1; i <= 10; i++)
		CHECK(orbit_call(module, 0, NULL, NULL, NULL, 0) == 100 + i);
	orbit_destroy(module->gobid);
}

static void *init_that_crashes(void)
{
	abort();
}

static int *seen_by_init;

static void *look_at_pool(void)
{
	int *copy = (int *)malloc(sizeof(int));

	*copy = *seen_by_init;
	return copy;
}

static unsigned long return_store(void *store, void *arg)
{
	(void)arg;
	return (unsigned long)*(int *)store;
}

static void init_sees_the_pools(void)
{
	struct orbit_pool *pool = orbit_pool_create(NULL, 100);

	seen_by_init = (int *)pool->rawptr;
	*seen_by_init = 77;

	struct orbit_module *module = make(return_store, look_at_pool);

	*seen_by_init = 78;
	CHECK(orbit_call(module, 0, NULL, NULL, NULL, 0) == 77);
	orbit_destroy(module->gobid);
	CHECK(!orbit_create("bad", add, init_that_crashes) && errno == ECONNRESET);
}

static unsigned long sum_of_ints(void *store, void *arg)
{
	const struct {
		int *ints;
		size_t count;
	} *args = arg;
	unsigned long sum = 0;

	(void)store;
	for (size_t i = 0; i < args->count; i++) {
		sum += (unsigned long)args->ints[i];
		args->ints[i] = -1;
	}
	return sum;
}

static void pools_are_seen_as_of_the_call(void)
{
	struct orbit_module *module = make(sum_of_ints, NULL);
	const enum orbit_pool_mode modes[] = {ORBIT_COW, ORBIT_COPY, ORBIT_MOVE};
	struct orbit_pool *pools[4];
	struct {
		int *ints;
		size_t count;
	} args;

	for (int i = 0; i < 4; i++)
		pools[i] = i % 2 ? orbit_pool_create(module, 3 * 4096 - 5) :
				   orbit_pool_create_at(NULL, 3 * 4096 - 5, (void *)0x820000000UL);
	CHECK(pools[0]->length == 3 * 4096 && pools[0]->used == 0 && pools[0]->mode == ORBIT_COW);
	for (int m = 0; m < 3; m++) {
		struct orbit_pool *pool = pools[m];

		pool->mode = modes[m];
		args.ints = (int *)pool->rawptr;
		args.count = pool->length / sizeof(int);
		for (int round = 1; round < 4; round++) {
			struct orbit_pool *named[] = {pools[3], pool, pool, pools[0]};

			for (size_t i = 0; i < args.count; i++)
				args.ints[i] = round;
			CHECK(orbit_call(module, 4, named, NULL, &args, sizeof(args)) ==
			      round * (long)args.count);
			for (size_t i = 0; i < args.count; i++)
				if (args.ints[i] != (modes[m] == ORBIT_MOVE ? 0 : round)) {
					CHECK(!"the pool has changed");
					break;
				}
		}
	}
	CHECK_FAILS(orbit_call(module, 1, NULL, NULL, &args, sizeof(args)), EINVAL);

	struct orbit_pool *none[] = {NULL};

	CHECK_FAILS(orbit_call(module, 1, none, NULL, &args, sizeof(args)), EINVAL);
	orbit_destroy_all();
	CHECK(!orbit_pool_create(NULL, 0) && errno == EINVAL);
	CHECK(!orbit_pool_create(NULL, SIZE_MAX) && errno);
}

static void errors_of_calls(void)
{
	struct orbit_module *module = make(add, NULL), other = *module;
	static char bytes[65536];
	struct orbit_task task;
	struct pair pair = {1, 2};

	CHECK_FAILS(orbit_call(NULL, 0, NULL, NULL, &pair, sizeof(pair)), EINVAL);
	CHECK_FAILS(orbit_call(&other, 0, NULL, NULL, &pair, sizeof(pair)), EINVAL);
	CHECK_FAILS(orbit_call(module, 0, NULL, NULL, NULL, 5), EINVAL);
	CHECK_FAILS(orbit_call(module, 0, NULL, NULL, bytes, 65537), E2BIG);
	CHECK(orbit_call(module, 0, NULL, NULL, bytes, 65536) == 0);
	CHECK_FAILS(orbit_call_async(module, 1, 0, NULL, NULL, &pair, sizeof(pair), &task), EINVAL);
	CHECK_FAILS(orbit_call_async(module, 1 << 7, 0, NULL, NULL, &pair, sizeof(pair), &task), EINVAL);
	CHECK_FAILS(orbit_call_async(module, ORBIT_SKIP_ANY | ORBIT_CANCEL_ANY, 0, NULL, NULL, &pair,
				     sizeof(pair), &task),
		    EINVAL);
	orbit_destroy(module->gobid);
	CHECK_FAILS(orbit_call(module, 0, NULL, NULL, &pair, sizeof(pair)), ESHUTDOWN);
	CHECK_FAILS(orbit_call_async(module, 0, 0, NULL, NULL, &pair, sizeof(pair), &task), ESHUTDOWN);
}

static void asynchronous_calls(void)
{
	struct orbit_module *module = make(count, make_counter);
	struct orbit_task tasks[20];
	union orbit_result result;
	struct orbit_task wrong = {module, 12345};

	for (int i = 0; i < 20; i++) {
		CHECK(orbit_call_async(module, 0, 0, NULL, NULL, NULL, 0, &tasks[i]) == 0);
		CHECK(tasks[i].orbit == module && tasks[i].taskid > 0);
		CHECK(i == 0 || tasks[i].taskid > tasks[i - 1].taskid);
	}
	for (int i = 19; i >= 0; i--) {
		CHECK(orbit_recvv(&result, &tasks[i]) == 0);
		CHECK(result.retval == 101 + (unsigned long)i);
		CHECK_FAILS(orbit_recvv(&result, &tasks[i]), ESRCH);
	}
	CHECK_FAILS(orbit_recvv(&result, &wrong), ESRCH);
	CHECK_FAILS(orbit_recvv(&result, NULL), EINVAL);
	CHECK_FAILS(orbit_recvv(NULL, &wrong), EINVAL);
	wrong.orbit = NULL;
	CHECK_FAILS(orbit_recvv(&result, &wrong), EINVAL);

	/* Nobody asks for these. */
	const int before = open_fds();

	for (int i = 0; i < 200; i++) {
		CHECK(orbit_call_async(module, ORBIT_NORETVAL, 0, NULL, NULL, NULL, 0, NULL) == 0);
		CHECK(orbit_call_async(module, ORBIT_NORETVAL, 0, NULL, NULL, NULL, 0, tasks) == 0);
		CHECK(orbit_call_async(module, ORBIT_CANCELLABLE, 0, NULL, NULL, NULL, 0, NULL) == 0);
		if (i % 20 == 19)
			CHECK(orbit_call(module, 0, NULL, NULL, NULL, 0) > 0);
	}
	CHECK(orbit_call(module, 0, NULL, NULL, NULL, 0) == 120 + 600 + 11);
	CHECK(orbit_call(module, 0, NULL, NULL, NULL, 0) == 120 + 600 + 12);
	CHECK(has_open_fds_at_most(before + 1));

	CHECK(orbit_call_async(module, ORBIT_NORETVAL, 0, NULL, NULL, NULL, 0, tasks) == 0);
	CHECK(orbit_recvv(&result, tasks) == 0 && result.retval == 0);
	orbit_destroy_all();
}

/* A task that runs until it is let go, for tasks to wait behind it. */
struct blocked {
	struct orbit_module *module;
	int pipe[2];
	struct orbit_task task;
};

static unsigned long block_orbit(void *store, void *arg)
{
	const int *pipes = (const int *)arg;
	char byte = 'r';

	(void)store;
	return write(pipes[1], &byte, 1) == 1 && read(pipes[0], &byte, 1) == 1;
}

static void block(struct blocked *blocked)
{
	int runs[2], args[2];
	char byte;

	CHECK(pipe(blocked->pipe) == 0 && pipe(runs) == 0);
	args[0] = blocked->pipe[0];
	args[1] = runs[1];
	blocked->module = make(add, NULL);
	CHECK(orbit_call_async(blocked->module, 0, 0, NULL, block_orbit, args, sizeof(args),
			       &blocked->task) == 0);
	CHECK(read(runs[0], &byte, 1) == 1);
	close(runs[0]);
	close(runs[1]);
}

static void let_go(struct blocked *blocked)
{
	union orbit_result result;

	CHECK(orbit_recvv(&result, &blocked->task) == 0 && result.retval == 1);
	orbit_destroy(blocked->module->gobid);
	close(blocked->pipe[0]);
	close(blocked->pipe[1]);
}

static void an_orbit_that_dies(void)
{
	struct pair pair = {1, 2};
	struct orbit_module *module;
	struct blocked blocked;
	union orbit_result result;
	struct orbit_task task, later;

	block(&blocked); /* until both are queued */
	module = blocked.module;
	CHECK(orbit_call_async(module, 0, 0, NULL, crash, NULL, 0, &task) == 0);
	CHECK(orbit_call_async(module, 0, 0, NULL, NULL, &pair, sizeof(pair), &later) == 0);
	CHECK(write(blocked.pipe[1], "x", 1) == 1);
	CHECK(orbit_recvv(&result, &blocked.task) == 0 && result.retval == 1);
	CHECK_FAILS(orbit_recvv(&result, &task), ECONNRESET);
	CHECK_FAILS(orbit_recvv(&result, &task), ESRCH);
	CHECK_FAILS(orbit_recvv(&result, &later), ECANCELED);
	CHECK(orbit_gone(module) && !orbit_exists(module));
	CHECK_FAILS(orbit_call(module, 0, NULL, NULL, &pair, sizeof(pair)), ESHUTDOWN);
	CHECK(orbit_destroy(module->gobid) == 0);
	close(blocked.pipe[0]);
	close(blocked.pipe[1]);
	module = make(add, NULL);
	CHECK(orbit_call(module, 0, NULL, NULL, &pair, sizeof(pair)) == 3);
	CHECK_FAILS(orbit_call(module, 0, NULL, crash, NULL, 0), ECONNRESET);
	orbit_destroy_all();
}

static void cancelling_by_task(void)
{
	struct pair pair = {1, 2};
	struct blocked blocked;
	struct orbit_task stays, goes;
	union orbit_result result;

	block(&blocked);
	CHECK(orbit_call_async(blocked.module, 0, 0, NULL, NULL, &pair, sizeof(pair), &stays) == 0);
	CHECK(orbit_call_async(blocked.module, ORBIT_CANCELLABLE, 0, NULL, NULL, &pair, sizeof(pair),
			       &goes) == 0);
	CHECK(orbit_cancel_by_task(&stays) == 0);
	CHECK(orbit_cancel_by_task(&goes) == 1);
	CHECK(orbit_cancel_by_task(&goes) == 0);
	CHECK_FAILS(orbit_recvv(&result, &goes), ECANCELED);
	CHECK(orbit_cancel_by_task(&goes) == 0);
	CHECK(orbit_cancel_by_task(&blocked.task) == 0);
	CHECK_FAILS(orbit_cancel_by_task(NULL), EINVAL);
	CHECK(write(blocked.pipe[1], "x", 1) == 1);
	CHECK(orbit_recvv(&result, &stays) == 0 && result.retval == 3);
	let_go(&blocked);
}

static void cancelling_by_argument(void)
{
	struct pair pair = {1, 2}, other = {1, 3};
	struct blocked blocked;
	struct orbit_task tasks[4];
	union orbit_result result;

	block(&blocked);
	CHECK(orbit_call_async(blocked.module, 0, 0, NULL, NULL, &pair, sizeof(pair), &tasks[0]) == 0);
	for (int i = 1; i < 4; i++)
		CHECK(orbit_call_async(blocked.module, ORBIT_CANCELLABLE, 0, NULL, i == 1 ? add : NULL,
				       i == 3 ? &other : &pair, sizeof(pair), &tasks[i]) == 0);
	CHECK(orbit_cancel_by_arg(blocked.module, &pair, sizeof(pair)) == 1); /* the first */
	CHECK_FAILS(orbit_recvv(&result, &tasks[1]), ECANCELED);
	CHECK(orbit_cancel_by_arg(blocked.module, &pair, sizeof(pair)) == 1);
	CHECK_FAILS(orbit_recvv(&result, &tasks[2]), ECANCELED);
	CHECK(orbit_cancel_by_arg(blocked.module, &pair, sizeof(pair)) == 0);
	CHECK(orbit_cancel_by_arg(blocked.module, &pair, sizeof(pair) - 1) == 0);
	CHECK(orbit_cancel_by_arg(blocked.module, NULL, 0) == 0);
	CHECK_FAILS(orbit_cancel_by_arg(NULL, &pair, sizeof(pair)), EINVAL);
	CHECK_FAILS(orbit_cancel_by_arg(blocked.module, NULL, 1), EINVAL);
	CHECK(write(blocked.pipe[1], "x", 1) == 1);
	CHECK(orbit_recvv(&result, &tasks[0]) == 0 && result.retval == 3);
	CHECK(orbit_recvv(&result, &tasks[3]) == 0 && result.retval == 4);
	let_go(&blocked);
}

static void skipping(void)
{
	struct pair pair = {1, 2}, other = {1, 3}, third = {1, 4};
	struct blocked blocked;
	struct orbit_task waits, skipped = {NULL, 5}, runs;
	union orbit_result result;

	block(&blocked);
	CHECK(orbit_call_async(blocked.module, 0, 0, NULL, NULL, &pair, sizeof(pair), &waits) == 0);
	CHECK(orbit_call_async(blocked.module, ORBIT_SKIP_SAME_ARG, 0, NULL, NULL, &pair, sizeof(pair),
			       &skipped) == 0);
	CHECK(skipped.taskid == 0 && skipped.orbit == blocked.module);
	CHECK_FAILS(orbit_recvv(&result, &skipped), ESRCH);
	CHECK(orbit_call_async(blocked.module, ORBIT_SKIP_SAME_ARG, 0, NULL, NULL, &other, sizeof(pair),
			       &runs) == 0);
	CHECK(runs.taskid > waits.taskid);
	/* Bytes are all that counts: not the function, and not what can be received. */
	CHECK(orbit_call_async(blocked.module, ORBIT_SKIP_SAME_ARG, 0, NULL, multiply, &pair,
			       sizeof(pair), &skipped) == 0);
	CHECK(skipped.taskid == 0);
	CHECK(orbit_call_async(blocked.module, 0, 0, NULL, NULL, &third, sizeof(third), NULL) == 0);
	CHECK(orbit_call_async(blocked.module, ORBIT_SKIP_SAME_ARG, 0, NULL, add, &third, sizeof(third),
			       &skipped) == 0);
	CHECK(skipped.taskid == 0);
	CHECK(orbit_call_async(blocked.module, ORBIT_SKIP_ANY, 0, NULL, NULL, &other, sizeof(pair),
			       &skipped) == 0);
	CHECK(skipped.taskid == 0);
	CHECK(write(blocked.pipe[1], "x", 1) == 1);
	CHECK(orbit_recvv(&result, &waits) == 0 && result.retval == 3);
	CHECK(orbit_recvv(&result, &runs) == 0 && result.retval == 4);
	CHECK(orbit_call(blocked.module, 0, NULL, NULL, &pair, sizeof(pair)) == 3); /* nothing waits */
	CHECK(orbit_call_async(blocked.module, ORBIT_SKIP_ANY, 0, NULL, NULL, &other, sizeof(pair), &runs) ==
	      0);
	CHECK(orbit_recvv(&result, &runs) == 0 && result.retval == 4);
	let_go(&blocked);
}

static void replacing(void)
{
	struct pair pair = {1, 2}, other = {1, 3};
	struct blocked blocked;
	struct orbit_task tasks[5];
	union orbit_result result;

	block(&blocked);
	CHECK(orbit_call_async(blocked.module, 0, 0, NULL, NULL, &pair, sizeof(pair), &tasks[0]) == 0);
	CHECK(orbit_call_async(blocked.module, ORBIT_CANCELLABLE, 0, NULL, NULL, &pair, sizeof(pair),
			       &tasks[1]) == 0);
	CHECK(orbit_call_async(blocked.module, ORBIT_CANCELLABLE, 0, NULL, NULL, &other, sizeof(pair),
			       &tasks[2]) == 0);
	CHECK(orbit_call_async(blocked.module, ORBIT_CANCELLABLE | ORBIT_CANCEL_SAME_ARG, 0, NULL, NULL,
			       &pair, sizeof(pair), &tasks[3]) == 0);
	CHECK_FAILS(orbit_recvv(&result, &tasks[1]), ECANCELED);
	/* By another function with the same bytes. */
	CHECK(orbit_call_async(blocked.module, ORBIT_CANCELLABLE | ORBIT_CANCEL_SAME_ARG, 0, NULL, multiply,
			       &other, sizeof(other), &tasks[1]) == 0);
	CHECK_FAILS(orbit_recvv(&result, &tasks[2]), ECANCELED);
	tasks[2] = tasks[1];
	CHECK(orbit_call_async(blocked.module, ORBIT_CANCEL_ANY, 0, NULL, NULL, &pair, sizeof(pair),
			       &tasks[4]) == 0);
	CHECK_FAILS(orbit_recvv(&result, &tasks[2]), ECANCELED);
	CHECK_FAILS(orbit_recvv(&result, &tasks[3]), ECANCELED);
	CHECK(write(blocked.pipe[1], "x", 1) == 1);
	CHECK(orbit_recvv(&result, &tasks[0]) == 0 && result.retval == 3);
	CHECK(orbit_recvv(&result, &tasks[4]) == 0 && result.retval == 3);
	let_go(&blocked);
}

static void destroying_ends_what_is_under_way(void)
{
	struct pair pair = {1, 2};
	struct blocked blocked;
	struct orbit_task waits;
	union orbit_result result;

	block(&blocked);
	CHECK(orbit_call_async(blocked.module, 0, 0, NULL, NULL, &pair, sizeof(pair), &waits) == 0);
	CHECK(orbit_destroy(blocked.module->gobid) == 0);
	CHECK(orbit_recvv(&result, &blocked.task) == -1 && (errno == ECONNRESET || errno == ECANCELED));
	CHECK_FAILS(orbit_recvv(&result, &waits), ECANCELED);
	close(blocked.pipe[0]);
	close(blocked.pipe[1]);
}

static unsigned long try_everything(void *store, void *arg)
{
	struct orbit_module *module = *(struct orbit_module **)arg;
	struct orbit_task task = {module, 1};
	union orbit_result result;
	struct orbit_scratch scratch;
	unsigned long wrong = 0;

	(void)store;
	wrong += !is_orbit_context();
	wrong += orbit_create("inner", add, NULL) != NULL || errno != EPERM;
	wrong += orbit_pool_create(NULL, 4096) != NULL || errno != EPERM;
	wrong += orbit_call(module, 0, NULL, add, NULL, 0) != -1 || errno != EPERM;
	wrong += orbit_call_async(module, 0, 0, NULL, add, NULL, 0, NULL) != -1 || errno != EPERM;
	wrong += orbit_recvv(&result, &task) != -1 || errno != EPERM;
	wrong += orbit_cancel_by_task(&task) != -1 || errno != EPERM;
	wrong += orbit_cancel_by_arg(module, NULL, 0) != -1 || errno != EPERM;
	wrong += orbit_destroy(module->gobid) != -1 || errno != EPERM;
	wrong += orbit_destroy_all() != -1 || errno != EPERM;
	wrong += orbit_scratch_set_pool(NULL) != -1 || errno != EPERM;
	wrong += orbit_scratch_create(&scratch) != -1 || errno != ENXIO;
	wrong += orbit_compat_allow_range(store, 1) != -1 || errno != EPERM;
	wrong += orbit_compat_allow_operation(NULL) != -1 || errno != EPERM;
	return wrong;
}

static void an_orbit_is_no_main_program(void)
{
	struct orbit_module *module = make(try_everything, NULL);

	CHECK(orbit_call(module, 0, NULL, NULL, &module, sizeof(module)) == 0);
	CHECK(orbit_exists(module));
	CHECK_FAILS(orbit_commit(), EPERM);
	CHECK_FAILS(orbit_send(&(struct orbit_update){NULL, 0}), EPERM);
	orbit_destroy_all();
}

static unsigned long count_fds(void *store, void *arg)
{
	const int *fds = (const int *)arg;

	(void)store;
	return (unsigned long)((fcntl(fds[0], F_GETFD) >= 0) + 10 * (fcntl(fds[1], F_GETFD) >= 0) +
			       100 * (fcntl(1, F_GETFD) >= 0));
}

/* What it inherits are handles, and no memory of pools. */
static void a_forked_child_is_none_either(void)
{
	struct orbit_module *module = make(add, NULL);
	struct pair pair = {1, 2};
	int status = -1;
	const pid_t child = fork();

	if (!child) {
		int wrong = orbit_call(module, 0, NULL, NULL, &pair, sizeof(pair)) != -1 || errno != EPERM;

		wrong += orbit_call_async(module, 0, 0, NULL, NULL, &pair, sizeof(pair), NULL) != -1 ||
			 errno != EPERM;
		_exit(wrong);
	}
	CHECK(waitpid(child, &status, 0) == child && status == 0);
	CHECK(orbit_call(module, 0, NULL, NULL, &pair, sizeof(pair)) == 3);
	orbit_destroy(module->gobid);
}

static void descriptors_that_exec_would_keep(void)
{
	int fds[2] = {open("/dev/null", O_RDONLY), open("/dev/null", O_RDONLY | O_CLOEXEC)};
	struct orbit_module *module = make(count_fds, NULL);

	CHECK(orbit_call(module, 0, NULL, NULL, fds, sizeof(fds)) == 101);
	orbit_destroy_all();
	close(fds[0]);
	close(fds[1]);
}

/* An orbit's process is a copy: what it changes is its own. */
static unsigned long change_global(void *store, void *arg)
{
	(void)store;
	(void)arg;
	return (unsigned long)++global;
}

static void what_an_orbit_changes_is_its_own(void)
{
	struct orbit_module *module = make(change_global, NULL);

	CHECK(orbit_call(module, 0, NULL, NULL, NULL, 0) == 6);
	CHECK(orbit_call(module, 0, NULL, NULL, NULL, 0) == 7);
	CHECK(global == 5);
	orbit_destroy_all();
}

static struct orbit_module *shared_module;

static void *call_in_a_thread(void *arg)
{
	long wrong = 0;

	for (long i = 0; i < 100; i++) {
		struct pair pair = {i, (long)(intptr_t)arg};
		struct orbit_task task;
		union orbit_result result;

		wrong += orbit_call(shared_module, 0, NULL, NULL, &pair, sizeof(pair)) != pair.a + pair.b;
		wrong += orbit_call_async(shared_module, 0, 0, NULL, multiply, &pair, sizeof(pair), &task) != 0;
		wrong += orbit_recvv(&result, &task) != 0 ||
			 result.retval != (unsigned long)(pair.a * pair.b);
	}
	return (void *)wrong;
}

static void threads(void)
{
	pthread_t thread[4];

	shared_module = make(add, NULL);
	for (intptr_t i = 0; i < 4; i++)
		CHECK(pthread_create(&thread[i], NULL, call_in_a_thread, (void *)i) == 0);
	for (int i = 0; i < 4; i++) {
		void *wrong;

		pthread_join(thread[i], &wrong);
		CHECK(!wrong);
	}
	orbit_destroy_all();
}

struct node {
	struct node *next;
	int value;
};

static struct orbit_allocator *list_alloc;
static int stop;

/* A list that changes all the time; in each snapshot its allocator is at rest. */
static void *allocate_and_free(void *arg)
{
	(void)arg;
	while (!__atomic_load_n(&stop, __ATOMIC_RELAXED)) {
		void *pieces[8];

		for (int i = 0; i < 8; i++)
			pieces[i] = orbit_alloc(list_alloc, (size_t)(i * 50 + 1));
		for (int i = 0; i < 8; i++)
			orbit_free(list_alloc, pieces[i]);
	}
	return NULL;
}

static unsigned long use_allocator(void *store, void *arg)
{
	struct node *list = NULL;
	unsigned long count = 0;

	(void)store;
	(void)arg;
	for (int i = 0; i < 200; i++) {
		struct node *node = (struct node *)orbit_alloc(list_alloc, sizeof(*node));

		if (!node)
			return 0;
		*node = (struct node){list, i};
		list = node;
		orbit_free(list_alloc, orbit_calloc(list_alloc, 777));
	}
	for (int i = 199; list; i--) {
		struct node *next = list->next;

		count += list->value == i;
		orbit_free(list_alloc, list);
		list = next;
	}
	return count;
}

static void tasks_use_allocators(void)
{
	struct orbit_pool *pool = orbit_pool_create(NULL, 1 << 20);
	pthread_t thread[2];

	list_alloc = orbit_allocator_from_pool(pool, true);
	CHECK(list_alloc && pool->used > 0);

	struct orbit_module *module = make(use_allocator, NULL);
	const size_t used = pool->used;

	for (int i = 0; i < 2; i++)
		CHECK(pthread_create(&thread[i], NULL, allocate_and_free, NULL) == 0);
	for (int i = 0; i < 50; i++)
		CHECK(orbit_call(module, 1, &pool, NULL, NULL, 0) == 200);
	__atomic_store_n(&stop, 1, __ATOMIC_RELAXED);
	for (int i = 0; i < 2; i++)
		pthread_join(thread[i], NULL);
	CHECK(pool->used == used);
	orbit_destroy_all();
	orbit_allocator_destroy(list_alloc);
}

int main(void)
{
	static const struct test tests[] = {
		TEST(a_module_says_what_it_is),
		TEST(the_entry_and_other_functions),
		TEST(init_makes_the_store),
		TEST(init_sees_the_pools),
		TEST(pools_are_seen_as_of_the_call),
		TEST(errors_of_calls),
		TEST(an_orbit_that_dies),
		TEST(asynchronous_calls),
		TEST(cancelling_by_task),
		TEST(cancelling_by_argument),
		TEST(skipping),
		TEST(replacing),
		TEST(destroying_ends_what_is_under_way),
		TEST(an_orbit_is_no_main_program),
		TEST(a_forked_child_is_none_either),
		TEST(descriptors_that_exec_would_keep),
		TEST(what_an_orbit_changes_is_its_own),
		TEST(threads),
		TEST(tasks_use_allocators),
	};

	return run_tests(tests, sizeof(tests) / sizeof(*tests));
}
