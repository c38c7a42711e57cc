// SPDX-License-Identifier: MIT
//
// What orbit-idl generates does what the interface says, over direct calls; and bytes that are no message of a method
// are refused by either side. Compiled and run by test_idl.py, under sanitizers: a bool that is none is undefined.
#include "lengths.orbit.hpp"
#include "objects.orbit.hpp"
#include "projections.orbit.hpp"
#include "values.orbit.hpp"

#include <orbit/direct.hpp>

#include <functional>
#include <numeric>
#include <random>

#include <gtest/gtest.h>

namespace {

using orbit::isolation::Connection;
using orbit::isolation::DirectCapabilities;
using orbit::isolation::DirectTransport;

// A transport that keeps what is sent, and may change what comes back.
class Tap final : public orbit::isolation::Transport {
public:
	explicit Tap(std::shared_ptr<orbit::isolation::Skeleton> object) : object_(std::move(object)) {}

	int call(std::uint32_t method, std::span<const std::byte> args, std::span<std::byte> reply,
		 std::size_t *reply_bytes, std::uint64_t timeout_ns) override
	{
		sent.assign(args.begin(), args.end());
		number = method;
		timeout = timeout_ns;
		const int error = object_->dispatch(method, args, reply, reply_bytes);
		room = reply.size();
		got.assign(reply.begin(), reply.begin() + static_cast<std::ptrdiff_t>(std::min(*reply_bytes, reply.size())));
		return change ? change(error, reply, reply_bytes) : error;
	}

	std::vector<std::byte> sent, got;
	std::uint32_t number = 0;
	std::uint64_t timeout = 0;
	std::size_t room = 0;
	std::function<int(int, std::span<std::byte>, std::size_t *)> change;

private:
	std::shared_ptr<orbit::isolation::Skeleton> object_;
};

template <class Proxy, class Skeleton, class Object> struct Pair {
	std::shared_ptr<DirectCapabilities> capabilities = std::make_shared<DirectCapabilities>();
	Connection connection{.capabilities = capabilities.get(), .timeout = std::chrono::milliseconds(20)};
	std::shared_ptr<Object> object = std::make_shared<Object>();
	std::shared_ptr<Skeleton> skeleton = std::make_shared<Skeleton>(object, connection);
	std::shared_ptr<Tap> tap = std::make_shared<Tap>(skeleton);
	Proxy proxy{tap, connection};
};

// --- values

class Values : public shapes::Values {
public:
	orbit::result<void> nothing() override
	{
		calls++;
		return {};
	}
	orbit::result<std::uint64_t> add(std::uint64_t a, std::int8_t b, double c) override
	{
		if (a == 0)
			return orbit::failed(EDOM);
		return a + static_cast<std::uint64_t>(b) + static_cast<std::uint64_t>(c);
	}
	orbit::result<bool> invert(bool b) const override { return !b; }
	orbit::result<shapes::Kind> next(shapes::Kind kind) override
	{
		EXPECT_TRUE(kind == shapes::Kind::none || kind == shapes::Kind::circle || kind == shapes::Kind::square);
		return kind == shapes::Kind::none ? shapes::Kind::circle : shapes::Kind::square;
	}
	orbit::result<shapes::Rights> without(shapes::Rights rights, const shapes::Level &level) override
	{
		EXPECT_TRUE(level == shapes::low || level == shapes::middle || level == shapes::high);
		return static_cast<shapes::Rights>(static_cast<unsigned>(rights) & 6);
	}
	orbit::result<shapes::Padded> copy(const shapes::Padded &padded) override { return padded; }
	orbit::result<std::array<shapes::Padded, 2>> twice(shapes::Padded padded) override
	{
		return std::array<shapes::Padded, 2>{padded, padded};
	}
	orbit::result<shapes::Shape> turn(const shapes::Shape &shape) override
	{
		shapes::Shape turned{};
		turned.filled = !shape.filled;
		if (shape.kind == shapes::Kind::circle) {
			turned.kind = shapes::Kind::square;
			turned.square[0] = shape.circle.centre;
			turned.square[1] = {shape.circle.radius, 0};
		}
		return turned;
	}
	orbit::result<shapes::Reply> reply(shapes::Level level) override
	{
		shapes::Reply answer{};
		answer.level = level;
		if (level == shapes::low)
			answer.value.yes = true;
		else if (level == shapes::high)
			answer.value.n = -5;
		return answer;
	}

	int calls = 0;
};

using ValuesPair = Pair<shapes::ValuesProxy, shapes::ValuesSkeleton, Values>;

shapes::Padded padded()
{
	shapes::Padded p;
	std::memset(static_cast<void *>(&p), 0xAA, sizeof(p)); // as what was on the stack before
	p.c = 'c';
	p.n = 1ULL << 40;
	p.b = true;
	p.kinds = {shapes::Kind::none, shapes::Kind::square, shapes::Kind::circle};
	std::int16_t n = -3;
	for (auto &row : p.grid)
		for (auto &each : row)
			each = n++;
	return p;
}

TEST(D5_Values, AreWhatWasSent)
{
	ValuesPair p;

	EXPECT_TRUE(p.proxy.nothing());
	EXPECT_EQ(p.object->calls, 1);
	EXPECT_EQ(p.tap->timeout, 20'000'000u);
	EXPECT_EQ(p.proxy.add(40, -2, 4.5).value(), 42u);
	EXPECT_FALSE(p.proxy.invert(true).value());
	EXPECT_TRUE(p.proxy.invert(false).value());
	EXPECT_EQ(p.proxy.next(shapes::Kind::circle).value(), shapes::Kind::square);
	EXPECT_EQ(p.proxy.without(static_cast<shapes::Rights>(7), shapes::high).value(), static_cast<shapes::Rights>(6));

	const auto sent = padded();
	const auto both = p.proxy.twice(sent).value();
	for (const auto &back : both) {
		EXPECT_EQ(back.c, sent.c);
		EXPECT_EQ(back.n, sent.n);
		EXPECT_EQ(back.b, sent.b);
		EXPECT_EQ(back.kinds, sent.kinds);
		EXPECT_EQ(std::memcmp(back.grid, sent.grid, sizeof(sent.grid)), 0);
	}
}

TEST(D5_Values, AMethodsErrorIsItsOwn)
{
	ValuesPair p;

	const auto failed = p.proxy.add(0, 0, 0);
	ASSERT_FALSE(failed);
	EXPECT_EQ(failed.error().code(), EDOM);
	EXPECT_TRUE(failed.error().from_method());
	// What the transport says is no method's.
	p.tap->change = [](int, auto, auto) { return -ETIMEDOUT; };
	const auto late = p.proxy.add(1, 0, 0);
	ASSERT_FALSE(late);
	EXPECT_EQ(late.error().code(), ETIMEDOUT);
	EXPECT_FALSE(late.error().from_method());
	EXPECT_NE(late.error().message().find("Values::add"), std::string::npos);
	// Nor can the other side make one: an error that is no errno value is no reply.
	for (std::int32_t forged : {-1, -ETIMEDOUT, 4096, INT32_MIN, INT32_MAX}) {
		p.tap->change = [forged](int error, std::span<std::byte> reply, std::size_t *) {
			std::memcpy(reply.data() + offsetof(orbit::isolation::Head, error), &forged, sizeof(forged));
			return error;
		};
		const auto bad = p.proxy.add(1, 0, 0);
		ASSERT_FALSE(bad);
		EXPECT_EQ(bad.error().code(), EPROTO);
		EXPECT_FALSE(bad.error().from_method());
	}
}

TEST(D5_Values, TaggedUnions)
{
	ValuesPair p;
	shapes::Shape shape{};

	shape.kind = shapes::Kind::circle;
	shape.circle = {{1, 2}, 3};
	const auto turned = p.proxy.turn(shape).value();
	EXPECT_EQ(turned.kind, shapes::Kind::square);
	EXPECT_EQ(turned.square[0].y, 2);
	EXPECT_EQ(turned.square[1].x, 3);
	EXPECT_TRUE(turned.filled);
	EXPECT_TRUE(p.proxy.reply(shapes::low).value().value.yes);
	EXPECT_EQ(p.proxy.reply(shapes::high).value().value.n, -5);
	EXPECT_EQ(p.proxy.reply(shapes::middle).value().level, shapes::middle);
}

TEST(D1_Values, NothingTravelsThatIsNoValue)
{
	ValuesPair p;
	auto none = [](const std::vector<std::byte> &bytes) {
		return std::count(bytes.begin(), bytes.end(), std::byte(0xAA)) == 0;
	};

	ASSERT_TRUE(p.proxy.copy(padded()));
	EXPECT_TRUE(none(p.tap->sent));
	EXPECT_TRUE(none(p.tap->got));
	shapes::Shape shape;
	std::memset(static_cast<void *>(&shape), 0xAA, sizeof(shape));
	shape.kind = shapes::Kind::none;
	shape.filled = false;
	ASSERT_TRUE(p.proxy.turn(shape));
	EXPECT_TRUE(none(p.tap->sent));
}

TEST(D5_Values, OnlyValuesArrive)
{
	namespace wire = shapes::Values_wire;
	ValuesPair p;
	std::byte reply[256];
	std::size_t n;
	auto refused = [&](std::uint32_t method, auto args) {
		return p.skeleton->dispatch(method, std::as_bytes(std::span(&args, 1)), reply, &n);
	};
	auto with = [&](std::uint32_t type, std::size_t at, std::size_t bytes, unsigned char value) {
		std::vector<std::byte> args(bytes);
		std::memcpy(args.data(), &type, sizeof(type));
		args[at] = std::byte(value);
		return args;
	};
	auto send = [&](std::uint32_t method, const std::vector<std::byte> &args) {
		return p.skeleton->dispatch(method, args, reply, &n);
	};

	for (int value = 0; value < 256; value++) {
		const auto byte = static_cast<unsigned char>(value);
		EXPECT_EQ(send(wire::invert_number, with(wire::invert_type, offsetof(wire::invert_args, b),
							 sizeof(wire::invert_args), byte)),
			  value <= 1 ? 0 : -EPROTO);
		EXPECT_EQ(send(wire::next_number, with(wire::next_type, offsetof(wire::next_args, kind),
						       sizeof(wire::next_args), byte)),
			  value <= 1 || value == 7 ? 0 : -EPROTO);
		EXPECT_EQ(send(wire::turn_number,
			       with(wire::turn_type, offsetof(wire::turn_args, shape) + offsetof(shapes::Shape, kind),
				    sizeof(wire::turn_args), byte)),
			  value <= 1 || value == 7 ? 0 : -EPROTO);
	}
	EXPECT_EQ(refused(0, wire::nothing_args{}), -ENOSYS);
	EXPECT_EQ(refused(99, wire::nothing_args{}), -ENOSYS);
	EXPECT_EQ(refused(wire::nothing_number, wire::nothing_args{}), -EPROTO) << "no type";
	EXPECT_EQ(send(wire::nothing_number, {}), -EPROTO);
	EXPECT_EQ(send(wire::add_number, with(wire::add_type, 0, sizeof(wire::add_args) - 1, 0)), -EPROTO);
	EXPECT_EQ(p.skeleton->dispatch(wire::nothing_number, with(wire::nothing_type, 8, 9, 0), {}, &n), -EMSGSIZE);
	EXPECT_EQ(p.object->calls, 0);
}

// --- strings and arrays

class Lengths : public texts::Lengths {
public:
	orbit::result<std::string> join(std::string_view a, std::string_view b) override
	{
		return std::string(a) + std::string(b) + extra;
	}
	orbit::result<std::uint64_t> sum(std::span<const std::uint32_t> numbers) override
	{
		return std::accumulate(numbers.begin(), numbers.end(), std::uint64_t(0));
	}
	orbit::result<std::vector<texts::Colour>> mix(std::span<const texts::Colour> colours) override
	{
		return std::vector<texts::Colour>(colours.rbegin(), colours.rend());
	}
	orbit::result<std::size_t> fill(std::span<std::byte> bytes, unsigned char with) override
	{
		std::fill(bytes.begin(), bytes.end(), std::byte(with));
		return bytes.size();
	}
	orbit::result<void> sort(std::span<texts::Item> items) override
	{
		std::sort(items.begin(), items.end(), [](auto &a, auto &b) { return a.n < b.n; });
		return {};
	}
	orbit::result<std::vector<texts::Item>> items(std::uint32_t n) override
	{
		return std::vector<texts::Item>(n, {'i', n, true});
	}

	std::string extra;
};

using LengthsPair = Pair<texts::LengthsProxy, texts::LengthsSkeleton, Lengths>;

TEST(D5_Lengths, StringsAndArraysTravel)
{
	LengthsPair p;

	EXPECT_EQ(p.proxy.join("abc", "").value(), "abc");
	EXPECT_EQ(p.proxy.join({}, std::string_view("d\0e", 3)).value(), std::string("d\0e", 3));
	EXPECT_EQ(p.proxy.join(std::string(40, 'x'), std::string(40, 'y')).value().size(), 80u);
	std::vector<std::uint32_t> numbers(1000, 3);
	EXPECT_EQ(p.proxy.sum(numbers).value(), 3000u);
	EXPECT_EQ(p.proxy.sum({}).value(), 0u);
	const texts::Colour colours[] = {texts::Colour::red, texts::Colour::blue};
	EXPECT_EQ(p.proxy.mix(colours).value(), (std::vector{texts::Colour::blue, texts::Colour::red}));
	std::vector<std::byte> bytes(65536);
	EXPECT_EQ(p.proxy.fill(bytes, 7).value(), bytes.size());
	EXPECT_EQ(std::count(bytes.begin(), bytes.end(), std::byte(7)), 65536);
	EXPECT_LT(p.tap->sent.size(), 64u) << "what only comes back is not sent";
	texts::Item items[] = {{'a', 3, true}, {'b', 1, false}, {'c', 2, true}};
	ASSERT_TRUE(p.proxy.sort(items));
	EXPECT_EQ(items[0].letter, 'b');
	EXPECT_EQ(items[2].letter, 'a');
	EXPECT_EQ(p.proxy.items(3).value().size(), 3u);
}

TEST(D5_Lengths, WhatIsTooLongIsRefusedWhereItIsMade)
{
	LengthsPair p;

	EXPECT_EQ(p.proxy.join(std::string(41, 'x'), "").error().code(), E2BIG);
	EXPECT_EQ(p.proxy.sum(std::vector<std::uint32_t>(1001)).error().code(), E2BIG);
	EXPECT_TRUE(p.tap->sent.empty());
	p.object->extra = std::string(81, 'z');
	const auto result = p.proxy.join("", "");
	ASSERT_FALSE(result);
	EXPECT_EQ(result.error().code(), EMSGSIZE);
	EXPECT_TRUE(result.error().from_method());
	EXPECT_EQ(p.proxy.items(4).error().code(), EMSGSIZE);
}

TEST(D5_Lengths, OffsetsAndLengthsAreChecked)
{
	namespace wire = texts::Lengths_wire;
	LengthsPair p;
	std::vector<std::byte> reply(sizeof(wire::join_reply) + 200);
	std::size_t n;

	ASSERT_TRUE(p.proxy.join("abc", "de"));
	const auto good = p.tap->sent;
	for (std::uint32_t offset : {0u, 8u, 23u, static_cast<std::uint32_t>(good.size()), 0x7fffffffu, 0xffffffffu, 0xfffffff8u})
		for (std::uint32_t length : {3u, 41u, 0x7fffffffu, 0xffffffffu}) {
			auto bad = good;
			const orbit::isolation::Part part{offset, length};
			std::memcpy(bad.data() + offsetof(wire::join_args, a), &part, sizeof(part));
			EXPECT_EQ(p.skeleton->dispatch(wire::join_number, bad, reply, &n), -EPROTO) << offset << " " << length;
		}
	// The same of replies.
	for (std::uint32_t length : {6u, 81u, 0xffffffffu}) {
		p.tap->change = [length](int error, std::span<std::byte> back, std::size_t *) {
			std::memcpy(back.data() + offsetof(wire::join_reply, value_) + offsetof(orbit::isolation::Part, length),
				    &length, sizeof(length));
			return error;
		};
		EXPECT_EQ(p.proxy.join("abc", "de").error().code(), EPROTO);
	}
	p.tap->change = [](int error, auto, std::size_t *bytes) {
		*bytes = ~0UL;
		return error;
	};
	EXPECT_EQ(p.proxy.join("abc", "de").error().code(), EPROTO);
}

TEST(D5_Lengths, ABadReplyChangesNothing)
{
	namespace wire = texts::Lengths_wire;
	LengthsPair p;
	texts::Item items[] = {{'a', 3, true}, {'b', 1, false}};

	p.tap->change = [](int error, std::span<std::byte> back, std::size_t *bytes) {
		back[*bytes - sizeof(texts::Item) + offsetof(texts::Item, good)] = std::byte(2);
		return error;
	};
	EXPECT_EQ(p.proxy.sort(items).error().code(), EPROTO);
	EXPECT_EQ(items[0].letter, 'a');
}

// --- objects

class Progress : public objects::Progress {
public:
	orbit::result<bool> step(std::uint32_t n) override
	{
		steps += n;
		if (n == 13)
			return orbit::failed(ECANCELED);
		return n < 3;
	}
	std::uint32_t steps = 0;
};

class Work : public objects::Work {
public:
	explicit Work(std::uint32_t first = 1) : first_(first) {}

	orbit::result<std::uint32_t> run(std::uint32_t steps, objects::Progress &progress) override
	{
		std::uint32_t n = first_;
		while (n <= steps) {
			const auto more = progress.step(n);
			if (!more)
				return orbit::failed(more.error().code());
			if (!*more)
				break;
			n++;
		}
		return n;
	}
	orbit::result<void> subscribe(std::shared_ptr<objects::Progress> progress,
				      std::unique_ptr<objects::Progress> second) override
	{
		kept_ = {std::move(progress), std::shared_ptr<objects::Progress>(std::move(second))};
		return {};
	}
	orbit::result<std::uint32_t> publish() override
	{
		for (auto &each : kept_)
			if (auto stepped = each->step(1); !stepped)
				return orbit::failed(stepped.error().code());
		const auto n = static_cast<std::uint32_t>(kept_.size());
		kept_.clear();
		return n;
	}
	orbit::result<std::shared_ptr<objects::Work>> clone() override
	{
		if (first_ == 99)
			return nullptr;
		return std::make_shared<Work>(first_ + 1);
	}

private:
	std::uint32_t first_;
	std::vector<std::shared_ptr<objects::Progress>> kept_;
};

class CreateWork : public objects::CreateWork {
public:
	orbit::result<std::unique_ptr<objects::Work>> create(std::uint32_t first) override
	{
		return std::make_unique<Work>(first);
	}
};

using CreatePair = Pair<objects::CreateWorkProxy, objects::CreateWorkSkeleton, CreateWork>;

TEST(D2_Objects, CallbacksAreThereForTheCall)
{
	Pair<objects::WorkProxy, objects::WorkSkeleton, Work> p;
	Progress progress;

	EXPECT_EQ(p.proxy.run(10, progress).value(), 3u);
	EXPECT_EQ(progress.steps, 6u);
	EXPECT_EQ(p.capabilities->size(), 0u);
}

TEST(D2_Objects, KeptOnesUntilTheyAreLetGo)
{
	Pair<objects::WorkProxy, objects::WorkSkeleton, Work> p;
	auto progress = std::make_shared<Progress>();

	ASSERT_TRUE(p.proxy.subscribe(progress, std::make_unique<Progress>()));
	EXPECT_EQ(p.capabilities->size(), 2u);
	EXPECT_EQ(progress.use_count(), 2);
	EXPECT_EQ(p.proxy.publish().value(), 2u);
	EXPECT_EQ(progress->steps, 1u);
	EXPECT_EQ(p.capabilities->size(), 0u);
	EXPECT_EQ(progress.use_count(), 1);
	EXPECT_EQ(p.proxy.subscribe(nullptr, std::make_unique<Progress>()).error().code(), EINVAL);
	EXPECT_EQ(p.capabilities->size(), 0u);
	// Not delivered: taken back.
	p.tap->change = [](int, auto, auto) { return -ECONNRESET; };
	Pair<objects::WorkProxy, objects::WorkSkeleton, Work> other;
	EXPECT_FALSE(p.proxy.subscribe(progress, std::make_unique<Progress>()));
}

TEST(D2_Objects, AreMadeAndReturned)
{
	CreatePair p;
	{
		auto work = p.proxy.create(2).value();
		EXPECT_EQ(p.capabilities->size(), 1u);
		Progress progress;
		EXPECT_EQ(work->run(2, progress).value(), 3u);
		auto clone = work->clone().value();
		EXPECT_EQ(p.capabilities->size(), 2u);
		EXPECT_EQ(clone->run(1, progress).value(), 3u);
		auto last = p.proxy.create(99).value();
		const auto none = last->clone();
		ASSERT_FALSE(none);
		EXPECT_EQ(none.error().code(), EINVAL);
	}
	EXPECT_EQ(p.capabilities->size(), 0u);
}

TEST(D2_Objects, ForgedAndStaleOnesAreRefused)
{
	namespace wire = objects::Work_wire;
	Pair<objects::WorkProxy, objects::WorkSkeleton, Work> p;
	Progress progress;
	std::byte reply[256];
	std::size_t n;

	ASSERT_TRUE(p.proxy.run(1, progress));
	const auto stale = p.tap->sent;
	EXPECT_EQ(p.skeleton->dispatch(wire::run_number, stale, reply, &n), -ESTALE);

	orbit::isolation::Capability real;
	auto object = std::make_shared<objects::WorkSkeleton>(std::make_shared<Work>(), p.connection);
	ASSERT_EQ(p.capabilities->offer(object, &real), 0);
	auto with = [&](orbit::isolation::Capability capability) {
		auto args = stale;
		std::memcpy(args.data() + offsetof(wire::run_args, progress), &capability, sizeof(capability));
		return p.skeleton->dispatch(wire::run_number, args, reply, &n);
	};
	EXPECT_EQ(with(real), -EPROTOTYPE) << "an object of another interface";
	EXPECT_EQ(with({real.index, real.generation, objects::Progress_wire::interface_id}), -EPROTOTYPE);
	EXPECT_EQ(with({real.index, real.generation + 1, real.type}), -ESTALE);
	EXPECT_EQ(with({real.index + 1000, real.generation, real.type}), -EBADF);
	EXPECT_EQ(p.capabilities->withdraw(real), 0);
	EXPECT_EQ(p.capabilities->withdraw(real), -ESTALE);
}

TEST(D2_Objects, NoneOverAConnectionWithout)
{
	Pair<objects::WorkProxy, objects::WorkSkeleton, Work> p;
	objects::WorkProxy proxy(p.tap, Connection{});
	Progress progress;

	EXPECT_EQ(proxy.run(1, progress).error().code(), EOPNOTSUPP);
}

// --- projections

class Driver : public ::Driver {
public:
	orbit::result<std::uint32_t> open(NetDevice &device) override
	{
		EXPECT_STREQ(device.name, "eth0");
		EXPECT_EQ(device.mtu, 9000u);
		EXPECT_EQ(device.duplex, Duplex::full);
		EXPECT_EQ(device.statistics.received, 0u);
		EXPECT_EQ(device.next, nullptr);
		device.up = true;
		device.statistics = {1, 2};
		device.duplex = Duplex::half;
		device.mtu = 1;
		return 5u;
	}
	orbit::result<std::uint64_t> total(const NetDevice &device) override
	{
		return device.statistics.received + device.statistics.errors + device.mtu;
	}
	orbit::result<void> swap(Statistics &statistics) override
	{
		std::swap(statistics.received, statistics.errors);
		return {};
	}
};

TEST(D1_Projections, OnlyWhatIsNamedTravels)
{
	Pair<DriverProxy, DriverSkeleton, Driver> p;
	NetDevice device, next;

	std::strcpy(device.name, "eth0");
	device.mtu = 9000;
	device.duplex = Duplex::full;
	device.next = &next;
	device.statistics = {7, 8};
	EXPECT_EQ(p.proxy.open(device).value(), 5u);
	EXPECT_TRUE(device.up);
	EXPECT_EQ(device.statistics.errors, 2u);
	EXPECT_EQ(device.statistics.received, 7u);
	EXPECT_EQ(device.mtu, 9000u);
	EXPECT_EQ(device.duplex, Duplex::half);
	EXPECT_EQ(device.next, &next);
	EXPECT_EQ(p.proxy.total(device).value(), 7u + 2u + 1500u);
	Statistics statistics{1, 2};
	ASSERT_TRUE(p.proxy.swap(statistics));
	EXPECT_EQ(statistics.received, 2u);
}

// --- anything at all

// Messages with some bytes changed, cut or longer: refused or served, and nothing else happens.
template <class P> void mutate(P &p, const std::vector<std::pair<std::uint32_t, std::vector<std::byte>>> &messages)
{
	std::mt19937 random(20);
	std::vector<std::byte> reply(1 << 18);
	std::size_t n, served = 0, refused = 0;

	for (int i = 0; i < 20000; i++) {
		auto [method, bytes] = messages[random() % messages.size()];
		for (unsigned change = random() % 4; change-- && !bytes.empty();)
			bytes[random() % bytes.size()] = std::byte(random() % 3 ? random() : random() % 2 ? 0xff : 0);
		if (random() % 8 == 0)
			bytes.resize(random() % (bytes.size() + 20));
		const int error = p.skeleton->dispatch(method, bytes, reply, &n);
		ASSERT_TRUE(error == 0 || error == -EPROTO || error == -ESTALE || error == -EBADF || error == -EPROTOTYPE) << error;
		ASSERT_LE(n, reply.size());
		(error ? refused : served)++;
	}
	EXPECT_GT(served, 1000u);
	EXPECT_GT(refused, 1000u);
}

TEST(D5_Anything, OfValues)
{
	ValuesPair p;
	std::vector<std::pair<std::uint32_t, std::vector<std::byte>>> messages;
	auto keep = [&] { messages.emplace_back(p.tap->number, p.tap->sent); };
	shapes::Shape shape{};

	(void)p.proxy.add(1, 2, 3), keep();
	(void)p.proxy.invert(true), keep();
	(void)p.proxy.without(shapes::Rights::read, shapes::low), keep();
	(void)p.proxy.twice(padded()), keep();
	(void)p.proxy.turn(shape), keep();
	(void)p.proxy.reply(shapes::high), keep();
	mutate(p, messages);
}

TEST(D5_Anything, OfLengths)
{
	LengthsPair p;
	std::vector<std::pair<std::uint32_t, std::vector<std::byte>>> messages;
	auto keep = [&] { messages.emplace_back(p.tap->number, p.tap->sent); };
	std::vector<std::byte> bytes(100);
	texts::Item items[] = {{'a', 3, true}, {'b', 1, false}, {'c', 2, true}};
	const texts::Colour colours[] = {texts::Colour::red, texts::Colour::blue};

	(void)p.proxy.join("abc", "de"), keep();
	(void)p.proxy.sum(std::vector<std::uint32_t>(10)), keep();
	(void)p.proxy.mix(colours), keep();
	(void)p.proxy.fill(bytes, 1), keep();
	(void)p.proxy.sort(items), keep();
	mutate(p, messages);
}

} // namespace
