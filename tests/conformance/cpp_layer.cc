// SPDX-License-Identifier: MIT
//
// What the C++ layer adds to the C functions: results and arguments of any size, and the lock
// around a snapshot.
#include "orbit_test.h"

#include <array>
#include <mutex>
#include <numeric>
#include <string>
#include <vector>

namespace {

struct Summary {
	std::array<long, 100> numbers;
};

constexpr orbit::Operation<int> note{1};
constexpr orbit::Operation<int, std::string_view, std::span<const long>> rename_item{2};

Summary summarize(long first)
{
	Summary made{};

	std::iota(made.numbers.begin(), made.numbers.end(), first);
	return made;
}

TEST(CppLayer, ResultsMayBeLarge)
{
	auto orbit = make_orbit();

	for (long first : {1L, 1000L}) {
		const auto got = orbit.call({}, summarize, first);

		ASSERT_TRUE(got) << got.error().message();
		EXPECT_EQ(got->numbers, summarize(first).numbers);
	}
	auto task = value_or_throw(orbit.call_async({}, summarize, 5L));

	EXPECT_EQ(value_or_throw(task.wait()).numbers, summarize(5).numbers);
	EXPECT_EQ(value_or_throw(task.wait()).numbers, summarize(5).numbers) << "asked again";
	EXPECT_EQ(task.receive().error().code(), ENODATA) << "the result is no update";
	EXPECT_TRUE(orbit.post({}, summarize, 5L));
}

// Neither the updates nor the result are lost, and each is where it belongs.
TEST(CppLayer, ALargeResultComesBehindTheUpdates)
{
	const auto both = [] {
		for (int i = 0; i < 3; i++)
			orbit::require(note.send(i));
		return summarize(7);
	};
	auto orbit = make_orbit();
	auto targets = value_or_throw(orbit::Targets::create());
	std::vector<int> noted;

	ASSERT_TRUE(targets.add(note, [&](int i) { noted.push_back(i); }));
	auto task = value_or_throw(orbit.call_async({}, both));

	EXPECT_EQ(task.wait().error().code(), EBUSY);
	EXPECT_EQ(task.wait().error().code(), EBUSY);

	const auto applied = value_or_throw(task.apply_all(targets));

	EXPECT_EQ(applied.applied, 3u);
	EXPECT_EQ(applied.refused, 0u);
	EXPECT_EQ(noted, (std::vector{0, 1, 2}));
	EXPECT_EQ(value_or_throw(task.wait()).numbers, summarize(7).numbers);

	auto walked = value_or_throw(orbit.call_async({}, both));
	int count = 0;

	for (const orbit::Update &update : walked.updates()) {
		EXPECT_TRUE(update.apply(targets));
		count++;
	}
	EXPECT_EQ(count, 3);
	EXPECT_EQ(value_or_throw(walked.wait()).numbers, summarize(7).numbers);
	EXPECT_EQ(value_or_throw(orbit.call({}, both)).numbers, summarize(7).numbers);
}

TEST(CppLayer, ALargeResultThatFindsNoRoomIsAnError)
{
	auto orbit = make_orbit({.update_limit = 64});
	const auto got = orbit.call({}, summarize, 1L);

	ASSERT_FALSE(got);
	EXPECT_EQ(got.error().code(), ENOSPC);
	EXPECT_EQ(value_or_throw(orbit.call({}, [] { return 3; })), 3);
}

TEST(CppLayer, ATaskThatDiesHasNoLargeResult)
{
	auto orbit = make_orbit();
	const auto got = orbit.call({}, [] {
		std::raise(SIGSEGV);
		return summarize(1);
	});

	ASSERT_FALSE(got);
	EXPECT_EQ(got.error().signal(), SIGSEGV);
}

// An orbit that claims what it has not sent, or sends something else.
TEST(CppLayer, AMadeUpResultIsAnError)
{
	auto orbit = make_orbit();
	orbit_task *raw = nullptr;

	ASSERT_EQ(orbit_call_async(orbit.raw(), [](const void *, std::size_t) -> std::uint64_t {
		orbit_send_operation(orbit::detail::kResult, "short", 5);
		return 0;
	}, nullptr, 0, nullptr, &raw), 0);

	orbit::detail::Source<Summary> source;

	ASSERT_EQ(orbit_task_wait(raw, 0, nullptr), 0);
	EXPECT_EQ(source.take(raw, 0).error().code(), EPROTO);
	EXPECT_EQ(source.take(raw, 0xfffffffffffff).error().code(), EPROTO);
	orbit_task_destroy(raw);
}

TEST(CppLayer, OperationsCarryTextAndArrays)
{
	auto orbit = make_orbit();
	auto targets = value_or_throw(orbit::Targets::create());
	std::string name;
	std::vector<long> sizes;

	ASSERT_TRUE(targets.add(rename_item, [&](int, std::string_view to, std::span<const long> all) {
		name = to;
		sizes.assign(all.begin(), all.end());
	}));
	for (std::size_t count : {0, 1, 7, 1000}) {
		auto task = value_or_throw(orbit.call_async({}, [](std::size_t n) {
			const std::vector<long> numbers(n, 42);

			orbit::require(rename_item.send(1, std::string(n, 'n'), numbers));
		}, count));

		EXPECT_EQ(value_or_throw(task.apply_all(targets)).applied, 1u);
		EXPECT_EQ(name, std::string(count, 'n'));
		EXPECT_EQ(sizes, std::vector<long>(count, 42));
	}
}

TEST(CppLayer, ElementsOfArgumentsTravel)
{
	auto orbit = make_orbit();
	std::string name = "a name that is not where the orbit was made";
	const std::vector<double> numbers = {1, 2, 3.5};
	const auto look = [](std::string_view text, int more, std::span<const double> all) {
		return static_cast<double>(text.size()) + more + std::accumulate(all.begin(), all.end(), 0.0) +
		       (text.starts_with("a name") ? 0.25 : 0);
	};

	EXPECT_EQ(value_or_throw(orbit.call({}, look, orbit::copied(name), 100, orbit::copied(numbers))),
		  static_cast<double>(name.size()) + 100 + 6.5 + 0.25);
	EXPECT_EQ(value_or_throw(orbit.call({}, look, orbit::copied(""), 0, orbit::copied(std::vector<double>{}))), 0);
	EXPECT_EQ(orbit.call({}, look, orbit::copied(std::string(2 << 20, 'x')), 0, orbit::copied(numbers)).error().code(),
		  E2BIG);
}

// A snapshot under the lock, the task without it.
TEST(CppLayer, CallLockedHoldsTheLockForTheSnapshotOnly)
{
	struct Both {
		long a, b;
	};
	const auto pool = make_pool(sizeof(Both));
	auto *both = pool.construct<Both>();
	auto orbit = make_orbit();
	std::mutex lock;
	std::atomic<bool> stop = false;
	std::thread writer([&] {
		while (!stop) {
			const std::lock_guard guard(lock);

			both->a++;
			both->b++;
		}
	});

	for (int i = 0; i < 20; i++) {
		const auto same = orbit.call_locked(lock, pool, [](const Both *seen) { return seen->a == seen->b; }, both);

		ASSERT_TRUE(same) << same.error().message();
		EXPECT_TRUE(*same);
	}
	stop = true;
	writer.join();

	const Pipe pipe, begun;
	const std::array keep = {pipe.read_end, begun.write_end};
	auto waiting = make_orbit({.keep_fds = keep});
	std::thread caller([&] {
		EXPECT_EQ(value_or_throw(waiting.call_locked(lock, {.time_limit = patience}, pool, [](int fd, int told) {
			char byte = 'b';

			return write(told, &byte, 1) == 1 && read(fd, &byte, 1) == 1 && byte == 'x';
		}, pipe.read_end, begun.write_end)), true);
	});

	char byte;

	EXPECT_TRUE(begun.get(byte));
	EXPECT_TRUE(eventually([&] { return lock.try_lock(); })) << "the task runs, and the lock is held";
	pipe.put('x');
	caller.join();
	lock.unlock();
}

} // namespace
