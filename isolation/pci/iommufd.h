// SPDX-License-Identifier: MIT
//
// The kernel's interface to IOMMUs, and VFIO's to that, as Documentation/userspace-api/iommufd.rst and vfio.rst of Linux
// describe them: what is used of it. Headers of kernels before 6.6 do not have all of it, and programs that are compiled with them
// shall use it on later kernels; the names are ours, so that newer headers do no harm.
#ifndef ORBIT_ISOLATION_PCI_IOMMUFD_H
#define ORBIT_ISOLATION_PCI_IOMMUFD_H

#include <cstdint>
#include <linux/vfio.h>
#include <sys/ioctl.h>

namespace orbit::pci::uapi {

// Of a device's own file. The device is of no use before it is bound to an iommufd, once.
inline constexpr unsigned long device_bind = _IO(VFIO_TYPE, VFIO_BASE + 18);
inline constexpr unsigned long device_attach = _IO(VFIO_TYPE, VFIO_BASE + 19);
inline constexpr unsigned long device_detach = _IO(VFIO_TYPE, VFIO_BASE + 20);

struct DeviceBind {
	std::uint32_t argsz;
	std::uint32_t flags;
	std::int32_t iommufd;
	std::uint32_t device_id; // out
};

struct DeviceAttach {
	std::uint32_t argsz;
	std::uint32_t flags;
	std::uint32_t table_id; // of an address space, in the iommufd that the device is bound to
};

struct DeviceDetach {
	std::uint32_t argsz;
	std::uint32_t flags;
};

// Of /dev/iommu. An address space (IOAS) is one of these files' alone, and known there by a number.
inline constexpr unsigned long ioas_alloc = _IO(';', 0x81);
inline constexpr unsigned long ioas_map = _IO(';', 0x85);
inline constexpr unsigned long ioas_unmap = _IO(';', 0x86);

inline constexpr std::uint32_t map_fixed_iova = 1 << 0;
inline constexpr std::uint32_t map_writable = 1 << 1;
inline constexpr std::uint32_t map_readable = 1 << 2;

struct IoasAlloc {
	std::uint32_t size;
	std::uint32_t flags;
	std::uint32_t id; // out
};

struct IoasMap {
	std::uint32_t size;
	std::uint32_t flags;
	std::uint32_t id;
	std::uint32_t reserved;
	std::uint64_t memory;
	std::uint64_t bytes;
	std::uint64_t iova;
};

struct IoasUnmap {
	std::uint32_t size;
	std::uint32_t id;
	std::uint64_t iova;
	std::uint64_t bytes;
};

static_assert(sizeof(DeviceBind) == 16 && sizeof(DeviceAttach) == 12 && sizeof(DeviceDetach) == 8 && sizeof(IoasAlloc) == 12 &&
	      sizeof(IoasMap) == 40 && sizeof(IoasUnmap) == 24);

} // namespace orbit::pci::uapi

#endif
