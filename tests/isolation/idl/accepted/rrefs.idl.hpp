// SPDX-License-Identifier: MIT
//
// Typed buffers: moved there, back, and lent.
#pragma once

#include <orbit/rref.hpp>

#include <cstdint>

namespace blocks {

enum class Op : std::uint32_t { read, write };

struct Block {
	std::uint64_t lba;
	Op op;
	bool dirty;
	std::uint8_t data[512];
};

class ORBIT_INTERFACE Disk {
public:
	virtual ~Disk() = default;

	virtual orbit::result<orbit::rref<Block>> read(std::uint64_t lba, orbit::rref<Block> into) = 0;
	virtual orbit::result<std::uint64_t> sum(const orbit::rref<Block> &from) = 0;
	virtual orbit::result<void> keep(orbit::rref<Block> first, orbit::rref<Block> second) = 0;
	virtual orbit::result<std::size_t> count(const orbit::rref<std::uint32_t[]> &numbers) = 0;
	virtual orbit::result<orbit::rref<Block>> give() = 0;
};

} // namespace blocks
