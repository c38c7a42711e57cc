// SPDX-License-Identifier: MIT
//
// Objects that are passed: a table of them, against calls of the other side with any capability in them; and calls of the
// other side's objects, with any answer. Who may be called, and what an answer is worth, is decided here once more.
#include <orbit/passing.hpp>

#include "../fuzz-decoder/input.h"

#include <algorithm>
#include <cerrno>
#include <list>

namespace {

using namespace orbit::isolation;

std::span<std::byte> bytes_of(const Memory &memory)
{
	return {reinterpret_cast<std::byte *>(memory.data()), memory.size()};
}

class Object final : public Skeleton {
public:
	Object(Input &from, std::uint64_t type) : input(from), type_(type) {}

	std::uint64_t interface_id() const noexcept override { return type_; }
	int dispatch(std::uint32_t method, std::span<const std::byte> args, std::span<std::byte> reply,
		     std::size_t *reply_bytes) override
	{
		MUST(may_be_called && method == method_expected && args.size() == bytes_expected);
		may_be_called = false;
		called = true;
		*reply_bytes = written = input.below(reply.size() + 1);
		std::fill_n(reply.begin(), written, std::byte{7});
		return error = input.byte() % 4 ? 0 : -1 - input.byte();
	}

	Input &input;
	bool may_be_called = false, called = false;
	std::uint32_t method_expected = 0;
	std::size_t bytes_expected = 0, written = 0;
	int error = 0;

private:
	std::uint64_t type_;
};

// The other side, as this one sees it.
class Other final : public PassedWay {
public:
	Other(Input &from, bool trusted) : input(from), trusts(trusted) {}

	int call(std::uint32_t, std::span<const std::byte> args, std::span<std::byte> reply, std::size_t *reply_bytes,
		 std::uint64_t) override
	{
		MUST(args.size() >= sizeof(Capability));
		std::memcpy(&got, args.data(), sizeof(got));
		room = reply.size();
		for (std::size_t n = input.byte() % 48, i = 0; i < n && i < reply.size(); i++)
			reply[i] = static_cast<std::byte>(input.byte());
		if (const int verdicts[] = {0, 0, 0, -ESTALE, -EBADF, -ECONNRESET, 5, -5000}; reply.size() >= 4 && input.byte() % 2)
			std::memcpy(reply.data(), &verdicts[input.byte() % std::size(verdicts)], 4);
		*reply_bytes = answered = input.byte() % 8 ? input.below(reply.size() + 1) : input.number(reply.size());
		answer.assign(reply.begin(), reply.begin() + static_cast<std::ptrdiff_t>(std::min(answered, reply.size())));
		return error = input.byte() % 8 ? 0 : -ECONNRESET;
	}
	void post(std::uint32_t method, std::span<const std::byte> args) override
	{
		MUST(method == 0 && args.size() == sizeof(Capability));
		std::memcpy(&let_go, args.data(), sizeof(let_go));
		posts++;
	}

	Input &input;
	const bool trusts;
	Capability got{}, let_go{};
	std::size_t room = 0, answered = 0;
	std::vector<std::byte> answer;
	int error = 0;
	unsigned posts = 0;
};

class World {
public:
	explicit World(Input &from)
		: input(from), trusts(from.byte() % 2), table(std::make_shared<PassedObjects>(trusts, from.byte() % 2 ? from.byte() : 0xfffffff0)),
		  other(std::make_shared<Other>(from, trusts))
	{
	}
	~World()
	{
		table->connect(nullptr);
		table->forget(~0u);
		for (const Known &each : known)
			MUST(!each.kept || each.object.expired());
	}

	void act();

private:
	// What was offered once.
	struct Known {
		Capability capability;
		std::weak_ptr<Object> object;
		bool there = true, kept = false, let_go = false;
		std::uint32_t epoch = 0;
	};

	void offer()
	{
		auto object = std::make_shared<Object>(input, 1 + input.byte() % 2);
		Capability capability{};

		if (known.size() >= 100)
			return;
		MUST(table->offer(object, &capability) == 0 && capability.type == object->interface_id());
		MUST(std::none_of(known.begin(), known.end(), [&](const Known &each) {
			return each.there && each.capability.index == capability.index;
		}));
		places = std::max(places, capability.index + 1);
		known.push_back({capability, object});
	}
	Known *any()
	{
		return known.empty() ? nullptr : &known[input.below(known.size())];
	}
	Capability any_capability()
	{
		const Known *const one = any();
		Capability capability = one ? one->capability : Capability{};

		switch (input.byte() % 8) {
		case 0:
			capability.index = static_cast<std::uint32_t>(input.number(capability.index));
			break;
		case 1:
			capability.generation = static_cast<std::uint32_t>(input.number(capability.generation));
			break;
		case 2:
			capability.type = input.number(capability.type);
		}
		return capability;
	}
	// 0, and whom it names.
	int find(const Capability &capability, Known **found)
	{
		if (capability.index >= places)
			return -EBADF;
		for (Known &each : known)
			if (each.there && each.capability.index == capability.index && each.capability.generation == capability.generation) {
				*found = &each;
				return each.capability.type == capability.type ? 0 : -EPROTOTYPE;
			}
		return -ESTALE;
	}
	void take_out(Known &one)
	{
		one.there = false;
		MUST(one.object.expired());
	}

	void dispatch();
	void call();

	Input &input;
	const bool trusts;
	const std::shared_ptr<PassedObjects> table;
	const std::shared_ptr<Other> other;
	std::vector<Known> known;
	std::uint32_t places = 0, epoch = 0;
	bool connected = false;
};

void World::dispatch()
{
	const Capability capability = any_capability();
	const std::uint32_t method = input.byte() % 3;
	const Memory message(input.byte() % 8 ? sizeof(capability) + input.below(40) : input.below(20));
	const Memory reply(input.byte() % 8 ? 16 + input.below(40) : input.below(20));
	std::size_t bytes = 0;
	Known *named = nullptr;
	std::shared_ptr<Object> object;

	std::memcpy(message.data(), &capability, std::min(sizeof(capability), message.size()));
	const bool whole = message.size() >= sizeof(capability) && reply.size() >= 16;
	const int expected = find(capability, &named);
	if (whole && method && !expected) {
		object = named->object.lock();
		MUST(object);
		object->may_be_called = true;
		object->called = false;
		object->method_expected = method;
		object->bytes_expected = message.size() - sizeof(capability);
	}
	const int error = table->dispatch(method, bytes_of(message), bytes_of(reply), &bytes);
	MUST(error == (whole ? 0 : -EPROTO));
	if (!whole)
		return;
	std::int32_t verdict;
	std::memcpy(&verdict, reply.data(), sizeof(verdict));
	if (!method || expected) {
		MUST(verdict == expected && bytes == 16);
		if (!expected) {
			named->let_go = true;
			if (named->kept)
				take_out(*named);
		}
	} else {
		MUST(object->called && verdict == object->error && bytes == 16 + (verdict ? 0 : object->written));
	}
}

void World::call()
{
	const Capability capability = any_capability();
	std::shared_ptr<Transport> way;
	const std::uint64_t type = input.byte() % 4 ? capability.type : 1;
	const int accepted = table->accept(capability, type, &way);
	const unsigned posts = other->posts;

	MUST(accepted == (capability.type != type ? -EPROTOTYPE : connected ? 0 : -EHOSTDOWN));
	if (accepted)
		return;
	for (unsigned n = input.byte() % 3; n; n--) {
		const Memory args(input.byte() % 16 ? input.below(40) : input.below(70000)), reply(input.below(40));
		std::size_t bytes = 77777;
		const int error = way->call(1, bytes_of(args), bytes_of(reply), &bytes, 1000);
		std::int32_t verdict = 0;

		if (args.size() > passed_bytes) {
			MUST(error == -EMSGSIZE && !bytes);
			continue;
		}
		MUST(!std::memcmp(&other->got, &capability, sizeof(capability)) && other->room == 16 + reply.size());
		if (other->answer.size() >= sizeof(verdict))
			std::memcpy(&verdict, other->answer.data(), sizeof(verdict));
		if (other->error || other->answered < 16 || other->answered > other->room) {
			MUST(error == (other->error ? other->error : -EPROTO));
		} else if (verdict) {
			const bool may_say = trusts ? verdict < 0 && verdict >= -4095 : verdict == -ESTALE || verdict == -EBADF;
			MUST(error == (may_say ? verdict : -EPROTO));
		} else {
			MUST(!error && bytes == other->answered - 16);
			MUST(!bytes || !std::memcmp(reply.data(), other->answer.data() + 16, bytes));
		}
		MUST(!error || !bytes);
	}
	way.reset();
	MUST(other->posts == posts + 1 && !std::memcmp(&other->let_go, &capability, sizeof(capability)));
}

void World::act()
{
	Known *const one = any();

	switch (input.byte() % 8) {
	case 0:
	case 1:
		offer();
		break;
	case 2:
		if (one) {
			Known *found = nullptr;
			const int expected = find(one->capability, &found);
			MUST(table->withdraw(one->capability) == expected);
			if (!expected)
				take_out(*found);
		}
		break;
	case 3:
		if (one) {
			table->delivered(one->capability);
			if (one->there) {
				one->kept = true;
				one->epoch = epoch;
				if (one->let_go || !connected)
					take_out(*one);
			}
		}
		break;
	case 4:
		if (input.byte() % 2) {
			connected = input.byte() % 4;
			table->connect(connected ? other : nullptr);
			epoch += connected;
		} else {
			const std::uint32_t last = input.byte() % 8 ? epoch : epoch - 1;
			table->forget(last);
			for (Known &each : known)
				if (each.there && each.kept && each.epoch <= last)
					take_out(each);
		}
		break;
	case 5:
	case 6:
		dispatch();
		break;
	default:
		call();
	}
	MUST(table->epoch() == epoch);
	MUST(table->size() == static_cast<std::size_t>(std::count_if(known.begin(), known.end(), [](const Known &each) { return each.there; })));
}

} // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t *data, std::size_t size)
{
	Input input(data, size);
	World world(input);

	while (!input.empty())
		world.act();
	return 0;
}
