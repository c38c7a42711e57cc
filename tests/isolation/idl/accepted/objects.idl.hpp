// SPDX-License-Identifier: MIT
//
// Interfaces as arguments and results: callbacks for the length of a call, objects that are kept or made.
#pragma once

#include <orbit/interface.hpp>

#include <memory>

namespace objects {

class ORBIT_INTERFACE Progress {
public:
	virtual ~Progress() = default;
	virtual orbit::result<bool> step(std::uint32_t n) = 0;
};

class ORBIT_INTERFACE Work {
public:
	virtual ~Work() = default;

	virtual orbit::result<std::uint32_t> run(std::uint32_t steps, Progress &progress) = 0;
	virtual orbit::result<void> subscribe(std::shared_ptr<Progress> progress, std::unique_ptr<Progress> second) = 0;
	virtual orbit::result<std::uint32_t> publish() = 0;
	virtual orbit::result<std::shared_ptr<Work>> clone() = 0;
};

class ORBIT_CREATE CreateWork {
public:
	virtual ~CreateWork() = default;
	virtual orbit::result<std::unique_ptr<Work>> create(std::uint32_t first) = 0;
};

} // namespace objects
