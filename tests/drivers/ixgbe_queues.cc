// SPDX-License-Identifier: MIT
//
// One driver of an 82599, and two applications, each a domain with a queue of the card and a zone of frames of its own: each gets
// what the card's RSS says is its queue's, whatever dies.
#include "card_test.h"

#include "application.orbit.hpp"

#include <atomic>
#include <csignal>
#include <set>

namespace {

static_assert(application::most_packets == net::most_packets);

constexpr unsigned applications = 2, frames = 256;
constexpr std::size_t frames_bytes = frames * 2048;
const net::Settings port{.queues = applications, .entries = 512, .frame_bytes = 2048, .longest = 1514, .promiscuous = false, .callers = applications};

// UDP over IPv4, of so many flows, which differ in a port.
constexpr unsigned flows = 64;
constexpr std::size_t ip_at = 14, udp_at = ip_at + 20, asked_at = udp_at + 8;
constexpr std::array<std::uint8_t, 8> addresses{10, 0, 0, 1, 10, 0, 0, 2};

struct Asked {
	std::uint32_t flow, number;
};

struct Answer {
	std::uint32_t application, flow, number;
};

// What RSS makes of source and destination (section 7.1.2.8.2), and the queue that the table has for it.
unsigned queue_of(unsigned flow)
{
	std::vector<std::uint8_t> key, input(addresses.begin(), addresses.end());
	std::uint32_t hash = 0;

	for (const std::uint32_t word : ixgbe::rss_key)
		for (unsigned shift = 0; shift < 32; shift += 8)
			key.push_back(static_cast<std::uint8_t>(word >> shift));
	for (const unsigned port : {1000 + flow, 7U})
		for (const unsigned byte : {port >> 8, port & 0xff})
			input.push_back(static_cast<std::uint8_t>(byte));
	const auto key_bit = [&](std::size_t n) { return key[n / 8] >> (7 - n % 8) & 1; };

	for (std::size_t bit = 0; bit < 8 * input.size(); bit++)
		if (input[bit / 8] >> (7 - bit % 8) & 1)
			for (std::size_t n = 0; n < 32; n++)
				hash ^= static_cast<std::uint32_t>(key_bit(bit + n)) << (31 - n);
	return (hash & 127) % applications;
}

std::vector<std::byte> question(std::span<const std::uint8_t> to, std::span<const std::uint8_t> from, const Asked &asked)
{
	std::vector<std::uint8_t> bytes(asked_at + sizeof(asked));
	const unsigned port = 1000 + asked.flow;

	std::ranges::copy(to, bytes.begin());
	std::ranges::copy(from, bytes.begin() + 6);
	bytes[12] = 8; // IPv4
	bytes[ip_at] = 0x45;
	bytes[ip_at + 3] = static_cast<std::uint8_t>(bytes.size() - ip_at);
	bytes[ip_at + 8] = 64;
	bytes[ip_at + 9] = 17; // UDP
	std::ranges::copy(addresses, bytes.begin() + ip_at + 12);
	unsigned sum = 0;
	for (std::size_t at = ip_at; at < udp_at; at += 2)
		sum += bytes[at] << 8 | bytes[at + 1];
	sum = (sum & 0xffff) + (sum >> 16);
	bytes[ip_at + 10] = static_cast<std::uint8_t>(~sum >> 8);
	bytes[ip_at + 11] = static_cast<std::uint8_t>(~sum);
	bytes[udp_at] = static_cast<std::uint8_t>(port >> 8);
	bytes[udp_at + 1] = static_cast<std::uint8_t>(port);
	bytes[udp_at + 3] = 7;
	bytes[udp_at + 5] = 8 + sizeof(asked);
	std::memcpy(bytes.data() + asked_at, &asked, sizeof(asked));
	const auto whole = std::as_bytes(std::span(bytes));
	return {whole.begin(), whole.end()};
}

// --- in the domain

class Echo final : public application::Application {
public:
	orbit::result<void> start(const application::Place &place) override
	{
		place_ = place;
		return {};
	}

	orbit::result<std::vector<Packet>> handle(std::span<const Packet> come) override
	{
		std::vector<Packet> answers;

		for (const Packet &packet : come) {
			if (packet.frame >= place_.count || packet.bytes < asked_at + sizeof(Asked))
				continue;
			auto *const frame = reinterpret_cast<std::byte *>(place_.frames) + std::size_t{packet.frame} * place_.frame_bytes;
			if (frame[12] != std::byte{8} || frame[udp_at + 3] != std::byte{7}) // Linux says things of its own
				continue;
			const std::uint16_t type = htons(ethertype);
			Asked asked;

			std::memcpy(&asked, frame + asked_at, sizeof(asked));
			const Answer answer{place_.number, asked.flow, asked.number};
			std::swap_ranges(frame, frame + 6, frame + 6);
			std::memcpy(frame + 12, &type, sizeof(type));
			std::memcpy(frame + 14, &answer, sizeof(answer));
			answers.push_back({.frame = packet.frame, .bytes = 60});
		}
		return answers;
	}

private:
	application::Place place_{};
};

// --- in the main program

class Queues : public CardTest {
protected:
	// An application, and what the main program has for it: a channel, and a thread that carries packets.
	struct Side {
		std::unique_ptr<Domain> domain;
		std::shared_ptr<net::Device> calls;
		std::unique_ptr<Channel> channel;
		std::optional<application::ApplicationProxy> handler;
		std::thread thread;
		std::atomic<std::uint64_t> answers{0}; // that have arrived
		std::atomic<unsigned> turns{0};	       // of the thread
	};

	void SetUp() override
	{
		constexpr orbit::ZoneOptions zone{2 * frames_bytes, 2 * frames_bytes};
		ASSERT_NO_FATAL_FAILURE(open_card({zone, zone, {ixgbe::rings_bytes(port), 0}}));
		orbit::pci::Device *const devices[] = {device.get()};
		auto started = supervisor->start(ixgbe::domain_options(
			*supervisor, devices, {.frames = {Zone{0}, Zone{1}}, .rings = Zone{2}, .port = port, .restarts = {.most = 10000}}));
		ASSERT_TRUE(started) << words_of(started);
		driver = std::move(*started);
		for (unsigned n = 0; n < applications; n++)
			ASSERT_NO_FATAL_FAILURE(start(n));
		const auto limits = sides[0].calls->limits(0);
		ASSERT_TRUE(limits) << words_of(limits);
		mac = limits->mac;
		ASSERT_TRUE(wait_until([&] {
			const auto link = sides[0].calls->link(0);
			return link && link->mbit == 10000 && wire->up();
		}));
	}

	void start(std::uint32_t n)
	{
		Side &side = sides[n];
		auto calls = driver->proxy<net::DeviceProxy>(n);
		ASSERT_TRUE(calls) << words_of(calls);
		side.calls = std::make_shared<net::DeviceProxy>(std::move(*calls));
		auto memory = supervisor->endpoint().make_array<std::byte>(Zone{n}, frames_bytes);
		ASSERT_TRUE(memory) << words_of(memory);
		auto channel = Channel::open(side.calls, supervisor->endpoint(), driver->connection().peer, driver->recovery(), std::move(*memory),
					     {{0, n}}, keep);
		ASSERT_TRUE(channel) << words_of(channel);
		side.channel = std::move(*channel);
		const application::Place place{.frames = reinterpret_cast<std::uintptr_t>(side.channel->frame(0).data()),
					       .count = frames, .frame_bytes = port.frame_bytes, .number = n};
		auto domain = supervisor->start({.name = "application-" + std::to_string(n),
						 .services = {orbit::service<application::ApplicationSkeleton, Echo>()},
						 .parts = {{Zone{n}, 0}},
						 .timeout = std::chrono::seconds(5),
						 .restarts = {.most = 10000},
						 .via = orbit::Via::ring,
						 .set_up = [place](const auto &transport, const orbit::isolation::Connection &connection) {
							 return application::ApplicationProxy(transport, connection).start(place);
						 }});
		ASSERT_TRUE(domain) << words_of(domain);
		side.domain = std::move(*domain);
		auto handler = side.domain->proxy<application::ApplicationProxy>();
		ASSERT_TRUE(handler) << words_of(handler);
		side.handler.emplace(std::move(*handler));
	}

	void TearDown() override
	{
		stop = true;
		for (Side &side : sides)
			if (side.thread.joinable())
				side.thread.join();
		for (Side &side : sides)
			side.channel.reset();
	}

	void go()
	{
		for (std::uint32_t n = 0; n < applications; n++)
			sides[n].thread = std::thread([this, n] { carry(n); });
		// A packet for which there is no frame is dropped at once.
		for (const Side &side : sides)
			ASSERT_TRUE(wait_until([&] { return side.turns >= frames / net::most_packets; }));
	}

	// From the driver to the application, and back. What an application that died had is given for packets to come.
	void carry(std::uint32_t n)
	{
		Side &side = sides[n];
		std::vector<Packet> waiting;

		for (std::uint32_t frame = 0; frame < frames; frame++)
			waiting.push_back({.frame = frame, .bytes = 0});
		while (!stop) {
			const std::size_t count = std::min(waiting.size(), net::most_packets);
			const auto back = side.channel->submit_and_poll({0, n}, std::span(waiting).first(count), 1);
			std::vector<Packet> come;

			if (!back) // nothing was taken
				continue;
			side.turns++;
			waiting.erase(waiting.begin(), waiting.begin() + static_cast<std::ptrdiff_t>(count));
			for (const Packet &packet : *back)
				(packet.bytes ? come : waiting).push_back(packet);
			for (std::span<const Packet> rest = come; !rest.empty();) {
				const auto some = rest.first(std::min(rest.size(), net::most_packets));
				const auto answers = side.handler->handle(some);

				for (Packet packet : some) {
					packet.bytes = 0;
					if (answers)
						for (const Packet &answer : *answers)
							if (answer.frame == packet.frame)
								packet.bytes = answer.bytes;
					waiting.push_back(packet);
				}
				rest = rest.subspan(some.size());
			}
		}
	}

	// Asks, and looks at answers, until `done`. Where somebody is killed some may be lost, or else none: with so few under way no ring is full.
	bool ask(const std::function<bool()> &done, bool may_lose = true, std::uint32_t most = ~0U)
	{
		const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(120);
		auto last = std::chrono::steady_clock::now();

		while (!done()) {
			const auto now = std::chrono::steady_clock::now();

			if (now > end)
				return false;
			if (may_lose && now - last > std::chrono::milliseconds(200))
				under_way.clear(); // lost
			while (under_way.size() < 32 && asked < most) {
				if (!wire->send(question(mac, wire->mac, {asked % flows, asked})))
					break;
				under_way.insert(asked++);
				last = now;
			}
			while (const auto packet = wire->receive()) {
				Answer answer;

				last = now;
				if (packet->size() < 14 + sizeof(answer)) {
					wrong++;
					continue;
				}
				std::memcpy(&answer, packet->data() + 14, sizeof(answer));
				if (answer.number >= asked || answer.flow != answer.number % flows || answer.application != queue_of(answer.flow)) {
					wrong++;
					continue;
				}
				under_way.erase(answer.number);
				if (!answered.insert(answer.number).second)
					twice++;
				sides[answer.application].answers++;
			}
		}
		return true;
	}

	// Both go on.
	bool both_answer()
	{
		const std::uint64_t before[] = {sides[0].answers, sides[1].answers};

		return ask([&] { return sides[0].answers >= before[0] + 50 && sides[1].answers >= before[1] + 50; });
	}

	std::uint32_t keep = frames; // what has been answered is for packets to come, by itself
	std::unique_ptr<Domain> driver;
	std::array<Side, applications> sides;
	std::array<std::uint8_t, 6> mac{};
	std::atomic<bool> stop{false};
	std::uint32_t asked = 0, wrong = 0, twice = 0;
	std::set<std::uint32_t> under_way, answered;
};

TEST_F(Queues, EachApplicationGetsWhatIsItsQueues)
{
	constexpr std::uint32_t packets = 2000;
	std::array<std::uint64_t, applications> expected{};

	for (std::uint32_t n = 0; n < packets; n++)
		expected[queue_of(n % flows)]++;
	ASSERT_GT(expected[0], 0u);
	ASSERT_GT(expected[1], 0u);
	go();
	EXPECT_TRUE(ask([&] { return answered.size() == packets; }, false, packets));
	for (unsigned n = 0; n < applications; n++)
		EXPECT_EQ(sides[n].answers, expected[n]);
	EXPECT_EQ(wrong + twice, 0u);
	EXPECT_EQ(driver->statistics().starts, 1u);
}

TEST_F(Queues, AKillOfTheDriverLeavesBothGoing)
{
	go();
	ASSERT_TRUE(both_answer());
	for (std::uint64_t kills = 1; kills <= 3; kills++) {
		ASSERT_EQ(kill(driver->pid(), SIGKILL), 0);
		ASSERT_TRUE(ask([&] { return driver->recovery()->starts() > kills && driver->pid() > 0; }));
		ASSERT_TRUE(both_answer()) << "after " << kills;
	}
	EXPECT_EQ(wrong + twice, 0u);
	for (const Side &side : sides)
		EXPECT_EQ(side.domain->statistics().starts, 1u);
}

TEST_F(Queues, AKillOfAnApplicationLeavesTheOtherGoing)
{
	go();
	ASSERT_TRUE(both_answer());
	for (std::uint64_t kills = 1; kills <= 3; kills++) {
		ASSERT_EQ(kill(sides[1].domain->pid(), SIGKILL), 0);
		ASSERT_TRUE(ask([&] { return sides[1].domain->recovery()->starts() > kills && sides[1].domain->pid() > 0; }));
		ASSERT_TRUE(both_answer()) << "after " << kills;
	}
	// One that is gone for good: its packets are nobody's.
	sides[1].domain->stop();
	const std::uint64_t before = sides[0].answers;

	EXPECT_TRUE(ask([&] { return sides[0].answers >= before + 200; }));
	EXPECT_EQ(wrong + twice, 0u);
	EXPECT_EQ(driver->statistics().starts, 1u);
	EXPECT_EQ(sides[0].domain->statistics().starts, 1u);
	EXPECT_EQ(sides[0].channel->nonsense() + sides[1].channel->nonsense(), 0u);
}

class FewKept : public Queues {
protected:
	FewKept() { keep = 8; }
};

// Of those that have been sent; the others come back.
TEST_F(FewKept, AreForPacketsToComeAndNoMore)
{
	Channel &channel = *sides[0].channel;
	constexpr std::uint32_t sent = 20;
	std::vector<Packet> batch;
	std::set<std::uint32_t> back, come;

	for (std::uint32_t frame = 0; frame < sent; frame++) {
		fill_packet(channel.frame(frame).first(100), wire->mac, mac, frame);
		batch.push_back({.frame = frame, .bytes = 100});
	}
	ASSERT_TRUE(wait_until([&] {
		const auto polled = channel.submit_and_poll({}, std::exchange(batch, {}), 0);

		for (const Packet &packet : *polled) {
			EXPECT_EQ(packet.bytes, 0u);
			back.insert(packet.frame);
		}
		return back.size() >= sent - keep;
	}));
	// No other comes back without a packet.
	for (std::uint32_t n = 0; n < 20 * keep; n++)
		if (queue_of(n % flows) == 0) {
			ASSERT_TRUE(wire->send(question(mac, wire->mac, {n % flows, n})));
		}
	ASSERT_TRUE(wait_until([&] {
		const auto polled = channel.submit_and_poll({}, {}, 1);

		for (const Packet &packet : *polled) {
			EXPECT_GT(packet.bytes, 0u);
			come.insert(packet.frame);
		}
		return come.size() >= keep;
	}));
	EXPECT_EQ(back.size(), sent - keep);
	EXPECT_EQ(come.size(), keep);
	for (const std::uint32_t frame : come)
		EXPECT_TRUE(frame < sent && !back.contains(frame)) << frame;
}

TEST_F(Queues, NobodyHasAnothersQueue)
{
	EXPECT_EQ(error_of(sides[0].calls->open(0, 1, 0)), EACCES);
	EXPECT_EQ(error_of(sides[1].calls->open(0, 0, 0)), EACCES);
	EXPECT_EQ(error_of(sides[0].calls->open(0, 0, 0)), EBUSY);
	EXPECT_EQ(error_of(sides[0].calls->submit_and_poll(0, 1, {}, 0)), EBADF);
	EXPECT_EQ(error_of(sides[1].calls->submit_and_poll(0, 0, {}, 0)), EBADF);
	EXPECT_EQ(error_of(driver->proxy<net::DeviceProxy>(applications)), EPROTOTYPE);
}

} // namespace
