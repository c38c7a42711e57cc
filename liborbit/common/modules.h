// SPDX-License-Identifier: MIT
//
// The executable and the shared objects of this process.
#ifndef LIBORBIT_COMMON_MODULES_H
#define LIBORBIT_COMMON_MODULES_H

#include <cstddef>
#include <link.h>

namespace liborbit {

// dl_iterate_phdr(), and no thread of this library is in it when another one forks: in the child the C library's
// lock would be held for ever.
int for_each_module(int (*callback)(dl_phdr_info *module, std::size_t bytes, void *user), void *user);

} // namespace liborbit

#endif // LIBORBIT_COMMON_MODULES_H
