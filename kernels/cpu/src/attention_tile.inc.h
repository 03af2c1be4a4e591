// Attention of a few query rows over one range of the KV cache, in tiles of positions: scores exist
// only for one tile, and the softmax is online (Milakov and Gimelshein, 2018; Dao et al., 2022).
// Scores, maxima and sinks are in units of ln 2.

namespace ktchat::KTCHAT_ISA {
namespace {

constexpr float kLog2e = 1.44269504088896341f;

// 2^x within 1e-7 of it for x <= 0; not below 2^-126.
inline Vec exp2(Vec x) {
    x = x > -126.0f ? x : splat(-126.0f);
    const float magic = 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer
    const Vec shifted = x + magic, r = x - (shifted - magic);
    Vec p = splat(1.327645183e-3f);
    p = p * r + 9.675541173e-3f;
    p = p * r + 5.550713336e-2f;
    p = p * r + 2.402211973e-1f;
    p = p * r + 6.93146967e-1f;
    p = p * r + 1.000000072f;
    return (Vec)((IntVec)p + ((IntVec)shifted << 23));
}

inline float exp2_of(float x) { return exp2(splat(x))[0]; }

struct TileBuffers {
    Queries queries;
    Weights weights;
    float* scores;        // (rows, kTile)
    float* value_scales;  // (blocks, kTile)
    int16_t* as_values;   // of a tile whose values are parts of its keys
    size_t bytes = 0;
};

inline int blocks_of(int features, int block) { return (features + block - 1) / block; }

// The next `count` of a T behind `at` in scratch memory, which is null while it is only measured.
template <class T>
inline T* carve(uint8_t* scratch, size_t& at, int count) {
    T* part = scratch ? reinterpret_cast<T*>(scratch + at) : nullptr;
    at += (static_cast<size_t>(count) * sizeof(T) + 63) / 64 * 64;
    return part;
}

TileBuffers lay_out(uint8_t* scratch, int rows, int key, int value, const KvFormat& format,
                    bool latent) {
    TileBuffers b;
    b.queries.stride = padded(key);
    b.queries.blocks = blocks_of(key, format.block);
    b.weights.blocks = blocks_of(value, format.block);
    b.queries.numbers = carve<int16_t>(scratch, b.bytes, rows * b.queries.stride);
    b.queries.scales = carve<float>(scratch, b.bytes, rows * b.queries.blocks);
    b.weights.numbers = carve<int16_t>(scratch, b.bytes, rows * b.weights.blocks * kTile);
    b.weights.gains = carve<float>(scratch, b.bytes, rows * b.weights.blocks);
    b.weights.shrinks = carve<float>(scratch, b.bytes, rows);
    b.scores = carve<float>(scratch, b.bytes, rows * kTile);
    b.value_scales = carve<float>(scratch, b.bytes, b.weights.blocks * kTile);
    b.as_values = carve<int16_t>(scratch, b.bytes, latent ? kTile * padded(value) : 0);
    return b;
}

size_t attention_scratch(int rows, int key, int value, const KvFormat& format, bool latent) {
    const TileBuffers b = lay_out(nullptr, rows, key, value, format, latent);
    return b.bytes / sizeof(float);
}

// A query row as whole numbers. Its scales take the softmax's along.
void round_query(const Queries& q, int row, const AttentionTile& a) {
    const float* x = a.queries[row];
    int16_t* numbers = q.numbers + row * q.stride;
    std::memset(numbers + q.stride - 16, 0, 16 * sizeof(int16_t));
    for (int b = 0, first = 0; b < q.blocks; b++, first += a.format->block) {
        const int n = least(a.format->block, a.key - first);
        const float step = step_of(*a.format, magnitudes(x + first, n));
        const float factor = step > 0 ? 1.0f / step : 0.0f;
        q.scales[row * q.blocks + b] = step * a.scale * kLog2e;
        sweep(n, [&](int64_t i, int width) {
            const IntVec whole = rounded(take(x + first + i, width), factor, 32767);
            for (int k = 0; k < width; k++) {
                numbers[first + i + k] = static_cast<int16_t>(whole[k]);
            }
        });
    }
}

// The scales of a tile's values as float32 (blocks, kTile), zeros behind the last page.
void widen_scales(const AttentionTile& a, const TileBuffers& b, const uint16_t* const* pages,
                  int count) {
    for (int block = 0; block < b.weights.blocks; block++) {
        float* to = b.value_scales + block * kTile;
        for (int j = 0; j < kTile; j += W) {
            Vec scales = {};
            if (j < count) {  // else there may be no page
                scales = load_half(pages[j / a.page_size] + block * a.page_size + j % a.page_size);
            }
            store(to + j, scales);
        }
    }
}

constexpr int kTileVectors = kTile / W;

// The largest of a tile.
inline float maximum_of(const Vec* v) {
    Vec best = v[0];
    for (int i = 1; i < kTileVectors; i++) best = max(best, v[i]);
    return maximum(best);
}

// Weights, which are not negative, as whole numbers; what those are multiples of.
inline float round_weights(const KvFormat& format, const Vec* weights, int16_t* numbers) {
    Vec total = weights[0];
    for (int i = 1; i < kTileVectors; i++) total += weights[i];
    const float step = step_of(format, {maximum_of(weights), sum(total)});
    const float factor = step > 0 ? 1.0f / step : 0.0f;
    for (int i = 0; i < kTileVectors; i += 2) {
        store_shorts(numbers + i * W, weights[i] * factor, weights[i + 1] * factor);
    }
    return step;
}

// One step of the online softmax: one row's scores become weights relative to their maximum, times
// the scales of values, rounded. The row sees positions first .. limit - 1 of the tile.
void softmax_step(const AttentionTile& a, const TileBuffers& b, int row, int64_t first,
                  int64_t limit) {
    const Weights& w = b.weights;
    float* scores = b.scores + row * kTile;
    int16_t* numbers = w.numbers + row * w.blocks * kTile;
    float* gains = w.gains + row * w.blocks;
    for (int64_t j = 0; j < first && j < kTile; j++) scores[j] = -INFINITY;
    for (int64_t j = limit > 0 ? limit : 0; j < kTile; j++) scores[j] = -INFINITY;
    Vec v[kTileVectors];
    for (int i = 0; i < kTileVectors; i++) v[i] = load(scores + i * W);
    const float tile_max = maximum_of(v), before = a.maxima[row];
    if (tile_max == -INFINITY) {  // nothing visible here
        std::memset(numbers, 0, static_cast<size_t>(w.blocks * kTile) * sizeof(int16_t));
        for (int block = 0; block < w.blocks; block++) gains[block] = 0;
        w.shrinks[row] = 1;
        return;
    }
    Vec part = {};
    for (int i = 0; i < kTileVectors; i++) {
        v[i] = exp2(v[i] - tile_max);
        part += v[i];
    }
    const float next = tile_max > before ? tile_max : before;
    const float shrink = before == -INFINITY ? 0.0f : exp2_of(before - next);
    const float grow = exp2_of(tile_max - next);
    a.sums[row] = a.sums[row] * shrink + sum(part) * grow;
    a.maxima[row] = next;
    w.shrinks[row] = shrink;
    for (int block = 0; block < w.blocks; block++, numbers += kTile) {
        Vec scaled[kTileVectors];
        const float* scales = b.value_scales + block * kTile;
        for (int i = 0; i < kTileVectors; i++) scaled[i] = v[i] * load(scales + i * W);
        gains[block] = round_weights(*a.format, scaled, numbers) * grow;
    }
}

template <class Number>
void attend_tiles(const AttentionTile& a, const TileBuffers& b) {
    const int size = a.page_size, wide = padded(a.value), block = a.format->block;
    const size_t key_numbers = static_cast<size_t>(size * b.queries.stride) * sizeof(Number);
    const size_t value_numbers = static_cast<size_t>(size * wide) * sizeof(Number);
    const auto page_at = [&](const uint8_t* base, size_t stride, int64_t number) {
        const int64_t page = a.ring ? number % a.ring : a.pages[number];
        return base + static_cast<size_t>(page) * stride;
    };
    for (int64_t begin = a.begin; begin < a.end; begin += kTile) {
        const int64_t number = begin / size, last = (a.end + size - 1) / size;
        const int pages = static_cast<int>(least<int64_t>(last - number, kTile / size));
        const uint8_t* keys[kTilePages];
        const uint8_t* values[kTilePages];
        const uint16_t* scales[kTilePages];
        for (int p = 0; p < pages; p++) {
            keys[p] = page_at(a.keys, a.key_page_stride, number + p);
            values[p] = a.values ? page_at(a.values, a.value_page_stride, number + p) : nullptr;
            const uint8_t* of_page = a.values ? values[p] + value_numbers : keys[p] + key_numbers;
            scales[p] = reinterpret_cast<const uint16_t*>(of_page);
            Ahead ahead;
            if (a.values) ahead.add(values[p], value_numbers);
            ahead.begin(score_steps(b.queries, size));
            score_page<Number>(b.queries, a.rows, keys[p], size, block, b.scores + p * size, &ahead);
        }
        widen_scales(a, b, scales, pages * size);
        for (int r = 0; r < a.rows; r++) {
            const int64_t limit = least<int64_t>(a.limits[r], a.end);
            softmax_step(a, b, r, a.firsts[r] - begin, limit - begin);
        }
        Ahead ahead;
        for (int64_t next = number + pages; next < least(last, number + 2 * pages); next++) {
            ahead.add(page_at(a.keys, a.key_page_stride, next), key_numbers);
        }
        ahead.begin(value_steps(pages, size, wide));
        if (a.values) {
            Values<Number> of{{}, pages, size, wide};
            for (int p = 0; p < pages; p++) of.pages[p] = reinterpret_cast<const Number*>(values[p]);
            add_values(b.weights, a.rows, block, of, a.outputs, ahead);
        } else {
            Values<int16_t> of{{}, pages, size, wide};
            for (int p = 0; p < pages; p++) {
                int16_t* here = b.as_values + p * size * wide;
                keys_as_values(reinterpret_cast<const Number*>(keys[p]), size, wide, here);
                of.pages[p] = here;
            }
            add_values(b.weights, a.rows, block, of, a.outputs, ahead);
        }
    }
}

void attention_tile(const AttentionTile& a) {
    uint8_t* scratch = reinterpret_cast<uint8_t*>(a.scratch);
    const TileBuffers b = lay_out(scratch, a.rows, a.key, a.value, *a.format, !a.values);
    for (int r = 0; r < a.rows; r++) {
        round_query(b.queries, r, a);
        a.maxima[r] = a.sinks ? a.sinks[r] * kLog2e : -INFINITY;
        a.sums[r] = a.sinks ? 1 : 0;
    }
    std::memset(a.outputs, 0, static_cast<size_t>(a.rows * padded(a.value)) * sizeof(float));
    const auto attend = a.format->bytes == 1 ? attend_tiles<int8_t> : attend_tiles<int16_t>;
    attend(a, b);
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
        const float weight = exp2_of(maxima[at] - max_of_all);
        sum_of_all += static_cast<double>(weight) * static_cast<double>(sums[at]);
        add_scaled(out, weight, outputs + static_cast<size_t>(s) * stride, value);
    }
    const float scale = static_cast<float>(1.0 / sum_of_all);
    for (int f = 0; f < value; f++) out[f] *= scale;
}

}  // namespace
}  // namespace ktchat::KTCHAT_ISA
