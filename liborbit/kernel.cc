// SPDX-License-Identifier: MIT
//
// The backend that uses the system calls of a patched kernel.
#include "internal.h"

#include "syscall.h"

#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <fcntl.h>
#include <poll.h>
#include <stdio_ext.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

namespace liborbit {

namespace {

// ---- Probe ------------------------------------------------------------------

int fill_probe(orbit_probe_info *info, int err, const char *reason, const char *advice)
{
	info->backend = err ? "none" : "kernel";
	info->reason = reason;
	info->advice = advice;
	return err;
}

int probe(orbit_probe_info *info)
{
	orbit_info kernel{};
	const int err = sys_ctl(-1, ORBIT_CTL_QUERY, &kernel);

	if (err == -ENOSYS) {
#if !(defined(__x86_64__) && defined(__LP64__))
		return fill_probe(info, err, "Orbits exist on 64-bit x86 only.",
				  "Build and run the program for x86-64.");
#endif
		if (prctl(PR_GET_SECCOMP) == 2)
			return fill_probe(info, err,
					  "This kernel has no orbits, or a seccomp filter hides them.",
					  "Boot a kernel with the orbit patches and CONFIG_ORBIT=y; in a "
					  "container, let its seccomp profile pass system calls 548 to 552.");
		return fill_probe(info, err, "This kernel has no orbits.",
				  "Boot a kernel with the orbit patches and CONFIG_ORBIT=y.");
	}
	if (err == -EPERM || err == -EACCES)
		return fill_probe(info, err, "A filter refuses the system calls for orbits.",
				  "In a container or sandbox, let its seccomp profile pass system "
				  "calls 548 to 552.");
	if (err < 0)
		return fill_probe(info, err, "The kernel's answer about orbits is not understood.",
				  "Use a library and a kernel of the same orbit release.");

	info->abi = kernel.abi;
	info->max_pools = kernel.max_pools;
	info->max_arg = kernel.max_arg;
	info->features = kernel.features;
	if (kernel.abi < ORBIT_ABI)
		return fill_probe(info, -EPROTONOSUPPORT,
				  "The kernel's orbit interface is older than this library.",
				  "Boot a kernel with the orbit patches of this library's release.");
	if (kernel.abi > ORBIT_ABI)
		return fill_probe(info, -EPROTONOSUPPORT,
				  "The kernel's orbit interface is newer than this library.",
				  "Install the liborbit of the kernel's orbit release.");
	return fill_probe(info, 0, "The kernel has orbits.", "");
}

// ---- Pools ------------------------------------------------------------------

int pool_create(orbit_pool *pool, const char *name)
{
	orbit_pool_args args{};
	void *start = reinterpret_cast<void *>(pool->range.start);

	args.size = pool->range.bytes;
	std::strncpy(args.name, name, sizeof(args.name) - 1);
	pool->fd = sys_pool(&args);
	if (pool->fd < 0)
		return pool->fd;
	if (mmap(start, pool->range.bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, pool->fd,
		 0) == MAP_FAILED) {
		const int err = -errno;

		close(pool->fd);
		return err;
	}
	return 0;
}

void pool_destroy(orbit_pool *pool)
{
	close(pool->fd);
}

// ---- The process of an orbit --------------------------------------------------

// exit() in a task must not run what the main program registered for its own end.
void end_at_exit(int status, void *)
{
	_exit(status);
}

int by_number(const void *a, const void *b)
{
	const int x = *static_cast<const int *>(a);
	const int y = *static_cast<const int *>(b);

	return (x > y) - (x < y);
}

int close_all_but(const int *sorted, std::size_t count)
{
	unsigned next = 0;

	for (std::size_t i = 0; i < count; i++) {
		const auto keep = static_cast<unsigned>(sorted[i]);

		if (keep > next && close_range(next, keep - 1, 0))
			return -errno;
		next = keep + 1;
	}
	return close_range(next, ~0U, 0) ? -errno : 0;
}

// Memory that the main program shares with other processes is shared with this
// one too. It must not be able to write there.
int protect_shared_memory()
{
	FILE *maps = std::fopen("/proc/self/maps", "re");
	char *line = nullptr;
	std::size_t room = 0;
	int err = 0;

	if (!maps)
		return -errno;
	while (!err && getline(&line, &room, maps) > 0) {
		std::uintptr_t start, end;
		char may[5];

		if (std::sscanf(line, "%lx-%lx %4s", &start, &end, may) == 3 && may[1] == 'w' &&
		    may[3] == 's' && mprotect(reinterpret_cast<void *>(start), end - start, PROT_READ))
			err = -errno;
	}
	free(line);
	std::fclose(maps);
	return err;
}

// What the child does with itself before it becomes the orbit. The fork handler
// has reserved the window's holes again.
int prepare_orbit(const orbit_options *options, const int *fds, std::size_t nr_fds)
{
	const struct sigaction by_default = {};
	char comm[16]; // as long as the kernel keeps it

	for (int signal = 1; signal < NSIG; signal++)
		sigaction(signal, &by_default, nullptr); // fails for SIGKILL, SIGSTOP and libc's own
	setsid(); // group signals and the terminal's are for the main program
	std::snprintf(comm, sizeof(comm), "orbit:%s", options->name);
	prctl(PR_SET_NAME, comm);
	// An exec ends the orbit anyway; with this it gains nothing on the way.
	prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
	if (!(options->flags & ORBIT_KEEP_CORE)) {
		const rlimit none = {0, 0};

		setrlimit(RLIMIT_CORE, &none);
	}
	on_exit(end_at_exit, nullptr);
	__fpurge(stdout); // the main program prints what it has buffered
	if (const int err = protect_shared_memory())
		return err;
	return close_all_but(fds, nr_fds);
}

// The child reports an error by its exit status.
[[noreturn]] void become_orbit(int client, std::size_t arg_room, const orbit_options *options,
			       const int *fds, std::size_t nr_fds)
{
	orbit_attach_args attach{};
	sigset_t none;

	in_orbit = true;
	if (const int err = prepare_orbit(options, fds, nr_fds))
		_exit(-err);

	// Mapped, not allocated, for an orbit that corrupts its heap to fail in its
	// own code; and page-aligned, as promised to the task.
	void *arg = mmap(nullptr, arg_room, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (arg == MAP_FAILED)
		_exit(ENOMEM);

	const int server = sys_ctl(client, ORBIT_CTL_ATTACH, &attach);

	if (server < 0)
		_exit(-server);
	close(client);
	sigemptyset(&none);
	pthread_sigmask(SIG_SETMASK, &none, nullptr);
	serve(server, arg, arg_room);
}

// Wait until the child has attached, with which it ceases to be a child, or has
// died before it could.
int wait_until_attached(int client, pid_t child)
{
	pollfd fd = {client, POLLOUT, 0};
	int status = 0;
	pid_t waited;

	do {
		waited = waitpid(child, &status, 0);
	} while (waited < 0 && errno == EINTR);
	if (waited > 0)
		return WIFEXITED(status) && WEXITSTATUS(status) ? -WEXITSTATUS(status) : -ECHILD;

	// No child any more. It may still have died unattached, if the application
	// ignores SIGCHLD or waits for any child.
	while (poll(&fd, 1, 0) < 0)
		if (errno != EINTR && errno != EAGAIN)
			return -errno;
	return fd.revents == POLLOUT ? 0 : -ECHILD;
}

int fork_orbit(orbit_handle *orbit, const orbit_options *options)
{
	orbit_probe_info limits{};
	const std::size_t nr_fds = options->nr_keep_fds + 4;
	sigset_t all, before;

	if (const int err = probe(&limits))
		return err;

	int *fds = static_cast<int *>(calloc(nr_fds, sizeof(int)));

	if (!fds)
		return -ENOMEM;
	if (options->nr_keep_fds)
		std::memcpy(fds, options->keep_fds, options->nr_keep_fds * sizeof(int));
	for (int i = 0; i < 3; i++)
		fds[options->nr_keep_fds + static_cast<std::size_t>(i)] = i;
	fds[nr_fds - 1] = orbit->fd;
	qsort(fds, nr_fds, sizeof(int), by_number);

	// No handler of the application may run in the child.
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);

	const pid_t pid = fork();

	if (!pid)
		become_orbit(orbit->fd, limits.max_arg ? limits.max_arg : ORBIT_MAX_ARG, options, fds,
			     nr_fds);

	const int err = pid < 0 ? -errno : 0;

	pthread_sigmask(SIG_SETMASK, &before, nullptr);
	free(fds);
	return err ? err : wait_until_attached(orbit->fd, pid);
}

// ---- Orbits -------------------------------------------------------------------

void orbit_close(orbit_handle *orbit)
{
	close(orbit->fd);
}

int orbit_create(orbit_handle *orbit, const orbit_options *options)
{
	orbit_create_args args{};

	std::strncpy(args.name, options->name, sizeof(args.name) - 1);
	orbit->fd = sys_create(&args);
	if (orbit->fd < 0)
		return orbit->fd;

	const int err = fork_orbit(orbit, options);

	if (err)
		orbit_close(orbit);
	return err;
}

// A call that waits holds the orbit's file, and so does a forked child of the
// application: closing the descriptor would neither end the calls nor the orbit.
void orbit_kill(orbit_handle *orbit)
{
	sys_kill(orbit->fd);
}

// For a call that was refused because the orbit has ended: why it did.
void tell_cause(const orbit_handle *orbit, orbit_result *result)
{
	struct orbit_stat st {};

	if (sys_ctl(orbit->fd, ORBIT_CTL_STAT, &st))
		return;
	result->cause = st.cause;
	result->code = st.code;
	result->fault_addr = st.fault_addr;
}

int call(orbit_handle *orbit, orbit_entry fn, const void *arg, std::size_t arg_size,
	 const orbit_call_options *options, orbit_outcome *out)
{
	constexpr std::size_t few = 16;
	orbit_pool_ref on_stack[few], *refs = on_stack;
	orbit_result result{};
	orbit_call_args args{};
	int err;

	if (options->nr_pools > few) {
		refs = static_cast<orbit_pool_ref *>(malloc(options->nr_pools * sizeof(*refs)));
		if (!refs)
			return -ENOMEM;
	}
	for (std::size_t i = 0; i < options->nr_pools; i++) {
		refs[i] = {};
		refs[i].fd = options->pools[i]->fd;
	}
	args.task = options->resume;
	args.entry = reinterpret_cast<std::uintptr_t>(fn);
	args.arg = reinterpret_cast<std::uintptr_t>(arg);
	args.arg_size = arg_size;
	args.pools = reinterpret_cast<std::uintptr_t>(refs);
	args.nr_pools = static_cast<__u32>(options->nr_pools);
	args.time_limit_ns = options->time_limit_ns;
	args.result = reinterpret_cast<std::uintptr_t>(&result);
	args.result_size = sizeof(result);
	do {
		err = sys_call(orbit->fd, &args); // args.task now names the task
	} while (err == -EINTR && !(options->flags & ORBIT_CALL_INTERRUPTIBLE));

	if (refs != on_stack)
		free(refs);
	if (err == -ESHUTDOWN)
		tell_cause(orbit, &result);
	out->task = err == -EINTR ? args.task : result.task;
	out->value = err ? 0 : result.value;
	out->cause = result.cause;
	out->code = result.code;
	out->fault_addr = result.fault_addr;
	return err;
}

int stat(const orbit_handle *orbit, struct orbit_stat *out)
{
	return sys_ctl(orbit->fd, ORBIT_CTL_STAT, out);
}

} // namespace

const Backend kernel_backend = {
	.name = "kernel",
	.probe = probe,
	.pool_create = pool_create,
	.pool_destroy = pool_destroy,
	.orbit_create = orbit_create,
	.orbit_kill = orbit_kill,
	.orbit_close = orbit_close,
	.call = call,
	.stat = stat,
};

} // namespace liborbit
