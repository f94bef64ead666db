// How a product is cut into shares for the pool, and memory for prepared rows; the arithmetic is kernels/product*.
#include "product_share.hpp"

#include <algorithm>
#include <atomic>
#include <stdexcept>

#include "kernels.hpp"
#include "memory.hpp"

namespace loquent {
namespace {

constexpr int64_t kMostRows = 128;       // of a share: a block of their inputs and the sums fit into the second cache
constexpr int64_t kLeastBytes = 16 << 10, kMostBytes = 64 << 10;  // weights of a share of few rows, where panels allow
constexpr int64_t kSharesOfRun = 4;
constexpr int64_t kPanelsOfMany = 8;
constexpr int64_t kLeastTotal = 96 << 10;    // weights times rows that are not worth a second thread

int64_t divide_up(int64_t value, int64_t by) { return (value + by - 1) / by; }

/// Shares are blocks of rows times runs of panels.
struct Cut {
    int64_t rows, panels, row_blocks, panel_blocks;

    Cut(int64_t all_rows, const Matrix& matrix, int threads) {
        const int64_t all_panels = matrix.panels();
        row_blocks = all_rows <= kFewRows ? 1 : divide_up(all_rows, kMostRows);
        rows = divide_up(all_rows, row_blocks);
        row_blocks = divide_up(all_rows, rows);
        if (all_rows <= kFewRows) {
            const int64_t bytes = divide_up(matrix.bytes(), all_panels);
            const int64_t wanted = std::clamp(matrix.bytes() / (threads * kSharesOfRun), kLeastBytes, kMostBytes);
            panels = std::max<int64_t>(1, wanted / bytes);
            if (panels > 1) panels = divide_up(panels, 2) * 2;
            if (matrix.bytes() * all_rows < kLeastTotal) panels = all_panels;
        } else {
            panels = kPanelsOfMany;
            while (panels > 1 && row_blocks * divide_up(all_panels, panels) < 4 * threads) panels /= 2;
        }
        panels = std::min(panels, all_panels);
        panel_blocks = divide_up(all_panels, panels);
    }

    int64_t shares() const { return row_blocks * panel_blocks; }
};

/// Shares in as many runs as there are threads. A thread goes through a run of its own, so that it knows what it reads
/// next, and then helps with the others'.
class Runs {
public:
    Runs(int64_t shares, int64_t runs) : count_(std::min<int64_t>({shares, runs, kMost})) {
        for (int64_t run = 0; run < count_; ++run) {
            of_[run].next.store(shares * run / count_, std::memory_order_relaxed);
            of_[run].end = shares * (run + 1) / count_;
        }
    }

    int64_t count() const { return count_; }

    /// A share of the run or, where it has none left, of another one, which `run` is then; -1 where none is left.
    int64_t take(int64_t& run) {
        for (int64_t tries = 0; tries < count_; ++tries) {
            Run& from = of_[run];
            if (from.next.load(std::memory_order_relaxed) < from.end) {
                const int64_t share = from.next.fetch_add(1, std::memory_order_relaxed);
                if (share < from.end) return share;
            }
            run = run + 1 < count_ ? run + 1 : 0;
        }
        return -1;
    }

private:
    static constexpr int64_t kMost = 64;
    struct alignas(64) Run {
        std::atomic<int64_t> next{0};
        int64_t end = 0;
    };
    Run of_[kMost];
    int64_t count_;
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

void multiply(Pool& pool, const Prepared& input, const Matrix& matrix, const Epilogue& epilogue, Weights weights) {
    if (input.kind != matrix.kind || input.columns != matrix.columns)
        throw std::invalid_argument("rows of " + std::to_string(input.columns) + " inputs prepared for " +
                                    name_of(input.kind) + " do not fit a matrix of " + std::to_string(matrix.columns) +
                                    " columns of " + name_of(matrix.kind) + ".");
    if (input.rows < 1) return;
    const Cut cut(input.rows, matrix, pool.threads());
    const int64_t size = matrix.packed ? panel_bytes(matrix.kind, matrix.columns) : 0;
    const auto multiply_share = kernels().multiply_share;
    Runs runs(cut.shares(), pool.threads());
    pool.run(runs.count(), [&](int64_t run) {
        uint8_t* scratch = thread_scratch(kStageBytes + cut.panels * cut.rows * kPanel * (int64_t)sizeof(float));
        int64_t share = runs.take(run);
        while (share >= 0) {
            const int64_t next = runs.take(run);
            const int64_t row = share / cut.panel_blocks * cut.rows, panel = share % cut.panel_blocks * cut.panels;
            const uint8_t* ahead =
                next >= 0 && size ? matrix.data + next % cut.panel_blocks * cut.panels * size : nullptr;
            multiply_share(ProductShare{input, matrix, epilogue, panel, std::min(cut.panels, matrix.panels() - panel),
                                        row, std::min(cut.rows, input.rows - row), weights, ahead, scratch});
            share = next;
        }
    });
}

}  // namespace loquent
