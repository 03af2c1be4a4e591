// The types whose weights are points of a grid (tile16_pack_lattice.inc.h has their layout): IQ1,
// IQ2 and IQ3. A point is looked up as a word of 16 bits, in registers where they have room for
// the table; signs are masks, one bit a weight.

#include "tile16.h"
#include "tile16_grids.h"

namespace ktchat::KTCHAT_ISA {
namespace {

typedef uint16_t Words __attribute__((vector_size(W * 4)));

// ---- looking up ---------------------------------------------------------------------------------

// Words of a table at W / 4 times 8 indices, which are `Step` apart.
#if defined(__AVX2__)
template <int Step, class Index>
[[gnu::always_inline]] inline __m128i eight_points(const uint16_t* table, const Index* at) {
    __m128i v = _mm_cvtsi32_si128(table[at[0]]);
    v = _mm_insert_epi16(v, table[at[Step]], 1);
    v = _mm_insert_epi16(v, table[at[2 * Step]], 2);
    v = _mm_insert_epi16(v, table[at[3 * Step]], 3);
    v = _mm_insert_epi16(v, table[at[4 * Step]], 4);
    v = _mm_insert_epi16(v, table[at[5 * Step]], 5);
    v = _mm_insert_epi16(v, table[at[6 * Step]], 6);
    return _mm_insert_epi16(v, table[at[7 * Step]], 7);
}

template <int Step, class Index>
[[gnu::always_inline]] inline Words points(const uint16_t* table, const Index* at) {
    const auto half = [&](int i) [[gnu::always_inline]] {
        return _mm256_set_m128i(eight_points<Step>(table, at + 8 * Step * (i + 1)),
                                eight_points<Step>(table, at + 8 * Step * i));
    };
#if defined(__AVX512F__)
    return (Words)_mm512_inserti64x4(_mm512_castsi256_si512(half(0)), half(2), 1);
#else
    return (Words)half(0);
#endif
}
#else
template <int Step, class Index>
inline Words points(const uint16_t* table, const Index* at) {
    Words all;
    for (int i = 0; i < 2 * W; i++) all[i] = table[at[Step * i]];
    return all;
}
#endif

#if defined(__AVX512F__)
// `value` in the words whose bit of a plane is set.
[[gnu::always_inline]] inline Words where(const uint8_t* plane, int, uint16_t value) {
    uint32_t bits;
    std::memcpy(&bits, plane, 4);
    return (Words)_mm512_maskz_set1_epi16(bits, static_cast<int16_t>(value));
}

// Of a table of 64 << Level words those that x and y index; bit i of an index above the sixth is in
// masks i. Both are looked up together since a table of more than a few registers passes by.
template <int Level>
[[gnu::always_inline]] inline void select(const uint16_t* table, __m512i& x, __m512i& y,
                                          const __mmask32* x_bits, const __mmask32* y_bits) {
    if constexpr (Level == 0) {
        __m512i low = _mm512_load_si512(table), high = _mm512_load_si512(table + 32);
        asm("" : "+v"(low), "+v"(high));  // GCC would load them once for x and once for y
        x = _mm512_permutex2var_epi16(low, x, high);
        y = _mm512_permutex2var_epi16(low, y, high);
    } else {
        __m512i upper_x = x, upper_y = y;
        select<Level - 1>(table, x, y, x_bits, y_bits);
        select<Level - 1>(table + (32 << Level), upper_x, upper_y, x_bits, y_bits);
        x = _mm512_mask_mov_epi16(x, x_bits[Level - 1], upper_x);
        y = _mm512_mask_mov_epi16(y, y_bits[Level - 1], upper_y);
    }
}

template <int Planes>
[[gnu::always_inline]] inline void look_up_in_registers(const uint16_t* table,
                                                        const uint8_t* indices,
                                                        const uint8_t* planes, Words& even,
                                                        Words& odd) {
    const __m512i both = _mm512_loadu_si512(indices);
    __mmask32 even_bits[Planes + 2], odd_bits[Planes + 2];
    for (int i = 0; i < 2; i++) {
        even_bits[i] = _mm512_test_epi16_mask(both, _mm512_set1_epi16(0x40 << i));
        odd_bits[i] =
            _mm512_test_epi16_mask(both, _mm512_set1_epi16(static_cast<int16_t>(0x4000 << i)));
    }
    for (int p = 0; p < Planes; p++) {
        uint32_t bits[2];
        std::memcpy(bits, planes + 8 * p, 8);
        even_bits[2 + p] = bits[0];
        odd_bits[2 + p] = bits[1];
    }
    __m512i x = both, y = _mm512_srli_epi16(both, 8);
    select<Planes + 2>(table, x, y, even_bits, odd_bits);
    even = (Words)x;
    odd = (Words)y;
}

// A bit for each byte of a vector.
typedef uint64_t Mask;

// total - w where a vector's bit is set.
template <int Total>
[[gnu::always_inline]] inline void turn(Bytes& w, Mask bits) {
    w = (Bytes)_mm512_mask_sub_epi8((__m512i)w, bits, _mm512_set1_epi8(Total), (__m512i)w);
}
#else
template <int... I>
constexpr Words powers_of_two(std::integer_sequence<int, I...>) {
    return Words{static_cast<uint16_t>(1 << I)...};
}

[[gnu::always_inline]] inline Words where(const uint8_t* plane, int lane, uint16_t value) {
    uint32_t bits;
    std::memcpy(&bits, plane, 4);
    constexpr Words own = powers_of_two(std::make_integer_sequence<int, 2 * W>{});
    const auto some = static_cast<uint16_t>(bits >> (2 * lane));
    return (Words)(((Words{} + some) & own) != 0) & value;
}

#if defined(__AVX2__)
typedef uint32_t Mask;
[[gnu::always_inline]] inline Bytes where(Mask bits) {
    const __m256i own = _mm256_set1_epi64x(static_cast<int64_t>(0x8040201008040201u));
    const __m256i spread = _mm256_setr_epi64x(0, 0x0101010101010101, 0x0202020202020202,
                                              0x0303030303030303);
    const __m256i all = _mm256_shuffle_epi8(_mm256_set1_epi32(static_cast<int>(bits)), spread);
    return (Bytes)_mm256_cmpeq_epi8(_mm256_and_si256(all, own), own);
}
#else
typedef uint16_t Mask;
inline Bytes where(Mask bits) {
    Bytes mask;
    for (int i = 0; i < W * 4; i++) mask[i] = bits >> i & 1 ? 255 : 0;
    return mask;
}
#endif

template <int Total>
[[gnu::always_inline]] inline void turn(Bytes& w, Mask bits) {
    const Bytes mask = where(bits);
    if constexpr ((Total & (Total + 1)) == 0) {
        w ^= mask & static_cast<uint8_t>(Total);
    } else {
        w = (w ^ mask) + (mask & static_cast<uint8_t>(Total + 1));
    }
}
#endif

// Tables of up to 512 words are looked up in AVX-512's registers, larger ones word by word: of the
// same use as registers for four or eight times the work.
#if defined(__AVX512F__)
constexpr int kMostPlanes = 1;
#else
constexpr int kMostPlanes = -1;
#endif

#if defined(__AVX512F__)
// GCC would bring words together in vectors, by shuffles that have one port of a core.
inline void copy_word(const uint16_t* from, uint16_t* to) {
    uint32_t word = *from;
    asm("" : "+r"(word));
    *to = static_cast<uint16_t>(word);
}
#endif

// Whole indices of a block, which are put together before they are used: what was just written as a
// vector is slow to be read word by word, and the other way round. With AVX-512 they become the
// points that they stand for.
template <class Slice>
struct Indices {
    static constexpr bool kThere = Slice::kPlanes > (kMostPlanes > 0 ? kMostPlanes : 0);
    alignas(64) uint16_t at[kThere ? 8 : 1][2 * Slice::kVectors][2 * W];

    [[gnu::always_inline]] void read([[maybe_unused]] const uint16_t* table, const uint8_t* slices,
                                     int lane) {
        if (!kThere) return;
        for (int b = 0; b < 8; b++, slices += Slice::kBytes) {
            const uint8_t* planes = slices + Slice::kPlanesAt;
            for (int v = 0; v < Slice::kVectors; v++) {
                const Words both = (Words)load_bytes(slices + 64 * v + 4 * lane);
                Words index[2] = {both & 255, both >> 8};
                for (int p = 0; p < Slice::kPlanes; p++, planes += 8) {
                    index[0] |= where(planes, lane, static_cast<uint16_t>(256 << p));
                    index[1] |= where(planes + 4, lane, static_cast<uint16_t>(256 << p));
                }
                std::memcpy(at[b][2 * v], index, sizeof index);
            }
        }
#if defined(__AVX512F__)
        uint16_t* word = at[0][0];
#pragma GCC unroll 16
        for (size_t i = 0; i < sizeof at / sizeof *word; i++) copy_word(table + word[i], word + i);
#endif
    }
};

// Points of vector v of a slice: those of its even bytes and those of the odd ones.
template <class Slice>
[[gnu::always_inline]] inline void look_up(const uint16_t* table, const Indices<Slice>& indices,
                                           const uint8_t* slice, int64_t b, int v, int lane,
                                           Words& even, Words& odd) {
    const uint8_t* bytes = slice + 64 * v;
#if defined(__AVX512F__)
    if constexpr (Slice::kPlanes <= kMostPlanes) {
        const uint8_t* planes = slice + Slice::kPlanesAt + 8 * Slice::kPlanes * v;
        look_up_in_registers<Slice::kPlanes>(table, bytes, planes, even, odd);
        return;
    }
#endif
    if constexpr (Indices<Slice>::kThere) {
#if defined(__AVX512F__)
        std::memcpy(&even, indices.at[b][2 * v], sizeof even);
        std::memcpy(&odd, indices.at[b][2 * v + 1], sizeof odd);
#else
        even = points<1>(table, indices.at[b][2 * v]);
        odd = points<1>(table, indices.at[b][2 * v + 1]);
#endif
    } else {
        even = points<2>(table, bytes + 4 * lane);
        odd = points<2>(table, bytes + 4 * lane + 1);
    }
}

// ---- signs --------------------------------------------------------------------------------------

// Applies the signs of a slice to its 8 vectors: w becomes Total - w where it is negative.
template <class Slice, int Total>
[[gnu::always_inline]] inline void apply_signs(const uint8_t* slice, int lane, Bytes* w) {
    const uint8_t* p = slice + Slice::kSignsAt + lane / 2;
    constexpr Mask kEven = static_cast<Mask>(0x5555555555555555u);
    Mask both;
    std::memcpy(&both, p + 48, sizeof both);
    for (int half = 0; half < 2; half++, w += 4) {
        Mask masks[4];
        for (int k = 0; k < 4; k++, p += 8) {
            if (Slice::kSigns == 7 && k == 3) break;
            std::memcpy(&masks[k], p, sizeof masks[k]);
        }
        if (Slice::kSigns == 7) {  // an even number in 8 columns
            const Mask last = static_cast<Mask>(both >> half & kEven);
            const Mask sums = masks[0] ^ masks[1] ^ masks[2] ^ last;
            masks[3] = static_cast<Mask>(last | ((sums ^ sums << 1) & ~kEven));
        }
        for (int k = 0; k < 4; k++) turn<Total>(w[k], masks[k]);
    }
}

// ---- the types ----------------------------------------------------------------------------------

// Scale g of `Count` scales of 4 bits.
template <int Count>
inline IntVec nibble_scale(const uint8_t* block, int64_t g, int lane) {
    const IntVec both = widen(block + 32 + 16 * (g % (Count / 2)) + lane);
    return g < Count / 2 ? both & 15 : both >> 4;
}

// `Factor`: what a block's scale is multiplied by, in eighths.
template <class S, int Count, int Factor, const uint16_t* Grid>
struct Lattice {
    using Slice = S;
    static constexpr int kCols = 256;
    static constexpr bool kWide = false;
    static constexpr int kSlicesAt = 32 + 8 * Count;
    struct Header {
        Vec d;
        Indices<S> indices;
    };
    [[gnu::always_inline]] static Header header(const uint8_t* block, int lane) {
        Header h;
        h.d = load_half(block + 2 * lane) * (0.125f * Factor);
        h.indices.read(Grid, block + kSlicesAt, lane);
        return h;
    }
    static const uint8_t* slice(const uint8_t* block, int64_t b) {
        return block + kSlicesAt + S::kBytes * b;
    }
};

// 8, 25 and 43 less and more than the offset of 43, by the codes in bits 0, 1 and in bits 2, 3.
alignas(16) constexpr uint8_t kLowThree[16] = {51, 68, 86, 0, 51, 68, 86, 0,
                                               51, 68, 86, 0, 51, 68, 86, 0};
alignas(16) constexpr uint8_t kHighThree[16] = {51, 51, 51, 51, 68, 68, 68, 68,
                                                86, 86, 86, 86, 0,  0,  0,  0};

// IQ2: magnitudes of 2 bits, 8 columns a point.
template <class S, int Count, const uint16_t* Grid>
struct LatticeIQ2 : Lattice<S, Count, 1, Grid> {
    using Base = Lattice<S, Count, 1, Grid>;
    using typename Base::Header;
    static constexpr int kGroup = 256 / Count, kMost = 86;
    [[gnu::always_inline]] static void magnitudes(Words found, Bytes* w) {
        const Bytes low = (Bytes)found & 15, high = right((Bytes)found, 4) & 15;
        w[0] = look_up(kLowThree, low);
        w[1] = look_up(kHighThree, low);
        w[2] = look_up(kLowThree, high);
        w[3] = look_up(kHighThree, high);
    }
    [[gnu::always_inline]] static void unpack(const Header& h, const uint8_t* block, int64_t b,
                                              int lane, Bytes* w) {
        const uint8_t* slice = Base::slice(block, b);
        Words even, odd;
        look_up<S>(Grid, h.indices, slice, b, 0, lane, even, odd);
        magnitudes(even, w);
        magnitudes(odd, w + 4);
        apply_signs<S, 86>(slice, lane, w);
    }
    static IntVec whole(const uint8_t* block, int64_t g, int lane) {
        return 2 * nibble_scale<Count>(block, g, lane) + 1;
    }
    static void scales(const Header& h, const uint8_t* block, int64_t g, int lane, Vec& scale,
                       Vec& min) {
        scale = h.d * to_floats(whole(block, g, lane));
        min = scale * 43.0f;
    }
};
using TypeIQ2_XXS = LatticeIQ2<SliceIQ2_XXS, 8, kGridIQ2_XXS>;
using TypeIQ2_XS = LatticeIQ2<SliceIQ2_XS, 16, kGridIQ2_XS>;
using TypeIQ2_S = LatticeIQ2<SliceIQ2_S, 16, kGridIQ2_S>;

// IQ3: codes of 4 bits, 4 columns a point.
template <class S, int Factor, const uint16_t* Grid>
struct LatticeIQ3 : Lattice<S, 8, Factor, Grid> {
    using Base = Lattice<S, 8, Factor, Grid>;
    using typename Base::Header;
    static constexpr int kGroup = 32;
    [[gnu::always_inline]] static void codes(const Header& h, const uint8_t* slice, int64_t b,
                                             int lane, Bytes* w) {
        for (int v = 0; v < 2; v++, w += 4) {
            Words even, odd;
            look_up<S>(Grid, h.indices, slice, b, v, lane, even, odd);
            w[0] = (Bytes)even & 15;
            w[1] = right((Bytes)even, 4) & 15;
            w[2] = (Bytes)odd & 15;
            w[3] = right((Bytes)odd, 4) & 15;
        }
    }
    static Vec scale_of(const Header& h, const uint8_t* block, int64_t g, int lane) {
        return h.d * to_floats(2 * nibble_scale<8>(block, g, lane) + 1);
    }
};

alignas(16) constexpr uint8_t kEight[16] = {66, 74, 82, 90, 98, 106, 114, 124};  // + 62

struct TypeIQ3_XXS : LatticeIQ3<SliceIQ3_XXS, 2, kGridIQ3_XXS> {
    static constexpr int kMost = 124;
    [[gnu::always_inline]] static void unpack(const Header& h, const uint8_t* block, int64_t b,
                                              int lane, Bytes* w) {
        codes(h, slice(block, b), b, lane, w);
        for (int k = 0; k < 8; k++) w[k] = look_up(kEight, w[k]);
        apply_signs<Slice, 124>(slice(block, b), lane, w);
    }
    static void scales(const Header& h, const uint8_t* block, int64_t g, int lane, Vec& scale,
                       Vec& min) {
        scale = scale_of(h, block, g, lane);
        min = scale * 62.0f;
    }
};

// Odd magnitudes up to 15: the value is twice a code of 4 bits less 15.
struct TypeIQ3_S : LatticeIQ3<SliceIQ3_S, 16, kGridIQ3_S> {
    static constexpr int kMost = 15;
    [[gnu::always_inline]] static void unpack(const Header& h, const uint8_t* block, int64_t b,
                                              int lane, Bytes* w) {
        codes(h, slice(block, b), b, lane, w);
        apply_signs<Slice, 15>(slice(block, b), lane, w);
    }
    static void scales(const Header& h, const uint8_t* block, int64_t g, int lane, Vec& scale,
                       Vec& min) {
        scale = scale_of(h, block, g, lane);
        min = scale * 7.5f;
    }
};

// IQ1: -1, 0 or 1, and an eighth more or less.
struct TypeIQ1_S : Lattice<SliceIQ1_S, 8, 8, kGridIQ1> {
    static constexpr int kGroup = 32, kMost = 2;
    [[gnu::always_inline]] static void unpack(const Header& h, const uint8_t* block, int64_t b,
                                              int lane, Bytes* w) {
        Words found[2];
        look_up<Slice>(kGridIQ1, h.indices, slice(block, b), b, 0, lane, found[0], found[1]);
        for (int k = 0; k < 8; k++) w[k] = right((Bytes)found[k / 4], 2 * (k % 4)) & 3;
    }
    static void scales(const Header& h, const uint8_t* block, int64_t g, int lane, Vec& scale,
                       Vec& min) {
        const IntVec nibble = nibble_scale<8>(block, g, lane);
        scale = h.d * to_floats(2 * (nibble & 7) + 1);
        min = scale * (0.875f + 0.25f * to_floats(nibble >> 3));
    }
};

// Eighths that change within 16 columns are part of the code: the value is a quarter of it less
// 9 / 8.
struct TypeIQ1_M : Lattice<SliceIQ1_M, 12, 2, kGridIQ1> {
    static constexpr int kGroup = 16, kMost = 9;
    [[gnu::always_inline]] static void unpack(const Header& h, const uint8_t* block, int64_t b,
                                              int lane, Bytes* w) {
        const uint8_t* at = slice(block, b);
        Words found[2];
        look_up<Slice>(kGridIQ1, h.indices, at, b, 0, lane, found[0], found[1]);
        for (int half = 0; half < 2; half++, w += 4) {
            const Bytes less = (Bytes)where(at + Slice::kShiftsAt + 4 * half, lane, 0x0101);
            const Bytes more = less ^ 1, point = (Bytes)found[half];
            w[0] = (left(point, 2) & 12) | more;
            for (int k = 1; k < 4; k++) w[k] = (right(point, 2 * k - 2) & 12) | more;
        }
    }
    static IntVec whole(const uint8_t* block, int64_t g, int lane) {
        const IntVec low = widen(block + 32 + 16 * (g % 4) + lane) >> (2 * (g / 4));
        const IntVec high = widen(block + 96 + 16 * (g % 2) + lane) >> (g / 2);
        return 2 * ((low & 3) | (high & 1) << 2) + 1;
    }
    static void scales(const Header& h, const uint8_t* block, int64_t g, int lane, Vec& scale,
                       Vec& min) {
        scale = h.d * to_floats(whole(block, g, lane));
        min = scale * 4.5f;
    }
};

}  // namespace
}  // namespace ktchat::KTCHAT_ISA
