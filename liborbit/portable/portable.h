// SPDX-License-Identifier: MIT
//
// The backend for kernels without orbits. An orbit is a process forked by a fork server (wire.h); its
// views of pools are private mappings of mirrors, files that hold what its last task has seen. A
// call brings what has changed since (tracker.h) to the mirror, or, while tasks wait or run, to a
// delta that is kept until the task begins.
//
// There is a lock for pools and what changed in them, and one for orbits and tasks. One thread, the
// dispatcher, hears what fork servers and orbits tell, and watches limits; it exists as long as there are
// orbits.
#ifndef LIBORBIT_PORTABLE_PORTABLE_H
#define LIBORBIT_PORTABLE_PORTABLE_H

#include "../internal.h"
#include "../common/locked.h"
#include "copies.h"
#include "tracker.h"
#include "wire.h"

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <pthread.h>
#include <sys/types.h>

namespace liborbit::portable {

constexpr std::uint64_t ms = 1'000'000; // in nanoseconds
constexpr std::uint64_t never = UINT64_MAX;

struct Pool {
	Tracked tracked;
	Pool *next;
	orbit_pool *handle;
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
struct NamedPool {
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
	NamedPool *named_pools;
	std::size_t nr_named_pools;
	bool receivable; // it has a handle,
	bool dropped;	 // or had one
	bool tried;
	std::uint32_t event; // a futex: changes when something happens
	int told;	     // the library's end of its socket, or -1
	int tells;	     // the other, which is the handle's
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
	int link; // to the fork server, or -1
	pid_t fork_server;
	// What the dispatcher waits for: its fork server, its process, and the end of that.
	int watched[3];	    // descriptors plus one; 0: not yet
	unsigned told;	    // which have something to tell
	std::size_t polled; // place in the dispatcher's list, plus one
	bool dead;
	int error;	    // why there is no process
	bool was_ready;	    // there has been one

	// Its process.
	pid_t pid;
	int pidfd, socket;
	bool starting; // it has been asked for
	bool heard;    // it has said that it is ready,
	bool ready;    // and so has its fork server
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
	std::uint64_t fork_server_at; // when its fork server must have done what it has to
	std::uint64_t spawn_at;	      // when it is asked again for a process that could not be had
	std::uint64_t lacking_since, pause;
	bool ended;		 // its process, and the fork server has yet to tell
	std::uint64_t cpu_start;
	std::uint64_t cpu_seen, share_at;
	std::int64_t share; // of the CPU, in nanoseconds, that may be used now
	bool stopped;

	std::uint32_t changed; // a futex, for its creation
	struct orbit_stat stat;
};

// Outermost first. The first is for the dispatcher's beginning and end.
extern pthread_mutex_t dispatcher_lock, snapshot_lock, state_lock;

// All that there are; with the state lock, and with the snapshot lock.
extern Orbit *orbits;
extern Pool *pools;
extern std::uint64_t snapshots; // so far

template <class T> T *allocate(std::size_t count = 1)
{
	return static_cast<T *>(calloc(count ? count : 1, sizeof(T)));
}

// ---- backend.cc ----

void close_fd(int *fd);
// Close one end of a pair of sockets, and tell the other end even if a forked child has a copy.
void hang_up(int *fd);
// Wait as long as a word has a value, or until a moment, 0 being never. 0 or -errno.
int wait_on(std::uint32_t *word, std::uint32_t value, std::uint64_t deadline);
// Change the word, and wake who waits.
void wake_all(std::uint32_t *word);

// ---- mirror.cc ----

// With the state lock held: bring a mirror to a snapshot. No task is under way in the orbit.
int apply_deltas(View *view, std::uint64_t snapshot);
// Make a delta that no task needs and the next one the same.
void merge_delta(View *view, Delta *old);
void free_view(View *view);
// Free the views of pools that are gone, and that no task and no process needs.
void sweep_views(Orbit *orbit);
View *find_view(Orbit *orbit, const Pool *pool);

// With the snapshot lock held, in this order. Fill in the task's named_pools; copy what has changed;
// clear what is given away.
int name_pools(Orbit *orbit, Task *task, const orbit_call_options *options);
int take_snapshot(Orbit *orbit, Task *task);
void give_away(Orbit *orbit, const Task *task);

Pool *pool_of(const orbit_pool *handle);

// ---- dispatcher.cc ----

// The dispatcher exists as long as it has users. 0 or -errno.
int start_dispatcher();
void stop_dispatcher();
void forget_dispatcher(); // in a forked child, with its lock held
// With the state lock held, and so are those that follow.
void wake_dispatcher();
// Close a descriptor that the dispatcher may be waiting for.
void close_watched(Orbit *orbit, int *fd);

std::size_t in_queue(const Orbit *orbit);
void enqueue(Orbit *orbit, Task *task);
Task *dequeue(Orbit *orbit);
void grant_room(Orbit *orbit);
// Start the first task, if there is one and a process for it; or have one made.
void dispatch(Orbit *orbit);

void free_updates(Task *task);
void free_current(Task *task);
void put_task(Task *task);
void notify(Task *task);
void drop_named_pools(Task *task);
// End a task that is in no queue any more.
void finish(Task *task, int error, std::uint32_t cause, std::int32_t code, std::uint64_t fault);

int spawn(Orbit *orbit);
void kill_process(Orbit *orbit, std::uint32_t cause, int error);
void end_orbit(Orbit *orbit);

} // namespace liborbit::portable

#endif // LIBORBIT_PORTABLE_PORTABLE_H
