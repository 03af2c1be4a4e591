// Packers of the types whose weights are points of a grid: IQ1, IQ2 and IQ3. A block of 256 columns
// is d[16] float16, the scales of its groups, then 8 slices of 32 columns:
//
//   indices   64 bytes, or 128 where a point has 4 coordinates: the low bytes of each row's indices
//             as 16 x 4, points of 8 in the order 0, 2, 1, 3
//   planes    their further bits: for each bit a plane of the even bytes (bit 2 * row + i is that
//             of byte 2i of the row) and one of the odd ones, 4 bytes each
//   signs     of each vector of 64 weights a bit for every byte, 8 bytes; where the sign of every
//             eighth column follows from the others' parity, the last vector of each half of the
//             slice shares one: bits 0, 2, 4 .. are the first half's
//
// IQ1_M has a plane of its shifts before the place of the signs.

#include "tile16.h"

#include <cstring>

namespace ktchat::KTCHAT_ISA {
namespace {

// What a slice has: `Point` coordinates of a point, `Planes` bits of an index above the eighth,
// `Shifts` planes of shifts, `Signs` bits of signs for 8 columns (0, 7 or 8).
template <int Point, int Planes, int Shifts, int Signs>
struct LatticeSlice {
    static constexpr int kPoint = Point, kPlanes = Planes, kSigns = Signs;
    static constexpr int kVectors = 8 / Point;  // of indices
    static constexpr int kPlanesAt = 64 * kVectors;
    static constexpr int kShiftsAt = kPlanesAt + 8 * Planes * kVectors;
    static constexpr int kSignsAt = kShiftsAt + 8 * Shifts;
    static constexpr int kBytes = kSignsAt + 8 * Signs;
};
using SliceIQ1_S = LatticeSlice<8, 3, 0, 0>;
using SliceIQ1_M = LatticeSlice<8, 3, 1, 0>;
using SliceIQ2_XXS = LatticeSlice<8, 0, 0, 7>;
using SliceIQ2_XS = LatticeSlice<8, 1, 0, 7>;
using SliceIQ2_S = LatticeSlice<8, 2, 0, 8>;
using SliceIQ3_XXS = LatticeSlice<4, 0, 0, 7>;
using SliceIQ3_S = LatticeSlice<4, 1, 0, 8>;

// One row of a slice as the file has it.
struct LatticeRow {
    uint16_t index[8];  // of its points
    uint8_t signs[4];   // a bit is set where a weight of 8 columns is negative
    uint8_t shifts;     // a bit for every 8 columns
};

// The most significant bit of each byte.
inline uint64_t top_bits(const uint8_t* bytes) {
    uint64_t bits = 0;
#if defined(__AVX2__)
    for (int i = 0; i < 64; i += 16) {
        const __m128i v = _mm_loadu_si128(reinterpret_cast<const __m128i*>(bytes + i));
        bits |= static_cast<uint64_t>(_mm_movemask_epi8(v)) << i;
    }
#else
    for (int i = 0; i < 64; i++) bits |= static_cast<uint64_t>(bytes[i] >> 7) << i;
#endif
    return bits;
}

template <class Slice>
void pack_lattice_signs(const LatticeRow* rows, uint8_t* out) {
    BlockCodes<32> signs = {};
    for (int r = 0; r < R; r++) {
        for (int g = 0; g < 4; g++) {
            const uint64_t spread = kSpread.of[rows[r].signs[g]] << 3;
            std::memcpy(signs.q[r] + 8 * g, &spread, 8);
        }
    }
    signs.interleave();
    uint64_t last = 0;
    for (int k = 0; k < 8; k++) {
        const uint64_t bits = top_bits(signs.vectors[k]);
        if (Slice::kSigns == 7 && k % 4 == 3) {
            last |= (bits & 0x5555555555555555u) << (k / 4);
        } else {
            std::memcpy(out, &bits, 8);
            out += 8;
        }
    }
    if (Slice::kSigns == 7) std::memcpy(out, &last, 8);
}

template <class Slice>
void pack_lattice_slice(const LatticeRow* rows, uint8_t* out) {
    std::memset(out, 0, Slice::kSignsAt);
    for (int r = 0; r < R; r++) {
        for (int v = 0; v < Slice::kVectors; v++) {
            for (int i = 0; i < 4; i++) {
                const int point = Slice::kPoint == 8 ? 2 * (i % 2) + i / 2 : 4 * v + i;
                const uint16_t index = rows[r].index[point];
                out[64 * v + 4 * r + i] = static_cast<uint8_t>(index);
                for (int p = 0; p < Slice::kPlanes; p++) {
                    const int bit = 2 * r + i / 2;
                    uint8_t* plane = out + Slice::kPlanesAt + 8 * (Slice::kPlanes * v + p);
                    plane[4 * (i % 2) + bit / 8] |=
                        static_cast<uint8_t>((index >> (8 + p) & 1) << bit % 8);
                }
            }
        }
        if (Slice::kSignsAt > Slice::kShiftsAt) {
            for (int g = 0; g < 4; g++) {
                const int bit = 2 * r + g % 2;
                out[Slice::kShiftsAt + 4 * (g / 2) + bit / 8] |=
                    static_cast<uint8_t>((rows[r].shifts >> g & 1) << bit % 8);
            }
        }
    }
    if (Slice::kSigns) pack_lattice_signs<Slice>(rows, out + Slice::kSignsAt);
}

// `read(block, b, row)` reads slice b of a row's block.
template <class Slice, class Read>
void pack_lattice_slices(const uint8_t* source, size_t stride, int rows, uint8_t* out,
                         const Read& read) {
    for (int b = 0; b < 8; b++, out += Slice::kBytes) {
        LatticeRow slice[R] = {};
        for (int r = 0; r < rows; r++) read(source + static_cast<size_t>(r) * stride, b, slice[r]);
        pack_lattice_slice<Slice>(slice, out);
    }
}

// d[16]; `Count` scales of 4 bits, scale j and scale j + Count / 2 in a byte: scale(block, j).
template <int Count, class Scale>
uint8_t* pack_lattice_scales(const uint8_t* source, size_t stride, int rows, uint8_t* out,
                             const Scale& scale) {
    std::memset(out, 0, 2 * R + Count / 2 * R);
    for (int r = 0; r < rows; r++) {
        const uint8_t* block = source + static_cast<size_t>(r) * stride;
        copy_half(out, r, block);
        for (int j = 0; j < Count; j++) {
            const unsigned nibble = scale(block, j) & 15u;
            out[2 * R + j % (Count / 2) * R + r] |=
                static_cast<uint8_t>(nibble << (j < Count / 2 ? 0 : 4));
        }
    }
    return out + 2 * R + Count / 2 * R;
}

inline unsigned read16(const uint8_t* p) { return p[0] | p[1] << 8; }
inline uint32_t read32(const uint8_t* p) { return read16(p) | read16(p + 2) << 16; }
inline unsigned nibble(const uint8_t* p, int i) { return p[i / 2] >> (4 * (i % 2)) & 15u; }

// The sign of an eighth column makes their number even; the packer leaves it out.
inline void read_signs7(uint32_t packed, LatticeRow& row) {
    for (int g = 0; g < 4; g++) row.signs[g] = static_cast<uint8_t>(packed >> (7 * g) & 127);
}

void pack_iq2_xxs(const uint8_t* source, size_t stride, int rows, uint8_t* out) {
    uint8_t* slices = pack_lattice_scales<8>(
        source, stride, rows, out,
        [](const uint8_t* block, int j) { return read32(block + 2 + 8 * j + 4) >> 28; });
    pack_lattice_slices<SliceIQ2_XXS>(
        source, stride, rows, slices, [](const uint8_t* block, int b, LatticeRow& row) {
            const uint8_t* at = block + 2 + 8 * b;
            for (int i = 0; i < 4; i++) row.index[i] = at[i];
            read_signs7(read32(at + 4), row);
        });
}

void pack_iq2_xs(const uint8_t* source, size_t stride, int rows, uint8_t* out) {
    uint8_t* slices =
        pack_lattice_scales<16>(source, stride, rows, out, [](const uint8_t* block, int j) {
            return nibble(block + 66, j);
        });
    pack_lattice_slices<SliceIQ2_XS>(
        source, stride, rows, slices, [](const uint8_t* block, int b, LatticeRow& row) {
            for (int i = 0; i < 4; i++) {
                const unsigned word = read16(block + 2 + 8 * b + 2 * i);
                row.index[i] = static_cast<uint16_t>(word & 511);
                row.signs[i] = static_cast<uint8_t>(word >> 9);
            }
        });
}

void pack_iq2_s(const uint8_t* source, size_t stride, int rows, uint8_t* out) {
    uint8_t* slices =
        pack_lattice_scales<16>(source, stride, rows, out, [](const uint8_t* block, int j) {
            return nibble(block + 74, j);
        });
    pack_lattice_slices<SliceIQ2_S>(
        source, stride, rows, slices, [](const uint8_t* block, int b, LatticeRow& row) {
            for (int i = 0; i < 4; i++) {
                const int high = block[66 + b] >> (2 * i) & 3;
                row.index[i] = static_cast<uint16_t>(block[2 + 4 * b + i] | high << 8);
                row.signs[i] = block[34 + 4 * b + i];
            }
        });
}

void pack_iq3_xxs(const uint8_t* source, size_t stride, int rows, uint8_t* out) {
    uint8_t* slices =
        pack_lattice_scales<8>(source, stride, rows, out, [](const uint8_t* block, int j) {
            return read32(block + 66 + 4 * j) >> 28;
        });
    pack_lattice_slices<SliceIQ3_XXS>(
        source, stride, rows, slices, [](const uint8_t* block, int b, LatticeRow& row) {
            for (int i = 0; i < 8; i++) row.index[i] = block[2 + 8 * b + i];
            read_signs7(read32(block + 66 + 4 * b), row);
        });
}

void pack_iq3_s(const uint8_t* source, size_t stride, int rows, uint8_t* out) {
    uint8_t* slices =
        pack_lattice_scales<8>(source, stride, rows, out, [](const uint8_t* block, int j) {
            return nibble(block + 106, j);
        });
    pack_lattice_slices<SliceIQ3_S>(
        source, stride, rows, slices, [](const uint8_t* block, int b, LatticeRow& row) {
            for (int i = 0; i < 8; i++) {
                const int high = block[66 + b] >> i & 1;
                row.index[i] = static_cast<uint16_t>(block[2 + 8 * b + i] | high << 8);
            }
            std::memcpy(row.signs, block + 74 + 4 * b, 4);
        });
}

// A scale's fourth bit is the sign of its shift.
void pack_iq1_s(const uint8_t* source, size_t stride, int rows, uint8_t* out) {
    uint8_t* slices =
        pack_lattice_scales<8>(source, stride, rows, out, [](const uint8_t* block, int j) {
            return read16(block + 34 + 2 * j) >> 12;
        });
    pack_lattice_slices<SliceIQ1_S>(
        source, stride, rows, slices, [](const uint8_t* block, int b, LatticeRow& row) {
            const unsigned high = read16(block + 34 + 2 * b);
            for (int i = 0; i < 4; i++) {
                row.index[i] =
                    static_cast<uint16_t>(block[2 + 4 * b + i] | (high >> (3 * i) & 7) << 8);
            }
        });
}

// Scales of 3 bits: 4 x [16] the low pairs of scales j, j + 4, j + 8, j + 12; 2 x [16] the third
// bits of scales j, j + 2 ...
void pack_iq1_m(const uint8_t* source, size_t stride, int rows, uint8_t* out) {
    std::memset(out, 0, 2 * R + 6 * R);
    uint8_t *low = out + 2 * R, *high = low + 4 * R;
    for (int r = 0; r < rows; r++) {
        const uint8_t* words = source + static_cast<size_t>(r) * stride + 48;
        unsigned d = 0;
        for (int i = 0; i < 4; i++) d |= read16(words + 2 * i) >> 12 << (4 * i);
        const uint8_t half[2] = {static_cast<uint8_t>(d), static_cast<uint8_t>(d >> 8)};
        copy_half(out, r, half);
        for (int j = 0; j < 16; j++) {
            const unsigned scale = read16(words + 2 * (j / 4)) >> (3 * (j % 4)) & 7;
            low[j % 4 * R + r] |= static_cast<uint8_t>((scale & 3) << (2 * (j / 4)));
            high[j % 2 * R + r] |= static_cast<uint8_t>((scale >> 2) << (j / 2));
        }
    }
    pack_lattice_slices<SliceIQ1_M>(
        source, stride, rows, high + 2 * R, [](const uint8_t* block, int b, LatticeRow& row) {
            for (int i = 0; i < 4; i++) {
                const unsigned high = nibble(block + 32, 4 * b + i);
                row.index[i] = static_cast<uint16_t>(block[4 * b + i] | (high & 7) << 8);
                row.shifts |= static_cast<uint8_t>((high >> 3) << i);
            }
        });
}

}  // namespace
}  // namespace ktchat::KTCHAT_ISA
