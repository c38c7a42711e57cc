// SPDX-License-Identifier: MIT
//
// Containers in pools: an allocator whose heap and state lie in pools, for
// std::pmr and for allocator-aware containers. Needs Boost.Interprocess (headers).
//
//	auto memory = orbit::Memory::create(64 << 20);
//	auto *prices = memory->make<std::pmr::map<std::pmr::string, double>>();
//	(*prices)["tea"] = 3.5;
//	...
//	audit->call(*memory, [](const std::pmr::map<std::pmr::string, double> *p) {
//		return p->size();
//	}, prices);
//
// A snapshot is taken without waiting for anybody. What it shows of a container that
// another thread is just changing is half a change: hold the container's own lock
// around the call, that is, until orbit::Orbit::call_async() or post() has returned.
//
// The allocator's own lock is never in a snapshot: the main program's lies outside of
// the pools, and an orbit has another. Reading needs neither. A task may allocate and
// free in its own view, from any of its threads; that is gone with the view. If the
// snapshot was taken while a thread of the main program was within the allocator, its
// heap is half changed: then allocating fails in the task (std::bad_alloc), and freeing
// does nothing. Memory::quiesce() around the call rules that out.
#ifndef ORBIT_MEMORY_HPP
#define ORBIT_MEMORY_HPP

#if !__has_include(<boost/interprocess/mem_algo/rbtree_best_fit.hpp>)
#error "<orbit/memory.hpp> needs Boost.Interprocess, headers only (Debian: apt-get install libboost-dev)"
#endif

#include <orbit/orbit.hpp>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <memory>
#include <memory_resource>
#include <mutex>
#include <new>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <boost/interprocess/mem_algo/rbtree_best_fit.hpp>
#include <boost/interprocess/sync/mutex_family.hpp>

namespace orbit {

namespace detail {

/// A heap in one or several regions of memory, with all of its state in them. Small
/// blocks are cut from slabs, one size each; slabs and large blocks are Boost's, which
/// joins what is freed with its free neighbours. Not thread-safe.
class Heap {
public:
	static constexpr std::size_t kMaxRegions = 48;

	/// What a region needs besides the blocks in it, at most.
	static constexpr std::size_t kRegionOverhead = 1024;

	/// Adds memory, which must be writable and live as long as the heap. Returns
	/// whether it is enough to be of use.
	bool add(std::span<std::byte> memory) noexcept
	{
		void *at = memory.data();
		std::size_t room = memory.size();

		if (nr_regions_ == kMaxRegions || !std::align(kGrain, sizeof(Large), at, room) ||
		    room < kRegionOverhead)
			return false;
		room -= room % kGrain;
		regions_[nr_regions_] = {static_cast<std::byte *>(at), room,
					 new (at) Large(room, 0)};
		nr_regions_++;
		size_ += room;
		return true;
	}

	/// nullptr if there is no room.
	void *allocate(std::size_t bytes, std::size_t alignment) noexcept
	{
		void *block;

		if (is_small(bytes, alignment)) [[likely]] {
			block = allocate_small(class_of(bytes));
			bytes = class_size(class_of(bytes));
		} else {
			block = allocate_large(bytes, alignment);
		}
		if (block) [[likely]]
			used_ += bytes;
		return block;
	}

	/// With the size and the alignment it was allocated with.
	void deallocate(void *block, std::size_t bytes, std::size_t alignment) noexcept
	{
		if (is_small(bytes, alignment)) [[likely]] {
			deallocate_small(block, class_of(bytes));
			bytes = class_size(class_of(bytes));
		} else {
			region_of(block)->large->deallocate(block);
		}
		used_ -= bytes;
	}

	std::size_t size() const noexcept { return size_; }
	std::size_t used() const noexcept { return used_; }

	/// Returns whether Boost's structures are sound, and the slabs' lists.
	bool check() const noexcept
	{
		for (std::size_t i = 0; i < nr_regions_; i++)
			if (!regions_[i].large->check_sanity())
				return false;
		for (std::size_t which = 0; which < kClasses; which++)
			for (const Slab *slab = partial_[which]; slab; slab = slab->next)
				if (slab->which != which ||
				    (slab->next && slab->next->prev != slab) ||
				    is_full(slab, which))
					return false;
		return true;
	}

private:
	// One address on all sides, so ordinary pointers. The lock is elsewhere.
	using Large = boost::interprocess::rbtree_best_fit<boost::interprocess::null_mutex_family,
							   void *>;

	struct Region {
		std::byte *begin;
		std::size_t size;
		Large *large;
	};

	static constexpr std::size_t kGrain = 16;
	static constexpr std::size_t kLargestSmall = 2048;
	// Steps of 16 bytes up to 256, then four to each doubling.
	static constexpr std::size_t kClasses = 16 + 4 * 3;
	static constexpr std::size_t kPage = 4096;

	struct Free {
		Free *next;
	};

	struct alignas(64) Slab {
		Slab *next, *prev;   // with the same size and room left
		Free *free;	     // blocks that came back
		std::uint32_t fresh; // where those begin that were never given out
		std::uint32_t used;  // blocks
		std::uint32_t which; // class
		std::uint32_t region;
	};

	static constexpr std::array<std::uint16_t, kClasses> kSizes = [] {
		std::array<std::uint16_t, kClasses> sizes{};
		std::size_t size = 0;

		for (std::size_t which = 0; which < kClasses; which++) {
			size += which < 16 ? 16 : std::size_t{64} << (which - 16) / 4;
			sizes[which] = static_cast<std::uint16_t>(size);
		}
		return sizes;
	}();
	static_assert(kSizes.back() == kLargestSmall);

	static constexpr std::array<std::uint8_t, kLargestSmall / kGrain + 1> kClassOf = [] {
		std::array<std::uint8_t, kLargestSmall / kGrain + 1> classes{};
		std::uint8_t which = 0;

		for (std::size_t grains = 0; grains < classes.size(); grains++) {
			while (kSizes[which] < grains * kGrain)
				which++;
			classes[grains] = which;
		}
		return classes;
	}();

	static constexpr bool is_small(std::size_t bytes, std::size_t alignment) noexcept
	{
		return bytes <= kLargestSmall && alignment <= kGrain;
	}

	static constexpr std::size_t class_of(std::size_t bytes) noexcept
	{
		return kClassOf[(bytes + kGrain - 1) / kGrain];
	}

	static constexpr std::size_t class_size(std::size_t which) noexcept
	{
		return kSizes[which];
	}

	// Slabs are aligned to their size. Those of the smallest blocks are pages, so a
	// block is taken and freed with no other page changed but the heap's first.
	static constexpr std::size_t slab_size(std::size_t which) noexcept
	{
		const std::size_t size = class_size(which);

		return size <= 128 ? kPage : size <= 512 ? 2 * kPage : 4 * kPage;
	}

	// Where its blocks end: Boost's own words, so that slabs lie side by side.
	static constexpr std::size_t slab_end(std::size_t which) noexcept
	{
		return slab_size(which) - kGrain;
	}

	static Slab *slab_of(void *block, std::size_t which) noexcept
	{
		return reinterpret_cast<Slab *>(reinterpret_cast<std::uintptr_t>(block) &
						~(slab_size(which) - 1));
	}

	static bool is_full(const Slab *slab, std::size_t which) noexcept
	{
		return !slab->free && slab->fresh + class_size(which) > slab_end(which);
	}

	void *allocate_small(std::size_t which) noexcept
	{
		Slab *slab = partial_[which];

		if (!slab && !(slab = make_slab(which))) [[unlikely]]
			return nullptr;

		void *block = slab->free;

		if (block) {
			slab->free = slab->free->next;
		} else {
			block = reinterpret_cast<std::byte *>(slab) + slab->fresh;
			slab->fresh += static_cast<std::uint32_t>(class_size(which));
		}
		slab->used++;
		if (is_full(slab, which))
			unlink(slab);
		return block;
	}

	void deallocate_small(void *block, std::size_t which) noexcept
	{
		Slab *slab = slab_of(block, which);

		if (is_full(slab, which))
			link(slab);
		slab->free = new (block) Free{slab->free};
		slab->used--;
		// The only one stays, lest a slab be made and unmade all the time.
		if (!slab->used && (slab->next || slab->prev)) [[unlikely]]
			drop(slab);
	}

	Slab *make_slab(std::size_t which) noexcept
	{
		std::uint32_t region = 0;
		void *memory = take(slab_end(which), slab_size(which), region);

		if (!memory)
			return nullptr;

		Slab *slab = new (memory) Slab{};

		slab->fresh = sizeof(Slab);
		slab->which = static_cast<std::uint32_t>(which);
		slab->region = region;
		link(slab);
		return slab;
	}

	void drop(Slab *slab) noexcept
	{
		unlink(slab);
		regions_[slab->region].large->deallocate(slab);
	}

	void link(Slab *slab) noexcept
	{
		Slab *&first = partial_[slab->which];

		slab->prev = nullptr;
		slab->next = first;
		if (first)
			first->prev = slab;
		first = slab;
	}

	void unlink(Slab *slab) noexcept
	{
		(slab->prev ? slab->prev->next : partial_[slab->which]) = slab->next;
		if (slab->next)
			slab->next->prev = slab->prev;
		slab->next = slab->prev = nullptr;
	}

	void *allocate_large(std::size_t bytes, std::size_t alignment) noexcept
	{
		std::uint32_t region;

		return take(bytes, alignment, region);
	}

	// Of the region that was added last, if it has room: it is the largest.
	void *take(std::size_t bytes, std::size_t alignment, std::uint32_t &region) noexcept
	{
		if (void *memory = take_once(bytes, alignment, region))
			return memory;
		return trim() ? take_once(bytes, alignment, region) : nullptr;
	}

	void *take_once(std::size_t bytes, std::size_t alignment, std::uint32_t &region) noexcept
	{
		for (std::size_t i = nr_regions_; i-- > 0;) {
			region = static_cast<std::uint32_t>(i);
			if (bytes >= regions_[i].size || alignment >= regions_[i].size)
				continue;
			if (void *memory = take_from(*regions_[i].large, bytes, alignment))
				return memory;
		}
		return nullptr;
	}

	static void *take_from(Large &large, std::size_t bytes, std::size_t alignment) noexcept
	{
		// Where a slab has been another one fits; Boost asks for more room than
		// that to find an aligned block in.
		void *memory = large.allocate(bytes);

		if (!memory || reinterpret_cast<std::uintptr_t>(memory) % alignment == 0)
			return memory;
		large.deallocate(memory);
		return large.allocate_aligned(bytes, alignment);
	}

	// Gives back the slabs that are empty; whether there was one.
	bool trim() noexcept
	{
		bool any = false;

		for (Slab *slab : partial_) {
			while (slab) {
				Slab *next = slab->next;

				if (!slab->used) {
					drop(slab);
					any = true;
				}
				slab = next;
			}
		}
		return any;
	}

	Region *region_of(void *block) noexcept
	{
		const auto at = reinterpret_cast<std::uintptr_t>(block);

		for (std::size_t i = nr_regions_; i-- > 1;)
			if (at - reinterpret_cast<std::uintptr_t>(regions_[i].begin) <
			    regions_[i].size)
				return &regions_[i];
		return &regions_[0];
	}

	std::array<Slab *, kClasses> partial_{}; // slabs that have room
	std::size_t used_ = 0;
	std::size_t size_ = 0;
	std::size_t nr_regions_ = 0;
	std::array<Region, kMaxRegions> regions_{};
};

} // namespace detail

class Memory;

/// The memory resource of a Memory. It lies in the pool, so a task can use it as it is.
/// Thread-safe.
class MemoryResource final : public std::pmr::memory_resource {
public:
	MemoryResource(const MemoryResource &) = delete;
	MemoryResource &operator=(const MemoryResource &) = delete;

	/// As allocate(), but nullptr if there is no room.
	[[nodiscard]] void *try_allocate(std::size_t bytes,
					 std::size_t alignment = alignof(std::max_align_t)) noexcept
	{
		const bool inside = orbit_inside();
		const std::lock_guard guard(inside ? in_orbit_ : main()->lock);

		if (inside && changing())
			return nullptr;

		const Change now(changing_);
		void *block = heap_.allocate(bytes, alignment);

		if (!block && !inside && main()->grow(heap_, bytes, alignment)) [[unlikely]]
			block = heap_.allocate(bytes, alignment);
		return block;
	}

	/// The reverse of try_allocate() and allocate().
	void free(void *block, std::size_t bytes,
		  std::size_t alignment = alignof(std::max_align_t)) noexcept
	{
		const bool inside = orbit_inside();
		const std::lock_guard guard(inside ? in_orbit_ : main()->lock);

		if (inside && changing())
			return;

		const Change now(changing_);

		heap_.deallocate(block, bytes, alignment);
	}

	/// In a task: whether it can allocate, because its snapshot was not taken while
	/// the main program was within the allocator. Elsewhere always true.
	bool whole() const noexcept
	{
		if (!orbit_inside())
			return true;

		const std::lock_guard guard(in_orbit_);

		return !changing();
	}

private:
	friend class Memory;

	// A snapshot that has any of the stores in between has the first one, and if it
	// has the last one, it has all of them.
	class Change {
	public:
		explicit Change(std::atomic<bool> &flag) noexcept : flag_(flag)
		{
			flag_.store(true, std::memory_order_relaxed);
			std::atomic_thread_fence(std::memory_order_release);
		}
		Change(const Change &) = delete;
		Change &operator=(const Change &) = delete;
		~Change() { flag_.store(false, std::memory_order_release); }

	private:
		std::atomic<bool> &flag_;
	};

	// The main program's side, out of the pools; no orbit looks at it.
	struct Main {
		Main() = default;
		Main(const Main &) = delete;
		Main &operator=(const Main &) = delete;
		virtual ~Main() = default;
		virtual bool grow(detail::Heap &, std::size_t, std::size_t) noexcept
		{
			return false;
		}

		std::mutex lock;
		std::vector<Pool> pools;
	};

	explicit MemoryResource(Main *main) noexcept : hidden_main_(~reinterpret_cast<std::uintptr_t>(main))
	{
	}

	Main *main() const noexcept { return reinterpret_cast<Main *>(~hidden_main_); }

	void *do_allocate(std::size_t bytes, std::size_t alignment) override
	{
		void *block = try_allocate(bytes, alignment);

		if (!block)
			throw std::bad_alloc();
		return block;
	}

	void do_deallocate(void *block, std::size_t bytes, std::size_t alignment) override
	{
		free(block, bytes, alignment);
	}

	bool do_is_equal(const std::pmr::memory_resource &other) const noexcept override
	{
		return this == &other;
	}

	bool changing() const noexcept { return changing_.load(std::memory_order_relaxed); }

	// ORBIT_CHECK is to find no pointer out of the pool here: no orbit follows this one.
	std::uintptr_t hidden_main_;
	std::atomic<bool> changing_ = false;
	mutable std::mutex in_orbit_; // taken in orbits only, so never held in a snapshot
	detail::Heap heap_;
};

/// An allocator for containers that are not std::pmr's. Unlike those it moves with its
/// container.
template <class T> class Allocator {
public:
	using value_type = T;
	using propagate_on_container_move_assignment = std::true_type;
	using propagate_on_container_swap = std::true_type;

	Allocator(MemoryResource *resource) noexcept : resource_(resource) {}
	template <class U> Allocator(const Allocator<U> &other) noexcept
		: resource_(other.resource())
	{
	}

	[[nodiscard]] T *allocate(std::size_t count)
	{
		void *block = count > std::numeric_limits<std::size_t>::max() / sizeof(T)
				      ? nullptr
				      : resource_->try_allocate(count * sizeof(T), alignof(T));

		if (!block)
			throw std::bad_alloc();
		return static_cast<T *>(block);
	}

	void deallocate(T *block, std::size_t count) noexcept
	{
		resource_->free(block, count * sizeof(T), alignof(T));
	}

	MemoryResource *resource() const noexcept { return resource_; }

	template <class U> bool operator==(const Allocator<U> &other) const noexcept
	{
		return resource_ == other.resource();
	}

private:
	MemoryResource *resource_;
};

/// What may be chosen for a Memory.
struct MemoryOptions {
	const char *name = nullptr; ///< Of its pools; for people.
	/// When there is no room, make another pool, at least as large as all so far.
	/// Calls must name all pools, see Memory::pools(). Otherwise std::bad_alloc.
	bool grow = false;
};

/// Keeps the main program out of the allocator for as long as it exists: a snapshot
/// taken meanwhile has a whole heap. The thread that has it must not allocate or free
/// there itself.
class [[nodiscard]] Quiet {
public:
	/// As Memory::pools().
	const Pools &pools() const noexcept { return pools_; }

private:
	friend class Memory;

	Quiet(std::unique_lock<std::mutex> lock, Pools pools) noexcept
		: lock_(std::move(lock)), pools_(std::move(pools))
	{
	}

	std::unique_lock<std::mutex> lock_;
	Pools pools_;
};

/// Pools with a heap in them. Destroying it takes the memory away, without destroying
/// what lies in it. Thread-safe, except while it is moved from or destroyed.
class Memory {
public:
	/// Makes a pool of so many bytes, and a heap in it. Errors: as Pool::create().
	static expected<Memory> create(std::size_t bytes, const MemoryOptions &options = {})
	{
		auto pool = Pool::create(bytes, options.name);

		if (!pool)
			return tl::unexpected(pool.error());
		return in(std::move(*pool), options);
	}

	/// Makes a heap in a pool, which it takes over. Errors: EINVAL if it is too small.
	static expected<Memory> in(Pool pool, const MemoryOptions &options = {})
	{
		auto side = std::make_unique<Side>(options);
		const std::span<std::byte> memory = pool.span();

		side->pools.push_back(std::move(pool));
		return start(std::move(side), memory);
	}

	/// Makes a heap in other memory, which stays the caller's; for tests, and for
	/// what is in a pool for other reasons. Errors: EINVAL if it is too small.
	static expected<Memory> over(std::span<std::byte> memory)
	{
		return start(std::make_unique<Side>(MemoryOptions{}), memory);
	}

	/// For containers of std::pmr. Valid as long as this object, wherever that moves.
	MemoryResource *resource() const noexcept { return resource_; }

	/// For other containers.
	template <class T> Allocator<T> allocator() const noexcept
	{
		return Allocator<T>(resource_);
	}

	/// Makes an object in the pool; if it takes an allocator (as containers of std::pmr
	/// do), it gets this one. Throws std::bad_alloc, and what its constructor throws.
	template <class T, class... Args> [[nodiscard]] T *make(Args &&...args) const
	{
		return std::pmr::polymorphic_allocator<>(resource_).new_object<T>(
			std::forward<Args>(args)...);
	}

	/// Destroys what make() made.
	template <class T> void destroy(T *object) const
	{
		std::pmr::polymorphic_allocator<>(resource_).delete_object(object);
	}

	/// The pools to name in a call. If the memory may grow meanwhile, use quiesce().
	Pools pools() const
	{
		const auto guard = lock();

		return named();
	}
	operator Pools() const { return pools(); }

	/// All of its memory, in the order of pools(): for orbit::send_pages(), or Targets.
	std::vector<std::span<std::byte>> spans() const
	{
		const auto guard = lock();
		std::vector<std::span<std::byte>> all;

		for (const Pool &pool : side_->pools)
			all.push_back(pool.span());
		return all;
	}

	/// Waits until no thread of the main program is within the allocator, and keeps
	/// them out:
	///
	///	auto quiet = memory.quiesce();
	///	auto task = orbit.call_async(quiet.pools(), check, table);
	///
	/// To be kept until the call has taken its snapshot, not until the task ends.
	Quiet quiesce() const
	{
		auto guard = lock();
		Pools all = named();

		return {std::move(guard), std::move(all)};
	}

	/// Bytes that are given out, as they were asked for, small ones rounded up.
	std::size_t used() const
	{
		const auto guard = lock();

		return resource_->heap_.used();
	}

	/// Bytes in all.
	std::size_t size() const
	{
		const auto guard = lock();

		return resource_->heap_.size();
	}

	/// Whether the heap's structures are as they should be. Takes time in proportion
	/// to the number of blocks.
	bool check() const
	{
		const auto guard = lock();

		return resource_->heap_.check();
	}

private:
	struct Side : MemoryResource::Main {
		explicit Side(const MemoryOptions &options)
			: grows(options.grow), name(options.name ? options.name : "")
		{
		}

		bool grow(detail::Heap &heap, std::size_t bytes,
			  std::size_t alignment) noexcept override
		{
			constexpr std::size_t most = std::numeric_limits<std::size_t>::max() / 4;
			// A slab with its alignment takes no more than this.
			constexpr std::size_t least = 65536;

			if (!grows || bytes > most || alignment > most)
				return false;

			const std::size_t needed =
				std::max(bytes + alignment + detail::Heap::kRegionOverhead, least);
			auto pool = Pool::create(std::max(needed, heap.size()), name.c_str());

			if (!pool)
				pool = Pool::create(needed, name.c_str());
			if (!pool)
				return false;
			try {
				pools.push_back(std::move(*pool));
			} catch (const std::bad_alloc &) {
				return false;
			}
			if (heap.add(pools.back().span()))
				return true;
			pools.pop_back();
			return false;
		}

		bool grows;
		std::string name;
	};

	Memory(std::unique_ptr<Side> side, MemoryResource *resource) noexcept
		: side_(std::move(side)), resource_(resource)
	{
	}

	static expected<Memory> start(std::unique_ptr<Side> side, std::span<std::byte> memory)
	{
		void *at = memory.data();
		std::size_t room = memory.size();

		if (!std::align(alignof(MemoryResource), sizeof(MemoryResource), at, room))
			return tl::unexpected(Error(-EINVAL));

		auto *resource = new (at) MemoryResource(side.get());

		if (!resource->heap_.add({static_cast<std::byte *>(at) + sizeof(MemoryResource),
					  room - sizeof(MemoryResource)}))
			return tl::unexpected(Error(-EINVAL));
		return Memory(std::move(side), resource);
	}

	// In an orbit this object may be a copy from a moment when the lock was held.
	std::unique_lock<std::mutex> lock() const
	{
		return orbit_inside() ? std::unique_lock<std::mutex>()
				      : std::unique_lock(side_->lock);
	}

	Pools named() const
	{
		Pools all;

		for (const Pool &pool : side_->pools)
			all.add(pool);
		return all;
	}

	std::unique_ptr<Side> side_;
	MemoryResource *resource_;
};

} // namespace orbit

#endif // ORBIT_MEMORY_HPP
