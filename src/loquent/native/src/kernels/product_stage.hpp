// Brings a few inputs of a matrix that is stored row by row into a panel's layout, so that the same tiles run on it.
#pragma once

#include "../matrix.hpp"
#include "product_dots.hpp"

namespace loquent::LOQUENT_ISA {

#if defined(__AVX512F__)

/// Rows become columns: within quarters of 128 bits by interleaving, then whole quarters.
inline void transpose(Ints (&rows)[kLanes]) {
    __m512i a[16], b[16];
#pragma GCC unroll 8
    for (int i = 0; i < 16; i += 2) {
        a[i] = _mm512_unpacklo_epi32((__m512i)rows[i], (__m512i)rows[i + 1]);
        a[i + 1] = _mm512_unpackhi_epi32((__m512i)rows[i], (__m512i)rows[i + 1]);
    }
#pragma GCC unroll 4
    for (int i = 0; i < 16; i += 4) {
        b[i] = _mm512_unpacklo_epi64(a[i], a[i + 2]);
        b[i + 1] = _mm512_unpackhi_epi64(a[i], a[i + 2]);
        b[i + 2] = _mm512_unpacklo_epi64(a[i + 1], a[i + 3]);
        b[i + 3] = _mm512_unpackhi_epi64(a[i + 1], a[i + 3]);
    }
    // Quarter q of b[4 g + c] is column 4 q + c of the rows 4 g ... 4 g + 3.
#pragma GCC unroll 4
    for (int c = 0; c < 4; ++c) {
        const __m512i even_low = _mm512_shuffle_i32x4(b[c], b[4 + c], 0x88);
        const __m512i odd_low = _mm512_shuffle_i32x4(b[c], b[4 + c], 0xdd);
        const __m512i even_high = _mm512_shuffle_i32x4(b[8 + c], b[12 + c], 0x88);
        const __m512i odd_high = _mm512_shuffle_i32x4(b[8 + c], b[12 + c], 0xdd);
        rows[c] = (Ints)_mm512_shuffle_i32x4(even_low, even_high, 0x88);
        rows[8 + c] = (Ints)_mm512_shuffle_i32x4(even_low, even_high, 0xdd);
        rows[4 + c] = (Ints)_mm512_shuffle_i32x4(odd_low, odd_high, 0x88);
        rows[12 + c] = (Ints)_mm512_shuffle_i32x4(odd_low, odd_high, 0xdd);
    }
}

#else

/// Lanes of a and b in turns: the first half of them, or the second.
template <bool Second>
inline Ints zip(Ints a, Ints b) {
    constexpr int first = Second ? kLanes / 2 : 0;
    Ints zipped;
#if defined(__clang__)
    for (int i = 0; i < kLanes; ++i) zipped[i] = (i % 2 ? b : a)[first + i / 2];
    return zipped;
#else  // of single lanes GCC makes single insertions
#pragma GCC unroll 8
    for (int i = 0; i < kLanes; ++i) zipped[i] = first + i / 2 + i % 2 * kLanes;
    return __builtin_shuffle(a, b, zipped);
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

#endif

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
    for (int r = 0; r < kLanes; ++r) {
        block[r] = Unit::read(from);
        from += row_bytes;
        asm("" : "+r"(from));  // else the compiler keeps sixteen addresses, for which it has no registers
    }
}

/// Rows `row`... and elements `first`... of a matrix, transposed: block[u] has unit u of kLanes rows.
template <class Unit>
inline void read_transposed(Ints (&block)[kLanes], const Matrix& matrix, int64_t row, int64_t first) {
    const int64_t rows = matrix.rows - row, elements = matrix.columns - first;   // rows may be none
    const int64_t row_bytes = matrix.row_stride * Unit::kBytes;
    const uint8_t* from = matrix.data + row * row_bytes + first * Unit::kBytes;
    if (rows >= kLanes && elements >= kLanes * Unit::kElements)
        read_whole<Unit>(block, from, row_bytes);
    else
        read_edge<Unit>(block, from, row_bytes, rows, elements);
    transpose(block);
}

/// Inputs [first, first + count) of a panel, as [unit][32] units, `count` a whole number of units.
template <class Unit>
void stage(const Matrix& matrix, int64_t panel, int64_t first, int64_t count, uint8_t* to) {
    const int64_t units = count / Unit::kElements;
    for (int part = 0; part < kPanel; part += kLanes)
        for (int64_t unit = 0; unit < units; unit += kLanes) {
            Ints block[kLanes];
            read_transposed<Unit>(block, matrix, panel * kPanel + part, first + unit * Unit::kElements);
            uint8_t* out = to + (unit * kPanel + part) * 4;
            if (units - unit >= kLanes) {
#pragma GCC unroll 16
                for (int u = 0; u < kLanes; ++u) std::memcpy(out + u * kPanel * 4, &block[u], sizeof(Ints));
            } else {
                for (int u = 0; u < units - unit; ++u) std::memcpy(out + u * kPanel * 4, &block[u], sizeof(Ints));
            }
        }
}

}  // namespace loquent::LOQUENT_ISA
