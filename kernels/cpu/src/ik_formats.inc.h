// The types of ik_llama.cpp as their blocks lie in a file; kernels/ik_types.py says the same in
// numpy.
//
// A format has: kHead, the bytes of a block ahead of its codes; kScale, whether they begin with a
// float16 scale; kPrefix, the bytes of the scale that a row begins with otherwise; kBits of a code,
// kCodes bytes of them; kGroup, the columns that share a whole scale. `read` gives a block's codes,
// `value` what a code stands for, `whole` and `moved` a group's scale and whether its values are
// moved by kMove. These two take the block's bytes as a function, so that rows and tiles are read
// by the same line.

#include "tile16.h"

#include <cmath>
#include <cstring>

namespace ktchat::KTCHAT_ISA {
namespace {

// 32 bytes: bit b of byte i belongs to column 32 b + i.
void add_bits32(const uint8_t* from, int shift, uint8_t* q) {
    for (int b = 0; b < 8; b++, q += 32) {
        for (int i = 0; i < 32; i++) q[i] |= static_cast<uint8_t>((from[i] >> b & 1) << shift);
    }
}

// ---- values by code -----------------------------------------------------------------------------

constexpr int kValues2[4] = {-31, -13, 1, 17};
constexpr int kValues3[8] = {-63, -40, -23, -10, 1, 13, 28, 47};
constexpr int kValues4[16] = {-127, -104, -83, -65, -49, -35, -22, -10,
                              1,    13,   25,  38,  53,  69,  89,  113};
constexpr int kValues5[32] = {-126, -114, -103, -92, -83, -74, -65, -57, -50, -43, -36,
                              -30,  -24,  -18,  -12, -6,  -1,  5,   11,  17,  23,  29,
                              36,   43,   51,   59,  68,  77,  87,  97,  109, 121};
// Rounded as in ik_llama.cpp's own products; rows as float32 have the polynomial itself.
constexpr int kValues6[64] = {-127, -121, -115, -109, -104, -98, -93, -88, -84, -79, -74, -70, -66,
                              -62,  -58,  -54,  -51,  -47,  -44, -40, -37, -34, -31, -28, -25, -22,
                              -19,  -16,  -13,  -11,  -8,   -5,  -2,  0,   3,   6,   9,   12,  14,
                              17,   20,   23,   27,   30,   33,  36,  40,  44,  47,  51,  55,  59,
                              63,   68,   72,   77,   82,   87,  92,  98,  103, 109, 115, 121};
// IQ2_KL: a code stands for two columns.
constexpr int kPairs[64] = {-63, -23, -63, 13,  -40, -63, -40, -10, -40, 13, -40, 47,  -23,
                            -40, -23, -23, -23, 1,   -23, 13,  -23, 28,  -10, -63, -10, 1,
                            -10, 13,  -10, 47,  1,   -23, 1,   -10, 1,   1,   1,   13,  1,
                            28,  13,  -40, 13,  -23, 13,  -10, 13,  1,   13,  13,  28,  -63,
                            28,  -23, 28,  1,   28,  28,  28,  47,  47,  -23, 47,  13};

// ---- the formats --------------------------------------------------------------------------------

// Bit g of two bytes.
template <class Byte>
inline auto bit_of(const Byte& byte, int64_t at, int64_t g) {
    return byte(at + g / 8) >> (g % 8) & 1;
}

struct FormatQ6_0 {
    static constexpr int kCols = 32, kGroup = 32, kHead = 2, kBits = 6, kPrefix = 0, kMove = 0;
    static constexpr int kCodes = 24;
    static constexpr bool kScale = true;
    static void read(const uint8_t* block, uint8_t* q) {
        read_nibbles16(block + 10, q);
        for (int i = 0; i < 32; i++) {
            const int shift = 4 * (i % 16 / 8) + 2 * (i / 16);
            q[i] |= static_cast<uint8_t>((block[2 + i % 8] >> shift & 3) << 4);
        }
    }
    static float value(int code, int) { return static_cast<float>(code - 32); }
    template <class Byte>
    static auto whole(const Byte& byte, int64_t) {
        return (byte(0) & 0) + 1;
    }
    template <class Byte>
    static auto moved(const Byte& byte, int64_t) {
        return byte(0) & 0;
    }
};

// A scale for every 16 columns; `moved` at byte 2.
template <int Head, int Bits, const int* Values, int Move>
struct FormatK {
    static constexpr int kCols = 256, kGroup = 16, kHead = Head, kBits = Bits, kPrefix = 0;
    static constexpr int kMove = Move, kCodes = kCols * kBits / 8;
    static constexpr bool kScale = true;
    static float value(int code, int moved) {
        return static_cast<float>(Values[code] + kMove * moved);
    }
    template <class Byte>
    static auto moved(const Byte& byte, int64_t g) {
        return bit_of(byte, 2, g);
    }
    // A nibble at `Low`, and two further bits at byte 4.
    template <int Low, class Byte>
    static auto six(const Byte& byte, int64_t g) {
        return ((byte(Low + g / 2) >> (4 * (g % 2)) & 15) |
                (byte(4 + g / 4) >> (2 * (g % 4)) & 3) << 4) -
               32;
    }
};

struct FormatIQ2_K : FormatK<12, 2, kValues2, 5> {
    static void read(const uint8_t* block, uint8_t* q) { read_pairs32(block + 12, q); }
    template <class Byte>
    static auto whole(const Byte& byte, int64_t g) {
        return (byte(4 + g / 2) >> (4 * (g % 2)) & 15) - 8;
    }
};

struct FormatIQ3_K : FormatK<14, 3, kValues3, 4> {
    static void read(const uint8_t* block, uint8_t* q) {
        read_pairs32(block + 14, q);
        add_bits32(block + 78, 2, q);
    }
    template <class Byte>
    static auto whole(const Byte& byte, int64_t g) {
        const auto size = (byte(6 + g / 2) >> (4 * (g % 2)) & 15) * 2 + 1;
        const auto minus = -bit_of(byte, 4, g);
        return (size ^ minus) - minus;
    }
};

struct FormatIQ4_K : FormatK<16, 4, kValues4, 4> {
    static void read(const uint8_t* block, uint8_t* q) {
        for (int b = 0; b < 8; b++) read_nibbles16(block + 16 + 16 * b, q + 32 * b);
    }
    template <class Byte>
    static auto whole(const Byte& byte, int64_t g) {
        return six<8>(byte, g);
    }
};

struct FormatIQ5_K : FormatK<16, 5, kValues5, 2> {
    static void read(const uint8_t* block, uint8_t* q) {
        read_nibbles32(block + 16, q);
        add_bits32(block + 144, 4, q);
    }
    template <class Byte>
    static auto whole(const Byte& byte, int64_t g) {
        return six<8>(byte, g);
    }
};

struct FormatIQ6_K : FormatK<20, 6, kValues6, 1> {
    static void read(const uint8_t* block, uint8_t* q) {
        uint8_t high[256];
        read_nibbles32(block + 20, q);
        read_pairs32(block + 148, high);
        for (int i = 0; i < 256; i++) q[i] |= static_cast<uint8_t>(high[i] << 4);
    }
    static float value(int code, int moved) {
        const float q = static_cast<float>(code);
        const float cubic = std::fma(q, std::fma(q, 0.0011972f, -0.11218f), 6.2568f);
        return std::fma(q, cubic, -127.0f) + static_cast<float>(kMove * moved);
    }
    template <class Byte>
    static auto whole(const Byte& byte, int64_t g) {
        return (byte(4 + g) ^ 128) - 128;
    }
};

// A scale for every 32 columns, and one for the row.
template <int Prefix, int Head, int Bits, const int* Values, int Move>
struct FormatKS {
    static constexpr int kCols = 256, kGroup = 32, kHead = Head, kBits = Bits, kPrefix = Prefix;
    static constexpr int kMove = Move, kCodes = kCols * kBits / 8;
    static constexpr bool kScale = false;
    static float value(int code, int moved) {
        return static_cast<float>(Values[code] + kMove * moved);
    }
};

struct FormatIQ2_KS : FormatKS<2, 6, 2, kValues2, 5> {
    static void read(const uint8_t* block, uint8_t* q) { read_pairs32(block + 6, q); }
    template <class Byte>
    static auto whole(const Byte& byte, int64_t g) {
        return ((byte(2 + g / 2) >> (4 * (g % 2)) & 15) | bit_of(byte, 1, g) << 4) - 16;
    }
    template <class Byte>
    static auto moved(const Byte& byte, int64_t g) {
        return bit_of(byte, 0, g);
    }
};

struct FormatIQ3_KS : FormatKS<2, 6, 3, kValues3, 4> {
    static void read(const uint8_t* block, uint8_t* q) {
        read_pairs32(block + 6, q);
        add_bits32(block + 70, 2, q);
    }
    template <class Byte>
    static auto whole(const Byte& byte, int64_t g) {
        return ((byte(2 + g % 4) >> (4 * (g / 4)) & 15) | bit_of(byte, 0, g) << 4) - 16;
    }
    template <class Byte>
    static auto moved(const Byte& byte, int64_t g) {
        return bit_of(byte, 1, g);
    }
};

// A byte a group: the lowest bit says whether values are moved.
template <int Bits, const int* Values, int Move>
struct FormatByteScales : FormatKS<4, 8, Bits, Values, Move> {
    template <class Byte>
    static auto whole(const Byte& byte, int64_t g) {
        return (byte(g) & 254) - 127;
    }
    template <class Byte>
    static auto moved(const Byte& byte, int64_t g) {
        return byte(g) & 1;
    }
};

struct FormatIQ4_KS : FormatByteScales<4, kValues4, 4> {
    static void read(const uint8_t* block, uint8_t* q) {
        for (int b = 0; b < 8; b++) read_nibbles16(block + 8 + 16 * b, q + 32 * b);
    }
};

struct FormatIQ5_KS : FormatByteScales<5, kValues5, 2> {
    static void read(const uint8_t* block, uint8_t* q) {
        read_nibbles32(block + 8, q);
        add_bits32(block + 136, 4, q);
    }
};

// 16 bytes are 32 columns: the lowest bits of their eight words a scale as IQ4_KS has it, the
// others four codes each, XORed with themselves moved by a bit.
struct FormatIQ4_KSS : FormatKS<4, 0, 4, kValues4, 4> {
    static void read(const uint8_t* block, uint8_t* q) {
        for (int b = 0; b < 8; b++, block += 16, q += 32) {
            uint16_t words[8];
            std::memcpy(words, block, sizeof words);
            for (uint16_t& word : words) {
                word &= 0xfffe;
                word = static_cast<uint16_t>(word ^ word >> 1);
            }
            read_nibbles16(reinterpret_cast<const uint8_t*>(words), q);
        }
    }
    static int scale(const uint8_t* block, int64_t g) {
        int bits = 0;
        for (int k = 0; k < 8; k++) bits |= (block[16 * g + 2 * k] & 1) << k;
        return bits;
    }
    template <class Byte>
    static int whole(const Byte& byte, int64_t g) {
        return (scale(byte.block, g) & 254) - 127;
    }
    template <class Byte>
    static int moved(const Byte& byte, int64_t g) {
        return scale(byte.block, g) & 1;
    }
};

struct FormatIQ2_KL : FormatKS<2, 6, 5, kPairs, 0> {
    static constexpr int kCodes = 80;
    // Of every column 2 code + 0 or 1.
    static void read(const uint8_t* block, uint8_t* q) {
        const uint8_t *low = block + 6, *high = block + 70;
        for (int i = 0; i < 128; i++) {
            const int nibble = low[i / 32 * 16 + i % 16] >> (4 * (i / 16 % 2)) & 15;
            const int code = nibble | (high[i % 16] >> (i / 16) & 1) << 4;
            q[2 * i] = static_cast<uint8_t>(2 * code);
            q[2 * i + 1] = static_cast<uint8_t>(2 * code + 1);
        }
    }
    template <class Byte>
    static auto whole(const Byte& byte, int64_t g) {
        return ((byte(2 + g % 4) >> (4 * (g / 4)) & 15) |
                (byte(g / 4) >> (2 * (g % 4)) & 3) << 4) -
               32;
    }
    template <class Byte>
    static auto moved(const Byte& byte, int64_t) {
        return byte(0) & 0;
    }
};

}  // namespace
}  // namespace ktchat::KTCHAT_ISA
