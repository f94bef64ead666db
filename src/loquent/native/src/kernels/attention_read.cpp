// Query rows over stored keys and values: which blocks and slots each row sees, and the order of sums.
#include "kernels/attention_kernels.hpp"
#include "kernels/attention_rows.hpp"

namespace loquent::LOQUENT_ISA {

namespace {

/// A row's result over the chunks so far: highest score, sum of weights, and from kSlots on what was read.
void join(float* total, const float* next, int64_t dims) {
    const float high = total[0] > next[0] ? total[0] : next[0];
    const Vec mine = exp(splat(total[0] - high)), its = exp(splat(next[0] - high));
    total[1] = total[1] * mine[0] + next[1] * its[0];
    total[0] = high;
    for (int64_t i = 0; i < dims; i += kLanes)
        store(total + kSlots + i, fma(load(next + kSlots + i), its, load(total + kSlots + i) * mine));
}

void finish(const float* total, int64_t dims, float* read) {
    const float inverse = 1.0f / total[1];
    for (int64_t i = 0; i < dims; ++i) read[i] = total[kSlots + i] * inverse;
}

// A block asks for the one that follows it, the last one for the first one of the rows that are read next. Where a few
// slots alone of the last one are seen, it is over too soon to ask for a whole one: of so few blocks each asks for the
// same one of the rows that are read next instead.
constexpr int64_t kFewBlocks = 4;

template <class Element>
class Reader {
public:
    explicit Reader(const ReadTask& task)
        : task_(task), rows_(task), dims_(rows_.dims), width_(rows_.width), gathered_(rows_.scratch),
          widened_(gathered_ + block_floats(dims_)) {}

    void run() {
        for (int64_t chunk = task_.first_chunk; chunk < task_.last_chunk; ++chunk) visit_chunk(chunk);
        if (task_.partials) return;
        for (int64_t row = 0; row < task_.count; ++row) {
            float* read = task_.read + rows_.token(row) * task_.read_stride + rows_.head(row);
            finish(rows_.totals + row * partial_floats(dims_), dims_, read);
        }
    }

private:
    void visit_chunk(int64_t chunk) {
        const int64_t begin = chunk * kChunk, end = begin + kChunk;
        for (int64_t row = 0; row < task_.count; ++row)
            rows_.running[row].start(rows_.results + row * partial_floats(dims_) + kSlots, width_);
        // A row sees what is coded before what is not, so that this is the order of its positions.
        if (task_.bits) read_coded(rows_, begin, end);
        visit_exact(chunk, larger(rows_.exact[0], begin), smaller(rows_.high[task_.count - 1], end));
        for (int64_t row = 0; row < task_.count; ++row)
            if (rows_.low[row] < end && rows_.high[row] > begin) keep(row, rows_.low[row] >= begin);
    }

    /// The positions [low, high) of a chunk, of which each row takes those that it sees exactly.
    void visit_exact(int64_t chunk, int64_t low, int64_t high) {
        if (low >= high) return;
        int64_t base = low / kBlock * kBlock;
        const int64_t start = base;
        const bool short_end = high - low <= kFewBlocks * kBlock && (high - 1) % kBlock < kBlock / 2;
        Block<Element> block, following = find(base, low, smaller(high, base + kBlock));
        for (; base < high; base += kBlock) {
            const int64_t after = base + kBlock;
            block = following;
            if (gathers()) {
                visit_block(block, base, block);
                if (after < high) following = find(after, after, smaller(high, after + kBlock));
                continue;
            }
            if (after < high) following = find(after, after, smaller(high, after + kBlock));
            if (chunk + 1 < task_.last_chunk || !task_.next_pages)
                visit_block(block, base, following);
            else if (short_end && later_rows_have(base - start))
                visit_block(block, base, find_later(base - start));
            else
                visit_block(block, base, after < high ? following : find_later(0));
        }
    }

    /// Put a row's result over the chunk where it belongs: the first of its results, or one more.
    void keep(int64_t row, bool first) {
        float* result = rows_.results + row * partial_floats(dims_);
        result[0] = rows_.running[row].highest, result[1] = sum(rows_.running[row].sum);
        float* total = rows_.totals + row * partial_floats(dims_);
        float* to = task_.partials ? task_.partials + row * task_.partial_stride : total;
        if (task_.partials || first)
            std::memcpy(to, result, partial_floats(dims_) * sizeof(float));
        else
            join(to, result, width_);
    }

    /// All rows over one block; `next` is the block after it, or it itself.
    void visit_block(const Block<Element>& block, int64_t base, const Block<Element>& next) {
        if (task_.count <= kTileRows) return visit_tile(block, base, 0, static_cast<int>(task_.count), &next);
        if constexpr (sizeof(Element) < sizeof(float)) {
            const Block<float> wide = widen_block(block);
            visit_tiles(wide, base);
        } else {
            visit_tiles(block, base);
        }
    }

    template <class Number>
    void visit_tiles(const Block<Number>& block, int64_t base) {
        for (int64_t row = 0; row < task_.count; row += kTileRows)
            visit_tile(block, base, row, rows_.rows_from(row), static_cast<const Block<Number>*>(nullptr));
    }

    // --- blocks ------------------------------------------------------------------------------------------------------

    bool gathers() const { return task_.page_size % kSlots != 0; }

    /// The block at position `base`, of which somebody sees [low, high).
    Block<Element> find(int64_t base, int64_t low, int64_t high) {
        return gathers() ? gather(base, low, high) : find(task_.pages, task_.kv_head, base, low, high);
    }

    bool later_rows_have(int64_t offset) const {
        return task_.next_low / kBlock * kBlock + offset < task_.next_high;
    }

    /// The block at `offset` from the first of those that are read after these rows.
    Block<Element> find_later(int64_t offset) const {
        const int64_t base = task_.next_low / kBlock * kBlock + offset;
        return find(task_.next_pages, task_.next_kv_head, base, larger(base, task_.next_low),
                    smaller(task_.next_high, base + kBlock));
    }

    Block<Element> find(const int64_t* pages, int64_t kv_head, int64_t base, int64_t low, int64_t high) const {
        Block<Element> block{};
        block.key_stride = task_.slots, block.value_stride = width_;
        for (int g = 0; g < kGroups; ++g) {
            const int64_t first = low / kSlots * kSlots, last = (high - 1) / kSlots * kSlots;
            const int64_t position = larger(first, smaller(last, base + g * kSlots));
            const bool usual = task_.page_size == kSlots;
            const int64_t page = pages[usual ? position / kSlots : position / task_.page_size];
            const int64_t slot = usual ? 0 : position % task_.page_size;
            block.keys[g] = (const Element*)plane_at(task_.view, task_.view.keys, kv_head, page) + slot;
            block.values[g] = (const Element*)plane_at(task_.view, task_.view.values, kv_head, page) + slot * width_;
            block.key_scales[g] = (const float*)plane_at(task_.view, task_.view.key_scales, kv_head, page) + slot;
            block.value_scales[g] = (const float*)plane_at(task_.view, task_.view.value_scales, kv_head, page) + slot;
            block.mask[g] = (const float*)plane_at(task_.view, task_.view.mask, kv_head, page) + slot;
        }
        return block;
    }

    /// The same where a page's slots are not whole vectors: copied side by side.
    Block<Element> gather(int64_t base, int64_t low, int64_t high) {
        float* scales = gathered_;
        Element* keys = (Element*)(gathered_ + 3 * kBlock);
        Element* values = keys + dims_ * kBlock;
        const LayerView& view = task_.view;
        for (int64_t position = low; position < high; ++position) {
            const int64_t page = task_.pages[position / task_.page_size], slot = position % task_.page_size;
            const int64_t to = position - base;
            const auto at = [&](const LayerView::Plane& which) { return plane_at(view, which, task_.kv_head, page); };
            const Element* key = (const Element*)at(view.keys) + slot;
            for (int64_t d = 0; d < dims_; ++d) keys[d * kBlock + to] = key[d * task_.slots];
            const Element* value = (const Element*)at(view.values) + slot * width_;
            std::memcpy(values + to * width_, value, width_ * sizeof(Element));
            const LayerView::Plane* planes[3] = {&view.key_scales, &view.value_scales, &view.mask};
            for (int i = 0; i < 3; ++i)
                if (planes[i]->page_bytes) scales[i * kBlock + to] = ((const float*)at(*planes[i]))[slot];
        }
        Block<Element> block{};
        block.key_stride = kBlock, block.value_stride = width_;
        for (int g = 0; g < kGroups; ++g) {
            block.keys[g] = keys + g * kSlots, block.values[g] = values + g * kSlots * width_;
            block.key_scales[g] = scales + g * kSlots, block.value_scales[g] = scales + kBlock + g * kSlots;
            block.mask[g] = scales + 2 * kBlock + g * kSlots;
        }
        return block;
    }

    /// The same in float32, for rows enough that they would widen its numbers again and again.
    Block<float> widen_block(const Block<Element>& block) {
        float *keys = widened_, *values = keys + dims_ * kBlock;
        Block<float> wide{};
        wide.key_stride = kBlock, wide.value_stride = width_;
        for (int g = 0; g < kGroups; ++g) {
            for (int64_t d = 0; d < dims_; ++d)
                for (int v = 0; v < kSlots; v += kLanes)
                    store(keys + d * kBlock + g * kSlots + v, widen(block.keys[g] + d * block.key_stride + v));
            for (int64_t i = 0; i < kSlots * width_; i += kLanes)
                store(values + g * kSlots * width_ + i, widen(block.values[g] + i));
            wide.keys[g] = keys + g * kSlots, wide.values[g] = values + g * kSlots * width_;
            wide.key_scales[g] = block.key_scales[g], wide.value_scales[g] = block.value_scales[g];
            wide.mask[g] = block.mask[g];
        }
        return wide;
    }

    // --- tiles -------------------------------------------------------------------------------------------------------

    template <class Number>
    void visit_tile(const Block<Number>& block, int64_t base, int64_t row, int rows, const Block<Number>* next) {
        switch (rows) {
            case 1: return visit<1>(block, base, row, next);
            case 2: return visit<2>(block, base, row, next);
            case 3: return visit<3>(block, base, row, next);
            default: return visit<kTileRows>(block, base, row, next);
        }
    }

    /// All of a block for the `Rows` rows from `row` on.
    template <int Rows, class Number>
    void visit(const Block<Number>& block, int64_t base, int64_t row, const Block<Number>* next) {
        const Ranges<Rows> seen(base, rows_.exact + row, rows_.high + row);
        if (seen.empty()) return;
        alignas(64) float scores[Rows * kBlock];
        const float* queries = rows_.queries + row * width_;
        score<Rows>(queries, block, seen.first_group(), seen.last_group(), dims_, scores, next);
        const auto form = [&](int) {
            if constexpr (sizeof(Element) == 1)
                return SlotScales{block.key_scales, block.value_scales};
            else
                return Unscaled{};
        };
        rows_.template weigh<Rows>(scores, form, block.mask, seen, base, row);
        rows_.template add<Rows>(scores, block, seen, row, 0, width_, next);
    }

    const ReadTask& task_;
    QueryRows rows_;
    const int64_t dims_, width_;
    float *gathered_, *widened_;
};

}  // namespace

void read_rows(const ReadTask& task) {
    if (task.kind == Kind::float32)
        Reader<float>(task).run();
    else if (task.kind == Kind::bfloat16)
        Reader<uint16_t>(task).run();
    else
        Reader<int8_t>(task).run();
}

void join_chunks(float* partials, int64_t chunks, int64_t head_dim, float* read) {
    for (int64_t chunk = 1; chunk < chunks; ++chunk)
        join(partials, partials + chunk * partial_floats(head_dim), whole_vectors(head_dim));
    finish(partials, head_dim, read);
}

}  // namespace loquent::LOQUENT_ISA
