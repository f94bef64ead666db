// Weight matrices in the layouts that the products read: packed or row by row, in five precisions; no arithmetic on
// rows.
//
// A matrix has `rows` outputs and `columns` inputs. Packed, its rows are cut into panels of 32. Within a panel the
// inputs run outermost, so that a product reads its weights in one stream:
//   float32, float16   [panel][input][32]
//   bfloat16           [panel][input / 2][32][2]
//   int8               [panel][input / 4][32][4], a float32 scale per row, and per row 128 times the sum of its weights
//   int4               [panel][group of 32 inputs]: 512 bytes of weights, 32 float16 scales, 32 float16 minima, where
//                      weight = scale * q + minimum; byte [j][row][i] (4 x 32 x 4) holds q of input 8 j + i of the
//                      group in its low half and of input 8 j + 4 + i in its high half
// Rows and inputs are padded with zeros. The layouts do not depend on the instruction set: packed files are portable.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

namespace loquent {

enum class Kind { float32, bfloat16, float16, int8, int4 };

constexpr int kPanel = 32;  // rows of a panel
constexpr int kGroup = 32;  // inputs that share a scale in int4

Kind kind_of(const std::string& name);  // throws std::invalid_argument
const char* name_of(Kind kind);

/// Inputs rounded up to what a kind packs together: 1, 2, 1, 4, 32.
int64_t padded_columns(Kind kind, int64_t columns);
/// Bytes of one packed panel.
int64_t panel_bytes(Kind kind, int64_t columns);

/// Numbers of a matrix as somebody else stores them: element (r, c) is at `data + r * row_stride + c * column_stride`
/// (strides in elements). Kinds float32, bfloat16 and float16 only.
struct Source {
    const void* data;
    Kind kind;
    int64_t rows, columns;
    int64_t row_stride, column_stride;
};

/// What the products read. It does not own its memory; `owner` keeps whoever does alive.
struct Matrix {
    Kind kind;
    int64_t rows, columns;
    bool packed;               // else row by row (float32, bfloat16 and float16 only), `row_stride` elements apart
    int64_t row_stride = 0;
    const uint8_t* data;       // 64-byte aligned where packed here; mapped files may be aligned to 8 only
    const float* scales = nullptr;   // int8: (panels * 32,)
    const int32_t* sums = nullptr;   // int8: (panels * 32,), 128 * the sum of the row's weights
    std::shared_ptr<void> owner;

    int64_t panels() const { return (rows + kPanel - 1) / kPanel; }
    int64_t bytes() const;     // of the weights, scales included
};

/// Bytes of the weights of a packed matrix, without int8's scales and sums.
int64_t packed_bytes(Kind kind, int64_t rows, int64_t columns);

/// A packed matrix of zeros in memory of its own (huge pages where the system has them), to be filled.
/// Throws std::invalid_argument where a size is below 1.
Matrix allocate_matrix(Kind kind, int64_t rows, int64_t columns);

/// A packed matrix in somebody else's memory, a mapped file's for one: `data` has `packed_bytes`, `scales` and `sums`
/// (int8 only, else null) `panels() * 32` numbers; `owner` keeps them alive.
Matrix packed_matrix(Kind kind, int64_t rows, int64_t columns, const uint8_t* data, const float* scales,
                     const int32_t* sums, std::shared_ptr<void> owner);

/// A matrix row by row in somebody else's memory: float32, bfloat16 or float16, rows `row_stride` elements apart.
Matrix row_matrix(Kind kind, int64_t rows, int64_t columns, int64_t row_stride, const void* data,
                  std::shared_ptr<void> owner);

/// Convert `source.rows` rows into rows `first_row`... of a packed matrix; on all threads of the shared pool.
/// int8: scale = max |w| / 127 per row, q = w * (127 / max |w|) rounded to the nearest, of equal ones to the even one.
/// int4: scale and minimum per row and group, rounded to float16 before q is chosen, from the clip that has the least
/// squared error of a few. Weights that are not finite give no error and unspecified numbers.
/// Throws std::invalid_argument where the source does not fit.
void fill_rows(Matrix& matrix, int64_t first_row, const Source& source);

/// Row `row` as floats, dequantized (`out` has `columns` numbers): an embedding, or a test's reference. Throws nothing:
/// the caller knows that the row is there.
void read_row(const Matrix& matrix, int64_t row, float* out);

}  // namespace loquent
