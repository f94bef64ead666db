// Pieces of a file: a shared mapping each, over blocks that were reserved before.
#include "file_memory.hpp"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <new>
#include <string>

namespace loquent {
namespace {

int64_t system_page() {
    static const int64_t size = sysconf(_SC_PAGESIZE);
    return size;
}

int64_t whole_system_pages(int64_t bytes) { return (bytes + system_page() - 1) / system_page() * system_page(); }

/// Blocks by writing zeros: what a system has that reserves none otherwise. Returns an error number.
int write_zeros(int file, int64_t offset, int64_t size) {
    const std::vector<char> zeros(std::min<int64_t>(size, 1 << 20));
    while (size > 0) {
        const ssize_t written = pwrite(file, zeros.data(), std::min<int64_t>(size, zeros.size()), offset);
        if (written < 0 && errno == EINTR) continue;
        if (written < 0) return errno;
        offset += written, size -= written;
    }
    return 0;
}

/// Returns an error number.
int reserve_blocks(int file, int64_t offset, int64_t size) {
#ifdef __linux__
    int error;
    do error = posix_fallocate(file, offset, size);
    while (error == EINTR);
    if (error != EOPNOTSUPP && error != EINVAL) return error;
#endif
    return write_zeros(file, offset, size);
}

/// "1.50 GiB", or "12 KiB" where that says more.
std::string in_words(double bytes) {
    char text[32];
    if (bytes >= 1 << 30)
        std::snprintf(text, sizeof text, "%.2f GiB", bytes / (1 << 30));
    else if (bytes >= 1 << 20)
        std::snprintf(text, sizeof text, "%.1f MiB", bytes / (1 << 20));
    else
        std::snprintf(text, sizeof text, "%.0f KiB", bytes / (1 << 10));
    return text;
}

std::string free_in_words(int file) {
    struct statvfs system;
    if (fstatvfs(file, &system)) return "unknown";
    return in_words(static_cast<double>(system.f_bavail) * system.f_frsize);
}

/// A tenth of the time of asking for what is there already.
bool is_in_memory(void* begin, size_t size) {
#ifdef __linux__
    std::vector<unsigned char> pages(whole_system_pages(size) / system_page());
    return mincore(begin, size, pages.data()) == 0 &&
           std::all_of(pages.begin(), pages.end(), [](unsigned char page) { return page & 1; });
#else
    (void)begin, (void)size;
    return false;
#endif
}

}  // namespace

FileMemory::FileMemory(int file) : file_(fcntl(file, F_DUPFD_CLOEXEC, 0)), process_(getpid()) {
    if (file_ < 0) throw std::invalid_argument(std::string("the store's file cannot be used: ") + std::strerror(errno));
}

FileMemory::~FileMemory() { close(file_); }

void FileMemory::check_process() const {
    if (getpid() != process_)
        throw std::logic_error("a store in a file belongs to the process that opened it: open another in this one.");
}

std::shared_ptr<uint8_t> FileMemory::allocate(int64_t bytes) {
    check_process();
    const int64_t size = whole_system_pages(std::max<int64_t>(bytes, 1));
    std::lock_guard<std::mutex> lock(mutex_);
    const Place place = take(size);
    reserve(place.offset, size, bytes);
    void* mapped = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED, file_, place.offset);
    if (mapped == MAP_FAILED) {
        free_[size].push_back({place.offset, punch(place.offset, size)});
        throw std::bad_alloc();
    }
    if (!place.zeros) std::memset(mapped, 0, size);
    ++pieces_;
    const auto give_back = [self = shared_from_this(), offset = place.offset, size](uint8_t* piece) {
        self->give_back(piece, offset, size);
    };
    return std::shared_ptr<uint8_t>(static_cast<uint8_t*>(mapped), give_back);
}

FileMemory::Place FileMemory::take(int64_t size) {
    auto& places = free_[size];
    if (places.empty()) {
        end_ += size;
        return {end_ - size, true};
    }
    const Place place = places.back();
    places.pop_back();
    return place;
}

void FileMemory::reserve(int64_t offset, int64_t size, int64_t wanted) {
    const int error = reserve_blocks(file_, offset, size);
    if (!error) return;
    free_[size].push_back({offset, punch(offset, size)});
    throw DiskFull("no room for " + in_words(wanted) + " more (" + std::strerror(error) + "): " +
                       free_in_words(file_) + " are free");
}

bool FileMemory::punch(int64_t offset, int64_t size) const {
#ifdef FALLOC_FL_PUNCH_HOLE
    return fallocate(file_, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset, size) == 0;
#else
    (void)offset, (void)size;
    return false;
#endif
}

void FileMemory::give_back(uint8_t* piece, int64_t offset, int64_t size) {
    munmap(piece, size);
    if (getpid() != process_) return;   // the file is still in use
    std::lock_guard<std::mutex> lock(mutex_);
    free_[size].push_back({offset, punch(offset, size)});
    if (--pieces_ > 0) return;
    // Without a piece all is free, on systems too that punch no holes.
    if (ftruncate(file_, 0) == 0) free_.clear(), end_ = 0;
}

void read_ahead(const uint8_t* start, int64_t bytes) {
    const auto address = reinterpret_cast<uintptr_t>(start);
    const uintptr_t first = address / system_page() * system_page();
    void* begin = reinterpret_cast<void*>(first);
    const size_t size = address + bytes - first;
    if (!is_in_memory(begin, size)) posix_madvise(begin, size, POSIX_MADV_WILLNEED);
}

}  // namespace loquent
