// The trellis types of ik_llama.cpp: a code starts a generator whose numbers are the values of the
// columns that follow (QTIP; Tseng et al., 2024). Blocks as they lie in a file, and rows as
// float32; kernels/ik_types.py says the same in numpy.

#include "tile16.h"

#include <cstdlib>
#include <cstring>

namespace ktchat::KTCHAT_ISA {
namespace {

constexpr uint32_t kGenerator = 0xcbac1fed;
constexpr uint32_t kSixBits = 0x3f3f3f3f;
constexpr uint32_t kFirstStart = 4096;

// The generator's factor after k more steps.
constexpr uint32_t power(int k) { return k == 0 ? kGenerator : kGenerator * power(k - 1); }

// The sum of four times six bits of number k after `start`, less its mean.
inline int trellis_value(uint32_t start, int k) {
    const uint32_t number = start * power(k) & kSixBits;
    return static_cast<int>(number * 0x01010101u >> 24) - 126;
}

// ---- blocks in a file ---------------------------------------------------------------------------
// `start` gives where group g of a block begins; columns in it: kStep.

template <int Head, int Words, int Step>
struct FormatKT {
    static constexpr int kCols = 256, kGroup = 32, kPrefix = 4, kHead = Head, kWords = Words;
    static constexpr int kStep = Step;
    static constexpr int kSigns = 4 * Words;  // where signs begin among the words' bytes
};

struct FormatIQ1_KT : FormatKT<8, 12, 8> {
    static uint32_t start(const uint8_t* block, int g) {
        const int nibble = block[40 + g % 16] >> (4 * (g / 16)) & 15;
        const int highest = block[g / 4] >> (4 + g % 4) & 1;
        return kFirstStart + static_cast<uint32_t>(block[8 + g] | nibble << 8 | highest << 12);
    }
    static int whole(const uint8_t* block, int b) { return kValues4[block[b] & 15]; }
    static int sign(const uint8_t*, int) { return 1; }
};

struct FormatIQ2_KT : FormatKT<4, 16, 8> {
    static uint32_t start(const uint8_t* block, int g) {
        return kFirstStart + static_cast<uint32_t>(block[4 + 2 * g] | block[5 + 2 * g] << 8);
    }
    static int whole(const uint8_t* block, int b) {
        return kValues4[block[b % 4] >> (4 * (b / 4)) & 15];
    }
    static int sign(const uint8_t*, int) { return 1; }
};

// Signs of their own, of sizes.
struct FormatIQ3_KT : FormatKT<4, 24, 8> {
    static constexpr int kSigns = 64;
    static uint32_t start(const uint8_t* block, int g) { return FormatIQ2_KT::start(block, g); }
    static int whole(const uint8_t* block, int b) { return block[b % 4] >> (4 * (b / 4)) & 15; }
    static int sign(const uint8_t* block, int i) {
        return block[68 + i % 32] >> (i / 32) & 1 ? -1 : 1;
    }
};

// A word of every 32 columns: where their groups start (1 bit), scale (7), upper bits (3 a group).
struct FormatIQ4_KT : FormatKT<0, 32, 4> {
    static uint32_t head(const uint8_t* block, int b) {
        uint32_t word;
        std::memcpy(&word, block + 4 * b, 4);
        return word;
    }
    static uint32_t start(const uint8_t* block, int g) {
        const uint32_t word = head(block, g / 8);
        const uint32_t nibble = block[96 + g % 32] >> (4 * (g / 32)) & 15;
        const uint32_t upper = word >> (8 + 3 * (g % 8)) & 7;
        return kFirstStart + (word & 1) * 32768 + (block[32 + g] | nibble << 8 | upper << 12);
    }
    static int whole(const uint8_t* block, int b) {
        return static_cast<int>(head(block, b) >> 1 & 127) - 64;
    }
    static int sign(const uint8_t*, int) { return 1; }
};

template <class Format>
void trellis_row_to_float(const void* row, float* y, int64_t cols) {
    const auto* block = static_cast<const uint8_t*>(row) + Format::kPrefix;
    const float d = stored_scale(static_cast<const uint8_t*>(row), Format::kPrefix);
    const bool sizes = std::is_same_v<Format, FormatIQ3_KT>;
    for (int64_t c = 0; c < cols; c += 256, block += Format::kHead + 4 * Format::kWords) {
        for (int i = 0; i < 256; i++) {
            const uint32_t start = Format::start(block, i / Format::kStep);
            const int value = trellis_value(start, i % Format::kStep);
            const float scale = d * static_cast<float>(Format::whole(block, i / 32));
            *y++ = scale * static_cast<float>(sizes ? Format::sign(block, i) * std::abs(value)
                                                    : value);
        }
    }
}

}  // namespace
}  // namespace ktchat::KTCHAT_ISA
