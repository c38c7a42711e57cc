/* SPDX-License-Identifier: MIT */
/* What the device counts.  Whoever reads a counter clears it; one that is full stays so. */

#include "model.h"

static const struct {
	uint32_t first, last;
} counters[] = {
	{0x03F00, 0x03FDF}, {0x04000, 0x041FF}, {0x08680, 0x086BF}, {0x08700, 0x087B3}, {0x0CF00, 0x0CF9F},
	{FDIRUSTAT, FDIRMISS}, {0x02F90, 0x02F90},
};

bool i82599_is_statistic(uint32_t offset)
{
	for (size_t i = 0; i < ARRAY_SIZE(counters); i++) {
		if (offset >= counters[i].first && offset <= counters[i].last) {
			return true;
		}
	}
	/* Those in the queues' own registers; QPRDC lies in those of queues 16 to 31. */
	uint32_t which = offset & 0x3F;
	return ((offset >= 0x1000 && offset < 0x2000) && (which == QPRC || which == QBRC_L || which == QBRC_H))
		|| ((offset >= 0x6000 && offset < 0x8000) && (which == 0x30 || which == 0x34));
}

void i82599_count(I82599State *s, uint32_t offset, uint32_t n)
{
	uint32_t *counter = reg_at(s, offset);
	*counter = *counter + n < *counter ? UINT32_MAX : *counter + n;
}

/* A counter of 36 bits, in two registers. */
void i82599_count_long(I82599State *s, uint32_t low, uint64_t n)
{
	uint64_t value = *reg_at(s, low) + ((uint64_t)*reg_at(s, low + 4) << 32) + n;
	value = MIN(value, 0xFFFFFFFFFull);
	*reg_at(s, low) = value;
	*reg_at(s, low + 4) = value >> 32;
}

/* A frame, by its size with the FCS, in one of six counters. */
void i82599_count_size(I82599State *s, uint32_t first, size_t size)
{
	static const size_t most[] = {64, 127, 255, 511, 1023};
	size_t i = 0;
	while (i < ARRAY_SIZE(most) && size > most[i]) {
		i++;
	}
	i82599_count(s, first + 4 * i, 1);
}
