// SPDX-License-Identifier: MIT
#include "tracker.h"

#include "../common/futex.h"
#include "../internal.h"
#include "../common/descriptors.h"
#include "../common/files.h"
#include "../common/pagemap.h"
#include "../common/process.h"
#include "../common/signals.h"

#include <algorithm>
#include <cerrno>
#include <climits>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fcntl.h>
#include <iterator>
#include <linux/userfaultfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace liborbit {

namespace {

// ---- What the headers of older distributions lack ---------------------------------------

constexpr int uffd_user_mode_only = 1;
constexpr std::uint64_t uffd_wp_shmem = 1 << 12;
constexpr std::uint64_t uffd_wp_unpopulated = 1 << 13;
constexpr std::uint64_t uffd_wp_async = 1 << 15;
constexpr unsigned seal_future_write = 0x10;

// ---- State ------------------------------------------------------------------------------

constexpr std::size_t scan_room = 1024;

ORBIT_STATE Tracker chosen;    // once there is a pool
ORBIT_STATE int uffd = -1;     // while there are pools,
ORBIT_STATE int pagemap = -1;  // and both of use
ORBIT_STATE Tracked *all;      // the pools
ORBIT_STATE unsigned nr_pools; // how many
ORBIT_STATE ScanRegion *regions;

// How many handlers are at work; closed while a snapshot is being taken.
ORBIT_STATE std::uint32_t gate;

ORBIT_STATE bool handler_installed;
// What the application wants done with SIGSEGV. It changes while handlers of other threads read it, and
// handlers change it, so there is no lock: a new one has a place of its own.
constexpr unsigned nr_actions = 64;
ORBIT_STATE struct sigaction actions[nr_actions];
ORBIT_STATE std::uint32_t action_taken, action;

// How many mappings pools were split into, about, and how many they may be.
ORBIT_STATE std::uint32_t splits, most_splits;

void *address_of(const Tracked *pool, std::uint32_t page)
{
	return reinterpret_cast<void *>(pool->start + page * page_size());
}

// ---- The list of changed pages ----------------------------------------------------------

void unlink_page(Tracked *pool, std::uint32_t page)
{
	TrackedPage &old = pool->pages[page];

	if (!old.changed)
		return;
	if (old.newer)
		pool->pages[old.newer - 1].older = old.older;
	else
		pool->newest = old.older;
	if (old.older)
		pool->pages[old.older - 1].newer = old.newer;
}

void mark(Tracked *pool, std::uint32_t page, std::uint64_t snapshot)
{
	TrackedPage &marked = pool->pages[page];

	unlink_page(pool, page);
	marked.changed = snapshot;
	marked.newer = 0;
	marked.older = pool->newest;
	if (pool->newest)
		pool->pages[pool->newest - 1].newer = page + 1;
	pool->newest = page + 1;
}

// ---- userfaultfd ------------------------------------------------------------------------

int open_uffd()
{
	uffdio_api api{};
	const int fd = static_cast<int>(
		syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK | uffd_user_mode_only));

	if (fd < 0)
		return -errno;
	api.api = UFFD_API;
	api.features = uffd_wp_async | uffd_wp_unpopulated | uffd_wp_shmem;
	if (ioctl(fd, UFFDIO_API, &api)) {
		const int err = -errno;

		close(fd);
		return err;
	}
	return fd;
}

long scan(std::uintptr_t start, std::uintptr_t end, std::uintptr_t *walked)
{
	ScanArg arg{};

	arg.size = sizeof(arg);
	arg.flags = scan_wp_matching | scan_check_wpasync;
	arg.start = start;
	arg.end = end;
	arg.vec = reinterpret_cast<std::uintptr_t>(regions);
	arg.vec_len = scan_room;
	arg.category_mask = page_is_written;
	arg.return_mask = page_is_written;

	const int count = ioctl(pagemap, pagemap_scan, &arg);

	*walked = arg.walk_end;
	return count < 0 ? -errno : count;
}

// Ask whether the kernel can do it at all; nothing is kept.
int try_uffd()
{
	const int fd = open_uffd();

	if (fd < 0)
		return fd;

	const int map = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	int err = map < 0 ? -errno : 0;
	ScanArg arg{};

	arg.size = sizeof(arg);
	arg.return_mask = page_is_written;
	if (!err && ioctl(map, pagemap_scan, &arg) < 0 && errno != EINVAL)
		err = -errno;
	if (map >= 0)
		close(map);
	close(fd);
	return err;
}

int start_uffd()
{
	uffd = lift(open_uffd());
	if (uffd < 0)
		return uffd;
	pagemap = lift(open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC));
	regions = static_cast<ScanRegion *>(malloc(scan_room * sizeof(ScanRegion)));
	if (pagemap >= 0 && regions)
		return 0;

	const int err = pagemap < 0 ? -errno : -ENOMEM;

	close(uffd);
	uffd = -1;
	if (pagemap >= 0)
		close(pagemap);
	pagemap = -1;
	free(regions);
	regions = nullptr;
	return err;
}

int protect_by_uffd(const Tracked *pool)
{
	uffdio_register wanted{};

	wanted.range.start = pool->start;
	wanted.range.len = pool->nr_pages * page_size();
	wanted.mode = UFFDIO_REGISTER_MODE_WP;
	return ioctl(uffd, UFFDIO_REGISTER, &wanted) ? -errno : 0;
}

// Which pages of a part of a pool are there, for up to so many.
constexpr std::uint32_t most_asked = 1024;
using Pages = bool[most_asked];

// Those that are mapped, as far as the kernel tells.
void find_mapped(const Tracked *pool, std::uint32_t first, std::uint32_t end, Pages &there)
{
	ScanRegion found[64];
	ScanArg arg{};

	arg.size = sizeof(arg);
	arg.start = pool->start + first * page_size();
	arg.end = pool->start + end * page_size();
	arg.vec = reinterpret_cast<std::uintptr_t>(found);
	arg.vec_len = std::size(found);
	arg.category_mask = page_is_present;
	arg.return_mask = page_is_present;
	while (arg.start < arg.end) {
		const int count = pagemap < 0 ? -1 : ioctl(pagemap, pagemap_scan, &arg);

		if (count < 0 || arg.walk_end <= arg.start)
			return;
		for (int i = 0; i < count; i++)
			for (std::uintptr_t at = found[i].start; at < found[i].end; at += page_size())
				there[(at - pool->start) / page_size() - first] = true;
		arg.start = arg.walk_end;
	}
}

// Of the others, those that the file has. Where one is, is told at once; where the next hole is, only after
// a walk over all that lies before it, to the end of the pool if need be.
void find_in_file(const Tracked *pool, std::uint32_t first, std::uint32_t end, Pages &there)
{
	const auto bytes = static_cast<off_t>(page_size());

	for (std::uint32_t page = first; page < end; page++) {
		if (there[page - first])
			continue;

		const off_t data = lseek(pool->memory, page * bytes, SEEK_DATA);

		if ((data < 0 && errno == ENXIO) || data >= end * bytes)
			break;
		if (data >= 0)
			page = static_cast<std::uint32_t>(data / bytes);
		there[page - first] = true;
	}
}

// Pages that never changed so far.
long mark_new(Tracked *pool, std::uint32_t first, std::uint32_t end, std::uint64_t snapshot)
{
	long count = 0;

	for (std::uint32_t from = first; end > first; end = from) {
		Pages there = {};

		from = end - first > most_asked ? end - most_asked : first;
		find_mapped(pool, from, end, there);
		find_in_file(pool, from, end, there);
		for (std::uint32_t page = end; page-- > from;)
			if (there[page - from]) {
				mark(pool, page, snapshot);
				count++;
			}
	}
	return count;
}

// What the scan says of pages without a place in the page tables is that they were written to. Those that
// were never touched have none in the file either; and one that it has it keeps, see the seals. So only
// pages that never changed are asked for, and a few of them are not worth it. From the end: so they
// are in the list in their order.
long mark_region(Tracked *pool, std::uint32_t first, std::uint32_t end, std::uint64_t snapshot)
{
	constexpr std::uint32_t few = 4;
	long count = 0;

	while (end > first) {
		std::uint32_t from = end;

		while (from > first && !pool->pages[from - 1].changed)
			from--;
		if (end - from > few)
			count += mark_new(pool, from, end, snapshot);
		else
			for (std::uint32_t page = end; page-- > from; count++)
				mark(pool, page, snapshot);
		for (end = from; end > first && pool->pages[end - 1].changed; count++)
			mark(pool, --end, snapshot);
	}
	return count;
}

// Pages are looked for in pieces of a pool, of what one page table maps. Nothing was written where the
// file has no page, and that is not scanned: of a page that is not there the kernel would note its
// protection in a page table, so the first scan of a pool of which little is used would make tables
// for all of it, and each later one walk them. A piece that has a page keeps it, see the seals.
std::uintptr_t piece_bytes()
{
	return page_size() * (page_size() / sizeof(std::uint64_t));
}

std::size_t piece_of(const Tracked *pool, std::uintptr_t at)
{
	return at / piece_bytes() - pool->start / piece_bytes();
}

std::uint8_t &populated(const Tracked *pool, std::uintptr_t at)
{
	return pool->populated[piece_of(pool, at)];
}

// The next part of a pool, in [*from, end), that may have pages; false if none has.
bool find_populated(const Tracked *pool, std::uintptr_t *from, std::uintptr_t end, std::uintptr_t *stop)
{
	if (*from >= end)
		return false;
	if (!populated(pool, *from)) {
		const off_t data = lseek(pool->memory, static_cast<off_t>(*from - pool->start), SEEK_DATA);

		if (data < 0 && errno == ENXIO)
			return false;
		if (data >= 0) {
			const std::uintptr_t at = pool->start + static_cast<std::uintptr_t>(data);

			if (at >= end)
				return false;
			*from = std::max(*from, at / piece_bytes() * piece_bytes());
		}
		populated(pool, *from) = 1;
	}
	*stop = *from;
	while (*stop < end && populated(pool, *stop))
		*stop = (*stop / piece_bytes() + 1) * piece_bytes();
	*stop = std::min(*stop, end);
	return true;
}

long look_at_part(Tracked *pool, std::uintptr_t from, std::uintptr_t end, std::uint64_t snapshot)
{
	long total = 0;

	while (from < end) {
		std::uintptr_t walked = end;
		const long found = scan(from, end, &walked);

		if (found < 0)
			return found;
		for (long i = found; i-- > 0;)
			total += mark_region(
				pool,
				static_cast<std::uint32_t>((regions[i].start - pool->start) / page_size()),
				static_cast<std::uint32_t>((regions[i].end - pool->start) / page_size()),
				snapshot);
		if (walked <= from)
			break;
		from = walked;
	}
	return total;
}

long look_by_uffd(Tracked *pool, std::uint32_t first, std::uint32_t count, std::uint64_t snapshot)
{
	std::uintptr_t from = pool->start + first * page_size();
	const std::uintptr_t end = from + count * page_size();
	std::uintptr_t stop;
	long total = 0;

	while (find_populated(pool, &from, end, &stop)) {
		const long found = look_at_part(pool, from, stop, snapshot);

		if (found < 0)
			return found == -EINTR ? 0 : found;
		total += found;
		from = stop;
	}
	return total;
}

// ---- mprotect ---------------------------------------------------------------------------

void enter_gate()
{
	std::uint32_t seen = __atomic_load_n(&gate, __ATOMIC_RELAXED);

	for (;;) {
		if (seen & gate_closed) {
			futex_wait(&gate, seen);
			seen = __atomic_load_n(&gate, __ATOMIC_RELAXED);
		} else if (__atomic_compare_exchange_n(&gate, &seen, seen + 1, false, __ATOMIC_ACQUIRE,
						       __ATOMIC_RELAXED)) {
			return;
		}
	}
}

int protect(const Tracked *pool, std::uint32_t first, std::uint32_t end, int access)
{
	// Not by mprotect(), which is ours.
	return syscall(SYS_mprotect, address_of(pool, first), (end - first) * page_size(), access) ? -errno : 0;
}

// For each page. What the application itself has taken the permission from is not ours to give back.
constexpr std::uint8_t is_writable = 1, is_denied = 2;

bool is_set(const Tracked *pool, std::uint32_t page)
{
	return __atomic_load_n(&pool->access[page], __ATOMIC_RELAXED) & is_writable;
}

void count_splits(Tracked *pool, int more)
{
	__atomic_fetch_add(&pool->splits, static_cast<std::uint32_t>(more), __ATOMIC_RELAXED);
	__atomic_fetch_add(&splits, static_cast<std::uint32_t>(more), __ATOMIC_RELAXED);
}

void forget_splits(Tracked *pool)
{
	count_splits(pool, -static_cast<int>(pool->splits));
}

// Note that these pages can be written to, or no more. The kernel has a mapping for each run of
// pages with the same permissions.
void set_writable(Tracked *pool, std::uint32_t first, std::uint32_t end, bool writable)
{
	const auto kept = static_cast<std::uint8_t>(~is_writable);
	const bool left = first ? is_set(pool, first - 1) : writable;
	const bool right = end < pool->nr_pages ? is_set(pool, end) : writable;
	const int after = (left != writable) + (right != writable);
	int before = 0;
	bool last = left;

	for (std::uint32_t page = first; page < end; page++) {
		std::uint8_t *const access = &pool->access[page];
		const bool was = (writable ? __atomic_fetch_or(access, is_writable, __ATOMIC_ACQ_REL) :
					     __atomic_fetch_and(access, kept, __ATOMIC_ACQ_REL)) &
				 is_writable;

		if (writable && !was)
			pool->written[__atomic_fetch_add(&pool->nr_written, 1, __ATOMIC_ACQ_REL)] = page;
		before += page && was != last;
		last = was;
	}
	before += end < pool->nr_pages && right != last;
	count_splits(pool, after - before);
}

// How many pages one fault makes writable. With half of the mappings that pools may have there are
// so many in a block that all blocks, each with its own permissions, need no more than what is left.
std::uint32_t block_of(const Tracked *pool)
{
	const std::uint32_t used = __atomic_load_n(&splits, __ATOMIC_RELAXED);
	const std::uint32_t left = used < most_splits ? most_splits - used : 1;
	std::uint32_t block = 1;

	if (used < most_splits / 2)
		return 1;
	while (block < pool->nr_pages && pool->nr_pages / block > left / 2)
		block *= 2;
	return block;
}

Tracked *find_pool(std::uintptr_t at)
{
	Tracked *pool = all;

	while (pool && at - pool->start >= pool->nr_pages * page_size())
		pool = pool->next;
	return pool;
}

bool make_writable(Tracked *pool, std::uint32_t page)
{
	const std::uint32_t block = block_of(pool);
	std::uint32_t first = page / block * block;
	std::uint32_t end = pool->nr_pages - first < block ? pool->nr_pages : first + block;

	if (__atomic_load_n(&pool->nr_denied, __ATOMIC_ACQUIRE)) {
		first = page;
		end = page + 1;
	}
	set_writable(pool, first, end, true);
	if (!protect(pool, first, end, PROT_READ | PROT_WRITE))
		return true;
	// No mapping left to tell this page from its neighbours.
	__atomic_store_n(&pool->all_written, true, __ATOMIC_RELEASE);
	return !protect(pool, 0, pool->nr_pages, PROT_READ | PROT_WRITE);
}

// A write to a page that is read-only, or was a moment ago. Was it that?
bool allow_write(std::uintptr_t at)
{
	bool ours = false;

	enter_gate();
	if (Tracked *const pool = find_pool(at)) {
		const auto page = static_cast<std::uint32_t>((at - pool->start) / page_size());
		const std::uint8_t access = __atomic_load_n(&pool->access[page], __ATOMIC_ACQUIRE);

		ours = !(access & is_denied) && (access & is_writable || make_writable(pool, page));
	}
	leave_gate(&gate);
	return ours;
}

struct sigaction replace_action(const struct sigaction &wanted)
{
	const std::uint32_t place = __atomic_fetch_add(&action_taken, 1, __ATOMIC_RELAXED) % nr_actions;

	actions[place] = wanted;
	return actions[__atomic_exchange_n(&action, place, __ATOMIC_ACQ_REL)];
}

// As the kernel would call what the application has in place.
void chain(int signal, siginfo_t *info, void *context)
{
	const struct sigaction wanted = actions[__atomic_load_n(&action, __ATOMIC_ACQUIRE)];
	const bool informs = wanted.sa_flags & SA_SIGINFO;

	if (!informs && (wanted.sa_handler == SIG_DFL || (wanted.sa_handler == SIG_IGN && info->si_code > 0))) {
		act_by_default(signal, info);
		return;
	}
	if (!informs && wanted.sa_handler == SIG_IGN)
		return;
	if (wanted.sa_flags & static_cast<int>(SA_RESETHAND))
		replace_action({});

	sigset_t mask = static_cast<const ucontext_t *>(context)->uc_sigmask;

	sigorset(&mask, &mask, &wanted.sa_mask);
	if (!(wanted.sa_flags & SA_NODEFER))
		sigaddset(&mask, signal);
	pthread_sigmask(SIG_SETMASK, &mask, nullptr); // the old one comes back with the end of the handler
	if (informs)
		wanted.sa_sigaction(signal, info, context);
	else
		wanted.sa_handler(signal);
}

void on_fault(int signal, siginfo_t *info, void *context)
{
	const int saved = errno;
	const bool ours = info->si_code == SEGV_ACCERR && may_be_write(info, context) &&
			  allow_write(reinterpret_cast<std::uintptr_t>(info->si_addr));

	errno = saved;
	if (!ours)
		chain(signal, info, context);
}

// Whoever installs a handler by another way than sigaction() and signal() takes ours away.
int install_handler()
{
	struct sigaction now = {}, ours = {};

	if (real_sigaction(SIGSEGV, nullptr, &now))
		return -errno;
	if (now.sa_flags & SA_SIGINFO && now.sa_sigaction == on_fault)
		return 0;
	replace_action(now);
	ours.sa_sigaction = on_fault;
	ours.sa_flags = SA_SIGINFO | SA_ONSTACK;
	sigfillset(&ours.sa_mask); // a handler that writes to a pool must not come between
	sigdelset(&ours.sa_mask, SIGSYS);
	return real_sigaction(SIGSEGV, &ours, nullptr) ? -errno : 0;
}

// Half of what the kernel lets a program have: the rest is the application's.
std::uint32_t find_most_splits()
{
	constexpr unsigned usual = 65530;
	char text[32] = {};
	const int fd = open("/proc/sys/vm/max_map_count", O_RDONLY | O_CLOEXEC);

	if (fd >= 0) {
		if (read(fd, text, sizeof(text) - 1) < 0)
			text[0] = '\0';
		close(fd);
	}

	const unsigned long most = strtoul(text, nullptr, 10);

	return static_cast<std::uint32_t>((most && most < INT_MAX ? most : usual) / 2);
}

int start_mprotect()
{
	most_splits = find_most_splits();
	if (const int err = install_handler())
		return err;
	handler_installed = true;
	return 0;
}

// The kernel walks only over what is writable. Around what the application denies it has to be done run by run.
int protect_written(Tracked *pool, std::uint32_t first, std::uint32_t end)
{
	int err = 0;

	if (!pool->nr_denied)
		return protect(pool, first, end, PROT_READ);
	for (std::uint32_t page = first; page < end && !err; page++) {
		std::uint32_t run = page;

		while (run < end && pool->access[run] == is_writable)
			run++;
		if (run > page) {
			err = protect(pool, page, run, PROT_READ);
			page = run;
		}
	}
	return err;
}

long look_at_all(Tracked *pool, std::uint64_t snapshot)
{
	const long total = mark_region(pool, 0, pool->nr_pages, snapshot);

	for (std::uint32_t page = 0; page < pool->nr_pages; page++)
		pool->access[page] |= is_writable;
	if (const int err = protect_written(pool, 0, pool->nr_pages))
		return err;
	for (std::uint32_t page = 0; page < pool->nr_pages; page++)
		pool->access[page] &= is_denied;
	pool->all_written = false;
	pool->nr_written = 0;
	forget_splits(pool);
	return total;
}

// One snapshot after the other takes what is in the list of written pages, and leaves those that
// it does not look at.
long look_by_mprotect(Tracked *pool, std::uint32_t first, std::uint32_t count, std::uint64_t snapshot)
{
	const std::uint32_t end = first + count;
	std::uint32_t kept = 0;
	long total = 0;

	if (pool->all_written)
		return look_at_all(pool, snapshot); // for good measure
	if (!pool->nr_written)
		return 0;

	const bool failed = protect_written(pool, first, end) != 0;

	// From the end, for the list to have them in the order of the writes.
	for (std::uint32_t i = pool->nr_written; i-- > 0;)
		if (const std::uint32_t page = pool->written[i]; page >= first && page < end) {
			mark(pool, page, snapshot);
			total++;
			if (!failed) // otherwise it is writable still, and changes with every snapshot
				set_writable(pool, page, page + 1, false);
		}
	for (std::uint32_t i = 0; i < pool->nr_written; i++)
		if (const std::uint32_t page = pool->written[i]; pool->access[page] & is_writable)
			pool->written[kept++] = page;
	pool->nr_written = kept;
	if (!kept)
		forget_splits(pool); // it was an estimate: handlers count at the same time
	return total;
}

int allocate_written(Tracked *pool)
{
	const std::size_t bytes = pool->nr_pages * (sizeof(*pool->written) + sizeof(*pool->access));
	void *memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE,
			    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (memory == MAP_FAILED)
		return -ENOMEM;
	pool->written = static_cast<std::uint32_t *>(memory);
	pool->access = reinterpret_cast<std::uint8_t *>(pool->written + pool->nr_pages);
	return 0;
}

} // namespace

// ---- Both -------------------------------------------------------------------------------

Tracker choose_tracker(const char **why)
{
	const char *wanted = secure_getenv("ORBIT_TRACKER");

	*why = "";
	if (chosen != Tracker::none)
		return chosen;
	if (wanted && !std::strcmp(wanted, "mprotect"))
		return Tracker::mprotect;

	const int err = try_uffd();

	if (!err)
		return Tracker::userfaultfd;
	if (wanted && !std::strcmp(wanted, "userfaultfd")) {
		*why = "ORBIT_TRACKER asks for userfaultfd, which this kernel lacks or forbids.";
		return Tracker::none;
	}
	*why = err == -EPERM || err == -EACCES ? "userfaultfd or /proc/self/pagemap is forbidden here" :
						 "this kernel has no asynchronous write protection";
	return Tracker::mprotect;
}

namespace {

int make_memory(Tracked *pool, const char *name)
{
	char text[64];
	void *const start = reinterpret_cast<void *>(pool->start);
	const std::size_t bytes = pool->nr_pages * page_size();

	std::snprintf(text, sizeof(text), "orbit-pool:%s", name);
	pool->memory = make_memory_file(text, bytes);
	if (pool->memory < 0)
		return pool->memory;
	if (mmap(start, bytes, chosen == Tracker::mprotect ? PROT_READ : PROT_READ | PROT_WRITE,
		 MAP_SHARED | MAP_FIXED, pool->memory, 0) == MAP_FAILED)
		return -errno;
	// From now on nobody else can map it for writing, or punch holes that would go unnoticed.
	if (fcntl(pool->memory, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | seal_future_write | F_SEAL_SEAL))
		return -errno;
	// One written page must not count as all those of a huge one. Kernels without those refuse it.
	madvise(start, bytes, MADV_NOHUGEPAGE);
	return madvise(start, bytes, MADV_DONTFORK) ? -errno : 0;
}

std::size_t tracking_bytes(const Tracked *pool)
{
	const std::uintptr_t last = pool->start + pool->nr_pages * page_size() - 1;

	return pool->nr_pages * sizeof(*pool->pages) +
	       (piece_of(pool, last) + 1) * sizeof(*pool->populated);
}

int begin_tracking(Tracked *pool)
{
	void *memory = mmap(nullptr, tracking_bytes(pool), PROT_READ | PROT_WRITE,
			    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (memory == MAP_FAILED)
		return -ENOMEM;
	pool->pages = static_cast<TrackedPage *>(memory);
	pool->populated = reinterpret_cast<std::uint8_t *>(pool->pages + pool->nr_pages);
	return chosen == Tracker::mprotect ? allocate_written(pool) : 0;
}

int start_tracking()
{
	const char *why;

	chosen = choose_tracker(&why);

	const int err = chosen == Tracker::userfaultfd ? start_uffd() :
			chosen == Tracker::mprotect    ? start_mprotect() :
							 -ENOSYS;

	if (err)
		chosen = Tracker::none;
	return err;
}

void stop_tracking()
{
	close_ours(&uffd);
	close_ours(&pagemap);
	free(regions);
	regions = nullptr;
	uffd = pagemap = -1;
	chosen = Tracker::none;
}

void release(Tracked *pool)
{
	close_ours(&pool->memory);
	if (pool->pages)
		munmap(pool->pages, tracking_bytes(pool));
	if (pool->written)
		munmap(pool->written,
		       pool->nr_pages * (sizeof(*pool->written) + sizeof(*pool->access)));
	*pool = {};
	pool->memory = -1;
}

} // namespace

int track(Tracked *pool, const Range &range, const char *name)
{
	*pool = {};
	pool->memory = -1;
	if (range.bytes / page_size() >= UINT32_MAX)
		return -ENOMEM;
	if (!nr_pools)
		if (const int err = start_tracking())
			return err;
	pool->start = range.start;
	pool->nr_pages = static_cast<std::uint32_t>(range.bytes / page_size());

	int err = begin_tracking(pool);

	if (!err)
		err = make_memory(pool, name);
	if (!err && chosen == Tracker::userfaultfd)
		err = protect_by_uffd(pool);
	if (err) {
		release(pool);
		if (!nr_pools)
			stop_tracking();
		return err;
	}
	// Handlers may be looking for a pool.
	const PoolsClosed closed;

	pool->next = all;
	all = pool;
	nr_pools++;
	return 0;
}

void untrack(Tracked *pool)
{
	{
		const PoolsClosed closed;
		Tracked **link = &all;

		while (*link && *link != pool)
			link = &(*link)->next;
		if (*link) {
			*link = pool->next;
			nr_pools--;
		}
		forget_splits(pool);
	}
	release(pool);
	if (!nr_pools)
		stop_tracking();
}

long look(Tracked *pool, std::uint32_t first, std::uint32_t count, std::uint64_t snapshot)
{
	return chosen == Tracker::userfaultfd ? look_by_uffd(pool, first, count, snapshot) :
						look_by_mprotect(pool, first, count, snapshot);
}

PoolsClosed::PoolsClosed()
{
	if (!handler_installed)
		return;
	closed_ = true;
	block_signals(&before_);
	if (install_handler())
		log(ORBIT_LOG_ERROR, "SIGSEGV cannot be handled: writes to pools end the program");
	close_gate(&gate);
}

PoolsClosed::~PoolsClosed()
{
	if (!closed_)
		return;
	__atomic_and_fetch(&gate, ~gate_closed, __ATOMIC_RELEASE);
	futex_wake(&gate);
	pthread_sigmask(SIG_SETMASK, &before_, nullptr);
}

bool set_segv_action(const struct sigaction *wanted, struct sigaction *before)
{
	if (!handler_installed || in_orbit)
		return false;

	const struct sigaction old =
		wanted ? replace_action(*wanted) : actions[__atomic_load_n(&action, __ATOMIC_ACQUIRE)];

	if (before)
		*before = old;
	return true;
}

bool set_access(std::uintptr_t start, std::size_t bytes, int access, int *result)
{
	const std::uintptr_t end = start + bytes;

	if (chosen != Tracker::mprotect || in_orbit || start % page_size() || end < start)
		return false;

	const SignalsBlocked blocked;
	Tracked *pool;

	enter_gate();
	for (pool = all; pool; pool = pool->next)
		if (start < pool->start + pool->nr_pages * page_size() && pool->start < end)
			break;
	if (pool) {
		// Pages of the first pool that it meets; the application knows only its own.
		const std::uintptr_t from = std::max(start, pool->start);
		const auto first = static_cast<std::uint32_t>((from - pool->start) / page_size());
		const auto last = static_cast<std::uint32_t>(
			std::min<std::uintptr_t>((end - pool->start + page_size() - 1) / page_size(), pool->nr_pages));
		const bool writes = access & PROT_WRITE;

		// What can be written to from now on counts as changed.
		if (writes)
			set_writable(pool, first, last, true);
		for (std::uint32_t page = first; page < last; page++) {
			std::uint8_t *const place = &pool->access[page];
			const std::uint8_t before =
				writes ? __atomic_fetch_and(place, static_cast<std::uint8_t>(~is_denied), __ATOMIC_ACQ_REL) :
					 __atomic_fetch_or(place, is_denied, __ATOMIC_ACQ_REL);

			if (!(before & is_denied) != writes)
				__atomic_fetch_add(&pool->nr_denied, writes ? UINT32_MAX : 1, __ATOMIC_ACQ_REL);
		}
		*result = syscall(SYS_mprotect, start, bytes, access) ? -errno : 0;
		if (*result && protect(pool, first, last, PROT_READ | PROT_WRITE))
			__atomic_store_n(&pool->all_written, true, __ATOMIC_RELEASE);
	}
	leave_gate(&gate);
	return pool != nullptr;
}

ORBIT_AT_FORK void forget_tracking()
{
	if (!all && !gate)
		return;
	for (Tracked *pool = all; pool; pool = pool->next)
		close_ours(&pool->memory);
	all = nullptr;
	nr_pools = 0;
	gate = 0;
	splits = 0;
	stop_tracking();
}

} // namespace liborbit
