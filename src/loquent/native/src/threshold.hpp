// Where top-k and top-p cut: the lowest value that stays when the best are kept until they measure enough; no sorting.
#pragma once

#include <vector>

#include "scores.hpp"

namespace loquent {

/// How much values are, each 1 or e^(value - highest). No value is above `highest`, which is finite.
struct Measure {
    const ScoreKernels& kernels;
    float highest;
    bool weighted;

    Above above(const float* values, int64_t count, float bound) const;
    double of(float value) const;
};

/// The lowest value that has less than `wanted` strictly above it, so that equal values stay or go together; minus
/// infinity where all stay, the highest where `wanted` is not positive. Weights must reach what is wanted: it is a part
/// of their sum. `scratch` grows as needed.
float lowest_kept(const Measure& measure, const float* values, int64_t count, double wanted,
                  std::vector<float>& scratch);

}  // namespace loquent
