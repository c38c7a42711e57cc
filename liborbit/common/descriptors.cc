// SPDX-License-Identifier: MIT
#include "descriptors.h"

#include "../internal.h"

#include <cstdlib>
#include <sys/stat.h>
#include <unistd.h>

namespace liborbit {

namespace {

// A number for what is behind each descriptor, 0 if it is not known; in pieces, by need. Read and
// written without a lock: a forked child could inherit that locked.
constexpr std::size_t piece = 1024, nr_pieces = 1024;

ORBIT_STATE std::uint64_t *identities[nr_pieces];

std::uint64_t *find_identity(int fd)
{
	const auto number = static_cast<std::size_t>(fd);

	if (number >= piece * nr_pieces)
		return nullptr;

	std::uint64_t **const place = &identities[number / piece];
	std::uint64_t *numbers = __atomic_load_n(place, __ATOMIC_ACQUIRE);

	if (!numbers) {
		auto *made = static_cast<std::uint64_t *>(calloc(piece, sizeof(std::uint64_t)));

		if (!made)
			return nullptr;
		if (__atomic_compare_exchange_n(place, &numbers, made, false, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE))
			numbers = made;
		else
			free(made);
	}
	return numbers + number % piece;
}

// 0 if it cannot be told; -EBADF if there is nothing.
int look_behind(int fd, std::uint64_t *identity)
{
	struct stat st;

	*identity = 0;
	if (fstat(fd, &st))
		return errno == EBADF ? -EBADF : 0; // a filter
	*identity = (st.st_ino * 0x9e3779b97f4a7c15 ^ st.st_dev * 0xc2b2ae3d27d4eb4f) | 1;
	return 0;
}

} // namespace

int note_descriptor(int fd)
{
	std::uint64_t *const noted = fd >= 0 ? find_identity(fd) : nullptr;
	std::uint64_t identity;

	if (noted && !look_behind(fd, &identity))
		__atomic_store_n(noted, identity, __ATOMIC_RELAXED);
	return fd;
}

bool is_still_ours(int fd)
{
	const std::uint64_t *const noted = fd >= 0 ? find_identity(fd) : nullptr;
	std::uint64_t identity;

	if (fd < 0 || look_behind(fd, &identity))
		return false;

	const std::uint64_t wanted = noted ? __atomic_load_n(noted, __ATOMIC_RELAXED) : 0;

	return !wanted || !identity || identity == wanted;
}

void close_ours(int *fd)
{
	if (is_still_ours(*fd))
		close(*fd);
	*fd = -1;
}

} // namespace liborbit
