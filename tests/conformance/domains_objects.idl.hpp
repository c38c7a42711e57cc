// SPDX-License-Identifier: MIT
//
// What the domains of domains_objects.cc serve: interfaces as arguments and results.
#pragma once

#include <orbit/rref.hpp>

#include <memory>

struct Block {
	std::uint64_t words[64];
};

class ORBIT_INTERFACE Sink {
public:
	virtual ~Sink() = default;

	virtual orbit::result<std::uint64_t> take(std::uint64_t n) = 0;
	virtual orbit::result<orbit::rref<Block>> fill(orbit::rref<Block> block) = 0;
	virtual orbit::result<std::uint64_t> sum(const orbit::rref<Block> &block) = 0;
};

class ORBIT_INTERFACE Ladder {
public:
	virtual ~Ladder() = default;

	// Calls the other one with itself, `more` times in all.
	virtual orbit::result<std::uint32_t> climb(std::uint32_t more, Ladder &other) = 0;
};

enum class Attack : std::uint8_t { index, generation, type, method, flood, after };

class ORBIT_INTERFACE Node {
public:
	virtual ~Node() = default;

	virtual orbit::result<std::uint64_t> call(Sink &sink, std::uint64_t n) = 0;
	virtual orbit::result<void> keep(std::shared_ptr<Sink> sink) = 0;
	virtual orbit::result<std::uint64_t> call_kept(std::uint64_t n) = 0;
	virtual orbit::result<void> let_go() = 0;
	virtual orbit::result<std::shared_ptr<Sink>> sink() = 0; // one of its own
	virtual orbit::result<orbit::rref<Block>> through(Sink &sink, orbit::rref<Block> block) = 0;
	virtual orbit::result<std::uint64_t> lend(Sink &sink, std::uint64_t word) = 0; // a buffer of its own, full of that
	// The error that the main program's side gives it.
	virtual orbit::result<std::int32_t> attack(Attack attack, Sink &sink) = 0;
	virtual orbit::result<void> crash() = 0;
	virtual orbit::result<std::uint64_t> add(std::uint64_t n) = 0;
};
