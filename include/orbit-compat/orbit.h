/* SPDX-License-Identifier: MIT */
/* The published API under the name by which programs include it. */
#include <orbit-compat.h>
