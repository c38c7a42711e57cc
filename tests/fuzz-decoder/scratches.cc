// SPDX-License-Identifier: MIT
//
// Scratches of the published API with anything in them: records that lie about their lengths,
// their types and their number. They are read here once more, in the simplest way.
#include "../../liborbit/compat/internal.h"
#include "input.h"

namespace {

std::uint8_t *may_change;   // declared
std::uint8_t *must_not;	    // not declared
constexpr std::size_t room = 512;
unsigned long runs;

unsigned long allowed(size_t argc, unsigned long argv[])
{
	for (std::size_t i = 0; i < argc; i++)
		runs += argv[i];
	runs++;
	return 0;
}

unsigned long not_allowed(size_t, unsigned long *)
{
	MUST(!"an operation that was not declared");
	return 0;
}

// A record as it should be understood.
struct Expected {
	orbit_type type; // ORBIT_UNKNOWN: malformed
	std::uint64_t address, length, argc;
	std::size_t data, stride;
};

std::uint64_t word(const Memory &memory, std::size_t at)
{
	std::uint64_t value;

	std::memcpy(&value, memory.data() + at, sizeof(value));
	return value;
}

Expected understand(const Memory &memory, const orbit_scratch &s)
{
	const Expected malformed = {ORBIT_UNKNOWN, 0, 0, 0, 0, 0};
	std::uint32_t type;

	if (s.cursor > s.size_limit || s.cursor % 16 || s.size_limit - s.cursor < 16)
		return malformed;

	const std::size_t left = s.size_limit - s.cursor;
	unsigned __int128 bytes;
	Expected found{};

	std::memcpy(&type, memory.data() + s.cursor, sizeof(type));
	if (type == ORBIT_ANY) {
		found.type = ORBIT_ANY;
		found.length = word(memory, s.cursor + 8);
		found.data = s.cursor + 16;
		bytes = static_cast<unsigned __int128>(16) + found.length;
	} else if ((type == ORBIT_UPDATE || type == ORBIT_OPERATION) && left >= 24) {
		found.type = static_cast<orbit_type>(type);
		found.address = word(memory, s.cursor + 8);
		found.length = word(memory, s.cursor + 16);
		found.data = s.cursor + 24;
		bytes = static_cast<unsigned __int128>(24) +
			static_cast<unsigned __int128>(found.length) * (type == ORBIT_UPDATE ? 1 : 8);
	} else {
		return malformed;
	}
	if (bytes > left)
		return malformed;
	found.stride = (static_cast<std::size_t>(bytes) + 15) / 16 * 16;
	if (found.stride > left)
		found.stride = left;
	return found;
}

// Build records, honest and other.
void fill(Input &input, Memory &memory)
{
	std::size_t at = 0;

	for (std::size_t i = input.byte() % 12; i && memory.size() - at >= 24; i--) {
		const std::uint32_t type = input.byte() % 8 ? 2U + input.byte() % 3 : input.take<std::uint32_t>();
		const bool any = type == ORBIT_ANY;
		const std::size_t honest = input.below(memory.size() - at - 24 + 1);
		const std::size_t unit = type == ORBIT_OPERATION ? 8 : 1;
		const std::uint64_t length = input.byte() % 8 ? honest / unit : input.number(honest / unit);
		std::uint64_t address;

		switch (input.byte() % 6) {
		case 0:
			address = reinterpret_cast<std::uintptr_t>(must_not) + input.below(room);
			break;
		case 1:
			address = input.number(reinterpret_cast<std::uintptr_t>(may_change) + room);
			break;
		case 2:
			address = reinterpret_cast<std::uintptr_t>(not_allowed);
			break;
		default:
			address = type == ORBIT_OPERATION ?
					  reinterpret_cast<std::uintptr_t>(allowed) :
					  reinterpret_cast<std::uintptr_t>(may_change) + input.below(room);
		}
		std::memcpy(memory.data() + at, &type, sizeof(type));
		if (any) {
			std::memcpy(memory.data() + at + 8, &length, sizeof(length));
		} else {
			std::memcpy(memory.data() + at + 8, &address, sizeof(address));
			std::memcpy(memory.data() + at + 16, &length, sizeof(length));
		}
		for (std::size_t j = 0; j < 24 && j < honest; j++)
			memory.data()[at + 24 + j] = input.byte();
		at += (24 + honest + 15) / 16 * 16;
		if (at > memory.size())
			break;
	}
	for (std::size_t i = input.byte() % 8; i && memory.size(); i--)
		memory.data()[input.below(memory.size())] = input.byte();
}

} // namespace

extern "C" int LLVMFuzzerInitialize(int *, char ***)
{
	may_change = static_cast<std::uint8_t *>(std::malloc(room));
	must_not = static_cast<std::uint8_t *>(std::malloc(room));
	MUST(orbit_compat_allow_range(may_change, room) == 0);
	MUST(orbit_compat_allow_operation(allowed) == 0);
	return 0;
}

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t *data, std::size_t size)
{
	Input input(data, size);
	Memory memory(input.below(2048));
	std::vector<std::uint8_t> changed(room);

	std::memset(may_change, 0, room);
	std::memset(must_not, 0, room);
	fill(input, memory);

	orbit_scratch s = {memory.data(), 0, memory.size(), input.below(20), nullptr};
	bool well_formed = true;

	if (input.byte() % 16 == 0)
		s.count = input.take<std::uint64_t>();
	if (input.byte() % 16 == 0)
		s.cursor = input.number(memory.size());
	for (orbit_scratch rest = s; rest.count && well_formed; rest.count--) {
		const Expected next = understand(memory, rest);

		well_formed = next.type != ORBIT_UNKNOWN;
		rest.cursor += next.stride;
	}
	MUST(orbit_compat::is_well_formed(s) == well_formed);

	// Every step either passes over a record or stops at one for good.
	for (std::size_t steps = 0; steps < 200; steps++) {
		const bool yield = input.byte() & 1, apply = input.byte() & 1;
		const Expected next = s.count ? understand(memory, s) : Expected{};
		const orbit_scratch before = s;
		const unsigned long runs_before = runs, refused = orbit_compat_refused();
		const orbit_repr *record = orbit_scratch_first(&s);
		orbit_type type;

		MUST(!record == (!before.count || next.type == ORBIT_UNKNOWN));
		MUST(!record || reinterpret_cast<std::uintptr_t>(record) == memory.address() + s.cursor);
		if (input.byte() % 8 == 0) {
			// All at once: it must end, within the memory.
			type = apply ? orbit_apply(&s, yield) : orbit_skip(&s, yield);
			MUST(type == ORBIT_END || type == ORBIT_UNKNOWN || (type == ORBIT_ANY && yield));
			MUST(type != ORBIT_END || !s.count);
			std::memcpy(changed.data(), may_change, room);
			continue;
		}
		type = apply ? orbit_apply_one(&s, yield) : orbit_skip_one(&s, yield);
		if (!before.count) {
			MUST(type == ORBIT_END && s.cursor == before.cursor);
			break;
		}
		if (next.type == ORBIT_UNKNOWN) {
			MUST(type == ORBIT_UNKNOWN && !s.count && orbit_compat_refused() == refused + 1);
			continue;
		}
		if (next.type == ORBIT_ANY && yield) {
			MUST(type == ORBIT_ANY && s.count == before.count && s.cursor == before.cursor);
			continue;
		}
		MUST(s.count == before.count - 1 && s.cursor == before.cursor + next.stride);
		if (next.type == ORBIT_UPDATE && apply) {
			const auto first = reinterpret_cast<std::uintptr_t>(may_change);
			// No bytes for nowhere in particular are fine in any range, its end included.
			const bool may = next.address >= first && next.address - first <= room &&
					 next.length <= room - (next.address - first);

			MUST(type == (may ? ORBIT_UPDATE : ORBIT_UNKNOWN));
			if (may && next.length)
				std::memcpy(&changed[next.address - first], memory.data() + next.data, next.length);
		} else if (next.type == ORBIT_OPERATION && apply) {
			unsigned long sum = 1;

			for (std::uint64_t i = 0; i < next.length; i++)
				sum += word(memory, next.data + 8 * i);

			const bool may = next.address == reinterpret_cast<std::uintptr_t>(allowed);

			MUST(type == (may ? ORBIT_OPERATION : ORBIT_UNKNOWN));
			MUST(runs == runs_before + (may ? sum : 0));
		} else {
			MUST(type == next.type);
		}
		MUST(!std::memcmp(may_change, changed.data(), room));
	}
	for (std::size_t i = 0; i < room; i++)
		MUST(!must_not[i]);
	return 0;
}
