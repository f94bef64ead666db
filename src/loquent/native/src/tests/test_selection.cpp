// Choices against a reference that sorts the whole row: the tokens must be the same, ties and odd sizes included.
#include <algorithm>
#include <limits>
#include <numeric>
#include <random>
#include <stdexcept>
#include <vector>

#include "check.hpp"
#include "kernels.hpp"
#include "random.hpp"
#include "selection.hpp"

using namespace loquent;
using Scores = std::vector<float>;

namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

/// The largest `count` of the scores, or all: what top-k, top-p and min-p leave, by sorting.
Scores plain_filter(const Choice& choice, Scores scores) {
    const auto drop = [&](float least) {
        for (float& score : scores)
            if (score < least) score = -kInfinity;
    };
    const auto ordered = [&] {
        Scores sorted = scores;
        std::sort(sorted.begin(), sorted.end(), [](float a, float b) { return a > b; });
        return sorted;
    };
    if (choice.top_k > 0) drop(ordered()[std::min<size_t>(choice.top_k, scores.size()) - 1]);
    const float highest = *std::max_element(scores.begin(), scores.end());
    if (choice.top_p < 1) {
        const Scores sorted = ordered();
        double total = 0, before = 0;
        for (const float score : sorted) total += std::exp((double)score - highest);
        size_t kept = 0;
        for (; kept < sorted.size() && before < choice.top_p * total; ++kept)
            before += std::exp((double)sorted[kept] - highest);
        drop(sorted[kept ? kept - 1 : 0]);
    }
    if (choice.min_p > 0) drop(highest + (float)std::log(choice.min_p));
    return scores;
}

Scores plain_rules(const Choice& choice, Scores scores) {
    const Scores before = scores;
    for (int64_t i = 0; i < choice.seen_count; ++i) {
        const float score = before[choice.seen[i]];
        scores[choice.seen[i]] = score < 0 ? score * choice.penalty : score / choice.penalty;
    }
    for (int64_t i = 0; i < choice.banned_count; ++i) scores[choice.banned[i]] = -kInfinity;
    for (float& score : scores) score /= choice.temperature;
    return plain_filter(choice, scores);
}

int64_t plain_token(const Choice& choice, const Scores& logits) {
    const Scores scores = plain_rules(choice, logits);
    const auto highest = std::max_element(scores.begin(), scores.end());
    if (!choice.sampled) return highest - scores.begin();
    std::vector<double> sums;
    double total = 0;
    for (const float score : scores) sums.push_back(total += std::exp((double)score - *highest));
    const double target = uniform(choice.seed, choice.position, Purpose::draw) * total;
    return std::count_if(sums.begin(), sums.end(), [=](double sum) { return sum <= target; });
}

std::vector<int64_t> plain_best(const Choice& choice, const Scores& scores) {
    std::vector<int64_t> order(scores.size());
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) { return scores[a] > scores[b]; });
    order.resize(std::min<size_t>(choice.best, order.size()));
    return order;
}

/// Rows as models give them, and worse: many equal scores, a few far above or below, nothing but zeros.
Scores make_row(int kind, int64_t size, std::mt19937& random) {
    std::normal_distribution<float> normal(0, kind == 1 ? 0.01f : 3.0f);
    Scores row(size);
    for (float& score : row) score = normal(random);
    if (kind == 2)
        for (float& score : row) score = std::round(score);
    if (kind == 3) row[random() % size] = 80.0f;
    if (kind == 4)
        for (float& score : row)
            if (random() % 3) score = random() % 2 ? -kInfinity : -std::numeric_limits<float>::max();
    if (kind == 4) row[random() % size] = 0.25f;
    if (kind == 5) std::fill(row.begin(), row.end(), 0.0f);
    if (kind == 6)
        for (float& score : row) score = -10000.0f + (float)(random() % 7) / 3;
    return row;
}

constexpr int kKinds = 7;
constexpr int64_t kSizes[] = {1, 2, 3, 15, 16, 17, 63, 255, 256, 257, 300, 1000, 4097};

Choice make_choice(std::mt19937& random, int64_t size, std::vector<int64_t>& seen) {
    Choice choice;
    const auto flip = [&] { return random() % 2 == 0; };
    if (flip()) choice.temperature = 0.5f + (float)(random() % 100) / 40;
    if (flip()) choice.top_k = 1 + random() % (flip() ? 60 : 5000);
    if (flip()) choice.top_p = (float)(random() % 1000) / 1000;
    if (random() % 4 == 0) choice.min_p = (double)(1 + random() % 100) / 100;
    if (flip()) {
        choice.penalty = flip() ? 1.3f : 0.7f;
        for (int i = 0; i < 40; ++i) seen.push_back(random() % size);
        choice.seen = seen.data();
        choice.seen_count = (int64_t)seen.size();
    }
    choice.seed = random();
    choice.position = random();
    choice.sampled = random() % 4 != 0;
    return choice;
}

void test_tokens() {
    std::mt19937 random(1);
    for (const int64_t size : kSizes)
        for (int round = 0; round < 30 * kKinds; ++round) {
            const Scores row = make_row(round % kKinds, size, random);
            std::vector<int64_t> seen;
            const Choice choice = make_choice(random, size, seen);
            Scores scratch = row;
            const Chosen chosen = choose(choice, scratch.data(), size);
            CHECK(chosen.state == Chosen::State::fine);
            CHECK(chosen.token == plain_token(choice, row));
        }
}

void test_whole_vocabulary() {
    std::mt19937 random(2);
    for (int round = 0; round < 4 * kKinds; ++round) {
        const Scores row = make_row(round % kKinds, 50257, random);
        std::vector<int64_t> seen;
        const Choice choice = make_choice(random, 50257, seen);
        Scores scratch = row;
        CHECK(choose(choice, scratch.data(), 50257).token == plain_token(choice, row));
    }
}

void test_best() {
    std::mt19937 random(3);
    for (const int64_t size : kSizes)
        for (int round = 0; round < 20 * kKinds; ++round) {
            const Scores row = make_row(round % kKinds, size, random);
            std::vector<int64_t> seen;
            Choice choice = make_choice(random, size, seen);
            choice.best = 1 + random() % 20;
            Scores scratch = row;
            const Chosen chosen = choose(choice, scratch.data(), size);
            const Scores scores = plain_rules(choice, row);
            const std::vector<int64_t> expected = plain_best(choice, scores);
            CHECK(chosen.tokens == expected);
            CHECK(chosen.scores.size() == expected.size());
            for (size_t i = 0; i < chosen.scores.size(); ++i) CHECK(chosen.scores[i] == scores[chosen.tokens[i]]);
        }
}

/// Draws that hit each token about as often as its probability says.
void test_draws() {
    const Scores row = {1.0f, -kInfinity, 0.0f, 3.0f, 2.0f};
    double total = 0;
    for (const float score : row) total += std::exp(score);
    std::vector<int> found(row.size());
    Choice choice;
    choice.sampled = true;
    choice.seed = 7;
    constexpr int kDraws = 20000;
    for (int i = 0; i < kDraws; ++i) {
        Scores scratch = row;
        choice.position = i;
        const int64_t token = choose(choice, scratch.data(), (int64_t)row.size()).token;
        if (CHECK(token >= 0 && token < (int64_t)row.size())) ++found[token];
    }
    for (size_t i = 0; i < row.size(); ++i) CHECK_NEAR((double)found[i] / kDraws, std::exp(row[i]) / total, 0.015);
}

void test_random_bits() {
    // As loquent.decoding.random gives them.
    CHECK(random_bits(0, 0, Purpose::draw) == 0xe169c58d6627e8d5);
    CHECK(random_bits(1, 2, Purpose::draw) == 0x8e76cc9d3f55b3f0);
    CHECK(random_bits(0xdeadbeefcafebabe, 0x123456789abcdef0, Purpose::accept) == 0x87e0eab2257fd1f2);
    CHECK(random_bits(UINT64_MAX, UINT64_MAX, Purpose::branch) == 0x8ed5d475be09babd);
    CHECK(uniform(0, 0, Purpose::draw) == (double)(0xe169c58d6627e8d5 >> 11) / 9007199254740992.0);
}

void test_states() {
    const float none = std::numeric_limits<float>::quiet_NaN();
    const auto state = [](Choice choice, Scores row) { return choose(choice, row.data(), (int64_t)row.size()).state; };
    for (const int64_t size : kSizes)
        for (const bool sampled : {false, true})
            for (const int64_t best : {0, 2}) {
                Choice choice;
                choice.sampled = sampled;
                choice.best = best;
                if (sampled) choice.top_k = 3;
                Scores row(size, 1.0f);
                row[size / 2] = none;
                CHECK(state(choice, row) == Chosen::State::no_numbers);
                CHECK(state(choice, Scores(size, -kInfinity)) == Chosen::State::nothing_left);
                row[size / 2] = kInfinity;
                CHECK(state(choice, row) == (sampled || best ? Chosen::State::no_numbers : Chosen::State::fine));
            }
}

void test_bans() {
    const int64_t banned[] = {3, 0, 3};
    Choice choice;
    choice.banned = banned;
    choice.banned_count = 3;
    Scores row = {5, 1, 2, 9, 2};
    CHECK(choose(choice, row.data(), 5).token == 2);
    choice.best = 4;
    row = {5, 1, 2, 9, 2};
    const Chosen chosen = choose(choice, row.data(), 5);
    CHECK((chosen.tokens == std::vector<int64_t>{2, 4, 1, 0}));
    CHECK(chosen.scores[3] == -kInfinity);
    CHECK_THROWS(check_choice(choice, 3), std::out_of_range);
    choice.temperature = 0;
    CHECK_THROWS(check_choice(choice, 5), std::invalid_argument);
}

void test_log_probabilities() {
    std::mt19937 random(4);
    for (const int64_t size : kSizes)
        for (int kind = 0; kind < 4; ++kind) {
            const Scores logits = make_row(kind, size, random);
            const double highest = *std::max_element(logits.begin(), logits.end());
            double total = 0;
            for (const float logit : logits) total += std::exp(logit - highest);
            const auto expected = [&](int64_t token) { return logits[token] - highest - std::log(total); };
            Scores whole = logits;
            kernels().scores.log_softmax(whole.data(), size);
            for (int64_t token = 0; token < size; ++token) CHECK_NEAR(whole[token], expected(token), 5e-7);

            for (const int64_t best : {int64_t{3}, size}) {
                Choice choice;
                choice.normalized = true;
                choice.best = best;
                Scores scratch = logits;
                const Chosen chosen = choose(choice, scratch.data(), size);
                CHECK(chosen.tokens == plain_best(choice, whole));
                CHECK(chosen.scores.size() == chosen.tokens.size());
                for (size_t i = 0; i < chosen.scores.size(); ++i)
                    CHECK_NEAR(chosen.scores[i], expected(chosen.tokens[i]), 5e-7);
            }
        }
}

}  // namespace

int main() {
    test_tokens();
    test_whole_vocabulary();
    test_best();
    test_draws();
    test_random_bits();
    test_states();
    test_bans();
    test_log_probabilities();
    return loquent::test::report();
}
