// SPDX-License-Identifier: MIT
#ifndef LIBORBIT_INTERNAL_H
#define LIBORBIT_INTERNAL_H

#include <orbit/orbit.h>

#include "window.h"

#include <cerrno>
#include <cstddef>
#include <cstring>
#include <pthread.h>

namespace liborbit {

// What carries orbits and pools. The API layer has checked the arguments: the
// handles are of this process, options are complete, names fit.
struct Backend {
	const char *name;

	// Fill in everything but size; 0 or -errno as orbit_probe().
	int (*probe)(orbit_probe_info *info);

	// Map orbit_pool::range; and the reverse, short of giving the range back.
	int (*pool_create)(orbit_pool *pool, const char *name);
	void (*pool_destroy)(orbit_pool *pool);

	int (*orbit_create)(orbit_handle *orbit, const orbit_options *options);
	// End it, and so the calls that wait in other threads.
	void (*orbit_kill)(orbit_handle *orbit);
	// Close what the handle holds; no call is under way.
	void (*orbit_close)(orbit_handle *orbit);

	// Fill in task, value, cause, code and fault_addr; return the error.
	int (*call)(orbit_handle *orbit, orbit_entry fn, const void *arg, std::size_t arg_size,
		    const orbit_call_options *options, orbit_outcome *out);
	int (*stat)(const orbit_handle *orbit, struct orbit_stat *out);
};

extern const Backend kernel_backend;

// Serve tasks until the orbit is destroyed. fd is the descriptor from
// ORBIT_CTL_ATTACH, arg a buffer for argument bytes.
[[noreturn]] void serve(int fd, void *arg, std::size_t arg_room);

// Set in the process of an orbit, for good.
extern bool in_orbit;

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

struct orbit_pool {
	const liborbit::Backend *backend;
	liborbit::Range range;
	unsigned generation;
	int fd;
};

struct orbit_handle {
	const liborbit::Backend *backend;
	unsigned generation;
	int fd;
	pthread_mutex_t lock; // for the count
	pthread_cond_t idle;  // it is 0
	unsigned calls;	      // under way
};

#endif // LIBORBIT_INTERNAL_H
