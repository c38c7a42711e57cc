/* SPDX-License-Identifier: MIT */
/*
 * orbit: auxiliary execution in an address space of its own.
 *
 * A main program keeps data in pools.  A call runs a function in an orbit, a
 * process of its own that sees the pools as they were at the moment of the call,
 * at the same addresses.  Whatever happens there, the main program's memory
 * stays as it is, and the call ends with a value or an error.
 *
 *	struct orbit_pool *pool;
 *	struct orbit_handle *audit;
 *	struct orbit_outcome out = { .size = sizeof(out) };
 *
 *	orbit_pool_create(&pool, 1 << 20, NULL);
 *	orbit_create(&audit, NULL);
 *	orbit_call(audit, check, &args, sizeof(args),
 *		   &(struct orbit_call_options){ .size = sizeof(struct orbit_call_options),
 *						 .pools = &pool, .nr_pools = 1 },
 *		   &out);
 *
 * Conventions.  Functions return 0 or a negative errno value; errno itself means
 * nothing.  Nothing throws, nothing aborts.  Structs that may grow start with
 * their size, which the caller sets to sizeof; fields that an older program does
 * not know count as zero, and fields that an older library does not know must be
 * zero (-E2BIG).  A null pointer to an options struct means the defaults.  All
 * functions may be called from any thread at any time, except that a handle must
 * not be used during or after its own destruction.
 *
 * Handles belong to the process that made them.  In a child made by fork() they
 * only can be destroyed, which does not affect the parent; everything else gives
 * -EPERM.  Within an orbit, creating orbits and pools gives -EPERM too.
 */
#ifndef ORBIT_ORBIT_H
#define ORBIT_ORBIT_H

#include <stddef.h>
#include <stdint.h>

#include <orbit/abi.h>

#ifdef __cplusplus
#define ORBIT_NOTHROW noexcept
extern "C" {
#else
#define ORBIT_NOTHROW
#endif

/* The library hides every symbol that is not marked with this. */
#define ORBIT_API __attribute__((visibility("default")))

/* An orbit, as the main program holds it. */
struct orbit_handle;

/* A range of memory that orbits may see. */
struct orbit_pool;

/**
 * orbit_entry - a function that an orbit runs
 * @arg: The orbit's copy of the argument bytes; aligned to a page, valid and
 *	writable until the function returns.
 * @arg_size: How many.
 *
 * The code must have been loaded when the orbit was created (not by a later
 * dlopen()).  Everything outside the pools is what it was when the orbit was
 * created, plus what earlier tasks of this orbit changed.  Only the thread that
 * called orbit_create() exists there.  An exception that leaves the function
 * ends the orbit (SIGABRT).  exit() ends it without running exit handlers.
 *
 * Returns the value of the call; any of the 2^64.
 */
typedef uint64_t (*orbit_entry)(const void *arg, size_t arg_size);

/* ---- Can this system run orbits? ---------------------------------------- */

/**
 * struct orbit_probe_info - what orbit_probe() found
 * @size: Set to sizeof by the caller.
 * @abi: Level of the kernel's interface, 0 if it has none.
 * @max_pools: How many pools one call may name.
 * @max_arg: How many argument bytes one call may carry.
 * @features: A bit for each optional feature; none is defined yet.
 * @backend: What carries the orbits: "kernel", or "none".
 * @reason: A sentence for people: what works, or why it does not.
 * @advice: A sentence for people: what to do about it; empty if it works.
 *
 * The strings are static.
 */
struct orbit_probe_info {
	size_t size;
	uint32_t abi;
	uint32_t max_pools;
	uint64_t max_arg;
	uint64_t features;
	const char *backend;
	const char *reason;
	const char *advice;
};

/**
 * orbit_probe() - say whether orbits work here, and if not, why
 * @out: Filled in whatever the answer is; may be NULL.
 *
 * Changes nothing, and is safe on a kernel that knows nothing of orbits.
 *
 * Returns 0 if orbits work.  -ENOSYS: this kernel has no orbits.  -EPERM or
 * -EACCES: a filter (seccomp, as in containers) refuses the system calls.
 * -EPROTONOSUPPORT: the kernel's interface is of another level than this
 * library's.  -EINVAL: @out->size makes no sense.
 */
ORBIT_API int orbit_probe(struct orbit_probe_info *out) ORBIT_NOTHROW;

/**
 * orbit_window_reserve() - reserve the addresses that pools will lie in
 * @bytes: How much address space; rounded up to pages; 0 for the default.
 *
 * Pools have the same address in the main program and in its orbits, so one
 * range is kept free for them on both sides.  It costs no memory.  The first
 * pool or orbit reserves it by itself: 1 TiB, or the environment variable
 * ORBIT_WINDOW (bytes, or with one of the suffixes K M G T), or less where
 * RLIMIT_AS leaves less (a quarter of that limit at most).  A program that
 * needs another size calls this first.
 *
 * Returns 0, -EALREADY if the range has been reserved, -EPERM in an orbit,
 * or -ENOMEM.
 */
ORBIT_API int orbit_window_reserve(size_t bytes) ORBIT_NOTHROW;

/* ---- Pools --------------------------------------------------------------- */

/**
 * struct orbit_pool_options - for orbit_pool_create()
 * @size: sizeof(struct orbit_pool_options).
 * @name: For people: shown by the kernel.  NULL for none; otherwise shorter
 *	than ORBIT_NAME_LEN.
 */
struct orbit_pool_options {
	size_t size;
	const char *name;
};

/**
 * orbit_pool_create() - make a pool
 * @out: Where to put the handle; untouched on error.
 * @bytes: Its size; rounded up to whole pages.
 * @opts: NULL for defaults.
 *
 * The memory reads as zero and takes no room until it is written.  Orbits that
 * exist already can be given it as well.  The caller owns the handle.
 *
 * Returns 0.  -EINVAL: @bytes is 0, @out is NULL or an option is malformed.
 * -E2BIG: an option this library does not know is set.  -ENAMETOOLONG.
 * -ENOMEM: no memory, or no room of that size in the address window.  -EMFILE,
 * -ENFILE: no descriptor left.  -EPERM: called in an orbit.  -ENOSYS, -EPERM,
 * -EACCES, -EPROTONOSUPPORT: no orbits here, see orbit_probe().
 */
ORBIT_API int orbit_pool_create(struct orbit_pool **out, size_t bytes,
				const struct orbit_pool_options *opts) ORBIT_NOTHROW;

/**
 * orbit_pool_destroy() - give a pool's memory back
 * @pool: The handle, or NULL.
 *
 * No thread may use the memory any more.  Tasks that were given a snapshot of it
 * keep what they see.
 */
ORBIT_API void orbit_pool_destroy(struct orbit_pool *pool) ORBIT_NOTHROW;

/** orbit_pool_data() - the pool's first byte, aligned to a page. */
ORBIT_API void *orbit_pool_data(const struct orbit_pool *pool) ORBIT_NOTHROW;

/** orbit_pool_size() - the pool's size in bytes, a multiple of the page size. */
ORBIT_API size_t orbit_pool_size(const struct orbit_pool *pool) ORBIT_NOTHROW;

/**
 * orbit_pool_fd() - the pool's descriptor, for /proc/self/fdinfo
 *
 * It stays the library's: do not close it.
 */
ORBIT_API int orbit_pool_fd(const struct orbit_pool *pool) ORBIT_NOTHROW;

/* ---- Orbits --------------------------------------------------------------- */

/* orbit_options.flags */
#define ORBIT_KEEP_CORE (1ULL << 0) /* a crash may leave a core file, as RLIMIT_CORE says */

/**
 * struct orbit_options - for orbit_create()
 * @size: sizeof(struct orbit_options).
 * @flags: ORBIT_KEEP_CORE, or 0.
 * @name: For people: the process is called "orbit:NAME".  NULL for none;
 *	otherwise shorter than ORBIT_NAME_LEN.
 * @keep_fds: Descriptors that the orbit shall keep besides 0, 1 and 2.
 * @nr_keep_fds: How many.
 */
struct orbit_options {
	size_t size;
	uint64_t flags;
	const char *name;
	const int *keep_fds;
	size_t nr_keep_fds;
};

/**
 * orbit_create() - make an orbit
 * @out: Where to put the handle; untouched on error.
 * @opts: NULL for defaults.
 *
 * The orbit is a copy of the calling process, as by fork(): fork handlers run,
 * and locks that other threads hold stay locked in it.  It has a session and
 * default signal handling of its own, only the descriptors named above, and no
 * right to write to memory that the caller shares with other processes.  It is no
 * child of the caller: no wait function and no SIGCHLD tells of it.  It ends when
 * the handle is destroyed, or when the main program ends or calls exec.  The
 * caller owns the handle.
 *
 * Returns 0.  -EINVAL, -E2BIG, -ENAMETOOLONG: an option is malformed, unknown or
 * too long.  -EBADF: a descriptor to keep is not open.  -ENOMEM, -EAGAIN,
 * -EMFILE, -ENFILE: no memory, process or descriptor left.  -ECHILD: the new
 * process died before it was ready.  -ENOENT: /proc is not mounted.  -EPERM: called
 * in an orbit.  -ENOSYS, -EPERM, -EACCES, -EPROTONOSUPPORT: no orbits here, see
 * orbit_probe().
 */
ORBIT_API int orbit_create(struct orbit_handle **out,
			   const struct orbit_options *opts) ORBIT_NOTHROW;

/**
 * orbit_destroy() - end an orbit
 * @orbit: The handle, or NULL.
 *
 * Kills the orbit's process.  Calls that wait in other threads fail with
 * -ECONNRESET (the running one) or -ECANCELED, and this function returns after
 * they have.  The process may outlive it by a moment.
 */
ORBIT_API void orbit_destroy(struct orbit_handle *orbit) ORBIT_NOTHROW;

/* orbit_call_options.flags */
#define ORBIT_CALL_INTERRUPTIBLE (1ULL << 0) /* return -EINTR when a signal handler ran */

/**
 * struct orbit_call_options - for orbit_call()
 * @size: sizeof(struct orbit_call_options).
 * @flags: ORBIT_CALL_INTERRUPTIBLE, or 0.
 * @pools: The pools that the task shall see.
 * @nr_pools: How many, up to ORBIT_MAX_POOLS.
 * @time_limit_ns: Nanoseconds from the task's start, after which the orbit is
 *	killed; 0 for no limit.
 * @resume: 0, or after -EINTR orbit_outcome.task: wait on for that task.  The
 *	function, argument and other options must be those of the first call.
 */
struct orbit_call_options {
	size_t size;
	uint64_t flags;
	struct orbit_pool *const *pools;
	size_t nr_pools;
	uint64_t time_limit_ns;
	uint64_t resume;
};

/**
 * struct orbit_outcome - how a call ended
 * @size: Set to sizeof by the caller.
 * @task: The task's number in its orbit, from 1; 0 if none was queued.
 * @value: What the function returned, if @error is 0.
 * @error: What orbit_call() returned.
 * @cause: enum orbit_cause: why the orbit ended, if it did.
 * @code: The exit status or signal number that goes with @cause.
 * @pad: 0.
 * @fault_addr: The address whose access raised the signal, or 0.
 */
struct orbit_outcome {
	size_t size;
	uint64_t task;
	uint64_t value;
	int32_t error;
	uint32_t cause;
	int32_t code;
	uint32_t pad;
	uint64_t fault_addr;
};

/**
 * orbit_call() - run a function in an orbit and wait for its value
 * @orbit: The orbit.
 * @fn: The function.
 * @arg: Bytes to hand it, copied at the call; may be NULL if there are none.
 * @arg_size: How many, up to ORBIT_MAX_ARG.
 * @opts: NULL for defaults (no pools).
 * @out: Filled in whatever the outcome is; may be NULL.
 *
 * The function sees the pools as they were at this call: one consistent cut over
 * all of them, to which nothing is added while it runs.  What it writes to them
 * is its own and is dropped.  Calls of several threads are served one at a time,
 * in order.  Once an orbit has died all its calls fail.
 *
 * Returns 0 when the function returned, and the value is in @out.
 * The task did not return: -ECONNRESET the orbit died in it, -ETIMEDOUT it ran
 * past its limit, -ECANCELED the orbit ended before the task began; @out says
 * why.  -ENOMEM: no memory for the snapshot.  -EADDRINUSE: the orbit has put
 * something else where a pool belongs.  -EINTR: see ORBIT_CALL_INTERRUPTIBLE.
 * The task was not queued: -ESHUTDOWN the orbit had ended; @out says why.
 * -EINVAL a malformed argument, or a pool named twice; -E2BIG too many bytes or
 * pools, or an unknown option; -EFAULT @arg is not readable; -ENOMEM; -ENXIO the
 * program has unmapped a pool itself; -EPERM the handle or a pool is of another
 * process; -ESRCH @opts->resume names no task that waits for that.
 */
ORBIT_API int orbit_call(struct orbit_handle *orbit, orbit_entry fn, const void *arg,
			 size_t arg_size, const struct orbit_call_options *opts,
			 struct orbit_outcome *out) ORBIT_NOTHROW;

/**
 * orbit_describe() - put an outcome into words
 * @out: From orbit_call(); or only @out->error set, to any return value of this
 *	library.
 * @buf: Where to put the text, as snprintf() does; may be NULL if @len is 0.
 * @len: Its size.
 *
 * For example "killed by signal 11 (SIGSEGV) at address 0x0".
 *
 * Returns the length of the whole text without the NUL, or -EINVAL.
 */
ORBIT_API int orbit_describe(const struct orbit_outcome *out, char *buf,
			     size_t len) ORBIT_NOTHROW;

/**
 * orbit_get_stat() - how an orbit is
 * @orbit: The orbit.
 * @out: Filled in; struct orbit_stat is described in <orbit/abi.h>.
 * @size: sizeof(struct orbit_stat); if it is more than this library knows, the
 *	rest is set to zero.
 *
 * Returns 0, -EINVAL, or -EPERM.
 */
ORBIT_API int orbit_get_stat(const struct orbit_handle *orbit, struct orbit_stat *out,
			     size_t size) ORBIT_NOTHROW;

/**
 * orbit_fd() - the orbit's descriptor, for poll() and /proc/self/fdinfo
 *
 * POLLOUT: it lives and takes calls.  POLLHUP: it is dead.  It stays the
 * library's: do not close it.
 */
ORBIT_API int orbit_fd(const struct orbit_handle *orbit) ORBIT_NOTHROW;

/* ---- Messages -------------------------------------------------------------- */

enum orbit_log_level {
	ORBIT_LOG_ERROR,
	ORBIT_LOG_INFO,
	ORBIT_LOG_DEBUG,
};

/**
 * orbit_log_fn - receives the library's messages
 * @user: From orbit_log_to().
 * @level: enum orbit_log_level.
 * @message: One line without its end; valid during the call.
 *
 * Called in whatever thread the message arose; never in an orbit.
 */
typedef void (*orbit_log_fn)(void *user, int level, const char *message);

/**
 * orbit_log_to() - have messages delivered
 * @fn: The receiver; NULL, as at the start, for none.
 * @user: Handed to it.
 *
 * Not thread-safe: call it before anything else.
 */
ORBIT_API void orbit_log_to(orbit_log_fn fn, void *user) ORBIT_NOTHROW;

#ifdef __cplusplus
}
#endif

#endif /* ORBIT_ORBIT_H */
