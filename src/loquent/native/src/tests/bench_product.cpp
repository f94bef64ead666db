// Times the products of a model's matrices at several batch sizes: GB/s of weights and GOP/s, the least of many runs.
//
//   bench_product [threads [kinds [batches [models]]]], lists separated by commas; a kind with a trailing "r" is read
//   row by row. The numbers of a model follow each other as in a step, so that its size decides which cache they come
//   from.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <sstream>
#include <string>
#include <vector>

#include "kernels.hpp"
#include "memory.hpp"

using namespace loquent;

namespace {

struct Shape { int64_t outputs, inputs; int count; };
struct Model { const char* name; std::vector<Shape> shapes; };

const Model kModels[] = {
    {"gpt2", {{2304, 768, 12}, {768, 768, 12}, {3072, 768, 12}, {768, 3072, 12}, {50257, 768, 1}}},
    {"doge20m", {{512, 256, 8}, {256, 256, 8}, {1024, 256, 8}, {256, 512, 8}, {32768, 256, 1}}},
    {"llama15m", {{864, 288, 6}, {288, 288, 6}, {1536, 288, 6}, {288, 768, 6}, {32000, 288, 1}}},
    {"up", {{3072, 768, 1}}},
    {"down", {{768, 3072, 1}}},
    {"large", {{2048, 2048, 96}, {8192, 2048, 24}, {2048, 8192, 24}}},
};

struct Layer { Matrix matrix; Prepared input; };

Matrix make_matrix(Kind kind, bool packed, const Shape& shape) {
    Matrix matrix = allocate_matrix(kind, shape.outputs, shape.inputs);
    const std::vector<float> row(shape.inputs, 0.01f);
    fill_rows(matrix, 0, Source{row.data(), Kind::float32, shape.outputs, shape.inputs, 0, 1});
    if (packed) return matrix;
    const int64_t bytes = matrix.bytes();
    auto memory = allocate(bytes);
    std::memset(memory.get(), 0, bytes);
    return row_matrix(kind, shape.outputs, shape.inputs, shape.inputs, memory.get(), memory);
}

/// One thread is timed by its own clock, which stands while another process has the core.
double now(const Pool& pool) {
    timespec time;
    clock_gettime(pool.threads() == 1 ? CLOCK_THREAD_CPUTIME_ID : CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec * 1e-9;
}

double seconds_of(Pool& pool, std::vector<Layer>& layers, std::vector<float>& output) {
    const double start = now(pool);
    for (Layer& layer : layers)
        multiply(pool, layer.input, layer.matrix, Epilogue{output.data(), (layer.matrix.rows + 15) / 16 * 16 + 16});
    return now(pool) - start;
}

void time_model(Pool& pool, const Model& model, const std::string& kind, int64_t rows) {
    const bool packed = kind.back() != 'r';
    const Kind of = kind_of(packed ? kind : kind.substr(0, kind.size() - 1));
    std::vector<Layer> layers;
    double bytes = 0, operations = 0;
    int64_t widest = 0;
    for (const Shape& shape : model.shapes)
        for (int i = 0; i < shape.count; ++i) {
            Layer layer{make_matrix(of, packed, shape), {}};
            // The head sees the last row of a prompt alone.
            const int64_t count = rows > 64 && shape.outputs > 30000 ? 1 : rows;
            layer.input.reserve(of, count, shape.inputs);
            const std::vector<float> x(shape.inputs, 0.5f);
            for (int64_t row = 0; row < count; ++row) prepare_row(x.data(), layer.input, row);
            bytes += (double)layer.matrix.bytes();
            operations += 2.0 * (double)count * (double)shape.outputs * (double)shape.inputs;
            widest = std::max(widest, count * (shape.outputs + 32));
            layers.push_back(std::move(layer));
        }
    std::vector<float> output(widest);
    double best = 1e9, spent = 0;
    for (int run = 0; run < 200 && (run < 5 || spent < 0.7); ++run) {
        const double seconds = seconds_of(pool, layers, output);
        best = std::min(best, seconds);
        spent += seconds;
    }
    std::printf("%-9s %-10s %d threads  batch %4lld  %9.1f us  %7.1f GB/s  %8.1f GOP/s  %9.0f rows/s\n", model.name,
                kind.c_str(), pool.threads(), (long long)rows, best * 1e6, bytes / best / 1e9, operations / best / 1e9,
                (double)rows / best);
}

std::vector<std::string> list(int argc, char** argv, int index, const char* otherwise) {
    std::stringstream stream(argc > index ? argv[index] : otherwise);
    std::vector<std::string> items;
    for (std::string item; std::getline(stream, item, ',');) items.push_back(item);
    return items;
}

}  // namespace

int main(int argc, char** argv) {
    Pool pool(argc > 1 ? std::atoi(argv[1]) : 1);
    for (const auto& name : list(argc, argv, 4, "gpt2,doge20m"))
        for (const Model& model : kModels)
            for (const auto& kind : list(argc, argv, 2, "float32,bfloat16,int8,int4"))
                for (const auto& rows : list(argc, argv, 3, "1,8,16,32,512"))
                    if (name == model.name) time_model(pool, model, kind, std::atoi(rows.c_str()));
}
