// SPDX-License-Identifier: MIT
//
// The address window: one range of addresses, reserved before the first pool or
// orbit exists, in which all pools lie. What is reserved in the main program is
// reserved in its orbits, because they are forked from it; so an address that is
// handed out later is free on both sides.
#ifndef LIBORBIT_COMMON_RESERVATION_H
#define LIBORBIT_COMMON_RESERVATION_H

#include <cstddef>
#include <cstdint>

namespace liborbit {

// A piece of the window. Its user owns the struct; while it is taken it is linked
// into the allocator, which needs no memory of its own.
struct Range {
	std::uintptr_t start;
	std::size_t bytes;
	Range *next;
};

// First fit over an ordered list: pools are few and long-lived. Not thread-safe.
class RangeAllocator {
public:
	void reset(std::uintptr_t start, std::size_t bytes);
	bool take(Range *range, std::size_t bytes); // false: no room
	bool take_at(Range *range, std::uintptr_t start, std::size_t bytes); // false: not free
	void release(Range *range);
	const Range *first() const { return first_; }
	// Is any of these bytes, which end below the end of all addresses, within?
	bool overlaps(std::uintptr_t start, std::size_t bytes) const;

private:
	std::uintptr_t start_ = 0;
	std::size_t bytes_ = 0;
	Range *first_ = nullptr;
};

// "64M" and the like to bytes; false if it is no size.
bool parse_size(const char *text, std::size_t *bytes);

std::size_t page_size();

// Rounded up; the caller has made sure that it does not overflow.
std::size_t whole_pages(std::size_t bytes);

// Reserve the window. bytes 0: the default size. -EALREADY if there is one.
int reserve_window(std::size_t bytes);

// Reserve the window with the default size unless there is one.
int ensure_reservation();

// Take a range, which stays reserved until something is mapped over it.
int take_addresses(Range *range, std::size_t bytes);

// The same at an address, within the reservation or not. -EEXIST: something is there.
int take_addresses_at(Range *range, std::uintptr_t start, std::size_t bytes);

// In an orbit: for a pool that main has made since, and that may lie outside of the reservation. It
// is the orbit's own memory that must not be there: -EADDRINUSE.
int claim_addresses(std::uintptr_t start, std::size_t bytes);

// Replace what is mapped there by a reservation, or by nothing outside of it, and give the range back.
int release_addresses(Range *range);

// Does some memory overlap the reservation, or a range outside of it?
bool overlaps_reservation(std::uintptr_t start, std::size_t bytes);

// Reserve addresses for orbits that inherit the minimum to have memory of their own at,
// which so lies at no address that the main program uses.
int reserve_hole(Range *hole);

// How many forks lie between the process that reserved the window and this one.
// A handle that was made in another generation belongs to another process.
unsigned generation();

} // namespace liborbit

#endif // LIBORBIT_COMMON_RESERVATION_H
