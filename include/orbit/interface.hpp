// SPDX-License-Identifier: MIT
//
// What interfaces between domains are written with, and what the code needs that orbit-idl(1) generates from them.
//
//	class ORBIT_INTERFACE Counter {
//	public:
//		virtual ~Counter() = default;
//		virtual orbit::result<std::uint64_t> add(std::uint64_t n) = 0;
//	};
//
// Header-only. Errors are values; nothing here throws but std::bad_alloc.
#ifndef ORBIT_INTERFACE_HPP
#define ORBIT_INTERFACE_HPP

#if !__has_include(<tl/expected.hpp>)
#error "<orbit/interface.hpp> needs <tl/expected.hpp> (Debian: apt-get install libexpected-dev)"
#endif

#include <orbit/attributes.hpp>

#include <array>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <type_traits>
#include <utility>
#include <vector>

#include <tl/expected.hpp>

namespace orbit {

/// Why a call has no value: an errno value, and whose word that is.
class call_error {
public:
	/// A method's own error, a positive errno value up to 4095; what an implementation returns.
	explicit call_error(int code) noexcept : code_(code) {}

	/// An error of this side of the call, with words for people that are there as long as the program.
	/// No domain can make one: what comes from a domain is a method's error.
	call_error(int code, const char *what) noexcept : code_(code), what_(what) {}

	/// Positive.
	int code() const noexcept { return code_; }

	/// To compare with std::errc.
	std::error_code error_code() const noexcept { return {code_, std::generic_category()}; }

	/// Whether the method returned it: then the call itself has worked.
	bool from_method() const noexcept { return what_ == nullptr; }

	/// A sentence for people.
	std::string message() const
	{
		return (what_ ? std::string(what_) : std::string("the method failed")) + ": " + error_code().message();
	}

private:
	int code_;
	const char *what_ = nullptr;
};

/// What each method of an interface returns.
template <class T> using result = tl::expected<T, call_error>;

/// A method's own error, as in `return orbit::failed(ENOSPC);`.
inline tl::unexpected<call_error> failed(int code) noexcept
{
	return tl::unexpected(call_error(code));
}

namespace isolation {

class Endpoint; // what a domain holds of the shared heap
using DomainId = std::uint32_t;

/// Whether bytes that came from elsewhere are a value of T: generated for enums and structs. It looks at bytes,
/// for to look at a bool or an enum that is none is undefined.
template <class T> struct Check;

/// Of what the bytes, as many as there are, need no generated check.
template <class T> inline constexpr bool is_number = std::is_arithmetic_v<T> || std::is_same_v<T, std::byte>;

template <class T>
	requires is_number<T>
struct Check<T> {
	static bool bytes(const std::byte *at) noexcept
	{
		if constexpr (std::is_same_v<std::remove_cv_t<T>, bool>)
			return static_cast<unsigned char>(*at) <= 1;
		else
			return true;
	}
};

template <class T, std::size_t n> struct Check<T[n]> {
	static bool bytes(const std::byte *at) noexcept
	{
		for (std::size_t i = 0; i < n; i++)
			if (!Check<T>::bytes(at + i * sizeof(T)))
				return false;
		return true;
	}
};

template <class T, std::size_t n> struct Check<std::array<T, n>> : Check<T[n]> {};

/// Leaves a value's bytes where another domain can see them; not those of its padding, in which there may be
/// anything. Generated for structs that have some.
template <class T> struct Copy {
	using whole = void; // any number of them at once, too
	static void to(std::byte *at, const T &value) noexcept { std::memcpy(at, &value, sizeof(T)); }
};

template <class T, std::size_t n> struct Copy<T[n]> {
	static void to(std::byte *at, const T (&value)[n]) noexcept
	{
		for (std::size_t i = 0; i < n; i++)
			Copy<T>::to(at + i * sizeof(T), value[i]);
	}
};

template <class T, std::size_t n> struct Copy<std::array<T, n>> {
	static void to(std::byte *at, const std::array<T, n> &value) noexcept
	{
		for (std::size_t i = 0; i < n; i++)
			Copy<T>::to(at + i * sizeof(T), value[i]);
	}
};

/// What each message begins with.
struct Head {
	std::uint32_t type; ///< Of the method, with the layout of all that it takes and returns.
	std::int32_t error; ///< Of a reply: 0, or the method's error.
};

/// Where in a message the elements of a string or an array are.
struct Part {
	std::uint32_t offset; ///< In bytes, from the message's beginning.
	std::uint32_t length; ///< In elements.
};

/// Names an object that another domain may call. It is worth what the connection believes that it gave.
struct Capability {
	std::uint32_t index;
	std::uint32_t generation;
	std::uint64_t type; ///< Of the interface.
};

/// The caller's way to one object. Thread-safe.
class Transport {
public:
	virtual ~Transport() = default;

	/// Calls a method and waits for its reply, for `timeout_ns` at most. Returns 0, or a negative errno
	/// value that this side made. `reply` is memory that only this domain can write.
	virtual int call(std::uint32_t method, std::span<const std::byte> args, std::span<std::byte> reply,
			 std::size_t *reply_bytes, std::uint64_t timeout_ns) = 0;

	/// 0, or why nobody can be called now, a negative errno value: what call() would return. For who would otherwise
	/// learn no more than that a buffer cannot be moved to nobody.
	virtual int down() const noexcept { return 0; }
};

/// What is known of a method, and of an interface. Generated.
struct Method {
	const char *name;
	std::uint32_t type; ///< Its id, with the layout of all that it takes and returns.
	bool repeatable;    ///< To call it twice does what to call it once does.
};
struct Interface {
	const char *name; ///< With its namespace.
	std::uint64_t id;
	std::span<const Method> methods; ///< By their numbers, which begin with 1.
	std::size_t most_bytes;          ///< Of a message, or a reply.
	bool passes_objects = false;     ///< Whether a method takes or returns interfaces.

	/// For people; what is no method is "?".
	const char *method_name(std::uint32_t number) const noexcept
	{
		return number - 1 < methods.size() ? methods[number - 1].name : "?";
	}
};

/// What calls the implementation.
class Skeleton {
public:
	virtual ~Skeleton() = default;

	/// The interface's type id.
	virtual std::uint64_t interface_id() const noexcept = 0;

	/// Serves one call. `args` may be memory that others write meanwhile. Returns 0 if there is a reply, the
	/// method's error included; -ENOSYS for a method that there is not, -EPROTO for what is no message of this
	/// method, -EMSGSIZE if the reply does not fit, or what the heap or the connection refuses.
	virtual int dispatch(std::uint32_t method, std::span<const std::byte> args, std::span<std::byte> reply,
			     std::size_t *reply_bytes) = 0;
};

/// Objects that are passed over one connection. Thread-safe. All return 0 or a negative errno value.
class Capabilities {
public:
	virtual ~Capabilities() = default;

	/// Lets the other side call an object, until it has let go of it or withdraw().
	virtual int offer(std::shared_ptr<Skeleton> object, Capability *capability) = 0;

	/// When it returns no call of the object is under way, and none comes.
	virtual int withdraw(const Capability &capability) = 0;

	/// The other side has got an object to keep: it is there until that lets go of it, or ends.
	virtual void delivered(const Capability &) {}

	/// A way to an object that the other side offers; -EBADF or -ESTALE if it does not, -EPROTOTYPE if it is of
	/// another interface than `type`. The object is let go of with the last transport.
	virtual int accept(const Capability &capability, std::uint64_t type, std::shared_ptr<Transport> *transport) = 0;
};

struct DeviceCounters; // <orbit/call.hpp>

/// What a proxy or a skeleton knows of the other side; what it points to outlives both.
struct Connection {
	Capabilities *capabilities = nullptr;       ///< For interfaces as arguments; may be null without.
	Endpoint *endpoint = nullptr;               ///< For rrefs as arguments; may be null without.
	DomainId peer = 0;                          ///< The other side.
	std::chrono::nanoseconds timeout = std::chrono::seconds(1); ///< Of each call.
	DeviceCounters *counters = nullptr;         ///< In a domain that drives a device: for it to write.
};

/// An error of this side, from a negative errno value.
inline tl::unexpected<call_error> refused(int negative_errno, const char *what) noexcept
{
	return tl::unexpected(call_error(-negative_errno, what));
}

/// Copies what others may write meanwhile. The barrier keeps the compiler from reading it again.
inline void fetch(void *to, const std::byte *from, std::size_t bytes) noexcept
{
	if (bytes)
		std::memcpy(to, from, bytes);
	asm volatile("" ::: "memory");
}

/// A message's bytes: on the stack if there are few.
template <std::size_t n> class Buffer {
public:
	std::span<std::byte> bytes() noexcept
	{
		if constexpr (on_stack)
			return {bytes_.data(), n};
		else
			return {bytes_.get(), n};
	}

	Buffer()
	{
		if constexpr (!on_stack)
			bytes_ = std::make_unique_for_overwrite<std::byte[]>(n);
	}

private:
	static constexpr bool on_stack = n <= 8192;
	std::conditional_t<on_stack, std::array<std::byte, n>, std::unique_ptr<std::byte[]>> bytes_;
};

/// At most n elements of a message, in place: what a call takes from no heap need not be given back to it.
template <class T, std::size_t n> class InPlace {
public:
	using value_type = T;

	InPlace() noexcept {} // most are not used
	InPlace(const InPlace &) = delete;
	InPlace &operator=(const InPlace &) = delete;

	/// Elements that there were not are not set.
	void resize(std::size_t size) noexcept { size_ = size; }
	std::size_t size() const noexcept { return size_; }
	T *data() noexcept { return reinterpret_cast<T *>(bytes_); }
	T *begin() noexcept { return data(); }
	T *end() noexcept { return data() + size_; }

private:
	static_assert(std::is_trivially_copyable_v<T>);
	std::size_t size_ = 0;
	alignas(T) std::byte bytes_[n * sizeof(T)];
};

/// At most n elements: on the stack if they are few, as in Buffer.
template <class T, std::size_t n> using Elements = std::conditional_t<n * sizeof(T) <= 8192, InPlace<T, n>, std::vector<T>>;

/// Writes a message: a struct of fixed size, and behind it the elements of strings and arrays.
class Writer {
public:
	/// The struct begins as zeroes. `bytes` may be memory that others see.
	Writer(std::span<std::byte> bytes, std::size_t fixed, std::uint32_t type) noexcept
		: bytes_(bytes), used_(fixed), fits_(fixed <= bytes.size())
	{
		if (!fits_)
			return;
		std::memset(bytes_.data(), 0, fixed);
		put(offsetof(Head, type), type);
	}

	/// A field of the struct.
	template <class T> void put(std::size_t offset, const T &value) noexcept
	{
		if (fits_)
			Copy<T>::to(bytes_.data() + offset, value);
	}

	/// Elements, and in the struct's field where they are.
	template <class T> void put_elements(std::size_t offset, const T *elements, std::size_t n) noexcept
	{
		const std::size_t at = (used_ + 7) / 8 * 8;

		fits_ = fits_ && at <= bytes_.size() && n <= (bytes_.size() - at) / sizeof(T);
		if (!fits_)
			return;
		std::memset(bytes_.data() + used_, 0, at - used_);
		if constexpr (requires { typename Copy<T>::whole; }) {
			if (n)
				std::memcpy(bytes_.data() + at, elements, n * sizeof(T));
		} else {
			for (std::size_t i = 0; i < n; i++)
				Copy<T>::to(bytes_.data() + at + i * sizeof(T), elements[i]);
		}
		used_ = at + n * sizeof(T);
		put(offset, Part{static_cast<std::uint32_t>(at), static_cast<std::uint32_t>(n)});
	}

	bool fits() const noexcept { return fits_; }
	std::span<const std::byte> written() const noexcept { return bytes_.first(used_); }

private:
	std::span<std::byte> bytes_;
	std::size_t used_;
	bool fits_;
};

/// Reads a message that may be anything.
class Reader {
public:
	explicit Reader(std::span<const std::byte> bytes) noexcept : bytes_(bytes) {}

	/// Fetches the struct, and says whether it is one of this type with valid fields.
	template <class T> bool open(T &fixed, std::uint32_t type) noexcept
	{
		static_assert(std::is_trivially_copyable_v<T> && std::is_standard_layout_v<T>);
		if (bytes_.size() < sizeof(T))
			return false;
		auto *at = reinterpret_cast<std::byte *>(&fixed);
		fetch(at, bytes_.data(), sizeof(T));
		return fixed.head_.type == type && T::valid_(at);
	}

	/// Fetches elements to where they are looked at; false if they are not all there, or not valid.
	template <class C> bool elements(const Part &part, std::size_t most, std::size_t fixed, C &to)
	{
		using T = typename C::value_type;

		static_assert(std::is_trivially_copyable_v<T>);
		if (part.length > most || part.offset < fixed || part.offset > bytes_.size() ||
		    part.length > (bytes_.size() - part.offset) / sizeof(T))
			return false;
		if constexpr (std::is_same_v<C, std::vector<T>> && sizeof(T) <= 64) {
			// A few go by the stack: a vector would make them zeroes first.
			constexpr std::size_t few = 1024 / sizeof(T);

			if (part.length <= few) {
				InPlace<T, few> there;

				if (!fetch_elements(part, there))
					return false;
				to.assign(there.begin(), there.end());
				return true;
			}
		}
		return fetch_elements(part, to);
	}

private:
	template <class C> bool fetch_elements(const Part &part, C &to)
	{
		using T = typename C::value_type;

		to.resize(part.length);
		auto *at = reinterpret_cast<std::byte *>(to.data());
		fetch(at, bytes_.data() + part.offset, part.length * sizeof(T));
		if constexpr (!is_number<T>)
			for (std::size_t i = 0; i < part.length; i++)
				if (!Check<T>::bytes(at + i * sizeof(T)))
					return false;
		return true;
	}

	std::span<const std::byte> bytes_;
};

/// The reply to a call: its error if it has one, otherwise the struct is there.
template <class T> result<void> open_reply(std::span<const std::byte> bytes, T &fixed, std::uint32_t type) noexcept
{
	constexpr auto words = "what came back is no reply of this method";
	Head head;

	if (bytes.size() < sizeof(head))
		return refused(-EPROTO, words);
	std::memcpy(&head, bytes.data(), sizeof(head));
	if (head.type != type || head.error < 0 || head.error > 4095)
		return refused(-EPROTO, words);
	if (head.error)
		return failed(head.error);
	if (!Reader(bytes).open(fixed, type))
		return refused(-EPROTO, words);
	return {};
}

/// A method's error as the reply. What is no errno value becomes EINVAL.
inline int reply_error(std::span<std::byte> reply, std::size_t *reply_bytes, std::uint32_t type, int code) noexcept
{
	Writer out(reply, sizeof(Head), type);

	out.put(offsetof(Head, error), static_cast<std::int32_t>(code > 0 && code <= 4095 ? code : EINVAL));
	*reply_bytes = sizeof(Head);
	return out.fits() ? 0 : -EMSGSIZE;
}

} // namespace isolation
} // namespace orbit

#endif
