// SPDX-License-Identifier: MIT
#include "processes.h"

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstdio>
#include <dirent.h>
#include <fcntl.h>
#include <memory>
#include <unistd.h>

namespace orbitctl {

namespace {

constexpr std::size_t most = 64 * 1024; // of a file; the kernel's are far shorter

std::optional<int> to_int(std::string_view text)
{
	int number = 0;
	const auto [behind, error] = std::from_chars(text.data(), text.data() + text.size(), number);

	if (error != std::errc() || behind != text.data() + text.size() || number < 0)
		return {};
	return number;
}

// 0 or an errno value.
int read_file(const std::filesystem::path &path, std::string *text)
{
	const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	int err = fd < 0 ? errno : 0;

	text->clear();
	while (!err && text->size() < most) {
		char buffer[4096];
		const ssize_t count = ::read(fd, buffer, sizeof(buffer));

		if (count < 0)
			err = errno;
		if (count <= 0)
			break;
		text->append(buffer, static_cast<std::size_t>(count));
	}
	if (fd >= 0)
		close(fd);
	return err;
}

// The entries of a directory that are numbers, in order. 0 or an errno value.
int read_numbers(const std::filesystem::path &path, std::vector<int> *numbers)
{
	const std::unique_ptr<DIR, int (*)(DIR *)> dir(opendir(path.c_str()), closedir);

	if (!dir)
		return errno;
	errno = 0;
	while (const dirent *entry = readdir(dir.get())) {
		if (const std::optional<int> number = to_int(entry->d_name))
			numbers->push_back(*number);
		errno = 0;
	}
	std::sort(numbers->begin(), numbers->end());
	return errno;
}

// What follows the name in /proc/PID/stat: it stands in parentheses, and may hold anything.
const char *after_name(const std::string &stat)
{
	const std::size_t at = stat.rfind(')');

	return at == std::string::npos ? "" : stat.c_str() + at + 1;
}

// What is open more than once is shown once, where that can be told: by a process that lives,
// or by an address.
bool same(const Orbit &a, const Orbit &b)
{
	return a.pid.value_or(0) && a.pid == b.pid && a.name == b.name && a.state != "dead" &&
	       b.state != "dead";
}

bool same(const Pool &a, const Pool &b)
{
	return a.address.value_or(0) && a.address == b.address;
}

bool same(const Task &, const Task &)
{
	return false;
}

template <class T> void add(std::vector<Held<T>> *all, int fd, T object)
{
	for (const Held<T> &held : *all)
		if (same(held.object, object))
			return;
	all->push_back({fd, std::move(object)});
}

void add(Process *process, int fd, Object object)
{
	if (auto *orbit = std::get_if<Orbit>(&object))
		add(&process->orbits, fd, std::move(*orbit));
	else if (auto *pool = std::get_if<Pool>(&object))
		add(&process->pools, fd, std::move(*pool));
	else if (auto *task = std::get_if<Task>(&object))
		add(&process->tasks, fd, std::move(*task));
}

// ---- The portable backend ---------------------------------------------------------------
//
// The kernel knows nothing of its orbits, but shows what they are made of. Main has a memory file
// for each pool, and a pidfd for each orbit's process, whose parent, the fork server, has one for main.

constexpr std::string_view pool_file = "/memfd:orbit-pool:", deleted = " (deleted)";
constexpr std::string_view comm_prefix = "orbit:";

std::string read_link(const std::filesystem::path &path)
{
	std::error_code error;

	return std::filesystem::read_symlink(path, error).string();
}

bool is_pidfd(std::string_view link)
{
	return link == "anon_inode:[pidfd]";
}

// The number of a process that a pidfd is for; 0 if it has ended.
int read_pidfd(const std::filesystem::path &process, int fd)
{
	std::string text;
	int pid = 0;

	if (read_file(process / "fdinfo" / std::to_string(fd), &text))
		return 0;

	const std::size_t at = text.find("\nPid:");

	return at != std::string::npos && std::sscanf(text.c_str() + at, " Pid: %d", &pid) == 1 && pid > 0 ? pid : 0;
}

bool has_pidfd_for(const std::filesystem::path &process, int pid)
{
	std::vector<int> fds;

	if (read_numbers(process / "fd", &fds))
		return false;
	return std::any_of(fds.begin(), fds.end(), [&](int fd) {
		return is_pidfd(read_link(process / "fd" / std::to_string(fd))) && read_pidfd(process, fd) == pid;
	});
}

// The name of an orbit whose process this is, if its main program is that one.
std::optional<std::string> orbit_name(const std::filesystem::path &proc, int pid, int main)
{
	const std::filesystem::path process = proc / std::to_string(pid);
	std::string name, text;
	int parent = 0;

	if (read_file(process / "comm", &name) || !name.starts_with(comm_prefix) ||
	    read_file(process / "stat", &text) || std::sscanf(after_name(text), " %*c %d", &parent) != 1 ||
	    !has_pidfd_for(proc / std::to_string(parent), main))
		return {};
	name.erase(0, comm_prefix.size());
	if (name.ends_with('\n'))
		name.pop_back();
	return name;
}

void add_portable(const std::filesystem::path &proc, int fd, const std::string &link, Process *process)
{
	const std::filesystem::path base = proc / std::to_string(process->pid);

	if (link.starts_with(pool_file) && link.ends_with(deleted)) {
		std::error_code error;
		const auto size = std::filesystem::file_size(base / "fd" / std::to_string(fd), error);
		Pool pool;

		pool.name = link.substr(pool_file.size(), link.size() - pool_file.size() - deleted.size());
		if (!error)
			pool.size = size;
		process->pools.push_back({fd, std::move(pool)});
		process->portable = true;
	} else if (is_pidfd(link)) {
		const int pid = read_pidfd(base, fd);
		const std::optional<std::string> name = pid ? orbit_name(proc, pid, process->pid) : std::nullopt;
		Orbit orbit;

		if (!name)
			return;
		orbit.name = *name;
		orbit.pid = pid;
		process->orbits.push_back({fd, std::move(orbit)});
		process->portable = true;
	}
}

} // namespace

int Processes::read(int pid, Process *process) const
{
	const std::filesystem::path base = proc_ / std::to_string(pid);
	std::vector<int> fds;
	SupervisorFiles supervisors;
	std::string text;

	*process = {};
	process->pid = pid;
	if (read_file(base / "comm", &process->name))
		return ESRCH;
	while (!process->name.empty() && process->name.back() == '\n')
		process->name.pop_back();
	// It may end at any moment, and close descriptors.
	if (const int err = read_numbers(base / "fd", &fds))
		return err == ENOENT ? ESRCH : err;
	for (const int fd : fds) {
		char link[256];
		const ssize_t length = readlink((base / "fd" / std::to_string(fd)).c_str(), link, sizeof(link));

		if (length < 0 && (errno == EACCES || errno == EPERM))
			return errno;
		if (length <= 0)
			continue;

		const std::string_view what(link, static_cast<std::size_t>(length));

		if (what.starts_with("anon_inode:[orbit") &&
		    !read_file(base / "fdinfo" / std::to_string(fd), &text))
			add(process, fd, parse_fdinfo(what, text));
		else if (!supervisors.add(fd, what))
			add_portable(proc_, fd, std::string(what), process);
	}
	process->domains = supervisors.read(base / "fd");
	return 0;
}

std::vector<Process> Processes::read_all(std::size_t *others) const
{
	std::vector<Process> all;
	std::vector<int> pids;

	*others = 0;
	read_numbers(proc_, &pids);
	for (const int pid : pids) {
		Process process;
		const int err = read(pid, &process);

		if (err == EACCES || err == EPERM)
			++*others;
		else if (!err && !process.empty())
			all.push_back(std::move(process));
	}
	return all;
}

std::optional<Load> Processes::load(std::uint64_t pid) const
{
	const std::filesystem::path base = proc_ / std::to_string(pid);
	unsigned long long user, system, pages;
	std::string text;

	if (!pid || read_file(base / "stat", &text) ||
	    std::sscanf(after_name(text), " %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %llu %llu", &user, &system) != 2)
		return {};
	if (read_file(base / "statm", &text) || std::sscanf(text.c_str(), "%*u %llu", &pages) != 1)
		return {};
	return Load{user + system, pages * static_cast<std::uint64_t>(sysconf(_SC_PAGESIZE))};
}

} // namespace orbitctl
