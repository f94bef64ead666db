// Matrices in Python: made and filled there, mapped from files, or read in place from somebody else's memory.
#include <stdexcept>

#include "module.hpp"

namespace loquent {
namespace {

using Bytes = nb::ndarray<const uint8_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Sums = nb::ndarray<const int32_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using AnyRows = nb::ndarray<nb::ndim<2>, nb::device::cpu, nb::ro>;

/// Keeps Python objects alive from C++; they are let go with the GIL held.
std::shared_ptr<void> keep_alive(nb::object object) {
    return std::shared_ptr<void>(object.release().ptr(), [](void* kept) {
        if (!nb::is_alive()) return;
        nb::gil_scoped_acquire gil;
        Py_DECREF((PyObject*)kept);
    });
}

void check_sizes(int64_t rows, int64_t columns) {
    // Far above any model, and low enough that no product of sizes overflows.
    constexpr int64_t kMost = int64_t{1} << 31;
    if (rows < 1 || columns < 1 || rows > kMost || columns > kMost)
        throw std::invalid_argument("rows and columns of a matrix must be positive.");
}

Kind kind_of_source(const AnyRows& source, const std::string& name) {
    const Kind kind = kind_of(name);
    const bool fits = (kind == Kind::float32 && source.dtype() == nb::dtype<float>()) ||
                      (kind == Kind::bfloat16 && source.dtype() == nb::dtype<uint16_t>()) ||
                      (kind == Kind::float16 && source.itemsize() == 2);
    if (!fits) throw std::invalid_argument("the array's type is not that of " + name + " numbers.");
    return kind;
}

void fill(Matrix& matrix, int64_t first_row, AnyRows source, const std::string& name) {
    const Kind kind = kind_of_source(source, name);
    if (!matrix.packed || !matrix.owner)
        throw std::invalid_argument("only a matrix that was made empty can be filled.");
    const int64_t rows = (int64_t)source.shape(0);
    if (first_row < 0 || first_row + rows > matrix.rows || (int64_t)source.shape(1) != matrix.columns)
        throw std::invalid_argument("the rows do not fit into the matrix.");
    if (!rows) return;
    WithoutGil released;
    fill_rows(matrix, first_row,
              {source.data(), kind, rows, matrix.columns, source.stride(0), source.stride(1)});
}

Matrix mapped(const std::string& name, int64_t rows, int64_t columns, nb::object data, nb::object scales,
              nb::object sums) {
    check_sizes(rows, columns);
    const Kind kind = kind_of(name);
    const auto bytes = nb::cast<Bytes>(data);
    if ((int64_t)bytes.size() != packed_bytes(kind, rows, columns))
        throw std::invalid_argument("the data are not those of a packed matrix of this size.");
    if (scales.is_none() != sums.is_none() || scales.is_none() == (kind == Kind::int8))
        throw std::invalid_argument("int8 has scales and sums, other kinds have neither.");
    const float* scale = nullptr;
    const int32_t* sum = nullptr;
    if (kind == Kind::int8) {
        const auto scale_array = nb::cast<Floats>(scales);
        const auto sum_array = nb::cast<Sums>(sums);
        const size_t padded = (size_t)((rows + kPanel - 1) / kPanel * kPanel);
        if (scale_array.size() != padded || sum_array.size() != padded)
            throw std::invalid_argument("scales and sums must have a number for each row of each panel.");
        scale = scale_array.data();
        sum = sum_array.data();
    }
    return packed_matrix(kind, rows, columns, bytes.data(), scale, sum, keep_alive(nb::make_tuple(data, scales, sums)));
}

Matrix row_by_row(const std::string& kind, uintptr_t address, int64_t rows, int64_t columns, int64_t row_stride,
                  nb::object owner) {
    check_sizes(rows, columns);
    if (row_stride < columns) throw std::invalid_argument("rows must be at least as far apart as they are long.");
    return row_matrix(kind_of(kind), rows, columns, row_stride, reinterpret_cast<const void*>(address),
                      keep_alive(std::move(owner)));
}

nb::object row(const Matrix& matrix, int64_t index) {
    if (index < 0 || index >= matrix.rows) throw std::out_of_range("the matrix has no such row.");
    std::vector<float> numbers(matrix.columns);
    read_row(matrix, index, numbers.data());
    return own_array(std::move(numbers), {(size_t)matrix.columns});
}

nb::object data_of(nb::handle self) {
    const auto& matrix = nb::cast<const Matrix&>(self);
    if (!matrix.packed) throw std::invalid_argument("a matrix that is read in place has no packed data.");
    return as_array(const_cast<uint8_t*>(matrix.data),
                    {(size_t)packed_bytes(matrix.kind, matrix.rows, matrix.columns)}, self);
}

template <class T>
nb::object numbers_of(nb::handle self, const T* numbers) {
    if (!numbers) return nb::none();
    return as_array(const_cast<T*>(numbers), {(size_t)(nb::cast<const Matrix&>(self).panels() * kPanel)}, self);
}

}  // namespace

void bind_matrix(nb::module_& module) {
    nb::class_<Matrix>(module, "Matrix", "A weight matrix as the products read it; see matrix.hpp.")
        .def("__init__", [](Matrix* self, const std::string& kind, int64_t rows, int64_t columns) {
            check_sizes(rows, columns);
            new (self) Matrix(allocate_matrix(kind_of(kind), rows, columns));
        }, nb::arg("kind"), nb::arg("rows"), nb::arg("columns"))
        .def_static("mapped", &mapped, nb::arg("kind"), nb::arg("rows"), nb::arg("columns"), nb::arg("data"),
                    nb::arg("scales") = nb::none(), nb::arg("sums") = nb::none())
        .def_static("row_by_row", &row_by_row, nb::arg("kind"), nb::arg("address"), nb::arg("rows"),
                    nb::arg("columns"), nb::arg("row_stride"), nb::arg("owner"))
        .def("fill", &fill, nb::arg("first_row"), nb::arg("source"), nb::arg("kind"))
        .def("row", &row, nb::arg("index"))
        .def_prop_ro("kind", [](const Matrix& matrix) { return name_of(matrix.kind); })
        .def_ro("rows", &Matrix::rows)
        .def_ro("columns", &Matrix::columns)
        .def_ro("packed", &Matrix::packed)
        .def_prop_ro("nbytes", &Matrix::bytes)
        .def_prop_ro("data", &data_of)
        .def_prop_ro("scales", [](nb::handle self) { return numbers_of(self, nb::cast<const Matrix&>(self).scales); })
        .def_prop_ro("sums", [](nb::handle self) { return numbers_of(self, nb::cast<const Matrix&>(self).sums); });
}

}  // namespace loquent
