// Brings a few inputs of a matrix that is stored row by row into a panel's layout, so that the same tiles run on it.
#pragma once

#include "../matrix.hpp"
#include "product_dots.hpp"

namespace loquent::LOQUENT_ISA {

/// Lanes of a and b in turns: the first half of them, or the second.
template <bool Second>
inline Ints zip(Ints a, Ints b) {
#if defined(__AVX512F__)
    Ints order;
    for (int i = 0; i < kLanes; ++i) order[i] = i / 2 + (i % 2) * kLanes + Second * kLanes / 2;
    return (Ints)_mm512_permutex2var_epi32((__m512i)a, (__m512i)order, (__m512i)b);
#else
    Ints order;
    for (int i = 0; i < kLanes; ++i) order[i] = i / 2 + (i % 2) * kLanes + Second * kLanes / 2;
    Ints zipped;
    for (int i = 0; i < kLanes; ++i) zipped[i] = order[i] < kLanes ? a[order[i] % kLanes] : b[order[i] % kLanes];
    return zipped;
#endif
}

/// Rows become columns: log2(kLanes) rounds, each of which shuffles the rows perfectly.
inline void transpose(Ints (&rows)[kLanes]) {
#pragma GCC unroll 4
    for (int round = 1; round < kLanes; round *= 2) {
        Ints next[kLanes];
#pragma GCC unroll 16
        for (int i = 0; i < kLanes / 2; ++i) {
            next[2 * i] = zip<false>(rows[i], rows[i + kLanes / 2]);
            next[2 * i + 1] = zip<true>(rows[i], rows[i + kLanes / 2]);
        }
#pragma GCC unroll 16
        for (int i = 0; i < kLanes; ++i) rows[i] = next[i];
    }
}

// What is read of a row at once: kLanes units of 32 bits, of which `columns` elements are there and the rest zeros.
struct WholeFloats {
    static constexpr int kElements = 1, kBytes = 4;   // of a unit, of an element
    static Ints read(const uint8_t* from) { return read_as<Ints>(from); }
};
struct BFloat16Pairs {
    static constexpr int kElements = 2, kBytes = 2;
    static Ints read(const uint8_t* from) { return read_as<Ints>(from); }
};
struct WidenedHalves {
    static constexpr int kElements = 1, kBytes = 2;
    static Ints read(const uint8_t* from) { return (Ints)Float16Dot::weights(from); }
};

template <class Unit>
inline Ints read_some(const uint8_t* from, int64_t elements) {
    constexpr int kFull = kLanes * Unit::kElements;
    if (elements >= kFull) return Unit::read(from);
    alignas(64) uint8_t copy[kFull * Unit::kBytes] = {};
    std::memcpy(copy, from, elements * Unit::kBytes);
    return Unit::read(copy);
}

/// Inputs [first, first + count) of a panel, as [unit][32] units, `count` a whole number of units.
template <class Unit>
void stage(const Matrix& matrix, int64_t panel, int64_t first, int64_t count, uint8_t* to) {
    const int64_t units = count / Unit::kElements;
    for (int half = 0; half < kPanel; half += kLanes) {
        const int64_t row = panel * kPanel + half;
        const int64_t rows = matrix.rows - row;   // may be none
        const uint8_t* from = matrix.data + (row * matrix.row_stride + first) * Unit::kBytes;
        for (int64_t unit = 0; unit < units; unit += kLanes) {
            const int64_t there = matrix.columns - first - unit * Unit::kElements;
            Ints block[kLanes];
#pragma GCC unroll 16
            for (int r = 0; r < kLanes; ++r)
                block[r] = r < rows ? read_some<Unit>(from + r * matrix.row_stride * Unit::kBytes, there) : Ints{};
            transpose(block);
            const int64_t filled = units - unit < kLanes ? units - unit : kLanes;
            for (int u = 0; u < filled; ++u) std::memcpy(to + ((unit + u) * kPanel + half) * 4, &block[u], sizeof(Ints));
            from += kLanes * Unit::kElements * Unit::kBytes;
        }
    }
}

}  // namespace loquent::LOQUENT_ISA
