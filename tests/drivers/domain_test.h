// SPDX-License-Identifier: MIT
//
// For tests of the NVMe driver as a domain, one program each.
#ifndef ORBIT_TESTS_DRIVERS_DOMAIN_TEST_H
#define ORBIT_TESTS_DRIVERS_DOMAIN_TEST_H

#include "domain.h"
#include "machine.h"
#include "prepared.h"
#include "queue.h"

#include <gtest/gtest.h>
#include <memory>
#include <mutex>
#include <vector>

namespace {

using namespace machine;
using orbit::Domain;
using orbit::rref;
using orbit::Supervisor;
using orbit::Zone;
using orbit::block::Finished;
using orbit::block::Op;
using orbit::block::Queue;
using orbit::block::Request;
namespace block = orbit::block;
namespace nvme = orbit::nvme;

const Zone data{0}, queues{1};

class NvmeTest : public testing::Test {
protected:
	// The controller is this program's, and there is a supervisor with so much memory.
	void open_controller(std::size_t data_bytes, std::size_t queues_bytes)
	{
		ASSERT_NE(address(), "") << "this machine has no NVMe controller";
		ASSERT_TRUE(give(address(), "vfio-pci"));
		auto opened = orbit::pci::Device::open(address());
		ASSERT_TRUE(opened) << words_of(opened);
		device = std::move(*opened);
		auto made = Supervisor::create({.zones = {{data_bytes, data_bytes}, {queues_bytes, 0}},
						.report = [this](const orbit::DomainReport &report) {
							const std::scoped_lock locked(mutex);
							reports.push_back(report);
						}});
		ASSERT_TRUE(made) << words_of(made);
		supervisor = std::move(*made);
	}

	// Its driver serves, by a queue of so many requests.
	void start(orbit::DomainOptions options)
	{
		auto started = supervisor->start(std::move(options));
		ASSERT_TRUE(started) << words_of(started);
		domain = std::move(*started);
		auto proxy = domain->proxy<block::DeviceProxy>();
		ASSERT_TRUE(proxy) << words_of(proxy);
		calls = std::make_shared<block::DeviceProxy>(std::move(*proxy));
		queue = std::make_unique<Queue>(calls, supervisor->endpoint(), domain->connection().peer, domain->recovery(), at_once);
	}

	rref<std::byte[]> buffer(std::size_t bytes)
	{
		auto made = supervisor->endpoint().make_array<std::byte>(data, bytes);

		EXPECT_TRUE(made) << words_of(made);
		return made ? std::move(*made) : rref<std::byte[]>();
	}

	static constexpr unsigned at_once = 64;

	std::mutex mutex; // of the reports
	std::vector<orbit::DomainReport> reports;
	std::unique_ptr<orbit::pci::Device> device; // outlives the domain
	std::unique_ptr<Supervisor> supervisor;
	std::unique_ptr<Domain> domain;
	std::shared_ptr<block::Device> calls;
	std::unique_ptr<Queue> queue;
};

} // namespace

#endif // ORBIT_TESTS_DRIVERS_DOMAIN_TEST_H
