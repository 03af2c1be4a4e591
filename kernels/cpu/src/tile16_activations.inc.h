// Activations made ready for repacked tiles (ActivationRow of tile16.h): int8 with a scale for
// every 32 columns, rounded to nearest.

#include "tile16.h"

namespace ktchat::KTCHAT_ISA {
namespace {

// Columns [first, first + count) of a row in the tile format: int8 with a scale for every 32
// columns, rounded to nearest.
void quantise_tile16_part(const float* x, void* y, int64_t cols, int64_t first, int64_t count) {
    auto* q = static_cast<int8_t*>(y);
    auto* scales = reinterpret_cast<float*>(q + cols);
    float* sum32 = scales + cols / 32;
    float* sum16 = sum32 + cols / 32;
    int16_t* pairs = reinterpret_cast<int16_t*>(sum16 + cols / 16) + first / 8;
    q += first;
    for (int64_t b = first / 32; b < (first + count) / 32; b++, x += 32, q += 32, pairs += 4) {
        Vec largest = {};
        for (int i = 0; i < 32; i += W) {
            const Vec v = load(x + i);
            largest = max(largest, max(v, -v));
        }
        const float scale = maximum(largest) / 127.0f;
        const float inverse = scale > 0 ? 1.0f / scale : 0.0f;
        for (int i = 0; i < 32; i += W) {
            constexpr float magic = 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer
            const IntVec n =
                __builtin_convertvector((load(x + i) * inverse + magic) - magic, IntVec);
            typedef int8_t Out __attribute__((vector_size(W), aligned(1), may_alias));
            *reinterpret_cast<Out*>(q + i) = __builtin_convertvector(n, Out);
        }
        for (int g = 0; g < 2; g++) {
            int8_t* own = q + 16 * g;
            put_in_order(own, own);
            int sum[2] = {};
            for (int i = 0; i < 16; i++) sum[i / 2 % 2] += own[i];
            pairs[2 * g] = static_cast<int16_t>(sum[0]);
            pairs[2 * g + 1] = static_cast<int16_t>(sum[1]);
            sum16[2 * b + g] = scale * static_cast<float>(sum[0] + sum[1]);
        }
        scales[b] = scale;
        sum32[b] = sum16[2 * b] + sum16[2 * b + 1];
    }
}

void quantise_tile16_row(const float* x, void* y, int64_t cols) {
    quantise_tile16_part(x, y, cols, 0, cols);
}

}  // namespace
}  // namespace ktchat::KTCHAT_ISA
