// SPDX-License-Identifier: MIT
//
// The probe explains what is missing, without needing it.
#include <orbit/orbit.hpp>

#include <cerrno>
#include <cstring>
#include <gtest/gtest.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <string>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

namespace {

constexpr unsigned first_number = 548, last_number = 555;

// Runs a check in a child, because a seccomp filter stays for good.
bool holds_under_filter(int filter_errno, bool (*check)())
{
	const pid_t pid = fork();

	if (!pid) {
		sock_filter code[] = {
			BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
			BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, first_number, 0, 2),
			BPF_JUMP(BPF_JMP | BPF_JGT | BPF_K, last_number, 1, 0),
			BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | static_cast<unsigned>(filter_errno)),
			BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
		};
		const sock_fprog program = {std::size(code), code};

		if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) ||
		    prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program))
			_exit(2);
		_exit(check() ? 0 : 1);
	}

	int status = 0;

	waitpid(pid, &status, 0);
	return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

// What the probe says about one backend.
orbit::Probe probe_of(const char *name)
{
	orbit::Probe probe{};

	for (std::size_t i = 0; !probe.error; i++) {
		probe.size = sizeof(orbit_probe_info);
		probe.error = -orbit_probe_backend(i, &probe);
		if (probe.error == ENOENT || !std::strcmp(probe.backend, name))
			break;
		probe.error = 0;
	}
	return probe;
}

TEST(Probe, TellsAboutEveryBackend)
{
	std::string names;
	orbit_probe_info info{};
	std::size_t i = 0;

	for (;; i++) {
		info.size = sizeof(info);

		const int err = orbit_probe_backend(i, &info);

		if (err == -ENOENT)
			break;
		names += std::string(info.backend) + ' ';
		EXPECT_STRNE(info.reason, "");
		// What works needs no advice, what does not has some.
		EXPECT_EQ(*info.advice == 0, err == 0) << info.backend << ": " << info.advice;
	}
	EXPECT_EQ(names, "kernel portable ");
	info.size = 1;
	EXPECT_EQ(orbit_probe_backend(0, &info), -EINVAL);
	EXPECT_NE(orbit_probe_backend(0, nullptr), -EINVAL);
	EXPECT_EQ(orbit_probe_backend(i, nullptr), -ENOENT);
}

TEST(Probe, TheFirstThatWorksIsUsed)
{
	const orbit::Probe used = orbit::probe();
	const orbit::Probe kernel = probe_of("kernel"), portable = probe_of("portable");

	EXPECT_EQ(used.error, kernel.error && portable.error ? portable.error : 0);
	if (used) {
		EXPECT_STREQ(used.backend, kernel ? "kernel" : "portable");
		EXPECT_EQ(used.features, kernel ? kernel.features : portable.features);
	}
}

// In a child, because the choice is for good; its exit status tells which line failed.
template <class F> int in_child(F body)
{
	const pid_t pid = fork();
	int status = 0;

	if (!pid)
		_exit(body());
	waitpid(pid, &status, 0);
	return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

TEST(Backend, TheApplicationChooses)
{
	EXPECT_EQ(orbit_use_backend("abacus"), -EINVAL);
	if (!probe_of("portable"))
		GTEST_SKIP() << probe_of("portable").reason;
	EXPECT_EQ(in_child([] {
		setenv("ORBIT_BACKEND", "kernel", 1);
		if (orbit_use_backend("portable") || std::strcmp(orbit::probe().backend, "portable"))
			return 1;
		if (!orbit::Pool::create(4096))
			return 2;
		// From here on it stays as it is.
		if (orbit_use_backend("kernel") != -EALREADY || orbit_use_backend("portable"))
			return 3;
		return std::strcmp(orbit::probe().backend, "portable") ? 4 : 0;
	}), 0);
}

TEST(Backend, TheEnvironmentChooses)
{
	if (!probe_of("portable"))
		GTEST_SKIP() << probe_of("portable").reason;
	for (const char *name : {"portable", "kernel", "auto", "", "abacus"})
		EXPECT_EQ(in_child([=] {
			setenv("ORBIT_BACKEND", name, 1);

			const orbit::Probe probe = orbit::probe();
			const orbit::Probe kernel = probe_of("kernel");

			if (!std::strcmp(name, "kernel"))
				return probe.error == kernel.error ? 0 : 1;
			if (!std::strcmp(name, "portable"))
				return std::strcmp(probe.backend, "portable") ? 2 : 0;
			return std::strcmp(probe.backend, kernel ? "kernel" : "portable") ? 3 : 0;
		}), 0) << name;
}

TEST(Backend, TheTrackerIsChosenToo)
{
	setenv("ORBIT_TRACKER", "mprotect", 1);

	const orbit::Probe probe = probe_of("portable");

	unsetenv("ORBIT_TRACKER");
	if (!probe)
		GTEST_SKIP() << probe.reason;
	EXPECT_TRUE(probe.features & ORBIT_FEATURE_CUT);
	EXPECT_FALSE(probe.features & ORBIT_FEATURE_IO);
	EXPECT_NE(std::strstr(probe.reason, "SIGSEGV"), nullptr) << probe.reason;
}

TEST(Probe, SaysNoAndWhyOnAStockKernel)
{
	const orbit::Probe probe = probe_of("kernel");

	if (probe)
		GTEST_SKIP() << "this kernel has orbits";
	EXPECT_EQ(probe.error, ENOSYS);
	EXPECT_EQ(probe.abi, 0U);
	EXPECT_NE(std::strstr(probe.reason, "kernel has no orbits"), nullptr) << probe.reason;
	EXPECT_NE(std::strstr(probe.advice, "CONFIG_ORBIT"), nullptr) << probe.advice;
}

TEST(Probe, SaysYesOnAPatchedKernel)
{
	const orbit::Probe probe = probe_of("kernel");

	if (!probe)
		GTEST_SKIP() << probe.reason;
	EXPECT_EQ(probe.abi, unsigned{ORBIT_ABI});
	EXPECT_GE(probe.max_pools, unsigned{ORBIT_MAX_POOLS});
	EXPECT_GE(probe.max_arg, unsigned{ORBIT_MAX_ARG});
	EXPECT_STREQ(probe.backend, "kernel");
	EXPECT_STREQ(probe.advice, "");
}

TEST(Probe, NeedsNoStruct)
{
	EXPECT_EQ(orbit_probe(nullptr), -orbit::probe().error);
}

TEST(Probe, NamesARefusingFilter)
{
	EXPECT_TRUE(holds_under_filter(EPERM, [] {
		const orbit::Probe probe = probe_of("kernel");

		return probe.error == EPERM && std::strstr(probe.reason, "filter") &&
		       std::strstr(probe.advice, "seccomp");
	}));
}

TEST(Probe, MentionsAFilterThatMayHideOrbits)
{
	EXPECT_TRUE(holds_under_filter(ENOSYS, [] {
		const orbit::Probe probe = probe_of("kernel");

		return probe.error == ENOSYS && std::strstr(probe.reason, "filter") != nullptr;
	}));
}

TEST(Probe, ToleratesOlderAndNewerCallers)
{
	struct {
		orbit_probe_info info;
		char unknown[64];
	} newer{};

	newer.info.size = sizeof(newer);
	std::memset(newer.unknown, 0xff, sizeof(newer.unknown));
	EXPECT_NE(orbit_probe(&newer.info), -EINVAL);
	for (char byte : newer.unknown)
		EXPECT_EQ(byte, 0);

	orbit_probe_info older{};

	older.size = offsetof(orbit_probe_info, backend);
	older.backend = "untouched";
	EXPECT_NE(orbit_probe(&older), -EINVAL);
	EXPECT_STREQ(older.backend, "untouched");

	older.size = 0;
	EXPECT_EQ(orbit_probe(&older), -EINVAL);
	older.size = 1 << 20;
	EXPECT_EQ(orbit_probe(&older), -EINVAL);
}

} // namespace
