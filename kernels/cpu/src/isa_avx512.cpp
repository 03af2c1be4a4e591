// The kernels for AVX-512 (F, BW, DQ, VL).
#include "kernels.h"

#if defined(__AVX512F__)
#define KTCHAT_ISA avx512
#define KTCHAT_ISA_NAME "avx512"
#include "isa_kernels.inc.h"

const ktchat::Kernels* ktchat::kernels_avx512() { return &avx512::kTable; }
#else
const ktchat::Kernels* ktchat::kernels_avx512() { return nullptr; }
#endif
