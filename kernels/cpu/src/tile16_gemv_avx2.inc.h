// Products of repacked tiles with up to 4 tokens (GEMV) for registers of 32 bytes: a block's slices
// of 32 columns are multiplied as they are unpacked, its first 8 rows and then the others, so that
// memory is read all the time.
//
// Whole scales are multiplied as whole numbers: by the instruction that makes 32 bits of sums of
// 16, and a block's own scale follows once for all of its slices. Offsets are taken off inside the
// sums: modulo 2^16 it does not matter when, and more steps are exact.

#include <type_traits>

#include "tile16.h"

namespace ktchat::KTCHAT_ISA {
namespace {

constexpr size_t kAhead = 8 << 10;  // bytes between the arithmetic and what is fetched for it

// Whether a type says what is taken off its codes (kOffset); else `scales` gives floats.
template <class Type, class = void>
constexpr bool kHasOffset = false;
template <class Type>
constexpr bool kHasOffset<Type, std::void_t<decltype(Type::kOffset)>> = true;

// Whether its scales are a block's times whole numbers, its minima too.
template <class Type, class = void>
constexpr bool kScaled = false;
template <class Type>
constexpr bool kScaled<Type, std::void_t<decltype(&Type::whole)>> = true;
template <class Type, class = void>
constexpr bool kWithMinimum = false;
template <class Type>
constexpr bool kWithMinimum<Type, std::void_t<decltype(&Type::minimum)>> = true;

inline __m256i same_four(const void* p) {
    int32_t four;
    std::memcpy(&four, p, 4);
    return _mm256_set1_epi32(four);
}

// The lower half of each lane in both of its halves.
inline __m256i twice_in_16_bits(IntVec v) {
    const __m128i order = _mm_setr_epi8(0, 1, 0, 1, 4, 5, 4, 5, 8, 9, 8, 9, 12, 13, 12, 13);
    return _mm256_shuffle_epi8((__m256i)v, _mm256_broadcastsi128_si256(order));
}

// Steps whose codes less their offset have an exact sum in 16 bits.
template <class Type>
constexpr int offset_steps(int steps) {
    constexpr int kAbove = Type::kMost - Type::kOffset;
    constexpr int kFar = kAbove > Type::kOffset ? kAbove : Type::kOffset;
    return steps > 1 && 2 * steps * 127 * kFar > 32767 ? offset_steps<Type>(steps / 2) : steps;
}

// Products of a group of columns, less those of the offset, times the whole scale.
template <class Type>
inline IntVec group_sum(const Bytes* w, const int8_t* x, const int16_t* pairs, IntVec whole) {
    constexpr int kSteps = Type::kGroup / 4;
    typedef int16_t Shorts __attribute__((vector_size(32)));
    if constexpr (kDot4) {
        const __m256i less = _mm256_set1_epi16(-Type::kOffset);
        IntVec sum[2] = {};
        for (int k = 0; Type::kOffset != 0 && k < kSteps; k += 4) {
            sum[k / 4] = (IntVec)_mm256_madd_epi16(same_four(pairs + k / 2), less);
        }
        for (int k = 0; k < kSteps; k++) {
            sum[k % 2] = dot4<Type::kWide>(sum[k % 2], w[k], x + 4 * k);
        }
        sum[0] += sum[1];
        return kScaled<Type> ? sum[0] * whole : sum[0];
    } else {
        constexpr int kRun = Type::kWide ? 1 : offset_steps<Type>(kSteps);
        static_assert(Type::kWide || Type::kOffset == 0 || kRun >= 4, "an offset is of 16 columns");
        const __m256i factor = kScaled<Type> ? twice_in_16_bits(whole) : _mm256_set1_epi16(1);
        IntVec sum = {};
#pragma GCC unroll 8
        for (int run = 0; run < kSteps; run += kRun) {
            __m256i part = {};
            for (int k = run; !Type::kWide && Type::kOffset != 0 && k < run + kRun; k += 4) {
                part = (__m256i)((Shorts)part - (Shorts)same_four(pairs + k / 2) * Type::kOffset);
            }
#pragma GCC unroll 8
            for (int k = run; k < run + kRun; k++) {
                part = _mm256_add_epi16(part, code_products<Type>(w[k], same_four(x + 4 * k)));
            }
            sum += (IntVec)_mm256_madd_epi16(part, factor);
        }
        return sum;
    }
}

// What a block adds to 8 rows of T tokens.
template <int T>
struct BlockSums {
    Vec scaled[T] = {};   // to be multiplied by the block's scale
    Vec minimum[T] = {};  // and by the scale of its minima
};

template <class Type, int T>
[[gnu::always_inline]] inline void add_slice(const typename Type::Header& h, const uint8_t* block,
                                             int64_t b, int lane, const ActivationRow* x,
                                             int64_t slice, BlockSums<T>& sums) {
    constexpr int kGroups = 32 / Type::kGroup, kSteps = Type::kGroup / 4;
    Bytes w[8];
    unpack_slice<Type>(h, block, b, lane, w);
    if constexpr (kHasOffset<Type>) {
        IntVec whole[kGroups] = {};
        for (int g = 0; g < kGroups; g++) {
            if constexpr (kScaled<Type>) whole[g] = Type::whole(block, kGroups * b + g, lane);
        }
        for (int t = 0; t < T; t++) {
            IntVec sum = {};
            for (int g = 0; g < kGroups; g++) {
                const int64_t first = 32 * slice + Type::kGroup * g;
                sum += group_sum<Type>(w + kSteps * g, x[t].q + first, x[t].pairs + first / 8,
                                       whole[g]);
            }
            sums.scaled[t] += to_floats(sum) * x[t].scale[slice];
        }
        if constexpr (kWithMinimum<Type>) {
            for (int g = 0; g < kGroups; g++) {
                const Vec minimum = to_floats(Type::minimum(block, kGroups * b + g, lane));
                for (int t = 0; t < T; t++) {
                    sums.minimum[t] += minimum * (kGroups == 1 ? x[t].sum32[slice]
                                                               : x[t].sum16[2 * slice + g]);
                }
            }
        }
    } else {
        for (int g = 0; g < kGroups; g++) {
            Vec scale, min;
            Type::scales(h, block, kGroups * b + g, lane, scale, min);
            for (int t = 0; t < T; t++) {
                const int8_t* q = x[t].q + 32 * slice + Type::kGroup * g;
                const IntVec sum = dot_steps<Type, kSteps>(w + kSteps * g, q);
                sums.scaled[t] += to_floats(sum) * (scale * x[t].scale[slice]);
                if (kHasMinima<Type>) {
                    sums.scaled[t] -= min * (kGroups == 1 ? x[t].sum32[slice]
                                                          : x[t].sum16[2 * slice + g]);
                }
            }
        }
    }
}

// T tokens times 16 rows: sums[t][row].
template <class Type, int T>
inline void stream_tile(const uint8_t* tile, size_t block_bytes, int64_t cols,
                        const ActivationRow* x, float (*sums)[kTile16Rows]) {
    constexpr int kSlices = Type::kCols / 32, kHalves = kTile16Rows / W;
    Vec out[kHalves][T] = {};
    const uint8_t* block = tile;
    for (int64_t c = 0; c < cols; c += Type::kCols, block += block_bytes) {
        size_t fetched = 0;
#pragma GCC unroll 2
        for (int half = 0; half < kHalves; half++) {
            const typename Type::Header h = Type::header(block, W * half);
            BlockSums<T> added;
            // 64 bits: a narrower number that is put by and read as a wider one waits for memory.
            for (int64_t b = 0; b < kSlices; b++) {
                // A few lines between the arithmetic: a core has few outstanding misses.
                const auto done = static_cast<size_t>(kSlices * half + b + 1);
                const size_t end = block_bytes * done / (kHalves * kSlices);
                for (; fetched < end; fetched += 64) __builtin_prefetch(block + kAhead + fetched);
                add_slice<Type, T>(h, block, b, W * half, x, c / 32 + b, added);
            }
            for (int t = 0; t < T; t++) {
                if constexpr (kHasOffset<Type>) {
                    out[half][t] += added.scaled[t] * h.d;
                } else {
                    out[half][t] += added.scaled[t];
                }
                if constexpr (kWithMinimum<Type>) out[half][t] -= added.minimum[t] * h.dmin;
            }
        }
    }
    for (int half = 0; half < kHalves; half++) {
        for (int t = 0; t < T; t++) store(sums[t] + W * half, out[half][t]);
    }
}

}  // namespace
}  // namespace ktchat::KTCHAT_ISA
