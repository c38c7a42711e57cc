// SPDX-License-Identifier: MIT
//
// Pools at an address that the program chose, and pools that forked children have a copy of.
#include "orbit_test.h"

#include <cstring>
#include <sys/mman.h>
#include <thread>

namespace {

constexpr std::size_t mib = std::size_t{1} << 20;

// Free addresses outside of the reservation; and within such that the kernel does not choose next.
std::byte *free_place()
{
	constexpr std::size_t room = 1024 * mib;
	void *const place = mmap(nullptr, room, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (place == MAP_FAILED || munmap(place, room))
		throw std::runtime_error("no addresses");
	return static_cast<std::byte *>(place) + room / 2;
}

int read_byte(const std::byte *at)
{
	return std::to_integer<int>(*at);
}

TEST(PoolOptions, APoolLiesAtTheAddressAskedFor)
{
	const orbit::Pool anywhere = make_pool(page); // there is a reservation
	std::byte *const place = free_place();
	orbit::Orbit before = make_orbit();
	const orbit::Pool pool = value_or_throw(orbit::Pool::create(2 * page, {.address = place}));
	orbit::Orbit after = make_orbit();

	EXPECT_EQ(pool.data(), place);
	pool.data()[page] = std::byte{7};
	for (orbit::Orbit *orbit : {&before, &after})
		EXPECT_EQ(orbit->call(pool, read_byte, pool.data() + page), 7);

	const auto taken = orbit::Pool::create(page, {.address = place + page});

	ASSERT_FALSE(taken);
	EXPECT_EQ(taken.error().code(), EEXIST);

	const auto crooked = orbit::Pool::create(page, {.address = place + 1});

	ASSERT_FALSE(crooked);
	EXPECT_EQ(crooked.error().code(), EINVAL);
}

TEST(PoolOptions, WhereSomethingElseIsThereIsNone)
{
	void *const mine = mmap(nullptr, page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	ASSERT_NE(mine, MAP_FAILED);
	std::memset(mine, 1, page);

	const auto made = orbit::Pool::create(page, {.address = mine});

	ASSERT_FALSE(made);
	EXPECT_EQ(made.error().code(), EEXIST);
	EXPECT_EQ(*static_cast<char *>(mine), 1);
	munmap(mine, page);
}

TEST(PoolOptions, ItsAddressIsFreeAfterwards)
{
	std::byte *const place = free_place();

	for (int round = 0; round < 3; round++) {
		const orbit::Pool pool = value_or_throw(orbit::Pool::create(page, {.address = place}));

		EXPECT_EQ(read_byte(pool.data()), 0);
		pool.data()[0] = std::byte{1};
	}
	EXPECT_EQ(mmap(place, page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0), place);
	munmap(place, page);
}

// An orbit that has made something of its own there does not lose it, and nobody else is harmed.
TEST(PoolOptions, WhatAnOrbitHasThereIsNotOverwritten)
{
	const orbit::Pool anywhere = make_pool(page);
	std::byte *const place = free_place();
	orbit::Orbit orbit = make_orbit(), other = make_orbit();

	ASSERT_EQ(orbit.call({}, [](std::byte *at) {
		return mmap(at, page, PROT_READ | PROT_WRITE,
			    MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0) == at;
	}, place), true);

	const orbit::Pool pool = value_or_throw(orbit::Pool::create(page, {.address = place}));

	EXPECT_FALSE(orbit.call(pool, read_byte, pool.data()));
	EXPECT_EQ(other.call(pool, read_byte, pool.data()), 0);
}

TEST(PoolOptions, AForkedChildHasACopy)
{
	const orbit::Pool pool = value_or_throw(orbit::Pool::create(16 * mib, {.copy_on_fork = true}));
	orbit::Orbit orbit = make_orbit();
	std::byte *const data = pool.data();

	// Some of it is in use, and some has been seen by an orbit.
	for (std::size_t at = 0; at < pool.size(); at += mib)
		data[at + 5] = std::byte{1};
	EXPECT_EQ(orbit.call(pool, read_byte, data + 5), 1);
	data[mib + 5] = std::byte{2};

	Pipe changed;
	OtherMain child([&] {
		char byte;

		// What the parent writes from now on is none of its business.
		if (read(changed.read_end, &byte, 1) != 1)
			return 1;
		for (std::size_t at = 0; at < pool.size(); at += mib)
			if (read_byte(data + at + 5) != (at == mib ? 2 : 1) || read_byte(data + at + page) != 0)
				return 2;
		data[5] = std::byte{9};

		// It is ordinary memory there, which its own children have too.
		OtherMain grandchild([&] { return read_byte(data + 5) == 9 ? 0 : 1; });

		return grandchild.wait() ? 3 : 0;
	});

	std::memset(data, 7, pool.size());
	ASSERT_EQ(write(changed.write_end, "x", 1), 1);
	EXPECT_EQ(WEXITSTATUS(child.wait()), 0);
	EXPECT_EQ(read_byte(data + 5), 7) << "the child has written to it";
	EXPECT_EQ(orbit.call(pool, read_byte, data + 5), 7);
}

// Orbits see pools through snapshots only, and their making costs no copy.
TEST(PoolOptions, OrbitsGetNoCopy)
{
	const orbit::Pool pool = value_or_throw(orbit::Pool::create(page, {.copy_on_fork = true}));
	const orbit::Pool other = make_pool(page);

	pool.data()[0] = std::byte{1};

	orbit::Orbit orbit = make_orbit({.restart = true});

	pool.data()[0] = std::byte{2};
	EXPECT_EQ(orbit.call(pool, read_byte, pool.data()), 2);
	EXPECT_FALSE(orbit.call(other, read_byte, pool.data())) << "a pool that was not named";
	EXPECT_EQ(orbit.call(pool, read_byte, pool.data()), 2) << "after a restart";
}

} // namespace
