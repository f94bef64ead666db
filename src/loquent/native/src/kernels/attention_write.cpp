// Tokens' way into the store: head norms, rotary positions, conversion, and the dynamic mask's values.
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
    for (i = 0; i + kLanes <= dims; i += kLanes) store(head + i, load(head + i) * factor * load(weight + i));
    for (; i < dims; ++i) head[i] = head[i] * factor * weight[i];
}

void turn_head(float* head, int64_t pairs, const float* cosines, const float* sines) {
    float* other = head + pairs;
    int64_t i = 0;
    for (; i + kLanes <= pairs; i += kLanes) {
        const Vec low = load(head + i), high = load(other + i), cosine = load(cosines + i), sine = load(sines + i);
        store(head + i, low * cosine - high * sine);
        store(other + i, high * cosine + low * sine);
    }
    for (; i < pairs; ++i) {
        const float low = head[i], high = other[i];
        head[i] = low * cosines[i] - high * sines[i];
        other[i] = high * cosines[i] + low * sines[i];
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
    if (kind == Kind::float32) {
        if (stride == 1)
            std::memcpy(to, from, count * 4);
        else
            for (int64_t i = 0; i < count; ++i) std::memcpy(to + i * stride * 4, from + i, 4);
    } else if (kind == Kind::bfloat16) {
        for (int64_t i = 0; i < count; ++i) {
            const uint16_t bits = bf16_of(from[i]);
            std::memcpy(to + i * stride * 2, &bits, 2);
        }
    } else {
        for (int64_t i = 0; i < count; ++i) to[i * stride] = static_cast<uint8_t>(static_cast<int8_t>(from[i]));
    }
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

/// One token's keys or values of one head; `to` is where they go, `scale` where an int8 store's scale does.
void put_head(const WriteTask& task, const float* numbers, uint8_t* to, int64_t stride, float* scale) {
    const int64_t dims = task.part->head_dim;
    if (task.kind == Kind::int8) {
        std::memcpy(task.scratch, numbers, dims * 4);
        *scale = quantize(task.scratch, dims);
        numbers = task.scratch;
    }
    put(task.kind, numbers, dims, to, stride);
}

void write_head(const WriteTask& task, int64_t head) {
    const LayerView& view = task.view;
    const AttentionPart& part = *task.part;
    const int64_t dims = part.head_dim, width = whole_vectors(dims), element = bytes_of(task.kind);
    for (int64_t token = 0; token < task.count; ++token) {
        const int64_t position = task.position + token;
        const int64_t page = task.pages[position / task.page_size], slot = position % task.page_size;
        const float* row = task.qkv + token * task.qkv_stride;
        const float *keys = row + (part.heads + head) * dims, *values = keys + part.kv_heads * dims;
        put_head(task, keys, find(view, view.keys, page, head) + slot * element, task.slots,
                 (float*)find(view, view.key_scales, page, head) + slot);
        put_head(task, values, find(view, view.values, page, head) + slot * width * element, 1,
                 (float*)find(view, view.value_scales, page, head) + slot);
        if (part.keep)
            ((float*)find(view, view.mask, page, head))[slot] =
                mask_value(part, head, row + (part.heads + part.kv_heads) * dims);
    }
}

}  // namespace

void write_tokens(const WriteTask& task) {
    const AttentionPart& part = *task.part;
    const int64_t dims = part.head_dim;
    for (int64_t token = 0; token < task.count; ++token)
        for (int64_t head = 0; head < part.heads + part.kv_heads; ++head) {
            float* numbers = task.qkv + token * task.qkv_stride + head * dims;
            const float* weight = head < part.heads ? part.query_norm : part.key_norm;
            if (weight) norm_head(numbers, dims, weight, part.norm_epsilon);
            const int64_t angles = token * task.pairs;
            if (task.pairs) turn_head(numbers, task.pairs, task.cosines + angles, task.sines + angles);
        }
    // Head by head: a head's page of keys, of which each token touches every line, stays in the cache meanwhile.
    for (int64_t head = 0; head < part.kv_heads; ++head) write_head(task, head);
}

}  // namespace loquent::LOQUENT_ISA
