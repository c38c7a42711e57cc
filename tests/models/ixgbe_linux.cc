// SPDX-License-Identifier: MIT
//
// Linux's own driver on two models of the 82599, back to back: it believes them, and so do those who use it. Each test ends
// with no mistake reported that the driver has made: these would be mistakes of the model, for the driver is right.
//
// The second one is in a network namespace of its own, so that what goes from one to the other takes the wire.
#include <algorithm>
#include <arpa/inet.h>
#include <array>
#include <atomic>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <dirent.h>
#include <fcntl.h>
#include <fstream>
#include <functional>
#include <linux/ethtool.h>
#include <linux/rtnetlink.h>
#include <linux/sockios.h>
#include <memory>
#include <net/if.h>
#include <netinet/icmp6.h>
#include <netinet/ip_icmp.h>
#include <netinet/tcp.h>
#include <regex>
#include <sched.h>
#include <string>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <thread>
#include <unistd.h>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

namespace {

using namespace std::chrono_literals;
using Clock = std::chrono::steady_clock;

constexpr auto patience = 60s;

bool wait_for(const std::function<bool()> &condition, std::chrono::seconds limit = patience)
{
	for (const auto end = Clock::now() + limit; Clock::now() < end; std::this_thread::sleep_for(50ms))
		if (condition())
			return true;
	return condition();
}

class Descriptor {
public:
	explicit Descriptor(int number = -1) : number(number) {}
	Descriptor(Descriptor &&other) noexcept : number(std::exchange(other.number, -1)) {}
	Descriptor &operator=(Descriptor &&other) noexcept
	{
		std::swap(number, other.number);
		return *this;
	}
	~Descriptor()
	{
		if (number >= 0)
			close(number);
	}
	operator int() const { return number; }

private:
	int number;
};

// The machine's monitor, by a port of its own.
class Monitor {
public:
	Monitor()
	{
		const std::string ports = "/sys/class/virtio-ports/";
		if (DIR *directory = opendir(ports.c_str())) {
			while (const dirent *entry = readdir(directory)) {
				std::string name;
				std::getline(std::ifstream(ports + entry->d_name + "/name"), name);
				if (name == "monitor")
					port = Descriptor(open(("/dev/" + std::string(entry->d_name)).c_str(), O_RDWR | O_CLOEXEC));
			}
			closedir(directory);
		}
		command(R"({"execute": "qmp_capabilities"})");
	}

	void set(int device, const std::string &property, const std::string &value)
	{
		const std::string answer = about("qom-set", device, property, ", \"value\": " + value);
		EXPECT_EQ(answer.find("error"), std::string::npos) << answer;
	}

	std::string get(int device, const std::string &property)
	{
		const std::string answer = about("qom-get", device, property, "");
		const auto begin = answer.find("\"return\": ") + 10, end = answer.rfind('}');
		return answer.substr(begin, end - begin);
	}

private:
	std::string about(const std::string &what, int device, const std::string &property, const std::string &more)
	{
		return command("{\"execute\": \"" + what + "\", \"arguments\": {\"path\": \"/machine/peripheral/nic"
			+ std::to_string(device) + "\", \"property\": \"" + property + "\"" + more + "}}");
	}

	// Events and the greeting may come before the answer.
	std::string command(const std::string &text)
	{
		if (write(port, text.data(), text.size()) != ssize_t(text.size()))
			return "error: no monitor";
		for (std::string line;;) {
			char byte;
			if (read(port, &byte, 1) != 1)
				return "error: no answer";
			if (byte != '\n') {
				line += byte;
				continue;
			}
			if (line.starts_with("{\"return\"") || line.starts_with("{\"error\""))
				return line;
			line.clear();
		}
	}

	Descriptor port;
};

void in_namespace(int space, const std::function<void()> &what)
{
	std::thread([&] {
		if (setns(space, CLONE_NEWNET) == 0)
			what();
		else
			ADD_FAILURE() << strerror(errno);
	}).join();
}

// One of the two ports, and the namespace that it is in.
struct Port {
	int number;
	Descriptor space, control;
	std::string name;

	std::string address(int family) const { return (family == AF_INET ? "10.0.0." : "fd00::") + std::to_string(number + 1); }

	Descriptor socket(int family, int type, int protocol = 0) const
	{
		Descriptor made;
		in_namespace(space, [&] { made = Descriptor(::socket(family, type | SOCK_CLOEXEC, protocol)); });
		EXPECT_GE(made, 0) << strerror(errno);
		return made;
	}

	ifreq request() const
	{
		ifreq made = {};
		name.copy(made.ifr_name, IFNAMSIZ - 1);
		return made;
	}

	template <class T> int ethtool(T &data) const
	{
		ifreq asked = request();
		asked.ifr_data = reinterpret_cast<char *>(&data);
		return ioctl(control, SIOCETHTOOL, &asked);
	}

	std::uint32_t ask(std::uint32_t command) const
	{
		ethtool_value value = {command, 0};
		EXPECT_EQ(ethtool(value), 0) << command << ": " << strerror(errno);
		return value.data;
	}

	void tell(std::uint32_t command, std::uint32_t data) const
	{
		ethtool_value value = {command, data};
		EXPECT_EQ(ethtool(value), 0) << command << ": " << strerror(errno);
	}

	bool has_link() const
	{
		ifreq asked = request();
		return ioctl(control, SIOCGIFFLAGS, &asked) == 0 && (asked.ifr_flags & IFF_RUNNING);
	}

	void set_mtu(int bytes) const
	{
		ifreq asked = request();
		asked.ifr_mtu = bytes;
		EXPECT_EQ(ioctl(control, SIOCSIFMTU, &asked), 0) << strerror(errno);
	}

	void bring(bool up) const
	{
		ifreq asked = request();
		EXPECT_EQ(ioctl(control, SIOCGIFFLAGS, &asked), 0) << strerror(errno);
		asked.ifr_flags = short(up ? asked.ifr_flags | IFF_UP : asked.ifr_flags & ~IFF_UP);
		EXPECT_EQ(ioctl(control, SIOCSIFFLAGS, &asked), 0) << strerror(errno);
	}

	void offload(bool on) const
	{
		if (on) {
			tell(ETHTOOL_SRXCSUM, 1);
			tell(ETHTOOL_STXCSUM, 1);
			tell(ETHTOOL_SSG, 1);
		}
		tell(ETHTOOL_STSO, on);
		tell(ETHTOOL_SGSO, on);
		tell(ETHTOOL_SGRO, on);
		if (!on) {
			tell(ETHTOOL_STXCSUM, 0);
			tell(ETHTOOL_SRXCSUM, 0);
			tell(ETHTOOL_SSG, 0);
		}
	}

	std::vector<std::string> names(std::uint32_t set, std::uint32_t count) const
	{
		std::vector<std::uint64_t> space(sizeof(ethtool_gstrings) / 8 + 1 + count * ETH_GSTRING_LEN / 8);
		auto &strings = *reinterpret_cast<ethtool_gstrings *>(space.data());
		strings = {ETHTOOL_GSTRINGS, set, count};
		EXPECT_EQ(ethtool(strings), 0) << strerror(errno);
		std::vector<std::string> found;
		for (std::uint32_t i = 0; i < count; i++)
			found.emplace_back(reinterpret_cast<char *>(strings.data) + i * ETH_GSTRING_LEN);
		return found;
	}

	std::uint64_t statistic(const std::string &which) const
	{
		ethtool_drvinfo info = {};
		info.cmd = ETHTOOL_GDRVINFO;
		EXPECT_EQ(ethtool(info), 0) << strerror(errno);
		std::vector<std::uint64_t> space(1 + info.n_stats);
		auto &stats = *reinterpret_cast<ethtool_stats *>(space.data());
		stats = {ETHTOOL_GSTATS, info.n_stats};
		EXPECT_EQ(ethtool(stats), 0) << strerror(errno);
		const auto all = names(ETH_SS_STATS, info.n_stats);
		const auto found = std::find(all.begin(), all.end(), which);
		EXPECT_NE(found, all.end()) << which;
		return found == all.end() ? 0 : space[std::size_t(1 + found - all.begin())];
	}
};

// The interface with the model's address, of all in this namespace.
std::string interface_of(int number, int control)
{
	struct if_nameindex *all = if_nameindex();
	std::string found;
	for (auto *one = all; one && one->if_index; one++) {
		ifreq asked = {};
		strncpy(asked.ifr_name, one->if_name, IFNAMSIZ - 1);
		const char wanted[] = {2, 0, 0, 0, 0, char(number + 1)};
		if (ioctl(control, SIOCGIFHWADDR, &asked) == 0 && !memcmp(asked.ifr_hwaddr.sa_data, wanted, 6))
			found = one->if_name;
	}
	if_freenameindex(all);
	return found;
}

bool move(const std::string &name, int space)
{
	struct {
		nlmsghdr header;
		ifinfomsg info;
		rtattr attribute;
		int space;
	} request = {};
	request.header = {sizeof(request), RTM_NEWLINK, NLM_F_REQUEST | NLM_F_ACK, 1, 0};
	request.info.ifi_index = int(if_nametoindex(name.c_str()));
	request.attribute = {RTA_LENGTH(sizeof(int)), IFLA_NET_NS_FD};
	request.space = space;
	const Descriptor netlink(socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE));
	struct {
		nlmsghdr header;
		nlmsgerr error;
		char rest[256];
	} answer = {};
	return send(netlink, &request, sizeof(request), 0) == sizeof(request) && recv(netlink, &answer, sizeof(answer), 0) > 0
		&& answer.header.nlmsg_type == NLMSG_ERROR && answer.error.error == 0;
}

sockaddr_storage address_of(const Port &port, int family, std::uint16_t number = 0)
{
	sockaddr_storage made = {};
	made.ss_family = sa_family_t(family);
	if (family == AF_INET) {
		auto &v4 = reinterpret_cast<sockaddr_in &>(made);
		inet_pton(family, port.address(family).c_str(), &v4.sin_addr);
		v4.sin_port = htons(number);
	} else {
		auto &v6 = reinterpret_cast<sockaddr_in6 &>(made);
		inet_pton(family, port.address(family).c_str(), &v6.sin6_addr);
		v6.sin6_port = htons(number);
	}
	return made;
}

sockaddr *plain(sockaddr_storage &address)
{
	return reinterpret_cast<sockaddr *>(&address);
}

void set_timeout(int socket, std::chrono::seconds limit)
{
	const timeval time = {limit.count(), 0};
	setsockopt(socket, SOL_SOCKET, SO_RCVTIMEO, &time, sizeof(time));
	setsockopt(socket, SOL_SOCKET, SO_SNDTIMEO, &time, sizeof(time));
}

std::uint8_t pattern(std::size_t at)
{
	return std::uint8_t(at * 131 ^ at >> 9 ^ at >> 17);
}

class IxgbeLinux : public testing::Test {
protected:
	// Once for both suites.
	static void SetUpTestSuite()
	{
		if (monitor)
			return;
		monitor = std::make_unique<Monitor>();
		ports[0].number = 0;
		ports[1].number = 1;
		ports[0].space = Descriptor(open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC));
		std::thread([] {
			unshare(CLONE_NEWNET);
			ports[1].space = Descriptor(open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC));
		}).join();
		for (Port &port : ports)
			port.control = port.socket(AF_INET, SOCK_DGRAM);
		configure();
	}

	void SetUp() override
	{
		for (const Port &port : ports) {
			ASSERT_NE(port.name, "") << "this machine does not have two models, or they were not found";
			ASSERT_TRUE(wait_for([&] { return port.has_link(); })) << port.number;
			monitor->set(port.number, "mistakes", "0");
		}
	}

	void TearDown() override
	{
		for (const Port &port : ports)
			EXPECT_EQ(monitor->get(port.number, "mistake-counts"), "\"\"") << port.number;
	}

	// Names, addresses, up.
	static void configure()
	{
		for (Port &port : ports) {
			wait_for([&] { return !(port.name = interface_of(port.number, ports[0].control)).empty(); });
			if (port.name.empty())
				return;
		}
		ASSERT_TRUE(move(ports[1].name, ports[1].space));
		for (Port &port : ports)
			in_namespace(port.space, [&] { give_addresses(port); });
	}

	static void give_addresses(Port &port)
	{
		// No duplicates are to be looked for, which takes seconds.
		std::ofstream("/proc/sys/net/ipv6/conf/" + port.name + "/accept_dad") << 0;
		port.bring(true);
		auto address = address_of(port, AF_INET);
		ifreq asked = port.request();
		memcpy(&asked.ifr_addr, &address, sizeof(sockaddr_in));
		EXPECT_EQ(ioctl(port.control, SIOCSIFADDR, &asked), 0) << strerror(errno);
		struct {
			in6_addr address;
			std::uint32_t prefix;
			int index;
		} v6 = {reinterpret_cast<sockaddr_in6 &>(address = address_of(port, AF_INET6)).sin6_addr, 64,
			int(if_nametoindex(port.name.c_str()))};
		const Descriptor control6(socket(AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC, 0));
		EXPECT_EQ(ioctl(control6, SIOCSIFADDR, &v6), 0) << strerror(errno);
	}

	// Whether an echo of so many bytes comes back from the other port.
	static bool ping(const Port &from, const Port &to, std::size_t bytes, std::chrono::seconds limit = patience)
	{
		const Descriptor socket = from.socket(AF_INET, SOCK_RAW, IPPROTO_ICMP);
		set_timeout(socket, 1s);
		std::vector<std::uint8_t> sent(sizeof(icmphdr) + bytes), got(sent.size() + 60);
		for (std::size_t i = sizeof(icmphdr); i < sent.size(); i++)
			sent[i] = pattern(i);
		auto &header = *reinterpret_cast<icmphdr *>(sent.data());
		header.type = ICMP_ECHO;
		header.un.echo.id = std::uint16_t(getpid());
		auto address = address_of(to, AF_INET);
		return wait_for(
			[&] {
				header.checksum = 0;
				header.un.echo.sequence++;
				std::uint32_t sum = 0;
				for (std::size_t i = 0; i < sent.size(); i += 2)
					sum += std::uint32_t(sent[i] | (i + 1 < sent.size() ? sent[i + 1] << 8 : 0));
				while (sum >> 16)
					sum = (sum & 0xFFFF) + (sum >> 16);
				header.checksum = std::uint16_t(~sum);
				sendto(socket, sent.data(), sent.size(), 0, plain(address), sizeof(sockaddr_in));
				for (ssize_t size; (size = recv(socket, got.data(), got.size(), 0)) > 0;) {
					const std::size_t skip = (got[0] & 15) * 4u;
					const auto &answer = *reinterpret_cast<icmphdr *>(got.data() + skip);
					if (answer.type == ICMP_ECHOREPLY && answer.un.echo.sequence == header.un.echo.sequence)
						return std::size_t(size) == skip + sent.size()
							&& !memcmp(got.data() + skip + sizeof(icmphdr), sent.data() + sizeof(icmphdr), bytes);
				}
				return false;
			},
			limit);
	}

	// A connection from one port to the other: both ends.
	static std::array<Descriptor, 2> connection(const Port &from, const Port &to, int family, std::uint16_t number)
	{
		const Descriptor listener = to.socket(family, SOCK_STREAM);
		const int on = 1;
		setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
		auto address = address_of(to, family, number);
		EXPECT_EQ(bind(listener, plain(address), sizeof(address)), 0) << strerror(errno);
		EXPECT_EQ(listen(listener, 1), 0);
		Descriptor out = from.socket(family, SOCK_STREAM);
		for (const int socket : {int(listener), int(out)})
			set_timeout(socket, patience);
		EXPECT_EQ(connect(out, plain(address), sizeof(address)), 0) << strerror(errno);
		Descriptor in(accept4(listener, nullptr, nullptr, SOCK_CLOEXEC));
		EXPECT_GE(in, 0) << strerror(errno);
		set_timeout(in, patience);
		return {std::move(out), std::move(in)};
	}

	// Sends so many bytes, and sees them arrive.
	static void transfer(const Port &from, const Port &to, int family, std::size_t bytes, std::uint16_t number = 5000)
	{
		auto [out, in] = connection(from, to, family, number);
		std::thread sender([&, out = int(out)] {
			std::vector<std::uint8_t> block(64 << 10);
			for (std::size_t at = 0; at < bytes;) {
				const std::size_t size = std::min(block.size(), bytes - at);
				for (std::size_t i = 0; i < size; i++)
					block[i] = pattern(at + i);
				const ssize_t done = send(out, block.data(), size, MSG_NOSIGNAL);
				if (done <= 0)
					break;
				at += std::size_t(done);
			}
			shutdown(out, SHUT_WR);
		});
		std::vector<std::uint8_t> block(64 << 10);
		std::size_t at = 0, wrong = 0;
		for (ssize_t size; (size = recv(in, block.data(), block.size(), 0)) > 0;)
			for (ssize_t i = 0; i < size; i++)
				wrong += block[std::size_t(i)] != pattern(at++);
		sender.join();
		EXPECT_EQ(at, bytes);
		EXPECT_EQ(wrong, 0u);
	}

	static inline std::unique_ptr<Monitor> monitor;
	static inline std::array<Port, 2> ports;
};

TEST_F(IxgbeLinux, TheLinkIsUpAtTenGigabits)
{
	for (const Port &port : ports) {
		ethtool_cmd settings = {};
		settings.cmd = ETHTOOL_GSET;
		ASSERT_EQ(port.ethtool(settings), 0) << strerror(errno);
		EXPECT_EQ(ethtool_cmd_speed(&settings), 10000u);
		EXPECT_EQ(settings.duplex, DUPLEX_FULL);
		EXPECT_EQ(port.ask(ETHTOOL_GLINK), 1u);
	}
}

TEST_F(IxgbeLinux, EchoesComeBackWhole)
{
	for (const std::size_t bytes : {0u, 1u, 17u, 18u, 56u, 1472u, 1473u, 8000u})
		EXPECT_TRUE(ping(ports[0], ports[1], bytes)) << bytes;
	EXPECT_TRUE(ping(ports[1], ports[0], 56));
}

// MTU, offloads, family.
class Matrix : public IxgbeLinux, public testing::WithParamInterface<std::tuple<int, bool, int>> {};

TEST_P(Matrix, WhatIsSentArrives)
{
	const auto [mtu, offloads, family] = GetParam();
	constexpr std::size_t bytes = 4 << 20;
	for (const Port &port : ports) {
		port.set_mtu(mtu);
		port.offload(offloads);
	}
	for (const Port &port : ports)
		ASSERT_TRUE(wait_for([&] { return port.has_link(); }));
	ASSERT_TRUE(ping(ports[0], ports[1], std::size_t(mtu) - 28));
	const auto errors = ports[0].statistic("rx_csum_offload_errors") + ports[1].statistic("rx_csum_offload_errors");
	for (const int way : {0, 1}) {
		const Port &from = ports[std::size_t(way)], &to = ports[std::size_t(!way)];
		const auto before = from.statistic("tx_bytes_nic");
		transfer(from, to, family, bytes);
		EXPECT_GE(wait_for([&] { return from.statistic("tx_bytes_nic") >= before + bytes; }), true) << "the wire was not taken";
	}
	EXPECT_EQ(ports[0].statistic("rx_csum_offload_errors") + ports[1].statistic("rx_csum_offload_errors"), errors);
}

std::string name_of(const testing::TestParamInfo<Matrix::ParamType> &info)
{
	const auto [mtu, offloads, family] = info.param;
	return "Mtu" + std::to_string(mtu) + (offloads ? "Offloads" : "Plain") + (family == AF_INET ? "V4" : "V6");
}

INSTANTIATE_TEST_SUITE_P(IxgbeLinux, Matrix,
			 testing::Combine(testing::Values(1500, 9000), testing::Values(true, false), testing::Values(AF_INET, AF_INET6)),
			 name_of);

// What Linux calls large receive offload, if it is asked for.
TEST_F(IxgbeLinux, SegmentsAreCoalescedAndAllArrives)
{
	const auto aggregated = [] { return ports[1].statistic("hw_rsc_aggregated"); };

	for (const Port &port : ports) {
		port.set_mtu(1500);
		port.offload(true);
	}
	ports[1].tell(ETHTOOL_SFLAGS, ports[1].ask(ETHTOOL_GFLAGS) | ETH_FLAG_LRO);
	ASSERT_TRUE(ports[1].ask(ETHTOOL_GFLAGS) & ETH_FLAG_LRO);
	for (const Port &port : ports)
		ASSERT_TRUE(wait_for([&] { return port.has_link(); }));
	const auto before = aggregated();
	transfer(ports[0], ports[1], AF_INET, 8 << 20);
	EXPECT_GT(aggregated(), before);
	EXPECT_EQ(ports[1].statistic("rx_csum_offload_errors"), 0u);
	std::printf("%llu segments were coalesced\n", static_cast<unsigned long long>(aggregated() - before));
	ports[1].tell(ETHTOOL_SFLAGS, ports[1].ask(ETHTOOL_GFLAGS) & ~std::uint32_t(ETH_FLAG_LRO));
	const auto after = aggregated();
	ASSERT_TRUE(wait_for([&] { return ports[0].has_link() && ports[1].has_link(); }));
	transfer(ports[0], ports[1], AF_INET, 1 << 20);
	EXPECT_EQ(aggregated(), after);
}

TEST_F(IxgbeLinux, FlowsAreSpreadOverTheQueues)
{
	const auto on_queue = [](int queue) { return ports[1].statistic("rx_queue_" + std::to_string(queue) + "_packets"); };
	const std::array before = {on_queue(0), on_queue(1)};
	for (std::uint16_t i = 0; i < 12; i++)
		transfer(ports[0], ports[1], AF_INET, 20000, std::uint16_t(6000 + i));
	EXPECT_GT(on_queue(0), before[0]);
	EXPECT_GT(on_queue(1), before[1]);
}

TEST_F(IxgbeLinux, TheDriversOwnTestPasses)
{
	for (const Port &port : ports) {
		constexpr std::uint32_t count = 5;
		std::vector<std::uint64_t> space(sizeof(ethtool_test) / 8 + count);
		auto &test = *reinterpret_cast<ethtool_test *>(space.data());
		test.cmd = ETHTOOL_TEST;
		test.flags = ETH_TEST_FL_OFFLINE;
		test.len = count;
		ASSERT_EQ(port.ethtool(test), 0) << strerror(errno);
		const auto all = port.names(ETH_SS_TEST, count);
		for (std::uint32_t i = 0; i < count; i++)
			EXPECT_EQ(test.data[i], 0u) << all[i];
		EXPECT_FALSE(test.flags & ETH_TEST_FL_FAILED);
		ASSERT_TRUE(wait_for([&] { return ports[0].has_link() && ports[1].has_link(); }));
	}
	EXPECT_TRUE(ping(ports[0], ports[1], 56));
	// It writes patterns to registers, and to those of rings, too.
	for (const Port &port : ports) {
		EXPECT_TRUE(std::regex_match(monitor->get(port.number, "mistake-counts"),
					     std::regex(R"("ring-base=\d+ ring-length=\d+ ring-tail-past-end=\d+")")))
			<< monitor->get(port.number, "mistake-counts");
		monitor->set(port.number, "mistakes", "0");
	}
}

// What is in a directory, hidden files left out.
std::vector<std::string> names_in(const char *directory)
{
	std::vector<std::string> found;
	if (DIR *opened = opendir(directory)) {
		while (const dirent *entry = readdir(opened))
			if (entry->d_name[0] != '.')
				found.emplace_back(entry->d_name);
		closedir(opened);
	}
	return found;
}

// Its module, or, where it is built into the kernel, the devices that it has.
TEST_F(IxgbeLinux, TheDriverComesAndGoes)
{
	const std::string modules = "/run/orbit/modules/", driver = "/sys/bus/pci/drivers/ixgbe/";
	std::string file;
	for (const std::string &name : names_in(modules.c_str()))
		if (name.ends_with("-ixgbe.ko"))
			file = modules + name;
	std::vector<std::string> devices;
	for (const std::string &name : names_in(driver.c_str()))
		if (name.starts_with("0000:"))
			devices.push_back(name);
	ASSERT_EQ(devices.size(), 2u);
	for (int round = 0; round < 2; round++) {
		if (!file.empty()) {
			ASSERT_EQ(syscall(SYS_delete_module, "ixgbe", O_NONBLOCK), 0) << strerror(errno);
			const Descriptor module(open(file.c_str(), O_RDONLY | O_CLOEXEC));
			ASSERT_EQ(syscall(SYS_finit_module, int(module), "", 0), 0) << strerror(errno);
		} else {
			for (const char *what : {"unbind", "bind"})
				for (const std::string &device : devices)
					ASSERT_TRUE(std::ofstream(driver + what) << device << std::flush) << what << ' ' << device;
		}
		configure();
		ASSERT_TRUE(wait_for([&] { return ports[0].has_link() && ports[1].has_link(); }));
		EXPECT_TRUE(ping(ports[0], ports[1], 56));
	}
}

TEST_F(IxgbeLinux, TrafficOutlivesResets)
{
	const char *often = std::getenv("ORBIT_IXGBE_RESETS");
	const int resets = often ? std::atoi(often) : 5;
	auto [out, in] = connection(ports[0], ports[1], AF_INET, 7000);
	// So much has to arrive after each reset that there is a way to and fro again: if the next one lost what TCP sends once more, or its
	// acknowledgement, again and again, TCP would wait twice as long each time, for minutes in the end.
	const int room = 32 << 10;
	constexpr std::size_t enough = 256 << 10;
	EXPECT_EQ(setsockopt(int(in), SOL_SOCKET, SO_RCVBUF, &room, sizeof(room)), 0) << strerror(errno);
	std::atomic<bool> end = false;
	std::thread sender([&, out = int(out)] {
		std::vector<std::uint8_t> block(16 << 10);
		for (std::size_t at = 0; !end;) {
			for (std::size_t i = 0; i < block.size(); i++)
				block[i] = pattern(at + i);
			const ssize_t done = send(out, block.data(), block.size(), MSG_NOSIGNAL);
			if (done <= 0)
				break;
			at += std::size_t(done);
		}
		shutdown(out, SHUT_WR);
	});
	std::atomic<std::size_t> arrived = 0, wrong = 0;
	std::thread receiver([&, in = int(in)] {
		std::vector<std::uint8_t> block(64 << 10);
		for (ssize_t size; (size = recv(in, block.data(), block.size(), 0)) > 0;)
			for (ssize_t i = 0; i < size; i++)
				wrong += block[std::size_t(i)] != pattern(arrived++);
	});
	for (int i = 0; i < resets; i++) {
		const std::size_t before = arrived;
		const Port &port = ports[std::size_t(i % 2)];
		ethtool_value value = {ETHTOOL_NWAY_RST, 0};
		EXPECT_EQ(port.ethtool(value), 0) << strerror(errno);
		if (!wait_for([&] { return arrived > before + enough; })) {
			ADD_FAILURE() << "only " << arrived - before << " bytes arrive after reset " << i;
			break;
		}
	}
	end = true;
	sender.join();
	receiver.join();
	EXPECT_GT(arrived, 0u);
	EXPECT_EQ(wrong, 0u);
}

TEST_F(IxgbeLinux, APulledCableIsNoticed)
{
	monitor->set(0, "link", "false");
	EXPECT_TRUE(wait_for([] { return !ports[0].has_link(); }));
	EXPECT_FALSE(ping(ports[1], ports[0], 56, 3s));
	monitor->set(0, "link", "true");
	EXPECT_TRUE(wait_for([] { return ports[0].has_link(); }));
	EXPECT_TRUE(ping(ports[0], ports[1], 56));
}

TEST_F(IxgbeLinux, ADriverCuresAHungQueue)
{
	monitor->set(0, "hung-transmit", "255");
	EXPECT_TRUE(ping(ports[0], ports[1], 56));
	EXPECT_EQ(monitor->get(0, "hung-transmit"), "0") << "nobody has reset the device";
}

TEST_F(IxgbeLinux, ADriverCuresAQueueWhoseMemoryFailed)
{
	monitor->set(0, "fail-dma", "1");
	EXPECT_TRUE(ping(ports[0], ports[1], 56));
	EXPECT_EQ(monitor->get(0, "fail-dma"), "0");
}

} // namespace
