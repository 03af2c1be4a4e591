// Pages of a KV cache: integers with a scale for each block of features of a position, laid out as
// the products of attention_products.inc.h read them, so that nothing is converted or transposed
// there. Sums of whole numbers are twice as fast as those of floats, and no order changes them.
//
//   keys     [feature / 2][position][2]   a lane is a position
//   values   [position / 2][feature][2]   a lane is a feature
//   scales   [block][position]            float16, behind the numbers
//
// Features are zero-padded to multiples of 16.

namespace ktchat::KTCHAT_ISA {
namespace {

constexpr int kTile = 128;  // positions whose weights are relative to one maximum
constexpr int kTilePages = kTile / 16;

// The library's own would be shared between instruction sets.
template <class T>
inline T least(T a, T b) {
    return a < b ? a : b;
}

inline int padded(int features) { return (features + 15) / 16 * 16; }

// Rounded up, so that no number exceeds the format's largest.
inline uint16_t scale_above(float scale) {
    const uint16_t half = float_to_half(scale);
    return half_to_float(half) < scale ? static_cast<uint16_t>(half + 1) : half;
}

// The largest magnitude of `n` floats, and the sum of all.
struct Magnitudes {
    float largest;
    float sum;
};

inline Magnitudes magnitudes(const float* x, int n) {
    Vec most = {}, total = {};
    sweep(n, [&](int64_t i, int width) {
        const Vec v = take(x + i, width), magnitude = max(v, -v);
        most = max(most, magnitude);
        total += magnitude;
    });
    return {maximum(most), sum(total)};
}

// What numbers of 16 bits are multiples of that stand for such magnitudes and are multiplied with
// those of a cache; 0 where all are 0.
inline float step_of(const KvFormat& format, const Magnitudes& of) {
    const float by_sum = of.sum / static_cast<float>(format.most), by_largest = of.largest / 32767.0f;
    return by_sum > by_largest ? by_sum : by_largest;
}

// x * factor as whole numbers.
inline IntVec rounded(Vec x, float factor, int limit) {
    const float most = static_cast<float>(limit);
    x *= factor;
    x = x < most ? x : splat(most);
    x = x > -most ? x : splat(-most);
    const float magic = 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer
    return (IntVec)(x + magic) - 0x4b400000;
}

// 2 W floats rounded to 16 bits, which hold them.
inline void store_shorts(int16_t* to, Vec a, Vec b) {
#if defined(__AVX512F__)
    const __m512i low = _mm512_cvtps_epi32((__m512)a), high = _mm512_cvtps_epi32((__m512)b);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), _mm512_cvtepi32_epi16(low));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(to + W), _mm512_cvtepi32_epi16(high));
#elif defined(__AVX2__)
    const __m256i low = _mm256_cvtps_epi32((__m256)a), high = _mm256_cvtps_epi32((__m256)b);
    const __m256i both = _mm256_permute4x64_epi64(_mm256_packs_epi32(low, high), 0xd8);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), both);
#else
    for (int i = 0; i < W; i++) {
        to[i] = static_cast<int16_t>(std::lrint(a[i]));
        to[W + i] = static_cast<int16_t>(std::lrint(b[i]));
    }
#endif
}

template <class Number>
void place_row(const KvFormat& format, const float* x, int features, uint8_t* page, int page_size,
               int slot, bool values) {
    Number* numbers = reinterpret_cast<Number*>(page);
    const int wide = padded(features);
    uint8_t* scales = page + static_cast<size_t>(page_size * wide) * sizeof(Number);
    for (int first = 0, b = 0; first < features; first += format.block, b++) {
        const int n = least(format.block, features - first);
        const float limit = static_cast<float>(format.largest);
        const uint16_t half = scale_above(magnitudes(x + first, n).largest / limit);
        std::memcpy(scales + 2 * (b * page_size + slot), &half, 2);
        const float factor = half ? 1.0f / half_to_float(half) : 0.0f;
        sweep(n, [&](int64_t i, int width) {
            const IntVec whole = rounded(take(x + first + i, width), factor, format.largest);
            for (int k = 0; k < width; k++) {
                const int f = first + static_cast<int>(i) + k;
                const int at = values ? (slot / 2 * wide + f) * 2 + slot % 2
                                      : (f / 2 * page_size + slot) * 2 + f % 2;
                numbers[at] = static_cast<Number>(whole[k]);
            }
        });
    }
}

void append_row(const KvFormat& format, const float* x, int features, uint8_t* page, int page_size,
                int slot, bool values) {
    const auto place = format.bytes == 1 ? place_row<int8_t> : place_row<int16_t>;
    place(format, x, features, page, page_size, slot, values);
}

// W pairs of numbers, as 16 bits each.
template <class Number>
inline IntVec load_pairs(const Number* p) {
    if constexpr (sizeof(Number) == 2) {
        return (IntVec)load(p);
    } else {
#if defined(__AVX512F__)
        return (IntVec)_mm512_cvtepi8_epi16(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
#elif defined(__AVX2__)
        return (IntVec)_mm256_cvtepi8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
#else
        IntVec v;
        for (int i = 0; i < W; i++) v[i] = (p[2 * i] & 0xffff) | p[2 * i + 1] * 65536;
        return v;
#endif
    }
}

typedef int64_t LongVec __attribute__((vector_size(W * 4)));
typedef int16_t ShortVec __attribute__((vector_size(W * 4)));

template <int S, int... I>
inline void exchange(LongVec& a, LongVec& b, std::integer_sequence<int, I...>) {
    constexpr int N = W / 2;
    const LongVec low = __builtin_shufflevector(a, b, ((I & S) ? N + (I ^ S) : I)...);
    b = __builtin_shufflevector(a, b, ((I & S) ? N + I : (I ^ S))...);
    a = low;
}

template <int... I>
inline LongVec interleave_pairs(IntVec v, std::integer_sequence<int, I...>) {
    const ShortVec s = (ShortVec)v;
    return (LongVec)__builtin_shufflevector(s, s, ((I & ~3) | (I & 1) << 1 | (I >> 1 & 1))...);
}

// The first `features` of a page's keys, laid out as values of 16 bits.
template <class Number>
void keys_as_values(const Number* keys, int page_size, int features, int16_t* values) {
    constexpr int N = W / 2;
    const auto lanes = std::make_integer_sequence<int, N>{};
    for (int position = 0; position < page_size; position += W) {
        for (int f = 0; f < features; f += 2 * N) {
            LongVec v[N];
            for (int i = 0; i < N; i++) {
                const Number* from = keys + ((f / 2 + i) * page_size + position) * 2;
                v[i] = interleave_pairs(load_pairs(from), std::make_integer_sequence<int, 2 * W>{});
            }
            if constexpr (N >= 2) {
                for (int i = 0; i < N; i += 2) exchange<1>(v[i], v[i + 1], lanes);
            }
            if constexpr (N >= 4) {
                for (int i = 0; i < N; i++) {
                    if (!(i & 2)) exchange<2>(v[i], v[i + 2], lanes);
                }
            }
            if constexpr (N >= 8) {
                for (int i = 0; i < N; i++) {
                    if (!(i & 4)) exchange<4>(v[i], v[i + 4], lanes);
                }
            }
            for (int i = 0; i < N; i++) {
                std::memcpy(values + ((position / 2 + i) * features + f) * 2, &v[i], sizeof v[i]);
            }
        }
    }
}

// Asks for cache lines that are read soon, a few at a time between the arithmetic: the hardware
// cannot foresee the scattered pages, and a core has few outstanding misses.
class Ahead {
public:
    void add(const uint8_t* begin, size_t bytes) {
        begin_[count_] = begin;
        end_[count_++] = begin + bytes;
        total_ += static_cast<int>((bytes + 63) / 64);
    }
    // In so many steps.
    void begin(int steps) {
        at_ = count_ ? begin_[0] : nullptr;
        lines_ = (total_ + steps - 1) / steps;
    }
    inline void step() {
        for (int i = 0; i < lines_ && now_ < count_; i++) {
            __builtin_prefetch(at_);
            at_ += 64;
            if (at_ < end_[now_]) continue;
            now_++;
            at_ = now_ < count_ ? begin_[now_] : nullptr;
        }
    }

private:
    const uint8_t* begin_[kTilePages];
    const uint8_t* end_[kTilePages];
    const uint8_t* at_ = nullptr;
    int count_ = 0;
    int now_ = 0;
    int total_ = 0;
    int lines_ = 0;
};

}  // namespace
}  // namespace ktchat::KTCHAT_ISA
