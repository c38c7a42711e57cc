// SPDX-License-Identifier: MIT
//
// For the portable backend: mirrors of pools, what waits to be written to them, and snapshots.
#include "portable.h"

#include "../common/descriptors.h"
#include "../common/files.h"

#include <algorithm>
#include <cerrno>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace liborbit::portable {

// ---- Deltas -----------------------------------------------------------------------------

static void free_delta(Delta *delta)
{
	for (std::size_t i = 0; i < delta->count; i++)
		free_copy(delta->pages[i]);
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
			free_copy(old->pages[a++]);
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

static void append_delta(View *view, Delta *delta)
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

static void forget_deltas(View *view)
{
	while (Delta *delta = view->first) {
		view->first = delta->next;
		free_delta(delta);
	}
	view->last = nullptr;
}

static int write_mirror(const View *view, std::uint32_t page, const void *data, std::size_t count)
{
	// Before it copies a page the kernel may touch all that is to be written, up to a huge page (6.9 and later).
	const std::size_t most = 16 * page_size();
	const char *from = static_cast<const char *>(data);
	std::size_t left = count * page_size();
	off_t at = static_cast<off_t>(page * page_size());

	while (left) {
		// Not by pwrite(): another thread may be writing to what is read, and TSan need not know.
		const long done = syscall(SYS_pwrite64, view->mirror, from, std::min(left, most), at);

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
	if (view->first && view->first->snapshot <= snapshot) {
		if (!is_still_ours(view->mirror))
			return -EBADF;
		if (const int err = check_file_size(view->bytes))
			return err;
	}
	while (view->first && view->first->snapshot <= snapshot) {
		Delta *const delta = view->first;

		for (std::size_t i = 0; i < delta->count; i++)
			if (write_mirror(view, delta->pages[i].page, delta->pages[i].bytes(), 1))
				return -ENOMEM;
		view->first = delta->next;
		if (!view->first)
			view->last = nullptr;
		free_delta(delta);
	}
	return 0;
}

// ---- Views ------------------------------------------------------------------------------

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

static int make_view(Orbit *orbit, Pool *pool, View **out)
{
	auto *view = allocate<View>();

	if (!view)
		return -ENOMEM;
	view->pool = pool;
	view->start = pool->tracked.start;
	view->bytes = pool->tracked.nr_pages * page_size();
	view->mirror = make_memory_file("orbit-view", view->bytes);

	int err = view->mirror < 0 ? view->mirror : 0;

	if (!err && fcntl(view->mirror, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL))
		err = -errno;
	if (err) {
		free_view(view);
		return err;
	}

	const Locked locked(&state_lock);

	view->next = orbit->views;
	orbit->views = view;
	*out = view;
	return 0;
}

// ---- Snapshots --------------------------------------------------------------------------

static int by_page(const void *a, const void *b)
{
	const std::uint32_t x = static_cast<const PageCopy *>(a)->page;
	const std::uint32_t y = static_cast<const PageCopy *>(b)->page;

	return (x > y) - (x < y);
}

template <class Each> static int for_each_changed(const View *view, Each each)
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
static int copy_to_mirror(View *view, std::uint64_t *copied)
{
	const char *const start = reinterpret_cast<const char *>(view->start);
	std::uint32_t first = 0, count = 0;
	int err = view->pool->tracked.newest ? check_file_size(view->bytes) : 0;

	if (err)
		return err;
	err = for_each_changed(view, [&](std::uint32_t page) {
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

static int copy_page_of(const Tracked &tracked, std::uint32_t page, PageCopy *copy)
{
	if (const int err = allocate_copy(copy))
		return err;
	copy->page = page;

	// From the file: the application may have unmapped it. And not by pread(), as above.
	const long got = syscall(SYS_pread64, tracked.memory, copy->bytes(), page_size(),
				 static_cast<off_t>(page * page_size()));

	if (got == static_cast<long>(page_size()))
		return 0;
	free_copy(*copy);
	return -ENOMEM;
}

static int copy_to_delta(View *view, std::uint64_t snapshot, Delta **out)
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

static bool is_zero(const void *page)
{
	const auto *words = static_cast<const std::uint64_t *>(page);
	std::uint64_t all = 0;

	for (std::size_t i = 0; i < page_size() / sizeof(*words); i++)
		all |= words[i];
	return !all;
}

// What was in a pool's part is the task's; main finds zeroes.
static std::uint64_t clear_moved(const NamedPool &named_pool)
{
	const Tracked &tracked = named_pool.view->pool->tracked;
	const std::size_t first = named_pool.from / page_size();
	const std::size_t end = first + named_pool.length / page_size();
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
	std::uint64_t found, copied;
};

// Look at all pools, then copy what has changed. If main's threads can be kept from writing, it
// is one cut.
static int copy_changes(Task *task, std::uint64_t snapshot, bool direct, Delta **deltas, Counts *counts)
{
	int err = 0;

	for (std::size_t i = 0; i < task->nr_named_pools && !err; i++) {
		const NamedPool &named_pool = task->named_pools[i];

		if (!is_still_ours(named_pool.view->mirror) || !is_still_ours(named_pool.view->pool->tracked.memory))
			return -EBADF;

		const long found = look(&named_pool.view->pool->tracked,
					static_cast<std::uint32_t>(named_pool.from / page_size()),
					static_cast<std::uint32_t>(named_pool.length / page_size()), snapshot);

		if (found < 0)
			err = static_cast<int>(found);
		else
			counts->found += static_cast<std::uint64_t>(found);
	}
	for (std::size_t i = 0; i < task->nr_named_pools && !err; i++) {
		View *const view = task->named_pools[i].view;

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
static bool is_idle(Orbit *orbit, const Task *task, int *err)
{
	const Locked locked(&state_lock);

	if (orbit->running || orbit->first)
		return false;
	for (std::size_t i = 0; i < task->nr_named_pools && !*err; i++)
		*err = apply_deltas(task->named_pools[i].view, never); // of tasks that were cancelled
	return true;
}

// With the snapshot lock held. Fills in the task's named_pools.
int take_snapshot(Orbit *orbit, Task *task)
{
	const std::uint64_t snapshot = ++snapshots;
	Counts counts{};
	int err = 0;
	const bool direct = is_idle(orbit, task, &err);
	auto **deltas = direct ? nullptr : allocate<Delta *>(task->nr_named_pools);

	if (!direct && !deltas)
		err = -ENOMEM;
	if (!err) {
		const PoolsClosed closed;

		err = copy_changes(task, snapshot, direct, deltas, &counts);
	}

	const Locked locked(&state_lock);

	for (std::size_t i = 0; i < task->nr_named_pools && deltas; i++) {
		if (deltas[i] && err)
			free_delta(deltas[i]);
		else if (deltas[i])
			append_delta(task->named_pools[i].view, deltas[i]);
	}
	free(deltas);
	if (err)
		return err;
	for (std::size_t i = 0; i < task->nr_named_pools; i++) {
		NamedPool &named_pool = task->named_pools[i];
		Delta *const last = named_pool.view->last;

		named_pool.view->planned = snapshot;
		named_pool.view->tasks++;
		named_pool.snapshot = snapshot;
		named_pool.delta = last ? last->snapshot : 0;
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

	for (std::size_t i = 0; i < task->nr_named_pools; i++)
		if (task->named_pools[i].mode == ORBIT_SNAP_MOVE)
			moved += clear_moved(task->named_pools[i]);
	if (!moved)
		return;

	const Locked locked(&state_lock);

	orbit->stat.pages_moved += moved;
}

static int add_named_pool(Orbit *orbit, Task *task, Pool *pool, std::uint64_t from, std::uint64_t length,
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
	task->named_pools[task->nr_named_pools++] = {view, from, length, mode, 0, 0};
	return 0;
}

// With the snapshot lock held.
int name_pools(Orbit *orbit, Task *task, const orbit_call_options *options)
{
	int err = 0;

	snapshots++; // so that no view is named by this call yet
	for (std::size_t i = 0; i < options->nr_pools && !err; i++) {
		const orbit_pool *const pool = options->pools[i];

		err = add_named_pool(orbit, task, pool_of(pool), 0, pool->range.bytes, ORBIT_SNAP_COW);
	}
	for (std::size_t i = 0; i < options->nr_ranges && !err; i++) {
		const orbit_pool_range &range = options->ranges[i];

		err = add_named_pool(orbit, task, pool_of(range.pool), range.offset,
				range.length ? range.length : range.pool->range.bytes - range.offset,
				range.mode);
	}
	return err;
}

} // namespace liborbit::portable
