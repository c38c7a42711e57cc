// SPDX-License-Identifier: MIT
//
// The C++20 layer over <orbit/orbit.h>: header-only, move-only types, errors as
// values.  Nothing here throws but std::bad_alloc, and what is said to.
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
//	orbit::require(targets->add(statistics));
//	auto task = audit->call_async({*pool}, [](const Index *i, Statistics *s) {
//		orbit::require(orbit::send(s, i->statistics()));
//	}, index, &statistics);
//	...
//	auto applied = task->apply_all(*targets);
//
// Containers in pools are in <orbit/memory.hpp>.
//
// Thread-safety is that of the C functions: any thread may use an object at any
// time, except while it is moved from or destroyed.
#ifndef ORBIT_ORBIT_HPP
#define ORBIT_ORBIT_HPP

#if !__has_include(<tl/expected.hpp>)
#error "<orbit/orbit.hpp> needs <tl/expected.hpp> (Debian: apt-get install libexpected-dev)"
#endif

#include <orbit/orbit.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cerrno>
#include <chrono>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <exception>
#include <functional>
#include <initializer_list>
#include <iterator>
#include <memory>
#include <mutex>
#include <new>
#include <optional>
#include <ranges>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

#include <tl/expected.hpp>

namespace orbit {

/// What went wrong: an error number and, if a call failed, its outcome.
class Error {
public:
	/// From a return value of the C functions (a negative errno value), and what they did.
	explicit Error(int negative_errno, orbit_step step = ORBIT_STEP_CALL) noexcept : step_(step)
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
		char text[512];
		if (step_ == ORBIT_STEP_CALL && cause() != ORBIT_CAUSE_NONE)
			orbit_describe(&outcome_, text, sizeof(text));
		else
			orbit_describe_error(code(), step_, text, sizeof(text));
		return text;
	}

private:
	orbit_outcome outcome_{};
	orbit_step step_ = ORBIT_STEP_CALL;
};

template <class T> using expected = tl::expected<T, Error>;

/// For what must not fail where it is called: throws tl::bad_expected_access<Error> if it
/// has. In a task that ends the orbit (SIGABRT), and none of the task's updates is applied:
///
///	orbit::require(set_price.send(item, price));
inline void require(const expected<void> &done)
{
	if (!done)
		throw tl::bad_expected_access<Error>(done.error());
}

class Pool;

/// A value that an orbit has made, and that nobody has looked at yet: a bug there may have
/// made it anything. It converts to nothing; one gets at it by saying what it must be.
///
///	orbit::expected<orbit::Untrusted<int>> row = audit->call(*pool, find, table);
///	if (const int *at = row ? row->in_range(0, 999) : nullptr) ...
///
/// The result of a call turns into one by its type, as above, or by orbit::untrusted().
/// A handler of an operation gets its arguments so by declaring them so.
template <class T> class [[nodiscard]] Untrusted {
public:
	Untrusted() = default;
	Untrusted(const T &value) noexcept(std::is_nothrow_copy_constructible_v<T>) : value_(value) {}

	/// The value if it passes the check, otherwise nullopt.
	template <class Check>
		requires std::is_invocable_r_v<bool, Check, const T &>
	std::optional<T> verify(Check &&check) const
	{
		const T copy = value_; // what is looked at is what is used

		return std::invoke(std::forward<Check>(check), copy) ? std::optional<T>(copy) : std::nullopt;
	}

	/// What a function makes of the value that is right for all there are: the way to
	/// clamp it, to look it up, to reject it.
	template <class Use> decltype(auto) copy_and_verify(Use &&use) const
	{
		return std::invoke(std::forward<Use>(use), T(value_));
	}

	/// The value if it is from `least` to `most`, otherwise nullptr. NaN is in no range.
	const T *in_range(const T &least, const T &most) const noexcept
		requires std::is_arithmetic_v<T>
	{
		return value_ >= least && value_ <= most ? &value_ : nullptr;
	}

	/// The pointer if what it points to lies within the pool, aligned, in so many
	/// objects; otherwise nullptr.
	T in(const Pool &pool, std::size_t count = 1) const noexcept
		requires std::is_object_v<std::remove_pointer_t<T>> && std::is_pointer_v<T>;

	/// The value as it is. Say why that is right where you use it.
	const T &unverified() const noexcept { return value_; }

private:
	T value_{};
};

/// The same for a result: `untrusted(audit->call(...))`.
template <class T> expected<Untrusted<T>> untrusted(expected<T> result)
{
	if (!result)
		return tl::unexpected(result.error());
	return Untrusted<T>(*result);
}

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
[[nodiscard]] inline Probe probe() noexcept
{
	Probe p{};

	p.size = sizeof(orbit_probe_info);
	p.error = -orbit_probe(&p);
	return p;
}

/// What may be chosen for a pool; see struct orbit_pool_options.
struct PoolOptions {
	const char *name = nullptr; ///< For people.
	void *address = nullptr;    ///< Where it shall lie: a page's beginning, free in all orbits.
	bool copy_on_fork = false;  ///< A forked child has a copy; without, nothing is there.
};

/// Memory that orbits may see. The main program uses it like any other memory;
/// what lies in it must refer to nothing but itself and other pools, for an orbit
/// sees the rest of memory as it was when the orbit was created.
class Pool {
public:
	/// Makes a pool of zeroes, rounded up to whole pages. Errors: as
	/// orbit_pool_create(). The name is for people.
	[[nodiscard]] static expected<Pool> create(std::size_t bytes, const char *name = nullptr) noexcept
	{
		return create(bytes, PoolOptions{.name = name});
	}

	/// The same, with what else may be chosen.
	[[nodiscard]] static expected<Pool> create(std::size_t bytes, const PoolOptions &chosen) noexcept
	{
		const orbit_pool_options options{.size = sizeof(options), .name = chosen.name,
						 .address = chosen.address,
						 .flags = chosen.copy_on_fork ? ORBIT_POOL_COPY_ON_FORK : 0};
		orbit_pool *raw = nullptr;

		if (int err = orbit_pool_create(&raw, bytes, &options))
			return tl::unexpected(Error(err, ORBIT_STEP_POOL));
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

template <class T>
T Untrusted<T>::in(const Pool &pool, std::size_t count) const noexcept
	requires std::is_object_v<std::remove_pointer_t<T>> && std::is_pointer_v<T>
{
	using Object = std::remove_pointer_t<T>;
	const auto at = reinterpret_cast<std::uintptr_t>(value_);
	const auto start = reinterpret_cast<std::uintptr_t>(pool.data());
	const bool fits = at >= start && at - start <= pool.size() &&
			  count <= (pool.size() - (at - start)) / sizeof(Object);

	return fits && at % alignof(Object) == 0 ? value_ : nullptr;
}

/// What an orbit may do with shared memory.
enum class Rights : std::uint32_t {
	none = ORBIT_RIGHTS_NONE,
	read = ORBIT_RIGHTS_READ,
	write = ORBIT_RIGHTS_WRITE, ///< Read and write.
};

/// Memory that the main program and the orbits that are given it, by Orbit::share() or
/// Options::grants, write to at the same time, at the same address. It is no pool: no
/// snapshot has it, and whatever lies there may change at any moment to anything. Copy, then
/// check, or use atomics.
class Shared {
public:
	/// Makes a region of zeroes, rounded up to whole pages. Errors: as
	/// orbit_shared_create(). The name is for people.
	[[nodiscard]] static expected<Shared> create(std::size_t bytes, const char *name = nullptr) noexcept
	{
		const orbit_shared_options options{.size = sizeof(options), .name = name, .flags = 0};
		orbit_shared *raw = nullptr;

		if (int err = orbit_shared_create(&raw, bytes, &options))
			return tl::unexpected(Error(err, ORBIT_STEP_SHARE));
		return Shared(raw);
	}

	std::byte *data() const noexcept { return static_cast<std::byte *>(orbit_shared_data(raw())); }

	/// In bytes.
	std::size_t size() const noexcept { return orbit_shared_size(raw()); }

	std::span<std::byte> span() const noexcept { return {data(), size()}; }

	/// The object of type T that lies at an offset in bytes; nullptr where none
	/// fits or it would be misaligned. An untouched region is all zeroes.
	template <class T> T *as(std::size_t offset = 0) const noexcept
	{
		static_assert(std::is_trivially_copyable_v<T>, "others may write anything there");
		if (offset > size() || size() - offset < sizeof(T) || offset % alignof(T))
			return nullptr;
		return std::launder(reinterpret_cast<T *>(data() + offset));
	}

	/// In a task that runs for long: have what is shared by now. Errors: as
	/// orbit_shared_renew().
	static expected<void> renew() noexcept
	{
		if (int err = orbit_shared_renew())
			return tl::unexpected(Error(err, ORBIT_STEP_SHARE));
		return {};
	}

	/// The C handle; stays owned by this object.
	orbit_shared *raw() const noexcept { return raw_.get(); }

private:
	struct Destroy {
		void operator()(orbit_shared *shared) const noexcept { orbit_shared_destroy(shared); }
	};

	explicit Shared(orbit_shared *raw) noexcept : raw_(raw) {}

	std::unique_ptr<orbit_shared, Destroy> raw_;
};

/// A region for an orbit that is made.
class Grant {
public:
	Grant(const Shared &shared, Rights rights) noexcept
		: raw_{shared.raw(), static_cast<std::uint32_t>(rights), 0}
	{
	}

private:
	orbit_grant raw_; // and nothing else: an array of these is one of those
};

static_assert(sizeof(Grant) == sizeof(orbit_grant) && std::is_standard_layout_v<Grant>);

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

	explicit PoolRange(const orbit_pool_range &raw) noexcept : raw_(raw) {}

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
	bool keep_threads = false;	 ///< Threads of a task may go on when it has returned.
	std::uint32_t queue_limit = 0;	 ///< Tasks that wait or run; 0: the default.
	std::uint32_t nr_files = 0;	 ///< Open descriptors, see orbit_options; 0: no limit.
	std::uint64_t memory_limit = 0;	 ///< Bytes beyond what it starts with; see orbit_options.
	std::uint64_t update_limit = 0;	 ///< Bytes of a task's updates; 0: the default.
	std::uint32_t cpu_percent = 0;	 ///< Of one CPU, for a task; 0: no limit.
	Inherit inherit = Inherit::all;
	std::span<const orbit_range> ranges{};	///< For Inherit::minimal: memory to have as well,
	std::span<const void *const> modules{}; ///< and an address in each further module.
	bool share = false;		 ///< Orbit::share() can be used; not needed with
	std::span<const Grant> grants{}; ///< what is shared from the beginning.
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

} // namespace detail

/// An argument whose elements travel, and not where they are; see copied().
template <class T> struct Copied {
	static_assert(std::is_trivially_copyable_v<T>, "orbit: elements that travel must be trivially copyable");

	std::span<const T> elements;
};
template <> struct Copied<char> {
	std::string_view elements;
};

/// For an argument of a call: has the elements themselves travel to the orbit, where the
/// function gets a std::span<const T>, or for text a std::string_view.
///
///	audit->call(*pool, find, orbit::copied(name), table);
template <class Range>
	requires std::ranges::contiguous_range<Range> && std::ranges::sized_range<Range> &&
		 (!std::is_convertible_v<Range, std::string_view>)
auto copied(const Range &range) noexcept
{
	using T = std::remove_cv_t<std::ranges::range_value_t<Range>>;

	if constexpr (std::is_same_v<T, char>)
		return Copied<char>{{std::ranges::data(range), std::ranges::size(range)}};
	else
		return Copied<T>{{std::ranges::data(range), std::ranges::size(range)}};
}
inline Copied<char> copied(std::string_view text) noexcept { return {text}; }

namespace detail {

// In the bytes there is the number of elements, and the elements follow behind all arguments.
struct Extent {
	std::uint64_t count;
};

// How an argument lies in the bytes, and what comes out of them.
template <class T> struct Carried {
	using Stored = T;
	using Seen = const T &;
	static constexpr bool varies = false;
	static const T &store(const T &value) noexcept { return value; }
};
template <> struct Carried<bool> {
	using Stored = bool;
	using Seen = bool;
	static constexpr bool varies = false;
	static bool store(bool value) noexcept { return value; }
};
template <class T> struct Carried<Copied<T>> {
	using Element = T;
	using Stored = Extent;
	using Seen = decltype(Copied<T>::elements);
	static constexpr bool varies = true;
	static Extent store(const Copied<T> &value) noexcept { return {value.elements.size()}; }
};

// What an operation takes: views of elements travel with them.
template <class T> struct OperationArgument {
	using Type = T;
};
template <> struct OperationArgument<std::string_view> {
	using Type = Copied<char>;
};
template <class T> struct OperationArgument<std::span<const T>> {
	using Type = Copied<T>;
};

constexpr std::size_t kTailAlignment = alignof(std::max_align_t);

constexpr std::size_t aligned(std::size_t at) noexcept
{
	return (at + kTailAlignment - 1) & ~(kTailAlignment - 1);
}

template <std::size_t I, class T, class... Rest> const auto &get(const Packed<T, Rest...> &packed) noexcept
{
	if constexpr (I == 0)
		return packed.head;
	else
		return get<I - 1>(packed.tail);
}

template <class... Ts> using Head = Packed<typename Carried<Ts>::Stored...>;

template <class... Ts> constexpr bool varies = (Carried<Ts>::varies || ...);

template <class... Ts> Head<Ts...> make_head(const Ts &...values) noexcept
{
	if constexpr (sizeof...(Ts) == 0)
		return {};
	else
		return pack<typename Carried<Ts>::Stored...>(Carried<Ts>::store(values)...);
}

/// The argument bytes of a call or an operation.
template <class... Ts> class Bytes {
public:
	explicit Bytes(const Ts &...values) noexcept
	{
		const Head<Ts...> head = make_head(values...);

		store(data_, &head, head);
	}

	const std::byte *data() const noexcept { return data_; }
	static constexpr std::size_t size() noexcept { return sizeof(data_); }

private:
	alignas(Head<Ts...>) std::byte data_[sizeof(Head<Ts...>)]{};
};

template <class... Ts>
	requires varies<Ts...>
class Bytes<Ts...> {
public:
	explicit Bytes(const Ts &...values) : bytes_(sizeof(Head<Ts...>))
	{
		const Head<Ts...> head = make_head(values...);

		store(bytes_.data(), &head, head);
		(append(values), ...);
	}

	const std::byte *data() const noexcept { return bytes_.data(); }
	std::size_t size() const noexcept { return bytes_.size(); }

private:
	template <class T> void append(const T &) noexcept {}
	template <class T> void append(const Copied<T> &value)
	{
		const auto *from = reinterpret_cast<const std::byte *>(value.elements.data());

		bytes_.resize(aligned(bytes_.size()));
		bytes_.insert(bytes_.end(), from, from + value.elements.size() * sizeof(T));
	}

	std::vector<std::byte> bytes_;
};

/// Argument bytes on the side that gets them. Nothing is believed before valid().
template <class... Ts> class Arguments {
public:
	Arguments(const void *data, std::size_t size) noexcept
		: bytes_(static_cast<const std::byte *>(data)), valid_(size >= sizeof(Head<Ts...>))
	{
		if constexpr (varies<Ts...>) {
			if (valid_)
				find(size, std::index_sequence_for<Ts...>());
		}
	}

	bool valid() const noexcept { return valid_; }

	template <std::size_t I> decltype(auto) get() const noexcept
	{
		using T = std::tuple_element_t<I, std::tuple<Ts...>>;
		using Stored = typename Carried<T>::Stored;
		using Seen = typename Carried<T>::Seen;
		const Stored &stored = detail::get<I>(head());

		if constexpr (Carried<T>::varies)
			return Seen(reinterpret_cast<const typename Carried<T>::Element *>(bytes_ + tails_[I]),
				    static_cast<std::size_t>(stored.count));
		else if constexpr (std::is_same_v<T, bool>)
			return *reinterpret_cast<const unsigned char *>(&stored) != 0;
		else
			return static_cast<Seen>(stored);
	}

private:
	const Head<Ts...> &head() const noexcept { return *reinterpret_cast<const Head<Ts...> *>(bytes_); }

	template <std::size_t... I> void find(std::size_t size, std::index_sequence<I...>) noexcept
	{
		std::size_t at = sizeof(Head<Ts...>);

		(find_one<I>(size, at), ...);
		valid_ = valid_ && at == size;
	}

	template <std::size_t I> void find_one(std::size_t size, std::size_t &at) noexcept
	{
		using T = std::tuple_element_t<I, std::tuple<Ts...>>;

		if constexpr (Carried<T>::varies) {
			const std::uint64_t count = detail::get<I>(head()).count;
			constexpr std::size_t each = sizeof(typename Carried<T>::Element);

			at = aligned(at);
			valid_ = valid_ && at <= size && count <= (size - at) / each;
			if (!valid_)
				return;
			tails_[I] = at;
			at += static_cast<std::size_t>(count) * each;
		}
	}

	const std::byte *bytes_;
	bool valid_;
	std::array<std::size_t, sizeof...(Ts)> tails_{};
};

/// A call's result that does not fit into its value travels as an operation of this number.
constexpr std::uint64_t kResult = ~std::uint64_t{1};

template <class R> constexpr bool is_large()
{
	if constexpr (std::is_void_v<R>)
		return false;
	else
		return sizeof(R) > sizeof(std::uint64_t);
}

template <class R, class F, class... Args, std::size_t... I>
R run(const Arguments<F, Args...> &arguments, std::index_sequence<I...>)
{
	return std::invoke(arguments.template get<0>(), arguments.template get<I + 1>()...);
}

/// What runs in the orbit. An exception that gets here ends the orbit: SIGABRT. For a large result
/// the value is the error number of sending it.
template <class R, class F, class... Args>
std::uint64_t entry(const void *arg, std::size_t size) noexcept
{
	const Arguments<F, Args...> arguments(arg, size);
	std::uint64_t value = 0;

	if constexpr (std::is_void_v<R>) {
		run<R>(arguments, std::index_sequence_for<Args...>());
	} else {
		const R result = run<R>(arguments, std::index_sequence_for<Args...>());

		if constexpr (is_large<R>())
			value = static_cast<std::uint64_t>(-orbit_send_operation(kResult, &result, sizeof(result)));
		else
			std::memcpy(&value, &result, sizeof(result));
	}
	return value;
}

template <class R> R from_bytes(const void *bytes)
{
	struct Value {
		alignas(R) std::byte bytes[sizeof(R)];
	} value;

	std::memcpy(value.bytes, bytes, sizeof(R));
	if constexpr (std::is_same_v<R, bool>)
		return value.bytes[0] != std::byte{0};
	else
		return std::bit_cast<R>(value);
}

template <class R> expected<R> decode(const orbit_outcome &outcome)
{
	if (outcome.error)
		return tl::unexpected(Error(outcome));
	if constexpr (std::is_void_v<R>)
		return {};
	else
		return from_bytes<R>(&outcome.value);
}

inline expected<void> check(int err, orbit_step step)
{
	if (err)
		return tl::unexpected(Error(err, step));
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
///	orbit::require(set_price.send(item, price));		// in a task
///	targets.add(set_price, [&](int item, double price) { ... });	// in the main program
///
/// Arguments of the types std::string_view and std::span<const T> travel with their
/// elements; in the main program they are valid until the handler returns.
///
///	constexpr orbit::Operation<int, std::string_view> rename{2};
template <class... Args> struct Operation {
	static_assert((std::is_trivially_copyable_v<Args> && ...),
		      "orbit: every argument of an operation must be trivially copyable");

	std::uint64_t id;

	/// In a task: propose it. Errors: as orbit_send_operation().
	[[nodiscard]] expected<void> send(const Args &...args) const
	{
		const detail::Bytes<typename detail::OperationArgument<Args>::Type...> bytes({args}...);

		return detail::check(orbit_send_operation(id, bytes.data(), bytes.size()), ORBIT_STEP_SEND);
	}
};

/// In a task: propose a value for an object of the main program. Errors: as
/// orbit_send_bytes().
template <class T> [[nodiscard]] expected<void> send(T *target, const std::type_identity_t<T> &value)
{
	static_assert(std::is_trivially_copyable_v<T>, "orbit: what is sent must be trivially copyable");
	return detail::check(orbit_send_bytes(target, &value, sizeof(value)), ORBIT_STEP_SEND);
}

/// In a task: propose bytes for the main program's memory.
[[nodiscard]] inline expected<void> send_bytes(void *target, std::span<const std::byte> bytes)
{
	return detail::check(orbit_send_bytes(target, bytes.data(), bytes.size()), ORBIT_STEP_SEND);
}

/// In a task: hand over the pages of a pool that it has written to, without a copy.
/// Errors: as orbit_send_pages().
[[nodiscard]] inline expected<void> send_pages(std::span<std::byte> pages)
{
	return detail::check(orbit_send_pages(pages.data(), pages.size()), ORBIT_STEP_SEND);
}

/// What updates may change. To be filled before updates are applied.
class Targets {
public:
	[[nodiscard]] static expected<Targets> create() noexcept
	{
		orbit_targets *raw = nullptr;

		if (int err = orbit_targets_create(&raw))
			return tl::unexpected(Error(err, ORBIT_STEP_TARGETS));
		return Targets(raw);
	}

	/// Declares an object. Errors: as orbit_targets_add_range().
	template <class T>
		requires(!std::ranges::range<T> && !std::is_same_v<std::remove_cv_t<T>, Pool>)
	[[nodiscard]] expected<void> add(T &object)
	{
		return add_objects(&object, 1);
	}

	/// Declares the elements of an array, a std::vector, a std::span.
	template <std::ranges::contiguous_range Range> [[nodiscard]] expected<void> add(Range &&range)
	{
		return add_objects(std::ranges::data(range), std::ranges::size(range));
	}

	/// Declares a whole pool.
	[[nodiscard]] expected<void> add(const Pool &pool) { return add(pool.span()); }

	/// Declares an operation. fn takes its arguments, which may have any values; it
	/// returns nothing, or 0 or a negative errno value. If it throws, it has failed:
	/// with ENOMEM by std::bad_alloc, otherwise with ECANCELED; what it had done by then
	/// stays done. Errors: as orbit_targets_add_operation().
	template <class... Args, class F> [[nodiscard]] expected<void> add(Operation<Args...> operation, F fn)
	{
		using Handler = Operator<F, typename detail::OperationArgument<Args>::Type...>;
		using Head = detail::Head<typename detail::OperationArgument<Args>::Type...>;
		static_assert(alignof(Head) <= alignof(std::max_align_t),
			      "orbit: arguments of an operation must not be over-aligned");
		constexpr bool varies = detail::varies<typename detail::OperationArgument<Args>::Type...>;
		auto handler = std::make_unique<Handler>(std::move(fn));
		const int err = orbit_targets_add_operation(raw(), operation.id, Handler::run,
							    handler.get(), sizeof(Head),
							    varies ? ORBIT_MAX_UPDATE : sizeof(Head));

		if (!err)
			handlers_.push_back(std::move(handler));
		return detail::check(err, ORBIT_STEP_TARGETS);
	}

	/// How many updates were refused so far.
	std::uint64_t refused() const noexcept { return orbit_targets_refused(raw()); }

	/// One of the last refused: 0 for the last. Errors: ENOENT.
	[[nodiscard]] expected<orbit_refusal> refusal(std::size_t back = 0) const noexcept
	{
		orbit_refusal refusal{};

		refusal.size = sizeof(refusal);
		if (int err = orbit_targets_refusal(raw(), back, &refusal))
			return tl::unexpected(Error(err, ORBIT_STEP_TARGETS));
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

		static int run(void *user, const void *args, std::size_t size) noexcept
		{
			const detail::Arguments<Args...> arguments(args, size);

			if (!arguments.valid())
				return -EINVAL;
			try {
				return call(static_cast<Operator *>(user)->fn, arguments,
					    std::index_sequence_for<Args...>());
			} catch (const std::bad_alloc &) {
				return -ENOMEM;
			} catch (...) {
				return -ECANCELED;
			}
		}

		template <std::size_t... I>
		static int call(F &fn, const detail::Arguments<Args...> &arguments, std::index_sequence<I...>)
		{
			using R = decltype(std::invoke(fn, arguments.template get<I>()...));

			if constexpr (std::is_void_v<R>) {
				std::invoke(fn, arguments.template get<I>()...);
				return 0;
			} else {
				return static_cast<int>(std::invoke(fn, arguments.template get<I>()...));
			}
		}

		F fn;
	};

	explicit Targets(orbit_targets *raw) noexcept : raw_(raw) {}

	template <class T> expected<void> add_objects(T *first, std::size_t count)
	{
		static_assert(std::is_trivially_copyable_v<T> && !std::is_const_v<T>,
			      "orbit: an update replaces bytes: what is declared must be trivially "
			      "copyable, and not const");
		return detail::check(orbit_targets_add_range(raw(), first, count * sizeof(T)), ORBIT_STEP_TARGETS);
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
	[[nodiscard]] expected<Applied> apply(Targets &targets, const ApplyOptions &options = {}) const
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
			return tl::unexpected(Error(err, ORBIT_STEP_APPLY));
		return applied;
	}

	const orbit_update &raw() const noexcept { return raw_; }

private:
	template <class R> friend class Task;
	friend class Updates;
	friend class Orbit;

	Update() noexcept { raw_.size = sizeof(raw_); }

	orbit_update raw_{};
};

namespace detail {

/// Where a task's updates come from.
template <class R> struct Source {
	static int receive(orbit_task *task, std::uint64_t deadline, orbit_update *out) noexcept
	{
		return orbit_task_receive(task, deadline, out);
	}
};

/// A large result is among them, and is kept out of the application's way.
template <class R>
	requires(is_large<R>())
struct Source<R> {
	int receive(orbit_task *task, std::uint64_t deadline, orbit_update *out)
	{
		if (held) {
			*out = *std::exchange(held, std::nullopt);
			return 0;
		}
		for (;;) {
			if (const int err = orbit_task_receive(task, deadline, out))
				return err;
			if (out->kind != ORBIT_UPDATE_OPERATION || out->target != kResult)
				return 0;
			if (out->length == sizeof(R))
				result = from_bytes<R>(out->data);
		}
	}

	/// Once the task has returned: the result. `sent` is what the task says about it.
	expected<R> take(orbit_task *task, std::uint64_t sent)
	{
		orbit_update update{};

		update.size = sizeof(update);
		if (!result && !sent) {
			const int err = receive(task, ORBIT_NO_WAIT, &update);

			if (!err)
				held = update;
			if (!result && err != -ENODATA)
				return tl::unexpected(Error(err ? err : -EBUSY));
		}
		if (result)
			return *result;
		// An orbit that says that it has sent it, and has not, is out of order.
		return tl::unexpected(Error(sent && sent < 4096 ? -static_cast<int>(sent) : -EPROTO));
	}

	std::optional<R> result;
	std::optional<orbit_update> held;
};

} // namespace detail

/// The updates of a task, to walk through once:
///
///	for (const orbit::Update &update : task.updates())
///		if (!update.apply(targets)) ...
class Updates {
public:
	class Iterator {
	public:
		explicit Iterator(Updates *updates) : updates_(updates) { updates_->receive(); }
		const Update &operator*() const noexcept { return updates_->update_; }
		Iterator &operator++()
		{
			updates_->receive();
			return *this;
		}
		bool operator==(std::default_sentinel_t) const noexcept { return updates_->err_; }

	private:
		Updates *updates_;
	};

	Iterator begin() { return Iterator(this); }
	std::default_sentinel_t end() const noexcept { return {}; }

	/// After the walk: whether it came to the end, or what kept it from that.
	[[nodiscard]] expected<void> complete() const 
	{
		return detail::check(err_ == -ENODATA ? 0 : err_, ORBIT_STEP_RECEIVE);
	}

private:
	template <class R> friend class Task;

	template <class Source>
	Updates(orbit_task *task, Source *source, std::uint64_t deadline) noexcept
		: task_(task), source_(source), receive_(&receive_from<Source>), deadline_(deadline)
	{
	}

	template <class Source>
	static int receive_from(void *source, orbit_task *task, std::uint64_t deadline, orbit_update *out)
	{
		return static_cast<Source *>(source)->receive(task, deadline, out);
	}

	void receive() { err_ = receive_(source_, task_, deadline_, &update_.raw_); }

	orbit_task *task_;
	void *source_;
	int (*receive_)(void *, orbit_task *, std::uint64_t, orbit_update *);
	std::uint64_t deadline_;
	Update update_;
	int err_ = 0;
};

/// A call that nobody has waited for yet. To destroy it lets the task go on, and drops
/// its outcome.
///
/// A result of more than 8 bytes comes behind the updates that the task has sent: receive
/// or apply those first, or wait() fails with EBUSY. Such a task is for one thread at a time.
template <class R> class [[nodiscard]] Task {
public:
	/// Waits for the value. Errors: as orbit_task_wait().
	[[nodiscard]] expected<R> wait() { return wait_until(0); }

	/// Waits for some time only; ETIME if the task has not ended by then.
	[[nodiscard]] expected<R> wait_for(std::chrono::nanoseconds timeout)
	{
		return wait_until(detail::deadline(timeout));
	}

	/// Whether it has ended.
	[[nodiscard]] bool ready() const noexcept { return orbit_task_wait(raw(), ORBIT_NO_WAIT, nullptr) != -ETIME; }

	/// Has it not run; one that runs only if the orbit may be killed. Errors: as
	/// orbit_task_cancel().
	[[nodiscard]] expected<void> cancel(bool if_running = false)
	{
		return detail::check(orbit_task_cancel(raw(), if_running ? ORBIT_CANCEL_RUNNING : 0), ORBIT_STEP_CALL);
	}

	/// The next update. Errors: ENODATA after the last one, else as
	/// orbit_task_receive().
	[[nodiscard]] expected<Update> receive(std::optional<std::chrono::nanoseconds> timeout = {})
	{
		Update update;

		if (int err = source_.receive(raw(), detail::deadline(timeout), &update.raw_))
			return tl::unexpected(Error(err, ORBIT_STEP_RECEIVE));
		return update;
	}

	/// All of them, to walk through. Valid as long as this object stays where it is.
	[[nodiscard]] Updates updates(std::optional<std::chrono::nanoseconds> timeout = {})
	{
		return Updates(raw(), &source_, detail::deadline(timeout));
	}

	/// Receives all updates and applies those that were declared.
	[[nodiscard]] expected<Applied> apply_all(Targets &targets,
				    std::optional<std::chrono::nanoseconds> timeout = {})
	{
		Applied applied{};

		applied.size = sizeof(applied);
		if constexpr (detail::is_large<R>()) {
			const std::uint64_t deadline = detail::deadline(timeout);
			Update update;

			for (;;) {
				const int err = source_.receive(raw(), deadline, &update.raw_);

				if (err == -ENODATA)
					return applied;
				if (err)
					return tl::unexpected(Error(err, ORBIT_STEP_RECEIVE));
				apply_one(update, targets, applied);
			}
		} else {
			if (int err = orbit_task_apply_all(raw(), detail::deadline(timeout), targets.raw(),
							   &applied))
				return tl::unexpected(Error(err, ORBIT_STEP_RECEIVE));
			return applied;
		}
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
		if constexpr (detail::is_large<R>()) {
			if (outcome.error)
				return tl::unexpected(Error(outcome));
			return source_.take(raw(), outcome.value);
		} else {
			return detail::decode<R>(outcome);
		}
	}

	static void apply_one(const Update &update, Targets &targets, Applied &sum)
	{
		Applied one{};

		one.size = sizeof(one);
		orbit_update_apply(&update.raw(), targets.raw(), nullptr, &one);
		sum.applied += one.applied;
		sum.refused += one.refused;
		sum.failed += one.failed;
		sum.pages += one.pages;
		sum.conflicts += one.conflicts;
	}

	std::unique_ptr<orbit_task, Destroy> raw_;
	[[no_unique_address]] detail::Source<R> source_;
};

/// Makes ready for orbits with Inherit::minimal; to be called early in main(). Errors:
/// as orbit_prepare().
[[nodiscard]] inline expected<void> prepare() noexcept
{
	return detail::check(orbit_prepare(), ORBIT_STEP_PREPARE);
}

/// Memory to scan, or to keep readable in a scan. Of a pool, in a task: `pool.span()` travels as an argument.
class ScanRange {
public:
	ScanRange(std::span<const std::byte> range) noexcept
		: raw_{const_cast<std::byte *>(range.data()), range.size()}
	{
	}
	ScanRange(std::span<std::byte> range) noexcept : raw_{range.data(), range.size()} {}
	ScanRange(const orbit_range &range) noexcept : raw_(range) {}

private:
	orbit_range raw_; // and nothing else: an array of these is one of those
};

static_assert(sizeof(ScanRange) == sizeof(orbit_range) && std::is_standard_layout_v<ScanRange>);

/// What may be chosen for a scan.
struct ScanOptions {
	std::size_t unit = 0;		   ///< In bytes, whole pages; no item crosses it. 0: a page.
	std::span<const ScanRange> keep{}; ///< Stays readable.
};

/// What a scan came to.
struct Scanned {
	std::uint64_t units = 0;     ///< That were looked at.
	std::uint64_t overtaken = 0; ///< Those that came out of order, because main was overwriting them.
};

/// In a task: calls fn(unit) for each unit of its snapshot in these ranges, and for each once, with a
/// std::span<const std::byte>. The scan is done with the unit when fn returns: a read of it raises SIGBUS later. In
/// exchange its old content need not be held when the main program overwrites it. fn returns nothing, or whether to go
/// on. What it throws ends the scan and is thrown here. Errors: ECANCELED if fn has ended it, else as orbit_scan().
///
///	auto sum = audit->call(*pool, [](std::span<std::byte> table) {
///		long total = 0;
///		orbit::scan(table, [&](std::span<const std::byte> page) { total += sum_of(page); });
///		return total;
///	}, pool->span());
template <class F>
	requires std::invocable<F &, std::span<const std::byte>>
expected<Scanned> scan(std::span<const ScanRange> ranges, F &&fn, const ScanOptions &options = {})
{
	struct Look {
		std::remove_reference_t<F> &fn;
		std::exception_ptr thrown;
	} look{fn, nullptr};
	const orbit_scan_options raw_options{
		.size = sizeof(raw_options),
		.flags = 0,
		.unit = options.unit,
		.keep = reinterpret_cast<const orbit_range *>(options.keep.data()),
		.nr_keep = options.keep.size(),
	};
	orbit_scanned scanned{};

	scanned.size = sizeof(scanned);

	const int err = orbit_scan(
		reinterpret_cast<const orbit_range *>(ranges.data()), ranges.size(),
		[](void *user, const void *unit, std::size_t size) {
			Look &at = *static_cast<Look *>(user);
			const std::span<const std::byte> bytes{static_cast<const std::byte *>(unit), size};

#if defined(__cpp_exceptions)
			try {
#endif
				if constexpr (std::is_void_v<std::invoke_result_t<F &, std::span<const std::byte>>>)
					std::invoke(at.fn, bytes);
				else if (!std::invoke(at.fn, bytes))
					return -ECANCELED;
#if defined(__cpp_exceptions)
			} catch (...) {
				at.thrown = std::current_exception();
				return -ECANCELED;
			}
#endif
			return 0;
		},
		&look, &raw_options, &scanned);

	if (look.thrown)
		std::rethrow_exception(look.thrown);
	if (err)
		return tl::unexpected(Error(err, ORBIT_STEP_SCAN));
	return Scanned{scanned.units, scanned.overtaken};
}

template <class F>
	requires std::invocable<F &, std::span<const std::byte>>
expected<Scanned> scan(const ScanRange &range, F &&fn, const ScanOptions &options = {})
{
	return scan(std::span(&range, 1), fn, options);
}

namespace detail {

// The pools of a query, each named once, and where its parts are.
class QueryRanges {
public:
	QueryRanges(const Pools &scanned, const Pools &points)
	{
		for (const orbit_pool_range &range : std::span(scanned.data(), scanned.size()))
			scan_.push_back(add(range));
		for (const orbit_pool_range &range : std::span(points.data(), points.size()))
			keep_.push_back(add(range));
		for (const orbit_pool_range &range : raw_)
			pools_.add(PoolRange(range));
	}

	const Pools &pools() const noexcept { return pools_; }
	const std::vector<orbit_range> &scan() const noexcept { return scan_; }
	const std::vector<orbit_range> &keep() const noexcept { return keep_; }

private:
	// A call names a pool once: so much of it that all parts are in.
	orbit_range add(const orbit_pool_range &range)
	{
		const std::uint64_t size = orbit_pool_size(range.pool);
		const std::uint64_t rest = range.offset < size ? size - range.offset : 0;
		const std::uint64_t length = range.length ? range.length : rest;
		const auto known = std::ranges::find(raw_, range.pool, &orbit_pool_range::pool);

		if (known == raw_.end()) {
			raw_.push_back(range);
			raw_.back().length = length;
		} else {
			const std::uint64_t end = std::max(known->offset + known->length, range.offset + length);

			known->offset = std::min(known->offset, range.offset);
			known->length = end - known->offset;
		}
		return {static_cast<std::byte *>(orbit_pool_data(range.pool)) + range.offset,
			static_cast<std::size_t>(length)};
	}

	std::vector<orbit_pool_range> raw_;
	std::vector<orbit_range> scan_, keep_;
	Pools pools_;
};

// What a query sends back.
template <class Payload> struct QueryResult {
	Payload payload;
	int error;
};

} // namespace detail

/// An address space of its own that runs tasks over snapshots of pools.
class Orbit {
public:
	/// Makes an orbit: a copy of the calling process, or of little of it. Errors: as
	/// orbit_create().
	[[nodiscard]] static expected<Orbit> create(const Options &options = {}) noexcept
	{
		const orbit_options raw_options{
			.size = sizeof(raw_options),
			.flags = (options.keep_core ? ORBIT_KEEP_CORE : 0) |
				 (options.restart ? ORBIT_RESTART : 0) |
				 (options.keep_threads ? ORBIT_KEEP_THREADS : 0) |
				 (options.share || !options.grants.empty() ? ORBIT_SHARE : 0),
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
			.grants = reinterpret_cast<const orbit_grant *>(options.grants.data()),
			.nr_grants = options.grants.size(),
		};
		orbit_handle *raw = nullptr;

		if (int err = orbit_create(&raw, &raw_options))
			return tl::unexpected(Error(err, ORBIT_STEP_CREATE));
		return Orbit(raw);
	}

	/// Runs fn(args...) in the orbit over a snapshot of the pools, and waits for
	/// its value. fn is a function, a lambda or another callable; its own bytes
	/// and those of the arguments travel to the orbit, so both must be trivially
	/// copyable, and what they point to must lie in a pool or have existed when
	/// the orbit was created. Beware of captures by reference: ORBIT_CHECK=1 in the
	/// environment tells of them. copied() has elements travel; a result of more than 8
	/// bytes does as an update does, and what else the task sends is lost.
	/// Errors: as orbit_call(); Error::outcome() says how the orbit ended.
	template <class F, class... Args>
	[[nodiscard]] auto call(const Pools &pools, F fn, Args... args)
	{
		return call(CallOptions{}, pools, fn, args...);
	}

	/// The same, with options for this call.
	template <class F, class... Args>
	[[nodiscard]] auto call(const CallOptions &options, const Pools &pools, F fn, Args... args)
	{
		using R = Result<F, Args...>;

		if constexpr (detail::is_large<R>()) {
			return call_large<R>(options, pools, fn, args...);
		} else {
			return call_small<R>(options, pools, fn, args...);
		}
	}

	/// The same for data under a lock, a std::mutex or the like, which is held while the
	/// snapshot is taken and not while the task runs.
	template <class Lock, class F, class... Args>
	[[nodiscard]] auto call_locked(Lock &lock, const Pools &pools, F fn, Args... args)
	{
		return call_locked(lock, CallOptions{}, pools, fn, args...);
	}

	template <class Lock, class F, class... Args>
	[[nodiscard]] auto call_locked(Lock &lock, const CallOptions &options, const Pools &pools, F fn, Args... args)
	{
		const std::uint64_t deadline = detail::deadline(options.timeout);
		auto task = [&] {
			const std::lock_guard guard(lock);

			return call_async(options, pools, fn, args...);
		}();
		using R = Result<F, Args...>;

		if (!task)
			return expected<R>(tl::unexpected(task.error()));
		return task->wait_until(deadline);
	}

	/// A query over what may be large and changes meanwhile, as KVell+ has it: calls map(payload, unit) in the
	/// orbit for each unit of the scan ranges, and for each once, as scan() does, and returns the payload.
	/// Point ranges are in the same snapshot, and readable all the time, also where they overlap scan ranges.
	/// Where both are in one pool, the snapshot has what lies between them, too, in the mode of the first.
	/// map takes a Payload & and a std::span<const std::byte>, and returns nothing, or whether to go
	/// on (ECANCELED). Map and payload travel: they must be trivially copyable. Errors: as call(), and
	/// scan().
	template <class Map, class Payload>
	[[nodiscard]] expected<Payload> olcp_query(Map map, Payload payload, const Pools &scan_ranges,
						   const Pools &point_ranges = {}, std::size_t unit = 0,
						   const CallOptions &options = {})
	{
		static_assert(std::is_invocable_v<const Map &, Payload &, std::span<const std::byte>>,
			      "orbit: the map takes a Payload & and a std::span<const std::byte>");
		const detail::QueryRanges ranges(scan_ranges, point_ranges);

		auto result = call(
			options, ranges.pools(),
			[](const Map &each, const Payload &initial, std::span<const orbit_range> scanned,
			   std::span<const orbit_range> kept, std::size_t bytes) {
				detail::QueryResult<Payload> found{initial, 0};
				const auto *all = reinterpret_cast<const ScanRange *>(scanned.data());
				const auto *keep = reinterpret_cast<const ScanRange *>(kept.data());
				const auto look = [&](std::span<const std::byte> part) {
					return std::invoke(each, found.payload, part);
				};
				const auto done = orbit::scan(std::span(all, scanned.size()), look,
							      {.unit = bytes, .keep = {keep, kept.size()}});

				found.error = done ? 0 : -done.error().code();
				return found;
			},
			map, payload, copied(ranges.scan()), copied(ranges.keep()), unit);

		if (!result)
			return tl::unexpected(result.error());
		if (result->error)
			return tl::unexpected(Error(result->error, ORBIT_STEP_SCAN));
		return result->payload;
	}

	/// The same without waiting: a Task<R> to wait for, R being what fn returns.
	template <class F, class... Args>
	[[nodiscard]] auto call_async(const Pools &pools, F fn, Args... args)
	{
		return call_async(CallOptions{}, pools, fn, args...);
	}

	template <class F, class... Args>
	[[nodiscard]] auto call_async(const CallOptions &options, const Pools &pools, F fn, Args... args)
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
	[[nodiscard]] expected<void> post(const Pools &pools, F fn, Args... args)
	{
		return post(CallOptions{}, pools, fn, args...);
	}

	template <class F, class... Args>
	[[nodiscard]] expected<void> post(const CallOptions &options, const Pools &pools, F fn, Args... args)
	{
		return detail::check(queue(options, pools, nullptr, fn, args...), ORBIT_STEP_CALL);
	}

	/// Cancels all tasks that wait, and the one that runs only if the orbit may be
	/// killed; tells how many. Errors: as orbit_cancel().
	[[nodiscard]] expected<std::uint64_t> cancel_all(bool if_running = false)
	{
		std::uint64_t cancelled = 0;

		if (int err = orbit_cancel(raw(), nullptr, nullptr, 0,
					   if_running ? ORBIT_CANCEL_RUNNING : 0, &cancelled))
			return tl::unexpected(Error(err));
		return cancelled;
	}

	/// Likewise those that were called with this function and these arguments.
	template <class F, class... Args>
	[[nodiscard]] expected<std::uint64_t> cancel_same(F fn, Args... args)
	{
		using R = Result<F, Args...>;
		const detail::Bytes<F, Args...> bytes(fn, args...);
		std::uint64_t cancelled = 0;

		if (int err = orbit_cancel(raw(), detail::entry<R, F, Args...>, bytes.data(), bytes.size(), 0,
					   &cancelled))
			return tl::unexpected(Error(err));
		return cancelled;
	}

	/// What its tasks may do with a region, from now on; for those that began before,
	/// see Shared::renew(). Errors: as orbit_share().
	[[nodiscard]] expected<void> share(const Shared &shared, Rights rights) const noexcept
	{
		return detail::check(orbit_share(raw(), shared.raw(), static_cast<std::uint32_t>(rights)),
				     ORBIT_STEP_SHARE);
	}

	/// Counters and state: see struct orbit_stat in <orbit/abi.h>.
	[[nodiscard]] expected<struct orbit_stat> stat() const noexcept
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
		static_assert(std::is_invocable_v<const F &, typename detail::Carried<Args>::Seen...>,
			      "orbit: the callable does not take these arguments (they arrive as "
			      "const values; a mutable lambda cannot be called)");
		using R = std::invoke_result_t<const F &, typename detail::Carried<Args>::Seen...>;
		static_assert(!std::is_reference_v<R>,
			      "orbit: a task cannot return a reference into its own memory");
		static_assert(std::is_void_v<R> || std::is_trivially_copyable_v<R>,
			      "orbit: the return type must be trivially copyable");
		static_assert(value_size<R>() <= ORBIT_MAX_UPDATE,
			      "orbit: the return type must not be larger than ORBIT_MAX_UPDATE bytes");
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

	template <class R, class F, class... Args>
	expected<R> call_small(const CallOptions &options, const Pools &pools, F fn, Args... args)
	{
		const detail::Bytes<F, Args...> bytes(fn, args...);
		const orbit_call_options raw_options = call_options(options, pools);
		orbit_outcome outcome{};

		outcome.size = sizeof(outcome);
		orbit_call(raw(), detail::entry<R, F, Args...>, bytes.data(), bytes.size(), &raw_options,
			   &outcome);
		return detail::decode<R>(outcome);
	}

	// It comes as an update does.
	template <class R, class F, class... Args>
	expected<R> call_large(const CallOptions &options, const Pools &pools, F fn, Args... args)
	{
		const std::uint64_t deadline = detail::deadline(options.timeout);
		auto task = call_async(options, pools, fn, args...);

		if (!task)
			return tl::unexpected(task.error());

		auto value = task->wait_until(deadline);

		// What else it sends is lost, as in any call that waits.
		while (!value && value.error().code() == EBUSY && task->receive())
			value = task->wait_until(deadline);
		return value;
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

		return orbit_call_async(raw(), detail::entry<R, F, Args...>, bytes.data(), bytes.size(),
					&raw_options, task);
	}

	std::unique_ptr<orbit_handle, Destroy> raw_;
};

} // namespace orbit

#endif // ORBIT_ORBIT_HPP
