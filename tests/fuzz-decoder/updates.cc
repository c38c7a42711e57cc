// SPDX-License-Identifier: MIT
//
// Updates with anything in them, applied to declared targets: what may change changes, nothing
// else does. What may is decided here once more, in the simplest way.
#include "../../liborbit/internal.h"
#include "input.h"

namespace {

constexpr std::size_t page = 4096;
constexpr std::uintptr_t pool_start = 0x700000000000; // pages are only said to be put there
constexpr std::size_t pool_pages = 16;

struct Range {
	std::uint64_t start, length;
};

struct Operation {
	std::uint64_t id;
	std::size_t least, most;
};

struct World {
	std::vector<Range> ranges;
	std::vector<Operation> operations;
	bool called;
	int to_return;
	std::uint64_t pages_applied;
};

World world;

int run_operation(void *user, const void *args, size_t size)
{
	const auto *operation = static_cast<const Operation *>(user);
	const auto *bytes = static_cast<const volatile std::uint8_t *>(args);

	MUST(size >= operation->least && size <= operation->most);
	for (std::size_t i = 0; i < size; i++)
		(void)bytes[i];
	world.called = true;
	return world.to_return;
}

bool is_declared(std::uint64_t start, std::uint64_t length)
{
	for (const Range &range : world.ranges) {
		const auto last = static_cast<unsigned __int128>(range.start) + range.length;

		if (start >= range.start && static_cast<unsigned __int128>(start) + length <= last)
			return true;
	}
	return false;
}

int apply_pages(orbit_task *, const orbit_page_range &from, orbit_pool *pool, std::uint64_t offset,
		std::uint64_t, orbit_applied *out)
{
	MUST(from.length);
	MUST(offset <= pool->range.bytes && from.length <= pool->range.bytes - offset);
	MUST(is_declared(pool->range.start + offset, from.length));
	world.pages_applied++;
	out->pages += from.length / page;
	return world.to_return;
}

} // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t *data, std::size_t size)
{
	Input input(data, size);
	Memory memory(1024);
	std::vector<std::uint8_t> expected(memory.size());
	liborbit::Backend backend{};
	orbit_task task{};
	orbit_pool pool{}, other{};
	orbit_targets *targets;

	world = {};
	backend.apply_pages = apply_pages;
	task.backend = &backend;
	task.generation = pool.generation = other.generation = liborbit::generation();
	std::memset(task.orbit, 'n', sizeof(task.orbit) - 1);
	pool.range = {pool_start, pool_pages * page, nullptr};
	other.range = {pool_start + 64 * page, page, nullptr};
	MUST(orbit_targets_create(&targets) == 0);

	for (std::size_t i = input.byte() % 8; i; i--) {
		const bool in_pool = input.byte() % 4 == 0;
		const Range range = {in_pool ? pool_start + input.below(80 * page) :
					       memory.address() + input.below(memory.size()),
				     in_pool ? input.below(20 * page) : input.below(300)};
		bool overlaps = false;

		// What is declared is the application's own memory.
		if (!in_pool && range.start + range.length > memory.address() + memory.size())
			continue;
		for (const Range &before : world.ranges)
			overlaps = overlaps || (range.start < before.start + before.length &&
						before.start < range.start + range.length);

		const int err = orbit_targets_add_range(targets, reinterpret_cast<void *>(range.start),
							range.length);

		MUST(err == (!range.length ? -EINVAL : overlaps ? -EEXIST : 0));
		if (!err)
			world.ranges.push_back(range);
	}
	world.operations.reserve(8); // they are pointed to
	for (std::size_t i = input.byte() % 8; i; i--) {
		const std::size_t least = input.below(64);

		world.operations.push_back({input.number(5), least, least + input.below(64)});

		Operation &operation = world.operations.back();
		const int err = orbit_targets_add_operation(targets, operation.id, run_operation, &operation,
							    operation.least, operation.most);
		bool known = false;

		for (std::size_t j = 0; j + 1 < world.operations.size(); j++)
			known = known || world.operations[j].id == operation.id;
		MUST(err == (known ? -EEXIST : 0));
		if (err)
			world.operations.pop_back();
	}

	std::uint64_t refused = 0;

	while (!input.empty()) {
		orbit_update update{};
		orbit_apply_options options{};
		orbit_applied applied{};
		const std::size_t length = input.below(200);
		Memory bytes(length);
		std::vector<orbit_page_range> pages(input.byte() % 4);

		for (std::size_t i = 0; i < length; i++)
			bytes.data()[i] = input.byte();
		for (orbit_page_range &range : pages) {
			range.offset = input.number(input.below(20) * page);
			range.length = input.number(input.below(20) * page);
		}
		update.size = sizeof(update);
		update.task = &task;
		update.kind = input.byte() % 8 ? 1U + input.byte() % 3 : input.take<std::uint32_t>();
		update.serial = input.byte() % 8 ? task.serial : input.byte();
		update.data = bytes.data();
		update.length = length;
		update.pool = &pool;
		update.pages = pages.data();
		update.nr_pages = pages.size();
		if (update.kind == ORBIT_UPDATE_OPERATION)
			update.target = !world.operations.empty() && input.byte() % 2 ?
						world.operations[input.below(world.operations.size())].id :
						input.number(5);
		else
			update.target = input.number(memory.address() + input.below(memory.size()));
		options.size = sizeof(options);
		options.flags = input.byte() % 4;
		options.from = input.byte() % 2 ? 0 : input.number(page);
		options.length = input.byte() % 2 ? 0 : input.number(page);
		options.into = input.byte() % 4 ? nullptr : &other;
		options.to = options.into && input.byte() % 2 ? input.number(page) : 0;
		applied.size = sizeof(applied);
		world.called = false;
		world.pages_applied = 0;
		world.to_return = -(input.byte() % 4);

		// Bytes would really be put there.
		if (update.kind == ORBIT_UPDATE_BYTES && length && update.target >= pool_start &&
		    is_declared(update.target, length))
			continue;

		const int err = orbit_update_apply(&update, targets, &options, &applied);
		const bool malformed = update.serial != task.serial || (options.flags & ~ORBIT_APPLY_FORCE) ||
				       (options.from | options.length | options.to) % page ||
				       (options.to && !options.into);

		if (malformed) {
			MUST(err == -EINVAL && !world.called && !world.pages_applied);
			MUST(!applied.applied && !applied.refused && !applied.failed);
		} else if (update.kind == ORBIT_UPDATE_BYTES) {
			const bool may = is_declared(update.target, length);

			MUST(err == (may ? 0 : -EACCES) && applied.applied == may);
			if (may && length)
				std::memcpy(&expected[update.target - memory.address()], bytes.data(), length);
		} else if (update.kind == ORBIT_UPDATE_OPERATION) {
			bool may = false;

			for (const Operation &operation : world.operations)
				may = may || (operation.id == update.target && length >= operation.least &&
					      length <= operation.most);
			MUST(err == (may ? world.to_return : -EACCES) && world.called == may);
		} else if (update.kind == ORBIT_UPDATE_PAGES) {
			// The rest is checked where they are applied.
			MUST(err != -EACCES || applied.refused || world.to_return == -EACCES);
			MUST(!applied.refused || !world.pages_applied);
		} else {
			MUST(err == -EACCES);
		}
		refused += applied.refused;
		MUST(applied.applied + applied.refused + applied.failed <= 1);
		MUST(orbit_targets_refused(targets) == refused);
		MUST(!std::memcmp(memory.data(), expected.data(), expected.size()));

		orbit_refusal refusal{};

		refusal.size = sizeof(refusal);
		MUST(orbit_targets_refusal(targets, input.byte(), &refusal) <= 0);
	}
	orbit_targets_destroy(targets);
	return 0;
}
