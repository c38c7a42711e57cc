// SPDX-License-Identifier: MIT
//
// What the code that orbit-idl(1) generates uses, and nobody else.
#ifndef ORBIT_STUBS_HPP
#define ORBIT_STUBS_HPP

#include <orbit/interface.hpp>

#include <algorithm>
#include <optional>

namespace orbit {

template <class T> class rref;

namespace isolation {

/// What all that calls has. Names end with an underscore, as no method's does.
class CallerBase {
protected:
	CallerBase(std::shared_ptr<Transport> transport, const Connection &connection) noexcept
		: connection_(connection), transport_(std::move(transport))
	{
	}

	std::uint64_t timeout_ns_() const noexcept
	{
		return static_cast<std::uint64_t>(std::max<std::int64_t>(connection_.timeout.count(), 0));
	}

	/// Why an argument cannot be passed: that there is nobody is more than what the heap says of it.
	int not_passed_(int error) const noexcept
	{
		const int down = transport_->down();

		return down ? down : error;
	}

	Connection connection_;
	std::shared_ptr<Transport> transport_;
};

/// What all proxies have.
class ProxyBase : protected CallerBase {
protected:
	using CallerBase::CallerBase;

	/// Sends a message, and finds the reply's bytes at the beginning of `reply`.
	int exchange_(std::uint32_t method, const Writer &args, std::span<std::byte> reply,
		      std::span<const std::byte> &found) const
	{
		std::size_t bytes = 0;

		if (!args.fits())
			return -EMSGSIZE;
		if (int error = transport_->call(method, args.written(), reply, &bytes, timeout_ns_()))
			return error;
		if (bytes > reply.size())
			return -EPROTO;
		found = reply.first(bytes);
		return 0;
	}
};

/// Copies a field, an array too.
template <class T> void assign(T &to, const T &from) noexcept
{
	static_assert(std::is_trivially_copyable_v<T>);
	std::memcpy(static_cast<void *>(&to), &from, sizeof(T));
}

/// An object of the caller's, for the length of a call.
template <class T> std::shared_ptr<T> not_owned(T &object)
{
	return std::shared_ptr<T>(std::shared_ptr<void>(), &object);
}

/// A way to an object that the other side has passed.
inline int accept(const Connection &connection, const Capability &capability, std::uint64_t type,
		  std::shared_ptr<Transport> *transport)
{
	return connection.capabilities ? connection.capabilities->accept(capability, type, transport) : -EOPNOTSUPP;
}

/// An object that is passed: for the length of a call, or if it was delivered until the other side lets go.
class Offering {
public:
	Offering(const Connection &connection, std::shared_ptr<Skeleton> object) : capabilities_(connection.capabilities)
	{
		error_ = capabilities_ ? capabilities_->offer(std::move(object), &capability_) : -EOPNOTSUPP;
		offered_ = !error_;
	}
	Offering(const Offering &) = delete;
	Offering &operator=(const Offering &) = delete;
	~Offering()
	{
		if (offered_)
			capabilities_->withdraw(capability_);
	}

	int error() const noexcept { return error_; }
	const Capability &capability() const noexcept { return capability_; }
	void delivered()
	{
		offered_ = false;
		capabilities_->delivered(capability_);
	}

private:
	Capabilities *capabilities_;
	Capability capability_{};
	int error_;
	bool offered_;
};

/// A buffer on its way: taken back if it was not delivered.
template <class T, class Heap = Endpoint> class Sending {
public:
	[[gnu::always_inline]] Sending(const Connection &connection, rref<T> &&buffer) : heap_(connection.endpoint), peer_(connection.peer)
	{
		if (!heap_)
			return;
		auto sent = heap_->send(std::move(buffer), peer_);
		if (!sent) {
			error_ = -sent.error().code();
			return;
		}
		handle_ = *sent;
		error_ = 0;
		sent_ = true;
	}
	Sending(const Sending &) = delete;
	Sending &operator=(const Sending &) = delete;
	~Sending()
	{
		if (sent_)
			(void)heap_->template take_back<T>(handle_, peer_);
	}

	int error() const noexcept { return error_; }
	const auto &handle() const noexcept { return handle_; }
	void delivered() noexcept { sent_ = false; }

private:
	using Handle = std::remove_cvref_t<decltype(*std::declval<Heap &>().send(std::declval<rref<T>>(), DomainId()))>;

	Heap *heap_;
	DomainId peer_;
	Handle handle_;
	int error_ = -EOPNOTSUPP;
	bool sent_ = false; // and not delivered
};

/// A buffer that the other side may read during a call.
template <class T, class Heap = Endpoint> class Lending {
public:
	Lending(const Connection &connection, const rref<T> &buffer) : heap_(connection.endpoint), peer_(connection.peer)
	{
		if (!heap_)
			return;
		auto lent = heap_->lend(buffer, peer_);
		error_ = lent ? 0 : -lent.error().code();
		if (lent)
			handle_.emplace(*lent);
	}
	Lending(const Lending &) = delete;
	Lending &operator=(const Lending &) = delete;
	~Lending()
	{
		if (handle_)
			(void)heap_->end_loan(*handle_, peer_);
	}

	int error() const noexcept { return error_; }
	const auto &handle() const noexcept { return *handle_; }

private:
	using Handle =
		std::remove_cvref_t<decltype(*std::declval<Heap &>().lend(std::declval<const rref<T> &>(), DomainId()))>;

	Heap *heap_;
	DomainId peer_;
	std::optional<Handle> handle_;
	int error_ = -EOPNOTSUPP;
};

/// The other side's buffer, during a call.
template <class T, class Heap = Endpoint> class Borrowing {
public:
	template <class Handle> Borrowing(const Connection &connection, const Handle &handle)
	{
		Heap *heap = connection.endpoint;

		if (!heap)
			return;
		auto borrowed = heap->template borrow<T>(handle, connection.peer);
		error_ = borrowed ? 0 : -borrowed.error().code();
		if (borrowed)
			borrowed_.emplace(std::move(*borrowed));
	}
	Borrowing(const Borrowing &) = delete;
	Borrowing &operator=(const Borrowing &) = delete;

	int error() const noexcept { return error_; }
	const rref<T> &get() const noexcept { return borrowed_->get(); }
	void end() noexcept { borrowed_.reset(); }

private:
	using Borrowed = std::remove_cvref_t<decltype(*std::declval<Heap &>().template borrow<T>(
		std::declval<std::remove_cvref_t<decltype(*std::declval<Heap &>().lend(std::declval<const rref<T> &>(),
											   DomainId()))>>(),
		DomainId()))>;

	std::optional<Borrowed> borrowed_;
	int error_ = -EOPNOTSUPP;
};

} // namespace isolation
} // namespace orbit

#endif
