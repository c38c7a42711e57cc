// SPDX-License-Identifier: MIT
//
// What the domains of domains.cc serve.
#pragma once

#include <orbit/rref.hpp>

struct Block {
	std::uint64_t words[64];
};

enum class Harm : std::uint8_t { none, crash, abort, exit, hang, flood };

class ORBIT_INTERFACE Worker {
public:
	virtual ~Worker() = default;

	virtual orbit::result<std::uint64_t> add(std::uint64_t n) = 0; // to a sum, which it returns
	virtual orbit::result<void> fail(std::int32_t code) = 0;
	// Says at an address in a zone that it has begun.
	virtual orbit::result<void> wait(std::uint32_t milliseconds, std::uint64_t begun, Harm then) = 0;
	virtual orbit::result<std::uint64_t> poke(std::uint64_t address) = 0;
	virtual orbit::result<void> harm(Harm harm) = 0;

	// Harm, but only by the domain's first process: see born().
	virtual orbit::result<void> born(std::uint64_t start) = 0;
	virtual orbit::result<std::uint64_t> first_harm(Harm harm) = 0;
	ORBIT_REPEATABLE virtual orbit::result<std::uint64_t> first_harm_repeatable(Harm harm) = 0;
	ORBIT_REPEATABLE virtual orbit::result<std::uint64_t> sum(const orbit::rref<Block> &block, Harm harm) = 0;

	virtual orbit::result<orbit::rref<Block>> fill(orbit::rref<Block> block, Harm harm) = 0;
	virtual orbit::result<std::uint32_t> keep(orbit::rref<Block> block, std::uint32_t more) = 0; // and makes more
};

class ORBIT_INTERFACE Other {
public:
	virtual ~Other() = default;
	virtual orbit::result<void> nothing() = 0;
};
