// SPDX-License-Identifier: MIT
//
// What a packet costs that is forwarded between two ports of 82599s: by the device layer alone, by the driver linked into its program,
// and by the driver called over a ring. README.md says how it is counted. The guest is this program's alone: it binds as it likes.
#include "counted.h"

#include "../../tests/drivers/wire.h"

#include "domain.h"

#include "../../isolation/ixgbe/channel.h"

#include <orbit/direct.hpp>
#include <orbit/domain.hpp>
#include <orbit/orbit.hpp>
#include <orbit/ring.hpp>

namespace {

using namespace counted;
using namespace orbit::isolation;
namespace ixgbe = orbit::ixgbe;
namespace net = orbit::net;

constexpr DomainId caller = 1, server = 2;
constexpr orbit::Zone frames_zone{0}, rings_zone{1};
constexpr std::uint64_t iova = 0x10000000;
constexpr std::uint32_t frame_bytes = 2048, packet_bytes = 64 - 4, entries = 512;
constexpr unsigned empty_frames = 128;   // of each port's receive ring
constexpr unsigned rounds_of_each = 2000; // each forwards a batch of each port

// Memory that both ports reach.
class Memory {
public:
	explicit Memory(std::size_t bytes) : pages_((bytes + page_bytes - 1) / page_bytes * page_bytes)
	{
		for (std::size_t n = 0; n < 2; n++) {
			devices[n] = get(orbit::pci::Device::open(machine::ports().at(n)), "device");
			get(devices[n]->map_dma({span().data(), span().size(), iova}), "map_dma");
			get(devices[n]->enable(), "enable");
		}
	}
	Memory(const Memory &) = delete;
	Memory &operator=(const Memory &) = delete;
	~Memory()
	{
		for (auto &device : devices)
			(void)device->silence();
	}
	std::span<std::byte> span() const { return pages_.span(); }

	std::array<std::unique_ptr<orbit::pci::Device>, 2> devices;

private:
	machine::Pages pages_;
};

// A packet for nobody: the ports are promiscuous.
void write_packet(std::byte *at)
{
	std::memset(at, 0x55, packet_bytes);
	at[0] = std::byte{2};
}

template <class Up> void wait_for_links(Up &&up)
{
	for (unsigned port = 0; port < 2; port++)
		while (!up(port))
			std::this_thread::sleep_for(std::chrono::milliseconds(10));
}

// The device layer: what came by one port goes out by the other, as often as there are packets.
class Ports {
public:
	explicit Ports(unsigned batch) : memory(2 * rings_bytes + frames_bytes), frames(std::make_shared<ixgbe::Frames>(
		iova + 2 * rings_bytes, frames_bytes / frame_bytes, frame_bytes))
	{
		const ixgbe::PortOptions options{.entries = entries, .promiscuous = true};

		for (unsigned n = 0; n < 2; n++) {
			bars[n].emplace(get(orbit::pci::Bar::map(memory.devices[n]->descriptor(), 0), "registers"));
			ports[n] = get(ixgbe::Port::start(*bars[n], memory.devices[n]->identity().device,
							  memory.span().subspan(n * rings_bytes, rings_bytes), iova + n * rings_bytes, options),
				       "port");
			get(ports[n]->queue(0).use(frames), "frames");
		}
		wait_for_links([&](unsigned n) { return ports[n]->link().up; });
		std::uint32_t next = 0;
		for (unsigned k = 0; k < 2 * empty_frames; k++, next++)
			check(ports[k % 2]->queue(0).give({&next, 1}) == 1, "give");
		for (unsigned n = 0; n < 2; n++) {
			for (unsigned k = 0; k < batch; k++, next++) {
				write_packet(memory.span().data() + 2 * rings_bytes + std::size_t{next} * frame_bytes);
				const ixgbe::Packet packet{next, packet_bytes};
				check(ports[n]->queue(0).send({&packet, 1}) == 1, "send");
			}
		}
	}

	// How many were forwarded.
	unsigned forward()
	{
		unsigned done = 0;

		for (unsigned n = 0; n < 2; n++) {
			ixgbe::Queue &in = ports[n]->queue(0), &out = ports[1 - n]->queue(0);
			ixgbe::Packet room[net::most_packets];
			const auto come = in.receive(room);

			out.submit(come, room);
			in.recycle(empty_frames);
			done += static_cast<unsigned>(come.size());
		}
		return done;
	}

	static constexpr std::size_t rings_bytes = 64 << 10, frames_bytes = 1 << 20;
	Memory memory;
	std::array<std::optional<orbit::pci::Bar>, 2> bars;
	std::array<std::unique_ptr<ixgbe::Port>, 2> ports;
	std::shared_ptr<ixgbe::Frames> frames;
};

// Both sides of a ring in one thread: the caller writes, the server serves, the caller reads. Nobody looks in vain.
class OneThread final : public Transport {
public:
	explicit OneThread(std::shared_ptr<Skeleton> object)
		: memory_(ring_bytes(shape)), object_(std::move(object)),
		  ring_(get(RingTransport::create(get(ring_memory(memory_.span(), shape), "ring"), shape), "caller")),
		  server_(get(RingServer::create(get(ring_memory(memory_.span(), shape), "ring"), shape), "server"))
	{
	}

	int call(std::uint32_t method, std::span<const std::byte> args, std::span<std::byte> reply, std::size_t *bytes,
		 std::uint64_t timeout_ns) override
	{
		RingTicket ticket;

		if (const int error = ring_->start(method, args, &ticket))
			return error;
		server_->serve_one(*object_);
		return ring_->finish(ticket, reply, bytes, timeout_ns);
	}

private:
	static constexpr RingShape shape{.slots = 32, .message_bytes = 4096, .spins = 0};
	machine::Pages memory_;
	std::shared_ptr<Skeleton> object_;
	std::shared_ptr<RingTransport> ring_;
	std::shared_ptr<RingServer> server_;
};

// Of a driver that is not a process of its own.
class NeverDies final : public Recovery {
public:
	std::uint64_t starts() const noexcept override { return 1; }
	std::uint64_t settled() override { return 1; }
	void replace(std::uint64_t) override { die("the driver is out of its mind"); }
};

// The driver, and who calls it.
class Called {
public:
	static constexpr std::size_t frames_bytes = 1 << 20;
	static constexpr net::Settings settings{.queues = 1, .entries = entries, .frame_bytes = frame_bytes, .longest = 1514, .promiscuous = true};

	Called(unsigned batch, bool ring)
		: zones{4 * frames_bytes, 2 * ixgbe::rings_bytes(settings, 2)}, memory(Heap::bytes(2, zones)),
		  heap(get(Heap::create(memory.span(), 2, zones), "heap"))
	{
		for (const DomainId domain : {caller, server})
			for (std::uint32_t zone = 0; zone < zones.size(); zone++) {
				get(heap.add(domain, zone), "zone");
				get(heap.grant(domain, zone, zones[zone] / 2), "grant");
			}
		here = get(Endpoint::attach(memory.span(), caller), "endpoint");
		there = get(Endpoint::attach(memory.span(), server), "endpoint");
		worker = std::make_shared<ixgbe::Worker>(*there, nullptr);
		const net::Memory reached{.address = reinterpret_cast<std::uintptr_t>(memory.span().data()), .bytes = memory.span().size(),
					  .iova = iova, .rings = rings_zone.number};
		for (const auto &device : memory.devices)
			get(worker->start(device->descriptor(), device->identity().device, reached, settings, {}), "start");
		auto skeleton = std::make_shared<net::DeviceSkeleton>(std::make_shared<ixgbe::Connected>(worker, caller),
								      Connection{.endpoint = there.get(), .peer = caller});
		std::shared_ptr<Transport> transport;
		if (ring)
			transport = std::make_shared<OneThread>(skeleton);
		else
			transport = std::make_shared<DirectTransport>(skeleton);
		device = std::make_shared<net::DeviceProxy>(std::move(transport), Connection{.endpoint = here.get(), .peer = server,
												  .timeout = std::chrono::seconds(10)});
		channel = get(net::Channel::open(device, *here, server, std::make_shared<NeverDies>(),
						 get(here->make_array<std::byte>(frames_zone, frames_bytes), "frames"), {{0, 0}, {1, 0}}, empty_frames),
			      "channel");
		wait_for_links([&](unsigned n) { return get(device->link(n), "link").mbit > 0; });
		std::uint32_t next = 0;
		const auto give = [&](std::uint32_t port, std::uint32_t bytes) {
			const auto back = get(channel->submit_and_poll({port, 0}, std::array{net::Packet{next++, bytes}}, 0), "submit_and_poll");
			come[port].insert(come[port].end(), back.begin(), back.end());
		};
		for (unsigned k = 0; k < 2 * empty_frames; k++)
			give(k % 2, 0);
		for (unsigned n = 0; n < 2; n++) {
			for (unsigned k = 0; k < batch; k++) {
				write_packet(channel->frame(next).data());
				give(n, packet_bytes);
			}
		}
	}

	// What came by a port goes out by the other.
	unsigned forward()
	{
		std::size_t done = 0;

		for (std::uint32_t port = 0; port < 2; port++) {
			come[port] = get(channel->submit_and_poll({port, 0}, come[1 - port], 0), "submit_and_poll");
			done += come[port].size();
		}
		return static_cast<unsigned>(done);
	}

	std::array<std::size_t, 2> zones;
	Memory memory;
	Heap heap;
	std::unique_ptr<Endpoint> here, there;
	std::shared_ptr<ixgbe::Worker> worker;
	std::shared_ptr<net::DeviceProxy> device;
	std::unique_ptr<net::Channel> channel;
	std::array<std::vector<net::Packet>, 2> come;
};

template <class T, class... Arguments> void count(const std::string &name, Arguments... arguments)
{
	for (const unsigned batch : {1U, 32U}) {
		T which(batch, arguments...);
		std::uint64_t done = 0;

		for (unsigned n = 0; n < 100; n++)
			which.forward();
		const std::int64_t began = now();
		for (unsigned n = 0; n < rounds_of_each; n++)
			done += which.forward();
		const auto took = static_cast<double>(now() - began);
		// All go round: else it would be another batch.
		if (done != std::uint64_t{2} * rounds_of_each * batch)
			die(name + ": " + std::to_string(done) + " packets came in " + std::to_string(rounds_of_each) + " rounds of " +
			    std::to_string(batch) + " each way");
		figure("ixgbe/" + name + "/batch=" + std::to_string(batch), took / static_cast<double>(done));
	}
}

} // namespace

int main()
{
	check(static_cast<bool>(orbit::prepare()), "prepare");
	check(machine::ports().size() == 2, "there are no two 82599s");
	for (const std::string &address : machine::ports())
		check(machine::give(address, "vfio-pci"), "vfio-pci");
	count<Ports>("the device layer");
	count<Called>("linked in", false);
	count<Called>("over a ring", true);
	return 0;
}
