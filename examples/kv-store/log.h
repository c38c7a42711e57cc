// SPDX-License-Identifier: MIT
//
// The log, on anything that has blocks: the device behind its driver, or what Linux makes of it.
//
// The area has two halves. One is written from its beginning on, a group after the other; when it is full what counts of it
// is written to the other, as the next epoch. A group is whole or it is not there: its checksum says so. Which half is the
// log says the highest epoch whose first groups, those with all that was in the one before, are there.
#pragma once

#include "store.idl.hpp"

#include <map>
#include <span>
#include <string>
#include <string_view>

namespace kv {

class Blocks {
public:
	virtual ~Blocks() = default;

	// Memory that the device reaches, of Log::most_group bytes and a block.
	virtual std::span<std::byte> buffer() = 0;
	// 0 or a positive errno value; blocks are counted from the beginning of the area. read() may change the buffer's place.
	virtual int read(std::uint64_t block, std::uint32_t blocks) = 0;
	virtual int write(std::uint64_t block, std::uint32_t blocks) = 0;
	virtual int flush() = 0;
};

class Log {
public:
	static constexpr std::size_t most_group = 12288;

	Log(Blocks &blocks, const Area &area) : blocks_(blocks), half_(area.blocks / 2), block_bytes_(area.block_bytes) {}

	// Finds what is there; if that is nothing, makes a new one, unless it may only be read: ENOENT.
	int open(bool may_write);
	// When it returns 0 they are safe.
	int append(std::span<const Put> puts);
	int get(std::string_view key, std::string &value);

	Contents contents() const { return {places_.size(), next_.sequence, next_.epoch}; }

private:
	struct Place {
		std::uint64_t block = 0;  // of the group
		std::uint32_t offset = 0; // in it
	};
	struct End { // where the next group comes
		std::uint64_t epoch = 0, sequence = 0, block = 0, limit = 0; // the limit is the half's end
		bool whole = false; // all of the epoch before is there
	};
	using Places = std::map<std::string, Place, std::less<>>;

	int scan(unsigned half, End &end, Places &places);
	int write(std::span<const Put> puts, bool last, End &end, Places &places);
	int write_anew();

	Blocks &blocks_;
	std::uint64_t half_;
	std::uint32_t block_bytes_;
	Places places_;
	End next_;
	std::uint64_t highest_ = 0; // epoch that was begun
};

} // namespace kv
