// What product.cpp asks of an instruction set's kernels: the product of some rows with some panels, by one thread.
#pragma once

#include "product.hpp"

namespace loquent {

constexpr int64_t kStageBytes = 64 << 10;  // of scratch for weights that are brought into panels

/// Up to this many rows a share goes through its panels one after the other, above through blocks of inputs of all.
constexpr int64_t kFewRows = 64;

struct ProductShare {
    const Prepared& input;
    const Matrix& matrix;
    const Epilogue& epilogue;
    int64_t first_panel, panels;
    int64_t first_row, rows;
    Weights weights;
    const uint8_t* next;   // the weights that this thread reads next, to be fetched while it computes
    uint8_t* scratch;   // 64-byte aligned: kStageBytes, then panels * rows * 128 bytes of sums
};

}  // namespace loquent
