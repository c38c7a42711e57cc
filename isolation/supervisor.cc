// SPDX-License-Identifier: MIT
//
// The supervisor, see <orbit/domain.hpp>.
//
// A domain has a Body, which stays; and an Instance for each process that serves for it, one after the other. The
// registry's slots have the Instance's transports. Whoever notices that an Instance is dead, a call or the thread
// that watches processes, calls Body::recover(), which does all there is to do once: it takes the Instance out of the
// registry, waits until its process is gone, has the heap reclaim, tells what happened, and makes another Instance.
//
// Locks: a Body's, then the Core's of the heap. Neither is held while a call of a domain waits, but for the calls by which
// a domain is made, which have a deadline.
#include <orbit/domain.hpp>

#include "status.h"

#include <algorithm>
#include <atomic>
#include <csignal>
#include <deque>
#include <poll.h>
#include <set>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <thread>
#include <unistd.h>

namespace orbit {

using isolation::CallEnd;
using isolation::Census;
using isolation::Connection;
using isolation::DeviceCounters;
using isolation::DomainId;
using isolation::DomainState;
using isolation::DomainStatus;
using isolation::Endpoint;
using isolation::Heap;
using isolation::PassedObjects;
using isolation::Range;
using isolation::Reclaimed;
using isolation::Recovery;
using isolation::Registry;
using isolation::RingServer;
using isolation::RingShape;
using isolation::RingThreads;
using isolation::RingTransport;
using isolation::Slot;
using isolation::SupervisorStatus;
using isolation::Transport;
using isolation::refused;

namespace {

using Clock = std::chrono::steady_clock;

constexpr DomainId self = 1; // the main program
constexpr int patience_ms = 10000; // until a process that was killed is gone

class Descriptor {
public:
	explicit Descriptor(int fd = -1) noexcept : fd_(fd) {}
	Descriptor(Descriptor &&other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
	Descriptor &operator=(Descriptor &&other) noexcept
	{
		std::swap(fd_, other.fd_);
		return *this;
	}
	~Descriptor()
	{
		if (fd_ >= 0)
			close(fd_);
	}
	int get() const noexcept { return fd_; }

private:
	int fd_;
};

bool wait_for(int fd, short events, int timeout_ms)
{
	const auto end = Clock::now() + std::chrono::milliseconds(timeout_ms);

	for (;;) {
		pollfd one{fd, events, 0};
		const auto left = std::chrono::ceil<std::chrono::milliseconds>(end - Clock::now()).count();
		const int found = poll(&one, 1, static_cast<int>(std::max<std::int64_t>(left, 0)));

		if (found > 0)
			return true;
		if (found == 0 || errno != EINTR)
			return false;
	}
}

tl::unexpected<call_error> as_result(const Error &error, const char *what)
{
	return refused(-error.code(), what);
}

const char *words_of(int error)
{
	switch (-error) {
	case ENXIO: return "orbit::prepare() has not been called, or its process is gone";
	case ETIMEDOUT: return "the domain was not ready by the deadline";
	case ECONNRESET: return "the domain died while it was created";
	default: return "the domain could not be made";
	}
}

// The heap's memory: a region of its own for each range that domains have different rights to, one after another.
struct Regions {
	std::vector<Shared> parts;
	std::span<std::byte> memory;
};

// Regions lie where there is room first. What comes to lie elsewhere than behind the one before is kept until the end,
// so that the next one does not come there again.
result<Regions> make_regions(const std::vector<Range> &ranges, std::size_t bytes, unsigned number)
{
	constexpr int most_tries = 200;
	Regions made;
	std::vector<Shared> elsewhere;
	std::byte *end = nullptr;
	{
		const auto whole = Shared::create(bytes, "heap");
		if (!whole)
			return as_result(whole.error(), "there is no memory for the heap");
		end = whole->data();
	}
	made.memory = {end, bytes};
	for (const Range &range : ranges) {
		const std::string name = isolation::heap_name + std::to_string(number) + ":" + std::to_string(made.parts.size());
		for (;;) {
			auto part = Shared::create(range.bytes, name.c_str());
			if (!part)
				return as_result(part.error(), "there is no memory for the heap");
			if (part->data() == end) {
				end += range.bytes;
				made.parts.push_back(std::move(*part));
				break;
			}
			elsewhere.push_back(std::move(*part));
			if (elsewhere.size() > most_tries)
				return refused(-EAGAIN, "other memory came between parts of the heap");
		}
	}
	return made;
}

// How a heap is laid out, before it has memory.
std::vector<Range> ranges_of(unsigned domains, const std::vector<std::size_t> &zones, std::size_t bytes)
{
	void *scratch = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (scratch == MAP_FAILED)
		return {};
	std::vector<Range> ranges;
	if (auto heap = Heap::create({static_cast<std::byte *>(scratch), bytes}, domains, zones))
		ranges = heap->ranges(isolation::supervisor);
	munmap(scratch, bytes);
	std::erase_if(ranges, [](const Range &range) { return !range.bytes; });
	return ranges;
}

} // namespace

std::string DomainReport::end() const
{
	char how[256];
	orbit_outcome outcome{};

	outcome.size = sizeof(outcome);
	outcome.error = -ECONNRESET;
	outcome.cause = cause;
	outcome.code = code;
	outcome.fault_addr = address;
	orbit_describe(&outcome, how, sizeof(how));
	std::string text = silent ? "ended, for it did not answer" : how;
	if (in_creation)
		text += ", while it was created";
	if (!refused.empty())
		text += " (" + refused + ")";
	if (!interface.empty())
		text += ", in " + interface + "::" + method;
	return text;
}

std::string DomainReport::message() const
{
	return "domain " + domain + ": " + end() + "; buffers reclaimed: " + std::to_string(buffers.buffers) + ", loans: " + std::to_string(buffers.loans) +
	       (restarted ? "; it is started again" : "; it stays down");
}

// What a supervisor has; domains and their transports keep it.
class Supervisor::Core {
public:
	Core(Regions memory, Heap made, unsigned number_of_supervisor)
		: number(number_of_supervisor), regions(std::move(memory)), heap(std::move(made))
	{
	}

	// A number for a domain, with part in its zones.
	result<DomainId> add(const std::vector<ZonePart> &parts)
	{
		std::lock_guard lock(mutex);
		DomainId id = self + 1;

		while (id <= most && taken.contains(id))
			id++;
		if (id > most)
			return refused(-EAGAIN, "there are as many domains as there may be");
		if (auto joined = join(id, parts); !joined)
			return tl::unexpected(joined.error());
		taken.insert(id);
		return id;
	}

	result<void> rejoin(DomainId id, const std::vector<ZonePart> &parts)
	{
		std::lock_guard lock(mutex);

		return join(id, parts);
	}

	Reclaimed reclaim(DomainId id)
	{
		std::lock_guard lock(mutex);
		const auto done = heap.reclaim(id);

		return done ? *done : Reclaimed{};
	}

	// What the domain gets of the heap's regions.
	std::vector<Grant> grants(DomainId id)
	{
		std::lock_guard lock(mutex);
		std::vector<Grant> grants;

		for (const Range &range : heap.ranges(id)) {
			if (range.rights == isolation::Rights::none || !range.bytes)
				continue;
			for (const Shared &part : regions.parts)
				if (part.data() == regions.memory.data() + range.offset)
					grants.emplace_back(part, range.rights == isolation::Rights::read ? Rights::read : Rights::write);
		}
		return grants;
	}

	void wake() const
	{
		const std::uint64_t one = 1;

		[[maybe_unused]] const ssize_t written = write(event.get(), &one, sizeof(one));
	}

	// In a forked child: domains are the parent's, the heap's memory is not there, and locks may be held for ever.
	bool is_elsewhere() const noexcept { return getpid() != pid; }

	const pid_t pid = getpid();
	const unsigned number; // among the program's supervisors
	Regions regions;
	Heap heap;
	std::mutex mutex; // heap, taken, names
	DomainId most = 0;
	std::set<DomainId> taken;
	std::set<std::string> names;
	std::unique_ptr<Endpoint> endpoint;
	Registry registry;
	std::optional<Shared> shown; // in which no domain has part
	SupervisorStatus *status = nullptr; // there, for other programs
	std::function<void(const DomainReport &)> report;

	void watch();
	void stop_watching()
	{
		ending = true;
		wake();
		if (watcher.joinable())
			watcher.join();
	}

	Descriptor event{eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)};
	std::atomic<bool> ending{false};
	std::mutex bodies_mutex;
	std::vector<std::weak_ptr<Domain::Body>> bodies;
	std::thread watcher;

private:
	result<void> join(DomainId id, const std::vector<ZonePart> &parts)
	{
		for (const ZonePart &part : parts) {
			auto done = heap.add(id, part.zone.number);
			if (done && part.bytes)
				done = heap.grant(id, part.zone.number, part.bytes);
			if (!done) {
				(void)heap.reclaim(id);
				return done;
			}
		}
		return {};
	}
};

class Domain::Body : public Recovery, public std::enable_shared_from_this<Body> {
public:
	static constexpr int ended = -EOWNERDEAD; // what calls over rings end with
	static constexpr std::uint32_t objects = ~0U; // instead of an object's number: what it has passed

	// One process.
	struct Instance {
		std::shared_ptr<const Shared> ring_memory; // of all rings
		std::vector<std::shared_ptr<RingTransport>> rings; // for each object; none if it is called otherwise
		std::shared_ptr<RingTransport> objects; // for those that it has passed; none if it passes none
		std::shared_ptr<RingServer> to_here; // for its calls of those that were passed to it
		std::shared_ptr<RingThreads> callbacks; // serve these
		std::optional<Orbit> orbit;
		Descriptor process; // a pidfd: readable when the process is gone, with all that it could write
		pid_t pid = 0;
		std::uint64_t number = 0;
		std::atomic<bool> serves{false}; // for others than who makes it
		std::atomic<int> callers{0};     // in a call
		std::atomic<bool> buried{false};

		void end_rings()
		{
			for (const auto &ring : rings)
				ring->end(ended);
			if (objects)
				objects->end(ended);
			if (callbacks)
				callbacks->end();
		}
	};

	// To an object of one process, or to those that it has passed.
	class Way final : public isolation::PassedWay {
	public:
		Way(std::shared_ptr<Body> body, std::shared_ptr<Instance> instance, std::uint32_t service)
			: body_(std::move(body)), instance_(std::move(instance)), service_(service),
			  transport_(instance_->orbit->raw(), service)
		{
		}

		int call(std::uint32_t method, std::span<const std::byte> args, std::span<std::byte> reply,
			 std::size_t *reply_bytes, std::uint64_t timeout_ns) override
		{
			CallEnd end;
			if (const int error = down())
				return error;
			instance_->callers.fetch_add(1);
			RingTransport *const ring = this->ring();
			const int error = ring ? over_ring(*ring, method, args, reply, reply_bytes, timeout_ns, end) :
						 transport_.call(method, args, reply, reply_bytes, timeout_ns, end);

			// In a forked child no call is made.
			if (!error || !body_->core_->is_elsewhere()) {
				body_->status_.calls.fetch_add(1, std::memory_order_relaxed);
				if (error)
					body_->status_.failed.fetch_add(1, std::memory_order_relaxed);
			}
			if (end.died && instance_->serves.load())
				body_->recover(*instance_, &end, service_, method);
			instance_->callers.fetch_sub(1);
			return error;
		}

		void post(std::uint32_t method, std::span<const std::byte> args) override
		{
			instance_->objects->post(method, args);
		}

		// Objects are gone with their process.
		int down() const noexcept override { return service_ == objects && instance_->buried ? -EHOSTDOWN : 0; }

	private:
		RingTransport *ring() const
		{
			return service_ == objects	  ? instance_->objects.get() :
			       instance_->rings.empty() ? nullptr :
							  instance_->rings[service_].get();
		}

		int over_ring(RingTransport &ring, std::uint32_t method, std::span<const std::byte> args,
			      std::span<std::byte> reply, std::size_t *reply_bytes, std::uint64_t timeout_ns, CallEnd &end)
		{
			*reply_bytes = 0;
			if (!timeout_ns)
				return -ETIMEDOUT;
			const int error = ring.call(method, args, reply, reply_bytes, timeout_ns);
			if (error != ended && error != -ETIMEDOUT)
				return error;
			// Whether it had begun with this call only it knows.
			end = {.died = true, .silent = error == -ETIMEDOUT, .began = true, .outcome = {}};
			return error == ended ? -ECONNRESET : error;
		}

		std::shared_ptr<Body> body_;
		std::shared_ptr<Instance> instance_;
		std::uint32_t service_;
		isolation::CallTransport transport_;
	};

	Body(std::shared_ptr<Supervisor::Core> core, DomainOptions options, DomainId id)
		: core_(std::move(core)), options_(std::move(options)), objects_(each_object(options_.services)), id_(id), status_(core_->status->domain[id])
	{
		status_.starts = 0;
		status_.calls = 0;
		status_.failed = 0;
		status_.rings = options_.via == Via::ring;
		isolation::set_text(status_, status_.name, options_.name);
		isolation::set_text(status_, status_.last_end, "");
		isolation::set_text(status_, status_.device, options_.device);
		status_.silenced = 0;
		status_.state = DomainState::starting;
		for (const Service &service : options_.services) {
			// In the registry is the first of its objects.
			slots_.push_back(core_->registry.slot(service.interface->id, options_.name));
			while (slots_.size() < objects_.size() && objects_[slots_.size()].interface == service.interface)
				slots_.push_back(std::make_shared<Slot>());
		}
		if (std::any_of(options_.services.begin(), options_.services.end(),
				[](const Service &service) { return service.interface->passes_objects; }))
			passed_ = std::make_shared<PassedObjects>(false);
		if (options_.via == Via::ring)
			for (const Service &service : objects_)
				shapes_.push_back({.message_bytes = static_cast<std::uint32_t>((service.interface->most_bytes + 63) / 64 * 64)});
		if (passed_)
			shapes_.insert(shapes_.end(), 2, isolation::passing_ring);
		// On one processor the other side does nothing while this one looks.
		if (std::thread::hardware_concurrency() == 1)
			for (RingShape &shape : shapes_)
				shape.spins = 0;
	}
	~Body() override
	{
		if (!core_->is_elsewhere())
			release();
	}

	Connection connection() const
	{
		return {.capabilities = passed_.get(),
			.endpoint = core_->endpoint.get(),
			.peer = id_,
			.timeout = options_.timeout};
	}

	std::uint64_t starts() const noexcept override { return starts_.load(); }
	std::uint64_t settled() override
	{
		std::lock_guard lock(mutex_);

		return starts_.load();
	}

	void replace(std::uint64_t start) override
	{
		if (core_->is_elsewhere())
			return;
		const std::shared_ptr<Instance> instance = this->instance();
		CallEnd silence;

		silence.died = silence.silent = true;
		if (instance && instance->number == start)
			recover(*instance, &silence, 0, 0);
	}

	// The first time. The zones are its already.
	result<void> begin()
	{
		std::lock_guard lock(mutex_);

		if (!options_.device.empty()) {
			const std::string name = isolation::counters_name + std::to_string(core_->number) + ":" + std::to_string(id_);
			auto memory = Shared::create(sizeof(DeviceCounters), name.c_str());

			if (!memory)
				return as_result(memory.error(), "there is no memory for what the driver says");
			counters_.emplace(std::move(*memory));
		}

		return make();
	}

	// For who has noticed that an instance is dead, by a call or otherwise. When it returns there is another one, or
	// none for ever.
	void recover(Instance &dead, const CallEnd *end, std::uint32_t service, std::uint32_t method)
	{
		const bool served = end && end->began && service != objects && (dead.rings.empty() || dead.callers == 1);

		dead.end_rings();
		// He whose call it was knows most about it, and will be here in a moment; over rings nobody knows whose it was.
		const bool wait = !served && (!end || dead.rings.empty());
		for (int tries = 0; wait && tries < 300 && dead.callers > (end ? 1 : 0) && !dead.buried; tries++)
			std::this_thread::sleep_for(std::chrono::milliseconds(1));

		std::lock_guard lock(mutex_);

		if (instance_.get() != &dead)
			return; // somebody has done all this
		DomainReport report = describe(*instance_, end);
		if (served) {
			report.interface = objects_[service].interface->name;
			report.method = objects_[service].interface->method_name(method);
		}
		bury(report);
		bool again = may_restart();
		tell(report, again);
		while (again) {
			if (core_->rejoin(id_, options_.parts) && make())
				return;
			// make() has told why.
			again = may_restart();
		}
	}

	void stop()
	{
		if (core_->is_elsewhere())
			return;
		std::vector<std::weak_ptr<RingThreads>> callbacks;
		{
			std::lock_guard lock(mutex_);

			stopped_ = true;
			if (instance_) {
				DomainReport unused;
				bury(unused);
			}
			release();
			callbacks.swap(callbacks_);
		}
		for (const auto &each : callbacks)
			if (const auto threads = each.lock())
				threads->wait();
	}

	std::shared_ptr<Instance> instance() const
	{
		std::lock_guard lock(mutex_);

		return instance_;
	}

	// The same without waiting; false if that is not known, for it is being made.
	bool try_instance(std::shared_ptr<Instance> &instance) const
	{
		std::unique_lock lock(mutex_, std::try_to_lock);

		if (lock)
			instance = instance_;
		return lock.owns_lock();
	}

	std::optional<DomainReport> last_report() const
	{
		std::lock_guard lock(mutex_);

		return last_report_;
	}

	const std::shared_ptr<Supervisor::Core> core_;
	const DomainOptions options_;
	const std::vector<Service> objects_; // each by itself, in the order of their services
	const DomainId id_;
	std::vector<std::shared_ptr<Slot>> slots_;
	std::vector<RingShape> shapes_; // of all rings, in the order that isolation::Creation says
	std::shared_ptr<PassedObjects> passed_; // by the main program; none if its services pass none
	DomainStatus &status_; // calls are counted there

private:
	static std::vector<Service> each_object(const std::vector<Service> &services)
	{
		std::vector<Service> objects;

		for (const Service &service : services)
			objects.insert(objects.end(), service.objects, service);
		return objects;
	}

	// Makes a process, has it serve, and enters it in the registry. On an error all that the domain has is reclaimed.
	result<void> make()
	{
		const auto deadline = Clock::now() + options_.deadline;
		auto instance = std::make_shared<Instance>();
		instance->number = starts_.load() + 1;
		CallEnd end;
		int error = create(*instance);

		if (!error && passed_)
			error = pass_objects(instance);
		if (!error)
			error = have_it_serve(*instance, deadline, end);
		result<void> done = {};
		if (error) {
			done = refused(error, words_of(error));
		} else if (options_.set_up) {
			instance_ = instance;
			auto way = std::make_shared<Way>(shared_from_this(), instance, 0);
			Connection connection = this->connection();
			connection.timeout = std::min<std::chrono::nanoseconds>(
				connection.timeout, std::max<std::chrono::nanoseconds>(deadline - Clock::now(), {}));
			done = options_.set_up(way, connection);
		}
		if (!done) {
			DomainReport report = describe(*instance, error ? &end : nullptr);
			const bool was_made = instance->orbit.has_value();
			report.in_creation = true;
			if (!error)
				report.refused = done.error().message();
			instance_ = std::move(instance);
			bury(report);
			if (was_made)
				tell(report, false);
			return done;
		}
		instance->serves = true;
		instance_ = instance;
		status_.pid = static_cast<std::uint32_t>(instance->pid);
		status_.state = DomainState::serving;
		for (std::uint32_t i = 0; i < slots_.size(); i++)
			slots_[i]->change(std::make_shared<Way>(shared_from_this(), instance, i));
		status_.starts = starts_.fetch_add(1) + 1;
		core_->wake();
		return {};
	}

	int create(Instance &instance) const
	{
		std::vector<Grant> grants = core_->grants(id_);
		if (!shapes_.empty()) {
			if (const int error = make_rings(instance))
				return error;
			grants.emplace_back(*instance.ring_memory, Rights::write);
		}
		if (counters_)
			grants.emplace_back(*counters_, Rights::write);
		auto orbit = Orbit::create({.name = options_.name.empty() ? nullptr : options_.name.c_str(),
					    .keep_fds = options_.keep_fds,
					    .keep_threads = passed_ != nullptr, // which serve its objects
					    .memory_limit = options_.memory_limit,
					    .update_limit = 2 * ORBIT_MAX_UPDATE, // replies are updates
					    .inherit = options_.inherit,
					    .grants = grants});
		if (!orbit)
			return -orbit.error().code();
		instance.orbit.emplace(std::move(*orbit));
		auto stat = instance.orbit->stat();
		if (!stat)
			return -stat.error().code();
		if (stat->pid <= 0)
			return -ECONNRESET;
		Descriptor process(static_cast<int>(syscall(SYS_pidfd_open, stat->pid, 0)));
		if (process.get() < 0)
			return errno == ESRCH ? -ECONNRESET : -errno;
		// Its number could have become another process's by then.
		const auto again = instance.orbit->stat();
		if (!again || again->pid != stat->pid || again->state == ORBIT_STATE_DEAD)
			return -ECONNRESET;
		instance.process = std::move(process);
		instance.pid = stat->pid;
		return 0;
	}

	int make_rings(Instance &instance) const
	{
		auto memory = Shared::create(isolation::rings_bytes(shapes_), "rings");
		if (!memory)
			return -memory.error().code();
		instance.ring_memory = std::make_shared<Shared>(std::move(*memory));
		const auto parts = isolation::rings_memory(instance.ring_memory->span(), shapes_);
		if (parts.empty())
			return -EINVAL;
		// The last one leads here.
		for (std::size_t i = 0; i + (passed_ != nullptr) < parts.size(); i++) {
			auto ring = RingTransport::create(parts[i], shapes_[i]);
			if (!ring)
				return -ring.error().code();
			instance.rings.push_back(std::move(*ring));
		}
		if (!passed_)
			return 0;
		instance.objects = std::move(instance.rings.back());
		instance.rings.pop_back();
		auto server = RingServer::create(parts.back(), shapes_.back());
		if (!server)
			return -server.error().code();
		instance.to_here = std::move(*server);
		return 0;
	}

	// From now on the domain can call what is passed to it.
	int pass_objects(const std::shared_ptr<Instance> &instance)
	{
		passed_->connect(std::make_shared<Way>(shared_from_this(), instance, objects));
		const int error = RingThreads::start(
			instance->to_here, passed_,
			[memory = instance->ring_memory, passed = passed_, epoch = passed_->epoch()] { passed->forget(epoch); },
			&instance->callbacks);
		if (error) {
			passed_->connect(nullptr);
			return error;
		}
		std::erase_if(callbacks_, [](const auto &each) { return each.expired(); });
		callbacks_.push_back(instance->callbacks);
		return 0;
	}

	// The task that serves rings; it does not end.
	int start_rings(const Instance &instance) const
	{
		return orbit_call_async(instance.orbit->raw(), isolation::serve_rings, nullptr, 0, nullptr, nullptr);
	}

	int have_it_serve(Instance &instance, Clock::time_point deadline, CallEnd &end) const
	{
		isolation::Creation creation{};
		creation.heap = core_->regions.memory.data();
		creation.heap_bytes = core_->regions.memory.size();
		creation.self = id_;
		creation.peer = self;
		creation.nr_objects = objects_.size();
		std::copy(objects_.begin(), objects_.end(), creation.objects);
		creation.timeout = options_.timeout;
		creation.nr_rings = shapes_.size();
		std::copy(shapes_.begin(), shapes_.end(), creation.shapes);
		creation.rings = shapes_.empty() ? nullptr : instance.ring_memory->data();
		creation.passes_objects = passed_ != nullptr;
		creation.generation = static_cast<std::uint32_t>(instance.number << 20); // objects of another process are others

		creation.counters = counters_ ? reinterpret_cast<DeviceCounters *>(counters_->data()) : nullptr;

		const auto left = std::chrono::nanoseconds(deadline - Clock::now()).count();
		if (left <= 0) {
			end.silent = true;
			return -ETIMEDOUT;
		}
		orbit_call_options options{};
		options.size = sizeof(options);
		options.time_limit_ns = static_cast<std::uint64_t>(left);
		end.outcome.size = sizeof(end.outcome);
		const int error = orbit_call(instance.orbit->raw(), isolation::begin_to_serve, &creation, sizeof(creation), &options,
					     &end.outcome);
		end.silent = error == -ETIMEDOUT;
		if (error == -ESHUTDOWN)
			return -ECONNRESET;
		if (error)
			return error;
		if (end.outcome.value)
			return -EPROTO;
		return instance.rings.empty() ? 0 : start_rings(instance);
	}

	// How it died, before anything is done about it: what happens then is no reason.
	DomainReport describe(const Instance &instance, const CallEnd *end) const
	{
		DomainReport report;

		report.domain = options_.name;
		report.start = instance.number;
		report.silent = end && end->silent;
		if (end && end->outcome.cause != ORBIT_CAUSE_NONE) {
			report.cause = static_cast<orbit_cause>(end->outcome.cause);
			report.code = end->outcome.code;
			report.address = end->outcome.fault_addr;
		} else if (instance.orbit && instance.process.get() >= 0 && wait_for(instance.process.get(), POLLIN, 0)) {
			// The library may learn of it a little later than the kernel.
			wait_for(instance.orbit->fd(), 0, patience_ms); // for POLLHUP
			if (const auto stat = instance.orbit->stat()) {
				report.cause = static_cast<orbit_cause>(stat->cause);
				report.code = stat->code;
				report.address = stat->fault_addr;
			}
		}
		return report;
	}

	// Takes the instance out of the registry, ends its process, and takes back what it had.
	void bury(DomainReport &report)
	{
		const std::shared_ptr<Instance> dead = std::move(instance_);

		instance_ = nullptr;
		status_.pid = 0;
		status_.state = DomainState::down;
		dead->buried = true;
		if (passed_)
			passed_->connect(nullptr);
		dead->end_rings();
		for (const auto &slot : slots_)
			slot->change(nullptr);
		if (dead->process.get() >= 0) {
			syscall(SYS_pidfd_send_signal, dead->process.get(), SIGKILL, nullptr, 0);
			// As long as it may write nobody else gets the memory.
			lost_ = !wait_for(dead->process.get(), POLLIN, patience_ms);
		}
		// Nor as long as a device may write to it. Only now does nobody tell that to do so.
		if (options_.silence) {
			if (options_.silence())
				status_.silenced.fetch_add(1);
			else
				lost_ = true;
		}
		if (!lost_)
			report.buffers = core_->reclaim(id_);
	}

	void tell(DomainReport &report, bool restarted)
	{
		report.restarted = restarted;
		last_report_ = report;
		isolation::set_text(status_, status_.last_end, report.end());
		if (restarted)
			status_.state = DomainState::starting;
		if (core_->report)
			core_->report(report);
	}

	// Its name and number are others' again.
	void release()
	{
		if (std::exchange(released_, true))
			return;
		status_.state = DomainState::none;
		for (const Service &service : options_.services)
			core_->registry.remove(service.interface->id, options_.name);
		std::lock_guard lock(core_->mutex);
		core_->names.erase(options_.name);
		if (!lost_)
			core_->taken.erase(id_);
	}

	bool may_restart()
	{
		const auto now = Clock::now();

		if (stopped_ || lost_)
			return false;
		while (!restarts_.empty() && now - restarts_.front() > options_.restarts.within)
			restarts_.pop_front();
		stopped_ = restarts_.size() >= options_.restarts.most;
		if (!stopped_)
			restarts_.push_back(now);
		return !stopped_;
	}

	mutable std::mutex mutex_;
	std::shared_ptr<Instance> instance_; // none: it is down
	std::optional<DomainReport> last_report_;
	std::deque<Clock::time_point> restarts_;
	std::optional<Shared> counters_; // a driver's
	std::vector<std::weak_ptr<RingThreads>> callbacks_; // of all its processes
	std::atomic<std::uint64_t> starts_{0};
	bool stopped_ = false; // for ever
	bool released_ = false;
	bool lost_ = false;    // its process could not be ended: neither its number nor its memory is used again
};

// Domains that die while nobody calls them.
void Supervisor::Core::watch()
{
	while (!ending) {
		std::vector<std::pair<std::shared_ptr<Domain::Body>, std::shared_ptr<Domain::Body::Instance>>> watched;
		std::vector<pollfd> fds{{event.get(), POLLIN, 0}};
		bool all = true;
		{
			std::vector<std::shared_ptr<Domain::Body>> living;
			{
				std::lock_guard lock(bodies_mutex);

				std::erase_if(bodies, [](const auto &body) { return body.expired(); });
				for (const auto &body : bodies)
					if (auto one = body.lock())
						living.push_back(std::move(one));
			}
			for (auto &body : living) {
				std::shared_ptr<Domain::Body::Instance> instance;
				all = body->try_instance(instance) && all;
				if (!instance || !instance->serves)
					continue;
				fds.push_back({instance->process.get(), POLLIN, 0});
				watched.emplace_back(std::move(body), std::move(instance));
			}
		}
		if (poll(fds.data(), fds.size(), all ? -1 : 100) < 0)
			continue;
		std::uint64_t count;
		[[maybe_unused]] const ssize_t taken_out = read(event.get(), &count, sizeof(count));
		for (std::size_t i = 0; i < watched.size() && !ending; i++)
			if (fds[i + 1].revents)
				watched[i].first->recover(*watched[i].second, nullptr, 0, 0);
	}
}

Domain::~Domain()
{
	stop();
}

std::shared_ptr<Transport> Domain::transport(int number) const
{
	// Proxies use what their connection points to.
	struct Kept {
		isolation::SlotTransport transport;
		std::shared_ptr<PassedObjects> passed;
	};
	auto kept = std::make_shared<Kept>(isolation::SlotTransport(body_->slots_[static_cast<std::size_t>(number)]), body_->passed_);

	return {kept, &kept->transport};
}

Connection Domain::connection() const
{
	return body_->connection();
}

std::shared_ptr<Recovery> Domain::recovery() const
{
	return body_;
}

int Domain::find(std::uint64_t interface_id, unsigned object) const noexcept
{
	const auto &objects = body_->objects_;

	for (std::size_t i = 0; i < objects.size(); i++)
		if (objects[i].interface->id == interface_id && !object--)
			return static_cast<int>(i);
	return -1;
}

void Domain::stop()
{
	body_->stop();
	if (!body_->core_->is_elsewhere())
		body_->core_->wake(); // the watcher shall let go of it
}

DomainStatistics Domain::statistics() const
{
	DomainStatistics statistics;
	Census census;
	{
		std::lock_guard lock(body_->core_->mutex);
		census = body_->core_->heap.census();
	}

	statistics.running = body_->instance() != nullptr;
	statistics.starts = body_->starts();
	statistics.calls = body_->status_.calls.load();
	statistics.failed = body_->status_.failed.load();
	statistics.owned = census.owned[body_->id_];
	statistics.lent = census.lent[body_->id_];
	return statistics;
}

std::optional<DomainReport> Domain::last_report() const
{
	return body_->last_report();
}

pid_t Domain::pid() const
{
	const auto instance = body_->instance();

	return instance ? instance->pid : 0;
}

result<std::unique_ptr<Supervisor>> Supervisor::create(const SupervisorOptions &options)
{
	const DomainId domains = options.domains + self;
	std::vector<std::size_t> sizes;

	for (const ZoneOptions &zone : options.zones)
		sizes.push_back(zone.bytes);
	const std::size_t bytes = options.domains < isolation::max_domains ? Heap::bytes(domains, sizes) : 0;
	if (!bytes || !options.domains)
		return refused(-EINVAL, "there is no such heap");
	const std::vector<Range> ranges = ranges_of(domains, sizes, bytes);
	if (ranges.empty())
		return refused(-ENOMEM, "there is no memory for the heap");
	static std::atomic<unsigned> supervisors{0};
	const unsigned number = supervisors.fetch_add(1);
	auto regions = make_regions(ranges, bytes, number);
	if (!regions)
		return tl::unexpected(regions.error());
	const std::span<std::byte> memory = regions->memory;
	auto heap = Heap::create(memory, domains, sizes);
	if (!heap)
		return tl::unexpected(heap.error());

	auto core = std::make_shared<Core>(std::move(*regions), std::move(*heap), number);
	core->most = domains;
	core->report = options.report;
	if (core->event.get() < 0)
		return refused(-EMFILE, "there is no descriptor left");
	auto shown = Shared::create(sizeof(SupervisorStatus), (isolation::status_name + std::to_string(number)).c_str());
	if (!shown)
		return as_result(shown.error(), "there is no memory for what other programs are told");
	core->status = new (shown->data()) SupervisorStatus{.magic = isolation::status_magic,
							    .size = sizeof(DomainStatus),
							    .domains = domains + 1,
							    .heap_parts = static_cast<std::uint32_t>(core->regions.parts.size()),
							    .reserved = 0,
							    .domain = {}};
	core->shown = std::move(*shown);
	for (std::uint32_t i = 0; i < options.zones.size(); i++) {
		if (!options.zones[i].own)
			continue;
		auto done = core->heap.add(self, i);
		if (done)
			done = core->heap.grant(self, i, options.zones[i].own);
		if (!done)
			return tl::unexpected(done.error());
	}
	auto endpoint = Endpoint::attach(memory, self);
	if (!endpoint)
		return tl::unexpected(endpoint.error());
	core->endpoint = std::move(*endpoint);
	std::unique_ptr<Supervisor> made(new Supervisor(core));
	try {
		core->watcher = std::thread(&Core::watch, core.get());
	} catch (const std::system_error &) {
		return refused(-EAGAIN, "there can be no thread to watch domains");
	}
	return made;
}

Supervisor::~Supervisor()
{
	if (core_->is_elsewhere()) {
		// Its thread is not there, and nothing else may be touched: left as it is.
		new std::shared_ptr<Core>(std::move(core_));
		return;
	}
	core_->stop_watching();
	std::vector<std::weak_ptr<Domain::Body>> bodies;
	{
		std::lock_guard lock(core_->bodies_mutex);
		bodies.swap(core_->bodies);
	}
	for (const auto &body : bodies)
		if (auto one = body.lock())
			one->stop();
}

result<std::unique_ptr<Domain>> Supervisor::start(DomainOptions options)
{
	std::set<std::uint64_t> ids;
	std::uint64_t objects = 0;

	if (options.deadline.count() <= 0)
		return refused(-ETIMEDOUT, "the deadline has passed already");
	for (const Service &service : options.services) {
		if (!service.interface || !service.make || !service.objects)
			return refused(-EINVAL, "a service is of nothing");
		objects += service.objects;
		if (!ids.insert(service.interface->id).second)
			return refused(-EEXIST, "the domain would serve an interface twice");
	}
	if (!objects || objects > isolation::max_objects)
		return refused(-EINVAL, "a domain has 1 to 64 objects that serve");
	{
		std::lock_guard lock(core_->mutex);
		if (!core_->names.insert(options.name).second)
			return refused(-EEXIST, "there is a domain of this name");
	}
	const auto id = core_->add(options.parts);
	if (!id) {
		std::lock_guard lock(core_->mutex);
		core_->names.erase(options.name);
		return tl::unexpected(id.error());
	}

	auto body = std::make_shared<Domain::Body>(core_, std::move(options), *id);
	if (auto begun = body->begin(); !begun)
		return tl::unexpected(begun.error());
	{
		std::lock_guard lock(core_->bodies_mutex);
		core_->bodies.push_back(body);
	}
	core_->wake();
	return std::unique_ptr<Domain>(new Domain(std::move(body)));
}

Endpoint &Supervisor::endpoint() const noexcept
{
	return *core_->endpoint;
}

std::span<std::byte> Supervisor::zone_memory(Zone zone) const noexcept
{
	const std::span<std::byte> memory = core_->regions.memory;
	const auto *const header = reinterpret_cast<const isolation::Header *>(memory.data());

	if (zone.number >= header->zones)
		return {};
	return memory.subspan(header->zone[zone.number].data, header->zone[zone.number].bytes);
}

Registry &Supervisor::registry() const noexcept
{
	return core_->registry;
}

Census Supervisor::census() const
{
	std::lock_guard lock(core_->mutex);

	return core_->heap.census();
}

} // namespace orbit
