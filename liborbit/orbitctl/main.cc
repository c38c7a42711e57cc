// SPDX-License-Identifier: MIT
#include "command.h"

#include <csignal>
#include <iostream>

int main(int argc, char **argv)
{
	// Whoever reads the output may go.
	std::signal(SIGPIPE, SIG_IGN);

	const int status = orbitctl::run({argv + 1, argv + argc}, std::cout, std::cerr);

	std::cout.flush();
	return status;
}
