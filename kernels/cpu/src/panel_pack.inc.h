// From the file's rows to panels. Each type says how a block of one row is read (q in the order of
// its columns, and scales); the bits of 16 such rows are then interleaved and packed again.

#include "panel.h"

#include <cstring>

namespace ktchat::KTCHAT_ISA {
namespace {

constexpr int R = kPanelRows;

// Values of a cell before packing: `q` row by row, `vectors[g]` = columns 4g .. 4g + 3 of all rows.
template <int Cols>
struct Cell {
    alignas(64) uint8_t q[R][Cols];
    alignas(64) uint8_t vectors[Cols / 4][64];

    void interleave() {
        for (int r = 0; r < R; r++) {
            for (int g = 0; g < Cols / 4; g++) std::memcpy(vectors[g] + 4 * r, q[r] + 4 * g, 4);
        }
    }
};

// Vector v of a block of 8 holds the low nibbles of vector v and those of vector v + 4 above them.
template <int Cols>
uint8_t* pack_nibbles(const Cell<Cols>& cell, uint8_t* out) {
    for (int b = 0; b < Cols / 32; b++) {
        for (int v = 0; v < 4; v++, out += 64) {
            const uint8_t* low = cell.vectors[8 * b + v];
            const uint8_t* high = cell.vectors[8 * b + v + 4];
            for (int i = 0; i < 64; i++)
                out[i] = static_cast<uint8_t>((low[i] & 15) | high[i] << 4);
        }
    }
    return out;
}

// Bits `shift`, `shift + 1` of four vectors in one: vector v of a block holds v, v + 2, v + 4, v
// + 6.
template <int Cols>
uint8_t* pack_pairs(const Cell<Cols>& cell, int shift, uint8_t* out) {
    for (int b = 0; b < Cols / 32; b++) {
        for (int v = 0; v < 2; v++, out += 64) {
            std::memset(out, 0, 64);
            for (int k = 0; k < 4; k++) {
                const uint8_t* from = cell.vectors[8 * b + v + 2 * k];
                for (int i = 0; i < 64; i++) {
                    out[i] = static_cast<uint8_t>(out[i] | ((from[i] >> shift) & 3) << (2 * k));
                }
            }
        }
    }
    return out;
}

// Bit `shift` of the eight vectors of a block in one.
template <int Cols>
uint8_t* pack_bits(const Cell<Cols>& cell, int shift, uint8_t* out) {
    for (int b = 0; b < Cols / 32; b++, out += 64) {
        std::memset(out, 0, 64);
        for (int k = 0; k < 8; k++) {
            const uint8_t* from = cell.vectors[8 * b + k];
            for (int i = 0; i < 64; i++) {
                out[i] = static_cast<uint8_t>(out[i] | ((from[i] >> shift) & 1) << k);
            }
        }
    }
    return out;
}

template <int Cols>
uint8_t* pack_bytes(const Cell<Cols>& cell, uint8_t* out) {
    std::memcpy(out, cell.vectors, sizeof cell.vectors);
    return out + sizeof cell.vectors;
}

void copy_half(uint8_t* lanes, int row, const uint8_t* from) {
    std::memcpy(lanes + 2 * row, from, 2);
}

// ---- blocks of 32: a float16 scale (MXFP4: a power of two), then numbers
// -------------------------

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

// d[16] float16, nibbles
void pack_q4_0(const uint8_t* source, size_t stride, int rows, uint8_t* out) {
    Cell<32> cell = {};
    std::memset(out, 0, 2 * R);
    for (int r = 0; r < rows; r++) {
        const uint8_t* block = source + static_cast<size_t>(r) * stride;
        copy_half(out, r, block);
        read_nibbles16(block + 2, cell.q[r]);
    }
    cell.interleave();
    pack_nibbles(cell, out + 2 * R);
}

// d[16] float16, nibbles, fifth bits
void pack_q5_0(const uint8_t* source, size_t stride, int rows, uint8_t* out) {
    Cell<32> cell = {};
    std::memset(out, 0, 2 * R);
    for (int r = 0; r < rows; r++) {
        const uint8_t* block = source + static_cast<size_t>(r) * stride;
        copy_half(out, r, block);
        read_nibbles16(block + 6, cell.q[r]);
        for (int i = 0; i < 4; i++) {  // little-endian, as the file is
            uint64_t columns;
            std::memcpy(&columns, cell.q[r] + 8 * i, 8);
            columns |= kSpread.of[block[2 + i]];
            std::memcpy(cell.q[r] + 8 * i, &columns, 8);
        }
    }
    cell.interleave();
    pack_bits(cell, 4, pack_nibbles(cell, out + 2 * R));
}

// d[16] float16, bytes (q + 128)
void pack_q8_0(const uint8_t* source, size_t stride, int rows, uint8_t* out) {
    Cell<32> cell = {};
    std::memset(out, 0, 2 * R);
    for (int r = 0; r < rows; r++) {
        const uint8_t* block = source + static_cast<size_t>(r) * stride;
        copy_half(out, r, block);
        for (int i = 0; i < 32; i++) cell.q[r][i] = block[2 + i] ^ 0x80;
    }
    cell.interleave();
    pack_bytes(cell, out + 2 * R);
}

// exponent[16], nibbles (places in a table)
void pack_mxfp4(const uint8_t* source, size_t stride, int rows, uint8_t* out) {
    Cell<32> cell = {};
    std::memset(out, 0, R);
    for (int r = 0; r < rows; r++) {
        const uint8_t* block = source + static_cast<size_t>(r) * stride;
        out[r] = block[0];
        read_nibbles16(block + 1, cell.q[r]);
    }
    cell.interleave();
    pack_nibbles(cell, out + R);
}

// ---- blocks of 256
// -------------------------------------------------------------------------------

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
    Cell<256> cell;
    if (rows < R) std::memset(cell.q, 0, sizeof cell.q);
    uint8_t* numbers = pack_scale_mins(source, stride, rows, 4, out);
    for (int r = 0; r < rows; r++) {
        read_nibbles32(source + static_cast<size_t>(r) * stride + 16, cell.q[r]);
    }
    cell.interleave();
    pack_nibbles(cell, numbers);
}

void pack_q5_k(const uint8_t* source, size_t stride, int rows, uint8_t* out) {
    Cell<256> cell;
    if (rows < R) std::memset(cell.q, 0, sizeof cell.q);
    uint8_t* numbers = pack_scale_mins(source, stride, rows, 4, out);
    for (int r = 0; r < rows; r++) {
        const uint8_t* block = source + static_cast<size_t>(r) * stride;
        const uint8_t* high = block + 16;
        uint8_t* q = cell.q[r];
        read_nibbles32(block + 48, q);
        for (int b = 0; b < 8; b++) {
            for (int i = 0; i < 32; i++) {
                q[32 * b + i] |= static_cast<uint8_t>((high[i] >> b & 1) << 4);
            }
        }
    }
    cell.interleave();
    pack_bits(cell, 4, pack_nibbles(cell, numbers));
}

// d[16] float16; 16 x [16] int8 scales; nibbles; upper pairs
void pack_q6_k(const uint8_t* source, size_t stride, int rows, uint8_t* out) {
    Cell<256> cell;
    if (rows < R) std::memset(cell.q, 0, sizeof cell.q);
    std::memset(out, 0, 2 * R + 16 * R);
    for (int r = 0; r < rows; r++) {
        const uint8_t* block = source + static_cast<size_t>(r) * stride;
        const uint8_t *low = block, *high = block + 128, *scales = block + 192;
        copy_half(out, r, block + 208);
        for (int j = 0; j < 16; j++) out[2 * R + j * R + r] = scales[j];
        uint8_t* q = cell.q[r];
        for (int n = 0; n < 2; n++, low += 64, high += 32, q += 128) {
            for (int i = 0; i < 32; i++) {
                q[i] = static_cast<uint8_t>((low[i] & 15) | (high[i] & 3) << 4);
                q[i + 32] = static_cast<uint8_t>((low[i + 32] & 15) | (high[i] >> 2 & 3) << 4);
                q[i + 64] = static_cast<uint8_t>(low[i] >> 4 | (high[i] >> 4 & 3) << 4);
                q[i + 96] = static_cast<uint8_t>(low[i + 32] >> 4 | (high[i] >> 6) << 4);
            }
        }
    }
    cell.interleave();
    pack_pairs(cell, 4, pack_nibbles(cell, out + 18 * R));
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
    Cell<256> cell;
    if (rows < R) std::memset(cell.q, 0, sizeof cell.q);
    std::memset(out, 0, 4 * R + 16 * R);
    for (int r = 0; r < rows; r++) {
        const uint8_t* block = source + static_cast<size_t>(r) * stride;
        copy_half(out, r, block + 80);
        copy_half(out + 2 * R, r, block + 82);
        for (int j = 0; j < 16; j++) out[4 * R + j * R + r] = block[j];
        read_pairs32(block + 16, cell.q[r]);
    }
    cell.interleave();
    pack_pairs(cell, 0, out + 20 * R);
}

// d[16] float16; 8 x [16] low nibbles of scales j and j + 8; 4 x [16] upper pairs of scales
// j, j + 4, j + 8, j + 12; pairs; third bits
void pack_q3_k(const uint8_t* source, size_t stride, int rows, uint8_t* out) {
    Cell<256> cell;
    if (rows < R) std::memset(cell.q, 0, sizeof cell.q);
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
        uint8_t* q = cell.q[r];
        read_pairs32(block + 32, q);
        for (int b = 0; b < 8; b++) {
            for (int i = 0; i < 32; i++) {
                q[32 * b + i] |= static_cast<uint8_t>((block[i] >> b & 1) << 2);
            }
        }
    }
    cell.interleave();
    pack_bits(cell, 2, pack_pairs(cell, 0, out + 14 * R));
}

// d[16] float16; 4 x [16] low nibbles of scales j and j + 4; 2 x [16] upper pairs of scales
// j, j + 2, j + 4, j + 6; nibbles (places in a table)
void pack_iq4_xs(const uint8_t* source, size_t stride, int rows, uint8_t* out) {
    Cell<256> cell;
    if (rows < R) std::memset(cell.q, 0, sizeof cell.q);
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
            read_nibbles16(block + 8 + 16 * j, cell.q[r] + 32 * j);
        }
    }
    cell.interleave();
    pack_nibbles(cell, out + 8 * R);
}

constexpr PanelType kTypes[] = {
    {2, 32, 18, 16 * 18, pack_q4_0},     {6, 32, 22, 16 * 22, pack_q5_0},
    {8, 32, 34, 16 * 34, pack_q8_0},     {10, 256, 84, 16 * 84, pack_q2_k},
    {11, 256, 110, 16 * 110, pack_q3_k}, {12, 256, 144, 16 * 144, pack_q4_k},
    {13, 256, 176, 16 * 176, pack_q5_k}, {14, 256, 210, 16 * 210, pack_q6_k},
    {20, 32, 18, 16 * 18, pack_q4_0},    {23, 256, 136, 16 * 136, pack_iq4_xs},
    {39, 32, 17, 16 * 17, pack_mxfp4},
};

const PanelType* find_panel_type(int type) {
    for (const PanelType& panel : kTypes) {
        if (panel.type == type) return &panel;
    }
    return nullptr;
}

}  // namespace
}  // namespace ktchat::KTCHAT_ISA
