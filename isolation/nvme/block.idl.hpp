// SPDX-License-Identifier: MIT
//
// Block devices as domains: what such a domain serves.
//
// Single calls move or lend their buffers. exchange() has many requests under way: each names a buffer that its caller has
// lent (Endpoint::lend()) and that is lent until its outcome has come; a read's data is written there by the device. Who
// calls exchange() is best served by the Queue of <queue.h>, which also survives crashes of the domain.
//
// Errors of requests, positive errno values: EINVAL, no blocks, more than one request can have, or no such operation;
// EFBIG, past the end; ENODEV, no such space; EFAULT, the buffer is not in the device's memory; ERANGE, it is too small;
// ESTALE and others of Endpoint::borrow(), it is not lent; EAGAIN, as many are under way as may be; ENODATA, the medium has
// lost the data; EOPNOTSUPP; EIO.
#pragma once

#include <orbit/rref.hpp>

namespace orbit::block {

/// What a request can be, and what the device keeps.
struct Limits {
	std::uint64_t max_transfer; ///< Bytes of one read or write.
	std::uint32_t depth;        ///< Requests under way in one queue.
	std::uint32_t queues;       ///< Which callers have: one each, as far as they go.
	bool write_cache;           ///< What is written is safe only after a flush.
	bool write_zeroes;
	bool discard;
	std::uint64_t most_zeroes;    ///< Bytes that one write_zeroes clears; none is longer than 65,536 blocks either.
	std::uint64_t most_discarded; ///< Blocks of one discard.
};

/// A range of blocks: what NVMe calls a namespace.
struct Space {
	std::uint64_t blocks;
	std::uint32_t id;
	std::uint32_t block_bytes;
};

enum class Op : std::uint8_t { read, write, flush, write_zeroes, discard };

/// Requests of one call of exchange(), and their outcomes.
inline constexpr std::size_t most_requests = 128;
inline constexpr std::size_t most_spaces = 64;

struct Request {
	std::uint64_t tag;      ///< Comes back with its outcome. No two under way have the same.
	std::uint64_t lba;
	isolation::Handle data; ///< Of reads and writes: a lent rref<std::byte[]>.
	std::uint32_t space;
	std::uint32_t blocks;   ///< 0 for a flush.
	Op op;
};

struct Outcome {
	std::uint64_t tag;
	std::int32_t error; ///< 0 or a positive errno value.
};

class ORBIT_INTERFACE Device {
public:
	virtual ~Device() = default;

	virtual orbit::result<Limits> limits() = 0;
	ORBIT_MAX(most_spaces) virtual orbit::result<std::vector<Space>> spaces() = 0;

	ORBIT_REPEATABLE virtual orbit::result<orbit::rref<std::byte[]>> read(std::uint32_t space, std::uint64_t lba, std::uint32_t blocks,
									     orbit::rref<std::byte[]> into) = 0;
	ORBIT_REPEATABLE virtual orbit::result<void> write(std::uint32_t space, std::uint64_t lba, std::uint32_t blocks,
							  const orbit::rref<std::byte[]> &from) = 0;
	/// When it returns all that was written before it was called is safe.
	ORBIT_REPEATABLE virtual orbit::result<void> flush(std::uint32_t space) = 0;

	/// Takes requests, and returns outcomes of these and earlier ones; as soon as there are `wait_for`, or after a time
	/// that the device chooses.
	ORBIT_MAX(most_requests)
	virtual orbit::result<std::vector<Outcome>> exchange(ORBIT_MAX(most_requests) std::span<const Request> requests,
							     std::uint32_t wait_for) = 0;
};

/// What a driver's domain is told by its supervisor when it is made, and is asked then. It serves Device by as many objects as
/// it is to have queues. Calls of one do not wait for those of another.
inline constexpr std::size_t most_queues = 63; // as in isolation::DeviceCounters
inline constexpr std::size_t most_interrupts = most_queues + 1;

struct Memory {
	std::uint64_t address; ///< Of all memory that the device reaches, here.
	std::uint64_t bytes;
	std::uint64_t iova;    ///< The device's address of it.
	std::uint32_t queues;  ///< The zone in it that is the driver's alone.
};

struct Settings {
	std::uint32_t queues; ///< 1 to most_queues; the device may have fewer, and then callers share them.
	std::uint32_t depth;  ///< Of each.
	std::uint32_t timeout_ms;
};

/// Of all queues.
struct DriverStatistics {
	std::uint64_t requests;
	std::uint64_t errors;
	std::uint32_t under_way;
	std::uint32_t queues;
	std::uint32_t depth; ///< Of each.
};

class ORBIT_INTERFACE Driver {
public:
	virtual ~Driver() = default;

	/// Takes the device, by its descriptor, and makes it ready. Once. `interrupts`: event descriptors that count them, of the
	/// device itself and of each queue; none: it is polled.
	virtual orbit::result<void> start(std::int32_t device, const Memory &memory, const Settings &settings,
					  ORBIT_MAX(most_interrupts) std::span<const std::int32_t> interrupts) = 0;
	ORBIT_REPEATABLE virtual orbit::result<DriverStatistics> statistics() = 0;
};

} // namespace orbit::block
