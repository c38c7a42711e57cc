// SPDX-License-Identifier: MIT
//
// The memory that an orbit may use when its options leave that open.
#ifndef LIBORBIT_COMMON_MEMORY_LIMIT_H
#define LIBORBIT_COMMON_MEMORY_LIMIT_H

#include <cstdint>

namespace liborbit {

// What orbit_options.memory_limit comes to: bytes, or 0 for no limit.
std::uint64_t choose_memory_limit(std::uint64_t asked);

} // namespace liborbit

#endif // LIBORBIT_COMMON_MEMORY_LIMIT_H
