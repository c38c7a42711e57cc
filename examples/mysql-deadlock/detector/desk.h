// SPDX-License-Identifier: MIT
//
// Where a server and a task that stays for a while meet: memory that they share, with one question and its answer. C++11, as
// servers are.
//
// A call of an orbit takes a few processes' turns, and on a busy machine each is waited for. So when there are many
// questions, one call answers many of them: the task stays until nobody has asked for a while.
#ifndef MYSQL_DEADLOCK_DESK_H
#define MYSQL_DEADLOCK_DESK_H

#include "task.h"
#include "waits.h"

#include <climits>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include <linux/futex.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

namespace deadlock {

/// The memory. Either side takes what the other has written for what anybody might have written.
struct Desk {
	std::uint32_t asked;	///< The number of the last question,
	std::uint32_t answered; ///< and of the last that has been answered. Both are futexes.
	std::uint32_t staffed;	///< Whether the task is there.
	Rule rule;
	std::uint64_t bytes; ///< Of the question; 0: the task is to leave.
	std::uint64_t nr_found;
	Deadlock found[most];
	unsigned char question[most_carried];
};

/// Wait until a futex is not `value`, for so long at most, or for no reason.
inline void sleep_on(std::uint32_t &futex, std::uint32_t value, std::uint64_t ns)
{
	const timespec time = {static_cast<time_t>(ns / 1000000000), static_cast<long>(ns % 1000000000)};

	syscall(SYS_futex, &futex, FUTEX_WAIT, value, &time, nullptr, 0);
}

inline void wake(std::uint32_t &futex)
{
	syscall(SYS_futex, &futex, FUTEX_WAKE, INT_MAX, nullptr, nullptr, 0);
}

/// The server's side. One question at a time; not thread-safe.
class Customer {
public:
	explicit Customer(Desk *desk) : desk_(desk) {}

	/// Put a question there, which is what Waits has made, of up to most_carried bytes; 0 sends the task away.
	void ask(const void *memory, std::size_t bytes, Rule rule)
	{
		desk_->rule = rule;
		desk_->bytes = bytes;
		if (bytes)
			std::memcpy(desk_->question, memory, bytes);
		__atomic_store_n(&desk_->asked, ++number_, __ATOMIC_SEQ_CST);
	}

	/// @return Whether a task sees to the question; if not, call prepare(), and the task.
	bool is_staffed() const { return __atomic_load_n(&desk_->staffed, __ATOMIC_SEQ_CST) == 1; }

	/// Make the desk ready for a task that begins now, whatever the last has left there.
	void prepare()
	{
		__atomic_store_n(&desk_->answered, number_ - 1, __ATOMIC_SEQ_CST);
		__atomic_store_n(&desk_->asked, number_, __ATOMIC_SEQ_CST);
		__atomic_store_n(&desk_->staffed, 1, __ATOMIC_SEQ_CST);
	}

	void ring() { wake(desk_->asked); }

	/// Wait for the answer, for so long at most. @return Whether it is there.
	bool wait(std::uint64_t ns)
	{
		const std::uint32_t seen = __atomic_load_n(&desk_->answered, __ATOMIC_ACQUIRE);

		if (seen != number_)
			sleep_on(desk_->answered, seen, ns);
		return __atomic_load_n(&desk_->answered, __ATOMIC_ACQUIRE) == number_;
	}

	/// Copy the answer. @param found Room for `most`. @return How many, or SIZE_MAX: more than there can be.
	std::size_t take(Deadlock *found) const
	{
		const std::uint64_t count = __atomic_load_n(&desk_->nr_found, __ATOMIC_RELAXED);

		if (count > most)
			return SIZE_MAX;
		std::memcpy(found, desk_->found, count * sizeof(Deadlock));
		return count;
	}

private:
	Desk *desk_;
	std::uint32_t number_ = 0;
};

/// How long a task stays: if nobody asks; and at most, on the clock and by processor time, which is long before its limits.
struct Shift {
	std::uint64_t patience_ns = 20000000, longest_ns = 1000000000, most_work_ns = 100000000;
};

/// Answer questions.
/// @param find Answers one: takes a Question; what it returns has data() and size(), of Deadlock, up to `most`.
/// @return How many it has answered.
template <typename Find> std::uint64_t answer_at(Desk &desk, const Find &find, const Shift &shift)
{
	const auto now = [](clockid_t clock) {
		timespec time = {};

		clock_gettime(clock, &time);
		return static_cast<std::uint64_t>(time.tv_sec) * 1000000000 + static_cast<std::uint64_t>(time.tv_nsec);
	};
	const std::uint64_t begin = now(CLOCK_MONOTONIC), worked = now(CLOCK_PROCESS_CPUTIME_ID);
	std::uint32_t done = __atomic_load_n(&desk.answered, __ATOMIC_SEQ_CST);
	std::uint64_t answers = 0;

	for (bool last = false; !last;) {
		std::uint32_t asked = __atomic_load_n(&desk.asked, __ATOMIC_SEQ_CST);

		if (asked == done) {
			sleep_on(desk.asked, done, shift.patience_ns);
			asked = __atomic_load_n(&desk.asked, __ATOMIC_SEQ_CST);
		}
		if (asked == done || now(CLOCK_MONOTONIC) - begin > shift.longest_ns ||
		    now(CLOCK_PROCESS_CPUTIME_ID) - worked > shift.most_work_ns) {
			// Whoever asks from here on calls another task. Who has asked before is to be answered.
			__atomic_store_n(&desk.staffed, 0, __ATOMIC_SEQ_CST);
			asked = __atomic_load_n(&desk.asked, __ATOMIC_SEQ_CST);
			if (asked == done)
				break;
			last = true;
		}

		const std::uint64_t bytes = __atomic_load_n(&desk.bytes, __ATOMIC_RELAXED);

		if (!bytes || bytes > most_carried)
			break;

		const auto found = find(Question{desk.question, bytes, desk.rule});

		if (found.size())
			std::memcpy(desk.found, found.data(), found.size() * sizeof(Deadlock));
		__atomic_store_n(&desk.nr_found, found.size(), __ATOMIC_RELAXED);
		done = asked;
		__atomic_store_n(&desk.answered, done, __ATOMIC_SEQ_CST);
		wake(desk.answered);
		answers++;
	}
	return answers;
}

/// The task, an orbit_entry: answers questions. Its argument is the address of the desk.
/// @return How many it has answered.
std::uint64_t serve(const void *desk, std::size_t size);

} // namespace deadlock

#endif // MYSQL_DEADLOCK_DESK_H
