// SPDX-License-Identifier: MIT
#include "domains.h"

#include "../../isolation/status.h"

#include <orbit/call.hpp>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <fcntl.h>
#include <memory>
#include <new>
#include <sys/stat.h>
#include <unistd.h>

namespace orbitctl {

namespace {

using orbit::isolation::Census;
using orbit::isolation::DeviceCounters;
using orbit::isolation::DomainState;
using orbit::isolation::DomainStatus;
using orbit::isolation::SupervisorStatus;
using orbit::isolation::max_domains;
using orbit::isolation::max_zones;

// Of a heap without its zones. What is larger is not looked at.
constexpr std::uint64_t most_bytes = std::uint64_t{1} << 30;
constexpr std::string_view deleted = " (deleted)";

class File {
public:
	explicit File(const std::filesystem::path &path) : fd_(open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK)) {}
	File(const File &) = delete;
	~File()
	{
		if (fd_ >= 0)
			close(fd_);
	}
	std::uint64_t size() const
	{
		struct stat stat {};

		return fd_ >= 0 && !fstat(fd_, &stat) && S_ISREG(stat.st_mode) ? static_cast<std::uint64_t>(stat.st_size) : 0;
	}
	bool read(void *to, std::size_t bytes, std::uint64_t at) const
	{
		return pread(fd_, to, bytes, static_cast<off_t>(at)) == static_cast<ssize_t>(bytes);
	}
	// The first `bytes` of it, where `to` is zeroes. Holes are not read: that would fill them.
	void read_data(std::byte *to, std::uint64_t bytes) const
	{
		for (off_t at = 0, end = 0; static_cast<std::uint64_t>(at) < bytes; at = end) {
			at = lseek(fd_, at, SEEK_DATA);
			end = at < 0 ? -1 : lseek(fd_, at, SEEK_HOLE);
			if (end <= at)
				return;
			for (off_t from = at; from < end && static_cast<std::uint64_t>(from) < bytes;) {
				const ssize_t got = pread(fd_, to + from, std::min(static_cast<std::uint64_t>(end), bytes) - static_cast<std::uint64_t>(from), from);
				if (got <= 0)
					return;
				from += got;
			}
		}
	}

private:
	int fd_;
};

// "PREFIX<number>" or "PREFIX<number>:<part>".
bool parse(std::string_view link, std::string_view prefix, bool has_part, unsigned *number, unsigned *part)
{
	int behind = -1;

	if (!link.starts_with("/memfd:") || !link.ends_with(deleted))
		return false;
	link.remove_prefix(std::strlen("/memfd:"));
	link.remove_suffix(deleted.size());
	if (!link.starts_with(prefix))
		return false;
	const std::string rest(link.substr(prefix.size()));
	*part = 0;
	if (has_part)
		std::sscanf(rest.c_str(), "%9u:%9u%n", number, part, &behind);
	else
		std::sscanf(rest.c_str(), "%9u%n", number, &behind);
	return behind == static_cast<int>(rest.size());
}

template <std::size_t bytes> std::string text_of(const char (&text)[bytes])
{
	return std::string(text, strnlen(text, bytes));
}

const char *name_of(DomainState state)
{
	return state == DomainState::starting ? "starting" : state == DomainState::serving ? "serving" : "down";
}

// False: there is none.
bool read_domain(const File &file, std::uint64_t at, Domain *domain)
{
	alignas(DomainStatus) std::byte bytes[sizeof(DomainStatus)];

	// A text may be being written.
	for (int tries = 0; tries < 100; tries++) {
		std::uint32_t again;

		if (!file.read(bytes, sizeof(bytes), at) || !file.read(&again, sizeof(again), at + offsetof(DomainStatus, version)))
			return false;
		const auto &status = *std::launder(reinterpret_cast<const DomainStatus *>(bytes));
		const DomainState state = status.state;
		if (state == DomainState::none)
			return false;
		if (status.version != again || again % 2)
			continue;
		domain->name = text_of(status.name);
		domain->state = name_of(state);
		domain->via = status.rings ? "ring" : "call";
		if (status.pid)
			domain->pid = status.pid;
		domain->starts = status.starts;
		domain->calls = status.calls;
		domain->failed = status.failed;
		domain->last_end = text_of(status.last_end);
		domain->device = text_of(status.device);
		if (!domain->device.empty())
			domain->silenced = status.silenced;
		return true;
	}
	return false;
}

// What a driver has written, at its will.
void read_counters(const File &file, Domain *domain)
{
	alignas(DeviceCounters) std::byte bytes[sizeof(DeviceCounters)];

	if (!file.read(bytes, sizeof(bytes), 0))
		return;
	const auto &counters = *std::launder(reinterpret_cast<const DeviceCounters *>(bytes));
	const std::uint64_t queues = std::min<std::uint64_t>(counters.queues, DeviceCounters::most_queues);
	std::uint64_t requests = 0, errors = 0;

	if (!queues)
		return;
	// Those of all: a process before may have had more.
	for (const DeviceCounters::Queue &queue : counters.queue) {
		requests += queue.requests;
		errors += queue.errors;
	}
	domain->queues = queues;
	domain->requests = requests;
	domain->errors = errors;
}

// Of a heap whose first parts these are. False: they are none, or have become others.
bool take_census(const std::deque<File> &parts, std::uint64_t bytes, Census *census)
{
	// As much of it as there are no data for is never touched.
	const std::unique_ptr<void, decltype(&std::free)> memory(std::calloc(bytes, 1), std::free);
	auto *const heap = static_cast<std::byte *>(memory.get());
	std::uint64_t at = 0;

	for (const File &part : parts) {
		const std::uint64_t size = std::min(part.size(), bytes - at); // it may have changed
		if (heap)
			part.read_data(heap + at, size);
		at += size;
	}
	return heap && orbit::isolation::census_of({heap, bytes}, census);
}

} // namespace

bool SupervisorFiles::add(int fd, std::string_view link)
{
	Found found{0, 0, fd};

	if (parse(link, orbit::isolation::status_name, false, &found.supervisor, &found.part))
		statuses_.push_back(found);
	else if (parse(link, orbit::isolation::heap_name, true, &found.supervisor, &found.part))
		heaps_.push_back(found);
	else if (parse(link, orbit::isolation::counters_name, true, &found.supervisor, &found.part))
		counters_.push_back(found);
	else
		return false;
	return true;
}

std::vector<Domain> SupervisorFiles::read(const std::filesystem::path &fds) const
{
	std::vector<Domain> all;

	for (const Found &each : statuses_) {
		const auto same = [&](const Found &other) { return other.supervisor == each.supervisor; };
		// What is open more than once is shown once.
		if (&*std::find_if(statuses_.begin(), statuses_.end(), same) != &each)
			continue;
		const File status(fds / std::to_string(each.fd));
		struct {
			std::uint64_t magic;
			std::uint32_t size, domains, heap_parts;
		} head{};

		if (!status.read(&head, sizeof(head), 0) || head.magic != orbit::isolation::status_magic ||
		    head.size < sizeof(DomainStatus) || head.size > 65536 || head.domains > max_domains ||
		    head.heap_parts > max_domains + max_zones + 1)
			continue;

		// The header, and behind it the records, one part for each domain and the supervisor: as much as there is.
		std::deque<File> parts;
		std::uint64_t bytes = 0;
		for (unsigned i = 0; i <= head.domains && i < head.heap_parts && bytes <= most_bytes; i++) {
			const auto found = std::find_if(heaps_.begin(), heaps_.end(),
							[&](const Found &file) { return same(file) && file.part == i; });
			if (found != heaps_.end())
				bytes += std::min(parts.emplace_back(fds / std::to_string(found->fd)).size(), most_bytes + 1);
		}
		Census census;
		const bool counted = bytes <= most_bytes && take_census(parts, bytes, &census);
		for (std::uint32_t id = 0; id < head.domains; id++) {
			Domain domain;

			if (!read_domain(status, offsetof(SupervisorStatus, domain) + std::uint64_t{id} * head.size, &domain))
				continue;
			if (counted) {
				domain.owned = census.owned[id];
				domain.lent = census.lent[id];
			}
			const auto counters = std::find_if(counters_.begin(), counters_.end(),
							   [&](const Found &found) { return same(found) && found.part == id; });
			if (!domain.device.empty() && counters != counters_.end())
				read_counters(File(fds / std::to_string(counters->fd)), &domain);
			all.push_back(std::move(domain));
		}
	}
	return all;
}

} // namespace orbitctl
