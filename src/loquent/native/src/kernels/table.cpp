// The table of one instruction set's kernels; every kernel has a line here and a member in kernels.hpp.
#include "kernels.hpp"

#define LOQUENT_TEXT(name) #name
#define LOQUENT_NAME(name) LOQUENT_TEXT(name)

namespace loquent::LOQUENT_ISA {

void normalize(const NormPart& part, const float* x, int64_t width, float* out);
void activate(Activation function, float slope, const float* x, int64_t count, float* out);
void activate_gated(Activation function, float slope, const float* gate, const float* up, int64_t count, float* out);
Chosen choose(const Choice& choice, float* row, int64_t vocabulary);

const Kernels& table() {
    static const Kernels kernels = [] {
        Kernels k{};
        k.name = LOQUENT_NAME(LOQUENT_ISA);
        k.normalize = normalize;
        k.activate = activate;
        k.activate_gated = activate_gated;
        k.choose = choose;
        return k;
    }();
    return kernels;
}

}  // namespace loquent::LOQUENT_ISA
