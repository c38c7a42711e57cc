// SPDX-License-Identifier: MIT
//
// The 82599's driver as a domain: packets go both ways, and what becomes of them and of memory when it is killed.
#include "card_test.h"
#include "monitor.h"

#include <atomic>
#include <csignal>
#include <numeric>

namespace {

using orbit::DomainReport;

constexpr std::size_t frames_bytes = 4 << 20;
const Zone frames{0}, rings{1};
const net::Settings port{.queues = 2, .entries = 512, .frame_bytes = 2048, .longest = 1514, .promiscuous = false};

class IxgbeDomain : public CardTest {
protected:
	void SetUp() override
	{
		open_card({{2 * frames_bytes, 2 * frames_bytes}, {ixgbe::rings_bytes(port), 0}});
	}

	void start(bool silenced = true, unsigned restarts = 10000, bool interrupts = false)
	{
		orbit::pci::Device *const devices[] = {device.get()};
		auto options = ixgbe::domain_options(*supervisor, devices, {.port = port, .interrupts = interrupts, .restarts = {.most = restarts}});

		if (!silenced)
			options.silence = {};
		auto started = supervisor->start(std::move(options));
		ASSERT_TRUE(started) << words_of(started);
		domain = std::move(*started);
		auto proxy = domain->proxy<net::DeviceProxy>();
		ASSERT_TRUE(proxy) << words_of(proxy);
		calls = std::make_shared<net::DeviceProxy>(std::move(*proxy));
		auto memory = supervisor->endpoint().make_array<std::byte>(frames, frames_bytes);
		ASSERT_TRUE(memory) << words_of(memory);
		auto channel_opened = Channel::open(calls, supervisor->endpoint(), domain->connection().peer, domain->recovery(),
						    std::move(*memory), {{0, 0}});
		ASSERT_TRUE(channel_opened) << words_of(channel_opened);
		channel = std::move(*channel_opened);
		const auto limits = calls->limits(0);
		ASSERT_TRUE(limits);
		mac = limits->mac;
		const auto link = channel->wait_for_link(0, std::chrono::seconds(30));
		ASSERT_TRUE(link) << words_of(link);
		EXPECT_EQ(link->mbit, 10000u);
		ASSERT_TRUE(wait_until([&] { return wire->up(); }));
	}

	// Empty frames, for packets to come.
	void give_empty(std::uint32_t first, std::uint32_t count)
	{
		for (std::uint32_t at = 0; at < count;) {
			std::vector<Packet> batch;

			for (; at < count && batch.size() < net::most_packets; at++)
				batch.push_back({.frame = first + at, .bytes = 0});
			ASSERT_TRUE(channel->submit_and_poll({}, batch, 0));
		}
	}

	std::unique_ptr<Domain> domain;
	std::shared_ptr<net::Device> calls;
	std::unique_ptr<Channel> channel;
	std::array<std::uint8_t, 6> mac{};
};

// Packets both ways at once, numbered; each may be lost, if `may_lose`, but not be damaged, and not come twice.
class Traffic : public IxgbeDomain {
protected:
	struct Way {
		explicit Way(std::uint32_t packets) : seen(packets) {}

		void come(std::optional<std::uint32_t> number)
		{
			if (!number || *number >= seen.size()) {
				damaged++;
				return;
			}
			(seen[*number] ? twice : arrived)++;
			seen[*number] = true;
			last = std::chrono::steady_clock::now();
			got++;
		}

		std::vector<bool> seen;
		std::uint32_t sent = 0, got = 0, arrived = 0, damaged = 0, twice = 0; // `got`: or known not to come
		std::chrono::steady_clock::time_point last = std::chrono::steady_clock::now();
	};

	// So many each way, and where those are that do not come.
	void expect_all(std::uint32_t packets, bool interrupts);
	// So many kills of the driver meanwhile.
	void expect_no_harm(unsigned kills, bool interrupts);

	// Runs until `done`, at most for `limit`. The longest time, in milliseconds, in which nothing came by a way.
	double run(Way &out, Way &in, std::chrono::seconds limit, const std::function<bool()> &done)
	{
		std::vector<std::uint32_t> free(512), empty;
		std::vector<std::byte> packet;
		double gap = 0;

		std::iota(free.begin(), free.end(), 0);
		give_empty(512, 500);
		const auto end = std::chrono::steady_clock::now() + limit;

		while (!done() && std::chrono::steady_clock::now() < end) {
			std::vector<Packet> batch;

			while (!empty.empty() && batch.size() < 32) {
				batch.push_back({.frame = empty.back(), .bytes = 0});
				empty.pop_back();
			}
			while (!free.empty() && batch.size() < net::most_packets && out.sent < out.seen.size() && out.sent < out.got + window) {
				const std::uint32_t frame = free.back(), bytes = size_of(out.sent, 1514);

				free.pop_back();
				fill_packet(channel->frame(frame).first(bytes), wire->mac, mac, out.sent++);
				batch.push_back({.frame = frame, .bytes = bytes});
			}
			for (unsigned n = 0; n < 16 && in.sent < in.seen.size() && in.sent < in.got + window; n++) {
				packet.resize(size_of(in.sent, 1514));
				fill_packet(packet, mac, wire->mac, in.sent);
				if (!wire->send(packet))
					break;
				in.sent++;
			}
			const std::uint64_t lost = channel->lost();
			const auto back = channel->submit_and_poll({}, batch, 1);

			if (!back) { // nothing was taken
				for (const Packet &one : batch)
					(one.bytes ? free : empty).push_back(one.frame);
				continue;
			}
			for (const Packet &one : *back) {
				if (one.bytes)
					in.come(number_of(channel->frame(one.frame).first(one.bytes)));
				(one.frame < 512 ? free : empty).push_back(one.frame);
			}
			while (const auto arrived = wire->receive())
				out.come(number_of(*arrived));
			const auto now = std::chrono::steady_clock::now();

			for (const Way *way : {&out, &in})
				gap = std::max(gap, std::chrono::duration<double, std::milli>(now - way->last).count());
			// What was lost will not come.
			if (channel->lost() != lost || gap_over(out, now))
				out.got = std::max(out.got, out.sent);
			if (channel->lost() != lost || gap_over(in, now))
				in.got = std::max(in.got, in.sent);
		}
		return gap;
	}

	static bool gap_over(const Way &way, std::chrono::steady_clock::time_point now)
	{
		return way.sent > way.got && now - way.last > std::chrono::milliseconds(500);
	}

	static constexpr std::uint32_t window = 200;
};

// Of how many packets, or kills, if not of so many as a test does by itself.
unsigned number_of_rounds(const char *name, unsigned usual)
{
	const char *const wanted = std::getenv(name);

	return wanted ? static_cast<unsigned>(std::atoi(wanted)) : usual;
}

void Traffic::expect_all(std::uint32_t packets, bool interrupts)
{
	Way out(packets), in(packets);

	start(true, 10000, interrupts);
	ASSERT_TRUE(channel);
	// What did not come has its place where it was counted: a ring that was full, Linux's or ours.
	const auto missed = [&](bool outwards) -> std::uint64_t {
		if (outwards)
			return wire->missed();
		const auto statistics = calls->statistics(0);
		return statistics ? statistics->missed : 0;
	};
	const auto over = [&](const Way &way, bool outwards) {
		return way.sent == packets &&
		       (way.arrived == packets || (way.got >= packets && way.arrived + missed(outwards) >= packets) ||
			std::chrono::steady_clock::now() - way.last > std::chrono::minutes(1)); // what still comes by then has been lost
	};
	run(out, in, std::chrono::seconds(600 + packets / 100), [&] { return over(out, true) && over(in, false); });
	const auto statistics = calls->statistics(0);

	ASSERT_TRUE(statistics);
	EXPECT_EQ(out.arrived + wire->missed(), packets);
	EXPECT_EQ(in.arrived + statistics->missed, packets);
	EXPECT_EQ(out.damaged + in.damaged + out.twice + in.twice, 0u);
	EXPECT_EQ(channel->lost() + channel->nonsense() + channel->repeats(), 0u);
	EXPECT_EQ(statistics->sent, packets);
	EXPECT_EQ(statistics->bad, 0u);
	std::printf("%u packets each way, of all sizes: missed by Linux's ring %llu, by ours %llu\n", packets,
		    static_cast<unsigned long long>(wire->missed()), static_cast<unsigned long long>(statistics->missed));
}

TEST_F(Traffic, AllPacketsArriveBothWaysOrWereCounted)
{
	expect_all(number_of_rounds("ORBIT_IXGBE_PACKETS", 4000), false);
}

TEST_F(Traffic, WithInterruptsTheyDoToo)
{
	expect_all(4000, true);
	EXPECT_GT(interrupts_of(ports()[0], 0), 0u);
	// Whoever watches is told of packets that came and that were sent; the last frames may not have come back yet.
	EXPECT_TRUE(wait_until([&] {
		(void)channel->submit_and_poll({}, {}, 1);
		for (std::uint32_t frame = 0; frame < 512; frame++)
			if (channel->with_driver(frame))
				return false;
		return true;
	}));
	const std::uint64_t missed = calls->statistics(0)->missed;
	const auto says = counters_of_device();

	EXPECT_EQ(says->queues, port.queues);
	EXPECT_EQ(says->queue[0].requests, 2u * 4000 - missed);
	EXPECT_EQ(says->queue[0].errors, missed);
	EXPECT_EQ(says->queue[1].requests, 0u);
}

TEST_F(Traffic, WhatHasNoRoomIsLostAndCounted)
{
	constexpr std::uint32_t packets = 400, room = 100;
	std::vector<std::byte> packet(500);
	Way in(packets);

	start();
	ASSERT_TRUE(channel);
	give_empty(0, room);
	for (; in.sent < packets; in.sent++) {
		fill_packet(packet, mac, wire->mac, in.sent);
		ASSERT_TRUE(wire->send(packet));
	}
	const auto missed = [&] {
		const auto statistics = calls->statistics(0);
		return statistics ? statistics->missed : 0;
	};
	ASSERT_TRUE(wait_until([&] { return missed() >= packets - room; }));
	ASSERT_TRUE(wait_until([&] {
		const auto back = channel->submit_and_poll({}, {}, 1);

		for (const Packet &one : *back)
			in.come(number_of(channel->frame(one.frame).first(one.bytes)));
		return in.got >= room;
	}));
	EXPECT_EQ(in.arrived, room);
	EXPECT_EQ(missed(), packets - room);
	EXPECT_EQ(counters_of_device()->queue[0].errors, packets - room);
	EXPECT_EQ(in.damaged + in.twice, 0u);
	EXPECT_EQ(channel->lost(), 0u);
}

void Traffic::expect_no_harm(unsigned kills, bool interrupts)
{
	const std::uint32_t most = 4'000'000;
	Way out(most), in(most);

	start(true, 10000, interrupts);
	ASSERT_TRUE(channel);
	std::atomic<unsigned> killed{0};
	std::atomic<bool> stop{false};
	std::thread killer([&] {
		std::mt19937 when(std::random_device{}());
		std::uint64_t starts = 0;

		while (!stop && killed < kills) {
			// One that has begun to serve.
			if (const auto now = domain->recovery()->starts(); now == starts) {
				std::this_thread::sleep_for(std::chrono::milliseconds(1));
				continue;
			} else {
				starts = now;
			}
			std::this_thread::sleep_for(std::chrono::microseconds(300000 + when() % 400000));
			if (const pid_t pid = domain->pid(); pid > 0 && kill(pid, SIGKILL) == 0)
				killed++;
		}
	});
	std::uint32_t after_last_out = 0, after_last_in = 0;
	const double gap = run(out, in, std::chrono::seconds(600 + 10 * kills), [&] {
		if (killed < kills || channel->repeats() < kills) {
			after_last_out = out.arrived + 50;
			after_last_in = in.arrived + 50;
			return false;
		}
		return out.arrived > after_last_out && in.arrived > after_last_in;
	});
	stop = true;
	killer.join();
	EXPECT_EQ(killed, kills);
	EXPECT_GE(channel->repeats(), kills);
	EXPECT_EQ(out.damaged + in.damaged + out.twice + in.twice, 0u);
	EXPECT_EQ(channel->nonsense(), 0u);
	EXPECT_GT(out.arrived, after_last_out) << "nothing is sent after the last kill";
	EXPECT_GT(in.arrived, after_last_in) << "nothing is received after the last kill";
	std::printf("%u kills: sent %u, arrived %u; received %u of %u; longest outage %.0f ms\n", killed.load(), out.sent, out.arrived,
		    in.arrived, in.sent, gap);
}

TEST_F(Traffic, KillsLosePacketsAndNothingElse)
{
	expect_no_harm(number_of_rounds("ORBIT_IXGBE_KILLS", 5), false);
}

TEST_F(Traffic, KillsOfOneWithInterruptsDoNoMore)
{
	expect_no_harm(3, true);
}

// The device has empty frames when the driver is killed, and receiving does not stop by itself: their memory is used
// again at once while packets come. Returns how many bytes of it have changed.
class Canaries : public IxgbeDomain {
protected:
	std::size_t changed(bool silenced)
	{
		std::vector<std::byte> packet(1000);

		start(silenced, 0);
		if (!channel)
			return 0;
		give_empty(0, 300);
		kill(domain->pid(), SIGKILL);
		EXPECT_TRUE(wait_until([&] { return !domain->statistics().running; }));
		// It is this side's again: down for ever.
		EXPECT_TRUE(wait_until([&] {
			const auto back = channel->submit_and_poll({}, {}, 0);
			return channel->lost() == 300;
		}));
		for (std::uint32_t frame = 0; frame < 300; frame++)
			std::ranges::fill(channel->frame(frame), canary);
		for (std::uint32_t n = 0; n < 200; n++) {
			fill_packet(packet, mac, wire->mac, n);
			EXPECT_TRUE(wire->send(packet));
		}
		std::this_thread::sleep_for(std::chrono::milliseconds(500));
		std::size_t wrong = 0;

		for (std::uint32_t frame = 0; frame < 300; frame++)
			wrong += static_cast<std::size_t>(std::ranges::count_if(channel->frame(frame), [](std::byte byte) { return byte != canary; }));
		return wrong;
	}
};

TEST_F(Canaries, SurviveForTheDeviceIsSilencedFirst)
{
	EXPECT_EQ(changed(true), 0u);
}

// Or the test above would prove nothing.
TEST_F(Canaries, DieIfItIsNot)
{
	EXPECT_GT(changed(false), 0u);
}

TEST_F(IxgbeDomain, SaysWhatIsWrong)
{
	start();
	ASSERT_TRUE(channel);
	std::vector<Packet> batch{{.frame = 1, .bytes = 13}, {.frame = 2, .bytes = 1515}};

	EXPECT_EQ(error_of(calls->limits(1)), ENODEV);
	EXPECT_EQ(error_of(calls->link(7)), ENODEV);
	EXPECT_EQ(error_of(calls->open(0, 0, 0)), EBUSY);
	EXPECT_EQ(error_of(calls->open(0, 2, 0)), ENODEV);
	EXPECT_EQ(error_of(calls->open(1, 0, 0)), ENODEV);
	EXPECT_EQ(error_of(calls->submit_and_poll(0, 1, {}, 0)), EBADF);
	EXPECT_EQ(error_of(calls->use({})), EBUSY);
	// Packets that cannot be come back at once.
	const auto back = channel->submit_and_poll({}, batch, 2);

	ASSERT_TRUE(back) << words_of(back);
	ASSERT_EQ(back->size(), 2u);
	EXPECT_EQ((*back)[0].bytes + (*back)[1].bytes, 0u);
	EXPECT_EQ(error_of(channel->submit_and_poll({}, std::vector<Packet>{{.frame = 9, .bytes = 0}, {.frame = 9, .bytes = 0}}, 0)), EINVAL);
	EXPECT_EQ(error_of(channel->submit_and_poll({}, std::vector<Packet>{{.frame = 1 << 20, .bytes = 0}}, 0)), EINVAL);
	EXPECT_EQ(domain->statistics().starts, 1u);
}

TEST_F(IxgbeDomain, WithInterruptsItSleepsAndDoesNotNap)
{
	constexpr unsigned polls = 50;

	start(true, 0, true);
	ASSERT_TRUE(channel);
	give_empty(0, 10);
	const std::uint64_t before = sleeps_of(domain->pid());

	for (unsigned n = 0; n < polls; n++)
		EXPECT_TRUE(channel->submit_and_poll({}, {}, 1)); // waits in vain
	// Some for each call; a driver that naps for 20 us has a hundred.
	const std::uint64_t sleeps = sleeps_of(domain->pid()) - before;

	EXPECT_GT(sleeps, 0u);
	EXPECT_LT(sleeps, 20u * polls);
	std::printf("%u calls that waited in vain: %llu sleeps\n", polls, static_cast<unsigned long long>(sleeps));
}

TEST_F(IxgbeDomain, InterruptsNeedAVectorForEachQueue)
{
	orbit::pci::Device *const devices[] = {device.get()};
	net::Settings many = port;

	ASSERT_GE(device->interrupts(), net::most_interrupts);
	many.queues = device->interrupts();
	EXPECT_EQ(error_of(supervisor->start(ixgbe::domain_options(*supervisor, devices, {.port = many, .interrupts = true}))), EOPNOTSUPP);
	many = port;
	many.interrupt_us = 1047;
	EXPECT_EQ(error_of(supervisor->start(ixgbe::domain_options(*supervisor, devices, {.port = many, .interrupts = true}))), EINVAL);
}

// Which packets come, each of them again and again until all have come that are to: by then none of the others has.
class Filters : public IxgbeDomain {
protected:
	using Mac = std::array<std::uint8_t, 6>;
	struct Case {
		Mac to;
		std::optional<std::uint16_t> vlan;
		bool comes;
		std::uint32_t bytes = 100; // without the tag
	};

	void expect(const std::vector<Case> &cases)
	{
		const std::uint32_t first = next_;
		std::vector<unsigned> come(cases.size());

		next_ += static_cast<std::uint32_t>(cases.size());
		ASSERT_TRUE(wait_until([&] {
			for (std::uint32_t n = 0; n < cases.size(); n++) {
				std::vector<std::byte> packet(cases[n].bytes);

				fill_packet(packet, cases[n].to, wire->mac, first + n);
				if (cases[n].vlan) {
					const std::uint16_t tag[] = {htons(0x8100), htons(*cases[n].vlan)};
					const auto *const bytes = reinterpret_cast<const std::byte *>(tag);

					packet.insert(packet.begin() + 12, bytes, bytes + sizeof(tag));
				}
				EXPECT_TRUE(wire->send(packet));
			}
			for (;;) {
				const auto back = channel->submit_and_poll({}, std::exchange(empty_, {}), 1);

				if (!back || back->empty())
					break;
				for (const Packet &one : *back) {
					auto bytes = channel->frame(one.frame).first(one.bytes);
					std::vector<std::byte> packet(bytes.begin(), bytes.end());
					const bool tagged = packet.size() > 16 && packet[12] == std::byte{0x81} && packet[13] == std::byte{0};

					if (tagged)
						packet.erase(packet.begin() + 12, packet.begin() + 16);
					if (const auto number = number_of(packet); number && *number >= first) {
						come[*number - first]++;
						EXPECT_EQ(tagged, cases[*number - first].vlan.has_value());
					}
					if (empty_.size() < net::most_packets)
						empty_.push_back({.frame = one.frame, .bytes = 0});
				}
			}
			for (std::size_t n = 0; n < cases.size(); n++)
				if (cases[n].comes && come[n] < 3)
					return false;
			return true;
		}));
		for (std::size_t n = 0; n < cases.size(); n++)
			EXPECT_TRUE(cases[n].comes || !come[n]) << "case " << n;
	}

	std::uint32_t next_ = 0;
	std::vector<Packet> empty_; // frames to be given again
};

TEST_F(Filters, LetThroughWhatWasAskedForAlsoAfterACrash)
{
	const Mac all{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, other{2, 0, 0, 0, 9, 9}, group{0x33, 0x33, 0, 0, 0, 1};
	const Mac like_other{4, 0, 0, 0, 9, 9}, like_group{0x33, 0x33, 0, 1, 0, 1}; // their last bytes are the same

	start();
	ASSERT_TRUE(channel);
	give_empty(0, 64);
	expect({{mac, {}, true}, {all, {}, true}, {other, {}, false}, {group, {}, false}, {mac, 5, true}, {mac, 6, true}});
	EXPECT_TRUE(channel->accept_address(0, {other}, true));
	EXPECT_TRUE(channel->accept_address(0, {other}, true));
	EXPECT_TRUE(channel->accept_address(0, {group}, true));
	EXPECT_TRUE(channel->accept_vlan(0, 5, true));
	EXPECT_TRUE(channel->filter_vlans(0, true));
	const std::vector<Case> cases{{mac, {}, true},       {all, {}, true},        {other, {}, true}, {group, {}, true}, {like_other, {}, false},
				      {like_group, {}, false}, {mac, 5, true, 1514}, {mac, 6, false},   {other, 5, true},  {like_other, 5, false}};
	expect(cases);

	const std::uint64_t starts = domain->statistics().starts;
	ASSERT_EQ(kill(domain->pid(), SIGKILL), 0);
	ASSERT_TRUE(wait_until([&] { return domain->statistics().starts > starts && domain->statistics().running; }));
	EXPECT_TRUE(channel->submit_and_poll({}, {}, 0));
	EXPECT_EQ(channel->repeats(), 1u);
	ASSERT_TRUE(channel->wait_for_link(0, std::chrono::seconds(30)));
	empty_.clear();
	for (std::uint32_t n = 0; n < 64; n++)
		empty_.push_back({.frame = n, .bytes = 0});
	expect(cases);

	EXPECT_TRUE(channel->accept_address(0, {other}, false));
	EXPECT_TRUE(channel->accept_vlan(0, 5, false));
	EXPECT_TRUE(channel->accept_vlan(0, 6, true));
	expect({{mac, {}, true}, {other, {}, false}, {group, {}, true}, {mac, 5, false}, {mac, 6, true}});
	EXPECT_TRUE(channel->filter_vlans(0, false));
	EXPECT_TRUE(channel->set_promiscuous(0, true));
	expect({{mac, {}, true}, {other, {}, true}, {like_group, {}, true}, {like_other, 5, true}});
	EXPECT_TRUE(channel->set_promiscuous(0, false));
	expect({{mac, {}, true}, {other, {}, false}, {like_group, {}, false}, {group, {}, true}});
	EXPECT_EQ(channel->nonsense(), 0u);
}

TEST_F(Filters, HaveLimits)
{
	start();
	ASSERT_TRUE(channel);
	EXPECT_EQ(error_of(channel->accept_address(0, {mac}, true)), EINVAL);
	EXPECT_EQ(error_of(channel->accept_address(0, {{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}}, true)), EINVAL);
	EXPECT_EQ(error_of(channel->accept_address(0, {}, true)), EINVAL);
	EXPECT_EQ(error_of(channel->accept_vlan(0, 4096, true)), EINVAL);
	EXPECT_EQ(error_of(channel->accept_address(1, {mac}, true)), ENODEV);
	EXPECT_EQ(error_of(channel->accept_vlan(1, 1, true)), ENODEV);
	EXPECT_EQ(error_of(channel->filter_vlans(1, true)), ENODEV);
	EXPECT_EQ(error_of(channel->set_promiscuous(1, true)), ENODEV);
	for (std::uint8_t n = 1; n <= ixgbe::Port::most_addresses; n++)
		EXPECT_TRUE(channel->accept_address(0, {{2, 0, 0, 0, 7, n}}, true)) << unsigned{n};
	EXPECT_EQ(error_of(channel->accept_address(0, {{2, 0, 0, 0, 7, 200}}, true)), ENOSPC);
	EXPECT_TRUE(channel->accept_address(0, {{2, 0, 0, 0, 7, 200}}, false)); // it was not accepted
	EXPECT_TRUE(channel->accept_address(0, {{2, 0, 0, 0, 7, 9}}, false));
	EXPECT_TRUE(channel->accept_address(0, {{2, 0, 0, 0, 7, 200}}, true));
	give_empty(0, 64);
	expect({{mac, {}, true}, {{2, 0, 0, 0, 7, 1}, {}, true}, {{2, 0, 0, 0, 7, 9}, {}, false}, {{2, 0, 0, 0, 7, 200}, {}, true}});
	EXPECT_EQ(domain->statistics().starts, 1u);
}

TEST_F(Filters, WhatIsTooLongIsDroppedAndCounted)
{
	wire.reset();
	wire.emplace(ports()[1], 9000);
	start();
	ASSERT_TRUE(channel);
	give_empty(0, 64);
	expect({{mac, {}, true}, {mac, {}, true, 1514}, {mac, {}, false, 1515}, {mac, {}, false, 2048}, {mac, {}, false, 9014}, {mac, 5, true, 1514}, {mac, 5, false, 1515}});
	const auto statistics = calls->statistics(0);

	ASSERT_TRUE(statistics);
	EXPECT_GE(statistics->bad, 4u);
	EXPECT_EQ(statistics->missed, 0u);
	EXPECT_EQ(channel->nonsense() + channel->repeats(), 0u);
}

TEST_F(IxgbeDomain, ALinkThatStaysDownIsAnErrorForWhoWantsIt)
{
	constexpr std::uint32_t packets = 600;
	Monitor &monitor = Monitor::only();
	const auto set_link = [&](bool up) {
		return monitor.run(std::string(R"({"execute": "qom-set", "arguments": {"path": "/machine/peripheral/nic0", "property": "link", "value": )") +
				   (up ? "true" : "false") + "}}");
	};

	ASSERT_TRUE(monitor.is_there()) << "this machine gives nobody its monitor";
	start();
	ASSERT_TRUE(channel);
	ASSERT_TRUE(set_link(false));
	EXPECT_TRUE(wait_until([&] { return calls->link(0)->mbit == 0; }));
	EXPECT_EQ(error_of(channel->wait_for_link(0, std::chrono::milliseconds(50))), ENETDOWN);
	EXPECT_EQ(error_of(channel->wait_for_link(1, std::chrono::milliseconds(50))), ENODEV);

	// The device keeps what its ring has room for, and the rest comes back unsent. No call hangs.
	std::uint32_t unsent = 0;
	for (std::uint32_t n = 0; n < packets;) {
		std::vector<Packet> batch;

		for (; n < packets && batch.size() < net::most_packets; n++) {
			fill_packet(channel->frame(n).first(60), wire->mac, mac, n);
			batch.push_back({.frame = n, .bytes = 60});
		}
		const auto back = channel->submit_and_poll({}, batch, 1);
		ASSERT_TRUE(back) << words_of(back);
		unsent += static_cast<std::uint32_t>(back->size());
	}
	EXPECT_EQ(unsent, packets - (port.entries - 1));
	// Another driver starts all the same.
	ASSERT_EQ(kill(domain->pid(), SIGKILL), 0);
	EXPECT_TRUE(wait_until([&] {
		const auto back = channel->submit_and_poll({}, {}, 0);
		return back && channel->repeats() == 1 && domain->statistics().running;
	}));
	EXPECT_EQ(channel->lost(), port.entries - 1);
	EXPECT_EQ(error_of(channel->wait_for_link(0, std::chrono::milliseconds(50))), ENETDOWN);
	const std::vector<Packet> one{{.frame = 7, .bytes = 60}};
	EXPECT_TRUE(channel->submit_and_poll({}, one, 0));
	EXPECT_TRUE(channel->with_driver(7));
	EXPECT_FALSE(wire->receive());

	ASSERT_TRUE(set_link(true));
	const auto link = channel->wait_for_link(0, std::chrono::seconds(30));
	ASSERT_TRUE(link) << words_of(link);
	EXPECT_TRUE(wait_until([&] {
		const auto packet = wire->receive();
		return packet && number_of(*packet) == 7u;
	}));
	EXPECT_TRUE(wait_until([&] {
		const auto back = channel->submit_and_poll({}, {}, 1);
		return back && !channel->with_driver(7);
	}));
	EXPECT_EQ(domain->statistics().starts, 2u);
}

TEST_F(IxgbeDomain, RefusesWhatIsNo82599AndTakesNothingThatItWasNotGiven)
{
	const std::string other = foreign_device();

	ASSERT_NE(other, "") << "see FOREIGN of tests/drivers.py";
	EXPECT_EQ(error_of(orbit::pci::Device::open(ports()[1])), ENXIO);
	EXPECT_EQ(driver_of(ports()[1]), "ixgbe");
	const std::string before = driver_of(other);
	EXPECT_FALSE(orbit::pci::Device::open(other));
	EXPECT_EQ(driver_of(other), before);

	ASSERT_TRUE(give(other, "vfio-pci"));
	auto opened = orbit::pci::Device::open(other);
	ASSERT_TRUE(opened) << words_of(opened);
	for (const std::vector<orbit::pci::Device *> &devices : {std::vector{opened->get()}, {device.get(), opened->get()}}) {
		const auto refused = supervisor->start(ixgbe::domain_options(*supervisor, devices, {.port = port}));

		EXPECT_EQ(error_of(refused), ENODEV);
		EXPECT_NE(words_of(refused).find("no 82599"), std::string::npos) << words_of(refused);
	}
	start();
}

} // namespace
