// What attention's code for each instruction set is told: plain data, so that no inline function of the rest of the
// program is compiled for an instruction set that a machine may lack.
#pragma once

#include <cstdint>

#include "attention.hpp"

namespace loquent {

constexpr int kBlock = 64;      // positions whose scores a query turns into weights at once
constexpr int kChunk = 512;     // positions that are attended by themselves, then combined; a multiple of kBlock
constexpr int kShareRows = 64;  // query rows that are attended together, at most

/// The queries, keys and values of some tokens of one segment that follow each other, and where they belong.
struct WriteTask {
    const AttentionPart* part;
    LayerView view;
    Kind kind;
    int64_t page_size, slots;
    const int64_t* pages;
    int64_t position, count;   // of the first token; how many
    float* qkv;                // (count, heads + 2 * kv_heads, head_dim); queries and keys are changed in place
    int64_t qkv_stride;
    const float* cosines;      // (count, pairs), of the tokens' positions
    const float* sines;
    int64_t pairs;             // 0: no rotary
    float* scratch;            // (head_dim,)
};

/// A page that has its exact keys and values, and is to have the coded ones.
struct CodeTask {
    const AttentionPart* part;
    LayerView exact, coded;
    Kind kind;                 // of the exact pages
    int64_t bits;
    int64_t slots;             // of a page; as many channels are a group of values
    int64_t from, to;          // the pages' numbers
    float* scratch;            // `code_scratch` floats, 64-byte aligned
};

/// Floats that a CodeTask needs to work in.
constexpr int64_t code_scratch(const AttentionPart& part, int64_t slots) {
    const int64_t width = whole_vectors(part.kv_heads * part.head_dim);
    return width > slots ? width : slots;
}

/// Tokens whose values are coded together.
constexpr int64_t kCodeTokens = 16;

/// Which keys Doge's dynamic mask lets a query see: those whose rounded value is above `threshold`, and of those equal
/// to it the ones at `oldest` and later.
struct Kept {
    int32_t threshold = INT32_MIN;   // below every value: all keys
    int64_t oldest = 0;
};

/// Some query rows of one key-value head of one segment, and the chunks of positions that they are attended over.
/// Row r is token `r / group` of the segment and query head `kv_head * group + r % group`.
struct ReadTask {
    const AttentionPart* part;
    LayerView view;
    Kind kind;
    int64_t page_size, slots;
    const int64_t* pages;
    // The same where pages are seen coded: queries see those before `first_exact` so.
    int64_t bits;                        // 0: there are no coded pages
    int64_t residual;
    LayerView coded;
    const int64_t* coded_pages;
    int64_t start;                       // the position of the segment's first token
    int64_t kv_head;
    int64_t first, count;                // rows, `count` <= kShareRows
    int64_t first_chunk, last_chunk;     // the last is not included
    // What is read after these rows, and is fetched meanwhile: positions [next_low, next_high) of `next_pages` (null:
    // nothing).
    const int64_t* next_pages;
    int64_t next_kv_head, next_low, next_high;
    const float* qkv;                    // of the segment's first token
    int64_t qkv_stride;
    const Kept* kept;                    // one per token, or null where all keys are seen
    float* read;                         // of the segment's first token
    int64_t read_stride;
    // Null, or where the results of the one chunk go instead of `read`: `partial_floats` for each row.
    float* partials;
    int64_t partial_stride;              // floats from row to row
    float* scratch;                      // `read_scratch` floats, 64-byte aligned
};

/// Floats of a row's result over one chunk: its highest score, the sum of its weights, what it read.
constexpr int64_t partial_floats(int64_t head_dim) { return 16 + whole_vectors(head_dim); }

/// Floats for one block's keys, values and three numbers for each slot.
constexpr int64_t block_floats(int64_t head_dim) { return kBlock * (head_dim + whole_vectors(head_dim) + 3); }

/// Floats that a head's rows need for coded pages: of a block's pages m and s of keys, and queries with s in them; of
/// its groups of values m and s.
constexpr int64_t coded_floats(int64_t head_dim) {
    const int64_t pages = kBlock / 16, rows = 4, groups = head_dim / 16 + 2;
    return whole_vectors(head_dim) * (pages * (2 + rows) + rows) + groups * 2 * kBlock;
}

/// Floats that a ReadTask of `rows` needs to work in.
constexpr int64_t read_scratch(int64_t head_dim, int64_t rows) {
    const int64_t own = rows * (whole_vectors(head_dim) + 2 * partial_floats(head_dim));
    return own + 2 * block_floats(head_dim) + coded_floats(head_dim);
}

/// The positions that the query at `position` sees: from `low` up to itself.
constexpr int64_t first_seen(int64_t window, int64_t position) {
    return window && position >= window ? position - window + 1 : 0;
}

/// The first position that the query at `position` sees exactly, where pages before it are seen coded.
constexpr int64_t first_exact(int64_t residual, int64_t page_size, int64_t position) {
    return position + 1 > residual ? (position + 1 - residual) / page_size * page_size : 0;
}

/// A float as Doge's dynamic mask compares it: without its last 8 bits, rounded. Values are never negative.
constexpr int32_t kRoundingHalf = 0x80, kRoundingMask = ~0xFF;

}  // namespace loquent
