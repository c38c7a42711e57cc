// SPDX-License-Identifier: MIT
//
// Both sides of a ring, each against memory that the other side has filled with anything. What each has to make of it is
// decided here once more, in the simplest way.
#include <orbit/ring.hpp>

#include "../fuzz-decoder/input.h"

#include <algorithm>
#include <cerrno>
#include <vector>

namespace {

using namespace orbit::isolation;

constexpr std::size_t page = 4096;

std::span<std::byte> bytes_of(const Memory &memory)
{
	return {reinterpret_cast<std::byte *>(memory.data()), memory.size()};
}

RingShape any_shape(Input &input)
{
	constexpr std::uint32_t lengths[] = {16, 48, 100, 500};

	return {.slots = 1u << input.byte() % 7, .message_bytes = lengths[input.byte() % 4], .spins = input.byte() % 2u};
}

// Each area has memory of its own, with nothing around it.
struct Areas {
	explicit Areas(const RingShape &shape) : calls(sizes(shape).first, page), replies(sizes(shape).second, page)
	{
		MUST(view.set(memory(), shape));
	}
	static std::pair<std::size_t, std::size_t> sizes(const RingShape &shape)
	{
		const Memory whole(ring_bytes(shape), page);
		const auto areas = ring_memory(bytes_of(whole), shape);

		MUST(areas);
		return {areas->calls.size(), areas->replies.size()};
	}
	RingMemory memory() const { return {bytes_of(calls), bytes_of(replies)}; }

	Memory calls, replies;
	detail::RingView view;
};

std::uint32_t any_number(Input &input, std::uint32_t near)
{
	return input.byte() % 4 ? near : static_cast<std::uint32_t>(input.number(near));
}

// --- a caller, and whatever its server writes

class Caller {
public:
	explicit Caller(Input &from)
		: input(from), shape(any_shape(from)), areas(shape), ring(*RingTransport::create(areas.memory(), shape)),
		  free(shape.slots)
	{
	}

	void act();
	~Caller()
	{
		while (!started.empty())
			finish(started.back());
	}

private:
	void scribble();
	void start();
	void finish(RingTicket ticket);
	void call();
	bool answered(const RingTicket &ticket) { return areas.view.reply(ticket.slot).number == ticket.number; }
	// Those whose reply has come free their slots when there is no other.
	void reap()
	{
		if (!free)
			free += std::erase_if(abandoned, [&](const RingTicket &each) { return answered(each); });
	}
	// What a reply that is there is worth.
	int judge(std::uint32_t slot, std::size_t room)
	{
		const auto &reply = areas.view.reply(slot);

		return reply.refused || reply.bytes > shape.message_bytes || reply.bytes > room ? -EPROTO : 0;
	}

	Input &input;
	const RingShape shape;
	Areas areas;
	const std::shared_ptr<RingTransport> ring;
	std::size_t free;
	std::vector<RingTicket> started, abandoned;
	std::uint32_t calls = 0;
	int ended = 0;
};

void Caller::scribble()
{
	const auto slot = static_cast<std::uint32_t>(input.below(shape.slots));
	auto &reply = areas.view.reply(slot);

	switch (input.byte() % 6) {
	case 0:
		reply.bytes = any_number(input, shape.message_bytes);
		break;
	case 1:
		reply.refused = input.byte() % 4 ? 0 : input.take<std::uint32_t>();
		break;
	case 2:
		reply.number = any_number(input, calls);
		break;
	case 3:
		if (!started.empty()) {
			const RingTicket &right = started[input.below(started.size())];
			areas.view.reply(right.slot).number = right.number;
			areas.view.reply(right.slot).bytes = static_cast<std::uint32_t>(input.below(shape.message_bytes + 1));
		}
		break;
	case 4:
		areas.view.server->sleeps = input.byte() % 2;
		break;
	default:
		areas.replies.data()[input.below(areas.replies.size())] = input.byte();
	}
}

void Caller::start()
{
	const Memory args(input.byte() % 8 ? input.below(shape.message_bytes + 1) : input.below(1000));
	RingTicket ticket;

	if (input.byte() % 8 == 0) { // nobody waits for it
		const bool goes = !ended && args.size() <= shape.message_bytes;

		if (goes)
			reap();
		ring->post(1, bytes_of(args));
		if (goes && free) {
			free--;
			calls++;
			const auto &entry = areas.view.queue[calls & (shape.slots - 1)];
			MUST(entry.number == calls);
			abandoned.push_back({entry.slot, calls});
		}
		return;
	}
	if (!ended && args.size() <= shape.message_bytes)
		reap();
	const int error = ring->start(input.byte(), bytes_of(args), &ticket, input.byte() % 2);
	MUST(error == (ended ? ended : args.size() > shape.message_bytes ? -EMSGSIZE : free ? 0 : -EAGAIN));
	if (error)
		return;
	MUST(ticket.slot < shape.slots && ticket.number == ++calls);
	MUST(std::none_of(started.begin(), started.end(), [&](const RingTicket &each) { return each.slot == ticket.slot; }));
	MUST(std::none_of(abandoned.begin(), abandoned.end(), [&](const RingTicket &each) { return each.slot == ticket.slot; }));
	MUST(areas.view.call(ticket.slot).bytes == args.size());
	free--;
	started.push_back(ticket);
}

void Caller::finish(RingTicket ticket)
{
	const Memory reply(input.byte() % 4 ? shape.message_bytes : input.below(600));
	const auto same = [&](const RingTicket &each) { return each.slot == ticket.slot && each.number == ticket.number; };
	const auto found = std::find_if(started.begin(), started.end(), same);
	std::size_t bytes = 77777;

	if (found == started.end()) {
		MUST(ring->finish(ticket, bytes_of(reply), &bytes, 0) == -EINVAL && bytes == 77777);
		return;
	}
	const bool there = answered(ticket);
	const int judged = there ? judge(ticket.slot, reply.size()) : ended ? ended : -ETIMEDOUT;
	MUST(ring->ready(ticket) == (there || ended));
	MUST(ring->finish(ticket, bytes_of(reply), &bytes, 0) == judged);
	if (!judged) {
		MUST(bytes == areas.view.reply(ticket.slot).bytes);
		MUST(!bytes || !std::memcmp(reply.data(), areas.view.reply_bytes(ticket.slot), bytes));
	} else {
		MUST(bytes == 77777);
	}
	if (there)
		free++;
	else
		abandoned.push_back(ticket);
	started.erase(found);
}

// With whatever is there: it may be that a slot says already that it is answered.
void Caller::call()
{
	const Memory args(input.below(shape.message_bytes + 20)), reply(input.below(shape.message_bytes + 20));
	std::size_t bytes = 77777;
	const bool goes = !ended && args.size() <= shape.message_bytes;

	if (goes)
		reap();
	const bool full = !free;
	const int error = ring->call(1, bytes_of(args), bytes_of(reply), &bytes, 1);
	if (!goes || full) {
		MUST(error == (ended ? ended : !goes ? -EMSGSIZE : -ETIMEDOUT));
		return;
	}
	calls++;
	const auto &entry = areas.view.queue[calls & (shape.slots - 1)];
	const RingTicket ticket{entry.slot, calls};
	MUST(entry.number == calls && ticket.slot < shape.slots);
	if (!answered(ticket)) {
		MUST(error == -ETIMEDOUT);
		free--;
		abandoned.push_back(ticket);
	} else {
		MUST(error == judge(ticket.slot, reply.size()));
		MUST(error || bytes == areas.view.reply(ticket.slot).bytes);
	}
}

void Caller::act()
{
	switch (input.byte() % 8) {
	case 0:
	case 1:
	case 2:
		scribble();
		break;
	case 3:
	case 4:
		start();
		break;
	case 5:
		if (!started.empty())
			finish(started[input.below(started.size())]);
		break;
	case 6:
		finish({any_number(input, static_cast<std::uint32_t>(input.below(shape.slots))), any_number(input, calls)});
		break;
	default:
		if (input.byte() % 16) {
			call();
		} else if (!ended) {
			ended = -1 - input.byte() % 100;
			ring->end(ended);
		}
	}
	MUST(ring->abandoned() == abandoned.size());
	MUST(started.size() + abandoned.size() + free == shape.slots);
}

// --- a server, and whatever its caller writes

class Server final : public Skeleton {
public:
	explicit Server(Input &from)
		: input(from), shape(any_shape(from)), areas(shape), ring(*RingServer::create(areas.memory(), shape))
	{
	}

	void act();

	std::uint64_t interface_id() const noexcept override { return 1; }
	int dispatch(std::uint32_t method, std::span<const std::byte> args, std::span<std::byte> reply,
		     std::size_t *reply_bytes) override
	{
		MUST(reply.size() == shape.message_bytes && args.size() <= shape.message_bytes);
		MUST(expected && method == method_expected && args.size() == bytes_expected);
		std::vector<std::byte> copy(args.begin(), args.end());
		// The other side writes meanwhile.
		for (unsigned n = input.byte() % 4; n; n--)
			scribble();
		std::fill(reply.begin(), reply.end(), static_cast<std::byte>(input.byte()));
		*reply_bytes = written = input.byte() % 8 ? input.below(shape.message_bytes + 1) : input.number(shape.message_bytes);
		error = input.byte() % 8 ? 0 : -1 - input.byte();
		called = true;
		expected = false; // once
		return error;
	}

private:
	void scribble();
	void serve();

	Input &input;
	const RingShape shape;
	Areas areas;
	const std::shared_ptr<RingServer> ring;
	std::uint32_t head = 1, method_expected = 0;
	std::size_t bytes_expected = 0, written = 0;
	int error = 0;
	bool expected = false, called = false;
};

void Server::scribble()
{
	const auto slot = static_cast<std::uint32_t>(input.below(shape.slots));
	auto &call = areas.view.call(slot);

	switch (input.byte() % 6) {
	case 0:
		call.bytes = any_number(input, shape.message_bytes);
		break;
	case 1:
		call.method = any_number(input, 1);
		break;
	case 2:
	case 3: {
		auto &entry = areas.view.queue[(head + input.byte() % 2) & (shape.slots - 1)];
		entry.number = any_number(input, head + input.byte() % 2);
		entry.slot = any_number(input, slot);
		break;
	}
	case 4:
		call.sleeps = input.byte() % 2;
		break;
	default:
		areas.calls.data()[input.below(areas.calls.size())] = input.byte();
	}
}

void Server::serve()
{
	const auto &entry = areas.view.queue[head & (shape.slots - 1)];
	const bool there = entry.number == head;
	const std::uint32_t slot = entry.slot, number = head;
	const bool is_one = there && slot < shape.slots;

	called = false;
	expected = is_one && areas.view.call(slot).bytes <= shape.message_bytes;
	if (expected) {
		method_expected = areas.view.call(slot).method;
		bytes_expected = areas.view.call(slot).bytes;
	}
	const bool calls = expected;
	head += there;
	const std::uint32_t before = is_one ? 0 : areas.view.reply(0).number.load();
	MUST(ring->serve_one(*this) == there && called == calls);
	if (!is_one) {
		MUST(areas.view.reply(0).number == before);
		return;
	}
	const auto &reply = areas.view.reply(slot);
	MUST(reply.number == number && reply.refused == (!calls || error));
	MUST(reply.bytes <= shape.message_bytes && reply.bytes == (calls ? std::min<std::size_t>(written, shape.message_bytes) : 0));
}

void Server::act()
{
	if (input.byte() % 3)
		scribble();
	else
		serve();
}

} // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t *data, std::size_t size)
{
	Input input(data, size);

	if (input.byte() % 2) {
		Caller caller(input);
		while (!input.empty())
			caller.act();
	} else {
		Server server(input);
		while (!input.empty())
			server.act();
	}
	return 0;
}
