// SPDX-License-Identifier: MIT
//
// P3 and P6 while the kernel moves, merges, takes away or breaks memory: what calls see stays right, and they end.
// On a kernel as distributions build it there is all of that; elsewhere a test skips what is not there.
#include "orbit_test.h"

#include <atomic>
#include <climits>
#include <cstring>
#include <fcntl.h>
#include <fstream>
#include <functional>
#include <string>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <vector>

namespace {

constexpr std::size_t pages = 512; // 2 MiB: what a huge page would hold
constexpr auto time_of_a_scene = 1500ms;
constexpr unsigned least_rounds = 8;

// From <linux/mempolicy.h>, which cannot be had beside the C library's.
constexpr int mpol_bind = 2, mpol_mf_move = 1 << 1;
constexpr int advise_soft_offline = 101, advise_poison = 100, advise_collapse = 25;

std::uint64_t &word(std::byte *memory, std::size_t i)
{
	return *reinterpret_cast<std::uint64_t *>(memory + i * page);
}

bool put(const std::string &path, const char *text)
{
	const int fd = open(path.c_str(), O_WRONLY | O_CLOEXEC);

	if (fd < 0)
		return false;
	const bool done = write(fd, text, std::strlen(text)) == static_cast<ssize_t>(std::strlen(text));

	close(fd);
	return done;
}

std::string get(const std::string &path)
{
	std::ifstream file(path);
	std::string text;

	std::getline(file, text);
	return text;
}

// What is not for every machine: memory that goes offline or is marked as broken. The one that runs
// this in a guest of its own says so.
bool may_break_memory()
{
	return getenv("ORBIT_TEST_MAY_BREAK_MEMORY");
}

unsigned nodes()
{
	unsigned count = 0;

	while (!access(("/sys/devices/system/node/node" + std::to_string(count)).c_str(), F_OK))
		count++;
	return count;
}

// The block of memory where the page at an address is, as sysfs has it; "" for who may not know.
std::string block_of(const std::byte *address)
{
	const int fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	const std::string size = get("/sys/devices/system/memory/block_size_bytes");
	std::uint64_t entry = 0;

	if (fd < 0)
		return "";
	if (pread(fd, &entry, sizeof(entry), static_cast<off_t>(reinterpret_cast<std::uintptr_t>(address) / page * 8)) !=
	    sizeof(entry))
		entry = 0;
	close(fd);
	const std::uint64_t frame = entry & ((1ULL << 55) - 1);

	if (!frame || size.empty())
		return "";
	return "/sys/devices/system/memory/memory" + std::to_string(frame * page / std::stoull(size, nullptr, 16));
}

// Whether a page of memory of this process can be taken out of use.
bool can_wear_out()
{
	const auto plain = mmap(nullptr, page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
	const bool can = plain != MAP_FAILED && (!madvise(plain, page, advise_soft_offline) || errno == EBUSY);

	munmap(plain, page);
	return can;
}

// Does something again and again while it lives.
class Meanwhile {
public:
	explicit Meanwhile(std::function<void()> what)
	    : thread_([this, what = std::move(what)] {
		      do {
			      what();
			      times_++;
			      std::this_thread::sleep_for(1ms);
		      } while (!stop_);
	      })
	{
	}
	Meanwhile(const Meanwhile &) = delete;
	~Meanwhile()
	{
		stop_ = true;
		thread_.join();
	}
	unsigned times() const { return times_; }

private:
	std::atomic<bool> stop_{false};
	std::atomic<unsigned> times_{0};
	std::thread thread_;
};

std::size_t count_wrong(std::byte *memory, std::uint64_t round, bool writes)
{
	std::size_t wrong = 0;

	for (std::size_t i = 0; i < pages; i++)
		wrong += word(memory, i) != (i % 3 ? round : 0) + i;
	// What it writes is its own, and goes with it.
	for (std::size_t i = 0; writes && i < pages; i += 7)
		word(memory, i) = ~0ULL;
	return wrong;
}

class P3_MovedMemory : public testing::Test {
protected:
	orbit::Pool pool = make_pool(pages * page);
	orbit::Orbit orbit = make_orbit();

	void write_all(std::uint64_t round)
	{
		for (std::size_t i = 0; i < pages; i++)
			if (i % 3)
				word(pool.data(), i) = round + i;
	}

	// Calls, and writes of main between and during them; nothing may be wrong, whatever goes on.
	void stay_right(std::function<void()> what)
	{
		for (std::size_t i = 0; i < pages; i++)
			word(pool.data(), i) = i;

		Meanwhile mover(std::move(what));
		const auto end = std::chrono::steady_clock::now() + time_of_a_scene;

		// Once at least: compaction of a large memory takes longer than a scene where the machine is busy.
		const auto goes_on = [&] {
			const auto now = std::chrono::steady_clock::now();

			return now < end || (!mover.times() && now < end + patience);
		};

		for (std::uint64_t round = 1; round <= least_rounds || goes_on(); round++) {
			write_all(round * pages);
			const auto wrong = orbit.call({.time_limit = patience}, pool, count_wrong, pool.data(),
						      round * pages, round % 2 == 0);

			ASSERT_TRUE(wrong) << wrong.error().message() << ", in round " << round;
			ASSERT_EQ(*wrong, 0U) << "in round " << round;
			for (std::size_t i = 0; i < pages; i++)
				ASSERT_EQ(word(pool.data(), i), (i % 3 ? round * pages : 0) + i) << "main's page " << i;
		}
		EXPECT_GT(mover.times(), 0U);
	}
};

TEST_F(P3_MovedMemory, ByCompaction)
{
	if (!put("/proc/sys/vm/compact_memory", "1"))
		GTEST_SKIP() << "no compaction, or not for this user";
	stay_right([] { put("/proc/sys/vm/compact_memory", "1"); });
}

TEST_F(P3_MovedMemory, BetweenNodes)
{
	if (nodes() < 2)
		GTEST_SKIP() << "there is one node";
	unsigned turn = 0;

	stay_right([&] {
		const unsigned long old_node = 1UL << turn % 2, new_node = 1UL << (turn + 1) % 2;
		const int to = static_cast<int>((turn + 1) % 2);
		std::vector<void *> where;
		std::vector<int> status(pages), target(pages, to);

		for (std::size_t i = 0; i < pages; i++)
			where.push_back(pool.data() + i * page);
		syscall(SYS_migrate_pages, 0, sizeof(old_node) * CHAR_BIT, &old_node, &new_node);
		syscall(SYS_migrate_pages, pid_of(orbit), sizeof(old_node) * CHAR_BIT, &old_node, &new_node);
		syscall(SYS_move_pages, 0, pages, where.data(), target.data(), status.data(), mpol_mf_move);
		syscall(SYS_mbind, pool.data(), pages * page, mpol_bind, &new_node, sizeof(new_node) * CHAR_BIT,
			mpol_mf_move);
		turn++;
	});
	EXPECT_EQ(syscall(SYS_mbind, pool.data(), pages * page, 0, nullptr, 0UL, 0), 0);
}

TEST_F(P3_MovedMemory, ByMergingOfSamePages)
{
	const std::string run = get("/sys/kernel/mm/ksm/run");

	if (run.empty() || !put("/sys/kernel/mm/ksm/run", "1"))
		GTEST_SKIP() << "no KSM, or not for this user";
	put("/sys/kernel/mm/ksm/sleep_millisecs", "1");
	put("/sys/kernel/mm/ksm/pages_to_scan", "2000");
	stay_right([&] { madvise(pool.data(), pages * page, MADV_MERGEABLE); });
	put("/sys/kernel/mm/ksm/run", run.c_str());
}

TEST_F(P3_MovedMemory, IntoHugePages)
{
	stay_right([&] {
		madvise(pool.data(), pages * page, MADV_HUGEPAGE);
		madvise(pool.data(), pages * page, advise_collapse);
	});
}

TEST_F(P3_MovedMemory, ToSwap)
{
	stay_right([&] {
		madvise(pool.data(), pages * page, MADV_COLD);
		madvise(pool.data(), pages * page, MADV_PAGEOUT);
	});
}

TEST_F(P3_MovedMemory, AwayFromBlocksThatGoOffline)
{
	if (!may_break_memory())
		GTEST_SKIP() << "not for this machine's memory";
	const std::string blocks = "/sys/devices/system/memory/";
	std::vector<std::string> online;

	for (unsigned n = 0; n < 64; n++)
		if (const std::string block = blocks + "memory" + std::to_string(n) + "/state"; get(block) == "online")
			online.push_back(block);
	if (online.empty())
		GTEST_SKIP() << "no memory can go offline";
	std::size_t turn = 0;

	stay_right([&] {
		const std::string &block = online[turn++ % online.size()];

		if (put(block, "offline"))
			put(block, "online");
	});
	for (const std::string &block : online)
		if (get(block) != "online")
			put(block, "online");
}

// Those that hold it: it moves, or they stay. The kernel's pools do not move.
TEST_F(P3_MovedMemory, InBlocksThatAreToGoOffline)
{
	if (!may_break_memory())
		GTEST_SKIP() << "not for this machine's memory";
	write_all(0);
	if (get(block_of(pool.data() + page) + "/state") != "online")
		GTEST_SKIP() << "no memory can go offline";
	std::size_t turn = 0, gone = 0;

	stay_right([&] {
		const std::string block = block_of(pool.data() + turn++ % pages * page) + "/state";

		if (get(block) == "online" && put(block, "offline")) {
			gone++;
			put(block, "online");
		}
	});
	if (is_kernel_backend()) {
		EXPECT_EQ(gone, 0U);
	}
}

TEST_F(P3_MovedMemory, AwayFromPagesThatWearOut)
{
	if (!may_break_memory())
		GTEST_SKIP() << "not for this machine's memory";
	if (!can_wear_out())
		GTEST_SKIP() << "pages cannot be taken out of use here";
	std::size_t turn = 0;

	// Refused, or the contents are elsewhere now.
	stay_right([&] { madvise(pool.data() + turn++ % pages * page, page, advise_soft_offline); });
}

// A page that is broken is lost: who touches it dies, and calls without it go on.
TEST_F(P3_MovedMemory, APageThatIsBrokenEndsWhoTouchesItAndHangsNobody)
{
	if (!may_break_memory())
		GTEST_SKIP() << "not for this machine's memory";
	OtherMain other([] {
		orbit::Pool own = make_pool(pages * page), whole = make_pool(pages * page);
		orbit::Orbit runs = make_orbit({.restart = true});
		const auto first = [](std::byte *data) { return word(data, 0); };

		word(own.data(), 0) = 1;
		word(own.data(), 1) = 2;
		word(whole.data(), 0) = 3;
		if (runs.call(own, first, own.data()) != 1U)
			return 2;
		// The kernel cannot take it from the kernel's pools (EBUSY), but marks it and gives it to nobody any more.
		if (madvise(own.data() + page, page, advise_poison) && !(errno == EBUSY && is_kernel_backend()))
			return errno == EINVAL || errno == EPERM || errno == EBUSY ? 77 : 3;
		// What is in no page table is looked at before it is put there.
		if (is_kernel_backend() && madvise(own.data(), own.size(), MADV_DONTNEED))
			return 7;
		// The other pool is whole, and so is what lies beside the broken page.
		if (runs.call({.time_limit = patience}, whole, first, whole.data()) != 3U)
			return 4;
		word(whole.data(), 0) = 4;
		if (runs.call({.time_limit = patience}, whole, first, whole.data()) != 4U)
			return 5;
		// It ends, well or not; and the orbit is there for the next.
		const auto touched = runs.call({.time_limit = patience}, own,
					       [](std::byte *data) { return word(data, 1); }, own.data());

		if (is_kernel_backend() && touched)
			return 8;
		word(whole.data(), 0) = 5;
		if (runs.call({.time_limit = patience}, whole, first, whole.data()) != 5U)
			return 6;
		return 0;
	});
	const int status = other.wait();

	ASSERT_TRUE(WIFEXITED(status)) << "status " << status;
	if (WEXITSTATUS(status) == 77)
		GTEST_SKIP() << "pages cannot be marked as broken here";
	EXPECT_EQ(WEXITSTATUS(status), 0);
}

// A control group that is frozen stops its processes anywhere; the time limit goes on.
TEST_F(P3_MovedMemory, AFrozenOrbitEndsAtItsTimeLimit)
{
	const std::string group = "/sys/fs/cgroup/orbit-frozen-" + std::to_string(getpid());

	if (mkdir(group.c_str(), 0755) || access((group + "/cgroup.freeze").c_str(), W_OK)) {
		rmdir(group.c_str());
		GTEST_SKIP() << "no control groups of version 2, or not for this user";
	}
	write_all(pages);
	ASSERT_TRUE(put(group + "/cgroup.procs", std::to_string(pid_of(orbit)).c_str()));
	ASSERT_TRUE(put(group + "/cgroup.freeze", "1"));

	const auto begin = std::chrono::steady_clock::now();
	const auto result = orbit.call({.time_limit = 500ms}, pool, [] { return 1; });

	EXPECT_FALSE(result);
	EXPECT_LT(std::chrono::steady_clock::now() - begin, patience);
	word(pool.data(), 0) = 1; // main's memory is not held by it
	put(group + "/cgroup.freeze", "0");
	EXPECT_TRUE(eventually([&] { return !rmdir(group.c_str()); }));
}

} // namespace
