// SPDX-License-Identifier: MIT
#include "memory_limit.h"

#include "../internal.h"
#include "reservation.h"

#include <climits>
#include <cstdio>
#include <cstdlib>
#include <fcntl.h>
#include <unistd.h>

namespace liborbit {

namespace {

// The beginning of a file. False if it cannot be read.
bool read_start(const char *path, char *text, std::size_t room)
{
	const int fd = open(path, O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		return false;

	const ssize_t got = read(fd, text, room - 1);

	close(fd);
	text[got < 0 ? 0 : got] = '\0';
	return got > 0;
}

// A number in a file of a control group. False if it is "max", or there is none.
bool read_number(const char *group, const char *file, std::uint64_t *number)
{
	char path[PATH_MAX + 64], text[32];
	char *end;

	std::snprintf(path, sizeof(path), "%s/%s", group, file);
	if (!read_start(path, text, sizeof(text)))
		return false;
	*number = strtoull(text, &end, 10);
	return end != text;
}

// Where the kernel, when memory runs out in a control group of this process, would end all that is in it: what
// is left there. False if it would end one process: that is an orbit's.
bool ends_together(std::uint64_t *left)
{
	constexpr const char *root = "/sys/fs/cgroup";
	char text[PATH_MAX + 64], group[PATH_MAX + 128];
	std::uint64_t together = 0, most, now;
	bool found = false;

	// With version 2 only, in which there is one hierarchy.
	if (!read_start("/proc/self/cgroup", text, sizeof(text)) || std::strncmp(text, "0::/", 4))
		return false;
	text[std::strcspn(text, "\n")] = '\0';
	std::snprintf(group, sizeof(group), "%s%s", root, text + 3);
	// From the innermost: a group counts if it, or one within it, is to be ended as one.
	for (;;) {
		std::uint64_t flag = 0;

		if (read_number(group, "memory.oom.group", &flag) && flag)
			together = 1;
		if (together && read_number(group, "memory.max", &most) &&
		    read_number(group, "memory.current", &now)) {
			const std::uint64_t here = most > now ? most - now : 0;

			*left = found && *left < here ? *left : here;
			found = true;
		}

		char *const slash = std::strrchr(group, '/');

		if (!slash || std::strlen(group) <= std::strlen(root))
			return found;
		*slash = '\0';
	}
}

} // namespace

std::uint64_t choose_memory_limit(std::uint64_t asked)
{
	constexpr std::uint64_t least = 1 << 20;
	const char *const text = asked ? nullptr : secure_getenv("ORBIT_MEMORY_LIMIT");
	std::uint64_t left;

	if (asked)
		return asked == UINT64_MAX ? 0 : asked;
	if (text) {
		std::size_t bytes;

		if (parse_size(text, &bytes))
			return bytes;
		log(ORBIT_LOG_ERROR, "ORBIT_MEMORY_LIMIT=%s is not a size", text);
	}
	if (!ends_together(&left))
		return 0;

	const std::uint64_t limit = left / 2 < least ? least : left / 2;

	log(ORBIT_LOG_INFO,
	    "a control group ends all its processes when memory runs out (memory.oom.group): without a memory_limit, "
	    "an orbit gets half of what is left, %llu MiB",
	    static_cast<unsigned long long>(limit >> 20));
	return limit;
}

} // namespace liborbit
