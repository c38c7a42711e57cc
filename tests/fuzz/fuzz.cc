// SPDX-License-Identifier: MIT
//
// A fuzzer of the system calls, bounded in time.
//
//   fuzz --seconds N [--seed S] [--patience SECONDS] [--require-all]
//
// Batch after batch, a process with some threads makes calls at random: with arguments
// that are noise, and with arguments that would be right but for a word or two; on
// descriptors of every kind, while other threads close them; with memory that others
// unmap; as the main program, as a child of it, as an orbit and as a template.  Where
// the kernel can inject faults, allocations fail in the middle.
//
// Nothing is expected of a call but that it comes back, with a number that is an errno
// if it is negative.  After each batch an orbit must work as ever in the process that
// did all that, and when the process has ended, nobody may be left.
//
// The seed is printed first; the last calls are printed with a failure.

#include "../stress/shared.h"

#include <algorithm>
#include <array>
#include <csetjmp>
#include <csignal>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/timerfd.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <ucontext.h>

namespace {

using raw::number;
using raw::page;
using raw::Rng;
using raw::u32;
using raw::u64;

constexpr unsigned nr_threads = 4;
constexpr unsigned nr_fds = 48;
constexpr unsigned ring_size = 1024;

// ---- What all processes of a run share -----------------------------------------------

struct Entry {
	u64 when;
	int pid, number; // of the system call, or below 0: another operation
	u64 args[4];
	long result;
};

enum Figure { calls, succeeded, refused, interrupted, injected, orbits, forks, batches, killed, nr_figures };
constexpr const char *figure_names[nr_figures] = {
	"calls", "succeeded", "refused", "interrupted", "faults injected",
	"orbits", "forks",    "batches", "batches killed",
};

struct Shared {
	std::atomic<u64> figures[nr_figures];
	std::atomic<u32> next_entry;
	Entry ring[ring_size];
	std::atomic<u64> busy_since[nr_threads];
	std::atomic<u32> children; // of the worker, for a bound on them
	u64 fault_at, fault_from;  // of the fault that the worker was not ready for
	std::atomic<bool> failed;
	char why[512];
} *all;

void count(Figure figure)
{
	all->figures[figure].fetch_add(1, std::memory_order_relaxed);
}

[[gnu::format(printf, 1, 2)]] void failed(const char *format, ...)
{
	if (all->failed.exchange(true))
		return;

	std::va_list list;

	va_start(list, format);
	std::vsnprintf(all->why, sizeof(all->why), format, list);
	va_end(list);
}

// ---- A process that tries things -----------------------------------------------------

struct World {
	raw::Window window;
	std::atomic<int> fds[nr_fds];
	char *alias = nullptr; // arguments are written here,
	char *area = nullptr;  // and here the kernel reads them, while others remap it
	char *wall = nullptr;  // a page, and none after it
	char *read_only = nullptr;
	bool can_inject = false;
	std::atomic<bool> stop{false};
	pid_t worker;
} world;

constexpr std::size_t area_pages = 64;
constexpr unsigned used_rooms = 6; // of the window

thread_local sigjmp_buf escape;
thread_local volatile bool guarded;
thread_local int inject_fd = -1;
thread_local volatile bool injecting; // an allocation in this thread shall fail
thread_local bool in_orbit;
thread_local int self_server = -1;

void set_fail_nth(u64 n)
{
	char text[24];
	const int length = std::snprintf(text, sizeof(text), "%llu", static_cast<unsigned long long>(n));

	if (n)
		injecting = true;

	[[maybe_unused]] const ssize_t done = pwrite(inject_fd, text, static_cast<std::size_t>(length), 0);

	if (!n)
		injecting = false;
}

// Has it failed? And off.
bool take_fail_nth()
{
	char text[24] = {};
	const ssize_t got = pread(inject_fd, text, sizeof(text) - 1, 0);

	set_fail_nth(0);
	return got > 0 && std::atoi(text) == 0;
}

void on_fault(int signal, siginfo_t *info, void *context)
{
	if (guarded)
		siglongjmp(escape, signal);
	// What failed may have been the page for a signal's frame, or for what rseq notes at a switch:
	// that is deadly in any system call, and this one is not to blame.
	if (injecting && info->si_code == SI_KERNEL && take_fail_nth())
		kill(getpid(), SIGKILL);
	if (getpid() == world.worker) {
		all->fault_at = number(info->si_addr);
		all->fault_from = static_cast<u64>(
			static_cast<ucontext_t *>(context)->uc_mcontext.gregs[REG_RIP]);
	}
	std::signal(signal, SIG_DFL);
	raise(signal);
}

// Touches memory that may go away at any moment.
template <class F> void guard(F &&f)
{
	guarded = true;
	if (!sigsetjmp(escape, 1))
		f();
	guarded = false;
}

class Fuzzer {
public:
	Fuzzer(u64 seed, unsigned id) : rng_(seed), id_(id) {}

	void step()
	{
		if (id_ < nr_threads)
			all->busy_since[id_] = raw::now_ns();
		switch (rng_.below(20)) {
		case 0:
		case 1:
			return noise();
		case 2:
			return make_orbit();
		case 3:
			return make_pool();
		case 4:
		case 5:
			return change_memory();
		case 6:
			return change_fds();
		case 7:
			return use_fd();
		case 8:
			return touch();
		case 9:
			return rng_.one_in(6) ? fork_child() : touch();
		case 10:
		case 11:
			return structured(raw::NR_ctl);
		default:
			return structured(static_cast<int>(rng_.range(raw::NR_create, raw::NR_cancel)));
		}
	}

private:
	// ---- Values ----

	u64 value()
	{
		constexpr u64 edges[] = {0,	      1,	    7,		  8,
					 page - 1,    page,	    page + 1,	  0x7fffffff,
					 0x80000000,  0xffffffff,   0x100000000,  ~u64{0},
					 ~u64{0} - 1, u64{1} << 63, (u64{1} << 63) - 1, 4096 << 20};

		switch (rng_.below(4)) {
		case 0:
			return rng_.next();
		case 1:
			return u64{1} << rng_.below(64);
		case 2:
			return rng_.below(5000);
		default:
			return rng_.pick(edges);
		}
	}

	char *pointer()
	{
		switch (rng_.below(12)) {
		case 0:
			return nullptr;
		case 1:
			return reinterpret_cast<char *>(value());
		case 2:
			return world.read_only + rng_.below(page);
		case 3:
			return world.wall + page - rng_.below(300);
		case 4:
		case 5:
			return room() + rng_.below(8 * page) / 8 * 8;
		case 6:
			return reinterpret_cast<char *>(0xffff888000000000 + rng_.below(page));
		default:
			return world.area + rng_.below(area_pages * page - 600);
		}
	}

	char *room() { return world.window.at(static_cast<unsigned>(rng_.below(used_rooms))); }

	int any_fd()
	{
		if (rng_.one_in(20))
			return static_cast<int>(rng_.below(80)) - 4;
		return world.fds[rng_.below(nr_fds)];
	}

	void keep(long fd)
	{
		if (fd < 0)
			return;
		const int old = world.fds[rng_.below(nr_fds)].exchange(static_cast<int>(fd));

		// What is replaced is closed, while others may use it.
		if (old > 2)
			close(old);
	}

	u64 pages() { return rng_.range(1, 8) * page; }

	u64 soon() { return raw::now_ns() + rng_.below(2000000); }

	// ---- Calls ----

	long log(int nr, u64 a, u64 b, u64 c, u64 d, u32 &slot)
	{
		slot = all->next_entry.fetch_add(1) % ring_size;
		all->ring[slot] = {raw::now_ns(), getpid(), nr, {a, b, c, d}, -9999};
		return 0;
	}

	// One of the eight, perhaps with an allocation that fails.
	long make(int nr, u64 a, u64 b, u64 c = 0, u64 d = 0)
	{
		const bool inject = inject_fd >= 0 && rng_.one_in(3);
		u32 slot;

		log(nr, a, b, c, d, slot);
		if (inject)
			set_fail_nth(rng_.range(1, rng_.one_in(3) ? 60 : 12));
		const long result = raw::sys(nr, a, b, c, d);
		if (inject && take_fail_nth())
			count(injected);
		all->ring[slot].result = result;
		count(calls);
		count(result >= 0 ? succeeded : result == -EINTR ? interrupted : refused);
		if (result < -EHWPOISON)
			failed("system call %d returns %ld, which is no errno", nr, result);
		return result;
	}

	// All arguments are noise.
	void noise()
	{
		const auto nr = static_cast<int>(rng_.range(raw::NR_create, raw::NR_cancel));
		u64 args[4];

		for (u64 &arg : args)
			arg = rng_.one_in(2) ? number(pointer()) : value();
		if (rng_.one_in(2))
			args[0] = static_cast<u64>(any_fd());
		if (rng_.one_in(2))
			args[nr <= raw::NR_pool ? 1 : 2] = rng_.range(0, 160);
		keep_result(nr, args[1], make(nr, args[0], args[1], args[2], args[3]));
	}

	void keep_result(int nr, u64 op, long result)
	{
		if (result < 3)
			return;
		if (nr == raw::NR_create || nr == raw::NR_pool ||
		    (nr == raw::NR_ctl && (op == ORBIT_CTL_ATTACH || op == ORBIT_CTL_TEMPLATE)))
			keep(result);
	}

	struct Blob {
		alignas(8) unsigned char bytes[256];
		std::size_t size;
		template <class T> void put(const T &value)
		{
			std::memset(bytes, 0, sizeof(bytes));
			std::memcpy(bytes, &value, sizeof(value));
			size = sizeof(value);
		}
	};

	// Arguments that are right, or would be but for a few words.
	void structured(int nr)
	{
		Blob blob;
		u64 op = 0;

		build(nr, blob, op);
		for (u64 errors = rng_.one_in(2) ? 0 : rng_.range(1, 2); errors && blob.size; errors--) {
			const u64 wrong = rng_.one_in(2) ? value() : number(pointer());
			const std::size_t at = rng_.below((blob.size + 7) / 8) * 8;

			if (rng_.one_in(2))
				std::memcpy(blob.bytes + at, &wrong, 8);
			else
				blob.bytes[rng_.below(blob.size)] ^= static_cast<unsigned char>(1u << rng_.below(8));
		}

		const std::size_t at = rng_.below(area_pages * page - 600) / 8 * 8;
		char *where = world.area + at;
		u64 size = blob.size;

		std::memcpy(world.alias + at, blob.bytes, sizeof(blob.bytes));
		if (rng_.one_in(16))
			where = pointer();
		if (rng_.one_in(8))
			size = rng_.one_in(2) ? rng_.range(0, 250) : value();

		int fd = any_fd();

		if (in_orbit && rng_.one_in(2))
			fd = self_server;
		long result;

		if (nr == raw::NR_create || nr == raw::NR_pool) {
			result = make(nr, number(where), size);
		} else if (nr == raw::NR_ctl) {
			if (op == ORBIT_CTL_QUERY && rng_.one_in(2))
				fd = -1;
			if (op == ORBIT_CTL_KILL || op == ORBIT_CTL_AWAIT) {
				if (!rng_.one_in(8))
					where = nullptr, size = 0;
			}
			// The worker itself must not become an orbit; nor may it wait for long.
			result = make(nr, static_cast<u64>(fd), op, number(where), size);
		} else {
			result = make(nr, static_cast<u64>(fd), number(where), size);
		}
		keep_result(nr, op, result);
		if (nr == raw::NR_call && !result) {
			int handle;

			std::memcpy(&handle, world.alias + at + offsetof(orbit_call_args, handle), sizeof(handle));
			if (handle > 2)
				keep(handle);
		}
	}

	void build(int nr, Blob &blob, u64 &op)
	{
		switch (nr) {
		case raw::NR_create: {
			orbit_create_args args = {};

			args.flags = rng_.below(2);
			std::strcpy(args.name, "fuzz");
			if (rng_.one_in(3))
				args.queue_limit = static_cast<u32>(rng_.below(5));
			if (rng_.one_in(4))
				args.nr_files = static_cast<u32>(rng_.below(64));
			if (rng_.one_in(4))
				args.memory_limit = rng_.below(32 << 20);
			if (rng_.one_in(4))
				args.cpu_percent = static_cast<u32>(rng_.below(200));
			if (rng_.one_in(4))
				args.update_limit = rng_.below(100000);
			return blob.put(args);
		}
		case raw::NR_pool: {
			orbit_pool_args args = {};

			args.size = rng_.one_in(10) ? value() & ~(page - 1) : pages();
			std::strcpy(args.name, "fuzz");
			return blob.put(args);
		}
		case raw::NR_call:
			return build_call(blob);
		case raw::NR_return: {
			orbit_return_args args = {};

			args.value = value();
			args.arg = number(pointer());
			args.arg_size = rng_.one_in(3) ? value() : page;
			return blob.put(args);
		}
		case raw::NR_send: {
			orbit_send_args args = {};

			args.flags = rng_.below(2);
			args.type = static_cast<u32>(value());
			args.target = value();
			args.data = args.flags ? number(room()) + rng_.below(8) * page : number(pointer());
			args.length = args.flags ? pages() : rng_.one_in(10) ? rng_.below(5 << 20) : rng_.below(3000);
			return blob.put(args);
		}
		case raw::NR_recv: {
			orbit_recv_args args = {};

			args.flags = rng_.below(4);
			if (rng_.one_in(2))
				args.deadline_ns = soon();
			args.buf = number(pointer());
			args.buf_size = rng_.one_in(4) ? value() : rng_.below(5000);
			args.result = rng_.one_in(2) ? number(pointer()) : 0;
			args.result_size = sizeof(orbit_result);
			return blob.put(args);
		}
		case raw::NR_cancel: {
			orbit_cancel_args args = {};

			args.flags = rng_.below(8);
			args.task = rng_.one_in(2) ? rng_.below(20) : 0;
			args.entry = rng_.below(8);
			args.arg = number(pointer());
			args.arg_size = rng_.below(20);
			return blob.put(args);
		}
		default:
			return build_ctl(blob, op);
		}
	}

	void build_call(Blob &blob)
	{
		orbit_call_args args = {};
		std::array<orbit_pool_ref, 8> refs = {};
		const std::size_t at = rng_.below(area_pages * page - 600) / 8 * 8;

		for (orbit_pool_ref &ref : refs) {
			ref.fd = any_fd();
			ref.flags = static_cast<u32>(rng_.below(rng_.one_in(20) ? 9 : 4));
			if (rng_.one_in(3)) {
				ref.offset = rng_.below(8) * page;
				ref.length = pages();
			}
		}
		std::memcpy(world.alias + at, refs.data(), sizeof(refs));
		args.flags = rng_.one_in(3) ? 0 : rng_.next() & rng_.next() & 0x3ff;
		args.task = rng_.one_in(12) ? rng_.below(20) : 0;
		args.entry = rng_.below(8);
		args.arg = number(pointer());
		args.arg_size = rng_.one_in(10) ? value() : rng_.below(20);
		args.pools = number(world.area + at);
		args.nr_pools = static_cast<u32>(rng_.one_in(30) ? value() : rng_.below(4));
		if (rng_.one_in(4))
			args.time_limit_ns = rng_.below(2000000);
		if (rng_.one_in(8))
			args.cpu_limit_ns = rng_.below(2000000);
		args.result = rng_.one_in(2) ? number(pointer()) : 0;
		args.result_size = sizeof(orbit_result);
		if (rng_.one_in(2))
			args.deadline_ns = soon();
		blob.put(args);
	}

	void build_ctl(Blob &blob, u64 &op)
	{
		op = rng_.one_in(20) ? value() : rng_.below(ORBIT_CTL_APPLY + 1);
		if (op == ORBIT_CTL_APPLY) {
			orbit_apply_args args = {};

			args.flags = rng_.below(2);
			args.from = rng_.below(8) * page;
			args.length = pages();
			args.pool = any_fd();
			args.offset = rng_.below(8) * page;
			blob.put(args);
		} else if (op == ORBIT_CTL_STAT) {
			blob.put(orbit_stat{});
		} else if (op == ORBIT_CTL_QUERY) {
			blob.put(orbit_info{});
		} else {
			blob.put(orbit_attach_args{});
		}
	}

	// ---- Objects ----

	void make_pool()
	{
		const u64 bytes = pages();
		const int fd = raw::make_pool(bytes);

		if (fd < 0)
			return;
		map_at(room(), bytes, fd, 0);
		keep(fd);
	}

	void map_at(char *at, u64 bytes, int fd, u64 offset)
	{
		const bool inject = inject_fd >= 0 && rng_.one_in(4);
		u32 slot;

		log(-9, number(at), bytes, static_cast<u64>(fd), offset, slot);
		if (inject)
			set_fail_nth(rng_.range(1, 20));
		mmap(at, bytes, PROT_READ | (rng_.one_in(8) ? 0 : PROT_WRITE), MAP_SHARED | MAP_FIXED, fd,
		     static_cast<off_t>(offset));
		if (inject && take_fail_nth())
			count(injected);
	}

	// An orbit with a process, or a template too.
	void make_orbit()
	{
		orbit_create_args args = {};

		if (all->children >= 40)
			return;
		args.flags = rng_.below(2);
		args.queue_limit = rng_.one_in(2) ? static_cast<u32>(rng_.below(5)) : 0;

		int fd = raw::create(args);

		if (fd < 0 && args.flags) {
			args.flags = 0;
			fd = raw::create(args);
		}
		if (fd < 0)
			return;
		if (args.flags && rng_.one_in(2))
			spawn(fd, ORBIT_CTL_TEMPLATE);
		if (!args.flags || rng_.one_in(2))
			spawn(fd, ORBIT_CTL_ATTACH);
		keep(fd);
		count(orbits);
	}

	// Not raw::start(): this one waits for nothing, and keeps all descriptors.
	void spawn(int fd, orbit_ctl_op how)
	{
		const u64 seed = rng_.next();
		const pid_t pid = fork();

		if (pid > 0)
			all->children++;
		if (pid)
			return;
		be_child();

		orbit_attach_args attach = {};

		if (rng_.one_in(3)) {
			if (fd > 3)
				close_range(3, static_cast<unsigned>(fd) - 1, 0);
			close_range(static_cast<unsigned>(fd) + 1, ~0U, 0);
		}
		const int got = raw::ctl(fd, how, attach);
		if (rng_.one_in(2))
			close(fd);
		if (got < 0)
			_exit(1);
		Fuzzer(seed, nr_threads).live(got, how == ORBIT_CTL_TEMPLATE);
		_exit(0);
	}

	static void be_child()
	{
		prctl(PR_SET_NAME, "fuzz-child");
		inject_fd = -1;
		world.window.reserve();
	}

	// The life of an orbit or a template.
	void live(int fd, bool is_template)
	{
		in_orbit = true;
		self_server = fd;
		for (u64 round = 0; round < 400; round++) {
			if (is_template) {
				const int err = raw::ctl(fd, ORBIT_CTL_AWAIT);

				if (err == -ESHUTDOWN || err == -EBADF || err == -EBADFD)
					_exit(0);
				const pid_t pid = err ? -1 : fork();
				if (!pid) {
					orbit_attach_args attach = {};
					const int server = rng_.one_in(8) ? -1 : raw::ctl(fd, ORBIT_CTL_ATTACH, attach);

					if (server < 0)
						_exit(1);
					Fuzzer(rng_.next(), nr_threads).live(server, false);
					_exit(0);
				}
				if (pid > 0 && !rng_.one_in(8))
					waitpid(pid, nullptr, 0); // until it has attached
				while (waitpid(-1, nullptr, WNOHANG) > 0)
					;
				if (rng_.one_in(4))
					step();
				continue;
			}
			serve_once(fd);
		}
	}

	void serve_once(int fd)
	{
		static char bytes[4096];
		orbit_return_args args = {};

		args.value = rng_.next();
		args.arg = number(bytes);
		args.arg_size = sizeof(bytes);
		if (rng_.one_in(8))
			return structured(raw::NR_return);

		const int err = raw::give_back(fd, args);

		if (err == -ESHUTDOWN || err == -EBADF || err == -EBADFD)
			_exit(0);
		switch (err ? 0 : args.entry) {
		case 1:
			for (u64 n = rng_.below(6); n; n--)
				structured(raw::NR_send);
			break;
		case 2:
			guard([this] {
				for (u64 n = rng_.below(8); n; n--)
					room()[rng_.below(8) * page] = 1;
			});
			structured(raw::NR_send);
			break;
		case 3:
			raw::sleep_us(rng_.below(3000));
			break;
		case 4:
			for (u64 n = rng_.below(10); n; n--)
				step();
			break;
		case 5:
			if (rng_.one_in(2))
				abort();
			if (rng_.one_in(2))
				_exit(3);
			kill(getpid(), rng_.one_in(2) ? SIGKILL : SIGSEGV);
			break;
		case 6: // for ever, or until somebody ends it
			if (rng_.one_in(4))
				for (;;)
					pause();
			break;
		default:
			touch();
		}
	}

	void fork_child()
	{
		if (all->children >= 40)
			return;

		const u64 seed = rng_.next();
		const pid_t pid = fork();

		if (pid > 0) {
			all->children++;
			count(forks);
		}
		if (pid)
			return;
		be_child();
		Fuzzer child(seed, nr_threads);
		alarm(3);
		for (u64 n = 0; n < 30; n++)
			child.step();
		_exit(0);
	}

	// ---- Around them ----

	void touch()
	{
		guard([this] {
			volatile char *const at = room() + rng_.below(8 * page);

			if (rng_.one_in(3))
				(void)*at;
			else
				*at = static_cast<char>(rng_.next());
		});
	}

	void change_memory()
	{
		char *const at = rng_.one_in(3) ? world.area + rng_.below(area_pages - 8) * page
						: room() + rng_.below(8) * page;
		const bool is_area = at >= world.area && at < world.area + area_pages * page;
		const u64 bytes = rng_.range(1, 8) * page;
		constexpr int protections[] = {PROT_NONE, PROT_READ, PROT_READ | PROT_WRITE,
					       PROT_READ | PROT_WRITE};
		// Not: the two that damage memory on purpose, and what would take long.
		constexpr int advice[] = {MADV_NORMAL,	 MADV_RANDOM,	  MADV_WILLNEED, MADV_DONTNEED,
					  MADV_FREE,	 MADV_REMOVE,	  MADV_DONTFORK, MADV_DOFORK,
					  MADV_MERGEABLE, MADV_HUGEPAGE, MADV_DONTDUMP, MADV_WIPEONFORK,
					  MADV_COLD,	 MADV_PAGEOUT, MADV_POPULATE_READ, MADV_POPULATE_WRITE};
		u32 slot;

		log(-static_cast<int>(10 + is_area), number(at), bytes, 0, 0, slot);
		switch (rng_.below(9)) {
		case 0:
		case 1:
			mprotect(at, bytes, rng_.pick(protections));
			break;
		case 2:
		case 3:
			madvise(at, bytes, rng_.pick(advice));
			break;
		case 4: // unmapped, as far as its contents go
			mmap(at, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
			break;
		case 5:
			if (is_area)
				mmap(world.area, area_pages * page, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED,
				     area_fd, 0);
			else
				map_at(room(), bytes, any_fd(), rng_.one_in(8) ? page : 0);
			break;
		case 6:
			if (is_area)
				break;
			mremap(at, bytes, rng_.range(1, 8) * page, rng_.one_in(2) ? MREMAP_MAYMOVE : 0);
			break;
		case 7:
			rng_.one_in(2) ? mlock(at, bytes) : munlock(at, bytes);
			msync(at, bytes, MS_ASYNC);
			break;
		default: {
			char local[64] = {};
			const iovec mine = {local, sizeof(local)}, there = {at, sizeof(local)};

			if (rng_.one_in(2))
				process_vm_writev(getpid(), &mine, 1, &there, 1, 0);
			else
				process_vm_readv(getpid(), &mine, 1, &there, 1, 0);
		}
		}
	}

	void change_fds()
	{
		auto &slot = world.fds[rng_.below(nr_fds)];

		switch (rng_.below(5)) {
		case 0:
			if (const int old = slot.exchange(-1); old > 2)
				close(old);
			break;
		case 1:
			keep(fcntl(any_fd(), F_DUPFD_CLOEXEC, 3));
			break;
		case 2: { // of one kind in the place of another
			const int from = any_fd(), to = slot;

			if (from > 2 && to > 2)
				dup2(from, to);
			break;
		}
		case 3:
			keep(other_fd());
			break;
		default: // through a socket and back
			pass(any_fd());
		}
	}

	int other_fd()
	{
		switch (rng_.below(8)) {
		case 0:
			return open("/dev/null", O_RDWR | O_CLOEXEC);
		case 1:
			return memfd_create("fuzz", MFD_CLOEXEC);
		case 2:
			return eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
		case 3:
			return epoll_create1(EPOLL_CLOEXEC);
		case 4:
			return timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
		case 5:
			return open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		case 6:
			return open("/proc/self/stat", O_PATH | O_CLOEXEC);
		default:
			return static_cast<int>(syscall(SYS_pidfd_open, getpid(), 0));
		}
	}

	void pass(int fd)
	{
		int pair[2];

		if (fd < 3 || socketpair(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair))
			return;
		char byte = 0;
		alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
		iovec vector = {&byte, 1};
		msghdr message = {};

		message.msg_iov = &vector;
		message.msg_iovlen = 1;
		message.msg_control = control;
		message.msg_controllen = sizeof(control);
		cmsghdr *const header = CMSG_FIRSTHDR(&message);
		header->cmsg_level = SOL_SOCKET;
		header->cmsg_type = SCM_RIGHTS;
		header->cmsg_len = CMSG_LEN(sizeof(int));
		std::memcpy(CMSG_DATA(header), &fd, sizeof(fd));
		if (sendmsg(pair[0], &message, 0) == 1 && rng_.one_in(2) &&
		    recvmsg(pair[1], &message, MSG_CMSG_CLOEXEC) == 1) {
			int received;

			std::memcpy(&received, CMSG_DATA(header), sizeof(received));
			keep(received);
		}
		close(pair[0]);
		close(pair[1]);
	}

	// What any program may do with a descriptor.
	void use_fd()
	{
		const int fd = any_fd();
		char bytes[64] = {}, path[40];
		u32 slot;

		if (fd < 3)
			return;
		log(-20, static_cast<u64>(fd), 0, 0, 0, slot);
		switch (rng_.below(11)) {
		case 0: {
			pollfd poll_fd = {fd, static_cast<short>(rng_.next()), 0};

			poll(&poll_fd, 1, static_cast<int>(rng_.below(3)));
			break;
		}
		case 1: {
			epoll_event event = {EPOLLIN | EPOLLOUT | EPOLLET, {}};

			epoll_ctl(any_fd(), EPOLL_CTL_ADD, fd, &event);
			break;
		}
		case 2:
			// Others than ours could block.
			if (fcntl(fd, F_GETFL) & O_NONBLOCK)
				(void)!read(fd, bytes, sizeof(bytes));
			break;
		case 3:
			(void)!pread(fd, bytes, sizeof(bytes), static_cast<off_t>(value()));
			break;
		case 4:
			(void)!pwrite(fd, bytes, sizeof(bytes), static_cast<off_t>(rng_.below(100000)));
			break;
		case 5:
			ioctl(fd, rng_.next(), bytes);
			break;
		case 6:
			(void)!ftruncate(fd, static_cast<off_t>(pages()));
			break;
		case 7:
			fallocate(fd, static_cast<int>(rng_.below(64)), static_cast<off_t>(rng_.below(8) * page),
				  static_cast<off_t>(pages()));
			break;
		case 8: {
			struct stat status;

			fstat(fd, &status);
			lseek(fd, static_cast<off_t>(value()), static_cast<int>(rng_.below(5)));
			fsync(fd);
			fcntl(fd, F_SETFL, O_NONBLOCK);
			break;
		}
		case 9: {
			epoll_event events[4];

			epoll_wait(fd, events, 4, 1);
			break;
		}
		default:
			std::snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", fd);
			stress::read_text(path, bytes, sizeof(bytes));
		}
	}

public:
	static inline int area_fd = -1;

private:
	Rng rng_;
	unsigned id_;
};

// ---- Does it still work? --------------------------------------------------------------

// An orbit that adds up a pool's words, for @rounds calls with other contents: the
// answer must be right. 0, or an errno and where it went wrong.
int sane(raw::Window &window, const char **where)
{
	constexpr u64 bytes = 4 * page;
	orbit_create_args create = {};

	*where = "orbit_pool";
	const int pool = raw::make_pool(bytes);
	if (pool < 0)
		return pool;
	*where = "mmap";
	auto *const words = reinterpret_cast<u64 *>(window.at(10));
	if (!raw::map_pool(pool, window.at(10), bytes))
		return -errno;
	*where = "orbit_create";
	const int orbit = raw::create(create);
	if (orbit < 0)
		return orbit;
	*where = "attach";
	if (const int err = raw::start(orbit, window, ORBIT_CTL_ATTACH, "fuzz-sane", [words](int server) {
		    orbit_return_args args = {};

		    for (;;) {
			    u64 arg;

			    args.arg = number(&arg);
			    args.arg_size = sizeof(arg);
			    if (const int err = raw::give_back(server, args); err == -EINTR)
				    continue;
			    else if (err)
				    _exit(1);
			    args.value = arg;
			    for (u64 n = 0; n < bytes / 8; n += 100)
				    args.value += words[n];
		    }
	    }))
		return err;
	for (u64 round = 1; round <= 3; round++) {
		orbit_pool_ref ref = {};
		orbit_result result = {};
		orbit_call_args args = {};
		u64 arg = round * 7, sum = arg;

		for (u64 n = 0; n < bytes / 8; n += 100)
			sum += words[n] = round * n + 1;
		ref.fd = pool;
		args.arg = number(&arg);
		args.arg_size = sizeof(arg);
		args.pools = number(&ref);
		args.nr_pools = 1;
		args.result = number(&result);
		args.result_size = sizeof(result);
		*where = "orbit_call";
		int err;
		do
			err = raw::call(orbit, args);
		while (err == -EINTR);
		if (err)
			return err;
		*where = "the value";
		if (result.value != sum)
			return -EBADMSG;
	}
	close(orbit);
	close(pool);
	return 0;
}

// ---- A batch ------------------------------------------------------------------------

char *reserve(std::size_t bytes, int protection, int fd = -1)
{
	void *const at = mmap(nullptr, bytes, protection,
			      fd < 0 ? MAP_PRIVATE | MAP_ANONYMOUS : MAP_SHARED, fd, 0);

	if (at == MAP_FAILED)
		_exit(2);
	return static_cast<char *>(at);
}

void open_inject()
{
	char path[64];

	std::snprintf(path, sizeof(path), "/proc/self/task/%ld/fail-nth", syscall(SYS_gettid));
	inject_fd = open(path, O_RDWR | O_CLOEXEC);
	// Far from the descriptors that are closed at random.
	if (inject_fd >= 0) {
		const int high = fcntl(inject_fd, F_DUPFD_CLOEXEC, 200 + static_cast<int>(rand() % 40));

		close(inject_fd);
		inject_fd = high;
	}
}

struct Thread {
	pthread_t handle;
	u64 seed;
	unsigned id;
};

void *run_thread(void *data)
{
	const Thread &thread = *static_cast<Thread *>(data);
	Fuzzer fuzzer(thread.seed, thread.id);

	if (world.can_inject)
		open_inject();
	for (u64 n = 0; n < 1500 && !world.stop; n++)
		fuzzer.step();
	all->busy_since[thread.id] = 0;
	return nullptr;
}

[[noreturn]] void be_worker(u64 seed, bool can_inject)
{
	struct sigaction action = {};
	const rlimit files = {256, 256}, cores = {0, 0};
	std::array<Thread, nr_threads> threads;
	Rng rng(seed);

	prctl(PR_SET_NAME, "fuzz-worker");
	// One process of it may kill itself, but nobody else.
	setpgid(0, 0);
	setrlimit(RLIMIT_NOFILE, &files);
	setrlimit(RLIMIT_CORE, &cores);
	world.worker = getpid();
	action.sa_sigaction = on_fault;
	action.sa_flags = SA_NODEFER | SA_SIGINFO;
	sigaction(SIGSEGV, &action, nullptr);
	sigaction(SIGBUS, &action, nullptr);
	action.sa_handler = [](int) {};
	action.sa_flags = 0;
	sigaction(SIGUSR1, &action, nullptr);
	sigaction(SIGPIPE, &action, nullptr);
	if (!world.window.reserve())
		_exit(2);
	// Whoever has the number of a descriptor may truncate its file: this one stays as it is.
	const int arguments = memfd_create("arguments", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	Fuzzer::area_fd = fcntl(arguments, F_DUPFD_CLOEXEC, 250);
	close(arguments);
	if (Fuzzer::area_fd < 0 || ftruncate(Fuzzer::area_fd, static_cast<off_t>(area_pages * page)) ||
	    fcntl(Fuzzer::area_fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_SEAL))
		_exit(2);
	world.alias = reserve(area_pages * page, PROT_READ | PROT_WRITE, Fuzzer::area_fd);
	world.area = reserve(area_pages * page, PROT_READ | PROT_WRITE, Fuzzer::area_fd);
	world.wall = reserve(2 * page, PROT_READ | PROT_WRITE);
	mprotect(world.wall + page, page, PROT_NONE);
	world.read_only = reserve(2 * page, PROT_READ);
	world.can_inject = can_inject;
	for (auto &fd : world.fds)
		fd = -1;
	for (unsigned n = 0; n < nr_threads; n++) {
		threads[n] = {{}, rng.next(), n};
		if (pthread_create(&threads[n].handle, nullptr, run_thread, &threads[n]))
			_exit(2);
	}

	// Signals come all the time, so that no wait is for ever.
	const u64 end = raw::now_ns() + 3000000000;

	for (bool busy = true; busy;) {
		busy = false;
		raw::sleep_us(5000);
		if (raw::now_ns() > end)
			world.stop = true;
		for (const Thread &thread : threads) {
			if (!all->busy_since[thread.id])
				continue;
			busy = true;
			pthread_kill(thread.handle, SIGUSR1);
		}
		while (waitpid(-1, nullptr, WNOHANG) > 0)
			all->children--;
	}
	for (const Thread &thread : threads)
		pthread_join(thread.handle, nullptr);

	// Everything away, and once more as it should be done.
	const char *where = "";

	close_range(3, ~0U, 0);
	if (!world.window.reserve())
		failed("the window cannot be reserved: %d", errno);
	if (const int err = sane(world.window, &where))
		failed("after batch %llu, in its process: %s gives %d", static_cast<unsigned long long>(seed),
		       where, err);
	_exit(0);
}

// ---- The supervisor ------------------------------------------------------------------

struct Options {
	u64 seconds = 20, seed = 0, patience = 120;
	bool require_all = false;
};

void put(const char *path, const char *text)
{
	const int fd = open(path, O_WRONLY | O_CLOEXEC);

	if (fd >= 0) {
		(void)!write(fd, text, std::strlen(text));
		close(fd);
	}
}

// Each thread asks for its own faults; here is only which allocations can be had.
bool prepare_injection()
{
	const int fd = open("/proc/self/fail-nth", O_RDWR | O_CLOEXEC);

	if (fd < 0)
		return false;
	close(fd);
	put("/sys/kernel/debug/failslab/ignore-gfp-wait", "N");
	put("/sys/kernel/debug/failslab/verbose", "0");
	put("/sys/kernel/debug/fail_page_alloc/ignore-gfp-wait", "N");
	put("/sys/kernel/debug/fail_page_alloc/ignore-gfp-highmem", "N");
	put("/sys/kernel/debug/fail_page_alloc/min-order", "0");
	put("/sys/kernel/debug/fail_page_alloc/verbose", "0");
	return true;
}

void print_ring()
{
	constexpr u32 shown = 80;
	const u32 next = all->next_entry;

	for (u32 n = next > shown ? next - shown : 0; n < next; n++) {
		const Entry &entry = all->ring[n % ring_size];

		std::printf("  %llu.%06llu %d: %d(%#llx, %#llx, %#llx, %#llx) = %ld\n",
			    static_cast<unsigned long long>(entry.when / 1000000000),
			    static_cast<unsigned long long>(entry.when / 1000 % 1000000), entry.pid, entry.number,
			    static_cast<unsigned long long>(entry.args[0]),
			    static_cast<unsigned long long>(entry.args[1]),
			    static_cast<unsigned long long>(entry.args[2]),
			    static_cast<unsigned long long>(entry.args[3]), entry.result);
	}
}

// Waits for the worker; kills it at @kill_at if that is not 0.
void watch(pid_t pid, u64 kill_at, u64 patience, u64 seed)
{
	bool dead = false;

	for (;;) {
		int status;

		if (waitpid(pid, &status, WNOHANG) == pid) {
			// Out of memory it may be killed, and of nothing else may it die.
			if (!dead && WIFSIGNALED(status) && WTERMSIG(status) != SIGKILL)
				failed("batch %llu: its process died of signal %d, at %#llx from %#llx",
				       static_cast<unsigned long long>(seed), WTERMSIG(status),
				       static_cast<unsigned long long>(all->fault_at),
				       static_cast<unsigned long long>(all->fault_from));
			if (!dead && WIFEXITED(status) && WEXITSTATUS(status))
				failed("batch %llu: its process ended with %d",
				       static_cast<unsigned long long>(seed), WEXITSTATUS(status));
			return;
		}
		const u64 now = raw::now_ns();
		if (kill_at && now >= kill_at && !dead) {
			kill(pid, SIGKILL);
			dead = true;
			kill_at = now;
			count(killed);
		}
		if (dead && now - kill_at > patience * 1000000000) {
			failed("batch %llu: its process does not die:%s", static_cast<unsigned long long>(seed),
			       stress::where_it_is(pid).substr(0, 300).c_str());
			return;
		}
		for (const auto &since : all->busy_since) {
			const u64 begin = since;

			if (dead || !begin || begin > now || now - begin < patience * 1000000000)
				continue;
			failed("batch %llu: a call hangs:%s", static_cast<unsigned long long>(seed),
			       stress::where_it_is(pid).substr(0, 300).c_str());
			kill(pid, SIGKILL);
			dead = true;
			kill_at = now;
		}
		raw::sleep_us(3000);
	}
}

// Orphans that are no orbits come to us; orbits must go by themselves (P9).
void clear_away(u64 patience, u64 seed)
{
	const u64 deadline = raw::now_ns() + patience * 1000000000;

	for (;;) {
		stress::Process left;

		while (waitpid(-1, nullptr, WNOHANG) > 0)
			;
		stress::each_process([&](const stress::Process &process) {
			char path[40], text[512];
			int parent = 0;

			if (process.kernel || !process.name.starts_with("fuzz-"))
				return;
			std::snprintf(path, sizeof(path), "/proc/%d/stat", process.pid);
			if (!stress::read_text(path, text, sizeof(text)))
				return;
			std::sscanf(std::strrchr(text, ')') + 1, " %*c %d", &parent);
			if (parent == getpid())
				kill(process.pid, SIGKILL);
			left = process;
		});
		if (!left.pid)
			return;
		if (raw::now_ns() > deadline) {
			failed("batch %llu: P9: %d %s is left%s", static_cast<unsigned long long>(seed), left.pid,
			       left.name.c_str(), stress::where_it_is(left.pid).substr(0, 300).c_str());
			return;
		}
		raw::sleep_us(2000);
	}
}

// In a process that has done nothing else.
void check_system(u64 seed)
{
	const pid_t pid = fork();
	int status = 0;

	if (!pid) {
		raw::Window window;
		const char *where = "";

		prctl(PR_SET_NAME, "fuzz-sane");
		window.reserve();
		if (const int err = sane(window, &where))
			failed("after batch %llu, in a fresh process: %s gives %d",
			       static_cast<unsigned long long>(seed), where, err);
		_exit(0);
	}
	waitpid(pid, &status, 0);
	if (status)
		failed("after batch %llu, a fresh process ends with status %#x",
		       static_cast<unsigned long long>(seed), static_cast<unsigned>(status));
}

int run(const Options &options)
{
	const u64 begin = raw::now_ns(), end = begin + options.seconds * 1000000000;
	const orbit_info info = raw::query();
	constexpr u64 everything = ORBIT_FEATURE_QUEUE | ORBIT_FEATURE_MODES | ORBIT_FEATURE_UPDATES |
				   ORBIT_FEATURE_RESTART | ORBIT_FEATURE_LIMITS;
	const bool can_inject = prepare_injection();
	Rng rng(options.seed);

	std::printf("fuzz: seed %llu\n", static_cast<unsigned long long>(options.seed));
	if (!info.abi) {
		std::printf("fuzz: this kernel has no orbits\n");
		return 1;
	}
	if ((info.features & everything) != everything) {
		std::printf("fuzz: THIS KERNEL HAS NOT ALL FEATURES: %#llx of %#llx\n",
			    static_cast<unsigned long long>(info.features),
			    static_cast<unsigned long long>(everything));
		if (options.require_all)
			return 1;
	}
	prctl(PR_SET_CHILD_SUBREAPER, 1);
	while (raw::now_ns() < end && !all->failed) {
		const u64 seed = rng.next();
		const u64 kill_at = rng.one_in(4) ? raw::now_ns() + rng.below(1500) * 1000000 : 0;

		for (auto &since : all->busy_since)
			since = 0;
		all->children = 0;
		std::fflush(stdout);
		const pid_t pid = fork();
		if (!pid)
			be_worker(seed, can_inject);
		watch(pid, kill_at, options.patience, seed);
		if (!all->failed)
			clear_away(options.patience, seed);
		if (!all->failed)
			check_system(seed);
		count(batches);
	}
	std::printf("fuzz: seed %llu:", static_cast<unsigned long long>(options.seed));
	for (unsigned n = 0; n < nr_figures; n++)
		std::printf("%s %s %llu", n ? "," : "", figure_names[n],
			    static_cast<unsigned long long>(all->figures[n].load()));
	std::printf("; seconds %.1f\n", static_cast<double>(raw::now_ns() - begin) / 1e9);
	if (all->failed) {
		raw::sleep_us(100000);
		std::printf("fuzz: FAILED with --seed %llu: %s\nThe last calls:\n",
			    static_cast<unsigned long long>(options.seed), all->why);
		print_ring();
		return 1;
	}
	if (!all->figures[succeeded] || !all->figures[orbits] || (can_inject && !all->figures[injected])) {
		std::printf("fuzz: FAILED: nothing has succeeded, or no fault was injected\n");
		return 1;
	}
	return 0;
}

} // namespace

int main(int argc, char **argv)
{
	Options options;

	if (!stress::read_options("fuzz", argc, argv,
			  {{"--seconds", &options.seconds}, {"--seed", &options.seed}, {"--patience", &options.patience}},
			  &options.require_all))
		return 2;
	if (!options.seed)
		options.seed = raw::now_ns() % 1000000;
	std::setvbuf(stdout, nullptr, _IOLBF, 0);
	all = new (mmap(nullptr, sizeof(Shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0))
		Shared{};
	return run(options);
}
