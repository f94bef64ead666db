// Rotary tables: every angle, wherever a step begins, and no more of them than steps use.
#include <cmath>

#include "check.hpp"
#include "rotary_table.hpp"

using namespace loquent;

namespace {

const std::vector<float> kFrequencies{1.0f, 0.25f, 0.001f};

const int64_t kBytesOfBlock = RotaryTable::kBlock * 2 * kFrequencies.size() * sizeof(float);

bool right(const RotaryTable& table, int64_t position, float factor) {
    bool same = true;
    for (size_t i = 0; i < kFrequencies.size(); ++i) {
        const double angle = static_cast<float>(position) * kFrequencies[i];
        same &= table.cosines(position)[i] == static_cast<float>(std::cos(angle)) * factor;
        same &= table.sines(position)[i] == static_cast<float>(std::sin(angle)) * factor;
    }
    return same;
}

void each_position_has_its_angles() {
    for (const float factor : {1.0f, 0.75f})
        for (const int64_t start : {0, 1, 63, 64, 100, 70000}) {
            RotaryTable table(kFrequencies, factor);
            table.begin_step();
            table.reach(start, start + 130);
            bool all = true;
            for (int64_t position = start; position < start + 130; ++position) all &= right(table, position, factor);
            CHECK(all);
            // Those of a block follow each other.
            const int64_t next = (start / RotaryTable::kBlock + 1) * RotaryTable::kBlock;
            CHECK(table.cosines(next) + table.pairs() == table.cosines(next + 1));
            CHECK(table.sines(next) + table.pairs() == table.sines(next + 1));
        }
}

void a_long_text_holds_few() {
    RotaryTable table(kFrequencies, 1.0f);
    for (int64_t position = 0; position < 70000; ++position) {
        table.begin_step();
        table.reach(position, position + 1);
        if (!right(table, position, 1.0f)) return CHECK(!"right"), void();
    }
    CHECK(table.bytes() < 130 * kBytesOfBlock + (1 << 16));
}

void what_a_step_uses_stays() {
    RotaryTable table(kFrequencies, 1.0f);
    for (int64_t step = 0; step < 200; ++step) {
        table.begin_step();
        for (int64_t text = 0; text < 300; ++text) table.reach(1000 * text + step, 1000 * text + step + 1);
        bool all = true;
        for (int64_t text = 0; text < 300; ++text) all &= right(table, 1000 * text + step, 1.0f);
        CHECK(all && table.bytes() < 2 * 300 * kBytesOfBlock + (1 << 19));
    }
}

}  // namespace

int main() {
    each_position_has_its_angles();
    a_long_text_holds_few();
    what_a_step_uses_stays();
    return loquent::test::report();
}
