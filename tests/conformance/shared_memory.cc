// SPDX-License-Identifier: MIT
//
// Memory that is shared on purpose: the main program gives it to the orbits that it chooses, with the
// rights that it chooses, at one address; also to orbits that are there already; and it is taken back.
#include "orbit_test.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <fcntl.h>
#include <fstream>
#include <iterator>
#include <optional>
#include <string>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <vector>

namespace {

using orbit::Rights;

constexpr std::size_t region_bytes = 16 * page;
using Word = std::atomic<std::uint64_t>;

orbit::Shared make_shared(std::size_t bytes = region_bytes, const char *name = nullptr)
{
	return value_or_throw(orbit::Shared::create(bytes, name));
}

Word *word_in(const orbit::Shared &shared, std::size_t offset = 0)
{
	return reinterpret_cast<Word *>(shared.data() + offset);
}

orbit::Orbit make_sharing(orbit::Options options = {})
{
	options.share = true;
	return make_orbit(options);
}

// Tasks.
std::uint64_t load(Word *word)
{
	return word->load();
}

void store(Word *word, std::uint64_t value)
{
	word->store(value);
}

// What mprotect() says.
int make_writable(void *start)
{
	return mprotect(start, page, PROT_READ | PROT_WRITE) ? errno : 0;
}

void expect_fault(const orbit::expected<void> &died, const Word *at)
{
	ASSERT_FALSE(died);
	EXPECT_EQ(died.error().code(), ECONNRESET);
	EXPECT_EQ(died.error().signal(), SIGSEGV);
	EXPECT_EQ(died.error().fault_address(), reinterpret_cast<std::uintptr_t>(at));
}

void expect_no_access(orbit::Orbit &orbit, Word *word)
{
	expect_fault(orbit.call({}, [](Word *at) { at->load(); }, word), word);
}

std::string maps_of(const char *process)
{
	std::ifstream file(std::string("/proc/") + process + "/maps");

	return {std::istreambuf_iterator<char>(file), {}};
}

std::size_t count(const std::string &text, const std::string &what)
{
	std::size_t found = 0;

	for (std::size_t at = text.find(what); at != std::string::npos; at = text.find(what, at + 1))
		found++;
	return found;
}

TEST(SharedMemory, WritesAreSeenAtOnceOnBothSidesAtOneAddress)
{
	const orbit::Shared shared = make_shared();
	const orbit::Grant grants[] = {{shared, Rights::write}};
	orbit::Orbit orbit = make_orbit({.grants = grants});
	Word *const word = word_in(shared), *const last = word_in(shared, region_bytes - sizeof(Word));

	EXPECT_EQ(shared.size(), region_bytes);
	EXPECT_EQ(reinterpret_cast<std::uintptr_t>(shared.data()) % page, 0U);
	EXPECT_EQ(word->load(), 0U) << "zeroes";
	*word = 1;
	auto task = value_or_throw(orbit.call_async({}, [](Word *first, Word *end) {
		while (first->load() != 2)
			std::this_thread::yield();
		end->store(first->fetch_add(1) + 5);
		return reinterpret_cast<std::uintptr_t>(first);
	}, word, last));

	*word = 2;
	EXPECT_TRUE(eventually([=] { return last->load() == 7; }));
	EXPECT_EQ(word->load(), 3U);
	EXPECT_EQ(task.wait(), reinterpret_cast<std::uintptr_t>(word));
}

TEST(SharedMemory, OrbitsShareItWithEachOther)
{
	const orbit::Shared shared = make_shared();
	const orbit::Grant writes[] = {{shared, Rights::write}}, reads[] = {{shared, Rights::read}};
	orbit::Orbit writer = make_orbit({.grants = writes}), reader = make_orbit({.grants = reads});
	auto task = value_or_throw(reader.call_async({}, [](Word *word) {
		while (!word->load())
			std::this_thread::yield();
		return word->load();
	}, word_in(shared)));

	ASSERT_TRUE(writer.call({}, store, word_in(shared), std::uint64_t{42}));
	EXPECT_EQ(task.wait(), 42U);
}

TEST(SharedMemory, NobodyElseHasIt)
{
	const orbit::Shared shared = make_shared();
	orbit::Orbit not_given = make_sharing({.restart = true}), without = make_orbit({.restart = true});

	*word_in(shared) = 1;
	expect_no_access(not_given, word_in(shared));
	expect_no_access(without, word_in(shared));
}

TEST(SharedMemory, AReaderCannotWriteWhateverItTries)
{
	const orbit::Shared shared = make_shared();
	const orbit::Grant grants[] = {{shared, Rights::read}};
	orbit::Orbit orbit = make_orbit({.restart = true, .grants = grants});
	Word *const word = word_in(shared);

	*word = 7;
	EXPECT_EQ(orbit.call({}, load, word), 7U);
	expect_fault(orbit.call({}, [](Word *at) { at->store(1); }, word), word);
	EXPECT_EQ(orbit.call({}, make_writable, static_cast<void *>(word)), EACCES);
	// Not by another mapping of the same pages either, nor by taking them away.
	EXPECT_EQ(orbit.call({}, [](Word *at) {
		void *moved = mremap(at, 0, page, MREMAP_MAYMOVE);

		return moved == MAP_FAILED ? EACCES : mprotect(moved, page, PROT_READ | PROT_WRITE) ? errno : 0;
	}, word), EACCES);
	EXPECT_NE(orbit.call({}, [](Word *at) { return madvise(at, page, MADV_REMOVE) ? errno : 0; }, word), 0);
	// Nor by what debuggers use.
	EXPECT_EQ(orbit.call({}, [](Word *at) {
		const int memory = open("/proc/self/mem", O_RDWR | O_CLOEXEC);
		const std::uint64_t one = 1;
		const iovec from = {const_cast<std::uint64_t *>(&one), sizeof(one)}, to = {at, sizeof(one)};
		const ssize_t forced = pwrite(memory, &one, sizeof(one), static_cast<off_t>(reinterpret_cast<std::uintptr_t>(at)));

		close(memory);
		return memory >= 0 && forced < 0 && process_vm_writev(getpid(), &from, 1, &to, 1, 0) < 0;
	}, word), true);
	// It has no descriptor of it.
	EXPECT_EQ(orbit.call({}, [] {
		int found = 0;

		for (int fd = 3; fd < 1024; fd++)
			found += fcntl(fd, F_GET_SEALS) >= 0;
		return found;
	}), 0);
	EXPECT_EQ(word->load(), 7U);
	EXPECT_EQ(orbit.call({}, load, word), 7U);
}

TEST(SharedMemory, ItCannotBeCutOff)
{
	const orbit::Shared shared = make_shared();
	const orbit::Grant grants[] = {{shared, Rights::write}};
	orbit::Orbit orbit = make_orbit({.grants = grants});

	// The whole of it is there, whatever size a task would like.
	EXPECT_EQ(orbit.call({}, [] {
		int cut = 0;

		for (int fd = 3; fd < 1024; fd++)
			cut += ftruncate(fd, 0) == 0;
		return cut;
	}), 0);
	*word_in(shared, region_bytes - sizeof(Word)) = 1;
}

TEST(SharedMemory, AnOrbitThatIsThereIsGivenItAndItIsTakenBack)
{
	orbit::Orbit orbit = make_sharing({.restart = true});

	ASSERT_TRUE(orbit.call({}, [] {}));

	const orbit::Shared shared = make_shared();
	Word *const word = word_in(shared);
	const pid_t process = pid_of(orbit);

	*word = 5;
	ASSERT_TRUE(orbit.share(shared, Rights::read));
	EXPECT_EQ(orbit.call({}, load, word), 5U);
	EXPECT_EQ(orbit.call({}, make_writable, static_cast<void *>(word)), EACCES);
	ASSERT_TRUE(orbit.share(shared, Rights::write));
	ASSERT_TRUE(orbit.call({}, store, word, std::uint64_t{6}));
	EXPECT_EQ(word->load(), 6U);
	ASSERT_TRUE(orbit.share(shared, Rights::read));
	ASSERT_TRUE(orbit.share(shared, Rights::read)) << "the same again";
	EXPECT_EQ(orbit.call({}, make_writable, static_cast<void *>(word)), EACCES);
	EXPECT_EQ(orbit.call({}, load, word), 6U);
	EXPECT_EQ(pid_of(orbit), process);
	ASSERT_TRUE(orbit.share(shared, Rights::none));
	ASSERT_TRUE(orbit.share(shared, Rights::none));
	expect_no_access(orbit, word);
	ASSERT_TRUE(orbit.share(shared, Rights::read));
	EXPECT_EQ(orbit.call({}, load, word), 6U);
}

TEST(SharedMemory, ATaskBeginsWithWhatWasGivenBeforeItsCall)
{
	orbit::Orbit orbit = make_sharing();
	const orbit::Shared gate = make_shared(page);
	std::vector<orbit::Shared> given;

	ASSERT_TRUE(orbit.share(gate, Rights::write));

	auto first = value_or_throw(orbit.call_async({}, [](Word *word) {
		while (!word->load())
			std::this_thread::yield();
	}, word_in(gate)));
	std::vector<orbit::Task<std::uint64_t>> tasks;

	// All of them while it runs.
	for (std::uint64_t i = 0; i < 20; i++) {
		given.push_back(make_shared(page));
		*word_in(given.back()) = i;
		ASSERT_TRUE(orbit.share(given.back(), Rights::read));
		tasks.push_back(value_or_throw(orbit.call_async({}, load, word_in(given.back()))));
	}
	*word_in(gate) = 1;
	EXPECT_TRUE(first.wait());
	for (std::uint64_t i = 0; i < 20; i++)
		EXPECT_EQ(tasks[i].wait(), i);
}

TEST(SharedMemory, ATaskThatRunsCanHaveItToo)
{
	orbit::Orbit orbit = make_sharing({.restart = true});
	const orbit::Shared gate = make_shared(page), late = make_shared(page);

	ASSERT_TRUE(orbit.share(gate, Rights::write));
	*word_in(late) = 9;

	auto task = value_or_throw(orbit.call_async({}, [](Word *word, Word *more) {
		word->store(1);
		while (word->load() != 2)
			std::this_thread::yield();
		orbit::require(orbit::Shared::renew());
		word->store(more->load());
		// What a task forks has it not, and cannot have it.
		const pid_t child = fork();
		int status = -1;

		if (!child)
			_exit(orbit_shared_renew() == -EPERM ? 3 : 4);
		waitpid(child, &status, 0);
		return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
	}, word_in(gate), word_in(late)));

	ASSERT_TRUE(eventually([&] { return word_in(gate)->load() == 1; }));
	ASSERT_TRUE(orbit.share(late, Rights::read));
	*word_in(gate) = 2;
	EXPECT_EQ(task.wait(), 3);
	EXPECT_EQ(word_in(gate)->load(), 9U);
	EXPECT_EQ(orbit_shared_renew(), -EPERM) << "in the main program";
}

TEST(SharedMemory, WhatATaskForksHasItNot)
{
	const orbit::Shared shared = make_shared();
	const orbit::Grant grants[] = {{shared, Rights::write}};
	orbit::Orbit orbit = make_orbit({.grants = grants});

	EXPECT_EQ(orbit.call({}, [](Word *word) {
		const pid_t child = fork();
		int status = -1;

		if (!child) {
			std::signal(SIGSEGV, SIG_DFL);
			word->store(1);
			_exit(0);
		}
		waitpid(child, &status, 0);
		return WIFSIGNALED(status) ? WTERMSIG(status) : 0;
	}, word_in(shared)), SIGSEGV);
	EXPECT_EQ(word_in(shared)->load(), 0U);
}

TEST(SharedMemory, AFreshProcessHasTheSame)
{
	const orbit::Shared before = make_shared(), later = make_shared(), taken = make_shared();
	const orbit::Grant grants[] = {{before, Rights::read}, {taken, Rights::write}};
	orbit::Orbit orbit = make_orbit({.restart = true, .grants = grants});

	*word_in(before) = 1;
	ASSERT_TRUE(orbit.share(later, Rights::write));
	ASSERT_TRUE(orbit.share(taken, Rights::none));
	for (std::uint64_t round = 1; round <= 4; round++) {
		EXPECT_FALSE(orbit.call({}, [] { std::abort(); }));
		EXPECT_EQ(orbit.call({}, load, word_in(before)), 1U);
		ASSERT_TRUE(orbit.call({}, store, word_in(later), round));
		EXPECT_EQ(word_in(later)->load(), round);
	}
	EXPECT_EQ(orbit.call({}, make_writable, static_cast<void *>(before.data())), EACCES);
	expect_no_access(orbit, word_in(taken));

	// Given while it has no process.
	const orbit::Shared last = make_shared();

	ASSERT_TRUE(orbit.call({}, [] {}));

	const pid_t process = pid_of(orbit);

	ASSERT_GT(process, 0);
	kill(process, SIGKILL);
	ASSERT_TRUE(gone(process));
	ASSERT_TRUE(orbit.share(last, Rights::write));
	ASSERT_TRUE(eventually([&] { return orbit.call({}, store, word_in(last), std::uint64_t{3}).has_value(); }));
	EXPECT_EQ(word_in(last)->load(), 3U);
}

TEST(SharedMemory, AnOrbitOfMinimalInheritanceHasIt)
{
	NEEDS_FEATURE(ORBIT_FEATURE_MINIMAL);
	const int prepared = orbit_prepare();

	ASSERT_TRUE(prepared == 0 || prepared == -EALREADY) << prepared;

	const orbit::Shared at_once = make_shared(), later = make_shared();
	const orbit::Grant grants[] = {{at_once, Rights::read}};
	orbit::Orbit orbit = make_orbit({.restart = true, .inherit = orbit::Inherit::minimal, .grants = grants});

	*word_in(at_once) = 4;
	EXPECT_EQ(orbit.call({}, load, word_in(at_once)), 4U);
	expect_fault(orbit.call({}, [](Word *at) { at->store(1); }, word_in(at_once)), word_in(at_once));
	ASSERT_TRUE(orbit.share(later, Rights::write));
	ASSERT_TRUE(orbit.call({}, store, word_in(later), std::uint64_t{5}));
	EXPECT_EQ(word_in(later)->load(), 5U);
	expect_no_access(orbit, word_in(later, region_bytes)); // behind it
}

TEST(SharedMemory, WhatIsDestroyedIsTakenFromAll)
{
	orbit::Orbit orbit = make_sharing({.restart = true});
	const orbit::Shared gate = make_shared(page);
	std::optional<orbit::Shared> shared = make_shared();
	Word *const word = word_in(*shared);

	ASSERT_TRUE(orbit.share(gate, Rights::write));
	ASSERT_TRUE(orbit.share(*shared, Rights::write));

	// A task that runs keeps it.
	auto task = value_or_throw(orbit.call_async({}, [](Word *go, Word *at) {
		at->store(8);
		go->store(1);
		while (go->load() != 2)
			std::this_thread::yield();
		return at->load();
	}, word_in(gate), word));

	ASSERT_TRUE(eventually([&] { return word_in(gate)->load() == 1; }));
	shared.reset();

	// And nothing else comes there meanwhile.
	const orbit::Shared other = make_shared();
	const orbit::Pool pool = make_pool(region_bytes);

	EXPECT_NE(word_in(other), word);
	EXPECT_NE(reinterpret_cast<Word *>(pool.data()), word);
	*word_in(gate) = 2;
	EXPECT_EQ(task.wait(), 8U);
	expect_no_access(orbit, word);
}

TEST(SharedMemory, AddressesAreUsedAgain)
{
	orbit::Orbit orbit = make_sharing();
	std::vector<std::byte *> starts;

	// First with an orbit that lets go of them, then with one that has no time to.
	for (std::uint64_t i = 0; i < 50; i++) {
		const orbit::Shared shared = make_shared();

		ASSERT_TRUE(orbit.share(shared, Rights::write));
		ASSERT_TRUE(orbit.call({}, store, word_in(shared), i + 1));
		ASSERT_EQ(word_in(shared)->load(), i + 1) << "this one, and not one that was there before";
		starts.push_back(shared.data());
	}
	std::sort(starts.begin(), starts.end());
	starts.erase(std::unique(starts.begin(), starts.end()), starts.end());
	EXPECT_LE(starts.size(), 4U);

	// Of a pool, too, which an orbit has seen.
	for (std::uint64_t i = 0; i < 5; i++) {
		std::byte *start;
		{
			const orbit::Pool pool = make_pool(region_bytes);

			start = pool.data();
			*pool.as<std::uint64_t>() = i;
			ASSERT_EQ(orbit.call(pool, [](const std::uint64_t *at) { return *at; }, pool.as<std::uint64_t>()), i);
		}
		const orbit::Shared shared = make_shared();

		EXPECT_EQ(shared.data(), start);
		ASSERT_TRUE(orbit.share(shared, Rights::write));
		ASSERT_TRUE(orbit.call({}, store, word_in(shared), i + 100));
		ASSERT_EQ(word_in(shared)->load(), i + 100);
		ASSERT_EQ(orbit.call({}, load, word_in(shared)), i + 100);
	}
}

TEST(SharedMemory, AForkedChildHasNothingOfIt)
{
	const orbit::Shared shared = make_shared(page, "for-the-child");
	const orbit::Grant grants[] = {{shared, Rights::write}};
	orbit::Orbit orbit = make_orbit({.grants = grants});
	const std::string what = "for-the-child";
	OtherMain child([&] {
		char path[32], to[256];

		if (count(maps_of("self"), what))
			return 1;
		for (int fd = 0; fd < 1024; fd++) {
			snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);

			const ssize_t got = readlink(path, to, sizeof(to) - 1);

			if (got > 0 && std::string(to, static_cast<std::size_t>(got)).find(what) != std::string::npos)
				return 2;
		}
		if (orbit_share(orbit.raw(), shared.raw(), ORBIT_RIGHTS_READ) != -EPERM)
			return 3;

		// It can make its own.
		const orbit::Shared own = make_shared();
		const orbit::Grant its[] = {{own, Rights::write}};
		orbit::Orbit another = make_orbit({.grants = its});

		if (!another.call({}, store, word_in(own), std::uint64_t{1}) || word_in(own)->load() != 1)
			return 4;

		Word *const parents = word_in(shared);

		orbit_destroy(orbit.raw());
		orbit_shared_destroy(shared.raw());
		std::signal(SIGSEGV, SIG_DFL);
		parents->store(1);
		return 0;
	});
	const int status = child.wait();

	EXPECT_TRUE((WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV)) << status;
	ASSERT_TRUE(orbit.call({}, store, word_in(shared), std::uint64_t{2}));
	EXPECT_EQ(word_in(shared)->load(), 2U);
}

TEST(SharedMemory, NothingIsLeftBehind)
{
	const auto use = [] {
		const orbit::Shared one = make_shared(page, "left-behind"), two = make_shared(page, "left-behind");
		const orbit::Grant grants[] = {{one, Rights::read}, {two, Rights::write}};
		orbit::Orbit orbit = make_orbit({.restart = true, .grants = grants});
		const orbit::Shared three = make_shared(page, "left-behind");

		EXPECT_TRUE(orbit.share(three, Rights::write));
		EXPECT_TRUE(orbit.call({}, store, word_in(three), std::uint64_t{1}));
		EXPECT_TRUE(orbit.share(two, Rights::none));
		EXPECT_EQ(count(maps_of("self"), "left-behind"), 3U);
	};

	use(); // the portable backend keeps a thing or two from its first time

	const std::size_t descriptors = open_descriptors();

	for (int i = 0; i < 3; i++)
		use();
	EXPECT_TRUE(eventually([=] { return open_descriptors() == descriptors; })) << open_descriptors();
	EXPECT_EQ(count(maps_of("self"), "left-behind"), 0U);
	EXPECT_EQ(count(maps_of("self"), "orbit-sharing"), 0U);
}

TEST(SharedMemory, TheEndOfTheMainProgramLeavesNothing)
{
	const auto in_use = [] {
		std::ifstream file("/proc/meminfo");
		std::string word;
		std::uint64_t kib = 0;

		while (file >> word && word != "Shmem:")
			;
		file >> kib;
		return kib;
	};
	Pipe pids;
	constexpr std::size_t large = 64 << 20;
	const std::uint64_t before = in_use();
	OtherMain main([&] {
		const orbit::Shared shared = make_shared(large, "at-the-end");
		const orbit::Grant grants[] = {{shared, Rights::write}};
		orbit::Orbit orbit = make_orbit({.restart = true, .grants = grants});

		std::memset(shared.data(), 1, large);
		pids.put(pid_of(orbit));
		orbit.call({}, [] { for (;;) pause(); }).has_value();
		return 0;
	});
	pid_t pid = 0;

	ASSERT_TRUE(pids.get(pid));
	main.kill();
	EXPECT_EQ(WTERMSIG(main.wait()), SIGKILL);
	EXPECT_TRUE(gone(pid));
	// Others work here, too. It is the memory of them all.
	EXPECT_TRUE(eventually([&] { return in_use() < before + large / 2 / 1024; })) << before << ' ' << in_use();
}

TEST(SharedMemory, BadArgumentsChangeNothing)
{
	orbit::Orbit orbit = make_sharing(), without = make_orbit();
	const orbit::Shared shared = make_shared();
	orbit_shared *out = nullptr;
	orbit_shared_options options{};

	options.size = sizeof(options);
	EXPECT_EQ(orbit_shared_create(nullptr, page, nullptr), -EINVAL);
	EXPECT_EQ(orbit_shared_create(&out, 0, nullptr), -EINVAL);
	EXPECT_EQ(orbit_shared_create(&out, SIZE_MAX, nullptr), -ENOMEM);
	EXPECT_EQ(orbit_shared_create(&out, std::size_t{1} << 60, nullptr), -ENOMEM);
	options.flags = 1;
	EXPECT_EQ(orbit_shared_create(&out, page, &options), -EINVAL);
	options.flags = 0;
	options.name = "a name that is longer than any may be, by far, and then some more of it";
	EXPECT_EQ(orbit_shared_create(&out, page, &options), -ENAMETOOLONG);
	EXPECT_EQ(out, nullptr);
	orbit_shared_destroy(nullptr);

	EXPECT_EQ(orbit_share(nullptr, shared.raw(), ORBIT_RIGHTS_READ), -EINVAL);
	EXPECT_EQ(orbit_share(orbit.raw(), nullptr, ORBIT_RIGHTS_READ), -EINVAL);
	EXPECT_EQ(orbit_share(orbit.raw(), shared.raw(), 3), -EINVAL);
	EXPECT_EQ(orbit_share(without.raw(), shared.raw(), ORBIT_RIGHTS_READ), -ENOTSUP);
	EXPECT_EQ(orbit.call({}, [](orbit_shared **raw) {
		return orbit_shared_create(raw, page, nullptr);
	}, &out), -EPERM);

	const orbit::Grant twice[] = {{shared, Rights::read}, {shared, Rights::write}};

	EXPECT_EQ(orbit::Orbit::create({.grants = twice}).error().code(), EINVAL);

	orbit_grant grant = {shared.raw(), 3, 0};
	orbit_options raw{};
	orbit_handle *made = nullptr;

	raw.size = sizeof(raw);
	raw.grants = &grant;
	raw.nr_grants = 1;
	EXPECT_EQ(orbit_create(&made, &raw), -EINVAL) << "without ORBIT_SHARE";
	raw.flags = ORBIT_SHARE;
	EXPECT_EQ(orbit_create(&made, &raw), -EINVAL);
	grant.rights = ORBIT_RIGHTS_READ;
	grant.pad = 1;
	EXPECT_EQ(orbit_create(&made, &raw), -EINVAL);
	raw.nr_grants = ORBIT_MAX_SHARED + 1;
	EXPECT_EQ(orbit_create(&made, &raw), -E2BIG);

	EXPECT_FALSE(orbit.call({}, [] { _exit(0); }));
	EXPECT_TRUE(eventually([&] { return orbit.share(shared, Rights::read).error().code() == ESHUTDOWN; }));
}

TEST(SharedMemory, LimitsAreErrors)
{
	orbit::Orbit orbit = make_sharing({.restart = true});
	std::vector<orbit::Shared> regions;
	rlimit descriptors;

	getrlimit(RLIMIT_NOFILE, &descriptors);
	ASSERT_GT(descriptors.rlim_cur, 3U * ORBIT_MAX_SHARED);
	for (std::size_t i = 0; i <= ORBIT_MAX_SHARED; i++)
		regions.push_back(make_shared(page));
	for (std::size_t i = 0; i < ORBIT_MAX_SHARED; i++)
		ASSERT_TRUE(orbit.share(regions[i], Rights::write)) << i;
	EXPECT_EQ(orbit.share(regions.back(), Rights::read).error().code(), E2BIG);
	for (std::size_t i = 0; i < ORBIT_MAX_SHARED; i++)
		ASSERT_TRUE(orbit.call({}, store, word_in(regions[i]), i + 1));
	for (std::size_t i = 0; i < ORBIT_MAX_SHARED; i++)
		ASSERT_EQ(word_in(regions[i])->load(), i + 1);
	ASSERT_TRUE(orbit.share(regions.front(), Rights::none));
	ASSERT_TRUE(orbit.share(regions.back(), Rights::read));

	// An orbit with few descriptors can receive as many.
	const orbit::Grant grants[] = {{regions[0], Rights::read}, {regions[1], Rights::write}};
	orbit::Orbit few = make_orbit({.nr_files = 8, .grants = grants});

	EXPECT_EQ(few.call({}, load, word_in(regions[1])), 2U);
	ASSERT_TRUE(few.share(regions[2], Rights::read));
	EXPECT_EQ(few.share(regions[3], Rights::read).error().code(), EMFILE);
	EXPECT_EQ(few.call({}, load, word_in(regions[2])), 3U);

	rlimit sizes;

	getrlimit(RLIMIT_FSIZE, &sizes);

	const rlimit small = {page, sizes.rlim_max};

	setrlimit(RLIMIT_FSIZE, &small);
	EXPECT_EQ(orbit::Shared::create(2 * page).error().code(), EFBIG);
	EXPECT_TRUE(orbit::Shared::create(page));
	setrlimit(RLIMIT_FSIZE, &sizes);

	const rlimit none = {0, descriptors.rlim_max};

	setrlimit(RLIMIT_NOFILE, &none);
	EXPECT_EQ(orbit::Shared::create(page).error().code(), EMFILE);
	setrlimit(RLIMIT_NOFILE, &descriptors);
	EXPECT_TRUE(orbit::Shared::create(page));
}

TEST(SharedMemory, ItIsNotCountedAsTheOrbitsOwnMemory)
{
	constexpr std::size_t large = 48 << 20;
	const orbit::Shared shared = make_shared(large);
	const orbit::Grant grants[] = {{shared, Rights::write}};
	orbit::Orbit orbit = make_orbit({.memory_limit = 16 << 20, .grants = grants});

	EXPECT_TRUE(orbit.call({}, [](std::byte *start) {
		std::memset(start, 1, large);
		std::this_thread::sleep_for(100ms); // the limit is looked at
	}, shared.data()));
	EXPECT_EQ(shared.data()[large - 1], std::byte{1});

	// What is its own still is.
	const auto died = orbit.call({}, [] {
		void *own = mmap(nullptr, large, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

		if (own == MAP_FAILED)
			std::abort();
		std::memset(own, 1, large);
		std::this_thread::sleep_for(1s);
	});

	EXPECT_FALSE(died);
}

// In a child, for a filter or another user stays.
TEST(SharedMemory, AnUnprivilegedUserHasItToo)
{
	OtherMain user([] {
		if (!getuid() && (setgid(65534) || setuid(65534)))
			return 1;

		const orbit::Shared shared = make_shared(), later = make_shared();
		const orbit::Grant grants[] = {{shared, Rights::read}};
		orbit::Orbit orbit = make_orbit({.restart = true, .grants = grants});

		*word_in(shared) = 3;
		if (orbit.call({}, load, word_in(shared)) != 3U ||
		    orbit.call({}, make_writable, static_cast<void *>(shared.data())) != EACCES)
			return 2;
		if (!orbit.share(later, Rights::write) || !orbit.call({}, store, word_in(later), std::uint64_t{4}) ||
		    word_in(later)->load() != 4)
			return 3;
		return 0;
	});

	EXPECT_EQ(user.wait(), 0);
}

// Without privileges the kernel bounds how many descriptors are under way.
TEST(SharedMemory, TooManyInAllAreAnErrorThatLeavesTheRestAsItIs)
{
	OtherMain user([] {
		if (!getuid() && (setgid(65534) || setuid(65534)))
			return 1;

		std::vector<orbit::Shared> regions;
		std::vector<orbit::Orbit> orbits;
		const rlimit few = {200, 200};

		for (int i = 0; i < 60; i++)
			regions.push_back(make_shared(page));
		for (int i = 0; i < 5; i++)
			orbits.push_back(make_sharing());
		if (setrlimit(RLIMIT_NOFILE, &few))
			return 2;
		for (orbit::Orbit &orbit : orbits)
			for (std::size_t i = 0; i < regions.size(); i++) {
				const auto shared = orbit.share(regions[i], Rights::write);

				if (shared)
					continue;
				if (shared.error().code() != ETOOMANYREFS || shared.error().message().find("RLIMIT_NOFILE") == std::string::npos)
					return 3;
				if (i && (!orbit.call({}, store, word_in(regions[i - 1]), std::uint64_t{7}) ||
					  word_in(regions[i - 1])->load() != 7))
					return 4;
				return 0;
			}
		return 5;
	});

	EXPECT_EQ(user.wait(), 0);
}

TEST(SharedMemory, WithoutADescriptorTheOrbitEndsAndSaysSo)
{
	orbit::Orbit orbit = make_sharing({.restart = true, .nr_files = 12});
	const orbit::Shared shared = make_shared();

	// A task leaves them all open.
	ASSERT_TRUE(orbit.call({}, [] {
		while (dup(1) >= 0)
			;
	}));
	ASSERT_TRUE(orbit.share(shared, Rights::write));

	const auto died = orbit.call({}, store, word_in(shared), std::uint64_t{1});

	ASSERT_FALSE(died);
	EXPECT_EQ(died.error().cause(), ORBIT_CAUSE_EXIT);
	EXPECT_EQ(died.error().outcome().code, EMFILE);
	EXPECT_EQ(word_in(shared)->load(), 0U);
	ASSERT_TRUE(orbit.call({}, store, word_in(shared), std::uint64_t{2})) << "a fresh process has room";
	EXPECT_EQ(word_in(shared)->load(), 2U);
}

// It reads what is meant for the library, in a task; sends back rubbish; closes; hangs up.
TEST(SharedMemory, AHostileOrbitHarmsItself)
{
	const auto all_sockets = [](auto harm) {
		for (int fd = 3; fd < 200; fd++) {
			int type = 0;
			socklen_t bytes = sizeof(type);

			if (!getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &bytes) && type == SOCK_SEQPACKET)
				harm(fd);
		}
	};
	const auto take_all = [=] {
		all_sockets([](int fd) {
			char message[8192];

			while (recv(fd, message, sizeof(message), MSG_DONTWAIT) > 0)
				;
		});
	};
	const auto fill = [=] {
		all_sockets([](int fd) {
			char message[4096] = {};

			// On the portable backend that is main's other socket, too: it breaks the rules.
			while (send(fd, message, sizeof(message), MSG_DONTWAIT | MSG_NOSIGNAL) > 0)
				;
		});
	};
	const auto hang_up = [=] { all_sockets([](int fd) { shutdown(fd, SHUT_RDWR); }); };
	const auto close_all = [=] { all_sockets([](int fd) { close(fd); }); };
	const orbit::Shared shared = make_shared(), other = make_shared();
	const std::size_t descriptors = open_descriptors();

	const auto try_it = [&](auto harm) {
		const orbit::Grant grants[] = {{shared, Rights::read}};
		orbit::Orbit orbit = make_orbit({.restart = true, .grants = grants});
		orbit::Orbit good = make_sharing();

		orbit.call({}, harm).has_value();
		for (int i = 0; i < 3; i++) {
			orbit.share(other, i % 2 ? Rights::none : Rights::write).has_value();
			orbit.call({.time_limit = 5s}, {}, load, word_in(shared)).has_value();
		}
		// Others do not notice.
		EXPECT_TRUE(good.share(other, Rights::write));
		EXPECT_TRUE(good.call({}, store, word_in(other), std::uint64_t{3}));
		EXPECT_EQ(word_in(other)->load(), 3U);
		*word_in(other) = 0;
	};

	// An orbit that takes out what tells of regions finds the next again.
	{
		orbit::Orbit orbit = make_sharing({.restart = true});

		ASSERT_TRUE(orbit.call({}, [] {}));
		orbit.call({}, take_all).has_value();
		ASSERT_TRUE(orbit.share(shared, Rights::read));
		EXPECT_EQ(orbit.call({}, load, word_in(shared)), 0U);
	}
	try_it(take_all);
	try_it(fill);
	try_it(hang_up);
	try_it(close_all);
	EXPECT_TRUE(eventually([&] { return open_descriptors() == descriptors; })) << open_descriptors();
}

// What cannot be told is an error, and the orbit does not have it later by accident.
TEST(SharedMemory, WhereAFilterRefusesWhatItTakesNothingChanges)
{
	for (const long refused : {SYS_sendmsg, SYS_recvmsg}) {
		OtherMain filtered([=] {
			sock_filter filter[] = {
				BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
				BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, static_cast<unsigned>(refused), 0, 1),
				BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
				BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
			};
			const sock_fprog program = {std::size(filter), filter};
			const orbit::Shared had = make_shared(), shared = make_shared();
			const orbit::Grant grants[] = {{had, Rights::write}};
			orbit::Orbit orbit = make_orbit({.restart = true, .grants = grants});

			prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
			if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program))
				return 1;
			if (orbit.share(shared, Rights::write) || orbit.share(had, Rights::none))
				return 2;
			// Messages are what the portable backend is made of.
			if (!is_kernel_backend())
				return 0;
			if (!orbit.call({}, store, word_in(had), std::uint64_t{1}) || word_in(had)->load() != 1)
				return 3;
			if (orbit.call({}, store, word_in(shared), std::uint64_t{1}) || word_in(shared)->load())
				return 4;
			if (!orbit.call({}, store, word_in(had), std::uint64_t{2}) || word_in(had)->load() != 2)
				return 5;
			return 0;
		});

		EXPECT_EQ(filtered.wait(), 0);
	}
}

TEST(SharedMemory, ThreadsGiveAndTakeWhileTasksRun)
{
	orbit::Orbit orbit = make_sharing();
	const orbit::Shared always = make_shared(page);
	std::atomic<bool> stop = false;
	std::vector<std::thread> threads;

	ASSERT_TRUE(orbit.share(always, Rights::write));
	for (int i = 0; i < 3; i++)
		threads.emplace_back([&] {
			while (!stop) {
				const orbit::Shared shared = make_shared(page);

				EXPECT_TRUE(orbit.share(shared, Rights::write));
				std::this_thread::yield();
			}
		});
	for (std::uint64_t i = 0; i < 200; i++) {
		ASSERT_TRUE(orbit.call({}, store, word_in(always), i));
		ASSERT_EQ(word_in(always)->load(), i);
	}
	stop = true;
	for (std::thread &thread : threads)
		thread.join();
}

} // namespace
