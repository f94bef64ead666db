// The inner loops: a tile of a few rows and one or more panels, whose sums stay in registers while inputs run by.
#pragma once

#include "../matrix.hpp"
#include "product_dots.hpp"

namespace loquent::LOQUENT_ISA {

/// Some inputs of the rows and panels of a tile. Sums are [row][panel of the tile][32], read unless `first`.
struct TileWork {
    const uint8_t* weights;
    int64_t panel_stride;       // bytes from panel to panel
    const uint8_t* inputs;
    int64_t input_stride;       // bytes from row to row
    const float* group_sums;    // int4
    int64_t group_stride;       // floats from row to row
    int64_t inputs_count;
    float* sums;
    bool first;
    const uint8_t* ahead;       // weights of later on, to be fetched into the cache: from here (null: none) ...
    int64_t ahead_step;         // ... this many bytes a step, or a group of int4
    bool past_caches;           // they are read once, and should not drive out of the caches what is read again
};

/// Ask for `Bytes` that are read later. Where they are does not matter: nothing happens where there is no memory.
template <int Bytes>
inline void fetch(const uint8_t* ahead, bool past_caches) {
    if (past_caches) {
#pragma GCC unroll 16
        for (int line = 0; line < Bytes; line += 64) __builtin_prefetch(ahead + line, 0, 0);
    } else {
#pragma GCC unroll 16
        for (int line = 0; line < Bytes; line += 64) __builtin_prefetch(ahead + line, 0, 2);
    }
}

// How many outputs of a panel are summed at once, and how many rows: what the registers hold.
#if defined(__AVX512F__)
constexpr int kPart = 32;
constexpr int kMostRows = 12, kMostRowsInt8 = 12, kMostRowsInt4 = 6;
#elif defined(__AVX2__)
constexpr int kPart = 16;
constexpr int kMostRows = 6, kMostRowsInt8 = 4, kMostRowsInt4 = 2;
#elif defined(__ARM_NEON)
constexpr int kPart = 16;
constexpr int kMostRows = 6, kMostRowsInt8 = 6, kMostRowsInt4 = 2;
#else
constexpr int kPart = 8;
constexpr int kMostRows = 4, kMostRowsInt8 = 2, kMostRowsInt4 = 2;
#endif
constexpr int kVectors = kPart / kLanes;

template <class Dot, int R, int P>
struct Sums {
    typename Dot::Sum of[R][P][kVectors];

    void start(const float* from, bool first) {
#pragma GCC unroll 16
        for (int r = 0; r < R; ++r)
#pragma GCC unroll 16
            for (int p = 0; p < P; ++p)
#pragma GCC unroll 16
                for (int v = 0; v < kVectors; ++v)
                    of[r][p][v] = first ? typename Dot::Sum{}
                                        : read_as<typename Dot::Sum>(from + (r * P + p) * kPanel + v * kLanes);
    }

    void keep(float* to) const {
#pragma GCC unroll 16
        for (int r = 0; r < R; ++r)
#pragma GCC unroll 16
            for (int p = 0; p < P; ++p)
#pragma GCC unroll 16
                for (int v = 0; v < kVectors; ++v)
                    std::memcpy(to + (r * P + p) * kPanel + v * kLanes, &of[r][p][v], sizeof(Vec));
    }

    /// One step: its weights are at `weights`, its inputs at `inputs`.
    void add(const uint8_t* weights, int64_t panel_stride, const uint8_t* inputs, int64_t input_stride) {
        typename Dot::Weights w[P][kVectors];
#pragma GCC unroll 16
        for (int p = 0; p < P; ++p)
#pragma GCC unroll 16
            for (int v = 0; v < kVectors; ++v)
                w[p][v] = Dot::weights(weights + p * panel_stride + v * kLanes * Dot::kBytes);
#pragma GCC unroll 16
        for (int r = 0; r < R; ++r) {
            const typename Dot::Input x = Dot::input(inputs + r * input_stride);
#pragma GCC unroll 16
            for (int p = 0; p < P; ++p)
#pragma GCC unroll 16
                for (int v = 0; v < kVectors; ++v) of[r][p][v] = Dot::add(of[r][p][v], w[p][v], x);
        }
    }
};

template <class Dot, int R, int P>
void add_tile(const TileWork& work) {
    const int64_t steps = work.inputs_count / Dot::kInputs;
    for (int part = 0; part < kPanel; part += kPart) {
        Sums<Dot, R, P> sums;
        sums.start(work.sums + part, work.first);
        const uint8_t* weights = work.weights + part * Dot::kBytes;
        const uint8_t* inputs = work.inputs;
        int64_t step = 0;
        if (part == 0 && work.ahead) {
            const uint8_t* ahead = work.ahead;
            for (; step < steps; ++step) {
                fetch<P * kPanel * Dot::kBytes>(ahead, work.past_caches);
                ahead += work.ahead_step;
                sums.add(weights, work.panel_stride, inputs, work.input_stride);
                weights += kPanel * Dot::kBytes;
                inputs += 4;
            }
        }
        for (; step < steps; ++step) {
            sums.add(weights, work.panel_stride, inputs, work.input_stride);
            weights += kPanel * Dot::kBytes;
            inputs += 4;
        }
        sums.keep(work.sums + part);
    }
}

constexpr int64_t kGroupBytes = kGroup * kPanel / 2 + 4 * kPanel;

template <int R>
struct GroupSums {
    Int4Dot::Sum of[R][kVectors] = {};

    /// Eight inputs: four from the low halves of the bytes, four from the high ones.
    void add(const uint8_t* weights, const uint8_t* inputs, int64_t input_stride) {
        Ints low[kVectors], high[kVectors];
#pragma GCC unroll 16
        for (int v = 0; v < kVectors; ++v) {
            const Ints bytes = read_as<Ints>(weights + v * kLanes * 4);
            low[v] = bytes & 0x0f0f0f0f;
            high[v] = bytes >> 4 & 0x0f0f0f0f;
        }
#pragma GCC unroll 16
        for (int r = 0; r < R; ++r) {
            const Int4Dot::Input x = Int4Dot::input(inputs + r * input_stride);
            const Int4Dot::Input y = Int4Dot::input(inputs + r * input_stride + 4);
#pragma GCC unroll 16
            for (int v = 0; v < kVectors; ++v) of[r][v] = Int4Dot::add(Int4Dot::add(of[r][v], low[v], x), high[v], y);
        }
    }
};

/// The same for int4: exact sums within a group, then scale and minimum of the group in float32.
template <int R>
void add_int4_part(const TileWork& work, const uint8_t* weights, float* kept) {
    Sums<Float32Dot, R, 1> sums;
    sums.start(kept, work.first);
    const int64_t part = (kept - work.sums) % kPanel;
    const uint8_t* inputs = work.inputs;
    const uint8_t* ahead = work.ahead;
    for (int64_t group = 0; group < work.inputs_count / kGroup; ++group) {
        GroupSums<R> dots;
        if (part == 0 && ahead) fetch<kGroupBytes>(ahead, work.past_caches);
        ahead += work.ahead_step;
#pragma GCC unroll 4
        for (int j = 0; j < kGroup / 8; ++j)
            dots.add(weights + (j * kPanel + part) * 4, inputs + 8 * j, work.input_stride);
        const uint8_t* scales = weights + kGroup * kPanel / 2 + part * 2;
#pragma GCC unroll 16
        for (int v = 0; v < kVectors; ++v) {
            const Vec scale = Float16Dot::weights(scales + v * kLanes * 2);
            const Vec minimum = Float16Dot::weights(scales + (kPanel + v * kLanes) * 2);
#pragma GCC unroll 16
            for (int r = 0; r < R; ++r) {
                const Vec sum = fma(scale, Int4Dot::total(dots.of[r][v]), sums.of[r][0][v]);
                sums.of[r][0][v] = fma(minimum, splat(work.group_sums[r * work.group_stride + group]), sum);
            }
        }
        weights += kGroupBytes;
        inputs += kGroup;
    }
    sums.keep(kept);
}

template <int R>
void add_int4_tile(const TileWork& work) {
    for (int part = 0; part < kPanel; part += kPart) add_int4_part<R>(work, work.weights, work.sums + part);
}

}  // namespace loquent::LOQUENT_ISA
