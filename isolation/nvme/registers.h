// SPDX-License-Identifier: MIT
//
// NVMe's registers, commands and data structures, by the names of the NVM Express Base Specification, revision 1.4.
// All are little-endian, as the processors that this runs on.
#ifndef ORBIT_ISOLATION_NVME_REGISTERS_H
#define ORBIT_ISOLATION_NVME_REGISTERS_H

#include <bit>
#include <cstddef>
#include <cstdint>

namespace orbit::nvme {

static_assert(std::endian::native == std::endian::little);

// Base address register 0 (section 3.1).
namespace reg {
inline constexpr std::size_t cap = 0x00;   // Controller Capabilities, 64 bits
inline constexpr std::size_t vs = 0x08;    // Version
inline constexpr std::size_t intms = 0x0c; // Interrupt Mask Set
inline constexpr std::size_t intmc = 0x10; // Interrupt Mask Clear
inline constexpr std::size_t cc = 0x14;    // Controller Configuration
inline constexpr std::size_t csts = 0x1c;  // Controller Status
inline constexpr std::size_t aqa = 0x24;   // Admin Queue Attributes
inline constexpr std::size_t asq = 0x28;   // Admin Submission Queue Base Address, 64 bits
inline constexpr std::size_t acq = 0x30;   // Admin Completion Queue Base Address, 64 bits
inline constexpr std::size_t doorbells = 0x1000;
} // namespace reg

// CAP, section 3.1.1.
struct Cap {
	std::uint64_t value;

	constexpr unsigned mqes() const { return static_cast<unsigned>(value & 0xffff) + 1; } // entries of a queue at most
	constexpr bool cqr() const { return value >> 16 & 1; }				       // queues must be contiguous
	constexpr unsigned to() const { return static_cast<unsigned>(value >> 24 & 0xff); }   // in 500 ms
	constexpr unsigned dstrd() const { return static_cast<unsigned>(value >> 32 & 0xf); } // 4 << it between doorbells
	constexpr bool nvm() const { return value >> 37 & 1; }				       // has the NVM command set
	constexpr unsigned mpsmin() const { return static_cast<unsigned>(value >> 48 & 0xf); } // pages of 4096 << it
	constexpr unsigned mpsmax() const { return static_cast<unsigned>(value >> 52 & 0xf); }
};

// CC, section 3.1.5.
namespace cc {
inline constexpr std::uint32_t en = 1;
constexpr std::uint32_t mps(unsigned n) { return n << 7; }
inline constexpr std::uint32_t shn_normal = 1 << 14;
inline constexpr std::uint32_t iosqes = 6 << 16; // 64 bytes
inline constexpr std::uint32_t iocqes = 4 << 20; // 16 bytes
} // namespace cc

// CSTS, section 3.1.6.
namespace csts {
inline constexpr std::uint32_t rdy = 1;
inline constexpr std::uint32_t cfs = 1 << 1;
inline constexpr std::uint32_t shst = 3 << 2;
inline constexpr std::uint32_t shst_complete = 2 << 2;
inline constexpr std::uint32_t gone = ~0U; // what reads of a device that is not there return
} // namespace csts

enum class AdminOpcode : std::uint8_t {
	delete_sq = 0x00,
	create_sq = 0x01,
	get_log_page = 0x02,
	delete_cq = 0x04,
	create_cq = 0x05,
	identify = 0x06,
	abort = 0x08,
	set_features = 0x09,
	get_features = 0x0a,
	asynchronous_event_request = 0x0c,
};

enum class IoOpcode : std::uint8_t {
	flush = 0x00,
	write = 0x01,
	read = 0x02,
	write_zeroes = 0x08,
	dataset_management = 0x09,
};

// A submission queue's entry, section 4.2.
struct Command {
	std::uint8_t opcode = 0;
	std::uint8_t flags = 0; // 1:0 fused operation; 7:6 PSDT: PRPs or SGLs
	std::uint16_t cid = 0;
	std::uint32_t nsid = 0;
	std::uint32_t cdw2 = 0;
	std::uint32_t cdw3 = 0;
	std::uint64_t mptr = 0;
	std::uint64_t prp1 = 0; // or the address in an SGL's first descriptor,
	std::uint64_t prp2 = 0; // and its length and type
	std::uint32_t cdw10 = 0;
	std::uint32_t cdw11 = 0;
	std::uint32_t cdw12 = 0;
	std::uint32_t cdw13 = 0;
	std::uint32_t cdw14 = 0;
	std::uint32_t cdw15 = 0;
};
static_assert(sizeof(Command) == 64);

// PSDT: there is an SGL's descriptor in the place of PRPs.
inline constexpr std::uint8_t psdt_sgl = 1 << 6;

// The second half of an SGL Data Block descriptor, section 4.4: type and subtype are 0.
constexpr std::uint64_t sgl_data_block(std::uint32_t bytes) { return bytes; }

// A completion queue's entry, section 4.6.
struct Completion {
	std::uint32_t dw0 = 0;
	std::uint32_t dw1 = 0;
	std::uint16_t sqhd = 0;
	std::uint16_t sqid = 0;
	std::uint16_t cid = 0;
	std::uint16_t status = 0; // with the phase tag in bit 0
};
static_assert(sizeof(Completion) == 16);

// The status field without the phase tag: section 4.6.1.
struct Status {
	std::uint16_t value = 0;

	constexpr bool ok() const { return (value & 0x7ff) == 0; }
	constexpr unsigned sc() const { return value & 0xff; }	   // status code
	constexpr unsigned sct() const { return value >> 8 & 7; } // status code type
	constexpr bool dnr() const { return value >> 14 & 1; }	   // do not retry
};

namespace sct {
inline constexpr unsigned generic = 0;
inline constexpr unsigned specific = 1;
inline constexpr unsigned media = 2;
} // namespace sct

namespace sc {
inline constexpr unsigned invalid_opcode = 0x01;
inline constexpr unsigned invalid_field = 0x02;
inline constexpr unsigned data_transfer_error = 0x04;
inline constexpr unsigned aborted_power_loss = 0x05;
inline constexpr unsigned internal_error = 0x06;
inline constexpr unsigned abort_requested = 0x07;
inline constexpr unsigned aborted_sq_deletion = 0x08;
inline constexpr unsigned invalid_namespace = 0x0b;
inline constexpr unsigned lba_out_of_range = 0x80;
inline constexpr unsigned capacity_exceeded = 0x81;
inline constexpr unsigned namespace_not_ready = 0x82;
// Of type media.
inline constexpr unsigned write_fault = 0x80;
inline constexpr unsigned unrecovered_read_error = 0x81;
inline constexpr unsigned access_denied = 0x86;
} // namespace sc

namespace cns {
inline constexpr std::uint32_t identify_namespace = 0;
inline constexpr std::uint32_t controller = 1;
inline constexpr std::uint32_t active_namespaces = 2;
inline constexpr std::uint32_t controller_of_command_set = 6; // of the NVM command set, if nothing else is asked for
} // namespace cns

namespace feature {
inline constexpr std::uint32_t number_of_queues = 0x07;
inline constexpr std::uint32_t asynchronous_events = 0x0b;
} // namespace feature

// Identify Controller, section 5.15.2.2: what is used of it.
struct IdentifyController {
	std::uint16_t vid;
	std::uint16_t ssvid;
	char sn[20];
	char mn[40];
	char fr[8];
	std::uint8_t rab;
	std::uint8_t ieee[3];
	std::uint8_t cmic;
	std::uint8_t mdts; // transfers of 2^it of the smallest pages at most; 0: any
	std::uint16_t cntlid;
	std::uint32_t ver;
	std::uint32_t rtd3r;
	std::uint32_t rtd3e;
	std::uint32_t oaes; // asynchronous events that may be asked for
	std::uint8_t reserved96[162];
	std::uint8_t acl;  // aborts at a time, less 1
	std::uint8_t aerl; // asynchronous event requests at a time, less 1
	std::uint8_t frmw;
	std::uint8_t lpa;
	std::uint8_t reserved262[250];
	std::uint8_t sqes; // sizes of entries, powers of 2: 3:0 the least, 7:4 the most
	std::uint8_t cqes;
	std::uint16_t maxcmd;
	std::uint32_t nn; // the highest number of a namespace
	std::uint16_t oncs;
	std::uint16_t fuses;
	std::uint8_t fna;
	std::uint8_t vwc; // bit 0: has a volatile write cache
	std::uint8_t reserved526[10];
	std::uint32_t sgls; // 1:0: takes SGLs in commands of the NVM command set, see there
	std::uint8_t reserved540[3556];
};
static_assert(sizeof(IdentifyController) == 4096 && offsetof(IdentifyController, mdts) == 77 &&
	      offsetof(IdentifyController, acl) == 258 && offsetof(IdentifyController, nn) == 516 &&
	      offsetof(IdentifyController, vwc) == 525 && offsetof(IdentifyController, sgls) == 536);

// Identify Controller of the NVM command set (NVM Command Set specification, section 4.1.5.4). 0: no limit is told.
struct IdentifyNvmController {
	std::uint8_t vsl;
	std::uint8_t wzsl; // Write Zeroes clears 2^it of the smallest pages at most
	std::uint8_t wusl;
	std::uint8_t dmrl;  // ranges of one Dataset Management
	std::uint32_t dmrsl; // logical blocks of one range
	std::uint64_t dmsl;  // of all its ranges
	std::uint8_t reserved16[4080];
};
static_assert(sizeof(IdentifyNvmController) == 4096 && offsetof(IdentifyNvmController, dmsl) == 8);

// Bits 1:0 of SGLS.
namespace sgls {
inline constexpr unsigned mask = 3;
inline constexpr unsigned any_alignment = 1;
inline constexpr unsigned dwords = 2; // addresses and lengths are multiples of 4
} // namespace sgls

namespace oncs {
inline constexpr unsigned dataset_management = 1 << 2;
inline constexpr unsigned write_zeroes = 1 << 3;
} // namespace oncs

// Identify Namespace, section 5.15.2.1: what is used of it.
struct IdentifyNamespace {
	std::uint64_t nsze; // logical blocks
	std::uint64_t ncap;
	std::uint64_t nuse;
	std::uint8_t nsfeat;
	std::uint8_t nlbaf; // LBA formats, less 1
	std::uint8_t flbas; // 3:0 the format in use; bit 4: metadata at the data's end
	std::uint8_t mc;
	std::uint8_t dpc;
	std::uint8_t dps; // 2:0 protection information in use
	std::uint8_t reserved30[98];
	struct {
		std::uint16_t ms;   // bytes of metadata for each block
		std::uint8_t lbads; // blocks of 2^it bytes
		std::uint8_t rp;
	} lbaf[16];
	std::uint8_t reserved192[3904];
};
static_assert(sizeof(IdentifyNamespace) == 4096 && offsetof(IdentifyNamespace, lbaf) == 128);

// A range of Dataset Management, section 6.7.
struct DsmRange {
	std::uint32_t attributes;
	std::uint32_t blocks;
	std::uint64_t lba;
};
static_assert(sizeof(DsmRange) == 16);
inline constexpr std::uint32_t dsm_deallocate = 1 << 2; // in CDW11

// Asynchronous Event Information in a completion's DW0, section 5.2.
struct AsynchronousEvent {
	std::uint32_t value;

	constexpr unsigned type() const { return value & 7; }
	constexpr unsigned information() const { return value >> 8 & 0xff; }
	constexpr unsigned log_page() const { return value >> 16 & 0xff; }
};

} // namespace orbit::nvme

#endif
