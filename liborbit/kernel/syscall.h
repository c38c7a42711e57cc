// SPDX-License-Identifier: MIT
//
// The system calls of <orbit/abi.h>, returning 0 (or a result) or -errno.
#ifndef LIBORBIT_KERNEL_SYSCALL_H
#define LIBORBIT_KERNEL_SYSCALL_H

#include <orbit/orbit.h>

#include <cerrno>
#include <cstddef>

namespace liborbit {

#if defined(__x86_64__) && defined(__LP64__)
enum {
	NR_orbit_create = 548,
	NR_orbit_pool = 549,
	NR_orbit_call = 550,
	NR_orbit_return = 551,
	NR_orbit_ctl = 552,
	NR_orbit_send = 553,
	NR_orbit_recv = 554,
	NR_orbit_cancel = 555,
};

// In line: syscall(2) moves its arguments about, and takes errno, which we do not want.
template <class A, class B, class C = long, class D = long>
int orbit_syscall(long number, A a, B b, C c = {}, D d = {})
{
	long result;

	asm volatile("mov %5, %%r10\n\tsyscall"
		     : "=a"(result)
		     : "a"(number), "D"(a), "S"(b), "d"(c), "g"(d)
		     : "rcx", "r10", "r11", "memory");
	return static_cast<int>(result);
}
#else // No other architecture has numbers for them.
enum {
	NR_orbit_create,
	NR_orbit_pool,
	NR_orbit_call,
	NR_orbit_return,
	NR_orbit_ctl,
	NR_orbit_send,
	NR_orbit_recv,
	NR_orbit_cancel,
};

template <class... Args> int orbit_syscall(long, Args...)
{
	return -ENOSYS;
}
#endif

// Until it is not interrupted by a signal.
template <class Do> int repeat(Do call)
{
	int got;

	do {
		got = call();
	} while (got == -EINTR);
	return got;
}

inline int sys_create(orbit_create_args *args)
{
	return repeat([=] { return orbit_syscall(NR_orbit_create, args, sizeof(*args)); });
}

inline int sys_pool(orbit_pool_args *args)
{
	return repeat([=] { return orbit_syscall(NR_orbit_pool, args, sizeof(*args)); });
}

inline int sys_call(int fd, orbit_call_args *args)
{
	return orbit_syscall(NR_orbit_call, fd, args, sizeof(*args));
}

inline int sys_return(int fd, orbit_return_args *args)
{
	return orbit_syscall(NR_orbit_return, fd, args, sizeof(*args));
}

inline int sys_send(int fd, const orbit_send_args *args)
{
	return orbit_syscall(NR_orbit_send, fd, args, sizeof(*args));
}

inline int sys_recv(int fd, orbit_recv_args *args)
{
	return orbit_syscall(NR_orbit_recv, fd, args, sizeof(*args));
}

inline int sys_cancel(int fd, orbit_cancel_args *args)
{
	return orbit_syscall(NR_orbit_cancel, fd, args, sizeof(*args));
}

template <class T> int sys_ctl(int fd, orbit_ctl_op op, T *arg)
{
	return orbit_syscall(NR_orbit_ctl, fd, static_cast<int>(op), arg, sizeof(*arg));
}

// For the operations that take no argument.
inline int sys_ctl(int fd, orbit_ctl_op op)
{
	return orbit_syscall(NR_orbit_ctl, fd, static_cast<int>(op), nullptr, std::size_t{0});
}

} // namespace liborbit

#endif // LIBORBIT_KERNEL_SYSCALL_H
