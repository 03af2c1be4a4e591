// Packers of the types of one or two bits, or of three values, with a scale for all the columns of a
// block. The comment of each packer is the layout of the block that it writes.

#include "tile16.h"

#include <cstring>

namespace ktchat::KTCHAT_ISA {
namespace {

// d[16] float16, pairs; 256 columns
void pack_tq2_0(const uint8_t* source, size_t stride, int rows, uint8_t* out) {
    BlockCodes<256> codes;
    if (rows < R) std::memset(codes.q, 0, sizeof codes.q);
    std::memset(out, 0, 2 * R);
    for (int r = 0; r < rows; r++) {
        const uint8_t* block = source + static_cast<size_t>(r) * stride;
        copy_half(out, r, block + 64);
        read_pairs32(block, codes.q[r]);
    }
    codes.interleave();
    pack_pairs(codes, 0, out + 2 * R);
}

// d[16] float16, pairs; 64 columns
void pack_q2_0(const uint8_t* source, size_t stride, int rows, uint8_t* out) {
    BlockCodes<64> codes = {};
    std::memset(out, 0, 2 * R);
    for (int r = 0; r < rows; r++) {
        const uint8_t* block = source + static_cast<size_t>(r) * stride;
        copy_half(out, r, block);
        for (int i = 0; i < 64; i++) codes.q[r][i] = block[2 + i / 4] >> (2 * (i % 4)) & 3;
    }
    codes.interleave();
    pack_pairs(codes, 0, out + 2 * R);
}

// d[16] float16, bits; 128 columns
void pack_q1_0(const uint8_t* source, size_t stride, int rows, uint8_t* out) {
    BlockCodes<128> codes = {};
    std::memset(out, 0, 2 * R);
    for (int r = 0; r < rows; r++) {
        const uint8_t* block = source + static_cast<size_t>(r) * stride;
        copy_half(out, r, block);
        for (int i = 0; i < 16; i++) {
            const uint64_t columns = kSpread.of[block[2 + i]] >> 4;
            std::memcpy(codes.q[r] + 8 * i, &columns, 8);
        }
    }
    codes.interleave();
    pack_bits(codes, 0, out + 2 * R);
}

// Digits of TQ1_0: a byte b is a fraction b / 256 in base 3, rounded up, of five digits.
void read_digits(const uint8_t* from, int bytes, int digits, uint8_t* q) {
    for (int n = 0, power = 1; n < digits; n++, power *= 3) {
        for (int i = 0; i < bytes; i++, q++) {
            *q = static_cast<uint8_t>((from[i] * power & 255) * 3 >> 8);
        }
    }
}

// Five vectors of digits in one; missing ones are null.
void pack_digits(const uint8_t* const* digits, uint8_t* out) {
    for (int i = 0; i < 64; i++) {
        int number = 0;
        for (int n = 0; n < 5; n++) number = 3 * number + (digits[n] ? digits[n][i] : 0);
        out[i] = static_cast<uint8_t>((number * 256 + 242) / 243);
    }
}

// d[16] float16; 8 vectors that have the first five of each slice's; 4 vectors with three of an even
// slice's and two of the next one's; a vector with the last of each odd slice's. 256 columns.
void pack_tq1_0(const uint8_t* source, size_t stride, int rows, uint8_t* out) {
    BlockCodes<256> codes;
    if (rows < R) std::memset(codes.q, 0, sizeof codes.q);
    std::memset(out, 0, 2 * R);
    for (int r = 0; r < rows; r++) {
        const uint8_t* block = source + static_cast<size_t>(r) * stride;
        read_digits(block, 32, 5, codes.q[r]);
        read_digits(block + 32, 16, 5, codes.q[r] + 160);
        read_digits(block + 48, 4, 4, codes.q[r] + 240);
        copy_half(out, r, block + 52);
    }
    codes.interleave();
    out += 2 * R;
    const uint8_t* last[5] = {};
    for (int b = 0; b < 8; b++) {
        const uint8_t(*slice)[64] = codes.vectors + 8 * b;
        const uint8_t* first[5] = {slice[0], slice[1], slice[2], slice[3], slice[4]};
        pack_digits(first, out + 64 * b);
        if (b % 2) {
            const uint8_t* shared[5] = {slice[-3], slice[-2], slice[-1], slice[5], slice[6]};
            pack_digits(shared, out + 64 * (8 + b / 2));
            last[b / 2] = slice[7];
        }
    }
    pack_digits(last, out + 64 * 12);
}

}  // namespace
}  // namespace ktchat::KTCHAT_ISA
