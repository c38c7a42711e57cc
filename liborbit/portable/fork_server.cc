// SPDX-License-Identifier: MIT
#include "fork_server.h"

#include "../common/fork_copy.h"
#include "../common/locked.h"
#include "../common/pagemap.h"
#include "../common/scan.h"
#include "../common/sharing.h"
#include "../common/signals.h"
#include "wire.h"

#include <cerrno>
#include <climits>
#include <csignal>
#include <ctime>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fcntl.h>
#include <linux/futex.h>
#include <poll.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/rseq.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

// There if the program runs under AddressSanitizer, however the library was compiled.
extern "C" [[gnu::weak]] void __asan_unpoison_memory_region(const volatile void *, size_t);

namespace liborbit {

namespace {

// ---- The orbit's process ----------------------------------------------------------------

// All of it is this process's own; a task that overwrites it harms only its orbit.
struct Server {
	int socket;
	pid_t thread;
	FromOrbit *to_main;
	const FromMain *from_main;
	bool few_files, low_memory;
	bool lazy; // views are made writable where the task writes to them
	// Of the running task.
	bool receivable;
	std::uint64_t number;
	std::uint64_t update_limit, sent;
	std::size_t nr_visible;
	Visible visible[ORBIT_MAX_POOLS];
	long faults; // when what tasks wrote was last looked for; 0: not yet
};

ORBIT_STATE Server *server;

// Make what a task writes to writable, and no more of a view than a page table maps: where the system counts
// what a process could write (vm.overcommit_memory=2), or a limit does.
bool allow_write(std::uintptr_t at)
{
	const std::uintptr_t table = page_size() * (page_size() / sizeof(std::uint64_t));
	const Visible *view = server->visible;
	const Visible *const last = view + server->nr_visible;

	while (view != last && !(at >= view->start && at < view->end))
		view++;
	if (view == last)
		return false;

	const std::uintptr_t part = at / table * table, one = at / page_size() * page_size();
	const std::uintptr_t from = part > view->start ? part : view->start;
	const std::uintptr_t end = part + table < view->end ? part + table : view->end;
	const int access = PROT_READ | PROT_WRITE;

	return !mprotect(reinterpret_cast<void *>(from), end - from, access) ||
	       !mprotect(reinterpret_cast<void *>(one), page_size(), access);
}

// What a scan is done with is not there, as what lies beyond the end of a file.
[[noreturn]] void end_by_bus_error(const siginfo_t *info)
{
	siginfo_t sent{};
	sigset_t bus;

	server->to_main->address = reinterpret_cast<std::uintptr_t>(info->si_addr);
	server->to_main->faulted = SIGBUS;
	sigemptyset(&bus);
	sigaddset(&bus, SIGBUS);
	act_by_default(SIGBUS, &sent);
	pthread_sigmask(SIG_UNBLOCK, &bus, nullptr);
	for (;;)
		pause();
}

// The way a fault tells where it was. The signal then does what it would have done.
void on_fault(int signal, siginfo_t *info, void *user)
{
	const int saved = errno;

	if (signal == SIGSEGV && info->si_code == SEGV_ACCERR &&
	    is_done_with(reinterpret_cast<std::uintptr_t>(info->si_addr)))
		end_by_bus_error(info);
	if (signal == SIGSEGV && info->si_code == SEGV_ACCERR && server->lazy && may_be_write(info, user) &&
	    allow_write(reinterpret_cast<std::uintptr_t>(info->si_addr))) {
		errno = saved;
		return;
	}
	if (info->si_code > 0) {
		server->to_main->address = reinterpret_cast<std::uintptr_t>(info->si_addr);
		server->to_main->faulted = static_cast<std::uint64_t>(signal);
	}
	act_by_default(signal, info);
}

void *map_memory(std::size_t bytes)
{
	void *memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	return memory == MAP_FAILED ? nullptr : memory;
}

int catch_faults()
{
	constexpr std::size_t stack_bytes = 64 << 10;
	struct sigaction action = {};
	stack_t stack{};

	stack.ss_size = stack_bytes;
	stack.ss_sp = map_memory(stack_bytes);
	if (!stack.ss_sp)
		return -ENOMEM;
	if (sigaltstack(&stack, nullptr))
		return -errno;
	action.sa_sigaction = on_fault;
	action.sa_flags = SA_SIGINFO | SA_ONSTACK;
	return real_sigaction(SIGSEGV, &action, nullptr) || real_sigaction(SIGBUS, &action, nullptr) ? -errno : 0;
}

// One descriptor more than the task may have: to receive a pool with, or to read a file of /proc.
class SpareFile {
public:
	SpareFile() { set(true); }
	SpareFile(const SpareFile &) = delete;
	~SpareFile() { set(false); }

private:
	static void set(bool spare)
	{
		rlimit limit;

		if (!server->few_files || getrlimit(RLIMIT_NOFILE, &limit) || !limit.rlim_max)
			return;
		limit.rlim_cur = spare ? limit.rlim_max : limit.rlim_max - 1;
		setrlimit(RLIMIT_NOFILE, &limit);
	}
};

int limit_files(std::uint32_t nr_files)
{
	const rlimit limit = {nr_files, nr_files + rlim_t{1}};

	if (!nr_files)
		return 0;
	if (static_cast<rlim_t>(server->socket) >= limit.rlim_cur)
		return -EMFILE;
	server->few_files = true;
	return setrlimit(RLIMIT_NOFILE, &limit) ? -errno : 0;
}

// malloc() fails past this. Pools lie at addresses that are in use already.
int limit_memory(std::uint64_t more)
{
	std::uint64_t now = 0;

	if (!more)
		return 0;
	anonymous_memory(getpid(), &now);
	server->low_memory = true;
	if (!now || more > RLIM_INFINITY - 1 - now)
		return 0;

	const rlimit limit = {now + more, now + more};

	return setrlimit(RLIMIT_AS, &limit) ? -errno : 0;
}

int map_piece(const MapPiece &piece, int fd)
{
	void *const start = reinterpret_cast<void *>(piece.start);
	const int fixed = MAP_PRIVATE | MAP_FIXED;

	if (!piece.has_file) {
		forget_placed(piece.start, piece.bytes);
		return mmap(start, piece.bytes, PROT_NONE, fixed | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0) ==
				       MAP_FAILED ?
			       -errno :
			       0;
	}
	if (const int err = claim_addresses(piece.start, piece.bytes))
		return err;
	// What cannot be seen lies beyond the end of the file: that raises SIGBUS. Shared, for nobody to
	// count it as what could be written.
	if (piece.from || piece.length != piece.bytes)
		if (mmap(start, piece.bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED | MAP_NORESERVE, fd,
			 static_cast<off_t>(piece.bytes)) == MAP_FAILED)
			return -errno;
	if (!piece.length)
		return 0;

	void *const seen = reinterpret_cast<void *>(piece.start + piece.from);
	const auto offset = static_cast<off_t>(piece.from);

	if (mmap(seen, piece.length, PROT_READ | PROT_WRITE, fixed | MAP_NORESERVE, fd, offset) != MAP_FAILED)
		return 0;
	if (errno != ENOMEM || mmap(seen, piece.length, PROT_READ, fixed, fd, offset) == MAP_FAILED)
		return -errno;
	server->lazy = true;
	return 0;
}

int map_pieces(const MapMessage *message, const int *fds, std::size_t nr_fds)
{
	std::size_t next = 0;
	int err = 0;

	for (std::uint32_t i = 0; i < message->count && i < max_pieces && !err; i++) {
		const MapPiece &piece = message->pieces[i];

		if (piece.has_file && next == nr_fds)
			err = -EMFILE;
		else
			err = map_piece(piece, piece.has_file ? fds[next++] : -1);
	}
	for (std::size_t i = 0; i < nr_fds; i++)
		close(fds[i]);
	return err;
}

// ---- Which pages the task has written to

// A view is a private mapping of a file: what was written to is not the file's. Set the first
// such range from a place on. 1: there is one. 0: there is none. Otherwise -errno.
int find_written(int pagemap, std::uint64_t from, std::uint64_t end, Visible *found)
{
	ScanArg arg{};
	ScanRegion region{};

	arg.size = sizeof(arg);
	arg.start = from;
	arg.end = end;
	arg.vec = reinterpret_cast<std::uintptr_t>(&region);
	arg.vec_len = 1;
	arg.category_inverted = page_is_file;
	arg.category_mask = page_is_file;
	arg.category_anyof_mask = page_is_present | page_is_swapped;
	arg.return_mask = page_is_file;

	const int count = ioctl(pagemap, pagemap_scan, &arg);

	if (count >= 0) {
		*found = {region.start, region.end};
		return count;
	}
	if (errno != ENOTTY && errno != EINVAL)
		return -errno;

	// Before Linux 6.7.
	const std::uint64_t bytes = page_size();
	bool any = false;

	for (std::uint64_t at = from; at < end; at += bytes) {
		std::uint64_t entry = 0;

		if (pread(pagemap, &entry, sizeof(entry), static_cast<off_t>(at / bytes * sizeof(entry))) !=
		    sizeof(entry))
			return -EIO;

		const bool is_there = entry >> 62, is_file = entry >> 61 & 1;

		if (is_there && !is_file) {
			if (!any)
				found->start = at;
			any = true;
			found->end = at + bytes;
		} else if (any) {
			break;
		}
	}
	return any;
}

int open_pagemap()
{
	const SpareFile spare;

	return open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
}

void drop(std::uint64_t start, std::uint64_t end)
{
	madvise(reinterpret_cast<void *>(start), end - start, MADV_DONTNEED);
}

// What scans were done with. Where it could not be made writable at once, faults will.
void show_again()
{
	if (!forget_scans())
		return;
	for (std::size_t i = 0; i < server->nr_visible; i++) {
		const Visible &view = server->visible[i];
		void *const start = reinterpret_cast<void *>(view.start);
		const std::size_t bytes = view.end - view.start;

		if (!server->lazy && !mprotect(start, bytes, PROT_READ | PROT_WRITE))
			continue;
		server->lazy = true;
		if (mprotect(start, bytes, PROT_READ))
			_exit(errno);
	}
}

// Page faults of this process and of children that it has waited for, plus one; 0 if nobody tells.
long count_faults()
{
	rusage own, childrens;

	if (getrusage(RUSAGE_SELF, &own) || getrusage(RUSAGE_CHILDREN, &childrens))
		return 0;
	return own.ru_minflt + own.ru_majflt + childrens.ru_minflt + childrens.ru_majflt + 1;
}

// What the task wrote is gone at the next. The first write to a page is a fault, and to look through a view takes
// time for each of its pages.
void drop_written()
{
	const long before = server->faults;

	if (!server->nr_visible)
		return;
	server->faults = count_faults();
	if (server->faults && server->faults == before) {
		server->nr_visible = 0;
		return;
	}

	const int pagemap = open_pagemap();

	for (std::size_t i = 0; i < server->nr_visible; i++) {
		const Visible &view = server->visible[i];
		Visible written = {view.start, view.start};
		int more = pagemap >= 0 ? 1 : -1;

		while (more > 0) {
			more = find_written(pagemap, written.end, view.end, &written);
			if (more > 0)
				drop(written.start, written.end);
		}
		if (more < 0)
			drop(view.start, view.end);
	}
	if (pagemap >= 0)
		close(pagemap);
	server->nr_visible = 0;
}

// ---- Updates

struct Part {
	const void *data;
	std::size_t bytes;
};

// The first message has the head, and each up to one chunk.
int send_parts(const UpdateMessage &head, const Part *parts, std::size_t count)
{
	bool first = true;
	int err = 0;

	for (std::size_t i = 0; i < count && !err; i++) {
		const char *data = static_cast<const char *>(parts[i].data);
		std::size_t left = parts[i].bytes;

		while ((left || (first && i + 1 == count)) && !err) {
			const MoreMessage more = {Tell::more, 0};
			const std::size_t chunk = left < max_chunk ? left : max_chunk;

			err = first ? tell(server->socket, &head, sizeof(head), data, chunk, nullptr, 0, 0) :
				      tell(server->socket, &more, sizeof(more), data, chunk, nullptr, 0, 0);
			if (err && !first) {
				const MoreMessage broken_off = {Tell::more, 1};

				tell(server->socket, &broken_off, sizeof(broken_off), nullptr, 0, nullptr, 0, 0);
			}
			first = false;
			data += chunk;
			left -= chunk;
		}
	}
	return err;
}

bool has_room(std::uint64_t bytes)
{
	const std::uint64_t received = __atomic_load_n(&server->from_main->received, __ATOMIC_ACQUIRE);
	const std::uint64_t kept = server->sent - received;

	return kept <= server->update_limit && bytes <= server->update_limit - kept;
}

int send_bytes(const UpdateMessage &head, const void *data, std::size_t bytes)
{
	const Part part = {data, bytes};
	const std::uint64_t charge = bytes ? bytes : 1;

	if (!has_room(charge))
		return -ENOSPC;

	const int err = send_parts(head, &part, 1);

	if (!err)
		server->sent += charge;
	return err;
}

int send_written(UpdateMessage head, const Visible &view, int pagemap, orbit_page_range *ranges,
		 Part *parts)
{
	const std::uint64_t end = head.target + head.bytes;
	Visible written = {head.target, head.target};
	std::uint64_t bytes = 0;
	int more;

	while ((more = find_written(pagemap, written.end, end, &written)) > 0) {
		const std::uint64_t length = written.end - written.start;

		ranges[head.nr_ranges] = {written.start - view.start, length};
		parts[++head.nr_ranges] = {reinterpret_cast<void *>(written.start), length};
		bytes += length;
	}
	if (more < 0)
		return more;
	if (!has_room(bytes ? bytes : 1))
		return -ENOSPC;
	parts[0] = {ranges, head.nr_ranges * sizeof(*ranges)};
	head.bytes = bytes + parts[0].bytes;
	if (const int err = send_parts(head, parts, head.nr_ranges + 1))
		return err;
	server->sent += bytes ? bytes : 1;
	// The task sees the snapshot there again.
	for (std::uint32_t i = 1; i <= head.nr_ranges; i++)
		madvise(const_cast<void *>(parts[i].data), parts[i].bytes, MADV_DONTNEED);
	return 0;
}

int send_pages(UpdateMessage head, std::size_t bytes)
{
	const Visible *view = server->visible;
	const Visible *const last = view + server->nr_visible;

	if (((head.target | bytes) & (page_size() - 1)) || !bytes)
		return -EINVAL;
	while (view != last && !(head.target >= view->start && head.target < view->end &&
				 bytes <= view->end - head.target))
		view++;
	if (view == last)
		return -ENXIO;
	head.place = static_cast<std::uint32_t>(view - server->visible);
	head.bytes = bytes;

	const int pagemap = open_pagemap();
	const std::size_t most = bytes / page_size() / 2 + 2; // ranges, for no two touch
	const std::size_t room = most * (sizeof(orbit_page_range) + sizeof(Part));
	void *const scratch = pagemap < 0 ? nullptr : map_memory(room);
	int err = pagemap < 0 ? -errno : -ENOMEM;

	if (scratch) {
		auto *ranges = static_cast<orbit_page_range *>(scratch);

		err = send_written(head, *view, pagemap, ranges, reinterpret_cast<Part *>(ranges + most));
		munmap(scratch, room);
	}
	if (pagemap >= 0)
		close(pagemap);
	return err;
}

// ---- The loop

ReturnMessage make_return(Tell what, std::uint64_t number, std::uint64_t value)
{
	ReturnMessage message = {what, 0, number, value, 0};

	if (server->low_memory) {
		const SpareFile spare;

		message.anonymous = anonymous_memory(getpid(), nullptr);
	}
	return message;
}

void serve_task(const TaskMessage *task, void *arg)
{
	const auto *visible = reinterpret_cast<const Visible *>(task + 1);

	server->number = task->number;
	server->receivable = task->receivable;
	server->update_limit = task->update_limit;
	server->sent = 0;
	server->nr_visible = task->nr_visible;
	std::memcpy(server->visible, visible, task->nr_visible * sizeof(Visible));
	std::memcpy(arg, visible + task->nr_visible, task->arg_size);

	const std::uint64_t value =
		run_task(reinterpret_cast<orbit_entry>(task->entry), arg, task->arg_size);
	const ReturnMessage message = make_return(Tell::returned, task->number, value);

	if (const int err = tell(server->socket, &message, sizeof(message), nullptr, 0, nullptr, 0, 0))
		_exit(-err);
	show_again();
	drop_written();
}

[[noreturn]] void serve_messages(void *buffer, void *arg)
{
	for (;;) {
		int fds[max_pieces];
		std::size_t nr_fds = max_pieces;
		long got;

		{
			const SpareFile spare;

			got = hear(server->socket, buffer, max_message, fds, &nr_fds, 0);
		}
		if (got <= 0)
			_exit(got < 0 ? static_cast<int>(-got) : 0);

		const Tell what = *static_cast<const Tell *>(buffer);

		if (what == Tell::map) {
			if (const int err = map_pieces(static_cast<const MapMessage *>(buffer), fds, nr_fds))
				_exit(-err);
		} else if (what == Tell::task) {
			serve_task(static_cast<const TaskMessage *>(buffer), arg);
		}
	}
}

int share_pages(int shared)
{
	const std::size_t bytes = page_size();
	void *ours = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, shared,
			  static_cast<off_t>(bytes));
	void *mains = mmap(nullptr, bytes, PROT_READ, MAP_SHARED, shared, 0);

	if (ours == MAP_FAILED || mains == MAP_FAILED)
		return -errno;
	server->to_main = static_cast<FromOrbit *>(ours);
	server->from_main = static_cast<const FromMain *>(mains);
	return 0;
}

struct Serving {
	int socket, shared;
	const Birth *birth;
};

// Returns only if it failed.
int become_server(void *user)
{
	auto [socket, shared, its_birth] = *static_cast<const Serving *>(user);
	const Birth &birth = *its_birth;
	sigset_t none;
	// Mapped, not allocated, for an orbit that corrupts its heap to fail in its own code; and
	// page-aligned, as promised to the task.
	void *const arg = map_memory(ORBIT_MAX_ARG);
	void *const buffer = map_memory(max_message);

	server = static_cast<Server *>(map_memory(sizeof(Server)));
	if (!arg || !buffer || !server)
		return -ENOMEM;
	close(birth.client);
	close(birth.owner);
	setsid(); // its group is its own, and not the fork server's
	socket = lift(socket);
	if (socket < 0)
		return socket;
	server->socket = socket;
	server->thread = gettid();
	may_scan();

	int err = share_pages(shared);

	close(shared);
	if (!err)
		err = begin_sharing(birth);
	if (!err)
		err = catch_faults();
	if (!err)
		err = limit_files(birth.nr_files);
	if (!err)
		err = limit_memory(birth.memory_limit);
	if (err)
		return err;
	server_fd = socket;
	serving_backend = &portable_backend;
	sigemptyset(&none);
	pthread_sigmask(SIG_SETMASK, &none, nullptr);

	const ReturnMessage ready = make_return(Tell::ready, 0, 0);

	err = tell(socket, &ready, sizeof(ready), nullptr, 0, nullptr, 0, 0);
	if (err)
		return err;
	serve_messages(buffer, arg);
}

// ---- The fork server -------------------------------------------------------------------------

struct ForkServer {
	const Birth *birth;
	pid_t child;
	int child_fd; // pidfd, or -1
};

void answer(const ForkServer &fork_server, const ForkServerMessage &message, int fd)
{
	tell(fork_server.birth->client, &message, sizeof(message), nullptr, 0, &fd, fd >= 0 ? 1 : 0, MSG_DONTWAIT);
}

void spawn(ForkServer *fork_server, int err, int *fds, std::size_t nr_fds)
{
	ForkServerMessage message{};

	message.tell = Tell::spawned;
	message.fork_server = getpid();
	if (err || nr_fds != 2 || fork_server->child_fd >= 0) {
		message.error = err ? -err : EAGAIN; // the last one has not gone yet
	} else {
		// Nothing here runs besides, so there is nothing for fork handlers to do: they have run
		// when this process was made.
		const pid_t pid = _Fork();

		if (!pid) {
			Serving serving = {fds[0], fds[1], fork_server->birth};

			_exit(-run_on_task_stack(become_server, &serving));
		}

		const int fd = pid < 0 ? -errno : open_pidfd(pid);

		if (fd < 0) {
			message.error = -fd;
			if (pid > 0) {
				kill(pid, SIGKILL);
				waitpid(pid, nullptr, 0);
			}
		} else {
			message.pid = fork_server->child = pid;
			fork_server->child_fd = fd;
		}
	}
	for (std::size_t i = 0; i < nr_fds; i++)
		close(fds[i]);
	answer(*fork_server, message, fork_server->child_fd);
}

void tell_death(ForkServer *fork_server)
{
	ForkServerMessage message{};
	siginfo_t info{};

	// It is a zombie still.
	message.executed = look_at_process(fork_server->child).executed;
	if (waitid(P_PID, static_cast<id_t>(fork_server->child), &info, WEXITED))
		return;
	close(fork_server->child_fd);
	fork_server->child_fd = -1;
	message.tell = Tell::died;
	message.pid = fork_server->child;
	message.code = info.si_code;
	message.status = info.si_status;
	answer(*fork_server, message, -1);
}

[[noreturn]] void end_fork_server(const ForkServer &fork_server)
{
	if (fork_server.child_fd >= 0) {
		kill(fork_server.child, SIGKILL);
		waitpid(fork_server.child, nullptr, 0);
	}
	_exit(0);
}

[[noreturn]] void watch(const Birth &birth)
{
	ForkServer fork_server = {&birth, 0, -1};

	for (;;) {
		pollfd fds[] = {{birth.client, POLLIN, 0}, {birth.owner, POLLIN, 0}, {fork_server.child_fd, POLLIN, 0}};

		if (poll(fds, fork_server.child_fd >= 0 ? 3 : 2, -1) < 0) {
			if (errno == EINTR || errno == EAGAIN || errno == ENOMEM)
				continue;
			end_fork_server(fork_server); // it would not hear of main's end
		}
		if (fork_server.child_fd >= 0 && fds[2].revents)
			tell_death(&fork_server);
		if (fds[1].revents)
			end_fork_server(fork_server); // main has ended
		if (fds[0].revents) {
			ForkServerMessage message{};
			int received[2];
			std::size_t count = 2;
			const long got = hear(birth.client, &message, sizeof(message), received, &count, 0);

			if (got != -EMFILE && got <= 0)
				end_fork_server(fork_server); // so has the orbit, or main has called exec
			if (got < 0 || message.tell == Tell::spawn)
				spawn(&fork_server, got < 0 ? -EMFILE : 0, received, count);
			else if (fork_server.child_fd >= 0 && message.pid == fork_server.child)
				kill(fork_server.child, message.status);
		}
	}
}

// The first choice when memory runs out, before the main program.
void offer_to_oom_killer()
{
	const int fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);

	if (fd < 0)
		return;
	if (write(fd, "1000", 4) < 0)
		log(ORBIT_LOG_DEBUG, "oom_score_adj cannot be raised");
	close(fd);
}

// The process that forked this one shared its memory with the main program, and so had no area
// for restartable sequences; the C library believes that it is registered.
void restore_rseq()
{
#if defined(__GLIBC__) && defined(RSEQ_SIG)
	if (__rseq_size)
		syscall(SYS_rseq, static_cast<char *>(__builtin_thread_pointer()) + __rseq_offset, 32, 0,
			RSEQ_SIG);
#endif
}

[[noreturn]] void run_fork_server(const void *user)
{
	Birth birth = *static_cast<const Birth *>(user);
	const int err = stand_alone(birth);

	if (err) {
		tell_failure(birth.client, err);
		_exit(-err);
	}
	become_fork_server(birth);
}

// ---- The main program -------------------------------------------------------------------

// A process between main and the one that is wanted. It runs in main's memory, on the stack of the
// thread that waits for it, and ends at once, so that one is an orphan from the beginning. fork() by the main
// program itself would make a child whose end raises SIGCHLD.
struct Between {
	void (*run)(const void *user);
	const void *user;
	pid_t main;
	volatile int error; // written by a function that does not return, so to speak
};

// In the process that is wanted, once it has been forked.
[[noreturn]] __attribute__((no_sanitize("thread", "address"))) void
run_forked(void (*run)(const void *user), const void *user)
{
	become_part_of_orbit();
	restore_rseq();
	run(user);
	_exit(0);
}

[[noreturn, gnu::noinline]] __attribute__((no_sanitize("thread", "address"))) void run_between(Between *between)
{
	// fork() may wait for a thread of main that holds a lock. With main's end that would be for ever.
	syscall(SYS_prctl, PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
	if (getppid() != between->main)
		syscall(SYS_exit_group, 0);

	const pid_t pid = fork();

	if (!pid)
		run_forked(between->run, between->user);
	between->error = pid < 0 ? errno : 0;
	for (;;)
		syscall(SYS_exit_group, 0);
}

// vfork() without SIGCHLD. The child must not return from the function that this is in.
[[gnu::always_inline]] inline long clone_in_this_memory()
{
	constexpr unsigned long flags = CLONE_VM | CLONE_VFORK;

#if defined(__x86_64__)
	register long tls __asm__("r8") = 0;
	register long tid __asm__("r10") = 0;
	long pid;

	__asm__ volatile("syscall"
			 : "=a"(pid)
			 : "a"(SYS_clone), "D"(flags), "S"(0L), "d"(0L), "r"(tid), "r"(tls)
			 : "rcx", "r11", "memory");
	return pid;
#elif defined(__aarch64__)
	register long number __asm__("x8") = SYS_clone;
	register long x0 __asm__("x0") = flags;
	register long x1 __asm__("x1") = 0;
	register long x2 __asm__("x2") = 0;
	register long x3 __asm__("x3") = 0;
	register long x4 __asm__("x4") = 0;

	__asm__ volatile("svc 0" : "+r"(x0) : "r"(number), "r"(x1), "r"(x2), "r"(x3), "r"(x4) : "memory");
	return x0;
#else
	return -ENOSYS + static_cast<long>(flags) * 0;
#endif
}

[[gnu::noinline]] __attribute__((no_sanitize("thread", "address"))) pid_t start_between(Between *between)
{
	const long pid = clone_in_this_memory();

	if (!pid)
		run_between(between);
	return static_cast<pid_t>(pid);
}

// What the process between has called has left marks on the stack for AddressSanitizer, and did not
// return to take them away.
void forget_between()
{
	constexpr std::uintptr_t most = 256 << 10;
	const auto here = reinterpret_cast<std::uintptr_t>(__builtin_frame_address(0));

	if (__asan_unpoison_memory_region)
		__asan_unpoison_memory_region(reinterpret_cast<void *>(here - most), most);
}

} // namespace

int fork_orphan(void (*run)(const void *user), const void *user)
{
	Between between = {run, user, getpid(), 0};
	const SignalsBlocked blocked;
	const OrbitFork is;
	const pid_t child = start_between(&between);

	forget_between();
	if (child > 0) {
		pid_t waited;

		do {
			waited = waitpid(child, nullptr, __WCLONE);
		} while (waited < 0 && errno == EINTR);
	}
	return child < 0 ? child : -between.error;
}

// ---- Where main is init, or a subreaper, or nobody reaps orphans

namespace {

// Orphans are its children there, or nobody's. So the process between stays, with a stack of its own, as their
// parent: it raises no signal, and a wait function finds it only with __WALL or __WCLONE.
struct Parent {
	Parent *next;
	void (*run)(const void *user);
	const void *user;
	void *stack;
	std::size_t stack_bytes;
	pid_t main, pid;
	volatile int error;
	std::uint32_t done; // a futex
};

ORBIT_STATE Parent *parents;
ORBIT_STATE pthread_mutex_t parents_lock = PTHREAD_MUTEX_INITIALIZER;

// Without errno, which is the other thread's.
[[gnu::always_inline]] inline long bare_syscall(long number, long a, long b, long c, long d)
{
#if defined(__x86_64__)
	register long r10 __asm__("r10") = d;
	long result;

	__asm__ volatile("syscall"
			 : "=a"(result)
			 : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10)
			 : "rcx", "r11", "memory");
	return result;
#elif defined(__aarch64__)
	register long x8 __asm__("x8") = number;
	register long x0 __asm__("x0") = a;
	register long x1 __asm__("x1") = b;
	register long x2 __asm__("x2") = c;
	register long x3 __asm__("x3") = d;

	__asm__ volatile("svc 0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2), "r"(x3) : "memory");
	return x0;
#else
	return -ENOSYS + (number + a + b + c + d) * 0;
#endif
}

bool adopts_orphans()
{
	int subreaper = 0;

	return getpid() == 1 || (!prctl(PR_GET_CHILD_SUBREAPER, &subreaper) && subreaper);
}

// Leaves an orphan that has ended. In it *orphan is set.
[[gnu::noinline]] __attribute__((no_sanitize("thread", "address"))) pid_t start_orphan(volatile pid_t *orphan)
{
	const long between = clone_in_this_memory();

	if (between)
		return static_cast<pid_t>(between);

	const long pid = clone_in_this_memory();

	if (pid)
		*orphan = static_cast<pid_t>(pid);
	for (;;)
		bare_syscall(SYS_exit_group, 0, 0, 0, 0);
}

// Whether those who adopt orphans here reap them. Where a container's first process does not, each would
// stay as a zombie. One orphan is enough to find out; but a first process may look for zombies every few
// seconds only, so until then the answer is yes.
bool orphans_are_reaped()
{
	constexpr std::uint64_t patience = 5'000'000'000; // in nanoseconds
	ORBIT_STATE static bool started;
	ORBIT_STATE static pid_t orphan; // 0: none yet
	ORBIT_STATE static std::uint64_t since;
	ORBIT_STATE static int answer; // 0: not known yet

	if (const int known = __atomic_load_n(&answer, __ATOMIC_RELAXED))
		return known > 0;
	if (!__atomic_exchange_n(&started, true, __ATOMIC_RELAXED)) {
		const SignalsBlocked blocked;
		volatile pid_t left = 0;
		const pid_t between = start_orphan(&left);

		while (between > 0 && waitpid(between, nullptr, __WCLONE) < 0 && errno == EINTR)
			;
		since = orbit_deadline(0);
		__atomic_store_n(&orphan, between > 0 ? left : 0, __ATOMIC_RELEASE);
	}

	const pid_t pid = __atomic_load_n(&orphan, __ATOMIC_ACQUIRE);

	if (pid > 0 && kill(pid, 0) && errno == ESRCH)
		__atomic_store_n(&answer, 1, __ATOMIC_RELAXED);
	else if (pid > 0 && orbit_deadline(0) - since > patience)
		__atomic_store_n(&answer, -1, __ATOMIC_RELAXED);
	return __atomic_load_n(&answer, __ATOMIC_RELAXED) >= 0;
}

// Until it has forked, the thread that made it waits, and this one has its thread-local variables.
// Then both go on, so from there on this one calls no function.
__attribute__((no_sanitize("thread", "address"))) int be_parent(void *user)
{
	auto *const parent = static_cast<Parent *>(user);

	prctl(PR_SET_CHILD_SUBREAPER, 1);
	// As in run_between(); but only until it has forked, for the thread that made it may end.
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != parent->main)
		bare_syscall(SYS_exit_group, 0, 0, 0, 0);

	const pid_t pid = fork();

	if (!pid)
		run_forked(parent->run, parent->user);
	parent->error = pid < 0 ? errno : 0;
	prctl(PR_SET_PDEATHSIG, 0);
	__atomic_store_n(&parent->done, 1, __ATOMIC_RELEASE);
	bare_syscall(SYS_futex, reinterpret_cast<long>(&parent->done), FUTEX_WAKE_PRIVATE, 1, 0);
	// It has its own copies of main's descriptors, whose ends others wait for.
	bare_syscall(SYS_close_range, 0, ~0U, 0, 0);
	while (bare_syscall(SYS_wait4, -1, 0, __WALL, 0) != -ECHILD)
		;
	for (;;)
		bare_syscall(SYS_exit_group, 0, 0, 0, 0);
}

void free_parent(Parent *parent)
{
	if (parent->stack)
		munmap(parent->stack, parent->stack_bytes);
	free(parent);
}

int fork_with_parent(void (*run)(const void *user), const void *user)
{
	auto *parent = static_cast<Parent *>(calloc(1, sizeof(Parent)));

	if (!parent)
		return -ENOMEM;
	parent->run = run;
	parent->user = user;
	parent->main = getpid();
	parent->stack = map_stack(&parent->stack_bytes); // the fork server runs on it, and so do tasks
	if (!parent->stack) {
		free_parent(parent);
		return -ENOMEM;
	}

	const SignalsBlocked blocked;
	const OrbitFork is;

	parent->pid = clone(be_parent, static_cast<char *>(parent->stack) + parent->stack_bytes, CLONE_VM, parent);

	int err = parent->pid < 0 ? -errno : 0;

	if (!err) {
		// Not by a function that sets errno: that is the other's meanwhile.
		while (!__atomic_load_n(&parent->done, __ATOMIC_ACQUIRE))
			bare_syscall(SYS_futex, reinterpret_cast<long>(&parent->done), FUTEX_WAIT_PRIVATE, 0, 0);
		err = -parent->error;
	}
	if (parent->pid < 0) {
		free_parent(parent);
		return err;
	}

	const Locked locked(&parents_lock);

	parent->next = parents;
	parents = parent;
	return err;
}

} // namespace

void reap_parents()
{
	const Locked locked(&parents_lock);
	Parent **link = &parents;

	while (Parent *parent = *link) {
		if (!waitpid(parent->pid, nullptr, WNOHANG | __WCLONE)) {
			link = &parent->next;
			continue;
		}
		*link = parent->next;
		free_parent(parent);
	}
}

ORBIT_AT_FORK void forget_parents()
{
	parents = nullptr;
	pthread_mutex_init(&parents_lock, nullptr);
}

int start_fork_server(const Birth &birth)
{
	const auto run = [](const void *user) { run_fork_server(user); };

	reap_parents();
	return adopts_orphans() || !orphans_are_reaped() ? fork_with_parent(run, &birth) :
							   fork_orphan(run, &birth);
}

void become_fork_server(const Birth &birth)
{
	offer_to_oom_killer();
	watch(birth);
}

void tell_failure(int link, int err)
{
	ForkServerMessage failed{};

	failed.tell = Tell::spawned;
	failed.error = -err;
	tell(link, &failed, sizeof(failed), nullptr, 0, nullptr, 0, MSG_DONTWAIT);
}

int open_pidfd(pid_t pid)
{
	const long fd = syscall(SYS_pidfd_open, pid, 0);

	return fd < 0 ? -errno : static_cast<int>(fd);
}

int send_update(orbit_update_kind kind, std::uint64_t target, const void *data, std::size_t length)
{
	UpdateMessage head{};

	if (gettid() != server->thread)
		return -EPERM;
	if (!server->receivable)
		return -EPIPE;
	head.tell = Tell::update;
	head.kind = kind;
	head.number = server->number;
	head.target = target;
	head.bytes = length;
	return kind == ORBIT_UPDATE_PAGES ? send_pages(head, length) : send_bytes(head, data, length);
}

int check_seen(std::uintptr_t pool, std::uintptr_t start, std::size_t bytes)
{
	for (std::size_t i = 0; i < server->nr_visible; i++) {
		const Visible &view = server->visible[i];

		if (pool >= view.start && pool < view.end)
			return start >= view.start && start < view.end && bytes <= view.end - start ? 0 : -ENXIO;
	}
	return -ENXIO;
}

// Nothing is held for a task: there is the mirror, and it stays as it is.
int step_of_scan(ScanStep *step)
{
	for (std::size_t i = 0; i < step->nr_done; i++)
		if (mprotect(step->done[i].start, step->done[i].length, PROT_NONE))
			return -errno;
	step->nr_held = 0;
	return 0; // MADV_POPULATE_READ for what comes next takes longer than the faults, which map 16 pages each
}

std::uint64_t anonymous_memory(pid_t pid, std::uint64_t *addresses)
{
	char path[64], text[128];
	unsigned long total = 0, resident = 0, shared = 0;

	std::snprintf(path, sizeof(path), "/proc/%d/statm", pid);

	const int fd = open(path, O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		return 0;

	const ssize_t got = read(fd, text, sizeof(text) - 1);

	close(fd);
	if (got <= 0)
		return 0;
	text[got] = '\0';
	if (std::sscanf(text, "%lu %lu %lu", &total, &resident, &shared) != 3 || resident < shared)
		return 0;
	if (addresses)
		*addresses = total * page_size();
	return (resident - shared) * page_size();
}

} // namespace liborbit
