// SPDX-License-Identifier: MIT
//
// What runs in the balancer's domain.
#ifndef EXAMPLES_PACKET_FORWARDER_DOMAIN_H
#define EXAMPLES_PACKET_FORWARDER_DOMAIN_H

#include "balance.idl.hpp"
#include "balancer.h"

#include <algorithm>
#include <mutex>
#include <string_view>

namespace forwarder {

class LocalBalancer final : public Balancer {
public:
	orbit::result<void> set_backends(std::span<const Machine> backends) override
	{
		std::vector<Backend> all;

		for (const Machine &machine : backends)
			all.push_back({.name = std::string(machine.name.begin(), std::ranges::find(machine.name, '\0')), .mac = machine.mac});
		const std::scoped_lock locked(mutex_);

		balancer_.change(std::move(all));
		return {};
	}

	orbit::result<std::vector<Choice>> choose(std::span<const Header> headers) override
	{
		const std::scoped_lock locked(mutex_);
		std::vector<Choice> choices;

		choices.reserve(headers.size());
		for (const Header &header : headers) {
			const auto bytes = std::min<std::size_t>(header.bytes, header.data.size());
			const Backend *const backend = balancer_.find(std::span(header.data).first(bytes));

			choices.push_back({.mac = backend ? backend->mac : Mac{}, .send = backend != nullptr});
		}
		return choices;
	}

private:
	std::mutex mutex_;
	::Balancer balancer_{{}};
};

} // namespace forwarder

#endif
