// SPDX-License-Identifier: MIT
//
// For examples: what they cannot do without.
#ifndef EXAMPLES_COMMON_NEED_H
#define EXAMPLES_COMMON_NEED_H

#include <cstdio>
#include <cstdlib>
#include <type_traits>
#include <utility>

namespace example {

/// Takes a result's value; says what is wrong and ends the program if there is none.
template <class Result> typename Result::value_type need(Result done, const char *what)
{
	if (!done) {
		std::printf("%s: %s\n", what, done.error().message().c_str());
		std::exit(1);
	}
	if constexpr (!std::is_void_v<typename Result::value_type>)
		return std::move(*done);
}

} // namespace example

#endif // EXAMPLES_COMMON_NEED_H
