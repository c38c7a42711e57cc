// SPDX-License-Identifier: MIT
//
// A stress of bounded time on the bare system calls.
//
//   stress --seconds N [--seed S] [--mains M] [--patience SECONDS] [--require-all]
//   stress --census ROUNDS [--seed S] [--patience SECONDS] [--require-all]
//
// Several main programs, each with threads that write to pools, threads that call
// orbits in every way there is, and one that makes trouble: kills orbits, remaps
// pools, sends signals, forks.  The supervisor kills main programs and starts others.
//
// What the threads write is numbered, so that a task can tell whether its snapshot is
// one cut (P2), as new as its call (P3), and still the same when it looks again (P3);
// and the caller can tell whether the task saw what was written after the call.
//
// A kernel that lacks a part of the interface is told so, and with --require-all that
// is a failure.  The last line has the figures.

#include "census.h"
#include "shared.h"

#include <array>
#include <csignal>
#include <map>
#include <memory>
#include <mutex>
#include <numeric>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <shared_mutex>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <thread>
#include <vector>

namespace {

using namespace stress;
using raw::number;
using raw::page;
using raw::Rng;

constexpr unsigned lanes = 2;	    // threads that write, in each main program
constexpr unsigned marks = 4;	    // words of a lane in a page
constexpr unsigned max_pools = 3;   // in which they write
constexpr unsigned words = page / 8;
constexpr unsigned still_from = 470; // words of a page that nobody writes to
constexpr unsigned private_pages = 16;

struct Has {
	bool queue, modes, updates, restart, limits;
} has;

bool pressed;	// this main program has little memory: calls may fail with ENOMEM
bool remaps;	// this one unmaps pools while others call: ENXIO
bool cancels;	// this one cancels tasks
raw::Window window;

u64 load(const u64 *word)
{
	return __atomic_load_n(word, __ATOMIC_ACQUIRE);
}

void store(u64 *word, u64 value)
{
	__atomic_store_n(word, value, __ATOMIC_RELEASE);
}

// ---- What the pools hold -----------------------------------------------------------

// Each lane is one thread's sequence of writes: number s goes to place s % size, and
// the places are shuffled over all pages of all pools.  Then number s goes to the
// lane's head, and the other lane's head to the lane's echo.  A snapshot is one cut if
// there is a number m with which everything in it agrees: the places hold the newest
// numbers up to m, the head m or m - 1; and if no echo is ahead of the head it is of.
struct Cut {
	unsigned pools;
	std::array<unsigned, max_pools> pages, first; // first: pages in the pools before
	std::array<int, max_pools> fds;
	u64 size;
	std::vector<u32> place, index;
	std::array<std::atomic<u64>, lanes> started, finished;

	char *base(unsigned pool) const { return window.at(pool); }
	u64 *word(unsigned pool, unsigned at, unsigned index) const
	{
		return reinterpret_cast<u64 *>(base(pool) + at * page) + index;
	}
	static unsigned mark(unsigned lane, unsigned j) { return 16 + lane * 220 + j * 50; }
	u64 *head(unsigned lane) const { return word(0, 0, 1 + lane); }
	u64 *echo(unsigned lane) const { return word(pools - 1, pages[pools - 1] - 1, 5 + lane); }
	u64 *at_place(unsigned lane, u32 where) const
	{
		unsigned pool = 0, at = where / marks;

		while (at >= pages[pool])
			at -= pages[pool++];
		return word(pool, at, mark(lane, where % marks));
	}
	static u64 still(const u64 *word) { return raw::mix(number(word) ^ main_seed); }
	static u64 tagged(unsigned lane, u32 where, u64 seq)
	{
		return seq << 16 | (raw::mix(seq ^ (u64{where} << 40) ^ lane ^ main_seed) & 0xffff);
	}
} cut;

void set_up_cut(Rng &rng)
{
	u64 total = 0;

	cut.pools = static_cast<unsigned>(rng.range(1, max_pools));
	for (unsigned p = 0; p < cut.pools; p++) {
		cut.pages[p] = static_cast<unsigned>(rng.one_in(6) ? rng.range(40, 90) : rng.range(1, 12));
		cut.first[p] = static_cast<unsigned>(total);
		total += cut.pages[p];
		cut.fds[p] = raw::make_pool(cut.pages[p] * page);
		if (cut.fds[p] < 0 || !raw::map_pool(cut.fds[p], cut.base(p), cut.pages[p] * page)) {
			if (pressed)
				_exit(77);
			fail("no pool: %d", cut.fds[p]);
		}
		for (unsigned at = 0; at < cut.pages[p]; at++)
			for (unsigned i = still_from; i < words; i++)
				*cut.word(p, at, i) = Cut::still(cut.word(p, at, i));
	}
	cut.size = total * marks;
	cut.place.resize(cut.size);
	cut.index.resize(cut.size);
	std::iota(cut.place.begin(), cut.place.end(), 0);
	for (u64 i = cut.size; i-- > 1;)
		std::swap(cut.place[i], cut.place[rng.below(i + 1)]);
	for (u64 i = 0; i < cut.size; i++)
		cut.index[cut.place[i]] = static_cast<u32>(i);
}

// The next write of a lane, by the processor or by the kernel on our behalf.
void write_next(unsigned lane, Rng &rng)
{
	const u64 seq = cut.finished[lane].load(std::memory_order_relaxed) + 1;
	const u32 where = cut.place[seq % cut.size];
	u64 *const word = cut.at_place(lane, where);
	u64 value = Cut::tagged(lane, where, seq);

	cut.started[lane].store(seq);
	if (rng.one_in(24)) {
		const iovec from = {&value, 8}, to = {word, 8};

		// Pins the page and writes through another mapping, as direct I/O does.
		if (process_vm_writev(getpid(), &from, 1, &to, 1, 0) != 8)
			store(word, value);
	} else {
		store(word, value);
	}
	store(cut.head(lane), seq);
	store(cut.echo(lane), load(cut.head(1 - lane)));
	cut.finished[lane].store(seq);
}

// ---- Tasks -------------------------------------------------------------------------

enum Kind : u32 {
	look,	    // at the snapshot
	nothing,
	segv,
	aborts,
	exits,
	loops,	    // until the time limit
	spins,	    // until the CPU limit
	execs,
	drops,	    // its descriptor
	leaves,	    // another thread behind
	greedy,	    // beyond the memory limit
	opens,	    // as many files as it may
	sends,
	sends_pages,
	takes,	    // the pages that main gives away
	fails_once,
	nr_kinds,
};

constexpr const char *kind_names[nr_kinds] = {
	"look",	  "nothing", "segv",   "abort", "exit",	 "loop",  "spin",	 "exec",
	"drop",	  "leave",   "greedy", "open",	"send",	 "send pages", "take", "fail once",
};

struct Part {
	u32 pool, first, pages, mode;
};

struct TaskArg {
	u64 size;
	u32 kind, slot;
	u64 seed;
	u32 nr_parts, number;
	std::array<Part, max_pools> parts;
	std::array<u64, lanes> before;
	u64 base, first, pages; // a part of the caller's own pool
	u64 mask;		// pages of it that are written to
	u64 die_after;		// updates
	u64 sum;		// of all before
};

u64 sum_of(const TaskArg &task)
{
	u64 sum = 0;

	for (std::size_t at = 0; at < offsetof(TaskArg, sum); at += 8) {
		u64 word;

		std::memcpy(&word, reinterpret_cast<const char *>(&task) + at, 8);
		sum = raw::mix(sum ^ word);
	}
	return sum;
}

char filler(const TaskArg &task, u64 at)
{
	return static_cast<char>(task.seed + at * 7);
}

// What page @at of a caller's own pool holds, in word @i.
u64 pattern(u64 seed, u64 at, u64 i)
{
	return (seed ^ at << 32 ^ i << 48) * 0x9e3779b97f4a7c15 | 1;
}

void fill(char *where, u64 seed, u64 at)
{
	for (u64 i = 0; i < words; i++)
		store(reinterpret_cast<u64 *>(where) + i, pattern(seed, at, i));
}

bool holds(const char *where, u64 seed, u64 at)
{
	for (u64 i = 0; i < words; i++)
		if (load(reinterpret_cast<const u64 *>(where) + i) != pattern(seed, at, i))
			return false;
	return true;
}

bool is_zero(const char *where)
{
	for (u64 i = 0; i < words; i++)
		if (load(reinterpret_cast<const u64 *>(where) + i))
			return false;
	return true;
}

// ---- The orbit's side ----------------------------------------------------------------

int server_fd = -1;

// The newest number that this lane's writes agree with, or a failed run.
u64 check_lane(const TaskArg &task, unsigned lane, u64 *newest_seen)
{
	u64 low = 0, high = ~u64{0};
	bool has_head = false, has_echo = false;

	for (u32 n = 0; n < task.nr_parts; n++) {
		const Part &part = task.parts[n];

		for (u32 at = part.first; at < part.first + part.pages; at++) {
			for (unsigned j = 0; j < marks; j++) {
				const u64 value = load(cut.word(part.pool, at, Cut::mark(lane, j)));
				const u64 seq = value >> 16;
				const u32 where = (cut.first[part.pool] + at) * marks + j;

				if (!seq || seq % cut.size != cut.index[where] ||
				    value != Cut::tagged(lane, where, seq))
					fail("P3: page %u of pool %u holds %#llx of lane %u, which nobody has "
					     "written there (mode %u)",
					     at, part.pool, static_cast<unsigned long long>(value), lane,
					     part.mode);
				low = std::max(low, seq);
				high = std::min(high, seq + cut.size - 1);
			}
		}
		has_head |= part.pool == 0 && part.first == 0;
		has_echo |= part.pool == cut.pools - 1 && part.first + part.pages == cut.pages[part.pool];
	}
	if (low > high)
		fail("P2: lane %u has number %llu, but not all up to %llu", lane,
		     static_cast<unsigned long long>(low), static_cast<unsigned long long>(high));
	if (high < task.before[lane])
		fail("P3: lane %u ends at %llu, and was at %llu before the call", lane,
		     static_cast<unsigned long long>(high),
		     static_cast<unsigned long long>(task.before[lane]));
	if (high < newest_seen[lane])
		fail("P4: lane %u ends at %llu, and an earlier task has seen %llu", lane,
		     static_cast<unsigned long long>(high),
		     static_cast<unsigned long long>(newest_seen[lane]));
	newest_seen[lane] = std::max(newest_seen[lane], low);
	if (has_head) {
		const u64 head = load(cut.head(lane));

		if (head > high || head + 1 < low)
			fail("P2: head of lane %u is %llu, and its writes go from %llu to %llu", lane,
			     static_cast<unsigned long long>(head), static_cast<unsigned long long>(low),
			     static_cast<unsigned long long>(high));
		if (has_echo && load(cut.echo(1 - lane)) > head)
			fail("P2: lane %u has seen %llu, and that lane is at %llu", 1 - lane,
			     static_cast<unsigned long long>(load(cut.echo(1 - lane))),
			     static_cast<unsigned long long>(head));
	}
	return low;
}

void check_still(const TaskArg &task, Rng &rng)
{
	for (u32 n = 0; n < task.nr_parts; n++) {
		const Part &part = task.parts[n];

		for (unsigned look = 0; look < 8; look++) {
			const auto at = part.first + static_cast<u32>(rng.below(part.pages));
			const u64 *const word =
				cut.word(part.pool, at, static_cast<unsigned>(rng.range(still_from, words - 1)));

			if (load(word) != Cut::still(word))
				fail("P3: a word of page %u of pool %u that nobody writes to is %#llx", at,
				     part.pool, static_cast<unsigned long long>(load(word)));
		}
	}
}

u64 digest(const TaskArg &task)
{
	u64 sum = 0;

	for (u32 n = 0; n < task.nr_parts; n++) {
		const Part &part = task.parts[n];
		const u64 *const from = cut.word(part.pool, part.first, 0);

		for (u64 i = 0; i < u64{part.pages} * words; i++)
			sum = (sum << 7 | sum >> 57) + load(from + i);
	}
	return sum;
}

void dally(Rng &rng)
{
	const u64 how = rng.below(4);

	if (how == 1)
		sched_yield();
	if (how == 2)
		raw::sleep_us(rng.below(2000));
	if (how == 3)
		for (const u64 until = raw::now_ns() + rng.below(200000); raw::now_ns() < until;)
			;
}

u64 run_look(const TaskArg &task, Rng &rng)
{
	static u64 newest_seen[lanes];
	std::array<u64, lanes> low;
	const u64 sum = digest(task);

	for (unsigned lane = 0; lane < lanes; lane++)
		low[lane] = check_lane(task, lane, newest_seen);
	check_still(task, rng);
	dally(rng);
	if (rng.one_in(16)) {
		u64 beside = 0;
		std::thread([&] { beside = digest(task); }).join();

		if (beside != sum)
			fail("P3: another thread of the orbit sees another snapshot");
	}
	if (digest(task) != sum)
		fail("P3: the snapshot has changed under the task");
	for (u64 writes = rng.below(6); writes && task.nr_parts; writes--) {
		const Part &part = task.parts[rng.below(task.nr_parts)];
		const auto at = part.first + static_cast<u32>(rng.below(part.pages));
		u64 *const word = cut.word(part.pool, at, static_cast<unsigned>(rng.below(words)));
		const u64 value = rng.next();

		store(word, value);
		if (rng.one_in(3))
			dally(rng);
		if (load(word) != value)
			fail("P1: what the task wrote to its view is gone");
	}
	return (low[0] & 0xffffffff) | low[1] << 32;
}

u64 run_greedy()
{
	constexpr std::size_t bytes = std::size_t{48} << 20;
	// The limit holds if this fails, or ends the task.
	auto *const all = static_cast<char *>(mmap(nullptr, bytes, PROT_READ | PROT_WRITE,
						   MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));

	if (all == MAP_FAILED)
		return 0;
	for (std::size_t at = 0; at < bytes; at += page)
		all[at] = 1;
	// Whoever counts may need a moment.
	raw::sleep_us(3000000);
	return 1;
}

u64 run_opens()
{
	std::vector<int> fds;
	int fd;

	while (fds.size() < 4000 && (fd = dup(server_fd)) >= 0)
		fds.push_back(fd);
	for (int each : fds)
		close(each);
	return fds.size();
}

std::size_t update_size(u64 seed, u64 i)
{
	Rng rng(seed + i);

	return rng.one_in(20) ? rng.range(1, 300000) : rng.range(0, 6000);
}

// Sends an update. A task that was ended at this moment runs no more, which is told to who still sends: its process is
// killed next, and so does not come back from here.
int send_update(const orbit_send_args &args)
{
	const int err = raw::send(server_fd, args);

	if (err == -ESRCH)
		raw::sleep_us(20'000'000);
	return err;
}

u64 run_sends(const TaskArg &task)
{
	std::vector<unsigned char> bytes;

	for (u64 i = 0; i < task.number; i++) {
		orbit_send_args args = {};

		if (i == task.die_after)
			abort();
		bytes.resize(update_size(task.seed, i));
		for (std::size_t at = 0; at < bytes.size(); at++)
			bytes[at] = static_cast<unsigned char>(task.seed + i + at * 3);
		args.type = static_cast<u32>(i);
		args.target = task.seed;
		args.data = number(bytes.data());
		args.length = bytes.size();
		const int err = send_update(args);
		if (err == -EPIPE)
			return 0; // the caller has lost its interest, and will not know
		if (err && !pressed)
			fail("P5: orbit_send of %zu bytes gives %d", bytes.size(), err);
		std::fill(bytes.begin(), bytes.end(), 0);
	}
	return task.number;
}

// Sends the pages of @task.mask within [first, first + pages), in one piece or two.
u64 run_sends_pages(const TaskArg &task, Rng &rng)
{
	char *const base = reinterpret_cast<char *>(task.base);
	const u64 middle = task.number == 2 ? task.pages / 2 : task.pages;

	for (u64 at = 0; at < task.pages; at++) {
		if (!holds(base + at * page, task.seed, at))
			fail("P3: page %llu of the caller's own pool is not as it was at the call",
			     static_cast<unsigned long long>(at));
		if (task.mask >> at & 1)
			fill(base + at * page, task.seed + 1, at);
	}
	dally(rng);
	for (u64 piece = 0; piece < task.number; piece++) {
		const u64 from = piece ? middle : 0, to = piece ? task.pages : middle;
		orbit_send_args args = {};

		args.flags = ORBIT_SEND_PAGES;
		args.type = static_cast<u32>(piece);
		args.target = task.seed;
		args.data = number(base + from * page);
		args.length = (to - from) * page;
		if (const int err = send_update(args)) {
			if (pressed)
				_exit(97);
			fail("P5: orbit_send of pages gives %d", err);
		}
		for (u64 at = from; at < to; at++)
			if (!holds(base + at * page, task.seed, at))
				fail("P5: after it was sent, page %llu is not the snapshot's again",
				     static_cast<unsigned long long>(at));
		// Lesson 7: what is written now belongs to the orbit alone.
		for (u64 at = from; at < to; at++)
			if (rng.one_in(2))
				fill(base + at * page, task.seed + 2, at);
	}
	return task.number;
}

u64 run_takes(const TaskArg &task, Rng &rng)
{
	char *const base = reinterpret_cast<char *>(task.base);

	for (int round = 0; round < 2; round++) {
		for (u64 at = task.first; at < task.first + task.pages; at++)
			if (!holds(base + at * page, task.seed, at))
				fail("P3: page %llu, given away by main, is not as it was at the call",
				     static_cast<unsigned long long>(at));
		dally(rng);
	}
	for (u64 at = task.first; at < task.first + task.pages; at++)
		fill(base + at * page, task.seed + 2, at);
	return task.pages;
}

[[noreturn]] void run_leaves()
{
	std::thread([] {
		for (;;)
			raw::sleep_us(1000000);
	}).detach();
	syscall(SYS_exit, 5);
	_exit(96);
}

u64 run_task(const TaskArg &task)
{
	Rng rng(task.seed);

	switch (task.kind) {
	case look:
		return run_look(task, rng);
	case segv:
		*reinterpret_cast<volatile char *>(task.base) = 1;
		break;
	case aborts:
		abort();
	case exits:
		_exit(static_cast<int>(task.number));
	case loops:
	case spins:
		for (;;)
			asm volatile("" ::: "memory");
	case execs: {
		char name[] = "stress", nothing_to_do[] = "--nothing";
		char *const argv[] = {name, nothing_to_do, nullptr};

		execv("/proc/self/exe", argv);
		_exit(static_cast<int>(task.number));
	}
	case drops:
		close(server_fd);
		raw::sleep_us(60000000);
		break;
	case leaves:
		run_leaves();
	case greedy:
		return run_greedy();
	case opens:
		return run_opens();
	case sends:
		return run_sends(task);
	case sends_pages:
		return run_sends_pages(task, rng);
	case takes:
		return run_takes(task, rng);
	case fails_once:
		if (!shared->slots[task.slot].tried.exchange(task.seed | 1))
			abort();
		shared->slots[task.slot].tried = 0;
		break;
	default:
		break;
	}
	return task.seed;
}

// A task at a time, in the order of their numbers (P4).
void serve(int server, u32 slot)
{
	static char buffer[ORBIT_MAX_ARG];
	orbit_return_args args = {};
	std::size_t room = sizeof(TaskArg);

	server_fd = server;
	for (;;) {
		args.arg = number(buffer);
		args.arg_size = room;

		const int err = raw::give_back(server, args);

		if (err == -EINTR)
			continue;
		if (err == -E2BIG) {
			if (args.arg_size <= room || args.arg_size > ORBIT_MAX_ARG)
				fail("orbit_return wants room for %llu bytes, and there are %zu",
				     static_cast<unsigned long long>(args.arg_size), room);
			room = args.arg_size;
			continue;
		}
		if (err == -ESHUTDOWN || (err && pressed))
			_exit(98);
		if (err)
			fail("orbit_return gives %d", err);

		const auto &task = *reinterpret_cast<const TaskArg *>(buffer);
		auto &last = shared->slots[slot].last_task;

		// A task that died with RETRY comes a second time.
		if (args.task < last || (args.task == last && task.kind != fails_once))
			fail("P4: task %llu comes after %llu", static_cast<unsigned long long>(args.task),
			     static_cast<unsigned long long>(last.load()));
		last = args.task;
		if (args.arg_size < sizeof(TaskArg) || task.size != args.arg_size ||
		    task.sum != sum_of(task) || args.entry != raw::mix(task.kind))
			fail("the argument bytes of task %llu are not what was sent",
			     static_cast<unsigned long long>(args.task));
		for (u64 at = sizeof(TaskArg); at < task.size; at++)
			if (buffer[at] != filler(task, at))
				fail("argument byte %llu of task %llu is not what was sent",
				     static_cast<unsigned long long>(at),
				     static_cast<unsigned long long>(args.task));
		args.value = run_task(task);
	}
}

// ---- The main program's side -----------------------------------------------------------

enum class Fate {
	steady,	// nothing happens to it: every task must return
	mortal,	// dies often, and another takes its place
	phoenix, // dies often, and is restarted
};

struct Orbit {
	int fd = -1;
	Fate fate = Fate::steady;
	u32 slot = 0;
	bool small = false; // its queue
	std::atomic<bool> doomed{false}; // somebody ends it for good, or its template
	Orbit() = default;
	Orbit(const Orbit &) = delete;
	~Orbit()
	{
		if (fd >= 0)
			close(fd);
	}
};

// Of the processes of a main program: digits enough to tell them apart.
std::string name_prefix(u64 seed)
{
	char name[16];

	std::snprintf(name, sizeof(name), "st%09llu", static_cast<unsigned long long>(seed % 1000000000));
	return name;
}

std::string process_name(char what)
{
	return name_prefix(main_seed) + what;
}

[[noreturn]] void give_up(const char *what, int err)
{
	if (pressed)
		_exit(77);
	fail("%s: %d", what, err);
}

std::shared_ptr<Orbit> make_orbit(Fate fate, Rng &rng, orbit_create_args args = {})
{
	auto orbit = std::make_shared<Orbit>();

	orbit->fate = fate;
	orbit->slot = shared->next_slot.fetch_add(1) % max_slots;
	shared->slots[orbit->slot].last_task = 0;
	shared->slots[orbit->slot].tried = 0;
	std::strcpy(args.name, "stress");
	if (has.queue && !args.queue_limit && rng.one_in(3)) {
		args.queue_limit = static_cast<u32>(rng.range(1, 4));
		orbit->small = true;
	}
	if (fate == Fate::phoenix)
		args.flags = ORBIT_CREATE_RESTART;
	orbit->fd = raw::create(args);
	if (orbit->fd < 0)
		give_up("orbit_create", orbit->fd);

	const u32 slot = orbit->slot;

	if (fate == Fate::phoenix)
		if (const int err = raw::start(orbit->fd, window, ORBIT_CTL_TEMPLATE, process_name('t').c_str(),
					       [slot](int fd) {
						       raw::be_template(fd, [slot](int server) {
							       serve(server, slot);
						       });
					       }))
			give_up("a template", err);
	// The template makes the first process as well, if there is none.
	if (fate != Fate::phoenix || rng.one_in(2)) {
		const int err = raw::start(orbit->fd, window, ORBIT_CTL_ATTACH, process_name('o').c_str(),
					   [slot](int fd) { serve(fd, slot); });

		// The template may have been faster.
		if (err && !(err == -EBUSY && fate == Fate::phoenix))
			give_up("an orbit's process", err);
	}

	pollfd ready = {orbit->fd, POLLOUT, 0};
	int events;

	do
		events = poll(&ready, 1, 100000);
	while (events < 0 && errno == EINTR);
	if (events != 1 || !(ready.revents & POLLOUT))
		give_up("an orbit without a process", ready.revents);
	count(orbits_made);
	return orbit;
}

std::mutex orbits_lock;
std::array<std::shared_ptr<Orbit>, 4> orbits;
unsigned nr_orbits;

std::shared_ptr<Orbit> some_orbit(Rng &rng)
{
	const std::lock_guard guard(orbits_lock);

	return orbits[rng.below(nr_orbits)];
}

// Another one for one that is dead.
void renew(const std::shared_ptr<Orbit> &old, Rng &rng)
{
	std::unique_lock guard(orbits_lock);

	for (unsigned i = 0; i < nr_orbits; i++) {
		if (orbits[i] != old)
			continue;
		guard.unlock();
		auto fresh = make_orbit(old->fate, rng);
		guard.lock();
		if (orbits[i] == old)
			orbits[i] = std::move(fresh);
		return;
	}
}

std::shared_mutex layout; // held by who writes to the pools; alone by who remaps them
std::atomic<bool> ending;

// What may become of a task besides returning.
enum May : unsigned {
	may_die = 1,	// somebody kills the orbit
	may_cancel = 2, // somebody cancels the task
	may_end = 4,	// the orbit is destroyed
};

struct Pending {
	std::shared_ptr<Orbit> orbit;
	TaskArg task;
	std::array<u64, lanes> after;
	int handle;
	unsigned may;
};

// How a task ends that is sure to end badly.
bool expected_end(const TaskArg &task, int err, const orbit_result &result)
{
	const auto died = [&](u32 cause, int code) {
		return err == -ECONNRESET && result.cause == cause && result.code == code;
	};

	switch (task.kind) {
	case segv:
		return died(ORBIT_CAUSE_SIGNAL, SIGSEGV) && result.fault_addr == task.base;
	case aborts:
		return died(ORBIT_CAUSE_SIGNAL, SIGABRT);
	case exits:
		return died(ORBIT_CAUSE_EXIT, static_cast<int>(task.number));
	case loops:
	case spins:
		return err == -ETIMEDOUT && result.cause == ORBIT_CAUSE_TIMEOUT;
	case execs:
		return died(ORBIT_CAUSE_EXEC, 0);
	case drops:
		return died(ORBIT_CAUSE_DESTROYED, 0);
	case leaves:
		return died(ORBIT_CAUSE_EXIT, 5);
	case sends:
		return task.die_after < task.number && died(ORBIT_CAUSE_SIGNAL, SIGABRT);
	default:
		return false;
	}
}

bool must_die(const TaskArg &task)
{
	return (task.kind >= segv && task.kind <= leaves) ||
	       (task.kind == sends && task.die_after < task.number);
}

// Every call has one outcome, and one that fits (P6).
void judge(const Orbit &orbit, const TaskArg &task, int err, const orbit_result &result,
	   const std::array<u64, lanes> &after, unsigned may)
{
	const bool killed = err == -ECONNRESET && result.cause == ORBIT_CAUSE_SIGNAL && result.code == SIGKILL;
	bool right = false;

	switch (err) {
	case 0:
		count(returned);
		right = !must_die(task) && !(task.kind == greedy && result.value);
		if (task.kind == look) {
			for (unsigned lane = 0; lane < lanes; lane++) {
				const u64 low = result.value >> lane * 32 & 0xffffffff;

				if (low > (after[lane] & 0xffffffff))
					fail("P3: lane %u in the snapshot is at %llu, and was at %llu after the call",
					     lane, static_cast<unsigned long long>(low),
					     static_cast<unsigned long long>(after[lane]));
			}
			count(verified);
		} else if (task.kind == nothing || task.kind == fails_once) {
			right &= result.value == task.seed;
		}
		right &= !result.error;
		break;
	case -ECONNRESET:
		count(reset);
		count(orbits_killed);
		right = expected_end(task, err, result) || (killed && (may & may_die)) ||
			(pressed && (killed || result.cause == ORBIT_CAUSE_EXIT)) ||
			((orbit.doomed || (may & may_end)) && result.cause == ORBIT_CAUSE_DESTROYED);
		break;
	case -ETIMEDOUT:
		count(timed_out);
		count(orbits_killed);
		right = expected_end(task, err, result);
		break;
	case -ECANCELED:
		count(cancelled);
		right = (may & (may_cancel | may_end)) || orbit.fate == Fate::mortal || orbit.doomed || pressed;
		break;
	case -ENOMEM:
		count(no_memory);
		right = pressed || (task.kind == greedy && result.cause == ORBIT_CAUSE_LIMIT);
		break;
	case -EAGAIN:
		count(full);
		right = orbit.small;
		break;
	case -EEXIST:
		count(skipped);
		right = task.kind == nothing;
		break;
	case -ENXIO:
		count(unmapped);
		right = remaps;
		break;
	case -ESHUTDOWN:
	case -ENOTCONN:
		count(down);
		right = orbit.fate == Fate::mortal || orbit.doomed || (may & may_end) || pressed;
		break;
	default:
		break;
	}
	if (!right)
		fail("P6: task %llu (%s) of an orbit of fate %d ends with %d, cause %u, code %d, fault %#llx, "
		     "value %#llx, error %u",
		     static_cast<unsigned long long>(result.task), kind_names[task.kind],
		     static_cast<int>(orbit.fate), err, result.cause, result.code,
		     static_cast<unsigned long long>(result.fault_addr),
		     static_cast<unsigned long long>(result.value), result.error);
}

// A thread that calls.
class Caller {
public:
	Caller(u64 seed, Beat &beat) : rng_(seed), beat_(beat) {}

	void run()
	{
		own_fd_ = raw::make_pool(private_pages * page);
		own_room_ = next_room_++;
		if (own_fd_ < 0 || !raw::map_pool(own_fd_, window.at(own_room_), private_pages * page))
			give_up("a caller's own pool", own_fd_);
		own_ = window.at(own_room_);
		while (!ending) {
			count(calls);
			step();
		}
		enter("collecting outcomes at the end");
		while (!pending_.empty())
			collect(0);
		enter(nullptr);
	}

private:
	void enter(const char *what)
	{
		beat_.what = what;
		beat_.since = what ? raw::now_ns() : 0;
	}

	bool pick(unsigned percent) { return rng_.below(100) < percent; }

	static unsigned may_of(const Orbit &orbit)
	{
		return (orbit.fate == Fate::steady ? 0 : static_cast<unsigned>(may_die)) |
		       (cancels ? static_cast<unsigned>(may_cancel) : 0);
	}

	TaskArg make_task(const Orbit &orbit, Kind kind)
	{
		TaskArg task = {};

		task.size = sizeof(task);
		task.kind = kind;
		task.slot = orbit.slot;
		task.seed = rng_.next();
		task.die_after = ~u64{0};
		return task;
	}

	// Names pools, or parts of them, for a task that looks.
	void name_parts(TaskArg &task)
	{
		std::array<u32, max_pools> order = {0, 1, 2};

		std::swap(order[0], order[rng_.below(cut.pools)]);
		task.nr_parts = static_cast<u32>(rng_.range(1, cut.pools));
		if (pick(60))
			task.nr_parts = cut.pools;
		// Without repetition: the first is any, the others are those left in order.
		std::array<bool, max_pools> used = {};
		u32 next = 0;

		for (u32 n = 0; n < task.nr_parts; n++) {
			u32 pool = n ? next : order[0];

			while (used[pool])
				pool = ++next;
			used[pool] = true;
			Part &part = task.parts[n];
			part = {pool, 0, cut.pages[pool], ORBIT_SNAP_COW};
			if (!has.modes)
				continue;
			part.mode = static_cast<u32>(rng_.below(3)); // not MOVE: others write there
			if (pick(30)) {
				part.first = static_cast<u32>(rng_.below(part.pages));
				part.pages = static_cast<u32>(rng_.range(1, cut.pages[pool] - part.first));
			}
		}
	}

	// The arguments of a call; they live until the next one is prepared.
	orbit_call_args &prepare(TaskArg &task)
	{
		refs_ = {};
		for (u32 n = 0; n < task.nr_parts; n++) {
			const Part &part = task.parts[n];

			refs_[n].fd = cut.fds[part.pool];
			refs_[n].flags = part.mode;
			if (part.first || part.pages != cut.pages[part.pool]) {
				refs_[n].offset = part.first * page;
				refs_[n].length = part.pages * page;
			}
		}
		if (task.size > sizeof(task) + 60000)
			task.size = sizeof(task);
		task.sum = sum_of(task);
		bytes_.resize(task.size);
		std::memcpy(bytes_.data(), &task, sizeof(task));
		for (u64 at = sizeof(task); at < task.size; at++)
			bytes_[at] = filler(task, at);

		args_ = {};
		result_ = {};
		args_.entry = raw::mix(task.kind);
		args_.arg = number(bytes_.data());
		args_.arg_size = task.size;
		args_.pools = number(refs_.data());
		args_.nr_pools = task.nr_parts;
		args_.result = number(&result_);
		args_.result_size = sizeof(result_);
		return args_;
	}

	void note_before(TaskArg &task)
	{
		for (unsigned lane = 0; lane < lanes; lane++)
			task.before[lane] = cut.finished[lane];
	}

	static std::array<u64, lanes> note_after()
	{
		std::array<u64, lanes> after;

		for (unsigned lane = 0; lane < lanes; lane++)
			after[lane] = cut.started[lane];
		return after;
	}

	// Calls, and comes back for the outcome however often a signal or a deadline interrupts.
	int call(const Orbit &orbit)
	{
		const bool async = args_.flags & ORBIT_CALL_ASYNC;

		for (;;) {
			const int err = raw::call(orbit.fd, args_);

			if (err == -EINTR || err == -ETIME) {
				count(err == -EINTR ? interrupted : late);
				if (err == -ETIME && !args_.deadline_ns)
					fail("ETIME without a deadline");
				args_.deadline_ns = 0;
				if (async && args_.task)
					fail("P6: an asynchronous call waits for its task");
				continue;
			}
			const u64 task = async && !err ? args_.task : result_.task;

			// Calls of one thread are tasks in their order.
			if (task) {
				u64 &last = last_[orbit.slot];

				if (task <= last)
					fail("P4: task %llu was called after %llu",
					     static_cast<unsigned long long>(task),
					     static_cast<unsigned long long>(last));
				last = task;
			}
			return err;
		}
	}

	void step()
	{
		auto orbit = some_orbit(rng_);
		const bool steady = orbit->fate == Fate::steady;

		if (pending_.size() >= 6 || (!pending_.empty() && pick(25)))
			return collect(rng_.below(pending_.size()));
		switch (rng_.below(16)) {
		case 0:
		case 1:
			return has.queue ? call_async(orbit) : call_look(orbit);
		case 2:
			return has.queue ? call_nothing(orbit) : call_look(orbit);
		case 3:
			return has.queue && cancels ? cancel_some(orbit) : call_look(orbit);
		case 4:
		case 5:
			return steady ? call_look(orbit) : call_deadly(orbit);
		case 6:
			return has.updates ? call_sends(orbit) : call_look(orbit);
		case 7:
			return has.updates ? call_sends_pages(orbit) : call_look(orbit);
		case 8:
			return has.modes ? call_takes(orbit) : call_look(orbit);
		case 9:
			return rng_.one_in(4) ? use_another() : call_look(orbit);
		case 10:
			return rng_.one_in(8) ? use_limited() : call_look(orbit);
		case 11:
			return has.restart && orbit->fate == Fate::phoenix ? call_retried(orbit)
									   : ask(*orbit);
		default:
			return call_look(orbit);
		}
	}

	void after_outcome(const std::shared_ptr<Orbit> &orbit, int err)
	{
		const bool dead = err == -ESHUTDOWN || err == -ENOTCONN ||
				  (orbit->fate == Fate::mortal &&
				   (err == -ECONNRESET || err == -ETIMEDOUT || err == -ECANCELED));

		if (!dead)
			return;

		orbit_stat stat = {};

		if (raw::ctl(orbit->fd, ORBIT_CTL_STAT, stat))
			fail("ORBIT_CTL_STAT fails");
		if (stat.state == ORBIT_STATE_DEAD) {
			enter("making another orbit");
			renew(orbit, rng_);
		}
	}

	void call_look(const std::shared_ptr<Orbit> &orbit)
	{
		TaskArg task = make_task(*orbit, look);

		name_parts(task);
		if (pick(10))
			task.size += rng_.below(pick(10) ? 60000 : 3000);
		note_before(task);
		prepare(task);
		if (has.queue && pick(10))
			args_.deadline_ns = raw::now_ns() + rng_.below(3000000);
		if (has.queue && pick(20))
			args_.flags |= ORBIT_CALL_WAIT_ROOM;
		enter("orbit_call");
		const int err = call(*orbit);
		judge(*orbit, task, err, result_, note_after(), may_of(*orbit));
		after_outcome(orbit, err);
	}

	void call_async(const std::shared_ptr<Orbit> &orbit)
	{
		Pending pending = {orbit, make_task(*orbit, look), {}, -1, may_of(*orbit)};
		const bool wanted = pick(80);

		name_parts(pending.task);
		note_before(pending.task);
		prepare(pending.task);
		args_.flags = ORBIT_CALL_ASYNC | (wanted ? ORBIT_CALL_HANDLE : 0);
		if (pick(20))
			args_.flags |= ORBIT_CALL_WAIT_ROOM;
		if (pick(30)) {
			args_.flags |= ORBIT_CALL_REPLACEABLE;
			pending.may |= may_cancel;
		}
		enter("orbit_call, asynchronous");
		const int err = call(*orbit);
		pending.after = note_after();
		if (err) {
			if (wanted && args_.handle >= 0)
				close(args_.handle);
			judge(*orbit, pending.task, err, result_, pending.after, pending.may);
			return after_outcome(orbit, err);
		}
		if (!wanted)
			return;
		pending.handle = args_.handle;
		if (pending.handle < 0)
			fail("an asynchronous call has made no task descriptor");
		pending_.push_back(pending);
	}

	// The outcome of a task that was called asynchronously.
	void collect(u64 which)
	{
		Pending pending = std::move(pending_[which]);
		orbit_result result = {};

		pending_.erase(pending_.begin() + static_cast<std::ptrdiff_t>(which));
		if (pick(10)) { // not interested any more
			close(pending.handle);
			return;
		}
		if (cancels && pick(10)) {
			orbit_cancel_args args = {};

			args.flags = pending.orbit->fate != Fate::steady && pick(30) ? ORBIT_CANCEL_RUNNING : 0;
			enter("orbit_cancel on a task");
			const int err = raw::cancel(pending.handle, args);
			if (err && err != -ESRCH && err != -EBUSY && !(err == -EINTR))
				fail("orbit_cancel on a task gives %d", err);
			if (!err && args.cancelled != 1)
				fail("orbit_cancel on a task has cancelled %llu",
				     static_cast<unsigned long long>(args.cancelled));
			pending.may |= may_cancel;
		}
		enter("waiting for an outcome");
		if (pick(30)) {
			pollfd fd = {pending.handle, POLLIN, 0};

			poll(&fd, 1, 20);
		}
		const int err = outcome_of(pending.handle, result);

		judge(*pending.orbit, pending.task, err, result, pending.after, pending.may);

		orbit_result again = {};

		if (outcome_of(pending.handle, again) != err || std::memcmp(&again, &result, sizeof(again)))
			fail("P6: a task has two outcomes, %d and another", err);
		close(pending.handle);
		after_outcome(pending.orbit, err);
	}

	int outcome_of(int handle, orbit_result &result)
	{
		for (;;) {
			orbit_recv_args args = {};

			args.flags = ORBIT_RECV_OUTCOME | (pick(30) ? ORBIT_RECV_NOWAIT : 0);
			if (pick(20))
				args.deadline_ns = raw::now_ns() + rng_.below(2000000);
			args.result = number(&result);
			args.result_size = sizeof(result);
			const int err = raw::recv(handle, args);
			if (err == -EAGAIN && (args.flags & ORBIT_RECV_NOWAIT)) {
				raw::sleep_us(100);
				continue;
			}
			if (err == -EINTR || (err == -ETIME && args.deadline_ns))
				continue;
			if (err || args.kind != ORBIT_RECV_END)
				fail("orbit_recv for an outcome gives %d, kind %u", err, args.kind);
			return -static_cast<int>(result.error);
		}
	}

	// Equal arguments, so that calls can be skipped and replaced.
	void call_nothing(const std::shared_ptr<Orbit> &orbit)
	{
		TaskArg task = make_task(*orbit, nothing);
		constexpr u64 ways[] = {ORBIT_CALL_SKIP_SAME, ORBIT_CALL_SKIP_ANY, ORBIT_CALL_REPLACE_SAME,
					ORBIT_CALL_REPLACE_ANY, 0};
		const bool async = pick(70);

		task.seed = rng_.below(2);
		prepare(task);
		args_.flags = rng_.pick(ways) | (async ? ORBIT_CALL_ASYNC : 0) |
			      (pick(50) ? ORBIT_CALL_REPLACEABLE : 0);
		enter("orbit_call, skipping or replacing");
		const u64 flags = args_.flags;
		const int err = call(*orbit);
		if (!err && async)
			return;
		if (err == -EEXIST && !(flags & (ORBIT_CALL_SKIP_SAME | ORBIT_CALL_SKIP_ANY)))
			fail("EEXIST without a flag to skip");
		judge(*orbit, task, err, result_, note_after(),
		      may_of(*orbit) | (flags & ORBIT_CALL_REPLACEABLE ? may_cancel : 0u));
		after_outcome(orbit, err);
	}

	void cancel_some(const std::shared_ptr<Orbit> &orbit)
	{
		TaskArg task = make_task(*orbit, nothing);
		orbit_cancel_args args = {};

		task.seed = rng_.below(2);
		prepare(task);
		args.flags = pick(80) ? ORBIT_CANCEL_SAME : ORBIT_CANCEL_ALL;
		if (args.flags == ORBIT_CANCEL_SAME) {
			args.entry = args_.entry;
			args.arg = args_.arg;
			args.arg_size = args_.arg_size;
		}
		if (orbit->fate != Fate::steady && pick(20))
			args.flags |= ORBIT_CANCEL_RUNNING;
		enter("orbit_cancel");
		const int err = raw::cancel(orbit->fd, args);
		if (err && err != -ESRCH && err != -EBUSY && err != -ESHUTDOWN && err != -EINTR)
			fail("orbit_cancel gives %d", err);
	}

	void call_deadly(const std::shared_ptr<Orbit> &orbit)
	{
		constexpr Kind kinds[] = {segv, aborts, exits, loops, execs, drops, leaves};
		TaskArg task = make_task(*orbit, rng_.pick(kinds));

		if (task.kind == leaves && pick(80)) // noticed within a second, and no sooner
			task.kind = segv;
		task.number = static_cast<u32>(rng_.range(0, 90));
		task.base = pick(50) ? 0x1000 * rng_.range(1, 15) : number(window.at(63)) + rng_.below(4096);
		if (pick(50))
			name_parts(task);
		note_before(task);
		prepare(task);
		if (task.kind == loops)
			args_.time_limit_ns = rng_.range(1, 3000000);
		enter(kind_names[task.kind]);
		const int err = call(*orbit);
		judge(*orbit, task, err, result_, note_after(), may_of(*orbit));
		after_outcome(orbit, err);
	}

	// Dies in the first try, and returns in the second.
	void call_retried(const std::shared_ptr<Orbit> &orbit)
	{
		TaskArg task = make_task(*orbit, fails_once);
		// One at a time for each orbit: they share the note of the first try.
		static std::mutex one;
		const std::lock_guard guard(one);

		shared->slots[orbit->slot].tried = 0;
		prepare(task);
		args_.flags = ORBIT_CALL_RETRY;
		enter("orbit_call, to be tried again");
		const int err = call(*orbit);
		// If somebody kills it in the second try as well, then that is how it ended; and the
		// first try may have been ended before it began.
		const bool aborted = err == -ECONNRESET && result_.cause == ORBIT_CAUSE_SIGNAL &&
				     result_.code == SIGABRT;
		if (!aborted)
			judge(*orbit, task, err, result_, note_after(), may_of(*orbit));
		after_outcome(orbit, err);
	}

	void fill_own(u64 seed)
	{
		for (u64 at = 0; at < private_pages; at++)
			fill(own_ + at * page, seed, at);
	}

	void name_own(u64 first, u64 pages, u32 mode)
	{
		refs_[0] = {};
		refs_[0].fd = own_fd_;
		refs_[0].flags = mode;
		if (first || pages != private_pages) {
			refs_[0].offset = first * page;
			refs_[0].length = pages * page;
		}
		args_.nr_pools = 1;
	}

	// Main gives pages away; it has zeroes then, and the task has them.
	void call_takes(const std::shared_ptr<Orbit> &orbit)
	{
		TaskArg task = make_task(*orbit, takes);
		const bool part = pick(50);

		task.base = number(own_);
		task.first = part ? rng_.below(private_pages) : 0;
		task.pages = part ? rng_.range(1, private_pages - task.first) : private_pages;
		fill_own(task.seed);
		prepare(task);
		name_own(task.first, task.pages, ORBIT_SNAP_MOVE);
		enter("orbit_call, moving pages");
		const int err = call(*orbit);
		judge(*orbit, task, err, result_, note_after(), may_of(*orbit));
		const bool queued = result_.task;
		for (u64 at = 0; at < private_pages; at++) {
			const bool gone = queued && at >= task.first && at < task.first + task.pages;

			if (!(gone ? is_zero(own_ + at * page) : holds(own_ + at * page, task.seed, at)))
				fail("page %llu after a call with MOVE (%d, pages %llu to %llu) is not %s",
				     static_cast<unsigned long long>(at), err,
				     static_cast<unsigned long long>(task.first),
				     static_cast<unsigned long long>(task.first + task.pages),
				     gone ? "zero" : "as it was");
		}
		if (!err)
			count(moved);
		after_outcome(orbit, err);
	}

	int receive(int handle, orbit_recv_args &args)
	{
		int err;

		do
			err = raw::recv(handle, args);
		while (err == -EINTR);
		return err;
	}

	void call_sends(const std::shared_ptr<Orbit> &orbit)
	{
		TaskArg task = make_task(*orbit, sends);
		const bool stream = pick(50);
		std::vector<unsigned char> bytes(512);
		orbit_result result = {};
		u32 got = 0;

		task.number = static_cast<u32>(rng_.range(0, 12));
		if (orbit->fate != Fate::steady && pick(30))
			task.die_after = rng_.below(task.number + 1);
		prepare(task);
		args_.flags = ORBIT_CALL_ASYNC | ORBIT_CALL_HANDLE | (stream ? ORBIT_CALL_STREAM : 0);
		enter("orbit_call, for updates");
		int err = call(*orbit);
		if (err) {
			judge(*orbit, task, err, result_, {}, may_of(*orbit));
			return after_outcome(orbit, err);
		}

		const int handle = args_.handle;

		enter("orbit_recv");
		for (;;) {
			orbit_recv_args args = {};

			args.buf = number(bytes.data());
			args.buf_size = bytes.size();
			args.result = number(&result);
			args.result_size = sizeof(result);
			err = receive(handle, args);
			if (err == -E2BIG) {
				if (args.buf_size <= bytes.size() || args.buf_size > ORBIT_MAX_UPDATE)
					fail("P5: orbit_recv wants room for %llu bytes, and has %zu",
					     static_cast<unsigned long long>(args.buf_size), bytes.size());
				bytes.resize(args.buf_size);
				continue;
			}
			if (err)
				fail("P5: orbit_recv gives %d", err);
			if (args.kind == ORBIT_RECV_END)
				break;
			if (args.kind != ORBIT_RECV_BYTES || args.type != got || args.target != task.seed ||
			    args.buf_size != update_size(task.seed, got))
				fail("P5: update %u has kind %u, type %u, size %llu", got, args.kind, args.type,
				     static_cast<unsigned long long>(args.buf_size));
			for (u64 at = 0; at < args.buf_size; at++)
				if (bytes[at] != static_cast<unsigned char>(task.seed + got + at * 3))
					fail("P5: byte %llu of update %u is wrong", static_cast<unsigned long long>(at),
					     got);
			got++;
			count(updates);
			if (pick(3))
				break; // and no more interest
		}
		if (err || got > task.number)
			fail("P5: %u updates of %u", got, task.number);
		if (pick(50)) {
			err = outcome_of(handle, result);
			judge(*orbit, task, err, result, {}, may_of(*orbit));
			if (!err && (result.updates != task.number || result.value != task.number))
				fail("P5: the outcome tells of %u updates of %u", result.updates, task.number);
			if (err && !stream && got)
				fail("P5: %u updates of a task that ended with %d", got, err);
		} else {
			err = 0;
		}
		close(handle);
		after_outcome(orbit, err);
	}

	void call_sends_pages(const std::shared_ptr<Orbit> &orbit)
	{
		TaskArg task = make_task(*orbit, sends_pages);
		const u64 all = (u64{1} << private_pages) - 1;
		const u64 late_writes = pick(50) ? rng_.next() & rng_.next() & all : 0;
		const bool force = pick(50);
		u64 applied_pages = 0;

		task.base = number(own_);
		task.pages = private_pages;
		task.mask = (rng_.next() & all) | 1 | u64{1} << (private_pages - 1);
		if (pick(10))
			task.mask = all;
		task.number = static_cast<u32>(rng_.range(1, 2));
		fill_own(task.seed);
		prepare(task);
		name_own(0, private_pages, static_cast<u32>(has.modes ? rng_.below(3) : 0));
		args_.flags = ORBIT_CALL_ASYNC | ORBIT_CALL_HANDLE | (pick(50) ? ORBIT_CALL_STREAM : 0);
		enter("orbit_call, for pages");
		int err = call(*orbit);
		if (err) {
			judge(*orbit, task, err, result_, {}, may_of(*orbit));
			return after_outcome(orbit, err);
		}

		const int handle = args_.handle;
		orbit_result result = {};

		for (u64 at = 0; at < private_pages; at++)
			if (late_writes >> at & 1)
				fill(own_ + at * page, task.seed + 3, at);
		enter("orbit_recv of pages");
		for (u32 piece = 0;; piece++) {
			std::array<orbit_page_range, private_pages> ranges;
			orbit_recv_args args = {};

			args.buf = number(ranges.data());
			args.buf_size = sizeof(ranges);
			args.result = number(&result);
			args.result_size = sizeof(result);
			err = receive(handle, args);
			if (err)
				fail("P5: orbit_recv of pages gives %d", err);
			if (args.kind == ORBIT_RECV_END)
				break;
			if (args.kind != ORBIT_RECV_PAGES || args.type != piece || args.target != task.seed ||
			    args.pool || args.buf_size % sizeof(ranges[0]))
				fail("P5: update %u of pages has kind %u, type %u, pool %u, size %llu", piece,
				     args.kind, args.type, args.pool,
				     static_cast<unsigned long long>(args.buf_size));
			for (u64 n = 0; n < args.buf_size / sizeof(ranges[0]); n++)
				applied_pages |= apply(handle, ranges[n], task, late_writes, force);
			count(updates);
		}
		err = -static_cast<int>(result.error);
		judge(*orbit, task, err, result, {}, may_of(*orbit));
		close(handle);
		if (!err && applied_pages != task.mask)
			fail("P5: the task has sent pages %#llx, and %#llx have come",
			     static_cast<unsigned long long>(task.mask),
			     static_cast<unsigned long long>(applied_pages));
		// Lesson 6: what it did not touch is main's, and so is what main wrote since.
		for (u64 at = 0; at < private_pages; at++) {
			const u64 bit = u64{1} << at;
			const bool main_wrote = late_writes & bit;
			const u64 want = (applied_pages & bit) && (!main_wrote || force) ? 1 : main_wrote ? 3 : 0;

			if (!holds(own_ + at * page, task.seed + want, at))
				fail("P5: after an update page %llu is not as it should be (sent %d, main wrote %d, "
				     "force %d, mode %u)",
				     static_cast<unsigned long long>(at), !!(applied_pages & bit), main_wrote, force,
				     refs_[0].flags);
		}
		after_outcome(orbit, err);
	}

	// Applies one range; the pages of it.
	u64 apply(int handle, const orbit_page_range &range, const TaskArg &task, u64 late_writes, bool force)
	{
		const u64 first = range.offset / page, pages = range.length / page;
		orbit_apply_args args = {};
		u64 mask = 0, clashes;

		if (range.offset % page || range.length % page || !pages || first + pages > private_pages)
			fail("P5: a range of pages from %#llx, %#llx long",
			     static_cast<unsigned long long>(range.offset),
			     static_cast<unsigned long long>(range.length));
		for (u64 at = first; at < first + pages; at++)
			mask |= u64{1} << at;
		if (mask & ~task.mask)
			fail("P5: pages %#llx have come, and the task wrote to %#llx",
			     static_cast<unsigned long long>(mask),
			     static_cast<unsigned long long>(task.mask));
		clashes = static_cast<u64>(__builtin_popcountll(mask & late_writes));
		args.from = range.offset;
		args.length = range.length;
		args.pool = own_fd_;
		args.offset = range.offset;

		int err = raw::ctl(handle, ORBIT_CTL_APPLY, args);

		if (err == -ENOMEM && pressed)
			_exit(77);
		if (err || args.applied != pages - clashes || args.conflicts != clashes)
			fail("P5: ORBIT_CTL_APPLY of %llu pages, %llu of them written to, gives %d: %llu applied, "
			     "%llu not (mode %u)",
			     static_cast<unsigned long long>(pages), static_cast<unsigned long long>(clashes), err,
			     static_cast<unsigned long long>(args.applied),
			     static_cast<unsigned long long>(args.conflicts), refs_[0].flags);
		count(applied, args.applied);
		count(conflicts, args.conflicts);
		if (!force || !clashes)
			return mask;
		args.flags = ORBIT_APPLY_FORCE;
		args.applied = args.conflicts = 0;
		err = raw::ctl(handle, ORBIT_CTL_APPLY, args);
		if (err == -ENOMEM && pressed)
			_exit(77);
		if (err || args.applied != clashes || args.conflicts)
			fail("P5: ORBIT_CTL_APPLY by force of %llu pages gives %d: %llu applied, %llu not",
			     static_cast<unsigned long long>(clashes), err,
			     static_cast<unsigned long long>(args.applied),
			     static_cast<unsigned long long>(args.conflicts));
		count(applied, args.applied);
		return mask;
	}

	// An orbit and a pool for a moment; destroyed while tasks wait.
	void use_another()
	{
		enter("using another orbit");
		auto orbit = make_orbit(pick(30) && has.restart ? Fate::phoenix : Fate::steady, rng_);
		const unsigned room = next_room_++ % 32 + 16;
		const u64 pages = rng_.range(1, 8);
		TaskArg task = make_task(*orbit, takes);
		std::vector<int> handles;
		static std::mutex rooms; // of these pools
		const std::lock_guard guard(rooms);
		const int fd = raw::make_pool(pages * page);

		if (fd < 0 || !raw::map_pool(fd, window.at(room), pages * page))
			give_up("another pool", fd);
		for (u64 at = 0; at < pages; at++)
			fill(window.at(room) + at * page, task.seed, at);
		task.base = number(window.at(room));
		task.pages = pages;
		prepare(task);
		refs_[0].fd = fd;
		args_.nr_pools = 1;
		int err = call(*orbit);
		judge(*orbit, task, err, result_, {}, 0);
		for (unsigned n = 0; has.queue && n < 3; n++) {
			prepare(task);
			refs_[0].fd = fd;
			args_.nr_pools = 1;
			args_.flags = ORBIT_CALL_ASYNC | ORBIT_CALL_HANDLE;
			err = call(*orbit);
			judge(*orbit, task, err, result_, {}, 0);
			if (!err)
				handles.push_back(args_.handle);
		}
		// In any order: the orbit, the pool's mapping, its descriptor.
		for (u64 n = 0, first = rng_.below(3); n < 3; n++) {
			const u64 what = (first + n) % 3;

			if (what == 0) {
				close(orbit->fd);
				orbit->fd = -1;
			} else if (what == 1) {
				window.clear(room, pages * page);
			} else {
				close(fd);
			}
		}
		for (const int handle : handles) {
			orbit_result result = {};

			judge(*orbit, task, outcome_of(handle, result), result, {}, may_end);
			close(handle);
		}
	}

	// An orbit with limits that its task runs into.
	void use_limited()
	{
		if (!has.limits)
			return;
		constexpr Kind kinds[] = {greedy, spins, opens};
		orbit_create_args limits = {};

		limits.memory_limit = 8 << 20;
		limits.nr_files = static_cast<u32>(rng_.range(8, 40));
		limits.cpu_percent = pick(50) ? static_cast<u32>(rng_.range(20, 100)) : 0;
		enter("using an orbit with limits");
		auto orbit = make_orbit(Fate::steady, rng_, limits);
		TaskArg task = make_task(*orbit, rng_.pick(kinds));

		prepare(task);
		if (task.kind == spins)
			args_.cpu_limit_ns = rng_.range(1, 20000000);
		const int err = call(*orbit);
		judge(*orbit, task, err, result_, {}, 0);
		if (!err && task.kind == opens && result_.value >= limits.nr_files)
			fail("P8: an orbit that may have %u descriptors open has opened %llu more",
			     limits.nr_files, static_cast<unsigned long long>(result_.value));
	}

	void ask(const Orbit &orbit)
	{
		char path[40], text[1024];
		pollfd fd = {orbit.fd, POLLOUT, 0};
		orbit_stat stat = {};

		enter("asking for statistics");
		if (raw::ctl(orbit.fd, ORBIT_CTL_STAT, stat) || stat.completed > stat.calls)
			fail("ORBIT_CTL_STAT tells of %llu calls and %llu completed",
			     static_cast<unsigned long long>(stat.calls),
			     static_cast<unsigned long long>(stat.completed));
		poll(&fd, 1, 0);
		std::snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", orbit.fd);
		read_text(path, text, sizeof(text));
	}

	static inline std::atomic<unsigned> next_room_{max_pools};

	Rng rng_;
	Beat &beat_;
	int own_fd_ = -1;
	unsigned own_room_ = 0;
	char *own_ = nullptr;
	std::array<orbit_pool_ref, max_pools> refs_;
	std::vector<char> bytes_;
	orbit_call_args args_;
	orbit_result result_;
	std::vector<Pending> pending_;
	std::map<u32, u64> last_;
};

void write_until_the_end(unsigned lane, u64 seed, Beat &beat)
{
	Rng rng(seed);

	while (!ending) {
		{
			beat.what = "writing to a pool";
			beat.since = raw::now_ns();
			const std::shared_lock guard(layout);

			for (u64 writes = rng.range(1, 64); writes; writes--)
				write_next(lane, rng);
			beat.since = 0;
		}
		if (rng.one_in(3))
			raw::sleep_us(rng.below(500));
	}
}

// ---- Trouble -----------------------------------------------------------------------

class Trouble {
public:
	Trouble(u64 seed, Beat &beat, const std::vector<pthread_t> &callers)
		: rng_(seed), beat_(beat), callers_(callers)
	{
	}

	void run()
	{
		while (!ending) {
			raw::sleep_us(rng_.below(4000));
			beat_.what = "making trouble";
			beat_.since = raw::now_ns();
			switch (rng_.below(6)) {
			case 0:
			case 1:
				kill_orbit();
				break;
			case 2:
				pthread_kill(callers_[rng_.below(callers_.size())], SIGUSR1);
				break;
			case 3:
			case 4:
				change_layout();
				break;
			default:
				if (rng_.one_in(4))
					fork_child();
			}
			beat_.since = 0;
		}
	}

private:
	// A pid is anybody's once its process has gone; a pidfd is not.
	void kill_orbit()
	{
		const auto orbit = some_orbit(rng_);
		orbit_stat first = {}, second = {};
		const bool its_template = has.restart && rng_.one_in(10);

		if (orbit->fate == Fate::steady || raw::ctl(orbit->fd, ORBIT_CTL_STAT, first))
			return;
		if (rng_.one_in(12)) {
			orbit->doomed = true;
			raw::ctl(orbit->fd, ORBIT_CTL_KILL);
			return;
		}
		const pid_t pid = its_template ? first.template_pid : first.pid;
		const int pidfd = pid > 0 ? static_cast<int>(syscall(SYS_pidfd_open, pid, 0)) : -1;

		if (pidfd < 0)
			return;
		raw::ctl(orbit->fd, ORBIT_CTL_STAT, second);
		if ((its_template ? second.template_pid : second.pid) == pid) {
			if (rng_.one_in(3)) {
				syscall(SYS_pidfd_send_signal, pidfd, SIGSTOP, nullptr, 0);
				raw::sleep_us(rng_.below(3000));
				syscall(SYS_pidfd_send_signal, pidfd, SIGCONT, nullptr, 0);
			} else {
				if (its_template)
					orbit->doomed = true;
				syscall(SYS_pidfd_send_signal, pidfd, SIGKILL, nullptr, 0);
			}
		}
		close(pidfd);
	}

	// The pools' memory calls, and whether main has its own contents then (P1).
	void change_layout()
	{
		const auto pool = static_cast<unsigned>(rng_.below(cut.pools));
		const std::size_t bytes = cut.pages[pool] * page;
		const std::size_t from = rng_.below(cut.pages[pool]) * page;
		const std::size_t part = rng_.range(1, (bytes - from) / page) * page;
		char *const at = cut.base(pool) + from;
		constexpr int advice[] = {MADV_DONTNEED, MADV_WILLNEED, MADV_RANDOM, MADV_COLD, MADV_PAGEOUT,
					  MADV_MERGEABLE, MADV_HUGEPAGE, MADV_DONTDUMP, MADV_DOFORK};
		const std::unique_lock guard(layout);

		count(layouts);
		switch (rng_.below(remaps ? 6 : 4)) {
		case 0:
			mprotect(at, part, rng_.one_in(2) ? PROT_NONE : PROT_READ);
			raw::sleep_us(rng_.below(300));
			if (mprotect(at, part, PROT_READ | PROT_WRITE))
				give_up("mprotect", -errno);
			break;
		case 1:
		case 2:
			madvise(at, part, rng_.pick(advice));
			break;
		case 3:
			mlock(at, part);
			munlock(at, part);
			break;
		default: // a part, then all; and again
			if (rng_.one_in(2)) {
				mmap(at, part, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED,
				     -1, 0);
				raw::sleep_us(rng_.below(300));
			}
			if (!window.clear(pool, bytes))
				give_up("unmapping a pool", -errno);
			raw::sleep_us(rng_.below(300));
			if (!raw::map_pool(cut.fds[pool], cut.base(pool), bytes))
				give_up("mapping a pool again", -errno);
		}
		check_main();
	}

	// With nobody writing, every word is exactly known.
	static void check_main()
	{
		for (unsigned lane = 0; lane < lanes; lane++) {
			const u64 last = cut.finished[lane];

			for (u64 seq = last - cut.size + 1; seq <= last; seq++) {
				const u32 where = cut.place[seq % cut.size];

				if (load(cut.at_place(lane, where)) != Cut::tagged(lane, where, seq))
					fail("P1: main's own page has %#llx of lane %u, and number %llu was written",
					     static_cast<unsigned long long>(load(cut.at_place(lane, where))), lane,
					     static_cast<unsigned long long>(seq));
			}
		}
		for (unsigned pool = 0; pool < cut.pools; pool++)
			for (unsigned at = 0; at < cut.pages[pool]; at++)
				for (unsigned i = still_from; i < words; i += 7)
					if (load(cut.word(pool, at, i)) != Cut::still(cut.word(pool, at, i)))
						fail("P1: a word of main's that nobody writes to has changed");
	}

	// A child has neither the pools nor the right to call (P10).
	void fork_child()
	{
		const auto orbit = some_orbit(rng_);
		const pid_t pid = fork();

		if (pid < 0)
			return;
		if (!pid) {
			orbit_call_args args = {};
			unsigned char in_core[1];

			prctl(PR_SET_NAME, process_name('f').c_str());
			if (raw::call(orbit->fd, args) != -EPERM)
				_exit(1);
			if (!mincore(cut.base(0), page, in_core) || errno != ENOMEM)
				_exit(2);
			_exit(0);
		}
		int status = -1;

		while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
			;
		count(forks);
		// With MADV_DOFORK it has a mapping without contents.
		if (status && !(pressed && WIFSIGNALED(status)) &&
		    !(WIFEXITED(status) && WEXITSTATUS(status) == 2))
			fail("P10: a child of main ends with status %#x", static_cast<unsigned>(status));
	}

	Rng rng_;
	Beat &beat_;
	const std::vector<pthread_t> &callers_;
};

// ---- A main program ------------------------------------------------------------------

void join_cgroup(const char *directory)
{
	char path[128];

	std::snprintf(path, sizeof(path), "%s/cgroup.procs", directory);

	const int fd = open(path, O_WRONLY | O_CLOEXEC);

	if (fd >= 0) {
		pressed = write(fd, "0", 1) == 1;
		close(fd);
	}
}

[[noreturn]] void be_main(u64 seed, Beat *beats, const char *cgroup)
{
	Rng rng(seed);
	struct sigaction action = {};
	std::vector<std::thread> threads;
	std::vector<pthread_t> callers;
	unsigned beat = 0;

	main_seed = seed;
	prctl(PR_SET_NAME, process_name('m').c_str());
	action.sa_handler = [](int) {};
	action.sa_flags = rng.one_in(2) ? SA_RESTART : 0;
	sigaction(SIGUSR1, &action, nullptr);
	if (cgroup)
		join_cgroup(cgroup);
	remaps = rng.one_in(2);
	cancels = rng.one_in(2);
	if (!window.reserve())
		fail("no window");
	set_up_cut(rng);
	for (unsigned lane = 0; lane < lanes; lane++)
		for (u64 n = 0; n < cut.size; n++)
			write_next(lane, rng);

	const auto fate = [&rng] {
		const u64 which = rng.below(3);

		return which == 0 ? Fate::steady : which == 1 || !has.restart ? Fate::mortal : Fate::phoenix;
	};

	nr_orbits = static_cast<unsigned>(rng.range(1, orbits.size()));
	for (unsigned i = 0; i < nr_orbits; i++)
		orbits[i] = make_orbit(fate(), rng);
	for (unsigned lane = 0; lane < lanes; lane++)
		threads.emplace_back(write_until_the_end, lane, rng.next(), std::ref(beats[beat++]));
	for (u64 n = rng.range(1, 4); n; n--) {
		threads.emplace_back([seed = rng.next(), at = &beats[beat]] { Caller(seed, *at).run(); });
		callers.push_back(threads.back().native_handle());
		beat++;
	}
	threads.emplace_back([seed = rng.next(), at = &beats[beat], &callers] {
		Trouble(seed, *at, callers).run();
	});

	for (const u64 until = raw::now_ns() + rng.range(500, 5000) * 1000000;
	     raw::now_ns() < until && !shared->stop;)
		raw::sleep_us(20000);
	switch (rng.below(4)) {
	case 0:
		_exit(0); // in the middle of everything
	case 1: {
		char name[] = "stress", nothing_to_do[] = "--nothing";
		char *const argv[] = {name, nothing_to_do, nullptr};

		execv("/proc/self/exe", argv);
		fail("no exec: %d", errno);
	}
	default:
		ending = true;
		for (std::thread &thread : threads)
			thread.join();
		for (auto &orbit : orbits)
			orbit.reset();
		_exit(0);
	}
}

// ---- The supervisor ------------------------------------------------------------------

struct Main {
	pid_t pid = 0;
	u64 seed = 0, end = 0; // when to kill it, or 0
	bool killed = false, pressed = false;
};

// What a main program has left behind, and until when that may last.
struct Gone {
	std::string prefix;
	u64 deadline;
};

struct Options {
	u64 seconds = 20, seed = 0, mains = 3, patience = 120, census = 0;
	bool require_all = false;
};

constexpr const char *cgroup_root = "/sys/fs/cgroup/orbit-stress";

bool put_text(const std::string &path, const char *text)
{
	const int fd = open(path.c_str(), O_WRONLY | O_CLOEXEC);
	const bool done = fd >= 0 && write(fd, text, std::strlen(text)) == static_cast<ssize_t>(std::strlen(text));

	if (fd >= 0)
		close(fd);
	return done;
}

std::string make_cgroup()
{
	const std::string path = cgroup_root;

	if ((mkdir(path.c_str(), 0755) && errno != EEXIST) || !put_text(path + "/memory.max", "6M"))
		return "";
	put_text(path + "/memory.swap.max", "0");
	return path;
}

void check_beats(u64 patience, const Main *mains, u64 nr)
{
	for (u64 m = 0; m < nr; m++) {
		for (const Beat &beat : shared->beats[m]) {
			const u64 since = beat.since;
			const char *const what = beat.what;
			const u64 now = raw::now_ns();

			if (!since || since > now || now - since < patience * 1000000000)
				continue;
			main_seed = mains[m].seed;
			std::fprintf(stderr, "main program %d:%s\n", mains[m].pid,
				     where_it_is(mains[m].pid).c_str());
			each_process([](const Process &process) {
				if (process.name.starts_with("st"))
					std::fprintf(stderr, "%s:%s\n", process.name.c_str(),
						     where_it_is(process.pid).c_str());
			});
			if (!shared->failed.exchange(true)) {
				std::snprintf(shared->why, sizeof(shared->why),
					      "main program %llu: P6: a thread hangs, since %llu s: %s",
					      static_cast<unsigned long long>(mains[m].seed),
					      static_cast<unsigned long long>((now - since) / 1000000000),
					      what ? what : "?");
				shared->told = true;
			}
		}
	}
}

// Those whose main program has ended must be gone soon (P9).
void check_gone(std::vector<Gone> &list)
{
	std::set<std::string> there;

	if (list.empty())
		return;
	each_process([&](const Process &process) {
		for (const Gone &gone : list)
			if (process.name.starts_with(gone.prefix))
				there.insert(gone.prefix);
	});
	std::erase_if(list, [&](const Gone &gone) { return !there.contains(gone.prefix); });
	for (const Gone &gone : list) {
		if (raw::now_ns() < gone.deadline || shared->failed.exchange(true))
			continue;
		each_process([&](const Process &process) {
			if (process.name.starts_with(gone.prefix))
				std::fprintf(stderr, "left behind: %d %s%s:%s\n", process.pid,
					     process.name.c_str(), process.zombie ? " (zombie)" : "",
					     where_it_is(process.pid).c_str());
		});
		std::snprintf(shared->why, sizeof(shared->why), "P9: %s: processes are left of it",
			      gone.prefix.c_str());
		shared->told = true;
	}
}

// A page that is freed while locked, and unlocked then, is locked for ever for whoever gets it
// next. The kernel notices that with CONFIG_DEBUG_VM only; we look into /proc/kpageflags.
class LockedPages {
public:
	// Free pages must not be locked. In seconds of the run, as it takes some time.
	void look_at_free()
	{
		const u64 begin = raw::now_ns();

		if (begin < next_)
			return;
		report(seen_again(locked | buddy, 2), "free");

		const u64 end = raw::now_ns();

		// A look takes seconds on a debug kernel, and meanwhile nobody is killed.
		next_ = end + std::max(interval, 9 * (end - begin));
	}

	// When all is over, no page may be.
	void look_at_all() { report(seen_again(locked, 4), "used by nobody who could unlock it"); }

private:
	static constexpr u64 locked = 1 << 0, buddy = 1 << 10; // KPF_LOCKED, KPF_BUDDY
	static constexpr u64 interval = 4000000000;

	static std::set<u64> scan(u64 flags)
	{
		static std::array<u64, 8192> batch;
		std::set<u64> found;
		const int fd = open("/proc/kpageflags", O_RDONLY | O_CLOEXEC);
		u64 at = 0;

		for (ssize_t got; fd >= 0 && (got = read(fd, batch.data(), sizeof(batch))) > 0;)
			for (std::size_t n = 0; n < static_cast<std::size_t>(got) / sizeof(u64); n++, at++)
				if ((batch[n] & flags) == flags)
					found.insert(at);
		if (fd >= 0)
			close(fd);
		// A look that sees no page proves nothing.
		if (!at && !shared->failed.exchange(true)) {
			std::snprintf(shared->why, sizeof(shared->why), "/proc/kpageflags cannot be read");
			shared->told = true;
		}
		return found;
	}

	// Once is not enough: a page's flags are not read at one moment.
	static std::set<u64> seen_again(u64 flags, int times)
	{
		std::set<u64> all = scan(flags);

		for (int n = 1; n < times && !all.empty(); n++) {
			raw::sleep_us(200000);
			const std::set<u64> now = scan(flags);
			std::erase_if(all, [&](u64 number) { return !now.contains(number); });
		}
		return all;
	}

	static void report(const std::set<u64> &pages, const char *what)
	{
		if (pages.empty() || shared->failed.exchange(true))
			return;
		std::snprintf(shared->why, sizeof(shared->why),
			      "P9: %zu pages, the first at %#llx, are locked although %s", pages.size(),
			      static_cast<unsigned long long>(*pages.begin() * page), what);
		shared->told = true;
	}

	u64 next_ = raw::now_ns() + interval;
};

void print_figures(const Options &options, u64 begin)
{
	std::printf("stress: seed %llu:", static_cast<unsigned long long>(options.seed));
	for (unsigned n = 0; n < nr_counters; n++)
		std::printf("%s %s %llu", n ? "," : "", counter_names[n],
			    static_cast<unsigned long long>(shared->counts[n].load()));
	std::printf("; seconds %.1f\n", static_cast<double>(raw::now_ns() - begin) / 1e9);
}

int report_failure(const Options &options)
{
	for (int n = 0; n < 200 && !shared->told; n++)
		raw::sleep_us(10000);
	std::printf("stress: FAILED with --seed %llu: %s\n", static_cast<unsigned long long>(options.seed),
		    shared->why);
	return 1;
}

// What must happen in a run that proves something; null if it has.
const char *not_counted()
{
	for (const Counter must : {returned, reset, timed_out, verified, orbits_made, mains_killed})
		if (!shared->counts[must])
			return counter_names[must];
	return nullptr;
}

int supervise(const Options &options)
{
	const u64 begin = raw::now_ns(), end = begin + options.seconds * 1000000000;
	const u64 latest = end + options.patience * 1000000000;
	const std::string cgroup = make_cgroup();
	std::array<Main, max_mains> mains;
	std::vector<Gone> gone;
	u64 born = 0;
	Rng rng(options.seed);
	LockedPages locked;

	if (cgroup.empty())
		std::printf("stress: no memory cgroup: nothing is tried with little memory\n");
	for (bool left = true; left;) {
		// A busy machine gets more time for the least that must happen.
		const bool over = shared->failed || (raw::now_ns() >= end &&
						     (!not_counted() || raw::now_ns() >= latest));

		shared->stop = over;
		left = !gone.empty();
		for (u64 m = 0; m < options.mains; m++) {
			Main &main = mains[m];
			int status;

			if (main.pid && waitpid(main.pid, &status, WNOHANG) == main.pid) {
				const bool killed = WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL;

				// Out of memory, it may be killed itself, or have got a SIGBUS.
				if (!(WIFEXITED(status) && !WEXITSTATUS(status)) && !(killed && main.killed) &&
				    !main.pressed && !shared->failed.exchange(true)) {
					std::snprintf(shared->why, sizeof(shared->why),
						      "main program %llu: it ended with status %#x",
						      static_cast<unsigned long long>(main.seed),
						      static_cast<unsigned>(status));
					shared->told = true;
				}
				gone.push_back({name_prefix(main.seed), raw::now_ns() +
							options.patience * 1000000000});
				main.pid = 0;
			}
			if (main.pid) {
				if ((main.end && raw::now_ns() >= main.end) || shared->failed) {
					kill(main.pid, SIGKILL);
					count(mains_killed, !main.killed);
					main.killed = true;
				}
			} else if (!over) {
				main = {};
				main.seed = raw::mix(options.seed * 1000003 + born++);
				main.pressed = !cgroup.empty() && rng.one_in(4);
				if (rng.one_in(2))
					main.end = raw::now_ns() + rng.below(3000) * 1000000;
				for (Beat &beat : shared->beats[m])
					beat.since = 0;
				std::fflush(stdout);
				main.pid = fork();
				if (!main.pid)
					be_main(main.seed, shared->beats[m],
						main.pressed ? cgroup.c_str() : nullptr);
				count(mains_made);
			}
			left |= main.pid > 0;
		}
		left |= !over;
		check_beats(options.patience, mains.data(), options.mains);
		check_gone(gone);
		locked.look_at_free();
		if (shared->failed)
			gone.clear();
		raw::sleep_us(20000);
	}
	locked.look_at_all();
	if (!cgroup.empty())
		rmdir(cgroup.c_str());
	print_figures(options, begin);
	if (shared->failed)
		return report_failure(options);
	// A stress that does nothing must not pass.
	if (const char *const what = not_counted()) {
		std::printf("stress: FAILED: nothing was counted as \"%s\"\n", what);
		return 1;
	}
	return 0;
}

bool known_features(const Options &options)
{
	const orbit_info info = raw::query();
	const struct {
		u64 bit;
		const char *what;
		bool Has::*member;
	} all[] = {
		{ORBIT_FEATURE_QUEUE, "asynchronous calls", &Has::queue},
		{ORBIT_FEATURE_MODES, "modes and ranges", &Has::modes},
		{ORBIT_FEATURE_UPDATES, "updates", &Has::updates},
		{ORBIT_FEATURE_RESTART, "restarts", &Has::restart},
		{ORBIT_FEATURE_LIMITS, "limits", &Has::limits},
	};
	bool complete = true;

	if (!info.abi) {
		std::printf("stress: this kernel has no orbits\n");
		return false;
	}
	for (const auto &each : all) {
		has.*each.member = info.features & each.bit;
		if (has.*each.member)
			continue;
		complete = false;
		std::printf("stress: THIS KERNEL HAS NO %s: not tried\n", each.what);
	}
	// Without handles there is nothing to receive from.
	has.updates &= has.queue;
	return complete || !options.require_all;
}

} // namespace

int main(int argc, char **argv)
{
	Options options;

	if (argc > 1 && !std::strcmp(argv[1], "--nothing"))
		return 0;
	if (!read_options("stress", argc, argv,
			  {{"--seconds", &options.seconds}, {"--seed", &options.seed}, {"--mains", &options.mains},
			   {"--patience", &options.patience}, {"--census", &options.census}},
			  &options.require_all))
		return 2;
	options.mains = std::min<u64>(options.mains, max_mains);
	if (!options.seed)
		options.seed = raw::now_ns() % 1000000;
	std::setvbuf(stdout, nullptr, _IOLBF, 0);

	void *const memory = mmap(nullptr, sizeof(Shared), PROT_READ | PROT_WRITE,
				  MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	if (memory == MAP_FAILED) {
		std::perror("stress");
		return 1;
	}
	shared = new (memory) Shared{};
	if (!known_features(options))
		return 1;
	if (options.census)
		return census::run(options.census, options.seed, options.patience, options.require_all);
	return supervise(options);
}
