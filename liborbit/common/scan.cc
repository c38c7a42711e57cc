// SPDX-License-Identifier: MIT
#include "scan.h"

#include "clock.h"

#include <algorithm>
#include <cstdlib>
#include <iterator>
#include <unistd.h>

namespace liborbit {

namespace {

// A range that is scanned.
struct Piece {
	std::uintptr_t start, end;
	std::size_t first; // its first unit's number
	std::size_t pool;  // which of the scan's
};

// A scan, under way or ended: the task must not scan again what it is done with.
struct Scan {
	Scan *next;
	std::size_t unit, nr_pieces, nr_units, nr_pools;
	std::uint64_t *done; // a bit for each unit; null: all of them
	Piece *pieces;
	std::uintptr_t *pools; // an address in each

	bool is_done(std::size_t number) const
	{
		const std::uint64_t *const bits = __atomic_load_n(&done, __ATOMIC_RELAXED);

		return !bits || (__atomic_load_n(&bits[number / 64], __ATOMIC_RELAXED) >> number % 64 & 1);
	}
	void set_done(std::size_t from, std::size_t count)
	{
		for (; count; from++, count--)
			__atomic_fetch_or(&done[from / 64], std::uint64_t{1} << from % 64, __ATOMIC_RELAXED);
	}
	std::size_t number_of(const Piece &piece, std::uintptr_t address) const
	{
		return piece.first + (address - piece.start) / unit;
	}
};

ORBIT_STATE pid_t serving_thread;
ORBIT_STATE Scan *scans;
ORBIT_STATE bool scanning;

// What one step tells and asks: as much as the kernel takes.
constexpr std::size_t max_told = 32;

constexpr std::size_t too_many = SIZE_MAX / 64; // no program has so many pieces

bool overlap(std::uintptr_t start, std::uintptr_t end, std::uintptr_t other, std::uintptr_t other_end)
{
	return start < other_end && other < end;
}

std::uintptr_t start_of(const orbit_range &range)
{
	return reinterpret_cast<std::uintptr_t>(range.start);
}

int compare(const void *a, const void *b)
{
	const std::uintptr_t x = static_cast<const Piece *>(a)->start, y = static_cast<const Piece *>(b)->start;

	return (x > y) - (x < y);
}

int check_ranges(const orbit_range *ranges, std::size_t nr_ranges)
{
	if (!ranges || !nr_ranges || nr_ranges > too_many)
		return -EINVAL;

	auto *const sorted = static_cast<Piece *>(malloc(nr_ranges * sizeof(Piece)));
	int err = sorted ? 0 : -ENOMEM;

	for (std::size_t i = 0; i < nr_ranges && !err; i++) {
		const std::uintptr_t start = start_of(ranges[i]);
		const std::size_t bytes = ranges[i].length;

		sorted[i] = {start, start + bytes, 0, 0};
		if (!bytes || (start | bytes) & (page_size() - 1) || start + bytes < start)
			err = -EINVAL;
	}
	if (!err)
		qsort(sorted, nr_ranges, sizeof(Piece), compare);
	for (std::size_t i = 1; i < nr_ranges && !err; i++)
		if (sorted[i].start < sorted[i - 1].end)
			err = -EINVAL;
	free(sorted);
	return err;
}

int check_options(const orbit_scan_options &options)
{
	if (options.flags || options.unit & (page_size() - 1) || (options.nr_keep && !options.keep))
		return -EINVAL;
	for (std::size_t i = 0; i < options.nr_keep; i++)
		if (start_of(options.keep[i]) + options.keep[i].length < start_of(options.keep[i]))
			return -EINVAL;
	return 0;
}

bool is_any_done(const Scan &scan, std::uintptr_t start, std::uintptr_t end)
{
	for (std::size_t i = 0; i < scan.nr_pieces; i++) {
		const Piece &piece = scan.pieces[i];

		if (!overlap(piece.start, piece.end, start, end))
			continue;

		const std::size_t last = scan.number_of(piece, std::min(piece.end, end) - 1);

		for (std::size_t unit = scan.number_of(piece, std::max(piece.start, start)); unit <= last; unit++)
			if (scan.is_done(unit))
				return true;
	}
	return false;
}

bool is_any_done(std::uintptr_t start, std::uintptr_t end)
{
	for (const Scan *scan = __atomic_load_n(&scans, __ATOMIC_ACQUIRE); scan; scan = scan->next)
		if (is_any_done(*scan, start, end))
			return true;
	return false;
}

void free_scan(Scan *scan)
{
	free(scan->done);
	free(scan->pieces);
	free(scan->pools);
	free(scan);
}

// Which of the pools that are known a range is in; or it is another one.
std::size_t find_pool(Scan *scan, std::uintptr_t start)
{
	std::size_t pool = 0;

	while (pool < scan->nr_pools && serving_backend->scan_check(scan->pools[pool], start, page_size()))
		pool++;
	if (pool == scan->nr_pools)
		scan->pools[scan->nr_pools++] = start;
	return pool;
}

Scan *make_scan(const orbit_range *ranges, std::size_t nr_ranges, std::size_t unit)
{
	auto *const made = static_cast<Scan *>(calloc(1, sizeof(Scan)));

	if (!made)
		return nullptr;
	made->unit = unit;
	made->nr_pieces = nr_ranges;
	made->pieces = static_cast<Piece *>(malloc(nr_ranges * sizeof(Piece)));
	made->pools = static_cast<std::uintptr_t *>(malloc(nr_ranges * sizeof(std::uintptr_t)));
	for (std::size_t i = 0; i < nr_ranges && made->pieces && made->pools; i++) {
		const std::uintptr_t start = start_of(ranges[i]);

		made->pieces[i] = {start, start + ranges[i].length, made->nr_units, find_pool(made, start)};
		made->nr_units += (ranges[i].length - 1) / unit + 1;
	}
	made->done = static_cast<std::uint64_t *>(calloc((made->nr_units + 63) / 64, sizeof(std::uint64_t)));
	if (!made->pieces || !made->pools || !made->done) {
		free_scan(made);
		return nullptr;
	}
	return made;
}

// One scan after the other over neighbours, as of a task that goes step by step, shall be no long list.
bool merge_with_last(const Scan *scan)
{
	Scan *const last = scans;
	const Piece &piece = scan->pieces[0];

	if (!last || last->done || last->nr_pieces != 1 || scan->nr_pieces != 1 || last->pieces[0].end != piece.start)
		return false;
	last->pieces[0].end = piece.end;
	return true;
}

class Scanner {
public:
	Scanner(Scan *scan, orbit_scan_fn fn, void *user, const orbit_scan_options &options, orbit_scanned *out)
		: scan_(*scan), fn_(fn), user_(user), options_(options), out_(*out),
		  most_(std::max(longest / scan->unit, std::size_t{1}))
	{
		// What is looked at before the backend hears of it is held: a little of the whole. Where nothing is, it
		// should be told seldom, for each time costs a flush of the TLB.
		if (serving_backend->scan_holds())
			most_ = std::clamp(scan->nr_units / 256, std::size_t{1}, most_);
		else
			batch_ = most_ = std::max(scan->nr_units / 8, most_);
	}

	int run()
	{
		for (std::size_t pool = 0; pool < scan_.nr_pools; pool++)
			if (const int err = drain(pool, 0, 0, true))
				return err;
		for (std::size_t i = 0; i < scan_.nr_pieces; i++)
			if (const int err = run_piece(scan_.pieces[i]))
				return err;
		return 0;
	}

private:
	static constexpr std::size_t longest = 1 << 20; // bytes
	static constexpr std::uint64_t short_ns = 200'000, long_ns = 800'000;

	int run_piece(const Piece &piece)
	{
		std::uintptr_t at = piece.start, end = at + std::min(batch_ * scan_.unit, piece.end - at);

		if (const int err = drain(piece.pool, at, end, false))
			return err;
		while (at < piece.end) {
			const std::uint64_t before = monotonic_ns();

			if (const int err = take(piece, at, end, false))
				return flush(piece.pool, err);
			adapt(monotonic_ns() - before);
			at = end;
			end = at + std::min(batch_ * scan_.unit, piece.end - at);
			if (const int err = drain(piece.pool, at, end, false))
				return err;
			// In the others main goes on, too.
			if (++other_ >= scan_.nr_pools)
				other_ = 0;
			if (other_ != piece.pool)
				if (const int err = drain(other_, 0, 0, false))
					return err;
		}
		return 0;
	}

	// The kernel is to be asked often enough for what is overtaken, and seldom enough not to cost.
	void adapt(std::uint64_t took)
	{
		if (took < short_ns)
			batch_ = std::min(2 * batch_, most_);
		else if (took > long_ns)
			batch_ = std::max(batch_ / 2, std::size_t{1});
	}

	bool is_kept(std::uintptr_t start, std::uintptr_t end) const
	{
		for (std::size_t i = 0; i < options_.nr_keep; i++) {
			const orbit_range &keep = options_.keep[i];

			if (keep.length && overlap(start, end, start_of(keep), start_of(keep) + keep.length))
				return true;
		}
		return false;
	}

	int step(std::size_t pool, ScanStep &step)
	{
		step.pool = scan_.pools[pool];
		step.done = done_;
		step.nr_done = nr_done_;
		nr_done_ = 0;
		return serving_backend->scan_step(&step);
	}

	// Tell of what is done with. An error that there is already is the one that counts.
	int flush(std::size_t pool, int before = 0)
	{
		ScanStep tell{};
		const int err = nr_done_ ? step(pool, tell) : 0;

		return before ? before : err;
	}

	// Tell of what is done with, and look at what main has overwritten, and the scan not looked at, for as long
	// as there is any. And have the batch that is next mapped.
	int drain(std::size_t pool, std::uintptr_t ahead, std::uintptr_t end, bool again)
	{
		orbit_range held[max_told];
		ScanStep ask{};

		ask.ahead = ahead;
		ask.ahead_bytes = end - ahead;
		ask.again = again;
		do {
			ask.held = held;
			ask.nr_held = std::size(held);
			if (const int err = step(pool, ask))
				return err;
			for (std::size_t i = 0; i < ask.nr_held; i++)
				if (const int err = take_held(start_of(held[i]), start_of(held[i]) + held[i].length))
					return flush(pool, err);
			ask.ahead_bytes = 0;
			ask.again = false;
		} while (ask.nr_held);
		return 0;
	}

	int finish(const Piece &piece, std::uintptr_t start, std::uintptr_t end)
	{
		if (start == end)
			return 0;

		const std::size_t first = scan_.number_of(piece, start);

		scan_.set_done(first, scan_.number_of(piece, end - 1) - first + 1);
		done_[nr_done_++] = {reinterpret_cast<void *>(start), end - start};
		return nr_done_ == std::size(done_) ? flush(piece.pool) : 0;
	}

	int look_at(std::uintptr_t start, std::uintptr_t end)
	{
		const Outside here;

		out_.units++;
		return fn_(user_, reinterpret_cast<const void *>(start), end - start);
	}

	// Units from the beginning of one on, those that the scan is not done with yet. What is kept is
	// looked at only where its place is, and so once.
	int take(const Piece &piece, std::uintptr_t at, std::uintptr_t end, bool overtaken)
	{
		std::uintptr_t from = at; // looked at, and not done with yet
		int stopped = 0;

		while (at < end && !stopped) {
			const std::uintptr_t next = at + std::min(scan_.unit, piece.end - at);
			const bool skip = scan_.is_done(scan_.number_of(piece, at));
			const bool keep = !skip && is_kept(at, next);

			if (skip || keep) {
				if (const int err = finish(piece, from, at))
					return err;
				from = next;
			}
			if (!skip && !(keep && overtaken)) {
				stopped = look_at(at, next);
				out_.overtaken += overtaken;
			}
			at = next;
		}

		const int err = finish(piece, from, at);

		return stopped ? stopped : err;
	}

	int take_held(std::uintptr_t start, std::uintptr_t end)
	{
		for (std::size_t i = 0; i < scan_.nr_pieces; i++) {
			const Piece &piece = scan_.pieces[i];

			if (!overlap(piece.start, piece.end, start, end))
				continue;

			const std::uintptr_t from = std::max(piece.start, start), to = std::min(piece.end, end);
			const std::uintptr_t first = piece.start + (from - piece.start) / scan_.unit * scan_.unit;

			if (const int err = take(piece, first, to, true))
				return err;
		}
		return 0;
	}

	Scan &scan_;
	const orbit_scan_fn fn_;
	void *const user_;
	const orbit_scan_options &options_;
	orbit_scanned &out_;
	std::size_t most_, batch_ = 1; // units
	std::size_t other_ = 0;
	orbit_range done_[max_told]; // of one pool, and not told yet
	std::size_t nr_done_ = 0;
};

} // namespace

void may_scan()
{
	serving_thread = gettid();
}

int scan(const orbit_range *ranges, std::size_t nr_ranges, orbit_scan_fn fn, void *user,
	 const orbit_scan_options &options, orbit_scanned *out)
{
	int err = fn ? check_options(options) : -EINVAL;

	if (!err)
		err = server_fd < 0 || gettid() != serving_thread ? -EPERM : 0;
	if (!err)
		err = scanning ? -EBUSY : check_ranges(ranges, nr_ranges);
	for (std::size_t i = 0; i < nr_ranges && !err; i++) {
		const std::uintptr_t start = start_of(ranges[i]);

		err = serving_backend->scan_check(start, start, ranges[i].length);
		if (!err && is_any_done(start, start + ranges[i].length))
			err = -EALREADY;
	}
	if (err)
		return err;

	Scan *const made = make_scan(ranges, nr_ranges, options.unit ? options.unit : page_size());

	if (!made)
		return -ENOMEM;

	// From here on a handler may ask.
	made->next = scans;
	__atomic_store_n(&scans, made, __ATOMIC_RELEASE);
	scanning = true;

	Scanner scanner(made, fn, user, options, out);

	err = scanner.run();
	scanning = false;
	if (!err && !options.nr_keep) {
		free(__atomic_exchange_n(&made->done, nullptr, __ATOMIC_RELAXED));
		scans = made->next;
		if (merge_with_last(made))
			free_scan(made);
		else
			scans = made;
	}
	return err;
}

bool is_done_with(std::uintptr_t address)
{
	return is_any_done(address, address + 1);
}

bool forget_scans()
{
	const bool any = scans;

	while (Scan *const scan = scans) {
		scans = scan->next;
		free_scan(scan);
	}
	scanning = false;
	return any;
}

} // namespace liborbit
