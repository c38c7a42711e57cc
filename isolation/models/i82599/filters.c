/* SPDX-License-Identifier: MIT */
/* What a frame is, whether it is for us, and for which queue. */

#include "model.h"

#include "net/checksum.h"

enum {
	ETHERTYPE_IPV4 = 0x0800,
	ETHERTYPE_IPV6 = 0x86DD,
	PROTOCOL_TCP = 6,
	PROTOCOL_UDP = 17,
	PROTOCOL_SCTP = 132,
	MAC_SIZE = 6,
	TAG_SIZE = 4,
};

static bool sum_is_right(uint32_t sum)
{
	return net_checksum_finish(sum) == 0;
}

/* Skip the extension headers of IPv6; false if the rest cannot be seen. */
static bool skip_extensions(const uint8_t *data, size_t size, size_t *at, struct headers *headers)
{
	for (int i = 0; i < 8; i++) {
		switch (headers->protocol) {
		case 0: case 43: case 60:       /* hop by hop, routing, destination */
			if (*at + 8 > size) {
				return false;
			}
			headers->ptype |= PTYPE_IPV6E;
			headers->protocol = data[*at];
			*at += 8 * (data[*at + 1] + 1);
			break;
		case 44:                        /* fragment */
			if (*at + 8 > size) {
				return false;
			}
			headers->ptype |= PTYPE_IPV6E;
			headers->fragment = true;
			return false;
		default:
			return *at < size;
		}
	}
	return false;
}

/* The sum of what TCP and UDP put before their headers; addresses: both, one after the other. */
static uint32_t pseudo_sum(const uint8_t *addresses, size_t size, uint8_t protocol, size_t length)
{
	return net_checksum_add(size, (uint8_t *)addresses) + protocol + (length >> 16) + (length & 0xFFFF);
}

static void check_l4(const uint8_t *data, size_t end, uint32_t pseudo, struct headers *headers)
{
	size_t at = headers->l4, length = end - at;
	if (headers->protocol == PROTOCOL_TCP && length >= 20) {
		headers->ptype |= PTYPE_TCP;
		headers->status |= RX_L4I;
	} else if (headers->protocol == PROTOCOL_UDP && length >= 8) {
		headers->ptype |= PTYPE_UDP;
		if (lduw_be_p(data + at + 6) == 0) {
			return;                 /* the sender has not computed it */
		}
		headers->status |= RX_L4I | RX_UDPCS;
	} else {
		if (headers->protocol == PROTOCOL_SCTP && length >= 12) {
			headers->ptype |= PTYPE_SCTP;   /* its CRC is not checked */
		}
		return;
	}
	if (!sum_is_right(pseudo + net_checksum_add(length, (uint8_t *)data + at))) {
		headers->status |= RX_TCPE;
	}
}

static void parse_ipv4(const uint8_t *data, size_t size, struct headers *headers)
{
	size_t at = headers->l3;
	if (at + 20 > size || data[at] >> 4 != 4) {
		headers->l3 = 0;
		return;
	}
	size_t length = (data[at] & 15) * 4, total = lduw_be_p(data + at + 2);
	headers->ptype |= length > 20 ? PTYPE_IPV4E | PTYPE_IPV4 : PTYPE_IPV4;
	if (length < 20 || at + length > size || total < length || at + total > size) {
		return;
	}
	headers->status |= RX_IPCS;
	if (!sum_is_right(net_checksum_add(length, (uint8_t *)data + at))) {
		headers->status |= RX_IPE;
	}
	headers->fragment = lduw_be_p(data + at + 6) & 0x3FFF;
	if (headers->fragment) {
		return;
	}
	headers->protocol = data[at + 9];
	headers->l4 = at + length;
	check_l4(data, at + total, pseudo_sum(data + at + 12, 8, headers->protocol, total - length), headers);
}

static void parse_ipv6(const uint8_t *data, size_t size, struct headers *headers)
{
	size_t at = headers->l3;
	if (at + 40 > size || data[at] >> 4 != 6) {
		headers->l3 = 0;
		return;
	}
	size_t end = at + 40 + lduw_be_p(data + at + 4), next = at + 40;
	headers->ptype |= PTYPE_IPV6;
	headers->protocol = data[at + 6];
	if (end > size || !skip_extensions(data, end, &next, headers)) {
		headers->protocol = 0;
		return;
	}
	headers->l4 = next;
	check_l4(data, end, pseudo_sum(data + at + 8, 32, headers->protocol, end - next), headers);
}

void i82599_parse(I82599State *s, const uint8_t *data, size_t size, struct headers *headers)
{
	memset(headers, 0, sizeof(*headers));
	size_t at = 2 * MAC_SIZE;
	headers->ethertype = lduw_be_p(data + at);
	if (headers->ethertype == (*reg_at(s, VLNCTRL) & 0xFFFF)) {
		headers->tagged = true;
		headers->vlan = lduw_be_p(data + at + 2);
		headers->ethertype = lduw_be_p(data + at + TAG_SIZE);
		headers->status |= RX_VP;
		at += TAG_SIZE;
	}
	headers->l3 = at + 2;
	if (headers->ethertype == ETHERTYPE_IPV4) {
		parse_ipv4(data, size, headers);
	} else if (headers->ethertype == ETHERTYPE_IPV6) {
		parse_ipv6(data, size, headers);
	} else {
		headers->l3 = 0;
	}
}

/* --- is it for us? ------------------------------------------------------------------ */

static bool is_own_address(I82599State *s, const uint8_t *mac)
{
	uint32_t low = ldl_le_p(mac), high = lduw_le_p(mac + 4);
	for (int i = 0; i < 128; i++) {
		uint32_t rah = *reg_at(s, RAL + 8 * i + 4);
		if ((rah & RAH_AV) && (rah & 0xFFFF) == high && *reg_at(s, RAL + 8 * i) == low) {
			return true;
		}
	}
	return false;
}

static bool is_in_hash(I82599State *s, const uint8_t *mac)
{
	static const int shift[] = {4, 3, 2, 0};
	unsigned bits = lduw_le_p(mac + 4) >> shift[*reg_at(s, MCSTCTRL) & 3] & 0xFFF;
	return *reg_at(s, MTA + bits / 32 * 4) >> bits % 32 & 1;
}

static bool accepts_address(I82599State *s, const uint8_t *mac)
{
	static const uint8_t broadcast[MAC_SIZE] = {0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF};
	uint32_t control = *reg_at(s, FCTRL);
	if (!memcmp(mac, broadcast, MAC_SIZE)) {
		return control & FCTRL_BAM;
	}
	if (is_own_address(s, mac)) {
		return true;
	}
	if (mac[0] & 1) {
		return (control & FCTRL_MPE) || ((*reg_at(s, MCSTCTRL) & MCSTCTRL_MFE) && is_in_hash(s, mac));
	}
	return control & FCTRL_UPE;
}

bool i82599_accepts(I82599State *s, const uint8_t *data, const struct headers *headers)
{
	if (headers->tagged && (*reg_at(s, VLNCTRL) & VLNCTRL_VFE)) {
		unsigned id = headers->vlan & 0xFFF;
		if (!(*reg_at(s, VFTA + id / 32 * 4) >> id % 32 & 1)) {
			return false;
		}
	}
	return accepts_address(s, data);
}

/* --- for which queue? --------------------------------------------------------------- */

enum {
	RSS_IPV4_TCP = 1 << 16,
	RSS_IPV4 = 1 << 17,
	RSS_IPV6 = 1 << 20,
	RSS_IPV6_TCP = 1 << 21,
	RSS_IPV4_UDP = 1 << 22,
	RSS_IPV6_UDP = 1 << 23,
	RSS_OFF = 0, RSS_ON = 1,        /* MRQC.MRQE */
};

/* What of a packet is hashed, and how a descriptor calls it; 0 if nothing is. */
static unsigned rss_type(I82599State *s, const struct headers *headers)
{
	uint32_t fields = *reg_at(s, MRQC);
	if (headers->ptype & PTYPE_IPV4) {
		if ((fields & RSS_IPV4_TCP) && (headers->ptype & PTYPE_TCP)) {
			return 1;
		}
		if ((fields & RSS_IPV4_UDP) && (headers->ptype & PTYPE_UDP)) {
			return 7;
		}
		return fields & RSS_IPV4 ? 2 : 0;
	}
	if (headers->ptype & PTYPE_IPV6) {
		if ((fields & RSS_IPV6_TCP) && (headers->ptype & PTYPE_TCP)) {
			return 3;
		}
		if ((fields & RSS_IPV6_UDP) && (headers->ptype & PTYPE_UDP)) {
			return 8;
		}
		return fields & RSS_IPV6 ? 5 : 0;
	}
	return 0;
}

static uint32_t toeplitz(I82599State *s, const uint8_t *input, size_t size)
{
	uint8_t key[40];
	for (int i = 0; i < 10; i++) {
		stl_le_p(key + 4 * i, *reg_at(s, RSSRK + 4 * i));
	}
	uint32_t result = 0;
	uint64_t window = ldq_be_p(key);
	for (size_t i = 0; i < size; i++) {
		for (int bit = 7; bit >= 0; bit--) {
			if (input[i] >> bit & 1) {
				result ^= window >> 32;
			}
			window <<= 1;
		}
		if (i + 8 < sizeof(key)) {
			window |= key[i + 8];
		}
	}
	return result;
}

static void hash(I82599State *s, struct packet *packet)
{
	const struct headers *headers = &packet->headers;
	packet->rss_type = rss_type(s, headers);
	if (!packet->rss_type || !headers->l3) {
		packet->rss_type = 0;
		return;
	}
	uint8_t input[36];
	size_t size = headers->ptype & PTYPE_IPV4 ? 8 : 32;
	memcpy(input, packet->data + headers->l3 + (size == 8 ? 12 : 8), size);
	if (packet->rss_type != 2 && packet->rss_type != 5) {
		memcpy(input + size, packet->data + headers->l4, 4);    /* both ports */
		size += 4;
	}
	packet->hash = toeplitz(s, input, size);
}

static bool matches_ethertype(I82599State *s, struct packet *packet)
{
	for (int i = 0; i < 8; i++) {
		uint32_t filter = *reg_at(s, ETQF + 4 * i), queue = *reg_at(s, ETQS + 4 * i);
		if ((filter & ETQF_ENABLE) && (filter & 0xFFFF) == packet->headers.ethertype) {
			packet->headers.ptype = PTYPE_ETQF | i << 4;
			if (queue & ETQS_QUEUE_EN) {
				packet->queue = BIT_FIELD(queue, 16, 7);
				return true;
			}
			return false;
		}
	}
	return false;
}

/* --- the flow director, with perfect filters ----------------------------------------- */

/* What is compared.  The hash that a driver gives is only the filter's name here. */
struct flow {
	uint32_t source, destination, ports;
	uint16_t vlan, flexible;
	uint32_t type;          /* of the fourth layer, as in FDIRCMD */
};

struct filter {
	struct flow flow;
	uint32_t command, name;
};

enum { FLOW_TYPE = 0x60, FLOW_UDP = 0x20, FLOW_TCP = 0x40, FLOW_SCTP = 0x60, FLOW_IPV6 = 0x80 };

static bool flow_director_on(I82599State *s)
{
	return (*reg_at(s, FDIRCTRL) & 3) && (*reg_at(s, FDIRCTRL) & FDIRCTRL_PERFECT);
}

/* Masks have a bit set where nothing is compared. */
static void apply_masks(I82599State *s, struct flow *flow)
{
	uint32_t ports = flow->type == FLOW_UDP ? *reg_at(s, FDIRUDPM) : *reg_at(s, FDIRTCPM);
	uint32_t general = *reg_at(s, FDIRM);
	/* The masks of ports have the bits of each half in reverse. */
	uint32_t reversed = revbit32(ports);
	flow->source &= ~*reg_at(s, FDIRSIP4M);
	flow->destination &= ~*reg_at(s, FDIRDIP4M);
	flow->ports &= ~(reversed >> 16 | reversed << 16);
	if (general & 1) {
		flow->vlan &= ~0x0FFF;
	}
	if (general & 2) {
		flow->vlan &= ~0xE000;
	}
	if (general & 8) {
		flow->type = 0;
		flow->ports = 0;
	}
	if (general & 16) {
		flow->flexible = 0;
	}
}

static guint flow_hash(gconstpointer key)
{
	const struct flow *flow = key;
	return flow->source * 31 ^ flow->destination * 37 ^ flow->ports ^ flow->type ^ flow->vlan;
}

static gboolean flow_equal(gconstpointer a, gconstpointer b)
{
	return !memcmp(a, b, sizeof(struct flow));
}

static bool matches_flow(I82599State *s, struct packet *packet)
{
	const struct headers *headers = &packet->headers;
	if (!flow_director_on(s) || !(headers->ptype & PTYPE_IPV4) || !headers->l3) {
		return false;
	}
	struct flow flow = {
		.source = ldl_be_p(packet->data + headers->l3 + 12),
		.destination = ldl_be_p(packet->data + headers->l3 + 16),
		.vlan = headers->tagged ? headers->vlan & ~0x1000 : 0,
		.type = headers->ptype & PTYPE_TCP ? FLOW_TCP : headers->ptype & PTYPE_UDP ? FLOW_UDP
			: headers->ptype & PTYPE_SCTP ? FLOW_SCTP : 0,
	};
	if (flow.type) {
		flow.ports = (uint32_t)lduw_be_p(packet->data + headers->l4 + 2) << 16
			| lduw_be_p(packet->data + headers->l4);
	}
	apply_masks(s, &flow);
	struct filter *filter = g_hash_table_lookup(s->filters, &flow);
	if (!filter) {
		i82599_count(s, FDIRMISS, 1);
		return false;
	}
	i82599_count(s, FDIRMATCH, 1);
	packet->headers.status |= RX_FLM;
	packet->queue = filter->command & FDIRCMD_DROP ? BIT_FIELD(*reg_at(s, FDIRCTRL), 8, 7)
		: BIT_FIELD(filter->command, 16, 7);
	return filter->command & FDIRCMD_QUEUE_EN;
}

static gboolean has_name(gpointer key, gpointer value, gpointer name)
{
	return ((struct filter *)value)->name == *(uint32_t *)name;
}

static void flow_command(I82599State *s, uint32_t value)
{
	uint32_t name = *reg_at(s, FDIRHASH);
	/* A signature filter never matches here: such packets are spread by RSS, as where its table is full. */
	bool perfect = *reg_at(s, FDIRCTRL) & FDIRCTRL_PERFECT;
	if (value & FDIRCMD_CLEARHT) {
		g_hash_table_remove_all(s->filters);
	}
	*reg_at(s, FDIRCMD) = value & ~(FDIRCMD_CMD | FDIRCMD_FILTER_VALID);
	switch (perfect ? value & FDIRCMD_CMD : 0) {
	case 1:
		if (g_hash_table_size(s->filters) < FILTERS && !(value & FLOW_IPV6)) {
			struct filter *filter = g_new0(struct filter, 1);
			filter->flow = (struct flow) {
				.source = *reg_at(s, FDIRIPSA), .destination = *reg_at(s, FDIRIPDA),
				.ports = *reg_at(s, FDIRPORT), .vlan = *reg_at(s, FDIRVLAN), .type = value & FLOW_TYPE,
			};
			apply_masks(s, &filter->flow);
			filter->command = value;
			filter->name = name;
			g_hash_table_replace(s->filters, &filter->flow, filter);
		}
		break;
	case 2:
		g_hash_table_foreach_remove(s->filters, has_name, &name);
		break;
	case 3:
		if (g_hash_table_find(s->filters, has_name, &name)) {
			*reg_at(s, FDIRCMD) |= FDIRCMD_FILTER_VALID;
		}
		break;
	}
	*reg_at(s, FDIRFREE) = FILTERS - g_hash_table_size(s->filters);
}

void i82599_write_flow_director(I82599State *s, uint32_t offset, uint32_t value)
{
	switch (offset) {
	case FDIRCTRL:
		*reg_at(s, offset) = value | FDIRCTRL_INIT_DONE;
		break;
	case FDIRCMD:
		flow_command(s, value);
		break;
	case FDIRFREE:
		break;
	default:
		*reg_at(s, offset) = value;
	}
}

void i82599_reset_filters(I82599State *s)
{
	if (!s->filters) {
		s->filters = g_hash_table_new_full(flow_hash, flow_equal, NULL, g_free);
	}
	g_hash_table_remove_all(s->filters);
	*reg_at(s, FDIRFREE) = FILTERS;
}

/* Which queue a packet goes to; false if it is dropped, for no queue is known. */
bool i82599_choose_queue(I82599State *s, struct packet *packet)
{
	uint32_t mode = *reg_at(s, MRQC) & 15;
	packet->queue = 0;
	if (mode == RSS_ON) {
		hash(s, packet);
	} else if (mode != RSS_OFF) {
		i82599_mistake(s, NOT_MODELLED, "MRQC.MRQE is %u", mode);
	}
	if (matches_ethertype(s, packet) || matches_flow(s, packet)) {
		return true;
	}
	if (packet->rss_type) {
		unsigned entry = packet->hash & 127;
		packet->queue = *reg_at(s, RETA + entry / 4 * 4) >> entry % 4 * 8 & 15;
	}
	return true;
}
