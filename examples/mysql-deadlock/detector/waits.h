// SPDX-License-Identifier: MIT
//
// Who waits for whom: the memory that a detector of deadlocks looks at, and what it finds. Nothing here knows about orbits
// or servers. C++11, as servers are.
#ifndef MYSQL_DEADLOCK_WAITS_H
#define MYSQL_DEADLOCK_WAITS_H

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>

namespace deadlock {

/// A transaction that waits.
struct Wait {
	std::uint64_t number;	   ///< Of the wait: later ones have greater numbers. 0: there is none in this slot.
	std::uint64_t transaction; ///< The server's name for it, which is not 0.
	std::uint64_t waits_for;   ///< The name of the transaction that it waits for; 0 if that is over.
	std::uint64_t weight;	   ///< What is lost if it is rolled back.
};

/// What lies in front of the slots.
struct Header {
	std::uint64_t used; ///< There is nothing in the slots from here on.
	std::uint64_t pad[3];
};
static_assert(sizeof(Wait) == sizeof(Header), "the slots follow the header");

/// By whose rule the victim is chosen. Both servers roll back the one with the least weight, and of several such the one
/// whose wait closed the cycle. They differ about which it is if that is none of them.
enum class Rule : std::uint32_t { mariadb, mysql };

/// A cycle of transactions that wait for each other.
struct Deadlock {
	std::uint64_t victim_number; ///< The number of the victim's wait,
	std::uint64_t latest_number; ///< and of the wait that began last.
	std::uint32_t victim;	     ///< The victim's slot,
	std::uint32_t latest;	     ///< and that of the one who waited last.
	std::uint64_t length;	     ///< How many there are.
};

constexpr std::uint32_t no_slot = UINT32_MAX;

/// How many slots memory of that size has.
constexpr std::size_t slots_of(std::size_t bytes)
{
	return bytes < sizeof(Header)				? 0
	       : (bytes - sizeof(Header)) / sizeof(Wait) < no_slot ? (bytes - sizeof(Header)) / sizeof(Wait)
								: no_slot - 1;
}

/// The server's side. Every function takes the same few steps however many wait, and only the constructor allocates. Not
/// thread-safe: the lock that guards the server's own list of waits guards this one.
class Waits {
public:
	/// The memory has to be zero at first, aligned to 8, and to outlive this.
	Waits(void *memory, std::size_t bytes)
		: header_(static_cast<Header *>(memory)), waits_(static_cast<Wait *>(memory) + 1),
		  slots_(static_cast<std::uint32_t>(slots_of(bytes))), free_(new std::uint32_t[slots_])
	{
	}

	/// A transaction begins to wait; the slot to name in what follows. no_slot: there is none left.
	std::uint32_t begin(std::uint64_t transaction, std::uint64_t waits_for, std::uint64_t weight)
	{
		std::uint32_t slot;

		if (nr_free_)
			slot = free_[--nr_free_];
		else if (header_->used < slots_)
			slot = static_cast<std::uint32_t>(header_->used++);
		else
			return no_slot;
		waits_[slot] = {++last_number_, transaction, waits_for, weight};
		nr_++;
		return slot;
	}

	/// It waits for another one; 0 for none.
	void change(std::uint32_t slot, std::uint64_t waits_for) { waits_[slot].waits_for = waits_for; }

	/// It does not wait any more.
	void end(std::uint32_t slot)
	{
		waits_[slot].number = 0;
		free_[nr_free_++] = slot;
		nr_--;
	}

	/// The number of the wait in a slot; 0 if there is none, or no such slot.
	std::uint64_t number(std::uint64_t slot) const
	{
		return slot < slots_ && slot < header_->used ? waits_[slot].number : 0;
	}

	/// Whether any of them waits for a transaction. Where there are more than it looks at, it says so, too.
	bool is_waited_for(std::uint64_t transaction) const
	{
		constexpr std::size_t most = 1024;

		return used() > most || std::any_of(waits_, waits_ + used(), [=](const Wait &wait) {
			       return wait.number && wait.waits_for == transaction;
		       });
	}

	std::size_t slots() const { return slots_; }
	std::size_t used() const { return static_cast<std::size_t>(header_->used); }
	std::size_t nr() const { return nr_; }
	/// How much of the memory is in use.
	std::size_t bytes() const { return sizeof(Header) + used() * sizeof(Wait); }

private:
	Header *header_;
	Wait *waits_;
	std::uint32_t slots_;
	// Not in the memory, for what is written there costs a page of every snapshot.
	std::unique_ptr<std::uint32_t[]> free_;
	std::uint32_t nr_free_ = 0;
	std::uint32_t nr_ = 0;
	std::uint64_t last_number_ = 0;
};

} // namespace deadlock

#endif // MYSQL_DEADLOCK_WAITS_H
