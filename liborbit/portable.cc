// SPDX-License-Identifier: MIT
//
// The backend for kernels without orbits. An orbit is a process forked by a warden (wire.h); its
// views of pools are private mappings of mirrors, files that hold what its last task has seen. A
// call brings what has changed since (track.h) to the mirror, or, while tasks wait or run, to a
// delta that is kept until the task begins.
//
// Two locks: snapshot_lock for pools and what changed in them, then state_lock for orbits and
// tasks. One thread, the keeper, hears what wardens and orbits tell, and watches limits; it exists
// as long as there are orbits.
#include "internal.h"

#include "little.h"
#include "track.h"
#include "warden.h"
#include "wire.h"

#include <cerrno>
#include <climits>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <fcntl.h>
#include <linux/futex.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

namespace liborbit {

namespace {

constexpr std::uint64_t ms = 1'000'000;	       // in nanoseconds
constexpr std::uint64_t tick = 10 * ms;	       // how often limits are looked at
constexpr std::uint64_t burst = 20 * ms;       // whose share of the CPU may be used at once
constexpr unsigned max_abandoned = 256;	       // outcomes that nobody has come back for
constexpr unsigned max_fruitless = 5;	       // processes in a row that began no task
constexpr std::uint64_t never = UINT64_MAX;
// A warden that does not do its part within these is given up. Something has stopped it.
constexpr std::uint64_t patience_for_death = 1000 * ms, patience_for_birth = 60'000 * ms;
// More messages than a socket can hold.
constexpr unsigned many_messages = 1024;

// ---- What there is ---------------------------------------------------------------------

struct Pool {
	Tracked tracked;
	Pool *next;
	orbit_pool *handle;
};

struct PageCopy {
	std::uint32_t page;
	void *bytes;
};

// What changed between two snapshots, for a mirror that is still in use.
struct Delta {
	Delta *next;
	std::uint64_t snapshot;
	unsigned tasks; // that need it, and none after it
	std::size_t count;
	PageCopy *pages; // in order
};

// A pool as an orbit sees it. Its mirror has what changed up to a snapshot, or to that of the
// first delta.
struct View {
	View *next;
	Pool *pool; // null: it has been destroyed
	std::uint64_t start, bytes;
	int mirror;
	std::uint64_t planned; // the snapshot of the last delta, or the mirror's
	std::uint64_t named;   // in the call that is being made
	Delta *first, *last;
	unsigned tasks; // that name it
	bool mapped;	// in the orbit's process:
	std::uint64_t from, length;
	bool wanted;
};

// A pool that a task was called with.
struct Sight {
	View *view;
	std::uint64_t from, length;
	std::uint32_t mode;
	std::uint64_t snapshot; // of the call,
	std::uint64_t delta;	// and of the last delta that it needs; 0: none
};

struct Update {
	Update *next;
	std::uint32_t kind, place;
	std::uint64_t target;
	std::size_t bytes, filled;
	std::size_t charge;
	std::uint32_t nr_ranges;
	bool *applied; // pages: which have been put in place
	alignas(16) char data[];
};

enum class Stage { waiting, running, done };

struct Orbit;

struct Task {
	unsigned refs;
	Task *next, *next_abandoned;
	Orbit *orbit; // until it is done
	Stage stage;
	orbit_result result;
	std::uintptr_t entry;
	void *arg;
	std::size_t arg_size;
	std::uint64_t flags, time_limit, cpu_limit;
	Sight *sights;
	std::size_t nr_sights;
	bool receivable; // it has a handle,
	bool dropped;	 // or had one
	bool tried;
	std::uint32_t event; // a futex: changes when something happens
	int told;	     // the write end of its pipe, or -1
	int tells;	     // the read end, which is the handle's
	bool readable;	     // there is a byte in it
	Update *first, *last;
	Update *current; // received last
	std::uint64_t sent, received; // bytes
};

// A call that waits for room in a queue.
struct Waiter {
	Waiter *next;
	std::uint32_t granted; // a futex
};

struct Orbit {
	Orbit *next;
	orbit_options options; // without pointers
	int hup;  // the other end of the handle's socket
	int link; // to the warden, or -1
	pid_t warden;
	std::size_t polled; // place in the keeper's list, plus one
	bool dead;
	int error;	    // why there is no process
	bool was_ready;	    // there has been one

	// Its process.
	pid_t pid;
	int pidfd, socket;
	bool starting; // it has been asked for
	bool heard;    // it has said that it is ready,
	bool ready;    // and so has its warden
	bool began;    // a task
	FromMain *from_main;
	FromOrbit *to_main;
	bool executed; // it has called exec
	bool killing;
	std::uint32_t kill_cause;
	int kill_error; // of the task that runs
	std::uint64_t base_memory;
	unsigned fruitless;
	Update *incoming;

	// Its tasks.
	Task *running, *first, *last;
	std::size_t waiting, reserved;
	Waiter *waiters;
	Task *abandoned;
	View *views;

	// Limits of the running task; moments, or never.
	std::uint64_t time_at, tick_at;
	std::uint64_t warden_at; // when its warden must have done what it has to
	std::uint64_t cpu_start;
	std::uint64_t cpu_seen, share_at;
	std::int64_t share; // of the CPU, in nanoseconds, that may be used now
	bool stopped;

	std::uint32_t changed; // a futex, for its creation
	struct orbit_stat stat;
};

ORBIT_STATE pthread_mutex_t snapshot_lock = PTHREAD_MUTEX_INITIALIZER;
ORBIT_STATE pthread_mutex_t state_lock = PTHREAD_MUTEX_INITIALIZER;
ORBIT_STATE pthread_mutex_t keeper_lock = PTHREAD_MUTEX_INITIALIZER;

ORBIT_STATE Orbit *orbits;
ORBIT_STATE Pool *pools;
ORBIT_STATE std::uint64_t snapshots; // so far

struct Keeper {
	pthread_t thread;
	unsigned users;
	int wake;
	bool stop;
	void *buffer;
};

ORBIT_STATE Keeper keeper;

class Locked {
public:
	explicit Locked(pthread_mutex_t *lock) : lock_(lock) { pthread_mutex_lock(lock_); }
	Locked(const Locked &) = delete;
	~Locked() { pthread_mutex_unlock(lock_); }

private:
	pthread_mutex_t *lock_;
};

template <class T> T *allocate(std::size_t count = 1)
{
	return static_cast<T *>(calloc(count ? count : 1, sizeof(T)));
}

std::uint64_t now()
{
	timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return static_cast<std::uint64_t>(time.tv_sec) * 1000 * ms + static_cast<std::uint64_t>(time.tv_nsec);
}

void close_fd(int *fd)
{
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
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
	syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, INT_MAX, nullptr, nullptr, 0);
}

// What a wait has come to: 0 to look again.
int judge_wait(int err, bool interruptible)
{
	if (err == -ETIMEDOUT)
		return -ETIME;
	return err == -EINTR && interruptible ? -EINTR : 0;
}

void wake_keeper()
{
	const std::uint64_t one = 1;

	if (write(keeper.wake, &one, sizeof(one)) < 0 && errno != EAGAIN)
		log(ORBIT_LOG_DEBUG, "the keeper cannot be woken");
}

// ---- Deltas ----------------------------------------------------------------------------------

void free_delta(Delta *delta)
{
	for (std::size_t i = 0; i < delta->count; i++)
		free(delta->pages[i].bytes);
	free(delta->pages);
	free(delta);
}

// No task needs what lies between a delta and the next one: make one of the two. Without the
// memory for that they stay two.
void merge_delta(View *view, Delta *old)
{
	Delta *const next = old->next;

	if (old->tasks || !next)
		return;

	auto *pages = allocate<PageCopy>(old->count + next->count);
	std::size_t count = 0, a = 0, b = 0;

	if (!pages)
		return;
	while (a < old->count || b < next->count) {
		if (b == next->count || (a < old->count && old->pages[a].page < next->pages[b].page)) {
			pages[count++] = old->pages[a++];
			continue;
		}
		if (a < old->count && old->pages[a].page == next->pages[b].page)
			free(old->pages[a++].bytes);
		pages[count++] = next->pages[b++];
	}
	free(next->pages);
	next->pages = pages;
	next->count = count;
	old->count = 0;

	Delta **link = &view->first;

	while (*link != old)
		link = &(*link)->next;
	*link = next;
	free_delta(old);
}

void append_delta(View *view, Delta *delta)
{
	Delta *const before = view->last;

	if (before)
		before->next = delta;
	else
		view->first = delta;
	view->last = delta;
	if (before)
		merge_delta(view, before);
}

void forget_deltas(View *view)
{
	while (Delta *delta = view->first) {
		view->first = delta->next;
		free_delta(delta);
	}
	view->last = nullptr;
}

int write_mirror(const View *view, std::uint32_t page, const void *data, std::size_t count)
{
	const char *from = static_cast<const char *>(data);
	std::size_t left = count * page_size();
	off_t at = static_cast<off_t>(page * page_size());

	while (left) {
		// Not by pwrite(): another thread may be writing to what is read, and TSan need not know.
		const long done = syscall(SYS_pwrite64, view->mirror, from, left, at);

		if (done <= 0)
			return done < 0 && errno == EFAULT ? -ENXIO : -ENOMEM;
		from += done;
		at += done;
		left -= static_cast<std::size_t>(done);
	}
	return 0;
}

// Bring a mirror to a snapshot. No task is under way in the orbit.
int apply_deltas(View *view, std::uint64_t snapshot)
{
	while (view->first && view->first->snapshot <= snapshot) {
		Delta *const delta = view->first;

		for (std::size_t i = 0; i < delta->count; i++)
			if (write_mirror(view, delta->pages[i].page, delta->pages[i].bytes, 1))
				return -ENOMEM;
		view->first = delta->next;
		if (!view->first)
			view->last = nullptr;
		free_delta(delta);
	}
	return 0;
}

// ---- Views --------------------------------------------------------------------------------------

void free_view(View *view)
{
	forget_deltas(view);
	close_fd(&view->mirror);
	free(view);
}

// Those of pools that are gone, and that no task and no process needs.
void sweep_views(Orbit *orbit)
{
	View **link = &orbit->views;

	while (View *view = *link) {
		if (view->pool || view->tasks || view->mapped) {
			link = &view->next;
			continue;
		}
		*link = view->next;
		free_view(view);
	}
}

View *find_view(Orbit *orbit, const Pool *pool)
{
	View *view = orbit->views;

	while (view && view->pool != pool)
		view = view->next;
	return view;
}

int make_view(Orbit *orbit, Pool *pool, View **out)
{
	auto *view = allocate<View>();

	if (!view)
		return -ENOMEM;
	view->pool = pool;
	view->start = pool->tracked.start;
	view->bytes = pool->tracked.nr_pages * page_size();
	view->mirror = lift(memfd_create("orbit-view", MFD_CLOEXEC | MFD_ALLOW_SEALING));
	if (view->mirror < 0 || ftruncate(view->mirror, static_cast<off_t>(view->bytes)) ||
	    fcntl(view->mirror, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL)) {
		const int err = -errno;

		free_view(view);
		return err;
	}

	const Locked locked(&state_lock);

	view->next = orbit->views;
	orbit->views = view;
	*out = view;
	return 0;
}

// ---- Tasks: how they end ------------------------------------------------------------------------

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
	free(task->sights);
	free(task);
}

void notify(Task *task)
{
	const bool readable = task->stage == Stage::done || (task->first && task->flags & ORBIT_CALL_STREAM);

	if (task->told >= 0 && readable != task->readable) {
		char byte = 0;
		const ssize_t done =
			readable ? write(task->told, &byte, 1) : read(task->tells, &byte, 1);

		task->readable = done == 1 ? readable : task->readable;
	}
	if (task->stage == Stage::done)
		close_fd(&task->told);
	wake_all(&task->event);
}

void drop_sights(Task *task)
{
	for (std::size_t i = 0; i < task->nr_sights; i++) {
		const Sight &sight = task->sights[i];
		Delta *delta = sight.view->first;

		sight.view->tasks--;
		while (delta && delta->snapshot < sight.delta)
			delta = delta->next;
		if (task->stage == Stage::waiting && delta && delta->snapshot == sight.delta) {
			delta->tasks--;
			merge_delta(sight.view, delta);
		}
	}
}

// It is in no queue any more.
void finish(Task *task, int error, std::uint32_t cause, std::int32_t code, std::uint64_t fault)
{
	Orbit *const orbit = task->orbit;

	drop_sights(task);
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

// ---- The queue -------------------------------------------------------------------------------------

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

void enqueue_first(Orbit *orbit, Task *task)
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

// ---- Processes ---------------------------------------------------------------------------------------

void send_signal(const Orbit *orbit, int signal)
{
	if (orbit->pidfd >= 0)
		syscall(SYS_pidfd_send_signal, orbit->pidfd, signal, nullptr, 0);
}

void kill_process(Orbit *orbit, std::uint32_t cause, int error)
{
	if (!orbit->pid || orbit->killing)
		return;
	orbit->killing = true;
	orbit->kill_cause = cause;
	orbit->kill_error = error;
	orbit->time_at = orbit->tick_at = never;
	send_signal(orbit, SIGKILL);
}

void unshare(Orbit *orbit)
{
	if (orbit->from_main)
		munmap(orbit->from_main, page_size());
	if (orbit->to_main)
		munmap(orbit->to_main, page_size());
	orbit->from_main = nullptr;
	orbit->to_main = nullptr;
}

void forget_process(Orbit *orbit)
{
	close_fd(&orbit->socket);
	close_fd(&orbit->pidfd);
	unshare(orbit);
	free(orbit->incoming);
	orbit->incoming = nullptr;
	orbit->pid = 0;
	orbit->starting = orbit->heard = orbit->ready = orbit->began = orbit->executed = orbit->killing = orbit->stopped = false;
	orbit->time_at = orbit->tick_at = orbit->warden_at = never;
	for (View *view = orbit->views; view; view = view->next)
		view->mapped = false;
	sweep_views(orbit);
}

// The orbit is dead for good. What waits ends.
void end_orbit(Orbit *orbit)
{
	const struct orbit_stat &stat = orbit->stat;

	orbit->dead = true;
	close_fd(&orbit->link); // the warden ends with that, and the process with it
	send_signal(orbit, SIGKILL);
	forget_process(orbit);
	while (orbit->first)
		finish(dequeue(orbit), ECANCELED, stat.cause, stat.code, stat.fault_addr);
	grant_room(orbit);
	close_fd(&orbit->hup);
	wake_all(&orbit->changed);
}

int share_pages(Orbit *orbit, int *file)
{
	const std::size_t bytes = page_size();
	const unsigned seals = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL;
	const int shared = memfd_create("orbit-shared", MFD_CLOEXEC | MFD_ALLOW_SEALING);

	if (shared < 0)
		return -errno;
	// It is not for the orbit to cut off what main reads.
	if (ftruncate(shared, static_cast<off_t>(2 * bytes)) || fcntl(shared, F_ADD_SEALS, seals)) {
		const int err = -errno;

		close(shared);
		return err;
	}

	void *ours = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, shared, 0);
	void *its = mmap(nullptr, bytes, PROT_READ, MAP_SHARED, shared, static_cast<off_t>(bytes));

	orbit->from_main = ours == MAP_FAILED ? nullptr : static_cast<FromMain *>(ours);
	orbit->to_main = its == MAP_FAILED ? nullptr : static_cast<FromOrbit *>(its);
	if (!orbit->from_main || !orbit->to_main || madvise(ours, bytes, MADV_DONTFORK) || madvise(its, bytes, MADV_DONTFORK)) {
		unshare(orbit);
		close(shared);
		return -ENOMEM;
	}
	*file = shared;
	return 0;
}

// A pair of sockets, or -errno. The first is kept.
int make_sockets(int type, int *sockets)
{
	if (socketpair(AF_UNIX, type | SOCK_CLOEXEC, 0, sockets))
		return -errno;
	sockets[0] = lift(sockets[0]);
	if (sockets[0] >= 0)
		sockets[1] = lift(sockets[1]);
	if (sockets[0] >= 0 && sockets[1] >= 0)
		return 0;

	const int err = -errno;

	close_fd(&sockets[0]);
	close_fd(&sockets[1]);
	return err;
}

// Have the warden fork a process.
int spawn(Orbit *orbit)
{
	const WardenMessage message = {Tell::spawn, 0, 0, 0, 0, 0, 0};
	int sockets[2], fds[2];
	int err = make_sockets(SOCK_SEQPACKET, sockets);

	if (err)
		return err;
	err = share_pages(orbit, &fds[1]);
	if (!err) {
		fds[0] = sockets[1];
		err = tell(orbit->link, &message, sizeof(message), nullptr, 0, fds, 2, MSG_DONTWAIT);
		close(fds[1]);
	}
	close(sockets[1]);
	// If the warden is gone, what it has said last says why.
	if (err && err != -EPIPE && err != -ECONNRESET) {
		close(sockets[0]);
		unshare(orbit);
		return err;
	}
	orbit->socket = sockets[0];
	orbit->starting = true;
	orbit->warden_at = now() + patience_for_birth;
	return 0;
}

// ---- Limits ----------------------------------------------------------------------------------------

std::uint64_t cpu_time(pid_t pid)
{
	clockid_t clock;
	timespec time;

	if (clock_getcpuclockid(pid, &clock) || clock_gettime(clock, &time))
		return 0;
	return static_cast<std::uint64_t>(time.tv_sec) * 1000 * ms + static_cast<std::uint64_t>(time.tv_nsec);
}

// A share that is used up makes a debt, which the process sits out.
void share_cpu(Orbit *orbit, std::uint64_t cpu, std::uint64_t time)
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

void begin_limits(Orbit *orbit, const Task *task)
{
	const bool ticks = task->cpu_limit || orbit->options.memory_limit || orbit->options.cpu_percent;
	const std::uint64_t time = now();

	orbit->time_at = task->time_limit && task->time_limit < never - time ? time + task->time_limit : never;
	orbit->tick_at = ticks ? time + tick : never;
	if (ticks) {
		orbit->cpu_start = cpu_time(orbit->pid);
		share_cpu(orbit, orbit->cpu_start, time);
	}
	if (ticks || orbit->time_at != never)
		wake_keeper();
}

void end_limits(Orbit *orbit)
{
	if (orbit->options.cpu_percent)
		share_cpu(orbit, cpu_time(orbit->pid), now());
	orbit->time_at = orbit->tick_at = never;
}

bool is_over_memory(const Orbit *orbit, std::uint64_t used)
{
	const std::uint64_t limit = orbit->options.memory_limit;

	return limit && used > orbit->base_memory && used - orbit->base_memory > limit;
}

void check_limits(Orbit *orbit, std::uint64_t time)
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

// ---- A task begins ----------------------------------------------------------------------------------

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
int map_views(Orbit *orbit, const Task *task)
{
	Pieces pieces = {orbit, {Tell::map, 0, {}}, {}, 0, 0};

	for (std::size_t i = 0; i < task->nr_sights; i++)
		task->sights[i].view->wanted = true;
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
	for (std::size_t i = 0; i < task->nr_sights; i++) {
		const Sight &sight = task->sights[i];
		View *const view = sight.view;

		if (view->mapped && view->from == sight.from && view->length == sight.length)
			continue;
		pieces.add(view, sight.from, sight.length, true);
		view->mapped = true;
		view->from = sight.from;
		view->length = sight.length;
	}
	pieces.flush();
	return pieces.err;
}

int send_task(const Orbit *orbit, const Task *task)
{
	TaskMessage head{};
	const std::size_t seen = task->nr_sights * sizeof(Visible);
	auto *body = static_cast<char *>(malloc(seen + task->arg_size + 1));

	if (!body)
		return -ENOMEM;
	for (std::size_t i = 0; i < task->nr_sights; i++) {
		const Sight &sight = task->sights[i];
		const std::uint64_t start = sight.view->start + sight.from;
		const Visible visible = {start, start + sight.length};

		std::memcpy(body + i * sizeof(visible), &visible, sizeof(visible));
	}
	if (task->arg_size)
		std::memcpy(body + seen, task->arg, task->arg_size);
	head.tell = Tell::task;
	head.receivable = task->receivable;
	head.number = task->result.task;
	head.entry = task->entry;
	head.nr_visible = static_cast<std::uint32_t>(task->nr_sights);
	head.arg_size = static_cast<std::uint32_t>(task->arg_size);
	head.update_limit = orbit->options.update_limit;
	__atomic_store_n(&orbit->from_main->received, 0, __ATOMIC_RELEASE);

	const int err = tell(orbit->socket, &head, sizeof(head), body, seen + task->arg_size, nullptr, 0,
			     MSG_DONTWAIT);

	free(body);
	return err;
}

// Bring the mirrors to the snapshot, and start it.
int start_task(Orbit *orbit, Task *task)
{
	for (std::size_t i = 0; i < task->nr_sights; i++)
		if (const int err = apply_deltas(task->sights[i].view, task->sights[i].delta))
			return err;

	int err = map_views(orbit, task);

	if (!err)
		err = send_task(orbit, task);
	return err;
}

void give_up_process(Orbit *orbit, int err);

void dispatch(Orbit *orbit)
{
	while (!orbit->dead && !orbit->running && orbit->first) {
		if (!orbit->pid) {
			if (orbit->starting)
				return;
			if (const int err = spawn(orbit))
				give_up_process(orbit, err);
			else
				wake_keeper();
			return;
		}
		if (!orbit->ready || orbit->killing || orbit->socket < 0)
			return;

		Task *const task = dequeue(orbit);
		const int err = start_task(orbit, task);

		if (err == -ENOMEM) {
			finish(task, ENOMEM, ORBIT_CAUSE_NONE, 0, 0);
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

// ---- What processes tell, and their end ------------------------------------------------------------------

// Why a process that was there is not any more.
struct End {
	std::uint32_t cause;
	std::int32_t code;
	std::uint64_t fault;
};

void process_ended(Orbit *orbit, const End &end)
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
	if (!restarts || orbit->fruitless >= max_fruitless)
		end_orbit(orbit);
	else
		dispatch(orbit);
}

// None can be had.
void give_up_process(Orbit *orbit, int err)
{
	forget_process(orbit);
	orbit->error = err;
	orbit->stat.cause = ORBIT_CAUSE_TEMPLATE;
	orbit->stat.code = -err;
	orbit->stat.fault_addr = 0;
	end_orbit(orbit);
}

// Both have told, in whatever order.
void begin_process(Orbit *orbit)
{
	if (!orbit->starting || !orbit->heard || !orbit->pid)
		return;
	if (orbit->was_ready)
		orbit->stat.restarts++;
	orbit->was_ready = true;
	orbit->cpu_seen = cpu_time(orbit->pid);
	orbit->share_at = now();
	orbit->starting = false;
	orbit->ready = true;
	orbit->warden_at = never;
	wake_all(&orbit->changed);
	dispatch(orbit);
}

bool on_ready(Orbit *orbit, const ReturnMessage &message)
{
	if (!orbit->starting || orbit->heard)
		return orbit->killing;
	orbit->heard = true;
	orbit->base_memory = message.anonymous;
	begin_process(orbit);
	return true;
}

void on_spawned(Orbit *orbit, const WardenMessage &message, int fd)
{
	if (message.error || fd < 0) {
		if (fd >= 0)
			close(fd);
		give_up_process(orbit, message.error ? -message.error : -EMFILE);
		return;
	}
	orbit->pid = message.pid;
	orbit->warden = message.warden;
	orbit->pidfd = lift(fd);
	begin_process(orbit);
}

void on_returned(Orbit *orbit, const ReturnMessage &message)
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
bool are_pages(const Task *task, const Update *update)
{
	const Sight &sight = task->sights[update->place];
	std::uint64_t at = sight.from, bytes = 0;

	for (std::uint32_t i = 0; i < update->nr_ranges; i++) {
		orbit_page_range range;

		std::memcpy(&range, update->data + i * sizeof(range), sizeof(range));
		if (range.offset < at || !range.length || (range.offset | range.length) & (page_size() - 1) ||
		    range.offset - sight.from > sight.length ||
		    range.length > sight.length - (range.offset - sight.from))
			return false;
		at = range.offset + range.length;
		bytes += range.length;
	}
	return bytes + update->nr_ranges * sizeof(orbit_page_range) == update->bytes;
}

bool is_sane(const Orbit *orbit, const Task *task, const UpdateMessage &head)
{
	if (!task || task->result.task != head.number || !task->receivable || orbit->incoming)
		return false;
	if (head.kind != ORBIT_UPDATE_PAGES)
		return head.bytes <= ORBIT_MAX_UPDATE;
	if (head.place >= task->nr_sights)
		return false;

	const std::uint64_t most = task->sights[head.place].length;

	return head.nr_ranges <= most / page_size() &&
	       head.bytes <= most + head.nr_ranges * sizeof(orbit_page_range) &&
	       head.bytes >= head.nr_ranges * sizeof(orbit_page_range);
}

// Returns false if it breaks the rules.
bool on_update(Orbit *orbit, const UpdateMessage &head)
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

bool on_chunk(Orbit *orbit, const void *data, std::size_t bytes)
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
bool on_message(Orbit *orbit, const void *buffer, std::size_t bytes)
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
void on_hangup(Orbit *orbit)
{
	close_fd(&orbit->socket);
	if (!orbit->pid || orbit->killing)
		return;

	const ProcessState process = look_at_process(orbit->pid);

	orbit->executed = process.executed;
	if (!process.ending)
		kill_process(orbit, ORBIT_CAUSE_NONE, ECONNRESET);
}

void hear_orbit(Orbit *orbit, unsigned most)
{
	for (unsigned i = 0; i < most && orbit->socket >= 0; i++) {
		std::size_t no_fds = 0;
		const long got = hear(orbit->socket, keeper.buffer, max_message, nullptr, &no_fds, MSG_DONTWAIT);

		if (got == -EAGAIN)
			return;
		if (got == -EMFILE)
			continue; // it sent descriptors: nobody asked for them
		if (got <= 0)
			on_hangup(orbit);
		else if (!on_message(orbit, keeper.buffer, static_cast<std::size_t>(got)))
			kill_process(orbit, ORBIT_CAUSE_NONE, ECONNRESET);
	}
}

End judge_end(const Orbit *orbit, const WardenMessage *message)
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

	// Without a warden nobody knows, but for what the process itself could write down.
	const std::int32_t signal = message ? message->status : by_fault ? faulted : SIGKILL;

	return {ORBIT_CAUSE_SIGNAL, signal,
		by_fault && faulted == signal ? __atomic_load_n(&orbit->to_main->address, __ATOMIC_RELAXED) : 0};
}

void on_death(Orbit *orbit, const WardenMessage *message)
{
	// What it said before comes first. A process that it has forked may go on talking.
	hear_orbit(orbit, many_messages);
	process_ended(orbit, judge_end(orbit, message));
}

void hear_warden(Orbit *orbit)
{
	while (orbit->link >= 0) {
		WardenMessage message{};
		int fd = -1;
		std::size_t nr_fds = 1;
		const long got = hear(orbit->link, &message, sizeof(message), &fd, &nr_fds, MSG_DONTWAIT);

		if (got == -EAGAIN)
			return;
		if (got == -EMFILE) {
			give_up_process(orbit, -EMFILE);
		} else if (got != sizeof(message)) {
			// Somebody has killed it. Its orbit goes on as long as the process does.
			close_fd(&orbit->link);
			if (!orbit->pid && (orbit->starting || orbit->first))
				give_up_process(orbit, -ECHILD);
		} else if (message.tell == Tell::spawned) {
			on_spawned(orbit, message, nr_fds ? fd : -1);
		} else if (message.tell == Tell::died && message.pid == orbit->pid) {
			on_death(orbit, &message);
		}
	}
}

// It has been stopped, or does not answer for another reason.
void give_up_warden(Orbit *orbit)
{
	close_fd(&orbit->link);
	if (orbit->ready)
		on_death(orbit, nullptr);
	else
		give_up_process(orbit, -ECHILD);
}

// ---- The keeper ---------------------------------------------------------------------------------------------

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

// Three for each orbit: its warden, its process, and the end of that.
std::uint64_t fill_list(PollList *list)
{
	std::uint64_t next = never;

	list->count = 0;
	list->add(keeper.wake);
	for (Orbit *orbit = orbits; orbit; orbit = orbit->next) {
		orbit->polled = list->count + 1;
		// Once its end is known, the warden has some time to tell.
		const bool told = orbit->ready && orbit->warden_at != never;

		if (!list->add(orbit->link) || !list->add(orbit->socket) ||
		    !list->add(told ? -1 : orbit->pidfd)) {
			orbit->polled = 0;
			next = now() + tick; // and look again
			break;
		}
		next = orbit->time_at < next ? orbit->time_at : next;
		next = orbit->tick_at < next ? orbit->tick_at : next;
		next = orbit->warden_at < next ? orbit->warden_at : next;
	}
	return next;
}

void look_after(Orbit *orbit, const PollList &list, std::uint64_t time)
{
	if (orbit->polled && orbit->polled + 2 <= list.count) {
		const pollfd *const fds = list.fds + orbit->polled - 1;

		if (fds[1].revents && orbit->socket == fds[1].fd)
			hear_orbit(orbit, 64);
		if (fds[0].revents && orbit->link == fds[0].fd)
			hear_warden(orbit);
		if (fds[2].revents && orbit->pidfd == fds[2].fd && orbit->pid) {
			if (orbit->link < 0)
				on_death(orbit, nullptr);
			else if (orbit->ready && orbit->warden_at == never)
				orbit->warden_at = time + patience_for_death;
		}
	}
	if (time >= orbit->warden_at)
		give_up_warden(orbit);
	check_limits(orbit, time);
}

void *keep(void *)
{
	PollList list{};

	prctl(PR_SET_NAME, "orbit-keeper");
	pthread_mutex_lock(&state_lock);
	while (!keeper.stop) {
		const std::uint64_t next = fill_list(&list);

		pthread_mutex_unlock(&state_lock);

		const std::uint64_t before = now();
		const std::uint64_t left = next > before ? next - before : 0;
		const timespec timeout = {static_cast<time_t>(left / (1000 * ms)),
					  static_cast<long>(left % (1000 * ms))};

		ppoll(list.fds, list.count, next == never ? nullptr : &timeout, nullptr);
		if (list.fds[0].revents) {
			std::uint64_t count;

			if (read(keeper.wake, &count, sizeof(count)) < 0)
				count = 0;
		}
		pthread_mutex_lock(&state_lock);

		const std::uint64_t after = now();

		for (Orbit *orbit = orbits; orbit; orbit = orbit->next)
			look_after(orbit, list, after);
	}
	pthread_mutex_unlock(&state_lock);
	free(list.fds);
	return nullptr;
}

int start_keeper()
{
	const Locked locked(&keeper_lock);
	sigset_t every, before;

	if (keeper.users) {
		keeper.users++;
		return 0;
	}
	keeper.stop = false;
	keeper.buffer = malloc(max_message);
	keeper.wake = lift(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));

	int err = keeper.wake < 0 ? -errno : keeper.buffer ? 0 : -ENOMEM;

	if (!err) {
		// The application's signals are not for it.
		sigfillset(&every);
		pthread_sigmask(SIG_SETMASK, &every, &before);
		err = -pthread_create(&keeper.thread, nullptr, keep, nullptr);
		pthread_sigmask(SIG_SETMASK, &before, nullptr);
	}
	if (err) {
		close_fd(&keeper.wake);
		free(keeper.buffer);
		return err;
	}
	keeper.users = 1;
	return 0;
}

void stop_keeper()
{
	const Locked locked(&keeper_lock);

	if (--keeper.users)
		return;
	{
		const Locked state(&state_lock);

		keeper.stop = true;
		wake_keeper();
	}
	pthread_join(keeper.thread, nullptr);
	close_fd(&keeper.wake);
	free(keeper.buffer);
}

// ---- Forks of the main program --------------------------------------------------------------------------------

void before_fork()
{
	pthread_mutex_lock(&snapshot_lock);
	pthread_mutex_lock(&state_lock);
}

void after_fork_in_parent()
{
	pthread_mutex_unlock(&state_lock);
	pthread_mutex_unlock(&snapshot_lock);
}

// Nothing of this is the child's. What it would keep open others wait for the end of.
void after_fork_in_child()
{
	for (Orbit *orbit = orbits; orbit; orbit = orbit->next) {
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
	if (keeper.users)
		close_fd(&keeper.wake);
	keeper = {};
	orbits = nullptr;
	pools = nullptr;
	pthread_mutex_init(&snapshot_lock, nullptr);
	pthread_mutex_init(&state_lock, nullptr);
	pthread_mutex_init(&keeper_lock, nullptr);
}

int register_fork_handlers()
{
	ORBIT_STATE static pthread_once_t once = PTHREAD_ONCE_INIT;
	ORBIT_STATE static int err;

	pthread_once(&once, [] {
		err = -pthread_atfork(before_fork, after_fork_in_parent, after_fork_in_child);
	});
	return err;
}

// ---- Pools ------------------------------------------------------------------------------------------------

Pool *pool_of(const orbit_pool *handle)
{
	return static_cast<Pool *>(handle->impl);
}

int pool_create(orbit_pool *handle, const char *name)
{
	if (const int err = register_fork_handlers())
		return err;

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

// ---- Snapshots ----------------------------------------------------------------------------------------------

int by_page(const void *a, const void *b)
{
	const std::uint32_t x = static_cast<const PageCopy *>(a)->page;
	const std::uint32_t y = static_cast<const PageCopy *>(b)->page;

	return (x > y) - (x < y);
}

template <class Each> int for_each_changed(const View *view, Each each)
{
	const Tracked &tracked = view->pool->tracked;
	std::uint32_t next = tracked.newest;

	while (next && tracked.pages[next - 1].changed > view->planned) {
		if (const int err = each(next - 1))
			return err;
		next = tracked.pages[next - 1].older;
	}
	return 0;
}

// The orbit has nothing to do, so its mirror can have what changed at once.
int copy_to_mirror(View *view, std::uint64_t *copied)
{
	const char *const start = reinterpret_cast<const char *>(view->start);
	std::uint32_t first = 0, count = 0;
	int err = for_each_changed(view, [&](std::uint32_t page) {
		(*copied)++;
		if (count && page == first + count) {
			count++;
			return 0;
		}

		const int failed = count ? write_mirror(view, first, start + first * page_size(), count) : 0;

		first = page;
		count = 1;
		return failed;
	});

	if (!err && count)
		err = write_mirror(view, first, start + first * page_size(), count);
	return err;
}

int copy_page_of(const Tracked &tracked, std::uint32_t page, PageCopy *copy)
{
	copy->page = page;
	copy->bytes = malloc(page_size());
	if (!copy->bytes)
		return -ENOMEM;

	// From the file: the application may have unmapped it. And not by pread(), as above.
	const long got = syscall(SYS_pread64, tracked.memory, copy->bytes, page_size(),
				 static_cast<off_t>(page * page_size()));

	if (got == static_cast<long>(page_size()))
		return 0;
	free(copy->bytes);
	return -ENOMEM;
}

int copy_to_delta(View *view, std::uint64_t snapshot, Delta **out)
{
	std::size_t count = 0;

	for_each_changed(view, [&](std::uint32_t) {
		count++;
		return 0;
	});
	*out = nullptr;
	if (!count)
		return 0;

	auto *delta = allocate<Delta>();
	auto *pages = allocate<PageCopy>(count);

	if (!delta || !pages) {
		free(delta);
		free(pages);
		return -ENOMEM;
	}
	delta->snapshot = snapshot;
	delta->pages = pages;

	const int err = for_each_changed(view, [&](std::uint32_t page) {
		const int failed = copy_page_of(view->pool->tracked, page, &pages[delta->count]);

		delta->count += failed ? 0 : 1;
		return failed;
	});

	if (err) {
		free_delta(delta);
		return err;
	}
	qsort(pages, count, sizeof(PageCopy), by_page);
	*out = delta;
	return 0;
}

// What is in a pool's part is the task's; main finds zeroes.
bool is_zero(const void *page)
{
	const auto *words = static_cast<const std::uint64_t *>(page);
	std::uint64_t all = 0;

	for (std::size_t i = 0; i < page_size() / sizeof(*words); i++)
		all |= words[i];
	return !all;
}

std::uint64_t clear_moved(const Sight &sight)
{
	const Tracked &tracked = sight.view->pool->tracked;
	const std::size_t first = sight.from / page_size();
	const std::size_t end = first + sight.length / page_size();
	std::uint64_t moved = 0;

	for (std::size_t page = first; page < end; page++) {
		void *const memory = reinterpret_cast<void *>(tracked.start + page * page_size());

		// A page that is zero already would only count as changed.
		if (!tracked.pages[page].changed || is_zero(memory))
			continue;
		std::memset(memory, 0, page_size());
		moved++;
	}
	return moved;
}

struct Counts {
	std::uint64_t found, copied, moved;
};

// Look at all pools, then copy what has changed. If main's threads can be kept from writing, it
// is one cut.
int copy_changes(Task *task, std::uint64_t snapshot, bool direct, Delta **deltas, Counts *counts)
{
	int err = 0;

	for (std::size_t i = 0; i < task->nr_sights && !err; i++) {
		const Sight &sight = task->sights[i];
		const long found = look(&sight.view->pool->tracked,
					static_cast<std::uint32_t>(sight.from / page_size()),
					static_cast<std::uint32_t>(sight.length / page_size()), snapshot);

		if (found < 0)
			err = static_cast<int>(found);
		else
			counts->found += static_cast<std::uint64_t>(found);
	}
	for (std::size_t i = 0; i < task->nr_sights && !err; i++) {
		View *const view = task->sights[i].view;

		if (direct) {
			err = copy_to_mirror(view, &counts->copied);
		} else {
			err = copy_to_delta(view, snapshot, &deltas[i]);
			counts->copied += deltas[i] ? deltas[i]->count : 0;
		}
	}
	return err;
}

// Has the orbit nothing to do? Then only this thread, which has the snapshot lock, can give it
// anything.
bool is_idle(Orbit *orbit, const Task *task, int *err)
{
	const Locked locked(&state_lock);

	if (orbit->running || orbit->first)
		return false;
	for (std::size_t i = 0; i < task->nr_sights && !*err; i++)
		*err = apply_deltas(task->sights[i].view, never); // of tasks that were cancelled
	return true;
}

// With the snapshot lock held. Fills in the task's sights.
int take_snapshot(Orbit *orbit, Task *task)
{
	const std::uint64_t snapshot = ++snapshots;
	Counts counts{};
	int err = 0;
	const bool direct = is_idle(orbit, task, &err);
	auto **deltas = direct ? nullptr : allocate<Delta *>(task->nr_sights);

	if (!direct && !deltas)
		err = -ENOMEM;
	if (!err) {
		close_pools();
		err = copy_changes(task, snapshot, direct, deltas, &counts);
		open_pools();
	}

	const Locked locked(&state_lock);

	for (std::size_t i = 0; i < task->nr_sights && deltas; i++) {
		if (deltas[i] && err)
			free_delta(deltas[i]);
		else if (deltas[i])
			append_delta(task->sights[i].view, deltas[i]);
	}
	free(deltas);
	if (err)
		return err;
	for (std::size_t i = 0; i < task->nr_sights; i++) {
		Sight &sight = task->sights[i];
		Delta *const last = sight.view->last;

		sight.view->planned = snapshot;
		sight.view->tasks++;
		sight.snapshot = snapshot;
		sight.delta = last ? last->snapshot : 0;
		if (last)
			last->tasks++;
	}
	orbit->stat.pages_protected += counts.found;
	orbit->stat.pages_copied += counts.copied;
	return 0;
}

// Pages that are given away. Nothing can fail any more.
void give_away(Orbit *orbit, const Task *task)
{
	std::uint64_t moved = 0;

	for (std::size_t i = 0; i < task->nr_sights; i++)
		if (task->sights[i].mode == ORBIT_SNAP_MOVE)
			moved += clear_moved(task->sights[i]);
	if (!moved)
		return;

	const Locked locked(&state_lock);

	orbit->stat.pages_moved += moved;
}

int add_sight(Orbit *orbit, Task *task, Pool *pool, std::uint64_t from, std::uint64_t length,
	      std::uint32_t mode)
{
	View *view;
	{
		const Locked locked(&state_lock);

		view = find_view(orbit, pool);
	}
	if (!view)
		if (const int err = make_view(orbit, pool, &view))
			return err;
	// Snapshots are counted from 1, and the one to come is not yet.
	if (view->named == snapshots + 1)
		return -EINVAL;
	view->named = snapshots + 1;
	task->sights[task->nr_sights++] = {view, from, length, mode, 0, 0};
	return 0;
}

// With the snapshot lock held.
int name_pools(Orbit *orbit, Task *task, const orbit_call_options *options)
{
	int err = 0;

	snapshots++; // so that no view is named by this call yet
	for (std::size_t i = 0; i < options->nr_pools && !err; i++) {
		const orbit_pool *const pool = options->pools[i];

		err = add_sight(orbit, task, pool_of(pool), 0, pool->range.bytes, ORBIT_SNAP_COW);
	}
	for (std::size_t i = 0; i < options->nr_ranges && !err; i++) {
		const orbit_pool_range &range = options->ranges[i];

		err = add_sight(orbit, task, pool_of(range.pool), range.offset,
				range.length ? range.length : range.pool->range.bytes - range.offset,
				range.mode);
	}
	return err;
}

// ---- Calls ------------------------------------------------------------------------------------------------------

Orbit *orbit_of(const orbit_handle *handle)
{
	return static_cast<Orbit *>(handle->impl);
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
	task->sights = allocate<Sight>(options->nr_pools + options->nr_ranges);

	int err = task->sights ? copy_argument(task, call) : -ENOMEM;

	if (!err && handle) {
		int ends[2];

		if (!pipe2(ends, O_CLOEXEC | O_NONBLOCK)) {
			task->told = lift(ends[1]);
			task->tells = lift(ends[0]);
		}
		if (task->told < 0 || task->tells < 0)
			err = -errno;
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
			drop_sights(task);
			task->nr_sights = 0;
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
		task->nr_sights = 0;
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

void fill_outcome(orbit_outcome *out, const orbit_result &result)
{
	out->task = result.task;
	out->value = result.error ? 0 : result.value;
	out->cause = result.cause;
	out->code = result.code;
	out->updates = result.updates;
	out->fault_addr = result.fault_addr;
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
	if (!update->applied)
		update->applied = allocate<bool>(update->bytes / page_size());
	if (!update->applied)
		return -ENOMEM;

	// What main has written to since, it has written to the same page.
	const bool same = handle->pools[update->place] == to && offset == from.offset;
	const std::uint64_t seen = task->sights[update->place].snapshot;
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

	close_fd(&task->told);
	task->tells = -1;
	close(handle->fd);
	// It may go on sending. Nobody keeps it.
	task->dropped = true;
	free_updates(task);
	put_task(task);
}

// ---- Orbits --------------------------------------------------------------------------------------------------------

// The descriptors that an orbit shall have. From the seed it gets those that are open.
void choose_fds(Birth *birth, const orbit_options *options)
{
	const bool little = options->inherit == ORBIT_INHERIT_LITTLE;

	for (int fd = 0; fd < 3; fd++)
		if (!little || (fd != birth->client && fd != birth->owner && fcntl(fd, F_GETFD) >= 0))
			birth->fds[birth->nr_fds++] = fd;
	for (std::size_t i = 0; i < options->nr_keep_fds; i++)
		birth->fds[birth->nr_fds++] = options->keep_fds[i];
	if (!little)
		birth->fds[birth->nr_fds++] = birth->client;
	birth->fds[birth->nr_fds++] = birth->owner;
}

int fork_warden(Orbit *orbit, const orbit_options *options)
{
	Birth birth{};
	int sockets[2];
	int err;

	birth.owner = lift(open_pidfd(getpid()));
	if (birth.owner < 0)
		return birth.owner;
	birth.fds = allocate<int>(options->nr_keep_fds + 5);
	err = birth.fds ? 0 : -ENOMEM;
	if (!err)
		err = make_sockets(SOCK_SEQPACKET, sockets);
	if (!err) {
		birth.flags = options->flags;
		birth.name = options->name;
		birth.client = sockets[1];
		birth.arg_room = ORBIT_MAX_ARG;
		birth.nr_files = options->nr_files;
		birth.memory_limit = options->memory_limit;
		choose_fds(&birth, options);
		err = options->inherit == ORBIT_INHERIT_LITTLE ? fork_little(birth, options) :
								 start_warden(birth);
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
	close_fd(&orbit->link);
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
	wake_keeper();
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

int make_orbit(Orbit **out, int *fd, const orbit_options *options)
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
	orbit->time_at = orbit->tick_at = never;
	// The other end tells pollers whether it takes calls, or is dead for good.
	int err = make_sockets(SOCK_STREAM, sockets);

	if (err) {
		free(orbit);
		return err;
	}
	*fd = sockets[0];
	orbit->hup = sockets[1];
	err = fork_warden(orbit, options);

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
	close(*fd);
	return err;
}

int orbit_create(orbit_handle *handle, const orbit_options *options)
{
	Orbit *orbit = nullptr;

	if (const int err = register_fork_handlers())
		return err;
	if (const int err = start_keeper())
		return err;
	if (const int err = make_orbit(&orbit, &handle->fd, options)) {
		stop_keeper();
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
	close(handle->fd);
	if (ours)
		stop_keeper();
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
	out->template_pid = restarts && orbit->link >= 0 ? orbit->warden : 0;
	return 0;
}

int probe(orbit_probe_info *info)
{
	const char *why = "";
	const int pidfd = open_pidfd(getpid());
	const int file = memfd_create("orbit-probe", MFD_CLOEXEC);
	const Tracker tracker = choose_tracker(&why);
	int err = pidfd < 0 ? pidfd : file < 0 ? -errno : 0;

	if (pidfd >= 0)
		close(pidfd);
	if (file >= 0)
		close(file);
	info->backend = "none";
	info->advice = "";
#if !((defined(__x86_64__) || defined(__aarch64__)) && defined(__LP64__))
	info->reason = "The portable backend exists on 64-bit x86 and ARM only.";
	info->advice = "Build and run the program for one of them.";
	return -ENOSYS;
#endif
	// So that what fails for a passing reason is tried again where it is needed.
	if (err == -EMFILE || err == -ENFILE || err == -ENOMEM)
		err = 0;
	if (err == -ENOSYS) {
		info->reason = "This kernel is too old for the portable backend.";
		info->advice = "Boot Linux 5.9 or later, better 6.7.";
		return err;
	}
	if (err) {
		info->reason = "A filter refuses pidfd_open() or memfd_create().";
		info->advice = "In a container or sandbox, let its seccomp profile pass them.";
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
			 ORBIT_FEATURE_RESTART | ORBIT_FEATURE_LIMITS | ORBIT_FEATURE_LITTLE;
	if (tracker == Tracker::userfaultfd) {
		info->features |= ORBIT_FEATURE_IO;
		info->reason = "Processes carry orbits; userfaultfd tells which pages have changed.";
	} else {
		info->features |= ORBIT_FEATURE_CUT;
		info->reason = "Processes carry orbits; a SIGSEGV handler tells which pages have changed.";
	}
	return 0;
}

} // namespace

const Backend portable_backend = {
	.name = "portable",
	.probe = probe,
	.pool_create = pool_create,
	.pool_destroy = pool_destroy,
	.prepare = [] { return start_seed(true); },
	.orbit_create = orbit_create,
	.orbit_kill = orbit_kill,
	.orbit_close = orbit_close,
	.stat = stat,
	.call = call,
	.call_async = call_async,
	.cancel = cancel,
	.task_wait = task_wait,
	.task_cancel = task_cancel,
	.task_receive = task_receive,
	.apply_pages = apply_pages,
	.task_close = task_close,
	.send = send_update,
};

} // namespace liborbit
