// SPDX-License-Identifier: MIT
//
// The NVMe driver as a domain: what its callers get, and what becomes of their requests and of memory when it is killed, or
// goes mad.
#include "domain_test.h"

#include <atomic>
#include <csignal>
#include <map>
#include <poll.h>
#include <set>

namespace {

using orbit::DomainOptions;
using orbit::DomainReport;
using orbit::block::Space;

constexpr unsigned depth = 127;
constexpr unsigned at_once = 64;

class NvmeDomain : public testing::Test {
protected:
	void SetUp() override
	{
		ASSERT_NE(address(), "") << "this machine has no NVMe controller";
		ASSERT_TRUE(give(address(), "vfio-pci"));
		auto opened = orbit::pci::Device::open(address());
		ASSERT_TRUE(opened) << words_of(opened);
		device = std::move(*opened);
		auto made = Supervisor::create({.zones = {{12 << 20, 12 << 20}, {nvme::queues_bytes(depth), 0}},
						.report = [this](const DomainReport &report) {
							const std::scoped_lock locked(mutex);
							reports.push_back(report);
						}});
		ASSERT_TRUE(made) << words_of(made);
		supervisor = std::move(*made);
	}

	DomainOptions options(unsigned restarts = 10000)
	{
		return nvme::domain_options(*supervisor, *device, {.depth = depth, .restarts = {.most = restarts}});
	}

	void start(DomainOptions options)
	{
		auto started = supervisor->start(std::move(options));
		ASSERT_TRUE(started) << words_of(started);
		domain = std::move(*started);
		auto proxy = domain->proxy<block::DeviceProxy>();
		ASSERT_TRUE(proxy) << words_of(proxy);
		calls = std::make_shared<block::DeviceProxy>(std::move(*proxy));
		queue = std::make_unique<Queue>(calls, supervisor->endpoint(), domain->connection().peer, domain->recovery(), at_once);
	}

	rref<std::byte[]> buffer(std::size_t bytes)
	{
		auto made = supervisor->endpoint().make_array<std::byte>(data, bytes);

		EXPECT_TRUE(made) << words_of(made);
		return made ? std::move(*made) : rref<std::byte[]>();
	}

	// One request by the queue: its error.
	int run(const Request &request, std::size_t bytes)
	{
		EXPECT_TRUE(queue->submit(request, bytes ? buffer(bytes) : rref<std::byte[]>()));
		std::vector<Finished> finished;
		EXPECT_TRUE(wait_until([&] { return !(finished = queue->finish(1)).empty(); }));
		return finished.empty() ? ETIME : finished[0].error;
	}

	std::mutex mutex; // of the reports
	std::vector<DomainReport> reports;
	std::unique_ptr<orbit::pci::Device> device; // outlives the domain
	std::unique_ptr<Supervisor> supervisor;
	std::unique_ptr<Domain> domain;
	std::shared_ptr<block::Device> calls;
	std::unique_ptr<Queue> queue;
};

TEST_F(NvmeDomain, ReadsWhatItHasWritten)
{
	start(options());
	ASSERT_TRUE(queue);
	const auto limits = calls->limits();
	const auto spaces = calls->spaces();

	ASSERT_TRUE(limits) << words_of(limits);
	ASSERT_TRUE(spaces) << words_of(spaces);
	EXPECT_EQ(limits->depth, depth);
	ASSERT_EQ(spaces->size(), 3u);
	for (const Space &space : {(*spaces)[0], (*spaces)[1]}) {
		rref<std::byte[]> bytes = buffer(8 * space.block_bytes);

		fill(bytes.elements(), space.id, 16, 5);
		auto written = calls->write(space.id, 16, 8, bytes);
		ASSERT_TRUE(written) << words_of(written);
		ASSERT_TRUE(calls->flush(space.id));
		auto read = calls->read(space.id, 16, 8, buffer(8 * space.block_bytes));
		ASSERT_TRUE(read) << words_of(read);
		EXPECT_TRUE(std::ranges::equal(bytes.elements(), read->elements()));
	}

	// Many at a time.
	for (const Op op : {Op::write, Op::read}) {
		std::set<std::uint64_t> ended;

		for (unsigned i = 0; i < 300;) {
			while (i < 300) {
				rref<std::byte[]> bytes = buffer(4096);
				if (op == Op::write)
					fill(bytes.elements(), 1, i, 9);
				if (!queue->submit({.tag = i, .lba = i * 8, .data = {}, .space = 1, .blocks = 8, .op = op}, std::move(bytes)))
					break;
				i++;
			}
			while (queue->under_way() == at_once || (i == 300 && queue->under_way()))
				for (const Finished &finished : queue->finish(16)) {
					EXPECT_EQ(finished.error, 0);
					EXPECT_TRUE(ended.insert(finished.tag).second);
					EXPECT_TRUE(holds(finished.data.elements(), 1, finished.tag, 9));
				}
		}
		EXPECT_EQ(ended.size(), 300u);
	}
	EXPECT_EQ(queue->repeats(), 0u);
}

TEST_F(NvmeDomain, SaysWhatIsWrongWithARequest)
{
	start(options());
	ASSERT_TRUE(queue);
	EXPECT_EQ(run({.tag = 1, .lba = 0, .data = {}, .space = 1, .blocks = 8, .op = Op::read}, 4096), 0);
	EXPECT_EQ(run({.tag = 2, .lba = 0, .data = {}, .space = 1, .blocks = 9, .op = Op::read}, 4096), ERANGE);
	EXPECT_EQ(run({.tag = 3, .lba = 0, .data = {}, .space = 1, .blocks = 0, .op = Op::read}, 4096), EINVAL);
	EXPECT_EQ(run({.tag = 4, .lba = ~std::uint64_t{0}, .data = {}, .space = 1, .blocks = 1, .op = Op::read}, 4096), EFBIG);
	EXPECT_EQ(run({.tag = 5, .lba = 0, .data = {}, .space = 7, .blocks = 1, .op = Op::read}, 4096), ENODEV);
	EXPECT_EQ(run({.tag = 6, .lba = 2048, .data = {}, .space = 3, .blocks = 1, .op = Op::read}, 4096), ENODATA);
	EXPECT_EQ(run({.tag = 9, .lba = 3072, .data = {}, .space = 3, .blocks = 1, .op = Op::write}, 4096), EIO);
	EXPECT_EQ(run({.tag = 10, .lba = 0, .data = {}, .space = 3, .blocks = 0, .op = Op::flush}, 0), EIO);
	EXPECT_EQ(run({.tag = 11, .lba = 0, .data = {}, .space = 1, .blocks = 0, .op = Op::flush}, 0), 0);
	// No buffer, or what is none.
	EXPECT_NE(run({.tag = 7, .lba = 0, .data = {}, .space = 1, .blocks = 1, .op = Op::write}, 0), 0);
	EXPECT_NE(run({.tag = 8, .lba = 0, .data = {0, 3, 7, 1}, .space = 1, .blocks = 1, .op = Op::write}, 0), 0);
	EXPECT_EQ(error_of(calls->read(1, 0, 9, buffer(4096))), ERANGE);
	EXPECT_EQ(error_of(calls->flush(9)), ENODEV);
	EXPECT_EQ(run({.tag = 9, .lba = 0, .data = {}, .space = 1, .blocks = 0, .op = Op::flush}, 0), 0);
	EXPECT_TRUE(domain->statistics().running);
	EXPECT_EQ(domain->statistics().starts, 1u);
}

// What each place on the device may hold, by the versions of writes.
struct Place {
	std::uint64_t acknowledged = 0;
	std::uint64_t under_way = 0; // or 0
	unsigned readers = 0;
};

TEST_F(NvmeDomain, KillsLoseNothingAndTearNothing)
{
	const char *const wanted = std::getenv("ORBIT_NVME_KILLS");
	const unsigned kills = wanted ? static_cast<unsigned>(std::atoi(wanted)) : 8;
	constexpr unsigned blocks = 8, block_bytes = 512, places = 200;
	const auto seed = static_cast<unsigned>(std::chrono::steady_clock::now().time_since_epoch().count());
	std::mt19937 random(seed);
	std::vector<Place> place(places);
	std::map<std::uint64_t, std::pair<unsigned, Place>> reads; // by tag: what it may find
	std::map<std::uint64_t, unsigned> writes;
	std::uint64_t version = 0, ended = 0, wrong = 0, errors = 0;

	SCOPED_TRACE("seed " + std::to_string(seed));
	start(options());
	ASSERT_TRUE(queue);
	std::atomic<unsigned> killed{0};
	std::atomic<bool> stop{false};
	std::thread killer([&] {
		std::mt19937 when(seed + 1);
		std::uint64_t starts = 0;

		while (!stop && killed < kills) {
			// One that has begun to serve.
			if (const auto now = domain->recovery()->starts(); now == starts) {
				std::this_thread::sleep_for(std::chrono::milliseconds(1));
				continue;
			} else {
				starts = now;
			}
			std::this_thread::sleep_for(std::chrono::microseconds(when() % 400000));
			if (const pid_t pid = domain->pid(); pid > 0 && kill(pid, SIGKILL) == 0)
				killed++;
		}
	});
	const auto matches = [&](const rref<std::byte[]> &bytes, unsigned where, const Place &may) {
		for (unsigned i = 0; i < blocks; i++) {
			const auto one = bytes.elements().subspan(i * block_bytes, block_bytes);
			const auto is = [&](std::uint64_t v) {
				return v ? holds(one, 1, where * blocks + i, v) :
					   std::ranges::all_of(one, [](std::byte b) { return b == std::byte{0}; });
			};

			if (!is(may.acknowledged) && !(may.under_way && is(may.under_way)))
				return false;
		}
		return true;
	};

	// Everything cleared first, so that it is known.
	for (unsigned where = 0; where < places; where++) {
		rref<std::byte[]> zeroes = buffer(blocks * block_bytes);
		auto cleared = queue->submit({.tag = where, .lba = where * blocks, .data = {}, .space = 1, .blocks = blocks, .op = Op::write},
					     std::move(zeroes));

		ASSERT_TRUE(cleared);
		while (queue->under_way() == at_once || (where + 1 == places && queue->under_way()))
			for (const Finished &finished : queue->finish(1))
				EXPECT_EQ(finished.error, 0);
	}

	const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(wanted ? 100000 : 100);
	std::uint64_t tag = 1000;

	while ((killed < kills || queue->under_way()) && std::chrono::steady_clock::now() < end) {
		while (killed < kills && queue->under_way() < at_once) {
			const unsigned where = random() % places;
			const bool write = random() % 2;

			// A block has one writer at a time, and nobody reads meanwhile: or there would be no knowing.
			if (place[where].under_way)
				continue;
			rref<std::byte[]> bytes = buffer(blocks * block_bytes);

			tag++;
			if (write && !place[where].readers) {
				place[where].under_way = ++version;
				for (unsigned i = 0; i < blocks; i++)
					fill(bytes.elements().subspan(i * block_bytes, block_bytes), 1, where * blocks + i, version);
				writes[tag] = where;
			} else {
				place[where].readers++;
				reads[tag] = {where, place[where]};
			}
			ASSERT_TRUE(queue->submit({.tag = tag, .lba = where * blocks, .data = {}, .space = 1, .blocks = blocks,
						   .op = writes.contains(tag) ? Op::write : Op::read}, std::move(bytes)));
		}
		for (const Finished &finished : queue->finish(8)) {
			ended++;
			errors += finished.error != 0;
			if (const auto written = writes.find(finished.tag); written != writes.end()) {
				Place &at = place[written->second];

				at.acknowledged = at.under_way;
				at.under_way = 0;
				writes.erase(written);
			} else if (const auto read = reads.find(finished.tag); read != reads.end()) {
				wrong += !matches(finished.data, read->second.first, read->second.second);
				place[read->second.first].readers--;
				reads.erase(read);
			} else {
				ADD_FAILURE() << "what was not under way has ended";
			}
		}
	}
	stop = true;
	killer.join();
	EXPECT_EQ(killed, kills);
	EXPECT_EQ(wrong, 0u) << "of " << ended;
	EXPECT_EQ(errors, 0u) << "of " << ended;
	EXPECT_TRUE(reads.empty() && writes.empty());
	EXPECT_GE(domain->statistics().starts, kills);
	EXPECT_GT(queue->repeats(), 0u);

	// What is there after all.
	std::uint64_t lost = 0;

	for (unsigned where = 0; where < places; where++) {
		auto bytes = calls->read(1, where * blocks, blocks, buffer(blocks * block_bytes));
		ASSERT_TRUE(bytes) << words_of(bytes);
		lost += !matches(*bytes, where, place[where]);
	}
	EXPECT_EQ(lost, 0u);
	const auto census = supervisor->census();
	EXPECT_EQ(census.lost, 0u);
	EXPECT_EQ(census.twice, 0u);
	std::printf("%u kills, %llu requests ended, %llu repeats of all under way\n", killed.load(),
		    static_cast<unsigned long long>(ended), static_cast<unsigned long long>(queue->repeats()));
	ASSERT_TRUE(calls->flush(1));

	// And once more by Linux's driver.
	queue.reset();
	domain.reset();
	device.reset();
	ASSERT_TRUE(give(address(), "nvme"));
	const int file = open(linux_namespace(address(), 1).c_str(), O_RDONLY | O_DIRECT);
	Pages page(4096);

	ASSERT_GE(file, 0);
	for (unsigned where = 0; where < places; where++) {
		ASSERT_EQ(pread(file, page.span().data(), 4096, where * 4096), 4096);
		for (unsigned i = 0; i < blocks; i++)
			lost += place[where].acknowledged && !holds(page.span().subspan(i * block_bytes, block_bytes), 1, where * blocks + i,
								    place[where].acknowledged);
	}
	close(file);
	EXPECT_EQ(lost, 0u) << "by Linux";
}

// What crashes cost, by this machine's clock: the figures are for people, who know what that is worth.
TEST_F(NvmeDomain, EndsAllThroughACrashEverySecond)
{
	using Clock = std::chrono::steady_clock;
	constexpr unsigned kills = 3;
	std::vector<rref<std::byte[]>> buffers;
	Clock::duration longest{};
	unsigned killed = 0;

	start(options());
	ASSERT_TRUE(queue);
	for (unsigned i = 0; i < at_once; i++)
		buffers.push_back(buffer(4096));
	// Requests that end in a second, as long as it takes.
	const auto pace = [&](Op op, bool crashes) {
		const auto begin = Clock::now(), end = begin + std::chrono::seconds(kills);
		auto last = begin, next = begin + std::chrono::milliseconds(500);
		std::uint64_t ended = 0, tag = 0;

		while (Clock::now() < end || queue->under_way()) {
			while (Clock::now() < end && !buffers.empty()) {
				EXPECT_TRUE(queue->submit({.tag = tag, .lba = tag % 8192 * 8, .data = {}, .space = 1, .blocks = 8, .op = op},
							  std::move(buffers.back())));
				buffers.pop_back();
				tag++;
			}
			for (Finished &finished : queue->finish(at_once / 2)) {
				EXPECT_EQ(finished.error, 0);
				buffers.push_back(std::move(finished.data));
				ended++;
			}
			const auto now = Clock::now();
			longest = std::max(longest, now - last);
			last = now;
			if (crashes && now >= next && now < end) {
				next += std::chrono::seconds(1);
				killed += kill(domain->pid(), SIGKILL) == 0;
			}
		}
		EXPECT_EQ(ended, tag);
		return static_cast<double>(ended) / std::chrono::duration<double>(Clock::now() - begin).count();
	};

	for (const auto &[op, name] : {std::pair{Op::read, "reads"}, {Op::write, "writes"}}) {
		const double before = pace(op, false);
		longest = {};
		const double crashing = pace(op, true);
		const auto most = longest;
		const double after = pace(op, false);

		EXPECT_GT(crashing, 0);
		std::printf("%s a second: %.0f, %.0f with a crash in each (%.3f), %.0f; the longest pause %.0f ms\n", name, before, crashing,
			    2 * crashing / (before + after), after, std::chrono::duration<double, std::milli>(most).count());
	}
	EXPECT_GE(killed, 2u);
	EXPECT_EQ(domain->statistics().starts, killed + 1);
}

// Reads of the namespace that is slow are under way when the driver is killed; their memory is used again at once. Returns
// how many bytes of it have changed afterwards.
class Canaries : public NvmeDomain {
protected:
	std::size_t changed(bool silenced)
	{
		DomainOptions with = options(0);
		std::vector<rref<std::byte[]>> memory;

		if (!silenced)
			with.silence = {};
		start(std::move(with));
		if (!queue)
			return 0;
		for (unsigned i = 0; i < at_once; i++)
			EXPECT_TRUE(queue->submit({.tag = i, .lba = 4096 + i * 64, .data = {}, .space = 3, .blocks = 64, .op = Op::read}, buffer(32768)));
		// Only when one has ended does the device have the others: a driver that is killed before has asked it for nothing.
		std::size_t before = 0;
		EXPECT_TRUE(wait_until([&] { return (before += queue->finish(1).size()) > 0; }));
		EXPECT_LT(before, at_once);
		kill(domain->pid(), SIGKILL);
		EXPECT_TRUE(wait_until([&] {
			for (Finished &finished : queue->finish(1))
				memory.push_back(std::move(finished.data));
			return !queue->under_way();
		}));
		EXPECT_GT(memory.size(), at_once / 2);
		// They are this side's again, and may be used for anything.
		for (auto &bytes : memory)
			std::ranges::fill(bytes.elements(), canary);
		std::this_thread::sleep_for(std::chrono::milliseconds(600));
		std::size_t wrong = 0;
		for (const auto &bytes : memory)
			wrong += static_cast<std::size_t>(std::ranges::count_if(bytes.elements(), [](std::byte b) { return b != canary; }));
		return wrong;
	}
};

TEST_F(Canaries, SurviveForTheDeviceIsSilencedFirst)
{
	EXPECT_EQ(changed(true), 0u);
}

// Or the test above would prove nothing.
TEST_F(Canaries, DieIfItIsNot)
{
	EXPECT_GT(changed(false), 0u);
}

// Such a device is cut off, and the controller can be brought to rest; or starts anew all the same.
TEST_F(NvmeDomain, ADeviceThatCannotBeResetGoesOn)
{
	device->forbid_reset_for_test();
	start(options());
	ASSERT_TRUE(queue);
	for (const bool works : {true, false}) {
		const std::uint64_t starts = domain->statistics().starts;

		for (unsigned i = 0; i < at_once; i++)
			ASSERT_TRUE(queue->submit({.tag = i, .lba = 8 * i, .data = {}, .space = 1, .blocks = 8, .op = Op::read}, buffer(4096)));
		const pid_t pid = domain->pid();

		ASSERT_EQ(kill(pid, SIGSTOP), 0);
		if (!works) {
			ASSERT_TRUE(device->write_register(0, nvme::reg::cc, 0)); // as a driver does that has given it up
		}
		ASSERT_EQ(kill(pid, SIGKILL), 0);
		EXPECT_TRUE(wait_until([&] {
			for (const Finished &finished : queue->finish(1))
				EXPECT_EQ(finished.error, 0);
			return !queue->under_way();
		}));
		EXPECT_EQ(run({.tag = 1, .lba = 0, .data = {}, .space = 1, .blocks = 8, .op = Op::read}, 4096), 0);
		EXPECT_EQ(domain->statistics().starts, starts + 1);
	}
}

TEST_F(NvmeDomain, ADeviceThatIsTakenAwayEndsAllWithAnError)
{
	std::set<std::uint64_t> ended;
	std::atomic<bool> stop{false};

	start(options(2));
	ASSERT_TRUE(queue);
	for (unsigned i = 0; i < at_once; i++)
		ASSERT_TRUE(queue->submit({.tag = i, .lba = 8192 + i, .data = {}, .space = 3, .blocks = 1, .op = Op::read}, buffer(512)));
	for (const Finished &finished : queue->finish(0))
		ended.insert(finished.tag);
	EXPECT_LT(ended.size(), at_once);
	// Whoever makes it ready again.
	std::thread taker([&] {
		for (; !stop; std::this_thread::sleep_for(std::chrono::milliseconds(1)))
			set_present(address(), false);
	});
	EXPECT_TRUE(wait_until([&] {
		for (const Finished &finished : queue->finish(1)) {
			EXPECT_TRUE(finished.error == 0 || finished.error == EHOSTDOWN || finished.error == ECONNRESET) << finished.error;
			EXPECT_TRUE(finished.data);
			ended.insert(finished.tag);
		}
		return !queue->under_way();
	}));
	EXPECT_FALSE(calls->flush(1));
	stop = true;
	taker.join();
	EXPECT_EQ(ended.size(), at_once);
	EXPECT_FALSE(domain->statistics().running);

	// It is back, and this program needs only say so.
	queue.reset();
	domain.reset();
	start(options());
	ASSERT_TRUE(queue);
	EXPECT_EQ(run({.tag = 1, .lba = 0, .data = {}, .space = 1, .blocks = 8, .op = Op::read}, 4096), 0);
}

TEST_F(NvmeDomain, WhoWantsTheDeviceBackGetsIt)
{
	start(options());
	ASSERT_TRUE(queue);
	pollfd wanted{device->wanted_back(), POLLIN, 0};

	EXPECT_EQ(poll(&wanted, 1, 0), 0);
	std::thread administrator([] { give(address(), "nvme"); });
	EXPECT_EQ(poll(&wanted, 1, 20000), 1);
	// The device works until it is let go of.
	EXPECT_EQ(run({.tag = 1, .lba = 0, .data = {}, .space = 1, .blocks = 8, .op = Op::read}, 4096), 0);
	queue.reset();
	domain.reset();
	device.reset();
	administrator.join();
	EXPECT_EQ(driver_of(address()), "nvme");
}

TEST_F(NvmeDomain, WhatCrashesForEverIsDownForEver)
{
	start(options(2));
	ASSERT_TRUE(queue);
	for (unsigned i = 0; i < 3; i++) {
		const pid_t pid = domain->pid();

		ASSERT_EQ(kill(pid, SIGKILL), 0);
		ASSERT_TRUE(wait_until([&] { return domain->pid() != pid; }));
	}
	EXPECT_EQ(run({.tag = 1, .lba = 0, .data = {}, .space = 1, .blocks = 8, .op = Op::read}, 4096), EHOSTDOWN);
	EXPECT_EQ(error_of(calls->flush(1)), EHOSTDOWN);
	EXPECT_EQ(reports.size(), 3u);
	EXPECT_FALSE(reports.back().restarted);
}

} // namespace
