// From exact pages to coded ones: the numbers of a group as codes, with the least float16 range that holds them.
#include "kernels/attention_kernels.hpp"
#include "kernels/attention_rows.hpp"
#include "numbers.hpp"

namespace loquent::LOQUENT_ISA {

namespace {

constexpr float kMostHalf = 65504.0f;

/// How far above the smallest number of a group code 0 lies, as a part of the group's range, and how many steps it is
/// from there to the largest (`loquent.cache.levels`).
template <int Bits>
constexpr float kInset = Bits == 1 ? 0.25f : Bits == 2 ? 0.125f : 0.0f;
template <int Bits>
constexpr float kSteps = Bits == 1 ? 1.5f : Bits == 2 ? 3.5f : static_cast<float>((1 << Bits) - 1);

/// A group's m and s: code c is the number m + s * c.
struct Scale {
    uint16_t m, s;
};

float limited(float x) { return x < -kMostHalf ? -kMostHalf : x > kMostHalf ? kMostHalf : x; }

/// The float16 number next to a finite one that is not the last: the one above, or the one below.
uint16_t next_half(uint16_t half, bool above) {
    const bool negative = half & 0x8000, zero = !(half & 0x7fff);
    if (zero) return above ? 0x0001 : 0x8001;
    return static_cast<uint16_t>(negative == above ? half - 1 : half + 1);
}

/// The largest float16 number that is not above x, which is limited; zero is positive.
uint16_t half_below(float x) {
    const uint16_t half = f16_of(limited(x));
    const uint16_t found = float_of_f16(half) > limited(x) ? next_half(half, false) : half;
    return found == 0x8000 ? 0 : found;
}

/// The smallest one that is not below x, which is limited.
uint16_t half_above(float x) {
    const uint16_t half = f16_of(limited(x));
    const uint16_t found = float_of_f16(half) < limited(x) ? next_half(half, true) : half;
    return found == 0x8000 ? 0 : found;
}

/// The scale of `count` numbers; where one of them is infinite or no number, s is none.
template <int Bits>
Scale scale_of(const float* x, int64_t count) {
    Vec lowest = splat(INFINITY), most = splat(-INFINITY), trouble = {};
    for (int64_t i = 0; i < count; i += kLanes) {
        const int here = count - i < kLanes ? static_cast<int>(count - i) : kLanes;
        const Vec numbers = load_some(x + i, here, x[i]);
        lowest = min(numbers, lowest), most = max(numbers, most), trouble = trouble + numbers * 0.0f;
    }
    if (sum(trouble) != 0.0f) return {0, 0x7e00};
    const float low = -highest(-lowest), high = highest(most);
    const uint16_t m = half_below(kInset<Bits> > 0.0f ? low + kInset<Bits> * (high - low) : low);
    return {m, half_above((high - float_of_f16(m)) / kSteps<Bits>)};
}

/// The codes of `count` numbers; those behind them, to whole units, are 0.
template <int Bits>
void encode(const float* x, int64_t count, Scale scale, Unit<Bits>* units) {
    const Vec m = splat(float_of_f16(scale.m)), s = splat(float_of_f16(scale.s));
    const Vec none = {}, last = splat(static_cast<float>((1 << Bits) - 1));
    const Vec shift = splat(12582912.0f);  // 1.5 * 2^23: adding it rounds to whole numbers, of equal ones to the even
    const Ints coded = (s > 0.0f) | (s < 0.0f);
    Ints codes[kVectors];
    for (int64_t first = 0; first < count; first += 16) {
        for (int part = 0; part < kVectors; ++part) {
            const int64_t i = first + part * kLanes, left = larger(0, count - i);
            const int here = static_cast<int>(smaller(kLanes, left));
            const Vec steps = (load_some(x + (here ? i : 0), here) - m) / s;
            const Vec whole = min(last, max(none, steps)) + shift - shift;
            codes[part] = to_int((coded & (lane_numbers() < here)) ? whole : none);
        }
        *units++ = pack<Bits>(codes);
    }
}

/// `count` numbers from exact pages, as floats.
void widen_row(Kind kind, const uint8_t* from, int64_t count, float* to) {
    if (kind == Kind::float32)
        std::memcpy(to, from, count * 4);
    else
        for (int64_t i = 0; i < count; ++i) to[i] = float_of_bf16(number_at<uint16_t>(from, i));
}

template <class Number>
Number* plane(const LayerView& view, const LayerView::Plane& which, int64_t head, int64_t page) {
    return (Number*)plane_at(view, which, head, page);
}

template <int Bits>
void code_head_keys(const CodeTask& task, int64_t head) {
    const int64_t dims = task.part->head_dim, slots = task.slots, bytes = task.kind == Kind::float32 ? 4 : 2;
    const auto* keys = plane<const uint8_t>(task.exact, task.exact.keys, head, task.from);
    auto* codes = plane<Unit<Bits>>(task.coded, task.coded.keys, head, task.to);
    auto* scales = plane<uint16_t>(task.coded, task.coded.key_scales, head, task.to);
    for (int64_t d = 0; d < dims; ++d, keys += slots * bytes, codes += slots / 16) {
        widen_row(task.kind, keys, slots, task.scratch);
        const Scale scale = scale_of<Bits>(task.scratch, slots);
        scales[d] = scale.m, scales[dims + d] = scale.s;
        encode<Bits>(task.scratch, slots, scale, codes);
    }
}

/// The values of all heads of the token in a slot, side by side.
void gather_values(const CodeTask& task, int64_t slot, float* to) {
    const int64_t dims = task.part->head_dim, bytes = task.kind == Kind::float32 ? 4 : 2;
    for (int64_t head = 0; head < task.part->kv_heads; ++head) {
        const auto* values = plane<const uint8_t>(task.exact, task.exact.values, head, task.from);
        widen_row(task.kind, values + slot * whole_vectors(dims) * bytes, dims, to + head * dims);
    }
}

template <int Bits>
void code_token_values(const CodeTask& task, int64_t slot) {
    const int64_t dims = task.part->head_dim, slots = task.slots, channels = task.part->kv_heads * dims;
    gather_values(task, slot, task.scratch);
    auto* scales = plane<uint16_t>(task.coded, task.coded.value_scales, 0, task.to) + slot;
    const bool by_head = codes_values_by_head(dims);
    for (int64_t first = 0; first < channels; first += slots, scales += 2 * slots) {
        const int64_t count = channels - first < slots ? channels - first : slots;
        const Scale scale = scale_of<Bits>(task.scratch + first, count);
        scales[0] = scale.m, scales[slots] = scale.s;
        // Of one head at a time, where each has codes of its own.
        for (int64_t channel = first, end; channel < first + count; channel = end) {
            const int64_t head = by_head ? channel / dims : 0, stride = by_head ? dims : whole_vectors(channels);
            end = by_head ? smaller(first + count, (head + 1) * dims) : first + count;
            auto* codes = plane<Unit<Bits>>(task.coded, task.coded.values, head, task.to);
            encode<Bits>(task.scratch + channel, end - channel, scale,
                         codes + (slot * stride + channel - head * dims) / 16);
        }
    }
}

template <int Bits>
void code_some_values(const CodeTask& task, int64_t first_slot) {
    for (int64_t slot = first_slot; slot < first_slot + kCodeTokens; ++slot) code_token_values<Bits>(task, slot);
}

}  // namespace

void code_keys(const CodeTask& task, int64_t head) {
    if (task.part->keep)
        std::memcpy(plane<float>(task.coded, task.coded.mask, head, task.to),
                    plane<const float>(task.exact, task.exact.mask, head, task.from), task.slots * sizeof(float));
    switch (task.bits) {
        case 1: return code_head_keys<1>(task, head);
        case 2: return code_head_keys<2>(task, head);
        case 4: return code_head_keys<4>(task, head);
        default: return code_head_keys<8>(task, head);
    }
}

void code_values(const CodeTask& task, int64_t first_slot) {
    switch (task.bits) {
        case 1: return code_some_values<1>(task, first_slot);
        case 2: return code_some_values<2>(task, first_slot);
        case 4: return code_some_values<4>(task, first_slot);
        default: return code_some_values<8>(task, first_slot);
    }
}

}  // namespace loquent::LOQUENT_ISA
