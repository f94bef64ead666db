// The names of activation functions, and the row-wise kernels of this machine's instruction set.
#include "elementwise.hpp"

#include <stdexcept>

#include "kernels.hpp"

namespace loquent {
namespace {

struct Name {
    const char* name;
    Activation function;
};

constexpr Name kNames[] = {
    {"linear", Activation::linear},
    {"gelu", Activation::gelu},
    {"gelu_python", Activation::gelu},
    {"gelu_10", Activation::gelu_10},
    {"gelu_tanh", Activation::gelu_tanh},
    {"gelu_new", Activation::gelu_tanh},
    {"gelu_fast", Activation::gelu_tanh},
    {"gelu_accurate", Activation::gelu_tanh},
    {"gelu_pytorch_tanh", Activation::gelu_tanh},
    {"quick_gelu", Activation::quick_gelu},
    {"relu", Activation::relu},
    {"relu2", Activation::relu2},
    {"relu6", Activation::relu6},
    {"leaky_relu", Activation::leaky_relu},
    {"prelu", Activation::prelu},
    {"silu", Activation::silu},
    {"swish", Activation::silu},
    {"mish", Activation::mish},
    {"sigmoid", Activation::sigmoid},
    {"tanh", Activation::tanh},
    {"laplace", Activation::laplace},
};

}  // namespace

Activation activation_of(const std::string& name) {
    for (const Name& entry : kNames)
        if (name == entry.name) return entry.function;
    throw std::invalid_argument("unknown activation function: " + name);
}

void normalize(const NormPart& part, const float* x, int64_t width, float* out) {
    kernels().normalize(part, x, width, out);
}

void activate(Activation function, float slope, const float* x, int64_t count, float* out) {
    kernels().activate(function, slope, x, count, out);
}

void activate_gated(Activation function, float slope, const float* gate, const float* up, int64_t count, float* out) {
    kernels().activate_gated(function, slope, gate, up, count, out);
}

}  // namespace loquent
