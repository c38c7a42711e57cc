// SPDX-License-Identifier: MIT
//
// Option structs, and the errors of every function where there are no orbits.
#include "../../liborbit/internal.h"

#include <orbit/orbit.hpp>

#include <cerrno>
#include <gtest/gtest.h>
#include <string>

namespace {

template <class T> struct Longer {
	T options{};
	unsigned char unknown[32]{};

	Longer() { options.size = sizeof(*this); }
};

template <class T> class Options : public testing::Test {};

using Structs = testing::Types<orbit_options, orbit_pool_options, orbit_call_options>;
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

TEST(WithoutKernel, EverythingSaysENOSYS)
{
	if (!orbit_probe(nullptr))
		GTEST_SKIP() << "this kernel has orbits";

	static int messages;

	orbit_log_to([](void *, int, const char *) { messages++; }, nullptr);

	const auto pool = orbit::Pool::create(1 << 20, "pool");
	const auto made = orbit::Orbit::create({.name = "orbit"});

	orbit_log_to(nullptr, nullptr);
	ASSERT_FALSE(pool);
	EXPECT_EQ(pool.error().code(), ENOSYS);
	EXPECT_EQ(pool.error().error_code(), std::errc::function_not_supported);
	EXPECT_EQ(pool.error().message(), "this kernel has no orbits");
	ASSERT_FALSE(made);
	EXPECT_EQ(made.error().code(), ENOSYS);
	EXPECT_EQ(messages, 2);
}

} // namespace
