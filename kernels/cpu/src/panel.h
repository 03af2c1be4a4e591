// Panels: 16 rows of a quantised matrix, interleaved so that a vector lane is a row. A 64-byte
// vector of weights is 4 columns of 16 rows, which `vpdpbusd` multiplies with 4 activations
// broadcast to all lanes: no sums across lanes, and scales load as vectors. The bits of a type are
// kept, only their order changes, so a panel is as large as its rows in the file.
//
// A panel is a run of cells of `cols` columns. Every quantised weight is an unsigned number q; its
// value is scale * (q - offset) or scale * q - minimum. The layouts of the cells stand with their
// packers in panel_pack.inc.h; what reads them is in panel_types.inc.h.
//
// Activations are int8 with a float32 scale for every 32 columns, followed by their sums (times the
// scale), which the offsets and minima need: PanelRow.
#pragma once

#include <cstddef>
#include <cstdint>

namespace ktchat {

constexpr int kPanelRows = 16;

struct PanelType {
    int type;      // enum ggml_type
    int cols;      // of a cell
    size_t block;  // bytes of one row of a cell in the file
    size_t cell;   // bytes of a cell
    // Packs `rows` <= 16 rows, `stride` bytes apart, of one cell; missing rows become zeros.
    void (*pack)(const uint8_t* source, size_t stride, int rows, uint8_t* cell);
};

// One row of activations: q, then a scale and a sum for every 32 columns, a sum for every 16.
struct PanelRow {
    const int8_t* q;
    const float* scale;
    const float* sum32;
    const float* sum16;

    PanelRow() = default;
    PanelRow(const void* row, int64_t cols)
        : q(static_cast<const int8_t*>(row)),
          scale(reinterpret_cast<const float*>(q + cols)),
          sum32(scale + cols / 32),
          sum16(sum32 + cols / 32) {}
};

constexpr int64_t kPanelBlock = 32;
constexpr size_t kPanelBlockBytes = 32 + 4 + 4 + 8;

}  // namespace ktchat
