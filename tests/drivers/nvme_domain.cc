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
using orbit::block::Space;

constexpr unsigned depth = 127;
constexpr unsigned deepest = 1024;
constexpr unsigned most_callers = 6; // more than the controller has queues

class NvmeDomain : public NvmeTest {
protected:
	void SetUp() override
	{
		open_controller(12 << 20, std::max(nvme::queues_bytes(depth, most_callers), nvme::queues_bytes(deepest, 1)));
	}

	DomainOptions options(unsigned restarts = 10000)
	{
		return nvme::domain_options(*supervisor, *device, {.depth = depth, .restarts = {.most = restarts}});
	}

	// One request by the queue: its error.
	int run(const Request &request, std::size_t bytes)
	{
		EXPECT_TRUE(queue->submit(request, bytes ? buffer(bytes) : rref<std::byte[]>()));
		std::vector<Finished> finished;
		EXPECT_TRUE(wait_until([&] { return !(finished = queue->finish(1)).empty(); }));
		return finished.empty() ? ETIME : finished[0].error;
	}
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

TEST_F(NvmeDomain, HasAQueueOf1024)
{
	std::set<std::uint64_t> ended;

	start(nvme::domain_options(*supervisor, *device, {.io_queues = 1, .depth = deepest}));
	ASSERT_TRUE(queue);
	EXPECT_EQ(calls->limits()->depth, deepest);
	Queue deep(calls, supervisor->endpoint(), domain->connection().peer, domain->recovery(), deepest);
	for (unsigned i = 0; i < deepest; i++)
		ASSERT_TRUE(deep.submit({.tag = i, .lba = i, .data = {}, .space = 1, .blocks = 1, .op = Op::read}, buffer(512)));
	EXPECT_EQ(error_of(deep.submit({.tag = deepest, .lba = 0, .data = {}, .space = 1, .blocks = 0, .op = Op::flush})), EAGAIN);
	while (deep.under_way())
		for (const Finished &finished : deep.finish(deepest)) {
			EXPECT_EQ(finished.error, 0);
			EXPECT_TRUE(ended.insert(finished.tag).second);
		}
	EXPECT_EQ(ended.size(), deepest);
}

TEST_F(NvmeDomain, ZeroesAndDiscardsBlocks)
{
	start(options());
	ASSERT_TRUE(queue);
	const auto limits = calls->limits();

	ASSERT_TRUE(limits && limits->write_zeroes && limits->discard);
	for (const std::uint32_t space : {1u, 2u}) {
		const std::uint32_t block_bytes = (*calls->spaces())[space - 1].block_bytes;
		rref<std::byte[]> bytes = buffer(8 * block_bytes);

		fill(bytes.elements(), space, 64, 3);
		ASSERT_TRUE(calls->write(space, 64, 8, bytes));
		// All but the first and the last.
		EXPECT_EQ(run({.tag = 1, .lba = 65, .data = {}, .space = space, .blocks = 6, .op = Op::write_zeroes}, 0), 0);
		auto read = calls->read(space, 64, 8, buffer(8 * block_bytes));
		ASSERT_TRUE(read) << words_of(read);
		for (unsigned block = 0; block < 8; block++) {
			const auto was = bytes.elements().subspan(block * block_bytes, block_bytes);
			const auto is = read->elements().subspan(block * block_bytes, block_bytes);

			if (block == 0 || block == 7)
				EXPECT_TRUE(std::ranges::equal(is, was)) << "block " << block;
			else
				EXPECT_TRUE(std::ranges::all_of(is, [](std::byte b) { return b == std::byte{0}; })) << "block " << block;
		}
		// What a discarded block holds nobody promises; its neighbours are as they were.
		EXPECT_EQ(run({.tag = 2, .lba = 65, .data = {}, .space = space, .blocks = 6, .op = Op::discard}, 0), 0);
		read = calls->read(space, 64, 8, buffer(8 * block_bytes));
		ASSERT_TRUE(read) << words_of(read);
		EXPECT_TRUE(std::ranges::equal(read->elements().first(block_bytes), bytes.elements().first(block_bytes)));
		EXPECT_TRUE(std::ranges::equal(read->elements().last(block_bytes), bytes.elements().last(block_bytes)));
		for (const Op op : {Op::write_zeroes, Op::discard}) {
			EXPECT_EQ(run({.tag = 3, .lba = 65, .data = {}, .space = space, .blocks = 0, .op = op}, 0), EINVAL);
			EXPECT_EQ(run({.tag = 4, .lba = ~std::uint64_t{0}, .data = {}, .space = space, .blocks = 2, .op = op}, 0), EFBIG);
		}
	}
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
	std::uint64_t version = 0, wrong = 0, errors = 0;
	std::atomic<std::uint64_t> ended{0};

	SCOPED_TRACE("seed " + std::to_string(seed));
	start(options());
	ASSERT_TRUE(queue);
	std::atomic<unsigned> killed{0};
	std::atomic<bool> stop{false};
	std::thread killer([&] {
		std::mt19937 when(seed + 1);
		std::uint64_t starts = 0, before = 0;

		while (!stop && killed < kills) {
			// One that has begun to serve, and since the last kill something has ended: where three domains die and nothing has,
			// the requests are taken for what kills them, and end with an error. On a busy machine that would come about.
			if (domain->recovery()->starts() == starts || ended == before) {
				std::this_thread::sleep_for(std::chrono::milliseconds(1));
				continue;
			}
			starts = domain->recovery()->starts();
			std::this_thread::sleep_for(std::chrono::microseconds(when() % 400000));
			if (const pid_t pid = domain->pid(); pid > 0 && kill(pid, SIGKILL) == 0) {
				before = ended;
				killed++;
			}
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
		    static_cast<unsigned long long>(ended.load()), static_cast<unsigned long long>(queue->repeats()));
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

// Several callers, each with an object of the domain, and a queue as far as they go.
class Callers : public NvmeDomain, public testing::WithParamInterface<bool> {
protected:
	void start(unsigned callers, unsigned deep = depth)
	{
		NvmeDomain::start(nvme::domain_options(*supervisor, *device,
						       {.io_queues = callers, .depth = deep, .interrupts = GetParam(), .restarts = {.most = 10000}}));
		if (queue)
			queues_of_controller = calls->limits()->queues;
	}

	// The n-th caller's at work in its own part of the device: writes, and reads what it has written. How many blocks were wrong.
	std::size_t work(unsigned caller, unsigned rounds, const std::function<bool()> &enough)
	{
		constexpr unsigned places = 24;
		auto proxy = domain->proxy<block::DeviceProxy>(caller);
		EXPECT_TRUE(proxy) << words_of(proxy);
		if (!proxy)
			return 1;
		Queue own(std::make_shared<block::DeviceProxy>(std::move(*proxy)), supervisor->endpoint(), domain->connection().peer,
			  domain->recovery(), places);
		std::size_t wrong = 0;

		for (unsigned round = 1; round <= rounds || !enough(); round++)
			for (const Op op : {Op::write, Op::read}) {
				for (unsigned i = 0; i < places; i++) {
					rref<std::byte[]> bytes = buffer(4096);
					const std::uint64_t lba = (caller * places + i) * 8;

					if (op == Op::write)
						fill(bytes.elements(), 1, lba, round);
					EXPECT_TRUE(own.submit({.tag = lba, .lba = lba, .data = {}, .space = 1, .blocks = 8, .op = op}, std::move(bytes)));
				}
				while (own.under_way())
					for (const Finished &finished : own.finish(places / 2)) {
						EXPECT_EQ(finished.error, 0) << "of caller " << caller;
						wrong += finished.error || !holds(finished.data.elements(), 1, finished.tag, round);
						ended[caller]++;
					}
			}
		return wrong;
	}

	std::size_t work_all(unsigned callers, unsigned rounds, const std::function<bool()> &enough)
	{
		std::atomic<std::size_t> wrong{0};
		std::vector<std::thread> threads;

		for (unsigned caller = 0; caller < callers; caller++)
			threads.emplace_back([&, caller] { wrong += work(caller, rounds, enough); });
		for (std::thread &thread : threads)
			thread.join();
		return wrong;
	}

	std::uint64_t requests_of(unsigned number)
	{
		const auto counters = counters_of_device();

		EXPECT_EQ(counters->queues, queues_of_controller);
		return counters->queue[number].requests;
	}

	unsigned queues_of_controller = 0;
	std::atomic<std::uint64_t> ended[block::most_queues] = {}; // of each caller's requests
};

TEST_P(Callers, HaveQueuesOfTheirOwn)
{
	start(3);
	ASSERT_TRUE(queue);
	EXPECT_EQ(queues_of_controller, 3u);
	EXPECT_EQ(work_all(3, 4, [] { return true; }), 0u);
	for (unsigned number = 0; number < 3; number++)
		EXPECT_EQ(requests_of(number), 4u * 2 * 24) << "of queue " << number;
	if (GetParam())
		EXPECT_GT(interrupts_of(address(), 1), 0u);
	else
		EXPECT_EQ(interrupts_of(address(), 1), 0u);
	EXPECT_FALSE(domain->proxy<block::DeviceProxy>(3));

	auto driver = domain->proxy<block::DriverProxy>();
	ASSERT_TRUE(driver) << words_of(driver);
	const auto statistics = driver->statistics();
	ASSERT_TRUE(statistics) << words_of(statistics);
	EXPECT_EQ(statistics->requests, 3u * 4 * 2 * 24);
	EXPECT_EQ(statistics->queues, 3u);
	EXPECT_EQ(statistics->errors, 0u);
	EXPECT_EQ(statistics->under_way, 0u);
	EXPECT_EQ(error_of(driver->start(device->descriptor(), {}, {}, {})), EALREADY);
}

TEST_P(Callers, ShareQueuesWhenThereAreFewer)
{
	start(most_callers);
	ASSERT_TRUE(queue);
	ASSERT_EQ(queues_of_controller, 4u) << "see devices() of tests/drivers.py";
	EXPECT_EQ(work_all(most_callers, 4, [] { return true; }), 0u);
	for (unsigned number = 0; number < 4; number++)
		EXPECT_EQ(requests_of(number), (number < 2 ? 2u : 1u) * 4 * 2 * 24) << "of queue " << number;

	// Calls one at a time, too, and of what is slow beside what is not.
	std::vector<std::thread> threads;
	for (unsigned caller = 0; caller < most_callers; caller++)
		threads.emplace_back([&, caller] {
			auto proxy = domain->proxy<block::DeviceProxy>(caller);
			ASSERT_TRUE(proxy);
			for (int i = 0; i < 4; i++)
				EXPECT_TRUE(proxy->read(caller < 4 ? 3 : 1, 4096 + caller * 8, 8, buffer(4096)));
		});
	for (std::thread &thread : threads)
		thread.join();
}

TEST_P(Callers, AreAsManyAsThereMayBe)
{
	constexpr unsigned all = block::most_queues;

	start(all, 7);
	ASSERT_TRUE(queue);
	EXPECT_EQ(calls->limits()->depth, 7u);
	for (const unsigned caller : {0u, all / 2, all - 1})
		EXPECT_EQ(work(caller, 1, [] { return true; }), 0u);
	queue.reset();
	domain.reset();
	EXPECT_EQ(error_of(supervisor->start(nvme::domain_options(*supervisor, *device, {.io_queues = all + 1, .depth = 7, .interrupts = GetParam()}))), EINVAL);
	EXPECT_EQ(error_of(supervisor->start(nvme::domain_options(*supervisor, *device, {.io_queues = 0, .depth = 7, .interrupts = GetParam()}))), EINVAL);
}

TEST_P(Callers, LoseNothingWhenTheDriverIsKilled)
{
	std::atomic<unsigned> killed{0};

	start(3);
	ASSERT_TRUE(queue);
	std::thread killer([&] {
		std::mt19937 when(7);

		while (killed < 5) {
			std::uint64_t before[3];

			// Each caller has got something of this one: what three in a row die of is given up.
			std::copy_n(ended, 3, before);
			EXPECT_TRUE(wait_until([&] { return std::equal(before, before + 3, ended, std::not_equal_to<>()); }));
			std::this_thread::sleep_for(std::chrono::microseconds(when() % 50000));
			if (const pid_t pid = domain->pid(); pid > 0 && kill(pid, SIGKILL) == 0)
				killed++;
		}
	});
	EXPECT_EQ(work_all(3, 1, [&] { return killed == 5; }), 0u);
	killer.join();
	EXPECT_TRUE(wait_until([&] { return domain->statistics().running; }));
	EXPECT_GE(domain->statistics().starts, 6u);
	EXPECT_EQ(supervisor->census().lost, 0u);
}

INSTANTIATE_TEST_SUITE_P(That, Callers, testing::Bool(), [](const auto &with) { return with.param ? "Sleep" : "Poll"; });

TEST_F(NvmeDomain, WithInterruptsItSleepsAndDoesNotNap)
{
	constexpr unsigned reads = 10; // of what is slow

	start(nvme::domain_options(*supervisor, *device, {.io_queues = 1, .depth = depth, .interrupts = true}));
	ASSERT_TRUE(queue);
	const auto begin = std::chrono::steady_clock::now();
	const std::uint64_t before = sleeps_of(domain->pid());

	for (unsigned i = 0; i < reads; i++)
		EXPECT_TRUE(calls->read(3, 4096 + 8 * i, 8, buffer(4096)));
	const auto sleeps = sleeps_of(domain->pid()) - before;
	const auto ms = std::chrono::duration_cast<std::chrono::milliseconds>(std::chrono::steady_clock::now() - begin).count();

	EXPECT_GT(sleeps, 0u);
	// Some for each read, and some for looking after the controller now and then; a driver that naps for 20 us has many more.
	EXPECT_LT(sleeps, 20u * reads + static_cast<std::uint64_t>(ms) / 10);
	std::printf("%u reads in %lld ms: %llu sleeps\n", reads, static_cast<long long>(ms), static_cast<unsigned long long>(sleeps));
}

TEST_F(NvmeDomain, InterruptsNeedMsiX)
{
	const auto all = devices_of("010802");
	ASSERT_EQ(all.size(), 2u) << "see devices() of tests/drivers.py";
	ASSERT_TRUE(give(all[1], "vfio-pci"));
	auto opened = orbit::pci::Device::open(all[1]);
	ASSERT_TRUE(opened) << words_of(opened);
	EXPECT_EQ((*opened)->interrupts(), 1u);

	auto refused = supervisor->start(nvme::domain_options(*supervisor, **opened, {.depth = depth, .interrupts = true}));
	EXPECT_EQ(error_of(refused), EOPNOTSUPP);
	EXPECT_NE(std::string(words_of(refused)).find("MSI-X"), std::string::npos) << words_of(refused);
	auto polled = supervisor->start(nvme::domain_options(*supervisor, **opened, {.depth = depth}));
	ASSERT_TRUE(polled) << words_of(polled);
	EXPECT_TRUE((*polled)->proxy<block::DeviceProxy>()->read(1, 0, 8, buffer(4096)));
}

// What crashes cost, by this machine's clock: the figures are for people, who know what that is worth. Seconds with a crash
// and seconds without take turns, as many of each as $ORBIT_NVME_SECONDS says: how fast the device is changes with what else
// its machine does.
TEST_F(NvmeDomain, EndsAllThroughACrashEverySecond)
{
	using Clock = std::chrono::steady_clock;
	using Milliseconds = std::chrono::duration<double, std::milli>;
	const char *const said = std::getenv("ORBIT_NVME_SECONDS");
	const unsigned seconds = said ? static_cast<unsigned>(std::atoi(said)) : 3;
	std::vector<rref<std::byte[]>> buffers;
	unsigned killed = 0;

	start(options());
	ASSERT_TRUE(queue);
	for (unsigned i = 0; i < at_once; i++)
		buffers.push_back(buffer(4096));

	struct Second {
		double pace = 0; // requests in a second
		Milliseconds pause{}; // the longest between two looks at what has ended
	};
	const auto run = [&](Op op, bool crashes) {
		const auto begin = Clock::now(), end = begin + std::chrono::seconds(1), crash_at = begin + std::chrono::milliseconds(300);
		auto last = begin;
		std::uint64_t ended = 0, tag = 0;
		bool crashed = !crashes;
		Second second;

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
			second.pause = std::max(second.pause, Milliseconds(now - last));
			last = now;
			if (!crashed && now >= crash_at) {
				crashed = true;
				killed += kill(domain->pid(), SIGKILL) == 0;
			}
		}
		EXPECT_EQ(ended, tag);
		second.pace = static_cast<double>(ended) / std::chrono::duration<double>(Clock::now() - begin).count();
		return second;
	};

	for (const auto &[op, name] : {std::pair{Op::read, "reads"}, {Op::write, "writes"}}) {
		double quiet = 0, crashing = 0;
		Milliseconds pauses{}, longest{};

		for (unsigned i = 0; i < seconds; i++) {
			quiet += run(op, false).pace;

			const Second second = run(op, true);

			EXPECT_GT(second.pace, 0);
			crashing += second.pace;
			pauses += second.pause;
			longest = std::max(longest, second.pause);
		}
		std::printf("%s a second: %.0f, with a crash in each %.0f (%.3f); pauses of %.0f ms, at most %.0f\n", name, quiet / seconds,
			    crashing / seconds, crashing / quiet, pauses.count() / seconds, longest.count());
	}
	EXPECT_EQ(killed, 2 * seconds);
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

TEST_F(NvmeDomain, RefusesWhatIsNoController)
{
	const std::string other = foreign_device();

	ASSERT_NE(other, "") << "see FOREIGN of tests/drivers.py";
	ASSERT_TRUE(give(other, "vfio-pci"));
	auto opened = orbit::pci::Device::open(other);
	ASSERT_TRUE(opened) << words_of(opened);
	const auto refused = supervisor->start(nvme::domain_options(*supervisor, **opened, {.depth = depth}));

	EXPECT_EQ(error_of(refused), ENODEV);
	EXPECT_NE(words_of(refused).find("no NVMe controller"), std::string::npos) << words_of(refused);
	start(options());
}

} // namespace
