// SPDX-License-Identifier: MIT
//
// The 82599 driver's device layer, in this program itself, on one port, and Linux's own driver on the other end of the wire.
#include "wire.h"

#include "../../isolation/ixgbe/port.h"

#include <map>
#include <numeric>
#include <poll.h>
#include <set>
#include <sys/eventfd.h>

namespace {

using namespace machine;
using namespace orbit::ixgbe;
using orbit::pci::Bar;
using orbit::pci::Device;

constexpr std::uint64_t iova = 0x10000000;
// A port that runs, with frames.
struct Running {
	explicit Running(PortOptions options = {}, unsigned count = 2048, std::span<const int> events = {})
		: options(options), rings(Port::memory_for(options)), memory(std::size_t{count} * options.frame_bytes)
	{
		const std::uint64_t frames_iova = iova + (64 << 20);
		const orbit::pci::DmaRange ranges[] = {{rings.span().data(), pages_of(rings), iova},
						       {memory.span().data(), pages_of(memory), frames_iova}};
		auto opened = open_device(ports().at(0), ranges, events);
		if (!opened) {
			ADD_FAILURE() << words_of(opened);
			return;
		}
		device = std::move(opened->device);
		bar = std::move(opened->bar);
		auto started = Port::start(*bar, device->identity().device, rings.span(), iova, options);
		if (!started) {
			ADD_FAILURE() << words_of(started);
			return;
		}
		port = std::move(*started);
		frames = std::make_shared<Frames>(frames_iova, count, options.frame_bytes);
		for (unsigned n = 0; n < port->queues(); n++)
			EXPECT_TRUE(port->queue(n).use(frames));
		EXPECT_TRUE(wait_until([&] { return port->link().up; }));
	}

	static std::size_t pages_of(const Pages &pages) { return (pages.span().size() + 4095) & ~std::size_t{4095}; }

	std::span<std::byte> frame(std::uint32_t number) const
	{
		return memory.span().subspan(std::size_t{number} * options.frame_bytes, options.frame_bytes);
	}

	// Gives all frames from `first` on to a queue, as far as it takes them.
	std::size_t give(std::uint32_t first, std::uint32_t count, unsigned queue = 0)
	{
		std::vector<std::uint32_t> numbers(count);

		std::iota(numbers.begin(), numbers.end(), first);
		return port->queue(queue).give(numbers);
	}

	PortOptions options;
	Pages rings, memory;
	std::unique_ptr<Device> device;
	std::optional<Bar> bar;
	std::shared_ptr<Frames> frames;
	std::unique_ptr<Port> port;
};

class Ixgbe : public testing::Test {
protected:
	void SetUp() override
	{
		ASSERT_EQ(ports().size(), 2u) << "this machine has no two 82599s";
		ASSERT_TRUE(give(ports()[0], "vfio-pci"));
		ASSERT_TRUE(give(ports()[1], "ixgbe"));
	}
};

TEST_F(Ixgbe, SaysWhatLinuxSaysOfIt)
{
	ASSERT_TRUE(give(ports()[0], "ixgbe"));
	std::array<std::uint8_t, 6> known{};
	{
		const Wire linux_end(ports()[0]);
		known = linux_end.mac;
	}
	ASSERT_TRUE(give(ports()[0], "vfio-pci"));

	Running on;

	ASSERT_TRUE(on.port);
	EXPECT_EQ(on.port->mac(), known);
	EXPECT_EQ(on.port->link().mbit, 10000u);
	EXPECT_EQ(on.device->identity().vendor, vendor_intel);
}

// So many packets from ours to Linux: those that come are right and in order, and none is lost.
void send_to_linux(Running &on, const Wire &wire, std::uint32_t packets, unsigned longest)
{
	Queue &queue = on.port->queue(0);
	std::vector<std::uint32_t> free(256);
	std::uint32_t sent = 0, come = 0;

	std::iota(free.begin(), free.end(), 0);
	ASSERT_TRUE(wait_until([&] {
		for (unsigned round = 0; round < 64; round++) {
			std::vector<Packet> batch;
			Packet ended[64];

			while (!free.empty() && batch.size() < 32 && sent < packets && sent - come < most_under_way(longest)) {
				const std::uint32_t frame = free.back(), bytes = size_of(sent, longest);

				free.pop_back();
				fill_packet(on.frame(frame).first(bytes), wire.mac, on.port->mac(), sent++);
				batch.push_back({frame, bytes});
			}
			EXPECT_EQ(queue.send(batch), batch.size());
			for (const Packet &one : queue.sent(ended))
				free.push_back(one.frame);
			while (const auto packet = wire.receive()) {
				EXPECT_EQ(number_of(*packet), come);
				come++;
			}
		}
		return come >= packets || testing::Test::HasFailure();
	})) << come
	    << " of " << packets;
	Packet ended[64];

	EXPECT_TRUE(wait_until([&] {
		(void)queue.sent(ended);
		return !queue.sending();
	}));
}

void receive_from_linux(Running &on, const Wire &wire, std::uint32_t packets, unsigned longest)
{
	Queue &queue = on.port->queue(0);
	std::vector<bool> seen(packets); // not in order: Linux sends by several queues
	std::uint32_t sent = 0, come = 0;

	EXPECT_GT(on.give(512, 500), 0u);
	ASSERT_TRUE(wait_until([&] {
		std::vector<std::byte> packet;
		std::vector<std::uint32_t> again;
		Packet room[32];

		for (unsigned n = 0; n < 64 && sent < packets && sent - come < most_under_way(longest); n++) {
			packet.resize(size_of(sent, longest));
			fill_packet(packet, on.port->mac(), wire.mac, sent);
			if (!wire.send(packet))
				break;
			sent++;
		}
		for (auto got = queue.receive(room); !got.empty(); got = queue.receive(room)) {
			for (const Packet &one : got) {
				const auto number = number_of(on.frame(one.frame).first(one.bytes));

				EXPECT_TRUE(number && *number < packets && !seen[*number]) << "damaged, or twice";
				if (number)
					seen[*number % packets] = true;
				come++;
				again.push_back(one.frame);
			}
			EXPECT_EQ(queue.give(again), again.size());
			again.clear();
		}
		return come >= packets || testing::Test::HasFailure();
	})) << come
	    << " of " << packets << ", sent " << sent << ", missed " << on.port->statistics().missed;
}

TEST_F(Ixgbe, PacketsOfAllSizesArriveAtLinux)
{
	Running on;
	const Wire wire(ports()[1]);

	ASSERT_TRUE(on.port);
	ASSERT_TRUE(wait_until([&] { return wire.up(); }));
	send_to_linux(on, wire, 5000, 1514);
	EXPECT_EQ(on.port->statistics().sent, 5000u);
}

TEST_F(Ixgbe, PacketsOfAllSizesComeFromLinux)
{
	Running on;
	const Wire wire(ports()[1]);

	ASSERT_TRUE(on.port);
	ASSERT_TRUE(wait_until([&] { return wire.up(); }));
	receive_from_linux(on, wire, 5000, 1514);
	EXPECT_EQ(on.port->statistics().missed, 0u);
}

TEST_F(Ixgbe, JumboFramesGoBothWays)
{
	Running on({.frame_bytes = 10240, .longest = 9018}, 1100);
	const Wire wire(ports()[1], 9000);

	ASSERT_TRUE(on.port);
	ASSERT_TRUE(wait_until([&] { return wire.up(); }));
	send_to_linux(on, wire, 2000, 9014);
	receive_from_linux(on, wire, 2000, 9014);
}

TEST_F(Ixgbe, WhatHasNoRoomIsCounted)
{
	Running on;
	const Wire wire(ports()[1]);
	Queue &queue = on.port->queue(0);
	std::vector<std::byte> packet(100);
	Packet room[64];

	ASSERT_TRUE(wait_until([&] { return wire.up(); }));
	on.port->statistics();
	EXPECT_EQ(on.give(0, 8), 8u);
	for (std::uint32_t n = 0; n < 40; n++) {
		fill_packet(packet, on.port->mac(), wire.mac, n);
		EXPECT_TRUE(wire.send(packet));
	}
	EXPECT_TRUE(wait_until([&] { return on.port->statistics().missed >= 32; }));
	EXPECT_EQ(queue.receive(room).size(), 8u);
	EXPECT_EQ(on.port->statistics().missed, 32u);
	// And it goes on.
	EXPECT_EQ(on.give(8, 100), 100u);
	EXPECT_TRUE(wire.send(packet));
	EXPECT_TRUE(wait_until([&] { return queue.receive(room).size() == 1; }));
}

TEST_F(Ixgbe, TakesNoFrameTwiceAndNoneThatThereIsNot)
{
	Running on;
	Queue &queue = on.port->queue(0);
	const std::uint32_t twice[] = {5, 5}, beyond[] = {2048};
	const Packet short_one[] = {{.frame = 6, .bytes = 13}}, long_one[] = {{.frame = 6, .bytes = 1515}}, other[] = {{.frame = 5, .bytes = 60}};

	EXPECT_EQ(queue.give(twice), 1u);
	EXPECT_EQ(queue.give(beyond), 0u);
	EXPECT_EQ(queue.send(short_one), 0u);
	EXPECT_EQ(queue.send(long_one), 0u);
	EXPECT_EQ(queue.send(other), 0u); // the device has it to receive
	EXPECT_EQ(on.give(100, 1000), 510u); // 511 fit
	EXPECT_EQ(error_of(queue.use(on.frames)), EBUSY);
}

TEST_F(Ixgbe, RefusesOptionsThatCannotBe)
{
	Running on;

	const auto start = [&](const PortOptions &options, std::size_t bytes = 1 << 20, std::uint64_t at = iova) {
		std::vector<std::byte> memory(bytes);

		return error_of(Port::start(*on.bar, device_sfp, memory, at, options));
	};
	for (const PortOptions &options : {PortOptions{.queues = 0}, {.queues = 17}, {.entries = 4}, {.entries = 100}, {.entries = 8192},
					   {.frame_bytes = 0}, {.frame_bytes = 1500}, {.frame_bytes = 16384}, {.longest = 40}, {.longest = 4096}, {.interrupt_us = 1047}})
		EXPECT_EQ(start(options), EINVAL);
	EXPECT_EQ(start({}, 1 << 20, iova + 64), EINVAL);
	EXPECT_EQ(start({}, 100), ENOMEM);
}

TEST_F(Ixgbe, StopsAndStartsAnewUnderTraffic)
{
	for (unsigned round = 0; round < 5; round++) {
		Running on;
		const Wire wire(ports()[1]);
		std::vector<std::byte> packet(60);

		ASSERT_TRUE(on.port) << round;
		ASSERT_TRUE(wait_until([&] { return wire.up(); }));
		on.give(0, 500);
		for (std::uint32_t n = 0; n < 300; n++) {
			fill_packet(packet, on.port->mac(), wire.mac, n);
			(void)wire.send(packet);
			if (n == 100 + 50 * round) {
				EXPECT_TRUE(on.port->stop());
			}
		}
		ASSERT_TRUE(on.device->silence());
		// What the device had is nobody's any more: a canary survives more traffic.
		for (std::byte &byte : on.memory.span())
			byte = std::byte{0x5a};
		for (std::uint32_t n = 0; n < 300; n++)
			(void)wire.send(packet);
		EXPECT_TRUE(std::ranges::all_of(on.memory.span(), [](std::byte byte) { return byte == std::byte{0x5a}; }));
	}
	Running on;
	const Wire wire(ports()[1]);

	ASSERT_TRUE(on.port);
	ASSERT_TRUE(wait_until([&] { return wire.up(); }));
	receive_from_linux(on, wire, 500, 1514);
}

TEST_F(Ixgbe, InterruptsTellOfPackets)
{
	int events[2];

	for (int &event : events)
		event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	Running on({.interrupts = true}, 2048, events);
	const Wire wire(ports()[1]);
	std::vector<std::byte> packet(60);
	Packet room[4];

	ASSERT_TRUE(on.port);
	ASSERT_TRUE(wait_until([&] { return wire.up(); }));
	on.give(0, 100);
	for (std::uint32_t n = 0; n < 3; n++) {
		pollfd told{.fd = events[0], .events = POLLIN, .revents = 0};
		std::uint64_t count = 0;

		on.port->arm(0);
		fill_packet(packet, on.port->mac(), wire.mac, n);
		ASSERT_TRUE(wire.send(packet));
		EXPECT_EQ(poll(&told, 1, 30000), 1);
		EXPECT_EQ(read(events[0], &count, sizeof(count)), static_cast<ssize_t>(sizeof(count)));
		EXPECT_TRUE(wait_until([&] { return on.port->queue(0).receive(room).size() == 1; }));
	}
	// It has interrupted, and does so no more until it is asked to; what has come meanwhile interrupts then.
	const auto interrupts = [&] {
		std::uint64_t count = 0;

		return read(events[0], &count, sizeof(count)) < 0 ? 0 : count;
	};
	on.port->arm(0);
	fill_packet(packet, on.port->mac(), wire.mac, 3);
	ASSERT_TRUE(wire.send(packet));
	EXPECT_TRUE(wait_until([&] { return interrupts() == 1; }));
	for (std::uint32_t n = 4; n < 14; n++) {
		fill_packet(packet, on.port->mac(), wire.mac, n);
		ASSERT_TRUE(wire.send(packet));
	}
	std::size_t come = 0;
	EXPECT_TRUE(wait_until([&] { return (come += on.port->queue(0).receive(room).size()) == 11; }));
	EXPECT_EQ(interrupts(), 0u);
	on.port->arm(0);
	EXPECT_TRUE(wait_until([&] { return interrupts() == 1; }));
	for (const int event : events)
		close(event);
}

// An IPv4 packet with UDP, of one of many flows.
std::vector<std::byte> udp_packet(std::span<const std::uint8_t> to, std::span<const std::uint8_t> from, std::uint16_t flow, std::uint16_t number)
{
	std::vector<std::byte> packet(80);
	const auto put = [&](std::size_t at, unsigned value) {
		packet[at] = static_cast<std::byte>(value >> 8);
		packet[at + 1] = static_cast<std::byte>(value);
	};

	std::memcpy(packet.data(), to.data(), 6);
	std::memcpy(packet.data() + 6, from.data(), 6);
	put(12, 0x0800);
	put(14, 0x4500);
	put(16, 66); // all from here on
	put(22, 64 << 8 | 17);
	put(26, 10 << 8); // 10.0.0.1 to 10.0.0.2
	put(28, 1);
	put(30, 10 << 8);
	put(32, 2);
	unsigned sum = 0;
	for (std::size_t at = 14; at < 34; at += 2)
		sum += std::to_integer<unsigned>(packet[at]) << 8 | std::to_integer<unsigned>(packet[at + 1]);
	put(24, ~(sum + (sum >> 16)) & 0xffff);
	put(34, 1000U + flow);
	put(36, 7);
	put(38, 46); // and no checksum
	put(42, flow);
	put(44, number);
	return packet;
}

TEST_F(Ixgbe, HasSeveralQueuesAndAFlowIsInOne)
{
	constexpr unsigned queues = 4, flows = 64, rounds = 4;
	Running on({.queues = queues}, 2048);
	const Wire wire(ports()[1]);
	std::map<std::uint16_t, unsigned> queue_of; // by flow
	std::set<std::pair<std::uint16_t, std::uint16_t>> seen;
	std::set<unsigned> used;
	Packet room[32];

	ASSERT_TRUE(on.port);
	ASSERT_TRUE(wait_until([&] { return wire.up(); }));
	// Those that have no room are counted by queue.
	for (std::uint16_t flow = 0; flow < flows; flow++)
		ASSERT_TRUE(wire.send(udp_packet(on.port->mac(), wire.mac, flow, 0)));
	EXPECT_TRUE(wait_until([&] { return on.port->statistics().missed >= flows; }));
	std::uint64_t missed = 0;
	for (unsigned queue = 0; queue < queues; queue++) {
		EXPECT_GT(on.port->missed(queue), 0u) << queue;
		missed += on.port->missed(queue);
	}
	EXPECT_EQ(missed, on.port->statistics().missed);
	for (unsigned queue = 0; queue < queues; queue++)
		EXPECT_EQ(on.give(queue * 400, 400, queue), 400u);
	for (std::uint16_t number = 0; number < rounds; number++)
		for (std::uint16_t flow = 0; flow < flows; flow++)
			ASSERT_TRUE(wire.send(udp_packet(on.port->mac(), wire.mac, flow, number)));
	EXPECT_TRUE(wait_until([&] {
		for (unsigned queue = 0; queue < queues; queue++)
			for (const Packet &packet : on.port->queue(queue).receive(room)) {
				const auto bytes = on.frame(packet.frame);
				const auto word = [&](std::size_t at) {
					return static_cast<std::uint16_t>(std::to_integer<unsigned>(bytes[at]) << 8 | std::to_integer<unsigned>(bytes[at + 1]));
				};

				// Linux may have something of its own to say.
				if (packet.bytes != 80 || word(36) != 7)
					continue;
				used.insert(queue);
				EXPECT_EQ(queue_of.emplace(word(42), queue).first->second, queue) << "flow " << word(42);
				EXPECT_TRUE(seen.insert({word(42), word(44)}).second) << "twice";
			}
		return seen.size() == flows * rounds;
	})) << seen.size();
	EXPECT_EQ(used.size(), queues);
	EXPECT_EQ(on.port->statistics().missed, missed);

	// And each sends.
	std::set<std::uint32_t> arrived;
	for (std::uint32_t queue = 0; queue < queues; queue++) {
		const std::uint32_t frame = 2000 + queue;

		fill_packet(on.frame(frame).first(100), wire.mac, on.port->mac(), queue);
		const Packet batch[] = {{frame, 100}};
		EXPECT_EQ(on.port->queue(queue).send(batch), 1u);
	}
	EXPECT_TRUE(wait_until([&] {
		while (const auto packet = wire.receive())
			if (const auto number = number_of(*packet))
				arrived.insert(*number);
		return arrived.size() == queues;
	}));
}

} // namespace
