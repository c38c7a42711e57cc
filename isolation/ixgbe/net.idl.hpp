// SPDX-License-Identifier: MIT
//
// Network devices as domains: what such a domain serves.
//
// A domain drives one port or several. Who sends and receives packets lends it a buffer: a number of frames, side by side,
// of the size that limits() says, and then opens queues, of one port or several. A packet is in a frame, from the frame's
// beginning on. Frames go to a device and come back by submit_and_poll(), and may go out by another port than that by which
// they came; in between nobody else should read or write them. Nothing is copied, so the driver's domain can read and write
// all frames at any time: copy first what must not change between a check and its use.
//
// The domain serves Device by as many objects as Settings::callers says. Each is for one caller, with frames of its own and its own
// queues of each port; calls of one do not wait for those of another.
//
// Errors of methods, positive errno values: ENODEV, there is no such port or queue; EACCES, the queue is another caller's; EBUSY, the queue is in use, or the caller
// has lent frames already; EBADF, the caller has not opened it, or lent no frames; EINVAL; ERANGE, the buffer has no room for
// a frame; EFAULT, it is not in memory that the devices reach; ESTALE and others of Endpoint::borrow(), it is not lent.
#pragma once

#include <orbit/rref.hpp>

namespace orbit::net {

/// What a port can do. Sizes of packets here are without the frame check sequence.
struct Limits {
	std::uint32_t queues;
	std::uint32_t entries;	   ///< Frames that the device can have of a queue, for packets to come, and as many to send.
	std::uint32_t frame_bytes;
	std::uint32_t longest;	   ///< Bytes of a packet, at most; at least 14. One that comes with a VLAN's tag may have 4 more.
	std::array<std::uint8_t, 6> mac;
};

struct Address {
	std::array<std::uint8_t, 6> mac;
};

struct Link {
	std::uint32_t mbit; ///< Megabits a second, 0 while the link is down.
};

/// Since this driver was started: another one after a crash counts anew.
struct Statistics {
	std::uint64_t received;	      ///< Packets, without those missed.
	std::uint64_t sent;
	std::uint64_t received_bytes; ///< With their check sequences.
	std::uint64_t sent_bytes;
	std::uint64_t missed;	      ///< There was no room for them: in the rings, or in the device.
	std::uint64_t bad;	      ///< Damaged, too short or too long.
};

/// Of one call of submit_and_poll(), each way.
inline constexpr std::size_t most_packets = 64;

/// A frame, and the packet that is in it; 0 bytes: none.
struct Packet {
	std::uint32_t frame;
	std::uint32_t bytes;
};

class ORBIT_INTERFACE Device {
public:
	virtual ~Device() = default;

	virtual orbit::result<std::uint32_t> ports() = 0;
	virtual orbit::result<Limits> limits(std::uint32_t port) = 0;
	virtual orbit::result<Link> link(std::uint32_t port) = 0;
	virtual orbit::result<Statistics> statistics(std::uint32_t port) = 0;

	/// What a port receives besides packets to its own address and to all: this is of the port, for all who use it, and another
	/// driver after a crash begins with Settings::promiscuous and nothing else. Channel has it all set again.
	///
	/// Packets to any address.
	ORBIT_REPEATABLE virtual orbit::result<void> set_promiscuous(std::uint32_t port, bool on) = 0;
	/// Packets to this address, of a station or a group, which is compared whole. EINVAL: it is the port's own, that of all, or
	/// zero; ENOSPC: the device compares no more.
	ORBIT_REPEATABLE virtual orbit::result<void> accept_address(std::uint32_t port, const Address &address, bool on) = 0;
	/// Of packets with a VLAN's tag only those of accepted VLANs, or all, as at first. A tag stays in its packet. EINVAL: more than
	/// 12 bits.
	ORBIT_REPEATABLE virtual orbit::result<void> filter_vlans(std::uint32_t port, bool on) = 0;
	ORBIT_REPEATABLE virtual orbit::result<void> accept_vlan(std::uint32_t port, std::uint32_t vlan, bool on) = 0;

	/// Takes a lent rref<std::byte[]> as the caller's frames, until the domain ends; returns their number.
	virtual orbit::result<std::uint32_t> use(const isolation::Handle &frames) = 0;
	/// Takes a queue for the caller. While the device has fewer than `keep` of its frames for packets to come, frames whose packets
	/// have been sent by it are given for these at once, and the caller is not told: who forwards has then half as much to say.
	virtual orbit::result<void> open(std::uint32_t port, std::uint32_t queue, std::uint32_t keep) = 0;

	/// Frames with packets are sent, frames without are for packets to come. Returns packets that have come, and, without
	/// bytes, frames whose packets have been sent: as soon as there are `wait_for`, or after a time that the driver chooses;
	/// all that is there at once if it is 0. What the device has no room for, or was not right (a frame that there is not,
	/// or that a device has; a length that cannot be), comes back without bytes at once.
	ORBIT_MAX(most_packets)
	virtual orbit::result<std::vector<Packet>> submit_and_poll(std::uint32_t port, std::uint32_t queue,
								   ORBIT_MAX(most_packets) std::span<const Packet> packets,
								   std::uint32_t wait_for) = 0;
};

/// What a driver's domain is told by its supervisor when it is made.
struct Memory {
	std::uint64_t address; ///< Of all memory that the devices reach, here.
	std::uint64_t bytes;
	std::uint64_t iova;    ///< The devices' address of it.
	std::uint32_t rings;   ///< The zone in it that is the driver's alone.
};

struct Settings {
	std::uint32_t queues;
	std::uint32_t entries;
	std::uint32_t frame_bytes;
	std::uint32_t longest; ///< Bytes of a packet.
	bool promiscuous;
	/// Microseconds from one interrupt of a queue to the next, at least: up to 1046, and nothing if it is polled.
	std::uint32_t interrupt_us = 0;
	std::uint32_t callers = 1; ///< At most as many as queues: caller n has the queues n, n + callers and so on.
};

inline constexpr std::size_t most_interrupts = 17; // of 16 queues, and of the port itself

class ORBIT_INTERFACE Driver {
public:
	virtual ~Driver() = default;

	/// Takes a device, by its descriptor and its PCI device id, and starts its port: the next one. `interrupts`: event descriptors
	/// that count them, of each queue and of the port itself; none: it is polled.
	virtual orbit::result<void> start(std::int32_t descriptor, std::uint32_t device, const Memory &memory, const Settings &settings,
					  ORBIT_MAX(most_interrupts) std::span<const std::int32_t> interrupts) = 0;
};

} // namespace orbit::net
