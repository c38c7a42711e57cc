// SPDX-License-Identifier: MIT
#pragma once
#include <orbit/rref.hpp>
namespace orbit {
template <class T, std::size_t n> class fixed_deque;
template <class T, std::size_t n> class fixed_vector;
template <class T, std::size_t n> class rref_deque;
}
