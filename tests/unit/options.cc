// SPDX-License-Identifier: MIT
//
// Option structs, and the errors of every function where there are no orbits.
#include "../../liborbit/internal.h"

#include <orbit/orbit.hpp>

#include <cerrno>
#include <gtest/gtest.h>
#include <string>

namespace {

constexpr std::size_t page = 4096;

template <class T> struct Longer {
	T options{};
	unsigned char unknown[32]{};

	Longer() { options.size = sizeof(*this); }
};

template <class T> class Options : public testing::Test {};

using Structs = testing::Types<orbit_options, orbit_pool_options, orbit_call_options,
			       orbit_apply_options>;
TYPED_TEST_SUITE(Options, Structs);

TYPED_TEST(Options, NullMeansDefaults)
{
	TypeParam got;

	EXPECT_EQ(liborbit::copy_options<TypeParam>(&got, nullptr), 0);

	TypeParam defaults{};

	defaults.size = sizeof(defaults);
	EXPECT_EQ(std::memcmp(&got, &defaults, sizeof(got)), 0);
}

TYPED_TEST(Options, UnknownFieldsMustBeZero)
{
	Longer<TypeParam> longer;
	TypeParam got;

	EXPECT_EQ(liborbit::copy_options(&got, &longer.options), 0);
	EXPECT_EQ(got.size, sizeof(TypeParam));
	longer.unknown[31] = 1;
	EXPECT_EQ(liborbit::copy_options(&got, &longer.options), -E2BIG);
}

TYPED_TEST(Options, MissingFieldsAreZero)
{
	TypeParam shorter, got;

	std::memset(&shorter, 0xff, sizeof(shorter));
	shorter.size = sizeof(shorter.size);
	EXPECT_EQ(liborbit::copy_options(&got, &shorter), 0);

	TypeParam defaults{};

	defaults.size = sizeof(defaults);
	EXPECT_EQ(std::memcmp(&got, &defaults, sizeof(got)), 0);
}

TYPED_TEST(Options, SizesThatMakeNoSense)
{
	TypeParam options{}, got;

	options.size = 0;
	EXPECT_EQ(liborbit::copy_options(&got, &options), -EINVAL);
	options.size = sizeof(size_t) - 1;
	EXPECT_EQ(liborbit::copy_options(&got, &options), -EINVAL);
	options.size = SIZE_MAX;
	EXPECT_EQ(liborbit::copy_options(&got, &options), -E2BIG);
}

// Malformed arguments are found before the kernel is asked, so these hold anywhere.
TEST(Arguments, Create)
{
	orbit_handle *orbit = nullptr;
	orbit_options options{};
	const std::string long_name(ORBIT_NAME_LEN, 'x');
	const int bad_fd = 1 << 20;

	options.size = sizeof(options);
	EXPECT_EQ(orbit_create(nullptr, nullptr), -EINVAL);
	options.flags = 1ULL << 63;
	EXPECT_EQ(orbit_create(&orbit, &options), -EINVAL);
	options.flags = 0;
	options.name = long_name.c_str();
	EXPECT_EQ(orbit_create(&orbit, &options), -ENAMETOOLONG);
	options.name = nullptr;
	options.nr_keep_fds = 1;
	EXPECT_EQ(orbit_create(&orbit, &options), -EINVAL);
	options.keep_fds = &bad_fd;
	EXPECT_EQ(orbit_create(&orbit, &options), -EBADF);
	EXPECT_EQ(orbit, nullptr);
}

TEST(Arguments, PoolCreate)
{
	orbit_pool *pool = nullptr;
	orbit_pool_options options{};
	const std::string long_name(ORBIT_NAME_LEN, 'x');

	options.size = sizeof(options);
	EXPECT_EQ(orbit_pool_create(nullptr, 4096, nullptr), -EINVAL);
	EXPECT_EQ(orbit_pool_create(&pool, 0, nullptr), -EINVAL);
	EXPECT_EQ(orbit_pool_create(&pool, SIZE_MAX, nullptr), -ENOMEM);
	options.name = long_name.c_str();
	EXPECT_EQ(orbit_pool_create(&pool, 4096, &options), -ENAMETOOLONG);
	EXPECT_EQ(pool, nullptr);
}

TEST(Arguments, NullHandles)
{
	orbit_outcome out{};
	struct orbit_stat st {};

	out.size = sizeof(out);
	EXPECT_EQ(orbit_call(nullptr, nullptr, nullptr, 0, nullptr, &out), -EINVAL);
	EXPECT_EQ(out.error, -EINVAL);
	out.size = 0;
	EXPECT_EQ(orbit_call(nullptr, nullptr, nullptr, 0, nullptr, &out), -EINVAL);
	EXPECT_EQ(orbit_get_stat(nullptr, &st, sizeof(st)), -EINVAL);
	orbit_destroy(nullptr);
	orbit_pool_destroy(nullptr);
}

TEST(Arguments, Restrictions)
{
	orbit_handle *orbit = nullptr;
	orbit_options options{};
	const void *const module = &options;
	orbit_range range{};

	options.size = sizeof(options);
	options.queue_limit = ORBIT_MAX_QUEUE + 1;
	EXPECT_EQ(orbit_create(&orbit, &options), -EINVAL);
	options.queue_limit = 0;
	options.inherit = ORBIT_INHERIT_MINIMAL + 1;
	EXPECT_EQ(orbit_create(&orbit, &options), -EINVAL);
	options.inherit = ORBIT_INHERIT_MINIMAL;
	options.nr_ranges = 1;
	EXPECT_EQ(orbit_create(&orbit, &options), -EINVAL);
	options.ranges = &range;
	EXPECT_EQ(orbit_create(&orbit, &options), -EINVAL) << "a range of no bytes";
	range = {reinterpret_cast<void *>(-page), page};
	EXPECT_EQ(orbit_create(&orbit, &options), -EINVAL) << "the end of all addresses";
	range = {&range, SIZE_MAX};
	EXPECT_EQ(orbit_create(&orbit, &options), -EINVAL);
	range = {&range, sizeof(range)};
	options.inherit = ORBIT_INHERIT_ALL;
	EXPECT_EQ(orbit_create(&orbit, &options), -EINVAL) << "it has everything already";
	options.nr_ranges = 0;
	options.nr_modules = 1;
	options.modules = &module;
	EXPECT_EQ(orbit_create(&orbit, &options), -EINVAL);
	options.inherit = ORBIT_INHERIT_MINIMAL;
	options.modules = nullptr;
	EXPECT_EQ(orbit_create(&orbit, &options), -EINVAL);
	EXPECT_EQ(orbit, nullptr);
}

std::uint64_t nothing(const void *, std::size_t)
{
	return 0;
}

// A handle and a pool that no kernel knows: nothing gets as far as that.
class MalformedCalls : public testing::Test {
protected:
	MalformedCalls()
	{
		orbit_.backend = &liborbit::kernel_backend;
		orbit_.generation = pool_.generation = liborbit::generation();
		pool_.range.bytes = 4 * page;
		options_.size = sizeof(options_);
	}

	int async(orbit_task **task)
	{
		return orbit_call_async(&orbit_, nothing, nullptr, 0, &options_, task);
	}

	void refuse(orbit_pool_range range, int error)
	{
		options_.ranges = &range;
		options_.nr_ranges = 1;
		EXPECT_EQ(async(nullptr), error);
		EXPECT_EQ(orbit_call(&orbit_, nothing, nullptr, 0, &options_, nullptr), error);
	}

	orbit_handle orbit_{};
	orbit_pool pool_{};
	orbit_call_options options_{};
};

TEST_F(MalformedCalls, PoolRanges)
{
	orbit_pool others{};

	others.generation = liborbit::generation() + 1;
	refuse({nullptr, 0, 0, 0, 0}, -EINVAL);
	refuse({&others, 0, 0, 0, 0}, -EPERM);
	refuse({&pool_, 1, 0, 0, 0}, -EINVAL);
	refuse({&pool_, 0, 1, 0, 0}, -EINVAL);
	refuse({&pool_, 4 * page, 0, 0, 0}, -EINVAL);
	refuse({&pool_, page, 4 * page, 0, 0}, -EINVAL);
	refuse({&pool_, page, std::uint64_t{0} - page, 0, 0}, -EINVAL);
	refuse({&pool_, std::uint64_t{0} - page, page, 0, 0}, -EINVAL);
	refuse({&pool_, 0, 0, ORBIT_SNAP_MOVE + 1, 0}, -EINVAL);
	refuse({&pool_, 0, 0, 0, 1}, -EINVAL);
	options_.ranges = nullptr;
	EXPECT_EQ(async(nullptr), -EINVAL);
	options_.nr_ranges = ORBIT_MAX_POOLS + 1;
	options_.ranges = reinterpret_cast<const orbit_pool_range *>(&pool_);
	EXPECT_EQ(async(nullptr), -E2BIG);
	options_.nr_ranges = SIZE_MAX;
	options_.nr_pools = 1;
	options_.pools = reinterpret_cast<orbit_pool *const *>(&pool_);
	EXPECT_EQ(async(nullptr), -E2BIG);
}

TEST_F(MalformedCalls, Flags)
{
	orbit_task *task = nullptr;

	// How it is called is not for the caller to say.
	for (std::uint64_t flag : {ORBIT_CALL_ASYNC, ORBIT_CALL_HANDLE, 1ULL << 10, 1ULL << 63}) {
		options_.flags = flag;
		EXPECT_EQ(async(&task), -EINVAL) << flag;
		EXPECT_EQ(async(nullptr), -EINVAL) << flag;
		EXPECT_EQ(orbit_call(&orbit_, nothing, nullptr, 0, &options_, nullptr), -EINVAL) << flag;
	}
	// Updates need a handle to be received with.
	options_.flags = ORBIT_CALL_STREAM;
	EXPECT_EQ(async(nullptr), -EINVAL);
	EXPECT_EQ(orbit_call(&orbit_, nothing, nullptr, 0, &options_, nullptr), -EINVAL);
	options_.flags = 0;
	options_.resume = 1;
	EXPECT_EQ(async(&task), -EINVAL);
	EXPECT_EQ(task, nullptr);
}

TEST_F(MalformedCalls, HandlesOfAnotherProcess)
{
	orbit_task task{}, *made = nullptr;
	orbit_update update{};
	orbit_outcome out{};

	orbit_.generation = task.generation = liborbit::generation() + 1;
	update.size = sizeof(update);
	out.size = sizeof(out);
	EXPECT_EQ(async(&made), -EPERM);
	EXPECT_EQ(orbit_cancel(&orbit_, nullptr, nullptr, 0, 0, nullptr), -EPERM);
	EXPECT_EQ(orbit_task_wait(&task, 0, &out), -EPERM);
	EXPECT_EQ(out.error, -EPERM);
	EXPECT_EQ(orbit_task_cancel(&task, 0), -EPERM);
	EXPECT_EQ(orbit_task_receive(&task, 0, &update), -EPERM);
}

TEST_F(MalformedCalls, TasksAndCancellation)
{
	std::uint64_t cancelled = 9;
	orbit_outcome out{};
	orbit_update update{};
	orbit_task task{};

	EXPECT_EQ(orbit_cancel(nullptr, nothing, nullptr, 0, 0, &cancelled), -EINVAL);
	EXPECT_EQ(cancelled, 0U);
	EXPECT_EQ(orbit_cancel(&orbit_, nothing, nullptr, 1, 0, nullptr), -EINVAL);
	EXPECT_EQ(orbit_cancel(&orbit_, nullptr, "x", 1, 0, nullptr), -EINVAL);
	EXPECT_EQ(orbit_cancel(&orbit_, nothing, nullptr, 0, ORBIT_CANCEL_ALL, nullptr), -EINVAL);
	EXPECT_EQ(orbit_cancel(&orbit_, nothing, "x", ORBIT_MAX_ARG + 1, 0, nullptr), -E2BIG);
	EXPECT_EQ(orbit_task_wait(&task, 0, &out), -EINVAL); // its size is 0
	out.size = update.size = sizeof(out);
	EXPECT_EQ(orbit_task_wait(nullptr, 0, &out), -EINVAL);
	EXPECT_EQ(orbit_task_cancel(nullptr, 0), -EINVAL);
	EXPECT_EQ(orbit_task_cancel(&task, ORBIT_CANCEL_ALL), -EINVAL);
	EXPECT_EQ(orbit_task_receive(&task, 0, nullptr), -EINVAL);
	EXPECT_EQ(orbit_task_receive(nullptr, 0, &update), -EINVAL);
	EXPECT_EQ(orbit_task_apply_all(&task, 0, nullptr, nullptr), -EINVAL);
	orbit_task_destroy(nullptr);
}

TEST(Deadline, IsFromNow)
{
	const std::uint64_t now = orbit_deadline(0);

	EXPECT_GT(now, unsigned{ORBIT_NO_WAIT});
	EXPECT_GE(orbit_deadline(1'000'000'000), now + 1'000'000'000);
	EXPECT_LT(orbit_deadline(1'000'000'000), now + 100'000'000'000);
	EXPECT_EQ(orbit_deadline(UINT64_MAX), 0U);
}

TEST(WithoutKernel, EverythingSaysENOSYS)
{
	ASSERT_EQ(orbit_use_backend("kernel"), 0);
	if (!orbit_probe(nullptr))
		GTEST_SKIP() << "this kernel has orbits";

	static int messages;

	orbit_log_to([](void *, int, const char *) { messages++; }, nullptr);

	const auto pool = orbit::Pool::create(1 << 20, "pool");
	const auto made = orbit::Orbit::create({.name = "orbit"});

	const auto prepared = orbit::prepare();

	orbit_log_to(nullptr, nullptr);
	ASSERT_FALSE(prepared);
	EXPECT_EQ(prepared.error().code(), ENOSYS);
	ASSERT_FALSE(pool);
	EXPECT_EQ(pool.error().code(), ENOSYS);
	EXPECT_EQ(pool.error().error_code(), std::errc::function_not_supported);
	EXPECT_EQ(pool.error().message(),
		  "This kernel has no orbits. Boot a kernel with the orbit patches and CONFIG_ORBIT=y.");
	ASSERT_FALSE(made);
	EXPECT_EQ(made.error().code(), ENOSYS);
	EXPECT_EQ(messages, 3);
}

} // namespace
