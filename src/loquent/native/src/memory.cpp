// Mapped memory with advice to the kernel for what is large, the heap for the rest.
#include "memory.hpp"

#include <sys/mman.h>

#include <cstdlib>
#include <cstring>
#include <fstream>
#include <mutex>
#include <new>

namespace loquent {
namespace {

constexpr int64_t kHugePage = 2 << 20;
constexpr int64_t kMapping = 64 << 20;  // address space; what is never touched takes no memory

int64_t round_up(int64_t value, int64_t unit) { return (value + unit - 1) / unit * unit; }

std::shared_ptr<uint8_t> map_huge(int64_t bytes) {
    const int64_t size = round_up(bytes, kHugePage) + kHugePage;
    void* mapped = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (mapped == MAP_FAILED) throw std::bad_alloc();
    auto* start = reinterpret_cast<uint8_t*>(round_up(reinterpret_cast<int64_t>(mapped), kHugePage));
#ifdef MADV_HUGEPAGE
    // Whole ones alone: with its first byte the rest of another would take memory for nothing.
    madvise(start, bytes / kHugePage * kHugePage, MADV_HUGEPAGE);
#endif
    return std::shared_ptr<uint8_t>(start, [mapped, size](uint8_t*) { munmap(mapped, size); });
}

/// The mapping that lasting pieces are cut from, until it is used up.
struct Lasting {
    std::mutex mutex;
    std::weak_ptr<uint8_t> mapping;   // the pieces own it
    int64_t used = 0;
};

}  // namespace

std::shared_ptr<uint8_t> allocate_lasting(int64_t bytes) {
    const int64_t size = round_up(bytes < 1 ? 1 : bytes, 64);
    if (size > kMapping / 4) return map_huge(size);
    static Lasting lasting;
    std::lock_guard<std::mutex> lock(lasting.mutex);
    auto mapping = lasting.mapping.lock();
    if (!mapping || lasting.used + size > kMapping) {
        mapping = map_huge(kMapping);
        lasting.mapping = mapping;
        lasting.used = 0;
    }
    uint8_t* piece = mapping.get() + lasting.used;
    lasting.used += size;
    return std::shared_ptr<uint8_t>(mapping, piece);
}

int64_t last_cache_bytes() {
    // Not sysconf: it counts the caches of a whole socket together.
    std::ifstream file("/sys/devices/system/cpu/cpu0/cache/index3/size");
    int64_t kibibytes = 0;
    return file >> kibibytes && kibibytes > 0 ? kibibytes << 10 : 16 << 20;
}

std::shared_ptr<uint8_t> allocate(int64_t bytes) {
    if (bytes > kHugePage) return map_huge(bytes);
    const int64_t size = round_up(bytes < 1 ? 1 : bytes, 64);
    auto* memory = static_cast<uint8_t*>(std::aligned_alloc(64, size));
    if (!memory) throw std::bad_alloc();
    std::memset(memory, 0, size);
    return std::shared_ptr<uint8_t>(memory, [](uint8_t* p) { std::free(p); });
}

}  // namespace loquent
