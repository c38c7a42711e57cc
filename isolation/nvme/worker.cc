// SPDX-License-Identifier: MIT
#include "worker.h"

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <thread>

namespace orbit::nvme {

using isolation::refused;
using namespace std::chrono_literals;
using Clock = std::chrono::steady_clock;

namespace {

constexpr auto look_every = 100ms;
// How long a call of exchange() waits for outcomes: well below any deadline of a call.
constexpr auto wait_at_most = 50ms;
// Who waits for the controller looks so often before it sleeps between.
constexpr unsigned looks = 200;
constexpr auto nap = 20us;

std::optional<Op> op_of(block::Op op)
{
	switch (op) {
	case block::Op::read: return Op::read;
	case block::Op::write: return Op::write;
	case block::Op::flush: return Op::flush;
	case block::Op::write_zeroes: return Op::write_zeroes;
	case block::Op::discard: return Op::discard;
	}
	return std::nullopt;
}

} // namespace

result<void> Worker::ready() const
{
	if (!controller_)
		return failed(ENODEV);
	return {};
}

result<void> Worker::start(std::int32_t device, const block::Memory &memory, std::uint32_t depth, std::uint32_t timeout_ms)
{
	const std::scoped_lock locked(mutex_);

	if (controller_)
		return failed(EALREADY);
	auto bar = pci::Bar::map(device, 0);

	if (!bar)
		return failed(bar.error().code());

	const ControllerOptions options{.queues = 1, .depth = depth, .timeout = std::chrono::milliseconds(timeout_ms)};
	auto queues = endpoint_.make_array_for_overwrite<std::byte>(Zone{memory.queues}, Controller::memory_for(options));

	if (!queues)
		return failed(queues.error().code());
	bar_.emplace(std::move(*bar));
	queues_ = std::move(*queues);
	memory_.emplace(std::span(reinterpret_cast<std::byte *>(memory.address), memory.bytes), memory.iova, queues_.elements());

	auto started = Controller::start(*bar_, *memory_, options);

	if (!started)
		return failed(started.error().code());
	controller_ = std::move(*started);
	slots_.resize(controller_->limits().depth);
	for (std::uint32_t slot = controller_->limits().depth; slot-- > 0;)
		free_.push_back(slot);
	looked_ = Clock::now();
	return {};
}

result<block::Limits> Worker::limits()
{
	const std::scoped_lock locked(mutex_);

	if (const auto is = ready(); !is)
		return tl::unexpected(is.error());
	const Limits &says = controller_->limits();

	return block::Limits{.max_transfer = says.max_transfer, .depth = says.depth, .write_cache = says.write_cache,
			     .write_zeroes = says.write_zeroes, .discard = says.discard};
}

result<std::vector<block::Space>> Worker::spaces()
{
	const std::scoped_lock locked(mutex_);
	std::vector<block::Space> spaces;

	if (const auto is = ready(); !is)
		return tl::unexpected(is.error());
	for (const Namespace &space : controller_->namespaces())
		if (spaces.size() < block::most_spaces)
			spaces.push_back({.blocks = space.blocks, .id = space.id, .block_bytes = space.block_bytes});
	return spaces;
}

result<block::DriverStatistics> Worker::statistics()
{
	const std::scoped_lock locked(mutex_);

	if (const auto is = ready(); !is)
		return tl::unexpected(is.error());
	block::DriverStatistics says = statistics_;

	says.under_way = controller_->queue(0).under_way();
	says.queues = controller_->queues();
	says.depth = controller_->limits().depth;
	return says;
}

// Of the error of this side, what the caller is told.
int Worker::begin(Op op, std::uint32_t space, std::uint64_t lba, std::uint32_t blocks, std::span<const std::byte> data, std::uint32_t slot)
{
	const Namespace *const found = controller_->find(space);

	if ((op == Op::read || op == Op::write) && found && std::uint64_t{blocks} * found->block_bytes > data.size())
		return ERANGE;
	const auto taken = controller_->queue(0).submit({.op = op, .nsid = space, .lba = lba, .blocks = blocks,
							 .data = const_cast<std::byte *>(data.data()), .tag = slot});

	return taken ? 0 : taken.error().code();
}

std::uint32_t Worker::take_slot()
{
	const std::uint32_t slot = free_.back();

	free_.pop_back();
	slots_[slot] = {};
	return slot;
}

// 0, or what the request's outcome is to be.
int Worker::take(const block::Request &request)
{
	const auto op = op_of(request.op);
	std::span<const std::byte> data;

	if (!op)
		return EINVAL;
	if (free_.empty())
		return EAGAIN;

	const std::uint32_t number = take_slot();
	Slot &slot = slots_[number];
	int error = 0;

	slot.tag = request.tag;
	if (*op == Op::read || *op == Op::write) {
		// Lent until the outcome is on its way: the owner cannot free the memory while the device has it.
		auto lent = endpoint_.borrow<std::byte[]>(request.data, caller_);

		if (lent) {
			slot.data.emplace(std::move(*lent));
			data = slot.data->get().elements();
		} else {
			error = lent.error().code();
		}
	}
	if (!error)
		error = begin(*op, request.space, request.lba, request.blocks, data, number);
	if (error) {
		slot.data.reset();
		free_.push_back(number);
	}
	return error;
}

void Worker::look_after()
{
	const auto now = Clock::now();

	if (now - looked_ >= look_every) {
		looked_ = now;
		(void)controller_->look_after();
	}
	if (controller_->failed()) {
		std::fprintf(stderr, "nvme: %s\n", controller_->failure());
		controller_->give_up();
		std::abort();
	}
}

void Worker::poll()
{
	Outcome room[64];

	for (const Outcome &outcome : controller_->queue(0).poll(room)) {
		Slot &slot = slots_[outcome.tag];

		statistics_.requests++;
		statistics_.errors += outcome.error != 0;
		slot.data.reset();
		if (slot.single) {
			slot.ended = true;
			slot.error = outcome.error;
		} else {
			outcomes_.push_back({.tag = slot.tag, .error = outcome.error});
			free_.push_back(static_cast<std::uint32_t>(outcome.tag));
		}
	}
}

result<std::vector<block::Outcome>> Worker::exchange(std::span<const block::Request> requests, std::uint32_t wait_for)
{
	const std::scoped_lock locked(mutex_);

	if (const auto is = ready(); !is)
		return tl::unexpected(is.error());
	for (const block::Request &request : requests)
		if (const int error = take(request))
			outcomes_.push_back({.tag = request.tag, .error = error});
	controller_->queue(0).ring();

	const auto end = Clock::now() + wait_at_most;

	for (unsigned n = 0;; n++) {
		poll();
		look_after();
		if (outcomes_.size() >= std::min<std::size_t>(wait_for, block::most_requests) || !controller_->queue(0).under_way() ||
		    (n % 16 == 0 && Clock::now() > end))
			break;
		if (n < looks)
			std::this_thread::yield();
		else
			std::this_thread::sleep_for(nap);
	}

	const auto told = outcomes_.begin() + static_cast<std::ptrdiff_t>(std::min(outcomes_.size(), block::most_requests));
	std::vector<block::Outcome> out(outcomes_.begin(), told);

	outcomes_.erase(outcomes_.begin(), told);
	return out;
}

// One request, from its beginning to its end.
result<void> Worker::run(Op op, std::uint32_t space, std::uint64_t lba, std::uint32_t blocks, std::span<const std::byte> data)
{
	const std::scoped_lock locked(mutex_);

	if (const auto is = ready(); !is)
		return is;
	if (free_.empty())
		return failed(EAGAIN);

	const std::uint32_t number = take_slot();

	slots_[number].single = true;
	if (const int error = begin(op, space, lba, blocks, data, number)) {
		free_.push_back(number);
		return failed(error);
	}
	controller_->queue(0).ring();
	for (unsigned n = 0; !slots_[number].ended; n++) {
		poll();
		look_after(); // it ends the process before a request is under way for ever
		if (n < looks)
			std::this_thread::yield();
		else
			std::this_thread::sleep_for(nap);
	}
	free_.push_back(number);
	if (slots_[number].error)
		return failed(slots_[number].error);
	return {};
}

result<rref<std::byte[]>> Worker::read(std::uint32_t space, std::uint64_t lba, std::uint32_t blocks, rref<std::byte[]> into)
{
	if (const auto done = run(Op::read, space, lba, blocks, into.elements()); !done)
		return tl::unexpected(done.error());
	return into;
}

result<void> Worker::write(std::uint32_t space, std::uint64_t lba, std::uint32_t blocks, const rref<std::byte[]> &from)
{
	return run(Op::write, space, lba, blocks, from.elements());
}

result<void> Worker::flush(std::uint32_t space)
{
	return run(Op::flush, space, 0, 0, {});
}

} // namespace orbit::nvme
