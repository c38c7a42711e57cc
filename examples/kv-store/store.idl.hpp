// SPDX-License-Identifier: MIT
//
// What the store's domain does for the program.
#pragma once

#include "../../isolation/nvme/block.idl.hpp"

#include <orbit/rref.hpp>

#include <memory>

namespace kv {

inline constexpr std::size_t most_key = 32, most_value = 256, most_puts = 32;

struct Key {
	std::uint32_t bytes; // 1 to most_key
	char text[most_key];
};

struct Value {
	std::uint32_t bytes; // at most most_value
	char text[most_value];
};

struct Put {
	Key key;
	Value value;
};

// Puts that are made safe together.
struct Group {
	std::uint32_t puts; // at most most_puts
	Put put[most_puts];
};

// Where on the device the log is.
struct Area {
	std::uint64_t lba;
	std::uint64_t blocks;
	std::uint32_t space;
	std::uint32_t block_bytes;
};

struct Contents {
	std::uint64_t keys;
	std::uint64_t groups;  // in the log
	std::uint64_t epoch;   // how often the log was written anew, from 1
};

// EINVAL: lengths; ENOSPC: the area is full; ENOENT: no such key; EIO and others of the device.
class ORBIT_INTERFACE Store {
public:
	virtual ~Store() = default;

	// Reads the log, or makes one. First of all, and once.
	virtual orbit::result<Contents> open(std::shared_ptr<orbit::block::Device> device, const Area &area) = 0;
	// When it returns all of them are safe.
	ORBIT_REPEATABLE virtual orbit::result<void> put(const orbit::rref<Group> &group) = 0;
	ORBIT_REPEATABLE virtual orbit::result<Value> get(const Key &key) = 0;
	ORBIT_REPEATABLE virtual orbit::result<Contents> contents() = 0;
};

} // namespace kv
