// SPDX-License-Identifier: MIT
//
// orbitctl top. On a terminal the screen is drawn anew in each round; elsewhere the rounds
// follow one another.
#include "command.h"
#include "show.h"

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <ctime>
#include <map>
#include <poll.h>
#include <sstream>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>

namespace orbitctl {

namespace {

using Clock = std::chrono::steady_clock;

// Ends the wait, whoever asks.
volatile std::sig_atomic_t stopped;

void stop(int)
{
	stopped = 1;
}

// SIGINT and SIGTERM end the rounds, not the program. A window that changes its size ends the
// wait between them. They come only during the wait, so none is missed just before it.
class Signals {
public:
	Signals()
	{
		struct sigaction action {};
		sigset_t blocked;

		stopped = 0;
		sigemptyset(&blocked);
		for (const int signal : {SIGINT, SIGTERM, SIGWINCH})
			sigaddset(&blocked, signal);
		sigprocmask(SIG_BLOCK, &blocked, &mask_);
		action.sa_handler = stop;
		sigaction(SIGINT, &action, &interrupt_);
		sigaction(SIGTERM, &action, &terminate_);
		action.sa_handler = [](int) {};
		sigaction(SIGWINCH, &action, &window_);
	}
	Signals(const Signals &) = delete;
	~Signals()
	{
		sigaction(SIGINT, &interrupt_, nullptr);
		sigaction(SIGTERM, &terminate_, nullptr);
		sigaction(SIGWINCH, &window_, nullptr);
		sigprocmask(SIG_SETMASK, &mask_, nullptr);
	}
	const sigset_t &while_waiting() const { return mask_; }

private:
	sigset_t mask_;
	struct sigaction interrupt_, terminate_, window_;
};

// Keys come at once and are not shown; another screen, for the old one to come back.
class Screen {
public:
	Screen(bool wanted, std::ostream &out) : out_(out)
	{
		termios raw;

		on_ = wanted && !tcgetattr(STDIN_FILENO, &before_);
		if (!on_)
			return;
		raw = before_;
		raw.c_lflag &= ~static_cast<tcflag_t>(ICANON | ECHO);
		tcsetattr(STDIN_FILENO, TCSANOW, &raw);
		out_ << "\033[?1049h\033[?25l";
	}
	Screen(const Screen &) = delete;
	~Screen()
	{
		if (!on_)
			return;
		out_ << "\033[?25h\033[?1049l" << std::flush;
		tcsetattr(STDIN_FILENO, TCSANOW, &before_);
	}
	bool on() const { return on_; }

private:
	std::ostream &out_;
	bool on_;
	termios before_;
};

struct Before {
	Number calls, pid, requests;
	std::optional<Load> load;
};

// What the last round saw, by main program and descriptor, and of domains by main program and place in its list.
struct Memory {
	std::map<std::pair<int, int>, Before> orbits, domains;
};

std::string show_rate(const Number &now, const Number &before, double seconds)
{
	char text[32];

	if (!now || !before || *now < *before || seconds <= 0)
		return "-";
	std::snprintf(text, sizeof(text), "%.1f", static_cast<double>(*now - *before) / seconds);
	return text;
}

std::string show_cpu(const std::optional<Load> &now, const std::optional<Load> &before, double seconds)
{
	static const auto ticks = static_cast<double>(sysconf(_SC_CLK_TCK));
	char text[32];

	if (!now || !before || now->cpu_ticks < before->cpu_ticks || seconds <= 0)
		return "-";
	std::snprintf(text, sizeof(text), "%.0f",
		      100 * static_cast<double>(now->cpu_ticks - before->cpu_ticks) / ticks / seconds);
	return text;
}

std::string time_of_day()
{
	const std::time_t now = std::time(nullptr);
	char text[16];
	std::tm local;

	localtime_r(&now, &local);
	std::strftime(text, sizeof(text), "%H:%M:%S", &local);
	return text;
}

// The second table, and that of the devices that domains drive; nothing if there are no domains.
std::string draw_domains(const Processes &processes, const std::vector<Process> &all, double seconds, std::size_t width,
			 Memory *memory)
{
	std::ostringstream out;
	std::map<std::pair<int, int>, Before> now;
	Table table({"MAIN", "PROGRAM", "DOMAIN", "PID", "STATE", "CALLS/S", "CALLS", "FAILED", "STARTS", "OWNS", "LENDS",
		     "CPU%", "MEMORY", "LAST END"});
	Table devices({"MAIN", "DOMAIN", "DEVICE", "QUEUES", "IO/S", "REQUESTS", "ERRORS", "RESETS"});

	for (const Process &process : all)
		for (std::size_t i = 0; i < process.domains.size(); i++) {
			const Domain &domain = process.domains[i];
			const std::pair key{process.pid, static_cast<int>(i)};
			const Before &before = memory->domains[key];
			const std::optional<Load> load = processes.load(domain.pid.value_or(0));

			table.add({std::to_string(process.pid), printable(process.name),
				   name_or_dash(domain.name), show(domain.pid), domain.state,
				   show_rate(domain.calls, before.calls, seconds), show(domain.calls), show(domain.failed),
				   show(domain.starts), show(domain.owned), show(domain.lent),
				   show_cpu(load, before.pid == domain.pid ? before.load : std::nullopt, seconds),
				   load ? show_bytes(load->resident) : "-", printable(domain.last_end)});
			if (!domain.device.empty())
				devices.add({std::to_string(process.pid), name_or_dash(domain.name), printable(domain.device),
					     show(domain.queues), show_rate(domain.requests, before.requests, seconds),
					     show(domain.requests), show(domain.errors), show(domain.silenced)});
			now[key] = {domain.calls, domain.pid, domain.requests, load};
		}
	memory->domains = std::move(now);
	if (table.size()) {
		out << '\n';
		table.print(out, "rllrlrrrrrrrrl", width);
	}
	if (devices.size()) {
		out << '\n';
		devices.print(out, "rllrrrrr", width);
	}
	return out.str();
}

// One round; seconds since the last one, 0 for the first.
std::string draw(const Processes &processes, const std::vector<Process> &all, std::size_t others,
		 double seconds, std::size_t width, Memory *memory)
{
	struct Row {
		const Process *process;
		const Held<Orbit> *held;
	};
	std::ostringstream out;
	std::vector<Row> rows;
	std::map<std::pair<int, int>, Before> now;
	Table table({"MAIN", "PROGRAM", "ORBIT", "PID", "STATE", "QUEUED", "CALLS/S", "CALLS", "FAILED",
		     "RESTARTS", "CPU%", "MEMORY", "LAST END"});

	for (const Process &process : all)
		for (const Held<Orbit> &held : process.orbits)
			rows.push_back({&process, &held});
	// Where something waits comes first.
	std::stable_sort(rows.begin(), rows.end(), [](const Row &a, const Row &b) {
		return a.held->object.queued.value_or(0) > b.held->object.queued.value_or(0);
	});
	for (const auto &[process, held] : rows) {
		const Orbit &orbit = held->object;
		const std::pair key{process->pid, held->fd};
		const Before &before = memory->orbits[key];
		const std::optional<Load> load = processes.load(orbit.pid.value_or(0));
		const bool same_process = before.pid == orbit.pid;

		table.add({std::to_string(process->pid), printable(process->name),
			   name_or_dash(orbit.name), show(orbit.pid),
			   orbit.state ? printable(*orbit.state) : "-", show(orbit.queued),
			   show_rate(orbit.calls, before.calls, seconds), show(orbit.calls),
			   show(orbit.failed), show(orbit.restarts),
			   show_cpu(load, same_process ? before.load : std::nullopt, seconds),
			   load ? show_bytes(load->resident) : "-", printable(describe_end(orbit))});
		now[key] = {orbit.calls, orbit.pid, {}, load};
	}
	memory->orbits = std::move(now);

	out << "orbitctl top  " << time_of_day() << "  " << rows.size()
	    << (rows.size() == 1 ? " orbit" : " orbits");
	if (others)
		out << ", " << not_permitted(others);
	out << '\n';
	table.print(out, "rllrlrrrrrrrl", width);
	out << draw_domains(processes, all, seconds, width, memory);
	return out.str();
}

// false: a key or a signal has asked for the end.
bool wait(std::chrono::nanoseconds time, bool keys, const Signals &signals)
{
	const auto until = Clock::now() + time;

	while (!stopped) {
		const std::chrono::nanoseconds left = until - Clock::now();
		pollfd fd = {keys ? STDIN_FILENO : -1, POLLIN, 0};
		char key = 0;

		if (left.count() <= 0)
			return true;

		const timespec timeout = {left.count() / 1'000'000'000, left.count() % 1'000'000'000};
		const int ready = ppoll(&fd, 1, &timeout, &signals.while_waiting());

		if (ready < 0 && !stopped)
			return errno == EINTR; // the window has changed
		if (ready <= 0)
			continue;
		if (::read(STDIN_FILENO, &key, 1) != 1 || key == 'q' || key == 'Q')
			return false;
		if (key == ' ')
			return true;
	}
	return false;
}

} // namespace

int top(const Processes &processes, const TopOptions &options, std::ostream &out, std::ostream &err)
{
	const Signals signals;
	const bool terminal = isatty(STDIN_FILENO) && isatty(STDOUT_FILENO);
	int status = 0;
	Memory memory;
	Clock::time_point last{};
	std::string problem;
	{
		const Screen screen(terminal, out);

		for (std::uint64_t round = 1; !stopped; round++) {
			std::vector<Process> all;
			std::size_t others = 0, width = SIZE_MAX, height = SIZE_MAX;
			winsize window{};

			if (options.pid) {
				Process process;

				if (const int error = processes.read(options.pid, &process)) {
					problem = std::strerror(error);
					status = 1;
					break;
				}
				all.push_back(std::move(process));
			} else {
				all = processes.read_all(&others);
			}
			if (screen.on() && !ioctl(STDOUT_FILENO, TIOCGWINSZ, &window) && window.ws_col) {
				width = window.ws_col;
				height = window.ws_row;
			}

			const auto now = Clock::now();
			const double seconds = round == 1 ? 0 : std::chrono::duration<double>(now - last).count();
			std::istringstream lines(draw(processes, all, others, seconds, width, &memory));
			std::string line;

			last = now;
			if (screen.on())
				out << "\033[H";
			else if (round > 1)
				out << '\n';
			for (std::size_t i = 1; i < height && std::getline(lines, line); i++)
				out << line << (screen.on() ? "\033[K\n" : "\n");
			if (screen.on())
				out << "\033[J";
			out.flush();
			if (!out) // whoever read it has gone
				break;
			if (round == options.rounds ||
			    !wait(std::chrono::nanoseconds(static_cast<long>(options.seconds * 1e9)), screen.on(),
				  signals))
				break;
		}
	}
	if (!problem.empty())
		err << "orbitctl: process " << options.pid << ": " << problem << '\n';
	return status;
}

} // namespace orbitctl
