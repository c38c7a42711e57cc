// SPDX-License-Identifier: MIT
//
// Two domains that keep to the rules, and two that write whatever they like into their records, also in the middle of what
// others do, and send any handles. What the first two have of one another is theirs all the while; and when the mad
// ones are reclaimed and all is dropped, no granule is missing.
namespace {
void step();
}
#define ORBIT_ISOLATION_STEP() step()
#include "../../isolation/heap.cc"

#include <orbit/rref.hpp>

#include "../fuzz-decoder/input.h"

#include <list>
#include <optional>
#include <variant>

namespace {

using namespace orbit::isolation;
using orbit::borrowed;
using orbit::result;
using orbit::rref;
using orbit::Zone;

constexpr DomainId honest = 2, domains = 4; // 1 and 2; 3 and 4 are mad
constexpr std::size_t zone_bytes[] = {10 * page_bytes, 2 * page_bytes}; // the mad ones have no part in the second
constexpr std::size_t run_bytes = page_bytes;

struct Small {
	std::uint64_t stamp, again;
};
struct Large {
	std::uint64_t stamp;
	std::uint8_t rest[300];
	std::uint64_t again;
};
using Array = std::uint32_t[];
using Buffer = std::variant<rref<Small>, rref<Large>, rref<Array>>;
using Borrowed = std::variant<borrowed<const Small>, borrowed<const Large>, borrowed<const Array>>;

// "Exact" is what no mad domain has had: of that all is known.
struct Held {
	DomainId owner;
	Buffer buffer;
	std::uint32_t zone, stamp;
	bool exact, lent = false;
};
struct Message {
	Handle handle;
	DomainId from, to;
	std::size_t kind;
	std::uint32_t stamp;
	bool exact;
};
struct Loan {
	Handle handle;
	DomainId from, to;
	std::size_t kind;
	std::uint32_t stamp;
	bool exact;
	Held *of; // none if it was lent on, or has gone
};
struct Borrow {
	DomainId owner;
	Borrowed buffer;
	Handle handle;
};

// Without the end that a living domain's objects have.
template <class T> void abandon(T &&object)
{
	alignas(T) std::byte grave[sizeof(T)];

	new (grave) T(std::move(object));
}

bool is_mad(DomainId domain)
{
	return domain > honest;
}

class World {
public:
	explicit World(Input &in) : input(in)
	{
		std::memset(memory.data(), 0, memory.size());
		auto made = Heap::create({reinterpret_cast<std::byte *>(memory.data()), memory.size()}, domains, zone_bytes);

		MUST(made);
		heap.emplace(std::move(*made));
		for (DomainId domain = 1; domain <= domains; domain++)
			start(domain);
	}

	// Of what the domain may be.
	void start(DomainId domain)
	{
		for (std::uint32_t zone = 0; zone < (is_mad(domain) ? 1u : 2u); zone++) {
			MUST(heap->add(domain, zone));
			granted[domain][zone] = heap->grant(domain, zone, run_bytes).has_value();
		}
		endpoints[domain] = std::move(*Endpoint::attach({reinterpret_cast<std::byte *>(memory.data()), memory.size()}, domain));
		lives[domain] = true;
	}

	void act();
	void end();
	void scribble(DomainId writer);

	Input &input;
	bool watched = false; // a mad domain may write in the middle
	unsigned countdown = 0;
	bool lives[domains + 1] = {};

private:
	template <class T> static std::uint32_t stamp_of(const rref<T> &buffer)
	{
		if constexpr (std::is_array_v<T>) {
			MUST(buffer[0] == buffer[buffer.size() - 1]);
			return buffer[0];
		} else {
			MUST(buffer->stamp == buffer->again);
			return static_cast<std::uint32_t>(buffer->stamp);
		}
	}
	template <class T> static void set_stamp(rref<T> &buffer, std::uint32_t stamp)
	{
		if constexpr (std::is_array_v<T>)
			buffer[0] = buffer[buffer.size() - 1] = stamp;
		else
			buffer->stamp = buffer->again = stamp;
	}
	// It lies in a granted run of the zone that its handle says.
	template <class T> void look_at(const rref<T> &buffer, const Handle &handle) const
	{
		const auto *header = reinterpret_cast<const Header *>(memory.data());
		const ZoneHeader &zone = header->zone[handle.zone];
		const auto *first = reinterpret_cast<const std::uint8_t *>([&] {
			if constexpr (std::is_array_v<T>)
				return &buffer[0];
			else
				return &*buffer;
		}());
		const std::size_t bytes = [&] {
			if constexpr (std::is_array_v<T>)
				return buffer.size() * sizeof(buffer[0]);
			else
				return sizeof(T);
		}();

		MUST(buffer && handle.zone < 2 && bytes);
		const std::uint8_t *const data = memory.data() + zone.data;
		MUST(first == data + std::size_t{handle.index} * granule_bytes);
		MUST(static_cast<std::size_t>(first - data) + bytes <= zone.bytes);
		MUST(static_cast<std::size_t>(first - data) / page_bytes == (static_cast<std::size_t>(first - data) + bytes - 1) / page_bytes);
	}
	DomainId any_domain() { return input.byte() % 16 ? 1 + input.byte() % domains : input.take<std::uint8_t>(); }
	std::optional<DomainId> living()
	{
		const DomainId domain = 1 + input.byte() % domains;

		return lives[domain] ? std::optional(domain) : std::nullopt;
	}
	template <class T> typename std::list<T>::iterator one_of(std::list<T> &list)
	{
		return list.empty() ? list.end() : std::next(list.begin(), static_cast<std::ptrdiff_t>(input.below(list.size())));
	}
	void know(const Handle &handle) { known[next_known++ % std::size(known)] = handle; }
	Handle any_handle();
	std::atomic<std::uint64_t> *word_at(DomainId domain, std::uint32_t zone, std::uint32_t granule, int which)
	{
		auto *header = reinterpret_cast<Header *>(memory.data());
		Record &record = reinterpret_cast<Record *>(memory.data() + header->records +
							    domain * header->records_bytes + header->zone[zone].records)[granule];

		return which == 0 ? &record.word : which == 1 ? &record.loan : &record.shape;
	}

	// What is documented.
	static void look_at(int error)
	{
		MUST(error == EBADF || error == ESTALE || error == EPROTOTYPE || error == EACCES || error == EOWNERDEAD ||
		     error == EINVAL || error == EBUSY);
	}

	void make();
	void send();
	void forget(std::list<Held>::iterator one);
	template <class T> void hold(DomainId owner, const Handle &handle, rref<T> &&buffer, std::uint32_t stamp, bool exact);
	void deliver(std::list<Message>::iterator at);
	void take_back(std::list<Message>::iterator at);
	void receive_forged();
	void lend();
	void lend_on();
	template <class T> void borrow(DomainId to, DomainId from, const Handle &handle, std::uint32_t stamp, bool exact);
	void borrow(const Loan &loan);
	void borrow_forged();
	void end_loan(std::list<Loan>::iterator at);
	void die(DomainId domain);
	void count();

	template <class Act> static auto with_kind(std::size_t kind, Act &&act)
	{
		return kind == 0 ? act(std::type_identity<Small>()) : kind == 1 ? act(std::type_identity<Large>()) : act(std::type_identity<Array>());
	}

	static inline Memory memory{Heap::bytes(domains, zone_bytes), page_bytes};
	std::optional<Heap> heap;
	std::unique_ptr<Endpoint> endpoints[domains + 1];
	bool granted[domains + 1][2] = {};
	std::list<Held> held;
	std::list<Message> messages;
	std::list<Loan> loans;
	std::list<Borrow> borrows;
	Handle known[16] = {};
	std::size_t next_known = 0;
	std::uint32_t stamps = 0;
};

World *world;

void step()
{
	if (!world || !world->watched || !world->countdown || --world->countdown)
		return;
	for (unsigned n = 1 + world->input.byte() % 3; n; n--)
		if (const DomainId writer = honest + 1 + world->input.byte() % (domains - honest); world->lives[writer])
			world->scribble(writer);
	world->countdown = world->input.byte() % 32;
}

Handle World::any_handle()
{
	Handle handle = known[input.byte() % std::size(known)];

	switch (input.byte() % 8) {
	case 0:
		handle.zone = input.byte() % 4 ? 1 - handle.zone % 2 : input.take<std::uint32_t>();
		break;
	case 1:
		handle.index = static_cast<std::uint32_t>(input.number(handle.index));
		break;
	case 2:
		handle.type = with_kind(input.byte() % 3, []<class T>(std::type_identity<T>) { return type_id<T>; });
		break;
	case 3:
	case 4:
		handle.generation = static_cast<std::uint32_t>(input.number(handle.generation));
		break;
	}
	return handle;
}

// Whatever is nearly right, or right, or nothing of the kind.
void World::scribble(DomainId writer)
{
	const Handle &near = known[input.byte() % std::size(known)];
	const std::uint32_t zone = input.byte() % 8 ? near.zone : 1 - near.zone % 2;
	const auto granules = static_cast<std::uint32_t>(zone_bytes[zone] / granule_bytes);
	const std::uint32_t granule = input.byte() % 8 ? near.index % granules : static_cast<std::uint32_t>(input.below(granules));
	const int which = input.byte() % 8 < 5 ? 0 : input.byte() % 2 ? 1 : 2;
	std::atomic<std::uint64_t> &at = *word_at(writer, zone, granule, which);
	const DomainId other = input.byte() % (domains + 1);

	if (which == 2) {
		const std::uint32_t type = with_kind(input.byte() % 3, []<class T>(std::type_identity<T>) { return type_id<T>; });

		at = shape(input.byte() % 8 ? type : input.take<std::uint32_t>(), static_cast<std::uint32_t>(input.number(1)));
		return;
	}
	const Word theirs{word_at(other, zone, granule, which)->load()};
	switch (input.byte() % 8) {
	case 0:
		at = input.take<std::uint64_t>();
		break;
	case 1:
		at = theirs.bits;
		break;
	case 2: // as if what the other one has given had come
		at = Word::make(State::owned, other, 0, theirs.serial(), theirs.serial()).bits;
		break;
	case 3: // and had gone on
		at = Word::make(which ? State::out : State::given, other, 1 + input.byte() % domains, theirs.serial(),
				theirs.serial() + input.byte() % 4)
			     .bits;
		break;
	case 4: {
		const Word mine{at.load()};
		at = Word::make(mine.state(), mine.from(), 1 + input.byte() % domains, mine.entry(), mine.serial()).bits;
		break;
	}
	default:
		at = Word::make(static_cast<State>(input.byte() % 9), input.byte() % 8 ? other : input.byte() % 64,
				input.byte() % 8 ? input.byte() % (domains + 1) : input.byte() % 64,
				static_cast<std::uint32_t>(input.number(theirs.serial())),
				static_cast<std::uint32_t>(input.number(theirs.entry())))
			     .bits;
	}
}

void World::make()
{
	const auto domain = living();
	const std::uint32_t zone = input.byte() % 4 == 0;
	const std::size_t kind = input.byte() % 3, count = 1 + input.below(200);

	if (!domain)
		return;
	with_kind(kind, [&]<class T>(std::type_identity<T>) {
		auto buffer = [&] {
			if constexpr (std::is_array_v<T>)
				return endpoints[*domain]->make_array<std::uint32_t>(Zone{zone}, count);
			else
				return endpoints[*domain]->make<T>(Zone{zone});
		}();

		if (!buffer) {
			const int error = buffer.error().code();
			MUST(error == ENOSPC || (error == EACCES && is_mad(*domain)));
			return;
		}
		const bool exact = !is_mad(*domain);
		if (exact)
			set_stamp(*buffer, ++stamps);
		held.push_back({*domain, std::move(*buffer), zone, stamps, exact});
	});
}

void World::send()
{
	const auto one = one_of(held);
	const DomainId to = any_domain();

	if (one == held.end())
		return;
	std::visit(
		[&]<class T>(rref<T> &buffer) {
			const bool there = to >= 1 && to <= domains && to != one->owner && lives[to];
			const bool may = there && !one->lent && (one->zone == 0 || !is_mad(to));
			auto sent = endpoints[one->owner]->send(std::move(buffer), to);

			if (one->exact)
				MUST(sent.has_value() == may);
			if (sent) {
				MUST(!buffer);
				know(*sent);
				messages.push_back({*sent, one->owner, to, one->buffer.index(), one->stamp, one->exact && !is_mad(to)});
				forget(one);
				return;
			}
			look_at(sent.error().code());
			if (one->exact)
				MUST(buffer && stamp_of(buffer) == one->stamp);
			if (!buffer)
				forget(one);
		},
		one->buffer);
}

// The list no longer has it; its loan may still be under way.
void World::forget(std::list<Held>::iterator one)
{
	for (Loan &loan : loans)
		if (loan.of == &*one)
			loan.of = nullptr;
	held.erase(one);
}

template <class T> void World::hold(DomainId owner, const Handle &handle, rref<T> &&buffer, std::uint32_t stamp, bool exact)
{
	look_at(buffer, handle);
	if (exact)
		MUST(stamp_of(buffer) == stamp);
	held.push_back({owner, std::move(buffer), handle.zone, stamp, exact});
}

void World::deliver(std::list<Message>::iterator at)
{
	const Message message = *at;

	if (!lives[message.to])
		return take_back(at);
	with_kind(message.kind, [&]<class T>(std::type_identity<T>) {
		auto received = endpoints[message.to]->receive<T>(message.handle, message.from);

		if (received) {
			hold(message.to, message.handle, std::move(*received), message.stamp, message.exact);
			messages.erase(at);
			return;
		}
		look_at(received.error().code());
		MUST(!message.exact);
		// As what sends does with what was refused. A mad domain may as well not.
		if (is_mad(message.from) && input.byte() % 2)
			messages.erase(at);
		else
			take_back(at);
	});
}

void World::take_back(std::list<Message>::iterator at)
{
	const Message message = *at;

	messages.erase(at);
	if (!lives[message.from])
		return;
	with_kind(message.kind, [&]<class T>(std::type_identity<T>) {
		auto back = endpoints[message.from]->take_back<T>(message.handle, message.to);

		if (back) {
			hold(message.from, message.handle, std::move(*back), message.stamp, message.exact);
			return;
		}
		look_at(back.error().code());
		MUST(!message.exact);
	});
}

void World::receive_forged()
{
	const DomainId to = 1 + input.byte() % honest, from = honest + 1 + input.byte() % (domains - honest);
	const Handle handle = any_handle();

	if (!lives[to])
		return;
	with_kind(input.byte() % 3, [&]<class T>(std::type_identity<T>) {
		auto received = endpoints[to]->receive<T>(handle, from);

		if (received) {
			MUST(handle.zone == 0 && lives[from]);
			hold(to, handle, std::move(*received), 0, false);
		} else {
			look_at(received.error().code());
		}
	});
}

void World::lend()
{
	const auto one = one_of(held);
	const DomainId to = any_domain();

	if (one == held.end())
		return;
	std::visit(
		[&]<class T>(const rref<T> &buffer) {
			const bool there = to >= 1 && to <= domains && to != one->owner && lives[to];
			const bool may = there && !one->lent && (one->zone == 0 || !is_mad(to));
			auto lent = endpoints[one->owner]->lend(buffer, to);

			if (one->exact)
				MUST(lent.has_value() == may);
			if (!lent)
				return look_at(lent.error().code());
			know(*lent);
			one->lent = lives[to];
			loans.push_back({*lent, one->owner, to, one->buffer.index(), one->stamp, one->exact, &*one});
		},
		one->buffer);
}

void World::lend_on()
{
	const auto one = one_of(borrows);
	const DomainId to = any_domain();

	if (one == borrows.end())
		return;
	std::visit(
		[&]<class T>(const borrowed<const T> &buffer) {
			auto lent = endpoints[one->owner]->lend(buffer.get(), to);

			if (!lent)
				return look_at(lent.error().code());
			know(*lent);
			loans.push_back({*lent, one->owner, to, one->buffer.index(), 0, false, nullptr});
		},
		one->buffer);
}

template <class T> void World::borrow(DomainId to, DomainId from, const Handle &handle, std::uint32_t stamp, bool exact)
{
	const bool other = std::any_of(borrows.begin(), borrows.end(), [&](const Borrow &each) {
		return each.owner == to && each.handle.zone == handle.zone && each.handle.index == handle.index;
	}) || std::any_of(loans.begin(), loans.end(), [&](const Loan &each) {
		return each.from == to && each.handle.zone == handle.zone && each.handle.index == handle.index;
	});
	auto got = endpoints[to]->borrow<T>(handle, from);

	if (!got) {
		look_at(got.error().code());
		MUST(!exact || other);
		return;
	}
	look_at(got->get(), handle);
	if (exact)
		MUST(stamp_of(got->get()) == stamp);
	borrows.push_back({to, std::move(*got), handle});
}

void World::borrow(const Loan &loan)
{
	if (lives[loan.to])
		with_kind(loan.kind, [&]<class T>(std::type_identity<T>) {
			borrow<T>(loan.to, loan.from, loan.handle, loan.stamp, loan.exact && lives[loan.from] && !is_mad(loan.to));
		});
}

void World::borrow_forged()
{
	const DomainId to = 1 + input.byte() % honest, from = honest + 1 + input.byte() % (domains - honest);
	const Handle handle = any_handle();

	if (lives[to])
		with_kind(input.byte() % 3, [&]<class T>(std::type_identity<T>) { borrow<T>(to, from, handle, 0, false); });
}

void World::end_loan(std::list<Loan>::iterator at)
{
	auto ended = endpoints[at->from]->end_loan(at->handle, at->to);

	if (!ended) {
		look_at(ended.error().code());
		MUST(!at->exact || ended.error().code() == EBUSY);
	}
	if (at->of)
		at->of->lent = false;
	loans.erase(at);
}

// Reclaimed while the others go on, mad ones also in the middle of it.
void World::die(DomainId domain)
{
	lives[domain] = false;
	for (auto one = loans.begin(); one != loans.end();) {
		if (one->to == domain) { // the reclaim ends it
			if (one->of)
				one->of->lent = false;
			one->of = nullptr;
			one->exact = false;
		}
		one = one->from == domain ? loans.erase(one) : std::next(one);
	}
	for (auto one = held.begin(); one != held.end();) {
		if (one->owner == domain)
			std::visit([](auto &buffer) { abandon(std::move(buffer)); }, one->buffer);
		one = one->owner == domain ? held.erase(one) : std::next(one);
	}
	for (auto one = borrows.begin(); one != borrows.end();) {
		if (one->owner == domain)
			std::visit([](auto &buffer) { abandon(std::move(buffer)); }, one->buffer);
		one = one->owner == domain ? borrows.erase(one) : std::next(one);
	}
	for (Message &message : messages)
		message.exact = message.exact && message.from != domain && message.to != domain;
	endpoints[domain].reset();
	MUST(heap->reclaim(domain));
}

void World::count()
{
	const Census census = heap->census();
	std::size_t exact[domains + 1] = {};

	for (const Held &one : held)
		exact[one.owner] += one.exact;
	for (DomainId domain = 1; domain <= honest; domain++)
		MUST(census.owned[domain] >= exact[domain]);
	heap->sweep();
}

void World::act()
{
	const auto choice = input.byte();

	countdown = input.byte() % 32;
	watched = true;
	switch (choice % 20) {
	case 0:
	case 1:
		make();
		break;
	case 2:
	case 3:
	case 4:
		send();
		break;
	case 5:
	case 6:
	case 7:
		if (!messages.empty())
			deliver(one_of(messages));
		break;
	case 8:
		if (!messages.empty())
			take_back(one_of(messages));
		break;
	case 9:
		receive_forged();
		break;
	case 10:
		lend();
		break;
	case 11:
		lend_on();
		break;
	case 12:
		if (!loans.empty())
			borrow(*one_of(loans));
		break;
	case 13:
		borrow_forged();
		break;
	case 14:
		if (!loans.empty())
			end_loan(one_of(loans));
		break;
	case 15:
		if (!held.empty())
			forget(one_of(held));
		break;
	case 16:
		if (!borrows.empty())
			borrows.erase(one_of(borrows));
		break;
	case 17:
		if (const DomainId domain = honest + 1 + choice / 20 % (domains - honest); lives[domain])
			for (unsigned n = 1 + input.byte() % 4; n; n--)
				scribble(domain);
		break;
	case 18:
		if (const DomainId domain = 2 + input.byte() % (domains - 1); !lives[domain])
			start(domain);
		else if (input.byte() % 2)
			die(domain);
		break;
	case 19:
		if (choice / 20 % 2)
			count();
		else if (const DomainId domain = 1 + input.byte() % domains; lives[domain])
			endpoints[domain]->collect();
	}
	watched = false;
}

void World::end()
{
	for (DomainId domain = honest + 1; domain <= domains; domain++)
		if (lives[domain])
			die(domain);
	while (!messages.empty())
		deliver(messages.begin());
	borrows.clear();
	while (!loans.empty())
		end_loan(loans.begin());
	held.clear();
	for (DomainId domain = 1; domain <= honest; domain++)
		if (lives[domain])
			endpoints[domain]->collect();
	heap->sweep();

	const Census census = heap->census();
	MUST(!census.buffers && !census.lost && !census.twice && !census.in_flight);
	for (std::uint32_t zone = 0; zone < 2; zone++) {
		std::size_t unused = zone_bytes[zone];

		for (DomainId domain = 1; domain <= honest; domain++) {
			if (!lives[domain])
				continue;
			std::size_t n = 0;
			while (auto buffer = endpoints[domain]->make<Small>(Zone{zone})) {
				abandon(std::move(*buffer));
				n++;
			}
			MUST(n == (granted[domain][zone] ? run_bytes / granule_bytes : 0));
			unused -= granted[domain][zone] ? run_bytes : 0;
		}
		MUST(heap->unused(zone) == unused);
	}
}

} // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t *data, std::size_t size)
{
	Input input(data, size);
	World all(input);

	world = &all;
	while (!input.empty())
		all.act();
	all.end();
	world = nullptr;
	return 0;
}
