// SPDX-License-Identifier: MIT
//
// Typed buffers in memory that domains share: each is owned by one domain, and moved or lent by a call.
//
//	auto block = endpoint->make<Block>(zone);			// result<rref<Block>>
//	auto sent = endpoint->send(std::move(*block), disk);		// result<Handle>, for a message; *block is empty
//	...
//	auto received = endpoint->receive<Block>(handle, main);	// in the other domain
//
// Calls through generated proxies send and receive by themselves. The memory, who has part in it, and how records
// are kept is in <orbit/zone.hpp>; types that may be in it in <orbit/exchangeable.hpp>. What is made of rref here
// links with liborbit-isolation.a.
//
// What a buffer holds is in memory that other members of its zone can write, if they are mad, whoever owns it:
// fetch() what you have to rely on.
//
// Thread-safety: an Endpoint may be used by any threads, an rref by one at a time.
#ifndef ORBIT_RREF_HPP
#define ORBIT_RREF_HPP

#include <orbit/exchangeable.hpp>
#include <orbit/zone.hpp>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <new>
#include <span>
#include <type_traits>
#include <utility>

namespace orbit {

template <class T> class borrowed;

/// A buffer that this domain owns, with one object of type T, or for T[] several, as many as were asked for. Empty
/// after a move, and when made without a buffer. Its end gives the buffer back; if it is lent then, when the loan
/// ends. It must not outlive its Endpoint.
template <class T> class rref {
	using Element = std::remove_extent_t<T>;
	static_assert(std::is_same_v<Element, std::remove_cv_t<Element>>, "what is in an rref is not const");
	static_assert(isolation::require_exchangeable<Element>());
	static_assert(alignof(Element) <= isolation::granule_bytes, "aligned to 64 bytes at most");
	static_assert(sizeof(Element) <= UINT32_MAX, "less than 4 GiB each");

public:
	rref() = default;
	rref(rref &&other) noexcept
		: data_(std::exchange(other.data_, nullptr)), view_(other.view_), word_(other.word_), count_(other.count_)
	{
	}
	rref &operator=(rref &&other) noexcept
	{
		if (this != &other) {
			reset();
			data_ = std::exchange(other.data_, nullptr);
			view_ = other.view_;
			word_ = other.word_;
			count_ = other.count_;
		}
		return *this;
	}
	~rref() { reset(); }

	explicit operator bool() const noexcept { return data_ != nullptr; }

	/// Gives the buffer back.
	void reset() noexcept
	{
		if (!data_)
			return;
		if (is_borrowed())
			view_->room->end_borrow(*view_, granule(), word_.serial());
		else
			view_->room->drop(*view_, granule(), word_.serial(), bytes());
		data_ = nullptr;
	}

	/// The object. An empty rref has none: as with a null pointer, the access is a crash.
	Element &operator*() noexcept
		requires(!std::is_array_v<T>)
	{
		return *data_;
	}
	const Element &operator*() const noexcept
		requires(!std::is_array_v<T>)
	{
		return *data_;
	}
	Element *operator->() noexcept
		requires(!std::is_array_v<T>)
	{
		return data_;
	}
	const Element *operator->() const noexcept
		requires(!std::is_array_v<T>)
	{
		return data_;
	}

	/// Of an array: its elements, none if it is empty. Their number is in private memory.
	std::span<Element> elements() noexcept { return {data_, size()}; }
	std::span<const Element> elements() const noexcept { return {data_, size()}; }
	std::size_t size() const noexcept { return data_ ? std::uint32_t{count_} : 0; }
	Element &operator[](std::size_t i) noexcept
		requires std::is_array_v<T>
	{
		return data_[i];
	}
	const Element &operator[](std::size_t i) const noexcept
		requires std::is_array_v<T>
	{
		return data_[i];
	}

	/// A copy of an object in private memory, fetched once and then checked: EBADMSG if it is no value of its type
	/// (a bool that is neither, an enum without that value). ERANGE if it is not there.
	result<Element> fetch(std::size_t i = 0) const
	{
		alignas(Element) std::byte copy[sizeof(Element)];

		if (i >= size())
			return isolation::refused(-ERANGE, "the rref has no such element");
		isolation::fetch(copy, reinterpret_cast<const std::byte *>(data_ + i), sizeof(copy));
		if (!isolation::is_valid_at<Element>(copy))
			return isolation::refused(-EBADMSG, "what is in the buffer is no value of its type");
		Element element;
		std::memcpy(static_cast<void *>(&element), copy, sizeof(copy));
		return element;
	}

private:
	friend isolation::Endpoint;
	friend borrowed<const T>;

	bool is_borrowed() const noexcept { return word_.state() == isolation::State::borrowed; }
	std::size_t bytes() const noexcept { return count_ * sizeof(Element); }
	std::size_t offset() const noexcept
	{
		return static_cast<std::size_t>(reinterpret_cast<const std::byte *>(data_) - view_->data);
	}
	std::uint32_t granule() const noexcept { return static_cast<std::uint32_t>(offset() / isolation::granule_bytes); }

	// Of what is no array there is one, which takes no room.
	struct One {
		One() = default;
		constexpr One(std::uint32_t) noexcept {}
		constexpr operator std::uint32_t() const noexcept { return 1; }
	};

	Element *data_ = nullptr;
	isolation::View *view_ = nullptr;
	isolation::Word word_; // its record's, or that with whatever became of its links; if borrowed with the loan's entry
	[[no_unique_address]] std::conditional_t<std::is_array_v<T>, std::uint32_t, One> count_{};
};

/// A buffer that is lent to this domain, to read. Its end gives it back; to keep it longer than the call does not
/// work: the owner has it back then, whatever this says, and holds() is false.
template <class T> class borrowed<const T> {
public:
	borrowed(borrowed &&) noexcept = default;
	borrowed &operator=(borrowed &&) noexcept = default;

	/// As the parameter of a method; what one may lend on.
	const rref<T> &get() const noexcept { return rref_; }
	decltype(auto) operator*() const noexcept { return *rref_; }
	auto operator->() const noexcept { return rref_.operator->(); }

	/// Whether the loan is not over yet. It may be a moment later.
	bool holds() const noexcept;

private:
	friend isolation::Endpoint;
	explicit borrowed(rref<T> &&buffer) noexcept : rref_(std::move(buffer)) {}

	rref<T> rref_;
};

namespace isolation {

/// What one domain holds of the shared heap: its number, its records, the zones that it was given.
///
/// Errors have errno values. What is refused has changed nothing. From a handle: EBADF, there is no such buffer;
/// ESTALE, its owner has not given or lent it to this domain now (used already, taken back, over, forged);
/// EPROTOTYPE, another type; EACCES, no part in the zone; EOWNERDEAD, the other side has died, or has no part in it;
/// EINVAL, no such domain.
class Endpoint : public Room {
public:
	/// The endpoint of domain `self` of the heap in this memory, which must be mapped with the domain's rights
	/// (Heap::ranges()) as long as the endpoint is there. EINVAL: there is no heap, or it has no such domain.
	static result<std::unique_ptr<Endpoint>> attach(std::span<std::byte> memory, DomainId self)
	{
		std::unique_ptr<Endpoint> endpoint(new Endpoint);

		if (const int error = endpoint->Room::attach(memory, self))
			return refused(-error, "there is no heap with such a domain");
		return endpoint;
	}

	/// A buffer with a value-initialized object, or a copy of one. EACCES: no part in the zone; ENOSPC: full.
	template <class T> result<rref<T>> make(Zone zone, const T &value = T{})
	{
		auto buffer = allocate_for<T>(zone, 1);

		if (buffer) {
			// No bytes of its last user, and none of our stack in its padding.
			std::memset(static_cast<void *>(buffer->data_), 0, sizeof(T));
			copy_to(reinterpret_cast<std::byte *>(buffer->data_), value);
		}
		return buffer;
	}

	/// A buffer of `count` objects, zeroes. Also EINVAL: none, or 2^32 or more.
	template <class T> result<rref<T[]>> make_array(Zone zone, std::size_t count)
	{
		auto buffer = allocate_for<T[]>(zone, count);

		if (buffer)
			std::memset(static_cast<void *>(buffer->data_), 0, buffer->bytes());
		return buffer;
	}

	/// The same with whatever this domain's last buffer there had left.
	template <class T> result<rref<T[]>> make_array_for_overwrite(Zone zone, std::size_t count)
	{
		return allocate_for<T[]>(zone, count);
	}

	/// Ownership leaves, and the rref is empty. The handle goes to the other side by a message; see take_back()
	/// for one that cannot. Also EBUSY: it is lent; EACCES: the other side has no part in the zone, or is dead.
	template <class T> [[gnu::always_inline]] result<Handle> send(rref<T> &&buffer, DomainId to)
	{
		if (!buffer.data_ || buffer.view_->room != this || to >= max_domains || !going_[to]) [[unlikely]]
			return refused(-EINVAL, "an empty rref, one of another endpoint, or no such domain");
		View &view = *buffer.view_;
		const std::size_t offset = buffer.offset();
		// If it is borrowed its record has another word.
		const Word now{buffer.word_.bits + going_[to]};
		if (!replace(view.record_at(offset).word, buffer.word_, now)) [[unlikely]]
			return send_again(buffer, buffer.word_, to);
		if (!view.member(to)) [[unlikely]]
			return send_again(buffer, now, to);
		buffer.data_ = nullptr;
		return Handle{view.number, static_cast<std::uint32_t>(offset / granule_bytes), now.serial(), type_id<T>};
	}

	/// Undoes send() of a handle that was never delivered, and never will be. If it was, one of the two sides
	/// gets an error. EOWNERDEAD: the other side has died, and the buffer was reclaimed with it.
	template <class T> result<rref<T>> take_back(const Handle &handle, DomainId to)
	{
		View *view = find(handle);

		if (!view || handle.type != type_id<T>)
			return refused(-EBADF, "there is no such buffer");
		Record &record = view->mine[handle.index];
		const std::uint64_t shape = record.shape.load(std::memory_order_relaxed);
		if (static_cast<std::uint32_t>(shape) != handle.type)
			return refused(-EPROTOTYPE, "a buffer of another type");
		Word word;
		if (const int error = undo_send(*view, handle.index, to, handle.generation, &word))
			return refused(-error, "the buffer was not sent there, or is not there any more");
		return take<T>(*view, handle.index, word, static_cast<std::uint32_t>(shape >> 32));
	}

	/// A buffer that another domain has sent to this one. This domain's records and the links between others'
	/// decide, and never the message. Whether the contents are a value of the type says rref::fetch().
	template <class T> [[gnu::always_inline]] result<rref<T>> receive(const Handle &handle, DomainId from)
	{
		// What comes from its home, or comes home from whom it was given to. All else, and all that is to be
		// refused, is for receive_again(): nothing has changed then.
		using Element = std::remove_extent_t<T>;
		const auto [zone, granule, generation, type] = handle;

		// Of a zone that this domain has no part in, no granule is known.
		if (zone >= max_zones || from >= max_domains) [[unlikely]]
			return receive_again<T>(handle, from);
		View &view = views_[zone];
		const std::uint32_t granules = view.known_granules();
		if (granule >= granules || type != type_id<T>) [[unlikely]]
			return receive_again<T>(handle, from);
		Record &mine = view.mine[granule];
		// This domain's own if there is no such other one: that never says that it gave to itself.
		const Record &sender = *reinterpret_cast<const Record *>(reinterpret_cast<const std::byte *>(&mine) + away_[from]);
		const Word theirs{sender.word.load(std::memory_order_acquire)};
		const Word before{mine.word.load(std::memory_order_acquire)};
		const std::uint64_t serial = Word::at_top(generation);
		if ((theirs.bits & Word::way) != (serial | view.given_here) || !before.is_before(serial)) [[unlikely]]
			return receive_again<T>(handle, from);
		const Run run = view.run(granule);
		const bool back = run.home() != from;
		if (back && (run.home() != self_ || !before.leads_back(self_, from, theirs))) [[unlikely]]
			return receive_again<T>(handle, from);
		// Fetched once: whoever wrote it may do so again.
		const std::uint64_t fetched = (back ? mine : sender).shape.load(std::memory_order_relaxed);
		const std::uint64_t count = fetched >> 32;
		if (std::is_array_v<T> ? static_cast<std::uint32_t>(fetched) != type_id<T> || !count
				       : fetched != shape(type_id<T>, 1)) [[unlikely]]
			return receive_again<T>(handle, from);
		// What has more than a granule ends in the run that it begins in.
		if constexpr (std::is_array_v<T> || sizeof(Element) > granule_bytes) {
			const std::uint64_t bytes = std::is_array_v<T> ? count * sizeof(Element) : sizeof(Element);
			const std::uint64_t last = granule + (bytes - 1) / granule_bytes;
			if (last >= granules || view.run(static_cast<std::uint32_t>(last)).bits != run.bits) [[unlikely]]
				return receive_again<T>(handle, from);
		}

		ORBIT_ISOLATION_STEP();
		Word now;
		if (back) {
			now = before.owned_again(serial);
		} else {
			now = Word::owned_from(from, serial);
			mine.shape.store(fetched, std::memory_order_relaxed);
		}
		if (!replace(mine.word, before, now)) [[unlikely]]
			return receive_again<T>(handle, from);
		// The sender may have died meanwhile.
		if (!back && sender.word.load(std::memory_order_seq_cst) != theirs.bits) [[unlikely]]
			return confirm<T>(handle, from, theirs, before);
		return take<T>(view, granule, now, static_cast<std::uint32_t>(count));
	}

	/// Lends a buffer to one domain at a time, to read, until end_loan(); meanwhile it cannot be moved, and who
	/// owns it must not write to it. One that is borrowed may be lent on. Also EBUSY: it is lent already.
	template <class T> result<Handle> lend(const rref<T> &buffer, DomainId to)
	{
		std::uint32_t generation = 0;

		if (!buffer.data_ || buffer.view_->room != this)
			return refused(-EINVAL, "an empty rref, or one of another endpoint");
		if (const int error = begin_loan(*buffer.view_, buffer.granule(), buffer.word_.serial(),
						 buffer.is_borrowed(), to, &generation))
			return refused(-error, "the buffer cannot be lent there");
		return Handle{buffer.view_->number, buffer.granule(), generation, type_id<T>};
	}

	/// Ends a loan, whatever the borrower says. EBUSY: it has kept it too long, and has it no more; ESTALE: it is
	/// not, and was not the last, loan of this buffer. The end of a loan that its borrower's death has ended is no
	/// error.
	result<void> end_loan(const Handle &handle, DomainId to)
	{
		View *view = find(handle);

		if (!view)
			return refused(-EBADF, "there is no such buffer");
		if (const int error = end_loan_of(*view, handle.index, to, handle.generation))
			return refused(-error, error == EBUSY ? "the borrower has kept it too long" : "it is not lent");
		return {};
	}

	/// A buffer that another domain has lent to this one. Also EBUSY: this domain has it from somebody already.
	template <class T> result<borrowed<const T>> borrow(const Handle &handle, DomainId from)
	{
		std::uint32_t count = 0;

		if (const int error = begin_borrow(handle, from, type_id<T>, sizeof(std::remove_extent_t<T>),
						   std::is_array_v<T>, &count))
			return refused(-error, "the handle lends this domain no buffer");
		return borrowed<const T>(take<T>(views_[handle.zone], handle.index,
						 Word::make(State::borrowed, 0, 0, 0, handle.generation), count));
	}

private:
	template <class> friend class orbit::borrowed;
	Endpoint() = default;

	// The record had another word than the rref; or it had that, and says `word` now, but the other side is no member.
	template <class T> [[gnu::noinline, gnu::cold]] result<Handle> send_again(rref<T> &buffer, Word word, DomainId to)
	{
		View &view = *buffer.view_;
		const std::uint32_t granule = buffer.granule();

		if (buffer.is_borrowed())
			return refused(-EINVAL, "a borrowed rref");
		buffer.word_ = word;
		const int error = Room::send_again(view, granule, &buffer.word_, to);
		if (!error) {
			buffer.data_ = nullptr;
			return Handle{view.number, granule, buffer.word_.serial(), type_id<T>};
		}
		if (!buffer.word_.bits) // reclaimed with the other side
			buffer.data_ = nullptr;
		return error == EBUSY	 ? refused(-EBUSY, "the buffer is lent")
		       : error == ESTALE ? refused(-ESTALE, "the buffer is not owned any more")
					 : refused(-error, "the other domain has no part in the zone");
	}

	template <class T> [[gnu::noinline]] result<rref<T>> receive_again(const Handle &handle, DomainId from)
	{
		std::uint32_t count;
		Word word;

		if (const int error = Room::receive_again(handle, from, type_id<T>, sizeof(std::remove_extent_t<T>),
							  std::is_array_v<T>, &count, &word))
			return refused(-error, "the handle gives this domain no buffer");
		return take<T>(views_[handle.zone], handle.index, word, count);
	}

	// Either this domain's word goes back, or the supervisor has seen it.
	template <class T>
	[[gnu::noinline, gnu::cold]] result<rref<T>> confirm(const Handle &handle, DomainId from, Word theirs, Word before)
	{
		View &view = views_[handle.zone];
		const Word now = Word::owned_from(from, Word::at_top(theirs.serial()));

		if (confirm_receive(view, handle.index, from, theirs, before, now))
			return receive_again<T>(handle, from);
		const std::uint64_t shape = view.mine[handle.index].shape.load(std::memory_order_relaxed);
		return take<T>(view, handle.index, now, static_cast<std::uint32_t>(shape >> 32));
	}

	template <class T> rref<T> take(View &view, std::uint32_t granule, Word word, std::uint32_t count)
	{
		rref<T> buffer;

		buffer.data_ = reinterpret_cast<std::remove_extent_t<T> *>(view.data + granule * granule_bytes);
		buffer.view_ = &view;
		buffer.word_ = word;
		buffer.count_ = count;
		return buffer;
	}

	template <class T> result<rref<T>> allocate_for(Zone zone, std::size_t count)
	{
		View *view = nullptr;
		std::uint32_t granule = 0;
		Word word;

		if (const int error = allocate(zone.number, type_id<T>, sizeof(std::remove_extent_t<T>), count, &view,
					       &granule, &word))
			return refused(-error, "the zone has no such buffer for this domain");
		return take<T>(*view, granule, word, static_cast<std::uint32_t>(count));
	}

	bool holds(const View &view, std::uint32_t granule, std::uint32_t entry) const noexcept
	{
		return loan_holds(view, granule, entry);
	}
};

} // namespace isolation

template <class T> bool borrowed<const T>::holds() const noexcept
{
	return rref_ && static_cast<const isolation::Endpoint *>(rref_.view_->room)
				->holds(*rref_.view_, rref_.granule(), rref_.word_.serial());
}

} // namespace orbit

#endif
