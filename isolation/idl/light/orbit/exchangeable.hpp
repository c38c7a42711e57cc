// SPDX-License-Identifier: MIT
#pragma once
#include <orbit/interface.hpp>
namespace orbit {
template <class E> inline constexpr std::array<E, 0> enumerators{};
}
