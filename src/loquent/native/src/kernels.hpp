// The functions that are compiled once for each instruction set, and the table of those that this machine runs.
#pragma once

#include "attention.hpp"
#include "elementwise.hpp"
#include "kernels/attention_tasks.hpp"
#include "product_share.hpp"
#include "scores.hpp"

namespace loquent {

/// One instruction set's functions. Whoever adds a kernel adds a member here and its line in kernels/table.cpp.
struct Kernels {
    const char* name;

    // kernels/elementwise.cpp
    void (*normalize)(const NormPart& part, const float* x, int64_t width, float* out);
    void (*activate)(Activation function, float slope, const float* x, int64_t count, float* out);
    void (*activate_gated)(Activation function, float slope, const float* gate, const float* up, int64_t count,
                           float* out);
    // kernels/prepare.cpp, kernels/product.cpp
    void (*prepare_row)(const float* x, Prepared& prepared, int64_t row);
    void (*multiply_share)(const ProductShare& share);
    // kernels/attention_write.cpp, attention_code.cpp and attention_read.cpp; kernels/attention_kernels.hpp says what
    void (*write_tokens)(const WriteTask& task);
    void (*code_keys)(const CodeTask& task, int64_t head);
    void (*code_values)(const CodeTask& task, int64_t first_slot);
    void (*read_rows)(const ReadTask& task);
    void (*join_chunks)(float* partials, int64_t chunks, int64_t head_dim, float* read);
    // kernels/experts.cpp
    float (*dot)(const float* a, const float* b, int64_t count);
    void (*add_scaled)(float factor, const float* x, int64_t count, float* out);  // out += factor * x
    // kernels/selection.cpp
    ScoreKernels scores;
};

/// The best table that this machine runs, or the one that the environment variable LOQUENT_ISA names ("avx512",
/// "avx2", "neon", "portable"); an unknown or unsupported name throws std::invalid_argument.
const Kernels& kernels();

/// The names of the tables that this machine runs, best first.
std::vector<const char*> instruction_sets();

}  // namespace loquent
