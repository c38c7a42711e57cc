// SPDX-License-Identifier: MIT
//
// After the port, see docs/porting.md: the same server as in examples/porting-thread, its
// maintenance task in an orbit.
#include <orbit/memory.hpp>

#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <memory_resource>
#include <mutex>
#include <string>
#include <thread>
#include <unordered_map>
#include <vector>

using namespace std::chrono_literals;

constexpr long kIdle = 25; // ticks without use, after which a session goes

struct Session {
	using allocator_type = std::pmr::polymorphic_allocator<>;

	explicit Session(allocator_type allocator) : user(allocator) {}

	std::pmr::string user;
	long last_used = 0;
};

using Sessions = std::pmr::unordered_map<std::uint64_t, Session>;

struct Statistics {
	long live = 0, expired = 0, letters = 0;
};

// Known to both sides by its number: drop a session that was last used then.
constexpr orbit::Operation<std::uint64_t, long> expire{1};

// The maintenance task. It runs in the orbit and sees the sessions as they were at the
// call. It changes nothing: it proposes. If there is no room for that, require() ends the task.
void sweep(const Sessions *sessions, long now, Statistics *target)
{
	Statistics found;

	for (const auto &[id, session] : *sessions) {
		if (now - session.last_used > kIdle) {
			orbit::require(expire.send(id, session.last_used));
		} else {
			found.live++;
			found.letters += static_cast<long>(session.user.size());
		}
	}
	orbit::require(orbit::send(target, found));
}

class Server {
public:
	Server()
	{
		// What the task may ask for. No user waits for the lock for long: it is held for
		// one session at a time.
		declared_ = targets_.add(found_) && targets_.add(expire, [this](std::uint64_t id, long then) {
			const std::lock_guard guard(lock_);
			const auto at = sessions_->find(id);

			if (at == sessions_->end() || at->second.last_used != then)
				return -EAGAIN; // it has been used since the snapshot
			sessions_->erase(at);
			expired_++;
			return 0;
		});
	}

	void use(std::uint64_t id, long now)
	{
		const std::lock_guard guard(lock_);
		Session &session = sessions_->try_emplace(id).first->second;

		session.user = "user number " + std::to_string(id);
		session.last_used = now;
	}

	// Has an orbit sweep. Returns whether it did; if not, it is told why, and the next
	// sweep gets a fresh process.
	template <class Task> bool maintain(Task task_function, long now)
	{
		auto task = [&] {
			// While the snapshot is taken nobody is halfway through a change.
			const std::lock_guard guard(lock_);

			return janitor_.call_async({.time_limit = 10s}, memory_, task_function, sessions_, now,
						   &found_);
		}();
		const auto done = task ? task->wait() : tl::unexpected(task.error());

		if (!done) {
			std::printf("sweep: %s\n", done.error().message().c_str());
			return false;
		}
		return declared_ && task->apply_all(targets_);
	}

	// By the thread that maintains.
	Statistics statistics() const { return {found_.live, expired_, found_.letters}; }

private:
	std::mutex lock_; // of the sessions
	orbit::Memory memory_ = orbit::Memory::create(1 << 20, {.name = "sessions", .grow = true}).value();
	Sessions *sessions_ = memory_.make<Sessions>();
	orbit::Orbit janitor_ = orbit::Orbit::create({.name = "janitor", .restart = true}).value();
	orbit::Targets targets_ = orbit::Targets::create().value();
	Statistics found_; // what the last sweep found
	long expired_ = 0;
	bool declared_ = false;
};

// A sweep as bad as they come.
void wild_sweep(Sessions *sessions, long, Statistics *)
{
	sessions->clear();
	*static_cast<volatile int *>(nullptr) = 1;
}

int main()
{
	if (const auto probe = orbit::probe(); !probe) {
		std::printf("%s %s\n", probe.reason, probe.advice);
		return 1;
	}
	Server server;
	std::atomic<long> now = 0;
	std::atomic<bool> stop = false;
	std::atomic<unsigned> seen[2]{}; // how far the threads have come
	std::vector<std::thread> threads;

	for (std::uint64_t id = 0; id < 1000; id++)
		server.use(id, now);

	// Two threads serve users: those with even numbers are still there.
	for (unsigned thread = 0; thread < 2; thread++)
		threads.emplace_back([&, thread] {
			while (!stop) {
				const long tick = now;

				for (std::uint64_t id = thread * 500; id < thread * 500 + 500; id += 2)
					server.use(id, tick);
				seen[thread] = static_cast<unsigned>(tick);
			}
		});
	for (long tick = 10; tick <= 50; tick += 10) {
		now = tick;
		for (auto &thread : seen)
			while (thread != static_cast<unsigned>(tick))
				std::this_thread::yield();
		if (tick == 20 && server.maintain(wild_sweep, tick))
			return 1;
		if (!server.maintain(sweep, tick))
			return 1;

		const Statistics statistics = server.statistics();

		std::printf("tick %ld: %ld live, %ld expired, %ld letters\n", tick, statistics.live,
			    statistics.expired, statistics.letters);
	}
	stop = true;
	for (auto &thread : threads)
		thread.join();
}
