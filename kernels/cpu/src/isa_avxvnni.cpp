// The kernels for AVX2 with AVX-VNNI. KTCHAT_PROVE_AVXVNNI makes them of other instructions: 512 of
// AVX-512 VNNI and VL, 2 of AVX2 (tests/kernels/prove_avxvnni.py).
#include "kernels.h"

#if defined(KTCHAT_PROVE_AVXVNNI)
#include <immintrin.h>
#undef __AVX512F__
#undef __AVX512VNNI__
#endif

#if defined(__AVXVNNI__) || defined(KTCHAT_PROVE_AVXVNNI)
#define KTCHAT_ISA avxvnni
#define KTCHAT_ISA_NAME "avxvnni"
#include "isa_kernels.inc.h"

const ktchat::Kernels* ktchat::kernels_avxvnni() { return &avxvnni::kTable; }
#else
const ktchat::Kernels* ktchat::kernels_avxvnni() { return nullptr; }
#endif
