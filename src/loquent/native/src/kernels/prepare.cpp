// Rows of floats in the form that a kind of weights is multiplied with; the products are product.cpp's.
#include "../product.hpp"
#include "product_dots.hpp"

namespace loquent::LOQUENT_ISA {
namespace {

void round_to_bf16(const float* x, int64_t columns, uint16_t* to) {
    using Unsigned = uint32_t __attribute__((vector_size(kLanes * 4)));
    using Halves = uint16_t __attribute__((vector_size(kLanes * 2)));
    for (int64_t c = 0; c < columns; c += kLanes) {
        const int count = columns - c < kLanes ? (int)(columns - c) : kLanes;
        const Unsigned bits = (Unsigned)(count == kLanes ? load(x + c) : load_some(x + c, count));
        const Unsigned rounded = bits + 0x7fff + (bits >> 16 & 1), quiet = bits | 0x400000;
        const Unsigned chosen = (bits & 0x7fffffff) > 0x7f800000 ? quiet : rounded;
        const Halves halves = __builtin_convertvector(chosen >> 16, Halves);
        std::memcpy(to + c, &halves, count * 2);
    }
}

/// max |x|, NaN where a number is not finite.
float largest(const float* x, int64_t columns) {
    Vec most{};
    Ints odd{};
    for (int64_t c = 0; c < columns; c += kLanes) {
        const Vec v = abs(columns - c < kLanes ? load_some(x + c, (int)(columns - c)) : load(x + c));
        most = max(most, v);
        odd |= (Ints)v >= 0x7f800000;
    }
    const Vec marks = (Vec)(odd & 0x3f800000);
    return highest(marks) > 0 ? NAN : highest(most);
}

/// `columns` whole numbers to `to`, `padded` of them written; where `sums` is given, those of groups of 32 too.
void quantize(const float* x, int64_t columns, int64_t padded, float factor, int offset, int8_t* to, float* sums) {
    using Bytes = int8_t __attribute__((vector_size(kLanes)));
    const Vec shift = splat(12582912.0f);  // 1.5 * 2^23: adding it rounds to whole numbers
    Ints sum{};
    for (int64_t c = 0; c < padded; c += kLanes) {
        const int count = columns - c < kLanes ? (columns > c ? (int)(columns - c) : 0) : kLanes;
        const Vec v = count == kLanes ? load(x + c) : load_some(x + c, count);
        const Ints q = (Ints)(v * factor + shift) - (Ints)shift;
        const Bytes bytes = __builtin_convertvector(q + offset, Bytes);
        std::memcpy(to + c, &bytes, padded - c < kLanes ? padded - c : kLanes);
        if (!sums) continue;
        sum += q;
        if ((c + kLanes) % kGroup) continue;
        sums[c / kGroup] = loquent::LOQUENT_ISA::sum(to_float(sum));
        sum = Ints{};
    }
}

}  // namespace

void prepare_row(const float* x, Prepared& prepared, int64_t row) {
    uint8_t* to = prepared.data + row * prepared.stride;
    const int64_t columns = prepared.columns;
    if (prepared.kind == Kind::bfloat16) {
        round_to_bf16(x, columns, (uint16_t*)to);
        if (columns % 2) std::memset(to + columns * 2, 0, 2);
        return;
    }
    if (prepared.kind != Kind::int8 && prepared.kind != Kind::int4) {
        std::memcpy(to, x, columns * sizeof(float));
        return;
    }
    const bool grouped = prepared.kind == Kind::int4;
    const int64_t unit = grouped ? kGroup : 4, padded = (columns + unit - 1) / unit * unit;
    const float most = largest(x, columns);
    prepared.scales[row] = most < 1e-30f ? 0.0f : most / 127.0f;
    const float factor = most >= 1e-30f ? 127.0f / most : 0.0f;
    float* sums = grouped ? prepared.sums + row * ((columns + kGroup - 1) / kGroup) : nullptr;
    quantize(x, columns, padded, factor, grouped ? 0 : Int8Dot::kOffset, (int8_t*)to, sums);
}

}  // namespace loquent::LOQUENT_ISA
