// The kernels for AVX-512 (F, BW, DQ, VL) with VNNI.
#include "kernels.h"

#if defined(__AVX512VNNI__)
#define KTCHAT_ISA avx512vnni
#define KTCHAT_ISA_NAME "avx512vnni"
#include "simd.h"
// The order matters: the table comes last.
#include "float_tile.inc.h"
#include "panel_pack.inc.h"
#include "panel_types.inc.h"
#include "panel_tile.inc.h"
#include "elementwise.inc.h"
#include "attention_tile.inc.h"
#include "isa_table.inc.h"

const ktchat::Kernels* ktchat::kernels_avx512vnni() { return &avx512vnni::kTable; }
#else
const ktchat::Kernels* ktchat::kernels_avx512vnni() { return nullptr; }
#endif
