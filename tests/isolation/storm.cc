// SPDX-License-Identifier: MIT
//
// Processes that move, lend and drop buffers at random, and are killed at random while they do; after each kill a
// reclaim, while the others go on, and a census. ORBIT_STORM_KILLS says how many, and has half of the kills come between
// two stores of the heap's, loans lent on, and reclaims take their time; short, and without that, if it is not there.
// ORBIT_STORM_SEED makes it another storm.
namespace {
void step();
}
#define ORBIT_ISOLATION_STEP() step()
#include "../../isolation/heap.cc"

#include "world.h"

#include <atomic>
#include <chrono>
#include <csignal>
#include <cstdint>
#include <cstdlib>
#include <deque>
#include <random>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <thread>

namespace {

using orbit::rref;

constexpr DomainId domains = 8;
constexpr std::size_t run = 64 << 10;
constexpr std::size_t storm_zones[] = {4 << 20};

struct Stamp {
	std::uint64_t owner, number;
	std::array<std::uint64_t, 14> rest;
};

enum class Kind : std::uint32_t { move, loan, end, second_loan, second_end };
struct Message {
	Kind kind;
	DomainId from;
	Handle handle;
};

enum class Phase : std::uint32_t { go, census, end };
struct Control {
	std::atomic<std::uint32_t> turn; // counts on with each change of phase
	std::atomic<Phase> phase;
	std::atomic<std::uint32_t> wrong;
	std::atomic<bool> nests; // who borrows lends to others who borrow
	struct {
		std::atomic<std::uint32_t> turn, held;
		std::atomic<std::uint32_t> steps; // it dies at the one that makes this 0
		std::atomic<std::uint64_t> moves, loans, nested;
	} domain[domains + 1];
};

std::atomic<std::uint32_t> *steps; // in a domain
bool slow;                         // the supervisor dawdles between two stores

void rest(int microseconds);

void step()
{
	static std::minstd_rand random;

	if (steps && *steps && --*steps == 0)
		kill(getpid(), SIGKILL);
	if (!steps && slow && random() % 32 == 0)
		rest(50);
}

void rest(int microseconds)
{
	std::this_thread::sleep_for(std::chrono::microseconds(microseconds));
}

class Domain {
public:
	Domain(std::span<std::byte> memory, DomainId self, Control &control, const int (&boxes)[domains + 1][2],
	       std::uint64_t seed)
		: endpoint_(std::move(*Endpoint::attach(memory, self))), self_(self), control_(control), boxes_(boxes),
		  random_(seed)
	{
	}

	[[noreturn]] void serve()
	{
		auto &mine = control_.domain[self_];

		for (;;) {
			const std::uint32_t turn = control_.turn;
			switch (control_.phase.load()) {
			case Phase::go: act(); break;
			case Phase::census:
				if (mine.turn != turn) {
					mine.held = static_cast<std::uint32_t>(held_.size() + lent_.size());
					mine.turn = turn;
				}
				rest(200);
				break;
			case Phase::end:
				listen();
				for (auto &each : lent_) {
					(void)endpoint_->end_loan(each.loan, each.to);
					held_.push_back(std::move(each.buffer));
				}
				lent_.clear();
				while (!nested_.empty())
					end_nested(nested_.begin());
				held_.clear();
				endpoint_->collect();
				mine.held = 0;
				mine.turn = turn;
				rest(200);
			}
		}
	}

private:
	struct Lent {
		rref<Stamp[]> buffer;
		Handle loan;
		DomainId to;
		int patience;
	};

	// A loan to this domain that it has lent on.
	struct Nested {
		orbit::borrowed<const Stamp[]> buffer;
		Handle further;
		DomainId to;
		Handle loan;
		DomainId from;
		int patience;
	};

	void wrong() { control_.wrong++; }

	// Who owns a buffer writes to it, and nobody else does.
	void stamp(rref<Stamp[]> &buffer)
	{
		for (Stamp *each : {&buffer.elements().front(), &buffer.elements().back()}) {
			each->owner = self_;
			each->number = reinterpret_cast<std::uintptr_t>(&buffer[0]) ^ key_;
		}
	}
	void check(const rref<Stamp[]> &buffer)
	{
		for (const Stamp *each : {&buffer.elements().front(), &buffer.elements().back()})
			if (each->owner != self_ ||
			    each->number != (reinterpret_cast<std::uintptr_t>(&buffer[0]) ^ key_))
				wrong();
	}

	bool post(DomainId to, Kind kind, const Handle &handle)
	{
		const Message message{kind, self_, handle};

		return send(boxes_[to][1], &message, sizeof(message), MSG_DONTWAIT) == sizeof(message);
	}

	void listen()
	{
		Message message;

		while (recv(boxes_[self_][0], &message, sizeof(message), MSG_DONTWAIT) == sizeof(message)) {
			switch (message.kind) {
			case Kind::move:
				if (auto buffer = endpoint_->receive<Stamp[]>(message.handle, message.from)) {
					stamp(*buffer);
					held_.push_back(std::move(*buffer));
					control_.domain[self_].moves++;
				}
				break;
			case Kind::loan:
				if (auto borrowed = endpoint_->borrow<Stamp[]>(message.handle, message.from)) {
					control_.domain[self_].loans++;
					const DomainId to = somebody();
					auto further = endpoint_->lend(borrowed->get(), to);
					if (further && control_.nests && post(to, Kind::second_loan, *further)) {
						nested_.push_back({std::move(*borrowed), *further, to, message.handle, message.from, 100});
						break;
					}
					if (further)
						(void)endpoint_->end_loan(*further, to);
				}
				post(message.from, Kind::end, message.handle);
				break;
			case Kind::second_loan:
				if (auto borrowed = endpoint_->borrow<Stamp[]>(message.handle, message.from))
					control_.domain[self_].nested++;
				post(message.from, Kind::second_end, message.handle);
				break;
			case Kind::second_end:
				for (auto each = nested_.begin(); each != nested_.end(); ++each)
					if (each->further.index == message.handle.index && each->to == message.from) {
						end_nested(each);
						break;
					}
				break;
			case Kind::end:
				for (auto each = lent_.begin(); each != lent_.end(); ++each)
					if (each->loan.index == message.handle.index && each->to == message.from) {
						give_up(each);
						break;
					}
			}
		}
	}
	void end_nested(std::deque<Nested>::iterator each)
	{
		(void)endpoint_->end_loan(each->further, each->to);
		post(each->from, Kind::end, each->loan);
		nested_.erase(each);
	}
	void give_up(std::deque<Lent>::iterator each)
	{
		(void)endpoint_->end_loan(each->loan, each->to);
		check(each->buffer);
		held_.push_back(std::move(each->buffer));
		lent_.erase(each);
	}

	DomainId somebody()
	{
		const DomainId to = 1 + random_() % (domains - 1);
		return to + (to >= self_);
	}
	rref<Stamp[]> any()
	{
		std::swap(held_[random_() % held_.size()], held_.back());
		rref<Stamp[]> buffer = std::move(held_.back());
		held_.pop_back();
		check(buffer);
		return buffer;
	}

	void act()
	{
		listen();
		for (auto each = lent_.begin(); each != lent_.end(); ++each)
			if (--each->patience < 0) {
				give_up(each);
				break;
			}
		for (auto each = nested_.begin(); each != nested_.end(); ++each)
			if (--each->patience < 0) {
				end_nested(each);
				break;
			}
		const auto what = random_() % 10;
		if (what < 3 || held_.empty()) {
			auto buffer = endpoint_->make_array<Stamp>(zone, 1 + random_() % 8);
			if (buffer) {
				stamp(*buffer);
				held_.push_back(std::move(*buffer));
			} else if (buffer.error().code() != ENOSPC) {
				wrong();
			}
		} else if (what < 7) {
			auto buffer = any();
			const DomainId to = somebody();
			auto handle = endpoint_->send(std::move(buffer), to);
			if (handle && !post(to, Kind::move, *handle)) {
				auto back = endpoint_->take_back<Stamp[]>(*handle, to);
				if (back)
					held_.push_back(std::move(*back));
				else if (back.error().code() != EOWNERDEAD)
					wrong();
			} else if (!handle && buffer) {
				held_.push_back(std::move(buffer));
			}
		} else if (what < 9) {
			auto buffer = any();
			const DomainId to = somebody();
			auto loan = endpoint_->lend(buffer, to);
			if (loan && post(to, Kind::loan, *loan)) {
				lent_.push_back({std::move(buffer), *loan, to, 300});
			} else {
				if (loan)
					(void)endpoint_->end_loan(*loan, to);
				held_.push_back(std::move(buffer));
			}
		} else {
			any();
		}
		if (held_.size() > 40)
			any();
		if (random_() % 64 == 0)
			rest(50);
	}

	std::unique_ptr<Endpoint> endpoint_;
	DomainId self_;
	Control &control_;
	const int (&boxes_)[domains + 1][2];
	std::mt19937_64 random_;
	std::uint64_t key_ = random_();
	std::vector<rref<Stamp[]>> held_;
	std::deque<Lent> lent_;
	std::deque<Nested> nested_;
};

class Storm {
public:
	Storm()
		: memory_(Heap::bytes(domains, storm_zones)),
		  heap_(*Heap::create(memory_.span(), domains, storm_zones)), control_memory_(sizeof(Control)),
		  control_(*new (control_memory_.span().data()) Control{})
	{
		for (DomainId i = 1; i <= domains; i++)
			if (socketpair(AF_UNIX, SOCK_DGRAM, 0, boxes_[i]))
				abort();
	}
	~Storm()
	{
		for (DomainId i = 1; i <= domains; i++) {
			if (pids_[i])
				kill_one(i);
			close(boxes_[i][0]);
			close(boxes_[i][1]);
		}
	}
	void start(DomainId domain, std::uint64_t seed)
	{
		ASSERT_TRUE(heap_.add(domain, 0));
		ASSERT_TRUE(heap_.grant(domain, 0, run));
		const pid_t parent = getpid(), pid = fork();
		if (!pid) {
			prctl(PR_SET_PDEATHSIG, SIGKILL);
			if (getppid() != parent)
				_exit(1);
			steps = &control_.domain[domain].steps;
			Domain(memory_.as_domain(heap_, domain), domain, control_, boxes_, seed).serve();
		}
		pids_[domain] = pid;
	}
	// Between two of its stores; false if it does not come to so many in a while.
	bool dies_at(DomainId domain, std::uint32_t nr)
	{
		siginfo_t info{};

		control_.domain[domain].steps = nr;
		for (int tries = 0; tries < 500 && !info.si_pid; tries++) {
			rest(100);
			waitid(P_PID, static_cast<id_t>(pids_[domain]), &info, WEXITED | WNOHANG | WNOWAIT);
		}
		control_.domain[domain].steps = 0;
		return info.si_pid;
	}
	void kill_one(DomainId domain)
	{
		kill(pids_[domain], SIGKILL);
		waitpid(pids_[domain], nullptr, 0);
		pids_[domain] = 0;
	}
	Reclaimed reclaim(DomainId domain)
	{
		const auto report = heap_.reclaim(domain);
		Message message;

		while (recv(boxes_[domain][0], &message, sizeof(message), MSG_DONTWAIT) >= 0)
			;
		return *report;
	}
	// Returns when all have seen it.
	void set(Phase phase)
	{
		control_.phase = phase;
		const std::uint32_t turn = ++control_.turn;
		if (phase == Phase::go)
			return;
		for (DomainId i = 1; i <= domains; i++)
			for (int tries = 0; control_.domain[i].turn != turn; tries++) {
				ASSERT_EQ(waitpid(pids_[i], nullptr, WNOHANG), 0) << "domain " << i << " has died by itself";
				ASSERT_LT(tries, 100000) << "domain " << i << " does not answer";
				rest(300);
			}
	}
	void expect_order(const std::string &where)
	{
		const Census census = heap_.census();

		EXPECT_EQ(census.twice, 0u) << where;
		EXPECT_EQ(census.lost, 0u) << where;
		EXPECT_EQ(control_.wrong, 0u) << where << "somebody else wrote to a buffer";
		for (DomainId i = 1; i <= domains; i++)
			EXPECT_EQ(census.owned[i], control_.domain[i].held) << where << "domain " << i;
	}

	Memory memory_;
	Heap heap_;
	Memory control_memory_;
	Control &control_;
	int boxes_[domains + 1][2] = {};
	pid_t pids_[domains + 1] = {};
};

TEST(D3_CleanEnd, StormOfMovesLoansAndKills)
{
	const char *wanted = getenv("ORBIT_STORM_KILLS");
	const long kills = wanted ? atol(wanted) : 60;
	Storm storm;
	const char *seed = getenv("ORBIT_STORM_SEED");
	std::mt19937_64 random(seed ? strtoull(seed, nullptr, 10) : 5);
	std::size_t buffers = 0, kept = 0, loans = 0, between = 0;

	slow = storm.control_.nests = wanted != nullptr;
	for (DomainId i = 1; i <= domains; i++)
		storm.start(i, random());
	// A sanitizer's processes are slow.
	const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(10);
	long killed = 0;
	for (long i = 0; i < kills && !testing::Test::HasFailure(); i++) {
		if (!wanted && std::chrono::steady_clock::now() > end)
			break;
		killed++;
		const DomainId victim = 1 + random() % domains;
		rest(500 + random() % 4000);
		if (wanted && i % 2 && storm.dies_at(victim, 1 + random() % 40))
			between++;
		storm.kill_one(victim);
		const Reclaimed report = storm.reclaim(victim);
		EXPECT_EQ(report.conflicts, 0u) << i;
		buffers += report.buffers;
		kept += report.kept;
		loans += report.loans;
		storm.start(victim, random());
		storm.set(Phase::census);
		storm.expect_order("kill " + std::to_string(i) + ": ");
		storm.set(Phase::go);
	}
	std::uint64_t moves = 0, borrows = 0, nested = 0;
	for (const auto &each : storm.control_.domain) {
		moves += each.moves;
		borrows += each.loans;
		nested += each.nested;
	}
	printf("%ld kills, %zu of them between two stores, %zu buffers reclaimed, %zu kept, %zu loans ended, %lu moves, %lu loans, "
	       "%lu of loans\n",
	       killed, between, buffers, kept, loans, static_cast<unsigned long>(moves), static_cast<unsigned long>(borrows),
	       static_cast<unsigned long>(nested));
	EXPECT_GT(kept, 0u);
	EXPECT_GT(loans, 0u);
	EXPECT_EQ(between > 0, wanted != nullptr);
	EXPECT_EQ(nested > 0, wanted != nullptr);

	// What is under way arrives, all drop all, and all memory comes home.
	for (int i = 0; i < 20; i++)
		storm.set(Phase::end);
	storm.heap_.sweep();
	const Census census = storm.heap_.census();
	EXPECT_EQ(census.buffers, 0u) << census.in_flight << " in flight, " << census.returned << " returned";
	EXPECT_EQ(storm.heap_.unused(0), storm_zones[0] - domains * run);
}

} // namespace
