// SPDX-License-Identifier: MIT
//
// The portable backend: what an application does with signals and permissions that the library uses, too,
// to find changed pages. It must neither harm the application nor hide a change; nor may the library
// use up what the kernel gives a program. For both ways of finding them (ORBIT_TRACKER).
#include "../conformance/orbit_test.h"

#include <algorithm>
#include <csetjmp>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <iterator>
#include <string>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <thread>

extern "C" int __sigaction(int signal, const struct sigaction *wanted, struct sigaction *before) noexcept;

namespace {

constexpr std::size_t mib = 1 << 20;

sigjmp_buf back;
void *volatile faulted;

void note_fault(int, siginfo_t *info, void *)
{
	faulted = info->si_addr;
	siglongjmp(back, 1);
}

void note_signal(int)
{
	faulted = back;
	siglongjmp(back, 1);
}

// Does a write reach the application's handler?
bool faults(volatile char *at)
{
	faulted = nullptr;
	if (!sigsetjmp(back, 1))
		*at = 1;
	return faulted;
}

class Tracked : public testing::Test {
protected:
	orbit::Pool pool_ = make_pool(mib);
	orbit::Orbit orbit_ = make_orbit();
	char *bytes_ = pool_.as<char>();
	struct sigaction before_ = {};

	void SetUp() override { ASSERT_EQ(sigaction(SIGSEGV, nullptr, &before_), 0); }
	void TearDown() override { sigaction(SIGSEGV, &before_, nullptr); }

	char seen(std::size_t at)
	{
		return orbit_.call(
				     pool_, [](const char *p) { return *p; }, static_cast<const char *>(bytes_ + at))
			.value();
	}

	// Writes are found, and do not reach the application.
	void expect_tracked()
	{
		for (char value = 1; value < 4; value++) {
			for (std::size_t at = 0; at < mib; at += 16 * page)
				ASSERT_FALSE(faults(bytes_ + at));
			bytes_[5 * page] = value;
			EXPECT_EQ(seen(5 * page), value);
		}
	}
};

TEST_F(Tracked, ASegvHandlerInstalledAfterThePool)
{
	char *const nowhere = static_cast<char *>(mmap(nullptr, page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
	struct sigaction ours = {}, found = {};

	ours.sa_sigaction = note_fault;
	ours.sa_flags = SA_SIGINFO;
	ASSERT_EQ(sigaction(SIGSEGV, &ours, nullptr), 0);
	expect_tracked();
	EXPECT_TRUE(faults(nowhere));
	EXPECT_EQ(faulted, nowhere);
	ASSERT_EQ(sigaction(SIGSEGV, nullptr, &found), 0);
	EXPECT_EQ(found.sa_sigaction, note_fault);

	ASSERT_NE(signal(SIGSEGV, note_signal), SIG_ERR);
	expect_tracked();
	EXPECT_TRUE(faults(nowhere));
	EXPECT_EQ(faulted, static_cast<void *>(back));
	EXPECT_EQ(signal(SIGSEGV, SIG_DFL), note_signal);
	munmap(nowhere, page);
}

// As a program does that makes the system call itself: the next call of an orbit mends it.
TEST_F(Tracked, ASegvHandlerInstalledBehindTheLibrarysBack)
{
	struct sigaction ours = {}, kernels = {};

	ours.sa_sigaction = note_fault;
	ours.sa_flags = SA_SIGINFO;
	ASSERT_EQ(__sigaction(SIGSEGV, &ours, &kernels), 0);
	EXPECT_EQ(seen(0), 0);
	expect_tracked();
}

TEST_F(Tracked, TheApplicationsHandlerIsCalledAsTheKernelWould)
{
	char *const nowhere = static_cast<char *>(mmap(nullptr, page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
	struct sigaction ours = {}, found = {};
	static sigset_t during;

	ours.sa_handler = [](int) {
		sigprocmask(SIG_SETMASK, nullptr, &during);
		siglongjmp(back, 1);
	};
	sigemptyset(&ours.sa_mask);
	sigaddset(&ours.sa_mask, SIGUSR2);
	ours.sa_flags = static_cast<int>(SA_RESETHAND);
	ASSERT_EQ(sigaction(SIGSEGV, &ours, nullptr), 0);
	faults(nowhere);
	EXPECT_TRUE(sigismember(&during, SIGUSR2));
	EXPECT_TRUE(sigismember(&during, SIGSEGV));
	EXPECT_FALSE(sigismember(&during, SIGUSR1));
	ASSERT_EQ(sigaction(SIGSEGV, nullptr, &found), 0);
	EXPECT_EQ(found.sa_handler, SIG_DFL);
	munmap(nowhere, page);
}

TEST_F(Tracked, PagesThatTheApplicationProtectsAndFreesAgain)
{
	struct sigaction ours = {};

	ours.sa_sigaction = note_fault;
	ours.sa_flags = SA_SIGINFO;
	ASSERT_EQ(sigaction(SIGSEGV, &ours, nullptr), 0);
	for (char value = 1; value < 5; value++) {
		bytes_[9 * page] = value;
		ASSERT_EQ(mprotect(bytes_ + 8 * page, 4 * page, PROT_READ), 0);
		EXPECT_TRUE(faults(bytes_ + 9 * page));
		EXPECT_FALSE(faults(bytes_ + 12 * page));
		EXPECT_EQ(seen(9 * page), value);
		EXPECT_TRUE(faults(bytes_ + 10 * page));
		ASSERT_EQ(mprotect(bytes_ + 8 * page, 4 * page, PROT_READ | PROT_WRITE), 0);
		bytes_[9 * page] = static_cast<char>(value + 10);
		EXPECT_EQ(seen(9 * page), value + 10);
		bytes_[9 * page] = static_cast<char>(value + 20);
		EXPECT_EQ(seen(9 * page), value + 20);
	}
	EXPECT_EQ(mprotect(bytes_ + 1, page, PROT_READ), -1);
	EXPECT_EQ(errno, EINVAL);
}

char *ticks;

TEST_F(Tracked, AHandlerThatStoresToAPoolWhileItsThreadTakesASnapshot)
{
	const itimerval often = {{0, 500}, {0, 500}}, off = {};

	ticks = bytes_ + 200 * page;
	const auto old = signal(SIGALRM, [](int) { ++*ticks; });

	setitimer(ITIMER_REAL, &often, nullptr);
	for (unsigned n = 0; n < 200; n++) {
		for (std::size_t at = 0; at < 100; at++)
			bytes_[at * page]++;
		ASSERT_EQ(seen(0), bytes_[0]);
	}
	setitimer(ITIMER_REAL, &off, nullptr);
	signal(SIGALRM, old);
}

std::size_t nr_mappings()
{
	std::ifstream maps("/proc/self/maps");

	return static_cast<std::size_t>(
		std::count(std::istreambuf_iterator<char>(maps), std::istreambuf_iterator<char>(), '\n'));
}

// The kernel lets a program have so many mappings. Half of them stay the program's.
TEST(TrackedMappings, ScatteredWritesLeaveTheProgramHalf)
{
	std::ifstream limit("/proc/sys/vm/max_map_count");
	std::size_t most = 0;

	if (!(limit >> most) || most > 70000)
		GTEST_SKIP() << "more mappings than a test can use up";

	const std::size_t apart = most * 2 / 5, before = nr_mappings();
	orbit::Pool pool = make_pool(2 * apart * page);
	orbit::Orbit orbit = make_orbit();
	auto *const bytes = pool.as<unsigned char>();

	for (unsigned char value = 1; value < 3; value++) {
		for (std::size_t i = 0; i < apart; i++)
			bytes[2 * i * page] = value;
		EXPECT_LT(nr_mappings() - before, most / 2 + 100);
		std::thread([] {}).join();
		EXPECT_EQ(orbit.call(
				  pool,
				  [](const unsigned char *p, std::size_t count, unsigned char wanted) {
					  std::size_t right = 0;

					  for (std::size_t i = 0; i < count; i++)
						  right += p[2 * i * page] == wanted;
					  return right;
				  },
				  static_cast<const unsigned char *>(bytes), apart, value),
			  apart);
		EXPECT_LT(nr_mappings() - before, 100U);
	}
}

// To make a page writable is no help to a program that takes data for code: it would try for ever.
TEST(Jump, IntoAPoolEndsTheProgram)
{
	for (const bool written : {false, true}) {
		OtherMain main([written] {
			const orbit::Pool pool = make_pool(page);

			if (written)
				*pool.as<volatile char>() = 1;
			reinterpret_cast<void (*)()>(pool.data())();
			return 0;
		});
		const int status = main.wait();

		EXPECT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV) << status;
	}
}

} // namespace
