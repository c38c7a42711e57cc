// SPDX-License-Identifier: MIT
#include <orbit/orbit.hpp>

#include <cerrno>
#include <csignal>
#include <cstring>
#include <gtest/gtest.h>
#include <string>

namespace {

orbit_outcome outcome(int error, orbit_cause cause = ORBIT_CAUSE_NONE, int code = 0,
		      std::uint64_t address = 0)
{
	orbit_outcome out{};

	out.size = sizeof(out);
	out.error = error;
	out.cause = cause;
	out.code = code;
	out.fault_addr = address;
	return out;
}

std::string text(const orbit_outcome &out)
{
	return orbit::Error(out).message();
}

TEST(Describe, NamesWhatEndedTheOrbit)
{
	EXPECT_EQ(text(outcome(-ECONNRESET, ORBIT_CAUSE_SIGNAL, SIGSEGV)),
		  "killed by signal 11 (SIGSEGV) at address 0x0");
	EXPECT_EQ(text(outcome(-ECONNRESET, ORBIT_CAUSE_SIGNAL, SIGBUS, 0xabc)),
		  "killed by signal 7 (SIGBUS) at address 0xabc");
	EXPECT_EQ(text(outcome(-ECONNRESET, ORBIT_CAUSE_SIGNAL, SIGABRT)),
		  "killed by signal 6 (SIGABRT)");
	EXPECT_EQ(text(outcome(-ECONNRESET, ORBIT_CAUSE_SIGNAL, 40)), "killed by signal 40 (unnamed)");
	EXPECT_EQ(text(outcome(-ECONNRESET, ORBIT_CAUSE_EXIT, 3)),
		  "ended itself with exit status 3");
	EXPECT_EQ(text(outcome(-ECANCELED, ORBIT_CAUSE_EXIT, 3)),
		  "not begun: ended itself with exit status 3");
	EXPECT_EQ(text(outcome(-ENOMEM, ORBIT_CAUSE_LIMIT)),
		  "used more memory than its limit and was killed");
	EXPECT_EQ(text(outcome(-ECANCELED)), "cancelled");
	EXPECT_EQ(text(outcome(-ETIMEDOUT, ORBIT_CAUSE_TIMEOUT)),
		  "ran past its time limit and was killed");
}

TEST(Describe, HasAWordForEveryCauseAndError)
{
	for (unsigned cause = ORBIT_CAUSE_NONE; cause <= ORBIT_CAUSE_TEMPLATE + 1; cause++)
		EXPECT_FALSE(text(outcome(-ECONNRESET, static_cast<orbit_cause>(cause))).empty());
	for (int error = 0; error < 200; error++)
		EXPECT_FALSE(text(outcome(-error)).empty()) << error;
	EXPECT_EQ(text(outcome(-ENOMEM)).find("no memory for the task or its snapshot"), 0);
	EXPECT_EQ(text(outcome(-100000)), "error 100000");
}

std::string text(int error, orbit_step step)
{
	return orbit::Error(error, step).message();
}

// The same number has other causes elsewhere.
TEST(Describe, HasTheWordsOfWhatFailed)
{
	EXPECT_EQ(text(-EAGAIN, ORBIT_STEP_CALL), "the orbit's queue is full");
	EXPECT_NE(text(-EAGAIN, ORBIT_STEP_CREATE).find("RLIMIT_NPROC"), std::string::npos);
	EXPECT_NE(text(-ENXIO, ORBIT_STEP_CREATE).find("orbit_prepare()"), std::string::npos);
	EXPECT_NE(text(-ENXIO, ORBIT_STEP_CALL).find("unmapped"), std::string::npos);
	EXPECT_NE(text(-EPERM, ORBIT_STEP_CALL).find("another process"), std::string::npos);
	EXPECT_EQ(text(-EPERM, ORBIT_STEP_SEND), orbit::send_bytes(nullptr, {}).error().message());
	EXPECT_NE(text(-ENOSYS, ORBIT_STEP_SETUP), "");

	// Where orbits do not work, it is what the probe says.
	orbit_probe_info info{};

	ASSERT_EQ(orbit_use_backend("kernel"), 0);
	info.size = sizeof(info);
	if (const int err = orbit_probe(&info)) {
		EXPECT_EQ(text(err, ORBIT_STEP_POOL), std::string(info.reason) + " " + info.advice);
		EXPECT_EQ(orbit::Pool::create(1).error().message(), text(err, ORBIT_STEP_POOL));
	}
	for (int step = ORBIT_STEP_CALL; step <= ORBIT_STEP_SCAN; step++)
		for (int error = 1; error < 134; error++)
			EXPECT_FALSE(text(-error, static_cast<orbit_step>(step)).empty());
	EXPECT_EQ(orbit_describe_error(EBADF, ORBIT_STEP_CREATE, nullptr, 1), -EINVAL);
	EXPECT_EQ(orbit_describe_error(EBADF, static_cast<orbit_step>(ORBIT_STEP_SCAN + 1), nullptr, 0), -EINVAL);
}

std::string outcomes_text(int error)
{
	const orbit_outcome out = outcome(error);
	char buf[256];

	orbit_describe(&out, buf, sizeof(buf));
	return buf;
}

// It may be from any function, so it is not blamed on the queue of an orbit that there is not.
TEST(Describe, NamesLimitsOnProcessesWhereOnlyTheErrorIsKnown)
{
	EXPECT_NE(outcomes_text(-EAGAIN).find("queue is full"), std::string::npos);
	EXPECT_NE(outcomes_text(-EAGAIN).find("RLIMIT_NPROC"), std::string::npos);
	EXPECT_NE(outcomes_text(-ENOMEM).find("vm.overcommit_memory"), std::string::npos);
	EXPECT_NE(outcomes_text(-EPERM).find("refused by a filter"), std::string::npos);
	EXPECT_EQ(outcomes_text(-ECANCELED), "cancelled");
}

// "Connection reset by peer" has nothing to do with orbits.
TEST(Describe, HasWordsOfItsOwn)
{
	const int calls[] = {E2BIG,  EADDRINUSE, EAGAIN, EBADF, ECANCELED, ECONNRESET, EDEADLK, EEXIST, EFAULT, EFBIG,
			     EINTR,  EINVAL,	 EMFILE, ENFILE, ENOMEM, ENXIO,	       EPERM,	ESHUTDOWN, ESRCH, ETIME,
			     ETIMEDOUT};
	const int creations[] = {E2BIG, EACCES, EADDRINUSE, EAGAIN, EBADF, ECHILD, EDEADLK, EFAULT, EFBIG, EINVAL, EMFILE,
				 ENAMETOOLONG, ENFILE, ENOENT, ENOMEM, ENOSYS, ENXIO, EPERM, EPROTONOSUPPORT};
	const int pools[] = {EEXIST, EFBIG, EINVAL, EMFILE, ENOMEM};

	for (const int error : calls)
		EXPECT_NE(text(-error, ORBIT_STEP_CALL), strerrordesc_np(error));
	for (const int error : creations)
		EXPECT_NE(text(-error, ORBIT_STEP_CREATE), strerrordesc_np(error));
	for (const int error : pools)
		EXPECT_NE(text(-error, ORBIT_STEP_POOL), strerrordesc_np(error));
}

TEST(Describe, WorksLikeSnprintf)
{
	const orbit_outcome out = outcome(-ECONNRESET, ORBIT_CAUSE_EXIT, 3);
	char buf[8];

	EXPECT_EQ(orbit_describe(&out, nullptr, 0), 31);
	EXPECT_EQ(orbit_describe(&out, buf, sizeof(buf)), 31);
	EXPECT_STREQ(buf, "ended i");
	EXPECT_EQ(orbit_describe(nullptr, buf, sizeof(buf)), -EINVAL);
	EXPECT_EQ(orbit_describe(&out, nullptr, 1), -EINVAL);
}

} // namespace
