// What is computed over a whole row of scores in vectors: the kernels that selection is made of, none of which sorts.
#pragma once

#include <cstdint>

namespace loquent {

/// Room that kernels may write into behind the results of `gather`.
constexpr int64_t kSlack = 16;

/// Scores are cut into groups of 16, a vector's lanes apart; the largest of each group leads to the largest of all.
constexpr int64_t group_room(int64_t count) { return count / 16 + 2 * kSlack; }
constexpr int64_t kDrawBlock = 256;

struct Survey {
    float highest;      // no number if one of the scores is none
    int64_t groups;
};

/// Those of some values that are above a bound.
struct Above {
    int64_t count;
    double measure;     // `count`, or the sum of e^(value - highest)
    float lowest;       // of them; infinity if there are none
    float next;         // the highest of the others; minus infinity if there are none
};

/// One instruction set's functions. Values may be minus infinity; past the survey, all are numbers.
struct ScoreKernels {
    /// Divide the scores by `divisor` (not at all by 1), and find the largest of each group (room: `group_room`).
    Survey (*survey)(float* row, int64_t count, float divisor, float* groups);
    /// The first score equal to `value`, which is there. `groups` are the survey's.
    int64_t (*first)(const float* row, int64_t count, const float* groups, float value);
    Above (*count_above)(const float* values, int64_t count, float bound, float highest);
    Above (*mass_above)(const float* values, int64_t count, float bound, float highest);
    /// The values from `low` (finite) to `high` and, unless null, their places, in order; how many there are. Groups,
    /// unless null, are the survey's of these values. `out` may be `values`.
    int64_t (*gather)(const float* values, int64_t count, const float* groups, float low, float high, float* out,
                      int32_t* places);
    /// The place at which the cumulative sum of e^(value - highest), in float64, passes `uniform` of the total.
    /// `sums` has room for a number for each `kDrawBlock` values begun.
    int64_t (*draw)(const float* values, int64_t count, float highest, double uniform, double* sums);
    /// e^(value - highest) of each value, in float64, and their sum. There is room for `kSlack` more weights.
    double (*weigh)(const float* values, int64_t count, float highest, double* weights);
    /// Replace scores by log-probabilities.
    void (*log_softmax)(float* row, int64_t count);
};

}  // namespace loquent
