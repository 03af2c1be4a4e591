// The kernels for any machine.
#include "kernels.h"

#define KTCHAT_ISA plain
#define KTCHAT_ISA_NAME "plain"
#include "isa_kernels.inc.h"

const ktchat::Kernels* ktchat::kernels_plain() { return &plain::kTable; }
