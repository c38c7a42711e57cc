// SPDX-License-Identifier: MIT
//
// The system calls of <orbit/abi.h>, returning 0 (or a result) or -errno.
#ifndef LIBORBIT_SYSCALL_H
#define LIBORBIT_SYSCALL_H

#include <orbit/orbit.h>

#include <cerrno>
#include <cstddef>
#include <unistd.h>

namespace liborbit {

#if defined(__x86_64__) && defined(__LP64__)
enum {
	NR_orbit_create = 548,
	NR_orbit_pool = 549,
	NR_orbit_call = 550,
	NR_orbit_return = 551,
	NR_orbit_ctl = 552,
};

template <class... Args> int orbit_syscall(long number, Args... args)
{
	const long result = ::syscall(number, args...);

	return result < 0 ? -errno : static_cast<int>(result);
}
#else // No other architecture has numbers for them.
enum { NR_orbit_create, NR_orbit_pool, NR_orbit_call, NR_orbit_return, NR_orbit_ctl };

template <class... Args> int orbit_syscall(long, Args...)
{
	return -ENOSYS;
}
#endif

inline int sys_create(orbit_create_args *args)
{
	return orbit_syscall(NR_orbit_create, args, sizeof(*args));
}

inline int sys_pool(orbit_pool_args *args)
{
	return orbit_syscall(NR_orbit_pool, args, sizeof(*args));
}

inline int sys_call(int fd, orbit_call_args *args)
{
	return orbit_syscall(NR_orbit_call, fd, args, sizeof(*args));
}

inline int sys_return(int fd, orbit_return_args *args)
{
	return orbit_syscall(NR_orbit_return, fd, args, sizeof(*args));
}

template <class T> int sys_ctl(int fd, orbit_ctl_op op, T *arg)
{
	return orbit_syscall(NR_orbit_ctl, fd, static_cast<int>(op), arg, sizeof(*arg));
}

inline int sys_kill(int fd)
{
	return orbit_syscall(NR_orbit_ctl, fd, static_cast<int>(ORBIT_CTL_KILL), nullptr, std::size_t{0});
}

} // namespace liborbit

#endif // LIBORBIT_SYSCALL_H
