// The state of a gated delta net's value head, (panels, key, kPanel): lanes are values, and a panel
// of all keys stays in the L1 cache while it is used. What is done to one panel needs no other.

namespace ktchat::KTCHAT_ISA {
namespace {

// ---- token by token -----------------------------------------------------------------------------

constexpr int kPanelVecs = kPanel / W;
constexpr int kChains = 8 / kPanelVecs > 0 ? 8 / kPanelVecs : 1;  // hide the latency of additions

// error = v - k @ (decay * S), of one panel.
inline void panel_error(const float* s, const float* k, int key, Decay decay, const float* v,
                        Vec (&error)[kPanelVecs]) {
    Vec acc[kChains][kPanelVecs] = {};
    int i = 0;
    for (; i + kChains <= key; i += kChains) {
        for (int u = 0; u < kChains; u++) {
            const float* row = s + (i + u) * kPanel;
            for (int p = 0; p < kPanelVecs; p++) acc[u][p] += k[i + u] * load(row + p * W);
        }
    }
    for (; i < key; i++) {
        for (int p = 0; p < kPanelVecs; p++) acc[0][p] += k[i] * load(s + i * kPanel + p * W);
    }
    for (int p = 0; p < kPanelVecs; p++) {
        Vec all = acc[0][p];
        for (int u = 1; u < kChains; u++) all += acc[u][p];
        error[p] = load(v + p * W) - (decay.keep * all + decay.change * all);
    }
}

// S = decay * S + outer(k, update); o = q @ S, of one panel. `later`: the panel to fetch meanwhile,
// for the arithmetic of one takes about as long as its way from memory.
inline void panel_update(float* s, const float* q, const float* k, int key, Decay decay,
                         const Vec (&update)[kPanelVecs], const float* later, float* o) {
    constexpr int U = kPanelVecs == 2 ? 2 : 1;
    Vec acc[U][kPanelVecs] = {};
    int i = 0;
    const auto one = [&](int u) {
        float* row = s + (i + u) * kPanel;
        for (int line = 0; line < kPanel; line += 16) {
            __builtin_prefetch(later + (i + u) * kPanel + line, 0, 2);
        }
        for (int p = 0; p < kPanelVecs; p++) {
            const Vec old = load(row + p * W);
            const Vec now = decay.keep * old + (decay.change * old + k[i + u] * update[p]);
            store(row + p * W, now);
            acc[u][p] += q[i + u] * now;
        }
    };
    for (; i + U <= key; i += U) {
        for (int u = 0; u < U; u++) one(u);
    }
    for (; i < key; i++) one(0);
    for (int p = 0; p < kPanelVecs; p++) {
        store(o + p * W, U == 2 ? acc[0][p] + acc[U - 1][p] : acc[0][p]);
    }
}

void delta_steps(const DeltaSteps& d) {
    const int64_t stride = static_cast<int64_t>(d.panels) * kPanel;
    float* s = d.state;
    for (int panel = 0; panel < d.panels; panel++) {
        const float* later = s + 2 * static_cast<int64_t>(d.key) * kPanel;
        for (int t = 0; t < d.n; t++) {
            float* v = d.v + t * stride + panel * kPanel;
            const float* k = d.k + static_cast<int64_t>(t) * d.key;
            const float* q = d.q + static_cast<int64_t>(t) * d.key;
            Vec update[kPanelVecs];
            panel_error(s, k, d.key, d.decays[t], v, update);
            for (int p = 0; p < kPanelVecs; p++) update[p] *= d.rates[t];
            panel_update(s, q, k, d.key, d.decays[t], update, later, v);
        }
        s += static_cast<int64_t>(d.key) * kPanel;
    }
}

// ---- chunks of tokens ---------------------------------------------------------------------------
//
// With G the sum of the log decays up to a token, D[t, i] = e^(G[t] - G[i]) and S the state before
// the chunk, the updates u of all its tokens solve a triangular system (the UT transform's):
//   u[t] = rate[t] * (v[t] - e^G[t] k[t] @ S - sum over i < t of D[t, i] (k[t] . k[i]) u[i])
//   o[t] = e^G[t] q[t] @ S + sum over i <= t of D[t, i] (q[t] . k[i]) u[i]
//   S    = e^G[last] S + sum over i of outer(k[i], D[last, i] u[i])
// No exponent is positive.

constexpr int kTileRows = W == 16 ? 8 : 4;
constexpr int kTileCols = 2 * W;
static_assert(kChunkRows % kTileRows == 0 && kPanel % kTileCols == 0 && kChunk == kPanel);

// acc += a (R, depth) @ b, two vectors of the columns of b (depth, kPanel).
template <int R>
inline void multiply_add(const float* a, int64_t stride, const float* b, int depth,
                         Vec (&acc)[R][2]) {
    for (int i = 0; i < depth; i++, b += kPanel) {
        const Vec left = load(b), right = load(b + W);
#pragma GCC unroll 8
        for (int r = 0; r < R; r++) {
            const float x = a[r * stride + i];
            acc[r][0] += x * left;
            acc[r][1] += x * right;
        }
    }
}

void delta_products(const float* q, const float* k, int rows, int key, float* columns, float* kk,
                    float* qk) {
    for (int i = 0; i < key; i++) {
        float* column = columns + i * kChunk;
        for (int t = 0; t < rows; t++) column[t] = k[static_cast<int64_t>(t) * key + i];
        for (int t = rows; t < kChunk; t++) column[t] = 0;
    }
    for (int r = 0; r < rows; r += kTileRows) {
        for (int col = 0; col < kChunk; col += kTileCols) {
            for (const auto& [left, out] : {std::pair{k, kk}, std::pair{q, qk}}) {
                Vec acc[kTileRows][2] = {};
                multiply_add(left + static_cast<int64_t>(r) * key, key, columns + col, key, acc);
                for (int i = 0; i < kTileRows; i++) {
                    store(out + (r + i) * kChunk + col, acc[i][0]);
                    store(out + (r + i) * kChunk + col + W, acc[i][1]);
                }
            }
        }
    }
}

// What decays and rates make of a chunk's products.
struct ChunkFactors {
    alignas(64) float solve[kChunk][kChunk];   // -rate[t] D[t, i] (k[t] . k[i]), i < t
    alignas(64) float attend[kChunk][kChunk];  // D[t, i] (q[t] . k[i]), i <= t
    alignas(64) float begin[kChunk];           // e^G[t]
    alignas(64) float end[kChunk];             // D[last, t]

    explicit ChunkFactors(const DeltaChunk& d) {
        const double last = d.logs[d.rows - 1];
        for (int t = 0; t < kChunk; t++) {
            begin[t] = t < d.rows ? static_cast<float>(d.logs[t]) : 0;
            end[t] = t < d.rows ? static_cast<float>(last - d.logs[t]) : 0;
        }
        exp_row(begin);
        exp_row(end);
        for (int t = 0; t < d.rows; t++) {
            float* row = attend[t];
            for (int i = 0; i < kChunk; i++) {
                row[i] = i < t ? static_cast<float>(d.logs[t] - d.logs[i]) : 0;
            }
            exp_row(row);
            for (int i = 0; i < kChunk; i += W) {
                const Vec decay = load(row + i);
                store(solve[t] + i, -d.rates[t] * decay * load(d.kk + t * kChunk + i));
                store(row + i, decay * load(d.qk + t * kChunk + i));
            }
            std::memset(solve[t] + t, 0, static_cast<size_t>(kChunk - t) * sizeof(float));
            std::memset(row + t + 1, 0, static_cast<size_t>(kChunk - t - 1) * sizeof(float));
        }
    }

    static void exp_row(float* row) {
        for (int i = 0; i < kChunk; i += W) store(row + i, exp(load(row + i)));
    }
};

// The updates of kTileRows tokens from t on, for two vectors of values at `col`; those before t are
// in `u` (kChunk, kPanel), where these go too.
inline void solve_tile(const DeltaChunk& d, const ChunkFactors& f, int t, const float* s,
                       const float* v, int64_t v_stride, float* u, int col) {
    Vec acc[kTileRows][2] = {};
    multiply_add(d.k + static_cast<int64_t>(t) * d.key, d.key, s + col, d.key, acc);
    for (int r = 0; r < kTileRows; r++) {
        const float rate = d.rates[t + r], begin = f.begin[t + r];
        const float* own = v + (t + r) * v_stride + col;
        acc[r][0] = rate * (load(own) - begin * acc[r][0]);
        acc[r][1] = rate * (load(own + W) - begin * acc[r][1]);
    }
    multiply_add(f.solve[t], kChunk, u + col, t, acc);
#pragma GCC unroll 8
    for (int r = 0; r < kTileRows; r++) {
#pragma GCC unroll 8
        for (int i = 0; i < r; i++) {
            acc[r][0] += f.solve[t + r][t + i] * acc[i][0];
            acc[r][1] += f.solve[t + r][t + i] * acc[i][1];
        }
        store(u + (t + r) * kPanel + col, acc[r][0]);
        store(u + (t + r) * kPanel + col + W, acc[r][1]);
    }
}

// The outputs of kTileRows tokens from t on, in place of their values.
inline void output_tile(const DeltaChunk& d, const ChunkFactors& f, int t, const float* s,
                        const float* u, float* o, int64_t o_stride, int col) {
    Vec acc[kTileRows][2] = {};
    multiply_add(d.q + static_cast<int64_t>(t) * d.key, d.key, s + col, d.key, acc);
    for (int r = 0; r < kTileRows; r++) {
        acc[r][0] *= f.begin[t + r];
        acc[r][1] *= f.begin[t + r];
    }
    multiply_add(f.attend[t], kChunk, u + col, t + kTileRows, acc);
    for (int r = 0; r < kTileRows; r++) {
        store(o + (t + r) * o_stride + col, acc[r][0]);
        store(o + (t + r) * o_stride + col + W, acc[r][1]);
    }
}

// R keys of the state, from key i on, after the chunk; `u` is already decayed to its end.
template <int R>
inline void state_tile(const DeltaChunk& d, int i, float* s, const float* u, int col) {
    Vec acc[R][2] = {};
    multiply_add(d.k_columns + i * kChunk, kChunk, u + col, d.rows, acc);
    for (int r = 0; r < R; r++) {
        for (int half = 0; half < 2; half++) {
            float* row = s + (i + r) * kPanel + col + half * W;
            const Vec old = load(row);
            store(row, d.decay.keep * old + (d.decay.change * old + acc[r][half]));
        }
    }
}

void delta_chunk(const DeltaChunk& d) {
    const ChunkFactors factors(d);
    alignas(64) float u[kChunk * kPanel];
    const int64_t stride = static_cast<int64_t>(d.panels) * kPanel;
    float* s = d.state;
    for (int panel = 0; panel < d.panels; panel++) {
        float* v = d.v + panel * kPanel;
        for (int col = 0; col < kPanel; col += kTileCols) {
            for (int t = 0; t < d.rows; t += kTileRows) {
                solve_tile(d, factors, t, s, v, stride, u, col);
            }
            for (int t = 0; t < d.rows; t += kTileRows) {
                output_tile(d, factors, t, s, u, v, stride, col);
            }
        }
        for (int t = 0; t < d.rows; t++) {
            for (int i = 0; i < kPanel; i += W) {
                store(u + t * kPanel + i, factors.end[t] * load(u + t * kPanel + i));
            }
        }
        for (int col = 0; col < kPanel; col += kTileCols) {
            int i = 0;
            for (; i + kTileRows <= d.key; i += kTileRows) {
                state_tile<kTileRows>(d, i, s, u, col);
            }
            for (; i < d.key; i++) state_tile<1>(d, i, s, u, col);
        }
        s += static_cast<int64_t>(d.key) * kPanel;
    }
}

}  // namespace
}  // namespace ktchat::KTCHAT_ISA
