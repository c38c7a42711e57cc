// SPDX-License-Identifier: MIT
//
// Targets, and updates applied to them. Everything in an update comes from an orbit, in
// which anything may have gone wrong: it is compared with what was declared before it is
// used.
#include "internal.h"
#include "common/locked.h"

#include <cstdlib>

using namespace liborbit;

namespace {

// Declared memory: [start, end).
struct TargetRange {
	std::uintptr_t start, end;
};

struct TargetOperation {
	std::uint64_t id;
	orbit_operation fn;
	void *user;
	std::size_t least, most;
};

constexpr std::size_t kept_refusals = 16;

// An array, ordered by a key.
template <class T> struct Sorted {
	T *items;
	std::size_t count, room;

	// How many come before this key.
	template <class Before> std::size_t place(Before before) const
	{
		std::size_t low = 0, high = count;

		while (low < high) {
			const std::size_t middle = low + (high - low) / 2;

			if (before(items[middle]))
				low = middle + 1;
			else
				high = middle;
		}
		return low;
	}

	int insert(std::size_t at, const T &item)
	{
		if (count == room) {
			const std::size_t more = room ? 2 * room : 8;
			void *bigger = realloc(items, more * sizeof(T));

			if (!bigger)
				return -ENOMEM;
			items = static_cast<T *>(bigger);
			room = more;
		}
		std::memmove(items + at + 1, items + at, (count - at) * sizeof(T));
		items[at] = item;
		count++;
		return 0;
	}
};

} // namespace

struct orbit_targets : liborbit::Destroyable {
	mutable pthread_mutex_t lock; // for all of it
	Sorted<TargetRange> ranges;   // no two overlap
	Sorted<TargetOperation> operations;
	std::uint64_t refused;
	orbit_refusal refusals[kept_refusals]; // by number, in a ring
};

namespace {

bool is_declared(const orbit_targets *targets, std::uint64_t start, std::uint64_t bytes)
{
	const Locked locked(&targets->lock);
	const std::size_t after =
		targets->ranges.place([=](const TargetRange &range) { return range.start <= start; });

	if (!after)
		return false;

	const TargetRange &range = targets->ranges.items[after - 1];

	// Nothing here can overflow: start is not below range.start.
	return start <= range.end && bytes <= range.end - start;
}

bool find_operation(const orbit_targets *targets, std::uint64_t id, TargetOperation *found)
{
	const Locked locked(&targets->lock);
	const std::size_t at = targets->operations.place(
		[=](const TargetOperation &operation) { return operation.id < id; });

	if (at == targets->operations.count || targets->operations.items[at].id != id)
		return false;
	*found = targets->operations.items[at];
	return true;
}

const char *kind_name(std::uint32_t kind)
{
	switch (kind) {
	case ORBIT_UPDATE_BYTES:
		return "bytes for address";
	case ORBIT_UPDATE_OPERATION:
		return "operation";
	case ORBIT_UPDATE_PAGES:
		return "pages for address";
	}
	return "something unknown for";
}

int refuse(orbit_targets *targets, const orbit_update *update, std::uint64_t target,
	   std::uint64_t length, orbit_applied *out)
{
	orbit_refusal refusal{};

	refusal.size = sizeof(refusal);
	refusal.task = update->task->number;
	std::memcpy(refusal.orbit, update->task->orbit, sizeof(refusal.orbit));
	refusal.kind = update->kind;
	refusal.target = target;
	refusal.length = length;
	out->refused++;
	{
		const Locked locked(&targets->lock);

		targets->refusals[targets->refused % kept_refusals] = refusal;
		__atomic_store_n(&targets->refused, targets->refused + 1, __ATOMIC_RELEASE);
	}
	log(ORBIT_LOG_ERROR,
	    "an update of task %llu of orbit \"%s\" was refused: %s %#llx (%llu bytes) is not declared",
	    static_cast<unsigned long long>(refusal.task), refusal.orbit, kind_name(refusal.kind),
	    static_cast<unsigned long long>(target), static_cast<unsigned long long>(length));
	return -EACCES;
}

int apply_bytes(const orbit_update *update, orbit_targets *targets, orbit_applied *out)
{
	if (!is_declared(targets, update->target, update->length))
		return refuse(targets, update, update->target, update->length, out);
	if (update->length)
		std::memcpy(reinterpret_cast<void *>(update->target), update->data, update->length);
	return 0;
}

int apply_operation(const orbit_update *update, orbit_targets *targets, orbit_applied *out)
{
	TargetOperation operation;

	if (!find_operation(targets, update->target, &operation) ||
	    update->length < operation.least || update->length > operation.most)
		return refuse(targets, update, update->target, update->length, out);
	const Outside outside;

	return operation.fn(operation.user, update->data, update->length);
}

// What of a piece of pages is to be applied, and at which offset.
struct Move {
	orbit_page_range from;
	std::uint64_t to;
};

bool clip(const orbit_page_range &pages, const orbit_apply_options *options, Move *move)
{
	const std::uint64_t first = options->from;
	const std::uint64_t last =
		options->length && options->length < UINT64_MAX - first ? first + options->length : UINT64_MAX;
	const std::uint64_t start = pages.offset > first ? pages.offset : first;
	const std::uint64_t pages_end =
		pages.length < UINT64_MAX - pages.offset ? pages.offset + pages.length : UINT64_MAX;
	const std::uint64_t end = pages_end < last ? pages_end : last;

	if (start >= end)
		return false;
	move->from = {start, end - start};
	move->to = options->into ? options->to + (start - first) : start;
	return true;
}

int apply_all_pages(const orbit_update *update, orbit_targets *targets,
		    const orbit_apply_options *options, orbit_applied *out)
{
	orbit_pool *pool = options->into ? options->into : update->pool;
	const std::uint64_t conflicts = out->conflicts;
	int err = 0;
	Move move;

	// All of it, before anything changes.
	for (std::size_t i = 0; i < update->nr_pages; i++) {
		if (!clip(update->pages[i], options, &move))
			continue;

		const std::size_t room = pool->range.bytes;
		const std::uint64_t target = pool->range.start + move.to;

		if (move.to > room || move.from.length > room - move.to ||
		    !is_declared(targets, target, move.from.length))
			return refuse(targets, update, target, move.from.length, out);
	}
	for (std::size_t i = 0; !err && i < update->nr_pages; i++)
		if (clip(update->pages[i], options, &move))
			err = update->task->backend->apply_pages(update->task, move.from, pool, move.to,
								 options->flags, out);
	return !err && out->conflicts != conflicts ? -EBUSY : err;
}

int apply(const orbit_update *update, orbit_targets *targets, const orbit_apply_options *options,
	  orbit_applied *out)
{
	switch (update->kind) {
	case ORBIT_UPDATE_BYTES:
		return apply_bytes(update, targets, out);
	case ORBIT_UPDATE_OPERATION:
		return apply_operation(update, targets, out);
	case ORBIT_UPDATE_PAGES:
		return apply_all_pages(update, targets, options, out);
	}
	return refuse(targets, update, update->target, update->length, out);
}

} // namespace

int liborbit::apply_update(const orbit_update *update, orbit_targets *targets,
			   const orbit_apply_options *options, orbit_applied *out)
{
	const std::uint64_t refused = out->refused, conflicts = out->conflicts;
	const int err = apply(update, targets, options, out);

	if (out->refused == refused) {
		if (!err || out->conflicts != conflicts)
			out->applied++;
		else
			out->failed++;
	}
	return err;
}

int orbit_targets_create(orbit_targets **out) noexcept
{
	const Marked here;

	if (here.error())
		return here.error();
	if (!out)
		return -EINVAL;

	auto *targets = static_cast<orbit_targets *>(calloc(1, sizeof(orbit_targets)));

	if (!targets)
		return -ENOMEM;
	pthread_mutex_init(&targets->lock, nullptr);
	*out = targets;
	return 0;
}

void orbit_targets_destroy(orbit_targets *targets) noexcept
{
	const Marked here;

	if (!targets)
		return;
	if (here.error())
		return leave_over(targets, [](Destroyable *what) { orbit_targets_destroy(static_cast<orbit_targets *>(what)); });
	pthread_mutex_destroy(&targets->lock);
	free(targets->ranges.items);
	free(targets->operations.items);
	free(targets);
}

int orbit_targets_add_range(orbit_targets *targets, void *start, size_t length) noexcept
{
	const Marked here;
	const auto first = reinterpret_cast<std::uintptr_t>(start);

	if (here.error())
		return here.error();
	if (!targets || !length || length > UINTPTR_MAX - first)
		return -EINVAL;

	const Locked locked(&targets->lock);
	Sorted<TargetRange> &ranges = targets->ranges;
	const std::size_t at =
		ranges.place([=](const TargetRange &range) { return range.end <= first; });

	if (at < ranges.count && ranges.items[at].start < first + length)
		return -EEXIST;
	return ranges.insert(at, {first, first + length});
}

int orbit_targets_add_operation(orbit_targets *targets, uint64_t id, orbit_operation fn, void *user,
				size_t least, size_t most) noexcept
{
	const Marked here;

	if (here.error())
		return here.error();
	if (!targets || !fn || least > most)
		return -EINVAL;

	const Locked locked(&targets->lock);
	Sorted<TargetOperation> &operations = targets->operations;
	const std::size_t at =
		operations.place([=](const TargetOperation &operation) { return operation.id < id; });

	if (at < operations.count && operations.items[at].id == id)
		return -EEXIST;
	return operations.insert(at, {id, fn, user, least, most});
}

uint64_t orbit_targets_refused(const orbit_targets *targets) noexcept
{
	return __atomic_load_n(&targets->refused, __ATOMIC_ACQUIRE);
}

int orbit_targets_refusal(const orbit_targets *targets, size_t back, orbit_refusal *out) noexcept
{
	const Marked here;

	if (here.error())
		return here.error();
	if (!targets || !out || check_out_size(out))
		return -EINVAL;

	orbit_refusal refusal;
	{
		const Locked locked(&targets->lock);

		if (back >= targets->refused || back >= kept_refusals)
			return -ENOENT;
		refusal = targets->refusals[(targets->refused - 1 - back) % kept_refusals];
	}
	copy_out(out, refusal);
	return 0;
}
