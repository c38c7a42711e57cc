// SPDX-License-Identifier: MIT
#include "channel.h"

#include <algorithm>
#include <cerrno>

namespace orbit::net {

using isolation::refused;

Channel::Channel(std::shared_ptr<Device> device, isolation::Endpoint &endpoint, isolation::DomainId peer,
		 std::shared_ptr<isolation::Recovery> recovery, rref<std::byte[]> &&frames, std::vector<Place> places) noexcept
	: device_(std::move(device)), endpoint_(endpoint), peer_(peer), recovery_(std::move(recovery)), frames_(std::move(frames)),
	  places_(std::move(places))
{
}

result<std::unique_ptr<Channel>> Channel::open(std::shared_ptr<Device> device, isolation::Endpoint &endpoint, isolation::DomainId peer,
					       std::shared_ptr<isolation::Recovery> recovery, rref<std::byte[]> &&frames,
					       std::vector<Place> places)
{
	std::unique_ptr<Channel> channel(new Channel(std::move(device), endpoint, peer, std::move(recovery), std::move(frames), std::move(places)));
	const auto limits = channel->device_->limits(channel->places_.empty() ? 0 : channel->places_.front().port);

	if (!limits)
		return tl::unexpected(limits.error());
	channel->frame_bytes_ = limits->frame_bytes;
	channel->longest_ = limits->longest;
	if (!channel->frame_bytes_ || channel->longest_ > channel->frame_bytes_)
		return refused(-EBADMSG, "the driver says that its packets are longer than its frames");
	channel->with_driver_.resize(channel->frames_.elements().size() / channel->frame_bytes_);
	if (channel->with_driver_.empty())
		return refused(-ERANGE, "the buffer has no room for a frame");
	if (auto attached = channel->attach(); !attached)
		return tl::unexpected(attached.error());
	return channel;
}

Channel::~Channel()
{
	// The device may have frames still: only the domain's end, which silences it, gives them back.
	if (starts_ && frames_)
		(void)endpoint_.end_loan(loan_, peer_);
}

// Has the domain that serves now take the frames, and open the queues.
result<void> Channel::attach()
{
	const std::uint64_t now = recovery_->starts();
	auto loan = endpoint_.lend(frames_, peer_);

	if (!loan)
		return tl::unexpected(loan.error());
	loan_ = *loan;
	const auto give_up = [this](const call_error &error) -> result<void> {
		(void)endpoint_.end_loan(loan_, peer_);
		return tl::unexpected(error);
	};

	if (auto used = device_->use(loan_); !used)
		return give_up(used.error());
	for (const Place &place : places_)
		if (auto opened = device_->open(place.port, place.queue); !opened)
			return give_up(opened.error());
	if (recovery_->starts() != now) {
		// One domain has the frames, and another serves, or the same: that is not to be known. Nothing has been given yet.
		recovery_->replace(recovery_->starts());
		return give_up(call_error(ECONNRESET, "the domain died while it took the frames"));
	}
	starts_ = now;
	return {};
}

// The domain is gone, its device silent, and what it was lent has ended.
void Channel::take_all_back()
{
	(void)endpoint_.end_loan(loan_, peer_);
	starts_ = 0;
	repeats_++;
	for (std::uint32_t frame = 0; frame < frames(); frame++)
		if (with_driver_[frame]) {
			with_driver_[frame] = false;
			back_.push_back({.frame = frame, .bytes = 0});
			lost_++;
		}
}

result<std::vector<Packet>> Channel::submit_and_poll(Place place, std::span<const Packet> packets, std::uint32_t wait_for)
{
	for (const Packet &packet : packets)
		if (packet.frame >= frames() || with_driver_[packet.frame])
			return refused(-EINVAL, "a frame that there is not, or that the driver has");
	if (packets.size() > most_packets)
		return refused(-EINVAL, "more packets than one call takes");
	if (starts_ && recovery_->starts() != starts_)
		take_all_back();
	if (!starts_)
		if (auto attached = attach(); !attached) {
			if (!back_.empty()) // first what came back
				return std::exchange(back_, {});
			return tl::unexpected(attached.error());
		}
	for (const Packet &packet : packets) {
		// The same twice in one call.
		if (with_driver_[packet.frame]) {
			for (const Packet &undone : packets.first(static_cast<std::size_t>(&packet - packets.data())))
				with_driver_[undone.frame] = false;
			return refused(-EINVAL, "a frame twice");
		}
		with_driver_[packet.frame] = true;
	}
	const auto answer = device_->submit_and_poll(place.port, place.queue, packets, wait_for);

	if (!answer) {
		if (recovery_->settled() == starts_ && !answer.error().from_method() && answer.error().code() != EHOSTDOWN) {
			// The call was not made.
			for (const Packet &packet : packets)
				with_driver_[packet.frame] = false;
			return tl::unexpected(answer.error());
		}
		if (answer.error().from_method())
			recovery_->replace(starts_); // it is out of its mind: it knows the queue
		take_all_back();
		return std::exchange(back_, {});
	}
	std::vector<Packet> told = std::exchange(back_, {});

	for (const Packet &packet : *answer) {
		if (packet.frame >= frames() || !with_driver_[packet.frame] || packet.bytes > longest_) {
			nonsense_++;
			continue;
		}
		with_driver_[packet.frame] = false;
		told.push_back(packet);
	}
	return told;
}

} // namespace orbit::net
