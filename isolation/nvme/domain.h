// SPDX-License-Identifier: MIT
//
// An NVMe driver as a domain: how its supervisor makes it. Needs what orbit-idl makes of block.idl.hpp.
#ifndef ORBIT_ISOLATION_NVME_DOMAIN_H
#define ORBIT_ISOLATION_NVME_DOMAIN_H

#include "block.orbit.hpp"
#include "worker.h"

#include <orbit/domain.hpp>
#include <orbit/pci.hpp>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <string>

namespace orbit::nvme {

struct DomainSettings {
	std::string name = "nvme";
	Zone data{0};   ///< Where callers' buffers are; the domain and the callers have part in it.
	Zone queues{1}; ///< For the driver alone.
	std::uint64_t iova = 0x10000000;
	unsigned depth = 1023;
	std::chrono::milliseconds command_timeout = std::chrono::seconds(10);
	std::chrono::nanoseconds timeout = std::chrono::seconds(5); ///< Of each call.
	Restarts restarts = {.most = 10};
};

/// How large the zone of the queues is to be. The heap rounds sizes of buffers up, by an eighth at most.
inline std::size_t queues_bytes(unsigned depth)
{
	return (Controller::memory_for({.depth = depth}) * 9 / 8 + 2 * isolation::page_bytes - 1) / isolation::page_bytes *
	       isolation::page_bytes;
}

namespace detail {

// Both services are the same object.
inline std::shared_ptr<Worker> worker(const isolation::Connection &connection)
{
	static const auto one = std::make_shared<Worker>(*connection.endpoint, connection.peer);

	return one;
}

template <class Skeleton> Service service()
{
	return {&Skeleton::interface_, [](const isolation::Connection &connection) -> std::shared_ptr<isolation::Skeleton> {
			return std::make_shared<Skeleton>(worker(connection), connection);
		}};
}

} // namespace detail

/// What a device needs to be driven by a domain, for Supervisor::start(). The device outlives the domain, and is nobody
/// else's: it reaches the two zones and no other memory, and is silenced whenever the domain has died: by a reset of the
/// controller, and of the device where that is not enough.
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

	return {.name = settings.name,
		.services = {detail::service<block::DriverSkeleton>(), detail::service<block::DeviceSkeleton>()},
		.parts = {{settings.data, 0}, {settings.queues, queues.size()}},
		.timeout = settings.timeout,
		.restarts = settings.restarts,
		.via = Via::ring,
		.device = device.address().text(),
		.keep_fds = {device.descriptor()},
		.silence = [&device]() -> result<void> {
			// One that works comes to rest by itself, in much less time than a reset takes.
			if (device.cut_off() && bring_to_rest(device))
				return {};
			auto done = device.silence();

			// It is broken, and reaches no memory: then it will not start again.
			if (!done && done.error().code() == EIO)
				return {};
			return done;
		},
		.set_up = [&device, data, queues, iova_of, memory, depth = settings.depth,
			   timeout = settings.command_timeout](const std::shared_ptr<isolation::Transport> &transport,
							       const isolation::Connection &connection) -> result<void> {
			for (const auto zone : {data, queues})
				if (auto mapped = device.map_dma({zone.data(), zone.size(), iova_of(zone)}); !mapped)
					return mapped;
			if (auto enabled = device.enable(); !enabled)
				return enabled;
			return block::DriverProxy(transport, connection)
				.start(device.descriptor(), memory, depth, static_cast<std::uint32_t>(timeout.count()));
		}};
}

} // namespace orbit::nvme

#endif
