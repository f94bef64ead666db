// Query rows over stored keys and values: which blocks and slots each row sees, and the order of sums.
#include "kernels/attention_kernels.hpp"
#include "kernels/attention_tiles.hpp"

namespace loquent::LOQUENT_ISA {

namespace {

int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }
int64_t larger(int64_t a, int64_t b) { return a > b ? a : b; }

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

template <class Element>
class Reader {
public:
    explicit Reader(const ReadTask& task)
        : task_(task), part_(*task.part), dims_(task.part->head_dim), width_(whole_vectors(dims_)),
          group_(task.part->heads / task.part->kv_heads) {
        queries_ = task.scratch;
        results_ = queries_ + task.count * width_;
        totals_ = results_ + task.count * partial_floats(dims_);
        gathered_ = totals_ + task.count * partial_floats(dims_);
        widened_ = gathered_ + kBlock * (dims_ + width_ + 3);
    }

    void run() {
        for (int64_t row = 0; row < task_.count; ++row) {
            const int64_t position = task_.start + token(row);
            low_[row] = first_seen(part_.window, position), high_[row] = position + 1;
            const float* query = task_.qkv + token(row) * task_.qkv_stride + head(row);
            for (int64_t d = 0; d < dims_; d += kSlots) fetch(query + d);
        }
        for (int64_t row = 0; row < task_.count; row += kTileRows) pack(row, rows_from(row));
        for (int64_t chunk = task_.first_chunk; chunk < task_.last_chunk; ++chunk) visit_chunk(chunk);
        if (task_.partials) return;
        for (int64_t row = 0; row < task_.count; ++row) {
            float* read = task_.read + token(row) * task_.read_stride + head(row);
            finish(totals_ + row * partial_floats(dims_), dims_, read);
        }
    }

private:
    int64_t token(int64_t row) const { return (task_.first + row) / group_; }

    /// Where the row's query head begins among a token's.
    int64_t head(int64_t row) const { return (task_.kv_head * group_ + (task_.first + row) % group_) * dims_; }

    int rows_from(int64_t row) const { return static_cast<int>(smaller(kTileRows, task_.count - row)); }

    /// Lay out a tile's queries as (head_dim, rows), scaled.
    void pack(int64_t row, int rows) {
        for (int r = 0; r < rows; ++r) {
            const float* query = task_.qkv + token(row + r) * task_.qkv_stride + head(row + r);
            float* to = queries_ + row * width_ + r;
            for (int64_t d = 0; d < dims_; ++d) to[d * rows] = query[d] * part_.scale;
        }
    }

    void visit_chunk(int64_t chunk) {
        const int64_t begin = chunk * kChunk, end = begin + kChunk;
        for (int64_t row = 0; row < task_.count; ++row)
            running_[row].start(results_ + row * partial_floats(dims_) + kSlots, width_);
        // Rows are in the order of their positions.
        const int64_t low = larger(low_[0], begin), high = smaller(high_[task_.count - 1], end);
        int64_t base = low / kBlock * kBlock;
        Block<Element> block, next = find(base, low, smaller(high, base + kBlock));
        for (; base < high; base += kBlock) {
            const int64_t after = base + kBlock;
            block = next;
            if (!gathers()) {
                if (after < high)
                    next = find(after, after, smaller(high, after + kBlock));
                else if (chunk + 1 == task_.last_chunk && task_.next_pages)
                    next = find_after_these();
            }
            visit_block(block, base, next);
            if (after < high && gathers()) next = find(after, after, smaller(high, after + kBlock));
        }
        for (int64_t row = 0; row < task_.count; ++row)
            if (low_[row] < end && high_[row] > begin) keep(row, low_[row] >= begin);
    }

    /// Put a row's result over the chunk where it belongs: the first of its results, or one more.
    void keep(int64_t row, bool first) {
        float* result = results_ + row * partial_floats(dims_);
        result[0] = running_[row].highest, result[1] = sum(running_[row].sum);
        float* total = totals_ + row * partial_floats(dims_);
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
            visit_tile(block, base, row, rows_from(row), static_cast<const Block<Number>*>(nullptr));
    }

    // --- blocks ------------------------------------------------------------------------------------------------------

    bool gathers() const { return task_.page_size % kSlots != 0; }

    /// The block at position `base`, of which somebody sees [low, high).
    Block<Element> find(int64_t base, int64_t low, int64_t high) {
        return gathers() ? gather(base, low, high) : find(task_.pages, task_.kv_head, base, low, high);
    }

    /// The first block that is read after these rows.
    Block<Element> find_after_these() const {
        const int64_t base = task_.next_low / kBlock * kBlock;
        return find(task_.next_pages, task_.next_kv_head, base, task_.next_low,
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
            block.keys[g] = (const Element*)plane(task_.view.keys, kv_head, page) + slot;
            block.values[g] = (const Element*)plane(task_.view.values, kv_head, page) + slot * width_;
            block.key_scales[g] = (const float*)plane(task_.view.key_scales, kv_head, page) + slot;
            block.value_scales[g] = (const float*)plane(task_.view.value_scales, kv_head, page) + slot;
            block.mask[g] = (const float*)plane(task_.view.mask, kv_head, page) + slot;
        }
        return block;
    }

    const uint8_t* plane(const LayerView::Plane& which, int64_t kv_head, int64_t page) const {
        const int64_t inside = page & ((int64_t{1} << task_.view.shift) - 1);
        return task_.view.chunks[page >> task_.view.shift] + which.offset + kv_head * which.head_bytes +
               inside * which.page_bytes;
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
            const auto at = [&](const LayerView::Plane& which) { return plane(which, task_.kv_head, page); };
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
        alignas(64) float scores[Rows * kBlock];
        int low[Rows], high[Rows];
        for (int r = 0; r < Rows; ++r) {
            low[r] = static_cast<int>(smaller(kBlock, larger(0, low_[row + r] - base)));
            high[r] = static_cast<int>(larger(low[r], smaller(kBlock, high_[row + r] - base)));
        }
        // Positions do not fall from row to row: the first row's range begins first, the last row's ends last.
        if (low[0] >= high[Rows - 1]) return;
        const int first = low[0] / kSlots, last = (high[Rows - 1] + kSlots - 1) / kSlots;
        score<Rows>(queries_ + row * width_, block, first, last, dims_, scores, next);
        for (int r = 0; r < Rows; ++r) {
            if (low[r] == high[r]) continue;
            const Kept* kept = task_.kept ? task_.kept + token(row + r) : nullptr;
            constexpr bool scaled = sizeof(Element) == 1;
            soften<scaled>(scores + r * kBlock, block, low[r], high[r], base, part_.keep > 0, kept, running_[row + r]);
        }
        // What not all rows see is added row by row, so that nothing a row does not see can touch it.
        const int begin = low[Rows - 1], end = static_cast<int>(larger(begin, high[0]));
        for (int r = 0; Rows > 1 && r < Rows; ++r) add_one(scores, block, r, low[r], smaller(begin, high[r]), row);
        if (begin < end)
            add_values<Rows>(scores, block, begin, end, running_[row].read, partial_floats(dims_), width_, next);
        for (int r = 0; Rows > 1 && r < Rows; ++r) add_one(scores, block, r, larger(end, low[r]), high[r], row);
    }

    template <class Number>
    void add_one(const float* scores, const Block<Number>& block, int r, int64_t low, int64_t high, int64_t row) {
        if (low >= high) return;
        add_values<1>(scores + r * kBlock, block, static_cast<int>(low), static_cast<int>(high), running_[row + r].read,
                      partial_floats(dims_), width_, static_cast<const Block<Number>*>(nullptr));
    }

    const ReadTask& task_;
    const AttentionPart& part_;
    const int64_t dims_, width_, group_;
    float *queries_, *results_, *totals_, *gathered_, *widened_;
    int64_t low_[kShareRows], high_[kShareRows];   // the positions that each row sees
    Running running_[kShareRows];
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
