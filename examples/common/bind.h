// SPDX-License-Identifier: MIT
//
// For examples that drive devices: which driver of Linux has a device. Needs root.
#ifndef EXAMPLES_COMMON_BIND_H
#define EXAMPLES_COMMON_BIND_H

#include <chrono>
#include <filesystem>
#include <fstream>
#include <string>
#include <system_error>
#include <thread>

namespace example {

/// Waits for what is about to be so; false after 30 seconds.
template <class IsSo> bool wait_until(IsSo is_so)
{
	for (int tries = 0; tries < 3000; tries++) {
		if (is_so())
			return true;
		std::this_thread::sleep_for(std::chrono::milliseconds(10));
	}
	return false;
}

/// Takes a PCI device from its driver, and gives it to another one. False: the kernel does not.
inline bool give(const std::string &address, const std::string &driver)
{
	namespace fs = std::filesystem;
	const fs::path pci = "/sys/bus/pci", device = pci / "devices" / address;
	const auto write = [](const fs::path &path, const std::string &text) { return static_cast<bool>(std::ofstream(path) << text << std::flush); };
	const auto current = [&]() -> std::string {
		std::error_code error;

		return fs::read_symlink(device / "driver", error).filename();
	};

	if (current() == driver)
		return true;
	if (!current().empty() && !write(device / "driver/unbind", address))
		return false;
	return write(device / "driver_override", driver) && write(pci / "drivers_probe", address) &&
	       wait_until([&] { return current() == driver; });
}

} // namespace example

#endif
