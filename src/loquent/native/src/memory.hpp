// Memory for weights and activations: aligned to cache lines, in huge pages where it is large and the system has them.
#pragma once

#include <cstdint>
#include <memory>

namespace loquent {

/// `bytes` zeros, aligned to 64 bytes (to 2 MiB where larger than that). Throws std::bad_alloc.
std::shared_ptr<uint8_t> allocate(int64_t bytes);

/// The size of the last cache that a core reads through; a usual one where the system does not tell.
int64_t last_cache_bytes();

/// The same as `allocate` for what stays as long as a model: pieces share large mappings, so that small matrices lie in
/// huge pages too (half the time of a product of 16 rows with a matrix of 1.8 MB went into address translation
/// without). A mapping is given back with its last piece.
std::shared_ptr<uint8_t> allocate_lasting(int64_t bytes);

template <class T>
std::shared_ptr<T> allocate_array(int64_t count) {
    auto memory = allocate(count * (int64_t)sizeof(T));
    return std::shared_ptr<T>(memory, reinterpret_cast<T*>(memory.get()));
}

}  // namespace loquent
