// SPDX-License-Identifier: MIT
//
// Containers of fixed capacity that may be in an rref, and one of rrefs that may be sent.
//
//	rref<fixed_deque<Request, 128>> batch;		// requests in one buffer, moved as one
//	rref_deque<Block, 32> blocks;			// 32 buffers, moved one by one
//
// What a mad domain writes into a container's numbers is found at each use: they are fetched once, and what they
// say beyond the capacity is an empty container. Not thread-safe.
#ifndef ORBIT_DEQUE_HPP
#define ORBIT_DEQUE_HPP

#include <orbit/rref.hpp>

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <utility>

namespace orbit {

/// A double-ended queue of at most n objects.
template <class T, std::size_t n> class fixed_deque {
	static_assert(isolation::require_exchangeable<T>());
	static_assert(n > 0 && n <= UINT32_MAX / 2);

public:
	static constexpr std::size_t capacity() noexcept { return n; }
	std::size_t size() const noexcept { return load().count; }
	bool empty() const noexcept { return size() == 0; }

	/// Gives the item back if it is full.
	std::optional<T> push_back(const T &item) noexcept
	{
		const Numbers now = load();

		if (now.count == n)
			return item;
		items_[(now.first + now.count) % n] = item;
		store({now.first, now.count + 1});
		return std::nullopt;
	}
	std::optional<T> push_front(const T &item) noexcept
	{
		const Numbers now = load();
		const auto first = static_cast<std::uint32_t>((now.first + n - 1) % n);

		if (now.count == n)
			return item;
		items_[first] = item;
		store({first, now.count + 1});
		return std::nullopt;
	}

	/// An item, if there is one. One that is no value of its type is taken off, and lost.
	std::optional<T> pop_front() noexcept
	{
		const Numbers now = load();

		if (!now.count)
			return std::nullopt;
		store({static_cast<std::uint32_t>((now.first + 1) % n), now.count - 1});
		return fetch(now.first);
	}
	std::optional<T> pop_back() noexcept
	{
		const Numbers now = load();

		if (!now.count)
			return std::nullopt;
		store({now.first, now.count - 1});
		return fetch((now.first + now.count - 1) % n);
	}

	/// A copy of the i-th from the front, if there is one and it is a value of its type.
	std::optional<T> at(std::size_t i) const noexcept
	{
		const Numbers now = load();

		return i < now.count ? fetch((now.first + i) % n) : std::nullopt;
	}

	void clear() noexcept { store({0, 0}); }

private:
	friend isolation::Check<fixed_deque>;
	struct Numbers {
		std::uint32_t first, count;
	};

	Numbers load() const noexcept
	{
		const Numbers now{__atomic_load_n(&first_, __ATOMIC_RELAXED), __atomic_load_n(&count_, __ATOMIC_RELAXED)};

		return now.first < n && now.count <= n ? now : Numbers{0, 0};
	}
	void store(Numbers now) noexcept
	{
		__atomic_store_n(&first_, now.first, __ATOMIC_RELAXED);
		__atomic_store_n(&count_, now.count, __ATOMIC_RELAXED);
	}
	std::optional<T> fetch(std::size_t i) const noexcept
	{
		alignas(T) std::byte copy[sizeof(T)];

		isolation::fetch(copy, reinterpret_cast<const std::byte *>(&items_[i]), sizeof(T));
		if (!isolation::is_valid_at<T>(copy))
			return std::nullopt;
		return *reinterpret_cast<const T *>(copy);
	}

	std::uint32_t first_ = 0, count_ = 0;
	std::array<T, n> items_{};
};

/// A vector of at most n objects.
template <class T, std::size_t n> class fixed_vector {
	static_assert(n > 0 && n <= UINT32_MAX / 2);

public:
	static constexpr std::size_t capacity() noexcept { return n; }
	std::size_t size() const noexcept { return items_.size(); }
	bool empty() const noexcept { return items_.empty(); }

	/// Gives the item back if it is full.
	std::optional<T> push_back(const T &item) noexcept { return items_.push_back(item); }
	std::optional<T> pop_back() noexcept { return items_.pop_back(); }

	/// A copy of the i-th, if there is one and it is a value of its type.
	std::optional<T> at(std::size_t i) const noexcept { return items_.at(i); }
	void clear() noexcept { items_.clear(); }

private:
	fixed_deque<T, n> items_; // whose first stays 0
};

/// What names the buffers of an rref_deque in a message.
template <std::size_t n> struct Handles {
	std::uint32_t count;
	std::array<isolation::Handle, n> handles;
};

/// A double-ended queue of at most n buffers, in private memory. It is moved buffer by buffer: each has one owner
/// at any time, also if a domain dies in the middle.
template <class T, std::size_t n> class rref_deque {
	static_assert(n > 0 && n <= UINT32_MAX / 2);

public:
	rref_deque() = default;
	rref_deque(rref_deque &&other) noexcept { *this = std::move(other); }
	rref_deque &operator=(rref_deque &&other) noexcept
	{
		if (this != &other) {
			items_ = std::move(other.items_);
			first_ = std::exchange(other.first_, 0);
			count_ = std::exchange(other.count_, 0);
		}
		return *this;
	}

	static constexpr std::size_t capacity() noexcept { return n; }
	std::size_t size() const noexcept { return count_; }
	bool empty() const noexcept { return count_ == 0; }

	/// Gives the buffer back if it is full; an empty rref otherwise.
	[[nodiscard]] rref<T> push_back(rref<T> &&item) noexcept
	{
		if (count_ == n)
			return std::move(item);
		items_[(first_ + count_++) % n] = std::move(item);
		return {};
	}

	/// An empty rref if there is none.
	rref<T> pop_front() noexcept
	{
		if (!count_)
			return {};
		rref<T> item = std::move(items_[first_]);
		first_ = (first_ + 1) % n;
		count_--;
		return item;
	}
	rref<T> pop_back() noexcept
	{
		if (!count_)
			return {};
		return std::move(items_[(first_ + --count_) % n]);
	}

	/// Sends all, or none: then they are all here as before.
	static result<Handles<n>> send(isolation::Endpoint &endpoint, rref_deque &&items, isolation::DomainId to)
	{
		Handles<n> sent{};

		while (sent.count < items.count_) {
			auto handle = endpoint.send(std::move(items.items_[(items.first_ + sent.count) % n]), to);
			if (!handle) {
				// A buffer that was reclaimed with the other side leaves a gap.
				while (sent.count--) {
					auto back = endpoint.template take_back<T>(sent.handles[sent.count], to);
					if (back)
						items.items_[(items.first_ + sent.count) % n] = std::move(*back);
				}
				return tl::unexpected(handle.error());
			}
			sent.handles[sent.count++] = *handle;
		}
		items.first_ = items.count_ = 0;
		return sent;
	}

	/// Receives all of them. At the first that is refused it ends with that error, and drops those before; the
	/// rest stays in flight, for the sender to take back. EBADMSG: more than n. `sent` is private memory.
	static result<rref_deque> receive(isolation::Endpoint &endpoint, const Handles<n> &sent, isolation::DomainId from)
	{
		rref_deque items;

		if (sent.count > n)
			return isolation::refused(-EBADMSG, "more buffers than there can be");
		for (std::uint32_t i = 0; i < sent.count; i++) {
			auto item = endpoint.template receive<T>(sent.handles[i], from);
			if (!item)
				return tl::unexpected(item.error());
			items.items_[items.count_++] = std::move(*item);
		}
		return items;
	}

private:
	std::array<rref<T>, n> items_;
	std::size_t first_ = 0, count_ = 0;
};

namespace isolation {

template <class T, std::size_t n> struct Check<fixed_deque<T, n>> {
	using Deque = fixed_deque<T, n>;

	static bool bytes(const std::byte *at) noexcept
	{
		std::uint32_t first, count;

		std::memcpy(&first, at, sizeof(first));
		std::memcpy(&count, at + sizeof(first), sizeof(count));
		if (first >= n || count > n)
			return false;
		for (std::uint32_t i = 0; i < count; i++)
			if (!is_valid_at<T>(at + offsetof(Deque, items_) + (first + i) % n * sizeof(T)))
				return false;
		return true;
	}
};

template <class T, std::size_t n> struct Check<fixed_vector<T, n>> : Check<fixed_deque<T, n>> {};

} // namespace isolation
} // namespace orbit

#endif
