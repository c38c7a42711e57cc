// SPDX-License-Identifier: MIT
//
// What is where, and why neither side can harm the other, is in <orbit/ring.hpp>.
#include <orbit/ring.hpp>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <chrono>
#include <climits>
#include <ctime>
#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

// A part of every call: not worth saving registers for.
#define ALWAYS_INLINE [[gnu::always_inline]] inline

namespace orbit::isolation {
namespace {

constexpr std::size_t page = 4096;
constexpr std::uint64_t for_ever = ~std::uint64_t{0};

constexpr std::size_t round_up(std::size_t bytes, std::size_t to)
{
	return (bytes + to - 1) / to * to;
}

constexpr bool possible(const RingShape &shape)
{
	return std::has_single_bit(shape.slots) && shape.slots <= 64 && shape.message_bytes >= 16 && shape.message_bytes <= 16 << 20;
}

constexpr std::size_t stride(const RingShape &shape)
{
	static_assert(sizeof(detail::RingCall) == sizeof(detail::RingReply));
	return round_up(sizeof(detail::RingCall) + shape.message_bytes, 64);
}

constexpr std::size_t calls_bytes(const RingShape &shape)
{
	return round_up(sizeof(detail::RingBell) + round_up(shape.slots * sizeof(detail::RingEntry), 64) +
				shape.slots * stride(shape),
			page);
}

constexpr std::size_t replies_bytes(const RingShape &shape)
{
	return round_up(sizeof(detail::RingServerState) + shape.slots * stride(shape), page);
}

std::uint64_t now_ns()
{
	// The kernel's CLOCK_MONOTONIC, which a futex goes by.
	return static_cast<std::uint64_t>(std::chrono::nanoseconds(std::chrono::steady_clock::now().time_since_epoch()).count());
}

std::uint64_t deadline_after(std::uint64_t timeout_ns)
{
	const std::uint64_t now = now_ns();

	return timeout_ns < for_ever - now ? now + timeout_ns : for_ever;
}

// Not private: the other side is another process. Memory that may only be read will do.
void sleep_on(std::atomic<std::uint32_t> &word, std::uint32_t value, std::uint64_t deadline)
{
	const timespec until{static_cast<time_t>(std::min<std::uint64_t>(deadline / 1000000000, INT_MAX)),
			     static_cast<long>(deadline % 1000000000)};

	syscall(SYS_futex, &word, FUTEX_WAIT_BITSET, value, deadline == for_ever ? nullptr : &until, nullptr,
		FUTEX_BITSET_MATCH_ANY);
}

void wake(std::atomic<std::uint32_t> &word)
{
	syscall(SYS_futex, &word, FUTEX_WAKE, INT_MAX, nullptr, nullptr, 0);
}

void pause_a_little()
{
#if defined(__x86_64__)
	__builtin_ia32_pause();
#endif
}

} // namespace

std::size_t ring_bytes(const RingShape &shape)
{
	return possible(shape) ? calls_bytes(shape) + replies_bytes(shape) : 0;
}

result<RingMemory> ring_memory(std::span<std::byte> memory, const RingShape &shape)
{
	if (!possible(shape) || memory.size() < ring_bytes(shape) ||
	    reinterpret_cast<std::uintptr_t>(memory.data()) % page)
		return refused(-EINVAL, "this memory is not right for this ring");
	return RingMemory{memory.first(calls_bytes(shape)), memory.subspan(calls_bytes(shape), replies_bytes(shape))};
}

std::size_t rings_bytes(std::span<const RingShape> shapes)
{
	std::size_t bytes = 0;

	for (const RingShape &shape : shapes) {
		if (!possible(shape))
			return 0;
		bytes += ring_bytes(shape);
	}
	return bytes;
}

std::vector<RingMemory> rings_memory(std::span<std::byte> memory, std::span<const RingShape> shapes)
{
	std::vector<RingMemory> rings;

	for (const RingShape &shape : shapes) {
		auto one = ring_memory(memory, shape);
		if (!one)
			return {};
		rings.push_back(*one);
		memory = memory.subspan(ring_bytes(shape));
	}
	return rings;
}

namespace detail {

bool RingView::set(const RingMemory &memory, const RingShape &of)
{
	if (!possible(of) || memory.calls.size() < calls_bytes(of) || memory.replies.size() < replies_bytes(of) ||
	    (reinterpret_cast<std::uintptr_t>(memory.calls.data()) |
	     reinterpret_cast<std::uintptr_t>(memory.replies.data())) % page)
		return false;
	shape = of;
	stride = isolation::stride(of);
	std::byte *at = memory.calls.data();
	bell = reinterpret_cast<RingBell *>(at);
	at += sizeof(RingBell);
	queue = reinterpret_cast<RingEntry *>(at);
	calls = at + round_up(of.slots * sizeof(RingEntry), 64);
	server = reinterpret_cast<RingServerState *>(memory.replies.data());
	replies = memory.replies.data() + sizeof(RingServerState);
	return true;
}

} // namespace detail

namespace {

// Looks until `there()` is true, then sleeps on `word`. `begin` and `end` say so to the other side. 0; -ETIMEDOUT; or
// what this side was ended with.
template <class There, class Begin, class End>
int wait(detail::RingSleepers &sleepers, std::atomic<std::uint32_t> &word, std::uint32_t spins, std::uint64_t timeout_ns,
	 There &&there, Begin &&begin, End &&end)
{
	for (std::uint32_t i = 0; i < spins; i++) {
		if (there())
			return 0;
		pause_a_little();
	}
	const std::uint64_t deadline = deadline_after(timeout_ns);
	int error = 0;

	sleepers.sleeping.fetch_add(1);
	begin();
	for (;;) {
		const std::uint32_t value = word.load();
		if (there())
			break;
		error = sleepers.ended.load();
		if (!error && deadline != for_ever && now_ns() >= deadline)
			error = -ETIMEDOUT;
		if (error)
			break;
		sleep_on(word, value, deadline);
	}
	end();
	sleepers.sleeping.fetch_sub(1);
	return error;
}

template <class Wake> void end_all(detail::RingSleepers &sleepers, int negative_errno, Wake &&wake_all)
{
	int none = 0;

	sleepers.ended.compare_exchange_strong(none, negative_errno < 0 ? negative_errno : -EPIPE);
	// Somebody may be about to sleep on a word that nobody changes any more.
	while (sleepers.sleeping.load()) {
		wake_all();
		constexpr timespec moment{0, 20000};
		nanosleep(&moment, nullptr);
	}
}

} // namespace

// The caller's side.

result<std::shared_ptr<RingTransport>> RingTransport::create(const RingMemory &memory, const RingShape &shape)
{
	std::shared_ptr<RingTransport> ring(new RingTransport);

	if (!ring->view_.set(memory, shape))
		return refused(-EINVAL, "this memory is not right for this ring");
	ring->free_ = shape.slots == 64 ? ~std::uint64_t{0} : (std::uint64_t{1} << shape.slots) - 1;
	return ring;
}

ALWAYS_INLINE bool RingTransport::take_slot(std::uint32_t *slot) noexcept
{
	std::uint64_t free = free_.load(std::memory_order_relaxed);

	if (!free) {
		reap();
		free = free_.load(std::memory_order_relaxed);
	}
	while (free) {
		const std::uint64_t bit = free & -free;
		if (free_.compare_exchange_weak(free, free & ~bit, std::memory_order_acquire)) {
			*slot = static_cast<std::uint32_t>(std::countr_zero(bit));
			return true;
		}
	}
	return false;
}

ALWAYS_INLINE void RingTransport::free_slots(std::uint64_t slots) noexcept
{
	free_.fetch_or(slots);
	if (waiting_.load()) [[unlikely]] {
		const std::lock_guard lock(mutex_);
		freed_.notify_all();
	}
}

void RingTransport::reap() noexcept
{
	for (std::uint64_t left = abandoned_.load(std::memory_order_acquire); left; left &= left - 1) {
		const auto slot = static_cast<std::uint32_t>(std::countr_zero(left));
		const std::uint64_t bit = left & -left;
		if (view_.reply(slot).number.load(std::memory_order_acquire) ==
			    number_[slot].load(std::memory_order_relaxed) &&
		    abandoned_.fetch_and(~bit) & bit)
			free_slots(bit);
	}
}

int RingTransport::wait_for_slot(std::uint32_t *slot, std::uint64_t timeout_ns)
{
	const std::uint64_t deadline = deadline_after(timeout_ns);
	std::unique_lock lock(mutex_);
	int error = 0;

	waiting_.fetch_add(1);
	for (;;) {
		lock.unlock(); // to take one may free others
		const bool taken = take_slot(slot);
		lock.lock();
		if (taken)
			break;
		const std::uint64_t now = now_ns();
		error = sleepers_.ended.load();
		if (!error && now >= deadline)
			error = -ETIMEDOUT;
		if (error)
			break;
		// The server wakes nobody for a call that was abandoned.
		freed_.wait_for(lock, std::chrono::nanoseconds(std::min<std::uint64_t>(deadline - now, 500000)));
	}
	waiting_.fetch_sub(1);
	return error;
}

ALWAYS_INLINE void RingTransport::fill(std::uint32_t slot, std::uint32_t method, std::span<const std::byte> args, RingTicket *ticket,
			 bool more)
{
	detail::RingCall &call = view_.call(slot);

	if (!args.empty())
		std::memcpy(view_.call_bytes(slot), args.data(), args.size());
	call.method.store(method, std::memory_order_relaxed);
	call.bytes.store(static_cast<std::uint32_t>(args.size()), std::memory_order_relaxed);
	const std::uint32_t number = next_.fetch_add(1, std::memory_order_relaxed);
	number_[slot].store(number, std::memory_order_relaxed);
	detail::RingEntry &entry = view_.queue[number & (view_.shape.slots - 1)];
	entry.slot.store(slot, std::memory_order_relaxed);
	entry.number.store(number, std::memory_order_release);
	*ticket = {slot, number};
	if (more)
		to_kick_.store(true, std::memory_order_relaxed);
	else
		kick();
}

void RingTransport::kick() noexcept
{
	to_kick_.store(false, std::memory_order_relaxed);
	// Either this sees that the server sleeps, or the server sees what is in the queue.
	std::atomic_thread_fence(std::memory_order_seq_cst);
	if (view_.server->sleeps.load(std::memory_order_relaxed)) {
		view_.bell->rings.fetch_add(1);
		wake(view_.bell->rings);
	}
}

int RingTransport::start(std::uint32_t method, std::span<const std::byte> args, RingTicket *ticket, bool more)
{
	std::uint32_t slot;

	if (const int error = sleepers_.ended.load(std::memory_order_acquire))
		return error;
	if (args.size() > view_.shape.message_bytes)
		return -EMSGSIZE;
	if (!take_slot(&slot))
		return -EAGAIN;
	fill(slot, method, args, ticket, more);
	return 0;
}

bool RingTransport::ready(const RingTicket &ticket) const noexcept
{
	return ticket.slot >= view_.shape.slots || sleepers_.ended.load(std::memory_order_acquire) ||
	       view_.reply(ticket.slot).number.load(std::memory_order_acquire) == ticket.number;
}

int RingTransport::wait(const RingTicket &ticket, std::uint64_t timeout_ns)
{
	const std::uint32_t slot = ticket.slot, number = ticket.number;

	if (slot >= view_.shape.slots)
		return -EINVAL;
	if (to_kick_.load(std::memory_order_relaxed))
		kick();
	detail::RingReply &from = view_.reply(slot);
	detail::RingCall &call = view_.call(slot);
	const auto there = [&] { return from.number.load(std::memory_order_acquire) == number; };
	if (there())
		return 0;
	return isolation::wait(
		sleepers_, from.number, view_.shape.spins, timeout_ns, there, [&] { call.sleeps.store(1); },
		[&] { call.sleeps.store(0, std::memory_order_relaxed); });
}

int RingTransport::finish(const RingTicket &ticket, std::span<std::byte> reply, std::size_t *reply_bytes,
			  std::uint64_t timeout_ns)
{
	const auto [slot, number] = ticket;
	const std::uint64_t bit = std::uint64_t{1} << (slot & 63);

	if (slot >= view_.shape.slots || number_[slot].load(std::memory_order_relaxed) != number ||
	    (free_.load(std::memory_order_relaxed) | abandoned_.load(std::memory_order_relaxed)) & bit)
		return -EINVAL;
	const detail::RingReply &from = view_.reply(slot);
	int error = 0;
	if (from.number.load(std::memory_order_acquire) != number)
		error = wait(ticket, timeout_ns);
	if (error) [[unlikely]] {
		abandon(ticket);
		return error;
	}
	// Fetched once: the server may change it.
	const std::uint32_t bytes = from.bytes.load(std::memory_order_relaxed);
	if (from.refused.load(std::memory_order_relaxed) || bytes > view_.shape.message_bytes || bytes > reply.size()) {
		error = -EPROTO;
	} else {
		fetch(reply.data(), view_.reply_bytes(slot), bytes);
		*reply_bytes = bytes;
	}
	free_slots(bit);
	return error;
}

void RingTransport::post(std::uint32_t method, std::span<const std::byte> args)
{
	RingTicket ticket;

	if (!start(method, args, &ticket))
		abandon(ticket);
}

void RingTransport::abandon(const RingTicket &ticket) noexcept
{
	abandoned_.fetch_or(std::uint64_t{1} << (ticket.slot & 63));
}

int RingTransport::call(std::uint32_t method, std::span<const std::byte> args, std::span<std::byte> reply,
			std::size_t *reply_bytes, std::uint64_t timeout_ns)
{
	RingTicket ticket;
	std::uint32_t slot;

	if (const int error = sleepers_.ended.load(std::memory_order_acquire)) [[unlikely]]
		return error;
	if (!timeout_ns) [[unlikely]]
		return -ETIMEDOUT;
	if (args.size() > view_.shape.message_bytes) [[unlikely]]
		return -EMSGSIZE;
	if (!take_slot(&slot)) [[unlikely]] {
		const std::uint64_t began = now_ns();
		if (const int error = wait_for_slot(&slot, timeout_ns))
			return error;
		const std::uint64_t took = now_ns() - began;
		timeout_ns = took < timeout_ns ? timeout_ns - took : 1;
	}
	fill(slot, method, args, &ticket, false);
	return finish(ticket, reply, reply_bytes, timeout_ns);
}

void RingTransport::end(int negative_errno)
{
	end_all(sleepers_, negative_errno, [this] {
		for (std::uint32_t i = 0; i < view_.shape.slots; i++)
			wake(view_.reply(i).number);
	});
}

std::size_t RingTransport::abandoned() const noexcept
{
	return static_cast<std::size_t>(std::popcount(abandoned_.load()));
}

// The server's side.

result<std::shared_ptr<RingServer>> RingServer::create(const RingMemory &memory, const RingShape &shape)
{
	std::shared_ptr<RingServer> ring(new RingServer);

	if (!ring->view_.set(memory, shape))
		return refused(-EINVAL, "this memory is not right for this ring");
	return ring;
}

ALWAYS_INLINE bool RingServer::take(std::uint32_t *slot, std::uint32_t *number) noexcept
{
	std::uint32_t head = head_.load(std::memory_order_relaxed);

	do {
		const detail::RingEntry &entry = view_.queue[head & (view_.shape.slots - 1)];
		if (entry.number.load(std::memory_order_acquire) != head)
			return false;
		// A slot that there is not is no call; the place in the queue is used up all the same.
		*slot = entry.slot.load(std::memory_order_relaxed);
	} while (!head_.compare_exchange_weak(head, head + 1, std::memory_order_relaxed));
	*number = head;
	return true;
}

bool RingServer::there() const noexcept
{
	const std::uint32_t head = head_.load();

	// If another thread has taken a call meanwhile, the queue may have gone round since.
	return view_.queue[head & (view_.shape.slots - 1)].number.load() == head || head_.load() != head;
}

ALWAYS_INLINE void RingServer::answer(Skeleton &object, std::uint32_t slot, std::uint32_t number)
{
	if (slot >= view_.shape.slots)
		return;
	const detail::RingCall &call = view_.call(slot);
	detail::RingReply &reply = view_.reply(slot);
	// Fetched once: the caller may change it.
	const std::uint32_t method = call.method.load(std::memory_order_relaxed);
	const std::uint32_t bytes = call.bytes.load(std::memory_order_relaxed);
	const std::size_t most = view_.shape.message_bytes;
	std::size_t written = 0;
	int error = -EMSGSIZE;

	if (bytes <= most)
		error = object.dispatch(method, {view_.call_bytes(slot), bytes},
					{view_.reply_bytes(slot), most}, &written);
	reply.bytes.store(static_cast<std::uint32_t>(std::min(written, most)), std::memory_order_relaxed);
	reply.refused.store(error != 0, std::memory_order_relaxed);
	reply.number.store(number);
	if (call.sleeps.load())
		wake(reply.number);
}

int RingServer::serve(Skeleton &object, std::uint64_t idle_ns)
{
	for (;;) {
		std::uint32_t slot, number;
		if (const int error = sleepers_.ended.load(std::memory_order_acquire))
			return error;
		if (take(&slot, &number)) {
			answer(object, slot, number);
			continue;
		}
		const std::lock_guard lock(mutex_);
		const int error = wait(
			sleepers_, view_.bell->rings, view_.shape.spins, idle_ns, [this] { return there(); },
			[&] { view_.server->sleeps.store(1); },
			[&] { view_.server->sleeps.store(0, std::memory_order_relaxed); });
		if (error)
			return error;
	}
}

bool RingServer::serve_one(Skeleton &object)
{
	std::uint32_t slot, number;

	if (!take(&slot, &number))
		return false;
	answer(object, slot, number);
	return true;
}

void RingServer::end(int negative_errno)
{
	end_all(sleepers_, negative_errno, [this] { wake(view_.bell->rings); });
}

} // namespace orbit::isolation
