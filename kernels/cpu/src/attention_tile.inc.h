// Attention of a few query rows over one range of the KV cache, in tiles of positions: scores exist
// only for one tile, and the softmax is online (Milakov and Gimelshein, 2018; Dao et al., 2022).
// Keys and values are widened to float32 once a tile and shared by all query rows.

namespace ktchat::KTCHAT_ISA {
namespace {

constexpr int kTile = 32;  // positions; a multiple of W

inline int padded(int features) { return (features + W - 1) / W * W; }

struct TileBuffers {
    float* queries;  // (rows, dk), scaled and zero-padded
    float* keys;     // (kTile, dk)
    float* values;   // (kTile, dv); the keys themselves when values are part of them
    float* scores;   // (rows, kTile)
    int dk;
    int dv;
    int value_stride;
};

size_t attention_scratch(int rows, int key, int value) {
    const size_t dk = static_cast<size_t>(padded(key)), dv = static_cast<size_t>(padded(value));
    return (static_cast<size_t>(rows) + kTile) * dk + kTile * dv +
           static_cast<size_t>(rows) * kTile;
}

TileBuffers lay_out(const AttentionTile& a) {
    TileBuffers b;
    b.dk = padded(a.key);
    b.dv = padded(a.value);
    b.queries = a.scratch;
    b.keys = b.queries + static_cast<size_t>(a.rows) * static_cast<size_t>(b.dk);
    b.scores = b.keys + kTile * b.dk;
    b.values = a.values ? b.scores + static_cast<size_t>(a.rows) * kTile : b.keys;
    b.value_stride = a.values ? b.dv : b.dk;
    return b;
}

inline const uint16_t* cache_row(const AttentionTile& a, const uint16_t* base, size_t page_stride,
                                 int features, int64_t position) {
    const int64_t number = position / a.page_size;
    const int64_t page = a.ring ? number % a.ring : a.pages[number];
    return base + static_cast<size_t>(page) * page_stride +
           static_cast<size_t>(position % a.page_size * features);
}

// `count` cache rows from position `begin` on as float32, zeros to the end of row and tile.
void widen(const AttentionTile& a, const uint16_t* base, size_t page_stride, int features,
           int64_t begin, int count, float* out, int stride) {
    for (int i = 0; i < count; i++, out += stride) {
        const uint16_t* row = cache_row(a, base, page_stride, features, begin + i);
        int f = 0;
        for (; f + W <= features; f += W) store(out + f, load_half(row + f));
        if (f < features) store(out + f, F16::part(row + f, features - f));
    }
    for (int i = count; i < kTile; i++, out += stride) {
        std::memset(out, 0, static_cast<size_t>(stride) * sizeof(float));
    }
}

// Asks for the next tile's cache rows, a few lines at a time between the arithmetic of this tile:
// the hardware cannot foresee the scattered pages, and a core has few outstanding misses.
class Ahead {
public:
    Ahead(const AttentionTile& a, int64_t begin, int steps) {
        const int64_t end = begin + kTile < a.end ? begin + kTile : a.end;
        for (int64_t p = begin; p < end; p++) {
            add(cache_row(a, a.keys, a.key_page_stride, a.key, p), a.key);
            if (a.values) add(cache_row(a, a.values, a.value_page_stride, a.value, p), a.value);
        }
        lines_ = (total_ + steps - 1) / steps;
    }
    inline void step() {
        for (int i = 0; i < lines_ && row_ < rows_; i++) {
            __builtin_prefetch(at_);
            at_ += 64;
            if (at_ < end_[row_]) continue;
            row_++;
            at_ = row_ < rows_ ? begin_[row_] : nullptr;
        }
    }

private:
    void add(const uint16_t* row, int features) {
        begin_[rows_] = reinterpret_cast<const char*>(row);
        end_[rows_] = reinterpret_cast<const char*>(row + features);
        if (rows_ == 0) at_ = begin_[0];
        rows_++;
        total_ += (features * 2 + 63) / 64;
    }

    const char* begin_[2 * kTile];
    const char* end_[2 * kTile];
    const char* at_ = nullptr;
    int rows_ = 0;
    int row_ = 0;
    int total_ = 0;
    int lines_ = 0;
};

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

// One step of the online softmax: one row's scores become weights relative to the running maximum,
// and what was summed before is rescaled to it. The row sees positions first .. limit - 1 of the
// tile.
inline void softmax_step(float* scores, int64_t first, int64_t limit, float& running_max,
                         float& running_sum, float* out, int dv) {
    for (int64_t j = 0; j < first && j < kTile; j++) scores[j] = -INFINITY;
    for (int64_t j = limit > 0 ? limit : 0; j < kTile; j++) scores[j] = -INFINITY;
    Vec best = load(scores);
    for (int j = W; j < kTile; j += W) best = max(best, load(scores + j));
    const float tile_max = maximum(best);
    const float next = tile_max > running_max ? tile_max : running_max;
    if (next == -INFINITY) {  // nothing visible yet
        std::memset(scores, 0, kTile * sizeof(float));
        return;
    }
    Vec part = {};
    for (int j = 0; j < kTile; j += W) {
        const Vec weight = exp(load(scores + j) - next);
        store(scores + j, weight);
        part += weight;
    }
    if (next != running_max) {
        const float shrink = exp1(running_max - next);
        running_sum *= shrink;
        for (int f = 0; f < dv; f += W) store(out + f, load(out + f) * shrink);
        running_max = next;
    }
    running_sum += sum(part);
}

void attention_tile(const AttentionTile& a) {
    const TileBuffers b = lay_out(a);
    for (int r = 0; r < a.rows; r++) {
        float* row = b.queries + r * b.dk;
        std::memset(row + b.dk - W, 0, W * sizeof(float));
        for (int f = 0; f < a.key; f++) row[f] = a.queries[r][f] * a.scale;
        a.maxima[r] = a.sinks ? a.sinks[r] : -INFINITY;
        a.sums[r] = a.sinks ? 1 : 0;
        std::memset(a.outputs + r * b.dv, 0, static_cast<size_t>(b.dv) * sizeof(float));
    }
    for (int64_t begin = a.begin; begin < a.end; begin += kTile) {
        const int count = static_cast<int>(a.end - begin < kTile ? a.end - begin : kTile);
        widen(a, a.keys, a.key_page_stride, a.key, begin, count, b.keys, b.dk);
        if (a.values) {
            widen(a, a.values, a.value_page_stride, a.value, begin, count, b.values, b.dv);
        }
        Ahead ahead(a, begin + kTile, a.rows / 4 * (kTile * 4 / W) + a.rows % 4 * (kTile / W));
        int r = 0;
        for (; r + 4 <= a.rows; r += 4) {
            score<4>(b.queries + r * b.dk, b.keys, b.dk, b.scores + r * kTile, ahead);
        }
        for (; r < a.rows; r++) {
            score<1>(b.queries + r * b.dk, b.keys, b.dk, b.scores + r * kTile, ahead);
        }
        for (r = 0; r < a.rows; r++) {
            const int64_t limit = a.limits[r] - begin;
            softmax_step(b.scores + r * kTile, a.firsts[r] - begin, limit < count ? limit : count,
                         a.maxima[r], a.sums[r], a.outputs + r * b.dv, b.dv);
        }
        for (r = 0; r + 4 <= a.rows; r += 4) {
            add_values<4>(b.scores + r * kTile, b, count, a.outputs + r * b.dv);
        }
        for (; r < a.rows; r++) add_values<1>(b.scores + r * kTile, b, count, a.outputs + r * b.dv);
    }
}

void attention_merge(const float* outputs, size_t stride, const float* maxima, const float* sums,
                     size_t sum_stride, int splits, int value, float* out) {
    float max_of_all = -INFINITY;
    for (int s = 0; s < splits; s++) {
        const float m = maxima[static_cast<size_t>(s) * sum_stride];
        max_of_all = m > max_of_all ? m : max_of_all;
    }
    double sum_of_all = 0;
    for (int f = 0; f < value; f++) out[f] = 0;
    for (int s = 0; s < splits; s++) {
        const size_t at = static_cast<size_t>(s) * sum_stride;
        if (maxima[at] == -INFINITY) continue;
        const float weight = exp1(maxima[at] - max_of_all);
        sum_of_all += static_cast<double>(weight) * static_cast<double>(sums[at]);
        add_scaled(out, weight, outputs + static_cast<size_t>(s) * stride, value);
    }
    const float scale = static_cast<float>(1.0 / sum_of_all);
    for (int f = 0; f < value; f++) out[f] *= scale;
}

}  // namespace
}  // namespace ktchat::KTCHAT_ISA
