// SPDX-License-Identifier: MIT
//
// What orbits may change and run, if the application has declared that.
#include "internal.h"

#include <cstdlib>

using namespace orbit_compat;

namespace {

struct Range {
	std::uintptr_t start;
	std::size_t length;
	Range *next;
};

struct Function {
	orbit_operation_func func;
	Function *next;
};

// Few, and looked at in the order of declaration.
pthread_mutex_t limits_lock = PTHREAD_MUTEX_INITIALIZER;
Range *ranges;
Function *functions;
bool functions_limited;
orbit_targets *targets; // the ranges again
unsigned long refused;
orbit_allocator *global_allocator;

} // namespace

namespace orbit_compat {

bool may_change(const void *start, std::size_t bytes)
{
	const auto first = reinterpret_cast<std::uintptr_t>(start);

	// Nobody means that.
	if (bytes && (first < page_size() || bytes > UINTPTR_MAX - first))
		return false;
	// What an orbit does to itself is its own business; and there the lock may be held by
	// a thread that is not there.
	if (in_orbit)
		return true;

	const Locked locked(&limits_lock);

	if (!ranges)
		return true;
	for (const Range *range = ranges; range; range = range->next)
		if (first >= range->start && first - range->start <= range->length &&
		    bytes <= range->length - (first - range->start))
			return true;
	return false;
}

bool may_run(orbit_operation_func func)
{
	if (!func || in_orbit)
		return func;

	const Locked locked(&limits_lock);

	if (!functions_limited)
		return true;
	for (const Function *function = functions; function; function = function->next)
		if (function->func == func)
			return true;
	return false;
}

void count_refused()
{
	__atomic_add_fetch(&refused, 1, __ATOMIC_RELAXED);
}

orbit_targets *declared_targets()
{
	const Locked locked(&limits_lock);

	return targets;
}

} // namespace orbit_compat

int orbit_compat_allow_range(void *start, size_t length)
{
	if (in_orbit)
		return fail(EPERM);

	const Locked locked(&limits_lock);
	auto *range = static_cast<Range *>(malloc(sizeof(Range)));

	if (!range)
		return fail(ENOMEM);

	int err = targets ? 0 : orbit_targets_create(&targets);

	if (!err)
		err = orbit_targets_add_range(targets, start, length);
	if (err) {
		free(range);
		// With nothing declared all is allowed; so it stays until something is.
		if (!ranges) {
			orbit_targets_destroy(targets);
			targets = nullptr;
		}
		return fail(-err);
	}
	*range = {reinterpret_cast<std::uintptr_t>(start), length, ranges};
	ranges = range;
	return 0;
}

int orbit_compat_allow_operation(orbit_operation_func func)
{
	if (in_orbit || !func)
		return fail(in_orbit ? EPERM : EINVAL);

	auto *function = static_cast<Function *>(malloc(sizeof(Function)));

	if (!function)
		return fail(ENOMEM);

	const Locked locked(&limits_lock);

	*function = {func, functions};
	functions = function;
	functions_limited = true;
	return 0;
}

void orbit_compat_set_global_allocator(orbit_allocator *alloc)
{
	__atomic_store_n(&global_allocator, alloc, __ATOMIC_RELEASE);
}

orbit_allocator *orbit_compat_global_allocator()
{
	return __atomic_load_n(&global_allocator, __ATOMIC_ACQUIRE);
}

unsigned long orbit_compat_refused()
{
	return __atomic_load_n(&refused, __ATOMIC_RELAXED);
}
