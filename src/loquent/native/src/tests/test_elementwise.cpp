// Norms and activation functions against float64 references: odd sizes, whole ranges, and what is no number.
#include <cstring>
#include <limits>
#include <random>
#include <stdexcept>
#include <vector>

#include "check.hpp"
#include "elementwise.hpp"

using namespace loquent;
using Floats = std::vector<float>;

namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr int64_t kSizes[] = {1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 33, 63, 64, 65, 100, 288, 769};

struct Case {
    const char* name;
    double (*function)(double x);
};

double gelu(double x) { return x / 2 * std::erfc(-x / std::sqrt(2.0)); }
double sigmoid(double x) { return 1 / (1 + std::exp(-x)); }
double gelu_tanh(double x) { return x / 2 * (1 + std::tanh(std::sqrt(2 / M_PI) * (x + 0.044715 * x * x * x))); }
double relu(double x) { return std::fmax(x, 0); }

constexpr float kSlope = 0.3f;

const Case kCases[] = {
    {"linear", [](double x) { return x; }},
    {"gelu", gelu},
    {"gelu_python", gelu},
    {"gelu_10", [](double x) { return std::fmin(10, std::fmax(-10, gelu(x))); }},
    {"gelu_tanh", gelu_tanh},
    {"gelu_new", gelu_tanh},
    {"gelu_fast", gelu_tanh},
    {"gelu_accurate", gelu_tanh},
    {"gelu_pytorch_tanh", gelu_tanh},
    {"quick_gelu", [](double x) { return x * sigmoid(1.702 * x); }},
    {"relu", relu},
    {"relu2", [](double x) { return relu(x) * relu(x); }},
    {"relu6", [](double x) { return std::fmin(relu(x), 6); }},
    {"leaky_relu", [](double x) { return x > 0 ? x : 0.01 * x; }},
    {"prelu", [](double x) { return x > 0 ? x : (double)kSlope * x; }},
    {"silu", [](double x) { return x * sigmoid(x); }},
    {"swish", [](double x) { return x * sigmoid(x); }},
    {"mish", [](double x) { return x * std::tanh(std::log1p(std::exp(x))); }},
    {"sigmoid", sigmoid},
    {"tanh", [](double x) { return std::tanh(x); }},
    {"laplace", [](double x) { return (1 + std::erf((x - 0.707107) / (0.282095 * std::sqrt(2.0)))) / 2; }},
};

/// Numbers of every size that activations see, both signs.
Floats make_inputs(int64_t count, std::mt19937& random) {
    Floats x(count);
    for (float& value : x) {
        const float size = std::exp2((float)(random() % 1000) / 40 - 20);
        value = random() % 2 ? size : -size;
    }
    return x;
}

void test_activations() {
    std::mt19937 random(1);
    for (const Case& test : kCases)
        for (const int64_t size : kSizes) {
            const Activation function = activation_of(test.name);
            const Floats x = make_inputs(size, random), up = make_inputs(size, random);
            Floats out(size + 1, 77.0f), gated(size + 1, 77.0f);
            activate(function, kSlope, x.data(), size, out.data());
            activate_gated(function, kSlope, x.data(), up.data(), size, gated.data());
            for (int64_t i = 0; i < size; ++i) {
                CHECK_NEAR(out[i], test.function(x[i]), 1e-6);
                CHECK(gated[i] == out[i] * up[i]);
            }
            CHECK(out[size] == 77.0f && gated[size] == 77.0f);
            Floats own = x;
            activate(function, kSlope, own.data(), size, own.data());
            CHECK(std::memcmp(own.data(), out.data(), size * sizeof(float)) == 0);
        }
    CHECK_THROWS(activation_of("gelu_11"), std::invalid_argument);
}

/// Relative errors where the result is small: sigmoid far below zero is the vector exponential itself.
void test_small_results() {
    const auto worst = [](const char* name, float from, float to, double (*function)(double)) {
        double error = 0;
        Floats x(1000), out(1000);
        const Activation activation = activation_of(name);
        for (int part = 0; part < 100; ++part) {
            for (int i = 0; i < 1000; ++i) x[i] = from + (to - from) * (float)(part * 1000 + i) / 100000;
            activate(activation, 0, x.data(), 1000, out.data());
            for (int i = 0; i < 1000; ++i) {
                const double expected = function(x[i]);
                if (expected != 0) error = std::fmax(error, std::fabs(out[i] / expected - 1));
            }
        }
        return error;
    };
    CHECK(worst("sigmoid", -87.0f, -20.0f, sigmoid) < 4e-7);
    CHECK(worst("sigmoid", -20.0f, 88.0f, sigmoid) < 4e-7);
    CHECK(worst("tanh", -3.0f, 3.0f, [](double x) { return std::tanh(x); }) < 4e-7);
    CHECK(worst("tanh", -1e-3f, 1e-3f, [](double x) { return std::tanh(x); }) < 4e-7);
    CHECK(worst("gelu", -5.0f, 8.0f, gelu) < 1.5e-6);
    CHECK(worst("gelu_tanh", -3.0f, 8.0f, gelu_tanh) < 1.5e-6);
    CHECK(worst("silu", -80.0f, 20.0f, [](double x) { return x * sigmoid(x); }) < 4e-7);
    CHECK(worst("mish", -80.0f, 20.0f, [](double x) { return x * std::tanh(std::log1p(std::exp(x))); }) < 8e-7);
}

void test_special_values() {
    const Floats x = {std::numeric_limits<float>::quiet_NaN(), kInfinity, 3e38f, -3e38f, 1e20f, -1e20f, 0.0f};
    Floats out(x.size());
    for (const Case& test : kCases) {
        const Activation function = activation_of(test.name);
        activate(function, kSlope, x.data(), (int64_t)x.size(), out.data());
        CHECK(std::isnan(out[0]));
        CHECK(out[1] == (float)test.function(INFINITY));
        for (size_t i = 2; i < x.size(); ++i) {
            const auto expected = (float)test.function(x[i]);
            if (std::isinf(expected))
                CHECK(out[i] == expected);
            else
                CHECK_NEAR(out[i], expected, 1e-6);
        }
    }
}

void check_norm(const NormPart& part, const Floats& x) {
    const auto width = (int64_t)x.size();
    double mean = 0, squares = 0;
    if (part.centered)
        for (const float value : x) mean += value / (double)width;
    for (const float value : x) squares += (value - mean) * (value - mean) / (double)width;
    Floats out(width + 1, 77.0f);
    normalize(part, x.data(), width, out.data());
    for (int64_t i = 0; i < width; ++i) {
        const double scaled = (x[i] - mean) / std::sqrt(squares + part.epsilon) * part.weight[i];
        // The mean itself is a float: its rounding counts where values are far from zero.
        const double far = 1e-7 * std::fabs(mean) / std::sqrt(squares + part.epsilon) * std::fabs(part.weight[i]);
        const double expected = scaled + (part.bias ? part.bias[i] : 0);
        CHECK(std::fabs(out[i] - expected) <= 1e-6 * std::fmax(1, std::fabs(scaled)) + far);
    }
    CHECK(out[width] == 77.0f);
    Floats own = x;
    normalize(part, own.data(), width, own.data());
    CHECK(std::memcmp(own.data(), out.data(), width * sizeof(float)) == 0);
}

void test_norms() {
    std::mt19937 random(2);
    std::normal_distribution<float> normal;
    for (const int64_t size : kSizes)
        for (const float center : {0.0f, 3.0f, 1000.0f}) {
            Floats x(size), weight(size), bias(size);
            for (float& value : x) value = center + normal(random);
            for (float& value : weight) value = normal(random);
            for (float& value : bias) value = normal(random);
            check_norm({true, 1e-5f, weight.data(), bias.data()}, x);
            check_norm({true, 1e-5f, weight.data(), nullptr}, x);
            check_norm({false, 1e-6f, weight.data(), nullptr}, x);
        }
    Floats zeros(33), weight(33, 2.0f);
    check_norm({false, 1e-6f, weight.data(), nullptr}, zeros);
    check_norm({true, 1e-5f, weight.data(), weight.data()}, zeros);
}

/// The same row gives the same bits wherever it stands.
void test_alignment() {
    std::mt19937 random(3);
    const Floats x = make_inputs(769, random), weight = make_inputs(769, random);
    Floats memory(769 + 16), out(769), other(769);
    const NormPart part{true, 1e-5f, weight.data(), weight.data()};
    normalize(part, x.data(), 769, out.data());
    for (int shift = 0; shift < 16; ++shift) {
        std::memcpy(memory.data() + shift, x.data(), 769 * sizeof(float));
        normalize(part, memory.data() + shift, 769, other.data());
        CHECK(out == other);
    }
}

}  // namespace

int main() {
    test_activations();
    test_small_results();
    test_special_values();
    test_norms();
    test_alignment();
    return loquent::test::report();
}
