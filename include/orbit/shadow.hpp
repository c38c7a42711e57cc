// SPDX-License-Identifier: MIT
//
// What generated shadows have in common. A shadow is a proxy that outlives the domain behind it: a call in which the
// domain dies is made again, in the domain that was started in its place, if that cannot do harm:
//
//	- the method is ORBIT_REPEATABLE, or the call had not begun when the domain died,
//	- and no argument was moved by the call.
//
// Other calls end with an error that says so. The domain is restarted by its supervisor, see <orbit/domain.hpp>.
#ifndef ORBIT_SHADOW_HPP
#define ORBIT_SHADOW_HPP

#include <orbit/interface.hpp>

namespace orbit::isolation {

/// How a shadow learns of restarts. Thread-safe.
class Recovery {
public:
	virtual ~Recovery() = default;

	/// How often the domain has been started.
	virtual std::uint64_t starts() const noexcept = 0;

	/// The same when no restart is under way any more: waits for one, which has a deadline of its own.
	virtual std::uint64_t settled() = 0;

	/// For who knows better than any call that the domain started as number `start` does nothing more: ends it, as if it
	/// had not answered, unless there is another one by now. Returns when another one serves, or none ever will.
	virtual void replace(std::uint64_t start) = 0;
};

class ShadowBase {
protected:
	/// In how many domains one call is begun at most: what kills every domain that serves it shall not do so for ever.
	static constexpr int most_begun = 3;

	explicit ShadowBase(std::shared_ptr<Recovery> recovery) noexcept : recovery_(std::move(recovery)) {}

	template <class Call> auto repeat_(bool repeatable, Call &&call) const
	{
		for (int begun = 0;;) {
			const std::uint64_t before = recovery_->starts();
			auto result = call();

			if (result || result.error().from_method() || recovery_->settled() == before)
				return result;
			if (!may_have_begun(result.error()))
				continue;
			if (!repeatable)
				return decltype(result)(unrepeated(result.error()));
			if (++begun == most_begun)
				return result;
		}
	}

	template <class Call> auto once_(Call &&call) const
	{
		const std::uint64_t before = recovery_->starts();
		auto result = call();

		if (!result && !result.error().from_method() && recovery_->settled() != before)
			return decltype(result)(unrepeated(result.error()));
		return result;
	}

private:
	// Of the errors that a call ends with because its domain died: see CallTransport.
	static bool may_have_begun(const call_error &error) noexcept
	{
		return error.code() == ECONNRESET || error.code() == ETIMEDOUT;
	}

	static tl::unexpected<call_error> unrepeated(const call_error &error) noexcept
	{
		return refused(-error.code(), "the domain died and was restarted; the call may not be repeated");
	}

	std::shared_ptr<Recovery> recovery_;
};

} // namespace orbit::isolation

#endif
