// SPDX-License-Identifier: MIT
//
// Who uses the store, and remembers what it was told.
#pragma once

#include "store.orbit.hpp"

#include <orbit/domain.hpp>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <condition_variable>
#include <csignal>
#include <cstdio>
#include <mutex>
#include <random>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

namespace kv {

using namespace std::chrono_literals;
using Clock = std::chrono::steady_clock;

inline constexpr unsigned keys = 40; // of each client

// Puts of all threads: those that come while a group is made safe are the next one.
class GroupCommit {
public:
	GroupCommit(Store &store, orbit::isolation::Endpoint &endpoint) : store_(store), endpoint_(endpoint) {}

	// 0: it is safe; or a positive errno value: it may be there or not.
	int put(const Put &put)
	{
		Waiting mine{.put = put};
		std::unique_lock lock(mutex_);

		waiting_.push_back(&mine);
		while (!mine.done) {
			if (leader_) {
				changed_.wait(lock);
				continue;
			}
			leader_ = true;
			const auto end = waiting_.begin() + static_cast<std::ptrdiff_t>(std::min(waiting_.size(), most_puts));
			const std::vector<Waiting *> group(waiting_.begin(), end);
			waiting_.erase(waiting_.begin(), end);
			lock.unlock();
			const int error = commit(group);
			lock.lock();
			for (Waiting *one : group) {
				one->error = error;
				one->done = true;
			}
			groups_++;
			leader_ = false;
			changed_.notify_all();
		}
		return mine.error;
	}

	unsigned long groups() const
	{
		const std::scoped_lock locked(mutex_);
		return groups_;
	}

private:
	struct Waiting {
		const Put &put;
		int error = 0;
		bool done = false;
	};

	int commit(const std::vector<Waiting *> &group)
	{
		auto message = endpoint_.make<Group>(orbit::Zone{0});

		if (!message)
			return message.error().code();
		for (const Waiting *one : group)
			(*message)->put[(*message)->puts++] = one->put;
		const auto done = store_.put(*message);
		return done ? 0 : done.error().code();
	}

	Store &store_;
	orbit::isolation::Endpoint &endpoint_;
	mutable std::mutex mutex_;
	std::condition_variable changed_;
	std::vector<Waiting *> waiting_;
	bool leader_ = false;
	unsigned long groups_ = 0;
};

inline Key key_of(unsigned client, unsigned key)
{
	Key made{};

	made.bytes = static_cast<std::uint32_t>(std::snprintf(made.text, sizeof(made.text), "client %u, key %u", client, key));
	return made;
}

inline Value value_of(unsigned client, unsigned key, std::uint64_t version)
{
	Value made{};
	std::minstd_rand random(static_cast<unsigned>(client * 1000003 + key * 4099 + version));

	made.bytes = static_cast<std::uint32_t>(
		std::snprintf(made.text, sizeof(made.text), "%u/%u/%llu ", client, key, static_cast<unsigned long long>(version)));
	for (const auto end = 40 + random() % 200; made.bytes < end;)
		made.text[made.bytes++] = static_cast<char>('a' + random() % 26);
	return made;
}

// What a client knows: the version that was acknowledged last, and perhaps later ones whose fate it was not told.
struct Known {
	std::uint64_t acknowledged = 0, last = 0;

	bool allows(unsigned client, unsigned key, std::string_view text) const
	{
		for (std::uint64_t version = acknowledged; version <= last; version++) {
			const Value value = value_of(client, key, version);

			if (version && std::string_view(value.text, value.bytes) == text)
				return true;
		}
		return false;
	}
};

struct Counts {
	std::atomic<unsigned long> puts{0}, gets{0}, failed{0}, wrong{0};
};

class Client {
public:
	explicit Client(unsigned number) : number_(number), random_(number) {}

	void run(GroupCommit &commit, Store &store, Counts &counts, const std::atomic<bool> &stop)
	{
		while (!stop) {
			const auto key = static_cast<unsigned>(random_() % keys);
			Known &known = known_[key];

			if (random_() % 2 || !known.acknowledged) {
				if (commit.put({key_of(number_, key), value_of(number_, key, ++known.last)})) {
					counts.failed++;
				} else {
					known.acknowledged = known.last;
					counts.puts++;
				}
			} else if (const auto value = store.get(key_of(number_, key)); !value) {
				// A key that was acknowledged is there, whatever else may be wrong.
				(!value.error().from_method() || value.error().code() != ENOENT ? counts.failed : counts.wrong)++;
			} else {
				counts.gets++;
				counts.wrong += !known.allows(number_, key, {value->text, std::min(value->bytes, std::uint32_t{most_value})});
			}
		}
	}

	// How many keys are not as they should be, by whatever gets them.
	template <class Get> unsigned long wrong(Get &&get) const
	{
		unsigned long wrong = 0;

		for (unsigned key = 0; key < keys; key++) {
			std::string text;
			const bool there = get(key_of(number_, key), text);

			if (known_[key].acknowledged || there)
				wrong += !there || !known_[key].allows(number_, key, text);
		}
		return wrong;
	}

private:
	unsigned number_;
	std::minstd_rand random_;
	Known known_[keys];
};


// All clients at work, and somebody who kills. Returns how many gets were wrong.
inline unsigned long work(const char *title, std::chrono::seconds length, std::vector<Client> &all, GroupCommit &commit,
			  Store &store, const std::vector<orbit::Domain *> &victims)
{
	Counts counts;
	std::atomic<bool> stop{false};
	std::vector<std::thread> threads;
	unsigned kills = 0;
	const auto groups = commit.groups();
	const auto begin = Clock::now();

	for (Client &client : all)
		threads.emplace_back([&] { client.run(commit, store, counts, stop); });
	for (auto next = begin + 1s; next <= begin + length; next += 1s) {
		std::this_thread::sleep_until(next);
		if (victims.empty())
			continue;
		if (const pid_t pid = victims[kills % victims.size()]->pid(); pid > 0 && kill(pid, SIGKILL) == 0)
			kills++;
	}
	stop = true;
	const double seconds = std::chrono::duration<double>(Clock::now() - begin).count();
	const auto puts = counts.puts.load(), gets = counts.gets.load();
	for (std::thread &thread : threads)
		thread.join();
	std::printf("%-28s %7.0f puts/s %7.0f gets/s  %4.1f puts in a group  %2u kills  %lu failed  %lu wrong\n", title,
		    static_cast<double>(puts) / seconds, static_cast<double>(gets) / seconds,
		    static_cast<double>(puts) / static_cast<double>(std::max(commit.groups() - groups, 1UL)), kills, counts.failed.load(),
		    counts.wrong.load());
	std::fflush(stdout);
	return counts.wrong;
}

} // namespace kv
