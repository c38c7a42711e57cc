// SPDX-License-Identifier: MIT
//
// For tests of drivers, in the guest that tests/drivers.py boots: the devices in it, and Linux's own drivers of them. The
// guest is this program's alone, so it binds and unbinds as it likes.
#ifndef ORBIT_TESTS_DRIVERS_MACHINE_H
#define ORBIT_TESTS_DRIVERS_MACHINE_H

#include <orbit/interface.hpp>
#include <orbit/pci.hpp>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <dirent.h>
#include <fcntl.h>
#include <functional>
#include <memory>
#include <linux/pci_regs.h>
#include <optional>
#include <random>
#include <span>
#include <string>
#include <string_view>
#include <sys/mman.h>
#include <thread>
#include <unistd.h>
#include <vector>

namespace machine {

template <class T> int error_of(const orbit::result<T> &done)
{
	return done ? 0 : done.error().code();
}

template <class T> std::string words_of(const orbit::result<T> &done)
{
	return done ? "" : done.error().message();
}

inline std::vector<std::string> names_in(const std::string &directory)
{
	std::vector<std::string> names;

	if (DIR *const open = opendir(directory.c_str())) {
		while (const dirent *entry = readdir(open))
			if (entry->d_name[0] != '.')
				names.emplace_back(entry->d_name);
		closedir(open);
	}
	std::sort(names.begin(), names.end());
	return names;
}

inline std::string read_text(const std::string &path)
{
	char text[256];
	const int fd = open(path.c_str(), O_RDONLY);
	const ssize_t n = fd < 0 ? 0 : read(fd, text, sizeof(text));

	if (fd >= 0)
		close(fd);
	while (n > 0 && text[n - 1] == '\n')
		return {text, static_cast<std::size_t>(n - 1)};
	return {text, static_cast<std::size_t>(std::max<ssize_t>(n, 0))};
}

inline bool write_text(const std::string &path, const std::string &text)
{
	const int fd = open(path.c_str(), O_WRONLY);
	const bool done = fd >= 0 && write(fd, text.data(), text.size()) == static_cast<ssize_t>(text.size());

	if (fd >= 0)
		close(fd);
	return done;
}

/// Waits for what is about to be so, at most for a time that says that it will never be.
inline bool wait_until(const std::function<bool()> &is_so)
{
	for (int tries = 0; tries < 3000; tries++) {
		if (is_so())
			return true;
		std::this_thread::sleep_for(std::chrono::milliseconds(10));
	}
	return false;
}

inline const std::string pci = "/sys/bus/pci/";

/// The addresses of all devices of a class, 24 bits in hexadecimal digits.
inline std::vector<std::string> devices_of(const std::string &class_code)
{
	std::vector<std::string> found;

	for (const std::string &address : names_in(pci + "devices"))
		if (read_text(pci + "devices/" + address + "/class") == "0x" + class_code)
			found.push_back(address);
	return found;
}

/// The address of the first NVMe controller; empty if there is none.
inline std::string address()
{
	const auto found = devices_of("010802");

	return found.empty() ? "" : found[0];
}

/// The address of a network card for which no driver is here (an Intel 82574); empty if there is none.
inline std::string foreign_device()
{
	for (const std::string &address : devices_of("020000"))
		if (read_text(pci + "devices/" + address + "/device") == "0x10d3")
			return address;
	return "";
}

inline std::string driver_of(const std::string &address)
{
	char target[256];
	const ssize_t n = readlink((pci + "devices/" + address + "/driver").c_str(), target, sizeof(target));
	const std::string path(target, static_cast<std::size_t>(std::max<ssize_t>(n, 0)));

	return path.substr(path.rfind('/') + 1);
}

/// Takes a device from its driver, and gives it to another one.
inline bool give(const std::string &address, const std::string &driver)
{
	const std::string device = pci + "devices/" + address;

	if (driver_of(address) == driver)
		return true;
	if (!driver_of(address).empty() && !write_text(device + "/driver/unbind", address))
		return false;
	return write_text(device + "/driver_override", driver) && write_text(pci + "drivers_probe", address) &&
	       wait_until([&] { return driver_of(address) == driver; });
}

/// Has a device's registers answer no more, as if it had been pulled out, or again. Its driver is not told.
inline bool set_present(const std::string &address, bool present)
{
	const int fd = open((pci + "devices/" + address + "/config").c_str(), O_RDWR);
	std::uint16_t command = 0;
	bool done = fd >= 0 && pread(fd, &command, sizeof(command), PCI_COMMAND) == sizeof(command);

	command = static_cast<std::uint16_t>(present ? command | PCI_COMMAND_MEMORY : command & ~PCI_COMMAND_MEMORY);
	done = done && pwrite(fd, &command, sizeof(command), PCI_COMMAND) == sizeof(command);
	if (fd >= 0)
		close(fd);
	return done;
}

/// Faults of the IOMMU that the kernel has told of since it booted.
inline unsigned iommu_faults()
{
	const int log = open("/dev/kmsg", O_RDONLY | O_NONBLOCK);
	unsigned faults = 0;
	char line[8192];
	ssize_t n;

	while (log >= 0 && ((n = read(log, line, sizeof(line))) > 0 || errno == EPIPE))
		if (n > 0)
			faults += std::string_view(line, static_cast<std::size_t>(n)).find("DMAR: [DMA") != std::string_view::npos;
	if (log >= 0)
		close(log);
	return faults;
}

/// A device that may do DMA, with its registers.
struct Opened {
	std::unique_ptr<orbit::pci::Device> device;
	std::optional<orbit::pci::Bar> bar;
};

/// Opens a device that is bound to vfio-pci, lets it reach memory, and has its interrupts counted.
inline orbit::result<Opened> open_device(const std::string &address, std::span<const orbit::pci::DmaRange> ranges, std::span<const int> events)
{
	Opened opened;
	auto device = orbit::pci::Device::open(address);

	if (!device)
		return tl::unexpected(device.error());
	opened.device = std::move(*device);
	for (const orbit::pci::DmaRange &range : ranges)
		if (auto mapped = opened.device->map_dma(range); !mapped)
			return tl::unexpected(mapped.error());
	if (auto on = opened.device->enable(); !on)
		return tl::unexpected(on.error());
	if (auto set = opened.device->set_interrupts(events); !set)
		return tl::unexpected(set.error());
	auto bar = orbit::pci::Bar::map(opened.device->descriptor(), 0);
	if (!bar)
		return tl::unexpected(bar.error());
	opened.bar.emplace(std::move(*bar));
	return opened;
}

/// The file of a controller's namespace, by Linux's driver; empty if it does not come.
inline std::string linux_namespace(const std::string &address, std::uint32_t id)
{
	std::string found;

	wait_until([&] {
		for (const std::string &name : names_in("/sys/block")) {
			char target[512];
			const ssize_t n = readlink(("/sys/block/" + name).c_str(), target, sizeof(target));
			const std::string path(target, static_cast<std::size_t>(std::max<ssize_t>(n, 0)));

			if (path.find(address) != path.npos && read_text("/sys/block/" + name + "/nsid") == std::to_string(id) &&
			    access(("/dev/" + name).c_str(), R_OK) == 0)
				found = "/dev/" + name;
		}
		return !found.empty();
	});
	return found;
}

/// What is in a block: the same for the same numbers only.
inline void fill(std::span<std::byte> block, std::uint32_t nsid, std::uint64_t lba, std::uint64_t version)
{
	std::uint64_t value = (nsid * 0x9e3779b97f4a7c15u) ^ (lba * 0xbf58476d1ce4e5b9u) ^ (version * 0x94d049bb133111ebu);

	for (std::size_t i = 0; i + sizeof(value) <= block.size(); i += sizeof(value)) {
		value = value * 6364136223846793005u + 1442695040888963407u;
		std::memcpy(block.data() + i, &value, sizeof(value));
	}
}

inline bool holds(std::span<const std::byte> block, std::uint32_t nsid, std::uint64_t lba, std::uint64_t version)
{
	std::vector<std::byte> wanted(block.size());

	fill(wanted, nsid, lba, version);
	return std::memcmp(block.data(), wanted.data(), block.size()) == 0;
}

/// Pages, shared as a zone's are.
class Pages {
public:
	explicit Pages(std::size_t bytes) : bytes_(bytes)
	{
		data_ = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
		if (data_ == MAP_FAILED)
			abort();
	}
	~Pages() { munmap(data_, bytes_); }
	Pages(const Pages &) = delete;
	Pages &operator=(const Pages &) = delete;

	std::span<std::byte> span() const { return {static_cast<std::byte *>(data_), bytes_}; }

private:
	void *data_;
	std::size_t bytes_;
};

} // namespace machine

#endif
