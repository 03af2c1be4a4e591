// Products of repacked tiles with up to 4 tokens (GEMV): a slice of 32 columns is multiplied as it
// is unpacked. Each byte of weights is read once, and memory is the limit.

#include "tile16.h"

namespace ktchat::KTCHAT_ISA {
namespace {

constexpr size_t kAhead = 8 << 10;  // bytes between the arithmetic and what is fetched for it

// T tokens times 16 rows: sums[t][row].
template <class Type, int T>
inline void stream_tile(const uint8_t* tile, size_t block_bytes, int64_t cols,
                        const ActivationRow* x, float (*sums)[kTile16Rows]) {
    constexpr int kSlices = Type::kCols / 32;
    for (int lane = 0; lane < kTile16Rows; lane += W) {
        Vec out[T] = {};
        const uint8_t* block = tile;
        for (int64_t c = 0; c < cols; c += Type::kCols, block += block_bytes) {
            const typename Type::Header h = Type::header(block, lane);
            size_t fetched = 0;
            // 64 bits: a narrower number that is put by and read as a wider one waits for memory.
            for (int64_t b = 0; b < kSlices; b++) {
                // A few lines between the arithmetic: a core has few outstanding misses.
                if (lane == 0) {
                    const size_t end = block_bytes * static_cast<size_t>(b + 1) / kSlices;
                    for (; fetched < end; fetched += 64) {
                        __builtin_prefetch(block + kAhead + fetched);
                    }
                }
                const int64_t slice = c / 32 + b;
                Bytes w[8];
                unpack_slice<Type>(h, block, b, lane, w);
                if constexpr (Type::kGroup == 32) {
                    Vec scale, min;
                    Type::scales(h, block, b, lane, scale, min);
                    for (int t = 0; t < T; t++) {
                        const IntVec sum = dot_steps<Type, 8>(w, x[t].q + 32 * slice);
                        out[t] += to_floats(sum) * (scale * x[t].scale[slice]);
                        if (kHasMinima<Type>) out[t] -= min * x[t].sum32[slice];
                    }
                } else {
                    Vec scale[2], min[2];
                    Type::scales(h, block, 2 * b, lane, scale[0], min[0]);
                    Type::scales(h, block, 2 * b + 1, lane, scale[1], min[1]);
                    for (int t = 0; t < T; t++) {
                        const int8_t* q = x[t].q + 32 * slice;
                        const IntVec low = dot_steps<Type, 4>(w, q);
                        const IntVec high = dot_steps<Type, 4>(w + 4, q + 16);
                        const Vec sum = to_floats(low) * scale[0] + to_floats(high) * scale[1];
                        out[t] += sum * x[t].scale[slice];
                        out[t] -= min[0] * x[t].sum16[2 * slice];
                        out[t] -= min[1] * x[t].sum16[2 * slice + 1];
                    }
                }
            }
        }
        for (int t = 0; t < T; t++) store(sums[t] + lane, out[t]);
    }
}

}  // namespace
}  // namespace ktchat::KTCHAT_ISA
