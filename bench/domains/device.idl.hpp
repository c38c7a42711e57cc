// SPDX-License-Identifier: MIT
//
// What the benchmark calls.
#ifndef ORBIT_BENCH_DEVICE_IDL_HPP
#define ORBIT_BENCH_DEVICE_IDL_HPP

#include <orbit/interface.hpp>
#include <orbit/rref.hpp>

#include <array>
#include <cstddef>
#include <cstdint>

namespace device {

struct Word {
	std::uint64_t number;
};
struct Page {
	std::array<std::uint64_t, 512> numbers;
};
struct Block {
	std::array<std::uint64_t, 8192> numbers;
};

class ORBIT_INTERFACE Device {
public:
	virtual ~Device() = default;
	virtual orbit::result<void> nothing() = 0;
	virtual orbit::result<std::uint64_t> add_one(std::uint64_t to) = 0;
	virtual orbit::result<orbit::rref<Word>> pass_word(orbit::rref<Word> word) = 0;
	virtual orbit::result<orbit::rref<Page>> pass_page(orbit::rref<Page> page) = 0;
	virtual orbit::result<orbit::rref<Block>> pass_block(orbit::rref<Block> block) = 0;
	virtual orbit::result<std::uint64_t> look(const orbit::rref<Word> &word) = 0;
};

} // namespace device

#endif
