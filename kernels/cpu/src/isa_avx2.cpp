// The kernels for AVX2 with FMA and F16C.
#include "kernels.h"

#if defined(__AVX2__)
#define KTCHAT_ISA avx2
#define KTCHAT_ISA_NAME "avx2"
#include "isa_kernels.inc.h"

const ktchat::Kernels* ktchat::kernels_avx2() { return &avx2::kTable; }
#else
const ktchat::Kernels* ktchat::kernels_avx2() { return nullptr; }
#endif
