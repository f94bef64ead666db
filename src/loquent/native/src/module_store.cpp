// Stores in Python: memory in numbered pages; what a group means there is in `loquent.native.store`.
#include <stdexcept>

#include "module.hpp"

namespace loquent {
namespace {

using Bytes = nb::ndarray<const uint8_t, nb::ndim<2>, nb::c_contig, nb::device::cpu>;

std::vector<LayerShape> layer_shapes(nb::handle layers) {
    std::vector<LayerShape> shapes;
    for (nb::handle layer : layers)
        shapes.push_back({nb::cast<int64_t>(layer[0]), nb::cast<int64_t>(layer[1]), nb::cast<bool>(layer[2])});
    return shapes;
}

std::vector<GroupShape> group_shapes(nb::handle groups) {
    std::vector<GroupShape> shapes;
    for (nb::handle group : groups)
        shapes.push_back({to_numbers(group[0]), nb::cast<int64_t>(group[1]), nb::cast<int64_t>(group[2])});
    return shapes;
}

PageMemory& group_of(Store& store, int64_t group) {
    if (group < 0 || group >= store.groups())
        throw std::out_of_range("the store has no group " + std::to_string(group) + ".");
    return store.group(group);
}

/// A sequence of ints that are pages of the group.
std::vector<int64_t> page_numbers(const PageMemory& memory, nb::handle pages) {
    std::vector<int64_t> numbers = to_numbers(pages);
    for (const int64_t page : numbers)
        if (page < 0 || page >= memory.pages())
            throw std::out_of_range("the store has no page " + std::to_string(page) + ".");
    return numbers;
}

void copy(Store& store, int64_t group, nb::handle sources, nb::handle targets) {
    PageMemory& memory = group_of(store, group);
    const auto from = page_numbers(memory, sources), to = page_numbers(memory, targets);
    if (from.size() != to.size()) throw std::invalid_argument("there must be a target for each source.");
    memory.copy(from.data(), to.data(), (int64_t)from.size());
}

nb::object read_pages(Store& store, int64_t group, nb::handle pages) {
    const PageMemory& memory = group_of(store, group);
    const auto numbers = page_numbers(memory, pages);
    const size_t bytes = (size_t)memory.bytes_per_page();
    std::vector<uint8_t> content(numbers.size() * bytes);
    memory.read(numbers.data(), (int64_t)numbers.size(), content.data());
    return own_array(std::move(content), {numbers.size(), bytes});
}

void write_pages(Store& store, int64_t group, nb::handle pages, Bytes content) {
    PageMemory& memory = group_of(store, group);
    const auto numbers = page_numbers(memory, pages);
    if (content.shape(0) != numbers.size() || (int64_t)content.shape(1) != memory.bytes_per_page())
        throw std::invalid_argument("the content of " + std::to_string(numbers.size()) + " pages has " +
                                    std::to_string(memory.bytes_per_page()) + " bytes for each.");
    memory.write(numbers.data(), (int64_t)numbers.size(), content.data());
}

}  // namespace

void bind_store(nb::module_& module) {
    nb::exception<DiskFull>(module, "DiskFullError");
    nb::class_<Store>(module, "Store", "The memory behind the pages of one model; see store.hpp.")
        .def("__init__", [](Store* self, nb::handle layers, int64_t page_size, const std::string& kind,
                            nb::handle groups, int64_t bits, std::optional<int> file) {
            new (self) Store(layer_shapes(layers), page_size, kind_of(kind), group_shapes(groups), bits,
                             file ? std::make_shared<FileMemory>(*file) : nullptr);
        }, nb::arg("layers"), nb::arg("page_size"), nb::arg("kind"), nb::arg("groups"), nb::arg("bits") = 0,
             nb::arg("file") = nb::none())
        .def("bytes_per_page", [](Store& store, int64_t group) { return group_of(store, group).bytes_per_page(); },
             nb::arg("group"))
        .def("pages", [](Store& store, int64_t group) { return group_of(store, group).pages(); }, nb::arg("group"))
        .def("resize", [](Store& store, int64_t group, int64_t pages) { group_of(store, group).resize(pages); },
             nb::arg("group"), nb::arg("pages"))
        .def("clear", [](Store& store, int64_t group, nb::handle pages) {
            PageMemory& memory = group_of(store, group);
            const auto numbers = page_numbers(memory, pages);
            memory.clear(numbers.data(), (int64_t)numbers.size());
        }, nb::arg("group"), nb::arg("pages"))
        .def("copy", &copy, nb::arg("group"), nb::arg("sources"), nb::arg("targets"))
        .def("read_pages", &read_pages, nb::arg("group"), nb::arg("pages"))
        .def("write_pages", &write_pages, nb::arg("group"), nb::arg("pages"), nb::arg("content"));
}

}  // namespace loquent
