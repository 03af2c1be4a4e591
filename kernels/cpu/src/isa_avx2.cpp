// The kernels for AVX2 with FMA and F16C.
#include "kernels.h"

#if defined(__AVX2__)
#define KTCHAT_ISA avx2
#define KTCHAT_ISA_NAME "avx2"
#include "simd.h"
// The order matters: the table comes last.
#include "float_tile.inc.h"
#include "panel_pack.inc.h"
#include "panel_types.inc.h"
#include "panel_tile.inc.h"
#include "elementwise.inc.h"
#include "attention_tile.inc.h"
#include "isa_table.inc.h"

const ktchat::Kernels* ktchat::kernels_avx2() { return &avx2::kTable; }
#else
const ktchat::Kernels* ktchat::kernels_avx2() { return nullptr; }
#endif
