// SPDX-License-Identifier: MIT
//
// The memory that a slow task's snapshot holds while main keeps writing, beside a forked
// child's. README.md says how it is measured.
#include "../common/memory.h"

#include <cstring>

using namespace bench;

namespace {

constexpr std::size_t size = 64 * MiB;
constexpr std::size_t pages = size / page_size;

// So many pages have been written to since the task began. Before these figures one of what there
// is besides the 64 MiB themselves when it begins, and after them one when it has ended.
constexpr std::array steps = {0U, 1024U, 2048U, 4096U, 8192U, 16384U, 32768U};
constexpr std::array parts = {
	"before, KiB",	     "written=0, KiB",    "written=1024, KiB",  "written=2048, KiB",	 "written=4096, KiB",
	"written=8192, KiB", "written=16384, KiB", "written=32768, KiB", "after, KiB",
};
using Held = std::array<double, parts.size()>;

static_assert(parts.size() == steps.size() + 2);

// Any page, and some more than once; the same in each run.
class Writes {
public:
	// A task that does something meanwhile has its turn between so many writes.
	static constexpr unsigned turn = 64;

	Writes(std::byte *base, std::function<void()> others_turn) : base_(base), others_turn_(std::move(others_turn)) {}

	void up_to(unsigned count)
	{
		for (; done_ < count; done_++) {
			if (others_turn_ && done_ % turn == 0)
				others_turn_();
			state_ = state_ * 6364136223846793005U + 1442695040888963407U;
			write_pages(base_ + (state_ >> 33) % pages * page_size, 1, page_size, done_);
		}
	}

private:
	std::byte *base_;
	std::function<void()> others_turn_;
	std::uint64_t state_ = 1;
	unsigned done_ = 0;
};

// @at_first: what was used before the 64 MiB were there.
template <class Begin, class End>
Held hold(double at_first, std::byte *base, Begin &&begin, End &&end, std::function<void()> others_turn = nullptr)
{
	Held held;
	Writes writes(base, std::move(others_turn));
	const double before = used_kib();

	held[0] = before - at_first - size / KiB;
	begin();
	for (std::size_t n = 0; n < steps.size(); n++) {
		writes.up_to(steps[n]);
		held[n + 1] = used_kib() - before;
	}
	end();
	settle();
	held.back() = used_kib() - before;
	return held;
}

Held by_orbit(orbit::Mode mode)
{
	const double at_first = used_kib();
	Pipe until;
	const int fd = until.read_end();
	PoolAndOrbit both = make_pool_and_orbit(size, {.name = "slow", .keep_fds = {&fd, 1}});
	std::optional<orbit::Task<bool>> task;

	return hold(at_first, both.pool.data(), [&] {
		task.emplace(value(both.orbit.call_async(orbit::PoolRange(both.pool, mode), Pipe::read_byte, fd),
				   "call"));
	}, [&] {
		until.put();
		value(task->wait(), "wait");
	});
}

// A scan that looks at two pages while main writes to one, and then waits as the other tasks do.
bool scan_in_turns(std::span<std::byte> range, int go, int done)
{
	unsigned looked_at = 0;
	char what = 'x';
	const auto take_turn = [&] { return write(done, "x", 1) == 1 && read(go, &what, 1) == 1; };
	const auto scanned = orbit::scan(range, [&](std::span<const std::byte>) {
		return looked_at++ % (2 * Writes::turn) || take_turn();
	});

	while (scanned && what == 'x')
		if (!take_turn())
			return false;
	return bool(scanned);
}

Held by_scan()
{
	const double at_first = used_kib();
	Pipe go, done;
	const std::array fds = {go.read_end(), done.write_end()};
	PoolAndOrbit both = make_pool_and_orbit(size, {.name = "slow", .keep_fds = fds});
	std::optional<orbit::Task<bool>> task;

	return hold(at_first, both.pool.data(), [&] {
		task.emplace(value(both.orbit.call_async(both.pool, scan_in_turns, both.pool.span(), go.read_end(),
							 done.write_end()), "call"));
		check(done.get(), "the scan has begun");
	}, [&] {
		check(write(go.write_end(), "e", 1) == 1, "write to a pipe");
		check(value(task->wait(), "wait"), "the scan");
	}, [&] {
		go.put();
		check(done.get(), "the scan's turn");
	});
}

Held by_fork()
{
	const double at_first = used_kib();
	const Heap heap(size);
	std::unique_ptr<Child> child;

	return hold(at_first, heap.data(), [&] { child = std::make_unique<Child>(); }, [&] { child.reset(); });
}

// In a process of its own, which chooses a backend for itself.
Body measure(const std::function<Held()> &how, const char *backend)
{
	return [how, backend](Round &round) {
		Pipe result;
		Held held;
		const pid_t pid = fork();

		if (!pid) {
			check(!orbit_use_backend(backend), "this backend");
			held = how();
			check(write(result.write_end(), &held, sizeof(held)) == sizeof(held), "write");
			std::_Exit(0);
		}
		check(read(result.read_end(), &held, sizeof(held)) == sizeof(held), "the measuring process");
		wait_for(pid);
		for (std::size_t n = 0; n < parts.size(); n++)
			round.add(parts[n], held[n]);
	};
}

void add_case(const char *name, const std::function<Held()> &how, const char *backend)
{
	add({.name = std::string("memory/") + name, .make = [how, backend] { return measure(how, backend); },
	     .rounds = 1, .warm_up = 0, .only_counted = true});
}

} // namespace

int main(int argc, char **argv)
{
	add_case("fork", by_fork, "auto");
	add_case("orbit", [] { return by_orbit(orbit::Mode::cow); }, "kernel");
	add_case("orbit, copy", [] { return by_orbit(orbit::Mode::copy); }, "kernel");
	add_case("orbit, scan", by_scan, "kernel");
	add_case("orbit, adaptive", [] { return by_orbit(orbit::Mode::adaptive); }, "kernel");
	add_case("portable", [] { return by_orbit(orbit::Mode::cow); }, "portable");
	return run(argc, argv);
}
