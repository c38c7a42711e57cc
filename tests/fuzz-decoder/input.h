// SPDX-License-Identifier: MIT
//
// What the fuzzers share: their input, taken piece by piece, and memory with nothing around it.
#ifndef FUZZ_INPUT_H
#define FUZZ_INPUT_H

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

// Ends the run, and libFuzzer keeps the input.
#define MUST(condition)                                                                         \
	do {                                                                                    \
		if (!(condition)) {                                                             \
			std::fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition);     \
			std::abort();                                                           \
		}                                                                               \
	} while (0)

class Input {
public:
	Input(const std::uint8_t *data, std::size_t size) : at_(data), end_(data + size) {}
	bool empty() const { return at_ == end_; }
	// Zeroes when there is no more.
	template <class T> T take()
	{
		const auto left = static_cast<std::size_t>(end_ - at_);
		const std::size_t size = left < sizeof(T) ? left : sizeof(T);
		T value{};

		std::memcpy(&value, at_, size);
		at_ += size;
		return value;
	}
	std::uint8_t byte() { return take<std::uint8_t>(); }
	// Below a limit that is not 0.
	std::size_t below(std::size_t limit) { return take<std::uint32_t>() % limit; }
	// Numbers at which computations go wrong, numbers near one, and any.
	std::uint64_t number(std::uint64_t near)
	{
		const std::uint8_t choice = byte();
		const auto some = static_cast<std::uint64_t>(take<std::int8_t>());

		switch (choice % 6) {
		case 0:
			return some;
		case 1:
			return near + some;
		case 2:
			return near - take<std::uint16_t>();
		case 3:
			return (1ULL << choice / 6) + some;
		case 4:
			return SIZE_MAX / (1 + choice / 6) + some;
		default:
			return take<std::uint64_t>();
		}
	}

private:
	const std::uint8_t *at_, *end_;
};

// On the heap, so that AddressSanitizer sees any byte before or behind it.
class Memory {
public:
	explicit Memory(std::size_t size, std::size_t alignment = 16) : size_(size)
	{
		// aligned_alloc() may want a multiple; posix_memalign() does not.
		if (posix_memalign(&start_, alignment, size ? size : 1))
			std::abort();
		std::memset(start_, 0, size);
	}
	Memory(const Memory &) = delete;
	~Memory() { std::free(start_); }
	std::uint8_t *data() const { return static_cast<std::uint8_t *>(start_); }
	std::uintptr_t address() const { return reinterpret_cast<std::uintptr_t>(start_); }
	std::size_t size() const { return size_; }

private:
	std::size_t size_;
	void *start_ = nullptr;
};

#endif // FUZZ_INPUT_H
