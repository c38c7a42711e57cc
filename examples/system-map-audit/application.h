// SPDX-License-Identifier: MIT
//
// The application: an index of symbols, one lock, and threads that never stop
// changing the index. It knows nothing of orbits.
#ifndef SYSTEM_MAP_AUDIT_APPLICATION_H
#define SYSTEM_MAP_AUDIT_APPLICATION_H

#include "symbol_index.h"
#include "system_map.h"

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

class Application {
public:
	/// Bytes that are more than enough for the index: every symbol with a longer name.
	static std::size_t room_for(const SystemMap &map)
	{
		std::size_t room = 1 << 20;

		for (const Symbol &symbol : map.symbols())
			room += 192 + symbol.name.size() + kSuffix.size();
		return room;
	}

	/// Enters all symbols into the index. Both must outlive this object.
	Application(const SystemMap &map, SymbolIndex *index)
		: map_(map), index_(index), book_(map.symbols().size(), State::kAbsent)
	{
		for (std::size_t which = 0; which < book_.size(); which++)
			change(which, State::kPresent);
	}

	/// Starts threads that change the index until stop().
	void start(unsigned threads)
	{
		for (unsigned thread = 0; thread < threads; thread++)
			writers_.emplace_back([this, thread, threads](std::stop_token stop) {
				write(thread, threads, stop);
			});
	}

	void stop() { writers_.clear(); }

	/// Calls f() while no thread changes the index.
	template <class F> auto quietly(F f)
	{
		const std::lock_guard guard(lock_);

		return f();
	}

	/// Changes made to the index so far.
	std::uint64_t changes()
	{
		const std::lock_guard guard(lock_);

		return index_->version();
	}

	struct Health {
		SymbolIndex::Report report; ///< The index's own full check.
		bool as_booked;		    ///< It holds exactly what the application entered.

		explicit operator bool() const { return !report.faults && as_booked; }
	};

	/// Looks at all of its own data, in place, while the threads wait. An audit in
	/// an orbit is how to do without that; here it is the independent witness.
	Health verify()
	{
		const std::lock_guard guard(lock_);
		const SymbolIndex::Report report = index_->check();

		return {report, !report.faults && !refused_ && as_booked()};
	}

private:
	enum class State : unsigned char { kAbsent, kPresent, kRenamed };

	static constexpr std::string_view kSuffix = ".renamed";

	std::string name_in(std::size_t which, State state) const
	{
		std::string name(map_.symbols()[which].name);

		return state == State::kRenamed ? name.append(kSuffix) : name;
	}

	// Brings a symbol from the state it is in to another.
	void change(std::size_t which, State next)
	{
		const Symbol &symbol = map_.symbols()[which];
		const std::string new_name = name_in(which, next);
		const std::lock_guard guard(lock_);
		const State now = book_[which];
		const std::string old_name = name_in(which, now);
		bool done;

		if (now == State::kAbsent)
			done = index_->insert(symbol.address, symbol.type, new_name);
		else if (next == State::kAbsent)
			done = index_->remove(symbol.address, old_name);
		else
			done = index_->rename(symbol.address, old_name, new_name);

		if (done)
			book_[which] = next;
		else
			refused_++; // never happens, and verify() reports it if it does
	}

	// Each thread has its own share of the symbols, and picks one after another.
	void write(unsigned thread, unsigned threads, const std::stop_token &stop)
	{
		const std::size_t share = book_.size() / threads;
		std::uint64_t random = thread + 1;

		while (share && !stop.stop_requested()) {
			random = random * 6364136223846793005 + 1442695040888963407; // Knuth's

			const std::size_t which = (random >> 33) % share * threads + thread;
			const unsigned steps = 1 + (random >> 32) % 2;
			const unsigned now = static_cast<unsigned>(book_[which]);

			change(which, static_cast<State>((now + steps) % 3));
			if (random >> 59 == 0) // now and then there is nothing to do
				std::this_thread::sleep_for(std::chrono::milliseconds(1));
		}
	}

	// Does the index hold what the book says? The book lies outside of the pool,
	// where no orbit could ever reach it.
	bool as_booked() const
	{
		std::vector<std::pair<std::uint64_t, std::string>> expected;
		std::size_t seen = 0;
		bool same = true;

		for (std::size_t which = 0; which < book_.size(); which++)
			if (book_[which] != State::kAbsent)
				expected.emplace_back(map_.symbols()[which].address,
						      name_in(which, book_[which]));
		std::sort(expected.begin(), expected.end());
		index_->for_each([&](std::uint64_t address, char, std::string_view name) {
			same = same && seen < expected.size() && expected[seen].first == address &&
			       expected[seen].second == name;
			seen++;
		});
		return same && seen == expected.size();
	}

	const SystemMap &map_;
	SymbolIndex *index_;
	std::mutex lock_; // of the index, the book and refused_
	std::vector<State> book_;
	std::uint64_t refused_ = 0;
	std::vector<std::jthread> writers_; // the last member, so that they stop first
};

#endif // SYSTEM_MAP_AUDIT_APPLICATION_H
