// SPDX-License-Identifier: MIT
//
// The packet forwarder's parts that need neither device nor domain.
#include "../../examples/packet-forwarder/balancer.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <random>

namespace {

std::vector<std::string> names(unsigned n)
{
	std::vector<std::string> all;

	for (unsigned k = 0; k < n; k++)
		all.push_back("backend-" + std::to_string(k));
	return all;
}

std::vector<unsigned> shares(const Maglev &maglev, unsigned backends)
{
	std::vector<unsigned> all(backends);

	for (const std::uint32_t backend : maglev.table())
		all.at(backend)++;
	return all;
}

TEST(Maglev, SharesDifferByOneInAHundred)
{
	for (const unsigned n : {1U, 2U, 3U, 10U, 100U, 655U}) {
		const auto all = shares(Maglev(names(n)), n);
		const auto [least, most] = std::minmax_element(all.begin(), all.end());

		EXPECT_LE(*most - *least, 1U + Maglev::places / n / 100) << n;
	}
}

TEST(Maglev, OneThatGoesMovesFewFlowsOfTheOthers)
{
	const auto all = names(50);

	for (const unsigned gone : {0U, 17U, 49U}) {
		auto rest = all;
		rest.erase(rest.begin() + gone);

		const Maglev before(all), after(rest);
		unsigned moved = 0, orphans = 0;

		for (std::uint32_t at = 0; at < Maglev::places; at++) {
			const std::string &was = all[before.table()[at]], &is = rest[after.table()[at]];

			orphans += was == all[gone];
			moved += was != all[gone] && was != is;
		}
		EXPECT_NEAR(orphans, Maglev::places / 50.0, Maglev::places / 50.0 / 50);
		// Modulo would move 49 of 50.
		EXPECT_LT(moved, Maglev::places / 20) << gone;
	}
}

TEST(Maglev, TheSameNamesInAnyOrderMakeTheSameTable)
{
	const auto all = names(7);
	auto other = all;

	std::ranges::reverse(other);
	const Maglev one(all), two(other);

	for (std::uint32_t at = 0; at < Maglev::places; at++)
		ASSERT_EQ(all[one.table()[at]], other[two.table()[at]]) << at;
}

TEST(Maglev, NoBackendsNoWay)
{
	EXPECT_EQ(Maglev({}).find(12345), Maglev::none);
}

TEST(Maglev, MoreBackendsThanPlacesAreRefused)
{
	EXPECT_THROW(Maglev(names(Maglev::places)), std::invalid_argument);
}

using Bytes = std::vector<std::byte>;

void put(Bytes &to, std::size_t at, std::initializer_list<unsigned> bytes)
{
	for (const unsigned byte : bytes)
		to.at(at++) = std::byte(byte);
}

Bytes udp4(unsigned from_port, unsigned header = 20)
{
	Bytes all(14 + header + 8 + 10);

	put(all, 12, {0x08, 0x00, 0x40 | header / 4});
	put(all, 14 + 9, {17});
	put(all, 14 + 12, {10, 0, 0, 1, 10, 0, 0, 2});
	put(all, 14 + header, {from_port >> 8, from_port & 255, 0, 53});
	return all;
}

Bytes tcp6()
{
	Bytes all(14 + 40 + 20);

	put(all, 12, {0x86, 0xdd, 0x60});
	put(all, 14 + 6, {6});
	put(all, 14 + 8, {0x20, 1});
	put(all, 14 + 39, {9});
	put(all, 14 + 40, {0x12, 0x34, 0, 80});
	return all;
}

TEST(Flow, IsReadBehindHeadersOfAnyLength)
{
	for (const unsigned header : {20U, 24U, 60U}) {
		const auto flow = packet::flow_of(udp4(0x1234, header));

		ASSERT_TRUE(flow) << header;
		EXPECT_EQ(flow->protocol, 17);
		EXPECT_EQ(flow->from[0], std::byte{10});
		EXPECT_EQ(flow->from_port[0], std::byte{0x12});
		EXPECT_EQ(flow->to_port[1], std::byte{53});
	}
	const auto flow = packet::flow_of(tcp6());

	ASSERT_TRUE(flow);
	EXPECT_EQ(flow->version, 6);
	EXPECT_EQ(flow->to[15], std::byte{9});
	EXPECT_EQ(flow->from_port[1], std::byte{0x34});
}

TEST(Flow, FragmentsAreOneFlow)
{
	Bytes first = udp4(1111), second = udp4(2222); // what is there in the second is no port

	put(first, 14 + 6, {0x20, 0x00});
	put(second, 14 + 6, {0x00, 0xb9});
	ASSERT_TRUE(packet::flow_of(first));
	EXPECT_EQ(packet::flow_of(first), packet::flow_of(second));
}

// What is cut off is nothing, and nothing behind it is read: the sanitizers watch exact allocations.
TEST(Flow, NothingIsReadBehindAPacketsEnd)
{
	for (const Bytes &whole : {udp4(1), udp4(1, 60), tcp6()})
		for (std::size_t bytes = 0; bytes <= whole.size(); bytes++) {
			const Bytes part(whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(bytes));
			const auto flow = packet::flow_of(part);

			EXPECT_TRUE(!flow || flow == packet::flow_of(whole)) << bytes;
		}
	std::mt19937 random(1);

	for (unsigned n = 0; n < 100'000; n++) {
		Bytes noise(random() % 90);

		for (std::byte &byte : noise)
			byte = std::byte(random());
		if (noise.size() > 14 && n % 2)
			put(noise, 12, n % 4 == 1 ? std::initializer_list<unsigned>{8, 0} : std::initializer_list<unsigned>{0x86, 0xdd});
		(void)packet::flow_of(noise);
	}
}

TEST(Flow, WhatIsNoIpIsNone)
{
	Bytes arp(60);

	put(arp, 12, {0x08, 0x06});
	EXPECT_FALSE(packet::flow_of(arp));
	Bytes short_header = udp4(1);
	put(short_header, 14, {0x44});
	EXPECT_FALSE(packet::flow_of(short_header));
}

std::vector<Backend> backends(unsigned n)
{
	std::vector<Backend> all;

	for (unsigned k = 0; k < n; k++)
		all.push_back({.name = "backend-" + std::to_string(k), .mac = {2, 0, 0, 0, 1, static_cast<std::uint8_t>(k)}});
	return all;
}

TEST(Balancer, AConnectionStaysWithItsBackendWhenOthersChange)
{
	Balancer balancer(backends(8));
	std::map<unsigned, Backend> before;

	for (unsigned port = 1; port <= 1000; port++) {
		const Backend *const found = balancer.find(udp4(port));

		ASSERT_TRUE(found);
		before[port] = *found;
	}
	auto rest = backends(8);
	rest.erase(rest.begin() + 3);
	balancer.change(rest);

	unsigned displaced = 0;

	for (const auto &[port, backend] : before) {
		const Backend *const found = balancer.find(udp4(port));

		ASSERT_TRUE(found);
		EXPECT_NE(found->name, "backend-3");
		displaced += backend.name != "backend-3" && *found != backend;
	}
	// Those of two connections that share a place, at most.
	EXPECT_LT(displaced, 20U);
}

TEST(Balancer, EachBackendGetsItsShare)
{
	Balancer balancer(backends(4));
	std::map<std::string, unsigned> got;

	for (unsigned port = 0; port < 40'000; port++) {
		const Backend *const found = balancer.find(udp4(port));

		ASSERT_TRUE(found);
		got[found->name]++;
	}
	for (const auto &[backend, packets] : got)
		EXPECT_NEAR(packets, 10'000, 500) << backend;
}

TEST(Balancer, WithoutBackendsThereIsNoWay)
{
	Balancer balancer({});

	EXPECT_FALSE(balancer.find(udp4(1)));
	balancer.change(backends(1));
	EXPECT_TRUE(balancer.find(udp4(1)));
}

} // namespace
