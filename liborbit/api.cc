// SPDX-License-Identifier: MIT
//
// The functions of <orbit/orbit.h>: they check what the caller gave, and leave
// the work to a backend.
#include "common/check.h"
#include "common/clock.h"
#include "common/fork_copy.h"
#include "common/futex.h"
#include "common/memory_limit.h"
#include "common/scan.h"
#include "common/sharing.h"
#include "internal.h"

#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <fcntl.h>

using namespace liborbit;

namespace liborbit {

ORBIT_STATE bool in_orbit;

namespace {

ORBIT_STATE orbit_log_fn log_fn;
ORBIT_STATE void *log_user;

// In the order in which they are tried.
constexpr const Backend *backends[] = {&kernel_backend, &portable_backend};
constexpr std::size_t nr_backends = sizeof(backends) / sizeof(*backends);

ORBIT_STATE const Backend *asked_for; // by orbit_use_backend()
ORBIT_STATE const Backend *used;      // from the first that worked on

// nullptr for "auto". -EINVAL: there is none of that name.
int find_backend(const char *name, const Backend **found)
{
	*found = nullptr;
	if (!name || !*name || !std::strcmp(name, "auto"))
		return 0;
	for (const Backend *backend : backends)
		if (!std::strcmp(name, backend->name)) {
			*found = backend;
			return 0;
		}
	return -EINVAL;
}

const Backend *wanted_backend()
{
	const Backend *wanted = __atomic_load_n(&used, __ATOMIC_ACQUIRE);
	const char *name = secure_getenv("ORBIT_BACKEND");

	if (!wanted)
		wanted = __atomic_load_n(&asked_for, __ATOMIC_ACQUIRE);
	if (!wanted && find_backend(name, &wanted))
		log(ORBIT_LOG_ERROR, "ORBIT_BACKEND=%s is no backend; using what works", name);
	return wanted;
}

// Tell about the backend that is wanted; or about the first that works, or about the last of
// those that do not.
int probe_wanted(orbit_probe_info *info, const Backend **probed)
{
	const Backend *const wanted = wanted_backend();
	int err = -ENOSYS;

	for (const Backend *backend : backends) {
		if (wanted && backend != wanted)
			continue;
		*info = {};
		err = backend->probe(info);
		*probed = backend;
		if (!err)
			break;
	}
	return err;
}

const Backend *choose_backend(int *err)
{
	const Backend *backend = __atomic_load_n(&used, __ATOMIC_ACQUIRE);
	orbit_probe_info info{};

	*err = 0;
	if (backend)
		return backend; // it does not stop working
	*err = probe_wanted(&info, &backend);
	if (*err) {
		log(ORBIT_LOG_INFO, "%s %s", info.reason, info.advice);
		return backend;
	}

	const Backend *first = nullptr;

	// Another thread may have been faster.
	__atomic_compare_exchange_n(&used, &first, backend, false, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE);
	return first ? first : backend;
}

// The common start of the functions that create something.
const Backend *prepare(int *err)
{
	const Backend *backend = nullptr;

	*err = in_orbit ? -EPERM : 0;
	if (!*err)
		backend = choose_backend(err);
	if (!*err)
		*err = ensure_reservation();
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

int check_restrictions(const orbit_options *options)
{
	if ((options->flags & ~(ORBIT_KEEP_CORE | ORBIT_RESTART | ORBIT_KEEP_THREADS | ORBIT_SHARE)) ||
	    options->inherit > ORBIT_INHERIT_MINIMAL || (options->nr_ranges && !options->ranges) ||
	    (options->nr_modules && !options->modules))
		return -EINVAL;
	if (options->inherit == ORBIT_INHERIT_ALL && (options->nr_ranges || options->nr_modules))
		return -EINVAL;
	if (options->queue_limit > ORBIT_MAX_QUEUE)
		return -EINVAL;
	for (std::size_t i = 0; i < options->nr_ranges; i++) {
		const auto start = reinterpret_cast<std::uintptr_t>(options->ranges[i].start);
		const std::size_t length = options->ranges[i].length;

		if (!length || start > UINTPTR_MAX - page_size() ||
		    length > UINTPTR_MAX - page_size() - start)
			return -EINVAL;
	}
	return 0;
}

int check_grant(const orbit_shared *shared, std::uint32_t rights)
{
	if (!shared || rights > ORBIT_RIGHTS_WRITE)
		return -EINVAL;
	return is_ours(shared->generation) ? 0 : -EPERM;
}

int check_grants(const orbit_options *options)
{
	const orbit_grant *const grants = options->grants;

	if (options->nr_grants && (!grants || !(options->flags & ORBIT_SHARE)))
		return -EINVAL;
	if (options->nr_grants > ORBIT_MAX_SHARED)
		return -E2BIG;
	for (std::size_t i = 0; i < options->nr_grants; i++) {
		if (const int err = grants[i].pad ? -EINVAL : check_grant(grants[i].shared, grants[i].rights))
			return err;
		for (std::size_t j = 0; j < i; j++)
			if (grants[j].shared == grants[i].shared)
				return -EINVAL;
	}
	return 0;
}

// Pools are seen through snapshots only.
bool name_pools(const orbit_options *options)
{
	for (std::size_t i = 0; i < options->nr_ranges; i++)
		if (overlaps_reservation(reinterpret_cast<std::uintptr_t>(options->ranges[i].start),
				    options->ranges[i].length))
			return true;
	return false;
}

constexpr std::uint64_t call_flags = ORBIT_CALL_WAIT_ROOM | ORBIT_CALL_REPLACEABLE |
				     ORBIT_CALL_SKIP_SAME | ORBIT_CALL_SKIP_ANY |
				     ORBIT_CALL_REPLACE_SAME | ORBIT_CALL_REPLACE_ANY |
				     ORBIT_CALL_RETRY | ORBIT_CALL_INTERRUPTIBLE;

int check_pool(const orbit_pool *pool)
{
	if (!pool)
		return -EINVAL;
	return is_ours(pool->generation) ? 0 : -EPERM;
}

int check_pool_range(const orbit_pool_range &range)
{
	if (const int err = check_pool(range.pool))
		return err;
	if (range.mode > ORBIT_SNAP_MOVE || range.pad)
		return -EINVAL;
	if (!range.offset && !range.length)
		return 0;
	if ((range.offset | range.length) & (page_size() - 1))
		return -EINVAL;
	if (range.offset >= range.pool->range.bytes ||
	    range.length > range.pool->range.bytes - range.offset)
		return -EINVAL;
	return 0;
}

int check_pools(const orbit_call_options *options)
{
	if ((!options->pools && options->nr_pools) || (!options->ranges && options->nr_ranges))
		return -EINVAL;
	if (options->nr_pools > ORBIT_MAX_POOLS || options->nr_ranges > ORBIT_MAX_POOLS - options->nr_pools)
		return -E2BIG;
	for (std::size_t i = 0; i < options->nr_pools; i++)
		if (const int err = check_pool(options->pools[i]))
			return err;
	for (std::size_t i = 0; i < options->nr_ranges; i++)
		if (const int err = check_pool_range(options->ranges[i]))
			return err;
	return 0;
}

int check_call(const orbit_handle *orbit, const Call &call, std::uint64_t flags)
{
	if (!call.fn || (!call.arg && call.arg_size) || (call.options->flags & ~flags))
		return -EINVAL;
	if (call.arg_size > ORBIT_MAX_ARG)
		return -E2BIG;
	if (!is_ours(orbit->generation))
		return -EPERM;
	return check_pools(call.options);
}

// What is under way keeps orbit_destroy() from returning. An atomic counter and not a lock: two of
// those would be a fiftieth of a call.
class UnderWay {
public:
	explicit UnderWay(orbit_handle *orbit) : orbit_(orbit)
	{
		__atomic_fetch_add(&orbit->calls, 1, __ATOMIC_RELAXED);
	}
	UnderWay(const UnderWay &) = delete;
	~UnderWay() { leave_gate(&orbit_->calls); }

private:
	orbit_handle *orbit_;
};

// A task that broke the orbit is worth a message.
void report(const char *orbit, std::uintptr_t fn, const orbit_outcome &outcome)
{
	char text[128];

	if (outcome.cause == ORBIT_CAUSE_NONE || outcome.error == -ECANCELED ||
	    outcome.error == -ESHUTDOWN)
		return;

	const NotCancelled whole;

	orbit_describe(&outcome, text, sizeof(text));
	log(ORBIT_LOG_ERROR, "task %llu of orbit \"%s\", function %#zx: %s",
	    static_cast<unsigned long long>(outcome.task), orbit, fn, text);
}

// The arguments of a call; complete is where its options go if they are not as we know them.
int read_call(Call *call, orbit_call_options *complete, const orbit_handle *orbit, orbit_entry fn,
	      const void *arg, std::size_t arg_size, const orbit_call_options *options)
{
	const bool as_known = options && options->size == sizeof(*options);

	*call = {fn, arg, arg_size, as_known ? options : complete};
	if (!orbit)
		return -EINVAL;
	return as_known ? 0 : copy_options(complete, options);
}

orbit_task *new_task(const orbit_handle *orbit, const Call &call)
{
	const orbit_call_options *options = call.options;
	const std::size_t nr_pools = options->nr_pools + options->nr_ranges;
	auto *task = static_cast<orbit_task *>(
		calloc(1, sizeof(orbit_task) + nr_pools * sizeof(orbit_pool *)));

	if (!task)
		return nullptr;
	task->backend = orbit->backend;
	task->generation = orbit->generation;
	task->fd = -1;
	task->interruptible = options->flags & ORBIT_CALL_INTERRUPTIBLE;
	task->fn = reinterpret_cast<std::uintptr_t>(call.fn);
	std::memcpy(task->orbit, orbit->name, sizeof(task->orbit));
	task->nr_pools = nr_pools;
	task->pools = reinterpret_cast<orbit_pool **>(task + 1);
	for (std::size_t i = 0; i < options->nr_pools; i++)
		task->pools[i] = options->pools[i];
	for (std::size_t i = 0; i < options->nr_ranges; i++)
		task->pools[options->nr_pools + i] = options->ranges[i].pool;
	return task;
}

int check_task(const orbit_task *task)
{
	if (!task)
		return -EINVAL;
	return is_ours(task->generation) ? 0 : -EPERM;
}

// In a task. Whatever carries the orbit has set the descriptor that it serves on.
int send(orbit_update_kind kind, std::uint64_t target, const void *data, std::size_t size)
{
	const Marked here;

	if (here.error())
		return here.error();
	if (server_fd < 0)
		return -EPERM;
	if (kind != ORBIT_UPDATE_PAGES && size > ORBIT_MAX_UPDATE)
		return -E2BIG;
	return serving_backend->send(kind, target, data, size);
}

int check_apply_options(const orbit_apply_options *options)
{
	if (options->flags & ~ORBIT_APPLY_FORCE)
		return -EINVAL;
	if (((options->from | options->length | options->to) & (page_size() - 1)) ||
	    (options->to && !options->into))
		return -EINVAL;
	return options->into ? check_pool(options->into) : 0;
}

} // namespace

bool is_logged()
{
	return log_fn;
}

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

int liborbit::probe_here(orbit_probe_info *info)
{
	const Backend *probed;

	return probe_wanted(info, &probed);
}

int orbit_probe(orbit_probe_info *out) noexcept
{
	const Entered here;
	orbit_probe_info info{};

	if (const int err = check_out_size(out))
		return err;

	const int err = here.error() ? here.error() : probe_here(&info);

	copy_out(out, info);
	return err;
}

int orbit_inside(void) noexcept
{
	return in_orbit;
}

int orbit_probe_backend(size_t index, orbit_probe_info *out) noexcept
{
	const Entered here;
	orbit_probe_info info{};

	if (const int err = check_out_size(out))
		return err;
	if (here.error())
		return here.error();
	if (index >= nr_backends)
		return -ENOENT;

	const int err = backends[index]->probe(&info);

	info.backend = backends[index]->name;
	copy_out(out, info);
	return err;
}

int orbit_use_backend(const char *name) noexcept
{
	const Backend *backend;

	if (in_orbit)
		return -EPERM;
	if (const int err = find_backend(name, &backend))
		return err;

	const Backend *const in_use = __atomic_load_n(&used, __ATOMIC_ACQUIRE);

	if (in_use)
		return backend && backend != in_use ? -EALREADY : 0;
	__atomic_store_n(&asked_for, backend, __ATOMIC_RELEASE);
	return 0;
}

int orbit_window_reserve(size_t bytes) noexcept
{
	const Entered here;

	if (here.error())
		return here.error();
	return in_orbit ? -EPERM : reserve_window(bytes);
}

int orbit_pool_create(orbit_pool **out, size_t bytes, const orbit_pool_options *opts) noexcept
{
	const Entered here;
	orbit_pool_options options;
	int err = here.error();

	if (!err)
		err = copy_options(&options, opts);
	if (!err)
		err = check_name(&options.name);
	if (!err && (!out || !bytes || (options.flags & ~ORBIT_POOL_COPY_ON_FORK) ||
		     reinterpret_cast<std::uintptr_t>(options.address) & (page_size() - 1)))
		err = -EINVAL;
	if (!err && (bytes > SIZE_MAX / 2 || reinterpret_cast<std::uintptr_t>(options.address) > SIZE_MAX / 2))
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
	std::strncpy(pool->name, options.name, sizeof(pool->name) - 1);
	err = options.address ? take_addresses_at(&pool->range, reinterpret_cast<std::uintptr_t>(options.address),
						  whole_pages(bytes)) :
				take_addresses(&pool->range, whole_pages(bytes));
	if (err) {
		free(pool);
		return err;
	}
	err = backend->pool_create(pool, options.name);
	if (err) {
		release_addresses(&pool->range);
		free(pool);
		return err;
	}
	if (options.flags & ORBIT_POOL_COPY_ON_FORK) {
		pool->copied_on_fork = true;
		copy_on_fork(pool);
	}
	*out = pool;
	return 0;
}

void orbit_pool_destroy(orbit_pool *pool) noexcept
{
	const Entered here;

	// In an orbit the descriptor is closed, and its number may be another's.
	if (!pool || in_orbit)
		return;
	if (here.error())
		return leave_over(pool, [](Destroyable *what) { orbit_pool_destroy(static_cast<orbit_pool *>(what)); });
	if (pool->copied_on_fork)
		forget_copy_on_fork(pool);

	// The addresses last: another thread may have them at once, for a pool that orbits are shown, and what
	// the backend still does to their views of this one would harm that.
	pool->backend->pool_destroy(pool);

	const int err = release_addresses(&pool->range);

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
	const Entered here;
	orbit_options options;
	int err = here.error();

	if (!err)
		err = copy_options(&options, opts);
	if (!err)
		err = check_name(&options.name);
	if (!err && !out)
		err = -EINVAL;
	if (!err)
		err = check_restrictions(&options);
	if (!err)
		err = check_keep_fds(&options);
	if (!err)
		err = check_grants(&options);
	if (err)
		return err;

	const Backend *backend = prepare(&err);

	if (!err && name_pools(&options))
		err = -EINVAL;
	if (err)
		return err;

	auto *orbit = static_cast<orbit_handle *>(calloc(1, sizeof(orbit_handle)));

	if (!orbit)
		return -ENOMEM;
	options.memory_limit = choose_memory_limit(options.memory_limit);
	orbit->backend = backend;
	orbit->generation = generation();
	std::strncpy(orbit->name, options.name, sizeof(orbit->name) - 1);
	if (options.flags & ORBIT_SHARE)
		err = open_sharing(&orbit->sharing, &options);
	if (!err) {
		if (checking()) [[unlikely]]
			check_before_create(orbit, &options);
		err = backend->orbit_create(orbit, &options);
		check_after_create(orbit, err);
	}
	if (err) {
		char text[256];

		orbit_describe_error(err, ORBIT_STEP_CREATE, text, sizeof(text));
		log(ORBIT_LOG_ERROR, "orbit \"%s\" could not be created: %s (error %d)", options.name, text, -err);
		close_sharing(orbit->sharing, true);
		free(orbit);
		return err;
	}
	keep_sharing(orbit->sharing);
	*out = orbit;
	return 0;
}

void orbit_destroy(orbit_handle *orbit) noexcept
{
	const Entered here;

	if (!orbit || in_orbit)
		return;
	if (here.error())
		return leave_over(orbit, [](Destroyable *what) { orbit_destroy(static_cast<orbit_handle *>(what)); });
	// A forked child has copies of the descriptors. The parent's calls are none
	// of its business.
	if (is_ours(orbit->generation)) {
		orbit->backend->orbit_kill(orbit);
		close_gate(&orbit->calls);
	}
	orbit->backend->orbit_close(orbit);
	close_sharing(orbit->sharing, is_ours(orbit->generation));
	check_at_close(orbit);
	free(orbit);
}

int orbit_shared_create(orbit_shared **out, size_t bytes, const orbit_shared_options *opts) noexcept
{
	const Entered here;
	orbit_shared_options options;
	int err = here.error();

	if (!err)
		err = copy_options(&options, opts);
	if (!err)
		err = check_name(&options.name);
	if (!err && (!out || !bytes || options.flags))
		err = -EINVAL;
	if (!err && bytes > SIZE_MAX / 2)
		err = -ENOMEM;
	if (!err)
		prepare(&err);
	if (err)
		return err;

	auto *shared = static_cast<orbit_shared *>(calloc(1, sizeof(orbit_shared)));

	if (!shared)
		return -ENOMEM;
	shared->generation = generation();
	err = take_addresses(&shared->range, whole_pages(bytes));
	if (!err) {
		err = make_region(shared, options.name);
		if (err)
			release_addresses(&shared->range);
	}
	if (err)
		free(shared);
	else
		*out = shared;
	return err;
}

void orbit_shared_destroy(orbit_shared *shared) noexcept
{
	const Entered here;

	if (!shared || in_orbit)
		return;
	if (here.error())
		return leave_over(shared, [](Destroyable *what) { orbit_shared_destroy(static_cast<orbit_shared *>(what)); });
	destroy_region(shared);
}

void *orbit_shared_data(const orbit_shared *shared) noexcept
{
	return reinterpret_cast<void *>(shared->range.start);
}

size_t orbit_shared_size(const orbit_shared *shared) noexcept
{
	return shared->range.bytes;
}

int orbit_share(orbit_handle *orbit, orbit_shared *shared, uint32_t rights) noexcept
{
	const Entered here;
	struct orbit_stat st {};

	if (here.error())
		return here.error();
	if (!orbit)
		return -EINVAL;
	if (!is_ours(orbit->generation))
		return -EPERM;
	if (const int err = check_grant(shared, rights))
		return err;
	if (!orbit->sharing)
		return -ENOTSUP;
	if (const int err = orbit->backend->stat(orbit, &st))
		return err;
	return st.state == ORBIT_STATE_DEAD ? -ESHUTDOWN : share(orbit->sharing, shared, rights);
}

int orbit_shared_renew() noexcept
{
	const Entered here;

	if (here.error())
		return here.error();
	return in_orbit ? renew_shared() : -EPERM;
}

int orbit_prepare() noexcept
{
	const Entered here;

	if (here.error())
		return here.error();

	int err;
	const Backend *backend = prepare(&err);

	return err ? err : backend->prepare();
}

int orbit_call(orbit_handle *orbit, orbit_entry fn, const void *arg, size_t arg_size,
	       const orbit_call_options *opts, orbit_outcome *out) noexcept
{
	const Entered here(orbit && (orbit->backend->call_may_be_cancelled || checking()));
	orbit_call_options options;
	orbit_outcome own;
	Call call;

	if (const int err = check_out_size(out))
		return err;

	// In place, if it is as we know it.
	orbit_outcome *outcome = out && out->size == sizeof(own) ? out : &own;

	*outcome = {};
	outcome->size = sizeof(own);
	outcome->error = here.error();
	if (!outcome->error) [[likely]]
		outcome->error = read_call(&call, &options, orbit, fn, arg, arg_size, opts);
	if (!outcome->error)
		outcome->error = check_call(orbit, call, call_flags);
	if (!outcome->error) {
		const UnderWay under_way(orbit);

		if (checking()) [[unlikely]]
			check_at_call(orbit, call);
		outcome->error = orbit->backend->call(orbit, call, outcome);
		report(orbit->name, reinterpret_cast<std::uintptr_t>(fn), *outcome);
	}
	if (outcome != out)
		copy_out(out, own);
	return outcome->error;
}

int orbit_call_async(orbit_handle *orbit, orbit_entry fn, const void *arg, size_t arg_size,
		     const orbit_call_options *opts, orbit_task **out) noexcept
{
	const Entered here(orbit && (orbit->backend->call_may_be_cancelled || checking()));
	orbit_call_options options;
	orbit_task *task = nullptr;
	Call call;
	int err = here.error();

	if (!err) [[likely]]
		err = read_call(&call, &options, orbit, fn, arg, arg_size, opts);
	if (!err)
		err = check_call(orbit, call, call_flags | (out ? ORBIT_CALL_STREAM : 0));
	if (!err && call.options->resume)
		err = -EINVAL;
	if (err)
		return err;
	if (out) {
		task = new_task(orbit, call);
		if (!task)
			return -ENOMEM;
	}

	const UnderWay under_way(orbit);

	if (checking()) [[unlikely]]
		check_at_call(orbit, call);
	err = orbit->backend->call_async(orbit, call, task);
	if (err)
		free(task);
	else if (out)
		*out = task;
	return err;
}

int orbit_cancel(orbit_handle *orbit, orbit_entry fn, const void *arg, size_t arg_size,
		 uint64_t flags, uint64_t *cancelled) noexcept
{
	const Entered here;
	std::uint64_t count = 0;
	int err = here.error();

	if (!err && (!orbit || (!arg && arg_size) || (!fn && arg_size) || (flags & ~ORBIT_CANCEL_RUNNING)))
		err = -EINVAL;
	if (!err && arg_size > ORBIT_MAX_ARG)
		err = -E2BIG;
	if (!err && !is_ours(orbit->generation))
		err = -EPERM;
	if (!err) {
		const UnderWay under_way(orbit);

		err = orbit->backend->cancel(orbit, {fn, arg, arg_size, nullptr}, flags, &count);
	}
	if (cancelled)
		*cancelled = count;
	return err;
}

int orbit_task_wait(orbit_task *task, uint64_t deadline_ns, orbit_outcome *out) noexcept
{
	const Entered here;
	orbit_outcome outcome{};

	if (const int err = check_out_size(out))
		return err;
	outcome.size = sizeof(outcome);
	outcome.error = here.error() ? here.error() : check_task(task);
	if (!outcome.error) {
		outcome.error = task->backend->task_wait(task, deadline_ns, &outcome);
		if (outcome.error && !__atomic_exchange_n(&task->reported, true, __ATOMIC_RELAXED))
			report(task->orbit, task->fn, outcome);
	}
	copy_out(out, outcome);
	return outcome.error;
}

int orbit_task_cancel(orbit_task *task, uint64_t flags) noexcept
{
	const Entered here;

	if (here.error())
		return here.error();
	if (flags & ~ORBIT_CANCEL_RUNNING)
		return -EINVAL;

	const int err = check_task(task);

	return err ? err : task->backend->task_cancel(task, flags);
}

uint64_t orbit_task_number(const orbit_task *task) noexcept
{
	return task->number;
}

int orbit_task_fd(const orbit_task *task) noexcept
{
	return task->fd;
}

void orbit_task_destroy(orbit_task *task) noexcept
{
	const Entered here;

	if (!task || in_orbit)
		return;
	if (here.error())
		return leave_over(task, [](Destroyable *what) { orbit_task_destroy(static_cast<orbit_task *>(what)); });
	task->backend->task_close(task);
	free(task->buffer);
	free(task);
}

int orbit_task_receive(orbit_task *task, uint64_t deadline_ns, orbit_update *out) noexcept
{
	const Entered here;
	orbit_update update{};

	if (!out || check_out_size(out))
		return -EINVAL;

	int err = here.error() ? here.error() : check_task(task);

	if (!err)
		err = task->backend->task_receive(task, deadline_ns, &update);
	if (err)
		return err;
	update.task = task;
	copy_out(out, update);
	return 0;
}

int orbit_update_apply(const orbit_update *update, orbit_targets *targets,
		       const orbit_apply_options *opts, orbit_applied *out) noexcept
{
	const Entered here;
	orbit_apply_options options;
	orbit_applied applied{};
	orbit_update known;
	int err = here.error() ? here.error() : copy_options(&options, opts);

	if (check_out_size(out))
		return -EINVAL;
	if (!err && (!update || !targets))
		err = -EINVAL;
	if (!err)
		err = copy_options(&known, update);
	if (!err)
		err = check_task(known.task);
	if (!err && known.serial != known.task->serial)
		err = -EINVAL;
	if (!err)
		err = check_apply_options(&options);
	if (!err)
		err = apply_update(&known, targets, &options, &applied);
	copy_out(out, applied);
	return err;
}

int orbit_task_apply_all(orbit_task *task, uint64_t deadline_ns, orbit_targets *targets,
			 orbit_applied *out) noexcept
{
	const Entered here;
	orbit_apply_options options{};
	orbit_applied applied{};
	orbit_update update{};

	if (check_out_size(out))
		return -EINVAL;

	int err = here.error();

	if (!err)
		err = targets ? check_task(task) : -EINVAL;

	while (!err) {
		update = {};
		err = task->backend->task_receive(task, deadline_ns, &update);
		update.task = task;
		if (!err)
			apply_update(&update, targets, &options, &applied);
	}
	copy_out(out, applied);
	return err == -ENODATA ? 0 : err;
}

int orbit_send_bytes(void *target, const void *data, size_t size) noexcept
{
	if (!data && size)
		return -EINVAL;
	return send(ORBIT_UPDATE_BYTES, reinterpret_cast<std::uintptr_t>(target), data, size);
}

int orbit_send_operation(uint64_t id, const void *args, size_t size) noexcept
{
	if (!args && size)
		return -EINVAL;
	return send(ORBIT_UPDATE_OPERATION, id, args, size);
}

int orbit_send_pages(void *start, size_t size) noexcept
{
	return send(ORBIT_UPDATE_PAGES, reinterpret_cast<std::uintptr_t>(start), start, size);
}

int orbit_scan(const orbit_range *ranges, size_t nr_ranges, orbit_scan_fn fn, void *user, const orbit_scan_options *opts,
	       orbit_scanned *out) noexcept
{
	const Entered here;
	orbit_scan_options options;
	orbit_scanned scanned{};

	if (here.error())
		return here.error();
	if (const int err = check_out_size(out))
		return err;
	if (const int err = copy_options(&options, opts))
		return err;

	const int result = scan(ranges, nr_ranges, fn, user, options, &scanned);

	copy_out(out, scanned);
	return result;
}

uint64_t orbit_deadline(uint64_t timeout_ns) noexcept
{
	const std::uint64_t ns = monotonic_ns();

	return timeout_ns > UINT64_MAX - ns ? 0 : ns + timeout_ns;
}

int orbit_get_stat(const orbit_handle *orbit, struct orbit_stat *out, size_t size) noexcept
{
	const Entered here;
	struct orbit_stat st {};

	if (here.error())
		return here.error();
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
