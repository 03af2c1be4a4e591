// The types of one or two bits, or of three values (tile16_pack_ternary.inc.h has their layouts).

#include "tile16.h"

namespace ktchat::KTCHAT_ISA {
namespace {

// value = d * (q - 1)
template <int Cols>
struct OneScaleTernary {
    static constexpr int kCols = Cols, kGroup = 32, kMost = 3;
    static constexpr bool kWide = false;
    struct Header {
        Vec d;
    };
    static Header header(const uint8_t* block, int lane) { return {load_half(block + 2 * lane)}; }
    static void unpack(const uint8_t* block, int64_t b, int lane, Bytes* w) {
        pairs(block + 32 + 128 * b, lane, w);
    }
    static void scales(const Header& h, const uint8_t*, int64_t, int, Vec& scale, Vec& min) {
        scale = min = h.d;
    }
};
using TypeTQ2_0 = OneScaleTernary<256>;
using TypeQ2_0 = OneScaleTernary<64>;

// The digit before the point of three times x, a fraction of 256: three quarters of the number below
// it have the digit as their upper bits.
inline Bytes digit(Bytes x) {
#if defined(__AVX512F__)
    const __m512i below = _mm512_subs_epu8((__m512i)x, _mm512_set1_epi8(1));
    const __m512i half = _mm512_avg_epu8(below, _mm512_setzero_si512());
    return right((Bytes)_mm512_avg_epu8(below, half), 6) & 3;
#elif defined(__AVX2__)
    const __m256i below = _mm256_subs_epu8((__m256i)x, _mm256_set1_epi8(1));
    const __m256i half = _mm256_avg_epu8(below, _mm256_setzero_si256());
    return right((Bytes)_mm256_avg_epu8(below, half), 6) & 3;
#else
    return (Bytes)((x >= 86) & 1) + (Bytes)((x >= 171) & 1);
#endif
}

struct TypeTQ1_0 : OneScaleTernary<256> {
    static constexpr int kMost = 2;
    // The next N digits of x.
    template <int N>
    static void digits(Bytes& x, Bytes* w) {
#pragma GCC unroll 5
        for (int n = 0; n < N; n++) {
            w[n] = digit(x);
            x = x + x + x;
        }
    }
    static void unpack(const uint8_t* block, int64_t b, int lane, Bytes* w) {
        const uint8_t* vectors = block + 32 + 4 * lane;
        Bytes first = load_bytes(vectors + 64 * b);
        digits<5>(first, w);
        Bytes shared = load_bytes(vectors + 64 * (8 + b / 2));
        if (b % 2 == 0) {
            digits<3>(shared, w + 5);
            return;
        }
        digits<2>(shared *= 27, w + 5);
        Bytes last = load_bytes(vectors + 64 * 12);
        for (int64_t n = 0; n < b / 2; n++) last = last + last + last;
        w[7] = digit(last);
    }
};

// value = d * (2 q - 1)
struct TypeQ1_0 : OneScaleTernary<128> {
    static constexpr int kMost = 1;
    static void unpack(const uint8_t* block, int64_t b, int lane, Bytes* w) {
        const Bytes packed = load_bytes(block + 32 + 64 * b + 4 * lane);
#pragma GCC unroll 8
        for (int k = 0; k < 8; k++) w[k] = right(packed, k) & 1;
    }
    static void scales(const Header& h, const uint8_t*, int64_t, int, Vec& scale, Vec& min) {
        scale = h.d * 2.0f;
        min = h.d;
    }
};

}  // namespace
}  // namespace ktchat::KTCHAT_ISA
