// The types of ik_llama.cpp as tiles (tile16_types.inc.h says what a type has, tile16_pack_ik.inc.h
// how blocks are packed). Values become bytes without a sign by an offset that the minimum
// takes off again; so does it with what moves a group's values.

#include "tile16.h"

namespace ktchat::KTCHAT_ISA {
namespace {

// A table's values and an offset, as bytes; 16 to a register.
template <int N>
struct Table {
    alignas(16) uint8_t of[N < 16 ? 16 : N] = {};
    constexpr Table(const int (&values)[N], int offset) {
        for (int i = 0; i < N; i++) of[i] = static_cast<uint8_t>(values[i] + offset);
    }
};
constexpr Table<4> kTable2(kValues2, 31);
constexpr Table<8> kTable3(kValues3, 63);
constexpr Table<16> kTable4(kValues4, 128);
constexpr Table<32> kTable5(kValues5, 128);
constexpr Table<64> kTable6(kValues6, 128);

// Column 0 or 1 of the pairs.
struct PairTable {
    alignas(16) uint8_t of[32] = {};
    constexpr explicit PairTable(int column) {
        for (int i = 0; i < 32; i++) of[i] = static_cast<uint8_t>(kPairs[2 * i + column] + 63);
    }
};
constexpr PairTable kPairTable[2] = {PairTable(0), PairTable(1)};

// The bytes of `yes` where bit `Bit` of `v` is set, else those of `no`.
template <int Bit>
inline Bytes choose(Bytes v, Bytes yes, Bytes no) {
#if defined(__AVX512F__)
    const __mmask64 set = _mm512_test_epi8_mask((__m512i)v, _mm512_set1_epi8(1 << Bit));
    return (Bytes)_mm512_mask_blend_epi8(set, (__m512i)no, (__m512i)yes);
#elif defined(__AVX2__)
    return (Bytes)_mm256_blendv_epi8((__m256i)no, (__m256i)yes, (__m256i)left(v, 7 - Bit));
#else
    for (int i = 0; i < W * 4; i++) no[i] = v[i] >> Bit & 1 ? yes[i] : no[i];
    return no;
#endif
}

// table[i] for every byte i < N.
template <int N>
inline Bytes look_up_of(const uint8_t* table, Bytes v) {
    if constexpr (N == 32) {
        const Bytes low = v & 15;
        return choose<4>(v, look_up(table + 16, low), look_up(table, low));
    } else if constexpr (N == 64) {
        const Bytes low = v & 15;
        const Bytes first = choose<4>(v, look_up(table + 16, low), look_up(table, low));
        const Bytes second = choose<4>(v, look_up(table + 48, low), look_up(table + 32, low));
        return choose<5>(v, second, first);
    } else {
        return look_up(table, v);
    }
}

struct TileBytes {
    const uint8_t* block;
    int lane;
    IntVec operator()(int64_t i) const { return widen(block + 16 * i + lane); }
};

template <int Bits>
inline void codes_of(const uint8_t* numbers, int64_t b, int lane, Bytes* w) {
    if constexpr (Bits < 4) {
        pairs(numbers + 128 * b, lane, w);
        if constexpr (Bits == 3) add_bits<2>(numbers + 1024 + 64 * b, lane, w);
    } else {
        nibbles(numbers + 256 * b, lane, w);
        if constexpr (Bits == 5) add_bits<4>(numbers + 2048 + 64 * b, lane, w);
        if constexpr (Bits == 6) add_upper_pairs(numbers + 2048 + 128 * b, lane, w);
    }
}

// What a type has beside its codes. `Type` is the whole one.
template <class Type, class Format, int Offset, int Most>
struct IkType {
    static constexpr int kCols = Format::kCols, kGroup = Format::kGroup, kMost = Most;
    static constexpr bool kWide = Offset == 128, kMoved = Format::kMove != 0;
    static constexpr size_t kRowPrefix = Format::kPrefix;
    struct Header {
        Vec d;
    };
    static Header header(const uint8_t* block, int lane) {
        return {Format::kScale ? load_half(block + 2 * lane) : splat(1.0f)};
    }
    static IntVec whole(const uint8_t* block, int64_t g, int lane) {
        return Format::whole(TileBytes{block, lane}, g);
    }
    static IntVec moved(const uint8_t* block, int64_t g, int lane) {
        return Format::moved(TileBytes{block, lane}, g);
    }
    static void scales(const Header& h, const uint8_t* block, int64_t g, int lane, Vec& scale,
                       Vec& min) {
        constexpr float kOffset = kOffsetFree<Type> ? 0 : Offset;
        scale = h.d * to_floats(Type::whole(block, g, lane));
        min = scale * (Type::moved(block, g, lane) != 0 ? splat(kOffset - Format::kMove)
                                                        : splat(kOffset));
    }
};

// Codes are indices into a table of N, and the head is read byte by byte.
template <class Format, int N, const Table<N>& table, int Offset, int Most>
struct TableType : IkType<TableType<Format, N, table, Offset, Most>, Format, Offset, Most> {
    static void unpack(const uint8_t* block, int64_t b, int lane, Bytes* w) {
        codes_of<Format::kBits>(block + 16 * Format::kHead, b, lane, w);
#pragma GCC unroll 8
        for (int k = 0; k < 8; k++) w[k] = look_up_of<N>(table.of, w[k]);
    }
};

using TypeIQ2_K = TableType<FormatIQ2_K, 4, kTable2, 31, 48>;
using TypeIQ3_K = TableType<FormatIQ3_K, 8, kTable3, 63, 110>;
using TypeIQ4_K = TableType<FormatIQ4_K, 16, kTable4, 128, 241>;
using TypeIQ5_K = TableType<FormatIQ5_K, 32, kTable5, 128, 249>;
using TypeIQ6_K = TableType<FormatIQ6_K, 64, kTable6, 128, 249>;
using TypeIQ2_KS = TableType<FormatIQ2_KS, 4, kTable2, 31, 48>;
using TypeIQ3_KS = TableType<FormatIQ3_KS, 8, kTable3, 63, 110>;
using TypeIQ4_KS = TableType<FormatIQ4_KS, 16, kTable4, 128, 241>;
using TypeIQ5_KS = TableType<FormatIQ5_KS, 32, kTable5, 128, 249>;

struct TypeQ6_0 : Type32<32, false> {
    static constexpr int kMost = 63;
    static void unpack(const uint8_t* block, int64_t, int lane, Bytes* w) {
        nibbles(block + 32, lane, w);
        add_upper_pairs(block + 32 + 256, lane, w);
    }
};

struct TypeIQ4_KSS : IkType<TypeIQ4_KSS, FormatIQ4_KSS, 128, 241> {
    static void unpack(const uint8_t* block, int64_t b, int lane, Bytes* w) {
#pragma GCC unroll 2
        for (int v = 0; v < 4; v += 2) {
            const Pairs first = plain(block + 256 * b + 64 * v + 4 * lane);
            const Pairs second = plain(block + 256 * b + 64 * v + 64 + 4 * lane);
            const Bytes even = (Bytes)((first & 255) | second << 8);
            const Bytes odd = (Bytes)(first >> 8 | (second & 0xff00));
            w[v] = look_up(kTable4.of, even & 15);
            w[v + 1] = look_up(kTable4.of, odd & 15);
            w[v + 4] = look_up(kTable4.of, even >> 4);
            w[v + 5] = look_up(kTable4.of, odd >> 4);
        }
    }
    // Four codes in each word, without the scale's bit.
    static Pairs plain(const uint8_t* p) {
        const Pairs words = (Pairs)load_bytes(p) & 0xfffe;
        return words ^ words >> 1;
    }
    static IntVec bits(const uint8_t* block, int64_t g, int lane) {
        IntVec all = {};
        for (int v = 0; v < 4; v++) {
            const IntVec both = (IntVec)load_bytes(block + 256 * g + 64 * v + 4 * lane);
            all |= (both & 1) << v | (both >> 16 & 1) << (v + 4);
        }
        return all;
    }
    static IntVec whole(const uint8_t* block, int64_t g, int lane) {
        return (bits(block, g, lane) & 254) - 127;
    }
    static IntVec moved(const uint8_t* block, int64_t g, int lane) {
        return (IntVec)load_bytes(block + 256 * g + 4 * lane) & 1;
    }
};

struct TypeIQ2_KL : IkType<TypeIQ2_KL, FormatIQ2_KL, 63, 110> {
    static void unpack(const uint8_t* block, int64_t b, int lane, Bytes* w) {
        const uint8_t* numbers = block + 16 * FormatIQ2_KL::kHead;
        const Bytes fifths =
            right(load_bytes(numbers + 1024 + 64 * (b / 2) + 4 * lane), b % 2 ? 4 : 0);
#pragma GCC unroll 4
        for (int m = 0; m < 4; m++) {
            const Bytes both = load_bytes(numbers + 128 * b + 64 * (m % 2) + 4 * lane);
            const Bytes codes =
                (m < 2 ? both & 15 : both >> 4) | (right(fifths, m) & 1) << 4;
            w[2 * m] = look_up_of<32>(kPairTable[0].of, codes);
            w[2 * m + 1] = look_up_of<32>(kPairTable[1].of, codes);
        }
    }
};

}  // namespace
}  // namespace ktchat::KTCHAT_ISA
