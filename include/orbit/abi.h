/* SPDX-License-Identifier: GPL-2.0 WITH Linux-syscall-note */
/*
 * Orbits: auxiliary execution in an address space of its own, over snapshots
 * of chosen memory pools of the main program.
 *
 * Documentation/userspace-api/orbit.rst describes the calls.  Every argument
 * struct is extensible: its size is passed along, a shorter one is padded with
 * zeroes, and a longer one is accepted if what the kernel does not know is zero.
 * Where the kernel fills in a struct, what it does not know is set to zero.
 */
#ifndef _UAPI_LINUX_ORBIT_H
#define _UAPI_LINUX_ORBIT_H

#include <linux/types.h>

/*
 * The numbers of the calls, the same in every configuration.  <asm/unistd.h> has
 * them too, if it comes from a kernel with CONFIG_ORBIT.
 */
#if defined(__x86_64__) && !defined(__ILP32__)
#define __NR_orbit_create 548
#define __NR_orbit_pool 549
#define __NR_orbit_call 550
#define __NR_orbit_return 551
#define __NR_orbit_ctl 552
#define __NR_orbit_send 553
#define __NR_orbit_recv 554
#define __NR_orbit_cancel 555
#endif

/* The level of this interface, as orbit_ctl(ORBIT_CTL_QUERY) reports it. */
#define ORBIT_ABI		2

#define ORBIT_NAME_LEN		32	/* with the terminating NUL */
#define ORBIT_MAX_POOLS		1024	/* pools named in one call */
#define ORBIT_MAX_ARG		65536	/* argument bytes of one call */
#define ORBIT_MAX_QUEUE		65536	/* tasks of one orbit, waiting or running */
#define ORBIT_DEFAULT_QUEUE	1024	/* the same, where nothing else is asked for */
#define ORBIT_MAX_UPDATE	(4 << 20)	/* bytes of one update */
#define ORBIT_DEFAULT_UPDATES	(64 << 20)	/* bytes of all updates of one task */
#define ORBIT_MAX_SCAN		32	/* ranges that one ORBIT_CTL_SCAN takes, or tells */

/* struct orbit_create_args.flags */
#define ORBIT_CREATE_RESTART	(1ULL << 0)

/**
 * struct orbit_create_args - orbit_create(args, size)
 * @flags: ORBIT_CREATE_RESTART: the orbit outlives its process.  When that ends,
 *	the queue stays, and another process may attach.  Otherwise 0.
 * @name: A name for people, NUL-terminated; shown in fdinfo and traces.
 * @queue_limit: How many tasks may wait or run, up to ORBIT_MAX_QUEUE; 0 for
 *	ORBIT_DEFAULT_QUEUE.
 * @nr_files: How many descriptors its process may have open, its own for
 *	orbit_return() included; 0 for no limit but the process's own.
 * @memory_limit: Bytes that its process may use beyond what it had when it
 *	attached, what it writes to its views included; 0 for no limit.
 * @cpu_percent: How much of one CPU its threads together may use while a task
 *	runs: 150 is one and a half.  They are stopped for as long as it takes.
 *	0 for no limit.
 * @pad: Must be 0.
 * @update_limit: Bytes of updates that one task may have sent and main not yet
 *	received; 0 for ORBIT_DEFAULT_UPDATES.
 *
 * Returns the descriptor (close-on-exec) by which the main program calls the
 * orbit.  The orbit has no process yet: another one, as a rule a fresh child of
 * the caller, becomes it with ORBIT_CTL_ATTACH.
 */
struct orbit_create_args {
	__aligned_u64 flags;
	char name[ORBIT_NAME_LEN];
	/* since ABI 2 */
	__u32 queue_limit;
	__u32 nr_files;
	__aligned_u64 memory_limit;
	__u32 cpu_percent;
	__u32 pad;
	__aligned_u64 update_limit;
};

/**
 * struct orbit_pool_args - orbit_pool(args, size)
 * @flags: Must be 0.
 * @size: Bytes; a multiple of the page size, not 0.
 * @name: A name for people, NUL-terminated.
 *
 * Returns a descriptor (close-on-exec) that the calling process, and no other,
 * maps once, whole and MAP_SHARED.
 */
struct orbit_pool_args {
	__aligned_u64 flags;
	__aligned_u64 size;
	char name[ORBIT_NAME_LEN];
};

/* struct orbit_pool_ref.flags: how a snapshot keeps the pages that changed */
#define ORBIT_SNAP_COW		0	/* write-protect; copy if main writes too soon */
#define ORBIT_SNAP_COPY		1	/* copy at the call; main's writes do not fault */
#define ORBIT_SNAP_ADAPTIVE	2	/* per page, whichever has been cheaper of late */
#define ORBIT_SNAP_MOVE		3	/* the task gets the pages, main has zeroes */

/**
 * struct orbit_pool_ref - a pool named in a call
 * @fd: The pool's descriptor.
 * @flags: One of ORBIT_SNAP_*.
 * @offset: First byte of the part that the task shall see, a multiple of the
 *	page size.
 * @length: Its size, likewise; 0, with an @offset of 0, for the whole pool.
 */
struct orbit_pool_ref {
	__s32 fd;
	__u32 flags;
	__aligned_u64 offset;
	__aligned_u64 length;
};

/* Why an orbit ended: struct orbit_result.cause, struct orbit_stat.cause. */
enum orbit_cause {
	ORBIT_CAUSE_NONE,	/* it has not ended */
	ORBIT_CAUSE_EXIT,	/* it called _exit(); code is the status */
	ORBIT_CAUSE_SIGNAL,	/* a signal killed it; code is its number */
	ORBIT_CAUSE_TIMEOUT,	/* a task ran past its time limit */
	ORBIT_CAUSE_MEMORY,	/* no memory to keep a running task's snapshot */
	ORBIT_CAUSE_EXEC,	/* it replaced its program */
	ORBIT_CAUSE_DESTROYED,	/* ORBIT_CTL_KILL, or its last descriptor was closed */
	ORBIT_CAUSE_OWNER,	/* the main program ended or called exec */
	/* since ABI 2 */
	ORBIT_CAUSE_LIMIT,	/* it went past its memory limit */
	ORBIT_CAUSE_TEMPLATE,	/* its template has ended, so it cannot be restarted */
};

/**
 * struct orbit_result - the outcome of a task
 * @task: The task's number in its orbit, from 1.
 * @value: What the task returned; meaningful if @error is 0.
 * @cause: enum orbit_cause, if the orbit's process ended.
 * @code: The exit status or signal number that goes with @cause.
 * @fault_addr: The address whose access raised the signal, or 0.
 * @error: 0, or the (positive) error number that orbit_call() fails with.
 * @updates: How many updates it sent, received or not.
 */
struct orbit_result {
	__aligned_u64 task;
	__aligned_u64 value;
	__u32 cause;
	__s32 code;
	__aligned_u64 fault_addr;
	/* since ABI 2 */
	__u32 error;
	__u32 updates;
};

/* struct orbit_call_args.flags */
#define ORBIT_CALL_ASYNC	(1ULL << 0)	/* return when the task is queued */
#define ORBIT_CALL_HANDLE	(1ULL << 1)	/* make a task descriptor */
#define ORBIT_CALL_WAIT_ROOM	(1ULL << 2)	/* wait while the queue is full */
#define ORBIT_CALL_REPLACEABLE	(1ULL << 3)	/* a later call may replace the task */
#define ORBIT_CALL_SKIP_SAME	(1ULL << 4)	/* not if one with this argument waits */
#define ORBIT_CALL_SKIP_ANY	(1ULL << 5)	/* not if any task waits */
#define ORBIT_CALL_REPLACE_SAME	(1ULL << 6)	/* cancel those with this argument */
#define ORBIT_CALL_REPLACE_ANY	(1ULL << 7)	/* cancel all that wait */
#define ORBIT_CALL_RETRY	(1ULL << 8)	/* run once more if the orbit dies in it */
#define ORBIT_CALL_STREAM	(1ULL << 9)	/* updates can be received while it runs */

/**
 * struct orbit_call_args - orbit_call(fd, args, size)
 * @flags: ORBIT_CALL_*.  "This argument" means the same @entry and the same
 *	argument bytes; "waits" means queued and not yet begun.  Replacing calls
 *	cancel only tasks that were called as ORBIT_CALL_REPLACEABLE.
 * @task: 0 for a new call.  When a signal handler interrupts the wait, the call
 *	fails with EINTR (or restarts by itself under SA_RESTART), and when
 *	@deadline_ns passes, with ETIME; then this holds the task's number, if it
 *	was queued, and the same arguments wait on for the same task.  Its
 *	outcome is given once; after that the number is unknown (ESRCH).  A call
 *	with ORBIT_CALL_ASYNC sets it on success.
 * @entry: For the orbit, uninterpreted: what to run.
 * @arg: Address of the argument bytes.
 * @arg_size: How many, up to ORBIT_MAX_ARG.
 * @pools: Address of an array of struct orbit_pool_ref, no pool twice.
 * @nr_pools: Its length, up to ORBIT_MAX_POOLS.
 * @pad: Must be 0.
 * @time_limit_ns: From the task's start; past it the orbit is killed.  Also, a
 *	second late at most, if the task's turn has come and the orbit does not begin
 *	it for so long.  0: none.
 * @result: Address of a struct orbit_result to fill in, or 0.  Cleared when the
 *	call begins.
 * @result_size: Its size as the caller knows it; ignored if @result is 0.
 * @deadline_ns: When to give up waiting, for room or for the outcome, in
 *	nanoseconds of CLOCK_MONOTONIC; 0 for never.
 * @cpu_limit_ns: CPU time that the orbit may use in the task; past it, it is
 *	killed, some milliseconds late.  0: no limit.
 * @handle: Set to the task's descriptor (close-on-exec), if one is asked for: for
 *	orbit_recv(), orbit_cancel() and poll().  It is made before the task is
 *	queued; -1 if the call failed before that.  Waiting on for an old task
 *	leaves it alone.
 * @pad2: Must be 0.
 *
 * Takes a snapshot of the pools, queues the task and waits for its outcome.
 * Returns 0 when the task returned, or with ORBIT_CALL_ASYNC when it is queued.
 * Errors that say how a task ended: ECONNRESET the orbit died in it, ETIMEDOUT
 * it ran past its limit, ECANCELED it was cancelled or the orbit ended before it
 * began, ENOMEM there was no memory for its snapshot, EADDRINUSE the orbit has
 * put something else where a pool belongs.  For all but the last, @result tells
 * why the orbit ended, if it did.  Not queued: EAGAIN the queue is full, EEXIST
 * it was skipped.
 */
struct orbit_call_args {
	__aligned_u64 flags;
	__aligned_u64 task;
	__aligned_u64 entry;
	__aligned_u64 arg;
	__aligned_u64 arg_size;
	__aligned_u64 pools;
	__u32 nr_pools;
	__u32 pad;
	__aligned_u64 time_limit_ns;
	__aligned_u64 result;
	__aligned_u64 result_size;
	/* since ABI 2 */
	__aligned_u64 deadline_ns;
	__aligned_u64 cpu_limit_ns;
	__s32 handle;
	__u32 pad2;
};

/* struct orbit_cancel_args.flags */
#define ORBIT_CANCEL_SAME	(1ULL << 0)	/* all with this argument */
#define ORBIT_CANCEL_ALL	(1ULL << 1)	/* all */
#define ORBIT_CANCEL_RUNNING	(1ULL << 2)	/* also if it runs: by killing the process */

/**
 * struct orbit_cancel_args - orbit_cancel(fd, args, size)
 * @flags: ORBIT_CANCEL_*; without SAME or ALL, one task is cancelled.
 * @task: On the orbit's descriptor, that task's number.  Otherwise 0.
 * @entry: With ORBIT_CANCEL_SAME, as in the call.
 * @arg: Likewise.
 * @arg_size: Likewise.
 * @cancelled: Set to how many tasks were cancelled.
 *
 * @fd is the orbit's descriptor, or a task's.  Cancelled tasks end with
 * ECANCELED; one that was running has ended when this returns.  Fails with ESRCH
 * if no such task waits or runs, EBUSY if the only ones run.
 */
struct orbit_cancel_args {
	__aligned_u64 flags;
	__aligned_u64 task;
	__aligned_u64 entry;
	__aligned_u64 arg;
	__aligned_u64 arg_size;
	__aligned_u64 cancelled;
};

/* struct orbit_send_args.flags */
#define ORBIT_SEND_PAGES	(1ULL << 0)

/**
 * struct orbit_send_args - orbit_send(fd, args, size)
 * @flags: ORBIT_SEND_PAGES: hand over the pages of a pool that the task has
 *	written to.  Otherwise 0.
 * @type: For the receiver, uninterpreted.
 * @pad: Must be 0.
 * @target: For the receiver, uninterpreted.
 * @data: Address of the bytes; with ORBIT_SEND_PAGES of a range, in whole pages,
 *	that lies in one pool that the task was called with.
 * @length: How many, up to ORBIT_MAX_UPDATE; or the length of the range, any.
 *
 * Made by the orbit's main thread while a task runs, on the descriptor from
 * ORBIT_CTL_ATTACH.  Adds an update to the task's outcome.  The main program can
 * receive it once the task has returned, or at once in a call with
 * ORBIT_CALL_STREAM; if the orbit dies in the task, what has not been received is
 * dropped.  Pages are moved: the orbit has them no more, and sees the snapshot
 * there again.  Fails with ENOSPC past the orbit's update limit, ESRCH if no task
 * runs, EPIPE if nobody can receive it, ENXIO if the range is not in one pool.
 */
struct orbit_send_args {
	__aligned_u64 flags;
	__u32 type;
	__u32 pad;
	__aligned_u64 target;
	__aligned_u64 data;
	__aligned_u64 length;
};

/* struct orbit_recv_args.flags */
#define ORBIT_RECV_OUTCOME	(1ULL << 0)	/* only the outcome; updates stay */
#define ORBIT_RECV_NOWAIT	(1ULL << 1)	/* EAGAIN rather than wait */

/* struct orbit_recv_args.kind */
enum orbit_recv_kind {
	ORBIT_RECV_END,		/* the outcome */
	ORBIT_RECV_BYTES,	/* an update: bytes */
	ORBIT_RECV_PAGES,	/* an update: an array of struct orbit_page_range */
};

/**
 * struct orbit_page_range - pages that a task has written to and sent
 * @offset: Of the first byte in the pool.
 * @length: In bytes.
 */
struct orbit_page_range {
	__aligned_u64 offset;
	__aligned_u64 length;
};

/**
 * struct orbit_recv_args - orbit_recv(fd, args, size)
 * @flags: ORBIT_RECV_*.
 * @deadline_ns: When to give up waiting, in nanoseconds of CLOCK_MONOTONIC; 0 for
 *	never.
 * @buf: Where to put an update.
 * @buf_size: In: its room.  Out: the size of the update.
 * @result: Address of a struct orbit_result for the outcome, or 0.
 * @result_size: Its size as the caller knows it.
 * @kind: Set to enum orbit_recv_kind.
 * @type: Set to what the sender gave.
 * @target: Likewise.
 * @pool: For ORBIT_RECV_PAGES: set to the pool's place in orbit_call_args.pools.
 * @pad: Must be 0.
 *
 * @fd is a task's descriptor; the caller is the main program.  Receives the
 * task's updates in the order in which they were sent, and then, as often as it
 * is called, the outcome.  E2BIG tells the size needed in @buf_size and leaves the
 * update where it is.  The pages of an update can be applied with ORBIT_CTL_APPLY
 * until the next one is received.  Fails with ETIME past the deadline, EAGAIN,
 * EINTR.
 */
struct orbit_recv_args {
	__aligned_u64 flags;
	__aligned_u64 deadline_ns;
	__aligned_u64 buf;
	__aligned_u64 buf_size;
	__aligned_u64 result;
	__aligned_u64 result_size;
	__u32 kind;
	__u32 type;
	__aligned_u64 target;
	__u32 pool;
	__u32 pad;
};

/**
 * struct orbit_return_args - orbit_return(fd, args, size)
 * @flags: Must be 0.
 * @value: In: the value of the task that the last orbit_return() delivered.
 * @arg: In: where to put the argument bytes of the next task.
 * @arg_size: In: how many fit there.  Out: how many there are.
 * @task: Out: the task's number.
 * @entry: Out: what the caller passed in orbit_call_args.entry.
 *
 * Made by the orbit's main thread on the descriptor from ORBIT_CTL_ATTACH.
 * Ends the running task, if there is one, and waits for the next, whose
 * snapshot is in place on return.  E2BIG leaves the task in the queue and
 * tells the size needed in @arg_size.  A @value is taken once: with it, E2BIG,
 * EINTR and EFAULT for @arg end the running task too.  Closing the descriptor
 * ends the orbit.
 */
struct orbit_return_args {
	__aligned_u64 flags;
	__aligned_u64 value;
	__aligned_u64 arg;
	__aligned_u64 arg_size;
	__aligned_u64 task;
	__aligned_u64 entry;
};

/* orbit_ctl(fd, op, arg, size) */
enum orbit_ctl_op {
	ORBIT_CTL_QUERY,	/* fd -1, struct orbit_info */
	ORBIT_CTL_ATTACH,	/* struct orbit_attach_args */
	ORBIT_CTL_STAT,		/* struct orbit_stat */
	ORBIT_CTL_KILL,		/* no argument: NULL, size 0 */
	/* since ABI 2 */
	ORBIT_CTL_TEMPLATE,	/* struct orbit_attach_args */
	ORBIT_CTL_AWAIT,	/* no argument: NULL, size 0 */
	ORBIT_CTL_APPLY,	/* struct orbit_apply_args */
	ORBIT_CTL_SCAN,		/* struct orbit_scan_args; with ORBIT_FEATURE_SCAN */
};

#define ORBIT_FEATURE_QUEUE	(1ULL << 0)	/* ASYNC, HANDLE, cancel, skip, replace */
#define ORBIT_FEATURE_MODES	(1ULL << 1)	/* ORBIT_SNAP_*, parts of pools */
#define ORBIT_FEATURE_UPDATES	(1ULL << 2)	/* orbit_send(), orbit_recv(), APPLY */
#define ORBIT_FEATURE_RESTART	(1ULL << 3)	/* templates, RETRY */
#define ORBIT_FEATURE_LIMITS	(1ULL << 4)	/* files, memory, CPU */
#define ORBIT_FEATURE_SCAN	(1ULL << 5)	/* ORBIT_CTL_SCAN */

/**
 * struct orbit_info - what this kernel offers (ORBIT_CTL_QUERY)
 * @abi: ORBIT_ABI of the kernel.
 * @max_pools: ORBIT_MAX_POOLS of the kernel.
 * @max_arg: ORBIT_MAX_ARG of the kernel.
 * @pad: 0.
 * @features: ORBIT_FEATURE_*.
 */
struct orbit_info {
	__u32 abi;
	__u32 max_pools;
	__u32 max_arg;
	__u32 pad;
	__aligned_u64 features;
};

/**
 * struct orbit_attach_args - the caller becomes the orbit (ORBIT_CTL_ATTACH)
 * @flags: Must be 0.
 *
 * Called on the orbit's descriptor by a single-threaded child of the main program, or
 * of a template of it; on the template's descriptor by a child of that one.  The child
 * must neither have called exec nor have changed its credentials since it was forked,
 * and must have no_new_privs set, or CAP_SYS_ADMIN in its user namespace; otherwise
 * EPERM.  Returns a new descriptor (close-on-exec) for orbit_return(); the caller
 * should close the one it called on.  The process leaves its parent's children (no
 * SIGCHLD, no zombie) and becomes the first choice of the out-of-memory killer.
 *
 * ORBIT_CTL_TEMPLATE takes the same argument.  It makes the caller, another such
 * process, the orbit's template, and returns a descriptor on which it waits with
 * ORBIT_CTL_AWAIT until the orbit needs a process, forks, and has the child attach.
 * The orbit must have been created with ORBIT_CREATE_RESTART.  A template
 * likewise leaves its parent's children, and ends with the orbit.
 */
struct orbit_attach_args {
	__aligned_u64 flags;
};

/* struct orbit_apply_args.flags */
#define ORBIT_APPLY_FORCE	(1ULL << 0)	/* also over what main has written since */

/**
 * struct orbit_apply_args - put pages of an update into a pool (ORBIT_CTL_APPLY)
 * @flags: ORBIT_APPLY_*.
 * @from: Where the pages were in the pool they were sent from,
 * @length: and how far that goes; whole pages.
 * @pool: Descriptor of the pool that gets them.
 * @pad: Must be 0.
 * @offset: Where in it.
 * @applied: Set to how many pages were put in place.
 * @conflicts: Set to how many were not, because main has written to the same
 *	page of the same pool after the task's snapshot.  They stay with the
 *	update.
 *
 * On the task's descriptor, after orbit_recv() has delivered ORBIT_RECV_PAGES and
 * before it delivers anything else.  Pages are moved where they can be.
 */
struct orbit_apply_args {
	__aligned_u64 flags;
	__aligned_u64 from;
	__aligned_u64 length;
	__s32 pool;
	__u32 pad;
	__aligned_u64 offset;
	__aligned_u64 applied;
	__aligned_u64 conflicts;
};

/* struct orbit_scan_args.flags */
#define ORBIT_SCAN_AGAIN	(1ULL << 0)	/* tell of what has been told before, too */

/**
 * struct orbit_scan_range - pages of a view
 * @addr: Where they begin, in the orbit.
 * @length: How far they go, in bytes; not 0.  Both are multiples of the page size.
 */
struct orbit_scan_range {
	__aligned_u64 addr;
	__aligned_u64 length;
};

/**
 * struct orbit_scan_args - look at each page once (ORBIT_CTL_SCAN)
 * @flags: ORBIT_SCAN_*.
 * @pool: An address in the view that this is about.  All ranges are parts of what the
 *	task sees of that pool.
 * @done: Address of an array of struct orbit_scan_range, parts of which no page is in
 *	another: the task does not need them any more.
 * @held: Address of an array of struct orbit_scan_range, which takes parts that the
 *	kernel keeps a copy of for this task, oldest first.
 * @nr_done: How many there are in @done, up to ORBIT_MAX_SCAN.
 * @nr_held: In: how many fit in @held, up to ORBIT_MAX_SCAN.  Out: how many there are;
 *	less than fit only if there is no other at present.
 * @ahead: Where the task will read next,
 * @ahead_length: and how far; 0 if that is not known.
 * @pad: Must be 0.
 *
 * Made by the orbit's main thread while a task runs, on the descriptor from
 * ORBIT_CTL_ATTACH.  First, the views of what is in @done become empty (SIGBUS), what
 * the task wrote there is dropped, and neither a copy that was made for it nor a later
 * write of the main program keeps memory for it.  Then the task is told of what it is
 * not done with and main has written to meanwhile, of each page once, unless it asks
 * for all of it with ORBIT_SCAN_AGAIN.  Last, what is @ahead is mapped as far as that
 * can be done at once.  A task that is done with anything is not tried once more
 * (ORBIT_CALL_RETRY).  Fails with ESRCH if no task runs, ENXIO if @pool or a range is not
 * in a part of a pool that the task sees, EALREADY if the task is done with a page of
 * @done, or it is there twice; then nothing has changed.
 */
struct orbit_scan_args {
	__aligned_u64 flags;
	__aligned_u64 pool;
	__aligned_u64 done;
	__aligned_u64 held;
	__u32 nr_done;
	__u32 nr_held;
	__aligned_u64 ahead;
	__aligned_u64 ahead_length;
	__aligned_u64 pad;
};

enum orbit_state {
	ORBIT_STATE_NEW,	/* no process has attached */
	ORBIT_STATE_IDLE,	/* waits for a task */
	ORBIT_STATE_RUNNING,	/* runs one */
	ORBIT_STATE_DEAD,
	/* since ABI 2 */
	ORBIT_STATE_DOWN,	/* its process has ended; a task will get it another */
};

/**
 * struct orbit_stat - how an orbit is (ORBIT_CTL_STAT, on the main program's descriptor)
 * @state: enum orbit_state.
 * @pid: The orbit's process in the caller's pid namespace, or 0.
 * @cause: enum orbit_cause.
 * @code: The exit status or signal number that goes with @cause.
 * @fault_addr: The address whose access raised the signal, or 0.
 * @queued: Tasks waiting or running.
 * @calls: Tasks queued so far.
 * @completed: Tasks that returned a value.
 * @pages_protected: Pages that snapshots have write-protected so far.
 * @pages_preserved: Pages copied aside so far, because main wrote to them while a
 *	snapshot of this orbit needed what they held.
 * @pages_copied: Pages copied at a call so far.
 * @pages_moved: Pages moved by ORBIT_SNAP_MOVE so far.
 * @restarts: Processes that have attached after the first.
 * @failed: Tasks that ended with an error, those cancelled included.
 * @cancelled: Tasks cancelled or replaced.
 * @skipped: Calls that failed with EEXIST.
 * @updates: Updates sent so far.
 * @last_task: The task in which the process ended last, or 0.
 * @template_pid: The template's process in the caller's pid namespace, or 0.
 * @pad: 0.
 *
 * If an orbit has been restarted, @cause, @code and @fault_addr tell how the last
 * process ended.
 */
struct orbit_stat {
	__u32 state;
	__s32 pid;
	__u32 cause;
	__s32 code;
	__aligned_u64 fault_addr;
	__aligned_u64 queued;
	__aligned_u64 calls;
	__aligned_u64 completed;
	__aligned_u64 pages_protected;
	__aligned_u64 pages_preserved;
	/* since ABI 2 */
	__aligned_u64 pages_copied;
	__aligned_u64 pages_moved;
	__aligned_u64 restarts;
	__aligned_u64 failed;
	__aligned_u64 cancelled;
	__aligned_u64 skipped;
	__aligned_u64 updates;
	__aligned_u64 last_task;
	__s32 template_pid;
	__u32 pad;
};

#endif /* _UAPI_LINUX_ORBIT_H */
