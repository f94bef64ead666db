// One token's way into the store: head norms, rotary positions, conversion, and the dynamic mask's values.
#include <cmath>

#include "kernels/attention_kernels.hpp"
#include "numbers.hpp"
#include "simd.hpp"

namespace loquent::LOQUENT_ISA {

namespace {

void norm_head(float* head, int64_t dims, const float* weight, float epsilon) {
    Vec squares = {};
    int64_t i = 0;
    for (; i + kLanes <= dims; i += kLanes) squares = fma(load(head + i), load(head + i), squares);
    const Vec rest = load_some(head + i, static_cast<int>(dims - i));
    squares = fma(rest, rest, squares);
    const float factor = 1.0f / std::sqrt(sum(squares) / static_cast<float>(dims) + epsilon);
    for (i = 0; i < dims; ++i) head[i] = head[i] * factor * weight[i];
}

void turn_head(float* __restrict head, int64_t pairs, const float* __restrict cosines, const float* __restrict sines) {
    for (int64_t i = 0; i < pairs; ++i) {
        const float low = head[i], high = head[pairs + i];
        head[i] = low * cosines[i] - high * sines[i];
        head[pairs + i] = high * cosines[i] + low * sines[i];
    }
}

uint8_t* find(const LayerView& view, const LayerView::Plane& plane, int64_t page, int64_t head) {
    const int64_t inside = page & ((int64_t{1} << view.shift) - 1);
    return view.chunks[page >> view.shift] + plane.offset + head * plane.head_bytes + inside * plane.page_bytes;
}

/// Round numbers to int8 in place; their scale. What is infinite or not a number makes the scale so.
float quantize(float* x, int64_t count) {
    float most = 0.0f, trouble = 0.0f;
    for (int64_t i = 0; i < count; ++i) {
        const float size = std::fabs(x[i]);
        most = size > most ? size : most;
        trouble += x[i] * 0.0f;
    }
    const float inverse = most > 0.0f ? 127.0f / most : 0.0f;
    for (int64_t i = 0; i < count; ++i) {
        const float scaled = x[i] * inverse;
        const float low = scaled > -127.0f ? scaled : -127.0f;
        x[i] = std::nearbyint(low < 127.0f ? low : 127.0f);
    }
    return most / 127.0f + trouble;
}

/// `count` numbers to `to`, `stride` elements apart.
void put(Kind kind, const float* from, int64_t count, uint8_t* to, int64_t stride) {
    if (kind == Kind::float32)
        for (int64_t i = 0; i < count; ++i) std::memcpy(to + i * stride * 4, from + i, 4);
    else if (kind == Kind::bfloat16)
        for (int64_t i = 0; i < count; ++i) {
            const uint16_t bits = bf16_of(from[i]);
            std::memcpy(to + i * stride * 2, &bits, 2);
        }
    else
        for (int64_t i = 0; i < count; ++i) to[i * stride] = static_cast<uint8_t>(static_cast<int8_t>(from[i]));
}

int64_t bytes_of(Kind kind) { return kind == Kind::float32 ? 4 : kind == Kind::bfloat16 ? 2 : 1; }

/// exp(decay * softplus(step . values + bias)), softplus as torch takes it.
float mask_value(const AttentionPart& part, int64_t head, const float* values) {
    const int64_t count = part.kv_heads * part.head_dim;
    const float* step = part.mask_step + head * count;
    Vec sums = {};
    int64_t i = 0;
    for (; i + kLanes <= count; i += kLanes) sums = fma(load(step + i), load(values + i), sums);
    const int rest = static_cast<int>(count - i);
    sums = fma(load_some(step + i, rest), load_some(values + i, rest), sums);
    const double x = sum(sums) + (part.mask_bias ? part.mask_bias[head] : 0.0f);
    const double softplus = x > 20.0 ? x : ::log1p(::exp(x));
    return static_cast<float>(::exp(part.mask_decay[head] * softplus));
}

void write_head(const WriteTask& task, int64_t head, const float* keys, const float* values) {
    const LayerView& view = task.view;
    const int64_t dims = task.part->head_dim, width = whole_vectors(dims), element = bytes_of(task.kind);
    uint8_t* key = find(view, view.keys, task.page, head) + task.slot * element;
    uint8_t* value = find(view, view.values, task.page, head) + task.slot * width * element;
    if (task.kind != Kind::int8) {
        put(task.kind, keys, dims, key, task.slots);
        put(task.kind, values, dims, value, 1);
        return;
    }
    float* scale = (float*)find(view, view.key_scales, task.page, head) + task.slot;
    std::memcpy(task.scratch, keys, dims * 4);
    *scale = quantize(task.scratch, dims);
    put(task.kind, task.scratch, dims, key, task.slots);
    scale = (float*)find(view, view.value_scales, task.page, head) + task.slot;
    std::memcpy(task.scratch, values, dims * 4);
    *scale = quantize(task.scratch, dims);
    put(task.kind, task.scratch, dims, value, 1);
}

}  // namespace

void write_token(const WriteTask& task) {
    const AttentionPart& part = *task.part;
    const int64_t dims = part.head_dim, turned = part.heads + part.kv_heads;
    for (int64_t head = 0; head < turned; ++head) {
        const float* weight = head < part.heads ? part.query_norm : part.key_norm;
        if (weight) norm_head(task.qkv + head * dims, dims, weight, part.norm_epsilon);
        if (task.pairs) turn_head(task.qkv + head * dims, task.pairs, task.cosines, task.sines);
    }
    const float* values = task.qkv + turned * dims;
    for (int64_t head = 0; head < part.kv_heads; ++head) {
        write_head(task, head, task.qkv + (part.heads + head) * dims, values + head * dims);
        if (!part.keep) continue;
        float* mask = (float*)find(task.view, task.view.mask, task.page, head);
        mask[task.slot] = mask_value(part, head, values);
    }
}

}  // namespace loquent::LOQUENT_ISA
