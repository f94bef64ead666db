// The memory behind the pages of one model: key, value and mask planes of every layer; who uses which page is decided
// in Python (`loquent.cache`).
//
// A page of one layer and key-value head holds, for `page_size` slots (rounded up to 16, so that a vector of slots can
// be loaded whole):
//   keys    [head_dim][slots]   transposed: a query's scores of 16 slots are one vector, and no sums across lanes
//   values  [slots][head_dim]
//   mask    [slots]             float32; Doge's dynamic mask, where the layer has one
// Kinds: float32, bfloat16, and int8 with a float32 scale per slot and head for keys and for values.
#pragma once

#include <cstdint>
#include <vector>

#include "matrix.hpp"

namespace loquent {

struct LayerShape {
    int64_t kv_heads, head_dim;
    bool mask;   // whether the layer has a dynamic mask
};

class Store {
public:
    Store(std::vector<LayerShape> layers, int64_t page_size, Kind kind);

    int64_t page_size() const { return page_size_; }
    int64_t slots() const { return slots_; }      // page_size rounded up to 16
    int64_t pages() const { return pages_; }
    int64_t bytes_per_page() const;
    Kind kind() const { return kind_; }
    const LayerShape& layer(int64_t index) const { return layers_[index]; }

    /// Grow or shrink; pages below the smaller of both counts keep their content, new ones are zeros.
    void resize(int64_t pages);
    void clear(const int64_t* pages, int64_t count);
    /// Copy whole pages; no page is both a source and a target.
    void copy(const int64_t* sources, const int64_t* targets, int64_t count);

    // The planes of one page, layer and head; for int8 the scales (slots,) of keys and values.
    uint8_t* keys(int64_t layer, int64_t page, int64_t head);
    uint8_t* values(int64_t layer, int64_t page, int64_t head);
    float* key_scales(int64_t layer, int64_t page, int64_t head);
    float* value_scales(int64_t layer, int64_t page, int64_t head);
    float* mask(int64_t layer, int64_t page, int64_t head);

private:
    int64_t page_size_, slots_, pages_ = 0;
    Kind kind_;
    std::vector<LayerShape> layers_;
    // How memory is laid out is store.cpp's business.
    struct Plane { int64_t offset_keys, offset_values, offset_key_scales, offset_value_scales, offset_mask; };
    std::vector<Plane> planes_;
    int64_t page_bytes_ = 0;
    std::vector<uint8_t*> chunks_;
};

}  // namespace loquent
