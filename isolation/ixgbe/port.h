// SPDX-License-Identifier: MIT
//
// A port of an 82599: the device layer of the driver. It owns the registers and the rings, and knows nothing of domains.
//
// Packets live in frames: pieces of one size of a memory that the device reaches, named by their number. Who sends a
// packet, or gives an empty frame for receiving, gives the frame away until it comes back: from sent(), or from receive()
// with a packet in it. Nothing here copies a packet.
//
// A port is for one thread, and each of its queues for one. What the device writes is checked before it is believed: a packet that is
// longer than its frame makes the port one that has failed. So does a device that has been taken away. Then nothing more
// comes back, and the only way on is to start it anew, after it has been silenced.
#ifndef ORBIT_ISOLATION_IXGBE_PORT_H
#define ORBIT_ISOLATION_IXGBE_PORT_H

#include "net.idl.hpp"
#include "registers.h"

#include <orbit/interface.hpp>
#include <orbit/pci.hpp>

#include <array>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

namespace orbit::ixgbe {

/// Memory of packets: so many frames, side by side, from an even IOVA on. Several queues, also of several ports, may have
/// the same, and send what another has received: a frame is with the device, or it is not. Thread-safe.
class Frames {
public:
	Frames(std::uint64_t iova, std::uint32_t count, unsigned frame_bytes)
		: with_device_(new std::atomic<bool>[count] {}), view_{iova, count, frame_bytes, with_device_.get()}
	{
	}

	/// What does not change, to be copied by who uses it again and again: for all a compiler knows, a descriptor that is written could
	/// be any of it.
	struct View {
		std::uint64_t iova;
		std::uint32_t count;
		std::uint32_t frame_bytes;
		std::atomic<bool> *with_device;

		std::uint64_t iova_of(std::uint32_t frame) const noexcept { return iova + std::uint64_t{frame} * frame_bytes; }

		/// For a device, which did not have it. False: some device has it, or there is no such frame.
		bool take(std::uint32_t frame) const noexcept
		{
			return frame < count && !with_device[frame].exchange(true, std::memory_order_acquire);
		}
		void give_back(std::uint32_t frame) const noexcept { with_device[frame].store(false, std::memory_order_release); }
	};
	const View &view() const noexcept { return view_; }

private:
	std::unique_ptr<std::atomic<bool>[]> with_device_;
	View view_;
};

/// Of receive side scaling, as it is in the registers: whoever knows it knows each flow's queue. Any key spreads flows; this one has no
/// long run of equal bits.
inline constexpr std::array<std::uint32_t, 10> rss_key{0x6d5a56da, 0x255b0ec2, 0x4167253d, 0x43a38fb0, 0xd0ca2bcb,
						       0xae7b30b4, 0x77cb2da3, 0x8030f20c, 0x6a42b73b, 0xbeac01fa};

/// A packet is in a frame from the frame's beginning on, without the frame check sequence.
using net::Packet;

struct PortOptions {
	unsigned queues = 1;	     ///< Pairs of a receive and a transmit queue, at most most_queues.
	unsigned entries = 512;	     ///< Of each ring, a multiple of 8, at most 4096.
	unsigned frame_bytes = 2048; ///< A multiple of 1024, at most 15 KiB.
	unsigned longest = 1518;     ///< Of a packet on the wire, check sequence included; a frame has room for it.
	bool promiscuous = false;    ///< Receive what is for others, too.
	bool interrupts = false;     ///< Queue n raises vector n, all else the vector after the last queue's.
	unsigned interrupt_us = 0;   ///< From one interrupt of a queue to the next, at least; at most 1046.
};

using MacAddress = std::array<std::uint8_t, 6>;

struct Link {
	bool up = false;
	unsigned mbit = 0; ///< Megabits a second.
};

/// Since the port was started.
struct PortStatistics {
	std::uint64_t received = 0;	  ///< Packets, without those missed.
	std::uint64_t sent = 0;
	std::uint64_t received_bytes = 0; ///< With their check sequences.
	std::uint64_t sent_bytes = 0;
	std::uint64_t missed = 0;	  ///< There was no room for them: in the rings, or in the device.
	std::uint64_t bad = 0;		  ///< Damaged, too short or too long.
};

inline constexpr unsigned most_queues = 16;

class Port;

/// A receive and a transmit ring.
class Queue {
public:
	Queue(const Queue &) = delete;
	Queue &operator=(const Queue &) = delete;

	/// Where its packets are from now on. EBUSY: the device has frames of the queue; EINVAL: frames at an odd address, or not
	/// of the port's size.
	result<void> use(std::shared_ptr<Frames> frames);

	/// Gives empty frames to be received into; the device sees them at once. Returns how many were taken, from the first
	/// on: less than all if the ring is full, or the next one is not to be had: see Frames::take().
	std::size_t give(std::span<const std::uint32_t> frames);

	/// Packets that have come, in their order, as many as there is room for. Damaged ones are dropped, and their frames
	/// given again.
	std::span<Packet> receive(std::span<Packet> room);

	/// Sends packets; the device sees them at once. Returns how many were taken, as give() does; a packet of less than 14
	/// bytes, or more than the port's longest, is not taken.
	std::size_t send(std::span<const Packet> packets);

	/// Frames whose packets have been sent, without them, as many as there is room for. Those of one call of send() are told when all of them
	/// have been.
	std::span<Packet> sent(std::span<Packet> room);

	/// send() for packets, and give() for frames without one, in one pass. Returns, without their packets and at the beginning of
	/// `room`, which has room for all, those that were not taken; what comes after one of them is taken all the same.
	std::span<Packet> submit(std::span<const Packet> packets, std::span<Packet> room);

	/// While the device has fewer than `keep` frames for packets to come, gives it for these the frames whose packets
	/// have been sent: sent() does not tell of them. They are with the device all the while. Returns how many.
	unsigned recycle(unsigned keep);

	unsigned receiving() const noexcept { return rx_.used; } ///< Frames that the device has for packets to come.
	unsigned sending() const noexcept { return tx_.used; }	 ///< Frames that it has to send.
	std::uint64_t damaged() const noexcept { return damaged_; } ///< Packets that receive() has dropped.

private:
	friend Port;

	// A ring: entries from `head` on, `used` of them, are the device's.
	struct Ring {
		std::byte *entries = nullptr;
		std::vector<std::uint32_t> frames; // by entry
		unsigned size = 0;
		unsigned head = 0;
		unsigned tail = 0;
		unsigned used = 0;

		unsigned next(unsigned entry) const noexcept { return entry + 1 == size ? 0 : entry + 1; }
		// One entry stays empty: a full ring is not to look like an empty one.
		unsigned free() const noexcept { return size - 1 - used; }
	};

	Queue(Port &port, unsigned number) noexcept : port_(port), number_(number) {}
	void put_receive(std::uint32_t frame) noexcept;
	bool find_sent() noexcept;

	Port &port_;
	unsigned number_;
	std::shared_ptr<Frames> frames_; // or none, and then the device has none
	Ring rx_;
	Ring tx_;
	std::vector<std::uint32_t> last_; // of a call of send(), by its first transmit entry: the one that the device writes back
	unsigned ended_ = 0;		  // transmit entries from the head on that have been sent
	std::uint64_t damaged_ = 0;
};

class Port {
public:
	/// Resets the device and sets it up, in the datasheet's order, with rings in `memory`, which is zeroed, at `iova`, a
	/// multiple of 128. The device must be a bus master. Packets come and go as soon as the link is up, see link(), and
	/// queues have frames. EINVAL: options that cannot be; ENOMEM: `memory` is too small, see memory_for(); ENODEV: it is gone;
	/// ETIMEDOUT: it does not come out of its reset, or a queue does not start, within the datasheet's time.
	static result<std::unique_ptr<Port>> start(const pci::Bar &registers, std::uint16_t device, std::span<std::byte> memory,
						   std::uint64_t iova, const PortOptions &options);

	/// Whether such queues, rings and frames can be.
	static bool possible(const PortOptions &options) noexcept;

	/// Bytes of memory that the rings take, if the options are possible.
	static std::size_t memory_for(const PortOptions &options) noexcept;

	Port(const Port &) = delete;
	Port &operator=(const Port &) = delete;

	const MacAddress &mac() const noexcept { return mac_; }
	unsigned queues() const noexcept { return static_cast<unsigned>(queues_.size()); }
	Queue &queue(unsigned number) noexcept { return *queues_[number]; }

	Link link() noexcept;
	/// Reads the device's counters. Calls a minute apart or less lose nothing.
	const PortStatistics &statistics() noexcept;
	/// How many packets there was no room for in a queue, as statistics() has found it last.
	std::uint64_t missed(unsigned queue) const noexcept { return missed_[queue]; }

	/// Packets to the port's own address and to all are received; and with this those to any address.
	void set_promiscuous(bool on) noexcept;
	/// Packets to an address, of one station or of a group, are received, or no longer; the address is compared whole. EINVAL:
	/// it is the port's own, that of all, or none; ENOSPC: there are most_addresses already.
	result<void> accept_address(const MacAddress &address, bool on) noexcept;
	/// Of packets with a tag only those of VLANs that accept_vlan() has named are received. Tags stay in the packets.
	void filter_vlans(bool on) noexcept;
	/// EINVAL: a number above 4095.
	result<void> accept_vlan(unsigned vlan, bool on) noexcept;
	static constexpr unsigned most_addresses = 127;

	/// Interrupts of a queue are off at first and after each one, until this is called. What has come meanwhile interrupts then.
	void arm(unsigned queue) noexcept;

	/// Stops receiving and sending, and waits until the device has no transaction on the bus. ETIMEDOUT: it has, and only
	/// a reset from outside will end it.
	result<void> stop() noexcept;

	bool failed() const noexcept { return failure() != nullptr; }
	/// Why, in words.
	const char *failure() const noexcept { return failed_.load(std::memory_order_relaxed); }

private:
	friend Queue;
	Port(const pci::Bar &registers, const PortOptions &options) noexcept : registers_(registers), options_(options) {}
	std::uint32_t read(std::size_t at) const noexcept { return registers_.read<std::uint32_t>(at); }
	void write(std::size_t at, std::uint32_t value) const noexcept { registers_.write<std::uint32_t>(at, value); }
	void set(std::size_t at, std::uint32_t bits) const noexcept { write(at, read(at) | bits); }
	void clear(std::size_t at, std::uint32_t bits) const noexcept { write(at, read(at) & ~bits); }
	result<void> wait_for(std::size_t at, std::uint32_t mask, std::uint32_t value, std::chrono::milliseconds limit,
			      const char *late) const noexcept;
	result<void> reset() noexcept;
	void start_link(std::uint16_t device) noexcept;
	void set_up_filters() noexcept;
	result<void> start_receiving(std::uint64_t iova);
	result<void> start_sending(std::uint64_t iova);
	void set_up_interrupts() noexcept;
	void make_queues(std::span<std::byte> memory);
	std::size_t ring_bytes() const noexcept { return std::size_t{options_.entries} * sizeof(RxRead); }
	void fail(const char *why) noexcept;

	const pci::Bar &registers_;
	PortOptions options_;
	MacAddress mac_{};
	std::vector<MacAddress> addresses_; // accepted, too, by register from 1 on; those that are free are zero
	std::vector<std::unique_ptr<Queue>> queues_;
	PortStatistics statistics_;
	std::array<std::uint64_t, most_queues> missed_{};
	std::atomic<const char *> failed_{nullptr}; // by whichever of its threads
};

/// Resets a port without its driver's help, for a device that has been cut off: so it can be mapped and enabled anew. That
/// takes some 10 ms, less than a reset of the device, which is for one that this does not suit. EIO: it does not answer.
/// ETIMEDOUT.
result<void> bring_to_rest(pci::Device &device);

} // namespace orbit::ixgbe

#endif
