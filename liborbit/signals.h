// SPDX-License-Identifier: MIT
#ifndef LIBORBIT_SIGNALS_H
#define LIBORBIT_SIGNALS_H

#include <csignal>
#include <pthread.h>

namespace liborbit {

// As long as it exists, no handler of the application runs in this thread, or in what is started
// by it: threads and processes inherit the mask.
class SignalsBlocked {
public:
	SignalsBlocked()
	{
		sigset_t every;

		sigfillset(&every);
		pthread_sigmask(SIG_SETMASK, &every, &before_);
	}
	SignalsBlocked(const SignalsBlocked &) = delete;
	~SignalsBlocked() { pthread_sigmask(SIG_SETMASK, &before_, nullptr); }

private:
	sigset_t before_;
};

} // namespace liborbit

#endif // LIBORBIT_SIGNALS_H
