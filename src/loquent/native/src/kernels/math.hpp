// Transcendental functions of vectors, made of `exp`; what is no number stays none, infinities give the limits.
#pragma once

#include "simd.hpp"

namespace loquent::LOQUENT_ISA {

/// 1 / (1 + e^-x), to a relative error of 3e-7.
inline Vec sigmoid(Vec x) { return 1.0f / (exp(-x) + 1.0f); }

/// The normal distribution function, to a relative error of 3e-7 above -2, growing to 2e-6 at -10 (from rounding x^2).
inline Vec normal_cdf(Vec x) {
    const Vec z = abs(x);
    const Vec t = 1.0f / fma(splat(0.35f), z, splat(1.0f));
    // cdf(-z) e^(z^2 / 2) / t is smooth in t: the polynomial of least relative error (3.2e-8) from z = 0 to 14.5.
    Vec p = splat(-0.0291578857f);
    p = fma(p, t, splat(0.144030919f));
    p = fma(p, t, splat(-0.255839003f));
    p = fma(p, t, splat(0.159319694f));
    p = fma(p, t, splat(-0.0232123521f));
    p = fma(p, t, splat(0.105552501f));
    p = fma(p, t, splat(0.119821288f));
    p = fma(p, t, splat(0.139863515f));
    p = fma(p, t, splat(0.139621307f));
    const Vec below = p * t * exp(z * z * -0.5f);
    return x > 0.0f ? 1.0f - below : below;
}

/// To a relative error of 3e-7, near 0 too.
inline Vec tanh(Vec x) {
    const Vec z = abs(x), e = exp(z * -2.0f), far = (1.0f - e) / (e + 1.0f);
    const Vec square = x * x;  // tanh(x) / x from 0 to 0.55, to a relative error of 3.7e-8
    Vec p = splat(0.0164375739f);
    p = fma(p, square, splat(-0.0526718092f));
    p = fma(p, square, splat(0.13320725f));
    p = fma(p, square, splat(-0.333329466f));
    const Vec near = fma(x * square, p, x);
    return z < 0.55f ? near : (Vec)((Ints)far | ((Ints)x & (int32_t)0x80000000));
}

/// e^x for x <= 0, to a relative error of 4e-15; 0 below -708.
inline Wide exp(Wide x) {
    const Longs underflow = x < -708.0;
    x = x < -708.0 ? x - x : x;
    const Wide shift = Wide{} + 6755399441055744.0;  // 1.5 * 2^52: adding it rounds to the nearest integer
    const Wide shifted = fma(x, Wide{} + 1.4426950408889634, shift), n = shifted - shift;
    Wide r = fma(n, Wide{} - 0.693147180369123816490, x);
    r = fma(n, Wide{} - 1.90821492927058770002e-10, r);
    Wide p = Wide{} + 1.0 / 39916800;  // Taylor's series to the 11th power; |r| <= 0.347 leaves 7e-15
    p = fma(p, r, Wide{} + 1.0 / 3628800);
    p = fma(p, r, Wide{} + 1.0 / 362880);
    p = fma(p, r, Wide{} + 1.0 / 40320);
    p = fma(p, r, Wide{} + 1.0 / 5040);
    p = fma(p, r, Wide{} + 1.0 / 720);
    p = fma(p, r, Wide{} + 1.0 / 120);
    p = fma(p, r, Wide{} + 1.0 / 24);
    p = fma(p, r, Wide{} + 1.0 / 6);
    p = fma(p, r, Wide{} + 0.5);
    p = fma(p, r, Wide{} + 1.0);
    p = fma(p, r, Wide{} + 1.0);
    // The low bits of `shifted` are n as an integer.
    const Longs scale = ((Longs)shifted + 1023) << 52;
    return (Wide)((Longs)(p * (Wide)scale) & ~underflow);
}

}  // namespace loquent::LOQUENT_ISA
