// SPDX-License-Identifier: MIT
#include "asker.h"

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

#include <orbit/orbit.h>

namespace deadlock {

namespace {

// A check takes microseconds. A healthy process can be kept waiting for seconds on a busy machine, but does not compute meanwhile.
constexpr std::uint64_t cpu_limit_ns = 500000000;
constexpr std::uint64_t time_limit_ns = 30000000000;
constexpr std::uint64_t memory_limit = 64 << 20;

} // namespace

bool Asker::may_have(char *reason, std::size_t size)
{
	orbit_probe_info info = {};

	info.size = sizeof(info);
	if (orbit_probe(&info) == 0)
		return true;
	std::snprintf(reason, size, "%s %s", info.reason, info.advice);
	return false;
}

bool Asker::make_memory(std::size_t bytes, bool for_orbit, char *reason, std::size_t size)
{
	orbit_pool_options options = {};

	if (memory_)
		return true;
	options.size = sizeof(options);
	options.name = "lock waits";

	const int error = orbit_pool_create(&pool_, bytes, &options);

	if (!error) {
		memory_ = orbit_pool_data(pool_);
	} else if (for_orbit) {
		orbit_describe_error(error, ORBIT_STEP_POOL, reason, size);
		return false;
	} else {
		memory_ = std::calloc(1, bytes);
		if (!memory_) {
			std::snprintf(reason, size, "no memory");
			return false;
		}
	}
	size_ = bytes;
	return true;
}

bool Asker::make(const char *name, char *reason, std::size_t size)
{
	if (!pool_) {
		std::snprintf(reason, size,
			      "when the server began to keep lock waits for a detector, orbits did not work. Restart it.");
		return false;
	}
	if (!desk_) {
		const int error = orbit_shared_create(&desk_, sizeof(Desk), nullptr);

		if (error) {
			orbit_describe_error(error, ORBIT_STEP_SHARE, reason, size);
			return false;
		}
		customer_ = Customer(static_cast<Desk *>(orbit_shared_data(desk_)));
	}

	const orbit_grant grant = {desk_, ORBIT_RIGHTS_WRITE, 0};
	orbit_options options = {};

	options.size = sizeof(options);
	options.flags = ORBIT_RESTART | ORBIT_SHARE;
	options.grants = &grant;
	options.nr_grants = 1;
	options.name = name;
	options.memory_limit = memory_limit;

	const int error = orbit_create(&orbit_, &options);

	if (error)
		orbit_describe_error(error, ORBIT_STEP_CREATE, reason, size);
	return error == 0;
}

void Asker::leave()
{
	drop_task();
	orbit_destroy(orbit_);
	orbit_ = nullptr;
}

void Asker::close()
{
	leave();
	orbit_shared_destroy(desk_);
	desk_ = nullptr;
	if (pool_)
		orbit_pool_destroy(pool_);
	else
		std::free(memory_);
	pool_ = nullptr;
	memory_ = nullptr;
	size_ = 0;
}

void Asker::put(std::size_t bytes, Rule rule)
{
	looks_ = bytes > most_carried;
	error_ = 0;
	if (looks_) {
		const Question question = {memory_, bytes, rule};

		send_away();
		error_ = call(look, &question, sizeof(question));
	} else {
		customer_.ask(memory_, bytes, rule);
	}
}

bool Asker::send()
{
	if (!looks_ && task_ && customer_.is_staffed()) {
		customer_.ring();
	} else if (!looks_) {
		void *const address = orbit_shared_data(desk_);

		customer_.prepare();
		error_ = call(serve, &address, sizeof(address));
	}
	if (!error_)
		return true;

	orbit_outcome outcome = {};

	outcome.size = sizeof(outcome);
	outcome.error = error_;
	fail(error_, outcome);
	return false;
}

Asker::Answer Asker::wait(std::uint64_t ns, std::vector<Deadlock> &found)
{
	orbit_outcome outcome = {};

	outcome.size = sizeof(outcome);
	found.clear();
	if (looks_) {
		int error = orbit_task_wait(task_, orbit_deadline(ns), &outcome);

		if (error == -ETIME)
			return Answer::pending;
		if (!error)
			error = take_update(outcome, found);
		if (error)
			return fail(error, outcome);
		drop_task();
		return Answer::here;
	}
	if (!customer_.wait(ns)) {
		// It may have died; or it has answered just now, and left.
		const int error = orbit_task_wait(task_, ORBIT_NO_WAIT, &outcome);

		if (error == -ETIME)
			return Answer::pending;
		if (error)
			return fail(error, outcome);
		if (!customer_.wait(0))
			return fail(-EBADMSG, outcome);
	}
	found.resize(most);

	const std::size_t count = customer_.take(found.data());

	if (count > most) {
		found.clear();
		send_away(); // the next question is for another task
		return fail(-EBADMSG, outcome);
	}
	found.resize(count);
	return Answer::here;
}

int Asker::call(std::uint64_t (*entry)(const void *, std::size_t), const void *argument, std::size_t size)
{
	orbit_call_options options = {};

	options.size = sizeof(options);
	options.pools = &pool_;
	options.nr_pools = looks_;
	options.time_limit_ns = time_limit_ns;
	options.cpu_limit_ns = cpu_limit_ns;
	drop_task();
	return orbit_call_async(orbit_, entry, argument, size, &options, &task_);
}

// Take the answer of look().
int Asker::take_update(const orbit_outcome &outcome, std::vector<Deadlock> &found)
{
	orbit_update update = {};

	update.size = sizeof(update);
	if (!outcome.updates)
		return 0;

	const int error = orbit_task_receive(task_, ORBIT_NO_WAIT, &update);

	if (error)
		return error;
	if (update.kind != ORBIT_UPDATE_OPERATION || update.target != operation || update.length % sizeof(Deadlock) ||
	    update.length > most * sizeof(Deadlock))
		return -EBADMSG;
	found.resize(update.length / sizeof(Deadlock));
	std::memcpy(found.data(), update.data, update.length);
	return 0;
}

// If there is a task at the desk, it is to leave.
void Asker::send_away()
{
	if (!task_)
		return;
	customer_.ask(nullptr, 0, Rule::mariadb);
	customer_.ring();
}

void Asker::drop_task()
{
	orbit_task_destroy(task_);
	task_ = nullptr;
}

Asker::Answer Asker::fail(int error, const orbit_outcome &outcome)
{
	has_died_ = outcome.cause != 0;
	if (outcome.error)
		orbit_describe(&outcome, why_, sizeof(why_));
	else if (error == -EBADMSG)
		std::snprintf(why_, sizeof(why_), "it answered nonsense");
	else
		orbit_describe_error(error, ORBIT_STEP_RECEIVE, why_, sizeof(why_));
	drop_task();
	return Answer::failed;
}

} // namespace deadlock
