// SPDX-License-Identifier: MIT
//
// An NVMe driver as a domain: how its supervisor makes it. Needs what orbit-idl makes of block.idl.hpp.
#ifndef ORBIT_ISOLATION_NVME_DOMAIN_H
#define ORBIT_ISOLATION_NVME_DOMAIN_H

#include "block.orbit.hpp"
#include "worker.h"

#include "../pci/events.h"

#include <orbit/domain.hpp>
#include <orbit/pci.hpp>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <string>
#include <thread>
#include <vector>

namespace orbit::nvme {

/// A queue for each processor, 16 at most.
inline unsigned default_queues()
{
	return std::clamp(std::thread::hardware_concurrency(), 1U, 16U);
}

struct DomainSettings {
	std::string name = "nvme";
	Zone data{0};   ///< Where callers' buffers are; the domain and the callers have part in it.
	Zone queues{1}; ///< For the driver alone.
	std::uint64_t iova = 0x10000000;
	/// Of each is an object that serves (`domain->proxy<block::DeviceProxy>(n)`), with a thread and a queue of the controller: so
	/// callers do not wait for one another. If the controller has fewer, some share one. Up to block::most_queues.
	unsigned io_queues = default_queues();
	unsigned depth = 1023; ///< Of each queue.
	/// Callers' threads in the domain sleep until the controller interrupts, and do not look and nap meanwhile: that leaves
	/// the processor to others, and takes longer. Needs MSI-X, or more than one vector of MSI: EOPNOTSUPP.
	bool interrupts = false;
	std::chrono::milliseconds command_timeout = std::chrono::seconds(10);
	std::chrono::nanoseconds timeout = std::chrono::seconds(5); ///< Of each call.
	Restarts restarts = {.most = 10};
};

/// How large the zone of the queues is to be. The heap rounds sizes of buffers up, by an eighth at most.
inline std::size_t queues_bytes(unsigned depth, unsigned io_queues = default_queues())
{
	return (Controller::memory_for({.queues = io_queues, .depth = depth}) * 9 / 8 + 2 * isolation::page_bytes - 1) / isolation::page_bytes *
	       isolation::page_bytes;
}

namespace detail {

// What all objects have.
inline std::shared_ptr<Worker> worker(const isolation::Connection &connection)
{
	static const auto one = std::make_shared<Worker>(*connection.endpoint, connection.peer, connection.counters);

	return one;
}

inline Service driver()
{
	return {&block::DriverSkeleton::interface_, [](const isolation::Connection &connection) -> std::shared_ptr<isolation::Skeleton> {
			return std::make_shared<block::DriverSkeleton>(worker(connection), connection);
		}};
}

inline Service devices(unsigned queues)
{
	return {&block::DeviceSkeleton::interface_, [](const isolation::Connection &connection) -> std::shared_ptr<isolation::Skeleton> {
			return std::make_shared<block::DeviceSkeleton>(worker(connection)->make_device(), connection);
		}, queues};
}

inline bool is_controller(const pci::Device &device)
{
	return device.identity().class_code == 0x010802;
}

} // namespace detail

/// What a device needs to be driven by a domain, for Supervisor::start(). The device outlives the domain, and is nobody
/// else's: it reaches the two zones and no other memory, and is silenced whenever the domain has died: by a reset of the
/// controller, and of the device where that is not enough. Start says ENODEV if it is no NVMe controller, and has touched none
/// of its registers then.
inline DomainOptions domain_options(Supervisor &supervisor, pci::Device &device, const DomainSettings &settings)
{
	const auto data = supervisor.zone_memory(settings.data), queues = supervisor.zone_memory(settings.queues);
	std::byte *const begin = std::min(data.data(), queues.data());
	std::byte *const end = std::max(data.data() + data.size(), queues.data() + queues.size());
	const auto iova_of = [iova = settings.iova, begin](std::span<std::byte> zone) {
		return iova + static_cast<std::uint64_t>(zone.data() - begin);
	};
	const block::Memory memory{.address = reinterpret_cast<std::uintptr_t>(begin),
				   .bytes = static_cast<std::uint64_t>(end - begin),
				   .iova = settings.iova,
				   .queues = settings.queues.number};

	// One for the controller itself, and one for each queue.
	const std::size_t vectors = std::min<std::size_t>(device.interrupts(), settings.io_queues + 1);
	const auto events = std::make_shared<pci::Events>(settings.interrupts && vectors > 1 ? vectors : 0);
	const auto io_queues = static_cast<std::uint32_t>(events->fds().size() > 1 ? events->fds().size() - 1 : settings.io_queues);
	std::vector<int> kept = events->fds();

	kept.push_back(device.descriptor());
	return {.name = settings.name,
		.services = {detail::driver(), detail::devices(settings.io_queues)},
		.parts = {{settings.data, 0}, {settings.queues, queues.size()}},
		.timeout = settings.timeout,
		.restarts = settings.restarts,
		.via = Via::ring,
		.device = device.address().text(),
		.keep_fds = std::move(kept),
		.silence = [&device]() -> result<void> {
			// One that works comes to rest by itself, in much less time than a reset takes. Before it is cut off: a
			// controller whose writes of completions are refused has failed.
			const bool rests = detail::is_controller(device) && bring_to_rest(device).has_value();

			if (device.cut_off() && rests)
				return {};
			auto done = device.silence();

			// It is broken, and reaches no memory: then it will not start again.
			if (!done && done.error().code() == EIO)
				return {};
			return done;
		},
		.set_up = [&device, data, queues, iova_of, memory, interrupts = settings.interrupts, vectors, events,
			   given = block::Settings{.queues = io_queues,
						   .depth = settings.depth,
						   .timeout_ms = static_cast<std::uint32_t>(settings.command_timeout.count())}](const std::shared_ptr<isolation::Transport> &transport,
							       const isolation::Connection &connection) -> result<void> {
			if (!detail::is_controller(device))
				return isolation::refused(-ENODEV, "the device is no NVMe controller");
			for (const auto zone : {data, queues})
				if (auto mapped = device.map_dma({zone.data(), zone.size(), iova_of(zone)}); !mapped)
					return mapped;
			if (auto enabled = device.enable(); !enabled)
				return enabled;
			if (interrupts && vectors < 2)
				return isolation::refused(-EOPNOTSUPP, "the controller has no MSI-X: let it be polled");
			if (interrupts && events->fds().size() < vectors)
				return isolation::refused(-EMFILE, "there is no descriptor left for interrupts");
			if (auto set = device.set_interrupts(events->fds()); !set)
				return set;
			return block::DriverProxy(transport, connection)
				.start(device.descriptor(), memory, given, events->fds());
		}};
}

} // namespace orbit::nvme

#endif
