// SPDX-License-Identifier: MIT
#include "demonstration.h"

#include "corpus.h"
#include "images.h"

#include <cstdio>
#include <mutex>

namespace {

using namespace std::chrono_literals;

constexpr auto patience = 20s; // for what has to work, on however busy a machine

bool are_same(const orbit::result<Decoded> &a, const orbit::result<Decoded> &b)
{
	if (a && b)
		return a->text() == b->text();
	return !a && !b && a.error().code() == b.error().code() && a.error().from_method() == b.error().from_method();
}

class Demonstration {
public:
	orbit::result<void> begin()
	{
		auto images = Images::create({.file_bytes = 1 << 18,
					      .pixels = 1 << 16,
					      .memory = 32 << 20,
					      .restarts = {.most = 9, .within = 1h},
					      .faults = true,
					      .in_process = true,
					      .report = [this](const orbit::DomainReport &report) {
						      std::lock_guard lock(mutex_);
						      reports_.push_back(report.message());
					      }});
		if (!images)
			return tl::unexpected(images.error());
		images_ = std::move(*images);
		return {};
	}

	void decode_good(const char *when)
	{
		std::printf("good files, %s:\n", when);
		for (const auto &[name, file] : good_) {
			const auto decoded = images_->decode(file, patience);
			std::printf("  %s: %s%s\n", name.c_str(), decoded ? decoded->text().c_str() : text(decoded.error()).c_str(),
				    are_same(decoded, images_->decode_in_process(file)) ? "" : ", and not so in process");
		}
	}

	void decode_broken()
	{
		std::printf("broken files:\n");
		for (const auto &[kind, files] : broken_files(good_)) {
			std::size_t same = 0;
			for (const File &file : files)
				same += are_same(images_->decode(file, patience), images_->decode_in_process(file));
			std::printf("  %s: %zu, and of these with the same end in process: %zu\n", kind.c_str(), files.size(), same);
		}
	}

	// Whether what the domain died of is told: of a memory limit it depends on the backend.
	void decode_harmful(const char *what, const char *chunk, std::chrono::milliseconds deadline, bool told = true)
	{
		forget_reports();
		const auto decoded = images_->decode(with_chunk(good_[0].file, chunk), deadline);
		std::printf("a file that %s: %s\n", what, decoded ? decoded->text().c_str() : text(decoded.error()).c_str());

		std::lock_guard lock(mutex_);
		for (const std::string &report : reports_)
			std::printf("  %s\n", told ? report.c_str() : "domain png died");
	}

	void decode_one(const char *when)
	{
		const auto decoded = images_->decode(good_[0].file, patience);

		std::printf("a good file %s: %s\n", when, decoded ? decoded->text().c_str() : text(decoded.error()).c_str());
	}

	void print_statistics() const
	{
		const orbit::DomainStatistics statistics = images_->statistics();

		std::printf("the domain was started %llu times, and is %s; of its calls %llu failed\n",
			    static_cast<unsigned long long>(statistics.starts), statistics.running ? "running" : "down",
			    static_cast<unsigned long long>(statistics.failed));
	}

private:
	void forget_reports()
	{
		std::lock_guard lock(mutex_);
		reports_.clear();
	}

	const std::vector<Good> good_ = good_files();
	std::mutex mutex_; // of reports, which come from any thread
	std::vector<std::string> reports_;
	std::unique_ptr<Images> images_;
};

} // namespace

int demonstrate()
{
	Demonstration show;

	if (auto begun = show.begin(); !begun) {
		std::printf("%s\n", begun.error().message().c_str());
		return 1;
	}
	show.decode_good("before");
	show.decode_broken();
	show.print_statistics();
	show.decode_harmful("crashes the decoder", crash_chunk, patience);
	show.decode_one("then");
	show.decode_harmful("hangs it", hang_chunk, 300ms);
	show.decode_one("then");
	show.decode_harmful("makes it use memory without end", memory_chunk, patience, false);
	show.decode_good("after");
	show.decode_harmful("crashes it, once more than it may", crash_chunk, patience);
	show.print_statistics();
	return 0;
}
