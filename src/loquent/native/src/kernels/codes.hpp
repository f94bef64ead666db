// Codes of 1, 2, 4 or 8 bits, 16 to a unit, as vectors of floats and back; store.hpp says how they lie.
#pragma once

#include "simd.hpp"

namespace loquent::LOQUENT_ISA {

template <int Bits>
struct Unit {
    uint8_t bytes[2 * Bits];
};

using Words = uint32_t __attribute__((vector_size(kLanes * 4)));

template <class Word>
inline Word word_at(const uint8_t* from) {
    Word word;
    std::memcpy(&word, from, sizeof word);
    return word;
}

/// The word with each lane's code in it, the same for all lanes (for 4 bits, for every other lane).
template <int Bits>
inline Words spread(const Unit<Bits>& unit) {
    if constexpr (Bits == 1) return Words{} + word_at<uint16_t>(unit.bytes);
    if constexpr (Bits == 2) return Words{} + word_at<uint32_t>(unit.bytes);
    if constexpr (Bits == 4) return (Words)(Longs{} + word_at<int64_t>(unit.bytes));
}

/// How far each lane's code is shifted, of codes [part * kLanes, part * kLanes + kLanes).
template <int Bits>
inline Words shifts(int part) {
    const Ints lanes = lane_numbers() + part * kLanes;
    return (Words)(Bits == 4 ? (lanes >> 1) * 4 : lanes * Bits);
}

/// Codes [part * kLanes, part * kLanes + kLanes) of a unit.
template <int Bits>
inline Vec decode(const Unit<Bits>& unit, int part) {
    if constexpr (Bits == 8) {
#if defined(__AVX512F__)
        return (Vec)_mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i*)unit.bytes)));
#elif defined(__AVX2__)
        return (Vec)_mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i*)(unit.bytes + part * 8))));
#else
        Ints codes{};
        for (int i = 0; i < kLanes; ++i) codes[i] = unit.bytes[part * kLanes + i];
        return to_float(codes);
#endif
    } else {
        const Words codes = spread(unit) >> shifts<Bits>(part);
        constexpr int most = (1 << Bits) - 1;
        // Looking up in a table of as many lanes leaves the bits above a code aside, and makes floats at once.
#if defined(__AVX512F__)
        return (Vec)_mm512_permutexvar_ps((__m512i)codes, (__m512)to_float(lane_numbers() & most));
#elif defined(__AVX2__)
        if constexpr (Bits < 4)
            return (Vec)_mm256_permutevar8x32_ps((__m256)to_float(lane_numbers() & most), (__m256i)codes);
#endif
        return to_float((Ints)codes & most);
    }
}

/// Code `index` of a row of units.
template <int Bits>
inline int code_at(const Unit<Bits>* row, int64_t index) {
    const uint8_t* bytes = row[index / 16].bytes;
    const int lane = static_cast<int>(index % 16);
    if constexpr (Bits == 8) return bytes[lane];
    if constexpr (Bits == 4) return bytes[lane % 2 * 4 + lane / 4] >> lane / 2 % 2 * 4 & 15;
    return bytes[lane * Bits / 8] >> lane * Bits % 8 & ((1 << Bits) - 1);
}

/// 16 codes, in as many vectors as they fill, as a unit.
template <int Bits>
inline Unit<Bits> pack(const Ints* codes) {
    Unit<Bits> unit;
    if constexpr (Bits == 8) {
        using Bytes = uint8_t __attribute__((vector_size(kLanes)));
        for (int part = 0; part * kLanes < 16; ++part) {
            const Bytes bytes = __builtin_convertvector(codes[part], Bytes);
            std::memcpy(unit.bytes + part * kLanes, &bytes, sizeof bytes);
        }
    } else {
        Words all{};
        for (int part = 0; part * kLanes < 16; ++part) all |= (Words)codes[part] << shifts<Bits>(part);
        const Longs pairs = (Longs)all;   // of lanes: the even one in the lower word, the odd one in the upper
        int64_t words = 0;
        for (int i = 0; i < kLanes / 2; ++i) words |= pairs[i];
        if constexpr (Bits < 4) words |= words >> 32;
        std::memcpy(unit.bytes, &words, sizeof unit);
    }
    return unit;
}

}  // namespace loquent::LOQUENT_ISA
