/* SPDX-License-Identifier: MIT */
/*
 * Receive side coalescing: segments of a TCP connection that come one after the other, before their queue may interrupt
 * again, become one packet.  It has the first one's header, with the whole's length and what the last one acknowledges;
 * TCP's checksum in it is of no use, and descriptors say that all were right.
 */

#include "model.h"

#include "net/checksum.h"

enum {
	TCP_PSH = 8,
	TCP_ACK = 16,
	TCP_ACKNOWLEDGED = 8,           /* from there on a header is the last segment's */
};

static uint32_t control_of(I82599State *s, unsigned queue)
{
	return *reg_at(s, receive_at(queue) + RSCCTL);
}

static size_t most_bytes(I82599State *s, unsigned queue)
{
	static const unsigned descriptors[] = {1, 4, 8, 16};
	size_t buffer = BIT_FIELD(*reg_at(s, receive_at(queue) + SRRCTL), 0, 5) * KiB;
	return MIN(descriptors[BIT_FIELD(control_of(s, queue), 2, 2)] * buffer, 65535);
}

static size_t tcp_size(const struct packet *packet)
{
	return (packet->data[packet->headers.l4 + 12] >> 4) * 4;
}

static size_t payload_at(const struct packet *packet)
{
	return packet->headers.l4 + tcp_size(packet);
}

static bool is_last(const struct packet *packet)
{
	return packet->data[packet->headers.l4 + 13] & TCP_PSH;
}

/* IPv4 without options, TCP that only acknowledges, and data. */
static bool is_segment(I82599State *s, const struct packet *packet)
{
	const struct headers *headers = &packet->headers;
	const uint32_t wanted = PTYPE_IPV4 | PTYPE_TCP, sums = RX_IPCS | RX_L4I;
	if (!(control_of(s, packet->queue) & RSCCTL_RSCEN) || (*reg_at(s, RFCTL) & RFCTL_RSC_DIS) || packet->done
			|| headers->tagged || headers->fragment || (headers->ptype & (wanted | PTYPE_IPV4E)) != wanted
			|| (headers->status & (sums | RX_IPE | RX_TCPE)) != sums) {
		return false;
	}
	uint8_t flags = packet->data[headers->l4 + 13];
	return (flags & ~TCP_PSH) == TCP_ACK && tcp_size(packet) >= 20 && payload_at(packet) < packet->size
		&& headers->l3 + lduw_be_p(packet->data + headers->l3 + 2) == packet->size;
}

static bool continues(I82599State *s, const struct packet *first, const struct packet *next)
{
	size_t l3 = first->headers.l3, l4 = first->headers.l4;
	return next->queue == first->queue && next->headers.l3 == l3 && next->headers.l4 == l4
		&& first->data[l3 + 1] == next->data[l3 + 1]
		&& !memcmp(first->data + l3 + 12, next->data + l3 + 12, 8)      /* addresses */
		&& !memcmp(first->data + l4, next->data + l4, 4)                /* ports */
		&& tcp_size(first) == tcp_size(next) && !is_last(first)
		&& (uint32_t)(ldl_be_p(first->data + l4 + 4) + (first->size - payload_at(first))) == (uint32_t)ldl_be_p(next->data + l4 + 4)
		&& MAX(first->segments, 1) < SEGMENTS
		&& first->size + next->size - payload_at(next) <= most_bytes(s, first->queue);
}

/* Make one of the last two packets that wait, if they can be. */
void i82599_coalesce(I82599State *s)
{
	struct packet *next = QTAILQ_LAST(&s->packets);
	struct packet *first = next ? QTAILQ_PREV(next, next) : NULL;
	if (!first || !is_segment(s, first) || !is_segment(s, next) || !continues(s, first, next)) {
		return;
	}
	size_t at = payload_at(next), more = next->size - at, l3 = first->headers.l3, l4 = first->headers.l4;
	struct packet *whole = g_malloc0(sizeof(*whole) + first->size + more);
	memcpy(whole, first, sizeof(*whole) + first->size);
	memcpy(whole->data + whole->size, next->data + at, more);
	whole->segments = MAX(whole->segments, 1);
	whole->begins[whole->segments++] = whole->size;
	whole->size += more;
	stw_be_p(whole->data + l3 + 2, whole->size - l3);
	stw_be_p(whole->data + l3 + 10, 0);
	stw_be_p(whole->data + l3 + 10, net_raw_checksum(whole->data + l3, 20));
	memcpy(whole->data + l4 + TCP_ACKNOWLEDGED, next->data + l4 + TCP_ACKNOWLEDGED, tcp_size(next) - TCP_ACKNOWLEDGED);
	s->packets_size += whole->size - first->size - next->size;
	QTAILQ_REMOVE(&s->packets, next, next);
	QTAILQ_REMOVE(&s->packets, first, next);
	QTAILQ_INSERT_TAIL(&s->packets, whole, next);
	g_free(first);
	g_free(next);
}

/* May what waits become more?  Then it waits until its queue may interrupt. */
bool i82599_is_coalescing(I82599State *s)
{
	struct packet *packet = QTAILQ_FIRST(&s->packets);
	if (!packet || QTAILQ_NEXT(packet, next) || !is_segment(s, packet) || is_last(packet) || packet->segments == SEGMENTS) {
		return false;
	}
	int64_t end = i82599_next_interrupt(s, packet->queue);
	if (now() >= end) {
		return false;
	}
	timer_mod(s->coalesce_timer, end);
	return true;
}

/* How many segments, and one more, begin in a buffer, for its descriptor; 0 if the packet was not coalesced. */
unsigned i82599_segments_in(const struct packet *packet, size_t begin, size_t end)
{
	unsigned count = 1;
	for (unsigned i = 0; i < packet->segments; i++) {
		count += packet->begins[i] >= begin && packet->begins[i] < end;
	}
	return packet->segments > 1 ? count : 0;
}

void i82599_coalesce_timer(void *device)
{
	i82599_receive_drain(device);
}
