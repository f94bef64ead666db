// Angles are float32 products, as transformers makes them; their cosines and sines are taken in double.
#include "rotary_table.hpp"

#include <cmath>

namespace loquent {
namespace {

constexpr int64_t kKeptBlocks = 128;   // a few megabytes; steps that use more keep what they use

}  // namespace

RotaryTable::RotaryTable(std::vector<float> frequencies, float factor)
    : frequencies_(std::move(frequencies)), factor_(factor) {}

void RotaryTable::begin_step() {
    ++step_;
    if (held_ <= kKeptBlocks) return;
    for (Block& block : blocks_)
        if (!block.numbers.empty() && block.used + 1 < step_) std::vector<float>().swap(block.numbers), --held_;
}

void RotaryTable::reach(int64_t start, int64_t stop) {
    const int64_t end = (stop + kBlock - 1) / kBlock;
    if (end > static_cast<int64_t>(blocks_.size())) blocks_.resize(end);
    for (int64_t index = start / kBlock; index < end; ++index) {
        blocks_[index].used = step_;
        if (blocks_[index].numbers.empty()) fill(index);
    }
}

int64_t RotaryTable::bytes() const {
    int64_t bytes = blocks_.capacity() * sizeof(Block);
    for (const Block& block : blocks_) bytes += block.numbers.capacity() * sizeof(float);
    return bytes;
}

void RotaryTable::fill(int64_t index) {
    const int64_t count = kBlock * pairs();
    std::vector<float> numbers(2 * count);
    for (int64_t i = 0; i < count; ++i) {
        const float angle = static_cast<float>(index * kBlock + i / pairs()) * frequencies_[i % pairs()];
        numbers[i] = static_cast<float>(std::cos(static_cast<double>(angle))) * factor_;
        numbers[count + i] = static_cast<float>(std::sin(static_cast<double>(angle))) * factor_;
    }
    blocks_[index].numbers = std::move(numbers);
    ++held_;
}

}  // namespace loquent
