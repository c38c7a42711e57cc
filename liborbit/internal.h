// SPDX-License-Identifier: MIT
#ifndef LIBORBIT_INTERNAL_H
#define LIBORBIT_INTERNAL_H

#include <orbit/orbit.h>

#include "common/entered.h"
#include "common/reservation.h"

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <pthread.h>

// Every variable of the library carries this. It makes them a section of their own,
// which an orbit that inherits the minimum leaves out when it takes over the main program's
// variables: the library may be linked into the executable. `make check` looks.
#define ORBIT_STATE [[gnu::section("orbit_state")]]

// What runs at each fork(), and so each program's: the linker puts such functions together, and a child
// has fewer pages of code to fault in. They write only what has to be, because a write copies a page.
#define ORBIT_AT_FORK [[gnu::hot]]

namespace liborbit {

// A call as the application makes it, checked.
struct Call {
	orbit_entry fn;
	const void *arg;
	std::size_t arg_size;
	const orbit_call_options *options;
};

// What a scan tells and asks now and then.
struct ScanStep {
	std::uintptr_t pool; // an address in it; all that follows is in that
	const orbit_range *done; // will not be read again
	std::size_t nr_done;
	orbit_range *held; // gets what is held for the task, and was not told yet, the oldest first
	std::size_t nr_held; // up to so many; then, so many
	std::uintptr_t ahead; // will be read next
	std::size_t ahead_bytes;
	bool again; // tell of what was told before, too
};

struct CheckState;
struct Sharing;

// All but the error, which functions return.
inline void fill_outcome(orbit_outcome *out, const orbit_result &result)
{
	out->task = result.task;
	out->value = result.error ? 0 : result.value;
	out->cause = result.cause;
	out->code = result.code;
	out->updates = result.updates;
	out->fault_addr = result.fault_addr;
}

// What carries orbits and pools. The API layer has checked the arguments: the
// handles are of this process, options are complete, names fit.
struct Backend {
	const char *name;

	// Fill in everything but size; 0 or -errno as orbit_probe().
	int (*probe)(orbit_probe_info *info);

	// Map orbit_pool::range; and the reverse, short of giving the range back.
	int (*pool_create)(orbit_pool *pool, const char *name);
	void (*pool_destroy)(orbit_pool *pool);
	// The next part of it, from *at on, that may hold anything but zeroes: [*at, *end), of
	// whole pages; both are its size if there is none.
	void (*pool_used)(const orbit_pool *pool, std::size_t *at, std::size_t *end);

	int (*prepare)(); // for orbits that inherit the minimum
	int (*orbit_create)(orbit_handle *orbit, const orbit_options *options);
	// End it, and so the calls that wait in other threads.
	void (*orbit_kill)(orbit_handle *orbit);
	// Close what the handle holds; no call is under way.
	void (*orbit_close)(orbit_handle *orbit);
	int (*stat)(const orbit_handle *orbit, struct orbit_stat *out);

	// Is there a cancellation point in a call, such as poll()? If not, it is spared what forbids them.
	bool call_may_be_cancelled;
	// Fill in the outcome but for error, which is returned.
	int (*call)(orbit_handle *orbit, const Call &call, orbit_outcome *out);
	// Queue a task, and fill in fd and number if its handle is wanted.
	int (*call_async)(orbit_handle *orbit, const Call &call, orbit_task *task);
	// Cancel what was called like this; all if call.fn is null.
	int (*cancel)(orbit_handle *orbit, const Call &call, std::uint64_t flags,
		      std::uint64_t *cancelled);

	int (*task_wait)(orbit_task *task, std::uint64_t deadline_ns, orbit_outcome *out);
	int (*task_cancel)(orbit_task *task, std::uint64_t flags);
	// Receive the next update into task.buffer; fill in everything but size and task.
	int (*task_receive)(orbit_task *task, std::uint64_t deadline_ns, orbit_update *out);
	// Put pages of the update received last into a pool.
	int (*apply_pages)(orbit_task *task, const orbit_page_range &from, orbit_pool *pool,
			   std::uint64_t offset, std::uint64_t flags, orbit_applied *out);
	void (*task_close)(orbit_task *task);

	// In the process of an orbit.
	int (*send)(orbit_update_kind kind, std::uint64_t target, const void *data,
		    std::size_t length);
	// For scans. Is a range in the pool that an address is in, as the task sees it? 0 or -errno.
	int (*scan_check)(std::uintptr_t pool, std::uintptr_t start, std::size_t bytes);
	int (*scan_step)(ScanStep *step);
	// Are versions of pages held for a task, and given up by the step?
	bool (*scan_holds)();
};

extern const Backend kernel_backend;
extern const Backend portable_backend;

// In the process of an orbit: what carries it.
extern const Backend *serving_backend;

// Carry out an update that has been received, see orbit_update_apply(); and add to out.
int apply_update(const orbit_update *update, orbit_targets *targets,
		 const orbit_apply_options *options, orbit_applied *out);

// Serve tasks until the orbit is destroyed. fd is the descriptor from
// ORBIT_CTL_ATTACH, arg a buffer for argument bytes.
[[noreturn]] void serve(int fd, void *arg, std::size_t arg_room);

// Set in the process of an orbit, for good.
extern bool in_orbit;

inline void become_part_of_orbit()
{
	in_orbit = true;
	forget_entered(); // the function that forked it
}

// While it serves: the descriptor that it does so on. Otherwise -1.
extern int server_fd;

// orbit_probe(), by the library itself.
int probe_here(orbit_probe_info *info);

// Whether anybody receives messages.
bool is_logged();
__attribute__((format(printf, 2, 3))) void log(orbit_log_level level, const char *format, ...);

// Read a struct whose first member is its size, as the caller knows it, into one
// as we know it: what is missing becomes zero, what we do not know must be zero.
template <class T> int copy_options(T *to, const T *from)
{
	constexpr std::size_t sane = 4096;

	std::memset(to, 0, sizeof(*to));
	to->size = sizeof(*to);
	if (!from)
		return 0;

	const std::size_t size = from->size;

	if (size < sizeof(from->size))
		return -EINVAL;
	if (size > sane)
		return -E2BIG;
	for (std::size_t i = sizeof(*to); i < size; i++)
		if (reinterpret_cast<const unsigned char *>(from)[i])
			return -E2BIG;
	std::memcpy(to, from, size < sizeof(*to) ? size : sizeof(*to));
	to->size = sizeof(*to);
	return 0;
}

// The reverse, for a struct that we fill in.
template <class T> int check_out_size(const T *out)
{
	constexpr std::size_t sane = 4096;

	return !out || (out->size > sizeof(out->size) && out->size <= sane) ? 0 : -EINVAL;
}

template <class T> void copy_out(T *to, const T &from)
{
	if (!to)
		return;

	const std::size_t size = to->size;

	std::memset(to, 0, size);
	std::memcpy(to, &from, size < sizeof(from) ? size : sizeof(from));
	to->size = size;
}

} // namespace liborbit

struct orbit_pool : liborbit::Destroyable {
	const liborbit::Backend *backend;
	liborbit::Range range;
	unsigned generation;
	int fd;
	void *impl; // the portable backend's
	std::uint64_t check_not_before; // see check.h
	char name[ORBIT_NAME_LEN];
	bool copied_on_fork;
	orbit_pool *next_copied; // with that, see fork_copy.cc
	void *fork_copy;
};

struct orbit_shared : liborbit::Destroyable {
	liborbit::Range range;
	unsigned generation;
	int fd, readable; // the same file, the second for reading only
	std::uint64_t number;
	orbit_shared *next;
	unsigned holders; // orbits that may have it in place
	bool destroyed;
};

struct orbit_handle : liborbit::Destroyable {
	const liborbit::Backend *backend;
	unsigned generation;
	int fd;
	void *impl;
	liborbit::CheckState *check; // with ORBIT_CHECK, see check.h
	liborbit::Sharing *sharing; // with ORBIT_SHARE, see sharing.h
	std::uint32_t calls; // a gate (futex.h): how many are under way; orbit_destroy() closes it
	char name[ORBIT_NAME_LEN];
};

// It does without the orbit's handle, which may be destroyed before it.
struct orbit_task : liborbit::Destroyable {
	const liborbit::Backend *backend;
	unsigned generation;
	int fd;
	void *impl;
	bool interruptible;
	bool reported; // how it failed
	std::uint64_t number;
	std::uint32_t serial; // of the update received last
	std::uintptr_t fn;
	char orbit[ORBIT_NAME_LEN];
	void *buffer; // for the update received last
	std::size_t buffer_room;
	std::size_t nr_pools;
	orbit_pool **pools; // as they were named in the call
};

#endif // LIBORBIT_INTERNAL_H
