// SPDX-License-Identifier: MIT
//
// The portable backend: what applications call. See portable.h.
#include "portable.h"

#include "../common/clock.h"
#include "../common/descriptors.h"
#include "../common/files.h"
#include "../common/fork_handlers.h"
#include "../common/futex.h"
#include "../common/refusals.h"
#include "../common/sharing.h"
#include "../common/zygote.h"
#include "fork_server.h"

#include <cerrno>
#include <climits>
#include <ctime>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

namespace liborbit {

namespace portable {

ORBIT_STATE pthread_mutex_t dispatcher_lock = PTHREAD_MUTEX_INITIALIZER;
ORBIT_STATE pthread_mutex_t snapshot_lock = PTHREAD_MUTEX_INITIALIZER;
ORBIT_STATE pthread_mutex_t state_lock = PTHREAD_MUTEX_INITIALIZER;
ORBIT_STATE Orbit *orbits;
ORBIT_STATE Pool *pools;
ORBIT_STATE std::uint64_t snapshots;

void close_fd(int *fd)
{
	close_ours(fd);
}

void hang_up(int *fd)
{
	if (is_still_ours(*fd))
		shutdown(*fd, SHUT_RDWR);
	close_fd(fd);
}

int wait_on(std::uint32_t *word, std::uint32_t value, std::uint64_t deadline)
{
	const timespec time = {static_cast<time_t>(deadline / (1000 * ms)),
			       static_cast<long>(deadline % (1000 * ms))};

	return syscall(SYS_futex, word, FUTEX_WAIT_BITSET_PRIVATE, value, deadline ? &time : nullptr, nullptr,
		       FUTEX_BITSET_MATCH_ANY) ?
		       -errno :
		       0;
}

void wake_all(std::uint32_t *word)
{
	__atomic_fetch_add(word, 1, __ATOMIC_RELEASE);
	futex_wake(word);
}

Pool *pool_of(const orbit_pool *handle)
{
	return static_cast<Pool *>(handle->impl);
}

namespace {

constexpr unsigned max_abandoned = 256; // outcomes that nobody has come back for

// What a wait has come to: 0 to look again.
int judge_wait(int err, bool interruptible)
{
	if (err == -ETIMEDOUT)
		return -ETIME;
	return err == -EINTR && interruptible ? -EINTR : 0;
}

// ---- Pools ------------------------------------------------------------------------------

int pool_create(orbit_pool *handle, const char *name)
{
	auto *pool = allocate<Pool>();

	if (!pool)
		return -ENOMEM;

	const Locked locked(&snapshot_lock);
	const int err = track(&pool->tracked, handle->range, name);

	if (err) {
		free(pool);
		return err;
	}
	pool->handle = handle;
	pool->next = pools;
	pools = pool;
	handle->fd = pool->tracked.memory;
	handle->impl = pool;
	return 0;
}

void pool_used(const orbit_pool *handle, std::size_t *at, std::size_t *end)
{
	const std::size_t bytes = handle->range.bytes;
	const off_t data = lseek(handle->fd, static_cast<off_t>(*at), SEEK_DATA);
	const off_t hole = data < 0 ? -1 : lseek(handle->fd, data, SEEK_HOLE);

	// ENXIO: no data behind. Otherwise look at all of it.
	if (data < 0 && errno == ENXIO)
		*at = bytes;
	else if (data >= 0)
		*at = static_cast<std::size_t>(data);
	*end = hole > data ? static_cast<std::size_t>(hole) : bytes;
}

void pool_destroy(orbit_pool *handle)
{
	Pool *const pool = pool_of(handle);
	const Locked locked(&snapshot_lock);
	Pool **link = &pools;

	while (*link && *link != pool)
		link = &(*link)->next;
	if (*link)
		*link = pool->next;
	{
		const Locked state(&state_lock);

		for (Orbit *orbit = orbits; orbit; orbit = orbit->next) {
			if (View *view = find_view(orbit, pool))
				view->pool = nullptr;
			sweep_views(orbit);
		}
	}
	untrack(&pool->tracked);
	free(pool);
}

// ---- Calls ------------------------------------------------------------------------------

Orbit *orbit_of(const orbit_handle *handle)
{
	return static_cast<Orbit *>(handle->impl);
}

bool is_same(const Task *task, const Call &call)
{
	return task->entry == reinterpret_cast<std::uintptr_t>(call.fn) && task->arg_size == call.arg_size &&
	       (!call.arg_size || !std::memcmp(task->arg, call.arg, call.arg_size));
}

// Cancel the waiting tasks that a predicate chooses.
template <class Chosen> std::uint64_t cancel_waiting(Orbit *orbit, Chosen chosen)
{
	std::uint64_t count = 0;
	Task **link = &orbit->first;
	Task *last = nullptr;

	while (Task *task = *link) {
		if (!chosen(task)) {
			last = task;
			link = &task->next;
			continue;
		}
		*link = task->next;
		orbit->waiting--;
		count++;
		finish(task, ECANCELED, ORBIT_CAUSE_NONE, 0, 0);
	}
	orbit->last = last;
	grant_room(orbit);
	return count;
}

// Copy what the caller points to, which may be nowhere.
int copy_argument(Task *task, const Call &call)
{
	if (!call.arg_size)
		return 0;
	task->arg = malloc(call.arg_size);
	if (!task->arg)
		return -ENOMEM;

	const iovec to = {task->arg, call.arg_size};
	const iovec from = {const_cast<void *>(call.arg), call.arg_size};
	const long got = syscall(SYS_process_vm_readv, getpid(), &to, 1, &from, 1, 0);

	task->arg_size = call.arg_size;
	if (got == static_cast<long>(call.arg_size))
		return 0;
	if (got >= 0 || errno == EFAULT)
		return -EFAULT;
	// A filter may forbid it. Then a bad pointer is what it is elsewhere.
	std::memcpy(task->arg, call.arg, call.arg_size);
	return 0;
}

int make_task(Task **out, const Call &call, bool handle)
{
	const orbit_call_options *options = call.options;
	auto *task = allocate<Task>();

	if (!task)
		return -ENOMEM;
	task->refs = 1;
	task->told = task->tells = -1;
	task->entry = reinterpret_cast<std::uintptr_t>(call.fn);
	task->flags = options->flags;
	task->time_limit = options->time_limit_ns;
	task->cpu_limit = options->cpu_limit_ns;
	task->receivable = handle;
	task->named_pools = allocate<NamedPool>(options->nr_pools + options->nr_ranges);

	int err = task->named_pools ? copy_argument(task, call) : -ENOMEM;

	if (!err && handle) {
		int ends[2];

		err = make_sockets(SOCK_STREAM | SOCK_NONBLOCK, ends);
		if (!err) {
			task->tells = ends[0];
			task->told = ends[1];
		}
	}
	if (err) {
		close_fd(&task->tells);
		put_task(task);
	} else {
		*out = task;
	}
	return err;
}

bool is_to_skip(const Orbit *orbit, const Call &call)
{
	if (!(call.options->flags & (ORBIT_CALL_SKIP_SAME | ORBIT_CALL_SKIP_ANY)))
		return false;
	for (const Task *task = orbit->first; task; task = task->next)
		if (call.options->flags & ORBIT_CALL_SKIP_ANY || is_same(task, call))
			return true;
	return false;
}

bool is_to_replace(const Task *task, const Call &call)
{
	return task->flags & ORBIT_CALL_REPLACEABLE &&
	       (call.options->flags & ORBIT_CALL_REPLACE_ANY ||
		(call.options->flags & ORBIT_CALL_REPLACE_SAME && is_same(task, call)));
}

bool replaces_any(const Orbit *orbit, const Call &call)
{
	for (const Task *task = orbit->first; task; task = task->next)
		if (is_to_replace(task, call))
			return true;
	return false;
}

int wait_for_room(Orbit *orbit, const orbit_call_options *options)
{
	Waiter waiter = {nullptr, 0};
	Waiter **link = &orbit->waiters;
	int err = 0;

	while (*link)
		link = &(*link)->next;
	*link = &waiter;
	while (!__atomic_load_n(&waiter.granted, __ATOMIC_ACQUIRE) && !err) {
		pthread_mutex_unlock(&state_lock);
		err = judge_wait(wait_on(&waiter.granted, 0, options->deadline_ns),
				 options->flags & ORBIT_CALL_INTERRUPTIBLE);
		pthread_mutex_lock(&state_lock);
	}
	if (waiter.granted)
		return 0; // even if it is late
	for (link = &orbit->waiters; *link != &waiter;)
		link = &(*link)->next;
	*link = waiter.next;
	return err;
}

// A place in the queue, before the snapshot is taken.
int reserve(Orbit *orbit, const Call &call)
{
	const Locked locked(&state_lock);
	int err = 0;

	if (orbit->dead)
		return -ESHUTDOWN;
	if (is_to_skip(orbit, call)) {
		orbit->stat.skipped++;
		return -EEXIST;
	}
	if ((!orbit->waiters && in_queue(orbit) + orbit->reserved < orbit->options.queue_limit) ||
	    replaces_any(orbit, call)) {
		orbit->reserved++;
		return 0;
	}
	if (!(call.options->flags & ORBIT_CALL_WAIT_ROOM))
		return -EAGAIN;
	err = wait_for_room(orbit, call.options); // which reserves it
	if (!err && orbit->dead)
		err = -ESHUTDOWN;
	return err;
}

void give_room_back(Orbit *orbit)
{
	if (orbit->reserved)
		orbit->reserved--;
	grant_room(orbit);
}

int submit_snapshot(Orbit *orbit, const Call &call, Task *task)
{
	int err;

	if ((err = take_snapshot(orbit, task)))
		return err;

	{
		const Locked locked(&state_lock);

		task->orbit = orbit;
		if (orbit->dead || is_to_skip(orbit, call)) {
			err = orbit->dead ? -ESHUTDOWN : -EEXIST;
			orbit->stat.skipped += err == -EEXIST;
			drop_named_pools(task);
			task->nr_named_pools = 0;
			return err;
		}
		cancel_waiting(orbit, [&](const Task *other) { return is_to_replace(other, call); });
		orbit->reserved--;
		task->result.task = ++orbit->stat.calls;
		task->refs++; // the queue's
		enqueue(orbit, task);
		if (!orbit->running && orbit->first == task)
			dispatch(orbit);
	}
	give_away(orbit, task);
	return 0;
}

// Queue a task. 0 or -errno; on error nothing has happened.
int submit(Orbit *orbit, const Call &call, Task *task)
{
	int err = reserve(orbit, call);

	if (err)
		return err;
	pthread_mutex_lock(&snapshot_lock);
	err = name_pools(orbit, task, call.options);
	if (!err)
		err = submit_snapshot(orbit, call, task);
	else
		task->nr_named_pools = 0;
	pthread_mutex_unlock(&snapshot_lock);
	if (err) {
		const Locked locked(&state_lock);

		give_room_back(orbit);
	}
	return err;
}

// Wait until something is the case, which is looked at with the state lock held.
template <class Condition>
int wait_until(Task *task, std::uint64_t deadline, bool interruptible, Condition condition)
{
	int err = 0;

	while (!condition()) {
		if (err)
			return err;

		const std::uint32_t event = task->event;

		pthread_mutex_unlock(&state_lock);
		err = judge_wait(wait_on(&task->event, event, deadline), interruptible);
		pthread_mutex_lock(&state_lock);
	}
	return 0;
}

// Keep a task for its caller to come back for; with the state lock held.
void abandon(Orbit *orbit, Task *task)
{
	Task **link = &orbit->abandoned;
	unsigned count = 0;

	for (; *link; link = &(*link)->next_abandoned)
		count++;
	*link = task;
	task->next_abandoned = nullptr;
	if (count < max_abandoned)
		return;

	Task *const oldest = orbit->abandoned;

	orbit->abandoned = oldest->next_abandoned;
	put_task(oldest);
}

Task *resume(Orbit *orbit, std::uint64_t number)
{
	for (Task **link = &orbit->abandoned; Task *task = *link; link = &task->next_abandoned)
		if (task->result.task == number) {
			*link = task->next_abandoned;
			return task;
		}
	return nullptr;
}

// For a call that was refused because the orbit has ended: why it did.
void tell_cause(Orbit *orbit, orbit_outcome *out)
{
	const Locked locked(&state_lock);

	out->cause = orbit->stat.cause;
	out->code = orbit->stat.code;
	out->fault_addr = orbit->stat.fault_addr;
}

int call(orbit_handle *handle, const Call &call, orbit_outcome *out)
{
	Orbit *const orbit = orbit_of(handle);
	Task *task = nullptr;
	int err;

	if (!call.options->resume) {
		err = make_task(&task, call, false);
		if (!err)
			err = submit(orbit, call, task);
		if (err == -ESHUTDOWN)
			tell_cause(orbit, out);
		if (err) {
			if (task)
				put_task(task);
			return err;
		}
	}

	const Locked locked(&state_lock);

	if (!task)
		task = resume(orbit, call.options->resume);
	if (!task)
		return -ESRCH;
	err = wait_until(task, call.options->deadline_ns, call.options->flags & ORBIT_CALL_INTERRUPTIBLE,
			 [=] { return task->stage == Stage::done; });
	if (err) {
		out->task = task->result.task;
		abandon(orbit, task);
		return err;
	}
	fill_outcome(out, task->result);
	err = -static_cast<int>(task->result.error);
	put_task(task);
	return err;
}

int call_async(orbit_handle *handle, const Call &call, orbit_task *out)
{
	Task *task = nullptr;
	int err = make_task(&task, call, out != nullptr);

	if (!err) {
		err = submit(orbit_of(handle), call, task);
		if (err)
			close_fd(&task->tells);
	}
	if (task && (err || !out)) {
		const Locked locked(&state_lock);

		put_task(task);
	} else if (task) {
		out->impl = task;
		out->fd = task->tells;
		out->number = task->result.task;
	}
	return err;
}

// A running task is cancelled by the end of its process; wait for that. False: something else has
// ended it.
bool cancel_running(Orbit *orbit, Task *task)
{
	kill_process(orbit, ORBIT_CAUSE_NONE, ECANCELED);
	task->refs++;
	wait_until(task, 0, false, [=] { return task->stage == Stage::done; });

	const bool cancelled = task->result.error == ECANCELED;

	put_task(task);
	return cancelled;
}

int cancel(orbit_handle *handle, const Call &call, std::uint64_t flags, std::uint64_t *cancelled)
{
	Orbit *const orbit = orbit_of(handle);
	const Locked locked(&state_lock);
	Task *const running = orbit->running;
	const bool runs = running && (!call.fn || is_same(running, call));

	*cancelled = cancel_waiting(orbit, [&](const Task *task) { return !call.fn || is_same(task, call); });
	if (runs && flags & ORBIT_CANCEL_RUNNING)
		*cancelled += cancel_running(orbit, running);
	if (*cancelled)
		return 0;
	return runs && !(flags & ORBIT_CANCEL_RUNNING) ? -EBUSY : -ESRCH;
}

Task *task_of(const orbit_task *handle)
{
	return static_cast<Task *>(handle->impl);
}

int task_cancel(orbit_task *handle, std::uint64_t flags)
{
	const Locked locked(&state_lock);
	Task *const task = task_of(handle);

	if (task->stage == Stage::done)
		return -ESRCH;
	if (task->stage == Stage::waiting) {
		cancel_waiting(task->orbit, [=](const Task *other) { return other == task; });
		return 0;
	}
	if (!(flags & ORBIT_CANCEL_RUNNING))
		return -EBUSY;
	return cancel_running(task->orbit, task) ? 0 : -ESRCH;
}

int task_wait(orbit_task *handle, std::uint64_t deadline_ns, orbit_outcome *out)
{
	const Locked locked(&state_lock);
	Task *const task = task_of(handle);
	const int err = wait_until(task, deadline_ns, handle->interruptible,
				   [=] { return task->stage == Stage::done; });

	out->task = task->result.task;
	if (err)
		return err;
	fill_outcome(out, task->result);
	return -static_cast<int>(task->result.error);
}

void describe_update(const orbit_task *handle, const Update *update, orbit_update *out)
{
	if (update->kind == ORBIT_UPDATE_PAGES) {
		out->kind = ORBIT_UPDATE_PAGES;
		out->pool = handle->pools[update->place];
		out->pages = reinterpret_cast<const orbit_page_range *>(update->data);
		out->nr_pages = update->nr_ranges;
		return;
	}
	// The orbit may have put any number there.
	if (update->kind == ORBIT_UPDATE_BYTES || update->kind == ORBIT_UPDATE_OPERATION)
		out->kind = update->kind;
	out->target = update->target;
	out->data = update->data;
	out->length = update->bytes;
}

int task_receive(orbit_task *handle, std::uint64_t deadline_ns, orbit_update *out)
{
	const Locked locked(&state_lock);
	Task *const task = task_of(handle);
	const bool stream = task->flags & ORBIT_CALL_STREAM;
	const int err = wait_until(task, deadline_ns, handle->interruptible, [=] {
		return task->stage == Stage::done || (stream && task->first);
	});

	if (err)
		return err;

	Update *const update = task->first;

	if (!update)
		return -ENODATA;
	task->first = update->next;
	if (!task->first)
		task->last = nullptr;
	free_current(task);
	task->current = update;
	task->received += update->charge;
	if (task->stage == Stage::running && task->orbit->from_main)
		__atomic_store_n(&task->orbit->from_main->received, task->received, __ATOMIC_RELEASE);
	notify(task);
	out->serial = ++handle->serial;
	describe_update(handle, update, out);
	return 0;
}

// The pages of the update received last that lie in a range, one after the other.
template <class Each> void for_each_page(Update *update, const orbit_page_range &within, Each each)
{
	const char *contents = update->data + update->nr_ranges * sizeof(orbit_page_range);
	std::size_t number = 0;

	for (std::uint32_t i = 0; i < update->nr_ranges; i++) {
		orbit_page_range range;

		std::memcpy(&range, update->data + i * sizeof(range), sizeof(range));
		for (std::uint64_t at = range.offset; at < range.offset + range.length;
		     at += page_size(), contents += page_size(), number++)
			if (at >= within.offset && at - within.offset < within.length)
				each(at, contents, number);
	}
}

int apply_pages(orbit_task *handle, const orbit_page_range &from, orbit_pool *to, std::uint64_t offset,
		std::uint64_t flags, orbit_applied *out)
{
	const Locked locked(&snapshot_lock);
	Task *const task = task_of(handle);
	Update *const update = task->current;
	Tracked *const tracked = &pool_of(to)->tracked;

	if (!update || update->kind != ORBIT_UPDATE_PAGES)
		return -EINVAL;
	if (!is_still_ours(tracked->memory))
		return -EBADF;
	if (!update->applied)
		update->applied = allocate<bool>(update->bytes / page_size());
	if (!update->applied)
		return -ENOMEM;

	// What main has written to since, it has written to the same page.
	const bool same = handle->pools[update->place] == to && offset == from.offset;
	const std::uint64_t seen = task->named_pools[update->place].snapshot;
	const long found = same ? look(tracked, static_cast<std::uint32_t>(from.offset / page_size()),
				       static_cast<std::uint32_t>(from.length / page_size()), ++snapshots) :
				  0;

	if (found < 0)
		return static_cast<int>(found);
	for_each_page(update, from, [&](std::uint64_t at, const char *contents, std::size_t number) {
		const std::uint64_t target = offset + (at - from.offset);

		if (update->applied[number])
			return;
		if (same && !(flags & ORBIT_APPLY_FORCE) &&
		    tracked->pages[target / page_size()].changed > seen) {
			out->conflicts++;
			return;
		}
		std::memcpy(reinterpret_cast<char *>(tracked->start) + target, contents, page_size());
		update->applied[number] = true;
		out->pages++;
	});
	return 0;
}

void task_close(orbit_task *handle)
{
	const Locked locked(&state_lock);
	Task *const task = task_of(handle);

	hang_up(&task->told);
	task->tells = -1;
	close_fd(&handle->fd);
	// It may go on sending. Nobody keeps it.
	task->dropped = true;
	free_updates(task);
	put_task(task);
}

// ---- Orbits -----------------------------------------------------------------------------

int make_fork_server(Orbit *orbit, const orbit_handle *handle, const orbit_options *options)
{
	Birth birth{};
	int sockets[2];
	int err;

	birth.owner = lift(open_pidfd(getpid()));
	if (birth.owner < 0)
		return birth.owner;
	err = make_sockets(SOCK_SEQPACKET, sockets);
	if (!err) {
		birth.flags = options->flags;
		birth.name = options->name;
		birth.client = sockets[1];
		birth.arg_room = ORBIT_MAX_ARG;
		birth.nr_files = options->nr_files;
		birth.memory_limit = options->memory_limit;
		add_sharing(handle->sharing, &birth);
		err = choose_fds(&birth, options);
		if (!err)
			err = options->inherit == ORBIT_INHERIT_MINIMAL ? fork_from_zygote(birth, options) :
									 start_fork_server(birth);
		close(sockets[1]);
		if (err)
			close(sockets[0]);
		else
			orbit->link = sockets[0];
	}
	close(birth.owner);
	free(birth.fds);
	return err;
}

void remove_orbit(Orbit *orbit)
{
	Orbit **link = &orbits;

	while (*link && *link != orbit)
		link = &(*link)->next;
	if (*link)
		*link = orbit->next;
}

void free_orbit(Orbit *orbit)
{
	while (Task *task = orbit->abandoned) {
		orbit->abandoned = task->next_abandoned;
		put_task(task);
	}
	for (View *view = orbit->views; view;) {
		View *const next = view->next;

		free_view(view);
		view = next;
	}
	close_fd(&orbit->hup);
	close_watched(orbit, &orbit->link);
	free(orbit);
}

// Have its first process made, and wait until it is there.
int start_orbit(Orbit *orbit)
{
	const Locked locked(&state_lock);

	orbit->next = orbits;
	orbits = orbit;
	if (const int err = spawn(orbit))
		return err;
	wake_dispatcher();
	while (!orbit->ready && !orbit->dead) {
		const std::uint32_t seen = orbit->changed;

		pthread_mutex_unlock(&state_lock);
		wait_on(&orbit->changed, seen, 0);
		pthread_mutex_lock(&state_lock);
	}
	if (!orbit->dead)
		return 0;
	if (orbit->error)
		return orbit->error;
	// It says why in its status.
	return orbit->stat.cause == ORBIT_CAUSE_EXIT && orbit->stat.code ? -orbit->stat.code : -ECHILD;
}

int make_orbit(Orbit **out, orbit_handle *handle, const orbit_options *options)
{
	auto *orbit = allocate<Orbit>();
	int sockets[2];

	if (!orbit)
		return -ENOMEM;
	orbit->options = *options;
	if (!orbit->options.queue_limit)
		orbit->options.queue_limit = ORBIT_DEFAULT_QUEUE;
	if (!orbit->options.update_limit)
		orbit->options.update_limit = ORBIT_DEFAULT_UPDATES;
	orbit->hup = orbit->link = orbit->pidfd = orbit->socket = -1;
	orbit->time_at = orbit->tick_at = orbit->fork_server_at = orbit->spawn_at = never;
	// The other end tells pollers whether it takes calls, or is dead for good.
	int err = make_sockets(SOCK_STREAM, sockets);

	if (err) {
		free(orbit);
		return err;
	}
	handle->fd = sockets[0];
	orbit->hup = sockets[1];
	err = make_fork_server(orbit, handle, options);

	if (!err)
		err = start_orbit(orbit);
	if (!err) {
		*out = orbit;
		return 0;
	}

	const Locked locked(&state_lock);

	if (!orbit->dead)
		end_orbit(orbit);
	remove_orbit(orbit);
	free_orbit(orbit);
	close(handle->fd);
	return err;
}

int orbit_create(orbit_handle *handle, const orbit_options *options)
{
	Orbit *orbit = nullptr;

	if (const int err = start_dispatcher())
		return err;
	if (const int err = make_orbit(&orbit, handle, options)) {
		stop_dispatcher();
		return err;
	}
	handle->impl = orbit;
	return 0;
}

void orbit_kill(orbit_handle *handle)
{
	Orbit *const orbit = orbit_of(handle);
	const Locked locked(&state_lock);
	Task *const task = orbit->running;

	if (orbit->dead)
		return;
	orbit->stat.cause = ORBIT_CAUSE_DESTROYED;
	orbit->stat.code = 0;
	orbit->stat.fault_addr = 0;
	orbit->running = nullptr;
	if (task)
		finish(task, ECONNRESET, ORBIT_CAUSE_DESTROYED, 0, 0);
	end_orbit(orbit);
}

void orbit_close(orbit_handle *handle)
{
	Orbit *const orbit = orbit_of(handle);
	const bool ours = handle->generation == generation();
	{
		const Locked locked(&state_lock);

		remove_orbit(orbit);
		free_orbit(orbit);
	}
	close_fd(&handle->fd);
	if (!ours)
		return;
	reap_parents();
	stop_dispatcher();
}

int stat(const orbit_handle *handle, struct orbit_stat *out)
{
	const Orbit *const orbit = orbit_of(handle);
	const Locked locked(&state_lock);
	const bool restarts = orbit->options.flags & ORBIT_RESTART;

	*out = orbit->stat;
	out->state = orbit->dead    ? ORBIT_STATE_DEAD :
		     orbit->running ? ORBIT_STATE_RUNNING :
		     orbit->ready   ? ORBIT_STATE_IDLE :
				      ORBIT_STATE_DOWN;
	out->pid = orbit->ready ? orbit->pid : 0;
	out->queued = in_queue(orbit);
	out->template_pid = restarts && orbit->link >= 0 ? orbit->fork_server : 0;
	return 0;
}

// What this backend does besides, where orbits are and where tasks are.
const Needed needed_calls[] = {
	ORBIT_NEEDED(memfd_create, succeeds, reinterpret_cast<long>(""), MFD_CLOEXEC),
	ORBIT_NEEDED(ftruncate, -EBADF, -1),
	ORBIT_NEEDED(pread64, -EBADF, -1),
	ORBIT_NEEDED(pwrite64, -EBADF, -1),
	ORBIT_NEEDED(lseek, -EBADF, -1),
	ORBIT_NEEDED(socketpair, -EFAULT, AF_UNIX, SOCK_SEQPACKET),
	ORBIT_NEEDED(sendmsg, -EBADF, -1),
	ORBIT_NEEDED(recvmsg, -EBADF, -1),
	ORBIT_NEEDED(ppoll, -EINVAL, 0, INT_MAX), // more than there can be
	ORBIT_NEEDED(waitid, -ECHILD, P_ALL, 0, 0, WEXITED | WNOHANG),
	ORBIT_NEEDED(pidfd_open, -EINVAL, -1),
	ORBIT_NEEDED(kill, -ESRCH, INT_MAX),
	ORBIT_NEEDED(sigaltstack, succeeds),
	ORBIT_NEEDED(shutdown, optional, -1, SHUT_RDWR),
	ORBIT_NEEDED(write, optional, -1),
	ORBIT_NEEDED(epoll_create1, optional),
	ORBIT_NEEDED(epoll_ctl, optional, -1),
#if defined(SYS_epoll_wait)
	ORBIT_NEEDED(epoll_wait, optional, -1),
#endif
	ORBIT_NEEDED(epoll_pwait, optional, -1),
	ORBIT_NEEDED(ioctl, optional, -1),
	ORBIT_NEEDED(userfaultfd, optional, -1),
	ORBIT_NEEDED(pidfd_send_signal, optional, -1),
	ORBIT_NEEDED(process_vm_readv, optional, -1),
	ORBIT_NEEDED(getrusage, optional, RUSAGE_SELF, 0),
	ORBIT_NEEDED(clock_gettime, optional, -1),
	ORBIT_NEEDED(tgkill, optional, -1),
};

// 0, or why a filter or a limit does not let orbits be.
int find_obstacle(orbit_probe_info *info)
{
	int err = find_common_refusal(&info->reason);

	if (!err)
		err = find_refusal(needed_calls, sizeof(needed_calls) / sizeof(*needed_calls), &info->reason);
	if (err) {
		info->advice = advice_on_refusal(err, "In a container or sandbox, let its seccomp profile pass it.");
	} else if (check_file_size(2 * page_size())) { // which are shared with each orbit
		err = -EFBIG;
		info->reason = "The size of files is limited to less than two pages.";
		info->advice = "Raise RLIMIT_FSIZE (ulimit -f, LimitFSIZE=).";
	}
	return err;
}

int probe(orbit_probe_info *info)
{
	info->backend = "none";
	info->advice = "";
#if !((defined(__x86_64__) || defined(__aarch64__)) && defined(__LP64__))
	info->reason = "The portable backend exists on 64-bit x86 and ARM only.";
	info->advice = "Build and run the program for one of them.";
	return -ENOSYS;
#endif
	if (const int obstacle = find_obstacle(info))
		return obstacle;

	const char *why = "";
	const int pidfd = open_pidfd(getpid());
	const int file = memfd_create("orbit-probe", MFD_CLOEXEC);
	const Tracker tracker = choose_tracker(&why);
	int err = pidfd < 0 ? pidfd : file < 0 ? -errno : 0;

	if (pidfd >= 0)
		close(pidfd);
	if (file >= 0)
		close(file);
	// So that what fails for a passing reason is tried again where it is needed.
	if (err == -EMFILE || err == -ENFILE || err == -ENOMEM)
		err = 0;
	if (err == -ENOSYS) {
		info->reason = "This kernel is too old for the portable backend.";
		info->advice = "Boot Linux 5.9 or later, better 6.7.";
		return err;
	}
	if (err) {
		info->reason = "Something refuses pidfd_open() or memfd_create().";
		info->advice = "Look at the sysctl vm.memfd_noexec, and at security modules.";
		return err;
	}
	if (tracker == Tracker::none) {
		info->reason = why;
		info->advice = "Unset ORBIT_TRACKER, or boot Linux 6.7 or later.";
		return -ENOTSUP;
	}
	info->backend = "portable";
	info->max_pools = ORBIT_MAX_POOLS;
	info->max_arg = ORBIT_MAX_ARG;
	info->features = ORBIT_FEATURE_QUEUE | ORBIT_FEATURE_MODES | ORBIT_FEATURE_UPDATES |
			 ORBIT_FEATURE_RESTART | ORBIT_FEATURE_LIMITS |
			 (can_have_zygote() ? ORBIT_FEATURE_MINIMAL : 0);
	if (tracker == Tracker::userfaultfd) {
		info->features |= ORBIT_FEATURE_IO;
		info->reason = "Processes carry orbits; userfaultfd tells which pages have changed.";
	} else {
		info->features |= ORBIT_FEATURE_CUT;
		info->reason = "Processes carry orbits; a SIGSEGV handler tells which pages have changed, with half of vm.max_map_count "
			       "mappings at most.";
	}
	return 0;
}

} // namespace

} // namespace portable

using namespace portable;

// ---- Forks of the main program ----------------------------------------------------------

ORBIT_AT_FORK void portable_before_fork()
{
	pthread_mutex_lock(&dispatcher_lock);
	pthread_mutex_lock(&snapshot_lock);
	pthread_mutex_lock(&state_lock);
}

ORBIT_AT_FORK void portable_after_fork_in_parent()
{
	pthread_mutex_unlock(&state_lock);
	pthread_mutex_unlock(&snapshot_lock);
	pthread_mutex_unlock(&dispatcher_lock);
}

// Nothing of this is the child's.
ORBIT_AT_FORK void portable_after_fork_in_child()
{
	for (Orbit *orbit = orbits; orbit; orbit = orbit->next) {
		if (orbit->running)
			close_fd(&orbit->running->told);
		for (Task *task = orbit->first; task; task = task->next)
			close_fd(&task->told);
		close_fd(&orbit->link);
		close_fd(&orbit->socket);
		close_fd(&orbit->pidfd);
		close_fd(&orbit->hup);
		for (View *view = orbit->views; view; view = view->next)
			close_fd(&view->mirror);
		orbit->from_main = nullptr; // the mappings were not inherited
		orbit->to_main = nullptr;
	}
	forget_tracking();
	for (Pool *pool = pools; pool; pool = pool->next)
		pool->handle->fd = -1;
	forget_dispatcher();
	forget_copies();
	forget_parents();
	orbits = nullptr;
	pools = nullptr;
	portable_after_fork_in_parent(); // the locks are this thread's
}

const Backend portable_backend = {
	.name = "portable",
	.probe = probe,
	.pool_create = pool_create,
	.pool_destroy = pool_destroy,
	.pool_used = pool_used,
	.prepare = [] { return start_zygote(true); },
	.orbit_create = orbit_create,
	.orbit_kill = orbit_kill,
	.orbit_close = orbit_close,
	.stat = stat,
	.call_may_be_cancelled = true,
	.call = call,
	.call_async = call_async,
	.cancel = cancel,
	.task_wait = task_wait,
	.task_cancel = task_cancel,
	.task_receive = task_receive,
	.apply_pages = apply_pages,
	.task_close = task_close,
	.send = send_update,
	.scan_check = check_seen,
	.scan_step = step_of_scan,
	.scan_holds = [] { return false; },
};

} // namespace liborbit
