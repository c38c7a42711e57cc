// SPDX-License-Identifier: MIT
//
// What a supervisor tells other programs of its domains, in a memory file of its own. orbitctl reads it, through
// /proc/PID/fd: it believes nothing of it.
#ifndef ORBIT_ISOLATION_STATUS_H
#define ORBIT_ISOLATION_STATUS_H

#include <orbit/zone.hpp>

#include <atomic>
#include <cstdint>
#include <cstring>
#include <string_view>

namespace orbit::isolation {

inline constexpr std::uint64_t status_magic = 0x3173756174736f2a;

// What files are called: with the number of the supervisor in its program; of the heap's, with which part it is, too.
inline constexpr char status_name[] = "orbit-domains:";
inline constexpr char heap_name[] = "orbit-heap:";
inline constexpr char counters_name[] = "orbit-device:"; // likewise, with the domain's number: a DeviceCounters

enum class DomainState : std::uint32_t { none, starting, serving, down };

/// Of one domain. Words are written by many threads, each for itself; texts by one that has the domain's lock, and while it
/// does `version` is odd.
struct DomainStatus {
	std::atomic<std::uint32_t> version;
	std::atomic<DomainState> state;
	std::atomic<std::uint32_t> pid; ///< 0: none.
	std::atomic<std::uint32_t> rings; ///< Whether it is called over rings.
	std::atomic<std::uint64_t> starts, calls, failed;
	char name[64]; ///< Cut off, with a 0.
	char last_end[160]; ///< Cut off, with a 0. Empty: it has not died yet.
	char device[64]; ///< Cut off, with a 0. Empty: it drives none.
	std::atomic<std::uint64_t> silenced; ///< How often that was made silent.
};

/// By DomainId, the main program being 1.
struct SupervisorStatus {
	std::uint64_t magic;
	std::uint32_t size; ///< Of a DomainStatus: another release's may have more at its end.
	std::uint32_t domains;
	std::uint32_t heap_parts; ///< Files that are the heap, in this order.
	std::uint32_t reserved;
	DomainStatus domain[max_domains];
};

template <std::size_t bytes> void set_text(DomainStatus &status, char (&at)[bytes], std::string_view text)
{
	const std::size_t length = text.size() < bytes ? text.size() : bytes - 1;

	status.version.fetch_add(1);
	std::memset(at, 0, bytes);
	std::memcpy(at, text.data(), length);
	status.version.fetch_add(1);
}

} // namespace orbit::isolation

#endif
