// SPDX-License-Identifier: MIT
#pragma once
#include <orbit/exchangeable.hpp>
namespace orbit {
struct Zone {
	std::uint32_t number;
};
}
