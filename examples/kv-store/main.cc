// SPDX-License-Identifier: MIT
//
// A key-value store over two domains, the store and the driver of an NVMe controller, of which each may be killed at any
// moment: what was acknowledged is there.
#include "clients.h"
#include "domain.h"
#include "gate.h"
#include "machine.h"

#include "../common/bind.h"
#include "../common/need.h"
#include "../../isolation/nvme/domain.h"

#include <cstdlib>
#include <cstring>

namespace {

using namespace std::chrono_literals;
namespace block = orbit::block;
using example::need;
using orbit::DomainOptions;
using orbit::Supervisor;
using orbit::Zone;

constexpr unsigned clients = 16, depth = 63, io_queues = 1; // for the store is the driver's only caller
constexpr std::uint64_t most_area_bytes = 4 << 20; // small, so that the log is written anew now and then

orbit::Service store_service()
{
	return {&kv::StoreSkeleton::interface_,
		[](const orbit::isolation::Connection &connection) -> std::shared_ptr<orbit::isolation::Skeleton> {
			return std::make_shared<kv::StoreSkeleton>(std::make_shared<kv::LogStore>(*connection.endpoint), connection);
		}};
}

kv::Area area_of(block::Device &device, std::uint32_t number)
{
	for (const block::Space &space : need(device.spaces(), "namespaces"))
		if (space.id == number)
			return {.lba = 0,
				.blocks = std::min(space.blocks, most_area_bytes / space.block_bytes),
				.space = number,
				.block_bytes = space.block_bytes};
	std::printf("there is no namespace %u\n", number);
	std::exit(1);
}

// The store's domain: each process of it is given the device anew, when nothing of the one before is under way.
DomainOptions store_options(const std::shared_ptr<block::Device> &device, const kv::Area &area)
{
	const auto gate = std::make_shared<std::shared_ptr<kv::Gate>>();

	return {.name = "store",
		.services = {store_service()},
		.parts = {{Zone{0}, 256 << 10}},
		.deadline = 60s,
		.timeout = 60s, // the driver's end and its next beginning included
		.restarts = {.most = 1000},
		.via = orbit::Via::ring,
		.set_up = [=](const std::shared_ptr<orbit::isolation::Transport> &transport,
			      const orbit::isolation::Connection &connection) -> orbit::result<void> {
			if (*gate)
				(*gate)->close();
			*gate = std::make_shared<kv::Gate>(device);
			if (auto opened = kv::StoreProxy(transport, connection).open(*gate, area); !opened)
				return tl::unexpected(opened.error());
			return {};
		}};
}

// How many keys are not as the clients know them.
template <class Get> unsigned long wrong_keys(const std::vector<kv::Client> &all, Get &&get)
{
	unsigned long wrong = 0;

	for (const kv::Client &client : all)
		wrong += client.wrong(get);
	return wrong;
}

// Three times as long: undisturbed, with the driver killed every second, and with the store killed too. Returns what is wrong.
unsigned long over_domains(const std::string &address, std::uint32_t space, std::chrono::seconds length,
			   std::vector<kv::Client> &all, kv::Area &area)
{
	auto device = need(orbit::pci::Device::open(address), address.c_str());
	auto supervisor = need(Supervisor::create({.zones = {{2 << 20, 1 << 20}, {orbit::nvme::queues_bytes(depth, io_queues), 0}}}), "supervisor");
	auto driver = need(supervisor->start(orbit::nvme::domain_options(
				   *supervisor, *device, {.io_queues = io_queues, .depth = depth, .restarts = {.most = 1000}})),
			   "driver");
	const auto calls = std::make_shared<block::DeviceShadow>(need(driver->proxy<block::DeviceShadow>(), "driver"));
	area = area_of(*calls, space);
	auto domain = need(supervisor->start(store_options(calls, area)), "store");
	auto store = need(domain->proxy<kv::StoreShadow>(), "store");
	kv::GroupCommit commit(store, supervisor->endpoint());
	const auto before = need(store.contents(), "store");

	std::printf("%s, namespace %u: blocks of %u bytes, a log of %llu KiB with %llu keys\n", address.c_str(), area.space, area.block_bytes,
		    static_cast<unsigned long long>(area.blocks * area.block_bytes >> 10), static_cast<unsigned long long>(before.keys));
	unsigned long wrong = kv::work("undisturbed", length, all, commit, store, {});
	wrong += kv::work("driver killed every second", length, all, commit, store, {driver.get()});
	wrong += kv::work("driver and store in turn", length, all, commit, store, {driver.get(), domain.get()});
	const unsigned long lost = wrong_keys(all, [&](const kv::Key &key, std::string &text) {
		const auto value = store.get(key);

		if (value)
			text.assign(value->text, std::min(value->bytes, std::uint32_t{kv::most_value}));
		return value.has_value();
	});
	const auto after = need(store.contents(), "store");
	const auto last = need(need(driver->proxy<block::DriverProxy>(), "driver").statistics(), "driver");
	std::printf("the driver: %llu processes; the last one had %llu requests, %llu errors\n",
		    static_cast<unsigned long long>(driver->statistics().starts), static_cast<unsigned long long>(last.requests),
		    static_cast<unsigned long long>(last.errors));
	std::printf("read back: %llu keys, %lu wrong; the log was written anew %llu times\n", static_cast<unsigned long long>(after.keys),
		    lost, static_cast<unsigned long long>(after.epoch - before.epoch));
	return wrong + lost;
}

unsigned long by_linux(const std::string &address, const std::vector<kv::Client> &all, const kv::Area &area)
{
	const auto blocks = example::give(address, "nvme") ? kv::linux_blocks(address, area) : nullptr;

	if (!blocks) {
		std::printf("Linux's driver does not show the namespace\n");
		return 1;
	}
	kv::Log log(*blocks, area);
	if (const int error = log.open(false)) {
		std::printf("by Linux's driver: %s\n", std::strerror(error));
		return 1;
	}
	const unsigned long lost =
		wrong_keys(all, [&](const kv::Key &key, std::string &text) { return log.get({key.text, key.bytes}, text) == 0; });
	std::printf("read by Linux's driver: %llu keys, %lu wrong\n", static_cast<unsigned long long>(log.contents().keys), lost);
	return lost;
}

} // namespace

int main(int argc, char **argv)
{
	const bool bind = argc > 1 && !std::strcmp(argv[argc - 1], "--bind");

	argc -= bind;
	if (argc < 3 || argc > 4) {
		std::printf("usage: %s ADDRESS SECONDS [NAMESPACE] [--bind]\n"
			    "Writes a log over the beginning of a namespace of the NVMe controller at that PCI address.\n"
			    "--bind: takes the controller from Linux's driver, and gives it back to read the log.\n",
			    argv[0]);
		return 2;
	}
	const std::string address = argv[1];
	const auto length = std::chrono::seconds(std::max(std::atoi(argv[2]), 1));
	const auto space = static_cast<std::uint32_t>(argc > 3 ? std::atoi(argv[3]) : 1);

	need(orbit::prepare(), "prepare"); // before there are threads or much memory
	if (bind && !example::give(address, "vfio-pci")) {
		std::printf("%s cannot be bound to vfio-pci\n", address.c_str());
		return 1;
	}
	std::vector<kv::Client> all;
	for (unsigned number = 0; number < clients; number++)
		all.emplace_back(number);
	kv::Area area{};
	unsigned long wrong = over_domains(address, space, length, all, area);
	if (bind)
		wrong += by_linux(address, all, area);
	std::printf(wrong ? "an acknowledged write is LOST\n" : "every acknowledged write is there\n");
	return wrong != 0;
}
