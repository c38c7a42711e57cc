// SPDX-License-Identifier: MIT
//
// What a server calls: the detector as the task of an orbit, and as a function. C++11, as servers are.
#ifndef MYSQL_DEADLOCK_TASK_H
#define MYSQL_DEADLOCK_TASK_H

#include "waits.h"

#include <cstddef>
#include <cstdint>

namespace deadlock {

/// How many deadlocks one check tells of, at most; the next tells of the others.
constexpr std::size_t most = 256;

/// The operation by which the task sends them: an array of Deadlock.
constexpr std::uint64_t operation = 1;

/// The task's argument.
struct Question {
	const void *memory; ///< In a pool: what Waits has made.
	std::size_t bytes;
	Rule rule;
};

/// If there is no more than this, it is copied to the desk, which takes less than to have the pool's pages protected again.
constexpr std::size_t most_carried = 4096;

/// The task, an orbit_entry: looks, and sends what it has found if that is any.
/// @return How many it has found.
std::uint64_t look(const void *question, std::size_t size);

/// The same in this process, for memory that nobody changes meanwhile.
/// @param found Room for `most` of them.
/// @return How many it has found.
std::size_t look_here(const Question &question, Deadlock *found);

} // namespace deadlock

#endif // MYSQL_DEADLOCK_TASK_H
