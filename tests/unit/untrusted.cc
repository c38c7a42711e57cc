// SPDX-License-Identifier: MIT
//
// The C++ layer's types for what comes from an orbit, and for arguments whose size varies.
#include <orbit/orbit.hpp>

#include <cerrno>
#include <cmath>
#include <cstring>
#include <gtest/gtest.h>
#include <string>
#include <vector>

#include "../../liborbit/internal.h"

namespace {

using orbit::Untrusted;

// It is no T: nothing gets at the value by accident.
static_assert(!std::is_convertible_v<Untrusted<int>, int>);
static_assert(!std::is_constructible_v<int, Untrusted<int>>);
static_assert(!std::is_constructible_v<bool, Untrusted<bool>>);
static_assert(!std::equality_comparable<Untrusted<int>>);
template <class T> constexpr bool can_add = requires(T value) { value + 1; };
template <class T> constexpr bool can_follow = requires(T value) { *value; };
static_assert(can_add<int> && !can_add<Untrusted<int>>);
static_assert(can_follow<int *> && !can_follow<Untrusted<int *>>);
static_assert(std::is_convertible_v<int, Untrusted<int>>);
static_assert(std::is_trivially_copyable_v<Untrusted<int>>);

struct Pair {
	long a, b;
};

TEST(UntrustedValues, AreUsableOnceVerified)
{
	const Untrusted<Pair> pair = Pair{1, 2};

	EXPECT_EQ(pair.verify([](const Pair &p) { return p.a < p.b; })->b, 2);
	EXPECT_FALSE(pair.verify([](const Pair &p) { return p.a > p.b; }));
	EXPECT_EQ(pair.copy_and_verify([](Pair p) { return p.a < 0 ? 0 : p.a; }), 1);
	EXPECT_EQ(pair.unverified().a, 1);
}

TEST(UntrustedValues, AreInARangeOrNot)
{
	const Untrusted<int> number = 5;
	const Untrusted<double> none = std::nan("");

	ASSERT_TRUE(number.in_range(5, 5));
	EXPECT_EQ(*number.in_range(0, 9), 5);
	EXPECT_EQ(number.in_range(6, 9), nullptr);
	EXPECT_EQ(number.in_range(0, 4), nullptr);
	EXPECT_EQ(none.in_range(-1e300, 1e300), nullptr);
}

TEST(UntrustedValues, ResultsBecomeThem)
{
	const orbit::expected<int> good = 3;
	const orbit::expected<int> bad = tl::unexpected(orbit::Error(-ECONNRESET));
	const orbit::expected<Untrusted<int>> by_type = good;

	EXPECT_EQ(by_type->unverified(), 3);
	EXPECT_EQ(orbit::untrusted(good)->unverified(), 3);
	EXPECT_EQ(orbit::untrusted(bad).error().code(), ECONNRESET);
}

// Applies argument bytes to a handler, as if an orbit had sent them.
class Sent {
public:
	int apply(std::uint64_t id, const void *data, std::size_t size)
	{
		orbit_update update{};

		update.size = sizeof(update);
		update.task = &task_;
		update.kind = ORBIT_UPDATE_OPERATION;
		update.target = id;
		update.data = data;
		update.length = size;
		return orbit_update_apply(&update, targets.raw(), nullptr, nullptr);
	}

	orbit::Targets targets = orbit::Targets::create().value();

private:
	orbit_task task_ = [] {
		orbit_task task{};

		task.generation = liborbit::generation();
		return task;
	}();
};

TEST(VariableOperations, CarryElements)
{
	constexpr orbit::Operation<int, std::string_view, std::span<const double>, bool> change{1};
	const std::vector<double> doubles = {1.5, 2.5, 3.5};
	const orbit::detail::Bytes<int, orbit::Copied<char>, orbit::Copied<double>, bool> bytes(
		7, {"a name"}, {doubles}, true);
	Sent sent;
	int calls = 0;

	ASSERT_TRUE(sent.targets.add(change, [&](int id, std::string_view name, std::span<const double> all, bool last) {
		EXPECT_EQ(id, 7);
		EXPECT_EQ(name, "a name");
		EXPECT_EQ(std::vector<double>(all.begin(), all.end()), doubles);
		EXPECT_TRUE(last);
		calls++;
	}));
	EXPECT_EQ(sent.apply(1, bytes.data(), bytes.size()), 0);
	EXPECT_EQ(calls, 1);
}

// Whatever a count says: the handler gets what is there, or is not called.
TEST(VariableOperations, BelieveNoCount)
{
	constexpr orbit::Operation<std::string_view, std::span<const std::uint64_t>> change{1};
	const std::vector<std::uint64_t> numbers(4, 1);
	const orbit::detail::Bytes<orbit::Copied<char>, orbit::Copied<std::uint64_t>> bytes({"text"}, {numbers});
	Sent sent;
	int calls = 0;

	ASSERT_TRUE(sent.targets.add(change, [&](std::string_view, std::span<const std::uint64_t>) { calls++; }));
	for (const std::uint64_t count : {std::uint64_t{0}, std::uint64_t{3}, std::uint64_t{5}, std::uint64_t{1} << 32,
					  std::uint64_t{1} << 61, ~std::uint64_t{0}, ~std::uint64_t{0} / 8}) {
		for (const std::size_t which : {0, 8}) {
			std::vector<std::byte> wrong(bytes.data(), bytes.data() + bytes.size());

			std::memcpy(wrong.data() + which, &count, sizeof(count));
			if (which == 0 && count <= 16)
				continue; // another text, within the padding
			EXPECT_EQ(sent.apply(1, wrong.data(), wrong.size()), -EINVAL) << which << ' ' << count;
		}
	}
	for (std::size_t size = 16; size < bytes.size(); size++)
		EXPECT_EQ(sent.apply(1, bytes.data(), size), -EINVAL) << size;
	EXPECT_EQ(sent.apply(1, bytes.data(), 15), -EACCES) << "less than declared";
	EXPECT_EQ(calls, 0);
}

TEST(VariableOperations, HandlersMayTakeUntrustedValues)
{
	constexpr orbit::Operation<int, const char *> change{1};
	const orbit::detail::Bytes<int, const char *> bytes(70, nullptr);
	Sent sent;

	ASSERT_TRUE(sent.targets.add(change, [](Untrusted<int> id, Untrusted<const char *>) {
		return id.in_range(0, 9) ? 0 : -ERANGE;
	}));
	EXPECT_EQ(sent.apply(1, bytes.data(), bytes.size()), -ERANGE);
}

// A byte that is neither true nor false is not handed on as a bool.
TEST(Results, ABoolIsTrueOrFalse)
{
	orbit_outcome outcome{};

	outcome.value = 2;
	EXPECT_EQ(orbit::detail::decode<bool>(outcome).value() + 0, 1);
}

} // namespace
