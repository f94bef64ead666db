// The two vector operations of single-neuron experts: a product of two rows, and adding a multiple of one to another.
#include "simd.hpp"

namespace loquent::LOQUENT_ISA {

float dot(const float* a, const float* b, int64_t count) {
    Vec sums[4] = {};
    int64_t i = 0;
    for (; i + 4 * kLanes <= count; i += 4 * kLanes)
        for (int part = 0; part < 4; ++part)
            sums[part] = fma(load(a + i + part * kLanes), load(b + i + part * kLanes), sums[part]);
    for (; i + kLanes <= count; i += kLanes) sums[0] = fma(load(a + i), load(b + i), sums[0]);
    const int rest = (int)(count - i);
    if (rest) sums[1] = fma(load_some(a + i, rest), load_some(b + i, rest), sums[1]);
    return sum((sums[0] + sums[1]) + (sums[2] + sums[3]));
}

void add_scaled(float factor, const float* x, int64_t count, float* out) {
    const Vec factors = splat(factor);
    int64_t i = 0;
    for (; i + kLanes <= count; i += kLanes) store(out + i, fma(factors, load(x + i), load(out + i)));
    const int rest = (int)(count - i);
    if (rest) store_some(out + i, fma(factors, load_some(x + i, rest), load_some(out + i, rest)), rest);
}

}  // namespace loquent::LOQUENT_ISA
