// SPDX-License-Identifier: MIT
//
// orbitctl on what kernels have said, and on what they never would: recorded texts of
// /proc/PID/fdinfo, garbled ones, and directories that look like /proc.
#include "../../isolation/status.h"
#include "../../liborbit/orbitctl/command.h"
#include "../../liborbit/orbitctl/show.h"

#include <orbit/call.hpp>
#include <orbit/orbit.h>

#include <cstdlib>
#include <cstring>
#include <fstream>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>
#include <random>
#include <sstream>
#include <sys/mman.h>
#include <unistd.h>

using namespace orbitctl;

namespace {

constexpr char orbit_link[] = "anon_inode:[orbit]";
constexpr char pool_link[] = "anon_inode:[orbit-pool]";
constexpr char task_link[] = "anon_inode:[orbit-task]";

const std::string common = "pos:\t0\nflags:\t02000002\nmnt_id:\t13\nino:\t1033\n";

// As recorded on Linux 6.12 with the patches.
const std::string dead_orbit = common +
			       "orbit:\taudit\nstate:\tdead\npid:\t72\ncause:\t2\ncode:\t11\n"
			       "fault-address:\t0x7ee497f00000\nqueued:\t0\ncalls:\t1\ncompleted:\t0\n"
			       "pages-protected:\t0\npages-preserved:\t0\npages-copied:\t0\npages-moved:\t0\n"
			       "failed:\t1\ncancelled:\t0\nskipped:\t0\nupdates:\t0\nrestart:\t0\nrestarts:\t0\n"
			       "last-task:\t1\ntemplate:\t0\nqueue-limit:\t1024\nupdate-limit:\t67108864\n"
			       "file-limit:\t0\nmemory-limit:\t0\ncpu-limit:\t0\n";
const std::string running_orbit = common +
				  "orbit:\tre\npid:\t7\nstate:\trunning\npid:\t76\ncause:\t2\ncode:\t11\n"
				  "fault-address:\t0x8\nqueued:\t2\ncalls:\t3\ncompleted:\t0\n"
				  "pages-protected:\t5\npages-preserved:\t6\npages-copied:\t7\npages-moved:\t8\n"
				  "failed:\t1\ncancelled:\t0\nskipped:\t0\nupdates:\t1\nrestart:\t1\nrestarts:\t1\n"
				  "last-task:\t1\ntemplate:\t73\nqueue-limit:\t1024\nupdate-limit:\t67108864\n"
				  "file-limit:\t0\nmemory-limit:\t67108864\ncpu-limit:\t0\n";
const std::string a_pool = "pos:\t0\nflags:\t02000002\nmnt_id:\t13\nino:\t366\norbit-pool:\tta\nble\tx\n"
			   "size:\t20480\naddress:\t0x7ee497f00000\nsnapshots:\t12\n";
const std::string a_task = common + "orbit:\tre\npid:\t7\ntask:\t2\nstate:\trunning\nupdates:\t1\n"
				    "update-bytes:\t4\n";

template <class T> T get(const char *link, const std::string &text)
{
	const Object object = parse_fdinfo(link, text);

	EXPECT_TRUE(std::holds_alternative<T>(object));
	return std::holds_alternative<T>(object) ? std::get<T>(object) : T{};
}

bool is_nothing(const char *link, const std::string &text)
{
	return std::holds_alternative<std::monostate>(parse_fdinfo(link, text));
}

std::string replace(std::string text, const std::string &from, const std::string &to)
{
	const std::size_t at = text.find(from);

	EXPECT_NE(at, std::string::npos) << from;
	return text.replace(at, from.size(), to);
}

TEST(Orbitctl_Fdinfo, AnOrbit)
{
	const auto orbit = get<Orbit>(orbit_link, dead_orbit);

	EXPECT_EQ(orbit.name, "audit");
	EXPECT_EQ(orbit.state, "dead");
	EXPECT_EQ(orbit.pid, 72U);
	EXPECT_EQ(orbit.fault_address, 0x7ee497f00000U);
	EXPECT_EQ(orbit.queue_limit, 1024U);
	EXPECT_EQ(orbit.failed, 1U);
	EXPECT_EQ(describe_end(orbit), "killed by signal 11 (SIGSEGV) at address 0x7ee497f00000, in task 1");
}

// A name may hold anything, also lines that look like the kernel's.
TEST(Orbitctl_Fdinfo, ANameThatPretends)
{
	const auto orbit = get<Orbit>(orbit_link, running_orbit);

	EXPECT_EQ(orbit.name, "re\npid:\t7");
	EXPECT_EQ(orbit.pid, 76U);
	EXPECT_EQ(orbit.pages_protected, 5U);
	EXPECT_EQ(orbit.pages_preserved, 6U);
	EXPECT_EQ(orbit.pages_copied, 7U);
	EXPECT_EQ(orbit.pages_moved, 8U);
	EXPECT_EQ(orbit.template_pid, 73U);
	EXPECT_EQ(orbit.restarts, 1U);

	const std::string name = "x\nstate:\tdead\npid:\t1\norbit:\ty";
	const auto other = get<Orbit>(orbit_link, replace(dead_orbit, "audit", name));

	EXPECT_EQ(other.name, name);
	EXPECT_EQ(other.pid, 72U);
}

TEST(Orbitctl_Fdinfo, PoolsAndTasks)
{
	const auto pool = get<Pool>(pool_link, a_pool);
	const auto task = get<Task>(task_link, a_task);

	EXPECT_EQ(pool.name, "ta\nble\tx");
	EXPECT_EQ(pool.size, 20480U);
	EXPECT_EQ(pool.address, 0x7ee497f00000U);
	EXPECT_EQ(pool.snapshots, 12U);
	EXPECT_EQ(task.orbit, "re\npid:\t7");
	EXPECT_EQ(task.number, 2U);
	EXPECT_EQ(task.state, "running");
	EXPECT_EQ(task.updates, 1U);
	EXPECT_EQ(task.update_bytes, 4U);
	EXPECT_EQ(get<Pool>(pool_link, replace(a_pool, "ta\nble\tx", "")).name, "");
}

// The link says what it is: any driver may print a line that begins like ours.
TEST(Orbitctl_Fdinfo, OtherDescriptors)
{
	for (const char *link : {"/dev/null", "anon_inode:[eventfd]", "anon_inode:[orbit-server]",
				 "anon_inode:[orbit-template]", "pipe:[1]", ""}) {
		EXPECT_TRUE(is_nothing(link, dead_orbit)) << link;
		EXPECT_TRUE(is_nothing(link, a_pool)) << link;
	}
	EXPECT_TRUE(is_nothing(orbit_link, common));
	EXPECT_TRUE(is_nothing(orbit_link, a_pool));
	EXPECT_TRUE(is_nothing(orbit_link, ""));
	EXPECT_TRUE(is_nothing(pool_link, a_task));
	EXPECT_TRUE(is_nothing(task_link, dead_orbit));
}

TEST(Orbitctl_Fdinfo, FieldsThatAreMissingOrOdd)
{
	const auto missing = get<Orbit>(orbit_link, common + "orbit:\tx\nstate:\tidle\nnew-field:\t5\n");

	EXPECT_FALSE(missing.pid);
	EXPECT_FALSE(missing.calls);
	EXPECT_EQ(describe_end(missing), "");

	for (const char *odd : {"", " ", "x", "72x", "0x", "--1", "99999999999999999999999", "7 2", "\t72"}) {
		const auto orbit = get<Orbit>(orbit_link, replace(dead_orbit, "pid:\t72", "pid:\t" + std::string(odd)));

		EXPECT_FALSE(orbit.pid) << odd;
		EXPECT_EQ(orbit.failed, 1U) << odd;
	}
	EXPECT_EQ(get<Orbit>(orbit_link, replace(dead_orbit, "code:\t11", "code:\t-5")).code,
		  static_cast<std::uint64_t>(-5));
	// A cause that this library does not know.
	EXPECT_EQ(describe_end(get<Orbit>(orbit_link, replace(dead_orbit, "cause:\t2", "cause:\t77"))),
		  "ended, in task 1");
}

TEST(Orbitctl_Fdinfo, AnyBytes)
{
	const std::pair<const char *, const std::string *> texts[] = {
		{orbit_link, &dead_orbit}, {orbit_link, &running_orbit}, {pool_link, &a_pool}, {task_link, &a_task}};
	std::mt19937 random(1);
	int parsed = 0;

	for (int i = 0; i < 20000; i++) {
		const auto &[link, text] = texts[random() % 4];
		std::string garbled = *text;
		std::ostringstream out;
		Process process;

		for (auto changes = random() % 8; changes; changes--) {
			const std::size_t at = random() % garbled.size();

			switch (random() % 3) {
			case 0:
				garbled[at] = static_cast<char>(random());
				break;
			case 1:
				garbled.erase(at, random() % 40);
				break;
			default:
				garbled.insert(at, text->substr(random() % text->size(), random() % 40));
			}
			if (garbled.empty())
				break;
		}

		const Object object = parse_fdinfo(link, garbled);

		if (const auto *orbit = std::get_if<Orbit>(&object))
			process.orbits.push_back({3, *orbit});
		else if (const auto *pool = std::get_if<Pool>(&object))
			process.pools.push_back({3, *pool});
		else if (const auto *task = std::get_if<Task>(&object))
			process.tasks.push_back({3, *task});
		parsed += !process.empty();
		print_text(out, process);
		for (const char c : out.str())
			ASSERT_TRUE(c == '\n' || static_cast<unsigned char>(c) >= 0x20) << garbled;
		out.str("");
		print_json(out, {process}, 0);
		ASSERT_TRUE(nlohmann::json::accept(out.str())) << out.str();
	}
	EXPECT_GT(parsed, 1000);
}

TEST(Orbitctl_Show, Names)
{
	EXPECT_EQ(printable("plain"), "plain");
	EXPECT_EQ(printable("\033[2Jx\n\t\x7f"), "?[2Jx?" "?" "?");
	EXPECT_EQ(printable("gr\xc3\xbc\xc3\x9f \xe2\x82\xac"), "gr\xc3\xbc\xc3\x9f \xe2\x82\xac");
	EXPECT_EQ(printable("\xff\xc3(\xe2\x82"), "?" "?(?" "?");
	EXPECT_EQ(printable("\xc2\x9b!"), "?!"); // a control character too
	EXPECT_EQ(show_bytes(0), "0");
	EXPECT_EQ(show_bytes(10239), "10239");
	EXPECT_EQ(show_bytes(10240), "10K");
	EXPECT_EQ(show_bytes(UINT64_MAX), "15E");
	EXPECT_EQ(show_bytes({}), "-");
}

TEST(Orbitctl_Show, Columns)
{
	Table table({"A", "NUMBER"});
	std::ostringstream out;

	table.add({"\xc3\xbc", "5"});
	table.add({"long", "10"});
	table.print(out, "lr");
	EXPECT_EQ(out.str(), "A     NUMBER\n\xc3\xbc          5\nlong      10\n");
	out.str("");
	table.print(out, "lr", 3);
	EXPECT_EQ(out.str(), "A  \n\xc3\xbc  \nlon\n");
}

// A directory that looks like /proc.
class FakeProc : public testing::Test {
protected:
	FakeProc()
	{
		char path[] = "/tmp/orbitctl.XXXXXX";

		root_ = mkdtemp(path);
	}
	~FakeProc() override { std::filesystem::remove_all(root_); }

	void write(const std::filesystem::path &path, const std::string &text)
	{
		std::filesystem::create_directories((root_ / path).parent_path());
		std::ofstream(root_ / path) << text;
	}
	void make_process(int pid, const std::string &name)
	{
		write(std::to_string(pid) + "/comm", name + "\n");
		std::filesystem::create_directories(root_ / std::to_string(pid) / "fd");
	}
	void open(int pid, int fd, const char *link, const std::string &text)
	{
		write(std::to_string(pid) + "/fdinfo/" + std::to_string(fd), text);
		std::filesystem::create_symlink(link, root_ / std::to_string(pid) / "fd" / std::to_string(fd));
	}
	int run(std::vector<std::string> arguments)
	{
		out_.str("");
		err_.str("");
		return orbitctl::run(arguments, out_, err_, root_);
	}
	bool printed(const std::string &text) const { return out_.str().find(text) != std::string::npos; }

	std::filesystem::path root_;
	std::ostringstream out_, err_;
};

TEST_F(FakeProc, List)
{
	make_process(50, "ser ver)\033[0m");
	open(50, 0, "/dev/null", common);
	open(50, 3, pool_link, a_pool);
	open(50, 4, pool_link, a_pool); // the same, open once more
	open(50, 10, orbit_link, dead_orbit);
	open(50, 11, orbit_link, running_orbit);
	open(50, 12, orbit_link, running_orbit);
	open(50, 13, task_link, a_task);
	make_process(51, "other");
	open(51, 3, "anon_inode:[orbit-server]", common);

	EXPECT_EQ(run({"list"}), 0);
	EXPECT_TRUE(printed("process 50 (ser ver)?[0m)\n")) << out_.str();
	EXPECT_TRUE(printed("audit: last end: killed by signal 11 (SIGSEGV) at address 0x7ee497f00000, in task 1\n"));
	EXPECT_TRUE(printed("re?pid:?7   76  running  2/1024      3")) << out_.str();
	EXPECT_TRUE(printed("ta?ble?x")) << out_.str();
	EXPECT_FALSE(printed("process 51"));
	EXPECT_EQ(err_.str(), "");

	EXPECT_EQ(run({"list", "--json"}), 0);

	const auto json = nlohmann::json::parse(out_.str());

	ASSERT_EQ(json["processes"].size(), 1U);
	EXPECT_EQ(json["not_permitted"], 0);

	const auto &process = json["processes"][0];

	EXPECT_EQ(process["pid"], 50);
	EXPECT_EQ(process["backend"], "kernel");
	ASSERT_EQ(process["orbits"].size(), 2U);
	EXPECT_EQ(process["orbits"][0]["last_end"]["task"], 1);
	EXPECT_EQ(process["orbits"][0]["last_end"]["code"], 11);
	EXPECT_EQ(process["orbits"][1]["name"], "re\npid:\t7");
	EXPECT_EQ(process["orbits"][1]["fd"], 11);
	EXPECT_EQ(process["pools"].size(), 1U);
	EXPECT_EQ(process["tasks"][0]["update_bytes"], 4);

	EXPECT_EQ(run({"list", "51"}), 0);
	EXPECT_TRUE(printed("process 51 (other)\nno orbits, pools, tasks or domains\n"));
}

// Files that say to be a supervisor's, and are of no sense, or of as much as is needed to be believed further.
TEST(Orbitctl_Domains, FilesThatMakeNoSense)
{
	using namespace orbit::isolation;
	std::mt19937_64 random(3);
	std::vector<int> files;
	const auto make = [&](const char *name, std::size_t bytes) {
		files.push_back(memfd_create(name, MFD_CLOEXEC));
		return files.back() >= 0 && !ftruncate(files.back(), static_cast<off_t>(bytes));
	};
	const auto list = [] {
		Process process;
		EXPECT_EQ(Processes().read(getpid(), &process), 0);
		return process.domains;
	};

	// What is asked for is not there, or is not one file's number.
	for (const char *name : {"orbit-domains:", "orbit-domains:x", "orbit-domains:1:2", "orbit-domains:0 ", "orbit-heap:0",
				 "orbit-heap:0:0:0", "orbit-domains:99999999999999999999", "orbit-device:0", "orbit-device:0:0:0"})
		ASSERT_TRUE(make(name, 4096));
	EXPECT_TRUE(list().empty());
	ASSERT_TRUE(make("orbit-domains:0", 0));
	EXPECT_TRUE(list().empty());

	auto status = std::make_unique<SupervisorStatus>();
	status->magic = status_magic;
	status->size = sizeof(DomainStatus);
	status->domains = 3;
	status->heap_parts = 5;
	status->domain[2].state = static_cast<DomainState>(77);
	status->domain[2].pid = 4000000000;
	std::memset(status->domain[2].name, 'n', sizeof(status->domain[2].name));
	std::memset(status->domain[2].last_end, '\n', sizeof(status->domain[2].last_end));
	const int file = files.back();
	ASSERT_EQ(pwrite(file, status.get(), sizeof(*status), 0), ssize_t{sizeof(*status)});
	ASSERT_EQ(list().size(), 1U);
	EXPECT_EQ(list()[0].name, std::string(64, 'n'));
	EXPECT_EQ(list()[0].state, "down");
	EXPECT_EQ(list()[0].owned, std::nullopt) << "there is no heap";

	// What a driver says, who may say anything.
	ASSERT_TRUE(make("orbit-device:0:1", sizeof(DeviceCounters)));
	ASSERT_TRUE(make("orbit-device:1:2", sizeof(DeviceCounters)));
	ASSERT_TRUE(make("orbit-device:0:2", sizeof(DeviceCounters) - 1));
	const int said = files.back();
	auto counters = std::make_unique<DeviceCounters>();
	std::memset(static_cast<void *>(counters.get()), 0xff, sizeof(*counters));
	ASSERT_EQ(pwrite(said, counters.get(), sizeof(*counters) - 1, 0), ssize_t{sizeof(*counters) - 1});
	EXPECT_EQ(list()[0].queues, std::nullopt) << "it drives nothing";
	std::memcpy(status->domain[2].device, "device", 7);
	ASSERT_EQ(pwrite(file, status.get(), sizeof(*status), 0), ssize_t{sizeof(*status)});
	EXPECT_EQ(list()[0].device, "device");
	EXPECT_EQ(list()[0].queues, std::nullopt) << "it is too short";
	ASSERT_EQ(pwrite(said, counters.get(), sizeof(*counters), 0), ssize_t{sizeof(*counters)});
	EXPECT_EQ(list()[0].queues, std::uint64_t{DeviceCounters::most_queues});
	EXPECT_TRUE(list()[0].requests && list()[0].errors);
	std::ostringstream drawn, problems;
	EXPECT_EQ(orbitctl::run({"top", "-n", "1", std::to_string(getpid())}, drawn, problems), 0);
	EXPECT_NE(drawn.str().find("IO/S"), std::string::npos) << drawn.str();
	EXPECT_EQ(orbitctl::run({"list", std::to_string(getpid())}, drawn, problems), 0);
	EXPECT_NE(drawn.str().find(": its driver says: 63 queues, "), std::string::npos) << drawn.str();
	counters->queues = 0;
	ASSERT_EQ(pwrite(said, counters.get(), sizeof(*counters), 0), ssize_t{sizeof(*counters)});
	EXPECT_EQ(list()[0].queues, std::nullopt) << "it says nothing";
	counters->queues = 1;
	ASSERT_EQ(pwrite(said, counters.get(), sizeof(*counters), 0), ssize_t{sizeof(*counters)});

	ASSERT_TRUE(make("orbit-heap:0:0", 1 << 20));
	const int heap = files.back();
	ASSERT_TRUE(make("orbit-heap:0:1", std::size_t{1} << 50));
	EXPECT_EQ(list()[0].owned, std::nullopt) << "it is too large";
	ASSERT_EQ(ftruncate(files.back(), 1 << 20), 0);

	// Garbage, where a right word is often enough near by.
	const std::size_t zone_bytes[] = {1 << 16};
	std::vector<std::byte> whole(Heap::bytes(3, zone_bytes) + 4096);
	auto *const at = reinterpret_cast<std::byte *>((reinterpret_cast<std::uintptr_t>(whole.data()) + 4095) & ~std::uintptr_t{4095});
	auto made = Heap::create({at, whole.size() - 4096}, 3, zone_bytes);
	ASSERT_TRUE(made && made->add(2, 0) && made->grant(2, 0, 8192));
	const std::vector<std::byte> right(at, at + std::min<std::size_t>(whole.size() - 4096, 1 << 20));
	std::size_t counted = 0;
	for (int round = 0; round < 600; round++) {
		std::vector<std::byte> wrong = right;
		for (std::uint64_t n = random() % 4; n--;)
			reinterpret_cast<std::uint64_t *>(wrong.data())[random() % (random() % 2 ? 16 : wrong.size() / 8)] =
				random() >> random() % 64;
		ASSERT_EQ(pwrite(heap, wrong.data(), wrong.size(), 0), static_cast<ssize_t>(wrong.size()));
		reinterpret_cast<std::uint32_t *>(status.get())[2 + random() % 3] = static_cast<std::uint32_t>(random() % 300);
		if (round % 2) {
			ASSERT_EQ(pwrite(file, status.get(), sizeof(*status), 0), ssize_t{sizeof(*status)});
		}
		for (const Domain &domain : list())
			counted += domain.owned.has_value();
	}
	EXPECT_GT(counted, 0U);

	std::ostringstream out, err;
	EXPECT_EQ(orbitctl::run({"list", std::to_string(getpid())}, out, err), 0);
	for (const int each : files)
		close(each);
}

// The portable backend's orbits are told by what they are made of.
TEST_F(FakeProc, OrbitsOfThePortableBackend)
{
	const char pidfd[] = "anon_inode:[pidfd]";

	make_process(50, "server");
	open(50, 3, "/memfd:orbit-pool:ta(ble (deleted)", common);
	open(50, 4, pidfd, common + "Pid:\t76\nNSpid:\t76\n");
	open(50, 5, pidfd, common + "Pid:\t-1\nNSpid:\t0\n");  // it has ended
	open(50, 6, pidfd, common + "Pid:\t90\nNSpid:\t90\n"); // a child
	open(50, 7, pidfd, common + "Pid:\t91\nNSpid:\t91\n"); // somebody else's
	open(50, 8, "/memfd:orbit-view (deleted)", common);
	make_process(76, "orbit:aud) it");
	write("76/stat", "76 (orbit:aud) it) S 75 76\n");
	make_process(75, "orbit:aud) it"); // its fork server
	open(75, 3, "socket:[5]", common);
	open(75, 4, pidfd, common + "Pid:\t50\nNSpid:\t50\n");
	open(75, 5, pidfd, common + "Pid:\t76\nNSpid:\t76\n");
	make_process(90, "child");
	write("90/stat", "90 (child) S 50 90\n");
	make_process(91, "orbit:other");
	write("91/stat", "91 (orbit:other) S 92 91\n");
	make_process(92, "orbit:other");
	open(92, 4, pidfd, common + "Pid:\t51\nNSpid:\t51\n");

	EXPECT_EQ(run({"list", "--json"}), 0);

	const auto json = nlohmann::json::parse(out_.str());

	ASSERT_EQ(json["processes"].size(), 1U) << out_.str();

	const auto &process = json["processes"][0];

	EXPECT_EQ(process["pid"], 50);
	EXPECT_EQ(process["backend"], "portable");
	ASSERT_EQ(process["orbits"].size(), 1U) << out_.str();
	EXPECT_EQ(process["orbits"][0]["name"], "aud) it");
	EXPECT_EQ(process["orbits"][0]["pid"], 76);
	EXPECT_EQ(process["orbits"][0]["fd"], 4);
	EXPECT_TRUE(process["orbits"][0]["state"].is_null());
	ASSERT_EQ(process["pools"].size(), 1U);
	EXPECT_EQ(process["pools"][0]["name"], "ta(ble");

	EXPECT_EQ(run({"list"}), 0);
	EXPECT_TRUE(printed("by the portable backend")) << out_.str();
	EXPECT_EQ(run({"top", "-n", "1"}), 0);
	EXPECT_TRUE(printed("50  server   aud) it   76")) << out_.str();
}

TEST_F(FakeProc, WhatIsNotThere)
{
	EXPECT_EQ(run({"list"}), 0);
	EXPECT_TRUE(printed("no process that may be looked into has orbits"));
	EXPECT_EQ(run({"list", "5"}), 1);
	EXPECT_EQ(err_.str(), "orbitctl: process 5: No such process\n");
	EXPECT_EQ(run({"top", "5"}), 1);
	EXPECT_EQ(err_.str(), "orbitctl: process 5: No such process\n");

	// It ends while it is looked at.
	make_process(6, "ending");
	open(6, 3, orbit_link, dead_orbit);
	std::filesystem::remove(root_ / "6/fdinfo/3");
	std::filesystem::create_directories(root_ / "7/fd");
	EXPECT_EQ(run({"list"}), 0);
	EXPECT_TRUE(printed("no process"));
	EXPECT_EQ(run({"list", "7"}), 1);
	write("8/comm", "no descriptors\n");
	EXPECT_EQ(run({"list", "8"}), 1);
}

TEST_F(FakeProc, WhatMayNotBeLookedInto)
{
	const bool root = !geteuid();

	make_process(5, "secret");
	make_process(6, "open");
	open(6, 3, orbit_link, dead_orbit);
	std::filesystem::permissions(root_ / "5/fd", std::filesystem::perms::none);
	std::filesystem::permissions(root_, static_cast<std::filesystem::perms>(0755));
	if (root) {
		ASSERT_EQ(seteuid(65534), 0);
	}
	EXPECT_EQ(run({"list"}), 0);
	EXPECT_EQ(err_.str(), "orbitctl: 1 process may not be looked into; try as root\n");
	EXPECT_TRUE(printed("process 6 (open)"));
	EXPECT_EQ(run({"list", "5"}), 1);
	EXPECT_EQ(err_.str(), "orbitctl: process 5: Permission denied\n");
	EXPECT_EQ(run({"list", "--json"}), 0);
	EXPECT_TRUE(printed("\"not_permitted\": 1"));
	EXPECT_EQ(run({"top", "-n", "1"}), 0);
	EXPECT_TRUE(printed(", 1 process may not be looked into\n"));
	if (root) {
		ASSERT_EQ(seteuid(0), 0);
	}
	std::filesystem::permissions(root_ / "5/fd", std::filesystem::perms::owner_all);
}

TEST_F(FakeProc, Top)
{
	make_process(50, "server");
	open(50, 10, orbit_link, dead_orbit);
	open(50, 11, orbit_link, running_orbit);
	write("76/stat", "76 (orbit:) x) S 1 2 3 4 5 6 7 8 9 10 400 100 0 0\n");
	write("76/statm", "500 12 3 4 5 6 7\n");
	EXPECT_EQ(run({"top", "-n", "2", "-d", "0.1"}), 0);
	EXPECT_TRUE(printed("  2 orbits\n")) << out_.str();
	// What has a queue comes first; the second round knows rates.
	EXPECT_TRUE(printed("50  server   re?pid:?7   76  running       2        -      3       1         1     -     48K"))
		<< out_.str();
	EXPECT_TRUE(printed("50  server   re?pid:?7   76  running       2      0.0      3       1         1     0     48K"))
		<< out_.str();
	EXPECT_LT(out_.str().find("re?pid"), out_.str().find("audit"));
	EXPECT_EQ(run({"top", "-n", "1", "50"}), 0);

	write("76/stat", "76 garbled");
	EXPECT_EQ(run({"top", "-n", "1"}), 0);
	EXPECT_TRUE(printed("re?pid:?7   76  running       2        -      3       1         1     -       -")) << out_.str();
}

TEST_F(FakeProc, Arguments)
{
	const std::vector<std::string> wrong[] = {
		{},		{"nothing"},	    {"list", "x"},	     {"list", "0"},
		{"list", "-1"}, {"list", "1", "2"}, {"list", "--xml"},	     {"probe", "1"},
		{"top", "-d"},	{"top", "-d", "0"}, {"top", "-d", "nan"},    {"top", "-d", "1s"},
		{"top", "-n"},	{"top", "-n", "0"}, {"top", "-n", "-1"},     {"top", "--json"},
		{"list", ""},	{"list", "-d"},	    {"list", "99999999999"}, {"top", "-d", "1e9"},
	};

	for (const std::vector<std::string> &arguments : wrong) {
		EXPECT_EQ(run(arguments), 2) << (arguments.empty() ? "" : arguments.back());
		EXPECT_NE(err_.str(), "");
		EXPECT_EQ(out_.str(), "");
	}
	EXPECT_EQ(run({"--help"}), 0);
	EXPECT_TRUE(printed("orbitctl probe"));
	EXPECT_EQ(run({"--version"}), 0);
	EXPECT_TRUE(printed("orbitctl 0."));
}

TEST(Orbitctl_Probe, SaysWhatTheLibrarySays)
{
	std::ostringstream out, err;
	const int status = run({"probe"}, out, err);

	EXPECT_EQ(status, orbit_probe(nullptr) ? 1 : 0);
	EXPECT_NE(out.str().find("kernel: "), std::string::npos);
	EXPECT_NE(out.str().find(status ? "Orbits do not work here.\n" : "Orbits work here.\n"),
		  std::string::npos);
}

} // namespace
