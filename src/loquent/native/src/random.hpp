// Counter-based random numbers, the same as `loquent.decoding.random`: a function of a seed, a position and a purpose.
#pragma once

#include <cstdint>

namespace loquent {

enum class Purpose : uint32_t { draw = 0, accept = 1, resample = 2, branch = 3, fresh = 4, draft = 5 };

/// 64 random bits: ten rounds of Philox4x32 (Salmon et al., 2011) on the position and the purpose, keyed by the seed.
inline uint64_t random_bits(uint64_t seed, uint64_t position, Purpose purpose) {
    uint32_t a = (uint32_t)position, b = (uint32_t)(position >> 32), c = (uint32_t)purpose, d = 0;
    uint32_t left = (uint32_t)seed, right = (uint32_t)(seed >> 32);
    for (int round = 0; round < 10; ++round) {
        const uint64_t first = (uint64_t)a * 0xD2511F53u, second = (uint64_t)c * 0xCD9E8D57u;
        a = (uint32_t)(second >> 32) ^ b ^ left;
        b = (uint32_t)second;
        c = (uint32_t)(first >> 32) ^ d ^ right;
        d = (uint32_t)first;
        left += 0x9E3779B9u;
        right += 0xBB67AE85u;
    }
    return (uint64_t)b << 32 | a;
}

/// A random number in [0, 1), a multiple of 2^-53.
inline double uniform(uint64_t seed, uint64_t position, Purpose purpose) {
    return (double)(random_bits(seed, position, purpose) >> 11) * 0x1p-53;
}

}  // namespace loquent
