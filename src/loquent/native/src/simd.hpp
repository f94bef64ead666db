// One vector of floats, as wide as the registers of the instruction set that this file is compiled for; no kernels.
//
// Everything here is in a namespace of the instruction set, so that the same sources can be compiled once for each.
// Sums have one order whatever surrounds them: multiplications and additions are fused by name and never by the
// compiler (-ffp-contract=off), which is what makes a row's result independent of how many rows there are.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#if defined(__AVX2__)
#include <immintrin.h>
#elif defined(__ARM_NEON)
#include <arm_neon.h>
#endif

#ifndef LOQUENT_ISA
#error "compile kernels with -DLOQUENT_ISA=<name of the instruction set>"
#endif

namespace loquent::LOQUENT_ISA {

#if defined(__AVX512F__)
constexpr int kLanes = 16;
#elif defined(__AVX2__)
constexpr int kLanes = 8;
#else
constexpr int kLanes = 4;
#endif

using Vec = float __attribute__((vector_size(kLanes * 4)));
using Ints = int32_t __attribute__((vector_size(kLanes * 4)));

inline Vec load(const float* from) {
    Vec v;
    std::memcpy(&v, from, sizeof v);
    return v;
}

inline Ints load(const int32_t* from) {
    Ints v;
    std::memcpy(&v, from, sizeof v);
    return v;
}

inline void store(float* to, Vec v) { std::memcpy(to, &v, sizeof v); }

inline Vec splat(float x) { return x - Vec{}; }

/// a * b + c, rounded once where the processor can.
inline Vec fma(Vec a, Vec b, Vec c) {
#if defined(__AVX512F__)
    return (Vec)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
#elif defined(__AVX2__)
    return (Vec)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
#elif defined(__ARM_NEON)
    return (Vec)vfmaq_f32((float32x4_t)c, (float32x4_t)a, (float32x4_t)b);
#else
    return a * b + c;
#endif
}

inline Vec to_float(Ints v) { return __builtin_convertvector(v, Vec); }
inline Ints to_int(Vec v) { return __builtin_convertvector(v, Ints); }  // towards zero

inline Vec max(Vec a, Vec b) { return a > b ? a : b; }
inline Vec min(Vec a, Vec b) { return a < b ? a : b; }
inline Vec abs(Vec a) { return (Vec)((Ints)a & 0x7fffffff); }

/// The sum of the lanes, halves added to halves.
inline float sum(Vec v) {
    float lanes[kLanes];
    store(lanes, v);
    for (int half = kLanes / 2; half; half /= 2)
        for (int i = 0; i < half; ++i) lanes[i] += lanes[i + half];
    return lanes[0];
}

inline float highest(Vec v) {
    float lanes[kLanes];
    store(lanes, v);
    for (int half = kLanes / 2; half; half /= 2)
        for (int i = 0; i < half; ++i) lanes[i] = lanes[i] > lanes[i + half] ? lanes[i] : lanes[i + half];
    return lanes[0];
}

/// `count` (0 to kLanes) numbers, the other lanes `rest`.
inline Vec load_some(const float* from, int count, float rest = 0.0f) {
    float lanes[kLanes];
    for (int i = 0; i < kLanes; ++i) lanes[i] = i < count ? from[i] : rest;
    return load(lanes);
}

inline void store_some(float* to, Vec v, int count) {
    float lanes[kLanes];
    store(lanes, v);
    std::memcpy(to, lanes, sizeof(float) * count);
}

/// kLanes bfloat16 numbers as floats, which is exact.
inline Vec load_bf16(const uint16_t* from) {
#if defined(__AVX512F__)
    return (Vec)_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i*)from)), 16);
#elif defined(__AVX2__)
    return (Vec)_mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i*)from)), 16);
#else
    Ints bits;
    for (int i = 0; i < kLanes; ++i) bits[i] = (int32_t)((uint32_t)from[i] << 16);
    return (Vec)bits;
#endif
}

/// e^x to a relative error of 2e-7 (two units in the last place); 0 below -87.34, and clipped above 88.37.
inline Vec exp(Vec x) {
    const Vec low = splat(-87.33654f), high = splat(88.37f);
    const Ints underflow = x < low;
    x = min(max(x, low), high);
    // x = n ln 2 + r with |r| <= ln 2 / 2; adding 1.5 * 2^23 rounds to the nearest integer.
    const Vec shift = splat(12582912.0f);
    const Vec shifted = fma(x, splat(1.44269504f), shift);
    const Vec n = shifted - shift;
    Vec r = fma(n, splat(-0.693359375f), x);
    r = fma(n, splat(2.12194440e-4f), r);
    Vec p = splat(1.9875691500e-4f);
    p = fma(p, r, splat(1.3981999507e-3f));
    p = fma(p, r, splat(8.3334519073e-3f));
    p = fma(p, r, splat(4.1665795894e-2f));
    p = fma(p, r, splat(1.6666665459e-1f));
    p = fma(p, r, splat(5.0000001201e-1f));
    p = fma(p, r * r, r + 1.0f);
    const Ints scale = (to_int(n) + 127) << 23;
    return (Vec)((Ints)(p * (Vec)scale) & ~underflow);
}

}  // namespace loquent::LOQUENT_ISA
