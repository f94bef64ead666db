// Plans in Python, and the way of a step from the engine's segments to C++ and back.
#include <algorithm>
#include <stdexcept>

#include "module.hpp"

namespace loquent {
namespace {

using NormPointer = std::shared_ptr<Norm>;

/// The names of a segment's fields, made once: looking up by C strings makes new ones each time.
struct Fields {
    nb::handle tokens = name("tokens"), start = name("start"), tables = name("tables"), rows = name("rows"),
               choice = name("choice"), scored = name("scored"), coded = name("coded");

    static nb::handle name(const char* text) { return PyUnicode_InternFromString(text); }
    static const Fields& shared() {
        static const Fields fields;
        return fields;
    }
};

/// A step's segments as C++ reads them; the arrays that it points into are kept until it is done.
struct Arguments {
    Batch batch;
    Wanted wanted;
    std::vector<int64_t> tokens, tables;
    std::vector<PageTable> pages;     // of all segments, one for each group
    std::vector<Int64s> page_arrays;
    std::vector<int64_t> choosers;    // for each choice, the number of its segment
    std::vector<nb::object> arrays;
    bool all_chosen = true;           // whether no row's logits are needed

    void add(nb::handle segment, const Store& store);
    void add_pages(nb::handle segment, const Store& store);
    void set_tables(nb::handle given, int64_t rotaries);
};

/// A field of a segment that is a tuple with something for each of the store's groups.
nb::object of_groups(nb::handle segment, nb::handle field, const Store& store) {
    nb::object given = segment.attr(field);
    if (!PyTuple_Check(given.ptr()) || PyTuple_GET_SIZE(given.ptr()) != store.groups())
        throw std::invalid_argument("a segment's " + nb::cast<std::string>(field) +
                                    " must be a tuple with one for each of the store's " +
                                    std::to_string(store.groups()) + " groups.");
    return given;
}

void Arguments::add_pages(nb::handle segment, const Store& store) {
    const nb::object given = of_groups(segment, Fields::shared().tables, store);
    for (int64_t group = 0; group < store.groups(); ++group) {
        page_arrays.push_back(nb::cast<Int64s>(nb::handle(PyTuple_GET_ITEM(given.ptr(), group))));
        pages.push_back({page_arrays.back().data(), (int64_t)page_arrays.back().size(), 0});
    }
    if (!store.bits()) return;
    const nb::object coded = of_groups(segment, Fields::shared().coded, store);
    for (int64_t group = 0; group < store.groups(); ++group)
        pages[pages.size() - store.groups() + group].coded =
            nb::cast<int64_t>(nb::handle(PyTuple_GET_ITEM(coded.ptr(), group)));
}

void Arguments::add(nb::handle segment, const Store& store) {
    const Fields& fields = Fields::shared();
    nb::object token_object = segment.attr(fields.tokens);
    const auto own = nb::cast<Int64s>(token_object);
    add_pages(segment, store);
    const int64_t first = (int64_t)tokens.size(), length = (int64_t)own.size();
    tokens.insert(tokens.end(), own.data(), own.data() + length);
    const int64_t rows = nb::cast<int64_t>(segment.attr(fields.rows));
    if (rows < 0 || rows > length) throw std::invalid_argument("a segment has fewer tokens than it wants rows.");
    nb::object scored_object = segment.attr(fields.scored);
    const int64_t scored = scored_object.is_none() ? rows : nb::cast<int64_t>(scored_object);
    batch.segments.push_back(
        {first, length, nb::cast<int64_t>(segment.attr(fields.start)), nullptr, rows, scored, nullptr});
    for (int64_t row = 0; row < rows; ++row) {
        wanted.rows.push_back(first + length - rows + row);
        wanted.logit_rows.push_back(row < rows - scored ? -1 : wanted.scored++);
    }
    nb::object choice = segment.attr(fields.choice);
    if (choice.is_none() || scored < 1) {
        all_chosen &= scored < 1;
        return;
    }
    all_chosen &= scored == 1;
    wanted.chosen_rows.push_back(wanted.scored - 1);
    wanted.choices.push_back(read_choice(choice, arrays));
    choosers.push_back((int64_t)batch.segments.size() - 1);
}

void Arguments::set_tables(nb::handle given, int64_t rotaries) {
    const size_t count = batch.segments.size();
    if (given.is_none()) {
        for (int64_t i = 0; i < rotaries; ++i) tables.push_back(i);
    } else {
        if (nb::len(given) != count) throw std::invalid_argument("tables must have a list for each segment.");
        for (nb::handle list : given) {
            if ((int64_t)nb::len(list) != rotaries)
                throw std::invalid_argument("each segment needs a table for each rotary.");
            for (nb::handle table : list) tables.push_back(nb::cast<int64_t>(table));
        }
    }
    const size_t groups = pages.size() / std::max<size_t>(count, 1);
    for (size_t i = 0; i < count; ++i) {
        batch.segments[i].pages = pages.data() + i * groups;
        batch.segments[i].tables = tables.data() + (given.is_none() ? 0 : (int64_t)i * rotaries);
    }
    batch.tokens = tokens.data();
    batch.rows = (int64_t)tokens.size();
}

nb::object hidden_of(Wanted& wanted, int64_t width) {
    nb::dict hidden;
    const size_t rows = wanted.rows.size();
    for (size_t i = 0; i < wanted.layers.size(); ++i) {
        if (wanted.hidden[i].size() != rows * width) throw std::invalid_argument("the plan keeps no such layer.");
        hidden[nb::int_(wanted.layers[i])] = own_array(std::move(wanted.hidden[i]), {rows, (size_t)width});
    }
    return hidden;
}

nb::tuple run(nb::handle self, Store& store, nb::handle segments, nb::handle tables, nb::handle hidden_layers) {
    Plan& plan = nb::cast<Plan&>(self);
    Arguments arguments;
    for (nb::handle segment : segments) arguments.add(segment, store);
    arguments.set_tables(tables, plan.rotaries());
    Wanted& wanted = arguments.wanted;
    wanted.layers = to_numbers(hidden_layers);
    wanted.hidden.resize(wanted.layers.size());
    {
        WithoutGil released;
        plan.run(arguments.batch, store, wanted);
    }
    nb::object logits = nb::none();
    if (!arguments.all_chosen && wanted.logits)
        logits = as_array(wanted.logits, {(size_t)wanted.scored, (size_t)plan.vocabulary()}, self);
    nb::list chosen;
    size_t next = 0;
    for (size_t i = 0; i < arguments.batch.segments.size(); ++i) {
        if (next < arguments.choosers.size() && arguments.choosers[next] == (int64_t)i) {
            chosen.append(chosen_object(std::move(wanted.chosen[next]), wanted.choices[next].best > 0));
            ++next;
        } else {
            chosen.append(nb::none());
        }
    }
    return nb::make_tuple(logits, hidden_of(wanted, plan.width()), chosen);
}

nb::object score(Plan& plan, Rows states) {
    const size_t rows = states.shape(0), vocabulary = (size_t)plan.vocabulary();
    if ((int64_t)states.shape(1) != plan.width())
        throw std::invalid_argument("states of " + std::to_string(states.shape(1)) + " numbers do not fit a width of " +
                                    std::to_string(plan.width()) + ".");
    std::vector<float> logits;
    {
        WithoutGil released;
        logits.resize(rows * vocabulary);
        plan.score(states.data(), (int64_t)rows, logits.data());
    }
    return own_array(std::move(logits), {rows, vocabulary});
}

void linear(Plan& plan, const std::string& source, const std::string& target, const Matrix& matrix,
            std::optional<Floats> bias, NormPointer norm, std::optional<std::string> activation, float slope,
            bool gated, bool residual, std::optional<Floats> decay) {
    if (norm && activation) throw std::invalid_argument("a product's input is normed or activated, not both.");
    if (gated && !activation) throw std::invalid_argument("a gated input needs an activation.");
    Prologue prologue{std::move(norm), activation.has_value(),
                      activation ? activation_of(*activation) : Activation::linear, slope, gated};
    plan.linear(source, target, matrix, to_vector(bias), std::move(prologue), residual, to_vector(decay));
}

void check_length(const Vector& vector, int64_t length, const char* name) {
    if (vector && (int64_t)vector->size() != length)
        throw std::invalid_argument(std::string(name) + " must have " + std::to_string(length) + " numbers.");
}

void attention(Plan& plan, const std::string& source, const std::string& target, int64_t layer, int64_t heads,
               int64_t kv_heads, int64_t head_dim, float scale, int64_t window, int64_t rotary,
               std::optional<Floats> query_norm, std::optional<Floats> key_norm, float norm_epsilon, int64_t keep,
               std::optional<Floats> mask_decay, std::optional<Floats> mask_step, std::optional<Floats> mask_bias) {
    std::vector<Vector> owned{to_vector(query_norm), to_vector(key_norm), to_vector(mask_decay), to_vector(mask_step),
                              to_vector(mask_bias)};
    check_length(owned[0], head_dim, "query_norm");
    check_length(owned[1], head_dim, "key_norm");
    check_length(owned[2], kv_heads, "mask_decay");
    check_length(owned[3], kv_heads * kv_heads * head_dim, "mask_step");
    check_length(owned[4], kv_heads, "mask_bias");
    if (!owned[0] != !owned[1]) throw std::invalid_argument("queries and keys are normed both or neither.");
    if ((keep > 0) != (owned[2] && owned[3])) throw std::invalid_argument("a dynamic mask needs keep, decay and step.");
    const auto data = [&](size_t i) { return owned[i] ? owned[i]->data() : nullptr; };
    AttentionPart part{layer, heads, kv_heads, head_dim, scale, window, rotary, data(0), data(1), norm_epsilon,
                       keep, data(2), data(3), data(4)};
    plan.attention(source, target, part, std::move(owned));
}

void experts(Plan& plan, const std::string& source, const std::string& router_logits, const std::string& target,
             const Matrix& down, const Matrix& up, int64_t chosen, bool normalized, const std::string& activation,
             float slope) {
    ExpertsPart part;
    part.experts = down.rows;
    while ((part.keys + 1) * (part.keys + 1) <= part.experts) ++part.keys;
    part.chosen = chosen;
    part.normalized = normalized;
    part.activation = activation_of(activation);
    part.slope = slope;
    part.down = down;
    part.up = up;
    plan.experts(source, router_logits, target, std::move(part));
}

nb::list profile(Plan& plan) {
    nb::list timings;
    for (const auto& timing : plan.profile()) timings.append(nb::make_tuple(timing.name, timing.calls, timing.seconds));
    return timings;
}

}  // namespace

void bind_plan(nb::module_& module) {
    nb::class_<Norm>(module, "Norm", "Layer norm, or RMS norm where there is no bias.")
        .def("__init__", [](Norm* self, Floats weight, std::optional<Floats> bias, float epsilon) {
            new (self) Norm{to_vector(weight), to_vector(bias), epsilon};
        }, nb::arg("weight"), nb::arg("bias").none(), nb::arg("epsilon"));
    nb::class_<Plan>(module, "Plan", "A model as a list of operations; see plan.hpp.")
        .def(nb::init<int64_t, int64_t>(), nb::arg("vocabulary"), nb::arg("width"))
        .def("buffer", &Plan::add_buffer, nb::arg("name"), nb::arg("width"))
        .def("rotary", &Plan::add_rotary)
        .def("table", [](Plan& plan, Floats frequencies, float factor) {
            return plan.add_table({frequencies.data(), frequencies.data() + frequencies.size()}, factor);
        }, nb::arg("frequencies"), nb::arg("factor"))
        .def("embed", [](Plan& plan, const Matrix& tokens, const Matrix* positions) { plan.embed(tokens, positions); },
             nb::arg("tokens"), nb::arg("positions").none())
        .def("normalize", [](Plan& plan, const std::string& source, const std::string& target, NormPointer norm) {
            plan.normalize(source, target, std::move(norm));
        }, nb::arg("source"), nb::arg("target"), nb::arg("norm"))
        .def("linear", &linear, nb::arg("source"), nb::arg("target"), nb::arg("matrix"), nb::arg("bias") = nb::none(),
             nb::kw_only(), nb::arg("norm") = nb::none(), nb::arg("activation") = nb::none(), nb::arg("slope") = 0.0f,
             nb::arg("gated") = false, nb::arg("residual") = false, nb::arg("decay") = nb::none())
        .def("attention", &attention, nb::arg("source"), nb::arg("target"), nb::kw_only(), nb::arg("layer"),
             nb::arg("heads"), nb::arg("kv_heads"), nb::arg("head_dim"), nb::arg("scale"), nb::arg("window") = 0,
             nb::arg("rotary") = -1, nb::arg("query_norm") = nb::none(), nb::arg("key_norm") = nb::none(),
             nb::arg("norm_epsilon") = 0.0f, nb::arg("keep") = 0, nb::arg("mask_decay") = nb::none(),
             nb::arg("mask_step") = nb::none(), nb::arg("mask_bias") = nb::none())
        .def("experts", &experts, nb::arg("source"), nb::arg("router_logits"), nb::arg("target"), nb::kw_only(),
             nb::arg("down"), nb::arg("up"), nb::arg("chosen"), nb::arg("normalized"), nb::arg("activation"),
             nb::arg("slope") = 0.0f)
        .def("narrow", &Plan::narrow, nb::arg("buffers"))
        .def("keep", &Plan::keep, nb::arg("layer"))
        .def("head", [](Plan& plan, const Matrix& matrix, std::optional<Floats> bias, NormPointer norm, int64_t last) {
            plan.head(matrix, to_vector(bias), std::move(norm), last);
        }, nb::arg("matrix"), nb::arg("bias").none(), nb::arg("norm"), nb::kw_only(), nb::arg("last_layer"))
        .def("run", &run, nb::arg("store"), nb::arg("segments"), nb::arg("tables").none(), nb::arg("hidden_layers"))
        .def("score", &score, nb::arg("states"))
        .def("profile", &profile);
}

}  // namespace loquent
