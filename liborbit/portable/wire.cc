// SPDX-License-Identifier: MIT
#include "wire.h"

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <fcntl.h>
#include <sys/uio.h>
#include <unistd.h>

namespace liborbit {

namespace {

constexpr std::size_t max_fds = 2 * max_pieces;

union Control {
	char bytes[CMSG_SPACE(sizeof(int) * max_fds)];
	cmsghdr align;
};

} // namespace

ProcessState look_at_process(pid_t pid)
{
	// Flags of the kernel's that proc(5) shows as a number. They outlive the process's memory.
	constexpr unsigned exiting = 0x4, no_exec = 0x40;
	char path[64], text[512];
	unsigned flags = 0;

	std::snprintf(path, sizeof(path), "/proc/%d/stat", pid);

	const int fd = open(path, O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		return {false, true};

	const ssize_t got = read(fd, text, sizeof(text) - 1);

	close(fd);
	text[got > 0 ? got : 0] = '\0';

	// The name may hold anything, parentheses too.
	const char *const after = std::strrchr(text, ')');

	if (!after || std::sscanf(after, ") %*c %*d %*d %*d %*d %*d %u", &flags) != 1)
		return {false, true};
	return {!(flags & no_exec), (flags & exiting) != 0};
}

int tell(int socket, const void *head, std::size_t head_bytes, const void *body, std::size_t body_bytes,
	 const int *fds, std::size_t nr_fds, int flags)
{
	iovec parts[] = {{const_cast<void *>(head), head_bytes}, {const_cast<void *>(body), body_bytes}};
	Control control;
	msghdr message{};

	message.msg_iov = parts;
	message.msg_iovlen = body_bytes ? 2 : 1;
	if (nr_fds) {
		message.msg_control = &control;
		message.msg_controllen = CMSG_SPACE(sizeof(int) * nr_fds);
		std::memset(&control, 0, message.msg_controllen);

		cmsghdr *header = CMSG_FIRSTHDR(&message);

		header->cmsg_level = SOL_SOCKET;
		header->cmsg_type = SCM_RIGHTS;
		header->cmsg_len = CMSG_LEN(sizeof(int) * nr_fds);
		std::memcpy(CMSG_DATA(header), fds, sizeof(int) * nr_fds);
	}
	while (sendmsg(socket, &message, MSG_NOSIGNAL | flags) < 0)
		if (errno != EINTR)
			return -errno;
	return 0;
}

long hear(int socket, void *buffer, std::size_t room, int *fds, std::size_t *nr_fds, int flags)
{
	iovec data = {buffer, room};
	const std::size_t wanted = *nr_fds;
	Control control;
	msghdr message{};
	ssize_t got;

	*nr_fds = 0;
	message.msg_iov = &data;
	message.msg_iovlen = 1;
	// Without room for any the kernel throws them away.
	if (wanted) {
		message.msg_control = &control;
		message.msg_controllen = sizeof(control);
	}
	// That the other side has ended with messages unread is told once, before what it has said last.
	do {
		got = recvmsg(socket, &message, MSG_CMSG_CLOEXEC | flags);
	} while (got < 0 && (errno == EINTR || errno == ECONNRESET));
	if (got < 0)
		return -errno;
	for (cmsghdr *header = CMSG_FIRSTHDR(&message); header; header = CMSG_NXTHDR(&message, header)) {
		if (header->cmsg_level != SOL_SOCKET || header->cmsg_type != SCM_RIGHTS)
			continue;

		const std::size_t count = (header->cmsg_len - CMSG_LEN(0)) / sizeof(int);

		for (std::size_t i = 0; i < count; i++) {
			int fd;

			std::memcpy(&fd, CMSG_DATA(header) + i * sizeof(int), sizeof(int));
			if (*nr_fds < wanted)
				fds[(*nr_fds)++] = fd;
			else
				close(fd);
		}
	}
	if (message.msg_flags & MSG_CTRUNC) {
		for (std::size_t i = 0; i < *nr_fds; i++)
			close(fds[i]);
		*nr_fds = 0;
		return -EMFILE;
	}
	return got;
}

} // namespace liborbit
