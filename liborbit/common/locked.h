// SPDX-License-Identifier: MIT
#ifndef LIBORBIT_COMMON_LOCKED_H
#define LIBORBIT_COMMON_LOCKED_H

#include <pthread.h>

namespace liborbit {

// Holds a lock as long as it exists.
class Locked {
public:
	explicit Locked(pthread_mutex_t *lock) : lock_(lock) { pthread_mutex_lock(lock_); }
	Locked(const Locked &) = delete;
	~Locked() { pthread_mutex_unlock(lock_); }

private:
	pthread_mutex_t *lock_;
};

} // namespace liborbit

#endif // LIBORBIT_COMMON_LOCKED_H
