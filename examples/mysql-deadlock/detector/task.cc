// SPDX-License-Identifier: MIT
#include "task.h"

#include "desk.h"
#include "detector.h"
#ifdef DEADLOCK_FAULTS
#include "faults.h"
#endif

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <span>
#include <vector>

#include <orbit/orbit.h>

namespace deadlock {

namespace {

std::span<const Deadlock> find(Detector &detector, const Question &question)
{
#ifdef DEADLOCK_FAULTS
	static std::vector<Deadlock> found;
	const auto right = detector.find(question.memory, question.bytes, question.rule, most);

	record(question, right);
	found.assign(right.begin(), right.end());
	go_wrong(question.memory, question.bytes, found);
	return std::span(found).first(std::min(found.size(), most));
#else
	return detector.find(question.memory, question.bytes, question.rule, most);
#endif
}

Detector &detector()
{
	static Detector one; // the orbit's, which keeps its memory for the next question

	return one;
}

} // namespace

std::uint64_t look(const void *question, std::size_t size)
{
	Question asked{};

	if (size != sizeof(asked))
		std::abort();
	std::memcpy(&asked, question, sizeof(asked));

	const auto found = find(detector(), asked);

	// What cannot be sent was not found: the server is to know that.
	if (!found.empty() && orbit_send_operation(operation, found.data(), found.size_bytes()) != 0)
		std::abort();
	return found.size();
}

std::uint64_t serve(const void *address, std::size_t size)
{
	Desk *desk = nullptr;

	if (size != sizeof(desk))
		std::abort();
	std::memcpy(&desk, address, sizeof(desk));
#ifdef DEADLOCK_FAULTS
	if (fault() == "leave")
		return 0;
#endif
	return answer_at(
		*desk,
		[desk](const Question &question) {
#ifdef DEADLOCK_FAULTS
			if (fault() == "desk")
				overwrite(desk, sizeof(*desk));
#endif
			return find(detector(), question);
		},
		Shift());
}

std::size_t look_here(const Question &question, Deadlock *found)
{
	static Detector detector; // of the only thread that calls this
	const auto all = find(detector, question);

	std::copy(all.begin(), all.end(), found);
	return all.size();
}

} // namespace deadlock
