// All kernels of one instruction set. Each isa_*.cpp includes this once, with KTCHAT_ISA (the
// namespace) and KTCHAT_ISA_NAME defined and its own compiler flags. The order matters: the table
// comes last.

#include "simd.h"
#include "float_tile.inc.h"
#include "tile16_pack.inc.h"
#include "tile16_pack32.inc.h"
#include "tile16_pack256.inc.h"
#include "tile16_pack_lattice.inc.h"
#include "tile16_pack_ternary.inc.h"
#include "ik_formats.inc.h"
#include "ik_rows.inc.h"
#include "ik_trellis.inc.h"
#include "tile16_pack_ik.inc.h"
#include "tile16_dot.inc.h"
#include "tile16_types.inc.h"
#include "tile16_lattice.inc.h"
#include "tile16_ternary.inc.h"
#include "tile16_types_ik.inc.h"
#include "tile16_types_ik_trellis.inc.h"
#if defined(__AVX2__) && !defined(__AVX512F__)
#include "tile16_gemv_avx2.inc.h"
#include "tile16_gemm_avx2.inc.h"
#else
#include "tile16_gemv.inc.h"
#include "tile16_gemm.inc.h"
#endif
#include "tile16_kernel.inc.h"
#include "tile16_rows.inc.h"
#include "tile16_table.inc.h"
#include "tile16_activations.inc.h"
#include "elementwise.inc.h"
#include "attention_cache.inc.h"
#include "attention_products.inc.h"
#include "attention_tile.inc.h"
#include "short_convolution.inc.h"
#include "delta_net.inc.h"
#include "isa_table.inc.h"
