// SPDX-License-Identifier: MIT
//
// What runs in the store's domain: the log on a device that is another domain's.
#pragma once

#include "store.orbit.hpp"

#include "log.h"

#include <memory>
#include <optional>

namespace kv {

class LogStore final : public Store {
public:
	explicit LogStore(orbit::isolation::Endpoint &endpoint) : endpoint_(endpoint) {}

	orbit::result<Contents> open(std::shared_ptr<orbit::block::Device> device, const Area &area) override;
	orbit::result<void> put(const orbit::rref<Group> &group) override;
	orbit::result<Value> get(const Key &key) override;
	orbit::result<Contents> contents() override;

private:
	class DeviceBlocks;

	orbit::isolation::Endpoint &endpoint_;
	std::shared_ptr<DeviceBlocks> blocks_;
	std::optional<Log> log_;
};

} // namespace kv
