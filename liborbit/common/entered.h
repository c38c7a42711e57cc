// SPDX-License-Identifier: MIT
//
// A signal handler of the application may call the library in a thread that it has interrupted in the
// library, which may hold locks there, its own or the allocator's. So each function says that it has been
// entered, and one that finds that refuses, with -EDEADLK.
#ifndef LIBORBIT_COMMON_ENTERED_H
#define LIBORBIT_COMMON_ENTERED_H

#include <cerrno>
#include <pthread.h>

namespace liborbit {

// A function that destroys something cannot refuse. It leaves it to be destroyed when the thread is out of
// the library.
struct Destroyable {
	Destroyable *next_left;
	void (*destroy)(Destroyable *);
};

// Initial-exec: a call would cost more than all of what is done with them.
[[gnu::tls_model("initial-exec")]] extern constinit thread_local bool entered;
[[gnu::tls_model("initial-exec")]] extern constinit thread_local Destroyable *left_over;

void leave_over(Destroyable *what, void (*destroy)(Destroyable *));
void destroy_left_over();

// In the process of an orbit, which begins in a function of the library and does not leave it.
inline void forget_entered()
{
	entered = false;
	left_over = nullptr;
}

// The thread is in the library as long as this exists, if there is no error.
class Marked {
public:
	Marked() : error_(__atomic_load_n(&entered, __ATOMIC_RELAXED) ? -EDEADLK : 0)
	{
		if (!error_) [[likely]]
			__atomic_store_n(&entered, true, __ATOMIC_RELAXED);
		__atomic_signal_fence(__ATOMIC_SEQ_CST);
	}
	Marked(const Marked &) = delete;
	~Marked()
	{
		__atomic_signal_fence(__ATOMIC_SEQ_CST);
		if (error_) [[unlikely]]
			return;
		__atomic_store_n(&entered, false, __ATOMIC_RELAXED);
		__atomic_signal_fence(__ATOMIC_SEQ_CST);
		// From here on a handler does it itself.
		if (__atomic_load_n(&left_over, __ATOMIC_RELAXED)) [[unlikely]]
			destroy_left_over();
	}
	int error() const { return error_; }

private:
	const int error_;
};

// A thread that is cancelled in the library would leave its locks held, too. So it is not, before it returns
// to the application. Both ways cost sixty instructions.
class NotCancelled {
public:
	explicit NotCancelled(bool needed = true) : needed_(needed)
	{
		if (needed_)
			pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &before_);
	}
	NotCancelled(const NotCancelled &) = delete;
	~NotCancelled()
	{
		if (needed_)
			pthread_setcancelstate(before_, nullptr);
	}

private:
	int before_ = PTHREAD_CANCEL_ENABLE;
	const bool needed_;
};

class Entered {
public:
	explicit Entered(bool may_be_cancelled = true) : whole_(may_be_cancelled && !marked_.error()) {}
	int error() const { return marked_.error(); }

private:
	const Marked marked_;
	const NotCancelled whole_;
};

// Where the library calls the application, and holds no lock: that may call the library.
class Outside {
public:
	Outside() : before_(entered) { set(false); }
	Outside(const Outside &) = delete;
	~Outside() { set(before_); }

private:
	static void set(bool to)
	{
		__atomic_signal_fence(__ATOMIC_SEQ_CST);
		__atomic_store_n(&entered, to, __ATOMIC_RELAXED);
		__atomic_signal_fence(__ATOMIC_SEQ_CST);
	}

	const bool before_;
};

} // namespace liborbit

#endif // LIBORBIT_COMMON_ENTERED_H
