// SPDX-License-Identifier: MIT
//
// The same in C++, with everything that is header-only.
#include <orbit/memory.hpp>

#include <array>
#include <cstdio>
#include <memory_resource>
#include <vector>

int main()
{
	alignas(4096) static std::array<std::byte, 65536> room;
	auto memory = orbit::Memory::over(room).value();
	std::pmr::vector<int> numbers({1, 2, 3}, memory.resource());
	const auto probe = orbit::probe();

	std::printf("%d %s\n", -probe.error, probe.reason);
	return orbit::inside() || numbers.size() != 3 || !memory.used();
}
