// SPDX-License-Identifier: MIT
//
// What a snapshot does to main's next writes, beside what fork() and private mappings do.
// README.md says how each case is measured.
#include "../common/memory.h"

#include <barrier>
#include <thread>

using namespace bench;

namespace {

constexpr std::size_t pages = 256;	// of each thread
constexpr std::size_t region = 16 * MiB;

// Threads that write to pages of their own, all at once.
class Writers {
public:
	explicit Writers(int count) : count_(count), line_(count + 1)
	{
		for (int n = 0; n < count; n++)
			threads_.emplace_back([this, n] { work(static_cast<std::size_t>(n)); });
	}
	Writers(const Writers &) = delete;
	Writers &operator=(const Writers &) = delete;
	~Writers()
	{
		base_ = nullptr;
		line_.arrive_and_wait();
		for (std::thread &thread : threads_)
			thread.join();
	}

	void write(std::byte *base)
	{
		base_ = base;
		line_.arrive_and_wait(); // they begin,
		line_.arrive_and_wait(); // and have done it
	}
	double all_pages() const { return static_cast<double>(count_) * pages; }

private:
	void work(std::size_t number)
	{
		for (;;) {
			line_.arrive_and_wait();
			if (!base_)
				return;
			write_pages(base_ + number * pages * page_size, pages, page_size, 5);
			line_.arrive_and_wait();
		}
	}

	int count_;
	std::byte *base_ = nullptr;
	std::barrier<> line_;
	std::vector<std::thread> threads_;
};

// The writes of @threads threads, or without any, of this one; for one page.
class Writes {
public:
	explicit Writes(int threads) : writers_(threads ? std::make_shared<Writers>(threads) : nullptr) {}

	void operator()(Round &round, std::byte *base) const
	{
		if (writers_)
			round.time("", [&] { writers_->write(base); }, writers_->all_pages());
		else
			round.time("", [&] { write_pages(base, pages, page_size, 5); }, pages);
	}

private:
	std::shared_ptr<Writers> writers_;
};

// After a call whose task has ended.
Body after_call(orbit::Mode mode, int threads)
{
	auto both = shared_pool(region);

	return [both, mode, writes = Writes(threads)](Round &round) {
		value(both->orbit.call(orbit::PoolRange(both->pool, mode), read_nothing,
				       static_cast<const std::byte *>(nullptr), std::size_t{0}, std::size_t{0}),
		      "call");
		writes(round, both->pool.data());
	};
}

// While the task still has the snapshot.
Body during_task()
{
	struct Held {
		Pipe until;
		int fd = until.read_end();
		PoolAndOrbit both = make_pool_and_orbit(region, {.name = "held", .keep_fds = {&fd, 1}});
	};
	auto held = std::make_shared<Held>();

	return [held](Round &round) {
		auto task = value(held->both.orbit.call_async(held->both.pool, Pipe::read_byte, held->fd), "call");

		Writes(0)(round, held->both.pool.data());
		held->until.put();
		value(task.wait(), "wait");
	};
}

// While the task still has the snapshot, and is done with all of it.
Body after_scan()
{
	struct Scanned {
		Pipe until, done;
		std::array<int, 2> fds{until.read_end(), done.write_end()};
		PoolAndOrbit both = make_pool_and_orbit(region, {.name = "scan", .keep_fds = fds});
	};
	auto scanned = std::make_shared<Scanned>();

	return [scanned](Round &round) {
		auto task = value(scanned->both.orbit.call_async(scanned->both.pool,
								 [](std::span<std::byte> range, int until, int done) {
			const auto all = orbit::scan(range, [](std::span<const std::byte>) {});

			return all && write(done, "x", 1) == 1 && Pipe::read_byte(until);
		}, scanned->both.pool.span(), scanned->until.read_end(), scanned->done.write_end()), "call");

		check(scanned->done.get(), "the scan");
		Writes(0)(round, scanned->both.pool.data());
		scanned->until.put();
		check(value(task.wait(), "wait"), "the task");
	};
}

// Nothing protects the pages.
Body plain()
{
	auto heap = shared_heap(region);

	return [heap](Round &round) { Writes(0)(round, heap->data()); };
}

Body after_fork(int threads)
{
	auto heap = shared_heap(region);

	return [heap, writes = Writes(threads)](Round &round) {
		const Child child;

		writes(round, heap->data());
	};
}

// The child is gone: the pages are main's alone again, and need not be copied.
Body child_gone()
{
	auto heap = shared_heap(region);

	return [heap](Round &round) {
		{
			const Child child;
		}
		Writes(0)(round, heap->data());
	};
}

// Memory that has not been touched yet.
Body fresh()
{
	return [](Round &round) {
		const Heap heap(region, false);

		Writes(0)(round, heap.data());
	};
}

// A private mapping of a file whose pages are in memory, and mapped here.
Body private_mapping(int threads)
{
	return [writes = Writes(threads), fd = memfd_create("bench", MFD_CLOEXEC)](Round &round) {
		check(fd >= 0 && !ftruncate(fd, region), "memfd");
		void *const shared = mmap(nullptr, region, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
		check(shared != MAP_FAILED, "mmap");
		write_pages(static_cast<std::byte *>(shared), region / page_size, page_size, 1);
		munmap(shared, region);

		void *const at = mmap(nullptr, region, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
		check(at != MAP_FAILED, "mmap");
		auto *const base = static_cast<std::byte *>(at);
		read_pages(base, region / page_size, page_size);
		writes(round, base);
		munmap(at, region);
	};
}

} // namespace

int main(int argc, char **argv)
{
	const auto add_case = [](const std::string &name, const std::function<Body()> &make, bool quick = false) {
		add({.name = "fault/" + name, .make = make, .quick = quick, .rounds = 31, .samples = 50});
	};

	add_case("plain", plain);
	add_case("fresh", fresh);
	add_case("private", [] { return private_mapping(0); });
	add_case("fork", [] { return after_fork(0); }, true);
	add_case("fork/child gone", child_gone);
	add_case("snapshot", [] { return after_call(orbit::Mode::cow, 0); }, true);
	add_case("snapshot/task runs", during_task);
	add_case("snapshot/scanned", after_scan);
	add_case("snapshot/copy", [] { return after_call(orbit::Mode::copy, 0); });
	for (const int threads : {1, 2, 4}) {
		const std::string suffix = "/threads=" + std::to_string(threads);

		add_case("private" + suffix, [threads] { return private_mapping(threads); });
		add_case("fork" + suffix, [threads] { return after_fork(threads); });
		add_case("snapshot" + suffix, [threads] { return after_call(orbit::Mode::cow, threads); });
	}
	return run(argc, argv);
}
