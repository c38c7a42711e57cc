// SPDX-License-Identifier: MIT
//
// An application that is compiled for AddressSanitizer, with a library that is not. Orbits are made by
// functions that it knows nothing of; they leave marks on the stack that must not stay.
#include <orbit/orbit.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <pthread.h>

namespace {

template <std::size_t bytes> int fill_stack()
{
	char frame[bytes];

	std::memset(frame, 7, sizeof(frame));
	asm volatile("" : : "r"(frame) : "memory");
	return frame[bytes / 2];
}

uint64_t task(const void *, size_t)
{
	return static_cast<uint64_t>(fill_stack<400'000>());
}

void *make_orbits(void *wrong)
{
	for (int round = 0; round < 3; round++) {
		orbit_options options{};
		orbit_outcome out{};
		orbit_handle *orbit;

		options.size = sizeof(options);
		options.flags = round ? ORBIT_RESTART : 0;
		out.size = sizeof(out);

		const int err = orbit_create(&orbit, &options);

		if (err) {
			std::printf("orbit_create: %d\n", err);
			++*static_cast<int *>(wrong);
			continue;
		}
		if (orbit_call(orbit, task, nullptr, 0, nullptr, &out) || out.value != 7 ||
		    fill_stack<100'000>() != 7) {
			std::printf("orbit_call: %d, cause %u, code %d\n", out.error, out.cause, out.code);
			++*static_cast<int *>(wrong);
		}
		orbit_destroy(orbit);
	}
	return nullptr;
}

} // namespace

int main()
{
	orbit_probe_info info{};
	pthread_attr_t small;
	pthread_t thread;
	int wrong = 0;

	info.size = sizeof(info);
	if (orbit_probe(&info) || info.features & ORBIT_FEATURE_MINIMAL || orbit_prepare() != -ENOTSUP) {
		std::printf("minimal inheritance is not refused\n");
		wrong++;
	}
	make_orbits(&wrong);
	pthread_attr_init(&small);
	pthread_attr_setstacksize(&small, 256 << 10);
	pthread_create(&thread, &small, make_orbits, &wrong);
	pthread_join(thread, nullptr);
	return wrong;
}
