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
// Thread-safety is that of the C functions: any thread may use an object at any
// time, except while it is moved from or destroyed.
#ifndef ORBIT_ORBIT_HPP
#define ORBIT_ORBIT_HPP

#include <orbit/orbit.h>

#include <bit>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <initializer_list>
#include <memory>
#include <new>
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

/// The pools that a task shall see: `{}`, `{a, b}`, or filled with add(). The
/// Pool objects must outlive the calls.
class Pools {
public:
	Pools() = default;
	Pools(const Pool &pool) : raw_{pool.raw()} {}
	Pools(std::initializer_list<std::reference_wrapper<const Pool>> pools)
	{
		raw_.reserve(pools.size());
		for (const Pool &pool : pools)
			add(pool);
	}

	void add(const Pool &pool) { raw_.push_back(pool.raw()); }
	orbit_pool *const *data() const noexcept { return raw_.data(); }
	std::size_t size() const noexcept { return raw_.size(); }

private:
	std::vector<orbit_pool *> raw_;
};

/// What may be chosen for each call.
struct CallOptions {
	/// From the task's start; past it the orbit is killed (ETIMEDOUT). 0: none.
	std::chrono::nanoseconds time_limit{0};
};

/// What may be chosen for an orbit.
struct Options {
	const char *name = nullptr;	 ///< For people; shorter than ORBIT_NAME_LEN.
	std::span<const int> keep_fds{}; ///< Descriptors to keep besides 0, 1, 2.
	bool keep_core = false;		 ///< A crash may leave a core file.
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

} // namespace detail

/// An address space of its own that runs tasks over snapshots of pools.
class Orbit {
public:
	/// Makes an orbit: a copy of the calling process. Errors: as orbit_create().
	static expected<Orbit> create(const Options &options = {}) noexcept
	{
		const orbit_options raw_options{
			.size = sizeof(raw_options),
			.flags = options.keep_core ? ORBIT_KEEP_CORE : 0,
			.name = options.name,
			.keep_fds = options.keep_fds.data(),
			.nr_keep_fds = options.keep_fds.size(),
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

		const auto packed = detail::pack(fn, args...);
		const orbit_call_options raw_options{
			.size = sizeof(raw_options),
			.flags = 0,
			.pools = pools.data(),
			.nr_pools = pools.size(),
			.time_limit_ns = nanoseconds(options.time_limit),
			.resume = 0,
		};
		orbit_outcome outcome{};

		outcome.size = sizeof(outcome);
		if (orbit_call(raw(), detail::entry<R, F, Args...>, &packed, sizeof(packed),
			       &raw_options, &outcome))
			return expected<R>(tl::unexpected(Error(outcome)));
		if constexpr (std::is_void_v<R>) {
			return expected<R>();
		} else {
			struct Value {
				alignas(R) std::byte bytes[sizeof(R)];
			} value;

			std::memcpy(value.bytes, &outcome.value, sizeof(R));
			return expected<R>(std::bit_cast<R>(value));
		}
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

	template <class R> static constexpr std::size_t value_size()
	{
		if constexpr (std::is_void_v<R>)
			return 0;
		else
			return sizeof(R);
	}

	// A limit in the past is the shortest there is; 0 means none.
	static constexpr std::uint64_t nanoseconds(std::chrono::nanoseconds limit)
	{
		return limit.count() < 0 ? 1 : static_cast<std::uint64_t>(limit.count());
	}

	std::unique_ptr<orbit_handle, Destroy> raw_;
};

} // namespace orbit

#endif // ORBIT_ORBIT_HPP
