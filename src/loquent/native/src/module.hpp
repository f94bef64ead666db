// What the binding's files share: nanobind, the types of arrays, and arrays made of memory that C++ owns.
#pragma once

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/shared_ptr.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>
#include <unistd.h>

#include <memory>
#include <optional>
#include <vector>

#include "plan.hpp"

namespace loquent {

namespace nb = nanobind;
using Floats = nb::ndarray<const float, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Doubles = nb::ndarray<const double, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Rows = nb::ndarray<const float, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using Int64s = nb::ndarray<const int64_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;

Vector to_vector(const Floats& array);
Vector to_vector(const std::optional<Floats>& array);   // null for None

/// A Python sequence of ints as numbers.
std::vector<int64_t> to_numbers(nb::handle sequence);

/// Lets other Python threads run while it lives. Where the interpreter ends meanwhile, as it does under a daemon
/// thread, the thread waits here for the process to end: Python would unwind its stack, through frames that cannot be
/// unwound.
class WithoutGil {
public:
    WithoutGil() : state_(PyEval_SaveThread()) {}
    ~WithoutGil() {
        try {
            PyEval_RestoreThread(state_);
        } catch (...) {
            for (;;) pause();
        }
    }
    WithoutGil(const WithoutGil&) = delete;
    WithoutGil& operator=(const WithoutGil&) = delete;

private:
    PyThreadState* state_;
};

/// A numpy array over `data`, which `owner` keeps alive.
template <class T>
nb::object as_array(T* data, std::initializer_list<size_t> shape, nb::handle owner) {
    return nb::cast(nb::ndarray<nb::numpy, T>(data, shape.size(), shape.begin(), owner));
}

/// A numpy array that owns these numbers.
template <class T>
nb::object own_array(std::vector<T> numbers, std::initializer_list<size_t> shape) {
    auto* kept = new std::vector<T>(std::move(numbers));
    nb::capsule owner(kept, [](void* p) noexcept { delete static_cast<std::vector<T>*>(p); });
    return as_array(kept->data(), shape, owner);
}

/// Python's view of a choice, read attribute by attribute; `arrays` keeps the arrays that it points into.
Choice read_choice(nb::handle choice, std::vector<nb::object>& arrays);
nb::object chosen_object(Chosen chosen, bool best);

void bind_matrix(nb::module_& module);
void bind_store(nb::module_& module);
void bind_plan(nb::module_& module);

}  // namespace loquent
