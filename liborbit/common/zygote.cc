// SPDX-License-Identifier: MIT
#include "zygote.h"

#include "../internal.h"
#include "descriptors.h"
#include "files.h"
#include "fork_copy.h"
#include "modules.h"
#include "signals.h"
#include "../kernel/syscall.h"
#include "../portable/fork_server.h"

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <dlfcn.h>
#include <elf.h>
#include <fcntl.h>
#include <link.h>
#include <malloc.h>
#include <poll.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/single_threaded.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

// The linker names the ends of a section.
extern "C" {
extern char orbit_state_start[] __asm__("__start_orbit_state") __attribute__((visibility("hidden")));
extern char orbit_state_end[] __asm__("__stop_orbit_state") __attribute__((visibility("hidden")));

// There if the program runs under a sanitizer.
[[gnu::weak]] void __asan_init();
[[gnu::weak]] void __tsan_init();
[[gnu::weak]] void __msan_init();
[[gnu::weak]] void __hwasan_init();
}

namespace liborbit {

namespace {

std::uintptr_t address(const volatile void *p)
{
	return reinterpret_cast<std::uintptr_t>(p);
}

void *pointer(std::uintptr_t p)
{
	return reinterpret_cast<void *>(p);
}

std::uintptr_t page_floor(std::uintptr_t p)
{
	return p & ~(page_size() - 1);
}

} // namespace

// ---- Which memory -----------------------------------------------------------------

int Areas::add(std::uintptr_t start, std::uintptr_t end)
{
	if (start >= end)
		return 0;
	if (count == room) {
		const std::size_t more = room ? 2 * room : 16;
		void *bigger = realloc(items, more * sizeof(Area));

		if (!bigger)
			return -ENOMEM;
		items = static_cast<Area *>(bigger);
		room = more;
	}
	items[count++] = {start, end - start};
	return 0;
}

int Areas::add_without(std::uintptr_t start, std::uintptr_t end, const Areas &others)
{
	while (start < end) {
		// The first of the others that is not over yet, if any.
		Area next = {end, 0};

		for (std::size_t i = 0; i < others.count; i++)
			if (others.items[i].start + others.items[i].bytes > start &&
			    others.items[i].start < next.start)
				next = others.items[i];
		if (const int err = add(start, next.start))
			return err;
		start = next.start + next.bytes;
	}
	return 0;
}

void Areas::clear()
{
	free(items);
	*this = {};
}

namespace {

struct Modules {
	const void *const *addresses; // in modules that the application named
	std::size_t count;
	std::size_t found;
	bool executable_seen;
	Areas skip;
	Areas *variables;
	int err;
};

bool contains(const dl_phdr_info *module, std::uintptr_t p)
{
	for (unsigned i = 0; i < module->dlpi_phnum; i++) {
		const ElfW(Phdr) &segment = module->dlpi_phdr[i];

		if (segment.p_type == PT_LOAD && p - (module->dlpi_addr + segment.p_vaddr) < segment.p_memsz)
			return true;
	}
	return false;
}

const ElfW(Phdr) *find_segment(const dl_phdr_info *module, unsigned type)
{
	for (unsigned i = 0; i < module->dlpi_phnum; i++)
		if (module->dlpi_phdr[i].p_type == type)
			return &module->dlpi_phdr[i];
	return nullptr;
}

// Does a module that the application named define this variable?
bool is_of_named_module(const Modules *modules, const char *name)
{
	for (std::size_t i = 0; i < modules->count; i++) {
		Dl_info info, definer;

		if (!dladdr(modules->addresses[i], &info))
			continue;

		void *handle = dlopen(info.dli_fname, RTLD_LAZY | RTLD_NOLOAD);

		if (!handle)
			continue;

		// In the module's own scope: it, then what it needs.
		const void *variable = dlsym(handle, name);
		const bool found = variable && dladdr(variable, &definer) &&
				   definer.dli_fbase == info.dli_fbase;

		dlclose(handle);
		if (found)
			return true;
	}
	return false;
}

// Where the executable uses a variable of a library, the linker may have moved it into
// the executable (a copy relocation). It still is the library's: std::cout, stdout,
// environ.
int skip_moved_variables(const dl_phdr_info *module, Modules *modules)
{
	const ElfW(Phdr) *segment = find_segment(module, PT_DYNAMIC);
	const ElfW(Sym) *symbols = nullptr;
	const ElfW(Rela) *relocations = nullptr;
	const char *names = nullptr;
	std::size_t bytes = 0;

	if (!segment)
		return 0;
	for (auto *entry = static_cast<const ElfW(Dyn) *>(pointer(module->dlpi_addr + segment->p_vaddr));
	     entry->d_tag != DT_NULL; entry++) {
		// The C library has turned these into addresses.
		void *at = pointer(entry->d_un.d_ptr);

		if (entry->d_tag == DT_SYMTAB)
			symbols = static_cast<const ElfW(Sym) *>(at);
		else if (entry->d_tag == DT_STRTAB)
			names = static_cast<const char *>(at);
		else if (entry->d_tag == DT_RELA)
			relocations = static_cast<const ElfW(Rela) *>(at);
		else if (entry->d_tag == DT_RELASZ)
			bytes = entry->d_un.d_val;
	}
	if (!symbols || !names || !relocations)
		return 0;
	for (std::size_t i = 0; i < bytes / sizeof(*relocations); i++) {
		const ElfW(Rela) &relocation = relocations[i];
		const ElfW(Sym) &symbol = symbols[ELF64_R_SYM(relocation.r_info)];
		const std::uintptr_t start = module->dlpi_addr + relocation.r_offset;

		if (ELF64_R_TYPE(relocation.r_info) != R_X86_64_COPY ||
		    is_of_named_module(modules, names + symbol.st_name))
			continue;
		if (const int err = modules->skip.add(start, start + symbol.st_size))
			return err;
	}
	return 0;
}

// What became read-only after relocation. The dynamic linker protects whole pages.
int skip_relro(const dl_phdr_info *module, Modules *modules)
{
	const ElfW(Phdr) *relro = find_segment(module, PT_GNU_RELRO);

	if (!relro)
		return 0;

	const std::uintptr_t start = module->dlpi_addr + relro->p_vaddr;

	return modules->skip.add(page_floor(start), page_floor(start + relro->p_memsz));
}

int add_module(dl_phdr_info *module, std::size_t, void *user)
{
	auto *modules = static_cast<Modules *>(user);
	bool named = false;
	int err;

	for (std::size_t i = 0; i < modules->count; i++)
		if (contains(module, address(modules->addresses[i]))) {
			modules->found++;
			named = true;
		}
	// The executable is the first.
	const bool executable = !modules->executable_seen;

	modules->executable_seen = true;
	if (!named && !executable)
		return 0;

	modules->skip.count = 0;
	err = modules->skip.add(address(orbit_state_start), address(orbit_state_end));
	if (!err)
		err = skip_relro(module, modules);
	if (!err && executable)
		err = skip_moved_variables(module, modules);
	for (unsigned i = 0; !err && i < module->dlpi_phnum; i++) {
		const ElfW(Phdr) &segment = module->dlpi_phdr[i];
		const std::uintptr_t start = module->dlpi_addr + segment.p_vaddr;

		if (segment.p_type == PT_LOAD && segment.p_flags & PF_W)
			err = modules->variables->add_without(start, start + segment.p_memsz,
							      modules->skip);
	}
	modules->err = err;
	return err;
}

} // namespace

int find_variables(const void *const *addresses, std::size_t nr_modules, Areas *variables)
{
	Modules modules{};

	modules.addresses = addresses;
	modules.count = nr_modules;
	modules.variables = variables;
	for_each_module(add_module, &modules);
	modules.skip.clear();
	if (modules.err)
		return modules.err;
	return modules.found == nr_modules ? 0 : -ENXIO;
}

namespace {

// Is a piece of memory in what a module of this process can write to?
bool is_of_a_module(const Area &area)
{
	const auto check = [](dl_phdr_info *module, std::size_t, void *user) {
		const auto *piece = static_cast<const Area *>(user);

		for (unsigned i = 0; i < module->dlpi_phnum; i++) {
			const ElfW(Phdr) &segment = module->dlpi_phdr[i];
			const std::uintptr_t start = module->dlpi_addr + segment.p_vaddr;

			if (segment.p_type == PT_LOAD && segment.p_flags & PF_W && piece->start >= start &&
			    piece->start + piece->bytes <= start + segment.p_memsz)
				return 1;
		}
		return 0;
	};

	return for_each_module(check, const_cast<Area *>(&area)) != 0;
}

// Whether the executable's variables can be told from those of the C library, malloc's
// above all.
bool is_separable()
{
	// They have allocators of their own, and notes about all memory, which would have to be copied.
	if (__asan_init || __tsan_init || __msan_init || __hwasan_init)
		return false;

	bool dynamic = false;
	Dl_info info;
	void *symbol = nullptr;
	const auto has_interpreter = [](dl_phdr_info *module, std::size_t, void *user) {
		*static_cast<bool *>(user) = find_segment(module, PT_INTERP) != nullptr;
		return 1; // the executable is the first
	};

	for_each_module(has_interpreter, &dynamic);
	if (!dynamic)
		return false;
	if (!dladdr1(reinterpret_cast<const void *>(&malloc), &info, &symbol, RTLD_DL_SYMENT) || !symbol)
		return true;

	// The address of a function may be that of a stub in the executable, which does
	// not define it.
	Dl_info own;

	return static_cast<const ElfW(Sym) *>(symbol)->st_shndx == SHN_UNDEF ||
	       !dladdr(pointer(getauxval(AT_ENTRY)), &own) || own.dli_fbase != info.dli_fbase;
}

// ---- What goes to the zygote ------------------------------------------------------------

// The image of an orbit, a file: this, numbers of descriptors, areas, their contents.
struct Image {
	std::uint64_t flags;
	std::uint64_t arg_room;
	std::uint64_t nr_fds;	    // sent along, after the orbit's and the image's
	std::uint64_t nr_variables; // the first of the areas
	std::uint64_t nr_areas;
	std::uint64_t memory_limit;
	std::uint32_t nr_files;
	std::int32_t owner, shared, shared_page; // as in Birth: each one of the numbers, or -1
	std::int64_t main;
	char name[ORBIT_NAME_LEN];
};

// SCM_MAX_FD is 253.
constexpr std::size_t max_fds = 240;
constexpr std::size_t first_fds = 2; // the orbit's and the image's

int write_all(int fd, const void *from, std::size_t bytes)
{
	for (std::size_t done = 0; done < bytes;) {
		const ssize_t got = write(fd, static_cast<const char *>(from) + done, bytes - done);

		if (got < 0 && errno != EINTR)
			return -errno;
		done += got < 0 ? 0 : static_cast<std::size_t>(got);
	}
	return 0;
}

int read_all(int fd, void *to, std::size_t bytes)
{
	for (std::size_t done = 0; done < bytes;) {
		const ssize_t got = read(fd, static_cast<char *>(to) + done, bytes - done);

		if (got < 0 && errno != EINTR)
			return -errno;
		if (!got)
			return -EIO;
		done += got < 0 ? 0 : static_cast<std::size_t>(got);
	}
	return 0;
}

int write_image(int fd, const Image &image, const int *numbers, const Areas &areas)
{
	int err = write_all(fd, &image, sizeof(image));

	if (!err)
		err = write_all(fd, numbers, image.nr_fds * sizeof(*numbers));
	if (!err)
		err = write_all(fd, areas.items, areas.count * sizeof(Area));
	for (std::size_t i = 0; !err && i < areas.count; i++)
		err = write_all(fd, pointer(areas.items[i].start), areas.items[i].bytes);
	return err;
}

std::uint64_t image_bytes(const Image &image, const Areas &areas)
{
	std::uint64_t bytes = sizeof(image) + image.nr_fds * sizeof(int) + areas.count * sizeof(Area);

	for (std::size_t i = 0; i < areas.count; i++)
		bytes += areas.items[i].bytes;
	return bytes;
}

int make_image(int *out, const Birth &birth, const orbit_options *options)
{
	Area state_area = {address(orbit_state_start),
			   address(orbit_state_end) - address(orbit_state_start)};
	const Areas state = {&state_area, 1, 1};
	Image image{};
	Areas areas{};
	int err = find_variables(options->modules, options->nr_modules, &areas);

	image.flags = birth.flags;
	image.arg_room = birth.arg_room;
	image.nr_fds = birth.nr_fds;
	image.nr_variables = areas.count;
	image.memory_limit = birth.memory_limit;
	image.nr_files = birth.nr_files;
	image.owner = birth.owner;
	image.shared = birth.shared;
	image.shared_page = birth.shared_page;
	image.main = birth.main;
	std::strncpy(image.name, birth.name, sizeof(image.name) - 1);
	for (std::size_t i = 0; !err && i < options->nr_ranges; i++) {
		const std::uintptr_t start = address(options->ranges[i].start);

		err = areas.add_without(start, start + options->ranges[i].length, state);
	}
	image.nr_areas = areas.count;
	if (!err) {
		*out = make_memory_file("orbit", image_bytes(image, areas));
		err = *out < 0 ? *out : write_image(*out, image, birth.fds, areas);
		if (err && *out >= 0)
			close(*out);
	}
	areas.clear();
	return err;
}

union FdMessage {
	char bytes[CMSG_SPACE(sizeof(int) * (first_fds + max_fds))];
	cmsghdr align;
};

int send_fds(int socket, const int *fds, std::size_t count)
{
	char byte = 0;
	iovec data = {&byte, 1};
	FdMessage control{};
	msghdr message{};

	message.msg_iov = &data;
	message.msg_iovlen = 1;
	message.msg_control = &control;
	message.msg_controllen = CMSG_SPACE(sizeof(int) * count);

	cmsghdr *header = CMSG_FIRSTHDR(&message);

	header->cmsg_level = SOL_SOCKET;
	header->cmsg_type = SCM_RIGHTS;
	header->cmsg_len = CMSG_LEN(sizeof(int) * count);
	std::memcpy(CMSG_DATA(header), fds, sizeof(int) * count);
	while (sendmsg(socket, &message, MSG_NOSIGNAL) < 0)
		if (errno != EINTR)
			return -errno;
	return 0;
}

// Returns how many there are, or -errno; -EPIPE at the end.
int receive_fds(int socket, int *fds)
{
	char byte;
	iovec data = {&byte, 1};
	FdMessage control{};
	msghdr message{};
	ssize_t got;

	message.msg_iov = &data;
	message.msg_iovlen = 1;
	message.msg_control = &control;
	message.msg_controllen = sizeof(control);
	do {
		got = recvmsg(socket, &message, MSG_CMSG_CLOEXEC);
	} while (got < 0 && errno == EINTR);
	if (got <= 0)
		return got < 0 ? -errno : -EPIPE;

	const cmsghdr *header = CMSG_FIRSTHDR(&message);

	if (!header || header->cmsg_type != SCM_RIGHTS)
		return 0;

	const std::size_t bytes = header->cmsg_len - CMSG_LEN(0);

	std::memcpy(fds, CMSG_DATA(header), bytes);
	return static_cast<int>(bytes / sizeof(int));
}

// ---- The zygote ---------------------------------------------------------------------------

// Which part of the stack the zygote uses itself: from here up to where orbit_prepare() was
// called.
ORBIT_STATE std::uintptr_t zygote_frame;

// Address space for the orbits' own memory, and for nothing of the main program's.
ORBIT_STATE Range hole;

// An array in the hole, which malloc() has nothing to do with.
struct Record {
	Area *items;
	std::size_t count, room;

	bool add(std::uintptr_t start, std::uintptr_t end)
	{
		if (count && items[count - 1].start + items[count - 1].bytes == start) {
			items[count - 1].bytes += end - start;
			return true;
		}
		if (count == room)
			return false;
		items[count++] = {start, end - start};
		return true;
	}
	// By address, and what touches is one.
	void order()
	{
		const std::size_t all = count;

		std::sort(items, items + count, [](const Area &x, const Area &y) { return x.start < y.start; });
		count = 0;
		for (std::size_t i = 0; i < all; i++)
			add(items[i].start, items[i].start + items[i].bytes);
	}
	// Once it is in order: the first that ends behind an address, or the end.
	const Area *find(std::uintptr_t at) const
	{
		return std::partition_point(items, items + count, [=](const Area &area) {
			return area.start + area.bytes <= at;
		});
	}
	bool overlaps(std::uintptr_t start, std::uintptr_t end) const
	{
		const Area *const next = find(start);

		return next != items + count && next->start < end;
	}
};

// What malloc() might hand out in an orbit: memory that existed when the zygote was made, and of which
// it is not known that malloc() will not. A range of the main program's must not be there.
ORBIT_STATE Record doubtful;

// Where the zygote filled the gaps: from an address on, between what was mapped.
ORBIT_STATE std::uintptr_t filled_from;
ORBIT_STATE Record mapped_before;

// What the zygote finds when it begins.
struct Layout {
	Record mapped;	  // all of it
	Record anonymous; // private, no file behind it, of no module: malloc()'s may be among them
	Area heap;	  // up to where brk() ends; empty if there is none
	bool stack;	  // it has been met; nothing is mapped above it
};

bool is_in_a_module(std::uintptr_t p)
{
	const auto check = [](dl_phdr_info *module, std::size_t, void *user) {
		return contains(module, *static_cast<const std::uintptr_t *>(user)) ? 1 : 0;
	};

	return for_each_module(check, &p) != 0;
}

int note_mapping(void *user, const Mapping &mapping)
{
	auto *layout = static_cast<Layout *>(user);
	const bool is_heap = !std::strcmp(mapping.name, "[heap]");
	const bool has_name = *mapping.name && std::strncmp(mapping.name, "[anon", 5);

	if (is_heap && !layout->heap.bytes)
		layout->heap = {mapping.start, whole_pages(address(sbrk(0))) - mapping.start};
	if (!std::strcmp(mapping.name, "[stack]"))
		layout->stack = true;
	if (layout->stack)
		return 0;
	if (!layout->mapped.add(mapping.start, mapping.end))
		return -ENOMEM;
	if (mapping.shared || (has_name && !is_heap) || is_in_a_module(mapping.start))
		return 0;
	return layout->anonymous.add(mapping.start, mapping.end) ? 0 : -ENOMEM;
}

// The records are at the hole's end. The rest of it is given free.
int open_hole(Layout *layout)
{
	constexpr std::size_t enough = 8 << 20;
	const std::size_t bytes = page_floor(hole.bytes / 16 < enough ? hole.bytes / 16 : enough);
	const std::size_t room = bytes / sizeof(Area) / 4;
	auto *const items = reinterpret_cast<Area *>(hole.start + hole.bytes - bytes);

	if (mmap(items, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED,
		 -1, 0) == MAP_FAILED)
		return -errno;
	layout->mapped = {items, 0, room};
	layout->anonymous = {items + room, 0, room};
	doubtful = {items + 2 * room, 0, 2 * room};
	return munmap(pointer(hole.start), hole.bytes - bytes) ? -errno : 0;
}

int fill(std::uintptr_t start, std::uintptr_t end)
{
	return start < end && mmap(pointer(start), end - start, PROT_NONE,
				   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE, -1,
				   0) == MAP_FAILED ?
		       -errno :
		       0;
}

// Their heap must not grow to where the main program's does.
int stop_heap()
{
	const std::uintptr_t end = whole_pages(address(sbrk(0)));

	return fill(end, end + page_size());
}

// Above the hole there are gaps into which a small mapping might go, the main program's as
// well as an orbit's. An allocator may even ask for addresses, so for some it is all gaps.
int fill_gaps(const Record &mapped, bool all)
{
	constexpr std::uintptr_t lowest = 1 << 20;
	const std::uintptr_t hole_end = hole.start + hole.bytes;
	std::uintptr_t last = all ? lowest : hole_end;
	int err = 0;

	filled_from = last;
	mapped_before = mapped;
	for (std::size_t i = 0; !err && i < mapped.count; i++) {
		const std::uintptr_t start = mapped.items[i].start, end = start + mapped.items[i].bytes;

		// In the hole there is nothing but the records, at its end.
		if (last < hole.start && start > hole.start) {
			err = fill(last, hole.start);
			last = hole_end;
		}
		if (!err)
			err = fill(last, start);
		if (end > last)
			last = end;
	}
	return err;
}

// malloc() must not be optimized away.
void *take(std::size_t size)
{
	void *piece = malloc(size);

	asm volatile("" : "+r"(piece));
	return piece;
}

// Allocate pieces of this size until the heap has none left.
void use_up(std::size_t size, const Area &heap)
{
	void *piece;

	do {
		piece = take(size);
	} while (piece && address(piece) - heap.start < heap.bytes);
	free(piece);
}

// What is free in the heap may be in use by the main program when a range of it is named.
// Take it all, so that an orbit's malloc() has memory of its own only.
void use_up_heap(const Area &heap)
{
	constexpr std::size_t step = 16, small = 1032; // free pieces up to this are kept by size

	for (std::size_t size = 1 << 16; size > small; size /= 2)
		use_up(size, heap);
	for (std::size_t size = small; size > step; size -= step)
		use_up(size, heap);
}

// The module that a function is in, as others call it.
const void *module_of(const char *function)
{
	Dl_info info;
	const void *const at = dlsym(RTLD_DEFAULT, function);

	return at && dladdr(at, &info) ? info.dli_fbase : nullptr;
}

// With the C library's allocator it is known what to do: in its main arena nothing is left that could be
// handed out. It has others only if there have been threads.
void keep_apart_from_libc(const Layout &layout)
{
	constexpr std::size_t uncached = 60'000; // neither kept by size nor mapped on its own
	const bool in_main_arena = address(take(uncached)) - layout.heap.start < layout.heap.bytes;

	if (layout.heap.bytes)
		use_up_heap(layout.heap);
	if (__libc_single_threaded)
		return;
	for (std::size_t i = 0; i < layout.anonymous.count; i++) {
		const Area &area = layout.anonymous.items[i];

		if (!in_main_arena || area.start != layout.heap.start)
			doubtful.add(area.start, area.start + area.bytes);
	}
}

// Allocate pieces of this size until no more come from where the main program has them, and write down
// which do.
void drain(std::size_t size, const Record &from, bool tells_size, Record *drained)
{
	constexpr std::size_t most = 32;
	const std::size_t patience = size > page_size() ? 4 : most;
	void *others[most];
	std::size_t nr_others = 0;

	while (nr_others < patience && drained->count < drained->room) {
		void *const piece = take(size);
		const std::uintptr_t start = address(piece);

		if (!piece)
			break;
		if (from.overlaps(start, start + size))
			drained->add(start, start + (tells_size ? malloc_usable_size(piece) : size));
		else
			others[nr_others++] = piece;
	}
	while (nr_others)
		free(others[--nr_others]);
}

// Each size up to one that allocators are known to tell apart, largest first.
void drain_sizes(std::size_t first, std::size_t last, const Record &from, bool tells_size, Record *drained)
{
	for (std::size_t size = first; size > last;) {
		const std::size_t step = size > 1024 ? size / 8 & ~std::size_t{15} : size > 128 ? 16 : 8;

		drain(size, from, tells_size, drained);
		size -= size < step ? size : step;
	}
}

// Of another allocator it is not known what it keeps where. But whatever it is, it does not hand out twice
// what nobody gives back. So take all that can be had; ranges may be in what was taken, for that much
// is certain, and in addresses where nothing was.
void keep_apart_from_any(Layout *layout)
{
	const bool tells_size = module_of("malloc_usable_size") == module_of("malloc");
	const std::size_t room = doubtful.room / 2;
	Record drained = {doubtful.items + room, 0, doubtful.room - room};
	const Record &anonymous = layout->anonymous;

	// Pages first, and what is left of them; then what is kept for larger pieces, and what these leave.
	for (int round = 0; round < 3; round++) {
		if (round == 2)
			drain_sizes(1 << 20, page_size(), anonymous, tells_size, &drained);
		drain(page_size(), anonymous, tells_size, &drained);
		drain_sizes(page_size() / 2 * 7, 0, anonymous, tells_size, &drained);
	}
	drained.order();

	doubtful.room = room;
	for (std::size_t i = 0; i < anonymous.count; i++) {
		std::uintptr_t start = anonymous.items[i].start;
		const std::uintptr_t end = start + anonymous.items[i].bytes;

		for (const Area *known = drained.find(start); start < end; known++) {
			const bool more = known != drained.items + drained.count && known->start < end;
			const std::uintptr_t until = more ? known->start : end;

			if (start < until && !doubtful.add(start, until)) {
				doubtful.items[room - 1] = {start, UINTPTR_MAX - start}; // all from there on
				return;
			}
			start = more ? known->start + known->bytes : end;
		}
	}
	// Nobody needs what is in there.
	for (std::size_t i = 0; i < drained.count; i++) {
		const std::uintptr_t start = page_floor(drained.items[i].start + page_size() - 1);
		const std::uintptr_t end = page_floor(drained.items[i].start + drained.items[i].bytes);

		if (start < end)
			madvise(pointer(start), end - start, MADV_DONTNEED);
	}
}

int keep_apart()
{
	const bool is_libcs = module_of("malloc") == module_of("gnu_get_libc_version");
	Layout layout{};
	int err = open_hole(&layout);

	if (!err)
		err = stop_heap();
	if (!err)
		err = for_each_mapping(note_mapping, &layout);
	if (!err)
		err = fill_gaps(layout.mapped, !is_libcs);
	if (err)
		return err;
	if (is_libcs)
		keep_apart_from_libc(layout);
	else
		keep_apart_from_any(&layout);
	return 0;
}

} // namespace

bool is_kept_free(std::uintptr_t start, std::uintptr_t end)
{
	const Area *const next = mapped_before.find(start);

	return start >= filled_from && next != mapped_before.items + mapped_before.count && next->start >= end &&
	       (end <= hole.start || start >= hole.start + hole.bytes);
}

namespace {

// ---- The child of the zygote ----------------------------------------------------------------

// Give the descriptors that came with a request the numbers that they have in the main
// program. The first two get new ones. Returns 0 or -errno.
int renumber(int *fds, const int *numbers, std::size_t nr_numbers)
{
	const std::size_t count = first_fds + nr_numbers;
	int beyond = 3;

	for (std::size_t i = 0; i < nr_numbers; i++)
		if (numbers[i] >= beyond)
			beyond = numbers[i] + 1;
	// Out of the way first.
	for (std::size_t i = 0; i < count; i++) {
		const int moved = fcntl(fds[i], F_DUPFD_CLOEXEC, beyond);

		if (moved < 0)
			return errno == EINVAL ? -EMFILE : -errno;
		fds[i] = moved;
	}
	for (std::size_t i = 0; i < nr_numbers; i++)
		if (dup2(fds[first_fds + i], numbers[i]) < 0)
			return -errno;
	return 0;
}

struct Place {
	std::uintptr_t next, end;
};

// What this process has mapped, read once for all ranges.
struct Mappings {
	Mapping *items;
	std::size_t count, room;
};

int add_mapping(void *user, const Mapping &mapping)
{
	auto *all = static_cast<Mappings *>(user);

	if (all->count == all->room) {
		const std::size_t more = all->room ? 2 * all->room : 256;
		void *bigger = realloc(all->items, more * sizeof(Mapping));

		if (!bigger)
			return -ENOMEM;
		all->items = static_cast<Mapping *>(bigger);
		all->room = more;
	}
	all->items[all->count] = mapping;
	all->items[all->count++].name = "";
	return 0;
}

int make_writable(Place *place, const Mapping &mapping)
{
	const int prot = PROT_READ | PROT_WRITE;
	const int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED;

	if (mapping.end <= place->next || place->next >= place->end)
		return 0;

	const std::uintptr_t start = mapping.start < place->end ? mapping.start : place->end;

	if (start > place->next) {
		if (mmap(pointer(place->next), start - place->next, prot, flags, -1, 0) == MAP_FAILED)
			return -errno;
		place->next = start;
	}
	if (start == place->end)
		return 0;

	const std::uintptr_t end = mapping.end < place->end ? mapping.end : place->end;
	const std::size_t bytes = end - place->next;

	if (mapping.shared) {
		if (mmap(pointer(place->next), bytes, prot, flags, -1, 0) == MAP_FAILED)
			return -errno;
	} else if (!mapping.readable || !mapping.writable) {
		if (mprotect(pointer(place->next), bytes, prot))
			return -errno;
	}
	place->next = end;
	return 0;
}

// See to it that there is memory for a named range, which nobody else sees.
int make_place(const Area &area, const Mappings &mappings)
{
	const Mapping *const first = mappings.items, *const end = first + mappings.count;
	const std::uintptr_t here = address(__builtin_frame_address(0)) - (std::uintptr_t{1} << 18);
	Place place = {page_floor(area.start), page_floor(area.start + area.bytes + page_size() - 1)};

	// On the stack, it must have been there at orbit_prepare().
	if (area.start < zygote_frame && area.start + area.bytes > here)
		return -EFAULT;
	for (const Mapping *at = std::partition_point(
		     first, end, [&](const Mapping &mapping) { return mapping.end <= place.next; });
	     at != end && at->start < place.end; at++)
		if (const int err = make_writable(&place, *at))
			return err;

	// What lies above all mappings.
	const Mapping none = {UINTPTR_MAX, UINTPTR_MAX, false, false, false, ""};

	return make_writable(&place, none);
}

int load_image(int fd, const Image &image, const Areas &areas)
{
	Mappings mappings{};
	int err = areas.count > image.nr_variables ? for_each_mapping(add_mapping, &mappings) : 0;

	for (std::size_t i = 0; !err && i < areas.count; i++) {
		const Area &area = areas.items[i];

		if (i >= image.nr_variables)
			err = doubtful.overlaps(area.start, area.start + area.bytes) ? -EADDRINUSE :
										       make_place(area, mappings);
		else if (!is_of_a_module(areas.items[i]))
			err = -ENXIO;
	}
	free(mappings.items);
	for (std::size_t i = 0; !err && i < areas.count; i++)
		err = read_all(fd, pointer(areas.items[i].start), areas.items[i].bytes);
	return err;
}

// Returns only if it failed.
int become_minimal(int *fds, std::size_t nr_fds)
{
	Image image{};
	Areas areas{};
	Birth birth{};
	int err;

	if (nr_fds < first_fds || lseek(fds[1], 0, SEEK_SET))
		return -EIO;
	err = read_all(fds[1], &image, sizeof(image));
	if (!err && image.nr_fds + first_fds != nr_fds)
		err = -EMFILE; // not all could be received
	if (err)
		return err;

	auto *numbers = static_cast<int *>(calloc(nr_fds, sizeof(int)));

	areas.count = areas.room = image.nr_areas;
	areas.items = static_cast<Area *>(calloc(image.nr_areas, sizeof(Area)));
	if (!numbers || !areas.items)
		return -ENOMEM;
	err = read_all(fds[1], numbers, image.nr_fds * sizeof(*numbers));
	if (!err)
		err = read_all(fds[1], areas.items, areas.count * sizeof(Area));
	if (!err)
		err = renumber(fds, numbers, image.nr_fds);
	if (err)
		return err;

	const int client = fds[0], image_fd = fds[1];

	numbers[image.nr_fds] = client;
	numbers[image.nr_fds + 1] = image_fd;
	birth.flags = image.flags;
	birth.name = image.name;
	birth.client = client;
	birth.owner = image.owner;
	birth.shared = image.shared;
	birth.shared_page = image.shared_page;
	birth.main = static_cast<pid_t>(image.main);
	birth.arg_room = image.arg_room;
	birth.memory_limit = image.memory_limit;
	birth.nr_files = image.nr_files;
	birth.fds = numbers;
	birth.nr_fds = nr_fds;
	err = stand_alone(birth);
	if (!err)
		err = load_image(image_fd, image, areas);
	if (err)
		return err;
	close(image_fd);
	areas.clear();
	free(numbers);
	return become_orbit(birth);
}

// A fork server that could not come to be says so itself.
[[noreturn]] void end_minimal(const int *fds, bool portable, int err)
{
	if (portable)
		tell_failure(fds[0], err);
	_exit(-err);
}

// owner as in Birth.
[[noreturn]] void serve_requests(int socket, int owner)
{
	const bool portable = owner >= 0;

	for (;;) {
		int fds[first_fds + max_fds] = {-1}; // with none there is nobody to tell
		pollfd waits[] = {{socket, POLLIN, 0}, {owner, POLLIN, 0}};

		if (poll(waits, 2, -1) < 0)
			continue;
		if (waits[1].revents)
			_exit(0);

		const int count = receive_fds(socket, fds);

		if (count < 0)
			_exit(0); // the main program has ended

		// Fork handlers have run when the zygote was made.
		const pid_t pid = _Fork();

		if (!pid)
			end_minimal(fds, portable, become_minimal(fds, static_cast<std::size_t>(count)));

		int err = pid < 0 ? -errno : 0;

		for (int i = 0; i < count; i++)
			close(fds[i]);
		if (!err && !portable)
			err = wait_until_left(pid);
		if (send(socket, &err, sizeof(err), MSG_NOSIGNAL) < 0)
			_exit(0);
	}
}

// ---- The main program -----------------------------------------------------------------------

ORBIT_STATE pthread_mutex_t zygote_lock = PTHREAD_MUTEX_INITIALIZER;
ORBIT_STATE int zygote_socket = -1;
// The zygote is the template of an orbit that is never called, and so ends with the main
// program and is no child of it.
ORBIT_STATE int zygote_orbit = -1;

[[noreturn]] void become_zygote(int client, int socket, int owner)
{
	// Standard input, output and errors come along when they are needed; here they
	// would only keep others waiting for the end of a pipe that main has closed.
	int fds[] = {socket, owner >= 0 ? owner : client};
	Birth birth{};
	orbit_attach_args args{};

	// Its children cannot have a core file if it cannot.
	birth.flags = ORBIT_KEEP_CORE;
	birth.name = "zygote";
	birth.client = client;
	birth.fds = fds;
	birth.nr_fds = sizeof(fds) / sizeof(*fds);
	become_part_of_orbit();

	int err = stand_alone(birth);

	if (!err)
		err = keep_apart();
	if (owner >= 0) {
		std::signal(SIGCHLD, SIG_IGN); // fork servers are its children, and nobody's business
		if (send(socket, &err, sizeof(err), MSG_NOSIGNAL) < 0)
			err = -errno;
	} else if (!err) {
		err = sys_ctl(client, ORBIT_CTL_TEMPLATE, &args);
		if (err >= 0)
			err = close(client);
	}
	if (err)
		_exit(-err);
	serve_requests(socket, owner);
}

int fork_zygote(int client, int mine, int its)
{
	struct orbit_stat st {};
	pid_t pid;
	int err;

	zygote_frame = address(__builtin_frame_address(0));
	{
		const SignalsBlocked blocked;

		{
			const OrbitFork is;

			pid = fork();
		}
		if (!pid) {
			close(mine);
			become_zygote(client, its, -1);
		}
		err = pid < 0 ? -errno : 0;
	}
	if (!err)
		err = wait_until_left(pid);
	if (!err)
		err = sys_ctl(client, ORBIT_CTL_STAT, &st);
	return err || st.template_pid ? err : -ECHILD;
}

struct Zygote {
	int mine, its, owner;
};

// Without the kernel's orbits it is an orphan from the beginning, as a fork server is. Closes its end.
int fork_portable_zygote(int mine, int its)
{
	const Zygote zygote = {mine, its, lift(open_pidfd(getpid()))};
	int answer = 0;
	ssize_t got;

	if (zygote.owner < 0) {
		close(its);
		return zygote.owner;
	}
	zygote_frame = address(__builtin_frame_address(0));

	int err = fork_orphan(
		[](const void *user) {
			const Zygote &made = *static_cast<const Zygote *>(user);

			close(made.mine);
			become_zygote(-1, made.its, made.owner);
		},
		&zygote);

	close(zygote.owner);
	close(its);
	if (err)
		return err;
	do {
		got = recv(mine, &answer, sizeof(answer), 0);
	} while (got < 0 && errno == EINTR);
	return got == sizeof(answer) ? answer : -ECHILD;
}

// Closed by the application, or dead: then there may be another.
bool is_zygote_lost()
{
	pollfd fd = {zygote_socket, POLLIN, 0};

	return !is_still_ours(zygote_socket) || (poll(&fd, 1, 0) == 1 && fd.revents & POLLHUP);
}

int start_zygote_locked(bool portable)
{
	orbit_create_args args{};
	int sockets[2];

	if (zygote_socket >= 0) {
		if (!is_zygote_lost())
			return -EALREADY;
		close_ours(&zygote_socket);
		close_ours(&zygote_orbit);
	}
	if (!is_separable())
		return -ENOTSUP;
	if (!hole.bytes)
		if (const int err = reserve_hole(&hole))
			return err;
	if (const int err = make_sockets(SOCK_SEQPACKET, sockets))
		return err;
	if (portable) {
		const int err = fork_portable_zygote(sockets[0], sockets[1]);

		if (err)
			close(sockets[0]);
		else
			zygote_socket = sockets[0];
		return err;
	}
	args.flags = ORBIT_CREATE_RESTART;
	std::strncpy(args.name, "zygote", sizeof(args.name) - 1);

	const int client = lift(sys_create(&args));
	const int err = client < 0 ? client : fork_zygote(client, sockets[0], sockets[1]);

	close(sockets[1]);
	if (err) {
		close(sockets[0]);
		if (client >= 0)
			close(client);
		return err;
	}
	zygote_socket = sockets[0];
	zygote_orbit = client;
	return 0;
}

int ask_zygote_locked(const int *fds, std::size_t count)
{
	int err = is_still_ours(zygote_socket) ? send_fds(zygote_socket, fds, count) : -ENXIO;
	int answer = 0;
	ssize_t got;

	if (err)
		return err == -EPIPE || err == -ECONNRESET ? -ENXIO : err;
	do {
		got = recv(zygote_socket, &answer, sizeof(answer), 0);
	} while (got < 0 && errno == EINTR);
	return got == sizeof(answer) ? answer : -ENXIO;
}

} // namespace

bool can_have_zygote()
{
	return is_separable();
}

int start_zygote(bool portable)
{
	pthread_mutex_lock(&zygote_lock);
	const int err = start_zygote_locked(portable);

	pthread_mutex_unlock(&zygote_lock);
	return err;
}

int fork_from_zygote(const Birth &birth, const orbit_options *options)
{
	int fds[first_fds + max_fds];
	int image = -1;

	if (birth.nr_fds > max_fds)
		return -E2BIG;
	if (const int err = make_image(&image, birth, options))
		return err;
	fds[0] = birth.client;
	fds[1] = image;
	std::memcpy(fds + first_fds, birth.fds, birth.nr_fds * sizeof(int));

	pthread_mutex_lock(&zygote_lock);
	const int err = ask_zygote_locked(fds, first_fds + birth.nr_fds);

	pthread_mutex_unlock(&zygote_lock);
	close(image);
	return err;
}

ORBIT_AT_FORK void forget_zygote()
{
	pthread_mutex_init(&zygote_lock, nullptr);
	if (zygote_socket < 0)
		return;
	close_ours(&zygote_socket);
	close_ours(&zygote_orbit);
}

} // namespace liborbit
