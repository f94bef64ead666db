// Products of all kinds against plain references, and the promise that a row's bits depend on nothing but the row.
#include <cstring>
#include <random>
#include <stdexcept>
#include <string>
#include <vector>

#include "check.hpp"
#include "kernels.hpp"
#include "numbers.hpp"

using namespace loquent;

namespace {

constexpr Kind kKinds[] = {Kind::float32, Kind::bfloat16, Kind::float16, Kind::int8, Kind::int4};
constexpr int64_t kMany = 70;

std::vector<float> random_numbers(int64_t count, unsigned seed, float scale) {
    std::mt19937 generator(seed);
    std::normal_distribution<float> normal(0.0f, scale);
    std::vector<float> numbers(count);
    for (float& number : numbers) number = normal(generator);
    return numbers;
}

Matrix pack(Kind kind, const std::vector<float>& weights, int64_t rows, int64_t columns) {
    Matrix matrix = allocate_matrix(kind, rows, columns);
    fill_rows(matrix, 0, Source{weights.data(), Kind::float32, rows, columns, columns, 1});
    return matrix;
}

Prepared prepare(Kind kind, const float* x, int64_t rows, int64_t columns) {
    Prepared prepared;
    prepared.reserve(kind, rows, columns);
    for (int64_t row = 0; row < rows; ++row) prepare_row(x + row * columns, prepared, row);
    return prepared;
}

std::vector<float> product(Pool& pool, const Matrix& matrix, const float* x, int64_t rows, int64_t stride) {
    const Prepared input = prepare(matrix.kind, x, rows, matrix.columns);
    std::vector<float> output(rows * stride, 7.0f);
    multiply(pool, input, matrix, Epilogue{output.data(), stride});
    return output;
}

bool same(const float* a, const float* b, int64_t count) { return std::memcmp(a, b, count * sizeof(float)) == 0; }

/// A row as the integers and the scale that it is prepared as.
struct WholeRow {
    std::vector<int> q;
    float scale;

    explicit WholeRow(const float* x, int64_t columns) {
        float most = 0;
        for (int64_t c = 0; c < columns; ++c) most = std::fmax(most, std::fabs(x[c]));
        scale = most / 127.0f;
        const float factor = 127.0f / most;
        for (int64_t c = 0; c < columns; ++c) q.push_back((int)std::nearbyint(x[c] * factor));
    }
};

float int8_reference(const Matrix& matrix, int64_t n, const WholeRow& x) {
    std::vector<float> w(matrix.columns);
    read_row(matrix, n, w.data());
    const float scale = matrix.scales[n];
    int64_t dot = 0, sum = 0;
    for (int64_t c = 0; c < matrix.columns; ++c) {
        const auto q = (int64_t)std::nearbyint(scale > 0 ? w[c] / scale : 0.0f);
        dot += q * x.q[c];
        sum += q;
    }
    CHECK(matrix.sums[n] == 128 * sum);
    return (float)dot * (x.scale * scale);
}

float int4_reference(const Matrix& matrix, int64_t n, const WholeRow& x) {
    const bool fused = std::strcmp(kernels().name, "portable") != 0;
    const auto add = [&](float a, float b, float c) { return fused ? std::fma(a, b, c) : a * b + c; };
    const uint8_t* group = matrix.data + n / kPanel * panel_bytes(Kind::int4, matrix.columns);
    const int64_t lane = n % kPanel;
    float result = 0;
    for (int64_t first = 0; first < matrix.columns; first += kGroup, group += 640) {
        int dot = 0, sum = 0;
        for (int i = 0; i < kGroup && first + i < matrix.columns; ++i) {
            const uint8_t byte = group[(i / 8 * kPanel + lane) * 4 + i % 4];
            dot += (i % 8 < 4 ? byte & 15 : byte >> 4) * x.q[first + i];
            sum += x.q[first + i];
        }
        result = add(float_of_f16(number_at<uint16_t>(group + 512, lane)), (float)dot, result);
        result = add(float_of_f16(number_at<uint16_t>(group + 576, lane)), (float)sum, result);
    }
    return result * x.scale;
}

void check_row(const Matrix& matrix, const float* x, const float* actual) {
    std::vector<float> w(matrix.columns);
    const WholeRow whole(x, matrix.columns);
    for (int64_t n = 0; n < matrix.rows; ++n) {
        if (matrix.kind == Kind::int8) {
            CHECK(actual[n] == int8_reference(matrix, n, whole));
        } else if (matrix.kind == Kind::int4) {
            CHECK(actual[n] == int4_reference(matrix, n, whole));
        } else {
            read_row(matrix, n, w.data());
            double expected = 0, size = 0;
            for (int64_t c = 0; c < matrix.columns; ++c) {
                const float input = matrix.kind == Kind::bfloat16 ? float_of_bf16(bf16_of(x[c])) : x[c];
                expected += (double)input * w[c];
                size += std::fabs((double)input * w[c]);
            }
            CHECK(std::fabs(actual[n] - expected) <= 1e-6 * size);
        }
    }
}

/// Alone, in batches, on other numbers of threads: the same bits.
void check_invariance(const Matrix& matrix, const std::vector<float>& x, const std::vector<float>& all, Pool& one,
                      Pool& several) {
    const int64_t outputs = matrix.rows, columns = matrix.columns;
    for (int64_t row : {0, 17, 69})
        CHECK(same(product(one, matrix, &x[row * columns], 1, outputs).data(), &all[row * outputs], outputs));
    for (int64_t rows : {2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 16, 25, 32, 64}) {
        Pool& pool = rows % 2 ? one : several;
        CHECK(same(product(pool, matrix, &x[columns], rows, outputs).data(), &all[outputs], rows * outputs));
    }
}

/// The same numbers row by row, in memory that is not aligned, with a stride that is not their number.
void check_rows_layout(const Matrix& packed, const std::vector<float>& x, const std::vector<float>& all, Pool& pool) {
    const int64_t rows = packed.rows, columns = packed.columns, stride = columns + 3, size = element_bytes(packed.kind);
    std::vector<uint8_t> memory(2 + rows * stride * size);
    std::vector<float> w(columns);
    for (int64_t n = 0; n < rows; ++n) {
        read_row(packed, n, w.data());
        for (int64_t c = 0; c < columns; ++c) {
            const uint16_t half = packed.kind == Kind::bfloat16 ? bf16_of(w[c]) : f16_of(w[c]);
            std::memcpy(&memory[2 + (n * stride + c) * size], size == 4 ? (const void*)&w[c] : &half, size);
        }
    }
    const Matrix matrix = row_matrix(packed.kind, rows, columns, stride, &memory[2], nullptr);
    for (int64_t count : {1, 2, 13, 70})
        CHECK(same(product(pool, matrix, x.data(), count, rows).data(), all.data(), count * rows));
    std::vector<float> row(columns);
    read_row(matrix, rows - 1, row.data());
    CHECK(same(row.data(), w.data(), columns));
}

void check_shape(Kind kind, int64_t outputs, int64_t columns, Pool& one, Pool& two, Pool& three) {
    const auto weights = random_numbers(outputs * columns, (unsigned)(outputs + columns), 0.05f);
    const auto x = random_numbers(kMany * columns, (unsigned)(outputs * columns), 1.0f);
    const Matrix matrix = pack(kind, weights, outputs, columns);
    const auto all = product(two, matrix, x.data(), kMany, outputs);
    for (int64_t row : {0, 1, 69}) check_row(matrix, &x[row * columns], &all[row * outputs]);
    check_invariance(matrix, x, all, one, three);
    if (kind != Kind::int8 && kind != Kind::int4) check_rows_layout(matrix, x, all, two);
}

void check_epilogue(Kind kind, Pool& pool) {
    const int64_t rows = 5, columns = 40, outputs = 37, stride = 41;
    const auto x = random_numbers(rows * columns, 1, 1.0f), bias = random_numbers(outputs, 2, 1.0f);
    const auto decay = random_numbers(outputs, 3, 1.0f), before = random_numbers(rows * stride, 4, 1.0f);
    const Matrix matrix = pack(kind, random_numbers(outputs * columns, 5, 0.1f), outputs, columns);
    const auto plain = product(pool, matrix, x.data(), rows, stride);
    const Prepared input = prepare(kind, x.data(), rows, columns);
    for (int form = 0; form < 8; ++form) {
        const bool biased = form & 1, residual = form & 2, decayed = form & 4;
        auto output = before;
        multiply(pool, input, matrix,
                 Epilogue{output.data(), stride, biased ? bias.data() : nullptr, residual,
                          decayed ? decay.data() : nullptr});
        for (int64_t r = 0; r < rows; ++r)
            for (int64_t n = 0; n < stride; ++n) {
                const float old = before[r * stride + n];
                const float value = n < outputs ? plain[r * stride + n] + (biased ? bias[n] : 0.0f) : 0.0f;
                const float kept = !residual ? 0.0f : decayed && n < outputs ? decay[n] * old : old;
                CHECK(output[r * stride + n] == (n < outputs ? value + kept : old));
            }
    }
}

/// Several sources that begin within panels, transposed or not, of all kinds, give what one of them gives.
void check_sources(Kind kind) {
    const int64_t rows = 75, columns = 45;
    auto weights = random_numbers(rows * columns, 6, 0.1f);
    for (float& w : weights) w = float_of_f16(f16_of(float_of_bf16(bf16_of(w))));
    for (float& w : weights) w = float_of_bf16(bf16_of(w));
    const Matrix expected = pack(kind, weights, rows, columns);
    std::vector<float> turned(rows * columns);
    std::vector<uint16_t> bf16(rows * columns), f16(rows * columns);
    for (int64_t r = 0; r < rows; ++r)
        for (int64_t c = 0; c < columns; ++c) {
            turned[c * rows + r] = weights[r * columns + c];
            bf16[r * columns + c] = bf16_of(weights[r * columns + c]);
            f16[c * rows + r] = f16_of(weights[r * columns + c]);
        }
    Matrix matrix = allocate_matrix(kind, rows, columns);
    fill_rows(matrix, 0, Source{turned.data(), Kind::float32, 30, columns, 1, rows});
    fill_rows(matrix, 30, Source{bf16.data() + 30 * columns, Kind::bfloat16, 11, columns, columns, 1});
    fill_rows(matrix, 41, Source{f16.data() + 41, Kind::float16, 34, columns, 1, rows});
    CHECK(std::memcmp(matrix.data, expected.data, packed_bytes(kind, rows, columns)) == 0);
    if (kind == Kind::int8) {
        CHECK(same(matrix.scales, expected.scales, rows));
        CHECK(std::memcmp(matrix.sums, expected.sums, rows * sizeof(int32_t)) == 0);
    }
}

void check_precision(Kind kind, double tolerance) {
    const int64_t rows = 33, columns = 77;
    const auto weights = random_numbers(rows * columns, 7, 1.0f);
    const Matrix matrix = pack(kind, weights, rows, columns);
    std::vector<float> row(columns);
    double wrong = 0, size = 0;
    for (int64_t r = 0; r < rows; ++r) {
        read_row(matrix, r, row.data());
        for (int64_t c = 0; c < columns; ++c) {
            wrong += std::pow((double)row[c] - weights[r * columns + c], 2);
            size += std::pow((double)weights[r * columns + c], 2);
        }
    }
    CHECK(std::sqrt(wrong / size) <= tolerance);
    CHECK(kind == Kind::float32 || wrong > 0);
}

void check_odd_numbers(Pool& pool) {
    const int64_t columns = 64, outputs = 33;
    for (Kind kind : kKinds) {
        std::vector<float> weights(outputs * columns, 0.5f), x(3 * columns, 0.0f);
        weights[5] = NAN;
        weights[columns + 3] = INFINITY;
        weights[2 * columns] = -1e38f;
        for (int64_t c = 0; c < columns; ++c) weights[3 * columns + c] = 0.0f;
        x[columns + 1] = NAN;
        x[2 * columns + 1] = INFINITY;
        const Matrix matrix = pack(kind, weights, outputs, columns);
        const auto output = product(pool, matrix, x.data(), 3, outputs);
        CHECK(output[3] == 0.0f && output[20] == 0.0f);
        CHECK(std::isnan(output[outputs + 20]) && !std::isfinite(output[2 * outputs + 20]));
    }
}

void check_errors(Pool& pool) {
    CHECK_THROWS(kind_of("int3"), std::invalid_argument);
    CHECK_THROWS(allocate_matrix(Kind::int8, 0, 3), std::invalid_argument);
    CHECK_THROWS(row_matrix(Kind::int8, 2, 2, 2, "wwww", nullptr), std::invalid_argument);
    CHECK_THROWS(packed_matrix(Kind::int8, 2, 2, (const uint8_t*)"w", nullptr, nullptr, nullptr),
                 std::invalid_argument);
    Matrix matrix = allocate_matrix(Kind::float32, 4, 3);
    const std::vector<float> x(12);
    CHECK_THROWS(fill_rows(matrix, 2, Source{x.data(), Kind::float32, 3, 3, 3, 1}), std::invalid_argument);
    CHECK_THROWS(fill_rows(matrix, 0, Source{x.data(), Kind::float32, 3, 4, 4, 1}), std::invalid_argument);
    std::vector<float> output(4);
    const Prepared input = prepare(Kind::float32, x.data(), 1, 4);
    CHECK_THROWS(multiply(pool, input, matrix, Epilogue{output.data(), 4}), std::invalid_argument);
}

void check_halves() {
    for (uint32_t half = 0; half < 0x10000; ++half) {
        const float value = float_of_f16((uint16_t)half);
        CHECK(std::isnan(value) ? std::isnan(float_of_f16(f16_of(value))) : f16_of(value) == half);
    }
    CHECK(f16_of(65519.0f) == 0x7bff && f16_of(65520.0f) == 0x7c00 && f16_of(0x1p-25f) == 0 && f16_of(0x1.8p-25f) == 1);
    CHECK(f16_of(1.0f + 0x1p-11f) == 0x3c00 && f16_of(1.0f + 0x1.8p-10f) == 0x3c02);
    CHECK(bf16_of(1.0f + 0x1p-8f) == 0x3f80 && bf16_of(1.0f + 0x1.8p-7f) == 0x3f82 && bf16_of(-INFINITY) == 0xff80);
    CHECK(std::isnan(float_of_bf16(bf16_of(float_of_bits(0x7fffffff)))));
}

}  // namespace

int main() {
    Pool one(1), two(2), three(3);
    check_halves();
    for (Kind kind : kKinds) {
        for (int64_t columns : {1, 3, 31, 32, 33, 172, 768})
            for (int64_t outputs : {1, 5, 33, 100}) check_shape(kind, outputs, columns, one, two, three);
        check_shape(kind, 32, 3072, one, two, three);
        check_shape(kind, 300, 200, one, two, three);
        check_epilogue(kind, two);
        check_sources(kind);
        CHECK(kind_of(name_of(kind)) == kind);
    }
    check_precision(Kind::float32, 0);
    check_precision(Kind::bfloat16, 0.002);
    check_precision(Kind::float16, 0.0003);
    check_precision(Kind::int8, 0.008);
    check_precision(Kind::int4, 0.08);
    check_odd_numbers(two);
    check_errors(two);
    return test::report();
}
