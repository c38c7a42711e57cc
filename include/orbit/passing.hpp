// SPDX-License-Identifier: MIT
//
// Objects that a domain and the main program pass to one another: interfaces as arguments and results.
//
// Each side has a table of the objects that it lets the other call. A Capability names a place in it, and proves nothing:
// the owner looks into its own table at each call. So a domain can only call what was given to it, as long as it was.
//
// Calls of such objects go over a ring in each direction, whatever way the domain's services are called: a domain cannot
// call out of a task otherwise, and who waits for a service shall not have to serve meanwhile. Each ring is served by
// threads, one more whenever all are in calls, up to passing_threads: so that objects can be called in a call of another.
//
// Made and used by the supervisor, see <orbit/domain.hpp>.
#ifndef ORBIT_PASSING_HPP
#define ORBIT_PASSING_HPP

#include <orbit/interface.hpp>
#include <orbit/ring.hpp>

#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <shared_mutex>
#include <vector>

namespace orbit::isolation {

inline constexpr std::size_t max_passed = 4096;    // objects in a table
inline constexpr unsigned passing_threads = 8;     // how deep calls of objects may be in one another
inline constexpr std::size_t passed_bytes = 65536; // of a message, or a reply
inline constexpr RingShape passing_ring{.slots = 8, .message_bytes = passed_bytes + 64};

/// The way to all objects that the other side lets this one call. Thread-safe.
class PassedWay : public Transport {
public:
	/// Calls without waiting for the end, and whether there was one.
	virtual void post(std::uint32_t method, std::span<const std::byte> args) = 0;
};

/// One side's table; and what serves the calls of all objects in it.
class PassedObjects final : public Capabilities,
			    public Skeleton,
			    public std::enable_shared_from_this<PassedObjects> {
public:
	/// `trusts`: the other side is the main program, whose errors are believed. Numbers of objects go on from
	/// `generation`.
	explicit PassedObjects(bool trusts, std::uint32_t generation = 0) noexcept : trusts_(trusts), generation_(generation) {}

	/// The way to the other side's objects; nullptr: there is no other side now.
	void connect(std::shared_ptr<PassedWay> way);

	/// Those whom it served are gone: what they kept is let go of. `epoch` is what connect() counted then.
	void forget(std::uint32_t epoch);
	std::uint32_t epoch() const;

	/// -ENFILE: there are max_passed objects.
	int offer(std::shared_ptr<Skeleton> object, Capability *capability) override;
	int withdraw(const Capability &capability) override;
	void delivered(const Capability &capability) override;

	/// -EPROTOTYPE; -EHOSTDOWN: there is no other side. Whether it has such an object it says at the first call: -ESTALE,
	/// -EBADF.
	int accept(const Capability &capability, std::uint64_t type, std::shared_ptr<Transport> *transport) override;

	/// How many objects are in the table.
	std::size_t size() const;

	std::uint64_t interface_id() const noexcept override { return 0; }
	int dispatch(std::uint32_t method, std::span<const std::byte> args, std::span<std::byte> reply,
		     std::size_t *reply_bytes) override;

private:
	struct Entry {
		std::uint32_t generation = 0;
		std::uint64_t type = 0;
		std::shared_mutex calls;
		std::shared_ptr<Skeleton> object; // none after withdraw()
		bool kept = false;		  // by the other side, until it lets go of it
		bool let_go = false;		  // it has done so before it was known to keep it
		std::uint32_t epoch = 0;
	};
	class Imported;

	int find(const Capability &capability, std::shared_ptr<Entry> *entry) const;
	int let_go(const Capability &capability);
	void take_out(std::uint32_t place);

	const bool trusts_;
	mutable std::mutex mutex_;
	std::vector<std::shared_ptr<Entry>> entries_;
	std::vector<std::uint32_t> free_; // places
	std::uint32_t generation_, epoch_ = 0;
	std::shared_ptr<PassedWay> way_;
};

/// Serves a ring in threads of its own.
class RingThreads : public std::enable_shared_from_this<RingThreads> {
public:
	/// `at_end` is called when the last thread ends; what it has lives until then. -EAGAIN: there can be no thread.
	static int start(std::shared_ptr<RingServer> server, std::shared_ptr<Skeleton> object, std::function<void()> at_end,
			 std::shared_ptr<RingThreads> *started);

	/// Threads end when they have ended the calls that they are in. Does not wait for that.
	void end();

	/// Waits until all have ended; not in such a thread.
	void wait();

private:
	class Counting;

	RingThreads() = default;
	bool add();

	std::shared_ptr<RingServer> server_;
	std::shared_ptr<Skeleton> object_;
	std::function<void()> at_end_;
	std::mutex mutex_;
	std::condition_variable ended_;
	unsigned threads_ = 0, busy_ = 0;
	bool ending_ = false;
};

} // namespace orbit::isolation

#endif
