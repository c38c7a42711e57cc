// SPDX-License-Identifier: MIT
#include "sharing.h"

#include "../portable/wire.h"
#include "descriptors.h"
#include "files.h"
#include "fork_handlers.h"
#include "locked.h"

#include <cerrno>
#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <fcntl.h>
#include <initializer_list>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

namespace liborbit {

namespace {

// A page that main and the orbit share. Main only writes the first, and believes nothing of the second but for
// what the orbit itself would suffer from.
struct Control {
	std::uint64_t wanted;	// which message is there
	std::uint64_t in_place; // which one the orbit has put in place
};

struct Granted {
	std::uint64_t number; // of the region
	std::uint64_t start, bytes;
	std::uint32_t rights;
	std::uint32_t has_file; // false: the application has closed it; who has it keeps it
};

struct Message {
	std::uint64_t number;
	std::uint64_t count;
	Granted granted[ORBIT_MAX_SHARED];
};

std::size_t message_bytes(std::size_t count)
{
	return offsetof(Message, granted) + count * sizeof(Granted);
}

constexpr unsigned seals = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL;

int reserve(std::uint64_t start, std::uint64_t bytes)
{
	return mmap(reinterpret_cast<void *>(start), bytes, PROT_NONE,
		    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0) == MAP_FAILED ?
		       -errno :
		       0;
}

// A child that either side forks has it not.
int map_shared(void *start, std::size_t bytes, int access, int flags, int fd, void **out)
{
	void *const memory = mmap(start, bytes, access, MAP_SHARED | flags, fd, 0);

	if (memory == MAP_FAILED)
		return -errno;
	if (madvise(memory, bytes, MADV_DONTFORK)) {
		const int err = -errno;

		if (flags & MAP_FIXED)
			reserve(reinterpret_cast<std::uintptr_t>(memory), bytes);
		else
			munmap(memory, bytes);
		return err;
	}
	*out = memory;
	return 0;
}

int make_sealed_file(const char *name, std::uint64_t bytes)
{
	const int fd = make_memory_file(name, bytes);

	if (fd < 0 || !fcntl(fd, F_ADD_SEALS, seals))
		return fd;

	const int err = -errno;

	close(fd);
	return err;
}

} // namespace

// ---- Main ----------------------------------------------------------------------------------

// Of a region in an orbit. It stays when it has been taken back, until the orbit has noticed.
struct Grant {
	Grant *next;
	orbit_shared *region;
	std::uint32_t rights;
	std::uint64_t gone; // the first message that it is not in; 0: it is granted
};

struct Sharing {
	Sharing *next;
	int sends, receives; // the two ends of the socket,
	int page;	     // and until the orbit is made, the file of
	Control *control;
	std::uint64_t number; // of the last message
	Grant *grants;
	std::size_t count; // that are not gone
	std::size_t most;  // as many as the orbit may have descriptors for
};

namespace {

// For all of main's side. In the process of an orbit it is of no use.
ORBIT_STATE pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
ORBIT_STATE Sharing *sharings;
ORBIT_STATE orbit_shared *regions; // those destroyed that an orbit may have still, too
ORBIT_STATE std::uint64_t numbers;

void free_region(orbit_shared *region)
{
	orbit_shared **link = &regions;

	while (*link && *link != region)
		link = &(*link)->next;
	if (*link)
		*link = region->next;
	if (const int err = release_addresses(&region->range))
		// The range stays in a list, and so does this.
		log(ORBIT_LOG_ERROR, "shared memory could not be unmapped (error %d)", -err);
	else
		free(region);
}

void drop_grant(Grant **link)
{
	Grant *const grant = *link;
	orbit_shared *const region = grant->region;

	*link = grant->next;
	free(grant);
	if (!--region->holders && region->destroyed)
		free_region(region);
}

// Forget what an orbit has let go.
void sweep(Sharing *sharing)
{
	const std::uint64_t in_place = __atomic_load_n(&sharing->control->in_place, __ATOMIC_ACQUIRE);

	for (Grant **link = &sharing->grants; *link;)
		if ((*link)->gone && (*link)->gone <= in_place)
			drop_grant(link);
		else
			link = &(*link)->next;
}

Grant *find_grant(Sharing *sharing, const orbit_shared *region)
{
	for (Grant *grant = sharing->grants; grant; grant = grant->next)
		if (!grant->gone && grant->region == region)
			return grant;
	return nullptr;
}

int add_grant(Sharing *sharing, orbit_shared *region, std::uint32_t rights)
{
	auto *const grant = static_cast<Grant *>(malloc(sizeof(Grant)));

	if (!grant)
		return -ENOMEM;
	*grant = {sharing->grants, region, rights, 0};
	sharing->grants = grant;
	sharing->count++;
	region->holders++;
	return 0;
}

int file_for(const orbit_shared *region, std::uint32_t rights)
{
	return rights == ORBIT_RIGHTS_WRITE ? region->fd : region->readable;
}

// Take out the messages before this one. -EAGAIN: that is not there either, as a task takes out messages.
int take_out_older(const Sharing *sharing, std::uint64_t number)
{
	for (;;) {
		Message message{};

		for (const int look : {int{MSG_PEEK}, 0}) {
			std::size_t no_fds = 0;
			const long got = hear(sharing->receives, &message, sizeof(message), nullptr, &no_fds,
					      look | MSG_DONTWAIT);

			// It also tells that there were descriptors, for which there is no room.
			if (got < 0 && got != -EMFILE)
				return static_cast<int>(got);
			if (message.number >= number)
				return 0;
		}
	}
}

// Tell what is granted by now.
int announce(Sharing *sharing)
{
	Message message{};
	int fds[ORBIT_MAX_SHARED];
	std::size_t nr_fds = 0;

	if (!is_still_ours(sharing->sends) || !is_still_ours(sharing->receives))
		return -EBADF;
	message.number = ++sharing->number; // no two have the same, even if one fails
	for (const Grant *grant = sharing->grants; grant; grant = grant->next) {
		if (grant->gone)
			continue;

		const orbit_shared *const region = grant->region;
		const int fd = file_for(region, grant->rights);
		const bool has_file = is_still_ours(fd);

		message.granted[message.count++] = {region->number, region->range.start, region->range.bytes,
						    grant->rights, has_file};
		if (has_file)
			fds[nr_fds++] = fd;
	}

	const auto put = [&] {
		return tell(sharing->sends, &message, message_bytes(message.count), nullptr, 0, fds, nr_fds, MSG_DONTWAIT);
	};
	int err = put();

	if (!err)
		err = take_out_older(sharing, message.number);
	if (err == -EAGAIN)
		err = put();
	if (err)
		return err == -EAGAIN ? -ENOBUFS : err == -EPIPE || err == -ECONNRESET ? -ESHUTDOWN : err;
	__atomic_store_n(&sharing->control->wanted, message.number, __ATOMIC_RELEASE);
	return 0;
}

int share_locked(Sharing *sharing, orbit_shared *region, std::uint32_t rights)
{
	Grant *const had = find_grant(sharing, region);
	const std::uint32_t before = had ? had->rights : std::uint32_t{ORBIT_RIGHTS_NONE};

	if (rights == before)
		return 0;
	if (rights != ORBIT_RIGHTS_NONE && !is_still_ours(file_for(region, rights)))
		return -EBADF;
	if (!had) {
		if (sharing->count == ORBIT_MAX_SHARED)
			return -E2BIG;
		if (sharing->count >= sharing->most)
			return -EMFILE;
		if (const int err = add_grant(sharing, region, rights))
			return err;
	} else if (rights == ORBIT_RIGHTS_NONE) {
		had->gone = sharing->number + 1;
	} else {
		had->rights = rights;
	}

	const int err = announce(sharing);

	if (err && !had) {
		sharing->count--;
		drop_grant(&sharing->grants); // it is the first
	} else if (err) {
		had->gone = 0;
		had->rights = before;
	} else if (rights == ORBIT_RIGHTS_NONE) {
		sharing->count--;
	}
	return err;
}

int make_channel(Sharing *sharing)
{
	int ends[2];
	void *control = nullptr;

	if (const int err = make_sockets(SOCK_SEQPACKET, ends))
		return err;
	sharing->sends = ends[0];
	sharing->receives = ends[1];
	sharing->page = make_sealed_file("orbit-sharing", page_size());
	if (sharing->page < 0)
		return sharing->page;
	if (const int err = map_shared(nullptr, page_size(), PROT_READ | PROT_WRITE, 0, sharing->page, &control))
		return err;
	sharing->control = static_cast<Control *>(control);
	return 0;
}

} // namespace

int make_region(orbit_shared *region, const char *name)
{
	char path[32];
	void *memory;
	const Locked locked(&lock); // no child has it, not even one that is forked now

	region->fd = make_sealed_file(*name ? name : "orbit-shared", region->range.bytes);
	if (region->fd < 0)
		return region->fd;
	// An orbit that may only read gets one that cannot be mapped for writing.
	std::snprintf(path, sizeof(path), "/proc/self/fd/%d", region->fd);
	region->readable = lift(open(path, O_RDONLY | O_CLOEXEC));

	int err = region->readable < 0 ? -errno : 0;

	if (!err)
		err = map_shared(reinterpret_cast<void *>(region->range.start), region->range.bytes,
				 PROT_READ | PROT_WRITE, MAP_FIXED, region->fd, &memory);
	if (err) {
		close_ours(&region->fd);
		close_ours(&region->readable);
		return err;
	}
	region->number = ++numbers;
	region->next = regions;
	regions = region;
	for (Sharing *sharing = sharings; sharing; sharing = sharing->next)
		sweep(sharing);
	return 0;
}

void destroy_region(orbit_shared *region)
{
	const Locked locked(&lock);

	// In a forked child there are no orbits of it.
	for (Sharing *sharing = sharings; sharing; sharing = sharing->next) {
		if (const int err = share_locked(sharing, region, ORBIT_RIGHTS_NONE))
			log(ORBIT_LOG_ERROR, "an orbit keeps memory that was shared with it (error %d)", -err);
		sweep(sharing);
	}
	close_ours(&region->fd);
	close_ours(&region->readable);
	region->destroyed = true;
	if (!region->holders)
		free_region(region);
	else if (const int err = reserve(region->range.start, region->range.bytes))
		log(ORBIT_LOG_ERROR, "shared memory could not be unmapped (error %d)", -err);
}

int open_sharing(Sharing **out, const orbit_options *options)
{
	// Besides 0, 1, 2, what it keeps, and two that the library has there.
	const std::size_t own = 5 + options->nr_keep_fds;
	auto *const sharing = static_cast<Sharing *>(calloc(1, sizeof(Sharing)));

	if (!sharing)
		return -ENOMEM;
	sharing->sends = sharing->receives = sharing->page = -1;
	sharing->most = options->nr_files ? (options->nr_files > own ? options->nr_files - own : 0) : ORBIT_MAX_SHARED;

	int err = make_channel(sharing);
	{
		const Locked locked(&lock);

		if (!err && options->nr_grants > sharing->most)
			err = -EMFILE;
		for (std::size_t i = 0; i < options->nr_grants && !err; i++) {
			const orbit_grant &grant = options->grants[i];

			if (grant.rights != ORBIT_RIGHTS_NONE)
				err = is_still_ours(file_for(grant.shared, grant.rights)) ?
					      add_grant(sharing, grant.shared, grant.rights) :
					      -EBADF;
		}
		if (!err)
			err = announce(sharing);
	}
	if (err)
		close_sharing(sharing, true);
	else
		*out = sharing;
	return err;
}

void keep_sharing(Sharing *sharing)
{
	if (!sharing)
		return;

	const Locked locked(&lock);

	close_ours(&sharing->page);
	sharing->next = sharings;
	sharings = sharing;
}

void close_sharing(Sharing *sharing, bool ours)
{
	if (!sharing)
		return;

	const Locked locked(&lock);
	Sharing **link = &sharings;

	while (*link && *link != sharing)
		link = &(*link)->next;
	if (*link)
		*link = sharing->next;
	close_ours(&sharing->sends);
	close_ours(&sharing->receives);
	close_ours(&sharing->page);
	if (ours && sharing->control)
		munmap(sharing->control, page_size());
	while (ours && sharing->grants)
		drop_grant(&sharing->grants);
	while (Grant *grant = sharing->grants) {
		sharing->grants = grant->next;
		free(grant);
	}
	free(sharing);
}

int share(Sharing *sharing, orbit_shared *region, std::uint32_t rights)
{
	const Locked locked(&lock);

	sweep(sharing);
	return share_locked(sharing, region, rights);
}

void add_sharing(const Sharing *sharing, Birth *birth)
{
	if (!sharing)
		return;
	birth->shared = sharing->receives;
	birth->shared_page = sharing->page;
}

// ---- Forks of the main program ----

ORBIT_AT_FORK void sharing_before_fork()
{
	pthread_mutex_lock(&lock);
}

ORBIT_AT_FORK void sharing_after_fork_in_parent()
{
	pthread_mutex_unlock(&lock);
}

// It keeps no memory alive. An orbit that is being made has its channel, which is in no list yet.
ORBIT_AT_FORK void sharing_after_fork_in_child()
{
	for (orbit_shared *region = regions; region; region = region->next) {
		close_ours(&region->fd);
		close_ours(&region->readable);
		region->holders = 0;
	}
	for (Sharing *sharing = sharings; sharing; sharing = sharing->next) {
		close_ours(&sharing->sends);
		close_ours(&sharing->receives);
	}
	if (regions)
		regions = nullptr;
	if (sharings)
		sharings = nullptr;
	pthread_mutex_unlock(&lock);
}

// ---- An orbit's process ---------------------------------------------------------------------

namespace {

struct Placed {
	std::uint64_t number, start, bytes;
	std::uint32_t rights;
	bool wanted;
};

// All of it is the orbit's own.
struct Receiver {
	pthread_mutex_t lock;
	pid_t process; // and not what a task forks
	int socket;
	Control *control;
	std::uint64_t seen; // the message that is in place
	std::size_t count;
	Placed placed[ORBIT_MAX_SHARED];
};

ORBIT_STATE Receiver *receiver;

Placed *find_placed(std::uint64_t number)
{
	for (std::size_t i = 0; i < receiver->count; i++)
		if (receiver->placed[i].number == number)
			return &receiver->placed[i];
	return nullptr;
}

int place(const Granted &granted, int fd)
{
	const int access = granted.rights == ORBIT_RIGHTS_WRITE ? PROT_READ | PROT_WRITE : PROT_READ;
	Placed *placed = find_placed(granted.number);
	void *memory;

	if (placed && placed->rights == granted.rights)
		return 0;
	if (fd < 0)
		return -EBADF;
	if (!placed && receiver->count == ORBIT_MAX_SHARED)
		return -E2BIG;
	if (const int err = map_shared(reinterpret_cast<void *>(granted.start), granted.bytes, access, MAP_FIXED, fd,
				       &memory))
		return err;
	if (!placed)
		placed = &receiver->placed[receiver->count++];
	*placed = {granted.number, granted.start, granted.bytes, granted.rights, true};
	return 0;
}

// What has been taken back, first: its addresses may be another's.
int remove_unwanted(const Message &message)
{
	for (std::size_t i = 0; i < receiver->count; i++)
		receiver->placed[i].wanted = false;
	for (std::size_t i = 0; i < message.count; i++)
		if (Placed *placed = find_placed(message.granted[i].number))
			placed->wanted = true;
	for (std::size_t i = 0; i < receiver->count;) {
		Placed &placed = receiver->placed[i];

		if (placed.wanted) {
			i++;
			continue;
		}
		if (const int err = reserve(placed.start, placed.bytes))
			return err;
		placed = receiver->placed[--receiver->count];
	}
	return 0;
}

int put_in_place(const Message &message, const int *fds, std::size_t nr_fds)
{
	std::size_t next = 0;
	int err = remove_unwanted(message);

	for (std::size_t i = 0; i < message.count && !err; i++) {
		const bool has_file = message.granted[i].has_file && next < nr_fds;

		err = place(message.granted[i], has_file ? fds[next++] : -1);
	}
	return err;
}

int receive()
{
	Message message;
	int fds[ORBIT_MAX_SHARED];
	std::size_t nr_fds = ORBIT_MAX_SHARED;
	const long got = hear(receiver->socket, &message, sizeof(message), fds, &nr_fds, MSG_PEEK | MSG_DONTWAIT);
	int err;

	// Main always leaves one there.
	if (got < 0)
		return got == -EAGAIN ? -EBADMSG : static_cast<int>(got);
	if (static_cast<std::size_t>(got) < message_bytes(0) || message.count > ORBIT_MAX_SHARED ||
	    static_cast<std::size_t>(got) != message_bytes(message.count))
		err = -EBADMSG;
	else
		err = put_in_place(message, fds, nr_fds);
	for (std::size_t i = 0; i < nr_fds; i++)
		close(fds[i]);
	if (err)
		return err;
	receiver->seen = message.number;
	__atomic_store_n(&receiver->control->in_place, message.number, __ATOMIC_RELEASE);
	return 0;
}

} // namespace

int begin_sharing(const Birth &birth)
{
	static_assert(sizeof(Receiver) <= 8192);
	void *memory, *control;

	if (birth.shared < 0)
		return 0;
	memory = mmap(nullptr, sizeof(Receiver), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (memory == MAP_FAILED)
		return -errno;
	if (const int err = map_shared(nullptr, page_size(), PROT_READ | PROT_WRITE, 0, birth.shared_page, &control))
		return err;
	close(birth.shared_page);
	receiver = static_cast<Receiver *>(memory);
	pthread_mutex_init(&receiver->lock, nullptr);
	receiver->process = getpid();
	receiver->socket = birth.shared;
	receiver->control = static_cast<Control *>(control);
	return 0;
}

int renew_shared()
{
	if (!receiver)
		return 0;
	if (receiver->process != getpid())
		return -EPERM;

	const Locked locked(&receiver->lock);

	return __atomic_load_n(&receiver->control->wanted, __ATOMIC_ACQUIRE) == receiver->seen ? 0 : receive();
}

void forget_placed(std::uint64_t start, std::uint64_t bytes)
{
	if (!receiver)
		return;
	for (std::size_t i = 0; i < receiver->count;) {
		Placed &placed = receiver->placed[i];

		if (placed.start < start + bytes && start < placed.start + placed.bytes) {
			placed = receiver->placed[--receiver->count];
			receiver->seen = 0;
		} else {
			i++;
		}
	}
}

} // namespace liborbit
