// What a test program needs: named checks that count failures and say where; no framework.
//
//   int main() {
//       CHECK(rows == 3);
//       CHECK_NEAR(actual, expected, 1e-6);         // |actual - expected| <= 1e-6 * max(1, |expected|)
//       CHECK_THROWS(kind_of("int3"), std::invalid_argument);
//       return loquent::test::report();
//   }
#pragma once

#include <cmath>
#include <cstdint>
#include <cstdio>

namespace loquent::test {

inline int64_t checks = 0, failures = 0;

inline bool record(bool fine, const char* file, int line, const char* what) {
    ++checks;
    if (fine) return true;
    if (++failures <= 20) std::fprintf(stderr, "%s:%d: %s\n", file, line, what);
    return false;
}

inline void record_near(double actual, double expected, double tolerance, const char* file, int line,
                        const char* what) {
    const double allowed = tolerance * std::fmax(1.0, std::fabs(expected));
    // Written so that a result that is no number fails.
    if (!record(std::fabs(actual - expected) <= allowed, file, line, what) && failures <= 20)
        std::fprintf(stderr, "    %.9g, not %.9g (at most %.3g apart)\n", actual, expected, allowed);
}

/// What `main` returns: 0 where every check held. A program that checked nothing fails.
inline int report() {
    std::printf("%lld checks, %lld failures\n", (long long)checks, (long long)failures);
    return checks > 0 && failures == 0 ? 0 : 1;
}

}  // namespace loquent::test

#define CHECK(condition) loquent::test::record(static_cast<bool>(condition), __FILE__, __LINE__, #condition)
#define CHECK_NEAR(actual, expected, tolerance) \
    loquent::test::record_near(actual, expected, tolerance, __FILE__, __LINE__, #actual " is near " #expected)
#define CHECK_THROWS(expression, Exception)                                                     \
    do {                                                                                        \
        bool thrown = false;                                                                    \
        try {                                                                                   \
            (void)(expression);                                                                 \
        } catch (const Exception&) {                                                            \
            thrown = true;                                                                      \
        }                                                                                       \
        loquent::test::record(thrown, __FILE__, __LINE__, #expression " throws " #Exception);   \
    } while (false)
