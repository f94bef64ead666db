// Norms and activation functions of one row, in vectors.
#include "elementwise.hpp"

#include "math.hpp"

namespace loquent::LOQUENT_ISA {
namespace {

/// The sum of term(x[i]): four running sums of vectors, so that additions need not wait for one another.
template <class Term>
float sum_of(const float* x, int64_t width, Term term) {
    Vec sums[4] = {};
    int64_t i = 0;
    for (; i + 4 * kLanes <= width; i += 4 * kLanes)
        for (int part = 0; part < 4; ++part) sums[part] = term(load(x + i + part * kLanes), sums[part]);
    for (; i + kLanes <= width; i += kLanes) sums[0] = term(load(x + i), sums[0]);
    float total = sum((sums[0] + sums[1]) + (sums[2] + sums[3]));
    if (i < width) {
        // Lanes that are not there must not count; `term` of 0 may not be 0.
        float rest[kLanes];
        store(rest, term(load_some(x + i, (int)(width - i)), Vec{}));
        for (int lane = 0; lane < width - i; ++lane) total += rest[lane];
    }
    return total;
}

/// out[i] = f(x[i], at) for whole vectors and the rest, where `at(other)` is other[i].
template <class F>
void transform(const float* x, int64_t count, float* out, F f) {
    int64_t i = 0;
    for (; i + kLanes <= count; i += kLanes)
        store(out + i, f(load(x + i), [i](const float* other) { return load(other + i); }));
    if (i == count) return;
    const int rest = (int)(count - i);
    const auto at = [=](const float* other) { return load_some(other + i, rest); };
    store_some(out + i, f(load_some(x + i, rest), at), rest);
}

void layer_norm(const NormPart& part, const float* x, int64_t width, float* out) {
    const float mean = sum_of(x, width, [](Vec v, Vec total) { return total + v; }) / (float)width;
    const float squares = sum_of(x, width, [=](Vec v, Vec total) { return fma(v - mean, v - mean, total); });
    const float scale = 1.0f / std::sqrt(squares / (float)width + part.epsilon);
    const float *weight = part.weight, *bias = part.bias;
    if (bias)
        transform(x, width, out, [=](Vec v, auto at) { return fma((v - mean) * scale, at(weight), at(bias)); });
    else
        transform(x, width, out, [=](Vec v, auto at) { return (v - mean) * scale * at(weight); });
}

void rms_norm(const NormPart& part, const float* x, int64_t width, float* out) {
    const float squares = sum_of(x, width, [](Vec v, Vec total) { return fma(v, v, total); });
    const float scale = 1.0f / std::sqrt(squares / (float)width + part.epsilon);
    const float* weight = part.weight;
    transform(x, width, out, [=](Vec v, auto at) { return v * scale * at(weight); });
}

/// x / (1 + e^(-2 sqrt(2 / pi) (x + 0.044715 x^3))), which is GELU's approximation by tanh without its cancellation.
inline Vec gelu_tanh(Vec x) {
    const Vec inner = fma(x * x, splat(-2.0f * 0.7978845608f * 0.044715f), splat(-2.0f * 0.7978845608f));
    return x / (exp(x * inner) + 1.0f);
}

/// x tanh(ln(1 + e^x))
inline Vec mish(Vec x) {
    const Vec e = exp(min(splat(20.0f), x));  // above 20, tanh is 1
    const Vec n = e * (e + 2.0f);
    return x * (n / (n + 2.0f));
}

// Limits are the first operand: what is no number stays none.
inline Vec clamp(Vec x, float low, float high) { return min(splat(high), max(splat(low), x)); }

/// Call `run` with the function as something to be inlined.
template <class Run>
void with_function(Activation function, float slope, Run run) {
    switch (function) {
        case Activation::linear: return run([](Vec x) { return x; });
        case Activation::gelu: return run([](Vec x) { return x * normal_cdf(x); });
        case Activation::gelu_10: return run([](Vec x) { return clamp(x * normal_cdf(x), -10.0f, 10.0f); });
        case Activation::gelu_tanh: return run([](Vec x) { return gelu_tanh(x); });
        case Activation::quick_gelu: return run([](Vec x) { return x / (exp(x * -1.702f) + 1.0f); });
        case Activation::relu: return run([](Vec x) { return max(Vec{}, x); });
        case Activation::relu2: return run([](Vec x) { x = max(Vec{}, x); return x * x; });
        case Activation::relu6: return run([](Vec x) { return clamp(x, 0.0f, 6.0f); });
        case Activation::leaky_relu: return run([](Vec x) { return x > 0.0f ? x : x * 0.01f; });
        case Activation::prelu: return run([slope](Vec x) { return x > 0.0f ? x : x * slope; });
        case Activation::silu: return run([](Vec x) { return x / (exp(-x) + 1.0f); });
        case Activation::mish: return run([](Vec x) { return mish(x); });
        case Activation::sigmoid: return run([](Vec x) { return sigmoid(x); });
        case Activation::tanh: return run([](Vec x) { return tanh(x); });
        case Activation::laplace:
            return run([](Vec x) { return normal_cdf((x - 0.707107f) * (1.0f / 0.282095f)); });
    }
}

}  // namespace

void normalize(const NormPart& part, const float* x, int64_t width, float* out) {
    part.centered ? layer_norm(part, x, width, out) : rms_norm(part, x, width, out);
}

void activate(Activation function, float slope, const float* x, int64_t count, float* out) {
    with_function(function, slope, [=](auto f) {
        transform(x, count, out, [f](Vec v, auto) { return f(v); });
    });
}

void activate_gated(Activation function, float slope, const float* gate, const float* up, int64_t count, float* out) {
    with_function(function, slope, [=](auto f) {
        transform(gate, count, out, [f, up](Vec v, auto at) { return f(v) * at(up); });
    });
}

}  // namespace loquent::LOQUENT_ISA
