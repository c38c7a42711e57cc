// SPDX-License-Identifier: MIT
//
// The loop of an orbit. This file is compiled without unwind tables, so that for
// an exception the stack ends here: without a handler in the task it terminates
// the orbit. Otherwise it could reach a handler in the main program's functions
// below, and the orbit would go on as a second main program.
#include "../internal.h"
#include "check.h"

#include "../kernel/syscall.h"
#include "process.h"
#include "scan.h"
#include "sharing.h"
#include "../portable/fork_server.h"

#include <unistd.h>

namespace liborbit {

ORBIT_STATE int server_fd = -1;
ORBIT_STATE const Backend *serving_backend = &kernel_backend;

void serve(int fd, void *arg, std::size_t arg_room)
{
	orbit_return_args args{};

	server_fd = fd;
	may_scan();
	for (;;) {
		args.arg = reinterpret_cast<std::uintptr_t>(arg);
		args.arg_size = arg_room;

		const int err = sys_return(fd, &args);

		if (err == -EINTR) // the last value has been handed in
			continue;
		if (err < 0)
			_exit(err == -ESHUTDOWN ? 0 : -err);

		const auto entry = reinterpret_cast<orbit_entry>(args.entry);

		args.value = run_task(entry, arg, args.arg_size);
		forget_scans(); // the next view is whole
	}
}

// The portable backend has its loop elsewhere.
std::uint64_t run_task(orbit_entry entry, const void *arg, std::size_t arg_size)
{
	if (const int err = renew_shared())
		_exit(-err);

	const std::uint64_t value =
		born_with ? run_watched(entry, arg, arg_size) : entry(arg, arg_size);

	finish_task();
	return value;
}

} // namespace liborbit
