// SPDX-License-Identifier: MIT
//
// What a 4 KiB read costs by the NVMe driver, in a domain and linked into the program, beside Linux's own driver. README.md says how it is
// counted. The guest is this program's alone, so it binds and unbinds as it likes.
#include "counted.h"

#include "../../tests/drivers/machine.h"

#include "domain.h"
#include "queue.h"

#include <orbit/direct.hpp>
#include <orbit/domain.hpp>
#include <orbit/orbit.hpp>
#include <orbit/ring.hpp>

#include <linux/io_uring.h>
#include <sys/syscall.h>

namespace {

using namespace counted;
using namespace orbit::isolation;
using machine::Pages;
using orbit::rref;
using orbit::block::Op;
using orbit::block::Queue;
namespace block = orbit::block;
namespace nvme = orbit::nvme;

constexpr DomainId caller = 1, driver = 2;
constexpr orbit::Zone data{0}, queues{1};
constexpr unsigned depth = 127;
constexpr std::size_t read_bytes = 4096;
constexpr std::uint32_t blocks = read_bytes / 512;
constexpr std::uint64_t iova = 0x10000000;
constexpr std::uint64_t range_blocks = 1024 * blocks; // of the namespace that is read

// What a request costs where rounds ask for a batch and take the one before, whose buffers come back.
template <class Buffers, class Ask, class Take> double each_round(unsigned batch, Buffers &buffers, Ask &&ask, Take &&take)
{
	return each(batch, [&] {
		ask();
		take(0);
		const bool all = buffers.size() >= batch;
		while (buffers.size() < batch)
			take(1);
		return all;
	});
}

// ---- By a Queue, whatever is behind it -----------------------------------------------------------

// As many requests as two batches are under way: each round asks for a batch, and takes the one before, which has ended by
// then. So nobody waits.
void by_queue(const std::string &name, Queue &queue, Endpoint &endpoint, unsigned batch)
{
	std::vector<rref<std::byte[]>> buffers;
	std::uint64_t next = 0;

	for (unsigned n = 0; n < 2 * batch; n++)
		buffers.push_back(get(endpoint.make_array<std::byte>(data, read_bytes), "a buffer"));
	const auto ask = [&] {
		for (unsigned n = 0; n < batch; n++, next++) {
			get(queue.submit({.tag = next, .lba = next % 1024 * blocks, .data = {}, .space = 1, .blocks = blocks, .op = Op::read},
					 std::move(buffers.back())),
			    "a request");
			buffers.pop_back();
		}
	};
	const auto take = [&](std::uint32_t wait_for) {
		for (block::Finished &finished : queue.finish(wait_for)) {
			check(!finished.error, "a read");
			buffers.push_back(std::move(finished.data));
		}
	};

	ask();
	figure(name + "/batch=" + std::to_string(batch), each_round(batch, buffers, ask, take));
	while (queue.under_way())
		take(1);
}

// ---- In one thread -------------------------------------------------------------------------------

// No domain dies here.
class Undisturbed final : public Recovery {
public:
	std::uint64_t starts() const noexcept override { return 1; }
	std::uint64_t settled() override { return 1; }
	void replace(std::uint64_t) override { die("the driver withholds an outcome"); }
};

// A heap with both sides in this process, and the device's driver at one of them.
struct World {
	explicit World(orbit::pci::Device &opened)
		: device(opened), sizes{4 << 20, nvme::queues_bytes(depth, 1)}, memory(Heap::bytes(2, sizes)),
		  heap(get(Heap::create(memory.span(), 2, sizes), "heap"))
	{
		for (const DomainId domain : {caller, driver})
			for (const orbit::Zone zone : {data, queues})
				get(heap.add(domain, zone.number), "zone");
		get(heap.grant(caller, data.number, 3 << 20), "grant");
		get(heap.grant(driver, queues.number, sizes[1]), "grant");
		here = get(Endpoint::attach(memory.span(), caller), "endpoint");
		there = get(Endpoint::attach(memory.span(), driver), "endpoint");
		get(device.map_dma({memory.span().data(), memory.span().size(), iova}), "memory for DMA");
		get(device.enable(), "bus master");
		worker = std::make_shared<nvme::Worker>(*there, caller, nullptr);
		get(worker->start(device.descriptor(),
				  {.address = reinterpret_cast<std::uintptr_t>(memory.span().data()),
				   .bytes = memory.span().size(),
				   .iova = iova,
				   .queues = queues.number},
				  {.queues = 1, .depth = depth, .timeout_ms = 10000}, {}),
		    "the controller");
		object = std::make_shared<block::DeviceSkeleton>(worker->make_device(), Connection{.endpoint = there.get(), .peer = caller});
	}
	~World()
	{
		object.reset();
		worker.reset();
		get(device.silence(), "silence");
	}

	std::shared_ptr<block::DeviceProxy> proxy(std::shared_ptr<Transport> transport) const
	{
		return std::make_shared<block::DeviceProxy>(std::move(transport), Connection{.endpoint = here.get(), .peer = driver});
	}

	orbit::pci::Device &device;
	std::size_t sizes[2];
	Pages memory;
	Heap heap;
	std::unique_ptr<Endpoint> here, there;
	std::shared_ptr<nvme::Worker> worker;
	std::shared_ptr<Skeleton> object;
};

// A call by a ring, where this thread does the server's work, too: what both sides do, and no way between them.
class BothSides final : public Transport {
public:
	explicit BothSides(Skeleton &object)
		: memory_(ring_bytes(shape)), object_(object),
		  ring_(get(RingTransport::create(get(ring_memory(memory_.span(), shape), "ring"), shape), "caller")),
		  server_(get(RingServer::create(get(ring_memory(memory_.span(), shape), "ring"), shape), "server"))
	{
	}
	int call(std::uint32_t method, std::span<const std::byte> args, std::span<std::byte> reply, std::size_t *reply_bytes,
		 std::uint64_t timeout_ns) override
	{
		RingTicket ticket;

		if (const int error = ring_->start(method, args, &ticket))
			return error;
		server_->serve(object_, 0); // until there is none
		return ring_->finish(ticket, reply, reply_bytes, timeout_ns);
	}

private:
	static constexpr RingShape shape{.slots = 16, .message_bytes = 8192, .spins = 0};

	Pages memory_;
	Skeleton &object_;
	std::shared_ptr<RingTransport> ring_;
	std::shared_ptr<RingServer> server_;
};

void in_one_thread(orbit::pci::Device &device)
{
	World world(device);
	const auto undisturbed = std::make_shared<Undisturbed>();
	const std::pair<const char *, std::shared_ptr<Transport>> ways[] = {
		{"nvme/linked in", std::make_shared<DirectTransport>(world.object)},
		{"nvme/in a domain, both sides' work", std::make_shared<BothSides>(*world.object)}};

	for (const auto &[name, transport] : ways) {
		Queue queue(world.proxy(transport), *world.here, driver, undisturbed, depth);

		for (const unsigned batch : {1u, 32u})
			by_queue(name, queue, *world.here, batch);
	}
}

// ---- In a domain -----------------------------------------------------------------------------------

void in_a_domain(orbit::pci::Device &device)
{
	auto supervisor = get(orbit::Supervisor::create({.zones = {{4 << 20, 4 << 20}, {nvme::queues_bytes(depth, 1), 0}}}), "supervisor");
	auto domain = get(supervisor->start(nvme::domain_options(*supervisor, device, {.io_queues = 1, .depth = depth})), "domain");
	Queue queue(std::make_shared<block::DeviceProxy>(get(domain->proxy<block::DeviceProxy>(), "proxy")), supervisor->endpoint(),
		    domain->connection().peer, domain->recovery(), depth);

	for (const unsigned batch : {1u, 32u})
		by_queue("nvme/in a domain, one core", queue, supervisor->endpoint(), batch);
}

// ---- By Linux --------------------------------------------------------------------------------------

// As little of io_uring as reads of registered buffers of a registered file take: less than a library does.
class Uring {
public:
	Uring(int file, std::span<std::byte> memory)
	{
		io_uring_params params{};

		fd_ = static_cast<int>(syscall(SYS_io_uring_setup, 128, &params));
		check(fd_ >= 0, "io_uring_setup");
		check(params.features & IORING_FEAT_SINGLE_MMAP, "io_uring of a kernel that is too old");
		auto *const rings = static_cast<std::byte *>(
			map(std::max<std::size_t>(params.sq_off.array + params.sq_entries * sizeof(unsigned),
						  params.cq_off.cqes + params.cq_entries * sizeof(io_uring_cqe)),
			    IORING_OFF_SQ_RING));

		sqes_ = static_cast<io_uring_sqe *>(map(params.sq_entries * sizeof(io_uring_sqe), IORING_OFF_SQES));
		sq_tail_ = reinterpret_cast<unsigned *>(rings + params.sq_off.tail);
		sq_array_ = reinterpret_cast<unsigned *>(rings + params.sq_off.array);
		sq_mask_ = params.sq_entries - 1;
		cq_head_ = reinterpret_cast<unsigned *>(rings + params.cq_off.head);
		cq_tail_ = reinterpret_cast<unsigned *>(rings + params.cq_off.tail);
		cqes_ = reinterpret_cast<io_uring_cqe *>(rings + params.cq_off.cqes);
		cq_mask_ = params.cq_entries - 1;

		const iovec all{memory.data(), memory.size()};
		check(!syscall(SYS_io_uring_register, fd_, IORING_REGISTER_BUFFERS, &all, 1), "registered buffers");
		check(!syscall(SYS_io_uring_register, fd_, IORING_REGISTER_FILES, &file, 1), "a registered file");
	}
	~Uring() { close(fd_); }

	void read(std::byte *into, std::uint64_t offset)
	{
		const unsigned tail = *sq_tail_;
		io_uring_sqe &sqe = sqes_[tail & sq_mask_];

		sqe = {};
		sqe.opcode = IORING_OP_READ_FIXED;
		sqe.flags = IOSQE_FIXED_FILE;
		sqe.off = offset;
		sqe.addr = reinterpret_cast<std::uintptr_t>(into);
		sqe.len = read_bytes;
		sqe.user_data = sqe.addr;
		sq_array_[tail & sq_mask_] = tail & sq_mask_;
		__atomic_store_n(sq_tail_, tail + 1, __ATOMIC_RELEASE);
		unsent_++;
	}
	void enter(unsigned wait_for)
	{
		check(syscall(SYS_io_uring_enter, fd_, unsent_, wait_for, IORING_ENTER_GETEVENTS, nullptr, 0) == static_cast<long>(unsent_),
		      "io_uring_enter");
		unsent_ = 0;
	}
	template <class Take> void ended(Take &&take)
	{
		unsigned head = *cq_head_;

		for (const unsigned tail = __atomic_load_n(cq_tail_, __ATOMIC_ACQUIRE); head != tail; head++) {
			const io_uring_cqe &cqe = cqes_[head & cq_mask_];

			check(cqe.res == static_cast<int>(read_bytes), "a read by Linux");
			take(reinterpret_cast<std::byte *>(cqe.user_data));
		}
		__atomic_store_n(cq_head_, head, __ATOMIC_RELEASE);
	}

private:
	void *map(std::size_t bytes, std::uint64_t what) const
	{
		void *const at = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd_, static_cast<off_t>(what));

		check(at != MAP_FAILED, "io_uring's memory");
		return at;
	}

	int fd_;
	unsigned unsent_ = 0;
	io_uring_sqe *sqes_;
	unsigned *sq_tail_, *sq_array_, sq_mask_;
	unsigned *cq_head_, *cq_tail_, cq_mask_;
	io_uring_cqe *cqes_;
};

void by_linux(const std::string &file)
{
	const int fd = open(file.c_str(), O_RDONLY | O_DIRECT);
	const Pages memory(64 * read_bytes);

	check(fd >= 0, "Linux's namespace");
	for (const unsigned batch : {1u, 32u}) {
		Uring uring(fd, memory.span());
		std::vector<std::byte *> buffers;
		std::uint64_t next = 0;

		for (unsigned n = 0; n < 2 * batch; n++)
			buffers.push_back(memory.span().data() + n * read_bytes);
		const auto ask = [&] {
			for (unsigned n = 0; n < batch; n++, next++) {
				uring.read(buffers.back(), next % 1024 * read_bytes);
				buffers.pop_back();
			}
		};
		const auto take = [&](unsigned wait_for) {
			uring.enter(wait_for);
			uring.ended([&](std::byte *buffer) { buffers.push_back(buffer); });
		};

		ask();
		figure("nvme/Linux, io_uring/batch=" + std::to_string(batch), each_round(batch, buffers, ask, take));
		while (buffers.size() < 2 * batch)
			take(1);
	}
	close(fd);
}

// Something to read, and its blocks are there.
void write_range(const std::string &file)
{
	const int fd = open(file.c_str(), O_WRONLY | O_DIRECT);
	const Pages memory(128 * read_bytes);

	std::fill(memory.span().begin(), memory.span().end(), std::byte{0x5a});
	for (std::uint64_t at = 0; at < range_blocks * 512; at += memory.span().size())
		check(pwrite(fd, memory.span().data(), memory.span().size(), static_cast<off_t>(at)) ==
			      static_cast<ssize_t>(memory.span().size()),
		      "what is to be read");
	close(fd);
}

} // namespace

int main()
{
	check(static_cast<bool>(orbit::prepare()), "prepare");
	const std::string address = machine::address();

	check(!address.empty(), "there is no NVMe controller");
	check(machine::give(address, "nvme"), "nvme");
	const std::string file = machine::linux_namespace(address, 1);
	check(!file.empty(), "the namespace does not come");
	write_range(file);
	by_linux(file);
	check(machine::give(address, "vfio-pci"), "vfio-pci");
	const auto device = get(orbit::pci::Device::open(address), "the device");
	in_one_thread(*device);
	in_a_domain(*device);
	return 0;
}
