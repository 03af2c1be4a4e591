// The kernels for AVX-512 (F, BW, DQ, VL) with VNNI.
#include "kernels.h"

#if defined(__AVX512VNNI__)
#define KTCHAT_ISA avx512vnni
#define KTCHAT_ISA_NAME "avx512vnni"
#include "isa_kernels.inc.h"

const ktchat::Kernels* ktchat::kernels_avx512vnni() { return &avx512vnni::kTable; }
#else
const ktchat::Kernels* ktchat::kernels_avx512vnni() { return nullptr; }
#endif
