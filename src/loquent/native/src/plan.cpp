// Building a plan's memory, checking a step, and running its operations; the operations are in operations.cpp.
#include "plan.hpp"

#include <algorithm>
#include <chrono>
#include <stdexcept>

#include "memory.hpp"

namespace loquent {
namespace {

using Clock = std::chrono::steady_clock;

/// Floats from row to row: whole cache lines, and not a multiple of a page, where a column's rows would evict each
/// other from the first cache.
int64_t stride_of(int64_t width) {
    const int64_t stride = (width + 15) / 16 * 16;
    return stride % 512 ? stride : stride + 16;
}

std::string number(int64_t value) { return std::to_string(value); }

/// Whether a store has the planes that a layer's attention writes, for as long as its queries see them.
bool fits(const AttentionPart& part, const Store& store) {
    if (part.layer >= store.layers()) return false;
    const LayerShape& shape = store.layer(part.layer);
    // Where there are coded pages, the exact ones are seen for as long as the store itself says.
    const int64_t coded = store.coded_group(part.layer);
    const int64_t window = store.group(coded < 0 ? store.exact_group(part.layer) : coded).shape().window;
    return shape.kv_heads == part.kv_heads && shape.head_dim == part.head_dim && shape.mask == (part.keep > 0) &&
           (!window || (part.window && part.window <= window));
}

/// Pages [first, stop) are there.
void check_pages(const PageTable& table, const PageMemory& memory, int64_t first, int64_t stop) {
    if (table.count < stop)
        throw std::out_of_range("a segment needs " + number(stop) + " pages, and has " + number(table.count) + ".");
    for (int64_t i = first; i < stop; ++i)
        if (table.pages[i] < 0 || table.pages[i] >= memory.pages())
            throw std::out_of_range("page " + number(table.pages[i]) + " is not among " + number(memory.pages()) +
                                    " of the store.");
}

/// The pages that are coded in this step are there in both forms, those that nobody will see left out.
void check_coded(const PageTable& table, const PageMemory& memory, const PageTable& exact, const PageMemory& source,
                 int64_t first, int64_t stop) {
    if (table.coded < 0 || table.coded > table.count)
        throw std::out_of_range("of " + number(table.count) + " pages no " + number(table.coded) + " can be coded.");
    for (int64_t i = table.coded; i < stop; ++i) {
        if (table.pages[i] == -1 && i < first) continue;
        check_pages(table, memory, i, i + 1);
        check_pages(exact, source, i, i + 1);
    }
}

}  // namespace

Plan::Plan(int64_t vocabulary, int64_t width) : vocabulary_(vocabulary) {
    if (vocabulary < 1 || width < 1) throw std::invalid_argument("vocabulary and width must be positive.");
    buffers_.push_back({"hidden", width, stride_of(width)});
}

void Plan::add_buffer(const std::string& name, int64_t width) {
    if (width < 1) throw std::invalid_argument("buffer " + name + " must have a positive width.");
    for (const auto& buffer : buffers_)
        if (buffer.name == name) throw std::invalid_argument("there is a buffer " + name + " already.");
    buffers_.push_back({name, width, stride_of(width)});
    capacity_ = 0;
}

int64_t Plan::add_table(std::vector<float> frequencies, float factor) {
    std::lock_guard<std::mutex> lock(mutex_);
    tables_.emplace_back(std::move(frequencies), factor);
    return (int64_t)tables_.size() - 1;
}

int64_t Plan::find_buffer(const std::string& name) const {
    for (size_t i = 0; i < buffers_.size(); ++i)
        if (buffers_[i].name == name) return (int64_t)i;
    throw std::invalid_argument("there is no buffer " + name + ".");
}

void Plan::count_weights(const Matrix& matrix) {
    bytes_ += matrix.bytes();
    weights_ = bytes_ > last_cache_bytes() ? Weights::streamed : Weights::kept;
}

void Plan::make_room(int64_t rows) {
    if (rows <= capacity_) return;
    const int64_t room = std::max(rows, std::min<int64_t>(capacity_ * 2, 256));
    int64_t floats = 0;
    for (const auto& buffer : buffers_) floats += buffer.stride * room;
    memory_ = allocate_array<float>(floats);
    float* next = memory_.get();
    for (auto& buffer : buffers_) {
        buffer.rows = next;
        next += buffer.stride * room;
    }
    capacity_ = room;
}

float* Plan::logits(int64_t rows) {
    if (rows > logits_capacity_) {
        logits_ = allocate_array<float>(rows * vocabulary_);
        logits_capacity_ = rows;
    }
    return logits_.get();
}

void Plan::check(const Batch& batch, const Store& store) const {
    if (batch.segments.empty()) throw std::invalid_argument("a step needs at least one segment.");
    if (operations_.empty()) throw std::invalid_argument("the plan has no operations.");
    store.check_process();
    for (const auto& part : attentions_)
        if (!fits(part, store)) throw std::invalid_argument("the store was not opened for this plan.");
    for (int64_t row = 0; row < batch.rows; ++row)
        if (batch.tokens[row] < 0 || batch.tokens[row] >= vocabulary_)
            throw std::out_of_range("token " + number(batch.tokens[row]) + " is not in the vocabulary of " +
                                    number(vocabulary_) + ".");
    for (const Segment& segment : batch.segments) check_segment(segment, store);
}

void Plan::check_segment(const Segment& segment, const Store& store) const {
    const int64_t stop = segment.start + segment.length;
    if (segment.start < 0 || segment.length < 1 || segment.start > INT32_MAX || segment.length > INT32_MAX)
        throw std::invalid_argument("a segment must start at a position and have at least one token.");
    if (segment.wanted < 0 || segment.wanted > segment.length)
        throw std::invalid_argument("a segment of " + number(segment.length) + " tokens has no " +
                                    number(segment.wanted) + " rows.");
    if (segment.scored < 0 || segment.scored > segment.wanted)
        throw std::invalid_argument("of " + number(segment.wanted) + " rows that a segment wants, " +
                                    number(segment.scored) + " cannot be scored.");
    if (positions_ >= 0 && stop > positions_)
        throw std::out_of_range("position " + number(stop - 1) + " is past the " + number(positions_) +
                                " that the model learned.");
    for (int64_t group = 0; group < store.groups(); ++group) {
        const PageMemory& memory = store.group(group);
        const int64_t first = memory.shape().first(segment.start, store.page_size());
        const int64_t end = memory.shape().stop(stop, store.page_size());
        check_pages(segment.pages[group], memory, first, end);
        if (!memory.shape().coded()) continue;
        const int64_t source = store.source_of(group);
        check_coded(segment.pages[group], memory, segment.pages[source], store.group(source), first, end);
    }
    for (int64_t rotary = 0; rotary < rotaries_; ++rotary)
        if (segment.tables[rotary] < 0 || segment.tables[rotary] >= (int64_t)tables_.size())
            throw std::out_of_range("there is no rotary table " + number(segment.tables[rotary]) + ".");
    for (const auto& part : attentions_)
        if (part.rotary >= 0 && 2 * tables_[segment.tables[part.rotary]].pairs() > part.head_dim)
            throw std::invalid_argument("a rotary table has more pairs than a head of " + number(part.head_dim) + ".");
}

void Plan::run(const Batch& batch, Store& store, Wanted& wanted) {
    std::lock_guard<std::mutex> lock(mutex_);
    check(batch, store);
    for (const Choice& choice : wanted.choices) check_choice(choice, vocabulary_);
    make_room(batch.rows);
    for (RotaryTable& table : tables_) table.begin_step();
    for (const auto& segment : batch.segments)
        for (int64_t rotary = 0; rotary < rotaries_; ++rotary)
            tables_[segment.tables[rotary]].reach(segment.start, segment.start + segment.length);
    Step step{batch, store, Pool::shared(), wanted, batch.rows};
    auto before = profiling_ ? Clock::now() : Clock::time_point();
    for (auto& operation : operations_) {
        operation->run(*this, step);
        if (!profiling_) continue;
        const auto now = Clock::now();
        operation->calls += 1;
        operation->seconds += std::chrono::duration<double>(now - before).count();
        before = now;
    }
}

std::vector<Plan::Timing> Plan::profile() {
    std::lock_guard<std::mutex> lock(mutex_);
    std::vector<Timing> timings;
    for (auto& operation : operations_) {
        if (operation->calls) timings.push_back({operation->name, operation->calls, operation->seconds});
        operation->calls = 0;
        operation->seconds = 0;
    }
    profiling_ = true;
    return timings;
}

}  // namespace loquent
