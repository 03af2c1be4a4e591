// Packers of the types of ik_llama.cpp (ik_formats.inc.h). The comment of each is the layout of the
// block that it writes.

#include "tile16.h"

#include <cstring>

namespace ktchat::KTCHAT_ISA {
namespace {

// d[16] float16 where the block has one; [16] of every other byte of its head
template <class Format>
uint8_t* pack_head(const uint8_t* source, size_t stride, int rows, uint8_t* out) {
    std::memset(out, 0, Format::kHead * R);
    for (int r = 0; r < rows; r++, source += stride) {
        if (Format::kScale) copy_half(out, r, source);
        for (int i = Format::kScale ? 2 : 0; i < Format::kHead; i++) out[i * R + r] = source[i];
    }
    return out + Format::kHead * R;
}

// head; nibbles or pairs; upper pairs or bits
template <class Format>
void pack_ik(const uint8_t* source, size_t stride, int rows, uint8_t* out) {
    BlockCodes<Format::kCols> codes;
    if (rows < R) std::memset(codes.q, 0, sizeof codes.q);
    out = pack_head<Format>(source, stride, rows, out);
    for (int r = 0; r < rows; r++, source += stride) Format::read(source, codes.q[r]);
    codes.interleave();
    constexpr int kBits = Format::kBits;
    out = kBits < 4 ? pack_pairs(codes, 0, out) : pack_nibbles(codes, out);
    if (kBits == 3 || kBits == 5) pack_bits(codes, kBits - 1, out);
    if (kBits == 6) pack_pairs(codes, 4, out);
}

// Of the eight words of 16 bits that a row has in a slice words v and v + 4, for v = 0 .. 3
void pack_iq4_kss(const uint8_t* source, size_t stride, int rows, uint8_t* out) {
    std::memset(out, 0, 128 * R);
    for (int r = 0; r < rows; r++, source += stride) {
        for (int i = 0; i < 64; i++) {  // word i % 8 of slice i / 8
            const int at = 64 * (i / 8 * 4 + i % 4) + 4 * r + i % 8 / 4 * 2;
            std::memcpy(out + at, source + 2 * i, 2);
        }
    }
}

// head; low nibbles of a slice's codes; fifth bits of two slices. A row has sixteen codes in a
// slice, for two columns each: vector m has those whose first columns are in vector 2 m of kOrder,
// and their second ones in the next.
void pack_iq2_kl(const uint8_t* source, size_t stride, int rows, uint8_t* out) {
    out = pack_head<FormatIQ2_KL>(source, stride, rows, out);
    uint8_t* high = out + 64 * R;
    std::memset(out, 0, 80 * R);
    for (int r = 0; r < rows; r++, source += stride) {
        uint8_t q[256];
        FormatIQ2_KL::read(source, q);
        for (int i = 0; i < 128; i++) {
            const int b = i / 16, m = i % 16 / 8 * 2 + i % 4 / 2, code = q[2 * i] / 2;
            const int byte = 4 * r + i % 8 / 4 * 2 + i % 2;
            out[128 * b + 64 * (m % 2) + byte] |= static_cast<uint8_t>((code & 15) << (m / 2 * 4));
            high[64 * (b / 2) + byte] |= static_cast<uint8_t>(code >> 4 << (4 * (b % 2) + m));
        }
    }
}

}  // namespace
}  // namespace ktchat::KTCHAT_ISA
