// SPDX-License-Identifier: MIT
//
// For tests of drivers as domains, one program each.
#ifndef ORBIT_TESTS_DRIVERS_PREPARED_H
#define ORBIT_TESTS_DRIVERS_PREPARED_H

#include <orbit/orbit.hpp>

#include <cstddef>
#include <gtest/gtest.h>

namespace {

// Before anything else: domains inherit the minimum.
class Prepared : public testing::Environment {
	void SetUp() override { ASSERT_TRUE(orbit::prepare()); }
};
const auto *const prepared = testing::AddGlobalTestEnvironment(new Prepared);

constexpr std::byte canary{0xc5};

} // namespace

#endif
