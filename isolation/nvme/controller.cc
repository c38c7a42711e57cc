// SPDX-License-Identifier: MIT
#include "controller.h"

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstring>
#include <thread>

namespace orbit::nvme {

using isolation::refused;
using namespace std::chrono_literals;

namespace {

constexpr unsigned admin_entries = 32;
constexpr std::size_t smallest_page = 4096;

// Tags of admin commands.
constexpr std::uint64_t tag_answer = 0;
constexpr std::uint64_t tag_event = 1;
constexpr std::uint64_t tag_abort = 2;

constexpr std::size_t round_up(std::size_t bytes, std::size_t to)
{
	return (bytes + to - 1) / to * to;
}

int errno_of(Status status)
{
	if (status.ok())
		return 0;
	if (status.sct() == sct::media)
		return status.sc() == sc::unrecovered_read_error ? ENODATA : status.sc() == sc::access_denied ? EACCES : EIO;
	if (status.sct() != sct::generic)
		return EIO;
	switch (status.sc()) {
	case sc::invalid_opcode: return EOPNOTSUPP;
	case sc::invalid_field: return EINVAL;
	case sc::abort_requested:
	case sc::aborted_sq_deletion: return ECANCELED;
	case sc::invalid_namespace: return ENODEV;
	case sc::namespace_not_ready: return EAGAIN;
	case sc::lba_out_of_range: return EFBIG;
	case sc::capacity_exceeded: return ENOSPC;
	default: return EIO;
	}
}

// What a status register says of a controller that was ready: nothing, or why it will do no more.
const char *lost(std::uint32_t status)
{
	if (status == csts::gone)
		return "the controller has been taken away";
	if (status & csts::cfs)
		return "the controller says that it has failed for good";
	if (!(status & csts::rdy))
		return "the controller has been reset, or does not answer";
	return nullptr;
}

// Text of a fixed length, filled up with blanks.
std::string text_of(std::span<const char> text)
{
	const std::string_view all(text.data(), text.size());
	const auto last = all.find_last_not_of(std::string_view(" \0", 2));

	return std::string(all.substr(0, last == all.npos ? 0 : last + 1));
}

} // namespace

result<std::span<std::byte>> DmaMemory::take(std::size_t bytes, std::size_t alignment) noexcept
{
	const auto begin = static_cast<std::uint64_t>(own_.data() - memory_.data()) + iova_;
	const std::uint64_t from = round_up(begin + taken_, alignment) - begin;

	if (from > own_.size() || bytes > own_.size() - from)
		return refused(-ENOMEM, "there is too little memory for DMA");
	taken_ = from + bytes;
	std::memset(own_.data() + from, 0, bytes);
	return own_.subspan(from, bytes);
}

// Queues

result<void> QueuePair::make(std::size_t list_bytes)
{
	DmaMemory &memory = controller_.memory_;
	const std::size_t page = controller_.page_;
	auto sq = memory.take(entries_ * sizeof(Command), page);
	auto cq = sq ? memory.take(entries_ * sizeof(Completion), page) : sq;
	auto lists = cq ? memory.take((entries_ - 1) * list_bytes, list_bytes ? page : 1) : cq;

	if (!lists)
		return tl::unexpected(lists.error());
	sq_ = *sq;
	cq_ = *cq;
	lists_ = *lists;
	list_bytes_ = list_bytes;
	// One entry stays empty: a full queue is not to look like an empty one.
	slots_.resize(entries_ - 1);
	for (unsigned slot = depth(); slot-- > 0;)
		free_.push_back(static_cast<std::uint16_t>(slot));
	return {};
}

std::optional<std::uint16_t> QueuePair::put(Command command, std::uint64_t tag)
{
	if (free_.empty())
		return std::nullopt;
	command.cid = free_.back();
	free_.pop_back();
	slots_[command.cid] = {.tag = tag, .since = Clock::now(), .busy = true};
	busy_++;
	std::memcpy(sq_.data() + tail_ * sizeof(Command), &command, sizeof(Command));
	tail_ = tail_ + 1 == entries_ ? 0 : tail_ + 1;
	return command.cid;
}

void QueuePair::ring()
{
	if (told_ == tail_ || controller_.failed())
		return;
	told_ = tail_;
	// Bar::write() has the barrier between the entries and this.
	controller_.doorbell(id_, false, tail_);
}

// The next completion, if there is one.
bool QueuePair::next(Completion &completion)
{
	const auto *const entry = reinterpret_cast<const Completion *>(cq_.data()) + head_;
	// The controller writes the phase tag last. The rest of the entry is read after it.
	const std::uint16_t status = __atomic_load_n(&entry->status, __ATOMIC_ACQUIRE);

	if ((status & 1) != phase_)
		return false;
	std::memcpy(&completion, entry, sizeof(completion));
	completion.status = status;
	if (++head_ == entries_) {
		head_ = 0;
		phase_ = !phase_;
	}
	if (completion.cid >= slots_.size() || !slots_[completion.cid].busy) {
		controller_.fail("the controller has completed a command that was not under way");
		return false;
	}
	slots_[completion.cid].busy = false;
	free_.push_back(completion.cid);
	busy_--;
	return true;
}

// Fills in where the data is. PRPs: its first page, and the second, or a list of all the others in the slot's place. An SGL: where
// it begins and how long it is, for it is in one piece; so nobody writes a list, and the controller fetches none. But two pages
// PRPs describe as well, and controllers know them best. False if the device does not reach it.
bool QueuePair::describe(Command &command, unsigned slot, const void *data, std::size_t bytes) const
{
	const std::size_t page = controller_.page_;
	const std::optional<std::uint64_t> iova = controller_.memory_.iova_of(data, bytes);

	if (!iova || *iova % controller_.limits_.alignment)
		return false;
	command.prp1 = *iova;
	if (*iova % 4 || (controller_.limits_.sgl && *iova % page + bytes > 2 * page)) {
		command.flags |= psdt_sgl;
		command.prp2 = sgl_data_block(static_cast<std::uint32_t>(bytes));
		return true;
	}

	const std::size_t in_first = page - *iova % page;

	if (bytes <= in_first)
		return true;

	std::uint64_t at = *iova + in_first;
	std::size_t pages = round_up(bytes - in_first, page) / page;

	if (pages == 1) {
		command.prp2 = at;
		return true;
	}
	if (pages > list_bytes_ / sizeof(at))
		return false;

	std::byte *list = lists_.data() + slot * list_bytes_;

	command.prp2 = *controller_.memory_.iova_of(list, list_bytes_);
	for (; pages; pages--, at += page, list += sizeof(at))
		std::memcpy(list, &at, sizeof(at));
	return true;
}

const Namespace *QueuePair::find(std::uint32_t id)
{
	// They change seldom. Should they change meanwhile, the next one sees it.
	if (const unsigned now = controller_.version_.load(std::memory_order_acquire); now != version_) {
		namespaces_ = controller_.namespaces();
		version_ = now;
	}
	for (const Namespace &space : namespaces_)
		if (space.id == id)
			return &space;
	return nullptr;
}

result<void> QueuePair::submit(const Request &request)
{
	if (controller_.failed())
		return refused(-ENOTRECOVERABLE, controller_.failure());
	if (free_.empty())
		return refused(-EAGAIN, "as many commands are under way as may be");

	const Namespace *const space = find(request.nsid);
	Command command;

	if (!space)
		return refused(-ENODEV, "there is no such namespace");
	command.nsid = request.nsid;
	command.cdw10 = static_cast<std::uint32_t>(request.lba);
	command.cdw11 = static_cast<std::uint32_t>(request.lba >> 32);
	if (request.op == Op::flush) {
		command.opcode = static_cast<std::uint8_t>(IoOpcode::flush);
		command.cdw10 = command.cdw11 = 0;
		put(command, request.tag);
		return {};
	}
	if (!request.blocks)
		return refused(-EINVAL, "a command of no blocks");
	if (request.lba >= space->blocks || request.blocks > space->blocks - request.lba)
		return refused(-EFBIG, "blocks past the namespace's end");

	const std::size_t bytes = std::size_t{request.blocks} * space->block_bytes;
	const unsigned slot = free_.back();

	switch (request.op) {
	case Op::read:
	case Op::write:
		if (bytes > request.room)
			return refused(-ERANGE, "the memory for the data is smaller than the blocks");
		if (request.blocks > 0x10000 || bytes > controller_.limits_.max_transfer)
			return refused(-EINVAL, "more than one command of this controller can transfer");
		command.opcode = static_cast<std::uint8_t>(request.op == Op::read ? IoOpcode::read : IoOpcode::write);
		command.cdw12 = request.blocks - 1;
		if (!describe(command, slot, request.data, bytes))
			return refused(-EFAULT, "the data is not in memory that the device reaches, or not aligned");
		break;
	case Op::write_zeroes:
		if (!controller_.limits_.write_zeroes)
			return refused(-EOPNOTSUPP, "the controller has no Write Zeroes");
		if (request.blocks > 0x10000 || bytes > controller_.limits_.most_zeroes)
			return refused(-EINVAL, "more than one command of this controller can clear");
		command.opcode = static_cast<std::uint8_t>(IoOpcode::write_zeroes);
		command.cdw12 = request.blocks - 1;
		break;
	case Op::discard: {
		if (!controller_.limits_.discard)
			return refused(-EOPNOTSUPP, "the controller has no Dataset Management");
		if (request.blocks > controller_.limits_.most_discarded)
			return refused(-EINVAL, "more than one command of this controller can discard");

		const DsmRange range{.attributes = 0, .blocks = request.blocks, .lba = request.lba};
		std::byte *const list = lists_.data() + slot * list_bytes_;

		std::memcpy(list, &range, sizeof(range));
		command.opcode = static_cast<std::uint8_t>(IoOpcode::dataset_management);
		command.prp1 = *controller_.memory_.iova_of(list, sizeof(range));
		command.cdw10 = 0; // one range
		command.cdw11 = dsm_deallocate;
		break;
	}
	default: return refused(-EINVAL, "there is no such operation");
	}
	put(command, request.tag);
	return {};
}

std::span<Outcome> QueuePair::poll(std::span<Outcome> room)
{
	std::size_t n = 0;
	Completion completion;

	while (n < room.size() && !controller_.failed() && next(completion)) {
		const Status status{static_cast<std::uint16_t>(completion.status >> 1)};

		room[n++] = {.tag = slots_[completion.cid].tag, .error = errno_of(status)};
	}
	if (n && !controller_.failed())
		controller_.doorbell(id_, true, head_);
	// What was under way ends here, and nothing of it can end twice: the controller is not looked at any more.
	for (unsigned slot = 0; controller_.failed() && busy_ && slot < slots_.size() && n < room.size(); slot++) {
		if (!slots_[slot].busy)
			continue;
		slots_[slot].busy = false;
		busy_--;
		room[n++] = {.tag = slots_[slot].tag, .error = ENOTRECOVERABLE};
	}
	return room.first(n);
}

// The controller

std::size_t Controller::memory_for(const ControllerOptions &options) noexcept
{
	// The page that a list takes may be larger; then start() says ENOMEM.
	const std::size_t entries = options.depth + 1, page = smallest_page;

	return 4 * page + // admin queues, a buffer, and where the memory does not begin at a page
	       options.queues * (round_up(entries * sizeof(Command), page) + round_up(entries * sizeof(Completion), page) +
				 options.depth * page);
}

tl::unexpected<call_error> Controller::fail(const char *why) noexcept
{
	const char *none = nullptr;

	failed_.compare_exchange_strong(none, why);
	return refused(-ENOTRECOVERABLE, failure());
}

void Controller::doorbell(unsigned queue, bool completion, unsigned value) const noexcept
{
	registers_.write<std::uint32_t>(reg::doorbells + (2 * queue + completion) * stride_, value);
}

std::vector<Namespace> Controller::namespaces() const
{
	const std::scoped_lock locked(namespaces_lock_);

	return namespaces_;
}

std::optional<Namespace> Controller::find(std::uint32_t id) const
{
	for (const Namespace &space : namespaces())
		if (space.id == id)
			return space;
	return std::nullopt;
}

result<void> Controller::wait_for(std::uint32_t mask, std::uint32_t value, std::chrono::milliseconds limit)
{
	const auto end = std::chrono::steady_clock::now() + limit;

	for (;;) {
		const bool late = std::chrono::steady_clock::now() > end;
		const auto status = registers_.read<std::uint32_t>(reg::csts);

		if (status == csts::gone)
			return refused(-ENODEV, "the controller does not answer: it has been taken away, or has no power");
		if ((status & mask) == value)
			return {};
		if (status & csts::cfs && value)
			return refused(-ENOTRECOVERABLE, "the controller says that it has failed for good");
		if (late)
			return refused(-ETIMEDOUT, "the controller has not become ready in the time that it names");
		std::this_thread::sleep_for(1ms);
	}
}

// Section 3.5.1, Memory-based Controller Initialization.
result<void> Controller::reset()
{
	cap_.value = registers_.read<std::uint64_t>(reg::cap);
	if (cap_.value == ~std::uint64_t{0} || !cap_.value)
		return refused(-ENODEV, "the controller does not answer: it has been taken away, or has no power");
	if (!cap_.nvm())
		return refused(-EOPNOTSUPP, "the controller does not have the NVM command set");
	stride_ = 4u << cap_.dstrd();
	page_ = smallest_page << cap_.mpsmin();

	// Of the admin queue, and one more.
	if (cap_.mqes() < 2 || reg::doorbells + 4 * std::size_t{stride_} > registers_.size())
		return refused(-EPROTO, "the controller's capabilities make no sense");

	const auto limit = cap_.to() * 500ms + 500ms;
	const auto configured = registers_.read<std::uint32_t>(reg::cc);

	if (configured & cc::en) {
		// It must not be disabled on its way to readiness; unless it never gets there.
		if (const auto ready = wait_for(csts::rdy, csts::rdy, limit); !ready && ready.error().code() == ENODEV)
			return ready;
		registers_.write<std::uint32_t>(reg::cc, configured & ~cc::en);
	}
	if (const auto off = wait_for(csts::rdy, 0, limit); !off)
		return off;

	admin_.reset(new QueuePair(*this, 0, std::min(admin_entries, cap_.mqes())));
	if (const auto made = admin_->make(0); !made)
		return made;
	registers_.write<std::uint32_t>(reg::aqa, (admin_->entries_ - 1) << 16 | (admin_->entries_ - 1));
	registers_.write<std::uint64_t>(reg::asq, *memory_.iova_of(admin_->sq_.data(), admin_->sq_.size()));
	registers_.write<std::uint64_t>(reg::acq, *memory_.iova_of(admin_->cq_.data(), admin_->cq_.size()));
	registers_.write<std::uint32_t>(reg::cc, cc::en | cc::mps(cap_.mpsmin()) | cc::iosqes | cc::iocqes);
	return wait_for(csts::rdy, csts::rdy, limit);
}

// Completions of admin commands: answers, events, aborts.
result<void> Controller::take_admin_completions()
{
	Completion completion;
	bool any = false;

	while (!failed() && admin_->next(completion)) {
		any = true;
		switch (admin_->slots_[completion.cid].tag) {
		case tag_event:
			// One that is refused is not asked for again.
			if (Status{static_cast<std::uint16_t>(completion.status >> 1)}.ok())
				told_events_.push_back({completion.dw0});
			break;
		case tag_abort: aborts_--; break;
		default: answer_ = completion;
		}
	}
	if (failed())
		return refused(-ENOTRECOVERABLE, failure());
	if (any)
		doorbell(0, true, admin_->head_);
	return {};
}

// A command that is waited for. Its status says that it has worked.
result<Completion> Controller::admin(Command command)
{
	const auto end = std::chrono::steady_clock::now() + options_.timeout;

	if (failed())
		return refused(-ENOTRECOVERABLE, failure());
	answer_.reset();
	if (!admin_->put(command, tag_answer))
		return fail("the admin queue is full");
	admin_->ring();
	for (auto pause = 1us;; pause = std::min(pause * 2, std::chrono::microseconds(1ms))) {
		const bool late = std::chrono::steady_clock::now() > end;

		if (const auto taken = take_admin_completions(); !taken)
			return tl::unexpected(taken.error());
		if (answer_)
			break;
		if (const char *const why = lost(registers_.read<std::uint32_t>(reg::csts)))
			return fail(why);
		if (late)
			return fail("the controller does not answer admin commands");
		std::this_thread::sleep_for(pause);
	}

	const Status status{static_cast<std::uint16_t>(answer_->status >> 1)};

	if (!status.ok())
		return refused(-errno_of(status), "the controller refuses an admin command");
	return *answer_;
}

// Into buffer_.
result<void> Controller::identify(std::uint32_t what, std::uint32_t nsid)
{
	Command command;

	command.opcode = static_cast<std::uint8_t>(AdminOpcode::identify);
	command.nsid = nsid;
	command.prp1 = *memory_.iova_of(buffer_.data(), buffer_.size());
	command.cdw10 = what;
	if (const auto done = admin(command); !done)
		return tl::unexpected(done.error());
	return {};
}

result<void> Controller::read_controller()
{
	const auto version = registers_.read<std::uint32_t>(reg::vs);
	IdentifyController says;

	if (const auto done = identify(cns::controller, 0); !done)
		return done;
	std::memcpy(&says, buffer_.data(), sizeof(says));
	if ((says.sqes & 0xf) > 6 || (says.cqes & 0xf) > 4)
		return refused(-EOPNOTSUPP, "the controller's queues have larger entries");
	model_ = text_of(says.mn);
	serial_ = text_of(says.sn);
	highest_namespace_ = says.nn;
	lists_namespaces_ = version >= 0x10100;
	events_ = std::min(says.aerl + 1u, 4u);
	most_aborts_ = says.acl + 1u;
	// A list has one page, and the first page of the data is not in it.
	limits_.max_transfer = page_ / sizeof(std::uint64_t) * page_;
	if (says.mdts && says.mdts < 32)
		limits_.max_transfer = std::min(limits_.max_transfer, page_ << says.mdts);
	limits_.write_cache = says.vwc & 1;
	limits_.write_zeroes = says.oncs & oncs::write_zeroes;
	limits_.discard = says.oncs & oncs::dataset_management;

	const unsigned has = options_.sgl ? says.sgls & sgls::mask : 0;

	limits_.sgl = has == sgls::any_alignment || has == sgls::dwords;
	limits_.alignment = has == sgls::any_alignment ? 1 : 4;
	return read_limits_of_command_set();
}

// Controllers older than NVMe 2.0 may not know the question: then they tell of no limits.
result<void> Controller::read_limits_of_command_set()
{
	IdentifyNvmController says{};

	if (lists_namespaces_) {
		if (identify(cns::controller_of_command_set, 0))
			std::memcpy(&says, buffer_.data(), sizeof(says));
		else if (failed())
			return refused(-ENOTRECOVERABLE, failure());
	}
	limits_.most_zeroes = says.wzsl && says.wzsl < 32 ? std::uint64_t{page_} << says.wzsl : ~std::uint64_t{0};
	limits_.most_discarded = says.dmrsl ? says.dmrsl : ~std::uint32_t{0};
	if (says.dmsl)
		limits_.most_discarded = std::min(limits_.most_discarded, says.dmsl);
	return {};
}

result<void> Controller::read_namespaces()
{
	std::vector<std::uint32_t> ids;
	std::vector<Namespace> found;

	if (lists_namespaces_) {
		// 1,024 a page, in order, those above the number asked for.
		for (std::uint32_t last = 0;;) {
			if (const auto done = identify(cns::active_namespaces, last); !done)
				return done;

			std::uint32_t page[1024];

			std::memcpy(page, buffer_.data(), sizeof(page));

			std::uint32_t *const end = std::find(std::begin(page), std::end(page), 0u);

			if (!std::is_sorted(std::begin(page), end) || (end != page && page[0] <= last))
				return refused(-EPROTO, "the controller's list of namespaces is in no order");
			ids.insert(ids.end(), std::begin(page), end);
			if (end != std::end(page))
				break;
			last = page[1023];
		}
	} else {
		// These are few.
		for (std::uint32_t id = 1; id <= std::min(highest_namespace_, 1024u); id++)
			ids.push_back(id);
	}
	for (const std::uint32_t id : ids) {
		if (const auto done = identify(cns::identify_namespace, id); !done) {
			if (failed())
				return done;
			continue; // it has just gone
		}

		IdentifyNamespace says;

		std::memcpy(&says, buffer_.data(), sizeof(says));

		const auto &format = says.lbaf[says.flbas & 0xf];

		// Not one whose blocks have metadata, or checks that the host makes. Inactive ones say nothing.
		if (!says.nsze || format.ms || says.dps & 7 || format.lbads < 9 || format.lbads > 16)
			continue;
		found.push_back({.id = id, .blocks = says.nsze, .block_bytes = 1u << format.lbads});
	}
	const std::scoped_lock locked(namespaces_lock_);

	namespaces_ = std::move(found);
	version_.fetch_add(1, std::memory_order_release);
	return {};
}

result<void> Controller::make_queues()
{
	const unsigned wanted = std::max(options_.queues, 1u);
	const unsigned entries = std::min(std::max(options_.depth, 1u) + 1, cap_.mqes());
	Command command;

	command.opcode = static_cast<std::uint8_t>(AdminOpcode::set_features);
	command.cdw10 = feature::number_of_queues;
	command.cdw11 = (wanted - 1) << 16 | (wanted - 1);

	const auto granted = admin(command);

	if (!granted)
		return tl::unexpected(granted.error());

	const auto doorbells = static_cast<unsigned>((registers_.size() - reg::doorbells) / (2 * stride_)) - 1;
	const unsigned queues = std::min({wanted, (granted->dw0 & 0xffff) + 1, (granted->dw0 >> 16) + 1, doorbells});

	limits_.depth = entries - 1;
	for (unsigned id = 1; id <= queues; id++) {
		std::unique_ptr<QueuePair> pair(new QueuePair(*this, id, entries));

		if (const auto made = pair->make(page_); !made)
			return made;
		command = {};
		command.opcode = static_cast<std::uint8_t>(AdminOpcode::create_cq);
		command.prp1 = *memory_.iova_of(pair->cq_.data(), pair->cq_.size());
		command.cdw10 = (entries - 1) << 16 | id;
		command.cdw11 = 1u | (options_.interrupts ? 2u | id << 16 : 0u); // contiguous
		if (const auto made = admin(command); !made)
			return tl::unexpected(made.error());
		command = {};
		command.opcode = static_cast<std::uint8_t>(AdminOpcode::create_sq);
		command.prp1 = *memory_.iova_of(pair->sq_.data(), pair->sq_.size());
		command.cdw10 = (entries - 1) << 16 | id;
		command.cdw11 = 1u | id << 16;
		if (const auto made = admin(command); !made)
			return tl::unexpected(made.error());
		queues_.push_back(std::move(pair));
	}
	return {};
}

void Controller::ask_for_events()
{
	Command command;

	command.opcode = static_cast<std::uint8_t>(AdminOpcode::asynchronous_event_request);
	for (unsigned n = 0; n < events_; n++)
		admin_->put(command, tag_event);
	admin_->ring();
}

result<std::unique_ptr<Controller>> Controller::start(const pci::Bar &registers, DmaMemory &memory,
						      const ControllerOptions &options)
{
	if (options.depth > 0xffff || options.queues > 0xffff)
		return refused(-EINVAL, "more queues, or deeper ones, than a controller can have");

	std::unique_ptr<Controller> made(new Controller(registers, memory, options));

	if (const auto done = made->set_up(); !done) {
		made->give_up();
		return tl::unexpected(done.error());
	}
	return made;
}

result<void> Controller::set_up()
{
	if (const auto done = reset(); !done)
		return done;
	if (auto buffer = memory_.take(page_, page_); buffer)
		buffer_ = *buffer;
	else
		return tl::unexpected(buffer.error());
	for (const auto step : {&Controller::read_controller, &Controller::read_namespaces, &Controller::make_queues})
		if (const auto done = (this->*step)(); !done)
			return done;
	if (namespaces_.empty())
		return refused(-EOPNOTSUPP, "the controller has no namespace in a format without metadata");
	ask_for_events();
	return {};
}

result<void> Controller::take_events()
{
	while (!told_events_.empty()) {
		const AsynchronousEvent event = told_events_.back();
		Command command;

		told_events_.pop_back();
		// To read the log page that it names lets the controller tell such events again.
		command.opcode = static_cast<std::uint8_t>(AdminOpcode::get_log_page);
		command.nsid = ~0U;
		command.prp1 = *memory_.iova_of(buffer_.data(), buffer_.size());
		command.cdw10 = event.log_page() | (static_cast<std::uint32_t>(512 / 4) - 1) << 16;
		if (const auto read = admin(command); !read && failed())
			return tl::unexpected(read.error());
		if (event.type() == 2) // a notice: namespaces have come, changed or gone
			if (const auto read = read_namespaces(); !read && failed())
				return read;
		command = {};
		command.opcode = static_cast<std::uint8_t>(AdminOpcode::asynchronous_event_request);
		admin_->put(command, tag_event);
		admin_->ring();
	}
	return {};
}

void Controller::look_for_overdue(QueuePair &queue)
{
	const auto now = QueuePair::Clock::now();

	for (std::uint16_t cid = 0; cid < queue.slots_.size(); cid++) {
		QueuePair::Slot &slot = queue.slots_[cid];
		Command command;

		if (!slot.busy || now - slot.since < options_.timeout)
			continue;
		if (slot.aborted) {
			fail("a command has ended neither in time nor by being aborted");
			return;
		}
		if (aborts_ == most_aborts_)
			return; // its turn comes
		command.opcode = static_cast<std::uint8_t>(AdminOpcode::abort);
		command.cdw10 = std::uint32_t{cid} << 16 | queue.id_;
		if (!admin_->put(command, tag_abort))
			return;
		aborts_++;
		slot.aborted = true;
		slot.since = now;
		admin_->ring();
	}
}

// With the lock of admin commands.
result<void> Controller::look_at_controller()
{
	if (failed())
		return refused(-ENOTRECOVERABLE, failure());

	if (const char *const why = lost(registers_.read<std::uint32_t>(reg::csts)))
		return fail(why);
	if (const auto taken = take_admin_completions(); !taken)
		return taken;
	return take_events();
}

result<void> Controller::look_after()
{
	const std::scoped_lock locked(admin_lock_);

	if (const auto looked = look_at_controller(); !looked)
		return looked;
	for (const auto &queue : queues_)
		look_for_overdue(*queue);
	if (failed())
		return refused(-ENOTRECOVERABLE, failure());
	return {};
}

result<void> Controller::look_after(QueuePair &queue)
{
	const std::unique_lock locked(admin_lock_, std::try_to_lock);

	if (locked) {
		if (const auto looked = look_at_controller(); !looked)
			return looked;
		look_for_overdue(queue);
	}
	if (failed())
		return refused(-ENOTRECOVERABLE, failure());
	return {};
}

result<void> Controller::shut_down()
{
	if (failed())
		return refused(-ENOTRECOVERABLE, failure());
	registers_.write<std::uint32_t>(reg::cc, registers_.read<std::uint32_t>(reg::cc) | cc::shn_normal);
	fail("the controller has been shut down");
	return wait_for(csts::shst, csts::shst_complete, 10s);
}

void Controller::give_up() const noexcept
{
	registers_.write<std::uint32_t>(reg::cc, registers_.read<std::uint32_t>(reg::cc) & ~cc::en);
}

result<void> bring_to_rest(pci::Device &device)
{
	const auto end = std::chrono::steady_clock::now() + 1s;
	const auto configured = device.read_register(0, reg::cc), status = device.read_register(0, reg::csts);

	if (!configured || !status || *status == csts::gone || !(*configured & cc::en) || (*status & csts::cfs) || !(*status & csts::rdy))
		return refused(-EIO, "the controller is not one that works");
	if (const auto done = device.write_register(0, reg::cc, *configured & ~cc::en); !done)
		return done;
	for (;;) {
		const bool late = std::chrono::steady_clock::now() > end;
		const auto now = device.read_register(0, reg::csts);

		if (!now || *now == csts::gone)
			return refused(-EIO, "the controller does not answer");
		if (!(*now & csts::rdy))
			return {};
		if (late)
			return refused(-ETIMEDOUT, "the controller does not come to rest");
		std::this_thread::sleep_for(100us);
	}
}

} // namespace orbit::nvme
