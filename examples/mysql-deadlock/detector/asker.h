// SPDX-License-Identifier: MIT
//
// The server's side of the orbit: asks it, and takes its answers. C++11, as servers are.
#ifndef MYSQL_DEADLOCK_ASKER_H
#define MYSQL_DEADLOCK_ASKER_H

#include "desk.h"
#include "task.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

struct orbit_handle;
struct orbit_outcome;
struct orbit_pool;
struct orbit_shared;
struct orbit_task;

namespace deadlock {

/// An orbit that looks for deadlocks, and the memory that it looks at. One question at a time; not thread-safe.
class Asker {
public:
	/// What comes of a question.
	enum class Answer {
		here,	///< It is there.
		pending, ///< Not yet.
		failed,	///< There will be none; see why().
	};

	Asker() = default;
	Asker(const Asker &) = delete;
	Asker &operator=(const Asker &) = delete;

	/// @return Whether there can be orbits here.
	/// @param reason If not, why, and what to do; of `size` bytes.
	static bool may_have(char *reason, std::size_t size);

	/// Make the memory for questions of up to so many bytes, if there is none yet; zero at first.
	/// @param for_orbit If not, it may be memory that no orbit can see.
	/// @return Whether that worked.
	/// @param reason If not, why; of `size` bytes.
	bool make_memory(std::size_t bytes, bool for_orbit, char *reason, std::size_t size);
	void *memory() const { return memory_; }
	std::size_t size() const { return size_; } ///< Of memory().

	/// Make the orbit. Needs memory that it can see; the orbit is a copy of the process, so that is quick before the process has much.
	/// @param name Of the orbit.
	/// @return Whether that worked.
	/// @param reason If not, why; of `size` bytes.
	bool make(const char *name, char *reason, std::size_t size);

	/// Let the orbit go, and a question with it. There can be another one by make().
	void leave();
	/// The same, and free the memory. Whoever does not call it leaves that to the end of the process.
	void close();

	/// Have the first so many bytes of memory() looked at, which Waits has made, as they are now: they can be changed as soon as this
	/// returns. It does not wait, and is for where the lock is held that guards them; send() has to follow.
	void put(std::size_t bytes, Rule rule);
	/// Send what was put. It does not wait.
	/// @return Whether that worked; if not, see why().
	bool send();
	/// Wait for the answer, for so long at most.
	/// @param found What the orbit has found, if the answer is here: anything that a process gone mad could write.
	Answer wait(std::uint64_t ns, std::vector<Deadlock> &found);

	/// Why there was no answer.
	const char *why() const { return why_; }
	/// Whether the orbit has died of that; there is another one for the next question.
	bool has_died() const { return has_died_; }

private:
	int call(std::uint64_t (*entry)(const void *, std::size_t), const void *argument, std::size_t size);
	int take_update(const orbit_outcome &outcome, std::vector<Deadlock> &found);
	void send_away();
	void drop_task();
	Answer fail(int error, const orbit_outcome &outcome);

	orbit_pool *pool_ = nullptr;
	orbit_shared *desk_ = nullptr;
	orbit_handle *orbit_ = nullptr;
	void *memory_ = nullptr;
	std::size_t size_ = 0;
	Customer customer_{nullptr};
	// Of serve(), which answers small questions at the desk; or of look(), for a large one.
	orbit_task *task_ = nullptr;
	bool looks_ = false;
	int error_ = 0; // of put()
	bool has_died_ = false;
	char why_[256] = "";
};

/// For how long to leave alone what has failed: the longer, the more often it has. Microseconds. Not thread-safe.
class Backoff {
public:
	/// It has failed. @return For how long.
	std::uint64_t fail(std::uint64_t now)
	{
		const std::uint64_t length = std::min(first << std::min(failures_, 20U), longest);

		failures_++;
		until_ = now + length;
		return length;
	}

	/// It has worked.
	void forget() { failures_ = 0; }
	/// Begin anew.
	void reset() { failures_ = 0, until_ = 0; }

	/// Whether that is over, or never was.
	/// @param clock Tells the time; only asked if need be.
	template <typename Clock> bool is_over(const Clock &clock)
	{
		if (until_ && clock() >= until_)
			until_ = 0;
		return !until_;
	}

private:
	static constexpr std::uint64_t first = 100000, longest = 60000000;

	unsigned failures_ = 0;
	std::uint64_t until_ = 0;
};

} // namespace deadlock

#endif // MYSQL_DEADLOCK_ASKER_H
