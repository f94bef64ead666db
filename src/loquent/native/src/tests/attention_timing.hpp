// How long attention takes for the shapes of known models; minima of many runs, for whoever changes the kernels.
#pragma once

#include <time.h>

#include <cstdio>
#include <string>

#include "attention_cases.hpp"

namespace loquent::test {

struct Shape {
    const char* name;
    int64_t heads, kv_heads, head_dim;
    Kind kind;
    int64_t bits = 0;   // of coded pages of 64 tokens, all but the last 32 of them; 0: none

    double bytes_per_number() const {
        if (bits) return ((double)bits + 32.0 / 64) / 8;
        return kind == Kind::float32 ? 4 : kind == Kind::bfloat16 ? 2 : 1;
    }
};

/// Microseconds: of this thread's own time where it works alone, so that other processes cost less.
inline double now(int threads) {
    timespec time;
    clock_gettime(threads == 1 ? CLOCK_THREAD_CPUTIME_ID : CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec * 1e6 + (double)time.tv_nsec * 1e-3;
}

/// Microseconds of one step of `batch` sequences that read `length` tokens each after `start`.
inline double time_step(const Shape& shape, int threads, int64_t batch, int64_t start, int64_t length) {
    const Layer layer = Layer(shape.heads, shape.kv_heads, shape.head_dim).turned(shape.head_dim / 2)
                            .stored(shape.kind, shape.bits ? 64 : 16).coded(shape.bits, 32);
    World world(layer, threads, 1);
    world.add(std::vector<int64_t>(batch, start + length));
    if (start) world.step(std::vector<int64_t>(batch, start));
    const AttentionPart part = layer.connected();
    Batch step{};
    const int64_t table = 0;
    const std::vector<PageTable> pages = world.page_tables();
    for (size_t i = 0; i < world.sequences.size(); ++i) {
        step.segments.push_back({step.rows, length, start, &pages[2 * i], 0, 0, &table});
        step.rows += length;
    }
    std::vector<RotaryTable> tables(1, RotaryTable(layer.frequencies, 1.0f));
    tables[0].reach(start, start + length);
    std::vector<float> qkv = Layer::numbers(step.rows * layer.columns(), 9), read(step.rows * layer.width());
    double best = 1e300;
    const double begin = now(threads);
    for (int run = 0; run < 20 || (run < 2000 && now(threads) - begin < 3e5); ++run) {
        const double before = now(threads);
        attend(world.pool(), part, step, world.store(), tables, qkv.data(), layer.columns(), read.data(),
               layer.width());
        best = std::min(best, now(threads) - before);
    }
    return best;
}

/// One line per shape: microseconds of one layer, and for single tokens the gigabytes per second of keys and values.
/// Only what begins with `wanted`.
inline int print_times(const std::string& wanted) {
    const Shape shapes[] = {
        {"GPT-2 float32", 12, 12, 64, Kind::float32},   {"GPT-2 bfloat16", 12, 12, 64, Kind::bfloat16},
        {"GPT-2 int8", 12, 12, 64, Kind::int8},         {"Llama 15M float32", 6, 6, 48, Kind::float32},
        {"GPTBigCode float32", 16, 1, 128, Kind::float32}, {"GPTBigCode int8", 16, 1, 128, Kind::int8},
        {"GPT-2 8 bits", 12, 12, 64, Kind::bfloat16, 8}, {"GPT-2 4 bits", 12, 12, 64, Kind::bfloat16, 4},
        {"GPT-2 2 bits", 12, 12, 64, Kind::bfloat16, 2}, {"GPT-2 1 bit", 12, 12, 64, Kind::bfloat16, 1},
        {"GPTBigCode 4 bits", 16, 1, 128, Kind::bfloat16, 4},
    };
    struct Case { int64_t batch, start, length; };
    const Case cases[] = {{1, 63, 1},  {1, 255, 1}, {1, 1023, 1},  {1, 2047, 1}, {8, 255, 1}, {16, 7, 1},
                          {32, 63, 1}, {32, 255, 1}, {128, 127, 1}, {1, 0, 128},  {1, 0, 512}, {1, 1024, 512},
                          // Of coded pages none is coded in these single steps.
                          {1, 500, 1}, {1, 4080, 1}, {8, 500, 1}, {8, 4080, 1}};
    for (int threads : {1, 2})
        for (const Shape& shape : shapes)
            for (const Case& c : cases) {
                if (std::string(shape.name).rfind(wanted, 0) != 0) continue;
                const double took = time_step(shape, threads, c.batch, c.start, c.length);
                const double numbers = 2.0 * c.batch * (c.start + c.length) * shape.kv_heads * shape.head_dim;
                const double bytes = numbers * shape.bytes_per_number();
                const double seen = c.start * c.length + c.length * (c.length + 1) / 2.0;
                const double products = 4.0 * seen * c.batch * shape.heads * shape.head_dim;
                std::printf("%d thread%s  %-20s batch %2d  after %4d  tokens %3d  %9.1f us  %6.1f GB/s  "
                            "%6.1f GFLOP/s\n", threads,
                            threads > 1 ? "s" : " ", shape.name, (int)c.batch, (int)c.start, (int)c.length, took,
                            bytes / took / 1e3, products / took / 1e3);
            }
    return 0;
}

}  // namespace loquent::test
