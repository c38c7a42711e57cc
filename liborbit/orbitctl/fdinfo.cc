// SPDX-License-Identifier: MIT
#include "fdinfo.h"

#include <orbit/orbit.h>

#include <cerrno>
#include <charconv>
#include <map>

namespace orbitctl {

namespace {

Number to_number(std::string_view text)
{
	const bool hex = text.starts_with("0x");
	const bool negative = text.starts_with("-");
	std::uint64_t number = 0;

	if (hex || negative)
		text.remove_prefix(hex ? 2 : 1);

	const char *end = text.data() + text.size();
	const auto [behind, error] = std::from_chars(text.data(), end, number, hex ? 16 : 10);

	if (error != std::errc() || behind != end)
		return {};
	return negative ? -number : number;
}

// The text of one descriptor: its name, and the fields behind that.
class Text {
public:
	// begin is the key of the name, next that of the line which follows the name. The name may
	// hold such a line too, so it is the last one.
	Text(std::string_view text, std::string_view begin, std::string_view next)
	{
		const std::string key = std::string(begin) + ":\t";
		const std::string behind = "\n" + std::string(next) + ":\t";
		std::size_t start = text.starts_with(key) ? 0 : text.find("\n" + key);

		if (start == std::string_view::npos)
			return;
		start += text.starts_with(key) ? key.size() : key.size() + 1;

		const std::size_t end = text.rfind(behind);

		if (end == std::string_view::npos || end < start)
			return;
		found_ = true;
		name_ = text.substr(start, end - start);
		for (text.remove_prefix(end + 1); !text.empty();) {
			const std::string_view line = text.substr(0, text.find('\n'));
			const std::size_t colon = line.find(":\t");

			text.remove_prefix(line.size() < text.size() ? line.size() + 1 : text.size());
			if (colon != std::string_view::npos)
				fields_[line.substr(0, colon)] = line.substr(colon + 2);
		}
	}
	explicit operator bool() const { return found_; }
	std::string name() const { return std::string(name_); }
	Number number(std::string_view key) const
	{
		const auto field = fields_.find(key);

		return field == fields_.end() ? Number() : to_number(field->second);
	}
	std::optional<std::string> word(std::string_view key) const
	{
		const auto field = fields_.find(key);

		return field == fields_.end() ? std::nullopt : std::optional(std::string(field->second));
	}

private:
	bool found_ = false;
	std::string_view name_;
	std::map<std::string_view, std::string_view> fields_;
};

Object parse_orbit(std::string_view text)
{
	const Text fields(text, "orbit", "state");
	Orbit orbit;

	if (!fields)
		return {};
	orbit.name = fields.name();
	orbit.state = fields.word("state");
	orbit.pid = fields.number("pid");
	orbit.cause = fields.number("cause");
	orbit.code = fields.number("code");
	orbit.fault_address = fields.number("fault-address");
	orbit.queued = fields.number("queued");
	orbit.queue_limit = fields.number("queue-limit");
	orbit.calls = fields.number("calls");
	orbit.completed = fields.number("completed");
	orbit.failed = fields.number("failed");
	orbit.cancelled = fields.number("cancelled");
	orbit.skipped = fields.number("skipped");
	orbit.updates = fields.number("updates");
	orbit.pages_protected = fields.number("pages-protected");
	orbit.pages_preserved = fields.number("pages-preserved");
	orbit.pages_copied = fields.number("pages-copied");
	orbit.pages_moved = fields.number("pages-moved");
	orbit.restart = fields.number("restart");
	orbit.restarts = fields.number("restarts");
	orbit.last_task = fields.number("last-task");
	orbit.template_pid = fields.number("template");
	orbit.memory_limit = fields.number("memory-limit");
	orbit.cpu_limit = fields.number("cpu-limit");
	return orbit;
}

Object parse_pool(std::string_view text)
{
	const Text fields(text, "orbit-pool", "size");

	if (!fields)
		return {};
	return Pool{fields.name(), fields.number("size"), fields.number("address"),
		    fields.number("snapshots")};
}

Object parse_task(std::string_view text)
{
	const Text fields(text, "orbit", "task");

	if (!fields)
		return {};
	return Task{fields.name(), fields.number("task"), fields.word("state"), fields.number("updates"),
		    fields.number("update-bytes")};
}

} // namespace

Object parse_fdinfo(std::string_view link, std::string_view text)
{
	if (link == "anon_inode:[orbit]")
		return parse_orbit(text);
	if (link == "anon_inode:[orbit-pool]")
		return parse_pool(text);
	if (link == "anon_inode:[orbit-task]")
		return parse_task(text);
	return {};
}

std::string describe_end(const Orbit &orbit)
{
	orbit_outcome outcome{};
	char text[160];

	if (!orbit.cause.value_or(ORBIT_CAUSE_NONE))
		return {};
	outcome.size = sizeof(outcome);
	outcome.error = -ECONNRESET;
	outcome.cause = static_cast<std::uint32_t>(*orbit.cause);
	outcome.code = static_cast<std::int32_t>(orbit.code.value_or(0));
	outcome.fault_addr = orbit.fault_address.value_or(0);
	if (orbit_describe(&outcome, text, sizeof(text)) < 0)
		return {};

	std::string end = text;

	if (orbit.last_task.value_or(0))
		end += ", in task " + std::to_string(*orbit.last_task);
	return end;
}

} // namespace orbitctl
