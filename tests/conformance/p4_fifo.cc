// SPDX-License-Identifier: MIT
//
// Promise 4: one task at a time, in the order of the calls, whatever thread made them.
#include "orbit_test.h"

#include <algorithm>
#include <mutex>
#include <numeric>
#include <vector>

namespace {

std::uint64_t tasks_run; // the orbit's own memory, which lasts from task to task

TEST(P4_Fifo, CallsOfManyThreadsAreServedOneByOne)
{
	constexpr unsigned threads = 4, calls = 50;
	orbit::Orbit orbit = make_orbit();
	std::vector<std::thread> callers;
	std::vector<std::uint64_t> numbers, places;
	std::mutex lock;
	bool in_order = true;

	for (unsigned t = 0; t < threads; t++)
		callers.emplace_back([&, t] {
			std::uint64_t last = 0;

			for (unsigned i = 0; i < calls; i++) {
				struct {
					unsigned thread, call;
				} arg = {t, i};
				orbit_outcome out{};

				out.size = sizeof(out);

				const int err = orbit_call(
					orbit.raw(), [](const void *, size_t) { return ++tasks_run; }, &arg,
					sizeof(arg), nullptr, &out);
				const std::lock_guard guard(lock);

				in_order = in_order && !err && out.task > last && out.value > last;
				last = out.task;
				numbers.push_back(out.task);
				places.push_back(out.value);
			}
		});
	for (std::thread &caller : callers)
		caller.join();

	EXPECT_TRUE(in_order) << "a thread's later call ran before its earlier one";
	EXPECT_EQ(numbers, places) << "tasks did not run in the order of their numbers";
	std::sort(numbers.begin(), numbers.end());

	std::vector<std::uint64_t> expected(threads * calls);

	std::iota(expected.begin(), expected.end(), 1);
	EXPECT_EQ(numbers, expected);
	EXPECT_EQ(tasks_run, 0U);

	const struct orbit_stat st = value_or_throw(orbit.stat());

	EXPECT_EQ(st.calls, threads * calls);
	EXPECT_EQ(st.completed, threads * calls);
	EXPECT_EQ(st.queued, 0U);
}

TEST(P4_Fifo, EveryTaskGetsItsOwnArgument)
{
	orbit::Orbit orbit = make_orbit();

	for (std::size_t size : {std::size_t{0}, std::size_t{1}, page - 1, page, page + 1,
				 std::size_t{ORBIT_MAX_ARG}}) {
		std::vector<unsigned char> bytes(size);
		orbit_outcome out{};

		std::iota(bytes.begin(), bytes.end(), static_cast<unsigned char>(size));
		out.size = sizeof(out);
		ASSERT_EQ(orbit_call(
				  orbit.raw(),
				  [](const void *arg, size_t n) {
					  const auto p = static_cast<const unsigned char *>(arg);

					  return std::accumulate(p, p + n, std::uint64_t{n},
								 [](auto hash, auto byte) {
									 return hash * 31 + byte;
								 });
				  },
				  bytes.data(), size, nullptr, &out),
			  0)
			<< size;
		EXPECT_EQ(out.value, std::accumulate(bytes.begin(), bytes.end(), std::uint64_t{size},
						     [](auto hash, auto byte) { return hash * 31 + byte; }));
	}
}

TEST(P4_Fifo, SeveralOrbitsRunSideBySide)
{
	Pipe pipe;
	const int keep[] = {pipe.read_end};
	orbit::Orbit waits = make_orbit({.keep_fds = keep}), runs = make_orbit();
	std::thread caller([&] {
		EXPECT_EQ(waits.call({}, [](int fd) {
			char byte = 0;

			return read(fd, &byte, 1) == 1 ? byte : 0;
		}, pipe.read_end), 'x');
	});

	EXPECT_EQ(runs.call({}, [] { return 5; }), 5);
	pipe.put('x');
	caller.join();
}

} // namespace
