// SPDX-License-Identifier: MIT
#include "files.h"

#include "process.h"

#include <cerrno>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

namespace liborbit {

int check_file_size(std::uint64_t bytes)
{
	rlimit limit;

	return !getrlimit(RLIMIT_FSIZE, &limit) && limit.rlim_cur != RLIM_INFINITY && bytes > limit.rlim_cur ?
		       -EFBIG :
		       0;
}

int make_memory_file(const char *name, std::uint64_t bytes)
{
	if (const int err = check_file_size(bytes))
		return err;

	const int fd = lift(memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING));

	if (fd < 0)
		return -errno;
	if (ftruncate(fd, static_cast<off_t>(bytes))) {
		const int err = -errno;

		close(fd);
		return err;
	}
	return fd;
}

} // namespace liborbit
