// SPDX-License-Identifier: MIT
//
// Decodes PNG files by libpng, which runs as a domain: whatever a file does to it, the program goes on.
#include "demonstration.h"
#include "images.h"

#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <string>
#include <string_view>
#include <vector>

namespace {

constexpr char usage[] = "usage: image-domain [--in-process] [--ring] [--deadline MS] [--memory MIB] [--repeat N] [FILE...]\n"
			 "Decodes PNG files in a domain, or in process; without files it shows what that is good for.\n";

struct Arguments {
	Options options;
	int repeat = 1;
	std::vector<std::string> files;
	bool good = true;
};

Arguments parse(int argc, char **argv)
{
	Arguments out;

	for (int i = 1; i < argc; i++) {
		const std::string_view word = argv[i];
		const bool has_number = word == "--deadline" || word == "--memory" || word == "--repeat";
		const long number = has_number && i + 1 < argc ? std::strtol(argv[++i], nullptr, 10) : 0;

		if (has_number && (number < 1 || number > 1'000'000))
			out.good = false;
		else if (word == "--in-process")
			out.options.in_process = true;
		else if (word == "--ring")
			out.options.via = orbit::Via::ring;
		else if (word == "--deadline")
			out.options.deadline = std::chrono::milliseconds(number);
		else if (word == "--memory")
			out.options.memory = static_cast<std::uint64_t>(number) << 20;
		else if (word == "--repeat")
			out.repeat = static_cast<int>(number);
		else if (word.starts_with("--"))
			out.good = false;
		else
			out.files.emplace_back(word);
	}
	return out;
}

struct Sums {
	std::size_t files = 0, errors = 0, bytes = 0;
	std::chrono::duration<double> time{};
};

// Prints a line.
void decode_file(Images &images, const Arguments &arguments, const std::string &name, Sums &sums)
{
	std::ifstream stream(name, std::ios::binary);
	const std::string data(std::istreambuf_iterator<char>(stream), {});
	const std::span file = std::as_bytes(std::span(data));
	const auto begin = std::chrono::steady_clock::now();
	orbit::result<Decoded> decoded = orbit::failed(EIO);

	for (int i = 0; i < arguments.repeat && stream.is_open(); i++) {
		decoded = arguments.options.in_process ? images.decode_in_process(file) : images.decode(file);
		sums.bytes += decoded ? decoded->bytes : 0;
	}
	sums.time += std::chrono::steady_clock::now() - begin;
	sums.files++;
	sums.errors += !decoded;
	std::printf("%s: %s\n", name.c_str(), decoded ? decoded->text().c_str() : text(decoded.error()).c_str());
}

} // namespace

int main(int argc, char **argv)
{
	Arguments arguments = parse(argc, argv);

	if (!arguments.good) {
		std::fputs(usage, stderr);
		return 2;
	}
	if (auto ready = orbit::prepare(); !ready) { // before there are threads or much memory
		std::printf("%s\n", ready.error().message().c_str());
		return 1;
	}
	if (arguments.files.empty())
		return demonstrate();

	arguments.options.report = [](const orbit::DomainReport &report) {
		std::fprintf(stderr, "%s\n", report.message().c_str());
	};
	auto images = Images::create(arguments.options);
	if (!images) {
		std::printf("%s\n", images.error().message().c_str());
		return 1;
	}
	Sums sums;
	for (const std::string &name : arguments.files)
		decode_file(**images, arguments, name, sums);

	const double megabytes = static_cast<double>(sums.bytes) / 1e6;
	std::printf("%zu files, %zu errors, %llu restarts; %.1f MB of pixels in %.3f s, %.1f MB/s\n", sums.files, sums.errors,
		    static_cast<unsigned long long>((*images)->statistics().starts - 1), megabytes, sums.time.count(),
		    sums.time.count() > 0 ? megabytes / sums.time.count() : 0);
}
