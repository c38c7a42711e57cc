// SPDX-License-Identifier: MIT
//
// Promises 1 and 8: a task that uses all the memory there is does not take main with it, also where nobody
// has thought of a limit.
#include "orbit_test.h"

#include <cstring>
#include <fstream>
#include <string>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

namespace {

constexpr std::size_t mib = 1 << 20;

// For a task: how many MiB there are, up to a number.
int use_up(int most)
{
	void *pieces[1000];
	int n = 0;

	for (; n < most; n++) {
		pieces[n] = mmap(nullptr, mib, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		if (pieces[n] == MAP_FAILED)
			break;
		std::memset(pieces[n], 1, mib);
	}
	for (int i = 0; i < n; i++)
		munmap(pieces[i], mib);
	return n;
}

// 0, or what went wrong: a task is to get more than so many MiB, and not so many.
int meet_limit(orbit::Orbit &orbit, int least, int most)
{
	const auto too_much = orbit.call({.time_limit = patience}, {}, use_up, most);

	if (too_much ? *too_much >= most : too_much.error().cause() != ORBIT_CAUSE_LIMIT)
		return 1;
	// And it goes on.
	return orbit.call({}, use_up, least) == least ? 0 : 2;
}

TEST(OutOfMemory, TheEnvironmentHasALimitForAll)
{
	OtherMain main([] {
		setenv("ORBIT_MEMORY_LIMIT", "16M", 1);

		orbit::Orbit by_default = make_orbit({.restart = true});
		orbit::Orbit its_own = make_orbit({.restart = true, .memory_limit = 32 * mib});
		orbit::Orbit without = make_orbit({.memory_limit = UINT64_MAX});

		if (const int wrong = meet_limit(by_default, 8, 200))
			return wrong;
		if (const int wrong = meet_limit(its_own, 20, 200))
			return 10 + wrong;
		if (without.call({}, use_up, 40) != 40)
			return 20;

		// What is no size is none, and is told; 0 is none, and is not.
		static std::vector<std::string> told;

		orbit_log_to([](void *, int level, const char *text) {
			if (level == ORBIT_LOG_ERROR)
				told.emplace_back(text);
		}, nullptr);
		for (const char *text : {"much", "0"}) {
			setenv("ORBIT_MEMORY_LIMIT", text, 1);
			if (make_orbit().call({}, use_up, 40) != 40)
				return 30;
		}
		return told.size() == 1 && told[0].find("much") != std::string::npos ? 0 : 31;
	});

	EXPECT_EQ(main.wait(), 0);
}

// A control group of its own for main, removed in the end.
class Group {
public:
	Group() : path_("/sys/fs/cgroup/orbit-test-" + std::to_string(getpid()))
	{
		made_ = !mkdir(path_.c_str(), 0755) && !access((path_ + "/memory.oom.group").c_str(), W_OK);
	}
	Group(const Group &) = delete;
	~Group()
	{
		eventually([&] { return !rmdir(path_.c_str()) || errno != EBUSY; });
	}
	bool made() const { return made_; }
	void set(const char *file, const std::string &value) const
	{
		std::ofstream out(path_ + "/" + file);

		if (!(out << value << std::flush))
			throw std::runtime_error(file);
	}

private:
	std::string path_;
	bool made_;
};

// Kubernetes has containers end as one. Without a limit a task would end all of it.
TEST(OutOfMemory, AGroupThatEndsAsOneGoesOn)
{
	const Group group;

	if (!group.made())
		GTEST_SKIP() << "no control group of version 2 can be made here";
	group.set("memory.max", std::to_string(64 * mib));
	group.set("memory.oom.group", "1");

	OtherMain main([&] {
		group.set("cgroup.procs", std::to_string(getpid()));

		orbit::Orbit orbit = make_orbit({.restart = true});
		const orbit::Pool pool = make_pool(page);

		*pool.as<int>() = 5;
		for (int round = 0; round < 2; round++) {
			if (const int wrong = meet_limit(orbit, 8, 1000))
				return wrong;
			if (orbit.call(pool, [](const int *p) { return *p; }, pool.as<int>()) != 5)
				return 10;
		}
		return 0;
	});

	EXPECT_EQ(main.wait(), 0);
}

} // namespace
