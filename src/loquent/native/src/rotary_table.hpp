// Cosines and sines of positions, for rotary embeddings: made as positions are used, and forgotten again, since a step
// turns its own tokens alone, however long the text before them.
#pragma once

#include <cstdint>
#include <vector>

namespace loquent {

class RotaryTable {
public:
    /// Positions are kept in blocks of so many.
    static constexpr int64_t kBlock = 64;

    RotaryTable(std::vector<float> frequencies, float factor);

    // Before a step's loops, and not thread-safe: let go of much that the last step did not use, then be ready for the
    // positions in [start, stop).
    void begin_step();
    void reach(int64_t start, int64_t stop);

    int64_t pairs() const { return (int64_t)frequencies_.size(); }
    /// `pairs` numbers for each position from this one to the end of its block.
    const float* cosines(int64_t position) const {
        return blocks_[position / kBlock].numbers.data() + position % kBlock * pairs();
    }
    const float* sines(int64_t position) const { return cosines(position) + kBlock * pairs(); }

    /// What it takes.
    int64_t bytes() const;

private:
    struct Block {
        std::vector<float> numbers;   // cosines, then sines; none: forgotten
        int64_t used = 0;             // the last step that used it
    };
    void fill(int64_t index);

    std::vector<float> frequencies_;
    float factor_;
    std::vector<Block> blocks_;
    int64_t held_ = 0, step_ = 0;
};

}  // namespace loquent
