// Which instruction sets this processor has.
#if defined(__x86_64__)
#include <cpuid.h>
#endif

#include <cstring>
#include <initializer_list>

#include "kernels.h"

namespace ktchat {
namespace {

#if defined(__x86_64__)
// Older compilers do not know its name. Whether the system keeps the registers AVX2 has told.
bool has_avxvnni() {
#if defined(KTCHAT_PROVE_AVXVNNI)
    return true;
#else
    unsigned a = 0, b = 0, c = 0, d = 0;
    return __get_cpuid_count(7, 1, &a, &b, &c, &d) && (a >> 4 & 1);
#endif
}
#endif

bool supported(const char* isa) {
#if defined(__x86_64__)
    __builtin_cpu_init();
    const bool vnni = !std::strcmp(isa, "avx512vnni");
    if (vnni || !std::strcmp(isa, "avx512")) {
        return (!vnni || __builtin_cpu_supports("avx512vnni")) &&
               __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
               __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
               __builtin_cpu_supports("fma");
    }
    const bool dot4 = !std::strcmp(isa, "avxvnni");
    if (dot4 || !std::strcmp(isa, "avx2")) {
        return (!dot4 || has_avxvnni()) && __builtin_cpu_supports("avx2") &&
               __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
    }
#endif
    return !std::strcmp(isa, "plain");
}

}  // namespace

const Kernels* find_kernels(const char* isa) {
    if (!supported(isa)) return nullptr;
    for (const Kernels* table :
         {kernels_avx512vnni(), kernels_avx512(), kernels_avxvnni(), kernels_avx2(),
          kernels_plain()}) {
        if (table && !std::strcmp(table->name, isa)) return table;
    }
    return nullptr;
}

}  // namespace ktchat
