// Memory for weights and activations: aligned to cache lines, in huge pages where it is large and the system has them.
#pragma once

#include <cstdint>
#include <memory>

namespace loquent {

/// `bytes` zeros, aligned to 64 bytes (to 2 MiB where larger than that). Throws std::bad_alloc.
std::shared_ptr<uint8_t> allocate(int64_t bytes);

template <class T>
std::shared_ptr<T> allocate_array(int64_t count) {
    auto memory = allocate(count * (int64_t)sizeof(T));
    return std::shared_ptr<T>(memory, reinterpret_cast<T*>(memory.get()));
}

}  // namespace loquent
