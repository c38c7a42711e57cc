/* SPDX-License-Identifier: MIT */
/* A program in C that was given nothing but the installed library. */
#include <orbit/orbit.h>

#include <stdio.h>
#include <string.h>

int main(void)
{
	struct orbit_probe_info info = { .size = sizeof(info) };
	const int err = orbit_probe(&info);

	printf("%d %s\n", err, info.reason);
	/* With or without orbits, the answer must be of one piece. */
	return orbit_inside() || (err == 0) != (strcmp(info.backend, "none") != 0);
}
