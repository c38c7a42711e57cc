// SPDX-License-Identifier: MIT
#include "png_decoder.h"

#include <cstdlib>
#include <cstring>

#include <png.h>

namespace {

// libpng returns from errors by longjmp(), to the function of this class that has called it: objects with
// destructors are not to be there, nor in what libpng calls.
class PngReader {
public:
	PngReader(std::span<const std::byte> file, bool faults) noexcept : left_(file)
	{
		png_ = png_create_read_struct_2(PNG_LIBPNG_VER_STRING, nullptr, fail, warn, this, allocate, release);
		info_ = png_ ? png_create_info_struct(png_) : nullptr;
		if (!info_)
			return;
		png_set_read_fn(png_, this, read);
		if (faults)
			png_set_read_user_chunk_fn(png_, nullptr, do_harm);
	}
	PngReader(const PngReader &) = delete;
	PngReader &operator=(const PngReader &) = delete;
	~PngReader() { png_destroy_read_struct(&png_, &info_, nullptr); }

	// 0, or an errno value.
	int read_header(std::uint32_t most_pixels, Picture &picture) noexcept
	{
		if (!info_)
			return ENOMEM;
		if (setjmp(png_jmpbuf(png_)))
			return error();
		png_read_info(png_, info_);
		picture.width = png_get_image_width(png_, info_);
		picture.height = png_get_image_height(png_, info_);
		if (std::uint64_t{picture.width} * picture.height > most_pixels)
			return EFBIG;
		png_set_expand(png_);
		png_set_scale_16(png_);
		passes_ = png_set_interlace_handling(png_);
		png_read_update_info(png_, info_);
		const std::size_t channels = png_get_channels(png_, info_);
		if (channels < 1 || channels > most_channels ||
		    png_get_rowbytes(png_, info_) != channels * picture.width)
			return EBADMSG;
		picture.format = static_cast<Format>(channels);
		return 0;
	}

	int read_pixels(const Picture &picture, std::byte *into) noexcept
	{
		const std::size_t row_bytes = picture.width * static_cast<std::size_t>(picture.format);

		if (setjmp(png_jmpbuf(png_)))
			return error();
		for (int pass = 0; pass < passes_; pass++)
			for (std::size_t y = 0; y < picture.height; y++)
				png_read_row(png_, reinterpret_cast<png_bytep>(into + y * row_bytes), nullptr);
		png_read_end(png_, nullptr);
		return 0;
	}

private:
	int error() const noexcept { return out_of_memory_ ? ENOMEM : EBADMSG; }

	static void fail(png_structp png, png_const_charp) { png_longjmp(png, 1); }
	static void warn(png_structp, png_const_charp) {}
	static void read(png_structp png, png_bytep into, std::size_t bytes)
	{
		auto &left = static_cast<PngReader *>(png_get_io_ptr(png))->left_;

		if (bytes > left.size())
			png_error(png, "the file ends too early");
		std::memcpy(into, left.data(), bytes);
		left = left.subspan(bytes);
	}
	static void *allocate(png_structp png, std::size_t bytes)
	{
		void *const memory = std::malloc(bytes);

		if (!memory)
			static_cast<PngReader *>(png_get_mem_ptr(png))->out_of_memory_ = true;
		return memory;
	}
	static void release(png_structp, void *memory) { std::free(memory); }

	// For the demonstration, see FaultyDecoder.
	static int do_harm(png_structp, png_unknown_chunkp chunk)
	{
		const char *const name = reinterpret_cast<const char *>(chunk->name);

		if (!std::strcmp(name, crash_chunk))
			*static_cast<volatile int *>(nullptr) = 1;
		if (!std::strcmp(name, hang_chunk))
			for (static volatile bool for_ever = true; for_ever;)
				;
		if (!std::strcmp(name, memory_chunk))
			for (;;) { // as one who does not look whether malloc() has any left
				constexpr std::size_t bytes = 1 << 20;
				auto *const memory = static_cast<volatile std::byte *>(std::malloc(bytes));
				for (std::size_t i = 0; i < bytes; i += 4096)
					memory[i] = std::byte{1};
			}
		return 0; // not known: libpng goes on
	}

	std::span<const std::byte> left_;
	png_structp png_ = nullptr;
	png_infop info_ = nullptr;
	int passes_ = 0;
	bool out_of_memory_ = false;
};

} // namespace

orbit::result<orbit::rref<std::byte[]>> PngDecoder::decode(const orbit::rref<std::byte[]> &file, std::uint32_t size,
							   const Limits &limits, Picture &picture)
{
	if (size > file.size())
		return orbit::failed(EINVAL);
	PngReader reader(file.elements().first(size), faults_);
	if (const int error = reader.read_header(limits.pixels, picture))
		return orbit::failed(error);
	// Always as large: a zone's memory is reused for the size that it had.
	auto pixels = endpoint_.make_array_for_overwrite<std::byte>(zone_, limits.pixels * most_channels);
	if (!pixels)
		return orbit::failed(pixels.error().code());
	if (const int error = reader.read_pixels(picture, pixels->elements().data()))
		return orbit::failed(error);
	return pixels;
}
