// bfloat16 and float16 as bits, to float32 and back; for loading and packing, not for the products' inner loops.
#pragma once

#include <cstdint>
#include <cstring>

#include "matrix.hpp"

namespace loquent {

// Static: this is included by files that are compiled for several instruction sets, and the linker must not mix them.
static inline uint32_t bits_of(float x) {
    uint32_t bits;
    std::memcpy(&bits, &x, sizeof bits);
    return bits;
}

static inline float float_of_bits(uint32_t bits) {
    float x;
    std::memcpy(&x, &bits, sizeof x);
    return x;
}

static inline float float_of_bf16(uint16_t bits) { return float_of_bits((uint32_t)bits << 16); }

/// To the nearest, of equal ones to the even one; what is no number stays so.
static inline uint16_t bf16_of(float x) {
    const uint32_t bits = bits_of(x);
    const uint32_t rounded = bits + 0x7fff + (bits >> 16 & 1);
    return (uint16_t)((bits & 0x7fffffff) > 0x7f800000 ? (bits | 0x400000) >> 16 : rounded >> 16);
}

static inline float float_of_f16(uint16_t half) {
    const uint32_t sign = (uint32_t)(half & 0x8000) << 16, magnitude = (uint32_t)(half & 0x7fff) << 13;
    // The exponent's bias differs by 112: exact in float32, subnormal numbers too.
    const float scaled = float_of_bits(magnitude) * 0x1p112f;
    const uint32_t infinite = magnitude >= 0x0f800000 ? 0x7f800000 : 0;
    return float_of_bits(bits_of(scaled) | infinite | sign);
}

/// To the nearest, of equal ones to the even one; too large gives infinity.
static inline uint16_t f16_of(float x) {
    const uint32_t bits = bits_of(x), sign = bits >> 16 & 0x8000, magnitude = bits & 0x7fffffff;
    if (magnitude > 0x7f800000) return (uint16_t)(sign | 0x7e00);
    if (magnitude >= 0x477ff000) return (uint16_t)(sign | 0x7c00);
    if (magnitude < 0x38800000)  // subnormal: adding 0.5 leaves units of 2^-24 in the last places
        return (uint16_t)(sign | (bits_of(float_of_bits(magnitude) + 0.5f) - 0x3f000000));
    return (uint16_t)(sign | (magnitude - 0x38000000 + 0xfff + (magnitude >> 13 & 1)) >> 13);
}

/// Bytes of one number of float32, bfloat16 or float16.
static inline int64_t element_bytes(Kind kind) { return kind == Kind::float32 ? 4 : 2; }

/// Number `index` of an array that may lie anywhere, as checkpoints' do.
template <class T>
static inline T number_at(const void* numbers, int64_t index) {
    T value;
    std::memcpy(&value, static_cast<const uint8_t*>(numbers) + index * (int64_t)sizeof(T), sizeof value);
    return value;
}

/// `count` numbers, `stride` elements apart, as floats.
static inline void read_numbers(Kind kind, const void* from, int64_t stride, int64_t count, float* out) {
    if (kind == Kind::float32)
        for (int64_t i = 0; i < count; ++i) out[i] = number_at<float>(from, i * stride);
    else if (kind == Kind::bfloat16)
        for (int64_t i = 0; i < count; ++i) out[i] = float_of_bf16(number_at<uint16_t>(from, i * stride));
    else
        for (int64_t i = 0; i < count; ++i) out[i] = float_of_f16(number_at<uint16_t>(from, i * stride));
}

}  // namespace loquent
