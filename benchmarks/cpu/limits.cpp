// What this machine allows: bytes read per second and arithmetic per second in registers. Measures nothing of ours.
//
//   limits THREADS
//
// Answers a line per line of its input: "read BYTES" with the seconds that reading so many bytes once takes, and
// "float32", "bfloat16", "int8" with operations per second (a multiplication and an addition are two).

#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <iostream>
#include <string>
#include <thread>
#include <vector>

#include <sys/mman.h>

#if defined(__AVX512F__) || defined(__AVXVNNI__)
#include <immintrin.h>
#endif

#if defined(__AVX512F__)
#define IN_REGISTER "+v"
#define VECTOR_BYTES 64
#elif defined(__x86_64__)
#define IN_REGISTER "+x"
#define VECTOR_BYTES 32
#else
#define IN_REGISTER "+w"
#define VECTOR_BYTES 16
#endif

namespace {

using Clock = std::chrono::steady_clock;
typedef float Floats __attribute__((vector_size(VECTOR_BYTES)));
typedef std::uint64_t Words __attribute__((vector_size(VECTOR_BYTES)));

constexpr double seconds_to_measure = 0.15;
constexpr std::size_t share = 128 << 10;  // bytes that a thread takes at a time

double since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

template <class Work> void on_threads(int threads, Work work) {
    std::vector<std::thread> others;
    for (int number = 1; number < threads; ++number) others.emplace_back(work);
    work();
    for (auto& other : others) other.join();
}

std::uint64_t sum(const char* bytes, std::size_t count) {
    Words totals[8] = {};
    for (std::size_t at = 0; at + sizeof totals <= count; at += sizeof totals) {
        const Words* words = reinterpret_cast<const Words*>(bytes + at);
        for (int lane = 0; lane < 8; ++lane) totals[lane] += words[lane];
    }
    Words all = {};
    for (const Words& total : totals) all += total;
    return all[0];
}

// Seconds for one pass over all bytes; the threads take shares as they come, and wait for one another after each pass.
double read_once(char* bytes, std::size_t count, int threads) {
    const std::size_t shares = (count + share - 1) / share;
    std::atomic<std::size_t> next{0}, done{0}, passes{0};
    std::atomic<std::uint64_t> kept{0};
    std::atomic<bool> enough{false};
    const auto start = Clock::now();
    on_threads(threads, [&] {
        for (std::size_t pass = 0; !enough.load(std::memory_order_acquire); ++pass) {
            const std::size_t end = (pass + 1) * shares;
            std::uint64_t total = 0;
            std::size_t finished = 0;
            for (std::size_t mine = next.load(); mine < end;) {
                if (!next.compare_exchange_weak(mine, mine + 1)) continue;
                const std::size_t from = (mine - pass * shares) * share;
                total += sum(bytes + from, std::min(share, count - from));
                mine = next.load();
                ++finished;
            }
            kept.fetch_add(total, std::memory_order_relaxed);
            if (done.fetch_add(finished) + finished == end && finished) {  // the last share of this pass
                if (since(start) > seconds_to_measure && pass >= 2) enough.store(true, std::memory_order_release);
                passes.store(pass + 1, std::memory_order_release);
            }
            for (int spin = 0; passes.load(std::memory_order_acquire) <= pass; ++spin) {
                if (spin > 10000) std::this_thread::yield();
            }
        }
    });
    const double seconds = since(start);
    if (kept.load() == 1) std::puts("");  // so that the sums are needed
    return seconds / static_cast<double>(passes.load());
}

constexpr int registers = 12;

// Runs `step` on registers of every thread; operations per second when each step does `operations` of them.
template <class Register, class Step> double rate(int threads, double operations, Step step) {
    std::atomic<std::uint64_t> steps{0};
    const auto start = Clock::now();
    on_threads(threads, [&] {
        Register totals[registers] = {}, left = {}, right = {};
        asm volatile("" : IN_REGISTER(left), IN_REGISTER(right));
        std::uint64_t mine = 0;
        while (since(start) < seconds_to_measure) {
            for (int repeat = 0; repeat < 4096; ++repeat) {
                for (auto& total : totals) {
                    total = step(total, left, right);
                    asm volatile("" : IN_REGISTER(total));
                }
            }
            mine += 4096;
        }
        steps += mine * registers;
    });
    return static_cast<double>(steps.load()) * operations / since(start);
}

double float32_rate(int threads) {
    return rate<Floats>(threads, 2.0 * (VECTOR_BYTES / 4), [](Floats total, Floats left, Floats right) {
        return total + left * right;  // contracted to one instruction where there is one
    });
}

double bfloat16_rate(int threads) {
#if defined(__AVX512BF16__)
    return rate<__m512>(threads, 64, [](__m512 total, __m512 left, __m512 right) {
        return _mm512_dpbf16_ps(total, reinterpret_cast<__m512bh>(left), reinterpret_cast<__m512bh>(right));
    });
#else
    return float32_rate(threads);
#endif
}

double int8_rate(int threads) {
#if defined(__AVX512VNNI__)
    return rate<__m512i>(threads, 128, [](__m512i total, __m512i left, __m512i right) {
        return _mm512_dpbusd_epi32(total, left, right);
    });
#elif defined(__AVXVNNI__)
    return rate<__m256i>(threads, 64, [](__m256i total, __m256i left, __m256i right) {
        return _mm256_dpbusd_avx_epi32(total, left, right);
    });
#else
    return float32_rate(threads);
#endif
}

double read_rate(std::size_t count, int threads) {
    static char* bytes = nullptr;
    static std::size_t room = 0;
    if (count > room) {
        if (bytes) munmap(bytes, room);
        void* got = mmap(nullptr, count, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (got == MAP_FAILED) {
            bytes = nullptr, room = 0;
            return -1;
        }
        bytes = static_cast<char*>(got), room = count;
        madvise(bytes, room, MADV_HUGEPAGE);
        for (std::size_t at = 0; at < room; at += 4096) bytes[at] = static_cast<char>(at >> 12);
    }
    return read_once(bytes, count, threads);
}

}  // namespace

int main(int arguments, char** argument) {
    const int threads = arguments > 1 ? std::atoi(argument[1]) : 1;
    std::string word;
    while (std::cin >> word) {
        double answer = -1;
        std::size_t count = 0;
        if (word == "read" && std::cin >> count) answer = read_rate(count, threads);
        if (word == "float32") answer = float32_rate(threads);
        if (word == "bfloat16") answer = bfloat16_rate(threads);
        if (word == "int8") answer = int8_rate(threads);
        std::printf("%.9g\n", answer);
        std::fflush(stdout);
    }
}
