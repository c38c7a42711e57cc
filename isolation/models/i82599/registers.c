/* SPDX-License-Identifier: MIT */
/* Access to the registers, and reset.  What is not told here keeps what is written. */

#include "model.h"

enum {
	RESET_NS = 2000,        /* how long CTRL.RST stays set */
};

/* Where registers are.  Others do not exist: a driver that writes there is mistaken. */
static const struct {
	uint32_t first, last;
} known[] = {
	{0x00000, 0x0007F}, {0x00200, 0x00207}, {0x00600, 0x00603}, {0x00700, 0x0072F}, {0x00800, 0x00AFF},
	{0x01000, 0x01FFF}, {0x02100, 0x0243F}, {0x02F00, 0x02FBF}, {0x03000, 0x0303F}, {0x03190, 0x032FF},
	{0x03400, 0x034FF}, {0x03C00, 0x03D07}, {0x03F00, 0x03FDF}, {0x04000, 0x041FF}, {0x04200, 0x04333},
	{0x04900, 0x049FF}, {0x04A80, 0x04BFF}, {0x05000, 0x05CFF}, {0x06000, 0x07FFF}, {0x08000, 0x08FFF},
	{0x09000, 0x09FFF}, {0x0A000, 0x0AAFF}, {0x0C800, 0x0CFFF}, {0x0D000, 0x0DFFF}, {0x0E000, 0x0FFFF},
	{0x10000, 0x1020F}, {0x11000, 0x1115F}, {0x12300, 0x124FF}, {0x13000, 0x13FFF}, {0x14F00, 0x14F1F},
	{0x15000, 0x15FFF},
};

static bool is_known(uint32_t offset)
{
	for (size_t i = 0; i < ARRAY_SIZE(known); i++) {
		if (offset >= known[i].first && offset <= known[i].last) {
			return true;
		}
	}
	return false;
}

/* Some registers have two addresses: the first receive queues' and addresses' are also where the 82598 had them. */
static uint32_t canonical(uint32_t offset)
{
	switch (offset) {
	case 0x02100 ... 0x0213F:
		return receive_at((offset - 0x02100) / 4) + SRRCTL;
	case 0x02200 ... 0x0223F:
		return receive_at((offset - 0x02200) / 4) + DCA_RXCTRL;
	case RAL_OLD ... RAL_OLD + 0x7F:
		return offset - RAL_OLD + RAL;
	default:
		return offset;
	}
}

static bool is_read_only(uint32_t offset)
{
	switch (offset) {
	case STATUS: case LINKS: case LINKS2: case ANLP1: case FWSM: case FACTPS: case SECRXSTAT: case SECTXSTAT:
	case FRTIMER:
		return true;
	default:
		return false;
	}
}

/* The queue whose register this is, or -1. */
static int receive_queue(uint32_t offset)
{
	if (offset >= 0x1000 && offset < 0x2000) {
		return (offset - 0x1000) / 0x40;
	}
	if (offset >= 0xD000 && offset < 0xE000) {
		return (offset - 0xD000) / 0x40 + 64;
	}
	return -1;
}

static int transmit_queue(uint32_t offset)
{
	return offset >= 0x6000 && offset < 0x8000 ? (int)(offset - 0x6000) / 0x40 : -1;
}

static bool is_bus_master(I82599State *s)
{
	return pci_get_word(PCI_DEVICE(s)->config + PCI_COMMAND) & PCI_COMMAND_MASTER;
}

bool i82599_may_use_memory(I82599State *s)
{
	return is_bus_master(s) && !(*reg_at(s, CTRL) & CTRL_GIO_DIS);
}

static bool in_reset(I82599State *s, uint32_t offset)
{
	return offset != CTRL && offset != STATUS && s->reset_until && now() < s->reset_until;
}

static uint32_t read_register(I82599State *s, uint32_t offset)
{
	uint32_t value = *reg_at(s, offset);
	if (i82599_is_statistic(offset)) {
		*reg_at(s, offset) = 0;
		return value;
	}
	if (i82599_is_interrupt_register(offset)) {
		return i82599_read_interrupt(s, offset);
	}
	switch (offset) {
	case CTRL:
		return value | (s->reset_until && now() < s->reset_until ? CTRL_RST : 0);
	case STATUS:
		return value | (i82599_may_use_memory(s) ? STATUS_GIO : 0);
	case FRTIMER:
		return now() / 1000;
	case I2CCTL:
		return i82599_read_i2c(s);
	case SWSM:
		return i82599_read_semaphore(s, offset);
	default:
		return value;
	}
}

uint64_t i82599_read(void *device, hwaddr offset, unsigned size)
{
	I82599State *s = device;
	offset = canonical(offset & (MEMORY_SIZE - 1) & ~3u);
	if (in_reset(s, offset)) {
		i82599_mistake(s, REGISTER_IN_RESET, "a read of register %#x", (unsigned)offset);
	}
	return read_register(s, offset);
}

static void write_control(I82599State *s, uint32_t value)
{
	*reg_at(s, CTRL) = value & ~(CTRL_RST | CTRL_LRST);
	if (value & (CTRL_RST | CTRL_LRST)) {
		i82599_reset(s);
		s->reset_until = now() + RESET_NS;
	} else if (!(value & CTRL_GIO_DIS)) {
		i82599_receive_drain(s);
		i82599_transmit_soon(s);
	}
}

static void check_receive(I82599State *s)
{
	bool mac = *reg_at(s, HLREG0) & HLREG0_RXCRCSTRP, dma = *reg_at(s, RDRXCTL) & RDRXCTL_CRCSTRIP;
	if (mac != dma) {
		i82599_mistake(s, RECEIVE_CRC, "HLREG0.RXCRCSTRP is %d, RDRXCTL.CRCSTRIP is %d, and RXEN is set", mac, dma);
	}
}

static void write_register(I82599State *s, uint32_t offset, uint32_t value)
{
	int queue;
	if (i82599_is_interrupt_register(offset) || (offset >= EITR_HIGH && offset < 0x12500)) {
		i82599_write_interrupt(s, offset, value);
		return;
	}
	if (i82599_is_statistic(offset)) {
		return;
	}
	if ((queue = receive_queue(offset)) >= 0) {
		i82599_write_receive_queue(s, queue, offset & 0x3F, value);
		return;
	}
	if ((queue = transmit_queue(offset)) >= 0) {
		i82599_write_transmit_queue(s, queue, offset & 0x3F, value);
		return;
	}
	if (offset >= FDIRCTRL && offset <= 0x0EE7F) {
		i82599_write_flow_director(s, offset, value);
		return;
	}
	if (offset >= RAL && offset < MPSAR && (offset & 4)) {
		*reg_at(s, offset) = value & (RAH_AV | 0xFFFF);
		return;
	}
	switch (offset) {
	case CTRL:
		write_control(s, value);
		break;
	case I2CCTL:
		i82599_write_i2c(s, value);
		break;
	case EEC:
	case EERD:
		i82599_write_eeprom(s, offset, value);
		break;
	case SWSM:
	case SW_FW_SYNC:
		i82599_write_semaphore(s, offset, value);
		break;
	case ESDP:
	case AUTOC:
	case AUTOC2:
	case MSCA:
	case HLREG0:
		i82599_write_link(s, offset, value);
		break;
	case RDRXCTL:
		*reg_at(s, offset) = value | RDRXCTL_DMAIDONE;
		break;
	case RXCTRL:
		if (value & ~*reg_at(s, offset) & RXCTRL_RXEN) {
			check_receive(s);
		}
		*reg_at(s, offset) = value;
		break;
	case DMATXCTL:
		*reg_at(s, offset) = value;
		i82599_transmit_soon(s);
		break;
	default:
		*reg_at(s, offset) = value;
	}
}

void i82599_write(void *device, hwaddr address, uint64_t value, unsigned size)
{
	I82599State *s = device;
	uint32_t offset = canonical(address & (MEMORY_SIZE - 1) & ~3u);
	if (in_reset(s, offset)) {
		i82599_mistake(s, REGISTER_IN_RESET, "%#x to register %#x", (unsigned)value, offset);
	}
	if (!is_known(offset)) {
		i82599_mistake(s, REGISTER_UNKNOWN, "%#x to register %#x", (unsigned)value, offset);
	} else if (is_read_only(offset)) {
		/* Drivers write STATUS to get their writes through, and mean nothing by it. */
		if (offset != STATUS) {
			i82599_mistake(s, REGISTER_READ_ONLY, "%#x to register %#x", (unsigned)value, offset);
		}
	} else {
		write_register(s, offset, value);
	}
}

static const struct {
	uint32_t offset, value;
} defaults[] = {
	{EEC, EEC_PRES | EEC_ARD | EEC_SIZE_16KB},
	{ESDP, ESDP_SDP2},
	{FWSM, FWSM_MODE_PT | FWSM_FW_VALID},
	{HICR, 1},
	{RDRXCTL, RDRXCTL_CRCSTRIP | RDRXCTL_DMAIDONE},
	{RXPBSIZE, 512 * KiB},
	{TXPBSIZE, 160 * KiB},
	{HLREG0, HLREG0_TXCRCEN | HLREG0_RXCRCSTRP | HLREG0_TXPADEN | 1 << 11 | 1 << 17 | 1 << 27},
	{MAXFRS, 1518 << 16},
	{VLNCTRL, 0x8100},
	{DMATXCTL, 0x81000000},
	{DTXTCPFLGL, 0x0FF60FF6},
	{DTXTCPFLGH, 0x00000F7F},
	{DTXMXSZRQ, 0x10},
	{SECRXSTAT, SEC_READY},
	{SECTXSTAT, SEC_READY},
	{SECTXBUFFAF, 0x250},
	{SECTXMINIFG, 0x1000},
	{AUTOC, AUTOC_LMS_10G_SERIAL},
	{AUTOC2, AUTOC2_10G_SFI},
	{ANLP1, 0x00010000},
	{GCR_EXT, 0},
};

/* All registers as after power-on.  What software has agreed on with firmware stays. */
void i82599_reset(I82599State *s)
{
	uint32_t shared = *reg_at(s, SW_FW_SYNC);
	i82599_reset_interrupts(s);
	memset(s->reg, 0, sizeof(s->reg));
	for (size_t i = 0; i < ARRAY_SIZE(defaults); i++) {
		*reg_at(s, defaults[i].offset) = defaults[i].value;
	}
	if (s->backplane) {
		*reg_at(s, AUTOC) = AUTOC_LMS_KX4_KX | AUTOC_KX_SUPP | AUTOC_KX4_SUPP;
		*reg_at(s, AUTOC2) = 0;
	}
	*reg_at(s, SW_FW_SYNC) = shared;
	const uint8_t *mac = s->conf.macaddr.a;
	*reg_at(s, RAL) = ldl_le_p(mac);
	*reg_at(s, RAL + 4) = lduw_le_p(mac + 4) | RAH_AV;
	for (int i = 0; i < 256; i++) {
		*reg_at(s, MPSAR + 4 * i) = ~0u;
	}
	i82599_reset_receive(s);
	i82599_reset_filters(s);
	i82599_reset_transmit(s);
	i82599_reset_link(s);
}
