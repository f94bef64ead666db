// Query rows over coded keys and values, without decoding them: s of a channel goes into the query, m into a constant
// of the score; s of a token goes into its weight, and its m is added to all of the group's dimensions at once.
//
// Codes become floats, which is exact, in registers for a few rows, or once for many: the arithmetic is the same.
#include "kernels/attention_rows.hpp"
#include "numbers.hpp"

namespace loquent::LOQUENT_ISA {

namespace {

/// A block's groups of slots [first, last) that are in one page.
struct Run {
    int first, last;
};

/// Dimensions [column, end) of a head whose values are one group: of each slot of a block m, and kBlock later s.
struct ValueGroup {
    int64_t column, end;
    const float* numbers;
};

/// What one row's scores need: the sum of its query times m, of each group of slots.
struct Constants {
    float of_group[kGroups];

    Vec score(Vec x, int group, int) const { return x + of_group[group]; }
    Vec weight(Vec x, int, int) const { return x; }
};

template <int Bits>
class CodedReader {
public:
    using Codes = Unit<Bits>;

    explicit CodedReader(QueryRows& rows)
        : rows_(rows), task_(rows.task), dims_(rows.dims), width_(rows.width),
          first_channel_(task_.kv_head * dims_), first_group_(first_channel_ / task_.slots),
          groups_((first_channel_ + dims_ - 1) / task_.slots - first_group_ + 1), by_head_(codes_values_by_head(dims_)),
          wide_(task_.count > kTileRows || !by_head_) {
        keys_ = rows.scratch;
        values_ = keys_ + dims_ * kBlock;
        key_numbers_ = rows.scratch + 2 * block_floats(dims_);
        spread_ = key_numbers_ + kGroups * 2 * width_;
        folded_ = spread_ + kGroups * 4 * width_;
        value_numbers_ = folded_ + 4 * width_;
    }

    void run(int64_t begin, int64_t end) {
        // A row whose window begins behind its coded pages sees none of them, and `exact` is where its window begins.
        const int64_t last = task_.start + rows_.token(task_.count - 1);
        const int64_t coded = first_exact(task_.residual, task_.page_size, last);
        const int64_t low = larger(rows_.low[0], begin), high = smaller(coded, end);
        if (low >= high) return;
        for (int64_t base = low / kBlock * kBlock; base < high; base += kBlock)
            visit_block(base, larger(low, base), smaller(high, base + kBlock), high);
    }

private:
    /// The block at `base`, of which somebody sees [low, high) coded; up to `end` they go on.
    void visit_block(int64_t base, int64_t low, int64_t high, int64_t end) {
        find_slots(base, low, high);
        if (!wide_ && high < end) fetch_block(high);
        read_key_numbers();
        read_value_numbers();
        const Block<Codes> block = find();
        if (!wide_) return visit_tile(block, base, 0, static_cast<int>(task_.count));
        const Block<float> wide = widen_block(block);
        for (int64_t row = 0; row < task_.count; row += kTileRows) visit_tile(wide, base, row, rows_.rows_from(row));
    }

    // --- blocks ------------------------------------------------------------------------------------------------------

    const uint8_t* plane(const LayerView::Plane& which, int64_t page) const {
        return plane_at(task_.coded, which, which.heads == 1 ? 0 : task_.kv_head, page);
    }

    /// The page and the slot where each group of slots begins; of groups that nobody sees those of one that is seen.
    void find_slots(int64_t base, int64_t low, int64_t high) {
        const int64_t first = low / kSlots * kSlots, last = (high - 1) / kSlots * kSlots;
        runs_ = 0;
        for (int g = 0; g < kGroups; ++g) {
            const int64_t position = larger(first, smaller(last, base + g * kSlots));
            const int64_t page = task_.coded_pages[position / task_.page_size];
            if (g == 0 || page != page_[g - 1]) run_[runs_++] = {g, g};
            run_[runs_ - 1].last = g + 1;
            page_[g] = page, slot_[g] = position % task_.page_size;
        }
    }

    Block<Codes> find() const {
        Block<Codes> block{};
        block.key_stride = task_.slots / 16;
        block.value_stride = (by_head_ ? dims_ : whole_vectors(rows_.part.kv_heads * dims_)) / 16;
        for (int g = 0; g < kGroups; ++g) {
            const LayerView& view = task_.coded;
            block.keys[g] = (const Codes*)plane(view.keys, page_[g]) + slot_[g] / 16;
            block.values[g] = (const Codes*)plane(view.values, page_[g]) + slot_[g] * block.value_stride;
            block.mask[g] = (const float*)plane(view.mask, page_[g]) + slot_[g];
        }
        return block;
    }

    /// Ask for the block that begins at this position.
    void fetch_block(int64_t position) const {
        const LayerView& view = task_.coded;
        const int64_t page = task_.coded_pages[position / task_.page_size], slot = position % task_.page_size;
        const int64_t count = smaller(kBlock, task_.slots), row = code_bytes(task_.slots, Bits);
        const uint8_t *keys = plane(view.keys, page) + code_bytes(slot, Bits), *scales = plane(view.key_scales, page);
        const uint8_t* values = plane(view.values, page) + code_bytes(slot * dims_, Bits);
        // Channels are a block apart, several of them in a line, or further.
        for (int64_t i = 0; i < dims_ * row; i += larger(64, task_.slots > kBlock ? row : 0)) fetch(keys + i);
        for (int64_t i = 0; i < code_bytes(count * dims_, Bits); i += 64) fetch(values + i);
        for (int64_t i = 0; i < view.key_scales.page_bytes; i += 64) fetch(scales + i);
    }

    /// Of each run's page m and s of the head's channels, (2, width).
    void read_key_numbers() {
        for (int run = 0; run < runs_; ++run) {
            const auto* halves = (const uint16_t*)plane(task_.coded.key_scales, page_[run_[run].first]);
            float* to = key_numbers_ + run * 2 * width_;
            for (int part = 0; part < 2; ++part, halves += dims_, to += width_) {
                int64_t d = 0;
                for (; d + kLanes <= dims_; d += kLanes) store(to + d, load_f16(halves + d));
                for (; d < width_; ++d) to[d] = d < dims_ ? float_of_f16(halves[d]) : 0.0f;
            }
        }
        spread_rows_ = 0;
    }

    /// Of each group of values that the head has dimensions of, m and s of the block's slots, (2, kBlock).
    void read_value_numbers() {
        const int64_t size = task_.slots;
        float* numbers = value_numbers_;
        for (int64_t group = first_group_; group < first_group_ + groups_; ++group, numbers += 2 * kBlock)
            for (int g = 0; g < kGroups; ++g) {
                const auto* halves = (const uint16_t*)plane(task_.coded.value_scales, page_[g]) + slot_[g];
                for (int v = 0; v < kSlots; v += kLanes) {
                    const uint16_t* from = halves + group * 2 * size + v;
                    store(numbers + g * kSlots + v, load_f16(from));
                    store(numbers + kBlock + g * kSlots + v, load_f16(from + size));
                }
            }
    }

    /// Number `index` of the groups of values that the head has dimensions of.
    ValueGroup value_group(int64_t index) const {
        const int64_t column = (first_group_ + index) * task_.slots - first_channel_;
        return {larger(0, column), smaller(dims_, column + task_.slots), value_numbers_ + index * 2 * kBlock};
    }

    /// The codes as floats; values of heads that share units with others are decoded.
    Block<float> widen_block(const Block<Codes>& block) {
        Block<float> wide{};
        wide.key_stride = kBlock, wide.value_stride = width_;
        for (int g = 0; g < kGroups; ++g) {
            for (int64_t d = 0; d < dims_; ++d)
                for (int v = 0; v < kVectors; ++v)
                    store(keys_ + d * kBlock + g * kSlots + v * kLanes,
                          vector_at(block.keys[g] + d * block.key_stride, v));
            for (int slot = 0; slot < kSlots; ++slot) {
                const Codes* row = block.values[g] + slot * block.value_stride;
                float* to = values_ + (g * kSlots + slot) * width_;
                if (!by_head_)
                    decode_values(row, g * kSlots + slot, to);
                else
                    for (int i = 0; i < width_ / kLanes; ++i) store(to + i * kLanes, vector_at(row, i));
            }
            wide.keys[g] = keys_ + g * kSlots, wide.values[g] = values_ + g * kSlots * width_;
            wide.mask[g] = block.mask[g];
        }
        return wide;
    }

    void decode_values(const Codes* row, int slot, float* to) const {
        for (int64_t d = dims_; d < width_; ++d) to[d] = 0.0f;
        for (int64_t index = 0; index < groups_; ++index) {
            const ValueGroup group = value_group(index);
            const float m = group.numbers[slot], s = group.numbers[kBlock + slot];
            for (int64_t d = group.column; d < group.end; ++d)
                to[d] = m + s * static_cast<float>(code_at(row, first_channel_ + d));
        }
    }

    // --- tiles -------------------------------------------------------------------------------------------------------

    template <class Number>
    void visit_tile(const Block<Number>& block, int64_t base, int64_t row, int rows) {
        switch (rows) {
            case 1: return visit<1>(block, base, row);
            case 2: return visit<2>(block, base, row);
            case 3: return visit<kTileRows < 3 ? kTileRows : 3>(block, base, row);
            default: return visit<kTileRows>(block, base, row);
        }
    }

    template <int Rows, class Number>
    void visit(const Block<Number>& block, int64_t base, int64_t row) {
        const Ranges<Rows> seen(base, rows_.low + row, rows_.exact + row);
        if (seen.empty()) return;
        alignas(64) float scores[Rows * kBlock];
        Constants constants[Rows];
        if (spread_rows_ != Rows) spread<Rows>();
        for (int run = 0; run < runs_; ++run) score_run<Rows>(block, run, seen, row, scores, constants);
        const auto form = [&](int r) { return constants[r]; };
        rows_.template weigh<Rows>(scores, form, block.mask, seen, base, row);
        if (!by_head_) return rows_.template add<Rows>(scores, block, seen, row, 0, width_, no_block(block));
        for (int64_t i = 0; i < groups_; ++i) add_group<Rows>(scores, block, value_group(i), seen, row);
    }

    template <class Number>
    static const Block<Number>* no_block(const Block<Number>&) {
        return nullptr;
    }

    /// Each page's s as a tile of `Rows` queries is laid out.
    template <int Rows>
    void spread() {
        spread_rows_ = Rows;
        for (int run = 0; run < runs_; ++run) {
            const float* scales = key_numbers_ + (run * 2 + 1) * width_;
            float* to = spread_ + run * 4 * width_;
            for (int64_t d = 0; d < width_; ++d)
                for (int r = 0; r < Rows; ++r) to[d * Rows + r] = scales[d];
        }
    }

    template <int Rows, class Number>
    void score_run(const Block<Number>& block, int run, const Ranges<Rows>& seen, int64_t row, float* scores,
                   Constants* constants) {
        const int first = static_cast<int>(larger(run_[run].first, seen.first_group()));
        const int last = static_cast<int>(smaller(run_[run].last, seen.last_group()));
        if (first >= last) return;
        const float *queries = rows_.queries + row * width_, *scales = spread_ + run * 4 * width_;
        for (int64_t i = 0; i < dims_ * Rows; i += kLanes) store(folded_ + i, load(queries + i) * load(scales + i));
        for (int r = 0; r < Rows; ++r) {
            const float constant = times_minima(rows_.query(row + r), key_numbers_ + run * 2 * width_);
            for (int g = first; g < last; ++g) constants[r].of_group[g] = constant;
        }
        constexpr int most = fitting(Rows * kVectors), half = most > 1 ? most / 2 : 1;
        for (int g = first; g < last;) {
            if (last - g >= most)
                score_groups<Rows, most>(folded_, block.keys + g, block.key_stride, dims_, scores + g * kSlots,
                                         (const Number* const*)nullptr), g += most;
            else if (last - g >= half)
                score_groups<Rows, half>(folded_, block.keys + g, block.key_stride, dims_, scores + g * kSlots,
                                         (const Number* const*)nullptr), g += half;
            else
                score_groups<Rows, 1>(folded_, block.keys + g, block.key_stride, dims_, scores + g * kSlots,
                                      (const Number* const*)nullptr), g += 1;
        }
    }

    float times_minima(const float* query, const float* minima) const {
        Vec sums = {};
        int64_t d = 0;
        for (; d + kLanes <= dims_; d += kLanes) sums = fma(load(query + d), load(minima + d), sums);
        if (d < dims_) sums = fma(load_some(query + d, static_cast<int>(dims_ - d)), load(minima + d), sums);
        return sum(sums) * rows_.part.scale;
    }

    /// Add one group of values: all of its dimensions get the weighted sum of m.
    template <int Rows, class Number>
    void add_group(const float* weights, const Block<Number>& block, const ValueGroup& group,
                   const Ranges<Rows>& seen, int64_t row) {
        alignas(64) float scaled[Rows * kBlock];
        for (int r = 0; r < Rows; ++r) {
            if (seen.low[r] == seen.high[r]) continue;
            Vec minima = {};
            for (int i = seen.low[r] / kLanes; i * kLanes < seen.high[r]; ++i) {
                const Ints slots = lane_numbers() + i * kLanes;
                const Vec weight = load(weights + r * kBlock + i * kLanes), nothing = {};
                const Vec m = load(group.numbers + i * kLanes), s = load(group.numbers + kBlock + i * kLanes);
                minima = minima + (((slots >= seen.low[r]) & (slots < seen.high[r])) ? weight * m : nothing);
                store(scaled + r * kBlock + i * kLanes, weight * s);
            }
            const float constant = sum(minima);
            float* read = rows_.running[row + r].read;
            for (int64_t d = group.column; d < group.end; d += kLanes) store(read + d, load(read + d) + constant);
        }
        rows_.template add<Rows>(scaled, block, seen, row, group.column, group.end, no_block(block));
    }

    QueryRows& rows_;
    const ReadTask& task_;
    const int64_t dims_, width_;
    const int64_t first_channel_, first_group_, groups_;   // of all heads' values: the head's, and their groups
    const bool by_head_, wide_;
    float *keys_, *values_, *key_numbers_, *spread_, *folded_, *value_numbers_;
    int64_t page_[kGroups], slot_[kGroups];
    Run run_[kGroups];
    int runs_ = 0, spread_rows_ = 0;
};

}  // namespace

void read_coded(QueryRows& rows, int64_t begin, int64_t end) {
    switch (rows.task.bits) {
        case 1: return CodedReader<1>(rows).run(begin, end);
        case 2: return CodedReader<2>(rows).run(begin, end);
        case 4: return CodedReader<4>(rows).run(begin, end);
        default: return CodedReader<8>(rows).run(begin, end);
    }
}

}  // namespace loquent::LOQUENT_ISA
