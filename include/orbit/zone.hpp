// SPDX-License-Identifier: MIT
//
// The shared heap: zones of memory that domains exchange buffers in, and the records of who owns what.
//
// Programs use <orbit/rref.hpp>. This is what the supervisor needs, and how it works.
//
// Memory. A heap lies in one range that is given to it, the same in all processes, though not at the same address:
//
//	| header: zones, who has part in them, runs |	the supervisor writes, all read
//	| records of domain 1 | of domain 2 | ... |	that domain and the supervisor write, all read
//	| zone 0 | zone 1 | ... |			its members read and write, nobody else has it
//
// Heap::ranges() says which rights a domain gets where. To give the rights is not the heap's work: what maps the
// memory in a domain asks there. That is the whole seam.
//
// Buffers. A zone is divided into granules of 64 bytes; the supervisor grants *runs* of it to domains. The domain
// that was granted a run is the *home* of the buffers in it: it allocates them, and their memory comes back to it.
// A buffer is named by the granule it begins at. Each domain has a record for each granule of each zone: a word
// that says what this domain has done with the buffer that begins there.
//
//	word: state, from whom it came, to whom it went, entry (its number when it came), serial (when it went)
//
// The serial is the buffer's: every move counts it on, and every allocation. It is the generation of handles, has
// 24 bits, and so names one move among 16 million of the same buffer.
//
// Moves. The sender changes its word from OWNED to GIVEN(to, serial + 1). The receiver looks at the sender's word,
// which only the sender can write, and changes its own to OWNED(from, entry = that serial). There is a *link* from
// P to C if P's word is GIVEN(to C, serial s) and C's word has from = P and entry = s, in one word each. The owner
// of a buffer is who stands at the end of the links that begin at its home. So a receiver follows the links from
// the sender up to the home, or to itself, for it believes its own word: a domain that the links do not lead to
// owns nothing that it could give, whatever its record says. A buffer that comes back to somebody on the way cuts
// off what is behind him: his word is OWNED again, and theirs are linked to nothing.
//
// A kill between any two stores leaves one owner, for each step is one compare-and-exchange of one word:
//
//	sender killed before its store		it has owned the buffer, and dies with it
//	after it, not yet received		in flight from a dead domain: nobody's, reclaimed
//	receiver killed before its store	in flight to a dead domain: reclaimed
//	after it				it has owned the buffer, and dies with it
//
// Reclaiming domain X, by the supervisor, when X is dead and writes no more; others go on meanwhile. X is struck
// from the members; then for each buffer X's word is taken away, and only then the others' are looked at.
//
//	- A receiver that has just written OWNED(from X) looks at X's word once more. Either it sees that it is gone,
//	  and takes its own word back; or the supervisor sees that word, and links it to him who had given the buffer
//	  to X. Both change the receiver's word by compare-and-exchange: one wins, and the other sees it.
//	  A receiver to whom it has come back, and whose word the supervisor need not link, drops it instead.
//	- A sender that has just written GIVEN(to X) looks at the members once more, and takes its word back; the
//	  supervisor marks such a word RECLAIMED. Again one wins.
//	- Before the supervisor marks a word RECLAIMED, which frees the buffer, it makes it GIVEN(to itself), and follows
//	  the links once more: who has received meanwhile is seen, and keeps it.
//	- Who verifies links meanwhile may find one broken. Refusals are looked at again after the reclaim.
//
// X's records count for nothing, but their numbers go on: a handle that X has sent, and that is read later, must be like
// none that its successor sends. What survivors have from X stays theirs, what none has is free. Only if several
// survivors say that they have the same buffer from X does X's last word decide, and then the latest serial.
// Loans to X end; its own runs become the supervisor's (domain 0), until the last survivor has dropped what it has
// of them.
//
// Loans have a word of their own, linked in the same way, so that a domain on the way from home to owner can borrow
// what it has given. While a buffer is lent its owner's word is LENT.
//
// Drops. Home puts the buffer on its free list, in its private memory. Others change their word to RETURNED, and
// home finds that when it needs memory (Room::collect()).
#ifndef ORBIT_ZONE_HPP
#define ORBIT_ZONE_HPP

#include <orbit/interface.hpp>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <map>
#include <mutex>
#include <span>
#include <utility>
#include <vector>

// For tests: stops between any two stores to memory that others see.
#ifndef ORBIT_ISOLATION_STEP
#define ORBIT_ISOLATION_STEP() static_cast<void>(0)
#endif

namespace orbit {

/// A zone of the shared heap, by its number. Worth nothing to a domain that has no part in it.
struct Zone {
	std::uint32_t number;
};

namespace isolation {

inline constexpr std::size_t page_bytes = 4096;
inline constexpr std::size_t granule_bytes = 64;
inline constexpr DomainId supervisor = 0;   ///< Owns what dead domains leave; has no buffers itself.
inline constexpr DomainId max_domains = 64; ///< With the supervisor.
inline constexpr std::uint32_t max_zones = 32;

/// A buffer's name in a message. Whoever gets one believes nothing of it.
struct Handle {
	std::uint32_t zone;
	std::uint32_t index;      ///< Of the granule that it begins at.
	std::uint32_t generation; ///< Of this move or this loan: 24 bits.
	std::uint32_t type;       ///< type_id of what is in it.
};
static_assert(sizeof(Handle) == 16);

enum class State : std::uint32_t { none, owned, given, lent, returned, reclaimed, borrowed, out };

inline constexpr std::uint32_t serial_mask = 0xffffff;

/// What a domain's record says of a buffer, in 64 bits.
struct Word {
	std::uint64_t bits = 0;

	static constexpr Word make(State state, DomainId from, DomainId to, std::uint32_t entry, std::uint32_t serial)
	{
		return {static_cast<std::uint64_t>(state) | std::uint64_t{from} << 4 | std::uint64_t{to} << 10 |
			std::uint64_t{entry & serial_mask} << 16 | std::uint64_t{serial & serial_mask} << 40};
	}
	constexpr State state() const { return static_cast<State>(bits & 15); }
	constexpr DomainId from() const { return bits >> 4 & 63; }
	constexpr DomainId to() const { return bits >> 10 & 63; }
	constexpr std::uint32_t entry() const { return bits >> 16 & serial_mask; }
	constexpr std::uint32_t serial() const { return static_cast<std::uint32_t>(bits >> 40); }
	constexpr bool operator==(const Word &) const = default;

	// Whether a buffer went from here, the word of `self`, to who says this.
	constexpr bool leads_to(DomainId self, DomainId other, Word theirs, State gone = State::given) const
	{
		return state() == gone && to() == other && theirs.from() == self && theirs.entry() == serial();
	}
	// What says that it went, and to whom; with when; and from whom it had come, and by which move.
	static constexpr std::uint64_t whom = 15 | std::uint64_t{63} << 10;
	static constexpr std::uint64_t way = whom | std::uint64_t{serial_mask} << 40;
	static constexpr std::uint64_t origin = std::uint64_t{63} << 4 | std::uint64_t{serial_mask} << 16;

	// What an owned buffer's word grows by when it goes. A serial that overflows leaves the word.
	static constexpr std::uint64_t going(DomainId to)
	{
		constexpr auto step = static_cast<std::uint64_t>(State::given) - static_cast<std::uint64_t>(State::owned);
		return (std::uint64_t{1} << 40) + step + (std::uint64_t{to} << 10);
	}
	constexpr Word gone_to(DomainId to) const { return {bits + going(to)}; }
	// A serial where a word has it; of what is more than 24 bits, the lower ones.
	static constexpr std::uint64_t at_top(std::uint32_t serial) { return std::uint64_t{serial} << 40; }
	// Of a buffer that has just come, by a serial at_top().
	static constexpr Word owned_from(DomainId from, std::uint64_t serial)
	{
		return {serial + (serial >> 24) + (std::uint64_t{from} << 4) + static_cast<std::uint64_t>(State::owned)};
	}
	// Of one that has come back: where it had come from at first stays.
	constexpr Word owned_again(std::uint64_t serial) const
	{
		return {(bits & origin) | serial | static_cast<std::uint64_t>(State::owned)};
	}
	// Whether its last serial here is before that one.
	constexpr bool is_before(std::uint64_t serial) const { return static_cast<std::int64_t>(serial - bits) > 0; }
	// Whether a buffer went from here to `other`, who says `theirs` and has it from `self`: leads_to() in two comparisons.
	constexpr bool leads_back(DomainId self, DomainId other, Word theirs) const
	{
		const std::uint64_t gone = (theirs.bits & std::uint64_t{serial_mask} << 16) << 24 | std::uint64_t{other} << 10 |
					   static_cast<std::uint64_t>(State::given);
		return (bits & way) == gone && theirs.from() == self;
	}
};

/// Whether serial a is after b.
constexpr bool after(std::uint32_t a, std::uint32_t b)
{
	return ((a - b) & serial_mask) - 1 < serial_mask / 2;
}

/// One for each domain and granule.
struct Record {
	std::atomic<std::uint64_t> word;
	std::atomic<std::uint64_t> loan;
	std::atomic<std::uint64_t> shape; ///< Type, and in the upper half how many.
	std::uint64_t reserved;
};
static_assert(sizeof(Record) == 32 && std::atomic<std::uint64_t>::is_always_lock_free);

constexpr std::uint64_t shape(std::uint32_t type, std::uint32_t count)
{
	return type | std::uint64_t{count} << 32;
}

/// What the supervisor says of a zone.
struct ZoneHeader {
	std::uint64_t data;                 ///< Offset from the beginning of the heap, in bytes.
	std::uint64_t bytes;                ///< Whole pages.
	std::uint64_t runs;                 ///< Offset of a Run for each page.
	std::uint64_t records;              ///< Offset into a domain's records.
	std::atomic<std::uint64_t> members; ///< A bit for each domain that has part in it and lives.
};

struct Header {
	std::uint64_t magic;
	std::uint32_t domains; ///< With the supervisor.
	std::uint32_t zones;
	std::uint64_t bytes;         ///< Of the whole heap.
	std::uint64_t records;       ///< Offset of domain 0's records.
	std::uint64_t records_bytes; ///< Of each domain.
	std::atomic<std::uint32_t> reclaims; ///< Odd while one is under way.
	ZoneHeader zone[max_zones];
};

/// Whose a page of a zone is: the run that it is in.
struct Run {
	std::uint64_t bits = 0;

	static constexpr Run make(DomainId home, std::uint32_t first, std::uint32_t pages)
	{
		return {std::uint64_t{home} | std::uint64_t{first} << 8 | std::uint64_t{pages} << 36};
	}
	constexpr DomainId home() const { return bits & 255; }
	constexpr std::uint32_t first() const { return bits >> 8 & 0xfffffff; }
	constexpr std::uint32_t pages() const { return static_cast<std::uint32_t>(bits >> 36); }
};

/// A zone, as one side sees it. Of a size that makes an index a shift.
struct alignas(128) View {
	std::byte *data = nullptr;
	std::uint64_t bytes = 0;
	std::atomic<std::uint64_t> *runs = nullptr;
	ZoneHeader *header = nullptr;
	std::byte *records = nullptr; ///< Domain 0's, of this zone.
	std::uint64_t records_bytes = 0;
	Record *mine = nullptr;
	class Room *room = nullptr;
	std::uint32_t number = 0;
	DomainId self = 0;
	std::uint64_t given_here = 0; ///< Of a word that says that a buffer went here.
	std::uint32_t known = 0;      ///< Granules, once this domain was seen to have part in the zone. Atomic.

	std::uint32_t granules() const { return static_cast<std::uint32_t>(bytes / granule_bytes); }
	// Granules that this domain may have buffers at.
	std::uint32_t known_granules() const { return __atomic_load_n(&known, __ATOMIC_RELAXED); }
	Record &record(DomainId domain, std::uint32_t granule) const
	{
		return reinterpret_cast<Record *>(records + domain * records_bytes)[granule];
	}
	// This domain's, of what begins at so many bytes from the zone's beginning.
	Record &record_at(std::size_t offset) const
	{
		static_assert(granule_bytes % sizeof(Record) == 0);
		return *reinterpret_cast<Record *>(reinterpret_cast<std::byte *>(mine) +
						   offset / (granule_bytes / sizeof(Record)));
	}
	Word word(DomainId domain, std::uint32_t granule) const
	{
		return {record(domain, granule).word.load(std::memory_order_acquire)};
	}
	Word loan(DomainId domain, std::uint32_t granule) const
	{
		return {record(domain, granule).loan.load(std::memory_order_acquire)};
	}
	Run run(std::uint32_t granule) const
	{
		return {runs[granule / (page_bytes / granule_bytes)].load(std::memory_order_acquire)};
	}
	bool member(DomainId domain) const
	{
		return header->members.load(std::memory_order_seq_cst) >> domain & 1;
	}
};

/// Changes a word if it is still what was read. Sequentially consistent: what is read next is read after it.
inline bool change(std::atomic<std::uint64_t> &at, Word &old, Word now)
{
	ORBIT_ISOLATION_STEP();
	const bool done = at.compare_exchange_strong(old.bits, now.bits, std::memory_order_seq_cst);
	ORBIT_ISOLATION_STEP();
	return done;
}

/// The same for who does not care what there is if it is not that.
inline bool replace(std::atomic<std::uint64_t> &at, Word old, Word now)
{
	ORBIT_ISOLATION_STEP();
	const bool done = __sync_bool_compare_and_swap(reinterpret_cast<std::uint64_t *>(&at), old.bits, now.bits);
	ORBIT_ISOLATION_STEP();
	return done;
}

/// Where a domain has which rights.
enum class Rights { none, read, read_and_write };
struct Range {
	std::size_t offset; ///< From the beginning of the heap, whole pages.
	std::size_t bytes;
	Rights rights;
};

/// Who has a buffer, by following the links from its home.
struct Owner {
	DomainId domain;  ///< The last that the links lead to.
	Word word;        ///< Its word.
	bool in_flight;   ///< It has given the buffer away, and nobody says to have it.
};
Owner find_owner(const View &view, std::uint32_t granule, DomainId home, DomainId domains);

/// What became of a dead domain's buffers.
struct Reclaimed {
	std::size_t buffers = 0;   ///< Were its own, or on their way from it or to it: are free, or will be at collect().
	std::size_t kept = 0;      ///< Came from it, and are survivors': stay theirs.
	std::size_t loans = 0;     ///< Were lent to it: are back.
	std::size_t conflicts = 0; ///< Several survivors said that they have the same buffer from it.
};

/// Who has what. Exact only while no domain does anything; others' moves make it off by them.
struct Census {
	std::size_t buffers = 0;                    ///< That are not free.
	std::size_t owned[max_domains] = {};        ///< By each domain, lent ones with them.
	std::size_t lent[max_domains] = {};         ///< By each domain.
	std::size_t in_flight = 0;                  ///< Between living domains.
	std::size_t in_flight_to[max_domains] = {}; ///< Of these, to each domain.
	std::size_t returned = 0;                   ///< Dropped or reclaimed, not yet collected by their home.
	std::size_t lost = 0;                       ///< Nobody has them, and nobody will: must be 0.
	std::size_t twice = 0; ///< Somebody other than the owner says that it is his: 0 unless records are scribbled over.
};

/// The same of a copy of a heap, as much of it as is before the zones' own memory. It may be another program's, and is not
/// trusted. Nothing is written to it, and nobody else may write to it meanwhile. False: it is no heap, or not whole.
bool census_of(std::span<std::byte> memory, Census *census);

/// The supervisor's side. Not thread-safe: one thread at a time; domains go on meanwhile.
class Heap {
public:
	/// How many bytes a heap takes; 0 for what cannot be: no domain or more than 63, no zone or more than 32, or
	/// a zone of no page or of 256 GiB or more.
	static std::size_t bytes(DomainId domains, std::span<const std::size_t> zone_bytes);

	/// Makes a heap in `memory`: zeroes, at a page's beginning, at least bytes() long, and there for as long as
	/// any domain has it. Domains are numbered from 1 to `domains`. EINVAL.
	static result<Heap> create(std::span<std::byte> memory, DomainId domains, std::span<const std::size_t> zone_bytes);

	/// Gives a domain part in a zone. EINVAL: no such domain or zone; EEXIST: it has part already. Map the
	/// ranges anew before it may use the zone.
	result<void> add(DomainId domain, std::uint32_t zone);

	/// Grants a member a run of memory to allocate buffers in, of whole pages. What was there is there still: members
	/// could read it already. ENOSPC: no run of so many pages is free; EACCES: no member. Nothing has changed then.
	result<void> grant(DomainId domain, std::uint32_t zone, std::size_t bytes);

	/// All the ranges of the heap, with the rights that a domain gets there.
	std::vector<Range> ranges(DomainId domain) const;

	/// A domain is dead, and nothing writes to memory for it any more, devices included. Its number may be
	/// given to a new domain after this. EINVAL.
	result<Reclaimed> reclaim(DomainId dead);

	/// Frees the runs of dead domains of which survivors have nothing any more. Returns how many.
	std::size_t sweep();

	Census census() const;

	/// Free memory of a zone that is not granted to anybody, in bytes.
	std::size_t unused(std::uint32_t zone) const;

private:
	struct Granted {
		DomainId home;
		std::uint32_t first, pages;
	};

	Heap() = default;
	void set_run(std::uint32_t zone, const Granted &run, DomainId home);
	void settle(const View &view, std::uint32_t granule, DomainId home, DomainId dead, Word last, Reclaimed &report);

	std::byte *base_ = nullptr;
	Header *header_ = nullptr;
	std::vector<View> views_;
	std::vector<std::vector<Granted>> granted_;
};

/// A domain's side, without types: <orbit/rref.hpp> puts them on. Thread-safe. What it keeps is in private memory.
///
/// What a move takes in the common case is in <orbit/rref.hpp>, without a lock or a call, and changes nothing unless
/// all is as it mostly is. If not, the functions here look at everything anew.
class Room {
protected:
	// The first, so that to find one is a shift and a sum.
	View views_[max_zones];

public:
	Room(const Room &) = delete;
	Room &operator=(const Room &) = delete;

	DomainId self() const noexcept { return self_; }

	/// Looks for buffers that others have dropped or that were reclaimed. Allocation does it before it fails.
	void collect();

protected:
	Room() = default;
	~Room() = default;

	/// EINVAL: no heap there, or no such domain.
	int attach(std::span<std::byte> memory, DomainId self);

	/// A buffer for `count` elements of `size` bytes, with its word OWNED. 0, or a positive errno value: EACCES:
	/// no part in the zone; EINVAL: no element, or 2^32 or more; ENOSPC: the zone, or what this domain was
	/// granted of it, is full.
	int allocate(std::uint32_t zone, std::uint32_t type, std::size_t size, std::size_t count, View **view,
		     std::uint32_t *granule, Word *word);

public:
	// For rref.

	/// The end of an rref that owned a buffer; if the buffer is lent, at the end of the loan.
	void drop(View &view, std::uint32_t granule, std::uint32_t serial, std::size_t bytes) noexcept;
	void end_borrow(View &view, std::uint32_t granule, std::uint32_t entry) noexcept;

protected:
	enum class Backed { no, yes, by_self };

	View *find(const Handle &handle) noexcept
	{
		if (handle.zone >= zones_ || handle.index >= views_[handle.zone].granules()) [[unlikely]]
			return nullptr;
		return &views_[handle.zone];
	}

	/// Whether links lead from the buffer's home, or from this domain, to `domain`, whose word is `word`.
	Backed backed(const View &view, std::uint32_t granule, DomainId home, DomainId domain, Word word) const noexcept
	{
		if (domain == home) [[likely]]
			return Backed::yes;
		return follow(view, granule, home, domain, word);
	}
	Backed follow(const View &view, std::uint32_t granule, DomainId home, DomainId domain, Word word) const noexcept;

	/// 0 or a positive errno value; then *word is what the word is now, or nothing if the buffer is gone.
	int send_again(View &view, std::uint32_t granule, Word *word, DomainId to) noexcept;

	int receive_again(const Handle &handle, DomainId from, std::uint32_t type, std::size_t size, bool array,
			  std::uint32_t *count, Word *word) noexcept;
	/// A word `now` was written, where `old` was, and the sender's is not `theirs` any more. 0 if the buffer is
	/// received nevertheless.
	int confirm_receive(const View &view, std::uint32_t granule, DomainId from, Word theirs, Word old,
			    Word now) noexcept;
	/// The same, where the buffer has come back to a domain that it had gone from.
	int confirm_return(const View &view, std::uint32_t granule, DomainId from, Word theirs, Word now) noexcept;
	int undo_send(View &view, std::uint32_t granule, DomainId to, std::uint32_t serial, Word *word) noexcept;
	int begin_loan(View &view, std::uint32_t granule, std::uint32_t serial, bool borrowed, DomainId to,
		       std::uint32_t *generation) noexcept;
	int end_loan_of(View &view, std::uint32_t granule, DomainId to, std::uint32_t generation) noexcept;
	int begin_borrow(const Handle &handle, DomainId from, std::uint32_t type, std::size_t size, bool array,
			 std::uint32_t *count) noexcept;
	bool loan_holds(const View &view, std::uint32_t granule, std::uint32_t entry) const noexcept;
	std::uint32_t domains() const noexcept { return domains_; }

	DomainId self_ = 0, domains_ = 0;
	std::uint64_t going_[max_domains] = {}; // Word::going() to others, 0 if there is no such other domain
	std::ptrdiff_t away_[max_domains] = {}; // of another domain's records from this one's, in bytes

private:
	struct Dropped {
		View *view;
		std::uint32_t granule, serial;
		std::size_t bytes;
	};
	struct Fresh {
		std::uint32_t granule, granules; // for any type and size
	};
	struct Slot {
		std::uint32_t granule, granules;
	};
	struct Store {
		std::vector<Fresh> fresh;
		std::vector<std::uint32_t> known; // runs, by their first page
		std::vector<Slot> slots;          // all that were cut off
		std::map<std::pair<std::uint32_t, std::uint32_t>, std::vector<std::uint32_t>> free; // by type and granules
	};

	/// Ends what was refused in the middle of a reclaim: true if it is to be tried again.
	bool reclaim_passed(std::uint32_t &seen) const noexcept;
	bool has_part(View &view) noexcept;
	template <class Try> int try_handle(const Handle &handle, DomainId from, std::uint32_t type, Try &&act) noexcept;
	int try_receive(View &view, const Handle &handle, DomainId from, Run run, std::size_t size, bool array,
			std::uint32_t *count, Word *word) noexcept;
	int try_borrow(View &view, const Handle &handle, DomainId from, Run run, std::size_t size, bool array,
		       std::uint32_t *count) noexcept;
	int loan_is_backed(const View &view, std::uint32_t granule, DomainId from, std::uint32_t generation) const noexcept;
	int check_shape(const View &view, std::uint32_t granule, Run run, std::uint32_t type, std::size_t size,
			bool array, std::uint32_t *count) const noexcept;
	bool find_runs(View &view, Store &store);
	void collect(View &view, Store &store);
	static void merge(const View &view, Store &store);

	Header *header_ = nullptr;
	std::uint32_t zones_ = 0;
	std::vector<Store> stores_;
	std::vector<Dropped> dropped_;
	std::mutex mutex_; // stores_, dropped_
};

} // namespace isolation
} // namespace orbit

#endif
