// Some rows times a matrix that is stored row by row: blocks become columns in registers and are multiplied there, in
// the order of inputs that the tiles have. Staging them would cost as much as the memory does.
#pragma once

#include "product_stage.hpp"

namespace loquent::LOQUENT_ISA {

#if defined(__AVX512F__)
constexpr int kRowsInPlace = 8;   // of a tile: what the registers hold beside a block
#else
constexpr int kRowsInPlace = 4;
#endif
constexpr int kMostInPlace = 2 * kRowsInPlace;   // rows: more of them are better served by a staged panel
constexpr int64_t kRunBytes = 1024;              // of a matrix's row at once: runs that the memory likes

/// Some inputs of the rows and kLanes outputs of a tile.
struct InPlace {
    const Matrix& matrix;
    const uint8_t* inputs;     // of the first of the inputs
    int64_t input_stride;      // bytes from row to row
    float* sums;               // [row][32], read unless `first` is 0
    int64_t first, count;      // inputs
    const uint8_t* ahead;      // what is read next, fetched meanwhile: runs of `count` inputs, one row after the other
};

/// Ask for as many lines as a block has, run by run.
template <class Unit>
struct Ahead {
    const uint8_t* run;
    const int64_t row_bytes, lines;
    int64_t line = 0;

    void fetch() {
#pragma GCC unroll 16
        for (int i = 0; i < kLanes * kLanes * Unit::kElements * Unit::kBytes / 64; ++i) {
            __builtin_prefetch(run + line * 64, 0, 3);
            if (++line < lines) continue;
            line = 0;
            run += row_bytes;
        }
    }
};

template <class Dot, class Unit, int R>
void add_outputs(const InPlace& work, int64_t output, float* to) {
    typename Dot::Sum sums[R];
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r)
        sums[r] = work.first ? read_as<typename Dot::Sum>(to + r * kPanel) : typename Dot::Sum{};
    const Matrix& matrix = work.matrix;
    Ahead<Unit> ahead{work.ahead, matrix.row_stride * Unit::kBytes, (work.count * Unit::kBytes + 63) / 64};
    const uint8_t* inputs = work.inputs;
    const int64_t units = (work.count + Unit::kElements - 1) / Unit::kElements;
    for (int64_t unit = 0; unit < units; unit += kLanes) {
        ahead.fetch();
        Ints block[kLanes];
        read_transposed<Unit>(block, matrix, output, work.first + unit * Unit::kElements);
        const auto add = [&](int u) {
            const typename Dot::Weights weights = Dot::weights((const uint8_t*)&block[u]);
#pragma GCC unroll 8
            for (int r = 0; r < R; ++r)
                sums[r] = Dot::add(sums[r], weights, Dot::input(inputs + r * work.input_stride + 4 * u));
        };
        if (units - unit >= kLanes) {
#pragma GCC unroll 16
            for (int u = 0; u < kLanes; ++u) add(u);
        } else {
            for (int u = 0; u < units - unit; ++u) add(u);
        }
        inputs += 4 * kLanes;
    }
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) std::memcpy(to + r * kPanel, &sums[r], sizeof(Vec));
}

/// A run of inputs of a panel, for up to `R` rows.
template <class Dot, class Unit, int R = kRowsInPlace>
void add_run(const InPlace& work, int64_t panel, int64_t rows) {
    if constexpr (R > 1)
        if (rows < R) return add_run<Dot, Unit, R - 1>(work, panel, rows);
    for (int lane = 0; lane < kPanel; lane += kLanes) {
        InPlace half = work;
        half.ahead += lane * work.matrix.row_stride * Unit::kBytes;
        add_outputs<Dot, Unit, R>(half, panel * kPanel + lane, work.sums + lane);
    }
}

/// The whole product of one panel and up to kMostInPlace rows: sums [row][32].
template <class Dot, class Unit>
void add_in_place(const Matrix& matrix, int64_t panel, int64_t rows, const uint8_t* inputs, int64_t input_stride,
                  float* sums) {
    constexpr int64_t kRun = kRunBytes / Unit::kBytes;
    const int64_t tiles = (rows + kRowsInPlace - 1) / kRowsInPlace;
    for (int64_t first = 0; first < matrix.columns; first += kRun) {
        const int64_t left = matrix.columns - first, count = left < kRun ? left : kRun;
        const int64_t next = left > kRun ? panel * kPanel * matrix.row_stride + first + kRun
                                         : (panel + 1) * kPanel * matrix.row_stride;
        InPlace work{matrix, inputs, input_stride, sums, first, count, matrix.data + next * Unit::kBytes};
        for (int64_t tile = 0; tile < tiles; ++tile) {
            const int64_t some = rows / tiles + (tile < rows % tiles);
            add_run<Dot, Unit>(work, panel, some);
            work.inputs += some * input_stride;
            work.sums += some * kPanel;
        }
        inputs += count / Unit::kElements * 4;
    }
}

}  // namespace loquent::LOQUENT_ISA
