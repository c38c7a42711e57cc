// SPDX-License-Identifier: MIT
//
// Both sides of the call transport, see <orbit/call.hpp>.
#include <orbit/call.hpp>

#include <algorithm>
#include <cstring>
#include <thread>

namespace orbit::isolation {
namespace {

// What each message begins with.
struct CallHead {
	std::uint32_t object;
	std::uint32_t method;
	std::uint64_t room; // for the reply, in bytes
};

// The reply's number among the operations that a task may send. Numbers near the end are the libraries'.
constexpr std::uint64_t reply_operation = ~std::uint64_t{2};

// --- in the domain

struct Serving {
	std::unique_ptr<Endpoint> endpoint;
	std::vector<std::shared_ptr<Skeleton>> objects;
	std::vector<RingMemory> rings;
	std::vector<RingShape> shapes;
	std::shared_ptr<PassedObjects> passed;
	std::shared_ptr<RingThreads> threads; // that serve them
	std::vector<std::byte> reply;
};

Serving *serving; // never destroyed: the domain's process ends without that

// To the main program's objects.
class WayToMain final : public PassedWay {
public:
	explicit WayToMain(std::shared_ptr<RingTransport> ring) noexcept : ring_(std::move(ring)) {}

	int call(std::uint32_t method, std::span<const std::byte> args, std::span<std::byte> reply, std::size_t *reply_bytes,
		 std::uint64_t timeout_ns) override
	{
		return ring_->call(method, args, reply, reply_bytes, timeout_ns);
	}
	void post(std::uint32_t method, std::span<const std::byte> args) override { ring_->post(method, args); }

private:
	std::shared_ptr<RingTransport> ring_;
};

// Objects go both ways by the last two rings.
int pass_objects(Serving &made, const Creation &creation)
{
	const std::size_t n = made.rings.size();
	auto server = RingServer::create(made.rings[n - 2], made.shapes[n - 2]);
	auto ring = RingTransport::create(made.rings[n - 1], made.shapes[n - 1]);

	if (!server || !ring)
		return -EPROTO;
	made.passed = std::make_shared<PassedObjects>(true, creation.generation);
	made.passed->connect(std::make_shared<WayToMain>(std::move(*ring)));
	return RingThreads::start(std::move(*server), made.passed, [] {}, &made.threads);
}

// The value of a task is 0, or the errno value of what is wrong.
std::uint64_t serve(const void *argument, std::size_t size)
{
	CallHead head;

	if (!serving || size < sizeof(head))
		return EPROTO;
	std::memcpy(&head, argument, sizeof(head));
	if (head.object >= serving->objects.size() || head.room > ORBIT_MAX_UPDATE)
		return EPROTO;
	const std::span args(static_cast<const std::byte *>(argument) + sizeof(head), size - sizeof(head));
	std::vector<std::byte> &reply = serving->reply;
	std::size_t bytes = 0;

	if (reply.size() < head.room)
		reply.resize(head.room);
	const std::span room(reply.data(), head.room);
	if (const int error = serving->objects[head.object]->dispatch(head.method, args, room, &bytes))
		return static_cast<std::uint64_t>(-error);
	if (bytes > room.size())
		return EPROTO;
	return static_cast<std::uint64_t>(-orbit_send_operation(reply_operation, reply.data(), bytes));
}

// --- in the main program

struct Task {
	orbit_task *raw = nullptr;
	~Task() { orbit_task_destroy(raw); }
};

// Of what happened to the task, the error of the call.
int judge(int error, const orbit_outcome &outcome, CallEnd &end)
{
	end.outcome = outcome;
	if (!error)
		return outcome.value ? -EREMOTEIO : 0;
	end.died = error == -ECONNRESET || error == -ESHUTDOWN || outcome.cause != ORBIT_CAUSE_NONE;
	end.began = error != -ESHUTDOWN && error != -ECANCELED;
	if (end.died)
		return end.began ? -ECONNRESET : -ESHUTDOWN;
	return error;
}

} // namespace

std::uint64_t begin_to_serve(const void *argument, std::size_t size)
{
	Creation creation;

	if (serving || size != sizeof(creation))
		return EPROTO;
	std::memcpy(&creation, argument, sizeof(creation));
	auto made = std::make_unique<Serving>();
	auto endpoint = Endpoint::attach({creation.heap, creation.heap_bytes}, creation.self);

	if (!endpoint)
		return static_cast<std::uint64_t>(endpoint.error().code());
	made->endpoint = std::move(*endpoint);
	if (creation.nr_rings) {
		made->shapes.assign(creation.shapes, creation.shapes + creation.nr_rings);
		made->rings = rings_memory({creation.rings, rings_bytes(made->shapes)}, made->shapes);
		if (made->rings.empty())
			return EPROTO;
	}
	if (creation.passes_objects)
		if (const int error = pass_objects(*made, creation))
			return static_cast<std::uint64_t>(-error);
	const Connection connection{.capabilities = made->passed.get(),
				    .endpoint = made->endpoint.get(),
				    .peer = creation.peer,
				    .timeout = creation.timeout,
				    .counters = creation.counters};
	for (std::size_t i = 0; i < creation.nr_objects; i++)
		made->objects.push_back(creation.objects[i].make(connection));
	serving = made.release();
	return 0;
}

std::uint64_t serve_rings(const void *, std::size_t)
{
	if (!serving || serving->rings.size() < serving->objects.size())
		return EPROTO;
	std::vector<std::shared_ptr<RingServer>> servers;
	for (std::size_t i = 0; i < serving->objects.size(); i++) {
		auto server = RingServer::create(serving->rings[i], serving->shapes[i]);
		if (!server)
			return EPROTO;
		servers.push_back(std::move(*server));
	}
	// A thread for each object: they are called independently of one another.
	for (std::size_t i = 1; i < servers.size(); i++)
		std::thread([server = servers[i], object = serving->objects[i]] { server->serve(*object); }).detach();
	return static_cast<std::uint64_t>(-servers[0]->serve(*serving->objects[0]));
}

int CallTransport::call(std::uint32_t method, std::span<const std::byte> args, std::span<std::byte> reply,
			std::size_t *reply_bytes, std::uint64_t timeout_ns)
{
	CallEnd end;

	return call(method, args, reply, reply_bytes, timeout_ns, end);
}

int CallTransport::call(std::uint32_t method, std::span<const std::byte> args, std::span<std::byte> reply,
			std::size_t *reply_bytes, std::uint64_t timeout_ns, CallEnd &end)
{
	*reply_bytes = 0;
	if (!timeout_ns)
		return -ETIMEDOUT;
	if (args.size() > ORBIT_MAX_ARG - sizeof(CallHead))
		return -E2BIG;

	const CallHead head{object_, method, std::min<std::uint64_t>(reply.size(), ORBIT_MAX_UPDATE)};
	const std::size_t bytes = sizeof(head) + args.size();
	std::byte few[2048];
	std::unique_ptr<std::byte[]> many;
	std::byte *message = few;
	if (bytes > sizeof(few)) {
		many = std::make_unique_for_overwrite<std::byte[]>(bytes);
		message = many.get();
	}
	std::memcpy(message, &head, sizeof(head));
	if (!args.empty())
		std::memcpy(message + sizeof(head), args.data(), args.size());

	orbit_call_options options{};
	options.size = sizeof(options);
	options.flags = ORBIT_CALL_WAIT_ROOM;
	options.deadline_ns = orbit_deadline(timeout_ns);
	orbit_outcome outcome{};
	outcome.size = sizeof(outcome);
	Task task;
	if (int error = orbit_call_async(orbit_, serve, message, bytes, &options, &task.raw))
		return error == -ETIME ? -ETIMEDOUT : judge(error, outcome, end);

	int error = orbit_task_wait(task.raw, options.deadline_ns, &outcome);
	if (error == -ETIME) {
		// What waits behind others is taken back; what runs ends with the domain.
		error = orbit_task_cancel(task.raw, 0);
		if (!error)
			return -ETIMEDOUT;
		if (error == -EBUSY && !orbit_task_cancel(task.raw, ORBIT_CANCEL_RUNNING)) {
			orbit_task_wait(task.raw, 0, &outcome);
			end = {.died = true, .silent = true, .began = true, .outcome = outcome};
			return -ETIMEDOUT;
		}
		error = orbit_task_wait(task.raw, 0, &outcome); // it has just ended
	}
	error = judge(error, outcome, end);
	if (error)
		return error;

	orbit_update update{};
	update.size = sizeof(update);
	error = orbit_task_receive(task.raw, ORBIT_NO_WAIT, &update);
	if (error)
		return error == -ENODATA ? -EPROTO : error;
	if (update.kind != ORBIT_UPDATE_OPERATION || update.target != reply_operation || update.length > reply.size())
		return -EPROTO;
	if (update.length)
		std::memcpy(reply.data(), update.data, update.length);
	*reply_bytes = update.length;
	return 0;
}

} // namespace orbit::isolation
