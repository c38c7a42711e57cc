// SPDX-License-Identifier: MIT
//
// What the supervisor of a stress run shares with the main programs that it starts
// and with their orbits: counters, the first failure, and signs of life.
#ifndef ORBIT_STRESS_SHARED_H
#define ORBIT_STRESS_SHARED_H

#include "raw.h"

#include <algorithm>
#include <atomic>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <dirent.h>
#include <initializer_list>
#include <set>
#include <string>

namespace stress {

using raw::u32;
using raw::u64;

enum Counter : unsigned {
	calls,
	returned,
	reset,
	timed_out,
	cancelled,
	no_memory,
	full,
	skipped,
	late,
	interrupted,
	down,
	unmapped,
	verified,
	moved,
	updates,
	applied,
	conflicts,
	orbits_made,
	orbits_killed,
	mains_made,
	mains_killed,
	forks,
	layouts,
	nr_counters,
};

constexpr const char *counter_names[nr_counters] = {
	"calls",	 "returned",	  "orbit died",	   "timed out",	   "cancelled",
	"no memory",	 "queue full",	  "skipped",	   "late",	   "interrupted",
	"orbit is down", "pool unmapped", "snapshots verified", "moved",   "updates",
	"pages applied", "conflicts",	  "orbits made",   "orbits killed", "mains made",
	"mains killed",	 "forks",	  "layout changes",
};

constexpr unsigned max_mains = 8;
constexpr unsigned max_threads = 16;
constexpr unsigned max_slots = 4096;

// What a thread does, and since when: nothing may take for ever.
struct Beat {
	std::atomic<u64> since;
	std::atomic<const char *> what; // a literal, at the same address everywhere
};

// What is known of one orbit, whatever process it has.
struct Slot {
	std::atomic<u64> last_task;
	std::atomic<u64> tried;
};

struct Shared {
	std::atomic<bool> stop, failed, told;
	std::atomic<u32> next_slot;
	char why[4096];
	std::atomic<u64> counts[nr_counters];
	Beat beats[max_mains][max_threads];
	Slot slots[max_slots];
};

inline Shared *shared;
inline u64 main_seed; // of this main program, for the report

inline void count(Counter counter, u64 n = 1)
{
	shared->counts[counter].fetch_add(n, std::memory_order_relaxed);
}

// Ends the process, and with the first report the run.
[[noreturn, gnu::format(printf, 1, 2)]] inline void fail(const char *format, ...)
{
	if (!shared->failed.exchange(true)) {
		std::va_list list;
		int used = std::snprintf(shared->why, sizeof(shared->why), "main program %llu: ",
					 static_cast<unsigned long long>(main_seed));

		va_start(list, format);
		std::vsnprintf(shared->why + used, sizeof(shared->why) - static_cast<std::size_t>(used),
			       format, list);
		va_end(list);
		shared->told = true;
	}
	_exit(99);
}

// ---- Who is there ----------------------------------------------------------------

struct Process {
	pid_t pid = 0;
	std::string name;
	bool kernel = false, zombie = false;
};

inline bool read_text(const char *path, char *text, std::size_t room)
{
	const int fd = open(path, O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		return false;

	const ssize_t got = read(fd, text, room - 1);

	close(fd);
	text[got > 0 ? got : 0] = 0;
	return got > 0;
}

inline bool read_process(pid_t pid, Process &process)
{
	char path[40], text[512], state = 0;
	unsigned flags = 0;

	std::snprintf(path, sizeof(path), "/proc/%d/stat", pid);
	if (!read_text(path, text, sizeof(text)))
		return false;

	char *const first = std::strchr(text, '('), *const last = std::strrchr(text, ')');

	if (!first || !last ||
	    std::sscanf(last + 1, " %c %*d %*d %*d %*d %*d %u", &state, &flags) != 2)
		return false;
	process.pid = pid;
	process.name.assign(first + 1, last);
	process.kernel = flags & 0x00200000; // PF_KTHREAD
	process.zombie = state == 'Z' || state == 'X';
	return true;
}

template <class F> void each_process(F &&f)
{
	DIR *const proc = opendir("/proc");

	while (dirent *const entry = proc ? readdir(proc) : nullptr) {
		Process process;
		const int pid = std::atoi(entry->d_name);

		if (pid > 0 && read_process(pid, process))
			f(process);
	}
	if (proc)
		closedir(proc);
}

struct Option {
	const char *name;
	u64 *value;
};

// A program's options, all but one of which have a value. False: an unknown one, of which it tells.
inline bool read_options(const char *program, int argc, char **argv, std::initializer_list<Option> options,
			 bool *require_all)
{
	for (int n = 1; n < argc; n++) {
		const std::string name = argv[n];
		const auto *const option = std::find_if(options.begin(), options.end(),
							[&](const Option &each) { return name == each.name; });

		if (option != options.end()) {
			*option->value = n + 1 < argc ? std::strtoull(argv[++n], nullptr, 0) : 0;
		} else if (name == "--require-all") {
			*require_all = true;
		} else {
			std::fprintf(stderr, "%s: unknown option %s\n", program, argv[n]);
			return false;
		}
	}
	return true;
}

// Where a process is: for the report of one that hangs.
inline std::string where_it_is(pid_t pid)
{
	std::string all;
	char path[64], text[2048];

	std::snprintf(path, sizeof(path), "/proc/%d/task", pid);
	DIR *const tasks = opendir(path);

	while (dirent *const entry = tasks ? readdir(tasks) : nullptr) {
		if (entry->d_name[0] == '.')
			continue;
		all += std::string("\n  ") + entry->d_name;
		for (const char *what : {"comm", "syscall", "stack"}) {
			std::snprintf(path, sizeof(path), "/proc/%d/task/%.12s/%s", pid, entry->d_name, what);
			if (!read_text(path, text, sizeof(text)))
				continue;
			// A line for each task: what is printed last is what is seen of a failure.
			for (char *at = std::strtok(text, "\n"); at; at = std::strtok(nullptr, "\n"))
				all += std::string(" ") + (std::strncmp(at, "[<0>] ", 6) ? at : at + 6);
		}
	}
	if (tasks)
		closedir(tasks);
	return all;
}

} // namespace stress

#endif // ORBIT_STRESS_SHARED_H
