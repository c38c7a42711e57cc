// SPDX-License-Identifier: MIT
//
// Calls over shared memory: a caller and a server on different cores, without the kernel as long as both are awake.
//
//	RingMemory memory = ring_memory(shared, shape);				// by who makes both sides
//	auto transport = RingTransport::create(memory, shape);			// the caller's side: a Transport
//	auto server = RingServer::create(memory, shape); server->serve(skeleton);	// the domain's side
//
// The memory has two areas: the caller writes the one, the server the other, and neither has to be able to write
// what the other writes. There is no header: each side knows the ring's shape from who made it, and counts in private
// memory. What it reads of the other side it reads once: a number that says whether something is there, an index
// or a length, which is checked, or bytes of a message.
//
//	calls:		a bell | queue of slots that were filled | for each slot: method, length, whether somebody sleeps, message
//	replies:	whether the server sleeps	| for each slot: number, length, whether it was refused, message
//
// A call takes a free slot, writes its message there, and puts the slot's index into the queue, with the call's number.
// The server takes calls in the queue's order; several may be under way. A reply is there when its slot has the
// call's number. Who waits looks for a while, then says that it sleeps, and waits on a word that the other side changes.
//
// A call that ends at its deadline leaves its slot to the server until that answers.
#ifndef ORBIT_RING_HPP
#define ORBIT_RING_HPP

#include <orbit/interface.hpp>

#include <atomic>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <span>
#include <vector>

namespace orbit::isolation {

/// Both sides of a ring have to be made with the same.
struct RingShape {
	std::uint32_t slots = 32;           ///< Calls under way at most: 1, 2, 4, ... 64.
	std::uint32_t message_bytes = 4096; ///< The longest message: 16 bytes to 16 MiB.
	std::uint32_t spins = 2000;         ///< How often one looks before it sleeps. 0 is right for one core.
};

/// What one side writes, and the other reads.
struct RingMemory {
	std::span<std::byte> calls;   ///< The caller may write it, the server need not.
	std::span<std::byte> replies; ///< The server may write it, the caller need not.
};

/// How many bytes a ring takes, whole pages; 0 for a shape that cannot be.
std::size_t ring_bytes(const RingShape &shape);

/// Divides memory for a ring: zeroes, at a page's beginning, ring_bytes() long, and there as long as either
/// side. For rights of their own the areas are whole pages. EINVAL: none of that.
result<RingMemory> ring_memory(std::span<std::byte> memory, const RingShape &shape);

/// Several rings in one piece of memory, one after another: how many bytes that is, and which of them each has. 0, and
/// nothing, for shapes that cannot be, and for memory that is not right.
std::size_t rings_bytes(std::span<const RingShape> shapes);
std::vector<RingMemory> rings_memory(std::span<std::byte> memory, std::span<const RingShape> shapes);

namespace detail {

struct RingEntry {
	std::atomic<std::uint32_t> number;
	std::atomic<std::uint32_t> slot;
};
// What a slot begins with. A short message is in the same line of the cache.
struct alignas(16) RingCall {
	std::atomic<std::uint32_t> method, bytes, sleeps;
};
struct alignas(16) RingReply {
	std::atomic<std::uint32_t> number, bytes, refused;
};
struct alignas(64) RingBell {
	std::atomic<std::uint32_t> rings; // the caller's: counted on for a server that sleeps
};
struct alignas(64) RingServerState {
	std::atomic<std::uint32_t> sleeps;
};

// Where everything is; the other side's area is only read.
struct RingView {
	RingBell *bell = nullptr;
	RingEntry *queue = nullptr;
	RingServerState *server = nullptr;
	std::byte *calls = nullptr, *replies = nullptr; // the slots
	std::size_t stride = 0;
	RingShape shape;

	RingCall &call(std::uint32_t slot) const { return *reinterpret_cast<RingCall *>(calls + slot * stride); }
	RingReply &reply(std::uint32_t slot) const { return *reinterpret_cast<RingReply *>(replies + slot * stride); }
	std::byte *call_bytes(std::uint32_t slot) const { return calls + slot * stride + sizeof(RingCall); }
	std::byte *reply_bytes(std::uint32_t slot) const { return replies + slot * stride + sizeof(RingReply); }
	bool set(const RingMemory &memory, const RingShape &shape);
};

// Threads of this side that sleep, and what ends that.
struct RingSleepers {
	std::atomic<int> ended = 0;
	std::atomic<std::uint32_t> sleeping = 0;
};

} // namespace detail

/// A call that was started.
struct RingTicket {
	std::uint32_t slot;
	std::uint32_t number;
};

/// The caller's side. Thread-safe: any number of threads call. All errors are made here, whatever the server does:
/// -ETIMEDOUT: no reply by then; the method may have been called, or may be yet. -EMSGSIZE: the message is longer than
/// the ring's. -EPROTO: what came back is no reply, or the server refused the message. And what end() was given.
class RingTransport final : public Transport {
public:
	/// EINVAL: a shape that cannot be, or memory that is not right for it.
	static result<std::shared_ptr<RingTransport>> create(const RingMemory &memory, const RingShape &shape);
	RingTransport(const RingTransport &) = delete;
	RingTransport &operator=(const RingTransport &) = delete;

	/// If all slots are taken it waits for one, within the timeout. A timeout of 0 calls nothing.
	int call(std::uint32_t method, std::span<const std::byte> args, std::span<std::byte> reply,
		 std::size_t *reply_bytes, std::uint64_t timeout_ns) override;

	/// Starts a call, and does not wait: also -EAGAIN, all slots are taken. Each call that was started is to be ended
	/// by finish(). With `more` the server is not woken before the next start without, kick(), or finish().
	int start(std::uint32_t method, std::span<const std::byte> args, RingTicket *ticket, bool more = false);

	/// Wakes the server for what was started with `more`.
	void kick() noexcept;

	/// Whether finish() would not wait.
	bool ready(const RingTicket &ticket) const noexcept;

	/// Waits until finish() would not, for so long at most. 0, or an error as of call(); the call is not ended.
	int wait(const RingTicket &ticket, std::uint64_t timeout_ns);

	/// Waits for a reply, and ends the call, whatever it returns. -EINVAL: there is no such call.
	int finish(const RingTicket &ticket, std::span<std::byte> reply, std::size_t *reply_bytes, std::uint64_t timeout_ns);

	/// Calls, if the ring is not full, and wants to know neither whether it was nor how the call ends.
	void post(std::uint32_t method, std::span<const std::byte> args);

	/// The server is dead, or given up: all calls end with this negative errno value now, and those that come.
	void end(int negative_errno);

	/// Calls whose deadline has passed, and that the server has not answered yet.
	std::size_t abandoned() const noexcept;

private:
	// Ends a call without its reply.
	void abandon(const RingTicket &ticket) noexcept;

	RingTransport() = default;
	bool take_slot(std::uint32_t *slot) noexcept;
	int wait_for_slot(std::uint32_t *slot, std::uint64_t timeout_ns);
	void free_slots(std::uint64_t slots) noexcept;
	void reap() noexcept;
	void fill(std::uint32_t slot, std::uint32_t method, std::span<const std::byte> args, RingTicket *ticket, bool more);

	detail::RingView view_;
	detail::RingSleepers sleepers_;
	// Bits of slots. One that is neither free nor abandoned has a thread that cares for it.
	std::atomic<std::uint64_t> free_ = 0, abandoned_ = 0;
	std::atomic<std::uint32_t> next_ = 1;
	std::atomic<bool> to_kick_ = false;
	std::atomic<std::uint32_t> number_[64] = {}; // of the call in a slot
	std::mutex mutex_;
	std::condition_variable freed_;
	std::atomic<std::uint32_t> waiting_ = 0; // for a slot
};

/// The server's side. Thread-safe: serve() may run in several threads.
class RingServer {
public:
	/// EINVAL: a shape that cannot be, or memory that is not right for it.
	static result<std::shared_ptr<RingServer>> create(const RingMemory &memory, const RingShape &shape);
	RingServer(const RingServer &) = delete;
	RingServer &operator=(const RingServer &) = delete;

	/// Serves calls, one after the other in each thread that does this, until end() (returns what that was given), or
	/// until no call has come for `idle_ns` (-ETIMEDOUT). What is no call is passed over.
	int serve(Skeleton &object, std::uint64_t idle_ns = ~std::uint64_t{0});

	/// Serves one call if there is one. Whether it did.
	bool serve_one(Skeleton &object);

	/// serve() returns this negative errno value, now and later.
	void end(int negative_errno);

private:
	RingServer() = default;
	bool take(std::uint32_t *slot, std::uint32_t *number) noexcept;
	bool there() const noexcept;
	void answer(Skeleton &object, std::uint32_t slot, std::uint32_t number);

	detail::RingView view_;
	detail::RingSleepers sleepers_;
	std::mutex mutex_; // the thread that has it is the one that waits
	std::atomic<std::uint32_t> head_ = 1;
};

} // namespace orbit::isolation

#endif
