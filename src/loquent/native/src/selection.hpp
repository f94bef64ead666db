// From a row of logits to tokens: penalties, temperature, top-k, top-p, min-p, the draw, and the best few with their
// log-probabilities, without sorting the vocabulary. Equal to the rules in `loquent.decoding` token for token.
#pragma once

#include <cstdint>
#include <vector>

namespace loquent {

/// A drafted token, and the probabilities of all that could have been drafted in its place; none: it had no choice.
struct Offer {
    int64_t token = -1;                    // -1: there is no offer
    const int64_t* tokens = nullptr;       // ascending
    const double* probabilities = nullptr;
    int64_t count = 0;
};

/// How one row's answer is found. The steps act in this order; what is not asked for is left out. Rules that this does
/// not know run in Python on the rows that ask for them.
struct Choice {
    float penalty = 1;                     // repetition penalty on `seen`
    const int64_t* seen = nullptr;         // the sequence's tokens, prompt included
    int64_t seen_count = 0;
    const int64_t* banned = nullptr;       // tokens that cannot be chosen
    int64_t banned_count = 0;
    float temperature = 1;                 // scores are divided by it
    int64_t top_k = 0;                     // 0: all
    float top_p = 1;                       // >= 1: all
    double min_p = 0;                      // 0: all
    bool sampled = false;                  // draw with (seed, position), else the most likely
    uint64_t seed = 0;
    uint64_t position = 0;
    bool normalized = false;               // log-softmax before everything else (a beam search's rules)
    int64_t best = 0;                      // > 0: the best few instead of one token
    bool draft = false;                    // a token to draft: `Chosen` tells what it was taken from
    Offer offer;                           // sampled: what the draw is to make of a drafted token
};

/// `no_numbers`: a score is not a number, or infinite where its probability is needed. `nothing_left`: every score is
/// minus infinity; the best few are given all the same, as the array rules do.
struct Chosen {
    int64_t token = -1;                    // best == 0; where there is an offer, its token if that stands
    std::vector<int64_t> tokens;           // best > 0: highest first, of equal scores the lower id
    std::vector<float> scores;
    std::vector<double> probabilities;     // draft: of `tokens`, ascending: of all it was drawn from, or of itself
    enum class State { fine, no_numbers, nothing_left } state = State::fine;
};

/// Throws std::out_of_range where a token is none of the vocabulary's, and std::invalid_argument for a temperature that
/// is not positive: what `choose`, which may run on any thread, takes for granted.
void check_choice(const Choice& choice, int64_t vocabulary);

/// `row` (vocabulary,) may be changed.
Chosen choose(const Choice& choice, float* row, int64_t vocabulary);

}  // namespace loquent
