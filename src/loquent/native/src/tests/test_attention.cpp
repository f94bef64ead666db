// Attention against its definition in float64, and to the bit against itself in other cuts, batches and threads.
// `test_attention time [shape]` prints how long it takes instead.
#include <cstring>

#include "attention_reference.hpp"
#include "attention_timing.hpp"

using namespace loquent;
using namespace loquent::test;

namespace {

constexpr Kind kKinds[] = {Kind::float32, Kind::bfloat16, Kind::int8};

/// Layers with coded pages: groups of values that are a head's, several to a head, and across heads; blocks that are
/// pages, several to a page, and across pages.
std::vector<Layer> coded_layers() {
    std::vector<Layer> all;
    for (int64_t bits : {1, 2, 4, 8}) {
        all.push_back(Layer(2, 2, 64).turned(32).stored(Kind::float32, 64).coded(bits, 1));
        all.push_back(Layer(2, 2, 128).stored(Kind::bfloat16, 64).coded(bits, 20));
        all.push_back(Layer(4, 2, 80).stored(Kind::float32, 32).coded(bits, 17));
        all.push_back(Layer(3, 1, 8).turned(4).stored(Kind::float32, 16).coded(bits, 5));
        all.push_back(Layer(8, 4, 8).stored(Kind::bfloat16, 16).coded(bits, 33));
        all.push_back(Layer(6, 3, 20).normed().turned(5).stored(Kind::float32, 48).coded(bits, 1));
        all.push_back(Layer(12, 2, 16).stored(Kind::float32, 128).coded(bits, 10));
        all.push_back(Layer(2, 2, 32).windowed(90).stored(Kind::float32, 16).coded(bits, 40));
        all.push_back(Layer(5, 1, 20).windowed(50).stored(Kind::bfloat16, 32).coded(bits, 3));
        all.push_back(Layer(4, 2, 4).masked(6, false).windowed(11).stored(Kind::float32, 16).coded(bits, 5));
        all.push_back(Layer(4, 2, 32).normed().turned(16).masked(40, false).stored(Kind::float32, 16).coded(bits, 24));
        all.push_back(Layer(4, 2, 10).masked(9, true).windowed(80).stored(Kind::bfloat16, 32).coded(bits, 4));
    }
    return all;
}

/// Layers of all the sorts that there are, in odd sizes.
std::vector<Layer> layers() {
    std::vector<Layer> all;
    for (Kind kind : kKinds) {
        all.push_back(Layer(2, 2, 64).stored(kind, 16));
        all.push_back(Layer(3, 1, 8).turned(4).stored(kind, 4));
        all.push_back(Layer(4, 2, 20).turned(5).windowed(7).stored(kind, 3));
        all.push_back(Layer(2, 1, 1).stored(kind, 1));
        all.push_back(Layer(6, 1, 33).turned(16).windowed(70).stored(kind, 32));
        all.push_back(Layer(5, 5, 16).normed().turned(8).stored(kind, 48));
        all.push_back(Layer(2, 1, 96).normed().turned(48).stored(kind, 8));
        all.push_back(Layer(4, 2, 32).normed().turned(16).masked(40, false).stored(kind, 16));
        all.push_back(Layer(4, 2, 10).turned(5).masked(9, true).windowed(30).stored(kind, 5));
        all.push_back(Layer(2, 2, 17).windowed(1).stored(kind, 16));
        all.push_back(Layer(9, 1, 80).windowed(600).stored(kind, 16));
    }
    for (Layer& layer : coded_layers()) all.push_back(std::move(layer));
    return all;
}

void agrees_with_the_definition() {
    for (const Layer& layer : layers()) {
        World world(layer, 1, 7);
        world.add({150, 1, 67});
        world.step({100, 0, 3});
        world.step({49, 1, 63});
        world.step({1, 0, 1});
        for (const Sequence& sequence : world.sequences) check_sequence(layer, world.store(), sequence, 7);
    }
}

void agrees_over_several_chunks() {
    for (Kind kind : kKinds)
        for (int64_t window : {0, 700}) {
            const Layer layer = Layer(3, 1, 24).turned(12).windowed(window).stored(kind, kind == Kind::int8 ? 7 : 16);
            World world(layer, 2, 8);
            world.add({1300});
            world.step({1200});
            world.step({99});  // few enough rows to be cut by chunks, and of those in one share some see one chunk less
            world.step({1});
            check_sequence(layer, world.store(), world.sequences[0], 9);
        }
}

bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
    return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

/// Token by token, alone, on one thread.
std::vector<float> plainly(const Layer& layer, size_t index, const std::vector<int64_t>& lengths) {
    World world(layer, 1, 1);
    world.add(lengths);
    std::vector<int64_t> counts(lengths.size());
    counts[index] = 1;
    for (int64_t i = 0; i < lengths[index]; ++i) world.step(counts);
    return world.sequences[index].read;
}

void check_cuts(const Layer& layer, const std::vector<int64_t>& lengths,
                const std::vector<std::vector<float>>& expected, int threads, unsigned seed) {
    World world(layer, threads, seed);
    world.forgets = true;
    world.add(lengths);
    std::mt19937 generator(seed);
    for (bool more = true; more;) {
        std::vector<int64_t> counts;
        more = false;
        for (const Sequence& sequence : world.sequences) {
            const int64_t left = (int64_t)(sequence.read.size() / layer.width()) - sequence.done;
            const int64_t most = generator() % 3 ? 1 + generator() % 90 : 1;
            counts.push_back(seed == 1 ? left : std::min(left, most));
            more |= left > 0;
        }
        if (more) world.step(counts);
    }
    for (size_t i = 0; i < lengths.size(); ++i) CHECK(same_bits(world.sequences[i].read, expected[i]));
}

void cuts_and_batches_change_no_bit() {
    for (const Layer& layer : layers()) {
        const std::vector<int64_t> lengths = {130, 5, 66};
        std::vector<std::vector<float>> expected;
        for (size_t i = 0; i < lengths.size(); ++i) expected.push_back(plainly(layer, i, lengths));
        for (unsigned seed = 1; seed <= 6; ++seed) check_cuts(layer, lengths, expected, 1 + (int)seed % 3, seed);
    }
}

void long_contexts_change_no_bit() {
    for (Kind kind : kKinds)
        for (int64_t window : {0, 600}) {
            const Layer layer = Layer(5, 1, 16).windowed(window).stored(kind, 16);
            const std::vector<int64_t> lengths = {1100, 520};
            std::vector<std::vector<float>> expected;
            for (size_t i = 0; i < lengths.size(); ++i) expected.push_back(plainly(layer, i, lengths));
            for (unsigned seed = 1; seed <= 4; ++seed) check_cuts(layer, lengths, expected, 1 + (int)seed % 3, seed);
        }
}

void page_size_changes_no_bit() {
    const Layer usual = Layer(4, 2, 20).turned(5).masked(50, true).windowed(90).stored(Kind::bfloat16, 16);
    const std::vector<int64_t> lengths = {140};
    const std::vector<float> expected = plainly(usual, 0, lengths);
    for (int64_t page_size : {1, 3, 4, 8, 32, 100}) {
        const Layer layer =
            Layer(4, 2, 20).turned(5).masked(50, true).windowed(90).stored(Kind::bfloat16, page_size);
        check_cuts(layer, lengths, {expected}, 1, 1);
    }
}

/// What later tokens of a step hold is nothing to earlier ones, were it not even a number.
void later_tokens_are_not_seen() {
    for (Kind kind : kKinds)
        for (float other : {INFINITY, 0.5f}) {
            const Layer layer = Layer(3, 1, 12).stored(kind, 16);
            World fine(layer, 1, 1), broken(layer, 1, 1);
            fine.add({90}), broken.add({90});
            std::vector<float>& qkv = broken.sequences[0].qkv;
            for (int64_t i = 70 * layer.columns(); i < 71 * layer.columns(); ++i) qkv[i] = i % 2 ? NAN : other;
            fine.step({90}), broken.step({90});
            const size_t before = 70 * layer.width() * sizeof(float);
            CHECK(std::memcmp(fine.sequences[0].read.data(), broken.sequences[0].read.data(), before) == 0);
            CHECK(std::isnan(broken.sequences[0].read[75 * layer.width() + 1]));
        }
}

void of_equal_mask_values_the_most_recent_are_seen() {
    Layer layer = Layer(1, 1, 16).masked(3, false);
    layer.step[5] = 0;
    World world(layer, 1, 1);
    world.add({40});
    Sequence& sequence = world.sequences[0];
    // The mask reads a token's values only: with a step of zero for dimension 5, that one tells equal tokens apart.
    for (int64_t token = 0; token < 40; ++token) {
        std::copy_n(sequence.qkv.begin() + 32, 16, sequence.qkv.begin() + token * 48 + 32);
        sequence.qkv[token * 48 + 32 + 5] = (float)token;
    }
    world.step({40});
    const float* mask = world.memory().mask(0, sequence.pages[0], 0);
    for (int64_t slot = 1; slot < 16; ++slot) CHECK(mask[slot] == mask[0]);
    check_sequence(layer, world.store(), sequence, 1);
    for (int64_t token = 2; token < 40; ++token) {
        const float read = sequence.read[token * 16 + 5];
        CHECK(read >= (float)token - 2 && read <= (float)token);
    }
}

}  // namespace

int main(int count, char** arguments) {
    if (count > 1 && !std::strcmp(arguments[1], "time")) return print_times(count > 2 ? arguments[2] : "");
    agrees_with_the_definition();
    agrees_over_several_chunks();
    cuts_and_batches_change_no_bit();
    long_contexts_change_no_bit();
    page_size_changes_no_bit();
    later_tokens_are_not_seen();
    of_equal_mask_values_the_most_recent_are_seen();
    return report();
}
