// Attention in float64, straight from its definition: what the store should hold, and what queries should read of it.
#pragma once

#include "attention_cases.hpp"
#include "check.hpp"
#include "numbers.hpp"

namespace loquent::test {

using Numbers = std::vector<double>;

/// The queries, keys and values of one token as the definition has them; (heads + 2 kv_heads, head_dim).
inline Numbers prepare(const Layer& layer, const float* token, int64_t position) {
    const AttentionPart& part = layer.part;
    Numbers x(token, token + layer.columns());
    const int64_t pairs = (int64_t)layer.frequencies.size();
    for (int64_t head = 0; head < part.heads + part.kv_heads; ++head) {
        double* h = x.data() + head * part.head_dim;
        const std::vector<float>& weight = head < part.heads ? layer.query_norm : layer.key_norm;
        double squares = 0;
        for (int64_t i = 0; i < part.head_dim; ++i) squares += h[i] * h[i];
        const double factor = 1 / std::sqrt(squares / (double)part.head_dim + part.norm_epsilon);
        for (size_t i = 0; i < weight.size(); ++i) h[i] *= factor * weight[i];
        for (int64_t i = 0; i < pairs; ++i) {
            const double angle = (float)position * layer.frequencies[i], a = h[i], b = h[pairs + i];
            h[i] = a * std::cos(angle) - b * std::sin(angle);
            h[pairs + i] = b * std::cos(angle) + a * std::sin(angle);
        }
    }
    return x;
}

/// Everything one key-value head of a sequence has in the store.
struct Stored {
    Numbers keys, values;        // (tokens, head_dim)
    std::vector<float> mask;     // (tokens,)
};

inline double stored_number(Kind kind, const uint8_t* plane, int64_t index, const float* scale) {
    if (kind == Kind::float32) return number_at<float>(plane, index);
    if (kind == Kind::bfloat16) return float_of_bf16(number_at<uint16_t>(plane, index));
    return (double)number_at<int8_t>(plane, index) * *scale;
}

inline Stored read_store(const Layer& layer, Store& store, const Sequence& sequence, int64_t head) {
    const PageMemory& memory = store.group(0);
    const int64_t dims = layer.part.head_dim, slots = store.slots();
    Stored stored;
    for (int64_t position = 0; position < sequence.done; ++position) {
        const int64_t page = sequence.pages[position / layer.page_size], slot = position % layer.page_size;
        const bool scaled = layer.kind == Kind::int8;
        const float* key_scale = scaled ? memory.key_scales(0, page, head) + slot : nullptr;
        const float* value_scale = scaled ? memory.value_scales(0, page, head) + slot : nullptr;
        for (int64_t d = 0; d < dims; ++d) {
            stored.keys.push_back(stored_number(layer.kind, memory.keys(0, page, head), d * slots + slot, key_scale));
            const int64_t index = slot * whole_vectors(dims) + d;
            stored.values.push_back(stored_number(layer.kind, memory.values(0, page, head), index, value_scale));
        }
        if (layer.part.keep) stored.mask.push_back(memory.mask(0, page, head)[slot]);
    }
    return stored;
}

inline double mask_value(const Layer& layer, int64_t head, const double* values) {
    const int64_t count = layer.part.kv_heads * layer.part.head_dim;
    double x = layer.bias.empty() ? 0 : layer.bias[head];
    for (int64_t i = 0; i < count; ++i) x += (double)layer.step[head * count + i] * values[i];
    return std::exp(layer.decay[head] * std::log1p(std::exp(x)));
}

/// The store holds what the definition says, to the precision of its kind.
inline void check_stored(const Layer& layer, const Sequence& sequence, const Stored& stored, int64_t head) {
    const AttentionPart& part = layer.part;
    for (int64_t position = 0; position < sequence.done; ++position) {
        const Numbers x = prepare(layer, sequence.qkv.data() + position * layer.columns(), position);
        const double* key = x.data() + (part.heads + head) * part.head_dim;
        const double* values = x.data() + (part.heads + part.kv_heads) * part.head_dim;
        const double* value = values + head * part.head_dim;
        for (const auto& [expected, actual] : {std::pair(key, &stored.keys), {value, &stored.values}}) {
            double most = 0;
            for (int64_t d = 0; d < part.head_dim; ++d) most = std::fmax(most, std::fabs(expected[d]));
            for (int64_t d = 0; d < part.head_dim; ++d) {
                const double error = std::fabs((*actual)[position * part.head_dim + d] - expected[d]);
                const double relative = layer.kind == Kind::float32 ? 0 : 0.00392 * std::fabs(expected[d]);
                CHECK(error <= 3e-6 * std::fmax(1, most) + (layer.kind == Kind::int8 ? 0.5 / 127 * most : relative));
            }
        }
        if (part.keep) {
            const double expected = mask_value(layer, head, values);
            CHECK(std::fabs(stored.mask[position] - expected) <= 2e-5 * expected);
        }
    }
}

/// Which of the positions [low, position] the dynamic mask lets a query see.
inline std::vector<bool> chosen(const Layer& layer, const Stored& stored, int64_t low, int64_t position) {
    std::vector<bool> seen(position + 1);
    std::vector<std::pair<int32_t, int64_t>> values;
    for (int64_t p = low; p <= position; ++p) {
        const int32_t bits = layer.part.keep ? (int32_t)bits_of(stored.mask[p]) : 0;
        values.push_back({(bits + 0x80) & ~0xFF, p});
    }
    std::sort(values.rbegin(), values.rend());
    if (layer.part.keep && (int64_t)values.size() > layer.part.keep) values.resize(layer.part.keep);
    for (const auto& value : values) seen[value.second] = true;
    return seen;
}

/// What query head `head` of the token at `position` reads.
inline Numbers attend_one(const Layer& layer, const Sequence& sequence, const Stored& stored, int64_t head,
                          int64_t position) {
    const AttentionPart& part = layer.part;
    const int64_t dims = part.head_dim, low = part.window ? std::max<int64_t>(0, position - part.window + 1) : 0;
    const Numbers x = prepare(layer, sequence.qkv.data() + position * layer.columns(), position);
    const std::vector<bool> seen = chosen(layer, stored, low, position);
    Numbers scores(position + 1, -INFINITY), read(dims);
    double highest = -INFINITY, total = 0;
    for (int64_t p = low; p <= position; ++p) {
        if (!seen[p]) continue;
        double score = 0;
        for (int64_t d = 0; d < dims; ++d) score += x[head * dims + d] * stored.keys[p * dims + d];
        scores[p] = score * part.scale + (part.keep ? stored.mask[p] : 0);
        highest = std::fmax(highest, scores[p]);
    }
    for (int64_t p = low; p <= position; ++p) {
        const double weight = std::exp(scores[p] - highest);
        total += weight;
        for (int64_t d = 0; d < dims; ++d) read[d] += weight * stored.values[p * dims + d];
    }
    for (double& number : read) number /= total;
    return read;
}

/// Check the store and everything that one sequence has read, `every` positions apart.
inline void check_sequence(const Layer& layer, Store& store, const Sequence& sequence, int64_t every) {
    const int64_t group = layer.part.heads / layer.part.kv_heads;
    for (int64_t kv_head = 0; kv_head < layer.part.kv_heads; ++kv_head) {
        const Stored stored = read_store(layer, store, sequence, kv_head);
        check_stored(layer, sequence, stored, kv_head);
        for (int64_t head = kv_head * group; head < (kv_head + 1) * group; ++head)
            for (int64_t position = (sequence.done - 1) % every; position < sequence.done; position += every) {
                const Numbers expected = attend_one(layer, sequence, stored, head, position);
                const float* actual = sequence.read.data() + position * layer.width() + head * layer.part.head_dim;
                for (int64_t d = 0; d < layer.part.head_dim; ++d) CHECK_NEAR(actual[d], expected[d], 1e-5);
            }
    }
}

}  // namespace loquent::test
