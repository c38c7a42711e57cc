// SPDX-License-Identifier: MIT
//
// Calls over shared memory: with a server that is honest, dead, silent or mad, and callers that are.
#include <orbit/ring.hpp>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstring>
#include <functional>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <thread>
#include <unistd.h>
#include <vector>

namespace {

using namespace orbit::isolation;
using namespace std::chrono_literals;

constexpr std::uint64_t second = 1000000000, patience = 60 * second;
enum Method : std::uint32_t { plus_one, hangs, refuses, says_nothing };

// A file without a name, mapped with both areas, or as one side has it.
struct Shared {
	explicit Shared(const RingShape &shape) : shape(shape), bytes(ring_bytes(shape))
	{
		file = memfd_create("ring", MFD_CLOEXEC);
		if (file < 0 || ftruncate(file, static_cast<off_t>(bytes)))
			abort();
		memory = *ring_memory({map(), bytes}, shape);
	}
	~Shared()
	{
		munmap(memory.calls.data(), bytes);
		close(file);
	}
	std::byte *map() const
	{
		return static_cast<std::byte *>(mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0));
	}
	RingMemory mapped_again(bool caller) const
	{
		const RingMemory again = *ring_memory({map(), bytes}, shape);
		const auto &other = caller ? again.replies : again.calls;

		mprotect(other.data(), other.size(), PROT_READ);
		return again;
	}

	RingShape shape;
	std::size_t bytes;
	int file;
	RingMemory memory;
};

// Each byte of the reply is one more than in the message.
class PlusOne final : public Skeleton {
public:
	std::uint64_t interface_id() const noexcept override { return 1; }
	int dispatch(std::uint32_t method, std::span<const std::byte> args, std::span<std::byte> reply,
		     std::size_t *reply_bytes) override
	{
		calls++;
		longest = std::max<std::size_t>(longest, args.size());
		switch (method) {
		case hangs:
			for (;;)
				pause();
		case refuses:
			return -EPROTO;
		case says_nothing:
			*reply_bytes = 0;
			return 0;
		}
		if (reply.size() < args.size())
			return -EMSGSIZE;
		for (std::size_t i = 0; i < args.size(); i++)
			reply[i] = static_cast<std::byte>(static_cast<unsigned>(args[i]) + 1);
		*reply_bytes = args.size();
		return 0;
	}

	std::atomic<std::size_t> calls = 0, longest = 0;
};

// A process that does this, until it is killed.
class Process {
public:
	explicit Process(const std::function<void()> &act) : pid_(fork())
	{
		if (pid_ == 0) {
			alarm(100); // whatever becomes of the test
			prctl(PR_SET_PDEATHSIG, SIGKILL);
			act();
			_exit(0);
		}
	}
	~Process() { end(); }
	void end()
	{
		if (pid_ > 0) {
			kill(pid_, SIGKILL);
			waitpid(pid_, nullptr, 0);
		}
		pid_ = 0;
	}

private:
	pid_t pid_;
};

// Makes one call, and says whether its reply is right.
int call(RingTransport &ring, std::uint64_t value, std::uint64_t timeout = patience, std::size_t bytes = 8)
{
	std::vector<std::byte> args(bytes), reply(bytes);
	std::size_t got = 0;

	for (std::size_t i = 0; i < bytes; i++)
		args[i] = static_cast<std::byte>(value >> i % 8 * 8);
	if (const int error = ring.call(plus_one, args, reply, &got, timeout))
		return error;
	if (got != bytes)
		return -1000;
	for (std::size_t i = 0; i < bytes; i++)
		if (static_cast<unsigned>(reply[i]) != ((static_cast<unsigned>(args[i]) + 1) & 255))
			return -1001;
	return 0;
}

std::shared_ptr<RingTransport> caller_of(const Shared &shared)
{
	return *RingTransport::create(shared.memory, shared.shape);
}

// Serves in a thread as long as it is there.
struct Serving {
	explicit Serving(const Shared &shared, int threads = 1) : ring(*RingServer::create(shared.memory, shared.shape))
	{
		for (int i = 0; i < threads; i++)
			workers.emplace_back([this] { EXPECT_EQ(ring->serve(object), -ECANCELED); });
	}
	~Serving()
	{
		ring->end(-ECANCELED);
		for (std::thread &worker : workers)
			worker.join();
	}

	PlusOne object;
	std::shared_ptr<RingServer> ring;
	std::vector<std::thread> workers;
};

TEST(Ring, AShapeOrMemoryThatCannotBeIsRefused)
{
	for (const RingShape &shape : {RingShape{.slots = 0}, RingShape{.slots = 3}, RingShape{.slots = 128},
				       RingShape{.message_bytes = 15}, RingShape{.message_bytes = (16 << 20) + 1}})
		EXPECT_EQ(ring_bytes(shape), 0u);
	const RingShape shape;
	Shared shared(shape);
	EXPECT_FALSE(ring_memory(shared.memory.calls, shape));
	EXPECT_FALSE(ring_memory({shared.memory.calls.data() + 64, shared.bytes}, shape));
	EXPECT_FALSE(RingTransport::create({shared.memory.calls, shared.memory.replies.first(4096)}, shape));
	EXPECT_FALSE(RingServer::create({shared.memory.calls.first(64), shared.memory.replies}, shape));
}

TEST(Ring, BetweenProcessesThatWriteOnlyTheirOwnArea)
{
	for (const std::uint32_t spins : {0u, 2000u}) {
		Shared shared({.slots = 8, .message_bytes = 5000, .spins = spins});
		Process server([&] {
			PlusOne object;
			(*RingServer::create(shared.mapped_again(false), shared.shape))->serve(object);
		});
		const auto ring = *RingTransport::create(shared.mapped_again(true), shared.shape);
		for (std::uint64_t i = 0; i < 300; i++)
			ASSERT_EQ(call(*ring, i * 77777, patience, i % 3 ? 8 : 5000), 0);
		EXPECT_EQ(call(*ring, 1, patience, 5001), -EMSGSIZE);
		EXPECT_EQ(call(*ring, 1, patience, 0), 0);
	}
}

TEST(Ring, ManyThreadsOnBothSides)
{
	Shared shared({.slots = 4, .message_bytes = 64, .spins = 50}); // less than threads: they wait for one
	Serving serving(shared, 2);
	const auto ring = caller_of(shared);
	std::vector<std::thread> callers;

	for (std::uint64_t t = 0; t < 6; t++)
		callers.emplace_back([&, t] {
			for (std::uint64_t i = 0; i < 300; i++)
				ASSERT_EQ(call(*ring, i << 8 | t), 0);
		});
	for (std::thread &caller : callers)
		caller.join();
	EXPECT_EQ(serving.object.calls, 1800u);
	EXPECT_EQ(ring->abandoned(), 0u);
}

TEST(Ring, ABatchIsUnderWayAtOnceAndEndsInAnyOrder)
{
	Shared shared({.slots = 32, .message_bytes = 64, .spins = 100});
	Serving serving(shared);
	const auto ring = caller_of(shared);

	for (int round = 0; round < 50; round++) {
		RingTicket tickets[32];
		for (std::uint32_t i = 0; i < 32; i++) {
			const auto byte = static_cast<std::byte>(i);
			ASSERT_EQ(ring->start(plus_one, {&byte, 1}, &tickets[i], true), 0);
		}
		RingTicket none;
		EXPECT_EQ(ring->start(plus_one, {}, &none), -EAGAIN);
		if (round % 2)
			ring->kick(); // otherwise the first finish() does
		for (std::uint32_t i = 32; i-- > 0;) {
			std::byte reply[8];
			std::size_t bytes = 0;
			ASSERT_EQ(ring->finish(tickets[i], reply, &bytes, patience), 0);
			ASSERT_EQ(bytes, 1u);
			ASSERT_EQ(static_cast<std::uint32_t>(reply[0]), i + 1);
			EXPECT_EQ(ring->finish(tickets[i], reply, &bytes, patience), -EINVAL);
		}
	}
}

TEST(D3_CleanEnd, CallsOfADeadServerEndWithTheCallersWord)
{
	Shared shared({.slots = 8, .message_bytes = 64});
	Process server([&] {
		PlusOne object;
		const auto ring = *RingServer::create(shared.mapped_again(false), shared.shape);
		std::thread second([&] { ring->serve(object); });
		ring->serve(object);
	});
	const auto ring = caller_of(shared);
	ASSERT_EQ(call(*ring, 1), 0);

	std::vector<std::thread> callers;
	std::atomic<int> ended = 0;
	for (int i = 0; i < 4; i++)
		callers.emplace_back([&] {
			std::size_t bytes;
			EXPECT_EQ(ring->call(hangs, {}, {}, &bytes, patience), -EOWNERDEAD);
			ended++;
		});
	std::this_thread::sleep_for(50ms);
	EXPECT_EQ(ended, 0);
	const auto began = std::chrono::steady_clock::now();
	server.end();
	ring->end(-EOWNERDEAD);
	for (std::thread &caller : callers)
		caller.join();
	EXPECT_LT(std::chrono::steady_clock::now() - began, 20s);
	EXPECT_EQ(call(*ring, 1), -EOWNERDEAD);
	RingTicket ticket;
	EXPECT_EQ(ring->start(plus_one, {}, &ticket), -EOWNERDEAD);
}

TEST(D3_CleanEnd, WhoIsAboutToSleepIsNotForgotten)
{
	for (int round = 0; round < 200; round++) {
		Shared shared({.slots = 2, .message_bytes = 64, .spins = static_cast<std::uint32_t>(round % 20)});
		const auto ring = caller_of(shared);
		const auto server = *RingServer::create(shared.memory, shared.shape);
		PlusOne object;
		std::thread caller([&] {
			std::size_t bytes;
			const int error = ring->call(says_nothing, {}, {}, &bytes, patience);
			EXPECT_TRUE(error == 0 || error == -EOWNERDEAD) << error;
		});
		std::thread serving([&] { EXPECT_EQ(server->serve(object), -ECANCELED); });
		if (round % 4 == 0)
			std::this_thread::sleep_for(100us);
		server->end(-ECANCELED);
		ring->end(-EOWNERDEAD);
		caller.join();
		serving.join();
	}
}

TEST(D5_HostileBytes, EachLieOfTheServerIsAnErrorOfTheCaller)
{
	Shared shared({.slots = 4, .message_bytes = 64, .spins = 0});
	const auto ring = caller_of(shared);
	detail::RingView view;
	ASSERT_TRUE(view.set(shared.memory, shared.shape));
	struct Lie {
		std::uint32_t bytes, refused, number; // number: added to the right one
		int error;
	};
	const Lie lies[] = {
		{65, 0, 0, -EPROTO},  {0xffffffff, 0, 0, -EPROTO}, {32, 0, 0, -EPROTO}, // more than this caller takes
		{0x80000000, 0, 0, -EPROTO}, {0, 1, 0, -EPROTO},   {0, 0xffffffff, 0, -EPROTO},
		{8, 0, 1, -ETIMEDOUT}, {8, 0, 0xffffffff, -ETIMEDOUT}, {16, 0, 0, 0},
	};
	for (const Lie &lie : lies) {
		RingTicket ticket;
		std::byte reply[24];
		std::size_t bytes = 99;
		std::memset(reply, 7, sizeof(reply));
		ASSERT_EQ(ring->start(plus_one, {}, &ticket), 0);
		view.reply(ticket.slot).bytes = lie.bytes;
		view.reply(ticket.slot).refused = lie.refused;
		view.reply(ticket.slot).number = ticket.number + lie.number;
		EXPECT_EQ(ring->finish(ticket, std::span(reply).first(16), &bytes, second / 100), lie.error);
		EXPECT_EQ(bytes, lie.error ? 99u : 16u);
		EXPECT_EQ(reply[16], std::byte{7});
	}
	EXPECT_EQ(ring->abandoned(), 2u);
}

TEST(D5_HostileBytes, EachLieOfACallerIsNoCallOrIsRefused)
{
	Shared shared({.slots = 4, .message_bytes = 64});
	const auto server = *RingServer::create(shared.memory, shared.shape);
	PlusOne object;
	detail::RingView view;
	ASSERT_TRUE(view.set(shared.memory, shared.shape));
	std::uint32_t number = 1;
	const auto put = [&](std::uint32_t slot, std::uint32_t as) {
		view.queue[number & 3].slot = slot;
		view.queue[number & 3].number = as;
	};
	// No calls: numbers that are not next.
	for (const std::uint32_t wrong : {0u, 2u, 5u, 0xffffffffu}) {
		put(0, wrong);
		EXPECT_FALSE(server->serve_one(object));
	}
	// Slots that there are not.
	for (const std::uint32_t wrong : {4u, 64u, 0x80000000u, 0xffffffffu}) {
		put(wrong, number);
		EXPECT_TRUE(server->serve_one(object));
		number++;
	}
	EXPECT_EQ(object.calls, 0u);
	// Lengths beyond the ring's.
	for (const std::uint32_t wrong : {65u, 0x10000u, 0xffffffffu}) {
		view.call(1).bytes = wrong;
		put(1, number);
		EXPECT_TRUE(server->serve_one(object));
		EXPECT_EQ(view.reply(1).number, number);
		EXPECT_EQ(view.reply(1).refused, 1u);
		number++;
	}
	EXPECT_EQ(object.calls, 0u);
	// And one that is right.
	view.call(1).bytes = 64;
	put(1, number);
	EXPECT_TRUE(server->serve_one(object));
	EXPECT_EQ(view.reply(1).refused, 0u);
	EXPECT_EQ(object.longest, 64u);
}

// A process that writes whatever it likes wherever it can, and honest words between.
void go_mad(const Shared &shared, bool as_server, unsigned seed)
{
	const RingMemory memory = shared.mapped_again(!as_server);
	const auto area = as_server ? memory.replies : memory.calls;
	detail::RingView view;
	view.set(memory, shared.shape);
	std::uint64_t state = seed * 0x9e3779b97f4a7c15 + 1;
	const auto random = [&] {
		state ^= state << 13;
		state ^= state >> 7;
		return static_cast<std::uint32_t>((state ^= state << 17) >> 20);
	};
	const std::uint32_t odd[] = {0, 1, 63, 64, 65, 0x7fffffff, 0x80000000, 0xffffffff};
	for (;;) {
		const std::uint32_t slot = random() % shared.shape.slots, what = random() % 4 ? odd[random() % 8] : random();
		switch (random() % 8) {
		case 0:
			area[random() % area.size()] = static_cast<std::byte>(random());
			break;
		case 1:
			if (as_server)
				view.reply(slot).bytes = what;
			else
				view.call(slot).bytes = what;
			break;
		case 2:
			if (as_server)
				view.reply(slot).refused = what % 2;
			else
				view.call(slot).method = random() % 2 ? plus_one : static_cast<std::uint32_t>(refuses);
			break;
		case 3:
			if (as_server)
				view.server->sleeps = what;
			else
				view.call(slot).sleeps = what;
			break;
		case 4: // a number that may be right: of the queue, or the next
			if (as_server)
				view.reply(slot).number = view.queue[slot].number.load();
			else
				view.queue[slot].slot = what;
			break;
		default:
			if (as_server)
				view.reply(slot).number = view.reply(random() % shared.shape.slots).number + random() % 3;
			else
				view.queue[slot].number = view.queue[random() % shared.shape.slots].number + random() % 3;
		}
	}
}

TEST(D5_HostileBytes, AMadServerMakesNothingButErrorsOfTheCaller)
{
	Shared shared({.slots = 8, .message_bytes = 64, .spins = 20});
	const auto ring = caller_of(shared);
	Process mad([&] { go_mad(shared, true, 1); });
	std::vector<std::thread> callers;
	std::atomic<int> seen = 0;

	for (int t = 0; t < 3; t++)
		callers.emplace_back([&] {
			const auto end = std::chrono::steady_clock::now() + 700ms;
			while (std::chrono::steady_clock::now() < end) {
				std::byte args[64] = {}, reply[48];
				std::size_t bytes = 0;
				std::memset(reply, 9, sizeof(reply));
				const int error =
					ring->call(plus_one, args, std::span(reply).first(32), &bytes, second / 1000);
				ASSERT_TRUE(error == 0 || error == -ETIMEDOUT || error == -EPROTO) << error;
				ASSERT_LE(bytes, 32u);
				ASSERT_TRUE(std::all_of(reply + 32, reply + 48, [](std::byte b) { return b == std::byte{9}; }));
				seen++;
			}
		});
	for (std::thread &caller : callers)
		caller.join();
	EXPECT_GT(seen, 50);
	ring->end(-EOWNERDEAD);
	EXPECT_EQ(call(*ring, 1), -EOWNERDEAD);
}

TEST(D5_HostileBytes, AMadCallerHarmsNobodyButItself)
{
	Shared shared({.slots = 8, .message_bytes = 64, .spins = 20}), other({.slots = 8, .message_bytes = 64});
	Serving serving(shared, 2), honest(other);
	const auto ring = caller_of(other);
	Process mad([&] { go_mad(shared, false, 2); });

	const auto end = std::chrono::steady_clock::now() + 700ms;
	while (std::chrono::steady_clock::now() < end)
		ASSERT_EQ(call(*ring, 3), 0);
	mad.end();
	EXPECT_LE(serving.object.longest, 64u);
}

TEST(D6_NothingHangs, AServerThatIsSilent)
{
	Shared shared({.slots = 4, .message_bytes = 64});
	const auto ring = caller_of(shared);
	const auto began = std::chrono::steady_clock::now();

	EXPECT_EQ(call(*ring, 1, 0), -ETIMEDOUT);
	EXPECT_EQ(ring->abandoned(), 0u); // that was no call
	for (int i = 0; i < 4; i++)
		EXPECT_EQ(call(*ring, 1, second / 100), -ETIMEDOUT);
	EXPECT_EQ(ring->abandoned(), 4u);
	// All slots are the server's now.
	RingTicket ticket;
	EXPECT_EQ(ring->start(plus_one, {}, &ticket), -EAGAIN);
	EXPECT_EQ(call(*ring, 1, second / 100), -ETIMEDOUT);
	EXPECT_GE(std::chrono::steady_clock::now() - began, 50ms);
	EXPECT_LT(std::chrono::steady_clock::now() - began, 20s);

	// It answers late: nobody takes that for a reply to something else.
	Serving serving(shared);
	for (std::uint64_t i = 0; i < 20; i++)
		EXPECT_EQ(call(*ring, i << 3), 0);
	EXPECT_EQ(serving.object.calls, 24u);
}

TEST(D6_NothingHangs, AMethodThatIsRefusedOrHangs)
{
	Shared shared({.slots = 4, .message_bytes = 64});
	Process server([&] {
		PlusOne object;
		(*RingServer::create(shared.mapped_again(false), shared.shape))->serve(object);
	});
	const auto ring = caller_of(shared);
	std::size_t bytes;

	EXPECT_EQ(ring->call(refuses, {}, {}, &bytes, patience), -EPROTO);
	EXPECT_EQ(ring->call(hangs, {}, {}, &bytes, second / 20), -ETIMEDOUT);
	EXPECT_EQ(call(*ring, 1, second / 20), -ETIMEDOUT); // it has one thread
}

TEST(D6_NothingHangs, AServerWithoutCalls)
{
	Shared shared({.slots = 4, .message_bytes = 64, .spins = 0});
	PlusOne object;
	const auto server = *RingServer::create(shared.memory, shared.shape);

	EXPECT_EQ(server->serve(object, second / 50), -ETIMEDOUT);
	server->end(-ECANCELED);
	EXPECT_EQ(server->serve(object), -ECANCELED);
}

} // namespace
