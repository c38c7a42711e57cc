// SPDX-License-Identifier: MIT
//
// A heap for tests: in memory of its own, with the domains' endpoints in this process, or in forked ones that
// get the rights they should.
#ifndef ORBIT_TESTS_ISOLATION_WORLD_H
#define ORBIT_TESTS_ISOLATION_WORLD_H

#include <orbit/deque.hpp>

#include <cstdlib>
#include <gtest/gtest.h>
#include <memory>
#include <span>
#include <sys/mman.h>
#include <unistd.h>
#include <vector>

using namespace orbit::isolation;

template <class T> int error_of(const orbit::result<T> &done)
{
	return done ? 0 : done.error().code();
}

// A file without a name, mapped here whole.
class Memory {
public:
	explicit Memory(std::size_t bytes) : file_(memfd_create("heap", MFD_CLOEXEC)), bytes_(bytes)
	{
		if (file_ < 0 || ftruncate(file_, static_cast<off_t>(bytes)))
			abort();
		data_ = static_cast<std::byte *>(
			mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, file_, 0));
		if (data_ == MAP_FAILED)
			abort();
	}
	~Memory()
	{
		munmap(data_, bytes_);
		close(file_);
	}
	std::span<std::byte> span() const { return {data_, bytes_}; }

	// In a forked process: nothing else of it than a domain should have, at another address.
	std::span<std::byte> as_domain(const Heap &heap, DomainId domain) const
	{
		auto *at = static_cast<std::byte *>(mmap(nullptr, bytes_, PROT_NONE, MAP_SHARED, file_, 0));

		for (const Range &range : heap.ranges(domain))
			mprotect(at + range.offset, range.bytes,
				 range.rights == Rights::none   ? PROT_NONE
				 : range.rights == Rights::read ? PROT_READ
								: PROT_READ | PROT_WRITE);
		munmap(data_, bytes_);
		return {at, bytes_};
	}

private:
	int file_;
	std::size_t bytes_;
	std::byte *data_;
};

// Domains 1 to n with part in zone 0, and a run of it each; zone 1 is for who asks.
struct World {
	static constexpr std::size_t zone_bytes[] = {1 << 20, 1 << 16};

	explicit World(DomainId domains, std::size_t run = 16384)
		: memory(Heap::bytes(domains, zone_bytes)), heap(*Heap::create(memory.span(), domains, zone_bytes)),
		  endpoints(domains + 1)
	{
		for (DomainId i = 1; i <= domains; i++)
			start(i, run);
	}
	void start(DomainId domain, std::size_t run)
	{
		EXPECT_EQ(error_of(heap.add(domain, 0)), 0);
		EXPECT_EQ(error_of(heap.grant(domain, 0, run)), 0);
		endpoints[domain] = std::move(*Endpoint::attach(memory.span(), domain));
	}
	Endpoint &operator[](DomainId domain) { return *endpoints[domain]; }
	Record &record(DomainId domain, std::uint32_t granule, std::uint32_t zone = 0)
	{
		auto *header = reinterpret_cast<Header *>(memory.span().data());
		return reinterpret_cast<Record *>(memory.span().data() + header->records + domain * header->records_bytes +
						  header->zone[zone].records)[granule];
	}

	Memory memory;
	Heap heap;
	std::vector<std::unique_ptr<Endpoint>> endpoints;
};

inline constexpr orbit::Zone zone{0};

#endif
