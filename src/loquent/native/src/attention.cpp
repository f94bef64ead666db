// How a step's attention is cut into shares; the arithmetic is in kernels/attention_*.cpp.
//
// Shares are (segment, key-value head, some query rows), or (..., chunk of positions) where those are too few for the
// threads. The results do not depend on the cut.
#include "attention.hpp"

#include <algorithm>
#include <cstring>
#include <memory>

#include "kernels.hpp"
#include "kernels/attention_tasks.hpp"

namespace loquent {

namespace {

constexpr int64_t kWriteRows = 8;        // tokens that one share writes, of one block of rotary tables
constexpr int64_t kShareWork = 1 << 16;  // multiplications that are worth a share of their own
constexpr int64_t kSharesOfThread = 16;  // at least, where there are so many units

static_assert(RotaryTable::kBlock % kWriteRows == 0);

/// 64-byte aligned memory of a thread, kept from call to call.
class Scratch {
public:
    float* reserve(int64_t floats) {
        if (floats > capacity_) {
            memory_ = std::make_unique<float[]>(floats + 16);
            capacity_ = floats;
        }
        const uintptr_t address = reinterpret_cast<uintptr_t>(memory_.get());
        return reinterpret_cast<float*>((address + 63) / 64 * 64);
    }

private:
    std::unique_ptr<float[]> memory_;
    int64_t capacity_ = 0;
};

thread_local Scratch worker_scratch, partial_scratch;

/// Tokens of a segment.
struct Rows {
    const Segment* segment;
    int64_t first, count;
};

/// One key-value head and some rows over chunks [first_chunk, last_chunk).
struct Unit {
    const Segment* segment;
    int64_t kv_head, first, count, first_chunk, last_chunk;
    int64_t partial = -1;   // where its first result goes, or -1: straight to what was read
    int64_t chunks = 0;     // results per row there
};

class Step {
public:
    Step(Pool& pool, const AttentionPart& part, const Batch& batch, Store& store,
         const std::vector<RotaryTable>& tables)
        : pool_(pool), part_(part), batch_(batch), store_(store), tables_(tables),
          exact_(store.exact_group(part.layer)), coded_(store.coded_group(part.layer)),
          view_(store.group(exact_).view(part.layer)), group_(part.heads / part.kv_heads) {
        if (coded_ < 0) return;
        coded_view_ = store.group(coded_).view(part.layer);
        residual_ = store.group(coded_).shape().residual;
    }

    void write(float* qkv, int64_t qkv_stride);
    void code();
    void choose_keys();
    void read(const float* qkv, int64_t qkv_stride, float* read, int64_t read_stride);

private:
    int64_t low(int64_t position) const { return first_seen(part_.window, position); }
    /// The first position that the query at `position` sees exactly, among those of its window or not.
    int64_t exact_from(int64_t position) const {
        return coded_ < 0 ? 0 : first_exact(residual_, store_.page_size(), position);
    }
    const int64_t* pages(const Segment& segment) const { return segment.pages[exact_].pages; }
    float mask_value(const Segment& segment, int64_t kv_head, int64_t position) const;
    int64_t work(const Unit& unit) const;
    void plan();
    void split(const Unit& unit);
    void choose_keys(const Segment& segment, int64_t kv_head, Kept* kept) const;
    WriteTask write_task(const Rows& rows, float* qkv, int64_t qkv_stride) const;
    void run_unit(const Unit& unit, const Unit* next, const float* qkv, int64_t qkv_stride, float* read,
                  int64_t read_stride) const;
    void join(float* read, int64_t read_stride) const;

    Pool& pool_;
    const AttentionPart& part_;
    const Batch& batch_;
    const Store& store_;
    const std::vector<RotaryTable>& tables_;
    const int64_t exact_, coded_;    // which groups of pages the layer's keys and values are in; no coded ones: -1
    const LayerView view_;
    LayerView coded_view_{};
    int64_t residual_ = 0;
    const int64_t group_;            // query heads of a key-value head
    std::vector<Kept> kept_;         // (kv_heads, rows of the batch), empty where all keys are seen
    std::vector<Unit> units_, divided_;
    float* partials_ = nullptr;
};

// --- writing ---------------------------------------------------------------------------------------------------------

WriteTask Step::write_task(const Rows& rows, float* qkv, int64_t qkv_stride) const {
    const Segment& segment = *rows.segment;
    WriteTask task{};
    task.part = &part_, task.view = view_, task.kind = store_.kind();
    task.page_size = store_.page_size(), task.slots = store_.slots(), task.pages = pages(segment);
    task.position = segment.start + rows.first, task.count = rows.count;
    task.qkv = qkv + (segment.first + rows.first) * qkv_stride, task.qkv_stride = qkv_stride;
    if (part_.rotary >= 0) {
        const RotaryTable& table = tables_[segment.tables[part_.rotary]];
        task.cosines = table.cosines(task.position), task.sines = table.sines(task.position);
        task.pairs = table.pairs();
    }
    task.scratch = worker_scratch.reserve(part_.head_dim);
    return task;
}

void Step::write(float* qkv, int64_t qkv_stride) {
    std::vector<Rows> shares;
    for (const Segment& segment : batch_.segments)
        for (int64_t token = 0, count; token < segment.length; token += count) {
            count = std::min(kWriteRows - (segment.start + token) % kWriteRows, segment.length - token);
            shares.push_back({&segment, token, count});
        }
    // Short segments (a token each, when generating) are written several to a share.
    const int64_t count = static_cast<int64_t>(shares.size());
    const int64_t together = std::max<int64_t>(1, kWriteRows * count / std::max<int64_t>(1, batch_.rows));
    const auto& functions = kernels();
    pool_.run((count + together - 1) / together, [&](int64_t share) {
        for (int64_t i = share * together; i < std::min(count, (share + 1) * together); ++i)
            functions.write_tokens(write_task(shares[i], qkv, qkv_stride));
    });
}

// --- coding ----------------------------------------------------------------------------------------------------------

void Step::code() {
    if (coded_ < 0) return;
    std::vector<CodeTask> tasks;
    const int64_t slots = store_.page_size();
    for (const Segment& segment : batch_.segments) {
        const PageTable& table = segment.pages[coded_];
        const int64_t stop = store_.group(coded_).shape().stop(segment.start + segment.length, slots);
        for (int64_t page = table.coded; page < stop; ++page)
            if (table.pages[page] >= 0)
                tasks.push_back({&part_, view_, coded_view_, store_.kind(), store_.bits(), slots, pages(segment)[page],
                                 table.pages[page], nullptr});
    }
    const auto& functions = kernels();
    const int64_t shares = part_.kv_heads + slots / kCodeTokens;   // of a page: its heads' keys, and values of tokens
    pool_.run(static_cast<int64_t>(tasks.size()) * shares, [&](int64_t share) {
        CodeTask task = tasks[share / shares];
        const int64_t piece = share % shares;
        task.scratch = worker_scratch.reserve(code_scratch(part_, slots));
        if (piece < part_.kv_heads)
            functions.code_keys(task, piece);
        else
            functions.code_values(task, (piece - part_.kv_heads) * kCodeTokens);
    });
}

// --- the dynamic mask's choice ---------------------------------------------------------------------------------------

void Step::choose_keys() {
    const auto exceeds = [this](const Segment& segment) {
        const int64_t last = segment.start + segment.length - 1;
        return last + 1 - low(last) > part_.keep;
    };
    if (!part_.keep || std::none_of(batch_.segments.begin(), batch_.segments.end(), exceeds)) return;
    kept_.resize(part_.kv_heads * batch_.rows);
    const int64_t shares = static_cast<int64_t>(batch_.segments.size()) * part_.kv_heads;
    pool_.run(shares, [&](int64_t share) {
        const Segment& segment = batch_.segments[share / part_.kv_heads];
        const int64_t kv_head = share % part_.kv_heads;
        if (exceeds(segment)) choose_keys(segment, kv_head, kept_.data() + kv_head * batch_.rows + segment.first);
    });
}

/// The mask value at a position, of whichever form is there: it is the same number in both.
float Step::mask_value(const Segment& segment, int64_t kv_head, int64_t position) const {
    const int64_t group = position < exact_from(segment.start) ? coded_ : exact_, page_size = store_.page_size();
    const int64_t page = segment.pages[group].pages[position / page_size];
    return store_.group(group).mask(part_.layer, page, kv_head)[position % page_size];
}

void Step::choose_keys(const Segment& segment, int64_t kv_head, Kept* kept) const {
    const int64_t first = low(segment.start), end = segment.start + segment.length;
    std::vector<int32_t> values(end - first), sorted;
    for (int64_t position = first; position < end; ++position) {
        const float value = mask_value(segment, kv_head, position);
        int32_t bits;
        std::memcpy(&bits, &value, 4);
        values[position - first] = (bits + kRoundingHalf) & kRoundingMask;
    }
    for (int64_t token = 0; token < segment.length; ++token) {
        const int64_t position = segment.start + token;
        const auto begin = values.begin() + (low(position) - first), last = values.begin() + (position + 1 - first);
        if (last - begin <= part_.keep) continue;
        sorted.assign(begin, last);
        std::nth_element(sorted.begin(), sorted.begin() + (part_.keep - 1), sorted.end(), std::greater<int32_t>());
        const int32_t threshold = sorted[part_.keep - 1];
        int64_t places = part_.keep - std::count_if(begin, last, [=](int32_t value) { return value > threshold; });
        auto oldest = last;
        while (places > 0) places -= *--oldest == threshold;
        kept[token] = {threshold, first + (oldest - values.begin())};
    }
}

// --- reading ---------------------------------------------------------------------------------------------------------

int64_t Step::work(const Unit& unit) const {
    const int64_t last = unit.segment->start + (unit.first + unit.count - 1) / group_;
    const int64_t seen = std::min(last + 1, unit.last_chunk * kChunk) - std::max(low(last), unit.first_chunk * kChunk);
    return 2 * std::max<int64_t>(seen, 1) * unit.count * part_.head_dim;
}

/// Cut the step into units, the heaviest of each segment first.
void Step::plan() {
    const int64_t threads = pool_.threads();
    for (const Segment& segment : batch_.segments) {
        const int64_t rows = segment.length * group_;
        for (int64_t tile = (rows - 1) / kShareRows; tile >= 0; --tile)
            for (int64_t kv_head = 0; kv_head < part_.kv_heads; ++kv_head) {
                const int64_t first = tile * kShareRows, count = std::min<int64_t>(kShareRows, rows - first);
                const int64_t last = segment.start + (first + count - 1) / group_;
                units_.push_back({&segment, kv_head, first, count, low(segment.start + first / group_) / kChunk,
                                  last / kChunk + 1});
            }
    }
    if (threads == 1 || static_cast<int64_t>(units_.size()) >= 4 * threads) return;
    std::vector<Unit> whole;
    whole.swap(units_);
    for (const Unit& unit : whole) split(unit);
}

/// One unit for each chunk, whose results are joined later.
void Step::split(const Unit& unit) {
    const int64_t chunks = unit.last_chunk - unit.first_chunk;
    if (chunks == 1) return units_.push_back(unit);
    Unit divided = unit;
    divided.chunks = chunks;
    divided.partial = divided_.empty() ? 0 : divided_.back().partial + divided_.back().count * divided_.back().chunks;
    divided_.push_back(divided);
    for (int64_t chunk = unit.first_chunk; chunk < unit.last_chunk; ++chunk) {
        Unit part = divided;
        part.first_chunk = chunk, part.last_chunk = chunk + 1;
        part.partial += chunk - unit.first_chunk;
        units_.push_back(part);
    }
}

void Step::run_unit(const Unit& unit, const Unit* next, const float* qkv, int64_t qkv_stride, float* read,
                    int64_t read_stride) const {
    const Segment& segment = *unit.segment;
    ReadTask task{};
    task.part = &part_, task.view = view_, task.kind = store_.kind();
    task.page_size = store_.page_size(), task.slots = store_.slots(), task.pages = pages(segment);
    task.start = segment.start, task.kv_head = unit.kv_head, task.first = unit.first, task.count = unit.count;
    task.first_chunk = unit.first_chunk, task.last_chunk = unit.last_chunk;
    task.qkv = qkv + segment.first * qkv_stride, task.qkv_stride = qkv_stride;
    task.read = read + segment.first * read_stride, task.read_stride = read_stride;
    if (coded_ >= 0) {
        task.bits = store_.bits(), task.residual = residual_, task.coded = coded_view_;
        task.coded_pages = segment.pages[coded_].pages;
    }
    if (next) {
        const int64_t position = next->segment->start + next->first / group_;
        task.next_low = std::max({low(position), exact_from(position), next->first_chunk * kChunk});
        task.next_high = position + 1, task.next_kv_head = next->kv_head;
        if (task.next_low < next->last_chunk * kChunk) task.next_pages = pages(*next->segment);
    }
    if (!kept_.empty()) task.kept = kept_.data() + unit.kv_head * batch_.rows + segment.first;
    if (unit.partial >= 0) {
        task.partials = partials_ + unit.partial * partial_floats(part_.head_dim);
        task.partial_stride = unit.chunks * partial_floats(part_.head_dim);
    }
    task.scratch = worker_scratch.reserve(read_scratch(part_.head_dim, unit.count));
    kernels().read_rows(task);
}

void Step::join(float* read, int64_t read_stride) const {
    for (const Unit& unit : divided_)
        for (int64_t row = unit.first; row < unit.first + unit.count; ++row) {
            const int64_t token = row / group_, position = unit.segment->start + token;
            const int64_t first = low(position) / kChunk, last = position / kChunk + 1;
            const int64_t partial = unit.partial + (row - unit.first) * unit.chunks + first - unit.first_chunk;
            const int64_t head = unit.kv_head * group_ + row % group_;
            kernels().join_chunks(partials_ + partial * partial_floats(part_.head_dim), last - first, part_.head_dim,
                                  read + (unit.segment->first + token) * read_stride + head * part_.head_dim);
        }
}

void Step::read(const float* qkv, int64_t qkv_stride, float* read, int64_t read_stride) {
    plan();
    if (!divided_.empty()) {
        const int64_t results = divided_.back().partial + divided_.back().count * divided_.back().chunks;
        partials_ = partial_scratch.reserve(results * partial_floats(part_.head_dim));
    }
    // Small units are run several to a share: a thread fetches what the unit after this one reads, and should be the
    // one that runs it.
    int64_t total = 0;
    for (const Unit& unit : units_) total += work(unit);
    const int64_t enough = std::max(kShareWork, total / (kSharesOfThread * pool_.threads()));
    std::vector<int64_t> begins;
    int64_t waiting = enough;
    for (size_t i = 0; i < units_.size(); ++i) {
        if (waiting >= enough) begins.push_back(static_cast<int64_t>(i)), waiting = 0;
        waiting += work(units_[i]);
    }
    begins.push_back(static_cast<int64_t>(units_.size()));
    pool_.run(static_cast<int64_t>(begins.size()) - 1, [&](int64_t share) {
        for (int64_t i = begins[share]; i < begins[share + 1]; ++i)
            run_unit(units_[i], i + 1 < begins.back() ? &units_[i + 1] : nullptr, qkv, qkv_stride, read, read_stride);
    });
    join(read, read_stride);
}

/// Have a layer's pages of one form brought from the disk, for the step's attention to find them in memory.
void read_ahead(const Store& store, int64_t group, const Batch& batch, int64_t layer) {
    if (group < 0) return;
    const PageMemory& memory = store.group(group);
    std::vector<int64_t> used(memory.chunks());   // how many pages of each
    for (const Segment& segment : batch.segments) {
        const PageTable& table = segment.pages[group];
        const int64_t first = memory.shape().first(segment.start, store.page_size());
        // What it writes is in memory by then.
        const int64_t stop = memory.shape().stop(segment.start, store.page_size());
        for (int64_t i = first; i < stop; ++i) ++used[memory.chunk_of(table.pages[i])];
    }
    memory.read_ahead(layer, used);
}

void read_ahead(const Store& store, const Batch& batch, int64_t layer) {
    read_ahead(store, store.exact_group(layer), batch, layer);
    read_ahead(store, store.coded_group(layer), batch, layer);
}

}  // namespace

void attend(Pool& pool, const AttentionPart& part, const Batch& batch, Store& store,
            const std::vector<RotaryTable>& tables, float* qkv, int64_t qkv_stride, float* read, int64_t read_stride) {
    // The last layer's attention asks for the first layer's pages: the next step's are mostly the same.
    if (store.in_file()) read_ahead(store, batch, (part.layer + 1) % store.layers());
    Step step(pool, part, batch, store, tables);
    step.write(qkv, qkv_stride);
    step.code();
    step.choose_keys();
    step.read(qkv, qkv_stride, read, read_stride);
}

}  // namespace loquent
