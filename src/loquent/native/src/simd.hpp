// One vector of floats, as wide as the registers of the instruction set that this file is compiled for; no kernels.
//
// Everything here is in a namespace of the instruction set, so that the same sources can be compiled once for each.
// For that reason files in kernels/ had better use no templates of the standard library and no inline functions of
// other namespaces: the linker keeps one copy of those, and only the order of its inputs (CMakeLists.txt) says which.
// Sums have one order whatever surrounds them: multiplications and additions are fused by name and never by the
// compiler (-ffp-contract=off), which is what makes a row's result independent of how many rows there are.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#if defined(__AVX2__)
// GCC 12 takes the don't-care operands of its own functions for variables that somebody forgot to set.
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#include <immintrin.h>
#pragma GCC diagnostic pop
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
using Wide = double __attribute__((vector_size(kLanes * 4)));   // half as many lanes
using Longs = int64_t __attribute__((vector_size(kLanes * 4)));

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
inline void store(int32_t* to, Ints v) { std::memcpy(to, &v, sizeof v); }
inline void store(double* to, Wide v) { std::memcpy(to, &v, sizeof v); }

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

/// The larger (smaller) of two numbers, and `b` where either is no number.
inline Vec max(Vec a, Vec b) {
#if defined(__AVX512F__)
    return (Vec)_mm512_max_ps((__m512)a, (__m512)b);
#elif defined(__AVX2__)
    return (Vec)_mm256_max_ps((__m256)a, (__m256)b);
#else
    return a > b ? a : b;
#endif
}

inline Vec min(Vec a, Vec b) {
#if defined(__AVX512F__)
    return (Vec)_mm512_min_ps((__m512)a, (__m512)b);
#elif defined(__AVX2__)
    return (Vec)_mm256_min_ps((__m256)a, (__m256)b);
#else
    return a < b ? a : b;
#endif
}

inline Vec abs(Vec a) { return (Vec)((Ints)a & 0x7fffffff); }

/// The sum of the lanes, halves added to halves.
inline float sum(Vec v) {
#if defined(__AVX512F__)
    const __m512 a = (__m512)v;
    const __m256 b = _mm256_add_ps(_mm512_castps512_ps256(a), _mm512_extractf32x8_ps(a, 1));
#elif defined(__AVX2__)
    const __m256 b = (__m256)v;
#endif
#if defined(__AVX2__)
    const __m128 c = _mm_add_ps(_mm256_castps256_ps128(b), _mm256_extractf128_ps(b, 1));
    const __m128 d = _mm_add_ps(c, _mm_movehl_ps(c, c));
    return _mm_cvtss_f32(_mm_add_ss(d, _mm_movehdup_ps(d)));
#else
    return (v[0] + v[2]) + (v[1] + v[3]);
#endif
}

/// The largest lane; where one is no number, any of them.
inline float highest(Vec v) {
#if defined(__AVX512F__)
    const __m512 a = (__m512)v;
    const __m256 b = _mm256_max_ps(_mm512_castps512_ps256(a), _mm512_extractf32x8_ps(a, 1));
#elif defined(__AVX2__)
    const __m256 b = (__m256)v;
#endif
#if defined(__AVX2__)
    const __m128 c = _mm_max_ps(_mm256_castps256_ps128(b), _mm256_extractf128_ps(b, 1));
    const __m128 d = _mm_max_ps(c, _mm_movehl_ps(c, c));
    return _mm_cvtss_f32(_mm_max_ss(d, _mm_movehdup_ps(d)));
#else
    const float a = v[0] > v[2] ? v[0] : v[2], b = v[1] > v[3] ? v[1] : v[3];
    return a > b ? a : b;
#endif
}

inline double sum(Wide v) {
    double total = 0;
    for (int i = 0; i < kLanes / 2; ++i) total += v[i];
    return total;
}

/// One bit for each lane of a comparison's result.
inline uint32_t bits(Ints mask) {
#if defined(__AVX512F__)
    return _mm512_movepi32_mask((__m512i)mask);
#elif defined(__AVX2__)
    return (uint32_t)_mm256_movemask_ps((__m256)mask);
#else
    uint32_t found = 0;
    for (int i = 0; i < kLanes; ++i) found |= (uint32_t)(mask[i] & 1) << i;
    return found;
#endif
}

/// `count` (0 to kLanes) numbers, the other lanes `rest`.
inline Vec load_some(const float* from, int count, float rest = 0.0f) {
#if defined(__AVX512F__)
    return (Vec)_mm512_mask_loadu_ps((__m512)splat(rest), (__mmask16)((1u << count) - 1), from);
#else
    float lanes[kLanes];
    for (int i = 0; i < kLanes; ++i) lanes[i] = i < count ? from[i] : rest;
    return load(lanes);
#endif
}

inline void store_some(float* to, Vec v, int count) {
#if defined(__AVX512F__)
    _mm512_mask_storeu_ps(to, (__mmask16)((1u << count) - 1), (__m512)v);
#else
    float lanes[kLanes];
    store(lanes, v);
    std::memcpy(to, lanes, sizeof(float) * count);
#endif
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

/// kLanes float16 numbers as floats, which is exact.
inline Vec load_f16(const uint16_t* from) {
#if defined(__AVX512F__)
    return (Vec)_mm512_cvtph_ps(_mm256_loadu_si256((const __m256i*)from));
#elif defined(__AVX2__)
    return (Vec)_mm256_cvtph_ps(_mm_loadu_si128((const __m128i*)from));
#elif defined(__ARM_NEON)
    return (Vec)vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(from)));
#else
    using Halves = uint16_t __attribute__((vector_size(kLanes * 2)));
    Halves halves;
    std::memcpy(&halves, from, sizeof halves);
    const Ints half = __builtin_convertvector(halves, Ints);
    const Ints magnitude = (half & 0x7fff) << 13, infinite = (magnitude >= 0x0f800000) & 0x7f800000;
    return (Vec)((Ints)((Vec)magnitude * 0x1p112f) | infinite | (half & 0x8000) << 16);
#endif
}

/// 0, 1, 2, ... in the lanes.
inline Ints lane_numbers() {
    alignas(64) static const int32_t numbers[16] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    return load(numbers);
}

/// The lower and the upper half of the lanes, exactly.
inline Wide lower(Vec v) {
#if defined(__AVX512F__)
    return (Wide)_mm512_cvtps_pd(_mm512_castps512_ps256((__m512)v));
#elif defined(__AVX2__)
    return (Wide)_mm256_cvtps_pd(_mm256_castps256_ps128((__m256)v));
#else
    return Wide{v[0], v[1]};
#endif
}

inline Wide upper(Vec v) {
#if defined(__AVX512F__)
    return (Wide)_mm512_cvtps_pd(_mm512_extractf32x8_ps((__m512)v, 1));
#elif defined(__AVX2__)
    return (Wide)_mm256_cvtps_pd(_mm256_extractf128_ps((__m256)v, 1));
#else
    return Wide{v[2], v[3]};
#endif
}

inline Wide fma(Wide a, Wide b, Wide c) {
#if defined(__AVX512F__)
    return (Wide)_mm512_fmadd_pd((__m512d)a, (__m512d)b, (__m512d)c);
#elif defined(__AVX2__)
    return (Wide)_mm256_fmadd_pd((__m256d)a, (__m256d)b, (__m256d)c);
#elif defined(__ARM_NEON)
    return (Wide)vfmaq_f64((float64x2_t)c, (float64x2_t)a, (float64x2_t)b);
#else
    return a * b + c;
#endif
}

/// e^x to a relative error of 1.3e-7 (two units in the last place); 0 below -87.3365 (where results would lose bits),
/// infinite above 88.7228, and no number for none.
inline Vec exp(Vec x) {
    const Vec low = splat(-87.33654f), high = splat(89.0f);
    const Vec clipped = min(high, max(low, x));  // in this order, what is no number stays none
    // x = n ln 2 + r with |r| <= ln 2 / 2; adding 1.5 * 2^23 rounds to the nearest integer.
    const Vec shift = splat(12582912.0f);
    const Vec n = fma(clipped, splat(1.44269504f), shift) - shift;
    Vec r = fma(n, splat(-0.693359375f), clipped);
    r = fma(n, splat(2.12194440e-4f), r);
    Vec p = splat(1.9875691500e-4f);
    p = fma(p, r, splat(1.3981999507e-3f));
    p = fma(p, r, splat(8.3334519073e-3f));
    p = fma(p, r, splat(4.1665795894e-2f));
    p = fma(p, r, splat(1.6666665459e-1f));
    p = fma(p, r, splat(5.0000001201e-1f));
    p = fma(p, r * r, r + 1.0f);
#if defined(__AVX512F__)
    const __mmask16 stays = _mm512_cmp_ps_mask((__m512)x, (__m512)low, _CMP_NLT_UQ);
    return (Vec)_mm512_maskz_scalef_ps(stays, (__m512)p, (__m512)n);
#else
    // Two factors, as 2^128 is no float.
    const Ints whole = to_int(n), half = whole >> 1;
    p = p * (Vec)((half + 127) << 23) * (Vec)((whole - half + 127) << 23);
    return (Vec)((Ints)p & ~(x < low));
#endif
}

}  // namespace loquent::LOQUENT_ISA
