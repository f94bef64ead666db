// The query rows of one task, whatever form the keys and values have that they are attended over.
#pragma once

#include "kernels/attention_tiles.hpp"

namespace loquent::LOQUENT_ISA {

inline int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }
inline int64_t larger(int64_t a, int64_t b) { return a > b ? a : b; }

/// Where a plane of one page and head is.
inline const uint8_t* plane_at(const LayerView& view, const LayerView::Plane& which, int64_t head, int64_t page) {
    const int64_t inside = page & ((int64_t{1} << view.shift) - 1);
    return view.chunks[page >> view.shift] + which.offset + head * which.head_bytes + inside * which.page_bytes;
}

/// What a tile's rows see of a block: slots [low, high).
template <int Rows>
struct Ranges {
    int low[Rows], high[Rows];

    Ranges(int64_t base, const int64_t* from, const int64_t* to) {
        for (int r = 0; r < Rows; ++r) {
            low[r] = static_cast<int>(smaller(kBlock, larger(0, from[r] - base)));
            high[r] = static_cast<int>(larger(low[r], smaller(kBlock, to[r] - base)));
        }
    }

    // Positions do not fall from row to row: the first row's range begins first, the last row's ends last.
    bool empty() const { return low[0] >= high[Rows - 1]; }
    int first_group() const { return low[0] / kSlots; }
    int last_group() const { return (high[Rows - 1] + kSlots - 1) / kSlots; }
};

struct QueryRows {
    explicit QueryRows(const ReadTask& given)
        : task(given), part(*given.part), dims(part.head_dim), width(whole_vectors(dims)),
          group(part.heads / part.kv_heads), queries(given.scratch), results(queries + given.count * width),
          totals(results + given.count * partial_floats(dims)), scratch(totals + given.count * partial_floats(dims)) {
        for (int64_t row = 0; row < task.count; ++row) {
            const int64_t position = task.start + token(row);
            low[row] = first_seen(part.window, position), high[row] = position + 1;
            exact[row] = task.bits ? larger(low[row], first_exact(task.residual, task.page_size, position)) : low[row];
            for (int64_t d = 0; d < dims; d += kSlots) fetch(query(row) + d);
        }
        for (int64_t row = 0; row < task.count; row += kTileRows) pack(row, rows_from(row));
    }

    int64_t token(int64_t row) const { return (task.first + row) / group; }

    /// Where the row's query head begins among a token's.
    int64_t head(int64_t row) const { return (task.kv_head * group + (task.first + row) % group) * dims; }

    const float* query(int64_t row) const { return task.qkv + token(row) * task.qkv_stride + head(row); }

    int rows_from(int64_t row) const { return static_cast<int>(smaller(kTileRows, task.count - row)); }

    /// Lay out a tile's queries as (head_dim, rows), scaled.
    void pack(int64_t row, int rows) {
        for (int r = 0; r < rows; ++r) {
            float* to = queries + row * width + r;
            for (int64_t d = 0; d < dims; ++d) to[d * rows] = query(row + r)[d] * part.scale;
        }
    }

    /// Turn a tile's scores of the block at `base` into weights; `form(r)` is what row r's keys and values need.
    template <int Rows, class Forms>
    void weigh(float* scores, const Forms& form, const float* const* mask, const Ranges<Rows>& seen, int64_t base,
               int64_t row) {
        for (int r = 0; r < Rows; ++r) {
            if (seen.low[r] == seen.high[r]) continue;
            const Kept* kept = task.kept ? task.kept + token(row + r) : nullptr;
            soften(scores + r * kBlock, form(r), part.keep ? mask : nullptr, seen.low[r], seen.high[r], base, kept,
                   running[row + r]);
        }
    }

    /// Add dimensions [column, end) of a block's values to what a tile's rows have read.
    template <int Rows, class Element>
    void add(const float* weights, const Block<Element>& block, const Ranges<Rows>& seen, int64_t row, int64_t column,
             int64_t stop, const Block<Element>* next) {
        // What not all rows see is added row by row, so that nothing a row does not see can touch it.
        const int begin = seen.low[Rows - 1], end = static_cast<int>(larger(begin, seen.high[0]));
        const auto add_one = [&](int r, int64_t from, int64_t to) {
            if (from < to)
                add_values<1>(weights + r * kBlock, block, static_cast<int>(from), static_cast<int>(to),
                              running[row + r].read, partial_floats(dims), column, stop,
                              static_cast<const Block<Element>*>(nullptr));
        };
        for (int r = 0; Rows > 1 && r < Rows; ++r) add_one(r, seen.low[r], smaller(begin, seen.high[r]));
        if (begin < end)
            add_values<Rows>(weights, block, begin, end, running[row].read, partial_floats(dims), column, stop, next);
        for (int r = 0; Rows > 1 && r < Rows; ++r) add_one(r, larger(end, seen.low[r]), seen.high[r]);
    }

    const ReadTask& task;
    const AttentionPart& part;
    const int64_t dims, width, group;
    float *queries, *results, *totals, *scratch;
    // Of each row: the positions that it sees, [low, exact) of them coded.
    int64_t low[kShareRows], exact[kShareRows], high[kShareRows];
    Running running[kShareRows];   // over the chunk that is visited
};

/// Attend all rows over the coded positions of [begin, end) that they see.
void read_coded(QueryRows& rows, int64_t begin, int64_t end);

}  // namespace loquent::LOQUENT_ISA
