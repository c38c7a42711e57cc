// SPDX-License-Identifier: MIT
//
// Files in memory. Past RLIMIT_FSIZE the kernel raises SIGXFSZ, which ends the program, so sizes are
// checked before a file is made, and before it is written to: the limit may have been lowered.
#ifndef LIBORBIT_COMMON_FILES_H
#define LIBORBIT_COMMON_FILES_H

#include <cstdint>

namespace liborbit {

// May a file of this process have so many bytes? 0 or -EFBIG.
int check_file_size(std::uint64_t bytes);

// Make one, which can be sealed. Returns a descriptor, or -errno.
int make_memory_file(const char *name, std::uint64_t bytes);

} // namespace liborbit

#endif // LIBORBIT_COMMON_FILES_H
