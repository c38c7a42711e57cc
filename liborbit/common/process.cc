// SPDX-License-Identifier: MIT
#include "process.h"

#include "descriptors.h"
#include "../internal.h"
#include "fork_copy.h"
#include "refusals.h"
#include "sharing.h"
#include "signals.h"
#include "../kernel/syscall.h"
#include "../portable/fork_server.h"

#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <dirent.h>
#include <fcntl.h>
#include <initializer_list>
#include <poll.h>
#include <sched.h>
#include <stdio_ext.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/single_threaded.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <ucontext.h>
#include <unistd.h>

// There if the program runs under AddressSanitizer, however the library was compiled.
extern "C" [[gnu::weak]] void __sanitizer_start_switch_fiber(void **, const void *, size_t);
extern "C" [[gnu::weak]] void __sanitizer_finish_switch_fiber(void *, const void **, size_t *);

namespace liborbit {

namespace {

// Of the process of an orbit.
ORBIT_STATE bool threads_may_stay, small_stack;
ORBIT_STATE nlink_t alone; // links of /proc/self/task when there is one thread; 0 if nobody tells

// exit() in a task must not run what the main program registered for its own end.
void end_at_exit(int status, void *)
{
	fflush(stdout);
	_exit(status);
}

// One for each thread, and two. 0 if nobody tells.
nlink_t count_task_links()
{
	struct stat st {};

	return stat("/proc/self/task", &st) ? 0 : st.st_nlink;
}

// What the kernel is asked at the end of each task. It refuses to unshare what threads share as long as there are others,
// and otherwise does nothing: 4,700 instructions less than to count them, beside 6,500 of a call. A filter might end the
// process for it. False if it cannot be told so.
bool is_surely_alone()
{
	return !is_filtered() && !unshare(CLONE_THREAD);
}

int by_number(const void *a, const void *b)
{
	const int x = *static_cast<const int *>(a);
	const int y = *static_cast<const int *>(b);

	return (x > y) - (x < y);
}

// Where a filter refuses the system call.
int close_one_by_one(unsigned first, unsigned last)
{
	DIR *const dir = opendir("/proc/self/fd");

	if (!dir) {
		rlimit limit;

		// As far as there can be any, unless the limit was lowered.
		if (getrlimit(RLIMIT_NOFILE, &limit))
			return -errno;
		for (unsigned fd = first; fd <= last && fd < limit.rlim_max && fd < 1U << 20; fd++)
			close(static_cast<int>(fd));
		return 0;
	}
	while (const dirent *entry = readdir(dir)) {
		const auto fd = static_cast<unsigned>(atoi(entry->d_name));

		if (*entry->d_name != '.' && fd >= first && fd <= last && static_cast<int>(fd) != dirfd(dir))
			close(static_cast<int>(fd));
	}
	closedir(dir);
	return 0;
}

int close_from_to(unsigned first, unsigned last)
{
	return close_range(first, last, 0) ? close_one_by_one(first, last) : 0;
}

int close_all_but(int *fds, std::size_t count)
{
	unsigned next = 0;

	qsort(fds, count, sizeof(int), by_number);
	for (std::size_t i = 0; i < count; i++) {
		const auto keep = static_cast<unsigned>(fds[i]);

		if (keep > next)
			if (const int err = close_from_to(next, keep - 1))
				return err;
		next = keep + 1;
	}
	return close_from_to(next, ~0U);
}

// What stand_alone() looks for among the mappings.
struct Stack {
	std::uintptr_t here; // an address on it
	bool grows;	     // the one that the program began with
};

// Memory that the main program shares with other processes is shared with this
// one too. It must not be able to write there.
int protect_shared_memory(Stack *stack)
{
	return for_each_mapping(
		[](void *user, const Mapping &mapping) {
			auto *const found = static_cast<Stack *>(user);
			void *start = reinterpret_cast<void *>(mapping.start);

			if (found->here >= mapping.start && found->here < mapping.end)
				found->grows = !std::strcmp(mapping.name, "[stack]");
			if (!mapping.writable || !mapping.shared)
				return 0;
			return mprotect(start, mapping.end - mapping.start, PROT_READ) ? -errno : 0;
		},
		stack);
}

std::size_t usual_stack()
{
	constexpr std::size_t usual = 8 << 20, most = 64 << 20;
	rlimit limit = {usual, usual};

	getrlimit(RLIMIT_STACK, &limit);
	return whole_pages(limit.rlim_cur < most ? limit.rlim_cur : usual);
}

// Whether a thread's stack has much less room than a program's.
bool is_small(const Stack &stack)
{
	pthread_attr_t attr;
	void *start = nullptr;
	std::size_t bytes = 0;

	if (stack.grows || pthread_getattr_np(pthread_self(), &attr))
		return false;
	pthread_attr_getstack(&attr, &start, &bytes);
	pthread_attr_destroy(&attr);

	const std::uintptr_t left = stack.here - reinterpret_cast<std::uintptr_t>(start);

	// Where it is another stack than the C library thinks, the library has made it.
	return left < bytes && left < usual_stack() / 4 * 3;
}

// Where Yama lets a process be traced by its ancestors only, the main program has to be
// named: whoever has attached is no child of it any more. Each process says so for itself.
void let_main_trace(pid_t main)
{
	prctl(PR_SET_PTRACER, static_cast<unsigned long>(main), 0, 0, 0);
}

// The orbit or template is told by another descriptor than it was called on, which
// then is of no more use.
int attach(int fd, orbit_ctl_op op)
{
	orbit_attach_args args{};
	const int attached = repeat([&] { return sys_ctl(fd, op, &args); });

	if (attached >= 0)
		close(fd);
	return attached;
}

// ---- The stack of tasks

struct StackSwitch {
	int (*fn)(void *user);
	void *user;
	void *stack;
	std::size_t bytes;
	ucontext_t context;
};

ORBIT_STATE StackSwitch *stack_switch;

void run_switched()
{
	if (__sanitizer_finish_switch_fiber)
		__sanitizer_finish_switch_fiber(nullptr, nullptr, nullptr);
	_exit(-stack_switch->fn(stack_switch->user));
}

// ---- The process of an orbit

struct Serving {
	int fd; // the orbit's or its template's
	const Birth *birth;
};

int attach_and_serve(void *user)
{
	const auto [fd, birth] = *static_cast<const Serving *>(user);
	const std::size_t arg_room = birth->arg_room;
	sigset_t none;

	// Mapped, not allocated, for an orbit that corrupts its heap to fail in its
	// own code; and page-aligned, as promised to the task.
	void *arg = mmap(nullptr, arg_room, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (arg == MAP_FAILED)
		return -errno;

	if (const int err = begin_sharing(*birth))
		return err;
	let_main_trace(birth->main);

	const int server = attach(fd, ORBIT_CTL_ATTACH);

	if (server < 0)
		return server;
	sigemptyset(&none);
	pthread_sigmask(SIG_SETMASK, &none, nullptr);
	serve(try_lift(server), arg, arg_room);
}

void sleep_us(long us)
{
	const timespec time = {0, us * 1000};

	nanosleep(&time, nullptr);
}

// One process for the orbit. A shortage passes: that is waited for, but not when the orbit is made.
int spawn_server(int template_fd, const Birth &birth, bool first)
{
	const long patience_ms = first ? 800 : 20'000, longest_ms = 100;
	Serving serving = {template_fd, &birth};
	long waited_ms = 0;
	int err = 0;

	for (long pause_ms = 1; waited_ms < patience_ms; waited_ms += pause_ms) {
		// Nothing here runs besides, so there is nothing for fork handlers to
		// do: they have run when this process was made.
		const pid_t pid = _Fork();

		if (!pid) {
			setsid(); // a task's signals to its process group do not reach the template
			_exit(-run_on_task_stack(attach_and_serve, &serving));
		}
		err = pid < 0 ? -errno : wait_until_left(pid);
		if (err != -EAGAIN && err != -ENOMEM && (err != -ECHILD || waited_ms > 800))
			break;
		pause_ms = pause_ms * 2 < longest_ms ? pause_ms * 2 : longest_ms;
		sleep_us(pause_ms * 1000);
	}
	// While it was tried, the orbit may have come to its end.
	return err == -EBUSY ? 0 : err;
}

int become_template(const Birth &birth)
{
	let_main_trace(birth.main);

	const int fd = attach(birth.client, ORBIT_CTL_TEMPLATE);
	int err = fd < 0 ? fd : 0;

	for (bool first = true; !err;) {
		err = sys_ctl(fd, ORBIT_CTL_AWAIT);
		if (!err) {
			err = spawn_server(fd, birth, first);
			first = false;
		} else if (err == -EINTR) {
			err = 0;
		}
	}
	return err;
}

} // namespace

int try_lift(int fd)
{
	const int moved = fd >= 0 && fd < 3 ? fcntl(fd, F_DUPFD_CLOEXEC, 3) : -1;

	if (moved < 0)
		return fd;

	const NotCancelled whole; // close() is a cancellation point

	close(fd);
	return moved;
}

int lift(int fd)
{
	const int moved = try_lift(fd);

	if (moved < 0 || moved > 2)
		return note_descriptor(moved);

	const int err = errno == EINVAL ? EMFILE : errno; // only so few are allowed

	close(moved);
	errno = err;
	return -err;
}

int make_sockets(int type, int *sockets)
{
	if (socketpair(AF_UNIX, type | SOCK_CLOEXEC, 0, sockets))
		return -errno;
	for (int i = 0; i < 2; i++) {
		sockets[i] = lift(sockets[i]);
		if (sockets[i] < 0) {
			const int err = sockets[i];

			close(sockets[!i]);
			return err;
		}
	}
	return 0;
}

int choose_fds(Birth *birth, const orbit_options *options)
{
	const bool minimal = options->inherit == ORBIT_INHERIT_MINIMAL;

	birth->fds = static_cast<int *>(calloc(options->nr_keep_fds + 7, sizeof(int)));
	if (!birth->fds)
		return -ENOMEM;
	// From the zygote it gets those that are open, and its client besides; a forked child has
	// what there is.
	for (int fd = 0; fd < 3; fd++)
		if (!minimal || (fd != birth->client && fd != birth->owner && fcntl(fd, F_GETFD) >= 0))
			birth->fds[birth->nr_fds++] = fd;
	for (std::size_t i = 0; i < options->nr_keep_fds; i++)
		birth->fds[birth->nr_fds++] = options->keep_fds[i];
	if (!minimal)
		birth->fds[birth->nr_fds++] = birth->client;
	for (const int fd : {birth->owner, birth->shared, birth->shared_page})
		if (fd >= 0)
			birth->fds[birth->nr_fds++] = fd;
	return 0;
}

int for_each_mapping(int (*fn)(void *user, const Mapping &mapping), void *user)
{
	std::FILE *maps = std::fopen("/proc/self/maps", "re");
	char *line = nullptr;
	std::size_t room = 0;
	int err = 0;

	if (!maps)
		return -errno;
	while (!err && getline(&line, &room, maps) > 0) {
		Mapping mapping{};
		char may[5], name[16] = "";

		if (std::sscanf(line, "%lx-%lx %4s %*s %*s %*s %15s", &mapping.start, &mapping.end, may,
				name) < 3)
			continue;
		mapping.readable = may[0] == 'r';
		mapping.writable = may[1] == 'w';
		mapping.shared = may[3] == 's';
		mapping.name = name;
		err = fn(user, mapping);
	}
	free(line);
	std::fclose(maps);
	return err;
}

// The fork handler has reserved the window's holes again.
int stand_alone(const Birth &birth)
{
	const struct sigaction by_default = {};
	char comm[16]; // as long as the kernel keeps it

	for (int signal = 1; signal < NSIG; signal++)
		sigaction(signal, &by_default, nullptr); // fails for SIGKILL, SIGSTOP and libc's own
	setsid(); // group signals and the terminal's are for the main program
	std::snprintf(comm, sizeof(comm), "orbit:%s", birth.name);
	prctl(PR_SET_NAME, comm);
	// An exec ends the orbit anyway; with this it gains nothing on the way, without which the
	// kernel lets nobody attach.
	prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
	if (!(birth.flags & ORBIT_KEEP_CORE)) {
		const rlimit none = {0, 0};

		setrlimit(RLIMIT_CORE, &none);
	}
	threads_may_stay = birth.flags & ORBIT_KEEP_THREADS;
	on_exit(end_at_exit, nullptr);
	__fpurge(stdout); // the main program prints what it has buffered

	Stack stack = {reinterpret_cast<std::uintptr_t>(__builtin_frame_address(0)), false};

	if (const int err = protect_shared_memory(&stack))
		return err;
	small_stack = is_small(stack);
	return close_all_but(birth.fds, birth.nr_fds);
}

int become_orbit(const Birth &birth)
{
	if (birth.owner >= 0)
		become_fork_server(birth);

	Serving serving = {birth.client, &birth};

	return birth.flags & ORBIT_RESTART ? become_template(birth) :
					     run_on_task_stack(attach_and_serve, &serving);
}

void finish_task()
{
	constexpr long longest_us = 100'000;

	if (__fpending(stdout)) // a tenth of what fflush() costs for nothing
		fflush(stdout);
	if (__libc_single_threaded || threads_may_stay || !alone || is_surely_alone())
		return;
	// One that has been joined is there for a moment still.
	for (long slept_us = 0, pause_us = 20; count_task_links() > alone; pause_us *= 2) {
		if (slept_us > longest_us)
			_exit(ORBIT_EXIT_THREADS);
		sleep_us(pause_us);
		slept_us += pause_us;
	}
}

void *map_stack(std::size_t *bytes)
{
	*bytes = usual_stack();

	void *const stack = mmap(nullptr, *bytes, PROT_READ | PROT_WRITE,
				 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_STACK, -1, 0);

	if (stack == MAP_FAILED)
		return nullptr;
	if (!mprotect(stack, page_size(), PROT_NONE)) // it ends there
		return stack;
	munmap(stack, *bytes);
	return nullptr;
}

int run_on_task_stack(int (*fn)(void *user), void *user)
{
	alone = count_task_links();
	if (!small_stack)
		return fn(user);

	static_assert(sizeof(StackSwitch) <= 4096);
	void *const memory = mmap(nullptr, sizeof(StackSwitch), PROT_READ | PROT_WRITE,
				  MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (memory == MAP_FAILED)
		return -errno;
	stack_switch = static_cast<StackSwitch *>(memory);
	stack_switch->fn = fn;
	stack_switch->user = user;
	stack_switch->stack = map_stack(&stack_switch->bytes);
	if (!stack_switch->stack)
		return -ENOMEM;
	getcontext(&stack_switch->context);
	stack_switch->context.uc_stack.ss_sp = stack_switch->stack;
	stack_switch->context.uc_stack.ss_size = stack_switch->bytes;
	makecontext(&stack_switch->context, run_switched, 0);
	if (__sanitizer_start_switch_fiber)
		__sanitizer_start_switch_fiber(nullptr, stack_switch->stack, stack_switch->bytes);
	setcontext(&stack_switch->context);
	return -errno;
}

int wait_until_left(pid_t child)
{
	int status = 0;
	pid_t waited;

	do {
		waited = waitpid(child, &status, 0);
	} while (waited < 0 && errno == EINTR);
	if (waited < 0)
		return 0; // no child any more
	return WIFEXITED(status) && WEXITSTATUS(status) ? -WEXITSTATUS(status) : -ECHILD;
}

int wait_until_up(int client)
{
	pollfd fd = {client, POLLOUT, 0};
	struct orbit_stat st {};
	int timeout = 0;

	// A template sees to it that a process attaches. Without one it has done so
	// already, or has died unnoticed: the application may ignore SIGCHLD, or wait
	// for any child in another thread.
	if (const int err = sys_ctl(client, ORBIT_CTL_STAT, &st))
		return err;
	if (st.template_pid)
		timeout = -1;
	while (poll(&fd, 1, timeout) < 0)
		if (errno != EINTR && errno != EAGAIN)
			return -errno;
	if (fd.revents == POLLOUT)
		return 0;

	// A template that gives up says why in its status, as a child does.
	if (!sys_ctl(client, ORBIT_CTL_STAT, &st) && st.cause == ORBIT_CAUSE_TEMPLATE && st.code > 0)
		return -st.code;
	return -ECHILD;
}

int fork_orbit(const Birth &birth)
{
	pid_t pid;
	{
		const SignalsBlocked blocked; // no handler of the application may run in the child

		{
			const OrbitFork is;

			pid = fork();
		}
		if (!pid) {
			become_part_of_orbit();
			if (const int err = stand_alone(birth))
				_exit(-err);
			_exit(-become_orbit(birth));
		}
		if (pid < 0)
			pid = -errno;
	}
	return pid < 0 ? pid : wait_until_left(pid);
}

} // namespace liborbit
