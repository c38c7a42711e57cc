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
 * not be used during or after its own destruction.  None is a cancellation point:
 * a thread that is cancelled in one ends after it.  Async-signal-safe are
 * orbit_inside(), orbit_deadline(), orbit_targets_refused(), and those that tell a
 * handle's descriptor, number, address or size.  The others, called by a signal
 * handler that has interrupted the library, do nothing and give -EDEADLK; what
 * they should destroy is destroyed when the interrupted function returns.  Deadlines are nanoseconds of
 * CLOCK_MONOTONIC, see orbit_deadline(); 0 means never, ORBIT_NO_WAIT at once.
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

/* A call that its caller does not wait for. */
struct orbit_task;

/* What updates may change. */
struct orbit_targets;

/* Memory that the main program and orbits of its choice write to at the same time. */
struct orbit_shared;

/* Some of the main program's memory. */
struct orbit_range {
	void *start;
	size_t length; /* in bytes */
};

/**
 * orbit_entry - a function that an orbit runs
 * @arg: The orbit's copy of the argument bytes; aligned to a page, valid and
 *	writable until the function returns.
 * @arg_size: How many.
 *
 * The code must have been loaded when the orbit was created (not by a later
 * dlopen()).  Everything outside the pools is what it was when the orbit was
 * created, plus what earlier tasks of this orbit changed.  Only the thread that
 * called orbit_create() exists there (for an orbit that inherits the minimum, the one
 * that called orbit_prepare()).  An exception that leaves the function
 * ends the orbit (SIGABRT).  exit() ends it without running exit handlers.
 *
 * Returns the value of the call; any of the 2^64.
 */
typedef uint64_t (*orbit_entry)(const void *arg, size_t arg_size);

/* ---- Can this system run orbits? ---------------------------------------- */

/* struct orbit_probe_info.features, besides those of <orbit/abi.h> */

/* A snapshot is one cut, whatever other threads write meanwhile.  Without it that
 * holds for writes that a lock orders: if the caller holds the lock that writers
 * hold, until orbit_call_async() has returned.  Of a page that others write to
 * during the call the task sees what it held at some moment of the call. */
#define ORBIT_FEATURE_CUT (1ULL << 32)
/* System calls can write to pools, as read() does with a buffer there.  Without it
 * they fail with EFAULT for a page that was not written to since the last call. */
#define ORBIT_FEATURE_IO (1ULL << 33)
/* ORBIT_INHERIT_MINIMAL. */
#define ORBIT_FEATURE_MINIMAL (1ULL << 34)
#define ORBIT_FEATURE_LITTLE ORBIT_FEATURE_MINIMAL /* its name until 0.1 */

/**
 * struct orbit_probe_info - what orbit_probe() found
 * @size: Set to sizeof by the caller.
 * @abi: Level of the kernel's interface, 0 if it has none.
 * @max_pools: How many pools one call may name.
 * @max_arg: How many argument bytes one call may carry.
 * @features: ORBIT_FEATURE_*, see <orbit/abi.h> and above.
 * @backend: What carries the orbits: "kernel", "portable", or "none".
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
 * It tells about the backend that is used, or would be: see orbit_use_backend().
 *
 * Returns 0 if orbits work.  -ENOSYS: this kernel has no orbits.  -EPERM or
 * -EACCES: a filter (seccomp, as in containers) refuses the system calls.
 * -EPROTONOSUPPORT: the kernel's interface is of another level than this
 * library's.  -ENOTSUP: ORBIT_TRACKER asks for what there is not.  -EINVAL:
 * @out->size makes no sense.
 */
ORBIT_API int orbit_probe(struct orbit_probe_info *out) ORBIT_NOTHROW;

/**
 * orbit_probe_backend() - the same about one of the backends
 * @index: Which, from 0.
 * @out: As for orbit_probe(); @out->backend is its name even if it does not work.
 *	May be NULL.
 *
 * Returns as orbit_probe(), or -ENOENT: there are not that many.
 */
ORBIT_API int orbit_probe_backend(size_t index, struct orbit_probe_info *out) ORBIT_NOTHROW;

/**
 * orbit_use_backend() - choose what carries orbits
 * @name: "kernel": the system calls of a patched kernel.  "portable": processes
 *	and copies of changed pages, for other kernels.  "auto" or NULL: the first
 *	of them that works.
 *
 * Without this call the environment variable ORBIT_BACKEND says which, and
 * without that it is "auto".  The choice is for the life of the process: call this
 * before pools and orbits are made.  With the portable backend, ORBIT_TRACKER=mprotect
 * (rather than userfaultfd, or auto) has changed pages found by a signal handler (ORBIT_FEATURE_CUT, and not
 * ORBIT_FEATURE_IO); a thread that blocks SIGSEGV must not write to pools then.  The
 * application's own handler for SIGSEGV works beside it, whenever sigaction() or signal() installs it;
 * one that a system call installs takes its place until the next call.  What the application
 * makes writable by mprotect() counts as changed.  A program may have vm.max_map_count mappings: pools
 * take half of them at most, and neighbours of a changed page count as changed where
 * that would not be enough.
 *
 * Returns 0.  -EINVAL: there is no such backend.  -EALREADY: another one is used.
 * -EPERM: called in an orbit.
 */
ORBIT_API int orbit_use_backend(const char *name) ORBIT_NOTHROW;

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

/* The shortest deadline: what is not there yet is not waited for. */
#define ORBIT_NO_WAIT 1

/**
 * orbit_deadline() - the moment that is some time from now
 * @timeout_ns: Nanoseconds.
 *
 * Returns nanoseconds of CLOCK_MONOTONIC; 0, that is never, if there is no such
 * number.
 */
ORBIT_API uint64_t orbit_deadline(uint64_t timeout_ns) ORBIT_NOTHROW;

/* ---- Pools --------------------------------------------------------------- */

/* orbit_pool_options.flags */
#define ORBIT_POOL_COPY_ON_FORK (1ULL << 0) /* a forked child has a copy of it, as of ordinary memory */

/**
 * struct orbit_pool_options - for orbit_pool_create()
 * @size: sizeof(struct orbit_pool_options).
 * @name: For people: shown by the kernel.  NULL for none; otherwise shorter
 *	than ORBIT_NAME_LEN.
 * @address: Where to put it: the beginning of a page, with nothing mapped in its range.
 *	NULL for anywhere.  A call that names the pool fails (-EADDRINUSE) in an orbit that
 *	was made before and has something of its own there.
 * @flags: ORBIT_POOL_COPY_ON_FORK.  Without it a forked child that touches the pool gets
 *	SIGSEGV.  With it, fork() (not vfork(), posix_spawn(), _Fork()) copies what is in use of
 *	the pool: it takes as long as a memcpy() of that, and as much memory, until parent or
 *	child end.  Threads that write to the pool meanwhile are not stopped.
 */
struct orbit_pool_options {
	size_t size;
	const char *name;
	void *address;
	uint64_t flags;
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
 * -EEXIST: something is mapped at the address that was asked for.
 * -ENOMEM: no memory, or no room of that size in the address window.  -EMFILE,
 * -ENFILE: no descriptor left.  -EFBIG: RLIMIT_FSIZE is less than @bytes (portable).
 * -EPERM: called in an orbit.  -ENOSYS, -EPERM,
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

/* ---- Shared memory ---------------------------------------------------------- */

/* With how many regions at a time one orbit may share memory. */
#define ORBIT_MAX_SHARED 128

/* What an orbit may do with a region. */
enum orbit_rights {
	ORBIT_RIGHTS_NONE,  /* it is not there */
	ORBIT_RIGHTS_READ,  /* mprotect() cannot change that */
	ORBIT_RIGHTS_WRITE, /* read and write */
};

/* A region for an orbit that is made, see orbit_options.grants. */
struct orbit_grant {
	struct orbit_shared *shared;
	uint32_t rights; /* enum orbit_rights */
	uint32_t pad;	 /* 0 */
};

/**
 * struct orbit_shared_options - for orbit_shared_create()
 * @size: sizeof(struct orbit_shared_options).
 * @name: For people: in /proc/self/maps.  NULL for none; otherwise shorter than
 *	ORBIT_NAME_LEN.
 * @flags: Must be 0.
 */
struct orbit_shared_options {
	size_t size;
	const char *name;
	uint64_t flags;
};

/**
 * orbit_shared_create() - make a region of memory to share with orbits
 * @out: Where to put the handle; untouched on error.
 * @bytes: Its size; rounded up to whole pages.
 * @opts: NULL for defaults.
 *
 * A region is no pool: what one side writes the others see at once, at the same
 * address, and no snapshot has it.  So it must be taken for what another program
 * might write there at any moment: copy a value, then check the copy.  It reads as
 * zero at first, and takes no room until it is written.  No orbit has it before
 * orbit_share() or orbit_options.grants gives it.  It is in no file system, has no
 * name there, and is gone with the last process that has it.  A child made by fork()
 * does not have it: an access raises SIGSEGV there.  The caller owns the handle.
 *
 * Returns 0.  -EINVAL: @bytes is 0, @out is NULL or an option is malformed.
 * -E2BIG: an option this library does not know is set.  -ENAMETOOLONG.
 * -ENOMEM: no memory, or no room of that size in the address window.  -EMFILE,
 * -ENFILE: no descriptor left (it takes two).  -EAGAIN: RLIMIT_MEMLOCK, after mlockall().  -EFBIG: RLIMIT_FSIZE is less than
 * @bytes.  -ENOENT: /proc is not mounted.  -EPERM: called in an orbit.  -ENOSYS, -EPERM,
 * -EACCES, -EPROTONOSUPPORT: no orbits here, see orbit_probe().
 */
ORBIT_API int orbit_shared_create(struct orbit_shared **out, size_t bytes,
				  const struct orbit_shared_options *opts) ORBIT_NOTHROW;

/**
 * orbit_shared_destroy() - give a region back
 * @shared: The handle, or NULL.
 *
 * It is taken from the orbits that have it, as by orbit_share() with
 * ORBIT_RIGHTS_NONE: a task that runs keeps it.  No thread of the caller may use the
 * memory any more.  Its addresses are free again when no orbit has it: each has let
 * it go by the beginning of its next task, or its destruction.
 */
ORBIT_API void orbit_shared_destroy(struct orbit_shared *shared) ORBIT_NOTHROW;

/** orbit_shared_data() - the region's first byte, aligned to a page. */
ORBIT_API void *orbit_shared_data(const struct orbit_shared *shared) ORBIT_NOTHROW;

/** orbit_shared_size() - the region's size in bytes, a multiple of the page size. */
ORBIT_API size_t orbit_shared_size(const struct orbit_shared *shared) ORBIT_NOTHROW;

/**
 * orbit_share() - say what an orbit may do with a region
 * @orbit: An orbit that was created with ORBIT_SHARE.
 * @shared: The region.
 * @rights: enum orbit_rights, from now on.
 *
 * Each task begins with what the orbit had been given by then: all that was given
 * or taken back before its call counts, and of what came between the call and its
 * beginning the last.  For a task that runs nothing changes, unless it calls
 * orbit_shared_renew().  A process that takes the place of another (ORBIT_RESTART) has
 * the same.  What a task forks has it not.
 *
 * The rights hold against whatever the orbit's code does with its memory, which
 * mprotect() is part of.  They are no fence against a program of the same user that
 * means harm: that can look for the main program's descriptors in /proc.
 *
 * An orbit that cannot put in place what it was given (no memory, too many mappings, no
 * descriptor because its tasks have left some open) ends before the task begins: its
 * exit status is the errno value.
 *
 * Returns 0.  -EINVAL.  -ENOTSUP: the orbit was created without ORBIT_SHARE.
 * -ESHUTDOWN: the orbit has ended, or has closed its end.  -E2BIG: it has
 * ORBIT_MAX_SHARED regions.  -EMFILE: it has as many as @nr_files of its creation
 * leaves it descriptors for.  -ETOOMANYREFS: of all orbits' regions together there are
 * more than RLIMIT_NOFILE, without privileges.  -EBADF: the application has closed
 * descriptors of the library.  -ENOMEM, -ENOBUFS.  -EPERM: a handle is of another
 * process.  On an error nothing has changed.
 */
ORBIT_API int orbit_share(struct orbit_handle *orbit, struct orbit_shared *shared,
			  uint32_t rights) ORBIT_NOTHROW;

/**
 * orbit_shared_renew() - in a task: have what is shared by now
 *
 * For a task that runs for long.  It costs two loads if nothing has changed.
 *
 * Returns 0.  -EPERM: not in an orbit, or in what a task has forked.  -EMFILE, -ENOMEM:
 * some of it may be in place; try again.  -EBADMSG, -EBADF: tasks have closed or taken what
 * they do not know.
 */
ORBIT_API int orbit_shared_renew(void) ORBIT_NOTHROW;

/* ---- Orbits --------------------------------------------------------------- */

/* orbit_options.flags */
#define ORBIT_KEEP_CORE (1ULL << 0) /* a crash may leave a core file, as RLIMIT_CORE says */
#define ORBIT_RESTART (1ULL << 1)   /* when its process has ended, a task gets another */
/* Threads of a task may go on when it has returned, as those of OpenMP do.  What they
 * write to pools then is in the views of later tasks. */
#define ORBIT_KEEP_THREADS (1ULL << 2)
/* Memory can be shared with it, see orbit_share(). */
#define ORBIT_SHARE (1ULL << 3)

/* orbit_outcome.code, with ORBIT_CAUSE_EXIT: the task has left threads behind */
#define ORBIT_EXIT_THREADS 254

/* orbit_options.inherit */
enum orbit_inherit {
	ORBIT_INHERIT_ALL,     /* the main program's memory, as by fork() */
	ORBIT_INHERIT_MINIMAL, /* code, global variables, named ranges; see orbit_prepare() */
	ORBIT_INHERIT_LITTLE = ORBIT_INHERIT_MINIMAL, /* its name until 0.1 */
};

/**
 * orbit_prepare() - make ready for orbits that inherit the minimum
 *
 * Starts a small process from which these orbits are forked, so that neither
 * their creation nor what they hold grows with the main program's memory.  To be
 * called early in main(): after privileges have been dropped, before memory is
 * filled and threads are started.  For what such an orbit does not get at its
 * creation it has as it was at this call: the heap, the stack and thread-local
 * variables; what libraries keep to themselves, the C library and its environment
 * included; working directory, user and group, resource limits, seccomp filters.
 * Fork handlers run.  The process ends with the main program, and is no child that
 * a wait function could find.  Reserves the address window
 * (orbit_window_reserve()), and some addresses more.
 *
 * Returns 0.  -EALREADY: it has been called, and its process is there; one that has
 * ended, or whose descriptor the program has closed, is replaced.  -EPERM: called in an
 * orbit.
 * -ENOTSUP: the program is statically linked, or brings a malloc() of its own in
 * its executable, so that its variables cannot be told from those of libraries; or it
 * runs under a sanitizer with an allocator of its own (AddressSanitizer and others).
 * ORBIT_FEATURE_MINIMAL tells beforehand.  Otherwise as orbit_create().
 */
ORBIT_API int orbit_prepare(void) ORBIT_NOTHROW;

/**
 * struct orbit_options - for orbit_create()
 * @size: sizeof(struct orbit_options).
 * @flags: ORBIT_KEEP_CORE, ORBIT_RESTART, ORBIT_KEEP_THREADS, ORBIT_SHARE, or 0.
 * @name: For people: the process is called "orbit:NAME".  NULL for none;
 *	otherwise shorter than ORBIT_NAME_LEN.
 * @keep_fds: Descriptors that the orbit shall keep besides 0, 1 and 2.
 * @nr_keep_fds: How many.
 * @queue_limit: How many tasks may wait or run, up to ORBIT_MAX_QUEUE; 0 for
 *	ORBIT_DEFAULT_QUEUE.
 * @nr_files: How many descriptors the orbit may have open: 0, 1, 2, those it
 *	keeps, and one of its own (with ORBIT_SHARE two) included.  0 for what RLIMIT_NOFILE says.
 * @memory_limit: Bytes that it may use beyond what it has at the start, what it
 *	writes to pools included; past it, it is killed.  UINT64_MAX for no limit.  0 for
 *	what the environment variable ORBIT_MEMORY_LIMIT says (bytes, or with one of the
 *	suffixes K M G T; 0 for no limit).  Without that there is no limit, unless a control group would
 *	end all its processes when memory runs out (memory.oom.group, which Kubernetes
 *	sets): then half of what is left there now.  That helps as long as the main program
 *	leaves so much free; systemd ends a service after any of its processes was killed
 *	for memory, unless its OOMPolicy is "continue".  So better set it.
 * @update_limit: Bytes of updates that one task may have sent and the main
 *	program not yet received; 0 for ORBIT_DEFAULT_UPDATES.  The kernel backend keeps
 *	65,536 updates of a task, however short they are.
 * @cpu_percent: How much of one CPU a task may use; it is slowed down to that.
 *	0 for no limit.
 * @inherit: enum orbit_inherit.
 * @ranges: With ORBIT_INHERIT_MINIMAL: memory that it shall find as it is during
 *	this call, at its address.  Not in pools.  Under another malloc() than the C
 *	library's, or if there were threads before orbit_prepare(), not in memory that
 *	was mapped by then, unless it is certain that malloc() in the orbit will not
 *	hand it out: what was allocated later mostly will do (-EADDRINUSE).
 * @nr_ranges: How many.
 * @modules: Likewise: an address in each shared library whose global variables
 *	it shall find, besides those of the executable.
 * @nr_modules: How many.
 * @grants: With ORBIT_SHARE: what is shared with it from the beginning; no region
 *	twice.
 * @nr_grants: How many, up to ORBIT_MAX_SHARED.
 */
struct orbit_options {
	size_t size;
	uint64_t flags;
	const char *name;
	const int *keep_fds;
	size_t nr_keep_fds;
	uint32_t queue_limit;
	uint32_t nr_files;
	uint64_t memory_limit;
	uint64_t update_limit;
	uint32_t cpu_percent;
	uint32_t inherit;
	const struct orbit_range *ranges;
	size_t nr_ranges;
	const void *const *modules;
	size_t nr_modules;
	const struct orbit_grant *grants;
	size_t nr_grants;
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
 * the handle is destroyed, or when the main program ends or calls exec; what its
 * tasks have forked does not.  The caller owns the handle.
 *
 * With ORBIT_RESTART it outlives its process: when that has crashed, run past a
 * limit, or exited, tasks that wait are kept, and the next to run gets a fresh
 * process.  That is forked from a template, another process, which is the copy
 * that this call makes and which runs no task; fork handlers do not run again.
 * The task in which the process ended is not run again unless it was called with
 * ORBIT_CALL_RETRY.
 *
 * With ORBIT_INHERIT_MINIMAL the orbit is no copy of the caller: it has the code
 * of all modules that were loaded at orbit_prepare(), the global variables of the
 * executable and of the modules named, and the ranges named, all as they are
 * during this call.  (What another thread changes meanwhile may be there in part.)
 * Pointers to anything else lead nowhere, or to what was there at
 * orbit_prepare(); where a library's variable is defined in the executable, as the
 * linker does with stdout, it is the library's.
 *
 * Returns 0.  -EINVAL, -E2BIG, -ENAMETOOLONG: an option is malformed, unknown or
 * too long.  -EBADF: a descriptor to keep is not open, or one of the library's.  -ENOMEM, -EAGAIN,
 * -EMFILE, -ENFILE: no memory, process or descriptor left.  -ECHILD: the new
 * process died before it was ready.  -ENOENT: /proc is not mounted.  -ENXIO:
 * orbit_prepare() has not been called or its process is gone, or a module named was
 * loaded later.  -EFAULT: a range named is not readable.  -EADDRINUSE: a range
 * named is where malloc() in the orbit might allocate.  -ETOOMANYREFS: as orbit_share().  -EPERM: called in an orbit.  -ENOSYS, -EPERM, -EACCES, -EPROTONOSUPPORT: no orbits here, see
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
 * they have.  So do tasks whose handles exist; these have to be destroyed on their
 * own.  The process may outlive it by a moment.
 */
ORBIT_API void orbit_destroy(struct orbit_handle *orbit) ORBIT_NOTHROW;

/**
 * struct orbit_pool_range - a pool, or a part of one, for a task to see
 * @pool: The pool.
 * @offset: First byte of the part, a multiple of the page size.
 * @length: Its size in bytes, likewise; 0 for all from @offset on.
 * @mode: How the snapshot keeps it: ORBIT_SNAP_COW (the default: what the main
 *	program changes too soon is copied then), ORBIT_SNAP_COPY (what has changed
 *	is copied at the call), ORBIT_SNAP_ADAPTIVE (whichever costs less, page by
 *	page), or ORBIT_SNAP_MOVE (the task gets the pages, and the main program
 *	has zeroes there).
 * @pad: Must be 0.
 */
struct orbit_pool_range {
	struct orbit_pool *pool;
	uint64_t offset;
	uint64_t length;
	uint32_t mode;
	uint32_t pad;
};

/*
 * orbit_call_options.flags.  "This argument" means the same function and the same
 * argument bytes; a task "waits" that has not begun.
 *
 *	ORBIT_CALL_WAIT_ROOM	wait while the queue is full, instead of -EAGAIN
 *	ORBIT_CALL_REPLACEABLE	later calls may replace this task while it waits
 *	ORBIT_CALL_SKIP_SAME	-EEXIST if a task with this argument waits
 *	ORBIT_CALL_SKIP_ANY	-EEXIST if any task waits
 *	ORBIT_CALL_REPLACE_SAME	cancel the replaceable ones with this argument
 *	ORBIT_CALL_REPLACE_ANY	cancel all the replaceable ones
 *	ORBIT_CALL_RETRY	if the orbit dies in the task, run it once more
 *	ORBIT_CALL_STREAM	updates can be received while the task runs
 *
 * are the kernel's, see <orbit/abi.h>, and so is the choice of their values.
 */
#define ORBIT_CALL_INTERRUPTIBLE (1ULL << 32) /* return -EINTR when a signal handler ran */

/**
 * struct orbit_call_options - for orbit_call() and orbit_call_async()
 * @size: sizeof(struct orbit_call_options).
 * @flags: ORBIT_CALL_*, as above, or 0.
 * @pools: The pools that the task shall see.
 * @nr_pools: How many.
 * @time_limit_ns: Nanoseconds from the task's start, after which the orbit is
 *	killed; 0 for no limit. So is one that does not begin the task for so long after
 *	its turn has come, as when it is stopped, up to a second later.
 * @resume: 0, or after -EINTR or -ETIME orbit_outcome.task: wait on for that task.
 *	The function, argument and other options must be those of the first call.
 * @ranges: Further pools or parts of pools that it shall see; no pool twice.
 * @nr_ranges: How many; with @nr_pools up to ORBIT_MAX_POOLS.
 * @deadline_ns: When to give up waiting, for room in the queue or for the outcome.
 * @cpu_limit_ns: CPU time in nanoseconds that the task may use, after which the
 *	orbit is killed; 0 for no limit.
 */
struct orbit_call_options {
	size_t size;
	uint64_t flags;
	struct orbit_pool *const *pools;
	size_t nr_pools;
	uint64_t time_limit_ns;
	uint64_t resume;
	const struct orbit_pool_range *ranges;
	size_t nr_ranges;
	uint64_t deadline_ns;
	uint64_t cpu_limit_ns;
};

/**
 * struct orbit_outcome - how a call ended
 * @size: Set to sizeof by the caller.
 * @task: The task's number in its orbit, from 1; 0 if none was queued.
 * @value: What the function returned, if @error is 0.
 * @error: What orbit_call() returned.
 * @cause: enum orbit_cause: why the orbit ended, if it did.
 * @code: The exit status or signal number that goes with @cause.
 * @updates: How many updates the task sent.
 * @fault_addr: The address whose access raised the signal, or 0.
 */
struct orbit_outcome {
	size_t size;
	uint64_t task;
	uint64_t value;
	int32_t error;
	uint32_t cause;
	int32_t code;
	uint32_t updates;
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
 * in order.  Once an orbit has died all its calls fail, unless it was created
 * with ORBIT_RESTART.  Updates that the function sends are lost (-EPIPE there):
 * only orbit_call_async() makes something to receive them with.
 *
 * Returns 0 when the function returned, and the value is in @out.
 * The task did not return: -ECONNRESET the orbit died in it, -ETIMEDOUT it ran
 * past a limit of the call, -ECANCELED it was cancelled or the orbit ended before
 * it began; @out says why the orbit ended, if it did.  -ENOMEM: no memory for the
 * snapshot, or the orbit went past its memory limit.  -EADDRINUSE: the orbit has put something else where a pool belongs.
 * -EHWPOISON: memory of a pool that had to be copied is broken.
 * -EINTR: see ORBIT_CALL_INTERRUPTIBLE.  -ETIME: the deadline; if @out->task is not
 * 0 the task goes on.
 * The task was not queued: -ESHUTDOWN the orbit had ended; @out says why.
 * -EAGAIN the queue is full; -EEXIST it was to be skipped;
 * -EINVAL a malformed argument, or a pool named twice; -E2BIG too many bytes or
 * pools, or an unknown option; -EFAULT @arg is not readable; -ENOMEM; -ENXIO the
 * program has unmapped a pool itself; -EPERM the handle or a pool is of another
 * process; -ESRCH @opts->resume names no task that waits for that; -EFBIG
 * RLIMIT_FSIZE is less than a pool (portable); -EBADF the application has closed
 * descriptors of the library.
 */
ORBIT_API int orbit_call(struct orbit_handle *orbit, orbit_entry fn, const void *arg,
			 size_t arg_size, const struct orbit_call_options *opts,
			 struct orbit_outcome *out) ORBIT_NOTHROW;

/**
 * orbit_call_async() - have a function run in an orbit
 * @orbit: The orbit.
 * @fn: The function.
 * @arg: Bytes to hand it, copied at the call; may be NULL if there are none.
 * @arg_size: How many, up to ORBIT_MAX_ARG.
 * @opts: NULL for defaults (no pools).  @opts->resume must be 0.
 * @out: Where to put the task's handle, untouched on error; NULL if neither its
 *	outcome nor its updates are wanted.
 *
 * Like orbit_call(), but returns when the snapshot is taken and the task queued.
 * The caller owns the handle.
 *
 * Returns 0, -ETIME (there was no room before the deadline), -EMFILE or -ENFILE, or
 * what orbit_call() returns for a task that was not queued.
 */
ORBIT_API int orbit_call_async(struct orbit_handle *orbit, orbit_entry fn, const void *arg,
			       size_t arg_size, const struct orbit_call_options *opts,
			       struct orbit_task **out) ORBIT_NOTHROW;

/**
 * orbit_task_wait() - wait for a task's outcome
 * @task: The task.
 * @deadline_ns: When to give up.
 * @out: Filled in whatever the outcome is; may be NULL.
 *
 * The outcome can be had more than once, and does not depend on updates that have
 * not been received.
 *
 * Returns as orbit_call() about the task; -ETIME when it has not ended by the
 * deadline; -EINTR if it was called with ORBIT_CALL_INTERRUPTIBLE and a signal
 * handler ran; -EPERM: the handle is of another process; -EINVAL.
 */
ORBIT_API int orbit_task_wait(struct orbit_task *task, uint64_t deadline_ns,
			      struct orbit_outcome *out) ORBIT_NOTHROW;

/**
 * orbit_task_cancel() - have a task not run
 * @task: The task.
 * @flags: ORBIT_CANCEL_RUNNING: if it runs, kill the orbit's process.  Otherwise 0.
 *
 * Its outcome is -ECANCELED then.
 *
 * Returns 0, -ESRCH (it has ended), -EBUSY (it runs), -EINVAL, or -EPERM.
 */
ORBIT_API int orbit_task_cancel(struct orbit_task *task, uint64_t flags) ORBIT_NOTHROW;

/** orbit_task_number() - the task's number in its orbit, from 1. */
ORBIT_API uint64_t orbit_task_number(const struct orbit_task *task) ORBIT_NOTHROW;

/**
 * orbit_task_fd() - the task's descriptor, for poll()
 *
 * POLLIN: orbit_task_receive() would not wait.  POLLHUP: the task has ended.  It
 * stays the library's: do not close it.
 */
ORBIT_API int orbit_task_fd(const struct orbit_task *task) ORBIT_NOTHROW;

/**
 * orbit_task_destroy() - give a task's handle back
 * @task: The handle, or NULL.
 *
 * The task goes on; its outcome and its updates are dropped.
 */
ORBIT_API void orbit_task_destroy(struct orbit_task *task) ORBIT_NOTHROW;

/**
 * orbit_cancel() - have tasks not run
 * @orbit: The orbit.
 * @fn: With @arg and @arg_size: those called with this function and these bytes.
 *	NULL for all tasks.
 * @arg: May be NULL if there are no bytes.
 * @arg_size: How many.
 * @flags: ORBIT_CANCEL_RUNNING: also the one that runs, by killing the orbit's
 *	process.  Otherwise 0.
 * @cancelled: Set to how many were cancelled; may be NULL.
 *
 * Their outcome is -ECANCELED.
 *
 * Returns 0, -ESRCH (there is none), -EBUSY (the only one runs), -EINVAL, -E2BIG,
 * -EFAULT, or -EPERM.
 */
ORBIT_API int orbit_cancel(struct orbit_handle *orbit, orbit_entry fn, const void *arg,
			   size_t arg_size, uint64_t flags, uint64_t *cancelled) ORBIT_NOTHROW;

/* ---- Updates: what a task proposes ----------------------------------------- */

/**
 * orbit_send_bytes() - in a task: propose to put bytes into the main program's memory
 * @target: Where.
 * @data: The bytes.
 * @size: How many, up to ORBIT_MAX_UPDATE.
 *
 * This and the two functions below add an update to the task's outcome, in the
 * order of the calls; the main program receives it with orbit_task_receive().  They
 * are made by the thread that runs the task.
 *
 * Returns 0.  -EPERM: not in an orbit.  -EPIPE: nobody can receive it.  -ENOSPC:
 * past the orbit's update_limit, or (kernel backend) 65,536 updates of the task have
 * not been received yet.  -E2BIG, -EFAULT, -ENOMEM.  -EHWPOISON: broken memory.
 */
ORBIT_API int orbit_send_bytes(void *target, const void *data, size_t size) ORBIT_NOTHROW;

/**
 * orbit_send_operation() - in a task: propose an operation of the main program
 * @id: Which, see orbit_targets_add_operation().
 * @args: Its argument bytes; may be NULL if there are none.
 * @size: How many, up to ORBIT_MAX_UPDATE.
 *
 * Returns as orbit_send_bytes().
 */
ORBIT_API int orbit_send_operation(uint64_t id, const void *args, size_t size) ORBIT_NOTHROW;

/**
 * orbit_send_pages() - in a task: hand over pages of a pool that it has written to
 * @start: The first byte, at the start of a page,
 * @size: and how many: whole pages in one pool that the task sees.
 *
 * The pages that the task has written to in this range leave the orbit without a
 * copy; it sees the snapshot there again.
 *
 * Returns as orbit_send_bytes(), or -EINVAL (not whole pages), -ENXIO (not in one
 * pool that the task sees).
 */
ORBIT_API int orbit_send_pages(void *start, size_t size) ORBIT_NOTHROW;

/* struct orbit_update.kind */
enum orbit_update_kind {
	ORBIT_UPDATE_UNKNOWN, /* not sent by the functions above; cannot be applied */
	ORBIT_UPDATE_BYTES,
	ORBIT_UPDATE_OPERATION,
	ORBIT_UPDATE_PAGES,
};

/**
 * struct orbit_update - an update, as received
 * @size: Set to sizeof by the caller.
 * @task: The task that sent it.
 * @kind: enum orbit_update_kind.
 * @serial: Tells it from the other updates of the task.
 * @target: What it is aimed at, as the orbit says: an address for BYTES, an
 *	operation for OPERATION.
 * @data: For these two: the bytes, aligned as by malloc(),
 * @length: and how many there are.
 * @pool: For PAGES: the pool that they are from.
 * @pages: Which they are, by offset in that pool,
 * @nr_pages: in so many pieces.
 *
 * A bug in the orbit may have made any of it: look before you use it.  The memory
 * pointed to is the task's: it is valid until the next update is received or the
 * task destroyed.
 */
struct orbit_update {
	size_t size;
	struct orbit_task *task;
	uint32_t kind;
	uint32_t serial;
	uint64_t target;
	const void *data;
	size_t length;
	struct orbit_pool *pool;
	const struct orbit_page_range *pages;
	size_t nr_pages;
};

/**
 * orbit_task_receive() - receive the next update of a task
 * @task: The task.
 * @deadline_ns: When to give up waiting.
 * @out: Filled in on success.
 *
 * Updates come in the order in which they were sent: once the task has returned,
 * or as they are sent if it was called with ORBIT_CALL_STREAM.  If the orbit dies in
 * a task, those not received by then are dropped; so without that flag there are all
 * updates of a task or none.  To skip one, receive the next.
 *
 * This function and those that apply updates are for one thread at a time, as far
 * as one task is concerned.
 *
 * Returns 0.  -ENODATA: there are no more, and the task has ended.  -ETIME: the
 * deadline.  -EINTR: as orbit_task_wait().  -ENOMEM: it is still there.  -EPERM,
 * -EINVAL.
 */
ORBIT_API int orbit_task_receive(struct orbit_task *task, uint64_t deadline_ns,
				 struct orbit_update *out) ORBIT_NOTHROW;

/**
 * orbit_operation - what the main program does for an update
 * @user: From orbit_targets_add_operation().
 * @args: The argument bytes, aligned as by malloc(); of a size that was declared,
 *	otherwise anything.
 * @size: How many.
 *
 * Called by orbit_update_apply(), in its thread; it may call the library.  Must not
 * throw: what an orbit sends could aim for that, and end the program.  (Targets::add()
 * of <orbit/orbit.hpp> sees to it.)
 *
 * Returns 0 or a negative errno value, which orbit_update_apply() returns.
 */
typedef int (*orbit_operation)(void *user, const void *args, size_t size);

/**
 * orbit_targets_create() - begin a list of what updates may change
 * @out: Where to put the handle; untouched on error.
 *
 * The list is empty.  It can serve any tasks of any orbits.  The caller owns the
 * handle.
 *
 * Returns 0, -EINVAL, or -ENOMEM.
 */
ORBIT_API int orbit_targets_create(struct orbit_targets **out) ORBIT_NOTHROW;

/** orbit_targets_destroy() - give the list back; NULL is fine. */
ORBIT_API void orbit_targets_destroy(struct orbit_targets *targets) ORBIT_NOTHROW;

/**
 * orbit_targets_add_range() - declare memory that updates may change
 * @targets: The list.
 * @start: Its first byte.
 * @length: How many.
 *
 * An update may change bytes within one range; it may not extend from one range
 * into a neighbour.
 *
 * Returns 0, -EINVAL (no bytes, or past the end of all addresses), -EEXIST (it
 * overlaps one that is declared), -ENOMEM.
 */
ORBIT_API int orbit_targets_add_range(struct orbit_targets *targets, void *start,
				      size_t length) ORBIT_NOTHROW;

/**
 * orbit_targets_add_operation() - declare an operation that updates may ask for
 * @targets: The list.
 * @id: What orbits call it.
 * @fn: What to do.
 * @user: Handed to it.
 * @least: The least number of argument bytes that it takes,
 * @most: and the greatest.
 *
 * Returns 0, -EINVAL, -EEXIST (there is one with this @id), or -ENOMEM.
 */
ORBIT_API int orbit_targets_add_operation(struct orbit_targets *targets, uint64_t id,
					  orbit_operation fn, void *user, size_t least,
					  size_t most) ORBIT_NOTHROW;

/**
 * struct orbit_apply_options - for orbit_update_apply(); of use for pages
 * @size: sizeof(struct orbit_apply_options).
 * @flags: ORBIT_APPLY_FORCE: also over pages that the main program has written to
 *	since the task's snapshot.  Otherwise 0.
 * @from: Leave out pages before this offset in the pool they are from,
 * @length: and those from so many bytes on; 0 for no end.
 * @into: A pool to put them in; NULL for the same one, at the same offsets.
 * @to: With @into: the offset there of what was at @from.
 */
struct orbit_apply_options {
	size_t size;
	uint64_t flags;
	uint64_t from;
	uint64_t length;
	struct orbit_pool *into;
	uint64_t to;
};

/**
 * struct orbit_applied - what applying came to
 * @size: Set to sizeof by the caller.
 * @applied: Updates that were applied, if with conflicts.
 * @refused: Updates aimed at what was not declared.
 * @failed: Operations that returned an error or threw, and pages that could not be put in
 *	place for another reason than a conflict.
 * @pages: Pages put in place.
 * @conflicts: Pages that were not, because the main program has written to them
 *	since the task's snapshot.
 */
struct orbit_applied {
	size_t size;
	uint64_t applied;
	uint64_t refused;
	uint64_t failed;
	uint64_t pages;
	uint64_t conflicts;
};

/**
 * orbit_update_apply() - do what an update asks for, if that was declared
 * @update: The update that was received last from its task.
 * @targets: What was declared.
 * @opts: NULL for defaults.
 * @out: Filled in; may be NULL.
 *
 * Bytes are copied, operations called, pages moved.  Locks that the memory needs
 * are the caller's business.  An update that is aimed at anything but one declared
 * range, or at an operation that was not declared or not with this size, changes
 * nothing; it is counted in @targets and told to the receiver of messages.  For pages
 * it is the addresses where they would be put that must be declared.
 *
 * Returns 0.  -EACCES: refused.  -EBUSY: some pages are in conflict; they can still
 * be applied by force.  -EINVAL: a malformed argument, or not the last update.  -EPERM: the handle is
 * of another process.  -ENXIO: a pool is not mapped.  -ENOMEM.  -EHWPOISON: memory
 * of the update is broken; the pages before it are in place.  For an operation also
 * what it returned.
 */
ORBIT_API int orbit_update_apply(const struct orbit_update *update,
				 struct orbit_targets *targets,
				 const struct orbit_apply_options *opts,
				 struct orbit_applied *out) ORBIT_NOTHROW;

/**
 * orbit_task_apply_all() - receive and apply all updates of a task
 * @task: The task.
 * @deadline_ns: When to give up waiting.
 * @targets: What was declared.
 * @out: Filled in whatever happens; may be NULL.
 *
 * An update that is refused or fails does not keep the others from being applied.
 *
 * Returns 0 when there are no more, or as orbit_task_receive().
 */
ORBIT_API int orbit_task_apply_all(struct orbit_task *task, uint64_t deadline_ns,
				   struct orbit_targets *targets,
				   struct orbit_applied *out) ORBIT_NOTHROW;

/** orbit_targets_refused() - how many updates were refused so far. */
ORBIT_API uint64_t orbit_targets_refused(const struct orbit_targets *targets) ORBIT_NOTHROW;

/**
 * struct orbit_refusal - an update that was refused
 * @size: Set to sizeof by the caller.
 * @task: The number of the task that sent it,
 * @orbit: and the name of its orbit.
 * @kind: enum orbit_update_kind.
 * @pad: 0.
 * @target: What it was aimed at; for pages, the first address that was not
 *	declared.
 * @length: Of its data; for pages, how far they went from there.
 */
struct orbit_refusal {
	size_t size;
	uint64_t task;
	char orbit[ORBIT_NAME_LEN];
	uint32_t kind;
	uint32_t pad;
	uint64_t target;
	uint64_t length;
};

/**
 * orbit_targets_refusal() - tell about one of the last updates that were refused
 * @targets: The list.
 * @back: 0 for the last one, 1 for the one before, and so on.
 * @out: Filled in on success.
 *
 * Returns 0, -ENOENT (it is not known any more; at least 16 are), or -EINVAL.
 */
ORBIT_API int orbit_targets_refusal(const struct orbit_targets *targets, size_t back,
				    struct orbit_refusal *out) ORBIT_NOTHROW;

/* ---- Scans: tasks that look at each item once ------------------------------- */

/**
 * orbit_scan_fn - looks at a unit of what is scanned
 * @user: From orbit_scan().
 * @unit: Its first byte.
 * @size: How many there are.
 *
 * When it returns, the scan is done with the unit: from then on a read of it raises SIGBUS,
 * at the latest when orbit_scan() has returned.  (Not on a kernel without ORBIT_FEATURE_SCAN.)
 * It may call the library, but for orbit_scan().  It must not throw: <orbit/orbit.hpp> sees to it.
 *
 * Returns 0 to go on, anything else to end the scan.
 */
typedef int (*orbit_scan_fn)(void *user, const void *unit, size_t size);

/**
 * struct orbit_scan_options - for orbit_scan()
 * @size: sizeof(struct orbit_scan_options).
 * @flags: Must be 0.
 * @unit: Bytes of a unit, a multiple of the page size, that no item crosses; 0 for a page.
 * @keep: Memory that stays readable: no unit with a byte of it is ever done with.  It need
 *	not be aligned, nor lie in what is scanned.
 * @nr_keep: How many pieces.
 */
struct orbit_scan_options {
	size_t size;
	uint64_t flags;
	size_t unit;
	const struct orbit_range *keep;
	size_t nr_keep;
};

/**
 * struct orbit_scanned - what a scan came to
 * @size: Set to sizeof by the caller.
 * @units: Units that the function was called for.
 * @overtaken: Those of them that came out of order, because the main program was
 *	overwriting them.
 */
struct orbit_scanned {
	size_t size;
	uint64_t units;
	uint64_t overtaken;
};

/**
 * orbit_scan() - in a task: look at each unit of its snapshot once
 * @ranges: What to scan: whole pages, each range in one pool that the task sees.
 * @nr_ranges: How many; none overlap.
 * @fn: Called for each unit, and for each once.  Units are counted from the beginning of a range;
 *	its last one may be shorter.
 * @user: Handed to it.
 * @opts: NULL for defaults.
 * @out: Filled in whatever happens, but for a malformed argument; may be NULL.
 *
 * For tasks that take long and need to look at each item once, in any order: the sum
 * of a table, a backup, a checksum.  @fn sees what an ordinary task would see, the pools as of its call, and what
 * the task itself has written there.  Units come in the order of @ranges and of addresses.  But as soon as the
 * main program overwrites a page that the scan still needs, the unit with its old content is next.  And what
 * the scan is done with needs no old content: the snapshot gives it up.  So what
 * is held for the task does not grow with what the main program overwrites, as
 * long as @fn is faster than that.
 *
 * That is where the backend has ORBIT_FEATURE_SCAN.  Elsewhere a scan sees the same, in the order of addresses, and holds
 * what an ordinary snapshot does: on the portable backend a copy of the pool (docs/backends.md), on an older kernel
 * what the main program overwrites until the task ends.
 *
 * What a task writes to a unit that is done with, or has written there, is lost.
 *
 * Returns 0.  What @fn returned, if it ended the scan: the task is done with
 * the units that it was called for, and can scan the others.  -EINVAL: @fn is NULL, there is no
 * range, one is empty, not in whole pages or overlaps another; an option is malformed.  -E2BIG: an unknown option.
 * -ENXIO: a range is not in one pool that the task sees (an older kernel does not tell).  -EALREADY: the
 * task is done with a part of one.  -EBUSY: called by the function of a scan.  -EPERM: not in an orbit, or not
 * the thread that runs the task.  -ENOMEM.  For these nothing has changed and @fn has not been called;
 * but -ENOMEM, when there are too many mappings (portable), may also come when it has been.
 */
ORBIT_API int orbit_scan(const struct orbit_range *ranges, size_t nr_ranges, orbit_scan_fn fn, void *user,
			 const struct orbit_scan_options *opts,
			 struct orbit_scanned *out) ORBIT_NOTHROW;

/* ---- Words and figures ------------------------------------------------------ */

/**
 * orbit_describe() - put an outcome into words
 * @out: From orbit_call(); or only @out->error set, to any return value of this
 *	library (for which orbit_describe_error() has better words).
 * @buf: Where to put the text, as snprintf() does; may be NULL if @len is 0.
 * @len: Its size.
 *
 * For example "killed by signal 11 (SIGSEGV) at address 0x0".
 *
 * Returns the length of the whole text without the NUL, or -EINVAL.
 */
ORBIT_API int orbit_describe(const struct orbit_outcome *out, char *buf,
			     size_t len) ORBIT_NOTHROW;

/* What failed, for orbit_describe_error(): the functions whose errors mean the same. */
enum orbit_step {
	ORBIT_STEP_CALL,    /* orbit_call(), orbit_call_async(), orbit_task_wait(), cancelling */
	ORBIT_STEP_CREATE,  /* orbit_create() */
	ORBIT_STEP_PREPARE, /* orbit_prepare() */
	ORBIT_STEP_POOL,    /* orbit_pool_create(), orbit_window_reserve() */
	ORBIT_STEP_SETUP,   /* orbit_probe(), orbit_use_backend() */
	ORBIT_STEP_SEND,    /* orbit_send_bytes() and its like, in a task */
	ORBIT_STEP_RECEIVE, /* orbit_task_receive(), orbit_task_apply_all() */
	ORBIT_STEP_TARGETS, /* what declares targets */
	ORBIT_STEP_APPLY,   /* orbit_update_apply() */
	ORBIT_STEP_SHARE,   /* orbit_shared_create(), orbit_share(), orbit_shared_renew() */
	ORBIT_STEP_SCAN,    /* orbit_scan() */
};

/**
 * orbit_describe_error() - put an error into words
 * @error: What a function returned; the sign does not matter.
 * @step: Which function: the same number means one thing for one and another for
 *	the other.
 * @buf: Where to put the text, as snprintf() does; may be NULL if @len is 0.
 * @len: Its size.
 *
 * If orbits do not work here at all and that is the error, the text is what
 * orbit_probe() says.  For the outcome of a call orbit_describe() knows more.
 *
 * Returns the length of the whole text without the NUL, or -EINVAL.
 */
ORBIT_API int orbit_describe_error(int error, enum orbit_step step, char *buf,
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
 * POLLOUT: it takes calls.  POLLHUP: it is dead for good.  It stays the library's:
 * do not close it.
 */
ORBIT_API int orbit_fd(const struct orbit_handle *orbit) ORBIT_NOTHROW;

/**
 * orbit_inside() - whether this is the process of an orbit
 *
 * Returns 1 in an orbit, its template, and what these fork; otherwise 0.
 */
ORBIT_API int orbit_inside(void) ORBIT_NOTHROW;

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
 * Called in whatever thread the message arose; never in an orbit.  What it calls of
 * the library gives -EDEADLK.
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
