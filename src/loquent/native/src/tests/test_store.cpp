// The page store: layout, zeros where pages are new, content that stays through growing, shrinking, copies and clears.
#include <algorithm>
#include <cstdio>
#include <cstring>
#include <set>
#include <stdexcept>

#include "check.hpp"
#include "store.hpp"

using namespace loquent;

namespace {

constexpr Kind kKinds[] = {Kind::float32, Kind::bfloat16, Kind::int8};

int64_t element_bytes(Kind kind) { return kind == Kind::float32 ? 4 : kind == Kind::bfloat16 ? 2 : 1; }

/// Call `visit(bytes, size)` for every plane of a page.
template <class Visit>
void each_plane(const Store& store, int64_t layers, int64_t page, const Visit& visit) {
    for (int64_t layer = 0; layer < layers; ++layer) {
        const LayerShape& shape = store.layer(layer);
        const int64_t element = element_bytes(store.kind());
        for (int64_t head = 0; head < shape.kv_heads; ++head) {
            visit(store.group(0).keys(layer, page, head), shape.head_dim * store.slots() * element);
            visit(store.group(0).values(layer, page, head), whole_vectors(shape.head_dim) * store.slots() * element);
            if (store.kind() == Kind::int8) {
                visit((uint8_t*)store.group(0).key_scales(layer, page, head), store.slots() * 4);
                visit((uint8_t*)store.group(0).value_scales(layer, page, head), store.slots() * 4);
            }
            if (shape.mask) visit((uint8_t*)store.group(0).mask(layer, page, head), store.slots() * 4);
        }
    }
}

/// Bytes that tell a page and a plane from all others.
void fill(const Store& store, int64_t layers, int64_t page, int mark) {
    int plane = 0;
    each_plane(store, layers, page, [&](uint8_t* bytes, int64_t size) {
        for (int64_t i = 0; i < size; ++i) bytes[i] = (uint8_t)(mark * 31 + plane * 7 + i % 5 + 1);
        ++plane;
    });
}

bool holds(const Store& store, int64_t layers, int64_t page, int mark) {
    bool same = true;
    int plane = 0;
    each_plane(store, layers, page, [&](uint8_t* bytes, int64_t size) {
        for (int64_t i = 0; i < size; ++i) same &= bytes[i] == (uint8_t)(mark * 31 + plane * 7 + i % 5 + 1);
        ++plane;
    });
    return same;
}

bool empty(const Store& store, int64_t layers, int64_t page) {
    bool zeros = true;
    each_plane(store, layers, page, [&](uint8_t* bytes, int64_t size) {
        zeros &= std::all_of(bytes, bytes + size, [](uint8_t byte) { return byte == 0; });
    });
    return zeros;
}

void planes_are_apart_and_aligned() {
    for (Kind kind : kKinds)
        for (int64_t page_size : {1, 16, 20}) {
            Store store({{2, 20, true}, {1, 64, false}, {3, 1, true}}, page_size, kind);
            store.group(0).resize(70);
            int64_t bytes = 0;
            std::set<std::pair<uint8_t*, int64_t>> planes;
            for (int64_t page = 0; page < 70; ++page)
                each_plane(store, 3, page, [&](uint8_t* plane, int64_t size) {
                    CHECK((uintptr_t)plane % 64 == 0);
                    planes.insert({plane, size});
                    bytes += page == 0 ? (size + 63) / 64 * 64 : 0;
                });
            CHECK(store.group(0).bytes_per_page() == bytes);
            const uint8_t* end = nullptr;
            for (const auto& [plane, size] : planes) {
                CHECK(plane >= end);
                end = plane + size;
            }
        }
}

int64_t bytes_of(std::vector<LayerShape> layers, Kind kind) {
    return Store(std::move(layers), 16, kind).group(0).bytes_per_page();
}

void bytes_are_exact() {
    // (64 + 64) * 16 numbers a head; int8 has a float32 scale for each of 16 slots, twice.
    CHECK(bytes_of({{12, 64, false}}, Kind::float32) == 12 * 128 * 16 * 4);
    CHECK(bytes_of({{12, 64, false}}, Kind::bfloat16) == 12 * 128 * 16 * 2);
    CHECK(bytes_of({{12, 64, false}, {12, 64, false}}, Kind::int8) == 2 * 12 * (128 * 16 + 2 * 64));
    CHECK(bytes_of({{4, 32, true}}, Kind::float32) == 4 * (64 * 16 * 4 + 64));
    CHECK(bytes_of({}, Kind::float32) == 0);
}

GroupShape group(std::vector<int64_t> layers, int64_t window = 0) { return {std::move(layers), window}; }

/// Null, and memory over a file.
std::vector<std::shared_ptr<FileMemory>> places() {
    std::FILE* opened = std::tmpfile();
    std::vector<std::shared_ptr<FileMemory>> made{nullptr, std::make_shared<FileMemory>(fileno(opened))};
    std::fclose(opened);
    return made;
}

void content_stays_and_new_pages_are_zeros(Kind kind) {
    for (const auto& file : places()) {
        Store store({{2, 24, true}, {1, 300, false}}, 16, kind, {group({0, 1})}, 0, file);
        CHECK(store.in_file() == (file != nullptr));
        store.group(0).resize(3);
        for (int64_t page = 0; page < 3; ++page) CHECK(empty(store, 2, page)), fill(store, 2, page, (int)page);
        const uint8_t* where = store.group(0).keys(0, 1, 0);
        store.group(0).resize(500);
        CHECK(store.group(0).keys(0, 1, 0) == where && store.group(0).pages() == 500);
        for (int64_t page = 0; page < 500; ++page)
            CHECK(page < 3 ? holds(store, 2, page, (int)page) : empty(store, 2, page));
        for (int64_t page = 3; page < 500; ++page) fill(store, 2, page, (int)page);
        store.group(0).resize(70);
        store.group(0).resize(130);
        for (int64_t page = 0; page < 130; ++page)
            CHECK(page < 70 ? holds(store, 2, page, (int)page) : empty(store, 2, page));
        store.group(0).resize(0);
        store.group(0).resize(2);
        CHECK(empty(store, 2, 0) && empty(store, 2, 1));
    }
}

void used_chunks_are_read_ahead() {
    for (const auto& file : places()) {
        Store store({{2, 24, true}, {3, 300, false}, {1, 8, true}}, 16, Kind::int8, {group({0, 1, 2})}, 0, file);
        const PageMemory& memory = store.group(0);
        store.group(0).resize(200);
        for (int64_t page = 0; page < 200; ++page) fill(store, 3, page, (int)page);
        CHECK(memory.chunks() > 2 && memory.chunk_of(199) == memory.chunks() - 1);
        std::vector<int64_t> used(memory.chunks());
        used[memory.chunk_of(199)] = 1, used[0] = memory.pages();
        for (int64_t layer = 0; layer < 3; ++layer) memory.read_ahead(layer, used);
        for (int64_t page = 0; page < 200; ++page) CHECK(holds(store, 3, page, (int)page));
    }
}

void pages_are_copied_and_cleared() {
    for (Kind kind : kKinds) {
        Store store({{2, 24, true}, {1, 40, false}}, 5, kind);
        store.group(0).resize(200);
        for (int64_t page = 0; page < 200; ++page) fill(store, 2, page, (int)page);
        const int64_t sources[] = {1, 1, 150}, targets[] = {7, 199, 3}, cleared[] = {0, 64};
        store.group(0).copy(sources, targets, 3);
        store.group(0).clear(cleared, 2);
        for (int64_t page = 0; page < 200; ++page) {
            const int mark = page == 7 || page == 199 ? 1 : page == 3 ? 150 : (int)page;
            CHECK(page == 0 || page == 64 ? empty(store, 2, page) : holds(store, 2, page, mark));
        }
    }
}

void views_lead_to_the_same_planes() {
    Store store({{2, 24, true}, {3, 40, true}}, 16, Kind::int8);
    store.group(0).resize(150);
    const LayerView view = store.group(0).view(1);
    const int64_t page = 133, head = 2, inside = page & ((int64_t{1} << view.shift) - 1);
    const auto at = [&](const LayerView::Plane& plane) {
        return view.chunks[page >> view.shift] + plane.offset + head * plane.head_bytes + inside * plane.page_bytes;
    };
    CHECK(at(view.keys) == store.group(0).keys(1, page, head));
    CHECK(at(view.values) == store.group(0).values(1, page, head));
    CHECK(at(view.key_scales) == (uint8_t*)store.group(0).key_scales(1, page, head));
    CHECK(at(view.value_scales) == (uint8_t*)store.group(0).value_scales(1, page, head));
    CHECK(at(view.mask) == (uint8_t*)store.group(0).mask(1, page, head));
}

void groups_are_apart() {
    Store store({{2, 24, true}, {1, 40, false}, {3, 8, false}}, 5, Kind::bfloat16, {group({0, 2}), group({1}, 7)});
    CHECK(store.groups() == 2 && store.exact_group(0) == 0 && store.exact_group(1) == 1);
    const auto bytes = [](std::vector<LayerShape> layers) {
        return Store(std::move(layers), 5, Kind::bfloat16).group(0).bytes_per_page();
    };
    CHECK(store.group(0).bytes_per_page() == bytes({{2, 24, true}, {3, 8, false}}));
    CHECK(store.group(1).bytes_per_page() == bytes({{1, 40, false}}));
    store.group(0).resize(3);
    store.group(1).resize(90);
    CHECK(store.group(0).pages() == 3 && store.group(1).pages() == 90);
    std::memset(store.group(1).keys(1, 2, 0), 1, 40 * 16 * 2);
    std::memset(store.group(0).values(2, 2, 1), 2, 16 * 16 * 2);
    const int64_t page = 2;
    store.group(1).clear(&page, 1);
    CHECK(store.group(1).keys(1, 2, 0)[0] == 0 && store.group(0).values(2, 2, 1)[5] == 2);
}

void pages_are_read_and_written_whole() {
    for (Kind kind : kKinds) {
        Store store({{2, 24, true}, {1, 40, false}}, 5, kind);
        PageMemory& memory = store.group(0);
        memory.resize(100);
        for (int64_t page = 0; page < 100; ++page) fill(store, 2, page, (int)page);
        const int64_t some[] = {70, 3}, others[] = {3, 99};
        std::vector<uint8_t> content(2 * memory.bytes_per_page());
        memory.read(some, 2, content.data());
        memory.write(others, 2, content.data());
        for (int64_t page = 0; page < 100; ++page)
            CHECK(holds(store, 2, page, page == 3 ? 70 : page == 99 ? 3 : (int)page));
    }
}

/// Of a group with window 7 and pages of 4: a query at position 6 sees page 0, one at 10 sees 4 to 10.
void pages_behind_a_window_are_not_seen() {
    const GroupShape shape = group({0}, 7);
    CHECK(shape.first(0, 4) == 0 && shape.first(6, 4) == 0 && shape.first(9, 4) == 0 && shape.first(10, 4) == 1);
    CHECK(group({0}).first(1 << 20, 4) == 0);
}

void what_makes_no_store_is_refused() {
    CHECK_THROWS(Store({{1, 8, false}}, 0, Kind::float32), std::invalid_argument);
    CHECK_THROWS(Store({{1, 8, false}}, 16, Kind::float16), std::invalid_argument);
    CHECK_THROWS(Store({{1, 8, false}}, 16, Kind::int4), std::invalid_argument);
    for (const auto& groups : {std::vector<GroupShape>{}, {group({0}), group({0})}, {group({0, 1})}, {group({-1})},
                               {group({0}, -1)}})
        CHECK_THROWS(Store({{1, 8, false}}, 16, Kind::float32, groups), std::invalid_argument);
    Store store({{1, 8, false}}, 16, Kind::float32);
    CHECK_THROWS(store.group(0).resize(-1), std::invalid_argument);
}

}  // namespace

int main() {
    planes_are_apart_and_aligned();
    bytes_are_exact();
    for (Kind kind : kKinds) content_stays_and_new_pages_are_zeros(kind);
    used_chunks_are_read_ahead();
    pages_are_copied_and_cleared();
    views_lead_to_the_same_planes();
    groups_are_apart();
    pages_are_read_and_written_whole();
    pages_behind_a_window_are_not_seen();
    what_makes_no_store_is_refused();
    return loquent::test::report();
}
