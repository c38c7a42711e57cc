// SPDX-License-Identifier: MIT
#include "check.h"

#include "clock.h"
#include "modules.h"
#include "process.h"
#include "signals.h"

#include <algorithm>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <dlfcn.h>
#include <link.h>
#include <malloc.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <ucontext.h>
#include <unistd.h>

extern char orbit_state_start[] __asm__("__start_orbit_state") __attribute__((visibility("hidden")));
extern char orbit_state_end[] __asm__("__stop_orbit_state") __attribute__((visibility("hidden")));

// There if the program runs under a sanitizer, whose own reads are everywhere.
extern "C" [[gnu::weak]] void __asan_init();
extern "C" [[gnu::weak]] void __tsan_init();

namespace liborbit {

ORBIT_STATE Watch *born_with;
ORBIT_STATE int asked;

namespace {

constexpr std::size_t max_areas = 4096;
constexpr std::size_t max_changed = 16384; // pages of which an orbit is told that they have changed
constexpr std::size_t max_told = 8;	   // lines for a call, and for an orbit's process
constexpr std::size_t batch = 64;	   // pages that are read at a time
constexpr std::size_t page_bytes = 4096;
constexpr std::size_t most_bytes = std::size_t{1} << 38; // a larger mapping is no program's data

enum class Kind : unsigned char { heap, stack, variables, other };

const char *describe_kind(Kind kind)
{
	switch (kind) {
	case Kind::heap:
		return "the heap";
	case Kind::stack:
		return "the stack";
	case Kind::variables:
		return "the global variables";
	case Kind::other:
		break;
	}
	return "memory (a large allocation, or a thread's heap or stack)";
}

struct Area {
	std::uintptr_t start, end;
	Kind kind;
};

struct Areas {
	Area area[max_areas];
	std::size_t count;
};

struct Changed {
	std::uintptr_t page;
	Kind kind;
};

} // namespace

// Shared by a main program and an orbit, which cannot write to it. Pages are added only.
struct Watch {
	std::uint32_t nr_changed;
	std::uintptr_t got_start, got_end; // filled in by the dynamic linker as it goes
	Changed changed[max_changed];
	alignas(page_bytes) unsigned char content[max_changed][page_bytes];
};

// What a main program keeps for an orbit: what its pages were when that was made.
struct CheckState {
	Watch *watch;
	Areas *areas;
	struct Page {
		std::uint64_t hash; // 0: there was none
		std::uint32_t place; // in the list of changed ones, from 1
	} *pages;
	std::size_t nr_pages;
	std::uint64_t not_before;
};

namespace {

// ---- Common ---------------------------------------------------------------------------

ORBIT_STATE pthread_mutex_t creating = PTHREAD_MUTEX_INITIALIZER;
ORBIT_STATE pthread_mutex_t looking = PTHREAD_MUTEX_INITIALIZER;
ORBIT_STATE unsigned char *read_buffer;
ORBIT_STATE Areas *target_areas;
ORBIT_STATE std::uint64_t *told; // a hash set of what has been told
ORBIT_STATE std::size_t nr_told;
ORBIT_STATE bool refused_told;
constexpr std::size_t told_room = 4096;

void *map_private(std::size_t bytes)
{
	void *memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
			    -1, 0);

	return memory == MAP_FAILED ? nullptr : memory;
}

// To the receiver of messages; where there is none, and in an orbit, to standard error output.
__attribute__((format(printf, 1, 2))) void tell(const char *format, ...)
{
	char text[512];
	va_list args;

	va_start(args, format);
	std::vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	if (!in_orbit && is_logged())
		log(ORBIT_LOG_ERROR, "ORBIT_CHECK: %s", text);
	else
		dprintf(STDERR_FILENO, "ORBIT_CHECK: %s\n", text);
}

// ---- Which memory is the main program's own ------------------------------------------------

struct Modules {
	std::uintptr_t start, end; // that are asked about
	bool overlap, executable;
};

int look_at_module(dl_phdr_info *info, std::size_t, void *user)
{
	auto *module = static_cast<Modules *>(user);

	for (int i = 0; i < info->dlpi_phnum; i++) {
		const auto &segment = info->dlpi_phdr[i];
		const std::uintptr_t start = (info->dlpi_addr + segment.p_vaddr) & ~(page_bytes - 1);
		const std::uintptr_t end = info->dlpi_addr + segment.p_vaddr + segment.p_memsz;

		if (segment.p_type == PT_LOAD && module->start < end && start < module->end) {
			module->overlap = true;
			module->executable = !info->dlpi_name || !*info->dlpi_name;
			return 1;
		}
	}
	return 0;
}

// Private, writable, and none of a module's but the executable's own variables.
int add_area(void *user, const Mapping &mapping)
{
	auto *areas = static_cast<Areas *>(user);
	Modules module{mapping.start, mapping.end, false, false};
	Kind kind = Kind::other;

	if (!mapping.writable || !mapping.readable || mapping.shared || mapping.end - mapping.start > most_bytes ||
	    areas->count == max_areas)
		return 0;
	for_each_module(look_at_module, &module);
	if (module.overlap && !module.executable)
		return 0;
	if (module.overlap)
		kind = Kind::variables;
	else if (!std::strcmp(mapping.name, "[heap]"))
		kind = Kind::heap;
	else if (!std::strcmp(mapping.name, "[stack]"))
		kind = Kind::stack;
	areas->area[areas->count++] = {mapping.start, mapping.end, kind};
	return 0;
}

bool find_areas(Areas *areas)
{
	areas->count = 0;
	return !for_each_mapping(add_area, areas);
}

const Area *area_of(const Areas *areas, std::uintptr_t address)
{
	const Area *const end = areas->area + areas->count;
	const Area *found = std::upper_bound(
		areas->area, end, address, [](std::uintptr_t at, const Area &area) { return at < area.end; });

	return found != end && address >= found->start ? found : nullptr;
}

// Call fn for the pages of a range that are in memory, with their contents. What another thread
// unmaps meanwhile is left out: this reads as a debugger does.
template <class F> void for_each_page(std::uintptr_t start, std::uintptr_t end, F fn)
{
	unsigned char resident[batch];

	for (std::uintptr_t at = start; at < end; at += batch * page_bytes) {
		const std::size_t count = std::min(batch, (end - at) / page_bytes);

		if (mincore(reinterpret_cast<void *>(at), count * page_bytes, resident))
			std::memset(resident, 1, count);
		for (std::size_t i = 0; i < count;) {
			std::size_t run = 0;

			while (i + run < count && resident[i + run] & 1)
				run++;
			if (!run) {
				i++;
				continue;
			}

			const iovec to = {read_buffer, run * page_bytes};
			const iovec from = {reinterpret_cast<void *>(at + i * page_bytes), run * page_bytes};
			const ssize_t got = process_vm_readv(getpid(), &to, 1, &from, 1, 0);

			if (got < 0 && errno != EFAULT && errno != ESRCH && !refused_told) {
				refused_told = true;
				tell("nothing can be checked: process_vm_readv() is refused (error %d)", errno);
			}

			const std::size_t whole = got > 0 ? static_cast<std::size_t>(got) / page_bytes : 0;

			for (std::size_t page = 0; page < whole; page++)
				fn(at + (i + page) * page_bytes, read_buffer + page * page_bytes);
			i += whole + (whole < run); // leave out what cannot be read
		}
	}
}

std::uint64_t hash_of(const unsigned char *page)
{
	std::uint64_t hash = 0x9e3779b97f4a7c15, word;

	for (std::size_t at = 0; at < page_bytes; at += sizeof(word)) {
		std::memcpy(&word, page + at, sizeof(word));
		hash = (hash ^ word) * 0xff51afd7ed558ccd;
		hash ^= hash >> 32;
	}
	return hash ? hash : 1;
}

// ---- Pointers in pools --------------------------------------------------------------------

// Whether this has not been told before; and note that it has.
bool is_news(std::uintptr_t place, std::uintptr_t target)
{
	const std::uint64_t key = (place * 0x9e3779b97f4a7c15 ^ target) | 1;

	if (nr_told >= told_room / 2)
		return false;
	for (std::size_t at = key * 0xff51afd7ed558ccd >> 52;; at = (at + 1) % told_room) {
		if (told[at] == key)
			return false;
		if (!told[at]) {
			told[at] = key;
			if (++nr_told == told_room / 2)
				tell("enough has been told of pointers; what comes is left out");
			return nr_told < told_room / 2;
		}
	}
}

void look_for_pointers(const orbit_pool *pool, std::size_t offset, std::size_t length)
{
	const std::uintptr_t start = pool->range.start + offset;
	std::size_t lines = 0, more = 0;

	for_each_page(start, start + length, [&](std::uintptr_t page, const unsigned char *content) {
		std::uintptr_t word;

		for (std::size_t at = 0; at < page_bytes; at += sizeof(word)) {
			std::memcpy(&word, content + at, sizeof(word));
			if (word < page_bytes)
				continue;

			const Area *area = area_of(target_areas, word);

			if (!area || area->kind == Kind::variables || !is_news(page + at, word))
				continue;
			if (lines == max_told) {
				more++;
				continue;
			}
			lines++;
			tell("pool \"%s\", offset %#zx: a pointer to %#zx, in %s of the main program. A task "
			     "that follows it sees what was there when its orbit was made",
			     pool->name, page + at - pool->range.start, word, describe_kind(area->kind));
		}
	});
	if (more)
		tell("pool \"%s\": and %zu pointers more of this kind", pool->name, more);
}

// At most a tenth of the time goes into looking, unless it is done within a millisecond.
bool is_due(std::uint64_t not_before)
{
	return monotonic_ns() >= not_before;
}

std::uint64_t next_look(std::uint64_t began)
{
	const std::uint64_t now = monotonic_ns();

	return now - began < 1000'000 ? 0 : now + 10 * (now - began);
}

void look_at_pool(orbit_pool *pool, std::size_t offset, std::size_t length)
{
	const std::uint64_t began = monotonic_ns();

	if (!is_due(pool->check_not_before))
		return;
	look_for_pointers(pool, offset, length);
	pool->check_not_before = next_look(began);
}

// ---- What has changed since an orbit was made ------------------------------------------------

// The words that the dynamic linker fills in at the first call of a function.
int find_got(dl_phdr_info *info, std::size_t, void *user)
{
	auto *watch = static_cast<Watch *>(user);
	std::size_t bytes = 0;

	for (int i = 0; i < info->dlpi_phnum; i++) {
		if (info->dlpi_phdr[i].p_type != PT_DYNAMIC)
			continue;
		for (auto *entry = reinterpret_cast<const ElfW(Dyn) *>(info->dlpi_addr + info->dlpi_phdr[i].p_vaddr);
		     entry->d_tag != DT_NULL; entry++) {
			if (entry->d_tag == DT_PLTGOT)
				watch->got_start = entry->d_un.d_ptr;
			else if (entry->d_tag == DT_PLTRELSZ)
				bytes = entry->d_un.d_val / sizeof(ElfW(Rela)) * sizeof(void *);
		}
	}
	watch->got_end = watch->got_start + bytes + 3 * sizeof(void *);
	return 1; // the first is the executable
}

template <class F> void for_each_watched_page(CheckState *state, F fn)
{
	CheckState::Page *first = state->pages;

	for (std::size_t i = 0; i < state->areas->count; i++) {
		const Area &area = state->areas->area[i];

		for_each_page(area.start, area.end, [&](std::uintptr_t page, const unsigned char *content) {
			fn(area, first + (page - area.start) / page_bytes, page, content);
		});
		first += (area.end - area.start) / page_bytes;
	}
}

void end_state(CheckState *state)
{
	if (!state)
		return;
	if (state->watch)
		munmap(state->watch, sizeof(Watch));
	if (state->areas)
		munmap(state->areas, sizeof(Areas));
	if (state->pages)
		munmap(state->pages, state->nr_pages * sizeof(*state->pages));
	free(state);
}

// Variables that nobody has written to yet are zero. (Of other memory that is not there yet an orbit
// can only have what it has allocated itself.)
void note_untouched_variables(CheckState *state)
{
	const unsigned char zeroes[page_bytes] = {};
	CheckState::Page *first = state->pages;

	for (std::size_t i = 0; i < state->areas->count; i++) {
		const Area &area = state->areas->area[i];
		const std::size_t count = (area.end - area.start) / page_bytes;

		for (std::size_t page = 0; area.kind == Kind::variables && page < count; page++)
			first[page].hash = hash_of(zeroes);
		first += count;
	}
}

CheckState *begin_state()
{
	auto *state = static_cast<CheckState *>(calloc(1, sizeof(CheckState)));

	if (!state)
		return nullptr;
	state->areas = static_cast<Areas *>(map_private(sizeof(Areas)));
	if (!state->areas || !find_areas(state->areas)) {
		end_state(state);
		return nullptr;
	}
	for (std::size_t i = 0; i < state->areas->count; i++)
		state->nr_pages += (state->areas->area[i].end - state->areas->area[i].start) / page_bytes;
	state->pages = static_cast<CheckState::Page *>(map_private(state->nr_pages * sizeof(*state->pages)));

	void *const watch = mmap(nullptr, sizeof(Watch), PROT_READ | PROT_WRITE,
				 MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	state->watch = watch == MAP_FAILED ? nullptr : static_cast<Watch *>(watch);
	if (!state->pages || !state->watch) {
		end_state(state);
		return nullptr;
	}
	for_each_module(find_got, state->watch);
	note_untouched_variables(state);
	for_each_watched_page(state, [](const Area &, CheckState::Page *page, std::uintptr_t, const unsigned char *content) {
		page->hash = hash_of(content);
	});
	return state;
}

void tell_orbit(CheckState *state)
{
	Watch *const watch = state->watch;
	const std::uint64_t began = monotonic_ns();

	if (!is_due(state->not_before))
		return;
	for_each_watched_page(state, [&](const Area &area, CheckState::Page *known, std::uintptr_t page,
				   const unsigned char *content) {
		if (!known->hash || (!known->place && hash_of(content) == known->hash))
			return;
		if (!known->place) {
			if (watch->nr_changed == max_changed)
				return;
			watch->changed[watch->nr_changed] = {page, area.kind};
			known->place = watch->nr_changed + 1;
		}
		std::memcpy(watch->content[known->place - 1], content, page_bytes);
		if (known->place > watch->nr_changed)
			__atomic_store_n(&watch->nr_changed, known->place, __ATOMIC_RELEASE);
	});
	state->not_before = next_look(began);
}

bool make_ready()
{
	if (!read_buffer)
		read_buffer = static_cast<unsigned char *>(map_private(batch * page_bytes));
	if (!target_areas)
		target_areas = static_cast<Areas *>(map_private(sizeof(Areas)));
	if (!told)
		told = static_cast<std::uint64_t *>(map_private(told_room * sizeof(*told)));
	return read_buffer && target_areas && told;
}

// ---- In an orbit ---------------------------------------------------------------------------

enum class Page : unsigned char { unknown, closed, stepping, open };

constexpr std::size_t slots = 2 * max_changed;
constexpr unsigned max_steps = 64;

struct Watched {
	std::uint32_t nr_known; // of watch->changed
	std::uint32_t slot[slots]; // by page: its place in watch->changed, from 1
	Page state[max_changed];
	unsigned char steps[max_changed];
	std::uint32_t stepping[8];
	unsigned nr_stepping;
	unsigned in_handler;
	std::size_t nr_told;
	struct sigaction segv_before, trap_before;
	pid_t thread;
	std::uintptr_t allocator_start, allocator_end;
	ucontext_t loop, task;
	orbit_entry entry;
	const void *arg;
	std::size_t arg_size;
	std::uint64_t value;
};

ORBIT_STATE Watched *watched;

std::uint32_t *slot_of(std::uintptr_t page)
{
	std::size_t at = (page / page_bytes * 0x9e3779b97f4a7c15 >> 40) % slots;

	while (watched->slot[at] && born_with->changed[watched->slot[at] - 1].page != page)
		at = (at + 1) % slots;
	return &watched->slot[at];
}

bool set_access(std::uint32_t place, int access)
{
	return !mprotect(reinterpret_cast<void *>(born_with->changed[place].page), page_bytes, access);
}

void open_page(std::uint32_t place)
{
	set_access(place, PROT_READ | PROT_WRITE);
	watched->state[place] = Page::open;
}

// Where a handler, or the C library at any time, must be able to look.
bool is_needed(std::uintptr_t page)
{
	const auto near = [page](const void *what, std::size_t before, std::size_t after) {
		const auto at = reinterpret_cast<std::uintptr_t>(what);

		return page + page_bytes > at - before && page < at + after;
	};
	return near(reinterpret_cast<const void *>(pthread_self()), page_bytes, page_bytes) ||
	       near(&errno, page_bytes, page_bytes) ||
	       near(orbit_state_start, 0, static_cast<std::size_t>(orbit_state_end - orbit_state_start));
}

// The allocator's own words differ from the main program's by right. Its functions lie side by side.
void find_allocator()
{
	const std::uintptr_t known[] = {
		reinterpret_cast<std::uintptr_t>(dlsym(RTLD_DEFAULT, "malloc")),
		reinterpret_cast<std::uintptr_t>(dlsym(RTLD_DEFAULT, "free")),
		reinterpret_cast<std::uintptr_t>(dlsym(RTLD_DEFAULT, "calloc")),
		reinterpret_cast<std::uintptr_t>(dlsym(RTLD_DEFAULT, "realloc")),
		reinterpret_cast<std::uintptr_t>(dlsym(RTLD_DEFAULT, "mallopt")),
		reinterpret_cast<std::uintptr_t>(dlsym(RTLD_DEFAULT, "malloc_info")),
	};
	constexpr std::uintptr_t around = 16384; // those that have no name to find them by

	watched->allocator_start = UINTPTR_MAX;
	for (std::uintptr_t function : known) {
		if (!function)
			continue;
		watched->allocator_start = std::min(watched->allocator_start, function - around);
		watched->allocator_end = std::max(watched->allocator_end, function + around);
	}
}

// Whether code is of what may read such memory: the allocator, the dynamic linker, the C++ runtime.
bool is_system(std::uintptr_t code)
{
	Dl_info info{};

	if (code >= watched->allocator_start && code < watched->allocator_end)
		return true;
	if (!dladdr(reinterpret_cast<void *>(code), &info) || !info.dli_fname)
		return false;

	const char *const slash = std::strrchr(info.dli_fname, '/');
	const char *const name = slash ? slash + 1 : info.dli_fname;

	return !std::strncmp(name, "libstdc++", 9) || !std::strncmp(name, "ld-linux", 8) ||
	       !std::strncmp(name, "libgcc", 6);
}

// Whether the main program has something else at this address, or right behind it, by now.
bool is_stale(std::uint32_t place, std::uintptr_t address)
{
	const std::size_t at = (address & (page_bytes - 1)) & ~(sizeof(void *) - 1);

	if (address >= born_with->got_start && address < born_with->got_end)
		return false;
	return std::memcmp(born_with->content[place] + at,
			   reinterpret_cast<const void *>(born_with->changed[place].page + at), sizeof(void *));
}

void tell_read(std::uint32_t place, std::uintptr_t address, std::uintptr_t code)
{
	Dl_info info{};
	const bool known = dladdr(reinterpret_cast<void *>(code), &info) && info.dli_fname;
	const char *const slash = known ? std::strrchr(info.dli_fname, '/') : nullptr;

	if (++watched->nr_told > max_told)
		return;
	tell("a task reads %#zx, in %s of the main program, which has changed since the orbit was made: it sees "
	     "the old value. Read by %s+%#zx%s%s",
	     address, describe_kind(born_with->changed[place].kind),
	     slash ? slash + 1 : known ? info.dli_fname : "code",
	     known ? code - reinterpret_cast<std::uintptr_t>(info.dli_fbase) : code,
	     known && info.dli_sname ? " in " : "", known && info.dli_sname ? info.dli_sname : "");
	if (watched->nr_told == max_told)
		tell("enough has been told of this orbit's reads; what comes is left out");
}

// One access by the thread that runs the task: have it happen, and close the page again after it,
// so that the next is seen as well. Other threads, and what is read often, get the page opened.
void step_over(std::uint32_t place, ucontext_t *context)
{
#ifdef __x86_64__
	constexpr greg_t trap_flag = 0x100;

	if (gettid() == watched->thread && watched->steps[place] < max_steps &&
	    watched->nr_stepping < sizeof(watched->stepping) / sizeof(*watched->stepping)) {
		watched->steps[place]++;
		watched->state[place] = Page::stepping;
		watched->stepping[watched->nr_stepping++] = place;
		set_access(place, PROT_READ | PROT_WRITE);
		context->uc_mcontext.gregs[REG_EFL] |= trap_flag;
		return;
	}
#else
	static_cast<void>(context);
#endif
	open_page(place);
}

void pass_on(int signal, siginfo_t *info, void *context, const struct sigaction &before)
{
	if (before.sa_flags & SA_SIGINFO)
		before.sa_sigaction(signal, info, context);
	else
		act_by_default(signal, info);
}

void on_access(int signal, siginfo_t *info, void *user)
{
	auto *context = static_cast<ucontext_t *>(user);
	const auto address = reinterpret_cast<std::uintptr_t>(info->si_addr);
	const std::uint32_t found = info->si_code > 0 ? *slot_of(address & ~(page_bytes - 1)) : 0;

	if (!found || watched->state[found - 1] == Page::open || watched->state[found - 1] == Page::unknown) {
		pass_on(signal, info, user, watched->segv_before);
		return;
	}

	const std::uint32_t place = found - 1;
	const int before = errno;

	if (watched->in_handler) { // what looks up names reads itself
		open_page(place);
		return;
	}
	watched->in_handler++;
#ifdef __x86_64__
	const auto code = static_cast<std::uintptr_t>(context->uc_mcontext.gregs[REG_RIP]);
	const bool writes = may_be_write(info, user);
#else
	const std::uintptr_t code = 0;
	const bool writes = false;
#endif
	set_access(place, PROT_READ | PROT_WRITE);
	if (writes) {
		// What the task has written is its own from here on; what the allocator writes is not.
		if (code >= watched->allocator_start && code < watched->allocator_end)
			step_over(place, context);
		else
			open_page(place);
	} else if (is_stale(place, address) && !is_system(code)) {
		tell_read(place, address, code);
		open_page(place);
	} else {
		step_over(place, context);
	}
	watched->in_handler--;
	errno = before;
}

void on_step(int signal, siginfo_t *info, void *user)
{
#ifdef __x86_64__
	if (watched->nr_stepping && gettid() == watched->thread) {
		constexpr greg_t trap_flag = 0x100;
		auto *context = static_cast<ucontext_t *>(user);

		context->uc_mcontext.gregs[REG_EFL] &= ~trap_flag;
		while (watched->nr_stepping) {
			const std::uint32_t place = watched->stepping[--watched->nr_stepping];

			if (watched->state[place] == Page::stepping) {
				watched->state[place] = Page::closed;
				set_access(place, PROT_NONE);
			}
		}
		return;
	}
#endif
	pass_on(signal, info, user, watched->trap_before);
}

// On the task's stack: the loop's may be among them.
void close_pages()
{
	const std::uint32_t count = __atomic_load_n(&born_with->nr_changed, __ATOMIC_ACQUIRE);

	for (; watched->nr_known < count; watched->nr_known++) {
		const std::uint32_t place = watched->nr_known;

		*slot_of(born_with->changed[place].page) = place + 1;
		if (is_needed(born_with->changed[place].page))
			watched->state[place] = Page::open;
	}
	for (std::uint32_t place = 0; place < count; place++)
		if (watched->state[place] == Page::unknown)
			watched->state[place] = set_access(place, PROT_NONE) ? Page::closed : Page::open;
}

void run_entry()
{
	for (;;) {
		close_pages();
		watched->value = watched->entry(watched->arg, watched->arg_size);
		for (std::uint32_t place = 0; place < watched->nr_known; place++)
			if (watched->state[place] != Page::open) {
				watched->state[place] = Page::unknown;
				set_access(place, PROT_READ | PROT_WRITE);
			}
		swapcontext(&watched->task, &watched->loop);
		// The next task.
	}
}

// It returns twice, as far as the compiler knows.
[[gnu::noinline]] bool get_context(ucontext_t *context)
{
	return !getcontext(context);
}

bool start_watching()
{
	constexpr std::size_t stack_bytes = 128 << 10;
	struct sigaction access = {}, step = {};
	stack_t stack{};

	auto *made = static_cast<Watched *>(map_private(sizeof(Watched)));

	stack.ss_size = stack_bytes;
	stack.ss_sp = map_private(stack_bytes);
	if (!made || !stack.ss_sp || !get_context(&made->task) || sigaltstack(&stack, nullptr))
		return false;
	// A stack of its own for tasks: else frames of the loop would lie among those of the main program.
	made->task.uc_stack.ss_sp = map_stack(&made->task.uc_stack.ss_size);
	if (!made->task.uc_stack.ss_sp)
		return false;
	watched = made;
	watched->thread = gettid();
	find_allocator();
	access.sa_sigaction = on_access;
	access.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER;
	step.sa_sigaction = on_step;
	step.sa_flags = SA_SIGINFO | SA_ONSTACK;
	if (real_sigaction(SIGSEGV, &access, &watched->segv_before) ||
	    real_sigaction(SIGTRAP, &step, &watched->trap_before))
		return false;
	makecontext(&watched->task, run_entry, 0);
	return true;
}

} // namespace

// ---- The rest of the library calls these ------------------------------------------------------

bool find_checking()
{
	const char *const text = secure_getenv("ORBIT_CHECK");
	const bool found = text && *text && std::strcmp(text, "0");

	__atomic_store_n(&asked, found ? 1 : -1, __ATOMIC_RELAXED);
	return found;
}

void check_before_create(orbit_handle *orbit, const orbit_options *options)
{
	if (__asan_init || __tsan_init) {
		tell("a sanitizer is at work, so reads of orbit \"%s\" are not watched", orbit->name);
		return;
	}
	if (options->inherit != ORBIT_INHERIT_ALL || page_size() != page_bytes)
		return;
	pthread_mutex_lock(&creating);
	pthread_mutex_lock(&looking);
	orbit->check = make_ready() ? begin_state() : nullptr;
	pthread_mutex_unlock(&looking);
	if (!orbit->check) {
		tell("reads of orbit \"%s\" cannot be watched: no memory, or no /proc", orbit->name);
		pthread_mutex_unlock(&creating);
		return;
	}
	born_with = orbit->check->watch;
}

// Nobody there would give back what a thread of the parent held.
ORBIT_AT_FORK void check_after_fork_in_child()
{
	if (__atomic_load_n(&asked, __ATOMIC_RELAXED) <= 0)
		return;
	pthread_mutex_init(&creating, nullptr);
	pthread_mutex_init(&looking, nullptr);
}

void check_after_create(orbit_handle *orbit, int err)
{
	if (!orbit->check)
		return;
	born_with = nullptr;
	pthread_mutex_unlock(&creating);
	if (err)
		check_at_close(orbit);
}

void check_at_close(orbit_handle *orbit)
{
	end_state(orbit->check);
	orbit->check = nullptr;
}

void check_at_call(orbit_handle *orbit, const Call &call)
{
	const orbit_call_options *options = call.options;

	if (page_size() != page_bytes)
		return;
	pthread_mutex_lock(&looking);
	if (make_ready() && find_areas(target_areas)) {
		for (std::size_t i = 0; i < options->nr_pools; i++)
			look_at_pool(options->pools[i], 0, options->pools[i]->range.bytes);
		for (std::size_t i = 0; i < options->nr_ranges; i++) {
			const orbit_pool_range &range = options->ranges[i];

			look_at_pool(range.pool, range.offset,
				     range.length ? range.length : range.pool->range.bytes - range.offset);
		}
	}
	if (orbit->check)
		tell_orbit(orbit->check);
	pthread_mutex_unlock(&looking);
}

std::uint64_t run_watched(orbit_entry entry, const void *arg, std::size_t arg_size)
{
	if (!watched && !start_watching()) {
		born_with = nullptr;
		return entry(arg, arg_size);
	}
	watched->entry = entry;
	watched->arg = arg;
	watched->arg_size = arg_size;
	swapcontext(&watched->loop, &watched->task);
	return watched->value;
}

} // namespace liborbit
