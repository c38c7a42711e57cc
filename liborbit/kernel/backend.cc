// SPDX-License-Identifier: MIT
//
// The backend that uses the system calls of a patched kernel.
#include "../internal.h"

#include "../common/descriptors.h"
#include "../common/zygote.h"
#include "../common/process.h"
#include "../common/refusals.h"
#include "../common/sharing.h"
#include "../common/signals.h"
#include "syscall.h"

#include <cstdlib>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <unistd.h>

namespace liborbit {

namespace {

// ---- Probe ------------------------------------------------------------------

int fill_probe(orbit_probe_info *info, int err, const char *reason, const char *advice)
{
	info->backend = err ? "none" : "kernel";
	info->reason = reason;
	info->advice = advice;
	return err;
}

#define NEEDED(name, answer, ...) ORBIT_NEEDED_NUMBER(name, NR_##name, answer, __VA_ARGS__)

// A filter that ends programs for a number that it does not know must not end this one.
const Needed query[] = {NEEDED(orbit_ctl, optional, -1, ORBIT_CTL_QUERY)};

const Needed needed_calls[] = {
	NEEDED(orbit_create, allowed), NEEDED(orbit_pool, allowed), NEEDED(orbit_call, allowed, -1),
	NEEDED(orbit_return, allowed, -1), NEEDED(orbit_ctl, allowed, -1), NEEDED(orbit_send, allowed, -1),
	NEEDED(orbit_recv, allowed, -1), NEEDED(orbit_cancel, allowed, -1),
};

#undef NEEDED

template <std::size_t count> int find_refusal_of(const Needed (&calls)[count], const char **what)
{
	return find_refusal(calls, count, what);
}

int probe(orbit_probe_info *info)
{
	static constexpr char pass[] = "In a container or sandbox, let its seccomp profile pass it; orbits' own system "
				"calls are 548 to 555.";
	orbit_info kernel{};
	const char *what = "";

#if !(defined(__x86_64__) && defined(__LP64__))
	return fill_probe(info, -ENOSYS, "Orbits exist on 64-bit x86 only.",
			  "Build and run the program for x86-64.");
#endif
	if (const int refused = find_refusal_of(query, &what))
		return fill_probe(info, refused, what, advice_on_refusal(refused, pass));

	const int err = sys_ctl(-1, ORBIT_CTL_QUERY, &kernel);

	if (err == -ENOSYS) {
		if (is_filtered())
			return fill_probe(info, err,
					  "This kernel has no orbits, or a seccomp filter hides them.",
					  "Boot a kernel with the orbit patches and CONFIG_ORBIT=y; in a "
					  "container, let its seccomp profile pass system calls 548 to 555.");
		return fill_probe(info, err, "This kernel has no orbits.",
				  "Boot a kernel with the orbit patches and CONFIG_ORBIT=y.");
	}
	if (err == -EPERM || err == -EACCES)
		return fill_probe(info, err, "A filter refuses the system calls for orbits.",
				  "In a container or sandbox, let its seccomp profile pass system "
				  "calls 548 to 555.");
	if (err < 0)
		return fill_probe(info, err, "The kernel's answer about orbits is not understood.",
				  "Use a library and a kernel of the same orbit release.");

	info->abi = kernel.abi;
	info->max_pools = kernel.max_pools;
	info->max_arg = kernel.max_arg;
	info->features = kernel.features | ORBIT_FEATURE_CUT | ORBIT_FEATURE_IO |
			 (can_have_zygote() ? ORBIT_FEATURE_MINIMAL : 0);
	if (kernel.abi < ORBIT_ABI)
		return fill_probe(info, -EPROTONOSUPPORT,
				  "The kernel's orbit interface is older than this library.",
				  "Boot a kernel with the orbit patches of this library's release.");
	if (kernel.abi > ORBIT_ABI)
		return fill_probe(info, -EPROTONOSUPPORT,
				  "The kernel's orbit interface is newer than this library.",
				  "Install the liborbit of the kernel's orbit release.");

	int refused = find_refusal_of(needed_calls, &what);

	if (!refused)
		refused = find_common_refusal(&what);
	return refused ? fill_probe(info, refused, what, advice_on_refusal(refused, pass)) :
			 fill_probe(info, 0, "The kernel has orbits.", "");
}

// ---- Pools ------------------------------------------------------------------

int pool_create(orbit_pool *pool, const char *name)
{
	orbit_pool_args args{};
	void *start = reinterpret_cast<void *>(pool->range.start);

	args.size = pool->range.bytes;
	std::strncpy(args.name, name, sizeof(args.name) - 1);

	// With a signal pending the kernel does not begin. One that is blocked is none.
	const SignalsBlocked blocked;

	pool->fd = lift(sys_pool(&args));
	if (pool->fd < 0)
		return pool->fd;
	if (mmap(start, pool->range.bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, pool->fd,
		 0) == MAP_FAILED) {
		const int err = -errno;

		close(pool->fd);
		return err;
	}
	return 0;
}

// The kernel does not tell; reading what has not been written costs no memory.
void pool_used(const orbit_pool *pool, std::size_t *, std::size_t *end)
{
	*end = pool->range.bytes;
}

void pool_destroy(orbit_pool *pool)
{
	close_ours(&pool->fd);
}

// ---- Orbits -------------------------------------------------------------------

void orbit_close(orbit_handle *orbit)
{
	close_ours(&orbit->fd);
}

int make_process(orbit_handle *orbit, const orbit_options *options)
{
	orbit_info limits{};
	Birth birth{};

	if (const int err = sys_ctl(-1, ORBIT_CTL_QUERY, &limits); err < 0)
		return err;
	birth.flags = options->flags;
	birth.name = options->name;
	birth.main = getpid();
	birth.client = orbit->fd;
	birth.owner = -1;
	add_sharing(orbit->sharing, &birth);
	birth.arg_room = limits.max_arg ? limits.max_arg : ORBIT_MAX_ARG;
	if (const int err = choose_fds(&birth, options))
		return err;

	int err = options->inherit == ORBIT_INHERIT_MINIMAL ? fork_from_zygote(birth, options) :
							     fork_orbit(birth);

	free(birth.fds);
	if (!err)
		err = wait_until_up(orbit->fd);
	return err;
}

int orbit_create(orbit_handle *orbit, const orbit_options *options)
{
	orbit_create_args args{};

	args.flags = options->flags & ORBIT_RESTART ? ORBIT_CREATE_RESTART : 0;
	std::strncpy(args.name, options->name, sizeof(args.name) - 1);
	args.queue_limit = options->queue_limit;
	args.nr_files = options->nr_files;
	args.memory_limit = options->memory_limit;
	args.cpu_percent = options->cpu_percent;
	args.update_limit = options->update_limit;
	{
		const SignalsBlocked blocked; // as for pools

		orbit->fd = lift(sys_create(&args));
	}
	if (orbit->fd < 0)
		return orbit->fd;

	const int err = make_process(orbit, options);

	if (err)
		orbit_close(orbit);
	return err;
}

// A call that waits holds the orbit's file, and so does a forked child of the
// application: closing the descriptor would neither end the calls nor the orbit.
void orbit_kill(orbit_handle *orbit)
{
	sys_ctl(orbit->fd, ORBIT_CTL_KILL);
}

// For a call that was refused because the orbit has ended: why it did.
void tell_cause(const orbit_handle *orbit, orbit_result *result)
{
	struct orbit_stat st {};

	if (sys_ctl(orbit->fd, ORBIT_CTL_STAT, &st))
		return;
	result->cause = st.cause;
	result->code = st.code;
	result->fault_addr = st.fault_addr;
}

// The pools of a call as the kernel wants them. Few need no memory.
class PoolRefs {
public:
	PoolRefs() = default;
	PoolRefs(const PoolRefs &) = delete;
	~PoolRefs()
	{
		if (refs_ != few_)
			free(refs_);
	}
	int fill(const orbit_call_options *options)
	{
		const std::size_t count = options->nr_pools + options->nr_ranges;

		if (count > sizeof(few_) / sizeof(*few_))
			refs_ = static_cast<orbit_pool_ref *>(malloc(count * sizeof(*refs_)));
		if (!refs_)
			return -ENOMEM;
		for (std::size_t i = 0; i < options->nr_pools; i++)
			refs_[i] = {options->pools[i]->fd, ORBIT_SNAP_COW, 0, 0};
		for (std::size_t i = 0; i < options->nr_ranges; i++) {
			const orbit_pool_range &range = options->ranges[i];
			const bool rest = range.offset && !range.length;

			refs_[options->nr_pools + i] = {
				range.pool->fd, range.mode, range.offset,
				rest ? range.pool->range.bytes - range.offset : range.length};
		}
		return 0;
	}
	std::uintptr_t address() const { return reinterpret_cast<std::uintptr_t>(refs_); }

private:
	orbit_pool_ref few_[16];
	orbit_pool_ref *refs_ = few_;
};

inline int make_call(orbit_handle *orbit, const Call &call, std::uint64_t flags,
		     orbit_call_args *args, orbit_result *result)
{
	const orbit_call_options *options = call.options;
	PoolRefs refs;
	int err;

	if ((err = refs.fill(options)))
		return err;
	*args = {
		.flags = flags | (options->flags & ~ORBIT_CALL_INTERRUPTIBLE),
		.task = options->resume,
		.entry = reinterpret_cast<std::uintptr_t>(call.fn),
		.arg = reinterpret_cast<std::uintptr_t>(call.arg),
		.arg_size = call.arg_size,
		.pools = refs.address(),
		.nr_pools = static_cast<__u32>(options->nr_pools + options->nr_ranges),
		.pad = 0,
		.time_limit_ns = options->time_limit_ns,
		.result = reinterpret_cast<std::uintptr_t>(result),
		.result_size = sizeof(*result),
		.deadline_ns = options->deadline_ns,
		.cpu_limit_ns = options->cpu_limit_ns,
		.handle = -1,
		.pad2 = 0,
	};
	do {
		args->handle = -1;
		err = sys_call(orbit->fd, args); // args->task now names the task
		if (err && args->handle >= 0) {
			const NotCancelled whole; // close() is a cancellation point

			close(args->handle);
			args->handle = -1;
		}
	} while (err == -EINTR && !(options->flags & ORBIT_CALL_INTERRUPTIBLE));
	return err;
}

int call(orbit_handle *orbit, const Call &call, orbit_outcome *out)
{
	orbit_result result{};
	orbit_call_args args;
	const int err = make_call(orbit, call, 0, &args, &result);

	if (err == -ESHUTDOWN)
		tell_cause(orbit, &result);
	fill_outcome(out, result);
	if (err == -EINTR || err == -ETIME)
		out->task = args.task;
	return err;
}

int call_async(orbit_handle *orbit, const Call &call, orbit_task *task)
{
	orbit_call_args args;
	const int err = make_call(orbit, call, ORBIT_CALL_ASYNC | (task ? ORBIT_CALL_HANDLE : 0), &args,
				  nullptr);

	if (!err && task) {
		task->fd = try_lift(args.handle); // the task is on its way
		task->number = args.task;
	}
	return err;
}

int cancel_tasks(int fd, orbit_cancel_args *args, std::uint64_t *cancelled)
{
	int err;

	do {
		err = sys_cancel(fd, args);
	} while (err == -EINTR);
	*cancelled = err ? 0 : args->cancelled;
	return err;
}

int cancel(orbit_handle *orbit, const Call &call, std::uint64_t flags, std::uint64_t *cancelled)
{
	orbit_cancel_args args{};

	args.flags = flags | (call.fn ? ORBIT_CANCEL_SAME : ORBIT_CANCEL_ALL);
	args.entry = reinterpret_cast<std::uintptr_t>(call.fn);
	args.arg = reinterpret_cast<std::uintptr_t>(call.arg);
	args.arg_size = call.arg_size;
	return cancel_tasks(orbit->fd, &args, cancelled);
}

// ---- Tasks --------------------------------------------------------------------------

int task_cancel(orbit_task *task, std::uint64_t flags)
{
	orbit_cancel_args args{};
	std::uint64_t cancelled;

	args.flags = flags;
	return cancel_tasks(task->fd, &args, &cancelled);
}

int receive(orbit_task *task, std::uint64_t flags, std::uint64_t deadline_ns, orbit_recv_args *args,
	    orbit_result *result)
{
	int err;

	args->flags = flags | (deadline_ns == ORBIT_NO_WAIT ? ORBIT_RECV_NOWAIT : 0);
	args->deadline_ns = deadline_ns;
	args->result = reinterpret_cast<std::uintptr_t>(result);
	args->result_size = sizeof(*result);
	do {
		err = sys_recv(task->fd, args);
	} while (err == -EINTR && !task->interruptible);
	return err == -EAGAIN ? -ETIME : err;
}

int task_wait(orbit_task *task, std::uint64_t deadline_ns, orbit_outcome *out)
{
	orbit_recv_args args{};
	orbit_result result{};
	const int err = receive(task, ORBIT_RECV_OUTCOME, deadline_ns, &args, &result);

	fill_outcome(out, result);
	out->task = task->number;
	return err ? err : -static_cast<int>(result.error);
}

int make_room(orbit_task *task, std::size_t bytes)
{
	if (bytes <= task->buffer_room)
		return 0;

	void *bigger = realloc(task->buffer, bytes);

	if (!bigger)
		return -ENOMEM;
	task->buffer = bigger;
	task->buffer_room = bytes;
	task->serial++; // what was there is gone
	return 0;
}

int task_receive(orbit_task *task, std::uint64_t deadline_ns, orbit_update *out)
{
	orbit_recv_args args{};
	orbit_result result{};
	int err = make_room(task, 4096);

	while (!err) {
		args.buf = reinterpret_cast<std::uintptr_t>(task->buffer);
		args.buf_size = task->buffer_room;
		err = receive(task, 0, deadline_ns, &args, &result);
		if (err != -E2BIG)
			break;
		err = make_room(task, args.buf_size);
	}
	if (err)
		return err;
	if (args.kind == ORBIT_RECV_END)
		return -ENODATA;
	out->serial = ++task->serial;
	if (args.kind == ORBIT_RECV_PAGES && args.pool < task->nr_pools) {
		out->kind = ORBIT_UPDATE_PAGES;
		out->pool = task->pools[args.pool];
		out->pages = static_cast<const orbit_page_range *>(task->buffer);
		out->nr_pages = args.buf_size / sizeof(*out->pages);
		return 0;
	}
	// The orbit may have put any number there.
	if (args.kind == ORBIT_RECV_BYTES &&
	    (args.type == ORBIT_UPDATE_BYTES || args.type == ORBIT_UPDATE_OPERATION))
		out->kind = args.type;
	out->target = args.target;
	out->data = task->buffer;
	out->length = args.buf_size;
	return 0;
}

int apply_pages(orbit_task *task, const orbit_page_range &from, orbit_pool *pool,
		std::uint64_t offset, std::uint64_t flags, orbit_applied *out)
{
	orbit_apply_args args{};

	args.flags = flags;
	args.from = from.offset;
	args.length = from.length;
	args.pool = pool->fd;
	args.offset = offset;

	const int err = sys_ctl(task->fd, ORBIT_CTL_APPLY, &args);

	out->pages += args.applied;
	out->conflicts += args.conflicts;
	return err;
}

void task_close(orbit_task *task)
{
	close(task->fd);
}

// ---- In an orbit ----------------------------------------------------------------------

int send(orbit_update_kind kind, std::uint64_t target, const void *data, std::size_t length)
{
	orbit_send_args args{};
	int err;

	args.flags = kind == ORBIT_UPDATE_PAGES ? ORBIT_SEND_PAGES : 0;
	args.type = kind;
	args.target = target;
	args.data = reinterpret_cast<std::uintptr_t>(data);
	args.length = length;
	do {
		err = sys_send(server_fd, &args);
	} while (err == -EINTR);
	return err;
}

// Asked for once. Each process of an orbit has its own variable.
bool scan_holds()
{
	ORBIT_STATE static int known;

	if (!known) {
		orbit_info info{};

		known = sys_ctl(-1, ORBIT_CTL_QUERY, &info) >= 0 && info.features & ORBIT_FEATURE_SCAN ? 1 : -1;
	}
	return known > 0;
}

int scan_step(ScanStep *step)
{
	static_assert(sizeof(orbit_range) == sizeof(orbit_scan_range)); // an address and a length
	orbit_scan_args args{};

	if (!scan_holds()) {
		step->nr_held = 0;
		return 0;
	}
	args.flags = step->again ? ORBIT_SCAN_AGAIN : 0;
	args.pool = step->pool;
	args.done = reinterpret_cast<std::uintptr_t>(step->done);
	args.nr_done = static_cast<__u32>(step->nr_done);
	args.held = reinterpret_cast<std::uintptr_t>(step->held);
	args.nr_held = static_cast<__u32>(step->nr_held);
	args.ahead = step->ahead_bytes ? step->ahead : 0;
	args.ahead_length = step->ahead_bytes;

	const int err = sys_ctl(server_fd, ORBIT_CTL_SCAN, &args);

	step->nr_held = err ? 0 : args.nr_held;
	return err;
}

// The kernel says no if the last page is not in the same part of the same pool.
int scan_check(std::uintptr_t pool, std::uintptr_t start, std::size_t bytes)
{
	ScanStep step{};

	step.pool = pool;
	step.ahead = start + bytes - page_size();
	step.ahead_bytes = page_size();
	return scan_step(&step);
}

// ----------------------------------------------------------------------------------------

int stat(const orbit_handle *orbit, struct orbit_stat *out)
{
	return sys_ctl(orbit->fd, ORBIT_CTL_STAT, out);
}

} // namespace

const Backend kernel_backend = {
	.name = "kernel",
	.probe = probe,
	.pool_create = pool_create,
	.pool_destroy = pool_destroy,
	.pool_used = pool_used,
	.prepare = [] { return start_zygote(false); },
	.orbit_create = orbit_create,
	.orbit_kill = orbit_kill,
	.orbit_close = orbit_close,
	.stat = stat,
	.call_may_be_cancelled = false, // system calls in line
	.call = call,
	.call_async = call_async,
	.cancel = cancel,
	.task_wait = task_wait,
	.task_cancel = task_cancel,
	.task_receive = task_receive,
	.apply_pages = apply_pages,
	.task_close = task_close,
	.send = send,
	.scan_check = scan_check,
	.scan_step = scan_step,
	.scan_holds = scan_holds,
};

} // namespace liborbit
