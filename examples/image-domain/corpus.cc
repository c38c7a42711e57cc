// SPDX-License-Identifier: MIT
#include "corpus.h"

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <random>

#include <png.h>
#include <zlib.h>

namespace {

constexpr std::size_t signature_bytes = 8, head_bytes = 8, crc_bytes = 4; // of a chunk: length and name; data; CRC

void put(std::byte *at, std::uint32_t number)
{
	for (int i = 0; i < 4; i++)
		at[i] = static_cast<std::byte>(number >> (24 - 8 * i));
}

std::uint32_t get(const std::byte *at)
{
	std::uint32_t number = 0;

	for (int i = 0; i < 4; i++)
		number = number << 8 | static_cast<std::uint32_t>(at[i]);
	return number;
}

// Where the chunks of a good file are.
struct Chunk {
	std::size_t begin, data_bytes;

	std::size_t data() const { return begin + head_bytes; }
	std::size_t crc() const { return data() + data_bytes; }
	std::size_t end() const { return crc() + crc_bytes; }
	bool is(const File &file, const char *name) const { return !std::memcmp(&file[begin + 4], name, 4); }
};

std::vector<Chunk> chunks_of(const File &file)
{
	std::vector<Chunk> chunks;

	for (std::size_t at = signature_bytes; at < file.size(); at = chunks.back().end())
		chunks.push_back({at, get(&file[at])});
	return chunks;
}

void mend_crc(File &file, const Chunk &chunk)
{
	const auto *const from = reinterpret_cast<const Bytef *>(&file[chunk.begin + 4]);

	put(&file[chunk.crc()], static_cast<std::uint32_t>(crc32_z(0, from, 4 + chunk.data_bytes)));
}

// Without setjmp(): an error, which cannot be, ends the program.
File write_png(std::uint32_t width, std::uint32_t height, int depth, int color, int interlace)
{
	File file;
	png_structp png = png_create_write_struct(PNG_LIBPNG_VER_STRING, nullptr, nullptr, nullptr);
	png_infop info = png_create_info_struct(png);
	const auto write = [](png_structp to, png_bytep bytes, std::size_t size) {
		auto &out = *static_cast<File *>(png_get_io_ptr(to));

		out.insert(out.end(), reinterpret_cast<std::byte *>(bytes), reinterpret_cast<std::byte *>(bytes) + size);
	};

	png_set_write_fn(png, &file, write, nullptr);
	png_set_IHDR(png, info, width, height, depth, color, interlace, PNG_COMPRESSION_TYPE_DEFAULT, PNG_FILTER_TYPE_DEFAULT);
	png_write_info(png, info);
	const std::size_t row_bytes = png_get_rowbytes(png, info);
	std::vector<png_byte> row(row_bytes);
	const int passes = png_set_interlace_handling(png);
	for (int pass = 0; pass < passes; pass++) {
		for (std::size_t y = 0; y < height; y++) {
			for (std::size_t x = 0; x < row_bytes; x++)
				row[x] = static_cast<png_byte>(x * y / 16 + (x ^ y) + x % 5 * 40);
			png_write_row(png, row.data());
		}
	}
	png_write_end(png, nullptr);
	png_destroy_write_struct(&png, &info);
	return file;
}

// A chunk's data that inflates to far more than it is.
std::vector<std::byte> bomb()
{
	const std::vector<Bytef> zeroes(std::size_t{1} << 25);
	std::vector<Bytef> packed(compressBound(zeroes.size()));
	uLongf bytes = packed.size();

	compress2(packed.data(), &bytes, zeroes.data(), zeroes.size(), Z_BEST_SPEED);
	std::vector<std::byte> data{std::byte{'t'}, std::byte{0}, std::byte{0}}; // keyword, method
	for (uLongf i = 0; i < bytes; i++)
		data.push_back(static_cast<std::byte>(packed[i]));
	return data;
}

} // namespace

File with_chunk(const File &file, const char *name, std::span<const std::byte> data)
{
	const Chunk chunk{chunks_of(file).front().end(), data.size()};
	File out = file;

	out.insert(out.begin() + static_cast<std::ptrdiff_t>(chunk.begin), head_bytes + data.size() + crc_bytes, std::byte{});
	put(&out[chunk.begin], static_cast<std::uint32_t>(data.size()));
	std::memcpy(&out[chunk.begin + 4], name, 4);
	std::ranges::copy(data, out.begin() + static_cast<std::ptrdiff_t>(chunk.data()));
	mend_crc(out, chunk);
	return out;
}

std::vector<Good> good_files()
{
	return {{"grey", write_png(64, 48, 8, PNG_COLOR_TYPE_GRAY, PNG_INTERLACE_NONE)},
		{"bits", write_png(100, 20, 1, PNG_COLOR_TYPE_GRAY, PNG_INTERLACE_NONE)},
		{"deep", write_png(31, 33, 16, PNG_COLOR_TYPE_GRAY_ALPHA, PNG_INTERLACE_NONE)},
		{"laced", write_png(65, 49, 8, PNG_COLOR_TYPE_RGB, PNG_INTERLACE_ADAM7)},
		{"rgba", write_png(64, 64, 8, PNG_COLOR_TYPE_RGB_ALPHA, PNG_INTERLACE_NONE)}};
}

std::vector<Broken> broken_files(std::span<const Good> good)
{
	std::minstd_rand random(1);
	const auto below = [&](std::size_t n) { return static_cast<std::size_t>(random()) % n; };
	Broken truncated{"truncated", {}}, flipped{"flipped bytes", {}}, mended{"flipped bytes, CRC right", {}},
		wrong_crc{"wrong CRC", {}}, lengths{"wrong length", {}}, sizes{"huge or no size", {}},
		order{"chunks lost or repeated", {}}, bombs{"decompression bombs", {}};
	const std::vector<std::byte> large = bomb();

	for (const auto &[name, file] : good) {
		const std::vector<Chunk> chunks = chunks_of(file);
		const auto changed = [&](auto &&change) {
			File copy = file;
			change(copy);
			return copy;
		};

		for (int i = 0; i < 10; i++)
			truncated.files.emplace_back(file.begin(), file.begin() + static_cast<std::ptrdiff_t>(below(file.size())));
		for (int i = 0; i < 10; i++)
			flipped.files.push_back(changed([&](File &out) {
				for (int flips = 0; flips < 3; flips++)
					out[below(out.size())] ^= static_cast<std::byte>(1 + below(255));
			}));
		for (int i = 0; i < 20; i++)
			mended.files.push_back(changed([&](File &out) {
				for (const Chunk &chunk : chunks) {
					if (!chunk.data_bytes || (i % 2 && !chunk.is(file, "IDAT")))
						continue;
					out[chunk.data() + below(chunk.data_bytes)] ^= static_cast<std::byte>(1 + below(255));
					mend_crc(out, chunk);
				}
			}));
		for (const Chunk &chunk : chunks) {
			wrong_crc.files.push_back(changed([&](File &out) { out[chunk.crc()] ^= std::byte{1}; }));
			for (const std::uint32_t length : {std::uint32_t{0}, std::uint32_t{1} << 20, ~std::uint32_t{0}})
				lengths.files.push_back(changed([&](File &out) { put(&out[chunk.begin], length); }));
			order.files.push_back(changed([&](File &out) {
				out.erase(out.begin() + static_cast<std::ptrdiff_t>(chunk.begin),
					  out.begin() + static_cast<std::ptrdiff_t>(chunk.end()));
			}));
			order.files.push_back(changed([&](File &out) {
				out.insert(out.begin() + static_cast<std::ptrdiff_t>(chunk.end()),
					   file.begin() + static_cast<std::ptrdiff_t>(chunk.begin),
					   file.begin() + static_cast<std::ptrdiff_t>(chunk.end()));
			}));
		}
		for (const std::uint32_t size : {0U, 20'000U, 1U << 20, 0x7fffffffU, 0xffffffffU})
			sizes.files.push_back(changed([&](File &out) {
				put(&out[chunks[0].data()], size);
				put(&out[chunks[0].data() + 4], size);
				mend_crc(out, chunks[0]);
			}));
		bombs.files.push_back(with_chunk(file, "zTXt", large));
		bombs.files.push_back(with_chunk(file, "iCCP", large));
	}
	return {truncated, flipped, mended, wrong_crc, lengths, sizes, order, bombs};
}
