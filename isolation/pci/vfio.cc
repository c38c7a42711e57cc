// SPDX-License-Identifier: MIT
//
// See <orbit/pci.hpp>. By the device's own file and an iommufd, where the kernel has them, or by VFIO's container and group,
// which older kernels have too. Both work without root.
#include <orbit/pci.hpp>

#include "iommufd.h"

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <dirent.h>
#include <fcntl.h>
#include <linux/pci_regs.h>
#include <linux/vfio.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

namespace orbit::pci {

using isolation::refused;

namespace {

const std::size_t page = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));

std::string sysfs(const Address &address)
{
	return "/sys/bus/pci/devices/" + address.text();
}

// The last part of what a link leads to; empty if it is none.
std::string link_name(const std::string &path)
{
	char target[512];
	const ssize_t length = readlink(path.c_str(), target, sizeof(target));
	const std::string_view text(target, length > 0 ? static_cast<std::size_t>(length) : 0);

	return std::string(text.substr(text.rfind('/') + 1)); // npos + 1 is 0
}

// What a directory holds, where that is one thing; empty if it holds nothing.
std::string only_name_in(const std::string &path)
{
	std::string name;

	if (DIR *const open = opendir(path.c_str())) {
		while (const dirent *entry = readdir(open))
			if (entry->d_name[0] != '.')
				name = entry->d_name;
		closedir(open);
	}
	return name;
}

bool exists(const std::string &path)
{
	return access(path.c_str(), F_OK) == 0;
}

// VFIO's structs say their size first, and longer ones may come back.
template <class T> T question()
{
	T asked{};

	asked.argsz = sizeof(asked);
	return asked;
}

void close_fd(int &fd)
{
	if (fd >= 0)
		close(fd);
	fd = -1;
}

} // namespace

result<Address> Address::parse(std::string_view text)
{
	const auto number = [&](std::size_t digits, char end, unsigned most, auto &to) {
		unsigned value = 0;

		if (text.size() < digits)
			return false;
		const auto [past, error] = std::from_chars(text.data(), text.data() + digits, value, 16);
		if (error != std::errc() || past != text.data() + digits || value > most)
			return false;
		text.remove_prefix(digits);
		if (end) {
			if (text.empty() || text[0] != end)
				return false;
			text.remove_prefix(1);
		}
		to = static_cast<std::remove_reference_t<decltype(to)>>(value);
		return true;
	};
	Address address;

	if ((std::count(text.begin(), text.end(), ':') == 2 && !number(4, ':', 0xffff, address.domain)) ||
	    !number(2, ':', 0xff, address.bus) || !number(2, '.', 0x1f, address.device) ||
	    !number(1, '\0', 7, address.function) || !text.empty())
		return refused(-EINVAL, "a PCI device's address is like 0000:00:03.0");
	return address;
}

std::string Address::text() const
{
	char text[16];

	std::snprintf(text, sizeof(text), "%04x:%02x:%02x.%x", domain, bus, device, function);
	return text;
}

// Which interface the user wants, where the program leaves that open.
result<Vfio> Device::wanted(Vfio by)
{
	const char *const named = std::getenv("ORBIT_VFIO");

	if (by != Vfio::any || !named || !*named)
		return by;
	if (std::strcmp(named, "iommufd") == 0)
		return Vfio::iommufd;
	if (std::strcmp(named, "group") == 0)
		return Vfio::group;
	return refused(-EINVAL, "ORBIT_VFIO is iommufd or group, or not set");
}

result<std::unique_ptr<Device>> Device::open(std::string_view where, Vfio by)
{
	const result<Address> address = Address::parse(where);

	if (!address)
		return tl::unexpected(address.error());

	const result<Vfio> wanted = Device::wanted(by);

	if (!wanted)
		return tl::unexpected(wanted.error());

	const std::string path = sysfs(*address);

	if (!exists(path))
		return refused(-ENODEV, "there is no PCI device at this address");
	if (link_name(path + "/iommu_group").empty())
		return refused(-ENODEV, "the device is behind no IOMMU: turn it on in the firmware and the kernel (intel_iommu=on)");
	if (link_name(path + "/driver") != "vfio-pci")
		return refused(-ENXIO, "the device is not bound to vfio-pci: write that to its driver_override, unbind it from its "
				       "driver, and write its address to /sys/bus/pci/drivers_probe");

	// What is refused leaves nothing: each try is with an object of its own.
	std::unique_ptr<Device> device(new Device);
	result<void> had = {};

	device->address_ = *address;
	if (*wanted != Vfio::group)
		had = device->take_by_iommufd();
	if (*wanted == Vfio::group || (*wanted == Vfio::any && !had)) {
		device.reset(new Device);
		device->address_ = *address;
		// Where a kernel has one of them only, it is that one's error that counts.
		if (auto done = device->take_by_group(); done || had || done.error().code() != ENODEV || had.error().code() == ENODEV)
			had = done;
	}
	if (!had)
		return tl::unexpected(had.error());

	auto info = question<vfio_device_info>();
	auto config = question<vfio_region_info>();

	config.index = VFIO_PCI_CONFIG_REGION_INDEX;
	if (ioctl(device->fd_, VFIO_DEVICE_GET_INFO, &info) || !(info.flags & VFIO_DEVICE_FLAGS_PCI) ||
	    ioctl(device->fd_, VFIO_DEVICE_GET_REGION_INFO, &config))
		return refused(-EPROTO, "VFIO says nothing of the device's config space");
	device->resettable_ = info.flags & VFIO_DEVICE_FLAGS_RESET;
	device->config_offset_ = config.offset;
	device->config_bytes_ = config.size;

	for (const unsigned index : {VFIO_PCI_MSIX_IRQ_INDEX, VFIO_PCI_MSI_IRQ_INDEX}) {
		auto irq = question<vfio_irq_info>();

		irq.index = index;
		if (!ioctl(device->fd_, VFIO_DEVICE_GET_IRQ_INFO, &irq) && irq.count && (irq.flags & VFIO_IRQ_INFO_EVENTFD)) {
			device->vectors_ = irq.count;
			device->interrupt_index_ = index;
			break;
		}
	}

	device->wanted_ = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (device->wanted_ < 0)
		return refused(-errno, "there is no descriptor left");
	// Where the kernel does not tell of it nobody waits.
	(void)device->set_events(VFIO_PCI_REQ_IRQ_INDEX, {&device->wanted_, 1});

	const auto vendor = device->read_config(PCI_VENDOR_ID, 2), number = device->read_config(PCI_DEVICE_ID, 2),
		   kind = device->read_config(PCI_CLASS_REVISION, 4);

	if (!vendor || !number || !kind || *vendor == 0xffff)
		return refused(-EPROTO, "the device does not answer");
	device->identity_ = {.vendor = static_cast<std::uint16_t>(*vendor),
			     .device = static_cast<std::uint16_t>(*number),
			     .class_code = *kind >> 8,
			     .revision = static_cast<std::uint8_t>(*kind)};

	// Whatever it was used for before.
	if (const auto quiet = device->silence(); !quiet && quiet.error().code() != EIO)
		return tl::unexpected(quiet.error());
	return device;
}

result<void> Device::take_by_group()
{
	const std::string group = link_name(sysfs(address_) + "/iommu_group");

	group_ = ::open(("/dev/vfio/" + group).c_str(), O_RDWR | O_CLOEXEC);
	if (group_ < 0) {
		if (errno == EBUSY)
			return refused(-EBUSY, "another process has the device or its IOMMU group open");
		if (errno == EACCES || errno == EPERM)
			return refused(-EACCES, "neither the file of the device's IOMMU group in /dev/vfio is this user's, nor the "
						"device's own in /dev/vfio/devices together with /dev/iommu");
		return refused(errno == ENOENT ? -ENODEV : -errno, "the file of the device's IOMMU group in /dev/vfio");
	}

	auto status = question<vfio_group_status>();

	if (ioctl(group_, VFIO_GROUP_GET_STATUS, &status))
		return refused(-errno, "the state of the device's IOMMU group");
	if (!(status.flags & VFIO_GROUP_FLAGS_VIABLE))
		return refused(-ENXIO, "another device of the same IOMMU group is bound to a driver that is not VFIO's");

	iommu_ = ::open("/dev/vfio/vfio", O_RDWR | O_CLOEXEC);
	if (iommu_ < 0)
		return refused(errno == ENOENT ? -ENODEV : -errno, "/dev/vfio/vfio");
	if (ioctl(iommu_, VFIO_GET_API_VERSION) != VFIO_API_VERSION ||
	    ioctl(iommu_, VFIO_CHECK_EXTENSION, VFIO_TYPE1v2_IOMMU) != 1)
		return refused(-ENODEV, "the kernel's VFIO has no type 1 IOMMU");
	if (ioctl(group_, VFIO_GROUP_SET_CONTAINER, &iommu_) || ioctl(iommu_, VFIO_SET_IOMMU, VFIO_TYPE1v2_IOMMU))
		// Without interrupt remapping a device could raise any interrupt, and VFIO says EPERM.
		return refused(-errno, "the device's IOMMU group cannot be given an address space");

	fd_ = ioctl(group_, VFIO_GROUP_GET_DEVICE_FD, address_.text().c_str());
	if (fd_ < 0)
		return refused(-errno, "the device cannot be had of its IOMMU group");
	fcntl(fd_, F_SETFD, FD_CLOEXEC);
	return {};
}

// Who has the device's descriptor can put the device into another address space of the same iommufd, or into none. So each device
// has an iommufd of its own, with one address space; and only this process has that descriptor, and can map memory.
result<void> Device::take_by_iommufd()
{
	const std::string name = only_name_in(sysfs(address_) + "/vfio-dev");

	if (name.empty() || !exists("/dev/iommu"))
		return refused(-ENODEV, "the kernel's VFIO has no files of devices, or there is no /dev/iommu");
	by_iommufd_ = true;
	fd_ = ::open(("/dev/vfio/devices/" + name).c_str(), O_RDWR | O_CLOEXEC);
	if (fd_ >= 0)
		iommu_ = ::open("/dev/iommu", O_RDWR | O_CLOEXEC);
	if (iommu_ < 0) {
		if (errno == EACCES || errno == EPERM)
			return refused(-EACCES, "the device's file in /dev/vfio/devices, or /dev/iommu, is not this user's");
		return refused(errno == ENOENT ? -ENODEV : -errno, "the device's file in /dev/vfio/devices, or /dev/iommu");
	}

	auto bind = question<uapi::DeviceBind>();

	bind.iommufd = iommu_;
	if (ioctl(fd_, uapi::device_bind, &bind)) {
		// It says EINVAL of a device that is bound already.
		if (errno == EBUSY || errno == EINVAL)
			return refused(-EBUSY, "another process has the device or its IOMMU group open, or another device of the group "
					       "is bound to a driver that is not VFIO's");
		// Without interrupt remapping a device could raise any interrupt, and VFIO says EPERM.
		return refused(-errno, "the device cannot be given an address space");
	}

	uapi::IoasAlloc made{.size = sizeof(made), .flags = 0, .id = 0};

	if (ioctl(iommu_, uapi::ioas_alloc, &made))
		return refused(-errno, "there is no address space for the device");
	space_ = made.id;
	return attach();
}

// By an iommufd: into its address space, whatever the driver has done. To be there already is no error.
result<void> Device::attach()
{
	if (!by_iommufd_)
		return {};

	auto attach = question<uapi::DeviceAttach>();

	attach.table_id = space_;
	if (ioctl(fd_, uapi::device_attach, &attach))
		return refused(-errno, "the device cannot be put into its address space");
	return {};
}

// 0, or an errno value.
int Device::map(const DmaRange &range)
{
	if (by_iommufd_) {
		uapi::IoasMap map{.size = sizeof(map),
				  .flags = uapi::map_fixed_iova | uapi::map_readable | (range.writable ? uapi::map_writable : 0u),
				  .id = space_,
				  .reserved = 0,
				  .memory = reinterpret_cast<std::uintptr_t>(range.memory),
				  .bytes = range.bytes,
				  .iova = range.iova};

		return ioctl(iommu_, uapi::ioas_map, &map) ? errno : 0;
	}

	auto map = question<vfio_iommu_type1_dma_map>();

	map.flags = VFIO_DMA_MAP_FLAG_READ | (range.writable ? VFIO_DMA_MAP_FLAG_WRITE : 0u);
	map.vaddr = reinterpret_cast<std::uintptr_t>(range.memory);
	map.iova = range.iova;
	map.size = range.bytes;
	return ioctl(iommu_, VFIO_IOMMU_MAP_DMA, &map) ? errno : 0;
}

// Likewise. When it has returned the IOMMU has forgotten the translations, and what was under way has arrived.
int Device::unmap(const DmaRange &range)
{
	if (by_iommufd_) {
		uapi::IoasUnmap unmap{.size = sizeof(unmap), .id = space_, .iova = range.iova, .bytes = range.bytes};

		return ioctl(iommu_, uapi::ioas_unmap, &unmap) ? errno : 0;
	}

	auto unmap = question<vfio_iommu_type1_dma_unmap>();

	unmap.iova = range.iova;
	unmap.size = range.bytes;
	return ioctl(iommu_, VFIO_IOMMU_UNMAP_DMA, &unmap) ? errno : 0;
}

Device::~Device()
{
	if (fd_ >= 0)
		silence();
	close_fd(fd_);
	close_fd(wanted_);
	close_fd(group_);
	close_fd(iommu_);
}

result<std::uint32_t> Device::read_config(unsigned offset, unsigned bytes) const
{
	unsigned char text[4] = {};

	if ((bytes != 1 && bytes != 2 && bytes != 4) || offset % bytes || offset + std::uint64_t{bytes} > config_bytes_)
		return refused(-ERANGE, "there is no such register in config space");
	if (pread(fd_, text, bytes, static_cast<off_t>(config_offset_ + offset)) != static_cast<ssize_t>(bytes))
		return refused(errno == ENODEV ? -ENODEV : -EPROTO, "config space cannot be read");
	return text[0] | std::uint32_t{text[1]} << 8 | std::uint32_t{text[2]} << 16 | std::uint32_t{text[3]} << 24;
}

result<void> Device::write_config(unsigned offset, unsigned bytes, std::uint32_t value)
{
	const unsigned char text[4] = {static_cast<unsigned char>(value), static_cast<unsigned char>(value >> 8),
				       static_cast<unsigned char>(value >> 16), static_cast<unsigned char>(value >> 24)};

	if (pwrite(fd_, text, bytes, static_cast<off_t>(config_offset_ + offset)) != static_cast<ssize_t>(bytes))
		return refused(-EPROTO, "config space cannot be written");
	return {};
}

result<void> Device::set_bus_master(bool may)
{
	const auto command = read_config(PCI_COMMAND, 2);

	if (!command)
		return tl::unexpected(command.error());
	if (*command == 0xffff)
		return refused(-ENODEV, "the device has been taken away, or has no power");

	const std::uint32_t wanted = may ? *command | PCI_COMMAND_MASTER | PCI_COMMAND_MEMORY :
					   *command & ~std::uint32_t{PCI_COMMAND_MASTER};

	if (const auto done = write_config(PCI_COMMAND, 2, wanted); !done)
		return done;
	// A read flushes the write: when it returns the device has had it.
	const auto now = read_config(PCI_COMMAND, 2);

	if (!now || !(*now & PCI_COMMAND_MASTER) == may)
		return refused(-EPROTO, "the device's command register does not keep what is written to it");
	return {};
}

result<void> Device::map_dma(const DmaRange &range)
{
	if (!range.bytes || range.bytes % page || range.iova % page || reinterpret_cast<std::uintptr_t>(range.memory) % page ||
	    range.iova + range.bytes < range.iova)
		return refused(-EINVAL, "a device reaches whole pages");

	const std::scoped_lock locked(lock_);

	ranges_.reserve(ranges_.size() + 1); // so that nothing fails after the device has it
	switch (const int error = map(range)) {
	case 0: break;
	case EEXIST: return refused(-EEXIST, "the device has other memory at this address");
	case ENOMEM: return refused(-ENOMEM, "memory for DMA is pinned, and RLIMIT_MEMLOCK does not allow so much");
	case EINVAL:
	case EOVERFLOW: return refused(-ERANGE, "the IOMMU does not translate this address");
	default: return refused(-error, "the IOMMU did not take the memory");
	}
	ranges_.push_back(range);
	return {};
}

result<void> Device::unmap_dma(std::uint64_t iova)
{
	const std::scoped_lock locked(lock_);
	const auto range = std::find_if(ranges_.begin(), ranges_.end(), [iova](const DmaRange &r) { return r.iova == iova; });

	if (range == ranges_.end())
		return refused(-ENOENT, "the device has no memory at this address");
	if (const int error = unmap(*range))
		return refused(-error, "the IOMMU did not give the memory back");
	ranges_.erase(range);
	return {};
}

result<void> Device::enable()
{
	const std::scoped_lock locked(lock_);

	if (const auto done = attach(); !done)
		return done;
	return set_bus_master(true);
}

// With the lock.
result<void> Device::cut_off_locked()
{
	// In this order. What the device still sends after the first is at most what was under way; the second ends its
	// translations, and returns when the IOMMU has forgotten them and what was under way has arrived. So from there on
	// no memory changes.
	auto done = set_bus_master(false);

	for (auto range = ranges_.begin(); range != ranges_.end();) {
		if (unmap(*range)) {
			done = refused(-ENOTRECOVERABLE, "the IOMMU did not give memory back");
			range++;
		} else {
			range = ranges_.erase(range);
		}
	}

	// All kinds, for a driver may have turned others on. It fails where there are none.
	for (const unsigned index : {VFIO_PCI_MSIX_IRQ_INDEX, VFIO_PCI_MSI_IRQ_INDEX, VFIO_PCI_INTX_IRQ_INDEX})
		(void)set_events(index, {});
	return done;
}

result<void> Device::cut_off()
{
	const std::scoped_lock locked(lock_);

	return cut_off_locked();
}

result<void> Device::silence()
{
	const std::scoped_lock locked(lock_);
	const auto cut = cut_off_locked();

	if (!cut && cut.error().code() == ENOTRECOVERABLE)
		return cut;
	// The reset is for the device's own sake. That it fails says no more than that the device is broken.
	if (!cut || !resettable_ || ioctl(fd_, VFIO_DEVICE_RESET))
		return refused(-EIO, "the device cannot be reset, but is cut off from all memory");
	return set_bus_master(false); // a reset restores what was there before
}

result<std::uint64_t> Device::register_offset(unsigned bar, std::size_t offset) const
{
	auto region = question<vfio_region_info>();

	region.index = VFIO_PCI_BAR0_REGION_INDEX + bar;
	if (bar > 5 || offset % 4 || ioctl(fd_, VFIO_DEVICE_GET_REGION_INFO, &region) || offset >= region.size)
		return refused(-ERANGE, "the device has no register there");
	return region.offset + offset;
}

result<std::uint32_t> Device::read_register(unsigned bar, std::size_t offset) const
{
	const auto at = register_offset(bar, offset);
	std::uint32_t value = 0;

	if (!at)
		return tl::unexpected(at.error());
	if (pread(fd_, &value, sizeof(value), static_cast<off_t>(*at)) != static_cast<ssize_t>(sizeof(value)))
		return refused(-EIO, "the device's registers cannot be read");
	return value;
}

result<void> Device::write_register(unsigned bar, std::size_t offset, std::uint32_t value)
{
	const auto at = register_offset(bar, offset);

	if (!at)
		return tl::unexpected(at.error());
	if (pwrite(fd_, &value, sizeof(value), static_cast<off_t>(*at)) != static_cast<ssize_t>(sizeof(value)))
		return refused(-EIO, "the device's registers cannot be written");
	return {};
}

result<void> Device::set_interrupts(std::span<const int> eventfds)
{
	if (eventfds.size() > vectors_)
		return refused(-ENOSPC, "the device has not so many interrupts");
	// To turn off what is off already is no error.
	if (vectors_ && !set_events(interrupt_index_, eventfds) && !eventfds.empty())
		return refused(-errno, "the device's interrupts");
	return {};
}

bool Device::set_events(unsigned index, std::span<const int> eventfds) const
{
	std::vector<std::byte> text(sizeof(vfio_irq_set) + eventfds.size_bytes());
	vfio_irq_set set{};

	set.argsz = static_cast<std::uint32_t>(text.size());
	set.flags = VFIO_IRQ_SET_ACTION_TRIGGER | (eventfds.empty() ? VFIO_IRQ_SET_DATA_NONE : VFIO_IRQ_SET_DATA_EVENTFD);
	set.index = index;
	set.count = static_cast<std::uint32_t>(eventfds.size());
	std::memcpy(text.data(), &set, sizeof(set));
	if (!eventfds.empty())
		std::memcpy(text.data() + sizeof(set), eventfds.data(), eventfds.size_bytes());
	return ioctl(fd_, VFIO_DEVICE_SET_IRQS, text.data()) == 0;
}

result<Bar> Bar::map(int device, unsigned number)
{
	auto region = question<vfio_region_info>();

	region.index = VFIO_PCI_BAR0_REGION_INDEX + number;
	if (number > 5 || ioctl(device, VFIO_DEVICE_GET_REGION_INFO, &region) || !region.size)
		return refused(-ENOENT, "the device has no registers there");
	if (!(region.flags & VFIO_REGION_INFO_FLAG_MMAP))
		return refused(-EPERM, "the kernel does not let these registers be mapped");

	void *const memory = mmap(nullptr, region.size, PROT_READ | PROT_WRITE, MAP_SHARED, device,
				  static_cast<off_t>(region.offset));

	if (memory == MAP_FAILED)
		return refused(-errno, "the device's registers could not be mapped");
	return Bar(memory, region.size);
}

Bar::Bar(Bar &&other) noexcept
	: memory_(std::exchange(other.memory_, nullptr)), bytes_(std::exchange(other.bytes_, 0))
{
}

Bar &Bar::operator=(Bar &&other) noexcept
{
	std::swap(memory_, other.memory_);
	std::swap(bytes_, other.bytes_);
	return *this;
}

Bar::~Bar()
{
	if (memory_)
		munmap(memory_, bytes_);
}

} // namespace orbit::pci
