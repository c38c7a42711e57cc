// SPDX-License-Identifier: MIT
//
// The bare system calls, and the least that it takes to make pools and orbits with
// them: for programs that try the kernel hard, without the library between.
#ifndef ORBIT_TESTS_RAW_H
#define ORBIT_TESTS_RAW_H

#include <orbit/abi.h>

#include <cerrno>
#include <climits>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <ctime>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

namespace raw {

using u64 = std::uint64_t;
using u32 = std::uint32_t;

constexpr std::size_t page = 4096;

// The same in the arguments: addresses go to the kernel as numbers.
inline u64 number(const volatile void *address)
{
	return reinterpret_cast<std::uintptr_t>(address);
}

inline u64 now_ns()
{
	timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return static_cast<u64>(time.tv_sec) * 1000000000 + static_cast<u64>(time.tv_nsec);
}

inline void sleep_us(u64 us)
{
	timespec time = {static_cast<time_t>(us / 1000000), static_cast<long>(us % 1000000 * 1000)};

	nanosleep(&time, nullptr);
}

// The finalizer of splitmix64: every bit of the input moves every bit of the output.
inline u64 mix(u64 x)
{
	x += 0x9e3779b97f4a7c15;
	x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9;
	x = (x ^ (x >> 27)) * 0x94d049bb133111eb;
	return x ^ (x >> 31);
}

class Rng {
public:
	explicit Rng(u64 seed) : state_(mix(seed)) {}
	u64 next() { return mix(state_ += 0x9e3779b97f4a7c15); }
	u64 below(u64 bound) { return bound ? next() % bound : 0; }
	u64 range(u64 first, u64 last) { return first + below(last - first + 1); }
	bool one_in(u64 n) { return below(n) == 0; }
	template <class T, std::size_t N> T pick(const T (&list)[N]) { return list[below(N)]; }

private:
	u64 state_;
};

// ---- System calls: a result, or -errno ---------------------------------------

enum {
	NR_create = 548,
	NR_pool,
	NR_call,
	NR_return,
	NR_ctl,
	NR_send,
	NR_recv,
	NR_cancel,
};

template <class... Args> long sys(long number, Args... args)
{
	const long result = syscall(number, args...);

	return result < 0 ? -errno : result;
}

inline int create(const orbit_create_args &args)
{
	return static_cast<int>(sys(NR_create, &args, sizeof(args)));
}

inline int pool(const orbit_pool_args &args)
{
	return static_cast<int>(sys(NR_pool, &args, sizeof(args)));
}

inline int call(int fd, orbit_call_args &args)
{
	return static_cast<int>(sys(NR_call, fd, &args, sizeof(args)));
}

inline int give_back(int fd, orbit_return_args &args)
{
	return static_cast<int>(sys(NR_return, fd, &args, sizeof(args)));
}

inline int send(int fd, const orbit_send_args &args)
{
	return static_cast<int>(sys(NR_send, fd, &args, sizeof(args)));
}

inline int recv(int fd, orbit_recv_args &args)
{
	return static_cast<int>(sys(NR_recv, fd, &args, sizeof(args)));
}

inline int cancel(int fd, orbit_cancel_args &args)
{
	return static_cast<int>(sys(NR_cancel, fd, &args, sizeof(args)));
}

template <class T> int ctl(int fd, orbit_ctl_op op, T &arg)
{
	return static_cast<int>(sys(NR_ctl, fd, static_cast<int>(op), &arg, sizeof(arg)));
}

inline int ctl(int fd, orbit_ctl_op op)
{
	return static_cast<int>(sys(NR_ctl, fd, static_cast<int>(op), nullptr, std::size_t{0}));
}

inline orbit_info query()
{
	orbit_info info = {};

	if (ctl(-1, ORBIT_CTL_QUERY, info) < 0)
		info = {};
	return info;
}

// ---- The window ----------------------------------------------------------------

// Addresses for pools, in rooms of one size, that orbits keep free as well.
struct Window {
	static constexpr std::size_t room = std::size_t{4} << 20;
	static constexpr unsigned rooms = 64;

	char *base = nullptr;

	bool reserve()
	{
		void *at = mmap(base, room * rooms, PROT_NONE,
				MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | (base ? MAP_FIXED : 0), -1, 0);

		if (at == MAP_FAILED)
			return false;
		base = static_cast<char *>(at);
		return true;
	}
	char *at(unsigned number) const { return base + number * room; }
	// In one step: an unmapped range could be anybody's the next moment.
	bool clear(unsigned number, std::size_t bytes) const
	{
		return mmap(at(number), bytes, PROT_NONE,
			    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1,
			    0) != MAP_FAILED;
	}
};

inline bool map_pool(int fd, char *at, std::size_t bytes)
{
	return mmap(at, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd, 0) != MAP_FAILED;
}

inline int make_pool(std::size_t bytes)
{
	orbit_pool_args args = {};

	args.size = bytes;
	std::strcpy(args.name, "raw");
	return pool(args);
}

// ---- Processes -------------------------------------------------------------------

inline void close_all_but(unsigned a, unsigned b)
{
	const unsigned low = a < b ? a : b, high = a < b ? b : a;

	if (low > 3)
		close_range(3, low - 1, 0);
	if (high > low + 1)
		close_range(low + 1, high - 1, 0);
	close_range(high + 1, ~0U, 0);
}

// Forks a process that runs @body with its descriptor after it has become the orbit
// of @fd, or with ORBIT_CTL_TEMPLATE its template.  It has the name @name, by which it
// can be found in /proc.  Returns 0 or -errno.
template <class Body>
int start(int fd, Window &window, orbit_ctl_op how, const char *name, Body body)
{
	int ready[2];

	if (pipe2(ready, O_CLOEXEC))
		return -errno;

	const pid_t pid = fork();

	if (pid < 0) {
		const int err = -errno;

		close(ready[0]);
		close(ready[1]);
		return err;
	}
	if (!pid) {
		orbit_attach_args attach = {};

		prctl(PR_SET_NAME, name);
		close_all_but(static_cast<unsigned>(fd), static_cast<unsigned>(ready[1]));

		const int server = window.reserve() ? ctl(fd, how, attach) : -ENOMEM;

		close(fd);
		if (write(ready[1], &server, sizeof(server)) != sizeof(server) || server < 0)
			_exit(100);
		close(ready[1]);
		body(server);
		_exit(0);
	}
	close(ready[1]);

	int answer = -ECHILD;
	ssize_t got;

	do
		got = read(ready[0], &answer, sizeof(answer));
	while (got < 0 && errno == EINTR);
	close(ready[0]);
	if (got != sizeof(answer))
		answer = -ECHILD;
	if (answer >= 0)
		return 0;
	// It is a child still if it has not attached.
	while (waitpid(pid, nullptr, 0) < 0 && errno == EINTR)
		;
	return answer;
}

// The life of an orbit's template: a fresh process whenever the orbit needs one.  It runs
// @serve with the descriptor for orbit_return().
template <class Serve> [[noreturn]] void be_template(int fd, Serve serve)
{
	for (;;) {
		const int err = ctl(fd, ORBIT_CTL_AWAIT);

		if (err == -EINTR)
			continue;
		if (err < 0)
			_exit(0);

		const pid_t pid = fork();

		if (!pid) {
			orbit_attach_args attach = {};
			const int server = ctl(fd, ORBIT_CTL_ATTACH, attach);

			close(fd);
			if (server >= 0)
				serve(server);
			_exit(95);
		}
		// Until it has attached, and so is no child any more, or has failed to.  Who asks
		// sooner is told again.
		while (pid > 0 && waitpid(pid, nullptr, 0) < 0 && errno == EINTR)
			;
	}
}

} // namespace raw

#endif // ORBIT_TESTS_RAW_H
