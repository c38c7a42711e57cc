// SPDX-License-Identifier: MIT
//
// The main program's side: orbits, calls, and what is received from them.
#include "internal.h"

#include <csignal>
#include <cstdlib>
#include <dirent.h>
#include <fcntl.h>
#include <iterator>
#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

using namespace orbit_compat;

namespace {

// A call whose task can send, or be cancelled, or is waited for.
struct Task {
	Task *next; // a later one
	orbit_task *handle; // null while the call is being made
	unsigned long number;
	std::uint64_t call; // see Control; 0: it cannot send
	bool own;	    // no one but the library knows it
	bool without_value;
	bool cancellable;
	bool receiving;
	bool pending; // update has been received, and not yet been handed out
	orbit_update update;
	ScratchMemory *memory;
	std::size_t arg_size;
	char arg[];
};

} // namespace

struct orbit_compat::Module {
	orbit_module *pub; // the application's, in a block of its own: published programs free() it
	pid_t main;
	obid_t gobid;
	published_entry entry;
	orbit_handle *handle; // null: it has been destroyed
	unsigned users;	      // of the handle
	pthread_cond_t unused;
	Task *tasks; // oldest first
	Pool *info_pool; // holds a CallInfo,
	pthread_mutex_t calls; // and one call at a time fills it in
	Pool *control_pool; // the latest, and those before
	Control *control;   // null when the orbit has been destroyed
	const Pool *set; // the pool that memory is for
	ScratchMemory *memory;
	Module *next;
};

namespace {

// A thread that puts in place what is committed by tasks that nobody receives from.
struct Collector {
	bool running;
	int wake; // an eventfd
};

Collector collector;

Module *modules; // the youngest first; they stay for good
obid_t nr_modules;
bool inherit_minimal;

Module *to_module(const orbit_module *pub)
{
	for (Module *module = pub ? modules : nullptr; module; module = module->next)
		if (module->pub == pub)
			return module;
	return nullptr;
}

// ---- What a task is told -----------------------------------------------------------------

// With the lock, whenever the tasks of a module have changed.
void settle(Module *module)
{
	Control *control = module->control;

	if (!control)
		return;

	std::uint64_t settled = control->calls + 1;

	for (const Task *task = module->tasks; task; task = task->next)
		if (task->call && task->call < settled)
			settled = task->call;
	if (settled != control->settled)
		control->settled = settled;
}

// What lies there, for orbit_commit(). The scratch pool is not for it.
void fill_slot(const Module *module, const Pool *pool)
{
	if (pool->slot >= ORBIT_MAX_POOLS)
		return;

	orbit_range *place = &module->control->pools[pool->slot];
	const std::size_t length = pool == module->set ? 0 : pool->length;

	// The length last, and first if it becomes none: a snapshot sees none or both.
	if (!length)
		__atomic_store_n(&place->length, 0, __ATOMIC_RELEASE);
	place->start = pool->start;
	__atomic_store_n(&place->length, length, __ATOMIC_RELEASE);
}

// Have the module's control fit what the application has set up by now.
int update_control(Module *module)
{
	const Pool *set = scratch_pool();

	if (!module->control || (set && set != module->set)) {
		const std::size_t pages = set ? set->length / page_size() : 0;
		Pool *pool = make_pool(sizeof(Control) + (pages + 63) / 64 * sizeof(std::uint64_t), "control");
		ScratchMemory *memory = pool && set ? take_scratch_memory(module, set) : nullptr;

		if (!pool || (set && !memory)) {
			const int err = errno;

			if (pool)
				destroy_pool(pool);
			return err;
		}

		auto *control = reinterpret_cast<Control *>(pool->start);

		if (module->control)
			control->calls = module->control->calls;
		if (memory) {
			control->scratch_start = reinterpret_cast<std::uintptr_t>(memory->pool->start);
			control->scratch_pages = pages;
		}
		pool->next = module->control_pool; // which another call may be naming
		module->control_pool = pool;
		module->control = control;
		module->set = set;
		module->memory = memory;
		if (memory)
			show_held(memory);
		settle(module);
	}

	// A snapshot may be taken at any moment: what it counts is there.
	Control *control = module->control;
	const std::size_t count = pool_slots() < ORBIT_MAX_POOLS ? pool_slots() : ORBIT_MAX_POOLS;

	if (count != control->nr_pools) {
		for (const Pool *pool = first_pool(); pool; pool = pool->next)
			if (pool->slot >= control->nr_pools)
				fill_slot(module, pool);
		__atomic_store_n(&control->nr_pools, count, __ATOMIC_RELEASE);
	}
	return 0;
}

// ---- Tasks ---------------------------------------------------------------------------------

void append(Module *module, Task *task)
{
	Task **link = &module->tasks;

	while (*link)
		link = &(*link)->next;
	*link = task;
}

void remove(Module *module, Task *task)
{
	Task **link = &module->tasks;

	while (*link != task)
		link = &(*link)->next;
	*link = task->next;
	settle(module);
	orbit_task_destroy(task->handle);
	free(task);
}

Task *find_task(Module *module, unsigned long number)
{
	for (Task *task = module->tasks; task; task = task->next)
		if (!task->own && task->handle && task->number == number)
			return task;
	return nullptr;
}

// Tasks that nobody need receive and that have ended. They end in their order.
void reap(Module *module)
{
	Task *next;

	for (Task *task = module->tasks; task; task = next) {
		orbit_outcome out{};

		next = task->next;
		if (!task->handle || task->receiving || !(task->own || task->without_value) ||
		    (task->own && collector.running))
			continue;
		out.size = sizeof(out);
		if (orbit_task_wait(task->handle, ORBIT_NO_WAIT, &out) == -ETIME)
			return;
		if (task->own || !out.updates)
			remove(module, task);
	}
}

// ---- Calls -----------------------------------------------------------------------------------

constexpr unsigned long skip_flags = ORBIT_SKIP_SAME_ARG | ORBIT_SKIP_ANY;
constexpr unsigned long cancel_flags = ORBIT_CANCEL_SAME_ARG | ORBIT_CANCEL_ANY;
constexpr unsigned long all_flags = ORBIT_NORETVAL | ORBIT_CANCELLABLE | skip_flags | cancel_flags;

std::uint64_t translate(unsigned long flags)
{
	std::uint64_t native = 0;

	if (flags & ORBIT_CANCELLABLE)
		native |= ORBIT_CALL_REPLACEABLE;
	if (flags & ORBIT_SKIP_SAME_ARG)
		native |= ORBIT_CALL_SKIP_SAME;
	if (flags & ORBIT_SKIP_ANY)
		native |= ORBIT_CALL_SKIP_ANY;
	if (flags & ORBIT_CANCEL_SAME_ARG)
		native |= ORBIT_CALL_REPLACE_SAME;
	if (flags & ORBIT_CANCEL_ANY)
		native |= ORBIT_CALL_REPLACE_ANY;
	return native;
}

struct Request {
	unsigned long flags;
	std::size_t nr_pools;
	published_pool **pools;
	published_entry func;
	const void *arg;
	std::size_t arg_size;
	bool may_send, may_commit, keep;
};

// Bytes on the stack, or allocated if they are many.
template <std::size_t few> class Buffer {
public:
	explicit Buffer(std::size_t bytes) : data_(bytes <= few ? few_ : static_cast<char *>(malloc(bytes))) {}
	Buffer(const Buffer &) = delete;
	~Buffer()
	{
		if (data_ != few_)
			free(data_);
	}
	char *data() { return data_; }

private:
	alignas(alignment) char few_[few];
	char *data_;
};

std::uint32_t native_mode(const published_pool *pool, unsigned long flags, bool is_scratch)
{
	switch (pool->mode) {
	case ORBIT_COPY:
		return ORBIT_SNAP_COPY;
	case ORBIT_MOVE:
		return is_scratch || (flags & (skip_flags | cancel_flags | ORBIT_CANCELLABLE)) ?
			       ORBIT_SNAP_COW :
			       ORBIT_SNAP_MOVE;
	case ORBIT_COW:
		break;
	}
	return ORBIT_SNAP_COW;
}

bool add_range(orbit_pool_range *ranges, std::size_t *count, orbit_pool *pool, std::uint32_t mode)
{
	for (std::size_t i = 0; i < *count; i++)
		if (ranges[i].pool == pool)
			return true;
	if (*count == ORBIT_MAX_POOLS)
		return false;
	ranges[(*count)++] = {pool, 0, 0, mode, 0};
	return true;
}

// With the lock. All pools that the task shall see; 0 or an errno value.
int name_pools(const Module *module, const Request &request, orbit_pool_range *ranges,
	       std::size_t *count)
{
	*count = 0;
	for (std::size_t i = 0; i < request.nr_pools; i++) {
		Pool *pool = find_pool(request.pools[i]);

		if (!pool)
			return EINVAL;
		if (!add_range(ranges, count, pool->handle,
			       native_mode(pool->pub, request.flags, module->set == pool)))
			return E2BIG;
	}
	if (!add_range(ranges, count, module->info_pool->handle, ORBIT_SNAP_ADAPTIVE))
		return E2BIG;
	if (!request.may_send && !request.may_commit)
		return 0;
	if (!add_range(ranges, count, module->control_pool->handle, ORBIT_SNAP_ADAPTIVE) ||
	    (request.may_send && module->memory &&
	     !add_range(ranges, count, module->memory->pool->handle, ORBIT_SNAP_COW)))
		return E2BIG;
	return 0;
}

int check(const Request &request)
{
	const bool skips = request.flags & skip_flags, cancels = request.flags & cancel_flags;

	if ((request.flags & ~all_flags) || (skips && cancels) || (!request.pools && request.nr_pools) ||
	    (!request.arg && request.arg_size))
		return EINVAL;
	if (request.nr_pools > ORBIT_MAX_POOLS || request.arg_size > ORBIT_MAX_ARG)
		return E2BIG;
	return 0;
}

// With the lock, which is released meanwhile: make the call. 0 or an errno value.
int call_orbit(Module *module, const Request &request, Task *task)
{
	Buffer<8 * sizeof(orbit_pool_range)> ranges((request.nr_pools + 3) * sizeof(orbit_pool_range));
	orbit_call_options options{};

	if (!ranges.data())
		return ENOMEM;

	auto *named = reinterpret_cast<orbit_pool_range *>(ranges.data());
	const int unnamed = name_pools(module, request, named, &options.nr_ranges);

	if (unnamed)
		return unnamed;
	options.size = sizeof(options);
	options.flags = translate(request.flags) | (request.may_send ? ORBIT_CALL_STREAM : 0);
	options.ranges = named;

	const CallInfo info = {request.func,
			       request.may_send || request.may_commit ? module->control : nullptr,
			       request.may_send};
	auto *const place = reinterpret_cast<CallInfo *>(module->info_pool->start);
	orbit_handle *const orbit = module->handle; // kept as long as there are users
	orbit_task *handle = nullptr;
	int err;

	module->users++;
	pthread_mutex_unlock(&lock);
	{
		const Locked alone(&module->calls);
		const AllocatorsAtRest rest;

		*place = info;
		err = orbit_call_async(orbit, run_task, request.arg, request.arg_size, &options,
				       task ? &handle : nullptr);
	}
	pthread_mutex_lock(&lock);
	if (!--module->users)
		pthread_cond_broadcast(&module->unused);
	if (!err && task) {
		task->handle = handle;
		task->number = orbit_task_number(handle);
	}
	return -err;
}

Task *make_task(const Module *module, const Request &request)
{
	auto *task = static_cast<Task *>(calloc(1, sizeof(Task) + request.arg_size));

	if (!task)
		return nullptr;
	task->without_value = request.flags & ORBIT_NORETVAL;
	task->cancellable = request.flags & ORBIT_CANCELLABLE;
	task->memory = module->memory;
	task->arg_size = request.arg_size;
	if (request.arg_size)
		std::memcpy(task->arg, request.arg, request.arg_size);
	return task;
}

// With the lock. made is set to a task, if one is to be kept.
int start(orbit_module *pub, const Request &request, Module **found, Task **made)
{
	Module *module = to_module(pub);
	Task *task = nullptr;

	*found = module;
	if (!module)
		return EINVAL;
	if (!module->handle)
		return ESHUTDOWN;
	if (module->main != getpid())
		return EPERM; // in a forked child there is no memory of pools
	if (!request.func && !module->entry)
		return EINVAL;
	if (const int err = check(request))
		return err;
	reap(module);
	if (request.may_send || request.may_commit)
		if (const int err = update_control(module))
			return err;
	if (request.keep) {
		task = make_task(module, request);
		if (!task)
			return ENOMEM;
		if (request.may_send)
			task->call = ++module->control->calls;
		append(module, task);
		settle(module);
	}

	const int err = call_orbit(module, request, task);

	if (err && task)
		remove(module, task);
	*made = err ? nullptr : task;
	return err;
}

// ---- Receiving ----------------------------------------------------------------------------------

// What has been received is of no use.
int refuse(int error)
{
	count_refused();
	return error;
}

int next_update(Task *task, orbit_update *update)
{
	if (task->pending) {
		task->pending = false;
		*update = task->update;
		return 0;
	}
	*update = {};
	update->size = sizeof(*update);
	return -orbit_task_receive(task->handle, 0, update);
}

void keep(Task *task, const orbit_update &update)
{
	task->update = update;
	task->pending = true;
}

// Pages that were committed.
int apply_commit(const orbit_update &update)
{
	orbit_targets *targets = declared_targets();
	{
		const Locked locked(&lock);
		const Pool *pool = find_pool(update.pool);

		// The library's own pools are none of the orbit's business.
		if (!pool || is_scratch_memory(update.pool))
			return refuse(EACCES);
		if (!targets)
			targets = pool->targets;
	}

	const int err = -orbit_update_apply(&update, targets, nullptr, nullptr);

	return err == EACCES ? refuse(err) : err;
}

// A scratch has been announced: receive its pages. EAGAIN: there is no such scratch.
int receive_scratch(Task *task, const orbit_update &announced, orbit_scratch *scratch)
{
	ScratchMemory *memory = task->memory;
	ScratchMessage message;
	orbit_update update;

	std::memcpy(&message, announced.data, sizeof(message));
	if (!message.length) {
		*scratch = {};
		return message.count ? refuse(EBADMSG) : 0;
	}

	int err = next_update(task, &update);

	if (err == ENODATA)
		return EAGAIN;
	if (err)
		return err;
	if (!memory || update.kind != ORBIT_UPDATE_PAGES || update.pool != memory->pool->handle) {
		keep(task, update);
		return EAGAIN;
	}

	const std::size_t all = memory->pool->length;
	Area *area;

	if ((message.offset | message.length) % page_size() || message.offset > all ||
	    message.length > all - message.offset)
		return refuse(EBADMSG);
	{
		const Locked locked(&lock);

		area = hold(memory, message.offset / page_size(), message.length / page_size());
		if (!area)
			return errno == EBADMSG ? refuse(EBADMSG) : errno;
	}

	orbit_apply_options options{};

	options.size = sizeof(options);
	options.flags = ORBIT_APPLY_FORCE; // nobody else uses these pages
	options.from = message.offset;
	options.length = message.length;
	*scratch = {memory->pool->start + message.offset, 0, message.length,
		    message.count, nullptr};
	err = -orbit_update_apply(&update, memory->pool->targets, &options, nullptr);
	if (!err && !is_well_formed(*scratch))
		err = refuse(EBADMSG);
	if (err) {
		const Locked locked(&lock);

		let_go(memory, area);
	}
	return err;
}

enum class What { scratch, update, end, error };

// What comes next, if it is wanted; *err is set for an error.
What receive(Task *task, What wanted, orbit_scratch *scratch, orbit_update *update, int *err)
{
	for (;;) {
		*err = next_update(task, update);
		if (*err == ENODATA)
			return What::end;
		if (*err)
			return What::error;

		const bool announces = update->kind == ORBIT_UPDATE_OPERATION &&
				       update->target == scratch_message &&
				       update->length == sizeof(ScratchMessage);

		if (update->kind == ORBIT_UPDATE_PAGES) {
			*err = apply_commit(*update);
			if (*err)
				return What::error;
		} else if (update->kind == ORBIT_UPDATE_BYTES || announces) {
			if ((wanted == What::scratch) != announces) {
				keep(task, *update);
				*err = EPROTO;
				return What::error;
			}
			if (!announces)
				return What::update;
			*err = receive_scratch(task, *update, scratch);
			if (!*err)
				return What::scratch;
			if (*err != EAGAIN)
				return What::error;
		} else {
			*err = refuse(EBADMSG);
			return What::error;
		}
	}
}

// The task has ended: what came of it, as an errno value. Its record is gone then.
int finish(Module *module, Task *task, std::uint64_t *value)
{
	orbit_outcome out{};

	out.size = sizeof(out);

	const int err = -orbit_task_wait(task->handle, 0, &out);
	const Locked locked(&lock);

	*value = task->without_value ? 0 : out.value;
	remove(module, task);
	return err;
}

// Find a task and keep others away from it. 0 or an errno value.
int begin_receiving(published_task *pub, Module **module, Task **task)
{
	if (in_orbit)
		return EPERM;
	if (!pub)
		return EINVAL;

	const Locked locked(&lock);

	*module = to_module(pub->orbit);
	if (!*module)
		return EINVAL;
	*task = find_task(*module, pub->taskid);
	if (!*task)
		return ESRCH;
	if ((*task)->receiving)
		return EBUSY;
	(*task)->receiving = true;
	return 0;
}

void end_receiving(Task *task)
{
	const Locked locked(&lock);

	task->receiving = false;
}

// ---- Orbits -----------------------------------------------------------------------------------------

// The descriptors that a program would get that is executed now. 0 or an errno value.
int inherited_fds(int **fds, std::size_t *count)
{
	DIR *dir = opendir("/proc/self/fd");
	std::size_t room = 0;

	*fds = nullptr;
	*count = 0;
	if (!dir)
		return errno;
	while (const dirent *entry = readdir(dir)) {
		const int fd = atoi(entry->d_name); // 0 for "." and ".."
		const int flags = fd > 2 ? fcntl(fd, F_GETFD) : -1;

		if (flags < 0 || flags & FD_CLOEXEC)
			continue;
		if (*count == room) {
			room = room ? 2 * room : 16;

			void *bigger = realloc(*fds, room * sizeof(int));

			if (!bigger) {
				closedir(dir);
				return ENOMEM;
			}
			*fds = static_cast<int *>(bigger);
		}
		(*fds)[(*count)++] = fd;
	}
	closedir(dir);
	return 0;
}

int make_orbit(Module *module)
{
	orbit_options options{};
	int err;

	options.size = sizeof(options);
	options.name = module->pub->name;
	options.queue_limit = ORBIT_MAX_QUEUE;
	options.flags = ORBIT_KEEP_THREADS; // programs were not told to end them
	orbit_range pages[64];
	const void *const own = &modules;

	if (inherit_minimal) {
		options.inherit = ORBIT_INHERIT_MINIMAL;
		options.modules = &own; // its variables are there as they are now
		options.nr_modules = 1;
		options.ranges = pages;
	}
	// Another thread may close one of them meanwhile.
	for (int tries = 0; tries < 8; tries++) {
		int *fds;

		err = inherited_fds(&fds, &options.nr_keep_fds);
		options.keep_fds = fds;
		if (!err) {
			// Allocators are as nobody left them in the orbit's memory too.
			const AllocatorsAtRest rest;

			if (inherit_minimal)
				options.nr_ranges = allocator_pages(pages, std::size(pages));
			err = options.nr_ranges > std::size(pages) ? E2BIG :
								     -orbit_create(&module->handle, &options);
		}
		free(fds);
		if (err != EBADF)
			break;
	}
	return err;
}

int run_birth(Module *module, void *(*init)())
{
	const Birth birth = {module->entry, init,
			     reinterpret_cast<CallInfo *>(module->info_pool->start)};
	orbit_call_options options{};
	std::size_t count = 0;

	pthread_mutex_lock(&lock);
	for (const Pool *pool = first_pool(); pool && count < ORBIT_MAX_POOLS; pool = pool->next)
		count++;

	Buffer<8 * sizeof(orbit_pool *)> pools(count * sizeof(orbit_pool *));
	auto *named = reinterpret_cast<orbit_pool **>(pools.data());

	if (named)
		for (const Pool *pool = first_pool(); options.nr_pools < count; pool = pool->next)
			named[options.nr_pools++] = pool->handle;
	pthread_mutex_unlock(&lock);
	if (!named)
		return ENOMEM;
	options.size = sizeof(options);
	options.pools = named;
	return -orbit_call(module->handle, run_init, &birth, sizeof(birth), &options, nullptr);
}

void end(Module *module)
{
	orbit_handle *handle = module->handle;

	module->handle = nullptr;
	while (module->users)
		pthread_cond_wait(&module->unused, &lock);
	pthread_mutex_unlock(&lock);
	orbit_destroy(handle);
	pthread_mutex_lock(&lock);
	module->control = nullptr;
	while (Pool *pool = module->control_pool) {
		module->control_pool = pool->next;
		destroy_pool(pool);
	}
	destroy_pool(module->info_pool);
	module->info_pool = nullptr;
}

// ---- Calls that nobody receives -----------------------------------------------------------------

// What their tasks commit is put in place by a thread of the library. A module's tasks end in their
// order, so it waits for the oldest of each.

// With the lock. Receive what is there from a task, and put it in place; did it end?
bool collect(Module *module, Task *task)
{
	orbit_update update;
	std::uint64_t value;
	int err;

	task->receiving = true;
	pthread_mutex_unlock(&lock);
	do {
		update = {};
		update.size = sizeof(update);
		err = -orbit_task_receive(task->handle, ORBIT_NO_WAIT, &update);
		if (!err && update.kind != ORBIT_UPDATE_PAGES)
			refuse(EBADMSG); // it has gone around the library
		else if (!err)
			apply_commit(update);
	} while (!err);
	if (err != ETIME)
		finish(module, task, &value);
	pthread_mutex_lock(&lock);
	if (err == ETIME)
		task->receiving = false;
	return err != ETIME;
}

Task *oldest_own(Module *module)
{
	for (Task *task = module->tasks; task; task = task->next)
		if (task->own && task->handle && !task->receiving)
			return task;
	return nullptr;
}

void *collect_all(void *)
{
	const Locked locked(&lock);

	for (;;) {
		pollfd few[8];
		std::size_t count = 1, most = SIZE_MAX;

		for (Module *module = modules; module; module = module->next)
			count++;

		Buffer<64 * sizeof(pollfd)> room(count * sizeof(pollfd));
		auto *polled = reinterpret_cast<pollfd *>(room.data());

		if (!polled) { // some of them are better than none
			polled = few;
			most = std::size(few);
		}
		polled[0] = {collector.wake, POLLIN, 0};
		count = 1;
		for (Module *module = modules; module && count < most; module = module->next)
			while (Task *task = oldest_own(module))
				if (!collect(module, task)) {
					polled[count++] = {orbit_task_fd(task->handle), POLLIN, 0};
					break;
				}
		pthread_mutex_unlock(&lock);
		poll(polled, count, -1);
		if (std::uint64_t told; read(collector.wake, &told, sizeof(told)) < 0)
			told = 0;
		pthread_mutex_lock(&lock);
	}
	return nullptr;
}

// With the lock: see to it that the thread looks at new tasks. 0 or an errno value.
int wake_collector()
{
	const std::uint64_t one = 1;

	if (collector.running)
		return write(collector.wake, &one, sizeof(one)) < 0 && errno != EAGAIN ? errno : 0;

	pthread_t thread;
	sigset_t every, before;

	collector.wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (collector.wake < 0)
		return errno;
	// But for those that tell of its own doing: it writes to pools, of which SIGSEGV may tell.
	sigfillset(&every);
	for (const int own : {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGTRAP, SIGSYS})
		sigdelset(&every, own);
	pthread_sigmask(SIG_SETMASK, &every, &before);

	const int err = pthread_create(&thread, nullptr, collect_all, nullptr);

	pthread_sigmask(SIG_SETMASK, &before, nullptr);
	if (err) {
		close(collector.wake);
		return err;
	}
	pthread_detach(thread);
	collector.running = true;
	return 0;
}

// ---- fork() ---------------------------------------------------------------------------------------

void before_fork()
{
	pthread_mutex_lock(&lock);
	stop_allocators();
}

void after_fork_in_parent()
{
	resume_allocators();
	pthread_mutex_unlock(&lock);
}

// Orbits and pools are the parent's. The child may make its own.
void after_fork_in_child()
{
	if (collector.running)
		close(collector.wake);
	collector.running = false;
	for (Module *module = modules; module; module = module->next)
		module->control = nullptr;
	forget_pools();
	resume_allocators_in_child();
	pthread_mutex_unlock(&lock);
}

// Before those of the application, and after those of liborbit, however it is linked: they run in
// the reverse order before a fork, so the outermost locks come first.
[[gnu::constructor(102)]] void register_fork_handlers()
{
	pthread_atfork(before_fork, after_fork_in_parent, after_fork_in_child);
}

bool is_alive(const Module *module)
{
	struct orbit_stat stat {};

	return module && module->handle &&
	       !orbit_get_stat(module->handle, &stat, sizeof(stat)) && stat.state != ORBIT_STATE_DEAD;
}

} // namespace

namespace orbit_compat {

bool may_send(const Module *module)
{
	if (is_alive(module))
		return true;
	for (const Task *task = module->tasks; task; task = task->next)
		if (task->call)
			return true;
	return false;
}

Control *control_of(const Module *module)
{
	return module->control;
}

void tell_slot(const Pool *pool)
{
	for (Module *module = modules; module; module = module->next)
		if (module->control && pool->slot < module->control->nr_pools)
			fill_slot(module, pool);
}

} // namespace orbit_compat

orbit_module *published_create(const char *name, published_entry entry, void *(*init)())
{
	struct orbit_stat stat {};

	if (in_orbit) {
		errno = EPERM;
		return nullptr;
	}

	auto *module = static_cast<Module *>(calloc(1, sizeof(Module)));
	auto *pub = static_cast<orbit_module *>(calloc(1, sizeof(orbit_module)));

	if (!module || !pub) {
		free(module);
		free(pub);
		return nullptr;
	}
	pthread_cond_init(&module->unused, nullptr);
	pthread_mutex_init(&module->calls, nullptr);
	std::strncpy(pub->name, name ? name : "anonymous", sizeof(pub->name) - 1);
	pub->mpid = module->main = getpid();
	pub->entry_func = module->entry = entry;
	module->pub = pub;

	module->info_pool = make_pool(sizeof(CallInfo), "calls");

	int err = module->info_pool ? make_orbit(module) : errno;

	if (!err) {
		err = run_birth(module, init);
		if (!err)
			err = -orbit_get_stat(module->handle, &stat, sizeof(stat));
		if (err)
			orbit_destroy(module->handle);
	}
	if (err) {
		if (module->info_pool)
			destroy_pool(module->info_pool);
		free(module);
		free(pub);
		errno = err;
		return nullptr;
	}
	pub->gobid = module->gobid = stat.pid;

	const Locked locked(&lock);

	// One that the application has given back may have had the same address.
	if (Module *older = to_module(pub))
		older->pub = nullptr;
	pub->lobid = ++nr_modules;
	module->next = modules;
	modules = module;
	return pub;
}

int published_destroy(obid_t gobid)
{
	if (in_orbit)
		return fail(EPERM);

	const Locked locked(&lock);

	// The number of one that has died may be another's by now, which is younger.
	for (Module *module = modules; module; module = module->next)
		if (module->handle && module->main == getpid() && module->gobid == gobid) {
			end(module);
			return 0;
		}
	return fail(ESRCH);
}

int orbit_compat_inherit_minimal()
{
	if (in_orbit)
		return fail(EPERM);
	{
		const Locked locked(&lock);

		for (const Module *module = modules; module; module = module->next)
			if (module->handle && module->main == getpid())
				return fail(EBUSY);
		if (inherit_minimal)
			return 0;
	}

	// Without the lock: it forks.
	const int err = -orbit_prepare();

	if (err)
		return fail(err);
	inherit_minimal = true;
	return 0;
}

int orbit_destroy_all()
{
	if (in_orbit)
		return fail(EPERM);

	const Locked locked(&lock);

	for (Module *module = modules; module; module = module->next)
		if (module->handle && module->main == getpid())
			end(module);
	return 0;
}

bool orbit_exists(orbit_module *pub)
{
	const Locked locked(&lock);

	return is_alive(to_module(pub));
}

bool orbit_gone(orbit_module *pub)
{
	return !orbit_exists(pub);
}

long published_call(orbit_module *pub, size_t npool, published_pool **pools, published_entry func,
		    void *arg, size_t argsize)
{
	const Request request = {0, npool, pools, func, arg, argsize, false, true, true};
	Module *module;
	Task *task;
	int err;

	if (in_orbit)
		return fail(EPERM);
	{
		const Locked locked(&lock);

		err = start(pub, request, &module, &task);
		if (!err)
			task->own = task->receiving = true;
	}
	if (err)
		return fail(err);

	orbit_update update;
	std::uint64_t value = 0;
	int committed = 0; // the first thing that went wrong

	for (;;) {
		const What what = receive(task, What::update, nullptr, &update, &err);

		// It cannot send, unless it has gone around the library.
		if (what == What::update || err == EPROTO) {
			refuse(EBADMSG);
			task->pending = false;
		} else if (what == What::end || (err != EBUSY && err != EACCES && err != EBADMSG)) {
			break;
		}
		committed = committed ? committed : err;
	}
	err = finish(module, task, &value);
	if (err || committed)
		return fail(err ? err : committed);
	if (value == ~0ULL)
		errno = 0;
	return static_cast<long>(value);
}

int published_call_async(orbit_module *pub, unsigned long flags, size_t npool,
			 published_pool **pools, published_entry func, void *arg, size_t argsize,
			 published_task *task)
{
	Request request = {flags, npool, pools, func, arg, argsize, task != nullptr, !task, true};
	Module *module;
	Task *made = nullptr;

	if (in_orbit)
		return fail(EPERM);

	const Locked locked(&lock);
	int err = start(pub, request, &module, &made);

	// Better without what it commits than not at all.
	if (err == EMFILE && !task && !(flags & ORBIT_CANCELLABLE)) {
		request.may_commit = request.keep = false;
		err = start(pub, request, &module, &made);
	}
	if (err && !(err == EEXIST && flags & skip_flags))
		return fail(err);
	if (made && !task) {
		made->own = true;
		if (oldest_own(module) == made)
			wake_collector();
	}
	if (task)
		*task = {pub, made ? made->number : 0};
	return 0;
}

int orbit_cancel_by_task(published_task *pub)
{
	if (in_orbit)
		return fail(EPERM);
	if (!pub)
		return fail(EINVAL);

	const Locked locked(&lock);
	Module *module = to_module(pub->orbit);

	if (!module)
		return fail(EINVAL);

	const Task *task = find_task(module, pub->taskid);

	return task && task->cancellable && !orbit_task_cancel(task->handle, 0);
}

int orbit_cancel_by_arg(orbit_module *pub, void *arg, size_t argsize)
{
	if (in_orbit)
		return fail(EPERM);

	const Locked locked(&lock);
	Module *module = to_module(pub);

	if (!module || (!arg && argsize))
		return fail(EINVAL);
	for (const Task *task = module->tasks; task; task = task->next)
		if (task->cancellable && task->handle && task->arg_size == argsize &&
		    (!argsize || !std::memcmp(task->arg, arg, argsize)) &&
		    !orbit_task_cancel(task->handle, 0))
			return 1;
	return 0;
}

unsigned long orbit_recv(published_task *pub, published_update *out)
{
	orbit_update update{};
	std::uint64_t value;
	Module *module;
	Task *task;
	int err = out ? begin_receiving(pub, &module, &task) : EINVAL;

	if (err)
		return static_cast<unsigned long>(fail(err));
	switch (receive(task, What::update, nullptr, &update, &err)) {
	case What::end:
		err = finish(module, task, &value);
		return static_cast<unsigned long>(fail(err ? err : EIDRM));
	case What::update:
		if (update.length > ORBIT_BUFFER_MAX) {
			err = refuse(EBADMSG);
		} else if (!may_change(reinterpret_cast<void *>(update.target), update.length) &&
			   declared_targets()) {
			err = refuse(EACCES);
		} else {
			out->ptr = reinterpret_cast<void *>(update.target);
			out->length = update.length;
			if (update.length)
				std::memcpy(out->data, update.data, update.length);
		}
		break;
	case What::scratch:
	case What::error:
		break;
	}
	end_receiving(task);
	return err ? static_cast<unsigned long>(fail(err)) : 0;
}

int orbit_recvv(published_result *result, published_task *pub)
{
	orbit_scratch scratch{};
	orbit_update update;
	std::uint64_t value;
	Module *module;
	Task *task;
	int err = result ? begin_receiving(pub, &module, &task) : EINVAL;

	if (err)
		return fail(err);

	const What what = receive(task, What::scratch, &scratch, &update, &err);

	if (what == What::end) {
		err = finish(module, task, &value);
		if (err)
			return fail(err);
		result->retval = value;
		return 0;
	}
	end_receiving(task);
	if (what != What::scratch)
		return fail(err);
	result->scratch = scratch;
	return 1;
}
