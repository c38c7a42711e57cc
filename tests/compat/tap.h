/* SPDX-License-Identifier: MIT */
/*
 * A test program in C or C++ that prints TAP: a list of functions, and checks in them.
 */
#ifndef TAP_H
#define TAP_H

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

struct test {
	const char *name;
	void (*run)(void);
};

static int failed_checks;

#define CHECK(condition)                                                                        \
	do {                                                                                    \
		if (!(condition)) {                                                             \
			const int error_ = errno;                                               \
			failed_checks++;                                                        \
			printf("# %s:%d: %s (errno %d, %s)\n", __FILE__, __LINE__, #condition,   \
			       error_, strerror(error_));                                       \
		}                                                                               \
	} while (0)

/* A call that must fail with some errno. */
#define CHECK_FAILS(call, error)                                                                \
	do {                                                                                    \
		errno = 0;                                                                      \
		CHECK((long)(call) == -1L && errno == (error));                                 \
	} while (0)

#define TEST(name)                                                                              \
	{                                                                                       \
		#name, name                                                                     \
	}

static inline int run_tests(const struct test *tests, size_t count)
{
	int failed = 0;

	setvbuf(stdout, NULL, _IOLBF, 0);
	printf("1..%zu\n", count);
	for (size_t i = 0; i < count; i++) {
		failed_checks = 0;
		tests[i].run();
		printf("%sok %zu - %s\n", failed_checks ? "not " : "", i + 1, tests[i].name);
		failed += failed_checks != 0;
	}
	return failed != 0;
}

static inline void sleep_ms(long ms)
{
	struct timespec time = {ms / 1000, ms % 1000 * 1000000};

	nanosleep(&time, NULL);
}

#endif /* TAP_H */
