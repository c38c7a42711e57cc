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

/* The level of this interface, as orbit_ctl(ORBIT_CTL_QUERY) reports it. */
#define ORBIT_ABI		1

#define ORBIT_NAME_LEN		32	/* with the terminating NUL */
#define ORBIT_MAX_POOLS		1024	/* pools named in one call */
#define ORBIT_MAX_ARG		65536	/* argument bytes of one call */

/**
 * struct orbit_create_args - orbit_create(args, size)
 * @flags: Must be 0.
 * @name: A name for people, NUL-terminated; shown in fdinfo and traces.
 *
 * Returns the descriptor (close-on-exec) by which the main program calls the
 * orbit.  The orbit has no process yet: another one, as a rule a fresh child of
 * the caller, becomes it with ORBIT_CTL_ATTACH.
 */
struct orbit_create_args {
	__aligned_u64 flags;
	char name[ORBIT_NAME_LEN];
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

/**
 * struct orbit_pool_ref - a pool named in a call
 * @fd: The pool's descriptor.
 * @flags: Must be 0.
 * @offset: Must be 0.
 * @length: Must be 0: the whole pool.
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
};

/**
 * struct orbit_result - the outcome of a call
 * @task: The task's number in its orbit, from 1.
 * @value: What the task returned; meaningful if orbit_call() returned 0.
 * @cause: enum orbit_cause, if the orbit ended.
 * @code: The exit status or signal number that goes with @cause.
 * @fault_addr: The address whose access raised the signal, or 0.
 */
struct orbit_result {
	__aligned_u64 task;
	__aligned_u64 value;
	__u32 cause;
	__s32 code;
	__aligned_u64 fault_addr;
};

/**
 * struct orbit_call_args - orbit_call(fd, args, size)
 * @flags: Must be 0.
 * @task: 0 for a new call.  When a signal handler interrupts the wait, the call
 *	fails with EINTR (or restarts by itself under SA_RESTART) and this holds
 *	the task's number: the same arguments wait on for the same task.  Its
 *	outcome is given once; after that the number is unknown (ESRCH).
 * @entry: For the orbit, uninterpreted: what to run.
 * @arg: Address of the argument bytes.
 * @arg_size: How many, up to ORBIT_MAX_ARG.
 * @pools: Address of an array of struct orbit_pool_ref.
 * @nr_pools: Its length, up to ORBIT_MAX_POOLS.
 * @pad: Must be 0.
 * @time_limit_ns: From the task's start; past it the orbit is killed.  0: none.
 * @result: Address of a struct orbit_result to fill in, or 0.  Cleared when the
 *	call begins.
 * @result_size: Its size as the caller knows it; ignored if @result is 0.
 *
 * Takes a snapshot of the pools, queues the task and waits for its outcome.
 * Returns 0 when the task returned.  Errors that say how a task ended:
 * ECONNRESET the orbit died in it, ETIMEDOUT it ran past its limit, ECANCELED
 * the orbit ended before the task began, ENOMEM there was no memory for its
 * snapshot, EADDRINUSE the orbit has put something else where a pool belongs.
 * For all but the last, @result tells why the orbit ended, if it did.
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
};

/**
 * struct orbit_info - what this kernel offers (ORBIT_CTL_QUERY)
 * @abi: ORBIT_ABI of the kernel.
 * @max_pools: ORBIT_MAX_POOLS of the kernel.
 * @max_arg: ORBIT_MAX_ARG of the kernel.
 * @pad: 0.
 * @features: A bit for each optional feature; none is defined yet.
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
 * Called on the orbit's descriptor by a single-threaded process other than the
 * main program.  Returns a new descriptor (close-on-exec) for orbit_return();
 * the caller should close the one it called on.  The process leaves its
 * parent's children (no SIGCHLD, no zombie) and becomes the first choice of the
 * out-of-memory killer.
 */
struct orbit_attach_args {
	__aligned_u64 flags;
};

enum orbit_state {
	ORBIT_STATE_NEW,	/* no process has attached */
	ORBIT_STATE_IDLE,	/* waits for a task */
	ORBIT_STATE_RUNNING,	/* runs one */
	ORBIT_STATE_DEAD,
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
};

#endif /* _UAPI_LINUX_ORBIT_H */
