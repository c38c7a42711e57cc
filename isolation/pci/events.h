// SPDX-License-Identifier: MIT
//
// Interrupts of a device that a domain drives.
#ifndef ORBIT_ISOLATION_PCI_EVENTS_H
#define ORBIT_ISOLATION_PCI_EVENTS_H

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>
#include <vector>

namespace orbit::pci {

// Descriptors that count interrupts. The supervisor makes them and has the kernel raise them: it does so anew for each process of
// the domain, and takes it back with the device. They carry no memory, and only the domain reads them. What a mad one does
// to them, or has raised instead, wakes nobody but itself.
class Events {
public:
	explicit Events(std::size_t number)
	{
		while (fds_.size() < number) {
			const int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);

			if (fd < 0)
				return;
			fds_.push_back(fd);
		}
	}
	Events(const Events &) = delete;
	~Events()
	{
		for (const int fd : fds_)
			close(fd);
	}
	const std::vector<int> &fds() const noexcept { return fds_; } // fewer if there is none left

private:
	std::vector<int> fds_;
};

// Sleeps until one of them has counted an interrupt, or `end`, and takes what it has counted. What has come since it was taken last
// has been counted: then this does not sleep.
inline void wait_for_interrupt(int fd, std::chrono::steady_clock::time_point end)
{
	pollfd event{fd, POLLIN, 0};
	std::uint64_t count;
	const auto left = std::chrono::ceil<std::chrono::milliseconds>(end - std::chrono::steady_clock::now()).count();

	if (::poll(&event, 1, static_cast<int>(std::max<std::int64_t>(left, 0))) > 0)
		[[maybe_unused]] const ssize_t taken = ::read(fd, &count, sizeof(count));
}

} // namespace orbit::pci

#endif
