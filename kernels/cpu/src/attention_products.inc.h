// The two products of attention with the pages of a tile: scores of queries with keys, and sums of
// values, in whole numbers of 16 bits. A register holds W positions, or features, and one number
// of a query, or weight, is multiplied with all of them, so that nothing is added across lanes.

namespace ktchat::KTCHAT_ISA {
namespace {

// Query rows and vectors whose sums are kept in registers.
#if defined(__AVX512F__)
constexpr int kRegisterRows = 8;
#else
constexpr int kRegisterRows = 4;
#endif
constexpr int kRegisterVectors = 2;

// acc + the products of two pairs in each lane.
inline IntVec dot2(IntVec acc, IntVec a, IntVec b) {
#if defined(__AVX512VNNI__)
    return (IntVec)_mm512_dpwssd_epi32((__m512i)acc, (__m512i)a, (__m512i)b);
#elif defined(__AVX512F__)
    return acc + (IntVec)_mm512_madd_epi16((__m512i)a, (__m512i)b);
#elif defined(__AVXVNNI__)
    return (IntVec)_mm256_dpwssd_avx_epi32((__m256i)acc, (__m256i)a, (__m256i)b);
#elif KTCHAT_PROVE_AVXVNNI == 512
    return (IntVec)_mm256_dpwssd_epi32((__m256i)acc, (__m256i)a, (__m256i)b);
#elif defined(__AVX2__)
    return acc + (IntVec)_mm256_madd_epi16((__m256i)a, (__m256i)b);
#else
    return acc + ((a << 16) >> 16) * ((b << 16) >> 16) + (a >> 16) * (b >> 16);
#endif
}

inline IntVec splat_pair(const int16_t* pair) {
    int32_t both;
    std::memcpy(&both, pair, 4);
    return both - IntVec{};
}

// Calls body(row, std::integral_constant) for all rows, as many at once as registers hold.
template <int R = kRegisterRows, class Body>
inline void each_rows(int row, int rows, const Body& body) {
    for (; row + R <= rows; row += R) body(row, std::integral_constant<int, R>{});
    if constexpr (R > 1) {
        if (row < rows) each_rows<R / 2>(row, rows, body);
    }
}

// Query rows as whole numbers: row r of `stride` numbers, and a scale for each of `blocks` blocks.
struct Queries {
    int16_t* numbers;
    float* scales;
    int stride;
    int blocks;
};

// Scores of R query rows from `row` on with V * W positions of a page.
template <class Number, int R, int V>
void score(const Queries& q, int row, const Number* keys, const uint16_t* scales, int page_size,
           int block, float* scores, Ahead* ahead) {
    const int16_t* x = q.numbers + row * q.stride;
    const float* factors = q.scales + row * q.blocks;
    Vec total[R][V] = {};
    for (int b = 0, f = 0; b < q.blocks; b++) {
        const int end = least(f + block, q.stride);
        IntVec acc[R][V] = {};
        for (; f < end; f += 2, keys += 2 * page_size) {
            if (ahead) ahead->step();
            IntVec key[V];
            for (int v = 0; v < V; v++) key[v] = load_pairs(keys + 2 * W * v);
            for (int r = 0; r < R; r++) {
                const IntVec query = splat_pair(x + r * q.stride + f);
                for (int v = 0; v < V; v++) acc[r][v] = dot2(acc[r][v], key[v], query);
            }
        }
        for (int v = 0; v < V; v++) {
            const Vec scale = load_half(scales + b * page_size + W * v);
            for (int r = 0; r < R; r++) {
                total[r][v] += to_floats(acc[r][v]) * (scale * factors[r * q.blocks + b]);
            }
        }
    }
    for (int r = 0; r < R; r++) {
        for (int v = 0; v < V; v++) store(scores + (row + r) * kTile + W * v, total[r][v]);
    }
}

// Scores of all rows with a page, from `scores` on. `ahead` may fetch meanwhile.
template <class Number>
void score_page(const Queries& q, int rows, const uint8_t* page, int page_size, int block,
                float* scores, Ahead* ahead) {
    const Number* keys = reinterpret_cast<const Number*>(page);
    const uint16_t* scales = reinterpret_cast<const uint16_t*>(keys + page_size * q.stride);
    each_rows(0, rows, [&](int row, auto many) {
        constexpr int R = decltype(many)::value;
        int at = 0;
        Ahead* const now = row ? nullptr : ahead;
        for (; at + 2 * W <= page_size; at += 2 * W) {
            score<Number, R, 2>(q, row, keys + 2 * at, scales + at, page_size, block, scores + at,
                                now);
        }
        for (; at < page_size; at += W) {
            score<Number, R, 1>(q, row, keys + 2 * at, scales + at, page_size, block, scores + at,
                                now);
        }
    });
}

// How often scoring a page fetches ahead.
inline int score_steps(const Queries& q, int page_size) {
    return q.stride / 2 * ((page_size / W + 1) / 2);
}

// Weights of a tile's positions as whole numbers, for each row and block of features; and what a
// row's outputs so far, and the sums with these weights, are multiplied by.
struct Weights {
    int16_t* numbers;  // (rows, blocks, kTile)
    float* gains;      // (rows, blocks)
    float* shrinks;
    int blocks;
};

// The values of a tile, page by page; `features` are padded.
template <class Number>
struct Values {
    const Number* pages[kTilePages];
    int count;
    int page_size;
    int features;
};

// outputs = outputs * shrink + gain * (weights @ values) for R rows and V vectors of features of a
// block.
template <class Number, int R, int V>
void add_weighted(const Weights& w, int row, int block, const Values<Number>& values, int feature,
                  float* outputs, Ahead* ahead) {
    const int stride = w.blocks * kTile;
    const int16_t* weights = w.numbers + (row * w.blocks + block) * kTile;
    IntVec acc[R][V] = {};
    for (int p = 0; p < values.count; p++) {
        const Number* from = values.pages[p] + 2 * feature;
        for (int j = 0; j < values.page_size; j += 2, from += 2 * values.features, weights += 2) {
            if (ahead) ahead->step();
            IntVec value[V];
            for (int v = 0; v < V; v++) value[v] = load_pairs(from + 2 * W * v);
            for (int r = 0; r < R; r++) {
                const IntVec weight = splat_pair(weights + r * stride);
                for (int v = 0; v < V; v++) acc[r][v] = dot2(acc[r][v], value[v], weight);
            }
        }
    }
    for (int r = 0; r < R; r++) {
        float* out = outputs + (row + r) * values.features + feature;
        const float gain = w.gains[(row + r) * w.blocks + block], shrink = w.shrinks[row + r];
        for (int v = 0; v < V; v++) {
            store(out + W * v, load(out + W * v) * shrink + to_floats(acc[r][v]) * gain);
        }
    }
}

template <class Number>
void add_values(const Weights& w, int rows, int block, const Values<Number>& values,
                float* outputs, Ahead& ahead) {
    for (int f = 0, step; f < values.features; f += step) {
        step = f + 2 * W <= values.features ? 2 * W : W;
        each_rows(0, rows, [&](int row, auto many) {
            constexpr int R = decltype(many)::value;
            Ahead* const now = row ? nullptr : &ahead;
            if (step == 2 * W) {
                add_weighted<Number, R, 2>(w, row, f / block, values, f, outputs, now);
            } else {
                add_weighted<Number, R, 1>(w, row, f / block, values, f, outputs, now);
            }
        });
    }
}

// How often it fetches ahead.
inline int value_steps(int pages, int page_size, int features) {
    return pages * (page_size / 2) * ((features / W + 1) / 2);
}

}  // namespace
}  // namespace ktchat::KTCHAT_ISA
