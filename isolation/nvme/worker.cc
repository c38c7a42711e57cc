// SPDX-License-Identifier: MIT
#include "worker.h"

#include "../pci/events.h"

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <thread>
#include <unistd.h>

namespace orbit::nvme {

using isolation::refused;
using namespace std::chrono_literals;

namespace {

static_assert(block::most_queues == isolation::DeviceCounters::most_queues);

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

// A caller's requests, in the queue that it has.
class Worker::Caller final : public block::Device {
public:
	Caller(Worker &worker, unsigned number) noexcept : worker_(worker), number_(number) {}

	result<block::Limits> limits() override;
	result<std::vector<block::Space>> spaces() override;
	result<rref<std::byte[]>> read(std::uint32_t space, std::uint64_t lba, std::uint32_t blocks, rref<std::byte[]> into) override;
	result<void> write(std::uint32_t space, std::uint64_t lba, std::uint32_t blocks, const rref<std::byte[]> &from) override;
	result<void> flush(std::uint32_t space) override;
	result<std::vector<block::Outcome>> exchange(std::span<const block::Request> requests, std::uint32_t wait_for) override;

	// With the queue's lock: the end of a request.
	void end(const Slot &slot, int error)
	{
		under_way_--;
		if (slot.single)
			single_ = error;
		else
			outcomes_.push_back({.tag = slot.tag, .error = error});
	}

private:
	Queue &queue() const { return *worker_.queues_[number_ % worker_.queues_.size()]; }
	int take(Queue &queue, const block::Request &request);
	int begin(Queue &queue, Op op, std::uint32_t space, std::uint64_t lba, std::uint32_t blocks, std::span<const std::byte> data,
		  std::uint32_t slot);
	result<void> run(Op op, std::uint32_t space, std::uint64_t lba, std::uint32_t blocks, std::span<const std::byte> data);

	Worker &worker_;
	unsigned number_;
	// With the queue's lock.
	unsigned under_way_ = 0;
	std::vector<block::Outcome> outcomes_; // not yet told
	std::optional<int> single_;	       // how the request of a call that waits has ended
};

std::shared_ptr<block::Device> Worker::make_device()
{
	return std::make_shared<Caller>(*this, callers_.fetch_add(1));
}

result<void> Worker::ready() const
{
	if (!ready_.load(std::memory_order_acquire))
		return failed(ENODEV);
	return {};
}

result<void> Worker::start(std::int32_t device, const block::Memory &memory, const block::Settings &settings,
			   std::span<const std::int32_t> interrupts)
{
	const std::scoped_lock locked(starting_);

	if (controller_)
		return failed(EALREADY);
	if (!settings.queues || settings.queues > block::most_queues || (!interrupts.empty() && interrupts.size() <= settings.queues))
		return failed(EINVAL);
	auto bar = pci::Bar::map(device, 0);

	if (!bar)
		return failed(bar.error().code());

	const ControllerOptions options{.queues = settings.queues,
					.depth = settings.depth,
					.timeout = std::chrono::milliseconds(settings.timeout_ms),
					.interrupts = !interrupts.empty()};
	auto queues = endpoint_.make_array_for_overwrite<std::byte>(Zone{memory.queues}, Controller::memory_for(options));

	if (!queues)
		return failed(queues.error().code());
	bar_.emplace(std::move(*bar));
	memory_of_queues_ = std::move(*queues);
	memory_.emplace(std::span(reinterpret_cast<std::byte *>(memory.address), memory.bytes), memory.iova, memory_of_queues_.elements());

	auto started = Controller::start(*bar_, *memory_, options);

	if (!started)
		return failed(started.error().code());
	controller_ = std::move(*started);
	for (unsigned number = 0; number < controller_->queues(); number++) {
		auto queue = std::make_unique<Queue>();

		queue->pair = &controller_->queue(number);
		queue->slots.resize(queue->pair->depth());
		for (std::uint32_t slot = queue->pair->depth(); slot-- > 0;)
			queue->free.push_back(slot);
		queue->looked = Clock::now();
		if (!interrupts.empty())
			queue->interrupts = interrupts[number + 1];
		if (counters_)
			queue->told = &counters_->queue[number];
		queues_.push_back(std::move(queue));
	}
	if (counters_)
		counters_->queues.store(controller_->queues(), std::memory_order_relaxed);
	ready_.store(true, std::memory_order_release);
	return {};
}

result<block::DriverStatistics> Worker::statistics()
{
	if (const auto is = ready(); !is)
		return tl::unexpected(is.error());
	block::DriverStatistics says{};

	for (const auto &queue : queues_) {
		const std::scoped_lock locked(queue->mutex);

		says.requests += queue->requests;
		says.errors += queue->errors;
		says.under_way += queue->pair->under_way();
	}
	says.queues = controller_->queues();
	says.depth = controller_->limits().depth;
	return says;
}

std::uint32_t Worker::take_slot(Queue &queue, Caller &caller)
{
	const std::uint32_t slot = queue.free.back();

	queue.free.pop_back();
	queue.slots[slot].caller = &caller;
	queue.slots[slot].single = false;
	return slot;
}

// Also what all queues have in common. Returns what time it is.
Worker::Clock::time_point Worker::look_after(Queue &queue, bool always)
{
	const auto now = Clock::now();

	if (always || now - queue.looked >= look_every) {
		queue.looked = now;
		(void)controller_->look_after(*queue.pair);
	}
	if (controller_->failed()) {
		std::fprintf(stderr, "nvme: %s\n", controller_->failure());
		controller_->give_up();
		std::abort();
	}
	return now;
}

void Worker::poll(Queue &queue)
{
	// Of the process before, too; and nobody else writes there.
	const auto add = [](std::atomic<std::uint64_t> &to, std::uint64_t number) {
		to.store(to.load(std::memory_order_relaxed) + number, std::memory_order_relaxed);
	};
	Outcome room[64];
	const std::span<Outcome> outcomes = queue.pair->poll(room);
	std::uint64_t errors = 0;

	if (outcomes.empty())
		return;
	for (const Outcome &outcome : outcomes) {
		Slot &slot = queue.slots[outcome.tag];

		errors += outcome.error != 0;
		slot.data.reset();
		slot.caller->end(slot, outcome.error);
		queue.free.push_back(static_cast<std::uint32_t>(outcome.tag));
	}
	queue.requests += outcomes.size();
	queue.errors += errors;
	if (queue.told) {
		add(queue.told->requests, outcomes.size());
		add(queue.told->errors, errors);
	}
}

// Until something may have ended, or `end`. Meanwhile others have the queue.
void Worker::wait(Queue &queue, std::unique_lock<std::mutex> &locked, unsigned tries, Clock::time_point end)
{
	if (queue.interrupts < 0) {
		locked.unlock();
		if (tries < looks)
			std::this_thread::yield();
		else
			std::this_thread::sleep_for(nap);
		locked.lock();
		return;
	}
	if (queue.watched) {
		queue.changed.wait_until(locked, end);
		return;
	}
	queue.watched = true;
	locked.unlock();
	pci::wait_for_interrupt(queue.interrupts, end);
	locked.lock();
	queue.watched = false;
	queue.changed.notify_all();
}

result<block::Limits> Worker::Caller::limits()
{
	if (const auto is = worker_.ready(); !is)
		return tl::unexpected(is.error());
	const Limits &says = worker_.controller_->limits();

	return block::Limits{.max_transfer = says.max_transfer, .depth = says.depth, .queues = worker_.controller_->queues(),
			     .write_cache = says.write_cache, .write_zeroes = says.write_zeroes, .discard = says.discard,
			     .most_zeroes = says.most_zeroes, .most_discarded = says.most_discarded};
}

result<std::vector<block::Space>> Worker::Caller::spaces()
{
	std::vector<block::Space> spaces;

	if (const auto is = worker_.ready(); !is)
		return tl::unexpected(is.error());
	{
		// The controller may have told of others while nobody called.
		Queue &queue = this->queue();
		const std::scoped_lock locked(queue.mutex);

		worker_.look_after(queue, true);
	}
	for (const Namespace &space : worker_.controller_->namespaces())
		if (spaces.size() < block::most_spaces)
			spaces.push_back({.blocks = space.blocks, .id = space.id, .block_bytes = space.block_bytes});
	return spaces;
}

// Of the error of this side, what the caller is told.
int Worker::Caller::begin(Queue &queue, Op op, std::uint32_t space, std::uint64_t lba, std::uint32_t blocks,
			  std::span<const std::byte> data, std::uint32_t slot)
{
	const auto taken = queue.pair->submit({.op = op, .nsid = space, .lba = lba, .blocks = blocks,
					       .data = const_cast<std::byte *>(data.data()), .tag = slot, .room = data.size()});

	if (!taken)
		return taken.error().code();
	under_way_++;
	return 0;
}

// 0, or what the request's outcome is to be.
int Worker::Caller::take(Queue &queue, const block::Request &request)
{
	const auto op = op_of(request.op);
	std::span<const std::byte> data;

	if (!op)
		return EINVAL;
	if (queue.free.empty())
		return EAGAIN;

	const std::uint32_t number = worker_.take_slot(queue, *this);
	Slot &slot = queue.slots[number];
	int error = 0;

	slot.tag = request.tag;
	if (*op == Op::read || *op == Op::write) {
		// Lent until the outcome is on its way: the owner cannot free the memory while the device has it.
		auto lent = worker_.endpoint_.borrow<std::byte[]>(request.data, worker_.caller_);

		if (lent) {
			slot.data.emplace(std::move(*lent));
			data = slot.data->get().elements();
		} else {
			error = lent.error().code();
		}
	}
	if (!error)
		error = begin(queue, *op, request.space, request.lba, request.blocks, data, number);
	if (error) {
		slot.data.reset();
		queue.free.push_back(number);
	}
	return error;
}

result<std::vector<block::Outcome>> Worker::Caller::exchange(std::span<const block::Request> requests, std::uint32_t wait_for)
{
	if (const auto is = worker_.ready(); !is)
		return tl::unexpected(is.error());
	Queue &queue = this->queue();
	std::unique_lock locked(queue.mutex);

	for (const block::Request &request : requests)
		if (const int error = take(queue, request))
			outcomes_.push_back({.tag = request.tag, .error = error});
	queue.pair->ring();

	const auto end = Clock::now() + wait_at_most;

	for (unsigned n = 0;; n++) {
		worker_.poll(queue);
		const auto now = worker_.look_after(queue);
		if (outcomes_.size() >= std::min<std::size_t>(wait_for, block::most_requests) || !under_way_ || now > end)
			break;
		worker_.wait(queue, locked, n, end);
	}

	const auto told = outcomes_.begin() + static_cast<std::ptrdiff_t>(std::min(outcomes_.size(), block::most_requests));
	std::vector<block::Outcome> out(outcomes_.begin(), told);

	outcomes_.erase(outcomes_.begin(), told);
	return out;
}

// One request, from its beginning to its end.
result<void> Worker::Caller::run(Op op, std::uint32_t space, std::uint64_t lba, std::uint32_t blocks, std::span<const std::byte> data)
{
	if (const auto is = worker_.ready(); !is)
		return is;
	Queue &queue = this->queue();
	std::unique_lock locked(queue.mutex);

	if (queue.free.empty())
		return failed(EAGAIN);

	const std::uint32_t number = worker_.take_slot(queue, *this);

	queue.slots[number].single = true;
	single_.reset();
	if (const int error = begin(queue, op, space, lba, blocks, data, number)) {
		queue.free.push_back(number);
		return failed(error);
	}
	queue.pair->ring();
	for (unsigned n = 0; !single_; n++) {
		worker_.poll(queue);
		const auto now = worker_.look_after(queue); // it ends the process before a request is under way for ever
		if (!single_)
			worker_.wait(queue, locked, n, now + look_every);
	}
	if (*single_)
		return failed(*single_);
	return {};
}

result<rref<std::byte[]>> Worker::Caller::read(std::uint32_t space, std::uint64_t lba, std::uint32_t blocks, rref<std::byte[]> into)
{
	if (const auto done = run(Op::read, space, lba, blocks, into.elements()); !done)
		return tl::unexpected(done.error());
	return into;
}

result<void> Worker::Caller::write(std::uint32_t space, std::uint64_t lba, std::uint32_t blocks, const rref<std::byte[]> &from)
{
	return run(Op::write, space, lba, blocks, from.elements());
}

result<void> Worker::Caller::flush(std::uint32_t space)
{
	return run(Op::flush, space, 0, 0, {});
}

} // namespace orbit::nvme
