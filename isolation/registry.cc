// SPDX-License-Identifier: MIT
//
// The registry. Readers hold the lock of read-copy-update only while they copy a shared_ptr, and not for the call:
// so a grace period is short, whatever calls do.
#include <orbit/registry.hpp>

#include <urcu/urcu-bp.h>

namespace orbit::isolation {

Slot::~Slot()
{
	// Nobody is in now(): who calls it holds the slot.
	delete served_.load(std::memory_order_acquire);
}

std::shared_ptr<Transport> Slot::now() const
{
	std::shared_ptr<Transport> transport;

	urcu_bp_read_lock();
	if (const Served *served = served_.load(std::memory_order_acquire))
		transport = served->transport;
	urcu_bp_read_unlock();
	return transport;
}

void Slot::change(std::shared_ptr<Transport> transport)
{
	const Served *next = transport ? new Served{std::move(transport)} : nullptr;
	const Served *before = served_.exchange(next, std::memory_order_acq_rel);

	if (!before)
		return;
	urcu_bp_synchronize_rcu();
	delete before;
}

std::shared_ptr<Slot> Registry::slot(std::uint64_t interface_id, std::string_view name)
{
	std::lock_guard lock(mutex_);
	auto &slot = slots_[{interface_id, std::string(name)}];

	if (!slot)
		slot = std::make_shared<Slot>();
	return slot;
}

void Registry::remove(std::uint64_t interface_id, std::string_view name)
{
	std::lock_guard lock(mutex_);

	slots_.erase({interface_id, std::string(name)});
}

std::size_t Registry::size() const
{
	std::lock_guard lock(mutex_);

	return slots_.size();
}

} // namespace orbit::isolation
