// SPDX-License-Identifier: MIT
#pragma once

#include <orbit/interface.hpp>

#include <string>
#include <string_view>

class ORBIT_INTERFACE Echo {
public:
	virtual ~Echo() = default;

	ORBIT_REPEATABLE ORBIT_MAX(100) virtual orbit::result<std::string> say(ORBIT_MAX(100) std::string_view text) = 0;
	virtual orbit::result<void> crash() = 0;
};
