// Which experts a row's router chooses, and what they add to it.
#include "experts.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "kernels.hpp"

namespace loquent {
namespace {

/// A score and where it stands as one number, smaller for higher scores and, of equal ones, for lower places: quick to
/// compare, and in some order even where scores are no numbers.
using Ranked = uint64_t;

Ranked rank(float score, int64_t place) {
    score += 0.0f;  // no zero below zero
    uint32_t bits;
    std::memcpy(&bits, &score, sizeof bits);
    const uint32_t descending = bits >> 31 ? bits : ~(bits | 0x80000000u);
    return (Ranked)descending << 32 | (uint32_t)place;
}

int64_t place_of(Ranked ranked) { return (uint32_t)ranked; }

/// Memory that a thread uses again for each row.
struct Scratch {
    std::vector<Ranked> axes[2], pairs;
    std::vector<int64_t> experts;
    std::vector<float> scores, weights, neurons, row;
};

/// The keys of one axis, the `count` best in order.
void rank_keys(const float* logits, int64_t keys, int64_t count, std::vector<Ranked>& ranked) {
    ranked.resize(keys);
    for (int64_t key = 0; key < keys; ++key) ranked[key] = rank(logits[key], key);
    if (count < keys) {
        std::nth_element(ranked.begin(), ranked.begin() + count, ranked.end());
        ranked.resize(count);
    }
    std::sort(ranked.begin(), ranked.end());
}

/// The chosen experts and the sums of their keys' logits, in `scratch.experts` and `scratch.scores`.
void choose_experts(const ExpertsPart& part, const float* router, Scratch& scratch) {
    const float* logits[2] = {router, router + part.keys};
    for (int axis = 0; axis < 2; ++axis) rank_keys(logits[axis], part.keys, part.chosen, scratch.axes[axis]);
    const std::vector<Ranked> &first = scratch.axes[0], &second = scratch.axes[1];
    const auto score = [&](int64_t i, int64_t j) {
        return logits[0][place_of(first[i])] + logits[1][place_of(second[j])];
    };
    const auto kept = (int64_t)first.size();
    std::vector<Ranked>& pairs = scratch.pairs;
    pairs.clear();
    // (i + 1) * (j + 1) pairs, itself included, are at least as good as the pair of the i-th and the j-th best keys.
    for (int64_t i = 0; i < kept; ++i)
        for (int64_t j = 0; j < kept && (i + 1) * (j + 1) <= part.chosen; ++j)
            pairs.push_back(rank(score(i, j), i * kept + j));
    std::nth_element(pairs.begin(), pairs.begin() + (part.chosen - 1), pairs.end());
    scratch.experts.resize(part.chosen);
    scratch.scores.resize(part.chosen);
    for (int64_t i = 0; i < part.chosen; ++i) {
        const int64_t a = place_of(pairs[i]) / kept, b = place_of(pairs[i]) % kept;
        scratch.scores[i] = score(a, b);
        scratch.experts[i] = place_of(first[a]) * part.keys + place_of(second[b]);
    }
}

/// The softmax of the chosen experts' scores.
void weigh(const ExpertsPart& part, Scratch& scratch) {
    std::vector<float>& weights = scratch.weights;
    weights.clear();
    const float highest = *std::max_element(scratch.scores.begin(), scratch.scores.end());
    float total = 0;
    for (const float score : scratch.scores) {
        weights.push_back(std::exp(score - highest));
        total += weights.back();
    }
    for (float& weight : weights) weight /= total;
    if (!part.normalized) return;
    total = 0;
    for (const float weight : weights) total += weight;
    for (float& weight : weights) weight /= total;
}

const float* read(const Matrix& matrix, int64_t row, Scratch& scratch) {
    if (matrix.kind == Kind::float32 && !matrix.packed)
        return reinterpret_cast<const float*>(matrix.data) + row * matrix.row_stride;
    scratch.row.resize(matrix.columns);
    read_row(matrix, row, scratch.row.data());
    return scratch.row.data();
}

void add_row(const ExpertsPart& part, const float* router, const float* x, float* out) {
    thread_local Scratch scratch;
    choose_experts(part, router, scratch);
    weigh(part, scratch);
    const int64_t width = part.down.columns, chosen = part.chosen;
    std::vector<float>& neurons = scratch.neurons;
    neurons.resize(chosen);
    for (int64_t i = 0; i < chosen; ++i)
        neurons[i] = kernels().dot(read(part.down, scratch.experts[i], scratch), x, width);
    activate(part.activation, part.slope, neurons.data(), chosen, neurons.data());
    for (int64_t i = 0; i < chosen; ++i)
        kernels().add_scaled(scratch.weights[i] * neurons[i], read(part.up, scratch.experts[i], scratch), width, out);
}

}  // namespace

void add_experts(Pool& pool, const ExpertsPart& part, int64_t rows, const float* router, int64_t router_stride,
                 const float* x, int64_t x_stride, float* out, int64_t out_stride) {
    pool.run(rows, [&](int64_t row) {
        add_row(part, router + row * router_stride, x + row * x_stride, out + row * out_stride);
    });
}

}  // namespace loquent
