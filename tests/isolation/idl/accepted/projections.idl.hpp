// SPDX-License-Identifier: MIT
//
// Of a large struct only the fields that are named travel.
#pragma once

#include <orbit/interface.hpp>

#include <cstdint>

struct Statistics {
	std::uint64_t received, errors;
};

enum class Duplex : int { half, full };

struct NetDevice {
	char name[16] = "";
	std::uint32_t mtu = 1500;
	Duplex duplex = Duplex::half;
	Statistics statistics{};
	NetDevice *next = nullptr; // nothing that could travel
	bool up = false;
	unsigned flags : 4 = 0;
};

class ORBIT_INTERFACE Driver {
public:
	virtual ~Driver() = default;

	virtual orbit::result<std::uint32_t> open(ORBIT_IN(name, mtu) ORBIT_OUT(up, statistics.errors) ORBIT_BOTH(duplex) NetDevice &device) = 0;
	virtual orbit::result<std::uint64_t> total(ORBIT_IN(statistics) const NetDevice &device) = 0;
	virtual orbit::result<void> swap(ORBIT_BOTH(*) Statistics &statistics) = 0;
};
