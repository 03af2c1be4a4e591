// Repacked tiles ("tile16"): 16 rows of a quantised matrix, interleaved at load so that a vector
// lane is a row. A 64-byte vector of weights is 4 columns of 16 rows, which `vpdpbusd` multiplies
// with 4 activations broadcast to all lanes: no sums across lanes, and scales load as vectors. The
// bits of a type are kept and only their order changes, so a tile is as large as its rows in the
// file. Which 4 columns a vector has kOrder says.
//
// A tile is the scales that its rows begin with, if they do, and a run of blocks: the blocks of
// `cols` columns (32 to 256) that GGUF cuts a row into, 16 rows together. Kernels take a block apart
// in slices of 32 columns. Every quantised weight is an unsigned code q; its value is scale * (q -
// offset) or scale * q - minimum. The layouts of the blocks stand with their packers
// (tile16_pack*.inc.h). (A "tile" of a product elsewhere is the rows and tokens that a kernel takes
// at once.)
//
// Activations are int8 with a float32 scale for every 32 columns, followed by their sums (times the
// scale), which the offsets and minima need: ActivationRow.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels.h"

namespace ktchat {

constexpr int kTile16Rows = 16;

// Four vectors hold 16 columns in this order, and so do activations. It is the one in which words
// looked up in a grid come apart by shifts alone (tile16_lattice.inc.h).
constexpr uint8_t kOrder[16] = {0, 2, 8, 10, 1, 3, 9, 11, 4, 6, 12, 14, 5, 7, 13, 15};

// Packs `rows` <= 16 rows, `stride` bytes apart, of one block; missing rows become zeros.
using PackBlock = void (*)(const uint8_t* source, size_t stride, int rows, uint8_t* block);

// One GGUF type as repacked tiles; tile16_table.inc.h lists them.
struct Tile16Type {
    int type;          // enum ggml_type
    int cols;          // of a block
    size_t row_block;  // bytes of one row of a block, as in the file
    PackBlock pack;
    TileKernel kernel;
    size_t row_prefix;  // bytes of the scale that a row begins with; a tile begins with sixteen
    RowToFloat row_to_float;

    size_t block_bytes() const { return kTile16Rows * row_block; }
};

// One row of activations: q in kOrder, then a scale and a sum for every 32 columns, a sum for every
// 16, and for every 16 two sums of q alone: of the first two of every four in kOrder, and of the
// last two.
struct ActivationRow {
    const int8_t* q;
    const float* scale;
    const float* sum32;
    const float* sum16;
    const int16_t* pairs;

    ActivationRow() = default;
    ActivationRow(const void* row, int64_t cols)
        : q(static_cast<const int8_t*>(row)),
          scale(reinterpret_cast<const float*>(q + cols)),
          sum32(scale + cols / 32),
          sum16(sum32 + cols / 32),
          pairs(reinterpret_cast<const int16_t*>(sum16 + cols / 16)) {}
};

constexpr int64_t kActivationGroup = 32;
constexpr size_t kActivationGroupBytes = 32 + 4 + 4 + 8 + 8;

}  // namespace ktchat
