// A share of a product: which inputs, panels and rows run through which tile, and what is done with the sums.
#include "../product_share.hpp"
#include "product_in_place.hpp"
#include "product_stage.hpp"
#include "product_tiles.hpp"

namespace loquent::LOQUENT_ISA {
namespace {

constexpr int64_t kAhead = 8 << 10;  // bytes: what the memory delivers while one line of it is on its way, and more

constexpr int64_t kSmallPanel = 20 << 10;

using Tile = void (*)(const TileWork&);

/// The tiles of a kind: of 1 to `most_rows` rows, and of one panel, two or four.
struct Tiles {
    int most_rows;
    int inputs;          // of a step
    Tile of[kMostRows][3];
};

template <class Dot, int Most, int R, int P>
constexpr Tile tile_of() {
    if constexpr (R > Most || (P > 1 && R > 3) || R * P > Most)
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

/// Inputs [first, first + count) of `side` panels that lie side by side, in the group that begins with panel `group`.
struct Block {
    int64_t group, panel, side, first, count;
};

/// How a share is walked: groups of panels, in a group blocks of inputs, in these panels, for each tiles of rows.
struct Walk {
    const ProductShare& share;
    const Tiles& tiles;
    int64_t inputs;        // padded
    int64_t input_bytes;   // of a prepared row, an input
    int64_t step_bytes;    // of a packed panel's weights, in a step
    int64_t panel_size;    // bytes from panel to panel, packed
    int64_t row_tiles, tile_rows, longer_tiles;   // the first `longer_tiles` have a row more than `tile_rows`
    int64_t side;          // panels side by side
    int64_t group;         // panels of a group
    int64_t block;         // inputs of a block

    explicit Walk(const ProductShare& share) : share(share), tiles(tiles_of(share.matrix)) {
        const Kind kind = share.matrix.kind;
        inputs = (share.matrix.columns + tiles.inputs - 1) / tiles.inputs * tiles.inputs;
        input_bytes = kind == Kind::bfloat16 ? 2 : kind == Kind::int8 || kind == Kind::int4 ? 1 : 4;
        step_bytes = kind == Kind::int4 ? kGroupBytes : kPanel * (kind == Kind::float16 ? 2 : 4);
        panel_size = inputs / tiles.inputs * step_bytes;
        row_tiles = (share.rows + tiles.most_rows - 1) / tiles.most_rows;
        tile_rows = share.rows / row_tiles;
        longer_tiles = share.rows % row_tiles;
        side = side_of_few();
        group = share.rows <= kFewRows ? side : share.panels;
        block = block_inputs();
    }

    Block start() const { return {0, 0, side, 0, block < inputs ? block : inputs}; }

    /// The block that follows; its count is 0 after the last.
    Block after(Block at) const {
        const int64_t group_end = at.group + group < share.panels ? at.group + group : share.panels;
        at.panel += at.side;
        if (at.panel >= group_end) {
            at.first += block;
            if (at.first >= inputs) {
                at.group = group_end;
                at.first = 0;
            }
            at.panel = at.group;
        }
        for (at.side = side; at.panel + at.side > share.panels;) at.side /= 2;
        at.count = at.panel >= share.panels ? 0 : inputs - at.first < block ? inputs - at.first : block;
        return at;
    }

    const uint8_t* weights(const Block& at) const {
        return share.matrix.data + (share.first_panel + at.panel) * panel_size +
               (at.first ? at.first / tiles.inputs * step_bytes : 0);
    }

    float* sums(const Block& at) const {
        return reinterpret_cast<float*>(share.scratch + kStageBytes) + (at.panel - at.group) * share.rows * kPanel;
    }

private:
    /// A few rows are few sums at once: several panels hide how long additions take where a panel is soon over. Larger
    /// panels are better read in one stream.
    int64_t side_of_few() const {
        if (share.rows > 3 || panel_size > kSmallPanel) return 1;
        int64_t most = 4;
        while (most > 1 && (most > share.panels || !tiles.of[share.rows - 1][most / 2])) most /= 2;
        return most;
    }

    /// Weights of a block stay in the first cache while several tiles of rows read them, or are staged there.
    int64_t block_inputs() const {
        if (share.matrix.packed && row_tiles == 1) return inputs;
        const int64_t most = kStageBytes / 2 / (kPanel * side * input_bytes);
        const int64_t blocks = (inputs + most - 1) / most;
        const int64_t even = (inputs + blocks - 1) / blocks;
        return (even + 127) / 128 * 128;
    }
};

void stage_panel(const Matrix& matrix, int64_t panel, int64_t first, int64_t count, uint8_t* to) {
    if (matrix.kind == Kind::float32)
        stage<WholeFloats>(matrix, panel, first, count, to);
    else if (matrix.kind == Kind::bfloat16)
        stage<BFloat16Pairs>(matrix, panel, first, count, to);
    else
        stage<WidenedHalves>(matrix, panel, first, count, to);
}

/// All rows of the share with the weights of a block, which are at `work.weights`; meanwhile those at `next` are
/// fetched.
void add_rows(const Walk& walk, const Block& block, TileWork& work, const uint8_t* next) {
    const ProductShare& share = walk.share;
    const Prepared& input = share.input;
    work.input_stride = input.stride;
    work.group_stride = (input.columns + kGroup - 1) / kGroup;
    work.first = block.first == 0;
    // The processor foresees the one stream that one or two rows read as fast as it can be read; asked for line by
    // line, it leaves the other caches alone. A tile of more rows reads it slower than memory delivers: what is read
    // once is fetched a little before, and what several tiles read a block before.
    const bool once = walk.row_tiles == 1, few = share.rows <= 2;
    work.past_caches = few && share.weights == Weights::streamed;
    if (next && (!few || work.past_caches)) {
        work.ahead = once ? work.weights + kAhead : next;
        work.ahead_step = walk.step_bytes * block.side / walk.row_tiles;
    }
    int64_t row = share.first_row;
    for (int64_t t = 0; t < walk.row_tiles; ++t) {
        const int64_t rows = walk.tile_rows + (t < walk.longer_tiles);
        work.inputs = input.data + row * input.stride + block.first * walk.input_bytes;
        work.group_sums = input.sums ? input.sums + row * work.group_stride + block.first / kGroup : nullptr;
        work.sums = walk.sums(block) + (row - share.first_row) * block.side * kPanel;
        walk.tiles.of[rows - 1][block.side / 2](work);
        if (work.ahead) work.ahead += work.ahead_step * (work.inputs_count / walk.tiles.inputs);
        row += rows;
    }
}

void add_packed(const Walk& walk, const Block& block, const Block& after) {
    TileWork work{};
    work.weights = walk.weights(block);
    work.panel_stride = walk.panel_size;
    work.inputs_count = block.count;
    add_rows(walk, block, work, after.count ? walk.weights(after) : walk.share.next);
}

void add_staged(const Walk& walk, const Block& block) {
    const ProductShare& share = walk.share;
    TileWork work{};
    work.weights = share.scratch;
    work.panel_stride = kPanel * walk.input_bytes * block.count;
    work.inputs_count = block.count;
    for (int64_t p = 0; p < block.side; ++p)
        stage_panel(share.matrix, share.first_panel + block.panel + p, block.first, block.count,
                    share.scratch + p * work.panel_stride);
    add_rows(walk, block, work, nullptr);
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
        const auto read = [&](const float* from) {
            return count == kLanes ? load(from + n) : load_some(from + n, count);
        };
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

void finish(const Walk& walk, const Block& block) {
    const ProductShare& share = walk.share;
    const float* sums = walk.sums(block);
    for (int64_t row = share.first_row; row < share.first_row + share.rows; ++row)
        for (int64_t p = 0; p < block.side; ++p, sums += kPanel)
            finish_row(share, share.first_panel + block.panel + p, row, sums);
}

/// Some rows of a matrix that is stored row by row.
void multiply_in_place(const Walk& walk) {
    const ProductShare& share = walk.share;
    const Matrix& matrix = share.matrix;
    const auto add = matrix.kind == Kind::float32    ? add_in_place<Float32Dot, WholeFloats>
                     : matrix.kind == Kind::bfloat16 ? add_in_place<BFloat16Dot, BFloat16Pairs>
                                                     : add_in_place<Float32Dot, WidenedHalves>;
    const uint8_t* inputs = share.input.data + share.first_row * share.input.stride;
    for (Block block = {0, 0, 1, 0, walk.inputs}; block.panel < share.panels; ++block.panel) {
        block.group = block.panel;
        add(matrix, share.first_panel + block.panel, share.rows, inputs, share.input.stride, walk.sums(block));
        finish(walk, block);
    }
}

}  // namespace

void multiply_share(const ProductShare& share) {
    const Walk walk(share);
    if (!share.matrix.packed && share.rows <= kMostInPlace) return multiply_in_place(walk);
    for (Block block = walk.start(); block.count;) {
        const Block after = walk.after(block);
        if (share.matrix.packed)
            add_packed(walk, block, after);
        else
            add_staged(walk, block);
        if (block.first + block.count >= walk.inputs) finish(walk, block);
        block = after;
    }
}

}  // namespace loquent::LOQUENT_ISA
