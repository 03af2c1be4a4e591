// The two products of attention with a tile: scores of queries with keys, and sums of values.

namespace ktchat::KTCHAT_ISA {
namespace {

// Scores of Q query rows against the tile, W sums at a time.
template <int Q>
inline void score(const float* q, const float* keys, int dk, float* scores, Ahead& ahead) {
    constexpr int K = W / Q;
    for (int j = 0; j < kTile; j += K) {
        ahead.step();
        Vec acc[W] = {};
        for (int f = 0; f < dk; f += W) {
            Vec key[K];
            for (int k = 0; k < K; k++) key[k] = load(keys + (j + k) * dk + f);
            for (int i = 0; i < Q; i++) {
                const Vec query = load(q + i * dk + f);
                for (int k = 0; k < K; k++) acc[i * K + k] += query * key[k];
            }
        }
        const Vec all = sums(acc);
        for (int i = 0; i < Q; i++) {
            std::memcpy(scores + i * kTile + j, reinterpret_cast<const float*>(&all) + i * K,
                        K * sizeof(float));
        }
    }
}

// outputs += scores @ values for Q rows and V vectors of features.
template <int Q, int V>
inline void add_weighted(const float* scores, const float* values, int value_stride, int count,
                         float* out, int dv) {
    Vec acc[Q][V];
    for (int i = 0; i < Q; i++) {
        for (int v = 0; v < V; v++) acc[i][v] = load(out + i * dv + v * W);
    }
    for (int j = 0; j < count; j++) {
        Vec value[V];
        for (int v = 0; v < V; v++) value[v] = load(values + j * value_stride + v * W);
        for (int i = 0; i < Q; i++) {
            const float weight = scores[i * kTile + j];
            for (int v = 0; v < V; v++) acc[i][v] += weight * value[v];
        }
    }
    for (int i = 0; i < Q; i++) {
        for (int v = 0; v < V; v++) store(out + i * dv + v * W, acc[i][v]);
    }
}

template <int Q>
inline void add_values(const float* scores, const TileBuffers& b, int count, float* out) {
    int f = 0;
    for (; f + 4 * W <= b.dv; f += 4 * W) {
        add_weighted<Q, 4>(scores, b.values + f, b.value_stride, count, out + f, b.dv);
    }
    for (; f < b.dv; f += W) {
        add_weighted<Q, 1>(scores, b.values + f, b.value_stride, count, out + f, b.dv);
    }
}

// How often score_rows fetches ahead.
inline int ahead_steps(int rows, const TileBuffers&) {
    return rows / 4 * (kTile * 4 / W) + rows % 4 * (kTile / W);
}

void score_rows(const TileBuffers& b, int rows, Ahead& ahead) {
    int r = 0;
    for (; r + 4 <= rows; r += 4) {
        score<4>(b.queries + r * b.dk, b.keys, b.dk, b.scores + r * kTile, ahead);
    }
    for (; r < rows; r++) {
        score<1>(b.queries + r * b.dk, b.keys, b.dk, b.scores + r * kTile, ahead);
    }
}

// outputs += weights @ values over `count` positions.
void value_rows(const TileBuffers& b, int rows, int count, float* outputs, Ahead&) {
    int r = 0;
    for (; r + 4 <= rows; r += 4) {
        add_values<4>(b.scores + r * kTile, b, count, outputs + r * b.dv);
    }
    for (; r < rows; r++) add_values<1>(b.scores + r * kTile, b, count, outputs + r * b.dv);
}

}  // namespace
}  // namespace ktchat::KTCHAT_ISA
