/* SPDX-License-Identifier: MIT */
/*
 * Transmit: descriptors are gathered until the last of a packet; then checksums are computed, large ones are cut into
 * segments, and frames go to the wire, as long as it takes them.
 */

#include "model.h"

#include "net/checksum.h"

enum {
	BURST = 256,            /* descriptors of a queue, before another has its turn */
	TAG_SIZE = 4,
	MACS_SIZE = 12,
	PAUSE_UNIT_NS = 51,     /* the time of 512 bits */
	TCP_FIN_PSH = 0x09,
	SHORTEST = 17,
};

static uint32_t *queue_reg(I82599State *s, unsigned queue, uint32_t which)
{
	return reg_at(s, transmit_at(queue) + which);
}

static bool is_on(I82599State *s, unsigned queue)
{
	return *queue_reg(s, queue, TXDCTL) & QUEUE_ENABLE;
}

static unsigned counter_of(I82599State *s, unsigned queue)
{
	return *reg_at(s, TQSM + queue / 4 * 4) >> queue % 4 * 8 & 15;
}

void i82599_transmit_soon(I82599State *s)
{
	if (s->immediate) {
		i82599_transmit(s);
	} else {
		qemu_bh_schedule(s->transmit_bh);
	}
}

/* --- the wire ----------------------------------------------------------------------- */

static void taken(NetClientState *client, ssize_t size)
{
	I82599State *s = qemu_get_nic_opaque(client);
	if (s->on_wire && --s->on_wire == 0) {
		i82599_transmit_soon(s);
	}
}

static void put_on_wire(I82599State *s, const uint8_t *data, size_t size)
{
	if (*reg_at(s, HLREG0) & HLREG0_LPBK) {
		i82599_receive(s, data, size, false);
	} else if (qemu_send_packet_async(qemu_get_queue(s->nic), data, size, taken) == 0) {
		s->on_wire++;
	}
}

static void count_sent(I82599State *s, unsigned queue, const uint8_t *data, size_t size)
{
	static const uint8_t broadcast[] = {0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF};
	unsigned counter = counter_of(s, queue);
	i82599_count(s, GPTC, 1);
	i82599_count(s, TPT, 1);
	i82599_count_long(s, GOTCL, size);
	i82599_count_size(s, PTC64, size);
	i82599_count(s, QPTC + 4 * counter, 1);
	i82599_count_long(s, QBTC_L + 8 * counter, size);
	if (!memcmp(data, broadcast, sizeof(broadcast))) {
		i82599_count(s, BPTC, 1);
	} else if (data[0] & 1) {
		i82599_count(s, MPTC, 1);
	}
}

/* A frame that is finished but for its tag and its padding; there is room for both. */
static void send_frame(I82599State *s, unsigned queue, uint8_t *data, size_t size, bool tagged, uint16_t vlan)
{
	if (tagged) {
		memmove(data + MACS_SIZE + TAG_SIZE, data + MACS_SIZE, size - MACS_SIZE);
		stw_be_p(data + MACS_SIZE, *reg_at(s, DMATXCTL) >> 16);
		stw_be_p(data + MACS_SIZE + 2, vlan);
		size += TAG_SIZE;
	}
	if (size + FCS > MAX_FRAME) {
		i82599_mistake(s, TRANSMIT_LONG, "queue %u: a frame of %zu bytes", queue, size);
		return;
	}
	if (size < MIN_FRAME) {
		if (size < SHORTEST) {
			i82599_mistake(s, TRANSMIT_SHORT, "queue %u: a frame of %zu bytes", queue, size);
			return;
		}
		if (*reg_at(s, HLREG0) & HLREG0_TXPADEN) {
			memset(data + size, 0, MIN_FRAME - size);
			size = MIN_FRAME;
		} else {
			i82599_mistake(s, TRANSMIT_SHORT, "queue %u: %zu bytes, and HLREG0.TXPADEN is off", queue, size);
		}
	}
	count_sent(s, queue, data, size + FCS);
	put_on_wire(s, data, size);
}

void i82599_send_pause(I82599State *s, uint16_t quanta)
{
	uint8_t frame[MIN_FRAME] = {0x01, 0x80, 0xC2, 0x00, 0x00, 0x01};
	memcpy(frame + 6, s->conf.macaddr.a, 6);
	stw_be_p(frame + 12, 0x8808);
	stw_be_p(frame + 14, 1);
	stw_be_p(frame + 16, quanta);
	put_on_wire(s, frame, sizeof(frame));
}

/* The other side wants us to wait. */
void i82599_paused(I82599State *s, uint16_t quanta)
{
	s->paused_until = now() + (int64_t)quanta * PAUSE_UNIT_NS;
	if (quanta) {
		timer_mod(s->pause_timer, s->paused_until);
	} else {
		timer_del(s->pause_timer);
		i82599_transmit_soon(s);
	}
}

/* --- checksums and segments ---------------------------------------------------------- */

/* Where the headers of a packet are, by its context. */
struct layout {
	size_t mac, ip, l4;     /* their lengths */
	bool ipv4;
	unsigned type;          /* of the fourth layer */
	uint16_t mss, vlan;
};

static struct layout layout_of(const struct context *context)
{
	return (struct layout) {
		.ip = BIT_FIELD(context->word[0], 0, 9), .mac = BIT_FIELD(context->word[0], 9, 7),
		.vlan = context->word[0] >> 16, .ipv4 = context->word[2] & TUCMD_IPV4,
		.type = BIT_FIELD(context->word[2], 11, 2), .l4 = BIT_FIELD(context->word[3], 8, 8),
		.mss = context->word[3] >> 16,
	};
}

static size_t checksum_at(unsigned type)
{
	return type == L4T_TCP ? 16 : 6;
}

/* In the checksum's place is what the sum begins with. */
static void finish_l4(uint8_t *data, size_t size, size_t at, unsigned type)
{
	uint16_t sum = net_checksum_finish(net_checksum_add(size - at, data + at));
	if (type == L4T_UDP && sum == 0) {
		sum = 0xFFFF;
	}
	stw_be_p(data + at + checksum_at(type), sum);
}

static void finish_ipv4(uint8_t *header, size_t size)
{
	stw_be_p(header + 10, 0);
	stw_be_p(header + 10, net_checksum_finish(net_checksum_add(size, header)));
}

static uint32_t crc32c_of(const uint8_t *data, size_t size)
{
	uint32_t crc = ~0u;
	for (size_t i = 0; i < size; i++) {
		crc ^= data[i];
		for (int bit = 0; bit < 8; bit++) {
			crc = crc >> 1 ^ (crc & 1 ? 0x82F63B78 : 0);
		}
	}
	return ~crc;
}

/* Whether the checksums that a packet asks for can be put there. */
static bool offload(I82599State *s, unsigned queue, uint8_t *data, size_t size, const struct layout *layout, uint32_t olinfo)
{
	size_t l3 = layout->mac, l4 = layout->mac + layout->ip;
	if (olinfo & POPTS_IXSM) {
		if (!layout->ipv4 || layout->ip < 20 || l4 > size) {
			i82599_mistake(s, TRANSMIT_OFFLOAD, "queue %u: IXSM, headers of %zu and %zu bytes in %zu, IPv%d", queue,
				layout->mac, layout->ip, size, layout->ipv4 ? 4 : 6);
			return false;
		}
		finish_ipv4(data + l3, layout->ip);
	}
	if (olinfo & POPTS_TXSM) {
		size_t least = layout->type == L4T_TCP ? 20 : layout->type == L4T_UDP ? 8 : 12;
		if (layout->type > L4T_SCTP || l4 + least > size) {
			i82599_mistake(s, TRANSMIT_OFFLOAD, "queue %u: TXSM, type %u at %zu of %zu bytes", queue, layout->type, l4,
				size);
			return false;
		}
		if (layout->type == L4T_SCTP) {
			stl_le_p(data + l4 + 8, 0);
			stl_le_p(data + l4 + 8, crc32c_of(data + l4, size - l4));
		} else {
			finish_l4(data, size, l4, layout->type);
		}
	}
	return true;
}

static uint8_t flags_of(I82599State *s, uint8_t flags, bool first, bool last)
{
	uint32_t low = *reg_at(s, DTXTCPFLGL), high = *reg_at(s, DTXTCPFLGH);
	return flags & (last ? high : first ? low : low >> 16);
}

/* Cut a packet into segments.  The driver has left the lengths out of the sum that it begins with. */
static void segment(I82599State *s, unsigned queue, const uint8_t *data, size_t size, const struct layout *layout,
	uint32_t olinfo, bool tagged)
{
	size_t l3 = layout->mac, l4 = l3 + layout->ip, header = l4 + layout->l4;
	bool tcp = layout->type == L4T_TCP;
	size_t least = tcp ? 20 : 8;
	if (layout->type > L4T_TCP || layout->l4 < least || layout->ip < (layout->ipv4 ? 20 : 40) || layout->mac < 14
			|| header >= size || !layout->mss || header + layout->mss + TAG_SIZE + FCS > MAX_FRAME) {
		i82599_mistake(s, TRANSMIT_OFFLOAD, "queue %u: TSE, headers of %zu, %zu and %zu bytes in %zu, MSS %u", queue,
			layout->mac, layout->ip, layout->l4, size, layout->mss);
		return;
	}
	g_autofree uint8_t *frame = g_malloc(header + layout->mss + TAG_SIZE + MIN_FRAME);
	uint16_t id = lduw_be_p(data + l3 + 4);
	uint32_t sequence = ldl_be_p(data + l4 + 4);
	uint32_t pseudo = lduw_be_p(data + l4 + checksum_at(layout->type));
	for (size_t at = header; at < size; at += layout->mss) {
		size_t part = MIN(layout->mss, size - at);
		bool first = at == header, last = at + part == size;
		size_t l4_size = layout->l4 + part;
		memcpy(frame, data, header);
		memcpy(frame + header, data + at, part);
		if (layout->ipv4) {
			stw_be_p(frame + l3 + 2, layout->ip + l4_size);
			stw_be_p(frame + l3 + 4, id++);
			if (olinfo & POPTS_IXSM) {
				finish_ipv4(frame + l3, layout->ip);
			}
		} else {
			stw_be_p(frame + l3 + 4, layout->ip - 40 + l4_size);
		}
		if (tcp) {
			stl_be_p(frame + l4 + 4, sequence);
			sequence += part;
			frame[l4 + 13] = flags_of(s, frame[l4 + 13], first, last);
		} else {
			stw_be_p(frame + l4 + 4, l4_size);
		}
		if (olinfo & POPTS_TXSM) {
			uint32_t sum = pseudo + l4_size;
			stw_be_p(frame + l4 + checksum_at(layout->type), (sum & 0xFFFF) + (sum >> 16));
			finish_l4(frame, header + part, l4, layout->type);
		}
		send_frame(s, queue, frame, header + part, tagged, layout->vlan);
	}
}

/* --- descriptors --------------------------------------------------------------------- */

static void forget(struct transmit_queue *t)
{
	t->size = 0;
	t->begun = t->skip = false;
}

/* The packet is complete.  Of its descriptors, the first says what to do with it. */
static void finish_advanced(I82599State *s, unsigned queue, struct transmit_queue *t)
{
	uint32_t command = t->first[2], olinfo = t->first[3];
	size_t told = olinfo >> 14;
	bool tagged = command & DCMD_VLE, large = command & DCMD_TSE;
	bool wanted = tagged || large || (olinfo & (POPTS_IXSM | POPTS_TXSM));
	struct context *context = &t->context[BIT_FIELD(olinfo, 4, 3) % CONTEXTS];
	struct layout layout = {0};
	if (olinfo & POPTS_IPSEC) {
		i82599_mistake(s, NOT_MODELLED, "queue %u: IPsec", queue);
	}
	if (wanted) {
		if (!context->set) {
			i82599_mistake(s, TRANSMIT_CONTEXT, "queue %u: context %u is not there", queue,
				BIT_FIELD(olinfo, 4, 3));
			return;
		}
		layout = layout_of(context);
	}
	size_t header = large ? layout.mac + layout.ip + layout.l4 : 0;
	if (told + header != t->size) {
		i82599_mistake(s, TRANSMIT_LENGTH, "queue %u: PAYLEN %zu, and %zu bytes with headers of %zu", queue, told,
			t->size, header);
	}
	if (large) {
		segment(s, queue, t->data, t->size, &layout, olinfo, tagged);
	} else if (t->size < MACS_SIZE) {
		i82599_mistake(s, TRANSMIT_SHORT, "queue %u: a frame of %zu bytes", queue, t->size);
	} else if (offload(s, queue, t->data, t->size, &layout, olinfo)) {
		send_frame(s, queue, t->data, t->size, tagged, layout.vlan);
	}
}

static void finish_legacy(I82599State *s, unsigned queue, struct transmit_queue *t)
{
	uint32_t command = t->first[2];
	size_t start = BIT_FIELD(t->first[3], 8, 8), offset = BIT_FIELD(command, 16, 8);
	if (t->size < MACS_SIZE) {
		i82599_mistake(s, TRANSMIT_SHORT, "queue %u: a frame of %zu bytes", queue, t->size);
		return;
	}
	if (command & DCMD_IC) {
		if (start >= t->size || offset + 2 > t->size) {
			i82599_mistake(s, TRANSMIT_OFFLOAD, "queue %u: IC, CSS %zu and CSO %zu in %zu bytes", queue, start, offset,
				t->size);
			return;
		}
		stw_be_p(t->data + offset, net_checksum_finish(net_checksum_add(t->size - start, t->data + start)));
	}
	send_frame(s, queue, t->data, t->size, command & DCMD_VLE, t->first[3] >> 16);
}

/* Take a descriptor with data; false if memory cannot be had. */
static bool gather(I82599State *s, unsigned queue, struct transmit_queue *t, const uint32_t word[4])
{
	size_t size = word[2] & 0xFFFF;
	uint64_t address = word[0] | (uint64_t)word[1] << 32;
	if (!t->begun) {
		t->begun = true;
		memcpy(t->first, word, sizeof(t->first));
	}
	if (t->size + size > MAX_REQUEST) {
		if (!t->skip) {
			i82599_mistake(s, TRANSMIT_LONG, "queue %u: a packet of more than %u bytes", queue, MAX_REQUEST);
		}
		t->skip = true;
		return true;
	}
	if (!t->data) {
		t->data = g_malloc(MAX_REQUEST + MIN_FRAME + TAG_SIZE);
	}
	if (!i82599_dma_read(s, address, t->data + t->size, size)) {
		return false;
	}
	t->size += size;
	return true;
}

/* Tell the driver that a descriptor is done. */
static bool write_back(I82599State *s, unsigned queue, uint64_t at, uint32_t last_word)
{
	uint32_t low = *queue_reg(s, queue, TDWBAL);
	if (low & TDWBAL_HEAD_WB) {
		uint64_t address = (low & ~3u) | (uint64_t)*queue_reg(s, queue, TDWBAH) << 32;
		uint32_t head = cpu_to_le32(*queue_reg(s, queue, TDH));
		return i82599_dma_write(s, address, &head, sizeof(head));
	}
	last_word = cpu_to_le32(last_word | TX_DD);
	return i82599_dma_write(s, at + 12, &last_word, sizeof(last_word));
}

/* One descriptor of a queue, at its head; false if the queue can do no more. */
static bool step(I82599State *s, unsigned queue, bool *interrupt)
{
	struct transmit_queue *t = &s->transmit[queue];
	uint32_t *head = queue_reg(s, queue, TDH);
	uint32_t count = *queue_reg(s, queue, TDLEN) / DESCRIPTOR_SIZE;
	uint64_t base = *queue_reg(s, queue, TDBAL) | (uint64_t)*queue_reg(s, queue, TDBAH) << 32;
	uint64_t at = base + (uint64_t)*head * DESCRIPTOR_SIZE;
	uint32_t word[4];
	if (!i82599_dma_read(s, at, word, sizeof(word))) {
		return false;
	}
	for (int i = 0; i < 4; i++) {
		word[i] = le32_to_cpu(word[i]);
	}
	bool advanced = word[2] & DCMD_DEXT, data = true;
	if (advanced && BIT_FIELD(word[2], 20, 4) == DTYP_CONTEXT) {
		struct context *context = &t->context[BIT_FIELD(word[3], 4, 3) % CONTEXTS];
		memcpy(context->word, word, sizeof(word));
		context->set = true;
		data = false;
	} else if (advanced && BIT_FIELD(word[2], 20, 4) != DTYP_DATA) {
		i82599_mistake(s, TRANSMIT_DESCRIPTOR_TYPE, "queue %u: DTYP %u at %u", queue, BIT_FIELD(word[2], 20, 4), *head);
		data = false;
	} else if (!gather(s, queue, t, word)) {
		return false;
	}
	*head = (*head + 1) % count;
	if (data && (word[2] & DCMD_EOP)) {
		if (!t->skip && (t->first[2] & DCMD_DEXT)) {
			finish_advanced(s, queue, t);
		} else if (!t->skip) {
			finish_legacy(s, queue, t);
		}
		forget(t);
	}
	if (word[2] & DCMD_RS) {
		if (!write_back(s, queue, at, word[3])) {
			return false;
		}
		*interrupt = true;
	}
	return true;
}

static bool can_send(I82599State *s)
{
	return (*reg_at(s, DMATXCTL) & DMATXCTL_TE) && i82599_is_link_up(s) && !s->on_wire && now() >= s->paused_until
		&& i82599_may_use_memory(s);
}

static bool has_work(I82599State *s, unsigned queue)
{
	uint32_t head = *queue_reg(s, queue, TDH), tail = *queue_reg(s, queue, TDT);
	uint32_t count = *queue_reg(s, queue, TDLEN) / DESCRIPTOR_SIZE;
	/* With a tail past the end there is no telling which descriptors are the device's. */
	return is_on(s, queue) && head != tail && head < count && tail < count && !bit_of(s->stuck_transmit, queue)
		&& !(queue < 64 && (s->hung_transmit >> queue & 1));
}

void i82599_transmit(void *device)
{
	I82599State *s = device;
	bool again = false;
	if (s->transmitting) {
		qemu_bh_schedule(s->transmit_bh);
		return;
	}
	bool before = i82599_begin(s);
	s->transmitting = true;
	for (unsigned queue = 0; queue < QUEUES; queue++) {
		bool interrupt = false;
		int left = BURST;
		while (has_work(s, queue) && can_send(s)) {
			if (!left--) {
				again = true;
				break;
			}
			if (!step(s, queue, &interrupt)) {
				s->stuck_transmit[queue / 64] |= 1ull << queue % 64;
				forget(&s->transmit[queue]);
			}
		}
		if (interrupt) {
			i82599_interrupt_queue(s, queue, true);
		}
	}
	s->transmitting = false;
	i82599_end(s, before);
	if (again) {
		qemu_bh_schedule(s->transmit_bh);
	}
}

/* --- a queue's registers ------------------------------------------------------------- */

static void turn_on(I82599State *s, unsigned queue)
{
	uint32_t length = *queue_reg(s, queue, TDLEN);
	if (!length || length % 128) {
		i82599_mistake(s, RING_LENGTH, "transmit queue %u is turned on with a ring of %u bytes", queue, length);
	}
	if (!(*reg_at(s, DMATXCTL) & DMATXCTL_TE)) {
		i82599_mistake(s, TRANSMIT_BEFORE_TE, "transmit queue %u is turned on, and DMATXCTL.TE is off", queue);
	}
	if (*queue_reg(s, queue, TDH) * DESCRIPTOR_SIZE >= length) {
		*queue_reg(s, queue, TDH) = 0;
	}
	if (*queue_reg(s, queue, TDT) * DESCRIPTOR_SIZE >= length) {
		*queue_reg(s, queue, TDT) = 0;
	}
	s->stuck_transmit[queue / 64] &= ~(1ull << queue % 64);
	memset(s->transmit[queue].context, 0, sizeof(s->transmit[queue].context));
	forget(&s->transmit[queue]);
}

void i82599_write_transmit_queue(I82599State *s, unsigned queue, uint32_t which, uint32_t value)
{
	uint32_t *reg = queue_reg(s, queue, which);
	switch (which) {
	case TDBAL:
	case TDBAH:
	case TDLEN:
	case TDH:
		if (is_on(s, queue) && value != *reg) {
			i82599_mistake(s, RING_MOVED, "transmit queue %u is on: %#x to its register %#x", queue, value, which);
			return;
		}
		if (which == TDBAL && value % 128) {
			i82599_mistake(s, RING_BASE, "transmit queue %u: TDBAL %#x", queue, value);
			value &= ~127u;
		}
		if (which == TDLEN && value % 128) {
			i82599_mistake(s, RING_LENGTH, "transmit queue %u: TDLEN %#x", queue, value);
		}
		*reg = which == TDLEN ? value & 0xFFF80 : which == TDH ? value & 0xFFFF : value;
		break;
	case TDT: {
		uint32_t count = *queue_reg(s, queue, TDLEN) / DESCRIPTOR_SIZE;
		value &= 0xFFFF;
		if (!is_on(s, queue)) {
			if (value) {
				i82599_mistake(s, RING_TAIL_WHILE_OFF, "transmit queue %u: TDT %u", queue, value);
			}
		} else if (value >= count) {
			i82599_mistake(s, RING_TAIL, "transmit queue %u: TDT %u of %u", queue, value, count);
		}
		*reg = value;
		i82599_transmit_soon(s);
		break;
	}
	case TXDCTL: {
		bool was = is_on(s, queue);
		*reg = value & ~QUEUE_SWFLSH;
		if (!was && is_on(s, queue)) {
			turn_on(s, queue);
		}
		i82599_transmit_soon(s);
		break;
	}
	default:
		*reg = value;
	}
}

void i82599_reset_transmit(I82599State *s)
{
	qemu_bh_cancel(s->transmit_bh);
	timer_del(s->pause_timer);
	s->paused_until = 0;
	s->on_wire = 0;
	qemu_purge_queued_packets(qemu_get_queue(s->nic));
	s->hung_transmit = 0;
	memset(s->stuck_transmit, 0, sizeof(s->stuck_transmit));
	for (unsigned queue = 0; queue < QUEUES; queue++) {
		g_free(s->transmit[queue].data);
		memset(&s->transmit[queue], 0, sizeof(s->transmit[queue]));
	}
}
