// What one step reads: the tokens of several sequences, packed end to end; plain data, checked by whoever makes it.
#pragma once

#include <cstdint>
#include <vector>

namespace loquent {

/// The pages of one group that a sequence has: position p lives in slot p % page_size of page pages[p / page_size].
struct PageTable {
    const int64_t* pages;          // -1 for those behind the group's window
    int64_t count;
    int64_t coded;                 // of a coded group: how many pages hold what they are to hold already
};

/// The tokens of one sequence in a step (the C++ side of `loquent.engine.backend.Segment`).
struct Segment {
    int64_t first;                 // the row of its first token in the step
    int64_t length;                // how many tokens, >= 1
    int64_t start;                 // the position of its first token: how many the store holds before
    const PageTable* pages;        // for each group of the store
    int64_t wanted;                // how many of its last rows come back: hidden states, logits or both
    int64_t scored;                // how many of the last of those want logits
    const int64_t* tables;         // for each rotary of the plan, which table of cosines it uses
};

struct Batch {
    std::vector<Segment> segments;
    const int64_t* tokens;         // (rows,)
    int64_t rows;                  // tokens in all
};

}  // namespace loquent
