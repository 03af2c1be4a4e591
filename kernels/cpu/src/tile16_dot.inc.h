// Vectors of bytes, and products of 4 columns with 4 activations.

#include "tile16.h"

namespace ktchat::KTCHAT_ISA {
namespace {

typedef uint8_t Bytes __attribute__((vector_size(W * 4)));
typedef uint8_t BytesUnaligned __attribute__((vector_size(W * 4), aligned(1), may_alias));

inline Bytes load_bytes(const uint8_t* p) { return *reinterpret_cast<const BytesUnaligned*>(p); }

// W numbers of 8 bits, one a row. GCC's own conversion goes element by element.
inline IntVec widen(const uint8_t* p) {
#if defined(__AVX512F__)
    return (IntVec)_mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
#elif defined(__AVX2__)
    return (IntVec)_mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p)));
#else
    IntVec v;
    for (int i = 0; i < W; i++) v[i] = p[i];
    return v;
#endif
}
inline IntVec widen_signed(const uint8_t* p) {
    return (widen(p) ^ 0x80) - 0x80;
}
inline Vec to_floats(IntVec v) { return __builtin_convertvector(v, Vec); }

// AVX-VNNI adds 4 products of bytes in one instruction, without a limit. Where no processor has it
// the same source is proved with AVX-512's form of the instruction, or with what it stands for.
#if defined(__AVXVNNI__)
constexpr bool kDot4 = true;
inline __m256i dpbusd(__m256i acc, __m256i w, __m256i x) {
    return _mm256_dpbusd_avx_epi32(acc, w, x);
}
#elif KTCHAT_PROVE_AVXVNNI == 512
constexpr bool kDot4 = true;
inline __m256i dpbusd(__m256i acc, __m256i w, __m256i x) { return _mm256_dpbusd_epi32(acc, w, x); }
#elif defined(KTCHAT_PROVE_AVXVNNI)
constexpr bool kDot4 = true;
inline __m256i dpbusd(__m256i acc, __m256i w, __m256i x) {
    const __m256i even = _mm256_madd_epi16(_mm256_and_si256(w, _mm256_set1_epi16(255)),
                                           _mm256_srai_epi16(_mm256_slli_epi16(x, 8), 8));
    const __m256i odd = _mm256_madd_epi16(_mm256_srli_epi16(w, 8), _mm256_srai_epi16(x, 8));
    return _mm256_add_epi32(acc, _mm256_add_epi32(even, odd));
}
#else
constexpr bool kDot4 = false;
#endif

// acc[row] += sum over 4 columns of w * x. `Wide`: w may exceed 127, which 16-bit sums of two
// products do not bear.
template <bool Wide>
inline IntVec dot4(IntVec acc, Bytes w, const int8_t* x) {
    int32_t four;
    std::memcpy(&four, x, 4);
#if defined(__AVX512VNNI__)
    return (IntVec)_mm512_dpbusd_epi32((__m512i)acc, (__m512i)w, _mm512_set1_epi32(four));
#elif defined(__AVX512F__)
    const __m512i v = _mm512_set1_epi32(four), ones = _mm512_set1_epi16(1);
    if constexpr (Wide) {
        const __m512i low = _mm512_maddubs_epi16((__m512i)(w & 127), v);
        const __m512i high = _mm512_maddubs_epi16((__m512i)(w >> 7), v);
        acc += (IntVec)_mm512_madd_epi16(low, ones);
        return acc + (IntVec)_mm512_madd_epi16(high, _mm512_set1_epi16(128));
    }
    return acc + (IntVec)_mm512_madd_epi16(_mm512_maddubs_epi16((__m512i)w, v), ones);
#elif defined(__AVXVNNI__) || defined(KTCHAT_PROVE_AVXVNNI)
    return (IntVec)dpbusd((__m256i)acc, (__m256i)w, _mm256_set1_epi32(four));
#elif defined(__AVX2__)
    const __m256i v = _mm256_set1_epi32(four), ones = _mm256_set1_epi16(1);
    if constexpr (Wide) {
        const __m256i low = _mm256_maddubs_epi16((__m256i)(w & 127), v);
        const __m256i high = _mm256_maddubs_epi16((__m256i)(w >> 7), v);
        acc += (IntVec)_mm256_madd_epi16(low, ones);
        return acc + (IntVec)_mm256_madd_epi16(high, _mm256_set1_epi16(128));
    }
    return acc + (IntVec)_mm256_madd_epi16(_mm256_maddubs_epi16((__m256i)w, v), ones);
#else
    for (int r = 0; r < W; r++) {
        for (int k = 0; k < 4; k++) acc[r] += w[4 * r + k] * x[k];
    }
    return acc;
#endif
}

}  // namespace
}  // namespace ktchat::KTCHAT_ISA
