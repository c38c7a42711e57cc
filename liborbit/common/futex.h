// SPDX-License-Identifier: MIT
#ifndef LIBORBIT_COMMON_FUTEX_H
#define LIBORBIT_COMMON_FUTEX_H

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

// A word that counts who is inside, and whose highest bit says that it is closed.
constexpr std::uint32_t gate_closed = 1U << 31;

// After this the word may be gone.
inline void leave_gate(std::uint32_t *gate)
{
	if (__atomic_sub_fetch(gate, 1, __ATOMIC_RELEASE) == gate_closed)
		futex_wake(gate);
}

// Close it, and wait until nobody is inside.
inline void close_gate(std::uint32_t *gate)
{
	std::uint32_t seen = __atomic_or_fetch(gate, gate_closed, __ATOMIC_ACQ_REL);

	while (seen != gate_closed) {
		futex_wait(gate, seen);
		seen = __atomic_load_n(gate, __ATOMIC_ACQUIRE);
	}
}

} // namespace liborbit

#endif // LIBORBIT_COMMON_FUTEX_H
