// Products of repacked tiles with many tokens (GEMM): 256 columns of two tiles are unpacked into
// the first-level cache, then all tokens pass by. What multiplies is the same for every type.

#include <algorithm>

#include "tile16.h"

namespace ktchat::KTCHAT_ISA {
namespace {

constexpr int kDepth = 256;  // columns unpacked at once
constexpr int kPair = 2;     // tiles unpacked at once
constexpr int kManyTokens = 64;

struct Unpacked {
    alignas(64) uint8_t w[kPair][kDepth / 4][64];
    alignas(64) float scale[kPair][kDepth / 16][kTile16Rows];
    alignas(64) float min[kPair][kDepth / 16][kTile16Rows];
};

template <class Type>
inline void unpack_depth(const uint8_t* block, size_t block_bytes, int slices, int pair,
                         Unpacked& u) {
    constexpr int kGroups = 32 / Type::kGroup;
    constexpr int kSlices = Type::kCols / 32;
    for (int first = 0; first < slices; first += kSlices, block += block_bytes) {
        for (int lane = 0; lane < kTile16Rows; lane += W) {
            const typename Type::Header h = Type::header(block, lane);
            for (int b = 0; b < kSlices; b++) {
                Bytes w[8];
                unpack_slice<Type>(h, block, b, lane, w);
                for (int k = 0; k < 8; k++) {
                    std::memcpy(u.w[pair][8 * (first + b) + k] + 4 * lane, &w[k], sizeof w[k]);
                }
                for (int g = kGroups * b; g < kGroups * (b + 1); g++) {
                    Vec scale, min;
                    Type::scales(h, block, g, lane, scale, min);
                    store(u.scale[pair][kGroups * first + g] + lane, scale);
                    store(u.min[pair][kGroups * first + g] + lane, min);
                }
            }
        }
    }
}

// P tiles times T tokens over `slices` unpacked slices from column 32 * `first` on; adds to
// sums[t][16 * p + row].
template <int P, int T, int Group, bool Wide>
inline void multiply_depth(const Unpacked& u, int slices, int64_t first, const ActivationRow* x,
                           float (*sums)[kPair * kTile16Rows]) {
    constexpr int kGroups = 32 / Group, kSteps = Group / 4;
    for (int lane = 0; lane < kTile16Rows; lane += W) {
        Vec out[P][T];
        for (int p = 0; p < P; p++) {
            for (int t = 0; t < T; t++) out[p][t] = load(sums[t] + kTile16Rows * p + lane);
        }
        for (int b = 0; b < slices; b++) {
            const int64_t slice = first + b;
            for (int g = 0; g < kGroups; g++) {
                IntVec acc[P][T] = {};
                for (int k = 0; k < kSteps; k++) {
                    Bytes w[P];
                    const int step = g * kSteps + k;
                    for (int p = 0; p < P; p++) w[p] = load_bytes(u.w[p][8 * b + step] + 4 * lane);
                    for (int t = 0; t < T; t++) {
                        const int8_t* q = x[t].q + 32 * slice + 4 * step;
                        for (int p = 0; p < P; p++) acc[p][t] = dot4<Wide>(acc[p][t], w[p], q);
                    }
                }
                for (int p = 0; p < P; p++) {
                    const Vec scale = load(u.scale[p][kGroups * b + g] + lane);
                    const Vec min = load(u.min[p][kGroups * b + g] + lane);
                    for (int t = 0; t < T; t++) {
                        const float sum =
                            Group == 32 ? x[t].sum32[slice] : x[t].sum16[2 * slice + g];
                        out[p][t] += to_floats(acc[p][t]) * (scale * x[t].scale[slice]);
                        out[p][t] -= min * sum;
                    }
                }
            }
        }
        for (int p = 0; p < P; p++) {
            for (int t = 0; t < T; t++) store(sums[t] + kTile16Rows * p + lane, out[p][t]);
        }
    }
}

template <int P, int Group, bool Wide>
void multiply_tokens(const Unpacked& u, int slices, int64_t first, const ActivationRow* x,
                     int tokens, float (*sums)[kPair * kTile16Rows]) {
    constexpr int T = W == 16 ? 6 : 2;  // what 32 registers hold, or 16
    int t = 0;
    for (; t + T <= tokens; t += T) {
        multiply_depth<P, T, Group, Wide>(u, slices, first, x + t, sums + t);
    }
    if constexpr (T == 6) {
        if (tokens - t >= 4) {
            multiply_depth<P, 4, Group, Wide>(u, slices, first, x + t, sums + t);
            t += 4;
        }
        if (tokens - t >= 2) {
            multiply_depth<P, 2, Group, Wide>(u, slices, first, x + t, sums + t);
            t += 2;
        }
    }
    if (tokens > t) multiply_depth<P, 1, Group, Wide>(u, slices, first, x + t, sums + t);
}

inline void fetch(const uint8_t* p, size_t bytes) {
    for (size_t b = 0; b < bytes; b += 64) __builtin_prefetch(p + b);
}

// `next`: the tiles that will be read after these, or null.
template <class Type>
void many_tokens(const uint8_t* w, size_t tile_bytes, size_t block_bytes, int tiles, int64_t cols,
                 const uint8_t* next, const ActivationRow* x, int tokens,
                 float (*sums)[kPair * kTile16Rows]) {
    Unpacked u;
    for (int t = 0; t < tokens; t++) std::memset(sums[t], 0, sizeof sums[t]);
    const size_t depth_bytes = static_cast<size_t>(kDepth / Type::kCols) * block_bytes;
    for (int64_t c = 0; c < cols; c += kDepth, w += depth_bytes) {
        const int slices = static_cast<int>(std::min<int64_t>(kDepth, cols - c) / 32);
        for (int p = 0; p < tiles; p++) {
            unpack_depth<Type>(w + static_cast<size_t>(p) * tile_bytes, block_bytes, slices, p, u);
        }
        const uint8_t* ahead = c + kDepth < cols ? w + depth_bytes : next;
        for (int p = 0; ahead && p < tiles; p++) {
            fetch(ahead + static_cast<size_t>(p) * tile_bytes, depth_bytes);
        }
        if (tiles == 2) {
            multiply_tokens<2, Type::kGroup, Type::kWide>(u, slices, c / 32, x, tokens, sums);
        } else {
            multiply_tokens<1, Type::kGroup, Type::kWide>(u, slices, c / 32, x, tokens, sums);
        }
    }
}

}  // namespace
}  // namespace ktchat::KTCHAT_ISA
