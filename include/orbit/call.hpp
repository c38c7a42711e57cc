// SPDX-License-Identifier: MIT
//
// The call transport: a method call is a task of the domain's orbit. The message is its argument, the reply an update
// that it sends. Nothing is shared for it: neither side can change a message that the other reads.
//
// Made and used by the supervisor, see <orbit/domain.hpp>. A domain serves one call at a time, in order.
#ifndef ORBIT_CALL_HPP
#define ORBIT_CALL_HPP

#include <orbit/interface.hpp>
#include <orbit/orbit.h>
#include <orbit/passing.hpp>
#include <orbit/ring.hpp>
#include <orbit/rref.hpp>

#include <atomic>

namespace orbit {

/// An interface that a domain serves, and the function that makes the implementation there.
struct Service {
	const isolation::Interface *interface = nullptr;
	std::shared_ptr<isolation::Skeleton> (*make)(const isolation::Connection &) = nullptr;
	/// How many objects of it the domain makes. Over rings each has a ring and a thread of its own: who calls one does not
	/// wait for who calls another.
	unsigned objects = 1;
};

/// The service of a class that implements an interface: `orbit::service<EchoSkeleton, Echo>()`. In the domain an object
/// is made by its constructor that takes an isolation::Endpoint &, or by that without arguments.
template <class Skeleton, class Object> constexpr Service service() noexcept
{
	return {&Skeleton::interface_, [](const isolation::Connection &connection) -> std::shared_ptr<isolation::Skeleton> {
			if constexpr (std::is_constructible_v<Object, isolation::Endpoint &>)
				return std::make_shared<Skeleton>(std::make_shared<Object>(*connection.endpoint), connection);
			else
				return std::make_shared<Skeleton>(std::make_shared<Object>(), connection);
		}};
}

namespace isolation {

inline constexpr std::size_t max_objects = 64;

/// What a driver says of its device, for people who watch (orbitctl(1)): in memory that its domain writes, through all its
/// processes. Nobody relies on it. Zero: nothing is said.
struct DeviceCounters {
	static constexpr std::size_t most_queues = 63;
	struct alignas(64) Queue {
		std::atomic<std::uint64_t> requests; ///< That have ended, or whatever the device has to do.
		std::atomic<std::uint64_t> errors;   ///< Of these.
	};
	alignas(64) std::atomic<std::uint32_t> queues; ///< That it uses.
	Queue queue[most_queues];
};
static_assert(sizeof(DeviceCounters) == 4096);

/// What a domain is told when it is made: the argument of its first task.
struct Creation {
	std::byte *heap;
	std::size_t heap_bytes;
	DomainId self;
	DomainId peer; ///< Who calls.
	std::chrono::nanoseconds timeout; ///< Of the domain's own calls, of objects that were passed to it.
	std::size_t nr_objects;
	Service objects[max_objects]; ///< Each by itself.
	/// One ring for each object if they are called so; and then, if objects are passed, one for those of the domain, and
	/// one for those of who calls.
	std::byte *rings;
	std::size_t nr_rings;
	RingShape shapes[max_objects + 2];
	bool passes_objects;
	std::uint32_t generation; ///< Of the first object that it passes.
	DeviceCounters *counters; ///< Null: it drives no device.
};

/// The first task: the domain attaches to the heap and makes its objects. An orbit_entry; its value is 0 or an errno
/// value.
std::uint64_t begin_to_serve(const void *creation, std::size_t size);

/// For domains that are called over rings: the task that serves them, without an argument. An orbit_entry; it returns when
/// it cannot serve, with an errno value.
std::uint64_t serve_rings(const void *, std::size_t);

/// How a call ended for the domain.
struct CallEnd {
	bool died = false;         ///< In this call, or before it; or was ended, for it did not answer.
	bool silent = false;       ///< It was ended for that.
	bool began = false;        ///< The domain may have begun to serve it.
	orbit_outcome outcome = {}; ///< Why it died, as far as that is known.
};

/// Calls one of the objects of a domain. Thread-safe.
class CallTransport final : public Transport {
public:
	/// `orbit` outlives it. `object` is the number of the service, from 0.
	CallTransport(orbit_handle *orbit, std::uint32_t object) noexcept : orbit_(orbit), object_(object) {}

	/// -ECONNRESET: the domain died in the call. -ETIMEDOUT: the deadline. If the domain was serving this call, it
	/// has been ended; if the call still waited behind others, it is not made. -ESHUTDOWN: the domain was dead
	/// before the call began. -EREMOTEIO: it has refused the message. -EPROTO: no reply came, or one that does not
	/// fit. -E2BIG: the message has more than ORBIT_MAX_ARG - 16 bytes. Others as orbit_call_async().
	int call(std::uint32_t method, std::span<const std::byte> args, std::span<std::byte> reply,
		 std::size_t *reply_bytes, std::uint64_t timeout_ns) override;

	/// The same, and what became of the domain.
	int call(std::uint32_t method, std::span<const std::byte> args, std::span<std::byte> reply,
		 std::size_t *reply_bytes, std::uint64_t timeout_ns, CallEnd &end);

private:
	orbit_handle *orbit_;
	std::uint32_t object_;
};

} // namespace isolation
} // namespace orbit

#endif
