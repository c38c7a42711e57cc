// SPDX-License-Identifier: MIT
#include "internal.h"

#include <climits>
#include <csignal>
#include <cstdio>
#include <cstring>

namespace {

struct Words {
	int error;
	unsigned steps; // bits
	const char *text;
};

template <class... Steps> constexpr unsigned in(Steps... steps)
{
	return ((1U << steps) | ...);
}

constexpr unsigned everywhere = ~0U;
constexpr unsigned making = in(ORBIT_STEP_CREATE, ORBIT_STEP_PREPARE);

// The first that fits. What is not here has the C library's words.
constexpr Words all_words[] = {
	{0, everywhere, "no error"},
	{ECANCELED, in(ORBIT_STEP_CALL), "cancelled"},
	{ECONNRESET, in(ORBIT_STEP_CALL), "the orbit died in the task"},
	{ESHUTDOWN, in(ORBIT_STEP_CALL), "the orbit is gone"},
	{ETIMEDOUT, in(ORBIT_STEP_CALL), "ran past its time limit and was killed"},
	{EINTR, everywhere, "a signal handler ran; the task goes on"},
	{EAGAIN, in(ORBIT_STEP_CALL), "the orbit's queue is full"},
	{EAGAIN, making,
	 "no process can be made now: RLIMIT_NPROC, the pids limit of a cgroup, or the system's"},
	{EAGAIN, in(ORBIT_STEP_POOL, ORBIT_STEP_SHARE), "memory could not be locked: RLIMIT_MEMLOCK, with mlockall() in force"},
	{EEXIST, in(ORBIT_STEP_CALL), "skipped: such a task waits already"},
	{EEXIST, in(ORBIT_STEP_POOL), "something else is mapped at the address that was asked for"},
	{EEXIST, in(ORBIT_STEP_TARGETS), "it overlaps what is declared already"},
	{ETIME, in(ORBIT_STEP_CALL), "not ended by the deadline"},
	{ETIME, in(ORBIT_STEP_RECEIVE), "nothing has been received by the deadline"},
	{EBUSY, in(ORBIT_STEP_CALL), "the task runs; or its updates have to be received before its result"},
	{EBUSY, in(ORBIT_STEP_APPLY), "the main program has written to these pages since the snapshot"},
	{ESRCH, in(ORBIT_STEP_CALL), "there is no such task, or it has ended"},
	{ENXIO, in(ORBIT_STEP_CREATE),
	 "orbit_prepare() has not been called, or its process is gone, or a module was loaded after it"},
	{ENXIO, in(ORBIT_STEP_SEND), "these pages are not in one pool that the task sees"},
	{ENXIO, in(ORBIT_STEP_SCAN), "a range is not in one pool that the task sees"},
	{EALREADY, in(ORBIT_STEP_SCAN), "the task is done with a part of a range"},
	{EBUSY, in(ORBIT_STEP_SCAN), "called by the function of a scan"},
	{EPERM, in(ORBIT_STEP_SCAN), "only the thread that runs a task can scan"},
	{EINVAL, in(ORBIT_STEP_SCAN), "a range is not of whole pages, or overlaps another, or an argument is malformed"},
	{ECANCELED, in(ORBIT_STEP_SCAN), "the function has ended the scan"},
	{ENXIO, everywhere, "a pool is not mapped: the program has unmapped it itself"},
	{EPERM, in(ORBIT_STEP_CREATE, ORBIT_STEP_PREPARE, ORBIT_STEP_POOL, ORBIT_STEP_SETUP),
	 "not possible in an orbit; or refused by a filter, a limit or a security module"},
	{EPERM, in(ORBIT_STEP_SHARE),
	 "the main program makes and shares regions, with its own handles, and tasks renew them; or refused by a "
	 "filter, a limit or a security module"},
	{EPERM, in(ORBIT_STEP_SEND), "only the process of an orbit can send updates"},
	{EPERM, everywhere,
	 "the handle belongs to another process: a child made by fork() cannot use its parent's"},
	{EACCES, in(ORBIT_STEP_CALL, ORBIT_STEP_RECEIVE, ORBIT_STEP_APPLY),
	 "refused: aimed at what is not declared, or filtered"},
	{EACCES, in(ORBIT_STEP_SEND), "the process cannot read its own /proc/self/pagemap, which pages take"},
	{EACCES, everywhere, "refused by a filter, a limit or a security module"},
	{EPIPE, in(ORBIT_STEP_SEND, ORBIT_STEP_CALL),
	 "nobody can receive updates of this task: only a call that does not wait makes a handle for that"},
	{ENOSPC, in(ORBIT_STEP_SEND, ORBIT_STEP_CALL), "past the orbit's update_limit"},
	{EPROTO, in(ORBIT_STEP_CALL), "the orbit has not sent the result that it says it has"},
	{ENODATA, in(ORBIT_STEP_RECEIVE), "there are no more updates"},
	{ENOENT, in(ORBIT_STEP_CREATE, ORBIT_STEP_PREPARE, ORBIT_STEP_POOL, ORBIT_STEP_SHARE), "/proc is not mounted"},
	{ENOENT, in(ORBIT_STEP_SETUP), "there is no such backend"},
	{ENOENT, in(ORBIT_STEP_TARGETS), "that refusal is not known any more"},
	{EALREADY, in(ORBIT_STEP_PREPARE), "orbit_prepare() has been called already, and its process is there"},
	{EALREADY, in(ORBIT_STEP_POOL), "the addresses for pools have been reserved already"},
	{EALREADY, in(ORBIT_STEP_SETUP), "pools or orbits of another backend exist already"},
	{ENOTSUP, in(ORBIT_STEP_PREPARE, ORBIT_STEP_CREATE),
	 "not with this program: it is linked statically, has its own malloc() in the executable, or runs "
	 "under a sanitizer"},
	{ENOTSUP, in(ORBIT_STEP_POOL, ORBIT_STEP_SETUP), "ORBIT_TRACKER asks for what this system has not"},
	{ENOTSUP, in(ORBIT_STEP_SHARE), "the orbit was not made to share memory with (ORBIT_SHARE)"},
	{ESHUTDOWN, in(ORBIT_STEP_SHARE), "the orbit has ended, or has closed the way that it would hear of it"},
	{ETOOMANYREFS, in(ORBIT_STEP_CREATE, ORBIT_STEP_SHARE),
	 "regions are shared with more orbits, all counted, than there may be descriptors (RLIMIT_NOFILE)"},
	{EBADMSG, in(ORBIT_STEP_SHARE), "a task has taken away what told of shared memory"},
	{E2BIG, in(ORBIT_STEP_SHARE), "more regions than one orbit can have (ORBIT_MAX_SHARED), or an unknown option"},
	{E2BIG, everywhere, "more bytes, pools or options than this library knows of or takes"},
	{EBADF, in(ORBIT_STEP_CREATE), "a descriptor to keep is not open"},
	{EBADF, everywhere, "the program has closed descriptors of the library"},
	{EFAULT, in(ORBIT_STEP_CREATE), "a range that is named is not readable"},
	{EFAULT, everywhere, "the bytes are not readable"},
	{EFBIG, in(ORBIT_STEP_CREATE), "RLIMIT_FSIZE is less than what the orbit inherits"},
	{EFBIG, in(ORBIT_STEP_SHARE), "RLIMIT_FSIZE is less than the region"},
	{EFBIG, everywhere, "RLIMIT_FSIZE is less than a pool, which the portable backend keeps in files"},
	{EINVAL, in(ORBIT_STEP_CALL, ORBIT_STEP_CREATE, ORBIT_STEP_POOL),
	 "an argument or an option is malformed, or not known, or named twice"},
	{EINVAL, in(ORBIT_STEP_SEND), "these are not whole pages, or an argument is malformed"},
	{EINVAL, in(ORBIT_STEP_SETUP), "there is no backend of that name, or an argument is malformed"},
	{EINVAL, in(ORBIT_STEP_APPLY), "this is not the update that was received last, or an argument is malformed"},
	{EINVAL, everywhere, "an argument is malformed"},
	{ENAMETOOLONG, everywhere, "the name is too long"},
	{EDEADLK, everywhere, "a signal handler that has interrupted the library called it"},
	{EMFILE, in(ORBIT_STEP_SHARE), "no descriptor left: of the program (RLIMIT_NOFILE), or of the orbit (nr_files)"},
	{EMFILE, everywhere, "the program has no descriptor left (RLIMIT_NOFILE)"},
	{ENFILE, everywhere, "the system has no descriptor left"},
	{ENOMEM, in(ORBIT_STEP_CALL), "no memory for the task or its snapshot (RLIMIT_AS, RLIMIT_DATA, a memory cgroup)"},
	{ENOMEM, in(ORBIT_STEP_POOL, ORBIT_STEP_SHARE), "no memory, or no room in the address window, or RLIMIT_AS, RLIMIT_DATA, or RLIMIT_MEMLOCK after mlockall()"},
	{ENOMEM, making, "no memory for another process or thread (RLIMIT_AS, RLIMIT_DATA, a memory cgroup, vm.overcommit_memory)"},
	{ENOMEM, everywhere, "no memory"},
	{ECHILD, making, "the orbit's process died before it was ready"},
	{EADDRINUSE, in(ORBIT_STEP_CREATE),
	 "a range lies in memory that was mapped at orbit_prepare(), and that malloc() might hand out: name what "
	 "was allocated later"},
	{EADDRINUSE, in(ORBIT_STEP_CALL), "the orbit has something else where a pool belongs"},
	{ENOSYS, making | in(ORBIT_STEP_POOL, ORBIT_STEP_SETUP), "the kernel lacks a system call that this takes, "
								"or a filter hides it"},
	{ENOSYS, everywhere, "this kernel has no orbits"},
	{EPROTONOSUPPORT, everywhere, "the kernel's orbit interface is of another level"},
};

// nullptr if there are none.
const char *words_for(int error, orbit_step step)
{
	for (const Words &words : all_words)
		if (words.error == error && (words.steps & 1U << step))
			return words.text;
	return strerrordesc_np(error);
}

// Where these come from an access, fault_addr says to what.
bool has_address(int signal)
{
	return signal == SIGSEGV || signal == SIGBUS || signal == SIGILL || signal == SIGFPE ||
	       signal == SIGTRAP;
}

int describe_signal(const orbit_outcome *out, const char *before, char *buf, size_t len)
{
	const char *name = sigabbrev_np(out->code);
	char label[32];
	const char *prefix = name ? "SIG" : "";

	std::snprintf(label, sizeof(label), "%s%s", prefix, name ? name : "unnamed");
	if (!has_address(out->code))
		return std::snprintf(buf, len, "%skilled by signal %d (%s)", before, out->code, label);
	return std::snprintf(buf, len, "%skilled by signal %d (%s) at address 0x%llx", before, out->code,
			     label, static_cast<unsigned long long>(out->fault_addr));
}

int describe_cause(const orbit_outcome *out, const char *before, char *buf, size_t len)
{
	const char *what = "ended";

	switch (out->cause) {
	case ORBIT_CAUSE_EXIT:
		if (out->code == ORBIT_EXIT_THREADS)
			return std::snprintf(buf, len,
					     "%sended with exit status %d, as when a task leaves threads running",
					     before, out->code);
		return std::snprintf(buf, len, "%sended itself with exit status %d", before, out->code);
	case ORBIT_CAUSE_SIGNAL:
		return describe_signal(out, before, buf, len);
	case ORBIT_CAUSE_TIMEOUT:
		what = "ran past its time limit and was killed";
		break;
	case ORBIT_CAUSE_MEMORY:
		what = "killed because no memory was left to keep its snapshot";
		break;
	case ORBIT_CAUSE_EXEC:
		what = "replaced its program (exec) and so ceased to be an orbit";
		break;
	case ORBIT_CAUSE_DESTROYED:
		what = "destroyed";
		break;
	case ORBIT_CAUSE_OWNER:
		what = "ended with its main program";
		break;
	case ORBIT_CAUSE_LIMIT:
		what = "used more memory than its limit and was killed";
		break;
	case ORBIT_CAUSE_TEMPLATE:
		if (out->code == EAGAIN)
			what = "no process could be made for it: a limit is reached, of the user (RLIMIT_NPROC) "
			       "or of a cgroup (pids.max)";
		else if (out->code > 0 && out->code != ECHILD && words_for(out->code, ORBIT_STEP_CREATE))
			return std::snprintf(buf, len, "%sno process could be made for it: %s", before,
					     words_for(out->code, ORBIT_STEP_CREATE));
		else
			what = "ended because its template, from which it is restarted, has ended";
		break;
	}
	return std::snprintf(buf, len, "%s%s", before, what);
}

// Where orbits do not work at all, the probe knows why. 0 if it is not that.
int describe_by_probe(int error, orbit_step step, char *buf, std::size_t len)
{
	orbit_probe_info info{};

	if (((step < ORBIT_STEP_CREATE || step > ORBIT_STEP_SETUP) && step != ORBIT_STEP_SHARE) ||
	    (error != ENOSYS && error != EPERM && error != EACCES && error != EPROTONOSUPPORT && error != ENOTSUP))
		return 0;
	info.size = sizeof(info);
	// Not to a signal handler that has interrupted the library.
	if (liborbit::in_orbit || liborbit::probe_here(&info) != -error)
		return 0;
	return std::snprintf(buf, len, "%s %s", info.reason, info.advice);
}

// Of an outcome in which nothing but the error is set nobody knows what returned that.
int describe_unqueued(int error, char *buf, std::size_t len)
{
	const char *const call = words_for(error, ORBIT_STEP_CALL), *const create = words_for(error, ORBIT_STEP_CREATE);

	if (!call || !std::strcmp(call, create))
		return orbit_describe_error(error, ORBIT_STEP_CALL, buf, len);
	return std::snprintf(buf, len, "%s; or, from orbit_create(): %s", call, create);
}

} // namespace

int orbit_describe(const orbit_outcome *out, char *buf, size_t len) noexcept
{
	orbit_outcome known{};

	if (!out || (len && !buf) || liborbit::check_out_size(out))
		return -EINVAL;
	std::memcpy(&known, out, out->size < sizeof(known) ? out->size : sizeof(known));

	switch (-known.error) {
	case 0:
		return std::snprintf(buf, len, "returned %llu",
				     static_cast<unsigned long long>(known.value));
	case ECONNRESET:
		return describe_cause(&known, "", buf, len);
	case ETIMEDOUT:
		known.cause = ORBIT_CAUSE_TIMEOUT;
		return describe_cause(&known, "", buf, len);
	case ECANCELED:
		if (known.cause == ORBIT_CAUSE_NONE)
			return std::snprintf(buf, len, "cancelled");
		if (known.cause == ORBIT_CAUSE_DESTROYED)
			return std::snprintf(buf, len, "cancelled: the orbit's process was ended");
		return describe_cause(&known, "not begun: ", buf, len);
	case ENOMEM:
		if (known.cause != ORBIT_CAUSE_NONE)
			return describe_cause(&known, "", buf, len);
		break;
	case ESHUTDOWN:
		return describe_cause(&known, "the orbit is gone: ", buf, len);
	}
	if (!known.task && known.cause == ORBIT_CAUSE_NONE)
		return describe_unqueued(-known.error, buf, len);
	return orbit_describe_error(known.error, ORBIT_STEP_CALL, buf, len);
}

int orbit_describe_error(int error, orbit_step step, char *buf, size_t len) noexcept
{
	if ((len && !buf) || static_cast<unsigned>(step) > ORBIT_STEP_SCAN)
		return -EINVAL;
	if (error < 0 && error != INT_MIN)
		error = -error;
	if (const int length = describe_by_probe(error, step, buf, len))
		return length;
	if (const char *text = words_for(error, step))
		return std::snprintf(buf, len, "%s", text);
	return std::snprintf(buf, len, "error %d", error);
}
