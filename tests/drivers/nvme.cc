// SPDX-License-Identifier: MIT
//
// The NVMe driver's device layer, in this program itself, against a controller that none of us wrote; and Linux's driver,
// which finds what ours has written, and the reverse.
#include "machine.h"

#include "../../isolation/nvme/controller.h"

#include <gtest/gtest.h>
#include <map>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/wait.h>

namespace {

using namespace machine;
using namespace orbit::nvme;
using orbit::pci::Bar;
using orbit::pci::Device;
using orbit::pci::Vfio;

constexpr std::uint64_t iova = 0x10000000;
constexpr std::size_t data_bytes = 8 << 20;

// A controller that runs, with memory.
struct Running {
	explicit Running(ControllerOptions options = {}, std::span<const int> events = {})
		: pages(data_bytes + Controller::memory_for(options)), dma(pages.span(), iova)
	{
		const orbit::pci::DmaRange range{pages.span().data(), pages.span().size(), iova};
		auto opened = open_device(address(), {&range, 1}, events);
		if (!opened) {
			ADD_FAILURE() << words_of(opened);
			return;
		}
		device = std::move(opened->device);
		bar = std::move(opened->bar);
		data = *dma.take(data_bytes, 4096);
		auto started = Controller::start(*bar, dma, options);
		if (!started) {
			ADD_FAILURE() << words_of(started);
			return;
		}
		controller = std::move(*started);
	}

	// One command, from its submission to its end: 0 or an errno value.
	int run(const Request &request)
	{
		QueuePair &queue = controller->queue(0);
		Outcome outcome{};

		if (const auto taken = queue.submit(request); !taken)
			return taken.error().code();
		queue.ring();
		if (!wait_until([&] { return !queue.poll({&outcome, 1}).empty(); }))
			return ETIME;
		EXPECT_EQ(outcome.tag, request.tag);
		return outcome.error;
	}

	Pages pages;
	DmaMemory dma;
	std::span<std::byte> data;
	std::unique_ptr<Device> device;
	std::optional<Bar> bar;
	std::unique_ptr<Controller> controller;
};

class Nvme : public testing::Test {
protected:
	void SetUp() override
	{
		ASSERT_NE(address(), "") << "this machine has no NVMe controller";
		ASSERT_TRUE(give(address(), "vfio-pci"));
	}
};

TEST_F(Nvme, SaysWhatLinuxSaysOfIt)
{
	struct Space {
		std::uint64_t sectors;
		std::string block;
	};
	std::map<std::uint32_t, Space> known;

	ASSERT_TRUE(give(address(), "nvme"));
	for (const std::uint32_t id : {1u, 2u}) {
		const std::string name = linux_namespace(address(), id).substr(5);

		known[id] = {std::stoull(read_text("/sys/block/" + name + "/size")),
			     read_text("/sys/block/" + name + "/queue/logical_block_size")};
	}
	ASSERT_TRUE(give(address(), "vfio-pci"));

	Running on;

	ASSERT_TRUE(on.controller);
	EXPECT_EQ(on.controller->model(), "QEMU NVMe Ctrl");
	EXPECT_EQ(on.controller->serial(), "orbit");
	EXPECT_EQ(on.device->identity().class_code, 0x010802u);
	for (const auto &[id, space] : known) {
		const auto ours = on.controller->find(id);

		ASSERT_TRUE(ours);
		EXPECT_EQ(std::to_string(ours->block_bytes), space.block);
		EXPECT_EQ(ours->blocks * ours->block_bytes, space.sectors * 512);
	}
	EXPECT_NE(on.controller->find(1)->block_bytes, on.controller->find(2)->block_bytes);
	EXPECT_FALSE(on.controller->find(9));
}

// Random places and lengths, as many commands under way as there is room for.
class Traffic {
public:
	explicit Traffic(Running &on, unsigned seed) : on_(on), random_(seed) {}

	// What each block of a namespace holds then, by its version; 0 is what nobody has written.
	std::map<std::uint64_t, std::uint64_t> write(const Namespace &space, unsigned commands)
	{
		std::map<std::uint64_t, std::uint64_t> written;

		run(space, commands, Op::write, [&](const Request &request, std::span<std::byte> bytes) {
			for (std::uint64_t i = 0; i < request.blocks; i++) {
				fill(bytes.subspan(i * space.block_bytes, space.block_bytes), space.id, request.lba + i, request.tag + 1);
				written[request.lba + i] = request.tag + 1;
			}
		}, [](const Request &, std::span<std::byte>) {});
		return written;
	}

	void verify(const Namespace &space, unsigned commands, const std::function<std::uint64_t(std::uint64_t)> &version)
	{
		run(space, commands, Op::read,
		    [](const Request &, std::span<std::byte> bytes) { std::fill(bytes.begin(), bytes.end(), std::byte{0x5a}); },
		    [&](const Request &request, std::span<std::byte> bytes) {
			    for (std::uint64_t i = 0; i < request.blocks; i++)
				    if (const std::uint64_t wanted = version(request.lba + i))
					    wrong += !holds(bytes.subspan(i * space.block_bytes, space.block_bytes), space.id,
							    request.lba + i, wanted);
		    });
	}

	std::size_t wrong = 0;
	std::size_t most = 0; // commands under way

private:
	static constexpr std::size_t area = 64 << 10;

	// Each command has an area of the memory, and begins somewhere in its first page. No two write to the same place.
	void run(const Namespace &space, unsigned commands, Op op, const std::function<void(const Request &, std::span<std::byte>)> &before,
		 const std::function<void(const Request &, std::span<std::byte>)> &after)
	{
		QueuePair &queue = on_.controller->queue(random_() % on_.controller->queues());
		const std::uint64_t most_blocks = std::min(area - 4096, on_.controller->limits().max_transfer) / space.block_bytes;
		std::vector<unsigned> areas(data_bytes / area);
		std::map<std::uint64_t, std::pair<Request, unsigned>> under_way;
		unsigned begun = 0, ended = 0;
		std::uint64_t slots = space.blocks / most_blocks;

		for (unsigned i = 0; i < areas.size(); i++)
			areas[i] = i;
		while (ended < commands) {
			Outcome room[16];

			while (begun < commands && !areas.empty()) {
				const unsigned where = areas.back();
				const std::uint64_t slot = (std::uint64_t{begun} * 7919 + offset_) % slots;
				const std::uint64_t blocks = 1 + random_() % most_blocks;
				std::byte *const at = on_.data.data() + where * area + random_() % 1024 * 4;
				const Request request{.op = op, .nsid = space.id,
						      .lba = slot * most_blocks + random_() % (most_blocks - blocks + 1),
						      .blocks = static_cast<std::uint32_t>(blocks), .data = at, .tag = begun};

				before(request, {at, blocks * space.block_bytes});
				if (!queue.submit(request))
					break;
				areas.pop_back();
				under_way[request.tag] = {request, where};
				begun++;
			}
			queue.ring();
			most = std::max<std::size_t>(most, queue.under_way());

			const auto outcomes = queue.poll(room);

			for (const Outcome &outcome : outcomes) {
				const auto found = under_way.find(outcome.tag);

				ASSERT_NE(found, under_way.end());
				ASSERT_EQ(outcome.error, 0);
				const auto [request, where] = found->second;

				after(request, {static_cast<std::byte *>(request.data), request.blocks * space.block_bytes});
				areas.push_back(where);
				under_way.erase(found);
				ended++;
			}
			if (outcomes.empty())
				std::this_thread::yield();
		}
	}

	Running &on_;
	std::mt19937 random_;
	std::uint64_t offset_ = 0;
};

// SGLs where they are better, or PRPs.
class Described : public Nvme, public testing::WithParamInterface<bool> {};
INSTANTIATE_TEST_SUITE_P(By, Described, testing::Bool(), [](const auto &sgl) { return sgl.param ? "Sgls" : "Prps"; });

TEST_P(Described, WhatItWritesLinuxReadsAndTheReverse)
{
	constexpr unsigned commands = 120;
	std::map<std::uint32_t, std::map<std::uint64_t, std::uint64_t>> written;
	std::vector<Namespace> spaces;
	{
		Running on({.queues = 2, .sgl = GetParam()});

		ASSERT_TRUE(on.controller);
		Traffic traffic(on, 1);

		spaces = {*on.controller->find(1), *on.controller->find(2)};
		for (const Namespace &space : spaces) {
			written[space.id] = traffic.write(space, commands);
			traffic.verify(space, commands, [&](std::uint64_t lba) {
				const auto found = written[space.id].find(lba);
				return found == written[space.id].end() ? 0 : found->second;
			});
			EXPECT_EQ(traffic.wrong, 0u) << "namespace " << space.id;
			EXPECT_EQ(on.run({.op = Op::flush, .nsid = space.id}), 0);
		}
		EXPECT_GT(traffic.most, 60u);
		EXPECT_TRUE(on.controller->look_after());
		EXPECT_TRUE(on.controller->shut_down());
	}

	ASSERT_TRUE(give(address(), "nvme"));
	for (const Namespace &space : spaces) {
		const int file = open(linux_namespace(address(), space.id).c_str(), O_RDWR | O_DIRECT);
		Pages buffer(64 << 10);
		std::size_t wrong = 0;

		ASSERT_GE(file, 0);
		// What lies side by side is read at once.
		for (auto run = written[space.id].begin(); run != written[space.id].end();) {
			const std::uint64_t first = run->first;
			std::uint64_t n = 0;
			auto end = run;

			while (end != written[space.id].end() && end->first == first + n && (n + 1) * space.block_bytes <= buffer.span().size())
				end++, n++;
			const auto bytes = static_cast<ssize_t>(n * space.block_bytes);
			if (pread(file, buffer.span().data(), static_cast<std::size_t>(bytes), static_cast<off_t>(first * space.block_bytes)) != bytes)
				wrong += n;
			else
				for (std::uint64_t i = 0; i < n; i++, run++)
					wrong += !holds(buffer.span().subspan(i * space.block_bytes, space.block_bytes), space.id, run->first,
							run->second);
			run = end;
		}
		EXPECT_EQ(wrong, 0u) << "of " << written[space.id].size() << ", namespace " << space.id;

		// Now the reverse: another version all over the beginning.
		const std::uint64_t blocks = (4 << 20) / space.block_bytes, at_once = buffer.span().size() / space.block_bytes;

		for (std::uint64_t lba = 0; lba < blocks; lba += at_once) {
			for (std::uint64_t i = 0; i < at_once; i++)
				fill(buffer.span().subspan(i * space.block_bytes, space.block_bytes), space.id, lba + i, 77);
			ASSERT_EQ(pwrite(file, buffer.span().data(), buffer.span().size(), static_cast<off_t>(lba * space.block_bytes)),
				  static_cast<ssize_t>(buffer.span().size()));
		}
		EXPECT_EQ(fsync(file), 0);
		close(file);
	}

	ASSERT_TRUE(give(address(), "vfio-pci"));
	Running on({.sgl = GetParam()});

	ASSERT_TRUE(on.controller);
	Traffic traffic(on, 2);

	for (const Namespace &space : spaces) {
		const std::uint64_t blocks = (4 << 20) / space.block_bytes;

		traffic.verify(space, commands, [&](std::uint64_t lba) {
			const auto found = written[space.id].find(lba);

			return lba < blocks ? 77 : found == written[space.id].end() ? 0 : found->second;
		});
		EXPECT_EQ(traffic.wrong, 0u) << "namespace " << space.id;
	}
}

// fio's pattern %o: all words of one of its blocks say where that begins.
constexpr std::size_t fio_area = 4 << 20;

void fill_as_fio(std::span<std::byte> bytes, std::uint64_t offset, std::size_t fio_block)
{
	for (std::size_t at = 0; at < bytes.size(); at += sizeof(std::uint64_t)) {
		const std::uint64_t word = (offset + at) / fio_block * fio_block;

		std::memcpy(bytes.data() + at, &word, sizeof(word));
	}
}

bool fio(const std::string &file, std::size_t fio_block, const std::string &what)
{
	return std::system(("fio --name=area --filename=" + file + " --direct=1 --ioengine=io_uring --iodepth=16 --size=" +
			    std::to_string(fio_area) + " --bs=" + std::to_string(fio_block) + " --verify=pattern --verify_pattern=%o " + what +
			    " >/tmp/fio.log 2>&1 || { cat /tmp/fio.log; exit 1; }").c_str()) == 0;
}

// The area in commands of all sizes, from one block to as much as the controller takes, in any order and many under way:
// written, or read and looked at. How many were wrong.
std::size_t all_of_the_area(Running &on, const Namespace &space, Op op, std::size_t fio_block, unsigned seed)
{
	std::mt19937 random(seed);
	QueuePair &queue = on.controller->queue(0);
	const std::size_t room = on.controller->limits().max_transfer;
	std::vector<Request> rest;
	std::vector<std::byte *> places;
	std::map<std::uint64_t, Request> under_way;
	std::size_t wrong = 0;

	for (std::uint64_t lba = 0, blocks; lba < fio_area / space.block_bytes; lba += blocks) {
		// Small ones as often as large ones.
		blocks = std::min<std::uint64_t>(std::max<std::uint64_t>((room / space.block_bytes) >> random() % 11, 1), fio_area / space.block_bytes - lba);
		rest.push_back({.op = op, .nsid = space.id, .lba = lba, .blocks = static_cast<std::uint32_t>(blocks), .tag = lba});
	}
	std::shuffle(rest.begin(), rest.end(), random);
	for (std::size_t at = 0; at + room <= on.data.size(); at += room)
		places.push_back(on.data.data() + at);
	const bool done = wait_until([&] {
		Outcome outcomes[16];

		while (!rest.empty() && !places.empty()) {
			Request request = rest.back();

			request.data = places.back();
			if (op == Op::write)
				fill_as_fio({places.back(), request.blocks * space.block_bytes}, request.lba * space.block_bytes, fio_block);
			if (!queue.submit(request))
				break;
			under_way[request.tag] = request;
			rest.pop_back();
			places.pop_back();
		}
		queue.ring();
		for (const Outcome &outcome : queue.poll(outcomes)) {
			const Request request = under_way.extract(outcome.tag).mapped();
			const std::span<std::byte> bytes(static_cast<std::byte *>(request.data), request.blocks * space.block_bytes);

			wrong += outcome.error != 0;
			if (op == Op::read) {
				std::vector<std::byte> wanted(bytes.size());

				fill_as_fio(wanted, request.lba * space.block_bytes, fio_block);
				wrong += !std::ranges::equal(bytes, wanted);
			}
			places.push_back(bytes.data());
		}
		return rest.empty() && under_way.empty();
	});

	return done ? wrong : wrong + 1;
}

TEST_F(Nvme, WhatItWritesFioVerifiesAndTheReverse)
{
	std::vector<Namespace> spaces;

	if (std::system("command -v fio >/dev/null"))
		GTEST_SKIP() << "this machine has no fio";
	{
		Running on;

		ASSERT_TRUE(on.controller);
		spaces = {*on.controller->find(1), *on.controller->find(2)};
		for (const Namespace &space : spaces) {
			EXPECT_EQ(all_of_the_area(on, space, Op::write, space.block_bytes, space.id), 0u);
			EXPECT_EQ(on.run({.op = Op::flush, .nsid = space.id}), 0);
		}
	}
	// fio reads them a block of the namespace at a time, and writes larger ones.
	constexpr std::size_t large = 64 << 10;
	ASSERT_TRUE(give(address(), "nvme"));
	for (const Namespace &space : spaces) {
		const std::string file = linux_namespace(address(), space.id);

		EXPECT_TRUE(fio(file, space.block_bytes, "--rw=randread")) << file;
		EXPECT_FALSE(fio(file, large, "--rw=read")) << "it finds what is not there";
		EXPECT_TRUE(fio(file, large, "--rw=randwrite --do_verify=0 --end_fsync=1")) << file;
	}
	ASSERT_TRUE(give(address(), "vfio-pci"));
	Running on;

	ASSERT_TRUE(on.controller);
	for (const Namespace &space : spaces) {
		EXPECT_EQ(all_of_the_area(on, space, Op::read, large, space.id + 10), 0u);
		EXPECT_GT(all_of_the_area(on, space, Op::read, space.block_bytes, space.id), 0u) << "it would not find what is wrong";
	}
}

// Of the last commands, how many named their data by an SGL: what the controller has read is still in the queue.
std::size_t by_sgl(const Running &on)
{
	std::size_t found = 0;

	for (std::size_t at = on.data.size(); at < on.pages.span().size(); at += sizeof(Command)) {
		Command command;

		std::memcpy(&command, on.pages.span().data() + at, sizeof(command));
		found += (command.opcode == static_cast<std::uint8_t>(IoOpcode::read) || command.opcode == static_cast<std::uint8_t>(IoOpcode::write)) &&
			 command.nsid == 1 && command.flags == psdt_sgl;
	}
	return found;
}

TEST_P(Described, TransfersOfAllSizesHaveTheirPagesInOrder)
{
	Running on({.sgl = GetParam()});
	std::size_t better = 0;

	ASSERT_TRUE(on.controller);
	const Namespace space = *on.controller->find(1);
	const std::size_t most = on.controller->limits().max_transfer;

	EXPECT_EQ(on.controller->limits().sgl, GetParam());
	EXPECT_EQ(on.controller->limits().alignment, GetParam() ? 1u : 4u);
	ASSERT_LE(2 * most + 8192, data_bytes);
	for (const std::size_t bytes : {std::size_t{512}, std::size_t{4096}, std::size_t{4608}, std::size_t{8192}, std::size_t{8704}, most})
		for (const std::size_t offset : {0, 4, 512, 1023, 4092}) {
			const std::span<std::byte> from = on.data.subspan(offset, bytes), to = on.data.subspan(most + 4096 + offset, bytes);
			const auto blocks = static_cast<std::uint32_t>(bytes / space.block_bytes);
			const int error = offset % on.controller->limits().alignment ? EFAULT : 0;

			std::fill(on.data.begin(), on.data.end(), std::byte{0xee});
			fill(from, 1, bytes, offset);
			ASSERT_EQ(on.run({.op = Op::write, .nsid = 1, .lba = 64, .blocks = blocks, .data = from.data()}), error);
			ASSERT_EQ(on.run({.op = Op::read, .nsid = 1, .lba = 64, .blocks = blocks, .data = to.data()}), error);
			if (error)
				continue;
			EXPECT_TRUE(std::ranges::equal(from, to)) << bytes << " at " << offset;
			// Nothing before and behind.
			EXPECT_EQ(to.data()[-1], std::byte{0xee});
			EXPECT_EQ(to.data()[bytes], std::byte{0xee});
			better += 2 * (GetParam() && (offset % 4 || offset + bytes > 8192));
		}
	EXPECT_EQ(by_sgl(on), better);
}

TEST_F(Nvme, ClearsBlocksAndForgetsThem)
{
	Running on;

	ASSERT_TRUE(on.controller);
	ASSERT_TRUE(on.controller->limits().write_zeroes);
	ASSERT_TRUE(on.controller->limits().discard);
	// QEMU tells how many blocks it discards at once, and no limit for what it clears.
	EXPECT_LT(on.controller->limits().most_discarded, std::uint32_t{1} << 23);
	EXPECT_GT(on.controller->limits().most_discarded, 1000u);
	EXPECT_EQ(on.controller->limits().most_zeroes, ~std::uint64_t{0});
	for (const std::uint32_t id : {1u, 2u}) {
		const Namespace space = *on.controller->find(id);
		const std::span<std::byte> data = on.data.first(8 * space.block_bytes);

		fill(data, id, 1, 2);
		ASSERT_EQ(on.run({.op = Op::write, .nsid = id, .lba = 8, .blocks = 8, .data = data.data()}), 0);
		ASSERT_EQ(on.run({.op = Op::write_zeroes, .nsid = id, .lba = 9, .blocks = 6}), 0);
		ASSERT_EQ(on.run({.op = Op::read, .nsid = id, .lba = 8, .blocks = 8, .data = data.data()}), 0);
		for (std::uint32_t block = 0; block < 8; block++) {
			const auto bytes = data.subspan(block * space.block_bytes, space.block_bytes);
			const bool zero = std::ranges::all_of(bytes, [](std::byte b) { return b == std::byte{0}; });

			EXPECT_EQ(zero, block != 0 && block != 7) << block;
		}
		EXPECT_EQ(on.run({.op = Op::discard, .nsid = id, .lba = 8, .blocks = 8}), 0);
		EXPECT_EQ(on.run({.op = Op::flush, .nsid = id}), 0);
	}
}

TEST_F(Nvme, AsManyCommandsAreUnderWayAsMayBe)
{
	Running on({.depth = 1023});

	ASSERT_TRUE(on.controller);
	QueuePair &queue = on.controller->queue(0);

	ASSERT_EQ(queue.depth(), 1023u);
	for (int round = 0; round < 2; round++) {
		std::vector<unsigned> ends(queue.depth());
		unsigned ended = 0;

		for (unsigned i = 0; i < queue.depth(); i++)
			ASSERT_TRUE(queue.submit({.op = Op::read, .nsid = 1, .lba = i, .blocks = 1, .data = on.data.data() + i * 512, .tag = i}));
		EXPECT_EQ(error_of(queue.submit({.op = Op::flush, .nsid = 1})), EAGAIN);
		queue.ring();
		EXPECT_TRUE(wait_until([&] {
			Outcome room[100];

			for (const Outcome &outcome : queue.poll(room)) {
				EXPECT_EQ(outcome.error, 0);
				ends[outcome.tag]++;
				ended++;
			}
			return ended == queue.depth();
		}));
		EXPECT_TRUE(std::ranges::all_of(ends, [](unsigned n) { return n == 1; }));
		EXPECT_EQ(queue.under_way(), 0u);
	}
}

TEST_F(Nvme, InterruptsTellOfCompletions)
{
	const int events[] = {eventfd(0, EFD_CLOEXEC), eventfd(0, EFD_CLOEXEC)}; // of the admin queue, and of the first
	Running on({.interrupts = true}, events);

	ASSERT_TRUE(on.controller);
	ASSERT_GE(on.device->interrupts(), 2u);
	const std::vector<int> many(on.device->interrupts() + 1, -1);
	pollfd told{events[1], POLLIN, 0};

	EXPECT_EQ(error_of(on.device->set_interrupts(many)), ENOSPC);
	for (int round = 0; round < 3; round++) {
		Outcome outcome{};
		std::uint64_t count = 0;

		EXPECT_EQ(poll(&told, 1, 0), 0);
		ASSERT_TRUE(on.controller->queue(0).submit({.op = Op::read, .nsid = 1, .lba = 0, .blocks = 1, .data = on.data.data()}));
		on.controller->queue(0).ring();
		ASSERT_EQ(poll(&told, 1, 20000), 1);
		EXPECT_EQ(on.controller->queue(0).poll({&outcome, 1}).size(), 1u);
		EXPECT_EQ(outcome.error, 0);
		EXPECT_EQ(read(events[1], &count, sizeof(count)), static_cast<ssize_t>(sizeof(count)));
	}
	EXPECT_TRUE(on.device->set_interrupts({}));
	for (const int event : events)
		close(event);
}

TEST_F(Nvme, RefusesWhatIsNoRequest)
{
	Running on;

	ASSERT_TRUE(on.controller);
	const Namespace space = *on.controller->find(1);
	const auto most = static_cast<std::uint32_t>(on.controller->limits().max_transfer / space.block_bytes);
	Request good{.op = Op::read, .nsid = 1, .lba = 0, .blocks = 1, .data = on.data.data()};
	const auto with = [&](auto &&change) {
		Request request = good;

		change(request);
		return error_of(on.controller->queue(0).submit(request));
	};

	EXPECT_EQ(with([](Request &r) { r.blocks = 0; }), EINVAL);
	EXPECT_EQ(with([&](Request &r) { r.blocks = most + 1; }), EINVAL);
	EXPECT_EQ(with([](Request &r) { r.blocks = ~0u; }), EFBIG);
	EXPECT_EQ(with([&](Request &r) { r.lba = space.blocks; }), EFBIG);
	EXPECT_EQ(with([&](Request &r) { r.lba = space.blocks - 1, r.blocks = 2; }), EFBIG);
	EXPECT_EQ(with([](Request &r) { r.lba = ~std::uint64_t{0}; }), EFBIG);
	EXPECT_EQ(with([](Request &r) { r.nsid = 9; }), ENODEV);
	EXPECT_EQ(with([](Request &r) { r.nsid = 0; }), ENODEV);
	EXPECT_EQ(with([](Request &r) { r.nsid = ~0u; }), ENODEV);
	EXPECT_EQ(with([](Request &r) { r.data = nullptr; }), EFAULT);
	EXPECT_EQ(with([](Request &r) { r.data = &r; }), EFAULT);
	EXPECT_EQ(with([&](Request &r) { r.data = on.pages.span().data() + on.pages.span().size() - 256; }), EFAULT);
	EXPECT_EQ(with([](Request &r) { r.op = static_cast<Op>(77); }), EINVAL);
	EXPECT_EQ(with([&](Request &r) { r.op = Op::write_zeroes, r.blocks = 0x10001; }), EINVAL);
	EXPECT_EQ(on.controller->queue(0).under_way(), 0u);
	EXPECT_EQ(on.run(good), 0);
}

// The machine's third namespace has a sector that cannot be read, one that cannot be written, and cannot be flushed.
TEST_F(Nvme, WhatTheMediumHasLostIsAnErrorOfThatCommand)
{
	Running on;

	ASSERT_TRUE(on.controller);
	ASSERT_TRUE(on.controller->find(3));
	EXPECT_EQ(on.run({.op = Op::read, .nsid = 3, .lba = 100, .blocks = 1, .data = on.data.data()}), 0);
	EXPECT_EQ(on.run({.op = Op::read, .nsid = 3, .lba = 2048, .blocks = 1, .data = on.data.data()}), ENODATA);
	EXPECT_EQ(on.run({.op = Op::read, .nsid = 3, .lba = 2040, .blocks = 16, .data = on.data.data()}), ENODATA);
	EXPECT_EQ(on.run({.op = Op::read, .nsid = 3, .lba = 101, .blocks = 1, .data = on.data.data()}), 0);
	EXPECT_EQ(on.run({.op = Op::write, .nsid = 3, .lba = 3072, .blocks = 1, .data = on.data.data()}), EIO);
	EXPECT_EQ(on.run({.op = Op::write, .nsid = 3, .lba = 3073, .blocks = 1, .data = on.data.data()}), 0);
	EXPECT_EQ(on.run({.op = Op::flush, .nsid = 3}), EIO);
	EXPECT_EQ(on.run({.op = Op::flush, .nsid = 1}), 0);
	EXPECT_FALSE(on.controller->failed());
}

TEST_F(Nvme, OneThatIsTakenAwayEndsAllThatIsUnderWay)
{
	Running on;
	std::vector<unsigned> ends(64);
	Outcome room[10];

	ASSERT_TRUE(on.controller);
	QueuePair &queue = on.controller->queue(0);

	for (unsigned i = 0; i < ends.size(); i++)
		ASSERT_TRUE(queue.submit({.op = Op::read, .nsid = 3, .lba = 8192 + i, .blocks = 1, .data = on.data.data() + i * 512, .tag = i}));
	queue.ring();
	ASSERT_TRUE(set_present(address(), false));
	EXPECT_EQ(error_of(on.controller->look_after()), ENOTRECOVERABLE);
	EXPECT_TRUE(wait_until([&] {
		for (const Outcome &outcome : queue.poll(room)) {
			EXPECT_TRUE(outcome.error == 0 || outcome.error == ENOTRECOVERABLE) << outcome.error;
			ends[outcome.tag]++;
		}
		return !queue.under_way();
	}));
	EXPECT_TRUE(std::ranges::all_of(ends, [](unsigned n) { return n == 1; }));
	EXPECT_EQ(error_of(queue.submit({.op = Op::flush, .nsid = 1})), ENOTRECOVERABLE);
	on.controller.reset();
	on.device->silence();
	DmaMemory dma(on.pages.span(), iova);

	ASSERT_TRUE(on.device->map_dma({on.pages.span().data(), on.pages.span().size(), iova}));
	ASSERT_TRUE(on.device->enable());
	ASSERT_TRUE(set_present(address(), false));
	EXPECT_FALSE(Controller::start(*on.bar, dma, {}));
	// It is back.
	ASSERT_TRUE(on.device->enable());
	DmaMemory again(on.pages.span(), iova);
	const auto started = Controller::start(*on.bar, again, {});
	EXPECT_TRUE(started) << words_of(started);
}

TEST_F(Nvme, ASilentDeviceWritesNothingAndStartsAnew)
{
	Running on;

	ASSERT_TRUE(on.controller);
	QueuePair &queue = on.controller->queue(0);

	// Under way while it is silenced.
	for (unsigned i = 0; i < 64; i++)
		ASSERT_TRUE(queue.submit({.op = Op::read, .nsid = 2, .lba = i * 16, .blocks = 16, .data = on.data.data() + i * 65536, .tag = i}));
	queue.ring();
	const auto silent = on.device->silence();

	ASSERT_TRUE(silent) << words_of(silent);
	std::vector<std::byte> before(on.pages.span().begin(), on.pages.span().end());

	std::this_thread::sleep_for(std::chrono::milliseconds(200));
	EXPECT_TRUE(std::ranges::equal(before, on.pages.span()));

	// The driver's doorbells do nothing now.
	queue.ring();
	std::this_thread::sleep_for(std::chrono::milliseconds(50));
	EXPECT_TRUE(std::ranges::equal(before, on.pages.span()));
	EXPECT_FALSE(on.controller->look_after() && queue.under_way() == 0);

	on.controller.reset();
	ASSERT_TRUE(on.device->map_dma({on.pages.span().data(), on.pages.span().size(), iova}));
	ASSERT_TRUE(on.device->enable());
	DmaMemory dma(on.pages.span(), iova);

	on.data = *dma.take(data_bytes, 4096);
	auto again = Controller::start(*on.bar, dma, {});

	ASSERT_TRUE(again) << words_of(again);
	on.controller = std::move(*again);
	EXPECT_EQ(on.run({.op = Op::read, .nsid = 1, .lba = 0, .blocks = 1, .data = on.data.data()}), 0);
	on.controller.reset();
}

// Reads of the namespace that is slow are under way when the device is cut off; then it gets the same memory at once. What
// of it has changed, and whether the controller works again.
std::size_t changed_after_cut(bool rest)
{
	Running on;

	if (!on.controller)
		return 0;
	for (unsigned i = 0; i < 64; i++)
		EXPECT_TRUE(on.controller->queue(0).submit({.op = Op::read, .nsid = 3, .lba = 4096 + i * 64, .blocks = 64, .data = on.data.data() + i * 65536}));
	on.controller->queue(0).ring();
	// One has ended: the device has the others.
	Outcome outcome{};
	EXPECT_TRUE(wait_until([&] { return !on.controller->queue(0).poll({&outcome, 1}).empty(); }));
	if (rest) {
		const auto done = bring_to_rest(*on.device);

		EXPECT_TRUE(done) << words_of(done);
		// Once is enough, and who has given a controller up does not trust it.
		EXPECT_EQ(error_of(bring_to_rest(*on.device)), EIO);
	}
	EXPECT_TRUE(on.device->cut_off());
	on.controller.reset();
	std::ranges::fill(on.pages.span(), std::byte{0xc5});
	EXPECT_TRUE(on.device->map_dma({on.pages.span().data(), on.pages.span().size(), iova}));
	EXPECT_TRUE(on.device->enable());
	std::this_thread::sleep_for(std::chrono::milliseconds(600));
	const auto changed = static_cast<std::size_t>(std::ranges::count_if(on.pages.span(), [](std::byte b) { return b != std::byte{0xc5}; }));

	DmaMemory dma(on.pages.span(), iova);

	on.data = *dma.take(data_bytes, 4096);
	auto again = Controller::start(*on.bar, dma, {});
	EXPECT_TRUE(again) << words_of(again);
	if (again) {
		on.controller = std::move(*again);
		EXPECT_EQ(on.run({.op = Op::read, .nsid = 1, .lba = 0, .blocks = 1, .data = on.data.data()}), 0);
		on.controller.reset();
	}
	return changed;
}

TEST_F(Nvme, BroughtToRestItMayHaveItsMemoryBackAtOnce)
{
	EXPECT_EQ(changed_after_cut(true), 0u);
}

// Or the test above would prove nothing.
TEST_F(Nvme, NotBroughtToRestItGoesOn)
{
	EXPECT_GT(changed_after_cut(false), 0u);
}

TEST_F(Nvme, OneThatCannotBeResetIsCutOffAllTheSame)
{
	Running on;

	ASSERT_TRUE(on.controller);
	EXPECT_EQ(on.run({.op = Op::read, .nsid = 1, .lba = 0, .blocks = 1, .data = on.data.data()}), 0);
	on.device->forbid_reset_for_test();
	EXPECT_EQ(error_of(on.device->silence()), EIO);
	std::ranges::fill(on.data, std::byte{0xc5});
	for (unsigned i = 0; i < 16; i++)
		ASSERT_TRUE(on.controller->queue(0).submit({.op = Op::read, .nsid = 1, .lba = 0, .blocks = 8, .data = on.data.data() + i * 4096}));

	const std::vector<std::byte> was(on.pages.span().begin(), on.pages.span().end());

	on.controller->queue(0).ring();
	std::this_thread::sleep_for(std::chrono::milliseconds(200));
	EXPECT_TRUE(std::ranges::equal(was, on.pages.span()));
	on.controller.reset();
}

TEST_F(Nvme, RegistersAreReadByTheKernelToo)
{
	Running on;

	ASSERT_TRUE(on.controller);
	EXPECT_EQ(*on.device->read_register(0, reg::vs), on.bar->read<std::uint32_t>(reg::vs));
	EXPECT_EQ(error_of(on.device->read_register(0, 2)), ERANGE);
	EXPECT_EQ(error_of(on.device->read_register(0, std::size_t{1} << 30)), ERANGE);
	EXPECT_EQ(error_of(on.device->read_register(6, 0)), ERANGE);
	EXPECT_EQ(error_of(on.device->write_register(3, 0, 0)), ERANGE);
	on.controller->give_up();
	EXPECT_EQ(*on.device->read_register(0, reg::cc) & cc::en, 0u);
	EXPECT_EQ(error_of(bring_to_rest(*on.device)), EIO);
}

// What the driver has not been given the device does not reach: the IOMMU sees to that.
TEST_F(Nvme, MemoryThatIsNotTheDevicesIsNotReached)
{
	Running on;

	ASSERT_TRUE(on.controller);
	Pages other(on.pages.span().size());

	ASSERT_TRUE(on.device->unmap_dma(iova));
	ASSERT_TRUE(on.device->map_dma({other.span().data(), other.span().size(), iova}));
	for (unsigned i = 0; i < 16; i++)
		ASSERT_TRUE(on.controller->queue(0).submit({.op = Op::read, .nsid = 1, .lba = 0, .blocks = 1, .data = on.data.data() + i * 512}));

	const std::vector<std::byte> was(on.pages.span().begin(), on.pages.span().end());

	on.controller->queue(0).ring();
	std::this_thread::sleep_for(std::chrono::milliseconds(200));
	EXPECT_TRUE(std::ranges::equal(was, on.pages.span()));
	EXPECT_TRUE(on.device->silence());
	on.controller.reset();
}

TEST_F(Nvme, IsRefusedWhereItCannotBeHad)
{
	EXPECT_EQ(error_of(Device::open("")), EINVAL);
	EXPECT_EQ(error_of(Device::open("0000:00:1f")), EINVAL);
	EXPECT_EQ(error_of(Device::open("/dev/nvme0")), EINVAL);
	EXPECT_EQ(error_of(Device::open("0000:00:1e.7")), ENODEV);
	{
		auto once = Device::open(address());

		ASSERT_TRUE(once) << words_of(once);
		EXPECT_EQ(error_of(Device::open(address())), EBUSY);
		EXPECT_EQ(error_of((*once)->map_dma({nullptr, 0, 0})), EINVAL);
		EXPECT_EQ(error_of((*once)->map_dma({reinterpret_cast<void *>(4096), 100, 0})), EINVAL);
		EXPECT_EQ(error_of((*once)->unmap_dma(4096)), ENOENT);
		EXPECT_EQ(error_of((*once)->read_config(1 << 20, 4)), ERANGE);
		EXPECT_EQ(error_of(Bar::map((*once)->descriptor(), 6)), ENOENT);
		EXPECT_EQ(error_of(Bar::map((*once)->descriptor(), 3)), ENOENT);
	}
	ASSERT_TRUE(give(address(), "nvme"));
	EXPECT_EQ(error_of(Device::open(address())), ENXIO);
	EXPECT_EQ(driver_of(address()), "nvme");
}

TEST_F(Nvme, TooLittleMemoryIsSaid)
{
	auto device = Device::open(address());

	ASSERT_TRUE(device) << words_of(device);
	Pages pages(64 << 10);

	ASSERT_TRUE((*device)->map_dma({pages.span().data(), pages.span().size(), iova}));
	EXPECT_EQ(error_of((*device)->map_dma({pages.span().data(), pages.span().size(), iova})), EEXIST);
	ASSERT_TRUE((*device)->enable());
	auto bar = Bar::map((*device)->descriptor(), 0);

	ASSERT_TRUE(bar) << words_of(bar);
	DmaMemory dma(pages.span(), iova);

	EXPECT_EQ(error_of(Controller::start(*bar, dma, {})), ENOMEM);
}

// Whether this kernel has it, and $ORBIT_VFIO, by which these tests run both ways, does not exclude it.
bool may_be_tested(Vfio by)
{
	const char *const wanted = std::getenv("ORBIT_VFIO");

	if (by == Vfio::iommufd && (access("/dev/iommu", F_OK) || access("/dev/vfio/devices", F_OK)))
		return false;
	return !wanted || std::string_view(wanted) == (by == Vfio::iommufd ? "iommufd" : "group");
}

TEST_F(Nvme, IsOpenByTheInterfaceThatIsWanted)
{
	const char *const named = std::getenv("ORBIT_VFIO");
	const std::string before = named ? named : "";
	const bool both = access("/dev/iommu", F_OK) == 0 && access("/dev/vfio/devices", F_OK) == 0;

	for (const Vfio by : {Vfio::iommufd, Vfio::group}) {
		const Vfio other = by == Vfio::group ? Vfio::iommufd : Vfio::group;
		auto device = Device::open(address(), by);

		if (by == Vfio::iommufd && !both) {
			EXPECT_EQ(error_of(device), ENODEV);
			continue;
		}
		ASSERT_TRUE(device) << words_of(device);
		EXPECT_EQ((*device)->interface(), by);
		EXPECT_EQ(error_of(Device::open(address(), by)), EBUSY);
		EXPECT_EQ(error_of(Device::open(address(), Vfio::any)), EBUSY);
		if (both) {
			EXPECT_EQ(error_of(Device::open(address(), other)), EBUSY);
		}
	}
	for (const auto &[text, by] : {std::pair{"group", Vfio::group}, {"iommufd", Vfio::iommufd}, {"", both ? Vfio::iommufd : Vfio::group}}) {
		ASSERT_EQ(setenv("ORBIT_VFIO", text, 1), 0);
		auto device = Device::open(address());

		if (by == Vfio::iommufd && !both) {
			EXPECT_EQ(error_of(device), ENODEV);
		} else {
			ASSERT_TRUE(device) << words_of(device);
			EXPECT_EQ((*device)->interface(), by) << text;
		}
	}
	ASSERT_EQ(setenv("ORBIT_VFIO", "container", 1), 0);
	EXPECT_EQ(error_of(Device::open(address())), EINVAL);
	EXPECT_EQ(before.empty() ? unsetenv("ORBIT_VFIO") : setenv("ORBIT_VFIO", before.c_str(), 1), 0);
}

constexpr unsigned somebody = 65534, nobody = 65533;

// What a user without privileges ends with who may pin 64 MiB.
int as_user(unsigned id, const std::function<int()> &what)
{
	int status = -1;
	const pid_t child = fork();

	if (!child) {
		const rlimit limit{64 << 20, 64 << 20};

		_exit(setrlimit(RLIMIT_MEMLOCK, &limit) || setgid(id) || setuid(id) ? 255 : what());
	}
	return waitpid(child, &status, 0) == child && WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

// Either interface's files are enough.
TEST_F(Nvme, ServesAUserWhoMayHaveIt)
{
	const auto give_files = [](Vfio by, unsigned owner) {
		const bool group = by == Vfio::group;

		for (const std::string &name : names_in(group ? "/dev/vfio" : "/dev/vfio/devices")) {
			if (name == "vfio" || name == "devices")
				continue;
			ASSERT_EQ(chown(((group ? "/dev/vfio/" : "/dev/vfio/devices/") + name).c_str(), owner, 0), 0);
		}
		ASSERT_EQ(chmod(group ? "/dev/vfio/vfio" : "/dev/iommu", owner ? 0666 : 0600), 0);
	};
	const auto reads_by = [](Vfio by) {
		Running on;

		if (!on.controller)
			return 254;
		if (on.device->interface() != by)
			return 253;
		const int done = on.run({.op = Op::read, .nsid = 1, .lba = 0, .blocks = 1, .data = on.data.data()});

		on.controller.reset();
		on.device.reset();
		return done;
	};
	const auto open_error = [] { return error_of(Device::open(address())); };

	EXPECT_EQ(as_user(somebody, open_error), EACCES);
	for (const Vfio by : {Vfio::iommufd, Vfio::group}) {
		if (!may_be_tested(by))
			continue;
		give_files(by, somebody);
		EXPECT_EQ(as_user(somebody, [&] { return reads_by(by); }), 0);
		EXPECT_EQ(as_user(nobody, open_error), EACCES);
		give_files(by, 0);
	}
}

// Who may pin no more than what is left.
TEST_F(Nvme, MemoryThatMayNotBePinnedIsSaid)
{
	EXPECT_EQ(as_user(0, [] {
			  auto device = Device::open(address());
			  Pages pages(1 << 20);
			  const rlimit limit{64 << 10, 64 << 10};

			  if (!device || setrlimit(RLIMIT_MEMLOCK, &limit) || setgid(somebody) || setuid(somebody))
				  return 255;
			  return error_of((*device)->map_dma({pages.span().data(), pages.span().size(), iova}));
		  }),
		  ENOMEM);
}

} // namespace
