// SPDX-License-Identifier: MIT
//
// Request and response of iceoryx, for domains.cc, which runs this if it is there: what it makes of a process
// lasts until its end.
//
//	iceoryx BYTES PROCESSOR looks|sleeps
//
// A client on processor 0 and a server on the other one or the same. For each line of stdin, a number, the client does so
// many round trips, and prints how many nanoseconds they took. At the end of stdin everything ends: the daemon too, and with it
// what it has in /dev/shm.
#include <iceoryx_hoofs/log/logmanager.hpp>
#include <iceoryx_posh/popo/untyped_client.hpp>
#include <iceoryx_posh/popo/untyped_server.hpp>
#include <iceoryx_posh/popo/wait_set.hpp>
#include <iceoryx_posh/runtime/posh_runtime.hpp>

#include <atomic>
#include <chrono>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include <fcntl.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

using namespace iox::popo;

namespace {

[[noreturn]] void die(const char *what)
{
	std::fprintf(stderr, "iceoryx: %s\n", what);
	std::exit(1);
}

void run_on(int processor)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(processor, &set);
	if (sched_setaffinity(0, sizeof(set), &set))
		die("sched_setaffinity");
}

pid_t start_daemon()
{
	const pid_t pid = fork();

	if (pid < 0)
		die("fork");
	if (!pid) {
		const int nothing = open("/dev/null", O_RDWR);
		prctl(PR_SET_PDEATHSIG, SIGTERM);
		dup2(nothing, 0), dup2(nothing, 1), dup2(nothing, 2);
		execlp("iox-roudi", "iox-roudi", "--monitoring-mode", "off", "--log-level", "off", nullptr);
		_exit(127);
	}
	return pid;
}

const iox::capro::ServiceDescription service{"orbit", "bench", "bytes"};

template <class Port, class State> class Waiting {
public:
	Waiting(Port &port, State state, bool sleeps) : sleeps_(sleeps)
	{
		if (sleeps && set_.attachState(port, state).has_error())
			die("attachState");
	}
	// Until there may be something.
	void wait()
	{
		if (sleeps_)
			set_.timedWait(iox::units::Duration::fromMilliseconds(100));
		else
			__builtin_ia32_pause();
	}

private:
	WaitSet<> set_;
	bool sleeps_;
};

void serve(std::uint32_t bytes, bool sleeps, const std::atomic<bool> &ends)
{
	iox::runtime::PoshRuntime::initRuntime("orbit-bench-server");
	UntypedServer server(service);
	Waiting waiting(server, ServerState::HAS_REQUEST, sleeps);

	while (!ends.load(std::memory_order_relaxed)) {
		bool found = false;
		server.take().and_then([&](const void *request) {
			found = true;
			server.loan(RequestHeader::fromPayload(request), bytes, 8)
				.and_then([&](void *response) {
					std::memcpy(response, request, 8);
					server.send(response).or_else([](auto) { die("the response"); });
				})
				.or_else([](auto) { die("memory for a response"); });
			server.releaseRequest(request);
		});
		if (!found)
			waiting.wait();
	}
}

void trip(UntypedClient &client, Waiting<UntypedClient, ClientState> &waiting, std::uint32_t bytes, std::uint64_t number)
{
	client.loan(bytes, 8)
		.and_then([&](void *request) {
			std::memcpy(request, &number, 8);
			client.send(request).or_else([](auto) { die("the request"); });
		})
		.or_else([](auto) { die("memory for a request"); });
	for (bool found = false; !found;) {
		client.take().and_then([&](const void *response) {
			found = !std::memcmp(response, &number, 8);
			client.releaseResponse(response);
		});
		if (!found)
			waiting.wait();
	}
}

void call(std::uint32_t bytes, bool sleeps, std::FILE *results)
{
	alarm(60); // if there is no daemon, or no server
	iox::runtime::PoshRuntime::initRuntime("orbit-bench-client");
	UntypedClient client(service);
	Waiting waiting(client, ClientState::HAS_RESPONSE, sleeps);
	std::uint64_t number = 0;
	unsigned many;

	while (client.getConnectionState() != iox::ConnectionState::CONNECTED)
		usleep(1000);
	alarm(0);
	while (std::scanf("%u", &many) == 1) {
		const auto begin = std::chrono::steady_clock::now();
		for (unsigned n = 0; n < many; n++)
			trip(client, waiting, bytes, ++number);
		std::fprintf(results, "%lld\n", static_cast<long long>((std::chrono::steady_clock::now() - begin).count()));
		std::fflush(results);
	}
}

} // namespace

int main(int argc, char **argv)
{
	if (argc != 4)
		die("iceoryx BYTES PROCESSOR looks|sleeps");
	const auto bytes = static_cast<std::uint32_t>(std::atoi(argv[1]));
	const int processor = std::atoi(argv[2]);
	const bool sleeps = !std::strcmp(argv[3], "sleeps");
	iox::log::LogManager::GetLogManager().SetDefaultLogLevel(iox::log::LogLevel::kOff, iox::log::LogLevelOutput::kHideLogLevel);
	auto *ends = static_cast<std::atomic<bool> *>(
		mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
	// The library also writes there.
	std::FILE *results = fdopen(dup(1), "w");
	dup2(2, 1);
	const pid_t daemon = start_daemon();
	const pid_t server = fork();

	if (!server) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		run_on(processor);
		serve(bytes, sleeps, *ends);
		return 0;
	}
	const pid_t client = fork();
	if (!client) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		run_on(0);
		call(bytes, sleeps, results);
		return 0;
	}
	int status = 0;
	waitpid(client, &status, 0);
	ends->store(true);
	if (status)
		kill(server, SIGKILL); // it waits as well
	waitpid(server, nullptr, 0);
	kill(daemon, SIGTERM);
	waitpid(daemon, nullptr, 0);
	return status ? 1 : 0;
}
