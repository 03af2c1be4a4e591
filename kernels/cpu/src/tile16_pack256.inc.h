// Packers of the types whose blocks are 256 columns, with a scale of their own for every 16 or 32:
// the K types and IQ4_XS. The comment of each packer is the layout of the block that it writes.

#include "tile16.h"

#include <cstring>

namespace ktchat::KTCHAT_ISA {
namespace {

// Scale and minimum j of the 12 bytes that Q4_K and Q5_K pack them into (6 bits each).
void read_scale_min(const uint8_t* packed, int j, uint8_t& scale, uint8_t& min) {
    if (j < 4) {
        scale = packed[j] & 63;
        min = packed[j + 4] & 63;
    } else {
        scale = static_cast<uint8_t>((packed[j + 4] & 15) | (packed[j - 4] >> 6) << 4);
        min = static_cast<uint8_t>((packed[j + 4] >> 4) | (packed[j] >> 6) << 4);
    }
}

// d[16], dmin[16] float16; 8 x [16] scale | low 2 bits of the minimum << 6; 4 x [16] its upper
// nibbles of blocks j and j + 4. Returns where the numbers begin.
uint8_t* pack_scale_mins(const uint8_t* source, size_t stride, int rows, size_t at, uint8_t* out) {
    std::memset(out, 0, 4 * R + 12 * R);
    uint8_t *low = out + 4 * R, *high = low + 8 * R;
    for (int r = 0; r < rows; r++) {
        const uint8_t* block = source + static_cast<size_t>(r) * stride;
        copy_half(out, r, block);
        copy_half(out + 2 * R, r, block + 2);
        for (int j = 0; j < 8; j++) {
            uint8_t scale, min;
            read_scale_min(block + at, j, scale, min);
            low[j * R + r] = static_cast<uint8_t>(scale | min << 6);
            high[j % 4 * R + r] |= static_cast<uint8_t>((min >> 2) << (j < 4 ? 0 : 4));
        }
    }
    return high + 4 * R;
}

// Nibbles of Q4_K and Q5_K: 32 bytes hold 64 columns, the lower 32 in the low nibbles.
void read_nibbles32(const uint8_t* from, uint8_t* q) {
    for (int j = 0; j < 4; j++, from += 32, q += 64) {
        for (int i = 0; i < 32; i++) {
            q[i] = from[i] & 15;
            q[i + 32] = from[i] >> 4;
        }
    }
}

void pack_q4_k(const uint8_t* source, size_t stride, int rows, uint8_t* out) {
    BlockCodes<256> codes;
    if (rows < R) std::memset(codes.q, 0, sizeof codes.q);
    uint8_t* numbers = pack_scale_mins(source, stride, rows, 4, out);
    for (int r = 0; r < rows; r++) {
        read_nibbles32(source + static_cast<size_t>(r) * stride + 16, codes.q[r]);
    }
    codes.interleave();
    pack_nibbles(codes, numbers);
}

void pack_q5_k(const uint8_t* source, size_t stride, int rows, uint8_t* out) {
    BlockCodes<256> codes;
    if (rows < R) std::memset(codes.q, 0, sizeof codes.q);
    uint8_t* numbers = pack_scale_mins(source, stride, rows, 4, out);
    for (int r = 0; r < rows; r++) {
        const uint8_t* block = source + static_cast<size_t>(r) * stride;
        const uint8_t* high = block + 16;
        uint8_t* q = codes.q[r];
        read_nibbles32(block + 48, q);
        for (int b = 0; b < 8; b++) {
            for (int i = 0; i < 32; i++) {
                q[32 * b + i] |= static_cast<uint8_t>((high[i] >> b & 1) << 4);
            }
        }
    }
    codes.interleave();
    pack_bits(codes, 4, pack_nibbles(codes, numbers));
}

// d[16] float16; 16 x [16] int8 scales; nibbles; upper pairs
void pack_q6_k(const uint8_t* source, size_t stride, int rows, uint8_t* out) {
    BlockCodes<256> codes;
    if (rows < R) std::memset(codes.q, 0, sizeof codes.q);
    std::memset(out, 0, 2 * R + 16 * R);
    for (int r = 0; r < rows; r++) {
        const uint8_t* block = source + static_cast<size_t>(r) * stride;
        const uint8_t *low = block, *high = block + 128, *scales = block + 192;
        copy_half(out, r, block + 208);
        for (int j = 0; j < 16; j++) out[2 * R + j * R + r] = scales[j];
        uint8_t* q = codes.q[r];
        for (int n = 0; n < 2; n++, low += 64, high += 32, q += 128) {
            for (int i = 0; i < 32; i++) {
                q[i] = static_cast<uint8_t>((low[i] & 15) | (high[i] & 3) << 4);
                q[i + 32] = static_cast<uint8_t>((low[i + 32] & 15) | (high[i] >> 2 & 3) << 4);
                q[i + 64] = static_cast<uint8_t>(low[i] >> 4 | (high[i] >> 4 & 3) << 4);
                q[i + 96] = static_cast<uint8_t>(low[i + 32] >> 4 | (high[i] >> 6) << 4);
            }
        }
    }
    codes.interleave();
    pack_pairs(codes, 4, pack_nibbles(codes, out + 18 * R));
}

// Pairs of Q2_K and Q3_K: 32 bytes hold 128 columns, 32 of them at each shift.
void read_pairs32(const uint8_t* from, uint8_t* q) {
    for (int n = 0; n < 2; n++, from += 32) {
        for (int j = 0; j < 4; j++, q += 32) {
            for (int i = 0; i < 32; i++) q[i] = from[i] >> (2 * j) & 3;
        }
    }
}

// d[16], dmin[16] float16; 16 x [16] scale | minimum << 4; pairs
void pack_q2_k(const uint8_t* source, size_t stride, int rows, uint8_t* out) {
    BlockCodes<256> codes;
    if (rows < R) std::memset(codes.q, 0, sizeof codes.q);
    std::memset(out, 0, 4 * R + 16 * R);
    for (int r = 0; r < rows; r++) {
        const uint8_t* block = source + static_cast<size_t>(r) * stride;
        copy_half(out, r, block + 80);
        copy_half(out + 2 * R, r, block + 82);
        for (int j = 0; j < 16; j++) out[4 * R + j * R + r] = block[j];
        read_pairs32(block + 16, codes.q[r]);
    }
    codes.interleave();
    pack_pairs(codes, 0, out + 20 * R);
}

// d[16] float16; 8 x [16] low nibbles of scales j and j + 8; 4 x [16] upper pairs of scales
// j, j + 4, j + 8, j + 12; pairs; third bits
void pack_q3_k(const uint8_t* source, size_t stride, int rows, uint8_t* out) {
    BlockCodes<256> codes;
    if (rows < R) std::memset(codes.q, 0, sizeof codes.q);
    std::memset(out, 0, 2 * R + 12 * R);
    uint8_t *low = out + 2 * R, *high = low + 8 * R;
    for (int r = 0; r < rows; r++) {
        const uint8_t* block = source + static_cast<size_t>(r) * stride;
        const uint8_t* scales = block + 96;
        copy_half(out, r, block + 108);
        for (int j = 0; j < 16; j++) {
            const int nibble = j < 8 ? scales[j] & 15 : scales[j - 8] >> 4;
            const int pair = scales[8 + j % 4] >> (2 * (j / 4)) & 3;
            low[j % 8 * R + r] |= static_cast<uint8_t>(nibble << (j < 8 ? 0 : 4));
            high[j % 4 * R + r] |= static_cast<uint8_t>(pair << (2 * (j / 4)));
        }
        uint8_t* q = codes.q[r];
        read_pairs32(block + 32, q);
        for (int b = 0; b < 8; b++) {
            for (int i = 0; i < 32; i++) {
                q[32 * b + i] |= static_cast<uint8_t>((block[i] >> b & 1) << 2);
            }
        }
    }
    codes.interleave();
    pack_bits(codes, 2, pack_pairs(codes, 0, out + 14 * R));
}

// d[16] float16; 4 x [16] low nibbles of scales j and j + 4; 2 x [16] upper pairs of scales
// j, j + 2, j + 4, j + 6; nibbles (indices into a table)
void pack_iq4_xs(const uint8_t* source, size_t stride, int rows, uint8_t* out) {
    BlockCodes<256> codes;
    if (rows < R) std::memset(codes.q, 0, sizeof codes.q);
    std::memset(out, 0, 2 * R + 6 * R);
    uint8_t *low = out + 2 * R, *high = low + 4 * R;
    for (int r = 0; r < rows; r++) {
        const uint8_t* block = source + static_cast<size_t>(r) * stride;
        uint16_t pairs;
        std::memcpy(&pairs, block + 2, 2);
        copy_half(out, r, block);
        for (int j = 0; j < 8; j++) {
            const int nibble = block[4 + j / 2] >> (4 * (j % 2)) & 15;
            low[j % 4 * R + r] |= static_cast<uint8_t>(nibble << (j < 4 ? 0 : 4));
            high[j % 2 * R + r] |= static_cast<uint8_t>((pairs >> (2 * j) & 3) << (2 * (j / 2)));
            read_nibbles16(block + 8 + 16 * j, codes.q[r] + 32 * j);
        }
    }
    codes.interleave();
    pack_nibbles(codes, out + 8 * R);
}

}  // namespace
}  // namespace ktchat::KTCHAT_ISA
