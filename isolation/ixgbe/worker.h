// SPDX-License-Identifier: MIT
//
// What runs in the domain of an 82599's driver: the device layer's port behind the interfaces of net.idl.hpp.
#ifndef ORBIT_ISOLATION_IXGBE_WORKER_H
#define ORBIT_ISOLATION_IXGBE_WORKER_H

#include "net.idl.hpp"
#include "port.h"

#include <orbit/call.hpp>

#include <array>
#include <atomic>
#include <memory>
#include <mutex>
#include <optional>
#include <vector>

namespace orbit::ixgbe {

class Connected;

/// The ports, shared by all who are connected to the domain. Thread-safe: calls of one queue are served one at a time.
///
/// When a port has failed the process ends: so the supervisor silences and resets the devices, and starts another one, as
/// often as it may.
class Worker final : public net::Driver {
public:
	/// `counters` may be null.
	Worker(isolation::Endpoint &endpoint, isolation::DeviceCounters *counters) noexcept : endpoint_(endpoint), counters_(counters) {}

	result<void> start(std::int32_t descriptor, std::uint32_t device, const net::Memory &memory, const net::Settings &settings,
			   std::span<const std::int32_t> interrupts) override;

	/// Of the next of those who are connected, from 0.
	unsigned next_caller() noexcept { return callers_.fetch_add(1, std::memory_order_relaxed); }

private:
	friend Connected;
	static constexpr std::size_t most_ports = 16;

	// A queue, and who has it.
	struct Use {
		std::mutex mutex; // of what follows, and of the port's queue
		const Connected *by = nullptr;
		std::uint32_t keep = 0;
		int interrupts = -1;	       // an event descriptor that counts them, or none
		isolation::DeviceCounters::Queue *told = nullptr; // to whoever watches, or nobody
		std::uint64_t damaged = 0; // packets that are in its errors
		std::uint64_t missed = 0;  // likewise, with the port's mutex
	};

	struct Started {
		std::mutex mutex; // of the port, but for its queues
		net::Memory memory{};
		net::Settings settings{};
		std::optional<pci::Bar> bar;
		rref<std::byte[]> rings;
		std::unique_ptr<Port> port;
		std::vector<std::unique_ptr<Use>> uses; // by queue
	};

	// ENODEV.
	result<Started *> find(std::uint32_t port);
	static void look_after(const Port &port);
	static void add(std::atomic<std::uint64_t> &to, std::uint64_t number) noexcept
	{
		// Nobody else writes there.
		to.store(to.load(std::memory_order_relaxed) + number, std::memory_order_relaxed);
	}

	isolation::Endpoint &endpoint_;
	isolation::DeviceCounters *counters_;
	std::mutex mutex_; // of start()
	std::array<std::unique_ptr<Started>, most_ports> ports_;
	std::atomic<std::uint32_t> count_{0}; // those before it do not change
	std::atomic<unsigned> callers_{0};
};

/// The ports as one of those sees them who are connected. It is there until the process ends.
class Connected final : public net::Device {
public:
	/// `peer` lends its frames; `number` says which queues are its own.
	Connected(std::shared_ptr<Worker> worker, isolation::DomainId peer, unsigned number = 0) noexcept
		: worker_(std::move(worker)), peer_(peer), number_(number)
	{
	}

	result<std::uint32_t> ports() override;
	result<net::Limits> limits(std::uint32_t port) override;
	result<net::Link> link(std::uint32_t port) override;
	result<net::Statistics> statistics(std::uint32_t port) override;
	result<void> set_promiscuous(std::uint32_t port, bool on) override;
	result<void> accept_address(std::uint32_t port, const net::Address &address, bool on) override;
	result<void> filter_vlans(std::uint32_t port, bool on) override;
	result<void> accept_vlan(std::uint32_t port, std::uint32_t vlan, bool on) override;
	result<std::uint32_t> use(const isolation::Handle &frames) override;
	result<void> open(std::uint32_t port, std::uint32_t queue, std::uint32_t keep) override;
	result<std::vector<net::Packet>> submit_and_poll(std::uint32_t port, std::uint32_t queue, std::span<const net::Packet> packets,
							 std::uint32_t wait_for) override;

private:
	template <class Act> result<void> with_port(std::uint32_t port, Act &&act);

	std::shared_ptr<Worker> worker_;
	isolation::DomainId peer_;
	unsigned number_;
	std::mutex mutex_; // of what follows
	std::optional<borrowed<const std::byte[]>> lent_;
	std::shared_ptr<Frames> frames_;
};

} // namespace orbit::ixgbe

#endif
