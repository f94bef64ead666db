// How one step of each kind's sums is computed: a few inputs of a row times the same inputs of kLanes outputs.
//
// A `Dot` has kInputs inputs a step, whose form takes 4 bytes of a prepared row; kBytes of weights a step and output;
// and sums of kLanes lanes of 32 bits, floats or integers.
#pragma once

#include "../simd.hpp"

#if defined(__SSE2__)
#include <immintrin.h>
#endif

namespace loquent::LOQUENT_ISA {

template <class T>
inline T read_as(const void* from) {
    T value;
    std::memcpy(&value, from, sizeof value);
    return value;
}

inline Ints splat_bits(const uint8_t* from) { return read_as<int32_t>(from) - Ints{}; }

struct Float32Dot {
    static constexpr int kInputs = 1, kBytes = 4;
    using Sum = Vec;
    using Weights = Vec;
    using Input = Vec;
    static Weights weights(const uint8_t* from) { return read_as<Vec>(from); }
    static Input input(const uint8_t* from) { return splat(read_as<float>(from)); }
    static Sum add(Sum sum, Weights w, Input x) { return fma(w, x, sum); }
};

/// float16 weights become float32, which is exact, and are multiplied with float32 inputs.
struct Float16Dot : Float32Dot {
    static constexpr int kBytes = 2;
    static Weights weights(const uint8_t* from) { return load_f16((const uint16_t*)from); }
};

/// Pairs of inputs. With instructions for bfloat16 the processor decides how a pair is added up (both products are
/// added to the sum with one rounding each or together); elsewhere the even input comes first, then the odd one.
struct BFloat16Dot {
    static constexpr int kInputs = 2, kBytes = 4;
    using Sum = Vec;
#if defined(__AVX512BF16__)
    using Weights = Ints;
    using Input = Ints;
    static Weights weights(const uint8_t* from) { return read_as<Ints>(from); }
    static Input input(const uint8_t* from) { return splat_bits(from); }
    static Sum add(Sum sum, Weights w, Input x) {
        return (Vec)_mm512_dpbf16_ps((__m512)sum, (__m512bh)(__m512i)x, (__m512bh)(__m512i)w);
    }
#else
    struct Pair { Vec even, odd; };
    using Weights = Pair;
    using Input = Pair;
    static Pair split(Ints pair) { return {(Vec)(pair << 16), (Vec)(pair & (int32_t)0xffff0000)}; }
    static Weights weights(const uint8_t* from) { return split(read_as<Ints>(from)); }
    static Input input(const uint8_t* from) { return split(splat_bits(from)); }
    static Sum add(Sum sum, Weights w, Input x) { return fma(w.odd, x.odd, fma(w.even, x.even, sum)); }
#endif
};

/// Four inputs a step, exact. Inputs are prepared with 128 added where `kOffset` is 128: the processor multiplies
/// unsigned with signed bytes, and a matrix keeps what that adds to a row's sum.
struct Int8Dot {
    static constexpr int kInputs = 4, kBytes = 4;
    using Sum = Ints;
#if defined(__AVX512VNNI__)
    static constexpr int kOffset = 128;
    using Weights = Ints;
    using Input = Ints;
    static Weights weights(const uint8_t* from) { return read_as<Ints>(from); }
    static Input input(const uint8_t* from) { return splat_bits(from); }
    static Sum add(Sum sum, Weights w, Input x) {
        return (Ints)_mm512_dpbusd_epi32((__m512i)sum, (__m512i)x, (__m512i)w);
    }
#elif defined(__AVX2__)
    // |w| times x with the sign of w: pairs stay below 2^15, as neither is ever -128.
    static constexpr int kOffset = 0;
    struct Weights { __m256i size, sign; };
    using Input = __m256i;
    static Weights weights(const uint8_t* from) {
        const __m256i w = read_as<__m256i>(from);
        return {_mm256_abs_epi8(w), w};
    }
    static Input input(const uint8_t* from) { return (__m256i)splat_bits(from); }
    static Sum add(Sum sum, Weights w, Input x) {
        const __m256i pairs = _mm256_maddubs_epi16(w.size, _mm256_sign_epi8(x, w.sign));
        return sum + (Ints)_mm256_madd_epi16(pairs, _mm256_set1_epi16(1));
    }
#elif defined(__ARM_FEATURE_DOTPROD)
    static constexpr int kOffset = 0;
    using Weights = int8x16_t;
    using Input = int8x16_t;
    static Weights weights(const uint8_t* from) { return read_as<int8x16_t>(from); }
    static Input input(const uint8_t* from) { return (int8x16_t)splat_bits(from); }
    static Sum add(Sum sum, Weights w, Input x) { return (Ints)vdotq_s32((int32x4_t)sum, w, x); }
#else
    static constexpr int kOffset = 0;
    using Shorts = int16_t __attribute__((vector_size(kLanes * 4)));
    struct Halves { Shorts even, odd; };  // bytes 0 and 2 of each lane, and bytes 1 and 3
    using Weights = Halves;
    using Input = Halves;
    static Halves split(Ints bytes) { return {(Shorts)bytes << 8 >> 8, (Shorts)bytes >> 8}; }
    static Weights weights(const uint8_t* from) { return split(read_as<Ints>(from)); }
    static Input input(const uint8_t* from) { return split(splat_bits(from)); }
    static Ints pairs(Shorts a, Shorts b) {
#if defined(__SSE2__)
        return (Ints)_mm_madd_epi16((__m128i)a, (__m128i)b);
#else
        const Ints x = (Ints)a, y = (Ints)b;
        return (x << 16 >> 16) * (y << 16 >> 16) + (x >> 16) * (y >> 16);
#endif
    }
    static Sum add(Sum sum, Weights w, Input x) { return sum + pairs(w.even, x.even) + pairs(w.odd, x.odd); }
#endif
};

/// Four inputs of a group of int4 a step: weights 0 to 15, inputs signed; the sum of one group only.
struct Int4Dot {
    using Weights = Ints;
#if defined(__AVX512VNNI__)
    using Sum = Ints;
    using Input = Ints;
    static Input input(const uint8_t* from) { return splat_bits(from); }
    static Sum add(Sum sum, Weights w, Input x) {
        return (Ints)_mm512_dpbusd_epi32((__m512i)sum, (__m512i)w, (__m512i)x);
    }
    static Vec total(Sum sum) { return to_float(sum); }
#elif defined(__AVX2__)
    // Eight pairs of at most 2 * 15 * 127 fit into 16 bits.
    using Sum = __m256i;
    using Input = Ints;
    static Input input(const uint8_t* from) { return splat_bits(from); }
    static Sum add(Sum sum, Weights w, Input x) {
        return _mm256_add_epi16(sum, _mm256_maddubs_epi16((__m256i)w, (__m256i)x));
    }
    static Vec total(Sum sum) { return to_float((Ints)_mm256_madd_epi16(sum, _mm256_set1_epi16(1))); }
#else
    using Sum = Ints;
    using Input = Int8Dot::Input;
    static Input input(const uint8_t* from) { return Int8Dot::input(from); }
    static Sum add(Sum sum, Weights w, Input x) {
        return Int8Dot::add(sum, Int8Dot::weights((const uint8_t*)&w), x);
    }
    static Vec total(Sum sum) { return to_float(sum); }
#endif
};

}  // namespace loquent::LOQUENT_ISA
