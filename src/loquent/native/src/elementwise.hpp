// What is computed for each row by itself between products: norms and activation functions.
#pragma once

#include <cstdint>
#include <string>

namespace loquent {

struct NormPart {
    bool centered;              // layer norm, else RMS norm
    float epsilon;
    const float* weight;        // (width,)
    const float* bias;          // (width,), layer norm only, or null
};

/// One row; `out` may be `x`.
void normalize(const NormPart& part, const float* x, int64_t width, float* out);

/// The names of `loquent.parts.ACTIVATIONS`.
enum class Activation {
    linear, gelu, gelu_10, gelu_tanh, quick_gelu, relu, relu2, relu6, leaky_relu, prelu, silu, mish, sigmoid, tanh,
    laplace
};
Activation activation_of(const std::string& name);   // all spellings; throws std::invalid_argument

/// out[i] = f(x[i]); `slope` is prelu's weight. `out` may be `x`.
void activate(Activation function, float slope, const float* x, int64_t count, float* out);
/// out[i] = f(gate[i]) * up[i]
void activate_gated(Activation function, float slope, const float* gate, const float* up, int64_t count, float* out);

}  // namespace loquent
