// The kernels for AVX-512 (F, BW, DQ, VL).
#include "kernels.h"

#if defined(__AVX512F__)
#define KTCHAT_ISA avx512
#define KTCHAT_ISA_NAME "avx512"
#include "simd.h"
// The order matters: the table comes last.
#include "float_tile.inc.h"
#include "panel_pack.inc.h"
#include "panel_types.inc.h"
#include "panel_tile.inc.h"
#include "elementwise.inc.h"
#include "attention_tile.inc.h"
#include "isa_table.inc.h"

const ktchat::Kernels* ktchat::kernels_avx512() { return &avx512::kTable; }
#else
const ktchat::Kernels* ktchat::kernels_avx512() { return nullptr; }
#endif
