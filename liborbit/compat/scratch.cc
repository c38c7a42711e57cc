// SPDX-License-Identifier: MIT
//
// Records in a scratch: written by a task, and read by the main program, which believes
// nothing that they say about themselves.
#include "internal.h"

#include <climits>

using namespace orbit_compat;

namespace {

// A record, as far as it has been found to lie within the scratch.
struct Found {
	orbit_repr *record;
	std::size_t stride; // to the next one, or to the end
};

orbit_repr *record_at(const orbit_scratch *s)
{
	return reinterpret_cast<orbit_repr *>(static_cast<char *>(s->ptr) + s->cursor);
}

// How long the record at the cursor is, without what aligns the next one; 0 if it is
// malformed. room is what there is from the cursor on.
std::size_t length_of(const orbit_repr *record, std::size_t room)
{
	constexpr std::size_t update = offsetof(orbit_repr, update.data);
	constexpr std::size_t operation = offsetof(orbit_repr, operation.argv);
	constexpr std::size_t any = offsetof(orbit_repr, any.data);

	static_assert(any <= update && any <= operation, "all of a record's head is checked first");
	if (room < any)
		return 0;

	// As a number: an enum object may not have just any value.
	unsigned type;

	std::memcpy(&type, &record->type, sizeof(type));
	switch (type) {
	case ORBIT_ANY:
		return record->any.length <= room - any ? any + record->any.length : 0;
	case ORBIT_UPDATE:
		return room >= update && record->update.length <= room - update ?
			       update + record->update.length :
			       0;
	case ORBIT_OPERATION:
		return room >= operation &&
				       record->operation.argc <= (room - operation) / sizeof(long) ?
			       operation + record->operation.argc * sizeof(long) :
			       0;
	}
	return 0;
}

bool find(const orbit_scratch *s, Found *found)
{
	const auto start = reinterpret_cast<std::uintptr_t>(s->ptr);

	if (!s->ptr || s->cursor > s->size_limit || (start + s->cursor) % alignment)
		return false;

	const std::size_t room = s->size_limit - s->cursor;
	const std::size_t length = length_of(record_at(s), room);
	const std::size_t stride = round_up(length, alignment);

	*found = {record_at(s), stride < room ? stride : room};
	return length != 0;
}

void pass(orbit_scratch *s, std::size_t stride)
{
	s->cursor += stride;
	if (!--s->count)
		note_consumed(s);
}

orbit_type drop(orbit_scratch *s)
{
	count_refused();
	s->count = 0;
	note_consumed(s);
	return ORBIT_UNKNOWN;
}

orbit_type step(orbit_scratch *s, bool yield, bool apply)
{
	Found found;

	if (!s || !s->count)
		return ORBIT_END;
	if (!find(s, &found))
		return drop(s);

	orbit_repr *record = found.record;
	orbit_type type = record->type;

	if (type == ORBIT_ANY && yield)
		return type;
	if (type == ORBIT_UPDATE && apply) {
		const std::size_t length = record->update.length;

		if (!may_change(record->update.ptr, length))
			type = ORBIT_UNKNOWN;
		else if (length)
			std::memcpy(record->update.ptr, record->update.data, length);
	} else if (type == ORBIT_OPERATION && apply) {
		if (may_run(record->operation.func))
			record->operation.func(record->operation.argc, record->operation.argv);
		else
			type = ORBIT_UNKNOWN;
	}
	if (type == ORBIT_UNKNOWN)
		count_refused();
	pass(s, found.stride);
	return type;
}

orbit_type all(orbit_scratch *s, bool yield, bool apply)
{
	orbit_type type;

	do {
		type = step(s, yield, apply);
	} while (type == ORBIT_UPDATE || type == ORBIT_OPERATION || (type == ORBIT_ANY && !yield));
	return type;
}

// ---- Writing --------------------------------------------------------------------------

// Room for a record with so many bytes behind its head; null: ENOSPC.
orbit_repr *make_room(orbit_scratch *s, std::size_t head, std::size_t bytes)
{
	orbit_scratch_close_any(s);
	if (s->cursor > s->size_limit || s->count >= INT_MAX || bytes > SIZE_MAX - head - alignment ||
	    round_up(head + bytes, alignment) > s->size_limit - s->cursor) {
		errno = ENOSPC;
		return nullptr;
	}
	return record_at(s);
}

int close(orbit_scratch *s, std::size_t bytes)
{
	s->cursor += round_up(bytes, alignment);
	return static_cast<int>(++s->count);
}

} // namespace

bool orbit_compat::is_well_formed(const orbit_scratch &scratch)
{
	orbit_scratch s = scratch;
	Found found;

	for (; s.count; s.count--, s.cursor += found.stride)
		if (!find(&s, &found))
			return false;
	return true;
}

orbit_type orbit_apply_one(orbit_scratch *s, bool yield)
{
	return step(s, yield, true);
}

orbit_type orbit_apply(orbit_scratch *s, bool yield)
{
	return all(s, yield, true);
}

orbit_type orbit_skip_one(orbit_scratch *s, bool yield)
{
	return step(s, yield, false);
}

orbit_type orbit_skip(orbit_scratch *s, bool yield)
{
	return all(s, yield, false);
}

orbit_repr *orbit_scratch_first(orbit_scratch *s)
{
	Found found;

	return s && s->count && find(s, &found) ? found.record : nullptr;
}

orbit_repr *orbit_scratch_next(orbit_scratch *s)
{
	orbit_skip_one(s, false);
	return orbit_scratch_first(s);
}

int orbit_scratch_push_update(orbit_scratch *s, void *ptr, size_t length)
{
	constexpr std::size_t head = offsetof(orbit_repr, update.data);

	if (!s || (!ptr && length))
		return fail(EINVAL);

	orbit_repr *record = make_room(s, head, length);

	if (!record)
		return -1;
	record->type = ORBIT_UPDATE;
	record->update.ptr = ptr;
	record->update.length = length;
	if (length)
		std::memcpy(record->update.data, ptr, length);
	return close(s, head + length);
}

int orbit_scratch_push_operation(orbit_scratch *s, orbit_operation_func func, size_t argc,
				 unsigned long argv[])
{
	constexpr std::size_t head = offsetof(orbit_repr, operation.argv);

	if (!s || !func || (!argv && argc))
		return fail(EINVAL);

	orbit_repr *record =
		make_room(s, head, argc <= SIZE_MAX / sizeof(long) ? argc * sizeof(long) : SIZE_MAX);

	if (!record)
		return -1;
	record->type = ORBIT_OPERATION;
	record->operation.func = func;
	record->operation.argc = argc;
	if (argc)
		std::memcpy(record->operation.argv, argv, argc * sizeof(long));
	return close(s, head + argc * sizeof(long));
}

void *orbit_scratch_push_any(orbit_scratch *s, void *ptr, size_t length)
{
	constexpr std::size_t head = offsetof(orbit_repr, any.data);

	if (!s) {
		errno = EINVAL;
		return nullptr;
	}

	orbit_repr *record = make_room(s, head, length);

	if (!record)
		return nullptr;
	record->type = ORBIT_ANY;
	record->any.length = length;
	if (ptr && length)
		std::memcpy(record->any.data, ptr, length);
	close(s, head + length);
	return record->any.data;
}

orbit_allocator *orbit_scratch_open_any(orbit_scratch *s, bool use_meta)
{
	constexpr std::size_t head = offsetof(orbit_repr, any.data);

	if (!s) {
		errno = EINVAL;
		return nullptr;
	}

	orbit_repr *record = make_room(s, head, 0);

	if (!record)
		return nullptr;
	record->type = ORBIT_ANY;
	record->any.length = 0;
	s->any_alloc = make_private_allocator(record->any.data, s->size_limit - s->cursor - head,
					      &record->any.length, use_meta);
	return s->any_alloc;
}

int orbit_scratch_close_any(orbit_scratch *s)
{
	if (!s)
		return fail(EINVAL);
	if (!s->any_alloc)
		return static_cast<int>(s->count);

	const std::size_t length = record_at(s)->any.length;

	orbit_allocator_destroy(s->any_alloc);
	s->any_alloc = nullptr;
	return close(s, offsetof(orbit_repr, any.data) + length);
}
