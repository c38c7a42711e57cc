// SPDX-License-Identifier: MIT
//
// Promise 5: the only way back is a result. An update reaches memory when the main program
// applies it, and only if it is aimed at what the main program declared.
#include "../../liborbit/kernel/syscall.h"
#include "orbit_test.h"

#include <array>
#include <cstring>
#include <fcntl.h>
#include <numeric>
#include <string>
#include <sys/mman.h>
#include <vector>

namespace {

constexpr std::size_t pages = 8;

std::uint64_t declared[8], undeclared[8];

struct Row {
	std::int32_t key;
	double value;
};

constexpr orbit::Operation<std::int32_t, double> set_row{1};
constexpr orbit::Operation<> tick{2};
constexpr orbit::Operation<std::int32_t> unknown{99};

orbit::Targets make_targets()
{
	return value_or_throw(orbit::Targets::create());
}

template <class T> T must(orbit::expected<T> &&got)
{
	return value_or_throw(std::move(got));
}

class P5_Updates : public testing::Test {
protected:
	P5_Updates() : orbit_(make_orbit()), targets_(make_targets())
	{
		std::memset(declared, 0, sizeof(declared));
		std::memset(undeclared, 0, sizeof(undeclared));
		EXPECT_TRUE(targets_.add(declared));
	}

	orbit::Orbit orbit_;
	orbit::Targets targets_;
};

TEST_F(P5_Updates, ReachMemoryWhenTheyAreApplied)
{
	auto task = must(orbit_.call_async({}, [] {
		orbit::require(orbit::send(&declared[1], 11));
		orbit::require(orbit::send(&declared[2], 22));
		declared[1] = 99; // the orbit's own
		return 7;
	}));

	EXPECT_EQ(task.wait(), 7);
	EXPECT_EQ(declared[1], 0U);

	auto update = must(task.receive());

	EXPECT_EQ(update.kind(), ORBIT_UPDATE_BYTES);
	EXPECT_EQ(update.target(), reinterpret_cast<std::uintptr_t>(&declared[1]));
	EXPECT_EQ(update.bytes().size(), 8U);
	EXPECT_EQ(declared[1], 0U);
	EXPECT_EQ(must(update.apply(targets_)).applied, 1U);
	EXPECT_EQ(declared[1], 11U);
	EXPECT_EQ(declared[2], 0U);
	EXPECT_EQ(must(task.apply_all(targets_)).applied, 1U);
	EXPECT_EQ(declared[2], 22U);
	EXPECT_EQ(task.receive().error().code(), ENODATA);
	EXPECT_EQ(task.wait(), 7);
	EXPECT_EQ(targets_.refused(), 0U);
}

TEST_F(P5_Updates, TheOutcomeTellsHowMany)
{
	orbit_task *task = nullptr;
	orbit_outcome out{};

	out.size = sizeof(out);
	ASSERT_EQ(orbit_call_async(
			  orbit_.raw(),
			  [](const void *, std::size_t) -> std::uint64_t {
				  for (std::uint64_t i = 0; i < 5; i++)
					  orbit::require(orbit::send(&declared[i], i));
				  return 0;
			  },
			  nullptr, 0, nullptr, &task),
		  0);
	EXPECT_EQ(orbit_task_wait(task, 0, &out), 0);
	EXPECT_EQ(out.updates, 5U);
	orbit_task_destroy(task);
	EXPECT_EQ(must(orbit_.stat()).updates, 5U);
}

TEST_F(P5_Updates, OneSomeOrAll)
{
	auto task = must(orbit_.call_async({}, [] {
		for (std::uint64_t i = 0; i < 8; i++)
			orbit::require(orbit::send(&declared[i], 10 + i));
	}));
	std::size_t i = 0;

	auto updates = task.updates();

	for (const orbit::Update &update : updates)
		if (i++ % 2) {
			EXPECT_TRUE(update.apply(targets_));
		}
	EXPECT_TRUE(updates.complete());
	EXPECT_EQ(i, 8U);
	for (i = 0; i < 8; i++)
		EXPECT_EQ(declared[i], i % 2 ? 10 + i : 0);
}

TEST_F(P5_Updates, ComeInTheOrderInWhichTheyWereSent)
{
	auto task = must(orbit_.call_async({}, [] {
		for (std::uint64_t i = 1; i <= 1000; i++)
			if (i % 3)
				orbit::require(orbit::send(&declared[0], i));
			else
				orbit::require(tick.send());
	}));
	std::uint64_t i = 0;

	for (const orbit::Update &update : task.updates()) {
		std::uint64_t value = 0;

		if (++i % 3 == 0) {
			EXPECT_EQ(update.kind(), ORBIT_UPDATE_OPERATION);
			continue;
		}
		ASSERT_EQ(update.bytes().size(), sizeof(value));
		std::memcpy(&value, update.bytes().data(), sizeof(value));
		ASSERT_EQ(value, i);
	}
	EXPECT_EQ(i, 1000U);
}

// Lesson 8: an orbit cannot name its own target.
TEST_F(P5_Updates, UndeclaredTargetsAreRefused)
{
	static std::vector<std::string> messages;

	messages.clear();
	orbit_log_to([](void *, int, const char *text) { messages.push_back(text); }, nullptr);

	auto task = must(orbit_.call_async({}, [] {
		const std::array<std::byte, sizeof(declared) + 1> many{};

		orbit::require(orbit::send(&undeclared[0], 1));
		orbit::require(orbit::send(&declared[3], 3));
		orbit::require(orbit::send_bytes(&declared[0], many));			    // past the end
		orbit::require(orbit::send_bytes(&declared[7], std::span(many).first(9))); // partly
		orbit::require(orbit::send_bytes(reinterpret_cast<void *>(
						  reinterpret_cast<std::uintptr_t>(declared) - 1),
					  std::span(many).first(8)));
		orbit::require(orbit::send_bytes(nullptr, std::span(many).first(8)));
		orbit::require(orbit::send_bytes(reinterpret_cast<void *>(UINTPTR_MAX), std::span(many).first(8)));
		orbit::require(unknown.send(5));
	}));
	const orbit::Applied applied = must(task.apply_all(targets_));

	orbit_log_to(nullptr, nullptr);
	EXPECT_EQ(applied.applied, 1U);
	EXPECT_EQ(applied.refused, 7U);
	EXPECT_EQ(declared[3], 3U);
	EXPECT_EQ(std::accumulate(declared, std::end(declared), std::uint64_t{0}), 3U);
	EXPECT_EQ(undeclared[0], 0U);
	EXPECT_EQ(targets_.refused(), 7U);
	EXPECT_EQ(must(targets_.refusal()).kind, unsigned{ORBIT_UPDATE_OPERATION});
	EXPECT_EQ(must(targets_.refusal()).target, 99U);
	EXPECT_EQ(must(targets_.refusal(6)).target, reinterpret_cast<std::uintptr_t>(&undeclared[0]));
	EXPECT_EQ(must(targets_.refusal(6)).task, task.number());
	ASSERT_EQ(messages.size(), 7U);
	EXPECT_NE(messages[0].find("task 1 of orbit"), std::string::npos) << messages[0];
	EXPECT_EQ(task.wait().has_value(), true) << "the task itself is fine";
}

TEST_F(P5_Updates, Operations)
{
	std::vector<Row> rows;
	int ticks = 0;

	EXPECT_TRUE(targets_.add(set_row, [&](std::int32_t key, double value) {
		rows.push_back({key, value});
		return key < 0 ? -ERANGE : 0;
	}));
	EXPECT_TRUE(targets_.add(tick, [&] { ticks++; }));

	auto task = must(orbit_.call_async({}, [] {
		orbit::require(set_row.send(1, 0.5));
		orbit::require(tick.send());
		orbit::require(set_row.send(-1, 0));
		orbit::require(set_row.send(2, 1.5));
	}));
	const orbit::Applied applied = must(task.apply_all(targets_));

	EXPECT_EQ(applied.applied, 3U);
	EXPECT_EQ(applied.failed, 1U);
	EXPECT_EQ(applied.refused, 0U);
	EXPECT_EQ(ticks, 1);
	ASSERT_EQ(rows.size(), 3U);
	EXPECT_EQ(rows[0].value, 0.5);
	EXPECT_EQ(rows[2].key, 2);
}

TEST_F(P5_Updates, OperationsWithArgumentsOfTheWrongSize)
{
	int calls = 0;

	EXPECT_TRUE(targets_.add(set_row, [&](std::int32_t, double) { calls++; }));

	auto task = must(orbit_.call_async({}, [] {
		const char bytes[64] = {};

		for (std::size_t size : {0, 1, 8, 15, 17, 64})
			if (orbit_send_operation(set_row.id, bytes, size))
				_exit(1);
	}));

	EXPECT_EQ(must(task.apply_all(targets_)).refused, 6U);
	EXPECT_EQ(calls, 0);
}

// Around the library: anything may be in a record.
TEST_F(P5_Updates, MadeUpRecordsAreRefused)
{
	KERNEL_BACKEND_ONLY("there are no system calls; hostile.cc is about this");

	auto task = must(orbit_.call_async({}, [] {
		orbit_send_args args{};
		const std::uint64_t value = 5;
		int server = -1;

		for (int fd = 3; fd < 64 && server < 0; fd++)
			if (liborbit::sys_send(fd, &args) != -EBADF)
				server = fd;
		args.target = reinterpret_cast<std::uintptr_t>(&declared[0]);
		args.data = reinterpret_cast<std::uintptr_t>(&value);
		args.length = sizeof(value);
		for (std::uint32_t type : {0U, 3U, 4U, 1000U, UINT32_MAX}) {
			args.type = type;
			if (liborbit::sys_send(server, &args))
				_exit(1);
		}
	}));
	std::uint64_t refused = 0;

	for (const orbit::Update &update : task.updates()) {
		EXPECT_EQ(update.kind(), ORBIT_UPDATE_UNKNOWN);
		EXPECT_EQ(update.apply(targets_).error().code(), EACCES);
		refused++;
	}
	EXPECT_GE(refused, 5U);
	EXPECT_EQ(targets_.refused(), refused);
	EXPECT_EQ(declared[0], 0U);
}

TEST_F(P5_Updates, AnOrbitThatDiesLeavesNoneOfThem)
{
	auto task = must(orbit_.call_async({}, [] {
		orbit::require(orbit::send(&declared[0], 1));
		orbit::require(orbit::send(&declared[1], 2));
		std::raise(SIGKILL);
	}));

	EXPECT_EQ(task.receive().error().code(), ENODATA);
	EXPECT_EQ(must(task.apply_all(targets_)).applied, 0U);
	EXPECT_EQ(task.wait().error().code(), ECONNRESET);
	EXPECT_EQ(declared[0] + declared[1], 0U);
}

TEST_F(P5_Updates, NoneBeforeTheTaskHasReturned)
{
	Pipe sent, go;
	const int keep[] = {sent.write_end, go.read_end};
	orbit::Orbit orbit = make_orbit({.keep_fds = keep});

	for (const bool stream : {false, true}) {
		auto task = must(orbit.call_async({.stream = stream}, {}, [](int tell, int wait) {
			char byte = 's';

			orbit::require(orbit::send(&declared[0], 1));
			if (write(tell, &byte, 1) != 1 || read(wait, &byte, 1) != 1)
				_exit(1);
			orbit::require(orbit::send(&declared[1], 2));
		}, sent.write_end, go.read_end));
		pollfd fd = {task.fd(), POLLIN, 0};
		char byte;

		ASSERT_TRUE(sent.get(byte));
		if (stream) {
			EXPECT_EQ(poll(&fd, 1, 20'000), 1);
			EXPECT_EQ(fd.revents, POLLIN);
			EXPECT_TRUE(task.receive());
		} else {
			EXPECT_EQ(poll(&fd, 1, 20), 0);
			EXPECT_EQ(task.receive(20ms).error().code(), ETIME);
		}
		EXPECT_EQ(task.receive(0ms).error().code(), ETIME);
		go.put('g');
		EXPECT_TRUE(task.receive());
		EXPECT_EQ(task.receive().has_value(), !stream);
		EXPECT_EQ(task.receive().error().code(), ENODATA);
	}
}

// What has been streamed has been streamed; the rest is dropped.
TEST_F(P5_Updates, DyingInAStream)
{
	Pipe go;
	orbit::Orbit orbit = make_orbit({.keep_fds = std::span(&go.read_end, 1)});
	auto task = must(orbit.call_async({.stream = true}, {}, [](int wait) {
		char byte;

		orbit::require(orbit::send(&declared[0], 1));
		if (read(wait, &byte, 1) != 1)
			_exit(1);
		orbit::require(orbit::send(&declared[1], 2));
		std::raise(SIGKILL);
	}, go.read_end));

	auto update = must(task.receive());

	EXPECT_TRUE(update.apply(targets_));
	go.put('g');
	EXPECT_EQ(task.wait().error().code(), ECONNRESET);
	EXPECT_EQ(task.receive().error().code(), ENODATA);
	EXPECT_EQ(declared[0], 1U);
	EXPECT_EQ(declared[1], 0U);
}

TEST_F(P5_Updates, Sizes)
{
	constexpr std::size_t most = ORBIT_MAX_UPDATE;
	std::vector<std::byte> memory(most);
	auto task = must(orbit_.call_async({}, [](std::byte *target) {
		const std::vector<std::byte> data(most + 1, std::byte{7});

		if (orbit_send_bytes(target, data.data(), most + 1) != -E2BIG ||
		    orbit_send_bytes(target, reinterpret_cast<void *>(1), 8) != -EFAULT)
			_exit(1);
		for (std::size_t size : {std::size_t{0}, std::size_t{1}, page, 100 * page + 1, most})
			orbit::require(orbit::send_bytes(target, std::span(data).first(size)));
	}, memory.data()));

	EXPECT_TRUE(targets_.add(memory));
	for (std::size_t size : {std::size_t{0}, std::size_t{1}, page, 100 * page + 1, most}) {
		auto update = must(task.receive());

		EXPECT_EQ(update.bytes().size(), size);
		EXPECT_TRUE(update.apply(targets_));
	}
	EXPECT_EQ(memory.front(), std::byte{7});
	EXPECT_EQ(memory.back(), std::byte{7});
}

TEST_F(P5_Updates, TheLimitOfATask)
{
	orbit::Orbit orbit = make_orbit({.update_limit = 10 * sizeof(std::uint64_t)});

	// What one task sent is not held against the next.
	for (int round = 0; round < 2; round++) {
		auto task = must(orbit.call_async({}, [] {
			int sent = 0;

			while (orbit::send(&declared[0], 1))
				sent++;
			return orbit::send(&declared[0], 1).error().code() == ENOSPC ? sent : -1;
		}));

		EXPECT_EQ(task.wait(), 10);
		EXPECT_EQ(must(task.apply_all(targets_)).applied, 10U);
	}
}

// However many there are: a task knows of each that will not arrive.
TEST_F(P5_Updates, EachThatIsSentArrives)
{
	constexpr int count = 70'000;
	auto task = must(orbit_.call_async({}, [] {
		int sent = 0;

		for (int i = 0; i < count; i++) {
			const auto done = orbit::send(&declared[0], std::uint64_t{1});

			if (!done && done.error().code() != ENOSPC)
				return -1;
			sent += done ? 1 : 0;
		}
		return sent;
	}));
	const int sent = must(task.wait());

	EXPECT_EQ(must(task.apply_all(targets_)).applied, static_cast<unsigned>(sent));
	EXPECT_EQ(sent, is_kernel_backend() ? 65'536 : count);
}

TEST_F(P5_Updates, NobodyToReceiveThem)
{
	EXPECT_EQ(orbit_.call({}, [] { return orbit_send_bytes(declared, "x", 1); }), -EPIPE);
	EXPECT_EQ(orbit_.call({}, [] {
		std::thread other([] {
			if (orbit_send_bytes(declared, "x", 1) != -EPERM)
				_exit(1);
		});

		other.join();
		return 3;
	}), 3);
}

// ---- Pages ----------------------------------------------------------------------------

class P5_Pages : public P5_Updates {
protected:
	P5_Pages() : pool_(make_pool(pages * page))
	{
		for (std::size_t i = 0; i < pages; i++)
			word(i) = i;
	}

	std::uint64_t &word(std::size_t i) const { return *pool_.as<std::uint64_t>(i * page); }

	// A task that writes to the pages of a set, and hands over what it wrote.
	orbit::Task<void> write_pages(const orbit::Pools &pools, unsigned set)
	{
		return must(orbit_.call_async(pools, [](std::byte *data, unsigned which) {
			for (std::size_t i = 0; i < pages; i++)
				if (which & (1U << i))
					*reinterpret_cast<std::uint64_t *>(data + i * page) = 100 + i;
			orbit::require(orbit::send_pages({data, pages * page}));
			// It has the snapshot there again.
			for (std::size_t i = 0; i < pages; i++)
				if (*reinterpret_cast<std::uint64_t *>(data + i * page) != i)
					_exit(1);
			*reinterpret_cast<std::uint64_t *>(data) = 666;
		}, pool_.data(), set));
	}
	orbit::Task<void> write_pages(unsigned set) { return write_pages(pool_, set); }

	orbit::Pool pool_;
};

TEST_F(P5_Pages, AreAppliedWhereTheyAreFrom)
{
	EXPECT_TRUE(targets_.add(pool_));

	auto task = write_pages(0b01101100);
	auto update = must(task.receive());

	EXPECT_EQ(update.kind(), ORBIT_UPDATE_PAGES);
	ASSERT_EQ(update.pages().size(), 2U);
	EXPECT_EQ(update.pages()[0].offset, 2 * page);
	EXPECT_EQ(update.pages()[0].length, 2 * page);
	EXPECT_EQ(update.pages()[1].offset, 5 * page);
	EXPECT_EQ(word(2), 2U);

	const orbit::Applied applied = must(update.apply(targets_));

	EXPECT_EQ(applied.pages, 4U);
	EXPECT_EQ(applied.conflicts, 0U);
	for (std::size_t i = 0; i < pages; i++)
		EXPECT_EQ(word(i), 0b01101100 & (1U << i) ? 100 + i : i) << i;
	// The main program's memory as ever: it can write, and the orbit sees it.
	word(3) = 7;
	EXPECT_EQ(orbit_.call(pool_, [](const std::uint64_t *p) { return *p; }, &word(3)), 7U);
	EXPECT_EQ(orbit_.call(pool_, [](const std::uint64_t *p) { return *p; }, &word(2)), 102U);
}

// Lesson 6: pages that the orbit did not touch, and those that main has written to since,
// stay as they are.
TEST_F(P5_Pages, ConflictsAreLeftOut)
{
	EXPECT_TRUE(targets_.add(pool_));

	auto task = write_pages(0b00000111);

	EXPECT_TRUE(task.wait());
	word(1) = 50;
	word(5) = 55;

	auto update = must(task.receive());
	orbit::Applied applied = must(update.apply(targets_));

	EXPECT_EQ(applied.pages, 2U);
	EXPECT_EQ(applied.conflicts, 1U);
	EXPECT_EQ(word(0), 100U);
	EXPECT_EQ(word(1), 50U);
	EXPECT_EQ(word(2), 102U);
	EXPECT_EQ(word(5), 55U);

	applied = must(update.apply(targets_, {.force = true}));
	EXPECT_EQ(applied.pages, 1U);
	EXPECT_EQ(word(1), 101U);
}

TEST_F(P5_Pages, OnlyWhereMainAcceptsThem)
{
	EXPECT_TRUE(targets_.add(pool_.span().subspan(2 * page, 3 * page)));

	auto task = write_pages(0b00111100);
	auto update = must(task.receive());

	EXPECT_EQ(update.apply(targets_).error().code(), EACCES);
	EXPECT_EQ(word(2), 2U) << "nothing of it, if not all";
	EXPECT_EQ(must(targets_.refusal()).kind, unsigned{ORBIT_UPDATE_PAGES});
	EXPECT_EQ(must(targets_.refusal()).task, task.number());

	const orbit::Applied applied = must(update.apply(targets_, {.from = 2 * page, .length = 3 * page}));

	EXPECT_EQ(applied.pages, 3U);
	EXPECT_EQ(word(4), 104U);
	EXPECT_EQ(word(5), 5U);
}

TEST_F(P5_Pages, IntoAnotherPool)
{
	const orbit::Pool other = make_pool(pages * page);

	EXPECT_TRUE(targets_.add(other));

	auto task = write_pages(0b00110000);
	auto update = must(task.receive());

	EXPECT_EQ(must(update.apply(targets_, {.from = 4 * page, .into = &other, .to = page})).pages, 2U);
	EXPECT_EQ(word(4), 4U);
	EXPECT_EQ(*other.as<std::uint64_t>(page), 104U);
	EXPECT_EQ(*other.as<std::uint64_t>(2 * page), 105U);
	EXPECT_EQ(*other.as<std::uint64_t>(0), 0U);
}

// Lesson 7: pages that were handed over are out of the orbit's reach.
TEST_F(P5_Pages, AWholeScratchMoves)
{
	orbit::Pool scratch = make_pool(64 * page);
	Pipe sent, go;
	const int keep[] = {sent.write_end, go.read_end};
	orbit::Orbit orbit = make_orbit({.keep_fds = keep});

	EXPECT_TRUE(targets_.add(scratch));

	auto task = must(orbit.call_async({.stream = true}, {{scratch, orbit::Mode::move}},
					  [](std::byte *data, int tell, int wait) {
		char byte = 's';

		std::memset(data, 1, 64 * page);
		orbit::require(orbit::send_pages({data, 64 * page}));
		if (write(tell, &byte, 1) != 1 || read(wait, &byte, 1) != 1)
			_exit(1);
		std::memset(data, 2, 64 * page);
	}, scratch.data(), sent.write_end, go.read_end));
	char byte;

	ASSERT_TRUE(sent.get(byte));

	auto update = must(task.receive());

	EXPECT_EQ(must(update.apply(targets_)).pages, 64U);
	EXPECT_EQ(scratch.data()[64 * page - 1], std::byte{1});
	go.put('g');
	EXPECT_TRUE(task.wait());
	EXPECT_EQ(scratch.data()[0], std::byte{1});
	EXPECT_EQ(scratch.data()[64 * page - 1], std::byte{1});
}

TEST_F(P5_Pages, OnlyOfPoolsThatTheTaskSees)
{
	const orbit::Pool other = make_pool(page);

	EXPECT_TRUE(orbit_.call(other, [] {}));

	auto task = must(orbit_.call_async({{pool_, page, 2 * page}}, [](std::byte *data, std::byte *elsewhere) {
		static char own[2 * page];
		const auto own_page =
			reinterpret_cast<char *>((reinterpret_cast<std::uintptr_t>(own) + page - 1) & -page);
		const struct {
			void *start;
			std::size_t size;
			int err;
		} cases[] = {
			{elsewhere, page, -ENXIO},	    {own_page, page, -ENXIO},
			{nullptr, page, -ENXIO},	    {data + page, 3 * page, -ENXIO},
			{data, page, -ENXIO},		    {data + 3 * page, page, -ENXIO},
			{data + page + 1, page, -EINVAL},   {data + page, 1, -EINVAL},
			{data + page, SIZE_MAX & -page, -ENXIO}, {data + page, 2 * page, 0},
		};
		int wrong = 0;

		for (const auto &test : cases)
			wrong = wrong * 2 + (orbit_send_pages(test.start, test.size) != test.err);
		return wrong;
	}, pool_.data(), other.data()));

	EXPECT_EQ(task.wait(), 0);
}

TEST_F(P5_Pages, AnOrbitThatDiesHandsOverNothing)
{
	EXPECT_TRUE(targets_.add(pool_));

	auto task = must(orbit_.call_async(pool_, [](std::byte *data) {
		std::memset(data, 1, pages * page);
		orbit::require(orbit::send_pages({data, pages * page}));
		std::raise(SIGSEGV);
	}, pool_.data()));

	EXPECT_EQ(must(task.apply_all(targets_)).applied, 0U);
	EXPECT_EQ(task.wait().error().signal(), SIGSEGV);
	for (std::size_t i = 0; i < pages; i++)
		EXPECT_EQ(word(i), i);
}

TEST_F(P5_Pages, ThePagesOfAnUpdateGoWithIt)
{
	EXPECT_TRUE(targets_.add(pool_));
	EXPECT_TRUE(targets_.add(undeclared)); // so that the second one is fine

	auto task = must(orbit_.call_async(pool_, [](std::uint64_t *data) {
		*data = 5;
		orbit::require(orbit::send_pages({reinterpret_cast<std::byte *>(data), page}));
		orbit::require(orbit::send(&undeclared[0], 6));
	}, &word(0)));
	const orbit::Update first = must(task.receive());
	const orbit::Update second = must(task.receive());

	EXPECT_EQ(first.apply(targets_).error().code(), EINVAL) << "it is too late";
	EXPECT_EQ(word(0), 0U);
	EXPECT_TRUE(second.apply(targets_));
	EXPECT_EQ(undeclared[0], 6U);
}

} // namespace
