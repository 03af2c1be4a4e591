// The types that have repacked tiles (tile16.h): how a slice of 32 columns becomes 8 vectors of
// unsigned bytes, and what its scales and minima are.
//
// AVX2 takes a tile as two halves of 8 rows, a plain machine as four quarters: `lane` is the first
// row.

#include "tile16.h"

namespace ktchat::KTCHAT_ISA {
namespace {

// table[i] for every byte i < 16.
inline Bytes look_up(const uint8_t* table, Bytes indices) {
#if defined(__AVX512F__)
    const __m128i t = _mm_loadu_si128(reinterpret_cast<const __m128i*>(table));
    return (Bytes)_mm512_shuffle_epi8(_mm512_broadcast_i32x4(t), (__m512i)indices);
#elif defined(__AVX2__)
    const __m128i t = _mm_loadu_si128(reinterpret_cast<const __m128i*>(table));
    return (Bytes)_mm256_shuffle_epi8(_mm256_broadcastsi128_si256(t), (__m256i)indices);
#else
    Bytes out;
    for (int i = 0; i < W * 4; i++) out[i] = table[indices[i]];
    return out;
#endif
}

// ---- how bits become bytes ----------------------------------------------------------------------

inline void nibbles(const uint8_t* p, int lane, Bytes* w) {
#pragma GCC unroll 4
    for (int v = 0; v < 4; v++) {
        const Bytes packed = load_bytes(p + 64 * v + 4 * lane);
        w[v] = packed & 15;
        w[v + 4] = packed >> 4;
    }
}

// Shifted in 16 bits, as the instructions do: the bits that come over from the next byte are the
// caller's to mask.
typedef uint16_t Pairs __attribute__((vector_size(W * 4)));
inline Bytes left(Bytes v, int bits) { return (Bytes)((Pairs)v << bits); }
inline Bytes right(Bytes v, int bits) { return (Bytes)((Pairs)v >> bits); }

inline void pairs(const uint8_t* p, int lane, Bytes* w) {
    for (int v = 0; v < 2; v++) {
        const Bytes packed = load_bytes(p + 64 * v + 4 * lane);
#pragma GCC unroll 4
        for (int k = 0; k < 4; k++) w[v + 2 * k] = right(packed, 2 * k) & 3;
    }
}

inline void add_upper_pairs(const uint8_t* p, int lane, Bytes* w) {
    for (int v = 0; v < 2; v++) {
        const Bytes packed = load_bytes(p + 64 * v + 4 * lane);
        w[v] |= left(packed, 4) & 48;
        w[v + 2] |= left(packed, 2) & 48;
        w[v + 4] |= packed & 48;
        w[v + 6] |= right(packed, 2) & 48;
    }
}

template <int Bit>
inline void add_bits(const uint8_t* p, int lane, Bytes* w) {
    const Bytes packed = load_bytes(p + 4 * lane);
#pragma GCC unroll 8
    for (int k = 0; k < 8; k++) {
        const Bytes bit = k <= Bit ? left(packed, Bit - k) : right(packed, k - Bit);
        w[k] |= bit & static_cast<uint8_t>(1 << Bit);
    }
}

// The float32 of an MXFP4 exponent, halved because the table holds doubled values: 2^(e - 128).
inline Vec exponent_scale(const uint8_t* p) {
    const IntVec e = widen(p);
    const IntVec normal = (e - 1) << 23;
    const IntVec small = e == 0 ? IntVec{} + 0x00200000 : IntVec{} + 0x00400000;
    return (Vec)(e < 2 ? small : normal);
}

struct NonLinear {
    alignas(16) uint8_t of[16] = {1,   24,  45,  63,  79,  93,  106, 118,
                                  129, 141, 153, 166, 181, 197, 217, 241};  // + 128
    constexpr NonLinear() {
        for (uint8_t& value : of) value ^= kFlip;
    }
};
constexpr NonLinear kNonLinear;
alignas(16) constexpr uint8_t kFp4[16] = {12, 13, 14, 15, 16, 18, 20, 24,
                                          12, 11, 10, 9,  8,  6,  4,  0};  // + 12

// ---- the types ----------------------------------------------------------------------------------
// `Header` is what a block's slices share. `unpack` gives slice b; `scales` gives scale and minimum
// (what is subtracted for every unit of activation) of group g: 32 columns, or 16 where kGroup says
// so. Where that is all, values are d * whole * (code - kOffset), less dmin * minimum.

template <int Offset, bool Table>
struct Type32 {  // Q4_0, IQ4_NL
    static constexpr int kCols = 32, kGroup = 32, kMost = Table ? 241 : 15, kOffset = Offset;
    static constexpr bool kWide = Table;
    struct Header {
        Vec d;
    };
    static Header header(const uint8_t* block, int lane) { return {load_half(block + 2 * lane)}; }
    static void unpack(const uint8_t* block, int64_t, int lane, Bytes* w) {
        nibbles(block + 32, lane, w);
        if constexpr (Table) {
            for (int k = 0; k < 8; k++) w[k] = look_up(kNonLinear.of, w[k]) ^ kFlip;
        }
    }
    static void scales(const Header& h, const uint8_t*, int64_t, int, Vec& scale, Vec& min) {
        scale = h.d;
        min = h.d * static_cast<float>(Offset);
    }
};
using TypeQ4_0 = Type32<8, false>;
using TypeIQ4_NL = Type32<128, true>;

struct TypeQ5_0 : Type32<16, false> {
    static constexpr int kMost = 31;
    static void unpack(const uint8_t* block, int64_t, int lane, Bytes* w) {
        nibbles(block + 32, lane, w);
        add_bits<4>(block + 32 + 256, lane, w);
    }
};

struct TypeQ8_0 : Type32<128, false> {
    static constexpr int kMost = 255;
    static constexpr bool kWide = true;
    static void unpack(const uint8_t* block, int64_t, int lane, Bytes* w) {
        for (int k = 0; k < 8; k++) w[k] = load_bytes(block + 32 + 64 * k + 4 * lane) ^ kFlip;
    }
};

struct TypeQ4_1 {
    static constexpr int kCols = 32, kGroup = 32, kMost = 15;
    static constexpr bool kWide = false;
    struct Header {
        Vec d, m;
    };
    static Header header(const uint8_t* block, int lane) {
        return {load_half(block + 2 * lane), load_half(block + 32 + 2 * lane)};
    }
    static void unpack(const uint8_t* block, int64_t, int lane, Bytes* w) {
        nibbles(block + 64, lane, w);
    }
    static void scales(const Header& h, const uint8_t*, int64_t, int, Vec& scale, Vec& min) {
        scale = h.d;
        min = -h.m;
    }
};

struct TypeQ5_1 : TypeQ4_1 {
    static constexpr int kMost = 31;
    static void unpack(const uint8_t* block, int64_t, int lane, Bytes* w) {
        nibbles(block + 64, lane, w);
        add_bits<4>(block + 64 + 256, lane, w);
    }
};

struct TypeMXFP4 : Type32<12, false> {
    static constexpr int kMost = 24;
    static Header header(const uint8_t* block, int lane) { return {exponent_scale(block + lane)}; }
    static void unpack(const uint8_t* block, int64_t, int lane, Bytes* w) {
        nibbles(block + 16, lane, w);
        for (int k = 0; k < 8; k++) w[k] = look_up(kFp4, w[k]);
    }
};

// The scales of 16 columns are floats of 4 bits of exponent and 3 of mantissa, 127 meaning zero;
// halved because the table holds doubled values.
struct TypeNVFP4 {
    static constexpr int kCols = 64, kGroup = 16, kMost = 24;
    static constexpr bool kWide = false;
    struct Header {};
    static Header header(const uint8_t*, int) { return {}; }
    static void unpack(const uint8_t* block, int64_t b, int lane, Bytes* w) {
        nibbles(block + 64 + 256 * b, lane, w);
        for (int k = 0; k < 8; k++) w[k] = look_up(kFp4, w[k]);
    }
    static void scales(const Header&, const uint8_t* block, int64_t g, int lane, Vec& scale,
                       Vec& min) {
        const IntVec bits = widen(block + 16 * g + lane);
        const IntVec magnitude = bits & 127;
        // Moved to a float32's place and multiplied by 2^(127 - 7 - 1): exact for subnormals too.
        const Vec value = (Vec)(magnitude << 20) * 0x1p119f;
        scale = bits == 127 ? Vec{} : value;
        min = scale * 12.0f;
    }
};

// The scales that a block of 256 columns has one of, for each row.
struct OneScale {
    static constexpr int kCols = 256;
    struct Header {
        Vec d;
    };
    static Header header(const uint8_t* block, int lane) { return {load_half(block + 2 * lane)}; }
};

struct ScaleAndMinimum {
    static constexpr int kCols = 256;
    struct Header {
        Vec d, dmin;
    };
    static Header header(const uint8_t* block, int lane) {
        return {load_half(block + 2 * lane), load_half(block + 32 + 2 * lane)};
    }
};

// Scale g of `Count` 6-bit ones: nibbles at `Low`, two to a byte; upper pairs at `High`, four to a
// byte.
template <int Low, int High, int Count>
inline IntVec split_scale(const uint8_t* block, int64_t g, int lane) {
    const IntVec low = widen(block + Low + 16 * (g % (Count / 2)) + lane);
    const IntVec high = widen(block + High + 16 * (g % (Count / 4)) + lane);
    const IntVec nibble = g < Count / 2 ? low & 15 : low >> 4;
    return nibble | ((high >> (2 * (g / (Count / 4)))) & 3) << 4;
}

struct TypeQ4_K : ScaleAndMinimum {
    static constexpr int kGroup = 32, kMost = 15, kOffset = 0;
    static constexpr bool kWide = false;
    static constexpr int kNumbers = 256;  // where they begin
    static void unpack(const uint8_t* block, int64_t b, int lane, Bytes* w) {
        nibbles(block + kNumbers + 256 * b, lane, w);
    }
    static IntVec whole(const uint8_t* block, int64_t g, int lane) {
        return widen(block + 64 + 16 * g + lane) & 63;
    }
    static IntVec minimum(const uint8_t* block, int64_t g, int lane) {
        const IntVec high = widen(block + 64 + 128 + 16 * (g % 4) + lane);
        const IntVec upper = g < 4 ? high & 15 : high >> 4;
        return widen(block + 64 + 16 * g + lane) >> 6 | upper << 2;
    }
    static void scales(const Header& h, const uint8_t* block, int64_t g, int lane, Vec& scale,
                       Vec& min) {
        scale = h.d * to_floats(whole(block, g, lane));
        min = h.dmin * to_floats(minimum(block, g, lane));
    }
};

struct TypeQ5_K : TypeQ4_K {
    static constexpr int kMost = 31;
    static void unpack(const uint8_t* block, int64_t b, int lane, Bytes* w) {
        nibbles(block + kNumbers + 256 * b, lane, w);
        add_bits<4>(block + kNumbers + 2048 + 64 * b, lane, w);
    }
};

struct TypeIQ4_XS : OneScale {
    static constexpr int kGroup = 32, kMost = 241, kOffset = 128;
    static constexpr bool kWide = true;
    static void unpack(const uint8_t* block, int64_t b, int lane, Bytes* w) {
        nibbles(block + 128 + 256 * b, lane, w);
        for (int k = 0; k < 8; k++) w[k] = look_up(kNonLinear.of, w[k]) ^ kFlip;
    }
    static IntVec whole(const uint8_t* block, int64_t g, int lane) {
        return split_scale<32, 96, 8>(block, g, lane) - 32;
    }
    static void scales(const Header& h, const uint8_t* block, int64_t g, int lane, Vec& scale,
                       Vec& min) {
        scale = h.d * to_floats(whole(block, g, lane));
        min = scale * 128.0f;
    }
};

struct TypeQ6_K : OneScale {
    static constexpr int kGroup = 16, kMost = 63, kOffset = 32;
    static constexpr bool kWide = false;
    static void unpack(const uint8_t* block, int64_t b, int lane, Bytes* w) {
        nibbles(block + 288 + 256 * b, lane, w);
        add_upper_pairs(block + 288 + 2048 + 128 * b, lane, w);
    }
    static IntVec whole(const uint8_t* block, int64_t g, int lane) {
        return widen_signed(block + 32 + 16 * g + lane);
    }
    static void scales(const Header& h, const uint8_t* block, int64_t g, int lane, Vec& scale,
                       Vec& min) {
        scale = h.d * to_floats(whole(block, g, lane));
        min = scale * 32.0f;
    }
};

struct TypeQ3_K : OneScale {
    static constexpr int kGroup = 16, kMost = 7, kOffset = 4;
    static constexpr bool kWide = false;
    static void unpack(const uint8_t* block, int64_t b, int lane, Bytes* w) {
        pairs(block + 224 + 128 * b, lane, w);
        add_bits<2>(block + 224 + 1024 + 64 * b, lane, w);
    }
    static IntVec whole(const uint8_t* block, int64_t g, int lane) {
        return split_scale<32, 160, 16>(block, g, lane) - 32;
    }
    static void scales(const Header& h, const uint8_t* block, int64_t g, int lane, Vec& scale,
                       Vec& min) {
        scale = h.d * to_floats(whole(block, g, lane));
        min = scale * 4.0f;
    }
};

struct TypeQ2_K : ScaleAndMinimum {
    static constexpr int kGroup = 16, kMost = 3, kOffset = 0;
    static constexpr bool kWide = false;
    static void unpack(const uint8_t* block, int64_t b, int lane, Bytes* w) {
        pairs(block + 320 + 128 * b, lane, w);
    }
    static IntVec whole(const uint8_t* block, int64_t g, int lane) {
        return widen(block + 64 + 16 * g + lane) & 15;
    }
    static IntVec minimum(const uint8_t* block, int64_t g, int lane) {
        return widen(block + 64 + 16 * g + lane) >> 4;
    }
    static void scales(const Header& h, const uint8_t* block, int64_t g, int lane, Vec& scale,
                       Vec& min) {
        scale = h.d * to_floats(whole(block, g, lane));
        min = h.dmin * to_floats(minimum(block, g, lane));
    }
};

}  // namespace
}  // namespace ktchat::KTCHAT_ISA
