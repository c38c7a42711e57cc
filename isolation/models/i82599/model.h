/* SPDX-License-Identifier: MIT */
#ifndef I82599_MODEL_H
#define I82599_MODEL_H

/*
 * A model of Intel's 82599, a 10-gigabit Ethernet controller, for QEMU.  All of it runs under QEMU's big lock.
 *
 * Each file has one subject: device.c what QEMU wants of a device, registers.c access and reset, eeprom.c EEPROM and
 * semaphores, link.c link and module, receive.c, filters.c and coalesce.c, transmit.c, interrupts.c, statistics.c, and faults.c
 * what drivers do wrong, and what a test makes go wrong.
 */

#include "qemu/osdep.h"
#include "qemu/timer.h"
#include "qemu/main-loop.h"
#include "qemu/units.h"
#include "hw/pci/pci.h"
#include "net/net.h"

#include "registers.h"

#define TYPE_I82599 "i82599"
OBJECT_DECLARE_SIMPLE_TYPE(I82599State, I82599)

enum {
	MEMORY_SIZE = 128 * KiB,
	QUEUES = 128,
	VECTORS = 64,
	COUNTERS = 16,          /* of queues' statistics */
	CONTEXTS = 2,           /* of a transmit queue */
	EEPROM_WORDS = 0x400,
	MAX_FRAME = 15872,      /* with its FCS */
	MAX_REQUEST = 256 * KiB,        /* what descriptors of one packet give, with segmentation */
	MIN_FRAME = 60,         /* without its FCS */
	FCS = 4,
	FILTERS = 8192,         /* of the flow director */
	SEGMENTS = 14,          /* coalesced: one more than that has 4 bits in a descriptor */
};

/* What a driver may do wrong.  Their names are in faults.c. */
enum mistake {
	REGISTER_UNKNOWN,
	REGISTER_READ_ONLY,
	REGISTER_IN_RESET,
	RING_BASE,
	RING_LENGTH,
	RING_MOVED,
	RING_TAIL,
	RING_TAIL_WHILE_OFF,
	RECEIVE_BUFFER_SIZE,
	RECEIVE_DESCRIPTOR_TYPE,
	RECEIVE_CRC,
	TRANSMIT_BEFORE_TE,
	TRANSMIT_DESCRIPTOR_TYPE,
	TRANSMIT_CONTEXT,
	TRANSMIT_OFFLOAD,
	TRANSMIT_LENGTH,
	TRANSMIT_SHORT,
	TRANSMIT_LONG,
	INTERRUPT_VECTOR,
	SEMAPHORE,
	NOT_MODELLED,
	DMA_REFUSED,
	MISTAKES
};

/* What the header parser found in a frame. */
struct headers {
	uint32_t ptype;         /* as in an advanced descriptor */
	uint32_t status;        /* likewise: checksums that were checked, and wrong ones */
	uint16_t vlan;
	uint16_t ethertype;
	bool tagged;
	bool fragment;
	uint8_t protocol;       /* above IP; 0 if there is none, or it is not to be seen */
	size_t l3, l4;          /* where these headers begin; 0 if they are not there */
};

struct packet {
	QTAILQ_ENTRY(packet) next;
	struct headers headers;
	uint32_t hash;
	uint8_t rss_type;
	uint8_t queue;
	size_t size, done;      /* of the frame, and how much of it is in the guest's memory */
	unsigned segments;      /* that it was coalesced of; 0: it was not */
	size_t begins[SEGMENTS];        /* and where each begins */
	uint8_t data[];
};

struct context {
	uint32_t word[4];
	bool set;
};

struct transmit_queue {
	struct context context[CONTEXTS];
	uint8_t *data;          /* of the packet whose last descriptor is to come */
	size_t size;
	uint32_t first[4];      /* its first descriptor */
	bool begun, skip;
};

struct I82599State {
	PCIDevice parent_obj;
	NICState *nic;
	NICConf conf;
	MemoryRegion memory, io, msix;
	uint32_t io_address;

	uint32_t reg[MEMORY_SIZE / 4];
	uint16_t eeprom[EEPROM_WORDS];
	int64_t reset_until;    /* on the virtual clock, as all times here */

	/* Link and module */
	bool link_wanted;       /* the test's switch */
	bool backplane;         /* not a module */
	QEMUTimer *link_timer;
	struct {
		bool clock, data;       /* as the driver has set them */
		bool low;               /* the module pulls the data line down */
		bool active, addressed, reading, sending;
		unsigned bits, bytes;
		uint8_t shift, offset;
	} i2c;

	/* Interrupts: the queues' causes by vector; the others are in EICR */
	uint64_t cause, mask, signalled;
	uint32_t misc_signalled;
	int64_t next_interrupt[VECTORS];
	QEMUTimer *interrupt_timer;

	/* Receive */
	QTAILQ_HEAD(, packet) packets;
	size_t packets_size;
	QEMUTimer *coalesce_timer;
	bool draining;
	bool paused_peer;
	GHashTable *filters;

	/* Transmit */
	struct transmit_queue transmit[QUEUES];
	QEMUBH *transmit_bh;
	QEMUTimer *pause_timer;
	int64_t paused_until;
	unsigned on_wire;       /* frames that the other side has not taken yet */
	bool immediate, transmitting;

	/* Faults */
	uint64_t mistakes, mistake[MISTAKES];
	char *report;
	FILE *report_file;
	uint32_t fail_dma;      /* that many of the next accesses */
	uint64_t hung_receive, hung_transmit;   /* by queue; what a reset of the device cures */
	uint64_t stuck_receive[2], stuck_transmit[2];   /* by queue: after an error of DMA */
	uint64_t was_on_receive[QUEUES / 64];           /* receive queues that have been on since the last reset */
};

static inline uint32_t *reg_at(I82599State *s, uint32_t offset)
{
	return &s->reg[offset / 4];
}

/* Where the registers of a queue begin. */
static inline uint32_t receive_at(unsigned queue)
{
	return queue < 64 ? 0x1000 + 0x40 * queue : 0xD000 + 0x40 * (queue - 64);
}

static inline uint32_t transmit_at(unsigned queue)
{
	return 0x6000 + 0x40 * queue;
}

static inline bool bit_of(const uint64_t *bits, unsigned number)
{
	return bits[number / 64] >> number % 64 & 1;
}

/*
 * While the device works, an access to memory must not come back to its own registers, as a descriptor with such an
 * address wants it: QEMU refuses it then.  To be given back to i82599_end().
 */
static inline bool i82599_begin(I82599State *s)
{
	bool before = DEVICE(s)->mem_reentrancy_guard.engaged_in_io;
	DEVICE(s)->mem_reentrancy_guard.engaged_in_io = true;
	return before;
}

static inline void i82599_end(I82599State *s, bool before)
{
	DEVICE(s)->mem_reentrancy_guard.engaged_in_io = before;
}

static inline int64_t now(void)
{
	return qemu_clock_get_ns(QEMU_CLOCK_VIRTUAL);
}

/* registers.c */
uint64_t i82599_read(void *device, hwaddr offset, unsigned size);
void i82599_write(void *device, hwaddr offset, uint64_t value, unsigned size);
void i82599_reset(I82599State *s);
bool i82599_may_use_memory(I82599State *s);

/* eeprom.c */
void i82599_make_eeprom(I82599State *s);
void i82599_write_eeprom(I82599State *s, uint32_t offset, uint32_t value);
uint32_t i82599_read_semaphore(I82599State *s, uint32_t offset);
void i82599_write_semaphore(I82599State *s, uint32_t offset, uint32_t value);

/* link.c */
bool i82599_is_link_up(I82599State *s);
void i82599_reset_link(I82599State *s);
void i82599_link_changed(I82599State *s);
void i82599_link_timer(void *device);
void i82599_write_link(I82599State *s, uint32_t offset, uint32_t value);
void i82599_write_i2c(I82599State *s, uint32_t value);
uint32_t i82599_read_i2c(I82599State *s);

/* interrupts.c */
void i82599_interrupt_queue(I82599State *s, unsigned queue, bool transmit);
void i82599_interrupt(I82599State *s, uint32_t causes);
int64_t i82599_next_interrupt(I82599State *s, unsigned queue);
void i82599_interrupt_timer(void *device);
void i82599_reset_interrupts(I82599State *s);
bool i82599_is_interrupt_register(uint32_t offset);
uint32_t i82599_read_interrupt(I82599State *s, uint32_t offset);
void i82599_write_interrupt(I82599State *s, uint32_t offset, uint32_t value);

/* filters.c */
void i82599_parse(I82599State *s, const uint8_t *data, size_t size, struct headers *headers);
bool i82599_accepts(I82599State *s, const uint8_t *data, const struct headers *headers);
bool i82599_choose_queue(I82599State *s, struct packet *packet);
void i82599_write_flow_director(I82599State *s, uint32_t offset, uint32_t value);
void i82599_reset_filters(I82599State *s);

/* receive.c */
void i82599_receive(I82599State *s, const uint8_t *data, size_t size, bool from_wire);
void i82599_receive_drain(I82599State *s);
void i82599_write_receive_queue(I82599State *s, unsigned queue, uint32_t which, uint32_t value);
void i82599_reset_receive(I82599State *s);

/* coalesce.c */
void i82599_coalesce(I82599State *s);
bool i82599_is_coalescing(I82599State *s);
unsigned i82599_segments_in(const struct packet *packet, size_t begin, size_t end);
void i82599_coalesce_timer(void *device);

/* transmit.c */
void i82599_transmit_soon(I82599State *s);
void i82599_transmit(void *device);
void i82599_write_transmit_queue(I82599State *s, unsigned queue, uint32_t which, uint32_t value);
void i82599_send_pause(I82599State *s, uint16_t quanta);
void i82599_paused(I82599State *s, uint16_t quanta);
void i82599_reset_transmit(I82599State *s);

/* statistics.c */
bool i82599_is_statistic(uint32_t offset);
void i82599_count(I82599State *s, uint32_t offset, uint32_t n);
void i82599_count_long(I82599State *s, uint32_t low, uint64_t n);
void i82599_count_size(I82599State *s, uint32_t first, size_t size);

/* faults.c */
void i82599_mistake(I82599State *s, enum mistake mistake, const char *format, ...) G_GNUC_PRINTF(3, 4);
bool i82599_dma_read(I82599State *s, uint64_t address, void *to, size_t size);
bool i82599_dma_write(I82599State *s, uint64_t address, const void *from, size_t size);
void i82599_add_switches(ObjectClass *class);

#endif
