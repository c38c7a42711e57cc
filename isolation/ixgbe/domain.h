// SPDX-License-Identifier: MIT
//
// A driver of an 82599 as a domain: how its supervisor makes it. Needs what orbit-idl makes of net.idl.hpp.
#ifndef ORBIT_ISOLATION_IXGBE_DOMAIN_H
#define ORBIT_ISOLATION_IXGBE_DOMAIN_H

#include "net.orbit.hpp"
#include "worker.h"

#include "../pci/events.h"

#include <orbit/domain.hpp>
#include <orbit/pci.hpp>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <string>
#include <vector>

namespace orbit::ixgbe {

struct DomainSettings {
	std::string name = "ixgbe";
	/// Where callers' frames are; the domain has part in them. An application domain that looks at packets has part in its own.
	std::vector<Zone> frames{Zone{0}};
	Zone rings{1};			   ///< For the driver alone.
	std::uint64_t iova = 0x10000000;
	/// Of each of its `callers` is an object that serves (`domain->proxy<net::DeviceProxy>(n)`), with a thread and queues of its own: so
	/// callers do not wait for one another. The card spreads flows over queues (RSS); what is no IP packet comes by queue 0.
	net::Settings port{.queues = 1, .entries = 512, .frame_bytes = 2048, .longest = 1514, .promiscuous = false};
	/// Calls that wait sleep in the domain until the device interrupts, and do not look and nap meanwhile: that leaves the processor
	/// to others, and takes longer. Needs a vector of MSI-X for each queue, and one more: EOPNOTSUPP.
	bool interrupts = false;
	std::chrono::nanoseconds timeout = std::chrono::seconds(5); ///< Of each call.
	Restarts restarts = {.most = 10};
};

/// How large the zone of the rings is to be. The heap rounds sizes of buffers up, by an eighth at most.
inline std::size_t rings_bytes(const net::Settings &port, std::size_t ports = 1)
{
	const std::size_t bytes = ports * (Port::memory_for({.queues = port.queues, .entries = port.entries}) + isolation::page_bytes);

	return (bytes * 9 / 8 + 2 * isolation::page_bytes - 1) / isolation::page_bytes * isolation::page_bytes;
}

namespace detail {

inline std::shared_ptr<Worker> worker(const isolation::Connection &connection)
{
	static const auto one = std::make_shared<Worker>(*connection.endpoint, connection.counters);

	return one;
}

inline bool is_82599(const pci::Device &device)
{
	const pci::Identity &is = device.identity();

	return is.vendor == vendor_intel && (is.device == device_sfp || is.device == device_backplane);
}

} // namespace detail

/// What devices need to be driven by a domain, for Supervisor::start(): device n is port n. Start says ENODEV if one is no
/// 82599, and has touched none of its registers then. They outlive the domain, and are nobody else's: they reach the zones and no other memory, and are silenced whenever
/// the domain has died.
inline DomainOptions domain_options(Supervisor &supervisor, std::span<pci::Device *const> devices, const DomainSettings &settings)
{
	const std::vector<pci::Device *> all(devices.begin(), devices.end());
	std::string names;
	std::vector<int> descriptors;

	for (const pci::Device *device : all) {
		names += (names.empty() ? "" : " ") + device->address().text();
		descriptors.push_back(device->descriptor());
	}

	// For each port, one for each queue, and one for all else.
	const std::size_t vectors = settings.interrupts ? settings.port.queues + 1 : 0;
	std::vector<std::shared_ptr<pci::Events>> events;

	for (std::size_t n = 0; n < all.size(); n++) {
		events.push_back(std::make_shared<pci::Events>(std::min<std::size_t>(vectors, net::most_interrupts)));
		descriptors.insert(descriptors.end(), events.back()->fds().begin(), events.back()->fds().end());
	}

	std::vector<std::span<std::byte>> zones{supervisor.zone_memory(settings.rings)};
	std::vector<ZonePart> parts{{settings.rings, zones.front().size()}};

	for (const Zone zone : settings.frames) {
		zones.push_back(supervisor.zone_memory(zone));
		parts.push_back({zone, 0});
	}
	std::byte *begin = zones.front().data(), *end = begin;

	for (const auto zone : zones) {
		begin = std::min(begin, zone.data());
		end = std::max(end, zone.data() + zone.size());
	}
	const net::Memory memory{.address = reinterpret_cast<std::uintptr_t>(begin),
				 .bytes = static_cast<std::uint64_t>(end - begin),
				 .iova = settings.iova,
				 .rings = settings.rings.number};

	return {.name = settings.name,
		.services = {{&net::DriverSkeleton::interface_,
			      [](const isolation::Connection &connection) -> std::shared_ptr<isolation::Skeleton> {
				      return std::make_shared<net::DriverSkeleton>(detail::worker(connection), connection);
			      }},
			     {&net::DeviceSkeleton::interface_,
			      [](const isolation::Connection &connection) -> std::shared_ptr<isolation::Skeleton> {
				      const auto worker = detail::worker(connection);

				      return std::make_shared<net::DeviceSkeleton>(
					      std::make_shared<Connected>(worker, connection.peer, worker->next_caller()), connection);
			      },
			      settings.port.callers}},
		.parts = parts,
		.timeout = settings.timeout,
		.restarts = settings.restarts,
		.via = Via::ring,
		.device = names,
		.keep_fds = descriptors,
		.silence = [all]() -> result<void> {
			result<void> done;

			// All of them, whatever one says. One that works comes to rest by a reset of its own, in much less time than the
			// device's takes. One that is broken reaches no memory: then it will not start again.
			for (pci::Device *device : all) {
				if (detail::is_82599(*device) && device->cut_off() && bring_to_rest(*device))
					continue;
				if (auto quiet = device->silence(); !quiet && quiet.error().code() != EIO)
					done = quiet;
			}
			return done;
		},
		.set_up = [all, zones, begin, memory, vectors, events, port = settings.port](const std::shared_ptr<isolation::Transport> &transport,
									       const isolation::Connection &connection) -> result<void> {
			net::DriverProxy driver(transport, connection);

			if (!std::ranges::all_of(all, [](const pci::Device *device) { return detail::is_82599(*device); }))
				return isolation::refused(-ENODEV, "a device is no 82599");
			for (std::size_t n = 0; n < all.size(); n++) {
				pci::Device *const device = all[n];

				for (const auto zone : zones) {
					const auto at = memory.iova + static_cast<std::uint64_t>(zone.data() - begin);

					if (auto mapped = device->map_dma({zone.data(), zone.size(), at}); !mapped)
						return mapped;
				}
				if (auto enabled = device->enable(); !enabled)
					return enabled;
				if (device->interrupts() < vectors)
					return isolation::refused(-EOPNOTSUPP, "the device has not so many interrupts: let it be polled");
				if (events[n]->fds().size() < std::min<std::size_t>(vectors, net::most_interrupts))
					return isolation::refused(-EMFILE, "there is no descriptor left for interrupts");
				if (auto set = device->set_interrupts(events[n]->fds()); !set)
					return set;
				if (auto started = driver.start(device->descriptor(), device->identity().device, memory, port, events[n]->fds()); !started)
					return started;
			}
			return {};
		}};
}

} // namespace orbit::ixgbe

#endif
