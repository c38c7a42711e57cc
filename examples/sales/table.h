// SPDX-License-Identifier: MIT
//
// The table of sales, in a pool, and the threads that change it.
#ifndef SALES_TABLE_H
#define SALES_TABLE_H

#include <orbit/orbit.hpp>

#include <array>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <memory>
#include <mutex>
#include <random>
#include <span>
#include <thread>
#include <vector>

constexpr std::size_t page_bytes = 4096;
constexpr std::uint32_t nr_regions = 16, nr_products = 4096, nr_categories = 8;

struct Product {
	std::uint32_t id;
	std::uint32_t category; // less than nr_categories
};

struct Sale {
	std::uint64_t id; // 0: the place is free
	std::uint32_t product;
	std::uint32_t region;
	std::uint32_t quantity;
	std::int32_t cents; // for all of them
	std::byte other[40];
};

static_assert(page_bytes % sizeof(Sale) == 0, "no sale crosses a page");

constexpr std::size_t sales_of_page = page_bytes / sizeof(Sale);

// How long transactions took, with a precision of 1/16.
class Latencies {
public:
	void add(std::chrono::nanoseconds took);
	void add(const Latencies &other);
	// In nanoseconds: so much of all (0.99) took at most that.
	double quantile(double part) const;
	std::uint64_t count() const { return count_; }

private:
	std::array<std::uint64_t, 64 * 16> buckets_{};
	std::uint64_t count_ = 0;
};

// What the whole table comes to, as its writers know it.
struct Books {
	std::uint64_t sales = 0;
	std::int64_t cents = 0;

	bool operator==(const Books &) const = default;
};

// A thread has pages of its own, every so many, and a lock that it holds for a transaction.
struct Writer {
	std::mutex lock;
	Books books;
	Latencies latencies;
	std::minstd_rand random;
	std::uint64_t made = 0; // sales so far
};

class Table {
public:
	// Half full. So many bytes, and threads that make so many transactions a second each.
	Table(std::size_t bytes, unsigned threads, unsigned rate);
	Table(const Table &) = delete;
	~Table() { stop(); }

	const orbit::Pool &sales() const { return sales_; }
	const orbit::Pool &products() const { return products_; }
	Books books() const; // with the lock held

	void start();
	void stop();
	// Since the last time.
	Latencies take_latencies();

	// A lock over all of it: who holds it keeps transactions waiting.
	void lock();
	void unlock();

private:
	void run(Writer &writer, std::size_t number);
	void transact(Writer &writer, std::size_t number);
	void insert(Writer &writer, Sale &at);
	void remove(Writer &writer, Sale &at);
	static void update(Writer &writer, Sale &at);

	orbit::Pool sales_, products_;
	const std::chrono::nanoseconds pause_; // between transactions of one thread
	std::vector<std::unique_ptr<Writer>> writers_;
	std::vector<std::thread> threads_;
	std::atomic<unsigned> waiting_ = 0; // who want the whole lock: mutexes are not fair
	std::atomic<bool> stop_ = false;
};

#endif // SALES_TABLE_H
