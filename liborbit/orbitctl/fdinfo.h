// SPDX-License-Identifier: MIT
//
// What the kernel says in /proc/PID/fdinfo about orbits, pools and tasks.
#ifndef ORBITCTL_FDINFO_H
#define ORBITCTL_FDINFO_H

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <variant>

namespace orbitctl {

// What a kernel of another release does not tell, or tells in another way, is missing.
using Number = std::optional<std::uint64_t>;

struct Orbit {
	std::string name;
	std::optional<std::string> state;
	Number pid, cause, code, fault_address, queued, queue_limit, calls, completed, failed, cancelled,
		skipped, updates, pages_protected, pages_preserved, pages_copied, pages_moved, restart,
		restarts, last_task, template_pid, memory_limit, cpu_limit;
};

struct Pool {
	std::string name;
	Number size, address, snapshots;
};

struct Task {
	std::string orbit;
	Number number;
	std::optional<std::string> state;
	Number updates, update_bytes;
};

using Object = std::variant<std::monostate, Orbit, Pool, Task>;

// link: what /proc/PID/fd/N leads to, which says what it is; text: of fdinfo. monostate for
// anything else, and for text that does not fit to the link. A name may hold any bytes, also
// lines that look like others.
Object parse_fdinfo(std::string_view link, std::string_view text);

// How an orbit's process ended last, in words; empty if it has not.
std::string describe_end(const Orbit &orbit);

} // namespace orbitctl

#endif // ORBITCTL_FDINFO_H
