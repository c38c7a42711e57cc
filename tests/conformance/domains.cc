// SPDX-License-Identifier: MIT
//
// Domains and their supervisor: what becomes of calls and buffers when a domain crashes, hangs, exits, floods, or
// dies while it is made; and what is refused.
#include "domains.orbit.hpp"
#include "domains_test.h"

#include "../../liborbit/orbitctl/command.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <fstream>
#include <mutex>
#include <nlohmann/json.hpp>
#include <numeric>
#include <sstream>
#include <string>
#include <vector>

namespace {

using orbit::Domain;
using orbit::DomainOptions;
using orbit::DomainReport;
using orbit::Supervisor;
using orbit::Zone;

// --- in the domains

int *volatile nothing_there = reinterpret_cast<int *>(16);

void do_harm(Harm harm)
{
	switch (harm) {
	case Harm::none:
		break;
	case Harm::crash:
		*nothing_there = 1;
		break;
	case Harm::abort:
		abort();
	case Harm::exit:
		_exit(7);
	case Harm::hang:
		for (;;)
			pause();
	case Harm::flood:
		const std::vector<std::byte> bytes(100'000);
		for (std::uint64_t i = 0; orbit_send_operation(i, bytes.data(), bytes.size()) == 0; i++)
			;
	}
}

class MyWorker : public Worker {
public:
	explicit MyWorker(orbit::isolation::Endpoint &endpoint) : endpoint_(endpoint) {}

	orbit::result<std::uint64_t> add(std::uint64_t n) override { return sum_ += n; }
	orbit::result<void> fail(std::int32_t code) override { return orbit::failed(code); }
	orbit::result<void> wait(std::uint32_t milliseconds, std::uint64_t begun, Harm then) override
	{
		poke(begun);
		std::this_thread::sleep_for(std::chrono::milliseconds(milliseconds));
		do_harm(then);
		return {};
	}
	orbit::result<std::uint64_t> poke(std::uint64_t address) override
	{
		auto *const word = reinterpret_cast<volatile std::uint64_t *>(address);
		const std::uint64_t next = *word + 1;

		*word = next;
		return next;
	}
	orbit::result<void> harm(Harm harm) override
	{
		do_harm(harm);
		return {};
	}
	orbit::result<void> born(std::uint64_t start) override
	{
		start_ = start;
		return {};
	}
	orbit::result<std::uint64_t> first_harm(Harm harm) override
	{
		if (start_ == 1)
			do_harm(harm);
		return start_;
	}
	orbit::result<std::uint64_t> first_harm_repeatable(Harm harm) override { return first_harm(harm); }
	orbit::result<std::uint64_t> sum(const orbit::rref<Block> &block, Harm harm) override
	{
		if (start_ == 1)
			do_harm(harm);
		return std::accumulate(std::begin(block->words), std::end(block->words), std::uint64_t{0});
	}
	orbit::result<orbit::rref<Block>> fill(orbit::rref<Block> block, Harm harm) override
	{
		if (start_ == 1)
			do_harm(harm);
		std::fill(std::begin(block->words), std::end(block->words), 3);
		return block;
	}
	orbit::result<std::uint32_t> keep(orbit::rref<Block> block, std::uint32_t more) override
	{
		kept_.push_back(std::move(block));
		while (more--)
			if (auto made = endpoint_.make<Block>(Zone{0}))
				kept_.push_back(std::move(*made));
		return static_cast<std::uint32_t>(kept_.size());
	}

private:
	orbit::isolation::Endpoint &endpoint_;
	std::uint64_t sum_ = 0, start_ = 1;
	std::vector<orbit::rref<Block>> kept_;
};

template <Harm what> class BornTo : public Other {
public:
	BornTo() { do_harm(what); }
	orbit::result<void> nothing() override { return {}; }
};

// Of a driver, whose device has done something each time that it is called.
class Driving : public Other {
public:
	explicit Driving(orbit::isolation::DeviceCounters &counters) : counters_(counters) { counters_.queues = 2; }
	orbit::result<void> nothing() override
	{
		counters_.queue[0].requests += 5;
		counters_.queue[1].requests += 2;
		counters_.queue[1].errors += 1;
		return {};
	}

private:
	orbit::isolation::DeviceCounters &counters_;
};
constexpr orbit::Service driving{&OtherSkeleton::interface_,
				 [](const orbit::isolation::Connection &connection) -> std::shared_ptr<orbit::isolation::Skeleton> {
					 return std::make_shared<OtherSkeleton>(std::make_shared<Driving>(*connection.counters), connection);
				 }};

// What a domain that is out of its mind answers; add() says which.
constexpr int madnesses = 9;

class MadSkeleton : public orbit::isolation::Skeleton {
public:
	std::uint64_t interface_id() const noexcept override { return Worker_wire::interface_id; }
	int dispatch(std::uint32_t, std::span<const std::byte> args, std::span<std::byte> reply, std::size_t *bytes) override
	{
		Worker_wire::add_args in;

		std::memcpy(&in, args.data(), sizeof(in));
		std::fill(reply.begin(), reply.end(), std::byte{0xff});
		*bytes = reply.size();
		switch (in.n) {
		case 0:
			return -ECONNRESET;
		case 1:
			return -ETIMEDOUT;
		case 2:
			return -EHOSTDOWN;
		case 3:
			return 1 << 20;
		case 4:
			*bytes = 0;
			return 0;
		case 5:
			*bytes = reply.size() + 1;
			return 0;
		case 6:
			*bytes = std::size_t{1} << 40;
			return 0;
		case 7: // updates before the reply
			orbit_send_operation(1, reply.data(), reply.size());
			return 0;
		default:
			return 0;
		}
	}
};
constexpr orbit::Service mad_service{&WorkerSkeleton::interface_,
				     [](const orbit::isolation::Connection &) -> std::shared_ptr<orbit::isolation::Skeleton> {
					     return std::make_shared<MadSkeleton>();
				     }};

// --- in the main program

class Domains : public testing::Test {
protected:
	void SetUp() override { start_supervisor({}); }

	void start_supervisor(orbit::SupervisorOptions options)
	{
		domains.clear();
		supervisor.reset();
		options.report = [this](const DomainReport &report) {
			std::lock_guard lock(mutex);
			reports.push_back(report);
		};
		auto made = Supervisor::create(options);
		ASSERT_TRUE(made) << made.error().message();
		supervisor = std::move(*made);
	}

	DomainOptions options(const char *name = "worker") const
	{
		DomainOptions chosen;

		chosen.name = name;
		chosen.services = {orbit::service<WorkerSkeleton, MyWorker>()};
		chosen.parts = {{Zone{0}, 1 << 15}};
		chosen.timeout = patience;
		chosen.deadline = patience;
		chosen.via = via;
		chosen.inherit = has_feature(ORBIT_FEATURE_MINIMAL) ? orbit::Inherit::minimal : orbit::Inherit::all;
		return chosen;
	}
	DomainOptions restarting(unsigned most = 3) const
	{
		DomainOptions chosen = options();

		chosen.restarts = {.most = most, .within = 1h};
		return chosen;
	}

	Domain &start(const DomainOptions &chosen)
	{
		auto made = supervisor->start(chosen);
		if (!made)
			throw std::runtime_error(made.error().message());
		domains.push_back(std::move(*made));
		return *domains.back();
	}

	// The set-up tells each process which one it is.
	DomainOptions counted(unsigned most = 3)
	{
		DomainOptions chosen = restarting(most);

		chosen.set_up = [this](const auto &transport, const orbit::isolation::Connection &connection) {
			return WorkerProxy(transport, connection).born(++births);
		};
		return chosen;
	}

	static WorkerProxy proxy(const Domain &domain) { return *domain.proxy<WorkerProxy>(); }
	static WorkerShadow shadow(const Domain &domain) { return *domain.proxy<WorkerShadow>(); }
	static WorkerProxy patient(const Domain &domain, std::chrono::nanoseconds timeout)
	{
		orbit::isolation::Connection connection = domain.connection();
		connection.timeout = timeout;
		return {domain.transport(0), connection};
	}
	orbit::rref<Block> block(std::uint64_t word = 0)
	{
		Block full;
		std::fill(std::begin(full.words), std::end(full.words), word);
		auto made = supervisor->endpoint().make(Zone{0}, full);
		if (!made)
			throw std::runtime_error(made.error().message());
		return std::move(*made);
	}
	// A thread in a call that lasts; returns when the domain serves it.
	std::thread busy(const Domain &domain, std::uint32_t milliseconds, Harm then, int *error)
	{
		begun = block();
		volatile std::uint64_t *const word = &begun->words[0];
		std::thread caller([=, worker = proxy(domain)]() mutable {
			*error = error_of(worker.wait(milliseconds, reinterpret_cast<std::uintptr_t>(word), then));
		});

		EXPECT_TRUE(eventually([=] { return *word == 1; }));
		return caller;
	}
	std::size_t nr_reports()
	{
		std::lock_guard lock(mutex);
		return reports.size();
	}

	orbit::Via via = orbit::Via::call;
	std::uint64_t births = 0;
	std::mutex mutex;
	std::vector<DomainReport> reports;
	std::unique_ptr<Supervisor> supervisor;
	orbit::rref<Block> begun;
	std::vector<std::unique_ptr<Domain>> domains; // they end first
};

using D1_HeapsApart = Domains;
using D2_OneOwner = Domains;
using D3_CleanEnd = Domains;
using D4_QuietFirst = Domains;
using D6_NothingHangs = Domains;
using D7_Recovery = Domains;
using DomainsRefused = Domains;

// --- D1

TEST_F(D1_HeapsApart, AWildWriteReachesOnlyZonesThatItWasGiven)
{
	start_supervisor({.zones = {{1 << 17, 1 << 15}, {1 << 17, 1 << 15}}});
	auto mine = supervisor->endpoint().make<Block>(Zone{0}), secret = supervisor->endpoint().make<Block>(Zone{1});
	ASSERT_TRUE(mine && secret);
	Domain &domain = start(restarting());
	WorkerProxy worker = proxy(domain);

	EXPECT_EQ(worker.poke(reinterpret_cast<std::uintptr_t>(&**mine)), 1U) << "part in the zone is to write to it";
	EXPECT_EQ((*mine)->words[0], 1U);
	EXPECT_EQ(error_of(worker.poke(reinterpret_cast<std::uintptr_t>(&**secret))), ECONNRESET);
	EXPECT_EQ((*secret)->words[0], 0U);
	EXPECT_EQ(domain.last_report()->address, reinterpret_cast<std::uintptr_t>(&**secret));

	// The main program's variables, it has its own of; and records of others it cannot write.
	static std::uint64_t variable = 5;
	EXPECT_EQ(worker.poke(reinterpret_cast<std::uintptr_t>(&variable)), 6U);
	EXPECT_EQ(variable, 5U);
}

// --- D2

TEST_F(D2_OneOwner, BuffersAreMovedThereAndBackAndLent)
{
	Domain &domain = start(options());
	WorkerProxy worker = proxy(domain);

	auto filled = worker.fill(block(), Harm::none);
	ASSERT_TRUE(filled) << filled.error().message();
	EXPECT_EQ((*filled)->words[63], 3U);
	EXPECT_EQ(worker.sum(*filled, Harm::none), 192U);
	EXPECT_EQ(worker.keep(std::move(*filled), 2), 3U);
	EXPECT_FALSE(*filled);
	EXPECT_EQ(domain.statistics().owned, 3U);
	EXPECT_EQ(domain.statistics().lent, 0U);
	EXPECT_EQ(domain.statistics().calls, 3U);
}

// What another program sees of that.
TEST_F(D2_OneOwner, OrbitctlShowsWhatDomainsDoAndHave)
{
	const auto seen = [](const std::string &name) {
		std::ostringstream out, err;
		EXPECT_EQ(orbitctl::run({"list", "--json", std::to_string(getpid())}, out, err), 0) << err.str();
		const auto processes = nlohmann::json::parse(out.str())["processes"];
		for (const auto &domain : processes[0]["domains"])
			if (domain["name"] == name)
				return domain;
		return nlohmann::json();
	};
	DomainOptions once = options("once");
	once.via = orbit::Via::ring;
	once.device = "0000:00:03.0";
	once.silence = [] { return orbit::result<void>(); };
	once.services.push_back(driving);
	once.restarts = {.most = 1, .within = 1h};
	Domain &domain = start(restarting()), &other = start(once);
	WorkerProxy worker = proxy(domain);

	EXPECT_EQ(worker.keep(block(), 2), 3U);
	EXPECT_EQ(seen("worker")["state"], "serving");
	EXPECT_EQ(seen("worker")["pid"], domain.pid());
	EXPECT_EQ(seen("worker")["via"], "call");
	EXPECT_EQ(seen("worker")["starts"], 1);
	EXPECT_EQ(seen("worker")["calls"], 1);
	EXPECT_EQ(seen("worker")["owned"], 3);
	EXPECT_EQ(seen("worker")["lent"], 0);
	EXPECT_TRUE(seen("worker")["last_end"].is_null());
	EXPECT_TRUE(seen("worker")["device"].is_null());
	EXPECT_TRUE(seen("worker")["silenced"].is_null());
	EXPECT_EQ(seen("once")["device"], "0000:00:03.0");
	EXPECT_EQ(seen("once")["silenced"], 0);
	EXPECT_TRUE(seen("worker")["queues"].is_null());
	EXPECT_EQ(seen("once")["queues"], 2);
	EXPECT_EQ(seen("once")["requests"], 0);
	ASSERT_TRUE(other.proxy<OtherProxy>()->nothing());
	EXPECT_EQ(seen("once")["requests"], 7);
	EXPECT_EQ(seen("once")["errors"], 1);

	EXPECT_EQ(error_of(worker.harm(Harm::crash)), ECONNRESET);
	EXPECT_EQ(seen("worker")["state"], "serving");
	EXPECT_EQ(seen("worker")["pid"], domain.pid());
	EXPECT_EQ(seen("worker")["starts"], 2);
	EXPECT_EQ(seen("worker")["failed"], 1);
	EXPECT_EQ(seen("worker")["owned"], 0);
	EXPECT_EQ(seen("worker")["last_end"], "killed by signal 11 (SIGSEGV) at address 0x10, in Worker::harm");

	EXPECT_EQ(seen("once")["via"], "ring");
	EXPECT_EQ(error_of(proxy(other).harm(Harm::exit)), ECONNRESET);
	EXPECT_EQ(seen("once")["silenced"], 1);
	ASSERT_TRUE(other.proxy<OtherProxy>()->nothing());
	EXPECT_EQ(seen("once")["requests"], 14) << "of the process before, too";
	EXPECT_EQ(error_of(proxy(other).harm(Harm::exit)), ECONNRESET);
	EXPECT_EQ(seen("once")["state"], "down");
	EXPECT_TRUE(seen("once")["pid"].is_null());
	EXPECT_EQ(seen("once")["silenced"], 2);
	EXPECT_EQ(seen("once")["requests"], 14);
	other.stop();
	EXPECT_TRUE(seen("once").is_null());
}

// --- D3

TEST_F(D3_CleanEnd, ACrashIsAnErrorOfThisSideAndAReportAndOthersGoOn)
{
	Domain &domain = start(options()), &other = start(options("other"));
	WorkerProxy worker = proxy(domain), another = proxy(other);

	EXPECT_EQ(worker.add(1), 1U);
	EXPECT_EQ(another.add(5), 5U);
	const auto crashed = worker.harm(Harm::crash);
	ASSERT_FALSE(crashed);
	EXPECT_EQ(crashed.error().code(), ECONNRESET);
	EXPECT_FALSE(crashed.error().from_method());
	EXPECT_EQ(another.add(1), 6U);
	EXPECT_EQ(error_of(worker.add(1)), EHOSTDOWN);
	EXPECT_FALSE(domain.statistics().running);
	EXPECT_EQ(domain.pid(), 0);

	ASSERT_EQ(nr_reports(), 1U);
	const DomainReport report = reports[0];
	EXPECT_EQ(report.domain, "worker");
	EXPECT_EQ(report.cause, ORBIT_CAUSE_SIGNAL);
	EXPECT_EQ(report.code, SIGSEGV);
	EXPECT_EQ(report.address, 16U);
	EXPECT_EQ(report.interface + "::" + report.method, "Worker::harm");
	EXPECT_FALSE(report.restarted);
	EXPECT_NE(report.message().find("(SIGSEGV) at address 0x10, in Worker::harm"), std::string::npos) << report.message();
}

TEST_F(D3_CleanEnd, AMethodsErrorIsNotTakenForTheDomainsEnd)
{
	Domain &domain = start(options());
	WorkerProxy worker = proxy(domain);

	for (const int code : {ECONNRESET, ETIMEDOUT, ESHUTDOWN, EHOSTDOWN}) {
		const auto failed = worker.fail(code);
		ASSERT_FALSE(failed);
		EXPECT_EQ(failed.error().code(), code);
		EXPECT_TRUE(failed.error().from_method());
	}
	EXPECT_EQ(worker.add(1), 1U);
	EXPECT_EQ(domain.statistics().failed, 0U);
}

TEST_F(D3_CleanEnd, AnExitIsAnEndToo)
{
	Domain &domain = start(options());

	EXPECT_EQ(error_of(proxy(domain).harm(Harm::exit)), ECONNRESET);
	EXPECT_EQ(domain.last_report()->cause, ORBIT_CAUSE_EXIT);
	EXPECT_EQ(domain.last_report()->code, 7);
}

TEST_F(D3_CleanEnd, WhatItOwnedIsReclaimedAndWhatWasLentComesBack)
{
	Domain &domain = start(restarting());
	WorkerProxy worker = proxy(domain);
	const std::size_t before = supervisor->census().buffers;

	ASSERT_EQ(worker.keep(block(), 4), 5U);
	orbit::rref<Block> lent = block(2);
	EXPECT_EQ(error_of(worker.sum(lent, Harm::crash)), ECONNRESET);
	EXPECT_EQ(domain.last_report()->buffers.buffers, 5U);
	EXPECT_EQ(domain.last_report()->buffers.loans, 1U);
	EXPECT_EQ(error_of(worker.fill(block(), Harm::crash)), ECONNRESET);

	const auto census = supervisor->census();
	EXPECT_EQ(census.lost, 0U);
	EXPECT_EQ(census.twice, 0U);
	EXPECT_EQ(census.in_flight, 0U);
	EXPECT_EQ(census.owned[2], 0U) << "a new process owns nothing of the old one";
	EXPECT_EQ(census.owned[1], 1U);
	EXPECT_EQ(census.buffers - census.returned, before + 1);
	// It is the owner's again, and the new domain gets it.
	ASSERT_EQ(worker.sum(lent, Harm::none), 128U);
	EXPECT_EQ(error_of(worker.keep(std::move(lent), 0)), 0);
}

TEST_F(D3_CleanEnd, MemoryDoesNotRunOutByCrashes)
{
	Domain &domain = start(restarting(20));
	WorkerProxy worker = proxy(domain);

	for (int i = 0; i < 20; i++) {
		ASSERT_EQ(worker.keep(block(), 50), 51U) << i;
		ASSERT_EQ(error_of(worker.harm(Harm::abort)), ECONNRESET);
	}
	EXPECT_EQ(domain.statistics().starts, 21U);
	EXPECT_EQ(supervisor->census().lost, 0U);
}

TEST_F(D3_CleanEnd, ADeathThatNobodyIsInACallForIsNoticed)
{
	Domain &domain = start(restarting());
	WorkerProxy worker = proxy(domain);
	const pid_t first = domain.pid();

	ASSERT_EQ(worker.keep(block(), 1), 2U);
	ASSERT_EQ(kill(first, SIGKILL), 0);
	ASSERT_TRUE(eventually([&] { return nr_reports() == 1 && domain.statistics().running; }));
	EXPECT_EQ(reports[0].code, SIGKILL);
	EXPECT_EQ(reports[0].interface, "");
	EXPECT_EQ(reports[0].buffers.buffers, 2U);
	EXPECT_NE(domain.pid(), first);
	EXPECT_EQ(worker.add(4), 4U) << "by a new process";
}

TEST_F(D3_CleanEnd, WhoEndsADomainEndsCallsInIt)
{
	Domain &domain = start(restarting());
	int error = 0;
	std::thread caller = busy(domain, 1'000'000, Harm::none, &error);

	domain.stop();
	caller.join();
	EXPECT_TRUE(error == ECONNRESET || error == EHOSTDOWN) << error;
	EXPECT_EQ(error_of(proxy(domain).add(1)), EHOSTDOWN);
	EXPECT_EQ(nr_reports(), 0U) << "it was wanted";
}

TEST_F(D3_CleanEnd, ProxiesOutliveTheirDomain)
{
	WorkerShadow worker = shadow(start(restarting()));

	EXPECT_EQ(worker.add(1), 1U);
	domains.clear();
	EXPECT_EQ(error_of(worker.add(1)), EHOSTDOWN);
	EXPECT_EQ(supervisor->registry().size(), 0U);
	EXPECT_EQ(proxy(start(options())).add(2), 2U) << "by another one of that name";
	EXPECT_EQ(error_of(worker.add(1)), EHOSTDOWN);
}

TEST_F(D3_CleanEnd, NoDomainForgesItsOwnEndOrAValueThatIsNone)
{
	for (const orbit::Via way : {orbit::Via::call, orbit::Via::ring}) {
		via = way;
		domains.clear();
		DomainOptions chosen = restarting();
		chosen.services = {mad_service};
		chosen.timeout = patience;
		Domain &domain = start(chosen);
		for (std::uint64_t i = 0; i < madnesses; i++) {
			const auto answer = shadow(domain).add(i);
			ASSERT_FALSE(answer) << i;
			EXPECT_FALSE(answer.error().from_method()) << i;
			for (const int forged : {ECONNRESET, ETIMEDOUT, ESHUTDOWN, EHOSTDOWN, EOWNERDEAD})
				EXPECT_NE(answer.error().code(), forged) << i;
		}
		EXPECT_EQ(domain.statistics().starts, 1U);
	}
}

TEST_F(D3_CleanEnd, SupervisorsEndTheirDomains)
{
	Domain &domain = start(restarting());
	WorkerShadow worker = shadow(domain);
	const pid_t pid = domain.pid();

	EXPECT_EQ(worker.add(1), 1U);
	supervisor.reset();
	EXPECT_EQ(error_of(worker.add(1)), EHOSTDOWN);
	EXPECT_TRUE(gone(pid));
	domain.stop();
	EXPECT_FALSE(domain.statistics().running);
}

TEST_F(D3_CleanEnd, AForkedChildEndsNobodysDomains)
{
	Domain &domain = start(restarting());
	const pid_t child = fork();

	if (!child) {
		domains.clear();
		supervisor.reset();
		_exit(0);
	}
	int status = -1;
	ASSERT_EQ(waitpid(child, &status, 0), child);
	EXPECT_EQ(status, 0);
	EXPECT_EQ(proxy(domain).add(1), 1U);
	EXPECT_EQ(domain.statistics().starts, 1U);
	EXPECT_EQ(nr_reports(), 0U);
}

TEST_F(D3_CleanEnd, AReportNamesTheCallThatWasServedAndNotThoseThatWaited)
{
	Domain &domain = start(restarting());
	int error = 0;
	std::thread first = busy(domain, 1000, Harm::crash, &error);

	EXPECT_EQ(error_of(proxy(domain).add(1)), ESHUTDOWN);
	first.join();
	EXPECT_EQ(error, ECONNRESET);
	ASSERT_EQ(nr_reports(), 1U);
	EXPECT_EQ(reports[0].method, "wait");
}

// --- D4

TEST_F(D4_QuietFirst, DevicesAreSilencedWhenTheProcessIsGoneAndBeforeItsMemoryIsUsed)
{
	DomainOptions chosen = restarting();
	std::atomic<pid_t> process{0};
	std::vector<std::size_t> owned; // each time
	unsigned alive = 0;

	chosen.silence = [&]() -> orbit::result<void> {
		std::ifstream stat("/proc/" + std::to_string(process) + "/stat");
		std::string number, name, state = "none";

		stat >> number >> name >> state; // the name has no blank
		alive += state != "none" && state != "Z" && state != "X";
		owned.push_back(supervisor->census().owned[2]);
		return {};
	};
	Domain &domain = start(chosen);
	WorkerProxy worker = proxy(domain);

	process = domain.pid();
	ASSERT_EQ(worker.keep(block(), 4), 5U);
	EXPECT_EQ(error_of(worker.harm(Harm::crash)), ECONNRESET);
	EXPECT_EQ(owned, std::vector<std::size_t>{5});
	EXPECT_EQ(alive, 0U);
	EXPECT_EQ(domain.last_report()->buffers.buffers, 5U);

	process = domain.pid();
	ASSERT_EQ(worker.keep(block(), 0), 1U);
	domain.stop();
	EXPECT_EQ(owned, (std::vector<std::size_t>{5, 1}));
	EXPECT_EQ(alive, 0U);
	EXPECT_EQ(supervisor->census().owned[2], 0U);
}

TEST_F(D4_QuietFirst, MemoryThatADeviceMayStillWriteToIsNeverUsedAgain)
{
	DomainOptions chosen = restarting();

	chosen.silence = [] { return orbit::result<void>(orbit::isolation::refused(-EIO, "the device does not listen")); };
	Domain &domain = start(chosen);
	WorkerProxy worker = proxy(domain);

	ASSERT_EQ(worker.keep(block(), 4), 5U);
	EXPECT_EQ(error_of(worker.harm(Harm::crash)), ECONNRESET);
	EXPECT_EQ(error_of(worker.add(1)), EHOSTDOWN) << "nor is another one started with it";
	ASSERT_EQ(nr_reports(), 1U);
	EXPECT_FALSE(reports[0].restarted);
	EXPECT_EQ(reports[0].buffers.buffers, 0U);
	domains.clear();
	// Nor by others, who get another number.
	WorkerProxy another = proxy(start(options()));
	EXPECT_EQ(another.keep(block(), 2), 3U);
	EXPECT_EQ(supervisor->census().owned[2], 5U);
	EXPECT_EQ(supervisor->census().owned[3], 3U);
}

TEST_F(D4_QuietFirst, WhereAZoneIsIsKnown)
{
	const orbit::rref<Block> one = block();
	const auto memory = supervisor->zone_memory(Zone{0});
	const auto *const at = reinterpret_cast<const std::byte *>(&*one);

	EXPECT_GE(at, memory.data());
	EXPECT_LE(at + sizeof(Block), memory.data() + memory.size());
	EXPECT_TRUE(supervisor->zone_memory(Zone{1}).empty());
}

// --- D6

TEST_F(D6_NothingHangs, WhoKnowsThatADomainDoesNothingHasItReplaced)
{
	Domain &domain = start(restarting());
	const pid_t first = domain.pid();

	domain.recovery()->replace(2);
	EXPECT_EQ(domain.pid(), first) << "that is not it";
	domain.recovery()->replace(1);
	EXPECT_NE(domain.pid(), first);
	EXPECT_EQ(domain.statistics().starts, 2U);
	ASSERT_EQ(nr_reports(), 1U);
	EXPECT_TRUE(reports[0].silent);
	EXPECT_EQ(proxy(domain).add(1), 1U);
}

TEST_F(D6_NothingHangs, ACallThatIsNotAnsweredEndsAndSoDoesTheDomain)
{
	Domain &domain = start(restarting());
	const auto begin = std::chrono::steady_clock::now();

	EXPECT_EQ(error_of(patient(domain, 100ms).harm(Harm::hang)), ETIMEDOUT);
	EXPECT_GE(std::chrono::steady_clock::now() - begin, 100ms);
	EXPECT_LT(std::chrono::steady_clock::now() - begin, patience);
	ASSERT_EQ(nr_reports(), 1U);
	EXPECT_TRUE(reports[0].silent);
	EXPECT_EQ(reports[0].method, "harm");
	EXPECT_EQ(proxy(domain).add(1), 1U);
}

TEST_F(D6_NothingHangs, ACallThatWaitsBehindOthersForTooLongIsNotMade)
{
	Domain &domain = start(options());
	int error = -1;
	std::thread first = busy(domain, 1000, Harm::none, &error);

	EXPECT_EQ(error_of(patient(domain, 20ms).add(1)), ETIMEDOUT);
	first.join();
	EXPECT_EQ(error, 0);
	EXPECT_EQ(proxy(domain).add(1), 1U) << "it was not made, and the domain was not ended";
	EXPECT_EQ(nr_reports(), 0U);
}

TEST_F(D6_NothingHangs, ADeadlineOfZeroChangesNothing)
{
	Domain &domain = start(options());
	DomainOptions none = options("none");

	EXPECT_EQ(error_of(patient(domain, 0ns).add(1)), ETIMEDOUT);
	EXPECT_EQ(error_of(patient(domain, -1s).add(1)), ETIMEDOUT);
	EXPECT_EQ(proxy(domain).add(1), 1U);
	none.deadline = 0ns;
	EXPECT_EQ(error_of(supervisor->start(none)), ETIMEDOUT);
	EXPECT_EQ(nr_reports(), 0U);
}

TEST_F(D6_NothingHangs, CreationHasADeadline)
{
	DomainOptions chosen = restarting();

	chosen.services = {orbit::service<OtherSkeleton, BornTo<Harm::hang>>()};
	chosen.deadline = 200ms;
	EXPECT_EQ(error_of(supervisor->start(chosen)), ETIMEDOUT);
	ASSERT_EQ(nr_reports(), 1U);
	EXPECT_TRUE(reports[0].in_creation);
	EXPECT_TRUE(reports[0].silent);
	// Neither its name, nor its number, nor its memory is taken.
	EXPECT_EQ(supervisor->registry().size(), 0U);
	EXPECT_EQ(proxy(start(options())).add(1), 1U);
}

TEST_F(D6_NothingHangs, AFloodEndsAtALimit)
{
	Domain &domain = start(restarting());
	const auto flooded = proxy(domain).harm(Harm::flood);

	ASSERT_FALSE(flooded);
	EXPECT_FALSE(flooded.error().from_method());
	EXPECT_EQ(proxy(domain).add(1), 1U);
}

// --- D7

TEST_F(D7_Recovery, ARepeatableCallCostsItsCallerTimeAndNothingElse)
{
	for (const Harm harm : {Harm::crash, Harm::abort, Harm::exit}) {
		births = 0;
		domains.clear();
		Domain &domain = start(counted());
		EXPECT_EQ(shadow(domain).first_harm_repeatable(harm), 2U) << "by the second process";
		EXPECT_EQ(shadow(domain).first_harm_repeatable(harm), 2U);
	}
}

TEST_F(D7_Recovery, LentBuffersAreLentAgain)
{
	Domain &domain = start(counted());
	const orbit::rref<Block> lent = block(2);

	EXPECT_EQ(shadow(domain).sum(lent, Harm::crash), 128U);
	EXPECT_EQ(births, 2U);
}

TEST_F(D7_Recovery, OtherCallsEndWithAnErrorThatSaysSo)
{
	Domain &domain = start(counted());
	WorkerShadow worker = shadow(domain);
	const auto done = worker.first_harm(Harm::crash);

	ASSERT_FALSE(done);
	EXPECT_EQ(done.error().code(), ECONNRESET);
	EXPECT_NE(done.error().message().find("may not be repeated"), std::string::npos) << done.error().message();
	EXPECT_EQ(worker.first_harm(Harm::crash), 2U) << "the next one is served";

	// What was moved is gone with the domain.
	births = 0;
	domains.clear();
	Domain &again = start(counted());
	EXPECT_EQ(error_of(shadow(again).fill(block(), Harm::crash)), ECONNRESET);
	EXPECT_EQ(error_of(shadow(again).fill(block(), Harm::crash)), 0);
}

TEST_F(D7_Recovery, ACallThatHadNotBegunIsMade)
{
	Domain &domain = start(counted());
	int error = 0;
	std::thread first = busy(domain, 1000, Harm::crash, &error);

	EXPECT_EQ(shadow(domain).add(1), 1U) << "once, though it may not be repeated";
	first.join();
	EXPECT_EQ(error, ECONNRESET);
	EXPECT_EQ(domain.statistics().starts, 2U);
}

TEST_F(D7_Recovery, ACallThatKillsEveryDomainIsMadeAFewTimesOnly)
{
	Domain &domain = start(restarting(10));

	// The process's number stays the first one's without the set-up.
	EXPECT_EQ(error_of(shadow(domain).first_harm_repeatable(Harm::crash)), ECONNRESET);
	EXPECT_EQ(domain.statistics().starts, 4U);
	EXPECT_EQ(proxy(domain).add(1), 1U);
}

TEST_F(D7_Recovery, ACrashLoopEndsWithAnError)
{
	Domain &domain = start(restarting(2));

	for (int i = 0; i < 3; i++)
		EXPECT_EQ(error_of(proxy(domain).harm(Harm::abort)), ECONNRESET) << i;
	EXPECT_EQ(error_of(proxy(domain).harm(Harm::abort)), EHOSTDOWN);
	EXPECT_EQ(error_of(shadow(domain).first_harm_repeatable(Harm::none)), EHOSTDOWN);
	// Nor is there anybody to have a buffer.
	const orbit::rref<Block> lent = block();
	EXPECT_EQ(error_of(proxy(domain).sum(lent, Harm::none)), EHOSTDOWN);
	EXPECT_EQ(error_of(shadow(domain).sum(lent, Harm::none)), EHOSTDOWN);
	EXPECT_EQ(error_of(proxy(domain).keep(block(), 0)), EHOSTDOWN);
	EXPECT_EQ(supervisor->census().owned[1], 1U);
	EXPECT_EQ(domain.statistics().starts, 3U);
	ASSERT_EQ(nr_reports(), 3U);
	EXPECT_TRUE(reports[1].restarted);
	EXPECT_FALSE(reports[2].restarted);
	EXPECT_EQ(supervisor->census().owned[2], 0U);
}

TEST_F(D7_Recovery, ASetUpThatFailsCountsAsADeath)
{
	DomainOptions chosen = restarting(3);

	chosen.set_up = [this](const auto &transport, const orbit::isolation::Connection &connection) {
		return WorkerProxy(transport, connection).harm(++births == 1 ? Harm::none : Harm::crash);
	};
	Domain &domain = start(chosen);
	EXPECT_EQ(error_of(proxy(domain).harm(Harm::crash)), ECONNRESET);
	EXPECT_EQ(error_of(proxy(domain).harm(Harm::none)), EHOSTDOWN);
	EXPECT_EQ(births, 4U);
	EXPECT_EQ(domain.statistics().starts, 1U);
}

TEST_F(D7_Recovery, ManyCallersRecoverADomainOnce)
{
	Domain &domain = start(counted(50)); // a call may be begun three times
	std::vector<std::thread> callers;
	std::atomic<int> served{0};

	for (int i = 0; i < 4; i++)
		callers.emplace_back([&, worker = shadow(domain)]() mutable {
			for (int n = 0; n < 10; n++) {
				const auto done = worker.first_harm_repeatable(Harm::none);
				served += done.has_value();
				EXPECT_TRUE(done) << done.error().message();
			}
		});
	for (int i = 0; i < 2; i++) {
		std::this_thread::sleep_for(20ms);
		if (const pid_t pid = domain.pid())
			kill(pid, SIGKILL);
	}
	for (std::thread &caller : callers)
		caller.join();
	EXPECT_EQ(served, 40);
	EXPECT_LE(domain.statistics().starts, 3U);
	EXPECT_TRUE(eventually([&] { return nr_reports() + 1 == domain.statistics().starts; }));
}

// --- the same over rings

class DomainsOverRings : public Domains {
protected:
	DomainsOverRings() { via = orbit::Via::ring; }
};

TEST_F(DomainsOverRings, D2_CallsMoveAndLendBuffers)
{
	Domain &domain = start(options());
	WorkerProxy worker = proxy(domain);

	auto filled = worker.fill(block(), Harm::none);
	ASSERT_TRUE(filled) << filled.error().message();
	EXPECT_EQ(worker.sum(*filled, Harm::none), 192U);
	EXPECT_EQ(error_of(worker.fail(ECONNRESET)), ECONNRESET);
	EXPECT_EQ(worker.add(1), 1U);
	EXPECT_EQ(domain.statistics().failed, 0U);
}

TEST_F(DomainsOverRings, EachServiceHasAThreadOfItsOwn)
{
	DomainOptions chosen = options();
	chosen.services.push_back(orbit::service<OtherSkeleton, BornTo<Harm::none>>());
	Domain &domain = start(chosen);
	auto other = domain.proxy<OtherProxy>();
	int error = 0;
	std::thread caller = busy(domain, 1'000'000, Harm::none, &error);

	EXPECT_EQ(error_of(other->nothing()), 0) << "it does not wait behind the other service";
	domain.stop();
	caller.join();
	EXPECT_TRUE(error == ECONNRESET || error == EHOSTDOWN) << error;
	EXPECT_EQ(domain.statistics().starts, 1U);
}

TEST_F(DomainsOverRings, EachObjectOfAServiceHasAThreadOfItsOwn)
{
	DomainOptions chosen = options();
	chosen.services[0].objects = 3;
	chosen.services.push_back(orbit::service<OtherSkeleton, BornTo<Harm::none>>());
	Domain &domain = start(chosen);
	WorkerProxy second = *domain.proxy<WorkerProxy>(1), third = *domain.proxy<WorkerProxy>(2);
	int error = 0;
	std::thread caller = busy(domain, 1'000'000, Harm::none, &error);

	EXPECT_EQ(second.add(1), 1U) << "it does not wait behind the first";
	EXPECT_EQ(third.add(2), 2U) << "it is another object";
	EXPECT_EQ(second.add(3), 4U);
	EXPECT_EQ(error_of(domain.proxy<OtherProxy>()->nothing()), 0) << "services come after one another";
	EXPECT_EQ(error_of(domain.proxy<WorkerProxy>(3)), EPROTOTYPE);
	EXPECT_EQ(error_of(domain.proxy<OtherProxy>(1)), EPROTOTYPE);
	EXPECT_EQ(supervisor->registry().size(), 2U) << "with the first of each service";
	domain.stop();
	caller.join();
	EXPECT_TRUE(error == ECONNRESET || error == EHOSTDOWN) << error;
	EXPECT_EQ(error_of(second.add(1)), EHOSTDOWN);
}

TEST_F(DomainsOverRings, ARestartBringsAllObjectsOfAService)
{
	DomainOptions chosen = restarting();
	chosen.services[0].objects = 2;
	Domain &domain = start(chosen);
	WorkerProxy first = proxy(domain), second = *domain.proxy<WorkerProxy>(1);

	ASSERT_EQ(second.add(1), 1U);
	EXPECT_EQ(error_of(second.harm(Harm::crash)), ECONNRESET);
	EXPECT_EQ(reports.at(0).method, "harm");
	EXPECT_EQ(first.add(2), 2U);
	EXPECT_EQ(second.add(3), 3U) << "by a new process";
}

TEST_F(DomainsOverRings, D3_ACrashIsAnErrorOfThisSideAndAReport)
{
	Domain &domain = start(restarting());
	WorkerProxy worker = proxy(domain);

	ASSERT_EQ(worker.keep(block(), 4), 5U);
	EXPECT_EQ(error_of(worker.harm(Harm::crash)), ECONNRESET);
	EXPECT_EQ(worker.add(1), 1U) << "by a new process";
	ASSERT_EQ(nr_reports(), 1U);
	EXPECT_EQ(reports[0].code, SIGSEGV);
	EXPECT_EQ(reports[0].address, 16U);
	EXPECT_EQ(reports[0].method, "harm");
	EXPECT_EQ(reports[0].buffers.buffers, 5U);

	ASSERT_EQ(kill(domain.pid(), SIGKILL), 0);
	ASSERT_TRUE(eventually([&] { return nr_reports() == 2 && domain.statistics().running; }));
	EXPECT_EQ(worker.add(2), 2U);
}

TEST_F(DomainsOverRings, D6_EveryCallEnds)
{
	Domain &domain = start(restarting());
	int error = 0;

	EXPECT_EQ(error_of(patient(domain, 0ns).add(1)), ETIMEDOUT);
	EXPECT_EQ(domain.statistics().starts, 1U);
	EXPECT_EQ(error_of(patient(domain, 100ms).harm(Harm::hang)), ETIMEDOUT);
	EXPECT_TRUE(domain.last_report()->silent);
	EXPECT_EQ(proxy(domain).add(1), 1U);

	std::thread caller = busy(domain, 1'000'000, Harm::none, &error);

	domain.stop();
	caller.join();
	EXPECT_TRUE(error == ECONNRESET || error == EHOSTDOWN) << error;
	EXPECT_EQ(error_of(proxy(domain).add(1)), EHOSTDOWN);
}

TEST_F(DomainsOverRings, D7_ManyCallersRecoverADomainOnce)
{
	Domain &domain = start(counted());
	std::vector<std::thread> callers;
	std::atomic<int> served{0};

	EXPECT_EQ(shadow(domain).first_harm_repeatable(Harm::crash), 2U);
	for (int i = 0; i < 3; i++)
		callers.emplace_back([&, worker = shadow(domain)]() mutable {
			for (int n = 0; n < 50; n++)
				served += worker.first_harm_repeatable(Harm::none).has_value();
		});
	std::this_thread::sleep_for(10ms);
	if (const pid_t pid = domain.pid())
		kill(pid, SIGKILL);
	for (std::thread &caller : callers)
		caller.join();
	EXPECT_EQ(served, 150);
	EXPECT_TRUE(eventually([&] { return domain.statistics().starts == 3; }));
}

// --- what is refused changes nothing

TEST_F(DomainsRefused, OptionsThatMakeNoSense)
{
	const auto refused_for = [this](int error, auto change) {
		DomainOptions chosen = options();
		change(chosen);
		EXPECT_EQ(error_of(supervisor->start(chosen)), error);
	};
	const std::size_t buffers = supervisor->census().buffers;

	refused_for(EINVAL, [](DomainOptions &o) { o.services.clear(); });
	refused_for(EINVAL, [](DomainOptions &o) { o.services = {{}}; });
	refused_for(EINVAL, [](DomainOptions &o) { o.services[0].objects = 65; });
	refused_for(EINVAL, [](DomainOptions &o) { o.services[0].objects = 0; });
	refused_for(EEXIST, [](DomainOptions &o) { o.services.push_back(o.services[0]); });
	refused_for(EEXIST, [](DomainOptions &o) { o.parts.push_back({Zone{0}, 0}); });
	refused_for(EINVAL, [](DomainOptions &o) { o.parts = {{Zone{1}, 0}}; });
	refused_for(ENOSPC, [](DomainOptions &o) { o.parts = {{Zone{0}, 1 << 20}}; });
	refused_for(ENAMETOOLONG, [](DomainOptions &o) { o.name.assign(1000, 'x'); });
	refused_for(ECONNRESET, [](DomainOptions &o) { o.services = {orbit::service<OtherSkeleton, BornTo<Harm::crash>>()}; });
	refused_for(ECONNRESET, [](DomainOptions &o) { o.services = {orbit::service<OtherSkeleton, BornTo<Harm::exit>>()}; });

	EXPECT_EQ(supervisor->registry().size(), 0U);
	EXPECT_EQ(supervisor->census().buffers, buffers);
	Domain &domain = start(options());
	EXPECT_EQ(proxy(domain).keep(block(), 3), 4U);
	EXPECT_EQ(error_of(supervisor->start(options())), EEXIST) << "the name";
	EXPECT_EQ(error_of(domain.proxy<OtherProxy>()), EPROTOTYPE);
	EXPECT_EQ(proxy(domain).add(1), 1U);
}

TEST_F(DomainsRefused, MoreDomainsThanThereMayBe)
{
	start_supervisor({.domains = 2});
	start(options("a"));
	start(options("b"));
	EXPECT_EQ(error_of(supervisor->start(options("c"))), EAGAIN);
	domains.pop_back();
	EXPECT_EQ(proxy(start(options("c"))).add(1), 1U);
}

TEST_F(DomainsRefused, HeapsThatMakeNoSense)
{
	EXPECT_EQ(error_of(Supervisor::create({.zones = {}})), EINVAL);
	EXPECT_EQ(error_of(Supervisor::create({.zones = {{0, 0}}})), EINVAL);
	EXPECT_EQ(error_of(Supervisor::create({.domains = 0})), EINVAL);
	EXPECT_EQ(error_of(Supervisor::create({.domains = 100})), EINVAL);
	EXPECT_EQ(error_of(Supervisor::create({.zones = {{4096, 8192}}})), ENOSPC);
}

TEST_F(DomainsRefused, ABufferForADomainThatHasNoPartInItsZone)
{
	DomainOptions chosen = options();
	chosen.parts.clear();
	Domain &domain = start(chosen);
	WorkerProxy worker = proxy(domain);
	const orbit::rref<Block> lent = block(1);

	EXPECT_EQ(error_of(worker.sum(lent, Harm::none)), EACCES);
	EXPECT_EQ(error_of(worker.keep(block(), 0)), EACCES);
	EXPECT_EQ(worker.add(1), 1U);
	EXPECT_EQ(supervisor->census().lost, 0U);
}

} // namespace
