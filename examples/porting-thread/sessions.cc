// SPDX-License-Identifier: MIT
//
// Before the port, see docs/porting.md: a server that keeps sessions, and a maintenance
// task of it that drops those nobody has used for long. Plain C++, no orbits.
#include <atomic>
#include <cstdint>
#include <cstdio>
#include <mutex>
#include <string>
#include <thread>
#include <unordered_map>
#include <vector>

constexpr long kIdle = 25; // ticks without use, after which a session goes

struct Session {
	std::string user;
	long last_used = 0;
};

struct Statistics {
	long live = 0, expired = 0, letters = 0;
};

class Server {
public:
	void use(std::uint64_t id, long now)
	{
		const std::lock_guard guard(lock_);
		Session &session = sessions_[id];

		session.user = "user number " + std::to_string(id);
		session.last_used = now;
	}

	// The maintenance task. It runs in a thread of its own, and keeps everybody out
	// while it looks at all sessions.
	void sweep(long now)
	{
		const std::lock_guard guard(lock_);

		statistics_ = {.expired = statistics_.expired};
		for (auto at = sessions_.begin(); at != sessions_.end();) {
			if (now - at->second.last_used > kIdle) {
				statistics_.expired++;
				at = sessions_.erase(at);
			} else {
				statistics_.live++;
				statistics_.letters += static_cast<long>(at->second.user.size());
				++at;
			}
		}
	}

	Statistics statistics()
	{
		const std::lock_guard guard(lock_);

		return statistics_;
	}

private:
	std::mutex lock_;
	std::unordered_map<std::uint64_t, Session> sessions_;
	Statistics statistics_;
};

int main()
{
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
		std::thread(&Server::sweep, &server, tick).join();

		const Statistics statistics = server.statistics();

		std::printf("tick %ld: %ld live, %ld expired, %ld letters\n", tick, statistics.live,
			    statistics.expired, statistics.letters);
	}
	stop = true;
	for (auto &thread : threads)
		thread.join();
}
