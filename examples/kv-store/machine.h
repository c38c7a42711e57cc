// SPDX-License-Identifier: MIT
//
// Which driver of Linux has a device, and what it makes of it.
#pragma once

#include "log.h"

#include <cstdint>
#include <memory>
#include <string>

namespace kv {

// Takes a PCI device from its driver, and gives it to another one. False: the kernel does not.
bool give(const std::string &address, const std::string &driver);

// A namespace of an NVMe controller by Linux's own driver; it may only be read. Nothing if it does not come.
std::unique_ptr<Blocks> linux_blocks(const std::string &address, const Area &area);

} // namespace kv
