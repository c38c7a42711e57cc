// SPDX-License-Identifier: MIT
#pragma once

#include "block.idl.hpp"

#include <cerrno>
#include <memory>
#include <mutex>

namespace kv {

namespace block = orbit::block;

// The device, for one process of the store. When that is dead nothing it has asked for may still happen.
class Gate final : public block::Device {
public:
	explicit Gate(std::shared_ptr<block::Device> to) : to_(std::move(to)) {}
	// Waits for what is under way.
	void close()
	{
		const std::scoped_lock locked(mutex_);
		to_ = nullptr;
	}

	orbit::result<block::Limits> limits() override
	{
		return through<block::Limits>([](block::Device &to) { return to.limits(); });
	}
	orbit::result<std::vector<block::Space>> spaces() override
	{
		return through<std::vector<block::Space>>([](block::Device &to) { return to.spaces(); });
	}
	orbit::result<orbit::rref<std::byte[]>> read(std::uint32_t space, std::uint64_t lba, std::uint32_t blocks,
						     orbit::rref<std::byte[]> into) override
	{
		return through<orbit::rref<std::byte[]>>(
			[&](block::Device &to) { return to.read(space, lba, blocks, std::move(into)); });
	}
	orbit::result<void> write(std::uint32_t space, std::uint64_t lba, std::uint32_t blocks,
				  const orbit::rref<std::byte[]> &from) override
	{
		return through<void>([&](block::Device &to) { return to.write(space, lba, blocks, from); });
	}
	orbit::result<void> flush(std::uint32_t space) override
	{
		return through<void>([&](block::Device &to) { return to.flush(space); });
	}
	orbit::result<std::vector<block::Outcome>> exchange(std::span<const block::Request>, std::uint32_t) override
	{
		return orbit::failed(EOPNOTSUPP); // its buffers would be the main program's
	}

private:
	template <class T, class Call> orbit::result<T> through(Call &&call)
	{
		const std::scoped_lock locked(mutex_);
		if (!to_)
			return orbit::failed(EHOSTDOWN);
		return call(*to_);
	}

	std::mutex mutex_;
	std::shared_ptr<block::Device> to_;
};

} // namespace kv
