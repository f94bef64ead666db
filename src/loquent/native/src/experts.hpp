// Doge's cross-domain experts (arXiv:2412.11834): single-neuron experts found by product keys; not the shared MLP.
#pragma once

#include <cstdint>

#include "elementwise.hpp"
#include "matrix.hpp"
#include "pool.hpp"

namespace loquent {

/// `loquent.parts.CrossDomainExperts` with routing "per_token", without its router's product and its shared MLP.
struct ExpertsPart {
    int64_t experts = 0;       // keys * keys or more: i * keys + j has key i of the first axis and j of the second
    int64_t keys = 0;
    int64_t chosen = 0;        // experts of a row, 1 to `experts`
    bool normalized = false;   // divide the weights by their sum
    Activation activation = Activation::silu;
    float slope = 0;           // prelu's
    Matrix down, up;           // (experts, width) each; row by row is read fastest
};

/// For each row add the sum over its chosen experts e of weight_e * activation(down_e . x) * up_e to `out`.
///
/// `router` is (rows, 2 * keys), the router's logits; `x` and `out` are (rows, width); strides are in floats. An
/// expert's score is the sum of its keys' logits, its weight the softmax among the chosen; of equal scores the lower
/// key is taken first. A row's result depends on the row alone. `out` may not be `x`.
void add_experts(Pool& pool, const ExpertsPart& part, int64_t rows, const float* router, int64_t router_stride,
                 const float* x, int64_t x_stride, float* out, int64_t out_stride);

}  // namespace loquent
