// SPDX-License-Identifier: MIT
#pragma once
struct Number {
	int value;
};
