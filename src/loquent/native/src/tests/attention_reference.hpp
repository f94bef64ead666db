// Attention in float64, straight from its definition: what the store should hold, and what queries should read of it.
#pragma once

#include <array>

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
    Numbers coded_keys, coded_values;   // the same as the codes have it, of the pages that are coded
    std::vector<float> mask;     // (tokens,)
};

inline double stored_number(Kind kind, const uint8_t* plane, int64_t index, const float* scale) {
    if (kind == Kind::float32) return number_at<float>(plane, index);
    if (kind == Kind::bfloat16) return float_of_bf16(number_at<uint16_t>(plane, index));
    return (double)number_at<int8_t>(plane, index) * *scale;
}

// --- codes -----------------------------------------------------------------------------------------------------------

inline int read_code(const uint8_t* unit, int64_t bits, int64_t lane) {
    uint32_t words[4] = {};
    std::memcpy(words, unit, 2 * bits);
    if (bits == 4) return words[lane % 2] >> 4 * (lane / 2) & 15;
    return words[lane * bits / 32] >> lane * bits % 32 & ((1 << bits) - 1);
}

/// Code `index` of a plane of codes.
inline int code_of(const uint8_t* plane, int64_t bits, int64_t index) {
    return read_code(plane + index / 16 * 2 * bits, bits, index % 16);
}

/// All finite float16 numbers, ascending.
inline const std::vector<float>& halves() {
    static const std::vector<float> all = [] {
        std::vector<float> found;
        for (int sign : {0x8000, 0})
            for (int half = 0; half < 0x7c00; ++half) found.push_back(float_of_f16((uint16_t)(half | sign)));
        std::sort(found.begin(), found.end());
        return found;
    }();
    return all;
}

/// m, s and the codes of a group of numbers, as docs/memory.md says.
struct Group {
    float m, s;
    std::vector<int> codes;

    Group(const std::vector<float>& x, int64_t bits) {
        const float lowest = *std::min_element(x.begin(), x.end()), most = *std::max_element(x.begin(), x.end());
        const auto within = [](float number) { return std::max(-65504.0f, std::min(65504.0f, number)); };
        const float levels = (float)((1 << bits) - 1), range = most - lowest;
        const float first = bits == 1 ? lowest + range / 4 : bits == 2 ? lowest + range / 8 : lowest;
        m = *(std::upper_bound(halves().begin(), halves().end(), within(first)) - 1);
        const float steps = bits < 4 ? levels + 0.5f : levels;
        s = *std::lower_bound(halves().begin(), halves().end(), within((most - m) / steps));
        for (float number : x)
            codes.push_back(s == 0 ? 0 : (int)std::max(0.0f, std::min(levels, std::nearbyint((number - m) / s))));
    }
};

inline float half_at(const void* plane, int64_t index) { return float_of_f16(number_at<uint16_t>(plane, index)); }

/// Where one head's value is among the codes of a page's values, and those codes.
inline std::pair<const uint8_t*, int64_t> value_codes(const Layer& layer, PageMemory& coded, int64_t page,
                                                      int64_t head, int64_t slot, int64_t d) {
    const int64_t dims = layer.part.head_dim;
    if (dims % 16 == 0) return {coded.values(0, page, head), slot * dims + d};
    return {coded.values(0, page, 0), slot * whole_vectors(layer.part.kv_heads * dims) + head * dims + d};
}

/// What the coded pages of a sequence hold for one head; each page is what coding the exact one gives.
inline void read_coded(const Layer& layer, Store& store, const Sequence& sequence, int64_t head, Stored& stored) {
    PageMemory& coded = store.group(1);
    const int64_t dims = layer.part.head_dim, size = layer.page_size;
    const int64_t pages = coded.shape().stop(sequence.done, size);
    stored.coded_keys.resize(pages * size * dims), stored.coded_values.resize(pages * size * dims);
    for (int64_t index = 0; index < pages; ++index) {
        const int64_t page = sequence.coded_pages[index];
        const uint8_t* keys = coded.keys(0, page, head);
        const void *key_scales = coded.key_scales(0, page, head), *value_scales = coded.value_scales(0, page, 0);
        for (int64_t d = 0; d < dims; ++d) {
            std::vector<float> group;
            for (int64_t slot = 0; slot < size; ++slot)
                group.push_back((float)stored.keys[(index * size + slot) * dims + d]);
            const Group expected(group, layer.bits);
            CHECK(half_at(key_scales, d) == expected.m && half_at(key_scales, dims + d) == expected.s);
            for (int64_t slot = 0; slot < size; ++slot) {
                const int code = code_of(keys, layer.bits, d * size + slot);
                CHECK(code == expected.codes[slot]);
                stored.coded_keys[(index * size + slot) * dims + d] = expected.m + (double)expected.s * code;
            }
        }
        for (int64_t slot = 0; slot < size; ++slot)
            for (int64_t d = 0; d < dims; ++d) {
                const auto [codes, place] = value_codes(layer, coded, page, head, slot, d);
                const int64_t group = (head * dims + d) / size;
                const double m = half_at(value_scales, group * 2 * size + slot);
                const double s = half_at(value_scales, (group * 2 + 1) * size + slot);
                stored.coded_values[(index * size + slot) * dims + d] = m + s * code_of(codes, layer.bits, place);
            }
    }
}

/// The values of all heads of one token, side by side, are coded as they should be.
inline void check_value_codes(const Layer& layer, Store& store, const Sequence& sequence,
                              const std::vector<Stored>& heads, int64_t position) {
    PageMemory& coded = store.group(1);
    const int64_t dims = layer.part.head_dim, size = layer.page_size, channels = layer.part.kv_heads * dims;
    const int64_t page = sequence.coded_pages[position / size], slot = position % size;
    const void* scales = coded.value_scales(0, page, 0);
    for (int64_t first = 0; first < channels; first += size) {
        std::vector<float> group;
        for (int64_t c = first; c < std::min(channels, first + size); ++c)
            group.push_back((float)heads[c / dims].values[position * dims + c % dims]);
        const Group expected(group, layer.bits);
        CHECK(half_at(scales, first / size * 2 * size + slot) == expected.m);
        CHECK(half_at(scales, (first / size * 2 + 1) * size + slot) == expected.s);
        for (int64_t c = first; c < std::min(channels, first + size); ++c) {
            const auto [codes, place] = value_codes(layer, coded, page, c / dims, slot, c % dims);
            CHECK(code_of(codes, layer.bits, place) == expected.codes[c - first]);
        }
    }
}

// --- what is read ----------------------------------------------------------------------------------------------------

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
    if (layer.bits) read_coded(layer, store, sequence, head, stored);
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
    // Pages that end `residual` or more tokens before the end of what the query sees are seen coded.
    const int64_t size = layer.page_size, coded = std::max<int64_t>(0, position + 1 - layer.residual) / size;
    const int64_t exact = layer.bits ? coded * size : 0;
    Numbers scores(position + 1, -INFINITY), read(dims);
    double highest = -INFINITY, total = 0;
    for (int64_t p = low; p <= position; ++p) {
        if (!seen[p]) continue;
        const Numbers& keys = p < exact ? stored.coded_keys : stored.keys;
        double score = 0;
        for (int64_t d = 0; d < dims; ++d) score += x[head * dims + d] * keys[p * dims + d];
        scores[p] = score * part.scale + (part.keep ? stored.mask[p] : 0);
        highest = std::fmax(highest, scores[p]);
    }
    for (int64_t p = low; p <= position; ++p) {
        const double weight = std::exp(scores[p] - highest);
        total += weight;
        const Numbers& values = p < exact ? stored.coded_values : stored.values;
        for (int64_t d = 0; d < dims; ++d) read[d] += weight * values[p * dims + d];
    }
    for (double& number : read) number /= total;
    return read;
}

/// Check the store and everything that one sequence has read, `every` positions apart.
inline void check_sequence(const Layer& layer, Store& store, const Sequence& sequence, int64_t every) {
    const int64_t group = layer.part.heads / layer.part.kv_heads;
    std::vector<Stored> heads;
    for (int64_t kv_head = 0; kv_head < layer.part.kv_heads; ++kv_head)
        heads.push_back(read_store(layer, store, sequence, kv_head));
    const int64_t coded = layer.bits ? store.group(1).shape().stop(sequence.done, layer.page_size) : 0;
    for (int64_t position = 0; position < coded * layer.page_size; ++position)
        check_value_codes(layer, store, sequence, heads, position);
    for (int64_t kv_head = 0; kv_head < layer.part.kv_heads; ++kv_head) {
        const Stored& stored = heads[kv_head];
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
