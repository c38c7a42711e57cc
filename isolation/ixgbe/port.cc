// SPDX-License-Identifier: MIT
#include "port.h"

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstring>
#include <thread>

namespace orbit::ixgbe {

using isolation::refused;
using namespace std::chrono_literals;

namespace {

constexpr unsigned most_entries = 4096;
constexpr std::uint32_t shortest = 14; // an Ethernet header; the device pads
constexpr std::uint32_t check_bytes = 4;

constexpr std::size_t ring_alignment = 128;

} // namespace

// Queues

result<void> Queue::use(std::shared_ptr<Frames> frames)
{
	if (rx_.used || tx_.used)
		return refused(-EBUSY, "the device has frames of this queue");
	// Bit 0 of a receive entry's address is not of the address (section 7.1.6.1).
	if (frames->view().iova % 2 || frames->view().frame_bytes != port_.options_.frame_bytes)
		return refused(-EINVAL, "frames at an odd address, or of another size than the port's");
	frames_ = std::move(frames);
	return {};
}

// The device looks at an entry only when the tail is told.

static void fill(RxRead *at, std::uint64_t iova) noexcept
{
	const RxRead entry{.packet = iova, .header = 0};

	std::memcpy(at, &entry, sizeof(entry)); // it is read as an RxWriteBack
}

static void fill(TxData *at, std::uint64_t iova, std::uint32_t bytes) noexcept
{
	*at = {.address = iova, .cmd_type_len = bytes | tx::data | tx::eop | tx::ifcs | tx::dext, .olinfo_status = bytes << tx::paylen_shift};
}

// The next entry of the receive ring.
void Queue::put_receive(std::uint32_t frame) noexcept
{
	fill(reinterpret_cast<RxRead *>(rx_.entries) + rx_.tail, frames_->view().iova_of(frame));
	rx_.frames[rx_.tail] = frame;
	rx_.tail = rx_.next(rx_.tail);
	rx_.used++;
}

// What their loops use again and again is in variables of their own: for all the compiler knows, an entry that is written could be
// any of the members.

std::size_t Queue::give(std::span<const std::uint32_t> frames)
{
	if (port_.failed() || !frames_)
		return 0;
	const Frames::View from = frames_->view();
	const std::size_t most = std::min<std::size_t>(frames.size(), rx_.free());
	auto *const entries = reinterpret_cast<RxRead *>(rx_.entries);
	std::uint32_t *const numbers = rx_.frames.data();
	unsigned tail = rx_.tail;
	std::size_t n = 0;

	for (; n < most && from.take(frames[n]); n++) {
		fill(entries + tail, from.iova_of(frames[n]));
		numbers[tail] = frames[n];
		tail = rx_.next(tail);
	}
	if (!n)
		return 0;
	rx_.tail = tail;
	rx_.used += static_cast<unsigned>(n);
	// Bar::write() has the barrier between the entries and this.
	port_.write(reg::rdt(number_), tail);
	return n;
}

std::span<Packet> Queue::receive(std::span<Packet> room)
{
	if (!rx_.used || port_.failed())
		return {};
	const Frames::View to = frames_->view();
	const auto *const entries = reinterpret_cast<const RxWriteBack *>(rx_.entries);
	const std::uint32_t *const numbers = rx_.frames.data();
	const unsigned frame_bytes = port_.options_.frame_bytes, size = rx_.size;
	const unsigned most = rx_.used; // none that is given again below
	unsigned head = rx_.head, seen = 0;
	std::size_t n = 0;
	bool again = false;

	while (n < room.size() && seen < most) {
		// Those that are right, as far as the ring's end.
		const auto run = static_cast<unsigned>(std::min<std::size_t>(room.size() - n, std::min(most - seen, size - head)));
		const RxWriteBack *const first = entries + head, *entry = first;
		const std::uint32_t *number = numbers + head;
		Packet *packet = room.data() + n;
		std::uint32_t status = 0; // of the last entry looked at

		for (; entry != first + run; entry++, number++, packet++) {
			// The device writes an entry back whole; its length is read after the bits that say so.
			status = __atomic_load_n(&entry->status_error, __ATOMIC_ACQUIRE);
			if ((status & (rx::dd | rx::eop | rx::rxe)) != (rx::dd | rx::eop))
				break;
			const std::uint32_t bytes = entry->length, frame = *number;

			if (bytes - 1 >= frame_bytes)
				break;
			packet->bytes = bytes;
			to.give_back(frame);
			packet->frame = frame;
		}
		const auto right = static_cast<unsigned>(entry - first);

		n += right;
		seen += right;
		head = head + right == size ? 0 : head + right;
		if (right == run)
			continue;

		// And one that is not, by the same look: to a second one, a packet that came in between would seem damaged.
		if (!(status & rx::dd))
			break;
		// All packets that the device accepts fit into a frame, see MAXFRS.
		if (entries[head].length > frame_bytes) {
			port_.fail("the device has received more than it has room for");
			break;
		}
		put_receive(numbers[head]);
		head = rx_.next(head);
		seen++;
		again = true;
		damaged_++;
	}
	rx_.head = head;
	rx_.used -= seen;
	if (again)
		port_.write(reg::rdt(number_), rx_.tail);
	return room.first(n);
}

std::size_t Queue::send(std::span<const Packet> packets)
{
	if (port_.failed() || !frames_)
		return 0;
	const Frames::View from = frames_->view();
	const std::size_t most = std::min<std::size_t>(packets.size(), tx_.free());
	const std::uint32_t range = port_.options_.longest - check_bytes - shortest;
	auto *const entries = reinterpret_cast<TxData *>(tx_.entries);
	std::uint32_t *const numbers = tx_.frames.data();
	unsigned tail = tx_.tail, last = tail;
	std::size_t n = 0;

	for (; n < most; n++) {
		const Packet packet = packets[n];

		if (packet.bytes - shortest > range || !from.take(packet.frame))
			break;
		fill(entries + tail, from.iova_of(packet.frame), packet.bytes);
		numbers[tail] = packet.frame;
		last = tail;
		tail = tx_.next(tail);
	}
	if (!n)
		return 0;
	// The last one is written back: what is before it has been sent by then, for entries are sent in order.
	entries[last].cmd_type_len |= tx::rs;
	last_[tx_.tail] = last;
	tx_.tail = tail;
	tx_.used += static_cast<unsigned>(n);
	port_.write(reg::tdt(number_), tail);
	return n;
}

// Whether there are any: the next `ended_` ones.
[[gnu::always_inline]] inline bool Queue::find_sent() noexcept
{
	if (ended_)
		return true;
	if (!tx_.used || port_.failed())
		return false;
	const unsigned last = last_[tx_.head];

	if (!(__atomic_load_n(&reinterpret_cast<const TxData *>(tx_.entries)[last].olinfo_status, __ATOMIC_ACQUIRE) & tx::dd))
		return false;
	ended_ = (last < tx_.head ? last + tx_.size : last) - tx_.head + 1;
	return true;
}

std::span<Packet> Queue::sent(std::span<Packet> room)
{
	const std::uint32_t *const numbers = tx_.frames.data();
	std::size_t n = 0;

	while (n < room.size() && find_sent()) {
		const auto count = static_cast<unsigned>(std::min<std::size_t>(ended_, room.size() - n));
		const Frames::View to = frames_->view();
		unsigned head = tx_.head;

		for (unsigned k = 0; k < count; k++) {
			const std::uint32_t frame = numbers[head];

			head = tx_.next(head);
			to.give_back(frame);
			room[n++] = {.frame = frame, .bytes = 0};
		}
		tx_.head = head;
		tx_.used -= count;
		ended_ -= count;
	}
	return room.first(n);
}

std::span<Packet> Queue::submit(std::span<const Packet> packets, std::span<Packet> room)
{
	std::size_t n = 0, at = 0;

	if (port_.failed() || !frames_) {
		for (const Packet packet : packets)
			room[n++] = {.frame = packet.frame, .bytes = 0};
		return room.first(n);
	}
	const Frames::View from = frames_->view();
	const std::uint32_t range = port_.options_.longest - check_bytes - shortest;
	auto *const rx_entries = reinterpret_cast<RxRead *>(rx_.entries);
	auto *const tx_entries = reinterpret_cast<TxData *>(tx_.entries);
	std::uint32_t *const rx_numbers = rx_.frames.data(), *const tx_numbers = tx_.frames.data();
	unsigned rx_tail = rx_.tail, tx_tail = tx_.tail, last = tx_tail;
	unsigned rx_free = rx_.free(), tx_free = tx_.free();

	while (at < packets.size()) {
		// As many as are to be sent, as far as the ring's end.
		const Packet *const next = packets.data() + at;
		const auto run = static_cast<unsigned>(std::min<std::size_t>(packets.size() - at, std::min(tx_free, tx_.size - tx_tail)));
		unsigned k = 0;

		for (; k < run; k++) {
			const Packet packet = next[k];

			if (packet.bytes - shortest > range || !from.take(packet.frame))
				break;
			fill(tx_entries + tx_tail + k, from.iova_of(packet.frame), packet.bytes);
			tx_numbers[tx_tail + k] = packet.frame;
		}
		if (k) {
			last = tx_tail + k - 1;
			tx_tail = last + 1 == tx_.size ? 0 : last + 1;
			tx_free -= k;
			at += k;
			continue;
		}
		const Packet packet = packets[at++];

		if (!packet.bytes && rx_free && from.take(packet.frame)) {
			fill(rx_entries + rx_tail, from.iova_of(packet.frame));
			rx_numbers[rx_tail] = packet.frame;
			rx_tail = rx_.next(rx_tail);
			rx_free--;
		} else {
			room[n++] = {.frame = packet.frame, .bytes = 0};
		}
	}
	if (rx_tail != rx_.tail) { // the ring is never full
		rx_.used = rx_.size - 1 - rx_free;
		rx_.tail = rx_tail;
		port_.write(reg::rdt(number_), rx_tail);
	}
	if (tx_tail != tx_.tail) {
		tx_entries[last].cmd_type_len |= tx::rs; // as in send()
		last_[tx_.tail] = last;
		tx_.used = tx_.size - 1 - tx_free;
		tx_.tail = tx_tail;
		port_.write(reg::tdt(number_), tx_tail);
	}
	return room.first(n);
}

unsigned Queue::recycle(unsigned keep)
{
	auto *const entries = reinterpret_cast<RxRead *>(rx_.entries);
	unsigned all = 0;

	keep = std::min(keep, rx_.size - 1);
	while (rx_.used < keep && find_sent()) {
		const Frames::View frames = frames_->view();
		const unsigned head = tx_.head, tail = rx_.tail;
		const unsigned count = std::min(std::min(ended_, keep - rx_.used), std::min(tx_.size - head, rx_.size - tail));

		const std::uint32_t *from = tx_.frames.data() + head;
		std::uint32_t *to = rx_.frames.data() + tail;
		RxRead *entry = entries + tail;

		for (RxRead *const end = entry + count; entry != end; entry++) {
			const std::uint32_t frame = *from++;

			fill(entry, frames.iova_of(frame));
			*to++ = frame;
		}
		tx_.head = head + count == tx_.size ? 0 : head + count;
		tx_.used -= count;
		ended_ -= count;
		rx_.tail = tail + count == rx_.size ? 0 : tail + count;
		rx_.used += count;
		all += count;
	}
	if (all)
		port_.write(reg::rdt(number_), rx_.tail);
	return all;
}

// The port

bool Port::possible(const PortOptions &options) noexcept
{
	return options.queues >= 1 && options.queues <= most_queues && options.entries >= 8 && options.entries <= most_entries &&
	       options.entries % 8 == 0 && options.frame_bytes % 1024 == 0 && options.frame_bytes >= 1024 &&
	       options.frame_bytes <= 15 * 1024 && options.longest >= 64 && options.longest <= options.frame_bytes && options.interrupt_us <= eitr::most_us;
}

std::size_t Port::memory_for(const PortOptions &options) noexcept
{
	return std::size_t{2} * options.queues * options.entries * sizeof(RxRead);
}

void Port::fail(const char *why) noexcept
{
	const char *none = nullptr;

	failed_.compare_exchange_strong(none, why, std::memory_order_relaxed);
}

result<void> Port::wait_for(std::size_t at, std::uint32_t mask, std::uint32_t value, std::chrono::milliseconds limit,
			    const char *late) const noexcept
{
	const auto end = std::chrono::steady_clock::now() + limit;

	for (;;) {
		const bool over = std::chrono::steady_clock::now() > end;
		const std::uint32_t now = read(at);

		if (now == gone)
			return refused(-ENODEV, "the device does not answer: it has been taken away, or has no power");
		if ((now & mask) == value)
			return {};
		if (over)
			return refused(-ETIMEDOUT, late);
		std::this_thread::sleep_for(100us);
	}
}

result<void> Port::stop() noexcept
{
	// What could raise an interrupt, or begin a transaction (section 5.2.5.3.2).
	write(reg::eimc, 0x7fffffff);
	clear(reg::rxctrl, rxctrl::rxen);
	for (unsigned n = 0; n < queues_.size(); n++) {
		clear(reg::rxdctl(n), qctl::enable);
		clear(reg::txdctl(n), qctl::enable);
	}
	set(reg::ctrl, ctrl::master_disable);
	return wait_for(reg::status, status::master_enabled, 0, 100ms, "the device has transactions under way that do not end");
}

result<void> Port::reset() noexcept
{
	// Section 4.6.3: no interrupts, a reset, and again no interrupts, as the reset has let them.
	if (auto stopped = stop(); !stopped && stopped.error().code() != ETIMEDOUT)
		return stopped; // one that is still busy is reset all the more
	set(reg::ctrl, ctrl::rst | ctrl::lrst);
	// Neither bit says when it is over before this (section 8.2.3.1.1).
	std::this_thread::sleep_for(10ms);
	if (auto done = wait_for(reg::ctrl, ctrl::rst | ctrl::lrst, 0, 100ms, "the device does not come out of its reset"); !done)
		return done;
	write(reg::eimc, 0x7fffffff);
	for (unsigned half = 0; half < 2; half++)
		write(reg::eimc_ex(half), ~0U);
	if (auto done = wait_for(reg::eec, eec::auto_rd, eec::auto_rd, 500ms, "the device does not finish reading its EEPROM"); !done)
		return done;
	return wait_for(reg::rdrxctl, rdrxctl::dma_init_done, rdrxctl::dma_init_done, 500ms,
			"the device does not finish setting up its DMA");
}

void Port::start_link(std::uint16_t device) noexcept
{
	// What the EEPROM says is right for a backplane. A module is on the serial interface (section 4.6.4.2).
	if (device == device_sfp) {
		write(reg::autoc, (read(reg::autoc) & ~autoc::lms) | autoc::lms_10g_serial);
		write(reg::autoc2, (read(reg::autoc2) & ~autoc2::pma_10g_serial) | autoc2::sfi);
	}
	set(reg::autoc, autoc::restart_an);
}

void Port::set_up_filters() noexcept
{
	const std::uint32_t low = read(reg::ral(0)), high = read(reg::rah(0));

	for (unsigned n = 0; n < mac_.size(); n++)
		mac_[n] = static_cast<std::uint8_t>(n < 4 ? low >> 8 * n : high >> 8 * (n - 4));
	// No other addresses, no hashes of them, and no VLANs, whatever was there before the reset.
	for (unsigned n = 1; n <= most_addresses; n++)
		write(reg::rah(n), 0);
	for (unsigned n = 0; n < 128; n++) {
		write(reg::mta(n), 0);
		write(reg::vfta(n), 0);
	}
	clear(reg::vlnctrl, vlnctrl::vfe);
	write(reg::fctrl, fctrl::bam | (options_.promiscuous ? fctrl::upe | fctrl::mpe : 0));
	if (options_.queues == 1) {
		write(reg::mrqc, 0);
		return;
	}
	for (unsigned n = 0; n < rss_key.size(); n++)
		write(reg::rssrk(n), rss_key[n]);
	for (unsigned n = 0; n < 32; n++) {
		std::uint32_t four = 0;

		for (unsigned k = 0; k < 4; k++)
			four |= (4 * n + k) % options_.queues << 8 * k;
		write(reg::reta(n), four);
	}
	write(reg::mrqc, mrqc::rss | mrqc::tcp_ipv4 | mrqc::ipv4 | mrqc::ipv6 | mrqc::tcp_ipv6 | mrqc::udp_ipv4 | mrqc::udp_ipv6);
}

void Port::set_promiscuous(bool on) noexcept
{
	write(reg::fctrl, fctrl::bam | (on ? fctrl::upe | fctrl::mpe : 0));
}

result<void> Port::accept_address(const MacAddress &address, bool on) noexcept
{
	constexpr MacAddress all{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, none{};

	if (address == mac_ || address == all || address == none)
		return refused(-EINVAL, "the port's own address, that of all, or none");
	auto at = std::ranges::find(addresses_, address);

	if (on == (at != addresses_.end()))
		return {};
	if (on) {
		at = std::ranges::find(addresses_, none);
		if (at == addresses_.end()) {
			if (addresses_.size() == most_addresses)
				return refused(-ENOSPC, "the device compares no more addresses: let it be promiscuous");
			at = addresses_.insert(at, none);
		}
	}
	const auto number = static_cast<unsigned>(at - addresses_.begin()) + 1;
	std::uint32_t low = 0, high = 0;

	// It is not valid while it is neither the one nor the other.
	write(reg::rah(number), 0);
	*at = on ? address : none;
	if (!on)
		return {};
	std::memcpy(&low, address.data(), 4);
	std::memcpy(&high, address.data() + 4, 2);
	write(reg::ral(number), low);
	write(reg::rah(number), high | rah::valid);
	return {};
}

void Port::filter_vlans(bool on) noexcept
{
	if (on)
		set(reg::vlnctrl, vlnctrl::vfe);
	else
		clear(reg::vlnctrl, vlnctrl::vfe);
}

result<void> Port::accept_vlan(unsigned vlan, bool on) noexcept
{
	if (vlan > 4095)
		return refused(-EINVAL, "a VLAN has a number of 12 bits");
	if (on)
		set(reg::vfta(vlan / 32), 1U << vlan % 32);
	else
		clear(reg::vfta(vlan / 32), 1U << vlan % 32);
	return {};
}

// Receive rings are at the beginning of the memory, transmit rings behind them.
void Port::make_queues(std::span<std::byte> memory)
{
	for (unsigned n = 0; n < options_.queues; n++) {
		std::unique_ptr<Queue> queue(new Queue(*this, n));

		queue->rx_.size = queue->tx_.size = options_.entries;
		queue->rx_.frames.resize(options_.entries);
		queue->tx_.frames.resize(options_.entries);
		queue->last_.resize(options_.entries);
		queue->rx_.entries = memory.data() + n * ring_bytes();
		queue->tx_.entries = memory.data() + (options_.queues + n) * ring_bytes();
		queues_.push_back(std::move(queue));
	}
}

result<void> Port::start_receiving(std::uint64_t iova)
{
	// Section 4.6.7. The whole packet buffer is one.
	write(reg::rxpbsize(0), 512 << 10);
	for (unsigned n = 1; n < 8; n++)
		write(reg::rxpbsize(n), 0);
	set(reg::hlreg0, hlreg0::rx_crc_strip);
	write(reg::rdrxctl, (read(reg::rdrxctl) & ~rdrxctl::rsc_first_size) | rdrxctl::crc_strip | rdrxctl::rsc_ack | rdrxctl::fcoe_wrfix);
	if (options_.longest > 1518)
		set(reg::hlreg0, hlreg0::jumbo);
	write(reg::maxfrs, options_.longest << 16);
	// Each queue has counters of its own.
	for (unsigned n = 0; n < most_queues; n += 4)
		write(reg::rqsmr(n / 4), n | (n + 1) << 8 | (n + 2) << 16 | (n + 3) << 24);

	for (unsigned n = 0; n < options_.queues; n++) {
		const std::uint64_t ring = iova + n * ring_bytes();

		write(reg::rdbal(n), static_cast<std::uint32_t>(ring));
		write(reg::rdbah(n), static_cast<std::uint32_t>(ring >> 32));
		write(reg::rdlen(n), static_cast<std::uint32_t>(ring_bytes()));
		// A queue that nobody empties must not stop the others.
		write(reg::srrctl(n), (read(reg::srrctl(n)) & ~(srrctl::desctype | 0x1fU)) | srrctl::packet_bytes(options_.frame_bytes) |
					      srrctl::advanced_one_buffer | srrctl::drop_en);
		write(reg::rdh(n), 0);
		write(reg::rdt(n), 0);
		clear(reg::dca_rxctrl(n), dca_rxctrl::reserved);
		set(reg::rxdctl(n), qctl::enable);
		// The tail is told only after this.
		if (auto on = wait_for(reg::rxdctl(n), qctl::enable, qctl::enable, 10ms, "a receive queue does not start"); !on)
			return on;
	}
	set(reg::ctrl_ext, ctrl_ext::ns_dis);
	// The path is halted while it is turned on.
	set(reg::secrxctrl, secrx::rx_dis);
	if (auto halted = wait_for(reg::secrxstat, secrx::ready, secrx::ready, 10ms, "the receive path does not halt"); !halted)
		return halted;
	set(reg::rxctrl, rxctrl::rxen);
	clear(reg::secrxctrl, secrx::rx_dis);
	return {};
}

result<void> Port::start_sending(std::uint64_t iova)
{
	// Section 4.6.8. One packet buffer, no virtualization, no traffic classes; the arbiter rests while that is set.
	set(reg::hlreg0, hlreg0::tx_crc | hlreg0::tx_pad);
	set(reg::rttdcs, rttdcs::arbdis);
	write(reg::mtqc, 0);
	write(reg::txpbsize(0), 160 << 10);
	write(reg::txpbthresh(0), 160);
	for (unsigned n = 1; n < 8; n++) {
		write(reg::txpbsize(n), 0);
		write(reg::txpbthresh(n), 0);
	}
	write(reg::dtxmxszrq, 0xfff);
	clear(reg::rttdcs, rttdcs::arbdis);

	for (unsigned n = 0; n < options_.queues; n++) {
		const std::uint64_t ring = iova + (options_.queues + n) * ring_bytes();

		write(reg::tdbal(n), static_cast<std::uint32_t>(ring));
		write(reg::tdbah(n), static_cast<std::uint32_t>(ring >> 32));
		write(reg::tdlen(n), static_cast<std::uint32_t>(ring_bytes()));
		write(reg::tdh(n), 0);
		write(reg::tdt(n), 0);
		// Entries are fetched early, and written back at once.
		write(reg::txdctl(n), qctl::thresholds(36, 8, 0));
	}
	set(reg::dmatxctl, dmatxctl::te);
	for (unsigned n = 0; n < options_.queues; n++) {
		set(reg::txdctl(n), qctl::enable);
		if (auto on = wait_for(reg::txdctl(n), qctl::enable, qctl::enable, 10ms, "a transmit queue does not start"); !on)
			return on;
	}
	return {};
}

void Port::set_up_interrupts() noexcept
{
	// One vector for both rings of a queue; the last one for all else.
	write(reg::gpie, gpie::msix | gpie::pba | gpie::eiame);
	for (unsigned n = 0; n < options_.queues; n += 2) {
		std::uint32_t value = 0;

		for (unsigned queue = n; queue < n + 2 && queue < options_.queues; queue++)
			value |= ivar::entry(queue) << ivar::shift(queue, false) | ivar::entry(queue) << ivar::shift(queue, true);
		write(reg::ivar(n / 2), value);
	}
	write(reg::ivar_misc, ivar::entry(options_.queues) << ivar::other_shift);
	for (unsigned vector = 0; vector <= options_.queues; vector++)
		write(reg::eitr(vector), eitr::interval(options_.interrupt_us));
	// A vector that was raised is off until arm(), and its cause cleared.
	const std::uint32_t vectors = (1U << (options_.queues + 1)) - 1;

	write(reg::eiac, vectors);
	write(reg::eiam_ex(0), vectors);
}

void Port::arm(unsigned queue) noexcept
{
	write(reg::eims_ex(0), 1U << queue);
}

result<std::unique_ptr<Port>> Port::start(const pci::Bar &registers, std::uint16_t device, std::span<std::byte> memory, std::uint64_t iova,
					  const PortOptions &options)
{
	if (!possible(options))
		return refused(-EINVAL, "no such queues, rings or frames can be");
	if (iova % ring_alignment)
		return refused(-EINVAL, "memory of rings that is not at a multiple of 128");
	if (memory.size() < memory_for(options))
		return refused(-ENOMEM, "there is too little memory for the rings");

	std::unique_ptr<Port> port(new Port(registers, options));

	port->make_queues(memory);
	if (auto done = port->reset(); !done)
		return tl::unexpected(done.error());
	port->start_link(device);
	port->statistics(); // they are cleared by that
	port->statistics_ = {};
	port->set_up_filters();
	if (auto done = port->start_receiving(iova); !done)
		return tl::unexpected(done.error());
	if (auto done = port->start_sending(iova); !done)
		return tl::unexpected(done.error());
	if (options.interrupts)
		port->set_up_interrupts();
	port->set(reg::ctrl_ext, ctrl_ext::drv_load);
	return port;
}

result<void> bring_to_rest(pci::Device &device)
{
	const auto before = device.read_register(0, reg::ctrl);

	if (!before || *before == gone)
		return refused(-EIO, "the device does not answer");
	if (const auto done = device.write_register(0, reg::ctrl, *before | ctrl::rst | ctrl::lrst); !done)
		return done;
	const auto end = std::chrono::steady_clock::now() + 100ms;

	// As in Port::reset().
	std::this_thread::sleep_for(10ms);
	for (;;) {
		const bool late = std::chrono::steady_clock::now() > end;
		const auto now = device.read_register(0, reg::ctrl);

		if (!now || *now == gone)
			return refused(-EIO, "the device does not answer");
		if (!(*now & (ctrl::rst | ctrl::lrst)))
			return {};
		if (late)
			return refused(-ETIMEDOUT, "the device does not come out of its reset");
		std::this_thread::sleep_for(100us);
	}
}

Link Port::link() noexcept
{
	const std::uint32_t says = read(reg::links);
	constexpr std::array<unsigned, 4> speeds{0, 100, 1000, 10000};

	if (says == gone) {
		fail("the device has been taken away");
		return {};
	}
	if (!(says & links::up))
		return {};
	return {.up = true, .mbit = speeds[links::speed(says)]};
}

const PortStatistics &Port::statistics() noexcept
{
	if (read(reg::status) == gone) {
		fail("the device has been taken away");
		return statistics_;
	}
	statistics_.received += read(reg::gprc);
	statistics_.sent += read(reg::gptc);
	// The low half latches the high one, which clears both.
	const std::uint64_t received_low = read(reg::gorcl), received_high = read(reg::gorch);
	const std::uint64_t sent_low = read(reg::gotcl), sent_high = read(reg::gotch);

	statistics_.received_bytes += received_high << 32 | received_low;
	statistics_.sent_bytes += sent_high << 32 | sent_low;
	for (unsigned n = 0; n < 8; n++)
		statistics_.missed += read(reg::rxmpc(n));
	for (unsigned n = 0; n < most_queues; n++) {
		const std::uint32_t missed = read(reg::qprdc(n));

		statistics_.missed += missed;
		missed_[n] += missed;
	}
	statistics_.bad += std::uint64_t{read(reg::crcerrs)} + read(reg::illerrc) + read(reg::errbc) + read(reg::ruc) + read(reg::roc);
	return statistics_;
}

} // namespace orbit::ixgbe
