// SPDX-License-Identifier: MIT
//
// Scans: each unit of a snapshot once, whatever main overwrites meanwhile, and what is done with is gone.
// ORBIT_SCAN_SCHEDULES and ORBIT_SCAN_SEED: how many random schedules, and which.
#include "orbit_test.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <cstring>
#include <fstream>
#include <memory>
#include <mutex>
#include <numeric>
#include <optional>
#include <random>
#include <vector>

namespace {

using Bytes = std::span<const std::byte>;

// Whether a read of what is done with raises a signal: everywhere but on a kernel that knows no scans.
bool hides()
{
	return !is_kernel_backend() || has_feature(ORBIT_FEATURE_SCAN);
}

std::uint64_t mix(std::uint64_t x)
{
	x ^= x >> 33;
	x *= 0xff51afd7ed558ccdULL;
	x ^= x >> 33;
	x *= 0xc4ceb9fe1a85ec53ULL;
	return x ^ x >> 33;
}

// Of whole pages. The order of pages makes no difference, where they are does.
std::uint64_t digest(Bytes bytes)
{
	std::uint64_t sum = 0;

	for (std::size_t at = 0; at < bytes.size(); at += page) {
		std::uint64_t of_page = mix(reinterpret_cast<std::uintptr_t>(bytes.data() + at));
		std::uint64_t word;

		for (std::size_t i = 0; i < page; i += sizeof(word)) {
			std::memcpy(&word, bytes.data() + at + i, sizeof(word));
			of_page = mix(of_page ^ word);
		}
		sum += of_page;
	}
	return sum;
}

void fill(const orbit::Pool &pool, std::uint64_t seed)
{
	for (std::size_t at = 0; at < pool.size(); at += sizeof(seed)) {
		seed = mix(seed + at);
		std::memcpy(pool.data() + at, &seed, sizeof(seed));
	}
}

// What a scan has seen, for a task to send.
struct Seen {
	std::uint64_t digest, units, overtaken, twice, missed;
	int error;
};

// Scans pieces and looks whether each page comes once.
Seen scan_all(std::span<const orbit::ScanRange> pieces, std::span<const Bytes> where, std::size_t unit, unsigned pause)
{
	Seen seen{};
	std::vector<std::vector<unsigned char>> times;

	for (const Bytes &piece : where)
		times.emplace_back(piece.size() / page);

	const auto done = orbit::scan(
		pieces,
		[&](Bytes bytes) {
			for (std::size_t i = 0; i < where.size(); i++)
				for (std::size_t at = 0; at < bytes.size(); at += page)
					if (bytes.data() + at >= where[i].data() &&
					    bytes.data() + at < where[i].data() + where[i].size())
						seen.twice +=
							times[i][static_cast<std::size_t>(
									 bytes.data() + at - where[i].data()) /
								 page]++ != 0;
			seen.digest += digest(bytes);
			if (pause && ++seen.units % pause == 0)
				std::this_thread::sleep_for(100us);
		},
		{.unit = unit});

	for (const auto &piece : times)
		seen.missed += static_cast<std::uint64_t>(std::ranges::count(piece, 0));
	seen.error = done ? 0 : done.error().code();
	seen.units = done ? done->units : 0;
	seen.overtaken = done ? done->overtaken : 0;
	return seen;
}

Seen scan_one(std::span<std::byte> range, std::size_t unit)
{
	const orbit::ScanRange piece(range);
	const Bytes where(range);

	return scan_all({&piece, 1}, {&where, 1}, unit, 0);
}

TEST(Scan, SeesEachUnitOnceInOrder)
{
	const orbit::Pool pool = make_pool(300 * page);
	orbit::Orbit orbit = make_orbit();

	fill(pool, 1);

	const auto in_order = orbit.call(
		pool,
		[](std::span<std::byte> range) {
			const std::byte *next = range.data();
			bool right = true;
			const auto done = orbit::scan(range, [&](Bytes bytes) {
				right = right && bytes.data() == next && bytes.size() == page;
				next += page;
			});

			return right && done && done->units == 300 && done->overtaken == 0 &&
			       next == range.data() + range.size();
		},
		pool.span());

	EXPECT_EQ(in_order, true);

	const auto seen = value_or_throw(orbit.call(pool, scan_one, pool.span(), page));

	EXPECT_EQ(seen.digest, digest(pool.span()));
	EXPECT_EQ(seen.twice + seen.missed, 0U);
}

TEST(Scan, UnitsOfSeveralPagesTheLastShorter)
{
	const orbit::Pool pool = make_pool(10 * page);
	orbit::Orbit orbit = make_orbit();

	fill(pool, 2);
	for (const std::size_t pages : {1U, 2U, 3U, 4U, 10U, 11U, 1000U}) {
		const auto seen = value_or_throw(orbit.call(pool, scan_one, pool.span(), pages * page));

		EXPECT_EQ(seen.units, (10 + pages - 1) / pages);
		EXPECT_EQ(seen.digest, digest(pool.span()));
		EXPECT_EQ(seen.twice + seen.missed, 0U);
	}
}

TEST(Scan, SeesWhatTheTaskHasWritten)
{
	const orbit::Pool pool = make_pool(4 * page);
	orbit::Orbit orbit = make_orbit();
	const auto sum = [](std::span<std::byte> range, bool write) {
		int total = 0;

		if (write)
			range[2 * page] = std::byte{5};
		orbit::require(orbit::scan(range, [&](Bytes bytes) { total += std::to_integer<int>(bytes[0]); })
				       .map([](auto) {}));
		return total;
	};

	pool.data()[0] = std::byte{1};
	EXPECT_EQ(orbit.call(pool, sum, pool.span(), true), 6);
	EXPECT_EQ(orbit.call(pool, sum, pool.span(), false), 1);
	EXPECT_EQ(pool.data()[2 * page], std::byte{0});
}

TEST(Scan, ThePoolIsWholeInTheNextTask)
{
	const orbit::Pool pool = make_pool(64 * page);
	orbit::Orbit orbit = make_orbit();
	const auto first_bytes = [](std::span<std::byte> range) {
		int total = 0;

		for (std::size_t at = 0; at < range.size(); at += page) {
			total += std::to_integer<int>(range[at]);
			range[at] = std::byte{77}; // and writable
		}
		return total;
	};

	for (int round = 1; round < 5; round++) {
		for (std::size_t at = 0; at < pool.size(); at += page)
			pool.data()[at] = std::byte(round);

		const auto seen = value_or_throw(orbit.call(pool, scan_one, pool.span(), 3 * page));

		EXPECT_EQ(seen.digest, digest(pool.span()));
		EXPECT_EQ(seen.missed, 0U);
		EXPECT_EQ(orbit.call(pool, first_bytes, pool.span()), 64 * round);
	}
}

TEST(Scan, WhatIsDoneWithRaisesSIGBUS)
{
	const orbit::Pool pool = make_pool(8 * page), other = make_pool(page);
	orbit::Orbit orbit = make_orbit({.restart = true});

	fill(pool, 3);
	for (const bool write : {false, true}) {
		const auto ended = orbit.call(
			{pool, other},
			[](std::span<std::byte> range, volatile std::byte *still, bool writes) {
				if (!orbit::scan(range.subspan(page, 4 * page), [](Bytes) {}))
					return 1;
				*still = range[0];
				*still = range[5 * page];
				if (writes)
					range[3 * page + 7] = std::byte{1};
				else
					*still = *(volatile std::byte *)&range[3 * page + 7];
				return 0;
			},
			pool.span(), other.data(), write);

		if (!hides()) {
			EXPECT_EQ(ended, 0);
			continue;
		}
		ASSERT_FALSE(ended);
		EXPECT_EQ(ended.error().signal(), SIGBUS);
		EXPECT_EQ(ended.error().fault_address(),
			  reinterpret_cast<std::uintptr_t>(pool.data() + 3 * page + 7));
		EXPECT_NE(ended.error().message().find("SIGBUS"), std::string::npos) << ended.error().message();
	}

	const auto seen = value_or_throw(orbit.call(pool, scan_one, pool.span(), page));

	EXPECT_EQ(seen.digest, digest(pool.span()));
}

TEST(Scan, ACallbackThatReadsWhatItIsDoneWithGetsSIGBUS)
{
	// More than is told at once.
	const orbit::Pool pool = make_pool(std::size_t{4096} * page);
	orbit::Orbit orbit = make_orbit();
	const auto ended = orbit.call(
		pool,
		[](std::span<std::byte> range) {
			int total = 0;

			orbit::scan(range, [&](Bytes) { total += *(volatile std::byte *)range.data() == std::byte{}; });
			return total;
		},
		pool.span());

	if (!hides()) {
		EXPECT_EQ(ended, 4096);
		return;
	}
	ASSERT_FALSE(ended);
	EXPECT_EQ(ended.error().signal(), SIGBUS);
	EXPECT_EQ(ended.error().fault_address(), reinterpret_cast<std::uintptr_t>(pool.data()));
}

TEST(Scan, WhatIsKeptStaysReadable)
{
	const orbit::Pool pool = make_pool(64 * page);
	orbit::Orbit orbit = make_orbit();

	fill(pool, 4);

	const auto right = orbit.call(
		pool,
		[](std::span<std::byte> range, std::byte value) {
			// A byte, a part that crosses units, and something else.
			const orbit::ScanRange keep[] = {range.subspan(5 * page + 17, 1),
							 range.subspan(19 * page, 3 * page),
							 range.subspan(64 * page, 0)};
			std::uint64_t sum = 0, units = 0;
			const auto done = orbit::scan(
				range,
				[&](Bytes bytes) {
					sum += digest(bytes);
					units += range[5 * page + 17] == value;
				},
				{.unit = 2 * page, .keep = keep});
			const std::uint64_t kept = digest(range.subspan(4 * page, 2 * page)) +
						   digest(range.subspan(18 * page, 4 * page));

			return done && units == 32 ? std::array{sum, kept} : std::array<std::uint64_t, 2>{};
		},
		pool.span(), pool.data()[5 * page + 17]);

	ASSERT_TRUE(right) << right.error().message();
	EXPECT_EQ((*right)[0], digest(pool.span()));
	EXPECT_EQ((*right)[1],
		  digest(pool.span().subspan(4 * page, 2 * page)) + digest(pool.span().subspan(18 * page, 4 * page)));
}

TEST(Scan, TheFunctionCanEndItAndTheRestBeScanned)
{
	const orbit::Pool pool = make_pool(100 * page);
	orbit::Orbit orbit = make_orbit();

	fill(pool, 5);

	const auto sum = orbit.call(
		pool,
		[](std::span<std::byte> range) {
			std::uint64_t total = 0;
			int calls = 0;
			const auto ended = orbit::scan(range, [&](Bytes bytes) {
				total += digest(bytes);
				return ++calls < 37;
			});

			if (ended || ended.error().code() != ECANCELED || calls != 37)
				return std::uint64_t{1};

			const auto again = orbit::scan(range, [](Bytes) {});
			const auto last = orbit::scan(range.subspan(36 * page, page), [](Bytes) {});

			if (again || again.error().code() != EALREADY || last || last.error().code() != EALREADY)
				return std::uint64_t{2};
			try {
				orbit::scan(range.subspan(37 * page, 10 * page), [&](Bytes bytes) {
					total += digest(bytes);
					if (++calls == 40)
						throw 7;
				});
				return std::uint64_t{3};
			} catch (int thrown) {
				if (thrown != 7 || calls != 40)
					return std::uint64_t{4};
			}
			if (!orbit::scan(range.subspan(40 * page), [&](Bytes bytes) { total += digest(bytes); }))
				return std::uint64_t{5};
			return total;
		},
		pool.span());

	EXPECT_EQ(sum, digest(pool.span()));
}

TEST(Scan, StepByStep)
{
	const orbit::Pool pool = make_pool(2000 * page);
	orbit::Orbit orbit = make_orbit();

	fill(pool, 6);

	const auto sum = orbit.call(
		pool,
		[](std::span<std::byte> range) {
			std::uint64_t total = 0;

			for (std::size_t at = 0; at < range.size(); at += page) {
				// Forwards, then backwards.
				const std::size_t from = at < range.size() / 2 ? at : range.size() * 3 / 2 - page - at;

				if (!orbit::scan(range.subspan(from, page), [&](Bytes bytes) { total += digest(bytes); }))
					return std::uint64_t{0};
			}
			return total;
		},
		pool.span());

	EXPECT_EQ(sum, digest(pool.span()));
}

// ---- Bad input

int count_units(void *user, const void *, std::size_t)
{
	++*static_cast<int *>(user);
	return 0;
}

// In a task: the error of a call, and whether anything was called.
int try_scan(std::vector<orbit_range> ranges, const orbit_scan_options *options = nullptr, orbit_scanned *out = nullptr)
{
	int calls = 0;
	const int err = orbit_scan(ranges.data(), ranges.size(), count_units, &calls, options, out);

	return calls ? 1000 + calls : -err;
}

struct Wrong {
	int place, got;
};

Wrong give_bad_input(std::span<std::byte> range, std::span<std::byte> other, std::span<std::byte> unseen)
{
	std::byte *const at = range.data();
	alignas(page) static std::byte own[page];
	orbit_scan_options options{};
	orbit_scanned out{};
	int place = 0, got = 0;
	const auto expect = [&](int error, int found) {
		place++;
		if (error != found && !got)
			got = place * 10000 + found;
	};
	const auto options_of = [](auto... set) {
		orbit_scan_options made{};

		made.size = sizeof(made);
		(set(made), ...);
		return made;
	};

	expect(EINVAL, try_scan({}));
	expect(EINVAL, -orbit_scan(nullptr, 1, count_units, &got, nullptr, nullptr));
	{
		const orbit_range one{at, page};

		expect(EINVAL, -orbit_scan(&one, 1, nullptr, nullptr, nullptr, nullptr));
		expect(EINVAL, -orbit_scan(&one, SIZE_MAX, count_units, &got, nullptr, nullptr));
	}
	expect(EINVAL, try_scan({{at, 0}}));
	expect(EINVAL, try_scan({{at + 1, page}}));
	expect(EINVAL, try_scan({{at, page + 8}}));
	expect(EINVAL, try_scan({{at, SIZE_MAX - page + 1}}));
	expect(EINVAL, try_scan({{at, 2 * page}, {at + page, page}}));
	expect(EINVAL, try_scan({{at + page, page}, {at + 2 * page, page}, {at, 2 * page}}));
	options = options_of([](auto &o) { o.unit = page + 1; });
	expect(EINVAL, try_scan({{at, page}}, &options));
	options = options_of([](auto &o) { o.flags = 1; });
	expect(EINVAL, try_scan({{at, page}}, &options));
	options = options_of([](auto &o) { o.nr_keep = 1; });
	expect(EINVAL, try_scan({{at, page}}, &options));
	options = options_of([](auto &o) { o.size = 3; });
	expect(EINVAL, try_scan({{at, page}}, &options));
	options = options_of([](auto &o) { o.size = 1 << 20; });
	expect(E2BIG, try_scan({{at, page}}, &options));
	out.size = 2;
	expect(EINVAL, try_scan({{at, page}}, nullptr, &out));
	if (hides()) {
		expect(ENXIO, try_scan({{own, page}}));
		expect(ENXIO, try_scan({{nullptr, page}}));
		expect(ENXIO, try_scan({{unseen.data(), page}}));
		expect(ENXIO, try_scan({{at, range.size() + page}}));
		expect(ENXIO, try_scan({{at - page, 2 * page}}));
		expect(ENXIO, try_scan({{at, page}, {unseen.data(), page}}));
		expect(ENXIO, try_scan({{other.data(), page}, {at, page}, {own, page}}));
	}

	// Nothing has changed.
	expect(1000 + 3, try_scan({{at, page}, {other.data(), page}, {at + page, page}}));

	expect(EALREADY, try_scan({{at, page}}));
	expect(EALREADY, try_scan({{at + 2 * page, 2 * page}, {other.data(), page}}));
	expect(EALREADY, try_scan({{at + page, 3 * page}}));
	// A scan in a scan; a child.
	orbit::require(orbit::scan(range.subspan(2 * page, page), [&](Bytes) {
			       expect(EBUSY, try_scan({{at + 3 * page, page}}));
		       }).map([](auto) {}));
	const pid_t child = fork();
	int status = -1;

	if (!child)
		_exit(try_scan({{at + 3 * page, page}}));
	waitpid(child, &status, 0);
	expect(EPERM, WEXITSTATUS(status));
	expect(1000 + 1, try_scan({{at + 3 * page, page}}));
	return {place, got};
}

TEST(Scan, BadInputIsRefusedAndChangesNothing)
{
	// Holes are between pools.
	const orbit::Pool before = make_pool(page), pool = make_pool(8 * page), other = make_pool(page);
	const orbit::Pool unseen = make_pool(page);
	orbit::Orbit orbit = make_orbit();

	for (int round = 0; round < 2; round++) {
		const auto wrong = orbit.call({{pool, 0, 5 * page}, other}, give_bad_input, pool.span().first(5 * page),
					      other.span(), unseen.span());

		ASSERT_TRUE(wrong) << wrong.error().message();
		EXPECT_EQ(wrong->got, 0);
		EXPECT_GE(wrong->place, 21);
	}

	// Outside of a task.
	EXPECT_EQ(try_scan({{pool.data(), page}}), EPERM);
	EXPECT_EQ(pool.data()[0], std::byte{0});

	const auto scanned = orbit::scan(pool.span(), [](Bytes) {});

	ASSERT_FALSE(scanned);
	EXPECT_EQ(scanned.error().code(), EPERM);
	EXPECT_NE(scanned.error().message().find("thread that runs a task"), std::string::npos)
		<< scanned.error().message();
}

TEST(Scan, OnlyTheTasksThreadCanScan)
{
	const orbit::Pool pool = make_pool(page);
	orbit::Orbit orbit = make_orbit();
	const auto errors = orbit.call(
		pool,
		[](std::byte *at) {
			std::array<int, 2> found{};

			std::thread([&] { found[0] = try_scan({{at, page}}); }).join();
			found[1] = try_scan({{at, page}});
			return found;
		},
		pool.data());

	ASSERT_TRUE(errors) << errors.error().message();
	EXPECT_EQ((*errors)[0], EPERM);
	EXPECT_EQ((*errors)[1], 1001);
}

// ---- Queries

struct Totals {
	std::uint64_t sum, units, point;
};

TEST(Scan, AQueryScansSomeAndKeepsSome)
{
	const orbit::Pool table = make_pool(50 * page), index = make_pool(3 * page);
	orbit::Orbit orbit = make_orbit();

	fill(table, 7);
	fill(index, 8);

	// Of the table it needs a page at any time; of the index, all.
	const auto map = [where = index.span(), hot = table.span().subspan(20 * page, page)](Totals &totals, Bytes unit) {
		totals.sum += digest(unit);
		totals.units++;
		totals.point += std::to_integer<std::uint64_t>(where[2 * page]) + std::to_integer<std::uint64_t>(hot[0]);
	};
	const auto got = orbit.olcp_query(map, Totals{1, 0, 0}, {{table, 2 * page, 40 * page}},
					  {index, {table, 20 * page, page}}, 2 * page);

	ASSERT_TRUE(got) << got.error().message();
	EXPECT_EQ(got->units, 20U);
	EXPECT_EQ(got->sum, 1 + digest(table.span().subspan(2 * page, 40 * page)));
	EXPECT_EQ(got->point, 20 * (std::to_integer<std::uint64_t>(index.data()[2 * page]) +
				    std::to_integer<std::uint64_t>(table.data()[20 * page])));

	const auto small = orbit.olcp_query([](int &count, Bytes) { count++; }, 0, table);

	EXPECT_EQ(small, 50);

	const auto stopped = orbit.olcp_query([](int &count, Bytes) { return ++count < 3; }, 0, table);

	ASSERT_FALSE(stopped);
	EXPECT_EQ(stopped.error().code(), ECANCELED);

	const auto crooked = orbit.olcp_query([](int &, Bytes) {}, 0, table, {}, page + 1);

	ASSERT_FALSE(crooked);
	EXPECT_EQ(crooked.error().code(), EINVAL);

	const auto twice = orbit.olcp_query([](int &, Bytes) {}, 0, {{table, 0, 2 * page}, {table, page, page}});

	ASSERT_FALSE(twice);
	EXPECT_EQ(twice.error().code(), EINVAL);

	const auto outside = orbit.olcp_query([](int &, Bytes) {}, 0, {{table, 0, 51 * page}});

	ASSERT_FALSE(outside);
	EXPECT_EQ(outside.error().code(), EINVAL);
}

TEST(Scan, WhatIsGivenAwayIsScanned)
{
	const orbit::Pool pool = make_pool(40 * page);
	orbit::Orbit orbit = make_orbit();

	fill(pool, 9);

	const std::uint64_t expected = digest(pool.span());
	auto task = value_or_throw(orbit.call_async({{pool, orbit::Mode::move}}, scan_one, pool.span(), 2 * page));

	fill(pool, 10);

	const auto seen = value_or_throw(task.wait());

	EXPECT_EQ(seen.digest, expected);
	EXPECT_EQ(seen.twice + seen.missed, 0U);
	EXPECT_EQ(value_or_throw(orbit.call(pool, scan_one, pool.span(), page)).digest, digest(pool.span()));
}

// ---- What is held

// Pages that are kept for snapshots of a pool; -1 if nobody tells.
long count_versions(const orbit::Pool &pool)
{
	std::ifstream info("/proc/self/fdinfo/" + std::to_string(orbit_pool_fd(pool.raw())));
	std::string key;
	long value = -1;

	while (info >> key)
		if (key == "versions:")
			info >> value;
	return value;
}

// Two ways between main and a task, which take turns.
struct Turns {
	Pipe to_task, to_main;
	std::array<int, 2> fds{to_task.read_end, to_main.write_end};

	// In a task, by the descriptors: it is main's turn, until that is over.
	static void pass(std::array<int, 2> fds)
	{
		char byte = 0;

		if (write(fds[1], &byte, 1) != 1 || read(fds[0], &byte, 1) != 1)
			abort();
	}
	bool wait() const
	{
		char byte;

		return to_main.get(byte);
	}
	void give() const { to_task.put('x'); }
};

TEST(Scan, WhatMainOverwritesComesNext)
{
	const Turns turns;
	const orbit::Pool pool = make_pool(512 * page);
	orbit::Orbit orbit = make_orbit({.keep_fds = turns.fds});

	fill(pool, 11);

	const std::uint64_t expected = digest(pool.span());
	// Main's turn is in the first unit and in the tenth; it overwrites three pages each time.
	auto task = value_or_throw(orbit.call_async(
		pool,
		[](std::span<std::byte> range, std::array<int, 2> fds) {
			struct {
				std::array<std::size_t, 4> after_first;
				std::uint64_t digest, overtaken, units;
			} found{};
			std::uint64_t calls = 0;
			const auto done = orbit::scan(range, [&](Bytes bytes) {
				if (calls == 0 || calls == 9)
					Turns::pass(fds);
				if (calls < found.after_first.size())
					found.after_first[calls] = static_cast<std::size_t>(bytes.data() - range.data()) / page;
				calls++;
				found.digest += digest(bytes);
			});

			found.overtaken = done ? done->overtaken : 0;
			found.units = done ? done->units : 0;
			return found;
		},
		pool.span(), turns.fds));

	for (const std::array<std::size_t, 3> &pages : {std::array<std::size_t, 3>{400, 17, 333}, {500, 0, 17}}) {
		ASSERT_TRUE(turns.wait());
		for (const std::size_t at : pages)
			pool.data()[at * page] ^= std::byte{1};
		turns.give();
	}

	const auto found = value_or_throw(task.wait());

	EXPECT_EQ(found.digest, expected);
	EXPECT_EQ(found.units, 512U);
	if (has_feature(ORBIT_FEATURE_SCAN)) {
		EXPECT_EQ(found.after_first, (std::array<std::size_t, 4>{0, 400, 17, 333}));
		EXPECT_EQ(found.overtaken, 4U);
	} else {
		EXPECT_EQ(found.after_first, (std::array<std::size_t, 4>{0, 1, 2, 3}));
		EXPECT_EQ(found.overtaken, 0U);
	}
}

TEST(Scan, NothingIsHeldOfWhatItIsDoneWith)
{
	const Turns turns;
	const orbit::Pool pool = make_pool(1024 * page);
	orbit::Orbit orbit = make_orbit({.keep_fds = turns.fds});

	for (const bool by_scan : {true, false}) {
		fill(pool, 12 + by_scan);

		auto task = value_or_throw(orbit.call_async(
			pool,
			[](std::span<std::byte> range, std::array<int, 2> fds, bool scans) {
				std::uint64_t calls = 0, sum = 0;

				if (!scans)
					Turns::pass(fds);
				else if (!orbit::scan(range, [&](Bytes bytes) {
						 sum += digest(bytes);
						 // Then all but some pages at the end has been told.
						 if (++calls == 1000)
							 Turns::pass(fds);
					 }))
					return std::uint64_t{0};
				Turns::pass(fds);
				return scans ? sum : digest(range);
			},
			pool.span(), turns.fds, by_scan));
		const std::uint64_t expected = digest(pool.span());

		// Three times in all.
		for (int round = 0; round < 2; round++) {
			ASSERT_TRUE(turns.wait());
			for (int times = 0; times < 1 + round; times++)
				fill(pool, static_cast<std::uint64_t>(20 + times));
			if (const long versions = count_versions(pool); versions >= 0) {
				if (!by_scan)
					EXPECT_EQ(versions, 1024);
				else
					EXPECT_LE(versions, round ? 0 : 40);
			}
			turns.give();
		}
		EXPECT_EQ(task.wait(), expected);
	}
	EXPECT_TRUE(eventually([&] { return count_versions(pool) <= 0; }));
}

// ---- Random schedules

unsigned long number_of(const char *variable, unsigned long otherwise)
{
	const char *const text = getenv(variable);

	return text ? strtoul(text, nullptr, 10) : otherwise;
}

// Main's threads, which overwrite pools under a lock, a few pages at a time: all of it, or hot pages.
class Writers {
public:
	Writers(std::span<const orbit::Pool> pools, unsigned count, std::uint64_t seed) : pools_(pools)
	{
		for (unsigned i = 0; i < count; i++)
			threads_.emplace_back([this, seed, i] { run(seed + i); });
	}
	Writers(const Writers &) = delete;
	~Writers()
	{
		stop_ = true;
		for (std::thread &thread : threads_)
			thread.join();
	}

	std::mutex lock;

private:
	void run(std::uint64_t seed)
	{
		std::mt19937_64 random(seed);

		while (!stop_) {
			const orbit::Pool &pool = pools_[random() % pools_.size()];
			const std::size_t pages = pool.size() / page;
			const std::size_t among = random() % 3 ? pages : std::min<std::size_t>(pages, 4);
			const std::size_t count = 1 + random() % 8;
			{
				const std::lock_guard guard(lock);

				for (std::size_t i = 0; i < count; i++) {
					const std::uint64_t value = random();

					std::memcpy(pool.data() + random() % among * page + value % (page / 8) * 8, &value,
						    sizeof(value));
				}
			}
			if (random() % 4 == 0)
				std::this_thread::yield();
		}
	}

	const std::span<const orbit::Pool> pools_;
	std::atomic<bool> stop_ = false;
	std::vector<std::thread> threads_;
};

// A part of each pool, as a task gets it.
struct Parts {
	std::array<std::span<std::byte>, 3> of;
	std::size_t count;
};

std::uint64_t digest_parts(const Parts &parts)
{
	std::uint64_t sum = 0;

	for (std::size_t i = 0; i < parts.count; i++)
		sum += digest(parts.of[i]);
	return sum;
}

Seen scan_parts(const Parts &parts, std::size_t unit, unsigned pause)
{
	std::vector<orbit::ScanRange> pieces(parts.of.begin(), parts.of.begin() + static_cast<long>(parts.count));
	std::vector<Bytes> where(parts.of.begin(), parts.of.begin() + static_cast<long>(parts.count));

	return scan_all(pieces, where, unit, pause);
}

// Several scans and an ordinary task are called at once; some scans are killed.
void run_schedule(std::uint64_t seed, std::span<orbit::Orbit> orbits, std::span<const orbit::Pool> pools)
{
	static constexpr orbit::Mode modes[] = {orbit::Mode::cow, orbit::Mode::copy, orbit::Mode::adaptive};
	std::mt19937_64 random(seed);
	Writers writers(pools, 1 + random() % 2, random());
	std::vector<orbit::Task<Seen>> scans;
	std::vector<bool> killed;
	std::vector<std::uint64_t> expected;
	std::optional<orbit::Task<std::uint64_t>> ordinary;
	std::uint64_t ordinary_expected = 0;
	const std::size_t nr_scans = 1 + random() % (orbits.size() - 1);

	{
		const std::lock_guard guard(writers.lock);

		for (std::size_t i = 0; i <= nr_scans; i++) {
			const orbit::Mode mode = modes[random() % 3];
			orbit::Pools named;
			Parts parts{};

			for (const orbit::Pool &pool : pools) {
				if (parts.count && random() % 3 == 0)
					continue;

				const std::size_t pages = pool.size() / page;
				const std::size_t from = random() % 2 ? random() % pages : 0;
				const std::size_t length = random() % 2 ? 1 + random() % (pages - from) : pages - from;

				// The task may see more than it scans.
				if (random() % 2)
					named.add({pool, from * page, length * page, mode});
				else
					named.add({pool, mode});
				parts.of[parts.count++] = pool.span().subspan(from * page, length * page);
			}
			if (i == nr_scans) {
				ordinary = value_or_throw(orbits[i].call_async(named, digest_parts, parts));
				ordinary_expected = digest_parts(parts);
			} else {
				const std::size_t unit = (1 + random() % 5) * page;
				const auto pause = static_cast<unsigned>(random() % 9);

				scans.push_back(value_or_throw(orbits[i].call_async(named, scan_parts, parts, unit, pause)));
				expected.push_back(digest_parts(parts));
				killed.push_back(random() % 5 == 0);
			}
		}
	}
	for (std::size_t i = 0; i < scans.size(); i++) {
		if (!killed[i])
			continue;
		std::this_thread::sleep_for(std::chrono::microseconds(random() % 3000));
		// It may have ended.
		killed[i] = bool(scans[i].cancel(true));
	}
	for (std::size_t i = 0; i < scans.size(); i++) {
		const auto seen = scans[i].wait();

		if (killed[i]) {
			ASSERT_FALSE(seen) << "seed " << seed;
			EXPECT_EQ(seen.error().code(), ECANCELED) << "seed " << seed;
			continue;
		}
		ASSERT_TRUE(seen) << "seed " << seed << ": " << seen.error().message();
		EXPECT_EQ(seen->error, 0) << "seed " << seed;
		EXPECT_EQ(seen->twice, 0U) << "seed " << seed;
		EXPECT_EQ(seen->missed, 0U) << "seed " << seed;
		EXPECT_EQ(seen->digest, expected[i]) << "seed " << seed;
	}
	EXPECT_EQ(ordinary->wait(), ordinary_expected) << "seed " << seed;
}

TEST(Scan, SeesWhatAnOrdinarySnapshotSees)
{
	const unsigned long schedules = number_of("ORBIT_SCAN_SCHEDULES", 25);
	const unsigned long seed = number_of("ORBIT_SCAN_SEED", 1);
	std::vector<orbit::Pool> pools;
	std::vector<orbit::Orbit> orbits;

	for (const std::size_t pages : {200U, 37U, 64U})
		pools.push_back(make_pool(pages * page));
	for (int i = 0; i < 4; i++)
		orbits.push_back(make_orbit({.restart = true}));
	for (unsigned long i = 0; i < schedules && !HasFatalFailure() && !HasNonfatalFailure(); i++)
		run_schedule(seed * 1'000'003 + i, orbits, pools);
}

} // namespace
