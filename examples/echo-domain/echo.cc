// SPDX-License-Identifier: MIT
//
// A class that runs as a domain: in a process of its own, with memory of its own. It crashes, and is there again.
#include "echo.orbit.hpp"

#include <orbit/domain.hpp>

#include <cstdio>

class MyEcho : public Echo {
public:
	orbit::result<std::string> say(std::string_view text) override { return std::string(text) + '!'; }
	orbit::result<void> crash() override
	{
		*static_cast<volatile int *>(nullptr) = 1;
		return {};
	}
};

int main()
{
	auto ready = orbit::prepare(); // before there are threads or much memory
	auto supervisor = orbit::Supervisor::create(
		{.report = [](const orbit::DomainReport &report) { std::printf("%s\n", report.message().c_str()); }});
	if (!ready || !supervisor) {
		std::printf("%s\n", (ready ? supervisor.error().message() : ready.error().message()).c_str());
		return 1;
	}
	auto domain = (*supervisor)->start({.name = "echo",
					    .services = {orbit::service<EchoSkeleton, MyEcho>()},
					    .restarts = {.most = 3}});
	if (!domain) {
		std::printf("%s\n", domain.error().message().c_str());
		return 1;
	}
	auto echo = (*domain)->proxy<EchoShadow>(); // an Echo that outlives the domain behind it

	std::printf("%s\n", echo->say("hello").value_or("none?").c_str());
	auto crash = echo->crash();
	std::printf("crash: %s\n", crash ? "none?" : crash.error().message().c_str());
	std::printf("%s\n", echo->say("hello again").value_or("none?").c_str());
}
