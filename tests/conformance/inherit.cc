// SPDX-License-Identifier: MIT
//
// Orbits that inherit the minimum: code, global variables and named ranges. Neither their
// creation nor what they hold grows with the main program's memory.
#include "orbit_test.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <dirent.h>
#include <dlfcn.h>
#include <fcntl.h>
#include <fstream>
#include <iostream>
#include <sstream>
#include <string>
#include <sys/mman.h>
#include <sys/stat.h>
#include <vector>

namespace {

constexpr orbit::Inherit minimal = orbit::Inherit::minimal;

int a_global = 1;
int zeroed_global;
char big_global[300'000];
int *into_the_heap;
int fork_handlers_run;

// A main program that prepares early; its body throws or returns 0.
template <class F> void expect_main(F body)
{
	OtherMain main([&] {
		if (const auto prepared = orbit::prepare(); !prepared)
			throw std::runtime_error("prepare: " + prepared.error().message());
		return body();
	});

	EXPECT_EQ(main.wait(), 0);
}

void require(bool condition, const char *what)
{
	if (!condition)
		throw std::runtime_error(what);
}
#define REQUIRE(condition) require(condition, #condition)

orbit::Orbit make_minimal(orbit::Options options = {})
{
	options.inherit = minimal;
	return make_orbit(options);
}

// For what a process is told; it is killed in the end.
bool wait_for_ever(const Pipe &pipe)
{
	char byte;

	return read(pipe.read_end, &byte, 1) == 1;
}

template <class T> orbit_range range_of(T &object)
{
	return {&object, sizeof(object)};
}

class InheritMinimal : public testing::Test {
protected:
	void SetUp() override { NEEDS_FEATURE(ORBIT_FEATURE_MINIMAL); }
};

TEST_F(InheritMinimal, GlobalVariablesAreAsOfCreation)
{
	expect_main([] {
		a_global = 2;
		zeroed_global = 3;
		std::fill_n(big_global, sizeof(big_global), 'b');

		orbit::Orbit orbit = make_minimal();

		a_global = 4;
		REQUIRE(orbit.call({}, [] {
			return a_global == 2 && zeroed_global == 3 && big_global[sizeof(big_global) - 1] == 'b';
		}) == true);
		// What a task changes is the orbit's, and lasts there.
		REQUIRE(orbit.call({}, [] { return ++a_global; }) == 3);
		REQUIRE(orbit.call({}, [] { return ++a_global; }) == 4);
		REQUIRE(make_minimal().call({}, [] { return a_global; }) == 4);
		REQUIRE(a_global == 4);
		return 0;
	});
}

TEST_F(InheritMinimal, TheHeapIsNotThere)
{
	expect_main([] {
		std::vector<int> heap(1 << 20, 7);

		into_the_heap = &heap[heap.size() / 2];

		orbit::Orbit orbit = make_minimal();
		const auto got = orbit.call({}, [] { return *into_the_heap; });

		REQUIRE(!got && got.error().signal() == SIGSEGV);
		REQUIRE(*into_the_heap == 7);
		return 0;
	});
}

TEST_F(InheritMinimal, CodeOfLibrariesWorks)
{
	expect_main([] {
		orbit::Orbit orbit = make_minimal();

		std::cout << ""; // their variables are their own
		REQUIRE(orbit.call({}, [] {
			std::ostringstream text;

			text << std::sqrt(2.0) << ' ' << getpid();
			std::cerr << "";
			std::fprintf(stderr, "%s", "");
			try {
				throw std::runtime_error("caught");
			} catch (const std::exception &error) {
				text << error.what();
			}
			return text.str().find("caught") != std::string::npos;
		}) == true);
		return 0;
	});
}

TEST_F(InheritMinimal, NamedRangesAreThere)
{
	expect_main([] {
		const auto mapped = static_cast<int *>(mmap(nullptr, 8 * page, PROT_READ | PROT_WRITE,
							    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
		auto *large = new std::array<int, 100'000>;
		auto *small = new int(5);
		const auto shared = static_cast<int *>(mmap(nullptr, page, PROT_READ | PROT_WRITE,
							    MAP_SHARED | MAP_ANONYMOUS, -1, 0));

		std::fill_n(mapped, 8 * page / sizeof(int), 1);
		large->fill(2);
		*shared = 9;

		const orbit_range ranges[] = {{mapped + 100, 5 * page}, range_of(*large), range_of(*small),
					      range_of(*shared)};
		orbit::Orbit orbit = make_minimal({.ranges = ranges});

		mapped[100] = large->front() = *small = 0;
		REQUIRE(orbit.call({}, [](const int *m, std::array<int, 100'000> *l, int *s, int *f) {
			*f += 1; // its own
			return m[99] == 0 && m[100] == 1 && m[100 + 5 * page / sizeof(int) - 1] == 1 &&
			       m[100 + 5 * page / sizeof(int)] == 0 && l->front() == 2 && l->back() == 2 &&
			       *s == 5 && *f == 10;
		}, mapped, large, small, shared) == true);
		REQUIRE(*shared == 9);
		return 0;
	});
}

// An orbit's malloc() never hands out what main has named of its heap, however small.
TEST_F(InheritMinimal, TheTwoHeapsKeepApart)
{
	expect_main([] {
		std::vector<unsigned char *> blocks;
		std::vector<orbit_range> ranges;
		auto *list = new std::array<unsigned char *, 300>;

		for (std::size_t i = 0; i < list->size(); i++) {
			const std::size_t size = 16 + i * i % 5000;

			(*list)[i] = static_cast<unsigned char *>(std::malloc(size));
			std::memset((*list)[i], static_cast<int>(i), size);
			ranges.push_back({(*list)[i], size});
			if (i % 3 == 0)
				blocks.push_back(static_cast<unsigned char *>(std::malloc(40 + i)));
		}
		for (unsigned char *block : blocks)
			std::free(block);
		ranges.push_back(range_of(*list));

		orbit::Orbit orbit = make_minimal({.ranges = ranges});
		const auto check = [](const std::array<unsigned char *, 300> *kept) {
			int wrong = 0;

			for (std::size_t i = 0; i < kept->size(); i++)
				for (std::size_t byte = 0; byte < 16 + i * i % 5000; byte++)
					wrong += (*kept)[i][byte] != static_cast<unsigned char>(i);
			return wrong;
		};

		REQUIRE(orbit.call({}, check, list) == 0);
		REQUIRE(orbit.call({}, [] {
			for (std::size_t round = 0; round < 3; round++) {
				std::vector<std::vector<char>> own;

				for (std::size_t size = 1; size < 3000; size += 7)
					own.emplace_back(size * (1 + size % 20), '\xee');
				if (round < 2)
					new std::vector<std::vector<char>>(std::move(own));
			}
		}).has_value());
		REQUIRE(orbit.call({}, check, list) == 0);
		return 0;
	});
}

TEST_F(InheritMinimal, NamedPartsOfTheStack)
{
	expect_main([] {
		int local = 6; // above the frame of orbit_prepare()
		const orbit_range ranges[] = {range_of(local)};
		orbit::Orbit orbit = make_minimal({.ranges = ranges});

		local = 7;
		REQUIRE(orbit.call({}, [](const int *p) { return *p; }, &local) == 6);

		// What the new process itself needs cannot be replaced.
		const auto deeper = [] {
			char below[1 << 16];

			std::memset(below, 1, sizeof(below));
			asm volatile("" : : "r"(below) : "memory");

			const orbit_range refused[] = {range_of(below)};

			return orbit::Orbit::create({.inherit = minimal, .ranges = refused});
		};
		const auto made = deeper();

		REQUIRE(!made && made.error().code() == EFAULT);
		return 0;
	});
}

TEST_F(InheritMinimal, PoolsWorkAsEver)
{
	expect_main([] {
		const orbit::Pool before = make_pool(4 * page);
		orbit::Orbit orbit = make_minimal();
		const orbit::Pool after = make_pool(4 * page);
		static int target;
		auto targets = value_or_throw(orbit::Targets::create());

		REQUIRE(targets.add(target).has_value());
		for (int round = 0; round < 10; round++) {
			*before.as<int>() = round;
			*after.as<int>(page) = 10 * round;

			auto task = value_or_throw(orbit.call_async({before, after}, [](const int *a, int *b) {
				*b += *a;
				(void)orbit::send(&target, *b);
				return *b;
			}, before.as<int>(), after.as<int>(page)));

			REQUIRE(task.wait() == 11 * round);
			REQUIRE(value_or_throw(task.apply_all(targets)).applied == 1);
			REQUIRE(target == 11 * round);
			REQUIRE(*after.as<int>(page) == 10 * round);
		}
		return 0;
	});
}

TEST_F(InheritMinimal, Restarts)
{
	expect_main([] {
		const orbit::Pool pool = make_pool(page);
		int *named = new int(8);
		const orbit_range ranges[] = {range_of(*named)};

		a_global = 30;

		orbit::Orbit orbit = make_minimal({.restart = true, .ranges = ranges});

		a_global = 31;
		for (int round = 0; round < 3; round++) {
			*pool.as<int>() = round;
			REQUIRE(!orbit.call(pool, [] { std::abort(); }));
			REQUIRE(orbit.call(pool, [](const int *in_pool, const int *in_range) {
				return a_global++ + *in_pool + *in_range;
			}, pool.as<int>(), named) == 38 + round);
		}
		REQUIRE(value_or_throw(orbit.stat()).restarts == 3);
		return 0;
	});
}

TEST_F(InheritMinimal, DescriptorsHaveTheirNumbers)
{
	expect_main([] {
		Pipe pipe, other;
		const int high = fcntl(pipe.write_end, F_DUPFD, 200);
		const int keep[] = {high, pipe.write_end, high};

		close(0); // main has none, so the orbit has none

		orbit::Orbit orbit = make_minimal({.keep_fds = keep});
		char byte;

		REQUIRE(orbit.call({}, [](int a, int b) {
			int open = 0;

			for (int fd = 0; fd < 256; fd++)
				open += fcntl(fd, F_GETFD) >= 0;
			if (open != 5 || fcntl(0, F_GETFD) >= 0)
				return open;
			return write(a, "a", 1) == 1 && write(b, "b", 1) == 1 ? 0 : -1;
		}, high, pipe.write_end) == 0);
		REQUIRE(pipe.get(byte) && byte == 'a');
		REQUIRE(pipe.get(byte) && byte == 'b');
		other.close_write();
		REQUIRE(other.at_end());
		return 0;
	});
}

// The zygote does not keep a pipe open that main has closed.
TEST_F(InheritMinimal, TheZygoteHoldsNoDescriptors)
{
	Pipe pipe, go;
	OtherMain main([&] {
		dup2(pipe.write_end, 1);
		REQUIRE(orbit::prepare().has_value());
		close(1);
		pipe.close_write();
		REQUIRE(make_minimal().call({}, [] { return 3; }) == 3);
		wait_for_ever(go);
		return 0;
	});

	pipe.close_write();
	EXPECT_TRUE(pipe.at_end());
	go.put('g');
	EXPECT_EQ(main.wait(), 0);
}

TEST_F(InheritMinimal, NoChildAndNoSignal)
{
	expect_main([] {
		static std::atomic<int> sigchlds{0};
		struct sigaction action = {};

		action.sa_handler = [](int) { sigchlds++; };
		sigaction(SIGCHLD, &action, nullptr);
		for (int round = 0; round < 3; round++) {
			orbit::Orbit orbit = make_minimal({.restart = round == 1});

			REQUIRE(waitpid(-1, nullptr, WNOHANG | __WALL) == -1 && errno == ECHILD);
			REQUIRE(!orbit.call({}, [] { std::abort(); }));
		}
		REQUIRE(waitpid(-1, nullptr, WNOHANG | __WALL) == -1 && errno == ECHILD);
		REQUIRE(sigchlds == 0);
		return 0;
	});
}

TEST_F(InheritMinimal, ItsProcessStandsForItself)
{
	expect_main([] {
		sigset_t blocked;
		orbit::Orbit orbit = make_minimal({.name = "small"});
		const pid_t pid = pid_of(orbit);
		std::string comm;

		std::ifstream("/proc/" + std::to_string(pid) + "/comm") >> comm;
		REQUIRE(comm == "orbit:small");
		REQUIRE(getsid(pid) != getsid(0));
		REQUIRE(orbit.call({}, [] {
			orbit_handle *made = nullptr;
			sigset_t now;

			sigprocmask(SIG_SETMASK, nullptr, &now);
			return sigisemptyset(&now) && orbit_create(&made, nullptr) == -EPERM &&
			       orbit_prepare() == -EPERM;
		}) == true);
		sigprocmask(SIG_SETMASK, nullptr, &blocked);
		REQUIRE(sigisemptyset(&blocked));
		return 0;
	});
}

TEST_F(InheritMinimal, NeedsPreparation)
{
	const auto made = orbit::Orbit::create({.inherit = minimal});

	ASSERT_FALSE(made);
	EXPECT_EQ(made.error().code(), ENXIO);
	expect_main([] {
		REQUIRE(orbit::prepare().error().code() == EALREADY);
		// A child of this one would have to prepare on its own account, and can.
		OtherMain child([] {
			const auto refused = orbit::Orbit::create({.inherit = minimal});

			if (refused || refused.error().code() != ENXIO || !orbit::prepare())
				return 1;
			return make_minimal().call({}, [] { return 4; }) == 4 ? 0 : 2;
		});

		REQUIRE(child.wait() == 0);
		REQUIRE(make_minimal().call({}, [] { return 3; }) == 3);
		return 0;
	});
}

TEST_F(InheritMinimal, RangesThatCannotBe)
{
	expect_main([] {
		const orbit::Pool pool = make_pool(page);
		void *const forbidden = mmap(nullptr, page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		const auto error_of = [](void *start, std::size_t length) {
			const orbit_range ranges[] = {{start, length}};
			const auto made = orbit::Orbit::create({.inherit = minimal, .ranges = ranges});

			return made ? 0 : made.error().code();
		};

		REQUIRE(error_of(pool.data(), 8) == EINVAL);
		REQUIRE(error_of(pool.data() - 1, 2) == EINVAL || !pool.data());
		REQUIRE(error_of(forbidden, 1) == EFAULT);
		REQUIRE(error_of(nullptr, 1) == EFAULT);
		REQUIRE(error_of(reinterpret_cast<void *>(1ULL << 50), 1) == EFAULT);
		REQUIRE(make_minimal().call({}, [] { return 3; }) == 3);
		return 0;
	});
}

// A copy of a library that is there under another name.
std::string copy_of_libm()
{
	static int number;
	Dl_info info;
	const std::string copy = "/tmp/orbit-test-" + std::to_string(getpid()) + "-" +
				 std::to_string(++number) + ".so";

	dladdr(dlsym(RTLD_DEFAULT, "lgamma"), &info);
	mkdir("/tmp", 0777);
	std::ofstream(copy) << std::ifstream(info.dli_fname).rdbuf();
	return copy;
}

TEST_F(InheritMinimal, ModulesAreNamed)
{
	OtherMain main([] {
		const std::string early = copy_of_libm();
		void *const library = dlopen(early.c_str(), RTLD_NOW | RTLD_LOCAL);

		REQUIRE(library);
		unlink(early.c_str());

		auto *const variable = static_cast<int *>(dlsym(library, "signgam"));
		const void *const modules[] = {dlsym(library, "cos")};

		REQUIRE(variable && modules[0]);
		REQUIRE(orbit::prepare().has_value());
		*variable = 77;

		const auto read = [](const int *p) { return *p; };

		REQUIRE(make_minimal().call({}, read, variable) != 77);
		REQUIRE(make_minimal({.modules = modules}).call({}, read, variable) == 77);
		REQUIRE(make_minimal({.modules = modules}).call({}, [](const void *f) {
			return reinterpret_cast<double (*)(double)>(const_cast<void *>(f))(0);
		}, modules[0]) == 1);

		// Loaded after the preparation: the orbit would not have its code.
		const std::string late = copy_of_libm();
		void *const later = dlopen(late.c_str(), RTLD_NOW | RTLD_LOCAL);

		REQUIRE(later);
		unlink(late.c_str());

		const void *const late_modules[] = {dlsym(later, "cos")};
		const void *const no_module[] = {&late};
		const auto error_of = [](std::span<const void *const> named) {
			const auto made = orbit::Orbit::create({.inherit = minimal, .modules = named});

			return made ? 0 : made.error().code();
		};

		REQUIRE(error_of(late_modules) == ENXIO);
		REQUIRE(error_of(no_module) == ENXIO);
		REQUIRE(make_minimal().call({}, [] { return 3; }) == 3);
		return 0;
	});

	EXPECT_EQ(main.wait(), 0);
}

TEST_F(InheritMinimal, ForksOfOtherThreadsAreNotDisturbed)
{
	expect_main([] {
		std::atomic<bool> stop{false};
		std::atomic<int> wrong{0}, forks{0};
		std::vector<int> heap(1 << 18, 5);
		std::vector<std::thread> threads;

		for (int t = 0; t < 2; t++)
			threads.emplace_back([&] {
				while (!stop) {
					// The child has all that main has.
					const pid_t pid = fork();
					int status = 0;

					if (!pid) {
						const std::vector<int> copy(heap);

						_exit(copy.back() != 5);
					}
					waitpid(pid, &status, 0);
					wrong += status != 0;
					forks++;
				}
			});
		for (int t = 0; t < 2; t++)
			threads.emplace_back([&, t] {
				for (int i = 0; i < 5; i++)
					wrong += make_minimal({.restart = t == 1}).call({}, [](int n) {
						const std::vector<int> numbers(1000, n);

						return numbers.back();
					}, i) != i;
			});
		for (std::size_t t = 2; t < 4; t++)
			threads[t].join();
		stop = true;
		threads[0].join();
		threads[1].join();
		REQUIRE(forks > 0);
		REQUIRE(wrong == 0);
		return 0;
	});
}

TEST_F(InheritMinimal, ForkHandlersRunOnce)
{
	expect_main([] {
		pthread_atfork([] { fork_handlers_run++; }, nullptr, nullptr);
		orbit::Orbit one = make_minimal(), two = make_minimal({.restart = true});

		REQUIRE(!two.call({}, [] { std::abort(); }));
		REQUIRE(two.call({}, [] { return 1; }) == 1);
		REQUIRE(fork_handlers_run == 0);
		return 0;
	});
}

// ---- What it costs ----------------------------------------------------------------------

bool has_same_program(const std::string &process)
{
	struct stat own, its;

	return !stat("/proc/self/exe", &own) && !stat(("/proc/" + process + "/exe").c_str(), &its) &&
	       own.st_dev == its.st_dev && own.st_ino == its.st_ino;
}

// The processes that exist for orbits of this program: those named orbit:*. But for some: an
// earlier test's may take a moment to end.
std::vector<pid_t> orbit_processes(const std::vector<pid_t> &others = {})
{
	std::vector<pid_t> found;
	DIR *dir = opendir("/proc");

	while (const dirent *entry = readdir(dir)) {
		std::string comm;

		std::ifstream(std::string("/proc/") + entry->d_name + "/comm") >> comm;
		if (comm.starts_with("orbit:") && has_same_program(entry->d_name) &&
		    std::find(others.begin(), others.end(), std::atoi(entry->d_name)) == others.end())
			found.push_back(std::atoi(entry->d_name));
	}
	closedir(dir);
	return found;
}

std::size_t kibibytes(const std::string &path, const std::string &field)
{
	std::ifstream file(path);
	std::string word;
	std::size_t value = 0;

	while (file >> word)
		if (word == field)
			file >> value;
	return value;
}

// What a process holds, shared pages in part.
std::size_t held_kib(pid_t pid)
{
	return kibibytes("/proc/" + std::to_string(pid) + "/smaps_rollup", "Pss:");
}

// The heap of a main program, all of it in use: 1 GiB, or what the machine has room for.
std::size_t large_heap()
{
	const std::size_t available = kibibytes("/proc/meminfo", "MemAvailable:") << 10;

	return std::min(std::size_t{1} << 30, available / 2 & ~(page - 1));
}
constexpr std::size_t mib = 1 << 20;
constexpr std::size_t small_heap = 16 * mib;

void rewrite(std::vector<char *> &heap, std::size_t bytes)
{
	constexpr std::size_t piece = 64 << 10; // as an application's: in the arenas of malloc()

	for (std::size_t done = 0; done < bytes; done += piece) {
		if (heap.size() * piece < bytes)
			heap.push_back(static_cast<char *>(std::malloc(piece)));
		for (std::size_t at = 0; at < piece; at += page)
			heap[done / piece][at]++;
	}
}

// A main program with a heap of some size, which creates an orbit whenever it is told to,
// and tells how long that took.
class Creator {
public:
	Creator(std::size_t heap_bytes, orbit::Inherit inherit)
		: main_([=, this] {
			  std::vector<char *> heap;

			  REQUIRE(orbit::prepare().has_value());
			  rewrite(heap, heap_bytes);
			  told_.put('r');
			  while (wait_for_ever(go_)) {
				  const auto start = std::chrono::steady_clock::now();
				  orbit::Orbit orbit = make_orbit({.inherit = inherit});

				  told_.put(std::chrono::steady_clock::now() - start);
			  }
			  return 0;
		  })
	{
		char byte;

		// To touch so much memory takes its time where the machine is emulated.
		for (int tries = 0; tries < 10 && !ready_; tries++)
			ready_ = told_.get(byte);
	}
	bool ready() const { return ready_; }
	std::chrono::nanoseconds create() const
	{
		std::chrono::steady_clock::duration took{};

		go_.put('g');
		EXPECT_TRUE(told_.get(took));
		return took;
	}

private:
	Pipe told_, go_;
	OtherMain main_;
	bool ready_ = false;
};

std::chrono::nanoseconds median(std::vector<std::chrono::nanoseconds> times)
{
	std::nth_element(times.begin(), times.begin() + static_cast<long>(times.size()) / 2, times.end());
	return times[times.size() / 2];
}

// Lesson 22: creation cost grew with main's memory.
TEST_F(InheritMinimal, Lesson22_CreationDoesNotGrowWithMain)
{
	for (const orbit::Inherit inherit : {minimal, orbit::Inherit::all}) {
		// The other way is there for comparison, and takes its time.
		const int rounds = inherit == minimal ? 41 : 3;
		const std::size_t large = std::min(large_heap(), inherit == minimal ? SIZE_MAX : 256 * mib);
		const Creator in_small(small_heap, inherit), in_large(large, inherit);
		std::vector<std::chrono::nanoseconds> small_times, large_times;

		ASSERT_TRUE(in_small.ready() && in_large.ready());
		for (int round = 0; round < rounds; round++) {
			small_times.push_back(in_small.create());
			large_times.push_back(in_large.create());
		}

		const double ratio = static_cast<double>(median(large_times).count()) /
				     static_cast<double>(median(small_times).count());

		std::printf("creation, inheriting %s: %ld us with %zu MiB, %ld us with %zu MiB: %.2f times\n",
			    inherit == minimal ? "minimal" : "all",
			    static_cast<long>(median(small_times).count() / 1000), small_heap >> 20,
			    static_cast<long>(median(large_times).count() / 1000), large >> 20, ratio);
		if (inherit == minimal) {
			EXPECT_LE(ratio, 1.5);
		}
	}
}

// Lesson 22: pages that main rewrote later stayed held by the orbit.
TEST_F(InheritMinimal, Lesson22_AnIdleOrbitHoldsNoOldMemory)
{
	const std::vector<pid_t> others = orbit_processes();
	const std::size_t large = large_heap() / 2; // twice: one copy might be kept
	Pipe told, go;
	OtherMain main([&] {
		std::vector<char *> heap;

		REQUIRE(orbit::prepare().has_value());
		rewrite(heap, large);

		orbit::Orbit orbit = make_minimal({.restart = true});

		REQUIRE(orbit.call({}, [] { return 1; }) == 1);
		rewrite(heap, large);
		told.put(pid_of(orbit));
		wait_for_ever(go);
		return 0;
	});
	pid_t orbit = 0;

	for (int tries = 0; tries < 10 && !orbit; tries++)
		told.get(orbit);
	ASSERT_NE(orbit, 0);

	const std::vector<pid_t> processes = orbit_processes(others);
	std::size_t held = 0;

	EXPECT_EQ(processes.size(), 3U) << "zygote, template, orbit";
	for (pid_t pid : processes)
		held += held_kib(pid);
	std::printf("held by the orbit, its template and the zygote: %zu KiB; main has %zu MiB\n", held,
		    held_kib(main.pid()) >> 10);
	EXPECT_GT(held, 0U);
	EXPECT_LE(held, 8U << 10);
	EXPECT_GT(held_kib(main.pid()), large >> 10);
	main.kill();
	for (pid_t pid : processes)
		EXPECT_TRUE(gone(pid));
}

TEST_F(InheritMinimal, TheZygoteEndsWithMain)
{
	for (const bool killed : {false, true}) {
		const std::vector<pid_t> others = orbit_processes();
		Pipe told;
		OtherMain main([&] {
			REQUIRE(orbit::prepare().has_value());
			told.put('r');
			if (killed)
				std::raise(SIGKILL);
			_exit(0);
			return 1;
		});
		char byte;

		ASSERT_TRUE(told.get(byte));
		EXPECT_TRUE(eventually([&] { return orbit_processes(others).empty(); }));
	}
}

} // namespace
