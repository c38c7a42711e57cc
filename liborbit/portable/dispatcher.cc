// SPDX-License-Identifier: MIT
//
// For the portable backend: how tasks begin and end, processes, limits, and the dispatcher, which hears
// what fork servers and orbits tell.
#include "portable.h"

#include "../common/clock.h"
#include "../common/descriptors.h"
#include "../common/files.h"
#include "../common/futex.h"
#include "../common/process.h"
#include "../common/signals.h"
#include "fork_server.h"

#include <cerrno>
#include <csignal>
#include <ctime>
#include <fcntl.h>
#include <iterator>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

namespace liborbit::portable {

namespace {

constexpr std::uint64_t tick = 10 * ms;	  // how often limits are looked at
constexpr std::uint64_t longest_sleep = 1000 * ms; // should it not be woken: see wake_dispatcher()
constexpr std::uint64_t burst = 20 * ms;	  // whose share of the CPU may be used at once
constexpr unsigned max_fruitless = 5;	  // processes in a row that began no task
// A fork server that does not do its part within these is given up. Something has stopped it.
constexpr std::uint64_t patience_for_death = 1000 * ms, patience_for_birth = 60'000 * ms;
// What was killed ends when the kernel has taken its memory down; or cannot be killed.
constexpr std::uint64_t patience_for_kill = 10'000 * ms;
// Shortages of processes, descriptors or memory pass. A task that waits for so long fails.
constexpr std::uint64_t patience_for_shortage = 800 * ms, longest_pause = 100 * ms;
// More messages than a socket can hold.
constexpr unsigned many_messages = 1024;

struct Dispatcher {
	pthread_t thread;
	pthread_barrier_t begun; // there as long as the thread: who is in it may not see yet that it is over
	unsigned users;
	int wake, woken; // two ends
	bool deaf;	 // they have been lost
	int epoll;	  // or -1: all are polled each time
	int watched_wake; // as in an orbit
	bool stop;
	void *buffer;
	// Whom it wakes when it has given up the state lock, which they want first of all.
	bool wakes_later;
	Task *to_wake[16];
	std::size_t nr_to_wake;
};

ORBIT_STATE Dispatcher dispatcher;

} // namespace

// A filter may refuse it by now, and the application may have closed the descriptor.
void wake_dispatcher()
{
	char byte = 0;

	if (is_still_ours(dispatcher.wake))
		tell(dispatcher.wake, &byte, sizeof(byte), nullptr, 0, nullptr, 0, MSG_DONTWAIT);
	else
		dispatcher.deaf = true;
}

static int make_wake()
{
	int ends[2];

	if (const int err = make_sockets(SOCK_DGRAM, ends))
		return err;
	// One of the old ones may be left.
	close_fd(&dispatcher.wake);
	close_fd(&dispatcher.woken);
	dispatcher.wake = ends[0];
	dispatcher.woken = ends[1];
	dispatcher.deaf = false;
	return 0;
}

// ---- Tasks: how they end ----------------------------------------------------------------

void free_updates(Task *task)
{
	while (Update *update = task->first) {
		task->first = update->next;
		free(update);
	}
	task->last = nullptr;
}

void free_current(Task *task)
{
	if (task->current)
		free(task->current->applied);
	free(task->current);
	task->current = nullptr;
}

void put_task(Task *task)
{
	if (--task->refs)
		return;
	free_updates(task);
	free_current(task);
	close_fd(&task->told);
	free(task->arg);
	free(task->named_pools);
	free(task);
}

void notify(Task *task)
{
	const bool readable = task->first && task->flags & ORBIT_CALL_STREAM;

	if (readable != task->readable && is_still_ours(task->told) && is_still_ours(task->tells)) {
		char byte = 0;
		const ssize_t done =
			readable ? write(task->told, &byte, 1) : read(task->tells, &byte, 1);

		task->readable = done == 1 ? readable : task->readable;
	}
	// With that the other end is readable for ever, and hung up, in one step.
	if (task->stage == Stage::done)
		hang_up(&task->told);
	if (dispatcher.wakes_later && dispatcher.nr_to_wake < std::size(dispatcher.to_wake)) {
		__atomic_fetch_add(&task->event, 1, __ATOMIC_RELEASE);
		task->refs++;
		dispatcher.to_wake[dispatcher.nr_to_wake++] = task;
	} else {
		wake_all(&task->event);
	}
}

void drop_named_pools(Task *task)
{
	for (std::size_t i = 0; i < task->nr_named_pools; i++) {
		const NamedPool &named_pool = task->named_pools[i];
		Delta *delta = named_pool.view->first;

		named_pool.view->tasks--;
		while (delta && delta->snapshot < named_pool.delta)
			delta = delta->next;
		if (task->stage == Stage::waiting && delta && delta->snapshot == named_pool.delta) {
			delta->tasks--;
			merge_delta(named_pool.view, delta);
		}
	}
}

// It is in no queue any more.
void finish(Task *task, int error, std::uint32_t cause, std::int32_t code, std::uint64_t fault)
{
	Orbit *const orbit = task->orbit;

	drop_named_pools(task);
	task->stage = Stage::done;
	task->orbit = nullptr;
	task->result.error = static_cast<std::uint32_t>(error);
	task->result.cause = cause;
	task->result.code = code;
	task->result.fault_addr = fault;
	if (error) {
		free_updates(task);
		orbit->stat.failed++;
		orbit->stat.cancelled += error == ECANCELED && cause == ORBIT_CAUSE_NONE;
	} else {
		orbit->stat.completed++;
	}
	notify(task);
	put_task(task);
	sweep_views(orbit);
}

// ---- The queue --------------------------------------------------------------------------

std::size_t in_queue(const Orbit *orbit)
{
	return orbit->waiting + (orbit->running ? 1 : 0);
}

void grant_room(Orbit *orbit)
{
	while (orbit->waiters &&
	       (orbit->dead || in_queue(orbit) + orbit->reserved < orbit->options.queue_limit)) {
		Waiter *const waiter = orbit->waiters;

		orbit->waiters = waiter->next;
		if (!orbit->dead)
			orbit->reserved++;
		wake_all(&waiter->granted);
	}
}

void enqueue(Orbit *orbit, Task *task)
{
	task->next = nullptr;
	if (orbit->last)
		orbit->last->next = task;
	else
		orbit->first = task;
	orbit->last = task;
	orbit->waiting++;
}

static void enqueue_first(Orbit *orbit, Task *task)
{
	task->next = orbit->first;
	orbit->first = task;
	if (!orbit->last)
		orbit->last = task;
	orbit->waiting++;
}

Task *dequeue(Orbit *orbit)
{
	Task *const task = orbit->first;

	orbit->first = task->next;
	if (!orbit->first)
		orbit->last = nullptr;
	orbit->waiting--;
	return task;
}

// ---- Processes --------------------------------------------------------------------------

static void unwatch(Orbit *orbit, int fd);

// False: there is nobody left who could.
static bool send_signal(const Orbit *orbit, int signal)
{
	const ForkServerMessage message = {Tell::signal, orbit->pid, 0, 0, 0, signal, 0};

	if (!orbit->pid)
		return true;
	if (is_still_ours(orbit->pidfd) &&
	    (!syscall(SYS_pidfd_send_signal, orbit->pidfd, signal, nullptr, 0) || errno == ESRCH))
		return true;
	// Main has changed its user since, or a filter refuses it. The fork server still is what main was.
	return is_still_ours(orbit->link) &&
	       !tell(orbit->link, &message, sizeof(message), nullptr, 0, nullptr, 0, MSG_DONTWAIT);
}

void kill_process(Orbit *orbit, std::uint32_t cause, int error)
{
	if (!orbit->pid || orbit->killing)
		return;
	orbit->killing = true;
	orbit->kill_cause = cause;
	orbit->kill_error = error;
	orbit->time_at = orbit->tick_at = never;
	if (!send_signal(orbit, SIGKILL))
		orbit->fork_server_at = monotonic_ns();
	else if (orbit->fork_server_at == never)
		orbit->fork_server_at = monotonic_ns() + patience_for_kill;
}

static void unshare(Orbit *orbit)
{
	if (orbit->from_main)
		munmap(orbit->from_main, page_size());
	if (orbit->to_main)
		munmap(orbit->to_main, page_size());
	orbit->from_main = nullptr;
	orbit->to_main = nullptr;
}

static void forget_process(Orbit *orbit)
{
	close_watched(orbit, &orbit->socket);
	close_watched(orbit, &orbit->pidfd);
	unshare(orbit);
	free(orbit->incoming);
	orbit->incoming = nullptr;
	orbit->pid = 0;
	orbit->starting = orbit->heard = orbit->ready = orbit->began = false;
	orbit->executed = orbit->killing = orbit->stopped = orbit->ended = false;
	orbit->time_at = orbit->tick_at = orbit->fork_server_at = orbit->spawn_at = never;
	for (View *view = orbit->views; view; view = view->next)
		view->mapped = false;
	sweep_views(orbit);
}

// Another process may have it still. Then its end would be told of again and again.
static void hang_up_link(Orbit *orbit)
{
	unwatch(orbit, orbit->link);
	hang_up(&orbit->link);
}

// The orbit is dead for good. What waits ends.
void end_orbit(Orbit *orbit)
{
	const struct orbit_stat &stat = orbit->stat;

	orbit->dead = true;
	// The fork server ends with that, and the process with it; unless a task has stopped it.
	if (orbit->fork_server && is_still_ours(orbit->link))
		kill(orbit->fork_server, SIGCONT);
	send_signal(orbit, SIGKILL);
	hang_up_link(orbit);
	forget_process(orbit);
	while (orbit->first)
		finish(dequeue(orbit), ECANCELED, stat.cause, stat.code, stat.fault_addr);
	grant_room(orbit);
	hang_up(&orbit->hup);
	wake_all(&orbit->changed);
}

static int share_pages(Orbit *orbit, int *file)
{
	const std::size_t bytes = page_size();
	const unsigned seals = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL;
	const int shared = make_memory_file("orbit-shared", 2 * bytes);

	if (shared < 0)
		return shared;
	// It is not for the orbit to cut off what main reads.
	if (fcntl(shared, F_ADD_SEALS, seals)) {
		const int err = -errno;

		close(shared);
		return err;
	}

	void *ours = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, shared, 0);
	void *its = mmap(nullptr, bytes, PROT_READ, MAP_SHARED, shared, static_cast<off_t>(bytes));

	orbit->from_main = ours == MAP_FAILED ? nullptr : static_cast<FromMain *>(ours);
	orbit->to_main = its == MAP_FAILED ? nullptr : static_cast<FromOrbit *>(its);
	if (!orbit->from_main || !orbit->to_main || madvise(ours, bytes, MADV_DONTFORK) ||
	    madvise(its, bytes, MADV_DONTFORK)) {
		unshare(orbit);
		close(shared);
		return -ENOMEM;
	}
	*file = shared;
	return 0;
}

// Have the fork server fork a process.
int spawn(Orbit *orbit)
{
	const ForkServerMessage message = {Tell::spawn, 0, 0, 0, 0, 0, 0};
	const bool lost = !is_still_ours(orbit->link);
	int sockets[2], fds[2];
	int err = make_sockets(SOCK_SEQPACKET, sockets);

	if (err)
		return err;
	err = share_pages(orbit, &fds[1]);
	if (!err) {
		fds[0] = sockets[1];
		err = lost ? -EPIPE :
			     tell(orbit->link, &message, sizeof(message), nullptr, 0, fds, 2, MSG_DONTWAIT);
		close(fds[1]);
	}
	close(sockets[1]);
	// If the fork server is gone, what it has said last says why.
	if (err && err != -EPIPE && err != -ECONNRESET) {
		close(sockets[0]);
		unshare(orbit);
		return err;
	}
	orbit->socket = sockets[0];
	orbit->starting = true;
	orbit->fork_server_at = monotonic_ns() + (lost ? 0 : patience_for_birth); // of another's link nothing is heard
	return 0;
}

// ---- Limits -----------------------------------------------------------------------------

static std::uint64_t cpu_time(pid_t pid)
{
	clockid_t clock;
	timespec time;

	if (clock_getcpuclockid(pid, &clock) || clock_gettime(clock, &time))
		return 0;
	return to_ns(time);
}

// A share that is used up makes a debt, which the process sits out.
static void share_cpu(Orbit *orbit, std::uint64_t cpu, std::uint64_t time)
{
	const std::uint64_t percent = orbit->options.cpu_percent;
	const auto most = static_cast<std::int64_t>(burst * percent / 100);

	if (!percent)
		return;
	if (orbit->share_at)
		orbit->share += static_cast<std::int64_t>((time - orbit->share_at) * percent / 100);
	orbit->share = orbit->share > most ? most : orbit->share;
	orbit->share -= static_cast<std::int64_t>(cpu > orbit->cpu_seen ? cpu - orbit->cpu_seen : 0);
	orbit->share_at = time;
	orbit->cpu_seen = cpu;

	const bool stop = orbit->share < 0 && orbit->running;

	if (stop)
		orbit->tick_at = time + static_cast<std::uint64_t>(-orbit->share) * 100 / percent + 1;
	if (stop != orbit->stopped)
		send_signal(orbit, stop ? SIGSTOP : SIGCONT);
	orbit->stopped = stop;
}

static void begin_limits(Orbit *orbit, const Task *task)
{
	const bool ticks = task->cpu_limit || orbit->options.memory_limit || orbit->options.cpu_percent;
	const std::uint64_t time = monotonic_ns();

	orbit->time_at = task->time_limit && task->time_limit < never - time ? time + task->time_limit : never;
	orbit->tick_at = ticks ? time + tick : never;
	if (ticks) {
		orbit->cpu_start = cpu_time(orbit->pid);
		share_cpu(orbit, orbit->cpu_start, time);
	}
	if (ticks || orbit->time_at != never)
		wake_dispatcher();
}

static void end_limits(Orbit *orbit)
{
	if (orbit->options.cpu_percent)
		share_cpu(orbit, cpu_time(orbit->pid), monotonic_ns());
	orbit->time_at = orbit->tick_at = never;
}

static bool is_over_memory(const Orbit *orbit, std::uint64_t used)
{
	const std::uint64_t limit = orbit->options.memory_limit;

	return limit && used > orbit->base_memory && used - orbit->base_memory > limit;
}

static void check_limits(Orbit *orbit, std::uint64_t time)
{
	const Task *const task = orbit->running;

	if (!task || orbit->killing)
		return;
	if (time >= orbit->time_at) {
		kill_process(orbit, ORBIT_CAUSE_TIMEOUT, ETIMEDOUT);
		return;
	}
	if (time < orbit->tick_at)
		return;
	orbit->tick_at = time + tick;

	const std::uint64_t cpu = cpu_time(orbit->pid);

	if (task->cpu_limit && cpu > orbit->cpu_start && cpu - orbit->cpu_start > task->cpu_limit)
		kill_process(orbit, ORBIT_CAUSE_TIMEOUT, ETIMEDOUT);
	else if (orbit->options.memory_limit && is_over_memory(orbit, anonymous_memory(orbit->pid, nullptr)))
		kill_process(orbit, ORBIT_CAUSE_LIMIT, ENOMEM);
	else
		share_cpu(orbit, cpu, time);
}

// ---- A task begins ----------------------------------------------------------------------

struct Pieces {
	Orbit *orbit;
	MapMessage message;
	int fds[max_pieces];
	std::size_t nr_fds;
	int err;

	void flush()
	{
		if (message.count && !err)
			err = tell(orbit->socket, &message,
				   offsetof(MapMessage, pieces) + message.count * sizeof(MapPiece), nullptr, 0,
				   fds, nr_fds, MSG_DONTWAIT);
		message.count = 0;
		nr_fds = 0;
	}

	void add(const View *view, std::uint64_t from, std::uint64_t length, bool has_file)
	{
		// Where it may have few descriptors, it can receive one at a time.
		const std::size_t room = orbit->options.nr_files ? 1 : max_pieces;

		message.pieces[message.count++] = {view->start, view->bytes, from, length, has_file, 0};
		if (has_file)
			fds[nr_fds++] = view->mirror;
		if (message.count == room)
			flush();
	}
};

// See to it that the orbit's process has the views of a task, and no others.
static int map_views(Orbit *orbit, const Task *task)
{
	Pieces pieces = {orbit, {Tell::map, 0, {}}, {}, 0, 0};

	for (std::size_t i = 0; i < task->nr_named_pools; i++)
		task->named_pools[i].view->wanted = true;
	for (View *view = orbit->views; view; view = view->next) {
		if (!view->wanted && view->mapped && view->pool && view->length) {
			// There, but empty.
			pieces.add(view, 0, 0, true);
			view->from = view->length = 0;
		} else if (!view->wanted && view->mapped && !view->pool) {
			pieces.add(view, 0, 0, false);
			view->mapped = false;
		}
		view->wanted = false;
	}
	for (std::size_t i = 0; i < task->nr_named_pools; i++) {
		const NamedPool &named_pool = task->named_pools[i];
		View *const view = named_pool.view;

		if (view->mapped && view->from == named_pool.from && view->length == named_pool.length)
			continue;
		pieces.add(view, named_pool.from, named_pool.length, true);
		view->mapped = true;
		view->from = named_pool.from;
		view->length = named_pool.length;
	}
	pieces.flush();
	return pieces.err;
}

static int send_task(const Orbit *orbit, const Task *task)
{
	TaskMessage head{};
	const std::size_t seen = task->nr_named_pools * sizeof(Visible);
	auto *body = static_cast<char *>(malloc(seen + task->arg_size + 1));

	if (!body)
		return -ENOMEM;
	for (std::size_t i = 0; i < task->nr_named_pools; i++) {
		const NamedPool &named_pool = task->named_pools[i];
		const std::uint64_t start = named_pool.view->start + named_pool.from;
		const Visible visible = {start, start + named_pool.length};

		std::memcpy(body + i * sizeof(visible), &visible, sizeof(visible));
	}
	if (task->arg_size)
		std::memcpy(body + seen, task->arg, task->arg_size);
	head.tell = Tell::task;
	head.receivable = task->receivable;
	head.number = task->result.task;
	head.entry = task->entry;
	head.nr_visible = static_cast<std::uint32_t>(task->nr_named_pools);
	head.arg_size = static_cast<std::uint32_t>(task->arg_size);
	head.update_limit = orbit->options.update_limit;
	__atomic_store_n(&orbit->from_main->received, 0, __ATOMIC_RELEASE);

	const int err = tell(orbit->socket, &head, sizeof(head), body, seen + task->arg_size, nullptr, 0,
			     MSG_DONTWAIT);

	free(body);
	return err;
}

// Bring the mirrors to the snapshot, and start it.
static int start_task(Orbit *orbit, Task *task)
{
	if (!is_still_ours(orbit->socket))
		return -EBADF;
	for (std::size_t i = 0; i < task->nr_named_pools; i++)
		if (const int err = apply_deltas(task->named_pools[i].view, task->named_pools[i].delta))
			return err;

	int err = map_views(orbit, task);

	if (!err)
		err = send_task(orbit, task);
	return err;
}

static void give_up_process(Orbit *orbit, int err);
static void lack_process(Orbit *orbit, int err);

void dispatch(Orbit *orbit)
{
	while (!orbit->dead && !orbit->running && orbit->first) {
		if (!orbit->pid) {
			if (orbit->starting || orbit->spawn_at != never)
				return;
			if (const int err = spawn(orbit))
				lack_process(orbit, err);
			wake_dispatcher();
			return;
		}
		if (!orbit->ready || orbit->killing || orbit->socket < 0)
			return;

		Task *const task = dequeue(orbit);
		const int err = start_task(orbit, task);

		if (err == -ENOMEM || err == -EFBIG) {
			finish(task, -err, ORBIT_CAUSE_NONE, 0, 0);
			continue;
		}
		if (err) {
			// It is gone, and it will be told; or it does not listen.
			enqueue_first(orbit, task);
			if (err != -EPIPE && err != -ECONNRESET)
				kill_process(orbit, ORBIT_CAUSE_NONE, ECONNRESET);
			return;
		}
		task->stage = Stage::running;
		orbit->running = task;
		orbit->began = true;
		orbit->fruitless = 0;
		begin_limits(orbit, task);
	}
	grant_room(orbit);
}

// ---- What processes tell, and their end -------------------------------------------------

// Why a process that was there is not any more.
struct End {
	std::uint32_t cause;
	std::int32_t code;
	std::uint64_t fault;
};

static void process_ended(Orbit *orbit, const End &end)
{
	Task *const task = orbit->running;
	const bool restarts = orbit->options.flags & ORBIT_RESTART && orbit->link >= 0;
	const bool killed = orbit->killing;
	const int error = killed ? orbit->kill_error : ECONNRESET;

	if (!orbit->began)
		orbit->fruitless++;
	orbit->stat.cause = end.cause;
	orbit->stat.code = end.code;
	orbit->stat.fault_addr = end.fault;
	orbit->running = nullptr;
	forget_process(orbit);
	if (task) {
		orbit->stat.last_task = task->result.task;
		if (!killed && restarts && task->flags & ORBIT_CALL_RETRY && !task->tried) {
			task->tried = true;
			task->stage = Stage::waiting;
			task->sent = task->received = 0;
			task->result.updates = 0;
			free_updates(task);
			enqueue_first(orbit, task);
		} else if (error == ECANCELED) {
			finish(task, error, ORBIT_CAUSE_NONE, 0, 0);
		} else {
			finish(task, error, end.cause, end.code, end.fault);
		}
	}
	// One that has never been ready has nobody who would ask for the next process.
	if (!restarts || !orbit->was_ready || orbit->fruitless >= max_fruitless)
		end_orbit(orbit);
	else
		dispatch(orbit);
}

// None can be had.
static void give_up_process(Orbit *orbit, int err)
{
	forget_process(orbit);
	orbit->error = err;
	orbit->stat.cause = ORBIT_CAUSE_TEMPLATE;
	orbit->stat.code = -err;
	orbit->stat.fault_addr = 0;
	end_orbit(orbit);
}

// None can be had now. It is tried again, with pauses; what waits for it in vain fails, and the next
// task tries once more.
static void lack_process(Orbit *orbit, int err)
{
	const bool passes = err == -EAGAIN || err == -ENOMEM || err == -EMFILE || err == -ENFILE || err == -ENOBUFS;
	const std::uint64_t time = monotonic_ns();

	if (!passes) {
		give_up_process(orbit, err);
		return;
	}
	forget_process(orbit);
	if (!orbit->lacking_since) {
		orbit->lacking_since = time;
		orbit->pause = ms;
	}
	if (time - orbit->lacking_since < patience_for_shortage) {
		orbit->spawn_at = time + orbit->pause;
		orbit->pause = orbit->pause * 2 < longest_pause ? orbit->pause * 2 : longest_pause;
		return;
	}
	if (!orbit->was_ready) {
		give_up_process(orbit, err);
		return;
	}
	orbit->lacking_since = 0;
	orbit->stat.cause = ORBIT_CAUSE_TEMPLATE;
	orbit->stat.code = -err;
	orbit->stat.fault_addr = 0;
	while (orbit->first)
		finish(dequeue(orbit), ECANCELED, ORBIT_CAUSE_TEMPLATE, -err, 0);
	grant_room(orbit);
}

static void try_again(Orbit *orbit)
{
	orbit->spawn_at = never;
	if (orbit->dead || (orbit->was_ready && !orbit->first))
		return; // nobody waits for it any more
	if (const int err = spawn(orbit))
		lack_process(orbit, err);
}

// Both have told, in whatever order.
static void begin_process(Orbit *orbit)
{
	if (!orbit->starting || !orbit->heard || !orbit->pid)
		return;
	if (orbit->was_ready)
		orbit->stat.restarts++;
	orbit->was_ready = true;
	orbit->cpu_seen = cpu_time(orbit->pid);
	orbit->share_at = monotonic_ns();
	orbit->starting = false;
	orbit->lacking_since = 0;
	orbit->ready = true;
	orbit->fork_server_at = never;
	wake_all(&orbit->changed);
	dispatch(orbit);
}

static bool on_ready(Orbit *orbit, const ReturnMessage &message)
{
	if (!orbit->starting || orbit->heard)
		return orbit->killing;
	orbit->heard = true;
	orbit->base_memory = message.anonymous;
	begin_process(orbit);
	return true;
}

static void on_spawned(Orbit *orbit, const ForkServerMessage &message, int fd)
{
	fd = lift(fd);
	if (message.error || fd < 0) {
		if (fd >= 0)
			close(fd);
		lack_process(orbit, message.error ? -message.error : -EMFILE);
		return;
	}
	orbit->pid = message.pid;
	orbit->fork_server = message.fork_server;
	orbit->pidfd = fd;
	begin_process(orbit);
}

static void on_returned(Orbit *orbit, const ReturnMessage &message)
{
	Task *const task = orbit->running;

	if (orbit->killing)
		return;
	if (!task || task->result.task != message.number || orbit->incoming) {
		kill_process(orbit, ORBIT_CAUSE_NONE, ECONNRESET);
		return;
	}
	if (is_over_memory(orbit, message.anonymous)) {
		kill_process(orbit, ORBIT_CAUSE_LIMIT, ENOMEM);
		return;
	}
	orbit->running = nullptr;
	end_limits(orbit);
	task->result.value = message.value;
	finish(task, 0, ORBIT_CAUSE_NONE, 0, 0);
	dispatch(orbit);
}

// Are the pages of an update some of those that the task sees, in order?
static bool are_pages(const Task *task, const Update *update)
{
	const NamedPool &named_pool = task->named_pools[update->place];
	std::uint64_t at = named_pool.from, bytes = 0;

	for (std::uint32_t i = 0; i < update->nr_ranges; i++) {
		orbit_page_range range;

		std::memcpy(&range, update->data + i * sizeof(range), sizeof(range));
		if (range.offset < at || !range.length || (range.offset | range.length) & (page_size() - 1) ||
		    range.offset - named_pool.from > named_pool.length ||
		    range.length > named_pool.length - (range.offset - named_pool.from))
			return false;
		at = range.offset + range.length;
		bytes += range.length;
	}
	return bytes + update->nr_ranges * sizeof(orbit_page_range) == update->bytes;
}

static bool is_sane(const Orbit *orbit, const Task *task, const UpdateMessage &head)
{
	if (!task || task->result.task != head.number || !task->receivable || orbit->incoming)
		return false;
	if (head.kind != ORBIT_UPDATE_PAGES)
		return head.bytes <= ORBIT_MAX_UPDATE;
	if (head.place >= task->nr_named_pools)
		return false;

	const std::uint64_t most = task->named_pools[head.place].length;

	return head.nr_ranges <= most / page_size() &&
	       head.bytes <= most + head.nr_ranges * sizeof(orbit_page_range) &&
	       head.bytes >= head.nr_ranges * sizeof(orbit_page_range);
}

// Returns false if it breaks the rules.
static bool on_update(Orbit *orbit, const UpdateMessage &head)
{
	Task *const task = orbit->running;

	if (!is_sane(orbit, task, head))
		return false;

	const bool pages = head.kind == ORBIT_UPDATE_PAGES;
	const std::size_t content = head.bytes - (pages ? head.nr_ranges * sizeof(orbit_page_range) : 0);
	const std::size_t charge = content ? content : 1;
	const std::uint64_t kept = task->sent - task->received;

	if (kept > orbit->options.update_limit || charge > orbit->options.update_limit - kept)
		return false;

	auto *update = static_cast<Update *>(malloc(sizeof(Update) + head.bytes));

	if (!update) {
		kill_process(orbit, ORBIT_CAUSE_MEMORY, ENOMEM);
		return true;
	}
	*update = {};
	update->kind = head.kind;
	update->place = head.place;
	update->target = head.target;
	update->bytes = head.bytes;
	update->charge = charge;
	update->nr_ranges = pages ? head.nr_ranges : 0;
	orbit->incoming = update;
	return true;
}

static bool on_chunk(Orbit *orbit, const void *data, std::size_t bytes)
{
	Update *const update = orbit->incoming;
	Task *const task = orbit->running;

	if (!update)
		return orbit->killing;
	if (bytes > update->bytes - update->filled)
		return false;
	std::memcpy(update->data + update->filled, data, bytes);
	update->filled += bytes;
	if (update->filled < update->bytes)
		return true;
	if (update->kind == ORBIT_UPDATE_PAGES && !are_pages(task, update))
		return false;
	orbit->incoming = nullptr;
	task->result.updates++;
	orbit->stat.updates++;
	if (task->dropped) {
		task->sent += update->charge;
		task->received += update->charge;
		__atomic_store_n(&orbit->from_main->received, task->received, __ATOMIC_RELEASE);
		free(update);
		return true;
	}
	if (task->last)
		task->last->next = update;
	else
		task->first = update;
	task->last = update;
	task->sent += update->charge;
	if (task->flags & ORBIT_CALL_STREAM)
		notify(task);
	return true;
}

// Returns false if it breaks the rules. Anything may be in a message.
static bool on_message(Orbit *orbit, const void *buffer, std::size_t bytes)
{
	Tell what;

	if (bytes < sizeof(what) || bytes > max_message)
		return false;
	std::memcpy(&what, buffer, sizeof(what));
	if (what == Tell::returned || what == Tell::ready) {
		ReturnMessage message;

		if (bytes != sizeof(message))
			return false;
		std::memcpy(&message, buffer, sizeof(message));
		if (what == Tell::ready)
			return on_ready(orbit, message);
		on_returned(orbit, message);
		return true;
	}
	if (what == Tell::update) {
		UpdateMessage head;

		if (bytes < sizeof(head))
			return false;
		std::memcpy(&head, buffer, sizeof(head));
		return orbit->killing ||
		       (on_update(orbit, head) && on_chunk(orbit, static_cast<const char *>(buffer) + sizeof(head),
							   bytes - sizeof(head)));
	}
	if (what == Tell::more) {
		MoreMessage more;

		if (bytes < sizeof(more))
			return false;
		std::memcpy(&more, buffer, sizeof(more));
		if (more.broken_off) {
			free(orbit->incoming);
			orbit->incoming = nullptr;
			return true;
		}
		return on_chunk(orbit, static_cast<const char *>(buffer) + sizeof(more), bytes - sizeof(more));
	}
	return false;
}

// Its socket is closed: it ends, has called exec, or has closed its descriptors.
static void on_hangup(Orbit *orbit)
{
	close_watched(orbit, &orbit->socket);
	if (!orbit->pid || orbit->killing)
		return;

	const ProcessState process = look_at_process(orbit->pid);

	orbit->executed = process.executed;
	if (!process.ending)
		kill_process(orbit, ORBIT_CAUSE_NONE, ECONNRESET);
}

// As many messages as there are, or up to the end of a task: after that there are seldom more.
static void hear_orbit(Orbit *orbit, unsigned most, bool to_the_end)
{
	const Task *const task = orbit->running;

	if (orbit->socket >= 0 && !is_still_ours(orbit->socket))
		on_hangup(orbit);
	for (unsigned i = 0; i < most && orbit->socket >= 0; i++) {
		std::size_t no_fds = 0;
		const long got = hear(orbit->socket, dispatcher.buffer, max_message, nullptr, &no_fds, MSG_DONTWAIT);

		if (got == -EAGAIN)
			return;
		if (got == -EMFILE)
			continue; // it sent descriptors: nobody asked for them
		if (got <= 0)
			on_hangup(orbit);
		else if (!on_message(orbit, dispatcher.buffer, static_cast<std::size_t>(got)))
			kill_process(orbit, ORBIT_CAUSE_NONE, ECONNRESET);
		if (!to_the_end && orbit->running != task)
			return;
	}
}

static End judge_end(const Orbit *orbit, const ForkServerMessage *message)
{
	const auto faulted = static_cast<std::int32_t>(
		orbit->to_main ? __atomic_load_n(&orbit->to_main->faulted, __ATOMIC_RELAXED) : 0);
	const bool by_fault = faulted == SIGSEGV || faulted == SIGBUS;

	if (orbit->killing && orbit->kill_cause != ORBIT_CAUSE_NONE)
		return {orbit->kill_cause, 0, 0};
	if (message ? message->executed : orbit->executed)
		return {ORBIT_CAUSE_EXEC, 0, 0};
	if (message && message->code == CLD_EXITED)
		return {ORBIT_CAUSE_EXIT, message->status, 0};

	// Without a fork server nobody knows, but for what the process itself could write down.
	const std::int32_t signal = message ? message->status : by_fault ? faulted : SIGKILL;

	return {ORBIT_CAUSE_SIGNAL, signal,
		by_fault && faulted == signal ? __atomic_load_n(&orbit->to_main->address, __ATOMIC_RELAXED) : 0};
}

static void on_death(Orbit *orbit, const ForkServerMessage *message)
{
	// What it said before comes first. A process that it has forked may go on talking.
	hear_orbit(orbit, many_messages, true);
	process_ended(orbit, judge_end(orbit, message));
}

static void hear_fork_server(Orbit *orbit)
{
	while (orbit->link >= 0) {
		ForkServerMessage message{};
		int fd = -1;
		std::size_t nr_fds = 1;
		const long got = is_still_ours(orbit->link) ? hear(orbit->link, &message, sizeof(message), &fd,
								   &nr_fds, MSG_DONTWAIT) :
							      -EBADF;

		if (got == -EAGAIN)
			return;
		if (got == -EMFILE) {
			lack_process(orbit, -EMFILE);
		} else if (got != sizeof(message)) {
			// Somebody has killed it. Its orbit goes on as long as the process does.
			close_watched(orbit, &orbit->link);
			if (!orbit->pid && (orbit->starting || orbit->first))
				give_up_process(orbit, -ECHILD);
		} else if (message.tell == Tell::spawned) {
			on_spawned(orbit, message, nr_fds ? fd : -1);
		} else if (message.tell == Tell::died && message.pid == orbit->pid) {
			on_death(orbit, &message);
		}
	}
}

// It is gone, has been stopped, or does not answer for another reason.
static void give_up_fork_server(Orbit *orbit)
{
	if (orbit->fork_server && is_still_ours(orbit->link))
		kill(orbit->fork_server, SIGKILL); // as long as it has the other end its number is its own
	hang_up_link(orbit);
	if (orbit->ended || orbit->killing)
		on_death(orbit, nullptr);
	else
		give_up_process(orbit, -ECHILD);
}

// ---- The dispatcher -------------------------------------------------------------------------

struct PollList {
	pollfd *fds;
	std::size_t count, room;

	bool add(int fd)
	{
		if (count == room) {
			const std::size_t more = room ? 2 * room : 64;
			void *bigger = realloc(fds, more * sizeof(pollfd));

			if (!bigger)
				return false;
			fds = static_cast<pollfd *>(bigger);
			room = more;
		}
		fds[count++] = {fd, POLLIN, 0};
		return true;
	}
};

// Not by its end alone: a process that has been forked may have it still.
static void unwatch(Orbit *orbit, int fd)
{
	for (int &watched : orbit->watched)
		if (fd >= 0 && watched == fd + 1) {
			epoll_ctl(dispatcher.epoll, EPOLL_CTL_DEL, fd, nullptr);
			watched = 0;
		}
}

void close_watched(Orbit *orbit, int *fd)
{
	unwatch(orbit, *fd);
	close_fd(fd);
}

// From now on all are polled.
static void give_up_epoll()
{
	close_fd(&dispatcher.epoll);
	dispatcher.watched_wake = 0;
	for (Orbit *orbit = orbits; orbit; orbit = orbit->next)
		for (int &watched : orbit->watched)
			watched = 0;
}

// What is not watched any more is taken out only if it is open: by now the number may be another's.
static void watch(int *watched, int fd, std::uint64_t data, int open = -1)
{
	epoll_event event{};

	if (*watched == fd + 1 || dispatcher.epoll < 0)
		return;
	if (open >= 0 && *watched == open + 1)
		epoll_ctl(dispatcher.epoll, EPOLL_CTL_DEL, open, nullptr);
	*watched = 0;
	if (fd < 0)
		return;
	event.events = EPOLLIN;
	event.data.u64 = data;
	if (epoll_ctl(dispatcher.epoll, EPOLL_CTL_ADD, fd, &event))
		give_up_epoll();
	else
		*watched = fd + 1;
}

constexpr std::uint64_t which = 3; // bits of what epoll tells; the rest is the orbit

static void watch_all()
{
	epoll_event wake{};

	// The application may have closed it, and have one of its own by that number, which has not this.
	wake.events = EPOLLIN;
	if (dispatcher.epoll >= 0 && dispatcher.watched_wake &&
	    epoll_ctl(dispatcher.epoll, EPOLL_CTL_MOD, dispatcher.watched_wake - 1, &wake))
		give_up_epoll();
	watch(&dispatcher.watched_wake, dispatcher.woken, 0);
	for (Orbit *orbit = orbits; orbit; orbit = orbit->next) {
		const auto data = reinterpret_cast<std::uintptr_t>(orbit);

		watch(&orbit->watched[0], orbit->link, data);
		watch(&orbit->watched[1], orbit->socket, data | 1);
		watch(&orbit->watched[2], orbit->ended ? -1 : orbit->pidfd, data | 2, orbit->pidfd);
	}
}

// When something has to be looked at, whatever is told.
static std::uint64_t next_moment()
{
	std::uint64_t next = monotonic_ns() + longest_sleep;

	for (const Orbit *orbit = orbits; orbit; orbit = orbit->next)
		for (const std::uint64_t moment :
		     {orbit->time_at, orbit->tick_at, orbit->fork_server_at, orbit->spawn_at})
			next = moment < next ? moment : next;
	return next;
}

// False: not all are in the list.
static bool fill_list(PollList *list)
{
	list->count = 0;
	if (!list->add(dispatcher.woken))
		return false;
	for (Orbit *orbit = orbits; orbit; orbit = orbit->next) {
		orbit->polled = list->count + 1;
		if (!list->add(orbit->link) || !list->add(orbit->socket) ||
		    !list->add(orbit->ended ? -1 : orbit->pidfd)) {
			orbit->polled = 0;
			return false;
		}
	}
	return true;
}

// The descriptor that was polled may have become another process's.
static bool has_ended(const Orbit *orbit)
{
	pollfd fd = {orbit->pidfd, POLLIN, 0};

	return orbit->pidfd >= 0 && poll(&fd, 1, 0) == 1;
}

static void look_after(Orbit *orbit, std::uint64_t time)
{
	const unsigned told = orbit->told;

	orbit->told = 0;
	if (told & 2 && orbit->socket >= 0)
		hear_orbit(orbit, 64, false);
	if (told & 1 && orbit->link >= 0)
		hear_fork_server(orbit);
	if (told & 4 && has_ended(orbit)) {
		orbit->ended = true;
		orbit->fork_server_at = orbit->link < 0 ? time : time + patience_for_death;
	}
	if (time >= orbit->fork_server_at)
		give_up_fork_server(orbit);
	if (time >= orbit->spawn_at)
		try_again(orbit);
	check_limits(orbit, time);
}

static void hear_wake()
{
	char bytes[16];
	std::size_t no_fds = 0;

	if (!is_still_ours(dispatcher.woken))
		dispatcher.deaf = true;
	while (!dispatcher.deaf && hear(dispatcher.woken, bytes, sizeof(bytes), nullptr, &no_fds, MSG_DONTWAIT) > 0)
		;
}

static void sleep_on_list(PollList *list, std::uint64_t moment)
{
	const std::uint64_t before = monotonic_ns();
	const std::uint64_t left = moment > before ? moment - before : 0;
	const timespec timeout = {static_cast<time_t>(left / (1000 * ms)), static_cast<long>(left % (1000 * ms))};

	if (ppoll(list->fds, list->count, &timeout, nullptr) >= 0 || errno == EINTR)
		return;

	std::uint32_t nobody = 0;

	wait_on(&nobody, 0, before + (left < tick ? left : tick) + 1);
	for (std::size_t i = 0; i < list->count; i++)
		list->fds[i].revents = list->fds[i].fd >= 0 ? POLLIN : 0;
}

// Until something happens, or a moment; without the state lock meanwhile. Where poll does not work (a filter,
// more descriptors than are allowed by now), all that may have something to tell are asked: they do
// not block.
static void poll_until(PollList *list, std::uint64_t moment)
{
	if (!fill_list(list))
		moment = monotonic_ns() + tick; // and try again
	pthread_mutex_unlock(&state_lock);
	sleep_on_list(list, moment);
	pthread_mutex_lock(&state_lock);
	if (list->count && list->fds[0].revents)
		hear_wake();
	for (Orbit *orbit = orbits; orbit; orbit = orbit->next) {
		if (!orbit->polled || orbit->polled + 2 > list->count)
			continue;

		const pollfd *const fds = list->fds + orbit->polled - 1;

		orbit->told |= (fds[0].revents && orbit->link == fds[0].fd ? 1U : 0U) |
			       (fds[1].revents && orbit->socket == fds[1].fd ? 2U : 0U) | (fds[2].revents ? 4U : 0U);
		orbit->polled = 0;
	}
}

// The same. What it costs does not grow with the orbits that have nothing to tell.
static void wait_until_told(std::uint64_t moment)
{
	epoll_event events[16];
	const std::uint64_t before = monotonic_ns();
	const std::uint64_t left = moment > before ? (moment - before + ms - 1) / ms : 0;
	const int epoll = dispatcher.epoll;

	pthread_mutex_unlock(&state_lock);

	const int count = epoll_wait(epoll, events, std::size(events), static_cast<int>(left));
	const bool broken = count < 0 && errno != EINTR;

	pthread_mutex_lock(&state_lock);
	if (broken)
		give_up_epoll();
	for (int i = 0; i < count; i++) {
		const std::uint64_t data = events[i].data.u64;

		if (!data)
			hear_wake();
		// It may be gone by now.
		for (Orbit *orbit = orbits; orbit && data; orbit = orbit->next)
			if (reinterpret_cast<std::uintptr_t>(orbit) == (data & ~which))
				orbit->told |= 1U << (data & which);
	}
}

static void wake_waiters()
{
	if (!dispatcher.nr_to_wake)
		return;
	pthread_mutex_unlock(&state_lock);
	for (std::size_t i = 0; i < dispatcher.nr_to_wake; i++)
		futex_wake(&dispatcher.to_wake[i]->event);
	pthread_mutex_lock(&state_lock);
	while (dispatcher.nr_to_wake)
		put_task(dispatcher.to_wake[--dispatcher.nr_to_wake]);
}

static void *keep(void *)
{
	PollList list{};
	std::uint64_t polled = monotonic_ns();

	prctl(PR_SET_NAME, "orbit-dispatch");
	pthread_barrier_wait(&dispatcher.begun);
	pthread_mutex_lock(&state_lock);
	while (!dispatcher.stop) {
		if (dispatcher.deaf)
			make_wake();
		watch_all();
		// A descriptor that the application has closed epoll forgets, and poll tells of.
		if (dispatcher.epoll >= 0 && monotonic_ns() - polled >= longest_sleep) {
			poll_until(&list, 0);
			polled = monotonic_ns();
		} else if (dispatcher.epoll >= 0) {
			wait_until_told(next_moment());
		} else {
			poll_until(&list, next_moment());
		}

		const std::uint64_t after = monotonic_ns();

		dispatcher.wakes_later = true;
		for (Orbit *orbit = orbits; orbit; orbit = orbit->next)
			look_after(orbit, after);
		dispatcher.wakes_later = false;
		wake_waiters();
	}
	pthread_mutex_unlock(&state_lock);
	free(list.fds);
	return nullptr;
}

static bool has_room_for_stack()
{
	pthread_attr_t usual;
	std::size_t bytes = 0;

	if (pthread_getattr_default_np(&usual))
		return false;
	pthread_attr_getstacksize(&usual, &bytes);
	pthread_attr_destroy(&usual);

	void *const stack = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK, -1, 0);

	return stack != MAP_FAILED && !munmap(stack, bytes);
}

int start_dispatcher()
{
	const Locked locked(&dispatcher_lock);

	if (dispatcher.users) {
		dispatcher.users++;
		return 0;
	}
	dispatcher.stop = false;
	dispatcher.buffer = malloc(max_message);
	dispatcher.wake = dispatcher.woken = -1;
	dispatcher.epoll = lift(epoll_create1(EPOLL_CLOEXEC)); // or none
	dispatcher.watched_wake = 0;

	int err = dispatcher.buffer ? make_wake() : -ENOMEM;

	if (!err) {
		const SignalsBlocked blocked; // the application's are not for it

		pthread_barrier_init(&dispatcher.begun, nullptr, 2);
		err = -pthread_create(&dispatcher.thread, nullptr, keep, nullptr);
		// Whatever runs at a thread's start, a sanitizer's for one, may hold locks that a process which is
		// forked meanwhile would have for ever. From now on no fork finds the thread but where it waits.
		if (!err)
			pthread_barrier_wait(&dispatcher.begun);
		else
			pthread_barrier_destroy(&dispatcher.begun);
		if (err == -EAGAIN && !has_room_for_stack())
			err = -ENOMEM; // the C library does not say so
	}
	if (err) {
		close_fd(&dispatcher.wake);
		close_fd(&dispatcher.woken);
		close_fd(&dispatcher.epoll);
		free(dispatcher.buffer);
		return err;
	}
	dispatcher.users = 1;
	return 0;
}

void stop_dispatcher()
{
	const Locked locked(&dispatcher_lock);

	if (--dispatcher.users)
		return;
	{
		const Locked state(&state_lock);

		dispatcher.stop = true;
		wake_dispatcher();
	}
	pthread_join(dispatcher.thread, nullptr);
	pthread_barrier_destroy(&dispatcher.begun);
	close_fd(&dispatcher.wake);
	close_fd(&dispatcher.woken);
	close_fd(&dispatcher.epoll);
	free(dispatcher.buffer);
}

ORBIT_AT_FORK void forget_dispatcher()
{
	if (!dispatcher.users)
		return;
	close_fd(&dispatcher.wake);
	close_fd(&dispatcher.woken);
	close_fd(&dispatcher.epoll);
	dispatcher = {};
}

} // namespace liborbit::portable
