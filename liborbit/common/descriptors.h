// SPDX-License-Identifier: MIT
//
// The library's own descriptors. A program may close all that it does not know, as those do that
// become daemons, and then have files of its own under the same numbers. So what is behind a
// descriptor is noted, and looked at before it is written to, read from, or closed. (What has no inode of
// its own, as pidfds before Linux 6.9, can be told only from what is of another kind.)
#ifndef LIBORBIT_COMMON_DESCRIPTORS_H
#define LIBORBIT_COMMON_DESCRIPTORS_H

namespace liborbit {

// Note what is behind a descriptor, as lift() does. Returns it; a negative one as it is.
int note_descriptor(int fd);

// Is the same behind it as when it was noted? False for a negative one.
bool is_still_ours(int fd);

// Close one that was noted, unless it is another's by now; it becomes -1.
void close_ours(int *fd);

} // namespace liborbit

#endif // LIBORBIT_COMMON_DESCRIPTORS_H
