// SPDX-License-Identifier: MIT
//
// Processes in text for people, and in JSON.
#ifndef ORBITCTL_SHOW_H
#define ORBITCTL_SHOW_H

#include "processes.h"

#include <iosfwd>

namespace orbitctl {

// Lines of cells, in columns.
class Table {
public:
	explicit Table(std::vector<std::string> head) : lines_{std::move(head)} {}
	void add(std::vector<std::string> line) { lines_.push_back(std::move(line)); }
	std::size_t size() const { return lines_.size() - 1; }
	// Right: the columns that hold numbers, by their letter in this string: "lrr...".
	void print(std::ostream &out, std::string_view alignment, std::size_t width = SIZE_MAX) const;

private:
	std::vector<std::vector<std::string>> lines_;
};

// Fit for a terminal: control characters and what is not UTF-8 become question marks.
std::string printable(std::string_view text);
std::string name_or_dash(const std::string &name); // printable, "-" if there is none
std::string show(const Number &number);	      // "-" if it is not known
std::string show_bytes(const Number &number); // "12K"
// "3 processes may not be looked into"
std::string not_permitted(std::size_t processes);

void print_text(std::ostream &out, const Process &process);
void print_json(std::ostream &out, const std::vector<Process> &processes, std::size_t others);

} // namespace orbitctl

#endif // ORBITCTL_SHOW_H
