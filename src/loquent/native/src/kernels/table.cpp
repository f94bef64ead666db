// The table of one instruction set's kernels; every kernel has a line here and a member in kernels.hpp.
#include "kernels.hpp"
#include "kernels/attention_kernels.hpp"

#define LOQUENT_TEXT(name) #name
#define LOQUENT_NAME(name) LOQUENT_TEXT(name)

namespace loquent::LOQUENT_ISA {

void normalize(const NormPart& part, const float* x, int64_t width, float* out);
void activate(Activation function, float slope, const float* x, int64_t count, float* out);
void activate_gated(Activation function, float slope, const float* gate, const float* up, int64_t count, float* out);
void prepare_row(const float* x, Prepared& prepared, int64_t row);
void multiply_share(const ProductShare& share);
float dot(const float* a, const float* b, int64_t count);
void add_scaled(float factor, const float* x, int64_t count, float* out);
ScoreKernels score_kernels();

const Kernels& table() {
    static const Kernels kernels = [] {
        Kernels k{};
        k.name = LOQUENT_NAME(LOQUENT_ISA);
        k.normalize = normalize;
        k.activate = activate;
        k.activate_gated = activate_gated;
        k.prepare_row = prepare_row;
        k.multiply_share = multiply_share;
        k.write_tokens = write_tokens;
        k.code_keys = code_keys;
        k.code_values = code_values;
        k.read_rows = read_rows;
        k.join_chunks = join_chunks;
        k.dot = dot;
        k.add_scaled = add_scaled;
        k.scores = score_kernels();
        return k;
    }();
    return kernels;
}

}  // namespace loquent::LOQUENT_ISA
