// SPDX-License-Identifier: MIT
//
// orbitctl on live orbits: this program's own, as /proc tells of them.
#include "../../liborbit/orbitctl/command.h"
#include "orbit_test.h"

#include <fcntl.h>
#include <nlohmann/json.hpp>
#include <pty.h>
#include <sstream>
#include <string>
#include <vector>

namespace {

using Json = nlohmann::json;

// What carries orbits here otherwise has no descriptors that the kernel tells of.
class Orbitctl : public testing::Test {
protected:
	void SetUp() override
	{
		if (std::string(orbit::probe().backend) != "kernel")
			GTEST_SKIP() << "orbitctl lists the kernel's orbits";
	}
	int run(std::vector<std::string> arguments)
	{
		out_.str("");
		err_.str("");
		return orbitctl::run(arguments, out_, err_);
	}
	Json list()
	{
		EXPECT_EQ(run({"list", "--json", std::to_string(getpid())}), 0) << err_.str();
		return Json::parse(out_.str())["processes"][0];
	}
	// The orbit with this name.
	Json find(const std::string &name)
	{
		const Json process = list();

		for (const Json &orbit : process["orbits"])
			if (orbit["name"] == name)
				return orbit;
		return {};
	}

	std::ostringstream out_, err_;
};

TEST_F(Orbitctl, Probe)
{
	EXPECT_EQ(run({"probe"}), 0);
	EXPECT_NE(out_.str().find("kernel: works\n"), std::string::npos) << out_.str();
	EXPECT_NE(out_.str().find("Orbits work here.\n"), std::string::npos);
}

TEST_F(Orbitctl, AnOrbitFromItsBeginningToItsEnd)
{
	orbit::Pool pool = make_pool(3 * page);
	orbit::Orbit orbit = make_orbit({.name = "watched"});
	auto *number = pool.construct<int>(5);
	Json seen = find("watched");

	EXPECT_EQ(seen["state"], "idle");
	EXPECT_EQ(seen["pid"], pid_of(orbit));
	EXPECT_EQ(seen["calls"], 0);
	EXPECT_EQ(seen["queue_limit"], ORBIT_DEFAULT_QUEUE);
	EXPECT_TRUE(seen["last_end"].is_null());

	EXPECT_EQ(orbit.call(pool, [](int *n) { return *n; }, number), 5);
	seen = find("watched");
	EXPECT_EQ(seen["calls"], 1);
	EXPECT_EQ(seen["completed"], 1);
	EXPECT_EQ(seen["pages_protected"], 1);

	const Json process = list();

	EXPECT_EQ(process["pid"], getpid());
	ASSERT_EQ(process["pools"].size(), 1U);
	EXPECT_EQ(process["pools"][0]["size"], 3 * page);
	EXPECT_EQ(process["pools"][0]["address"], reinterpret_cast<std::uintptr_t>(pool.data()));
	EXPECT_EQ(process["pools"][0]["snapshots"], 1);

	EXPECT_FALSE(orbit.call({}, [](std::uintptr_t nowhere) { *reinterpret_cast<volatile int *>(nowhere) = 1; },
				std::uintptr_t{16}));
	seen = find("watched");
	EXPECT_EQ(seen["state"], "dead");
	EXPECT_EQ(seen["failed"], 1);
	EXPECT_EQ(seen["last_end"]["task"], 2);
	EXPECT_EQ(seen["last_end"]["text"], "killed by signal 11 (SIGSEGV) at address 0x10, in task 2");
}

TEST_F(Orbitctl, AQueueAndItsTasks)
{
	Pipe go;
	const int keep[] = {go.read_end};
	orbit::Orbit orbit = make_orbit({.name = "busy", .keep_fds = keep});
	auto runs = value_or_throw(orbit.call_async({}, [](int fd) {
		char byte;

		return read(fd, &byte, 1);
	}, go.read_end));
	auto waits = value_or_throw(orbit.call_async({}, [] { return 1; }));

	EXPECT_TRUE(eventually([&] { return find("busy")["state"] == "running"; }));

	const Json process = list();

	EXPECT_EQ(find("busy")["queued"], 2);
	ASSERT_EQ(process["tasks"].size(), 2U);
	EXPECT_EQ(process["tasks"][0]["orbit"], "busy");
	EXPECT_EQ(process["tasks"][0]["task"], runs.number());
	EXPECT_EQ(process["tasks"][0]["state"], "running");
	EXPECT_EQ(process["tasks"][1]["state"], "waiting");
	go.put('g');
	EXPECT_EQ(waits.wait(), 1);
	EXPECT_EQ(list()["tasks"][1]["state"], "ended");
}

TEST_F(Orbitctl, RestartsAndOddNames)
{
	orbit::Orbit orbit = make_orbit({.name = "odd\npid:\t1\nstate:\tdead", .restart = true});

	EXPECT_FALSE(orbit.call({}, [] { std::raise(SIGKILL); }));
	EXPECT_TRUE(orbit.call({}, [] {}));

	const Json seen = find("odd\npid:\t1\nstate:\tdead");

	EXPECT_EQ(seen["state"], "idle");
	EXPECT_EQ(seen["pid"], pid_of(orbit));
	EXPECT_EQ(seen["restart"], 1);
	EXPECT_EQ(seen["restarts"], 1);
	EXPECT_GT(seen["template_pid"], 0);
	EXPECT_EQ(seen["last_end"]["text"], "killed by signal 9 (SIGKILL), in task 1");
	EXPECT_EQ(run({"list", std::to_string(getpid())}), 0);
	EXPECT_NE(out_.str().find("odd?pid:?1?state:?dead"), std::string::npos) << out_.str();
}

// All processes: the main program is found, its orbits' own processes are not taken for more.
TEST_F(Orbitctl, AllProcesses)
{
	orbit::Orbit orbit = make_orbit({.name = "one"});

	EXPECT_EQ(run({"list", "--json"}), 0);

	const Json all = Json::parse(out_.str());
	int found = 0;

	for (const Json &process : all["processes"])
		for (const Json &seen : process["orbits"])
			found += seen["name"] == "one";
	EXPECT_EQ(found, 1) << out_.str();
}

// On a terminal, until q.
TEST_F(Orbitctl, TopOnATerminal)
{
	orbit::Orbit orbit = make_orbit({.name = "on screen"});
	const winsize size = {10, 60, 0, 0};
	const std::string main_program = std::to_string(getpid());
	int terminal = -1;
	const pid_t pid = forkpty(&terminal, nullptr, nullptr, &size);

	if (!pid) {
		std::ostringstream err;

		// The terminal is standard output; so is that of the stream.
		struct Out : std::streambuf {
			int overflow(int c) override
			{
				const char byte = static_cast<char>(c);

				return write(1, &byte, 1) == 1 ? c : traits_type::eof();
			}
		} buffer;
		std::ostream out(&buffer);

		_exit(orbitctl::run({"top", "-d", "0.2", main_program}, out, err));
	}
	ASSERT_GT(pid, 0);

	std::string text;
	bool asked = false;
	int status = -1;

	EXPECT_TRUE(eventually([&] {
		pollfd fd = {terminal, POLLIN, 0};
		char bytes[4096];

		if (poll(&fd, 1, 100) == 1) {
			const ssize_t count = read(terminal, bytes, sizeof(bytes));

			text.append(bytes, count > 0 ? static_cast<std::size_t>(count) : 0);
		}
		// The second round.
		if (!asked && text.find("on screen", text.find("\033[J") + 1) != std::string::npos &&
		    text.find("\033[J") != std::string::npos)
			asked = write(terminal, "q", 1) == 1;
		return waitpid(pid, &status, WNOHANG) == pid;
	}));
	EXPECT_TRUE(asked) << text;
	EXPECT_EQ(status, 0);
	EXPECT_NE(text.find("\033[?1049l"), std::string::npos) << "the old screen is back";
	close(terminal);
}

} // namespace
