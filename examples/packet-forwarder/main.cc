// SPDX-License-Identifier: MIT
//
// A Maglev load balancer between two ports, over two domains: the driver, which has the devices, and the balancer, which
// looks at strangers' headers. Each may be killed at any moment: packets are lost, and nothing else.
#include "balance.orbit.hpp"
#include "domain.h"
#include "forward.h"
#include "traffic.h"

#include "../common/bind.h"
#include "../common/need.h"
#include "../../isolation/ixgbe/domain.h"

#include <atomic>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>

namespace {

using namespace std::chrono_literals;
using namespace forwarder;
using example::need;
using orbit::Supervisor;
using orbit::Zone;
namespace ixgbe = orbit::ixgbe;
namespace net = orbit::net;

constexpr std::size_t frames_bytes = 4 << 20;
constexpr unsigned rate = 300; // packets a second: an emulated processor is slow
const net::Settings port{.queues = 1, .entries = 512, .frame_bytes = 2048, .longest = 1514, .promiscuous = false};

std::vector<Machine> backends()
{
	std::vector<Machine> all;

	for (unsigned n = 0; n < 5; n++) {
		Machine machine{.name = {}, .mac = {2, 0, 0, 0, 1, static_cast<std::uint8_t>(n)}};

		std::snprintf(machine.name.data(), machine.name.size(), "backend-%u", n);
		all.push_back(machine);
	}
	return all;
}

// One phase; meanwhile `victim`, if there is one, is killed every second. What is wrong with it.
std::uint64_t phase(const char *name, Traffic &traffic, std::chrono::seconds length, const orbit::Domain *victim)
{
	std::atomic<bool> stop{false};
	unsigned kills = 0;
	std::thread killer([&] {
		for (auto next = std::chrono::steady_clock::now() + 1s; !stop; std::this_thread::sleep_for(10ms))
			if (victim && std::chrono::steady_clock::now() >= next) {
				next += 1s;
				if (const pid_t pid = victim->pid(); pid > 0)
					kills += kill(pid, SIGKILL) == 0;
			}
	});
	const Outcome outcome = traffic.run(length);

	stop = true;
	killer.join();
	std::printf("%-30s %4u kills %8llu sent %8llu arrived, longest outage %4.0f ms\n", name, kills,
		    static_cast<unsigned long long>(outcome.sent), static_cast<unsigned long long>(outcome.arrived), outcome.outage_ms);
	const std::uint64_t wrong = outcome.damaged + outcome.twice + outcome.elsewhere;

	if (wrong)
		std::printf("  %llu damaged, %llu twice, %llu at another backend\n", static_cast<unsigned long long>(outcome.damaged),
			    static_cast<unsigned long long>(outcome.twice), static_cast<unsigned long long>(outcome.elsewhere));
	if (!outcome.arrived)
		std::printf("  nothing arrived\n");
	return wrong + !outcome.arrived;
}

std::uint64_t show(const std::vector<std::string> &address, std::chrono::seconds length)
{
	std::vector<std::unique_ptr<orbit::pci::Device>> devices;
	std::vector<orbit::pci::Device *> pointers;

	for (unsigned n = 0; n < 2; n++) {
		devices.push_back(need(orbit::pci::Device::open(address[n]), address[n].c_str()));
		pointers.push_back(devices.back().get());
	}
	auto supervisor = need(Supervisor::create({.zones = {{2 * frames_bytes, 2 * frames_bytes}, {ixgbe::rings_bytes(port, 2), 0}}}), "supervisor");
	auto driver = need(supervisor->start(ixgbe::domain_options(*supervisor, pointers, {.port = port, .restarts = {.most = 1000}})), "driver");
	auto balancer = need(supervisor->start({.name = "balancer",
						.services = {orbit::service<BalancerSkeleton, LocalBalancer>()},
						.restarts = {.most = 1000},
						.via = orbit::Via::ring,
						.set_up = [](const std::shared_ptr<orbit::isolation::Transport> &transport,
							     const orbit::isolation::Connection &connection) {
							return BalancerProxy(transport, connection).set_backends(backends());
						}}),
			     "balancer");
	auto choose = need(balancer->proxy<BalancerShadow>(), "balancer");
	const auto calls = std::make_shared<net::DeviceProxy>(need(driver->proxy<net::DeviceProxy>(), "driver"));
	auto memory = need(supervisor->endpoint().make_array<std::byte>(Zone{0}, frames_bytes), "frames");
	auto channel = need(net::Channel::open(calls, supervisor->endpoint(), driver->connection().peer, driver->recovery(), std::move(memory),
					       {{0, 0}, {1, 0}}),
			    "frames");
	const std::array<std::array<std::uint8_t, 6>, 2> own{need(calls->limits(0), "port 0").mac, need(calls->limits(1), "port 1").mac};
	Interface clients(address[2]), servers(address[3]);
	Forwarder forwarder(*channel, choose, own, clients.mac());
	std::atomic<bool> stop{false};

	if (!example::wait_until([&] {
		    const auto one = calls->link(0), two = calls->link(1);
		    return one && two && one->mbit && two->mbit && clients.up() && servers.up();
	    })) {
		std::printf("a link is down\n");
		return 1;
	}
	std::thread loop([&] {
		while (!stop)
			if (!forwarder.once())
				std::this_thread::sleep_for(200us);
	});
	Traffic traffic(clients, servers, own[0], rate);
	std::uint64_t wrong = phase("undisturbed", traffic, length, nullptr);

	wrong += phase("driver killed every second", traffic, length, driver.get());
	wrong += phase("balancer killed every second", traffic, length, balancer.get());
	wrong += phase("undisturbed again", traffic, length, nullptr);
	stop = true;
	loop.join();
	std::printf("forwarded %llu, dropped %llu; frames lost with a driver and had back: %llu\n",
		    static_cast<unsigned long long>(forwarder.counts().forwarded), static_cast<unsigned long long>(forwarder.counts().dropped),
		    static_cast<unsigned long long>(channel->lost()));
	return wrong;
}

} // namespace

int main(int argc, char **argv)
{
	const bool bind = argc > 1 && !std::strcmp(argv[argc - 1], "--bind");

	argc -= bind;
	if (argc != 6) {
		std::printf("usage: %s PORT0 PORT1 CLIENTS BACKENDS SECONDS [--bind]\n"
			    "Forwards between two 82599s, by their PCI addresses, bound to vfio-pci. On the other ends of their wires are two\n"
			    "more, of Linux's driver. --bind: binds them so.\n",
			    argv[0]);
		return 2;
	}
	const std::vector<std::string> address(argv + 1, argv + 5);
	const auto length = std::chrono::seconds(std::max(std::atoi(argv[5]), 1));

	need(orbit::prepare(), "prepare"); // before there are threads or much memory
	for (unsigned n = 0; bind && n < address.size(); n++)
		if (const char *const driver = n < 2 ? "vfio-pci" : "ixgbe"; !example::give(address[n], driver)) {
			std::printf("%s cannot be bound to %s\n", address[n].c_str(), driver);
			return 1;
		}
	const std::uint64_t wrong = show(address, length);

	std::printf(wrong ? "packets came WRONG\n" : "no packet came damaged, twice, or at the wrong backend\n");
	return wrong != 0;
}
