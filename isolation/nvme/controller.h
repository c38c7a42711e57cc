// SPDX-License-Identifier: MIT
//
// An NVMe controller: the device layer of the driver. It owns the registers and the queues, and knows nothing of
// domains.
//
// Each queue is for one thread at a time, and so is look_after() of it; shut_down() for when nobody else uses any. All else
// is thread-safe, and no queue waits for another. Memory that the device sees comes from a DmaMemory, and nothing here copies
// data. What the device writes is checked before it is believed: a completion of a command that is not under way
// makes the controller one that has failed.
//
// Errors of commands are errno values: EIO, and where the status says more: ENOSPC (EFBIG for addresses past the end is
// found before), ENODATA (the medium has lost the data), ECANCELED (aborted), ENODEV (the namespace is gone),
// EOPNOTSUPP. When the controller has failed all commands under way end with ENOTRECOVERABLE, and the only way on is to
// start it anew.
#ifndef ORBIT_ISOLATION_NVME_CONTROLLER_H
#define ORBIT_ISOLATION_NVME_CONTROLLER_H

#include "registers.h"

#include <orbit/interface.hpp>
#include <orbit/pci.hpp>

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace orbit::nvme {

/// Memory that this process and the device share, at one IOVA from its beginning on.
class DmaMemory {
public:
	/// The memory is page-aligned, and stays. take() gives away of `own`, which is a part of it.
	DmaMemory(std::span<std::byte> memory, std::uint64_t iova, std::span<std::byte> own) noexcept
		: memory_(memory), own_(own), iova_(iova)
	{
	}
	DmaMemory(std::span<std::byte> memory, std::uint64_t iova) noexcept : DmaMemory(memory, iova, memory) {}

	/// The device's address of bytes; nothing if they are not all in this memory.
	std::optional<std::uint64_t> iova_of(const void *at, std::size_t bytes) const noexcept
	{
		const auto offset = reinterpret_cast<std::uintptr_t>(at) - reinterpret_cast<std::uintptr_t>(memory_.data());

		if (offset > memory_.size() || bytes > memory_.size() - offset)
			return std::nullopt;
		return iova_ + offset;
	}

	/// Zeroed memory at an IOVA that is a multiple of `alignment`, a power of 2. It is not given back. ENOMEM.
	result<std::span<std::byte>> take(std::size_t bytes, std::size_t alignment) noexcept;

private:
	std::span<std::byte> memory_;
	std::span<std::byte> own_;
	std::uint64_t iova_;
	std::size_t taken_ = 0;
};

struct Namespace {
	std::uint32_t id = 0;
	std::uint64_t blocks = 0;
	std::uint32_t block_bytes = 0;
};

/// What the controller can do.
struct Limits {
	std::size_t max_transfer = 0; ///< Bytes of one read or write.
	unsigned depth = 0;	      ///< Commands under way in one queue.
	bool write_cache = false;     ///< What is written is safe only after a flush.
	bool write_zeroes = false;
	bool discard = false;
	std::uint64_t most_zeroes = 0;	 ///< Bytes that one write_zeroes clears; none is longer than 65,536 blocks either.
	std::uint64_t most_discarded = 0; ///< Blocks of one discard.
	bool sgl = false;	      ///< It is told of data by SGLs, where these are better than PRPs.
	unsigned alignment = 4;	      ///< Of data, in bytes.
};

enum class Op : std::uint8_t { read, write, flush, write_zeroes, discard };

/// A command as it is asked for.
struct Request {
	Op op = Op::read;
	std::uint32_t nsid = 0;
	std::uint64_t lba = 0;
	std::uint32_t blocks = 0;	 ///< 0 for a flush, and otherwise not.
	void *data = nullptr;		 ///< Of reads and writes: in the DmaMemory, at a multiple of Limits::alignment.
	std::uint64_t tag = 0;		 ///< Comes back with its end.
	std::size_t room = ~std::size_t{0}; ///< Bytes that are there for the data. ERANGE: the blocks have more.
};

/// How a command ended.
struct Outcome {
	std::uint64_t tag = 0;
	int error = 0; ///< 0 or a positive errno value.
};

struct ControllerOptions {
	unsigned queues = 1;					      ///< It may get fewer.
	unsigned depth = 1023;					      ///< Likewise.
	std::chrono::milliseconds timeout = std::chrono::seconds(10); ///< Of each command: then it is aborted.
	bool sgl = true;					      ///< SGLs, if it has them; or only PRPs, which all have.
	bool interrupts = false;				      ///< Queue n raises vector n + 1, admin commands vector 0;
								      ///< these must be on before it is started.
};

class Controller;

/// A submission and a completion queue.
class QueuePair {
public:
	QueuePair(const QueuePair &) = delete;
	QueuePair &operator=(const QueuePair &) = delete;

	/// Takes a command; the controller sees it at ring(). EAGAIN: as many are under way as may be; EINVAL: no blocks, or
	/// more than one command can have; EFBIG: past the end; EFAULT: the data is not in DMA memory, or not aligned; ENODEV: there is no such namespace; EOPNOTSUPP; ENOTRECOVERABLE. What is refused has changed nothing.
	result<void> submit(const Request &request);

	/// Tells the controller of all that has been submitted.
	void ring();

	/// Commands that have ended since, as many as there is room for.
	std::span<Outcome> poll(std::span<Outcome> room);

	unsigned under_way() const noexcept { return busy_; }
	unsigned depth() const noexcept { return static_cast<unsigned>(slots_.size()); }

private:
	friend Controller;
	using Clock = std::chrono::steady_clock;

	struct Slot {
		std::uint64_t tag = 0;
		Clock::time_point since;
		bool busy = false;
		bool aborted = false; // an abort was sent
	};

	QueuePair(Controller &controller, unsigned id, unsigned entries) noexcept
		: controller_(controller), id_(id), entries_(entries)
	{
	}
	result<void> make(std::size_t list_bytes);
	// A command's identifier, or nothing if as many are under way as may be.
	std::optional<std::uint16_t> put(Command command, std::uint64_t tag);
	bool describe(Command &command, unsigned slot, const void *data, std::size_t bytes) const;
	bool next(Completion &completion);
	const Namespace *find(std::uint32_t id);

	Controller &controller_;
	unsigned id_;
	unsigned entries_;
	std::span<std::byte> sq_;
	std::span<std::byte> cq_;
	std::span<std::byte> lists_; // for each slot: a PRP list, or the range to discard
	std::size_t list_bytes_ = 0;
	unsigned tail_ = 0;
	unsigned told_ = 0; // the tail that the controller knows
	unsigned head_ = 0;
	bool phase_ = true;
	unsigned busy_ = 0;
	std::vector<Slot> slots_; // by command identifier
	std::vector<std::uint16_t> free_;
	std::vector<Namespace> namespaces_; // as they were
	unsigned version_ = 0;		    // of these
};

class Controller {
public:
	/// Resets the controller, and makes it ready. The device must be a bus master. ETIMEDOUT: it does not answer within
	/// the time that it names; ENODEV: it is gone; EPROTO: it says what makes no sense; EOPNOTSUPP: it has no NVM
	/// command set or no namespace in a format without metadata; ENOMEM: too little DMA memory, see memory_for().
	static result<std::unique_ptr<Controller>> start(const pci::Bar &registers, DmaMemory &memory,
							 const ControllerOptions &options);

	/// Bytes of DMA memory that these options may take, at most.
	static std::size_t memory_for(const ControllerOptions &options) noexcept;

	Controller(const Controller &) = delete;
	Controller &operator=(const Controller &) = delete;

	const Limits &limits() const noexcept { return limits_; }
	std::vector<Namespace> namespaces() const;
	std::optional<Namespace> find(std::uint32_t id) const;
	const std::string &model() const noexcept { return model_; }
	const std::string &serial() const noexcept { return serial_; }

	unsigned queues() const noexcept { return static_cast<unsigned>(queues_.size()); }
	QueuePair &queue(unsigned number) noexcept { return *queues_[number]; }

	/// What is due: asynchronous events, of which some change namespaces(), and commands that are overdue. These are
	/// aborted; if the controller does not end them it has failed. To be called now and then, every 100 ms or so.
	/// ENOTRECOVERABLE: it has failed, as it also may while queues are polled.
	result<void> look_after();
	/// The same with one of the queues: what all have in common somebody else may be at, and then it is not waited for.
	result<void> look_after(QueuePair &queue);

	bool failed() const noexcept { return failure() != nullptr; }
	/// Why, in words.
	const char *failure() const noexcept { return failed_.load(std::memory_order_acquire); }

	/// Has the controller write its cache and come to rest, as before power is cut. ETIMEDOUT.
	result<void> shut_down();

	/// For one that has failed: whoever brings it to rest shall not trust it, see bring_to_rest().
	void give_up() const noexcept;

private:
	friend QueuePair;
	Controller(const pci::Bar &registers, DmaMemory &memory, const ControllerOptions &options) noexcept
		: registers_(registers), memory_(memory), options_(options)
	{
	}
	result<void> set_up();
	result<void> reset();
	result<void> wait_for(std::uint32_t mask, std::uint32_t value, std::chrono::milliseconds limit);
	result<Completion> admin(Command command);
	result<void> identify(std::uint32_t cns, std::uint32_t nsid);
	result<void> read_limits_of_command_set();
	result<void> read_controller();
	result<void> read_namespaces();
	result<void> make_queues();
	void ask_for_events();
	result<void> take_admin_completions();
	result<void> take_events();
	result<void> look_at_controller();
	void look_for_overdue(QueuePair &queue);
	tl::unexpected<call_error> fail(const char *why) noexcept;
	void doorbell(unsigned queue, bool completion, unsigned value) const noexcept;

	const pci::Bar &registers_;
	DmaMemory &memory_;
	ControllerOptions options_;
	Cap cap_{};
	unsigned stride_ = 4;
	std::size_t page_ = 4096; // the controller's
	Limits limits_;
	std::string model_;
	std::string serial_;
	unsigned highest_namespace_ = 0;
	bool lists_namespaces_ = false; // since version 1.1
	unsigned events_ = 0; // that may be asked for at a time
	std::mutex admin_lock_; // of what follows, once it is ready
	std::vector<AsynchronousEvent> told_events_;
	unsigned aborts_ = 0;	    // under way
	unsigned most_aborts_ = 1;
	std::optional<Completion> answer_; // to admin()
	std::unique_ptr<QueuePair> admin_;
	std::span<std::byte> buffer_; // a page for what admin commands return

	mutable std::mutex namespaces_lock_;
	std::vector<Namespace> namespaces_;
	std::atomic<unsigned> version_{0}; // of them
	std::vector<std::unique_ptr<QueuePair>> queues_;
	std::atomic<const char *> failed_{nullptr};
};

/// Ends all that a controller was doing by a reset of it, without its driver's help: so when it has been cut off it can be
/// mapped and enabled anew. Cut off before it fails: it finds its completions refused. It takes as long as the controller does, which is much less than a reset of the
/// device; but that is what one needs that this does not suit: one that is broken, not ready, or that its driver has
/// given up. EIO; ETIMEDOUT: not within a second.
result<void> bring_to_rest(pci::Device &device);

} // namespace orbit::nvme

#endif
