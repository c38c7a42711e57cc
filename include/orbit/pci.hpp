// SPDX-License-Identifier: MIT
//
// PCI devices for drivers in user space, by VFIO behind an IOMMU.
//
// Two sides share a device. The supervisor's, Device, says what memory the device reaches, and can silence it without
// the driver's help. The driver's, Bar, reads and writes registers; in a domain it is made of a descriptor that the
// domain keeps (DomainOptions::keep_fds).
//
//	auto device = orbit::pci::Device::open("0000:00:03.0");		// bound to vfio-pci by its administrator
//	orbit::require((*device)->map_dma({memory, bytes, 0x10000}));	// the device finds it at 0x10000
//	orbit::require((*device)->enable());				// from now on it may do DMA
//	...
//	orbit::require((*device)->silence());				// from now on it does none
//
// Nothing here binds a device to a driver or takes it from one. Works without root, for a user who may open the device's file
// /dev/vfio/devices/vfioNUMBER and /dev/iommu, or the group's file /dev/vfio/NUMBER: see Vfio. Memory for DMA is pinned, and
// counts against RLIMIT_MEMLOCK.
//
// Errors have words for people. ENODEV: there is no such device, it is in no IOMMU group, or the kernel has no VFIO;
// ENXIO: it or another of its group is bound to another driver; EACCES: the files are not this user's; EBUSY:
// another process has the device or its group open; EPROTO: the device's config space or the kernel's answers make no sense.
//
// A Device is for one thread at a time, but for cut_off() and silence(), which any may call at any time.
#ifndef ORBIT_PCI_HPP
#define ORBIT_PCI_HPP

#include <orbit/interface.hpp>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace orbit::pci {

/// Where a device is.
struct Address {
	std::uint16_t domain = 0;
	std::uint8_t bus = 0;
	std::uint8_t device = 0;
	std::uint8_t function = 0;

	/// As lspci -D and sysfs write it, "0000:00:03.0"; the domain may be left out. EINVAL.
	static result<Address> parse(std::string_view text);
	std::string text() const;

	friend bool operator==(const Address &, const Address &) = default;
};

/// What a device says that it is.
struct Identity {
	std::uint16_t vendor = 0;
	std::uint16_t device = 0;
	std::uint32_t class_code = 0; ///< Base class, subclass and programming interface, 24 bits.
	std::uint8_t revision = 0;
};

/// Memory that a device may reach.
struct DmaRange {
	void *memory = nullptr;  ///< Page-aligned. It must stay mapped in this process until it is unmapped here.
	std::size_t bytes = 0;   ///< Whole pages.
	std::uint64_t iova = 0;  ///< The device's address of it.
	bool writable = true;    ///< Whether the device may write, or only read.
};

/// The kernel's interface to a device and its IOMMU. All promises hold by either.
enum class Vfio : std::uint8_t {
	any,	 ///< What $ORBIT_VFIO says, "iommufd" or "group"; without it an iommufd, and where that cannot be had the group.
	iommufd, ///< The device's own file and an iommufd, since Linux 6.6. ENODEV: the kernel has not got these.
	group,	 ///< The file of its IOMMU group and a container. What is pinned counts for the process, not for the user.
};

/// A device, as the supervisor has it: open, in an address space of its own, at first with no memory in it.
class Device {
public:
	/// EINVAL: that is no address, or $ORBIT_VFIO no interface; others above. What is refused has changed nothing.
	static result<std::unique_ptr<Device>> open(std::string_view address, Vfio by = Vfio::any);

	Device(const Device &) = delete;
	Device &operator=(const Device &) = delete;
	/// Silences it.
	~Device();

	const Address &address() const noexcept { return address_; }
	const Identity &identity() const noexcept { return identity_; }
	/// By what it is open: never `any`.
	Vfio interface() const noexcept { return by_iommufd_ ? Vfio::iommufd : Vfio::group; }

	/// Lets the device reach memory. EINVAL: not whole pages, or none; EEXIST: there is something at that IOVA; ENOMEM:
	/// RLIMIT_MEMLOCK; ERANGE: the IOMMU has no such address.
	result<void> map_dma(const DmaRange &range);
	/// Takes it away. When it returns the device does not reach it any more. ENOENT.
	result<void> unmap_dma(std::uint64_t iova);

	/// Lets the device do DMA and send interrupts. ENODEV: it has been taken away.
	result<void> enable();

	/// Cuts the device off from all memory, whatever state it or its driver is in: it may not be a bus master any more,
	/// and reaches no memory. Then none that was mapped for DMA changes by it. But what it was doing it does still, and
	/// it would go on if it was enabled: it is to be brought to rest before. ENOTRECOVERABLE: the IOMMU did not take
	/// memory away from it; EPROTO or ENODEV: it cannot be told not to be a bus master, and reaches no memory all the same.
	result<void> cut_off();
	/// Cuts the device off, and resets it if it can be: that takes 100 ms or more. Then it can be mapped and enabled anew.
	/// If the reset fails (EIO) it is cut off all the same. ENOTRECOVERABLE as above.
	result<void> silence();

	/// Has the device's interrupts, MSI-X vectors or, if it has none, MSI, counted by event descriptors, from vector 0
	/// on; none: off. ENOSPC: it has not so many.
	result<void> set_interrupts(std::span<const int> eventfds);
	unsigned interrupts() const noexcept { return vectors_; }

	/// Readable when somebody wants the device back: to unbind it, or to take it out. Who does that waits until this
	/// object is destroyed. It belongs to this object.
	int wanted_back() const noexcept { return wanted_; }

	/// A register of config space of 1, 2 or 4 bytes, at a multiple of its size. ERANGE.
	result<std::uint32_t> read_config(unsigned offset, unsigned bytes) const;

	/// A register of 4 bytes of base address range `bar`, by the kernel: unlike one of a Bar it can be read and written
	/// whatever a driver has done to the device, or is doing. ERANGE; EIO: the device does not decode its memory.
	result<std::uint32_t> read_register(unsigned bar, std::size_t offset) const;
	result<void> write_register(unsigned bar, std::size_t offset, std::uint32_t value);

	/// For tests of what becomes of a device that cannot be reset: has silence() find that.
	void forbid_reset_for_test() noexcept { resettable_ = false; }

	/// For a driver in a domain to keep, see Bar. It belongs to this object. It gives no way to other memory; by an iommufd a
	/// driver can take its device out of the address space, until enable().
	int descriptor() const noexcept { return fd_; }

private:
	Device() = default;
	static result<Vfio> wanted(Vfio by);
	result<void> take_by_group();
	result<void> take_by_iommufd();
	result<void> attach();
	int map(const DmaRange &range);
	int unmap(const DmaRange &range);
	result<void> write_config(unsigned offset, unsigned bytes, std::uint32_t value);
	result<void> set_bus_master(bool may);
	result<void> cut_off_locked();
	result<std::uint64_t> register_offset(unsigned bar, std::size_t offset) const;
	bool set_events(unsigned index, std::span<const int> eventfds) const;

	Address address_;
	Identity identity_;
	bool by_iommufd_ = false;
	int iommu_ = -1;	   // a container, or an iommufd
	std::uint32_t space_ = 0;  // of an iommufd
	int group_ = -1;
	int fd_ = -1;
	int wanted_ = -1;
	std::uint64_t config_offset_ = 0; // in the device's file
	std::uint64_t config_bytes_ = 0;
	unsigned vectors_ = 0;
	unsigned interrupt_index_ = 0;    // VFIO's
	bool resettable_ = false;
	std::mutex lock_;                 // of what follows
	std::vector<DmaRange> ranges_;
};

/// A device's registers: one of its base address ranges, mapped.
///
/// Reads and writes are single accesses of that size, in program order with one another. Memory that the device is to
/// see is written before a register is: write() has the barrier for that, and read() the one for what comes after.
class Bar {
public:
	/// Maps base address register `number` of a device. ENOENT: it has no such memory; EPERM: it cannot be mapped.
	static result<Bar> map(int device, unsigned number);

	Bar(Bar &&other) noexcept;
	Bar &operator=(Bar &&other) noexcept;
	~Bar();

	std::size_t size() const noexcept { return bytes_; }

	/// The offset is a multiple of the size, and within size().
	template <class T> T read(std::size_t offset) const noexcept
	{
		const T value = *at<T>(offset);

		std::atomic_thread_fence(std::memory_order_acquire);
		return value;
	}
	template <class T> void write(std::size_t offset, T value) const noexcept
	{
		// Stores to ordinary memory are seen by the device before this one.
		std::atomic_thread_fence(std::memory_order_release);
		*at<T>(offset) = value;
	}

private:
	Bar(void *memory, std::size_t bytes) noexcept : memory_(memory), bytes_(bytes) {}
	template <class T> volatile T *at(std::size_t offset) const noexcept
	{
		static_assert(std::is_unsigned_v<T> && sizeof(T) <= 8);
		return reinterpret_cast<volatile T *>(static_cast<std::byte *>(memory_) + offset);
	}

	void *memory_;
	std::size_t bytes_;
};

} // namespace orbit::pci

#endif
