// SPDX-License-Identifier: MIT
//
// What is asked of the table: a function over one unit of it at a time, whose answers can be put together.
#ifndef SALES_QUERY_H
#define SALES_QUERY_H

#include "table.h"

#include <algorithm>
#include <array>
#include <cstdint>
#include <limits>
#include <span>
#include <unordered_map>

struct Answer {
	std::uint64_t sales = 0;
	std::int64_t cents = 0;
	std::int32_t least = std::numeric_limits<std::int32_t>::max(), most = 0;
	std::array<std::int64_t, nr_regions> by_region{};
	std::array<std::int64_t, nr_categories> by_category{}; // of the join with the products
};

// The join's smaller side, by product. It lives in the memory of whoever makes the query.
using Categories = std::unordered_map<std::uint32_t, std::uint32_t>;

inline void build(Categories &categories, std::span<const std::byte> unit)
{
	const auto *products = reinterpret_cast<const Product *>(unit.data());

	for (const Product &product : std::span(products, unit.size() / sizeof(Product)))
		categories.emplace(product.id, product.category);
}

// Map: the answer to one unit. It looks at each sale once, and at nothing else.
inline Answer map(const Categories &categories, std::span<const std::byte> unit)
{
	const auto *sales = reinterpret_cast<const Sale *>(unit.data());
	Answer answer;

	for (const Sale &sale : std::span(sales, unit.size() / sizeof(Sale))) {
		if (!sale.id)
			continue;
		answer.sales++;
		answer.cents += sale.cents;
		answer.least = std::min(answer.least, sale.cents);
		answer.most = std::max(answer.most, sale.cents);
		answer.by_region[sale.region % nr_regions] += sale.cents;
		if (const auto category = categories.find(sale.product); category != categories.end())
			answer.by_category[category->second % nr_categories] += sale.cents;
	}
	return answer;
}

// Reduce: in any order.
inline void reduce(Answer &sum, const Answer &part)
{
	sum.sales += part.sales;
	sum.cents += part.cents;
	sum.least = std::min(sum.least, part.least);
	sum.most = std::max(sum.most, part.most);
	for (std::size_t i = 0; i < sum.by_region.size(); i++)
		sum.by_region[i] += part.by_region[i];
	for (std::size_t i = 0; i < sum.by_category.size(); i++)
		sum.by_category[i] += part.by_category[i];
}

// All at rest: the table under a lock, or an ordinary snapshot.
inline Answer ask_at_rest(std::span<const std::byte> sales, std::span<const std::byte> products)
{
	Categories categories;
	Answer answer;

	build(categories, products);
	for (std::size_t at = 0; at < sales.size(); at += page_bytes)
		reduce(answer, map(categories, sales.subspan(at, page_bytes)));
	return answer;
}

// The same by scan, in a task: nothing is held of what has been seen.
inline Answer ask_by_scan(std::span<const std::byte> sales, std::span<const std::byte> products)
{
	Categories categories;
	Answer answer;

	orbit::scan(products, [&](std::span<const std::byte> unit) { build(categories, unit); }).value();
	orbit::scan(sales, [&](std::span<const std::byte> unit) { reduce(answer, map(categories, unit)); }).value();
	return answer;
}

#endif // SALES_QUERY_H
