// Attention of a few query rows over one range of the KV cache, in tiles of positions: scores exist
// only for one tile, and the softmax is online (Milakov and Gimelshein, 2018; Dao et al., 2022).
// Keys and values are widened to float32 once a tile and shared by all query rows.

namespace ktchat::KTCHAT_ISA {
namespace {

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
    const CacheRows keys{a.keys, a.key_page_stride, a.key};
    const CacheRows values{a.values, a.value_page_stride, a.value};
    for (int64_t begin = a.begin; begin < a.end; begin += kTile) {
        const int count = static_cast<int>(a.end - begin < kTile ? a.end - begin : kTile);
        const int64_t end = begin + count, after = a.end - end < kTile ? a.end : end + kTile;
        widen(Stretches(a, keys, begin, end), b.keys, b.dk);
        Ahead ahead(ahead_steps(a.rows, b));
        ahead.add(Stretches(a, keys, end, after));
        if (a.values) ahead.add(Stretches(a, values, end, after));
        score_rows(b, a.rows, ahead);
        for (int r = 0; r < a.rows; r++) {
            const int64_t limit = a.limits[r] - begin;
            softmax_step(b.scores + r * kTile, a.firsts[r] - begin, limit < count ? limit : count,
                         a.maxima[r], a.sums[r], a.outputs + r * b.dv, b.dv);
        }
        if (a.values) widen(Stretches(a, values, begin, end), b.values, b.dv);
        value_rows(b, a.rows, count, a.outputs, ahead);
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
