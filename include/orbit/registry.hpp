// SPDX-License-Identifier: MIT
//
// Which object serves an interface now. Who calls looks there at each call, without a lock; at a restart another
// object takes the place, and the one before goes when the last call that had found it has ended.
//
//	auto slot = registry.slot(Echo_wire::interface.id, "echo");	// once
//	auto transport = slot->now();					// at each call
//
// By liburcu: a program that uses it links with -lurcu-bp (Debian: liburcu-dev). Threads need not be registered.
#ifndef ORBIT_REGISTRY_HPP
#define ORBIT_REGISTRY_HPP

#include <orbit/interface.hpp>

#include <atomic>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <utility>

namespace orbit::isolation {

/// A place for the object that serves now. Thread-safe.
class Slot {
public:
	Slot() = default;
	Slot(const Slot &) = delete;
	Slot &operator=(const Slot &) = delete;
	~Slot();

	/// The way to the object that serves now; nullptr if none does. Takes no lock, and waits for nothing. What
	/// it returns can be called as long as it is held, whatever has taken its place meanwhile.
	std::shared_ptr<Transport> now() const;

	/// Puts another into its place, or none. When it returns nobody finds the one before any more. Waits until
	/// every now() that had begun has ended: so not within one.
	void change(std::shared_ptr<Transport> transport);

private:
	struct Served {
		std::shared_ptr<Transport> transport;
	};

	std::atomic<const Served *> served_{nullptr};
};

/// Calls whatever serves when the call is made; -EHOSTDOWN if nothing does. Thread-safe.
class SlotTransport final : public Transport {
public:
	explicit SlotTransport(std::shared_ptr<const Slot> slot) noexcept : slot_(std::move(slot)) {}

	int call(std::uint32_t method, std::span<const std::byte> args, std::span<std::byte> reply,
		 std::size_t *reply_bytes, std::uint64_t timeout_ns) override
	{
		const std::shared_ptr<Transport> transport = slot_->now();

		return transport ? transport->call(method, args, reply, reply_bytes, timeout_ns) : -EHOSTDOWN;
	}

	int down() const noexcept override { return slot_->now() ? 0 : -EHOSTDOWN; }

private:
	std::shared_ptr<const Slot> slot_;
};

/// Slots by the interface and the name of who serves it. Thread-safe; to look one up takes a lock.
class Registry {
public:
	/// The slot of that interface and name, which is made if there is none: one may look for what serves later.
	std::shared_ptr<Slot> slot(std::uint64_t interface_id, std::string_view name);

	/// Forgets a slot. Who has it keeps it.
	void remove(std::uint64_t interface_id, std::string_view name);

	/// How many there are.
	std::size_t size() const;

private:
	mutable std::mutex mutex_;
	std::map<std::pair<std::uint64_t, std::string>, std::shared_ptr<Slot>, std::less<>> slots_;
};

} // namespace orbit::isolation

#endif
