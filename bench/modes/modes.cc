// SPDX-License-Identifier: MIT
//
// Which mode of snapshot costs least, over a spread of change rates and of where the pages
// lie. README.md says how each case is measured.
#include "../common/memory.h"
#include "../common/patterns.h"

using namespace bench;
using namespace patterns;

namespace {

constexpr unsigned pages = 64;
constexpr std::size_t pool_size = 64 * MiB;

struct Mode {
	const char *name;
	orbit::Mode mode;
};

struct Spread {
	const char *name;
	Pattern changes;
};

// Change, call; the task reads a word of each of the pages.
Body change_and_call(orbit::Mode mode, Pattern changes, std::size_t stride)
{
	// One for each mode: pages have a history.
	auto both = shared<PoolAndOrbit>("mode " + std::to_string(static_cast<unsigned>(mode)),
					 [] { return make_pool_and_orbit(pool_size); });
	const orbit::PoolRange range(both->pool, mode);

	return [both, range, mode, changes, stride, number = 0U](Round &round) mutable {
		std::byte *const base = both->pool.data();
		std::uint64_t sum = 0;

		number++;
		round.time("write", [&] {
			for (unsigned page = 0; page < pages; page++)
				if (changes(page, number))
					*reinterpret_cast<volatile std::uint64_t *>(base + page * stride) = number;
		});
		const std::uint64_t expected = mode == orbit::Mode::move ? 0 : read_pages(base, pages, stride);
		round.time("call", [&] {
			sum = value(both->orbit.call(range, read_pages, static_cast<const std::byte *>(base),
						     std::size_t{pages}, stride),
				    "call");
		});
		// Moved pages are zeroes here, so there is nothing to compare with.
		if (mode != orbit::Mode::move && sum != expected)
			die("the task saw something else");
	};
}

} // namespace

int main(int argc, char **argv)
{
	constexpr std::array modes = {Mode{"cow", orbit::Mode::cow}, Mode{"copy", orbit::Mode::copy},
				      Mode{"adaptive", orbit::Mode::adaptive}, Mode{"move", orbit::Mode::move}};
	constexpr std::array spreads = {
		Spread{"every=1", every<1>},
		Spread{"every=2", every<2>},
		Spread{"every=3", every<3>},
		Spread{"every=4", every<4>},
		Spread{"every=8", every<8>},
		Spread{"every=16", every<16>},
		Spread{"every=64", every<64>},
		Spread{"random=2", random_one_in<2>},
		Spread{"random=4", random_one_in<4>},
		Spread{"random=10", random_one_in<10>},
		Spread{"mixed", mixed},
	};

	// The other backend always copies: there is nothing to compare.
	const bool all_alike = is_portable();

	for (const auto &[mode_name, mode] : modes)
		for (const auto &[where, stride] : {std::pair{"adjacent", page_size},
						    std::pair{"scattered", pool_size / pages}})
			for (const Spread &spread : spreads) {
				// It is of use only for what main has written anew.
				if (mode == orbit::Mode::move && spread.changes != every<1>)
					continue;
				add({.name = std::string("modes/") + mode_name + "/" + where + "/" + spread.name,
				     .make = [mode, changes = spread.changes, stride] {
					     return change_and_call(mode, changes, stride);
				     },
				     .quick = stride == page_size && spread.changes == every<1>,
				     .rounds = 96, // a multiple of most periods
				     .warm_up = 64,
				     .samples = 96,
				     .only_counted = all_alike});
			}
	return run(argc, argv);
}
