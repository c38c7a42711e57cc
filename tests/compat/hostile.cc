// SPDX-License-Identifier: MIT
//
// The published API, with an orbit that goes around its library: it sends announcements,
// pages and bytes of its own making.
#include "../../liborbit/compat/internal.h"

#include "tap.h"

#include <cstdio>
#include <initializer_list>

namespace {

constexpr std::size_t page = 4096;

published_pool *scratch_pool, *data_pool;
orbit_module *module_;

enum class Trick {
	odd_length,
	not_a_page,
	past_the_end,
	no_length_but_records,
	over_one_that_is_held,
	fewer_pages_than_announced,
	more_pages_than_announced,
	no_pages,
	bytes_instead_of_pages,
	pages_of_another_pool,
	unknown_operation,
	short_announcement,
	pages_without_announcement,
	pages_of_the_control,
	long_update,
};

struct Order {
	Trick trick;
	char *held; // in the scratch pool
	char *data; // the other pool
};

void announce(std::uint64_t offset, std::uint64_t length, std::uint64_t count)
{
	const orbit_compat::ScratchMessage message = {offset, length, count};

	orbit_send_operation(orbit_compat::scratch_message, &message, sizeof(message));
}

// Some pages with nothing in them, but written to.
void touch(void *start, std::size_t pages)
{
	for (std::size_t i = 0; i < pages; i++)
		static_cast<char *>(start)[i * page] = 'h';
}

unsigned long play(void *, void *arg)
{
	const auto *order = static_cast<const Order *>(arg);
	orbit_scratch s{};
	char byte = 'b';

	if (orbit_scratch_create(&s))
		return 1;

	auto *free_pages = static_cast<char *>(s.ptr);
	const auto offset = static_cast<std::size_t>(free_pages - static_cast<char *>(scratch_pool->rawptr));

	switch (order->trick) {
	case Trick::odd_length:
		announce(offset, 100, 1);
		touch(free_pages, 1);
		return static_cast<unsigned long>(orbit_send_pages(free_pages, page));
	case Trick::not_a_page:
		announce(offset + 16, page, 1);
		touch(free_pages, 1);
		return static_cast<unsigned long>(orbit_send_pages(free_pages, page));
	case Trick::past_the_end:
		announce(offset, UINT64_MAX - 4095, 1);
		touch(free_pages, 1);
		return static_cast<unsigned long>(orbit_send_pages(free_pages, page));
	case Trick::no_length_but_records:
		announce(offset, 0, 1);
		return 0;
	case Trick::over_one_that_is_held: {
		const auto held = static_cast<std::size_t>(order->held - static_cast<char *>(scratch_pool->rawptr));

		announce(held, page, 0);
		touch(order->held, 1);
		return static_cast<unsigned long>(orbit_send_pages(order->held, page));
	}
	case Trick::fewer_pages_than_announced:
		announce(offset, 4 * page, 0);
		touch(free_pages, 2);
		return static_cast<unsigned long>(orbit_send_pages(free_pages, 2 * page));
	case Trick::more_pages_than_announced:
		announce(offset, page, 0);
		touch(order->held, 1);
		touch(free_pages, 2);
		return static_cast<unsigned long>(
			orbit_send_pages(scratch_pool->rawptr, scratch_pool->length));
	case Trick::no_pages:
		announce(offset, page, 1);
		return 0;
	case Trick::bytes_instead_of_pages:
		announce(offset, page, 1);
		return static_cast<unsigned long>(orbit_send_bytes(order->data, &byte, 1));
	case Trick::pages_of_another_pool:
		announce(offset, page, 1);
		touch(order->data, 1);
		return static_cast<unsigned long>(orbit_send_pages(order->data, page));
	case Trick::unknown_operation:
		return static_cast<unsigned long>(orbit_send_operation(5, &byte, 1));
	case Trick::short_announcement:
		return static_cast<unsigned long>(
			orbit_send_operation(orbit_compat::scratch_message, &byte, 1));
	case Trick::pages_without_announcement:
		touch(order->held, 1);
		return static_cast<unsigned long>(orbit_send_pages(order->held, page));
	case Trick::pages_of_the_control: {
		auto *control = const_cast<orbit_compat::Control *>(orbit_compat::call_info->control);

		std::memset(static_cast<void *>(control), 0xff, page);
		return static_cast<unsigned long>(orbit_send_pages(control, page));
	}
	case Trick::long_update: {
		static char bytes[ORBIT_BUFFER_MAX + 1];

		return static_cast<unsigned long>(orbit_send_bytes(order->data, bytes, sizeof(bytes)));
	}
	}
	return 2;
}

unsigned long send_one(void *, void *)
{
	orbit_scratch s;

	return orbit_scratch_create(&s) || !orbit_scratch_push_any(&s, const_cast<char *>("kept"), 5) ||
	       orbit_sendv(&s);
}

// A scratch that the main program holds while the orbit plays its tricks.
class Held {
public:
	Held()
	{
		published_task task;
		published_result end;

		CHECK(published_call_async(module_, 0, 0, nullptr, send_one, nullptr, 0, &task) == 0);
		CHECK(orbit_recvv(&result_, &task) == 1);
		CHECK(orbit_recvv(&end, &task) == 0 && end.retval == 0);
	}
	~Held()
	{
		check();
		CHECK(orbit_recvv_finish(&result_.scratch) == 0);
	}
	char *start() const { return static_cast<char *>(result_.scratch.ptr); }
	void check() const
	{
		orbit_scratch s = result_.scratch;
		const orbit_repr *record = orbit_scratch_first(&s);

		CHECK(record && record->type == ORBIT_ANY && !std::strcmp(record->any.data, "kept"));
	}

private:
	published_result result_;
};

published_task begin(Trick trick, const Held &held)
{
	Order order = {trick, held.start(), static_cast<char *>(data_pool->rawptr)};
	published_task task{};

	CHECK(published_call_async(module_, 0, 1, &data_pool, play, &order, sizeof(order), &task) == 0);
	return task;
}

// Nothing comes of it but this error, once, and then the value.
void refused(Trick trick, int error)
{
	const unsigned long before = orbit_compat_refused();
	const Held held;
	published_task task = begin(trick, held);
	published_result result;

	CHECK_FAILS(orbit_recvv(&result, &task), error);
	held.check();

	int ret;

	// What should have followed is refused too, if it was sent.
	while ((ret = orbit_recvv(&result, &task)) == -1 && (errno == EACCES || errno == EBADMSG))
		;
	CHECK(ret == 0 && result.retval == 0);
	CHECK(orbit_compat_refused() > before);
	CHECK(static_cast<char *>(data_pool->rawptr)[0] == 0);
}

void announcements_that_do_not_fit()
{
	for (const Trick trick : {Trick::odd_length, Trick::not_a_page, Trick::past_the_end,
				  Trick::no_length_but_records, Trick::over_one_that_is_held})
		refused(trick, EBADMSG);
}

void other_messages()
{
	refused(Trick::unknown_operation, EBADMSG);
	refused(Trick::short_announcement, EBADMSG);
	refused(Trick::pages_without_announcement, EACCES);
	refused(Trick::pages_of_the_control, EACCES);
}

// What was not sent is as it was; what was not announced is left out.
void other_pages_than_announced()
{
	for (const Trick trick : {Trick::fewer_pages_than_announced, Trick::more_pages_than_announced}) {
		const Held held;
		published_task task = begin(trick, held);
		published_result result;

		CHECK(orbit_recvv(&result, &task) == 1 && result.scratch.count == 0);
		held.check();
		CHECK(orbit_recvv_finish(&result.scratch) == 0);
		CHECK(orbit_recvv(&result, &task) == 0 && result.retval == 0);
	}
}

void announcements_without_their_pages()
{
	const Held held;
	published_task task = begin(Trick::no_pages, held);
	published_result result;

	CHECK(orbit_recvv(&result, &task) == 0 && result.retval == 0);

	task = begin(Trick::bytes_instead_of_pages, held);
	CHECK_FAILS(orbit_recvv(&result, &task), EPROTO);

	alignas(published_update) char buffer[sizeof(published_update) + ORBIT_BUFFER_MAX];
	auto *update = reinterpret_cast<published_update *>(buffer);

	CHECK(orbit_recv(&task, update) == 0 && update->length == 1);
	CHECK(orbit_recvv(&result, &task) == 0 && result.retval == 0);

	// As if they had been committed, which they may be.
	task = begin(Trick::pages_of_another_pool, held);
	CHECK(orbit_recvv(&result, &task) == 0 && result.retval == 0);
	CHECK(static_cast<char *>(data_pool->rawptr)[0] == 'h');
	static_cast<char *>(data_pool->rawptr)[0] = 0;
}

void an_update_that_is_too_long()
{
	const Held held;
	published_task task = begin(Trick::long_update, held);
	alignas(published_update) char buffer[sizeof(published_update) + ORBIT_BUFFER_MAX];

	CHECK_FAILS(orbit_recv(&task, reinterpret_cast<published_update *>(buffer)), EBADMSG);
	CHECK_FAILS(orbit_recv(&task, reinterpret_cast<published_update *>(buffer)), EIDRM);
}

unsigned long send_in_a_call_that_waits(void *, void *arg)
{
	const char byte = 'w';

	return static_cast<unsigned long>(orbit_send_bytes(*static_cast<char **>(arg), &byte, 1) == 0);
}

void in_a_call_that_waits()
{
	const unsigned long before = orbit_compat_refused();
	void *data = data_pool->rawptr;

	CHECK(published_call(module_, 1, &data_pool, send_in_a_call_that_waits, &data, sizeof(data)) == 1);
	CHECK(orbit_compat_refused() == before + 1);
	CHECK(static_cast<char *>(data)[0] == 0);
}

} // namespace

int main()
{
	static const test tests[] = {
		TEST(announcements_that_do_not_fit),
		TEST(other_messages),
		TEST(other_pages_than_announced),
		TEST(announcements_without_their_pages),
		TEST(an_update_that_is_too_long),
		TEST(in_a_call_that_waits),
	};

	scratch_pool = published_pool_create(nullptr, 64 * page);
	data_pool = published_pool_create(nullptr, 2 * page);
	if (!scratch_pool || !data_pool || orbit_scratch_set_pool(scratch_pool) ||
	    !(module_ = published_create("hostile", play, nullptr))) {
		std::perror("orbits");
		return 1;
	}
	return run_tests(tests, sizeof(tests) / sizeof(*tests));
}
