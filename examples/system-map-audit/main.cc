// SPDX-License-Identifier: MIT
//
// A program that keeps an index of a kernel's symbols, changes it all the time, and
// has an orbit audit it meanwhile: first as it should be, then with bugs in the audit.
//
//	system-map-audit PATH-TO-System.map
//
// Exit status: 0 if everything came out as promised, 1 if not, 2 on wrong usage.
#include "application.h"
#include "audit.h"
#include "report.h"
#include "symbol_index.h"
#include "system_map.h"

#include <orbit/memory.hpp>

#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <stdexcept>
#include <string>
#include <utility>

namespace {

using namespace std::chrono_literals;

constexpr unsigned kWriters = 3;
constexpr auto kPatience = 2s; // for an audit that loops for ever

// Good audits go on until there are enough, or they have taken long enough.
constexpr unsigned kFewAudits = 5, kEnoughAudits = 30;
constexpr auto kLongestShow = 20s;

template <class T> T value_of(orbit::expected<T> &&result, const char *what)
{
	if (!result)
		throw std::runtime_error(std::string(what) + ": " + result.error().message());
	return std::move(*result);
}

orbit::Orbit new_orbit()
{
	return value_of(orbit::Orbit::create({.name = "audit"}), "no orbit can be made");
}

class Demo {
public:
	Demo(const std::string &path, const SystemMap &map)
		: memory_(value_of(orbit::Memory::create(Application::room_for(map), {.name = "symbols"}),
				   "no pool can be made")),
		  index_(memory_.make<SymbolIndex>()), application_(map, index_), orbit_(new_orbit())
	{
		report_.step("The application starts.");
		report_.fact("symbols", "%s, from %s", grouped(map.symbols().size()).c_str(),
			     path.c_str());
		if (map.repeated())
			report_.fact("", "(%s lines repeat another and are left out)",
				     grouped(map.repeated()).c_str());
		report_.fact("index", "in a pool of %s KiB: memory that orbits may see",
			     grouped(memory_.spans().front().size() / 1024).c_str());
		report_.fact("threads", "%u insert, remove and rename symbols all the time", kWriters);
		report_.check(static_cast<bool>(application_.verify()),
			      "the index is complete and in order");
	}

	int run()
	{
		application_.start(kWriters);
		show_good_audits();
		show_crash("The audit has a bug: it writes through a null pointer.",
			   "null pointer", Bug::kNullPointer);
		show_crash("The audit has a bug: it loops for ever.", "endless loop",
			   Bug::kEndlessLoop);
		show_wild_writes();
		application_.stop();

		report_.step("The application ends.");
		report_.check(static_cast<bool>(application_.verify()),
			      "the index holds, symbol for symbol, what the threads put there");
		return report_.summary() ? EXIT_SUCCESS : EXIT_FAILURE;
	}

private:
	// One call. The application's lock is held while the snapshot is taken, so that no
	// change is half made in it; this thread waits for the verdict, the others go on.
	orbit::expected<Verdict> call(Bug bug)
	{
		const orbit::CallOptions options{.time_limit = bug == Bug::kEndlessLoop ? kPatience : 60s};
		auto task = application_.quietly([&] {
			const auto start = std::chrono::steady_clock::now();
			auto queued = orbit_.call_async(options, memory_, audit, index_,
							memory_.spans().front(), bug);

			locked_ = std::chrono::steady_clock::now() - start;
			return queued;
		});

		return task ? task->wait() : tl::unexpected(task.error());
	}

	void show_good_audits()
	{
		report_.step("An orbit audits the index while the threads go on changing it.");
		report_.text("Each audit sees the index frozen at the moment of its call. The threads have to\n"
			     "wait while the snapshot is taken, and not while the audit runs. Its view is gone\n"
			     "when it is done.");
		report_.text("          symbols    changes    pages changed  index locked    changes made\n"
			     "  audit     found     so far   since the last  microseconds  during the audit  verdict");

		const auto start = std::chrono::steady_clock::now();
		const std::uint64_t changes = application_.changes();
		unsigned audits = 0, sound = 0;
		std::uint64_t pages = pages_changed();

		while (audits < kEnoughAudits &&
		       (audits < kFewAudits || std::chrono::steady_clock::now() - start < kLongestShow)) {
			const Verdict verdict = value_of(call(Bug::kNone), "a sound audit failed");
			const std::uint64_t later = application_.changes() - verdict.version;
			const std::uint64_t pages_before = std::exchange(pages, pages_changed());
			const auto locked = std::chrono::duration_cast<std::chrono::microseconds>(locked_);

			audits++;
			sound += !verdict.faults;
			if (audits <= kFewAudits || audits % 10 == 0)
				std::printf("  %5u %9s %10s %16s %13s %17s  %s\n", audits,
					    grouped(verdict.symbols).c_str(),
					    grouped(verdict.version).c_str(),
					    grouped(pages - pages_before).c_str(),
					    grouped(static_cast<std::uint64_t>(locked.count())).c_str(),
					    grouped(later).c_str(),
					    verdict.faults ? "DAMAGED" : "sound");
		}
		std::putchar('\n');
		report_.fact("audits", "%u", audits);

		const std::uint64_t made = application_.changes() - changes;
		const bool unharmed = static_cast<bool>(application_.verify());

		report_.fact("meanwhile", "the threads made %s changes", grouped(made).c_str());
		report_.check(sound == audits, "every audit found count, order and checksum right");
		report_.check(made > 0, "the threads went on");
		report_.check(unharmed, "the application's data are unharmed");
		report_.row("sound audits", "lives on", made, unharmed);
	}

	void show_crash(const char *title, const char *what, Bug bug)
	{
		report_.step(title);

		const std::uint64_t changes = application_.changes();
		const auto verdict = call(bug);
		const std::string message = verdict ? "a verdict, as if nothing had happened"
						    : verdict.error().message();
		bool as_promised = false;

		if (!verdict && bug == Bug::kNullPointer)
			as_promised = verdict.error().code() == ECONNRESET &&
				      verdict.error().signal() == SIGSEGV &&
				      verdict.error().fault_address() == 0;
		else if (!verdict && bug == Bug::kEndlessLoop)
			as_promised = verdict.error().code() == ETIMEDOUT;

		report_.fact("the call says", "%s", message.c_str());
		report_.check(as_promised, "that is what happened, and only the orbit died of it");
		orbit_ = new_orbit();
		aftermath(what, verdict ? "lives on" : "killed; a new one made", changes, "a new orbit");
	}

	void show_wild_writes()
	{
		report_.step("The audit has a bug: it overwrites all it can see of the index.");

		const std::uint64_t changes = application_.changes();
		const Verdict verdict = value_of(call(Bug::kWildWrites), "the call failed");

		report_.fact("overwritten", "%s KiB, the whole pool, in the orbit's own view",
			     grouped(memory_.spans().front().size() / 1024).c_str());
		report_.check(verdict.faults != 0, "the orbit's own view of the index is destroyed");
		aftermath("wild writes", "lives on", changes, "the same orbit, shown a fresh view,");
	}

	// What every bug ends with: the application is as well as before, and goes on.
	void aftermath(const char *what, const char *orbit, std::uint64_t changes_before,
		       const char *who)
	{
		const Application::Health health = application_.verify();
		const bool unharmed = static_cast<bool>(health);
		const auto verdict = call(Bug::kNone);
		const std::uint64_t made = application_.changes() - changes_before;

		report_.fact("meanwhile", "the threads made %s changes", grouped(made).c_str());
		report_.fact("own data", "%s symbols looked at, one by one",
			     grouped(health.report.symbols).c_str());
		report_.check(made > 0, "the threads went on");
		report_.check(unharmed, "the application's data are unharmed");
		report_.check(verdict && !verdict->faults,
			      (std::string(who) + " audits the index and finds it right").c_str());
		report_.row(what, orbit, made, unharmed);
	}

	// Found changed by the calls so far, each since the call before it.
	std::uint64_t pages_changed() const
	{
		return value_of(orbit_.stat(), "no statistics").pages_protected;
	}

	Report report_;
	orbit::Memory memory_;
	SymbolIndex *index_;
	Application application_;
	orbit::Orbit orbit_;
	std::chrono::nanoseconds locked_{}; // for the last call
};

} // namespace

int main(int argc, char **argv)
{
	if (argc != 2) {
		std::fprintf(stderr, "usage: %s PATH-TO-System.map\n", argv[0]);
		return 2;
	}
	std::setvbuf(stdout, nullptr, _IOLBF, 0);
	try {
		std::puts("An orbit is an address space of its own for a program's maintenance tasks. Each\n"
			  "call shows it the program's data as they are at that moment; whatever goes wrong\n"
			  "in it stays in it. This program has an orbit audit its data, and then makes the\n"
			  "audit go wrong.");
		if (const auto probe = orbit::probe(); !probe) {
			std::printf("\nThis cannot be shown here: %s\n%s\n", probe.reason, probe.advice);
			return EXIT_FAILURE;
		}

		const SystemMap map(argv[1]);

		return Demo(argv[1], map).run();
	} catch (const std::exception &error) {
		std::fflush(stdout);
		std::fprintf(stderr, "system-map-audit: %s\n", error.what());
		return EXIT_FAILURE;
	}
}
