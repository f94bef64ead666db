// Scans over a row of scores, in vectors; see scores.hpp.
#include "scores.hpp"

#include "math.hpp"

namespace loquent::LOQUENT_ISA {
namespace {

constexpr int kGroup = 16;                  // scores that share a largest one, a vector apart
constexpr int kChunk = kGroup * kLanes;

int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }

/// The vector at i of `count` values, those past the end minus infinity.
inline Vec load_within(const float* values, int64_t i, int64_t count) {
    return i + kLanes <= count ? load(values + i) : load_some(values + i, (int)(count - i), -INFINITY);
}

inline void store_within(float* values, int64_t i, int64_t count, Vec v) {
    if (i + kLanes <= count)
        store(values + i, v);
    else
        store_some(values + i, v, (int)(count - i));
}

template <bool divided>
Survey survey_as(float* row, int64_t count, float divisor, float* groups) {
    Vec top = splat(-INFINITY);
    Ints no_number{};
    int64_t found = 0;
    for (int64_t start = 0; start < count; start += kChunk, found += kLanes) {
        Vec group = splat(-INFINITY);
        const int64_t end = smaller(start + kChunk, count);
        for (int64_t i = start; i < end; i += kLanes) {
            Vec v = load_within(row, i, count);
            if (divided) store_within(row, i, count, v = v / divisor);
            no_number |= v != v;
            group = max(v, group);
        }
        store(groups + found, group);
        top = max(top, group);
    }
    return {bits(no_number) ? NAN : highest(top), found};
}

Survey survey(float* row, int64_t count, float divisor, float* groups) {
    return divisor == 1 ? survey_as<false>(row, count, divisor, groups) : survey_as<true>(row, count, divisor, groups);
}

int64_t first(const float* row, int64_t count, const float* groups, float value) {
    for (int64_t start = 0; start < count; start += kChunk, groups += kLanes) {
        if (!bits(load(groups) == value)) continue;
        for (int64_t i = start; i < count; ++i)
            if (row[i] == value) return i;
    }
    return 0;
}

template <bool weighted>
Above above(const float* values, int64_t count, float bound, float highest_value) {
    const Vec limit = splat(bound), none = splat(-INFINITY);
    Ints counts{};
    Vec lowest = splat(INFINITY), next = none;
    Wide first_half{}, second_half{};
    for (int64_t start = 0; start < count; start += kChunk) {
        const int64_t end = smaller(start + kChunk, count);
        Vec mass{};
        for (int64_t i = start; i < end; i += kLanes) {
            const Vec v = load_within(values, i, count);
            const Ints over = v > limit;
            counts -= over;
            lowest = min(lowest, over ? v : -none);
            next = max(next, over ? none : v);
            if (weighted) mass += (Vec)((Ints)exp(v - highest_value) & over);
        }
        first_half += lower(mass);  // in float64, so that a vocabulary's many small terms do not round away
        second_half += upper(mass);
    }
    int64_t found = 0;
    for (int lane = 0; lane < kLanes; ++lane) found += counts[lane];
    return {found, weighted ? sum(first_half + second_half) : (double)found, -highest(-lowest), highest(next)};
}

/// The lanes of `v` and `places` that `chosen` has bits for, one after another; how many.
inline int append(Vec v, int64_t place, uint32_t chosen, float* out, int32_t* places) {
#if defined(__AVX512F__)
    // Compressed in a register: some processors take hundreds of cycles to compress into memory.
    const __mmask16 mask = (__mmask16)chosen;
    _mm512_storeu_ps(out, _mm512_maskz_compress_ps(mask, (__m512)v));
    if (places) {
        const __m512i lanes = _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
        const __m512i own = _mm512_add_epi32(lanes, _mm512_set1_epi32((int)place));
        _mm512_storeu_si512(places, _mm512_maskz_compress_epi32(mask, own));
    }
    return __builtin_popcount(chosen);
#else
    int found = 0;
    for (; chosen; chosen &= chosen - 1, ++found) {
        const int lane = __builtin_ctz(chosen);
        out[found] = v[lane];
        if (places) places[found] = (int32_t)(place + lane);
    }
    return found;
#endif
}

int64_t gather(const float* values, int64_t count, const float* groups, float low, float high, float* out,
               int32_t* places) {
    const Vec from = splat(low), to = splat(high);
    int64_t found = 0;
    for (int64_t start = 0, group = 0; start < count; start += kChunk, group += kLanes) {
        if (groups && !bits(load(groups + group) >= from)) continue;
        const int64_t end = smaller(start + kChunk, count);
        for (int64_t i = start; i < end; i += kLanes) {
            const Vec v = load_within(values, i, count);
            const uint32_t chosen = bits((v >= from) & (v <= to));
            if (chosen) found += append(v, i, chosen, out + found, places ? places + found : nullptr);
        }
    }
    return found;
}

/// e^(value - highest) of some values; `weights` may be null.
double weigh(const float* values, int64_t count, float highest_value, double* weights) {
    const Wide top = Wide{} + (double)highest_value;
    Wide first_half{}, second_half{};
    for (int64_t i = 0; i < count; i += kLanes) {
        const Vec v = load_within(values, i, count);
        const Wide a = exp(lower(v) - top), b = exp(upper(v) - top);
        first_half += a;
        second_half += b;
        if (weights) store(weights + i, a), store(weights + i + kLanes / 2, b);
    }
    return sum(first_half + second_half);
}

int64_t draw(const float* values, int64_t count, float highest_value, double uniform, double* sums) {
    const int64_t blocks = (count + kDrawBlock - 1) / kDrawBlock;
    const auto size = [=](int64_t block) { return smaller(kDrawBlock, count - block * kDrawBlock); };
    double total = 0;
    for (int64_t block = 0; block < blocks; ++block)
        total += sums[block] = weigh(values + block * kDrawBlock, size(block), highest_value, nullptr);
    const double target = uniform * total;
    double before = 0;
    int64_t block = 0;
    for (; block + 1 < blocks && before + sums[block] <= target; ++block) before += sums[block];

    double weights[kDrawBlock];
    weigh(values + block * kDrawBlock, size(block), highest_value, weights);
    int64_t last = 0;  // where rounding leaves the block's terms, one by one, below the target
    for (int64_t i = 0; i < size(block); ++i) {
        before += weights[i];
        if (weights[i] > 0) last = i;
        if (before > target) return block * kDrawBlock + i;
    }
    return block * kDrawBlock + last;
}

/// No number if one of the scores is none.
float highest_of(const float* row, int64_t count) {
    Vec top = splat(-INFINITY);
    Ints no_number{};
    for (int64_t i = 0; i < count; i += kLanes) {
        const Vec v = load_within(row, i, count);
        no_number |= v != v;
        top = max(v, top);
    }
    return bits(no_number) ? NAN : highest(top);
}

void log_softmax(float* row, int64_t count) {
    const float top = highest_of(row, count);
    const float log_sum = (float)std::log(above<true>(row, count, -INFINITY, top).measure);
    for (int64_t i = 0; i < count; i += kLanes)
        store_within(row, i, count, load_within(row, i, count) - top - log_sum);
}

}  // namespace

ScoreKernels score_kernels() { return {survey, first, above<false>, above<true>, gather, draw, weigh, log_softmax}; }

}  // namespace loquent::LOQUENT_ISA
