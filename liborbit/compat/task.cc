// SPDX-License-Identifier: MIT
//
// The orbit's side: what a task runs in, and what it sends.
#include "internal.h"

#include <cstdlib>
#include <sys/mman.h>

using namespace orbit_compat;

namespace {

// All of it belongs to the orbit's process.
published_entry own_entry;
void *store;
const CallInfo *call; // of the task that runs

// What has been sent and may not have been received: the main program does not yet hold
// it, in the snapshot that the next task sees.
struct Sent {
	std::uint64_t call;
	std::size_t first, count;
};

Sent *sent;
std::size_t nr_sent, room_for_sent;

// The first page from this one on that is held, or is not; or the end.
std::size_t find(const Control *control, std::size_t page, bool held)
{
	const std::uint64_t skipped = held ? 0 : ~0ULL; // a word without such a page

	while (page < control->scratch_pages) {
		const std::uint64_t word = control->held[page / 64];

		if (page % 64 == 0 && word == skipped)
			page += 64;
		else if ((word >> page % 64 & 1) == held)
			return page;
		else
			page++;
	}
	return control->scratch_pages;
}

// Cut what has been sent out of a run of pages [first, end): what is left, at its front.
// If that is nothing, *first is moved behind.
std::size_t clear_end(std::size_t *first, std::size_t end)
{
	for (std::size_t i = 0; i < nr_sent; i++) {
		const Sent &area = sent[i];

		if (*first >= area.first && *first < area.first + area.count) {
			*first = area.first + area.count;
			i = SIZE_MAX; // from the beginning again
			if (*first >= end)
				return end;
			continue;
		}
		if (area.first > *first && area.first < end)
			end = area.first;
	}
	return end;
}

// The longest run of pages that nobody holds.
std::size_t longest_run(const Control *control, std::size_t *start)
{
	const std::size_t all = control->scratch_pages;
	std::size_t longest = 0;

	for (std::size_t page = find(control, 0, false); page < all; page = find(control, page, false)) {
		const std::size_t end = find(control, page, true);

		while (page < end) {
			const std::size_t run_end = clear_end(&page, end);

			if (page < run_end && run_end - page > longest) {
				longest = run_end - page;
				*start = page;
			}
			page = run_end > page ? run_end : page;
		}
	}
	return longest;
}

void forget_received(std::uint64_t settled)
{
	std::size_t kept = 0;

	for (std::size_t i = 0; i < nr_sent; i++)
		if (sent[i].call >= settled)
			sent[kept++] = sent[i];
	nr_sent = kept;
}

bool remember(const Sent &area)
{
	if (nr_sent == room_for_sent) {
		const std::size_t more = room_for_sent ? 2 * room_for_sent : 16;
		void *bigger = realloc(sent, more * sizeof(Sent));

		if (!bigger)
			return false;
		sent = static_cast<Sent *>(bigger);
		room_for_sent = more;
	}
	sent[nr_sent++] = area;
	return true;
}

// For a scratch that is built in the main program.
int private_scratch(orbit_scratch *s)
{
	static pthread_mutex_t private_lock = PTHREAD_MUTEX_INITIALIZER;
	static void *memory;
	static std::size_t bytes;
	std::size_t wanted = 0;
	{
		const Locked locked(&lock);

		if (const Pool *pool = scratch_pool())
			wanted = pool->length;
	}
	if (!wanted)
		return fail(ENXIO);

	const Locked locked(&private_lock);

	if (bytes < wanted) {
		void *larger = mmap(nullptr, wanted, PROT_READ | PROT_WRITE,
				    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

		if (larger == MAP_FAILED)
			return -1;
		memory = larger; // the old one may be in use
		bytes = wanted;
	}
	*s = {memory, 0, bytes, 0, nullptr};
	return 0;
}

// Where a task can send at all.
int check_sender()
{
	if (!call)
		return fail(EPERM);
	if (!call->may_send)
		return fail(EPIPE);
	return 0;
}

} // namespace

namespace orbit_compat {

const CallInfo *call_info;

std::uint64_t run_init(const void *arg, std::size_t)
{
	const auto *birth = static_cast<const Birth *>(arg);

	in_orbit = true;
	own_entry = birth->entry;
	call_info = birth->info;
	if (birth->init)
		store = birth->init();
	return 0;
}

std::uint64_t run_task(const void *arg, std::size_t)
{
	static CallInfo copy; // the function may commit pools, and overwrite what it sees

	copy = *call_info;
	call = &copy;
	if (copy.control && copy.may_send)
		forget_received(copy.control->settled);

	const published_entry func = copy.func ? copy.func : own_entry;
	const std::uint64_t value = func(store, const_cast<void *>(arg));

	call = nullptr;
	return value;
}

} // namespace orbit_compat

bool is_orbit_context()
{
	return in_orbit;
}

int orbit_scratch_create(orbit_scratch *s)
{
	if (!s)
		return fail(EINVAL);
	if (!in_orbit)
		return private_scratch(s);
	if (!call || !call->may_send || !call->control->scratch_pages)
		return fail(ENXIO);

	const Control *control = call->control;
	std::size_t start = 0;
	const std::size_t pages = longest_run(control, &start);

	if (!pages)
		return fail(ENOSPC);
	*s = {reinterpret_cast<void *>(control->scratch_start + start * page_size()), 0,
	      pages * page_size(), 0, nullptr};
	return 0;
}

int orbit_sendv(orbit_scratch *s)
{
	if (!s)
		return fail(EINVAL);
	if (check_sender())
		return -1;
	orbit_scratch_close_any(s);

	const Control *control = call->control;
	const auto start = reinterpret_cast<std::uintptr_t>(s->ptr);
	const std::size_t bytes = round_up(s->cursor, page_size());
	const std::size_t all = control->scratch_pages * page_size();
	const std::size_t offset = start - control->scratch_start;

	if (start < control->scratch_start || offset >= all || offset % page_size() ||
	    s->cursor > all - offset)
		return fail(EINVAL);

	const ScratchMessage message = {offset, bytes, s->count};

	if (bytes && !remember({control->calls, offset / page_size(), bytes / page_size()}))
		return fail(ENOMEM);

	int err = orbit_send_operation(scratch_message, &message, sizeof(message));

	// The announcement of pages that do not follow means nothing.
	if (!err && bytes)
		err = orbit_send_pages(s->ptr, bytes);
	if (err) {
		nr_sent -= bytes != 0;
		return fail(-err);
	}
	*s = {nullptr, 0, 0, 0, nullptr};
	return 0;
}

unsigned long orbit_send(const published_update *update)
{
	int err = 0;

	if (!update)
		err = -EINVAL;
	else if (check_sender())
		err = -errno;
	else if (update->length > ORBIT_BUFFER_MAX)
		err = -EMSGSIZE;
	if (!err)
		err = orbit_send_bytes(update->ptr, update->data, update->length);
	return err ? static_cast<unsigned long>(fail(-err)) : 0;
}

unsigned long orbit_commit()
{
	if (!call || !call->control)
		return static_cast<unsigned long>(fail(call ? EPIPE : EPERM));

	const Control *control = call->control;

	for (std::size_t i = 0; i < control->nr_pools; i++) {
		const orbit_range &pool = control->pools[i];
		const int err = pool.length ? orbit_send_pages(pool.start, pool.length) : 0;

		// ENXIO: this task does not see it.
		if (err && err != -ENXIO)
			return static_cast<unsigned long>(fail(-err));
	}
	return 0;
}
