// Vectors of float32 for one instruction set, in GCC's vector extensions: the same source serves
// AVX-512, AVX2 and any other machine. Included only by the isa_*.cpp files, each inside a
// namespace of its own (KTCHAT_ISA), so that no inline function is shared between instruction sets.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <utility>

#if defined(__AVX2__)
#include <immintrin.h>
#endif

namespace ktchat::KTCHAT_ISA {

#if defined(__AVX512F__)
constexpr int W = 16;
#elif defined(__AVX2__)
constexpr int W = 8;
#else
constexpr int W = 4;
#endif

typedef float Vec __attribute__((vector_size(W * 4)));
typedef int32_t IntVec __attribute__((vector_size(W * 4)));
typedef float VecUnaligned __attribute__((vector_size(W * 4), aligned(1), may_alias));

static inline Vec load(const void* p) { return *static_cast<const VecUnaligned*>(p); }
static inline void store(float* p, Vec v) { *reinterpret_cast<VecUnaligned*>(p) = v; }
static inline Vec splat(float x) { return x - Vec{}; }
static inline Vec max(Vec a, Vec b) { return a > b ? a : b; }

// The first `count` < W floats, zeros behind them; reads no further.
static inline Vec load_part(const void* p, int64_t count) {
    alignas(64) float lanes[W] = {};
    std::memcpy(lanes, p, static_cast<size_t>(count) * 4);
    return load(lanes);
}
static inline void store_part(float* p, Vec v, int64_t count) {
    std::memcpy(p, &v, static_cast<size_t>(count) * 4);
}

// ---- float16 and bfloat16 -----------------------------------------------------------------------

static inline float half_to_float(uint16_t h) {
    const uint32_t sign = static_cast<uint32_t>(h & 0x8000u) << 16;
    uint32_t bits = static_cast<uint32_t>(h & 0x7fffu) << 13;
    float value = 0;
    if ((h & 0x7c00u) == 0x7c00u) {
        bits += 0x70000000u;  // infinity and not-a-number keep an all-ones exponent
    } else {
        std::memcpy(&value, &bits, 4);
        value *= 0x1p112f;  // moves the exponent's bias from 15 to 127; exact for subnormals too
        std::memcpy(&bits, &value, 4);
    }
    bits |= sign;
    std::memcpy(&value, &bits, 4);
    return value;
}

// Round to nearest, ties to even, as the hardware does.
static inline uint16_t float_to_half(float value) {
    uint32_t bits;
    std::memcpy(&bits, &value, 4);
    const uint32_t sign = (bits >> 16) & 0x8000u;
    bits &= 0x7fffffffu;
    uint32_t half;
    if (bits > 0x7f800000u) {
        half = 0x7e00u;
    } else if (bits >= 0x477ff000u) {
        half = 0x7c00u;
    } else if (bits < 0x38800000u) {  // subnormal: let the float adder do the rounding
        float magnitude;
        std::memcpy(&magnitude, &bits, 4);
        magnitude += 0.5f;
        std::memcpy(&half, &magnitude, 4);
        half -= 0x3f000000u;
    } else {
        half = (bits - 0x38000000u + 0x0fffu + ((bits >> 13) & 1u)) >> 13;
    }
    return static_cast<uint16_t>(sign | half);
}

static inline Vec load_half(const void* p) {
#if defined(__AVX512F__)
    return (Vec)_mm512_cvtph_ps(_mm256_loadu_si256(static_cast<const __m256i*>(p)));
#elif defined(__F16C__)
    return (Vec)_mm256_cvtph_ps(_mm_loadu_si128(static_cast<const __m128i*>(p)));
#else
    uint16_t lanes[W];
    std::memcpy(lanes, p, sizeof lanes);
    Vec v;
    for (int i = 0; i < W; i++) v[i] = half_to_float(lanes[i]);
    return v;
#endif
}

static inline Vec load_bfloat(const void* p) {
    typedef uint16_t Narrow __attribute__((vector_size(W * 2), aligned(1), may_alias));
    typedef uint32_t Wide __attribute__((vector_size(W * 4)));
    return (Vec)(__builtin_convertvector(*static_cast<const Narrow*>(p), Wide) << 16);
}

// Where a row of weights or of the cache becomes float32, by element type.
struct F32 {
    using Element = float;
    static inline Vec at(const void* p) { return load(p); }
    static inline Vec part(const void* p, int64_t n) { return load_part(p, n); }
};
template <Vec (*Load)(const void*)>
struct Narrow {
    using Element = uint16_t;
    static inline Vec at(const void* p) { return Load(p); }
    static inline Vec part(const void* p, int64_t n) {
        uint16_t lanes[W] = {};
        std::memcpy(lanes, p, static_cast<size_t>(n) * 2);
        return Load(lanes);
    }
};
using F16 = Narrow<load_half>;
using BF16 = Narrow<load_bfloat>;

// ---- across lanes -------------------------------------------------------------------------------

// One step of a butterfly: lanes whose bit S is 0 hold sums of a, the others sums of b.
template <int S, int... I>
static inline Vec fold(Vec a, Vec b, std::integer_sequence<int, I...>) {
    const Vec even = __builtin_shufflevector(a, b, ((I & S) ? W + (I ^ S) : I)...);
    const Vec odd = __builtin_shufflevector(a, b, ((I & S) ? W + I : (I ^ S))...);
    return even + odd;
}

// Lane i of the result is the sum over the lanes of v[i]. Destroys v.
template <int S = 1>
static inline Vec sums(Vec* v) {
    for (int i = 0; i < W / (2 * S); i++) {
        v[i] = fold<S>(v[2 * i], v[2 * i + 1], std::make_integer_sequence<int, W>{});
    }
    if constexpr (2 * S < W) {
        return sums<2 * S>(v);
    } else {
        return v[0];
    }
}

template <int S = W / 2, int... I>
static inline Vec butterfly_max(Vec v, std::integer_sequence<int, I...> lanes) {
    v = max(v, __builtin_shufflevector(v, v, (I ^ S)...));
    if constexpr (S > 1) {
        return butterfly_max<S / 2>(v, lanes);
    } else {
        return v;
    }
}

template <int S = W / 2, int... I>
static inline Vec butterfly_sum(Vec v, std::integer_sequence<int, I...> lanes) {
    v += __builtin_shufflevector(v, v, (I ^ S)...);
    if constexpr (S > 1) {
        return butterfly_sum<S / 2>(v, lanes);
    } else {
        return v;
    }
}

static inline float sum(Vec v) { return butterfly_sum(v, std::make_integer_sequence<int, W>{})[0]; }
static inline float maximum(Vec v) {
    return butterfly_max(v, std::make_integer_sequence<int, W>{})[0];
}

// ---- exp ----------------------------------------------------------------------------------------

// e^x within 2 ulp: x = n ln 2 + r, a polynomial on |r| <= ln 2 / 2 (Cephes expf), times 2^n in two
// factors so that subnormal results come out right. Not-a-number stays.
static inline Vec exp(Vec x) {
    x = x > 89.0f ? splat(89.0f) : x;
    x = x < -104.0f ? splat(-104.0f) : x;
    const float magic = 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer
    const Vec n = (x * 1.44269504088896341f + magic) - magic;
    Vec r = x - n * 0.693359375f;
    r = r - n * -2.12194440e-4f;
    Vec p = splat(1.9875691500e-4f);
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * (r * r) + (r + 1.0f);
    const IntVec whole = __builtin_convertvector(n, IntVec);
    const IntVec half = whole >> 1;
    return p * (Vec)((half + 127) << 23) * (Vec)((whole - half + 127) << 23);
}

static inline float exp1(float x) { return exp(splat(x))[0]; }

}  // namespace ktchat::KTCHAT_ISA
