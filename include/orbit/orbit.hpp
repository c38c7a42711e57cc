// SPDX-License-Identifier: MIT
//
// The C++20 layer over <orbit/orbit.h>: header-only, move-only types, errors as
// values.  Nothing here throws but std::bad_alloc.
//
//	auto pool = orbit::Pool::create(1 << 20);
//	auto index = pool->construct<Index>();
//	auto audit = orbit::Orbit::create({.name = "audit"});
//	auto faults = audit->call({*pool}, [](const Index *i) { return i->count_faults(); }, index);
//	if (!faults)
//		std::cerr << faults.error().message() << '\n';
//
// Without waiting, and with updates that the task proposes and the program applies:
//
//	auto targets = orbit::Targets::create();
//	targets->add(statistics);
//	auto task = audit->call_async({*pool}, [](const Index *i, Statistics *s) {
//		orbit::send(s, i->statistics());
//	}, index, &statistics);
//	...
//	task->apply_all(*targets);
//
// Containers in pools are in <orbit/memory.hpp>.
//
// Thread-safety is that of the C functions: any thread may use an object at any
// time, except while it is moved from or destroyed.
#ifndef ORBIT_ORBIT_HPP
#define ORBIT_ORBIT_HPP

#include <orbit/orbit.h>

#include <array>
#include <bit>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <initializer_list>
#include <iterator>
#include <memory>
#include <new>
#include <optional>
#include <ranges>
#include <span>
#include <string>
#include <system_error>
#include <type_traits>
#include <utility>
#include <vector>

#include <tl/expected.hpp>

namespace orbit {

/// What went wrong: an error number and, if a call failed, its outcome.
class Error {
public:
	/// From a return value of the C functions (a negative errno value).
	explicit Error(int negative_errno) noexcept
	{
		outcome_.size = sizeof(outcome_);
		outcome_.error = negative_errno;
	}

	explicit Error(const orbit_outcome &outcome) noexcept : outcome_(outcome) {}

	/// The errno value, positive: ENOSYS, ECONNRESET, ETIMEDOUT, ...
	int code() const noexcept { return -outcome_.error; }

	/// The same, to compare with std::errc.
	std::error_code error_code() const noexcept { return {code(), std::generic_category()}; }

	/// Why the orbit ended, if it did.
	orbit_cause cause() const noexcept { return static_cast<orbit_cause>(outcome_.cause); }

	/// The signal that killed the orbit, or 0.
	int signal() const noexcept { return cause() == ORBIT_CAUSE_SIGNAL ? outcome_.code : 0; }

	/// The address whose access raised the signal, or 0.
	std::uintptr_t fault_address() const noexcept { return outcome_.fault_addr; }

	/// All there is to know.
	const orbit_outcome &outcome() const noexcept { return outcome_; }

	/// A sentence for people, such as "killed by signal 11 (SIGSEGV) at address 0x0".
	std::string message() const
	{
		char text[256];
		orbit_describe(&outcome_, text, sizeof(text));
		return text;
	}

private:
	orbit_outcome outcome_{};
};

template <class T> using expected = tl::expected<T, Error>;

/// Whether this is the process of an orbit.
inline bool inside() noexcept
{
	return orbit_inside();
}

/// What orbit_probe() found; `reason` and `advice` are sentences for people.
struct Probe : orbit_probe_info {
	int error = 0; ///< 0 if orbits work here, else a positive errno value.

	explicit operator bool() const noexcept { return error == 0; }
};

/// Says whether orbits work here, and if not, why. Safe on any kernel.
inline Probe probe() noexcept
{
	Probe p{};

	p.size = sizeof(orbit_probe_info);
	p.error = -orbit_probe(&p);
	return p;
}

/// Memory that orbits may see. The main program uses it like any other memory;
/// what lies in it must refer to nothing but itself and other pools, for an orbit
/// sees the rest of memory as it was when the orbit was created.
class Pool {
public:
	/// Makes a pool of zeroes, rounded up to whole pages. Errors: as
	/// orbit_pool_create(). The name is for people.
	static expected<Pool> create(std::size_t bytes, const char *name = nullptr) noexcept
	{
		const orbit_pool_options options{.size = sizeof(options), .name = name};
		orbit_pool *raw = nullptr;

		if (int err = orbit_pool_create(&raw, bytes, &options))
			return tl::unexpected(Error(err));
		return Pool(raw);
	}

	std::byte *data() const noexcept { return static_cast<std::byte *>(orbit_pool_data(raw())); }

	/// In bytes.
	std::size_t size() const noexcept { return orbit_pool_size(raw()); }

	/// The whole pool. A std::pmr::monotonic_buffer_resource takes it as it is.
	std::span<std::byte> span() const noexcept { return {data(), size()}; }

	/// The object of type T that lies at an offset in bytes; nullptr where none
	/// fits or it would be misaligned. An untouched pool is all zeroes.
	template <class T> T *as(std::size_t offset = 0) const noexcept
	{
		if (offset > size() || size() - offset < sizeof(T) || offset % alignof(T))
			return nullptr;
		return std::launder(reinterpret_cast<T *>(data() + offset));
	}

	/// Constructs a T at the pool's start. The pool does not destroy it.
	/// nullptr where none fits. Throws what the constructor throws.
	template <class T, class... Args> T *construct(Args &&...args) const
	{
		if (size() < sizeof(T))
			return nullptr;
		return std::construct_at(reinterpret_cast<T *>(data()), std::forward<Args>(args)...);
	}

	/// The C handle; stays owned by this object.
	orbit_pool *raw() const noexcept { return raw_.get(); }

private:
	struct Destroy {
		void operator()(orbit_pool *pool) const noexcept { orbit_pool_destroy(pool); }
	};

	explicit Pool(orbit_pool *raw) noexcept : raw_(raw) {}

	std::unique_ptr<orbit_pool, Destroy> raw_;
};

/// How a snapshot keeps what the main program changes.
enum class Mode : std::uint32_t {
	cow = ORBIT_SNAP_COW,		///< Copy what is changed too soon.
	copy = ORBIT_SNAP_COPY,		///< Copy at the call what has changed before.
	adaptive = ORBIT_SNAP_ADAPTIVE, ///< Whichever costs less, page by page.
	move = ORBIT_SNAP_MOVE,		///< Give the task the pages; zeroes are left.
};

/// A pool, or a part of one, for a task to see.
class PoolRange {
public:
	PoolRange(const Pool &pool, Mode mode = Mode::cow) noexcept : PoolRange(pool, 0, 0, mode) {}

	/// In bytes, multiples of the page size. Length 0: all from the offset on.
	PoolRange(const Pool &pool, std::size_t offset, std::size_t length,
		  Mode mode = Mode::cow) noexcept
		: raw_{pool.raw(), offset, length, static_cast<std::uint32_t>(mode), 0}
	{
	}

	const orbit_pool_range &raw() const noexcept { return raw_; }

private:
	orbit_pool_range raw_;
};

/// The pools that a task shall see: `{}`, `{a, b}`, `{{a, Mode::copy}, {b, 0, 4096}}`,
/// or filled with add(). The Pool objects must outlive the calls, and the tasks whose
/// updates are applied.
class Pools {
public:
	Pools() = default;
	Pools(const Pool &pool) { add(pool); }
	Pools(const PoolRange &range) { add(range); }
	Pools(std::initializer_list<PoolRange> ranges)
	{
		for (const PoolRange &range : ranges)
			add(range);
	}

	void add(const PoolRange &range)
	{
		if (size_ < few_.size()) {
			few_[size_] = range.raw();
		} else {
			if (more_.empty())
				more_.assign(few_.begin(), few_.end());
			more_.push_back(range.raw());
		}
		size_++;
	}
	const orbit_pool_range *data() const noexcept { return more_.empty() ? few_.data() : more_.data(); }
	std::size_t size() const noexcept { return size_; }

private:
	std::array<orbit_pool_range, 4> few_{}; // without an allocation
	std::vector<orbit_pool_range> more_;  // or all of them
	std::size_t size_ = 0;
};

/// What a call does about tasks that wait in the queue. "Same" ones have the same
/// function and argument bytes (of floating-point numbers, too, it is the bytes that
/// count); only replaceable ones are replaced.
enum class Waiting : std::uint64_t {
	keep = 0,
	skip_same = ORBIT_CALL_SKIP_SAME, ///< Do not call (EEXIST) if one waits.
	skip_any = ORBIT_CALL_SKIP_ANY,
	replace_same = ORBIT_CALL_REPLACE_SAME, ///< Cancel those that wait.
	replace_any = ORBIT_CALL_REPLACE_ANY,
};

/// What may be chosen for each call.
struct CallOptions {
	/// From the task's start; past it the orbit is killed (ETIMEDOUT). 0: none.
	std::chrono::nanoseconds time_limit{0};
	/// CPU time that the task may use; past it the orbit is killed. 0: no limit.
	std::chrono::nanoseconds cpu_limit{0};
	/// How long to wait, for room or for the outcome (ETIME); a task that is queued by
	/// then goes on, and its outcome is dropped.
	std::optional<std::chrono::nanoseconds> timeout{};
	Waiting waiting = Waiting::keep;
	bool wait_room = false;	  ///< While the queue is full (otherwise EAGAIN).
	bool replaceable = false; ///< Later calls may replace the task while it waits.
	bool retry = false;	  ///< If the orbit dies in the task, run it once more.
	bool stream = false;	  ///< Updates can be received while the task runs.
};

/// What an orbit has of the main program's memory.
enum class Inherit : std::uint32_t {
	all = ORBIT_INHERIT_ALL,	///< All, as by fork().
	minimal = ORBIT_INHERIT_MINIMAL, ///< Code, global variables, ranges; see prepare().
	little = minimal,		///< Its name until 0.1.
};

/// What may be chosen for an orbit.
struct Options {
	const char *name = nullptr;	 ///< For people; shorter than ORBIT_NAME_LEN.
	std::span<const int> keep_fds{}; ///< Descriptors to keep besides 0, 1, 2.
	bool keep_core = false;		 ///< A crash may leave a core file.
	bool restart = false;		 ///< After its end, the next task gets a fresh process.
	std::uint32_t queue_limit = 0;	 ///< Tasks that wait or run; 0: the default.
	std::uint32_t nr_files = 0;	 ///< Open descriptors, see orbit_options; 0: no limit.
	std::uint64_t memory_limit = 0;	 ///< Bytes beyond what it starts with; 0: no limit.
	std::uint64_t update_limit = 0;	 ///< Bytes of a task's updates; 0: the default.
	std::uint32_t cpu_percent = 0;	 ///< Of one CPU, for a task; 0: no limit.
	Inherit inherit = Inherit::all;
	std::span<const orbit_range> ranges{};	///< For Inherit::minimal: memory to have as well,
	std::span<const void *const> modules{}; ///< and an address in each further module.
};

namespace detail {

// std::tuple is not trivially copyable, so argument bytes are made of this.
template <class... Ts> struct Packed {};
template <class T, class... Rest> struct Packed<T, Rest...> {
	T head;
	[[no_unique_address]] Packed<Rest...> tail;
};

inline Packed<> pack() noexcept { return {}; }

template <class T, class... Rest>
Packed<T, Rest...> pack(const T &head, const Rest &...rest) noexcept
{
	return {head, pack(rest...)};
}

inline void store(std::byte *, const void *, const Packed<> &) noexcept {}

// Padding stays zero: what is the same call has the same bytes.
template <class T, class... Rest>
void store(std::byte *to, const void *whole, const Packed<T, Rest...> &from) noexcept
{
	if constexpr (!std::is_empty_v<T>) {
		std::remove_cv_t<T> copy = from.head;

#if defined(__has_builtin)
#if __has_builtin(__builtin_clear_padding)
		__builtin_clear_padding(&copy);
#endif
#endif
		std::memcpy(to + (reinterpret_cast<const std::byte *>(&from.head) -
				  static_cast<const std::byte *>(whole)),
			    &copy, sizeof(copy));
	}
	store(to, whole, from.tail);
}

/// The argument bytes of a call or an operation.
template <class... Ts> struct Bytes {
	explicit Bytes(const Ts &...values) noexcept
	{
		const Packed<Ts...> packed = pack(values...);

		store(data, &packed, packed);
	}

	alignas(Packed<Ts...>) std::byte data[sizeof(Packed<Ts...>)]{};
};

template <class R, class F, class... Done> R apply(const F &fn, const Packed<> &, const Done &...done)
{
	return std::invoke(fn, done...);
}

template <class R, class F, class T, class... Rest, class... Done>
R apply(const F &fn, const Packed<T, Rest...> &args, const Done &...done)
{
	return apply<R>(fn, args.tail, done..., args.head);
}

/// What runs in the orbit. An exception that gets here ends the orbit: SIGABRT.
template <class R, class F, class... Args>
std::uint64_t entry(const void *arg, std::size_t) noexcept
{
	const auto &packed = *static_cast<const Packed<F, Args...> *>(arg);
	std::uint64_t value = 0;

	if constexpr (std::is_void_v<R>) {
		apply<R>(packed.head, packed.tail);
	} else {
		const R result = apply<R>(packed.head, packed.tail);

		std::memcpy(&value, &result, sizeof(result));
	}
	return value;
}

template <class R> expected<R> decode(const orbit_outcome &outcome)
{
	if (outcome.error)
		return tl::unexpected(Error(outcome));
	if constexpr (std::is_void_v<R>) {
		return {};
	} else {
		struct Value {
			alignas(R) std::byte bytes[sizeof(R)];
		} value;

		std::memcpy(value.bytes, &outcome.value, sizeof(R));
		return std::bit_cast<R>(value);
	}
}

inline expected<void> check(int err)
{
	if (err)
		return tl::unexpected(Error(err));
	return {};
}

// A limit in the past is the shortest there is; 0 means none.
constexpr std::uint64_t nanoseconds(std::chrono::nanoseconds limit)
{
	return limit.count() < 0 ? 1 : static_cast<std::uint64_t>(limit.count());
}

inline std::uint64_t deadline(std::optional<std::chrono::nanoseconds> timeout) noexcept
{
	if (!timeout)
		return 0;
	return timeout->count() <= 0 ? ORBIT_NO_WAIT : orbit_deadline(nanoseconds(*timeout));
}

} // namespace detail

/// An operation that tasks may ask for; both sides know it by its number.
///
///	constexpr orbit::Operation<int, double> set_price{1};
///
///	set_price.send(item, price);				// in a task
///	targets.add(set_price, [&](int item, double price) { ... });	// in the main program
template <class... Args> struct Operation {
	static_assert((std::is_trivially_copyable_v<Args> && ...),
		      "orbit: every argument of an operation must be trivially copyable");

	std::uint64_t id;

	/// In a task: propose it. Errors: as orbit_send_operation().
	expected<void> send(const Args &...args) const
	{
		const detail::Bytes<Args...> bytes(args...);

		return detail::check(orbit_send_operation(id, bytes.data, sizeof(bytes.data)));
	}
};

/// In a task: propose a value for an object of the main program. Errors: as
/// orbit_send_bytes().
template <class T> expected<void> send(T *target, const std::type_identity_t<T> &value)
{
	static_assert(std::is_trivially_copyable_v<T>, "orbit: what is sent must be trivially copyable");
	return detail::check(orbit_send_bytes(target, &value, sizeof(value)));
}

/// In a task: propose bytes for the main program's memory.
inline expected<void> send_bytes(void *target, std::span<const std::byte> bytes)
{
	return detail::check(orbit_send_bytes(target, bytes.data(), bytes.size()));
}

/// In a task: hand over the pages of a pool that it has written to, without a copy.
/// Errors: as orbit_send_pages().
inline expected<void> send_pages(std::span<std::byte> pages)
{
	return detail::check(orbit_send_pages(pages.data(), pages.size()));
}

/// What updates may change. To be filled before updates are applied.
class Targets {
public:
	static expected<Targets> create() noexcept
	{
		orbit_targets *raw = nullptr;

		if (int err = orbit_targets_create(&raw))
			return tl::unexpected(Error(err));
		return Targets(raw);
	}

	/// Declares an object. Errors: as orbit_targets_add_range().
	template <class T>
		requires(!std::ranges::range<T> && !std::is_same_v<std::remove_cv_t<T>, Pool>)
	expected<void> add(T &object)
	{
		return add_objects(&object, 1);
	}

	/// Declares the elements of an array, a std::vector, a std::span.
	template <std::ranges::contiguous_range Range> expected<void> add(Range &&range)
	{
		return add_objects(std::ranges::data(range), std::ranges::size(range));
	}

	/// Declares a whole pool.
	expected<void> add(const Pool &pool) { return add(pool.span()); }

	/// Declares an operation. fn takes its arguments, which may have any values; it
	/// returns nothing, or 0 or a negative errno value, and must not throw.
	/// Errors: as orbit_targets_add_operation().
	template <class... Args, class F> expected<void> add(Operation<Args...> operation, F fn)
	{
		using Packed = detail::Packed<Args...>;
		using Handler = Operator<F, Args...>;
		static_assert(alignof(Packed) <= alignof(std::max_align_t),
			      "orbit: arguments of an operation must not be over-aligned");
		auto handler = std::make_unique<Handler>(std::move(fn));
		const int err = orbit_targets_add_operation(raw(), operation.id, Handler::run,
							    handler.get(), sizeof(Packed), sizeof(Packed));

		if (!err)
			handlers_.push_back(std::move(handler));
		return detail::check(err);
	}

	/// How many updates were refused so far.
	std::uint64_t refused() const noexcept { return orbit_targets_refused(raw()); }

	/// One of the last refused: 0 for the last. Errors: ENOENT.
	expected<orbit_refusal> refusal(std::size_t back = 0) const noexcept
	{
		orbit_refusal refusal{};

		refusal.size = sizeof(refusal);
		if (int err = orbit_targets_refusal(raw(), back, &refusal))
			return tl::unexpected(Error(err));
		return refusal;
	}

	/// The C handle; stays owned by this object.
	orbit_targets *raw() const noexcept { return raw_.get(); }

private:
	struct Destroy {
		void operator()(orbit_targets *targets) const noexcept { orbit_targets_destroy(targets); }
	};
	struct AnyOperator {
		virtual ~AnyOperator() = default;
	};
	template <class F, class... Args> struct Operator : AnyOperator {
		explicit Operator(F &&f) : fn(std::move(f)) {}

		static int run(void *user, const void *args, std::size_t) noexcept
		{
			const auto &packed = *static_cast<const detail::Packed<Args...> *>(args);
			F &fn = static_cast<Operator *>(user)->fn;
			const auto call = [&fn](const Args &...values) {
				using R = std::invoke_result_t<F &, const Args &...>;

				if constexpr (std::is_void_v<R>) {
					std::invoke(fn, values...);
					return 0;
				} else {
					return static_cast<int>(std::invoke(fn, values...));
				}
			};

			return detail::apply<int>(call, packed);
		}

		F fn;
	};

	explicit Targets(orbit_targets *raw) noexcept : raw_(raw) {}

	template <class T> expected<void> add_objects(T *first, std::size_t count)
	{
		static_assert(std::is_trivially_copyable_v<T> && !std::is_const_v<T>,
			      "orbit: an update replaces bytes: what is declared must be trivially "
			      "copyable, and not const");
		return detail::check(orbit_targets_add_range(raw(), first, count * sizeof(T)));
	}

	std::vector<std::unique_ptr<AnyOperator>> handlers_;
	std::unique_ptr<orbit_targets, Destroy> raw_;
};

/// What applying came to.
using Applied = orbit_applied;

/// How to apply an update; of use for pages. See struct orbit_apply_options.
struct ApplyOptions {
	bool force = false; ///< Also over what the main program has written since.
	std::size_t from = 0;
	std::size_t length = 0;
	const Pool *into = nullptr;
	std::size_t to = 0;
};

/// An update, as received; valid until the next one of its task is. A bug in the orbit
/// may have made any of it.
class Update {
public:
	orbit_update_kind kind() const noexcept { return static_cast<orbit_update_kind>(raw_.kind); }

	/// An address or an operation's number, as the orbit says.
	std::uint64_t target() const noexcept { return raw_.target; }

	std::span<const std::byte> bytes() const noexcept
	{
		return {static_cast<const std::byte *>(raw_.data), raw_.length};
	}

	/// By their offsets in the pool that they are from.
	std::span<const orbit_page_range> pages() const noexcept { return {raw_.pages, raw_.nr_pages}; }

	/// Does what it asks for, if that was declared. What conflicts with writes of the
	/// main program is left out and counted in `conflicts`. Errors: as
	/// orbit_update_apply(), but for EBUSY.
	expected<Applied> apply(Targets &targets, const ApplyOptions &options = {}) const
	{
		const orbit_apply_options raw_options{
			.size = sizeof(raw_options),
			.flags = options.force ? ORBIT_APPLY_FORCE : 0,
			.from = options.from,
			.length = options.length,
			.into = options.into ? options.into->raw() : nullptr,
			.to = options.to,
		};
		Applied applied{};

		applied.size = sizeof(applied);

		const int err = orbit_update_apply(&raw_, targets.raw(), &raw_options, &applied);

		if (err && !applied.conflicts)
			return tl::unexpected(Error(err));
		return applied;
	}

	const orbit_update &raw() const noexcept { return raw_; }

private:
	template <class R> friend class Task;
	friend class Updates;

	Update() noexcept { raw_.size = sizeof(raw_); }

	orbit_update raw_{};
};

/// The updates of a task, to walk through once:
///
///	for (const orbit::Update &update : task.updates())
///		update.apply(targets);
class Updates {
public:
	class Iterator {
	public:
		explicit Iterator(Updates *updates) noexcept : updates_(updates) { updates_->receive(); }
		const Update &operator*() const noexcept { return updates_->update_; }
		Iterator &operator++() noexcept
		{
			updates_->receive();
			return *this;
		}
		bool operator==(std::default_sentinel_t) const noexcept { return updates_->err_; }

	private:
		Updates *updates_;
	};

	Iterator begin() noexcept { return Iterator(this); }
	std::default_sentinel_t end() const noexcept { return {}; }

	/// After the walk: whether it came to the end, or what kept it from that.
	expected<void> complete() const { return detail::check(err_ == -ENODATA ? 0 : err_); }

private:
	template <class R> friend class Task;

	Updates(orbit_task *task, std::uint64_t deadline) noexcept : task_(task), deadline_(deadline) {}

	void receive() noexcept { err_ = orbit_task_receive(task_, deadline_, &update_.raw_); }

	orbit_task *task_;
	std::uint64_t deadline_;
	Update update_;
	int err_ = 0;
};

/// A call that nobody has waited for yet. To destroy it lets the task go on, and drops
/// its outcome.
template <class R> class Task {
public:
	/// Waits for the value. Errors: as orbit_task_wait().
	expected<R> wait() { return wait_until(0); }

	/// Waits for some time only; ETIME if the task has not ended by then.
	expected<R> wait_for(std::chrono::nanoseconds timeout)
	{
		return wait_until(detail::deadline(timeout));
	}

	/// Whether it has ended.
	bool ready() const noexcept { return orbit_task_wait(raw(), ORBIT_NO_WAIT, nullptr) != -ETIME; }

	/// Has it not run; one that runs only if the orbit may be killed. Errors: as
	/// orbit_task_cancel().
	expected<void> cancel(bool if_running = false)
	{
		return detail::check(orbit_task_cancel(raw(), if_running ? ORBIT_CANCEL_RUNNING : 0));
	}

	/// The next update. Errors: ENODATA after the last one, else as
	/// orbit_task_receive().
	expected<Update> receive(std::optional<std::chrono::nanoseconds> timeout = {})
	{
		Update update;

		if (int err = orbit_task_receive(raw(), detail::deadline(timeout), &update.raw_))
			return tl::unexpected(Error(err));
		return update;
	}

	/// All of them, to walk through.
	Updates updates(std::optional<std::chrono::nanoseconds> timeout = {})
	{
		return Updates(raw(), detail::deadline(timeout));
	}

	/// Receives all updates and applies those that were declared.
	expected<Applied> apply_all(Targets &targets,
				    std::optional<std::chrono::nanoseconds> timeout = {})
	{
		Applied applied{};

		applied.size = sizeof(applied);
		if (int err = orbit_task_apply_all(raw(), detail::deadline(timeout), targets.raw(),
						   &applied))
			return tl::unexpected(Error(err));
		return applied;
	}

	/// Its number in the orbit, from 1.
	std::uint64_t number() const noexcept { return orbit_task_number(raw()); }

	/// For poll(): POLLIN when receive() would not wait, POLLHUP once the task has
	/// ended. Not to be closed.
	int fd() const noexcept { return orbit_task_fd(raw()); }

	/// The C handle; stays owned by this object.
	orbit_task *raw() const noexcept { return raw_.get(); }

private:
	friend class Orbit;

	struct Destroy {
		void operator()(orbit_task *task) const noexcept { orbit_task_destroy(task); }
	};

	explicit Task(orbit_task *raw) noexcept : raw_(raw) {}

	expected<R> wait_until(std::uint64_t deadline)
	{
		orbit_outcome outcome{};

		outcome.size = sizeof(outcome);
		orbit_task_wait(raw(), deadline, &outcome);
		return detail::decode<R>(outcome);
	}

	std::unique_ptr<orbit_task, Destroy> raw_;
};

/// Makes ready for orbits with Inherit::minimal; to be called early in main(). Errors:
/// as orbit_prepare().
inline expected<void> prepare() noexcept
{
	return detail::check(orbit_prepare());
}

/// An address space of its own that runs tasks over snapshots of pools.
class Orbit {
public:
	/// Makes an orbit: a copy of the calling process, or of little of it. Errors: as
	/// orbit_create().
	static expected<Orbit> create(const Options &options = {}) noexcept
	{
		const orbit_options raw_options{
			.size = sizeof(raw_options),
			.flags = (options.keep_core ? ORBIT_KEEP_CORE : 0) |
				 (options.restart ? ORBIT_RESTART : 0),
			.name = options.name,
			.keep_fds = options.keep_fds.data(),
			.nr_keep_fds = options.keep_fds.size(),
			.queue_limit = options.queue_limit,
			.nr_files = options.nr_files,
			.memory_limit = options.memory_limit,
			.update_limit = options.update_limit,
			.cpu_percent = options.cpu_percent,
			.inherit = static_cast<std::uint32_t>(options.inherit),
			.ranges = options.ranges.data(),
			.nr_ranges = options.ranges.size(),
			.modules = options.modules.data(),
			.nr_modules = options.modules.size(),
		};
		orbit_handle *raw = nullptr;

		if (int err = orbit_create(&raw, &raw_options))
			return tl::unexpected(Error(err));
		return Orbit(raw);
	}

	/// Runs fn(args...) in the orbit over a snapshot of the pools, and waits for
	/// its value. fn is a function, a lambda or another callable; its own bytes
	/// and those of the arguments travel to the orbit, so both must be trivially
	/// copyable, and what they point to must lie in a pool or have existed when
	/// the orbit was created. Beware of captures by reference.
	/// Errors: as orbit_call(); Error::outcome() says how the orbit ended.
	template <class F, class... Args>
	auto call(const Pools &pools, F fn, Args... args)
	{
		return call(CallOptions{}, pools, fn, args...);
	}

	/// The same, with options for this call.
	template <class F, class... Args>
	auto call(const CallOptions &options, const Pools &pools, F fn, Args... args)
	{
		using R = Result<F, Args...>;

		const detail::Bytes<F, Args...> bytes(fn, args...);
		const orbit_call_options raw_options = call_options(options, pools);
		orbit_outcome outcome{};

		outcome.size = sizeof(outcome);
		orbit_call(raw(), detail::entry<R, F, Args...>, bytes.data, sizeof(bytes.data), &raw_options,
			   &outcome);
		return detail::decode<R>(outcome);
	}

	/// The same without waiting: a Task<R> to wait for, R being what fn returns.
	template <class F, class... Args>
	auto call_async(const Pools &pools, F fn, Args... args)
	{
		return call_async(CallOptions{}, pools, fn, args...);
	}

	template <class F, class... Args>
	auto call_async(const CallOptions &options, const Pools &pools, F fn, Args... args)
	{
		using R = Result<F, Args...>;
		orbit_task *task = nullptr;
		const int err = queue(options, pools, &task, fn, args...);

		if (err)
			return expected<Task<R>>(tl::unexpected(Error(err)));
		return expected<Task<R>>(Task<R>(task));
	}

	/// The same for a task whose outcome is not wanted.
	template <class F, class... Args>
	expected<void> post(const Pools &pools, F fn, Args... args)
	{
		return post(CallOptions{}, pools, fn, args...);
	}

	template <class F, class... Args>
	expected<void> post(const CallOptions &options, const Pools &pools, F fn, Args... args)
	{
		return detail::check(queue(options, pools, nullptr, fn, args...));
	}

	/// Cancels all tasks that wait, and the one that runs only if the orbit may be
	/// killed; tells how many. Errors: as orbit_cancel().
	expected<std::uint64_t> cancel_all(bool if_running = false)
	{
		std::uint64_t cancelled = 0;

		if (int err = orbit_cancel(raw(), nullptr, nullptr, 0,
					   if_running ? ORBIT_CANCEL_RUNNING : 0, &cancelled))
			return tl::unexpected(Error(err));
		return cancelled;
	}

	/// Likewise those that were called with this function and these arguments.
	template <class F, class... Args>
	expected<std::uint64_t> cancel_same(F fn, Args... args)
	{
		using R = Result<F, Args...>;
		const detail::Bytes<F, Args...> bytes(fn, args...);
		std::uint64_t cancelled = 0;

		if (int err = orbit_cancel(raw(), detail::entry<R, F, Args...>, bytes.data, sizeof(bytes.data), 0,
					   &cancelled))
			return tl::unexpected(Error(err));
		return cancelled;
	}

	/// Counters and state: see struct orbit_stat in <orbit/abi.h>.
	expected<struct orbit_stat> stat() const noexcept
	{
		struct orbit_stat st {};

		if (int err = orbit_get_stat(raw(), &st, sizeof(st)))
			return tl::unexpected(Error(err));
		return st;
	}

	/// For poll(): POLLOUT while it lives, POLLHUP once it is dead. Not to be closed.
	int fd() const noexcept { return orbit_fd(raw()); }

	/// The C handle; stays owned by this object.
	orbit_handle *raw() const noexcept { return raw_.get(); }

private:
	struct Destroy {
		void operator()(orbit_handle *orbit) const noexcept { orbit_destroy(orbit); }
	};

	explicit Orbit(orbit_handle *raw) noexcept : raw_(raw) {}

	// What fn returns, if it can be called in an orbit.
	template <class F, class... Args> static auto result()
	{
		static_assert(std::is_trivially_copyable_v<F>,
			      "orbit: the callable must be trivially copyable: capture nothing, "
			      "or only trivially copyable values");
		static_assert((std::is_trivially_copyable_v<Args> && ...),
			      "orbit: every argument must be trivially copyable; keep strings and "
			      "containers in a pool and pass a pointer to them");
		static_assert(std::is_invocable_v<const F &, const Args &...>,
			      "orbit: the callable does not take these arguments (they arrive as "
			      "const values; a mutable lambda cannot be called)");
		using R = std::invoke_result_t<const F &, const Args &...>;
		static_assert(!std::is_reference_v<R>,
			      "orbit: a task cannot return a reference into its own memory");
		static_assert(std::is_void_v<R> || std::is_trivially_copyable_v<R>,
			      "orbit: the return type must be trivially copyable");
		static_assert(std::is_void_v<R> || value_size<R>() <= sizeof(std::uint64_t),
			      "orbit: the return type must not be larger than 8 bytes");
		return std::type_identity<R>();
	}

	template <class F, class... Args>
	using Result = typename decltype(result<F, Args...>())::type;

	template <class R> static constexpr std::size_t value_size()
	{
		if constexpr (std::is_void_v<R>)
			return 0;
		else
			return sizeof(R);
	}

	static orbit_call_options call_options(const CallOptions &options, const Pools &pools) noexcept
	{
		return {
			.size = sizeof(orbit_call_options),
			.flags = static_cast<std::uint64_t>(options.waiting) |
				 (options.wait_room ? ORBIT_CALL_WAIT_ROOM : 0) |
				 (options.replaceable ? ORBIT_CALL_REPLACEABLE : 0) |
				 (options.retry ? ORBIT_CALL_RETRY : 0) |
				 (options.stream ? ORBIT_CALL_STREAM : 0),
			.pools = nullptr,
			.nr_pools = 0,
			.time_limit_ns = detail::nanoseconds(options.time_limit),
			.resume = 0,
			.ranges = pools.data(),
			.nr_ranges = pools.size(),
			.deadline_ns = detail::deadline(options.timeout),
			.cpu_limit_ns = detail::nanoseconds(options.cpu_limit),
		};
	}

	template <class F, class... Args>
	int queue(const CallOptions &options, const Pools &pools, orbit_task **task, F fn, Args... args)
	{
		using R = Result<F, Args...>;
		const detail::Bytes<F, Args...> bytes(fn, args...);
		const orbit_call_options raw_options = call_options(options, pools);

		return orbit_call_async(raw(), detail::entry<R, F, Args...>, bytes.data, sizeof(bytes.data),
					&raw_options, task);
	}

	std::unique_ptr<orbit_handle, Destroy> raw_;
};

} // namespace orbit

#endif // ORBIT_ORBIT_HPP
