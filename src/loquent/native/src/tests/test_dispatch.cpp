// The choice of an instruction set: what the machine runs (printed on the first line), and what LOQUENT_ISA may name.
#include <cstdlib>
#include <cstring>
#include <stdexcept>

#include "check.hpp"
#include "kernels.hpp"

int main() {
    const auto names = loquent::instruction_sets();
    for (const char* name : names) std::printf("%s ", name);
    std::printf("\n");
    CHECK(!names.empty() && std::strcmp(names.back(), "portable") == 0);
    const char* asked = std::getenv("LOQUENT_ISA");
    bool runs = !asked || !*asked;
    for (const char* name : names) runs = runs || std::strcmp(asked, name) == 0;
    if (runs) {
        const loquent::Kernels& chosen = loquent::kernels();
        CHECK(std::strcmp(chosen.name, asked && *asked ? asked : names.front()) == 0);
        CHECK(&loquent::kernels() == &chosen);
    } else {
        CHECK_THROWS(loquent::kernels(), std::invalid_argument);
    }
    return loquent::test::report();
}
