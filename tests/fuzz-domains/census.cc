// SPDX-License-Identifier: MIT
//
// What another program says of its domains: the census of a heap in which anything may stand, and what orbitctl makes of
// files that say to be a supervisor's.
#include <orbit/rref.hpp>

#include "../../isolation/status.h"
#include "../../liborbit/orbitctl/domains.h"

#include "../fuzz-decoder/input.h"

#include <sys/mman.h>
#include <unistd.h>

namespace {

using namespace orbit::isolation;

constexpr DomainId domains = 3;
constexpr std::size_t zone_bytes[] = {4 * page_bytes, 2 * page_bytes};

std::span<std::byte> bytes_of(const Memory &memory)
{
	return {reinterpret_cast<std::byte *>(memory.data()), memory.size()};
}

// As there is after a while, and what its own supervisor counts.
struct Right {
	Right() : memory(Heap::bytes(domains, zone_bytes), page_bytes)
	{
		auto heap = Heap::create(bytes_of(memory), domains, zone_bytes);
		std::unique_ptr<Endpoint> endpoints[domains + 1];

		MUST(heap);
		for (DomainId domain = 1; domain <= domains; domain++) {
			MUST(heap->add(domain, 0) && heap->grant(domain, 0, page_bytes));
			endpoints[domain] = std::move(*Endpoint::attach(bytes_of(memory), domain));
		}
		MUST(heap->add(1, 1) && heap->grant(1, 1, page_bytes));
		for (DomainId domain = 1; domain <= domains; domain++)
			for (unsigned n = 0; n < 4; n++) {
				const DomainId to = domain % domains + 1;
				auto buffer = endpoints[domain]->make<std::uint64_t>(orbit::Zone{0});
				auto sent = endpoints[domain]->send(std::move(*buffer), to);
				if (n < 3)
					keep(std::move(*endpoints[to]->receive<std::uint64_t>(*sent, domain)));
			}
		counted = heap->census();
		shown = heap->ranges(supervisor).front().bytes; // and the records of each
		for (DomainId domain = 0; domain <= domains; domain++)
			shown += heap->ranges(supervisor)[1 + domain].bytes;
	}
	// It has no end: its endpoint goes first.
	static void keep(orbit::rref<std::uint64_t> &&buffer)
	{
		using Buffer = orbit::rref<std::uint64_t>;
		alignas(Buffer) std::byte grave[sizeof(Buffer)];

		new (grave) Buffer(std::move(buffer));
	}

	Memory memory;
	Census counted;
	std::size_t shown;
};

class File {
public:
	explicit File(const char *name) : fd(memfd_create(name, MFD_CLOEXEC)) { MUST(fd >= 0); }
	~File() { close(fd); }
	void write(const void *from, std::size_t bytes) const
	{
		MUST(ftruncate(fd, static_cast<off_t>(bytes)) == 0);
		MUST(pwrite(fd, from, bytes, 0) == static_cast<ssize_t>(bytes));
	}

	const int fd;
};

void change(Input &input, std::span<std::byte> bytes)
{
	for (unsigned n = input.byte() % 6; n && bytes.size() >= 8; n--) {
		// The header is what everything else hangs on.
		const std::size_t words = (input.byte() % 2 && bytes.size() > 256 ? 256 : bytes.size()) / 8;
		std::byte *const at = bytes.data() + input.below(words) * 8;
		std::uint64_t value;

		std::memcpy(&value, at, sizeof(value));
		value = input.byte() % 4 ? input.number(value) : value ^ std::uint64_t{1} << input.byte() % 64;
		std::memcpy(at, &value, sizeof(value));
	}
}

} // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t *data, std::size_t size)
{
	static const Right right;
	static const File status_file("orbit-domains:0"), heap_file("orbit-heap:0:0");
	Input input(data, size);
	const bool is_right = input.byte() % 16 == 0, whole = is_right || input.byte() % 4;
	const Memory heap(whole ? right.shown : input.below(right.shown + 1), page_bytes);
	Census census;

	if (heap.size())
		std::memcpy(heap.data(), right.memory.data(), heap.size());
	if (!is_right)
		change(input, bytes_of(heap));
	const bool counted = census_of(bytes_of(heap), &census);
	if (is_right) {
		MUST(counted && !std::memcmp(&census, &right.counted, sizeof(census)));
	} else if (counted) {
		std::size_t owned = 0;
		for (const std::size_t each : census.owned)
			owned += each;
		MUST(owned + census.in_flight + census.returned + census.lost == census.buffers);
	}

	Memory bytes(sizeof(SupervisorStatus));
	auto &status = *new (bytes.data()) SupervisorStatus{};
	status.magic = status_magic;
	status.size = sizeof(DomainStatus);
	status.domains = domains + 1;
	status.heap_parts = domains + 3;
	for (DomainId domain = 1; domain <= domains; domain++) {
		status.domain[domain].state = DomainState::serving;
		set_text(status.domain[domain], status.domain[domain].name, "a name");
	}
	change(input, bytes_of(bytes));
	status_file.write(bytes.data(), input.byte() % 8 ? bytes.size() : input.below(bytes.size() + 1));
	heap_file.write(heap.data(), heap.size());

	orbitctl::SupervisorFiles files;
	MUST(files.add(status_file.fd, "/memfd:orbit-domains:0 (deleted)") && files.add(heap_file.fd, "/memfd:orbit-heap:0:0 (deleted)"));
	const auto found = files.read("/proc/self/fd");
	MUST(found.size() <= max_domains);
	for (const orbitctl::Domain &domain : found)
		MUST(domain.name.size() <= sizeof(DomainStatus::name) && domain.last_end.size() <= sizeof(DomainStatus::last_end));
	return 0;
}
