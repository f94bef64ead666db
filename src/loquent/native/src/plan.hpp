// A model as a flat list of operations over packed weights, and the one call that runs a step of it; Python lowers a
// composition into a plan (`loquent.native.lowering`), and nothing here knows what a family is.
#pragma once

#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "attention.hpp"
#include "batch.hpp"
#include "elementwise.hpp"
#include "experts.hpp"
#include "product.hpp"
#include "selection.hpp"

namespace loquent {

/// Numbers that a plan keeps: norms, biases and the like.
using Vector = std::shared_ptr<const std::vector<float>>;

struct Norm {
    Vector weight, bias;    // no bias: RMS norm
    float epsilon;

    NormPart part() const { return {bias != nullptr, epsilon, weight->data(), bias ? bias->data() : nullptr}; }
};

/// What happens to each row before it is multiplied: nothing, a norm, or an activation.
struct Prologue {
    std::shared_ptr<const Norm> norm;
    bool activated = false;
    Activation activation = Activation::linear;
    float slope = 0;
    bool gated = false;     // the row is [gate | up], and what is multiplied f(gate) * up
};

/// Rows of floats that operations read and write; as many as a step has tokens.
struct Buffer {
    std::string name;
    int64_t width;
    int64_t stride;         // in floats; never a multiple of 4 KiB, where rows would collide in the caches
    float* rows = nullptr;
};

/// What a step wants back, and where it is written.
struct Wanted {
    std::vector<int64_t> rows;                    // rows of the step that come back, ascending
    std::vector<int64_t> logit_rows;              // for each of them its row of the logits, ascending; -1: none
    int64_t scored = 0;                           // how many rows of logits there are
    std::vector<int64_t> layers;                  // hidden states of these layers for those rows
    std::vector<std::vector<float>> hidden;       // for each layer, (rows, width)
    std::vector<Choice> choices;                  // for the rows `chosen_rows` of the logits
    std::vector<int64_t> chosen_rows;             // of the logits
    std::vector<Chosen> chosen;
    float* logits = nullptr;                      // (scored, vocabulary), in the plan's memory until its next step
};

struct Step {
    const Batch& batch;
    Store& store;
    Pool& pool;
    Wanted& wanted;
    int64_t rows;               // of the buffers, that operations work on: all of the batch's, or the wanted ones
    bool narrowed = false;      // whether they are the wanted ones
};

/// The product that makes logits of normed rows.
struct HeadPart {
    Matrix matrix;
    Vector bias;
};

class Plan;

class Operation {
public:
    explicit Operation(std::string name) : name(std::move(name)) {}
    virtual ~Operation() = default;
    virtual void run(Plan& plan, Step& step) = 0;

    const std::string name;
    int64_t calls = 0;
    double seconds = 0;
};

class Plan {
public:
    Plan(int64_t vocabulary, int64_t width);

    // Building. Everything throws std::invalid_argument where shapes do not fit.
    void add_buffer(const std::string& name, int64_t width);
    int64_t add_rotary() { return rotaries_++; }
    int64_t add_table(std::vector<float> frequencies, float factor);
    void embed(const Matrix& tokens, const Matrix* positions);
    void normalize(const std::string& source, const std::string& target, std::shared_ptr<const Norm> norm);
    void linear(const std::string& source, const std::string& target, const Matrix& matrix, Vector bias,
                Prologue prologue, bool residual, Vector decay);
    void attention(const std::string& source, const std::string& target, AttentionPart part, std::vector<Vector> owned);
    void experts(const std::string& source, const std::string& router_logits, const std::string& target,
                 ExpertsPart part);
    /// From here on only the rows that are wanted are worked on: they move to the front of these buffers.
    void narrow(const std::vector<std::string>& buffers);
    void keep(int64_t layer);
    void head(const Matrix& matrix, Vector bias, std::shared_ptr<const Norm> norm, int64_t last_layer);

    /// Check everything that a step could get wrong, then run it.
    /// Throws std::out_of_range for tokens, positions and pages that are not there, std::invalid_argument otherwise.
    void run(const Batch& batch, Store& store, Wanted& wanted);

    /// The logits (rows, vocabulary) of states (rows, width), without the norm. A row's are the same bits as those that
    /// `run` makes of the same normed state. Throws std::invalid_argument where the plan has no head.
    void score(const float* states, int64_t rows, float* logits);

    struct Timing { std::string name; int64_t calls; double seconds; };
    std::vector<Timing> profile();    // since the last call, which the first starts

    // For operations.
    Buffer& buffer(int64_t index) { return buffers_[index]; }
    Prepared& prepared() { return prepared_; }
    const std::vector<RotaryTable>& tables() const { return tables_; }
    float* logits(int64_t rows);
    const HeadPart& head_part() const { return *head_; }
    Weights weights() const { return weights_; }
    int64_t vocabulary() const { return vocabulary_; }
    int64_t rotaries() const { return rotaries_; }
    int64_t width() const { return buffers_[0].width; }

private:
    void count_weights(const Matrix& matrix);
    int64_t find_buffer(const std::string& name) const;
    void check(const Batch& batch, const Store& store) const;
    void check_segment(const Segment& segment, const Store& store) const;
    void make_room(int64_t rows);

    int64_t vocabulary_, positions_ = -1;         // learned positions; -1: none
    int64_t rotaries_ = 0;
    int64_t bytes_ = 0;                           // of the matrices of products
    Weights weights_ = Weights::kept;
    std::vector<Buffer> buffers_;
    std::vector<std::unique_ptr<Operation>> operations_;
    std::vector<AttentionPart> attentions_;       // what steps are checked against
    std::vector<RotaryTable> tables_;
    Prepared prepared_;
    std::unique_ptr<HeadPart> head_;
    std::shared_ptr<float> memory_, logits_;
    int64_t capacity_ = 0, logits_capacity_ = 0;
    std::mutex mutex_;
    bool profiling_ = false, narrowed_ = false;
};

}  // namespace loquent
