// SPDX-License-Identifier: MIT
//
// The portable backend, promises 1 and 5: whatever an orbit's process says to the main program, or
// writes where both can read, the main program is not harmed, and the call has its outcome.
#include "../../liborbit/portable/wire.h"
#include "../conformance/orbit_test.h"

#include <cstdio>
#include <cstring>
#include <fcntl.h>
#include <random>
#include <string>
#include <sys/mman.h>
#include <vector>

namespace {

using liborbit::MoreMessage;
using liborbit::ReturnMessage;
using liborbit::Tell;
using liborbit::UpdateMessage;

std::uint64_t target;

// ---- In an orbit --------------------------------------------------------------------------

// What the orbit serves on.
int server_socket()
{
	for (int fd = 3; fd < 1024; fd++) {
		int domain = 0;
		socklen_t size = sizeof(domain);

		if (!getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &size) && domain == AF_UNIX)
			return fd;
	}
	_exit(100);
}

template <class T> void say(const T &message, const void *body = nullptr, std::size_t bytes = 0)
{
	liborbit::tell(server_socket(), &message, sizeof(message), body, bytes, nullptr, 0, 0);
}

UpdateMessage update(std::uint32_t kind, std::uint64_t number, std::uint64_t bytes)
{
	return {Tell::update, kind, number, reinterpret_cast<std::uintptr_t>(&target), bytes, 0, 0};
}

// -------------------------------------------------------------------------------------------

class Hostile : public testing::Test {
protected:
	Hostile() : pool_(make_pool(8 * page)), targets_(value_or_throw(orbit::Targets::create()))
	{
		target = 0;
		*pool_.as<std::uint64_t>() = 77;
		EXPECT_TRUE(targets_.add(target));
	}

	// Main goes on: this orbit if it lives, and others.
	void TearDown() override
	{
		EXPECT_EQ(target, 0U);
		EXPECT_EQ(*pool_.as<std::uint64_t>(), 77U);
		EXPECT_EQ(make_orbit().call(pool_, [](const std::uint64_t *p) { return *p; },
					    pool_.as<std::uint64_t>()),
			  77U);
	}

	// Something that breaks the rules: the orbit's process ends, and the task with it.
	template <class F, class... Args> void expect_end(F task, Args... args)
	{
		orbit::Orbit orbit = make_orbit({.restart = true});
		auto got = value_or_throw(
			orbit.call_async({.time_limit = patience}, part_, task, args...));

		EXPECT_EQ(got.wait().error().code(), ECONNRESET);
		EXPECT_EQ(got.receive().error().code(), ENODATA);
		EXPECT_EQ(orbit.call({}, [] { return 5; }), 5) << "in a fresh process";
	}

	orbit::Pool pool_;
	const orbit::Pools part_{{pool_, 0, 4 * page}};
	orbit::Targets targets_;
};

TEST_F(Hostile, MadeUpRecordsAreRefused)
{
	orbit::Orbit orbit = make_orbit();
	auto task = value_or_throw(orbit.call_async({}, [] {
		const std::uint64_t value = 5;

		for (const std::uint32_t kind : {0U, 4U, 1000U, UINT32_MAX})
			say(update(kind, 1, sizeof(value)), &value, sizeof(value));
	}));
	unsigned refused = 0;

	for (const orbit::Update &got : task.updates()) {
		EXPECT_EQ(got.kind(), ORBIT_UPDATE_UNKNOWN);
		EXPECT_EQ(got.apply(targets_).error().code(), EACCES);
		refused++;
	}
	EXPECT_EQ(refused, 4U);
}

TEST_F(Hostile, FalseUpdates)
{
	static const std::vector<char> bytes(liborbit::max_chunk);

	expect_end([] { say(update(ORBIT_UPDATE_BYTES, 2, 8), bytes.data(), 8), pause(); });
	expect_end([] { say(update(ORBIT_UPDATE_BYTES, 1, 8), bytes.data(), 9), pause(); });
	expect_end([] { say(update(ORBIT_UPDATE_BYTES, 1, ORBIT_MAX_UPDATE + 1)), pause(); });
	expect_end([] { say(update(ORBIT_UPDATE_BYTES, 1, UINT64_MAX)), pause(); });
	expect_end([] { say(MoreMessage{Tell::more, 0}, bytes.data(), 8), pause(); });
	// One within another, and one that has not ended with its task.
	expect_end([] {
		say(update(ORBIT_UPDATE_BYTES, 1, 100), bytes.data(), 8);
		say(update(ORBIT_UPDATE_BYTES, 1, 100), bytes.data(), 8);
		pause();
	});
	expect_end([] { say(update(ORBIT_UPDATE_BYTES, 1, 100), bytes.data(), 8); });
}

struct Pages {
	std::uint32_t place, nr_ranges;
	orbit_page_range range;
	std::uint64_t bytes;
};

TEST_F(Hostile, FalsePages)
{
	constexpr std::uint64_t one = sizeof(orbit_page_range) + page;
	const Pages right = {0, 1, {page, page}, one};
	const Pages wrong[] = {
		{1, 1, {page, page}, one},			    // no such pool
		{UINT32_MAX, 1, {page, page}, one},
		{0, 1, {4 * page, page}, one},			    // not what it sees
		{0, 1, {3 * page, 2 * page}, one + page},
		{0, 1, {UINT64_MAX - page + 1, page}, one},
		{0, 1, {page, UINT64_MAX - page + 1}, one},
		{0, 1, {1, page}, one},				    // not whole pages
		{0, 1, {page, 0}, sizeof(orbit_page_range)},
		{0, 1, {page, page}, one + page},		    // not as many bytes
		{0, 1, {page, 2 * page}, one},
		{0, 5, {page, page}, 5 * sizeof(orbit_page_range)}, // more than there are
		{0, UINT32_MAX, {page, page}, one},
		{0, 0, {page, page}, one},
	};
	static constexpr auto send = [](Pages pages) {
		UpdateMessage head = update(ORBIT_UPDATE_PAGES, 1, pages.bytes);
		std::vector<char> body(sizeof(orbit_page_range) + 2 * page);

		std::memcpy(body.data(), &pages.range, sizeof(pages.range));
		head.place = pages.place;
		head.nr_ranges = pages.nr_ranges;
		say(head, body.data(), std::min<std::uint64_t>(pages.bytes, body.size()));
	};
	orbit::Orbit orbit = make_orbit();
	auto task = value_or_throw(orbit.call_async(part_, send, right));

	EXPECT_EQ(value_or_throw(task.receive()).pages().size(), 1U) << "the others are wrong by little";
	for (const Pages &pages : wrong)
		expect_end([](Pages what) { send(what), pause(); }, pages);
}

TEST_F(Hostile, PastItsLimit)
{
	static const std::vector<char> bytes(1000);
	orbit::Orbit orbit = make_orbit({.update_limit = 2500});
	auto task = value_or_throw(orbit.call_async({.time_limit = patience}, {}, [] {
		for (;;)
			say(update(ORBIT_UPDATE_BYTES, 1, bytes.size()), bytes.data(), bytes.size());
	}));

	EXPECT_EQ(task.wait().error().code(), ECONNRESET);

	// Nor for those of no bytes.
	orbit::Orbit other = make_orbit({.update_limit = 2500});
	auto empty = value_or_throw(other.call_async({.time_limit = patience}, {}, [] {
		for (;;)
			say(update(ORBIT_UPDATE_BYTES, 1, 0));
	}));

	EXPECT_EQ(empty.wait().error().code(), ECONNRESET);
}

TEST_F(Hostile, UpdatesNobodyCanReceive)
{
	orbit::Orbit orbit = make_orbit();

	EXPECT_EQ(orbit.call({.time_limit = patience}, {}, [] {
		say(update(ORBIT_UPDATE_BYTES, 1, 8), &target, 8);
		pause();
	}).error().code(), ECONNRESET);
}

TEST_F(Hostile, FalseReturns)
{
	expect_end([] { say(ReturnMessage{Tell::returned, 0, 2, 9, 0}), pause(); });
	expect_end([] { say(ReturnMessage{Tell::ready, 0, 0, 0, 0}), pause(); });
	expect_end([] { say(Tell::returned), pause(); });
	expect_end([] { say(Tell::task), pause(); });
	expect_end([] { say(Tell{0}), pause(); });

	// It returns for itself, and then once more: the second is for no task, or the wrong one.
	orbit::Orbit orbit = make_orbit({.restart = true});

	EXPECT_EQ(orbit.call({}, [] {
		say(ReturnMessage{Tell::returned, 0, 1, 9, 0});
		return 8;
	}), 9);
	EXPECT_EQ(orbit.call({}, [] { return 7; }).value_or(7), 7);
	EXPECT_EQ(orbit.call({}, [] { return 6; }), 6);
}

// Descriptors that nobody asked for are closed.
TEST_F(Hostile, DescriptorsInMessages)
{
	orbit::Orbit orbit = make_orbit();
	const std::size_t before = open_descriptors();
	auto task = value_or_throw(orbit.call_async({}, [] {
		const MoreMessage nothing = {Tell::more, 1};
		std::vector<int> fds(200, 0);

		for (int i = 0; i < 20; i++)
			liborbit::tell(server_socket(), &nothing, sizeof(nothing), nullptr, 0, fds.data(),
				       fds.size(), 0);
	}));

	EXPECT_TRUE(task.wait());
	EXPECT_EQ(open_descriptors(), before + 1) << "the task's";
}

TEST_F(Hostile, RandomMessages)
{
	std::mt19937 random(1);

	for (int round = 0; round < 60; round++) {
		orbit::Orbit orbit = make_orbit();
		auto task = value_or_throw(orbit.call_async(
			{.time_limit = patience, .stream = round % 2 != 0}, pool_, [](unsigned seed) {
				std::mt19937 dice(seed);
				std::vector<std::uint32_t> words(4096);

				for (int i = 0; i < 200; i++) {
					for (std::uint32_t &word : words)
						word = dice();
					// Often something that is looked at further.
					words[0] = dice() % 10;
					words[1] = dice() % 5;
					words[2] = dice() % 2, words[3] = 0;
					words[6] = dice() % 256, words[7] = 0;
					words[8] = dice() % 3, words[9] = dice() % 3;
					if (send(server_socket(), words.data(), dice() % 300, MSG_NOSIGNAL) < 0)
						_exit(1);
				}
			}, static_cast<unsigned>(random())));

		for (int i = 0; i < 300; i++) {
			auto got = task.receive();

			if (!got)
				break;
			(void)got->apply(targets_, {.force = true});
		}
		(void)task.wait();
	}
}

// The pages that it shares with main, and all else that it can write to.
TEST_F(Hostile, ScribblesOverWhatItShares)
{
	orbit::Orbit orbit = make_orbit();
	const auto got = orbit.call({.time_limit = patience}, {}, [] {
		std::FILE *maps = std::fopen("/proc/self/maps", "r");
		char line[512];
		int found = 0;

		while (std::fgets(line, sizeof(line), maps)) {
			unsigned long start, end;
			char may[5];

			if (std::sscanf(line, "%lx-%lx %4s", &start, &end, may) != 3 || may[3] != 's')
				continue;
			// What is main's it cannot make writable for others either.
			if (may[1] == 'w')
				std::memset(reinterpret_cast<void *>(start), 0xff, end - start), found++;
			if (may[1] != 'w' && std::strstr(line, "orbit-pool"))
				found += 100;
			const std::string path = "/proc/self/map_files/" + std::string(line, std::strchr(line, ' '));
			const int fd = open(path.c_str(), O_RDWR);

			if (fd >= 0 && std::strstr(line, "orbit-shared") && !ftruncate(fd, 0))
				found += 1000; // main would get SIGBUS for it
		}
		return found;
	});

	EXPECT_EQ(got, 1);

	// The crash report is in there.
	const auto died = orbit.call({}, [] { std::raise(SIGSEGV); });

	ASSERT_FALSE(died);
	EXPECT_EQ(died.error().code(), ECONNRESET);
	EXPECT_EQ(died.error().signal(), SIGSEGV);
}

// An orbit that does not listen does not block main.
TEST_F(Hostile, Deaf)
{
	orbit::Orbit orbit = make_orbit({.restart = true});
	const std::vector<std::uint64_t> argument(ORBIT_MAX_ARG / sizeof(std::uint64_t), 1);
	const pid_t pid = pid_of(orbit);

	kill(pid, SIGSTOP); // between two tasks

	const auto start = std::chrono::steady_clock::now();
	orbit_call_options options{};

	options.size = sizeof(options);
	options.time_limit_ns = 100'000'000;
	EXPECT_EQ(orbit_call(
			  orbit.raw(), [](const void *, std::size_t) -> std::uint64_t { return 1; },
			  argument.data(), ORBIT_MAX_ARG, &options, nullptr),
		  -ETIMEDOUT);
	EXPECT_LT(std::chrono::steady_clock::now() - start, patience);
	EXPECT_EQ(orbit.call({}, [] { return 2; }), 2);
}

// One that talks all the time does not keep others from being served.
TEST_F(Hostile, Flood)
{
	orbit::Orbit loud = make_orbit(), quiet = make_orbit();
	auto task = value_or_throw(loud.call_async({.time_limit = 500ms}, {}, [] {
		const MoreMessage nothing = {Tell::more, 1};

		for (;;)
			say(nothing);
	}));

	for (int i = 0; i < 20; i++)
		EXPECT_EQ(quiet.call({}, [](int n) { return n; }, i), i);
	EXPECT_EQ(task.wait().error().code(), ETIMEDOUT);
}

TEST_F(Hostile, KillsItsForkServer)
{
	for (const bool restart : {false, true}) {
		orbit::Orbit orbit = make_orbit({.restart = restart});
		const auto got = orbit.call({.time_limit = patience}, {}, [] { return kill(getppid(), SIGKILL); });

		// It goes on as long as the process does.
		EXPECT_EQ(got, 0);
		EXPECT_EQ(orbit.call({}, [] { return 5; }), 5);
		EXPECT_EQ(orbit.call({}, [] { std::raise(SIGKILL); }).error().code(), ECONNRESET);
		EXPECT_EQ(orbit.call({}, [] { return 5; }).error().code(), ESHUTDOWN);
	}
}

// A fork server that is stopped tells nothing any more.
TEST_F(Hostile, StopsItsForkServer)
{
	orbit::Orbit orbit = make_orbit({.restart = true});
	const auto got = orbit.call({.time_limit = 200ms}, {}, [] {
		kill(getppid(), SIGSTOP);
		for (;;)
			pause();
	});

	EXPECT_EQ(got.error().code(), ETIMEDOUT);
	EXPECT_EQ(orbit.call({}, [] { return 5; }).error().code(), ESHUTDOWN);
}

// A child that it leaves behind, and that has its socket, cannot speak for it.
TEST_F(Hostile, LeavesAChildThatTalks)
{
	Pipe pipe;
	orbit::Orbit orbit = make_orbit({.keep_fds = {&pipe.write_end, 1}, .restart = true});
	const auto got = orbit.call({.time_limit = patience}, {}, [](int fd) {
		const MoreMessage nothing = {Tell::more, 1};

		if (fork())
			std::raise(SIGKILL);
		while (!liborbit::tell(server_socket(), &nothing, sizeof(nothing), nullptr, 0, nullptr, 0, 0))
			;
		_exit(write(fd, "e", 1) != 1);
	}, pipe.write_end);
	char byte = 0;

	EXPECT_EQ(got.error().signal(), SIGKILL);
	EXPECT_EQ(orbit.call({}, [] { return 5; }), 5);
	EXPECT_TRUE(pipe.get(byte)) << "it sees the end of its socket";
}

// Signals to all that it can reach: its own session.
TEST_F(Hostile, KillsItsGroup)
{
	orbit::Orbit orbit = make_orbit({.restart = true});

	for (int round = 0; round < 2; round++)
		EXPECT_EQ(orbit.call({}, [] { kill(0, SIGKILL), pause(); }).error().signal(), SIGKILL);
	EXPECT_EQ(orbit.call({}, [] { return 5; }), 5);
}

} // namespace
