// SPDX-License-Identifier: MIT
//
// Objects that are passed to domains and by domains: callbacks, calls between domains, and what a hostile domain
// makes of that. Everything with both ways to call the domain's services.
#include "domains_objects.orbit.hpp"
#include "domains_test.h"

#include <atomic>
#include <cstring>
#include <memory>
#include <numeric>
#include <random>
#include <vector>

namespace {

using orbit::Domain;
using orbit::DomainOptions;
using orbit::Supervisor;
using orbit::Zone;
using orbit::isolation::Capability;
using orbit::isolation::Connection;
using orbit::isolation::PassedObjects;

std::uint64_t sum_of(const orbit::rref<Block> &block)
{
	return std::accumulate(std::begin(block->words), std::end(block->words), std::uint64_t{0});
}

class MySink : public Sink {
public:
	orbit::result<std::uint64_t> take(std::uint64_t n) override { return sum_ += n; }
	orbit::result<orbit::rref<Block>> fill(orbit::rref<Block> block) override
	{
		std::fill(std::begin(block->words), std::end(block->words), 3);
		return block;
	}
	orbit::result<std::uint64_t> sum(const orbit::rref<Block> &block) override { return sum_of(block); }

private:
	std::atomic<std::uint64_t> sum_ = 0;
};

class MyLadder : public Ladder {
public:
	orbit::result<std::uint32_t> climb(std::uint32_t more, Ladder &other) override
	{
		if (!more)
			return 0;
		auto rest = other.climb(more - 1, *this);
		if (!rest)
			return orbit::failed(rest.error().code());
		return *rest + 1;
	}
};

// --- in the domains

// Looks at messages on their way, to send others like them.
class Spy final : public orbit::isolation::Capabilities {
public:
	explicit Spy(orbit::isolation::Capabilities *real) : real_(real) {}
	int offer(std::shared_ptr<orbit::isolation::Skeleton> object, Capability *capability) override
	{
		return real_->offer(std::move(object), capability);
	}
	int withdraw(const Capability &capability) override { return real_->withdraw(capability); }
	void delivered(const Capability &capability) override { real_->delivered(capability); }
	int accept(const Capability &capability, std::uint64_t type, std::shared_ptr<orbit::isolation::Transport> *way) override
	{
		seen = capability;
		return real_->accept(capability, type, way);
	}
	// A call that was given to nobody.
	int forge(const Capability &capability, std::uint32_t method, std::span<const std::byte> args = {})
	{
		std::shared_ptr<orbit::isolation::Transport> way;
		std::byte reply[256];
		std::size_t bytes;

		if (const int error = real_->accept(capability, capability.type, &way))
			return error;
		return way->call(method, args, reply, &bytes, 1'000'000'000);
	}

	Capability seen{};

private:
	orbit::isolation::Capabilities *real_;
};

class MyNode : public Node {
public:
	MyNode(Spy &spy, orbit::isolation::Endpoint &endpoint) : spy_(spy), endpoint_(endpoint) {}

	orbit::result<std::uint64_t> call(Sink &sink, std::uint64_t n) override { return as_mine(sink.take(n)); }
	orbit::result<void> keep(std::shared_ptr<Sink> sink) override
	{
		kept_ = std::move(sink);
		return {};
	}
	orbit::result<std::uint64_t> call_kept(std::uint64_t n) override { return as_mine(kept_->take(n)); }
	orbit::result<void> let_go() override
	{
		kept_ = nullptr;
		return {};
	}
	orbit::result<std::shared_ptr<Sink>> sink() override { return std::make_shared<MySink>(); }
	orbit::result<orbit::rref<Block>> through(Sink &sink, orbit::rref<Block> block) override
	{
		return as_mine(sink.fill(std::move(block)));
	}
	orbit::result<std::uint64_t> lend(Sink &sink, std::uint64_t word) override
	{
		auto block = endpoint_.make<Block>(Zone{0});
		if (!block)
			return orbit::failed(block.error().code());
		std::fill(std::begin((*block)->words), std::end((*block)->words), word);
		return as_mine(sink.sum(*block));
	}
	orbit::result<std::int32_t> attack(Attack attack, Sink &) override
	{
		Capability forged = std::exchange(before_, spy_.seen);

		switch (attack) {
		case Attack::after: // of the call before this one
			break;
		case Attack::index:
			forged = {1000, spy_.seen.generation, spy_.seen.type};
			break;
		case Attack::generation:
			forged = {spy_.seen.index, spy_.seen.generation + 1, spy_.seen.type};
			break;
		case Attack::type:
			forged = {spy_.seen.index, spy_.seen.generation, Ladder_wire::interface_id};
			break;
		case Attack::method:
			forged = spy_.seen;
			for (const std::uint32_t method : {1U, 4U, ~0U}) // garbage for the first, and methods that there are not
				if (const int error = spy_.forge(forged, method); error != -EPROTO && error != -ENOSYS)
					return error;
			return -EPROTO;
		case Attack::flood:
			for (int i = 0; i < 3000; i++)
				spy_.forge(spy_.seen, i % 2 ? 1 : 0); // 0: it lets go of what it has for the call only
			return spy_.forge(spy_.seen, 1);
		}
		return spy_.forge(forged, 1);
	}
	orbit::result<void> crash() override { abort(); }
	orbit::result<std::uint64_t> add(std::uint64_t n) override { return n + 1; }

private:
	template <class T> static orbit::result<T> as_mine(orbit::result<T> done)
	{
		if (!done)
			return orbit::failed(done.error().code());
		return done;
	}

	Spy &spy_;
	orbit::isolation::Endpoint &endpoint_;
	Capability before_{};
	std::shared_ptr<Sink> kept_;
};

constexpr orbit::Service node_service{
	&NodeSkeleton::interface_, [](const Connection &connection) -> std::shared_ptr<orbit::isolation::Skeleton> {
		Connection spied = connection;
		auto *const spy = new Spy(connection.capabilities);
		spied.capabilities = spy;
		return std::make_shared<NodeSkeleton>(std::make_shared<MyNode>(*spy, *connection.endpoint), spied);
	}};

// --- in the main program

class Objects : public testing::TestWithParam<orbit::Via> {
protected:
	void SetUp() override
	{
		auto made = Supervisor::create();
		ASSERT_TRUE(made) << made.error().message();
		supervisor = std::move(*made);
	}
	Domain &start(const char *name = "node", unsigned restarts = 3)
	{
		DomainOptions options;

		options.name = name;
		options.services = {node_service, orbit::service<SinkSkeleton, MySink>(), orbit::service<LadderSkeleton, MyLadder>()};
		options.parts = {{Zone{0}, 1 << 15}};
		options.timeout = patience;
		options.deadline = patience;
		options.via = GetParam();
		options.restarts = {.most = restarts, .within = 1h};
		options.inherit = has_feature(ORBIT_FEATURE_MINIMAL) ? orbit::Inherit::minimal : orbit::Inherit::all;
		auto made = supervisor->start(options);
		if (!made)
			throw std::runtime_error(made.error().message());
		domains.push_back(std::move(*made));
		return *domains.back();
	}
	static NodeProxy node(const Domain &domain) { return *domain.proxy<NodeProxy>(); }
	orbit::rref<Block> block(std::uint64_t word = 0)
	{
		Block full;
		std::fill(std::begin(full.words), std::end(full.words), word);
		auto made = supervisor->endpoint().make(Zone{0}, full);
		if (!made)
			throw std::runtime_error(made.error().message());
		return std::move(*made);
	}
	void expect_order()
	{
		const auto census = supervisor->census();

		EXPECT_EQ(census.lost, 0U);
		EXPECT_EQ(census.twice, 0U);
		EXPECT_EQ(census.in_flight, 0U);
	}

	std::unique_ptr<Supervisor> supervisor;
	std::vector<std::unique_ptr<Domain>> domains;
	MySink sink;
};

INSTANTIATE_TEST_SUITE_P(Via, Objects, testing::Values(orbit::Via::call, orbit::Via::ring),
			 [](const auto &way) { return way.param == orbit::Via::call ? "Call" : "Ring"; });

TEST_P(Objects, ADomainCallsWhatItWasGivenForACall)
{
	Domain &domain = start();
	NodeProxy proxy = node(domain);

	for (std::uint64_t n = 1; n <= 5; n++)
		EXPECT_EQ(proxy.call(sink, 1), n);
	EXPECT_EQ(domain.statistics().starts, 1U);
}

TEST_P(Objects, AndKeepsWhatItWasGivenToKeepUntilItLetsGo)
{
	Domain &domain = start();
	NodeProxy proxy = node(domain);
	auto given = std::make_shared<MySink>();
	const std::weak_ptr<MySink> watched = given;

	ASSERT_EQ(error_of(proxy.keep(std::move(given))), 0);
	EXPECT_EQ(proxy.call_kept(2), 2U);
	EXPECT_EQ(proxy.call_kept(2), 4U);
	EXPECT_EQ(error_of(proxy.let_go()), 0);
	EXPECT_TRUE(eventually([&] { return watched.expired(); }));

	// Or until it dies.
	given = std::make_shared<MySink>();
	const std::weak_ptr<MySink> second = given;
	ASSERT_EQ(error_of(proxy.keep(std::move(given))), 0);
	EXPECT_EQ(error_of(proxy.crash()), ECONNRESET);
	EXPECT_TRUE(eventually([&] { return second.expired(); }));
	EXPECT_EQ(proxy.call(sink, 1), 1U) << "the next one can be given objects, too";
}

TEST_P(Objects, D3_ADomainsObjectEndsWithItsProcess)
{
	Domain &domain = start();
	auto theirs = node(domain).sink();

	ASSERT_TRUE(theirs) << theirs.error().message();
	EXPECT_EQ((*theirs)->take(3), 3U);
	EXPECT_EQ((*theirs)->take(3), 6U);
	EXPECT_EQ(error_of(node(domain).crash()), ECONNRESET);
	auto another = node(domain).sink(); // of the same number in the new process
	ASSERT_TRUE(another) << another.error().message();
	EXPECT_EQ(error_of((*theirs)->take(1)), EHOSTDOWN);
	EXPECT_EQ((*another)->take(5), 5U);
	domain.stop();
	EXPECT_EQ(error_of((*another)->take(1)), EHOSTDOWN);
	EXPECT_EQ(error_of(node(domain).call(sink, 1)), EHOSTDOWN);
}

TEST_P(Objects, D2_BuffersMoveThroughThreeDomainsAndAreLentTwoDeep)
{
	Domain &first = start("first"), &second = start("second");
	SinkProxy far = *second.proxy<SinkProxy>();

	auto filled = node(first).through(far, block());
	ASSERT_TRUE(filled) << filled.error().message();
	EXPECT_EQ(sum_of(*filled), 192U);
	EXPECT_EQ(node(first).lend(far, 2), 128U) << "to the main program, and by that to the second";
	expect_order();
	filled->reset();
	EXPECT_EQ(supervisor->census().owned[2] + supervisor->census().owned[3], 0U);
}

TEST_P(Objects, ADomainCallsAnother)
{
	Domain &first = start("first"), &second = start("second", 1);

	ASSERT_EQ(error_of(node(first).keep(std::make_shared<SinkProxy>(*second.proxy<SinkProxy>()))), 0);
	EXPECT_EQ(node(first).call_kept(4), 4U);
	// It is restarted, and then down for ever: an error, and nothing hangs.
	EXPECT_EQ(error_of(node(second).crash()), ECONNRESET);
	EXPECT_EQ(node(first).call_kept(4), 4U) << "by the new one";
	EXPECT_EQ(error_of(node(second).crash()), ECONNRESET);
	EXPECT_EQ(error_of(node(first).call_kept(4)), EHOSTDOWN);
	SinkProxy far = *second.proxy<SinkProxy>();
	EXPECT_EQ(error_of(node(first).lend(far, 1)), EHOSTDOWN);
	EXPECT_EQ(error_of(node(first).through(far, block())), EHOSTDOWN);
	EXPECT_EQ(first.statistics().starts, 1U);
	expect_order();
}

TEST_P(Objects, D6_ObjectsThatCallOneAnotherEnd)
{
	Domain &domain = start();
	MyLadder mine;
	Connection impatient = domain.connection();
	LadderProxy theirs = *domain.proxy<LadderProxy>();

	EXPECT_EQ(theirs.climb(9, mine), 9U);
	// Deeper than there are threads: it ends at a deadline.
	impatient.timeout = 300ms;
	LadderProxy hasty(domain.transport(domain.find(Ladder_wire::interface_id)), impatient);
	EXPECT_NE(error_of(hasty.climb(100, mine)), 0);
	ASSERT_TRUE(eventually([&] { return domain.statistics().running; }));
	EXPECT_EQ(node(domain).add(1), 2U);
}

// Calls the domain's service again, which is in a call.
class Recursive : public MySink {
public:
	explicit Recursive(NodeProxy proxy) : proxy_(std::move(proxy)) {}
	orbit::result<std::uint64_t> take(std::uint64_t n) override { return proxy_.add(n); }

private:
	NodeProxy proxy_;
};

TEST_P(Objects, D6_ACallOfWhoWaitsForItsCallerEndsAtItsDeadline)
{
	Domain &domain = start();
	Connection impatient = domain.connection();
	impatient.timeout = 100ms;
	Recursive recursive(NodeProxy(domain.transport(0), impatient));

	// As a task it waits behind the other one, and is not made. In a ring nobody can tell, and the domain is ended.
	EXPECT_EQ(error_of(node(domain).call(recursive, 1)), GetParam() == orbit::Via::call ? ETIMEDOUT : ECONNRESET);
	EXPECT_EQ(node(domain).add(1), 2U);
}

class Killer : public MySink {
public:
	explicit Killer(const Domain &domain) : domain_(domain) {}
	orbit::result<std::uint64_t> take(std::uint64_t n) override
	{
		kill(domain_.pid(), SIGKILL);
		std::this_thread::sleep_for(50ms);
		done = true;
		return n;
	}
	std::atomic<bool> done = false;

private:
	const Domain &domain_;
};

TEST_P(Objects, D3_ADomainThatDiesInACallbackEndsItsCall)
{
	Domain &domain = start();
	{
		Killer killer(domain);
		EXPECT_EQ(error_of(node(domain).call(killer, 1)), ECONNRESET);
		EXPECT_TRUE(killer.done) << "the object is not used any more when the call has returned";
	}
	EXPECT_EQ(node(domain).call(sink, 1), 1U);
	EXPECT_EQ(domain.statistics().starts, 2U);
}

TEST_P(Objects, D3_AForgedCapabilityIsAnErrorAndCallsNobody)
{
	Domain &domain = start();
	const auto attack = [&](Attack how) { return node(domain).attack(how, sink); };

	EXPECT_EQ(attack(Attack::index), -EBADF);
	EXPECT_EQ(attack(Attack::generation), -ESTALE);
	EXPECT_EQ(attack(Attack::type), -EPROTOTYPE);
	EXPECT_EQ(attack(Attack::method), -EPROTO);
	EXPECT_EQ(attack(Attack::after), -ESTALE) << "when the call has ended that was given it";
	EXPECT_EQ(attack(Attack::flood), -EPROTO);
	EXPECT_EQ(sink.take(0), 0U);
	EXPECT_EQ(node(domain).call(sink, 1), 1U);
	EXPECT_EQ(domain.statistics().starts, 1U);
}

TEST(D5_HostileBytes, AnyMessageToPassedObjects)
{
	auto objects = std::make_shared<PassedObjects>(false);
	auto mine = std::make_shared<MySink>();
	Capability capability;
	std::mt19937 random(1);
	std::byte message[96], reply[96];
	std::size_t bytes;

	ASSERT_EQ(objects->offer(std::make_shared<SinkSkeleton>(mine, Connection{}), &capability), 0);
	for (int i = 0; i < 20000; i++) {
		for (std::byte &each : message)
			each = static_cast<std::byte>(random());
		if (i % 2)
			std::memcpy(message, &capability, sizeof(capability));
		const std::size_t size = random() % sizeof(message), room = random() % sizeof(reply);
		const int error = objects->dispatch(random() % 5, {message, size}, {reply, room}, &bytes);
		EXPECT_TRUE(error == 0 || error == -EPROTO);
		EXPECT_LE(bytes, room);
	}
	EXPECT_EQ(mine->take(0), 0U);
	EXPECT_EQ(objects->size(), 1U);
	std::shared_ptr<orbit::isolation::Transport> way;
	EXPECT_EQ(objects->accept(capability, Sink_wire::interface_id, &way), -EHOSTDOWN) << "there is no other side";
	for (std::size_t i = 1; i < orbit::isolation::max_passed; i++)
		ASSERT_EQ(objects->offer(std::make_shared<SinkSkeleton>(mine, Connection{}), &capability), 0);
	Capability none{};
	EXPECT_EQ(objects->offer(std::make_shared<SinkSkeleton>(mine, Connection{}), &none), -ENFILE);
	EXPECT_EQ(objects->withdraw(capability), 0);
	EXPECT_EQ(objects->withdraw(capability), -ESTALE);
}

} // namespace
