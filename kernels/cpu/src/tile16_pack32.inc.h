// Packers of the types whose blocks are 32 or 64 columns: a float16 scale (MXFP4: a power of two,
// NVFP4: a float of 8 bits for every 16 columns) and perhaps a minimum, then codes. The comment of each packer is the layout of the block that it writes.

#include "tile16.h"

#include <cstring>

namespace ktchat::KTCHAT_ISA {
namespace {

// Nibble i is column i, its upper neighbour column i + 16.
void read_nibbles16(const uint8_t* from, uint8_t* q) {
    typedef uint8_t Sixteen __attribute__((vector_size(16), aligned(1), may_alias));
    const Sixteen both = *reinterpret_cast<const Sixteen*>(from);
    *reinterpret_cast<Sixteen*>(q) = both & 15;
    *reinterpret_cast<Sixteen*>(q + 16) = both >> 4;
}

// Byte i of entry b is bit i of b, times 16.
struct Spread {
    uint64_t of[256];
    constexpr Spread() : of() {
        for (int b = 0; b < 256; b++) {
            for (int i = 0; i < 8; i++) of[b] |= static_cast<uint64_t>(b >> i & 1) << (8 * i + 4);
        }
    }
};
constexpr Spread kSpread;

// Adds the fifth bits of 32 columns to their codes.
void add_fifth_bits(const uint8_t* bits, uint8_t* q) {
    for (int i = 0; i < 4; i++) {  // little-endian, as the file is
        uint64_t columns;
        std::memcpy(&columns, q + 8 * i, 8);
        columns |= kSpread.of[bits[i]];
        std::memcpy(q + 8 * i, &columns, 8);
    }
}

// d[16] float16, nibbles
void pack_q4_0(const uint8_t* source, size_t stride, int rows, uint8_t* out) {
    BlockCodes<32> codes = {};
    std::memset(out, 0, 2 * R);
    for (int r = 0; r < rows; r++) {
        const uint8_t* block = source + static_cast<size_t>(r) * stride;
        copy_half(out, r, block);
        read_nibbles16(block + 2, codes.q[r]);
    }
    codes.interleave();
    pack_nibbles(codes, out + 2 * R);
}

// d[16] float16, nibbles, fifth bits
void pack_q5_0(const uint8_t* source, size_t stride, int rows, uint8_t* out) {
    BlockCodes<32> codes = {};
    std::memset(out, 0, 2 * R);
    for (int r = 0; r < rows; r++) {
        const uint8_t* block = source + static_cast<size_t>(r) * stride;
        copy_half(out, r, block);
        read_nibbles16(block + 6, codes.q[r]);
        add_fifth_bits(block + 2, codes.q[r]);
    }
    codes.interleave();
    pack_bits(codes, 4, pack_nibbles(codes, out + 2 * R));
}

// d[16] float16, bytes (q + 128)
void pack_q8_0(const uint8_t* source, size_t stride, int rows, uint8_t* out) {
    BlockCodes<32> codes = {};
    std::memset(out, 0, 2 * R);
    for (int r = 0; r < rows; r++) {
        const uint8_t* block = source + static_cast<size_t>(r) * stride;
        copy_half(out, r, block);
        for (int i = 0; i < 32; i++) codes.q[r][i] = block[2 + i] ^ 0x80 ^ kFlip;
    }
    codes.interleave();
    pack_bytes(codes, out + 2 * R);
}

// d[16], m[16] float16, nibbles
void pack_q4_1(const uint8_t* source, size_t stride, int rows, uint8_t* out) {
    BlockCodes<32> codes = {};
    std::memset(out, 0, 4 * R);
    for (int r = 0; r < rows; r++) {
        const uint8_t* block = source + static_cast<size_t>(r) * stride;
        copy_half(out, r, block);
        copy_half(out + 2 * R, r, block + 2);
        read_nibbles16(block + 4, codes.q[r]);
    }
    codes.interleave();
    pack_nibbles(codes, out + 4 * R);
}

// d[16], m[16] float16, nibbles, fifth bits
void pack_q5_1(const uint8_t* source, size_t stride, int rows, uint8_t* out) {
    BlockCodes<32> codes = {};
    std::memset(out, 0, 4 * R);
    for (int r = 0; r < rows; r++) {
        const uint8_t* block = source + static_cast<size_t>(r) * stride;
        copy_half(out, r, block);
        copy_half(out + 2 * R, r, block + 2);
        read_nibbles16(block + 8, codes.q[r]);
        add_fifth_bits(block + 4, codes.q[r]);
    }
    codes.interleave();
    pack_bits(codes, 4, pack_nibbles(codes, out + 4 * R));
}

// exponent[16], nibbles (indices into a table)
void pack_mxfp4(const uint8_t* source, size_t stride, int rows, uint8_t* out) {
    BlockCodes<32> codes = {};
    std::memset(out, 0, R);
    for (int r = 0; r < rows; r++) {
        const uint8_t* block = source + static_cast<size_t>(r) * stride;
        out[r] = block[0];
        read_nibbles16(block + 1, codes.q[r]);
    }
    codes.interleave();
    pack_nibbles(codes, out + R);
}

// 4 x [16] scales, nibbles (indices into a table)
void pack_nvfp4(const uint8_t* source, size_t stride, int rows, uint8_t* out) {
    BlockCodes<64> codes = {};
    std::memset(out, 0, 4 * R);
    for (int r = 0; r < rows; r++) {
        const uint8_t* block = source + static_cast<size_t>(r) * stride;
        for (int g = 0; g < 4; g++) {
            out[g * R + r] = block[g];
            for (int i = 0; i < 8; i++) {
                codes.q[r][16 * g + i] = block[4 + 8 * g + i] & 15;
                codes.q[r][16 * g + 8 + i] = block[4 + 8 * g + i] >> 4;
            }
        }
    }
    codes.interleave();
    pack_nibbles(codes, out + 4 * R);
}

}  // namespace
}  // namespace ktchat::KTCHAT_ISA
