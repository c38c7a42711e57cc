/* SPDX-License-Identifier: MIT */
/*
 * Interrupts.  A queue's cause is a vector, by IVAR; the lower 16 of them are bits of EICR, too.  The other causes
 * are bits of EICR only, and share the vector that IVAR_MISC gives them.  What has been signalled is not signalled
 * again before it was cleared, or masked.
 */

#include "model.h"

#include "hw/pci/msi.h"
#include "hw/pci/msix.h"

enum { EITR_UNIT_NS = 2048 };

static uint32_t throttle_at(unsigned vector)
{
	return vector < 24 ? EITR_LOW + 4 * vector : EITR_HIGH + 4 * (vector - 24);
}

static bool has_vectors(I82599State *s)
{
	return msix_enabled(PCI_DEVICE(s)) && (*reg_at(s, GPIE) & GPIE_MULTIPLE_MSIX);
}

static int64_t interval(I82599State *s, unsigned vector)
{
	return (int64_t)BIT_FIELD(*reg_at(s, throttle_at(vector)), 3, 9) * EITR_UNIT_NS;
}

/* May a vector interrupt already?  If not, somebody will come back. */
static bool is_time(I82599State *s, unsigned vector)
{
	int64_t time = now();
	if (time < s->next_interrupt[vector]) {
		if (!timer_pending(s->interrupt_timer)
				|| s->next_interrupt[vector] < timer_expire_time_ns(s->interrupt_timer)) {
			timer_mod(s->interrupt_timer, s->next_interrupt[vector]);
		}
		return false;
	}
	s->next_interrupt[vector] = time + interval(s, vector);
	return true;
}

/* Mask what is to be masked when it interrupts. */
static void mask_automatically(I82599State *s, uint64_t vectors, uint32_t causes)
{
	uint64_t automatic = *reg_at(s, EIAM_EX) | (uint64_t)*reg_at(s, EIAM_EX + 4) << 32
		| (*reg_at(s, EIAM) & CAUSE_QUEUES);
	s->mask &= ~(automatic & vectors);
	*reg_at(s, EIMS) &= ~(*reg_at(s, EIAM) & causes & CAUSES_MISC);
}

static void update_vectors(I82599State *s)
{
	uint32_t misc = *reg_at(s, EICR) & *reg_at(s, EIMS) & CAUSES_MISC & ~s->misc_signalled;
	unsigned other = BIT_FIELD(*reg_at(s, IVAR_MISC), 8, 8);
	uint64_t pending = s->cause & s->mask & ~s->signalled;
	while (pending) {
		unsigned vector = ctz64(pending);
		uint64_t bit = 1ull << vector;
		pending &= ~bit;
		if (!is_time(s, vector)) {
			continue;
		}
		/* Those above 15 have no other way to be cleared. */
		if (vector >= 16 || (*reg_at(s, EIAC) & bit)) {
			s->cause &= ~bit;
		} else {
			s->signalled |= bit;
		}
		if (*reg_at(s, GPIE) & GPIE_EIAME) {
			mask_automatically(s, bit, 0);
		}
		msix_notify(PCI_DEVICE(s), vector);
	}
	if (misc && (other & IVAR_VALID) && is_time(s, other % VECTORS)) {
		s->misc_signalled |= misc;
		*reg_at(s, EICR) &= ~(*reg_at(s, EIAC) & misc);
		s->misc_signalled &= *reg_at(s, EICR);
		if (*reg_at(s, GPIE) & GPIE_EIAME) {
			mask_automatically(s, 0, misc);
		}
		msix_notify(PCI_DEVICE(s), other % VECTORS);
	}
}

static void update_line(I82599State *s)
{
	PCIDevice *pci = PCI_DEVICE(s);
	uint32_t causes = (*reg_at(s, EICR) & *reg_at(s, EIMS) & CAUSES_MISC) | (s->cause & s->mask & CAUSE_QUEUES);
	uint32_t signalled = s->misc_signalled | (s->signalled & CAUSE_QUEUES);
	if (msix_enabled(pci)) {
		if ((causes & ~signalled) && is_time(s, 0)) {
			s->misc_signalled |= causes & CAUSES_MISC;
			s->signalled |= causes & CAUSE_QUEUES;
			msix_notify(pci, 0);
		}
	} else if (msi_enabled(pci)) {
		if ((causes & ~signalled) && is_time(s, 0)) {
			s->misc_signalled |= causes & CAUSES_MISC;
			s->signalled |= causes & CAUSE_QUEUES;
			msi_notify(pci, 0);
		}
	} else if (!causes) {
		pci_set_irq(pci, 0);
	} else if (!(causes & ~signalled) || is_time(s, 0)) {
		s->misc_signalled |= causes & CAUSES_MISC;
		s->signalled |= causes & CAUSE_QUEUES;
		pci_set_irq(pci, 1);
	}
}

static void update(I82599State *s)
{
	if (has_vectors(s)) {
		update_vectors(s);
	} else {
		update_line(s);
	}
}

void i82599_interrupt_timer(void *device)
{
	update(device);
}

void i82599_interrupt_queue(I82599State *s, unsigned queue, bool transmit)
{
	uint32_t entry = BIT_FIELD(*reg_at(s, IVAR + queue / 2 * 4), queue % 2 * 16 + transmit * 8, 8);
	if (!(entry & IVAR_VALID)) {
		return;
	}
	unsigned vector = entry % VECTORS;
	if (!has_vectors(s) && vector >= 16) {
		i82599_mistake(s, INTERRUPT_VECTOR, "IVAR gives queue %u bit %u of EICR", queue, vector);
		return;
	}
	s->cause |= 1ull << vector;
	s->signalled &= ~(1ull << vector);
	update(s);
}

/* When a queue may interrupt for what it has received. */
int64_t i82599_next_interrupt(I82599State *s, unsigned queue)
{
	uint32_t entry = BIT_FIELD(*reg_at(s, IVAR + queue / 2 * 4), queue % 2 * 16, 8);
	return entry & IVAR_VALID ? s->next_interrupt[entry % VECTORS] : 0;
}

void i82599_interrupt(I82599State *s, uint32_t causes)
{
	*reg_at(s, EICR) |= causes & CAUSES_MISC;
	s->misc_signalled &= ~causes;
	update(s);
}

static uint32_t causes_now(I82599State *s)
{
	uint32_t misc = *reg_at(s, EICR) & CAUSES_MISC;
	return misc | (s->cause & CAUSE_QUEUES) | (misc ? CAUSE_OTHER : 0);
}

static void clear(I82599State *s, uint64_t vectors, uint32_t causes)
{
	s->cause &= ~vectors;
	s->signalled &= s->cause;
	*reg_at(s, EICR) &= ~causes;
	s->misc_signalled &= *reg_at(s, EICR);
	update(s);
}

bool i82599_is_interrupt_register(uint32_t offset)
{
	return offset >= EICR && offset < EIAM_EX + 8;
}

uint32_t i82599_read_interrupt(I82599State *s, uint32_t offset)
{
	switch (offset) {
	case EICR: {
		uint32_t causes = causes_now(s);
		bool most = (*reg_at(s, GPIE) & GPIE_OCD) && has_vectors(s);
		if (!(*reg_at(s, GPIE) & GPIE_EIAME)) {
			mask_automatically(s, causes & CAUSE_QUEUES, causes);
		}
		clear(s, most ? 0 : CAUSE_QUEUES, CAUSES_MISC);
		return causes;
	}
	case EICS:
		return causes_now(s);
	case EIMS:
	case EIMC:
		return (*reg_at(s, EIMS) & ~CAUSE_QUEUES) | (s->mask & CAUSE_QUEUES);
	case EIMS_EX:
	case EIMC_EX:
		return s->mask;
	case EIMS_EX + 4:
	case EIMC_EX + 4:
		return s->mask >> 32;
	case EICS_EX:
		return s->cause;
	case EICS_EX + 4:
		return s->cause >> 32;
	default:
		return *reg_at(s, offset);
	}
}

static void mask(I82599State *s, uint64_t vectors, uint32_t causes)
{
	s->mask &= ~vectors;
	s->signalled &= ~vectors;
	*reg_at(s, EIMS) &= ~causes;
	s->misc_signalled &= ~causes;
	update(s);
}

static void unmask(I82599State *s, uint64_t vectors, uint32_t causes)
{
	s->mask |= vectors;
	*reg_at(s, EIMS) |= causes;
	update(s);
}

static void software(I82599State *s, uint64_t vectors, uint32_t causes)
{
	s->cause |= vectors;
	s->signalled &= ~vectors;
	i82599_interrupt(s, causes);
}

static void write_throttle(I82599State *s, uint32_t offset, uint32_t value)
{
	unsigned vector = offset >= EITR_HIGH ? (offset - EITR_HIGH) / 4 + 24 : (offset - EITR_LOW) / 4;
	*reg_at(s, offset) = value;
	if (vector < VECTORS) {
		s->next_interrupt[vector] = MIN(s->next_interrupt[vector], now() + interval(s, vector));
		update(s);
	}
}

void i82599_write_interrupt(I82599State *s, uint32_t offset, uint32_t value)
{
	switch (offset) {
	case EICR:
		if (!(*reg_at(s, GPIE) & GPIE_EIAME)) {
			mask_automatically(s, value & CAUSE_QUEUES, value);
		}
		clear(s, value & CAUSE_QUEUES, value & CAUSES_MISC);
		break;
	case EICS:
		software(s, value & CAUSE_QUEUES, value);
		break;
	case EIMS:
		unmask(s, value & CAUSE_QUEUES, value & ~CAUSE_QUEUES);
		break;
	case EIMC:
		mask(s, value & CAUSE_QUEUES, value & ~CAUSE_QUEUES);
		break;
	case EICS_EX:
		software(s, value, 0);
		break;
	case EICS_EX + 4:
		software(s, (uint64_t)value << 32, 0);
		break;
	case EIMS_EX:
		unmask(s, value, 0);
		break;
	case EIMS_EX + 4:
		unmask(s, (uint64_t)value << 32, 0);
		break;
	case EIMC_EX:
		mask(s, value, 0);
		break;
	case EIMC_EX + 4:
		mask(s, (uint64_t)value << 32, 0);
		break;
	case EITR_LOW ... EITR_LOW + 4 * 23:
	case EITR_HIGH ... EITR_HIGH + 4 * 103:
		write_throttle(s, offset, value);
		break;
	default:
		*reg_at(s, offset) = value;
		update(s);
	}
}

void i82599_reset_interrupts(I82599State *s)
{
	timer_del(s->interrupt_timer);
	s->cause = s->mask = s->signalled = 0;
	s->misc_signalled = 0;
	memset(s->next_interrupt, 0, sizeof(s->next_interrupt));
	pci_set_irq(PCI_DEVICE(s), 0);
}
