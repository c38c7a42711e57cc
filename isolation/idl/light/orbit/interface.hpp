// SPDX-License-Identifier: MIT
#pragma once
#include <orbit-light-std>
#include <tl/expected.hpp>
#include <orbit/attributes.hpp>
namespace orbit {
class call_error;
template <class T> using result = tl::expected<T, call_error>;
}
