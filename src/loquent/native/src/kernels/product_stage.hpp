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

/// A block of kLanes rows and units; rows and elements that are not there are zeros.
template <class Unit>
inline void read_edge(Ints (&block)[kLanes], const uint8_t* from, int64_t row_bytes, int64_t rows, int64_t elements) {
    constexpr int64_t kFull = kLanes * Unit::kElements;
    for (int r = 0; r < kLanes; ++r) {
        alignas(64) uint8_t copy[kFull * Unit::kBytes] = {};
        if (r < rows) std::memcpy(copy, from + r * row_bytes, (elements < kFull ? elements : kFull) * Unit::kBytes);
        block[r] = Unit::read(copy);
    }
}

template <class Unit>
inline void read_whole(Ints (&block)[kLanes], const uint8_t* from, int64_t row_bytes) {
#pragma GCC unroll 16
    for (int r = 0; r < kLanes; ++r) block[r] = Unit::read(from + r * row_bytes);
}

/// Inputs [first, first + count) of a panel, as [unit][32] units, `count` a whole number of units.
template <class Unit>
void stage(const Matrix& matrix, int64_t panel, int64_t first, int64_t count, uint8_t* to) {
    constexpr int64_t kFull = kLanes * Unit::kElements;
    const int64_t units = count / Unit::kElements, row_bytes = matrix.row_stride * Unit::kBytes;
    for (int half = 0; half < kPanel; half += kLanes) {
        const int64_t row = panel * kPanel + half;
        const int64_t rows = matrix.rows - row;   // may be none
        const uint8_t* from = matrix.data + row * row_bytes + first * Unit::kBytes;
        for (int64_t unit = 0; unit < units; unit += kLanes) {
            const int64_t elements = matrix.columns - first - unit * Unit::kElements;
            Ints block[kLanes];
            if (rows >= kLanes && elements >= kFull)
                read_whole<Unit>(block, from, row_bytes);
            else
                read_edge<Unit>(block, from, row_bytes, rows, elements);
            transpose(block);
            const int64_t filled = units - unit < kLanes ? units - unit : kLanes;
            uint8_t* out = to + (unit * kPanel + half) * 4;
            if (filled == kLanes) {
#pragma GCC unroll 16
                for (int u = 0; u < kLanes; ++u) std::memcpy(out + u * kPanel * 4, &block[u], sizeof(Ints));
            } else {
                for (int u = 0; u < filled; ++u) std::memcpy(out + u * kPanel * 4, &block[u], sizeof(Ints));
            }
            from += kFull * Unit::kBytes;
        }
    }
}

}  // namespace loquent::LOQUENT_ISA
