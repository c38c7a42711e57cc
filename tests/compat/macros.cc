// SPDX-License-Identifier: MIT
//
// The published API in C++, with its macros: a body that runs in the main program, with values
// from the orbit.
#include "orbit.h"

#include "tap.h"

#include <cstdlib>
#include <cstring>
#include <functional>
#include <map>
#include <utility>
#include <vector>

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

struct Node : orbit::global_new_operator {
	int value;
	explicit Node(int v) : value(v) {}
};

typedef std::vector<int, orbit::allocator<int>> PoolVector;
typedef std::map<int, int, std::less<int>, orbit::global_allocator<std::pair<const int, int>>> PoolMap;

struct Roots {
	PoolVector *vector;
	PoolMap *map;
	Node *node;
};

unsigned long sum_of(void *, void *arg)
{
	const Roots *roots = static_cast<const Roots *>(arg);
	unsigned long sum = static_cast<unsigned long>(roots->node->value);

	for (int value : *roots->vector)
		sum += static_cast<unsigned long>(value);
	for (const auto &entry : *roots->map)
		sum += static_cast<unsigned long>(entry.second);
	return sum;
}

void containers_lie_in_pools()
{
	orbit_pool *pool = orbit_pool_create(nullptr, 1 << 20);
	orbit_allocator *alloc = orbit_allocator_from_pool(pool, true);
	PoolVector on_the_heap((orbit::allocator<int>(nullptr)));

	on_the_heap.push_back(1);
	CHECK(alloc && alloc->start == pool->rawptr && alloc->length == pool->length &&
	      alloc->allocated == &pool->used && alloc->use_meta);
	CHECK(!orbit_allocated_by(&on_the_heap[0], alloc));

	orbit::global_allocator<int> before;
	int *early = before.allocate(1); // from the heap, and given back there

	orbit::set_global_allocator(alloc);
	before.deallocate(early, 1);

	orbit_module *module = orbit_create("sum", sum_of, nullptr);
	PoolVector *vector = new (orbit_alloc(alloc, sizeof(PoolVector))) PoolVector(orbit::allocator<int>(alloc));
	PoolMap *map = new (orbit_alloc(alloc, sizeof(PoolMap))) PoolMap;
	Roots roots = {vector, map, new Node(1000)};

	CHECK(orbit_allocated_by(roots.node, alloc));
	for (int i = 1; i <= 100; i++) {
		vector->push_back(i);
		(*map)[i] = 2 * i;
	}
	CHECK(orbit_allocated_by(&(*vector)[0], alloc) && orbit_allocated_by(&*map->begin(), alloc));
	CHECK(orbit_call(module, 1, &pool, nullptr, &roots, sizeof(roots)) == 1000 + 5050 + 10100);
	CHECK(vector->get_allocator() == orbit::allocator<int>(alloc));
	CHECK(vector->get_allocator() != orbit::allocator<int>(nullptr));
	delete roots.node;
	map->clear();
	vector->clear();
	orbit::set_global_allocator(nullptr);
	orbit_destroy_all();
}

} // namespace

int main()
{
	static const test tests[] = {
		TEST(bodies_run_in_the_main_program),
		TEST(containers_lie_in_pools),
	};

	return run_tests(tests, sizeof(tests) / sizeof(*tests));
}
