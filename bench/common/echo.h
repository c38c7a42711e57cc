// SPDX-License-Identifier: MIT
//
// Processes that answer, by what the kernel offers: what calls are compared with.
#ifndef ORBIT_BENCH_ECHO_H
#define ORBIT_BENCH_ECHO_H

#include "bench.h"

#include <atomic>

#include <linux/futex.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>

namespace bench {

// A process that answers each byte on one descriptor by a byte on another.
class Echo {
public:
	enum Kind { pipes, socket };

	explicit Echo(Kind kind)
	{
		std::array<int, 4> fds; // read there, write here; read here, write there

		if (kind == pipes) {
			check(!pipe(&fds[0]) && !pipe(&fds[2]), "pipe");
		} else {
			check(!socketpair(AF_UNIX, SOCK_STREAM, 0, fds.data()), "socketpair");
			fds = {fds[0], fds[1], dup(fds[1]), dup(fds[0])};
		}
		pid_ = fork();
		check(pid_ >= 0, "fork");
		if (!pid_) {
			char byte;

			close(fds[1]);
			close(fds[2]);
			while (read(fds[0], &byte, 1) == 1 && write(fds[3], &byte, 1) == 1)
				;
			_exit(0);
		}
		close(fds[0]);
		close(fds[3]);
		to_ = fds[1];
		from_ = fds[2];
	}
	Echo(const Echo &) = delete;
	Echo &operator=(const Echo &) = delete;
	~Echo()
	{
		close(to_);
		close(from_);
		waitpid(pid_, nullptr, 0);
	}

	void trip() const
	{
		char byte = 0;

		check(write(to_, &byte, 1) == 1 && read(from_, &byte, 1) == 1, "echo");
	}

private:
	int to_, from_;
	pid_t pid_;
};

// Two processes, a shared word, and nothing but futex() to wait with.
class FutexEcho {
public:
	FutexEcho()
		: word_(static_cast<std::atomic<std::uint32_t> *>(
			  mmap(nullptr, page_size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0)))
	{
		check(word_ != MAP_FAILED, "mmap");
		pid_ = fork();
		check(pid_ >= 0, "fork");
		if (!pid_) {
			while (await(0) == 1)
				put(0);
			_exit(0);
		}
	}
	FutexEcho(const FutexEcho &) = delete;
	FutexEcho &operator=(const FutexEcho &) = delete;
	~FutexEcho()
	{
		put(2);
		waitpid(pid_, nullptr, 0);
		munmap(word_, page_size);
	}

	void trip() const
	{
		put(1);
		await(1);
	}

private:
	void put(std::uint32_t value) const
	{
		word_->store(value);
		syscall(SYS_futex, word_, FUTEX_WAKE, 1, nullptr, nullptr, 0);
	}
	std::uint32_t await(std::uint32_t old) const
	{
		std::uint32_t value;

		while ((value = word_->load()) == old)
			syscall(SYS_futex, word_, FUTEX_WAIT, old, nullptr, nullptr, 0);
		return value;
	}

	std::atomic<std::uint32_t> *word_;
	pid_t pid_;
};

} // namespace bench

#endif // ORBIT_BENCH_ECHO_H
