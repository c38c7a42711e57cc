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

TEST(Probe, SaysNoAndWhyOnAStockKernel)
{
	const orbit::Probe probe = orbit::probe();

	if (probe)
		GTEST_SKIP() << "this kernel has orbits";
	EXPECT_EQ(probe.error, ENOSYS);
	EXPECT_EQ(probe.abi, 0U);
	EXPECT_STREQ(probe.backend, "none");
	EXPECT_NE(std::strstr(probe.reason, "kernel has no orbits"), nullptr) << probe.reason;
	EXPECT_NE(std::strstr(probe.advice, "CONFIG_ORBIT"), nullptr) << probe.advice;
}

TEST(Probe, SaysYesOnAPatchedKernel)
{
	const orbit::Probe probe = orbit::probe();

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
		const orbit::Probe probe = orbit::probe();

		return probe.error == EPERM && std::strstr(probe.reason, "filter") &&
		       std::strstr(probe.advice, "seccomp");
	}));
}

TEST(Probe, MentionsAFilterThatMayHideOrbits)
{
	EXPECT_TRUE(holds_under_filter(ENOSYS, [] {
		const orbit::Probe probe = orbit::probe();

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
