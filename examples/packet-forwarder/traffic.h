// SPDX-License-Identifier: MIT
//
// Both ends of the forwarder, by Linux's own driver: clients that send packets, and backends that get them.
#ifndef EXAMPLES_PACKET_FORWARDER_TRAFFIC_H
#define EXAMPLES_PACKET_FORWARDER_TRAFFIC_H

#include <array>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <map>
#include <string>
#include <thread>
#include <vector>

namespace forwarder {

/// An interface of Linux's, with raw packets.
class Interface {
public:
	/// Of the PCI device at this address, which Linux's driver has; it is turned on. Throws std::runtime_error.
	explicit Interface(const std::string &address);
	~Interface();
	Interface(const Interface &) = delete;
	Interface &operator=(const Interface &) = delete;

	const std::array<std::uint8_t, 6> &mac() const noexcept { return mac_; }
	bool up() const;
	bool send(const std::vector<std::uint8_t> &packet) const;
	/// The next packet that has come, within 10 ms; empty if there is none.
	std::vector<std::uint8_t> receive() const;

private:
	std::string name_;
	std::array<std::uint8_t, 6> mac_{};
	int fd_ = -1;
};

/// What became of the packets.
struct Outcome {
	std::uint64_t sent = 0;
	std::uint64_t arrived = 0;
	std::uint64_t damaged = 0;   ///< Not as they were sent.
	std::uint64_t twice = 0;
	std::uint64_t elsewhere = 0; ///< At another backend than others of their connection.
	double outage_ms = 0;	     ///< The longest time without any.
};

/// Sends UDP packets of many connections from one end, `rate` a second, and looks at them at the other, until it is stopped.
class Traffic {
public:
	/// Packets go to `port`, the forwarder's address on the clients' side.
	Traffic(Interface &clients, Interface &backends, const std::array<std::uint8_t, 6> &port, unsigned rate);

	/// For a time; what became of packets sent in it, when those under way have had time to arrive.
	Outcome run(std::chrono::milliseconds length);

private:
	std::vector<std::uint8_t> packet(std::uint64_t number) const;
	void look_at(const std::vector<std::uint8_t> &packet, Outcome &outcome);

	Interface &clients_;
	Interface &backends_;
	std::array<std::uint8_t, 6> port_;
	unsigned rate_;
	std::uint64_t next_ = 1;
	std::uint64_t first_ = 1;		   // of this run
	std::vector<bool> seen_;		   // from the first on
	std::map<unsigned, std::uint64_t> backend_; // by connection: the address of its backend
};

} // namespace forwarder

#endif
