// Numbers of a checkpoint become rows of a packed matrix: converted, or quantized to int8 or int4.
#include <algorithm>
#include <stdexcept>
#include <vector>

#include "matrix.hpp"
#include "numbers.hpp"
#include "pool.hpp"

namespace loquent {
namespace {

constexpr int kClips = 12;            // ranges that int4 tries besides the whole one ...
constexpr float kClipStep = 0.025f;   // ... each smaller by this part of it
constexpr float kRound = 12582912.0f;  // 1.5 * 2^23: adding it rounds to whole numbers

/// A unit of 32 bits of a row goes to its place in the panel: [unit][32].
void place_units(const uint32_t* units, int64_t count, uint8_t* panel, int64_t lane) {
    for (int64_t u = 0; u < count; ++u) std::memcpy(panel + (u * kPanel + lane) * 4, units + u, 4);
}

void pack_floats(const float* row, int64_t columns, uint8_t* panel, int64_t lane) {
    for (int64_t c = 0; c < columns; ++c) std::memcpy(panel + (c * kPanel + lane) * 4, row + c, 4);
}

void pack_halves(const float* row, int64_t columns, uint8_t* panel, int64_t lane) {
    for (int64_t c = 0; c < columns; ++c) {
        const uint16_t half = f16_of(row[c]);
        std::memcpy(panel + (c * kPanel + lane) * 2, &half, 2);
    }
}

void pack_bf16(const float* row, int64_t columns, uint8_t* panel, int64_t lane, std::vector<uint32_t>& units) {
    for (int64_t u = 0; u < columns / 2; ++u) units[u] = bf16_of(row[2 * u]) | (uint32_t)bf16_of(row[2 * u + 1]) << 16;
    if (columns % 2) units[columns / 2] = bf16_of(row[columns - 1]);
    place_units(units.data(), (columns + 1) / 2, panel, lane);
}

/// Whole numbers without undefined conversions: what is no number gives some number.
int32_t rounded(float x) { return (int32_t)(bits_of(x + kRound) - bits_of(kRound)); }

struct Int8Row { float scale; int32_t sum; };

Int8Row pack_int8(const float* row, int64_t columns, uint8_t* panel, int64_t lane, std::vector<uint32_t>& units) {
    float most = 0;
    for (int64_t c = 0; c < columns; ++c) most = std::max(most, float_of_bits(bits_of(row[c]) & 0x7fffffff));
    const float factor = most >= 1e-30f ? 127.0f / most : 0.0f;
    auto* bytes = reinterpret_cast<int8_t*>(units.data());
    units[(columns + 3) / 4 - 1] = 0;
    int32_t sum = 0;
    for (int64_t c = 0; c < columns; ++c) {
        const auto q = (int8_t)std::clamp(rounded(row[c] * factor), -127, 127);
        bytes[c] = q;
        sum += q;
    }
    place_units(units.data(), (columns + 3) / 4, panel, lane);
    return {most >= 1e-30f ? most / 127.0f : 0.0f, (int32_t)((uint32_t)sum * 128u)};
}

using Four = float __attribute__((vector_size(16)));   // every processor has it

/// A group of 32 weights as `scale * q + minimum`.
struct Group {
    uint16_t scale_bits, minimum_bits;
    float scale, minimum, inverse;

    /// The numbers between `low` and `high` in 16 steps; what lies outside is clipped.
    Group(float low, float high)
        : scale_bits(f16_of((high - low) / 15.0f)), minimum_bits(f16_of(low)), scale(float_of_f16(scale_bits)),
          minimum(float_of_f16(minimum_bits)), inverse(scale > 0 ? 1.0f / scale : 0.0f) {}

    /// The nearest q of four weights; what is no number is 0.
    Four round(Four x) const {
        Four q = (x - minimum) * inverse;
        q = q > 0.0f ? q : Four{};
        q = q < 15.0f ? q : Four{} + 15.0f;
        return (q + kRound) - kRound;
    }

    float error(const Four (&x)[kGroup / 4]) const {
        Four total{};
        for (const Four& four : x) {
            const Four wrong = round(four) * scale + minimum - four;
            total += wrong * wrong;
        }
        return (total[0] + total[1]) + (total[2] + total[3]);
    }
};

Group quantize_group(const float* numbers) {
    Four x[kGroup / 4];
    std::memcpy(x, numbers, sizeof x);
    float low = numbers[0], high = numbers[0];
    for (int i = 1; i < kGroup; ++i) {
        low = numbers[i] < low ? numbers[i] : low;
        high = numbers[i] > high ? numbers[i] : high;
    }
    Group best(low, high);
    float least = best.error(x);
    for (int step = 1; step <= kClips; ++step) {
        const float kept = 1.0f - kClipStep * (float)step;
        const Group group(low * kept, high * kept);
        const float error = group.error(x);
        if (error < least) {
            least = error;
            best = group;
        }
    }
    return best;
}

/// `row` has whole groups.
void pack_int4(const float* row, int64_t columns, uint8_t* panel, int64_t lane) {
    for (int64_t first = 0; first < columns; first += kGroup) {
        const Group group = quantize_group(row + first);
        for (int j = 0; j < kGroup / 8; ++j) {
            Four low, high;
            std::memcpy(&low, row + first + 8 * j, sizeof low);
            std::memcpy(&high, row + first + 8 * j + 4, sizeof high);
            const Four bytes = group.round(low) + 16.0f * group.round(high);
            for (int i = 0; i < 4; ++i) panel[(j * kPanel + lane) * 4 + i] = (uint8_t)(int32_t)bytes[i];
        }
        std::memcpy(panel + kGroup * kPanel / 2 + lane * 2, &group.scale_bits, 2);
        std::memcpy(panel + kGroup * kPanel / 2 + (kPanel + lane) * 2, &group.minimum_bits, 2);
        panel += kGroup * kPanel / 2 + 4 * kPanel;
    }
}

/// Rows [first, first + count) of a source as floats, `stride` apart.
void read_rows(const Source& source, int64_t first, int64_t count, float* to, int64_t stride) {
    const auto* data = static_cast<const uint8_t*>(source.data);
    const int64_t bytes = element_bytes(source.kind);
    if (source.column_stride == 1 || source.row_stride != 1) {
        for (int64_t r = 0; r < count; ++r)
            read_numbers(source.kind, data + (first + r) * source.row_stride * bytes, source.column_stride,
                         source.columns, to + r * stride);
        return;
    }
    float column[kPanel];
    for (int64_t c = 0; c < source.columns; ++c) {
        read_numbers(source.kind, data + (first + c * source.column_stride) * bytes, 1, count, column);
        for (int64_t r = 0; r < count; ++r) to[r * stride + c] = column[r];
    }
}

/// The last group of int4 goes on with the last number, which changes neither its range nor its best clip by much.
void pad_row(float* row, int64_t columns, int64_t padded) {
    for (int64_t c = columns; c < padded; ++c) row[c] = row[columns - 1];
}

class Filler {
public:
    Filler(Matrix& matrix, int64_t first_row, const Source& source)
        : matrix_(matrix), first_row_(first_row), source_(source), data_(const_cast<uint8_t*>(matrix.data)) {}

    /// The source's rows that lie in one panel.
    void fill(int64_t panel) const {
        const int64_t start = std::max(first_row_, panel * kPanel);
        const int64_t end = std::min(first_row_ + source_.rows, (panel + 1) * kPanel);
        const int64_t padded = padded_columns(matrix_.kind, matrix_.columns);
        std::vector<float> rows((end - start) * padded);
        std::vector<uint32_t> units((padded + 1) / 2 + 1);
        read_rows(source_, start - first_row_, end - start, rows.data(), padded);
        for (int64_t row = start; row < end; ++row) pack(row, rows.data() + (row - start) * padded, units);
    }

private:
    void pack(int64_t row, float* numbers, std::vector<uint32_t>& units) const {
        const int64_t columns = matrix_.columns, lane = row % kPanel;
        uint8_t* panel = data_ + row / kPanel * panel_bytes(matrix_.kind, columns);
        switch (matrix_.kind) {
            case Kind::float32: return pack_floats(numbers, columns, panel, lane);
            case Kind::float16: return pack_halves(numbers, columns, panel, lane);
            case Kind::bfloat16: return pack_bf16(numbers, columns, panel, lane, units);
            case Kind::int8: {
                const Int8Row packed = pack_int8(numbers, columns, panel, lane, units);
                const_cast<float*>(matrix_.scales)[row] = packed.scale;
                const_cast<int32_t*>(matrix_.sums)[row] = packed.sum;
                return;
            }
            case Kind::int4:
                pad_row(numbers, columns, padded_columns(Kind::int4, columns));
                return pack_int4(numbers, padded_columns(Kind::int4, columns), panel, lane);
        }
    }

    const Matrix& matrix_;
    const int64_t first_row_;
    const Source& source_;
    uint8_t* const data_;
};

}  // namespace

void fill_rows(Matrix& matrix, int64_t first_row, const Source& source) {
    if (!matrix.packed) throw std::invalid_argument("only a packed matrix can be filled.");
    if (source.kind == Kind::int8 || source.kind == Kind::int4)
        throw std::invalid_argument(std::string("weights of ") + name_of(source.kind) + " cannot be packed again.");
    if (first_row < 0 || source.rows < 0 || first_row + source.rows > matrix.rows || source.columns != matrix.columns)
        throw std::invalid_argument("rows " + std::to_string(first_row) + " to " +
                                    std::to_string(first_row + source.rows) + " of " + std::to_string(source.columns) +
                                    " columns do not fit a matrix of shape (" + std::to_string(matrix.rows) + ", " +
                                    std::to_string(matrix.columns) + ").");
    if (source.rows == 0) return;
    const Filler filler(matrix, first_row, source);
    const int64_t first_panel = first_row / kPanel, last_panel = (first_row + source.rows - 1) / kPanel;
    Pool::shared().run(last_panel - first_panel + 1, [&](int64_t share) { filler.fill(first_panel + share); });
}

}  // namespace loquent
