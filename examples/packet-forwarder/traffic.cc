// SPDX-License-Identifier: MIT
#include "traffic.h"

#include "../common/bind.h"

#include <algorithm>
#include <arpa/inet.h>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <linux/if_packet.h>
#include <net/if.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdexcept>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

namespace forwarder {

namespace {

using Clock = std::chrono::steady_clock;

constexpr std::uint16_t ipv4 = 0x0800;
constexpr unsigned connections = 500;
constexpr std::size_t headers = 14 + 20 + 8;
// Behind the headers: the packet's number, then bytes that follow from it.
constexpr std::size_t smallest = headers + 8, largest = 1514;

void put16(std::vector<std::uint8_t> &to, std::size_t at, unsigned value)
{
	to[at] = static_cast<std::uint8_t>(value >> 8);
	to[at + 1] = static_cast<std::uint8_t>(value);
}

std::uint64_t mac_of(const std::vector<std::uint8_t> &packet)
{
	std::uint64_t mac = 0;

	std::memcpy(&mac, packet.data(), 6);
	return mac;
}

} // namespace

Interface::Interface(const std::string &address)
{
	namespace fs = std::filesystem;

	example::wait_until([&] {
		std::error_code error;

		for (const auto &entry : fs::directory_iterator("/sys/bus/pci/devices/" + address + "/net", error))
			name_ = entry.path().filename();
		return !name_.empty();
	});
	if (name_.empty())
		throw std::runtime_error(address + " has no network interface: is Linux's driver there?");
	const int control = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	ifreq request{};

	std::strncpy(request.ifr_name, name_.c_str(), IFNAMSIZ - 1);
	bool done = ioctl(control, SIOCGIFHWADDR, &request) == 0;
	std::memcpy(mac_.data(), request.ifr_hwaddr.sa_data, mac_.size());
	done = done && ioctl(control, SIOCGIFFLAGS, &request) == 0;
	// What is for all backends comes here.
	request.ifr_flags = static_cast<short>(request.ifr_flags | IFF_UP | IFF_PROMISC);
	done = done && ioctl(control, SIOCSIFFLAGS, &request) == 0;
	close(control);

	fd_ = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, htons(ipv4));
	sockaddr_ll where{};
	where.sll_family = AF_PACKET;
	where.sll_protocol = htons(ipv4);
	where.sll_ifindex = static_cast<int>(if_nametoindex(name_.c_str()));
	const int room = 16 << 20;
	setsockopt(fd_, SOL_SOCKET, SO_RCVBUFFORCE, &room, sizeof(room));
	if (!done || fd_ < 0 || bind(fd_, reinterpret_cast<sockaddr *>(&where), sizeof(where)) != 0)
		throw std::runtime_error(name_ + ": " + std::strerror(errno) + "; it takes root");
}

Interface::~Interface()
{
	close(fd_);
}

bool Interface::up() const
{
	int carrier = 0;

	std::ifstream("/sys/class/net/" + name_ + "/carrier") >> carrier;
	return carrier == 1;
}

bool Interface::send(const std::vector<std::uint8_t> &packet) const
{
	return ::send(fd_, packet.data(), packet.size(), MSG_DONTWAIT) == static_cast<ssize_t>(packet.size());
}

std::vector<std::uint8_t> Interface::receive() const
{
	pollfd come{.fd = fd_, .events = POLLIN, .revents = 0};
	std::vector<std::uint8_t> packet(2048);

	if (poll(&come, 1, 10) != 1)
		return {};
	const ssize_t n = recv(fd_, packet.data(), packet.size(), MSG_DONTWAIT);

	packet.resize(static_cast<std::size_t>(std::max<ssize_t>(n, 0)));
	return packet;
}

Traffic::Traffic(Interface &clients, Interface &backends, const std::array<std::uint8_t, 6> &port, unsigned rate)
	: clients_(clients), backends_(backends), port_(port), rate_(rate)
{
}

std::vector<std::uint8_t> Traffic::packet(std::uint64_t number) const
{
	std::vector<std::uint8_t> all(smallest + number * 97 % (largest - smallest + 1));
	const unsigned connection = static_cast<unsigned>(number % connections);

	std::ranges::copy(port_, all.begin());
	std::ranges::copy(clients_.mac(), all.begin() + 6);
	put16(all, 12, ipv4);
	all[14] = 0x45;
	put16(all, 16, static_cast<unsigned>(all.size() - 14));
	all[22] = 64; // hops
	all[23] = 17; // UDP
	const std::array<std::uint8_t, 8> addresses{10, 0, 0, 1, 192, 0, 2, 1};
	std::ranges::copy(addresses, all.begin() + 26);
	put16(all, 34, 1024 + connection);
	put16(all, 36, 80);
	put16(all, 38, static_cast<unsigned>(all.size() - 34));
	std::memcpy(all.data() + headers, &number, sizeof(number));
	for (std::size_t at = smallest; at < all.size(); at++)
		all[at] = static_cast<std::uint8_t>(number * 31 + at);
	return all;
}

void Traffic::look_at(const std::vector<std::uint8_t> &come, Outcome &outcome)
{
	std::uint64_t number = 0;

	if (come.size() < smallest) {
		outcome.damaged++;
		return;
	}
	std::memcpy(&number, come.data() + headers, sizeof(number));
	if (number < first_)
		return; // of the run before
	if (number >= next_) {
		outcome.damaged++;
		return;
	}
	// But for the addresses that the forwarder has written; short ones are padded.
	const auto wanted = packet(number);

	if (come.size() < wanted.size() || !std::equal(wanted.begin() + 12, wanted.end(), come.begin() + 12)) {
		outcome.damaged++;
		return;
	}
	if (seen_[number - first_])
		outcome.twice++;
	seen_[number - first_] = true;
	outcome.arrived++;
	const auto [at, fresh] = backend_.try_emplace(static_cast<unsigned>(number % connections), mac_of(come));
	if (!fresh && at->second != mac_of(come))
		outcome.elsewhere++;
}

Outcome Traffic::run(std::chrono::milliseconds length)
{
	Outcome outcome;
	const auto begin = Clock::now();
	auto last = begin;

	first_ = next_;
	seen_.clear();
	for (;;) {
		const auto now = Clock::now();
		const bool sending = now - begin < length;
		const auto due = static_cast<std::uint64_t>(std::chrono::duration<double>(now - begin).count() * rate_);

		// A pause of this program's is not to be made up for by a flood.
		for (unsigned n = 0; sending && outcome.sent < due && n < 32; n++) {
			const auto next = packet(next_);

			seen_.push_back(false);
			next_++;
			outcome.sent++;
			(void)clients_.send(next); // what finds no room is lost, as any other
		}
		if (const auto come = backends_.receive(); !come.empty()) {
			look_at(come, outcome);
			last = Clock::now();
		}
		if (sending)
			outcome.outage_ms = std::max(outcome.outage_ms, std::chrono::duration<double, std::milli>(Clock::now() - last).count());
		else if (Clock::now() - begin > length + std::chrono::milliseconds(500))
			break;
	}
	return outcome;
}

} // namespace forwarder
