// SPDX-License-Identifier: MIT
#include "images.h"

#include <algorithm>
#include <cstdio>

#include <zlib.h>

namespace {

// Shared with the domain: files, which it is lent, and pixels, which it makes.
constexpr orbit::Zone shared{0};
// The program's alone.
constexpr orbit::Zone own{1};

} // namespace

std::string Decoded::text() const
{
	constexpr const char *names[] = {"grey", "grey+alpha", "rgb", "rgba"};
	char text[100];

	std::snprintf(text, sizeof(text), "%ux%u %s, checksum %08x", picture.width, picture.height,
		      names[static_cast<int>(picture.format) - 1], checksum);
	return text;
}

std::string text(const orbit::call_error &error)
{
	if (error.from_method() && error.code() == EBADMSG)
		return "error: broken, or not a PNG file";
	if (error.from_method() && error.code() == EFBIG)
		return "error: too large";
	return "error: " + error.message();
}

orbit::result<std::unique_ptr<Images>> Images::create(const Options &options)
{
	std::unique_ptr<Images> images(new Images(options));
	const std::size_t picture_bytes = options.pixels * most_channels;
	orbit::SupervisorOptions wanted;

	wanted.zones = {{options.file_bytes + picture_bytes, options.file_bytes}};
	if (options.in_process)
		wanted.zones.push_back({picture_bytes, picture_bytes});
	wanted.domains = 1;
	wanted.report = options.report;
	auto supervisor = orbit::Supervisor::create(wanted);
	if (!supervisor)
		return tl::unexpected(supervisor.error());
	images->supervisor_ = std::move(*supervisor);

	auto domain = images->supervisor_->start(
		{.name = "png",
		 .services = {options.faults ? orbit::service<DecoderSkeleton, FaultyDecoder>()
					     : orbit::service<DecoderSkeleton, PngDecoder>()},
		 .parts = {{shared, picture_bytes}},
		 .restarts = options.restarts,
		 .via = options.via,
		 .memory_limit = options.memory});
	if (!domain)
		return tl::unexpected(domain.error());
	images->domain_ = std::move(*domain);

	auto file = images->supervisor_->endpoint().make_array_for_overwrite<std::byte>(shared, options.file_bytes);
	if (!file)
		return tl::unexpected(file.error());
	images->file_ = std::move(*file);
	return images;
}

orbit::result<Decoded> Images::decode(std::span<const std::byte> file, std::chrono::milliseconds deadline)
{
	orbit::isolation::Connection connection = domain_->connection();

	connection.timeout = deadline;
	DecoderShadow decoder(domain_->transport(0), connection, domain_->recovery());
	return decode_by(decoder, file);
}

orbit::result<Decoded> Images::decode_in_process(std::span<const std::byte> file)
{
	PngDecoder decoder(supervisor_->endpoint(), own);

	return decode_by(decoder, file);
}

orbit::result<Decoded> Images::decode_by(Decoder &decoder, std::span<const std::byte> file)
{
	Decoded decoded{};

	if (file.size() > file_.size())
		return orbit::failed(EFBIG);
	std::ranges::copy(file, file_.elements().begin());
	const auto pixels = decoder.decode(file_, static_cast<std::uint32_t>(file.size()), {options_.pixels}, decoded.picture);
	if (!pixels)
		return tl::unexpected(pixels.error());

	// That the format is one has been checked, and that the buffer is as large as it says. The rest the domain may have
	// made up: a width that does not fit the buffer, for one. The pixels themselves may be anything, and a mad
	// domain can change them while they are read: who takes more from them than a sum copies them first.
	const auto [width, height, format] = decoded.picture;
	if (!width || !height || height > options_.pixels / width)
		return orbit::failed(EBADMSG);
	decoded.bytes = std::size_t{width} * height * static_cast<std::size_t>(format);
	if (decoded.bytes > pixels->size())
		return orbit::failed(EBADMSG);
	decoded.checksum = static_cast<std::uint32_t>(
		crc32_z(0, reinterpret_cast<const Bytef *>(pixels->elements().data()), decoded.bytes));
	return decoded;
}
