// SPDX-License-Identifier: MIT
//
// What runs in an NVMe driver's domain: the device layer's controller behind the interfaces of block.idl.hpp.
#ifndef ORBIT_ISOLATION_NVME_WORKER_H
#define ORBIT_ISOLATION_NVME_WORKER_H

#include "block.idl.hpp"
#include "controller.h"

#include <mutex>

namespace orbit::nvme {

/// One controller, for both interfaces. Thread-safe: calls are served one at a time.
///
/// When the controller has failed the process ends: so the supervisor silences and resets the device, and starts another
/// one, as often as it may.
class Worker final : public block::Device, public block::Driver {
public:
	/// `caller` has lent what requests name.
	Worker(isolation::Endpoint &endpoint, isolation::DomainId caller) noexcept : endpoint_(endpoint), caller_(caller) {}

	result<block::Limits> limits() override;
	result<std::vector<block::Space>> spaces() override;
	result<rref<std::byte[]>> read(std::uint32_t space, std::uint64_t lba, std::uint32_t blocks, rref<std::byte[]> into) override;
	result<void> write(std::uint32_t space, std::uint64_t lba, std::uint32_t blocks, const rref<std::byte[]> &from) override;
	result<void> flush(std::uint32_t space) override;
	result<std::vector<block::Outcome>> exchange(std::span<const block::Request> requests, std::uint32_t wait_for) override;

	result<void> start(std::int32_t device, const block::Memory &memory, std::uint32_t depth, std::uint32_t timeout_ms) override;
	result<block::DriverStatistics> statistics() override;

private:
	// A request under way; its number is the command's tag.
	struct Slot {
		std::uint64_t tag = 0;
		bool single = false; // of a call that waits
		int error = 0;
		bool ended = false;
		std::optional<borrowed<const std::byte[]>> data;
	};

	result<void> ready() const;
	int begin(Op op, std::uint32_t space, std::uint64_t lba, std::uint32_t blocks, std::span<const std::byte> data, std::uint32_t slot);
	int take(const block::Request &request);
	std::uint32_t take_slot();
	void poll();
	void look_after();
	result<void> run(Op op, std::uint32_t space, std::uint64_t lba, std::uint32_t blocks, std::span<const std::byte> data);

	isolation::Endpoint &endpoint_;
	isolation::DomainId caller_;
	std::mutex mutex_; // of what follows
	std::optional<pci::Bar> bar_;
	rref<std::byte[]> queues_;
	std::optional<DmaMemory> memory_;
	std::unique_ptr<Controller> controller_;
	std::vector<Slot> slots_;
	std::vector<std::uint32_t> free_;
	std::vector<block::Outcome> outcomes_; // not yet told
	std::chrono::steady_clock::time_point looked_;
	block::DriverStatistics statistics_{};
};

} // namespace orbit::nvme

#endif
