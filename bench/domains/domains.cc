// SPDX-License-Identifier: MIT
//
// What a call between domains costs, by each transport, beside what it stands for and what the kernel offers.
// README.md says how each case is measured.
#include "device.orbit.hpp"

#include "../common/echo.h"

#include <orbit/coroutine.hpp>
#include <orbit/direct.hpp>
#include <orbit/domain.hpp>
#include <orbit/ring.hpp>

#include <csignal>
#include <filesystem>
#include <optional>
#include <fcntl.h>
#include <sched.h>

using namespace bench;
using namespace orbit::isolation;

namespace {

constexpr int many = 1000; // one of them is less than the clock can tell
constexpr orbit::Zone zone{0};
constexpr DomainId caller = 1, server = 2;

template <class T> T get(orbit::result<T> &&got, const char *what)
{
	if (!got)
		die(std::string(what) + ": " + got.error().message());
	return std::move(*got);
}

void get(orbit::result<void> &&got, const char *what)
{
	if (!got)
		die(std::string(what) + ": " + got.error().message());
}

class Implementation final : public device::Device {
public:
	orbit::result<void> nothing() override { return {}; }
	orbit::result<std::uint64_t> add_one(std::uint64_t to) override { return to + 1; }
	orbit::result<orbit::rref<device::Word>> pass_word(orbit::rref<device::Word> word) override { return word; }
	orbit::result<orbit::rref<device::Page>> pass_page(orbit::rref<device::Page> page) override { return page; }
	orbit::result<orbit::rref<device::Block>> pass_block(orbit::rref<device::Block> block) override { return block; }
	orbit::result<std::uint64_t> look(const orbit::rref<device::Word> &word) override { return word->number; }
};

// Memory that a forked process has, too.
class Shared {
public:
	explicit Shared(std::size_t bytes) : bytes_(bytes)
	{
		data_ = static_cast<std::byte *>(
			mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
		check(data_ != MAP_FAILED, "mmap");
	}
	Shared(const Shared &) = delete;
	Shared &operator=(const Shared &) = delete;
	~Shared() { munmap(data_, bytes_); }
	std::span<std::byte> span() const { return {data_, bytes_}; }

private:
	std::byte *data_;
	std::size_t bytes_;
};

// A heap with a caller and a server.
struct Buffers {
	static constexpr std::size_t zones[] = {MiB};

	Buffers() : memory(Heap::bytes(2, zones)), heap(get(Heap::create(memory.span(), 2, zones), "heap"))
	{
		for (const DomainId domain : {caller, server}) {
			get(heap.add(domain, 0), "zone");
			get(heap.grant(domain, 0, 256 * KiB), "grant");
		}
		endpoint = attach(caller);
	}
	std::unique_ptr<Endpoint> attach(DomainId domain) const
	{
		return get(Endpoint::attach(memory.span(), domain), "endpoint");
	}

	Shared memory;
	Heap heap;
	std::unique_ptr<Endpoint> endpoint;
};

std::shared_ptr<Skeleton> skeleton(Endpoint &endpoint)
{
	return std::make_shared<device::DeviceSkeleton>(std::make_shared<Implementation>(),
							Connection{.endpoint = &endpoint, .peer = caller});
}

// A caller's proxy, and what is behind it.
struct Side {
	virtual ~Side() = default;

	Buffers buffers;
	std::optional<device::DeviceProxy> proxy;
	std::shared_ptr<RingTransport> ring;

protected:
	void set(std::shared_ptr<Transport> transport)
	{
		proxy.emplace(std::move(transport), Connection{.endpoint = buffers.endpoint.get(),
							       .peer = server,
							       .timeout = std::chrono::seconds(10)});
	}
};

struct DirectSide final : Side {
	DirectSide() : other(buffers.attach(server)) { set(std::make_shared<DirectTransport>(skeleton(*other))); }

	std::unique_ptr<Endpoint> other;
};

void run_on(int processor)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(processor, &set);
	check(!sched_setaffinity(0, sizeof(set), &set), "sched_setaffinity");
}

// A process at the other end of a ring, on this core or another.
struct RingSide final : Side {
	explicit RingSide(bool same_core)
		: shape{.slots = 32, .message_bytes = 256, .spins = same_core ? 0u : 20000u}, memory(ring_bytes(shape))
	{
		const RingMemory areas = get(ring_memory(memory.span(), shape), "ring");
		sched_getaffinity(0, sizeof(before), &before);
		pid = fork();
		check(pid >= 0, "fork");
		if (!pid) {
			run_on(same_core ? 0 : 1);
			const auto endpoint = buffers.attach(server);
			get(RingServer::create(areas, shape), "server")->serve(*skeleton(*endpoint));
			_exit(0);
		}
		run_on(0);
		ring = get(RingTransport::create(areas, shape), "caller");
		set(ring);
	}
	~RingSide() override
	{
		kill(pid, SIGKILL);
		waitpid(pid, nullptr, 0);
		sched_setaffinity(0, sizeof(before), &before);
	}

	RingShape shape;
	Shared memory;
	pid_t pid;
	cpu_set_t before;
};

__attribute__((noinline)) std::uint64_t function(std::uint64_t value)
{
	asm volatile("" : "+r"(value));
	return value + 1;
}

Body functions()
{
	return [](Round &round) {
		round.time("", [] {
			for (int n = 0; n < many; n++)
				function(static_cast<std::uint64_t>(n));
		}, many);
	};
}

Body virtual_calls()
{
	return [object = std::make_shared<Implementation>()](Round &round) {
		device::Device *device = object.get();
		round.time("", [&] {
			for (int n = 0; n < many; n++) {
				asm volatile("" : "+r"(device)); // it may be another
				check(*device->add_one(static_cast<std::uint64_t>(n)) != 0, "virtual call");
			}
		}, many);
	};
}

// A buffer changes hands, without a call.
Body moves()
{
	return [domain = std::make_shared<DirectSide>()](Round &round) {
		Endpoint &here = *domain->buffers.endpoint, &there = *domain->other;
		auto word = get(here.make<device::Word>(zone), "buffer");
		round.time("", [&] {
			for (int n = 0; n < many / 2; n++) {
				auto moved = get(there.receive<device::Word>(
							 get(here.send(std::move(word), server), "send"), caller),
						 "receive");
				word = get(here.receive<device::Word>(get(there.send(std::move(moved), caller), "send"),
								      server),
					   "receive");
			}
		}, many);
	};
}

using Make = std::function<std::shared_ptr<Side>()>;

template <class Act> Body calls(const Make &make, int number, Act &&act)
{
	return [domain = make(), number, act](Round &round) {
		round.time("", [&] {
			for (int n = 0; n < number; n++)
				act(*domain->proxy, static_cast<std::uint64_t>(n));
		}, number);
	};
}

// There and back again.
template <class T> Body passes(const Make &make, int number, orbit::result<orbit::rref<T>> (device::Device::*method)(orbit::rref<T>))
{
	auto domain = make();
	auto buffer = std::make_shared<orbit::rref<T>>(get(domain->buffers.endpoint->make<T>(zone), "buffer"));

	return [domain, buffer, number, method](Round &round) {
		round.time("", [&] {
			for (int n = 0; n < number; n++)
				*buffer = get(((*domain->proxy).*method)(std::move(*buffer)), "pass");
		}, number);
	};
}

constexpr std::uint32_t batch = 32;

void start_batch(RingTransport &ring, std::span<RingTicket> tickets)
{
	const Head head{device::Device_wire::nothing_type, 0};

	for (auto &ticket : tickets)
		check(!ring.start(device::Device_wire::nothing_number, std::as_bytes(std::span(&head, 1)), &ticket, true),
		      "start");
}

void finish_batch(RingTransport &ring, std::span<const RingTicket> tickets)
{
	for (auto &ticket : tickets) {
		std::byte reply[64];
		std::size_t bytes;
		check(!ring.finish(ticket, reply, &bytes, 10'000'000'000), "finish");
	}
}

Body batches(const Make &make)
{
	return [domain = make()](Round &round) {
		RingTicket tickets[batch];
		round.time("", [&] {
			start_batch(*domain->ring, tickets);
			finish_batch(*domain->ring, tickets);
		}, batch);
	};
}

// Both ends of a ring in one thread, which does one side's work after the other's.
struct Ends {
	Ends()
		: memory(ring_bytes(shape)), other(buffers.attach(server)), object(skeleton(*other)),
		  ring(get(RingTransport::create(get(ring_memory(memory.span(), shape), "ring"), shape), "caller")),
		  serving(get(RingServer::create(get(ring_memory(memory.span(), shape), "ring"), shape), "server"))
	{
	}

	static constexpr RingShape shape{.slots = batch, .message_bytes = 256, .spins = 0};
	Buffers buffers;
	Shared memory;
	std::unique_ptr<Endpoint> other;
	std::shared_ptr<Skeleton> object;
	std::shared_ptr<RingTransport> ring;
	std::shared_ptr<RingServer> serving;
};

Body batch_by_side()
{
	return [ends = std::make_shared<Ends>()](Round &round) {
		RingTicket tickets[batch];
		const auto began = now();
		start_batch(*ends->ring, tickets);
		const auto started = now();
		ends->serving->serve(*ends->object, 0); // until there is none
		const auto served = now();
		finish_batch(*ends->ring, tickets);
		round.add("caller", static_cast<double>(started - began + now() - served - 2 * clock_cost) / batch);
		round.add("server", static_cast<double>(served - started - clock_cost) / batch);
	};
}

orbit::task<void> coroutine()
{
	co_return;
}

orbit::task<void> coroutines(Round &round)
{
	const auto began = now();
	for (int n = 0; n < many; n++)
		co_await coroutine();
	round.add("", static_cast<double>(now() - began - clock_cost) / many);
}

Body coroutine_calls()
{
	return [loop = std::make_shared<orbit::Loop>()](Round &round) { loop->run(coroutines(round)); };
}

// What is made from little gets what there is now.
void prepare()
{
	static const bool prepared = orbit::prepare().has_value();
	check(prepared, "prepare");
}

Body create_orbits()
{
	prepare();
	return [](Round &round) {
		std::optional<orbit::Orbit> made;
		round.time("", [&] {
			made.emplace(value(orbit::Orbit::create({.name = "bench", .inherit = orbit::Inherit::minimal}), "orbit"));
		});
	};
}

Body create_domains(orbit::Via via)
{
	prepare();
	return [via, supervisor = std::shared_ptr<orbit::Supervisor>(get(orbit::Supervisor::create(), "supervisor"))](Round &round) {
		std::unique_ptr<orbit::Domain> made;
		round.time("", [&] {
			made = get(supervisor->start({.name = "bench",
						      .services = {orbit::service<device::DeviceSkeleton, Implementation>()},
						      .via = via}),
				   "domain");
		});
	};
}

// Another program's library, and so another program: iceoryx.cc.
class Iceoryx {
public:
	static std::filesystem::path program() { return std::filesystem::read_symlink("/proc/self/exe").parent_path() / "iceoryx"; }

	Iceoryx(std::size_t bytes, bool same_core)
	{
		int to[2], from[2];

		check(!pipe2(to, O_CLOEXEC) && !pipe2(from, O_CLOEXEC), "pipe");
		pid_ = fork();
		check(pid_ >= 0, "fork");
		if (!pid_) {
			dup2(to[0], 0);
			dup2(from[1], 1);
			execl(program().c_str(), "iceoryx", std::to_string(bytes).c_str(), same_core ? "0" : "1",
			      same_core ? "sleeps" : "looks", nullptr);
			_exit(127);
		}
		close(to[0]);
		close(from[1]);
		to_ = fdopen(to[1], "w");
		from_ = fdopen(from[0], "r");
	}
	Iceoryx(const Iceoryx &) = delete;
	Iceoryx &operator=(const Iceoryx &) = delete;
	~Iceoryx()
	{
		std::fclose(to_);
		std::fclose(from_);
		waitpid(pid_, nullptr, 0);
	}

	double trips(unsigned number) const
	{
		long long took = 0;

		std::fprintf(to_, "%u\n", number);
		std::fflush(to_);
		check(std::fscanf(from_, "%lld", &took) == 1, "iceoryx");
		return static_cast<double>(took) / number;
	}

private:
	pid_t pid_;
	std::FILE *to_, *from_;
};

Body iceoryx_trips(std::size_t bytes, bool same_core, unsigned number)
{
	return [other = std::make_shared<Iceoryx>(bytes, same_core), number](Round &round) { round.add("", other->trips(number)); };
}

Body orbit_calls()
{
	return [both = std::make_shared<PoolAndOrbit>(make_pool_and_orbit(MiB))](Round &round) {
		round.time("", [&] { value(both->orbit.call({}, function, std::uint64_t{7}), "call"); });
	};
}

template <class T, class... Arguments> Body trips(Arguments... arguments)
{
	return [other = std::make_shared<T>(arguments...)](Round &round) { round.time("", [&] { other->trip(); }); };
}

void add_transport(const std::string &name, const Make &make, int number, bool only_timed)
{
	const auto add_case = [&](const char *part, const std::function<Body()> &body) {
		add({.name = "domains/" + name + "/" + part, .make = body, .only_timed = only_timed});
	};

	add_case("nothing", [=] {
		return calls(make, number, [](device::Device &to, std::uint64_t) { get(to.nothing(), "nothing"); });
	});
	add_case("add_one", [=] {
		return calls(make, number, [](device::Device &to, std::uint64_t n) {
			check(get(to.add_one(n), "add_one") == n + 1, "the sum");
		});
	});
	add_case("pass/bytes=8", [=] { return passes(make, number, &device::Device::pass_word); });
	add_case("pass/bytes=4K", [=] { return passes(make, number, &device::Device::pass_page); });
	add_case("pass/bytes=64K", [=] { return passes(make, number, &device::Device::pass_block); });
}

void add_cases()
{
	const Make direct = [] { return std::make_shared<DirectSide>(); };
	const Make other = [] { return std::make_shared<RingSide>(false); };
	const Make same = [] { return std::make_shared<RingSide>(true); };

	add({.name = "domains/function", .make = functions});
	add({.name = "domains/virtual", .make = virtual_calls});
	add({.name = "domains/move", .make = moves});
	add_transport("direct", direct, many, false);
	if (sysconf(_SC_NPROCESSORS_ONLN) > 1) {
		add_transport("ring/other core", other, 20, true);
		add({.name = "domains/ring/other core/batch=32", .make = [=] { return batches(other); }, .only_timed = true});
	}
	add_transport("ring/same core", same, 1, false);
	add({.name = "domains/ring/same core/batch=32", .make = [=] { return batches(same); }});
	add({.name = "domains/ring/one thread", .make = batch_by_side});
	add({.name = "domains/coroutine", .make = coroutine_calls});
	for (const std::size_t bytes : {std::size_t{8}, 4 * KiB, 64 * KiB}) {
		if (!std::filesystem::exists(Iceoryx::program()))
			break;
		if (sysconf(_SC_NPROCESSORS_ONLN) > 1)
			add({.name = "domains/iceoryx/other core/bytes=" + bytes_text(bytes),
			     .make = [=] { return iceoryx_trips(bytes, false, 200); },
			     .only_timed = true});
		add({.name = "domains/iceoryx/same core/bytes=" + bytes_text(bytes),
		     .make = [=] { return iceoryx_trips(bytes, true, 1); },
		     .only_timed = true});
	}
	add({.name = "domains/call", .make = orbit_calls, .samples = 1000});
	add({.name = "domains/pipe", .make = [] { return trips<Echo>(Echo::pipes); }, .samples = 1000});
	add({.name = "domains/socket", .make = [] { return trips<Echo>(Echo::socket); }, .samples = 1000});
	add({.name = "domains/futex", .make = [] { return trips<FutexEcho>(); }, .samples = 1000});
	// The last: they prepare, which is there for all that come after.
	add({.name = "domains/create/orbit", .make = create_orbits, .rounds = 21, .samples = 20});
	add({.name = "domains/create/domain", .make = [] { return create_domains(orbit::Via::call); }, .rounds = 21, .samples = 20});
	add({.name = "domains/create/domain with a ring",
	     .make = [] { return create_domains(orbit::Via::ring); },
	     .rounds = 21,
	     .samples = 20});
}

} // namespace

int main(int argc, char **argv)
{
	add_cases();
	return run(argc, argv);
}
