// SPDX-License-Identifier: MIT
#include "worker.h"

#include "../pci/events.h"

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <thread>
#include <type_traits>
#include <utility>

namespace orbit::ixgbe {

using namespace std::chrono_literals;
using Clock = std::chrono::steady_clock;

namespace {

constexpr std::uint32_t check_bytes = 4;
// How long a call of submit_and_poll() waits for packets: well below any deadline of a call.
constexpr auto wait_at_most = 10ms;
// Who waits for the device looks so often before it sleeps between.
constexpr unsigned looks = 200;
constexpr auto nap = 20us;

constexpr std::size_t ring_alignment = 128;

} // namespace

result<Worker::Started *> Worker::find(std::uint32_t port)
{
	if (port >= count_.load(std::memory_order_acquire))
		return failed(ENODEV);
	return ports_[port].get();
}

result<void> Worker::start(std::int32_t descriptor, std::uint32_t device, const net::Memory &memory, const net::Settings &settings,
			   std::span<const std::int32_t> interrupts)
{
	const std::scoped_lock locked(mutex_);
	const std::uint32_t number = count_.load(std::memory_order_relaxed);
	const PortOptions options{.queues = settings.queues, .entries = settings.entries, .frame_bytes = settings.frame_bytes,
				  .longest = settings.longest + check_bytes, .promiscuous = settings.promiscuous,
				  .interrupts = !interrupts.empty(), .interrupt_us = settings.interrupt_us};

	if (number == most_ports)
		return failed(ENOSPC);
	if (!Port::possible(options) || !settings.callers || settings.callers > settings.queues) // before memory_for() multiplies
		return failed(EINVAL);
	if (!interrupts.empty() && interrupts.size() != settings.queues + 1)
		return failed(EINVAL);
	// What users lend is for all ports.
	if (number && settings.frame_bytes != ports_[0]->settings.frame_bytes)
		return failed(EINVAL);
	auto next = std::make_unique<Started>();
	auto bar = pci::Bar::map(descriptor, 0);

	if (!bar)
		return failed(bar.error().code());
	auto rings = endpoint_.make_array<std::byte>(Zone{memory.rings}, Port::memory_for(options) + ring_alignment);

	if (!rings)
		return failed(rings.error().code());
	next->bar.emplace(std::move(*bar));
	next->rings = std::move(*rings);
	next->memory = memory;
	next->settings = settings;

	const auto begin = reinterpret_cast<std::uintptr_t>(next->rings.elements().data());
	const std::uint64_t iova = begin - memory.address + memory.iova;
	const std::size_t skip = -iova % ring_alignment;
	auto started = Port::start(*next->bar, static_cast<std::uint16_t>(device), next->rings.elements().subspan(skip), iova + skip, options);

	if (!started)
		return failed(started.error().code());
	next->port = std::move(*started);
	std::uint32_t others = 0; // queues of ports before this one

	for (std::uint32_t n = 0; n < number; n++)
		others += ports_[n]->port->queues();
	for (unsigned n = 0; n < next->port->queues(); n++) {
		auto use = std::make_unique<Use>();

		if (!interrupts.empty())
			use->interrupts = interrupts[n];
		if (counters_ && others + n < isolation::DeviceCounters::most_queues)
			use->told = &counters_->queue[others + n];
		next->uses.push_back(std::move(use));
	}
	if (counters_)
		counters_->queues.store(others + next->port->queues(), std::memory_order_relaxed);
	ports_[number] = std::move(next);
	// With all that it has.
	count_.store(number + 1, std::memory_order_release);
	return {};
}

void Worker::look_after(const Port &port)
{
	if (!port.failed())
		return;
	std::fprintf(stderr, "ixgbe: %s\n", port.failure());
	std::abort();
}

result<std::uint32_t> Connected::ports()
{
	return worker_->count_.load(std::memory_order_acquire);
}

result<net::Limits> Connected::limits(std::uint32_t port)
{
	const auto found = worker_->find(port);

	if (!found)
		return tl::unexpected(found.error());
	const net::Settings &settings = (*found)->settings;

	return net::Limits{.queues = settings.queues, .entries = settings.entries - 1, .frame_bytes = settings.frame_bytes,
			   .longest = settings.longest, .mac = (*found)->port->mac()};
}

result<net::Link> Connected::link(std::uint32_t port)
{
	const auto found = worker_->find(port);

	if (!found)
		return tl::unexpected(found.error());
	const std::scoped_lock locked((*found)->mutex);
	const Link says = (*found)->port->link();

	Worker::look_after(*(*found)->port);
	return net::Link{.mbit = says.up ? says.mbit : 0};
}

result<net::Statistics> Connected::statistics(std::uint32_t port)
{
	const auto found = worker_->find(port);

	if (!found)
		return tl::unexpected(found.error());
	const std::scoped_lock locked((*found)->mutex);
	const PortStatistics &says = (*found)->port->statistics();

	Worker::look_after(*(*found)->port);
	for (unsigned n = 0; n < (*found)->uses.size(); n++)
		if (Worker::Use &use = *(*found)->uses[n]; use.told) {
			const std::uint64_t missed = (*found)->port->missed(n);

			use.told->errors.fetch_add(missed - std::exchange(use.missed, missed), std::memory_order_relaxed);
		}
	return net::Statistics{.received = says.received, .sent = says.sent, .received_bytes = says.received_bytes,
			       .sent_bytes = says.sent_bytes, .missed = says.missed, .bad = says.bad};
}

// Does something with a port, whose lock is held.
template <class Act> result<void> Connected::with_port(std::uint32_t port, Act &&act)
{
	const auto found = worker_->find(port);

	if (!found)
		return tl::unexpected(found.error());
	const std::scoped_lock locked((*found)->mutex);

	if constexpr (std::is_void_v<decltype(act(*(*found)->port))>)
		act(*(*found)->port);
	else if (const auto done = act(*(*found)->port); !done)
		return failed(done.error().code());
	return {};
}

result<void> Connected::set_promiscuous(std::uint32_t port, bool on)
{
	return with_port(port, [&](Port &is) { is.set_promiscuous(on); });
}

result<void> Connected::accept_address(std::uint32_t port, const net::Address &address, bool on)
{
	return with_port(port, [&](Port &is) { return is.accept_address(address.mac, on); });
}

result<void> Connected::filter_vlans(std::uint32_t port, bool on)
{
	return with_port(port, [&](Port &is) { is.filter_vlans(on); });
}

result<void> Connected::accept_vlan(std::uint32_t port, std::uint32_t vlan, bool on)
{
	return with_port(port, [&](Port &is) { return is.accept_vlan(vlan, on); });
}

result<std::uint32_t> Connected::use(const isolation::Handle &frames)
{
	const auto first = worker_->find(0);

	if (!first)
		return tl::unexpected(first.error());
	const std::scoped_lock locked(mutex_);
	const net::Memory &memory = (*first)->memory;
	const std::uint32_t frame_bytes = (*first)->settings.frame_bytes;

	if (frames_)
		return failed(EBUSY);
	auto lent = worker_->endpoint_.borrow<std::byte[]>(frames, peer_);

	if (!lent)
		return failed(lent.error().code());
	const std::span<const std::byte> bytes = lent->get().elements();
	const auto begin = reinterpret_cast<std::uintptr_t>(bytes.data());

	if (begin < memory.address || begin - memory.address > memory.bytes || bytes.size() > memory.bytes - (begin - memory.address))
		return failed(EFAULT);
	const std::size_t count = bytes.size() / frame_bytes;

	if (!count || count > ~std::uint32_t{0})
		return failed(ERANGE);
	frames_ = std::make_shared<Frames>(memory.iova + (begin - memory.address), static_cast<std::uint32_t>(count), frame_bytes);
	lent_.emplace(std::move(*lent));
	return static_cast<std::uint32_t>(count);
}

result<void> Connected::open(std::uint32_t port, std::uint32_t queue, std::uint32_t keep)
{
	const auto found = worker_->find(port);

	if (!found)
		return tl::unexpected(found.error());
	if (queue >= (*found)->uses.size())
		return failed(ENODEV);
	if (queue % (*found)->settings.callers != number_)
		return failed(EACCES);
	const std::scoped_lock locked(mutex_, (*found)->uses[queue]->mutex);
	Worker::Use &use = *(*found)->uses[queue];

	if (use.by)
		return failed(EBUSY);
	if (!frames_)
		return failed(EBADF);
	if (const auto used = (*found)->port->queue(queue).use(frames_); !used)
		return failed(used.error().code());
	use.by = this;
	use.keep = keep;
	return {};
}

result<std::vector<net::Packet>> Connected::submit_and_poll(std::uint32_t port, std::uint32_t number, std::span<const net::Packet> packets,
							    std::uint32_t wait_for)
{
	const auto found = worker_->find(port);

	if (!found)
		return tl::unexpected(found.error());
	if (number >= (*found)->uses.size())
		return failed(ENODEV);
	Worker::Use &use = *(*found)->uses[number];
	const std::scoped_lock locked(use.mutex);

	if (use.by != this)
		return failed(EBADF);
	Queue &queue = (*found)->port->queue(number);
	std::array<Packet, net::most_packets> told;

	if (packets.size() > told.size())
		return failed(EINVAL);
	// Each of them goes to the device, or comes back.
	std::size_t count = queue.submit(packets, told).size();
	const std::size_t wanted = std::min<std::size_t>(wait_for, net::most_packets);
	const std::size_t refused = count;
	std::size_t recycled = 0;
	Clock::time_point end{}; // of the wait, if there is one

	for (unsigned n = 0;; n++) {
		const std::span<Packet> room = std::span(told).subspan(count);
		const std::span<Packet> come = queue.receive(room);

		count += come.size();
		recycled += queue.recycle(use.keep);
		if (queue.sending())
			count += queue.sent(room.subspan(come.size())).size();
		Worker::look_after(*(*found)->port);
		if (count >= wanted)
			break;
		if (!n)
			end = Clock::now() + wait_at_most;
		else if ((use.interrupts >= 0 || n % 16 == 15) && Clock::now() > end)
			break;
		if (use.interrupts >= 0) {
			// What comes between this look and the sleep has been counted, and there is no sleep.
			if (n % 2)
				pci::wait_for_interrupt(use.interrupts, end);
			else
				(*found)->port->arm(number);
		} else if (n < looks) {
			std::this_thread::yield();
		} else {
			std::this_thread::sleep_for(nap);
		}
	}
	if (use.told) {
		Worker::add(use.told->requests, count - refused + recycled);
		if (queue.damaged() != use.damaged) [[unlikely]]
			use.told->errors.fetch_add(queue.damaged() - std::exchange(use.damaged, queue.damaged()), std::memory_order_relaxed);
	}
	return std::vector<Packet>(told.begin(), told.begin() + static_cast<std::ptrdiff_t>(count));
}

} // namespace orbit::ixgbe
