// The kernels for any machine.
#include "kernels.h"

#define KTCHAT_ISA plain
#define KTCHAT_ISA_NAME "plain"
#include "simd.h"
// The order matters: the table comes last.
#include "float_tile.inc.h"
#include "panel_pack.inc.h"
#include "panel_types.inc.h"
#include "panel_tile.inc.h"
#include "elementwise.inc.h"
#include "attention_tile.inc.h"
#include "isa_table.inc.h"

const ktchat::Kernels* ktchat::kernels_plain() { return &plain::kTable; }
