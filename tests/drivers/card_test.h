// SPDX-License-Identifier: MIT
//
// For tests of the 82599's driver as a domain, one program each.
#ifndef ORBIT_TESTS_DRIVERS_CARD_TEST_H
#define ORBIT_TESTS_DRIVERS_CARD_TEST_H

#include "domain.h"
#include "prepared.h"
#include "wire.h"

#include "../../isolation/ixgbe/channel.h"

#include <gtest/gtest.h>
#include <memory>
#include <optional>
#include <vector>

namespace {

using namespace machine;
using orbit::Domain;
using orbit::rref;
using orbit::Supervisor;
using orbit::Zone;
using orbit::net::Channel;
using orbit::net::Packet;
namespace ixgbe = orbit::ixgbe;
namespace net = orbit::net;

class CardTest : public testing::Test {
protected:
	// One card is this program's, Linux has the other end of its wire, and there is a supervisor with these zones.
	void open_card(std::vector<orbit::ZoneOptions> zones)
	{
		ASSERT_EQ(ports().size(), 2u) << "this machine has no two 82599s";
		ASSERT_TRUE(give(ports()[0], "vfio-pci"));
		ASSERT_TRUE(give(ports()[1], "ixgbe"));
		auto opened = orbit::pci::Device::open(ports()[0]);
		ASSERT_TRUE(opened) << words_of(opened);
		device = std::move(*opened);
		auto made = Supervisor::create({.zones = std::move(zones)});
		ASSERT_TRUE(made) << words_of(made);
		supervisor = std::move(*made);
		wire.emplace(ports()[1]);
	}

	std::unique_ptr<orbit::pci::Device> device; // outlives the domain
	std::unique_ptr<Supervisor> supervisor;
	std::optional<Wire> wire;
};

} // namespace

#endif // ORBIT_TESTS_DRIVERS_CARD_TEST_H
