// SPDX-License-Identifier: MIT
//
// The caller's side of network ports in a domain: frames, where each of them is, and a crash of the domain that costs
// packets and nothing else.
#ifndef ORBIT_ISOLATION_IXGBE_CHANNEL_H
#define ORBIT_ISOLATION_IXGBE_CHANNEL_H

#include "net.idl.hpp"

#include <orbit/shadow.hpp>

#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <span>
#include <vector>

namespace orbit::net {

/// A queue of a port.
struct Place {
	std::uint32_t port = 0;
	std::uint32_t queue = 0;
};

/// Frames, and the queues that they go through. For one thread.
///
/// When the domain dies all frames that it had come back empty: packets that had not been sent, or told, are lost. None
/// is sent or told twice. Another domain gets the frames by the next call.
class Channel {
public:
	/// `frames` is of a zone that the domain has part in. `endpoint` is this side's, `peer` the domain's number; both
	/// outlive it. `keep` is as in Device::open(), for each queue. ERANGE: no frame fits; others as Device::use() and open().
	static result<std::unique_ptr<Channel>> open(std::shared_ptr<Device> device, isolation::Endpoint &endpoint, isolation::DomainId peer,
						     std::shared_ptr<isolation::Recovery> recovery, rref<std::byte[]> &&frames,
						     std::vector<Place> places, std::uint32_t keep = 0);
	Channel(const Channel &) = delete;
	Channel &operator=(const Channel &) = delete;
	~Channel();

	std::uint32_t frames() const noexcept { return static_cast<std::uint32_t>(with_driver_.size()); }
	/// The memory of a frame. While the driver has it, it may change at any time.
	std::span<std::byte> frame(std::uint32_t number) noexcept
	{
		return frames_.elements().subspan(std::size_t{number} * frame_bytes_, frame_bytes_);
	}
	bool with_driver(std::uint32_t number) const noexcept { return with_driver_[number]; }

	/// As Device::submit_and_poll(), but what comes back is checked, and all that a domain had when it died comes back, too,
	/// by the next call of any queue; then there can be more than most_packets. What is submitted must be frames that the
	/// driver has not: EINVAL. EHOSTDOWN: the domain is down for ever; all frames are the caller's.
	result<std::vector<Packet>> submit_and_poll(Place place, std::span<const Packet> packets, std::uint32_t wait_for);

	/// As those of Device, and set again in each domain that serves after a crash.
	result<void> set_promiscuous(std::uint32_t port, bool on);
	result<void> accept_address(std::uint32_t port, const Address &address, bool on);
	result<void> filter_vlans(std::uint32_t port, bool on);
	result<void> accept_vlan(std::uint32_t port, std::uint32_t vlan, bool on);

	/// Waits until a port's link is up. Meanwhile packets that are submitted stay with the driver, and when its ring is full
	/// they come back unsent. ENETDOWN: it was down all that time; ENODEV; EHOSTDOWN: the domain is down for ever.
	result<Link> wait_for_link(std::uint32_t port, std::chrono::milliseconds limit);

	/// How often the domain has been replaced.
	std::uint64_t repeats() const noexcept { return repeats_; }
	/// Frames that came back empty for the domain had died with them.
	std::uint64_t lost() const noexcept { return lost_; }
	/// What a domain said that could not be: such things were ignored.
	std::uint64_t nonsense() const noexcept { return nonsense_; }

private:
	Channel(std::shared_ptr<Device> device, isolation::Endpoint &endpoint, isolation::DomainId peer,
		std::shared_ptr<isolation::Recovery> recovery, rref<std::byte[]> &&frames, std::vector<Place> places, std::uint32_t keep) noexcept;
	result<void> attach();
	result<void> set_filters();
	void take_all_back();
	int take(std::span<const Packet> packets) noexcept;
	void undo(std::span<const Packet> packets) noexcept;

	std::shared_ptr<Device> device_;
	isolation::Endpoint &endpoint_;
	isolation::DomainId peer_;
	std::shared_ptr<isolation::Recovery> recovery_;
	rref<std::byte[]> frames_;
	std::vector<Place> places_;
	std::uint32_t keep_;
	// What has been set of a port.
	struct Filter {
		std::optional<bool> promiscuous, by_vlan;
		std::set<std::array<std::uint8_t, 6>> addresses;
		std::set<std::uint32_t> vlans;
	};
	std::map<std::uint32_t, Filter> filters_;
	std::uint32_t frame_bytes_ = 0;
	std::uint32_t longest_ = 0;
	std::uint64_t starts_ = 0; // of the domain that has the frames; 0: none
	isolation::Handle loan_{};
	std::vector<std::uint8_t> with_driver_; // whether
	std::vector<Packet> back_; // not yet told
	std::uint64_t repeats_ = 0;
	std::uint64_t lost_ = 0;
	std::uint64_t nonsense_ = 0;
};

} // namespace orbit::net

#endif
