// SPDX-License-Identifier: MIT
#include <orbit/coroutine.hpp>

#include <algorithm>
#include <thread>

namespace orbit {

using Clock = std::chrono::steady_clock;
using isolation::Exchange;

namespace {

constexpr unsigned looks = 200; // before the clock is read
constexpr auto slice = std::chrono::milliseconds(1);

} // namespace

namespace isolation {

// Of a thread: with it ends what it keeps, and from then on it keeps nothing.
struct Frames::End {
	~End()
	{
		for (Kind &kept : here_) {
			kept.room = 0;
			while (kept.first)
				::operator delete(std::exchange(kept.first, kept.first->next));
		}
	}
};

void Frames::full(std::size_t kind) noexcept
{
	static thread_local bool begun = false;

	if (begun) {
		Kind &kept = here_[kind];
		kept.room++;
		::operator delete(std::exchange(kept.first, kept.first->next));
		return;
	}
	begun = true;
	static thread_local const End end;
	for (std::size_t each = 0; each < kinds; each++)
		here_[each].room += static_cast<long>(bytes_of_a_kind / (least << each));
}

Exchange::~Exchange()
{
	if (loop_)
		std::erase(loop_->waiting_, this), std::erase(loop_->ready_, this);
	if (at_ == At::under_way)
		finish();
}

bool Exchange::start()
{
	error_ = ring_->start(method_, args_.written(), &ticket_, true);
	at_ = !error_ ? At::under_way : error_ == -EAGAIN ? At::waits_for_slot : At::no;
	return at_ != At::waits_for_slot;
}

bool Exchange::await_ready()
{
	if (!args_.fits()) {
		error_ = -EMSGSIZE;
		return true;
	}
	if (!ring_ || !Loop::current_) {
		error_ = transport_.call(method_, args_.written(), reply_, &bytes_, timeout_ns_);
		return true;
	}
	if (!timeout_ns_) {
		error_ = -ETIMEDOUT;
		return true;
	}
	start();
	return at_ == At::no;
}

void Exchange::await_suspend(std::coroutine_handle<> waiter) noexcept
{
	waiter_ = waiter;
	loop_ = Loop::current_;
	loop_->waiting_.push_back(this);
}

} // namespace isolation

// Resumes who has a reply.
void Loop::step()
{
	if (waiting_.empty())
		std::terminate(); // for what would they wait?
	std::erase_if(waiting_, [this](Exchange *each) {
		const bool ends = each->at_ == Exchange::At::waits_for_slot
					  ? each->start() && each->at_ == Exchange::At::no
					  : each->at_ == Exchange::At::under_way && each->ring_->ready(each->ticket_);
		if (ends)
			ready_.push_back(each);
		return ends;
	});
	// Those who have no reply must not wait for ever because others have.
	if (++steps_ % looks == 0)
		expire();
	if (ready_.empty())
		rest();
	else
		resume();
}

void Loop::resume()
{
	idle_ = 0;
	while (!ready_.empty()) {
		Exchange *one = ready_.front();
		ready_.pop_front();
		if (one->at_ == Exchange::At::under_way)
			one->finish();
		one->loop_ = nullptr;
		one->waiter_.resume();
	}
}

void Loop::rest()
{
	if (!idle_++)
		for (const Exchange *each : waiting_)
			each->ring_->kick();
	if (idle_ < looks)
		return;
	expire();
	if (!ready_.empty()) {
		resume();
		return;
	}
	const auto oldest = std::find_if(waiting_.begin(), waiting_.end(),
					 [](const Exchange *each) { return each->at_ == Exchange::At::under_way; });
	if (oldest == waiting_.end())
		std::this_thread::sleep_for(slice / 10);
	else
		(*oldest)->ring_->wait((*oldest)->ticket_, std::chrono::nanoseconds(slice).count());
}

void Loop::expire()
{
	const auto now = Clock::now();

	std::erase_if(waiting_, [&](Exchange *each) {
		if (each->deadline_ == Clock::time_point{}) {
			const auto most = std::chrono::nanoseconds(std::chrono::hours(24 * 365));
			each->deadline_ = now + (each->timeout_ns_ < static_cast<std::uint64_t>(most.count())
							 ? std::chrono::nanoseconds(each->timeout_ns_)
							 : most);
		}
		if (now < each->deadline_)
			return false;
		if (each->at_ == Exchange::At::waits_for_slot) {
			each->error_ = -ETIMEDOUT;
			each->at_ = Exchange::At::no;
		}
		ready_.push_back(each); // finish() abandons what is under way
		return true;
	});
}

} // namespace orbit
