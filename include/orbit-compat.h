/* SPDX-License-Identifier: MIT */
/*
 * The API that was published with "Operating System Support for Safe and Efficient
 * Auxiliary Execution" (OSDI 2022), over <orbit/orbit.h>.
 *
 * For programs that were written against it: they compile and run unchanged.  New
 * programs use <orbit/orbit.h> or <orbit/orbit.hpp>.  A program may use both APIs, but
 * a source file only one of them, for they share names.  Link with
 * `pkg-config --cflags --libs orbit-compat`; with these flags, #include "orbit.h" finds
 * this file too.  The symbols in the library have names of their own.
 *
 * WHAT AN ORBIT CAN DO.  By the contract of this API an update may change any address,
 * and an operation may be any function: what the main program applies, the orbit has
 * chosen.  A bug in the orbit can reach the main program that way, which <orbit/orbit.h>
 * does not allow.  To have a limit, a program declares what may be changed, with
 * orbit_compat_allow_range() and orbit_compat_allow_operation() below; everything else
 * is refused then.  With or without, records that do not fit into their scratch are
 * never followed, and no scratch overwrites one that has been received.
 *
 * Errors.  Functions that return an int, a long or an unsigned long return -1, and those
 * that return a pointer NULL, and set errno.  No function aborts.  All may be called
 * from any thread, but only one at a time may receive from a task or use a scratch.
 *
 * Where the published description says little, this is what was decided:
 *
 *  - All of a pool is in a snapshot, however much of it is used: what has not changed
 *    costs nothing.  `used` is kept by allocators, and read when one is created.
 *  - Pools that a call does not name cannot be touched by the task.  During init() an
 *    orbit sees all pools that exist.  The scratch pool need not be named.
 *  - ORBIT_MOVE: the task gets the pages, the main program has zeroes.  For the scratch
 *    pool, and in a call with ORBIT_CANCELLABLE, SKIP or CANCEL flags, it means ORBIT_COW.
 *  - The second argument of an entry is writable, aligned to 16 bytes, and gone when
 *    the entry returns.
 *  - The task of an orbit_call_async() without a struct orbit_task cannot send, but commit:
 *    a thread of the library puts its pages in place.  Where no descriptor is left for that, it
 *    cannot commit either (EPIPE there).
 *  - A forked child has neither pools nor orbits of its parent, and may make its own.
 *  - What orbit_create(), orbit_pool_create() and so on return may be given to free(): that
 *    ends neither orbit nor pool.  Allocators are for orbit_allocator_destroy().
 *  - An orbit has those descriptors of the main program that are not close-on-exec.
 *  - An orbit that has died is gone for good.
 *  - A scratch is received at the address at which it was built, so pointers into it
 *    are good on both sides.  Its memory is taken until orbit_recvv_finish(), or until it
 *    has been iterated to its end (orbit_apply(), orbit_skip() and so on) and the pool
 *    is more than half full: the oldest of these go first.
 *  - Several orbits may use one scratch pool.  Only the first builds its scratches there,
 *    each other one in memory of the same size that the library provides.
 *  - A scratch is received as soon as it is sent, and stays valid if the orbit dies.
 */
#ifndef ORBIT_COMPAT_H
#define ORBIT_COMPAT_H

#if defined(ORBIT_ORBIT_H) && !defined(ORBIT_COMPAT_LIBRARY)
#error "a source file includes either orbit-compat.h or orbit/orbit.h"
#endif

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <string.h>
#include <sys/types.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Functions have another name in the library, see above. */
#define ORBIT_COMPAT_API __attribute__((visibility("default")))
#define ORBIT_COMPAT_SYMBOL(name) __asm__("orbit_compat_" #name)

#define ORBIT_NAME_LEN 32	/* of orbit_module.name, with the NUL */
#define ORBIT_BUFFER_MAX 1024	/* most bytes of orbit_update.data in orbit_send() */

typedef int obid_t;

/* An orbit's function; store is what init() returned in the orbit. */
typedef unsigned long (*orbit_entry)(void *store, void *argbuf);

/* What a scratch may ask the main program to do. */
typedef unsigned long (*orbit_operation_func)(size_t argc, unsigned long argv[]);

/* ---- Orbits ---------------------------------------------------------------------- */

/*
 * An orbit.  mpid is the main program, lobid counts its orbits from 1, gobid is the
 * orbit's process.  It stays readable when the orbit is gone.
 */
struct orbit_module {
	pid_t mpid;
	obid_t lobid;
	obid_t gobid;
	orbit_entry entry_func;
	char name[ORBIT_NAME_LEN];
};

/**
 * orbit_create() - make an orbit
 * @name: For people, cut to ORBIT_NAME_LEN; may be NULL.
 * @entry: What it runs when a call names no function; may be NULL.
 * @init: Called once in the orbit, before this function returns; what it returns is
 *	handed to each entry.  May be NULL.
 *
 * Returns the orbit, or NULL: EPERM within an orbit, ECONNRESET if init() did not return,
 * ENOSYS where there are no orbits, and what fork() fails with.
 */
ORBIT_COMPAT_API struct orbit_module *orbit_create(const char *name, orbit_entry entry,
						   void *(*init)(void)) ORBIT_COMPAT_SYMBOL(create);

/** orbit_destroy() - end the orbit with this gobid: 0, or -1 with ESRCH. */
ORBIT_COMPAT_API int orbit_destroy(obid_t gobid) ORBIT_COMPAT_SYMBOL(destroy);

/** orbit_destroy_all() - end all orbits of this program: 0. */
ORBIT_COMPAT_API int orbit_destroy_all(void) ORBIT_COMPAT_SYMBOL(destroy_all);

/** orbit_exists() - it takes calls. */
ORBIT_COMPAT_API bool orbit_exists(struct orbit_module *module) ORBIT_COMPAT_SYMBOL(exists);

/** orbit_gone() - it has ended; the opposite of orbit_exists(). */
ORBIT_COMPAT_API bool orbit_gone(struct orbit_module *module) ORBIT_COMPAT_SYMBOL(gone);

/** is_orbit_context() - the caller runs in an orbit. */
ORBIT_COMPAT_API bool is_orbit_context(void) ORBIT_COMPAT_SYMBOL(is_orbit_context);

/* ---- Pools ----------------------------------------------------------------------- */

/* How a snapshot keeps a pool: write-protected, given away, copied. */
enum orbit_pool_mode { ORBIT_COW, ORBIT_MOVE, ORBIT_COPY };

/* Memory that orbits may see.  The caller may change mode. */
struct orbit_pool {
	void *rawptr;
	size_t length; /* whole pages */
	size_t used;
	enum orbit_pool_mode mode;
};

/**
 * orbit_pool_create() - make a pool
 * @module: Makes no difference: every orbit can be shown every pool.
 * @size: Bytes; rounded up to pages.
 *
 * It lasts as long as the program, or until orbit_compat_pool_destroy().  Returns it, or NULL.
 */
ORBIT_COMPAT_API struct orbit_pool *orbit_pool_create(struct orbit_module *module,
						      size_t size) ORBIT_COMPAT_SYMBOL(pool_create);

/**
 * orbit_pool_create_at() - make a pool at some address
 * @addr: Where; if that is not free, or no page's beginning, or NULL, the pool lies
 *	elsewhere.  See rawptr.
 *
 * A call with it fails (EADDRINUSE) in an orbit that was made before and has something of
 * its own there.
 */
ORBIT_COMPAT_API struct orbit_pool *
orbit_pool_create_at(struct orbit_module *module, size_t size,
		     void *addr) ORBIT_COMPAT_SYMBOL(pool_create_at);

/* ---- Calls ----------------------------------------------------------------------- */

/*
 * Flags of orbit_call_async().  "This argument" means the same argument bytes, for
 * whatever function; a task "waits" that has not begun.  A call has SKIP flags or CANCEL
 * flags, not both.
 */
#define ORBIT_NORETVAL (1 << 1)	       /* its value is not wanted: it is received as 0 */
#define ORBIT_CANCELLABLE (1 << 2)     /* it may be cancelled while it waits */
#define ORBIT_SKIP_SAME_ARG (1 << 3)   /* not if a task with this argument waits */
#define ORBIT_SKIP_ANY (1 << 4)	       /* not if any task waits */
#define ORBIT_CANCEL_SAME_ARG (1 << 5) /* cancel the cancellable ones with this argument */
#define ORBIT_CANCEL_ANY (1 << 6)      /* cancel all cancellable ones */

/* An asynchronous call; taskid 0: it was skipped. */
struct orbit_task {
	struct orbit_module *orbit;
	unsigned long taskid;
};

/**
 * orbit_call() - run a function in an orbit and wait for its value
 * @module: The orbit.
 * @npool: How many pools,
 * @pools: and which.
 * @func: The function; NULL for the orbit's entry.
 * @arg: Bytes for it,
 * @argsize: and how many, up to 65,536.
 *
 * The function cannot send (EPIPE there), but commit.
 *
 * Returns the value; -1 and an errno of 0 if that is the value.  Otherwise -1:
 * ECONNRESET: the orbit died in it.  ECANCELED: the orbit ended before.  ESHUTDOWN: it had
 * ended.  EAGAIN: 65,536 tasks wait.  EBUSY, EACCES: it has returned, but what it
 * committed was not (all) applied, see orbit_commit().  EINVAL, E2BIG, ENOMEM, EMFILE, EPERM.
 */
ORBIT_COMPAT_API long orbit_call(struct orbit_module *module, size_t npool,
				 struct orbit_pool **pools, orbit_entry func, void *arg,
				 size_t argsize) ORBIT_COMPAT_SYMBOL(call);

/**
 * orbit_call_async() - have a function run in an orbit
 * @flags: ORBIT_NORETVAL and so on, or 0.
 * @task: Filled in; NULL if nothing is to be received, then the function cannot send
 *	(EPIPE), but commit.
 *
 * The task has to be received to its end, for it holds a descriptor until then.  With
 * ORBIT_NORETVAL it need not be, if it sends nothing.
 *
 * Returns 0, also if it was skipped; or -1 like orbit_call().
 */
ORBIT_COMPAT_API int orbit_call_async(struct orbit_module *module, unsigned long flags,
				      size_t npool, struct orbit_pool **pools, orbit_entry func,
				      void *arg, size_t argsize,
				      struct orbit_task *task) ORBIT_COMPAT_SYMBOL(call_async);

/**
 * orbit_cancel_by_task() - cancel a cancellable task that waits
 *
 * Returns 1, 0 (it does not wait or is not cancellable), or -1.
 */
ORBIT_COMPAT_API int orbit_cancel_by_task(struct orbit_task *task)
	ORBIT_COMPAT_SYMBOL(cancel_by_task);

/**
 * orbit_cancel_by_arg() - cancel the first cancellable task that waits with these bytes
 *
 * Its function makes no difference.  Returns 1, 0 (there is none), or -1.
 */
ORBIT_COMPAT_API int orbit_cancel_by_arg(struct orbit_module *module, void *arg,
					 size_t argsize) ORBIT_COMPAT_SYMBOL(cancel_by_arg);

/* ---- Single updates, and commit ------------------------------------------------------ */

/* length bytes for an address. */
struct orbit_update {
	void *ptr;
	size_t length;
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wpedantic"
	char data[];
#pragma GCC diagnostic pop
};

/** orbit_send() - in a task: send an update; 0, or -1: EMSGSIZE, EPIPE, EPERM, ENOSPC. */
ORBIT_COMPAT_API unsigned long orbit_send(const struct orbit_update *update)
	ORBIT_COMPAT_SYMBOL(send);

/**
 * orbit_recv() - receive the next update of a task
 * @update: Filled in, with room for ORBIT_BUFFER_MAX bytes of data.  Nothing is applied.
 *
 * Returns 0; or -1.  EIDRM: there are no more, the task has returned.  EPROTO: a scratch
 * comes next.  EACCES: one that was refused is dropped.  Otherwise like orbit_recvv().
 */
ORBIT_COMPAT_API unsigned long orbit_recv(struct orbit_task *task,
					  struct orbit_update *update) ORBIT_COMPAT_SYMBOL(recv);

/**
 * orbit_commit() - in a task: put the pages it has written into the main program's pools
 *
 * Of all pools that it sees, but the scratch pool.  They are put in place when the main
 * program receives from the task, or orbit_call() returns.  A page that the main program
 * has written since the call keeps what is there, and the receiver is told (EBUSY).
 *
 * Returns 0, or -1.
 */
ORBIT_COMPAT_API unsigned long orbit_commit(void) ORBIT_COMPAT_SYMBOL(commit);

/* ---- Allocators ---------------------------------------------------------------------- */

/*
 * Memory out of a range.  Its state is in the range if that is in a pool, so a task may
 * allocate and free in its view; calls wait until no thread is in an allocator.
 *
 * For reading; lock is not used, and impl is the library's.  A copy of the struct is the
 * same allocator.
 */
struct orbit_allocator {
	void *start;
	size_t length;
	size_t *allocated;
	volatile int lock; /* a pthread_spinlock_t, which not every C standard has */
	bool use_meta;
	void *impl;
};

/**
 * orbit_allocator_create() - make an allocator
 * @start: The range,
 * @length: its bytes.
 * @allocated: Kept at how many bytes at the front of the range are in use, holes and
 *	state included; so many are left alone at the beginning.
 * @use_meta: Keep a header with each piece.  Without, nothing is given back by
 *	orbit_free(), and orbit_realloc() always moves, and copies too much.
 */
ORBIT_COMPAT_API struct orbit_allocator *
orbit_allocator_create(void *start, size_t length, size_t *allocated,
		       bool use_meta) ORBIT_COMPAT_SYMBOL(allocator_create);

/** orbit_allocator_from_pool() - the same over all of a pool, with its `used`. */
ORBIT_COMPAT_API struct orbit_allocator *
orbit_allocator_from_pool(struct orbit_pool *pool,
			  bool use_meta) ORBIT_COMPAT_SYMBOL(allocator_from_pool);

/** orbit_allocator_destroy() - give the allocator back; what it handed out stays. */
ORBIT_COMPAT_API void orbit_allocator_destroy(struct orbit_allocator *alloc)
	ORBIT_COMPAT_SYMBOL(allocator_destroy);

/** orbit_alloc() - size bytes, aligned to 16, or NULL with ENOMEM. */
ORBIT_COMPAT_API void *orbit_alloc(struct orbit_allocator *alloc,
				   size_t size) ORBIT_COMPAT_SYMBOL(alloc);

/** orbit_calloc() - the same, zeroed. */
ORBIT_COMPAT_API void *orbit_calloc(struct orbit_allocator *alloc,
				    size_t size) ORBIT_COMPAT_SYMBOL(calloc);

/** orbit_free() - give a piece back; NULL, and what is not in use, is left alone. */
ORBIT_COMPAT_API void orbit_free(struct orbit_allocator *alloc,
				 void *ptr) ORBIT_COMPAT_SYMBOL(free);

/** orbit_realloc() - as realloc(), except that size 0 gives a piece. */
ORBIT_COMPAT_API void *orbit_realloc(struct orbit_allocator *alloc, void *ptr,
				     size_t size) ORBIT_COMPAT_SYMBOL(realloc);

/** orbit_allocated_by() - ptr lies in the allocator's range; false if that is NULL. */
ORBIT_COMPAT_API bool orbit_allocated_by(const void *ptr, const struct orbit_allocator *alloc)
	ORBIT_COMPAT_SYMBOL(allocated_by);

/* ---- Scratches ----------------------------------------------------------------------- */

enum orbit_type { ORBIT_END, ORBIT_UNKNOWN, ORBIT_ANY, ORBIT_UPDATE, ORBIT_OPERATION };

struct orbit_operation {
	orbit_operation_func func;
	size_t argc;
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wpedantic"
	unsigned long argv[];
#pragma GCC diagnostic pop
};

/* Bytes that mean something to the program. */
struct orbit_any {
	size_t length;
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wpedantic"
	char data[];
#pragma GCC diagnostic pop
};

/* A record of a scratch; the next one begins at a multiple of 16 bytes. */
struct orbit_repr {
	enum orbit_type type;
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wpedantic"
	union {
		struct orbit_update update;
		struct orbit_operation operation;
		struct orbit_any any;
	};
#pragma GCC diagnostic pop
};

/*
 * A buffer of records.  While it is built, cursor is behind the last of count records;
 * when it has been received, before the next of count that are left.
 */
struct orbit_scratch {
	void *ptr;
	size_t cursor;
	size_t size_limit; /* bytes from ptr on */
	size_t count;
	struct orbit_allocator *any_alloc; /* of orbit_scratch_open_any() */
};

/* What orbit_recvv() has received. */
union orbit_result {
	unsigned long retval;
	struct orbit_scratch scratch;
};

/**
 * orbit_scratch_set_pool() - say where scratches are built
 *
 * In the main program: for the calls that it makes from then on.  Returns 0, or -1.
 */
ORBIT_COMPAT_API int orbit_scratch_set_pool(struct orbit_pool *pool)
	ORBIT_COMPAT_SYMBOL(scratch_set_pool);

/**
 * orbit_scratch_create() - in a task: begin a scratch
 *
 * It has all room that is there in one piece, so a second one begins at the same place
 * unless the first has been sent.  In the main program the room is elsewhere, and the
 * scratch cannot be sent.
 *
 * Returns 0, or -1: ENXIO (no pool was set, or the task has no handle to send with),
 * ENOSPC (all of it is taken).
 */
ORBIT_COMPAT_API int orbit_scratch_create(struct orbit_scratch *s)
	ORBIT_COMPAT_SYMBOL(scratch_create);

/* These append a record and return how many there are, or -1 with ENOSPC. */
ORBIT_COMPAT_API int orbit_scratch_push_update(struct orbit_scratch *s, void *ptr,
					       size_t length) ORBIT_COMPAT_SYMBOL(scratch_push_update);
ORBIT_COMPAT_API int
orbit_scratch_push_operation(struct orbit_scratch *s, orbit_operation_func func, size_t argc,
			     unsigned long argv[]) ORBIT_COMPAT_SYMBOL(scratch_push_operation);

/**
 * orbit_scratch_push_any() - append bytes
 * @ptr: The bytes; NULL for room that is to be filled later.
 *
 * Returns where they are in the scratch, or NULL with ENOSPC.
 */
ORBIT_COMPAT_API void *orbit_scratch_push_any(struct orbit_scratch *s, void *ptr,
					      size_t length) ORBIT_COMPAT_SYMBOL(scratch_push_any);

/**
 * orbit_scratch_open_any() - append bytes by allocating them
 *
 * Returns the allocator, which lasts until orbit_scratch_close_any() or any other function
 * on this scratch; or NULL.
 */
ORBIT_COMPAT_API struct orbit_allocator *
orbit_scratch_open_any(struct orbit_scratch *s,
		       bool use_meta) ORBIT_COMPAT_SYMBOL(scratch_open_any);

/** orbit_scratch_close_any() - end that record; returns how many records there are. */
ORBIT_COMPAT_API int orbit_scratch_close_any(struct orbit_scratch *s)
	ORBIT_COMPAT_SYMBOL(scratch_close_any);

/** orbit_scratch_empty() - there are no (more) records in it. */
static inline bool orbit_scratch_empty(const struct orbit_scratch *s)
{
	return s->count == 0;
}

/**
 * orbit_sendv() - in a task: hand over a scratch, without a copy
 *
 * Its memory is the main program's then.  Returns 0; or -1, and it can be sent again: EPERM
 * (not in a task), EPIPE, ENOSPC (of updates that have not been received), EINVAL (no scratch).
 */
ORBIT_COMPAT_API int orbit_sendv(struct orbit_scratch *s) ORBIT_COMPAT_SYMBOL(sendv);

/**
 * orbit_recvv() - receive a scratch or the value of a task
 *
 * Scratches come in the order in which they were sent, then the value.
 *
 * Returns 1: result->scratch.  0: result->retval, and the task is over.  -1: the task is over,
 * or never was: ECONNRESET, ECANCELED, ENOMEM as for orbit_call(); ESRCH: there is no such task;
 * or something was dropped and the next can be received: EPROTO: an update comes next, see
 * orbit_recv() (it is not dropped); EBADMSG: a scratch that is malformed or not where it may
 * be; EBUSY, EACCES: see orbit_commit().
 */
ORBIT_COMPAT_API int orbit_recvv(union orbit_result *result,
				 struct orbit_task *task) ORBIT_COMPAT_SYMBOL(recvv);

/** orbit_recvv_finish() - give a received scratch's memory back: 0, or -1 with EINVAL. */
ORBIT_COMPAT_API int orbit_recvv_finish(struct orbit_scratch *s) ORBIT_COMPAT_SYMBOL(recvv_finish);

/**
 * orbit_apply_one() - do what the next record says
 * @yield: Stop at ORBIT_ANY instead of passing over it.
 *
 * Returns its type.  ORBIT_END: there are no more.  ORBIT_UNKNOWN: it was refused, and
 * passed over; or it is malformed, and so all that follow are dropped.
 */
ORBIT_COMPAT_API enum orbit_type orbit_apply_one(struct orbit_scratch *s,
						 bool yield) ORBIT_COMPAT_SYMBOL(apply_one);

/** orbit_apply() - all of them, until ORBIT_END, ORBIT_UNKNOWN, or an ORBIT_ANY to stop at. */
ORBIT_COMPAT_API enum orbit_type orbit_apply(struct orbit_scratch *s,
					     bool yield) ORBIT_COMPAT_SYMBOL(apply);

/* The same without doing it. */
ORBIT_COMPAT_API enum orbit_type orbit_skip_one(struct orbit_scratch *s,
						bool yield) ORBIT_COMPAT_SYMBOL(skip_one);
ORBIT_COMPAT_API enum orbit_type orbit_skip(struct orbit_scratch *s,
					    bool yield) ORBIT_COMPAT_SYMBOL(skip);

/** orbit_scratch_first() - the next record; NULL if there is none or it is malformed. */
ORBIT_COMPAT_API struct orbit_repr *orbit_scratch_first(struct orbit_scratch *s)
	ORBIT_COMPAT_SYMBOL(scratch_first);

/** orbit_scratch_next() - pass over that one, and return the one behind it. */
ORBIT_COMPAT_API struct orbit_repr *orbit_scratch_next(struct orbit_scratch *s)
	ORBIT_COMPAT_SYMBOL(scratch_next);

/* ---- Not in the published API: limits ---------------------------------------------- */

/**
 * orbit_compat_allow_range() - declare memory that orbits may change
 *
 * From the first call on, updates and committed pages that do not lie within one
 * declared range are refused.  Returns 0, or -1: EINVAL, EEXIST (it overlaps), ENOMEM.
 */
ORBIT_COMPAT_API int orbit_compat_allow_range(void *start,
					      size_t length) ORBIT_COMPAT_SYMBOL(allow_range);

/** orbit_compat_allow_operation() - the same for the functions of operations. */
ORBIT_COMPAT_API int orbit_compat_allow_operation(orbit_operation_func func)
	ORBIT_COMPAT_SYMBOL(allow_operation);

/**
 * orbit_compat_pool_destroy() - give a pool's memory and descriptor back
 *
 * Not the one that scratches are built in (EBUSY).  No thread may use the memory, or a
 * call that names it, any more.  Returns 0, or -1: EINVAL, EPERM (in an orbit).
 */
ORBIT_COMPAT_API int orbit_compat_pool_destroy(struct orbit_pool *pool)
	ORBIT_COMPAT_SYMBOL(pool_destroy);

/**
 * orbit_compat_inherit_minimal() - choose what orbits inherit
 *
 * Orbits that are made from then on have code, global variables, pools and allocators of
 * the main program, but not its heap: neither their creation nor the memory that they
 * hold grows with it.  To be called early in main(), with one thread, before orbits; see
 * orbit_prepare(3).  Without it they inherit all, as the published library has it.
 *
 * Returns 0, or -1: EPERM (in an orbit), EBUSY (there is an orbit), and as orbit_prepare().
 */
ORBIT_COMPAT_API int orbit_compat_inherit_minimal(void) ORBIT_COMPAT_SYMBOL(inherit_minimal);

/** orbit_compat_refused() - how much was refused or malformed so far. */
ORBIT_COMPAT_API unsigned long orbit_compat_refused(void) ORBIT_COMPAT_SYMBOL(refused);

/* What orbit::set_global_allocator() has set, or NULL: for the C++ part below. */
ORBIT_COMPAT_API void orbit_compat_set_global_allocator(struct orbit_allocator *alloc)
	ORBIT_COMPAT_SYMBOL(set_global_allocator);
ORBIT_COMPAT_API struct orbit_allocator *orbit_compat_global_allocator(void)
	ORBIT_COMPAT_SYMBOL(global_allocator);

#ifdef __cplusplus
}

#ifndef ORBIT_COMPAT_LIBRARY

#include <cstddef>
#include <cstdlib>
#include <memory>
#include <new>

/*
 * Containers and objects in an orbit_allocator.  The names are apart from those of
 * <orbit/orbit.hpp> for the linker: a program may have both, in different files.
 */
namespace orbit {
inline namespace compat {

inline void *orbit_compat_allocate(orbit_allocator *alloc, std::size_t count, std::size_t bytes)
{
	if (count <= static_cast<std::size_t>(-1) / bytes)
		if (void *memory = orbit_alloc(alloc, count * bytes))
			return memory;
#ifdef __cpp_exceptions
	throw std::bad_alloc();
#else
	std::abort();
#endif
}

/** What global_allocator and global_new_operator use; NULL: the heap. */
inline void set_global_allocator(orbit_allocator *alloc)
{
	orbit_compat_set_global_allocator(alloc);
}

/** For containers: memory of the global allocator, or of the heap where there is none. */
template <class T> struct global_allocator {
	typedef T value_type;

	global_allocator() noexcept {}
	template <class U> global_allocator(const global_allocator<U> &) noexcept {}
	T *allocate(std::size_t n)
	{
		orbit_allocator *alloc = orbit_compat_global_allocator();

		return alloc ? static_cast<T *>(orbit_compat_allocate(alloc, n, sizeof(T))) :
			       std::allocator<T>().allocate(n);
	}
	void deallocate(T *p, std::size_t n) noexcept
	{
		/* What came from the heap before there was one goes back there. */
		orbit_allocator *alloc = orbit_compat_global_allocator();

		if (orbit_allocated_by(p, alloc))
			orbit_free(alloc, p);
		else
			std::allocator<T>().deallocate(p, n);
	}
};

template <class T, class U>
bool operator==(const global_allocator<T> &, const global_allocator<U> &) noexcept
{
	return true;
}

template <class T, class U>
bool operator!=(const global_allocator<T> &, const global_allocator<U> &) noexcept
{
	return false;
}

/** A base for classes whose objects new takes from the global allocator. */
struct global_new_operator {
	static void *operator new(std::size_t size)
	{
		orbit_allocator *alloc = orbit_compat_global_allocator();

		return alloc ? orbit_compat_allocate(alloc, 1, size) : ::operator new(size);
	}
	static void operator delete(void *ptr) noexcept
	{
		orbit_allocator *alloc = orbit_compat_global_allocator();

		if (orbit_allocated_by(ptr, alloc))
			orbit_free(alloc, ptr);
		else
			::operator delete(ptr);
	}
};

/** For containers: memory of one allocator, which has to outlive them; of the heap for NULL. */
template <class T> struct allocator {
	typedef T value_type;

	allocator(orbit_allocator *alloc) noexcept : alloc_(alloc) {}
	template <class U> allocator(const allocator<U> &other) noexcept : alloc_(other.underlying()) {}
	T *allocate(std::size_t n)
	{
		return alloc_ ? static_cast<T *>(orbit_compat_allocate(alloc_, n, sizeof(T))) :
				std::allocator<T>().allocate(n);
	}
	void deallocate(T *p, std::size_t n) noexcept
	{
		if (alloc_)
			orbit_free(alloc_, p);
		else
			std::allocator<T>().deallocate(p, n);
	}
	orbit_allocator *underlying() const noexcept { return alloc_; }

private:
	orbit_allocator *alloc_;
};

template <class T, class U> bool operator==(const allocator<T> &a, const allocator<U> &b) noexcept
{
	return a.underlying() == b.underlying();
}

template <class T, class U> bool operator!=(const allocator<T> &a, const allocator<U> &b) noexcept
{
	return !(a == b);
}

} /* namespace compat */
} /* namespace orbit */

#endif /* ORBIT_COMPAT_LIBRARY */

/*
 * Append an operation that has the main program run a body with some values of the
 * task's: integers and pointers, under the names that they have here.
 */
#define orbit_scratch_run1(s, type1, name1, ...)                                                \
	do {                                                                                    \
		unsigned long orbit_values_[] = {(unsigned long)(name1)};                       \
		orbit_scratch_push_operation(                                                   \
			(s),                                                                    \
			[](size_t, unsigned long *orbit_args_) -> unsigned long {               \
				type1 name1 = (type1)orbit_args_[0];                            \
				__VA_ARGS__;                                                    \
				return 0;                                                       \
			},                                                                      \
			1, orbit_values_);                                                      \
	} while (0)

#define orbit_scratch_run2(s, type1, name1, type2, name2, ...)                                  \
	do {                                                                                    \
		unsigned long orbit_values_[] = {(unsigned long)(name1), (unsigned long)(name2)}; \
		orbit_scratch_push_operation(                                                   \
			(s),                                                                    \
			[](size_t, unsigned long *orbit_args_) -> unsigned long {               \
				type1 name1 = (type1)orbit_args_[0];                            \
				type2 name2 = (type2)orbit_args_[1];                            \
				__VA_ARGS__;                                                    \
				return 0;                                                       \
			},                                                                      \
			2, orbit_values_);                                                      \
	} while (0)

#define orbit_scratch_run3(s, type1, name1, type2, name2, type3, name3, ...)                    \
	do {                                                                                    \
		unsigned long orbit_values_[] = {(unsigned long)(name1), (unsigned long)(name2), \
						 (unsigned long)(name3)};                       \
		orbit_scratch_push_operation(                                                   \
			(s),                                                                    \
			[](size_t, unsigned long *orbit_args_) -> unsigned long {               \
				type1 name1 = (type1)orbit_args_[0];                            \
				type2 name2 = (type2)orbit_args_[1];                            \
				type3 name3 = (type3)orbit_args_[2];                            \
				__VA_ARGS__;                                                    \
				return 0;                                                       \
			},                                                                      \
			3, orbit_values_);                                                      \
	} while (0)

#endif

#endif /* ORBIT_COMPAT_H */
