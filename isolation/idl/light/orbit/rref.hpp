// SPDX-License-Identifier: MIT
#pragma once
#include <orbit/zone.hpp>
namespace orbit {
template <class T> class rref;
}
