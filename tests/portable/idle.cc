// SPDX-License-Identifier: MIT
//
// The portable backend: what a call costs does not grow with the orbits that have nothing to do. Time is all
// that the main program's threads spend, for the machine may have other work.
#include "../conformance/orbit_test.h"

#include <algorithm>
#include <csignal>
#include <ctime>
#include <optional>
#include <sys/resource.h>
#include <sys/wait.h>
#include <vector>

namespace {

double process_time()
{
	timespec time;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time);
	return static_cast<double>(time.tv_sec) * 1e3 + static_cast<double>(time.tv_nsec) / 1e6;
}

double time_of_calls(orbit::Orbit &orbit)
{
	double least = 1e9;

	for (unsigned round = 0; round < 10; round++) {
		const double before = process_time();

		for (unsigned n = 0; n < 50; n++)
			EXPECT_EQ(orbit.call({}, [] { return 1; }), 1);
		least = std::min(least, process_time() - before);
	}
	return least;
}

TEST(Idle, CallsBesideManyIdleOrbits)
{
	constexpr std::size_t many = 200;
	rlimit files;

	getrlimit(RLIMIT_NOFILE, &files);
	files.rlim_cur = files.rlim_max;
	setrlimit(RLIMIT_NOFILE, &files);
	if (files.rlim_cur < 10 * many)
		GTEST_SKIP() << "too few descriptors";

	orbit::Orbit orbit = make_orbit();
	const double alone = time_of_calls(orbit);
	std::vector<orbit::Orbit> idle;

	for (std::size_t n = 0; n < many; n++)
		idle.push_back(make_orbit());

	double beside = time_of_calls(orbit);

	// With sanitizers it is not judged: what they add grows with what is mapped. A call that looked at each took five
	// times as long, however often it was measured. The least of several is judged, for orbits that are still starting
	// and neighbours on the machine take time of main's too.
	for (unsigned again = 0; again < 50 && beside >= 2.5 * alone; again++) {
		std::this_thread::sleep_for(100ms);
		beside = std::min(beside, time_of_calls(orbit));
	}
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
	EXPECT_LT(beside, 2.5 * alone) << "alone: " << alone << " ms, beside others: " << beside << " ms";
#endif
	RecordProperty("ratio", std::to_string(beside / alone));
	for (orbit::Orbit &each : idle)
		ASSERT_EQ(each.call({}, [] { return 2; }), 2);
}

// Without fork handlers a child has copies of the library's descriptors. An orbit that has ended is not told of
// for ever because of them.
TEST(Idle, AfterAnOrbitsEndBesideAForkedChild)
{
	const orbit::Orbit orbit = make_orbit();
	std::optional<orbit::Orbit> ended = make_orbit();
	const pid_t child = _Fork();

	if (!child)
		for (;;)
			pause();
	ended.reset();

	const double before = process_time();

	std::this_thread::sleep_for(1s);
	EXPECT_LT(process_time() - before, 50);
	kill(child, SIGKILL);
	waitpid(child, nullptr, 0);
}

} // namespace
