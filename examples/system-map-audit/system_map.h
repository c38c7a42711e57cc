// SPDX-License-Identifier: MIT
//
// Reads System.map, the list of a kernel's symbols: lines "address type name".
#ifndef SYSTEM_MAP_AUDIT_SYSTEM_MAP_H
#define SYSTEM_MAP_AUDIT_SYSTEM_MAP_H

#include <algorithm>
#include <charconv>
#include <cstddef>
#include <cstdint>
#include <fstream>
#include <iterator>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

struct Symbol {
	std::uint64_t address;
	char type;
	std::string_view name;

	bool same_place(const Symbol &other) const
	{
		return address == other.address && name == other.name;
	}
};

class SystemMap {
public:
	/// Throws std::runtime_error with a sentence for people.
	explicit SystemMap(const std::string &path) : text_(read(path))
	{
		std::size_t line = 0;

		for (std::string_view rest = text_; !rest.empty();) {
			const std::string_view now = rest.substr(0, rest.find('\n'));

			line++;
			symbols_.push_back(parse(now, path, line));
			rest.remove_prefix(std::min(now.size() + 1, rest.size()));
		}
		if (symbols_.empty())
			throw std::runtime_error(path + " is empty");

		std::stable_sort(symbols_.begin(), symbols_.end(), [](const auto &a, const auto &b) {
			return a.address != b.address ? a.address < b.address : a.name < b.name;
		});
		symbols_.erase(std::unique(symbols_.begin(), symbols_.end(),
					   [](const auto &a, const auto &b) { return a.same_place(b); }),
			       symbols_.end());
		repeated_ = line - symbols_.size();
	}

	SystemMap(const SystemMap &) = delete;
	SystemMap &operator=(const SystemMap &) = delete;

	/// Ordered by address and name, each once. The names live as long as this.
	const std::vector<Symbol> &symbols() const { return symbols_; }

	/// How many lines were left out because they repeat another's address and name.
	std::size_t repeated() const { return repeated_; }

private:
	static std::string read(const std::string &path)
	{
		std::ifstream file(path, std::ios::binary);
		std::string text{std::istreambuf_iterator<char>(file), {}};

		if (!file.is_open() || file.bad())
			throw std::runtime_error(path + " cannot be read");
		return text;
	}

	static Symbol parse(std::string_view line, const std::string &path, std::size_t number)
	{
		Symbol symbol{};
		const char *end = line.data() + line.size();
		const auto [at, error] = std::from_chars(line.data(), end, symbol.address, 16);

		// " T name"
		if (error != std::errc{} || end - at < 4 || at[0] != ' ' || at[2] != ' ')
			throw std::runtime_error(path + ": line " + std::to_string(number) +
						 " is not \"address type name\"");
		symbol.type = at[1];
		symbol.name = {at + 3, end};
		return symbol;
	}

	std::string text_;
	std::vector<Symbol> symbols_;
	std::size_t repeated_ = 0;
};

#endif // SYSTEM_MAP_AUDIT_SYSTEM_MAP_H
