/* SPDX-License-Identifier: MIT */
/*
 * The allocator of the published API, over plain memory: nothing here needs orbits.
 */
#include "orbit.h"

#include "tap.h"

#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>

#define LENGTH (1 << 20)

static char *memory;
static size_t allocated;

static struct orbit_allocator *make(bool use_meta)
{
	allocated = 0;
	memset(memory, 0xaa, LENGTH);
	return orbit_allocator_create(memory, LENGTH, &allocated, use_meta);
}

static bool all_bytes(const char *p, size_t size, char value)
{
	for (size_t i = 0; i < size; i++)
		if (p[i] != value)
			return false;
	return true;
}

static void refuses_nonsense(void)
{
	size_t more = 65;

	CHECK(!orbit_allocator_create(NULL, LENGTH, &allocated, true) && errno == EINVAL);
	CHECK(!orbit_allocator_create(memory, LENGTH, NULL, true) && errno == EINVAL);
	CHECK(!orbit_allocator_create(memory, SIZE_MAX, &allocated, true) && errno == EINVAL);
	CHECK(!orbit_allocator_create(memory, 64, &more, true) && errno == EINVAL);
	CHECK(!orbit_allocator_from_pool(NULL, true) && errno == EINVAL);
	CHECK(!orbit_alloc(NULL, 1) && errno == EINVAL);
	CHECK(!orbit_calloc(NULL, 1));
	CHECK(!orbit_realloc(NULL, NULL, 1));
	orbit_free(NULL, memory);
	orbit_allocator_destroy(NULL);
	CHECK(!orbit_allocated_by(memory, NULL));
}

static void pieces_are_apart_and_aligned(void)
{
	struct orbit_allocator *alloc = make(true);
	char *pieces[100];

	CHECK(alloc);
	for (int i = 0; i < 100; i++) {
		pieces[i] = (char *)orbit_alloc(alloc, (size_t)i);
		CHECK(pieces[i] && (uintptr_t)pieces[i] % 16 == 0);
		CHECK(orbit_allocated_by(pieces[i], alloc));
		memset(pieces[i], i, (size_t)i);
	}
	for (int i = 0; i < 100; i++)
		CHECK(all_bytes(pieces[i], (size_t)i, (char)i));
	CHECK(!orbit_allocated_by(memory + LENGTH, alloc));
	CHECK(!orbit_allocated_by(memory - 1, alloc));
	orbit_allocator_destroy(alloc);
}

static void free_really_frees(void)
{
	struct orbit_allocator *alloc = make(true);

	CHECK(allocated == 0);
	for (int i = 0; i < 100000; i++) {
		void *a = orbit_alloc(alloc, 1000), *b = orbit_alloc(alloc, 3000);

		CHECK(a && b);
		orbit_free(alloc, a);
		orbit_free(alloc, b);
	}
	CHECK(allocated == 0);
	orbit_allocator_destroy(alloc);
}

static void holes_are_filled_and_joined(void)
{
	struct orbit_allocator *alloc = make(true);
	void *pieces[64];

	for (int i = 0; i < 64; i++)
		pieces[i] = orbit_alloc(alloc, 1000);

	const size_t before = allocated;

	for (int i = 10; i < 20; i++)
		orbit_free(alloc, pieces[i]);

	char *large = (char *)orbit_alloc(alloc, 9900);

	CHECK(large == pieces[10]);
	CHECK(allocated == before);
	orbit_free(alloc, large);
	for (int i = 63; i >= 0; i--)
		if (i < 10 || i >= 20)
			orbit_free(alloc, pieces[i]);
	CHECK(allocated == 0);
	orbit_allocator_destroy(alloc);
}

static void it_ends_with_an_error(void)
{
	struct orbit_allocator *alloc = make(true);
	int count = 0;

	CHECK(!orbit_alloc(alloc, LENGTH) && errno == ENOMEM);
	CHECK(!orbit_alloc(alloc, SIZE_MAX) && errno == ENOMEM);
	CHECK(!orbit_alloc(alloc, SIZE_MAX - 8) && errno == ENOMEM);
	CHECK(!orbit_calloc(alloc, SIZE_MAX / 2 + 1));
	while (orbit_alloc(alloc, 1008))
		count++;
	CHECK(errno == ENOMEM && count == LENGTH / 1024);
	CHECK(allocated <= LENGTH);
	orbit_allocator_destroy(alloc);
}

static void calloc_clears(void)
{
	struct orbit_allocator *alloc = make(true);
	char *piece = (char *)orbit_calloc(alloc, 5000);

	CHECK(piece && all_bytes(piece, 5000, 0));
	memset(piece, 1, 5000);
	orbit_free(alloc, piece);
	CHECK(orbit_calloc(alloc, 4000) == piece && all_bytes(piece, 4000, 0));
	orbit_allocator_destroy(alloc);
}

static void realloc_keeps_what_is_there(void)
{
	struct orbit_allocator *alloc = make(true);
	char *piece = (char *)orbit_realloc(alloc, NULL, 100);

	memset(piece, 7, 100);
	CHECK(orbit_realloc(alloc, piece, 50) == piece);
	CHECK(orbit_realloc(alloc, piece, 200) == piece); /* nothing is behind it */

	char *behind = (char *)orbit_alloc(alloc, 10);
	char *moved = (char *)orbit_realloc(alloc, piece, 1000);

	CHECK(moved && moved != piece && all_bytes(moved, 50, 7));
	CHECK(orbit_alloc(alloc, 100) == piece); /* the old place is free */
	orbit_free(alloc, piece);
	CHECK(orbit_realloc(alloc, behind, 2000) != behind);
	CHECK(!orbit_realloc(alloc, moved, LENGTH) && errno == ENOMEM);
	CHECK(all_bytes(moved, 50, 7));
	orbit_allocator_destroy(alloc);
}

static void realloc_grows_into_a_hole(void)
{
	struct orbit_allocator *alloc = make(true);
	char *a = (char *)orbit_alloc(alloc, 100), *b = (char *)orbit_alloc(alloc, 500);

	orbit_alloc(alloc, 16);
	memset(a, 3, 100);
	orbit_free(alloc, b);
	CHECK(orbit_realloc(alloc, a, 400) == a && all_bytes(a, 100, 3));
	CHECK((char *)orbit_alloc(alloc, 64) > a + 400); /* the rest of the hole, or behind all */
	orbit_allocator_destroy(alloc);
}

static void what_is_not_a_piece_is_left_alone(void)
{
	struct orbit_allocator *alloc = make(true);
	char *piece = (char *)orbit_alloc(alloc, 64), outside;
	char *second = (char *)orbit_alloc(alloc, 64);

	orbit_free(alloc, piece + 16);
	orbit_free(alloc, piece + 1);
	orbit_free(alloc, &outside);
	orbit_free(alloc, memory);
	orbit_free(alloc, memory + LENGTH);
	CHECK(!orbit_realloc(alloc, &outside, 10) && errno == EINVAL);
	orbit_free(alloc, piece);
	orbit_free(alloc, piece);
	CHECK(orbit_alloc(alloc, 64) == piece);
	CHECK(orbit_alloc(alloc, 64) > (void *)second);
	orbit_allocator_destroy(alloc);
}

static void without_meta_there_is_no_header(void)
{
	struct orbit_allocator *alloc = make(false);
	char *first = (char *)orbit_alloc(alloc, 10);

	CHECK(first == memory && allocated == 10);
	CHECK(orbit_alloc(alloc, 20) == memory + 16 && allocated == 36);
	orbit_free(alloc, first);
	CHECK(allocated == 36);
	memset(first, 5, 10);

	char *moved = (char *)orbit_realloc(alloc, first, 100);

	CHECK(moved == memory + 48 && all_bytes(moved, 10, 5));
	CHECK(!orbit_alloc(alloc, LENGTH));
	CHECK(!orbit_alloc(alloc, SIZE_MAX));
	orbit_allocator_destroy(alloc);
}

static void what_was_in_use_before_stays(void)
{
	allocated = 100;
	memset(memory, 9, LENGTH);

	struct orbit_allocator *alloc = orbit_allocator_create(memory + 1, LENGTH - 1, &allocated, true);
	char *piece = (char *)orbit_alloc(alloc, 50);

	CHECK(piece >= memory + 101 && (uintptr_t)piece % 16 == 0);
	memset(piece, 1, 50);
	CHECK(all_bytes(memory, 101, 9));
	CHECK(memory + 1 + allocated >= piece + 50);
	orbit_allocator_destroy(alloc);
}

/* Anything may happen in any order; what is held keeps its bytes. */
static void at_random(void)
{
	struct orbit_allocator *alloc = make(true);
	struct {
		char *bytes;
		size_t size;
		char value;
	} held[256] = {{NULL, 0, 0}};

	srand(1);
	for (int i = 0; i < 300000; i++) {
		const int slot = rand() % 256;
		const size_t size = (size_t)(rand() % 10 ? rand() % 500 : rand() % 20000);
		char *bytes = held[slot].bytes;

		if (!all_bytes(bytes, held[slot].size, held[slot].value)) {
			CHECK(!"bytes have changed");
			break;
		}
		if (bytes && rand() % 2) {
			orbit_free(alloc, bytes);
			held[slot].bytes = NULL;
			held[slot].size = 0;
			continue;
		}

		char *moved = (char *)orbit_realloc(alloc, bytes, size);

		if (!moved)
			continue;
		if (!all_bytes(moved, size < held[slot].size ? size : held[slot].size, held[slot].value)) {
			CHECK(!"bytes were not kept");
			break;
		}
		held[slot].bytes = moved;
		held[slot].size = size;
		held[slot].value = (char)i;
		memset(moved, i, size);
	}
	for (int slot = 0; slot < 256; slot++)
		orbit_free(alloc, held[slot].bytes);
	CHECK(allocated == 0);
	orbit_allocator_destroy(alloc);
}

static void *allocate_in_a_thread(void *alloc)
{
	long wrong = 0;

	for (int i = 0; i < 20000; i++) {
		const size_t size = (size_t)(i % 97 + 1);
		char *piece = (char *)orbit_alloc((struct orbit_allocator *)alloc, size);

		if (!piece)
			return (void *)1;
		memset(piece, i, size);
		wrong += !all_bytes(piece, size, (char)i);
		orbit_free((struct orbit_allocator *)alloc, piece);
	}
	return (void *)wrong;
}

static void threads(void)
{
	struct orbit_allocator *alloc = make(true);
	pthread_t thread[4];

	for (int i = 0; i < 4; i++)
		CHECK(pthread_create(&thread[i], NULL, allocate_in_a_thread, alloc) == 0);
	for (int i = 0; i < 4; i++) {
		void *wrong;

		pthread_join(thread[i], &wrong);
		CHECK(!wrong);
	}
	CHECK(allocated == 0);
	orbit_allocator_destroy(alloc);
}

int main(void)
{
	static const struct test tests[] = {
		TEST(refuses_nonsense),
		TEST(pieces_are_apart_and_aligned),
		TEST(free_really_frees),
		TEST(holes_are_filled_and_joined),
		TEST(it_ends_with_an_error),
		TEST(calloc_clears),
		TEST(realloc_keeps_what_is_there),
		TEST(realloc_grows_into_a_hole),
		TEST(what_is_not_a_piece_is_left_alone),
		TEST(without_meta_there_is_no_header),
		TEST(what_was_in_use_before_stays),
		TEST(at_random),
		TEST(threads),
	};

	memory = (char *)aligned_alloc(4096, LENGTH);
	return run_tests(tests, sizeof(tests) / sizeof(*tests));
}
