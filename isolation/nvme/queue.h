// SPDX-License-Identifier: MIT
//
// The caller's side of a block device in a domain: many requests under way, their buffers lent, and a crash of the domain
// that costs them time and nothing else.
#ifndef ORBIT_ISOLATION_NVME_QUEUE_H
#define ORBIT_ISOLATION_NVME_QUEUE_H

#include "block.idl.hpp"

#include <orbit/shadow.hpp>

#include <chrono>
#include <deque>
#include <memory>
#include <optional>
#include <vector>

namespace orbit::block {

/// A request that has ended: with its buffer, if it had one.
struct Finished {
	std::uint64_t tag = 0;
	int error = 0; ///< 0 or a positive errno value.
	rref<std::byte[]> data;
};

/// Requests to a device, for one thread.
///
/// When the device's domain dies, requests whose outcome has not come are made again in the domain that was started in its
/// place, in the order in which they were submitted. Each ends once. That one may be carried out twice does no harm as
/// long as no two writes to the same block are under way at a time: whoever wants an order waits for the first one's end.
/// A flush covers the writes that had ended when it was submitted, whatever dies: a reset of the device keeps its cache.
class Queue {
public:
	/// `endpoint` is this side's, `peer` the domain's number. All outlive it. A domain that has not ended a request for
	/// `patience` of waiting in finish() is replaced; the third time that ends the request, with ETIMEDOUT.
	Queue(std::shared_ptr<Device> device, isolation::Endpoint &endpoint, isolation::DomainId peer,
	      std::shared_ptr<isolation::Recovery> recovery, std::uint32_t depth,
	      std::chrono::nanoseconds patience = std::chrono::seconds(30));
	Queue(const Queue &) = delete;
	Queue &operator=(const Queue &) = delete;
	/// Waits for what is under way.
	~Queue();

	/// Takes a request; it is sent by the next finish(). `request.data` is not looked at. Reads and writes have a
	/// buffer, which comes back when it has ended. EAGAIN: as many are under way as may be: the buffer is not taken.
	result<void> submit(const Request &request, rref<std::byte[]> &&data = {});

	/// Sends what was submitted, and takes what has ended: as soon as there are `wait_for`, or all, or a moment has passed.
	/// Whatever ends ends with an outcome of its own; if the device is down for ever all do, with EHOSTDOWN.
	std::vector<Finished> finish(std::uint32_t wait_for);

	std::size_t under_way() const noexcept { return under_way_; }
	/// How often all that was under way has been made again.
	std::uint64_t repeats() const noexcept { return repeats_; }

private:
	using Clock = std::chrono::steady_clock;

	struct Slot {
		Request request; // with the tag that the domain knows: the slot's number, and how often it was used
		std::uint64_t tag = 0;
		std::uint64_t sequence = 0;
		rref<std::byte[]> data;
		bool used = false;
		bool sent = false;
		std::optional<Clock::duration> since; // of waited_, when this domain was told of it first
		unsigned late = 0;		      // domains that have not ended it
	};

	Slot *find(std::uint64_t tag) noexcept;
	int lend(std::vector<Request> &batch);
	void take_back(Slot &slot);
	void end(Slot &slot, int error, std::vector<Finished> &finished);
	void send_again();
	bool exchange(std::uint32_t wait_for, std::vector<Finished> &finished);
	void replace_if_late(std::vector<Finished> &finished);
	bool fail(const call_error &error, const std::vector<Request> &batch, std::vector<Finished> &finished);

	std::shared_ptr<Device> device_;
	isolation::Endpoint &endpoint_;
	isolation::DomainId peer_;
	std::shared_ptr<isolation::Recovery> recovery_;
	std::vector<Slot> slots_;
	std::vector<std::uint32_t> free_;
	std::deque<std::uint32_t> unsent_; // in the order of their sequence
	std::uint64_t sequence_ = 0;
	std::uint64_t starts_ = 0; // of the domain that all that is sent was sent to
	std::size_t under_way_ = 0;
	std::chrono::nanoseconds patience_;
	Clock::duration waited_{}; // pauses between calls left out
	Clock::time_point asked_;  // last
	std::uint64_t repeats_ = 0;
	unsigned barren_ = 0; // crashes since something has ended
};

} // namespace orbit::block

#endif
