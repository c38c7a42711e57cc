// SPDX-License-Identifier: MIT
//
// The functions of <orbit/orbit.h>: they check what the caller gave, and leave
// the work to a backend.
#include "internal.h"

#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <fcntl.h>

using namespace liborbit;

namespace liborbit {

bool in_orbit;

namespace {

orbit_log_fn log_fn;
void *log_user;

// Where a second backend will be chosen. There is one.
const Backend *choose_backend(int *err)
{
	static bool works; // it does not stop working
	orbit_probe_info info{};

	*err = 0;
	if (!__atomic_load_n(&works, __ATOMIC_RELAXED)) {
		*err = kernel_backend.probe(&info);
		if (*err)
			log(ORBIT_LOG_INFO, "%s %s", info.reason, info.advice);
		else
			__atomic_store_n(&works, true, __ATOMIC_RELAXED);
	}
	return &kernel_backend;
}

// The common start of the functions that create something.
const Backend *prepare(int *err)
{
	const Backend *backend = nullptr;

	*err = in_orbit ? -EPERM : 0;
	if (!*err)
		backend = choose_backend(err);
	if (!*err)
		*err = window_ensure();
	return backend;
}

int check_name(const char **name)
{
	if (!*name)
		*name = "";
	return std::strlen(*name) < ORBIT_NAME_LEN ? 0 : -ENAMETOOLONG;
}

int check_keep_fds(const orbit_options *options)
{
	if (options->nr_keep_fds && !options->keep_fds)
		return -EINVAL;
	for (std::size_t i = 0; i < options->nr_keep_fds; i++)
		if (options->keep_fds[i] < 0 || fcntl(options->keep_fds[i], F_GETFD) < 0)
			return -EBADF;
	return 0;
}

bool is_ours(unsigned made_in)
{
	return !in_orbit && made_in == generation();
}

int check_call(const orbit_handle *orbit, orbit_entry fn, const void *arg, std::size_t arg_size,
	       const orbit_call_options *options)
{
	if (!fn || (!arg && arg_size) || (!options->pools && options->nr_pools) ||
	    (options->flags & ~ORBIT_CALL_INTERRUPTIBLE))
		return -EINVAL;
	if (arg_size > ORBIT_MAX_ARG || options->nr_pools > ORBIT_MAX_POOLS)
		return -E2BIG;
	if (!is_ours(orbit->generation))
		return -EPERM;
	for (std::size_t i = 0; i < options->nr_pools; i++) {
		if (!options->pools[i])
			return -EINVAL;
		if (!is_ours(options->pools[i]->generation))
			return -EPERM;
	}
	return 0;
}

int call(orbit_handle *orbit, orbit_entry fn, const void *arg, std::size_t arg_size,
	 const orbit_call_options *options, orbit_outcome *out)
{
	if (const int err = check_call(orbit, fn, arg, arg_size, options))
		return err;

	// A call that is under way keeps orbit_destroy() from returning.
	pthread_mutex_lock(&orbit->lock);
	orbit->calls++;
	pthread_mutex_unlock(&orbit->lock);

	const int err = orbit->backend->call(orbit, fn, arg, arg_size, options, out);

	pthread_mutex_lock(&orbit->lock);
	if (!--orbit->calls)
		pthread_cond_signal(&orbit->idle);
	pthread_mutex_unlock(&orbit->lock);
	return err;
}

} // namespace

void log(orbit_log_level level, const char *format, ...)
{
	char message[512];
	va_list args;

	if (!log_fn || in_orbit)
		return;
	va_start(args, format);
	std::vsnprintf(message, sizeof(message), format, args);
	va_end(args);
	log_fn(log_user, level, message);
}

} // namespace liborbit

void orbit_log_to(orbit_log_fn fn, void *user) noexcept
{
	log_fn = fn;
	log_user = user;
}

int orbit_probe(orbit_probe_info *out) noexcept
{
	orbit_probe_info info{};

	if (const int err = check_out_size(out))
		return err;

	const int err = kernel_backend.probe(&info);

	copy_out(out, info);
	return err;
}

int orbit_window_reserve(size_t bytes) noexcept
{
	return in_orbit ? -EPERM : window_reserve(bytes);
}

int orbit_pool_create(orbit_pool **out, size_t bytes, const orbit_pool_options *opts) noexcept
{
	orbit_pool_options options;
	int err = copy_options(&options, opts);

	if (!err)
		err = check_name(&options.name);
	if (!err && (!out || !bytes))
		err = -EINVAL;
	if (!err && bytes > SIZE_MAX / 2)
		err = -ENOMEM;
	if (err)
		return err;

	const Backend *backend = prepare(&err);

	if (err)
		return err;

	auto *pool = static_cast<orbit_pool *>(calloc(1, sizeof(orbit_pool)));

	if (!pool)
		return -ENOMEM;
	pool->backend = backend;
	pool->generation = generation();
	err = window_take(&pool->range, whole_pages(bytes));
	if (err) {
		free(pool);
		return err;
	}
	err = backend->pool_create(pool, options.name);
	if (err) {
		window_release(&pool->range);
		free(pool);
		return err;
	}
	*out = pool;
	return 0;
}

void orbit_pool_destroy(orbit_pool *pool) noexcept
{
	// In an orbit the descriptor is closed, and its number may be another's.
	if (!pool || in_orbit)
		return;

	const int err = window_release(&pool->range);

	pool->backend->pool_destroy(pool);
	if (err) {
		// No mapping left to spare: the memory stays where it is, so the
		// addresses must not be handed out again.
		log(ORBIT_LOG_ERROR, "a pool's memory could not be unmapped (error %d)", -err);
		return;
	}
	free(pool);
}

void *orbit_pool_data(const orbit_pool *pool) noexcept
{
	return reinterpret_cast<void *>(pool->range.start);
}

size_t orbit_pool_size(const orbit_pool *pool) noexcept
{
	return pool->range.bytes;
}

int orbit_pool_fd(const orbit_pool *pool) noexcept
{
	return pool->fd;
}

int orbit_create(orbit_handle **out, const struct orbit_options *opts) noexcept
{
	orbit_options options;
	int err = copy_options(&options, opts);

	if (!err)
		err = check_name(&options.name);
	if (!err && (!out || (options.flags & ~ORBIT_KEEP_CORE)))
		err = -EINVAL;
	if (!err)
		err = check_keep_fds(&options);
	if (err)
		return err;

	const Backend *backend = prepare(&err);

	if (err)
		return err;

	auto *orbit = static_cast<orbit_handle *>(calloc(1, sizeof(orbit_handle)));

	if (!orbit)
		return -ENOMEM;
	orbit->backend = backend;
	orbit->generation = generation();
	pthread_mutex_init(&orbit->lock, nullptr);
	pthread_cond_init(&orbit->idle, nullptr);
	err = backend->orbit_create(orbit, &options);
	if (err) {
		log(ORBIT_LOG_ERROR, "orbit \"%s\" could not be created (error %d)", options.name, -err);
		free(orbit);
		return err;
	}
	*out = orbit;
	return 0;
}

void orbit_destroy(orbit_handle *orbit) noexcept
{
	if (!orbit || in_orbit)
		return;
	// A forked child has copies of the descriptors. The parent's calls are none
	// of its business, and the lock may be as one of them left it.
	if (is_ours(orbit->generation)) {
		orbit->backend->orbit_kill(orbit);
		pthread_mutex_lock(&orbit->lock);
		while (orbit->calls)
			pthread_cond_wait(&orbit->idle, &orbit->lock);
		pthread_mutex_unlock(&orbit->lock);
	}
	orbit->backend->orbit_close(orbit);
	free(orbit);
}

int orbit_call(orbit_handle *orbit, orbit_entry fn, const void *arg, size_t arg_size,
	       const orbit_call_options *opts, orbit_outcome *out) noexcept
{
	orbit_call_options options;
	orbit_outcome outcome{};

	if (const int err = check_out_size(out))
		return err;
	outcome.error = orbit ? copy_options(&options, opts) : -EINVAL;
	if (!outcome.error)
		outcome.error = call(orbit, fn, arg, arg_size, &options, &outcome);
	copy_out(out, outcome);
	return outcome.error;
}

int orbit_get_stat(const orbit_handle *orbit, struct orbit_stat *out, size_t size) noexcept
{
	struct orbit_stat st {};

	if (!orbit || !out || !size)
		return -EINVAL;
	if (!is_ours(orbit->generation))
		return -EPERM;
	if (const int err = orbit->backend->stat(orbit, &st))
		return err;
	std::memset(out, 0, size);
	std::memcpy(out, &st, size < sizeof(st) ? size : sizeof(st));
	return 0;
}

int orbit_fd(const orbit_handle *orbit) noexcept
{
	return orbit->fd;
}
