// SPDX-License-Identifier: MIT
#include "machine.h"

#include "../common/bind.h"

#include <cerrno>
#include <cstdlib>
#include <fcntl.h>
#include <filesystem>
#include <fstream>
#include <unistd.h>

namespace kv {

namespace {

namespace fs = std::filesystem;

// Past the cache, so that the device is asked.
class FileBlocks final : public Blocks {
public:
	FileBlocks(int file, const Area &area)
		: file_(file), area_(area), bytes_((Log::most_group + area.block_bytes - 1) / area.block_bytes * area.block_bytes),
		  buffer_(static_cast<std::byte *>(std::aligned_alloc(65536, (bytes_ + 65535) / 65536 * 65536)))
	{
	}
	~FileBlocks() override
	{
		std::free(buffer_);
		close(file_);
	}

	std::span<std::byte> buffer() override { return {buffer_, bytes_}; }
	int read(std::uint64_t block, std::uint32_t blocks) override
	{
		const std::size_t bytes = std::size_t{blocks} * area_.block_bytes;
		const ssize_t n = pread(file_, buffer_, bytes, static_cast<off_t>((area_.lba + block) * area_.block_bytes));

		return n == static_cast<ssize_t>(bytes) ? 0 : n < 0 ? errno : EIO;
	}
	int write(std::uint64_t, std::uint32_t) override { return EROFS; }
	int flush() override { return EROFS; }

private:
	int file_;
	Area area_;
	std::size_t bytes_;
	std::byte *buffer_;
};

} // namespace

std::unique_ptr<Blocks> linux_blocks(const std::string &address, const Area &area)
{
	int file = -1;

	example::wait_until([&] {
		std::error_code error;

		for (const auto &entry : fs::directory_iterator("/sys/block", error)) {
			unsigned number = 0;

			std::ifstream(entry.path() / "nsid") >> number;
			if (number == area.space && fs::read_symlink(entry.path(), error).string().find(address) != std::string::npos)
				file = open(("/dev/" + entry.path().filename().string()).c_str(), O_RDONLY | O_DIRECT | O_CLOEXEC);
		}
		return file >= 0;
	});
	if (file < 0)
		return nullptr;
	return std::make_unique<FileBlocks>(file, area);
}

} // namespace kv
