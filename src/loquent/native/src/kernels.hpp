// The functions that are compiled once for each instruction set, and the table of those that this machine runs.
#pragma once

#include "attention.hpp"
#include "elementwise.hpp"
#include "product.hpp"
#include "selection.hpp"

namespace loquent {

/// One instruction set's functions. Whoever adds a kernel adds a member here and its line in kernels/table.cpp.
struct Kernels {
    const char* name;

    // kernels/elementwise.cpp
    void (*normalize)(const NormPart& part, const float* x, int64_t width, float* out);
    void (*activate)(Activation function, float slope, const float* x, int64_t count, float* out);
    void (*activate_gated)(Activation function, float slope, const float* gate, const float* up, int64_t count, float* out);
    // kernels/selection.cpp
    Chosen (*choose)(const Choice& choice, float* row, int64_t vocabulary);
};

/// The best table that this machine runs, or the one that the environment variable LOQUENT_ISA names ("avx512",
/// "avx2", "neon", "portable"); an unknown or unsupported name throws std::invalid_argument.
const Kernels& kernels();

/// The names of the tables that this machine runs, best first.
std::vector<const char*> instruction_sets();

}  // namespace loquent
