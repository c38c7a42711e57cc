// SPDX-License-Identifier: MIT
//
// What orbit-idl generates, between two sides that each get the other's messages with anything changed in them: requests,
// replies, calls of objects that were passed, handles of buffers. An implementation sees valid values and nothing else,
// and so does a caller.
#include "lengths.orbit.hpp"
#include "objects.orbit.hpp"
#include "projections.orbit.hpp"
#include "rrefs.orbit.hpp"
#include "values.orbit.hpp"

#include <orbit/passing.hpp>

#include "../fuzz-decoder/input.h"

#include <algorithm>
#include <optional>

namespace {

using namespace orbit::isolation;
using orbit::failed;
using orbit::result;
using orbit::rref;

Input *input;

std::span<std::byte> bytes_of(const Memory &memory)
{
	return {reinterpret_cast<std::byte *>(memory.data()), memory.size()};
}

void change(std::span<std::byte> bytes)
{
	if (bytes.empty() || input->byte() % 4 == 0)
		return;
	for (unsigned n = input->byte() % 4; n; n--) {
		const std::size_t at = input->below(bytes.size());

		if (const std::size_t word = at / 4 * 4; input->byte() % 2 && bytes.size() - word >= 4) {
			std::uint32_t value;
			std::memcpy(&value, &bytes[word], sizeof(value));
			value = static_cast<std::uint32_t>(input->number(value));
			std::memcpy(&bytes[word], &value, sizeof(value));
		} else {
			bytes[at] = static_cast<std::byte>(input->byte());
		}
	}
}

// To a skeleton, or to all that was passed. Messages and replies have memory of their own, with nothing around it.
class Wire final : public PassedWay {
public:
	explicit Wire(std::shared_ptr<Skeleton> other) : other_(std::move(other)) {}

	int call(std::uint32_t method, std::span<const std::byte> args, std::span<std::byte> reply, std::size_t *reply_bytes,
		 std::uint64_t) override
	{
		const Memory request(input->byte() % 8 ? args.size() : input->below(args.size() + 40));
		const Memory answer(input->byte() % 16 ? reply.size() : input->below(reply.size() + 1));
		std::size_t written = 0;

		*reply_bytes = 0;
		if (!args.empty())
			std::memcpy(request.data(), args.data(), std::min(args.size(), request.size()));
		change(bytes_of(request));
		if (input->byte() % 16 == 0)
			method = input->byte() % 2 ? input->byte() % 12 : input->take<std::uint32_t>();
		const int error = other_->dispatch(method, bytes_of(request), bytes_of(answer), &written);
		MUST(error <= 0);
		if (error)
			return -EPROTO;
		MUST(written <= answer.size());
		if (input->byte() % 8 == 0)
			written = input->below(answer.size() + 1);
		change(bytes_of(answer).first(written));
		if (written)
			std::memcpy(reply.data(), answer.data(), written);
		*reply_bytes = written;
		return 0;
	}
	void post(std::uint32_t method, std::span<const std::byte> args) override
	{
		std::byte reply[64];
		std::size_t bytes;

		call(method, args, reply, &bytes, 0);
	}

private:
	std::shared_ptr<Skeleton> other_;
};

// --- values, and whether they are any

std::uint32_t raw(const auto &value)
{
	std::uint32_t bits = 0;

	static_assert(sizeof(value) <= sizeof(bits));
	std::memcpy(&bits, &value, sizeof(value));
	return bits;
}

void look_at(const bool &value)
{
	MUST(raw(value) <= 1);
}
void look_at(const shapes::Kind &value)
{
	MUST(raw(value) == 0 || raw(value) == 1 || raw(value) == 7);
}
void look_at(const shapes::Rights &value)
{
	MUST(raw(value) <= 7);
}
void look_at(const shapes::Level &value)
{
	const auto number = static_cast<std::int32_t>(raw(value));

	MUST(number == -2 || number == -1 || number == 40);
}
void look_at(const texts::Colour &value)
{
	MUST(raw(value) >= 1 && raw(value) <= 3);
}
void look_at(const Duplex &value)
{
	MUST(raw(value) <= 1);
}
void look_at(const shapes::Padded &value)
{
	look_at(value.b);
	for (const auto &each : value.kinds)
		look_at(each);
}
void look_at(const shapes::Shape &value)
{
	look_at(value.kind);
	look_at(value.filled);
}
void look_at(const shapes::Reply &value)
{
	look_at(value.level);
	if (value.level == shapes::low)
		look_at(value.value.yes);
}
void look_at(const texts::Item &value)
{
	look_at(value.good);
}
void look_at(const blocks::Block &value)
{
	look_at(value.dirty);
	MUST(raw(value.op) <= 1);
}

bool any_bool()
{
	return input->byte() % 2;
}
shapes::Kind any_kind()
{
	constexpr shapes::Kind all[] = {shapes::Kind::none, shapes::Kind::circle, shapes::Kind::square};

	return all[input->byte() % 3];
}
shapes::Level any_level()
{
	constexpr shapes::Level all[] = {shapes::low, shapes::middle, shapes::high};

	return all[input->byte() % 3];
}
texts::Colour any_colour()
{
	return static_cast<texts::Colour>(1 + input->byte() % 3);
}
shapes::Padded any_padded()
{
	return {'p', input->take<std::uint64_t>(), any_bool(), {any_kind(), any_kind(), any_kind()}, {{1, 2, 3}, {4, 5, 6}}};
}
shapes::Shape any_shape()
{
	shapes::Shape shape{};

	shape.kind = any_kind();
	shape.filled = any_bool();
	if (shape.kind == shapes::Kind::circle)
		shape.circle = {{1, 2}, 3};
	else if (shape.kind == shapes::Kind::square)
		shape.square[1] = {4, 5};
	return shape;
}
texts::Item any_item()
{
	return {'i', input->byte(), any_bool()};
}

// Now and then a method fails, also with what is no errno value.
std::optional<tl::unexpected<orbit::call_error>> fails()
{
	if (input->byte() % 8)
		return std::nullopt;
	return failed(input->byte() % 4 ? 1 + input->byte() : static_cast<int>(input->number(4095)));
}
#define MAY_FAIL()                                                                              \
	if (auto error_ = fails())                                                              \
	return *error_

template <class T> void look_at_error(const result<T> &got)
{
	if (!got)
		MUST(got.error().code() > 0 && got.error().code() <= 4095);
}

// --- implementations

class Values final : public shapes::Values {
public:
	result<void> nothing() override
	{
		MAY_FAIL();
		return {};
	}
	result<std::uint64_t> add(std::uint64_t a, std::int8_t b, double) override
	{
		MAY_FAIL();
		return a + static_cast<std::uint64_t>(b);
	}
	result<bool> invert(bool b) const override
	{
		look_at(b);
		MAY_FAIL();
		return !b;
	}
	result<shapes::Kind> next(shapes::Kind kind) override
	{
		look_at(kind);
		MAY_FAIL();
		return any_kind();
	}
	result<shapes::Rights> without(shapes::Rights rights, const shapes::Level &level) override
	{
		look_at(rights);
		look_at(level);
		MAY_FAIL();
		return rights;
	}
	result<shapes::Padded> copy(const shapes::Padded &padded) override
	{
		look_at(padded);
		MAY_FAIL();
		return padded;
	}
	result<std::array<shapes::Padded, 2>> twice(shapes::Padded padded) override
	{
		look_at(padded);
		MAY_FAIL();
		return std::array<shapes::Padded, 2>{padded, any_padded()};
	}
	result<shapes::Shape> turn(const shapes::Shape &shape) override
	{
		look_at(shape);
		MAY_FAIL();
		return shape;
	}
	result<shapes::Reply> reply(shapes::Level level) override
	{
		look_at(level);
		MAY_FAIL();
		shapes::Reply answer{};
		answer.level = level;
		if (level == shapes::low)
			answer.value.yes = true;
		else if (level == shapes::high)
			answer.value.n = -5;
		return answer;
	}
};

class Lengths final : public texts::Lengths {
public:
	result<std::string> join(std::string_view a, std::string_view b) override
	{
		MUST(a.size() <= 40 && b.size() <= 40);
		MAY_FAIL();
		return std::string(a) + std::string(b) + std::string(input->byte() % 4 ? 0 : input->byte(), '+'); // too long, too
	}
	result<std::uint64_t> sum(std::span<const std::uint32_t> numbers) override
	{
		MUST(numbers.size() <= 1000);
		MAY_FAIL();
		std::uint64_t sum = 0;
		for (const std::uint32_t each : numbers)
			sum += each;
		return sum;
	}
	result<std::vector<texts::Colour>> mix(std::span<const texts::Colour> colours) override
	{
		MUST(colours.size() <= 5);
		for (const auto &each : colours)
			look_at(each);
		MAY_FAIL();
		return std::vector<texts::Colour>(input->byte() % 8, any_colour());
	}
	result<std::size_t> fill(std::span<std::byte> bytes, unsigned char with) override
	{
		MUST(bytes.size() <= 0x10000);
		MAY_FAIL();
		std::fill(bytes.begin(), bytes.end(), static_cast<std::byte>(with));
		return bytes.size();
	}
	result<void> sort(std::span<texts::Item> items) override
	{
		MUST(items.size() <= 16);
		for (const auto &each : items)
			look_at(each);
		MAY_FAIL();
		std::reverse(items.begin(), items.end());
		return {};
	}
	result<std::vector<texts::Item>> items(std::uint32_t) override
	{
		MAY_FAIL();
		return std::vector<texts::Item>(input->byte() % 6, any_item());
	}
};

class Driver final : public ::Driver {
public:
	result<std::uint32_t> open(NetDevice &device) override
	{
		look_at(device.duplex);
		MUST(!device.next && !device.flags && !device.up);
		MAY_FAIL();
		device.up = any_bool();
		device.statistics.errors = 7;
		device.duplex = any_bool() ? Duplex::half : Duplex::full;
		return device.mtu;
	}
	result<std::uint64_t> total(const NetDevice &device) override
	{
		MAY_FAIL();
		return device.statistics.received + device.statistics.errors;
	}
	result<void> swap(Statistics &statistics) override
	{
		MAY_FAIL();
		std::swap(statistics.received, statistics.errors);
		return {};
	}
};

class Disk final : public blocks::Disk {
public:
	explicit Disk(Endpoint &endpoint) : endpoint_(endpoint) {}

	result<rref<blocks::Block>> read(std::uint64_t, rref<blocks::Block> into) override
	{
		look(into);
		MAY_FAIL();
		if (input->byte() % 8 == 0)
			return rref<blocks::Block>();
		return into;
	}
	result<std::uint64_t> sum(const rref<blocks::Block> &from) override
	{
		look(from);
		MAY_FAIL();
		return from->lba;
	}
	result<void> keep(rref<blocks::Block> first, rref<blocks::Block> second) override
	{
		look(first);
		look(second);
		MUST(&*first != &*second);
		MAY_FAIL();
		if (kept_.size() < 6)
			kept_.push_back(std::move(first));
		return {};
	}
	result<std::size_t> count(const rref<std::uint32_t[]> &numbers) override
	{
		std::size_t sum = 0;

		MUST(numbers && numbers.size());
		for (const std::uint32_t each : numbers.elements())
			sum += each;
		MAY_FAIL();
		return sum;
	}
	result<rref<blocks::Block>> give() override
	{
		MAY_FAIL();
		if (kept_.empty())
			return endpoint_.make<blocks::Block>(orbit::Zone{0});
		auto block = std::move(kept_.back());
		kept_.pop_back();
		return block;
	}

	static void look(const rref<blocks::Block> &block)
	{
		MUST(block);
		if (auto copy = block.fetch())
			look_at(*copy);
	}

private:
	Endpoint &endpoint_;
	std::vector<rref<blocks::Block>> kept_;
};

class Progress final : public objects::Progress {
public:
	result<bool> step(std::uint32_t) override
	{
		MAY_FAIL();
		return any_bool();
	}
};

class Work final : public objects::Work {
public:
	result<std::uint32_t> run(std::uint32_t steps, objects::Progress &progress) override
	{
		for (std::uint32_t i = 0; i < steps % 4; i++) {
			auto goes_on = progress.step(i);
			look_at_error(goes_on);
			if (goes_on)
				look_at(*goes_on);
		}
		MAY_FAIL();
		return steps;
	}
	result<void> subscribe(std::shared_ptr<objects::Progress> progress, std::unique_ptr<objects::Progress> second) override
	{
		MUST(progress && second);
		MAY_FAIL();
		if (subscribed_.size() < 4)
			subscribed_.push_back(std::move(progress));
		if (input->byte() % 2)
			second_ = std::move(second);
		return {};
	}
	result<std::uint32_t> publish() override
	{
		for (const auto &each : subscribed_)
			look_at_error(each->step(1));
		if (second_)
			look_at_error(second_->step(2));
		MAY_FAIL();
		if (input->byte() % 2)
			subscribed_.clear();
		return 0;
	}
	result<std::shared_ptr<objects::Work>> clone() override
	{
		MAY_FAIL();
		if (input->byte() % 8 == 0)
			return nullptr;
		return std::make_shared<Work>();
	}

private:
	std::vector<std::shared_ptr<objects::Progress>> subscribed_;
	std::unique_ptr<objects::Progress> second_;
};

class CreateWork final : public objects::CreateWork {
public:
	result<std::unique_ptr<objects::Work>> create(std::uint32_t) override
	{
		MAY_FAIL();
		return std::make_unique<Work>();
	}
};

// --- both sides

constexpr std::size_t zones[] = {4 * page_bytes};

struct Side {
	Side(std::span<std::byte> heap, DomainId self, DomainId peer)
		: endpoint(std::move(*Endpoint::attach(heap, self))), objects(std::make_shared<PassedObjects>(self == 2)),
		  connection{.capabilities = objects.get(), .endpoint = endpoint.get(), .peer = peer}
	{
	}

	std::unique_ptr<Endpoint> endpoint;
	std::shared_ptr<PassedObjects> objects;
	Connection connection;
};

template <class Skeleton, class Object, class... Arguments>
std::shared_ptr<Wire> served(const Side &side, Arguments &&...arguments)
{
	return std::make_shared<Wire>(
		std::make_shared<Skeleton>(std::make_shared<Object>(std::forward<Arguments>(arguments)...), side.connection));
}

class Both {
public:
	explicit Both(std::span<std::byte> memory) : here_(memory, 1, 2), there_(memory, 2, 1)
	{
		here_.objects->connect(std::make_shared<Wire>(there_.objects));
		there_.objects->connect(std::make_shared<Wire>(here_.objects));
		values_.emplace(served<shapes::ValuesSkeleton, Values>(there_), here_.connection);
		lengths_.emplace(served<texts::LengthsSkeleton, Lengths>(there_), here_.connection);
		driver_.emplace(served<DriverSkeleton, Driver>(there_), here_.connection);
		disk_.emplace(served<blocks::DiskSkeleton, Disk>(there_, *there_.endpoint), here_.connection);
		create_.emplace(served<objects::CreateWorkSkeleton, CreateWork>(there_), here_.connection);
		works_.push_back(std::make_shared<objects::WorkProxy>(served<objects::WorkSkeleton, Work>(there_), here_.connection));
	}
	~Both()
	{
		works_.clear();
		create_.reset();
		for (const Side *side : {&here_, &there_}) {
			side->objects->connect(nullptr);
			side->objects->forget(side->objects->epoch());
		}
	}

	void act();

private:
	template <class T> static void look(const result<T> &got)
	{
		look_at_error(got);
		if constexpr (!std::is_void_v<T>)
			if constexpr (requires { look_at(*got); })
				if (got)
					look_at(*got);
	}
	rref<blocks::Block> block()
	{
		auto made = here_.endpoint->make<blocks::Block>(orbit::Zone{0}, {.lba = 1, .op = blocks::Op::write, .dirty = true, .data = {}});

		return made ? std::move(*made) : rref<blocks::Block>();
	}
	void call_values();
	void call_lengths();
	void call_driver();
	void call_disk();
	void call_objects();

	Side here_, there_;
	std::optional<shapes::ValuesProxy> values_;
	std::optional<texts::LengthsProxy> lengths_;
	std::optional<DriverProxy> driver_;
	std::optional<blocks::DiskProxy> disk_;
	std::optional<objects::CreateWorkProxy> create_;
	std::vector<std::shared_ptr<objects::Work>> works_;
};

void Both::call_values()
{
	switch (input->byte() % 9) {
	case 0:
		return look(values_->nothing());
	case 1:
		return look(values_->add(1, 2, 3));
	case 2:
		return look(values_->invert(any_bool()));
	case 3:
		return look(values_->next(any_kind()));
	case 4:
		return look(values_->without(static_cast<shapes::Rights>(input->byte() % 8), any_level()));
	case 5:
		return look(values_->copy(any_padded()));
	case 6: {
		const auto both = values_->twice(any_padded());
		look_at_error(both);
		if (both)
			for (const auto &each : *both)
				look_at(each);
		return;
	}
	case 7:
		return look(values_->turn(any_shape()));
	default:
		return look(values_->reply(any_level()));
	}
}

void Both::call_lengths()
{
	switch (input->byte() % 6) {
	case 0: {
		const auto joined = lengths_->join(std::string(input->byte() % 50, 'a'), std::string(input->byte() % 8, 'b'));
		look(joined);
		MUST(!joined || joined->size() <= 80);
		return;
	}
	case 1:
		return look(lengths_->sum(std::vector<std::uint32_t>(input->below(1010), 3)));
	case 2: {
		const std::vector<texts::Colour> colours(input->byte() % 7, any_colour());
		const auto mixed = lengths_->mix(colours);
		look_at_error(mixed);
		MUST(!mixed || (mixed->size() <= 5 && colours.size() <= 5));
		if (mixed)
			for (const auto &each : *mixed)
				look_at(each);
		return;
	}
	case 3: {
		const Memory bytes(input->byte() % 16 ? input->byte() : input->below(0x10100));
		const auto filled = lengths_->fill(bytes_of(bytes), 9);
		look(filled);
		if (!filled)
			MUST(std::all_of(bytes.data(), bytes.data() + bytes.size(), [](std::uint8_t byte) { return !byte; }));
		return;
	}
	case 4: {
		std::vector<texts::Item> items(input->byte() % 18, {'x', 5, true});
		const auto sorted = lengths_->sort(items);
		look_at_error(sorted);
		for (const auto &each : items) {
			look_at(each);
			MUST(sorted || (each.letter == 'x' && each.n == 5 && each.good));
		}
		return;
	}
	default: {
		const auto items = lengths_->items(3);
		look_at_error(items);
		MUST(!items || items->size() <= 3);
		if (items)
			for (const auto &each : *items)
				look_at(each);
	}
	}
}

void Both::call_driver()
{
	NetDevice device, other;

	device.next = &other;
	device.flags = 3;
	switch (input->byte() % 3) {
	case 0: {
		device.statistics.received = 4;
		const auto opened = driver_->open(device);
		look(opened);
		look_at(device.up);
		look_at(device.duplex);
		MUST(device.next == &other && device.flags == 3 && device.statistics.received == 4 && device.mtu == 1500);
		MUST(opened || (!device.up && device.duplex == Duplex::half && !device.statistics.errors));
		return;
	}
	case 1:
		return look(driver_->total(device));
	default: {
		Statistics statistics{1, 2};
		const auto swapped = driver_->swap(statistics);
		look_at_error(swapped);
		MUST(swapped || (statistics.received == 1 && statistics.errors == 2));
	}
	}
}

void Both::call_disk()
{
	const auto look_at_block = [](const result<rref<blocks::Block>> &got) {
		look_at_error(got);
		if (got)
			Disk::look(*got);
	};

	switch (input->byte() % 5) {
	case 0:
		return look_at_block(disk_->read(1, block()));
	case 1: {
		const auto lent = block();
		look(disk_->sum(lent));
		if (lent)
			MUST(lent->lba == 1 && lent->dirty);
		return;
	}
	case 2:
		return look(disk_->keep(block(), block()));
	case 3: {
		const auto numbers = here_.endpoint->make_array<std::uint32_t>(orbit::Zone{0}, 1 + input->byte());
		if (numbers)
			look(disk_->count(*numbers));
		return;
	}
	default:
		return look_at_block(disk_->give());
	}
}

void Both::call_objects()
{
	objects::Work &work = *works_[input->below(works_.size())];
	Progress progress;

	switch (input->byte() % 6) {
	case 0:
		return look(work.run(input->byte(), progress));
	case 1:
		return look(work.subscribe(std::make_shared<Progress>(), std::make_unique<Progress>()));
	case 2:
		return look(work.publish());
	case 3: {
		auto clone = work.clone();
		look_at_error(clone);
		if (clone && works_.size() < 4)
			works_.push_back(std::move(*clone));
		return;
	}
	case 4: {
		auto made = create_->create(1);
		look_at_error(made);
		if (made && works_.size() < 4)
			works_.push_back(std::move(*made));
		return;
	}
	default:
		if (works_.size() > 1)
			works_.pop_back();
	}
}

void Both::act()
{
	switch (input->byte() % 5) {
	case 0:
		return call_values();
	case 1:
		return call_lengths();
	case 2:
		return call_driver();
	case 3:
		return call_disk();
	default:
		return call_objects();
	}
}

} // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t *data, std::size_t size)
{
	static const Memory memory(Heap::bytes(2, zones), page_bytes);
	Input all(data, size);

	input = &all;
	std::memset(memory.data(), 0, memory.size());
	auto heap = Heap::create(bytes_of(memory), 2, zones);
	for (DomainId domain = 1; domain <= 2; domain++)
		MUST(heap && heap->add(domain, 0) && heap->grant(domain, 0, 2 * page_bytes));
	{
		Both both(bytes_of(memory));
		while (!all.empty())
			both.act();
	}
	// What was lost on its way to somebody is had again when the one side ends.
	MUST(heap->reclaim(2));
	auto endpoint = Endpoint::attach(bytes_of(memory), 1);
	(*endpoint)->collect();
	const Census census = heap->census();
	MUST(!census.lost && !census.twice && !census.in_flight && !census.owned[1]);
	input = nullptr;
	return 0;
}
