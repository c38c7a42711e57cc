// SPDX-License-Identifier: MIT
#ifndef LIBORBIT_FUTEX_H
#define LIBORBIT_FUTEX_H

#include <climits>
#include <cstdint>
#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace liborbit {

// Wait as long as a word of this process has a value; may return earlier.
inline void futex_wait(std::uint32_t *word, std::uint32_t value)
{
	syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, value, nullptr, nullptr, 0);
}

// Wake all who wait for it. The memory may be gone: then nobody, or somebody for nothing.
inline void futex_wake(std::uint32_t *word)
{
	syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, INT_MAX, nullptr, nullptr, 0);
}

} // namespace liborbit

#endif // LIBORBIT_FUTEX_H
