// SPDX-License-Identifier: MIT
#include "show.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <ostream>

namespace orbitctl {

namespace {

using Json = nlohmann::ordered_json;

// How long a UTF-8 sequence at the front is; 0 if there is none.
std::size_t sequence(std::string_view text)
{
	const auto first = static_cast<unsigned char>(text.front());
	const std::size_t length = first < 0x80 ? 1 : first >= 0xc2 && first < 0xe0 ? 2 :
							first >= 0xe0 && first < 0xf0 ? 3 :
							first >= 0xf0 && first < 0xf5 ? 4 : 0;

	if (length > text.size())
		return 0;
	for (std::size_t i = 1; i < length; i++)
		if ((static_cast<unsigned char>(text[i]) & 0xc0) != 0x80)
			return 0;
	return length;
}

// How many columns it takes, near enough: one for each character.
std::size_t columns(std::string_view text)
{
	return static_cast<std::size_t>(std::count_if(
		text.begin(), text.end(), [](char c) { return (static_cast<unsigned char>(c) & 0xc0) != 0x80; }));
}

std::string cut(std::string text, std::size_t width)
{
	while (columns(text) > width) {
		while ((static_cast<unsigned char>(text.back()) & 0xc0) == 0x80)
			text.pop_back();
		text.pop_back();
	}
	return text;
}

std::string show(const std::optional<std::string> &word)
{
	return word ? printable(*word) : "-";
}

std::string show_address(const Number &address)
{
	char text[32];

	if (!address)
		return "-";
	if (!*address)
		return "not mapped";
	std::snprintf(text, sizeof(text), "%#llx", static_cast<unsigned long long>(*address));
	return text;
}

Json to_json(const Number &number)
{
	return number ? Json(*number) : Json();
}

Json to_json_signed(const Number &number)
{
	return number ? Json(static_cast<std::int64_t>(*number)) : Json();
}

Json to_json(const std::optional<std::string> &word)
{
	return word ? Json(*word) : Json();
}

Json to_json(const Held<Orbit> &held)
{
	const Orbit &orbit = held.object;
	const std::string end = describe_end(orbit);
	Json last_end;

	if (!end.empty())
		last_end = {{"text", end},
			    {"cause", to_json(orbit.cause)},
			    {"code", to_json_signed(orbit.code)},
			    {"fault_address", to_json(orbit.fault_address)},
			    {"task", to_json(orbit.last_task)}};
	return {{"fd", held.fd},
		{"name", orbit.name},
		{"pid", to_json(orbit.pid)},
		{"state", to_json(orbit.state)},
		{"queued", to_json(orbit.queued)},
		{"queue_limit", to_json(orbit.queue_limit)},
		{"calls", to_json(orbit.calls)},
		{"completed", to_json(orbit.completed)},
		{"failed", to_json(orbit.failed)},
		{"cancelled", to_json(orbit.cancelled)},
		{"skipped", to_json(orbit.skipped)},
		{"updates", to_json(orbit.updates)},
		{"pages_protected", to_json(orbit.pages_protected)},
		{"pages_preserved", to_json(orbit.pages_preserved)},
		{"pages_copied", to_json(orbit.pages_copied)},
		{"pages_moved", to_json(orbit.pages_moved)},
		{"restart", to_json(orbit.restart)},
		{"restarts", to_json(orbit.restarts)},
		{"template_pid", to_json(orbit.template_pid)},
		{"memory_limit", to_json(orbit.memory_limit)},
		{"cpu_limit", to_json(orbit.cpu_limit)},
		{"last_end", last_end}};
}

Json to_json(const Held<Pool> &held)
{
	const Pool &pool = held.object;

	return {{"fd", held.fd},
		{"name", pool.name},
		{"size", to_json(pool.size)},
		{"address", to_json(pool.address)},
		{"snapshots", to_json(pool.snapshots)}};
}

Json to_json(const Held<Task> &held)
{
	const Task &task = held.object;

	return {{"fd", held.fd},
		{"orbit", task.orbit},
		{"task", to_json(task.number)},
		{"state", to_json(task.state)},
		{"updates", to_json(task.updates)},
		{"update_bytes", to_json(task.update_bytes)}};
}

Json to_json(const Domain &domain)
{
	return {{"name", domain.name},
		{"state", domain.state},
		{"via", domain.via},
		{"pid", to_json(domain.pid)},
		{"starts", to_json(domain.starts)},
		{"calls", to_json(domain.calls)},
		{"failed", to_json(domain.failed)},
		{"owned", to_json(domain.owned)},
		{"lent", to_json(domain.lent)},
		{"last_end", domain.last_end.empty() ? Json() : Json(domain.last_end)},
		{"device", domain.device.empty() ? Json() : Json(domain.device)},
		{"silenced", to_json(domain.silenced)},
		{"queues", to_json(domain.queues)},
		{"requests", to_json(domain.requests)},
		{"errors", to_json(domain.errors)}};
}

template <class T> Json to_json(const std::vector<T> &all)
{
	Json array = Json::array();

	for (const T &each : all)
		array.push_back(to_json(each));
	return array;
}

} // namespace

void Table::print(std::ostream &out, std::string_view alignment, std::size_t width) const
{
	std::vector<std::size_t> widths;

	for (const std::vector<std::string> &line : lines_) {
		widths.resize(std::max(widths.size(), line.size()));
		for (std::size_t i = 0; i < line.size(); i++)
			widths[i] = std::max(widths[i], columns(line[i]));
	}
	for (const std::vector<std::string> &line : lines_) {
		std::string text;

		for (std::size_t i = 0; i < line.size(); i++) {
			const std::string space(widths[i] - columns(line[i]), ' ');
			const bool right = i < alignment.size() && alignment[i] == 'r';

			text += i ? "  " : "";
			text += right ? space + line[i] : line[i] + space;
		}
		while (!text.empty() && text.back() == ' ')
			text.pop_back();
		out << cut(text, width) << '\n';
	}
}

std::string printable(std::string_view text)
{
	std::string clean;

	while (!text.empty()) {
		const std::size_t length = sequence(text);
		const auto first = static_cast<unsigned char>(text.front());
		// In UTF-8 the control characters from 0x80 on are these.
		const bool control = first < 0x20 || first == 0x7f ||
				     (first == 0xc2 && length == 2 && static_cast<unsigned char>(text[1]) < 0xa0);

		if (!length || control)
			clean += '?';
		else
			clean += text.substr(0, length);
		text.remove_prefix(length ? length : 1);
	}
	return clean;
}

std::string name_or_dash(const std::string &name)
{
	return name.empty() ? "-" : printable(name);
}

std::string show(const Number &number)
{
	return number ? std::to_string(*number) : "-";
}

std::string show_bytes(const Number &number)
{
	static const char units[] = "KMGTPE";

	if (!number)
		return "-";

	std::uint64_t bytes = *number;
	int unit = -1;

	while (bytes >= 10240) {
		bytes /= 1024;
		unit++;
	}
	return std::to_string(bytes) + (unit < 0 ? "" : std::string(1, units[unit]));
}

std::string not_permitted(std::size_t processes)
{
	return std::to_string(processes) + (processes == 1 ? " process" : " processes") +
	       " may not be looked into";
}

void print_text(std::ostream &out, const Process &process)
{
	Table orbits({"ORBIT", "PID", "STATE", "QUEUED", "CALLS", "DONE", "FAILED", "RESTARTS", "PROTECTED",
		      "KEPT", "COPIED", "MOVED"});
	Table pools({"POOL", "SIZE", "ADDRESS", "SNAPSHOTS"});
	Table tasks({"TASK", "OF", "STATE", "UPDATES", "BYTES"});
	Table domains({"DOMAIN", "PID", "STATE", "VIA", "STARTS", "CALLS", "FAILED", "OWNS", "LENDS"});

	for (const auto &[fd, orbit] : process.orbits)
		orbits.add({name_or_dash(orbit.name), show(orbit.pid), show(orbit.state),
			    show(orbit.queued) + "/" + show(orbit.queue_limit), show(orbit.calls),
			    show(orbit.completed), show(orbit.failed), show(orbit.restarts),
			    show(orbit.pages_protected), show(orbit.pages_preserved),
			    show(orbit.pages_copied), show(orbit.pages_moved)});
	for (const auto &[fd, pool] : process.pools)
		pools.add({name_or_dash(pool.name), show_bytes(pool.size), show_address(pool.address),
			   show(pool.snapshots)});
	for (const auto &[fd, task] : process.tasks)
		tasks.add({show(task.number), name_or_dash(task.orbit), show(task.state),
			   show(task.updates), show(task.update_bytes)});
	for (const Domain &domain : process.domains)
		domains.add({name_or_dash(domain.name), show(domain.pid), domain.state, domain.via, show(domain.starts),
			     show(domain.calls), show(domain.failed), show(domain.owned), show(domain.lent)});

	out << "process " << process.pid << " (" << printable(process.name) << ")\n";
	if (process.empty())
		out << "no orbits, pools, tasks or domains\n";
	if (process.portable)
		out << "by the portable backend, of which the kernel does not tell more\n";
	if (orbits.size())
		orbits.print(out, "lrlrrrrrrrrr");
	for (const auto &[fd, orbit] : process.orbits)
		if (const std::string end = describe_end(orbit); !end.empty())
			out << name_or_dash(orbit.name) << ": last end: " << printable(end) << '\n';
	if (pools.size())
		pools.print(out, "lrlr");
	if (tasks.size())
		tasks.print(out, "rllrr");
	if (domains.size())
		domains.print(out, "lrllrrrrr");
	for (const Domain &domain : process.domains) {
		if (domain.device.empty())
			continue;
		out << name_or_dash(domain.name) << ": drives " << printable(domain.device) << ", silenced " << show(domain.silenced) << " times\n";
		if (domain.queues)
			out << name_or_dash(domain.name) << ": its driver says: " << *domain.queues << (*domain.queues == 1 ? " queue, " : " queues, ")
			    << show(domain.requests) << " requests, " << show(domain.errors) << " errors\n";
	}
	for (const Domain &domain : process.domains)
		if (!domain.last_end.empty())
			out << name_or_dash(domain.name) << ": last end: " << printable(domain.last_end) << '\n';
}

void print_json(std::ostream &out, const std::vector<Process> &processes, std::size_t others)
{
	Json array = Json::array();

	for (const Process &process : processes)
		array.push_back({{"pid", process.pid},
				 {"name", process.name},
				 {"backend", process.empty() ? Json() : Json(process.portable ? "portable" : "kernel")},
				 {"orbits", to_json(process.orbits)},
				 {"pools", to_json(process.pools)},
				 {"tasks", to_json(process.tasks)},
				 {"domains", to_json(process.domains)}});

	const Json all = {{"processes", array}, {"not_permitted", others}};

	// Names may hold any bytes.
	out << all.dump(2, ' ', false, Json::error_handler_t::replace) << '\n';
}

} // namespace orbitctl
