// The memory behind the pages of one model: key, value and mask planes of every layer, in groups of layers that share
// page tables. Who uses which page is decided in Python (`loquent.cache`).
//
// A page of one layer and key-value head holds, for `page_size` slots (rounded up to 16, so that a vector of slots can
// be loaded whole):
//   keys    [head_dim][slots]   transposed: a query's scores of 16 slots are one vector, and no sums across lanes
//   values  [slots][head_dim rounded up to 16]
//   mask    [slots]             float32; Doge's dynamic mask, where the layer has one
// Kinds: float32, bfloat16, and int8 with a float32 scale per slot and head for keys and for values.
//
// Coded pages hold the same in 1, 2, 4 or 8 bits a number (KIVI, 2402.02750). A group of numbers has float16 numbers m
// and s, and a number is m + s * its code: of 4 and 8 bits, codes reach from the smallest number of a group to its
// largest; of 1 and 2, they are the centres of equal cells. Keys are grouped by channel, over the page; values by
// token, `page_size` channels at a time of all heads' channels side by side, so that a group may span heads.
//   keys          [head_dim][slots] codes
//   values        [slots][head_dim] codes; where head_dim is no multiple of 16, of all heads side by side instead,
//                 [slots][kv_heads * head_dim rounded up to 16]
//   key scales    [m, s][head_dim] float16
//   value scales  [groups][m, s][slots] float16, once for all heads
//   mask          [slots] float32, as it was
// 16 codes take 2 * bits bytes. Of 1 and 2 bits they follow each other in one word, the first one lowest. Of 4 bits
// code i is the one number i / 2 of word i % 2, of two words of 32 bits. So a vector of them is one load of all lanes
// alike, and one shift.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "file_memory.hpp"
#include "matrix.hpp"

namespace loquent {

/// Numbers rounded up to what one vector of any instruction set holds.
constexpr int64_t whole_vectors(int64_t count) { return (count + 15) / 16 * 16; }

struct LayerShape {
    int64_t kv_heads, head_dim;
    bool mask;   // whether the layer has a dynamic mask
};

/// Bytes of so many codes, whole vectors of them.
constexpr int64_t code_bytes(int64_t count, int64_t bits) { return count * bits / 8; }

/// Whether the codes of a layer's values are stored for each head by itself.
constexpr bool codes_values_by_head(int64_t head_dim) { return head_dim % 16 == 0; }

/// Where one layer's planes lie: those of page p and head h are at
/// `chunks[p >> shift] + offset + h * head_bytes + (p & (2^shift - 1)) * page_bytes`.
struct LayerView {
    struct Plane {
        int64_t offset, head_bytes, page_bytes;
        int64_t heads;   // how many there are; 1 where all share it
    };
    uint8_t* const* chunks;
    int64_t shift;
    Plane keys, values, key_scales, value_scales, mask;
};

/// Which layers' planes a group has, and what their queries see (the C++ side of `loquent.cache.PageGroup`).
struct GroupShape {
    std::vector<int64_t> layers;
    int64_t window = 0;       // how many tokens a query sees, itself included; 0: all
    int64_t residual = -1;    // of coded pages: of the last tokens, at least so many are seen exactly; -1: exact pages

    bool coded() const { return residual >= 0; }

    /// The first page that queries at `position` and behind may see.
    int64_t first(int64_t position, int64_t page_size) const {
        return window && position >= window ? (position + 1 - window) / page_size : 0;
    }

    /// How many pages there are, those before `first` counted, once `length` tokens have been read.
    int64_t stop(int64_t length, int64_t page_size) const {
        if (!coded()) return (length + page_size - 1) / page_size;
        return length > residual ? (length - residual) / page_size : 0;
    }
};

/// The pages of one group.
class PageMemory {
public:
    /// `kind` is of exact pages, `bits` of coded ones, of which a page has as many slots as a group of values channels.
    /// In `file`; null: in anonymous memory.
    PageMemory(GroupShape shape, const std::vector<LayerShape>& layers, int64_t slots, Kind kind, int64_t bits,
               std::shared_ptr<FileMemory> file);
    PageMemory(const PageMemory&) = delete;
    PageMemory& operator=(const PageMemory&) = delete;

    const GroupShape& shape() const { return shape_; }
    int64_t pages() const { return pages_; }
    int64_t bytes_per_page() const { return page_bytes_; }

    // Each of these throws std::logic_error where the pages are in a file that another process opened.

    /// Grow or shrink; pages below the smaller of both counts keep their content, new ones are zeros.
    /// Throws DiskFull, and has as many pages as before then.
    void resize(int64_t pages);
    void clear(const int64_t* pages, int64_t count);
    /// Copy whole pages; no page is both a source and a target.
    void copy(const int64_t* sources, const int64_t* targets, int64_t count);
    /// Whole pages to and from (count, bytes_per_page) bytes, plane by plane of each layer and head.
    void read(const int64_t* pages, int64_t count, uint8_t* content) const;
    void write(const int64_t* pages, int64_t count, const uint8_t* content);

    /// Where in `chunks` a page is.
    int64_t chunk_of(int64_t page) const { return page >> shift_; }
    int64_t chunks() const { return (int64_t)chunks_.size(); }
    /// Have one layer's planes brought from the disk, where they are in a file, while something else is worked on: in
    /// those chunks of which most pages are `used`, by how many.
    void read_ahead(int64_t layer, const std::vector<int64_t>& used) const;

    /// All planes of one of the group's layers; good until the next `resize`.
    LayerView view(int64_t layer) const;

    // The planes of one page, layer and head; for int8 the scales (slots,) of keys and values, for coded pages float16
    // numbers.
    uint8_t* keys(int64_t layer, int64_t page, int64_t head) const;
    uint8_t* values(int64_t layer, int64_t page, int64_t head) const;
    float* key_scales(int64_t layer, int64_t page, int64_t head) const;
    float* value_scales(int64_t layer, int64_t page, int64_t head) const;
    float* mask(int64_t layer, int64_t page, int64_t head) const;

private:
    void lay_out();
    void lay_out_exact(const LayerShape& layer, LayerView& view);
    void lay_out_coded(const LayerShape& layer, LayerView& view);
    LayerView::Plane add_plane(int64_t heads, int64_t bytes);
    std::shared_ptr<uint8_t> new_chunk() const;
    void check_process() const { if (file_) file_->check_process(); }
    uint8_t* find(const LayerView::Plane& plane, int64_t page, int64_t head) const;
    /// Call `visit(plane, head, bytes of the page's part, size)` for each contiguous part of a page.
    template <class Visit>
    void each_part(int64_t page, const Visit& visit) const;

    GroupShape shape_;
    std::vector<LayerShape> layers_;   // of the whole model
    int64_t slots_, pages_ = 0;
    Kind kind_;
    int64_t bits_;
    std::vector<LayerView> views_;     // of all layers, without their chunks; empty where a layer is another group's
    int64_t page_bytes_ = 0, shift_ = 0, chunk_bytes_ = 0;
    std::shared_ptr<FileMemory> file_;
    // Chunks of 2^shift_ pages; within one, a head's pages follow each other.
    std::vector<std::shared_ptr<uint8_t>> memory_;
    std::vector<uint8_t*> chunks_;
};

class Store {
public:
    /// `bits` are those of coded pages, where there are groups of such.
    /// Throws std::invalid_argument for a page size below 1, another kind, groups that do not have each layer exactly
    /// once and coded at most once, or coded pages that cannot be (see `check_coded`).
    /// The pages are in `file`; null: in anonymous memory.
    Store(std::vector<LayerShape> layers, int64_t page_size, Kind kind, std::vector<GroupShape> groups,
          int64_t bits = 0, std::shared_ptr<FileMemory> file = nullptr);
    /// One group, of all layers.
    Store(std::vector<LayerShape> layers, int64_t page_size, Kind kind);
    Store(const Store&) = delete;
    Store& operator=(const Store&) = delete;

    int64_t page_size() const { return page_size_; }
    int64_t slots() const { return slots_; }      // page_size rounded up to 16
    Kind kind() const { return kind_; }
    int64_t layers() const { return (int64_t)layers_.size(); }
    const LayerShape& layer(int64_t index) const { return layers_[index]; }
    int64_t groups() const { return (int64_t)groups_.size(); }
    PageMemory& group(int64_t index) { return *groups_[index]; }
    const PageMemory& group(int64_t index) const { return *groups_[index]; }
    int64_t bits() const { return bits_; }
    /// Which group a layer's exact keys and values are in.
    int64_t exact_group(int64_t layer) const { return exact_[layer]; }
    /// Which group its coded ones are in; -1: it has none.
    int64_t coded_group(int64_t layer) const { return coded_[layer]; }
    /// The group whose pages a coded group's are made of.
    int64_t source_of(int64_t group) const { return exact_[groups_[group]->shape().layers[0]]; }
    bool in_file() const { return file_ != nullptr; }
    /// Throws std::logic_error where the pages are in a file that another process opened.
    void check_process() const { if (file_) file_->check_process(); }

private:
    void add_group(GroupShape shape);
    void check_coded() const;

    int64_t page_size_, slots_;
    Kind kind_;
    int64_t bits_;
    std::vector<LayerShape> layers_;
    std::vector<std::unique_ptr<PageMemory>> groups_;
    std::vector<int64_t> exact_, coded_;   // each layer's groups
    std::shared_ptr<FileMemory> file_;
};

}  // namespace loquent
