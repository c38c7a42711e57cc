/* SPDX-License-Identifier: MIT */
/* The EEPROM, the semaphores that guard what software shares with firmware, and what little there is of firmware. */

#include "model.h"

enum {
	WORD_POINTERS = 0x03,           /* to the sections of the device's set-up, up to 0x0E */
	WORD_FIRMWARE = 0x0F,           /* where the firmware's module is */
	WORD_PBA = 0x15,
	WORD_SFP = 0x2B,                /* where the lists for modules are */
	WORD_CAPABILITIES = 0x2C,
	WORD_CHECKSUM = 0x3F,
	CHECKSUM = 0xBABA,
	ANY_MODULE = 1 << 0,

	FIRMWARE_AT = 0x80,
	FIRMWARE_LESM = 2,              /* within it: where what manages the link is */
	FIRMWARE_PATCH = 4,             /* where the patch is */
	PATCH_AT = 0x90,
	PATCH_VERSION = 7,
	VERSION = 6,                    /* drivers refuse 5 and below */
	SFP_AT = 0xA0,
	SFP_DATA_AT = 0xB0,
	END = 0xFFFF,
};

void i82599_make_eeprom(I82599State *s)
{
	uint16_t *word = s->eeprom;
	memset(word, 0xFF, sizeof(s->eeprom));
	memset(word, 0, 0x40 * sizeof(*word));
	for (int i = WORD_POINTERS; i < WORD_FIRMWARE; i++) {
		word[i] = END;
	}
	word[WORD_FIRMWARE] = FIRMWARE_AT;
	word[FIRMWARE_AT + FIRMWARE_LESM] = END;
	word[FIRMWARE_AT + FIRMWARE_PATCH] = PATCH_AT;
	word[PATCH_AT + PATCH_VERSION] = VERSION;
	word[WORD_PBA] = 0x8259;
	word[WORD_PBA + 1] = 0x9000;
	word[WORD_CAPABILITIES] = ANY_MODULE;
	/* No other MAC addresses, no option ROM, no boot configuration. */
	word[0x17] = word[0x1B] = word[0x26] = word[0x27] = word[0x28] = word[0x37] = word[0x38] = END;
	/* For direct attach and for optics, for either port: the type, and where its words for CORECTL are; none. */
	word[WORD_SFP] = SFP_AT;
	uint16_t *list = &word[SFP_AT + 1];
	for (int type = 3; type <= 6; type++) {
		*list++ = type;
		*list++ = SFP_DATA_AT;
	}
	uint16_t sum = 0;
	for (int i = 0; i < WORD_CHECKSUM; i++) {
		sum += word[i];
	}
	word[WORD_CHECKSUM] = CHECKSUM - sum;
}

void i82599_write_eeprom(I82599State *s, uint32_t offset, uint32_t value)
{
	if (offset == EEC) {
		/* Bit by bit is for old software: whoever asks is given the pins, and finds nobody there. */
		uint32_t keep = *reg_at(s, EEC) & (EEC_PRES | EEC_ARD | EEC_SIZE_16KB);
		*reg_at(s, EEC) = keep | (value & 0x7F) | (value & EEC_REQ ? EEC_GNT : 0);
		return;
	}
	uint32_t address = BIT_FIELD(value, 2, 14);
	if (value & EERD_START) {
		uint16_t word = address < EEPROM_WORDS ? s->eeprom[address] : END;
		*reg_at(s, EERD) = (uint32_t)word << 16 | address << 2 | EERD_DONE;
	}
}

/* Whoever reads SMBI as 0 has taken it. */
uint32_t i82599_read_semaphore(I82599State *s, uint32_t offset)
{
	uint32_t value = *reg_at(s, offset);
	if (offset == SWSM) {
		*reg_at(s, offset) |= SWSM_SMBI;
	}
	return value;
}

void i82599_write_semaphore(I82599State *s, uint32_t offset, uint32_t value)
{
	if (offset == SW_FW_SYNC) {
		/* SW_FW_SYNC belongs to who has both semaphores. */
		if (~*reg_at(s, SWSM) & (SWSM_SMBI | SWSM_SWESMBI)) {
			i82599_mistake(s, SEMAPHORE, "SW_FW_SYNC is written without SWSM.SMBI and SWESMBI");
		}
		*reg_at(s, offset) = value;
		return;
	}
	*reg_at(s, SWSM) = value & (SWSM_SMBI | SWSM_SWESMBI);
}
