/* SPDX-License-Identifier: MIT */
/*
 * The link: 10 Gb/s or nothing, through a direct-attach cable whose module tells of itself by I2C, or over a backplane,
 * whose two ends agree on it.
 */

#include "model.h"

enum {
	TRAINING_NS = 2 * 1000 * 1000,
	MODULE_EEPROM = 0xA0,   /* its address on the bus */
};

bool i82599_is_link_up(I82599State *s)
{
	return *reg_at(s, LINKS) & LINKS_UP;
}

static bool is_loopback(I82599State *s)
{
	return *reg_at(s, HLREG0) & HLREG0_LPBK;
}

/* Could there be a link? */
static bool is_possible(I82599State *s)
{
	bool forced = is_loopback(s) && (*reg_at(s, AUTOC) & AUTOC_FLU);
	bool cable = s->link_wanted && !qemu_get_queue(s->nic)->link_down;
	bool laser = s->backplane || !(*reg_at(s, ESDP) & ESDP_SDP3);
	/* A backplane has no serial link, and a module none of four lanes. */
	bool fits = BIT_FIELD(*reg_at(s, AUTOC), 13, 3) >= 4 ? s->backplane : !s->backplane;
	return (forced || (cable && laser && fits)) && !(*reg_at(s, AUTOC2) & AUTOC2_LINK_DISABLE);
}

static void set_up(I82599State *s, bool up)
{
	if (up == i82599_is_link_up(s)) {
		return;
	}
	*reg_at(s, LINKS) = up ? LINKS_UP | LINKS_SPEED_10G | LINKS_10G_ALIGN | (s->backplane ? LINKS_KX_AN_COMP : 0) : 0;
	i82599_interrupt(s, CAUSE_LSC);
	if (up) {
		i82599_transmit_soon(s);
	}
}

/* Something has changed, and the link may take its time to come up. */
void i82599_link_changed(I82599State *s)
{
	if (!is_possible(s)) {
		timer_del(s->link_timer);
		set_up(s, false);
	} else if (!i82599_is_link_up(s) && !timer_pending(s->link_timer)) {
		timer_mod(s->link_timer, now() + TRAINING_NS);
	}
}

void i82599_link_timer(void *device)
{
	I82599State *s = device;
	if (is_possible(s)) {
		set_up(s, true);
	}
}

void i82599_reset_link(I82599State *s)
{
	timer_del(s->link_timer);
	i82599_link_changed(s);
}

void i82599_write_link(I82599State *s, uint32_t offset, uint32_t value)
{
	switch (offset) {
	case AUTOC:
		*reg_at(s, AUTOC) = value & ~AUTOC_RESTART_AN;
		if (value & AUTOC_RESTART_AN) {
			set_up(s, false);
			timer_del(s->link_timer);
		}
		break;
	case MSCA:
		/* An MDIO bus with nobody on it. */
		*reg_at(s, MSCA) = value & ~MSCA_COMMAND;
		*reg_at(s, MSRWD) |= 0xFFFF0000;
		return;
	case ESDP:
		/* The module's place drives SDP2. */
		*reg_at(s, ESDP) = value | ESDP_SDP2;
		break;
	default:
		*reg_at(s, offset) = value;
	}
	i82599_link_changed(s);
}

/* --- the module: a slave on a bus that the driver bangs bit by bit ------------------ */

/* SFF-8472: what the module's EEPROM says of itself. */
static uint8_t module_byte(uint8_t offset)
{
	static const char vendor[] = "Model           ";
	static const char part[] = "Direct attach   ";
	switch (offset) {
	case 0: return 3;               /* SFP */
	case 1: return 4;
	case 2: return 0x21;            /* copper pigtail */
	case 8: return 4;               /* passive */
	case 12: return 103;            /* 100 Mb/s each */
	case 18: return 1;              /* metre */
	case 20 ... 35: return vendor[offset - 20];
	case 40 ... 55: return part[offset - 40];
	default: return 0;
	}
}

static bool takes(I82599State *s, uint8_t byte)
{
	unsigned number = s->i2c.bytes++;
	if (number == 0) {
		s->i2c.addressed = (byte & ~1) == MODULE_EEPROM;
		s->i2c.reading = byte & 1;
	} else if (number == 1) {
		s->i2c.offset = byte;
	}
	/* What more comes would be written, and it cannot be. */
	return s->i2c.addressed && !s->backplane;
}

static void clock_rises(I82599State *s)
{
	if (s->i2c.bits < 8 && !s->i2c.sending) {
		s->i2c.shift = s->i2c.shift << 1 | s->i2c.data;
	} else if (s->i2c.bits == 8 && s->i2c.sending) {
		s->i2c.active = !s->i2c.data;           /* whether the master wants more */
	}
	s->i2c.bits++;
}

static void clock_falls(I82599State *s)
{
	s->i2c.low = false;
	if (s->i2c.bits == 8 && !s->i2c.sending) {
		s->i2c.low = s->i2c.active = takes(s, s->i2c.shift);
	} else if (s->i2c.bits == 9) {
		s->i2c.bits = 0;
		s->i2c.sending = s->i2c.reading;
		if (s->i2c.sending) {
			s->i2c.shift = module_byte(s->i2c.offset++);
		}
	}
	if (s->i2c.sending && s->i2c.bits < 8) {
		s->i2c.low = !(s->i2c.shift >> (7 - s->i2c.bits) & 1);
	}
}

void i82599_write_i2c(I82599State *s, uint32_t value)
{
	bool clock = value & I2C_CLK_OUT, data = value & I2C_DATA_OUT;
	bool clock_was = s->i2c.clock, data_was = s->i2c.data;
	*reg_at(s, I2CCTL) = value;
	s->i2c.clock = clock;
	s->i2c.data = data;
	if (clock_was && clock && data_was != data) {
		/* Down: who speaks to whom begins anew.  Up: it ends. */
		s->i2c.active = !data;
		s->i2c.reading = s->i2c.sending = s->i2c.low = false;
		s->i2c.bits = s->i2c.bytes = 0;
	} else if (s->i2c.active && clock_was != clock) {
		if (clock) {
			clock_rises(s);
		} else {
			clock_falls(s);
		}
	}
	if (!s->i2c.active) {
		s->i2c.low = false;
	}
}

uint32_t i82599_read_i2c(I82599State *s)
{
	uint32_t value = *reg_at(s, I2CCTL) & ~(I2C_CLK_IN | I2C_DATA_IN);
	return value | (s->i2c.clock ? I2C_CLK_IN : 0) | (s->i2c.data && !s->i2c.low ? I2C_DATA_IN : 0);
}
