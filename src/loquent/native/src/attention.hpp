// Self-attention over pages: from a step's projected queries, keys and values to what each head reads.
//
// A query's arithmetic depends on its position and what it sees alone: keys are visited in blocks of fixed absolute
// positions, each query has its own running maximum and sum (online softmax), and long contexts are cut into chunks of
// fixed absolute positions whose results are combined in ascending order, whatever the threads.
#pragma once

#include "batch.hpp"
#include "pool.hpp"
#include "rotary_table.hpp"
#include "store.hpp"

namespace loquent {

/// `loquent.parts.Attention` without its projections.
struct AttentionPart {
    int64_t layer;
    int64_t heads, kv_heads, head_dim;
    float scale;
    int64_t window = 0;              // keys that a query sees, itself included; 0: all
    int64_t rotary = -1;             // which of the plan's rotaries turns queries and keys (half-split layout on the
                                     // first 2 * pairs dimensions of a head); -1: none
    const float* query_norm = nullptr;   // (head_dim,) RMS norm weights of each head before rotary
    const float* key_norm = nullptr;
    float norm_epsilon = 0;
    // Doge's dynamic mask: value = exp(decay[h] * softplus(step[h] . values of all kv heads + bias[h])), added to the
    // scores; past `keep` visible keys only the `keep` largest (compared as torch/attend.py's `_rounded`) are seen, and
    // of equal ones the most recent.
    int64_t keep = 0;                // 0: no dynamic mask
    const float* mask_decay = nullptr;   // (kv_heads,)
    const float* mask_step = nullptr;    // (kv_heads, kv_heads * head_dim)
    const float* mask_bias = nullptr;    // (kv_heads,) or null
};

/// Norm, turn and store this step's keys, values and mask values, then attend.
/// `qkv` is (rows, (heads + 2 * kv_heads) * head_dim), `read` (rows, heads * head_dim), strides in floats.
/// `tables` are the plan's rotary tables; a segment's is `tables[segment.tables[part.rotary]]`.
void attend(Pool& pool, const AttentionPart& part, const Batch& batch, Store& store,
            const std::vector<RotaryTable>& tables, float* qkv, int64_t qkv_stride, float* read, int64_t read_stride);

}  // namespace loquent
