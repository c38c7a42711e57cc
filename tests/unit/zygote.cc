// SPDX-License-Identifier: MIT
//
// Which memory an orbit that inherits the minimum takes over.
#include "../../liborbit/internal.h"
#include "../../liborbit/common/zygote.h"

#include <cerrno>
#include <cstdio>
#include <dlfcn.h>
#include <gtest/gtest.h>
#include <iostream>
#include <string>
#include <sys/mman.h>
#include <sys/syscall.h>

using namespace liborbit;

int initialized_global = 5;
int zero_global;
static char big_zero_global[100'000];
extern int (*const constant_pointer)();
int (*const constant_pointer)() = getpid; // in what is read-only after relocation

namespace {

std::uintptr_t at(const volatile void *p)
{
	return reinterpret_cast<std::uintptr_t>(p);
}

class Pieces {
public:
	Pieces() = default;
	Pieces(const Pieces &) = delete;
	~Pieces() { areas.clear(); }

	bool has(const volatile void *p, std::size_t bytes) const
	{
		std::size_t found = 0;

		for (std::size_t byte = 0; byte < bytes; byte++)
			found += has_byte(at(p) + byte);
		EXPECT_TRUE(!found || found == bytes) << "in part";
		return found;
	}
	template <class T> bool has(const T &object) const { return has(&object, sizeof(object)); }
	std::size_t bytes() const
	{
		std::size_t sum = 0;

		for (std::size_t i = 0; i < areas.count; i++)
			sum += areas.items[i].bytes;
		return sum;
	}
	std::string text() const
	{
		std::string all;

		for (std::size_t i = 0; i < areas.count; i++)
			all += std::to_string(areas.items[i].start) + "+" +
			       std::to_string(areas.items[i].bytes) + " ";
		return all;
	}

	Areas areas{};

private:
	bool has_byte(std::uintptr_t p) const
	{
		for (std::size_t i = 0; i < areas.count; i++)
			if (p - areas.items[i].start < areas.items[i].bytes)
				return true;
		return false;
	}
};

TEST(Areas, Without)
{
	const struct {
		std::uintptr_t start, end;
		const char *expected;
	} cases[] = {
		{0, 100, "0+10 20+20 60+40 "}, {10, 20, ""},	     {0, 10, "0+10 "},
		{5, 15, "5+5 "},	       {15, 45, "20+20 "},   {45, 55, ""},
		{20, 40, "20+20 "},	       {60, 61, "60+1 "},    {61, 61, ""},
		{70, 60, ""},		       {19, 41, "20+20 "},
	};
	Pieces others;

	ASSERT_EQ(others.areas.add(40, 55), 0);
	ASSERT_EQ(others.areas.add(10, 20), 0);
	ASSERT_EQ(others.areas.add(50, 60), 0);
	ASSERT_EQ(others.areas.add(30, 30), 0);
	for (const auto &[start, end, expected] : cases) {
		Pieces pieces;

		ASSERT_EQ(pieces.areas.add_without(start, end, others.areas), 0);
		EXPECT_EQ(pieces.text(), expected) << start << " to " << end;
	}
}

TEST(Areas, ManyPieces)
{
	Pieces pieces;

	for (std::uintptr_t i = 0; i < 1000; i++)
		ASSERT_EQ(pieces.areas.add(2 * i, 2 * i + 1), 0);
	EXPECT_EQ(pieces.areas.count, 1000U);
	EXPECT_EQ(pieces.areas.items[999].start, 1998U);
}

TEST(Variables, OfTheExecutable)
{
	static int in_function = 3;
	Pieces variables;

	asm volatile("" : : "r"(&in_function), "r"(big_zero_global), "r"(&constant_pointer));
	ASSERT_EQ(find_variables(nullptr, 0, &variables.areas), 0);
	EXPECT_TRUE(variables.has(initialized_global));
	EXPECT_TRUE(variables.has(zero_global));
	EXPECT_TRUE(variables.has(in_function));
	EXPECT_TRUE(variables.has(big_zero_global));
	EXPECT_FALSE(variables.has(constant_pointer));
}

// The library is linked into this executable, which uses variables of other libraries.
TEST(Variables, ThoseOfLibrariesAreLeftOut)
{
	Pieces variables;
	int on_stack = 0;

	ASSERT_EQ(find_variables(nullptr, 0, &variables.areas), 0);
	EXPECT_FALSE(variables.has(liborbit::in_orbit));
	EXPECT_FALSE(variables.has(liborbit::server_fd));
	EXPECT_FALSE(variables.has(stdout));
	EXPECT_FALSE(variables.has(environ));
	EXPECT_FALSE(variables.has(std::cout));
	EXPECT_FALSE(variables.has(on_stack));
}

// All of it can be written to: nothing is found that a copy would stumble over.
TEST(Variables, AreWritable)
{
	Pieces variables;

	ASSERT_EQ(find_variables(nullptr, 0, &variables.areas), 0);
	for (std::size_t i = 0; i < variables.areas.count; i++) {
		const Area &area = variables.areas.items[i];
		const int fd = memfd_create("copy", 0);

		// Not through the C library: AddressSanitizer minds the gaps between variables.
		ASSERT_EQ(syscall(SYS_write, fd, area.start, area.bytes),
			  static_cast<long>(area.bytes));
		// Back to where it is from: the same bytes, if nothing writes meanwhile.
		EXPECT_EQ(syscall(SYS_pread64, fd, area.start, area.bytes, 0),
			  static_cast<long>(area.bytes));
		close(fd);
	}
}

TEST(Variables, OfNamedModules)
{
	const void *const in_libstdcxx = dlsym(RTLD_DEFAULT, "_ZSt4cerr");
	int on_stack = 0;
	const void *const nowhere = &on_stack;
	Pieces fewer, more, none;

	ASSERT_NE(in_libstdcxx, nullptr);

	const void *const function = dlsym(RTLD_DEFAULT, "_ZNSo5writeEPKcl");

	ASSERT_NE(function, nullptr);
	ASSERT_EQ(find_variables(nullptr, 0, &fewer.areas), 0);
	ASSERT_EQ(find_variables(&function, 1, &more.areas), 0);
	EXPECT_GT(more.bytes(), fewer.bytes());
	EXPECT_TRUE(more.has(std::cout)) << "its module was named";
	EXPECT_FALSE(more.has(stdout));
	EXPECT_EQ(find_variables(&nowhere, 1, &none.areas), -ENXIO);
}

} // namespace
