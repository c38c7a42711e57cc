// SPDX-License-Identifier: MIT
#include "entered.h"

namespace liborbit {

[[gnu::tls_model("initial-exec")]] constinit thread_local bool entered;
[[gnu::tls_model("initial-exec")]] constinit thread_local Destroyable *left_over;

// In a handler, which another may interrupt in turn.
void leave_over(Destroyable *what, void (*destroy)(Destroyable *))
{
	what->destroy = destroy;
	what->next_left = __atomic_load_n(&left_over, __ATOMIC_RELAXED);
	while (!__atomic_compare_exchange_n(&left_over, &what->next_left, what, false, __ATOMIC_RELAXED,
					    __ATOMIC_RELAXED))
		;
}

void destroy_left_over()
{
	Destroyable *next = __atomic_exchange_n(&left_over, nullptr, __ATOMIC_RELAXED);

	while (next) {
		Destroyable *const what = next;

		next = what->next_left;
		what->destroy(what);
	}
}

} // namespace liborbit
