// The two products of attention with a tile for 16 registers of 8 floats: 12 sums at once, which is
// what keeps two multipliers of 4 cycles busy, and 4 registers for what is multiplied.

namespace ktchat::KTCHAT_ISA {
namespace {

// Lane i: the sum over all lanes of v[i].
inline __m128 four_sums(const Vec* v) {
    const __m256 a = (__m256)v[0], b = (__m256)v[1], c = (__m256)v[2], d = (__m256)v[3];
    const __m256d ab = (__m256d)(_mm256_unpacklo_ps(a, b) + _mm256_unpackhi_ps(a, b));
    const __m256d cd = (__m256d)(_mm256_unpacklo_ps(c, d) + _mm256_unpackhi_ps(c, d));
    const __m256 all = (__m256)_mm256_unpacklo_pd(ab, cd) + (__m256)_mm256_unpackhi_pd(ab, cd);
    return _mm256_castps256_ps128(all) + _mm256_extractf128_ps(all, 1);
}

constexpr int kScoreKeys = 4;

// Scores of Q query rows against the tile.
template <int Q>
inline void score(const float* q, const float* keys, int dk, float* scores, Ahead& ahead) {
    for (int j = 0; j < kTile; j += kScoreKeys, keys += kScoreKeys * dk) {
        ahead.step();
        Vec acc[Q][kScoreKeys] = {};
        for (int f = 0; f < dk; f += W) {
            Vec query[Q];
            for (int i = 0; i < Q; i++) query[i] = load(q + i * dk + f);
            for (int k = 0; k < kScoreKeys; k++) {
                const Vec key = load(keys + k * dk + f);
                for (int i = 0; i < Q; i++) acc[i][k] += query[i] * key;
            }
        }
        for (int i = 0; i < Q; i++) _mm_storeu_ps(scores + i * kTile + j, four_sums(acc[i]));
    }
}

constexpr int kValueStep = 8;  // positions between two steps of fetching ahead

// outputs += scores @ values for Q rows and V vectors of features.
template <int Q, int V>
inline void add_weighted(const float* scores, const float* values, int value_stride, int count,
                         float* out, int dv, Ahead& ahead) {
    Vec acc[Q][V];
    for (int i = 0; i < Q; i++) {
        for (int v = 0; v < V; v++) acc[i][v] = load(out + i * dv + v * W);
    }
    for (int j = 0; j < count; j++, values += value_stride) {
        if (j % kValueStep == 0) ahead.step();
        Vec value[V];
        for (int v = 0; v < V; v++) value[v] = load(values + v * W);
        for (int i = 0; i < Q; i++) {
            const Vec weight = splat(scores[i * kTile + j]);
            for (int v = 0; v < V; v++) acc[i][v] += weight * value[v];
        }
    }
    for (int i = 0; i < Q; i++) {
        for (int v = 0; v < V; v++) store(out + i * dv + v * W, acc[i][v]);
    }
}

template <int Q>
inline void add_values(const float* scores, const TileBuffers& b, int count, float* out,
                       Ahead& ahead) {
    for (int f = 0, step; f < b.dv; f += step) {
        const int left = (b.dv - f) / W;
        step = W * (left == 4 ? 2 : left < 3 ? left : 3);
        const float* values = b.values + f;
        if (step == 3 * W) {
            add_weighted<Q, 3>(scores, values, b.value_stride, count, out + f, b.dv, ahead);
        } else if (step == 2 * W) {
            add_weighted<Q, 2>(scores, values, b.value_stride, count, out + f, b.dv, ahead);
        } else {
            add_weighted<Q, 1>(scores, values, b.value_stride, count, out + f, b.dv, ahead);
        }
    }
}

// Rows that are scored together when `left` are left: threes, but not a single row behind one.
inline int next_rows(int left) { return left >= 5 || left == 3 ? 3 : left >= 2 ? 2 : 1; }


// How often both products together fetch ahead: memory is busy all the while.
inline int ahead_steps(int rows, const TileBuffers& b) {
    const int scores = (rows + 2) / 3 * (kTile / kScoreKeys);
    return scores + (rows / 4 + rows % 4) * ((b.dv / W + 2) / 3) * (kTile / kValueStep);
}

void score_rows(const TileBuffers& b, int rows, Ahead& ahead) {
    for (int r = 0, step; r < rows; r += step) {
        const float* q = b.queries + r * b.dk;
        float* scores = b.scores + r * kTile;
        step = next_rows(rows - r);
        if (step == 3) {
            score<3>(q, b.keys, b.dk, scores, ahead);
        } else if (step == 2) {
            score<2>(q, b.keys, b.dk, scores, ahead);
        } else {
            score<1>(q, b.keys, b.dk, scores, ahead);
        }
    }
}

void value_rows(const TileBuffers& b, int rows, int count, float* outputs, Ahead& ahead) {
    int r = 0;
    for (; r + 4 <= rows; r += 4) {
        add_values<4>(b.scores + r * kTile, b, count, outputs + r * b.dv, ahead);
    }
    for (; r < rows; r++) {
        add_values<1>(b.scores + r * kTile, b, count, outputs + r * b.dv, ahead);
    }
}

}  // namespace
}  // namespace ktchat::KTCHAT_ISA
