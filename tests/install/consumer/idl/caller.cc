// SPDX-License-Identifier: MIT
#include "echo.orbit.hpp"

#include <orbit/direct.hpp>

#include <cstdio>

class Same : public Echo {
	orbit::result<Number> echo(Number number) override { return number; }
};

int main()
{
	auto skeleton = std::make_shared<EchoSkeleton>(std::make_shared<Same>(), orbit::isolation::Connection{});
	EchoProxy proxy(std::make_shared<orbit::isolation::DirectTransport>(skeleton), orbit::isolation::Connection{});
	Number number{};

	number.value = 42;
	std::printf("%d\n", proxy.echo(number)->value);
}
