// The inner loops of attention: scores of a few queries and keys, weights from scores, and weighted sums of values.
//
// A score is one chain over the head's dimensions, a weighted sum one chain over positions, both ascending: which
// queries and positions share a tile changes nothing.
#pragma once

#include "kernels/attention_tasks.hpp"
#include "kernels/codes.hpp"
#include "simd.hpp"

namespace loquent::LOQUENT_ISA {

constexpr int kSlots = 16;                     // positions whose keys lie side by side, whatever the page size
constexpr int kGroups = kBlock / kSlots;       // of a block
constexpr int kVectors = kSlots / kLanes;      // of a group
#if defined(__AVX512F__) || defined(__ARM_NEON)
constexpr int kSums = 16;                      // accumulators that fit beside what is loaded
#else
constexpr int kSums = 8;
#endif
constexpr int kTileRows = kSums / kVectors < 4 ? kSums / kVectors : 4;   // query rows of a tile, at most

/// 4, 2 or 1: how many of something that takes `each` accumulators a tile has.
constexpr int fitting(int each) { return each * 4 <= kSums ? 4 : each * 2 <= kSums ? 2 : 1; }

inline Vec widen(const float* from) { return load(from); }

inline Vec widen(const uint16_t* from) { return load_bf16(from); }

inline Vec widen(const int8_t* from) {
#if defined(__AVX512F__)
    return (Vec)_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i*)from)));
#elif defined(__AVX2__)
    return (Vec)_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i*)from)));
#else
    Ints numbers;
    for (int i = 0; i < kLanes; ++i) numbers[i] = from[i];
    return to_float(numbers);
#endif
}

/// How many numbers an element of a plane is.
template <class Element>
constexpr int64_t kNumbers = 1;
template <int Bits>
constexpr int64_t kNumbers<Unit<Bits>> = 16;

/// Vector `index` of a row of numbers that begins with a whole element.
template <class Element>
inline Vec vector_at(const Element* row, int index) {
    return widen(row + index * kLanes);
}

template <int Bits>
inline Vec vector_at(const Unit<Bits>* row, int index) {
    return decode(row[index / kVectors], index % kVectors);
}

/// Where the keys and values of a block's groups of 16 positions are. Of groups that nobody sees the pointers are
/// those of one that somebody does. Strides are in elements.
template <class Element>
struct Block {
    const Element* keys[kGroups];       // [head_dim][key_stride]
    const Element* values[kGroups];     // [16][value_stride]
    const float* key_scales[kGroups];   // of int8 only
    const float* value_scales[kGroups];
    const float* mask[kGroups];         // dynamic mask only
    int64_t key_stride, value_stride;
};

/// Ask for memory that is read soon: where a few queries read all keys and values once, waiting for it is most of the
/// time, and the processor does not guess where the next page is. Into the second cache: there are too few places where
/// the first one keeps what it waits for.
inline void fetch(const void* memory) { __builtin_prefetch(memory, 0, 2); }

/// scores[r][g * 16 + slot] = queries[.][r] . keys of `Groups` groups; queries are (dims, Rows), scores kBlock apart.
/// `next` (or null) are the groups that are read next.
template <int Rows, int Groups, class Element>
inline void score_groups(const float* queries, const Element* const* groups, int64_t stride, int64_t dims,
                         float* scores, const Element* const* next) {
    Vec sums[Rows][Groups * kVectors];
#pragma GCC unroll 16
    for (int r = 0; r < Rows; ++r)
#pragma GCC unroll 16
        for (int v = 0; v < Groups * kVectors; ++v) sums[r][v] = Vec{};
    const Element* keys[Groups];
#pragma GCC unroll 16
    for (int g = 0; g < Groups; ++g) keys[g] = groups[g];
    for (int64_t d = 0; d < dims; ++d) {
        if (next)
#pragma GCC unroll 16
            for (int g = 0; g < Groups; ++g) fetch(next[g] + d * stride);
        Vec query[Rows];
#pragma GCC unroll 16
        for (int r = 0; r < Rows; ++r) query[r] = splat(queries[d * Rows + r]);
#pragma GCC unroll 16
        for (int g = 0; g < Groups; ++g)
#pragma GCC unroll 16
            for (int v = 0; v < kVectors; ++v) {
                const Vec key = vector_at(keys[g] + d * stride, v);
#pragma GCC unroll 16
                for (int r = 0; r < Rows; ++r)
                    sums[r][g * kVectors + v] = fma(query[r], key, sums[r][g * kVectors + v]);
            }
    }
#pragma GCC unroll 16
    for (int r = 0; r < Rows; ++r)
#pragma GCC unroll 16
        for (int v = 0; v < Groups * kVectors; ++v) store(scores + r * kBlock + v * kLanes, sums[r][v]);
}

/// The scores of groups [first, last) of a block; others may be written too.
template <int Rows, class Element>
inline void score(const float* queries, const Block<Element>& block, int first, int last, int64_t dims, float* scores,
                  const Block<Element>* next) {
    constexpr int most = fitting(Rows * kVectors), half = most > 1 ? most / 2 : 1;
    for (int g = first / half * half; g < last;) {
        const bool whole = g % most == 0 && last - g > half;
        const Element* const* ahead = next ? next->keys + g : nullptr;
        if (whole)
            score_groups<Rows, most>(queries, block.keys + g, block.key_stride, dims, scores + g * kSlots, ahead);
        else
            score_groups<Rows, half>(queries, block.keys + g, block.key_stride, dims, scores + g * kSlots, ahead);
        g += whole ? most : half;
    }
}

/// sums[r][0...Vectors] += weights[r][slot] * values[slot] for slots [low, high) of a block.
template <int Rows, int Vectors, class Element>
inline void add_vectors(const float* weights, const Block<Element>& block, int64_t column, int low, int high,
                        float* sums, int64_t stride, const Block<Element>* next) {
    Vec kept[Rows][Vectors];
#pragma GCC unroll 16
    for (int r = 0; r < Rows; ++r)
#pragma GCC unroll 16
        for (int v = 0; v < Vectors; ++v) kept[r][v] = load(sums + r * stride + v * kLanes);
    for (int g = low / kSlots; g * kSlots < high; ++g) {
        const int begin = g * kSlots < low ? low : g * kSlots, end = (g + 1) * kSlots < high ? (g + 1) * kSlots : high;
        const int64_t offset = (begin - g * kSlots) * block.value_stride + column / kNumbers<Element>;
        const Element *values = block.values[g] + offset, *ahead = next ? next->values[g] + offset : nullptr;
        for (int slot = begin; slot < end; ++slot, values += block.value_stride) {
            if (ahead) {
#pragma GCC unroll 16
                for (int v = 0; v < Vectors; ++v) fetch(ahead + v * kLanes);
                ahead += block.value_stride;
            }
            Vec value[Vectors];
#pragma GCC unroll 16
            for (int v = 0; v < Vectors; ++v) value[v] = vector_at(values, v);
#pragma GCC unroll 16
            for (int r = 0; r < Rows; ++r) {
                const Vec weight = splat(weights[r * kBlock + slot]);
#pragma GCC unroll 16
                for (int v = 0; v < Vectors; ++v) kept[r][v] = fma(weight, value[v], kept[r][v]);
            }
        }
    }
#pragma GCC unroll 16
    for (int r = 0; r < Rows; ++r)
#pragma GCC unroll 16
        for (int v = 0; v < Vectors; ++v) store(sums + r * stride + v * kLanes, kept[r][v]);
}

/// The same for dimensions [column, end), whole elements of them.
template <int Rows, class Element>
inline void add_values(const float* weights, const Block<Element>& block, int low, int high, float* sums,
                       int64_t stride, int64_t column, int64_t end, const Block<Element>* next) {
    constexpr int most = fitting(Rows), least = kNumbers<Element> > kLanes ? kVectors : 1;
    static_assert(most >= least, "a tile has whole elements");
    for (; column + most * kLanes <= end; column += most * kLanes)
        add_vectors<Rows, most>(weights, block, column, low, high, sums + column, stride, next);
    if constexpr (most > 2 && least <= 2)
        for (; column + 2 * kLanes <= end; column += 2 * kLanes)
            add_vectors<Rows, 2>(weights, block, column, low, high, sums + column, stride, next);
    if constexpr (least == 1)
        for (; column < end; column += kLanes)
            add_vectors<Rows, 1>(weights, block, column, low, high, sums + column, stride, next);
}

constexpr float kLowest = -1e30f;   // below all scores, and still finite: differences to it are numbers

/// The online softmax of one row over one chunk.
struct Running {
    float highest;      // of the scores so far
    Vec sum;            // of the weights so far, by position modulo kLanes
    float* read;        // (dims,) weighted sum of values, in terms of `highest`
    int64_t dims;

    void start(float* memory, int64_t count) {
        highest = kLowest, sum = Vec{}, read = memory, dims = count;
        for (int64_t i = 0; i < dims; ++i) read[i] = 0.0f;
    }

    void raise(float score) {
        const Vec factor = exp(splat(highest - score));
        highest = score, sum = sum * factor;
        for (int64_t i = 0; i < dims; i += kLanes) store(read + i, load(read + i) * factor);
    }
};

/// Which of the dynamic mask's values a query keeps: all bits of their lanes.
inline Ints kept_lanes(const Kept& kept, Vec values, Ints slots, int64_t base) {
    const Ints rounded = ((Ints)values + kRoundingHalf) & kRoundingMask;
    const int64_t distance = kept.oldest - base;
    const int32_t oldest = distance < 0 ? 0 : distance > kBlock ? kBlock : static_cast<int32_t>(distance);
    return (rounded > kept.threshold) | ((rounded == kept.threshold) & (slots >= oldest));
}

/// What a form of keys and values does to scores and weights of the vector at `lane` of a group: nothing.
struct Unscaled {
    Vec score(Vec x, int, int) const { return x; }
    Vec weight(Vec x, int, int) const { return x; }
};

/// int8: each slot's scales.
struct SlotScales {
    const float* const* keys;
    const float* const* values;

    Vec score(Vec x, int group, int lane) const { return x * load(keys[group] + lane); }
    Vec weight(Vec x, int group, int lane) const { return x * load(values[group] + lane); }
};

/// Turn one row's scores of slots [low, high) of the block at position `base` into weights, in place; `mask` are the
/// groups' values of the dynamic mask, or null.
template <class Form>
inline void soften(float* scores, const Form& form, const float* const* mask, int low, int high, int64_t base,
                   const Kept* kept, Running& running) {
    const int first = low / kLanes, last = (high + kLanes - 1) / kLanes;
    const Vec hidden = splat(-INFINITY);
    Vec x[kBlock / kLanes], top = hidden;
    for (int i = first; i < last; ++i) {
        const int group = i / kVectors, lane = i % kVectors * kLanes;
        const Ints slots = lane_numbers() + i * kLanes;
        Ints seen = (slots >= low) & (slots < high);
        x[i] = load(scores + i * kLanes);
        x[i] = form.score(x[i], group, lane);
        if (mask) {
            const Vec values = load(mask[group] + lane);
            x[i] = x[i] + values;
            if (kept) seen &= kept_lanes(*kept, values, slots, base);
        }
        x[i] = seen ? x[i] : hidden;
        top = max(x[i], top);
    }
    const float best = highest(top);
    if (best > running.highest) running.raise(best);
    for (int i = first; i < last; ++i) {
        const Vec weight = exp(x[i] - running.highest);
        running.sum = running.sum + weight;
        store(scores + i * kLanes, form.weight(weight, i / kVectors, i % kVectors * kLanes));
    }
}

}  // namespace loquent::LOQUENT_ISA
