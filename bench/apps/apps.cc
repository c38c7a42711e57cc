// SPDX-License-Identifier: MIT
//
// The first application: a key-value table and a task that saves it with a checksum. It shows
// how an application is measured; README.md has the rules that it follows.
#include "../common/memory.h"

#include <condition_variable>
#include <cstring>
#include <mutex>
#include <optional>
#include <string_view>
#include <thread>

DEFINE_string(variant, "none", "who does the task: none, thread, fork, orbit");
DEFINE_uint64(table_mib, 64, "size of the table");
DEFINE_uint64(requests, 60000, "one after the other, as fast as they go");
DEFINE_uint64(task_every, 5000, "requests, after which the task begins anew");
DEFINE_uint64(rate, 0, "then so many a second, for --seconds; 0: no such phase");
DEFINE_uint64(seconds, 3, "see --rate");

using namespace bench;

namespace {

struct Slot {
	std::uint64_t key;
	std::uint64_t version;
	char value[112];
};

std::uint64_t mix(const Slot &slot)
{
	std::uint64_t first;

	std::memcpy(&first, slot.value, sizeof(first));
	return (slot.version + first) * (slot.key * 2 + 1);
}

// The task. Reads the table once, and returns its checksum.
std::uint64_t save(const Slot *slots, std::size_t count, int fd)
{
	constexpr std::size_t block = 4096;
	std::uint64_t sum = 0;

	if (lseek(fd, 0, SEEK_SET))
		return ~std::uint64_t{0};
	for (std::size_t n = 0; n < count; n += block) {
		const std::size_t many = std::min(block, count - n);
		const auto bytes = static_cast<ssize_t>(many * sizeof(Slot));

		if (write(fd, slots + n, static_cast<std::size_t>(bytes)) != bytes)
			return ~std::uint64_t{0};
		for (std::size_t m = n; m < n + many; m++)
			sum += mix(slots[m]);
	}
	return sum;
}

class Table {
public:
	Table(void *memory, std::size_t bytes) : slots_(static_cast<Slot *>(memory)), count_(bytes / sizeof(Slot))
	{
		for (std::size_t n = 0; n < count_; n++) {
			slots_[n] = {n, 1, "a value"};
			sum_ += mix(slots_[n]);
		}
	}

	// Twenty operations, one of five a put; four of five go to a tenth of the keys.
	void request()
	{
		for (int n = 0; n < 20; n++) {
			const std::uint64_t random = next();
			const std::uint64_t keys = random % 5 ? count_ / 10 : count_;
			Slot &slot = slots_[(random >> 20) % keys];

			if (random / 5 % 5) {
				char value[sizeof(slot.value)];

				std::memcpy(value, slot.value, sizeof(value));
				benchmark::DoNotOptimize(value);
			} else {
				sum_ -= mix(slot);
				slot.version++;
				std::memcpy(slot.value, &random, sizeof(random));
				sum_ += mix(slot);
			}
		}
	}

	const Slot *slots() const { return slots_; }
	std::size_t count() const { return count_; }
	// What save() is to find now.
	std::uint64_t sum() const { return sum_; }

private:
	std::uint64_t next()
	{
		state_ = state_ * 6364136223846793005U + 1442695040888963407U;
		return state_ >> 16;
	}

	Slot *slots_;
	std::size_t count_;
	std::uint64_t sum_ = 0, state_ = 1;
};

// Who does the task.
class Maintenance {
public:
	virtual ~Maintenance() = default;
	// Begins it, if the last one has ended; tells whether.
	virtual bool begin() = 0;
	// Waits for the one that runs.
	virtual void finish() = 0;
	// Around a request.
	virtual void lock() {}
	virtual void unlock() {}

	std::uint64_t done = 0, wrong = 0, skipped = 0;

protected:
	void result(std::uint64_t found, std::uint64_t expected)
	{
		done++;
		wrong += found != expected;
	}
};

class Nobody final : public Maintenance {
	bool begin() override { return false; }
	void finish() override {}
};

// Holds the lock that requests take, for a save is to be of one moment.
class ByThread final : public Maintenance {
public:
	ByThread(const Table &table, int fd) : table_(table), fd_(fd), thread_([this] { work(); }) {}
	~ByThread() override
	{
		{
			const std::lock_guard guard(state_mutex_);
			state_ = State::ending;
		}
		changed_.notify_all();
		thread_.join();
	}

	bool begin() override
	{
		const std::lock_guard guard(state_mutex_);

		if (state_ != State::idle) {
			skipped++;
			return false;
		}
		state_ = State::wanted;
		changed_.notify_all();
		return true;
	}
	void finish() override
	{
		std::unique_lock lock(state_mutex_);

		changed_.wait(lock, [this] { return state_ == State::idle; });
	}
	void lock() override { table_mutex_.lock(); }
	void unlock() override { table_mutex_.unlock(); }

private:
	enum class State { idle, wanted, ending };

	void work()
	{
		std::unique_lock lock(state_mutex_);

		for (;;) {
			changed_.wait(lock, [this] { return state_ != State::idle; });
			if (state_ == State::ending)
				return;
			lock.unlock();
			{
				const std::lock_guard guard(table_mutex_);
				result(save(table_.slots(), table_.count(), fd_), table_.sum());
			}
			lock.lock();
			if (state_ == State::wanted)
				state_ = State::idle;
			changed_.notify_all();
		}
	}

	const Table &table_;
	int fd_;
	std::mutex table_mutex_, state_mutex_;
	std::condition_variable changed_;
	State state_ = State::idle;
	std::thread thread_;
};

class ByFork final : public Maintenance {
public:
	ByFork(const Table &table, int fd) : table_(table), fd_(fd) {}

	bool begin() override
	{
		if (!reap(WNOHANG)) {
			skipped++;
			return false;
		}
		expected_ = table_.sum();
		results_.emplace();
		pid_ = fork();
		check(pid_ >= 0, "fork");
		if (!pid_) {
			const std::uint64_t found = save(table_.slots(), table_.count(), fd_);

			_exit(write(results_->write_end(), &found, sizeof(found)) != sizeof(found));
		}
		return true;
	}
	void finish() override { reap(0); }

private:
	// Whether no child is left.
	bool reap(int flags)
	{
		std::uint64_t found = 0;

		if (!results_)
			return true;
		if (waitpid(pid_, nullptr, flags) != pid_)
			return false;
		results_->close_write();
		if (read(results_->read_end(), &found, sizeof(found)) != sizeof(found))
			found = ~expected_;
		results_.reset();
		result(found, expected_);
		return true;
	}

	const Table &table_;
	int fd_;
	std::optional<Pipe> results_;
	pid_t pid_ = -1;
	std::uint64_t expected_ = 0;
};

class ByOrbit final : public Maintenance {
public:
	ByOrbit(const Table &table, const orbit::Pool &pool, int fd)
		: table_(table), pool_(pool), fd_(fd),
		  orbit_(value(orbit::Orbit::create({.name = "save", .keep_fds = {&fd_, 1}}), "orbit"))
	{
	}

	bool begin() override
	{
		if (task_ && !task_->ready()) {
			skipped++;
			return false;
		}
		finish();
		expected_ = table_.sum();
		task_.emplace(value(orbit_.call_async({{pool_, orbit::Mode::adaptive}}, save, table_.slots(),
						      table_.count(), fd_),
				    "call"));
		return true;
	}
	void finish() override
	{
		if (task_)
			result(value(task_->wait(), "wait"), expected_);
		task_.reset();
	}

private:
	const Table &table_;
	const orbit::Pool &pool_;
	int fd_;
	orbit::Orbit orbit_;
	std::optional<orbit::Task<std::uint64_t>> task_;
	std::uint64_t expected_ = 0;
};

void print_list(const char *name, const std::vector<std::int64_t> &values)
{
	for (std::size_t n = 0; n < values.size(); n++) {
		if (n % 1000 == 0)
			std::printf(n ? "]}\n{\"%s\": [" : "{\"%s\": [", name);
		std::printf(n % 1000 ? ", %lld" : "%lld", static_cast<long long>(values[n]));
	}
	if (!values.empty())
		std::printf("]}\n");
}

class Server {
public:
	Server(Table &table, Maintenance &maintenance) : table_(table), maintenance_(maintenance) {}

	// Each request begins when the last has ended. Where instructions are counted, this is also
	// where the time that each took comes from.
	void as_fast_as_possible()
	{
		std::vector<std::int64_t> latencies;
		const auto begin = now();

		latencies.reserve(FLAGS_requests);
		for (std::uint64_t n = 1; n <= FLAGS_requests; n++) {
			const auto before = now();

			request(n);
			latencies.push_back(now() - before);
		}
		const auto all = now() - begin;
		maintenance_.finish();
		std::printf("{\"requests\": %llu, \"time\": %lld}\n",
			    static_cast<unsigned long long>(FLAGS_requests), static_cast<long long>(all));
		if (!FLAGS_rate)
			print_list("latency", latencies);
	}

	// Requests arrive at a given rate, whether or not the last has been answered: who comes while
	// the server stands still waits, and so does who comes next.
	void at_rate()
	{
		const auto interval = 1000000000 / static_cast<std::int64_t>(FLAGS_rate);
		const std::uint64_t count = FLAGS_rate * FLAGS_seconds;
		std::vector<std::int64_t> latencies;
		auto arrival = now();

		latencies.reserve(count);
		for (std::uint64_t n = 1; n <= count; n++, arrival += interval) {
			while (now() < arrival)
				;
			request(n);
			latencies.push_back(now() - arrival);
		}
		maintenance_.finish();
		print_list("latency", latencies);
	}

	void print_begins() const { print_list("begin", begins_); }

private:
	void request(std::uint64_t number)
	{
		if (number % FLAGS_task_every == 0) {
			const auto before = now();

			if (maintenance_.begin())
				begins_.push_back(now() - before);
		}
		maintenance_.lock();
		table_.request();
		maintenance_.unlock();
	}

	Table &table_;
	Maintenance &maintenance_;
	std::vector<std::int64_t> begins_;
};

} // namespace

int main(int argc, char **argv)
{
	gflags::ParseCommandLineFlags(&argc, &argv, true);
	check(FLAGS_task_every && FLAGS_table_mib && FLAGS_requests, "0 is too few");
	std::printf("{\"about\": {\"application\": \"kv\", \"variant\": \"%s\"}}\n", FLAGS_variant.c_str());

	const std::size_t bytes = FLAGS_table_mib * MiB;
	std::FILE *const file = std::tmpfile();
	std::optional<orbit::Pool> pool;
	std::optional<Heap> heap;

	check(file, "a temporary file");
	if (FLAGS_variant == "orbit")
		pool.emplace(value(orbit::Pool::create(bytes, "table"), "pool"));
	else
		heap.emplace(bytes);
	Table table(pool ? pool->data() : heap->data(), bytes);

	std::unique_ptr<Maintenance> maintenance;
	if (FLAGS_variant == "none")
		maintenance = std::make_unique<Nobody>();
	else if (FLAGS_variant == "thread")
		maintenance = std::make_unique<ByThread>(table, fileno(file));
	else if (FLAGS_variant == "fork")
		maintenance = std::make_unique<ByFork>(table, fileno(file));
	else if (FLAGS_variant == "orbit")
		maintenance = std::make_unique<ByOrbit>(table, *pool, fileno(file));
	else
		die("--variant is none, thread, fork or orbit");

	// The first run is what it costs to begin; it is not measured.
	maintenance->begin();
	maintenance->finish();

	Server server(table, *maintenance);
	server.as_fast_as_possible();
	if (FLAGS_rate)
		server.at_rate();
	if (FLAGS_variant != "none")
		server.print_begins();
	std::printf("{\"tasks\": {\"done\": %llu, \"wrong\": %llu, \"skipped\": %llu}}\n",
		    static_cast<unsigned long long>(maintenance->done),
		    static_cast<unsigned long long>(maintenance->wrong),
		    static_cast<unsigned long long>(maintenance->skipped));
	std::printf("{\"end\": true}\n");
}
