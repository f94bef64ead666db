// What the attention tests share: sequences of random projections, run in any cuts and batches over a store of rubbish.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstring>
#include <memory>
#include <random>
#include <vector>

#include "attention.hpp"

namespace loquent::test {

/// A layer of attention and its weights; `part` points to them where `connected` says so.
struct Layer {
    AttentionPart part{};
    Kind kind = Kind::float32;
    int64_t page_size = 16;
    int64_t bits = 0, residual = 0;   // of coded pages; 0: there are none
    std::vector<float> frequencies, query_norm, key_norm, decay, step, bias;

    Layer(int64_t heads, int64_t kv_heads, int64_t head_dim) {
        part.heads = heads, part.kv_heads = kv_heads, part.head_dim = head_dim;
        part.scale = 1.0f / std::sqrt((float)head_dim);
    }

    Layer stored(Kind new_kind, int64_t new_page_size) && { return kind = new_kind, page_size = new_page_size, *this; }
    Layer coded(int64_t new_bits, int64_t new_residual) && {
        return bits = new_bits, residual = new_residual, *this;
    }
    Layer windowed(int64_t window) && { return part.window = window, *this; }

    Layer turned(int64_t pairs) && {
        for (int64_t i = 0; i < pairs; ++i) frequencies.push_back(std::pow(10000.0f, -(float)i / (float)pairs));
        return part.rotary = 0, *this;
    }

    Layer normed() && {
        query_norm = numbers(part.head_dim, 1), key_norm = numbers(part.head_dim, 2);
        return part.norm_epsilon = 1e-6f, *this;
    }

    Layer masked(int64_t keep, bool with_bias) && {
        decay = numbers(part.kv_heads, 3), step = numbers(part.kv_heads * part.kv_heads * part.head_dim, 5);
        if (with_bias) bias = numbers(part.kv_heads, 4);
        return part.keep = keep, *this;
    }

    AttentionPart connected() const {
        const auto pointer = [](const std::vector<float>& x) { return x.empty() ? nullptr : x.data(); };
        AttentionPart whole = part;
        whole.query_norm = pointer(query_norm), whole.key_norm = pointer(key_norm);
        whole.mask_decay = pointer(decay), whole.mask_step = pointer(step), whole.mask_bias = pointer(bias);
        return whole;
    }

    int64_t columns() const { return (part.heads + 2 * part.kv_heads) * part.head_dim; }
    int64_t width() const { return part.heads * part.head_dim; }

    static std::vector<float> numbers(int64_t count, unsigned seed) {
        std::mt19937 generator(seed);
        std::normal_distribution<float> normal;
        std::vector<float> made(count);
        for (float& x : made) x = normal(generator);
        return made;
    }
};

/// A sequence's projected tokens, where its pages are, and what its queries have read so far.
struct Sequence {
    std::vector<float> qkv;        // (tokens, columns)
    std::vector<int64_t> pages, coded_pages;
    std::vector<float> read;       // (tokens, width)
    int64_t done = 0;
};

/// A store whose unused slots hold numbers that are none, and the sequences in it.
class World {
public:
    World(const Layer& layer, int threads, unsigned seed)
        : layer_(layer), pool_(threads), generator_(seed),
          store_({{layer.part.kv_heads, layer.part.head_dim, layer.part.keep > 0}}, layer.page_size, layer.kind,
                 groups(layer), layer.bits),
          tables_(1, RotaryTable(layer.frequencies, 1.0f)) {}

    /// Sequences of these lengths; sequence i is the same whatever others there are.
    void add(const std::vector<int64_t>& lengths) {
        int64_t pages = 0, coded_pages = 0;
        for (size_t i = 0; i < lengths.size(); ++i) {
            Sequence sequence;
            sequence.qkv = Layer::numbers(lengths[i] * layer_.columns(), 100 + (unsigned)i);
            sequence.read.resize(lengths[i] * layer_.width());
            sequence.pages.resize((lengths[i] + layer_.page_size - 1) / layer_.page_size);
            pages += (int64_t)sequence.pages.size();
            const int64_t coded = layer_.bits ? this->coded().shape().stop(lengths[i], layer_.page_size) : 0;
            for (int64_t page = 0; page < coded; ++page) sequence.coded_pages.push_back(coded_pages++);
            sequences.push_back(std::move(sequence));
        }
        std::vector<int64_t> order(pages);
        for (int64_t i = 0; i < pages; ++i) order[i] = i;
        std::shuffle(order.begin(), order.end(), generator_);
        for (Sequence& sequence : sequences)
            for (int64_t& page : sequence.pages) page = order.back(), order.pop_back();
        memory().resize(pages);
        for (int64_t page = 0; page < pages; ++page) spoil(page);
        if (layer_.bits) coded().resize(coded_pages);
        int64_t longest = 0;
        for (int64_t length : lengths) longest = std::max(longest, length);
        tables_[0].reach(0, longest);
    }

    /// One step: the next `counts[i]` tokens of sequence i (0: it takes no part).
    void step(const std::vector<int64_t>& counts) {
        const int64_t columns = layer_.columns(), width = layer_.width();
        const int64_t qkv_stride = columns + 3, read_stride = width + 5;
        Batch batch{};
        std::vector<float> qkv;
        const int64_t table = 0;
        forget();
        const std::vector<PageTable> pages = page_tables();
        for (size_t i = 0; i < counts.size(); ++i) {
            if (!counts[i]) continue;
            const Sequence& sequence = sequences[i];
            batch.segments.push_back({batch.rows, counts[i], sequence.done, &pages[2 * i], 0, 0, &table});
            for (int64_t token = sequence.done; token < sequence.done + counts[i]; ++token) {
                const auto begin = sequence.qkv.begin() + token * columns;
                qkv.insert(qkv.end(), begin, begin + columns);
                qkv.insert(qkv.end(), 3, NAN);
            }
            batch.rows += counts[i];
        }
        std::vector<float> read(batch.rows * read_stride, NAN);
        attend(pool_, layer_.connected(), batch, store_, tables_, qkv.data(), qkv_stride, read.data(), read_stride);
        int64_t row = 0;
        for (size_t i = 0; i < counts.size(); ++i) {
            Sequence& sequence = sequences[i];
            for (int64_t end = sequence.done + counts[i]; sequence.done < end; ++sequence.done, ++row)
                std::copy_n(read.begin() + row * read_stride, width, sequence.read.begin() + sequence.done * width);
        }
    }

    /// For each sequence its exact and its coded pages, as steps are told of them.
    std::vector<PageTable> page_tables() const {
        std::vector<PageTable> tables;
        for (const Sequence& sequence : sequences) {
            tables.push_back({sequence.pages.data(), (int64_t)sequence.pages.size(), 0});
            const int64_t coded = layer_.bits ? store_.group(1).shape().stop(sequence.done, layer_.page_size) : 0;
            tables.push_back({sequence.coded_pages.data(), (int64_t)sequence.coded_pages.size(), coded});
        }
        return tables;
    }

    Store& store() { return store_; }
    PageMemory& memory() { return store_.group(0); }
    PageMemory& coded() { return store_.group(1); }
    Pool& pool() { return pool_; }

    std::vector<Sequence> sequences;
    bool forgets = false;   // whether pages go (to hold rubbish) as soon as no query can see them any more

private:
    static std::vector<GroupShape> groups(const Layer& layer) {
        if (!layer.bits) return {{{0}, layer.part.window, -1}};
        return {{{0}, layer.residual + 1, -1}, {{0}, layer.part.window, layer.residual}};
    }

    void forget() {
        if (!forgets) return;
        for (Sequence& sequence : sequences) {
            const auto first = [&](PageMemory& group) { return group.shape().first(sequence.done, layer_.page_size); };
            int64_t gone = first(memory());
            if (layer_.bits) {
                gone = std::min(gone, coded().shape().stop(sequence.done, layer_.page_size));
                const int64_t coded_gone = std::min(first(coded()), (int64_t)sequence.coded_pages.size());
                for (int64_t page = 0; page < coded_gone; ++page) sequence.coded_pages[page] = -1;
            }
            for (int64_t page = 0; page < std::min(gone, (int64_t)sequence.pages.size()); ++page) {
                if (sequence.pages[page] >= 0) spoil(sequence.pages[page]);
                sequence.pages[page] = -1;
            }
        }
    }

    void spoil(int64_t page) {
        const int64_t dims = layer_.part.head_dim, width = whole_vectors(dims), slots = store_.slots();
        const int64_t element = layer_.kind == Kind::float32 ? 4 : layer_.kind == Kind::bfloat16 ? 2 : 1;
        for (int64_t head = 0; head < layer_.part.kv_heads; ++head) {
            std::memset(memory().keys(0, page, head), 0xff, dims * slots * element);
            // Not the padding of values, which is never written.
            for (int64_t slot = 0; slot < slots; ++slot)
                std::memset(memory().values(0, page, head) + slot * width * element, 0xff, dims * element);
            if (layer_.kind == Kind::int8) {
                std::fill_n(memory().key_scales(0, page, head), slots, NAN);
                std::fill_n(memory().value_scales(0, page, head), slots, INFINITY);
            }
            if (layer_.part.keep) std::fill_n(memory().mask(0, page, head), slots, NAN);
        }
    }

    const Layer& layer_;
    Pool pool_;
    std::mt19937 generator_;
    Store store_;
    std::vector<RotaryTable> tables_;
};

}  // namespace loquent::test
