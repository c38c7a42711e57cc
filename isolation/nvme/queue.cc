// SPDX-License-Identifier: MIT
#include "queue.h"

#include <algorithm>
#include <cerrno>

namespace orbit::block {

using isolation::refused;

namespace {

// What kills so many domains in a row shall not do so for ever.
constexpr unsigned most_barren = 3;
// More than a call of a domain that is sane lasts: more than that between two has been a pause of the caller.
constexpr auto longest_wait = std::chrono::milliseconds(200);

} // namespace

Queue::Queue(std::shared_ptr<Device> device, isolation::Endpoint &endpoint, isolation::DomainId peer,
	     std::shared_ptr<isolation::Recovery> recovery, std::uint32_t depth, std::chrono::nanoseconds patience)
	: device_(std::move(device)), endpoint_(endpoint), peer_(peer), recovery_(std::move(recovery)), slots_(depth),
	  starts_(recovery_->starts()), patience_(patience), asked_(Clock::now())
{
	for (std::uint32_t slot = depth; slot-- > 0;) {
		slots_[slot].request.tag = slot;
		free_.push_back(slot);
	}
}

Queue::~Queue()
{
	while (under_way_)
		finish(1);
}

result<void> Queue::submit(const Request &request, rref<std::byte[]> &&data)
{
	if (free_.empty())
		return refused(-EAGAIN, "as many requests are under way as may be");

	const std::uint32_t number = free_.back();
	Slot &slot = slots_[number];
	// An outcome of its last use, which a mad domain may tell again, is not one of this.
	const std::uint64_t tag = slot.request.tag + (std::uint64_t{1} << 32);

	free_.pop_back();
	slot.request = request;
	slot.request.tag = tag;
	slot.tag = request.tag;
	slot.sequence = sequence_++;
	slot.data = std::move(data);
	slot.used = true;
	slot.sent = false;
	slot.since.reset();
	slot.late = 0;
	unsent_.push_back(number);
	under_way_++;
	return {};
}

Queue::Slot *Queue::find(std::uint64_t tag) noexcept
{
	const auto number = static_cast<std::uint32_t>(tag);

	if (number >= slots_.size() || !slots_[number].used || !slots_[number].sent || slots_[number].request.tag != tag)
		return nullptr;
	return &slots_[number];
}

void Queue::end(Slot &slot, int error, std::vector<Finished> &finished)
{
	// Whatever the domain thinks of it.
	if (slot.sent && slot.data)
		(void)endpoint_.end_loan(slot.request.data, peer_);
	finished.push_back({.tag = slot.tag, .error = error, .data = std::move(slot.data)});
	slot.used = false;
	free_.push_back(static_cast<std::uint32_t>(&slot - slots_.data()));
	under_way_--;
}

void Queue::take_back(Slot &slot)
{
	if (slot.data)
		(void)endpoint_.end_loan(slot.request.data, peer_);
	slot.sent = false;
	unsent_.push_back(static_cast<std::uint32_t>(&slot - slots_.data()));
}

// All that was under way, in the order of its submission.
void Queue::send_again()
{
	unsent_.clear();
	for (std::uint32_t number = 0; number < slots_.size(); number++)
		if (slots_[number].used) {
			slots_[number].sent = false;
			slots_[number].since.reset();
			unsent_.push_back(number);
		}
	std::sort(unsent_.begin(), unsent_.end(),
		  [this](std::uint32_t a, std::uint32_t b) { return slots_[a].sequence < slots_[b].sequence; });
}

// The next requests, as many as one call takes. 0, or why a buffer cannot be lent.
int Queue::lend(std::vector<Request> &batch)
{
	batch.reserve(std::min(unsent_.size(), most_requests));
	while (!unsent_.empty() && batch.size() < most_requests) {
		Slot &slot = slots_[unsent_.front()];

		if (slot.data) {
			const auto handle = endpoint_.lend(slot.data, peer_);

			if (!handle)
				return handle.error().code();
			slot.request.data = *handle;
		}
		slot.sent = true;
		if (!slot.since)
			slot.since = waited_;
		unsent_.pop_front();
		batch.push_back(slot.request);
	}
	return 0;
}

// A domain may answer calls, and yet withhold an outcome for ever. The buffer is had back only when it is gone.
void Queue::replace_if_late(std::vector<Finished> &finished)
{
	const auto is_late = [this](const Slot &slot) { return slot.used && slot.since && waited_ - *slot.since > patience_; };

	if (std::none_of(slots_.begin(), slots_.end(), is_late))
		return;
	recovery_->replace(starts_);
	for (Slot &slot : slots_) {
		if (!is_late(slot) || ++slot.late < most_barren)
			continue;
		if (!slot.sent) // it was put off, and is in the line
			std::erase(unsent_, static_cast<std::uint32_t>(&slot - slots_.data()));
		end(slot, ETIMEDOUT, finished);
	}
}

// A call has ended with an error. Whether to go on.
bool Queue::fail(const call_error &error, const std::vector<Request> &batch, std::vector<Finished> &finished)
{
	if (error.from_method()) {
		// The device has refused the call as a whole, and knows nothing of these.
		for (const Request &request : batch)
			end(*find(request.tag), error.code(), finished);
		return false;
	}

	const bool another = recovery_->settled() != starts_;

	if (another && ++barren_ < most_barren)
		return true;
	if (another || error.code() == EHOSTDOWN || error.code() == ECONNRESET || error.code() == ESHUTDOWN) {
		// There is none, or each that there was has died of these. Loans end in end().
		unsent_.clear();
		for (Slot &slot : slots_)
			if (slot.used)
				end(slot, another ? ECONNRESET : EHOSTDOWN, finished);
		barren_ = 0;
		return false;
	}
	// The call was not made. The next finish() tries again.
	for (const Request &request : batch)
		take_back(*find(request.tag));
	return false;
}

// One call. Whether to go on.
bool Queue::exchange(std::uint32_t wait_for, std::vector<Finished> &finished)
{
	if (const std::uint64_t now = recovery_->starts(); now != starts_) {
		// Another domain, whoever has noticed it. Loans have ended with the one before.
		starts_ = now;
		repeats_++;
		send_again();
	}

	std::vector<Request> batch;
	const int unlent = lend(batch);

	if (unlent && unlent != EOWNERDEAD && unlent != EACCES) {
		// It has no buffer that can be lent, and ends; not so those behind it.
		Slot &slot = slots_[unsent_.front()];

		unsent_.pop_front();
		end(slot, unlent, finished);
	}
	// With a dead domain the call finds out what became of it.
	auto outcomes = device_->exchange(batch, unsent_.empty() ? wait_for : 0);

	const auto now = Clock::now();

	waited_ += std::min<Clock::duration>(now - asked_, longest_wait);
	asked_ = now;
	if (!outcomes)
		return fail(outcomes.error(), batch, finished);
	bool full = false;

	for (const Outcome &outcome : *outcomes) {
		// What a mad domain says of what it was not asked for counts for nothing.
		if (Slot *const slot = find(outcome.tag)) {
			// Of a loan to the domain before, for one: it is made again.
			if (outcome.error && recovery_->settled() != starts_)
				continue;
			if (outcome.error == EAGAIN) {
				take_back(*slot);
				full = true;
				continue;
			}
			barren_ = 0;
			end(*slot, outcome.error < 0 ? EIO : outcome.error, finished);
		}
	}
	replace_if_late(finished);
	return !full;
}

std::vector<Finished> Queue::finish(std::uint32_t wait_for)
{
	std::vector<Finished> finished;

	// Once, for the device waits by itself; but until it has got all.
	do {
		const std::size_t missing = wait_for > finished.size() ? wait_for - finished.size() : 0;

		if (!under_way_ || !exchange(static_cast<std::uint32_t>(missing), finished))
			break;
	} while (!unsent_.empty() || recovery_->starts() != starts_);
	return finished;
}

} // namespace orbit::block
