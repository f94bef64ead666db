// Memory over a file: zeros, blocks that are reserved and given back, a disk that is full, and forked processes.
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstdlib>
#include <cstdio>
#include <cstring>

#include "check.hpp"
#include "file_memory.hpp"

using namespace loquent;

namespace {

constexpr int64_t kPiece = 3 << 20;

/// A file without a name, closed with the object.
struct File {
    ~File() { std::fclose(opened); }
    struct stat look() const {
        struct stat found;
        fstat(number, &found);
        return found;
    }
    int64_t taken() const { return int64_t{512} * look().st_blocks; }
    std::FILE* opened = std::tmpfile();
    int number = fileno(opened);
};

std::shared_ptr<FileMemory> over(const File& file) { return std::make_shared<FileMemory>(file.number); }

bool all(const uint8_t* bytes, int64_t count, uint8_t value) {
    return std::all_of(bytes, bytes + count, [=](uint8_t byte) { return byte == value; });
}

void pieces_are_zeros_of_their_own() {
    const File file;
    const auto memory = over(file);
    const auto first = memory->allocate(kPiece), small = memory->allocate(1), second = memory->allocate(kPiece);
    CHECK(all(first.get(), kPiece, 0) && all(second.get(), kPiece, 0) && *small == 0);
    CHECK((uintptr_t)small.get() % 4096 == 0);
    std::memset(first.get(), 1, kPiece);
    std::memset(second.get(), 2, kPiece);
    *small = 3;
    CHECK(all(first.get(), kPiece, 1) && all(second.get(), kPiece, 2) && *small == 3);
    uint8_t stored = 0;
    CHECK(pread(file.number, &stored, 1, 0) == 1 && stored == 1);   // it is the file that holds them
}

void blocks_are_reserved_and_given_back() {
    const File file;
    const auto memory = over(file);
    auto first = memory->allocate(kPiece), second = memory->allocate(kPiece);
    CHECK(file.taken() >= 2 * kPiece);
    std::memset(first.get(), 7, kPiece);
    std::memset(second.get(), 8, kPiece);
    first.reset();
    CHECK(file.taken() < 2 * kPiece && file.taken() >= kPiece);
    CHECK(all(second.get(), kPiece, 8));
    second.reset();
    CHECK(file.taken() == 0 && file.look().st_size == 0);
}

void places_are_used_again_as_zeros() {
    const File file;
    const auto memory = over(file);
    const auto stays = memory->allocate(kPiece);
    auto goes = memory->allocate(kPiece);
    const int64_t size = file.look().st_size;
    for (int round = 1; round < 5; ++round) {
        std::memset(goes.get(), round, kPiece);
        goes.reset();
        goes = memory->allocate(kPiece);
        CHECK(all(goes.get(), kPiece, 0) && file.look().st_size == size);
    }
}

void pieces_outlive_their_memory() {
    const File file;
    auto memory = over(file);
    auto piece = memory->allocate(kPiece);
    memory.reset();
    std::memset(piece.get(), 5, kPiece);
    CHECK(all(piece.get(), kPiece, 5));
    piece.reset();
    CHECK(file.taken() == 0);
}

void a_full_disk_is_refused() {
    const File file;
    const auto memory = over(file);
    auto first = memory->allocate(kPiece);
    std::memset(first.get(), 9, kPiece);
    std::signal(SIGXFSZ, SIG_IGN);
    struct rlimit before;
    getrlimit(RLIMIT_FSIZE, &before);
    const struct rlimit limit{2 * kPiece - 1, before.rlim_max};
    setrlimit(RLIMIT_FSIZE, &limit);
    std::string message;
    try {
        memory->allocate(kPiece);
    } catch (const DiskFull& error) {
        message = error.what();
    }
    CHECK(message.find("no room for 3.0 MiB more (") == 0);
    CHECK(message.find(" are free") != std::string::npos);
    CHECK(file.taken() < 2 * kPiece && all(first.get(), kPiece, 9));
    setrlimit(RLIMIT_FSIZE, &before);
    CHECK(all(memory->allocate(kPiece).get(), kPiece, 0));
}

void a_forked_process_changes_nothing() {
    const File file;
    auto memory = over(file);
    auto piece = memory->allocate(kPiece), other = memory->allocate(kPiece);
    std::memset(piece.get(), 6, kPiece);
    const pid_t child = fork();
    if (child == 0) {
        int refused = 0;
        for (const bool allocates : {false, true}) try {
            if (allocates) memory->allocate(1);
            memory->check_process();
        } catch (const std::logic_error&) {
            ++refused;
        }
        piece.reset(), other.reset(), memory.reset();
        _exit(refused);
    }
    int status = 0;
    waitpid(child, &status, 0);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 2);
    CHECK(all(piece.get(), kPiece, 6) && file.taken() >= 2 * kPiece);
    memory->check_process();
    CHECK(all(memory->allocate(kPiece).get(), kPiece, 0));
}

#ifdef __linux__
bool in_memory(const uint8_t* piece) {
    std::vector<unsigned char> pages(kPiece / sysconf(_SC_PAGESIZE));
    return mincore(const_cast<uint8_t*>(piece), kPiece, pages.data()) == 0 &&
           std::all_of(pages.begin(), pages.end(), [](unsigned char page) { return page & 1; });
}

void what_was_dropped_is_read_ahead() {
    const File file;
    const auto piece = over(file)->allocate(kPiece);
    std::memset(piece.get(), 4, kPiece);
    fsync(file.number);
    madvise(piece.get(), kPiece, MADV_DONTNEED);
    posix_fadvise(file.number, 0, 0, POSIX_FADV_DONTNEED);
    read_ahead(piece.get() + 100, kPiece - 100);
    for (int wait = 0; wait < 1000 && !in_memory(piece.get()); ++wait) usleep(10000);
    CHECK(in_memory(piece.get()));
    CHECK(all(piece.get(), kPiece, 4));
}
#endif

void a_closed_descriptor_is_refused() { CHECK_THROWS(FileMemory(-1), std::invalid_argument); }

}  // namespace

int main() {
    pieces_are_zeros_of_their_own();
    blocks_are_reserved_and_given_back();
    places_are_used_again_as_zeros();
    pieces_outlive_their_memory();
    a_full_disk_is_refused();
    const bool is_emulated = std::getenv("LOQUENT_NO_FORK");   // qemu-user gives the system no advice on memory either
    if (!is_emulated) a_forked_process_changes_nothing();
#ifdef __linux__
    if (!is_emulated) what_was_dropped_is_read_ahead();
#endif
    a_closed_descriptor_is_refused();
    return loquent::test::report();
}
