// SPDX-License-Identifier: MIT
//
// orbitctl on live orbits of the portable backend, of which the kernel tells little.
#include "../../liborbit/orbitctl/command.h"
#include "../conformance/orbit_test.h"

#include <nlohmann/json.hpp>
#include <sstream>
#include <string>

namespace {

using Json = nlohmann::json;

// All processes with orbits or pools.
Json list_all()
{
	std::ostringstream out, err;

	EXPECT_EQ(orbitctl::run({"list", "--json"}, out, err), 0) << err.str();
	return Json::parse(out.str())["processes"];
}

// This process's entry, or null.
Json list()
{
	for (const Json all = list_all(); const Json &process : all)
		if (process["pid"] == getpid())
			return process;
	return {};
}

void expect_found(orbit::Inherit inherit)
{
	const orbit::Pool pool = value_or_throw(orbit::Pool::create(3 * page, "numbers"));
	orbit::Orbit first = make_orbit({.name = "first", .inherit = inherit});
	orbit::Orbit second = make_orbit({.name = "the second one", .inherit = inherit});
	const Json process = list();
	int found = 0;

	EXPECT_EQ(process["backend"], "portable");
	ASSERT_EQ(process["orbits"].size(), 2U) << process;
	EXPECT_EQ(process["orbits"][0]["name"], "first");
	EXPECT_EQ(process["orbits"][0]["pid"], pid_of(first));
	EXPECT_EQ(process["orbits"][1]["name"], "the secon"); // as much as a process's name has room for
	EXPECT_EQ(process["orbits"][1]["pid"], pid_of(second));
	ASSERT_EQ(process["pools"].size(), 1U);
	EXPECT_EQ(process["pools"][0]["name"], "numbers");
	EXPECT_EQ(process["pools"][0]["size"], 3 * page);
	// Neither their fork servers nor they themselves are taken for main programs.
	for (const Json all = list_all(); const Json &other : all)
		for (const Json &orbit : other["orbits"])
			if (orbit["pid"] == pid_of(first) || orbit["pid"] == pid_of(second))
				found += other["pid"] == getpid() ? 1 : 100;
	EXPECT_EQ(found, 2);
}

TEST(PortableOrbitctl, OrbitsAndPools)
{
	expect_found(orbit::Inherit::all);
	EXPECT_TRUE(list().is_null()); // all are gone
}

TEST(PortableOrbitctl, OrbitsThatInheritTheMinimum)
{
	OtherMain main([] {
		if (!orbit::prepare())
			return 1;
		expect_found(orbit::Inherit::minimal);
		return testing::Test::HasFailure() ? 2 : 0;
	});

	EXPECT_EQ(main.wait(), 0);
}

TEST(PortableOrbitctl, AnotherProcessAfterARestart)
{
	orbit::Orbit orbit = make_orbit({.name = "again", .restart = true});
	const pid_t before = pid_of(orbit);

	EXPECT_FALSE(orbit.call({}, [] { std::raise(SIGKILL); }));
	EXPECT_TRUE(orbit.call({}, [] {}));
	EXPECT_NE(pid_of(orbit), before);

	const Json process = list();

	ASSERT_EQ(process["orbits"].size(), 1U);
	EXPECT_EQ(process["orbits"][0]["pid"], pid_of(orbit));
}

} // namespace
