// SPDX-License-Identifier: MIT
//
// The census: a main program is killed at some point of its life, and then nobody and
// nothing may be left of it (P9).  Many rounds, for the points to be many.
#ifndef ORBIT_STRESS_CENSUS_H
#define ORBIT_STRESS_CENSUS_H

#include "shared.h"

#include <algorithm>
#include <array>
#include <csignal>
#include <fstream>
#include <map>
#include <sstream>
#include <sys/stat.h>
#include <sys/wait.h>
#include <thread>
#include <vector>

namespace census {

using stress::u32;
using stress::u64;

// The points of a life.  The parent waits for one, and some microseconds more.
enum Point : u32 {
	born,
	pools_made,
	orbit_made,
	orbit_forked,
	template_made,
	called,
	in_a_call,
	queued,
	receiving,
	applying,
	cancelling,
	all_again,
	nr_points,
};

constexpr const char *point_names[nr_points] = {
	"born",	  "pools made", "orbit made", "orbit forked", "template made", "called",
	"in a call", "queued",  "receiving",  "applying",     "cancelling",    "all again",
};

inline std::atomic<u32> *point; // shared with the main program
inline raw::Window window;

constexpr std::size_t pool_bytes = 16 * raw::page;

enum Entry : u64 { echo, sleep_a_moment, send_all, loop };

inline u64 run_task(int server, u64 entry, u64 arg)
{
	if (entry == sleep_a_moment)
		raw::sleep_us(arg);
	while (entry == loop)
		;
	if (entry != send_all)
		return arg;

	orbit_send_args args = {};
	char bytes[3000] = {};

	args.data = raw::number(bytes);
	args.length = sizeof(bytes);
	for (u64 n = 0; n < arg; n++)
		raw::send(server, args);
	for (std::size_t at = 0; at < pool_bytes; at += 2 * raw::page)
		window.at(0)[at] = 1;
	args.flags = ORBIT_SEND_PAGES;
	args.data = raw::number(window.at(0));
	args.length = pool_bytes;
	raw::send(server, args);
	return arg;
}

inline void serve(int server)
{
	orbit_return_args args = {};
	u64 arg = 0;

	for (;;) {
		args.arg = raw::number(&arg);
		args.arg_size = sizeof(arg);
		const int err = raw::give_back(server, args);
		if (err == -EINTR)
			continue;
		if (err)
			_exit(1);
		args.value = run_task(server, args.entry, arg);
	}
}

inline void reached(Point where)
{
	point->store(where);
}

// A life goes on until somebody ends it.  Nothing is expected of it: it leaves with 0
// wherever it cannot go on, and the parent counts that.
[[noreturn]] inline void live(u64 seed, u64 features)
{
	raw::Rng rng(seed);
	std::array<int, 2> pools = {};
	std::array<orbit_pool_ref, 2> refs = {};
	orbit_create_args create = {};
	const bool has_queue = features & ORBIT_FEATURE_QUEUE;

	prctl(PR_SET_NAME, "census-main");
	if (!window.reserve())
		_exit(3);
	for (unsigned n = 0; n < pools.size(); n++) {
		pools[n] = raw::make_pool(pool_bytes);
		if (pools[n] < 0 || !raw::map_pool(pools[n], window.at(n), pool_bytes))
			_exit(3);
		std::memset(window.at(n), 1, pool_bytes);
		refs[n].fd = pools[n];
	}
	reached(pools_made);

	const int orbit = raw::create(create);
	int phoenix = -1;

	if (orbit < 0)
		_exit(3);
	reached(orbit_made);
	if (raw::start(orbit, window, ORBIT_CTL_ATTACH, "census-orbit", serve))
		_exit(3);
	reached(orbit_forked);
	if (features & ORBIT_FEATURE_RESTART) {
		create.flags = ORBIT_CREATE_RESTART;
		phoenix = raw::create(create);
		if (phoenix < 0 ||
		    raw::start(phoenix, window, ORBIT_CTL_TEMPLATE, "census-templ",
			       [](int fd) { raw::be_template(fd, serve); }))
			_exit(3);
		// The template makes the first process too, if it is faster.
		if (const int err = raw::start(phoenix, window, ORBIT_CTL_ATTACH, "census-orbit", serve);
		    err && err != -EBUSY)
			_exit(3);
	}
	reached(template_made);

	u64 arg = 0;
	orbit_call_args args = {};
	orbit_result result = {};
	const auto call = [&](int fd, u64 entry, u64 value, u64 flags) {
		arg = value;
		args = {};
		args.flags = flags;
		args.entry = entry;
		args.arg = raw::number(&arg);
		args.arg_size = sizeof(arg);
		args.pools = raw::number(refs.data());
		args.nr_pools = refs.size();
		args.result = raw::number(&result);
		args.result_size = sizeof(result);
		for (const unsigned n : {0u, 1u})
			for (std::size_t at = 0; at < pool_bytes; at += raw::page)
				if (rng.one_in(2))
					window.at(n)[at] = static_cast<char>(rng.next());
		return raw::call(fd, args);
	};

	if (call(orbit, echo, 1, 0))
		_exit(3);
	reached(called);
	// Others call as well, and write at the same time.
	std::thread([fd = rng.one_in(2) && phoenix >= 0 ? phoenix : orbit, r = refs] {
		for (;;) {
			u64 bytes = 500;
			orbit_call_args args = {};

			args.entry = sleep_a_moment;
			args.arg = raw::number(&bytes);
			args.arg_size = sizeof(bytes);
			args.pools = raw::number(r.data());
			args.nr_pools = r.size();
			window.at(0)[0]++;
			raw::call(fd, args);
		}
	}).detach();
	reached(in_a_call);
	for (u64 round = 0;; round++) {
		const int fd = round % 2 && phoenix >= 0 ? phoenix : orbit;

		if (round)
			reached(all_again);
		call(fd, sleep_a_moment, 300, 0);
		if (!has_queue)
			continue;

		std::vector<int> handles;

		for (int n = 0; n < 6; n++)
			if (!call(fd, n % 3 ? send_all : sleep_a_moment, 3, ORBIT_CALL_ASYNC | ORBIT_CALL_HANDLE |
									    (n == 4 ? ORBIT_CALL_STREAM : 0)))
				handles.push_back(args.handle);
		if (!round)
			reached(queued);
		for (const int handle : handles) {
			for (;;) {
				char buf[4096];
				orbit_recv_args recv = {};

				recv.buf = raw::number(buf);
				recv.buf_size = sizeof(buf);
				if (!round)
					reached(receiving);
				if (!(features & ORBIT_FEATURE_UPDATES))
					recv.flags = ORBIT_RECV_OUTCOME;
				if (raw::recv(handle, recv) || recv.kind == ORBIT_RECV_END)
					break;
				if (recv.kind != ORBIT_RECV_PAGES)
					continue;

				orbit_apply_args apply = {};

				apply.length = pool_bytes;
				apply.pool = pools[0];
				apply.flags = ORBIT_APPLY_FORCE;
				if (!round)
					reached(applying);
				raw::ctl(handle, ORBIT_CTL_APPLY, apply);
			}
			close(handle);
		}
		// One that loops, and its end.
		if (!round)
			reached(cancelling);
		if (phoenix >= 0 && !call(phoenix, loop, 0, ORBIT_CALL_ASYNC)) {
			orbit_cancel_args cancel = {};

			cancel.flags = ORBIT_CANCEL_ALL | ORBIT_CANCEL_RUNNING;
			raw::sleep_us(rng.below(1000));
			raw::cancel(phoenix, cancel);
		}
	}
}

// ---- What is left -------------------------------------------------------------------

// How many objects are in use in each slab cache, and some of /proc/meminfo in KiB.
struct Figures {
	std::map<std::string, long> slabs, memory, slab_room; // slab_room: objects in one slab
	bool has_orbit_caches = false;
};

inline void put(const std::string &path, const char *text)
{
	const int fd = open(path.c_str(), O_WRONLY | O_CLOEXEC);

	if (fd >= 0) {
		[[maybe_unused]] const ssize_t done = write(fd, text, std::strlen(text));

		close(fd);
	}
}

inline void shrink_slabs(std::string_view prefix)
{
	DIR *const slabs = opendir("/sys/kernel/slab");

	while (dirent *const entry = slabs ? readdir(slabs) : nullptr)
		if (entry->d_name[0] != '.' && std::string_view(entry->d_name).starts_with(prefix))
			put(std::string("/sys/kernel/slab/") + entry->d_name + "/shrink", "1");
	if (slabs)
		closedir(slabs);
}

// Gives back what is kept only for speed: caches of caches, a processor's free pages, and
// KASAN's quarantine.  Names and inodes that were looked up lately survive a first pass.
inline void settle()
{
	for (int pass = 0; pass < 3; pass++) {
		put("/proc/sys/vm/drop_caches", "3");
		put("/sys/module/rcutree/parameters/do_rcu_barrier", "1");
	}
	put("/proc/sys/vm/compact_memory", "1");
	shrink_slabs("");
	// Where the buffers of these very writes were, which are in the quarantine now.
	shrink_slabs("kmalloc-");
}

inline Figures take_figures(const std::string &cgroup)
{
	Figures figures;
	std::string line, name;
	std::ifstream slabinfo("/proc/slabinfo"), meminfo("/proc/meminfo");
	std::ifstream charged(cgroup + "/memory.current");
	long bytes;

	while (std::getline(slabinfo, line)) {
		std::istringstream words(line);
		long active, all, bytes_each, room;

		if (words >> name >> active >> all >> bytes_each >> room) {
			figures.slabs[name] = active;
			figures.slab_room[name] = room;
			figures.has_orbit_caches |= name.starts_with("orbit");
		}
	}
	while (std::getline(meminfo, line)) {
		long kib = 0;
		char what[64];

		if (std::sscanf(line.c_str(), "%63[^:]: %ld", what, &kib) == 2)
			figures.memory[what] = kib;
	}
	if (charged >> bytes)
		figures.memory["charged to the cgroup"] = bytes / 1024;
	return figures;
}

struct Bound {
	const char *what;
	long kib;
	bool falls; // less of it is the bad direction
};

// What has grown more than it may, in words; empty if nothing has.
inline std::string grown(const Figures &before, const Figures &now, u64 rounds)
{
	constexpr Bound bounds[] = {
		{"MemAvailable", 8192, true},	   {"SUnreclaim", 1024, false}, {"Shmem", 128, false},
		{"PageTables", 256, false},	   {"KernelStack", 256, false}, {"AnonPages", 512, false},
		{"charged to the cgroup", 512, false},
	};
	// A leak is one in every so many rounds; what comes and goes is not.
	const long objects = 64 + static_cast<long>(rounds / 50);
	std::ostringstream text;

	for (const Bound &bound : bounds) {
		const auto a = before.memory.find(bound.what), b = now.memory.find(bound.what);

		if (a == before.memory.end() || b == now.memory.end())
			continue;
		const long more = bound.falls ? a->second - b->second : b->second - a->second;

		if (more > bound.kib)
			text << bound.what << " from " << a->second << " to " << b->second << " KiB; ";
	}
	for (const auto &[name, active] : now.slabs) {
		const auto old = before.slabs.find(name);
		const long was = old == before.slabs.end() ? 0 : old->second;
		const bool ours = name.starts_with("orbit");

		if (name == "debug_objects_cache")
			continue; // a checker's, which keeps what it has once needed

		// Of a slab that a processor allocates from, all objects count as in use.
		const long uncertain = 4 * now.slab_room.at(name);

		if (active - was > (ours ? 0 : objects + uncertain))
			text << "slab " << name << " from " << was << " to " << active << " objects; ";
	}
	return text.str();
}

inline std::set<pid_t> people()
{
	std::set<pid_t> all;

	stress::each_process([&](const stress::Process &process) {
		if (!process.kernel)
			all.insert(process.pid);
	});
	return all;
}

inline int run(u64 rounds, u64 seed, u64 patience, bool require_all)
{
	const std::string cgroup = "/sys/fs/cgroup/orbit-census";
	const u64 warm_up = std::max<u64>(20, rounds / 50), begin = raw::now_ns();
	const u64 features = raw::query().features;
	const std::set<pid_t> before = people();
	std::array<u64, nr_points> killed = {};
	raw::Rng rng(seed);
	u64 left_by_itself = 0, not_reached = 0;
	Figures first;

	point = new (mmap(nullptr, raw::page, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0))
		std::atomic<u32>(0);
	mkdir(cgroup.c_str(), 0755);
	for (u64 round = 0; round < rounds + warm_up; round++) {
		const auto where = static_cast<Point>(rng.below(nr_points));
		const u64 delay = rng.one_in(3) ? 0 : rng.below(rng.one_in(4) ? 3000 : 200);
		const u64 main_seed = rng.next();
		const u64 deadline = raw::now_ns() + patience * 1000000000;
		int status;

		if (round == warm_up) {
			settle();
			first = take_figures(cgroup);
		}
		point->store(born);
		const pid_t pid = fork();
		if (!pid) {
			put(cgroup + "/cgroup.procs", "0");
			live(main_seed, features);
		}
		// What this kernel lacks is passed over: the next point is reached instead.
		bool arrived;
		while (!(arrived = point->load() >= where) && raw::now_ns() < deadline) {
			siginfo_t ended = {};

			if (!waitid(P_PID, static_cast<id_t>(pid), &ended, WEXITED | WNOHANG | WNOWAIT) &&
			    ended.si_pid)
				break;
			raw::sleep_us(20);
		}
		if (delay)
			raw::sleep_us(delay);
		siginfo_t ended = {};
		const u32 there = point->load();

		waitid(P_PID, static_cast<id_t>(pid), &ended, WEXITED | WNOHANG | WNOWAIT);
		kill(pid, SIGKILL);
		waitpid(pid, &status, 0);
		if (ended.si_pid) {
			left_by_itself++;
			std::printf("census: round %llu: the main program ended with status %#x after \"%s\"\n",
				    static_cast<unsigned long long>(round), static_cast<unsigned>(status),
				    point_names[there]);
		} else if (!arrived) {
			not_reached++;
			std::printf("census: round %llu: the main program has not come from \"%s\" to \"%s\"\n",
				    static_cast<unsigned long long>(round), point_names[there],
				    point_names[where]);
		}
		killed[there]++;

		std::set<pid_t> now;
		do {
			now = people();
			std::erase_if(now, [&](pid_t each) { return before.contains(each); });
		} while (!now.empty() && raw::now_ns() < deadline && (raw::sleep_us(300), true));
		for (const pid_t each : now) {
			stress::Process process;

			stress::read_process(each, process);
			std::printf("census: FAILED in round %llu with --seed %llu, killed %llu us after \"%s\": %d %s "
				    "is left%s\n",
				    static_cast<unsigned long long>(round), static_cast<unsigned long long>(seed),
				    static_cast<unsigned long long>(delay), point_names[there], each,
				    process.name.c_str(), stress::where_it_is(each).c_str());
		}
		if (!now.empty())
			return 1;
	}

	// What RCU and work queues still hold is let go within seconds.
	Figures last;
	std::string more;

	for (int tries = 0; tries < 20; tries++) {
		settle();
		last = take_figures(cgroup);
		more = grown(first, last, rounds);
		if (more.empty())
			break;
		raw::sleep_us(500000);
	}
	std::printf("census: seed %llu: rounds %llu", static_cast<unsigned long long>(seed),
		    static_cast<unsigned long long>(rounds + warm_up));
	for (u32 n = 0; n < nr_points; n++)
		std::printf(", killed after %s %llu", point_names[n], static_cast<unsigned long long>(killed[n]));
	std::printf("; slab %ld to %ld KiB, charged %ld to %ld KiB, available %ld to %ld KiB, seconds %.1f\n",
		    first.memory["SUnreclaim"], last.memory["SUnreclaim"],
		    first.memory["charged to the cgroup"], last.memory["charged to the cgroup"],
		    first.memory["MemAvailable"], last.memory["MemAvailable"],
		    static_cast<double>(raw::now_ns() - begin) / 1e9);
	rmdir(cgroup.c_str());
	if (!more.empty()) {
		std::printf("census: FAILED with --seed %llu: %s\n", static_cast<unsigned long long>(seed),
			    more.c_str());
		return 1;
	}
	if (left_by_itself || not_reached) {
		std::printf("census: FAILED: %llu main programs ended before they were killed, %llu did not get "
			    "where they should\n",
			    static_cast<unsigned long long>(left_by_itself),
			    static_cast<unsigned long long>(not_reached));
		return 1;
	}
	if (!last.has_orbit_caches) {
		std::printf("census: /proc/slabinfo lists no cache of orbits: boot with slab_nomerge\n");
		return require_all;
	}
	return 0;
}

} // namespace census

#endif // ORBIT_STRESS_CENSUS_H
