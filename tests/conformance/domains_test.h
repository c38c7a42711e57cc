// SPDX-License-Identifier: MIT
//
// For tests of domains.
#ifndef ORBIT_TESTS_CONFORMANCE_DOMAINS_TEST_H
#define ORBIT_TESTS_CONFORMANCE_DOMAINS_TEST_H

#include "orbit_test.h"

#include <orbit/domain.hpp>

// Before anything else: domains inherit the minimum where that works.
class Prepared : public testing::Environment {
	void SetUp() override
	{
		if (has_feature(ORBIT_FEATURE_MINIMAL)) {
			ASSERT_TRUE(orbit::prepare());
		}
	}
};
inline const auto *const prepared = testing::AddGlobalTestEnvironment(new Prepared);

template <class T> int error_of(const orbit::result<T> &done)
{
	return done ? 0 : done.error().code();
}

#endif // ORBIT_TESTS_CONFORMANCE_DOMAINS_TEST_H
