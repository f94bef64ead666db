// Bisection between values: each pass counts what is above the middle, and values that are decided are left behind.
#include "threshold.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

namespace loquent {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kLargest = std::numeric_limits<float>::max();
constexpr int64_t kFew = 64;            // undecided values that are sorted instead of scanned again
constexpr int64_t kShrink = 2;          // copy the undecided values when they are at most this part of all
constexpr float kFirstStep = 3;        // how far below the highest value the threshold is sought first

/// The threshold is in (low, high]; there `inside` values are undecided, and those above `high` measure `outside`.
class Search {
public:
    Search(const Measure& measure, const float* values, int64_t count, double wanted, std::vector<float>& scratch)
        : measure_(measure), values_(values), count_(count), wanted_(wanted), scratch_(scratch), high_(measure.highest)
    {}

    float run() {
        bracket();
        while (inside() > kFew) {
            if (inside() * kShrink <= count_) shrink();
            const float middle = between();
            if (!(middle > low_ && middle < high_)) return high_;  // neighbors: all that is inside equals `high`
            if (!try_bound(middle)) continue;
            if (lowest_inside_ == high_) return high_;
        }
        return walk();
    }

private:
    int64_t inside() const { return above_low_ - above_high_; }

    /// Move `low` or `high` to a bound; whether `low` moved.
    bool try_bound(float bound) {
        const Above found = measure_.above(values_, count_, bound);
        if (left_behind_ + found.measure >= wanted_) {
            low_ = bound;
            above_low_ = found.count;
            lowest_inside_ = found.lowest;
            return true;
        }
        high_ = found.next;
        above_high_ = found.count;
        outside_ = left_behind_ + found.measure;
        return false;
    }

    /// Go down from the highest value in growing steps: the threshold is mostly near, the lowest value may be far.
    void bracket() {
        above_low_ = count_;
        for (float step = kFirstStep; !try_bound(high_ - step); step *= 2) {
        }
    }

    float between() const {
        if (low_ == -kInfinity) return -kLargest;
        return high_ - low_ <= kLargest ? low_ + (high_ - low_) / 2 : low_ / 2 + high_ / 2;
    }

    void shrink() {
        if ((int64_t)scratch_.size() < inside() + kSlack) scratch_.resize(inside() + kSlack);
        const float from = std::nextafter(low_, kInfinity);
        count_ = measure_.kernels.gather(values_, count_, nullptr, from, high_, scratch_.data(), nullptr);
        values_ = scratch_.data();
        left_behind_ = outside_;
        above_low_ = count_;
        above_high_ = 0;
    }

    float walk() {
        shrink();
        float* begin = scratch_.data();
        std::sort(begin, begin + count_, [](float a, float b) { return a > b; });
        double before = left_behind_;
        int64_t kept = 0;
        for (; kept < count_ && before < wanted_; ++kept) before += measure_.of(begin[kept]);
        return begin[std::max<int64_t>(kept - 1, 0)];
    }

    const Measure& measure_;
    const float* values_;
    int64_t count_;
    double wanted_;
    std::vector<float>& scratch_;
    float low_ = -kInfinity, high_, lowest_inside_ = 0;
    int64_t above_low_ = 0, above_high_ = 0;   // of `values_`
    double outside_ = 0, left_behind_ = 0;     // the latter: of what is above all of `values_`
};

}  // namespace

Above Measure::above(const float* values, int64_t count, float bound) const {
    return (weighted ? kernels.mass_above : kernels.count_above)(values, count, bound, highest);
}

double Measure::of(float value) const { return weighted ? std::exp((double)value - highest) : 1; }

float lowest_kept(const Measure& measure, const float* values, int64_t count, double wanted,
                  std::vector<float>& scratch) {
    if (!(wanted > 0)) return measure.highest;
    if (!measure.weighted && measure.above(values, count, -kInfinity).measure < wanted) return -kInfinity;
    return Search(measure, values, count, wanted, scratch).run();
}

}  // namespace loquent
