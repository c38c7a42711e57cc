// SPDX-License-Identifier: MIT
#pragma once
#include "types.hpp"
#include <orbit/interface.hpp>

class ORBIT_INTERFACE Echo {
public:
	virtual ~Echo() = default;
	virtual orbit::result<Number> echo(Number number) = 0;
};
