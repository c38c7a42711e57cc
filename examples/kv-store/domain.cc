// SPDX-License-Identifier: MIT
#include "domain.h"

#include <algorithm>
#include <cerrno>

namespace kv {

// By calls of the driver's domain, with a buffer that is lent or moved there and back: the device itself reads and writes it.
class LogStore::DeviceBlocks final : public Blocks {
public:
	DeviceBlocks(std::shared_ptr<orbit::block::Device> device, orbit::isolation::Endpoint &endpoint, const Area &area)
		: device_(std::move(device)), endpoint_(endpoint), area_(area)
	{
	}

	// 0, or why there is no memory.
	int take_buffer()
	{
		auto made = endpoint_.make_array<std::byte>(
			orbit::Zone{0}, (Log::most_group + area_.block_bytes - 1) / area_.block_bytes * area_.block_bytes);

		if (!made)
			return made.error().code();
		buffer_ = std::move(*made);
		return 0;
	}

	std::span<std::byte> buffer() override { return buffer_.elements(); }

	int read(std::uint64_t block, std::uint32_t blocks) override
	{
		for (int tries = 1;; tries++) {
			auto done = device_->read(area_.space, area_.lba + block, blocks, std::move(buffer_));

			if (done) {
				buffer_ = std::move(*done);
				return 0;
			}
			// A crash of the driver takes the buffer with it.
			if (const int none = take_buffer())
				return none;
			const int error = done.error().code();
			if ((error != ECONNRESET && error != ETIMEDOUT) || tries == 5)
				return error;
		}
	}
	int write(std::uint64_t block, std::uint32_t blocks) override
	{
		return error_of(device_->write(area_.space, area_.lba + block, blocks, buffer_));
	}
	int flush() override { return error_of(device_->flush(area_.space)); }

private:
	static int error_of(const orbit::result<void> &done) { return done ? 0 : done.error().code(); }

	std::shared_ptr<orbit::block::Device> device_;
	orbit::isolation::Endpoint &endpoint_;
	Area area_;
	orbit::rref<std::byte[]> buffer_;
};

orbit::result<Contents> LogStore::open(std::shared_ptr<orbit::block::Device> device, const Area &area)
{
	if (log_)
		return orbit::failed(EALREADY);
	if (!device || area.block_bytes < 512 || area.block_bytes > 65536 || area.blocks < 64)
		return orbit::failed(EINVAL);
	blocks_ = std::make_shared<DeviceBlocks>(std::move(device), endpoint_, area);
	if (const int error = blocks_->take_buffer())
		return orbit::failed(error);
	Log log(*blocks_, area);
	if (const int error = log.open(true))
		return orbit::failed(error);
	log_.emplace(std::move(log));
	return log_->contents();
}

orbit::result<void> LogStore::put(const orbit::rref<Group> &group)
{
	const auto copy = group.fetch(); // its owner may write to it meanwhile

	if (!log_)
		return orbit::failed(ENODEV);
	if (!copy || copy->puts > most_puts)
		return orbit::failed(EINVAL);
	const std::span<const Put> puts(copy->put, copy->puts);
	for (const Put &put : puts)
		if (!put.key.bytes || put.key.bytes > most_key || put.value.bytes > most_value)
			return orbit::failed(EINVAL);
	if (const int error = log_->append(puts))
		return orbit::failed(error);
	return {};
}

orbit::result<Value> LogStore::get(const Key &key)
{
	std::string text;
	Value value{};

	if (!log_)
		return orbit::failed(ENODEV);
	if (!key.bytes || key.bytes > most_key)
		return orbit::failed(EINVAL);
	if (const int error = log_->get({key.text, key.bytes}, text))
		return orbit::failed(error);
	value.bytes = static_cast<std::uint32_t>(text.copy(value.text, most_value));
	return value;
}

orbit::result<Contents> LogStore::contents()
{
	if (!log_)
		return orbit::failed(ENODEV);
	return log_->contents();
}

} // namespace kv
