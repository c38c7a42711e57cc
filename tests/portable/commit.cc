// SPDX-License-Identifier: MIT
//
// The portable backend where a process may not have a pool's size of memory that it could write: under
// vm.overcommit_memory=2, which database manuals recommend. That is the whole system's, so here a filter refuses
// what the kernel would then, and a limit counts what is made writable. Views count for what a task writes.
#include "../conformance/orbit_test.h"

#include <cstddef>
#include <fstream>
#include <iterator>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>

namespace {

constexpr std::size_t mib = 1 << 20;
constexpr std::size_t pool_bytes = 2048 * mib; // its list of pages is smaller than 64 MiB

// From now on no private mapping of 1 GiB or more can be written.
void refuse_large_mappings()
{
	constexpr auto argument = [](unsigned n) {
		return static_cast<unsigned>(offsetof(seccomp_data, args) + n * sizeof(std::uint64_t));
	};
	constexpr unsigned load = BPF_LD | BPF_W | BPF_ABS, equal = BPF_JMP | BPF_JEQ | BPF_K,
			   at_least = BPF_JMP | BPF_JGE | BPF_K, any_of = BPF_JMP | BPF_JSET | BPF_K;
	sock_filter code[] = {
		BPF_STMT(load, offsetof(seccomp_data, nr)),
		BPF_JUMP(equal, SYS_mmap, 0, 9),
		BPF_STMT(load, argument(2)),
		BPF_JUMP(any_of, PROT_WRITE, 0, 7),
		BPF_STMT(load, argument(3)),
		BPF_JUMP(any_of, MAP_PRIVATE, 0, 5),
		BPF_STMT(load, argument(1) + 4), // little endian
		BPF_JUMP(at_least, 1, 2, 0),
		BPF_STMT(load, argument(1)),
		BPF_JUMP(at_least, 1024 * mib, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ENOMEM),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	const sock_fprog program = {std::size(code), code};

	ASSERT_EQ(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
	ASSERT_EQ(syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, &program), 0);
	ASSERT_EQ(mmap(nullptr, 1024 * mib, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), MAP_FAILED);
}

class Commit : public testing::Test {
protected:
	static void SetUpTestSuite() { refuse_large_mappings(); }
};

// As long as it exists, a process may have so much more private memory that it could write.
class DataLimit {
public:
	explicit DataLimit(std::size_t more)
	{
		std::ifstream statm("/proc/self/statm");
		std::size_t size, resident, shared, text, lib, data = 0;

		statm >> size >> resident >> shared >> text >> lib >> data;
		getrlimit(RLIMIT_DATA, &before_);

		const rlimit limit = {data * page + more, before_.rlim_max};

		setrlimit(RLIMIT_DATA, &limit);
	}
	DataLimit(const DataLimit &) = delete;
	~DataLimit() { setrlimit(RLIMIT_DATA, &before_); }

private:
	rlimit before_;
};

TEST_F(Commit, AViewCountsForWhatTheTaskWrites)
{
	const DataLimit limited(256 * mib);
	orbit::Pool pool = make_pool(pool_bytes);
	orbit::Orbit orbit = make_orbit();
	auto *const bytes = pool.as<unsigned char>();

	for (unsigned char value = 1; value < 4; value++) {
		bytes[0] = bytes[pool_bytes - 1] = value;

		const auto got = orbit.call(
			pool,
			[](unsigned char *p) {
				unsigned sum = p[0] + p[pool_bytes - 1];

				// Here and there, and next to each other; what the last task wrote is gone.
				for (std::size_t at = 0; at < pool_bytes; at += 100 * mib)
					sum += p[at + page] ? 1000 : 0;
				for (std::size_t at = 0; at < pool_bytes; at += 100 * mib)
					p[at + page] = 9;
				for (std::size_t at = 0; at < 8 * mib; at += page)
					p[at] = 9;
				return sum;
			},
			bytes);

		ASSERT_TRUE(got) << got.error().message();
		EXPECT_EQ(*got, 2U * value);
		EXPECT_EQ(bytes[page], 0);
	}
}

TEST_F(Commit, SoDoesAPartOfAPool)
{
	const DataLimit limited(256 * mib);
	orbit::Pool pool = make_pool(pool_bytes), other = make_pool(pool_bytes);
	orbit::Orbit orbit = make_orbit();
	auto *const bytes = pool.as<unsigned char>();

	bytes[pool_bytes / 2] = 7;
	EXPECT_EQ(orbit.call({{pool, pool_bytes / 2, page}},
			     [](unsigned char *p) { return ++p[pool_bytes / 2]; }, bytes),
		  8);
	EXPECT_EQ(orbit.call(other, [](unsigned char *p) { return ++*p; }, other.as<unsigned char>()), 1);

	const auto hidden = orbit.call(other, [](unsigned char *p) { return ++p[pool_bytes / 2]; }, bytes);

	ASSERT_FALSE(hidden);
	EXPECT_EQ(hidden.error().signal(), SIGBUS);
}

// To make its view writable is no help to a task that takes data for code.
TEST_F(Commit, ATaskThatJumpsIntoItsView)
{
	const DataLimit limited(64 * mib);
	orbit::Pool pool = make_pool(pool_bytes);
	orbit::Orbit orbit = make_orbit();
	const auto jumped = orbit.call({.time_limit = 20s}, pool,
				       [](unsigned char *p) { reinterpret_cast<void (*)()>(p)(); },
				       pool.as<unsigned char>());

	ASSERT_FALSE(jumped);
	EXPECT_EQ(jumped.error().signal(), SIGSEGV) << jumped.error().message();
}

// A task that needs more than there is ends, and only that one.
TEST_F(Commit, ATaskThatWritesMoreThanThereIs)
{
	const DataLimit limited(64 * mib);
	orbit::Pool pool = make_pool(pool_bytes);
	orbit::Orbit orbit = make_orbit({.restart = true});
	auto *const bytes = pool.as<unsigned char>();
	const auto write_all = [](unsigned char *p) {
		for (std::size_t at = 0; at < pool_bytes; at += page)
			p[at] = 1;
		return 1;
	};
	const auto failed = orbit.call(pool, write_all, bytes);

	ASSERT_FALSE(failed);
	EXPECT_EQ(orbit.call(pool, [](unsigned char *p) { return ++*p; }, bytes), 1);
}

} // namespace
