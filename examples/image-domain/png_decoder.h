// SPDX-License-Identifier: MIT
//
// The decoder, by libpng. The same class serves in a domain and in process.
#pragma once

#include "decoder.orbit.hpp"

#include <cstddef>

constexpr std::size_t most_channels = 4;

class PngDecoder : public Decoder {
public:
	// It makes its buffers in this zone.
	explicit PngDecoder(orbit::isolation::Endpoint &endpoint, orbit::Zone zone = {0}, bool faults = false)
		: endpoint_(endpoint), zone_(zone), faults_(faults)
	{
	}

	orbit::result<orbit::rref<std::byte[]>> decode(const orbit::rref<std::byte[]> &file, std::uint32_t size,
						       const Limits &limits, Picture &picture) override;

private:
	orbit::isolation::Endpoint &endpoint_;
	orbit::Zone zone_;
	bool faults_;
};

// FOR THE DEMONSTRATION ONLY. Today's libpng does not crash easily, so this decoder has holes of its own: a file that
// has one of these chunks makes it crash, hang, or use memory without end, as a fault of the library would.
constexpr char crash_chunk[] = "crSh", hang_chunk[] = "haNg", memory_chunk[] = "grOw";

class FaultyDecoder : public PngDecoder {
public:
	explicit FaultyDecoder(orbit::isolation::Endpoint &endpoint) : PngDecoder(endpoint, {0}, true) {}
};
