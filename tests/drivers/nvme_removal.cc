// SPDX-License-Identifier: MIT
//
// A controller that is taken out while its driver works: by somebody who asks first, and by somebody who does not. The machine has it
// in a slot, and gives this program its monitor.
#include "domain_test.h"
#include "monitor.h"

#include <poll.h>
#include <set>

namespace {

constexpr unsigned depth = 127;
constexpr std::uint32_t blocks = 8; // of a request

// The address of the bridge above a device, whose slot that is in.
std::string bridge_of(const std::string &device)
{
	char target[512];
	const ssize_t n = readlink((pci + "devices/" + device).c_str(), target, sizeof(target));
	std::string path(target, static_cast<std::size_t>(std::max<ssize_t>(n, 0)));

	path.erase(path.rfind('/'));
	return path.substr(path.rfind('/') + 1);
}

// A slot's control register, by its config space.
class Slot {
public:
	explicit Slot(const std::string &bridge) : fd_(open((pci + "devices/" + bridge + "/config").c_str(), O_RDWR | O_CLOEXEC))
	{
		std::uint8_t at = 0, capability = 0;

		EXPECT_EQ(pread(fd_, &at, 1, PCI_CAPABILITY_LIST), 1) << bridge;
		while (at && pread(fd_, &capability, 1, at) == 1 && capability != PCI_CAP_ID_EXP)
			if (pread(fd_, &at, 1, at + PCI_CAP_LIST_NEXT) != 1)
				break;
		at_ = at + PCI_EXP_SLTCTL;
	}
	~Slot() { close(fd_); }
	Slot(const Slot &) = delete;
	Slot &operator=(const Slot &) = delete;

	unsigned control() const
	{
		std::uint16_t control = 0;

		EXPECT_EQ(pread(fd_, &control, sizeof(control), at_), 2);
		return control;
	}
	bool is_off() const { return (control() & power) == off; }
	bool is_on() const { return (control() & power) == PCI_EXP_SLTCTL_PWR_IND_ON; }

	// QEMU takes out what is in the slot when its power and its indicator go off. Then the power is on again, and only then is Linux
	// interrupted: it has not turned the slot off, and finds that somebody has pulled the device out.
	void pull_out() const
	{
		for (const unsigned bits : {off, unsigned{PCI_EXP_SLTCTL_PWR_IND_ON | PCI_EXP_SLTCTL_PDCE | PCI_EXP_SLTCTL_HPIE}}) {
			const auto control = static_cast<std::uint16_t>((this->control() & ~(power | PCI_EXP_SLTCTL_HPIE)) | bits);

			EXPECT_EQ(pwrite(fd_, &control, sizeof(control), at_), 2);
		}
	}

private:
	static constexpr unsigned power = PCI_EXP_SLTCTL_PCC | PCI_EXP_SLTCTL_PIC;
	static constexpr unsigned off = PCI_EXP_SLTCTL_PWR_OFF | PCI_EXP_SLTCTL_PWR_IND_OFF;

	int fd_;
	off_t at_ = 0;
};

class NvmeRemoval : public NvmeTest {
protected:
	void SetUp() override
	{
		ASSERT_TRUE(monitor.is_there()) << "this machine gives nobody its monitor";
		// The test before may have taken it.
		if (address().empty()) {
			ASSERT_TRUE(put_in());
		}
		ASSERT_NO_FATAL_FAILURE(start());
	}

	bool put_in()
	{
		// When Linux has done with the one before: by turning the slot off it would take out the next, too.
		return wait_until([] { return Slot(bridge).is_off(); }) &&
		       monitor.run(R"({"execute": "device_add", "arguments": {"driver": "nvme", "id": "nvme", "bus": "bay", "serial": "orbit", "drive": "disk"}})") &&
		       wait_until([] { return !address().empty() && driver_of(address()) == "nvme" && Slot(bridge).is_on(); });
	}

	void start()
	{
		where = address();
		bridge = bridge_of(where);
		// Linux writes to that register, too, until it has done with the slot.
		ASSERT_TRUE(wait_until([] { return Slot(bridge).is_on(); }));
		ASSERT_NO_FATAL_FAILURE(open_controller(4 << 20, nvme::queues_bytes(depth)));
		NvmeTest::start(nvme::domain_options(*supervisor, *device, {.depth = depth, .restarts = {.most = 3}}));
	}

	void stop()
	{
		queue.reset();
		calls.reset();
		domain.reset();
		supervisor.reset();
		device.reset();
	}

	// Requests at places of their own, as many as may be under way.
	void submit(Op op)
	{
		ended.clear();
		done.clear();
		for (std::uint64_t i = 0; i < at_once; i++) {
			auto bytes = supervisor->endpoint().make_array<std::byte>(data, blocks * 512);
			ASSERT_TRUE(bytes) << words_of(bytes);
			if (op == Op::write)
				fill(bytes->elements(), 1, i * blocks, 3);
			ASSERT_TRUE(queue->submit({.tag = i, .lba = i * blocks, .data = {}, .space = 1, .blocks = blocks, .op = op}, std::move(*bytes)));
		}
	}

	// Some of them end, each once and with one of these errors.
	void take(std::uint32_t wait_for, const std::set<int> &errors)
	{
		for (const Finished &finished : queue->finish(wait_for)) {
			EXPECT_TRUE(errors.contains(finished.error)) << finished.error;
			EXPECT_TRUE(finished.data) << "the buffer is lost";
			EXPECT_TRUE(ended.insert(finished.tag).second);
			if (!finished.error)
				done.insert(finished.tag);
		}
	}

	void take_all(const std::set<int> &errors)
	{
		EXPECT_TRUE(wait_until([&] {
			take(1, errors);
			return !queue->under_way();
		}));
		EXPECT_EQ(ended.size(), at_once);
	}

	bool is_wanted_back()
	{
		pollfd wanted{device->wanted_back(), POLLIN, 0};

		return poll(&wanted, 1, 60000) == 1;
	}

	// What the device holds, in the end, of what was written.
	void expect_written()
	{
		for (const std::uint64_t place : done) {
			auto bytes = supervisor->endpoint().make_array<std::byte>(data, blocks * 512);
			ASSERT_TRUE(bytes);
			auto read = calls->read(1, place * blocks, blocks, std::move(*bytes));
			ASSERT_TRUE(read) << words_of(read);
			EXPECT_TRUE(holds(read->elements(), 1, place * blocks, 3)) << place;
		}
	}

	std::string where;
	static inline std::string bridge; // the same in all tests
	Monitor &monitor = Monitor::only();
	std::set<std::uint64_t> ended, done; // of what was submitted last; these without an error
};

TEST_F(NvmeRemoval, WhoAsksForItGetsItWhenTheProgramIsDone)
{
	ASSERT_NO_FATAL_FAILURE(submit(Op::write));
	take(1, {0});
	ASSERT_TRUE(monitor.run(R"({"execute": "device_del", "arguments": {"id": "nvme"}})"));
	ASSERT_TRUE(is_wanted_back());
	// It works until it is let go of, and so does another driver of it.
	ASSERT_EQ(kill(domain->pid(), SIGKILL), 0);
	take_all({0});
	ASSERT_NO_FATAL_FAILURE(submit(Op::write));
	take_all({0});
	EXPECT_EQ(done.size(), at_once);
	EXPECT_TRUE(calls->flush(1));
	EXPECT_EQ(address(), where);
	stop();
	EXPECT_TRUE(monitor.tells("DEVICE_DELETED"));
	EXPECT_TRUE(wait_until([] { return address().empty(); }));
	EXPECT_EQ(error_of(orbit::pci::Device::open(where)), ENODEV);

	ASSERT_TRUE(put_in());
	ASSERT_NO_FATAL_FAILURE(start());
	expect_written();
}

TEST_F(NvmeRemoval, OneThatIsPulledOutEndsAllWithAnError)
{
	ASSERT_NO_FATAL_FAILURE(submit(Op::write));
	take(1, {0});
	Slot(bridge).pull_out();
	take_all({0, EHOSTDOWN, ECONNRESET});
	EXPECT_FALSE(calls->flush(1));
	EXPECT_EQ(error_of(calls->limits()), EHOSTDOWN);
	EXPECT_FALSE(domain->statistics().running);
	EXPECT_TRUE(is_wanted_back());
	{
		const std::scoped_lock locked(mutex);

		ASSERT_FALSE(reports.empty());
		EXPECT_FALSE(reports.back().refused.empty()) << reports.back().message();
	}
	// Nobody has it any more; but its place is not another's before it is let go of.
	stop();
	EXPECT_TRUE(wait_until([] { return address().empty(); }));
	EXPECT_EQ(error_of(orbit::pci::Device::open(where)), ENODEV);

	ASSERT_TRUE(put_in());
	ASSERT_NO_FATAL_FAILURE(start());
	expect_written();
}

// Nothing was under way, and nobody calls: the next who does is told.
TEST_F(NvmeRemoval, OneThatIsPulledOutWhileItIsIdleIsAnErrorForTheNextCaller)
{
	ASSERT_TRUE(calls->flush(1));
	Slot(bridge).pull_out();
	ASSERT_TRUE(is_wanted_back());
	EXPECT_FALSE(calls->flush(1));
	ASSERT_NO_FATAL_FAILURE(submit(Op::read));
	take_all({EHOSTDOWN, ECONNRESET});
	stop();
	EXPECT_TRUE(wait_until([] { return address().empty(); }));
}

} // namespace
