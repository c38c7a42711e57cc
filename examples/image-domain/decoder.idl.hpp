// SPDX-License-Identifier: MIT
//
// What the domain does for the program: it makes pixels of a compressed file.
#pragma once

#include <orbit/rref.hpp>

// Of a pixel, 8 bits each; the number is how many there are.
enum class Format : std::uint8_t { grey = 1, grey_alpha, rgb, rgba };

struct Limits {
	std::uint32_t pixels; // of a picture, at most
};

struct Picture {
	std::uint32_t width;
	std::uint32_t height;
	Format format;
};

class ORBIT_INTERFACE Decoder {
public:
	virtual ~Decoder() = default;

	// The first `size` bytes of a buffer are the file. The buffer that is returned has the same size for all pictures; its
	// first width * height * format bytes are the pixels, row by row.
	// EBADMSG: the file is broken, or of another kind; EFBIG: it has more pixels than it may have; ENOMEM; ENOSPC.
	ORBIT_REPEATABLE virtual orbit::result<orbit::rref<std::byte[]>>
	decode(const orbit::rref<std::byte[]> &file, std::uint32_t size, const Limits &limits,
	       ORBIT_OUT(width, height, format) Picture &picture) = 0;
};
