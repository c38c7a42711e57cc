// SPDX-License-Identifier: MIT
//
// What the program prints: numbered steps, facts, checks that are counted, and a
// table at the end.
#ifndef SYSTEM_MAP_AUDIT_REPORT_H
#define SYSTEM_MAP_AUDIT_REPORT_H

#include <cstdarg>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <string>
#include <vector>

/// 1234567 as "1,234,567".
inline std::string grouped(std::uint64_t number)
{
	std::string digits = std::to_string(number);

	for (std::size_t at = digits.size(); at > 3;)
		digits.insert(at -= 3, ",");
	return digits;
}

class Report {
public:
	void step(const char *title) { std::printf("\n%u. %s\n\n", ++steps_, title); }

	void text(const char *paragraph) { std::printf("%s\n\n", paragraph); }

	[[gnu::format(printf, 3, 4)]] void fact(const char *label, const char *format, ...)
	{
		va_list args;

		std::printf("  %-15s", label);
		va_start(args, format);
		std::vprintf(format, args);
		va_end(args);
		std::putchar('\n');
	}

	void check(bool passed, const char *claim)
	{
		std::printf("  %-15s%s\n", passed ? "[ok]" : "[FAILED]", claim);
		passed ? passed_++ : failed_++;
	}

	/// A row of the summary: what was tried, and what it did to whom.
	void row(const char *tried, const char *orbit, std::uint64_t changes, bool unharmed)
	{
		rows_.push_back({tried, orbit, "made " + grouped(changes) + " changes",
				 unharmed ? "unharmed" : "HARMED"});
	}

	/// Returns whether all checks passed.
	bool summary() const
	{
		std::puts("\nSummary\n");
		print({"what was tried", "the orbit", "the application", "its data"});
		print({std::string(14, '-'), std::string(22, '-'), std::string(22, '-'),
		       std::string(8, '-')});
		for (const Row &row : rows_)
			print(row);
		std::printf("\n%u of %u checks passed.\n", passed_, passed_ + failed_);
		return !failed_;
	}

private:
	struct Row {
		std::string tried, orbit, application, data;
	};

	static void print(const Row &row)
	{
		std::printf("  %-16s%-24s%-24s%s\n", row.tried.c_str(), row.orbit.c_str(),
			    row.application.c_str(), row.data.c_str());
	}

	unsigned steps_ = 0, passed_ = 0, failed_ = 0;
	std::vector<Row> rows_;
};

#endif // SYSTEM_MAP_AUDIT_REPORT_H
