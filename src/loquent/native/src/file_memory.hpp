// Memory over a temporary file, for pages that are to take room on a disk and not in RAM: what is not in use the system
// writes back and drops.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <vector>

namespace loquent {

/// The file's disk cannot hold what is wanted; the message, "no room for ...", says how much that is, and what is free.
class DiskFull : public std::runtime_error {
    using std::runtime_error::runtime_error;
};

/// Pieces of one file that nobody else writes to. Blocks are reserved before a piece is mapped, so that a full disk
/// is an exception and never the signal of a write that cannot be kept; a piece that goes gives them back.
///
/// The pieces belong to the process that made them: a forked child shares the file, so it may let go of them, which
/// changes nothing in the file, and is refused everything else (`check_process`).
class FileMemory : public std::enable_shared_from_this<FileMemory> {
public:
    /// Over a copy of this open descriptor, of an empty file that has no name.
    /// Throws std::invalid_argument where the descriptor is none.
    explicit FileMemory(int file);
    ~FileMemory();
    FileMemory(const FileMemory&) = delete;
    FileMemory& operator=(const FileMemory&) = delete;

    /// `bytes` zeros, aligned to the system's pages. Pieces may outlive the object.
    /// Throws DiskFull, and std::logic_error in another process than the one that made the object.
    std::shared_ptr<uint8_t> allocate(int64_t bytes);

    /// Throws std::logic_error in another process than the one that made the object.
    void check_process() const;

private:
    struct Place {
        int64_t offset;
        bool zeros;      // whether the file is known to hold nothing there
    };

    Place take(int64_t size);
    void reserve(int64_t offset, int64_t size, int64_t wanted);
    /// Whether the blocks are free again, and the place zeros.
    bool punch(int64_t offset, int64_t size) const;
    void give_back(uint8_t* piece, int64_t offset, int64_t size);

    int file_;
    const pid_t process_;
    std::mutex mutex_;
    int64_t end_ = 0, pieces_ = 0;
    std::map<int64_t, std::vector<Place>> free_;   // places that were given back, by their size
};

/// Ask the system to bring these bytes from the disk, without waiting for them; nothing where they are in memory.
void read_ahead(const uint8_t* start, int64_t bytes);

}  // namespace loquent
