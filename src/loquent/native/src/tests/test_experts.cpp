// Cross-domain experts against a float64 reference that scores every expert: all kinds of matrices, one row and many.
#include <algorithm>
#include <cstring>
#include <numeric>
#include <random>
#include <vector>

#include "check.hpp"
#include "experts.hpp"

using namespace loquent;
using Floats = std::vector<float>;

namespace {

struct Shape {
    int64_t keys, chosen, width;
};

constexpr Shape kShapes[] = {{1, 1, 5}, {2, 4, 16}, {3, 2, 33}, {8, 8, 64}, {8, 64, 17}, {16, 5, 100}, {32, 32, 96}};

Floats make_numbers(int64_t count, float size, std::mt19937& random) {
    std::normal_distribution<float> normal(0, size);
    Floats numbers(count);
    for (float& number : numbers) number = normal(random);
    return numbers;
}

/// A matrix of the numbers: in their place (float32), or packed.
Matrix make_matrix(Kind kind, bool packed, int64_t rows, int64_t columns, const Floats& numbers) {
    if (packed) {
        Matrix matrix = allocate_matrix(kind, rows, columns);
        fill_rows(matrix, 0, {numbers.data(), Kind::float32, rows, columns, columns, 1});
        return matrix;
    }
    Matrix matrix{};
    matrix.kind = kind;
    matrix.rows = rows;
    matrix.columns = matrix.row_stride = columns;
    matrix.data = reinterpret_cast<const uint8_t*>(numbers.data());
    return matrix;
}

/// What is added to a row: all experts scored and sorted, in float64 but for the scores, whose sums decide.
std::vector<double> plain_row(const ExpertsPart& part, const float* router, const float* x) {
    const int64_t width = part.down.columns;
    Floats scores(part.experts), down(width), up(width);
    for (int64_t i = 0; i < part.experts; ++i) scores[i] = router[i / part.keys] + router[part.keys + i % part.keys];
    std::vector<int64_t> order(part.experts);
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) { return scores[a] > scores[b]; });
    double total = 0;
    for (int64_t i = 0; i < part.chosen; ++i) total += std::exp((double)scores[order[i]] - scores[order[0]]);
    std::vector<double> added(width);
    for (int64_t i = 0; i < part.chosen; ++i) {
        read_row(part.down, order[i], down.data());
        read_row(part.up, order[i], up.data());
        double neuron = 0;
        for (int64_t j = 0; j < width; ++j) neuron += (double)down[j] * x[j];
        neuron = neuron / (1 + std::exp(-neuron));
        const double weight = std::exp((double)scores[order[i]] - scores[order[0]]) / total;
        for (int64_t j = 0; j < width; ++j) added[j] += weight * neuron * up[j];
    }
    return added;
}

void check_part(const ExpertsPart& part, std::mt19937& random) {
    constexpr int64_t kRows = 7;
    const int64_t width = part.down.columns, router_stride = 2 * part.keys + 3, stride = width + 5;
    const Floats router = make_numbers(kRows * router_stride, 2, random), x = make_numbers(kRows * stride, 1, random);
    const Floats before = make_numbers(kRows * stride, 1, random);
    Floats out = before;
    Pool alone(1), several(3);
    add_experts(several, part, kRows, router.data(), router_stride, x.data(), stride, out.data(), stride);
    for (int64_t row = 0; row < kRows; ++row) {
        const std::vector<double> added = plain_row(part, router.data() + row * router_stride, x.data() + row * stride);
        for (int64_t i = 0; i < stride; ++i) {
            const int64_t at = row * stride + i;
            CHECK_NEAR(out[at], before[at] + (i < width ? added[i] : 0), 2e-6);
        }
        Floats own(before.begin() + row * stride, before.begin() + (row + 1) * stride);
        add_experts(alone, part, 1, router.data() + row * router_stride, router_stride, x.data() + row * stride, stride,
                    own.data(), stride);
        CHECK(std::memcmp(own.data(), out.data() + row * stride, stride * sizeof(float)) == 0);
    }
}

void test_against_reference() {
    std::mt19937 random(1);
    for (const Shape& shape : kShapes)
        for (const bool normalized : {false, true}) {
            ExpertsPart part;
            part.keys = shape.keys;
            part.experts = shape.keys * shape.keys;
            part.chosen = shape.chosen;
            part.normalized = normalized;
            const float size = 1 / std::sqrt((float)shape.width);
            const Floats down = make_numbers(part.experts * shape.width, size, random);
            const Floats up = make_numbers(part.experts * shape.width, 1, random);
            const auto use = [&](Kind kind, bool packed) {
                part.down = make_matrix(kind, packed, part.experts, shape.width, down);
                part.up = make_matrix(kind, packed, part.experts, shape.width, up);
                check_part(part, random);
            };
            use(Kind::float32, false);
            for (const Kind kind : {Kind::float32, Kind::bfloat16, Kind::int8}) use(kind, true);
        }
}

/// Of equal scores the lower keys are taken: expert 0 here, and then the second key of the second axis.
void test_ties() {
    const Floats down = {1, 1, 1, 1}, up = {1, 10, 100, 1000}, router = {0, 0, 0, 0}, x = {2};
    ExpertsPart part;
    part.keys = 2;
    part.experts = 4;
    part.activation = Activation::linear;
    part.down = make_matrix(Kind::float32, false, 4, 1, down);
    part.up = make_matrix(Kind::float32, false, 4, 1, up);
    Pool pool(1);
    const auto result = [&](int64_t chosen) {
        float out = 0;
        part.chosen = chosen;
        add_experts(pool, part, 1, router.data(), 4, x.data(), 1, &out, 1);
        return out;
    };
    CHECK(result(1) == 2.0f);
    CHECK(result(2) == 11.0f);
    CHECK(result(4) == 555.5f);
}

}  // namespace

int main() {
    test_against_reference();
    test_ties();
    return loquent::test::report();
}
