// SPDX-License-Identifier: MIT
#include "log.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>
#include <vector>
#include <zlib.h>

namespace kv {

namespace {

constexpr std::uint64_t magic = 0x3167'6f6c'766bULL;

struct Header {
	std::uint64_t magic, epoch, sequence; // the sequence begins with 0 in each epoch
	std::uint32_t bytes;                  // of what follows
	std::uint32_t puts;
	std::uint32_t last; // 1: all of the epoch before is there now
	std::uint32_t checksum;
};
struct Record {
	std::uint32_t key_bytes, value_bytes; // they follow
};

constexpr std::size_t most_record = sizeof(Record) + most_key + most_value;
static_assert(sizeof(Header) + most_puts * most_record <= Log::most_group);

std::uint32_t checksum_of(Header header, std::span<const std::byte> payload)
{
	header.checksum = 0;
	const auto begun = crc32_z(0, reinterpret_cast<const Bytef *>(&header), sizeof(header));

	return static_cast<std::uint32_t>(crc32_z(begun, reinterpret_cast<const Bytef *>(payload.data()), payload.size()));
}

std::string_view text_at(std::span<const std::byte> bytes, std::size_t at, std::size_t length)
{
	return {reinterpret_cast<const char *>(bytes.data() + at), length};
}

} // namespace

// Until the first group that is not one of the same epoch in its turn.
int Log::scan(unsigned half, End &end, Places &places)
{
	end = {.block = half * half_, .limit = (half + 1) * half_};
	while (end.block < end.limit) {
		const auto blocks = static_cast<std::uint32_t>(
			std::min<std::uint64_t>((most_group + block_bytes_ - 1) / block_bytes_, end.limit - end.block));
		Header header;

		if (const int error = blocks_.read(end.block, blocks))
			return error;
		const std::span<const std::byte> bytes = blocks_.buffer().first(std::size_t{blocks} * block_bytes_);
		std::memcpy(&header, bytes.data(), sizeof(header));
		if (header.magic != magic || (end.sequence && header.epoch != end.epoch) || header.sequence != end.sequence ||
		    header.bytes > bytes.size() - sizeof(header))
			break;
		const auto payload = bytes.subspan(sizeof(header), header.bytes);
		if (header.checksum != checksum_of(header, payload))
			break;
		std::size_t at = 0;
		for (std::uint32_t i = 0; i < header.puts; i++) {
			Record record;

			if (payload.size() - at < sizeof(record))
				return EIO;
			std::memcpy(&record, payload.data() + at, sizeof(record));
			if (record.key_bytes > most_key || record.value_bytes > most_value ||
			    payload.size() - at < sizeof(record) + record.key_bytes + record.value_bytes)
				return EIO;
			places[std::string(text_at(payload, at + sizeof(record), record.key_bytes))] = {
				end.block, static_cast<std::uint32_t>(sizeof(header) + at)};
			at += sizeof(record) + record.key_bytes + record.value_bytes;
		}
		end.epoch = header.epoch;
		end.sequence++;
		end.whole = end.whole || header.last;
		end.block += (sizeof(header) + header.bytes + block_bytes_ - 1) / block_bytes_;
	}
	return 0;
}

int Log::open(bool may_write)
{
	for (unsigned half = 0; half < 2; half++) {
		End end;
		Places places;

		if (const int error = scan(half, end, places))
			return error;
		highest_ = std::max(highest_, end.epoch);
		if (end.whole && end.epoch > next_.epoch) {
			next_ = end;
			places_ = std::move(places);
		}
	}
	if (next_.epoch)
		return 0;
	if (!may_write)
		return ENOENT;
	next_ = {.epoch = ++highest_, .limit = half_};
	return write({}, true, next_, places_);
}

int Log::write(std::span<const Put> puts, bool last, End &end, Places &places)
{
	const std::span<std::byte> buffer = blocks_.buffer();
	std::vector<std::pair<std::string, Place>> added;
	std::size_t at = sizeof(Header);

	std::ranges::fill(buffer, std::byte{0});
	for (const Put &put : puts) {
		const Record record{put.key.bytes, put.value.bytes};

		added.emplace_back(std::string(put.key.text, put.key.bytes), Place{end.block, static_cast<std::uint32_t>(at)});
		std::memcpy(buffer.data() + at, &record, sizeof(record));
		std::memcpy(buffer.data() + at + sizeof(record), put.key.text, put.key.bytes);
		std::memcpy(buffer.data() + at + sizeof(record) + put.key.bytes, put.value.text, put.value.bytes);
		at += sizeof(record) + put.key.bytes + put.value.bytes;
	}
	Header header{.magic = magic, .epoch = end.epoch, .sequence = end.sequence,
		      .bytes = static_cast<std::uint32_t>(at - sizeof(Header)),
		      .puts = static_cast<std::uint32_t>(puts.size()), .last = last, .checksum = 0};
	header.checksum = checksum_of(header, buffer.subspan(sizeof(header), header.bytes));
	std::memcpy(buffer.data(), &header, sizeof(header));

	const auto blocks = static_cast<std::uint32_t>((at + block_bytes_ - 1) / block_bytes_);
	if (blocks > end.limit - end.block)
		return ENOSPC;
	if (const int error = blocks_.write(end.block, blocks))
		return error;
	if (const int error = blocks_.flush())
		return error;
	for (auto &[key, place] : added)
		places[key] = place;
	end.block += blocks;
	end.sequence++;
	end.whole = end.whole || last;
	return 0;
}

// What counts of this half, to the other one. That is the log when its last group is there, and not before. What an
// earlier attempt has left there is of another epoch.
int Log::write_anew()
{
	const std::uint64_t begin = next_.limit == half_ ? half_ : 0;
	End end{.epoch = ++highest_, .sequence = 0, .block = begin, .limit = begin + half_, .whole = false};
	Places places;
	std::vector<Put> puts;
	auto left = places_.size();

	for (const auto &[key, place] : places_) {
		std::string value;
		Put &put = puts.emplace_back();

		if (const int error = get(key, value))
			return error;
		put.key.bytes = static_cast<std::uint32_t>(key.copy(put.key.text, most_key));
		put.value.bytes = static_cast<std::uint32_t>(value.copy(put.value.text, most_value));
		if (--left && puts.size() < most_puts)
			continue;
		if (const int error = write(puts, !left, end, places))
			return error;
		puts.clear();
	}
	if (!end.whole) // it was empty
		if (const int error = write({}, true, end, places))
			return error;
	next_ = end;
	places_ = std::move(places);
	return 0;
}

int Log::append(std::span<const Put> puts)
{
	const int error = write(puts, false, next_, places_);

	if (error != ENOSPC)
		return error;
	if (const int full = write_anew())
		return full;
	return write(puts, false, next_, places_);
}

int Log::get(std::string_view key, std::string &value)
{
	const auto found = places_.find(key);

	if (found == places_.end())
		return ENOENT;
	const Place place = found->second;
	const std::uint64_t block = place.block + place.offset / block_bytes_;
	const std::size_t at = place.offset % block_bytes_;
	const std::uint64_t end_of_half = (place.block / half_ + 1) * half_;
	const auto blocks = static_cast<std::uint32_t>(
		std::min<std::uint64_t>((at + most_record + block_bytes_ - 1) / block_bytes_, end_of_half - block));
	Record record;

	if (const int error = blocks_.read(block, blocks))
		return error;
	const std::span<const std::byte> bytes = blocks_.buffer().first(std::size_t{blocks} * block_bytes_);
	std::memcpy(&record, bytes.data() + at, sizeof(record));
	if (record.key_bytes != key.size() || record.value_bytes > most_value ||
	    at + sizeof(record) + record.key_bytes + record.value_bytes > bytes.size() ||
	    text_at(bytes, at + sizeof(record), key.size()) != key)
		return EIO;
	value = text_at(bytes, at + sizeof(record) + record.key_bytes, record.value_bytes);
	return 0;
}

} // namespace kv
