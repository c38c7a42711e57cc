// SPDX-License-Identifier: MIT
#include "internal.h"

#include <csignal>
#include <cstdio>
#include <cstring>

namespace {

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
		else if (out->code > 0 && out->code != ECHILD && strerrordesc_np(out->code))
			return std::snprintf(buf, len, "%sno process could be made for it: %s", before,
					     strerrordesc_np(out->code));
		else
			what = "ended because its template, from which it is restarted, has ended";
		break;
	}
	return std::snprintf(buf, len, "%s%s", before, what);
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
	case EAGAIN:
		return std::snprintf(buf, len, "the orbit's queue is full");
	case EEXIST:
		return std::snprintf(buf, len, "skipped: such a task waits already");
	case ETIME:
		return std::snprintf(buf, len, "not ended by the deadline");
	case EACCES:
		return std::snprintf(buf, len, "refused: aimed at what is not declared, or filtered");
	case ESHUTDOWN:
		return describe_cause(&known, "the orbit is gone: ", buf, len);
	case EADDRINUSE:
		return std::snprintf(buf, len, "the orbit has something else where a pool belongs");
	case ENOSYS:
		return std::snprintf(buf, len, "this kernel has no orbits");
	case EPROTONOSUPPORT:
		return std::snprintf(buf, len, "the kernel's orbit interface is of another level");
	case ECHILD:
		return std::snprintf(buf, len, "the orbit's process died before it was ready");
	}

	const char *text = strerrordesc_np(-known.error);

	if (text)
		return std::snprintf(buf, len, "%s", text);
	return std::snprintf(buf, len, "error %d", known.error);
}
