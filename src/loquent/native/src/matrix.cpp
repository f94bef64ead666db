// Matrices as memory: sizes of layouts, allocation, and reading a row back; quantizing is quantize.cpp's.
#include "matrix.hpp"

#include <cstring>
#include <stdexcept>

#include "memory.hpp"
#include "numbers.hpp"

namespace loquent {
namespace {

constexpr int64_t kGroupBytes = kGroup * kPanel / 2 + 4 * kPanel;

int64_t round_up(int64_t value, int64_t unit) { return (value + unit - 1) / unit * unit; }

void check_shape(int64_t rows, int64_t columns) {
    if (rows < 1 || columns < 1)
        throw std::invalid_argument("a matrix of shape (" + std::to_string(rows) + ", " + std::to_string(columns) +
                                    ") is empty; both sizes must be at least 1.");
}

uint16_t read_half(const uint8_t* from) {
    uint16_t bits;
    std::memcpy(&bits, from, sizeof bits);
    return bits;
}

void read_plain_row(const Matrix& matrix, int64_t row, float* out) {
    const uint8_t* from = matrix.data + row * matrix.row_stride * element_bytes(matrix.kind);
    read_numbers(matrix.kind, from, 1, matrix.columns, out);
}

void read_packed_floats(const Matrix& matrix, const uint8_t* panel, int64_t lane, float* out) {
    for (int64_t c = 0; c < matrix.columns; ++c) {
        if (matrix.kind == Kind::float32)
            std::memcpy(out + c, panel + (c * kPanel + lane) * 4, 4);
        else if (matrix.kind == Kind::float16)
            out[c] = float_of_f16(read_half(panel + (c * kPanel + lane) * 2));
        else
            out[c] = float_of_bf16(read_half(panel + ((c / 2 * kPanel + lane) * 2 + c % 2) * 2));
    }
}

void read_int8(const Matrix& matrix, const uint8_t* panel, int64_t row, int64_t lane, float* out) {
    const float scale = matrix.scales[row];
    for (int64_t c = 0; c < matrix.columns; ++c)
        out[c] = scale * (float)(int8_t)panel[(c / 4 * kPanel + lane) * 4 + c % 4];
}

void read_int4(const Matrix& matrix, const uint8_t* panel, int64_t lane, float* out) {
    for (int64_t c = 0; c < matrix.columns; ++c) {
        const uint8_t* group = panel + c / kGroup * kGroupBytes;
        const uint8_t* scales = group + kGroup * kPanel / 2;
        const int64_t within = c % kGroup, j = within / 8, i = within % 4;
        const int q = group[(j * kPanel + lane) * 4 + i] >> (within % 8 < 4 ? 0 : 4) & 15;
        out[c] = float_of_f16(read_half(scales + 2 * lane)) * (float)q +
                 float_of_f16(read_half(scales + 2 * (kPanel + lane)));
    }
}

}  // namespace

Kind kind_of(const std::string& name) {
    for (Kind kind : {Kind::float32, Kind::bfloat16, Kind::float16, Kind::int8, Kind::int4})
        if (name == name_of(kind)) return kind;
    throw std::invalid_argument("precision '" + name +
                                "' is not known; use 'float32', 'bfloat16', 'float16', 'int8' or 'int4'.");
}

const char* name_of(Kind kind) {
    switch (kind) {
        case Kind::float32: return "float32";
        case Kind::bfloat16: return "bfloat16";
        case Kind::float16: return "float16";
        case Kind::int8: return "int8";
        default: return "int4";
    }
}

int64_t padded_columns(Kind kind, int64_t columns) {
    switch (kind) {
        case Kind::bfloat16: return round_up(columns, 2);
        case Kind::int8: return round_up(columns, 4);
        case Kind::int4: return round_up(columns, kGroup);
        default: return columns;
    }
}

int64_t panel_bytes(Kind kind, int64_t columns) {
    const int64_t padded = padded_columns(kind, columns);
    if (kind == Kind::int4) return padded / kGroup * kGroupBytes;
    return padded * kPanel * (kind == Kind::int8 ? 1 : element_bytes(kind));
}

int64_t packed_bytes(Kind kind, int64_t rows, int64_t columns) {
    return round_up(rows, kPanel) / kPanel * panel_bytes(kind, columns);
}

int64_t Matrix::bytes() const {
    if (!packed) return rows * columns * element_bytes(kind);
    return packed_bytes(kind, rows, columns) + (kind == Kind::int8 ? panels() * kPanel * 8 : 0);
}

Matrix packed_matrix(Kind kind, int64_t rows, int64_t columns, const uint8_t* data, const float* scales,
                     const int32_t* sums, std::shared_ptr<void> owner) {
    check_shape(rows, columns);
    if (!data || (kind == Kind::int8) != (scales && sums))
        throw std::invalid_argument("a packed matrix needs its weights, and one of int8 its scales and sums too.");
    return Matrix{kind, rows, columns, true, 0, data, scales, sums, std::move(owner)};
}

Matrix row_matrix(Kind kind, int64_t rows, int64_t columns, int64_t row_stride, const void* data,
                  std::shared_ptr<void> owner) {
    check_shape(rows, columns);
    if (kind == Kind::int8 || kind == Kind::int4)
        throw std::invalid_argument(std::string("a matrix of ") + name_of(kind) + " must be packed.");
    if (!data) throw std::invalid_argument("a matrix needs its weights.");
    return Matrix{kind, rows, columns, false, row_stride, static_cast<const uint8_t*>(data), nullptr, nullptr,
                  std::move(owner)};
}

Matrix allocate_matrix(Kind kind, int64_t rows, int64_t columns) {
    check_shape(rows, columns);
    const int64_t weights = round_up(packed_bytes(kind, rows, columns), 64);
    const int64_t numbers = kind == Kind::int8 ? round_up(rows, kPanel) : 0;
    auto memory = allocate_lasting(weights + numbers * 8);
    uint8_t* data = memory.get();
    auto* scales = numbers ? reinterpret_cast<float*>(data + weights) : nullptr;
    auto* sums = numbers ? reinterpret_cast<int32_t*>(data + weights + numbers * 4) : nullptr;
    return packed_matrix(kind, rows, columns, data, scales, sums, std::move(memory));
}

void read_row(const Matrix& matrix, int64_t row, float* out) {
    if (!matrix.packed) return read_plain_row(matrix, row, out);
    const uint8_t* panel = matrix.data + row / kPanel * panel_bytes(matrix.kind, matrix.columns);
    if (matrix.kind == Kind::int8)
        read_int8(matrix, panel, row, row % kPanel, out);
    else if (matrix.kind == Kind::int4)
        read_int4(matrix, panel, row % kPanel, out);
    else
        read_packed_floats(matrix, panel, row % kPanel, out);
}

}  // namespace loquent
