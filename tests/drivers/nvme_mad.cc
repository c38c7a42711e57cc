// SPDX-License-Identifier: MIT
//
// Drivers that are out of their minds: what they do to their device reaches nobody's memory but their own, their callers get
// errors, and the next driver has a device that works.
#include "../../isolation/pci/iommufd.h"
#include "domain_test.h"

#include <fstream>
#include <linux/vfio.h>
#include <random>
#include <sys/ioctl.h>

namespace {

constexpr unsigned depth = 63;

// What it does when it is called; a request's first block says which.
enum Madness : std::uint64_t {
	foreign_memory,
	other_address_space,
	garbage_queues,
	garbage_doorbells,
	garbage_outcomes,
	garbage_rings,
	other_interrupts,
	no_outcome,
	no_answer,
	madnesses
};
const char *const names[] = {"ForeignMemory", "OtherAddressSpace", "GarbageQueues", "GarbageDoorbells", "GarbageOutcomes", "GarbageRings", "OtherInterrupts", "NoOutcome", "NoAnswer"};
static_assert(std::size(names) == madnesses);

constexpr int reached_more = EXFULL; // instead of an outcome's error
constexpr std::size_t reaches = 16;

// --- in the domain

class MadWorker final : public block::Device, public block::Driver {
public:
	explicit MadWorker(orbit::isolation::Endpoint &endpoint) : endpoint_(endpoint) {}

	orbit::result<void> start(std::int32_t device, const block::Memory &memory, const block::Settings &,
				  std::span<const std::int32_t> interrupts) override
	{
		auto bar = orbit::pci::Bar::map(device, 0);
		auto bytes = endpoint_.make_array_for_overwrite<std::byte>(Zone{memory.queues}, nvme::Controller::memory_for({.depth = depth}));

		if (!bar || !bytes)
			return orbit::failed(EIO);
		iova_ = memory.iova + memory.bytes;
		bar_.emplace(std::move(*bar));
		device_ = device;
		interrupts_.assign(interrupts.begin(), interrupts.end());
		queues_ = std::move(*bytes);
		end_ = reinterpret_cast<std::byte *>(memory.address) + memory.bytes;
		// It says that it has a GiB more than it was given.
		memory_.emplace(std::span(reinterpret_cast<std::byte *>(memory.address), memory.bytes + (std::size_t{1} << 30)), memory.iova,
				queues_.elements());
		auto started = nvme::Controller::start(*bar_, *memory_, {.depth = depth});
		if (!started)
			return orbit::failed(started.error().code());
		controller_ = std::move(*started);
		return {};
	}
	orbit::result<block::DriverStatistics> statistics() override { return block::DriverStatistics{}; }
	orbit::result<block::Limits> limits() override { return block::Limits{}; }
	orbit::result<std::vector<block::Space>> spaces() override { return std::vector<block::Space>{}; }
	orbit::result<rref<std::byte[]>> read(std::uint32_t, std::uint64_t, std::uint32_t, rref<std::byte[]> into) override { return into; }
	orbit::result<void> write(std::uint32_t, std::uint64_t, std::uint32_t, const rref<std::byte[]> &) override { return {}; }
	orbit::result<void> flush(std::uint32_t) override { return {}; }

	orbit::result<std::vector<block::Outcome>> exchange(std::span<const Request> requests, std::uint32_t) override
	{
		std::vector<block::Outcome> outcomes;

		for (const Request &request : requests) {
			const int error = rage(request.lba) ? EIO : reached_more;
			if (request.lba == garbage_outcomes)
				while (outcomes.size() + 1 < block::most_requests)
					outcomes.push_back({random_(), static_cast<std::int32_t>(random_())});
			if (request.lba != no_outcome)
				outcomes.push_back({request.tag, error});
		}
		return outcomes;
	}

private:
	// Whether it has come no further than it may.
	bool rage(std::uint64_t madness)
	{
		if (madness == foreign_memory) {
			reach_out();
		} else if (madness == other_address_space) {
			return stays_in_its_space();
		} else if (madness == garbage_queues) {
			for (std::byte &byte : queues_.elements())
				byte = static_cast<std::byte>(random_());
			doorbell(2, 7);
			doorbell(0, 5);
		} else if (madness == garbage_doorbells) {
			for (unsigned i = 0; i < 200; i++)
				doorbell(random_() % 64, static_cast<std::uint32_t>(random_()));
		} else if (madness == garbage_rings) {
			// All that it can write of what calls go over.
			std::ifstream maps("/proc/self/maps");
			for (std::string line; std::getline(maps, line);) {
				unsigned long begin, end;
				if (line.find("rings") != line.npos && line.find(" rw-s ") != line.npos &&
				    std::sscanf(line.c_str(), "%lx-%lx", &begin, &end) == 2)
					for (auto at = reinterpret_cast<std::uint64_t *>(begin); at < reinterpret_cast<std::uint64_t *>(end); at++)
						*at = random_();
			}
		} else if (madness == other_interrupts) {
			// It takes MSI-X from the supervisor, has the device's pin raised for it instead, and counts what never came.
			const std::uint64_t most = ~std::uint64_t{0} - 1;
			set_interrupts(VFIO_PCI_MSIX_IRQ_INDEX, {});
			set_interrupts(VFIO_PCI_INTX_IRQ_INDEX, std::span(interrupts_).first(1));
			for (const int event : interrupts_)
				if (::write(event, &most, sizeof(most)) < 0)
					break; // it is full
		} else if (madness == no_answer) {
			for (;;)
				pause();
		}
		std::this_thread::sleep_for(std::chrono::milliseconds(100));
		return true;
	}
	// Reads of blocks, so writes to memory, at addresses behind what the device was given.
	void reach_out()
	{
		for (std::size_t i = 0; i < reaches; i++)
			(void)controller_->queue(0).submit({.op = nvme::Op::read, .nsid = 1, .lba = 0, .blocks = 8,
							    .data = end_ + 4096 + (i << 20), .tag = i});
		controller_->queue(0).ring();
	}
	// Makes an address space of its own, where that memory is, and tries to have the device there. It is root here; what it has not
	// is the descriptor by which the supervisor maps memory.
	bool stays_in_its_space()
	{
		namespace uapi = orbit::pci::uapi;
		const Pages own((reaches + 1) << 20);
		const int iommu = open("/dev/iommu", O_RDWR | O_CLOEXEC);

		for (const std::string &fd : names_in("/proc/self/fd")) {
			char target[256];
			const ssize_t n = readlink(("/proc/self/fd/" + fd).c_str(), target, sizeof(target));
			const std::string_view path(target, static_cast<std::size_t>(std::max<ssize_t>(n, 0)));

			if (std::atoi(fd.c_str()) != iommu && (path == "/dev/iommu" || path == "/dev/vfio/vfio" || iommu_group(path)))
				return false;
		}
		std::ranges::fill(own.span(), canary);
		for (int spaces = 0; iommu >= 0 && spaces < 8; spaces++) {
			uapi::IoasAlloc made{.size = sizeof(made), .flags = 0, .id = 0};
			if (ioctl(iommu, uapi::ioas_alloc, &made))
				return false;
			uapi::IoasMap map{.size = sizeof(map), .flags = uapi::map_fixed_iova | uapi::map_readable | uapi::map_writable,
					  .id = made.id, .reserved = 0, .memory = reinterpret_cast<std::uintptr_t>(own.span().data()),
					  .bytes = own.span().size(), .iova = iova_};
			if (ioctl(iommu, uapi::ioas_map, &map))
				return false;
		}
		uapi::DeviceDetach detach{.argsz = sizeof(detach), .flags = 0};
		uapi::DeviceBind bind{.argsz = sizeof(bind), .flags = 0, .iommufd = iommu, .device_id = 0};
		ioctl(device_, uapi::device_detach, &detach);
		bool bound = ioctl(device_, uapi::device_bind, &bind) == 0;
		for (std::uint32_t id = 0; id < 64; id++) {
			uapi::DeviceAttach attach{.argsz = sizeof(attach), .flags = 0, .table_id = id};
			ioctl(device_, uapi::device_attach, &attach);
		}
		reach_out();
		std::this_thread::sleep_for(std::chrono::milliseconds(300));
		// The next driver shall have its device all the same.
		ioctl(device_, uapi::device_detach, &detach);
		return !bound && std::ranges::all_of(own.span(), [](std::byte b) { return b == canary; });
	}
	static bool iommu_group(std::string_view path)
	{
		return path.starts_with("/dev/vfio/") && path.find_first_not_of("0123456789", 10) == path.npos;
	}
	void set_interrupts(unsigned index, std::span<const int> events) const
	{
		vfio_irq_set set{};

		set.argsz = static_cast<std::uint32_t>(sizeof(set) + events.size_bytes());
		set.flags = VFIO_IRQ_SET_ACTION_TRIGGER | (events.empty() ? VFIO_IRQ_SET_DATA_NONE : VFIO_IRQ_SET_DATA_EVENTFD);
		set.index = index;
		set.count = static_cast<std::uint32_t>(events.size());
		std::vector<std::byte> what(set.argsz);

		std::memcpy(what.data(), &set, sizeof(set));
		if (!events.empty())
			std::memcpy(what.data() + sizeof(set), events.data(), events.size_bytes());
		if (ioctl(device_, VFIO_DEVICE_SET_IRQS, what.data()))
			std::perror("interrupts");
	}
	void doorbell(std::size_t number, std::uint32_t value)
	{
		bar_->write<std::uint32_t>(nvme::reg::doorbells + number * 4, value);
	}

	orbit::isolation::Endpoint &endpoint_;
	std::mt19937_64 random_{1};
	std::optional<orbit::pci::Bar> bar_;
	rref<std::byte[]> queues_;
	std::optional<nvme::DmaMemory> memory_;
	std::unique_ptr<nvme::Controller> controller_;
	std::byte *end_ = nullptr;
	int device_ = -1;
	std::vector<int> interrupts_;
	std::uint64_t iova_ = 0; // the device's address of that
};

// Both services are the same object.
std::shared_ptr<MadWorker> mad_worker(const orbit::isolation::Connection &connection)
{
	static const auto one = std::make_shared<MadWorker>(*connection.endpoint);

	return one;
}

template <class Skeleton> orbit::Service mad()
{
	return {&Skeleton::interface_, [](const orbit::isolation::Connection &connection) -> std::shared_ptr<orbit::isolation::Skeleton> {
			return std::make_shared<Skeleton>(mad_worker(connection), connection);
		}};
}

// --- in the main program

class MadDriver : public testing::TestWithParam<std::uint64_t> {};

TEST_P(MadDriver, HurtsNobody)
{
	ASSERT_NE(address(), "");
	ASSERT_TRUE(give(address(), "vfio-pci"));
	auto device = orbit::pci::Device::open(address());
	ASSERT_TRUE(device) << words_of(device);
	auto supervisor = Supervisor::create({.zones = {{4 << 20, 4 << 20}, {nvme::queues_bytes(depth), 0}}});
	ASSERT_TRUE(supervisor) << words_of(supervisor);
	auto options = nvme::domain_options(**supervisor, **device, {.depth = depth, .interrupts = GetParam() == other_interrupts, .timeout = std::chrono::seconds(3), .restarts = {.most = 0}});
	auto good = options;

	options.services = {mad<block::DriverSkeleton>(), mad<block::DeviceSkeleton>()};
	good.name = "sane";
	std::vector<rref<std::byte[]>> mine;
	for (int i = 0; i < 16; i++) {
		auto bytes = (*supervisor)->endpoint().make_array<std::byte>(data, 64 << 10);
		ASSERT_TRUE(bytes);
		std::ranges::fill(bytes->elements(), canary);
		mine.push_back(std::move(*bytes));
	}
	// The kernel tells of so many in five seconds, and the test before may have had them.
	if (GetParam() == other_address_space)
		std::this_thread::sleep_for(std::chrono::seconds(6));
	const unsigned faults = iommu_faults();
	{
		auto domain = (*supervisor)->start(options);
		ASSERT_TRUE(domain) << words_of(domain);
		auto proxy = (*domain)->proxy<block::DeviceProxy>();
		ASSERT_TRUE(proxy);
		Queue queue(std::make_shared<block::DeviceProxy>(std::move(*proxy)), (*supervisor)->endpoint(), (*domain)->connection().peer,
			    (*domain)->recovery(), depth, std::chrono::seconds(1));
		auto bytes = (*supervisor)->endpoint().make_array<std::byte>(data, 4096);
		ASSERT_TRUE(bytes);
		ASSERT_TRUE(queue.submit({.tag = 7, .lba = GetParam(), .data = {}, .space = 1, .blocks = 8, .op = Op::read}, std::move(*bytes)));
		std::vector<Finished> finished;
		ASSERT_TRUE(wait_until([&] { return !(finished = queue.finish(1)).empty(); }));
		EXPECT_EQ(finished.size(), 1u);
		EXPECT_EQ(finished[0].tag, 7u);
		EXPECT_NE(finished[0].error, 0);
		if (GetParam() == other_address_space) {
			EXPECT_EQ(finished[0].error, EIO) << ((*domain)->last_report() ? (*domain)->last_report()->message() : "");
		}
	}
	for (const auto &bytes : mine)
		EXPECT_TRUE(std::ranges::all_of(bytes.elements(), [](std::byte b) { return b == canary; }));
	if (GetParam() == foreign_memory || GetParam() == other_address_space) {
		EXPECT_GT(iommu_faults(), faults);
	}

	auto next = (*supervisor)->start(good);
	ASSERT_TRUE(next) << words_of(next);
	auto proxy = (*next)->proxy<block::DeviceProxy>();
	ASSERT_TRUE(proxy);
	auto bytes = (*supervisor)->endpoint().make_array<std::byte>(data, 4096);
	ASSERT_TRUE(bytes);
	auto read = proxy->read(1, 0, 8, std::move(*bytes));
	EXPECT_TRUE(read) << words_of(read);
}
INSTANTIATE_TEST_SUITE_P(With, MadDriver, testing::Range<std::uint64_t>(0, madnesses),
			 [](const auto &madness) { return names[madness.param]; });

} // namespace
