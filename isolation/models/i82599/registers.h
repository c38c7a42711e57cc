/* SPDX-License-Identifier: MIT */
#ifndef I82599_REGISTERS_H
#define I82599_REGISTERS_H

/*
 * The registers of the 82599 that the model knows more about than that they keep what was written, by the
 * datasheet's names.  Offsets are those in memory BAR 0.
 */

#define BIT_FIELD(value, low, width) (((value) >> (low)) & ((1u << (width)) - 1))

enum {
	/* General control */
	CTRL = 0x00000,
	CTRL_GIO_DIS = 1u << 2,         /* "PCIe master disable" */
	CTRL_LRST = 1u << 3,
	CTRL_RST = 1u << 26,
	STATUS = 0x00008,
	STATUS_GIO = 1u << 19,          /* "PCIe master enable status" */
	CTRL_EXT = 0x00018,
	ESDP = 0x00020,
	ESDP_SDP2 = 1u << 2,            /* there is a module */
	ESDP_SDP3 = 1u << 3,            /* the laser is off */
	I2CCTL = 0x00028,
	I2C_CLK_IN = 1u << 0,
	I2C_CLK_OUT = 1u << 1,
	I2C_DATA_IN = 1u << 2,
	I2C_DATA_OUT = 1u << 3,
	LEDCTL = 0x00200,
	FRTIMER = 0x00048,

	/* EEPROM, flash, semaphores, firmware */
	EEC = 0x10010,
	EEC_REQ = 1u << 6,
	EEC_GNT = 1u << 7,
	EEC_PRES = 1u << 8,
	EEC_ARD = 1u << 9,
	EEC_SIZE_16KB = 5u << 11,
	EERD = 0x10014,
	EERD_START = 1u << 0,
	EERD_DONE = 1u << 1,
	FLA = 0x1001C,
	SWSM = 0x10140,
	SWSM_SMBI = 1u << 0,
	SWSM_SWESMBI = 1u << 1,
	FWSM = 0x10148,
	FWSM_MODE_PT = 2u << 1,
	FWSM_FW_VALID = 1u << 15,
	FACTPS = 0x10150,
	SW_FW_SYNC = 0x10160,
	HICR = 0x15F00,
	GCR_EXT = 0x11050,
	CORECTL = 0x14F00,

	/* Interrupts */
	EICR = 0x00800,
	EICS = 0x00808,
	EIAC = 0x00810,
	EITR_LOW = 0x00820,             /* of vectors 0 to 23 */
	EITR_HIGH = 0x12300,            /* of the others: + 4 (n - 24) */
	EIMS = 0x00880,
	EIMC = 0x00888,
	EIAM = 0x00890,
	EITRSEL = 0x00894,
	GPIE = 0x00898,
	GPIE_MULTIPLE_MSIX = 1u << 4,
	GPIE_OCD = 1u << 5,
	GPIE_EIAME = 1u << 30,
	IVAR = 0x00900,                 /* 64 of them */
	IVAR_MISC = 0x00A00,
	IVAR_VALID = 0x80,
	EICS_EX = 0x00A90,              /* two of each */
	EIMS_EX = 0x00AA0,
	EIMC_EX = 0x00AB0,
	EIAM_EX = 0x00AD0,
	CAUSE_QUEUES = 0x0000FFFF,
	CAUSE_RX_MISS = 1u << 17,
	CAUSE_PCI = 1u << 18,
	CAUSE_LSC = 1u << 20,
	CAUSE_GPI_SDP2 = 1u << 26,
	CAUSE_OTHER = 1u << 31,
	CAUSES_MISC = 0x3FFF0000,

	/* Receive: a queue's registers, from its first one */
	RDBAL = 0x00,
	RDBAH = 0x04,
	RDLEN = 0x08,
	DCA_RXCTRL = 0x0C,
	RDH = 0x10,
	SRRCTL = 0x14,
	SRRCTL_DESCTYPE_LEGACY = 0,
	SRRCTL_DESCTYPE_ADVANCED = 1,
	SRRCTL_DROP_EN = 1u << 28,
	RDT = 0x18,
	RXDCTL = 0x28,
	RXDCTL_VME = 1u << 30,
	QUEUE_ENABLE = 1u << 25,        /* of RXDCTL and TXDCTL */
	QUEUE_SWFLSH = 1u << 26,
	RSCCTL = 0x2C,
	RSCCTL_RSCEN = 1u << 0,
	QPRC = 0x30,
	QBRC_L = 0x34,
	QBRC_H = 0x38,
	QPRDC = 0x1430,                 /* + 0x40 n; of 16 counters */

	/* Receive: the rest */
	RQSMR = 0x02300,
	RDRXCTL = 0x02F00,
	RDRXCTL_CRCSTRIP = 1u << 1,
	RDRXCTL_DMAIDONE = 1u << 3,
	RXCTRL = 0x03000,
	RXCTRL_RXEN = 1u << 0,
	FCTTV = 0x03200,
	FCRTL = 0x03220,
	FCRTH = 0x03260,
	FCRT_ENABLE = 1u << 31,         /* "XONE" and "FCEN" */
	RXPBSIZE = 0x03C00,
	FCCFG = 0x03D00,
	FCCFG_TFCE_LINK = 1u << 3,
	RXCSUM = 0x05000,
	RXCSUM_IPPCSE = 1u << 12,
	RXCSUM_PCSD = 1u << 13,
	RFCTL = 0x05008,
	RFCTL_RSC_DIS = 1u << 5,
	FCTRL = 0x05080,
	FCTRL_SBP = 1u << 1,
	FCTRL_MPE = 1u << 8,
	FCTRL_UPE = 1u << 9,
	FCTRL_BAM = 1u << 10,
	VLNCTRL = 0x05088,
	VLNCTRL_VFE = 1u << 30,
	MCSTCTRL = 0x05090,
	MCSTCTRL_MFE = 1u << 2,
	ETQF = 0x05128,                 /* 8 of them */
	ETQF_ENABLE = 1u << 31,
	ETQS = 0x0EC00,
	ETQS_QUEUE_EN = 1u << 31,
	VT_CTL = 0x051B0,
	MTA = 0x05200,                  /* 128 of them */
	RAL_OLD = 0x05400,              /* of the first 16, as the 82598 had them */
	MRQC = 0x05818,
	RETA = 0x05C00,                 /* 32 of them, each with 4 entries */
	RSSRK = 0x05C80,                /* 10 of them */
	VFTA = 0x0A000,                 /* 128 of them */
	RAL = 0x0A200,                  /* + 8 n; 128 of them */
	RAH_AV = 1u << 31,
	MPSAR = 0x0A600,
	SECRXCTRL = 0x08D00,
	SECRXSTAT = 0x08D04,
	SEC_READY = 1u << 0,
	FDIRCTRL = 0x0EE00,
	FDIRCTRL_INIT_DONE = 1u << 3,
	FDIRCTRL_PERFECT = 1u << 4,
	FDIRSIPV6 = 0x0EE0C,
	FDIRIPSA = 0x0EE18,
	FDIRIPDA = 0x0EE1C,
	FDIRPORT = 0x0EE20,
	FDIRVLAN = 0x0EE24,
	FDIRHASH = 0x0EE28,
	FDIRCMD = 0x0EE2C,
	FDIRCMD_CMD = 3,
	FDIRCMD_FILTER_VALID = 1u << 2,
	FDIRCMD_CLEARHT = 1u << 8,
	FDIRCMD_DROP = 1u << 9,
	FDIRCMD_QUEUE_EN = 1u << 15,
	FDIRFREE = 0x0EE38,
	FDIRDIP4M = 0x0EE3C,
	FDIRSIP4M = 0x0EE40,
	FDIRTCPM = 0x0EE44,
	FDIRUDPM = 0x0EE48,
	FDIRLEN = 0x0EE4C,
	FDIRUSTAT = 0x0EE50,
	FDIRFSTAT = 0x0EE54,
	FDIRMATCH = 0x0EE58,
	FDIRMISS = 0x0EE5C,
	FDIRM = 0x0EE70,

	/* Transmit: a queue's registers, from its first one */
	TDBAL = 0x00,
	TDBAH = 0x04,
	TDLEN = 0x08,
	DCA_TXCTRL = 0x0C,
	TDH = 0x10,
	TDT = 0x18,
	TXDCTL = 0x28,
	TDWBAL = 0x38,
	TDWBAL_HEAD_WB = 1u << 0,
	TDWBAH = 0x3C,

	/* Transmit: the rest */
	RTTDCS = 0x04900,
	RTTDCS_ARBDIS = 1u << 6,
	RTTDQSEL = 0x04904,
	DMATXCTL = 0x04A80,
	DMATXCTL_TE = 1u << 0,
	DTXTCPFLGL = 0x04A88,
	DTXTCPFLGH = 0x04A8C,
	DTXMXSZRQ = 0x08100,
	MTQC = 0x08120,
	TQSM = 0x08600,
	SECTXCTRL = 0x08800,
	SECTXSTAT = 0x08804,
	SECTXBUFFAF = 0x08808,
	SECTXMINIFG = 0x08810,
	TXPBSIZE = 0x0CC00,

	/* MAC and link */
	HLREG0 = 0x04240,
	HLREG0_TXCRCEN = 1u << 0,
	HLREG0_RXCRCSTRP = 1u << 1,
	HLREG0_JUMBOEN = 1u << 2,
	HLREG0_TXPADEN = 1u << 10,
	HLREG0_LPBK = 1u << 15,
	MSCA = 0x0425C,
	MSCA_COMMAND = 1u << 30,
	MSRWD = 0x04260,
	MAXFRS = 0x04268,
	MFLCN = 0x04294,
	MFLCN_PMCF = 1u << 0,
	MFLCN_DPF = 1u << 1,
	MFLCN_RFCE = 1u << 3,
	AUTOC = 0x042A0,
	AUTOC_FLU = 1u << 0,
	AUTOC_RESTART_AN = 1u << 12,
	AUTOC_LMS_10G_SERIAL = 3u << 13,
	AUTOC_LMS_KX4_KX = 4u << 13,
	AUTOC_KX_SUPP = 1u << 30,
	AUTOC_KX4_SUPP = 1u << 31,
	AUTOC2 = 0x042A8,
	AUTOC2_10G_SFI = 2u << 16,
	AUTOC2_LINK_DISABLE = 7u << 28,
	LINKS = 0x042A4,
	LINKS_UP = 1u << 30,
	LINKS_SPEED_10G = 3u << 28,
	LINKS_10G_ALIGN = 1u << 17,
	LINKS_KX_AN_COMP = 1u << 31,
	LINKS2 = 0x04324,
	ANLP1 = 0x042B0,
	MACC = 0x04330,

	/* Statistics that the model counts */
	RUC = 0x040A4,
	ROC = 0x040AC,
	MPC = 0x03FA0,
	RNBC = 0x03FC0,
	LXONTXC = 0x03F60,
	LXOFFTXC = 0x03F68,
	LXONRXCNT = 0x041A4,
	LXOFFRXCNT = 0x041A8,
	PRC64 = 0x0405C,                /* six, by size */
	GPRC = 0x04074,
	BPRC = 0x04078,
	MPRC = 0x0407C,
	GPTC = 0x04080,
	GORCL = 0x04088,
	GORCH = 0x0408C,
	GOTCL = 0x04090,
	GOTCH = 0x04094,
	TORL = 0x040C0,
	TORH = 0x040C4,
	TPR = 0x040D0,
	TPT = 0x040D4,
	PTC64 = 0x040D8,                /* six, by size */
	MPTC = 0x040F0,
	BPTC = 0x040F4,
	QPTC = 0x08680,                 /* + 4 n; of 16 counters */
	QBTC_L = 0x08700,               /* + 8 n */
	QBTC_H = 0x08704,
};

/* Descriptors. */
enum {
	DESCRIPTOR_SIZE = 16,
	/* Transmit, third word: of both formats */
	DCMD_EOP = 1u << 24,
	DCMD_IFCS = 1u << 25,
	DCMD_IC = 1u << 26,             /* legacy only: insert a checksum */
	DCMD_RS = 1u << 27,
	DCMD_DEXT = 1u << 29,
	DCMD_VLE = 1u << 30,
	DCMD_TSE = 1u << 31,            /* advanced only */
	DTYP_CONTEXT = 2,
	DTYP_DATA = 3,
	TUCMD_IPV4 = 1u << 10,
	L4T_UDP = 0,
	L4T_TCP = 1,
	L4T_SCTP = 2,
	/* Transmit, fourth word */
	TX_DD = 1u << 0,
	TX_CC = 1u << 7,
	POPTS_IXSM = 1u << 8,
	POPTS_TXSM = 1u << 9,
	POPTS_IPSEC = 1u << 10,
	/* Receive, advanced, written back: first word */
	PTYPE_IPV4 = 1u << 4,
	PTYPE_IPV4E = 1u << 5,
	PTYPE_IPV6 = 1u << 6,
	PTYPE_IPV6E = 1u << 7,
	PTYPE_TCP = 1u << 8,
	PTYPE_UDP = 1u << 9,
	PTYPE_SCTP = 1u << 10,
	PTYPE_ETQF = 1u << 15,
	/* Third word, and the legacy one's status and errors */
	RX_RSCCNT_SHIFT = 17,           /* in the first word: how many segments begin there, and one more */
	RX_NEXTP_SHIFT = 4,
	RX_DD = 1u << 0,
	RX_EOP = 1u << 1,
	RX_FLM = 1u << 2,
	RX_VP = 1u << 3,
	RX_UDPCS = 1u << 4,
	RX_L4I = 1u << 5,
	RX_IPCS = 1u << 6,
	RX_PIF = 1u << 7,
	RX_TCPE = 1u << 30,
	RX_IPE = 1u << 31,
};

#endif
