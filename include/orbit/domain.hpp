// SPDX-License-Identifier: MIT
//
// Domains: parts of the program, each an orbit, that serve interfaces and share nothing but typed buffers; and the
// supervisor, which makes them, notices that they die or do not answer, takes back what they had, and starts them
// again.
//
//	orbit::require(orbit::prepare());					// early in main()
//	auto supervisor = orbit::Supervisor::create({.zones = {{1 << 20}}});
//	auto domain = (*supervisor)->start({.name = "echo",
//					    .services = {orbit::service<EchoSkeleton, MyEcho>()},
//					    .parts = {{orbit::Zone{0}, 1 << 16}}});
//	auto echo = (*domain)->proxy<EchoProxy>();
//	orbit::result<std::uint64_t> answer = echo->say(42);
//
// Programs link with liborbit-isolation.a, liborbit, and -lurcu-bp (Debian: liburcu-dev).
//
// Errors of calls, besides what a method returns, are made on this side, and no domain can make them:
// ECONNRESET: the domain died in the call. ETIMEDOUT: it did not answer, and was ended; or the call waited behind others
// for too long, and was not made. ESHUTDOWN, EHOSTDOWN: it was dead before the call; by the second there is none.
// Others: see CallTransport of <orbit/call.hpp>, and RingTransport of <orbit/ring.hpp>.
//
// Objects (interfaces as arguments and results) are passed both ways, see <orbit/passing.hpp>: a domain calls the main
// program's in a thread of the supervisor. To let a domain call another one pass it a proxy or a shadow.
//
// When a call returns such an error the domain's buffers have been taken back, and if its options say so another one
// has been started in its place. All functions are thread-safe. In a forked child domains can only be destroyed, which
// does nothing to the parent's.
#ifndef ORBIT_DOMAIN_HPP
#define ORBIT_DOMAIN_HPP

#include <orbit/call.hpp>
#include <orbit/orbit.hpp>
#include <orbit/registry.hpp>
#include <orbit/rref.hpp>
#include <orbit/shadow.hpp>

#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <sys/types.h>
#include <vector>

namespace orbit {

/// A zone of the shared heap, as it is made.
struct ZoneOptions {
	std::size_t bytes = 0; ///< Its size.
	std::size_t own = 0;   ///< How much of it is for the main program's own buffers; 0: it has no part in the zone.
};

/// A zone that a domain has part in, and how much of it.
struct ZonePart {
	Zone zone;
	std::size_t bytes = 0; ///< For buffers that it makes; 0: it can only have others'.
};

/// How often a domain is started again: `most` times within any such time. One time more, and it is down for ever.
struct Restarts {
	unsigned most = 0;
	std::chrono::nanoseconds within = std::chrono::seconds(10);
};

/// How a domain died, and what became of what it had.
struct DomainReport {
	std::string domain;           ///< Its name.
	std::uint64_t start = 0;      ///< Which of its processes it was, from 1.
	orbit_cause cause{};          ///< ORBIT_CAUSE_NONE if it is not known.
	int code = 0;                 ///< The exit status or signal number that goes with it.
	std::uintptr_t address = 0;   ///< Whose access raised the signal, or 0.
	bool silent = false;          ///< It was ended, for it had not answered by a deadline.
	bool in_creation = false;     ///< It died before it served.
	std::string refused;          ///< What DomainOptions::set_up said of it then; or empty.
	std::string interface;        ///< Of the call that it served then; empty if it served none, or that is not known.
	std::string method;
	isolation::Reclaimed buffers; ///< What was taken back.
	bool restarted = false;       ///< Whether another one is to be started in its place.

	/// A sentence for people.
	std::string message() const;
	/// Of it, how the domain died.
	std::string end() const;
};

struct DomainStatistics {
	bool running = false;
	std::uint64_t starts = 0; ///< The first one included.
	std::uint64_t calls = 0;
	std::uint64_t failed = 0; ///< Calls that ended with an error of this side.
	std::size_t owned = 0;    ///< Buffers; exact only while nobody moves any.
	std::size_t lent = 0;     ///< Of these, lent to others.
};

/// How a domain is called.
enum class Via {
	/// Each call is a task of its orbit. A message has 64 KiB at most, a reply 4 MiB. Calls are served one at a time, in
	/// order; one that waits behind others when its deadline passes is not made, and the domain goes on.
	call,
	/// Over shared memory, see <orbit/ring.hpp>: fast if there is a core for each side. Each object of a service has a thread
	/// of its own. Who waits behind others is not told apart from who is not answered: at any deadline the domain is ended.
	ring,
};

/// What may be chosen for a domain.
struct DomainOptions {
	std::string name = {};         ///< For people, and for the registry; of the process "orbit:NAME".
	std::vector<Service> services = {}; ///< At least one, and at most 64 objects of them all.
	std::vector<ZonePart> parts = {};     ///< Zones that it has part in, none twice.
	std::chrono::nanoseconds deadline = std::chrono::seconds(10); ///< Of its creation; each call of set_up has what is left.
	std::chrono::nanoseconds timeout = std::chrono::seconds(1);   ///< Of each call, waiting behind others included.
	Restarts restarts = {};
	Via via = Via::call;
	std::uint64_t memory_limit = 0;    ///< As Options::memory_limit.
	Inherit inherit = Inherit::minimal; ///< Inherit::all: it has a copy of the whole program, heap and secrets too.
	std::string device = {};            ///< What it drives, for people who use orbitctl; empty: nothing.
	std::vector<int> keep_fds = {};     ///< Descriptors to keep besides 0, 1 and 2, such as a device's. They stay open.
	/// For a domain that drives devices: called each time when its process is gone, before any of its memory is used
	/// again. It stops all that writes to memory for the domain. If it fails that memory is never used again, and the domain
	/// is down for ever. It must call nothing of the domain or the supervisor.
	std::function<result<void>()> silence = {};
	/// Called before others can call a domain that has been started, the first time and each time again: to bring
	/// it where the one before was. Its calls go to the object of the first service. If it fails the domain is
	/// ended. It must call nothing of the domain or the supervisor.
	std::function<result<void>(const std::shared_ptr<isolation::Transport> &, const isolation::Connection &)> set_up = {};
};

struct SupervisorOptions {
	std::vector<ZoneOptions> zones = {{1 << 20, 1 << 18}};
	unsigned domains = 8; ///< How many there may be at a time, up to 61.
	/// Told of each domain that has died, by the thread that has noticed it. It must call nothing of the domain or the
	/// supervisor.
	std::function<void(const DomainReport &)> report = {};
};

class Supervisor;

/// A domain, as the main program holds it. To destroy it ends the domain.
class Domain {
public:
	Domain(const Domain &) = delete;
	Domain &operator=(const Domain &) = delete;
	~Domain();

	/// A proxy or a shadow, as generated, for an interface that the domain serves, and of its objects number `object`.
	/// EPROTOTYPE: it does not serve that, or has fewer. The supervisor outlives it; the domain need not.
	template <class Proxy> result<Proxy> proxy(unsigned object = 0) const
	{
		const int service = find(Proxy::interface_.id, object);

		if (service < 0)
			return isolation::refused(-EPROTOTYPE, "the domain does not serve this interface, or has fewer objects of it");
		if constexpr (std::is_constructible_v<Proxy, std::shared_ptr<isolation::Transport>, const isolation::Connection &,
						      std::shared_ptr<isolation::Recovery>>)
			return result<Proxy>(tl::in_place, transport(service), connection(), recovery());
		else
			return result<Proxy>(tl::in_place, transport(service), connection());
	}

	/// What proxies are made of: the way to an object, by its number among those of all services; it leads to whatever
	/// domain serves when a call is made.
	std::shared_ptr<isolation::Transport> transport(int number) const;
	isolation::Connection connection() const;
	std::shared_ptr<isolation::Recovery> recovery() const;

	/// The number of an object of the service that has this interface; -1 if there is none.
	int find(std::uint64_t interface_id, unsigned object = 0) const noexcept;

	/// Ends it for good: its process is killed, and what it had is taken back. Calls fail with EHOSTDOWN. Waits for the
	/// end of calls that it has made of the main program's objects, unless it is called in one.
	void stop();

	DomainStatistics statistics() const;

	/// How it died last; nothing if it did not.
	std::optional<DomainReport> last_report() const;

	/// Its process, or 0.
	pid_t pid() const;

private:
	friend Supervisor;
	class Body;
	explicit Domain(std::shared_ptr<Body> body) noexcept : body_(std::move(body)) {}

	std::shared_ptr<Body> body_;
};

/// Makes domains, and holds what they share. To destroy it ends them all. It outlives proxies, and rrefs of the main
/// program. A thread of its own looks after domains.
class Supervisor {
public:
	/// Makes the shared heap. EINVAL: no zone, one of no page, or too many zones or domains; ENOSPC: a zone is smaller
	/// than what the main program is to have of it; others as orbit_shared_create().
	static result<std::unique_ptr<Supervisor>> create(const SupervisorOptions &options = {});

	Supervisor(const Supervisor &) = delete;
	Supervisor &operator=(const Supervisor &) = delete;
	~Supervisor();

	/// Makes a domain, and returns when it serves. Then it is in the registry.
	///
	/// What is refused has changed nothing. EINVAL: no service, more than 64 objects or a service of nothing, or a zone that there
	/// is not; EEXIST: a zone, an
	/// interface, or the name of a domain twice; ETIMEDOUT: the deadline, which may be zero; ENOSPC: a zone is full; EAGAIN: there are as many domains as there may be; ECONNRESET: it died while it was created; ENXIO:
	/// orbit_prepare() was not called; others as orbit_create(), or what set_up returned.
	result<std::unique_ptr<Domain>> start(DomainOptions options);

	/// The main program's side of the heap.
	isolation::Endpoint &endpoint() const noexcept;

	/// The memory of a zone, which domains that have part in it have at the same address. Empty if there is no such zone.
	std::span<std::byte> zone_memory(Zone zone) const noexcept;

	/// Where domains' objects are found, by interface and the domain's name.
	isolation::Registry &registry() const noexcept;

	/// Who has what: by DomainId, the main program being 1. Exact only while nobody moves buffers.
	isolation::Census census() const;

private:
	friend Domain;
	class Core;
	explicit Supervisor(std::shared_ptr<Core> core) noexcept : core_(std::move(core)) {}

	std::shared_ptr<Core> core_;
};

} // namespace orbit

#endif
