// SPDX-License-Identifier: MIT
//
// A driver of the 82599 that is out of its mind: it writes any value to any register, descriptor, and part of config space,
// while packets come. Memory that is not its device's stays as it is, its callers get errors and go on, and the next driver
// has a device that works.
#include "card_test.h"

#include <atomic>
#include <fstream>
#include <linux/vfio.h>
#include <random>
#include <set>

namespace {

constexpr std::size_t frames_bytes = 2 << 20, others_bytes = 1 << 20;
const Zone frames{0}, rings{1}, others{2};
const net::Settings port{.queues = 2, .entries = 128, .frame_bytes = 2048, .longest = 1514, .promiscuous = true};

// What it does when it is called; `wait_for` says which.
enum Madness : std::uint32_t {
	nothing, // not yet
	foreign_memory, // the first: the kernel tells of a few faults only, and then of none for seconds
	garbage_registers,
	garbage_queue_registers,
	garbage_descriptors,
	garbage_config,
	garbage_all,
	garbage_answers,
	garbage_rings,
	no_answer,
	madnesses
};
const char *const names[] = {"Nothing", "ForeignMemory", "GarbageRegisters", "GarbageQueueRegisters", "GarbageDescriptors", "GarbageConfig",
			     "GarbageRegistersDescriptorsAndConfig", "GarbageAnswers", "GarbageRings", "NoAnswer"};
static_assert(std::size(names) == madnesses);

// Other seeds are other madnesses.
std::uint64_t seed()
{
	const char *const wanted = std::getenv("ORBIT_IXGBE_SEED");

	return wanted ? std::strtoull(wanted, nullptr, 10) : 1;
}

// --- in the domain

class MadWorker final : public net::Device, public net::Driver {
public:
	explicit MadWorker(orbit::isolation::Endpoint &endpoint) : endpoint_(endpoint) {}

	orbit::result<void> start(std::int32_t device, std::uint32_t id, const net::Memory &memory, const net::Settings &settings,
				  std::span<const std::int32_t>) override
	{
		const ixgbe::PortOptions options{.queues = settings.queues, .entries = settings.entries, .promiscuous = settings.promiscuous};
		auto bar = orbit::pci::Bar::map(device, 0);
		auto bytes = endpoint_.make_array_for_overwrite<std::byte>(Zone{memory.rings}, ixgbe::Port::memory_for(options) + 128);

		if (!bar || !bytes)
			return orbit::failed(EIO);
		device_ = device;
		memory_ = memory;
		bar_.emplace(std::move(*bar));
		rings_ = std::move(*bytes);
		const auto at = reinterpret_cast<std::uintptr_t>(rings_.elements().data()) - memory.address + memory.iova;
		const std::size_t skip = -at % 128;
		ring_memory_ = rings_.elements().subspan(skip);
		std::ranges::fill(ring_memory_, std::byte{});
		auto started = ixgbe::Port::start(*bar_, static_cast<std::uint16_t>(id), ring_memory_, at + skip, options);
		if (!started)
			return orbit::failed(started.error().code());
		port_ = std::move(*started);
		return {};
	}
	orbit::result<std::uint32_t> ports() override { return 1; }
	orbit::result<net::Limits> limits(std::uint32_t) override
	{
		return net::Limits{.queues = port.queues, .entries = port.entries - 1, .frame_bytes = port.frame_bytes, .longest = port.longest, .mac = port_->mac()};
	}
	orbit::result<net::Link> link(std::uint32_t) override { return net::Link{.mbit = port_->link().mbit}; }
	orbit::result<net::Statistics> statistics(std::uint32_t) override { return net::Statistics{}; }
	orbit::result<void> set_promiscuous(std::uint32_t, bool) override { return {}; }
	orbit::result<void> accept_address(std::uint32_t, const net::Address &, bool) override { return {}; }
	orbit::result<void> filter_vlans(std::uint32_t, bool) override { return {}; }
	orbit::result<void> accept_vlan(std::uint32_t, std::uint32_t, bool) override { return {}; }
	orbit::result<std::uint32_t> use(const orbit::isolation::Handle &) override { return 1; }
	orbit::result<void> open(std::uint32_t, std::uint32_t, std::uint32_t) override { return {}; }

	orbit::result<std::vector<Packet>> submit_and_poll(std::uint32_t, std::uint32_t, std::span<const Packet>, std::uint32_t wait_for) override
	{
		std::vector<Packet> answer;

		if (wait_for == nothing)
			return answer;
		if (raged_)
			return orbit::failed(EIO);
		raged_ = true;
		rage(wait_for);
		if (wait_for == garbage_answers)
			while (answer.size() < net::most_packets)
				answer.push_back({any() % 2048, any() % 4096});
		return answer;
	}

private:
	static constexpr std::size_t bar_bytes = 128 << 10;

	void rage(std::uint32_t madness)
	{
		if (madness == garbage_registers)
			some(2000, [&] { write_register(any() % bar_bytes); });
		else if (madness == garbage_queue_registers)
			some(2000, [&] { write_queue_register(); });
		else if (madness == garbage_descriptors)
			some(100, [&] { write_descriptors([&] { return any_address(); }); });
		else if (madness == foreign_memory)
			some(20, [&] { write_descriptors([&] { return memory_.iova + memory_.bytes + 4096 + (any() % 64 << 12); }); });
		else if (madness == garbage_config)
			some(300, [&] { write_config(); });
		else if (madness == garbage_all)
			some(300, [&] {
				some(5, [&] { write_register(any() % bar_bytes); });
				some(5, [&] { write_queue_register(); });
				write_descriptors([&] { return any_address(); });
				if (any() % 8 == 0)
					write_config();
			});
		else if (madness == garbage_rings)
			write_rings();
		else if (madness == no_answer)
			for (;;)
				pause();
	}
	template <class F> static void some(unsigned times, F &&f)
	{
		while (times--)
			f();
	}

	std::uint32_t any() { return static_cast<std::uint32_t>(random_()); }
	std::uint32_t any_value()
	{
		switch (any() % 5) {
		case 0:
			return 0;
		case 1:
			return ~0U;
		case 2:
			return 1U << any() % 32;
		case 3:
			return any() % 1024;
		default:
			return any();
		}
	}
	// Of its own memory, behind it, or anywhere.
	std::uint64_t any_address()
	{
		switch (any() % 4) {
		case 0:
			return random_();
		case 1:
			return memory_.iova + memory_.bytes + any() % (64 << 20);
		case 2:
			return any();
		default:
			return memory_.iova + any() % memory_.bytes;
		}
	}
	void write_register(std::size_t at) { bar_->write<std::uint32_t>(at & ~std::size_t{3}, any_value()); }
	void write_queue_register()
	{
		const unsigned queue = any() % 4 ? any() % port.queues : any() % 128;

		write_register((any() % 2 ? ixgbe::reg::rx_queue(queue) : ixgbe::reg::tx_queue(queue)) + any() % 0x40);
	}

	// The queues anew, with descriptors of which some are nearly right; all are the device's.
	template <class Address> void write_descriptors(Address &&address)
	{
		const std::size_t ring_bytes = std::size_t{port.entries} * 16;

		for (std::size_t at = 0; at + 16 <= 4 * ring_bytes; at += 16) {
			const bool to_send = at >= port.queues * ring_bytes;
			const std::uint32_t bytes = any() % 8 ? 14 + any() % 1500 : any();
			const std::uint64_t what = any() % 8 ? bytes | ixgbe::tx::data | ixgbe::tx::eop | ixgbe::tx::ifcs | ixgbe::tx::dext |
								       std::uint64_t{bytes} << (32 + ixgbe::tx::paylen_shift)
							     : random_();
			const std::uint64_t words[2] = {address(), to_send ? what : address()};

			std::memcpy(ring_memory_.data() + at, words, sizeof(words));
		}
		for (unsigned queue = 0; queue < port.queues; queue++) {
			// One that an error has stopped goes on when it is turned on.
			for (const std::size_t at : {ixgbe::reg::rxdctl(queue), ixgbe::reg::txdctl(queue)}) {
				bar_->write<std::uint32_t>(at, 0);
				bar_->write<std::uint32_t>(at, ixgbe::qctl::enable);
			}
			bar_->write<std::uint32_t>(ixgbe::reg::rdt(queue), any() % port.entries);
			bar_->write<std::uint32_t>(ixgbe::reg::tdt(queue), any() % port.entries);
		}
		std::this_thread::sleep_for(std::chrono::milliseconds(2));
	}

	void write_config()
	{
		vfio_region_info config{};

		config.argsz = sizeof(config);
		config.index = VFIO_PCI_CONFIG_REGION_INDEX;
		if (ioctl(device_, VFIO_DEVICE_GET_REGION_INFO, &config))
			return;
		const std::uint32_t value = any_value();

		(void)!pwrite(device_, &value, sizeof(value), static_cast<off_t>(config.offset + (any() % 256 & ~3U)));
	}

	// All that it can write of what calls go over.
	void write_rings()
	{
		std::ifstream maps("/proc/self/maps");

		for (std::string line; std::getline(maps, line);) {
			unsigned long begin, end;

			if (line.find("rings") != line.npos && line.find(" rw-s ") != line.npos && std::sscanf(line.c_str(), "%lx-%lx", &begin, &end) == 2)
				for (auto at = reinterpret_cast<std::uint64_t *>(begin); at < reinterpret_cast<std::uint64_t *>(end); at++)
					*at = random_();
		}
	}

	orbit::isolation::Endpoint &endpoint_;
	std::mt19937_64 random_{seed()};
	bool raged_ = false;
	int device_ = -1;
	net::Memory memory_{};
	std::optional<orbit::pci::Bar> bar_;
	rref<std::byte[]> rings_;
	std::span<std::byte> ring_memory_;
	std::unique_ptr<ixgbe::Port> port_;
};

// The first domain that asks is to be mad: there is one byte in the pipe.
constexpr int pipe_end = 200; // a number that it knows

bool is_mad()
{
	static const bool mad = [] {
		char byte;
		return read(pipe_end, &byte, 1) == 1;
	}();

	return mad;
}

// Both services are the same object.
std::shared_ptr<MadWorker> mad_worker(const orbit::isolation::Connection &connection)
{
	static const auto one = std::make_shared<MadWorker>(*connection.endpoint);

	return one;
}

std::shared_ptr<orbit::isolation::Skeleton> make_driver(const orbit::isolation::Connection &connection)
{
	if (is_mad())
		return std::make_shared<net::DriverSkeleton>(mad_worker(connection), connection);
	return std::make_shared<net::DriverSkeleton>(ixgbe::detail::worker(connection), connection);
}

std::shared_ptr<orbit::isolation::Skeleton> make_device(const orbit::isolation::Connection &connection)
{
	if (is_mad())
		return std::make_shared<net::DeviceSkeleton>(mad_worker(connection), connection);
	return std::make_shared<net::DeviceSkeleton>(std::make_shared<ixgbe::Connected>(ixgbe::detail::worker(connection), connection.peer),
						     connection);
}

// --- in the main program

class MadIxgbe : public CardTest, public testing::WithParamInterface<std::uint32_t> {};

TEST_P(MadIxgbe, HurtsNobody)
{
	ASSERT_NO_FATAL_FAILURE(open_card({{2 * frames_bytes, 2 * frames_bytes}, {ixgbe::rings_bytes(port), 0}, {2 * others_bytes, 2 * others_bytes}}));

	// Memory of the program's, and of a zone that the domain has no part in.
	auto other = supervisor->endpoint().make_array<std::byte>(others, others_bytes);
	ASSERT_TRUE(other) << words_of(other);
	const Pages own(others_bytes);
	for (const std::span<std::byte> bytes : {other->elements(), own.span()})
		std::ranges::fill(bytes, canary);

	int ends[2];
	ASSERT_EQ(pipe2(ends, O_CLOEXEC | O_NONBLOCK), 0);
	ASSERT_EQ(write(ends[1], "m", 1), 1);
	ASSERT_EQ(dup3(ends[0], pipe_end, O_CLOEXEC), pipe_end);
	orbit::pci::Device *const devices[] = {device.get()};
	auto options = ixgbe::domain_options(*supervisor, devices, {.port = port, .timeout = std::chrono::seconds(3), .restarts = {.most = 10}});
	options.services = {{&net::DriverSkeleton::interface_, make_driver}, {&net::DeviceSkeleton::interface_, make_device}};
	options.keep_fds.push_back(pipe_end);
	const unsigned faults = iommu_faults();
	auto domain = supervisor->start(std::move(options));
	ASSERT_TRUE(domain) << words_of(domain);
	auto proxy = (*domain)->proxy<net::DeviceProxy>();
	ASSERT_TRUE(proxy);
	const auto calls = std::make_shared<net::DeviceProxy>(std::move(*proxy));
	auto memory = supervisor->endpoint().make_array<std::byte>(frames, frames_bytes);
	ASSERT_TRUE(memory);
	auto opened = Channel::open(calls, supervisor->endpoint(), (*domain)->connection().peer, (*domain)->recovery(), std::move(*memory), {{0, 0}});
	ASSERT_TRUE(opened) << words_of(opened);
	Channel &channel = **opened;
	const auto limits = calls->limits(0);
	ASSERT_TRUE(limits);
	const auto linked = [&] {
		const auto link = calls->link(0);
		return link && link->mbit == 10000 && wire->up();
	};
	ASSERT_TRUE(wait_until(linked));

	// Packets come all the while.
	std::atomic<bool> stop{false};
	std::thread traffic([&] {
		std::vector<std::byte> packet(1000);

		for (std::uint32_t n = 0; !stop; n = (n + 1) % 1000) {
			fill_packet(packet, limits->mac, wire->mac, n);
			(void)wire->send(packet);
			std::this_thread::sleep_for(std::chrono::microseconds(500));
		}
	});
	std::vector<Packet> empty(32);
	for (std::uint32_t n = 0; n < empty.size(); n++)
		empty[n].frame = n;
	EXPECT_TRUE(channel.submit_and_poll({}, empty, nothing));
	(void)channel.submit_and_poll({}, {}, GetParam());
	// It is replaced, at the latest when it says that it cannot go on; what it had comes back.
	EXPECT_TRUE(wait_until([&] {
		if (!channel.repeats())
			(void)channel.submit_and_poll({}, {}, GetParam());
		return channel.repeats() > 0;
	}));
	stop = true;
	traffic.join();
	for (const std::span<std::byte> bytes : {other->elements(), own.span()})
		EXPECT_TRUE(std::ranges::all_of(bytes, [](std::byte byte) { return byte == canary; }));
	if (GetParam() == foreign_memory) {
		EXPECT_GT(iommu_faults(), faults);
	}

	// The next one serves: packets go both ways.
	std::ranges::fill(channel.frame(0), std::byte{});
	constexpr std::uint32_t first = 1000, count = 100;
	std::set<std::uint32_t> in, out, free;
	std::uint32_t to_linux = 0, to_ours = 0;
	for (std::uint32_t n = 0; n < channel.frames(); n++)
		free.insert(n);
	ASSERT_TRUE(wait_until([&] { // the link, too, has to come up again
		std::vector<Packet> batch;

		for (std::uint32_t n = 0; n < 32 && free.size() > 200; n++) {
			const std::uint32_t frame = *free.begin(), bytes = n % 2 ? 0 : size_of(to_linux, 1514);

			free.erase(frame);
			if (bytes)
				fill_packet(channel.frame(frame).first(bytes), wire->mac, limits->mac, first + to_linux++ % count);
			batch.push_back({.frame = frame, .bytes = bytes});
			std::vector<std::byte> packet(size_of(to_ours, 1514));
			fill_packet(packet, limits->mac, wire->mac, first + to_ours++ % count);
			(void)wire->send(packet);
		}
		const auto back = channel.submit_and_poll({}, batch, 0);

		if (!back)
			for (const Packet &one : batch)
				free.insert(one.frame);
		else
			for (const Packet &one : *back) {
				const auto number = one.bytes ? number_of(channel.frame(one.frame).first(one.bytes)) : std::nullopt;

				if (number && *number >= first)
					in.insert(*number);
				free.insert(one.frame);
			}
		while (const auto packet = wire->receive())
			if (const auto number = number_of(*packet); number && *number >= first)
				out.insert(*number);
		return in.size() == count && out.size() == count;
	})) << in.size() << " have come, " << out.size()
	    << " have arrived";
	EXPECT_GE((*domain)->statistics().starts, 2u);
	for (const int end : {ends[0], ends[1], pipe_end})
		close(end);
}
INSTANTIATE_TEST_SUITE_P(With, MadIxgbe, testing::Range<std::uint32_t>(foreign_memory, madnesses),
			 [](const auto &madness) { return names[madness.param]; });

} // namespace
