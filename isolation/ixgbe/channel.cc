// SPDX-License-Identifier: MIT
#include "channel.h"

#include <algorithm>
#include <cerrno>
#include <thread>
#include <utility>

namespace orbit::net {

using isolation::refused;

namespace {

constexpr std::uint32_t tag_bytes = 4; // of a VLAN

} // namespace

Channel::Channel(std::shared_ptr<Device> device, isolation::Endpoint &endpoint, isolation::DomainId peer,
		 std::shared_ptr<isolation::Recovery> recovery, rref<std::byte[]> &&frames, std::vector<Place> places,
		 std::uint32_t keep) noexcept
	: device_(std::move(device)), endpoint_(endpoint), peer_(peer), recovery_(std::move(recovery)), frames_(std::move(frames)),
	  places_(std::move(places)), keep_(keep)
{
}

result<std::unique_ptr<Channel>> Channel::open(std::shared_ptr<Device> device, isolation::Endpoint &endpoint, isolation::DomainId peer,
					       std::shared_ptr<isolation::Recovery> recovery, rref<std::byte[]> &&frames,
					       std::vector<Place> places, std::uint32_t keep)
{
	std::unique_ptr<Channel> channel(new Channel(std::move(device), endpoint, peer, std::move(recovery), std::move(frames), std::move(places), keep));
	const auto limits = channel->device_->limits(channel->places_.empty() ? 0 : channel->places_.front().port);

	if (!limits)
		return tl::unexpected(limits.error());
	channel->frame_bytes_ = limits->frame_bytes;
	channel->longest_ = limits->longest;
	if (!channel->frame_bytes_ || channel->longest_ + tag_bytes > channel->frame_bytes_)
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
	if (auto set = set_filters(); !set)
		return give_up(set.error());
	for (const Place &place : places_)
		if (auto opened = device_->open(place.port, place.queue, keep_); !opened)
			return give_up(opened.error());
	if (recovery_->starts() != now) {
		// One domain has the frames, and another serves, or the same: that is not to be known. Nothing has been given yet.
		recovery_->replace(recovery_->starts());
		return give_up(call_error(ECONNRESET, "the domain died while it took the frames"));
	}
	starts_ = now;
	return {};
}

result<void> Channel::set_filters()
{
	for (const auto &[port, filter] : filters_) {
		if (filter.promiscuous)
			if (auto set = device_->set_promiscuous(port, *filter.promiscuous); !set)
				return set;
		for (const auto &mac : filter.addresses)
			if (auto set = device_->accept_address(port, {mac}, true); !set)
				return set;
		for (const std::uint32_t vlan : filter.vlans)
			if (auto set = device_->accept_vlan(port, vlan, true); !set)
				return set;
		if (filter.by_vlan)
			if (auto set = device_->filter_vlans(port, *filter.by_vlan); !set)
				return set;
	}
	return {};
}

result<void> Channel::set_promiscuous(std::uint32_t port, bool on)
{
	auto done = device_->set_promiscuous(port, on);

	if (done)
		filters_[port].promiscuous = on;
	return done;
}

result<void> Channel::accept_address(std::uint32_t port, const Address &address, bool on)
{
	auto done = device_->accept_address(port, address, on);

	if (done && on)
		filters_[port].addresses.insert(address.mac);
	else if (done)
		filters_[port].addresses.erase(address.mac);
	return done;
}

result<void> Channel::filter_vlans(std::uint32_t port, bool on)
{
	auto done = device_->filter_vlans(port, on);

	if (done)
		filters_[port].by_vlan = on;
	return done;
}

result<void> Channel::accept_vlan(std::uint32_t port, std::uint32_t vlan, bool on)
{
	auto done = device_->accept_vlan(port, vlan, on);

	if (done && on)
		filters_[port].vlans.insert(vlan);
	else if (done)
		filters_[port].vlans.erase(vlan);
	return done;
}

result<Link> Channel::wait_for_link(std::uint32_t port, std::chrono::milliseconds limit)
{
	const auto end = std::chrono::steady_clock::now() + limit;

	for (;;) {
		const bool late = std::chrono::steady_clock::now() > end;
		auto link = device_->link(port);

		if (link ? link->mbit != 0 : link.error().from_method() || link.error().code() == EHOSTDOWN)
			return link;
		if (late)
			return refused(-ENETDOWN, "the link is down");
		std::this_thread::sleep_for(std::chrono::milliseconds(1));
	}
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

// Marks frames as the driver's, all or none: 0, or EINVAL.
int Channel::take(std::span<const Packet> packets) noexcept
{
	std::uint8_t *const with_driver = with_driver_.data();
	const std::size_t count = with_driver_.size();

	for (std::size_t n = 0; n < packets.size(); n++) {
		const std::uint32_t frame = packets[n].frame;

		if (frame >= count || with_driver[frame]) [[unlikely]] {
			undo(packets.first(n));
			return EINVAL;
		}
		with_driver[frame] = true;
	}
	return 0;
}

void Channel::undo(std::span<const Packet> packets) noexcept
{
	for (const Packet &packet : packets)
		with_driver_[packet.frame] = false;
}

result<std::vector<Packet>> Channel::submit_and_poll(Place place, std::span<const Packet> packets, std::uint32_t wait_for)
{
	if (packets.size() > most_packets)
		return refused(-EINVAL, "more packets than one call takes");
	if (const int error = take(packets))
		return refused(-error, "a frame that there is not, or that the driver has, or twice the same");
	if (!starts_ || recovery_->starts() != starts_) [[unlikely]] {
		undo(packets);
		if (starts_)
			take_all_back();
		if (auto attached = attach(); !attached) {
			if (!back_.empty()) { // first what came back, and these with it
				for (const Packet &packet : packets)
					back_.push_back({.frame = packet.frame, .bytes = 0});
				return std::exchange(back_, {});
			}
			return tl::unexpected(attached.error());
		}
		(void)take(packets); // which the domain that died had not
	}
	auto answer = device_->submit_and_poll(place.port, place.queue, packets, wait_for);

	if (!answer) {
		if (recovery_->settled() == starts_ && !answer.error().from_method() && answer.error().code() != EHOSTDOWN) {
			// The call was not made.
			undo(packets);
			return tl::unexpected(answer.error());
		}
		if (answer.error().from_method())
			recovery_->replace(starts_); // it is out of its mind: it knows the queue
		take_all_back();
		return std::exchange(back_, {});
	}

	// What can be, where it is.
	std::uint8_t *const with_driver = with_driver_.data();
	const std::size_t count = with_driver_.size();
	const std::uint32_t longest = longest_ + tag_bytes;
	const auto is_right = [=](const Packet &packet) {
		if (packet.frame >= count || !with_driver[packet.frame] || packet.bytes > longest)
			return false;
		with_driver[packet.frame] = false;
		return true;
	};
	auto at = answer->begin();

	while (at != answer->end() && is_right(*at))
		at++;
	if (at != answer->end()) [[unlikely]] {
		auto to = at;

		for (nonsense_++, at++; at != answer->end(); at++)
			if (is_right(*at))
				*to++ = *at;
			else
				nonsense_++;
		answer->erase(to, answer->end());
	}
	if (!back_.empty()) {
		answer->insert(answer->begin(), back_.begin(), back_.end());
		back_.clear();
	}
	return answer;
}

} // namespace orbit::net
