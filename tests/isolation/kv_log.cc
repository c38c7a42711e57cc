// SPDX-License-Identifier: MIT
//
// The log of examples/kv-store, on blocks whose power may be cut between any two: what was acknowledged is there.
#include "../../examples/kv-store/log.cc"

#include <gtest/gtest.h>
#include <random>

namespace {

constexpr std::uint32_t block_bytes = 512;

class Disk final : public kv::Blocks {
public:
	explicit Disk(std::uint64_t blocks) : disk_(blocks * block_bytes), buffer_(kv::Log::most_group + block_bytes) {}

	std::span<std::byte> buffer() override { return buffer_; }
	int read(std::uint64_t block, std::uint32_t blocks) override
	{
		std::memcpy(buffer_.data(), &disk_.at(block * block_bytes), blocks * block_bytes);
		return 0;
	}
	int write(std::uint64_t block, std::uint32_t blocks) override
	{
		for (std::uint32_t i = 0; i < blocks; i++) {
			if (!power)
				return EIO;
			power--;
			std::memcpy(&disk_.at((block + i) * block_bytes), buffer_.data() + i * block_bytes, block_bytes);
		}
		return 0;
	}
	int flush() override { return power ? 0 : EIO; }
	void flip(std::uint64_t at) { disk_.at(at) ^= std::byte{1}; }

	unsigned power = ~0U; // for so many blocks

private:
	std::vector<std::byte> disk_, buffer_;
};

kv::Put put_of(unsigned key, unsigned version)
{
	kv::Put put{};

	put.key.bytes = static_cast<std::uint32_t>(std::snprintf(put.key.text, sizeof(put.key.text), "key %u", key));
	put.value.bytes = static_cast<std::uint32_t>(std::snprintf(put.value.text, sizeof(put.value.text), "%u", version));
	// Of different lengths, so that groups end anywhere in a block.
	for (const auto end = put.value.bytes + version * 37 % 200; put.value.bytes < end;)
		put.value.text[put.value.bytes++] = '.';
	return put;
}

// 0: the key is not there.
unsigned version_in(kv::Log &log, unsigned key)
{
	const kv::Put put = put_of(key, 0);
	std::string value;
	const int error = log.get({put.key.text, put.key.bytes}, value);

	EXPECT_TRUE(error == 0 || error == ENOENT) << error;
	return error ? 0 : static_cast<unsigned>(std::stoul(value));
}

TEST(KvLog, WhatWasAcknowledgedIsThereWheneverThePowerIsCut)
{
	constexpr unsigned keys = 30;
	const kv::Area area{.lba = 0, .blocks = 160, .space = 1, .block_bytes = block_bytes};
	std::mt19937 random(7);
	Disk disk(area.blocks);
	unsigned acknowledged[keys] = {}, last[keys] = {}, version = 0;
	std::uint64_t epoch = 0;

	for (int life = 0; life < 100; life++) {
		disk.power = ~0U;
		kv::Log log(disk, area);

		ASSERT_EQ(log.open(true), 0) << life;
		ASSERT_GE(log.contents().epoch, epoch);
		epoch = log.contents().epoch;
		for (unsigned key = 0; key < keys; key++) {
			const unsigned found = version_in(log, key);

			ASSERT_TRUE(found >= acknowledged[key] && found <= last[key]) << "life " << life << ", key " << key;
			acknowledged[key] = last[key] = found;
		}
		disk.power = random() % 120;
		for (;;) {
			std::vector<kv::Put> puts;
			std::vector<std::pair<unsigned, unsigned>> told;

			for (unsigned n = random() % 8; n-- > 0;) {
				const unsigned key = random() % keys;

				puts.push_back(put_of(key, ++version));
				told.emplace_back(key, version);
				last[key] = version;
			}
			if (log.append(puts))
				break;
			for (const auto &[key, one] : told)
				acknowledged[key] = one;
			for (const auto &[key, one] : told)
				ASSERT_EQ(version_in(log, key), acknowledged[key]);
		}
	}
	EXPECT_GT(epoch, 10u);
}

TEST(KvLog, AFullAreaIsSaidAndLosesNothing)
{
	const kv::Area area{.lba = 0, .blocks = 64, .space = 1, .block_bytes = block_bytes};
	Disk disk(area.blocks);
	kv::Log log(disk, area);
	unsigned n = 0;

	ASSERT_EQ(log.open(true), 0);
	for (;; n++) {
		const kv::Put put = put_of(n, n + 1);

		if (const int error = log.append({&put, 1})) {
			EXPECT_EQ(error, ENOSPC);
			break;
		}
		ASSERT_LT(n, 1000u);
	}
	EXPECT_GT(n, 40u);
	kv::Log again(disk, area);
	ASSERT_EQ(again.open(false), 0);
	for (unsigned key = 0; key < n; key++)
		EXPECT_EQ(version_in(again, key), key + 1);
}

TEST(KvLog, WhatIsBrokenEndsTheLogThere)
{
	const kv::Area area{.lba = 0, .blocks = 128, .space = 1, .block_bytes = block_bytes};
	Disk disk(area.blocks);
	kv::Log log(disk, area);

	ASSERT_EQ(log.open(true), 0);
	for (unsigned key = 0; key < 5; key++) {
		const kv::Put put = put_of(key, 1);

		ASSERT_EQ(log.append({&put, 1}), 0);
	}
	disk.flip(4 * block_bytes + 60); // the fourth of them: the first block is the log's beginning
	kv::Log again(disk, area);
	ASSERT_EQ(again.open(false), 0);
	for (unsigned key = 0; key < 5; key++)
		EXPECT_EQ(version_in(again, key), key < 3 ? 1u : 0u);
}

TEST(KvLog, WhereThereIsNoneItIsNotMadeUnasked)
{
	const kv::Area area{.lba = 0, .blocks = 128, .space = 1, .block_bytes = block_bytes};
	Disk disk(area.blocks);
	kv::Log log(disk, area);

	EXPECT_EQ(log.open(false), ENOENT);
	EXPECT_EQ(log.open(true), 0);
}

} // namespace
