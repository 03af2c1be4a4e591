// Products of repacked tiles with many tokens (GEMM) for 16 registers of 32 bytes: 8 sums at once,
// which leaves room for two vectors of codes, a token's and a product.
//
// AVX2 multiplies bytes into sums of 16 bits. As many of them as are exact for a type's codes are
// added before they become 32 bits. Codes of 8 bits leave no room for a second one: less their
// offset they are multiplied as 16 bits. Where a scale counts for 16 columns only, its whole number
// is multiplied with the sums of 16 bits, so that both halves of a slice are one sum.

#include <algorithm>
#include <type_traits>

#include "tile16.h"

namespace ktchat::KTCHAT_ISA {
namespace {

constexpr int kDepth = 256;  // columns unpacked at once
constexpr int kPair = 2;     // tiles unpacked at once
constexpr int kPairRows = kPair * kTile16Rows;
constexpr int kManyTokens = 64;
constexpr int kVectors = 2;  // of 8 rows, and
constexpr int kSums = 4;     // tokens that are multiplied at once

typedef int16_t Shorts __attribute__((vector_size(W * 4)));

template <class Type>
constexpr bool kShorts = Type::kWide && !kDot4;

// Whether the scales of 16 columns are a block's times a whole number.
template <class Type, class = void>
constexpr bool kHasWhole = false;
template <class Type>
constexpr bool kHasWhole<Type, std::void_t<decltype(&Type::whole)>> = Type::kGroup == 16;

// A step is what one instruction multiplies: 4 columns of bytes, or 2 of 16 bits.
template <class Type>
struct Steps {
    static constexpr int kSlice = kShorts<Type> ? 16 : 8;
    static constexpr int kGroup = kSlice * Type::kGroup / 32;
    // Steps that are one sum before it is scaled or becomes 32 bits.
    static constexpr int kRun = kShorts<Type> || kDot4 ? kGroup : exact_steps<Type>(kGroup);
    static constexpr bool kWhole = kHasWhole<Type>;
    // Sums of a slice that are scaled on their own.
    static constexpr int kParts = Type::kGroup == 16 && !kWhole ? 2 : 1;
};

struct Unpacked {
    alignas(64) uint8_t w[kDepth / 2][4 * kPairRows];
    alignas(64) float scale[kDepth / 16][kPairRows];
    alignas(64) float min[kDepth / 16][kPairRows];
    // Whole scales; beside sums of 16 bits twice in each lane, as 16 bits.
    alignas(64) IntVec whole[kDepth / 16][kPairRows / W];
};

// Of every 4 bytes the first and the third, or the second and the fourth.
inline Shorts even_bytes(Shorts v) { return v << 8 >> 8; }
inline Shorts odd_bytes(Shorts v) { return v >> 8; }

template <class Type>
inline void unpack_codes(const Bytes* w, int row, uint8_t (*to)[4 * kPairRows]) {
#pragma GCC unroll 8
    for (int k = 0; k < 8; k++) {
        if constexpr (kShorts<Type>) {
            const Shorts codes = (Shorts)(w[k] ^ 128);
            const Shorts even = even_bytes(codes), odd = odd_bytes(codes);
            const int step = k + k / 4 * 4;  // the even ones of 16 columns, then their odd ones
            std::memcpy(to[step] + 4 * row, &even, sizeof even);
            std::memcpy(to[step + 4] + 4 * row, &odd, sizeof odd);
        } else {
            std::memcpy(to[k] + 4 * row, &w[k], sizeof w[k]);
        }
    }
}

// One block of 8 rows, `row` being the first of them; its first slice becomes slice `to`.
template <class Type>
inline void unpack_block(const uint8_t* block, int lane, int slices, int row, int to, Unpacked& u) {
    constexpr int kGroups = 32 / Type::kGroup;
    const typename Type::Header h = Type::header(block, lane);
    for (int b = 0; b < slices; b++) {
        Bytes w[8];
        unpack_slice<Type>(h, block, b, lane, w);
        unpack_codes<Type>(w, row, u.w + Steps<Type>::kSlice * (to + b));
        for (int g = kGroups * b; g < kGroups * (b + 1); g++) {
            Vec scale, min;
            Type::scales(h, block, g, lane, scale, min);
            store(u.min[kGroups * to + g] + row, min);
            if constexpr (Steps<Type>::kWhole) {
                const IntVec whole = Type::whole(block, g, lane);
                u.whole[kGroups * to + g][row / W] =
                    kDot4 || kShorts<Type> ? whole : (whole & 0xffff) | whole << 16;
                scale = h.d;
            }
            const int part = Steps<Type>::kParts == 2 ? kGroups * to + g : to + b;
            store(u.scale[part] + row, scale);
        }
    }
}

template <class Type>
inline void unpack_depth(const uint8_t* block, size_t block_bytes, int slices, int row,
                         Unpacked& u) {
    constexpr int kSlices = Type::kCols / 32;
    for (int b = 0; b < slices; b += kSlices, block += block_bytes) {
        for (int lane = 0; lane < kTile16Rows; lane += W) {
            unpack_block<Type>(block, lane, kSlices, row + lane, b, u);
        }
    }
}

// Keeps a sum in its register, and what adds to it in its place: GCC 12 would do all products first
// and put them by.
template <class T>
inline void pin(T& sum) {
    asm volatile("" : "+x"(sum));
}

inline __m256i four_bytes(const int8_t* p) {
    int32_t four;
    std::memcpy(&four, p, 4);
    return _mm256_set1_epi32(four);
}

// sum += 4 products of bytes in each lane; its lanes have 16 bits, or 32 with kDot4.
inline __m256i add_products(__m256i sum, __m256i codes, __m256i x) {
#if defined(__AVXVNNI__) || defined(KTCHAT_PROVE_AVXVNNI)
    return dpbusd(sum, codes, x);
#else
    return _mm256_add_epi16(sum, _mm256_maddubs_epi16(codes, x));
#endif
}

// A run's sum as 32 bits, times the whole scale.
template <class Type>
inline IntVec run_sum(__m256i part, IntVec whole) {
    constexpr bool kLong = kShorts<Type> || kDot4;  // it is in 32 bits already
    if constexpr (kLong && !Steps<Type>::kWhole) return (IntVec)part;
    if constexpr (kLong) return (IntVec)part * whole;
    const __m256i factor = Steps<Type>::kWhole ? (__m256i)whole : _mm256_set1_epi16(1);
    return (IntVec)_mm256_madd_epi16(part, factor);
}

// acc[v][t]: products of a part of a slice, of V vectors of rows and T tokens.
template <class Type, int V, int T>
inline void multiply_part(const Unpacked& u, int slice, int part, int row, const int8_t* const* q,
                          IntVec (*acc)[T]) {
    constexpr int kSlice = Steps<Type>::kSlice, kRun = Steps<Type>::kRun;
    constexpr int kSteps = kSlice / Steps<Type>::kParts;
    const uint8_t* w = u.w[kSlice * slice] + 4 * row;
    const int first = part * kSteps;
    for (int run = first; run < first + kSteps; run += kRun) {
        __m256i part[V][T] = {};
#pragma GCC unroll 16
        for (int k = run; k < run + kRun; k++) {
            __m256i codes[V];
            for (int v = 0; v < V; v++) {
                codes[v] = (__m256i)load_bytes(w + 4 * (kPairRows * k + W * v));
            }
#pragma GCC unroll 8
            for (int t = 0; t < T; t++) {
                const __m256i x = four_bytes(q[t] + 4 * k);
#pragma GCC unroll 4
                for (int v = 0; v < V; v++) {
                    if constexpr (kShorts<Type>) {
                        part[v][t] = _mm256_add_epi32(part[v][t], _mm256_madd_epi16(codes[v], x));
                    } else {
                        part[v][t] = add_products(part[v][t], codes[v], x);
                    }
                    pin(part[v][t]);
                }
            }
        }
#pragma GCC unroll 4
        for (int v = 0; v < V; v++) {
            const IntVec whole = u.whole[2 * slice + run / Steps<Type>::kGroup][row / W + v];
#pragma GCC unroll 8
            for (int t = 0; t < T; t++) {
                const IntVec sum = run_sum<Type>(part[v][t], whole);
                acc[v][t] = run == first ? sum : acc[v][t] + sum;
            }
        }
    }
}

// What T tokens bring along, in the order of use.
template <int T>
struct Tokens {
    const int8_t* q[T];
    float scale[kDepth / 32][T];
    float sum[kDepth / 16][T];
    alignas(32) Shorts wide[T][kDepth / 16];
};

template <class Type, int T>
inline void gather(const ActivationRow* x, int slices, int64_t first, Tokens<T>& tokens) {
    constexpr int kGroups = 32 / Type::kGroup;
    for (int t = 0; t < T; t++) {
        tokens.q[t] = x[t].q + 32 * first;
        const float* sums = kGroups == 1 ? x[t].sum32 : x[t].sum16;
        for (int b = 0; b < slices; b++) {
            tokens.scale[b][t] = x[t].scale[first + b];
            for (int g = kGroups * b; kHasMinima<Type> && g < kGroups * (b + 1); g++) {
                tokens.sum[g][t] = sums[kGroups * first + g];
            }
        }
        if constexpr (kShorts<Type>) {
            const auto* bytes = reinterpret_cast<const uint8_t*>(tokens.q[t]);
            for (int b = 0; b < slices; b++) {
                const Shorts numbers = (Shorts)load_bytes(bytes + 32 * b);
                const auto even = (__m256i)even_bytes(numbers), odd = (__m256i)odd_bytes(numbers);
                tokens.wide[t][2 * b] = (Shorts)_mm256_permute2x128_si256(even, odd, 0x20);
                tokens.wide[t][2 * b + 1] = (Shorts)_mm256_permute2x128_si256(even, odd, 0x31);
            }
            tokens.q[t] = reinterpret_cast<const int8_t*>(tokens.wide[t]);
        }
    }
}

// sums[t][row ...] -= what the minima make of T tokens.
template <class Type, int V, int T>
inline void subtract_minima(const Unpacked& u, int slices, int row, const Tokens<T>& tokens,
                            float (*sums)[kPairRows]) {
    Vec out[V][T];
    for (int v = 0; v < V; v++) {
        for (int t = 0; t < T; t++) out[v][t] = load(sums[t] + row + W * v);
    }
    for (int g = 0; g < slices * 32 / Type::kGroup; g++) {
        Vec min[V];
        for (int v = 0; v < V; v++) min[v] = load(u.min[g] + row + W * v);
        for (int t = 0; t < T; t++) {
            for (int v = 0; v < V; v++) out[v][t] -= min[v] * tokens.sum[g][t];
        }
    }
    for (int v = 0; v < V; v++) {
        for (int t = 0; t < T; t++) store(sums[t] + row + W * v, out[v][t]);
    }
}

// V vectors of rows from `row` on times T tokens; adds to sums[t][row ...].
template <class Type, int V, int T>
inline void multiply_depth(const Unpacked& u, int slices, int row, const Tokens<T>& tokens,
                           float (*sums)[kPairRows]) {
    constexpr int kParts = Steps<Type>::kParts;
    const int8_t* q[T];
    for (int t = 0; t < T; t++) q[t] = tokens.q[t];
    if (kHasMinima<Type>) subtract_minima<Type, V, T>(u, slices, row, tokens, sums);
    for (int b = 0; b < slices; b++) {
        for (int part = 0; part < kParts; part++) {
            IntVec acc[V][T];
            multiply_part<Type, V, T>(u, b, part, row, q, acc);
#pragma GCC unroll 4
            for (int v = 0; v < V; v++) {
                const Vec scale = load(u.scale[kParts * b + part] + row + W * v);
#pragma GCC unroll 8
                for (int t = 0; t < T; t++) {
                    float* out = sums[t] + row + W * v;
                    store(out, load(out) + to_floats(acc[v][t]) * (scale * tokens.scale[b][t]));
                }
            }
        }
        for (int t = 0; t < T; t++) q[t] += 4 * Steps<Type>::kSlice;
    }
}

template <class Type, int T>
inline void multiply_some(const Unpacked& u, int slices, int64_t first, int rows,
                          const ActivationRow* x, float (*sums)[kPairRows]) {
    Tokens<T> tokens;
    gather<Type, T>(x, slices, first, tokens);
    for (int row = 0; row < rows; row += kVectors * W) {
        multiply_depth<Type, kVectors, T>(u, slices, row, tokens, sums);
    }
}

template <class Type>
void multiply_tokens(const Unpacked& u, int slices, int64_t first, int rows, const ActivationRow* x,
                     int tokens, float (*sums)[kPairRows]) {
    int t = 0;
    for (; t + kSums <= tokens; t += kSums) {
        multiply_some<Type, kSums>(u, slices, first, rows, x + t, sums + t);
    }
    for (; t + 2 <= tokens; t += 2) multiply_some<Type, 2>(u, slices, first, rows, x + t, sums + t);
    if (t < tokens) multiply_some<Type, 1>(u, slices, first, rows, x + t, sums + t);
}

inline void fetch(const uint8_t* p, size_t bytes) {
    for (size_t b = 0; b < bytes; b += 64) __builtin_prefetch(p + b);
}

// `next`: the tiles that will be read after these, or null.
template <class Type>
void many_tokens(const uint8_t* w, size_t tile_bytes, size_t block_bytes, int tiles, int64_t cols,
                 const uint8_t* next, const ActivationRow* x, int tokens,
                 float (*sums)[kPairRows]) {
    Unpacked u;
    for (int t = 0; t < tokens; t++) std::memset(sums[t], 0, sizeof sums[t]);
    const size_t depth_bytes = static_cast<size_t>(kDepth / Type::kCols) * block_bytes;
    for (int64_t c = 0; c < cols; c += kDepth, w += depth_bytes) {
        const int slices = static_cast<int>(std::min<int64_t>(kDepth, cols - c) / 32);
        for (int p = 0; p < tiles; p++) {
            unpack_depth<Type>(w + static_cast<size_t>(p) * tile_bytes, block_bytes, slices,
                               kTile16Rows * p, u);
        }
        const uint8_t* ahead = c + kDepth < cols ? w + depth_bytes : next;
        for (int p = 0; ahead && p < tiles; p++) {
            fetch(ahead + static_cast<size_t>(p) * tile_bytes, depth_bytes);
        }
        multiply_tokens<Type>(u, slices, c / 32, kTile16Rows * tiles, x, tokens, sums);
    }
}

}  // namespace
}  // namespace ktchat::KTCHAT_ISA
