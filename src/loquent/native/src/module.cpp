// The Python module `loquent.native._core`: threads, instruction sets and selection; matrices, stores and plans have
// their own files.
#include "module.hpp"

#include "kernels.hpp"

namespace loquent {

Vector to_vector(const Floats& array) {
    return std::make_shared<const std::vector<float>>(array.data(), array.data() + array.size());
}

Vector to_vector(const std::optional<Floats>& array) { return array ? to_vector(*array) : nullptr; }

std::vector<int64_t> to_numbers(nb::handle sequence) {
    std::vector<int64_t> numbers;
    for (nb::handle item : sequence) numbers.push_back(nb::cast<int64_t>(item));
    return numbers;
}

namespace {

std::pair<const int64_t*, int64_t> read_tokens(nb::handle choice, const char* name, std::vector<nb::object>& arrays) {
    nb::object value = choice.attr(name);
    if (value.is_none()) return {nullptr, 0};
    const auto array = nb::cast<Int64s>(value);
    arrays.push_back(std::move(value));
    return {array.data(), (int64_t)array.size()};
}

/// A `Proposal`, or None.
Offer read_offer(nb::handle proposal, std::vector<nb::object>& arrays) {
    Offer read;
    if (proposal.is_none()) return read;
    read.token = nb::cast<int64_t>(proposal.attr("token"));
    const nb::object odds = proposal.attr("odds");
    if (odds.is_none()) return read;
    nb::object probabilities = odds.attr("probabilities");
    const auto numbers = nb::cast<Doubles>(probabilities);
    std::tie(read.tokens, read.count) = read_tokens(odds, "tokens", arrays);
    if (read.count < 1 || read.count != (int64_t)numbers.size())
        throw std::invalid_argument("a proposal's odds must have a probability for each token.");
    read.probabilities = numbers.data();
    arrays.push_back(std::move(probabilities));
    return read;
}

nb::object choose_row(nb::ndarray<float, nb::ndim<1>, nb::c_contig, nb::device::cpu> row, nb::handle choice) {
    std::vector<nb::object> arrays;
    const Choice read = read_choice(choice, arrays);
    check_choice(read, (int64_t)row.size());
    return chosen_object(choose(read, row.data(), (int64_t)row.size()), read.best > 0);
}

}  // namespace

Choice read_choice(nb::handle choice, std::vector<nb::object>& arrays) {
    Choice read;
    read.penalty = nb::cast<float>(choice.attr("penalty"));
    std::tie(read.seen, read.seen_count) = read_tokens(choice, "seen", arrays);
    std::tie(read.banned, read.banned_count) = read_tokens(choice, "banned", arrays);
    read.temperature = nb::cast<float>(choice.attr("temperature"));
    read.top_k = nb::cast<int64_t>(choice.attr("top_k"));
    read.top_p = nb::cast<float>(choice.attr("top_p"));
    read.min_p = nb::cast<double>(choice.attr("min_p"));
    read.sampled = nb::cast<bool>(choice.attr("sampled"));
    read.seed = nb::cast<uint64_t>(nb::int_(choice.attr("seed")) & nb::int_(UINT64_MAX));
    read.position = nb::cast<uint64_t>(choice.attr("position"));
    read.normalized = nb::cast<bool>(choice.attr("normalized"));
    read.best = nb::cast<int64_t>(choice.attr("best"));
    read.draft = nb::cast<bool>(choice.attr("draft"));
    read.offer = read_offer(choice.attr("offer"), arrays);
    return read;
}

nb::object chosen_object(Chosen chosen, bool best) {
    if (chosen.state == Chosen::State::no_numbers) return nb::str("no_numbers");
    if (chosen.state == Chosen::State::nothing_left) return nb::str("nothing_left");
    const size_t count = chosen.tokens.size();
    if (!chosen.probabilities.empty())
        return nb::make_tuple(nb::int_(chosen.token), own_array(std::move(chosen.tokens), {count}),
                              own_array(std::move(chosen.probabilities), {count}));
    if (!best) return nb::int_(chosen.token);
    return nb::make_tuple(own_array(std::move(chosen.tokens), {count}), own_array(std::move(chosen.scores), {count}));
}

}  // namespace loquent

NB_MODULE(_core, module) {
    using namespace loquent;
    nb::set_leak_warnings(false);  // a daemon thread that generates holds its model when the interpreter ends
    module.doc() = "Loquent's native core: plans of kernels that run steps of a model on the CPU.";
    module.def("instruction_set", [] { return kernels().name; }, "The instruction set whose kernels run.");
    module.def("instruction_sets", [] {
        const auto names = instruction_sets();
        return std::vector<std::string>(names.begin(), names.end());
    }, "The instruction sets that this machine runs, best first.");
    module.def("threads", [] { return Pool::shared().threads(); }, "How many threads a step uses.");
    module.def("set_threads", [](int threads) {
        WithoutGil released;
        Pool::set_threads(threads);
    }, nb::arg("threads"),
               "Use so many threads from now on; 0: as many as the process may keep busy.");
    module.def("usable_threads", &usable_threads,
               "How many threads the process may keep busy: its affinity and its container's quota.");
    module.def("choose", &choose_row, nb::arg("row"), nb::arg("choice"),
               "A row's token or best few; see selection.hpp.");
    bind_matrix(module);
    bind_store(module);
    bind_plan(module);
}
