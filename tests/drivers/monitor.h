// SPDX-License-Identifier: MIT
//
// For tests of drivers, in a guest that has its machine's monitor.
#ifndef ORBIT_TESTS_DRIVERS_MONITOR_H
#define ORBIT_TESTS_DRIVERS_MONITOR_H

#include "machine.h"

#include <gtest/gtest.h>
#include <poll.h>

namespace machine {

/// QEMU's monitor (QMP: JSON in lines), by a port of this machine's.
class Monitor {
public:
	// One for all tests: it says hello once.
	static Monitor &only()
	{
		static Monitor one;

		return one;
	}
	bool is_there() const { return fd_ >= 0; }

	// Whether it has done it.
	bool run(const std::string &command)
	{
		if (write(fd_, (command + "\n").data(), command.size() + 1) != static_cast<ssize_t>(command.size() + 1))
			return false;
		std::string answer;
		const bool answered = wait_until([&] {
			take();
			for (auto line = lines_.begin(); line != lines_.end(); line++)
				if (line->starts_with("{\"return\"") || line->starts_with("{\"error\"")) {
					answer = *line;
					lines_.erase(line);
					return true;
				}
			return false;
		});
		EXPECT_TRUE(answered && answer.starts_with("{\"return\"")) << command << ": " << answer;
		return answered && answer.starts_with("{\"return\"");
	}

	// Waits for an event.
	bool tells(const std::string &event)
	{
		return wait_until([&] {
			take();
			return std::erase_if(lines_, [&](const std::string &line) { return line.find(event) != line.npos; }) > 0;
		});
	}

private:
	Monitor()
	{
		for (const std::string &port : names_in("/sys/class/virtio-ports"))
			if (read_text("/sys/class/virtio-ports/" + port + "/name") == "monitor")
				fd_ = open(("/dev/" + port).c_str(), O_RDWR | O_CLOEXEC);
		if (fd_ >= 0)
			run(R"({"execute": "qmp_capabilities"})");
	}

	// What has been said. Where nobody has read it yet the last line may have no end.
	void take()
	{
		char text[4096];
		pollfd readable{fd_, POLLIN, 0};

		while (poll(&readable, 1, 0) == 1 && (readable.revents & POLLIN)) {
			const ssize_t n = read(fd_, text, sizeof(text));
			if (n <= 0)
				return;
			rest_.append(text, static_cast<std::size_t>(n));
		}
		for (std::size_t end; (end = rest_.find('\n')) != rest_.npos; rest_.erase(0, end + 1))
			lines_.push_back(rest_.substr(0, rest_.find('\r')));
	}

	int fd_ = -1;
	std::string rest_;
	std::vector<std::string> lines_;
};

} // namespace machine

#endif
