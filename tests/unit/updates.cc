// SPDX-License-Identifier: MIT
//
// Targets: what an update may change. No kernel is needed to decide that, so everything a
// broken orbit might send is tried here.
#include "../../liborbit/internal.h"

#include <orbit/orbit.hpp>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <gtest/gtest.h>
#include <random>
#include <string>
#include <vector>

namespace {

constexpr std::size_t page = 4096;
constexpr std::uintptr_t pool_start = 0x10000000, other_start = 0x20000000;

struct PagesMoved {
	orbit_page_range from;
	orbit_pool *pool;
	std::uint64_t to, flags;
};

std::vector<PagesMoved> moved;
std::uint64_t conflicts_to_tell;
int apply_result;

int record_pages(orbit_task *, const orbit_page_range &from, orbit_pool *pool, std::uint64_t offset,
		 std::uint64_t flags, orbit_applied *out)
{
	moved.push_back({from, pool, offset, flags});
	out->pages += from.length / page - conflicts_to_tell;
	out->conflicts += conflicts_to_tell;
	return apply_result;
}

class Targets : public testing::Test {
protected:
	Targets()
	{
		moved.clear();
		conflicts_to_tell = 0;
		apply_result = 0;
		backend_.apply_pages = record_pages;
		task_.backend = &backend_;
		task_.generation = liborbit::generation();
		task_.number = 42;
		std::strcpy(task_.orbit, "sender");
		pool_.range = {pool_start, 16 * page, nullptr};
		pool_.generation = other_.generation = liborbit::generation();
		other_.range = {other_start, 4 * page, nullptr};
		EXPECT_EQ(orbit_targets_create(&targets_), 0);
	}
	~Targets() override { orbit_targets_destroy(targets_); }

	orbit_update update(orbit_update_kind kind, std::uint64_t target, const void *data = nullptr,
			    std::size_t length = 0)
	{
		orbit_update made{};

		made.size = sizeof(made);
		made.task = &task_;
		made.kind = kind;
		made.target = target;
		made.data = data;
		made.length = length;
		return made;
	}

	orbit_update pages(const orbit_page_range *ranges, std::size_t count)
	{
		orbit_update made = update(ORBIT_UPDATE_PAGES, 0);

		made.pool = &pool_;
		made.pages = ranges;
		made.nr_pages = count;
		return made;
	}

	int apply(const orbit_update &what, const orbit_apply_options *options = nullptr)
	{
		applied_ = {};
		applied_.size = sizeof(applied_);
		return orbit_update_apply(&what, targets_, options, &applied_);
	}

	// Bytes for an address, of which none may be touched if they are refused.
	int put(void *target, std::size_t length)
	{
		static const std::array<unsigned char, 64> bytes = [] {
			std::array<unsigned char, 64> made;

			made.fill(0xee);
			return made;
		}();

		return apply(update(ORBIT_UPDATE_BYTES, reinterpret_cast<std::uintptr_t>(target),
				    bytes.data(), length));
	}

	int declare_pages(std::uintptr_t start, std::size_t count)
	{
		return orbit_targets_add_range(targets_, reinterpret_cast<void *>(start), count * page);
	}

	liborbit::Backend backend_{};
	orbit_task task_{};
	orbit_pool pool_{}, other_{};
	orbit_targets *targets_ = nullptr;
	orbit_applied applied_{};
};

TEST_F(Targets, BytesWithinADeclaredRange)
{
	std::array<unsigned char, 32> memory{};

	ASSERT_EQ(orbit_targets_add_range(targets_, &memory[8], 16), 0);
	EXPECT_EQ(put(&memory[8], 16), 0);
	EXPECT_EQ(applied_.applied, 1U);
	EXPECT_EQ(memory[7], 0);
	EXPECT_EQ(memory[8], 0xee);
	EXPECT_EQ(memory[23], 0xee);
	EXPECT_EQ(memory[24], 0);
	memory = {};
	EXPECT_EQ(put(&memory[23], 1), 0);
	EXPECT_EQ(memory[22], 0);
	EXPECT_EQ(memory[23], 0xee);
	EXPECT_EQ(put(&memory[12], 0), 0);
	EXPECT_EQ(orbit_targets_refused(targets_), 0U);
}

TEST_F(Targets, AnythingElseIsRefusedWhole)
{
	std::array<unsigned char, 64> memory{};
	const struct {
		std::size_t offset, length;
	} outside[] = {{7, 1}, {7, 2}, {7, 18}, {0, 64}, {8, 17}, {23, 2}, {24, 1}, {31, 1}, {0, 8}};
	std::uint64_t refused = 0;

	ASSERT_EQ(orbit_targets_add_range(targets_, &memory[8], 16), 0);
	ASSERT_EQ(orbit_targets_add_range(targets_, &memory[40], 8), 0);
	for (const auto &[offset, length] : outside) {
		EXPECT_EQ(put(&memory[offset], length), -EACCES) << offset << " " << length;
		EXPECT_EQ(applied_.refused, 1U);
		EXPECT_EQ(applied_.applied + applied_.failed, 0U);
		EXPECT_EQ(orbit_targets_refused(targets_), ++refused);
	}
	for (unsigned char byte : memory)
		EXPECT_EQ(byte, 0);
}

TEST_F(Targets, AddressesThatWrapAroundAreRefused)
{
	std::array<unsigned char, 16> memory{};
	const auto start = reinterpret_cast<std::uintptr_t>(memory.data());

	ASSERT_EQ(orbit_targets_add_range(targets_, memory.data(), memory.size()), 0);
	for (const auto &[target, length] : std::initializer_list<std::pair<std::uint64_t, std::size_t>>{
		     {start, SIZE_MAX},
		     {start + 8, SIZE_MAX - 8},
		     {start + 8, SIZE_MAX - start},
		     {start + 1, std::size_t{0} - start},
		     {UINT64_MAX, 1},
		     {UINT64_MAX, SIZE_MAX},
		     {0, 1},
		     {0, SIZE_MAX},
		     {start - 1, SIZE_MAX}})
		EXPECT_EQ(apply(update(ORBIT_UPDATE_BYTES, target, memory.data(), length)), -EACCES)
			<< target << " " << length;
}

// Neighbours are declared one by one, and so can be changed one by one.
TEST_F(Targets, NotFromOneRangeIntoItsNeighbour)
{
	std::array<unsigned char, 16> memory{};

	ASSERT_EQ(orbit_targets_add_range(targets_, &memory[0], 8), 0);
	ASSERT_EQ(orbit_targets_add_range(targets_, &memory[8], 8), 0);
	EXPECT_EQ(put(&memory[0], 8), 0);
	EXPECT_EQ(put(&memory[8], 8), 0);
	EXPECT_EQ(put(&memory[7], 2), -EACCES);
}

TEST_F(Targets, DeclarationsThatMakeNoSense)
{
	char memory[16];
	const auto nothing = [](void *, const void *, std::size_t) { return 0; };

	EXPECT_EQ(orbit_targets_create(nullptr), -EINVAL);
	EXPECT_EQ(orbit_targets_add_range(nullptr, memory, 1), -EINVAL);
	EXPECT_EQ(orbit_targets_add_range(targets_, memory, 0), -EINVAL);
	EXPECT_EQ(orbit_targets_add_range(targets_, memory, SIZE_MAX), -EINVAL);
	ASSERT_EQ(orbit_targets_add_range(targets_, memory + 4, 8), 0);
	for (const auto &[offset, length] : {std::pair{0, 5}, {4, 8}, {5, 1}, {11, 5}, {0, 16}})
		EXPECT_EQ(orbit_targets_add_range(targets_, memory + offset,
						  static_cast<std::size_t>(length)),
			  -EEXIST)
			<< offset;
	EXPECT_EQ(orbit_targets_add_range(targets_, memory, 4), 0);
	EXPECT_EQ(orbit_targets_add_range(targets_, memory + 12, 4), 0);

	EXPECT_EQ(orbit_targets_add_operation(nullptr, 1, nothing, nullptr, 0, 0), -EINVAL);
	EXPECT_EQ(orbit_targets_add_operation(targets_, 1, nullptr, nullptr, 0, 0), -EINVAL);
	EXPECT_EQ(orbit_targets_add_operation(targets_, 1, nothing, nullptr, 2, 1), -EINVAL);
	EXPECT_EQ(orbit_targets_add_operation(targets_, 1, nothing, nullptr, 0, 1), 0);
	EXPECT_EQ(orbit_targets_add_operation(targets_, 1, nothing, nullptr, 0, 1), -EEXIST);
	orbit_targets_destroy(nullptr);
}

TEST_F(Targets, ManyRangesAreAllFound)
{
	constexpr std::size_t count = 1000, stride = 16;
	std::vector<unsigned char> memory(count * stride);
	std::vector<std::size_t> order(count);

	for (std::size_t i = 0; i < count; i++)
		order[i] = i;
	std::shuffle(order.begin(), order.end(), std::minstd_rand(3));
	for (std::size_t i : order)
		ASSERT_EQ(orbit_targets_add_range(targets_, &memory[i * stride + 4], 8), 0);
	for (std::size_t i = 0; i < count; i++) {
		ASSERT_EQ(put(&memory[i * stride + 4], 8), 0);
		ASSERT_EQ(put(&memory[i * stride + 3], 2), -EACCES);
		ASSERT_EQ(put(&memory[i * stride + 11], 2), -EACCES);
	}
}

struct Operations {
	int calls = 0;
	std::string args;
	int result = 0;
};

int note(void *user, const void *args, std::size_t size)
{
	auto *operations = static_cast<Operations *>(user);

	operations->calls++;
	operations->args.assign(static_cast<const char *>(args), size);
	return operations->result;
}

TEST_F(Targets, OperationsTakeArgumentsOfADeclaredSize)
{
	Operations operations;

	ASSERT_EQ(orbit_targets_add_operation(targets_, 7, note, &operations, 2, 4), 0);
	EXPECT_EQ(apply(update(ORBIT_UPDATE_OPERATION, 7, "abc", 3)), 0);
	EXPECT_EQ(operations.args, "abc");
	EXPECT_EQ(apply(update(ORBIT_UPDATE_OPERATION, 7, "ab", 2)), 0);
	EXPECT_EQ(apply(update(ORBIT_UPDATE_OPERATION, 7, "abcd", 4)), 0);
	EXPECT_EQ(operations.calls, 3);
	for (std::size_t size : {std::size_t{0}, std::size_t{1}, std::size_t{5}, SIZE_MAX})
		EXPECT_EQ(apply(update(ORBIT_UPDATE_OPERATION, 7, "abcde", size)), -EACCES) << size;
	for (std::uint64_t id : {std::uint64_t{0}, std::uint64_t{6}, std::uint64_t{8}, UINT64_MAX})
		EXPECT_EQ(apply(update(ORBIT_UPDATE_OPERATION, id, "abc", 3)), -EACCES) << id;
	EXPECT_EQ(operations.calls, 3);
	EXPECT_EQ(orbit_targets_refused(targets_), 8U);
}

TEST_F(Targets, WhatAnOperationReturnsIsItsOwn)
{
	Operations operations;

	ASSERT_EQ(orbit_targets_add_operation(targets_, 1, note, &operations, 0, 0), 0);
	operations.result = -EACCES;
	EXPECT_EQ(apply(update(ORBIT_UPDATE_OPERATION, 1)), -EACCES);
	EXPECT_EQ(applied_.failed, 1U);
	EXPECT_EQ(applied_.refused, 0U);
	EXPECT_EQ(orbit_targets_refused(targets_), 0U);
}

TEST_F(Targets, TypedOperations)
{
	constexpr orbit::Operation<int, double> scale{3};
	constexpr orbit::Operation<> tick{4};
	auto targets = orbit::Targets::create();
	double got = 0;
	int ticks = 0;

	ASSERT_TRUE(targets);
	ASSERT_TRUE(targets->add(scale, [&](int a, double b) { got = a * b; }));
	ASSERT_TRUE(targets->add(tick, [&] { return ++ticks > 1 ? -EALREADY : 0; }));
	EXPECT_EQ(targets->add(tick, [] {}).error().code(), EEXIST);

	const auto args = orbit::detail::pack(6, 7.0);

	const orbit_update call = update(ORBIT_UPDATE_OPERATION, 3, &args, sizeof(args));
	const orbit_update none = update(ORBIT_UPDATE_OPERATION, 4, "", 1);

	EXPECT_EQ(orbit_update_apply(&call, targets->raw(), nullptr, nullptr), 0);
	EXPECT_EQ(got, 42);
	EXPECT_EQ(orbit_update_apply(&none, targets->raw(), nullptr, nullptr), 0);
	EXPECT_EQ(orbit_update_apply(&none, targets->raw(), nullptr, nullptr), -EALREADY);

	const orbit_update shorter = update(ORBIT_UPDATE_OPERATION, 3, &args, sizeof(int));

	EXPECT_EQ(orbit_update_apply(&shorter, targets->raw(), nullptr, nullptr), -EACCES);
	EXPECT_EQ(targets->refused(), 1U);
	EXPECT_EQ(targets->refusal()->target, 3U);
	EXPECT_EQ(targets->refusal(1).error().code(), ENOENT);
}

TEST_F(Targets, UnknownKindsAreRefused)
{
	std::array<unsigned char, 16> memory{};

	ASSERT_EQ(orbit_targets_add_range(targets_, memory.data(), memory.size()), 0);
	for (std::uint32_t kind : {0U, 4U, 77U, UINT32_MAX}) {
		orbit_update strange = update(ORBIT_UPDATE_BYTES,
					      reinterpret_cast<std::uintptr_t>(memory.data()), "x", 1);

		strange.kind = kind;
		EXPECT_EQ(apply(strange), -EACCES) << kind;
	}
	EXPECT_EQ(memory[0], 0);
}

TEST_F(Targets, RefusalsAreReportedWithTheTask)
{
	static std::string message;

	orbit_log_to([](void *, int, const char *text) { message = text; }, nullptr);
	EXPECT_EQ(apply(update(ORBIT_UPDATE_OPERATION, 99, "", 0)), -EACCES);
	orbit_log_to(nullptr, nullptr);
	EXPECT_NE(message.find("task 42"), std::string::npos) << message;
	EXPECT_NE(message.find("\"sender\""), std::string::npos) << message;

	orbit_refusal refusal{};

	refusal.size = sizeof(refusal);
	ASSERT_EQ(orbit_targets_refusal(targets_, 0, &refusal), 0);
	EXPECT_EQ(refusal.task, 42U);
	EXPECT_STREQ(refusal.orbit, "sender");
	EXPECT_EQ(refusal.kind, unsigned{ORBIT_UPDATE_OPERATION});
	EXPECT_EQ(refusal.target, 99U);

	for (std::uint64_t i = 0; i < 100; i++)
		apply(update(ORBIT_UPDATE_OPERATION, 1000 + i, "", 0));
	EXPECT_EQ(orbit_targets_refused(targets_), 101U);
	for (std::size_t back = 0; back < 16; back++) {
		ASSERT_EQ(orbit_targets_refusal(targets_, back, &refusal), 0);
		EXPECT_EQ(refusal.target, 1099 - back);
	}
	EXPECT_EQ(orbit_targets_refusal(targets_, 16, &refusal), -ENOENT);
	EXPECT_EQ(orbit_targets_refusal(targets_, SIZE_MAX, &refusal), -ENOENT);
	EXPECT_EQ(orbit_targets_refusal(targets_, 0, nullptr), -EINVAL);
}

TEST_F(Targets, PagesGoWhereTheyAreDeclared)
{
	const orbit_page_range ranges[] = {{2 * page, page}, {4 * page, 2 * page}};

	ASSERT_EQ(declare_pages(pool_start + 2 * page, 4), 0);
	EXPECT_EQ(apply(pages(ranges, 2)), 0);
	ASSERT_EQ(moved.size(), 2U);
	EXPECT_EQ(moved[0].to, 2 * page);
	EXPECT_EQ(moved[0].pool, &pool_);
	EXPECT_EQ(moved[1].from.length, 2 * page);
	EXPECT_EQ(applied_.pages, 3U);
	EXPECT_EQ(applied_.applied, 1U);
}

// If one of them is not declared, none of them moves.
TEST_F(Targets, PagesPartlyOutsideAreRefusedWhole)
{
	const orbit_page_range ranges[] = {{2 * page, page}, {5 * page, 2 * page}};

	ASSERT_EQ(declare_pages(pool_start + 2 * page, 4), 0);
	EXPECT_EQ(apply(pages(ranges, 2)), -EACCES);
	EXPECT_TRUE(moved.empty());

	orbit_refusal refusal{};

	refusal.size = sizeof(refusal);
	ASSERT_EQ(orbit_targets_refusal(targets_, 0, &refusal), 0);
	EXPECT_EQ(refusal.target, pool_start + 5 * page);
	EXPECT_EQ(refusal.length, 2 * page);
}

TEST_F(Targets, SomeOfThePages)
{
	const orbit_page_range ranges[] = {{2 * page, page}, {4 * page, 4 * page}};
	orbit_apply_options options{};

	options.size = sizeof(options);
	options.from = 5 * page;
	options.length = 2 * page;
	options.flags = ORBIT_APPLY_FORCE;
	ASSERT_EQ(declare_pages(pool_start + 5 * page, 2), 0);
	EXPECT_EQ(apply(pages(ranges, 2), &options), 0);
	ASSERT_EQ(moved.size(), 1U);
	EXPECT_EQ(moved[0].from.offset, 5 * page);
	EXPECT_EQ(moved[0].from.length, 2 * page);
	EXPECT_EQ(moved[0].flags, ORBIT_APPLY_FORCE);
	options.length = SIZE_MAX & ~(page - 1); // runs past the end of all offsets
	EXPECT_EQ(apply(pages(ranges, 2), &options), -EACCES);
}

TEST_F(Targets, PagesIntoAnotherPool)
{
	const orbit_page_range ranges[] = {{8 * page, page}, {10 * page, page}};
	orbit_apply_options options{};

	options.size = sizeof(options);
	options.into = &other_;
	options.from = 8 * page;
	options.to = page;
	EXPECT_EQ(apply(pages(ranges, 2), &options), -EACCES); // not declared
	ASSERT_EQ(declare_pages(other_start, 4), 0);
	EXPECT_EQ(apply(pages(ranges, 2), &options), 0);
	ASSERT_EQ(moved.size(), 2U);
	EXPECT_EQ(moved[0].to, page);
	EXPECT_EQ(moved[1].to, 3 * page);
	EXPECT_EQ(moved[1].pool, &other_);
	options.to = 2 * page; // the last would lie past the pool's end
	EXPECT_EQ(apply(pages(ranges, 2), &options), -EACCES);
	options.to = std::uint64_t{0} - page;
	EXPECT_EQ(apply(pages(ranges, 2), &options), -EACCES);
	EXPECT_EQ(moved.size(), 2U);
}

// What lies behind a pool may be declared, and still is not the pool's.
TEST_F(Targets, PagesNeverGoBeyondTheirPool)
{
	const orbit_page_range past[] = {{16 * page, page}};
	const orbit_page_range across[] = {{15 * page, 2 * page}};
	const orbit_page_range wraps[] = {{std::uint64_t{0} - page, 2 * page}};

	ASSERT_EQ(declare_pages(pool_start, 64), 0);
	EXPECT_EQ(apply(pages(past, 1)), -EACCES);
	EXPECT_EQ(apply(pages(across, 1)), -EACCES);
	EXPECT_EQ(apply(pages(wraps, 1)), -EACCES);
	EXPECT_TRUE(moved.empty());
}

TEST_F(Targets, ConflictsAreTold)
{
	const orbit_page_range ranges[] = {{0, 4 * page}};

	conflicts_to_tell = 1;
	ASSERT_EQ(declare_pages(pool_start, 16), 0);
	EXPECT_EQ(apply(pages(ranges, 1)), -EBUSY);
	EXPECT_EQ(applied_.pages, 3U);
	EXPECT_EQ(applied_.conflicts, 1U);
	EXPECT_EQ(applied_.applied, 1U);
	conflicts_to_tell = 0;
	apply_result = -ENXIO;
	EXPECT_EQ(apply(pages(ranges, 1)), -ENXIO);
	EXPECT_EQ(applied_.failed, 1U);
}

TEST_F(Targets, MalformedArgumentsOfApply)
{
	const orbit_update good = update(ORBIT_UPDATE_BYTES, 0);
	orbit_update bad = good;
	orbit_apply_options options{};

	EXPECT_EQ(orbit_update_apply(nullptr, targets_, nullptr, nullptr), -EINVAL);
	EXPECT_EQ(orbit_update_apply(&good, nullptr, nullptr, nullptr), -EINVAL);
	bad.task = nullptr;
	EXPECT_EQ(apply(bad), -EINVAL);
	bad = good;
	bad.serial++;
	EXPECT_EQ(apply(bad), -EINVAL) << "it is not the last one";
	bad = good;
	bad.size = 1;
	EXPECT_EQ(apply(bad), -EINVAL);
	options.size = sizeof(options);
	options.flags = 2;
	EXPECT_EQ(apply(good, &options), -EINVAL);
	options.flags = 0;
	options.to = page; // of which pool?
	EXPECT_EQ(apply(good, &options), -EINVAL);
	options.to = 0;
	options.from = 1;
	EXPECT_EQ(apply(good, &options), -EINVAL);
	EXPECT_EQ(orbit_targets_refused(targets_), 0U);
}

TEST(Send, OnlyInAnOrbit)
{
	int x = 0;

	EXPECT_EQ(orbit_send_bytes(&x, &x, sizeof(x)), -EPERM);
	EXPECT_EQ(orbit_send_operation(1, &x, sizeof(x)), -EPERM);
	EXPECT_EQ(orbit_send_pages(&x, 4096), -EPERM);
	EXPECT_EQ(orbit_send_bytes(&x, nullptr, 1), -EINVAL);
	EXPECT_EQ(orbit::send(&x, 1).error().code(), EPERM);
}

} // namespace
