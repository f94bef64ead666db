// The steps of a choice, in their order; the scans are kernels (scores.hpp), the cuts threshold.hpp's.
#include "selection.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <stdexcept>
#include <string>

#include "kernels.hpp"
#include "random.hpp"
#include "threshold.hpp"

namespace loquent {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kLargest = std::numeric_limits<float>::max();
constexpr int64_t kFew = 256;   // tokens among which top-p looks first

/// Memory that a thread uses again for each row.
struct Scratch {
    std::vector<float> groups, values, search, penalized;
    std::vector<int32_t> tokens;
    std::vector<double> sums, weights, rest;

    void reach(int64_t vocabulary) {
        if ((int64_t)tokens.size() >= vocabulary + kSlack) return;
        groups.resize(group_room(vocabulary));
        values.resize(vocabulary + kSlack);
        search.resize(vocabulary + kSlack);
        tokens.resize(vocabulary + kSlack);
        sums.resize(vocabulary / kDrawBlock + 1);
        weights.resize(vocabulary + kSlack);
        rest.resize(vocabulary);
    }
};

/// One row on its way from scores to tokens.
class Row {
public:
    Row(const Choice& choice, float* scores, int64_t vocabulary, Scratch& scratch)
        : choice_(choice), scores_(scores), vocabulary_(vocabulary), scratch_(scratch), kernels_(kernels().scores) {
        scratch_.reach(vocabulary);
    }

    Chosen choose() {
        Chosen chosen;
        if (choice_.normalized) kernels_.log_softmax(scores_, vocabulary_);
        penalize();
        for (int64_t i = 0; i < choice_.banned_count; ++i) scores_[choice_.banned[i]] = -kInfinity;
        const Survey survey = kernels_.survey(scores_, vocabulary_, choice_.temperature, scratch_.groups.data());
        highest_ = survey.highest;
        groups_ = survey.groups;
        const bool weighed = choice_.best > 0 || choice_.sampled || choice_.draft;
        if (std::isnan(highest_) || (weighed && highest_ == kInfinity))
            chosen.state = Chosen::State::no_numbers;
        else if (highest_ == -kInfinity)
            chosen.state = Chosen::State::nothing_left;
        if (chosen.state == Chosen::State::no_numbers) return chosen;
        if (choice_.best > 0)
            find_best(chosen);
        else if (chosen.state == Chosen::State::fine)
            choose_one(chosen);
        return chosen;
    }

private:
    const float* groups() const { return scratch_.groups.data(); }
    Measure measure(bool weighted) const { return {kernels_, highest_, weighted}; }

    /// All are read before the first is written, so that a token that was seen twice is penalized once.
    void penalize() {
        if (choice_.penalty == 1) return;
        std::vector<float>& values = scratch_.penalized;
        if ((int64_t)values.size() < choice_.seen_count) values.resize(choice_.seen_count);
        for (int64_t i = 0; i < choice_.seen_count; ++i) {
            const float score = scores_[choice_.seen[i]];
            values[i] = score < 0 ? score * choice_.penalty : score / choice_.penalty;
        }
        for (int64_t i = 0; i < choice_.seen_count; ++i) scores_[choice_.seen[i]] = values[i];
    }

    bool has_top_k() const { return choice_.top_k > 0 && choice_.top_k < vocabulary_; }
    bool filtered() const { return has_top_k() || choice_.top_p < 1 || choice_.min_p > 0; }

    /// Take the scores of at least `low` and their tokens as candidates, in the order of the tokens.
    void gather(float low) {
        count_ = kernels_.gather(scores_, vocabulary_, groups(), std::max(low, -kLargest), kInfinity,
                                 scratch_.values.data(), scratch_.tokens.data());
    }

    /// The score of at least `count` tokens, and of few more: as many groups have one that is as high.
    float high_enough_for(int64_t count) {
        return lowest_kept(measure(false), groups(), groups_, (double)count, scratch_.search);
    }

    float lowest_in_row(bool weighted, double wanted) {
        return lowest_kept(measure(weighted), scores_, vocabulary_, wanted, scratch_.search);
    }

    float lowest_candidate(bool weighted, double wanted) {
        return lowest_kept(measure(weighted), scratch_.values.data(), count_, wanted, scratch_.search);
    }

    void drop_below(float low) {
        int64_t kept = 0;
        for (int64_t i = 0; i < count_; ++i) {
            scratch_.tokens[kept] = scratch_.tokens[i];
            scratch_.values[kept] = scratch_.values[i];
            kept += scratch_.values[i] >= low;
        }
        count_ = kept;
    }

    /// Candidates that top-k, top-p and min-p leave.
    void filter() {
        const float least = choice_.min_p > 0 ? highest_ + (float)std::log(choice_.min_p) : -kInfinity;
        if (has_top_k()) {
            keep_count();
            if (choice_.top_p < 1) drop_below(lowest_candidate(true, choice_.top_p * mass_of_candidates()));
        } else if (choice_.top_p < 1) {
            keep_mass();
        } else {
            gather(least);
        }
        if (choice_.min_p > 0) drop_below(least);
    }

    double mass(const float* values, int64_t count) const {
        return kernels_.mass_above(values, count, -kInfinity, highest_).measure;
    }

    double mass_of_candidates() const { return mass(scratch_.values.data(), count_); }

    /// Top-k: among few if there are as many groups.
    void keep_count() {
        const auto wanted = (double)choice_.top_k;
        const float low = high_enough_for(choice_.top_k);
        if (low == -kInfinity) return gather(lowest_in_row(false, wanted));
        gather(low);
        drop_below(lowest_candidate(false, wanted));
    }

    /// Top-p of the whole row: among few if they have the mass.
    void keep_mass() {
        const double wanted = choice_.top_p * mass(scores_, vocabulary_);
        gather(high_enough_for(kFew));
        if (mass_of_candidates() < wanted) return gather(lowest_in_row(true, wanted));
        drop_below(lowest_candidate(true, wanted));
    }

    void choose_one(Chosen& chosen) {
        if (!choice_.sampled) {
            chosen.token = kernels_.first(scores_, vocabulary_, groups(), highest_);
            if (!choice_.draft) return;
            chosen.tokens = {chosen.token};
            if (filtered()) filter();
            chosen.probabilities = {1 / (filtered() ? mass_of_candidates() : mass(scores_, vocabulary_))};
        } else if (choice_.draft) {
            propose(chosen);
        } else {
            chosen.token = choice_.offer.token < 0 ? draw() : verify(choice_.offer);
        }
    }

    double number(Purpose purpose) const { return uniform(choice_.seed, choice_.position, purpose); }

    int64_t draw() {
        const double number = this->number(Purpose::draw);
        if (!filtered()) return kernels_.draw(scores_, vocabulary_, highest_, number, scratch_.sums.data());
        filter();
        return scratch_.tokens[kernels_.draw(scratch_.values.data(), count_, highest_, number, scratch_.sums.data())];
    }

    /// The probabilities of the candidates that the filters leave, in the order of their tokens.
    double* find_probabilities() {
        filtered() ? filter() : gather(-kLargest);
        double* weights = scratch_.weights.data();
        const double total = kernels_.weigh(scratch_.values.data(), count_, highest_, weights);
        for (int64_t i = 0; i < count_; ++i) weights[i] /= total;
        return weights;
    }

    void propose(Chosen& chosen) {
        const double* found = find_probabilities();
        chosen.token = scratch_.tokens[take(found, number(Purpose::draft))];
        chosen.tokens.assign(scratch_.tokens.begin(), scratch_.tokens.begin() + count_);
        chosen.probabilities.assign(found, found + count_);
    }

    /// The offered token x ~ q stands with probability min(1, p(x) / q(x)); in its place a token is drawn from
    /// max(p - q, 0), normalised (Leviathan et al., 2023, arXiv:2211.17192).
    int64_t verify(const Offer& offer) {
        double* wanted = find_probabilities();
        const double offered =
            offer.count ? probability(offer.token, offer.tokens, offer.probabilities, offer.count) : 1;
        const double share = probability(offer.token, scratch_.tokens.data(), wanted, count_);
        if (number(Purpose::accept) * offered < share) return offer.token;
        double left = 0;
        for (int64_t i = 0, next = 0; i < count_; ++i) {
            const int64_t token = scratch_.tokens[i];
            while (next < offer.count && offer.tokens[next] < token) ++next;
            double less = offer.count == 0 && token == offer.token ? 1 : 0;
            if (next < offer.count && offer.tokens[next] == token) less = offer.probabilities[next];
            scratch_.rest[i] = std::max(wanted[i] - less, 0.0);
            left += scratch_.rest[i];
        }
        const double* from = left > 0 ? scratch_.rest.data() : wanted;  // both agree but for rounding
        return scratch_.tokens[take(from, number(Purpose::resample))];
    }

    /// The place at which the cumulative sum of the candidates' weights passes `uniform` of the total.
    int64_t take(const double* weights, double uniform) const {
        double total = 0, before = 0;
        for (int64_t i = 0; i < count_; ++i) total += weights[i];
        int64_t last = 0;  // where rounding leaves the sum below the target
        for (int64_t i = 0; i < count_; ++i) {
            if (weights[i] <= 0) continue;
            before += weights[i];
            last = i;
            if (before > uniform * total) break;
        }
        return last;
    }

    /// Of one of `tokens`, which ascend; 0 if it is none of them.
    template <class Token>
    static double probability(int64_t token, const Token* tokens, const double* probabilities, int64_t count) {
        const Token* found = std::lower_bound(tokens, tokens + count, (Token)token);
        return found != tokens + count && *found == token ? probabilities[found - tokens] : 0;
    }

    void find_best(Chosen& chosen) {
        const int64_t wanted = std::min(choice_.best, vocabulary_);
        count_ = 0;
        if (highest_ > -kInfinity) filtered() ? filter() : gather(high_enough_for(wanted));
        if (count_ > wanted) drop_worst(wanted);
        chosen.tokens.assign(scratch_.tokens.begin(), scratch_.tokens.begin() + count_);
        chosen.scores.assign(scratch_.values.begin(), scratch_.values.begin() + count_);
        sort(chosen);
        // What the rules leave no score comes last, by the tokens' order.
        std::vector<int64_t> taken(scratch_.tokens.begin(), scratch_.tokens.begin() + count_);
        auto next = taken.begin();
        for (int64_t token = 0; (int64_t)chosen.tokens.size() < wanted; ++token) {
            if (next != taken.end() && *next == token) {
                ++next;
                continue;
            }
            chosen.tokens.push_back(token);
            chosen.scores.push_back(-kInfinity);
        }
    }

    /// Leave `wanted` candidates: of those equal to the lowest that stays, the first.
    void drop_worst(int64_t wanted) {
        const float least = lowest_candidate(false, (double)wanted);
        int64_t equal = wanted - kernels_.count_above(scratch_.values.data(), count_, least, highest_).count, kept = 0;
        for (int64_t i = 0; i < count_; ++i) {
            const float value = scratch_.values[i];
            if (value < least || (value == least && equal-- <= 0)) continue;
            scratch_.values[kept] = value;
            scratch_.tokens[kept++] = scratch_.tokens[i];
        }
        count_ = kept;
    }

    static void sort(Chosen& chosen) {
        std::vector<std::pair<float, int64_t>> pairs(chosen.tokens.size());
        for (size_t i = 0; i < pairs.size(); ++i) pairs[i] = {-chosen.scores[i], chosen.tokens[i]};
        std::sort(pairs.begin(), pairs.end());
        for (size_t i = 0; i < pairs.size(); ++i) {
            chosen.scores[i] = -pairs[i].first;
            chosen.tokens[i] = pairs[i].second;
        }
    }

    const Choice& choice_;
    float* scores_;
    int64_t vocabulary_;
    Scratch& scratch_;
    const ScoreKernels& kernels_;
    float highest_ = 0;
    int64_t groups_ = 0, count_ = 0;   // candidates are the first `count_` of the scratch's values and tokens
};

void check_tokens(const int64_t* tokens, int64_t count, int64_t vocabulary) {
    for (int64_t i = 0; i < count; ++i)
        if (tokens[i] < 0 || tokens[i] >= vocabulary)
            throw std::out_of_range("token " + std::to_string(tokens[i]) + " is none of the vocabulary's " +
                                    std::to_string(vocabulary) + ".");
}

}  // namespace

void check_choice(const Choice& choice, int64_t vocabulary) {
    if (choice.penalty != 1) check_tokens(choice.seen, choice.seen_count, vocabulary);
    check_tokens(choice.banned, choice.banned_count, vocabulary);
    if (choice.offer.token >= 0) check_tokens(&choice.offer.token, 1, vocabulary);
    if (!(choice.temperature > 0)) throw std::invalid_argument("the temperature must be positive.");
}

Chosen choose(const Choice& choice, float* row, int64_t vocabulary) {
    thread_local Scratch scratch;
    return Row(choice, row, vocabulary, scratch).choose();
}

}  // namespace loquent
