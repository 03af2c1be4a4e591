// What the packers of all repacked tiles (tile16.h) share: the codes of 16 rows are interleaved,
// and their bits packed again. How a type's block is read from the file stands in
// tile16_pack32.inc.h and tile16_pack256.inc.h.

#include "tile16.h"

#include <cstring>

namespace ktchat::KTCHAT_ISA {
namespace {

constexpr int R = kTile16Rows;

// What codes of 8 bits differ by from those that products take: AVX2 splits them into sign and
// magnitude, and then has them as they are in the file.
#if defined(__AVX2__) && !defined(__AVX512F__) && !defined(__AVXVNNI__) && \
    !defined(KTCHAT_PROVE_AVXVNNI)
constexpr uint8_t kFlip = 128;
#else
constexpr uint8_t kFlip = 0;
#endif

// 16 columns of a row in kOrder; `to` may be `from`.
inline void put_in_order(const void* from, void* to) {
    typedef uint8_t Sixteen __attribute__((vector_size(16)));
    Sixteen v, order;
    std::memcpy(&v, from, sizeof v);
    std::memcpy(&order, kOrder, sizeof order);
    v = __builtin_shuffle(v, order);
    std::memcpy(to, &v, sizeof v);
}

// The codes of a block before packing: `q` row by row, `vectors[g]` = 4 columns of all rows.
template <int Cols>
struct BlockCodes {
    alignas(64) uint8_t q[R][Cols];
    alignas(64) uint8_t vectors[Cols / 4][64];

    // GCC 12 would take it for one without effects where only some of its results are read.
    __attribute__((noipa)) void interleave() {
        for (int r = 0; r < R; r++) {
            for (int c = 0; c < Cols; c += 16) {
                uint32_t four[4];
                put_in_order(q[r] + c, four);
                for (int k = 0; k < 4; k++) std::memcpy(vectors[c / 4 + k] + 4 * r, &four[k], 4);
            }
        }
    }
};

// Vector v of a slice (8 vectors) holds the low nibbles of vector v and those of vector v + 4 above
// them.
template <int Cols>
uint8_t* pack_nibbles(const BlockCodes<Cols>& codes, uint8_t* out) {
    for (int b = 0; b < Cols / 32; b++) {
        for (int v = 0; v < 4; v++, out += 64) {
            const uint8_t* low = codes.vectors[8 * b + v];
            const uint8_t* high = codes.vectors[8 * b + v + 4];
            for (int i = 0; i < 64; i++)
                out[i] = static_cast<uint8_t>((low[i] & 15) | high[i] << 4);
        }
    }
    return out;
}

// Bits `shift`, `shift + 1` of four vectors in one: vector v of a slice holds v, v + 2, v + 4, v +
// 6.
template <int Cols>
uint8_t* pack_pairs(const BlockCodes<Cols>& codes, int shift, uint8_t* out) {
    for (int b = 0; b < Cols / 32; b++) {
        for (int v = 0; v < 2; v++, out += 64) {
            std::memset(out, 0, 64);
            for (int k = 0; k < 4; k++) {
                const uint8_t* from = codes.vectors[8 * b + v + 2 * k];
                for (int i = 0; i < 64; i++) {
                    out[i] = static_cast<uint8_t>(out[i] | ((from[i] >> shift) & 3) << (2 * k));
                }
            }
        }
    }
    return out;
}

// Bit `shift` of the eight vectors of a slice in one.
template <int Cols>
uint8_t* pack_bits(const BlockCodes<Cols>& codes, int shift, uint8_t* out) {
    for (int b = 0; b < Cols / 32; b++, out += 64) {
        std::memset(out, 0, 64);
        for (int k = 0; k < 8; k++) {
            const uint8_t* from = codes.vectors[8 * b + k];
            for (int i = 0; i < 64; i++) {
                out[i] = static_cast<uint8_t>(out[i] | ((from[i] >> shift) & 1) << k);
            }
        }
    }
    return out;
}

template <int Cols>
uint8_t* pack_bytes(const BlockCodes<Cols>& codes, uint8_t* out) {
    std::memcpy(out, codes.vectors, sizeof codes.vectors);
    return out + sizeof codes.vectors;
}

void copy_half(uint8_t* lanes, int row, const uint8_t* from) {
    std::memcpy(lanes + 2 * row, from, 2);
}

}  // namespace
}  // namespace ktchat::KTCHAT_ISA
