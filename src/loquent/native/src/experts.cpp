// Which experts a row's router chooses, and what they add to it.
#include "experts.hpp"

#include <algorithm>
#include <cmath>
#include <vector>

#include "kernels.hpp"

namespace loquent {
namespace {

struct Scored {
    float score;
    int64_t index;
};

bool is_better(const Scored& a, const Scored& b) { return a.score > b.score || (a.score == b.score && a.index < b.index); }

/// Memory that a thread uses again for each row.
struct Scratch {
    std::vector<Scored> axes[2], pairs;
    std::vector<float> weights, neurons, row;
};

/// Leave the best `count`, in order. Scores that are no numbers are put anywhere.
void keep_best(std::vector<Scored>& scored, int64_t count) {
    count = std::min(count, (int64_t)scored.size());
    std::partial_sort(scored.begin(), scored.begin() + count, scored.end(), is_better);
    scored.resize(count);
}

/// The chosen experts and the sums of their keys' logits, best first, in `scratch.pairs`.
void choose_experts(const ExpertsPart& part, const float* router, Scratch& scratch) {
    for (int64_t axis = 0; axis < 2; ++axis) {
        scratch.axes[axis].clear();
        for (int64_t key = 0; key < part.keys; ++key) scratch.axes[axis].push_back({router[axis * part.keys + key], key});
        keep_best(scratch.axes[axis], part.chosen);
    }
    const std::vector<Scored> &first = scratch.axes[0], &second = scratch.axes[1];
    const auto kept = (int64_t)first.size();
    scratch.pairs.clear();
    // (i + 1) * (j + 1) pairs, itself included, are at least as good as the pair of the i-th and the j-th best keys.
    for (int64_t i = 0; i < kept; ++i)
        for (int64_t j = 0; j < kept && (i + 1) * (j + 1) <= part.chosen; ++j)
            scratch.pairs.push_back({first[i].score + second[j].score, i * kept + j});
    keep_best(scratch.pairs, part.chosen);
    for (Scored& pair : scratch.pairs) pair.index = first[pair.index / kept].index * part.keys + second[pair.index % kept].index;
}

/// The softmax of the chosen experts' scores, the best of which comes first.
void weigh(const ExpertsPart& part, Scratch& scratch) {
    std::vector<float>& weights = scratch.weights;
    weights.clear();
    float total = 0;
    for (const Scored& pair : scratch.pairs) {
        weights.push_back(std::exp(pair.score - scratch.pairs[0].score));
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
    const int64_t width = part.down.columns, chosen = (int64_t)scratch.pairs.size();
    std::vector<float>& neurons = scratch.neurons;
    neurons.resize(chosen);
    for (int64_t i = 0; i < chosen; ++i)
        neurons[i] = kernels().dot(read(part.down, scratch.pairs[i].index, scratch), x, width);
    activate(part.activation, part.slope, neurons.data(), chosen, neurons.data());
    for (int64_t i = 0; i < chosen; ++i)
        kernels().add_scaled(scratch.weights[i] * neurons[i], read(part.up, scratch.pairs[i].index, scratch), width, out);
}

}  // namespace

void add_experts(Pool& pool, const ExpertsPart& part, int64_t rows, const float* router, int64_t router_stride,
                 const float* x, int64_t x_stride, float* out, int64_t out_stride) {
    pool.run(rows, [&](int64_t row) {
        add_row(part, router + row * router_stride, x + row * x_stride, out + row * out_stride);
    });
}

}  // namespace loquent
