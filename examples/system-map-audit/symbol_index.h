// SPDX-License-Identifier: MIT
//
// An ordered index of symbols that lies in one piece of memory, with a journal by
// which a change that was only half made can be undone.
//
// The index is a skip list, ordered by address and name. Everything it consists of
// lies in the memory given to it and is linked by ordinary pointers, so whoever
// sees that memory at the same address can use it.
//
// The journal is what a database calls an undo log. A change of the index is a
// series of writes to 8-byte words, and before each write the journal notes the
// word's old value. When the change is complete the journal is emptied. Whoever
// finds the index at any other moment, as a snapshot does, calls roll_back(): it
// writes the old values back, newest first, and the index is as it was before that
// change. Changes are made under one lock, so at most one is ever open.
//
// Not thread-safe: whoever changes the index or reads it in place holds its lock.
#ifndef SYSTEM_MAP_AUDIT_SYMBOL_INDEX_H
#define SYSTEM_MAP_AUDIT_SYMBOL_INDEX_H

#include <algorithm>
#include <atomic>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <new>
#include <string_view>

class alignas(16) SymbolIndex {
public:
	/// What check() can find wrong. A set of them is an unsigned.
	enum Fault : unsigned {
		kStructure = 1, ///< The header or a link is damaged, or a change is open.
		kOrder = 2,	///< A symbol comes before one that it should follow.
		kDuplicate = 4, ///< A symbol is there twice.
		kCount = 8,	///< There are not as many symbols as are recorded.
		kChecksum = 16, ///< The symbols are not those that were entered.
		kSpace = 32,	///< Memory is lost, or is in two uses.
	};

	struct Report {
		std::uint64_t symbols; ///< Found by walking the index.
		unsigned faults;       ///< A set of Fault; 0 if all is well.
	};

	static constexpr std::size_t kLongestName = 511;

	/// Bytes that a symbol with a name of this length takes.
	static constexpr std::size_t room_for(std::size_t name_length)
	{
		return (sizeof(Node) + name_length + kGrain - 1) / kGrain * kGrain;
	}

	/// A number that stands for a symbol. The index's checksum is their sum.
	static std::uint64_t fingerprint(std::uint64_t address, char type, std::string_view name)
	{
		std::uint64_t hash = 0xcbf29ce484222325; // FNV-1a

		for (char c : name)
			hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3;
		hash ^= address + (static_cast<std::uint64_t>(static_cast<unsigned char>(type)) << 56);
		hash *= 0x9e3779b97f4a7c15;
		return hash ^ hash >> 32;
	}

	/// An empty index over `bytes` bytes of memory, which begin with this object.
	explicit SymbolIndex(std::size_t bytes) : bytes_(bytes), unused_(begin()) {}

	SymbolIndex(const SymbolIndex &) = delete;
	SymbolIndex &operator=(const SymbolIndex &) = delete;

	/// Each of the three makes one change and returns true, or returns false and
	/// changes nothing: the symbol is there already, is not there, has too long a
	/// name, or there is no room for it. A symbol is known by address and name.
	bool insert(std::uint64_t address, char type, std::string_view name)
	{
		if (!add(address, type, name))
			return false;
		commit();
		return true;
	}

	bool remove(std::uint64_t address, std::string_view name)
	{
		if (!drop(address, name))
			return false;
		commit();
		return true;
	}

	bool rename(std::uint64_t address, std::string_view name, std::string_view new_name)
	{
		Node *before[kLevels];
		const Node *node = find(address, name, before);

		// First add, then drop: the memory of what was dropped must keep its name
		// for as long as the change may be undone.
		if (!node || !add(address, node->type, new_name))
			return false;
		drop(address, name);
		commit();
		return true;
	}

	std::uint64_t count() const { return count_; }
	std::uint64_t checksum() const { return checksum_; }

	/// How many changes have been made.
	std::uint64_t version() const { return version_; }

	/// Undoes the change that was open when this memory was captured, if any.
	/// Returns how many words it wrote back.
	std::size_t roll_back()
	{
		const std::size_t words = journal_used_;

		if (words > kJournalWords)
			return 0; // not a journal; check() will say so
		for (; journal_used_; journal_used_--) {
			const JournalEntry &entry = journal_[journal_used_ - 1];

			if (!inside(entry.word, sizeof(entry.old_value)))
				return 0;
			std::memcpy(entry.word, &entry.old_value, sizeof(entry.old_value));
		}
		return words;
	}

	/// Looks at every symbol, link and free block.
	Report check() const
	{
		Report report{};
		const Node *next[kLevels]; // what each level has next
		const Node *last = nullptr;
		std::uint64_t checksum = 0;
		std::size_t space = 0;

		if (magic_ != kMagic || journal_used_ || !inside(unused_, 0))
			return {.symbols = 0, .faults = kStructure};

		std::copy_n(head_.next, kLevels, next);
		for (const Node *node = next[0]; node; last = node, node = node->next[0]) {
			if (!sound(node) || report.symbols >= bytes_ / sizeof(Node)) {
				report.faults |= kStructure;
				return report;
			}
			if (last) {
				const int order = compare(*last, node->address, node->name());

				if (order >= 0)
					report.faults |= order ? kOrder : kDuplicate;
			}
			for (unsigned level = 0; level < node->height; level++) {
				if (next[level] != node)
					report.faults |= kStructure;
				next[level] = node->next[level];
			}
			report.symbols++;
			checksum += fingerprint(node->address, node->type, node->name());
			space += room_for(node->name_length);
		}
		if (std::any_of(next, next + kLevels, [](const Node *node) { return node; }))
			report.faults |= kStructure;

		for (const Node *first : free_) {
			for (const Node *node = first; node; node = node->next[0]) {
				if (!sound(node) || space > bytes_) {
					report.faults |= kStructure;
					return report;
				}
				space += room_for(node->name_length);
			}
		}

		if (report.symbols != count_)
			report.faults |= kCount;
		if (checksum != checksum_)
			report.faults |= kChecksum;
		if (space != static_cast<std::size_t>(unused_ - begin()))
			report.faults |= kSpace;
		return report;
	}

	/// Calls visit(address, type, name) for every symbol, in order.
	template <class Visit> void for_each(Visit visit) const
	{
		for (const Node *node = head_.next[0]; node; node = node->next[0])
			visit(node->address, node->type, node->name());
	}

private:
	friend struct SymbolIndexTest; // breaks it to see that check() notices

	static constexpr std::uint64_t kMagic = 0x7864'6e69'6d79'73; // "symindx"
	static constexpr unsigned kLevels = 6;			     // for 8^6 symbols and more
	static constexpr std::size_t kGrain = 16;		     // memory is given out in these

	// A symbol; its name follows it in memory. Also a free block: next[0] is the
	// next one of the same size.
	struct alignas(kGrain) Node {
		std::uint64_t address = 0;
		std::uint32_t name_length = 0;
		char type = 0;
		std::uint8_t height = kLevels; // how many levels lead to it
		Node *next[kLevels] = {};

		std::string_view name() const
		{
			return {reinterpret_cast<const char *>(this + 1), name_length};
		}
	};

	struct JournalEntry {
		void *word;
		std::uint64_t old_value;
	};

	// The longest change, a rename: insert links a node and its memory, remove
	// unlinks another and frees its memory; both count; commit() adds the version.
	static constexpr std::size_t kJournalWords = (2 * kLevels + 3) + (kLevels + 4) + 1;
	static constexpr std::size_t kSizes = (sizeof(Node) + kLongestName) / kGrain + 2;

	std::byte *begin() const
	{
		return reinterpret_cast<std::byte *>(const_cast<SymbolIndex *>(this) + 1);
	}

	// Is this range of memory the index's?
	bool inside(const void *at, std::size_t size) const
	{
		const auto offset = reinterpret_cast<std::uintptr_t>(at) -
				    reinterpret_cast<std::uintptr_t>(this);

		return offset <= bytes_ && size <= bytes_ - offset;
	}

	bool sound(const Node *node) const
	{
		return reinterpret_cast<std::uintptr_t>(node) % kGrain == 0 &&
		       inside(node, sizeof(Node)) && node->height >= 1 && node->height <= kLevels &&
		       node->name_length <= kLongestName && inside(node, room_for(node->name_length));
	}

	static int compare(const Node &node, std::uint64_t address, std::string_view name)
	{
		if (node.address != address)
			return node.address < address ? -1 : 1;
		return node.name().compare(name);
	}

	// The symbol, or nullptr; and for each level the last node before its place.
	Node *find(std::uint64_t address, std::string_view name, Node *(&before)[kLevels])
	{
		Node *node = &head_;

		for (unsigned level = kLevels; level-- > 0;) {
			Node *next = node->next[level];

			while (next && compare(*next, address, name) < 0) {
				node = next;
				next = node->next[level];
			}
			before[level] = node;
		}
		node = before[0]->next[0];
		return node && compare(*node, address, name) == 0 ? node : nullptr;
	}

	bool add(std::uint64_t address, char type, std::string_view name)
	{
		Node *before[kLevels];

		if (name.size() > kLongestName || find(address, name, before))
			return false;

		Node *node = allocate(room_for(name.size()));

		if (!node)
			return false;

		const std::uint64_t print = fingerprint(address, type, name);
		const int zeroes = std::countr_zero(print | 1ULL << 3 * (kLevels - 1));

		// If the change is undone this is free memory again, so nobody will miss
		// what it held: no need to note it. Except for the links, which also
		// connect free blocks.
		node->address = address;
		node->type = type;
		node->name_length = static_cast<std::uint32_t>(name.size());
		node->height = static_cast<std::uint8_t>(1 + zeroes / 3); // each level an eighth
		std::memcpy(static_cast<void *>(node + 1), name.data(), name.size());
		for (unsigned level = 0; level < node->height; level++)
			set(node->next[level], before[level]->next[level]);

		for (unsigned level = 0; level < node->height; level++)
			set(before[level]->next[level], node);
		set(count_, count_ + 1);
		set(checksum_, checksum_ + print);
		return true;
	}

	bool drop(std::uint64_t address, std::string_view name)
	{
		Node *before[kLevels];
		Node *node = find(address, name, before);

		if (!node)
			return false;
		for (unsigned level = 0; level < node->height; level++)
			set(before[level]->next[level], node->next[level]);
		set(count_, count_ - 1);
		set(checksum_, checksum_ - fingerprint(address, node->type, node->name()));

		Node *&first = free_[room_for(node->name_length) / kGrain];

		set(node->next[0], first);
		set(first, node);
		return true;
	}

	Node *allocate(std::size_t bytes)
	{
		Node *&first = free_[bytes / kGrain];

		if (Node *node = first) {
			set(first, node->next[0]);
			return node;
		}
		if (!inside(unused_, bytes))
			return nullptr;

		Node *node = new (unused_) Node;

		set(unused_, unused_ + bytes);
		return node;
	}

	// Every write of a change that undoing it must take back goes through here.
	// A snapshot that holds a write of this thread holds all earlier ones too, if
	// only the compiler leaves them in this order; the fences see to that.
	template <class T> void set(T &word, T value)
	{
		static_assert(sizeof(T) == sizeof(JournalEntry::old_value));
		JournalEntry &entry = journal_[journal_used_];

		entry.word = &word;
		std::memcpy(&entry.old_value, &word, sizeof(word));
		std::atomic_thread_fence(std::memory_order_release);
		journal_used_++;
		std::atomic_thread_fence(std::memory_order_release);
		word = value;
	}

	void commit()
	{
		set(version_, version_ + 1);
		std::atomic_thread_fence(std::memory_order_release);
		journal_used_ = 0; // from here on the change holds
		std::atomic_thread_fence(std::memory_order_release);
	}

	std::uint64_t magic_ = kMagic;
	std::size_t bytes_;
	std::uint64_t count_ = 0;
	std::uint64_t checksum_ = 0;
	std::uint64_t version_ = 0;
	std::byte *unused_;	    // memory that was never given out begins here
	Node *free_[kSizes] = {};   // memory that was given back, by size
	Node head_;		    // the place before the first symbol
	std::size_t journal_used_ = 0;
	JournalEntry journal_[kJournalWords] = {};
};

#endif // SYSTEM_MAP_AUDIT_SYMBOL_INDEX_H
