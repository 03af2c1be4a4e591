// A row of a file as float32, for embeddings: packed as the only row of its tile and read as products
// read it, so that what a type's bits mean is said once.

#include "tile16.h"

namespace ktchat::KTCHAT_ISA {
namespace {

// In double no product of a code and its scale is rounded, and the difference is rounded once.
template <class Type, PackBlock Pack, size_t kBytes>
void tile_row_to_float(const void* row, float* y, int64_t cols) {
    const auto* source = static_cast<const uint8_t*>(row);
    alignas(64) uint8_t block[kTile16Rows * kBytes];
    for (int64_t c = 0; c < cols; c += Type::kCols, source += kBytes, y += Type::kCols) {
        Pack(source, 0, 1, block);
        const typename Type::Header h = Type::header(block, 0);
        for (int b = 0; b < Type::kCols / 32; b++) {
            Bytes w[8];
            unpack_slice<Type>(h, block, b, 0, w);
            for (int k = 0; k < 8; k++) {
                Vec scale, min;
                Type::scales(h, block, Type::kGroup == 16 ? 2 * b + k / 4 : b, 0, scale, min);
                for (int i = 0; i < 4; i++) {
                    const int column = 32 * b + 16 * (k / 4) + kOrder[4 * (k % 4) + i];
                    y[column] = static_cast<float>(static_cast<double>(scale[0]) * w[k][i] -
                                                   static_cast<double>(min[0]));
                }
            }
        }
    }
}

}  // namespace
}  // namespace ktchat::KTCHAT_ISA
