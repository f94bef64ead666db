// Rows times a weight matrix: the input is prepared once per row, then multiplied on all threads.
//
// A row's result is the same bits whatever other rows there are and however the work is cut: float32, bfloat16 and
// float16 add up inputs in ascending order in one chain per output, int8 is exact in int32, int4 adds its groups in
// ascending order. Packed and row-by-row layouts of the same numbers give the same bits.
#pragma once

#include "matrix.hpp"
#include "pool.hpp"

namespace loquent {

/// Input rows in the form that a matrix of some kind is multiplied with: float32 as it is (float16 too), bfloat16
/// rounded, or int8 with a scale per row (max |x| / 127), and for int4 the sums of the groups of 32 too.
/// Reused from product to product; grows as needed. Rows are padded with zeros to `padded_columns` and laid out so that
/// strides do not collide in the caches. How int8 rows are stored is the instruction set's business.
class Prepared {
public:
    /// Room for `rows` rows of `columns` inputs for weights of this kind.
    void reserve(Kind kind, int64_t rows, int64_t columns);

    Kind kind = Kind::float32;
    int64_t rows = 0, columns = 0;
    int64_t stride = 0;           // bytes from row to row
    uint8_t* data = nullptr;      // 64-byte aligned
    float* scales = nullptr;      // (rows,): int8, int4
    float* sums = nullptr;        // (rows, groups): int4, of the quantized inputs (whole numbers)

    int64_t groups() const { return (columns + kGroup - 1) / kGroup; }

private:
    std::shared_ptr<uint8_t> memory_;
    int64_t capacity_ = 0;
};

/// Convert one row of `prepared.columns` floats; rows may be converted at the same time on several threads.
/// int8 and int4: scale = max |x| / 127, q = x * (127 / max |x|) rounded to the nearest, of equal ones to the even one.
/// A row whose largest number is below 1e-30 counts as zeros; one with a number that is not finite has scale NaN.
void prepare_row(const float* x, Prepared& prepared, int64_t row);

/// What is done with x . w of row r and output n: `output[r][n] = (residual ? decay[n] * output[r][n] : 0) + (x . w +
/// bias[n])`, where a missing decay is 1. Every operation is rounded to float32. x . w is, of int8,
/// `float(sum of q q) * (input scale * weight scale)`, and of int4 a float32 sum over the groups in ascending order of
/// `scale * float(sum of q q)` and then `minimum * sum`, each fused with its addition where the instruction set can,
/// times the input scale.
struct Epilogue {
    float* output;            // (rows, output_stride)
    int64_t output_stride;    // in floats
    const float* bias = nullptr;    // (outputs,)
    bool residual = false;
    const float* decay = nullptr;   // (outputs,)
};

/// Whether weights stay in the caches from one step to the next. Those of a large model do not: they are read past the
/// caches, which then keep what does fit (keys and values, activations, the program that calls).
enum class Weights { kept, streamed };

/// Multiply all prepared rows with a matrix, on all threads of the pool. Prepared for the matrix's kind and columns.
/// Throws std::invalid_argument where they are not.
void multiply(Pool& pool, const Prepared& input, const Matrix& matrix, const Epilogue& epilogue,
              Weights weights = Weights::kept);

}  // namespace loquent
