// SPDX-License-Identifier: MIT
//
// Many calls under way in one thread: methods of generated coroutines (orbit-idl --coroutines), and the loop that they
// wait in.
//
//	orbit::task<void> copy(DiskCoroutines &disk, std::uint64_t from, std::uint64_t to)
//	{
//		auto block = co_await disk.read(from);
//		if (block)
//			co_await disk.write(to, *block);
//	}
//	...
//	orbit::Loop loop;
//	for (std::uint64_t i = 0; i < 32; i++)
//		loop.spawn(copy(disk, i, 1000 + i));
//	loop.run();
//
// A call goes over a ring (<orbit/ring.hpp>). Where there is none, and where no loop runs, co_await waits in the call,
// and all else is the same.
#ifndef ORBIT_COROUTINE_HPP
#define ORBIT_COROUTINE_HPP

#include <orbit/ring.hpp>
#include <orbit/stubs.hpp>

#include <bit>
#include <chrono>
#include <coroutine>
#include <cstddef>
#include <deque>
#include <exception>
#include <new>
#include <optional>
#include <utility>
#include <vector>

namespace orbit {

class Loop;

namespace isolation {

// Frames of coroutines that have ended, kept for those that begin, by size: each thread has its own, and few. In which
// thread a frame was begun does not matter.
class Frames {
public:
	static void *take(std::size_t bytes)
	{
		const std::size_t kind = kind_of(bytes);

		if (keeps && kind < kinds && here_[kind].first) [[likely]] {
			Kind &kept = here_[kind];
			Frame *frame = kept.first;
			kept.first = frame->next;
			kept.room++;
			return frame;
		}
		return ::operator new(kind < kinds ? least << kind : bytes);
	}
	static void give(void *frame, std::size_t bytes) noexcept
	{
		const std::size_t kind = kind_of(bytes);

		if (!keeps || kind >= kinds)
			return ::operator delete(frame);
		Kind &kept = here_[kind];
		kept.first = new (frame) Frame{kept.first};
		if (--kept.room < 0) [[unlikely]]
			full(kind);
	}

private:
	static constexpr std::size_t least = 64, kinds = 8, bytes_of_a_kind = std::size_t{64} << 10;
	// AddressSanitizer is to see frames end.
#if defined(__SANITIZE_ADDRESS__)
	static constexpr bool keeps = false;
#elif defined(__has_feature)
	static constexpr bool keeps = !__has_feature(address_sanitizer);
#else
	static constexpr bool keeps = true;
#endif

	struct Frame {
		Frame *next;
	};
	struct Kind {
		Frame *first;
		long room; // for so many more; none before this thread has kept any, and when it ends
	};
	struct End;

	// 64, 128, 256, ... bytes. The compiler knows it, as it knows a frame's size.
	static constexpr std::size_t kind_of(std::size_t bytes)
	{
		return static_cast<std::size_t>(std::bit_width((bytes - 1) / least));
	}
	// One more than there is room for.
	static void full(std::size_t kind) noexcept;

	static inline constinit thread_local Kind here_[kinds] = {};
};

// What promises of tasks have in common.
struct PromiseBase {
	static void *operator new(std::size_t bytes) { return Frames::take(bytes); }
	static void operator delete(void *frame, std::size_t bytes) noexcept { Frames::give(frame, bytes); }

	struct Final {
		bool await_ready() const noexcept { return false; }
		template <class Promise> std::coroutine_handle<> await_suspend(std::coroutine_handle<Promise> ended) const noexcept
		{
			return std::coroutine_handle<>::from_address(ended.promise().continuation);
		}
		void await_resume() const noexcept {}
	};

	std::suspend_always initial_suspend() const noexcept { return {}; }
	Final final_suspend() const noexcept { return {}; }
	void unhandled_exception() noexcept { exception = std::current_exception(); }

	void *continuation; // a handle's address; set by who resumes it first
	std::exception_ptr exception;
};

template <class T> struct Promise : PromiseBase {
	std::coroutine_handle<Promise> get_return_object() noexcept
	{
		return std::coroutine_handle<Promise>::from_promise(*this);
	}
	void return_value(T returned) { value.emplace(std::move(returned)); }
	T take()
	{
		if (exception)
			std::rethrow_exception(exception);
		return std::move(*value);
	}

	std::optional<T> value;
};

template <> struct Promise<void> : PromiseBase {
	std::coroutine_handle<Promise> get_return_object() noexcept
	{
		return std::coroutine_handle<Promise>::from_promise(*this);
	}
	void return_void() const noexcept {}
	void take() const
	{
		if (exception)
			std::rethrow_exception(exception);
	}
};

/// A call that a coroutine waits for. It is where it is made until it ends.
class Exchange {
public:
	Exchange(RingTransport *ring, Transport &transport, std::uint32_t method, const Writer &args,
		 std::span<std::byte> reply, std::span<const std::byte> &found, std::uint64_t timeout_ns) noexcept
		: ring_(ring), transport_(transport), method_(method), args_(args), reply_(reply), found_(found),
		  timeout_ns_(timeout_ns)
	{
	}
	Exchange(const Exchange &) = delete;
	Exchange &operator=(const Exchange &) = delete;
	~Exchange();

	bool await_ready();
	void await_suspend(std::coroutine_handle<> waiter) noexcept;
	int await_resume() noexcept
	{
		if (!error_ && bytes_ > reply_.size())
			error_ = -EPROTO;
		if (!error_)
			found_ = reply_.first(bytes_);
		return error_;
	}

private:
	friend orbit::Loop;
	enum class At { no, waits_for_slot, under_way };

	// Whether it is under way, or has ended with an error.
	bool start();
	void finish() { error_ = ring_->finish(ticket_, reply_, &bytes_, 0), at_ = At::no; }

	RingTransport *ring_;
	Transport &transport_;
	std::uint32_t method_;
	const Writer &args_;
	std::span<std::byte> reply_;
	std::span<const std::byte> &found_;
	std::uint64_t timeout_ns_;
	std::size_t bytes_ = 0;
	std::chrono::steady_clock::time_point deadline_{}; // as soon as the loop has nothing to do
	Loop *loop_ = nullptr;
	std::coroutine_handle<> waiter_;
	RingTicket ticket_{};
	At at_ = At::no;
	int error_ = 0;
};

} // namespace isolation

/// A coroutine that begins when it is awaited, or given to a loop. What it gets by reference has to be there until it
/// ends: so await it in the expression that makes it, or keep what it refers to. To destroy it while it waits abandons
/// its call. An exception that leaves it comes out where it is awaited.
template <class T = void> class [[nodiscard]] task {
public:
	using promise_type = isolation::Promise<T>;

	task(std::coroutine_handle<promise_type> coroutine) noexcept : coroutine_(coroutine) {}
	task(task &&other) noexcept : coroutine_(std::exchange(other.coroutine_, nullptr)) {}
	task &operator=(task &&other) noexcept
	{
		std::swap(coroutine_, other.coroutine_);
		return *this;
	}
	~task()
	{
		if (coroutine_)
			coroutine_.destroy();
	}

	bool done() const noexcept { return coroutine_.done(); }

	bool await_ready() const noexcept { return false; }
	std::coroutine_handle<> await_suspend(std::coroutine_handle<> waiter) const noexcept
	{
		coroutine_.promise().continuation = waiter.address();
		return coroutine_;
	}
	T await_resume() const { return coroutine_.promise().take(); }

private:
	friend Loop;

	// Until it waits.
	void begin() const
	{
		coroutine_.promise().continuation = std::noop_coroutine().address();
		coroutine_.resume();
	}

	std::coroutine_handle<promise_type> coroutine_;
};

/// Where coroutines of one thread wait for replies. They are to wait for nothing but calls and tasks. When no
/// reply is there for a while, the loop sleeps until the oldest call has one; others' are seen a millisecond later at the
/// latest.
class Loop {
public:
	Loop() = default;
	Loop(const Loop &) = delete;
	Loop &operator=(const Loop &) = delete;

	/// Runs a task until it waits; run() does the rest.
	void spawn(task<void> one)
	{
		const Inside inside(*this);

		one.begin();
		spawned_.push_back(std::move(one));
	}

	/// Until all tasks have ended. What one of them has thrown comes out here.
	void run()
	{
		const Inside inside(*this);

		while (!spawned_.empty()) {
			if (!spawned_.back().done()) {
				step();
				continue;
			}
			const task<void> ended = std::move(spawned_.back());
			spawned_.pop_back();
			ended.await_resume();
		}
	}

	/// Until this task has ended; others go on meanwhile.
	template <class T> T run(const task<T> &one)
	{
		const Inside inside(*this);

		one.begin();
		while (!one.done())
			step();
		return one.await_resume();
	}

	/// Calls that coroutines wait for.
	std::size_t waiting() const noexcept { return waiting_.size(); }

private:
	friend isolation::Exchange;

	// That this thread runs it.
	class Inside {
	public:
		explicit Inside(Loop &loop) noexcept : before_(std::exchange(current_, &loop)) {}
		Inside(const Inside &) = delete;
		Inside &operator=(const Inside &) = delete;
		~Inside() { current_ = before_; }

	private:
		Loop *before_;
	};

	void step();
	void rest();
	void resume();
	void expire();

	static inline thread_local Loop *current_ = nullptr;

	// Before the tasks, whose ends take out of it.
	std::vector<isolation::Exchange *> waiting_;
	std::deque<isolation::Exchange *> ready_;
	std::vector<task<void>> spawned_;
	unsigned idle_ = 0, steps_ = 0;
};

namespace isolation {

/// What generated coroutines have in common.
class CoroutinesBase : protected CallerBase {
protected:
	CoroutinesBase(std::shared_ptr<Transport> transport, const Connection &connection) noexcept
		: CallerBase(std::move(transport), connection), ring_(dynamic_cast<RingTransport *>(transport_.get()))
	{
	}

	Exchange exchange_(std::uint32_t method, const Writer &args, std::span<std::byte> reply,
			   std::span<const std::byte> &found) const noexcept
	{
		return {ring_, *transport_, method, args, reply, found, timeout_ns_()};
	}

private:
	RingTransport *ring_;
};

} // namespace isolation
} // namespace orbit

#endif
