// SPDX-License-Identifier: MIT
//
// The supervisor's side of the shared heap. How it works is in <orbit/zone.hpp>.
#include <orbit/zone.hpp>

#include <algorithm>
#include <cstring>
#include <new>
#include <sched.h>

namespace orbit::isolation {
namespace {

constexpr std::uint64_t magic = 0x3170616568626f2a;
constexpr std::uint32_t granules_of_page = page_bytes / granule_bytes;
// A living domain that is mad may change its word whenever it is about to be linked.
constexpr int most_tries = 1000;

constexpr std::size_t whole_pages(std::size_t bytes)
{
	return (bytes + page_bytes - 1) / page_bytes * page_bytes;
}

struct Layout {
	std::size_t records = 0, records_bytes = 0, data = 0, all = 0;
};

// `all` is 0 for what cannot be.
Layout lay_out(DomainId domains, std::span<const std::size_t> zone_bytes)
{
	Layout layout;
	std::size_t runs = sizeof(Header), data = 0;

	if (domains < 1 || domains >= max_domains || zone_bytes.empty() || zone_bytes.size() > max_zones)
		return {};
	for (const std::size_t bytes : zone_bytes) {
		if (bytes < page_bytes || bytes >= std::size_t{1} << 38)
			return {};
		const std::size_t whole = whole_pages(bytes);
		runs += whole / page_bytes * sizeof(Run);
		layout.records_bytes += whole_pages(whole / granule_bytes * sizeof(Record));
		data += whole;
	}
	layout.records = whole_pages(runs);
	layout.data = layout.records + (domains + 1) * layout.records_bytes;
	layout.all = layout.data + data;
	return layout;
}

// One of a heap's zones, as all sides see it, without its own memory. The header says already where everything is.
View view_of(std::byte *heap, std::uint32_t number)
{
	auto *const header = reinterpret_cast<Header *>(heap);
	ZoneHeader &zone = header->zone[number];
	View view;

	view.bytes = zone.bytes;
	view.runs = reinterpret_cast<std::atomic<std::uint64_t> *>(heap + zone.runs);
	view.header = &zone;
	view.records = heap + header->records + zone.records;
	view.records_bytes = header->records_bytes;
	view.number = number;
	return view;
}

bool says_it_has(Word word)
{
	return word.state() == State::owned || word.state() == State::lent;
}

bool says_it_had(Word word)
{
	return says_it_has(word) || word.state() == State::given || word.state() == State::returned;
}

std::uint64_t members_of(const View &view)
{
	return view.header->members.load(std::memory_order_acquire);
}

template <class Do> void for_each_of(std::uint64_t members, Do &&act)
{
	for (std::uint64_t left = members; left; left &= left - 1)
		act(static_cast<DomainId>(__builtin_ctzll(left)));
}

template <class Do> void for_each_member(const View &view, Do &&act)
{
	for_each_of(members_of(view), act);
}

// Whether none of these domains has ever said anything of the granule, nor the supervisor: so it is with most of a
// zone, and they are passed over. A domain that has cleared its own words does not pass for the others.
bool is_untouched(const View &view, std::uint32_t granule, std::uint64_t members)
{
	std::uint64_t bits = 0;

	for_each_of(members | std::uint64_t{1} << supervisor, [&](DomainId domain) {
		const Record &record = view.record(domain, granule);

		bits |= record.word.load(std::memory_order_acquire) | record.loan.load(std::memory_order_acquire);
	});
	return !bits;
}

// The last number that anybody's record says of a buffer, old words too: from there they go on.
std::uint32_t newest_serial(const View &view, std::uint32_t granule, std::uint32_t serial)
{
	for_each_member(view, [&](DomainId domain) {
		const Word word = view.word(domain, granule);

		for (const std::uint32_t one : {word.entry(), word.serial()})
			if (word.bits && after(one, serial))
				serial = one;
	});
	return serial;
}

// Who of the survivors has what the dead domain gave. `floor` is the serial by which it had come there itself.
struct Claim {
	DomainId domain = supervisor; // none
	Word word;
	bool sure = false; // the dead domain's last word says so, too
};

Claim find_claim(const View &view, std::uint32_t granule, DomainId dead, const std::uint32_t *floor, Word last,
		 Reclaimed &report)
{
	Claim found;
	int have = 0;
	bool settled = false;

	for_each_member(view, [&](DomainId domain) {
		const Word word = view.word(domain, granule);

		if (word.from() != dead || !says_it_had(word) || (floor && !after(word.entry(), *floor)))
			return;
		have += says_it_has(word);
		if (settled)
			return;
		settled = last.leads_to(dead, domain, word);
		if (settled || found.domain == supervisor || after(word.entry(), found.word.entry()))
			found = {domain, word, settled};
	});
	report.conflicts += have > 1;
	return found;
}

// Says in the word of `claim` that its buffer came from `from`, by the move `entry`. False if it has become another.
bool link(const View &view, std::uint32_t granule, const Claim &claim, DomainId from, std::uint32_t entry)
{
	Word old = claim.word;

	for (int tries = 0; tries < most_tries; tries++) {
		const Word now = Word::make(old.state(), from, old.to(), entry, old.serial());
		if (change(view.record(claim.domain, granule).word, old, now))
			return true;
		if (old.from() != claim.word.from() || old.entry() != claim.word.entry() || !says_it_had(old))
			return false;
	}
	return false;
}

// Ends a loan in its lender's record, where it is `loan`; false if it has become another. The buffer is the owner's
// again, or still only lent to who has lent it on.
bool end_loan_in(Record &record, Word &loan, DomainId lender)
{
	const bool owner = loan.from() == lender;

	if (!change(record.loan, loan,
		    owner ? Word::make(State::none, 0, 0, 0, loan.serial())
			  : Word::make(State::borrowed, loan.from(), 0, loan.entry(), loan.serial())))
		return false;
	Word word{record.word.load(std::memory_order_acquire)};
	while (owner && word.state() == State::lent &&
	       !change(record.word, word, Word::make(State::owned, word.from(), 0, word.entry(), word.serial())))
		;
	return true;
}

// Whether what `theirs`, read before, said of where the buffer went is so still.
bool is_still_given(const View &view, std::uint32_t granule, DomainId from, Word theirs)
{
	const Word again{view.record(from, granule).word.load(std::memory_order_seq_cst)};

	return !((again.bits ^ theirs.bits) & Word::way);
}

bool is_gone(Word word)
{
	return word.state() == State::returned || word.state() == State::reclaimed;
}

} // namespace

Owner find_owner(const View &view, std::uint32_t granule, DomainId home, DomainId domains)
{
	DomainId at = home;
	Word word = view.word(home, granule);

	for (DomainId hops = 0; hops < domains && word.state() == State::given; hops++) {
		const DomainId next = word.to();
		const Word theirs = next < domains ? view.word(next, granule) : Word{};

		if (!word.leads_to(at, next, theirs) || (!says_it_had(theirs) && theirs.state() != State::reclaimed))
			return {at, word, true};
		at = next;
		word = theirs;
	}
	return {at, word, word.state() == State::given};
}

namespace {

// One buffer, or none.
void count(const View &view, std::uint32_t granule, DomainId home, DomainId domains, Census &census)
{
	const Word first = view.word(home, granule);
	const Owner owner = find_owner(view, granule, home, domains);
	const bool free = first.state() == State::none;

	for_each_member(view, [&](DomainId domain) {
		if (domain >= domains)
			return;
		census.twice += says_it_has(view.word(domain, granule)) &&
				(free || domain != owner.domain || owner.in_flight);
		census.lent[domain] += view.word(domain, granule).state() == State::lent;
	});
	if (free)
		return;
	census.buffers++;
	if (owner.in_flight) {
		if (view.member(owner.word.to())) {
			census.in_flight++;
			census.in_flight_to[owner.word.to()]++;
		} else {
			census.lost++;
		}
	} else if (is_gone(owner.word)) {
		census.returned++;
	} else if (says_it_has(owner.word) && view.member(owner.domain)) {
		census.owned[owner.domain]++;
	} else {
		census.lost++;
	}
}

} // namespace

std::size_t Heap::bytes(DomainId domains, std::span<const std::size_t> zone_bytes)
{
	return lay_out(domains, zone_bytes).all;
}

result<Heap> Heap::create(std::span<std::byte> memory, DomainId domains, std::span<const std::size_t> zone_bytes)
{
	const Layout layout = lay_out(domains, zone_bytes);

	if (!layout.all || memory.size() < layout.all || reinterpret_cast<std::uintptr_t>(memory.data()) % page_bytes)
		return refused(-EINVAL, "this memory is not right for this heap");

	Heap heap;
	heap.base_ = memory.data();
	heap.header_ = new (memory.data()) Header{};
	Header &header = *heap.header_;
	header.domains = domains + 1;
	header.zones = static_cast<std::uint32_t>(zone_bytes.size());
	header.bytes = layout.all;
	header.records = layout.records;
	header.records_bytes = layout.records_bytes;

	std::size_t runs = sizeof(Header), data = layout.data, records = 0;
	for (std::uint32_t i = 0; i < header.zones; i++) {
		const std::size_t whole = whole_pages(zone_bytes[i]);
		ZoneHeader &zone = header.zone[i];

		zone.data = data;
		zone.bytes = whole;
		zone.runs = runs;
		zone.records = records;
		heap.views_.push_back(view_of(heap.base_, i));
		runs += whole / page_bytes * sizeof(Run);
		records += whole_pages(whole / granule_bytes * sizeof(Record));
		data += whole;
	}
	heap.granted_.resize(header.zones);
	header.magic = magic;
	return heap;
}

result<void> Heap::add(DomainId domain, std::uint32_t zone)
{
	if (domain == supervisor || domain >= header_->domains || zone >= header_->zones)
		return refused(-EINVAL, "there is no such domain or zone");
	const std::uint64_t bit = std::uint64_t{1} << domain;
	if (header_->zone[zone].members.fetch_or(bit) & bit)
		return refused(-EEXIST, "the domain has part in the zone already");
	return {};
}

void Heap::set_run(std::uint32_t zone, const Granted &run, DomainId home)
{
	const std::uint64_t bits = Run::make(home, run.first, run.pages).bits;

	for (std::uint32_t page = run.first; page < run.first + run.pages; page++)
		views_[zone].runs[page].store(bits, std::memory_order_release);
}

result<void> Heap::grant(DomainId domain, std::uint32_t zone, std::size_t bytes)
{
	if (domain == supervisor || domain >= header_->domains || zone >= header_->zones || !bytes)
		return refused(-EINVAL, "there is no such domain or zone");
	const View &view = views_[zone];
	if (!view.member(domain))
		return refused(-EACCES, "the domain has no part in the zone");

	// Where it fits first.
	const std::size_t pages = bytes / page_bytes + (bytes % page_bytes != 0), all = view.bytes / page_bytes;
	auto &granted = granted_[zone];
	std::size_t first = 0;
	auto before = granted.begin();
	while (before != granted.end() && before->first - first < pages) {
		first = before->first + before->pages;
		++before;
	}
	if (pages > all - first)
		return refused(-ENOSPC, "no run of so many pages is free in the zone");

	const Granted run{domain, static_cast<std::uint32_t>(first), static_cast<std::uint32_t>(pages)};
	granted.insert(before, run);
	// Numbers go on after all that anybody's record may still say of an earlier buffer.
	const std::uint64_t members = members_of(view);
	for (std::uint32_t i = run.first * granules_of_page; i < (run.first + run.pages) * granules_of_page; i++) {
		if (is_untouched(view, i, members))
			continue;
		const std::uint32_t serial = newest_serial(view, i, 0);
		Record &record = view.record(domain, i);
		if (serial || record.word.load(std::memory_order_relaxed))
			record.word.store(Word::make(State::none, 0, 0, 0, serial + 1).bits, std::memory_order_release);
	}
	set_run(zone, run, domain);
	return {};
}

std::vector<Range> Heap::ranges(DomainId domain) const
{
	const bool all = domain == supervisor;
	std::vector<Range> ranges{{0, header_->records, all ? Rights::read_and_write : Rights::read}};

	for (DomainId i = 0; i < header_->domains; i++)
		ranges.push_back({header_->records + i * header_->records_bytes, header_->records_bytes,
				  all || i == domain ? Rights::read_and_write : Rights::read});
	for (const View &view : views_)
		ranges.push_back({view.header->data, view.bytes,
				  all || view.member(domain) ? Rights::read_and_write : Rights::none});
	return ranges;
}

// Gives what the dead domain had of one buffer to who has it now; its word has been taken away, and was `last`.
void Heap::settle(const View &view, std::uint32_t granule, DomainId home, DomainId dead, Word last, Reclaimed &report)
{
	const DomainId domains = header_->domains;
	Record &ours = view.record(supervisor, granule);
	bool kept = false, sure = true;
	// Takes what was given from `at`: it was the dead domain's own, or what leads from there is of the past. Or somebody
	// living receives it at this very moment, having looked at this word before. So first it is given to the supervisor:
	// that no receiver believes, and who has just written his own word looks at this one again. Then the links are
	// followed once more; whoever they lead to now has it, and may not have seen a change, so it is undone. Only what
	// nobody has is free. False: look again.
	const auto take = [&](DomainId at, Word word) {
		Record &record = view.record(at, granule);
		Word taken = Word::make(at == supervisor ? State::reclaimed : State::given, word.from(), supervisor, word.entry(),
					word.serial());

		if (word != taken && !change(record.word, word, taken))
			return false;
		const Word theirs = word.to() < domains ? view.word(word.to(), granule) : Word{};
		const Owner owner = find_owner(view, granule, home, domains);
		if (owner.domain != at || owner.word != taken || (word.leads_to(at, word.to(), theirs) && says_it_had(theirs))) {
			change(record.word, taken, word);
			return false;
		}
		if (!change(record.word, taken, Word::make(State::reclaimed, word.from(), 0, word.entry(), word.serial())))
			return false;
		if (home == supervisor)
			ours.word.store(0, std::memory_order_release);
		report.buffers++;
		return true;
	};

	for (int tries = 0; tries < most_tries; tries++) {
		if (home == dead) {
			// The links begin at the supervisor now.
			Reclaimed counted;
			const Claim claim = find_claim(view, granule, dead, nullptr, last, counted);
			if (last.bits)
				ORBIT_ISOLATION_STEP();
			if (claim.domain == supervisor) {
				ours.word.store(0, std::memory_order_release);
				report.buffers += last.state() != State::none;
				return;
			}
			ours.shape.store(view.record(claim.domain, granule).shape.load(), std::memory_order_relaxed);
			ours.word.store(
				Word::make(State::given, supervisor, claim.domain, 0, claim.word.entry()).bits,
				std::memory_order_release);
			if (!link(view, granule, claim, supervisor, claim.word.entry()))
				continue;
			report.conflicts += counted.conflicts;
			kept = true;
			sure = claim.sure;
			home = supervisor;
		}

		DomainId at = home;
		Word word = view.word(home, granule);
		bool again = false;
		for (DomainId hops = 0; hops <= domains && word.state() == State::given && !again; hops++) {
			const DomainId next = word.to();
			if (next != dead) {
				const Word theirs = next < domains ? view.word(next, granule) : Word{};
				if (word.leads_to(at, next, theirs) && says_it_had(theirs)) {
					at = next;
					word = theirs;
					continue;
				}
				// In flight between others; or somebody once gave it to who knows nothing of it any more,
				// and it has come back since.
				if (sure)
					break;
				if (take(at, word))
					return;
				again = true;
				break;
			}
			const std::uint32_t serial = word.serial();
			const bool true_to_links = last.from() == at && last.entry() == serial;
			const Claim claim =
				find_claim(view, granule, dead, &serial, true_to_links ? last : Word{}, report);
			if (claim.domain == supervisor) {
				if (take(at, word))
					return;
				again = true;
				break;
			}
			const Word now = Word::make(State::given, word.from(), claim.domain, word.entry(), serial);
			again = !link(view, granule, claim, at, serial) ||
				!change(view.record(at, granule).word, word, now);
			kept = true;
			sure = claim.sure;
			word = now;
		}
		if (!again)
			break;
	}
	report.kept += kept;
}

result<Reclaimed> Heap::reclaim(DomainId dead)
{
	if (dead == supervisor || dead >= header_->domains)
		return refused(-EINVAL, "there is no such domain");

	Reclaimed report;
	header_->reclaims.fetch_add(1);
	for (std::uint32_t zone = 0; zone < header_->zones; zone++) {
		const View &view = views_[zone];
		const std::uint64_t bit = std::uint64_t{1} << dead;
		const std::uint64_t members = view.header->members.fetch_and(~bit);
		if (!(members & bit))
			continue; // it had no part in it
		for (Granted &run : granted_[zone]) {
			const bool was_home = run.home == dead;
			for (std::uint32_t i = run.first * granules_of_page;
			     i < (run.first + run.pages) * granules_of_page; i++) {
				if (is_untouched(view, i, members))
					continue;
				Record &record = view.record(dead, i);
				// Its numbers stay: handles that it has sent may still be on their way, and whoever has
				// this domain's number next must send none that is like them.
				const Word last = view.word(dead, i), lent = view.loan(dead, i);
				record.word.exchange(Word::make(State::none, 0, 0, 0, last.serial()).bits);
				if (last.bits)
					ORBIT_ISOLATION_STEP();
				record.loan.exchange(Word::make(State::none, 0, 0, 0, lent.serial()).bits);
				if (!was_home && !view.word(run.home, i).bits)
					continue; // no buffer begins there
				for_each_member(view, [&](DomainId lender) {
					Word loan = view.loan(lender, i);
					if (loan.state() != State::out || loan.to() != dead)
						return;
					// Or the lender has ended it, and may have lent to another.
					report.loans += end_loan_in(view.record(lender, i), loan, lender);
				});
				settle(view, i, run.home, dead, last, report);
			}
			if (was_home) {
				ORBIT_ISOLATION_STEP();
				run.home = supervisor;
				set_run(zone, run, supervisor);
				ORBIT_ISOLATION_STEP();
			}
		}
	}
	sweep();
	header_->reclaims.fetch_add(1);
	return report;
}

std::size_t Heap::sweep()
{
	std::size_t freed = 0;

	for (std::uint32_t zone = 0; zone < header_->zones; zone++) {
		const View &view = views_[zone];
		freed += std::erase_if(granted_[zone], [&](const Granted &run) {
			if (run.home != supervisor)
				return false;
			bool is_left = false;
			for (std::uint32_t i = run.first * granules_of_page;
			     i < (run.first + run.pages) * granules_of_page; i++) {
				if (!view.word(supervisor, i).bits)
					continue;
				const Owner owner = find_owner(view, i, supervisor, header_->domains);
				if (!owner.in_flight && is_gone(owner.word))
					view.record(supervisor, i).word.store(0, std::memory_order_release);
				else
					is_left = true;
			}
			if (!is_left)
				for (std::uint32_t page = run.first; page < run.first + run.pages; page++)
					view.runs[page].store(0, std::memory_order_release);
			return !is_left;
		});
	}
	return freed;
}

Census Heap::census() const
{
	Census census;

	for (std::uint32_t zone = 0; zone < header_->zones; zone++)
		for (const Granted &run : granted_[zone])
			for (std::uint32_t i = run.first * granules_of_page;
			     i < (run.first + run.pages) * granules_of_page; i++)
				count(views_[zone], i, run.home, header_->domains, census);
	return census;
}

bool census_of(std::span<std::byte> memory, Census *census)
{
	const auto *header = reinterpret_cast<const Header *>(memory.data());
	const std::uint64_t bytes = memory.size();

	if (bytes < sizeof(Header) || header->magic != magic || !header->domains || header->domains > max_domains ||
	    header->zones > max_zones)
		return false;
	const std::uint64_t of_each = header->records_bytes;
	if (of_each > bytes / header->domains || header->records > bytes - header->domains * of_each ||
	    header->records % alignof(Record) || of_each % alignof(Record))
		return false;
	*census = {};
	for (std::uint32_t number = 0; number < header->zones; number++) {
		const ZoneHeader &zone = header->zone[number];
		const std::uint64_t its_records = zone.bytes / granule_bytes * sizeof(Record);

		if (zone.bytes % page_bytes || its_records > of_each || zone.records > of_each - its_records ||
		    zone.records % alignof(Record) || zone.runs > bytes - zone.bytes / page_bytes * sizeof(Run) ||
		    zone.runs % alignof(Run))
			return false;
		const View view = view_of(memory.data(), number);
		for (std::uint32_t page = 0; page < zone.bytes / page_bytes; page++) {
			const Run run{view.runs[page].load(std::memory_order_acquire)};
			if (!run.pages() || run.home() >= header->domains)
				continue;
			for (std::uint32_t i = page * granules_of_page; i < (page + 1) * granules_of_page; i++)
				count(view, i, run.home(), header->domains, *census);
		}
	}
	return true;
}

std::size_t Heap::unused(std::uint32_t zone) const
{
	if (zone >= header_->zones)
		return 0;
	std::size_t bytes = views_[zone].bytes;
	for (const Granted &run : granted_[zone])
		bytes -= run.pages * page_bytes;
	return bytes;
}

// The domain's side.

namespace {

// Small buffers have a list for each size; of larger ones at most an eighth is left over.
std::uint64_t rounded_granules(std::uint64_t bytes)
{
	const std::uint64_t granules = (bytes + granule_bytes - 1) / granule_bytes;

	if (granules <= 16)
		return granules ? granules : 1;
	const std::uint64_t step = (std::uint64_t{1} << (63 - __builtin_clzll(granules))) / 8;
	return (granules + step - 1) / step * step;
}

} // namespace

int Room::attach(std::span<std::byte> memory, DomainId self)
{
	auto *header = reinterpret_cast<Header *>(memory.data());

	if (memory.size() < sizeof(Header) || reinterpret_cast<std::uintptr_t>(header) % page_bytes ||
	    header->magic != magic || header->bytes > memory.size() || self == supervisor || self >= header->domains)
		return EINVAL;
	if (header->zones > max_zones)
		return EINVAL;
	header_ = header;
	self_ = self;
	domains_ = header->domains;
	zones_ = header->zones;
	for (DomainId other = 1; other < domains_; other++) {
		if (other == self)
			continue;
		going_[other] = Word::going(other);
		away_[other] = (static_cast<std::ptrdiff_t>(other) - static_cast<std::ptrdiff_t>(self)) *
			       static_cast<std::ptrdiff_t>(header->records_bytes);
	}
	for (std::uint32_t i = 0; i < zones_; i++) {
		View view = view_of(memory.data(), i);

		view.data = memory.data() + header->zone[i].data;
		view.room = this;
		view.self = self;
		view.given_here = Word::make(State::given, 0, self, 0, 0).bits;
		view.mine = &view.record(self, 0);
		views_[i] = view;
		has_part(views_[i]);
	}
	stores_.resize(zones_);
	return 0;
}

bool Room::find_runs(View &view, Store &store)
{
	bool found = false;

	for (std::uint32_t page = 0; page < view.bytes / page_bytes;) {
		const Run run{view.runs[page].load(std::memory_order_acquire)};
		if (run.pages() && run.home() == self_ &&
		    std::find(store.known.begin(), store.known.end(), run.first()) == store.known.end()) {
			store.known.push_back(run.first());
			store.fresh.push_back({run.first() * granules_of_page, run.pages() * granules_of_page});
			found = true;
		}
		page = run.pages() ? run.first() + run.pages() : page + 1;
	}
	return found;
}

void Room::collect(View &view, Store &store)
{
	for (const Slot &slot : store.slots) {
		Record &record = view.mine[slot.granule];
		Word word{record.word.load(std::memory_order_acquire)};
		std::uint32_t serial = word.serial();

		if (word.state() == State::given) {
			const Owner owner = find_owner(view, slot.granule, self_, domains_);
			if (owner.in_flight || !is_gone(owner.word))
				continue;
		} else if (word.state() != State::reclaimed) {
			continue;
		}
		// It may have gone far since it left here, and a domain that was on the way begins anew.
		serial = newest_serial(view, slot.granule, serial);
		if (change(record.word, word, Word::make(State::none, 0, 0, 0, serial + 1)))
			store.free[{static_cast<std::uint32_t>(record.shape.load(std::memory_order_relaxed)), slot.granules}]
				.push_back(slot.granule);
	}
}

// Memory is short: free buffers become pieces for any type and size again, one where they lie side by side. Records go on
// counting where they are.
void Room::merge(const View &view, Store &store)
{
	std::vector<Fresh> pieces = std::move(store.fresh), merged;
	std::vector<std::uint32_t> freed;

	for (auto &[key, list] : store.free) {
		for (const std::uint32_t granule : list) {
			pieces.push_back({granule, key.second});
			freed.push_back(granule);
		}
		list.clear();
	}
	std::sort(freed.begin(), freed.end());
	std::erase_if(store.slots, [&](const Slot &slot) { return std::binary_search(freed.begin(), freed.end(), slot.granule); });
	std::sort(pieces.begin(), pieces.end(), [](const Fresh &a, const Fresh &b) { return a.granule < b.granule; });
	for (const Fresh &piece : pieces) {
		if (!piece.granules)
			continue;
		// No buffer lies in two runs.
		if (!merged.empty() && merged.back().granule + merged.back().granules == piece.granule &&
		    view.run(merged.back().granule).first() == view.run(piece.granule).first())
			merged.back().granules += piece.granules;
		else
			merged.push_back(piece);
	}
	store.fresh = std::move(merged);
}

void Room::collect()
{
	const std::lock_guard lock(mutex_);

	for (std::uint32_t i = 0; i < zones_; i++)
		collect(views_[i], stores_[i]);
}

int Room::allocate(std::uint32_t zone, std::uint32_t type, std::size_t size, std::size_t count, View **view,
		   std::uint32_t *granule, Word *word)
{
	if (zone >= zones_ || !has_part(views_[zone]))
		return EACCES;
	if (!count || count > UINT32_MAX)
		return EINVAL;
	View &here = views_[zone];
	if (count > here.bytes / size)
		return ENOSPC;
	const auto need = static_cast<std::uint32_t>(rounded_granules(size * count));

	{
		const std::lock_guard lock(mutex_);
		Store &store = stores_[zone];
		auto &list = store.free[{type, need}];
		const auto cut = [&] {
			for (Fresh &fresh : store.fresh) {
				if (fresh.granules < need)
					continue;
				list.push_back(fresh.granule);
				store.slots.push_back({fresh.granule, need});
				fresh.granule += need;
				fresh.granules -= need;
				return true;
			}
			return false;
		};
		if (list.empty() && !cut() && !(find_runs(here, store) && cut())) {
			collect(here, store);
			if (list.empty()) {
				merge(here, store);
				if (!cut())
					return ENOSPC;
			}
		}
		*granule = list.back();
		list.pop_back();
	}

	Record &record = here.mine[*granule];
	Word old{record.word.load(std::memory_order_relaxed)};
	Word now;
	ORBIT_ISOLATION_STEP();
	record.shape.store(shape(type, static_cast<std::uint32_t>(count)), std::memory_order_relaxed);
	do
		now = Word::make(State::owned, self_, 0, 0, old.serial() + 1);
	while (!change(record.word, old, now));
	*view = &here;
	*word = now;
	return 0;
}

void Room::drop(View &view, std::uint32_t granule, std::uint32_t serial, std::size_t bytes) noexcept
{
	Record &record = view.mine[granule];
	const bool home = view.run(granule).home() == self_;
	Word word{record.word.load(std::memory_order_acquire)};

	for (int tries = 0; word.serial() == serial;) {
		if (word.state() == State::lent) {
			// Lent, but no loan: somebody, maybe the supervisor, is at the loan's beginning or end, and changes the
			// other word next. At its end nobody looks for what is dropped here any more.
			if (Word{record.loan.load(std::memory_order_acquire)}.state() != State::out && tries++ < most_tries) {
				sched_yield();
				word.bits = record.word.load(std::memory_order_acquire);
				continue;
			}
			const std::lock_guard lock(mutex_);
			word.bits = record.word.load(std::memory_order_acquire);
			if (word.state() != State::lent)
				continue;
			dropped_.push_back({&view, granule, serial, bytes});
			return;
		}
		if (word.state() != State::owned)
			return;
		if (!home) {
			if (change(record.word, word, Word::make(State::returned, word.from(), 0, word.entry(), serial)))
				return;
			continue;
		}
		if (!change(record.word, word, Word::make(State::none, 0, 0, 0, serial + 1)))
			continue;
		const std::lock_guard lock(mutex_);
		stores_[view.number]
			.free[{static_cast<std::uint32_t>(record.shape.load(std::memory_order_relaxed)),
			       static_cast<std::uint32_t>(rounded_granules(bytes))}]
			.push_back(granule);
		return;
	}
}

Room::Backed Room::follow(const View &view, std::uint32_t granule, DomainId home, DomainId domain,
			  Word word) const noexcept
{
	for (DomainId hops = 0; hops < domains_; hops++) {
		if (domain == home)
			return Backed::yes;
		const DomainId before = word.from();
		const Word theirs = before < domains_ ? view.word(before, granule) : Word{};
		if (!theirs.leads_to(before, domain, word))
			return Backed::no;
		if (before == self_)
			return Backed::by_self;
		domain = before;
		word = theirs;
	}
	return Backed::no;
}

bool Room::reclaim_passed(std::uint32_t &seen) const noexcept
{
	// The supervisor ends what it has begun, or this domain ends with it.
	std::uint32_t now = header_->reclaims.load(std::memory_order_acquire);

	if (now == seen && now % 2 == 0)
		return false;
	for (int i = 0; now % 2 && i < 100000; i++) {
		constexpr timespec moment{0, 50000};
		nanosleep(&moment, nullptr);
		now = header_->reclaims.load(std::memory_order_acquire);
	}
	seen = now & ~1u;
	return true;
}

int Room::check_shape(const View &view, std::uint32_t granule, Run run, std::uint32_t type, std::size_t size,
		      bool array, std::uint32_t *count) const noexcept
{
	// Fetched once: whoever wrote it may do so again.
	const std::uint64_t fetched = view.record(run.home(), granule).shape.load(std::memory_order_relaxed);
	const auto number = static_cast<std::uint32_t>(fetched >> 32);
	const std::uint64_t end = (std::uint64_t{run.first()} + run.pages()) * page_bytes;

	if (static_cast<std::uint32_t>(fetched) != type)
		return EPROTOTYPE;
	if (!number || (!array && number != 1) || number > (end - granule * granule_bytes) / size)
		return EBADF;
	*count = number;
	return 0;
}

bool Room::has_part(View &view) noexcept
{
	// A domain that lives keeps its part.
	if (!view.member(self_))
		return false;
	__atomic_store_n(&view.known, view.granules(), __ATOMIC_RELAXED);
	return true;
}

// What is checked of every handle, whatever it is for.
template <class Try> int Room::try_handle(const Handle &handle, DomainId from, std::uint32_t type, Try &&act) noexcept
{
	View *view = find(handle);

	if (!view)
		return EBADF;
	if (handle.type != type)
		return EPROTOTYPE;
	if (from == supervisor || from >= domains_ || from == self_)
		return EINVAL;
	std::uint32_t seen = header_->reclaims.load(std::memory_order_acquire);
	for (;;) {
		const Run run = view->run(handle.index);
		const int error = !has_part(*view) ? EACCES : !run.pages() ? EBADF : act(*view, run);
		if (!error) [[likely]]
			return 0;
		if (!reclaim_passed(seen))
			return (error == ESTALE || error == EBADF) && !view->member(from) ? EOWNERDEAD : error;
	}
}

int Room::try_receive(View &view, const Handle &handle, DomainId from, Run run, std::size_t size, bool array,
		      std::uint32_t *count, Word *word) noexcept
{
	const std::uint32_t granule = handle.index;
	const Word theirs = view.word(from, granule);

	if (theirs.state() != State::given || theirs.to() != self_ || theirs.serial() != handle.generation)
		return ESTALE;
	const Backed backing = backed(view, granule, run.home(), from, theirs);
	if (backing == Backed::no)
		return ESTALE;
	if (const int error = check_shape(view, granule, run, handle.type, size, array, count))
		return error;

	Record &mine = view.mine[granule];
	Word old{mine.word.load(std::memory_order_acquire)}, now;
	ORBIT_ISOLATION_STEP();
	do {
		// Of a mad domain's serials none turns this domain's back: it would call two moves the same.
		const std::uint32_t newer = after(old.serial(), theirs.serial()) ? old.serial() : theirs.serial();
		if (backing == Backed::by_self) {
			if (old.state() != State::given)
				return ESTALE;
			now = Word::make(State::owned, old.from(), 0, old.entry(), newer);
		} else {
			if (old.from() == from && old.entry() == theirs.serial() && old.state() != State::none)
				return ESTALE; // has come already
			// What a mad home gives twice makes the first rref stale.
			now = Word::make(State::owned, from, 0, theirs.serial(), newer + says_it_has(old));
			mine.shape.store(shape(handle.type, *count), std::memory_order_relaxed);
		}
	} while (!change(mine.word, old, now));

	*word = now;
	if (backing != Backed::by_self)
		return confirm_receive(view, granule, from, theirs, old, now);
	// What is home again nobody else can find free: that takes this very word.
	return run.home() == self_ ? 0 : confirm_return(view, granule, from, theirs, now);
}

int Room::confirm_receive(const View &view, std::uint32_t granule, DomainId from, Word theirs, Word old,
			  Word now) noexcept
{
	if (is_still_given(view, granule, from, theirs)) [[likely]]
		return 0;
	// The sender has died meanwhile: either this word goes back, or the supervisor has seen it.
	Word undone = now;
	if (change(view.mine[granule].word, undone, old))
		return ESTALE;
	return undone.state() == State::owned && undone.serial() == now.serial() ? 0 : ESTALE;
}

int Room::confirm_return(const View &view, std::uint32_t granule, DomainId from, Word theirs, Word now) noexcept
{
	if (is_still_given(view, granule, from, theirs)) [[likely]]
		return 0;
	// The sender has died meanwhile, and whether the supervisor has seen this word, or thought that the buffer is
	// where it went from here and freed it, nobody can say. Dropped, it is free in either case.
	const std::uint32_t serial = now.serial();
	while (now.state() == State::owned && now.serial() == serial &&
	       !change(view.mine[granule].word, now, Word::make(State::returned, now.from(), 0, now.entry(), serial)))
		;
	return ESTALE;
}

int Room::receive_again(const Handle &handle, DomainId from, std::uint32_t type, std::size_t size, bool array,
			std::uint32_t *count, Word *word) noexcept
{
	return try_handle(handle, from, type, [&](View &view, Run run) {
		return try_receive(view, handle, from, run, size, array, count, word);
	});
}

int Room::send_again(View &view, std::uint32_t granule, Word *word, DomainId to) noexcept
{
	Record &record = view.mine[granule];
	Word old = *word, now;

	// Given already if the other side is no member.
	if (old.state() != State::given) {
		old.bits = record.word.load(std::memory_order_acquire);
		do {
			if (old.serial() != word->serial() || !says_it_has(old))
				return ESTALE;
			if (old.state() == State::lent)
				return EBUSY;
			now = old.gone_to(to);
		} while (!change(record.word, old, now));
		*word = now;
	}
	if (view.member(to))
		return 0;
	// If not undone it was reclaimed with the other side.
	if (undo_send(view, granule, to, word->serial(), word))
		*word = Word{};
	return EACCES;
}

int Room::undo_send(View &view, std::uint32_t granule, DomainId to, std::uint32_t serial, Word *word) noexcept
{
	Record &record = view.mine[granule];
	Word old{record.word.load(std::memory_order_acquire)};

	for (std::uint32_t seen = 0; old.state() == State::given && old.serial() == serial;) {
		if (old.to() == supervisor) {
			// That looks who has it, and will soon say.
			if (!reclaim_passed(seen))
				break;
			old.bits = record.word.load(std::memory_order_acquire);
			continue;
		}
		if (old.to() != to)
			break;
		const Word now = Word::make(State::owned, old.from(), 0, old.entry(), serial);
		if (!change(record.word, old, now))
			continue;
		*word = now;
		return 0;
	}
	return old.state() == State::reclaimed ? EOWNERDEAD : ESTALE;
}

bool Room::loan_holds(const View &view, std::uint32_t granule, std::uint32_t entry) const noexcept
{
	const Word mine{view.mine[granule].loan.load(std::memory_order_acquire)};

	return (mine.state() == State::borrowed || mine.state() == State::out) && mine.from() != self_ &&
	       mine.entry() == entry && view.loan(mine.from(), granule).leads_to(mine.from(), self_, mine, State::out);
}

int Room::begin_loan(View &view, std::uint32_t granule, std::uint32_t serial, bool borrowed, DomainId to,
		     std::uint32_t *generation) noexcept
{
	Record &record = view.mine[granule];

	if (to == supervisor || to >= domains_ || to == self_)
		return EINVAL;
	if (!view.member(to))
		return EACCES;
	if (!borrowed) {
		Word word{record.word.load(std::memory_order_acquire)};
		do {
			if (word.serial() != serial || !says_it_has(word))
				return ESTALE;
			if (word.state() == State::lent)
				return EBUSY;
		} while (!change(record.word, word, Word::make(State::lent, word.from(), 0, word.entry(), serial)));
	} else if (!loan_holds(view, granule, serial)) {
		return ESTALE;
	}

	Word loan{record.loan.load(std::memory_order_acquire)}, now;
	do {
		if (borrowed && (loan.state() != State::borrowed || loan.entry() != serial))
			return loan.state() == State::out ? EBUSY : ESTALE;
		now = Word::make(State::out, borrowed ? loan.from() : self_, to, borrowed ? loan.entry() : 0,
				 loan.serial() + 1);
	} while (!change(record.loan, loan, now));
	*generation = now.serial();
	if (!view.member(to)) { // it has died meanwhile
		end_loan_of(view, granule, to, now.serial());
		return EACCES;
	}
	return 0;
}

int Room::end_loan_of(View &view, std::uint32_t granule, DomainId to, std::uint32_t generation) noexcept
{
	Record &record = view.mine[granule];
	Word loan{record.loan.load(std::memory_order_acquire)};
	bool kept = false;

	if (to >= domains_ || loan.serial() != generation)
		return ESTALE;
	while (loan.state() == State::out && loan.to() == to && loan.serial() == generation) {
		const Word theirs = view.loan(to, granule);

		kept = theirs.state() != State::none && loan.leads_to(self_, to, theirs, State::out);
		if (end_loan_in(record, loan, self_))
			break;
	}
	// Its rref may have ended before the loan.
	Dropped dropped{};
	{
		const std::lock_guard lock(mutex_);
		const auto found = std::find_if(dropped_.begin(), dropped_.end(), [&](const Dropped &each) {
			return each.view == &view && each.granule == granule;
		});
		if (found != dropped_.end()) {
			dropped = *found;
			dropped_.erase(found);
		}
	}
	if (dropped.view)
		drop(view, granule, dropped.serial, dropped.bytes);
	return kept ? EBUSY : 0;
}

int Room::loan_is_backed(const View &view, std::uint32_t granule, DomainId from,
			 std::uint32_t generation) const noexcept
{
	DomainId to = self_;

	for (DomainId hops = 0; hops < domains_; hops++) {
		const Word loan = view.loan(from, granule);

		if (loan.state() != State::out || loan.to() != to || loan.serial() != generation)
			return ESTALE;
		if (loan.from() == from) {
			const Word word = view.word(from, granule);
			return word.state() == State::lent &&
					       backed(view, granule, view.run(granule).home(), from, word) != Backed::no
				       ? 0
				       : ESTALE;
		}
		to = from;
		generation = loan.entry();
		from = loan.from();
		if (from >= domains_)
			return ESTALE;
	}
	return ESTALE;
}

int Room::try_borrow(View &view, const Handle &handle, DomainId from, Run run, std::size_t size, bool array,
		     std::uint32_t *count) noexcept
{
	const std::uint32_t granule = handle.index;

	if (const int error = loan_is_backed(view, granule, from, handle.generation))
		return error;
	if (const int error = check_shape(view, granule, run, handle.type, size, array, count))
		return error;

	Record &mine = view.mine[granule];
	Word old{mine.loan.load(std::memory_order_acquire)}, now;
	do {
		if (old.state() == State::out)
			return EBUSY;
		if (old.state() == State::borrowed && loan_holds(view, granule, old.entry()))
			return old.from() == from && old.entry() == handle.generation ? ESTALE : EBUSY;
		now = Word::make(State::borrowed, from, 0, handle.generation,
				 after(old.serial(), handle.generation) ? old.serial() : handle.generation);
	} while (!change(mine.loan, old, now));
	return 0;
}

int Room::begin_borrow(const Handle &handle, DomainId from, std::uint32_t type, std::size_t size, bool array,
		       std::uint32_t *count) noexcept
{
	return try_handle(handle, from, type, [&](View &view, Run run) {
		return try_borrow(view, handle, from, run, size, array, count);
	});
}

void Room::end_borrow(View &view, std::uint32_t granule, std::uint32_t entry) noexcept
{
	Record &mine = view.mine[granule];
	Word loan{mine.loan.load(std::memory_order_acquire)};

	while (loan.state() == State::borrowed && loan.entry() == entry &&
	       !change(mine.loan, loan, Word::make(State::none, 0, 0, 0, loan.serial())))
		;
}

} // namespace orbit::isolation
