// SPDX-License-Identifier: MIT
//
// The portable backend, promise 9, in a main program that adopts orphans: init in a container, or a
// subreaper.
#include "../conformance/orbit_test.h"

#include <atomic>
#include <cerrno>
#include <csignal>
#include <fstream>
#include <sched.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

namespace {

std::atomic<int> sigchlds;

// Those that this thread has, also such that no usual wait function finds; 0 if the kernel does not tell.
std::size_t count_children()
{
	std::ifstream file("/proc/thread-self/children");
	std::size_t count = 0;

	for (pid_t pid; file >> pid;)
		count++;
	return count;
}

// Orbits come and go, one crashes, and nobody notices.
int lead_a_life()
{
	struct sigaction action = {};

	action.sa_handler = [](int) { sigchlds++; };
	sigaction(SIGCHLD, &action, nullptr);
	for (int round = 0; round < 5; round++) {
		const orbit::Pool pool = make_pool(page);
		orbit::Orbit orbit = make_orbit({.restart = round % 2 != 0});

		*pool.as<int>() = round;
		if (orbit.call(pool, [](const int *p) { return *p; }, pool.as<int>()) != round)
			return 1;
		if (waitpid(-1, nullptr, WNOHANG) != -1 || errno != ECHILD)
			return 2;
		if (orbit.call({}, [] { std::abort(); }).error().signal() != SIGABRT)
			return 3;
		if (round % 2 && orbit.call({}, [] { return 7; }) != 7)
			return 4;
		// A deep stack.
		if (round % 2 && orbit.call({}, [] {
			    volatile char big[1 << 20];

			    for (std::size_t i = 0; i < sizeof(big); i += page)
				    big[i] = 1;
			    return big[page] + 0;
		    }) != 1)
			return 5;
	}
	if (waitpid(-1, nullptr, WNOHANG) != -1 || sigchlds)
		return 6;

	// What has been the parent of a fork server ends with it, and is reaped when others are made.
	return eventually([] { return make_orbit().fd() >= 0 && count_children() <= 2; }) && !sigchlds ? 0 : 7;
}

TEST(Adoption, OfASubreaper)
{
	OtherMain main([] {
		prctl(PR_SET_CHILD_SUBREAPER, 1);
		return lead_a_life();
	});

	EXPECT_EQ(main.wait(), 0);
}

constexpr int no_namespaces = 77;

// Run a function in the first process of a namespace. Its status; a negative one if that does not end by itself.
template <class F> int run_as_init(int more_namespaces, F body)
{
	OtherMain main([=] {
		if (unshare(CLONE_NEWUSER | CLONE_NEWPID | more_namespaces))
			return no_namespaces;

		const pid_t init = fork();
		int status = 0;

		if (!init)
			_exit(getpid() == 1 ? body() : 78);
		waitpid(init, &status, 0);
		return WIFEXITED(status) ? WEXITSTATUS(status) : 79;
	});
	const int status = main.wait();

	return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

TEST(Adoption, OfInit)
{
	const int status = run_as_init(0, lead_a_life);

	if (status == no_namespaces)
		GTEST_SKIP() << "no namespaces here";
	EXPECT_EQ(status, 0);
}

// Zombies in this namespace.
std::size_t count_zombies()
{
	std::size_t zombies = 0;

	for (pid_t pid = 2; pid < 2000; pid++) {
		std::ifstream file("/proc/" + std::to_string(pid) + "/stat");
		std::string word, state;

		// None of the names that may be there has a blank.
		zombies += file >> word >> word >> state && state == "Z";
	}
	return zombies;
}

// The first process of a container may be one that never waits. Then, as soon as that is known, orbits have
// another parent and leave no more zombies.
TEST(Adoption, OfAnInitThatDoesNotReap)
{
	const int status = run_as_init(CLONE_NEWNS, [] {
		if (mount("proc", "/proc", "proc", 0, nullptr))
			return no_namespaces;

		const pid_t program = fork();
		int ended = 0;

		if (!program) {
			const auto some_work = [](int rounds) {
				while (rounds--)
					if (make_orbit().call({}, [] { return 7; }) != 7)
						_exit(1);
			};

			some_work(2);
			std::this_thread::sleep_for(6s);

			const std::size_t zombies = count_zombies();

			some_work(20);
			// Who has been a parent may take a moment to end.
			_exit(eventually([zombies] {
				return make_orbit().fd() >= 0 && count_zombies() <= zombies;
			}) ? 0 : 2);
		}
		waitpid(program, &ended, 0); // and nobody else
		return WIFEXITED(ended) ? WEXITSTATUS(ended) : 78;
	});

	if (status == no_namespaces)
		GTEST_SKIP() << "no namespaces here";
	EXPECT_EQ(status, 0);
}

// Its orbits end with it, whoever holds its memory a moment longer.
TEST(Adoption, EndsWithMain)
{
	Pipe told;
	OtherMain main([&] {
		prctl(PR_SET_CHILD_SUBREAPER, 1);

		orbit::Orbit orbit = make_orbit();

		told.put(pid_of(orbit));
		std::raise(SIGKILL);
		return 1;
	});
	pid_t orbit = 0;

	ASSERT_TRUE(told.get(orbit));
	EXPECT_TRUE(gone(orbit));
}

} // namespace
