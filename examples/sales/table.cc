// SPDX-License-Identifier: MIT
#include "table.h"

#include <algorithm>
#include <bit>

namespace {

using Clock = std::chrono::steady_clock;

constexpr unsigned fine = 4; // bits behind the first one

std::size_t bucket_of(std::uint64_t ns)
{
	if (ns < 1U << fine)
		return ns;

	const unsigned exponent = static_cast<unsigned>(std::bit_width(ns)) - 1;

	return (exponent - fine + 1) << fine | (ns >> (exponent - fine) & ((1U << fine) - 1));
}

std::uint64_t most_of(std::size_t bucket)
{
	if (bucket < 1U << fine)
		return bucket;

	const std::size_t shift = (bucket >> fine) - 1;

	return ((std::uint64_t{1} << fine | (bucket & ((1U << fine) - 1))) + 1) << shift;
}

} // namespace

void Latencies::add(std::chrono::nanoseconds took)
{
	buckets_[bucket_of(static_cast<std::uint64_t>(std::max<long>(took.count(), 0)))]++;
	count_++;
}

void Latencies::add(const Latencies &other)
{
	for (std::size_t i = 0; i < buckets_.size(); i++)
		buckets_[i] += other.buckets_[i];
	count_ += other.count_;
}

double Latencies::quantile(double part) const
{
	const auto wanted = static_cast<std::uint64_t>(part * static_cast<double>(count_));
	std::uint64_t seen = 0;

	for (std::size_t i = 0; i < buckets_.size(); i++) {
		seen += buckets_[i];
		if (seen > wanted)
			return static_cast<double>(most_of(i));
	}
	return 0;
}

Table::Table(std::size_t bytes, unsigned threads, unsigned rate)
	: sales_(orbit::Pool::create(bytes, "sales").value()),
	  products_(orbit::Pool::create(nr_products * sizeof(Product), "products").value()),
	  pause_(1'000'000'000 / rate)
{
	for (std::uint32_t i = 0; i < nr_products; i++)
		products_.as<Product>()[i] = {i, i * 7 % nr_categories};
	for (unsigned i = 0; i < threads; i++) {
		writers_.push_back(std::make_unique<Writer>());
		writers_.back()->random.seed(i + 1);
	}
	for (std::size_t page = 0; page < sales_.size() / page_bytes; page++)
		for (std::size_t i = 0; i < sales_of_page; i += 2)
			insert(*writers_[page % threads], sales_.as<Sale>()[page * sales_of_page + i]);
}

Books Table::books() const
{
	Books sum;

	for (const auto &writer : writers_) {
		sum.sales += writer->books.sales;
		sum.cents += writer->books.cents;
	}
	return sum;
}

void Table::lock()
{
	waiting_++;
	for (const auto &writer : writers_)
		writer->lock.lock();
}

void Table::unlock()
{
	for (const auto &writer : writers_)
		writer->lock.unlock();
	waiting_--;
}

void Table::start()
{
	stop_ = false;
	for (std::size_t i = 0; i < writers_.size(); i++)
		threads_.emplace_back([this, i] { run(*writers_[i], i); });
}

void Table::stop()
{
	stop_ = true;
	for (std::thread &thread : threads_)
		thread.join();
	threads_.clear();
}

Latencies Table::take_latencies()
{
	Latencies sum;

	for (const auto &writer : writers_) {
		const std::lock_guard guard(writer->lock);

		sum.add(writer->latencies);
		writer->latencies = {};
	}
	return sum;
}

// A transaction has a moment at which somebody wants it, and takes from there on: who waits behind a lock is
// not forgotten.
void Table::run(Writer &writer, std::size_t number)
{
	auto wanted = Clock::now();

	while (!stop_) {
		if (Clock::now() < wanted) {
			std::this_thread::sleep_until(wanted);
			continue;
		}
		while (waiting_ && !stop_)
			std::this_thread::yield();

		const std::lock_guard guard(writer.lock);

		transact(writer, number);
		writer.latencies.add(Clock::now() - wanted);
		wanted += pause_;
	}
}

// Any row of its pages: what is there is changed or deleted, what is not is made.
void Table::transact(Writer &writer, std::size_t number)
{
	const std::size_t pages = sales_.size() / page_bytes / writers_.size();
	const std::size_t page = writer.random() % pages * writers_.size() + number;
	Sale &at = sales_.as<Sale>()[page * sales_of_page + writer.random() % sales_of_page];

	if (!at.id)
		insert(writer, at);
	else if (writer.random() % 2)
		remove(writer, at);
	else
		update(writer, at);
}

void Table::insert(Writer &writer, Sale &at)
{
	at = {.id = ++writer.made,
	      .product = static_cast<std::uint32_t>(writer.random() % nr_products),
	      .region = static_cast<std::uint32_t>(writer.random() % nr_regions),
	      .quantity = static_cast<std::uint32_t>(1 + writer.random() % 9),
	      .cents = static_cast<std::int32_t>(writer.random() % 100'000),
	      .other = {}};
	writer.books.sales++;
	writer.books.cents += at.cents;
}

void Table::remove(Writer &writer, Sale &at)
{
	writer.books.sales--;
	writer.books.cents -= at.cents;
	at.id = 0;
}

void Table::update(Writer &writer, Sale &at)
{
	const auto cents = static_cast<std::int32_t>(writer.random() % 100'000);

	writer.books.cents += cents - at.cents;
	at.cents = cents;
}
