// SPDX-License-Identifier: MIT
#include "modules.h"

#include "../internal.h"
#include "fork_handlers.h"
#include "locked.h"

namespace liborbit {

namespace {

// Taken last: nothing that is called with it takes another lock of the library.
ORBIT_STATE pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

} // namespace

int for_each_module(int (*callback)(dl_phdr_info *module, std::size_t bytes, void *user), void *user)
{
	const Locked locked(&lock);

	return dl_iterate_phdr(callback, user);
}

ORBIT_AT_FORK void modules_before_fork()
{
	pthread_mutex_lock(&lock);
}

ORBIT_AT_FORK void modules_after_fork()
{
	pthread_mutex_unlock(&lock);
}

} // namespace liborbit
