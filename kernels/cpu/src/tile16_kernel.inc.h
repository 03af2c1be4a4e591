// The TileKernel of a repacked type: GEMV or GEMM by the number of tokens.

#include <algorithm>

#include "matrix.h"

namespace ktchat::KTCHAT_ISA {
namespace {

// sums[t][first + row] *= the scale that a tile's rows begin with.
template <class Type>
void multiply_row_scales(const uint8_t* tile, int tokens, int first,
                         float (*sums)[kPair * kTile16Rows]) {
    for (int lane = 0; lane < kTile16Rows; lane += W) {
        const uint8_t* at = tile + kRowPrefix<Type> * static_cast<size_t>(lane);
        const Vec scale = kRowPrefix<Type> == 2 ? load_half(at) : load(at);
        for (int t = 0; t < tokens; t++) {
            float* sum = sums[t] + first + lane;
            store(sum, load(sum) * scale);
        }
    }
}

// `w` is the first row of a tile.
template <class Type>
void tile16_kernel(const Matrix& m, const uint8_t* w, int rows, const uint8_t* next,
                   const void* const* x, int tokens, float* y) {
    const size_t tile_bytes = m.row_bytes * kTile16Rows;
    constexpr size_t kPrefix = kTile16Rows * kRowPrefix<Type>;
    const size_t block_bytes = (tile_bytes - kPrefix) / static_cast<size_t>(m.cols / Type::kCols);
    ActivationRow inputs[kManyTokens];
    for (int t = 0; t < tokens; t++) inputs[t] = ActivationRow(x[t], m.cols);
    for (int r = 0; r < rows; r += kPair * kTile16Rows) {
        const int here = std::min(kPair * kTile16Rows, rows - r);
        const int tiles = (here + kTile16Rows - 1) / kTile16Rows;
        const uint8_t* first = w + static_cast<size_t>(r / kTile16Rows) * tile_bytes + kPrefix;
        alignas(64) float sums[kManyTokens][kPair * kTile16Rows];
        if (tokens <= 4) {
            alignas(64) float part[4][kTile16Rows];
            for (int p = 0; p < tiles; p++) {
                const uint8_t* tile = first + static_cast<size_t>(p) * tile_bytes;
                switch (tokens) {
                    case 1:
                        stream_tile<Type, 1>(tile, block_bytes, m.cols, inputs, part);
                        break;
                    case 2:
                        stream_tile<Type, 2>(tile, block_bytes, m.cols, inputs, part);
                        break;
                    case 3:
                        stream_tile<Type, 3>(tile, block_bytes, m.cols, inputs, part);
                        break;
                    default:
                        stream_tile<Type, 4>(tile, block_bytes, m.cols, inputs, part);
                }
                for (int t = 0; t < tokens; t++) {
                    std::memcpy(sums[t] + kTile16Rows * p, part[t], sizeof part[t]);
                }
            }
        } else {
            const uint8_t* after = r + here < rows ? first + kPair * tile_bytes : next;
            many_tokens<Type>(first, tile_bytes, block_bytes, tiles, m.cols, after, inputs, tokens,
                              sums);
        }
        for (int p = 0; kPrefix > 0 && p < tiles; p++) {
            const uint8_t* tile = first - kPrefix + static_cast<size_t>(p) * tile_bytes;
            multiply_row_scales<Type>(tile, tokens, kTile16Rows * p, sums);
        }
        for (int t = 0; t < tokens; t++) {
            std::memcpy(y + t * rows + r, sums[t], static_cast<size_t>(here) * sizeof(float));
        }
    }
}

}  // namespace
}  // namespace ktchat::KTCHAT_ISA
