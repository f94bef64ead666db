// A share of a product: which inputs, panels and rows run through which tile, and what is done with the sums.
#include "../product_share.hpp"
#include "product_stage.hpp"
#include "product_tiles.hpp"

namespace loquent::LOQUENT_ISA {
namespace {

using Tile = void (*)(const TileWork&);

/// The tiles of a kind: of 1 to `most_rows` rows, and of one, two or four panels where the registers hold them.
struct Tiles {
    int most_rows;
    int inputs;          // blocks of inputs are multiples of this
    Tile of[kMostRows][3];
};

template <class Dot, int Most, int R, int P>
constexpr Tile tile_of() {
    if constexpr (R > Most || (P > 1 && R * P > Most))
        return nullptr;
    else if constexpr (std::is_same<Dot, Int4Dot>::value)
        return P == 1 ? add_int4_tile<R> : nullptr;
    else
        return add_tile<Dot, R, P>;
}

template <class Dot, int Most, int R = 1>
constexpr void fill_tiles(Tiles& tiles) {
    tiles.of[R - 1][0] = tile_of<Dot, Most, R, 1>();
    tiles.of[R - 1][1] = tile_of<Dot, Most, R, 2>();
    tiles.of[R - 1][2] = tile_of<Dot, Most, R, 4>();
    if constexpr (R < kMostRows) fill_tiles<Dot, Most, R + 1>(tiles);
}

template <class Dot, int Most>
constexpr Tiles make_tiles(int inputs) {
    Tiles tiles{Most, inputs, {}};
    fill_tiles<Dot, Most>(tiles);
    return tiles;
}

constexpr Tiles kFloat32Tiles = make_tiles<Float32Dot, kMostRows>(1);
constexpr Tiles kFloat16Tiles = make_tiles<Float16Dot, kMostRows>(1);
constexpr Tiles kBFloat16Tiles = make_tiles<BFloat16Dot, kMostRows>(2);
constexpr Tiles kInt8Tiles = make_tiles<Int8Dot, kMostRowsInt8>(4);
constexpr Tiles kInt4Tiles = make_tiles<Int4Dot, kMostRowsInt4>(kGroup);

const Tiles& tiles_of(const Matrix& matrix) {
    switch (matrix.kind) {
        case Kind::float16: return matrix.packed ? kFloat16Tiles : kFloat32Tiles;  // staged as float32
        case Kind::bfloat16: return kBFloat16Tiles;
        case Kind::int8: return kInt8Tiles;
        case Kind::int4: return kInt4Tiles;
        default: return kFloat32Tiles;
    }
}

/// How a share is walked: blocks of inputs outermost where there are several, then panels, then tiles of rows.
struct Walk {
    const ProductShare& share;
    const Tiles& tiles;
    int64_t inputs;        // padded
    int64_t input_bytes;   // of a prepared row, an input
    int64_t panel_size;    // bytes from panel to panel, packed
    int64_t block;         // inputs of a block
    int side;              // panels side by side: 1, 2 or 4
    int64_t row_tiles;

    explicit Walk(const ProductShare& share) : share(share), tiles(tiles_of(share.matrix)) {
        const Matrix& matrix = share.matrix;
        inputs = matrix.columns + (tiles.inputs - 1);
        inputs -= inputs % tiles.inputs;
        input_bytes = matrix.kind == Kind::bfloat16 ? 2 : matrix.kind == Kind::int8 || matrix.kind == Kind::int4 ? 1 : 4;
        panel_size = matrix.packed ? panel_bytes_of(matrix) : 0;
        row_tiles = (share.rows + tiles.most_rows - 1) / tiles.most_rows;
        const int64_t rows = (share.rows + row_tiles - 1) / row_tiles;
        side = 1;
        while (side < 4 && 2 * side <= share.panels && tiles.of[rows - 1][side == 1 ? 1 : 2]) side *= 2;
        block = block_inputs();
    }

    int64_t panel_bytes_of(const Matrix& matrix) const {
        if (matrix.kind == Kind::int4) return inputs / kGroup * kGroupBytes;
        return inputs * kPanel * (matrix.kind == Kind::float32 ? 4 : matrix.kind == Kind::int8 ? 1 : 2);
    }

    /// Weights of a block stay in the first cache while several tiles of rows read them, or are staged there.
    int64_t block_inputs() const {
        if (share.matrix.packed && row_tiles == 1) return inputs;
        const int64_t most = kStageBytes / 2 / (kPanel * side * input_bytes);
        const int64_t blocks = (inputs + most - 1) / most;
        const int64_t even = (inputs + blocks - 1) / blocks;
        return (even + 127) / 128 * 128;
    }

    float* sums() const { return reinterpret_cast<float*>(share.scratch + kStageBytes); }
};

void stage_panel(const Matrix& matrix, int64_t panel, int64_t first, int64_t count, uint8_t* to) {
    if (matrix.kind == Kind::float32)
        stage<WholeFloats>(matrix, panel, first, count, to);
    else if (matrix.kind == Kind::bfloat16)
        stage<BFloat16Pairs>(matrix, panel, first, count, to);
    else
        stage<WidenedHalves>(matrix, panel, first, count, to);
}

/// One block of inputs of `side` panels, for all rows of the share.
void add_block(const Walk& walk, int64_t panel, int side, int64_t first, float* sums) {
    const ProductShare& share = walk.share;
    const Matrix& matrix = share.matrix;
    const Prepared& input = share.input;
    TileWork work{};
    work.inputs_count = walk.inputs - first < walk.block ? walk.inputs - first : walk.block;
    work.input_stride = input.stride;
    work.first = first == 0;
    if (matrix.packed) {
        work.panel_stride = walk.panel_size;
        const int64_t group = matrix.kind == Kind::int4 ? first / kGroup * kGroupBytes : walk.panel_size / walk.inputs * first;
        work.weights = matrix.data + panel * walk.panel_size + group;
    } else {
        const int64_t bytes = kPanel * walk.input_bytes * work.inputs_count;
        work.panel_stride = bytes;
        work.weights = share.scratch;
        for (int p = 0; p < side; ++p)
            stage_panel(matrix, panel + p, first, work.inputs_count, share.scratch + p * bytes);
    }
    work.group_stride = (input.columns + kGroup - 1) / kGroup;
    const int64_t each = share.rows / walk.row_tiles, longer = share.rows % walk.row_tiles;
    int64_t row = 0;
    for (int64_t t = 0; t < walk.row_tiles; ++t) {
        const int64_t rows = each + (t < longer);
        work.inputs = input.data + (share.first_row + row) * input.stride + first * walk.input_bytes;
        work.group_sums = input.sums ? input.sums + (share.first_row + row) * work.group_stride + first / kGroup : nullptr;
        work.sums = sums + row * side * kPanel;
        walk.tiles.of[rows - 1][side == 1 ? 0 : side == 2 ? 1 : 2](work);
        row += rows;
    }
}

/// The sums of one row with one panel become outputs.
void finish_row(const ProductShare& share, int64_t panel, int64_t row, const float* sums) {
    const Matrix& matrix = share.matrix;
    const Epilogue& epilogue = share.epilogue;
    float* output = epilogue.output + row * epilogue.output_stride;
    const Vec scale = splat(share.input.scales ? share.input.scales[row] : 1.0f);
    for (int lane = 0; lane < kPanel; lane += kLanes) {
        const int64_t n = panel * kPanel + lane;
        const int count = matrix.rows - n < kLanes ? (int)(matrix.rows - n) : kLanes;
        if (count <= 0) return;
        const auto read = [&](const float* from) { return count == kLanes ? load(from + n) : load_some(from + n, count); };
        Vec value = load(sums + lane);
        if (matrix.kind == Kind::int8) {
            Ints whole = (Ints)value;
            if (Int8Dot::kOffset) whole -= load(matrix.sums + n);
            value = to_float(whole) * (scale * load(matrix.scales + n));
        } else if (matrix.kind == Kind::int4) {
            value *= scale;
        }
        if (epilogue.bias) value += read(epilogue.bias);
        if (epilogue.residual) {
            const Vec before = read(output);
            value += epilogue.decay ? read(epilogue.decay) * before : before;
        }
        if (count == kLanes)
            store(output + n, value);
        else
            store_some(output + n, value, count);
    }
}

void finish(const ProductShare& share, int64_t panel, int side, const float* sums) {
    for (int64_t row = 0; row < share.rows; ++row)
        for (int p = 0; p < side; ++p)
            finish_row(share, panel + p, share.first_row + row, sums + (row * side + p) * kPanel);
}

}  // namespace

void multiply_share(const ProductShare& share) {
    const Walk walk(share);
    const bool whole = walk.block >= walk.inputs;
    for (int64_t first = 0; first < walk.inputs; first += walk.block) {
        int side;
        for (int64_t p = 0; p < share.panels; p += side) {
            for (side = walk.side; p + side > share.panels;) side /= 2;
            float* sums = walk.sums() + (whole ? 0 : p * share.rows * kPanel);
            add_block(walk, share.first_panel + p, side, first, sums);
            if (first + walk.block >= walk.inputs) finish(share, share.first_panel + p, side, sums);
        }
    }
}

}  // namespace loquent::LOQUENT_ISA
