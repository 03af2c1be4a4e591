// The trellis types as tiles: the bytes of the scales row by row, as those of the other types, and
// behind them the file's words, four bytes of each row in turn.

#include "tile16.h"

#include <cstring>

namespace ktchat::KTCHAT_ISA {
namespace {

// The signs' bytes are put in kOrder.
template <class Format>
void pack_trellis(const uint8_t* source, size_t stride, int rows, uint8_t* out) {
    std::memset(out, 0, (Format::kHead + 4 * Format::kWords) * R);
    uint8_t* words = out + Format::kHead * R;
    for (int r = 0; r < rows; r++, source += stride) {
        for (int i = 0; i < Format::kHead; i++) out[i * R + r] = source[i];
        uint8_t file[4 * Format::kWords];
        std::memcpy(file, source + Format::kHead, sizeof file);
        for (int i = Format::kSigns; i < 4 * Format::kWords; i += 16) {
            put_in_order(file + i, file + i);
        }
        for (int v = 0; v < Format::kWords; v++) {
            std::memcpy(words + 64 * v + 4 * r, file + 4 * v, 4);
        }
    }
}

// Word v of every row.
inline IntVec word_of(const uint8_t* words, int64_t v, int lane) {
    return (IntVec)load_bytes(words + 64 * v + 4 * lane);
}
typedef uint32_t UnsignedVec __attribute__((vector_size(W * 4)));
inline IntVec shifted(IntVec v, int bits) { return (IntVec)((UnsignedVec)v >> bits); }

// The sums of four times six bits of number k, and 2, so that less 128 they are values.
template <int K>
inline IntVec trellis_codes(IntVec start) {
    const UnsignedVec numbers = ((UnsignedVec)start * power(K)) & kSixBits;
#if defined(__AVX512VNNI__)
    return (IntVec)_mm512_dpbusd_epi32(_mm512_set1_epi32(2), (__m512i)numbers,
                                       _mm512_set1_epi32(0x01010101));
#elif defined(__AVX512F__)
    const __m512i pairs = _mm512_maddubs_epi16((__m512i)numbers, _mm512_set1_epi8(1));
    return (IntVec)_mm512_madd_epi16(pairs, _mm512_set1_epi16(1)) + 2;
#elif defined(__AVX2__)
    const __m256i pairs = _mm256_maddubs_epi16((__m256i)numbers, _mm256_set1_epi8(1));
    return (IntVec)_mm256_madd_epi16(pairs, _mm256_set1_epi16(1)) + 2;
#else
    return (IntVec)(numbers * 0x01010101u >> 24) + 2;
#endif
}

// Numbers K and K + 2 behind two starts, as kOrder has them.
template <int K>
inline Bytes trellis_four(IntVec first, IntVec second) {
    const IntVec low = trellis_codes<K>(first) | trellis_codes<K + 2>(first) << 8;
    const IntVec high = trellis_codes<K>(second) | trellis_codes<K + 2>(second) << 8;
    return (Bytes)(low | high << 16);
}

template <class Type, class Format>
struct TrellisType {
    static constexpr int kCols = 256, kGroup = 32, kMost = 254;
    static constexpr bool kWide = true;
    static constexpr size_t kRowPrefix = 4;
    struct Header {};
    static Header header(const uint8_t*, int) { return {}; }
    static const uint8_t* words(const uint8_t* block) { return block + 16 * Format::kHead; }
    static void unpack(const uint8_t* block, int64_t b, int lane, Bytes* w) {
        constexpr int kGroups = 16 / Format::kStep;  // of half a slice: two, or four
        IntVec starts[2 * kGroups];
        Type::starts(block, b, lane, starts);
        for (IntVec& start : starts) start += static_cast<int>(kFirstStart);
        for (int h = 0; h < 2; h++, w += 4) {
            const IntVec *first = starts + kGroups * h, *second = first + kGroups / 2;
            w[0] = trellis_four<0>(first[0], second[0]);
            w[1] = trellis_four<1>(first[0], second[0]);
            if constexpr (Format::kStep == 8) {
                w[2] = trellis_four<4>(first[0], second[0]);
                w[3] = trellis_four<5>(first[0], second[0]);
            } else {
                w[2] = trellis_four<0>(first[1], second[1]);
                w[3] = trellis_four<1>(first[1], second[1]);
            }
        }
    }
    static void scales(const Header&, const uint8_t* block, int64_t g, int lane, Vec& scale,
                       Vec& min) {
        scale = to_floats(Type::whole(block, g, lane));
        min = scale * 128.0f;
    }
    static IntVec value4(IntVec nibbles) {
        return ((IntVec)look_up(kTable4.of, (Bytes)nibbles) & 255) - 128;
    }
};

struct TypeIQ1_KT : TrellisType<TypeIQ1_KT, FormatIQ1_KT> {
    static void starts(const uint8_t* block, int64_t b, int lane, IntVec* starts) {
        const IntVec low = word_of(words(block), b, lane);
        const IntVec high = shifted(word_of(words(block), 8 + b % 4, lane), b < 4 ? 0 : 4);
        const IntVec highest = widen(block + 16 * b + lane);
        for (int g = 0; g < 4; g++) {
            starts[g] = (shifted(low, 8 * g) & 255) | (shifted(high, 8 * g) & 15) << 8 |
                        (highest >> (4 + g) & 1) << 12;
        }
    }
    static IntVec whole(const uint8_t* block, int64_t g, int lane) {
        return value4(widen(block + 16 * g + lane) & 15);
    }
};

struct TypeIQ2_KT : TrellisType<TypeIQ2_KT, FormatIQ2_KT> {
    static void starts(const uint8_t* block, int64_t b, int lane, IntVec* starts) {
        for (int v = 0; v < 2; v++) {
            const IntVec both = word_of(words(block), 2 * b + v, lane);
            starts[2 * v] = both & 0xffff;
            starts[2 * v + 1] = shifted(both, 16);
        }
    }
    static IntVec nibble(const uint8_t* block, int64_t g, int lane) {
        return widen(block + 16 * (g % 4) + lane) >> (4 * (g / 4)) & 15;
    }
    static IntVec whole(const uint8_t* block, int64_t g, int lane) {
        return value4(nibble(block, g, lane));
    }
};

struct TypeIQ3_KT : TrellisType<TypeIQ3_KT, FormatIQ3_KT> {
    static void starts(const uint8_t* block, int64_t b, int lane, IntVec* starts) {
        TypeIQ2_KT::starts(block, b, lane, starts);
    }
    static void unpack(const uint8_t* block, int64_t b, int lane, Bytes* w) {
        TrellisType::unpack(block, b, lane, w);
        for (int k = 0; k < 8; k++) {
            const Bytes value = w[k] ^ 128;
            const Bytes signs = (Bytes)word_of(words(block), 16 + k, lane);
            const Bytes bit = right(signs, static_cast<int>(b));
            const Bytes minus = -(((value >> 7) ^ bit) & 1);  // all ones: the sign changes
            w[k] = ((value ^ minus) - minus) ^ 128;
        }
    }
    static IntVec whole(const uint8_t* block, int64_t g, int lane) {
        return TypeIQ2_KT::nibble(block, g, lane);
    }
};

struct TypeIQ4_KT : TrellisType<TypeIQ4_KT, FormatIQ4_KT> {
    static void starts(const uint8_t* block, int64_t b, int lane, IntVec* starts) {
        const IntVec head = word_of(block, b, lane), half = (head & 1) << 15;
        for (int v = 0; v < 2; v++) {
            const IntVec low = word_of(block, 8 + 2 * b + v, lane);
            const IntVec high =
                shifted(word_of(block, 24 + 2 * (b % 4) + v, lane), b < 4 ? 0 : 4);
            for (int g = 0; g < 4; g++) {
                starts[4 * v + g] = half + ((shifted(low, 8 * g) & 255) |
                                            (shifted(high, 8 * g) & 15) << 8 |
                                            (shifted(head, 8 + 3 * (4 * v + g)) & 7) << 12);
            }
        }
    }
    static IntVec whole(const uint8_t* block, int64_t g, int lane) {
        return (shifted(word_of(block, g, lane), 1) & 127) - 64;
    }
};

}  // namespace
}  // namespace ktchat::KTCHAT_ISA
