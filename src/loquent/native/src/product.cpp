// How a product is cut into shares for the pool, and memory for prepared rows; the arithmetic is kernels/product*.
#include "product_share.hpp"

#include <algorithm>
#include <stdexcept>

#include "kernels.hpp"
#include "memory.hpp"

namespace loquent {
namespace {

constexpr int64_t kFewRows = 64;         // one share has them all
constexpr int64_t kMostRows = 512;       // of a share: with a block of inputs they fit into the second cache
constexpr int64_t kLeastBytes = 16 << 10, kMostBytes = 128 << 10;  // weights of a share of few rows
constexpr int64_t kPanelsOfMany = 4;
constexpr int64_t kSharesPerThread = 8;

int64_t divide_up(int64_t value, int64_t by) { return (value + by - 1) / by; }

/// Shares are blocks of rows times runs of panels.
struct Cut {
    int64_t rows, panels, row_blocks, panel_blocks;

    Cut(int64_t all_rows, const Matrix& matrix, int threads) {
        const int64_t all_panels = matrix.panels();
        row_blocks = all_rows <= kFewRows ? 1 : divide_up(all_rows, kMostRows);
        rows = divide_up(all_rows, row_blocks);
        if (row_blocks == 1 && all_rows <= kFewRows) {
            const int64_t bytes = divide_up(matrix.bytes(), all_panels);
            const int64_t wanted = divide_up(matrix.bytes(), threads * kSharesPerThread);
            panels = std::max<int64_t>(1, std::clamp(wanted, kLeastBytes, kMostBytes) / bytes);
        } else {
            panels = kPanelsOfMany;
            while (panels > 1 && row_blocks * divide_up(all_panels, panels) < 4 * threads) panels /= 2;
        }
        panels = std::min(panels, all_panels);
        panel_blocks = divide_up(all_panels, panels);
    }
};

/// This thread's scratch memory, of at least `bytes`.
uint8_t* thread_scratch(int64_t bytes) {
    thread_local std::shared_ptr<uint8_t> memory;
    thread_local int64_t capacity = 0;
    if (capacity < bytes) {
        memory = allocate(bytes);
        capacity = bytes;
    }
    return memory.get();
}

int64_t prepared_bytes(Kind kind) {
    switch (kind) {
        case Kind::bfloat16: return 2;
        case Kind::int8:
        case Kind::int4: return 1;
        default: return 4;
    }
}

}  // namespace

void Prepared::reserve(Kind kind, int64_t rows, int64_t columns) {
    this->kind = kind;
    this->rows = rows;
    this->columns = columns;
    // An odd number of cache lines: rows of a tile fall into different sets.
    const int64_t lines = divide_up(padded_columns(kind, columns) * prepared_bytes(kind), 64);
    stride = (lines | 1) * 64;
    const bool whole = kind == Kind::int8 || kind == Kind::int4;
    const int64_t scale_bytes = whole ? divide_up(rows * 4, 64) * 64 : 0;
    const int64_t sum_bytes = kind == Kind::int4 ? rows * groups() * 4 : 0;
    const int64_t needed = rows * stride + scale_bytes + sum_bytes;
    if (needed > capacity_) {
        memory_ = allocate(needed);
        capacity_ = needed;
    }
    data = memory_.get();
    scales = whole ? reinterpret_cast<float*>(data + rows * stride) : nullptr;
    sums = sum_bytes ? reinterpret_cast<float*>(data + rows * stride + scale_bytes) : nullptr;
}

void prepare_row(const float* x, Prepared& prepared, int64_t row) { kernels().prepare_row(x, prepared, row); }

void multiply(Pool& pool, const Prepared& input, const Matrix& matrix, const Epilogue& epilogue) {
    if (input.kind != matrix.kind || input.columns != matrix.columns)
        throw std::invalid_argument("rows of " + std::to_string(input.columns) + " inputs prepared for " +
                                    name_of(input.kind) + " do not fit a matrix of " + std::to_string(matrix.columns) +
                                    " columns of " + name_of(matrix.kind) + ".");
    if (input.rows < 1) return;
    const Cut cut(input.rows, matrix, pool.threads());
    const auto multiply_share = kernels().multiply_share;
    pool.run(cut.row_blocks * cut.panel_blocks, [&](int64_t index) {
        const int64_t row = index / cut.panel_blocks * cut.rows, panel = index % cut.panel_blocks * cut.panels;
        const int64_t rows = std::min(cut.rows, input.rows - row), panels = std::min(cut.panels, matrix.panels() - panel);
        if (rows < 1) return;
        uint8_t* scratch = thread_scratch(kStageBytes + panels * rows * kPanel * (int64_t)sizeof(float));
        multiply_share(ProductShare{input, matrix, epilogue, panel, panels, row, rows, scratch});
    });
}

}  // namespace loquent
