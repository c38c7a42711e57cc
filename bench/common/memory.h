// SPDX-License-Identifier: MIT
//
// Memory that is no pool, and processes that have it too: what orbits are compared with.
#ifndef ORBIT_BENCH_MEMORY_H
#define ORBIT_BENCH_MEMORY_H

#include "bench.h"

#include <array>
#include <cerrno>
#include <cstdlib>
#include <fstream>
#include <string>
#include <string_view>
#include <utility>

#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

namespace bench {

// Memory of this process alone, every page of it in use.
class Heap {
public:
	explicit Heap(std::size_t bytes, bool touch = true) : bytes_(bytes)
	{
		if (!bytes)
			return;
		data_ = static_cast<std::byte *>(mmap(nullptr, bytes, PROT_READ | PROT_WRITE,
						      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
		check(data_ != MAP_FAILED, "mmap");
		if (touch)
			write_pages(data_, bytes / page_size, page_size, 1);
	}
	Heap(Heap &&other) noexcept
		: bytes_(std::exchange(other.bytes_, 0)), data_(std::exchange(other.data_, nullptr))
	{
	}
	Heap &operator=(Heap &&) = delete;
	~Heap()
	{
		if (bytes_)
			munmap(data_, bytes_);
	}

	std::byte *data() const { return data_; }
	std::size_t size() const { return bytes_; }

private:
	std::size_t bytes_;
	std::byte *data_ = nullptr;
};

inline std::shared_ptr<Heap> shared_heap(std::size_t bytes)
{
	return shared<Heap>("heap " + bytes_text(bytes), [bytes] { return Heap(bytes); });
}

// Whether orbits are carried by processes and copies here.
inline bool is_portable()
{
	return std::string_view(orbit::probe().backend) == "portable";
}

inline std::shared_ptr<PoolAndOrbit> shared_pool(std::size_t bytes)
{
	return shared<PoolAndOrbit>("pool " + bytes_text(bytes), [bytes] { return make_pool_and_orbit(bytes); });
}

// For a call with a pool of this size. The portable backend looks through all of it.
inline unsigned samples_of(std::size_t pool)
{
	return pool > GiB ? 4 : pool > 256 * MiB ? 20 : pool > 16 * MiB ? 60 : 300;
}

// A pipe; what has been given away is not closed again.
class Pipe {
public:
	Pipe() { check(!pipe(fds_.data()), "pipe"); }
	Pipe(const Pipe &) = delete;
	Pipe &operator=(const Pipe &) = delete;
	~Pipe()
	{
		close_read();
		close_write();
	}

	int read_end() const { return fds_[0]; }
	int write_end() const { return fds_[1]; }
	void close_read() { shut(fds_[0]); }
	void close_write() { shut(fds_[1]); }
	void put() const { check(write(fds_[1], "x", 1) == 1, "write to a pipe"); }
	// Whether there is a byte before the end.
	bool get() const { return read_byte(fds_[0]); }
	static bool read_byte(int fd)
	{
		char byte;

		return read(fd, &byte, 1) == 1;
	}

private:
	static void shut(int &fd)
	{
		if (fd >= 0)
			close(std::exchange(fd, -1));
	}

	std::array<int, 2> fds_;
};

inline void wait_for(pid_t pid)
{
	int status = 0;

	check(pid > 0 && waitpid(pid, &status, 0) == pid && WIFEXITED(status) && !WEXITSTATUS(status),
	      "a process that ends well");
}

// A forked child that does nothing until it is told to end.
class Child {
public:
	Child() : pid_(fork())
	{
		check(pid_ >= 0, "fork");
		if (!pid_) {
			until_.close_write();
			_exit(until_.get());
		}
		until_.close_read();
	}
	~Child()
	{
		until_.close_write();
		wait_for(pid_);
	}

private:
	Pipe until_;
	pid_t pid_;
};

// What this process and those that it makes from now on take of memory, the kernel's own for
// them included: in KiB, exact to 256 KiB. Only in a guest, for it makes a cgroup.
// (Free memory would not do: the kernel keeps many free pages aside for each processor.)
inline double used_kib()
{
	static const bool inside = [] {
		const char *const group = "/sys/fs/cgroup/bench";

		if (mkdir(group, 0755) && errno != EEXIST)
			return false;
		std::ofstream processes(std::string(group) + "/cgroup.procs");
		return static_cast<bool>(processes << getpid() << std::flush);
	}();

	check(inside, "a memory cgroup is needed");
	return std::strtod(line_of("/sys/fs/cgroup/bench/memory.current").c_str(), nullptr) / KiB;
}

// Waits until processes that have ended have given their memory back.
inline void settle()
{
	if (!counted()) {
		usleep(200000);
		return;
	}
	for (double before = -1, after = used_kib(); before != after; after = used_kib()) {
		before = after;
		usleep(300000);
	}
}

} // namespace bench

#endif // ORBIT_BENCH_MEMORY_H
