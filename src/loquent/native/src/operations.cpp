// The operations of a plan: each reads and writes buffers of rows, and shares its work among the pool's threads.
#include <algorithm>
#include <cstring>
#include <stdexcept>

#include "kernels.hpp"
#include "plan.hpp"

namespace loquent {
namespace {

// A share of row-wise work should outlast the half microsecond that it costs to hand it to another thread.
constexpr int64_t kFloatsOfShare = 4096;

/// Call body(row) for each row, on several threads where that is worth it.
template <class Body>
void each_row(Pool& pool, int64_t rows, int64_t width, const Body& body) {
    const int64_t rows_of_share = std::max<int64_t>(1, kFloatsOfShare / std::max<int64_t>(width, 1));
    pool.run((rows + rows_of_share - 1) / rows_of_share, [&](int64_t share) {
        const int64_t stop = std::min(rows, (share + 1) * rows_of_share);
        for (int64_t row = share * rows_of_share; row < stop; ++row) body(row);
    });
}

/// Floats of one row, for the thread that asks.
float* scratch(int64_t count) {
    thread_local std::vector<float> row;
    if ((int64_t)row.size() < count) row.resize(count);
    return row.data();
}

/// The row as it is multiplied: `x` itself, or in scratch what the prologue makes of it.
const float* apply(const Prologue& prologue, const float* x, int64_t columns) {
    if (prologue.norm) {
        float* normed = scratch(columns);
        normalize(prologue.norm->part(), x, columns, normed);
        return normed;
    }
    if (!prologue.activated) return x;
    float* activated = scratch(columns);
    if (prologue.gated)
        activate_gated(prologue.activation, prologue.slope, x, x + columns, columns, activated);
    else
        activate(prologue.activation, prologue.slope, x, columns, activated);
    return activated;
}

std::string shape_of(const Matrix& matrix) {
    return std::to_string(matrix.rows) + "x" + std::to_string(matrix.columns);
}

class Embed : public Operation {
public:
    Embed(const Matrix& tokens, const Matrix* positions) : Operation("embed"), tokens_(tokens) {
        if (positions) positions_ = *positions;
        learned_ = positions != nullptr;
    }

    void run(Plan& plan, Step& step) override {
        Buffer& hidden = plan.buffer(0);
        std::vector<int64_t> positions(step.batch.rows);
        for (const auto& segment : step.batch.segments)
            for (int64_t i = 0; i < segment.length; ++i) positions[segment.first + i] = segment.start + i;
        each_row(step.pool, step.batch.rows, 8 * hidden.width, [&](int64_t row) {
            float* to = hidden.rows + row * hidden.stride;
            read_row(tokens_, step.batch.tokens[row], to);
            if (!learned_) return;
            float* position = scratch(hidden.width);
            read_row(positions_, positions[row], position);
            for (int64_t i = 0; i < hidden.width; ++i) to[i] += position[i];
        });
    }

private:
    Matrix tokens_, positions_;
    bool learned_;
};

class Normalize : public Operation {
public:
    Normalize(int64_t source, int64_t target, std::shared_ptr<const Norm> norm)
        : Operation("norm"), source_(source), target_(target), norm_(std::move(norm)) {}

    void run(Plan& plan, Step& step) override {
        const Buffer &from = plan.buffer(source_), &to = plan.buffer(target_);
        each_row(step.pool, step.rows, from.width, [&](int64_t row) {
            normalize(norm_->part(), from.rows + row * from.stride, from.width, to.rows + row * to.stride);
        });
    }

private:
    int64_t source_, target_;
    std::shared_ptr<const Norm> norm_;
};

class Linear : public Operation {
public:
    Linear(int64_t source, int64_t target, const Matrix& matrix, Vector bias, Prologue prologue, bool residual,
           Vector decay)
        : Operation("linear " + shape_of(matrix)), source_(source), target_(target), matrix_(matrix),
          bias_(std::move(bias)), prologue_(std::move(prologue)), residual_(residual), decay_(std::move(decay)) {}

    void run(Plan& plan, Step& step) override {
        const Buffer &from = plan.buffer(source_), &to = plan.buffer(target_);
        Prepared& prepared = plan.prepared();
        prepared.reserve(matrix_.kind, step.rows, matrix_.columns);
        each_row(step.pool, step.rows, from.width, [&](int64_t row) {
            prepare_row(apply(prologue_, from.rows + row * from.stride, matrix_.columns), prepared, row);
        });
        Epilogue epilogue{to.rows, to.stride, bias_ ? bias_->data() : nullptr, residual_,
                          decay_ ? decay_->data() : nullptr};
        multiply(step.pool, prepared, matrix_, epilogue, plan.weights());
    }

private:
    int64_t source_, target_;
    Matrix matrix_;
    Vector bias_;
    Prologue prologue_;
    bool residual_;
    Vector decay_;
};

class Attend : public Operation {
public:
    Attend(int64_t source, int64_t target, AttentionPart part, std::vector<Vector> owned)
        : Operation("attention"), source_(source), target_(target), part_(part), owned_(std::move(owned)) {}

    void run(Plan& plan, Step& step) override {
        const Buffer &from = plan.buffer(source_), &to = plan.buffer(target_);
        attend(step.pool, part_, step.batch, step.store, plan.tables(), from.rows, from.stride, to.rows, to.stride);
    }

private:
    int64_t source_, target_;
    AttentionPart part_;
    std::vector<Vector> owned_;  // what the part's pointers point into
};

class Experts : public Operation {
public:
    Experts(int64_t source, int64_t router, int64_t target, ExpertsPart part)
        : Operation("experts"), source_(source), router_(router), target_(target), part_(std::move(part)) {}

    void run(Plan& plan, Step& step) override {
        const Buffer &from = plan.buffer(source_), &router = plan.buffer(router_), &to = plan.buffer(target_);
        add_experts(step.pool, part_, step.rows, router.rows, router.stride, from.rows, from.stride, to.rows,
                    to.stride);
    }

private:
    int64_t source_, router_, target_;
    ExpertsPart part_;
};

class Narrow : public Operation {
public:
    explicit Narrow(std::vector<int64_t> buffers) : Operation("narrow"), buffers_(std::move(buffers)) {}

    void run(Plan& plan, Step& step) override {
        const auto& rows = step.wanted.rows;
        step.narrowed = true;
        if ((int64_t)rows.size() == step.rows) return;
        step.rows = (int64_t)rows.size();
        for (const int64_t index : buffers_) {
            const Buffer& buffer = plan.buffer(index);
            // Wanted rows are ascending: what is written over has moved already, or is not wanted.
            for (int64_t row = 0; row < step.rows; ++row)
                std::memmove(buffer.rows + row * buffer.stride, buffer.rows + rows[row] * buffer.stride,
                             buffer.width * sizeof(float));
        }
    }

private:
    std::vector<int64_t> buffers_;
};

/// Copy the wanted rows of the hidden states, if somebody asked for this layer's.
void keep_rows(Wanted& wanted, int64_t layer, int64_t width, const float* rows, int64_t stride, bool gathered) {
    for (size_t i = 0; i < wanted.layers.size(); ++i) {
        if (wanted.layers[i] != layer) continue;
        auto& kept = wanted.hidden[i];
        kept.resize(wanted.rows.size() * width);
        for (size_t row = 0; row < wanted.rows.size(); ++row)
            std::memcpy(&kept[row * width], rows + (gathered ? (int64_t)row : wanted.rows[row]) * stride,
                        width * sizeof(float));
    }
}

class Keep : public Operation {
public:
    explicit Keep(int64_t layer) : Operation("keep"), layer_(layer) {}

    void run(Plan& plan, Step& step) override {
        if (step.wanted.layers.empty()) return;
        const Buffer& hidden = plan.buffer(0);
        keep_rows(step.wanted, layer_, hidden.width, hidden.rows, hidden.stride, step.narrowed);
    }

private:
    int64_t layer_;
};

class Head : public Operation {
public:
    Head(const Matrix& matrix, std::shared_ptr<const Norm> norm, int64_t last_layer)
        : Operation("head " + shape_of(matrix)), norm_(std::move(norm)), last_layer_(last_layer) {}

    void run(Plan& plan, Step& step) override {
        Wanted& wanted = step.wanted;
        const int64_t rows = (int64_t)wanted.rows.size();
        if (!rows) return;
        const HeadPart& part = plan.head_part();
        const Buffer& hidden = plan.buffer(0);
        Prepared& prepared = plan.prepared();
        prepared.reserve(part.matrix.kind, wanted.scored, part.matrix.columns);
        each_row(step.pool, rows, hidden.width, [&](int64_t row) {
            float* normed = hidden.rows + row * hidden.stride;
            normalize(norm_->part(), normed, hidden.width, normed);
            if (wanted.logit_rows[row] >= 0) prepare_row(normed, prepared, wanted.logit_rows[row]);
        });
        keep_rows(wanted, last_layer_, hidden.width, hidden.rows, hidden.stride, true);
        if (!wanted.scored) return;
        wanted.logits = plan.logits(wanted.scored);
        multiply(step.pool, prepared, part.matrix,
                 {wanted.logits, plan.vocabulary(), part.bias ? part.bias->data() : nullptr}, plan.weights());
    }

private:
    std::shared_ptr<const Norm> norm_;
    int64_t last_layer_;
};

class Choose : public Operation {
public:
    Choose() : Operation("choose") {}

    void run(Plan& plan, Step& step) override {
        Wanted& wanted = step.wanted;
        wanted.chosen.resize(wanted.choices.size());
        step.pool.run((int64_t)wanted.choices.size(), [&](int64_t i) {
            float* row = wanted.logits + wanted.chosen_rows[i] * plan.vocabulary();
            wanted.chosen[i] = choose(wanted.choices[i], row, plan.vocabulary());
        });
    }
};

void need(bool fits, const std::string& message) {
    if (!fits) throw std::invalid_argument(message);
}

void need_size(const Vector& vector, int64_t size, const char* what) {
    need(!vector || (int64_t)vector->size() == size, std::string(what) + " must have " + std::to_string(size) +
                                                         " numbers, not " +
                                                         std::to_string(vector ? vector->size() : 0) + ".");
}

void need_norm(const std::shared_ptr<const Norm>& norm, int64_t width) {
    if (!norm) return;
    need_size(norm->weight, width, "the norm's weight");
    need_size(norm->bias, width, "the norm's bias");
}

}  // namespace

void Plan::embed(const Matrix& tokens, const Matrix* positions) {
    need(tokens.rows == vocabulary_ && tokens.columns == width(), "the token embedding does not fit the plan.");
    if (positions) {
        need(positions->columns == width(), "the positions do not fit the plan.");
        positions_ = positions->rows;
    }
    operations_.push_back(std::make_unique<Embed>(tokens, positions));
}

void Plan::normalize(const std::string& source, const std::string& target, std::shared_ptr<const Norm> norm) {
    const int64_t from = find_buffer(source), to = find_buffer(target);
    need(buffers_[from].width == buffers_[to].width, source + " and " + target + " differ in width.");
    need_norm(norm, buffers_[from].width);
    operations_.push_back(std::make_unique<Normalize>(from, to, std::move(norm)));
}

void Plan::linear(const std::string& source, const std::string& target, const Matrix& matrix, Vector bias,
                  Prologue prologue, bool residual, Vector decay) {
    const int64_t from = find_buffer(source), to = find_buffer(target);
    need(buffers_[from].width == matrix.columns * (prologue.gated ? 2 : 1),
         source + " does not fit a matrix with " + std::to_string(matrix.columns) + " inputs.");
    need(buffers_[to].width == matrix.rows,
         target + " does not fit a matrix with " + std::to_string(matrix.rows) + " outputs.");
    need(from != to, "a product cannot be written over its input.");
    need_size(bias, matrix.rows, "bias");
    need_size(decay, matrix.rows, "decay");
    need_norm(prologue.norm, matrix.columns);
    count_weights(matrix);
    operations_.push_back(std::make_unique<Linear>(from, to, matrix, std::move(bias), std::move(prologue), residual,
                                                   std::move(decay)));
}

void Plan::attention(const std::string& source, const std::string& target, AttentionPart part,
                     std::vector<Vector> owned) {
    const int64_t from = find_buffer(source), to = find_buffer(target);
    need(!narrowed_, "attention needs all rows.");
    need(part.layer >= 0 && part.heads > 0 && part.kv_heads > 0 && part.head_dim > 0 && part.window >= 0 &&
             part.keep >= 0 && part.heads % part.kv_heads == 0,
         "attention has impossible sizes.");
    need(part.rotary < rotaries_, "attention names a rotary that the plan does not have.");
    need(buffers_[from].width == (part.heads + 2 * part.kv_heads) * part.head_dim, source + " does not fit.");
    need(buffers_[to].width == part.heads * part.head_dim, target + " does not fit.");
    attentions_.push_back(part);
    operations_.push_back(std::make_unique<Attend>(from, to, part, std::move(owned)));
}

void Plan::experts(const std::string& source, const std::string& router_logits, const std::string& target,
                   ExpertsPart part) {
    const int64_t from = find_buffer(source), router = find_buffer(router_logits), to = find_buffer(target);
    // Where the number of experts is no square, the last ones have no keys.
    need(buffers_[router].width == 2 * part.keys && part.keys * part.keys <= part.experts, "the router does not fit.");
    need(part.chosen >= 1 && part.chosen <= part.keys * part.keys, "more experts are chosen than there are.");
    for (const Matrix* matrix : {&part.down, &part.up})
        need(matrix->rows == part.experts && matrix->columns == buffers_[from].width &&
                 matrix->columns == buffers_[to].width,
             "the experts do not fit.");
    operations_.push_back(std::make_unique<Experts>(from, router, to, std::move(part)));
}

void Plan::narrow(const std::vector<std::string>& buffers) {
    std::vector<int64_t> indices;
    for (const auto& name : buffers) indices.push_back(find_buffer(name));
    operations_.push_back(std::make_unique<Narrow>(std::move(indices)));
    narrowed_ = true;
}

void Plan::keep(int64_t layer) { operations_.push_back(std::make_unique<Keep>(layer)); }

void Plan::head(const Matrix& matrix, Vector bias, std::shared_ptr<const Norm> norm, int64_t last_layer) {
    need(matrix.rows == vocabulary_ && matrix.columns == width(), "the head does not fit the plan.");
    need_size(bias, vocabulary_, "the head's bias");
    need(norm != nullptr, "the head needs a norm.");
    need_norm(norm, width());
    need(!head_, "there is a head already.");
    if (!narrowed_) narrow({"hidden"});
    count_weights(matrix);
    head_ = std::make_unique<HeadPart>(HeadPart{matrix, std::move(bias)});
    operations_.push_back(std::make_unique<Head>(matrix, std::move(norm), last_layer));
    operations_.push_back(std::make_unique<Choose>());
}

void Plan::score(const float* states, int64_t rows, float* logits) {
    std::lock_guard<std::mutex> lock(mutex_);
    need(head_ != nullptr, "the plan has no head.");
    if (rows < 1) return;
    Pool& pool = Pool::shared();
    prepared_.reserve(head_->matrix.kind, rows, head_->matrix.columns);
    each_row(pool, rows, width(), [&](int64_t row) { prepare_row(states + row * width(), prepared_, row); });
    multiply(pool, prepared_, head_->matrix, {logits, vocabulary_, head_->bias ? head_->bias->data() : nullptr},
             weights_);
}

}  // namespace loquent
