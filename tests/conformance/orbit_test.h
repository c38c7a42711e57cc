// SPDX-License-Identifier: MIT
//
// What the conformance tests share. They need a system with orbits; elsewhere
// they fail, for a suite that skips itself proves nothing.
#ifndef ORBIT_TEST_H
#define ORBIT_TEST_H

#include <orbit/orbit.hpp>

#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <dirent.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <stdexcept>
#include <string_view>
#include <sys/wait.h>
#include <thread>
#include <unistd.h>
#include <utility>

using namespace std::chrono_literals;

constexpr std::size_t page = 4096;

// Long enough for an emulated processor; reached only when something hangs.
constexpr auto patience = 20s;

template <class T> T value_or_throw(orbit::expected<T> &&got)
{
	if (!got)
		throw std::runtime_error(got.error().message());
	return std::move(*got);
}

// The patched kernel, unless the environment names another backend: what works somehow, by the
// other one, must not pass for it.
inline const bool backend_chosen = getenv("ORBIT_BACKEND") || !orbit_use_backend("kernel");

// What carries orbits here. A few tests are about what only one backend promises: each asks,
// skips with a reason, and is in the table of ARCHITECTURE.md, "The portable backend".
inline bool has_feature(std::uint64_t feature)
{
	return (orbit::probe().features & feature) == feature;
}

inline bool is_kernel_backend()
{
	return std::string_view(orbit::probe().backend) == "kernel";
}

#define KERNEL_BACKEND_ONLY(reason)                    \
	if (!is_kernel_backend()) {                    \
		GTEST_SKIP() << "portable: " << reason; \
	}                                              \
	static_assert(true)

#define NEEDS_FEATURE(feature)                                      \
	if (!has_feature(feature)) {                                \
		GTEST_SKIP() << "this backend lacks " << #feature; \
	}                                                           \
	static_assert(true)

inline orbit::Orbit make_orbit(const orbit::Options &options = {})
{
	return value_or_throw(orbit::Orbit::create(options));
}

inline orbit::Pool make_pool(std::size_t bytes)
{
	return value_or_throw(orbit::Pool::create(bytes));
}

inline pid_t pid_of(const orbit::Orbit &orbit)
{
	return value_or_throw(orbit.stat()).pid;
}

template <class Condition> bool eventually(Condition condition)
{
	const auto deadline = std::chrono::steady_clock::now() + patience;

	while (!condition()) {
		if (std::chrono::steady_clock::now() > deadline)
			return false;
		std::this_thread::sleep_for(1ms);
	}
	return true;
}

// For a task: another program takes its place, which tells nothing before it is killed: what it
// printed would stand among the results.
inline void exec_silently()
{
	close(STDOUT_FILENO);
	execl("/proc/self/exe", "x", "--gtest_filter=None", nullptr);
}

// A zombie still is there for kill().
inline bool gone(pid_t pid)
{
	return eventually([pid] { return kill(pid, 0) < 0 && errno == ESRCH; });
}

inline std::size_t open_descriptors()
{
	DIR *dir = opendir("/proc/self/fd");
	std::size_t count = 0;

	if (!dir)
		throw std::runtime_error("/proc/self/fd");
	while (readdir(dir))
		count++;
	closedir(dir);
	return count;
}

struct Pipe {
	int read_end = -1, write_end = -1;

	Pipe()
	{
		int fds[2];

		if (pipe(fds))
			throw std::runtime_error("pipe");
		read_end = fds[0];
		write_end = fds[1];
	}
	Pipe(const Pipe &) = delete;
	~Pipe()
	{
		close(read_end);
		close_write();
	}
	void close_write()
	{
		if (write_end >= 0)
			close(write_end);
		write_end = -1;
	}
	template <class T> void put(const T &value) const
	{
		if (write(write_end, &value, sizeof(value)) != sizeof(value))
			throw std::runtime_error("write to a pipe");
	}
	// false at the end of the pipe, or if nothing comes.
	template <class T> bool get(T &value) const
	{
		pollfd fd = {read_end, POLLIN, 0};

		return poll(&fd, 1, static_cast<int>(std::chrono::milliseconds(patience).count())) == 1 &&
		       read(read_end, &value, sizeof(value)) == sizeof(value);
	}
	bool at_end() const
	{
		pollfd fd = {read_end, POLLIN, 0};
		char byte;

		return poll(&fd, 1, static_cast<int>(std::chrono::milliseconds(patience).count())) == 1 &&
		       read(read_end, &byte, 1) == 0;
	}
};

// A process of its own that plays the main program; killed and reaped at the end.
class OtherMain {
public:
	template <class F> explicit OtherMain(F body) : pid_(fork())
	{
		if (pid_)
			return;

		int status = 99;

		try {
			status = body();
		} catch (const std::exception &error) {
			dprintf(2, "other main program: %s\n", error.what());
		}
		_exit(status);
	}
	OtherMain(const OtherMain &) = delete;
	~OtherMain()
	{
		if (pid_ > 0) {
			::kill(pid_, SIGKILL);
			waitpid(pid_, nullptr, 0);
		}
	}
	pid_t pid() const { return pid_; }
	void kill() const { ::kill(pid_, SIGKILL); }
	// The status as of waitpid(), or -1 if it does not end.
	int wait()
	{
		int status = -1;

		if (!eventually([&] { return waitpid(pid_, &status, WNOHANG) == pid_; }))
			return -1;
		pid_ = -1;
		return status;
	}

private:
	pid_t pid_;
};

#endif // ORBIT_TEST_H
