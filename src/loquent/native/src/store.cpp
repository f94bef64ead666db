// The page store's memory: chunks of pages that come from the system as zeros and stay where they are.
#include "store.hpp"

#include <algorithm>
#include <cstring>
#include <numeric>
#include <stdexcept>
#include <string>

#include "memory.hpp"

namespace loquent {

namespace {

// Chunks are large enough for huge pages, and small enough that their first use, which clears them, is not felt.
constexpr int64_t kChunkBytes = int64_t{1} << 24;
constexpr int64_t kChunkPages = 64;

int64_t element_bytes(Kind kind) {
    switch (kind) {
        case Kind::float32: return 4;
        case Kind::bfloat16: return 2;
        case Kind::int8: return 1;
        default:
            throw std::invalid_argument(std::string("a store holds float32, bfloat16 or int8, not ") + name_of(kind));
    }
}

int64_t whole_lines(int64_t bytes) { return (bytes + 63) / 64 * 64; }

std::vector<GroupShape> one_group(size_t layers) {
    GroupShape all;
    all.layers.resize(layers);
    std::iota(all.layers.begin(), all.layers.end(), 0);
    return {all};
}

}  // namespace

// --- the pages of a group --------------------------------------------------------------------------------------------

PageMemory::PageMemory(GroupShape shape, const std::vector<LayerShape>& layers, int64_t slots, Kind kind, int64_t bits,
                       std::shared_ptr<FileMemory> file)
    : shape_(std::move(shape)), layers_(layers), slots_(slots), kind_(kind), bits_(bits), file_(std::move(file)) {
    lay_out();
    while (page_bytes_ << (shift_ + 1) <= kChunkBytes && int64_t{1} << (shift_ + 1) <= kChunkPages) ++shift_;
    lay_out();
}

void PageMemory::lay_out() {
    chunk_bytes_ = page_bytes_ = 0;
    views_.assign(layers_.size(), LayerView{});
    for (const int64_t index : shape_.layers) {
        LayerView& view = views_[index];
        view.shift = shift_;
        if (shape_.coded())
            lay_out_coded(layers_[index], view);
        else
            lay_out_exact(layers_[index], view);
    }
}

LayerView::Plane PageMemory::add_plane(int64_t heads, int64_t bytes) {
    const LayerView::Plane made{chunk_bytes_, bytes << shift_, bytes, heads};
    page_bytes_ += heads * bytes;
    chunk_bytes_ += whole_lines(heads * made.head_bytes);
    return made;
}

void PageMemory::lay_out_exact(const LayerShape& layer, LayerView& view) {
    const int64_t element = element_bytes(kind_), scales = kind_ == Kind::int8 ? slots_ * 4 : 0;
    view.keys = add_plane(layer.kv_heads, whole_lines(layer.head_dim * slots_ * element));
    view.values = add_plane(layer.kv_heads, whole_lines(slots_ * whole_vectors(layer.head_dim) * element));
    view.key_scales = add_plane(layer.kv_heads, scales);
    view.value_scales = add_plane(layer.kv_heads, scales);
    view.mask = add_plane(layer.kv_heads, layer.mask ? slots_ * 4 : 0);
}

void PageMemory::lay_out_coded(const LayerShape& layer, LayerView& view) {
    const int64_t width = layer.kv_heads * layer.head_dim, groups = (width + slots_ - 1) / slots_;
    view.keys = add_plane(layer.kv_heads, code_bytes(layer.head_dim * slots_, bits_));
    if (codes_values_by_head(layer.head_dim))
        view.values = add_plane(layer.kv_heads, code_bytes(slots_ * layer.head_dim, bits_));
    else
        view.values = add_plane(1, code_bytes(slots_ * whole_vectors(width), bits_));
    view.key_scales = add_plane(layer.kv_heads, 2 * layer.head_dim * 2);
    view.value_scales = add_plane(1, groups * 2 * slots_ * 2);
    view.mask = add_plane(layer.kv_heads, layer.mask ? slots_ * 4 : 0);
}

/// Zeros for 2^shift_ pages.
std::shared_ptr<uint8_t> PageMemory::new_chunk() const {
    return file_ ? file_->allocate(chunk_bytes_) : allocate(chunk_bytes_);
}

void PageMemory::resize(int64_t pages) {
    check_process();
    if (pages < 0) throw std::invalid_argument("pages=" + std::to_string(pages) + " must be 0 or more");
    const int64_t chunk_pages = int64_t{1} << shift_;
    const size_t wanted = static_cast<size_t>((pages + chunk_pages - 1) / chunk_pages);
    // Pages that go are cleared while they are known, so that those of a chunk that stays come back as zeros.
    const int64_t kept = std::min(pages_, static_cast<int64_t>(wanted) * chunk_pages);
    for (int64_t page = pages; page < kept; ++page) clear(&page, 1);
    memory_.resize(std::min(wanted, memory_.size()));
    try {
        while (memory_.size() < wanted) memory_.push_back(new_chunk());
    } catch (...) {
        memory_.resize(chunks_.size());
        throw;
    }
    chunks_.clear();
    for (const auto& chunk : memory_) chunks_.push_back(chunk.get());
    pages_ = pages;
}

template <class Visit>
void PageMemory::each_part(int64_t page, const Visit& visit) const {
    for (const int64_t index : shape_.layers) {
        const LayerView& view = views_[index];
        for (int64_t head = 0; head < layers_[index].kv_heads; ++head)
            for (const LayerView::Plane* plane :
                 {&view.keys, &view.values, &view.key_scales, &view.value_scales, &view.mask})
                if (head < plane->heads)
                    visit(*plane, head, find(*plane, page, head), static_cast<size_t>(plane->page_bytes));
    }
}

void PageMemory::clear(const int64_t* pages, int64_t count) {
    check_process();
    for (int64_t i = 0; i < count; ++i)
        each_part(pages[i], [](const LayerView::Plane&, int64_t, uint8_t* part, size_t size) {
            std::memset(part, 0, size);
        });
}

void PageMemory::copy(const int64_t* sources, const int64_t* targets, int64_t count) {
    check_process();
    for (int64_t i = 0; i < count; ++i)
        each_part(sources[i], [&](const LayerView::Plane& plane, int64_t head, uint8_t* part, size_t size) {
            std::memcpy(find(plane, targets[i], head), part, size);
        });
}

void PageMemory::read(const int64_t* pages, int64_t count, uint8_t* content) const {
    check_process();
    for (int64_t i = 0; i < count; ++i)
        each_part(pages[i], [&](const LayerView::Plane&, int64_t, const uint8_t* part, size_t size) {
            std::memcpy(content, part, size);
            content += size;
        });
}

void PageMemory::write(const int64_t* pages, int64_t count, const uint8_t* content) {
    check_process();
    for (int64_t i = 0; i < count; ++i)
        each_part(pages[i], [&](const LayerView::Plane&, int64_t, uint8_t* part, size_t size) {
            std::memcpy(part, content, size);
            content += size;
        });
}

void PageMemory::read_ahead(int64_t layer, const std::vector<int64_t>& used) const {
    if (!file_) return;
    const LayerView& view = views_[layer];
    const int64_t end = view.mask.offset + layers_[layer].kv_heads * view.mask.head_bytes;
    for (size_t chunk = 0; chunk < chunks_.size(); ++chunk)
        if (2 * used[chunk] >= int64_t{1} << shift_)
            loquent::read_ahead(chunks_[chunk] + view.keys.offset, end - view.keys.offset);
}

LayerView PageMemory::view(int64_t layer) const {
    LayerView view = views_[layer];
    view.chunks = chunks_.data();
    return view;
}

uint8_t* PageMemory::find(const LayerView::Plane& plane, int64_t page, int64_t head) const {
    const int64_t inside = page & ((int64_t{1} << shift_) - 1);
    return chunks_[page >> shift_] + plane.offset + head * plane.head_bytes + inside * plane.page_bytes;
}

uint8_t* PageMemory::keys(int64_t layer, int64_t page, int64_t head) const {
    return find(views_[layer].keys, page, head);
}

uint8_t* PageMemory::values(int64_t layer, int64_t page, int64_t head) const {
    return find(views_[layer].values, page, head);
}

float* PageMemory::key_scales(int64_t layer, int64_t page, int64_t head) const {
    return reinterpret_cast<float*>(find(views_[layer].key_scales, page, head));
}

float* PageMemory::value_scales(int64_t layer, int64_t page, int64_t head) const {
    return reinterpret_cast<float*>(find(views_[layer].value_scales, page, head));
}

float* PageMemory::mask(int64_t layer, int64_t page, int64_t head) const {
    return reinterpret_cast<float*>(find(views_[layer].mask, page, head));
}

// --- the groups of a store -------------------------------------------------------------------------------------------

Store::Store(std::vector<LayerShape> layers, int64_t page_size, Kind kind)
    : Store(layers, page_size, kind, one_group(layers.size())) {}

Store::Store(std::vector<LayerShape> layers, int64_t page_size, Kind kind, std::vector<GroupShape> groups, int64_t bits,
             std::shared_ptr<FileMemory> file)
    : page_size_(page_size), slots_(whole_vectors(page_size)), kind_(kind), bits_(bits), layers_(std::move(layers)),
      exact_(layers_.size(), -1), coded_(layers_.size(), -1), file_(std::move(file)) {
    if (page_size < 1) throw std::invalid_argument("page_size=" + std::to_string(page_size) + " must be 1 or more");
    for (GroupShape& shape : groups) add_group(std::move(shape));
    if (std::count(exact_.begin(), exact_.end(), -1)) throw std::invalid_argument("a layer is in no exact group");
    check_coded();
}

void Store::add_group(GroupShape shape) {
    if (shape.window < 0) throw std::invalid_argument("a group's window must not be negative");
    if (shape.layers.empty() && !layers_.empty()) throw std::invalid_argument("a group has no layers");
    std::vector<int64_t>& group_of = shape.coded() ? coded_ : exact_;
    for (const int64_t layer : shape.layers) {
        if (layer < 0 || layer >= layers() || group_of[layer] >= 0)
            throw std::invalid_argument("each layer must be in one group of a form");
        group_of[layer] = groups();
    }
    if (shape.coded() && bits_ != 1 && bits_ != 2 && bits_ != 4 && bits_ != 8)
        throw std::invalid_argument("bits=" + std::to_string(bits_) + " must be 1, 2, 4 or 8");
    groups_.push_back(std::make_unique<PageMemory>(std::move(shape), layers_, slots_, kind_, bits_, file_));
}

/// Coded pages have whole vectors of slots, and are made of exact pages that are there until they are seen coded.
void Store::check_coded() const {
    for (int64_t group = 0; group < groups(); ++group) {
        const GroupShape& shape = groups_[group]->shape();
        if (!shape.coded()) continue;
        if (page_size_ % 16 || shape.residual < 1 || kind_ == Kind::int8)
            throw std::invalid_argument("coded pages need pages of 16 tokens or a multiple of it, a residual of 1 or "
                                        "more, and exact pages in float32 or bfloat16");
        const int64_t source = source_of(group), window = groups_[source]->shape().window;
        for (const int64_t layer : shape.layers)
            if (exact_[layer] != source) throw std::invalid_argument("a coded group is made of one exact group");
        if (window && window < shape.residual) throw std::invalid_argument("pages go before they are seen coded");
    }
}

}  // namespace loquent
