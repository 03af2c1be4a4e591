// Vectors of bytes, and products of 4 columns with 4 activations.

#include <type_traits>

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

// AVX2 multiplies bytes into sums of 16 bits, of two products each.
#if defined(__AVX2__) && !defined(__AVX512F__)
constexpr bool kShortSums = !kDot4;
#else
constexpr bool kShortSums = false;
#endif

// Steps of 4 columns, at most `most`, whose sums 16 bits hold exactly: a power of 2.
template <class Type>
constexpr int exact_steps(int most, int steps = 1) {
    return 2 * steps <= most && 2 * steps * 2 * 127 * Type::kMost <= 32767
               ? exact_steps<Type>(most, 2 * steps)
               : steps;
}

// Whether dot_steps takes the offset of 128 off the codes itself.
template <class Type>
constexpr bool kOffsetFree = kShortSums && Type::kWide;

// Whether a type's minima have more than the offset.
template <class Type, class = void>
constexpr bool kMoved = false;
template <class Type>
constexpr bool kMoved<Type, std::void_t<decltype(Type::kMoved)>> = Type::kMoved;

template <class Type>
constexpr bool kHasMinima = !kOffsetFree<Type> || kMoved<Type>;

// Bytes of the scale that a row of the type begins with, by which all that it gives is multiplied.
template <class Type, class = void>
constexpr size_t kRowPrefix = 0;
template <class Type>
constexpr size_t kRowPrefix<Type, std::void_t<decltype(Type::kRowPrefix)>> = Type::kRowPrefix;

#if defined(__AVX2__) && !defined(__AVX512F__)
// Products of a step in sums of two; codes that may exceed 127 are less their offset of 128.
template <class Type>
inline __m256i code_products(Bytes w, __m256i numbers) {
    if constexpr (!Type::kWide) return _mm256_maddubs_epi16((__m256i)w, numbers);
    const __m256i value = (__m256i)(w ^ 128);  // its sign goes over to the other side
    return _mm256_maddubs_epi16(_mm256_abs_epi8(value), _mm256_sign_epi8(numbers, value));
}

// Of N steps, whose codes and numbers follow each other.
template <class Type, int N>
inline IntVec short_sums(const Bytes* w, const int8_t* x) {
    constexpr int kRun = Type::kWide ? 1 : exact_steps<Type>(N);
    IntVec acc = {};
#pragma GCC unroll 8
    for (int run = 0; run < N; run += kRun) {
        __m256i part = {};
#pragma GCC unroll 8
        for (int k = run; k < run + kRun; k++) {
            int32_t four;
            std::memcpy(&four, x + 4 * k, 4);
            part = _mm256_add_epi16(part, code_products<Type>(w[k], _mm256_set1_epi32(four)));
        }
        acc += (IntVec)_mm256_madd_epi16(part, _mm256_set1_epi16(1));
    }
    return acc;
}
#endif

// Products of N steps, in each lane those of its row.
template <class Type, int N>
inline IntVec dot_steps(const Bytes* w, const int8_t* x) {
#if defined(__AVX2__) && !defined(__AVX512F__)
    if constexpr (kShortSums) return short_sums<Type, N>(w, x);
#endif
    IntVec even = {}, odd = {};
    for (int k = 0; k < N; k += 2) {
        even = dot4<Type::kWide>(even, w[k], x + 4 * k);
        odd = dot4<Type::kWide>(odd, w[k + 1], x + 4 * k + 4);
    }
    return even + odd;
}

// Slice b of a block. Types that put something by for all slices have it in the header.
template <class Type>
[[gnu::always_inline]] inline auto unpack_slice(const typename Type::Header& h,
                                                const uint8_t* block, int64_t b, int lane,
                                                Bytes* w)
    -> decltype(Type::unpack(h, block, b, lane, w)) {
    Type::unpack(h, block, b, lane, w);
}
template <class Type>
inline auto unpack_slice(const typename Type::Header&, const uint8_t* block, int64_t b, int lane,
                         Bytes* w) -> decltype(Type::unpack(block, b, lane, w)) {
    Type::unpack(block, b, lane, w);
}

}  // namespace
}  // namespace ktchat::KTCHAT_ISA
