// SPDX-License-Identifier: MIT
//
// An index of symbols, ordered by address and name: a std::pmr::map that keeps count and
// checksum of what it holds. With all of it in a pool, whoever sees that pool can use it.
//
// Not thread-safe: whoever changes the index or reads it in place holds its lock.
#ifndef SYSTEM_MAP_AUDIT_SYMBOL_INDEX_H
#define SYSTEM_MAP_AUDIT_SYMBOL_INDEX_H

#include <cstdint>
#include <map>
#include <memory_resource>
#include <string>
#include <string_view>
#include <utility>

class SymbolIndex {
public:
	using allocator_type = std::pmr::polymorphic_allocator<>;

	/// What check() can find wrong. A set of them is an unsigned.
	enum Fault : unsigned {
		kOrder = 1,    ///< A symbol comes before one that it should follow, or twice.
		kCount = 2,    ///< There are not as many symbols as are recorded.
		kChecksum = 4, ///< The symbols are not those that were entered.
	};

	struct Report {
		std::uint64_t symbols; ///< Found by walking the index.
		unsigned faults;       ///< A set of Fault; 0 if all is well.
	};

	explicit SymbolIndex(allocator_type allocator) : symbols_(allocator) {}

	/// Each of the three makes one change and returns true, or returns false and
	/// changes nothing: the symbol is there already, or is not there. A symbol is known
	/// by address and name. Throw std::bad_alloc, and have changed nothing then.
	bool insert(std::uint64_t address, char type, std::string_view name)
	{
		const auto [symbol, inserted] = symbols_.try_emplace(key(address, name), type);

		if (inserted)
			changed(1, fingerprint(address, type, name));
		return inserted;
	}

	bool remove(std::uint64_t address, std::string_view name)
	{
		const auto symbol = symbols_.find(View{address, name});

		if (symbol == symbols_.end())
			return false;
		changed(-1ULL, -fingerprint(address, symbol->second, name));
		symbols_.erase(symbol);
		return true;
	}

	bool rename(std::uint64_t address, std::string_view name, std::string_view new_name)
	{
		const auto symbol = symbols_.find(View{address, name});

		if (symbol == symbols_.end() || symbols_.contains(View{address, new_name}))
			return false;

		const char type = symbol->second;
		Key new_key = key(address, new_name);
		auto node = symbols_.extract(symbol);

		node.key() = std::move(new_key);
		symbols_.insert(std::move(node));
		changed(0, fingerprint(address, type, new_name) - fingerprint(address, type, name));
		return true;
	}

	/// How many symbols there should be, and how many changes have been made.
	std::uint64_t count() const { return count_; }
	std::uint64_t version() const { return version_; }

	/// Looks at every symbol.
	Report check() const
	{
		Report report{};
		std::uint64_t checksum = 0;
		const Key *last = nullptr;

		for (const auto &[now, type] : symbols_) {
			if (last && !Before()(*last, now))
				report.faults |= kOrder;
			last = &now;
			report.symbols++;
			checksum += fingerprint(now.first, type, now.second);
		}
		if (report.symbols != count_)
			report.faults |= kCount;
		if (checksum != checksum_)
			report.faults |= kChecksum;
		return report;
	}

	/// Calls visit(address, type, name) for every symbol, in order.
	template <class Visit> void for_each(Visit visit) const
	{
		for (const auto &[now, type] : symbols_)
			visit(now.first, type, std::string_view(now.second));
	}

private:
	friend struct SymbolIndexTest; // breaks it to see that check() notices

	using Key = std::pair<std::uint64_t, std::pmr::string>;
	using View = std::pair<std::uint64_t, std::string_view>;

	struct Before {
		using is_transparent = void;

		template <class A, class B> bool operator()(const A &a, const B &b) const
		{
			return View(a.first, a.second) < View(b.first, b.second);
		}
	};

	// A number that stands for a symbol. The checksum is their sum.
	static std::uint64_t fingerprint(std::uint64_t address, char type, std::string_view name)
	{
		std::uint64_t hash = 0xcbf29ce484222325; // FNV-1a

		for (char c : name)
			hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3;
		hash ^= address + (static_cast<std::uint64_t>(static_cast<unsigned char>(type)) << 56);
		hash *= 0x9e3779b97f4a7c15;
		return hash ^ hash >> 32;
	}

	Key key(std::uint64_t address, std::string_view name) const
	{
		return {address, std::pmr::string(name, symbols_.get_allocator())};
	}

	void changed(std::uint64_t symbols, std::uint64_t checksum)
	{
		count_ += symbols;
		checksum_ += checksum;
		version_++;
	}

	std::pmr::map<Key, char, Before> symbols_; // their types
	std::uint64_t count_ = 0;
	std::uint64_t checksum_ = 0;
	std::uint64_t version_ = 0;
};

#endif // SYSTEM_MAP_AUDIT_SYMBOL_INDEX_H
