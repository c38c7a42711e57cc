// SPDX-License-Identifier: MIT
//
// Promise 10: only the process that holds an orbit's or pool's descriptor, and made
// it, can use it; and that needs no privilege.
#include "../../liborbit/kernel/syscall.h"
#include "orbit_test.h"

#include <grp.h>
#include <sys/mman.h>
#include <vector>

namespace {

// What a forked child can do with the raw descriptors, around the library.
TEST(P10_Access, AForkedChildCannotCall)
{
	KERNEL_BACKEND_ONLY("there are no system calls; TheLibrarySaysSoToo is about this");

	orbit::Orbit orbit = make_orbit();
	const orbit::Pool pool = make_pool(page);
	OtherMain child([&] {
		orbit_call_args args{};

		args.entry = reinterpret_cast<std::uintptr_t>(+[](const void *, size_t) -> std::uint64_t {
			return 1;
		});
		return -liborbit::sys_call(orbit.fd(), &args);
	});

	EXPECT_EQ(WEXITSTATUS(child.wait()), EPERM);
	EXPECT_EQ(orbit.call(pool, [] { return 1; }), 1);
	EXPECT_EQ(value_or_throw(orbit.stat()).calls, 1U);
}

TEST(P10_Access, AForkedChildCannotMapThePool)
{
	const orbit::Pool pool = make_pool(page);
	OtherMain child([&] {
		for (const int prot : {PROT_READ, PROT_READ | PROT_WRITE})
			for (const int type : {MAP_SHARED, MAP_PRIVATE})
				if (mmap(nullptr, page, prot, type, orbit_pool_fd(pool.raw()), 0) != MAP_FAILED)
					return 1;
		return mmap(nullptr, page, PROT_READ | PROT_WRITE, MAP_SHARED, orbit_pool_fd(pool.raw()),
			    0) == MAP_FAILED ?
			       errno :
			       1;
	});

	// The kernel refuses; or the descriptor has been closed in the child.
	EXPECT_EQ(WEXITSTATUS(child.wait()), is_kernel_backend() ? EPERM : EBADF);
}

TEST(P10_Access, AForkedChildFindsNoPoolMemory)
{
	const orbit::Pool pool = make_pool(page);
	OtherMain child([&] {
		*pool.data() = std::byte{1};
		return 0;
	});
	const int status = child.wait();

	EXPECT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV) << status;
	EXPECT_EQ(*pool.data(), std::byte{0});
}

TEST(P10_Access, TheLibrarySaysSoToo)
{
	orbit::Orbit orbit = make_orbit();
	const orbit::Pool pool = make_pool(page);
	OtherMain child([&] {
		const auto called = orbit.call(pool, [] {});
		const auto stat = orbit.stat();

		return called || called.error().code() != EPERM || stat || stat.error().code() != EPERM;
	});

	EXPECT_EQ(child.wait(), 0);
}

TEST(P10_Access, DestructionInAForkedChildLeavesTheParents)
{
	orbit::Orbit orbit = make_orbit();
	orbit::Pool pool = make_pool(page);
	int *p = pool.as<int>();

	*p = 5;

	OtherMain child([&] {
		{
			const orbit::Orbit inherited = std::move(orbit);
			const orbit::Pool inherited_pool = std::move(pool);
		}
		// The child may have its own.
		orbit::Pool own = make_pool(page);
		int *q = own.as<int>();

		*q = 6;
		return make_orbit().call(own, [](const int *r) { return *r; }, q) == 6 ? 0 : 1;
	});

	EXPECT_EQ(child.wait(), 0);
	EXPECT_EQ(*p, 5);
	EXPECT_EQ(orbit.call(pool, [](const int *r) { return *r; }, p), 5);
}

TEST(P10_Access, AnOrbitCannotUseOrMakeOrbits)
{
	orbit::Orbit orbit = make_orbit();
	static orbit_handle *handle;
	static orbit_pool *pool;
	const orbit::Pool mains_pool = make_pool(page);

	handle = orbit.raw();
	pool = mains_pool.raw();

	// Made after the statics were set, so that its copies of them are good.
	orbit::Orbit later = make_orbit();
	const auto got = later.call({}, [] {
		orbit_handle *new_orbit = nullptr;
		orbit_pool *new_pool = nullptr;

		if (orbit_create(&new_orbit, nullptr) != -EPERM)
			return 1;
		if (orbit_pool_create(&new_pool, page, nullptr) != -EPERM)
			return 2;
		if (orbit_call(handle, [](const void *, size_t) -> std::uint64_t { return 0; }, nullptr, 0,
			       nullptr, nullptr) != -EPERM)
			return 3;
		orbit_destroy(handle);
		orbit_pool_destroy(pool);
		return 0;
	});

	EXPECT_EQ(got, 0);
	EXPECT_EQ(orbit.call({}, [] { return 1; }), 1);
	EXPECT_EQ(later.call({}, [] { return 1; }), 1);
}

TEST(P10_Access, DescriptorsOfTheWrongKindAreRefused)
{
	KERNEL_BACKEND_ONLY("there are no system calls, and the library takes no descriptors");

	const orbit::Orbit orbit = make_orbit();
	const orbit::Pool pool = make_pool(page);
	orbit_call_args args{};
	orbit_pool_ref ref{};
	struct orbit_stat st {};

	EXPECT_EQ(liborbit::sys_call(-1, &args), -EBADF);
	EXPECT_LT(liborbit::sys_call(0, &args), 0);
	EXPECT_LT(liborbit::sys_call(orbit_pool_fd(pool.raw()), &args), 0);
	EXPECT_LT(liborbit::sys_ctl(orbit_pool_fd(pool.raw()), ORBIT_CTL_STAT, &st), 0);

	args.pools = reinterpret_cast<std::uintptr_t>(&ref);
	args.nr_pools = 1;
	for (const int fd : {-1, 0, orbit.fd()}) {
		ref.fd = fd;
		EXPECT_LT(liborbit::sys_call(orbit.fd(), &args), 0) << fd;
	}
	EXPECT_EQ(value_or_throw(orbit.stat()).calls, 0U);
}

TEST(P10_Access, NeedsNoPrivilege)
{
	OtherMain unprivileged([] {
		if (!getuid() && (setgroups(0, nullptr) || setgid(65534) || setuid(65534)))
			return 1;

		orbit::Pool pool = make_pool(page);
		const auto died = make_orbit().call(pool, [] { std::abort(); });

		if (died || died.error().signal() != SIGABRT)
			return 2;
		return make_orbit().call(pool, [] { return 4; }) == 4 ? 0 : 3;
	});

	EXPECT_EQ(unprivileged.wait(), 0);
}

} // namespace
