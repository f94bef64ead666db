// Which instruction sets this machine runs, and the kernels' table that is used; no kernels.
#include "kernels.hpp"

#include <cstdlib>
#include <stdexcept>
#include <string>

#if defined(__x86_64__)
#include <cpuid.h>
#elif defined(__aarch64__) && defined(__linux__)
#include <sys/auxv.h>
#endif

namespace loquent {

namespace portable { const Kernels& table(); }
namespace avx2 { const Kernels& table(); }
namespace avx512 { const Kernels& table(); }
namespace neon { const Kernels& table(); }

namespace {

#if defined(__x86_64__)

// Asked of the processor itself: compilers learned the names of newer features in different versions.
struct Processor {
    bool avx2 = false, avx512 = false;

    Processor() {
        unsigned a, b, c, d;
        if (!__get_cpuid(1, &a, &b, &c, &d)) return;
        const bool fma = c >> 12 & 1, f16c = c >> 29 & 1, saves_state = c >> 27 & 1;
        if (!fma || !f16c || !saves_state) return;
        const unsigned state = saved_state();
        if ((state & 0x06) != 0x06 || !__get_cpuid_count(7, 0, &a, &b, &c, &d)) return;
        avx2 = b >> 5 & 1;
        const bool foundation = b >> 16 & 1, dq = b >> 17 & 1, bw = b >> 30 & 1, vl = b >> 31 & 1, vnni = c >> 11 & 1;
        if (!avx2 || (state & 0xe6) != 0xe6 || !foundation || !dq || !bw || !vl || !vnni) return;
        avx512 = __get_cpuid_count(7, 1, &a, &b, &c, &d) && (a >> 5 & 1);  // bfloat16
    }

private:
    // The registers that the operating system keeps when it switches between threads.
    static unsigned saved_state() {
        unsigned low, high;
        __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
        return low;
    }
};

#elif defined(__aarch64__)

bool has_dot_products() {
#if defined(__linux__)
    constexpr unsigned long needed = 1ul << 8 | 1ul << 10 | 1ul << 20;  // ATOMICS, ASIMDHP, ASIMDDP
    return (getauxval(AT_HWCAP) & needed) == needed;
#else
    return true;  // every Apple processor of this architecture
#endif
}

#endif

/// What was compiled and runs here, best first.
std::vector<const Kernels*> tables() {
    std::vector<const Kernels*> found;
#if defined(__x86_64__)
    [[maybe_unused]] const Processor processor;
#if defined(LOQUENT_HAS_AVX512)
    if (processor.avx512) found.push_back(&avx512::table());
#endif
#if defined(LOQUENT_HAS_AVX2)
    if (processor.avx2) found.push_back(&avx2::table());
#endif
#elif defined(__aarch64__) && defined(LOQUENT_HAS_NEON)
    if (has_dot_products()) found.push_back(&neon::table());
#endif
    found.push_back(&portable::table());
    return found;
}

const Kernels& choose_table() {
    const std::vector<const Kernels*> found = tables();
    const char* asked = std::getenv("LOQUENT_ISA");
    if (!asked || !*asked) return *found.front();
    std::string names;
    for (const Kernels* table : found) {
        if (table->name == std::string(asked)) return *table;
        names += (names.empty() ? "" : ", ") + std::string(table->name);
    }
    throw std::invalid_argument("LOQUENT_ISA=" + std::string(asked) +
                                " names no instruction set that this machine runs. It runs: " + names);
}

}  // namespace

const Kernels& kernels() {
    static const Kernels& chosen = choose_table();
    return chosen;
}

std::vector<const char*> instruction_sets() {
    std::vector<const char*> names;
    for (const Kernels* table : tables()) names.push_back(table->name);
    return names;
}

}  // namespace loquent
