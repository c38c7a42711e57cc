// SPDX-License-Identifier: MIT
//
// ORBIT_CHECK=1: what leads out of the pools is told of.
#include "orbit_test.h"

#include <orbit/memory.hpp>

#include <fcntl.h>
#include <memory_resource>
#include <mutex>
#include <string>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <vector>

namespace {

const bool asked_for = !setenv("ORBIT_CHECK", "1", 1);

std::mutex told_lock;
std::vector<std::string> told_here; // by the main program

std::vector<std::string> told()
{
	const std::lock_guard guard(told_lock);

	return std::exchange(told_here, {});
}

const bool listening = [] {
	orbit_log_to(
		[](void *, int, const char *message) {
			const std::lock_guard guard(told_lock);

			if (std::string_view(message).starts_with("ORBIT_CHECK"))
				told_here.emplace_back(message);
		},
		nullptr);
	return true;
}();

// Where an orbit prints its errors, if that is made meanwhile.
class Errors {
public:
	Errors() : file_(memfd_create("errors", MFD_CLOEXEC)), before_(fcntl(2, F_DUPFD_CLOEXEC, 3))
	{
		dup2(file_, 2);
	}
	Errors(const Errors &) = delete;
	~Errors()
	{
		dup2(before_, 2);
		close(before_);
		close(file_);
	}
	std::string text() const
	{
		std::string all(1 << 16, '\0');
		const ssize_t got = pread(file_, all.data(), all.size(), 0);

		all.resize(got > 0 ? static_cast<std::size_t>(got) : 0);
		return all;
	}

private:
	int file_, before_;
};

std::string hex(const void *address)
{
	char text[32];

	std::snprintf(text, sizeof(text), "%#zx", reinterpret_cast<std::size_t>(address));
	return text;
}

bool mentions(const std::string &text, const std::string &part)
{
	return text.find(part) != std::string::npos;
}

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define NEEDS_WATCHED_READS() GTEST_SKIP() << "reads are not watched under a sanitizer"
#else
#define NEEDS_WATCHED_READS() static_assert(true)
#endif

struct Customer {
	long number;
	std::string name; // its letters are in the main program's heap
};

// What shares a page with the library's own variables is not watched.
struct alignas(page) OwnPage {
	int value;
} changing_global;
int constant_global = 7;

TEST(Check, APointerOutOfAPoolIsToldWithItsPlaceAndTarget)
{
	const auto pool = value_or_throw(orbit::Pool::create(1 << 20, "customers"));
	auto orbit = make_orbit();
	auto *customers = reinterpret_cast<Customer *>(pool.data() + 8192);

	told();
	std::construct_at(customers, 1, std::string(100, 'x'));
	ASSERT_TRUE(orbit.call(pool, [] {}));

	const auto lines = told();

	ASSERT_EQ(lines.size(), 1u);
	EXPECT_TRUE(mentions(lines[0], "\"customers\"")) << lines[0];
	EXPECT_TRUE(mentions(lines[0], "offset " + hex(reinterpret_cast<void *>(8192 + sizeof(long))))) << lines[0];
	EXPECT_TRUE(mentions(lines[0], hex(customers->name.data()))) << lines[0];
	EXPECT_TRUE(mentions(lines[0], "of the main program")) << lines[0]; // an allocator may have no heap
	ASSERT_TRUE(orbit.call(pool, [] {}));
	EXPECT_TRUE(told().empty()) << "told again";
	std::destroy_at(customers);
}

TEST(Check, APointerToTheStackIsToldByCallsThatDoNotWait)
{
	const auto pool = make_pool(page);
	auto orbit = make_orbit();
	int local = 0;

	told();
	*pool.as<int *>(64) = &local;
	auto task = value_or_throw(orbit.call_async({{pool, 0, page}}, [] {}));

	const auto lines = told();

	ASSERT_EQ(lines.size(), 1u);
	EXPECT_TRUE(mentions(lines[0], "offset 0x40")) << lines[0];
	EXPECT_TRUE(mentions(lines[0], "the stack")) << lines[0];
	EXPECT_TRUE(task.wait());
}

TEST(Check, ManyPointersTakeFewLines)
{
	const auto pool = make_pool(1 << 20);
	auto orbit = make_orbit();
	const std::vector<int> one(1);

	told();
	for (std::size_t i = 0; i < 1000; i++)
		*pool.as<const int *>(i * 128) = one.data();
	ASSERT_TRUE(orbit.call(pool, [] {}));
	EXPECT_LT(told().size(), 12u);
}

TEST(Check, ContainersThatKeepAllInThePoolAreQuiet)
{
	auto memory = value_or_throw(orbit::Memory::create(1 << 18, {.name = "all", .grow = true}));
	auto *lists = memory.make<std::pmr::vector<std::pmr::string>>();
	auto orbit = make_orbit();

	told();
	for (int i = 0; i < 10000; i++)
		lists->emplace_back("a string that is too long to lie in its object");
	EXPECT_EQ(value_or_throw(orbit.call(memory, [](const auto *all) { return all->size(); }, lists)), 10000u);
	EXPECT_EQ(told(), std::vector<std::string>{});
}

TEST(Check, AReadOfTheHeapThatHasChangedIsTold)
{
	NEEDS_WATCHED_READS();
	const Errors errors;
	auto number = std::make_unique<std::array<long, 4096>>();
	auto orbit = make_orbit();

	(*number)[2000] = 5;
	EXPECT_EQ(value_or_throw(orbit.call({}, [](const auto *n) { return (*n)[2000]; }, number.get())), 0);

	const std::string text = errors.text();

	EXPECT_TRUE(mentions(text, "a task reads " + hex(&(*number)[2000]))) << text;
	EXPECT_TRUE(mentions(text, "check+0x")) << text;
}

TEST(Check, ACapturedReferenceIsTold)
{
	NEEDS_WATCHED_READS();
	const Errors errors;
	long local = 1;
	auto orbit = make_orbit();
	auto look = [&local] { return local; };

	*const_cast<volatile long *>(&local) = 2;
	EXPECT_EQ(value_or_throw(orbit.call({}, look)), 1);

	const std::string text = errors.text();

	EXPECT_TRUE(mentions(text, "a task reads " + hex(&local) + ", in the stack")) << text;
}

TEST(Check, AReadOfAGlobalVariableThatHasChangedIsToldOnce)
{
	NEEDS_WATCHED_READS();
	const Errors errors;
	auto orbit = make_orbit({.restart = true});

	changing_global.value++;
	for (int i = 0; i < 3; i++)
		ASSERT_TRUE(orbit.call({}, [] { return *const_cast<volatile int *>(&changing_global.value); }));

	const std::string text = errors.text();
	const std::string line = "a task reads " + hex(&changing_global) + ", in the global variables";

	EXPECT_TRUE(mentions(text, line)) << text;
	EXPECT_EQ(text.find(line), text.rfind(line));
}

// Much has changed in the main program, and the task uses all that it may.
TEST(Check, WhatATaskMayDoIsQuietAndDoesTheSame)
{
	NEEDS_WATCHED_READS();
	std::vector<std::unique_ptr<int>> many;

	for (int i = 0; i < 2000; i++)
		many.push_back(std::make_unique<int>(i));

	const Errors errors;
	auto orbit = make_orbit();

	for (auto &one : many)
		*one = -1;
	many.clear();
	changing_global.value++;
	for (int i = 0; i < 5; i++) {
		const auto sum = orbit.call({}, [] {
			std::vector<std::string> words;
			long letters = constant_global;

			for (int n = 0; n < 2000; n++)
				words.push_back("a word that needs memory " + std::to_string(n));
			for (const auto &word : words)
				letters += static_cast<long>(word.size());
			std::printf("%s", "");
			std::fprintf(stderr, "%s", "");
			errno = 0;
			return letters;
		});

		ASSERT_TRUE(sum) << sum.error().message();
		EXPECT_EQ(*sum, 7 + 2000 * 25 + 10 + 90 * 2 + 900 * 3 + 1000 * 4);
	}
	EXPECT_EQ(errors.text(), "");
}

TEST(Check, ATaskThatCrashesIsReportedAsWithoutIt)
{
	auto orbit = make_orbit();

	changing_global.value++;

	const auto crash = orbit.call({}, [] { *reinterpret_cast<volatile int *>(0x123000) = 1; });

	ASSERT_FALSE(crash);
	EXPECT_EQ(crash.error().signal(), SIGSEGV);
	EXPECT_EQ(crash.error().fault_address(), 0x123000u);
}

// Another thread of the main program may be looking at that moment.
TEST(Check, AForkedChildMayMakeOrbitsOfItsOwn)
{
	OtherMain main([] {
		std::thread([] {
			const auto pool = make_pool(256 * page);
			auto orbit = make_orbit();

			for (;;)
				static_cast<void>(orbit.call(pool, [] {}));
		}).detach();
		const auto enough = std::chrono::steady_clock::now() + 5s; // a child takes long on a slow kernel

		for (int i = 0; i < 20 && std::chrono::steady_clock::now() < enough; i++) {
			std::this_thread::sleep_for(5ms);

			const pid_t child = fork();
			int status = 0;

			if (!child) {
				prctl(PR_SET_PDEATHSIG, SIGKILL); // if it hangs
				orbit_log_to([](void *, int, const char *) {}, nullptr); // another thread may have told_lock
				_exit(make_orbit().call({}, [] { return 3; }) == 3 ? 0 : 1);
			}
			waitpid(child, &status, 0);
			if (status)
				return 1;
		}
		return 0;
	});

	EXPECT_EQ(main.wait(), 0);
}

} // namespace
