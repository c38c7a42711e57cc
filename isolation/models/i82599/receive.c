/* SPDX-License-Identifier: MIT */
/*
 * Receive: frames wait in the packet buffer, in their order, for descriptors; the first one holds up the others.  A
 * frame for which there is no room is lost, and counted.
 */

#include "model.h"

enum { PAUSE_OPCODE = 1, ETHERTYPE_CONTROL = 0x8808 };

static uint32_t *queue_reg(I82599State *s, unsigned queue, uint32_t which)
{
	return reg_at(s, receive_at(queue) + which);
}

static bool is_on(I82599State *s, unsigned queue)
{
	return *queue_reg(s, queue, RXDCTL) & QUEUE_ENABLE;
}

static unsigned counter_of(I82599State *s, unsigned queue)
{
	return *reg_at(s, RQSMR + queue / 4 * 4) >> queue % 4 * 8 & 15;
}

static uint64_t ring_base(I82599State *s, unsigned queue)
{
	return *queue_reg(s, queue, RDBAL) | (uint64_t)*queue_reg(s, queue, RDBAH) << 32;
}

static size_t buffer_size(I82599State *s, unsigned queue)
{
	return BIT_FIELD(*queue_reg(s, queue, SRRCTL), 0, 5) * KiB;
}

static void drop_first(I82599State *s)
{
	struct packet *packet = QTAILQ_FIRST(&s->packets);
	QTAILQ_REMOVE(&s->packets, packet, next);
	s->packets_size -= packet->size;
	g_free(packet);
}

/* What a descriptor says of a packet; the length and the end are to come. */
static void describe(I82599State *s, const struct packet *packet, uint32_t word[4])
{
	const struct headers *headers = &packet->headers;
	word[0] = packet->rss_type | headers->ptype;
	word[1] = *reg_at(s, RXCSUM) & RXCSUM_PCSD ? packet->hash : 0;
	word[2] = headers->status;
	word[3] = headers->tagged ? (uint32_t)headers->vlan << 16 : 0;
}

/* The legacy format has the status beside the length, and bits of errors only. */
static void make_legacy(uint32_t word[4])
{
	uint32_t vlan = word[3] & 0xFFFF0000, length = word[3] & 0xFFFF;
	uint32_t errors = word[2] >> 24 & 0xC0, status = word[2] & 0xFF & ~(uint32_t)RX_FLM;
	word[2] = length;
	word[3] = vlan | errors << 8 | status;
}

/* Put the packet's next part into the buffer of a descriptor; false if memory cannot be had. */
static bool fill(I82599State *s, unsigned queue, struct packet *packet, uint32_t head)
{
	bool advanced = BIT_FIELD(*queue_reg(s, queue, SRRCTL), 25, 3) != SRRCTL_DESCTYPE_LEGACY;
	uint64_t at = ring_base(s, queue) + (uint64_t)head * DESCRIPTOR_SIZE;
	uint8_t descriptor[DESCRIPTOR_SIZE];
	size_t size = MIN(packet->size - packet->done, buffer_size(s, queue));
	if (!i82599_dma_read(s, at, descriptor, sizeof(descriptor))) {
		return false;
	}
	uint64_t buffer = ldq_le_p(descriptor);
	if (advanced) {
		buffer &= ~1ull;                /* "no snoop" */
	}
	if (!i82599_dma_write(s, buffer, packet->data + packet->done, size)) {
		return false;
	}
	unsigned segments = i82599_segments_in(packet, packet->done, packet->done + size);
	packet->done += size;
	uint32_t word[4];
	describe(s, packet, word);
	word[0] |= segments << RX_RSCCNT_SHIFT;
	word[2] |= RX_DD;
	if (packet->done == packet->size) {
		word[2] |= RX_EOP;
	} else {
		word[2] &= ~(RX_TCPE | RX_IPE | RX_IPCS | RX_L4I | RX_UDPCS);
		if (segments) {
			/* Where the next part is, in the place of the status. */
			uint32_t count = *queue_reg(s, queue, RDLEN) / DESCRIPTOR_SIZE;
			word[2] = RX_DD | (head + 1) % count << RX_NEXTP_SHIFT;
		}
	}
	word[3] |= size;
	if (!advanced) {
		make_legacy(word);
		return i82599_dma_write(s, at + 8, (uint32_t[]){cpu_to_le32(word[2]), cpu_to_le32(word[3])}, 8);
	}
	/* Drivers poll the second half from other processors: it comes last, and at once. */
	return i82599_dma_write(s, at, (uint32_t[]){cpu_to_le32(word[0]), cpu_to_le32(word[1])}, 8)
		&& i82599_dma_write(s, at + 8, (uint32_t[]){cpu_to_le32(word[2]), cpu_to_le32(word[3])}, 8);
}

enum outcome { DELIVERED, DROPPED, WAITING };

static enum outcome deliver(I82599State *s, struct packet *packet)
{
	unsigned queue = packet->queue;
	if (!is_on(s, queue) || bit_of(s->stuck_receive, queue)) {
		return DROPPED;
	}
	if (!i82599_may_use_memory(s) || (queue < 64 && (s->hung_receive >> queue & 1))) {
		return WAITING;
	}
	uint32_t *head = queue_reg(s, queue, RDH);
	uint32_t count = *queue_reg(s, queue, RDLEN) / DESCRIPTOR_SIZE;
	/* With a tail past the end there is no telling which descriptors are the device's. */
	if (!buffer_size(s, queue) || *head >= count || *queue_reg(s, queue, RDT) >= count) {
		return DROPPED;
	}
	while (packet->done < packet->size) {
		if (*head == *queue_reg(s, queue, RDT)) {
			bool drop = *queue_reg(s, queue, SRRCTL) & SRRCTL_DROP_EN;
			return drop && !packet->done ? DROPPED : WAITING;
		}
		if (!fill(s, queue, packet, *head)) {
			s->stuck_receive[queue / 64] |= 1ull << queue % 64;
			return DROPPED;
		}
		*head = (*head + 1) % count;
	}
	return DELIVERED;
}

/* Tell the sender to wait, or to go on, as the packet buffer fills. */
static void control_flow(I82599State *s)
{
	if (!(*reg_at(s, FCCFG) & FCCFG_TFCE_LINK)) {
		s->paused_peer = false;
		return;
	}
	uint32_t high = *reg_at(s, FCRTH), low = *reg_at(s, FCRTL);
	if (!s->paused_peer && (high & FCRT_ENABLE) && s->packets_size > (high & 0x7FFE0)) {
		s->paused_peer = true;
		i82599_count(s, LXOFFTXC, 1);
		i82599_send_pause(s, *reg_at(s, FCTTV) & 0xFFFF);
	} else if (s->paused_peer && s->packets_size < (low & 0x7FFE0)) {
		s->paused_peer = false;
		if (low & FCRT_ENABLE) {
			i82599_count(s, LXONTXC, 1);
			i82599_send_pause(s, 0);
		}
	}
}

/* Deliver what can be delivered. */
void i82599_receive_drain(I82599State *s)
{
	if (s->draining || i82599_is_coalescing(s)) {
		return;
	}
	bool before = i82599_begin(s);
	s->draining = true;
	struct packet *packet;
	uint64_t interrupts[2] = {0, 0};
	while ((packet = QTAILQ_FIRST(&s->packets))) {
		unsigned queue = packet->queue, counter = counter_of(s, queue);
		enum outcome outcome = deliver(s, packet);
		if (outcome == WAITING) {
			break;
		}
		if (outcome == DELIVERED) {
			i82599_count(s, 0x1000 + 0x40 * counter + QPRC, MAX(packet->segments, 1));
			i82599_count_long(s, 0x1000 + 0x40 * counter + QBRC_L, packet->size);
			interrupts[queue / 64] |= 1ull << queue % 64;
		} else {
			i82599_count(s, QPRDC + 0x40 * counter, MAX(packet->segments, 1));
		}
		drop_first(s);
	}
	control_flow(s);
	for (unsigned queue = 0; queue < QUEUES; queue++) {
		if (bit_of(interrupts, queue)) {
			i82599_interrupt_queue(s, queue, false);
		}
	}
	s->draining = false;
	i82599_end(s, before);
}

/* A frame that other MACs are told of: stop, or go on. */
static bool is_control(I82599State *s, const uint8_t *data)
{
	static const uint8_t address[] = {0x01, 0x80, 0xC2, 0x00, 0x00, 0x01};
	if (lduw_be_p(data + 12) != ETHERTYPE_CONTROL) {
		return false;
	}
	if (lduw_be_p(data + 14) == PAUSE_OPCODE && !memcmp(data, address, sizeof(address))) {
		uint16_t quanta = lduw_be_p(data + 16);
		i82599_count(s, quanta ? LXOFFRXCNT : LXONRXCNT, 1);
		if (*reg_at(s, MFLCN) & MFLCN_RFCE) {
			i82599_paused(s, quanta);
		}
		if (*reg_at(s, MFLCN) & MFLCN_DPF) {
			return true;
		}
	}
	return !(*reg_at(s, MFLCN) & MFLCN_PMCF);
}

static void count_good(I82599State *s, const uint8_t *data, size_t size)
{
	static const uint8_t broadcast[] = {0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF};
	i82599_count(s, GPRC, 1);
	i82599_count_long(s, GORCL, size);
	i82599_count_size(s, PRC64, size);
	if (!memcmp(data, broadcast, sizeof(broadcast))) {
		i82599_count(s, BPRC, 1);
	} else if (data[0] & 1) {
		i82599_count(s, MPRC, 1);
	}
}

static struct packet *make_packet(I82599State *s, const uint8_t *data, size_t size, const struct headers *headers)
{
	struct packet *packet = g_malloc0(sizeof(*packet) + size + FCS);
	memcpy(packet->data, data, size);
	packet->size = size;
	packet->headers = *headers;
	/* A tag may be taken out and a FCS left in; a FCS is only a place here. */
	if (i82599_choose_queue(s, packet) && headers->tagged && (*queue_reg(s, packet->queue, RXDCTL) & RXDCTL_VME)) {
		memmove(packet->data + 12, packet->data + 16, size - 16);
		packet->size -= 4;
	}
	if (!(*reg_at(s, HLREG0) & HLREG0_RXCRCSTRP)) {
		memset(packet->data + packet->size, 0, FCS);
		packet->size += FCS;
	}
	return packet;
}

/* A frame without its FCS, from the wire or from our own transmitter. */
void i82599_receive(I82599State *s, const uint8_t *data, size_t size, bool from_wire)
{
	bool loopback = *reg_at(s, HLREG0) & HLREG0_LPBK;
	if (loopback == from_wire || !i82599_is_link_up(s) || !(*reg_at(s, RXCTRL) & RXCTRL_RXEN)) {
		return;
	}
	i82599_count(s, TPR, 1);
	i82599_count_long(s, TORL, size + FCS);
	if (size < MIN_FRAME) {
		i82599_count(s, RUC, 1);
		return;
	}
	size_t most = *reg_at(s, HLREG0) & HLREG0_JUMBOEN ? *reg_at(s, MAXFRS) >> 16 : 1518;
	struct headers headers;
	i82599_parse(s, data, size, &headers);
	if (size + FCS > most + (headers.tagged ? 4 : 0)) {
		i82599_count(s, ROC, 1);
		return;
	}
	if (is_control(s, data) || !i82599_accepts(s, data, &headers)) {
		return;
	}
	count_good(s, data, size + FCS);
	if (s->packets_size + size > (*reg_at(s, RXPBSIZE) & 0xFFC00)) {
		i82599_count(s, MPC, 1);
		i82599_interrupt(s, CAUSE_RX_MISS);
		return;
	}
	struct packet *packet = make_packet(s, data, size, &headers);
	QTAILQ_INSERT_TAIL(&s->packets, packet, next);
	s->packets_size += packet->size;
	i82599_coalesce(s);
	i82599_receive_drain(s);
	if (!QTAILQ_EMPTY(&s->packets) && !i82599_is_coalescing(s)) {
		i82599_count(s, RNBC, 1);
	}
}

/* --- a queue's registers ------------------------------------------------------------ */

static void turn_on(I82599State *s, unsigned queue)
{
	uint32_t length = *queue_reg(s, queue, RDLEN), srrctl = *queue_reg(s, queue, SRRCTL);
	unsigned type = BIT_FIELD(srrctl, 25, 3);
	if (!length || length % 128) {
		i82599_mistake(s, RING_LENGTH, "receive queue %u is turned on with a ring of %u bytes", queue, length);
	}
	if (*queue_reg(s, queue, RDH) * DESCRIPTOR_SIZE >= length) {
		*queue_reg(s, queue, RDH) = 0;
	}
	if (*queue_reg(s, queue, RDT) * DESCRIPTOR_SIZE >= length) {
		*queue_reg(s, queue, RDT) = 0;
	}
	uint32_t head = *queue_reg(s, queue, RDH), tail = *queue_reg(s, queue, RDT);
	if (bit_of(s->was_on_receive, queue) && head != tail) {
		i82599_mistake(s, RING_TAIL_WHILE_OFF, "receive queue %u is turned on again with RDH %u and RDT %u", queue, head, tail);
	}
	s->was_on_receive[queue / 64] |= 1ull << queue % 64;
	if (!buffer_size(s, queue)) {
		i82599_mistake(s, RECEIVE_BUFFER_SIZE, "receive queue %u is turned on with buffers of no size", queue);
	}
	if (type == 2 || type == 5) {
		i82599_mistake(s, NOT_MODELLED, "receive queue %u: headers are not split", queue);
	} else if (type > 2) {
		i82599_mistake(s, RECEIVE_DESCRIPTOR_TYPE, "receive queue %u: DESCTYPE is %u", queue, type);
	}
}

void i82599_write_receive_queue(I82599State *s, unsigned queue, uint32_t which, uint32_t value)
{
	uint32_t *reg = queue_reg(s, queue, which);
	switch (which) {
	case RDBAL:
	case RDBAH:
	case RDLEN:
	case RDH:
		if (is_on(s, queue) && value != *reg) {
			i82599_mistake(s, RING_MOVED, "receive queue %u is on: %#x to its register %#x", queue, value, which);
			return;
		}
		if (which == RDBAL && value % 128) {
			i82599_mistake(s, RING_BASE, "receive queue %u: RDBAL %#x", queue, value);
			value &= ~127u;
		}
		if (which == RDLEN && value % 128) {
			i82599_mistake(s, RING_LENGTH, "receive queue %u: RDLEN %#x", queue, value);
		}
		*reg = which == RDLEN ? value & 0xFFF80 : which == RDH ? value & 0xFFFF : value;
		break;
	case RDT: {
		uint32_t count = *queue_reg(s, queue, RDLEN) / DESCRIPTOR_SIZE;
		value &= 0xFFFF;
		if (!is_on(s, queue)) {
			/* Who stops a queue may be giving it buffers still: that is judged when it is turned on again. */
			if (value && !bit_of(s->was_on_receive, queue)) {
				i82599_mistake(s, RING_TAIL_WHILE_OFF, "receive queue %u: RDT %u", queue, value);
			}
		} else if (value >= count) {
			i82599_mistake(s, RING_TAIL, "receive queue %u: RDT %u of %u", queue, value, count);
		}
		*reg = value;
		i82599_receive_drain(s);
		break;
	}
	case RXDCTL: {
		bool was = is_on(s, queue);
		*reg = value & ~QUEUE_SWFLSH;
		if (!was && is_on(s, queue)) {
			turn_on(s, queue);
			s->stuck_receive[queue / 64] &= ~(1ull << queue % 64);
		}
		i82599_receive_drain(s);
		break;
	}
	default:
		*reg = value;
	}
}

void i82599_reset_receive(I82599State *s)
{
	while (!QTAILQ_EMPTY(&s->packets)) {
		drop_first(s);
	}
	timer_del(s->coalesce_timer);
	s->paused_peer = false;
	memset(s->stuck_receive, 0, sizeof(s->stuck_receive));
	memset(s->was_on_receive, 0, sizeof(s->was_on_receive));
	s->hung_receive = 0;
	for (unsigned queue = 0; queue < QUEUES; queue++) {
		*queue_reg(s, queue, SRRCTL) = 0x402;
	}
}
