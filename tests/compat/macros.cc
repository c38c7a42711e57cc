// SPDX-License-Identifier: MIT
//
// The published API in C++, with its macros: a body that runs in the main program, with values
// from the orbit.
#include "orbit.h"

#include "tap.h"

#include <cstdlib>
#include <cstring>
#include <map>

namespace {

struct Session {
	int id;
	long idle;
	bool closed;
};

std::map<int, Session> sessions; // the main program's own, not in a pool
long ran;

unsigned long find_idle(void *, void *arg)
{
	const long limit = *static_cast<long *>(arg);
	orbit_scratch s;
	int closed = 0;

	if (orbit_scratch_create(&s))
		return 0;
	// The orbit looks at its copy, and has the main program change the original.
	for (auto &entry : sessions) {
		Session *session = &entry.second;
		const int id = session->id;
		const long idle = session->idle;

		if (idle <= limit)
			continue;
		session->closed = true;
		closed++;
		orbit_scratch_run1(&s, int, id, sessions.at(id).closed = true);
		orbit_scratch_run2(&s, Session *, session, long, idle, {
			if (session->idle == idle)
				ran += 10;
		});
	}

	const char *name = "scan";

	orbit_scratch_run3(&s, int, closed, long, limit, const char *, name,
			   if (limit == 650 && !std::strcmp(name, "scan")) ran += 100, ran += closed);
	return orbit_sendv(&s) ? 0 : static_cast<unsigned long>(closed);
}

void bodies_run_in_the_main_program()
{
	orbit_pool *pool = orbit_pool_create(nullptr, 1 << 20);

	CHECK(orbit_scratch_set_pool(pool) == 0);
	for (int id = 0; id < 10; id++)
		sessions[id] = Session{id, id * 100, false};

	orbit_module *module = orbit_create("sessions", find_idle, nullptr);
	orbit_result result;
	orbit_task task;
	long limit = 650;

	CHECK(module);
	CHECK(orbit_call_async(module, 0, 0, nullptr, nullptr, &limit, sizeof(limit), &task) == 0);
	CHECK(orbit_recvv(&result, &task) == 1);
	CHECK(result.scratch.count == 7);
	CHECK(ran == 0);
	CHECK(orbit_apply(&result.scratch, false) == ORBIT_END);
	CHECK(ran == 133);
	for (int id = 0; id < 10; id++)
		CHECK(sessions.at(id).closed == (id >= 7));
	CHECK(orbit_recvv_finish(&result.scratch) == 0);
	CHECK(orbit_recvv(&result, &task) == 0 && result.retval == 3);
	CHECK(orbit_destroy(module->gobid) == 0);
}

} // namespace

int main()
{
	static const test tests[] = {
		TEST(bodies_run_in_the_main_program),
	};

	return run_tests(tests, sizeof(tests) / sizeof(*tests));
}
