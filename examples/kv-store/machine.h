// SPDX-License-Identifier: MIT
//
// What Linux's own driver makes of a device.
#pragma once

#include "log.h"

#include <cstdint>
#include <memory>
#include <string>

namespace kv {

// A namespace of an NVMe controller by Linux's own driver; it may only be read. Nothing if it does not come.
std::unique_ptr<Blocks> linux_blocks(const std::string &address, const Area &area);

} // namespace kv
