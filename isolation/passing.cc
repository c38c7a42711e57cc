// SPDX-License-Identifier: MIT
//
// Objects that are passed, see <orbit/passing.hpp>.
//
// A message is a Capability, and behind it the method's message; a reply a Verdict, and behind it the method's reply.
#include <orbit/passing.hpp>

#include <algorithm>
#include <system_error>
#include <thread>

namespace orbit::isolation {
namespace {

struct Verdict {
	std::int32_t error; // 0, or why nobody was called
	std::int32_t unused[3];
};
static_assert(sizeof(Verdict) == 16 && sizeof(Capability) == 16);

constexpr std::uint32_t method_let_go = 0; // others begin with 1

thread_local bool serves_passed; // this thread is one of RingThreads

} // namespace

// The way to one object of the other side.
class PassedObjects::Imported final : public Transport {
public:
	Imported(std::shared_ptr<PassedObjects> from, std::shared_ptr<PassedWay> way, const Capability &capability)
		: from_(std::move(from)), way_(std::move(way)), capability_(capability)
	{
	}
	~Imported() override
	{
		way_->post(method_let_go, {reinterpret_cast<const std::byte *>(&capability_), sizeof(capability_)});
	}

	int call(std::uint32_t method, std::span<const std::byte> args, std::span<std::byte> reply, std::size_t *reply_bytes,
		 std::uint64_t timeout_ns) override
	{
		*reply_bytes = 0;
		if (args.size() > passed_bytes)
			return -EMSGSIZE;
		std::vector<std::byte> message(sizeof(capability_) + args.size());
		std::vector<std::byte> answer(sizeof(Verdict) + std::min(reply.size(), passed_bytes));
		std::size_t bytes = 0;

		std::memcpy(message.data(), &capability_, sizeof(capability_));
		if (!args.empty())
			std::memcpy(message.data() + sizeof(capability_), args.data(), args.size());
		if (const int error = way_->call(method, message, answer, &bytes, timeout_ns))
			return error;
		Verdict verdict;
		if (bytes < sizeof(verdict) || bytes > answer.size())
			return -EPROTO;
		std::memcpy(&verdict, answer.data(), sizeof(verdict));
		if (const int error = verdict.error) {
			// A domain cannot make an error of this side, but say what is no object of its own.
			const bool may_say = from_->trusts_ ? error < 0 && error >= -4095 : error == -ESTALE || error == -EBADF;
			return may_say ? error : -EPROTO;
		}
		*reply_bytes = bytes - sizeof(verdict);
		if (*reply_bytes)
			std::memcpy(reply.data(), answer.data() + sizeof(verdict), *reply_bytes);
		return 0;
	}

	int down() const noexcept override { return way_->down(); }

private:
	std::shared_ptr<PassedObjects> from_;
	std::shared_ptr<PassedWay> way_;
	Capability capability_;
};

void PassedObjects::connect(std::shared_ptr<PassedWay> way)
{
	std::lock_guard lock(mutex_);

	epoch_ += way != nullptr;
	way_.swap(way);
}

std::uint32_t PassedObjects::epoch() const
{
	std::lock_guard lock(mutex_);

	return epoch_;
}

// What was kept goes outside of the lock: its end is the program's code.
void PassedObjects::forget(std::uint32_t epoch)
{
	std::vector<std::shared_ptr<Entry>> gone;
	std::lock_guard lock(mutex_);

	for (std::uint32_t i = 0; i < entries_.size(); i++)
		if (entries_[i] && entries_[i]->kept && entries_[i]->epoch <= epoch) {
			gone.push_back(entries_[i]);
			take_out(i);
		}
}

int PassedObjects::offer(std::shared_ptr<Skeleton> object, Capability *capability)
{
	auto entry = std::make_shared<Entry>();
	std::lock_guard lock(mutex_);
	std::uint32_t place = static_cast<std::uint32_t>(entries_.size());

	if (!free_.empty()) {
		place = free_.back();
		free_.pop_back();
	} else if (place == max_passed) {
		return -ENFILE;
	} else {
		entries_.emplace_back();
	}
	entry->generation = ++generation_;
	entry->type = object->interface_id();
	entry->object = std::move(object);
	*capability = {place, entry->generation, entry->type};
	entries_[place] = std::move(entry);
	return 0;
}

int PassedObjects::find(const Capability &capability, std::shared_ptr<Entry> *entry) const
{
	if (capability.index >= entries_.size())
		return -EBADF;
	*entry = entries_[capability.index];
	if (!*entry || (*entry)->generation != capability.generation)
		return -ESTALE;
	return (*entry)->type == capability.type ? 0 : -EPROTOTYPE;
}

void PassedObjects::take_out(std::uint32_t place)
{
	entries_[place] = nullptr;
	free_.push_back(place);
}

int PassedObjects::withdraw(const Capability &capability)
{
	std::shared_ptr<Entry> entry;
	{
		std::lock_guard lock(mutex_);
		if (const int error = find(capability, &entry))
			return error;
		take_out(capability.index);
	}
	// Of calls that are under way this waits for the end.
	std::shared_ptr<Skeleton> object;
	std::lock_guard calls(entry->calls);
	object.swap(entry->object);
	return 0;
}

void PassedObjects::delivered(const Capability &capability)
{
	std::shared_ptr<Entry> entry;
	std::lock_guard lock(mutex_);

	if (find(capability, &entry))
		return;
	entry->kept = true;
	entry->epoch = epoch_;
	if (entry->let_go || !way_) {
		take_out(capability.index);
	}
}

// By the other side. What was offered for the length of a call stays for that long: the caller's withdraw() has to find
// it, to wait for calls that are under way. What is kept has no owner but the table and those calls.
int PassedObjects::let_go(const Capability &capability)
{
	std::shared_ptr<Entry> entry;
	std::lock_guard lock(mutex_);

	if (const int error = find(capability, &entry))
		return error;
	entry->let_go = true;
	if (entry->kept) {
		take_out(capability.index);
	}
	return 0;
}

int PassedObjects::accept(const Capability &capability, std::uint64_t type, std::shared_ptr<Transport> *transport)
{
	std::lock_guard lock(mutex_);

	if (capability.type != type)
		return -EPROTOTYPE;
	if (!way_)
		return -EHOSTDOWN;
	*transport = std::make_shared<Imported>(shared_from_this(), way_, capability);
	return 0;
}

std::size_t PassedObjects::size() const
{
	std::lock_guard lock(mutex_);

	return entries_.size() - free_.size();
}

int PassedObjects::dispatch(std::uint32_t method, std::span<const std::byte> args, std::span<std::byte> reply,
			    std::size_t *reply_bytes)
{
	Capability capability;
	Verdict verdict{};
	std::size_t bytes = 0;

	*reply_bytes = 0;
	if (args.size() < sizeof(capability) || reply.size() < sizeof(verdict))
		return -EPROTO;
	fetch(&capability, args.data(), sizeof(capability));
	if (method == method_let_go) {
		verdict.error = let_go(capability);
	} else {
		std::shared_ptr<Entry> entry;
		{
			std::lock_guard lock(mutex_);
			verdict.error = find(capability, &entry);
		}
		if (!verdict.error) {
			std::shared_lock calls(entry->calls);
			verdict.error = entry->object ? entry->object->dispatch(method, args.subspan(sizeof(capability)),
										reply.subspan(sizeof(verdict)), &bytes) :
							-ESTALE;
		}
	}
	std::memcpy(reply.data(), &verdict, sizeof(verdict));
	*reply_bytes = sizeof(verdict) + (verdict.error ? 0 : bytes);
	return 0;
}

// Sees to it that somebody serves while this thread is in a call.
class RingThreads::Counting final : public Skeleton {
public:
	explicit Counting(RingThreads &threads) noexcept : threads_(threads) {}

	std::uint64_t interface_id() const noexcept override { return threads_.object_->interface_id(); }
	int dispatch(std::uint32_t method, std::span<const std::byte> args, std::span<std::byte> reply,
		     std::size_t *reply_bytes) override
	{
		{
			std::lock_guard lock(threads_.mutex_);
			if (++threads_.busy_ == threads_.threads_ && threads_.threads_ < passing_threads && !threads_.ending_)
				threads_.add(); // if there can be none the call behind this waits
		}
		const int error = threads_.object_->dispatch(method, args, reply, reply_bytes);
		std::lock_guard lock(threads_.mutex_);
		threads_.busy_--;
		return error;
	}

private:
	RingThreads &threads_;
};

// With the lock.
bool RingThreads::add()
{
	threads_++;
	try {
		std::thread([self = shared_from_this()]() mutable {
			serves_passed = true;
			Counting counting(*self);
			self->server_->serve(counting);
			std::unique_lock lock(self->mutex_);
			if (self->threads_ == 1) {
				lock.unlock();
				self->at_end_();
				self->at_end_ = nullptr;
				self->object_ = nullptr;
				lock.lock();
			}
			self->threads_--;
			self->ended_.notify_all();
		}).detach();
	} catch (const std::system_error &) {
		threads_--;
		return false;
	}
	return true;
}

int RingThreads::start(std::shared_ptr<RingServer> server, std::shared_ptr<Skeleton> object, std::function<void()> at_end,
		       std::shared_ptr<RingThreads> *started)
{
	std::shared_ptr<RingThreads> made(new RingThreads);

	made->server_ = std::move(server);
	made->object_ = std::move(object);
	made->at_end_ = std::move(at_end);
	std::lock_guard lock(made->mutex_);
	if (!made->add())
		return -EAGAIN;
	*started = made;
	return 0;
}

void RingThreads::end()
{
	{
		std::lock_guard lock(mutex_);
		ending_ = true;
	}
	server_->end(-EHOSTDOWN);
}

void RingThreads::wait()
{
	if (serves_passed)
		return;
	std::unique_lock lock(mutex_);
	ended_.wait(lock, [this] { return threads_ == 0; });
}

} // namespace orbit::isolation
