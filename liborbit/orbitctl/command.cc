// SPDX-License-Identifier: MIT
#include "command.h"
#include "show.h"

#include <orbit/orbit.h>

#include <cerrno>
#include <charconv>
#include <cstring>
#include <ostream>

namespace orbitctl {

namespace {

constexpr char usage[] =
	"orbitctl probe                      say whether orbits work here, and if not, why\n"
	"orbitctl list [--json] [PID]        orbits, pools, tasks and domains of a process, or of all\n"
	"orbitctl top [-d SECONDS] [-n ROUNDS] [PID]\n"
	"                                    watch them; q ends it\n"
	"orbitctl --help, --version\n";

// ---- Arguments ------------------------------------------------------------------------

struct Arguments {
	bool json = false;
	TopOptions top; // pid is for list too
};

template <class T> bool parse(const std::string &text, T *number)
{
	const char *end = text.data() + text.size();
	const auto [behind, error] = std::from_chars(text.data(), end, *number);

	return error == std::errc() && behind == end;
}

// A sentence about what is wrong; empty if nothing is.
std::string read_arguments(const std::vector<std::string> &given, Arguments *arguments)
{
	const bool top = given[0] == "top";

	for (std::size_t i = 1; i < given.size(); i++) {
		const std::string &word = given[i];
		const bool last = i + 1 == given.size();

		if (word == "--json" && given[0] == "list") {
			arguments->json = true;
		} else if (word == "-d" && top) {
			if (last || !parse(given[++i], &arguments->top.seconds) ||
			    !(arguments->top.seconds >= 0.1 && arguments->top.seconds <= 86400))
				return "-d takes seconds, from 0.1 to 86400";
		} else if (word == "-n" && top) {
			if (last || !parse(given[++i], &arguments->top.rounds) || !arguments->top.rounds)
				return "-n takes a number of rounds";
		} else if (word.starts_with("-") || given[0] == "probe") {
			return "\"" + printable(word) + "\" is not understood";
		} else if (arguments->top.pid) {
			return "only one process can be named";
		} else if (!parse(word, &arguments->top.pid) || arguments->top.pid <= 0) {
			return "\"" + printable(word) + "\" is no process's number";
		}
	}
	return {};
}

// ---- probe ------------------------------------------------------------------------------

int probe(std::ostream &out)
{
	bool works = false;

	for (std::size_t i = 0;; i++) {
		orbit_probe_info info{};

		info.size = sizeof(info);

		const int err = orbit_probe_backend(i, &info);

		if (err == -ENOENT)
			break;
		out << info.backend << ": " << (err ? "does not work" : "works") << "\n  " << info.reason << '\n';
		if (err)
			out << "  " << info.advice << '\n';
		else
			out << "  interface " << info.abi << "; a call takes " << info.max_pools << " pools and "
			    << info.max_arg << " argument bytes at most\n";
		works = works || !err;
	}
	out << (works ? "Orbits work here.\n" : "Orbits do not work here.\n");
	return works ? 0 : 1;
}

// ---- list -------------------------------------------------------------------------------

int list(const Processes &processes, const Arguments &arguments, std::ostream &out, std::ostream &err)
{
	std::vector<Process> all;
	std::size_t others = 0;

	if (const int pid = arguments.top.pid) {
		Process process;

		if (const int error = processes.read(pid, &process)) {
			err << "orbitctl: process " << pid << ": " << std::strerror(error) << '\n';
			return 1;
		}
		all.push_back(std::move(process));
	} else {
		all = processes.read_all(&others);
	}
	if (arguments.json) {
		print_json(out, all, others);
		return 0;
	}
	for (std::size_t i = 0; i < all.size(); i++) {
		out << (i ? "\n" : "");
		print_text(out, all[i]);
	}
	if (all.empty())
		out << "no process that may be looked into has orbits or domains\n";
	if (others)
		err << "orbitctl: " << not_permitted(others) << "; try as root\n";
	return 0;
}

} // namespace

int run(const std::vector<std::string> &given, std::ostream &out, std::ostream &err,
	const std::filesystem::path &proc)
{
	const std::string command = given.empty() ? "" : given[0];
	const Processes processes(proc);
	Arguments arguments;

	if (command == "--help" || command == "-h") {
		out << usage;
		return 0;
	}
	if (command == "--version") {
		out << "orbitctl " ORBITCTL_VERSION "\n";
		return 0;
	}
	if (command != "probe" && command != "list" && command != "top") {
		err << usage;
		return 2;
	}
	if (const std::string wrong = read_arguments(given, &arguments); !wrong.empty()) {
		err << "orbitctl: " << wrong << '\n' << usage;
		return 2;
	}
	if (command == "probe")
		return probe(out);
	if (command == "list")
		return list(processes, arguments, out, err);
	return top(processes, arguments.top, out, err);
}

} // namespace orbitctl
