// SPDX-License-Identifier: MIT
//
// PAGEMAP_SCAN (Linux 6.7), which the headers of older distributions lack.
#ifndef LIBORBIT_COMMON_PAGEMAP_H
#define LIBORBIT_COMMON_PAGEMAP_H

#include <cstdint>
#include <sys/ioctl.h>

namespace liborbit {

struct ScanArg {
	std::uint64_t size, flags, start, end, walk_end, vec, vec_len, max_pages;
	std::uint64_t category_inverted, category_mask, category_anyof_mask, return_mask;
};

struct ScanRegion {
	std::uint64_t start, end, categories;
};

constexpr unsigned long pagemap_scan = _IOWR('f', 16, ScanArg);
constexpr std::uint64_t scan_wp_matching = 1 << 0, scan_check_wpasync = 1 << 1;
constexpr std::uint64_t page_is_written = 1 << 1, page_is_file = 1 << 2, page_is_present = 1 << 3,
			page_is_swapped = 1 << 4;

} // namespace liborbit

#endif // LIBORBIT_COMMON_PAGEMAP_H
