// SPDX-License-Identifier: MIT
//
// What runs in an NVMe driver's domain: the device layer's controller behind the interfaces of block.idl.hpp.
#ifndef ORBIT_ISOLATION_NVME_WORKER_H
#define ORBIT_ISOLATION_NVME_WORKER_H

#include "block.idl.hpp"
#include "controller.h"

#include <orbit/call.hpp>

#include <atomic>
#include <condition_variable>
#include <mutex>

namespace orbit::nvme {

/// One controller, for all its callers. Thread-safe. A caller has an object of its own, and a queue, with as many callers as
/// there are queues: then none waits for another.
///
/// When the controller has failed the process ends: so the supervisor silences and resets the device, and starts another
/// one, as often as it may.
class Worker final : public block::Driver {
public:
	/// `caller` has lent what requests name. `counters` may be null.
	Worker(isolation::Endpoint &endpoint, isolation::DomainId caller, isolation::DeviceCounters *counters) noexcept
		: endpoint_(endpoint), caller_(caller), counters_(counters)
	{
	}

	/// What the next caller calls; one call at a time. The worker outlives it.
	std::shared_ptr<block::Device> make_device();

	result<void> start(std::int32_t device, const block::Memory &memory, const block::Settings &settings,
			   std::span<const std::int32_t> interrupts) override;
	result<block::DriverStatistics> statistics() override;

private:
	class Caller;
	using Clock = std::chrono::steady_clock;

	// A request under way; its number is the command's tag.
	struct Slot {
		std::uint64_t tag = 0;
		Caller *caller = nullptr;
		bool single = false; // of a call that waits
		std::optional<borrowed<const std::byte[]>> data;
	};

	// A queue of the controller, with all that its callers have in it.
	struct Queue {
		std::mutex mutex; // of what follows
		QueuePair *pair = nullptr;
		std::vector<Slot> slots;
		std::vector<std::uint32_t> free;
		Clock::time_point looked;
		std::uint64_t requests = 0;
		std::uint64_t errors = 0;
		isolation::DeviceCounters::Queue *told = nullptr; // to whoever watches
		int interrupts = -1;  // an event descriptor that counts them, or none
		bool watched = false; // by one of the callers that wait; the others wait for
		std::condition_variable changed;
	};

	result<void> ready() const;
	std::uint32_t take_slot(Queue &queue, Caller &caller);
	void poll(Queue &queue);
	Clock::time_point look_after(Queue &queue, bool always = false);
	void wait(Queue &queue, std::unique_lock<std::mutex> &locked, unsigned tries, Clock::time_point end);

	isolation::Endpoint &endpoint_;
	isolation::DomainId caller_;
	isolation::DeviceCounters *counters_;
	std::mutex starting_;
	std::optional<pci::Bar> bar_;
	rref<std::byte[]> memory_of_queues_;
	std::optional<DmaMemory> memory_;
	std::unique_ptr<Controller> controller_;
	std::vector<std::unique_ptr<Queue>> queues_;
	std::atomic<bool> ready_{false}; // and nothing of the above changes any more
	std::atomic<unsigned> callers_{0};
};

} // namespace orbit::nvme

#endif
