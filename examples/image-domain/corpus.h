// SPDX-License-Identifier: MIT
//
// PNG files, good and broken. The same at each run.
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <vector>

using File = std::vector<std::byte>;

struct Good {
	std::string name;
	File file;
};
std::vector<Good> good_files();

struct Broken {
	std::string kind;
	std::vector<File> files;
};
// Made of good ones by mutation.
std::vector<Broken> broken_files(std::span<const Good> good);

// The same file with another chunk, after the first.
File with_chunk(const File &file, const char *name, std::span<const std::byte> data = {});
