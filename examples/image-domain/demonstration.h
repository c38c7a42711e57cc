// SPDX-License-Identifier: MIT
#pragma once

// What the program does without arguments: good files, broken ones, and some that break the decoder. Returns the exit
// status.
int demonstrate();
