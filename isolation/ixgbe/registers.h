// SPDX-License-Identifier: MIT
//
// The 82599's registers and descriptors, by the names of Intel's 82599 10 GbE Controller Datasheet, revision 3.4.
// All are little-endian, as the processors that this runs on.
#ifndef ORBIT_ISOLATION_IXGBE_REGISTERS_H
#define ORBIT_ISOLATION_IXGBE_REGISTERS_H

#include <bit>
#include <cstddef>
#include <cstdint>

namespace orbit::ixgbe {

static_assert(std::endian::native == std::endian::little);

inline constexpr std::uint16_t vendor_intel = 0x8086;
inline constexpr std::uint16_t device_sfp = 0x10fb;	 // 82599ES, SFI/SFP+
inline constexpr std::uint16_t device_backplane = 0x10f7; // 82599EB, KX/KX4

// Base address register 0: 32-bit registers.
namespace reg {
// General (section 8.2.3.1)
inline constexpr std::size_t ctrl = 0x00000;
inline constexpr std::size_t status = 0x00008;
inline constexpr std::size_t ctrl_ext = 0x00018;
inline constexpr std::size_t eec = 0x10010; // EEPROM/Flash Control (8.2.3.2)

// Interrupts (8.2.3.5)
inline constexpr std::size_t eicr = 0x00800;
inline constexpr std::size_t eims = 0x00880;
inline constexpr std::size_t eimc = 0x00888;
inline constexpr std::size_t eiac = 0x00810;
constexpr std::size_t eiam_ex(unsigned half) { return 0x00ad0 + 4 * half; }
inline constexpr std::size_t gpie = 0x00898;
constexpr std::size_t eitr(unsigned vector) { return vector < 24 ? 0x00820 + 4 * vector : 0x12300 + 4 * (vector - 24); }
constexpr std::size_t eims_ex(unsigned half) { return 0x00aa0 + 4 * half; }
constexpr std::size_t eimc_ex(unsigned half) { return 0x00ab0 + 4 * half; }
constexpr std::size_t ivar(unsigned pair) { return 0x00900 + 4 * pair; } // of two queues
inline constexpr std::size_t ivar_misc = 0x00a00;

// Receive filters (8.2.3.7)
inline constexpr std::size_t fctrl = 0x05080;
inline constexpr std::size_t vlnctrl = 0x05088;
inline constexpr std::size_t rxcsum = 0x05000;
inline constexpr std::size_t mrqc = 0x05818;
constexpr std::size_t mta(unsigned n) { return 0x05200 + 4 * n; }
constexpr std::size_t ral(unsigned n) { return 0x0a200 + 8 * n; }
constexpr std::size_t rah(unsigned n) { return 0x0a204 + 8 * n; }
constexpr std::size_t vfta(unsigned n) { return 0x0a000 + 4 * n; }
constexpr std::size_t reta(unsigned n) { return 0x05c00 + 4 * n; }
constexpr std::size_t rssrk(unsigned n) { return 0x05c80 + 4 * n; }

// Receive DMA (8.2.3.8)
inline constexpr std::size_t rxctrl = 0x03000;
inline constexpr std::size_t rdrxctl = 0x02f00;
constexpr std::size_t rxpbsize(unsigned n) { return 0x03c00 + 4 * n; }
constexpr std::size_t rx_queue(unsigned n) { return n < 64 ? 0x01000 + 0x40 * n : 0x0d000 + 0x40 * (n - 64); }
constexpr std::size_t rdbal(unsigned n) { return rx_queue(n) + 0x00; }
constexpr std::size_t rdbah(unsigned n) { return rx_queue(n) + 0x04; }
constexpr std::size_t rdlen(unsigned n) { return rx_queue(n) + 0x08; }
constexpr std::size_t dca_rxctrl(unsigned n) { return rx_queue(n) + 0x0c; }
constexpr std::size_t rdh(unsigned n) { return rx_queue(n) + 0x10; }
constexpr std::size_t srrctl(unsigned n) { return rx_queue(n) + 0x14; }
constexpr std::size_t rdt(unsigned n) { return rx_queue(n) + 0x18; }
constexpr std::size_t rxdctl(unsigned n) { return rx_queue(n) + 0x28; }

// Transmit (8.2.3.9, 8.2.3.10)
inline constexpr std::size_t dmatxctl = 0x04a80;
inline constexpr std::size_t dtxmxszrq = 0x08100;
inline constexpr std::size_t rttdcs = 0x04900;
inline constexpr std::size_t mtqc = 0x08120;
constexpr std::size_t txpbsize(unsigned n) { return 0x0cc00 + 4 * n; }
constexpr std::size_t txpbthresh(unsigned n) { return 0x04950 + 4 * n; }
constexpr std::size_t tx_queue(unsigned n) { return 0x06000 + 0x40 * n; }
constexpr std::size_t tdbal(unsigned n) { return tx_queue(n) + 0x00; }
constexpr std::size_t tdbah(unsigned n) { return tx_queue(n) + 0x04; }
constexpr std::size_t tdlen(unsigned n) { return tx_queue(n) + 0x08; }
constexpr std::size_t tdh(unsigned n) { return tx_queue(n) + 0x10; }
constexpr std::size_t tdt(unsigned n) { return tx_queue(n) + 0x18; }
constexpr std::size_t txdctl(unsigned n) { return tx_queue(n) + 0x28; }

// Security blocks, which stand in the receive path (8.2.3.12)
inline constexpr std::size_t secrxctrl = 0x08d00;
inline constexpr std::size_t secrxstat = 0x08d04;

// MAC and link (8.2.3.22)
inline constexpr std::size_t hlreg0 = 0x04240;
inline constexpr std::size_t maxfrs = 0x04268;
inline constexpr std::size_t autoc = 0x042a0;
inline constexpr std::size_t autoc2 = 0x042a8;
inline constexpr std::size_t links = 0x042a4;

// Statistics, cleared by reading them (8.2.3.23)
inline constexpr std::size_t crcerrs = 0x04000;
inline constexpr std::size_t illerrc = 0x04004;
inline constexpr std::size_t errbc = 0x04008;
inline constexpr std::size_t gprc = 0x04074;
inline constexpr std::size_t gptc = 0x04080;
inline constexpr std::size_t gorcl = 0x04088;
inline constexpr std::size_t gorch = 0x0408c;
inline constexpr std::size_t gotcl = 0x04090;
inline constexpr std::size_t gotch = 0x04094;
inline constexpr std::size_t ruc = 0x040a4;
inline constexpr std::size_t roc = 0x040ac;
constexpr std::size_t rxmpc(unsigned n) { return 0x03fa0 + 4 * n; }
constexpr std::size_t rqsmr(unsigned n) { return 0x02300 + 4 * n; } // which of 16 counters a queue has, of four queues
constexpr std::size_t qprdc(unsigned n) { return 0x01430 + 0x40 * n; }
} // namespace reg

inline constexpr std::uint32_t gone = ~0U; // what reads of a device that is not there return

namespace ctrl {
inline constexpr std::uint32_t master_disable = 1U << 2;
inline constexpr std::uint32_t lrst = 1U << 3;
inline constexpr std::uint32_t rst = 1U << 26;
} // namespace ctrl

namespace status {
inline constexpr std::uint32_t master_enabled = 1U << 19;
} // namespace status

namespace ctrl_ext {
inline constexpr std::uint32_t ns_dis = 1U << 16;
inline constexpr std::uint32_t drv_load = 1U << 28;
} // namespace ctrl_ext

namespace eec {
inline constexpr std::uint32_t auto_rd = 1U << 9;
} // namespace eec

namespace fctrl {
inline constexpr std::uint32_t mpe = 1U << 8;  // all multicast
inline constexpr std::uint32_t upe = 1U << 9;  // all unicast
inline constexpr std::uint32_t bam = 1U << 10; // broadcast
} // namespace fctrl

namespace vlnctrl {
inline constexpr std::uint32_t vfe = 1U << 30; // packets with a tag of a VLAN that VFTA has not are dropped
} // namespace vlnctrl

namespace rah {
inline constexpr std::uint32_t valid = 1U << 31;
} // namespace rah

namespace mrqc {
inline constexpr std::uint32_t rss = 1;
inline constexpr std::uint32_t tcp_ipv4 = 1U << 16;
inline constexpr std::uint32_t ipv4 = 1U << 17;
inline constexpr std::uint32_t ipv6 = 1U << 20;
inline constexpr std::uint32_t tcp_ipv6 = 1U << 21;
inline constexpr std::uint32_t udp_ipv4 = 1U << 22;
inline constexpr std::uint32_t udp_ipv6 = 1U << 23;
} // namespace mrqc

namespace rxctrl {
inline constexpr std::uint32_t rxen = 1;
} // namespace rxctrl

namespace rdrxctl {
inline constexpr std::uint32_t crc_strip = 1U << 1;
inline constexpr std::uint32_t dma_init_done = 1U << 3;
inline constexpr std::uint32_t rsc_first_size = 0x1fU << 17; // to be 0
inline constexpr std::uint32_t rsc_ack = 1U << 25;	     // reserved, to be 1
inline constexpr std::uint32_t fcoe_wrfix = 1U << 26;	     // likewise
} // namespace rdrxctl

namespace srrctl {
constexpr std::uint32_t packet_bytes(unsigned n) { return n / 1024; }
inline constexpr std::uint32_t advanced_one_buffer = 1U << 25;
inline constexpr std::uint32_t desctype = 7U << 25;
inline constexpr std::uint32_t drop_en = 1U << 28;
} // namespace srrctl

// RXDCTL and TXDCTL
namespace qctl {
inline constexpr std::uint32_t enable = 1U << 25;
constexpr std::uint32_t thresholds(unsigned prefetch, unsigned host, unsigned write_back)
{
	return prefetch | host << 8 | write_back << 16;
}
} // namespace qctl

namespace dca_rxctrl {
inline constexpr std::uint32_t reserved = 1U << 12; // 1 after reset, to be 0
} // namespace dca_rxctrl

namespace dmatxctl {
inline constexpr std::uint32_t te = 1;
} // namespace dmatxctl

namespace rttdcs {
inline constexpr std::uint32_t arbdis = 1U << 6;
} // namespace rttdcs

namespace secrx {
inline constexpr std::uint32_t rx_dis = 1U << 1; // of SECRXCTRL
inline constexpr std::uint32_t ready = 1;	  // of SECRXSTAT
} // namespace secrx

namespace hlreg0 {
inline constexpr std::uint32_t tx_crc = 1;
inline constexpr std::uint32_t rx_crc_strip = 1U << 1;
inline constexpr std::uint32_t jumbo = 1U << 2;
inline constexpr std::uint32_t tx_pad = 1U << 10;
} // namespace hlreg0

namespace autoc {
inline constexpr std::uint32_t lms = 7U << 13;
inline constexpr std::uint32_t lms_10g_serial = 3U << 13;
inline constexpr std::uint32_t restart_an = 1U << 12;
} // namespace autoc

namespace autoc2 {
inline constexpr std::uint32_t pma_10g_serial = 3U << 16;
inline constexpr std::uint32_t sfi = 2U << 16;
} // namespace autoc2

namespace links {
inline constexpr std::uint32_t up = 1U << 30;
constexpr unsigned speed(std::uint32_t value) { return value >> 28 & 3; } // 1: 100 Mbit/s, 2: 1 Gbit/s, 3: 10 Gbit/s
} // namespace links

namespace gpie {
inline constexpr std::uint32_t msix = 1U << 4;
inline constexpr std::uint32_t pba = 1U << 31;
inline constexpr std::uint32_t eiame = 1U << 30;
} // namespace gpie

namespace eitr {
inline constexpr unsigned most_us = 1046;
// So many microseconds from one interrupt of a vector to the next, in steps of 2.048.
constexpr std::uint32_t interval(unsigned us) { return (us * 1000 + 2047) / 2048 << 3; }
} // namespace eitr

namespace ivar {
// A quarter of an IVAR register: transmit queues have the odd ones.
constexpr unsigned shift(unsigned queue, bool transmit) { return 16 * (queue & 1) + 8 * transmit; }
constexpr std::uint32_t entry(unsigned vector) { return 0x80 | vector; }
inline constexpr unsigned other_shift = 8; // in IVAR_MISC: causes that are not queues
} // namespace ivar

// Advanced receive descriptor (7.1.6): as the driver writes it, and as the device writes it back.
struct RxRead {
	std::uint64_t packet;
	std::uint64_t header;
};
struct RxWriteBack {
	std::uint32_t info;
	std::uint32_t rss;
	std::uint32_t status_error;
	std::uint16_t length;
	std::uint16_t vlan;
};
static_assert(sizeof(RxRead) == 16 && sizeof(RxWriteBack) == 16);

namespace rx {
inline constexpr std::uint32_t dd = 1;
inline constexpr std::uint32_t eop = 1U << 1;
inline constexpr std::uint32_t l4cs = 1U << 5; // the TCP or UDP checksum was looked at
inline constexpr std::uint32_t ipcs = 1U << 6;
inline constexpr std::uint32_t rxe = 1U << 29;
inline constexpr std::uint32_t l4e = 1U << 30;
inline constexpr std::uint32_t ipe = 1U << 31;
} // namespace rx

// Advanced transmit data descriptor (7.2.3.2.4).
struct TxData {
	std::uint64_t address;
	std::uint32_t cmd_type_len;
	std::uint32_t olinfo_status;
};
static_assert(sizeof(TxData) == 16);

namespace tx {
inline constexpr std::uint32_t data = 3U << 20; // DTYP
inline constexpr std::uint32_t eop = 1U << 24;
inline constexpr std::uint32_t ifcs = 1U << 25; // insert the frame's checksum
inline constexpr std::uint32_t rs = 1U << 27;	 // report status
inline constexpr std::uint32_t dext = 1U << 29;
inline constexpr unsigned paylen_shift = 14;
inline constexpr std::uint32_t dd = 1; // in olinfo_status, when it has been written back
} // namespace tx

} // namespace orbit::ixgbe

#endif
