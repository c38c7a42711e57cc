// SPDX-License-Identifier: MIT
//
// Calls within one address space, for tests and debugging: what a call costs without a transport, and
// everything that generated code does is done all the same. Nothing is kept apart, and no deadline is kept.
#ifndef ORBIT_DIRECT_HPP
#define ORBIT_DIRECT_HPP

#include <orbit/interface.hpp>

#include <mutex>
#include <shared_mutex>

namespace orbit::isolation {

/// Calls a skeleton. Thread-safe if the implementation is.
class DirectTransport final : public Transport {
public:
	explicit DirectTransport(std::shared_ptr<Skeleton> object) noexcept : object_(std::move(object)) {}

	int call(std::uint32_t method, std::span<const std::byte> args, std::span<std::byte> reply,
		 std::size_t *reply_bytes, std::uint64_t) override
	{
		return object_->dispatch(method, args, reply, reply_bytes);
	}

private:
	std::shared_ptr<Skeleton> object_;
};

/// Objects that are passed by direct calls: one for both sides. To be made by std::make_shared().
class DirectCapabilities final : public Capabilities, public std::enable_shared_from_this<DirectCapabilities> {
public:
	int offer(std::shared_ptr<Skeleton> object, Capability *capability) override
	{
		std::lock_guard lock(mutex_);
		std::size_t i = 0;

		while (i < entries_.size() && entries_[i])
			i++;
		if (i == entries_.size())
			entries_.emplace_back();
		entries_[i] = std::make_shared<Entry>();
		entries_[i]->generation = ++generation_;
		entries_[i]->object = std::move(object);
		*capability = {static_cast<std::uint32_t>(i), entries_[i]->generation,
			       entries_[i]->object->interface_id()};
		return 0;
	}

	int withdraw(const Capability &capability) override
	{
		std::shared_ptr<Entry> entry;
		{
			std::lock_guard lock(mutex_);
			if (int error = find(capability, &entry))
				return error;
			entries_[capability.index] = nullptr;
		}
		// Of calls that are under way this waits for the end.
		std::shared_ptr<Skeleton> object;
		std::lock_guard lock(entry->calls);
		object.swap(entry->object);
		return 0;
	}

	int accept(const Capability &capability, std::uint64_t type, std::shared_ptr<Transport> *transport) override
	{
		std::shared_ptr<Entry> entry;
		std::lock_guard lock(mutex_);

		if (int error = find(capability, &entry))
			return error;
		if (capability.type != type || entry->object->interface_id() != type)
			return -EPROTOTYPE;
		*transport = std::make_shared<Imported>(shared_from_this(), capability, entry);
		return 0;
	}

	/// How many objects are offered.
	std::size_t size() const
	{
		std::lock_guard lock(mutex_);
		std::size_t n = 0;

		for (auto &entry : entries_)
			n += entry != nullptr;
		return n;
	}

private:
	struct Entry {
		std::uint32_t generation;
		std::shared_mutex calls;
		std::shared_ptr<Skeleton> object; // none after withdraw()
	};

	class Imported final : public Transport {
	public:
		Imported(std::shared_ptr<DirectCapabilities> from, const Capability &capability,
			 std::shared_ptr<Entry> entry)
			: from_(std::move(from)), capability_(capability), entry_(std::move(entry))
		{
		}

		~Imported() override { from_->withdraw(capability_); }

		int call(std::uint32_t method, std::span<const std::byte> args, std::span<std::byte> reply,
			 std::size_t *reply_bytes, std::uint64_t) override
		{
			std::shared_lock lock(entry_->calls);

			return entry_->object ? entry_->object->dispatch(method, args, reply, reply_bytes) : -ESTALE;
		}

	private:
		std::shared_ptr<DirectCapabilities> from_;
		Capability capability_;
		std::shared_ptr<Entry> entry_;
	};

	int find(const Capability &capability, std::shared_ptr<Entry> *entry) const
	{
		if (capability.index >= entries_.size())
			return -EBADF;
		*entry = entries_[capability.index];
		return *entry && (*entry)->generation == capability.generation ? 0 : -ESTALE;
	}

	mutable std::mutex mutex_;
	std::vector<std::shared_ptr<Entry>> entries_;
	std::uint32_t generation_ = 0;
};

} // namespace orbit::isolation

#endif
