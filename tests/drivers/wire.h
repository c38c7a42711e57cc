// SPDX-License-Identifier: MIT
//
// For tests of the 82599's driver: packets, and Linux's end of the wire.
#ifndef ORBIT_TESTS_DRIVERS_WIRE_H
#define ORBIT_TESTS_DRIVERS_WIRE_H

#include "machine.h"

#include <arpa/inet.h>
#include <array>
#include <gtest/gtest.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <netinet/in.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

namespace machine {

inline constexpr std::uint16_t ethertype = 0x88b5; // for experiments, so that nobody else answers

/// The addresses of all 82599s.
inline std::vector<std::string> ports()
{
	std::vector<std::string> found;

	for (const std::string &address : devices_of("020000"))
		if (const std::string device = read_text(pci + "devices/" + address + "/device");
		    read_text(pci + "devices/" + address + "/vendor") == "0x8086" && (device == "0x10fb" || device == "0x10f7"))
			found.push_back(address);
	return found;
}

/// What is in a packet: the same for the same numbers only. Its first bytes after the header say which it is.
struct Stamp {
	std::uint32_t number;
	std::uint32_t bytes;
};

inline void fill_packet(std::span<std::byte> packet, std::span<const std::uint8_t> to, std::span<const std::uint8_t> from, std::uint32_t number)
{
	const Stamp stamp{number, static_cast<std::uint32_t>(packet.size())};
	const std::uint16_t type = htons(ethertype);

	if (packet.size() < 14 + sizeof(stamp))
		abort();
	std::ranges::fill(packet, std::byte{0}); // fill() leaves what is no whole word
	std::memcpy(packet.data(), to.data(), 6);
	std::memcpy(packet.data() + 6, from.data(), 6);
	std::memcpy(packet.data() + 12, &type, 2);
	fill(packet.subspan(14), 1, number, packet.size());
	std::memcpy(packet.data() + 14, &stamp, sizeof(stamp));
}

/// The number of a packet that is as it was sent; nothing if it is another one, or damaged.
inline std::optional<std::uint32_t> number_of(std::span<const std::byte> packet)
{
	Stamp stamp{};

	if (packet.size() < 14 + sizeof(stamp))
		return std::nullopt;
	std::memcpy(&stamp, packet.data() + 14, sizeof(stamp));
	if (stamp.bytes > packet.size())
		return std::nullopt;
	std::vector<std::byte> wanted(stamp.bytes);
	const auto *const from = reinterpret_cast<const std::uint8_t *>(packet.data());

	fill_packet(wanted, {from, 6}, {from + 6, 6}, stamp.number);
	// What is short was padded on the wire.
	if (std::memcmp(wanted.data(), packet.data(), wanted.size()) != 0)
		return std::nullopt;
	return stamp.number;
}

/// Linux's end of the wire.
class Wire {
public:
	/// The interface of a device that Linux's driver has.
	explicit Wire(const std::string &address, int mtu = 1500)
	{
		wait_until([&] {
			const auto names = names_in(pci + "devices/" + address + "/net");

			name_ = names.empty() ? "" : names[0];
			return !name_.empty();
		});
		ifreq request{};
		const int control = socket(AF_INET, SOCK_DGRAM, 0);

		std::strncpy(request.ifr_name, name_.c_str(), IFNAMSIZ - 1);
		request.ifr_mtu = mtu;
		EXPECT_EQ(ioctl(control, SIOCSIFMTU, &request), 0);
		ioctl(control, SIOCGIFFLAGS, &request);
		request.ifr_flags = static_cast<short>(request.ifr_flags | IFF_UP | IFF_PROMISC);
		EXPECT_EQ(ioctl(control, SIOCSIFFLAGS, &request), 0);
		EXPECT_EQ(ioctl(control, SIOCGIFHWADDR, &request), 0);
		std::memcpy(mac.data(), request.ifr_hwaddr.sa_data, mac.size());
		close(control);

		fd_ = socket(AF_PACKET, SOCK_RAW, htons(ethertype));
		sockaddr_ll where{};
		where.sll_family = AF_PACKET;
		where.sll_protocol = htons(ethertype);
		where.sll_ifindex = static_cast<int>(if_nametoindex(name_.c_str()));
		EXPECT_EQ(bind(fd_, reinterpret_cast<sockaddr *>(&where), sizeof(where)), 0);
		const int room = 64 << 20;
		setsockopt(fd_, SOL_SOCKET, SO_RCVBUFFORCE, &room, sizeof(room));
		setsockopt(fd_, SOL_SOCKET, SO_SNDBUFFORCE, &room, sizeof(room));
		before_ = card_missed();
	}
	~Wire() { close(fd_); }
	Wire(const Wire &) = delete;
	Wire &operator=(const Wire &) = delete;

	bool up() const { return read_text("/sys/class/net/" + name_ + "/carrier") == "1"; }
	bool send(std::span<const std::byte> packet) const { return ::send(fd_, packet.data(), packet.size(), 0) == static_cast<ssize_t>(packet.size()); }

	/// The next packet that has come, or nothing.
	std::optional<std::vector<std::byte>> receive() const
	{
		std::vector<std::byte> packet(16384);
		const ssize_t n = recv(fd_, packet.data(), packet.size(), MSG_DONTWAIT);

		if (n < 0)
			return std::nullopt;
		packet.resize(static_cast<std::size_t>(n));
		return packet;
	}

	/// Packets since this was made for which there was no room: in the card, in Linux's ring, or in the socket.
	std::uint64_t missed() const
	{
		tpacket_stats socket{};
		socklen_t bytes = sizeof(socket);

		// They are cleared by that.
		if (getsockopt(fd_, SOL_PACKET, PACKET_STATISTICS, &socket, &bytes) == 0)
			dropped_ += socket.tp_drops;
		return dropped_ + card_missed() - before_;
	}

	std::array<std::uint8_t, 6> mac{};

private:
	std::uint64_t card_missed() const
	{
		const std::string statistics = "/sys/class/net/" + name_ + "/statistics/";

		return std::strtoull(read_text(statistics + "rx_missed_errors").c_str(), nullptr, 10) +
		       std::strtoull(read_text(statistics + "rx_dropped").c_str(), nullptr, 10);
	}

	std::string name_;
	std::uint64_t before_ = 0;
	mutable std::uint64_t dropped_ = 0;
	int fd_ = -1;
};

/// Sizes of packets: all that there are, one after the other.
inline std::uint32_t size_of(std::uint32_t number, unsigned longest)
{
	const std::uint32_t least = 14 + sizeof(Stamp);

	return least + number * 7 % (longest - least + 1);
}

/// What both ends have room for in their rings, whoever sleeps: then nothing is to be lost.
inline std::uint32_t most_under_way(unsigned longest)
{
	return std::min(256U, (256U << 10) / longest);
}

} // namespace machine

#endif
