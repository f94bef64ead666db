// Attention's functions of one instruction set, as its table names them; what they do is in attention_*.cpp.
#pragma once

#include "kernels/attention_tasks.hpp"

namespace loquent::LOQUENT_ISA {

/// Norm and turn some tokens' queries and keys in place, and store their keys, values and mask values.
void write_tokens(const WriteTask& task);

/// Code a page's keys, and copy its mask values, of one key-value head; all values of `kCodeTokens` of its slots.
void code_keys(const CodeTask& task, int64_t head);
void code_values(const CodeTask& task, int64_t first_slot);

/// What some queries of one key-value head read over some chunks.
void read_rows(const ReadTask& task);

/// Combine `chunks` results over chunks, which follow each other in memory, in their order; `read` is (head_dim,).
/// The first one is changed.
void join_chunks(float* partials, int64_t chunks, int64_t head_dim, float* read);

}  // namespace loquent::LOQUENT_ISA
