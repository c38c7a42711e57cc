// SPDX-License-Identifier: MIT
//
// Decoding for the program: in a domain, or in process.
#pragma once

#include "png_decoder.h"

#include <orbit/domain.hpp>

#include <chrono>
#include <functional>
#include <memory>
#include <span>
#include <string>

struct Options {
	std::size_t file_bytes = 16 << 20; // of a file, at most
	std::uint32_t pixels = 4 << 20;    // of a picture, at most
	std::chrono::milliseconds deadline{1000};
	std::uint64_t memory = 64 << 20;   // that the domain may use, in bytes
	orbit::Restarts restarts = {.most = 60};
	orbit::Via via = orbit::Via::call;
	bool faults = false;               // for the demonstration
	bool in_process = false;           // decoding in process is wanted as well
	std::function<void(const orbit::DomainReport &)> report = {};
};

// A picture, without its pixels.
struct Decoded {
	Picture picture;
	std::uint32_t checksum; // of the pixels: CRC-32
	std::size_t bytes;      // that they take

	// For people.
	std::string text() const;
};

// For people: why there is no picture.
std::string text(const orbit::call_error &error);

class Images {
public:
	// Call orbit::prepare() before.
	static orbit::result<std::unique_ptr<Images>> create(const Options &options);

	// In the domain. A domain that dies is started again, and the file decoded again, unless it has killed three.
	orbit::result<Decoded> decode(std::span<const std::byte> file, std::chrono::milliseconds deadline);
	orbit::result<Decoded> decode(std::span<const std::byte> file) { return decode(file, options_.deadline); }

	// Here, by the same class.
	orbit::result<Decoded> decode_in_process(std::span<const std::byte> file);

	orbit::DomainStatistics statistics() const { return domain_->statistics(); }

private:
	explicit Images(const Options &options) : options_(options) {}
	orbit::result<Decoded> decode_by(Decoder &decoder, std::span<const std::byte> file);

	Options options_;
	std::unique_ptr<orbit::Supervisor> supervisor_;
	std::unique_ptr<orbit::Domain> domain_;
	orbit::rref<std::byte[]> file_; // ends before the supervisor does
};
